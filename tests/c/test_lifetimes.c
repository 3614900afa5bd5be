/* Who ends with whom: commands with their descendants, with the host, and not with the thread that started them.
 * test_lifetimes_no_pidfd.c runs all of this once more where the kernel refuses pidfds. */
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include "process_tools.h"

static tine_process_t *shell(const char *script, uint32_t flags) {
    tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
    options.stdin_mode = options.stdout_mode = TINE_STDIO_PIPE;
    options.flags = flags;
    return spawn_with(SH(script), &options);
}
/* Numbers, a line each, that the command writes first. */
static void read_numbers(int fd, pid_t *numbers, int count) {
    for (int i = 0; i < count; i++) {
        char text[20];
        size_t length = 0;
        while ((text[length] = hear(fd)) != '\n') CHECK(text[length] != 0 && ++length < sizeof text);
        numbers[i] = (pid_t)atoi(text);
        CHECK(numbers[i] > 1);
    }
}
static void check_gone(const pid_t *numbers, int count) {
    for (int i = 0; i < count; i++) CHECK(is_gone(numbers[i]));
}
static pid_t kill_one(pid_t pid) { return kill(pid, SIGKILL) == 0 ? pid : 0; }

/* ---- A command and its descendants ---- */
/* A child, one in a session of its own, and a daemon: an orphan in a session of its own. */
#define THREE                                                                                                                     \
    "sleep 100 & echo $!; setsid sh -c 'echo $$; exec sleep 100' & "                                                              \
    "setsid sh -c 'setsid sh -c \"echo \\$\\$; exec sleep 100\" &' ; "
#define READ_THREE(process, numbers) pid_t numbers[3]; read_numbers(tine_process_stdout_fd(process), numbers, 3)

TEST(a_tree_ends_when_it_is_killed) {
    finish(shell("exit 0", TINE_SPAWN_KILL_TREE)); /* the first one makes what all need */
    const int fds = test_count_fds();
    tine_process_t *process = shell(THREE "wait", TINE_SPAWN_KILL_TREE);
    READ_THREE(process, numbers);
    CHECK(tine_process_is_alive(process));
    CHECK_OK(tine_process_kill(process));
    CHECK_INT(code_of(process), -SIGKILL);
    check_gone(numbers, 3);
    tine_process_free(process);
    CHECK_INT(test_count_fds(), fds);
    CHECK_INT(test_count_children(), 0);
}

TEST(a_tree_ends_when_it_is_stopped) {
    for (int i = 0; i < 2; i++) {
        tine_process_t *process = shell(i ? "trap '' TERM; " THREE "while :; do wait; done" : THREE "wait", TINE_SPAWN_KILL_TREE);
        READ_THREE(process, numbers);
        CHECK_OK(tine_process_stop(process, i ? 50 : TINE_FOREVER));
        check_gone(numbers, 3);
        CHECK_INT(finish(process), i ? -SIGKILL : -SIGTERM);
    }
}

TEST(a_tree_ends_when_the_command_ends) {
    tine_process_t *process = shell(THREE "read line; exit 7", TINE_SPAWN_KILL_TREE);
    READ_THREE(process, numbers);
    tine_exit_info_t info = TINE_EXIT_INFO_INIT;
    CHECK_OK(tine_process_close_stdin(process));
    CHECK_INT(code_of(process), 7);
    check_gone(numbers, 3);
    CHECK_OK(tine_process_exit_info(process, &info));
    CHECK_INT(info.valid & TINE_EXIT_HAS_STATUS, TINE_EXIT_HAS_STATUS);
    CHECK_INT(info.valid & TINE_EXIT_HAS_TIMES, TINE_EXIT_HAS_TIMES);
    CHECK_INT(info.reason, TINE_REASON_EXIT);
    CHECK_INT(info.code, 7);
    tine_process_free(process);
}

TEST(a_tree_holds_no_pipe_when_the_command_has_ended) {
    tine_process_t *process = shell("setsid sleep 100 & echo hi", TINE_SPAWN_KILL_TREE);
    void *data = NULL;
    CHECK_OK(tine_process_communicate(process, NULL, 0, TINE_FOREVER, &data, NULL, NULL, NULL)); /* not TINE_PIPE_HELD */
    CHECK_TEXT(data, "hi\n");
    tine_free(data);
    CHECK_INT(finish(process), 0);
}

