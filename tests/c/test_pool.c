/* Pools. test_pool_no_pidfd.c runs all of this once more where the kernel refuses pidfds. */
#include <stdatomic.h>
#include "pool_tools.h"

/* ---- Tasks ---- */

static int32_t give_code(const void *arg, size_t len, tine_task_t *task) {
    int32_t code;
    memcpy(&code, arg, sizeof code);
    tine_task_reply(task, "why", 3);
    return (void)len, code;
}
static int32_t tell_pid(const void *arg, size_t len, tine_task_t *task) {
    const int32_t pid = getpid();
    return (void)arg, (void)len, tine_task_reply(task, &pid, sizeof pid);
}
static int32_t sleep_for_ever(const void *arg, size_t len, tine_task_t *task) {
    for (;;) pause();
    return (void)arg, (void)len, (void)task, 0;
}
/* Waits until the descriptor in its argument, which the worker has inherited, is readable at its end. */
static int32_t wait_for_end(const void *arg, size_t len, tine_task_t *task) {
    int fd;
    char byte;
    memcpy(&fd, arg, sizeof fd);
    return (void)len, (void)task, read(fd, &byte, 1) == 0 ? 0 : 1;
}
/* ---- Helpers ---- */

static tine_pool_t *new_pool(uint32_t workers) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    options.workers = workers;
    options.flags = TINE_POOL_NO_CORE;
    return pool_with(&options);
}
static tine_pool_t *new_pool_with_fd(uint32_t workers, int fd) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    options.workers = workers;
    options.inherit_fds = &fd;
    options.inherit_fd_count = 1;
    return pool_with(&options);
}
static void close_and_join(tine_pool_t *pool) {
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
}
static double seconds_now(void) { return (double)now_us() * 1e-6; }

/* ---- The plain work ---- */

TEST(a_task_gets_its_argument_and_its_reply_comes_back) {
    tine_pool_t *pool = new_pool(2);
    for (int32_t number = 0; number < 100; number++) {
        tine_result_t *result = apply(pool, square, &number, sizeof number);
        CHECK_OK(tine_result_status(result));
        CHECK_INT(number_of(result), number * number);
        CHECK(tine_result_worker_pid(result) > 0 && tine_result_worker_pid(result) != getpid());
        tine_result_free(result);
    }
    close_and_join(pool);
    tine_pool_free(pool);
}

TEST_WITHIN(arguments_and_replies_of_any_size_arrive_whole, 60) {
    static const size_t sizes[] = { 0, 1, 63, 64, 65, 128, 4000, 8192, 8193, 32768, 65536, 65537, 1000003, 40 << 20 };
    tine_pool_t *pool = new_pool(2);
    for (int round = 0; round < 3; round++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            unsigned char *bytes = malloc(sizes[i] + 1);
            for (size_t at = 0; at < sizes[i]; at++) bytes[at] = (unsigned char)(at * 31 + at / 251 + i);
            tine_result_t *result = apply(pool, echo, sizes[i] > 0 ? bytes : NULL, sizes[i]);
            size_t length = 0;
            CHECK_OK(tine_result_status(result));
            const void *data = tine_result_data(result, &length);
            CHECK_INT(length, sizes[i]);
            CHECK(data != NULL && memcmp(data, bytes, length) == 0);
            tine_result_free(result), free(bytes);
        }
    tine_pool_free(pool);
}

TEST(a_task_that_fails_says_its_code_and_what_it_replied) {
    tine_pool_t *pool = new_pool(1);
    for (int32_t code = -2; code <= 2; code++) {
        size_t length;
        tine_result_t *result = apply(pool, give_code, &code, sizeof code);
        CHECK_STATUS(tine_result_status(result), code == 0 ? TINE_OK : TINE_ETASKFAILED);
        CHECK_INT(tine_result_code(result), code);
        CHECK(memcmp(tine_result_data(result, &length), "why", 3) == 0 && length == 3);
        tine_exit_info_t info = TINE_EXIT_INFO_INIT;
        CHECK_STATUS(tine_result_exit_info(result, &info), TINE_ENOENT);
        tine_result_free(result);
    }
    const tine_pool_stats_t stats = stats_of(pool);
    CHECK_INT(stats.done, 1);
    CHECK_INT(stats.failed, 4);
    CHECK_INT(stats.worker_deaths, 0);
    tine_pool_free(pool);
}

static int32_t reply_twice(const void *arg, size_t len, tine_task_t *task) {
    static char large[100000];
    return (void)arg, (void)len, tine_task_reply(task, large, sizeof large) || tine_task_reply(task, "short", 5);
}
TEST(the_last_reply_counts) {
    tine_pool_t *pool = new_pool(1);
    size_t length;
    tine_result_t *result = apply(pool, reply_twice, NULL, 0);
    CHECK(memcmp(tine_result_data(result, &length), "short", 5) == 0 && length == 5);
    tine_result_free(result), tine_pool_free(pool);
}

static int32_t tell_about_itself(const void *arg, size_t len, tine_task_t *task) {
    uint64_t about[4] = { tine_task_id(task), tine_task_attempt(task), tine_task_worker_index(task), tine_task_cancelled(task) };
    return (void)arg, (void)len, tine_task_reply(task, about, sizeof about);
}
TEST(a_task_knows_its_number_attempt_and_worker) {
    tine_pool_t *pool = new_pool(3);
    for (uint64_t id = 0; id < 30; id++) {
        tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
        tine_async_t *async;
        const tine_result_t *result;
        uint64_t about[4];
        size_t length;
        options.task_id = id == 0 ? 0 : id + 1000;
        CHECK_OK(tine_pool_submit(pool, tell_about_itself, NULL, 0, &options, &async));
        CHECK_OK(tine_async_get(async, TINE_FOREVER, &result));
        memcpy(about, tine_result_data(result, &length), sizeof about);
        CHECK_INT(about[0], tine_result_task_id(result));
        if (id != 0) CHECK_INT(about[0], id + 1000);
        CHECK_INT(about[1], 1);
        CHECK(about[2] < 3);
        CHECK_INT(about[3], 0);
        tine_async_free(async);
    }
    tine_pool_free(pool);
}

/* ---- Callbacks and asyncs ---- */

static atomic_int calls;
static void count_call(const tine_result_t *result, void *user_data) {
    CHECK(result != NULL);
    atomic_fetch_add((atomic_int *)user_data, 1);
}
static void must_not_be_called(const tine_result_t *result, void *user_data) {
    (void)user_data, TEST_FAIL("called with status %d", (int)tine_result_status(result));
}

TEST_WITHIN(a_hundred_thousand_tasks_through_submit_with_callbacks, 60) {
    tine_pool_t *pool = new_pool(2);
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = count_call;
    options.error_callback = must_not_be_called;
    options.user_data = &calls;
    const double begin = seconds_now();
    for (int i = 0; i < 100000; i++) CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &options, NULL));
    close_and_join(pool);
    const double took = seconds_now() - begin;
    CHECK_INT(calls, 100000);
    const tine_pool_stats_t stats = stats_of(pool);
    CHECK_INT(stats.done, 100000);
    CHECK_INT(stats.failed, 0);
    tine_pool_free(pool);
    printf("# 100,000 empty tasks with callbacks, 2 workers: %.2f s, %.0f a second\n", took, 100000 / took);
}

static void check_ready_after(const tine_result_t *result, void *user_data) {
    (void)result, poll(NULL, 0, 20), atomic_store((atomic_int *)user_data, 1);
}
TEST(an_async_is_ready_when_its_callback_has_returned) {
    atomic_int returned = 0;
    tine_pool_t *pool = new_pool(1);
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    tine_async_t *async;
    options.callback = check_ready_after;
    options.user_data = &returned;
    CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &options, &async));
    CHECK_OK(tine_async_wait(async, TINE_FOREVER));
    CHECK_INT(returned, 1);
    CHECK(tine_async_ready(async) && tine_async_successful(async));
    tine_async_free(async), tine_pool_free(pool);
}

TEST(the_error_callback_gets_what_did_not_succeed) {
    atomic_int errors = 0, successes = 0;
    tine_pool_t *pool = new_pool(1);
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.error_callback = count_call;
    options.user_data = &errors;
    const int32_t code = 5, way = BY_KILL;
    tine_async_t *async;
    CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &options, &async)); /* nobody is told: ready at once */
    CHECK_OK(tine_async_wait(async, TINE_FOREVER));
    CHECK_OK(tine_pool_submit(pool, give_code, &code, sizeof code, &options, NULL));
    CHECK_OK(tine_pool_submit(pool, die, &way, sizeof way, &options, NULL));
    options.callback = count_call;
    options.error_callback = NULL;
    options.user_data = &successes;
    CHECK_OK(tine_pool_submit(pool, give_code, &code, sizeof code, &options, NULL));
    CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &options, NULL));
    close_and_join(pool);
    CHECK_INT(errors, 2);
    CHECK_INT(successes, 1);
    tine_async_free(async), tine_pool_free(pool);
}

