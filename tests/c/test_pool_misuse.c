/* Pools under bad input, misuse, forks and limits: a status from the contract and a message, never a crash, a hang or a leak. */
#include <grp.h>
#include <malloc.h>
#include "pool_tools.h"

/* ---- Arguments ---- */
TEST(null_is_refused_and_named) {
    tine_pool_t *pool = pool_of(1);
    tine_async_t *async = NULL;
    tine_pool_stats_t stats = TINE_POOL_STATS_INIT;
    tine_exit_info_t info = TINE_EXIT_INFO_INIT;
    char item = 0;
    size_t count = 0;
    CHECK_STATUS(tine_pool_new(NULL, NULL), TINE_EINVAL);
    CHECK_MESSAGE("out_pool is NULL");
    CHECK_STATUS(tine_pool_apply(NULL, do_nothing, NULL, 0, 0, NULL), TINE_EINVAL);
    CHECK_MESSAGE("pool is NULL");
    CHECK_STATUS(tine_pool_apply(pool, NULL, NULL, 0, 0, NULL), TINE_EINVAL);
    CHECK_MESSAGE("fn is NULL");
    CHECK_STATUS(tine_pool_apply(pool, do_nothing, NULL, 1, 0, NULL), TINE_EINVAL);
    CHECK_MESSAGE("arg is NULL");
    CHECK_STATUS(tine_pool_submit(NULL, do_nothing, NULL, 0, NULL, &async), TINE_EINVAL);
    CHECK_MESSAGE("pool is NULL");
    CHECK_STATUS(tine_pool_submit(pool, NULL, NULL, 0, NULL, &async), TINE_EINVAL);
    CHECK_MESSAGE("fn is NULL");
    CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 1, NULL, &async), TINE_EINVAL);
    CHECK_MESSAGE("arg is NULL");
    CHECK(async == NULL);
    CHECK_STATUS(tine_pool_map(NULL, do_nothing, &item, 1, 1, 0, NULL, 0, 0, NULL), TINE_EINVAL);
    CHECK_STATUS(tine_pool_map(pool, NULL, &item, 1, 1, 0, NULL, 0, 0, NULL), TINE_EINVAL);
    CHECK_STATUS(tine_pool_map(pool, do_nothing, NULL, 1, 1, 0, NULL, 0, 0, NULL), TINE_EINVAL);
    CHECK_MESSAGE("items is NULL");
    CHECK_OK(tine_pool_map(pool, do_nothing, &item, 1, 1, 0, NULL, 4, TINE_FOREVER, NULL)); /* an output: nobody wants it */
    CHECK_STATUS(tine_pool_close(NULL), TINE_EINVAL);
    CHECK_STATUS(tine_pool_terminate(NULL, 0, NULL), TINE_EINVAL);
    CHECK_STATUS(tine_pool_join(NULL, 0), TINE_EINVAL);
    CHECK_STATUS(tine_pool_stats(NULL, &stats), TINE_EINVAL);
    CHECK_STATUS(tine_pool_worker_pids(NULL, NULL, 0, &count), TINE_EINVAL);
    CHECK_STATUS(tine_pool_worker_pids(pool, NULL, 4, &count), TINE_EINVAL);
    CHECK_MESSAGE("out_pids is NULL");
    CHECK_STATUS(tine_async_wait(NULL, 0), TINE_EINVAL);
    CHECK_MESSAGE("async is NULL");
    CHECK_STATUS(tine_async_get(NULL, 0, NULL), TINE_EINVAL);
    CHECK_STATUS(tine_result_status(NULL), TINE_EINVAL);
    CHECK_MESSAGE("result is NULL");
    CHECK_STATUS(tine_result_exit_info(NULL, &info), TINE_EINVAL);
    CHECK_STATUS(tine_task_reply(NULL, "x", 1), TINE_EINVAL);
    CHECK_MESSAGE("task is NULL");
    CHECK_STATUS(tine_pool_resize(NULL, 1) < 0 ? TINE_EINVAL : TINE_OK, TINE_EINVAL);
    CHECK_STATUS(tine_pool_poll(NULL, 0, 0, NULL) < 0 ? TINE_EINVAL : TINE_OK, TINE_EINVAL);
    CHECK_STATUS(tine_async_cancel(NULL) < 0 ? TINE_EINVAL : TINE_OK, TINE_EINVAL);
    check_works(pool);
    end_pool(pool);
}

TEST(getters_answer_null_with_their_fallback) {
    size_t len = 77;
    CHECK(!tine_async_ready(NULL));
    CHECK(!tine_async_successful(NULL));
    CHECK(tine_result_data(NULL, &len) == NULL);
    CHECK(len == 0 || len == 77);
    CHECK(tine_result_data(NULL, NULL) == NULL);
    CHECK_INT(tine_result_task_id(NULL), 0);
    CHECK(tine_result_worker_pid(NULL) <= 0);
    CHECK(tine_result_code(NULL) <= 0);
    (void)tine_result_stderr_tail(NULL, &len);
    CHECK(tine_task_worker_state(NULL) == NULL);
    CHECK_INT(tine_task_id(NULL), 0);
    CHECK_INT(tine_task_attempt(NULL), 0);
    (void)tine_task_worker_index(NULL);
    CHECK(!tine_task_cancelled(NULL));
    CHECK_INT(tine_pool_fd(NULL), -1);
    tine_pool_free(NULL), tine_async_free(NULL), tine_result_free(NULL), tine_stream_free(NULL);
}