TEST(a_tree_ends_with_a_timeout) {
    const char *argv[] = { "sh", "-c", THREE "wait", NULL };
    tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
    void *data = NULL;
    size_t length = 0;
    int32_t code = 0;
    options.flags = TINE_SPAWN_KILL_TREE;
    CHECK_STATUS(tine_process_check_output(argv, &options, NULL, 0, 500, &data, &length, &code), TINE_ETIMEDOUT);
    char *next = data;
    for (int i = 0; i < 3 && *next != 0; i++) CHECK(is_gone((pid_t)strtol(next, &next, 10))), next += *next == '\n';
    tine_free(data);
    CHECK(code < 0);
    options.stdout_mode = TINE_STDIO_NULL;
    CHECK_STATUS(tine_process_call(argv, &options, 200, NULL), TINE_ETIMEDOUT);
    CHECK_INT(test_count_children(), 0); /* and the runner finds no orphan of this test */
}

TEST(the_command_of_a_tree_is_the_process_that_the_caller_knows) {
    tine_process_t *process = shell("trap 'exit 5' USR1; echo $$; while :; do sleep 0.01; done", TINE_SPAWN_KILL_TREE);
    pid_t number;
    read_numbers(tine_process_stdout_fd(process), &number, 1);
    CHECK_INT(tine_process_pid(process), number);
    CHECK_INT(getpgid(number), getpgid(0));
    CHECK_STATUS(tine_process_join(process, 0), TINE_ETIMEDOUT);
    CHECK_OK(tine_process_signal(process, SIGUSR1));
    CHECK_INT(code_of(process), 5);
    CHECK_OK(tine_process_signal(process, SIGUSR1));
    CHECK_OK(tine_process_kill(process));
    CHECK_OK(tine_process_stop(process, 0));
    tine_process_free(process);
    process = shell("kill -SEGV $$", TINE_SPAWN_KILL_TREE);
    CHECK_INT(finish(process), -SIGSEGV);
}

TEST(a_tree_that_leads_a_group_is_signalled_as_one) {
    const char *script = "trap : USR1; sh -c 'trap \"echo caught; exit\" USR1; echo $$; while :; do sleep 0.01; done' & "
                         "wait; exec sleep 100";
    tine_process_t *process = shell(script, TINE_SPAWN_KILL_TREE | TINE_SPAWN_NEW_GROUP);
    const int out = tine_process_stdout_fd(process);
    pid_t number;
    read_numbers(out, &number, 1);
    CHECK_INT(getpgid(number), tine_process_pid(process));
    CHECK_OK(tine_process_signal(process, SIGUSR1));
    CHECK_INT(hear(out), 'c');
    CHECK_OK(tine_process_kill(process));
    CHECK_INT(finish(process), -SIGKILL);
}

TEST(a_tree_in_a_pid_namespace_of_its_own_knows_that_its_host_lives) {
    if (under_asan()) SKIP("it looks for leaks in a process of its own, which the namespace has no room for at the end");
    if (unshare(CLONE_NEWPID) != 0) SKIP("only root makes namespaces");
    tine_process_t *process = shell("exec sleep 100", TINE_SPAWN_KILL_TREE | TINE_SPAWN_KILL_ON_PARENT_DEATH);
    CHECK_OK(tine_process_signal(process, SIGCONT)); /* looks up */
    CHECK_OK(tine_process_terminate(process));
    CHECK_INT(finish(process), -SIGTERM);
}

TEST(what_a_tree_cannot_start_is_told) {
    const char *argv[] = { "/no/such/program", NULL };
    tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
    tine_process_t *process = NULL;
    finish(shell("exit 0", TINE_SPAWN_KILL_TREE));
    const int fds = test_count_fds();
    options.flags = TINE_SPAWN_KILL_TREE;
    CHECK_STATUS(tine_process_spawn(argv, &options, &process), TINE_ENOENT);
    CHECK_MESSAGE("exec");
    CHECK_INT(tine_last_errno(), ENOENT);
    options.cwd = "/no/such/directory";
    argv[0] = "true";
    CHECK_STATUS(tine_process_spawn(argv, &options, &process), TINE_ENOENT);
    CHECK_MESSAGE("chdir");
    CHECK(process == NULL);
    CHECK_INT(test_count_fds(), fds);
    CHECK_INT(test_count_children(), 0);
}

TEST(the_code_of_a_tree_is_right_whoever_reaps) {
    for (int i = 0; i < 2; i++) {
        signal(SIGCHLD, i ? SIG_IGN : SIG_DFL);
        tine_process_t *process = shell("exit 9", TINE_SPAWN_KILL_TREE);
        if (!i) while (waitpid(-1, NULL, 0) > 0) {}
        CHECK_INT(finish(process), 9);
        process = shell("kill -KILL $$", TINE_SPAWN_KILL_TREE);
        if (!i) while (waitpid(-1, NULL, 0) > 0) {}
        CHECK_INT(finish(process), -SIGKILL);
    }
}

