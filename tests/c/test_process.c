/* Function children. test_process_no_pidfd.c runs all of this once more where the kernel refuses pidfds. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include "process_tools.h"

/* Forks cost a hundred times as much there. */
static int fewer_under_valgrind(int count) { return under_valgrind() ? count / 10 : count; }
static tine_process_t *start_with(tine_process_fn fn, void *user_data, const char *name, uint32_t flags) {
    tine_process_options_t options = TINE_PROCESS_OPTIONS_INIT;
    tine_process_t *process = NULL;
    options.name = name;
    options.flags = flags;
    CHECK_OK(tine_process_start(fn, user_data, &options, &process));
    return process;
}
static tine_process_t *start(tine_process_fn fn, void *user_data) { return start_with(fn, user_data, NULL, 0); }
static int32_t run(tine_process_fn fn, void *user_data) { return finish(start(fn, user_data)); }
static int32_t give_back(void *value) { return (int32_t)(intptr_t)value; }
static int32_t wait_for_byte(void *fd) { /* the pipe's write end is the parent's: close-on-exec, not close-on-fork */
    char byte;
    return read((int)(intptr_t)fd, &byte, 1) == 1 ? byte : 1;
}
static int32_t wait_for_ever(void *unused) {
    (void)unused;
    for (;;) pause();
    return 0;
}
/* Says that it runs, and waits. */
static int32_t say_and_wait(void *fd) {
    tell((int)(intptr_t)fd, 'r');
    return wait_for_ever(NULL);
}

TEST(a_child_runs_a_function_and_leaves_with_its_value) {
    CHECK_INT(run(give_back, (void *)7), 7);
    tine_process_t *process = start(give_back, (void *)(256 + 3));
    CHECK_INT(code_of(process), 3);
    CHECK(!tine_process_is_alive(process));
    tine_process_free(process);
    process = start(give_back, (void *)-1);
    CHECK_INT(code_of(process), 255);
    tine_process_free(process);
}

TEST(what_runs_has_no_exit_code_yet) {
    int32_t code = 1000;
    tine_exit_info_t info = TINE_EXIT_INFO_INIT;
    int go[2];
    make_pipe(go);
    tine_process_t *process = start(wait_for_byte, (void *)(intptr_t)go[0]);
    CHECK(tine_process_is_alive(process));
    CHECK_STATUS(tine_process_exit_code(process, &code), TINE_EBUSY);
    CHECK_STATUS(tine_process_exit_info(process, &info), TINE_EBUSY);
    CHECK_STATUS(tine_process_join(process, 0), TINE_ETIMEDOUT);
    CHECK_STATUS(tine_process_join(process, 20), TINE_ETIMEDOUT);
    CHECK_INT(code, 1000);
    tell(go[1], 5);
    CHECK_INT(code_of(process), 5);
    for (int i = 0; i < 3; i++) CHECK_OK(tine_process_join(process, 0));
    CHECK_OK(tine_process_exit_info(process, &info));
    CHECK_INT(info.valid & (TINE_EXIT_HAS_STATUS | TINE_EXIT_HAS_TIMES | TINE_EXIT_HAS_PEAK_RSS), TINE_EXIT_HAS_STATUS | TINE_EXIT_HAS_TIMES);
    CHECK_INT(info.reason, TINE_REASON_EXIT);
    CHECK_INT(info.code, 5);
    CHECK_INT(info.signal, 0);
    tine_process_free(process);
}

static void *join_in_thread(void *process) { return tine_process_join(process, TINE_FOREVER) == TINE_OK ? process : NULL; }

TEST(any_number_of_threads_may_join) {
    pthread_t threads[8];
    int go[2];
    make_pipe(go);
    tine_process_t *process = start(wait_for_byte, (void *)(intptr_t)go[0]);
    for (int i = 0; i < 8; i++) CHECK_INT(pthread_create(&threads[i], NULL, join_in_thread, process), 0);
    tell(go[1], 9);
    for (int i = 0; i < 8; i++) {
        void *joined = NULL;
        CHECK_INT(pthread_join(threads[i], &joined), 0);
        CHECK(joined == process);
    }
    CHECK_INT(code_of(process), 9);
    tine_process_free(process);
}

TEST(a_signal_is_a_negative_exit_code) {
    tine_exit_info_t info = TINE_EXIT_INFO_INIT;
    tine_process_t *process = start(wait_for_ever, NULL);
    CHECK_OK(tine_process_terminate(process));
    CHECK_INT(code_of(process), -SIGTERM);
    CHECK_OK(tine_process_exit_info(process, &info));
    CHECK_INT(info.reason, TINE_REASON_SIGNAL);
    CHECK_INT(info.code, -1);
    CHECK_INT(info.signal, SIGTERM);
    tine_process_free(process);
    process = start(wait_for_ever, NULL);
    CHECK_OK(tine_process_kill(process));
    CHECK_INT(code_of(process), -SIGKILL);
    tine_process_free(process);
    process = start(wait_for_ever, NULL);
    CHECK_OK(tine_process_signal(process, SIGUSR1));
    CHECK_INT(code_of(process), -SIGUSR1);
    for (int signal = 0; signal <= SIGKILL; signal++) CHECK_OK(tine_process_signal(process, signal)); /* reaches nobody */
    CHECK_STATUS(tine_process_signal(process, -1), TINE_EINVAL);
    CHECK_STATUS(tine_process_signal(process, 65), TINE_EINVAL);
    CHECK_MESSAGE("signal");
    tine_process_free(process);
}