TEST(bad_options_of_a_pool_are_refused_and_named) {
    struct { tine_pool_options_t known; uint64_t newer; } options = { TINE_POOL_OPTIONS_INIT, 0 };
    tine_pool_t *pool = NULL;
    const int32_t closed[] = { 1, 987 };
    const int fds = test_count_fds();
    for (size_t size = 0; size < sizeof(size_t); size++) {
        options.known.size = size;
        CHECK_STATUS(tine_pool_new(&options.known, &pool), TINE_EINVAL);
        CHECK_MESSAGE("size");
    }
    options.known.size = sizeof options, options.newer = 1;
    CHECK_STATUS(tine_pool_new(&options.known, &pool), TINE_E2BIG);
    CHECK_MESSAGE("options");
    options.known.size = sizeof options.known;
    for (uint32_t flag = 256; flag != 0; flag <<= 1) {
        options.known.flags = flag;
        CHECK_STATUS(tine_pool_new(&options.known, &pool), TINE_EINVAL);
        CHECK_MESSAGE("flags");
    }
    options.known.flags = 0, options.known.inherit_fd_count = 2;
    CHECK_STATUS(tine_pool_new(&options.known, &pool), TINE_EINVAL);
    CHECK_MESSAGE("inherit_fds");
    options.known.inherit_fds = closed;
    CHECK_STATUS(tine_pool_new(&options.known, &pool), TINE_EINVAL);
    CHECK_MESSAGE("inherit_fds");
    options.known.inherit_fds = (int32_t[]){ -1, 1 };
    CHECK_STATUS(tine_pool_new(&options.known, &pool), TINE_EINVAL);
    options.known.inherit_fds = NULL, options.known.inherit_fd_count = 0, options.known.max_pending = (1u << 24) + 1;
    CHECK_STATUS(tine_pool_new(&options.known, &pool), TINE_EINVAL);
    CHECK_MESSAGE("max_pending");
    options.known.max_pending = SIZE_MAX;
    CHECK_STATUS(tine_pool_new(&options.known, &pool), TINE_EINVAL);
    options.known.max_pending = 0, options.known.workers = UINT32_MAX;
    CHECK_STATUS(tine_pool_new(&options.known, &pool), TINE_EINVAL);
    CHECK_MESSAGE("workers");
    options.known.workers = 1, options.known.initializer = (tine_initializer_fn)(uintptr_t)closed;
    CHECK_STATUS(tine_pool_new(&options.known, &pool), TINE_EINVAL);
    CHECK_MESSAGE("options.initializer");
    options.known.initializer = NULL, options.known.finalizer = (tine_finalizer_fn)(uintptr_t)1;
    CHECK_STATUS(tine_pool_new(&options.known, &pool), TINE_EINVAL);
    CHECK_MESSAGE("options.finalizer: 0x1 ");
    options.known.finalizer = NULL;
    options.known.flags = TINE_POOL_HOST_LOOP | TINE_POOL_THREADS | TINE_POOL_KEEP_SIGNALS;
    const tine_status_t status = tine_pool_new(&options.known, &pool); /* whatever it is */
    if (status == TINE_OK) tine_pool_free(pool), pool = NULL;
    CHECK(pool == NULL);
    CHECK_INT(test_count_fds(), fds);
    CHECK_INT(test_count_children(), 0);
}

TEST(options_of_other_headers_are_understood) {
    struct { tine_pool_options_t known; uint64_t newer[4]; } options = { TINE_POOL_OPTIONS_INIT, { 0 } };
    struct { tine_submit_options_t known; uint64_t newer[4]; } of_submit = { TINE_SUBMIT_OPTIONS_INIT, { 0 } };
    tine_pool_t *pool = NULL;
    options.known.size = sizeof options, options.known.workers = 1;
    CHECK_OK(tine_pool_new(&options.known, &pool));
    of_submit.known.size = sizeof of_submit;
    CHECK_STATUS(end_of(submit_with(pool, do_nothing, NULL, 0, &of_submit.known)), TINE_OK);
    memset(&of_submit, 0xff, sizeof of_submit); /* what lies behind `size` is not read */
    of_submit.known.size = offsetof(tine_submit_options_t, callback);
    CHECK_STATUS(end_of(submit_with(pool, do_nothing, NULL, 0, &of_submit.known)), TINE_OK);
    end_pool(pool);
    memset(&options, 0xff, sizeof options);
    options.known.size = offsetof(tine_pool_options_t, name);
    CHECK_OK(tine_pool_new(&options.known, &pool));
    CHECK_INT(stats_of(pool).workers, tine_cpu_count());
    end_pool(pool);
}

TEST(bad_options_of_a_task_are_refused_and_named) {
    struct { tine_submit_options_t known; uint64_t newer; } options = { TINE_SUBMIT_OPTIONS_INIT, 0 };
    tine_async_t *async = NULL;
    share();
    tine_pool_t *pool = pool_of(1);
    options.known.size = 0;
    CHECK_STATUS(tine_pool_submit(pool, count_run, NULL, 0, &options.known, &async), TINE_EINVAL);
    CHECK_MESSAGE("size");
    options.known.size = sizeof options, options.newer = 1;
    CHECK_STATUS(tine_pool_submit(pool, count_run, NULL, 0, &options.known, &async), TINE_E2BIG);
    options.known.size = sizeof options.known;
    for (uint32_t flag = 2; flag != 0; flag <<= 1) {
        options.known.flags = flag;
        CHECK_STATUS(tine_pool_submit(pool, count_run, NULL, 0, &options.known, &async), TINE_EINVAL);
        CHECK_MESSAGE("flags");
    }
    options.known.flags = 0, options.known.submit_timeout_ms = -2;
    CHECK_STATUS(tine_pool_submit(pool, count_run, NULL, 0, &options.known, &async), TINE_EINVAL);
    CHECK_MESSAGE("submit_timeout_ms");
    options.known.submit_timeout_ms = 0, options.known.timeout_ms = -2;
    CHECK_STATUS(tine_pool_submit(pool, count_run, NULL, 0, &options.known, &async), TINE_EINVAL);
    CHECK_MESSAGE("options.timeout_ms");
    options.known.timeout_ms = 0, options.known.soft_timeout_ms = -2;
    CHECK_STATUS(tine_pool_submit(pool, count_run, NULL, 0, &options.known, &async), TINE_EINVAL);
    CHECK_MESSAGE("options.soft_timeout_ms");
    CHECK(async == NULL);
    end_pool(pool);
    CHECK_INT(shared->ended, 0);
}