TEST(the_supervisor_of_a_tree_holds_nothing_of_the_host) {
    int ends[2];
    make_pipe(ends);
    tine_process_t *process = shell("echo $$; exec sleep 100", TINE_SPAWN_KILL_TREE);
    pid_t number;
    read_numbers(tine_process_stdout_fd(process), &number, 1);
    CHECK_INT(close(ends[1]), 0);
    CHECK_INT(hear(ends[0]), 0); /* the end of file: nobody else has it */
    CHECK_OK(tine_process_kill(process));
    CHECK_INT(finish(process), -SIGKILL);
}

TEST(a_tree_whose_supervisor_is_killed_loses_its_command) {
    tine_process_t *process = shell("echo $$; exec sleep 100", TINE_SPAWN_KILL_TREE);
    pid_t number;
    int32_t code = 0;
    read_numbers(tine_process_stdout_fd(process), &number, 1);
    const pid_t supervisor = parent_of(number);
    CHECK(supervisor > 1 && supervisor != getpid());
    CHECK(kill_one(supervisor));
    CHECK_OK(tine_process_join(process, TINE_FOREVER));
    CHECK(await_gone(number, 10));
    CHECK_STATUS(tine_process_exit_code(process, &code), TINE_ESTATUSLOST);
    CHECK_MESSAGE("supervisor");
    tine_process_free(process);
}

/* As somebody who may not make one. */
static void give_up_root(void) {
    if (geteuid() != 0) return;
    CHECK_INT(setresgid(65534, 65534, 65534), 0);
    CHECK_INT(setresuid(65534, 65534, 65534), 0);
    CHECK_INT(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
}
TEST(a_tree_ends_also_without_a_control_group) {
    give_up_root();
    for (int i = 0; i < 3; i++) {
        tine_process_t *process = shell(i == 2 ? THREE "read line" : THREE "wait", TINE_SPAWN_KILL_TREE);
        READ_THREE(process, numbers);
        if (i == 0) CHECK_OK(tine_process_kill(process));
        if (i == 1) CHECK_OK(tine_process_stop(process, TINE_FOREVER));
        if (i == 2) CHECK_OK(tine_process_close_stdin(process));
        CHECK_OK(tine_process_join(process, TINE_FOREVER));
        check_gone(numbers, 3);
        tine_process_free(process);
    }
}
TEST(a_tree_of_many_ends) {
    for (int i = 0; i < 2; i++) {
        const char *script = "for i in 1 2 3 4 5 6 7 8 9 10; do (setsid sleep 100 &); (setsid sleep 100 &); sleep 100 & done; echo; wait";
        tine_process_t *process = shell(script, TINE_SPAWN_KILL_TREE);
        hear(tine_process_stdout_fd(process));
        CHECK_OK(tine_process_kill(process));
        CHECK_INT(finish(process), -SIGKILL);
        give_up_root();
    }
    CHECK_INT(test_count_children(), 0); /* and the runner, who adopts, finds nobody */
}
TEST(a_tree_that_starts_processes_all_the_time_ends) {
    for (int i = 0; i < 2; i++) {
        tine_process_t *process = shell("echo; while :; do (setsid sleep 1 &); done", TINE_SPAWN_KILL_TREE);
        hear(tine_process_stdout_fd(process));
        poll(NULL, 0, 50);
        CHECK_OK(tine_process_kill(process));
        CHECK_INT(finish(process), -SIGKILL);
        give_up_root();
    }
}

TEST(a_tree_that_cannot_be_had_is_refused) {
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", "", MS_REC | MS_PRIVATE, "") != 0 || mount("none", "/proc", "tmpfs", 0, "") != 0)
        SKIP("/proc cannot be hidden");
    const char *argv[] = { "true", NULL };
    tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
    tine_process_t *process = NULL;
    options.flags = TINE_SPAWN_KILL_TREE;
    CHECK_STATUS(tine_process_spawn(argv, &options, &process), TINE_ENOTSUP);
    CHECK_MESSAGE("TINE_SPAWN_KILL_TREE");
    CHECK(process == NULL);
    options.flags = TINE_SPAWN_KILL_ON_PARENT_DEATH;
    CHECK_OK(tine_process_call(argv, &options, TINE_FOREVER, NULL));
    CHECK_INT(umount("/proc"), 0); /* what looks for leaks at the end needs it */
}

static void on_alarm(int number) { (void)number; }
static int32_t end_the_call(void *unused) { return (void)unused, 1; }
TEST(a_tree_starts_whatever_interrupts_it) {
    const long us = under_valgrind() ? 10000 : 300;
    const struct itimerval often = { { 0, us }, { 0, us } }, never = { { 0, 0 }, { 0, 0 } };
    signal(SIGALRM, on_alarm);
    tine_set_interrupt_check(end_the_call, NULL);
    for (int i = 0; i < 20; i++) {
        CHECK_INT(setitimer(ITIMER_REAL, &often, NULL), 0);
        tine_process_t *process = shell("exit 4", TINE_SPAWN_KILL_TREE);
        CHECK_INT(setitimer(ITIMER_REAL, &never, NULL), 0);
        CHECK_INT(finish(process), 4);
    }
}

/* One poll(2) of one thread of this process fails. */
static __thread pid_t refuses_poll;
int poll(struct pollfd *fds, nfds_t count, int timeout_ms) {
    const struct timespec timeout = { timeout_ms / 1000, timeout_ms % 1000 * 1000000L };
    if (refuses_poll == getpid()) return refuses_poll = 0, errno = ENOMEM, -1;
    return (int)syscall(SYS_ppoll, fds, count, timeout_ms < 0 ? NULL : &timeout, NULL, 0);
}
TEST(of_a_tree_that_nobody_hears_of_nothing_is_left) {
    const char *argv[] = { "sh", "-c", THREE "wait", NULL };
    tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
    options.stdout_mode = TINE_STDIO_FD, options.flags = TINE_SPAWN_KILL_TREE;
    for (int i = 0; i < 2; i++) {
        tine_process_t *process = NULL;
        int ends[2];
        make_pipe(ends);
        options.stdout_fd = ends[1];
        refuses_poll = getpid();
        const int32_t status = tine_process_spawn(argv, &options, &process);
        refuses_poll = 0;
        if (status == TINE_OK) CHECK_OK(tine_process_kill(process)), (void)finish(process); /* it was faster than this thread */
        else CHECK_STATUS(status, TINE_ENOMEM);
        CHECK_INT(test_count_children(), 0);
        CHECK_INT(close(ends[1]), 0);
        hear_all(ends[0]); /* to its end: nobody has it */
        give_up_root();
    }
}

/* Somebody else has the processor after the first message that is not there, until the tree has ended. */
static __thread int awaits_end;
ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    const ssize_t got = (ssize_t)syscall(SYS_recvmsg, fd, message, flags);
    if (awaits_end && got < 0 && errno == EAGAIN) {
        siginfo_t ended;
        awaits_end = 0;
        CHECK_INT(waitid(P_ALL, 0, &ended, WEXITED | WNOWAIT), 0);
        errno = EAGAIN;
    }
    return got;
}
TEST(the_code_of_a_tree_that_has_ended_before_it_was_looked_for_is_right) {
    awaits_end = 1;
    tine_process_t *process = shell("kill -KILL $$", TINE_SPAWN_KILL_TREE);
    awaits_end = 0;
    CHECK_INT(finish(process), -SIGKILL);
}