struct inside { tine_pool_t *pool; atomic_int step; tine_async_t *async; };
static void use_the_pool(const tine_result_t *result, void *user_data) {
    struct inside *inside = user_data;
    const int32_t seven = 7;
    tine_result_t *squared = apply(inside->pool, square, &seven, sizeof seven);
    CHECK_INT(number_of(squared), 49);
    tine_result_free(squared);
    /* An async with a callback of its own: that can only run after this one. */
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = count_call;
    options.user_data = &inside->step;
    tine_async_t *async;
    CHECK_OK(tine_pool_submit(inside->pool, do_nothing, NULL, 0, &options, &async));
    CHECK_OK(tine_async_get(async, TINE_FOREVER, NULL));
    CHECK_INT(inside->step, 0);
    tine_async_free(async);
    CHECK_STATUS(tine_pool_join(inside->pool, 0), TINE_EBUSY);
    CHECK_OK(tine_pool_close(inside->pool));
    CHECK_STATUS(tine_pool_join(inside->pool, 0), TINE_EBUSY);
    CHECK_OK(tine_result_status(result));
}
TEST(a_callback_may_submit_apply_get_and_close) {
    struct inside inside = { new_pool(2), 0, NULL };
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = use_the_pool;
    options.user_data = &inside;
    CHECK_OK(tine_pool_submit(inside.pool, do_nothing, NULL, 0, &options, NULL));
    while (tine_pool_join(inside.pool, 10) != TINE_OK) {}
    CHECK_INT(inside.step, 1);
    tine_pool_free(inside.pool);
}

static void terminate_it(const tine_result_t *result, void *user_data) {
    (void)result;
    struct inside *inside = user_data;
    CHECK_OK(tine_pool_terminate(inside->pool, 0, NULL));
    inside->step = 1;
}
TEST(a_callback_may_terminate) {
    struct inside inside = { new_pool(2), 0, NULL };
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = terminate_it;
    options.user_data = &inside;
    tine_async_t *endless = submit(inside.pool, sleep_for_ever, NULL, 0);
    CHECK_OK(tine_pool_submit(inside.pool, do_nothing, NULL, 0, &options, NULL));
    const tine_result_t *result;
    CHECK_OK(tine_async_get(endless, TINE_FOREVER, &result));
    CHECK_STATUS(tine_result_status(result), TINE_ECANCELED);
    CHECK_OK(tine_pool_join(inside.pool, TINE_FOREVER));
    CHECK_INT(inside.step, 1);
    tine_async_free(endless), tine_pool_free(inside.pool);
}

static void free_it(const tine_result_t *result, void *user_data) {
    struct inside *inside = user_data;
    tine_pool_free(inside->pool);
    CHECK_OK(tine_result_status(result));
    inside->step = 1;
}
TEST(a_callback_may_free_its_pool) {
    struct inside inside = { new_pool(2), 0, NULL };
    const int32_t pid = worker_of(inside.pool, 0);
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = free_it;
    options.user_data = &inside;
    tine_async_t *endless = submit(inside.pool, sleep_for_ever, NULL, 0);
    CHECK_OK(tine_pool_submit(inside.pool, do_nothing, NULL, 0, &options, NULL));
    CHECK_OK(tine_async_wait(endless, TINE_FOREVER));
    CHECK(await_gone(pid, 20));
    CHECK_INT(inside.step, 1);
    tine_async_free(endless);
}

static int is_slow;
static void be_slow(const tine_result_t *result, void *user_data) {
    (void)result;
    char byte;
    set(&is_slow, 1);
    CHECK_INT(read(*(int *)user_data, &byte, 1), 0);
}
TEST_WITHIN(a_slow_callback_delays_other_callbacks_and_never_the_work, 60) {
    int ends[2];
    CHECK_INT(pipe(ends), 0);
    tine_pool_t *pool = new_pool(2);
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = be_slow;
    options.user_data = &ends[0];
    CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &options, NULL));
    await(&is_slow, 1); /* another task may end before this one */
    options.callback = count_call;
    options.user_data = &calls;
    char arg[500] = "";
    for (int i = 0; i < 5000; i++) CHECK_OK(tine_pool_submit(pool, echo, arg, sizeof arg, &options, NULL));
    /* Also workers' deaths are dealt with meanwhile. */
    for (int32_t way = 0; way < WAYS_TO_DIE; way++) {
        tine_result_t *result = apply(pool, die, &way, sizeof way);
        check_death(result, way);
        tine_result_free(result);
    }
    CHECK_INT(calls, 0);
    CHECK_OK(tine_pool_close(pool));
    CHECK_STATUS(tine_pool_join(pool, 1), TINE_ETIMEDOUT);
    close(ends[1]);
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    CHECK_INT(calls, 5000);
    tine_pool_free(pool);
}

TEST(a_task_that_is_not_done_in_time_goes_on_and_the_pool_with_it) {
    int ends[2];
    CHECK_INT(pipe(ends), 0);
    tine_pool_t *pool = new_pool_with_fd(1, ends[0]);
    tine_result_t *result = (tine_result_t *)1;
    CHECK_STATUS(tine_pool_apply(pool, wait_for_end, &ends[0], sizeof ends[0], 10, &result), TINE_ETIMEDOUT);
    CHECK(result == (tine_result_t *)1);
    tine_async_t *async = submit(pool, do_nothing, NULL, 0);
    CHECK_STATUS(tine_async_wait(async, 0), TINE_ETIMEDOUT);
    CHECK_STATUS(tine_async_get(async, 5, NULL), TINE_ETIMEDOUT);
    CHECK(!tine_async_ready(async) && !tine_async_successful(async));
    close(ends[1]);
    CHECK_OK(tine_async_wait(async, TINE_FOREVER));
    CHECK_INT(stats_of(pool).done, 2);
    tine_async_free(async), tine_pool_free(pool);
}

TEST(a_queued_task_can_be_cancelled_and_never_runs) {
    int ends[2];
    CHECK_INT(pipe(ends), 0);
    tine_pool_t *pool = new_pool_with_fd(1, ends[0]);
    tine_async_t *gate = submit(pool, wait_for_end, &ends[0], sizeof ends[0]);
    while (stats_of(pool).running == 0) {}
    tine_async_t *queued = submit(pool, do_nothing, NULL, 0), *other = submit(pool, do_nothing, NULL, 0);
    CHECK_OK(tine_async_cancel(queued));
    CHECK_OK(tine_async_cancel(queued));
    const tine_result_t *result;
    CHECK_OK(tine_async_get(queued, 0, &result));
    CHECK_STATUS(tine_result_status(result), TINE_ECANCELED);
    close(ends[1]);
    CHECK_OK(tine_async_wait(other, TINE_FOREVER));
    CHECK_OK(tine_async_cancel(other)); /* it has ended */
    CHECK_INT(stats_of(pool).done, 2);
    CHECK_INT(stats_of(pool).failed, 1);
    tine_async_free(gate), tine_async_free(queued), tine_async_free(other), tine_pool_free(pool);
}

TEST(a_full_pool_makes_who_submits_wait) {
    int ends[2];
    CHECK_INT(pipe(ends), 0);
    const int32_t inherited = ends[0];
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_submit_options_t submitting = TINE_SUBMIT_OPTIONS_INIT;
    tine_pool_t *pool;
    options.workers = 1;
    options.max_pending = 3;
    options.inherit_fds = &inherited;
    options.inherit_fd_count = 1;
    CHECK_OK(tine_pool_new(&options, &pool));
    tine_async_t *gate = submit(pool, wait_for_end, &ends[0], sizeof ends[0]);
    CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL));
    CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL));
    submitting.flags = TINE_SUBMIT_TRY;
    CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 0, &submitting, NULL), TINE_EFULL);
    submitting.flags = 0;
    submitting.submit_timeout_ms = 5;
    CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 0, &submitting, NULL), TINE_EFULL);
    CHECK_STATUS(tine_pool_apply(pool, do_nothing, NULL, 0, 5, NULL), TINE_ETIMEDOUT);
    close(ends[1]);
    for (int i = 0; i < 1000; i++) CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL));
    close_and_join(pool);
    CHECK_INT(stats_of(pool).done, 1003);
    tine_async_free(gate), tine_pool_free(pool);
}

