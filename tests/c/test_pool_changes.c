/* Workers that leave after some tasks, and pools that grow and shrink. */
#include <poll.h>
#include "pool_tools.h"

static int32_t begin(void *user_data, void **out_state) {
    (void)out_state;
    if (user_data != NULL) await(&shared->gate, 1);
    count_up(&shared->inits);
    return 0;
}
static void end(void *state, void *user_data) {
    (void)state, (void)user_data;
    const int before = count_up(&shared->finals);
    if (value_of(&shared->inits) < before + 2) count_up(&shared->strays); /* this one, and who works in its stead */
}
static tine_pool_t *pool_of_leaving(uint32_t workers, uint32_t max_tasks, void *user_data) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    options.workers = workers, options.max_tasks_per_worker = max_tasks;
    options.initializer = begin, options.finalizer = end, options.user_data = user_data;
    return pool_with(&options);
}
static int32_t count_own_run(const void *arg, size_t len, tine_task_t *task) {
    const int number = number_in(arg, len);
    count_up(&shared->slots[number]);
    return tine_task_reply(task, &number, sizeof number);
}

/* ---- Workers that leave after some tasks ---- */
TEST(another_worker_is_ready_before_one_leaves) {
    enum { TASKS = 12 };
    share();
    tine_pool_t *pool = pool_of_leaving(1, 1, NULL);
    pid_t last = 0;
    for (int i = 0; i < TASKS; i++) {
        tine_result_t *result = apply(pool, square, &i, sizeof i);
        CHECK_INT(number_of(result), i * i);
        CHECK(tine_result_worker_pid(result) != last);
        last = tine_result_worker_pid(result);
        tine_result_free(result);
    }
    await(&shared->finals, TASKS - 2); /* those before the last one are gone or go */
    CHECK_INT(shared->strays, 0);
    CHECK_INT(stats_of(pool).worker_deaths, 0);
    CHECK(stats_of(pool).restarts >= TASKS - 1);
    end_pool(pool);
}

TEST_WITHIN(workers_that_leave_lose_no_task, 60) {
    enum { TASKS = 600 };
    tine_async_t *asyncs[TASKS];
    share();
    tine_pool_t *pool = pool_of_leaving(4, 7, NULL);
    for (int i = 0; i < TASKS; i++) asyncs[i] = submit(pool, count_own_run, &i, sizeof i);
    for (int i = 0; i < TASKS; i++) CHECK_STATUS(end_of(asyncs[i]), TINE_OK);
    for (int i = 0; i < TASKS; i++) CHECK_INT(shared->slots[i], 1);
    end_pool(pool);
    CHECK(shared->finals >= TASKS / 7);
}

TEST(a_pool_is_closed_while_a_worker_waits_for_another) {
    share();
    static int gate_in_initializer;
    tine_pool_t *pool = pool_of_leaving(1, 1, &gate_in_initializer);
    set(&shared->gate, 1);
    const int three = 3;
    tine_result_free(apply(pool, square, &three, sizeof three));
    await(&shared->inits, 2);
    set(&shared->gate, 0);
    tine_result_free(apply(pool, square, &three, sizeof three)); /* the next one may be stuck in its initializer */
    CHECK_OK(tine_pool_close(pool));
    set(&shared->gate, 1);
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    tine_pool_free(pool);
}

TEST(a_pool_is_terminated_while_workers_wait_for_others) {
    share();
    static int gate_in_initializer;
    set(&shared->gate, 1);
    tine_pool_t *pool = pool_of_leaving(2, 1, &gate_in_initializer);
    await(&shared->inits, 3);
    set(&shared->gate, 0);
    for (int i = 0; i < 3; i++) tine_result_free(apply(pool, do_nothing, NULL, 0));
    tine_async_t *queued = submit(pool, do_nothing, NULL, 0);
    CHECK_STATUS(tine_async_wait(queued, 50), TINE_ETIMEDOUT); /* nobody is ready */
    CHECK_OK(tine_pool_terminate(pool, 0, NULL));
    CHECK_STATUS(end_of(queued), TINE_ECANCELED);
    tine_pool_free(pool);
}

static void die_at_the_end(void *state, void *user_data) { (void)state, (void)user_data, raise(SIGKILL); }
TEST(a_finalizer_that_ends_its_worker_harms_no_task) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    share();
    options.workers = 2, options.max_tasks_per_worker = 2, options.finalizer = die_at_the_end, options.crash_budget = 1000;
    tine_pool_t *pool = pool_with(&options);
    for (int i = 0; i < 20; i++) {
        tine_result_t *result = apply(pool, square, &i, sizeof i);
        CHECK_STATUS(tine_result_status(result), TINE_OK);
        tine_result_free(result);
    }
    CHECK_OK(tine_pool_terminate(pool, 0, NULL));
    tine_pool_free(pool);
}