TEST(a_tree_is_killed_although_nobody_takes_its_signals) {
    for (int stops = 0; stops < 2; stops++) {
        tine_process_t *process = shell(THREE "wait", TINE_SPAWN_KILL_TREE);
        READ_THREE(process, numbers);
        const pid_t supervisor = parent_of(tine_process_pid(process));
        tine_status_t status;
        int taken = 0;
        CHECK_INT(kill(supervisor, SIGSTOP), 0);
        while ((status = tine_process_signal(process, SIGCONT)) == TINE_OK) CHECK(++taken < 100000);
        CHECK_STATUS(status, TINE_EAGAIN);
        if (stops) CHECK_STATUS(tine_process_terminate(process), TINE_EAGAIN);
        CHECK_OK(tine_process_kill(process));
        CHECK_INT(kill(supervisor, SIGCONT), 0);
        if (stops) CHECK_OK(tine_process_stop(process, TINE_FOREVER));
        CHECK_OK(tine_process_join(process, 15000));
        check_gone(numbers, 3);
        CHECK_INT(finish(process), -SIGKILL);
    }
}

/* A supervisor waits before it starts its command, and says so. */
static int is_slow, slow_reached[2], slow_go_on[2];
int signalfd(int fd, const sigset_t *mask, int flags) {
    if (is_slow) tell(slow_reached[1], 'r'), hear(slow_go_on[0]);
    return (int)syscall(SYS_signalfd4, fd, mask, (size_t)8, flags);
}
static void *start_a_slow_tree(void *code) {
    *(int32_t *)code = finish(shell("exit 4", TINE_SPAWN_KILL_TREE));
    return NULL;
}
TEST(a_supervisor_does_not_keep_another_commands_pipe_open) {
    tine_process_t *process = shell("read line; exit 3", 0);
    pthread_t thread;
    int32_t code = 0;
    make_pipe(slow_reached), make_pipe(slow_go_on);
    is_slow = 1;
    CHECK_INT(pthread_create(&thread, NULL, start_a_slow_tree, &code), 0);
    CHECK_INT(hear(slow_reached[0]), 'r');
    CHECK_OK(tine_process_close_stdin(process));
    CHECK_OK(tine_process_join(process, 10000));
    CHECK_INT(finish(process), 3);
    tell(slow_go_on[1], 'g');
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK_INT(code, 4);
}

