/* Pools of threads: the same interface, in one process. */
#include "pool_tools.h"

static tine_pool_t *crew_with(uint32_t workers, uint32_t flags) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    options.workers = workers, options.flags = TINE_POOL_THREADS | flags;
    return pool_with(&options);
}
static tine_pool_t *crew_of(uint32_t workers) { return crew_with(workers, 0); }

static int counter; /* of this process */
static int32_t count_here(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len, (void)task;
    return __atomic_fetch_add(&counter, 1, __ATOMIC_SEQ_CST) < 0;
}
TEST(tasks_run_in_threads_of_this_process) {
    tine_pool_t *pool = crew_of(2);
    CHECK_INT(test_count_children(), 0);
    check_works(pool);
    for (int i = 0; i < 1000; i++) CHECK_OK(tine_pool_submit(pool, count_here, NULL, 0, NULL, NULL));
    tine_result_t *result = apply(pool, echo, "hello", 5);
    CHECK(tine_result_worker_pid(result) != getpid()); /* the thread's number */
    tine_result_free(result);
    end_pool(pool);
    CHECK_INT(counter, 1000);
    CHECK_INT(threads_of_host(), 1);
}

TEST(numbers_of_the_pool_are_those_of_its_threads) {
    int32_t tids[8];
    size_t count = 0;
    share();
    tine_pool_t *pool = crew_of(3);
    await_workers(pool, 3);
    CHECK_OK(tine_pool_worker_pids(pool, tids, 8, &count));
    CHECK_INT(count, 3);
    for (size_t i = 0; i < count; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/task/%d", tids[i]);
        CHECK(access(path, F_OK) == 0);
    }
    for (int i = 0; i < 5; i++) CHECK_OK(tine_pool_submit(pool, wait_at_gate, NULL, 0, NULL, NULL));
    await(&shared->started, 3);
    const tine_pool_stats_t stats = stats_of(pool);
    CHECK(stats.running == 3 && stats.queued == 2 && stats.idle == 0);
    set(&shared->gate, 1);
    end_pool(pool);
}

TEST(results_of_any_length_come_back) {
    static const size_t lengths[] = { 0, 1, 63, 64, 65, 8191, 8192, 8193, 70000, 3 * MIB };
    tine_pool_t *pool = crew_of(2);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        char *data = malloc(lengths[i] + 1);
        memset(data, (int)i + 1, lengths[i]);
        tine_result_t *result = apply(pool, echo, data, lengths[i]);
        size_t len = 0;
        const void *back = tine_result_data(result, &len);
        CHECK_INT(len, lengths[i]);
        CHECK(memcmp(back, data, len) == 0);
        tine_result_free(result);
        free(data);
    }
    end_pool(pool);
}

