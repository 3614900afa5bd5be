/* What the tests of pools share. */
#ifndef POOL_TOOLS_H
#define POOL_TOOLS_H
#include <limits.h>
#include <linux/futex.h>
#include "process_tools.h"

enum { KIB = 1024, MIB = 1024 * 1024, SLOTS = 4096 };

/* Memory that the host and its workers write: workers have what was mapped when their pool was made. The ints are futexes. */
static struct shared {
    int gate;    /* tasks wait until it is opened */
    int started; /* tasks that began */
    int ended;
    int inits, finals; /* runs of the initializer and the finalizer */
    int strays;        /* what must not happen */
    int order[SLOTS], slots[SLOTS];
} *shared;
static inline void share(void) {
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    const struct rlimit none = { 0, 0 }; /* deaths are wanted here, core files are not */
    setrlimit(RLIMIT_CORE, &none);
}
static inline int value_of(const int *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }
static inline void set(int *word, int value) {
    __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}
static inline int count_up(int *word) { /* the number before */
    const int before = __atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    return before;
}
static inline void await(int *word, int at_least) {
    for (int value; (value = value_of(word)) < at_least;) syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
}

/* A function pointer to any address at all. */
static inline tine_task_fn function_at(const void *address) {
    tine_task_fn fn;
    memcpy(&fn, &address, sizeof fn);
    return fn;
}

static inline int threads_of_host(void) { return atoi(field_of(getpid(), "Threads:")); }

/* ---- Pools ---- */
static inline tine_pool_t *pool_with(const tine_pool_options_t *options) {
    tine_pool_t *pool = NULL;
    CHECK_OK(tine_pool_new(options, &pool));
    CHECK(pool != NULL);
    return pool;
}
static inline tine_pool_t *pool_of(uint32_t workers) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    options.workers = workers;
    return pool_with(&options);
}
static inline void end_pool(tine_pool_t *pool) {
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    tine_pool_free(pool);
}
static inline tine_async_t *submit_with(tine_pool_t *pool, tine_task_fn fn, const void *arg, size_t len,
                                        const tine_submit_options_t *options) {
    tine_async_t *async = NULL;
    CHECK_OK(tine_pool_submit(pool, fn, arg, len, options, &async));
    CHECK(async != NULL);
    return async;
}
static inline tine_async_t *submit(tine_pool_t *pool, tine_task_fn fn, const void *arg, size_t len) {
    return submit_with(pool, fn, arg, len, NULL);
}
static inline tine_result_t *apply(tine_pool_t *pool, tine_task_fn fn, const void *arg, size_t len) {
    tine_result_t *result = NULL;
    CHECK_OK(tine_pool_apply(pool, fn, arg, len, TINE_FOREVER, &result));
    CHECK(result != NULL);
    return result;
}
static inline const tine_result_t *get(tine_async_t *async) {
    const tine_result_t *result = NULL;
    CHECK_OK(tine_async_get(async, TINE_FOREVER, &result));
    CHECK(result != NULL);
    return result;
}
static inline tine_status_t end_of(tine_async_t *async) { /* what became of it; frees it */
    const tine_status_t status = tine_result_status(get(async));
    tine_async_free(async);
    return status;
}
static inline tine_exit_info_t exit_of(const tine_result_t *result) {
    tine_exit_info_t info = TINE_EXIT_INFO_INIT;
    CHECK_OK(tine_result_exit_info(result, &info));
    return info;
}
static inline tine_pool_stats_t stats_of(const tine_pool_t *pool) {
    tine_pool_stats_t stats = TINE_POOL_STATS_INIT;
    CHECK_OK(tine_pool_stats(pool, &stats));
    return stats;
}
/* While a worker is replaced there is one less. */
static inline void await_workers(const tine_pool_t *pool, uint64_t count) { while (stats_of(pool).workers != count) sched_yield(); }
static inline pid_t worker_of(const tine_pool_t *pool, size_t index) {
    int32_t pids[64];
    for (size_t count = 0; count <= index; sched_yield()) CHECK_OK(tine_pool_worker_pids(pool, pids, 64, &count)); /* until it is there */
    CHECK(pids[index] > 1);
    return pids[index];
}
static inline pid_t nursery_of(const tine_pool_t *pool) {
    const pid_t nursery = parent_of(worker_of(pool, 0));
    CHECK(nursery > 1 && nursery != getpid());
    return nursery;
}
/* Stops the nursery and leaves no room in the host's socket to it: nothing that the host tells it now arrives. */
static inline void deafen(pid_t nursery) {
    int socket = -1;
    for (int fd = 3, type = 0; fd < 256; fd++) {
        socklen_t length = sizeof type;
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_SEQPACKET) socket = fd;
    }
    CHECK(socket >= 0);
    CHECK_INT(kill(nursery, SIGSTOP), 0);
    while (field_of(nursery, "State:")[0] != 'T') sched_yield();
    while (send(socket, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1) {} /* what is no message is passed over */
    CHECK_INT(errno, EAGAIN);
}

