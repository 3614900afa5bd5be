/* What a pool's flags do; what tasks leave behind; what a terminal sends. */
#include "pool_tools.h"
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <termios.h>

static tine_pool_t *pool_with_flags(uint32_t workers, uint32_t flags) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    options.workers = workers, options.flags = flags;
    return pool_with(&options);
}

/* ---- Signals ---- */
struct signals { uint64_t blocked, ignored, caught; };
static uint64_t signals_in(const char *field) { return strtoull(proc_field("self", field), NULL, 16) & ~(UINT64_C(3) << 31); }
static struct signals signals_of_self(void) {
    return (struct signals){ signals_in("SigBlk:"), signals_in("SigIgn:"), signals_in("SigCgt:") };
}
static int32_t tell_signals(const void *arg, size_t len, tine_task_t *task) {
    const struct signals signals = signals_of_self();
    (void)arg, (void)len;
    return tine_task_reply(task, &signals, sizeof signals);
}
static volatile sig_atomic_t caught;
static void catch(int signal) { caught = signal; }
static int32_t raise_and_tell(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len;
    raise(SIGUSR1);
    const int signal = caught;
    return tine_task_reply(task, &signal, sizeof signal);
}
TEST(workers_keep_the_hosts_signals_if_it_wants_that) {
    const int child_actions[] = { 0, 1, 2 };
    if (under_valgrind()) SKIP("valgrind handles signals itself");
    for (int i = 0; i < 3; i++) {
        sigset_t mask;
        const int way = BY_KILL;
        size_t len;
        signal(SIGPIPE, SIG_IGN), signal(SIGINT, SIG_IGN), signal(SIGUSR1, catch);
        signal(SIGCHLD, child_actions[i] == 0 ? SIG_DFL : child_actions[i] == 1 ? SIG_IGN : catch);
        sigemptyset(&mask), sigaddset(&mask, SIGUSR2), sigaddset(&mask, SIGRTMIN + 2);
        CHECK_INT(pthread_sigmask(SIG_SETMASK, &mask, NULL), 0);
        const struct signals before = signals_of_self();
        tine_pool_t *pool = pool_with_flags(1, TINE_POOL_KEEP_SIGNALS);
        for (int round = 0; round < 2; round++) {
            struct signals signals;
            tine_result_t *result = apply(pool, tell_signals, NULL, 0);
            const void *data = tine_result_data(result, &len);
            CHECK_INT(len, sizeof signals);
            memcpy(&signals, data, sizeof signals);
            CHECK(signals.blocked == before.blocked && signals.ignored == before.ignored && signals.caught == before.caught);
            tine_result_free(result);
            result = apply(pool, raise_and_tell, NULL, 0);
            CHECK_INT(number_of(result), SIGUSR1);
            tine_result_free(result);
            result = apply(pool, die, &way, sizeof way); /* the nursery hears of it, whatever the host does with SIGCHLD */
            check_death(result, way);
            tine_result_free(result);
        }
        end_pool(pool);
    }
}

/* ---- Core files ---- */
static int32_t tell_core_limit(const void *arg, size_t len, tine_task_t *task) {
    struct rlimit limit = { 1, 1 };
    (void)arg, (void)len;
    getrlimit(RLIMIT_CORE, &limit);
    const int bytes = (int)limit.rlim_cur;
    return tine_task_reply(task, &bytes, sizeof bytes);
}
TEST(workers_leave_no_core_files_if_that_is_asked) {
    struct rlimit limit = { 0, 0 };
    CHECK_INT(getrlimit(RLIMIT_CORE, &limit), 0);
    if (limit.rlim_max < 4096) SKIP("core files are forbidden here");
    limit.rlim_cur = 4096;
    CHECK_INT(setrlimit(RLIMIT_CORE, &limit), 0);
    for (int none = 0; none < 2; none++) {
        tine_pool_t *pool = pool_with_flags(1, none ? TINE_POOL_NO_CORE : 0);
        tine_result_t *result = apply(pool, tell_core_limit, NULL, 0);
        CHECK_INT(number_of(result), none ? 0 : 4096);
        tine_result_free(result);
        end_pool(pool);
    }
}