static int32_t odd_fails(const void *arg, size_t len, tine_task_t *task) {
    return number_in(arg, len) % 2 ? 7 : square(arg, len, task);
}
static void limit_address_space(rlim_t bytes) {
    struct rlimit limit;
    CHECK_INT(getrlimit(RLIMIT_AS, &limit), 0);
    limit.rlim_cur = bytes;
    CHECK_INT(setrlimit(RLIMIT_AS, &limit), 0);
}
static int32_t reply_and_leave_no_memory(const void *arg, size_t len, tine_task_t *task) {
    enum { MUCH = 80 * MIB }; /* more than an arena of libc's has */
    (void)arg, (void)len;
    char *much = mmap(NULL, MUCH, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(much != MAP_FAILED);
    const tine_status_t status = tine_task_reply(task, much, MUCH);
    munmap(much, MUCH);
    limit_address_space((rlim_t)atol(field_of(getpid(), "VmSize:")) * KIB + MIB);
    return status;
}
TEST(a_reply_that_there_is_no_memory_for_is_told) {
    if (under_asan() || under_valgrind()) SKIP("they need the address space themselves");
    tine_pool_t *pool = crew_of(1);
    tine_result_t *result = apply(pool, reply_and_leave_no_memory, NULL, 0);
    limit_address_space(RLIM_INFINITY);
    CHECK_STATUS(tine_result_status(result), TINE_ENOMEM);
    tine_result_free(result);
    check_works(pool);
    end_pool(pool);
}

TEST(maps_and_streams_work) {
    enum { COUNT = 1000 };
    static int items[COUNT], results[COUNT];
    size_t failed = 0;
    tine_pool_t *pool = crew_of(2);
    for (size_t chunk = 0; chunk < 60; chunk += 29) {
        for (int i = 0; i < COUNT; i++) items[i] = i, results[i] = -1;
        CHECK_OK(tine_pool_map(pool, square, items, sizeof *items, COUNT, chunk, results, sizeof *results, TINE_FOREVER, NULL));
        for (int i = 0; i < COUNT; i++) CHECK_INT(results[i], i * i);
        CHECK_STATUS(tine_pool_map(pool, odd_fails, items, 4, COUNT, chunk, results, 4, TINE_FOREVER, &failed), TINE_ETASKFAILED);
        CHECK_INT(failed, 1);
        for (int i = 0; i < COUNT; i++) CHECK_INT(results[i], i % 2 ? 0 : i * i);
        tine_async_t *async = NULL;
        CHECK_OK(tine_pool_map_async(pool, square, items, 4, COUNT, chunk, results, 4, NULL, &async));
        CHECK_STATUS(end_of(async), TINE_OK);
        for (int i = 0; i < COUNT; i++) CHECK_INT(results[i], i * i);
    }
    end_pool(pool);
}
static int given;
static tine_status_t next_number(void *user_data, tine_bytes_t *out_item) {
    if (given == *(int *)user_data) return TINE_EEOF;
    out_item->data = &given, out_item->len = sizeof given;
    given++;
    return TINE_OK;
}
TEST(streams_work) {
    int count = 200, sum = 0;
    for (uint32_t flags = 0; flags < 2; flags++) {
        tine_imap_options_t options = TINE_IMAP_OPTIONS_INIT;
        tine_stream_t *stream = NULL;
        tine_result_t *result = NULL;
        tine_pool_t *pool = crew_of(2);
        options.flags = flags, given = sum = 0;
        CHECK_OK(tine_pool_imap(pool, square, next_number, &count, &options, &stream));
        while (tine_stream_next(stream, TINE_FOREVER, &result) == TINE_OK) sum += number_of(result) > 0, tine_result_free(result);
        CHECK_INT(sum, count);
        tine_stream_free(stream);
        end_pool(pool);
    }
}

static int told;
static pthread_t told_on;
static void note(const tine_result_t *result, void *user_data) {
    (void)result, (void)user_data;
    told++, told_on = pthread_self();
}
TEST(callbacks_run_as_in_any_pool) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = options.error_callback = note;
    tine_pool_t *pool = crew_of(2);
    for (int i = 0; i < 500; i++) CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &options, NULL));
    end_pool(pool);
    CHECK_INT(told, 500);
    CHECK(!pthread_equal(told_on, pthread_self()));
    pool = crew_with(2, TINE_POOL_HOST_LOOP);
    for (int i = 0; i < 500; i++) CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &options, NULL));
    while (told < 1000) CHECK_OK(tine_pool_poll(pool, TINE_FOREVER, 0, NULL));
    CHECK(pthread_equal(told_on, pthread_self()));
    CHECK_OK(tine_pool_close(pool));
    while (tine_pool_poll(pool, TINE_FOREVER, 0, NULL) == TINE_OK) {}
    CHECK_STATUS(tine_pool_poll(pool, 0, 0, NULL), TINE_ECLOSED);
    tine_pool_free(pool);
}