static void *submit_until_closed(void *pool) {
    int32_t status;
    while ((status = tine_pool_submit(pool, sleep_for_ever, NULL, 0, NULL, NULL)) == TINE_OK) {}
    return (void *)(intptr_t)status;
}
TEST(who_waits_for_room_learns_of_the_end) {
    for (int terminate = 0; terminate < 2; terminate++) {
        tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
        tine_pool_t *pool;
        pthread_t thread;
        void *status;
        options.workers = 1;
        options.max_pending = 2;
        CHECK_OK(tine_pool_new(&options, &pool));
        CHECK_INT(pthread_create(&thread, NULL, submit_until_closed, pool), 0);
        while (stats_of(pool).running + stats_of(pool).queued < 2) {}
        CHECK_OK(terminate ? tine_pool_terminate(pool, 0, NULL) : tine_pool_close(pool));
        CHECK_INT(pthread_join(thread, &status), 0);
        CHECK_STATUS((int32_t)(intptr_t)status, TINE_ECLOSED);
        tine_pool_free(pool);
    }
}

static void *apply_many(void *pool) {
    for (int32_t number = 0; number < 2000; number++) {
        tine_result_t *result = apply(pool, square, &number, sizeof number);
        CHECK_INT(number_of(result), number * number);
        tine_result_free(result);
    }
    return NULL;
}
TEST_WITHIN(many_threads_share_a_pool, 60) {
    tine_pool_t *pool = new_pool(2);
    pthread_t threads[8];
    for (int i = 0; i < 8; i++) CHECK_INT(pthread_create(&threads[i], NULL, apply_many, pool), 0);
    for (int i = 0; i < 8; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    CHECK_INT(stats_of(pool).done, 16000);
    tine_pool_free(pool);
}

/* ---- Workers that die ---- */

struct account { int reported[1000], deaths, successes; };
static void report(const tine_result_t *result, void *user_data) {
    struct account *account = user_data;
    const uint64_t number = tine_result_task_id(result) - 1;
    CHECK(number < 1000);
    account->reported[number]++;
    if (number % 10 == 9) {
        check_death(result, (int)(number / 10 % WAYS_TO_DIE));
        account->deaths++;
    } else {
        CHECK_OK(tine_result_status(result));
        CHECK_INT(number_of(result), (int32_t)(number * number));
        account->successes++;
    }
}
TEST_WITHIN(every_tenth_task_ends_its_worker_and_nothing_else, 60) {
    static struct account account;
    tine_pool_t *pool = new_pool(2);
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = options.error_callback = report;
    options.user_data = &account;
    const double begin = seconds_now();
    for (int32_t number = 0; number < 1000; number++) {
        const int32_t arg = number % 10 == 9 ? number / 10 % WAYS_TO_DIE : number;
        options.task_id = (uint64_t)number + 1;
        CHECK_OK(tine_pool_submit(pool, number % 10 == 9 ? die : square, &arg, sizeof arg, &options, NULL));
    }
    close_and_join(pool);
    for (int i = 0; i < 1000; i++) CHECK_INT(account.reported[i], 1);
    CHECK_INT(account.deaths, 100);
    CHECK_INT(account.successes, 900);
    CHECK_INT(stats_of(pool).worker_deaths, 100);
    tine_pool_free(pool);
    printf("# 1,000 tasks, every tenth ends its worker: %.2f s\n", seconds_now() - begin);
}

TEST(an_idle_worker_that_is_killed_is_replaced) {
    tine_pool_t *pool = new_pool(1);
    for (int i = 0; i < 10; i++) {
        const int32_t pid = worker_of(pool, 0);
        CHECK_INT(kill(pid, SIGKILL), 0);
        tine_result_free(apply(pool, tell_pid, NULL, 0)); /* whichever of the two gets it */
        CHECK(await_gone(pid, 20));
    }
    tine_result_t *result = apply(pool, tell_pid, NULL, 0);
    CHECK_OK(tine_result_status(result));
    tine_result_free(result);
    close_and_join(pool);
    CHECK_INT(stats_of(pool).worker_deaths, 10);
    tine_pool_free(pool);
}

TEST(the_replacement_runs_the_next_task_soon) {
    tine_pool_t *pool = new_pool(1);
    const int32_t way = BY_KILL;
    double sum = 0;
    for (int i = 0; i < 20; i++) {
        tine_result_t *result = apply(pool, die, &way, sizeof way);
        const double begin = seconds_now();
        tine_result_free(result);
        tine_result_free(apply(pool, do_nothing, NULL, 0));
        sum += seconds_now() - begin;
    }
    printf("# from a death to the end of the next task: %.0f us\n", sum / 20 * 1e6);
    tine_pool_free(pool);
}

static int32_t die_at_first(const void *arg, size_t len, tine_task_t *task) {
    uint32_t attempts;
    memcpy(&attempts, arg, sizeof attempts);
    (void)len;
    if (tine_task_attempt(task) < attempts) raise(SIGKILL);
    return square(arg, sizeof attempts, task);
}
TEST(a_task_that_may_run_twice_is_tried_again) {
    tine_pool_t *pool = new_pool(2);
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    for (uint32_t attempts = 1; attempts <= 4; attempts++) {
        tine_async_t *async;
        const tine_result_t *result;
        options.max_attempts = 3;
        CHECK_OK(tine_pool_submit(pool, die_at_first, &attempts, sizeof attempts, &options, &async));
        CHECK_OK(tine_async_get(async, TINE_FOREVER, &result));
        CHECK_STATUS(tine_result_status(result), attempts <= 3 ? TINE_OK : TINE_EWORKERDIED);
        tine_async_free(async);
    }
    tine_pool_free(pool);
}

static int32_t stop_itself(const void *arg, size_t len, tine_task_t *task) { return (void)arg, (void)len, (void)task, raise(SIGSTOP); }
TEST(a_worker_that_stops_itself_is_ended) {
    tine_pool_t *pool = new_pool(1);
    tine_result_t *result = apply(pool, stop_itself, NULL, 0);
    CHECK_STATUS(tine_result_status(result), TINE_EWORKERDIED);
    CHECK_INT(exit_of(result).reason, TINE_REASON_STOPPED);
    tine_result_free(result);
    tine_result_free(apply(pool, do_nothing, NULL, 0));
    tine_pool_free(pool);
}

static int32_t stop_for_a_moment(const void *arg, size_t len, tine_task_t *task) {
    const pid_t self = getpid(), child = fork();
    (void)arg, (void)len, (void)task;
    if (child == 0) poll(NULL, 0, 100), kill(self, SIGCONT), _exit(0);
    raise(SIGSTOP);
    return waitpid(child, NULL, 0) == child ? 0 : 1;
}
TEST(a_worker_that_goes_on_by_itself_is_left_alone) {
    tine_pool_t *pool = new_pool(1);
    tine_result_t *result = apply(pool, stop_for_a_moment, NULL, 0);
    CHECK_OK(tine_result_status(result));
    tine_result_free(result), tine_pool_free(pool);
}

static int32_t return_twice(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len;
    const pid_t child = fork();
    if (child == 0) return tine_task_reply(task, "copy", 4);
    int status;
    waitpid(child, &status, 0);
    return tine_task_reply(task, "worker", 6);
}
TEST(a_task_that_forks_and_returns_twice_ends_once) {
    tine_pool_t *pool = new_pool(1);
    for (int i = 0; i < 5; i++) {
        size_t length;
        tine_result_t *result = apply(pool, return_twice, NULL, 0);
        CHECK(memcmp(tine_result_data(result, &length), "worker", 6) == 0);
        tine_result_free(result);
    }
    CHECK_INT(stats_of(pool).done, 5);
    close_and_join(pool);
    tine_pool_free(pool);
}

static int32_t close_everything(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len, (void)task;
    for (int fd = 3; fd < 2000; fd++) close(fd);
    return open("/dev/null", O_RDONLY) >= 0 ? 0 : 1;
}
enum { EXIT_WITH_5, EXIT_WITH_0, EXEC_TRUE, EXEC_SLEEP };
static int32_t leave_by(const void *arg, size_t len, tine_task_t *task) {
    (void)task;
    switch (number_in(arg, len)) {
        case EXIT_WITH_5: _exit(5);
        case EXIT_WITH_0: _exit(0);
        case EXEC_TRUE: execlp("true", "true", (char *)NULL); break;
        case EXEC_SLEEP: execlp("sleep", "sleep", "1000", (char *)NULL); break;
    }
    return 1;
}
TEST(a_task_that_exits_or_becomes_another_program_ends_only_its_worker) {
    tine_submit_options_t limited = TINE_SUBMIT_OPTIONS_INIT;
    share();
    tine_pool_t *pool = pool_of(1);
    for (int way = EXIT_WITH_5; way <= EXEC_TRUE; way++) {
        tine_result_t *result = apply(pool, leave_by, &way, sizeof way);
        CHECK_STATUS(tine_result_status(result), TINE_EWORKERDIED);
        CHECK_INT(exit_of(result).reason, TINE_REASON_EXIT);
        CHECK_INT(exit_of(result).code, way == EXIT_WITH_5 ? 5 : 0);
        tine_result_free(result);
        check_works(pool);
    }
    limited.timeout_ms = 100;
    const int way = EXEC_SLEEP; /* it knows nothing of the pool; its time is over as any task's */
    CHECK_STATUS(end_of(submit_with(pool, leave_by, &way, sizeof way, &limited)), TINE_ETIMEDOUT);
    check_works(pool);
    end_pool(pool);
}

TEST(a_task_that_closes_all_descriptors_ends_only_its_worker) {
    tine_pool_t *pool = new_pool(1);
    tine_result_t *result = apply(pool, close_everything, NULL, 0);
    CHECK_STATUS(tine_result_status(result), TINE_EWORKERDIED);
    tine_result_free(result);
    result = apply(pool, do_nothing, NULL, 0);
    CHECK_OK(tine_result_status(result));
    tine_result_free(result), tine_pool_free(pool);
}

/* Writes over everything that this process can write, its own stack last. */
static int32_t scribble(const void *arg, size_t len, tine_task_t *task) {
    struct { uintptr_t start, end; } found[400];
    static char text[1 << 17];
    size_t count = 0, length = 0;
    ssize_t got;
    const uintptr_t here = (uintptr_t)found;
    const int fd = open("/proc/self/maps", O_RDONLY);
    (void)len, (void)task;
    while ((got = read(fd, text + length, sizeof text - 1 - length)) > 0) length += (size_t)got;
    for (char *line = text; line != NULL && count < 400; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        unsigned long start, end;
        char access[5];
        if (sscanf(line, "%lx-%lx %4s", &start, &end, access) != 3 || access[1] != 'w') continue;
        if (here >= start && here < end) continue;
        found[count].start = start, found[count++].end = end;
    }
    const unsigned char pattern = *(const unsigned char *)arg;
    for (volatile size_t i = 0; i < count; i++)
        for (volatile unsigned char *at = (unsigned char *)found[i].start; at < (unsigned char *)found[i].end; at += 1) *at = pattern;
    return *(volatile int *)8 = 1;
}
static void run_scribblers(void) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_pool_t *pool;
    tine_async_t *asyncs[200];
    options.workers = 2;
    options.crash_budget = 1000;
    options.flags = TINE_POOL_NO_CORE;
    CHECK_OK(tine_pool_new(&options, &pool));
    for (int i = 0; i < 200; i++) {
        unsigned char arg[3000];
        memset(arg, i, sizeof arg);
        arg[0] = i % 20 == 10 ? (unsigned char[]){ 0, 0xff, 0x41, 0x52, 1 }[i / 20 % 5] : (unsigned char)i;
        const size_t lengths[] = { 10, 64, 65, 1000, 3000 };
        asyncs[i] = submit(pool, i % 20 == 10 ? scribble : echo, arg, lengths[i % 5]);
    }
    for (int i = 0; i < 200; i++) {
        const tine_result_t *result;
        size_t length;
        const size_t lengths[] = { 10, 64, 65, 1000, 3000 };
        CHECK_OK(tine_async_get(asyncs[i], TINE_FOREVER, &result));
        if (i % 20 == 10) {
            CHECK_STATUS(tine_result_status(result), TINE_EWORKERDIED);
        } else {
            CHECK_OK(tine_result_status(result));
            const unsigned char *data = tine_result_data(result, &length);
            CHECK_INT(length, lengths[i % 5]);
            for (size_t at = 0; at < length; at++) CHECK_INT(data[at], (unsigned char)i);
        }
        tine_async_free(asyncs[i]);
    }
    CHECK_INT(stats_of(pool).worker_deaths, 10);
    CHECK_INT(stats_of(pool).done, 190);
    close_and_join(pool);
    tine_pool_free(pool);
}
TEST_WITHIN(a_worker_that_writes_over_all_it_can_changes_nothing_of_others, 60) {
    /* In a pid namespace of its own: whatever such a process might do, it does it to nobody else. */
    int status;
    if (unshare(CLONE_NEWPID) != 0) printf("# without a pid namespace\n");
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) run_scribblers(), exit(0);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    _exit(0); /* the search for leaks would clone, and the pid namespace has ended */
}