static int32_t work_and_abort(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len, (void)task;
    struct timespec used;
    do clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    while (used.tv_sec == 0 && used.tv_nsec < 20000000);
    abort();
}
static void remove_folder(const char *path) {
    DIR *folder = opendir(".");
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) unlink(entry->d_name);
    closedir(folder);
    rmdir(path);
}
TEST(a_death_tells_its_times_and_whether_there_is_a_core_file) {
    char pattern = 0, path[] = "/tmp/tine-core-XXXXXX";
    struct rlimit limit = { 0, 0 };
    FILE *file = fopen("/proc/sys/kernel/core_pattern", "re");
    if (file == NULL || fread(&pattern, 1, 1, file) != 1 || strchr("/|\n", pattern) != NULL) SKIP("core files do not stay here");
    fclose(file);
    CHECK_INT(getrlimit(RLIMIT_CORE, &limit), 0);
    if (limit.rlim_max < MIB) SKIP("core files are forbidden here");
    limit.rlim_cur = MIB;
    CHECK_INT(setrlimit(RLIMIT_CORE, &limit), 0);
    CHECK(mkdtemp(path) != NULL && chdir(path) == 0);
    const pid_t probe = fork();
    if (probe == 0) abort();
    const int leaves_core = WCOREDUMP(status_of(probe));
    for (int none = 0; none < 2 && leaves_core; none++) {
        tine_pool_t *pool = pool_with_flags(1, none ? TINE_POOL_NO_CORE : 0);
        tine_result_t *result = apply(pool, work_and_abort, NULL, 0);
        CHECK_STATUS(tine_result_status(result), TINE_EWORKERDIED);
        const tine_exit_info_t info = exit_of(result);
        CHECK_INT(info.signal, SIGABRT);
        CHECK_INT(info.core_dumped, !none);
        CHECK(info.valid & TINE_EXIT_HAS_TIMES);
        CHECK(info.user_us + info.system_us >= 10000);
        tine_result_free(result);
        end_pool(pool);
    }
    remove_folder(path);
    if (!leaves_core) SKIP("no core files here");
}

/* ---- Descriptors ---- */
static int32_t tell_open(const void *arg, size_t len, tine_task_t *task) {
    const int open = fcntl(number_in(arg, len), F_GETFD) >= 0;
    return tine_task_reply(task, &open, sizeof open);
}
TEST(workers_keep_all_descriptors_if_that_is_asked) {
    int ends[2];
    make_pipe(ends);
    const int moved = fcntl(ends[1], F_DUPFD, 300); /* one that survives exec; the other does not: no difference to a fork */
    const int numbers[] = { ends[0], ends[1], moved };
    for (int all = 0; all < 2; all++) {
        tine_pool_t *pool = pool_with_flags(1, all ? TINE_POOL_INHERIT_ALL_FDS : 0);
        for (int i = 0; i < 3; i++) {
            tine_result_t *result = apply(pool, tell_open, &numbers[i], sizeof numbers[i]);
            CHECK_INT(number_of(result), all);
            tine_result_free(result);
        }
        end_pool(pool);
    }
}

/* ---- A death that breaks the pool ---- */
TEST(the_first_death_breaks_a_pool_that_wants_that) {
    share();
    tine_pool_t *pool = pool_with_flags(2, TINE_POOL_BREAK_ON_DEATH);
    tine_submit_options_t limited = TINE_SUBMIT_OPTIONS_INIT;
    const int way = BY_SEGV;
    limited.timeout_ms = 10;
    CHECK_STATUS(end_of(submit_with(pool, wait_at_gate, NULL, 0, &limited)), TINE_ETIMEDOUT); /* an end that the pool ordered is none */
    check_works(pool);
    tine_result_t *result = apply(pool, die, &way, sizeof way);
    check_death(result, way);
    tine_result_free(result);
    CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL), TINE_EBROKEN);
    CHECK_MESSAGE("signal 11");

    tine_pool_free(pool);
}

