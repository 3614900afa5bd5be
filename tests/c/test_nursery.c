/* The nursery: what a pool keeps of its host, what it does to it, and how both of them end. */
#include <dlfcn.h>
#include <grp.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include "pool_tools.h"

/* ---- What the host had open ---- */
TEST(a_closed_socket_of_the_host_is_closed) {
    struct epoll_event event = { .events = EPOLLIN };
    int ends[2];
    char bytes[8];
    const int watch = epoll_create1(EPOLL_CLOEXEC);
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0); /* not even close-on-exec */
    CHECK_INT(epoll_ctl(watch, EPOLL_CTL_ADD, ends[0], &event), 0);
    CHECK_INT(write(ends[1], "readable", 8), 8);
    CHECK_INT(epoll_wait(watch, &event, 1, 0), 1);
    tine_pool_t *pool = pool_of(2);
    CHECK_INT(close(ends[0]), 0);
    /* A copy in another process would keep the open file in the interest list, readable for ever. */
    CHECK_INT(epoll_wait(watch, &event, 1, 0), 0);
    const ssize_t got = recv(ends[1], bytes, sizeof bytes, 0); /* the peer's end of file; "reset", as bytes were left unread */
    CHECK(got == 0 || (got == -1 && errno == ECONNRESET));
    CHECK_INT(epoll_wait(watch, &event, 1, 50), 0);
    check_works(pool);
    CHECK_INT(epoll_wait(watch, &event, 1, 0), 0);
    end_pool(pool);
}

TEST(a_pipe_of_the_host_ends_when_the_host_closes_it) {
    int ends[2];
    CHECK_INT(pipe(ends), 0);
    tine_pool_t *pool = pool_of(2);
    check_works(pool);
    CHECK_INT(close(ends[1]), 0);
    CHECK_INT(hear(ends[0]), 0);
    end_pool(pool);
}

static int bound_socket(uint16_t *port) { /* 0: any */
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(*port), .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t length = sizeof address;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) SKIP("no IPv4 here");
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 1) != 0) {
        if (*port == 0) SKIP("no loopback here");
        return close(fd), -1;
    }
    CHECK_INT(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    *port = ntohs(address.sin_port);
    return fd;
}
TEST(a_port_and_a_file_lock_of_the_host_are_free_when_it_lets_go) {
    uint16_t port = 0;
    char path[64];
    const int listening = bound_socket(&port), locked = (int)syscall(SYS_memfd_create, "locked", 0);
    CHECK(listening >= 0 && locked >= 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", locked);
    const int other = open(path, O_RDWR | O_CLOEXEC);
    CHECK(other >= 0);
    CHECK_INT(flock(locked, LOCK_EX), 0);
    CHECK_INT(flock(other, LOCK_EX | LOCK_NB), -1);
    tine_pool_t *pool = pool_of(2);
    CHECK_INT(close(listening), 0);
    CHECK_INT(close(locked), 0);
    const int again = bound_socket(&port);
    CHECK(again >= 0);
    CHECK_INT(flock(other, LOCK_EX | LOCK_NB), 0);
    check_works(pool);
    end_pool(pool);
}

/* Names of the open files of a process, one a line: what readlink says of /proc/PID/fd. */
static size_t list_files(const char *pid, char *text, size_t capacity) {
    char path[300];
    size_t length = 0;
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    DIR *folder = opendir(path);
    CHECK(folder != NULL);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char name[256] = "";
        if (entry->d_name[0] == '.' || (strcmp(pid, "self") == 0 && atoi(entry->d_name) == dirfd(folder))) continue;
        if (readlinkat(dirfd(folder), entry->d_name, name, sizeof name - 1) < 0) continue;
        length += (size_t)snprintf(text + length, capacity - length, "%s %s\n", entry->d_name, name);
        CHECK(length < capacity - 300);
    }
    closedir(folder);
    text[length] = 0;
    return length;
}
static int32_t list_own_files(const void *arg, size_t len, tine_task_t *task) {
    char text[8 * KIB];
    (void)arg, (void)len;
    return tine_task_reply(task, text, list_files("self", text, sizeof text) + 1);
}
static const char *name_of(int fd) {
    static char name[300];
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    memset(name, 0, sizeof name);
    CHECK(readlink(path, name, sizeof name - 1) > 0);
    return name;
}
static void check_has(const char *list, int number, const char *name, int wanted) {
    char line[400];
    if (number >= 0) snprintf(line, sizeof line, "%d %s\n", number, name);
    else snprintf(line, sizeof line, " %s\n", name);
    if ((strstr(list, line) != NULL) != wanted) TEST_FAIL("\"%s\" is %s among these:\n%s", name, wanted ? "missing" : "not expected", list);
}
TEST(workers_have_dev_null_as_stdin_and_no_file_of_the_host_but_the_promised_ones) {
    enum { FOREIGN = 7 };
    int ends[2], pipes[2], promised[2], foreign[FOREIGN];
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    char nursery_files[8 * KIB], nursery[20];
    make_pipe(promised);
    CHECK_INT(pipe(pipes), 0);
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    CHECK_INT(dup2(pipes[0], 0), 0); /* a stdin that is not /dev/null already */
    foreign[0] = pipes[0], foreign[1] = pipes[1], foreign[2] = ends[0], foreign[3] = ends[1];
    CHECK((foreign[4] = open("/proc/self/exe", O_RDONLY)) >= 0);
    CHECK((foreign[5] = (int)syscall(SYS_memfd_create, "foreign", 0)) >= 0);
    CHECK((foreign[6] = fcntl(foreign[5], F_DUPFD, 500)) >= 0); /* a high number */
    const int epoll_fd = epoll_create1(0);
    CHECK(epoll_fd >= 0);
    options.workers = 2, options.inherit_fds = promised, options.inherit_fd_count = 2;
    tine_pool_t *pool = pool_with(&options);
    snprintf(nursery, sizeof nursery, "%d", nursery_of(pool));
    list_files(nursery, nursery_files, sizeof nursery_files);
    for (int round = 0; round < 4; round++) {
        const int way = BY_KILL;
        size_t len;
        tine_result_t *result = apply(pool, list_own_files, NULL, 0);
        CHECK_STATUS(tine_result_status(result), TINE_OK);
        const char *lists[] = { tine_result_data(result, &len), nursery_files };
        for (int i = 0; i < 2; i++) {
            check_has(lists[i], 0, "/dev/null", 1);
            check_has(lists[i], 1, name_of(1), 1);
            check_has(lists[i], 2, name_of(2), 1);
            check_has(lists[i], promised[0], name_of(promised[0]), 1); /* under the same numbers */
            check_has(lists[i], promised[1], name_of(promised[1]), 1);
            for (int k = 0; k < FOREIGN; k++) /* valgrind has the program open as well */
                if (k != 4 || !under_valgrind()) check_has(lists[i], -1, name_of(foreign[k]), 0);
            check_has(lists[i], -1, "anon_inode:[eventpoll]", 0);
        }
        tine_result_free(result);
        tine_result_free(apply(pool, die, &way, sizeof way)); /* a replacement has no more than the first */
    }
    end_pool(pool);
}

