/* How tasks and workers are stopped: running times, cancels. */
#include <fcntl.h>
#include <poll.h>
#include "pool_tools.h"

static tine_async_t *submit_limited(tine_pool_t *pool, tine_task_fn fn, const void *arg, size_t len, int64_t timeout_ms, int64_t soft_ms) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.timeout_ms = timeout_ms, options.soft_timeout_ms = soft_ms;
    return submit_with(pool, fn, arg, len, &options);
}
static void work_for(int microseconds) {
    for (const int64_t end = now_us() + microseconds; now_us() < end;) sched_yield();
}
static int32_t hang(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len, (void)task;
    count_up(&shared->started);
    for (volatile int forever = 1; forever;) {}
    return 0;
}
static int32_t hang_unless_told(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len;
    count_up(&shared->started);
    while (!tine_task_cancelled(task)) work_for(100);
    count_up(&shared->ended);
    const int seven = 7;
    return tine_task_reply(task, &seven, sizeof seven);
}
static int32_t work_and_count(const void *arg, size_t len, tine_task_t *task) {
    (void)task;
    work_for(number_in(arg, len));
    count_up(&shared->ended);
    return 0;
}

/* ---- Running time ---- */
static void check_ended(tine_async_t *async, tine_status_t status, uint32_t reason) {
    CHECK_STATUS(tine_result_status(get(async)), status);
    const tine_exit_info_t info = exit_of(get(async));
    CHECK_INT(info.reason, reason);
    CHECK_INT(info.signal, SIGKILL);
    CHECK(info.valid & TINE_EXIT_HAS_STATUS && info.valid & TINE_EXIT_HAS_TIMES);
    CHECK(tine_result_worker_pid(get(async)) > 1);
    tine_async_free(async);
}
TEST(a_running_time_limit_ends_a_task_that_loops) {
    share();
    tine_pool_t *pool = pool_of(1);
    check_ended(submit_limited(pool, hang, NULL, 0, 30, 0), TINE_ETIMEDOUT, TINE_REASON_TIMEOUT);
    CHECK_INT(shared->started, 1);
    check_works(pool);
    CHECK_INT(stats_of(pool).worker_deaths, 0); /* it was told to */
    CHECK_INT(stats_of(pool).failed, 1);
    end_pool(pool);
}

TEST(the_running_time_begins_when_a_worker_begins) {
    share();
    tine_pool_t *pool = pool_of(1);
    CHECK_OK(tine_pool_submit(pool, wait_at_gate, NULL, 0, NULL, NULL));
    const int none = 0;
    tine_async_t *queued = submit_limited(pool, work_and_count, &none, sizeof none, 500, 0);
    CHECK_STATUS(tine_async_wait(queued, 700), TINE_ETIMEDOUT);
    set(&shared->gate, 1);
    CHECK_STATUS(end_of(queued), TINE_OK);
    end_pool(pool);
}

/* Its output goes where nobody reads: on its own time. */
static int32_t print_and_return(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len, (void)task;
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    return printf("the last word") < 0;
}
TEST(a_task_whose_output_nobody_takes_ends_in_its_time) {
    static const char block[4096];
    int nobody_reads[2];
    const int out = dup(1);
    share();
    CHECK_INT(pipe(nobody_reads), 0);
    CHECK_INT(dup2(nobody_reads[1], 1), 1);
    tine_pool_t *pool = pool_of(1);
    CHECK_INT(dup2(out, 1), 1);
    CHECK_INT(fcntl(nobody_reads[1], F_SETFL, O_NONBLOCK), 0);
    while (write(nobody_reads[1], block, sizeof block) > 0) {}
    CHECK_INT(fcntl(nobody_reads[1], F_SETFL, 0), 0);
    check_ended(submit_limited(pool, print_and_return, NULL, 0, 300, 0), TINE_ETIMEDOUT, TINE_REASON_TIMEOUT);
    end_pool(pool);
    close(out), close(nobody_reads[0]), close(nobody_reads[1]);
}