/* ---- What dead workers leave behind ---- */
struct family { pid_t child, grandchild; };
static struct family start_family(void) { /* both sleep for ever, the grandchild in a session of its own */
    struct family family = { 0, 0 };
    int ends[2];
    make_pipe(ends);
    family.child = fork();
    if (family.child == 0) {
        const pid_t grandchild = fork();
        if (grandchild == 0) setsid();
        else (void)!write(ends[1], &grandchild, sizeof grandchild);
        for (;;) pause();
    }
    CHECK_INT(read(ends[0], &family.grandchild, sizeof family.grandchild), sizeof family.grandchild);
    return family;
}
static int32_t start_family_and(const void *arg, size_t len, tine_task_t *task) {
    const struct family family = start_family();
    shared->slots[0] = family.child, shared->slots[1] = family.grandchild;
    count_up(&shared->started);
    if (len > 0 && number_in(arg, len) == WAYS_TO_DIE) _exit(0);
    if (len > 0) return die(arg, len, task);
    await(&shared->gate, 1);
    return 0;
}
static void check_nobody_left(void) {
    CHECK(shared->slots[0] > 1 && shared->slots[1] > 1);
    CHECK(await_gone(shared->slots[0], 10) && await_gone(shared->slots[1], 10));
}
TEST(what_a_dead_worker_started_is_ended) {
    share();
    tine_pool_t *pool = pool_of(2);
    for (int way = 0; way < WAYS_TO_DIE; way++) {
        tine_result_t *result = apply(pool, start_family_and, &way, sizeof way);
        check_death(result, way);
        tine_result_free(result);
        check_nobody_left();
    }
    const int by_exit_0 = WAYS_TO_DIE; /* no orderly end either: its task has not ended */
    tine_result_t *result = apply(pool, start_family_and, &by_exit_0, sizeof by_exit_0);
    CHECK_STATUS(tine_result_status(result), TINE_EWORKERDIED);
    CHECK_INT(exit_of(result).reason, TINE_REASON_EXIT);
    CHECK_INT(exit_of(result).code, 0);
    tine_result_free(result);
    check_nobody_left();
    check_works(pool);
    end_pool(pool);
}
TEST(what_a_worker_started_is_ended_when_its_time_is_over_or_its_task_cancelled) {
    tine_submit_options_t limited = TINE_SUBMIT_OPTIONS_INIT;
    share();
    tine_pool_t *pool = pool_of(1);
    limited.timeout_ms = 100;
    CHECK_STATUS(end_of(submit_with(pool, start_family_and, NULL, 0, &limited)), TINE_ETIMEDOUT);
    check_nobody_left();
    tine_async_t *async = submit(pool, start_family_and, NULL, 0);
    await(&shared->started, 2);
    CHECK_OK(tine_async_cancel(async));
    CHECK_STATUS(end_of(async), TINE_ECANCELED);
    check_nobody_left();
    end_pool(pool);
}
TEST(what_a_worker_that_leaves_in_order_started_is_left_alone) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    share();
    options.workers = 1, options.max_tasks_per_worker = 1;
    tine_pool_t *pool = pool_with(&options);
    set(&shared->gate, 1);
    tine_result_t *result = apply(pool, start_family_and, NULL, 0);
    CHECK(await_gone(tine_result_worker_pid(result), 10));
    tine_result_free(result);
    check_works(pool); /* each number by another worker */
    CHECK(!is_gone(shared->slots[0]) && !is_gone(shared->slots[1]));
    CHECK_OK(tine_pool_terminate(pool, 0, NULL));
    check_nobody_left();
    tine_pool_free(pool);
}
TEST(the_children_of_living_workers_are_left_alone) {
    share();
    tine_pool_t *pool = pool_of(2);
    tine_async_t *family = submit(pool, start_family_and, NULL, 0);
    await(&shared->started, 1);
    for (int i = 0; i < 5; i++) {
        const int way = BY_SEGV;
        tine_result_free(apply(pool, die, &way, sizeof way));
        check_works(pool);
    }
    CHECK(!is_gone(shared->slots[0]) && !is_gone(shared->slots[1]));
    set(&shared->gate, 1);
    CHECK_STATUS(end_of(family), TINE_OK);
    CHECK_OK(tine_pool_terminate(pool, 0, NULL));
    check_nobody_left(); /* whoever terminates wants nobody left */
    tine_pool_free(pool);
}