/* ---- The host's children, signals, streams ---- */
static int32_t flags_of_stdin(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len, (void)task;
    return fcntl(0, F_GETFD);
}
TEST(a_worker_of_a_host_without_stdin_has_one_for_what_it_executes) {
    CHECK_INT(close(0), 0);
    tine_pool_t *pool = pool_of(1);
    tine_result_t *result = apply(pool, flags_of_stdin, NULL, 0);
    CHECK_STATUS(tine_result_status(result), TINE_OK);
    CHECK_INT(tine_result_code(result), 0);
    tine_result_free(result);
    end_pool(pool);
}

TEST(a_host_that_waits_for_all_its_children_sees_none) {
    const int way = BY_KILL;
    int status;
    tine_pool_t *pool = pool_of(2);
    while (wait(&status) > 0) {}
    CHECK_INT(errno, ECHILD);
    CHECK_INT(test_count_children(), 0);
    share();
    for (int i = 0; i < 5; i++) {
        tine_result_t *result = apply(pool, die, &way, sizeof way);
        check_death(result, way);
        tine_result_free(result);
        while (wait(&status) > 0) {}
        CHECK_INT(errno, ECHILD);
    }
    const pid_t pid = fork(); /* and its own child is still its own */
    if (pid == 0) _exit(5);
    CHECK_INT(wait(&status), pid);
    CHECK_INT(WEXITSTATUS(status), 5);
    end_pool(pool);
    while (wait(&status) > 0) {}
    CHECK_INT(errno, ECHILD);
}

/* A container's first process adopts what is orphaned: the nursery as well, when its first parent has gone. */
TEST(a_host_that_adopts_orphans_keeps_no_zombies) {
    if (!has_pidfd()) SKIP("needs pidfds"); /* without one nobody can tell the zombie from another child of its number */
    CHECK_INT(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
    for (int i = 0; i < 10; i++) {
        tine_pool_t *pool = pool_of(2);
        check_works(pool);
        if (i % 2 == 0) end_pool(pool);
        else tine_pool_free(pool);
    }
    end_pool(pool_of(1)); /* "no zombie after the next call of the library" */
    for (int looks = 0; looks < 1000 && test_count_children() > 0; looks++) poll(NULL, 0, 2);
    CHECK_INT(test_count_children(), 0);
}

static int sigchld_count;
static void count_sigchld(int signal) { (void)signal, __atomic_fetch_add(&sigchld_count, 1, __ATOMIC_SEQ_CST); }
static void check_all_deaths(uint32_t workers) {
    tine_pool_t *pool = pool_of(workers);
    for (int i = 0; i < 12; i++) {
        const int way = i % WAYS_TO_DIE;
        tine_result_t *result = apply(pool, die, &way, sizeof way);
        check_death(result, way);
        tine_result_free(result);
        check_works(pool);
    }
    end_pool(pool);
}
TEST(deaths_are_told_right_whatever_the_host_does_with_sigchld) {
    struct sigaction action = { .sa_handler = SIG_IGN };
    share();
    CHECK_INT(sigaction(SIGCHLD, &action, NULL), 0);
    check_all_deaths(2);
    action.sa_handler = SIG_DFL, action.sa_flags = SA_NOCLDWAIT;
    CHECK_INT(sigaction(SIGCHLD, &action, NULL), 0);
    check_all_deaths(1);
    action.sa_handler = count_sigchld, action.sa_flags = SA_RESTART;
    CHECK_INT(sigaction(SIGCHLD, &action, NULL), 0);
    check_all_deaths(2);
    printf("# signals of children that reached the host: %d\n", sigchld_count);
}

static void *reap_everything(void *stop) {
    while (!value_of(stop))
        if (waitpid(-1, NULL, 0) < 0) sched_yield();
    return NULL;
}
TEST(pools_may_be_made_while_a_thread_reaps_everything) {
    static int stop;
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, reap_everything, &stop), 0);
    share();
    for (int i = 0; i < 20; i++) {
        tine_pool_t *pool = pool_of(1);
        check_works(pool);
        end_pool(pool);
    }
    check_all_deaths(2);
    set(&stop, 1);
    pthread_join(thread, NULL);
}

struct signals { uint64_t blocked, ignored, caught; int32_t group; };
/* Without 32 and 33, which are libc's own, for threads: it handles them from the first one on, and a program that libc's posix_spawn
 * started (make does) is born with both ignored. */
