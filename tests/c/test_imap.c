/* Streams: items that come one after the other, results that come one after the other. */
#include "pool_tools.h"

/* Numbers from 0 on, below `count`; says whatever is wrong with who asks. */
static struct source {
    int given, taken, ahead, count, asking;
    tine_status_t end;
    pthread_t thread;
} source;
static void source_of(int count) {
    memset(&source, 0, sizeof source);
    source.count = count, source.end = TINE_EEOF, source.thread = pthread_self();
}
static tine_status_t next_number(void *user_data, tine_bytes_t *out_item) {
    static int number;
    CHECK(user_data == &source);
    CHECK_INT(source.asking++, 0);
    CHECK(pthread_equal(source.thread, pthread_self()));
    source.asking--;
    if (source.given == source.count) return source.count = -1, source.end;
    CHECK(source.count >= 0); /* not asked again once it has ended */
    number = source.given++;
    if (source.given - source.taken > source.ahead) source.ahead = source.given - source.taken;
    out_item->data = &number, out_item->len = sizeof number;
    return TINE_OK;
}
static tine_stream_t *stream_with(tine_pool_t *pool, tine_task_fn fn, const tine_imap_options_t *options) {
    tine_stream_t *stream = NULL;
    CHECK_OK(tine_pool_imap(pool, fn, next_number, &source, options, &stream));
    CHECK(stream != NULL);
    return stream;
}
static tine_stream_t *stream_of(tine_pool_t *pool, tine_task_fn fn, size_t window, uint32_t flags) {
    tine_imap_options_t options = TINE_IMAP_OPTIONS_INIT;
    options.window = window, options.flags = flags;
    return stream_with(pool, fn, &options);
}
static tine_result_t *next_of(tine_stream_t *stream) {
    tine_result_t *result = NULL;
    CHECK_OK(tine_stream_next(stream, TINE_FOREVER, &result));
    CHECK(result != NULL);
    source.taken++;
    return result;
}
static tine_pool_t *pool_flagged(uint32_t workers, uint32_t flags, size_t max_pending) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    options.workers = workers, options.flags = flags, options.max_pending = max_pending;
    return pool_with(&options);
}

TEST(results_come_in_the_order_of_the_items) {
    static const uint32_t flags[] = { 0, TINE_POOL_HOST_LOOP };
    static const size_t windows[] = { 0, 1, 3, 1000 };
    for (int kind = 0; kind < 2; kind++) {
        tine_pool_t *pool = pool_flagged(2, flags[kind], 0);
        for (int w = 0; w < 4; w++) {
            source_of(300);
            tine_stream_t *stream = stream_of(pool, square, windows[w], 0);
            CHECK(source.given <= (windows[w] == 0 ? 4 : (int)windows[w]));
            for (int i = 0; i < 300; i++) {
                tine_result_t *result = next_of(stream);
                CHECK_INT(number_of(result), i * i);
                CHECK_INT(tine_result_task_id(result), i + 1);
                tine_result_free(result);
            }
            CHECK(source.ahead <= (windows[w] == 0 ? 4 : (int)windows[w]) + 1); /* the one that was just taken is not counted yet */
            for (int i = 0; i < 3; i++) CHECK_STATUS(tine_stream_next(stream, TINE_FOREVER, NULL), TINE_EEOF);
            tine_stream_free(stream);
        }
        check_works(pool);
        end_pool(pool);
    }
}

static int32_t wait_if_first(const void *arg, size_t len, tine_task_t *task) {
    if (number_in(arg, len) == 0) await(&shared->gate, 1);
    return square(arg, len, task);
}
TEST(unordered_results_do_not_wait_for_a_slow_one) {
    static const uint32_t flags[] = { 0, TINE_POOL_HOST_LOOP };
    for (int kind = 0; kind < 2; kind++) {
        int seen[200] = { 0 };
        share();
        tine_pool_t *pool = pool_flagged(2, flags[kind], 0);
        source_of(200);
        tine_stream_t *stream = stream_of(pool, wait_if_first, 8, TINE_IMAP_UNORDERED);
        for (int i = 0; i < 200; i++) {
            if (i == 199) set(&shared->gate, 1); /* all but the first are there */
            tine_result_t *result = next_of(stream);
            const int item = (int)tine_result_task_id(result) - 1;
            CHECK(item >= 0 && item < 200 && !seen[item]++);
            CHECK_INT(number_of(result), item * item);
            if (i == 199) CHECK_INT(item, 0);
            tine_result_free(result);
        }
        CHECK_STATUS(tine_stream_next(stream, TINE_FOREVER, NULL), TINE_EEOF);
        tine_stream_free(stream);
        end_pool(pool);
    }
}