/* ---- The terminal ---- */
TEST_PROGRAM(host_at_a_terminal) {
    signal(SIGINT, catch), signal(SIGQUIT, catch);
    share();
    tine_pool_t *pool = pool_of(2);
    tine_async_t *running = submit(pool, wait_at_gate, NULL, 0);
    await(&shared->started, 1);
    const pid_t pids[] = { worker_of(pool, 0), worker_of(pool, 1) };
    for (int i = 0; i < 2; i++) {
        printf("ready\n"), fflush(stdout);
        while (!caught) pause();
        caught = 0;
    }
    check_works(pool);
    set(&shared->gate, 1);
    CHECK_STATUS(end_of(running), TINE_OK);
    CHECK(worker_of(pool, 0) == pids[0] && worker_of(pool, 1) == pids[1]);
    CHECK_INT(stats_of(pool).worker_deaths, 0);
    end_pool(pool);
    printf("done\n"), fflush(stdout);
}
static void hear_line(int fd, const char *wanted) { /* among what the terminal echoes */
    char text[256];
    for (size_t length = 0; length < sizeof text - 1;) {
        CHECK_INT(read(fd, text + length, 1), 1);
        text[++length] = 0;
        if (text[length - 1] != '\n') continue;
        if (strstr(text, wanted) != NULL) return;
        length = 0;
    }
    TEST_FAIL("no \"%s\" from the terminal", wanted);
}
TEST(ctrl_c_at_a_terminal_reaches_the_host_alone) {
    if (under_valgrind()) SKIP("valgrind handles signals itself");
    const int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (terminal < 0 || grantpt(terminal) != 0 || unlockpt(terminal) != 0) SKIP("no terminals here");
    const int number_of_terminal = open(ptsname(terminal), O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(number_of_terminal >= 0);
    const pid_t host = fork();
    if (host == 0) {
        setsid();
        if (ioctl(number_of_terminal, TIOCSCTTY, 0) != 0) _exit(77);
        for (int i = 0; i < 3; i++) dup2(number_of_terminal, i);
        test_execute("host_at_a_terminal");
    }
    hear_line(terminal, "ready");
    tell(terminal, 3); /* Ctrl-C: SIGINT to the foreground group */
    hear_line(terminal, "ready");
    tell(terminal, 28); /* Ctrl-\ */
    hear_line(terminal, "done");
    CHECK_INT(status_of(host), 0);
    close(terminal), close(number_of_terminal);
}

/* ---- A host that is the first process of its pid namespace ---- */
static void be_first_process(void) {
    const int way = BY_SEGV;
    const int has_own_proc = unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
                             mount("proc", "/proc", "proc", 0, NULL) == 0;
    if (!has_own_proc) printf("# /proc is that of another namespace\n");
    share();
    tine_pool_t *pool = pool_of(2);
    for (int i = 0; i < 3; i++) {
        tine_result_t *result = apply(pool, die, &way, sizeof way);
        check_death(result, way);
        tine_result_free(result);
    }
    if (has_own_proc) { /* in another namespace's the nursery cannot find out who is its child */
        tine_result_t *result = apply(pool, start_family_and, &way, sizeof way);
        check_death(result, way);
        tine_result_free(result);
        check_nobody_left();
    }
    tine_submit_options_t limited = TINE_SUBMIT_OPTIONS_INIT;
    limited.timeout_ms = 20;
    CHECK_STATUS(end_of(submit_with(pool, wait_at_gate, NULL, 0, &limited)), TINE_ETIMEDOUT);
    check_works(pool);
    end_pool(pool);
    CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD); /* it adopts every orphan, the nursery too: no zombie stays */
    pool = pool_of(1);
    CHECK_OK(tine_pool_submit(pool, wait_at_gate, NULL, 0, NULL, NULL));
    await(&shared->started, has_own_proc ? 3 : 2);
    tine_pool_free(pool);
    CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
    _exit(0);
}
TEST(the_first_process_of_a_namespace_may_have_pools) {
    if (under_valgrind()) SKIP("valgrind cannot unshare");
    const pid_t outer = fork(); /* who has unshared makes no child any more once that first one is gone */
    if (outer == 0) {
        if (unshare(CLONE_NEWPID) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0) _exit(77);
        const pid_t first = fork();
        if (first == 0) be_first_process();
        _exit(status_of(first) != 0);
    }
    const int status = status_of(outer);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) SKIP("needs root or user namespaces");
    CHECK_INT(status, 0);
}

/* ---- A host that becomes a daemon after it made a pool ---- */
TEST_PROGRAM(host_that_becomes_a_daemon) {
    share();
    tine_pool_t *pool = pool_of(2);
    const pid_t nursery = nursery_of(pool);
    if (fork() > 0) _exit(0); /* what daemon(3) does: the pool was this process's */
    setsid();
    const int gone = await_gone(nursery, 10);
    const tine_status_t status = tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL);
    tine_pool_free(pool);
    pool = pool_of(1); /* and this one makes its own */
    check_works(pool);
    end_pool(pool);
    printf("%d %d\n", gone, (int)status), fflush(stdout);
}
TEST(a_host_that_becomes_a_daemon_leaves_its_pool_behind) {
    int ends[2], gone = 0, status = 0;
    make_pipe(ends);
    const pid_t host = run_program("host_that_becomes_a_daemon", ends[1]);
    close(ends[1]);
    CHECK_INT(status_of(host), 0);
    CHECK_INT(sscanf(hear_all(ends[0]), "%d %d", &gone, &status), 2);
    CHECK_INT(gone, 1);
    CHECK_STATUS(status, TINE_EFORKED);
}