TEST(a_task_is_told_when_its_soft_limit_is_over) {
    share();
    tine_pool_t *pool = pool_of(1);
    tine_async_t *async = submit_limited(pool, hang_unless_told, NULL, 0, 0, 20);
    CHECK_STATUS(tine_result_status(get(async)), TINE_OK);
    CHECK_INT(number_of(get(async)), 7);
    const pid_t worker = tine_result_worker_pid(get(async));
    tine_async_free(async);
    check_ended(submit_limited(pool, hang, NULL, 0, 60, 20), TINE_ETIMEDOUT, TINE_REASON_TIMEOUT); /* and does not listen */
    async = submit(pool, do_nothing, NULL, 0);
    CHECK(tine_result_worker_pid(get(async)) != worker);
    tine_async_free(async);
    end_pool(pool);
}

TEST(a_running_time_that_is_over_is_not_tried_again) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    share();
    tine_pool_t *pool = pool_of(1);
    options.timeout_ms = 20, options.max_attempts = 5;
    check_ended(submit_with(pool, hang, NULL, 0, &options), TINE_ETIMEDOUT, TINE_REASON_TIMEOUT);
    check_works(pool);
    CHECK_INT(shared->started, 1);
    end_pool(pool);
}

TEST(any_number_of_running_times_break_no_pool) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_async_t *asyncs[12];
    share();
    options.workers = 2, options.crash_budget = 2;
    tine_pool_t *pool = pool_with(&options);
    for (int i = 0; i < 12; i++) asyncs[i] = submit_limited(pool, hang, NULL, 0, 5, 0);
    for (int i = 0; i < 12; i++) check_ended(asyncs[i], TINE_ETIMEDOUT, TINE_REASON_TIMEOUT);
    check_works(pool);
    end_pool(pool);
}

TEST(a_running_time_of_a_stopped_worker_is_over_as_well) {
    share();
    tine_pool_t *pool = pool_of(1);
    tine_async_t *async = submit_limited(pool, wait_at_gate, NULL, 0, 100, 0);
    await(&shared->started, 1);
    kill(worker_of(pool, 0), SIGSTOP);
    check_ended(async, TINE_ETIMEDOUT, TINE_REASON_TIMEOUT);
    check_works(pool);
    end_pool(pool);
}

/* The nursery watches: it needs nobody of the host. */
TEST(running_times_are_kept_while_the_host_is_stopped) {
    share();
    tine_pool_t *pool = pool_of(1);
    const pid_t host = getpid(), worker = worker_of(pool, 0);
    const pid_t helper = fork();
    if (helper == 0) {
        await(&shared->started, 1);
        kill(host, SIGSTOP);
        const int gone = await_gone(worker, 10);
        kill(host, SIGCONT);
        _exit(!gone);
    }
    tine_async_t *async = submit_limited(pool, hang, NULL, 0, 300, 0);
    int status = -1;
    CHECK_INT(waitpid(helper, &status, 0), helper);
    CHECK_INT(status, 0);
    check_ended(async, TINE_ETIMEDOUT, TINE_REASON_TIMEOUT);
    end_pool(pool);
}

/* Tasks that end when their time does, and others right behind them on the same workers: the signal never meets those. */
TEST_WITHIN(a_signal_never_meets_the_next_task, 60) {
    enum { ROUNDS = 150 };
    tine_async_t *limited[ROUNDS], *others[ROUNDS];
    int in_time = 0;
    share();
    tine_pool_t *pool = pool_of(2);
    for (int i = 0; i < ROUNDS; i++) {
        const int length = 1500 + i % 11 * 100, none = 0;
        limited[i] = submit_limited(pool, work_and_count, &length, sizeof length, 2, 0);
        others[i] = submit(pool, work_and_count, &none, sizeof none);
    }
    for (int i = 0; i < ROUNDS; i++) {
        CHECK_STATUS(end_of(others[i]), TINE_OK);
        const tine_status_t status = end_of(limited[i]);
        CHECK(status == TINE_OK || status == TINE_ETIMEDOUT);
        in_time += status == TINE_OK;
    }
    CHECK(shared->ended >= ROUNDS + in_time);
    CHECK_INT(stats_of(pool).done, ROUNDS + in_time);
    CHECK_INT(stats_of(pool).failed, ROUNDS - in_time);
    CHECK_INT(stats_of(pool).worker_deaths, 0);
    end_pool(pool);
}