TEST(a_source_without_items_ends_at_once) {
    tine_pool_t *pool = pool_of(1);
    source_of(0);
    tine_stream_t *stream = stream_of(pool, square, 0, 0);
    CHECK_STATUS(tine_stream_next(stream, 0, NULL), TINE_EEOF);
    tine_stream_free(stream);
    end_pool(pool);
}

TEST(a_failure_of_the_source_comes_behind_the_results) {
    static const tine_status_t failures[] = { TINE_ESYS, TINE_ENOMEM, -12345 };
    tine_pool_t *pool = pool_of(2);
    for (int i = 0; i < 3; i++) {
        source_of(5), source.end = failures[i];
        tine_stream_t *stream = stream_of(pool, square, 0, 0);
        for (int item = 0; item < 5; item++) tine_result_free(next_of(stream));
        for (int again = 0; again < 2; again++) CHECK_STATUS(tine_stream_next(stream, TINE_FOREVER, NULL), failures[i]);
        tine_stream_free(stream);
    }
    end_pool(pool);
}

static tine_status_t failing_source(void *user_data, tine_bytes_t *out_item) {
    (void)out_item;
    const tine_status_t inside = tine_event_set(NULL); /* TINE_EINVAL */
    return user_data == NULL ? inside : *(tine_status_t *)user_data;
}
TEST(the_message_is_that_of_the_source) {
    tine_status_t other = -12345;
    tine_pool_t *pool = pool_of(1);
    for (int kind = 0; kind < 2; kind++) {
        tine_stream_t *stream = NULL;
        CHECK_OK(tine_pool_imap(pool, square, failing_source, kind == 0 ? NULL : &other, NULL, &stream));
        for (int again = 0; again < 2; again++) {
            CHECK_STATUS(tine_lock_acquire(NULL, 0), TINE_EINVAL); /* a message that has nothing to do with it */
            CHECK_STATUS(tine_stream_next(stream, TINE_FOREVER, NULL), kind == 0 ? TINE_EINVAL : other);
            CHECK_MESSAGE("the source of the items");
            CHECK_MESSAGE(kind == 0 ? "event is NULL" : "-12345");
        }
        tine_stream_free(stream);
    }
    end_pool(pool);
}

static int32_t die_at_every_tenth(const void *arg, size_t len, tine_task_t *task) {
    if (number_in(arg, len) % 10 == 3) abort();
    if (number_in(arg, len) % 10 == 4) return 4;
    return square(arg, len, task);
}
TEST(items_that_fail_are_results_like_others) {
    tine_pool_t *pool = pool_of(2);
    share(); /* no core files */
    for (uint32_t flags = 0; flags < 2; flags++) {
        source_of(100);
        tine_stream_t *stream = stream_of(pool, die_at_every_tenth, 5, flags);
        for (int i = 0; i < 100; i++) {
            tine_result_t *result = next_of(stream);
            const int item = (int)tine_result_task_id(result) - 1;
            CHECK_STATUS(tine_result_status(result), item % 10 == 3 ? TINE_EWORKERDIED : item % 10 == 4 ? TINE_ETASKFAILED : TINE_OK);
            tine_result_free(result);
        }
        CHECK_STATUS(tine_stream_next(stream, TINE_FOREVER, NULL), TINE_EEOF);
        tine_stream_free(stream);
    }
    end_pool(pool);
}

TEST(next_waits_no_longer_than_it_may) {
    for (uint32_t flags = 0; flags < 2; flags++) {
        share();
        tine_pool_t *pool = pool_of(1);
        source_of(3);
        tine_stream_t *stream = stream_of(pool, wait_at_gate, 0, flags);
        CHECK_STATUS(tine_stream_next(stream, 0, NULL), TINE_ETIMEDOUT);
        const int64_t start = now_us();
        CHECK_STATUS(tine_stream_next(stream, 20, NULL), TINE_ETIMEDOUT);
        CHECK(now_us() - start >= 20000);
        CHECK_STATUS(tine_stream_next(stream, -2, NULL), TINE_EINVAL);
        set(&shared->gate, 1);
        for (int i = 0; i < 3; i++) CHECK_OK(tine_stream_next(stream, TINE_FOREVER, NULL));
        CHECK_STATUS(tine_stream_next(stream, TINE_FOREVER, NULL), TINE_EEOF);
        tine_stream_free(stream);
        end_pool(pool);
    }
}

TEST(an_item_has_its_running_time) {
    tine_imap_options_t options = TINE_IMAP_OPTIONS_INIT;
    share();
    tine_pool_t *pool = pool_of(2);
    source_of(3);
    options.timeout_ms = 100;
    tine_stream_t *stream = stream_with(pool, wait_if_first, &options);
    for (int i = 0; i < 3; i++) {
        tine_result_t *result = next_of(stream);
        CHECK_STATUS(tine_result_status(result), i == 0 ? TINE_ETIMEDOUT : TINE_OK);
        tine_result_free(result);
    }
    tine_stream_free(stream);
    end_pool(pool);
}