static uint64_t signals_in(const char *field) { return strtoull(proc_field("self", field), NULL, 16) & ~(UINT64_C(3) << 31); }
static struct signals signals_of_self(void) {
    struct signals signals = { signals_in("SigBlk:"), signals_in("SigIgn:"), signals_in("SigCgt:"), getpgrp() };
    return signals;
}
static int32_t tell_signals(const void *arg, size_t len, tine_task_t *task) {
    const struct signals signals = signals_of_self();
    (void)arg, (void)len;
    return tine_task_reply(task, &signals, sizeof signals);
}
TEST(workers_have_default_signals_and_a_group_of_their_own_and_the_hosts_stay) {
    struct sigaction handler = { .sa_handler = count_sigchld };
    sigset_t mask;
    if (under_valgrind()) SKIP("valgrind handles signals itself");
    signal(SIGPIPE, SIG_IGN), signal(SIGINT, SIG_IGN), signal(SIGRTMIN + 3, SIG_IGN);
    sigaction(SIGTERM, &handler, NULL), sigaction(SIGUSR2, &handler, NULL), sigaction(SIGSEGV, &handler, NULL);
    sigfillset(&mask);
    CHECK_INT(pthread_sigmask(SIG_SETMASK, &mask, NULL), 0);
    const struct signals before = signals_of_self();
    tine_pool_t *pool = pool_of(2);
    const struct signals with = signals_of_self();
    CHECK(with.blocked == before.blocked && with.ignored == before.ignored && with.caught == before.caught);
    for (int i = 0; i < 4; i++) {
        struct signals signals;
        const int way = BY_SEGV;
        size_t len;
        tine_result_t *result = apply(pool, tell_signals, NULL, 0);
        const void *data = tine_result_data(result, &len);
        CHECK_INT(len, sizeof signals);
        memcpy(&signals, data, sizeof signals);
        CHECK_INT(signals.blocked, 0);
        CHECK_INT(signals.ignored, 0);
        CHECK_INT(signals.caught, 0);
        CHECK(signals.group != getpgrp());
        tine_result_free(result);
        tine_result_free(apply(pool, die, &way, sizeof way));
    }
    end_pool(pool);
    const struct signals after = signals_of_self();
    CHECK(after.blocked == before.blocked && after.ignored == before.ignored);
}

TEST(what_the_terminal_sends_to_the_host_does_not_reach_the_workers) {
    share();
    CHECK_INT(setpgid(0, 0), 0);
    signal(SIGINT, SIG_IGN), signal(SIGHUP, SIG_IGN), signal(SIGTERM, SIG_IGN);
    tine_pool_t *pool = pool_of(2);
    tine_async_t *running = submit(pool, wait_at_gate, NULL, 0);
    await(&shared->started, 1);
    const pid_t pids[] = { worker_of(pool, 0), worker_of(pool, 1) };
    CHECK_INT(kill(0, SIGINT) + kill(0, SIGHUP) + kill(0, SIGTERM), 0);
    check_works(pool);
    set(&shared->gate, 1);
    CHECK_STATUS(end_of(running), TINE_OK);
    CHECK(worker_of(pool, 0) == pids[0] && worker_of(pool, 1) == pids[1]);
    CHECK_INT(stats_of(pool).worker_deaths, 0);
    end_pool(pool);
}

TEST(workers_are_the_first_that_a_lack_of_memory_ends) {
    char path[64];
    int own = 0, theirs = 0;
    tine_pool_t *pool = pool_of(1);
    check_works(pool); /* it is up */
    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", worker_of(pool, 0));
    FILE *file = fopen("/proc/self/oom_score_adj", "re"), *other = fopen(path, "re");
    if (file == NULL || other == NULL) SKIP("no oom_score_adj here");
    CHECK(fscanf(file, "%d", &own) == 1 && fscanf(other, "%d", &theirs) == 1);
    CHECK_INT(theirs, own + 500 > 1000 ? 1000 : own + 500);
    fclose(file), fclose(other);
    end_pool(pool);
}

TEST(threads_that_hold_streams_block_no_call) {
    int ready[2], input[2], go[2];
    const int way = BY_EXIT;
    pthread_t reader, holder;
    share();
    make_pipe(ready), make_pipe(input), make_pipe(go);
    stream_ready = ready[1];
    CHECK(dup2(input[0], 0) == 0);
    CHECK_INT(pthread_create(&reader, NULL, read_stdin, NULL), 0);
    CHECK_INT(pthread_create(&holder, NULL, hold_stdout, (void *)(intptr_t)go[0]), 0);
    CHECK(hear(ready[0]) == 'r' && hear(ready[0]) == 'r');
    tine_pool_t *pool = pool_of(2);
    check_works(pool);
    tine_result_t *result = apply(pool, die, &way, sizeof way); /* exit, with a copy of streams that other threads held */
    check_death(result, way);
    tine_result_free(result);
    end_pool(pool);
    pool = pool_of(1);
    CHECK_OK(tine_pool_terminate(pool, 1000, NULL));
    tine_pool_free(pool);
    tell(go[1], 'g'), tell(input[1], '\n');
    pthread_join(holder, NULL), pthread_join(reader, NULL);
}

static int hammers_stop;
static void *hammer(void *unused) {
    FILE *null = fopen("/dev/null", "we");
    while (!value_of(&hammers_stop)) {
        void *blocks[50];
        for (int i = 0; i < 50; i++) blocks[i] = malloc((size_t)(i * 37 % 3000));
        fprintf(null, "%p %d", blocks[7], 8);
        for (int i = 0; i < 50; i++) free(blocks[i]);
    }
    return fclose(null), unused;
}
static int32_t allocate(const void *arg, size_t len, tine_task_t *task) {
    void *copy = malloc(len + 100000);
    char text[100];
    memcpy(copy, arg, len);
    snprintf(text, sizeof text, "%p", copy);
    free(copy);
    return tine_task_reply(task, arg, len);
}
TEST(pools_may_be_made_beside_busy_threads) { /* the allocator and stdio are sound in workers; localtime and setenv would not be */
    pthread_t threads[3];
    if (under_asan()) SKIP("its allocator is not sound in a child of a program with threads");
    for (int i = 0; i < 3; i++) CHECK_INT(pthread_create(&threads[i], NULL, hammer, NULL), 0);
    for (int i = 0; i < (under_valgrind() ? 3 : 20); i++) { /* it runs one thread at a time, and three are busy */
        tine_pool_t *pool = pool_of(2);
        for (int k = 0; k < 10; k++) {
            tine_result_t *result = apply(pool, allocate, &k, sizeof k);
            CHECK_STATUS(tine_result_status(result), TINE_OK);
            tine_result_free(result);
        }
        end_pool(pool);
    }
    set(&hammers_stop, 1);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
}