TEST(limits_of_every_length_are_taken) {
    share();
    tine_pool_t *pool = pool_of(1);
    const int none = 0;
    const int64_t lengths[] = { TINE_FOREVER, 1000000, INT64_MAX / 1000000, INT64_MAX };
    for (int i = 0; i < 4; i++) CHECK_STATUS(end_of(submit_limited(pool, work_and_count, &none, sizeof none, lengths[i], lengths[3 - i])), TINE_OK);
    end_pool(pool);
    CHECK_INT(shared->ended, 4);
}

/* ---- Cancels ---- */
TEST(a_running_task_that_is_cancelled_ends_with_its_worker_alone) {
    share();
    tine_pool_t *pool = pool_of(2);
    tine_async_t *other = submit(pool, wait_at_gate, NULL, 0), *async = submit(pool, hang, NULL, 0);
    await(&shared->started, 2);
    CHECK_OK(tine_async_cancel(async));
    CHECK_OK(tine_async_cancel(async));
    check_ended(async, TINE_ECANCELED, TINE_REASON_CANCELED);
    CHECK(!tine_async_ready(other));
    check_works(pool);
    set(&shared->gate, 1);
    CHECK_STATUS(end_of(other), TINE_OK);
    CHECK_INT(stats_of(pool).worker_deaths, 0);
    end_pool(pool);
}

TEST(a_cancelled_task_with_a_soft_limit_is_told_first) {
    share();
    tine_pool_t *pool = pool_of(1);
    tine_async_t *async = submit_limited(pool, hang_unless_told, NULL, 0, 200000, 100000);
    await(&shared->started, 1);
    CHECK_OK(tine_async_cancel(async));
    CHECK_STATUS(tine_result_status(get(async)), TINE_OK); /* what it returned */
    CHECK_INT(number_of(get(async)), 7);
    tine_async_free(async);
    async = submit_limited(pool, hang, NULL, 0, 100050, 100000); /* does not listen */
    await(&shared->started, 2);
    CHECK_OK(tine_async_cancel(async));
    check_ended(async, TINE_ECANCELED, TINE_REASON_CANCELED);
    async = submit_limited(pool, hang, NULL, 0, 0, 100000);
    await(&shared->started, 3);
    CHECK_OK(tine_async_cancel(async));
    check_ended(async, TINE_ECANCELED, TINE_REASON_CANCELED);
    end_pool(pool);
}

TEST(a_task_that_is_cancelled_again_and_again_has_no_more_time) {
    share();
    tine_pool_t *pool = pool_of(1);
    tine_async_t *async = submit_limited(pool, hang, NULL, 0, 100200, 100000);
    await(&shared->started, 1);
    do CHECK_OK(tine_async_cancel(async));
    while (tine_async_wait(async, 20) == TINE_ETIMEDOUT);
    check_ended(async, TINE_ECANCELED, TINE_REASON_CANCELED);
    end_pool(pool);
}

TEST(a_cancelled_task_is_not_tried_again) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    share();
    tine_pool_t *pool = pool_of(1);
    options.max_attempts = 5;
    tine_async_t *async = submit_with(pool, hang, NULL, 0, &options);
    await(&shared->started, 1);
    CHECK_OK(tine_async_cancel(async));
    check_ended(async, TINE_ECANCELED, TINE_REASON_CANCELED);
    check_works(pool);
    CHECK_INT(shared->started, 1);
    end_pool(pool);
}

static tine_async_t *to_cancel;
static void cancel_in_callback(const tine_result_t *result, void *unused) {
    (void)result, (void)unused;
    CHECK_OK(tine_async_cancel(to_cancel));
}
TEST(a_callback_may_cancel_a_running_task) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    share();
    tine_pool_t *pool = pool_of(2);
    to_cancel = submit(pool, hang, NULL, 0);
    await(&shared->started, 1);
    options.callback = cancel_in_callback;
    CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &options, NULL));
    check_ended(to_cancel, TINE_ECANCELED, TINE_REASON_CANCELED);
    end_pool(pool);
}