TEST(times_below_minus_1_are_refused_and_the_longest_are_for_ever) {
    share();
    tine_pool_t *pool = pool_of(1);
    tine_async_t *async = submit(pool, wait_at_gate, NULL, 0);
    const int64_t bad[] = { -2, -1000, INT64_MIN };
    for (int i = 0; i < 3; i++) {
        CHECK_STATUS(tine_pool_apply(pool, count_run, NULL, 0, bad[i], NULL), TINE_EINVAL);
        CHECK_MESSAGE("timeout_ms");
        CHECK_STATUS(tine_pool_map(pool, count_run, NULL, 0, 1, 0, NULL, 0, bad[i], NULL), TINE_EINVAL);
        CHECK_STATUS(tine_async_wait(async, bad[i]), TINE_EINVAL);
        CHECK_STATUS(tine_async_get(async, bad[i], NULL), TINE_EINVAL);
        CHECK_STATUS(tine_pool_terminate(pool, bad[i], NULL), TINE_EINVAL);
        CHECK_MESSAGE("grace_ms");
    }
    set(&shared->gate, 1);
    CHECK_OK(tine_async_wait(async, INT64_MAX));
    CHECK_OK(tine_async_get(async, INT64_MAX - 1, NULL));
    tine_async_free(async);
    CHECK_OK(tine_pool_apply(pool, do_nothing, NULL, 0, INT64_MAX, NULL));
    CHECK_OK(tine_pool_close(pool));
    CHECK_STATUS(tine_pool_join(pool, -2), TINE_EINVAL);
    CHECK_OK(tine_pool_join(pool, INT64_MAX));
    tine_pool_free(pool);
    CHECK_INT(shared->ended, 1);
}

static int data_of_program = 7;
TEST(an_address_that_is_no_function_is_refused) {
    int on_stack = 0;
    void *on_heap = malloc(100);
    void *closure = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *hole = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (closure == MAP_FAILED) closure = &data_of_program; /* where writable code is forbidden */
    tine_pool_t *pool = pool_of(1);
    const int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    void *mapped_later = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, self, 0); /* the nursery has nothing there */
    CHECK(mapped_later != MAP_FAILED);
    CHECK_INT(munmap(hole, 4096), 0);
    const void *const addresses[] = { (void *)1, (void *)4096, &data_of_program, "text", &on_stack, on_heap, closure, hole, mapped_later, pool,
                                      (void *)UINTPTR_MAX, (void *)(UINTPTR_MAX / 2), (void *)(UINTPTR_MAX / 2 + 1) };
    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        tine_async_t *async = NULL;
        const tine_task_fn fn = function_at(addresses[i]);
        const tine_status_t status = tine_pool_submit(pool, fn, NULL, 0, NULL, &async);
        if (status != TINE_EINVAL) TEST_FAIL("address %zu is %d", i, status);
        CHECK_MESSAGE("fn");
        CHECK_STATUS(tine_pool_apply(pool, fn, NULL, 0, TINE_FOREVER, NULL), TINE_EINVAL);
        CHECK_STATUS(tine_pool_map(pool, fn, NULL, 0, 1, 0, NULL, 0, TINE_FOREVER, NULL), TINE_EINVAL);
        CHECK(async == NULL);
    }
    CHECK_INT(stats_of(pool).worker_deaths, 0);
    check_works(pool);
    end_pool(pool);
    free(on_heap);
}

TEST(a_function_of_a_shared_library_is_one) {
    tine_task_fn libc_getpid;
    pid_t (*const function)(void) = getpid;
    memcpy(&libc_getpid, &function, sizeof function);
    tine_pool_t *pool = pool_of(1);
    tine_result_t *result = apply(pool, libc_getpid, NULL, 0);
    CHECK_STATUS(tine_result_status(result), TINE_ETASKFAILED);
    CHECK_INT(tine_result_code(result), worker_of(pool, 0));
    tine_result_free(result);
    end_pool(pool);
}

TEST(lengths_that_no_memory_has_are_refused) {
    tine_pool_t *pool = pool_of(1);
    char byte = 0;
    CHECK_STATUS(tine_pool_apply(pool, do_nothing, &byte, SIZE_MAX, TINE_FOREVER, NULL), TINE_EINVAL);
    CHECK_MESSAGE("arg");
    CHECK_STATUS(tine_pool_submit(pool, do_nothing, &byte, SIZE_MAX, NULL, NULL), TINE_EINVAL);
    CHECK_STATUS(tine_pool_map(pool, do_nothing, &byte, SIZE_MAX, 1, 0, NULL, 0, TINE_FOREVER, NULL), TINE_EINVAL);
    CHECK_STATUS(tine_pool_map(pool, do_nothing, &byte, SIZE_MAX / 2, 3, 0, NULL, 0, TINE_FOREVER, NULL), TINE_EINVAL);
    CHECK_STATUS(tine_pool_map(pool, do_nothing, &byte, 1, 1, 0, &byte, SIZE_MAX, TINE_FOREVER, NULL), TINE_EINVAL);
    CHECK_STATUS(tine_pool_map(pool, do_nothing, NULL, 0, 3, 0, &byte, SIZE_MAX / 2, TINE_FOREVER, NULL), TINE_EINVAL);
    check_works(pool);
    end_pool(pool);
}

static int32_t reply_badly(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len;
    CHECK_STATUS(tine_task_reply(task, NULL, 1), TINE_EINVAL);
    CHECK_STATUS(tine_task_reply(task, "x", SIZE_MAX), TINE_EINVAL);
    CHECK_OK(tine_task_reply(task, NULL, 0));
    CHECK_OK(tine_task_reply(task, "first", 5));
    CHECK_STATUS(tine_task_reply(task, NULL, 5), TINE_EINVAL); /* changes nothing */
    CHECK_OK(tine_task_reply(task, "the last one counts", 19)); /* as with a return value */
    return 0;
}
TEST(a_bad_reply_is_refused_and_the_last_good_one_counts) {
    size_t len = 0;
    tine_pool_t *pool = pool_of(1);
    tine_result_t *result = apply(pool, reply_badly, NULL, 0);
    CHECK_STATUS(tine_result_status(result), TINE_OK);
    const char *text = tine_result_data(result, &len);
    CHECK_INT(len, 19);
    CHECK(memcmp(text, "the last one counts", 19) == 0);
    CHECK(tine_result_data(result, NULL) == text);
    tine_result_free(result);
    end_pool(pool);
}