/* ---- Initializers ---- */

static int32_t make_state(void *user_data, void **out_state) {
    *out_state = malloc(sizeof(int));
    *(int *)*out_state = *(int *)user_data;
    return 0;
}
static int finalizer_pipe[2];
static void say_state(void *state, void *user_data) {
    const char byte = (char)*(int *)state;
    (void)user_data, free(state);
    if (write(finalizer_pipe[1], &byte, 1) != 1) _exit(9);
}
static int32_t tell_state(const void *arg, size_t len, tine_task_t *task) {
    int *state = tine_task_worker_state(task);
    (void)arg, (void)len, ++*state;
    return tine_task_reply(task, state, sizeof *state);
}
TEST(initializer_and_finalizer_run_in_every_worker) {
    int seven = 7;
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_pool_t *pool;
    char bytes[10];
    CHECK_INT(pipe2(finalizer_pipe, O_CLOEXEC), 0);
    const int32_t inherited = finalizer_pipe[1];
    options.workers = 1;
    options.initializer = make_state;
    options.finalizer = say_state;
    options.user_data = &seven;
    options.inherit_fds = &inherited;
    options.inherit_fd_count = 1;
    CHECK_OK(tine_pool_new(&options, &pool));
    for (int i = 8; i < 12; i++) {
        tine_result_t *result = apply(pool, tell_state, NULL, 0);
        CHECK_INT(number_of(result), i);
        tine_result_free(result);
    }
    close_and_join(pool);
    tine_pool_free(pool);
    close(finalizer_pipe[1]);
    /* The worker, and the spare one. */
    CHECK_INT(read(finalizer_pipe[0], bytes, sizeof bytes), 2);
    CHECK((bytes[0] == 11 && bytes[1] == 7) || (bytes[0] == 7 && bytes[1] == 11));
    CHECK_INT(read(finalizer_pipe[0], bytes, sizeof bytes), 0);
}

static int32_t refuse(void *user_data, void **out_state) { return (void)user_data, (void)out_state, 33; }
static int32_t crash(void *user_data, void **out_state) { return (void)user_data, (void)out_state, raise(SIGKILL); }
static int32_t leave_by_exit(void *user_data, void **out_state) { (void)user_data, (void)out_state, exit(44); }
TEST(an_initializer_that_fails_breaks_the_pool_and_says_why) {
    const tine_initializer_fn initializers[] = { refuse, crash, leave_by_exit };
    const char *const reasons[] = { "its initializer returned 33", "signal 9 in its initializer", "exit code 44 in its initializer" };
    for (int i = 0; i < 3; i++) {
        tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
        tine_pool_t *pool;
        tine_async_t *async = NULL;
        options.name = "gone";
        options.workers = 2;
        options.initializer = initializers[i];
        CHECK_OK(tine_pool_new(&options, &pool));
        const int32_t submitted = tine_pool_submit(pool, do_nothing, NULL, 0, NULL, &async);
        if (submitted == TINE_OK) {
            const tine_result_t *result;
            CHECK_OK(tine_async_get(async, TINE_FOREVER, &result));
            CHECK_STATUS(tine_result_status(result), TINE_ECANCELED);
            tine_async_free(async);
        }
        CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL), TINE_EBROKEN);
        CHECK_MESSAGE(reasons[i]);
        CHECK_MESSAGE("16 workers died in a row");
        CHECK_MESSAGE("\"gone\"");
        CHECK_STATUS(tine_pool_apply(pool, do_nothing, NULL, 0, TINE_FOREVER, NULL), TINE_EBROKEN);
        CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
        CHECK_OK(tine_pool_terminate(pool, 0, NULL));
        tine_pool_free(pool);
    }
}

TEST(deaths_in_a_row_break_the_pool_and_finished_tasks_in_between_save_it) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_pool_t *pool;
    const int32_t way = BY_KILL;
    options.workers = 1;
    options.crash_budget = 3;
    CHECK_OK(tine_pool_new(&options, &pool));
    for (int i = 0; i < 10; i++) {
        tine_result_free(apply(pool, die, &way, sizeof way));
        tine_result_free(apply(pool, do_nothing, NULL, 0));
    }
    for (int i = 0; i < 3; i++) tine_result_free(apply(pool, die, &way, sizeof way));
    CHECK_STATUS(tine_pool_apply(pool, do_nothing, NULL, 0, TINE_FOREVER, NULL), TINE_EBROKEN);
    CHECK_MESSAGE("signal 9");
    tine_pool_free(pool);
    options.flags = TINE_POOL_BREAK_ON_DEATH;
    CHECK_OK(tine_pool_new(&options, &pool));
    tine_result_free(apply(pool, do_nothing, NULL, 0));
    tine_result_free(apply(pool, die, &way, sizeof way));
    CHECK_STATUS(tine_pool_apply(pool, do_nothing, NULL, 0, TINE_FOREVER, NULL), TINE_EBROKEN);
    CHECK_MESSAGE("a worker died: signal 9");
    tine_pool_free(pool);
}