TEST(a_stopped_process_is_alive) {
    siginfo_t info;
    tine_process_t *process = start(wait_for_ever, NULL);
    const id_t pid = (id_t)tine_process_pid(process);
    CHECK_OK(tine_process_signal(process, SIGSTOP));
    CHECK_INT(waitid(P_PID, pid, &info, WSTOPPED | WNOWAIT), 0);
    CHECK(tine_process_is_alive(process));
    CHECK_STATUS(tine_process_join(process, 20), TINE_ETIMEDOUT);
    CHECK_OK(tine_process_signal(process, SIGCONT));
    CHECK(tine_process_is_alive(process));
    CHECK_OK(tine_process_signal(process, SIGSTOP));
    CHECK_INT(waitid(P_PID, pid, &info, WSTOPPED | WNOWAIT), 0); /* before that SIGTERM would end it */
    CHECK_OK(tine_process_stop(process, 0)); /* SIGKILL ends a stopped one, too */
    CHECK_INT(code_of(process), -SIGKILL);
    tine_process_free(process);
}

TEST(the_descriptor_tells_the_end) {
    int go[2];
    make_pipe(go);
    tine_process_t *process = start(wait_for_byte, (void *)(intptr_t)go[0]);
    struct pollfd ended = { tine_process_fd(process), POLLIN, 0 };
    CHECK(ended.fd >= 0);
    CHECK(fcntl(ended.fd, F_GETFD) & FD_CLOEXEC);
    CHECK_INT(poll(&ended, 1, 0), 0);
    tell(go[1], 1);
    CHECK_INT(poll(&ended, 1, -1), 1);
    CHECK_INT(code_of(process), 1);
    CHECK_INT(poll(&ended, 1, 0), 1);
    tine_process_free(process);
}

static int32_t has_name(void *name) { return strcmp(tine_current_process_name(), name) != 0; }

TEST(a_child_has_a_name) {
    tine_process_t *process = start(has_name, "Process-1");
    CHECK_TEXT(tine_process_name(process), "Process-1");
    CHECK_INT(code_of(process), 0);
    tine_process_free(process);
    process = start_with(has_name, "worker of all trades", "worker of all trades", 0);
    CHECK_TEXT(tine_process_name(process), "worker of all trades");
    CHECK_INT(code_of(process), 0);
    tine_process_free(process);
    process = start(has_name, "Process-3"); /* counted all the same */
    CHECK_INT(code_of(process), 0);
    tine_process_free(process);
    CHECK_TEXT(tine_current_process_name(), "MainProcess");
}

static int32_t knows_its_host(void *host) {
    struct pollfd gone = { tine_host_fd(), POLLIN, 0 };
    if (tine_host_pid() != *(pid_t *)host || getppid() != *(pid_t *)host) return 1;
    if (has_pidfd() && (gone.fd < 0 || poll(&gone, 1, 0) != 0)) return 2;
    if (!has_pidfd() && gone.fd != -1) return 3;
    const pid_t grandchild = tine_fork();
    if (grandchild == 0) _exit(tine_host_pid() != getppid() || tine_host_fd() != -1);
    return status_of(grandchild) != 0 ? 4 : 0;
}

TEST(a_child_knows_its_host) {
    pid_t self = getpid();
    CHECK_INT(tine_host_pid(), getppid());
    CHECK_INT(tine_host_fd(), -1);
    tine_process_t *process = start(knows_its_host, &self);
    CHECK_INT(code_of(process), 0);
    tine_process_free(process);
}

TEST(wait_any_tells_which_has_ended) {
    enum { COUNT = 70 };
    tine_process_t *processes[COUNT];
    int go[COUNT][2];
    size_t index = 1000;
    for (int i = 0; i < COUNT; i++) make_pipe(go[i]), processes[i] = start(wait_for_byte, (void *)(intptr_t)go[i][0]);
    CHECK_STATUS(tine_process_wait_any(processes, COUNT, 0, &index), TINE_ETIMEDOUT);
    CHECK_STATUS(tine_process_wait_any(processes, COUNT, 10, &index), TINE_ETIMEDOUT);
    CHECK_INT(index, 1000);
    tell(go[67][1], 1);
    CHECK_OK(tine_process_wait_any(processes, COUNT, TINE_FOREVER, &index));
    CHECK_INT(index, 67);
    CHECK_OK(tine_process_wait_any(processes, COUNT, 0, &index)); /* at once, also a second time */
    CHECK_INT(index, 67);
    tell(go[2][1], 1);
    CHECK_OK(tine_process_join(processes[2], TINE_FOREVER));
    CHECK_OK(tine_process_wait_any(processes, COUNT, TINE_FOREVER, NULL));
    CHECK_OK(tine_process_wait_any(processes, COUNT, TINE_FOREVER, &index));
    CHECK_INT(index, 2);
    CHECK_STATUS(tine_process_wait_any(processes, 0, 0, &index), TINE_EINVAL);
    CHECK_STATUS(tine_process_wait_any(NULL, 2, 0, &index), TINE_EINVAL);
    tine_process_t *with_null[2] = { processes[2], NULL };
    CHECK_STATUS(tine_process_wait_any(with_null, 2, 0, &index), TINE_EINVAL);
    CHECK_MESSAGE("processes");
    for (int i = 0; i < COUNT; i++) CHECK_OK(tine_process_kill(processes[i])), tine_process_free(processes[i]);
}