/* ---- Order of calls ---- */
TEST(join_before_close_is_refused) {
    tine_pool_t *pool = pool_of(1);
    CHECK_STATUS(tine_pool_join(pool, 0), TINE_EINVAL);
    CHECK_MESSAGE("pool");
    CHECK_STATUS(tine_pool_join(pool, TINE_FOREVER), TINE_EINVAL);
    check_works(pool);
    end_pool(pool);
}

static void check_takes_nothing(tine_pool_t *pool) {
    tine_async_t *async = NULL;
    tine_result_t *result = NULL;
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.flags = TINE_SUBMIT_TRY;
    CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, &async), TINE_ECLOSED);
    CHECK_MESSAGE("pool");
    CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 0, &options, &async), TINE_ECLOSED);
    CHECK_STATUS(tine_pool_apply(pool, do_nothing, NULL, 0, TINE_FOREVER, &result), TINE_ECLOSED);
    CHECK_STATUS(tine_pool_apply(pool, do_nothing, NULL, 0, 0, &result), TINE_ECLOSED);
    CHECK_STATUS(tine_pool_map(pool, do_nothing, NULL, 0, 5, 0, NULL, 0, TINE_FOREVER, NULL), TINE_ECLOSED);
    CHECK(async == NULL && result == NULL);
}
TEST(a_closed_pool_takes_nothing_and_may_be_closed_again) {
    uint32_t killed = 77;
    share();
    tine_pool_t *pool = pool_of(1);
    tine_async_t *async = submit(pool, wait_at_gate, NULL, 0);
    CHECK_OK(tine_pool_close(pool));
    check_takes_nothing(pool);
    CHECK_OK(tine_pool_close(pool));
    set(&shared->gate, 1);
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    CHECK_STATUS(end_of(async), TINE_OK);
    check_takes_nothing(pool);
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_terminate(pool, 0, &killed));
    CHECK_INT(killed, 0); /* there is nobody */
    CHECK_OK(tine_pool_join(pool, 0));
    CHECK_INT(stats_of(pool).done, 1); /* still told */
    tine_pool_free(pool);
}

TEST(a_pool_may_be_terminated_any_number_of_times) {
    uint32_t killed = 77;
    share();
    tine_pool_t *pool = pool_of(2);
    tine_async_t *async = submit(pool, wait_at_gate, NULL, 0);
    await(&shared->started, 1);
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_terminate(pool, 2000, NULL));
    check_takes_nothing(pool);
    CHECK_OK(tine_pool_terminate(pool, 0, &killed));
    CHECK_INT(killed, 0);
    CHECK_OK(tine_pool_terminate(pool, TINE_FOREVER, &killed));
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    CHECK_STATUS(end_of(async), TINE_ECANCELED);
    check_takes_nothing(pool);
    tine_pool_free(pool);
}

TEST(a_pool_may_be_freed_at_any_time) {
    share();
    for (int i = 0; i < 12; i++) {
        tine_pool_t *pool = pool_of(2);
        if (i % 2 == 0) CHECK_OK(tine_pool_submit(pool, wait_at_gate, NULL, 0, NULL, NULL));
        if (i % 3 == 0) CHECK_OK(tine_pool_close(pool));
        if (i % 4 == 3) CHECK_OK(tine_pool_terminate(pool, 0, NULL));
        tine_pool_free(pool);
    }
    CHECK_INT(test_count_children(), 0);
}

TEST(handles_may_be_freed_in_any_order) {
    share();
    tine_pool_t *pool = pool_of(1);
    tine_async_t *running = submit(pool, wait_at_gate, NULL, 0), *queued = submit(pool, do_nothing, NULL, 0), *kept = submit(pool, do_nothing, NULL, 0);
    await(&shared->started, 1);
    tine_async_free(queued), tine_async_free(running);
    tine_pool_free(pool);
    CHECK_STATUS(end_of(kept), TINE_ECANCELED);
}

TEST(what_belongs_to_other_pools_answers_so) {
    size_t count = 0;
    tine_pool_t *pool = pool_of(1);
    CHECK_INT(tine_pool_fd(pool), -1);
    CHECK_STATUS(tine_pool_poll(pool, 0, 0, &count), TINE_ENOTSUP);
    check_works(pool);
    end_pool(pool);
}

/* ---- Numbers about the pool ---- */
TEST(worker_pids_tells_how_many_there_are) {
    int32_t pids[5] = { -7, -7, -7, -7, -7 }, few[3] = { -7, -7, -7 };
    size_t count = 77;
    tine_pool_t *pool = pool_of(3);
    CHECK_OK(tine_pool_worker_pids(pool, pids, 5, &count));
    CHECK_INT(count, 3);
    for (int i = 0; i < 3; i++) CHECK(pids[i] > 1 && !is_gone(pids[i]) && pids[i] != pids[(i + 1) % 3]);
    CHECK(pids[3] == -7 && pids[4] == -7);
    count = 77;
    CHECK_OK(tine_pool_worker_pids(pool, few, 2, &count));
    CHECK_INT(count, 3); /* all of them, whatever the room */
    CHECK(few[0] == pids[0] && few[1] == pids[1] && few[2] == -7);
    count = 77;
    CHECK_OK(tine_pool_worker_pids(pool, NULL, 0, &count));
    CHECK_INT(count, 3);
    CHECK_OK(tine_pool_worker_pids(pool, few, 0, NULL));
    CHECK_OK(tine_pool_worker_pids(pool, few, 3, NULL));
    CHECK_INT(few[2], pids[2]);
    end_pool(pool);
}

