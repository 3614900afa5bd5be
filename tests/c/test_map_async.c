/* Maps that nobody waits for in the call. */
#include "pool_tools.h"

enum { COUNT = 1000 };
static int items[COUNT], results[COUNT];
static void number_items(void) {
    for (int i = 0; i < COUNT; i++) items[i] = i, results[i] = -7;
}
static tine_pool_t *pool_flagged(uint32_t workers, uint32_t flags, size_t max_pending) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    options.workers = workers, options.flags = flags, options.max_pending = max_pending;
    return pool_with(&options);
}
static tine_async_t *map_all(tine_pool_t *pool, tine_task_fn fn, size_t chunk, const tine_submit_options_t *options) {
    tine_async_t *async = NULL;
    CHECK_OK(tine_pool_map_async(pool, fn, items, sizeof *items, COUNT, chunk, results, sizeof *results, options, &async));
    CHECK(async != NULL);
    return async;
}
static size_t index_of(const tine_result_t *result) {
    size_t len = 0, index = 0;
    const void *data = tine_result_data(result, &len);
    CHECK_INT(len, sizeof index);
    memcpy(&index, data, sizeof index);
    return index;
}

TEST(all_items_run_and_the_async_tells_when) {
    static const uint32_t flags[] = { 0, TINE_POOL_HOST_LOOP };
    for (int kind = 0; kind < 2; kind++) {
        tine_pool_t *pool = pool_flagged(2, flags[kind], 0);
        for (size_t chunk = 0; chunk < 4; chunk++) {
            number_items();
            tine_async_t *async = map_all(pool, square, chunk, NULL);
            CHECK_OK(tine_async_wait(async, TINE_FOREVER));
            CHECK(tine_async_ready(async) && tine_async_successful(async));
            size_t len = 1;
            CHECK(tine_result_data(get(async), &len) != NULL && len == 0);
            CHECK(tine_result_task_id(get(async)) != 0);
            tine_async_free(async);
            for (int i = 0; i < COUNT; i++) CHECK_INT(results[i], i * i);
        }
        check_works(pool);
        end_pool(pool);
    }
}

static int told;
static tine_status_t told_status;
static void note(const tine_result_t *result, void *user_data) {
    told_status = tine_result_status(result);
    for (int i = 0; i < COUNT && told_status == TINE_OK; i++) CHECK_INT(results[i], i * i); /* all of it is there */
    CHECK_INT(tine_result_task_id(result), 77);
    *(int *)user_data += 1;
}
TEST(a_callback_is_called_once_for_all_of_it) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = options.error_callback = note, options.user_data = &told, options.task_id = 77;
    tine_pool_t *pool = pool_of(2);
    number_items();
    CHECK_OK(tine_pool_map_async(pool, square, items, sizeof *items, COUNT, 10, results, sizeof *results, &options, NULL));
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    CHECK_INT(told, 1);
    tine_pool_free(pool);
    pool = pool_flagged(2, TINE_POOL_HOST_LOOP, 0);
    tine_async_t *async = map_all(pool, square, 10, &options);
    while (told < 2) CHECK_OK(tine_pool_poll(pool, TINE_FOREVER, 0, NULL));
    CHECK_OK(tine_async_wait(async, 0));
    tine_async_free(async);
    /* None at all */
    CHECK_OK(tine_pool_map_async(pool, square, NULL, 4, 0, 0, NULL, 4, &options, &async));
    CHECK(tine_async_ready(async));
    CHECK_OK(tine_pool_poll(pool, 0, 0, NULL));
    CHECK_INT(told, 3);
    tine_async_free(async);
    end_pool(pool);
}

/* An item that is odd in its way: every tenth dies, 505 fails. */
static int32_t unreliable(const void *arg, size_t len, tine_task_t *task) {
    int number;
    CHECK(len >= sizeof number);
    memcpy(&number, arg, sizeof number);
    for (size_t i = sizeof number; i < len; i++) CHECK(((const char *)arg)[i] == (char)number);
    if (number % 10 == 3) kill(getpid(), SIGKILL);
    if (number == 505) return 9;
    return tine_task_reply(task, &number, sizeof number);
}
static int32_t fail_from_500(const void *arg, size_t len, tine_task_t *task) {
    return number_in(arg, len) >= 500 ? number_in(arg, len) : square(arg, len, task);
}
TEST(the_first_item_that_failed_is_named) {
    tine_pool_t *pool = pool_of(2);
    tine_exit_info_t info = TINE_EXIT_INFO_INIT;
    for (size_t chunk = 1; chunk < 100; chunk += 33) {
        number_items();
        tine_async_t *async = map_all(pool, fail_from_500, chunk, NULL);
        CHECK_STATUS(tine_result_status(get(async)), TINE_ETASKFAILED);
        CHECK_INT(index_of(get(async)), 500);
        CHECK_INT(tine_result_code(get(async)), 500);
        CHECK_STATUS(tine_result_exit_info(get(async), &info), TINE_ENOENT);
        CHECK(!tine_async_successful(async));
        tine_async_free(async);
        for (int i = 0; i < COUNT; i++) CHECK_INT(results[i], i < 500 ? i * i : 0);
    }
    end_pool(pool);
}