static void limit_descriptors(rlim_t most) {
    struct rlimit limit;
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = most;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
}
TEST(wait_any_takes_more_than_may_be_open) {
    enum { COUNT = 100 };
    tine_process_t *processes[COUNT];
    int first[2], last[2];
    size_t index = 1000;
    const int limited = !under_valgrind(); /* there the limit is not the kernel's */
    make_pipe(first), make_pipe(last);
    processes[0] = start(wait_for_byte, (void *)(intptr_t)first[0]), processes[COUNT - 1] = start(wait_for_byte, (void *)(intptr_t)last[0]);
    for (int i = 1; i < COUNT - 1; i++) processes[i] = processes[0];
    limit_descriptors(64); /* the most that poll(2) takes */
    CHECK_STATUS(tine_process_wait_any(processes, COUNT, 10, &index), TINE_ETIMEDOUT);
    limit_descriptors(3); /* not one more */
    if (limited) CHECK_STATUS(tine_process_wait_any(processes, COUNT, 10, &index), TINE_EMFILE);
    limit_descriptors(64);
    CHECK_INT(index, 1000);
    tell(last[1], 1);
    CHECK_OK(tine_process_wait_any(processes, COUNT, TINE_FOREVER, &index));
    CHECK_INT(index, COUNT - 1);
    tell(first[1], 1);
    CHECK_OK(tine_process_wait_any(processes, COUNT - 1, TINE_FOREVER, &index));
    CHECK(processes[index] == processes[0]); /* it may end while they are looked at one by one */
    tine_process_free(processes[0]), tine_process_free(processes[COUNT - 1]);
}

static void leave_with_3(int signal) {
    (void)signal;
    _exit(3);
}
static int32_t ignore_term(void *fd) { return signal(SIGTERM, SIG_IGN), say_and_wait(fd); }
static int32_t handle_term(void *fd) { return signal(SIGTERM, leave_with_3), say_and_wait(fd); }

TEST(stop_asks_and_then_kills) {
    tine_exit_info_t info = TINE_EXIT_INFO_INIT;
    int ready[2];
    make_pipe(ready);
    tine_process_t *process = start(ignore_term, (void *)(intptr_t)ready[1]);
    CHECK_INT(hear(ready[0]), 'r');
    CHECK_STATUS(tine_process_stop(process, -2), TINE_EINVAL);
    CHECK_OK(tine_process_stop(process, 20));
    CHECK_OK(tine_process_exit_info(process, &info));
    CHECK_INT(info.signal, SIGKILL);
    CHECK_INT(info.reason, TINE_REASON_TERMINATED);
    CHECK_OK(tine_process_stop(process, 0));
    tine_process_free(process);
    process = start(handle_term, (void *)(intptr_t)ready[1]);
    CHECK_INT(hear(ready[0]), 'r');
    CHECK_OK(tine_process_stop(process, TINE_FOREVER));
    CHECK_OK(tine_process_exit_info(process, &info));
    CHECK_INT(info.code, 3);
    CHECK_INT(info.reason, TINE_REASON_EXIT);
    tine_process_free(process);
    CHECK_INT(test_count_children(), 0);
}

/* Deaths that the host takes the status of: a killed child's is known from the kernel, or nobody knows it. */
static void check_codes_survive(void) {
    for (int i = fewer_under_valgrind(20); i > 0; i--) {
        int32_t code = 1000;
        tine_process_t *process = start(give_back, (void *)(intptr_t)(i + 1));
        CHECK_INT(code_of(process), i + 1);
        tine_process_free(process);
        process = start(wait_for_ever, NULL);
        CHECK(tine_process_is_alive(process));
        CHECK_OK(tine_process_kill(process));
        CHECK_OK(tine_process_join(process, TINE_FOREVER));
        const tine_status_t status = tine_process_exit_code(process, &code);
        if (status == TINE_OK)
            CHECK_INT(code, -SIGKILL);
        else {
            CHECK_STATUS(status, TINE_ESTATUSLOST);
            CHECK_INT(code, 1000);
            tine_exit_info_t info = TINE_EXIT_INFO_INIT;
            CHECK_OK(tine_process_exit_info(process, &info));
            CHECK_INT(info.valid, 0);
            CHECK_INT(info.reason, 0);
            CHECK_INT(info.code, -1);
        }
        CHECK_OK(tine_process_signal(process, SIGKILL)); /* reaches nobody */
        tine_process_free(process);
    }
}

TEST(codes_are_right_while_sigchld_is_ignored) {
    signal(SIGCHLD, SIG_IGN);
    check_codes_survive();
}

TEST(codes_are_right_with_sa_nocldwait) {
    struct sigaction action = { .sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT };
    CHECK_INT(sigaction(SIGCHLD, &action, NULL), 0);
    check_codes_survive();
}

static void *reap_everything(void *stop) {
    while (!__atomic_load_n((int *)stop, __ATOMIC_RELAXED))
        if (waitpid(-1, NULL, 0) < 0) sched_yield();
    return NULL;
}

TEST(codes_are_right_while_a_thread_reaps_everything) {
    static int stop;
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, reap_everything, &stop), 0);
    check_codes_survive();
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
}

TEST(nothing_is_left_of_500_children) {
    CHECK_INT(run(give_back, NULL), 0); /* what the first start keeps */
    const int fds = test_count_fds(), children = test_count_children();
    for (int i = fewer_under_valgrind(500); i > 0; i--) {
        tine_process_t *process = start(give_back, NULL);
        CHECK_OK(tine_process_join(process, TINE_FOREVER));
        tine_process_free(process);
    }
    CHECK_INT(test_count_children(), children);
    CHECK(test_count_fds() <= fds + 1); /* at most one piece of shared memory more */
}