/* The control group that a supervisor made; "" if there is none (any more). */
static const char *group_of(pid_t supervisor) {
    static char path[700];
    char line[400];
    FILE *file = fopen("/proc/self/cgroup", "re");
    path[0] = 0;
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        static const char *const roots[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
        line[strcspn(line, "\n")] = 0;
        for (int i = 0; i < 2 && strncmp(line, "0::", 3) == 0 && path[0] == 0; i++) {
            snprintf(path, sizeof path, "%s%s/tine-%d", roots[i], line + 3, supervisor);
            if (access(path, F_OK) != 0) path[0] = 0;
        }
    }
    if (file != NULL) fclose(file);
    return path;
}
TEST(no_control_group_is_left) {
    pid_t number;
    tine_process_t *process = shell("echo $$; read line", TINE_SPAWN_KILL_TREE);
    read_numbers(tine_process_stdout_fd(process), &number, 1);
    const pid_t supervisor = parent_of(number);
    if (group_of(supervisor)[0] == 0) SKIP("no control group can be made");
    CHECK_OK(tine_process_close_stdin(process));
    CHECK_INT(finish(process), 1);
    CHECK_TEXT(group_of(supervisor), "");
}

TEST_PROGRAM(has_a_tree) {
    pid_t number;
    read_numbers(tine_process_stdout_fd(shell("echo $$; exec sleep 100", TINE_SPAWN_KILL_TREE)), &number, 1);
    printf("%d\n%d\n", parent_of(number), number), fflush(stdout);
    for (;;) pause();
}
TEST(no_control_group_of_a_tree_in_a_tree_is_left) {
    pid_t numbers[2];
    char inner[800];
    tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
    options.stdout_mode = TINE_STDIO_PIPE, options.flags = TINE_SPAWN_KILL_TREE;
    tine_process_t *process = spawn_with(PROGRAM(has_a_tree), &options);
    const pid_t supervisor = parent_of(tine_process_pid(process));
    read_numbers(tine_process_stdout_fd(process), numbers, 2);
    const char *outer = group_of(supervisor);
    if (outer[0] == 0) SKIP("no control group can be made");
    snprintf(inner, sizeof inner, "%s/tine-%d", outer, numbers[0]);
    CHECK_INT(access(inner, F_OK), 0);
    CHECK_OK(tine_process_kill(process));
    CHECK_INT(finish(process), -SIGKILL);
    check_gone(numbers, 2);
    CHECK_TEXT(group_of(supervisor), "");
}

/* Nobody is there to remove it; the next one does. */
TEST(the_control_group_of_a_supervisor_that_died_with_its_host_goes_with_the_next_tree) {
    pid_t number;
    int ends[2];
    make_pipe(ends);
    CHECK_INT(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0); /* to see them end */
    const pid_t pid = fork();
    if (pid == 0) {
        tine_process_t *process = shell("echo $$; exec sleep 100", TINE_SPAWN_KILL_TREE);
        read_numbers(tine_process_stdout_fd(process), &number, 1);
        CHECK_INT(write(ends[1], &number, sizeof number), sizeof number);
        for (;;) pause();
    }
    CHECK_INT(read(ends[0], &number, sizeof number), sizeof number);
    const pid_t supervisor = parent_of(number);
    CHECK(kill_one(pid));
    status_of(pid);
    const int made = group_of(supervisor)[0] != 0;
    CHECK(kill_one(supervisor));
    status_of(supervisor), status_of(number);
    if (!made) SKIP("no control group can be made");
    CHECK(group_of(supervisor)[0] != 0);
    CHECK_INT(finish(shell("exit 0", TINE_SPAWN_KILL_TREE)), 0);
    CHECK_TEXT(group_of(supervisor), "");
}