TEST(only_deaths_within_the_window_break_the_pool) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    const int32_t way = BY_KILL;
    share();
    options.workers = 1, options.crash_budget = 2, options.crash_window_ms = 20;
    tine_pool_t *pool = pool_with(&options);
    for (int i = 0; i < 3; i++) {
        tine_result_free(apply(pool, die, &way, sizeof way));
        poll(NULL, 0, 50); /* until that lies behind */
    }
    check_works(pool);
    end_pool(pool);
    options.crash_window_ms = 600000;
    pool = pool_with(&options);
    for (int i = 0; i < 2; i++) {
        tine_result_free(apply(pool, die, &way, sizeof way));
        poll(NULL, 0, 50);
    }
    CHECK_STATUS(tine_pool_apply(pool, do_nothing, NULL, 0, TINE_FOREVER, NULL), TINE_EBROKEN);
    CHECK_MESSAGE("2 workers died in a row");
    tine_pool_free(pool);
}

/* ---- The end ---- */

TEST(a_closed_pool_does_what_is_pending_and_takes_no_more) {
    tine_pool_t *pool = new_pool(2);
    tine_async_t *asyncs[1000];
    CHECK_STATUS(tine_pool_join(pool, 0), TINE_EINVAL);
    CHECK_MESSAGE("join before close");
    for (int32_t i = 0; i < 1000; i++) asyncs[i] = submit(pool, square, &i, sizeof i);
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_close(pool));
    CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL), TINE_ECLOSED);
    CHECK_STATUS(tine_pool_apply(pool, do_nothing, NULL, 0, 0, NULL), TINE_ECLOSED);
    CHECK_STATUS(tine_pool_map(pool, do_nothing, NULL, 0, 1, 0, NULL, 0, 0, NULL), TINE_ECLOSED);
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    CHECK_OK(tine_pool_join(pool, 0));
    tine_pool_free(pool);
    /* Asyncs outlive the pool. */
    for (int32_t i = 0; i < 1000; i++) {
        const tine_result_t *result;
        CHECK(tine_async_successful(asyncs[i]));
        CHECK_OK(tine_async_get(asyncs[i], 0, &result));
        CHECK_INT(number_of(result), i * i);
        tine_async_free(asyncs[i]);
    }
}

static int32_t ignore_term(const void *arg, size_t len, tine_task_t *task) {
    signal(SIGTERM, SIG_IGN);
    return sleep_for_ever(arg, len, task);
}
TEST(terminate_ends_everything_and_says_what_it_had_to_kill) {
    for (int stubborn = 0; stubborn <= 2; stubborn++) {
        tine_pool_t *pool = new_pool(2);
        tine_async_t *asyncs[10];
        int32_t pids[2];
        uint32_t killed = 77;
        for (int i = 0; i < 10; i++) asyncs[i] = submit(pool, i < stubborn ? ignore_term : sleep_for_ever, NULL, 0);
        while (stats_of(pool).running < 2) {}
        poll(NULL, 0, 20); /* until they ignore the signal: nothing tells */
        CHECK_OK(tine_pool_worker_pids(pool, pids, 2, NULL));
        CHECK_OK(tine_pool_terminate(pool, 100, &killed));
        CHECK_INT(killed, stubborn);
        CHECK(is_gone(pids[0]) && is_gone(pids[1]));
        for (int i = 0; i < 10; i++) {
            const tine_result_t *result;
            CHECK_OK(tine_async_get(asyncs[i], TINE_FOREVER, &result));
            CHECK_STATUS(tine_result_status(result), TINE_ECANCELED);
            if (tine_result_worker_pid(result) != 0) CHECK_INT(exit_of(result).reason, TINE_REASON_TERMINATED);
            tine_async_free(asyncs[i]);
        }
        CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
        CHECK_OK(tine_pool_terminate(pool, 0, &killed));
        CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL), TINE_ECLOSED);
        CHECK_INT(stats_of(pool).workers, 0);
        tine_pool_free(pool);
    }
}

static int32_t leave_orphan(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len;
    const pid_t child = fork();
    if (child == 0) {
        setsid();
        for (;;) pause();
    }
    return tine_task_reply(task, &child, sizeof child);
}
TEST(what_tasks_have_started_ends_with_a_terminated_pool) {
    tine_pool_t *pool = new_pool(1);
    tine_result_t *result = apply(pool, leave_orphan, NULL, 0);
    const int32_t orphan = number_of(result);
    tine_result_free(result);
    CHECK(!is_gone(orphan));
    CHECK_OK(tine_pool_terminate(pool, 0, NULL));
    CHECK(await_gone(orphan, 20));
    tine_pool_free(pool);
}

TEST(a_pool_whose_nursery_is_killed_is_broken_and_nothing_hangs) {
    tine_pool_t *pool = new_pool(2);
    tine_async_t *running[2], *queued[5];
    int32_t pids[2];
    for (int i = 0; i < 2; i++) running[i] = submit(pool, sleep_for_ever, NULL, 0);
    while (stats_of(pool).running < 2) {}
    for (int i = 0; i < 5; i++) queued[i] = submit(pool, do_nothing, NULL, 0);
    CHECK_OK(tine_pool_worker_pids(pool, pids, 2, NULL));
    const pid_t nursery = parent_of(pids[0]);
    CHECK(nursery > 1 && nursery != getpid());
    CHECK_INT(kill(nursery, SIGKILL), 0);
    for (int i = 0; i < 7; i++) {
        const tine_result_t *result;
        tine_async_t *async = i < 2 ? running[i] : queued[i - 2];
        CHECK_OK(tine_async_get(async, TINE_FOREVER, &result));
        CHECK_STATUS(tine_result_status(result), i < 2 ? TINE_EWORKERDIED : TINE_ECANCELED);
        tine_async_free(async);
    }
    CHECK_STATUS(tine_pool_apply(pool, do_nothing, NULL, 0, TINE_FOREVER, NULL), TINE_EBROKEN);
    CHECK_MESSAGE("nursery was killed");
    CHECK(await_gone(pids[0], 20)), CHECK(await_gone(pids[1], 20));
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    tine_pool_free(pool);
}

TEST(a_nursery_that_does_not_answer_does_not_keep_terminate) {
    tine_pool_t *pool = new_pool(1);
    const int32_t pid = worker_of(pool, 0);
    const pid_t nursery = parent_of(pid);
    CHECK_INT(kill(nursery, SIGSTOP), 0);
    CHECK_OK(tine_pool_terminate(pool, 0, NULL));
    CHECK(await_gone(pid, 20)), CHECK(await_gone(nursery, 20));
    tine_pool_free(pool);
}

/* ---- map ---- */

TEST(map_runs_all_items) {
    tine_pool_t *pool = new_pool(2);
    enum { COUNT = 10007 };
    static int32_t items[COUNT], results[COUNT];
    const size_t chunks[] = { 0, 1, 2, 1000, COUNT, COUNT * 2 };
    for (int i = 0; i < COUNT; i++) items[i] = i;
    for (size_t chunk = 0; chunk < 6; chunk++) {
        size_t failed = 12345;
        memset(results, 0xff, sizeof results);
        CHECK_OK(tine_pool_map(pool, square, items, sizeof *items, COUNT, chunks[chunk], results, sizeof *results, TINE_FOREVER, &failed));
        for (int i = 0; i < COUNT; i++) CHECK_INT(results[i], (int32_t)((uint32_t)i * (uint32_t)i));
        CHECK_INT(failed, 12345);
    }
    CHECK_OK(tine_pool_map(pool, square, NULL, 4, 0, 0, NULL, 4, 0, NULL));
    CHECK_OK(tine_pool_map(pool, do_nothing, NULL, 0, 100, 7, NULL, 0, TINE_FOREVER, NULL));
    tine_pool_free(pool);
}