TEST(who_wants_a_single_thread_is_told_of_others) {
    pthread_t thread;
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_pool_t *pool = NULL;
    options.flags = TINE_POOL_SINGLE_THREAD_ONLY, options.workers = 1;
    CHECK_OK(tine_pool_new(&options, &pool));
    check_works(pool);
    end_pool(pool);
    CHECK_INT(pthread_create(&thread, NULL, hammer, NULL), 0);
    pool = NULL;
    CHECK_STATUS(tine_pool_new(&options, &pool), TINE_EBUSY);
    CHECK(pool == NULL);
    set(&hammers_stop, 1);
    pthread_join(thread, NULL);
}

/* design.md: a delivery thread is parked outside callbacks for the moment of a fork; one that stays inside makes the new pool EBUSY. */
static struct { int gate, inside; } slow;
static void wait_in_callback(const tine_result_t *result, void *unused) {
    (void)result, (void)unused;
    set(&slow.inside, 1);
    await(&slow.gate, 1);
}
TEST(a_pool_made_while_a_callback_of_another_hangs_does_not_hang) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    tine_pool_options_t of_pool = TINE_POOL_OPTIONS_INIT;
    tine_pool_t *first = pool_of(1), *second = NULL;
    options.callback = wait_in_callback, of_pool.workers = 1;
    CHECK_OK(tine_pool_submit(first, do_nothing, NULL, 0, &options, NULL));
    await(&slow.inside, 1);
    const tine_status_t status = tine_pool_new(&of_pool, &second);
    CHECK(status == TINE_OK || status == TINE_EBUSY);
    if (status == TINE_OK) check_works(second), end_pool(second);
    set(&slow.gate, 1);
    second = pool_of(1);
    check_works(second);
    end_pool(second), end_pool(first);
}

/* ---- Nothing to do ---- */
static long switches_of(const char *pid) {
    return atol(proc_field(pid, "voluntary_ctxt_switches:")) + atol(proc_field(pid, "nonvoluntary_ctxt_switches:"));
}
static long switches_in_all(tine_pool_t *pool, uint32_t workers) {
    char pid[300];
    long sum = 0;
    for (uint32_t i = 0; i < workers; i++) snprintf(pid, sizeof pid, "%d", worker_of(pool, i)), sum += switches_of(pid);
    snprintf(pid, sizeof pid, "%d", nursery_of(pool)), sum += switches_of(pid);
    DIR *tasks = opendir("/proc/self/task"); /* the delivery thread, but not this one */
    for (struct dirent *entry; (entry = readdir(tasks)) != NULL;)
        if (entry->d_name[0] != '.' && atoi(entry->d_name) != getpid()) snprintf(pid, sizeof pid, "self/task/%s", entry->d_name), sum += switches_of(pid);
    return closedir(tasks), sum;
}
TEST_WITHIN(an_idle_pool_does_not_wake_up, 60) {
    if (under_valgrind()) SKIP("valgrind switches between its threads");
    if (!has_pidfd()) SKIP("without pidfds they look after each other");
    tine_pool_t *pool = pool_of(2);
    check_works(pool);
    /* A window of a second in which nothing was switched; the first ones may see them fall asleep. */
    for (int window = 0;; window++) {
        const long before = switches_in_all(pool, 2);
        poll(NULL, 0, 1000);
        const long grown = switches_in_all(pool, 2) - before;
        if (grown == 0) break;
        if (window == 9) TEST_FAIL("%ld switches in the last second", grown);
    }
    check_works(pool);
    end_pool(pool);
}