static int32_t make_state(void *user_data, void **out_state) {
    count_up(&shared->inits);
    *out_state = user_data;
    return 0;
}
static void end_state(void *state, void *user_data) {
    if (state != user_data) shared->strays++;
    count_up(&shared->finals);
}
static int32_t check_state(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len;
    return tine_task_worker_state(task) != shared || tine_task_worker_index(task) > 2;
}
TEST(each_thread_runs_the_initializer_and_the_finalizer) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    share();
    options.workers = 3, options.flags = TINE_POOL_THREADS;
    options.initializer = make_state, options.finalizer = end_state, options.user_data = shared;
    tine_pool_t *pool = pool_with(&options);
    for (int i = 0; i < 50; i++) {
        tine_result_t *result = apply(pool, check_state, NULL, 0);
        CHECK_STATUS(tine_result_status(result), TINE_OK);
        tine_result_free(result);
    }
    end_pool(pool);
    CHECK_INT(shared->inits, 3);
    CHECK_INT(shared->finals, 3);
    CHECK_INT(shared->strays, 0);
    pool = pool_with(&options);
    tine_pool_free(pool); /* terminated: no finalizer */
    CHECK_INT(shared->finals, 3);
}
static int32_t refuse(void *user_data, void **out_state) { return (void)user_data, (void)out_state, 5; }
TEST(an_initializer_that_fails_breaks_the_pool) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_status_t status;
    options.workers = 2, options.flags = TINE_POOL_THREADS, options.initializer = refuse;
    tine_pool_t *pool = pool_with(&options);
    do {
        tine_result_t *result = NULL;
        status = tine_pool_apply(pool, do_nothing, NULL, 0, TINE_FOREVER, &result);
        if (status == TINE_OK) CHECK_STATUS(tine_result_status(result), TINE_ECANCELED);
        tine_result_free(result);
    } while (status == TINE_OK);
    CHECK_STATUS(status, TINE_EBROKEN);
    CHECK_MESSAGE("its initializer returned 5");
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    tine_pool_free(pool);
}

static int32_t wait_until_cancelled(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len;
    count_up(&shared->started);
    while (!tine_task_cancelled(task)) sched_yield();
    return 3;
}
TEST(terminate_tells_what_runs_and_waits_for_it) {
    uint32_t killed = 9;
    share();
    tine_pool_t *pool = crew_of(1);
    tine_async_t *stubborn = submit(pool, wait_at_gate, NULL, 0), *queued = submit(pool, do_nothing, NULL, 0);
    await(&shared->started, 1);
    CHECK_STATUS(tine_async_cancel(stubborn), TINE_ENOTSUP);
    CHECK_STATUS(tine_pool_terminate(pool, 10, &killed), TINE_ETIMEDOUT);
    CHECK_MESSAGE("threads cannot be killed");
    CHECK_STATUS(end_of(queued), TINE_ECANCELED);
    CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL), TINE_ECLOSED);
    set(&shared->gate, 1);
    CHECK_OK(tine_pool_terminate(pool, TINE_FOREVER, &killed));
    CHECK_INT(killed, 0);
    CHECK_STATUS(end_of(stubborn), TINE_OK);
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    tine_pool_free(pool);
    pool = crew_of(1);
    tine_async_t *willing = submit(pool, wait_until_cancelled, NULL, 0);
    await(&shared->started, 2);
    tine_pool_free(pool);
    CHECK_STATUS(tine_result_status(get(willing)), TINE_ETASKFAILED);
    tine_async_free(willing);
    CHECK_INT(threads_of_host(), 1);
}

TEST(terminate_without_grace_waits_for_threads_that_run_nothing) {
    for (int i = 0; i < 40; i++) {
        tine_pool_t *pool = crew_of(4);
        if (i % 2) check_works(pool);
        CHECK_OK(tine_pool_terminate(pool, 0, NULL));
        CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
        tine_pool_free(pool);
    }
}

TEST(a_soft_limit_is_told) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    share();
    tine_pool_t *pool = crew_of(1);
    options.soft_timeout_ms = 20;
    CHECK_STATUS(end_of(submit_with(pool, wait_until_cancelled, NULL, 0, &options)), TINE_ETASKFAILED);
    tine_async_t *gate = submit(pool, wait_at_gate, NULL, 0), *queued = submit(pool, do_nothing, NULL, 0);
    CHECK_OK(tine_async_cancel(queued)); /* it waits: that needs no process */
    CHECK_STATUS(end_of(queued), TINE_ECANCELED);
    set(&shared->gate, 1);
    CHECK_STATUS(end_of(gate), TINE_OK);
    end_pool(pool);
}