TEST(a_stream_that_is_freed_takes_back_what_has_not_begun) {
    for (uint32_t flags = 0; flags < 2; flags++) {
        share();
        tine_pool_t *pool = pool_of(1);
        source_of(100);
        tine_stream_t *stream = stream_of(pool, wait_at_gate, 10, flags);
        CHECK_INT(source.given, 10);
        await(&shared->started, 1);
        tine_stream_free(stream);
        set(&shared->gate, 1);
        check_works(pool);
        const tine_pool_stats_t stats = stats_of(pool);
        CHECK_INT(stats.queued + stats.running, 0);
        CHECK(stats.failed >= 8); /* one runs, one may have been taken */
        CHECK(shared->started <= 2);
        end_pool(pool);
    }
    tine_stream_free(NULL);
}

TEST(a_stream_outlives_its_pool) {
    for (uint32_t flags = 0; flags < 2; flags++) {
        share();
        tine_pool_t *pool = pool_of(1);
        source_of(100);
        tine_stream_t *stream = stream_of(pool, wait_at_gate, 10, flags);
        await(&shared->started, 1);
        tine_pool_free(pool);
        for (int i = 0; i < 10; i++) {
            tine_result_t *result = next_of(stream);
            CHECK_STATUS(tine_result_status(result), TINE_ECANCELED);
            tine_result_free(result);
        }
        CHECK_STATUS(tine_stream_next(stream, TINE_FOREVER, NULL), TINE_ECLOSED);
        CHECK_INT(source.given, 10);
        tine_stream_free(stream);
    }
}

TEST(a_pool_that_is_closed_or_terminated_takes_no_more_items) {
    for (int kind = 0; kind < 4; kind++) {
        tine_pool_t *pool = pool_of(2);
        source_of(1000);
        tine_stream_t *stream = stream_of(pool, square, 6, kind & 1);
        tine_result_free(next_of(stream));
        CHECK_OK(kind & 2 ? tine_pool_close(pool) : tine_pool_terminate(pool, 0, NULL));
        tine_result_t *result = NULL;
        tine_status_t status;
        while ((status = tine_stream_next(stream, TINE_FOREVER, &result)) == TINE_OK) {
            CHECK(tine_result_status(result) == TINE_OK || (tine_result_status(result) == TINE_ECANCELED && !(kind & 2)));
            tine_result_free(result), source.taken++;
        }
        CHECK_STATUS(status, TINE_ECLOSED);
        CHECK_INT(source.taken, source.given);
        CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
        tine_stream_free(stream);
        tine_pool_free(pool);
    }
}

TEST(a_full_pool_makes_the_stream_wait_for_room) {
    share();
    tine_pool_t *pool = pool_flagged(1, 0, 2);
    tine_async_t *first = submit(pool, wait_at_gate, NULL, 0), *second = submit(pool, do_nothing, NULL, 0);
    source_of(20);
    tine_stream_t *stream = stream_of(pool, square, 10, 0);
    CHECK_INT(source.given, 1); /* asked for, and kept */
    CHECK_STATUS(tine_stream_next(stream, 0, NULL), TINE_ETIMEDOUT);
    CHECK_STATUS(tine_stream_next(stream, 10, NULL), TINE_ETIMEDOUT);
    CHECK_INT(source.given, 1);
    set(&shared->gate, 1);
    for (int i = 0; i < 20; i++) {
        tine_result_t *result = next_of(stream);
        CHECK_INT(number_of(result), i * i);
        tine_result_free(result);
    }
    CHECK_STATUS(tine_stream_next(stream, TINE_FOREVER, NULL), TINE_EEOF);
    tine_stream_free(stream);
    tine_async_free(first), tine_async_free(second);
    end_pool(pool);
}

/* ---- What a source may do ---- */
static tine_pool_t *used;
static tine_stream_t *streaming;
enum { SUBMIT, AGAIN, FREE_STREAM, FREE_POOL };
static int what_to_do;
static tine_status_t busy_source(void *user_data, tine_bytes_t *out_item) {
    const tine_status_t status = next_number(user_data, out_item);
    if (what_to_do == SUBMIT) tine_result_free(apply(used, do_nothing, NULL, 0));
    if (what_to_do == AGAIN && streaming != NULL) CHECK_STATUS(tine_stream_next(streaming, 0, NULL), TINE_EBUSY);
    if (source.given == 7 && what_to_do == FREE_STREAM) tine_stream_free(streaming), streaming = NULL;
    if (source.given == 7 && what_to_do == FREE_POOL && used != NULL) tine_pool_free(used), used = NULL;
    return status;
}
TEST(a_source_may_use_the_pool_and_free_it_and_its_stream) {
    for (what_to_do = SUBMIT; what_to_do <= FREE_POOL; what_to_do++) {
        for (uint32_t flags = 0; flags < 2; flags++) {
            tine_imap_options_t options = TINE_IMAP_OPTIONS_INIT;
            tine_result_t *result = NULL;
            tine_status_t status;
            used = pool_of(2), streaming = NULL;
            source_of(20);
            options.flags = flags;
            CHECK_OK(tine_pool_imap(used, square, busy_source, &source, &options, &streaming));
            while ((status = tine_stream_next(streaming, TINE_FOREVER, &result)) == TINE_OK) tine_result_free(result), source.taken++;
            if (what_to_do == FREE_POOL || what_to_do == FREE_STREAM) CHECK_STATUS(status, TINE_ECLOSED);
            else CHECK_STATUS(status, TINE_EEOF), CHECK_INT(source.taken, 20);
            tine_stream_free(streaming);
            tine_pool_free(used);
        }
    }
}