/* ---- The end of the host ---- */
struct host { pid_t pid; int marker, told; }; /* the marker ends when no process of the pool is left */
enum { STUBBORN = 1, CHILD_BEFORE = 2, CHILD_AFTER = 4, SECOND_POOL = 8, NO_WORK = 16 };
static int marker_of_host, child_go[2], told_fd;
static int32_t wait_for_go(void *unused) { /* a non-daemon child; it holds nothing of the marker */
    (void)unused;
    close(marker_of_host), close(told_fd), close(child_go[1]);
    return hear(child_go[0]) == 'g' ? 0 : 1;
}
static int32_t ignore_everything(const void *arg, size_t len, tine_task_t *task) {
    sigset_t mask;
    sigfillset(&mask), sigprocmask(SIG_SETMASK, &mask, NULL);
    for (int signal_number = 1; signal_number < 65; signal_number++) signal(signal_number, SIG_IGN);
    return wait_at_gate(arg, len, task);
}
static int ended_in_host;
static void tell_at_200(const tine_result_t *result, void *unused) {
    (void)result, (void)unused;
    if (++ended_in_host == 200) tell(told_fd, 'm');
}
static tine_pool_t *pool_with_marker(uint32_t workers) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    options.workers = workers, options.inherit_fds = &marker_of_host, options.inherit_fd_count = 1, options.crash_budget = 1000;
    return pool_with(&options);
}
static void start_child(void) {
    tine_process_t *process = NULL;
    CHECK_OK(tine_process_start(wait_for_go, NULL, NULL, &process));
    tine_process_free(process);
}
static void tell_pids(tine_pool_t *pool) {
    const pid_t pids[3] = { nursery_of(pool), worker_of(pool, 0), worker_of(pool, 1) };
    CHECK_INT(write(told_fd, pids, sizeof pids), sizeof pids);
}
static void be_host(int how) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = options.error_callback = tell_at_200;
    if (how & CHILD_BEFORE) start_child();
    static tine_pool_t *pool, *second; /* never freed */
    pool = pool_with_marker(2);
    if (how & SECOND_POOL) check_works(second = pool_with_marker(2));
    if (how & CHILD_AFTER) start_child();
    tell_pids(pool);
    if (how & STUBBORN) {
        for (int i = 0; i < 2; i++) CHECK_OK(tine_pool_submit(pool, ignore_everything, NULL, 0, NULL, NULL));
        await(&shared->started, 2);
        tell(told_fd, 'm');
    } else if (how & NO_WORK)
        tell(told_fd, 'm');
    else
        for (int i = 0; i < 1000; i++) {
            const int way = i / 10 % WAYS_TO_DIE;
            CHECK_OK(tine_pool_submit(pool, i % 10 == 0 ? die : square, &way, sizeof way, &options, NULL));
        }
}
/* Starts a process that runs `run` as a host; the pids of its pool are in `pids`. */
static struct host start_host(void (*run)(int), int how) {
    int marker[2], told[2];
    if (shared == NULL) share();
    shared->started = shared->gate = 0;
    CHECK_INT(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0); /* whoever is left comes to us */
    make_pipe(marker), make_pipe(told), make_pipe(child_go);
    fflush(stdout);
    struct host host = { fork(), marker[0], told[0] };
    CHECK(host.pid >= 0);
    if (host.pid == 0) {
        setsid();
        close(marker[0]), close(told[0]);
        marker_of_host = marker[1], told_fd = told[1];
        run(how);
        for (;;) pause();
    }
    close(marker[1]), close(told[1]);
    return host;
}
static void check_nobody_is_left(struct host host, const char *what, int children) {
    struct pollfd ended = { host.marker, POLLIN, 0 };
    const int64_t start = now_us();
    if (poll(&ended, 1, 10000) != 1) {
        system("ps -eo pid,ppid,pgid,sid,stat,wchan:20,args | grep -v ps >&2"); /* who? */
        TEST_FAIL("%s: %d processes are left after 10 s", what, processes_of_session(host.pid));
    }
    CHECK_INT(hear(host.marker), 0);
    printf("# %s: the pool was gone after %.1f ms\n", what, (double)(now_us() - start) / 1e3);
    while (processes_of_session(host.pid) > children && now_us() - start < 10000000) poll(NULL, 0, 2);
    CHECK_INT(processes_of_session(host.pid), children);
    for (int i = 0; i < children; i++) tell(child_go[1], 'g');
    while (waitpid(-1, NULL, children > 0 ? 0 : WNOHANG) > 0) {} /* the children end by themselves */
    CHECK_INT(processes_of_session(host.pid), 0);
    close(host.marker), close(host.told), close(child_go[0]), close(child_go[1]);
}
static void kill_host(int how, const char *what) {
    pid_t pids[3];
    struct host host = start_host(be_host, how);
    CHECK_INT(read(host.told, pids, sizeof pids), sizeof pids);
    CHECK_INT(hear(host.told), 'm');
    CHECK_INT(kill(host.pid, SIGKILL), 0);
    CHECK_INT(status_of(host.pid), SIGKILL);
    check_nobody_is_left(host, what, !!(how & CHILD_BEFORE) + !!(how & CHILD_AFTER));
    for (int i = 0; i < 3; i++) CHECK(is_gone(pids[i]));
}

TEST_WITHIN(a_host_killed_in_the_middle_of_its_work_leaves_nobody, 60) {
    for (int i = 0; i < 5; i++) kill_host(0, "killed in the middle of 1,000 tasks");
}
TEST_WITHIN(a_killed_host_with_living_children_leaves_nobody_else, 60) { /* they inherited what the host held */
    kill_host(CHILD_BEFORE, "killed, with a child started before the pool");
    kill_host(CHILD_AFTER, "killed, with a child started after the pool");
    kill_host(CHILD_BEFORE | CHILD_AFTER | SECOND_POOL, "killed, with children and two pools");
}
TEST_WITHIN(a_killed_host_leaves_no_worker_that_ignores_everything, 60) { kill_host(STUBBORN, "killed, workers block every signal"); }
TEST(a_killed_idle_host_leaves_nobody) { kill_host(NO_WORK, "killed while idle"); }

static void leave(int how) {
    be_host(NO_WORK);
    if (how == 0) exit(0);
    if (how == 1) _exit(0);
    if (how == 2) abort();
    if (how == 3) execl("/bin/sh", "sh", "-c", "read line", (char *)NULL); /* lives on: stdin is a pipe */
}
TEST_WITHIN(a_host_that_leaves_without_freeing_leaves_nobody, 60) {
    static const char *const whats[] = { "exit without free", "_exit", "abort", "exec of another program" };
    int input[2];
    CHECK_INT(pipe(input), 0);
    CHECK(dup2(input[0], 0) == 0);
    close(input[0]), fcntl(input[1], F_SETFD, FD_CLOEXEC);
    for (int how = 0; how < 4; how++) {
        pid_t pids[3];
        struct host host = start_host(leave, how);
        CHECK_INT(read(host.told, pids, sizeof pids), sizeof pids);
        CHECK_INT(hear(host.told), 'm');
        if (how == 3) { /* the pool ends while the new program lives */
            struct pollfd ended = { host.marker, POLLIN, 0 };
            CHECK_INT(poll(&ended, 1, 10000), 1);
            CHECK(!is_gone(host.pid));
            tell(input[1], '\n');
        }
        CHECK_INT(waitpid(host.pid, NULL, 0), host.pid);
        check_nobody_is_left(host, whats[how], 0);
    }
}

/* A host that dies anywhere inside making, using and freeing pools. */
static void make_and_free_for_ever(int how) {
    (void)how;
    tell(told_fd, 'm');
    for (;;) {
        tine_pool_t *pool = pool_with_marker(2);
        check_works(pool);
        end_pool(pool);
    }
}
TEST_WITHIN(a_host_killed_while_it_makes_or_frees_a_pool_leaves_nobody, 120) {
    for (int i = 0; i < 40; i++) {
        struct host host = start_host(make_and_free_for_ever, 0);
        CHECK_INT(hear(host.told), 'm');
        for (const int64_t until = now_us() + i * 211; now_us() < until;) {} /* another place each time */
        CHECK_INT(kill(host.pid, SIGKILL), 0);
        CHECK_INT(status_of(host.pid), SIGKILL);
        struct pollfd ended = { host.marker, POLLIN, 0 };
        if (poll(&ended, 1, 10000) != 1) TEST_FAIL("round %d: %d processes are left after 10 s", i, processes_of_session(host.pid));
        close(host.marker), close(host.told), close(child_go[0]), close(child_go[1]);
        while (waitpid(-1, NULL, WNOHANG) > 0) {}
    }
}