/* ---- Tasks ---- */
static inline int number_in(const void *arg, size_t len) {
    int number;
    CHECK_INT(len, sizeof number);
    memcpy(&number, arg, sizeof number);
    return number;
}
static inline int number_of(const tine_result_t *result) {
    size_t len = 0;
    const void *data = tine_result_data(result, &len);
    return number_in(data, len);
}
static inline int32_t do_nothing(const void *arg, size_t len, tine_task_t *task) { return (void)arg, (void)len, (void)task, 0; }
static inline int32_t square(const void *arg, size_t len, tine_task_t *task) {
    const int number = number_in(arg, len), squared = number * number;
    return tine_task_reply(task, &squared, sizeof squared);
}
static inline int32_t echo(const void *arg, size_t len, tine_task_t *task) { return tine_task_reply(task, arg, len); }
/* Counts itself as started, waits at the gate, counts itself as ended. */
static inline int32_t wait_at_gate(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len, (void)task;
    count_up(&shared->started);
    await(&shared->gate, 1);
    count_up(&shared->ended);
    return 0;
}
static inline int32_t count_run(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len, (void)task;
    count_up(&shared->ended);
    return 0;
}
/* Ends its worker: SIGKILL, SIGSEGV, abort, exit(3). */
enum { BY_KILL, BY_SEGV, BY_ABORT, BY_EXIT, WAYS_TO_DIE };
static inline int32_t die(const void *arg, size_t len, tine_task_t *task) {
    (void)task;
    switch (number_in(arg, len)) {
        case BY_KILL: kill(getpid(), SIGKILL); break;
        case BY_SEGV: *(volatile char *)mmap(NULL, 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) = 1; break;
        case BY_ABORT: abort();
        case BY_EXIT: exit(3);
    }
    return 1;
}
/* Whether the result tells the death that `die` ordered. */
static inline void check_death(const tine_result_t *result, int way) {
    static const int signals[WAYS_TO_DIE] = { SIGKILL, SIGSEGV, SIGABRT, 0 };
    CHECK_STATUS(tine_result_status(result), TINE_EWORKERDIED);
    const tine_exit_info_t info = exit_of(result);
    CHECK(info.valid & TINE_EXIT_HAS_STATUS && info.valid & TINE_EXIT_HAS_TIMES);
    CHECK_INT(info.reason, way == BY_EXIT ? TINE_REASON_EXIT : TINE_REASON_SIGNAL);
    CHECK_INT(info.signal, signals[way]);
    CHECK_INT(info.code, way == BY_EXIT ? 3 : -1);
    CHECK(tine_result_worker_pid(result) > 1);
}
/* A pool is sound when it does new work right. */
static inline void check_works(tine_pool_t *pool) {
    for (int i = -5; i < 5; i++) {
        tine_result_t *result = apply(pool, square, &i, sizeof i);
        CHECK_STATUS(tine_result_status(result), TINE_OK);
        CHECK_INT(number_of(result), i * i);
        tine_result_free(result);
    }
}
#endif