TEST(stats_fill_what_the_struct_has) {
    struct { tine_pool_stats_t known; uint64_t newer; } stats = { TINE_POOL_STATS_INIT, 0 };
    const int way = BY_KILL;
    tine_pool_t *pool = pool_of(2);
    check_works(pool);
    tine_result_free(apply(pool, die, &way, sizeof way));
    await_workers(pool, 2);
    stats.known.size = 0;
    CHECK_STATUS(tine_pool_stats(pool, &stats.known), TINE_EINVAL);
    memset(&stats, 0x77, sizeof stats);
    stats.known.size = offsetof(tine_pool_stats_t, idle);
    CHECK_OK(tine_pool_stats(pool, &stats.known));
    CHECK_INT(stats.known.workers, 2);
    CHECK_INT(stats.known.idle, 0x7777777777777777);
    stats.known.size = sizeof stats;
    CHECK_OK(tine_pool_stats(pool, &stats.known));
    CHECK_INT(stats.known.done, 10);
    CHECK_INT(stats.known.failed, 1);
    CHECK_INT(stats.known.worker_deaths, 1);
    end_pool(pool);
}

TEST(a_success_has_no_death_to_tell) {
    tine_exit_info_t info = TINE_EXIT_INFO_INIT;
    const int five = 5;
    tine_pool_t *pool = pool_of(1);
    tine_result_t *result = apply(pool, square, &five, sizeof five);
    const tine_status_t status = tine_result_exit_info(result, &info);
    CHECK(status < 0 || info.valid == 0); /* its worker lives */
    CHECK_INT(info.signal, 0);
    tine_result_free(result);
    end_pool(pool);
}

/* ---- Time runs out ---- */
TEST(an_apply_that_runs_out_of_time_abandons_its_task) {
    tine_result_t *result = NULL;
    share();
    tine_pool_t *pool = pool_of(1);
    tine_async_t *running = submit(pool, wait_at_gate, NULL, 0);
    await(&shared->started, 1);
    CHECK_STATUS(tine_pool_apply(pool, count_run, NULL, 0, 0, &result), TINE_ETIMEDOUT); /* every worker is busy */
    int64_t start = now_us();
    CHECK_STATUS(tine_pool_apply(pool, count_run, NULL, 0, 30, &result), TINE_ETIMEDOUT);
    CHECK(now_us() - start >= 30000);
    CHECK_MESSAGE("pool");
    CHECK(result == NULL);
    set(&shared->gate, 1);
    CHECK_STATUS(end_of(running), TINE_OK);
    set(&shared->gate, 0);
    start = now_us();
    CHECK_STATUS(tine_pool_apply(pool, wait_at_gate, NULL, 0, 30, &result), TINE_ETIMEDOUT); /* this one runs */
    CHECK(now_us() - start >= 30000);
    await(&shared->started, 2);
    set(&shared->gate, 1);
    check_works(pool);
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    CHECK_INT(shared->ended, 4); /* "goes on, result dropped" */
    const tine_pool_stats_t stats = stats_of(pool);
    CHECK_INT(stats.queued + stats.running, 0);
    tine_pool_free(pool);
}

static int32_t reply_large(const void *arg, size_t len, tine_task_t *task) {
    static char block[4 * MIB];
    (void)arg, (void)len;
    return tine_task_reply(task, block, sizeof block);
}
TEST(results_that_nobody_waits_for_are_freed) {
    if (under_asan()) SKIP("it keeps what was freed");
    tine_pool_t *pool = pool_of(2);
    for (int i = 0; i < 5; i++) (void)!tine_pool_apply(pool, reply_large, NULL, 0, 0, NULL);
    check_works(pool);
    malloc_trim(0); /* what the allocator keeps for later is not meant */
    const long resident = atol(field_of(getpid(), "VmRSS:"));
    for (int i = 0; i < 60; i++) {
        const tine_status_t status = tine_pool_apply(pool, reply_large, NULL, 0, i % 3, NULL);
        CHECK(status == TINE_OK || status == TINE_ETIMEDOUT);
        tine_async_free(submit(pool, reply_large, NULL, 0));
    }
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    malloc_trim(0);
    CHECK(atol(field_of(getpid(), "VmRSS:")) < resident + 20 * KIB); /* 480 MiB went by */
    tine_pool_free(pool);
}