static void *start_25(void *unused) {
    (void)unused;
    for (int i = fewer_under_valgrind(25); i > 0; i--) {
        tine_process_t *process = start(give_back, (void *)(intptr_t)i);
        CHECK_INT(code_of(process), i);
        tine_process_free(process);
    }
    return NULL;
}

TEST(threads_start_children_at_the_same_time) {
    pthread_t threads[4];
    if (under_valgrind()) SKIP("what other threads had on their stacks is lost in a child");
    for (int i = 0; i < 4; i++) CHECK_INT(pthread_create(&threads[i], NULL, start_25, NULL), 0);
    for (int i = 0; i < 4; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    CHECK_INT(test_count_children(), 0);
}

TEST(a_freed_child_is_reaped_by_a_later_call) {
    int go[2], held[2];
    make_pipe(go), make_pipe(held);
    tine_process_t *other = start(wait_for_ever, NULL);
    tine_process_t *process = start(wait_for_byte, (void *)(intptr_t)go[0]);
    const int fds = test_count_fds();
    const pid_t pid = tine_process_pid(process);
    siginfo_t info;
    tine_process_free(process);
    CHECK_INT(kill(pid, 0), 0); /* goes on */
    tell(go[1], 1);
    CHECK_INT(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0); /* a zombie */
    CHECK(tine_process_is_alive(other));
    CHECK_INT(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT | WNOHANG), -1);
    CHECK_INT(test_count_fds(), fds - 1);
    CHECK_OK(tine_process_stop(other, 0));
    tine_process_free(other);
}

/* ---- What the child leaves by ---- */
static int told_fd;
static void tell_parent_handler(void) { tell(told_fd, 'P'); }
static void tell_child_handler(void) { tell(told_fd, 'c'); }
static int32_t call_exit(void *code) {
    atexit(tell_child_handler);
    exit((int)(intptr_t)code);
}
static void *exit_in_thread(void *code) {
    exit((int)(intptr_t)code);
    return NULL;
}
static int32_t call_exit_in_thread(void *code) {
    pthread_t thread;
    pthread_create(&thread, NULL, exit_in_thread, code);
    return wait_for_ever(NULL);
}
static int32_t return_normally(void *code) { return atexit(tell_child_handler), (int32_t)(intptr_t)code; }
static int32_t fork_and_exit(void *code) {
    const pid_t grandchild = fork();
    if (grandchild == 0) exit(21);
    return WEXITSTATUS(status_of(grandchild)) == 21 ? (int32_t)(intptr_t)code : 1;
}

static int32_t end_thread(void *unused) {
    (void)unused;
    pthread_exit(NULL);
}

TEST(a_function_that_does_not_return_is_a_failure) { CHECK_INT(run(end_thread, NULL), 1); }

TEST(exit_in_a_child_runs_no_handler_of_the_parent) {
    int told[2];
    make_pipe(told);
    told_fd = told[1];
    CHECK_INT(atexit(tell_parent_handler), 0);
    CHECK_INT(run(call_exit, (void *)5), 5);
    CHECK_INT(run(call_exit, (void *)0x1ff), 0xff);
    CHECK_INT(run(call_exit_in_thread, (void *)6), 6);
    CHECK_INT(run(return_normally, (void *)7), 7);
    CHECK_INT(run(fork_and_exit, (void *)8), 8);
    signal(SIGCHLD, SIG_IGN);
    CHECK_INT(run(call_exit, (void *)9), 9); /* the code is written down, too */
    tell(told[1], '.');
    CHECK_INT(hear(told[0]), 'c'); /* its own handlers do run, if it calls exit */
    CHECK_INT(hear(told[0]), 'c');
    CHECK_INT(hear(told[0]), 'c');
    CHECK_INT(hear(told[0]), '.');
}

static int32_t print_child(void *unused) {
    (void)unused;
    printf("child;");
    fprintf(stderr, "error;");
    return 0;
}
static int32_t print_and_exit(void *unused) {
    (void)unused;
    printf("exit;");
    exit(0);
}
TEST_PROGRAM(prints_around_children) {
    static char buffer[1000];
    setvbuf(stderr, buffer, _IOFBF, sizeof buffer); /* a buffered stderr is purged and flushed as well */
    dup2(1, 2);
    printf("before;");
    run(print_child, NULL);
    printf("between;");
    run(print_and_exit, NULL);
    printf("fork;");
    const pid_t pid = tine_fork();
    if (pid == 0) printf("forked;"), exit(0);
    status_of(pid);
    printf("after;");
}

TEST(what_is_printed_appears_once) {
    int out[2];
    make_pipe(out);
    const pid_t pid = run_program("prints_around_children", out[1]);
    close(out[1]);
    CHECK_TEXT(hear_all(out[0]), "before;child;error;between;exit;fork;forked;after;");
    CHECK_INT(status_of(pid), 0);
}