/* ---- A command and the host ---- */
static int number_of_thread;
static void *start_and_end(void *flags) {
    __atomic_store_n(&number_of_thread, (int)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
    return shell("echo $$; exec sleep 100", (uint32_t)(uintptr_t)flags);
}
TEST(a_command_does_not_end_with_the_thread_that_started_it) {
    static const uint32_t flags[] = { 0, TINE_SPAWN_KILL_ON_PARENT_DEATH, TINE_SPAWN_KILL_TREE,
                                      TINE_SPAWN_KILL_TREE | TINE_SPAWN_KILL_ON_PARENT_DEATH };
    for (int i = 0; i < 4; i++) {
        pthread_t thread;
        void *process;
        char path[60];
        pid_t number;
        CHECK_INT(pthread_create(&thread, NULL, start_and_end, (void *)(uintptr_t)flags[i]), 0);
        CHECK_INT(pthread_join(thread, &process), 0);
        snprintf(path, sizeof path, "/proc/self/task/%d", number_of_thread);
        while (access(path, F_OK) == 0) poll(NULL, 0, 1);
        read_numbers(tine_process_stdout_fd(process), &number, 1);
        CHECK_STATUS(tine_process_join(process, 30), TINE_ETIMEDOUT);
        CHECK(!is_gone(number));
        CHECK_OK(tine_process_kill(process));
        CHECK_INT(finish(process), -SIGKILL);
    }
}

static int32_t change_user_and_wait(void *fd) {
    const pid_t pid = getpid();
    CHECK_INT(setresuid(65534, 65534, 65534), 0);
    CHECK_INT(write((int)(intptr_t)fd, &pid, sizeof pid), sizeof pid);
    for (;;) pause();
    return 0;
}
TEST(a_daemon_that_changed_its_user_ends_with_its_host) {
    if (geteuid() != 0) SKIP("only root changes its user");
    int ends[2];
    pid_t number;
    make_pipe(ends);
    const pid_t pid = fork();
    if (pid == 0) {
        tine_process_options_t options = TINE_PROCESS_OPTIONS_INIT;
        tine_process_t *process;
        options.flags = TINE_PROCESS_DAEMON;
        CHECK_OK(tine_process_start(change_user_and_wait, (void *)(intptr_t)ends[1], &options, &process));
        for (;;) pause();
    }
    CHECK_INT(read(ends[0], &number, sizeof number), sizeof number);
    CHECK(number > 1 && !is_gone(number));
    CHECK(kill_one(pid));
    status_of(pid);
    CHECK(await_gone(number, 15));
}

/* A host of its own: starts `script`, which says numbers; then it waits, or leaves when it is told. */
static int host_out, host_leaves, host_go[2];
static uint32_t host_flags, host_uid;
static const char *host_script;
static pid_t host(void) {
    const pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid != 0) return pid;
    const char *argv[] = { "sh", "-c", host_script, NULL };
    tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
    tine_process_t *process;
    options.stdout_mode = TINE_STDIO_FD, options.stdout_fd = host_out, options.stderr_mode = TINE_STDIO_NULL;
    options.flags = host_flags, options.uid = host_uid;
    CHECK_OK(tine_process_spawn(argv, &options, &process));
    if (host_leaves) hear(host_go[0]), exit(0);
    for (;;) pause();
}
static void check_host(const char *script, int count, uint32_t flags, uint32_t uid, int leaves) {
    pid_t numbers[3];
    int ends[2];
    make_pipe(ends), make_pipe(host_go);
    host_out = ends[1], host_flags = flags, host_script = script, host_uid = uid, host_leaves = leaves;
    const pid_t pid = host();
    read_numbers(ends[0], numbers, count);
    leaves ? tell(host_go[1], 'g') : (void)kill_one(pid);
    status_of(pid);
    for (int i = 0; i < count; i++) CHECK(await_gone(numbers[i], 15));
    close(ends[0]), close(ends[1]);
}
TEST(a_command_ends_with_its_host_where_that_is_promised) {
    for (int leaves = 0; leaves < 2; leaves++) {
        check_host("echo $$; exec sleep 100", 1, TINE_SPAWN_KILL_ON_PARENT_DEATH, 0, leaves);
        if (geteuid() == 0) check_host("echo $$; exec sleep 100", 1, TINE_SPAWN_KILL_ON_PARENT_DEATH | TINE_SPAWN_SET_UID, 65534, leaves);
    }
}
TEST(a_tree_ends_with_its_host_where_that_is_promised) {
    for (int leaves = 0; leaves < 2; leaves++)
        check_host(THREE "wait", 3, TINE_SPAWN_KILL_TREE | TINE_SPAWN_KILL_ON_PARENT_DEATH, 0, leaves);
}