/* ---- The end of the nursery ---- */
TEST(a_killed_nursery_breaks_the_pool_and_hangs_nothing) {
    enum { COUNT = 10 };
    tine_async_t *running[2], *queued[COUNT];
    share();
    tine_pool_t *pool = pool_of(2);
    for (int i = 0; i < 2; i++) running[i] = submit(pool, wait_at_gate, NULL, 0);
    await(&shared->started, 2);
    for (int i = 0; i < COUNT; i++) queued[i] = submit(pool, count_run, NULL, 0);
    const pid_t nursery = nursery_of(pool), workers[] = { worker_of(pool, 0), worker_of(pool, 1) };
    CHECK_INT(kill(nursery, SIGKILL), 0);
    for (int i = 0; i < 2; i++) CHECK_STATUS(end_of(running[i]), TINE_EWORKERDIED);
    for (int i = 0; i < COUNT; i++) CHECK_STATUS(end_of(queued[i]), TINE_ECANCELED);
    CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL), TINE_EBROKEN);
    CHECK_MESSAGE("nursery");
    CHECK_STATUS(tine_pool_apply(pool, do_nothing, NULL, 0, TINE_FOREVER, NULL), TINE_EBROKEN);
    CHECK_STATUS(tine_pool_map(pool, do_nothing, NULL, 0, 10, 0, NULL, 0, TINE_FOREVER, NULL), TINE_EBROKEN);
    for (int i = 0; i < 2; i++) CHECK(await_gone(workers[i], 10));
    CHECK_INT(shared->ended, 0);
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER)); /* there is nothing to wait for */
    CHECK_OK(tine_pool_terminate(pool, 0, NULL));
    tine_pool_free(pool);
}

TEST(a_nursery_killed_while_idle_breaks_the_pool) {
    share();
    tine_pool_t *pool = pool_of(2);
    check_works(pool);
    const pid_t worker = worker_of(pool, 0);
    CHECK_INT(kill(nursery_of(pool), SIGKILL), 0);
    CHECK(await_gone(worker, 10));
    const tine_status_t status = tine_pool_apply(pool, do_nothing, NULL, 0, TINE_FOREVER, NULL);
    CHECK(status == TINE_EBROKEN || status == TINE_OK); /* OK: submitted before the host knew, and ended as below */
    while (tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL) == TINE_OK) sched_yield();
    CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL), TINE_EBROKEN);
    tine_pool_free(pool);
}

static int32_t count_and_square(const void *arg, size_t len, tine_task_t *task) {
    shared->slots[number_in(arg, len)] = 1;
    const int32_t status = square(arg, len, task);
    count_up(&shared->ended);
    return status;
}
TEST_WITHIN(a_nursery_killed_under_load_loses_no_end, 60) {
    enum { COUNT = 2000 };
    static tine_async_t *asyncs[COUNT];
    for (int round = 0; round < 5; round++) {
        int submitted = 0, sound = 0, died = 0;
        share();
        tine_pool_t *pool = pool_of(2);
        const pid_t nursery = nursery_of(pool);
        for (; submitted < COUNT; submitted++) {
            asyncs[submitted] = NULL;
            if (submitted == COUNT / 2) await(&shared->ended, 100 + 100 * round), kill(nursery, SIGKILL);
            const tine_status_t status = tine_pool_submit(pool, count_and_square, &submitted, sizeof submitted, NULL, &asyncs[submitted]);
            if (status == TINE_EBROKEN) break;
            CHECK_OK(status);
        }
        for (int i = 0; i < submitted; i++) {
            const tine_status_t status = tine_result_status(get(asyncs[i]));
            CHECK(status == TINE_OK || status == TINE_EWORKERDIED || status == TINE_ECANCELED);
            if (status == TINE_OK) CHECK_INT(number_of(get(asyncs[i])), i * i), sound++;
            died += status == TINE_EWORKERDIED; /* a worker that lived a little longer may have ended some more, for nobody */
            CHECK(status != TINE_ECANCELED || !shared->slots[i]); /* never began, as it says */
            tine_async_free(asyncs[i]);
        }
        CHECK(sound + died >= 100 + 100 * round);
        printf("# nursery killed after %d of %d: %d done, %d died\n", value_of(&shared->ended), submitted, sound, died);
        CHECK_OK(tine_pool_terminate(pool, 0, NULL));
        tine_pool_free(pool);
    }
}

TEST(a_stopped_nursery_hangs_neither_terminate_nor_free) {
    for (int i = 0; i < 2; i++) {
        share();
        tine_pool_t *pool = pool_of(1);
        tine_async_t *running = submit(pool, wait_at_gate, NULL, 0);
        await(&shared->started, 1);
        const pid_t nursery = nursery_of(pool), worker = worker_of(pool, 0);
        CHECK_INT(kill(nursery, SIGSTOP), 0);
        if (i == 0) {
            const tine_status_t status = tine_pool_terminate(pool, 50, NULL);
            CHECK(status == TINE_OK || status == TINE_ETIMEDOUT);
        }
        tine_pool_free(pool);
        const tine_status_t end = end_of(running);
        CHECK(end == TINE_ECANCELED || end == TINE_EWORKERDIED);
        CHECK(await_gone(nursery, 10) && await_gone(worker, 10));
    }
}