TEST(streams_in_use_by_other_threads_block_nothing) {
    int ready[2], input[2], go[2];
    pthread_t reader, holder;
    make_pipe(ready), make_pipe(input), make_pipe(go);
    stream_ready = ready[1];
    CHECK(dup2(input[0], 0) == 0);
    CHECK_INT(pthread_create(&reader, NULL, read_stdin, NULL), 0);
    CHECK_INT(pthread_create(&holder, NULL, hold_stdout, (void *)(intptr_t)go[0]), 0);
    CHECK_INT(hear(ready[0]), 'r');
    CHECK_INT(hear(ready[0]), 'r');
    CHECK_INT(run(give_back, (void *)4), 4);
    CHECK_INT(run(call_exit, (void *)(told_fd = ready[1], (intptr_t)4)), 4);
    tell(go[1], 'g'), tell(input[1], '\n');
    pthread_join(holder, NULL), pthread_join(reader, NULL);
}

/* ---- The end of main ---- */
static int go_fd, out_fd;
static void tell_main_returned(void) { tell(out_fd, 'M'); }
static void tell_all_done(void) { tell(out_fd, 'P'); }
static int32_t tell_when_let(void *what) { /* told to go, or end of file */
    const char heard = hear(go_fd);
    tell(out_fd, (char)(intptr_t)what);
    return heard == 'g' ? 0 : 1;
}
static void tell_terminated(int signal) {
    (void)signal;
    tell(out_fd, 'T');
    _exit(0);
}
static int32_t daemon_that_tells(void *unused) {
    (void)unused;
    signal(SIGTERM, tell_terminated);
    return say_and_wait((void *)(intptr_t)out_fd);
}
static int32_t daemon_that_ignores(void *unused) {
    (void)unused;
    return ignore_term((void *)(intptr_t)out_fd);
}
/* Standard input is where children are told to go. The handlers run around the library's: the last registered is the first. */
static tine_process_t *volatile kept; /* not freed, and yet not lost */
static void begin_program(void) {
    go_fd = 0, out_fd = 1;
    atexit(tell_all_done);
}
TEST_PROGRAM(leaves_a_child) {
    begin_program();
    tine_process_free(start(tell_when_let, (void *)'C'));
    atexit(tell_main_returned);
}
TEST_PROGRAM(leaves_a_daemon) {
    begin_program();
    kept = start_with(daemon_that_tells, NULL, NULL, TINE_PROCESS_DAEMON);
    atexit(tell_main_returned);
}
TEST_PROGRAM(leaves_a_stubborn_daemon) {
    begin_program();
    kept = start_with(daemon_that_ignores, NULL, NULL, TINE_PROCESS_DAEMON);
    atexit(tell_main_returned);
}
TEST_PROGRAM(leaves_a_detached_child) {
    begin_program();
    tine_process_free(start_with(tell_when_let, (void *)'D', NULL, TINE_PROCESS_DETACHED));
    kept = start_with(tell_when_let, (void *)'D', NULL, TINE_PROCESS_DETACHED);
    atexit(tell_main_returned);
}
TEST_PROGRAM(forks_and_leaves_a_child) {
    begin_program();
    kept = start(tell_when_let, (void *)'C');
    atexit(tell_main_returned);
    const pid_t pid = tine_fork();
    if (pid == 0) exit(0); /* must not wait for its sibling */
    status_of(pid);
}
static int32_t start_and_return(void *unused) {
    (void)unused;
    kept = start(tell_when_let, (void *)'C');
    return 0;
}
TEST_PROGRAM(has_a_child_with_a_child) {
    begin_program();
    kept = start(start_and_return, NULL);
    atexit(tell_main_returned);
}

struct program { pid_t pid; int go, out; };
static struct program begin(const char *name) {
    int go[2], out[2];
    struct program program;
    make_pipe(go), make_pipe(out);
    const int input = dup(0);
    CHECK(dup2(go[0], 0) == 0);
    program = (struct program){ run_program(name, out[1]), go[1], out[0] };
    dup2(input, 0), close(input), close(go[0]), close(out[1]);
    return program;
}

TEST(children_are_joined_at_the_end_of_main) {
    struct program program = begin("leaves_a_child");
    CHECK_INT(hear(program.out), 'M');
    tell(program.go, 'g');
    CHECK_TEXT(hear_all(program.out), "CP");
    CHECK_INT(status_of(program.pid), 0);
}

TEST(daemons_are_terminated_at_the_end_of_main) {
    struct program program = begin("leaves_a_daemon");
    const char *told = hear_all(program.out);
    /* Whether it came to install its handler is a race that main may win. */
    CHECK(strcmp(told, "rMTP") == 0 || strcmp(told, "MrTP") == 0 || strcmp(told, "MP") == 0);
    CHECK_INT(status_of(program.pid), 0);
}

TEST(stubborn_daemons_are_killed_at_the_end_of_main) {
    struct program program = begin("leaves_a_stubborn_daemon");
    const char *told = hear_all(program.out);
    CHECK(strcmp(told, "rMP") == 0 || strcmp(told, "MrP") == 0 || strcmp(told, "MP") == 0);
    CHECK_INT(status_of(program.pid), 0);
}

TEST(detached_children_are_left_alone_at_the_end_of_main) {
    struct program program = begin("leaves_a_detached_child");
    CHECK_INT(hear(program.out), 'M');
    CHECK_INT(hear(program.out), 'P');
    CHECK_INT(status_of(program.pid), 0);
    CHECK_INT(write(program.go, "gg", 2), 2);
    CHECK_TEXT(hear_all(program.out), "DD");
}

TEST(the_end_of_a_forked_child_waits_for_no_sibling) {
    struct program program = begin("forks_and_leaves_a_child");
    /* The forked child runs the program's handlers, not the library's. */
    CHECK_INT(hear(program.out), 'M');
    CHECK_INT(hear(program.out), 'P');
    CHECK_INT(hear(program.out), 'M');
    tell(program.go, 'g');
    CHECK_TEXT(hear_all(program.out), "CP");
    CHECK_INT(status_of(program.pid), 0);
}