static int32_t wait_for_end(void *fd) { return hear((int)(intptr_t)fd); }
TEST(a_tree_ends_with_an_exec_of_its_host_although_a_child_lives) {
    pid_t numbers[3];
    int ends[2], until[2], go[2];
    make_pipe(ends), make_pipe(until), make_pipe(go);
    const pid_t pid = fork();
    if (pid == 0) {
        const char *argv[] = { "sh", "-c", THREE "wait", NULL };
        tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
        tine_process_t *process = NULL, *child = NULL;
        options.stdout_mode = TINE_STDIO_FD, options.stdout_fd = ends[1];
        options.flags = TINE_SPAWN_KILL_TREE | TINE_SPAWN_KILL_ON_PARENT_DEATH;
        CHECK_OK(tine_process_spawn(argv, &options, &process));
        CHECK_OK(tine_process_start(wait_for_end, (void *)(intptr_t)until[0], NULL, &child));
        hear(go[0]);
        execlp("sleep", "sleep", "100", NULL);
        _exit(127);
    }
    read_numbers(ends[0], numbers, 3);
    tell(go[1], 'g');
    for (int i = 0; i < 3; i++) CHECK(await_gone(numbers[i], 10));
    tell(until[1], 0);
    CHECK(kill_one(pid));
    status_of(pid);
}

TEST(a_host_may_be_killed_at_any_moment) {
    static const uint32_t flags[] = { TINE_SPAWN_KILL_ON_PARENT_DEATH, TINE_SPAWN_KILL_TREE | TINE_SPAWN_KILL_ON_PARENT_DEATH };
    for (int i = 0; i < (under_valgrind() ? 4 : 30); i++) {
        int ends[2];
        make_pipe(ends);
        const pid_t pid = fork();
        if (pid == 0) {
            tell(ends[1], 'b');
            for (int k = 0; k < 20; k++) shell(k % 3 ? "exec sleep 100" : "exit 0", flags[i % 2]);
            for (;;) pause();
        }
        hear(ends[0]);
        poll(NULL, 0, i % 15);
        CHECK(kill_one(pid));
        status_of(pid);
        close(ends[0]), close(ends[1]);
    }
    /* The runner, who adopts, waits for whoever is left: not for 100 s. */
}

TEST(a_command_outlives_its_host_where_nothing_is_promised) {
    static const uint32_t flags[] = { 0, TINE_SPAWN_KILL_TREE };
    for (int i = 0; i < 2; i++) {
        pid_t number;
        int ends[2];
        make_pipe(ends);
        host_out = ends[1], host_flags = flags[i], host_script = "echo $$; exec sleep 100", host_leaves = 0;
        const pid_t pid = host();
        read_numbers(ends[0], &number, 1);
        CHECK(kill_one(pid));
        status_of(pid);
        while (parent_of(number) == pid) poll(NULL, 0, 1);
        poll(NULL, 0, 30);
        CHECK(!is_gone(number));
        CHECK(kill_one(number));
        CHECK(await_gone(number, 10));
        close(ends[0]), close(ends[1]);
    }
}

TEST(forked_children_have_their_own_thread_for_that) {
    for (int i = 0; i < 2; i++) {
        tine_process_t *process = shell("exec sleep 100", TINE_SPAWN_KILL_ON_PARENT_DEATH); /* makes this process's thread */
        pid_t number;
        int ends[2];
        make_pipe(ends);
        const pid_t pid = i ? (pid_t)tine_fork() : fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            tine_process_t *own = shell("echo $$; exec sleep 100", TINE_SPAWN_KILL_ON_PARENT_DEATH);
            read_numbers(tine_process_stdout_fd(own), &number, 1);
            CHECK(!is_gone(number));
            CHECK_INT(write(ends[1], &number, sizeof number), sizeof number);
            _exit(0);
        }
        CHECK_INT(read(ends[0], &number, sizeof number), sizeof number);
        CHECK_INT(status_of(pid), 0);
        CHECK(number > 1 && await_gone(number, 10));
        CHECK(tine_process_is_alive(process));
        CHECK_OK(tine_process_kill(process));
        CHECK_INT(finish(process), -SIGKILL);
        close(ends[0]), close(ends[1]);
    }
}

TEST(the_thread_that_starts_commands_changes_nothing_about_them) {
    cpu_set_t all, one;
    sigset_t mask;
    int first = 0;
    finish(shell(":", TINE_SPAWN_KILL_ON_PARENT_DEATH)); /* the thread is as this one was now */
    CHECK_INT(sched_getaffinity(0, sizeof all, &all), 0);
    while (!CPU_ISSET(first, &all)) first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    CHECK_INT(sched_setaffinity(0, sizeof one, &one), 0);
    sigemptyset(&mask), sigaddset(&mask, SIGUSR1), pthread_sigmask(SIG_SETMASK, &mask, NULL);
    for (int tree = 0; tree < 2; tree++) {
        const char *argv[] = { "grep", "-E", "^SigBlk|^Cpus_allowed_list", "/proc/self/status", NULL };
        tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
        void *data;
        char expected[100];
        options.flags = TINE_SPAWN_KILL_ON_PARENT_DEATH | TINE_SPAWN_KEEP_SIGNALS | (tree ? TINE_SPAWN_KILL_TREE : 0);
        CHECK_OK(tine_process_check_output(argv, &options, NULL, 0, TINE_FOREVER, &data, NULL, NULL));
        snprintf(expected, sizeof expected, "SigBlk:\t0000000000000200\nCpus_allowed_list:\t%d\n", first);
        CHECK_TEXT(data, expected);
        tine_free(data);
    }
}