TEST(a_host_that_changed_its_user_gets_no_more_workers) {
    const int way = BY_KILL;
    tine_status_t status = TINE_OK;
    if (getuid() != 0) SKIP("needs root, to become somebody else");
    share();
    tine_pool_t *pool = pool_of(1);
    check_works(pool);
    CHECK_INT(setgid(65534) + setuid(65534), 0);
    for (int i = 0; i < 5 && status == TINE_OK; i++) { /* the spare was made before */
        tine_result_t *result = NULL;
        status = tine_pool_apply(pool, die, &way, sizeof way, TINE_FOREVER, &result);
        tine_result_free(result);
    }
    CHECK_STATUS(status, TINE_EBROKEN);
    tine_pool_free(pool);
}

static int32_t begin_twice(void *user_data, void **out_state) {
    (void)user_data, (void)out_state;
    if (count_up(&shared->inits) >= 2) await(&shared->gate, 1), raise(SIGKILL);
    return 0;
}
/* The nursery learns that there are no more workers to be had when nobody is left to die of it. */
TEST(a_pool_that_can_get_no_worker_says_so_while_nothing_else_happens) {
    const int way = BY_KILL;
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    if (getuid() != 0) SKIP("needs root, to become somebody else");
    share();
    options.workers = 1;
    options.initializer = begin_twice;
    tine_pool_t *pool = pool_with(&options);
    for (int inits = 2; inits <= 3; inits++) {
        await(&shared->inits, inits);
        tine_result_t *result = apply(pool, die, &way, sizeof way);
        check_death(result, way);
        tine_result_free(result);
    }
    await(&shared->inits, 4);
    CHECK_INT(setgid(65534) + setuid(65534), 0);
    tine_async_t *async = submit(pool, do_nothing, NULL, 0);
    set(&shared->gate, 1);
    CHECK_STATUS(end_of(async), TINE_ECANCELED);
    CHECK_STATUS(tine_pool_apply(pool, do_nothing, NULL, 0, TINE_FOREVER, NULL), TINE_EBROKEN);
    tine_pool_free(pool);
}

/* ---- Function addresses ---- */
static const char *folder_of_program(void) {
    static char path[4096];
    const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    CHECK(length > 0);
    path[length] = 0;
    *strrchr(path, '/') = 0;
    return path;
}
static void *open_object(int number) {
    char path[4200];
    snprintf(path, sizeof path, "%s/reused_%d.so", folder_of_program(), number);
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (object == NULL) TEST_FAIL("%s", dlerror());
    return object;
}
static const void *address_in(void *object) {
    const void *address = dlsym(object, "answer");
    CHECK(address != NULL);
    return address;
}
static void check_answers(tine_pool_t *pool, const void *address, int answer) {
    tine_result_t *result = apply(pool, function_at(address), NULL, 0);
    CHECK_STATUS(tine_result_status(result), TINE_ETASKFAILED);
    CHECK_INT(tine_result_code(result), answer);
    tine_result_free(result);
}
static void check_refused(tine_pool_t *pool, const void *address) {
    tine_async_t *async = NULL;
    CHECK_STATUS(tine_pool_submit(pool, function_at(address), NULL, 0, NULL, &async), TINE_EINVAL);
    CHECK_MESSAGE("fn");
    CHECK(async == NULL);
    CHECK_STATUS(tine_pool_apply(pool, function_at(address), NULL, 0, TINE_FOREVER, NULL), TINE_EINVAL);
    CHECK_STATUS(tine_pool_map(pool, function_at(address), NULL, 0, 3, 0, NULL, 0, TINE_FOREVER, NULL), TINE_EINVAL);
}
TEST(a_function_of_another_object_at_an_address_used_before_is_refused) {
    void *first = open_object(1);
    const void *address = address_in(first);
    tine_pool_t *pool = pool_of(2);
    check_answers(pool, address, 1);
    CHECK_INT(dlclose(first), 0);
    check_refused(pool, address); /* nothing is there in the host */
    void *second = open_object(2);
    if (address_in(second) != address) SKIP("the loader chose another address");
    check_refused(pool, address); /* the workers still have the first object: they would run its function */
    CHECK_INT(dlclose(second), 0);
    first = open_object(1);
    if (address_in(first) == address) check_answers(pool, address, 1); /* the same object at the same place again */
    check_works(pool);
    tine_pool_t *later = pool_of(1);
    check_answers(later, address_in(first), 1);
    end_pool(pool), end_pool(later);
}
TEST(a_function_of_an_object_opened_after_the_pool_is_refused) {
    tine_pool_t *pool = pool_of(1);
    void *object = open_object(1);
    check_refused(pool, address_in(object));
    check_works(pool);
    tine_pool_t *later = pool_of(1);
    check_answers(later, address_in(object), 1);
    end_pool(pool), end_pool(later);
}

/* ---- A worker that overwrites all that it can ---- */
/* Numbers that became garbage may be used as pids by whatever is broken: this runs where kill(-1) reaches nobody else. */
static void confine(void) {
    if (getuid() == 0) {
        CHECK_INT(setgroups(0, NULL) + setresgid(61357, 61357, 61357) + setresuid(61357, 61357, 61357), 0);
        CHECK_INT(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
        return;
    }
    if (unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0) SKIP("needs root or user namespaces, to be confined");
    const pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) {
        const int status = status_of(pid);
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
    }
}
enum { THEN_RETURN, THEN_DIE, THEN_EXIT, THEN_OWN_MEMORY, ENDINGS };
struct scribble { uint32_t pattern, ending; };
struct range { unsigned char *from, *to; int shared; };
enum { RANGES = 400, GARBAGE = 256 * KIB, MOST = 16 * MIB };
static uint32_t next_random(uint32_t *state) { return *state ^= *state << 13, *state ^= *state >> 17, *state ^= *state << 5; }