static tine_pool_t *used;
static int32_t join_inside(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len, (void)task;
    CHECK_OK(tine_pool_submit(used, count_here, NULL, 0, NULL, NULL)); /* a task may hand over more */
    CHECK_OK(tine_pool_close(used));
    return tine_pool_join(used, TINE_FOREVER) == TINE_EBUSY ? 0 : 1;
}
TEST(a_task_does_not_wait_for_itself) {
    used = crew_of(2);
    CHECK_STATUS(end_of(submit(used, join_inside, NULL, 0)), TINE_OK);
    CHECK_OK(tine_pool_join(used, TINE_FOREVER));
    CHECK_INT(counter, 1);
    tine_pool_free(used);
}

static void note_and_free(const tine_result_t *result, void *user_data) {
    note(result, user_data);
    tine_pool_free(used);
}
TEST(a_callback_in_the_hosts_loop_frees_a_pool_whose_threads_are_busy) {
    const int fds = test_count_fds();
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    share();
    used = crew_with(2, TINE_POOL_HOST_LOOP);
    options.callback = options.error_callback = note;
    tine_async_t *busy = submit_with(used, wait_until_cancelled, NULL, 0, &options);
    await(&shared->started, 1);
    options.callback = note_and_free;
    CHECK_OK(tine_pool_submit(used, do_nothing, NULL, 0, &options, NULL));
    CHECK_OK(tine_pool_poll(used, TINE_FOREVER, 0, NULL));
    CHECK_INT(told, 2);
    CHECK_STATUS(end_of(busy), TINE_ETASKFAILED);
    CHECK_INT(threads_of_host(), 1);
    CHECK_INT(test_count_fds(), fds);
}

TEST(what_needs_a_process_is_told) {
    tine_pool_t *pool = NULL;
    const tine_pool_options_t asked[] = {
        { .size = sizeof *asked, .flags = TINE_POOL_THREADS, .memory_limit_bytes = 1 << 20 },
        { .size = sizeof *asked, .flags = TINE_POOL_THREADS, .max_tasks_per_worker = 3 },
        { .size = sizeof *asked, .flags = TINE_POOL_THREADS, .stderr_tail_bytes = 3 },
        { .size = sizeof *asked, .flags = TINE_POOL_THREADS | TINE_POOL_NO_CORE },
        { .size = sizeof *asked, .flags = TINE_POOL_THREADS | TINE_POOL_KEEP_SIGNALS },
        { .size = sizeof *asked, .flags = TINE_POOL_THREADS | TINE_POOL_BREAK_ON_DEATH },
    };
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) CHECK_STATUS(tine_pool_new(&asked[i], &pool), TINE_ENOTSUP);
    CHECK(pool == NULL);
    pool = crew_with(1, TINE_POOL_SINGLE_THREAD_ONLY | TINE_POOL_INHERIT_ALL_FDS);
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.timeout_ms = 10;
    CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 0, &options, NULL), TINE_ENOTSUP);
    CHECK_STATUS(tine_pool_resize(pool, 2), TINE_ENOTSUP);
    CHECK_STATUS(tine_pool_apply(pool, function_at(&told), NULL, 0, TINE_FOREVER, NULL), TINE_EINVAL);
    check_works(pool);
    end_pool(pool);
}

TEST(a_forked_child_has_no_threads_of_its_parent) {
    tine_pool_t *pool = crew_of(2);
    check_works(pool);
    const pid_t child = fork();
    if (child == 0) {
        CHECK_STATUS(tine_pool_apply(pool, do_nothing, NULL, 0, TINE_FOREVER, NULL), TINE_EFORKED);
        CHECK_STATUS(tine_pool_terminate(pool, 0, NULL), TINE_EFORKED);
        tine_pool_free(pool);
        _exit(0);
    }
    CHECK_INT(status_of(child), 0);
    check_works(pool);
    end_pool(pool);
}

TEST(nothing_is_left_of_a_pool_of_threads) {
    const int fds = test_count_fds(), mappings = test_count_mappings("tine-pool");
    for (int i = 0; i < 20; i++) {
        tine_pool_t *pool = crew_of(4);
        for (int n = 0; n < 50; n++) CHECK_OK(tine_pool_submit(pool, square, &n, sizeof n, NULL, NULL));
        if (i % 2) end_pool(pool);
        else tine_pool_free(pool);
        CHECK_INT(threads_of_host(), 1);
    }
    CHECK_INT(test_count_fds(), fds);
    CHECK_INT(test_count_mappings("tine-pool"), mappings);
}