/* An item's reply has as many bytes as its number; some fail, some end their worker. */
static int32_t item_that_may_fail(const void *arg, size_t len, tine_task_t *task) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
    int32_t item;
    memcpy(&item, arg, sizeof item);
    (void)len;
    if (item == 50 || item == 77) raise(SIGKILL);
    if (tine_task_reply(task, letters, (size_t)item % 26) < 0) return 0;
    return item == 31 || item == 90 ? 7 : 0;
}
TEST(map_runs_all_items_whatever_becomes_of_some) {
    tine_pool_t *pool = new_pool(2);
    static int32_t items[100];
    static char results[100][20];
    const size_t chunks[] = { 0, 1, 3, 100 };
    for (int i = 0; i < 100; i++) items[i] = i;
    for (int chunk = 0; chunk < 4; chunk++) {
        size_t failed = 0;
        memset(results, 0xff, sizeof results);
        CHECK_STATUS(tine_pool_map(pool, item_that_may_fail, items, sizeof *items, 100, chunks[chunk], results, sizeof *results, TINE_FOREVER, &failed),
                     TINE_ETASKFAILED);
        CHECK_MESSAGE("item 21 failed: its reply is longer than result_size");
        CHECK_INT(failed, 21); /* a reply of 21 bytes */
        CHECK_STATUS(tine_pool_map(pool, item_that_may_fail, items + 31, 4, 4, chunks[chunk], NULL, 25, TINE_FOREVER, NULL), TINE_ETASKFAILED);
        CHECK_MESSAGE("item 0 failed: its function returned 7");
        CHECK_STATUS(tine_pool_map(pool, item_that_may_fail, items + 45, 4, 9, chunks[chunk], NULL, 25, TINE_FOREVER, &failed), TINE_ETASKFAILED);
        CHECK_MESSAGE("item 5 failed: its worker was ended by signal 9");
        CHECK_INT(failed, 5);
        for (int i = 0; i < 100; i++) {
            const int fails = i % 26 > 20 || i == 31 || i == 50 || i == 77 || i == 90;
            for (int at = 0; at < 20; at++) CHECK_INT(results[i][at], !fails && at < i % 26 ? "abcdefghijklmnopqrstuvwxyz"[at] : 0);
        }
    }
    tine_pool_free(pool);
}

TEST(map_that_is_not_done_in_time_starts_nothing_more) {
    int ends[2];
    CHECK_INT(pipe(ends), 0);
    tine_pool_t *pool = new_pool_with_fd(2, ends[0]);
    int items[20];
    char results[20] = "untouched";
    for (int i = 0; i < 20; i++) items[i] = ends[0];
    CHECK_STATUS(tine_pool_map(pool, wait_for_end, items, sizeof *items, 20, 2, results, 1, 20, NULL), TINE_ETIMEDOUT);
    close(ends[1]);
    close_and_join(pool);
    CHECK_TEXT(results, "untouched");
    CHECK(stats_of(pool).done <= 2);
    tine_pool_free(pool);
}

TEST_WITHIN(map_of_large_items_and_results, 60) {
    enum { COUNT = 6, SIZE = 3 << 20 };
    tine_pool_t *pool = new_pool(2);
    unsigned char *items = malloc((size_t)COUNT * SIZE), *results = malloc((size_t)COUNT * SIZE);
    for (size_t i = 0; i < (size_t)COUNT * SIZE; i++) items[i] = (unsigned char)(i * 7 + i / 65537);
    for (size_t chunk = 1; chunk <= 3; chunk++) {
        memset(results, 0, (size_t)COUNT * SIZE);
        CHECK_OK(tine_pool_map(pool, echo, items, SIZE, COUNT, chunk, results, SIZE, TINE_FOREVER, NULL));
        CHECK(memcmp(items, results, (size_t)COUNT * SIZE) == 0);
    }
    free(items), free(results), tine_pool_free(pool);
}

/* ---- The host ---- */

TEST(descriptors_mappings_threads_and_children_are_as_before) {
    tine_result_free(NULL), tine_async_free(NULL), tine_pool_free(NULL), tine_stream_free(NULL);
    tine_pool_t *warm_up = new_pool(1);
    tine_result_free(apply(warm_up, do_nothing, NULL, 0));
    tine_pool_free(warm_up);
    const int fds = test_count_fds(), mappings = test_count_mappings("tine"), children = test_count_children();
    const int32_t way = BY_KILL;
    static char large[200000];
    for (int round = 0; round < 5; round++) {
        tine_pool_t *pool = new_pool(3);
        tine_async_t *async = submit(pool, echo, large, sizeof large);
        for (int i = 0; i < 50; i++) tine_result_free(apply(pool, square, &i, sizeof i));
        tine_result_free(apply(pool, die, &way, sizeof way));
        if (round % 2 == 0) close_and_join(pool);
        tine_pool_free(pool);
        CHECK_OK(tine_async_wait(async, 0));
        tine_async_free(async);
    }
    CHECK_INT(test_count_fds(), fds);
    CHECK_INT(test_count_mappings("tine"), mappings);
    CHECK_INT(test_count_children(), children);
}

TEST(waiting_for_all_children_does_not_wait_for_the_pool) {
    tine_pool_t *pool = new_pool(2);
    if (fork() == 0) _exit(0);
    while (wait(NULL) > 0) {}
    CHECK_INT(errno, ECHILD);
    tine_result_free(apply(pool, do_nothing, NULL, 0));
    tine_pool_free(pool);
}

TEST(a_host_that_ignores_sigchld_learns_how_its_workers_died) {
    signal(SIGCHLD, SIG_IGN);
    tine_pool_t *pool = new_pool(1);
    for (int32_t way = 0; way < WAYS_TO_DIE; way++) {
        tine_result_t *result = apply(pool, die, &way, sizeof way);
        check_death(result, way);
        tine_result_free(result);
    }
    tine_pool_free(pool);
    signal(SIGCHLD, SIG_DFL);
}

TEST(what_the_host_had_printed_appears_once_and_what_tasks_print_is_not_lost) {
    extern int32_t print_line(const void *, size_t, tine_task_t *);
    int ends[2], status;
    char text[200] = "";
    size_t length = 0;
    ssize_t got;
    CHECK_INT(pipe(ends), 0);
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[1], 1), close(ends[0]), close(ends[1]);
        setvbuf(stdout, NULL, _IOFBF, 4096);
        printf("host\n");
        tine_pool_t *pool = new_pool(2);
        for (int i = 0; i < 3; i++) tine_result_free(apply(pool, print_line, "task\n", 5));
        const int32_t way = BY_EXIT;
        tine_result_free(apply(pool, print_line, "exit", 4));
        tine_result_free(apply(pool, die, &way, sizeof way));
        close_and_join(pool);
        tine_pool_free(pool);
        exit(0);
    }
    close(ends[1]);
    while ((got = read(ends[0], text + length, sizeof text - 1 - length)) > 0) length += (size_t)got;
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    CHECK_TEXT(text, "host\ntask\ntask\ntask\nexit");
}
int32_t print_line(const void *, size_t, tine_task_t *);
int32_t print_line(const void *arg, size_t len, tine_task_t *task) {
    (void)task, printf("%.*s", (int)len, (const char *)arg);
    if (len == 4) exit(0);
    return 0;
}

static void say_exit(void) { /* of the host, in whose memory it was registered */
    if (write(finalizer_pipe[1], "x", 1) != 1) _exit(9);
}
TEST(exit_in_a_task_runs_no_handler_of_the_host) {
    int status;
    char bytes[10];
    CHECK_INT(pipe2(finalizer_pipe, O_CLOEXEC), 0);
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
        const int32_t way = BY_EXIT;
        atexit(say_exit);
        tine_pool_t *pool = new_pool_with_fd(2, finalizer_pipe[1]);
        tine_result_free(apply(pool, die, &way, sizeof way));
        close_and_join(pool);
        tine_pool_free(pool);
        exit(0);
    }
    close(finalizer_pipe[1]);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    CHECK_INT(read(finalizer_pipe[0], bytes, sizeof bytes), 1);
    CHECK_INT(read(finalizer_pipe[0], bytes, sizeof bytes), 0);
}

static int32_t tell_surroundings(const void *arg, size_t len, tine_task_t *task) {
    int32_t about[6] = { getppid(), tine_host_pid(), 0, 0, 0, 0 };
    sigset_t mask;
    struct sigaction action;
    char byte;
    (void)arg, (void)len;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    for (int signal = 1; signal < 32; signal++) {
        about[2] += sigismember(&mask, signal) == 1;
        about[3] += sigaction(signal, NULL, &action) == 0 && action.sa_handler != SIG_DFL;
    }
    about[4] = (int32_t)read(0, &byte, 1);
    about[5] = getpgrp();
    return tine_task_reply(task, about, sizeof about);
}
TEST(a_worker_has_default_signals_an_empty_stdin_and_knows_its_host) {
    sigset_t mask;
    signal(SIGUSR1, SIG_IGN);
    sigemptyset(&mask), sigaddset(&mask, SIGUSR2), sigprocmask(SIG_BLOCK, &mask, NULL);
    tine_pool_t *pool = new_pool(1);
    sigprocmask(SIG_BLOCK, NULL, &mask);
    CHECK(sigismember(&mask, SIGUSR2) && !sigismember(&mask, SIGTERM));
    tine_result_t *result = apply(pool, tell_surroundings, NULL, 0);
    int32_t about[6];
    memcpy(about, tine_result_data(result, NULL), sizeof about);
    CHECK(about[0] != getpid());
    CHECK_INT(about[1], getpid());
    CHECK_INT(about[2], 0);
    CHECK_INT(about[3], 0);
    CHECK_INT(about[4], 0);
    CHECK_INT(about[5], about[0]); /* the group that the nursery leads */
    tine_result_free(result), tine_pool_free(pool);
}