__attribute__((no_sanitize("address", "undefined"), noinline)) static void overwrite_own(const struct range *ranges, int count, uint32_t state) {
    const unsigned char *here = __builtin_frame_address(0);
    for (int i = 0; i < count; i++) {
        if (ranges[i].shared || (here >= ranges[i].from && here < ranges[i].to)) continue;
        for (volatile unsigned char *at = ranges[i].from; at < ranges[i].to && at < ranges[i].from + MOST; at++) {
            state ^= state << 13, state ^= state >> 17, state ^= state << 5;
            *at = (unsigned char)state;
        }
    }
    __builtin_trap();
}
static int32_t scribble(const void *arg, size_t len, tine_task_t *task) {
    struct scribble how;
    struct range ranges[RANGES];
    int count = 0;
    char line[5000];
    static unsigned char garbage[GARBAGE];
    (void)task;
    CHECK_INT(len, sizeof how);
    memcpy(&how, arg, sizeof how);
    uint32_t state = how.pattern;
    for (size_t i = 0; i < GARBAGE; i++) garbage[i] = (unsigned char)(how.pattern < 3 ? how.pattern - 1 : next_random(&state)); /* -1, 0, 1, random */
    const int fd = (int)syscall(SYS_memfd_create, "garbage", 0);
    CHECK(fd >= 0 && write(fd, garbage, GARBAGE) == GARBAGE);
    FILE *maps = fopen("/proc/self/maps", "r");
    while (count < RANGES && fgets(line, sizeof line, maps) != NULL) {
        unsigned long from, to;
        char rights[8];
        if (sscanf(line, "%lx-%lx %7s", &from, &to, rights) != 3 || rights[1] != 'w' || rights[0] != 'r') continue;
        ranges[count].from = (unsigned char *)from, ranges[count].to = (unsigned char *)to, ranges[count++].shared = rights[3] == 's';
    }
    fclose(maps);
    /* Through the kernel, which skips what cannot be written; the head and the tail of what is very large. */
    for (int i = 0; i < count; i++)
        for (unsigned char *at = ranges[i].from; ranges[i].shared && at < ranges[i].to;) {
            const size_t left = (size_t)(ranges[i].to - at), some = left < GARBAGE ? left : GARBAGE;
            if (pread(fd, at, some, 0) != (ssize_t)some)
                for (size_t page = 0; page < some; page += 4096) (void)!pread(fd, at + page, 4096, (off_t)page);
            at += some;
            if (at - ranges[i].from == MOST && ranges[i].to - at > MOST) at = ranges[i].to - MOST;
        }
    close(fd);
    if (how.ending == THEN_DIE) kill(getpid(), SIGKILL);
    if (how.ending == THEN_EXIT) exit(0);
    if (how.ending == THEN_OWN_MEMORY) overwrite_own(ranges, count, how.pattern | 1);
    return 0; /* into a worker whose own memory is sound */
}
static int32_t transform(const void *arg, size_t len, tine_task_t *task) {
    unsigned char *bytes = malloc(len + 1);
    for (size_t i = 0; i < len; i++) bytes[i] = ((const unsigned char *)arg)[i] ^ 0x5a;
    const tine_status_t status = tine_task_reply(task, bytes, len);
    free(bytes);
    return status;
}
static const size_t lengths[] = { 0, 1, 8, 40, 100, 900, 5000, 70000, 300000 };
enum { LENGTHS = sizeof lengths / sizeof *lengths };
static tine_async_t *submit_transform(tine_pool_t *pool, int number) {
    static unsigned char bytes[300000];
    const size_t len = lengths[number % LENGTHS];
    for (size_t i = 0; i < len; i++) bytes[i] = (unsigned char)(i * 31 + (size_t)number * 7);
    return submit(pool, transform, bytes, len);
}
static void check_transform(tine_async_t *async, int number, const char *when) {
    size_t len = 0;
    const tine_result_t *result = get(async);
    if (tine_result_status(result) != TINE_OK)
        TEST_FAIL("a task %s the scribbler is %d (%s)", when, tine_result_status(result), tine_strerror(tine_result_status(result)));
    const unsigned char *bytes = tine_result_data(result, &len);
    CHECK_INT(len, lengths[number % LENGTHS]);
    for (size_t i = 0; i < len; i++)
        if (bytes[i] != (unsigned char)((unsigned char)(i * 31 + (size_t)number * 7) ^ 0x5a))
            TEST_FAIL("byte %zu of %zu of a result %s the scribbler is wrong", i, len, when);
    tine_async_free(async);
}
static void check_scribbles(uint32_t workers) {
    enum { BEFORE = 20, AROUND = 40 };
    tine_async_t *before[BEFORE], *around[AROUND];
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    confine();
    const struct rlimit none = { 0, 0 };
    setrlimit(RLIMIT_CORE, &none);
    options.workers = workers, options.crash_budget = 1000;
    tine_pool_t *pool = pool_with(&options);
    for (uint32_t pattern = 0; pattern < 6; pattern++)
        for (uint32_t ending = 0; ending < ENDINGS; ending++) {
            const struct scribble how = { pattern, ending };
            for (int i = 0; i < BEFORE; i++) before[i] = submit_transform(pool, i);
            for (int i = 0; i < BEFORE; i++) CHECK_OK(tine_async_wait(before[i], TINE_FOREVER)); /* done, and not looked at */
            tine_async_t *scribbler = NULL;
            for (int i = 0; i < AROUND; i++) {
                if (i == AROUND / 2) scribbler = submit(pool, scribble, &how, sizeof how);
                around[i] = submit_transform(pool, i);
            }
            CHECK_OK(tine_async_wait(scribbler, TINE_FOREVER)); /* ends somehow */
            tine_async_free(scribbler);
            for (int i = 0; i < BEFORE; i++) check_transform(before[i], i, "before");
            for (int i = 0; i < AROUND; i++) check_transform(around[i], i, i < AROUND / 2 ? "queued before" : "queued behind");
            check_works(pool);
        }
    end_pool(pool);
}
TEST_WITHIN(a_worker_that_scribbles_over_all_it_can_write_harms_its_own_task_only, 120) {
    if (under_valgrind()) SKIP("it would overwrite valgrind");
    check_scribbles(3);
}
TEST_WITHIN(a_lone_worker_that_scribbles_harms_its_own_task_only, 120) {
    if (under_valgrind()) SKIP("it would overwrite valgrind");
    check_scribbles(1);
}