/* ---- A nursery that does not hear ---- */
TEST(orders_to_a_stopped_nursery_are_carried_out_when_it_goes_on) {
    share();
    tine_pool_t *pool = pool_of(2);
    const pid_t nursery = nursery_of(pool);
    tine_async_t *running = submit(pool, wait_at_gate, NULL, 0);
    await(&shared->started, 1);
    CHECK_INT(kill(nursery, SIGSTOP), 0);
    CHECK_OK(tine_async_cancel(running));
    CHECK_OK(tine_pool_resize(pool, 3));
    CHECK_STATUS(tine_async_wait(running, 50), TINE_ETIMEDOUT);
    check_works(pool); /* what needs no nursery goes on */
    CHECK_INT(kill(nursery, SIGCONT), 0);
    CHECK_STATUS(end_of(running), TINE_ECANCELED);
    await_workers(pool, 3);
    check_works(pool);
    end_pool(pool);
}

static void wait_in_callback(const tine_result_t *result, void *unused) {
    (void)result, (void)unused;
    count_up(&shared->started);
    await(&shared->gate, 1);
}
TEST(a_pool_that_breaks_while_its_nursery_does_not_hear_ends) {
    static const uint32_t flags[] = { 0, TINE_POOL_HOST_LOOP };
    for (int kind = 0; kind < 2; kind++) {
        tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
        tine_submit_options_t waits = TINE_SUBMIT_OPTIONS_INIT;
        share();
        options.workers = 2, options.flags = TINE_POOL_BREAK_ON_DEATH | flags[kind];
        tine_pool_t *pool = pool_with(&options);
        const pid_t nursery = nursery_of(pool), worker = worker_of(pool, 0);
        waits.callback = wait_in_callback;
        if (kind == 0) { /* the pool's thread is to see nothing for a while */
            CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &waits, NULL));
            await(&shared->started, 1);
        }
        CHECK_INT(kill(worker, SIGKILL), 0);
        while (field_of(worker, "State:")[0] != 0) sched_yield(); /* the nursery has reaped it, */
        while (field_of(nursery, "State:")[0] != 'S') sched_yield(); /* written that down and sleeps again */
        deafen(nursery);
        (void)stats_of(pool); /* here the death is counted */
        CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL), TINE_EBROKEN);
        CHECK_INT(kill(nursery, SIGCONT), 0);
        set(&shared->gate, 1);
        CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
        tine_pool_free(pool);
    }
}

static void end_by_sigterm(int number) {
    count_up(&shared->ended);
    signal(number, SIG_DFL), raise(number);
}
static int32_t wait_for_sigterm(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len, (void)task;
    signal(SIGTERM, end_by_sigterm);
    count_up(&shared->started);
    for (;;) pause();
    return 0;
}
static tine_pool_t *to_end;
static void *wake_nursery_when_terminated(void *nursery) {
    while (tine_pool_submit(to_end, do_nothing, NULL, 0, NULL, NULL) == TINE_OK) sched_yield();
    CHECK_INT(kill(*(pid_t *)nursery, SIGCONT), 0);
    return NULL;
}
TEST(terminate_is_heard_by_a_nursery_that_goes_on) {
    pthread_t thread;
    uint32_t killed = 9;
    share();
    to_end = pool_of(1);
    tine_async_t *async = submit(to_end, wait_for_sigterm, NULL, 0);
    await(&shared->started, 1);
    pid_t nursery = nursery_of(to_end);
    deafen(nursery);
    CHECK_INT(pthread_create(&thread, NULL, wake_nursery_when_terminated, &nursery), 0);
    CHECK_OK(tine_pool_terminate(to_end, 10000, &killed));
    CHECK_INT(killed, 0);
    CHECK_INT(shared->ended, 1);
    CHECK_STATUS(end_of(async), TINE_ECANCELED);
    CHECK_INT(pthread_join(thread, NULL), 0);
    tine_pool_free(to_end);
}