/* ---- Forked children ---- */
static struct { tine_pool_t *pool; tine_async_t *pending, *ready; tine_result_t *result; } inherited;
static void be_child(void) {
    tine_pool_t *const pool = inherited.pool;
    tine_pool_stats_t stats = TINE_POOL_STATS_INIT;
    tine_async_t *async = NULL;
    tine_result_t *result = NULL;
    tine_pool_t *own = NULL;
    int32_t pids[8];
    size_t count = 0;
    CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, &async), TINE_EFORKED);
    CHECK_MESSAGE("pool");
    CHECK_STATUS(tine_pool_apply(pool, do_nothing, NULL, 0, TINE_FOREVER, &result), TINE_EFORKED);
    CHECK_STATUS(tine_pool_map(pool, do_nothing, NULL, 0, 3, 0, NULL, 0, TINE_FOREVER, NULL), TINE_EFORKED);
    CHECK_STATUS(tine_pool_close(pool), TINE_EFORKED);
    CHECK_STATUS(tine_pool_terminate(pool, 0, NULL), TINE_EFORKED);
    CHECK_STATUS(tine_pool_join(pool, TINE_FOREVER), TINE_EFORKED);
    CHECK_STATUS(tine_pool_stats(pool, &stats), TINE_EFORKED);
    CHECK_STATUS(tine_pool_worker_pids(pool, pids, 8, &count), TINE_EFORKED);
    CHECK_INT(tine_pool_fd(pool), -1);
    CHECK_STATUS(tine_async_wait(inherited.pending, TINE_FOREVER), TINE_EFORKED);
    CHECK_STATUS(tine_async_get(inherited.pending, TINE_FOREVER, NULL), TINE_EFORKED);
    CHECK(!tine_async_ready(inherited.pending) && !tine_async_successful(inherited.pending));
    CHECK_STATUS(tine_async_cancel(inherited.pending), TINE_EFORKED);
    const tine_status_t status = tine_async_get(inherited.ready, 0, NULL); /* a copy of what had come; or as inert as the rest */
    CHECK(status == TINE_OK || status == TINE_EFORKED);
    CHECK_INT(number_of(inherited.result), 49); /* plain memory */
    CHECK(async == NULL && result == NULL);
    tine_async_free(inherited.pending), tine_async_free(inherited.ready), tine_result_free(inherited.result);
    tine_pool_free(pool);
    own = pool_of(1); /* and it may have one of its own */
    check_works(own);
    end_pool(own);
}
static int32_t be_process(void *unused) { return (void)unused, be_child(), 0; }
TEST(a_pool_is_inert_in_a_forked_child_and_goes_on_in_its_host) {
    const int seven = 7;
    share();
    tine_pool_t *pool = inherited.pool = pool_of(2);
    inherited.pending = submit(pool, wait_at_gate, NULL, 0);
    inherited.ready = submit(pool, square, &seven, sizeof seven);
    CHECK_OK(tine_async_wait(inherited.ready, TINE_FOREVER));
    inherited.result = apply(pool, square, &seven, sizeof seven);
    await(&shared->started, 1);
    const pid_t pids[] = { worker_of(pool, 0), worker_of(pool, 1) };
    for (int i = 0; i < 5; i++) {
        tine_process_t *process = NULL;
        int32_t code = 0;
        pid_t pid = 1;
        if (i == 4) {
            CHECK_OK(tine_process_start(be_process, NULL, NULL, &process));
            CHECK_OK(tine_process_join(process, TINE_FOREVER));
            CHECK_OK(tine_process_exit_code(process, &code));
            CHECK_INT(code, 0);
            tine_process_free(process);
        } else {
            fflush(stdout);
            pid = i % 2 == 0 ? fork() : tine_fork();
            CHECK(pid >= 0);
            if (pid == 0) {
                if (i < 2) be_child(), exit(0); /* with all handlers of the library and the program */
                be_child(), _exit(0);
            }
            CHECK_INT(status_of(pid), 0);
        }
        check_works(pool);
        CHECK(!tine_async_ready(inherited.pending));
        CHECK(worker_of(pool, 0) == pids[0] && worker_of(pool, 1) == pids[1]);
    }
    const pid_t pid = fork(); /* one that outlives the pool and uses nothing */
    int go[2];
    make_pipe(go);
    if (pid == 0) pause(), _exit(0);
    set(&shared->gate, 1);
    CHECK_STATUS(end_of(inherited.pending), TINE_OK);
    tine_async_free(inherited.ready), tine_result_free(inherited.result);
    const pid_t nursery = nursery_of(pool);
    end_pool(pool);
    CHECK(await_gone(nursery, 10)); /* the child holds copies of whatever the host held */
    CHECK_INT(kill(pid, SIGKILL), 0);
    CHECK_INT(status_of(pid), SIGKILL);
}

static void *fork_in_thread(void *unused) {
    for (int i = 0; i < 30; i++) {
        const pid_t pid = fork();
        if (pid == 0) tine_pool_free(inherited.pool), _exit(0);
        CHECK(pid > 0);
        CHECK_INT(status_of(pid), 0);
    }
    return unused;
}
TEST(forks_in_the_middle_of_work_disturb_nothing) {
    pthread_t thread;
    inherited.pool = pool_of(2);
    CHECK_INT(pthread_create(&thread, NULL, fork_in_thread, NULL), 0);
    for (int i = 0; i < 60; i++) check_works(inherited.pool);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK_INT(stats_of(inherited.pool).worker_deaths, 0);
    end_pool(inherited.pool);
}

/* ---- Limits ---- */
struct before { int fds, memfds, children; pid_t session; };
static struct before look(void) {
    struct before before = { test_count_fds(), test_count_mappings("memfd:"), test_count_children(), getsid(0) };
    return before;
}
static void check_unchanged(struct before before) {
    const int64_t end = now_us() + 10000000;
    CHECK_INT(test_count_fds(), before.fds);
    CHECK_INT(test_count_mappings("memfd:"), before.memfds);
    while (processes_of_session(before.session) > 1 && now_us() < end) poll(NULL, 0, 2);
    CHECK_INT(processes_of_session(before.session), 1);
    while (waitpid(-1, NULL, WNOHANG) > 0) {} /* of a subreaper only */
    CHECK_INT(test_count_children(), before.children);
}
static tine_pool_options_t of_three(void) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    options.workers = 3;
    return options;
}
static void set_soft_limit(int what, rlim_t soft) {
    struct rlimit limit;
    CHECK_INT(getrlimit(what, &limit), 0);
    limit.rlim_cur = soft < limit.rlim_max ? soft : limit.rlim_max;
    CHECK_INT(setrlimit(what, &limit), 0);
}

TEST_WITHIN(a_limit_on_processes_leaves_nothing_half_made, 60) {
    if (under_valgrind()) SKIP("valgrind itself needs them");
    const tine_pool_options_t options = of_three();
    int failures = 0, successes = 0;
    CHECK_INT(setsid(), getpid());
    if (getuid() != 0 || setgroups(0, NULL) != 0 || setgid(61358) != 0 || setuid(61358) != 0) SKIP("needs root, to become a user with a limit");
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); /* a zombie counts as well: the runner would not take them before the end */
    tine_pool_t *pool = pool_of(1); /* what is made once */
    end_pool(pool);
    while (waitpid(-1, NULL, WNOHANG) > 0) {}
    const struct before before = look();
    for (rlim_t limit = 0; limit < 14; limit++) { /* this process is one of them; a thread counts as well */
        pool = NULL;
        set_soft_limit(RLIMIT_NPROC, limit);
        const tine_status_t status = tine_pool_new(&options, &pool);
        if (status == TINE_OK) {
            check_works(pool);
            end_pool(pool);
            successes++;
        } else {
            CHECK(status == TINE_EAGAIN || status == TINE_ENOMEM);
            CHECK_MESSAGE("pool");
            CHECK(pool == NULL);
            failures++;
        }
        set_soft_limit(RLIMIT_NPROC, RLIM_INFINITY);
        check_unchanged(before);
    }
    CHECK(failures >= 3 && successes >= 1);
    printf("# %d limits refused, %d were enough\n", failures, successes);
}