/* Whatever a cancel meets, a task that waits, is being taken, runs or ends: it ends once, and what ended well did run. */
TEST_WITHIN(cancels_race_with_everything, 60) {
    enum { ROUNDS = 200, AT_A_TIME = 4 };
    int done = 0;
    share();
    tine_pool_t *pool = pool_of(2);
    for (int round = 0; round < ROUNDS; round++) {
        tine_async_t *asyncs[AT_A_TIME];
        const int length = round % 7 * 20;
        for (int i = 0; i < AT_A_TIME; i++) asyncs[i] = submit(pool, work_and_count, &length, sizeof length);
        work_for(round % 13 * 20);
        for (int i = 0; i < AT_A_TIME; i++) CHECK_OK(tine_async_cancel(asyncs[(i + round) % AT_A_TIME]));
        for (int i = 0; i < AT_A_TIME; i++) {
            const tine_status_t status = end_of(asyncs[i]);
            CHECK(status == TINE_OK || status == TINE_ECANCELED);
            done += status == TINE_OK;
        }
    }
    const tine_pool_stats_t stats = stats_of(pool);
    CHECK_INT(stats.done, done);
    CHECK_INT(stats.failed, ROUNDS * AT_A_TIME - done);
    CHECK_INT(stats.worker_deaths, 0);
    CHECK(shared->ended >= done);
    check_works(pool);
    end_pool(pool);
}

/* ---- Memory ---- */
enum { LIMIT = 64 * MIB };
static tine_pool_t *pool_of_modest(uint32_t workers) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    options.workers = workers, options.memory_limit_bytes = LIMIT, options.crash_budget = 2;
    return pool_with(&options);
}
static void take(size_t bytes) {
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    for (size_t i = 0; i < bytes; i += 4096) memory[i] = 1;
}
static int32_t take_and_hold(const void *arg, size_t len, tine_task_t *task) {
    (void)task;
    take((size_t)number_in(arg, len) * MIB);
    await(&shared->gate, 1);
    return 0;
}
static int32_t take_for_ever(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len, (void)task;
    for (;;) take(MIB), work_for(200);
    return 0;
}
static void check_greedy(tine_async_t *async) {
    CHECK_STATUS(tine_result_status(get(async)), TINE_EWORKERDIED);
    CHECK_INT(exit_of(get(async)).reason, TINE_REASON_MEMORY);
    tine_async_free(async);
}
TEST(a_task_above_the_memory_limit_ends_with_its_worker_alone) {
    const int much = 100, little = 20;
    if (under_valgrind()) SKIP("valgrind has memory of its own");
    share();
    tine_pool_t *pool = pool_of_modest(2);
    tine_async_t *modest = submit(pool, take_and_hold, &little, sizeof little);
    for (int i = 0; i < 4; i++) check_greedy(submit(pool, take_and_hold, &much, sizeof much)); /* as often as it likes: the pool goes on */
    check_greedy(submit(pool, take_for_ever, NULL, 0));
    CHECK(!tine_async_ready(modest));
    set(&shared->gate, 1);
    CHECK_STATUS(end_of(modest), TINE_OK);
    CHECK_INT(stats_of(pool).worker_deaths, 0);
    check_works(pool);
    end_pool(pool);
}