TEST(a_forked_child_has_no_pool) {
    int status;
    tine_pool_t *pool = new_pool(2);
    tine_async_t *async = submit(pool, do_nothing, NULL, 0), *endless = submit(pool, sleep_for_ever, NULL, 0);
    CHECK_OK(tine_async_wait(async, TINE_FOREVER));
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
        tine_pool_stats_t stats = TINE_POOL_STATS_INIT;
        CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL), TINE_EFORKED);
        CHECK_STATUS(tine_pool_apply(pool, do_nothing, NULL, 0, 0, NULL), TINE_EFORKED);
        CHECK_STATUS(tine_pool_map(pool, do_nothing, NULL, 0, 1, 0, NULL, 0, 0, NULL), TINE_EFORKED);
        CHECK_STATUS(tine_pool_close(pool), TINE_EFORKED);
        CHECK_STATUS(tine_pool_terminate(pool, 0, NULL), TINE_EFORKED);
        CHECK_STATUS(tine_pool_join(pool, 0), TINE_EFORKED);
        CHECK_STATUS(tine_pool_stats(pool, &stats), TINE_EFORKED);
        CHECK_STATUS(tine_pool_worker_pids(pool, NULL, 0, NULL), TINE_EFORKED);
        CHECK_STATUS(tine_async_wait(endless, 0), TINE_EFORKED);
        tine_async_free(endless), tine_async_free(async), tine_pool_free(pool);
        tine_pool_t *own = new_pool(1);
        tine_result_free(apply(own, do_nothing, NULL, 0));
        tine_pool_free(own);
        exit(0);
    }
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    tine_result_free(apply(pool, do_nothing, NULL, 0));
    tine_async_free(async), tine_async_free(endless), tine_pool_free(pool);
}

TEST(stdin_stdout_and_stderr_may_be_closed) {
    int status;
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
        close(0), close(1), close(2);
        tine_pool_t *pool = new_pool(1);
        tine_result_free(apply(pool, do_nothing, NULL, 0));
        tine_pool_free(pool);
        _exit(0);
    }
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
}

/* A host that makes a pool, tells who is in it, and never leaves by itself. */
static void be_a_host(int fd, int busy) {
    int32_t pids[4];
    tine_pool_t *pool = new_pool(2);
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = options.error_callback = count_call;
    options.user_data = &calls;
    CHECK_OK(tine_pool_worker_pids(pool, pids, 2, NULL));
    pids[2] = parent_of(pids[0]);
    tine_result_t *result = apply(pool, leave_orphan, NULL, 0);
    pids[3] = number_of(result);
    CHECK_INT(write(fd, pids, sizeof pids), sizeof pids);
    for (int32_t number = 0; busy; number++) {
        const int32_t way = number / 10 % WAYS_TO_DIE;
        CHECK_OK(tine_pool_submit(pool, number % 10 == 9 ? die : do_nothing, &way, sizeof way, &options, NULL));
    }
    for (;;) pause();
}
static void kill_a_host(int busy, int with_child) {
    int ends[2];
    int32_t pids[4], child = 0;
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    fflush(stdout);
    const pid_t host = fork();
    if (host == 0) {
        if (with_child && fork() == 0) for (;;) pause(); /* it has copies of nothing yet, and outlives its parent */
        be_a_host(ends[1], busy);
    }
    CHECK_INT(read(ends[0], pids, sizeof pids), sizeof pids);
    if (busy) poll(NULL, 0, 100); /* somewhere in the middle */
    CHECK_INT(kill(host, SIGKILL), 0);
    const double begin = seconds_now();
    CHECK_INT(waitpid(host, NULL, 0), host);
    for (int i = 0; i < 4; i++) CHECK(await_gone(pids[i], 20));
    printf("# the pool of a%s host that was killed was gone after %.1f ms\n", busy ? " busy" : "n idle", (seconds_now() - begin) * 1e3);
    (void)child;
    test_signal_children(SIGKILL);
}
TEST(the_pool_of_a_killed_host_is_gone_soon) { kill_a_host(0, 0); }
TEST(the_pool_of_a_busy_killed_host_is_gone_soon) { kill_a_host(1, 0); }

static int32_t outlive(void *fd) {
    char byte;
    return read((int)(intptr_t)fd, &byte, 1) == 0 ? 0 : 1;
}
TEST(a_child_of_the_host_that_outlives_it_does_not_keep_the_pool) {
    int ends[2], stay[2];
    int32_t pids[4];
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    CHECK_INT(pipe2(stay, O_CLOEXEC), 0);
    fflush(stdout);
    const pid_t host = fork();
    if (host == 0) {
        tine_pool_t *pool = new_pool(2);
        tine_process_t *process;
        close(stay[1]);
        CHECK_OK(tine_pool_worker_pids(pool, pids, 2, NULL));
        pids[2] = parent_of(pids[0]);
        /* A copy of this process with copies of all its descriptors. */
        CHECK_OK(tine_process_start(outlive, (void *)(intptr_t)stay[0], NULL, &process));
        pids[3] = tine_process_pid(process);
        CHECK_INT(write(ends[1], pids, sizeof pids), sizeof pids);
        for (;;) pause();
    }
    CHECK_INT(read(ends[0], pids, sizeof pids), sizeof pids);
    CHECK_INT(kill(host, SIGKILL), 0);
    CHECK_INT(waitpid(host, NULL, 0), host);
    for (int i = 0; i < 3; i++) CHECK(await_gone(pids[i], 20));
    CHECK(!is_gone(pids[3]));
    close(stay[1]);
    CHECK(await_gone(pids[3], 20));
}

/* Also if a child of its lives on. */
static int32_t live_until_told(void *told) {
    const int *ends = told;
    char none;
    close(ends[1]);
    return (int32_t)read(ends[0], &none, 1);
}
TEST(a_host_that_execs_takes_its_pool_with_it) {
    int ends[2], stay[2];
    int32_t pids[4];
    CHECK_INT(pipe(ends), 0);
    CHECK_INT(pipe(stay), 0);
    fflush(stdout);
    const pid_t host = fork();
    if (host == 0) {
        tine_process_t *child = NULL;
        tine_pool_t *pool = new_pool(2);
        CHECK_OK(tine_process_start(live_until_told, stay, NULL, &child));
        CHECK_OK(tine_pool_worker_pids(pool, pids, 2, NULL));
        pids[2] = parent_of(pids[0]), pids[3] = tine_process_pid(child);
        CHECK_INT(write(ends[1], pids, sizeof pids), sizeof pids);
        execlp("sleep", "sleep", "1000", (char *)NULL);
        _exit(99);
    }
    CHECK_INT(read(ends[0], pids, sizeof pids), sizeof pids);
    for (int i = 0; i < 3; i++) CHECK(await_gone(pids[i], 20));
    CHECK(!is_gone(host) && !is_gone(pids[3]));
    kill(host, SIGKILL), waitpid(host, NULL, 0);
    close(stay[1]);
    CHECK(await_gone(pids[3], 20));
}

TEST(an_idle_pool_sleeps) {
    tine_pool_t *pool = new_pool(2);
    int32_t pids[3];
    long before[3], after[3];
    tine_result_free(apply(pool, do_nothing, NULL, 0));
    CHECK_OK(tine_pool_worker_pids(pool, pids, 2, NULL));
    pids[2] = parent_of(pids[0]);
    poll(NULL, 0, 2500); /* until nobody looks for work any more */
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3; i++) {
            char path[40], line[200];
            snprintf(path, sizeof path, "/proc/%d/status", (int)pids[i]);
            FILE *file = fopen(path, "re");
            long switches = -1;
            while (file != NULL && fgets(line, sizeof line, file) != NULL) sscanf(line, "voluntary_ctxt_switches: %ld", &switches);
            fclose(file);
            *(round == 0 ? &before[i] : &after[i]) = switches;
        }
        if (round == 0) poll(NULL, 0, 1500);
    }
    const int has_pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0) >= 0;
    for (int i = 0; i < (has_pidfd ? 3 : 2); i++) CHECK_INT(after[i] - before[i], 0);
    tine_pool_free(pool);
}

/* ---- What bad input gets ---- */