TEST_WITHIN(a_limit_on_descriptors_leaves_nothing_half_made, 60) {
    if (under_valgrind()) SKIP("valgrind itself needs them");
    const tine_pool_options_t options = of_three();
    int failures = 0, successes = 0;
    CHECK_INT(setsid(), getpid());
    tine_pool_t *pool = pool_of(1);
    end_pool(pool);
    const struct before before = look();
    for (rlim_t limit = 3; limit < 60; limit++) {
        pool = NULL;
        set_soft_limit(RLIMIT_NOFILE, limit);
        const tine_status_t status = tine_pool_new(&options, &pool);
        if (status == TINE_OK) check_works(pool);
        set_soft_limit(RLIMIT_NOFILE, 1024);
        if (status == TINE_OK) {
            end_pool(pool);
            successes++;
        } else {
            CHECK_STATUS(status, TINE_EMFILE);
            CHECK(pool == NULL);
            failures++;
        }
        check_unchanged(before);
    }
    CHECK(failures >= 1 && successes >= 1);
    printf("# %d limits refused, %d were enough\n", failures, successes);
}

static int32_t reply_4_mib(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len;
    char *block = calloc(4, MIB);
    const tine_status_t status = block == NULL ? TINE_ENOMEM : tine_task_reply(task, block, 4 * MIB);
    free(block);
    return status;
}
TEST_WITHIN(a_limit_on_file_sizes_is_a_status_and_no_signal, 60) {
    static char large[4 * MIB];
    const tine_pool_options_t options = of_three();
    CHECK_INT(setsid(), getpid());
    tine_pool_t *pool = pool_of(1);
    end_pool(pool);
    const struct before before = look();
    for (rlim_t limit = 0; limit <= 64 * MIB; limit = limit == 0 ? 1 : limit * 4) {
        set_soft_limit(RLIMIT_FSIZE, limit);
        pool = NULL;
        tine_status_t status = tine_pool_new(&options, &pool);
        if (status == TINE_OK) {
            tine_result_t *result = NULL;
            status = tine_pool_apply(pool, do_nothing, large, sizeof large, TINE_FOREVER, NULL);
            CHECK(status == TINE_OK || status == TINE_ENOSPC);
            status = tine_pool_apply(pool, reply_4_mib, NULL, 0, TINE_FOREVER, &result);
            CHECK(status == TINE_OK || status == TINE_ENOSPC);
            if (status == TINE_OK) {
                status = tine_result_status(result);
                CHECK(status == TINE_OK || (status == TINE_ETASKFAILED && tine_result_code(result) == TINE_ENOSPC));
                tine_result_free(result);
            }
            CHECK_INT(stats_of(pool).worker_deaths, 0);
            end_pool(pool);
        } else {
            CHECK_STATUS(status, TINE_ENOSPC);
            CHECK(limit < 64 * MIB);
        }
        set_soft_limit(RLIMIT_FSIZE, RLIM_INFINITY);
        check_unchanged(before);
    }
}

TEST(a_pool_that_could_run_no_task_is_not_made) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_pool_t *pool = NULL;
    options.workers = 1, options.name = "small";
    set_soft_limit(RLIMIT_FSIZE, MIB);
    for (options.flags = 0; options.flags <= TINE_POOL_THREADS; options.flags += TINE_POOL_THREADS) {
        CHECK_STATUS(tine_pool_new(&options, &pool), TINE_ENOSPC);
        CHECK_MESSAGE("pool \"small\": ");
        CHECK_MESSAGE("RLIMIT_FSIZE (1048576)");
    }
    options.flags = 0, options.max_pending = 64;
    pool = pool_with(&options);
    check_works(pool);
    end_pool(pool);
}

TEST(a_long_name_leaves_room_for_the_reason) {
    static const char *const letters[] = { "x", "\xc3\xa9" }; /* of one byte, and of two */
    for (int i = 0; i < 2; i++) {
        char name[3000] = "a", text[1000];
        tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
        for (int n = 0; n < 1000; n++) strcat(name, letters[i]);
        options.workers = 1, options.name = name;
        tine_pool_t *pool = pool_with(&options);
        CHECK_OK(tine_pool_close(pool));
        CHECK_STATUS(tine_pool_apply(pool, do_nothing, NULL, 0, TINE_FOREVER, NULL), TINE_ECLOSED);
        CHECK(tine_last_error_copy(text, sizeof text) < 512);
        CHECK(strncmp(text, "pool \"a", 7) == 0);
        CHECK_MESSAGE("\": it was closed");
        int first = 0, second = 0;
        for (const char *at = text; *at; at++) first += *at == letters[1][0], second += *at == letters[1][1];
        CHECK_INT(first, second); /* no letter is cut in two */
        CHECK(first == second && (i == 0 || first > 200));
        CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
        tine_pool_free(pool);
    }
}