static void *give_up_and_spawn(void *unused) {
    CHECK_INT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
    tine_process_t *process = NULL;
    void *data;
    options.flags = TINE_SPAWN_KILL_ON_PARENT_DEATH;
    CHECK_STATUS(tine_process_spawn(ARGV("true"), &options, &process), TINE_EPERM);
    CHECK_MESSAGE("NoNewPrivs");
    CHECK(process == NULL);
    for (int tree = 0; tree < 2; tree++) {
        options.flags = tree ? TINE_SPAWN_KILL_TREE | TINE_SPAWN_KILL_ON_PARENT_DEATH : 0;
        CHECK_OK(tine_process_check_output(ARGV("grep", "NoNewPrivs", "/proc/self/status"), &options, NULL, 0, TINE_FOREVER, &data, NULL, NULL));
        CHECK_TEXT(data, "NoNewPrivs:\t1\n");
        tine_free(data);
    }
    return unused;
}
TEST(what_a_thread_gave_up_does_not_come_back_in_its_commands) {
    pthread_t thread;
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 0) SKIP("this process has given that up already");
    CHECK_INT(finish(shell("exit 0", TINE_SPAWN_KILL_ON_PARENT_DEATH)), 0);
    CHECK_INT(pthread_create(&thread, NULL, give_up_and_spawn, NULL), 0);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK_INT(finish(shell("exit 0", TINE_SPAWN_KILL_ON_PARENT_DEATH)), 0);
}

static void *spawn_some(void *flags) {
    for (int i = 0; i < 5; i++) CHECK_INT(finish(shell("exit 3", (uint32_t)(uintptr_t)flags)), 3);
    return NULL;
}
TEST(many_threads_start_commands_that_end_with_the_host) {
    pthread_t threads[8];
    if (under_valgrind()) SKIP("a start is a copy there, and may take longer than a fork waits for it");
    finish(shell("exit 0", TINE_SPAWN_KILL_TREE));
    const int fds = test_count_fds();
    for (int i = 0; i < 8; i++) {
        const uint32_t flags = i % 2 ? TINE_SPAWN_KILL_TREE : TINE_SPAWN_KILL_ON_PARENT_DEATH;
        CHECK_INT(pthread_create(&threads[i], NULL, spawn_some, (void *)(uintptr_t)flags), 0);
    }
    for (int i = 0; i < 8; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    CHECK_INT(test_count_fds(), fds);
}

/* ---- A callback's command, and a fork ---- */
static int inside[2], forks[2];
static int32_t do_nothing(const void *arg, size_t length, tine_task_t *task) {
    (void)arg, (void)length, (void)task;
    return 0;
}
static void start_a_command(const tine_result_t *result, void *code) {
    struct pollfd forked = { forks[0], POLLIN, 0 };
    CHECK_OK(tine_result_status(result));
    tell(inside[1], 'i');
    poll(&forked, 1, 100); /* until the fork waits for this callback */
    *(int32_t *)code = finish(shell("exit 3", TINE_SPAWN_KILL_ON_PARENT_DEATH));
}
TEST(a_fork_waits_for_a_callback_that_starts_a_command_that_ends_with_the_host) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_submit_options_t submit = TINE_SUBMIT_OPTIONS_INIT;
    tine_pool_t *pool = NULL;
    int32_t code = 0;
    finish(shell("exit 0", TINE_SPAWN_KILL_ON_PARENT_DEATH));
    make_pipe(inside), make_pipe(forks);
    options.workers = 1;
    CHECK_OK(tine_pool_new(&options, &pool));
    submit.callback = start_a_command, submit.user_data = &code;
    CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &submit, NULL));
    CHECK_INT(hear(inside[0]), 'i');
    const int32_t pid = tine_fork();
    if (pid == 0) _exit(5);
    CHECK(pid > 0);
    CHECK_INT(WEXITSTATUS(status_of(pid)), 5);
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    tine_pool_free(pool);
    CHECK_INT(code, 3);
}