TEST(only_the_item_that_a_worker_dies_of_fails) {
    tine_pool_t *pool = pool_of(2);
    for (size_t chunk = 1; chunk < 300; chunk = chunk * 5 + 2) {
        number_items();
        tine_async_t *async = map_all(pool, unreliable, chunk, NULL);
        CHECK_STATUS(tine_result_status(get(async)), TINE_ETASKFAILED);
        CHECK_INT(index_of(get(async)), 3);
        CHECK_INT(exit_of(get(async)).signal, SIGKILL);
        tine_async_free(async);
        for (int i = 0; i < COUNT; i++) CHECK_INT(results[i], i % 10 == 3 || i == 505 ? 0 : i);
    }
    CHECK_INT(stats_of(pool).queued, 0);
    end_pool(pool);
}

TEST(items_of_any_length_go_on_behind_one_that_died) { /* in a record, in the arena, behind it */
    static const size_t lengths[] = { 4, 20, 1003, 30001 };
    tine_pool_t *pool = pool_of(2);
    for (size_t kind = 0; kind < sizeof lengths / sizeof *lengths; kind++) {
        enum { FEW = 45 };
        const size_t length = lengths[kind];
        char *long_items = malloc(FEW * length);
        tine_async_t *async = NULL;
        for (int i = 0; i < FEW; i++) memset(long_items + (size_t)i * length, i, length), memcpy(long_items + (size_t)i * length, &i, sizeof i);
        memset(results, 0x55, sizeof results);
        CHECK_OK(tine_pool_map_async(pool, unreliable, long_items, length, FEW, 9, results, sizeof *results, NULL, &async));
        free(long_items); /* copied */
        CHECK_STATUS(tine_result_status(get(async)), TINE_ETASKFAILED);
        CHECK_INT(index_of(get(async)), 3);
        tine_async_free(async);
        for (int i = 0; i < FEW; i++) CHECK_INT(results[i], i % 10 == 3 ? 0 : i);
    }
    end_pool(pool);
}

static int32_t die_at_first(const void *arg, size_t len, tine_task_t *task) {
    const int number = number_in(arg, len);
    __atomic_fetch_add(&shared->slots[number], 1, __ATOMIC_SEQ_CST);
    if (number % 100 == 50 && tine_task_attempt(task) < 3) kill(getpid(), SIGKILL);
    return square(arg, len, task);
}
TEST(an_item_is_tried_as_often_as_allowed) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    share();
    tine_pool_t *pool = pool_of(2);
    number_items();
    options.max_attempts = 3;
    tine_async_t *async = map_all(pool, die_at_first, 250, &options);
    CHECK_STATUS(tine_result_status(get(async)), TINE_OK);
    tine_async_free(async);
    for (int i = 0; i < COUNT; i++) {
        CHECK_INT(results[i], i * i);
        CHECK_INT(shared->slots[i], i % 100 == 50 ? 3 : 1);
    }
    end_pool(pool);
}

static int32_t hang_at_some(const void *arg, size_t len, tine_task_t *task) {
    if (number_in(arg, len) % 50 == 7) for (;;) pause();
    return square(arg, len, task);
}
TEST(an_item_that_takes_too_long_costs_itself) {
    enum { FEW = 200 };
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    tine_async_t *async = NULL;
    tine_pool_t *pool = pool_of(2);
    number_items();
    options.timeout_ms = under_valgrind() ? 1000 : 200;
    CHECK_OK(tine_pool_map_async(pool, hang_at_some, items, sizeof *items, FEW, 20, results, sizeof *results, &options, &async));
    CHECK_STATUS(tine_result_status(get(async)), TINE_ETASKFAILED);
    CHECK_INT(index_of(get(async)), 7);
    CHECK_INT(exit_of(get(async)).reason, TINE_REASON_TIMEOUT);
    tine_async_free(async);
    for (int i = 0; i < FEW; i++) CHECK_INT(results[i], i % 50 == 7 ? 0 : i * i);
    CHECK_INT(stats_of(pool).worker_deaths, 0);
    end_pool(pool);
}