static tine_status_t broken_source(void *user_data, tine_bytes_t *out_item) {
    (void)user_data;
    out_item->len = 5; /* and no data */
    return TINE_OK;
}
static tine_status_t empty_source(void *user_data, tine_bytes_t *out_item) {
    (void)out_item;
    return (*(int *)user_data)-- > 0 ? TINE_OK : TINE_EEOF;
}
static int32_t check_empty(const void *arg, size_t len, tine_task_t *task) { return (void)arg, (void)task, len != 0; }
TEST(items_may_be_empty_and_not_nowhere) {
    int left = 3;
    tine_stream_t *stream = NULL;
    tine_pool_t *pool = pool_of(1);
    CHECK_OK(tine_pool_imap(pool, check_empty, empty_source, &left, NULL, &stream));
    for (int i = 0; i < 3; i++) {
        tine_result_t *result = next_of(stream);
        CHECK_STATUS(tine_result_status(result), TINE_OK);
        tine_result_free(result);
    }
    CHECK_STATUS(tine_stream_next(stream, TINE_FOREVER, NULL), TINE_EEOF);
    tine_stream_free(stream);
    CHECK_OK(tine_pool_imap(pool, check_empty, broken_source, NULL, NULL, &stream));
    CHECK_STATUS(tine_stream_next(stream, TINE_FOREVER, NULL), TINE_EINVAL);
    CHECK_MESSAGE("out_item->data");
    tine_stream_free(stream);
    end_pool(pool);
}

TEST(wrong_arguments_are_told) {
    tine_imap_options_t options = TINE_IMAP_OPTIONS_INIT;
    tine_stream_t *stream = NULL;
    tine_pool_t *pool = pool_of(1);
    source_of(3);
    CHECK_STATUS(tine_pool_imap(NULL, square, next_number, &source, NULL, &stream), TINE_EINVAL);
    CHECK_STATUS(tine_pool_imap(pool, NULL, next_number, &source, NULL, &stream), TINE_EINVAL);
    CHECK_STATUS(tine_pool_imap(pool, square, NULL, &source, NULL, &stream), TINE_EINVAL);
    CHECK_STATUS(tine_pool_imap(pool, function_at(&source), next_number, &source, NULL, &stream), TINE_EINVAL);
    CHECK_STATUS(tine_pool_imap(pool, square, next_number, &source, NULL, NULL), TINE_EINVAL);
    options.flags = 2;
    CHECK_STATUS(tine_pool_imap(pool, square, next_number, &source, &options, &stream), TINE_EINVAL);
    options.flags = 0, options.reserved = 1;
    CHECK_STATUS(tine_pool_imap(pool, square, next_number, &source, &options, &stream), TINE_EINVAL);
    options.reserved = 0, options.timeout_ms = -5;
    CHECK_STATUS(tine_pool_imap(pool, square, next_number, &source, &options, &stream), TINE_EINVAL);
    CHECK_STATUS(tine_stream_next(NULL, 0, NULL), TINE_EINVAL);
    CHECK_OK(tine_pool_close(pool));
    CHECK_STATUS(tine_pool_imap(pool, square, next_number, &source, NULL, &stream), TINE_ECLOSED);
    CHECK(stream == NULL);
    CHECK_INT(source.given, 0);
    tine_pool_free(pool);
}

TEST(a_forked_child_has_no_stream) {
    tine_pool_t *pool = pool_of(1);
    source_of(3);
    tine_stream_t *stream = stream_of(pool, square, 0, 0);
    const pid_t child = fork();
    if (child == 0) {
        CHECK_STATUS(tine_stream_next(stream, TINE_FOREVER, NULL), TINE_EFORKED);
        tine_stream_free(stream);
        _exit(0);
    }
    CHECK_INT(status_of(child), 0);
    for (int i = 0; i < 3; i++) tine_result_free(next_of(stream));
    tine_stream_free(stream);
    end_pool(pool);
}