static char *of_host;
static int32_t read_or_write(const void *arg, size_t len, tine_task_t *task) {
    volatile char sum = 0;
    const int write = number_in(arg, len);
    (void)task;
    for (size_t i = 0; i < 100 * MIB; i += 4096) write ? (void)(of_host[i] = 2) : (void)(sum = (char)(sum + of_host[i]));
    count_up(&shared->started);
    await(&shared->gate, 1);
    return 0;
}
TEST(the_memory_of_the_host_is_nobodys_until_it_is_written) {
    const int reads = 0, writes = 1;
    if (under_valgrind()) SKIP("valgrind has memory of its own");
    share();
    of_host = mmap(NULL, 100 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(of_host != MAP_FAILED);
    memset(of_host, 1, 100 * MIB);
    tine_pool_t *pool = pool_of_modest(1);
    tine_async_t *async = submit(pool, read_or_write, &reads, sizeof reads);
    await(&shared->started, 1);
    CHECK_STATUS(tine_async_wait(async, 200), TINE_ETIMEDOUT); /* looked at some times by now */
    set(&shared->gate, 1);
    CHECK_STATUS(end_of(async), TINE_OK);
    set(&shared->gate, 0);
    check_greedy(submit(pool, read_or_write, &writes, sizeof writes));
    end_pool(pool);
}

/* What the pool lends a task is not the task's. */
static int32_t read_and_reply(const void *arg, size_t len, tine_task_t *task) {
    static const char much[12 * MIB];
    const volatile char *bytes = arg;
    for (size_t i = 0; i < len; i += 4096) if (bytes[i] != 0) return 1;
    const tine_status_t status = tine_task_reply(task, much, sizeof much);
    count_up(&shared->started);
    await(&shared->gate, 1);
    return status == TINE_OK ? 0 : 2;
}
TEST(arguments_and_results_are_nobodys_memory) {
    const size_t length = 40 * MIB;
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    if (under_valgrind()) SKIP("valgrind has memory of its own");
    share();
    options.workers = 1, options.memory_limit_bytes = 16 * MIB;
    tine_pool_t *pool = pool_with(&options);
    void *bytes = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    tine_async_t *async = submit(pool, read_and_reply, bytes, length);
    await(&shared->started, 1);
    CHECK_STATUS(tine_async_wait(async, 150), TINE_ETIMEDOUT); /* looked at some times by now */
    set(&shared->gate, 1);
    CHECK_STATUS(end_of(async), TINE_OK);
    char *results = malloc(2 * 12 * MIB); /* of two items in one piece */
    CHECK_OK(tine_pool_map(pool, read_and_reply, bytes, MIB, 2, 2, results, 12 * MIB, TINE_FOREVER, NULL));
    CHECK_INT(stats_of(pool).worker_deaths, 0);
    free(results), munmap(bytes, length);
    end_pool(pool);
}

/* Files and what others map as well count as resident, and not as the task's. */
static int32_t read_and_crash(const void *arg, size_t len, tine_task_t *task) {
    volatile char sum = 0;
    (void)arg, (void)len, (void)task;
    for (size_t i = 0; i < 100 * MIB; i += 4096) sum = (char)(sum + of_host[i]);
    signal(SIGSEGV, SIG_DFL);
    return raise(SIGSEGV);
}
TEST(a_crash_is_no_matter_of_memory) {
    if (under_valgrind()) SKIP("valgrind has memory of its own");
    of_host = mmap(NULL, 100 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(of_host != MAP_FAILED);
    memset(of_host, 1, 100 * MIB);
    tine_pool_t *pool = pool_of_modest(1);
    tine_async_t *async = submit(pool, read_and_crash, NULL, 0);
    CHECK_STATUS(tine_result_status(get(async)), TINE_EWORKERDIED);
    CHECK_INT(exit_of(get(async)).reason, TINE_REASON_SIGNAL);
    CHECK_INT(exit_of(get(async)).signal, SIGSEGV);
    CHECK_INT(stats_of(pool).worker_deaths, 1);
    tine_async_free(async);
    end_pool(pool);
}

static int32_t take_more_than_there_is(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len;
    const int refused = mmap(NULL, 600 * (size_t)MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED;
    return tine_task_reply(task, &refused, sizeof refused);
}
TEST(far_above_the_memory_limit_there_is_none) {
    share();
    if (under_valgrind()) SKIP("valgrind has memory of its own");
    tine_pool_t *pool = pool_of_modest(1), *other = pool_of(1);
    tine_result_t *result = apply(pool, take_more_than_there_is, NULL, 0);
    CHECK_INT(number_of(result), 1);
    tine_result_free(result);
    result = apply(other, take_more_than_there_is, NULL, 0);
    CHECK_INT(number_of(result), 0);
    tine_result_free(result);
    end_pool(pool), end_pool(other);
}