static int32_t wait_and_square(const void *arg, size_t len, tine_task_t *task) {
    count_up(&shared->started);
    await(&shared->gate, 1);
    return square(arg, len, task);
}
TEST(a_map_that_is_cancelled_stops) {
    share();
    tine_pool_t *pool = pool_of(1);
    number_items();
    tine_async_t *async = map_all(pool, wait_and_square, 100, NULL);
    await(&shared->started, 1);
    CHECK_STATUS(tine_async_wait(async, 10), TINE_ETIMEDOUT);
    CHECK_OK(tine_async_cancel(async));
    set(&shared->gate, 1);
    CHECK_STATUS(tine_result_status(get(async)), TINE_ECANCELED);
    CHECK_OK(tine_async_cancel(async));
    tine_async_free(async);
    CHECK(shared->started <= 2);
    check_works(pool);
    end_pool(pool);
}

TEST(a_pool_that_is_freed_touches_no_results_any_more) {
    share();
    tine_pool_t *pool = pool_of(2);
    number_items();
    tine_async_t *async = map_all(pool, wait_and_square, 10, NULL);
    await(&shared->started, 2);
    tine_pool_free(pool);
    CHECK_STATUS(tine_result_status(get(async)), TINE_ECANCELED);
    tine_async_free(async);
}

TEST(what_finds_no_room_is_told_and_leaves_the_results_alone) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    tine_async_t *async = NULL;
    share();
    tine_pool_t *pool = pool_flagged(1, 0, 4);
    number_items();
    options.flags = TINE_SUBMIT_TRY, options.callback = options.error_callback = note, options.user_data = &told;
    CHECK_STATUS(tine_pool_map_async(pool, wait_and_square, items, 4, COUNT, 1, results, 4, &options, &async), TINE_EFULL);
    options.flags = 0, options.submit_timeout_ms = 20;
    CHECK_STATUS(tine_pool_map_async(pool, wait_and_square, items, 4, COUNT, 1, results, 4, &options, &async), TINE_EFULL);
    CHECK(async == NULL);
    set(&shared->gate, 1);
    check_works(pool);
    for (int i = 0; i < COUNT; i++) CHECK_INT(results[i], -7);
    async = map_all(pool, square, 1, NULL); /* as they get room */
    CHECK_STATUS(end_of(async), TINE_OK);
    end_pool(pool);
    CHECK_INT(told, 0);
    CHECK(shared->started <= 2);
}

static void *wait_for_it(void *async) {
    CHECK_OK(tine_async_wait(async, TINE_FOREVER));
    return NULL;
}
TEST(many_threads_wait_for_one_map) {
    static const uint32_t flags[] = { 0, TINE_POOL_HOST_LOOP };
    for (int kind = 0; kind < 2; kind++) {
        pthread_t threads[4];
        share();
        tine_pool_t *pool = pool_flagged(2, flags[kind], 0);
        number_items();
        tine_async_t *async = map_all(pool, wait_and_square, 7, NULL);
        for (int i = 0; i < 4; i++) CHECK_INT(pthread_create(&threads[i], NULL, wait_for_it, async), 0);
        set(&shared->gate, 1);
        for (int i = 0; i < 4; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
        tine_async_free(async);
        end_pool(pool);
    }
}

static tine_pool_t *used;
static void map_inside(const tine_result_t *result, void *user_data) {
    (void)result;
    tine_async_t *async = map_all(used, square, 10, NULL);
    CHECK_STATUS(end_of(async), TINE_OK);
    *(int *)user_data += 1;
}
TEST(a_callback_maps) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    used = pool_of(2);
    number_items();
    options.callback = map_inside, options.user_data = &told;
    CHECK_STATUS(end_of(submit_with(used, do_nothing, NULL, 0, &options)), TINE_OK); /* and its callback has returned */
    end_pool(used);
    CHECK_INT(told, 1);
    for (int i = 0; i < COUNT; i++) CHECK_INT(results[i], i * i);
}

TEST(wrong_arguments_are_told) {
    tine_async_t *async = NULL;
    tine_pool_t *pool = pool_of(1);
    CHECK_STATUS(tine_pool_map_async(NULL, square, items, 4, 1, 0, results, 4, NULL, &async), TINE_EINVAL);
    CHECK_STATUS(tine_pool_map_async(pool, NULL, items, 4, 1, 0, results, 4, NULL, &async), TINE_EINVAL);
    CHECK_STATUS(tine_pool_map_async(pool, square, NULL, 4, 1, 0, results, 4, NULL, &async), TINE_EINVAL);
    CHECK_STATUS(tine_pool_map_async(pool, function_at(items), items, 4, 1, 0, results, 4, NULL, &async), TINE_EINVAL);
    CHECK_STATUS(tine_pool_map_async(pool, square, items, SIZE_MAX, 2, 0, results, 4, NULL, &async), TINE_EINVAL);
    CHECK_OK(tine_pool_close(pool));
    CHECK_STATUS(tine_pool_map_async(pool, square, items, 4, 0, 0, results, 4, NULL, &async), TINE_ECLOSED);
    CHECK(async == NULL);
    tine_pool_free(pool);
}