TEST(a_child_joins_its_own_children_when_it_returns) {
    struct program program = begin("has_a_child_with_a_child");
    CHECK_INT(hear(program.out), 'M');
    tell(program.go, 'g');
    CHECK_TEXT(hear_all(program.out), "CP");
    CHECK_INT(status_of(program.pid), 0);
}

/* ---- Daemons and the host's death ---- */
TEST_PROGRAM(has_a_daemon_and_hangs) {
    begin_program();
    start_with(say_and_wait, (void *)1, NULL, TINE_PROCESS_DAEMON);
    for (;;) pause();
}

TEST(a_daemon_ends_when_its_host_is_killed) {
    struct program program = begin("has_a_daemon_and_hangs");
    CHECK_INT(hear(program.out), 'r');
    CHECK_INT(kill(program.pid, SIGKILL), 0);
    CHECK_INT(status_of(program.pid), SIGKILL);
    CHECK_INT(hear(program.out), 0); /* the daemon held the pipe, too */
}

/* Whoever closes all that it does not know, and uses the numbers again, keeps a watcher all the same. */
static int32_t replace_all(int other) {
    for (int i = 3; i < 100; i++) CHECK(i == other || dup2(other, i) == i);
    return say_and_wait((void *)1);
}
static int32_t replace_by_silent(void *unused) {
    int ends[2];
    (void)unused;
    CHECK_INT(pipe(ends), 0);
    return replace_all(ends[1]);
}
static int32_t replace_by_readable(void *unused) { return (void)unused, replace_all(open("/dev/zero", O_RDONLY)); }
TEST_PROGRAM(has_a_daemon_that_closed_everything) {
    begin_program();
    for (int i = 3; i < 100; i++) close(i);
    tine_process_t *process = start_with(replace_by_silent, NULL, NULL, TINE_PROCESS_DAEMON);
    for (int i = 3; i < 100; i++) close(i); /* and so does the host */
    tine_process_free(process);
    kept = start_with(replace_by_readable, NULL, NULL, TINE_PROCESS_DAEMON);
    for (;;) pause();
}

TEST(a_daemon_that_closed_everything_lives_and_dies_like_others) {
    struct program program = begin("has_a_daemon_that_closed_everything");
    struct pollfd ended = { program.out, POLLIN, 0 };
    CHECK_INT(hear(program.out), 'r');
    CHECK_INT(hear(program.out), 'r');
    CHECK_INT(poll(&ended, 1, 300), 0); /* longer than a watcher looks away */
    CHECK_INT(kill(program.pid, SIGKILL), 0);
    CHECK_INT(status_of(program.pid), SIGKILL);
    CHECK_INT(hear(program.out), 0);
}

static void *start_daemon(void *fds) {
    return start_with(wait_for_byte, (void *)(intptr_t)((int *)fds)[0], NULL, TINE_PROCESS_DAEMON);
}

TEST(a_daemon_does_not_depend_on_the_thread_that_started_it) {
    int go[2];
    pthread_t thread;
    void *process = NULL;
    make_pipe(go);
    CHECK_INT(pthread_create(&thread, NULL, start_daemon, go), 0);
    CHECK_INT(pthread_join(thread, &process), 0);
    CHECK(tine_process_is_daemon(process));
    CHECK_STATUS(tine_process_join(process, 300), TINE_ETIMEDOUT); /* longer than a watcher without pidfds looks away */
    tell(go[1], 6);
    CHECK_INT(code_of(process), 6);
    tine_process_free(process);
}

/* The filter ends the parent between fork and the first thing that it does to hold the child: the child waits at its gate then. */
static int32_t tell_that_it_ran(void *fd) { return tell((int)(intptr_t)fd, 'x'), 0; }
TEST_PROGRAM(dies_while_its_child_is_at_the_gate) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, has_pidfd() ? SYS_pidfd_open : SYS_waitid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof code / sizeof code[0], code };
    run(give_back, NULL); /* what the library opens once is open now */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) exit(77);
    start(tell_that_it_ran, (void *)1);
}

TEST(a_child_at_the_gate_ends_when_its_parent_does) {
    struct program program = begin("dies_while_its_child_is_at_the_gate");
    CHECK_INT(hear(program.out), 0); /* both are gone, and the child ran nothing */
    const int status = status_of(program.pid);
    if (status == 77 << 8) SKIP("no seccomp filters here");
    CHECK_INT(WTERMSIG(status), SIGSYS);
}