TEST(messages_name_the_pool) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    const int items[2] = { 0 };
    share();
    options.workers = 1, options.name = "mine";
    tine_pool_t *pool = pool_with(&options);
    tine_async_t *async = submit(pool, wait_at_gate, NULL, 0);
    CHECK_STATUS(tine_pool_apply(pool, do_nothing, NULL, 0, 0, NULL), TINE_ETIMEDOUT);
    CHECK_MESSAGE("pool \"mine\": the task is not done in time");
    CHECK_STATUS(tine_pool_map(pool, square, items, sizeof *items, 2, 1, NULL, 4, 0, NULL), TINE_ETIMEDOUT);
    CHECK_MESSAGE("pool \"mine\": not all items were done in time");
    set(&shared->gate, 1);
    CHECK_STATUS(end_of(async), TINE_OK);
    CHECK_OK(tine_pool_terminate(pool, 0, NULL));
    CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL), TINE_ECLOSED);
    CHECK_MESSAGE("pool \"mine\": it has ended");
    CHECK_STATUS(tine_pool_trace(pool, "/dev/null"), TINE_ECLOSED);
    CHECK_MESSAGE("pool \"mine\": it has ended");
    tine_pool_free(pool);
}

static void count_delivery(const tine_result_t *result, void *user_data) { (void)result, (void)user_data, count_up(&shared->ended); }
/* Second attempts have an order of their own, which has no memory before the first of them. */
TEST(a_second_attempt_that_there_is_no_memory_for_is_a_death) {
    const int way = BY_KILL;
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    share();
    tine_pool_t *pool = pool_of(1);
    check_works(pool);
    options.max_attempts = 2;
    set_soft_limit(RLIMIT_FSIZE, 4 * KIB);
    tine_async_t *async = submit_with(pool, die, &way, sizeof way, &options);
    check_death(get(async), way);
    tine_async_free(async);
    set_soft_limit(RLIMIT_FSIZE, RLIM_INFINITY);
    CHECK_INT(stats_of(pool).worker_deaths, 1);
    /* Everything goes on, its thread for callbacks included. */
    check_works(pool);
    options.callback = count_delivery;
    CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &options, NULL));
    await(&shared->ended, 1);
    end_pool(pool);
}

TEST_WITHIN(a_lack_of_address_space_is_a_status, 60) {
    const tine_pool_options_t options = of_three();
    int failures = 0;
    if (under_asan() || under_valgrind()) SKIP("they need the address space themselves");
    CHECK_INT(setsid(), getpid());
    tine_pool_t *pool = pool_of(1);
    end_pool(pool);
    const struct before before = look();
    for (rlim_t more = MIB; more <= (rlim_t)4096 * MIB; more *= 2) {
        pool = NULL;
        set_soft_limit(RLIMIT_AS, (rlim_t)atol(field_of(getpid(), "VmSize:")) * KIB + more);
        const tine_status_t status = tine_pool_new(&options, &pool);
        set_soft_limit(RLIMIT_AS, RLIM_INFINITY);
        if (status == TINE_OK)
            end_pool(pool); /* what tasks can do there is their limit's affair */
        else {
            CHECK(status == TINE_ENOMEM || status == TINE_EAGAIN);
            CHECK(pool == NULL);
            failures++;
        }
        check_unchanged(before);
    }
    printf("# %d limits refused\n", failures);
}

TEST_WITHIN(a_lack_of_address_space_in_the_middle_is_a_status, 60) {
    static char large[64 * MIB];
    const size_t small = 8 * MIB;
    if (under_asan() || under_valgrind()) SKIP("they need the address space themselves");
    tine_pool_t *pool = pool_of(1);
    check_works(pool);
    for (int i = 0; i < 2; i++) {
        tine_async_t *async = NULL;
        if (i == 1) async = submit(pool, echo, large, sizeof large); /* its result has no room in the host */
        set_soft_limit(RLIMIT_AS, (rlim_t)atol(field_of(getpid(), "VmSize:")) * KIB + small);
        if (i == 0) {
            const tine_status_t status = tine_pool_submit(pool, do_nothing, large, sizeof large, NULL, &async);
            CHECK(status == TINE_OK || status == TINE_ENOMEM);
        } else {
            const tine_status_t status = tine_async_wait(async, TINE_FOREVER);
            CHECK(status == TINE_OK || status == TINE_ENOMEM);
        }
        set_soft_limit(RLIMIT_AS, RLIM_INFINITY);
        if (async != NULL) {
            size_t len = 0;
            const tine_result_t *result = get(async);
            const void *data = tine_result_data(result, &len);
            if (i == 1 && tine_result_status(result) == TINE_OK) CHECK(len == sizeof large && memcmp(data, large, len) == 0);
            tine_async_free(async);
        }
        check_works(pool);
    }
    end_pool(pool);
}

/* ---- Nothing is left ---- */
TEST_WITHIN(nothing_is_left_of_50_pools, 60) {
    const int way = BY_KILL;
    share();
    CHECK_INT(setsid(), getpid());
    struct before before = { 0, 0, 0, 0 };
    int mappings = 0;
    for (int i = 0; i < 55; i++) {
        if (i == 5) before = look(), mappings = test_count_mappings(NULL); /* what is made once and kept has been made */
        tine_pool_t *pool = pool_of(2);
        tine_async_t *async = submit(pool, do_nothing, NULL, 0);
        check_works(pool);
        if (i % 5 == 0) tine_result_free(apply(pool, die, &way, sizeof way));
        if (i % 3 == 0) {
            CHECK_OK(tine_pool_terminate(pool, i % 2 == 0 ? 0 : 1000, NULL));
            CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
            tine_pool_free(pool);
        } else if (i % 3 == 1)
            end_pool(pool);
        else
            tine_pool_free(pool);
        tine_async_free(async);
    }
    check_unchanged(before);
    if (!under_asan()) CHECK(test_count_mappings(NULL) <= mappings + 5); /* the allocator's; asan's grows with what was freed */
}

TEST(many_pools_live_at_once) {
    tine_pool_t *pools[10];
    for (int i = 0; i < 10; i++) pools[i] = pool_of(2);
    for (int i = 0; i < 10; i++) check_works(pools[i]);
    for (int i = 0; i < 10; i += 2) end_pool(pools[i]);
    for (int i = 1; i < 10; i += 2) check_works(pools[i]), tine_pool_free(pools[i]);
}