TEST(bad_arguments_are_told_by_their_names) {
    tine_pool_t *pool = NULL, *good = new_pool(1);
    tine_async_t *async = NULL;
    const tine_result_t *result = NULL;
    static const char constant[100] = "not a function";
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_submit_options_t submitting = TINE_SUBMIT_OPTIONS_INIT;
    tine_pool_stats_t stats = TINE_POOL_STATS_INIT;
    tine_exit_info_t info = TINE_EXIT_INFO_INIT;
    size_t length = 5;
#define BAD(call, part) (CHECK_STATUS(call, TINE_EINVAL), CHECK_MESSAGE(part))
    BAD(tine_pool_new(NULL, NULL), "out_pool");
    options.size = 0;
    BAD(tine_pool_new(&options, &pool), "size");
    options.size = sizeof options;
    options.flags = 1u << 20;
    BAD(tine_pool_new(&options, &pool), "flags");
    options.flags = 0;
    options.workers = 5000;
    BAD(tine_pool_new(&options, &pool), "workers");
    options.workers = 1;
    options.max_pending = (1u << 24) + 1;
    BAD(tine_pool_new(&options, &pool), "max_pending");
    options.max_pending = 0;
    options.inherit_fd_count = 1;
    BAD(tine_pool_new(&options, &pool), "inherit_fds");
    const int32_t closed = 12345;
    options.inherit_fds = &closed;
    BAD(tine_pool_new(&options, &pool), "12345 is not open");
    BAD(tine_pool_apply(NULL, do_nothing, NULL, 0, 0, NULL), "pool is NULL");
    BAD(tine_pool_apply(good, NULL, NULL, 0, 0, NULL), "fn is NULL");
    BAD(tine_pool_apply(good, do_nothing, NULL, 1, 0, NULL), "arg is NULL");
    BAD(tine_pool_apply(good, do_nothing, NULL, 0, -2, NULL), "timeout_ms");
    BAD(tine_pool_apply(good, (tine_task_fn)(uintptr_t)constant, NULL, 0, 0, NULL), "is not code");
    BAD(tine_pool_apply(good, (tine_task_fn)(uintptr_t)&length, NULL, 0, 0, NULL), "is not code");
    BAD(tine_pool_apply(good, (tine_task_fn)16, NULL, 0, 0, NULL), "is not code");
    BAD(tine_pool_submit(NULL, do_nothing, NULL, 0, NULL, NULL), "pool is NULL");
    submitting.size = 3;
    BAD(tine_pool_submit(good, do_nothing, NULL, 0, &submitting, NULL), "size");
    submitting.size = sizeof submitting;
    submitting.flags = 2;
    BAD(tine_pool_submit(good, do_nothing, NULL, 0, &submitting, NULL), "flags");
    submitting.flags = 0;
    submitting.submit_timeout_ms = -5;
    BAD(tine_pool_submit(good, do_nothing, NULL, 0, &submitting, NULL), "timeout_ms");
    BAD(tine_pool_map(NULL, do_nothing, NULL, 0, 0, 0, NULL, 0, 0, NULL), "pool is NULL");
    BAD(tine_pool_map(good, do_nothing, NULL, 1, 1, 0, NULL, 0, 0, NULL), "items is NULL");
    BAD(tine_pool_map(good, do_nothing, constant, SIZE_MAX / 2, 3, 0, NULL, 0, 0, NULL), "item_size");
    BAD(tine_pool_map(good, do_nothing, constant, 1, 3, 0, NULL, SIZE_MAX / 2, 0, NULL), "result_size");
    BAD(tine_pool_close(NULL), "pool is NULL");
    BAD(tine_pool_terminate(NULL, 0, NULL), "pool is NULL");
    BAD(tine_pool_terminate(good, -7, NULL), "grace_ms");
    BAD(tine_pool_join(NULL, 0), "pool is NULL");
    BAD(tine_pool_join(good, 0), "join before close");
    BAD(tine_pool_stats(good, NULL), "out_stats");
    stats.size = 1;
    BAD(tine_pool_stats(good, &stats), "size");
    BAD(tine_pool_worker_pids(good, NULL, 3, NULL), "out_pids");
    BAD(tine_async_wait(NULL, 0), "async is NULL");
    BAD(tine_async_get(NULL, 0, &result), "async is NULL");
    BAD(tine_result_status(NULL), "result is NULL");
    BAD(tine_result_exit_info(NULL, &info), "result is NULL");
    BAD(tine_task_reply(NULL, NULL, 0), "task is NULL");
    CHECK(!tine_async_ready(NULL) && !tine_async_successful(NULL) && !tine_task_cancelled(NULL));
    CHECK(tine_result_data(NULL, &length) == NULL && tine_result_task_id(NULL) == 0 && tine_result_worker_pid(NULL) == 0);
    CHECK_INT(length, 5);
    options.inherit_fd_count = 0;
    BAD(tine_pool_resize(NULL, 3), "pool is NULL");
    BAD(tine_pool_resize(good, 0), "workers");
    CHECK_STATUS(tine_pool_poll(good, 0, 0, NULL), TINE_ENOTSUP);
    CHECK_INT(tine_pool_fd(good), -1);
    CHECK(pool == NULL && async == NULL && result == NULL);
    /* Larger structs of a newer header are fine as long as nothing new is set. */
    struct { tine_pool_options_t options; uint64_t newer; } longer = { TINE_POOL_OPTIONS_INIT, 0 };
    longer.options.size = sizeof longer;
    longer.options.workers = 1;
    CHECK_OK(tine_pool_new(&longer.options, &pool));
    tine_pool_free(pool);
    longer.newer = 1;
    CHECK_STATUS(tine_pool_new(&longer.options, &pool), TINE_E2BIG);
    tine_result_free(apply(good, do_nothing, NULL, 0));
    tine_pool_free(good);
}

TEST(an_end_above_rlimit_fsize_is_told_and_kills_nobody) {
    tine_pool_t *pool = new_pool(1);
    static char large[1 << 20];
    struct rlimit limit = { 64 << 10, RLIM_INFINITY };
    tine_result_free(apply(pool, do_nothing, NULL, 0));
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
    CHECK_STATUS(tine_pool_apply(pool, do_nothing, large, sizeof large, TINE_FOREVER, NULL), TINE_ENOSPC);
    tine_pool_t *second = NULL;
    CHECK_STATUS(tine_pool_new(NULL, &second), TINE_ENOSPC);
    tine_result_free(apply(pool, do_nothing, NULL, 0));
    tine_pool_free(pool);
}

TEST(no_process_to_be_had_is_told_and_leaves_nothing) {
    if (geteuid() == 0) CHECK_INT(setresuid(65534, 65534, 65534), 0);
    const int fds = test_count_fds();
    struct rlimit limit = { 1, RLIM_INFINITY };
    getrlimit(RLIMIT_NPROC, &limit);
    limit.rlim_cur = 1;
    CHECK_INT(setrlimit(RLIMIT_NPROC, &limit), 0);
    for (int i = 0; i < 3; i++) {
        tine_pool_t *pool = NULL;
        CHECK_STATUS(tine_pool_new(NULL, &pool), TINE_EAGAIN);
        CHECK_MESSAGE("fork");
        CHECK(pool == NULL);
    }
    CHECK_INT(test_count_fds(), fds);
    _exit(0); /* the search for leaks would fork */
}

TEST(a_pool_that_gets_only_some_of_its_workers_is_not_made) {
    if (geteuid() == 0) CHECK_INT(setresuid(65533, 65533, 65533), 0);
    struct rlimit limit;
    getrlimit(RLIMIT_NPROC, &limit);
    limit.rlim_cur = 5; /* of this user, who has no other process */
    CHECK_INT(setrlimit(RLIMIT_NPROC, &limit), 0);
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_pool_t *pool = NULL;
    options.workers = 16;
    if (tine_pool_new(&options, &pool) == TINE_OK) SKIP("RLIMIT_NPROC means nothing here");
    CHECK_STATUS(tine_pool_new(&options, &pool), TINE_EAGAIN);
    CHECK(pool == NULL);
}

TEST(a_host_that_changes_its_user_gets_no_new_workers) {
    if (geteuid() != 0) SKIP("needs root");
    tine_pool_t *pool = new_pool(1);
    const int32_t way = BY_KILL;
    tine_result_free(apply(pool, do_nothing, NULL, 0));
    while (stats_of(pool).workers < 1) {}
    CHECK_INT(setresuid(65534, 65534, 65534), 0);
    for (int i = 0; i < 5; i++) {
        tine_result_t *result = NULL;
        if (tine_pool_apply(pool, die, &way, sizeof way, TINE_FOREVER, &result) != TINE_OK) break;
        tine_result_free(result);
    }
    CHECK_STATUS(tine_pool_apply(pool, do_nothing, NULL, 0, TINE_FOREVER, NULL), TINE_EBROKEN);
    CHECK_MESSAGE("changed its user");
    tine_pool_free(pool);
}