/* ---- Handles in forked children ---- */
TEST(a_handle_is_inert_in_a_forked_child) {
    size_t index;
    int32_t code;
    tine_exit_info_t info = TINE_EXIT_INFO_INIT;
    tine_process_t *process = start(wait_for_ever, NULL);
    const int fd = tine_process_fd(process);
    const pid_t pid = tine_fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK_STATUS(tine_process_join(process, 0), TINE_EFORKED);
        CHECK_MESSAGE("Process-1");
        CHECK(!tine_process_is_alive(process));
        CHECK_STATUS(tine_process_exit_code(process, &code), TINE_EFORKED);
        CHECK_STATUS(tine_process_exit_info(process, &info), TINE_EFORKED);
        CHECK_STATUS(tine_process_terminate(process), TINE_EFORKED);
        CHECK_STATUS(tine_process_kill(process), TINE_EFORKED);
        CHECK_STATUS(tine_process_signal(process, 0), TINE_EFORKED);
        CHECK_STATUS(tine_process_stop(process, 0), TINE_EFORKED);
        CHECK_STATUS(tine_process_wait_any(&process, 1, 0, &index), TINE_EFORKED);
        CHECK_INT(tine_process_fd(process), -1);
        CHECK(dup2(0, fd) == fd); /* the number is another file's here */
        tine_process_free(process);
        CHECK(fcntl(fd, F_GETFD) >= 0);
        CHECK_INT(run(give_back, (void *)2), 2); /* and it has children of its own */
        _exit(0);
    }
    CHECK_INT(status_of(pid), 0);
    CHECK(tine_process_is_alive(process));
    CHECK_OK(tine_process_stop(process, 0));
    CHECK(code_of(process) == -SIGTERM || code_of(process) == -SIGKILL);
    tine_process_free(process);
}

/* ---- Failures ---- */
static void check_nothing_started(int fds) {
    sigset_t mask;
    CHECK_INT(test_count_fds(), fds);
    CHECK_INT(test_count_children(), 0);
    CHECK_INT(pthread_sigmask(SIG_BLOCK, NULL, &mask), 0);
    CHECK(!sigismember(&mask, SIGTERM) && !sigismember(&mask, SIGUSR1));
}

TEST(a_failed_fork_leaves_nothing) {
    tine_process_t *process = NULL;
    struct rlimit limit, before;
    CHECK_INT(run(give_back, NULL), 0);
    CHECK_INT(getrlimit(RLIMIT_NPROC, &before), 0);
    limit = before, limit.rlim_cur = 0;
    if (getuid() != 0 || setgid(65534) != 0 || setuid(65534) != 0) SKIP("needs root, to become a user with a limit");
    CHECK_INT(setrlimit(RLIMIT_NPROC, &limit), 0);
    const int fds = test_count_fds();
    CHECK_STATUS(tine_process_start(give_back, NULL, NULL, &process), TINE_EAGAIN);
    CHECK_MESSAGE("fork");
    CHECK_INT(tine_last_errno(), EAGAIN);
    CHECK(process == NULL);
    CHECK_INT(tine_fork(), TINE_EAGAIN);
    check_nothing_started(fds);
    CHECK_INT(setrlimit(RLIMIT_NPROC, &before), 0);
}

TEST(a_daemon_that_cannot_be_watched_is_not_started) {
    tine_process_t *process = NULL;
    tine_process_options_t options = TINE_PROCESS_OPTIONS_INIT;
    struct rlimit before, this_and_one_more;
    options.flags = TINE_PROCESS_DAEMON;
    CHECK_INT(run(give_back, NULL), 0);
    CHECK_INT(getrlimit(RLIMIT_NPROC, &before), 0);
    this_and_one_more = before, this_and_one_more.rlim_cur = 2;
    const uid_t nobody_else = 100000 + (uid_t)getpid();
    if (getuid() != 0 || setgid(nobody_else) != 0 || setuid(nobody_else) != 0) SKIP("needs root, to become a user with a limit");
    CHECK_INT(setrlimit(RLIMIT_NPROC, &this_and_one_more), 0);
    const int fds = test_count_fds();
    CHECK_STATUS(tine_process_start(give_back, NULL, &options, &process), TINE_EAGAIN);
    CHECK_MESSAGE("thread");
    CHECK(process == NULL);
    check_nothing_started(fds);
    CHECK_INT(run(give_back, (void *)3), 3); /* one without a watcher is */
    CHECK_INT(setrlimit(RLIMIT_NPROC, &before), 0);
}

TEST(without_descriptors_a_child_is_still_known) {
    struct rlimit limit, before;
    tine_process_t *process = start(wait_for_ever, NULL);
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
    limit = before, limit.rlim_cur = 3;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    CHECK(tine_process_is_alive(process));
    CHECK_OK(tine_process_kill(process));
    CHECK_INT(finish(process), -SIGKILL);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
}

TEST(a_start_without_descriptors_leaves_nothing) {
    tine_process_t *process = NULL;
    struct rlimit limit;
    CHECK_INT(run(give_back, NULL), 0);
    const int fds = test_count_fds();
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    const rlim_t before = limit.rlim_cur;
    limit.rlim_cur = 3;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    CHECK_STATUS(tine_process_start(give_back, NULL, NULL, &process), TINE_EMFILE);
    limit.rlim_cur = before;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    check_nothing_started(fds);
}

/* ---- Callbacks of pools: a child must not be a copy of the middle of one ---- */
struct callback { int entered, leave; int32_t code; };
static void start_in_callback(const tine_result_t *result, void *user_data) {
    struct callback *callback = user_data;
    (void)result;
    callback->code = run(give_back, (void *)5); /* its own thread is no reason to wait */
    tell(callback->entered, 'e');
    hear(callback->leave);
}
static int32_t no_work(const void *arg, size_t arg_len, tine_task_t *task) { return (void)arg, (void)arg_len, (void)task, 0; }