/* ---- Growing and shrinking ---- */
/* Until there are so many, and those that are too many are gone: one that looks for a task while it is told may take it first. */
static void resize(tine_pool_t *pool, uint32_t workers) {
    int32_t before[100], after[100];
    size_t had = 0, has = 0;
    CHECK_OK(tine_pool_worker_pids(pool, before, 100, &had));
    CHECK_OK(tine_pool_resize(pool, workers));
    await_workers(pool, workers);
    CHECK_OK(tine_pool_worker_pids(pool, after, 100, &has));
    for (size_t i = 0; i < had; i++) {
        int stays = 0;
        for (size_t k = 0; k < has; k++) stays |= after[k] == before[i];
        if (!stays) CHECK(await_gone(before[i], 10));
    }
}
static void check_at_once(tine_pool_t *pool, int count) { /* so many tasks run at the same time */
    tine_async_t *asyncs[100];
    set(&shared->gate, 0), set(&shared->started, 0);
    for (int i = 0; i < count; i++) asyncs[i] = submit(pool, wait_at_gate, NULL, 0);
    await(&shared->started, count);
    tine_async_t *more = submit(pool, do_nothing, NULL, 0);
    CHECK_STATUS(tine_async_wait(more, 20), TINE_ETIMEDOUT); /* and no more */
    set(&shared->gate, 1);
    for (int i = 0; i < count; i++) CHECK_STATUS(end_of(asyncs[i]), TINE_OK);
    CHECK_STATUS(end_of(more), TINE_OK);
}
TEST(a_pool_grows_and_shrinks) {
    share();
    tine_pool_t *pool = pool_of(2);
    const uint32_t sizes[] = { 5, 1, 3, 3, 8, 2 };
    for (int i = 0; i < 6; i++) {
        resize(pool, sizes[i]);
        check_at_once(pool, (int)sizes[i]);
    }
    CHECK_INT(stats_of(pool).worker_deaths, 0);
    CHECK_INT(stats_of(pool).restarts, 0); /* nobody took the place of another */
    tine_result_free(apply(pool, die, (const int[]){ BY_KILL }, sizeof(int)));
    while (stats_of(pool).restarts != 1) sched_yield();
    end_pool(pool);
}

TEST(a_pool_grows_beyond_what_it_began_with) {
    if (under_valgrind()) SKIP("it takes minutes");
    share();
    tine_pool_t *pool = pool_of(1);
    resize(pool, 80);
    check_at_once(pool, 80);
    const int way = BY_SEGV;
    for (int i = 0; i < 10; i++) tine_result_free(apply(pool, die, &way, sizeof way));
    await_workers(pool, 80);
    resize(pool, 1);
    check_at_once(pool, 1);
    end_pool(pool);
}

TEST(a_pool_grows_after_its_nursery_did_not_hear_of_it) {
    share();
    tine_pool_t *pool = pool_of(1);
    const pid_t nursery = nursery_of(pool);
    deafen(nursery);
    CHECK_STATUS(tine_pool_resize(pool, 4), TINE_EBROKEN);
    CHECK_MESSAGE("does not answer");
    CHECK_INT(kill(nursery, SIGCONT), 0);
    resize(pool, 4);
    check_at_once(pool, 4);
    end_pool(pool);
}

TEST(a_pool_that_shrinks_lets_tasks_end) {
    tine_async_t *asyncs[4];
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    share();
    options.workers = 4, options.finalizer = end;
    tine_pool_t *pool = pool_with(&options);
    for (int i = 0; i < 4; i++) asyncs[i] = submit(pool, wait_at_gate, NULL, 0);
    await(&shared->started, 4);
    CHECK_OK(tine_pool_resize(pool, 1));
    await_workers(pool, 1);
    CHECK_INT(shared->finals, 0);
    set(&shared->gate, 1);
    for (int i = 0; i < 4; i++) CHECK_STATUS(end_of(asyncs[i]), TINE_OK);
    await(&shared->finals, 3);
    check_works(pool);
    CHECK_INT(stats_of(pool).worker_deaths, 0);
    end_pool(pool);
}

TEST_WITHIN(a_pool_that_changes_all_the_time_loses_no_task, 60) {
    enum { TASKS = 1000 };
    tine_async_t *asyncs[TASKS];
    share();
    tine_pool_t *pool = pool_of_leaving(3, 20, NULL);
    for (int i = 0; i < TASKS; i++) {
        asyncs[i] = submit(pool, count_own_run, &i, sizeof i);
        if (i % 10 == 0) CHECK_OK(tine_pool_resize(pool, 1 + (uint32_t)(i / 10) * 7 % 5));
    }
    for (int i = 0; i < TASKS; i++) CHECK_STATUS(end_of(asyncs[i]), TINE_OK);
    for (int i = 0; i < TASKS; i++) CHECK_INT(shared->slots[i], 1);
    CHECK_OK(tine_pool_resize(pool, 2));
    await_workers(pool, 2);
    CHECK_INT(stats_of(pool).worker_deaths, 0);
    end_pool(pool);
}

static void resize_in_callback(const tine_result_t *result, void *pool) {
    (void)result;
    CHECK_OK(tine_pool_resize(pool, 4));
}
TEST(a_callback_may_resize_its_pool) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    share();
    tine_pool_t *pool = pool_of(1);
    options.callback = resize_in_callback, options.user_data = pool;
    CHECK_STATUS(end_of(submit_with(pool, do_nothing, NULL, 0, &options)), TINE_OK);
    await_workers(pool, 4);
    end_pool(pool);
}

TEST(sizes_that_are_none_are_refused) {
    tine_pool_t *pool = pool_of(1);
    CHECK_STATUS(tine_pool_resize(NULL, 1), TINE_EINVAL);
    CHECK_STATUS(tine_pool_resize(pool, 0), TINE_EINVAL);
    CHECK_MESSAGE("workers");
    CHECK_STATUS(tine_pool_resize(pool, 1025), TINE_EINVAL);
    CHECK_STATUS(tine_pool_resize(pool, UINT32_MAX), TINE_EINVAL);
    check_works(pool);
    CHECK_OK(tine_pool_close(pool));
    CHECK_STATUS(tine_pool_resize(pool, 2), TINE_ECLOSED);
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    tine_pool_free(pool);
}