TEST(a_fork_waits_for_a_callback_but_not_for_ever) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_submit_options_t submit = TINE_SUBMIT_OPTIONS_INIT;
    tine_pool_t *pool = NULL;
    tine_process_t *process = NULL;
    int entered[2], leave[2];
    make_pipe(entered), make_pipe(leave);
    struct callback callback = { entered[1], leave[0], 0 };
    options.workers = 1, submit.callback = start_in_callback, submit.user_data = &callback;
    CHECK_OK(tine_pool_new(&options, &pool));
    CHECK_OK(tine_pool_submit(pool, no_work, NULL, 0, &submit, NULL));
    CHECK_INT(hear(entered[0]), 'e');
    CHECK_INT(callback.code, 5);
    const int fds = test_count_fds();
    CHECK_STATUS(tine_process_start(give_back, NULL, NULL, &process), TINE_EBUSY);
    CHECK_MESSAGE("callback");
    CHECK_INT(tine_fork(), TINE_EBUSY);
    CHECK_INT(test_count_fds(), fds);
    tell(leave[1], 'l');
    CHECK_INT(run(give_back, (void *)6), 6);
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    tine_pool_free(pool);
}

TEST(bad_arguments_are_refused) {
    tine_process_t *process = NULL;
    struct { tine_process_options_t known; uint64_t newer; } options = { { .size = sizeof options }, 0 };
    CHECK_STATUS(tine_process_start(NULL, NULL, NULL, &process), TINE_EINVAL);
    CHECK_MESSAGE("fn");
    CHECK_STATUS(tine_process_start(give_back, NULL, NULL, NULL), TINE_EINVAL);
    CHECK_MESSAGE("out_process");
    options.known.flags = TINE_PROCESS_DAEMON | TINE_PROCESS_DETACHED;
    CHECK_STATUS(tine_process_start(give_back, NULL, &options.known, &process), TINE_EINVAL);
    options.known.flags = 4;
    CHECK_STATUS(tine_process_start(give_back, NULL, &options.known, &process), TINE_EINVAL);
    CHECK_MESSAGE("flags");
    options.known.flags = 0, options.newer = 1;
    CHECK_STATUS(tine_process_start(give_back, NULL, &options.known, &process), TINE_E2BIG);
    options.known.size = 0;
    CHECK_STATUS(tine_process_start(give_back, NULL, &options.known, &process), TINE_EINVAL);
    CHECK(process == NULL);
    CHECK_INT(test_count_children(), 0);
    CHECK(!tine_process_is_alive(NULL));
    CHECK_INT(tine_process_pid(NULL), -1);
    CHECK_INT(tine_process_fd(NULL), -1);
    CHECK_TEXT(tine_process_name(NULL), "");
    tine_process_free(NULL);
    process = start(give_back, NULL);
    CHECK_STATUS(tine_process_join(process, -2), TINE_EINVAL);
    CHECK_INT(code_of(process), 0);
    CHECK_OK(tine_process_exit_code(process, NULL));
    tine_process_free(process);
}

TEST(a_function_child_has_no_pipes_to_its_streams) {
    tine_process_t *process = start(give_back, NULL);
    int fd = -7;
    CHECK_STATUS(tine_process_take_stdin(process, &fd), TINE_ECLOSED);
    CHECK_STATUS(tine_process_take_stdout(process, &fd), TINE_ECLOSED);
    CHECK_STATUS(tine_process_take_stderr(process, &fd), TINE_ECLOSED);
    CHECK_MESSAGE("no pipe to its stderr");
    CHECK_STATUS(tine_process_close_stdin(process), TINE_ECLOSED);
    CHECK_INT(fd, -7);
    CHECK_INT(tine_process_stdin_fd(process), -1);
    CHECK_INT(tine_process_stdout_fd(process), -1);
    CHECK_INT(tine_process_stderr_fd(process), -1);
    CHECK_INT(code_of(process), 0);
    tine_process_free(process);
}

/* ---- Signals around the start ---- */
static int32_t mask_is_as_it_was(void *unused) {
    sigset_t mask;
    (void)unused;
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    return !(sigismember(&mask, SIGUSR1) && !sigismember(&mask, SIGUSR2) && !sigismember(&mask, SIGTERM));
}

TEST(the_signal_mask_is_inherited_and_kept) {
    sigset_t mask;
    sigemptyset(&mask), sigaddset(&mask, SIGUSR1);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    CHECK_INT(run(mask_is_as_it_was, NULL), 0);
    CHECK_INT(finish(start_with(mask_is_as_it_was, NULL, NULL, TINE_PROCESS_DAEMON)), 0);
    CHECK_INT(mask_is_as_it_was(NULL), 0);
}

TEST(a_child_may_be_terminated_before_its_first_line) {
    for (int i = fewer_under_valgrind(50); i > 0; i--) {
        tine_process_t *process = start(wait_for_ever, NULL);
        CHECK_OK(tine_process_terminate(process));
        CHECK_INT(code_of(process), -SIGTERM);
        tine_process_free(process);
    }
}

/* ---- The rest of the library ---- */
TEST(tine_fork_is_a_fork) {
    const int fds = test_count_fds();
    const pid_t pid = tine_fork();
    if (pid == 0) exit(test_count_fds() == fds ? 11 : 1);
    CHECK(pid > 0);
    CHECK_INT(WEXITSTATUS(status_of(pid)), 11);
}

TEST(processors_are_those_that_this_process_may_use) {
    cpu_set_t all, one;
    int first = 0;
    CHECK(tine_cpu_count() >= 1);
    CHECK_INT(sched_getaffinity(0, sizeof all, &all), 0);
    CHECK(tine_cpu_count() <= (uint32_t)CPU_COUNT(&all));
    while (!CPU_ISSET(first, &all)) first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    CHECK_INT(sched_setaffinity(0, sizeof one, &one), 0);
    CHECK_INT(tine_cpu_count(), 1);
}
