/* Work in pools: results, callbacks, order, deaths, scale. What a careful user relies on, seen from outside. */
#include <sys/resource.h>
#include "pool_tools.h"

/* ---- apply, submit, async ---- */
TEST(apply_gives_the_result_of_the_function) {
    tine_pool_t *pool = pool_of(2);
    uint64_t last_id = 0;
    for (int i = -200; i < 200; i++) {
        tine_result_t *result = apply(pool, square, &i, sizeof i);
        CHECK_STATUS(tine_result_status(result), TINE_OK);
        CHECK_INT(tine_result_code(result), 0);
        CHECK_INT(number_of(result), i * i);
        const pid_t pid = tine_result_worker_pid(result);
        CHECK(pid == worker_of(pool, 0) || pid == worker_of(pool, 1));
        CHECK(pid != getpid());
        CHECK(tine_result_task_id(result) != 0 && tine_result_task_id(result) != last_id);
        last_id = tine_result_task_id(result);
        tine_result_free(result);
    }
    CHECK_OK(tine_pool_apply(pool, do_nothing, NULL, 0, TINE_FOREVER, NULL)); /* an output that nobody wants */
    end_pool(pool);
}

TEST(defaults_make_a_pool_of_all_processors) {
    tine_pool_t *pool = pool_with(NULL);
    CHECK_INT(stats_of(pool).workers, tine_cpu_count());
    check_works(pool);
    end_pool(pool);
}

static int32_t reply_and_return(const void *arg, size_t len, tine_task_t *task) {
    CHECK_OK(tine_task_reply(task, "partial", 7));
    return number_in(arg, len);
}
TEST(a_function_that_fails_tells_its_code_and_what_it_replied) {
    static const int codes[] = { 1, -1, 5, 255, 256, 1000, INT32_MAX, INT32_MIN };
    tine_pool_t *pool = pool_of(1);
    const pid_t pid = worker_of(pool, 0);
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        size_t len = 0;
        tine_result_t *result = apply(pool, reply_and_return, &codes[i], sizeof codes[i]);
        CHECK_STATUS(tine_result_status(result), TINE_ETASKFAILED);
        CHECK_INT(tine_result_code(result), codes[i]);
        const void *data = tine_result_data(result, &len);
        CHECK_INT(len, 7);
        CHECK(memcmp(data, "partial", 7) == 0);
        CHECK_INT(tine_result_worker_pid(result), pid); /* the worker goes on */
        tine_result_free(result);
    }
    end_pool(pool);
}

TEST(submit_and_get_give_each_its_own_result) {
    enum { COUNT = 300 };
    tine_async_t *asyncs[COUNT];
    tine_pool_t *pool = pool_of(2);
    for (int i = 0; i < COUNT; i++) asyncs[i] = submit(pool, square, &i, sizeof i);
    for (int i = COUNT - 1; i >= 0; i--) {
        CHECK_OK(tine_async_wait(asyncs[i], TINE_FOREVER));
        CHECK(tine_async_ready(asyncs[i]) && tine_async_successful(asyncs[i]));
        const tine_result_t *result = get(asyncs[i]);
        CHECK_INT(number_of(result), i * i);
        CHECK(get(asyncs[i]) == result); /* any number of times */
        CHECK_OK(tine_async_get(asyncs[i], 0, NULL));
        tine_async_free(asyncs[i]);
    }
    end_pool(pool);
}

TEST(an_async_is_not_ready_before_its_task_has_ended) {
    const tine_result_t *result = NULL;
    share();
    tine_pool_t *pool = pool_of(1);
    tine_async_t *async = submit(pool, wait_at_gate, NULL, 0);
    await(&shared->started, 1);
    CHECK(!tine_async_ready(async));
    CHECK(!tine_async_successful(async));
    CHECK_STATUS(tine_async_wait(async, 0), TINE_ETIMEDOUT);
    CHECK_STATUS(tine_async_get(async, 0, &result), TINE_ETIMEDOUT);
    const int64_t start = now_us();
    CHECK_STATUS(tine_async_get(async, 30, &result), TINE_ETIMEDOUT);
    CHECK(now_us() - start >= 30000);
    CHECK(result == NULL);
    set(&shared->gate, 1);
    CHECK_OK(tine_async_wait(async, TINE_FOREVER));
    CHECK(tine_async_ready(async));
    tine_async_free(async);
    int how = 9;
    async = submit(pool, reply_and_return, &how, sizeof how);
    CHECK_OK(tine_async_wait(async, TINE_FOREVER));
    CHECK(tine_async_ready(async) && !tine_async_successful(async));
    tine_async_free(async);
    end_pool(pool);
}

TEST(a_freed_async_is_forgotten_and_its_task_is_not) {
    share();
    tine_pool_t *pool = pool_of(1);
    for (int i = 0; i < 50; i++) tine_async_free(submit(pool, count_run, NULL, 0));
    for (int i = 0; i < 50; i++) CHECK_OK(tine_pool_submit(pool, count_run, NULL, 0, NULL, NULL));
    end_pool(pool);
    CHECK_INT(shared->ended, 100);
}

static int32_t describe(const void *arg, size_t len, tine_task_t *task) {
    const int64_t facts[] = { (int64_t)tine_task_id(task), tine_task_attempt(task), tine_task_worker_index(task), tine_task_cancelled(task),
                              tine_host_pid(), getpid(), getppid(), (int64_t)len, arg != NULL };
    return tine_task_reply(task, facts, sizeof facts);
}
TEST(a_task_knows_itself_and_its_host) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    int64_t facts[9];
    size_t len = 0;
    tine_pool_t *pool = pool_of(3);
    for (int i = 0; i < 30; i++) {
        options.task_id = (uint64_t)i * 1000003; /* 0: chosen */
        tine_async_t *async = submit_with(pool, describe, NULL, 0, &options);
        const void *data = tine_result_data(get(async), &len);
        CHECK_INT(len, sizeof facts);
        memcpy(facts, data, sizeof facts);
        CHECK_INT(facts[0], tine_result_task_id(get(async)));
        CHECK(i > 0 ? (uint64_t)facts[0] == options.task_id : facts[0] != 0);
        CHECK_INT(facts[1], 1); /* attempts count from 1: max_attempts 1 is one attempt */
        CHECK(facts[2] >= 0 && facts[2] < 3);
        CHECK_INT(facts[3], 0);
        CHECK_INT(facts[4], getpid());
        CHECK_INT(facts[5], tine_result_worker_pid(get(async)));
        CHECK(facts[6] != getpid()); /* the nursery */
        CHECK_INT(facts[7], 0);
        tine_async_free(async);
    }
    end_pool(pool);
}

/* ---- Bytes ---- */
static unsigned char byte_at(size_t index, size_t size) { return (unsigned char)(index * 167 + (index >> 13) + size); }
static unsigned char *bytes_of(size_t size) {
    unsigned char *bytes = malloc(size + 1);
    CHECK(bytes != NULL);
    for (size_t i = 0; i < size; i++) bytes[i] = byte_at(i, size);
    return bytes;
}
static void check_bytes(const unsigned char *bytes, size_t len, size_t size) {
    CHECK_INT(len, size);
    for (size_t i = 0; i < size; i++) if (bytes[i] != byte_at(i, size)) TEST_FAIL("byte %zu of %zu is wrong", i, size);
}
static void check_result(const tine_result_t *result, size_t size) {
    size_t len = 1234567;
    CHECK_STATUS(tine_result_status(result), TINE_OK);
    const void *data = tine_result_data(result, &len);
    CHECK(size == 0 || data != NULL);
    CHECK((uintptr_t)data % 16 == 0); /* a caller may read it as any type, as with malloc */
    check_bytes(data, len, size);
}
static int32_t make_bytes(const void *arg, size_t len, tine_task_t *task) {
    size_t size;
    CHECK_INT(len, sizeof size);
    memcpy(&size, arg, sizeof size);
    unsigned char *bytes = bytes_of(size);
    const tine_status_t status = tine_task_reply(task, bytes, size);
    memset(bytes, 0xee, size); /* copied before it returned */
    free(bytes);
    return status;
}
static int32_t count_bytes(const void *arg, size_t len, tine_task_t *task) {
    CHECK((uintptr_t)arg % 16 == 0);
    check_bytes(arg, len, len);
    return tine_task_reply(task, &len, sizeof len);
}
static void check_size(tine_pool_t *pool, size_t size) {
    size_t len, counted = 0;
    tine_result_t *result = apply(pool, make_bytes, &size, sizeof size);
    check_result(result, size);
    tine_result_free(result);
    unsigned char *bytes = bytes_of(size);
    tine_async_t *async = submit(pool, count_bytes, bytes, size), *both = submit(pool, echo, bytes, size);
    memset(bytes, 0xee, size); /* copied before it returned */
    CHECK_STATUS(tine_result_status(get(async)), TINE_OK);
    memcpy(&counted, tine_result_data(get(async), &len), sizeof counted);
    CHECK_INT(len, sizeof counted);
    CHECK_INT(counted, size);
    check_result(get(both), size);
    tine_async_free(async), tine_async_free(both);
    free(bytes);
}

TEST(arguments_and_results_of_every_size_arrive_whole) {
    static const size_t around[] = { 64, 128, 192, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144 };
    tine_pool_t *pool = pool_of(2);
    for (size_t size = 0; size < 40; size++) check_size(pool, size);
    for (size_t i = 0; i < sizeof around / sizeof *around; i++)
        for (size_t size = around[i] - 33; size < around[i] + 34; size += size == around[i] - 1 || size == around[i] ? 1 : 16) check_size(pool, size);
    check_size(pool, 100 * KIB);
    check_size(pool, MIB + 1);
    end_pool(pool);
}

TEST_WITHIN(arguments_and_results_of_64_mib_arrive_whole, 60) {
    tine_pool_t *pool = pool_of(2);
    for (int i = 0; i < 2; i++) check_size(pool, under_valgrind() ? 8 * MIB : 64 * MIB), check_size(pool, 1), check_size(pool, 0);
    check_works(pool);
    end_pool(pool);
}

TEST_WITHIN(many_large_results_may_wait_for_the_host_at_once, 60) {
    enum { COUNT = 200 };
    tine_async_t *asyncs[COUNT];
    tine_pool_t *pool = pool_of(2);
    for (int i = 0; i < COUNT; i++) {
        const size_t size = i % 3 == 0 ? 300 * KIB + (size_t)i : i % 3 == 1 ? (size_t)i : 5000;
        asyncs[i] = submit(pool, make_bytes, &size, sizeof size);
    }
    for (int i = 0; i < COUNT; i++) CHECK_OK(tine_async_wait(asyncs[i], TINE_FOREVER));
    check_works(pool); /* nobody has taken anything yet */
    for (int i = 0; i < COUNT; i++) {
        check_result(get(asyncs[i]), i % 3 == 0 ? 300 * KIB + (size_t)i : i % 3 == 1 ? (size_t)i : 5000);
        tine_async_free(asyncs[i]);
    }
    end_pool(pool);
}

/* A loop of large arguments or results must not grow without end. */
static long blocks_of_memfds(void) {
    long blocks = 0;
    for (int fd = 3; fd < 256; fd++) {
        char path[64], link[256] = "";
        struct { uint64_t at, end; } hole = { 0, 0 };
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (readlink(path, link, sizeof link - 1) <= 0 || strstr(link, "memfd:tine") == NULL) continue;
        const off_t length = lseek(fd, 0, SEEK_END);
        for (off_t at = 0; at < length && (at = lseek(fd, at, SEEK_DATA)) >= 0; at = (off_t)hole.end)
            hole.end = (uint64_t)lseek(fd, at, SEEK_HOLE), blocks += (long)((off_t)hole.end - at) / 512;
    }
    return blocks;
}
TEST_WITHIN(large_results_give_their_memory_back, 60) {
    static char block[4 * MIB];
    tine_pool_t *pool = pool_of(2);
    for (int i = 0; i < 4; i++) tine_result_free(apply(pool, echo, block, sizeof block));
    const long blocks = blocks_of_memfds(), resident = atol(field_of(getpid(), "RssShmem:"));
    for (int i = 0; i < 40; i++) tine_result_free(apply(pool, echo, block, sizeof block));
    /* 40 x 4 MiB each way went through; what one task needs may be kept per worker. */
    CHECK(blocks_of_memfds() <= blocks + 4 * 2 * (4 * MIB / 512));
    CHECK(atol(field_of(getpid(), "RssShmem:")) <= resident + 4 * 2 * (4 * MIB / KIB));
    end_pool(pool);
}

static int32_t reply_long(const void *arg, size_t len, tine_task_t *task) {
    static const char bytes[9000];
    if (tine_task_reply(task, bytes, sizeof bytes) != TINE_OK) return 1;
    return number_in(arg, len) == 1 ? TINE_OK : tine_task_reply(task, bytes, 8); /* takes the place of the first */
}
TEST(a_reply_of_some_pages_gives_them_back) {
    enum { MANY = 400 };
    tine_pool_t *pool = pool_of(1);
    for (int kind = 1; kind <= 2; kind++) {
        tine_result_free(apply(pool, reply_long, &kind, sizeof kind));
        const long blocks = blocks_of_memfds();
        for (int i = 0; i < MANY; i++) {
            tine_result_t *result = apply(pool, reply_long, &kind, sizeof kind);
            CHECK_INT(tine_result_status(result), TINE_OK);
            tine_result_free(result);
        }
        CHECK(blocks_of_memfds() <= blocks + 256 * KIB / 512);
    }
    end_pool(pool);
}
TEST(a_large_argument_gives_its_pages_back_while_another_is_in_use) {
    static char block[100001];
    share();
    tine_pool_t *pool = pool_of(2);
    tine_async_t *stays = submit(pool, wait_at_gate, block, sizeof block);
    tine_result_free(apply(pool, do_nothing, block, sizeof block));
    const long blocks = blocks_of_memfds();
    for (int i = 0; i < 400; i++) tine_result_free(apply(pool, do_nothing, block, sizeof block));
    CHECK(blocks_of_memfds() <= blocks + 256 * KIB / 512);
    set(&shared->gate, 1);
    CHECK_STATUS(end_of(stays), TINE_OK);
    end_pool(pool);
}
/* Nor must it use up the addresses in the files that it lies in. */
TEST(any_number_of_long_replies_fit_below_a_limit_of_files) {
    struct rlimit limit;
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    const int kind = 1;
    CHECK_INT(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = 16 * MIB;
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
    options.workers = 1, options.max_pending = 64;
    tine_pool_t *pool = pool_with(&options);
    for (int i = 0; i < 600; i++) {
        tine_result_t *result = apply(pool, reply_long, &kind, sizeof kind);
        CHECK_INT(tine_result_status(result), TINE_OK);
        tine_result_free(result);
    }
    end_pool(pool);
}

/* ---- Callbacks ---- */
static struct { int calls, errors; } told[100000];
static int told_total, told_strays;
static void count_call(const tine_result_t *result, void *user_data) {
    told[(intptr_t)user_data].calls++;
    if (tine_result_status(result) != TINE_OK) told_strays++;
    __atomic_fetch_add(&told_total, 1, __ATOMIC_SEQ_CST);
}
static void count_error(const tine_result_t *result, void *user_data) {
    told[(intptr_t)user_data].errors++;
    if (tine_result_status(result) == TINE_OK) told_strays++;
    __atomic_fetch_add(&told_total, 1, __ATOMIC_SEQ_CST);
}

static int32_t just_count(const void *arg, size_t len, tine_task_t *task) { /* and wakes nobody */
    return (void)arg, (void)len, (void)task, __atomic_fetch_add(&shared->ended, 1, __ATOMIC_RELAXED), 0;
}
TEST_WITHIN(a_hundred_thousand_empty_tasks_call_back_once_each, 120) {
    enum { COUNT = 100000 };
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = count_call, options.error_callback = count_error;
    share();
    tine_pool_t *pool = pool_of(2);
    const int64_t start = now_us();
    for (intptr_t i = 0; i < COUNT; i++) {
        options.user_data = (void *)i;
        CHECK_OK(tine_pool_submit(pool, just_count, NULL, 0, &options, NULL));
    }
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER)); /* callbacks included: a joined pool tells nothing any more */
    const int64_t took = now_us() - start;
    CHECK_INT(told_total, COUNT);
    CHECK_INT(shared->ended, COUNT);
    for (int i = 0; i < COUNT; i++) if (told[i].calls != 1 || told[i].errors != 0) TEST_FAIL("task %d: %d calls, %d errors", i, told[i].calls, told[i].errors);
    CHECK_INT(told_strays, 0);
    const tine_pool_stats_t stats = stats_of(pool);
    CHECK_INT(stats.done, COUNT);
    CHECK_INT(stats.failed + stats.queued + stats.running + stats.worker_deaths, 0);
    printf("# %d empty tasks with callbacks, 2 workers: %.0f tasks/s\n", COUNT, COUNT * 1e6 / (double)took);
    tine_pool_free(pool);
}

static int order_told[SLOTS], order_told_count;
static void note_order(const tine_result_t *result, void *user_data) {
    (void)result;
    order_told[order_told_count++] = (int)(intptr_t)user_data;
}
static int32_t note_place(const void *arg, size_t len, tine_task_t *task) {
    (void)task;
    shared->order[count_up(&shared->ended)] = number_in(arg, len);
    return 0;
}
TEST(one_worker_works_in_the_order_of_submission) {
    enum { COUNT = 2000 };
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = note_order;
    share();
    tine_pool_t *pool = pool_of(1);
    for (int i = 0; i < COUNT; i++) {
        options.user_data = (void *)(intptr_t)i;
        CHECK_OK(tine_pool_submit(pool, note_place, &i, sizeof i, &options, NULL));
    }
    end_pool(pool);
    CHECK_INT(shared->ended, COUNT);
    CHECK_INT(order_told_count, COUNT);
    for (int i = 0; i < COUNT; i++) CHECK_INT(shared->order[i], i), CHECK_INT(order_told[i], i);
}

TEST(callbacks_come_in_the_order_of_completion) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = note_order, options.user_data = (void *)1;
    share();
    tine_pool_t *pool = pool_of(2);
    tine_async_t *first = submit_with(pool, wait_at_gate, NULL, 0, &options);
    await(&shared->started, 1);
    for (int i = 2; i < 50; i++) {
        options.user_data = (void *)(intptr_t)i;
        CHECK_STATUS(end_of(submit_with(pool, do_nothing, NULL, 0, &options)), TINE_OK);
    }
    set(&shared->gate, 1);
    CHECK_STATUS(end_of(first), TINE_OK);
    CHECK_INT(order_told_count, 49);
    for (int i = 0; i < 49; i++) CHECK_INT(order_told[i], i < 48 ? i + 2 : 1);
    end_pool(pool);
}

/* Also when the host has not looked for a while, and one worker has done much meanwhile: the other ends its only task after all that,
   and says so before it begins the last one. */
static int32_t wait_for_two(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len, (void)task;
    await(&shared->started, 2);
    return 0;
}
static int32_t be_the_second(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len, (void)task;
    count_up(&shared->started);
    await(&shared->inits, 1);
    return 0;
}
static int32_t be_the_last(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len, (void)task;
    set(&shared->inits, 1);
    return 0;
}
static void wait_at_final_gate(const tine_result_t *result, void *unused) {
    (void)result, (void)unused;
    count_up(&shared->strays);
    await(&shared->finals, 1);
}
TEST(callbacks_come_in_the_order_of_completion_however_much_waits) {
    enum { COUNT = 300 };
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    share();
    tine_pool_t *pool = pool_of(2);
    options.callback = wait_at_final_gate; /* nobody looks meanwhile */
    CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &options, NULL));
    await(&shared->strays, 1);
    options.callback = note_order;
    CHECK_OK(tine_pool_submit(pool, wait_for_two, NULL, 0, &options, NULL));
    options.user_data = (void *)1;
    CHECK_OK(tine_pool_submit(pool, wait_at_gate, NULL, 0, &options, NULL));
    await(&shared->started, 1);
    for (int i = 0; i < COUNT; i++) CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &options, NULL));
    options.user_data = (void *)2;
    CHECK_OK(tine_pool_submit(pool, be_the_second, NULL, 0, &options, NULL));
    CHECK_OK(tine_pool_submit(pool, be_the_last, NULL, 0, &options, NULL));
    set(&shared->gate, 1);
    await(&shared->inits, 1);
    set(&shared->finals, 1);
    end_pool(pool);
    CHECK_INT(order_told_count, COUNT + 4);
    for (int i = 0; i < COUNT + 4; i++) CHECK_INT(order_told[i], i <= COUNT ? 1 : i == COUNT + 1 ? 0 : 2);
}

static pid_t callback_thread;
static int callbacks_inside;
static void check_where_it_runs(const tine_result_t *result, void *user_data) {
    (void)result;
    const pid_t self = (pid_t)syscall(SYS_gettid);
    CHECK_INT(getpid(), (intptr_t)user_data);
    CHECK(self != getpid());
    CHECK(callback_thread == 0 || callback_thread == self);
    CHECK_INT(__atomic_fetch_add(&callbacks_inside, 1, __ATOMIC_SEQ_CST), 0);
    if (callback_thread == 0) {
        sigset_t mask;
        callback_thread = self;
        CHECK_INT(pthread_sigmask(SIG_BLOCK, NULL, &mask), 0);
        static const int signals[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGCHLD, SIGALRM, SIGUSR1, SIGUSR2, SIGPIPE, SIGWINCH };
        for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) CHECK(sigismember(&mask, signals[i]));
        CHECK(strncmp(proc_field("thread-self", "Name:"), "tine", 4) == 0);
    }
    sched_yield();
    CHECK_INT(__atomic_sub_fetch(&callbacks_inside, 1, __ATOMIC_SEQ_CST), 0);
    count_up(&order_told_count);
}
TEST(callbacks_run_one_at_a_time_on_one_named_thread_of_the_host) {
    enum { COUNT = 2000 };
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = options.error_callback = check_where_it_runs;
    options.user_data = (void *)(intptr_t)getpid();
    const int before = threads_of_host();
    tine_pool_t *pool = pool_of(4);
    for (int i = 0; i < COUNT; i++) CHECK_OK(tine_pool_submit(pool, i % 2 ? reply_and_return : do_nothing, &(int){ i }, sizeof i, &options, NULL));
    CHECK(threads_of_host() <= before + 1);
    end_pool(pool);
    CHECK_INT(order_told_count, COUNT);
    CHECK_INT(threads_of_host(), before);
}

static struct { int gate, inside, done; } slow;
static void wait_in_callback(const tine_result_t *result, void *user_data) {
    (void)result, (void)user_data;
    set(&slow.inside, 1);
    await(&slow.gate, 1);
    set(&slow.done, 1);
}
TEST(an_async_is_ready_after_its_callback_returned_and_a_slow_callback_delays_no_work) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = wait_in_callback;
    share();
    tine_pool_t *pool = pool_of(2);
    tine_async_t *async = submit_with(pool, do_nothing, NULL, 0, &options);
    await(&slow.inside, 1);
    CHECK(!tine_async_ready(async));
    CHECK_STATUS(tine_async_wait(async, 20), TINE_ETIMEDOUT);
    for (int i = 0; i < 500; i++) CHECK_OK(tine_pool_submit(pool, count_run, NULL, 0, NULL, NULL));
    await(&shared->ended, 500); /* while the callback still runs */
    CHECK(!tine_async_ready(async));
    set(&slow.gate, 1);
    CHECK_STATUS(tine_result_status(get(async)), TINE_OK);
    CHECK_INT(value_of(&slow.done), 1);
    tine_async_free(async);
    end_pool(pool);
}

static int32_t count_and_die(const void *arg, size_t len, tine_task_t *task) {
    count_up(&shared->started);
    return die(arg, len, task);
}
TEST(a_slow_callback_delays_no_work_even_if_workers_die) {
    enum { COUNT = 50 };
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = wait_in_callback;
    share();
    tine_pool_t *pool = pool_of(2);
    CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &options, NULL));
    await(&slow.inside, 1);
    for (int i = 0; i < COUNT; i++) {
        const int way = i % WAYS_TO_DIE;
        CHECK_OK(tine_pool_submit(pool, count_and_die, &way, sizeof way, NULL, NULL));
        CHECK_OK(tine_pool_submit(pool, count_run, NULL, 0, NULL, NULL));
    }
    await(&shared->started, COUNT); /* nobody in the host waits, asks or takes anything */
    await(&shared->ended, COUNT);
    set(&slow.gate, 1);
    end_pool(pool);
}

static struct { tine_pool_t *pool; int links, done; } chain;
static void submit_the_next(const tine_result_t *result, void *user_data) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    const int number = (int)(intptr_t)user_data;
    CHECK_STATUS(tine_result_status(result), TINE_OK);
    CHECK_INT(number_of(result), number * number);
    if (number == chain.links) {
        set(&chain.done, 1);
        return;
    }
    const int next = number + 1;
    options.callback = submit_the_next, options.user_data = (void *)(intptr_t)next;
    CHECK_OK(tine_pool_submit(chain.pool, square, &next, sizeof next, &options, NULL));
}
TEST(a_callback_may_submit) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    tine_pool_options_t of_pool = TINE_POOL_OPTIONS_INIT;
    of_pool.workers = 2, of_pool.max_pending = 1; /* the task that calls back has ended: there is room */
    chain.pool = pool_with(&of_pool), chain.links = 1000;
    const int first = 1;
    options.callback = submit_the_next, options.user_data = (void *)1;
    CHECK_OK(tine_pool_submit(chain.pool, square, &first, sizeof first, &options, NULL));
    await(&chain.done, 1);
    end_pool(chain.pool);
}

/* Callbacks that fill the pool must not wait for room that only later callbacks could make. EFULL would be an answer, too. */
static int bred, refused;
static void breed(const tine_result_t *result, void *user_data) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    CHECK_STATUS(tine_result_status(result), TINE_OK);
    options.callback = breed, options.user_data = (void *)((intptr_t)user_data - 1);
    for (int i = 0; i < 2 && user_data != NULL; i++) {
        const tine_status_t status = tine_pool_submit(chain.pool, do_nothing, NULL, 0, &options, NULL);
        CHECK(status == TINE_OK || status == TINE_EFULL);
        count_up(status == TINE_OK ? &bred : &refused);
    }
    count_up(&chain.done);
}
TEST(callbacks_that_submit_into_a_full_pool_do_not_lock_it_up) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    tine_pool_options_t of_pool = TINE_POOL_OPTIONS_INIT;
    of_pool.workers = 2, of_pool.max_pending = 4;
    chain.pool = pool_with(&of_pool);
    options.callback = breed, options.user_data = (void *)6;
    for (int i = 0; i < 4; i++) CHECK_OK(tine_pool_submit(chain.pool, do_nothing, NULL, 0, &options, NULL));
    while (value_of(&chain.done) != 4 + value_of(&bred)) /* a callback counts its children before itself */
        CHECK_OK(tine_pool_apply(chain.pool, do_nothing, NULL, 0, TINE_FOREVER, NULL));
    CHECK_OK(tine_pool_close(chain.pool));
    CHECK_OK(tine_pool_join(chain.pool, TINE_FOREVER));
    CHECK_INT(value_of(&chain.done), 4 + bred);
    printf("# %d submitted by callbacks, %d refused as full\n", bred, refused);
    tine_pool_free(chain.pool);
}

static void use_pool_in_callback(const tine_result_t *result, void *user_data) {
    tine_async_t *async = NULL;
    (void)result;
    for (int i = 0; i < 20; i++) {
        tine_result_t *applied = NULL;
        CHECK_OK(tine_pool_apply(user_data, square, &i, sizeof i, TINE_FOREVER, &applied));
        CHECK_INT(number_of(applied), i * i);
        tine_result_free(applied);
    }
    CHECK_OK(tine_pool_submit(user_data, do_nothing, NULL, 0, NULL, &async));
    const tine_status_t status = tine_async_get(async, 10000, NULL); /* "get works" inside a callback, for other tasks */
    CHECK(status == TINE_OK);
    tine_async_free(async);
    CHECK_STATUS(tine_pool_join(user_data, TINE_FOREVER), TINE_EBUSY);
    CHECK_MESSAGE("pool");
    set(&chain.done, 1);
}
TEST(a_callback_may_apply_and_get_and_not_join) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    tine_pool_t *pool = pool_of(1);
    options.callback = use_pool_in_callback, options.user_data = pool;
    CHECK_STATUS(end_of(submit_with(pool, do_nothing, NULL, 0, &options)), TINE_OK);
    CHECK_INT(value_of(&chain.done), 1);
    end_pool(pool);
}

static void close_in_callback(const tine_result_t *result, void *user_data) {
    (void)result;
    CHECK_OK(tine_pool_close(user_data));
    CHECK_STATUS(tine_pool_join(user_data, 0), TINE_EBUSY);
    CHECK_STATUS(tine_pool_submit(user_data, do_nothing, NULL, 0, NULL, NULL), TINE_ECLOSED);
    set(&chain.done, 1);
}
TEST(a_callback_may_close_its_pool) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    share();
    tine_pool_t *pool = pool_of(1);
    options.callback = close_in_callback, options.user_data = pool;
    CHECK_OK(tine_pool_submit(pool, wait_at_gate, NULL, 0, &options, NULL));
    for (int i = 0; i < 10; i++) CHECK_OK(tine_pool_submit(pool, count_run, NULL, 0, NULL, NULL));
    set(&shared->gate, 1);
    await(&chain.done, 1);
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    CHECK_INT(shared->ended, 11); /* what was submitted before runs */
    tine_pool_free(pool);
}

static void terminate_in_callback(const tine_result_t *result, void *user_data) {
    (void)result;
    CHECK_OK(tine_pool_terminate(user_data, 1000, NULL));
    set(&chain.done, 1);
}
TEST(a_callback_may_terminate_its_pool) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    share();
    tine_pool_t *pool = pool_of(2);
    tine_async_t *running = submit(pool, wait_at_gate, NULL, 0);
    await(&shared->started, 1);
    options.callback = terminate_in_callback, options.user_data = pool;
    CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &options, NULL));
    CHECK_STATUS(end_of(running), TINE_ECANCELED);
    await(&chain.done, 1);
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    tine_pool_free(pool);
}

static void free_in_callback(const tine_result_t *result, void *user_data) {
    size_t len = 0;
    tine_pool_free(user_data); /* carried out when this has returned */
    const void *data = tine_result_data(result, &len);
    CHECK_INT(number_in(data, len), 81);
    set(&chain.done, 1);
}
TEST(a_callback_may_free_its_pool) {
    enum { COUNT = 20 };
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    tine_async_t *asyncs[COUNT];
    share();
    tine_pool_t *pool = pool_of(2);
    const pid_t nursery = nursery_of(pool);
    asyncs[0] = submit(pool, wait_at_gate, NULL, 0);
    await(&shared->started, 1);
    options.callback = free_in_callback, options.user_data = pool;
    const int nine = 9;
    tine_async_t *freeing = submit_with(pool, wait_at_gate, NULL, 0, NULL); /* keeps the second worker until all are submitted */
    tine_async_t *frees = submit_with(pool, square, &nine, sizeof nine, &options);
    for (int i = 1; i < COUNT; i++) asyncs[i] = submit(pool, do_nothing, NULL, 0);
    await(&shared->started, 2);
    set(&shared->gate, 1);
    await(&chain.done, 1);
    CHECK_STATUS(end_of(frees), TINE_OK);
    for (int i = 0; i < COUNT; i++) { /* free ends what has not ended */
        const tine_status_t status = end_of(asyncs[i]);
        CHECK(status == TINE_OK || status == TINE_ECANCELED);
    }
    tine_async_free(freeing);
    CHECK(await_gone(nursery, 10));
}

/* ---- What outlives what ---- */
TEST(results_and_asyncs_outlive_the_pool) {
    int three = 3;
    share();
    tine_pool_t *pool = pool_of(2);
    const size_t size = 100 * KIB;
    tine_result_t *small = apply(pool, square, &three, sizeof three), *large = apply(pool, make_bytes, &size, sizeof size);
    tine_async_t *got = submit(pool, square, &three, sizeof three), *unseen = submit(pool, make_bytes, &size, sizeof size);
    CHECK_STATUS(tine_result_status(get(got)), TINE_OK);
    CHECK_OK(tine_async_wait(unseen, TINE_FOREVER));
    tine_async_t *running = submit(pool, wait_at_gate, NULL, 0), *other = submit(pool, wait_at_gate, NULL, 0);
    await(&shared->started, 2);
    tine_async_t *queued = submit(pool, count_run, NULL, 0);
    tine_pool_free(pool); /* without close: ends what runs */
    CHECK_INT(number_of(small), 9);
    check_result(large, size);
    CHECK_INT(number_of(get(got)), 9);
    check_result(get(unseen), size);
    CHECK_STATUS(end_of(running), TINE_ECANCELED);
    CHECK_STATUS(end_of(other), TINE_ECANCELED);
    CHECK(tine_async_ready(queued) && !tine_async_successful(queued));
    CHECK_STATUS(end_of(queued), TINE_ECANCELED);
    CHECK_INT(shared->ended, 0);
    tine_result_free(small), tine_result_free(large);
    tine_async_free(got), tine_async_free(unseen);
}

/* ---- The initializer and the finalizer ---- */
struct state { int magic, tasks; };
static int32_t initialize(void *user_data, void **out_state) {
    struct state *state = calloc(1, sizeof *state);
    CHECK(state != NULL);
    state->magic = *(int *)user_data;
    *out_state = state;
    count_up(&shared->inits);
    return 0;
}
static void finalize(void *state, void *user_data) {
    if (((struct state *)state)->magic != *(int *)user_data) count_up(&shared->strays);
    __atomic_fetch_add(&shared->started, ((struct state *)state)->tasks, __ATOMIC_SEQ_CST);
    free(state);
    count_up(&shared->finals);
}
static int32_t count_in_state(const void *arg, size_t len, tine_task_t *task) {
    struct state *state = tine_task_worker_state(task);
    CHECK_INT(state->magic, number_in(arg, len));
    state->tasks++;
    return tine_task_reply(task, &state->tasks, sizeof state->tasks);
}
static tine_pool_t *pool_with_state(uint32_t workers) {
    static int magic = 4711;
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    options.workers = workers, options.initializer = initialize, options.finalizer = finalize, options.user_data = &magic;
    share();
    return pool_with(&options);
}

TEST(the_initializers_state_reaches_the_tasks_and_the_finalizer_runs_at_close) {
    enum { COUNT = 100 };
    const int magic = 4711;
    tine_pool_t *pool = pool_with_state(2);
    for (int i = 0; i < COUNT; i++) {
        tine_result_t *result = apply(pool, count_in_state, &magic, sizeof magic);
        CHECK_STATUS(tine_result_status(result), TINE_OK);
        tine_result_free(result);
    }
    CHECK(value_of(&shared->inits) >= 1);
    CHECK_INT(value_of(&shared->finals), 0);
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    /* Each one that was initialized is finalized, the warm spare as well, before join returns. */
    CHECK_INT(value_of(&shared->finals), value_of(&shared->inits));
    CHECK_INT(shared->started, COUNT);
    CHECK_INT(shared->strays, 0);
    tine_pool_free(pool);
}

TEST(without_an_initializer_there_is_no_state_and_a_replacement_has_a_new_one) {
    const int magic = 4711, way = BY_KILL;
    tine_pool_t *pool = pool_with_state(1);
    for (int i = 0; i < 3; i++) tine_result_free(apply(pool, count_in_state, &magic, sizeof magic));
    tine_result_t *result = apply(pool, die, &way, sizeof way);
    check_death(result, way);
    tine_result_free(result);
    result = apply(pool, count_in_state, &magic, sizeof magic);
    CHECK_INT(number_of(result), 1);
    tine_result_free(result);
    end_pool(pool);
    CHECK_INT(shared->finals, shared->inits - 1);
}

TEST(the_finalizer_does_not_run_at_terminate_and_free) {
    const int magic = 4711;
    for (int i = 0; i < 2; i++) {
        tine_pool_t *pool = pool_with_state(2);
        tine_result_free(apply(pool, count_in_state, &magic, sizeof magic));
        CHECK_OK(tine_pool_submit(pool, wait_at_gate, NULL, 0, NULL, NULL));
        await(&shared->started, 1);
        if (i == 0) {
            CHECK_OK(tine_pool_terminate(pool, 1000, NULL));
            CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
        }
        tine_pool_free(pool);
        CHECK_INT(shared->finals, 0);
    }
}

static int32_t fail_to_initialize(void *user_data, void **out_state) {
    (void)out_state;
    count_up(&shared->inits);
    const int way = *(int *)user_data;
    if (way < WAYS_TO_DIE) die(&way, sizeof way, NULL);
    return way;
}
/* Where the failure is told is open: by the constructor, if it waits for its workers, or by the first task. */
static void check_initializer_fails(int way, uint32_t budget, int at_most) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_pool_t *pool = NULL;
    shared->inits = 0;
    options.workers = 2, options.initializer = fail_to_initialize, options.user_data = &way, options.crash_budget = budget;
    tine_status_t status = tine_pool_new(&options, &pool);
    if (status == TINE_OK) {
        tine_async_t *async = NULL;
        tine_result_t *result = NULL;
        status = tine_pool_submit(pool, do_nothing, NULL, 0, NULL, &async);
        CHECK(status == TINE_OK || status == TINE_EBROKEN);
        if (status == TINE_OK) CHECK_STATUS(end_of(async), TINE_ECANCELED); /* it never ran */
        status = tine_pool_apply(pool, do_nothing, NULL, 0, TINE_FOREVER, &result);
    } else
        CHECK(pool == NULL);
    CHECK_STATUS(status, TINE_EBROKEN);
    CHECK_MESSAGE("initializer");
    if (way == 77) CHECK_MESSAGE("77");
    if (pool != NULL) {
        CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL), TINE_EBROKEN);
        poll(NULL, 0, 50);
        CHECK_OK(tine_pool_close(pool));
        CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
        tine_pool_free(pool);
    }
    CHECK(shared->inits >= 1 && shared->inits <= at_most); /* no storm */
}
TEST(an_initializer_that_fails_breaks_the_pool_and_makes_no_storm) {
    share();
    check_initializer_fails(77, 3, 3 + 3); /* those that ran already when the budget was spent: two workers and the spare */
    check_initializer_fails(77, 1, 1 + 3);
    check_initializer_fails(77, 0, 16 + 3);
    for (int way = 0; way < WAYS_TO_DIE; way++) check_initializer_fails(way, 4, 4 + 3);
}

static int32_t fail_the_first_time(void *user_data, void **out_state) {
    (void)user_data, (void)out_state;
    return count_up(&shared->inits) == 0 ? 5 : 0;
}
TEST(an_initializer_that_fails_once_costs_nothing) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    options.workers = 2, options.initializer = fail_the_first_time;
    share();
    tine_pool_t *pool = pool_with(&options);
    check_works(pool);
    end_pool(pool);
    CHECK(shared->inits >= 2);
}

/* ---- Deaths ---- */
static tine_pool_t *death_pool;
static void told_of_success(const tine_result_t *result, void *user_data) {
    const intptr_t i = (intptr_t)user_data;
    if (++told[i].calls != 1 || i % 10 == 0) told_strays++;
    CHECK_STATUS(tine_result_status(result), TINE_OK);
    CHECK_INT(number_of(result), i * i);
    count_up(&told_total);
}
static void told_of_death(const tine_result_t *result, void *user_data) {
    const intptr_t i = (intptr_t)user_data;
    if (++told[i].errors != 1 || i % 10 != 0) told_strays++;
    check_death(result, (int)(i / 10 % WAYS_TO_DIE));
    count_up(&told_total);
}
static pid_t host;
static void handler_of_host(void) { if (getpid() != host) count_up(&shared->strays); }

static int32_t die_or_square(const void *arg, size_t len, tine_task_t *task) {
    const int number = number_in(arg, len), way = number / 10 % WAYS_TO_DIE;
    count_up(&shared->slots[number]);
    return number % 10 == 0 ? die(&way, sizeof way, task) : square(arg, len, task);
}
static void submit_deaths(int count) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = told_of_success, options.error_callback = told_of_death;
    for (int i = 0; i < count; i++) {
        options.user_data = (void *)(intptr_t)i;
        CHECK_OK(tine_pool_submit(death_pool, die_or_square, &i, sizeof i, &options, NULL));
    }
}
TEST_WITHIN(every_tenth_of_a_thousand_tasks_ends_its_worker_and_nothing_else_is_lost, 60) {
    enum { COUNT = 1000 };
    share();
    host = getpid();
    CHECK_INT(atexit(handler_of_host), 0);
    death_pool = pool_of(2); /* the default budget counts deaths in a row: one success between two deaths resets it */
    const int64_t start = now_us();
    submit_deaths(COUNT);
    await(&told_total, COUNT);
    printf("# 1,000 tasks with 100 deaths: %.3f s\n", (double)(now_us() - start) / 1e6);
    for (int i = 0; i < COUNT; i++) {
        CHECK_INT(told[i].calls, i % 10 != 0), CHECK_INT(told[i].errors, i % 10 == 0);
        if (shared->slots[i] != 1) TEST_FAIL("task %d ran %d times", i, shared->slots[i]);
    }
    CHECK_INT(told_strays, 0);
    check_works(death_pool);
    await_workers(death_pool, 2);
    const tine_pool_stats_t stats = stats_of(death_pool);
    CHECK_INT(stats.done, 900 + 10);
    CHECK_INT(stats.failed, 100);
    CHECK_INT(stats.worker_deaths, 100);
    CHECK_INT(stats.queued + stats.running, 0);
    CHECK_INT(stats.restarts, 100);
    end_pool(death_pool);
    CHECK_INT(shared->strays, 0); /* exit(3) in a task is no business of the host's atexit handlers */
}

/* Workers die at any instruction of theirs, by somebody else's hand: every task ends once, none runs twice, no result is torn. */
static const size_t reply_sizes[] = { 0, 8, 200, 5000, 70000, 300000 };
enum { REPLY_SIZES = sizeof reply_sizes / sizeof *reply_sizes };
static int32_t run_once(const void *arg, size_t len, tine_task_t *task) {
    const int number = number_in(arg, len);
    const size_t size = reply_sizes[number % REPLY_SIZES];
    count_up(&shared->slots[number]);
    unsigned char *bytes = bytes_of(size);
    const tine_status_t status = tine_task_reply(task, bytes, size);
    free(bytes);
    return status;
}
static void told_of_any_end(const tine_result_t *result, void *user_data) {
    const intptr_t i = (intptr_t)user_data;
    if (tine_result_status(result) == TINE_OK) {
        told[i].calls++;
        check_result(result, reply_sizes[i % REPLY_SIZES]);
        if (value_of(&shared->slots[i]) != 1) told_strays++;
    } else {
        told[i].errors++;
        CHECK_STATUS(tine_result_status(result), TINE_EWORKERDIED);
        CHECK_INT(exit_of(result).signal, SIGKILL);
    }
    count_up(&told_total);
}
static int kill_a_worker(const tine_pool_t *pool, pid_t nursery, unsigned number) {
    int32_t pids[8];
    size_t count = 0;
    CHECK_OK(tine_pool_worker_pids(pool, pids, 8, &count));
    if (count == 0 || parent_of(pids[number % count]) != nursery) return 0; /* nobody else's process is hit */
    return kill(pids[number % count], SIGKILL) == 0;
}
TEST_WITHIN(workers_killed_at_any_moment_cost_what_they_ran_and_nothing_else, 60) {
    enum { COUNT = 4000 };
    tine_pool_options_t of_pool = TINE_POOL_OPTIONS_INIT;
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    int kills = 0, died = 0;
    options.callback = options.error_callback = told_of_any_end;
    of_pool.workers = 3, of_pool.crash_budget = 100000, of_pool.max_pending = 500;
    share();
    tine_pool_t *pool = pool_with(&of_pool);
    const pid_t nursery = nursery_of(pool);
    for (int i = 0; i < COUNT; i++) {
        options.user_data = (void *)(intptr_t)i;
        CHECK_OK(tine_pool_submit(pool, run_once, &i, sizeof i, &options, NULL));
        if (i % 16 == 0) kills += kill_a_worker(pool, nursery, (unsigned)i / 16);
    }
    CHECK_OK(tine_pool_close(pool));
    while (tine_pool_join(pool, 1) == TINE_ETIMEDOUT) /* not faster than workers are born, or nothing is ever done */
        if (kills < COUNT / 10) kills += kill_a_worker(pool, nursery, (unsigned)kills);
    CHECK_INT(told_total, COUNT);
    for (int i = 0; i < COUNT; i++) {
        if (told[i].calls + told[i].errors != 1) TEST_FAIL("task %d ended %d times", i, told[i].calls + told[i].errors);
        if (shared->slots[i] > 1) TEST_FAIL("task %d ran %d times", i, shared->slots[i]);
        died += told[i].errors;
    }
    CHECK_INT(told_strays, 0);
    CHECK(died <= kills);
    const tine_pool_stats_t stats = stats_of(pool);
    CHECK_INT(stats.done + stats.failed, COUNT);
    CHECK_INT(stats.failed, died);
    printf("# %d kills, %d of %d tasks died\n", kills, died, COUNT);
    tine_pool_free(pool);
}

TEST(a_death_fails_exactly_its_task) {
    share();
    tine_pool_t *pool = pool_of(2);
    tine_async_t *running = submit(pool, wait_at_gate, NULL, 0);
    await(&shared->started, 1);
    for (int way = 0; way < WAYS_TO_DIE; way++) {
        tine_async_t *dying = submit(pool, die, &way, sizeof way), *next = submit(pool, square, &way, sizeof way);
        check_death(get(dying), way);
        CHECK(!tine_async_successful(dying));
        CHECK_STATUS(end_of(next), TINE_OK);
        CHECK(!tine_async_ready(running));
        tine_async_free(dying);
    }
    set(&shared->gate, 1);
    CHECK_STATUS(end_of(running), TINE_OK);
    end_pool(pool);
}

static int32_t reply_and_die(const void *arg, size_t len, tine_task_t *task) {
    CHECK_OK(tine_task_reply(task, "never", 5));
    return die(arg, len, task);
}
TEST(a_reply_before_the_death_is_no_success) {
    tine_pool_t *pool = pool_of(1);
    const int way = BY_SEGV;
    share();
    tine_result_t *result = apply(pool, reply_and_die, &way, sizeof way);
    check_death(result, way);
    tine_result_free(result);
    check_works(pool);
    end_pool(pool);
}

static int32_t write_to_argument(const void *arg, size_t len, tine_task_t *task) {
    (void)len, (void)task;
    ((volatile char *)(uintptr_t)arg)[0] = 1;
    return 0;
}
TEST(arguments_are_read_only) { /* design: mapped read-only in workers */
    static char large[100 * KIB];
    share();
    tine_pool_t *pool = pool_of(1);
    tine_result_t *result = apply(pool, write_to_argument, "small", 5);
    check_death(result, BY_SEGV);
    tine_result_free(result);
    result = apply(pool, write_to_argument, large, sizeof large);
    check_death(result, BY_SEGV);
    tine_result_free(result);
    check_works(pool);
    end_pool(pool);
}

static int32_t stop_self(const void *arg, size_t len, tine_task_t *task) { return (void)arg, (void)len, (void)task, raise(SIGSTOP); }
TEST(a_worker_that_stops_itself_is_ended_and_replaced) {
    tine_pool_t *pool = pool_of(1);
    tine_result_t *result = apply(pool, stop_self, NULL, 0);
    CHECK_STATUS(tine_result_status(result), TINE_EWORKERDIED);
    CHECK_INT(exit_of(result).reason, TINE_REASON_STOPPED);
    tine_result_free(result);
    check_works(pool);
    end_pool(pool);
}

TEST(an_idle_worker_that_is_killed_is_replaced_and_no_task_fails) {
    tine_pool_t *pool = pool_of(2);
    check_works(pool);
    for (int i = 0; i < 5; i++) {
        const pid_t victim = worker_of(pool, (size_t)i % 2);
        CHECK(kill(victim, SIGKILL) == 0 || errno == ESRCH); /* the list may still name the last victim */
        CHECK(await_gone(victim, 10));
        check_works(pool);
    }
    CHECK_INT(stats_of(pool).failed, 0);
    end_pool(pool);
}

TEST(deaths_in_a_row_spend_the_budget_and_break_the_pool) {
    enum { COUNT = 30 };
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_async_t *asyncs[COUNT];
    const int way = BY_EXIT;
    int died = 0;
    options.workers = 1, options.crash_budget = 5;
    share();
    tine_pool_t *pool = pool_with(&options);
    tine_async_t *gate = submit(pool, wait_at_gate, NULL, 0); /* so that all are queued before the first death */
    for (int i = 0; i < COUNT; i++) asyncs[i] = submit(pool, die, &way, sizeof way);
    set(&shared->gate, 1);
    CHECK_STATUS(end_of(gate), TINE_OK);
    for (int i = 0; i < COUNT; i++) {
        const tine_status_t status = end_of(asyncs[i]);
        CHECK(status == TINE_EWORKERDIED || status == TINE_ECANCELED);
        CHECK(status == TINE_ECANCELED || died == i); /* the first ones */
        died += status == TINE_EWORKERDIED;
    }
    CHECK_INT(died, 5);
    CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL), TINE_EBROKEN);
    CHECK_STATUS(tine_pool_apply(pool, do_nothing, NULL, 0, TINE_FOREVER, NULL), TINE_EBROKEN);
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    tine_pool_free(pool);
}

/* ---- What tasks print ---- */
static int32_t print_number(const void *arg, size_t len, tine_task_t *task) {
    (void)task;
    const int number = number_in(arg, len);
    printf("task %d;", number);
    if (number == 99) exit(3);
    return 0;
}
TEST_PROGRAM(prints_in_tasks) {
    printf("host;");
    tine_pool_t *pool = pool_of(2);
    for (int i = 0; i < 100; i++) CHECK_OK(tine_pool_submit(pool, print_number, &i, sizeof i, NULL, NULL));
    end_pool(pool);
    printf("end;");
}
/* What a task printed is out when the task has ended: the next one may take the worker and its buffers with it. */
TEST_PROGRAM(prints_before_deaths) {
    share();
    tine_pool_t *pool = pool_of(2);
    for (int i = 0; i < 90; i++) {
        const int way = i % 3; /* not by exit */
        tine_result_free(apply(pool, print_number, &i, sizeof i));
        tine_result_free(apply(pool, die, &way, sizeof way));
    }
    end_pool(pool);
}
static int count_of(const char *text, const char *part) {
    int count = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at += strlen(part)) count++;
    return count;
}
static void check_prints(const char *program, int tasks, size_t length) {
    int out[2];
    make_pipe(out);
    const pid_t pid = run_program(program, out[1]);
    close(out[1]);
    const char *text = hear_all(out[0]);
    CHECK_INT(status_of(pid), 0);
    for (int i = 0; i < tasks; i++) {
        char part[20];
        length += (size_t)snprintf(part, sizeof part, "task %d;", i);
        CHECK_INT(count_of(text, part), 1);
    }
    if (tasks == 100) CHECK(count_of(text, "host;") == 1 && count_of(text, "end;") == 1);
    if (!under_valgrind()) CHECK_INT(strlen(text), length); /* and nothing else, from whomever */
}
TEST(what_host_and_tasks_print_appears_once_and_the_library_prints_nothing) { check_prints("prints_in_tasks", 100, strlen("host;end;")); }
TEST(what_a_task_printed_is_out_when_it_has_ended) { check_prints("prints_before_deaths", 90, 0); }

/* ---- Room ---- */
static void *submit_in_thread(void *pool) {
    count_up(&slow.inside);
    return (void *)(intptr_t)tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL);
}
static tine_pool_t *full_pool(void) { /* of 4: one runs, three are queued */
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    options.workers = 1, options.max_pending = 4;
    share();
    tine_pool_t *pool = pool_with(&options);
    CHECK_OK(tine_pool_submit(pool, wait_at_gate, NULL, 0, NULL, NULL));
    for (int i = 0; i < 3; i++) CHECK_OK(tine_pool_submit(pool, count_run, NULL, 0, NULL, NULL));
    await(&shared->started, 1);
    return pool;
}
TEST(a_full_pool_refuses_or_waits) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    tine_async_t *async = NULL;
    pthread_t thread;
    void *status = NULL;
    tine_pool_t *pool = full_pool();
    options.flags = TINE_SUBMIT_TRY;
    CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 0, &options, &async), TINE_EFULL);
    CHECK_MESSAGE("pool");
    options.flags = 0, options.submit_timeout_ms = 30;
    const int64_t start = now_us();
    /* As with a queue: full is EFULL, also after a real time. */
    CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 0, &options, &async), TINE_EFULL);
    CHECK(now_us() - start >= 30000);
    CHECK(async == NULL);
    const tine_status_t applied = tine_pool_apply(pool, do_nothing, NULL, 0, 20, NULL); /* the timeout bounds the whole call */
    CHECK(applied == TINE_EFULL || applied == TINE_ETIMEDOUT);
    CHECK_INT(stats_of(pool).queued, 3);
    CHECK_INT(stats_of(pool).running, 1);
    CHECK_INT(pthread_create(&thread, NULL, submit_in_thread, pool), 0);
    await(&slow.inside, 1);
    set(&shared->gate, 1);
    CHECK_INT(pthread_join(thread, &status), 0);
    CHECK_STATUS((tine_status_t)(intptr_t)status, TINE_OK);
    options.submit_timeout_ms = 0, options.flags = TINE_SUBMIT_TRY;
    await(&shared->ended, 4);
    CHECK_OK(tine_pool_apply(pool, do_nothing, NULL, 0, TINE_FOREVER, NULL)); /* behind the others: they have ended */
    CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &options, NULL));
    end_pool(pool);
    CHECK_INT(shared->ended, 4);
}

TEST(a_submit_that_waits_for_room_ends_with_the_pool) {
    for (int i = 0; i < 2; i++) {
        pthread_t threads[3];
        tine_pool_t *pool = full_pool();
        slow.inside = 0;
        for (int k = 0; k < 3; k++) CHECK_INT(pthread_create(&threads[k], NULL, submit_in_thread, pool), 0);
        await(&slow.inside, 3);
        if (i == 0) CHECK_OK(tine_pool_close(pool));
        else CHECK_OK(tine_pool_terminate(pool, 1000, NULL));
        for (int k = 0; k < 3; k++) {
            void *status = NULL;
            CHECK_INT(pthread_join(threads[k], &status), 0);
            CHECK_STATUS((tine_status_t)(intptr_t)status, TINE_ECLOSED);
        }
        set(&shared->gate, 1);
        CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
        CHECK_INT(shared->ended, i == 0 ? 4 : 0);
        tine_pool_free(pool);
    }
}

TEST_WITHIN(back_pressure_is_kept_under_load, 60) {
    enum { COUNT = 20000 };
    tine_pool_options_t of_pool = TINE_POOL_OPTIONS_INIT;
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = count_call;
    of_pool.workers = 2, of_pool.max_pending = 7;
    tine_pool_t *pool = pool_with(&of_pool);
    for (intptr_t i = 0; i < COUNT; i++) {
        options.user_data = (void *)i;
        CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &options, NULL));
        if (i % 100 == 0) CHECK(stats_of(pool).queued + stats_of(pool).running <= 2 * 7);
    }
    end_pool(pool);
    for (int i = 0; i < COUNT; i++) CHECK_INT(told[i].calls, 1);
}

/* ---- map ---- */
TEST(map_does_every_item_whatever_the_chunk) {
    enum { COUNT = 1000 };
    static int items[COUNT], results[COUNT];
    size_t failed = 12345;
    tine_pool_t *pool = pool_of(2);
    for (int i = 0; i < COUNT; i++) items[i] = i - 500;
    static const size_t chunks[] = { 0, 1, 7, 100, COUNT, COUNT + 1, SIZE_MAX };
    for (size_t k = 0; k < sizeof chunks / sizeof *chunks; k++)
        for (size_t count = 0; count <= COUNT; count += count < 3 ? 1 : 997) {
            memset(results, 0x5a, sizeof results);
            CHECK_OK(tine_pool_map(pool, square, items, sizeof *items, count, chunks[k], results, sizeof *results, TINE_FOREVER, &failed));
            for (int i = 0; i < COUNT; i++) CHECK_INT(results[i], (size_t)i < count ? items[i] * items[i] : 0x5a5a5a5a);
        }
    CHECK_INT(failed, 12345); /* written on a failure only */
    CHECK_OK(tine_pool_map(pool, do_nothing, NULL, 0, 100, 0, NULL, 0, TINE_FOREVER, NULL)); /* items and results of no bytes */
    end_pool(pool);
}

static int32_t work_on_item(const void *arg, size_t len, tine_task_t *task) {
    const int item = number_in(arg, len);
    count_up(&shared->slots[item]);
    switch (item) {
        case 90: case 37: case 61: return 5;
        case 20: return tine_task_reply(task, "12345", 5); /* longer than the result */
        case 21: return tine_task_reply(task, "ab", 2);    /* shorter */
        case 22: return 0;                                 /* no reply at all */
        case 23: kill(getpid(), SIGKILL);
    }
    return tine_task_reply(task, arg, len);
}
static tine_status_t map_items(tine_pool_t *pool, int from, int to, size_t chunk, int *results, size_t *failed) {
    int items[100];
    for (int i = from; i < to; i++) items[i] = i;
    memset(shared->slots, 0, sizeof shared->slots);
    return tine_pool_map(pool, work_on_item, items + from, sizeof *items, (size_t)(to - from), chunk, results, sizeof *results, TINE_FOREVER, failed);
}
static void check_each_ran_once(int from, int to) { for (int i = from; i < to; i++) CHECK_INT(shared->slots[i], 1); }

TEST(map_runs_all_items_and_tells_the_lowest_that_failed) {
    static const size_t chunks[] = { 0, 1, 8, 100 };
    int results[100];
    share();
    tine_pool_t *pool = pool_of(2);
    for (size_t k = 0; k < sizeof chunks / sizeof *chunks; k++) {
        size_t failed = 1000;
        CHECK_STATUS(map_items(pool, 30, 100, chunks[k], results, &failed), TINE_ETASKFAILED);
        CHECK_INT(failed, 37 - 30);
        check_each_ran_once(30, 100);
        for (int i = 30; i < 100; i++) if (i != 37 && i != 61 && i != 90) CHECK_INT(results[i - 30], i);
        CHECK_STATUS(map_items(pool, 30, 100, chunks[k], results, NULL), TINE_ETASKFAILED);
    }
    end_pool(pool);
}

TEST(map_fills_short_replies_with_zeros_and_refuses_long_ones) {
    int results[100];
    size_t failed = 1000;
    share();
    tine_pool_t *pool = pool_of(2);
    for (size_t chunk = 1; chunk < 30; chunk += 9) {
        memset(results, 0x5a, sizeof results);
        CHECK_OK(map_items(pool, 21, 23, chunk, results, &failed));
        CHECK(memcmp(&results[0], "ab\0\0", 4) == 0);
        CHECK_INT(results[1], 0);
        CHECK_STATUS(map_items(pool, 10, 23, chunk, results, &failed), TINE_ETASKFAILED);
        CHECK_INT(failed, 10);
        check_each_ran_once(10, 23);
        for (int i = 10; i < 20; i++) CHECK_INT(results[i - 10], i);
    }
    end_pool(pool);
}

TEST(a_death_in_a_map_fails_its_item_only) {
    static const size_t chunks[] = { 1, 0, 5, 100 };
    int results[100];
    share();
    tine_pool_t *pool = pool_of(2);
    for (size_t k = 0; k < sizeof chunks / sizeof *chunks; k++) {
        size_t failed = 1000;
        const tine_status_t status = map_items(pool, 21, 36, chunks[k], results, &failed);
        CHECK(status == TINE_ETASKFAILED || status == TINE_EWORKERDIED);
        CHECK_INT(failed, 23 - 21);
        check_each_ran_once(21, 36); /* those of the same chunk, too: map runs all items, each at most once */
        for (int i = 24; i < 36; i++) CHECK_INT(results[i - 21], i);
    }
    check_works(pool);
    end_pool(pool);
}

static int32_t wait_and_reply(const void *arg, size_t len, tine_task_t *task) {
    wait_at_gate(arg, len, task);
    return tine_task_reply(task, arg, len);
}
TEST(a_map_that_ran_out_of_time_writes_nothing_afterwards) {
    static int items[100], results[100], after[100];
    share();
    for (int i = 0; i < 100; i++) items[i] = 1000 + i;
    tine_pool_t *pool = pool_of(2);
    for (size_t chunk = 0; chunk < 2; chunk++) {
        const int started_before = shared->started;
        memset(results, 0x5a, sizeof results);
        set(&shared->gate, 0);
        const int64_t start = now_us();
        CHECK_STATUS(tine_pool_map(pool, wait_and_reply, items, sizeof *items, 100, chunk, results, sizeof *results, 30, NULL), TINE_ETIMEDOUT);
        CHECK(now_us() - start >= 30000);
        memcpy(after, results, sizeof after);
        set(&shared->gate, 1);
        check_works(pool); /* behind all that still ran */
        while (stats_of(pool).running > 0) sched_yield();
        CHECK(memcmp(after, results, sizeof after) == 0);
        if (chunk == 1) CHECK(shared->started <= started_before + 2); /* nothing more starts */
    }
    CHECK_STATUS(tine_pool_map(pool, wait_and_reply, items, sizeof *items, 100, 0, results, sizeof *results, TINE_FOREVER, NULL), TINE_OK);
    CHECK(memcmp(items, results, sizeof items) == 0);
    end_pool(pool);
}

static struct { tine_pool_t *pool; int rounds; } threaded;
static void *use_from_thread(void *offset) {
    enum { COUNT = 200 };
    int items[COUNT], results[COUNT];
    for (int i = 0; i < COUNT; i++) items[i] = i * (int)(intptr_t)offset;
    for (int round = 0; round < threaded.rounds; round++) {
        memset(results, 0, sizeof results);
        CHECK_OK(tine_pool_map(threaded.pool, square, items, sizeof *items, COUNT, (size_t)round, results, sizeof *results, TINE_FOREVER, NULL));
        for (int i = 0; i < COUNT; i++) CHECK_INT(results[i], items[i] * items[i]);
        tine_result_t *result = apply(threaded.pool, square, &items[round], sizeof *items);
        CHECK_INT(number_of(result), items[round] * items[round]);
        tine_result_free(result);
        tine_async_t *async = submit(threaded.pool, square, &items[7], sizeof *items);
        CHECK_INT(number_of(get(async)), items[7] * items[7]);
        tine_async_free(async);
    }
    return NULL;
}
TEST(threads_of_the_host_share_a_pool) {
    pthread_t threads[4];
    threaded.pool = pool_of(2), threaded.rounds = 50;
    for (int i = 0; i < 4; i++) CHECK_INT(pthread_create(&threads[i], NULL, use_from_thread, (void *)(intptr_t)(i + 1)), 0);
    for (int i = 0; i < 4; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    CHECK_INT(stats_of(threaded.pool).failed, 0);
    end_pool(threaded.pool);
}

/* ---- close, join, terminate ---- */
TEST(join_waits_for_what_was_submitted_within_its_timeout) {
    share();
    tine_pool_t *pool = pool_of(2);
    for (int i = 0; i < 10; i++) CHECK_OK(tine_pool_submit(pool, wait_at_gate, NULL, 0, NULL, NULL));
    const pid_t nursery = nursery_of(pool);
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_close(pool));
    CHECK_STATUS(tine_pool_join(pool, 0), TINE_ETIMEDOUT);
    const int64_t start = now_us();
    CHECK_STATUS(tine_pool_join(pool, 30), TINE_ETIMEDOUT);
    CHECK(now_us() - start >= 30000);
    set(&shared->gate, 1);
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    CHECK_INT(shared->ended, 10);
    CHECK_OK(tine_pool_join(pool, 0)); /* any number of times */
    CHECK(await_gone(nursery, 10));
    tine_pool_free(pool);
}

static void *join_in_thread(void *pool) { return (void *)(intptr_t)tine_pool_join(pool, TINE_FOREVER); }
TEST(any_number_of_threads_may_join) {
    pthread_t threads[4];
    share();
    tine_pool_t *pool = pool_of(1);
    CHECK_OK(tine_pool_submit(pool, wait_at_gate, NULL, 0, NULL, NULL));
    CHECK_OK(tine_pool_close(pool));
    for (int i = 0; i < 4; i++) CHECK_INT(pthread_create(&threads[i], NULL, join_in_thread, pool), 0);
    set(&shared->gate, 1);
    for (int i = 0; i < 4; i++) {
        void *status = NULL;
        CHECK_INT(pthread_join(threads[i], &status), 0);
        CHECK_STATUS((tine_status_t)(intptr_t)status, TINE_OK);
    }
    tine_pool_free(pool);
}

TEST(terminate_cancels_what_runs_and_what_is_queued) {
    enum { COUNT = 40 };
    tine_async_t *asyncs[COUNT];
    uint32_t killed = 1000;
    share();
    tine_pool_t *pool = pool_of(2);
    for (int i = 0; i < COUNT; i++) asyncs[i] = submit(pool, wait_at_gate, NULL, 0);
    await(&shared->started, 2);
    CHECK_OK(tine_pool_terminate(pool, 5000, &killed));
    CHECK_INT(killed, 0); /* SIGTERM was enough */
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    for (int i = 0; i < COUNT; i++) {
        CHECK(tine_async_ready(asyncs[i])); /* nothing is left to come */
        CHECK_STATUS(tine_result_status(get(asyncs[i])), TINE_ECANCELED);
        CHECK_INT(exit_of(get(asyncs[i])).reason, TINE_REASON_TERMINATED);
        tine_async_free(asyncs[i]);
    }
    CHECK_INT(shared->started, 2);
    CHECK_INT(shared->ended, 0);
    const tine_pool_stats_t stats = stats_of(pool);
    CHECK_INT(stats.queued + stats.running + stats.done, 0);
    CHECK_INT(stats.failed, COUNT);
    tine_pool_free(pool);
}

static int32_t ignore_term_at_gate(const void *arg, size_t len, tine_task_t *task) {
    signal(SIGTERM, SIG_IGN);
    return wait_at_gate(arg, len, task);
}
TEST(terminate_kills_what_ignores_sigterm_and_counts_it) {
    static const int64_t graces[] = { 0, 100 };
    for (size_t i = 0; i < 2; i++) {
        uint32_t killed = 1000;
        share();
        tine_pool_t *pool = pool_of(3);
        tine_async_t *stubborn = submit(pool, ignore_term_at_gate, NULL, 0), *second = submit(pool, ignore_term_at_gate, NULL, 0);
        await(&shared->started, 2);
        const int64_t start = now_us();
        CHECK_OK(tine_pool_terminate(pool, graces[i], &killed));
        CHECK(now_us() - start >= graces[i] * 1000);
        CHECK(i == 0 ? killed >= 2 : killed == 2); /* without grace, who was in time is a race */
        CHECK_STATUS(end_of(stubborn), TINE_ECANCELED);
        CHECK_STATUS(end_of(second), TINE_ECANCELED);
        CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
        tine_pool_free(pool);
    }
}

static int32_t stop_at_gate(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len, (void)task;
    count_up(&shared->started);
    raise(SIGSTOP);
    return 0;
}
TEST(terminate_reaches_a_stopped_worker) {
    share();
    tine_pool_t *pool = pool_of(1);
    tine_async_t *stopped = submit(pool, stop_at_gate, NULL, 0);
    await(&shared->started, 1);
    CHECK_OK(tine_pool_terminate(pool, 50, NULL));
    const tine_status_t status = end_of(stopped); /* ended by either rule */
    CHECK(status == TINE_ECANCELED || status == TINE_EWORKERDIED);
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    tine_pool_free(pool);
}

/* Threads submit while another ends the pool: every task that was taken ends exactly once, none is forgotten. */
static struct { tine_pool_t *pool; int taken, ended, refused; } race;
static void count_end(const tine_result_t *result, void *unused) { (void)result, (void)unused, count_up(&race.ended); }
static void *submit_until_refused(void *unused) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = options.error_callback = count_end;
    for (;;) {
        const tine_status_t status = tine_pool_submit(race.pool, do_nothing, NULL, 0, &options, NULL);
        if (status != TINE_OK) {
            CHECK_STATUS(status, TINE_ECLOSED);
            count_up(&race.refused);
            return unused;
        }
        count_up(&race.taken);
    }
}
TEST(close_and_terminate_race_with_submits) {
    for (int i = 0; i < 10; i++) {
        pthread_t threads[3];
        memset(&race, 0, sizeof race);
        race.pool = pool_of(2);
        for (int k = 0; k < 3; k++) CHECK_INT(pthread_create(&threads[k], NULL, submit_until_refused, NULL), 0);
        await(&race.taken, 50 * (i + 1));
        if (i % 2 == 0) CHECK_OK(tine_pool_close(race.pool));
        else CHECK_OK(tine_pool_terminate(race.pool, 1000, NULL));
        for (int k = 0; k < 3; k++) CHECK_INT(pthread_join(threads[k], NULL), 0);
        CHECK_OK(tine_pool_join(race.pool, TINE_FOREVER));
        CHECK_INT(race.refused, 3);
        CHECK_INT(race.ended, race.taken);
        const tine_pool_stats_t stats = stats_of(race.pool);
        CHECK_INT(stats.done + stats.failed, race.taken);
        tine_pool_free(race.pool);
    }
}

/* ---- Objects made before the pool ---- */
static struct {
    tine_queue_t *queue;
    tine_lock_t *lock;
    tine_semaphore_t *semaphore;
    tine_event_t *event;
    int inside;
} *objects;
static int32_t use_objects(const void *arg, size_t len, tine_task_t *task) {
    const int number = number_in(arg, len);
    (void)task;
    CHECK_OK(tine_event_wait(objects->event, TINE_FOREVER));
    CHECK_OK(tine_semaphore_acquire(objects->semaphore, TINE_FOREVER));
    CHECK(count_up(&objects->inside) < 2);
    __atomic_fetch_sub(&objects->inside, 1, __ATOMIC_SEQ_CST);
    CHECK_OK(tine_semaphore_release(objects->semaphore, 1));
    CHECK_OK(tine_lock_acquire(objects->lock, TINE_FOREVER));
    shared->order[shared->ended++] = number; /* not atomic */
    CHECK_OK(tine_lock_release(objects->lock));
    return tine_queue_put(objects->queue, &number, sizeof number, TINE_FOREVER);
}
static int32_t put_large(const void *arg, size_t len, tine_task_t *task) {
    (void)task;
    return tine_queue_put(objects->queue, arg, len, TINE_FOREVER);
}
static int32_t hold_lock_and_die(const void *arg, size_t len, tine_task_t *task) {
    CHECK_OK(tine_lock_acquire(objects->lock, TINE_FOREVER));
    return die(arg, len, task);
}
TEST(tasks_use_queues_locks_semaphores_and_events_made_before_the_pool) {
    enum { COUNT = 300 };
    int seen[COUNT] = { 0 };
    share();
    objects = mmap(NULL, sizeof *objects, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(objects != MAP_FAILED);
    CHECK_OK(tine_queue_new(NULL, &objects->queue));
    CHECK_OK(tine_lock_new(NULL, &objects->lock));
    CHECK_OK(tine_semaphore_new(2, 2, NULL, &objects->semaphore));
    CHECK_OK(tine_event_new(NULL, &objects->event));
    tine_pool_t *pool = pool_of(4);
    for (int i = 0; i < COUNT; i++) CHECK_OK(tine_pool_submit(pool, use_objects, &i, sizeof i, NULL, NULL));
    CHECK(tine_queue_is_empty(objects->queue));
    CHECK_OK(tine_event_set(objects->event));
    for (int i = 0; i < COUNT; i++) {
        int number = -1;
        CHECK_OK(tine_queue_get(objects->queue, &number, sizeof number, TINE_FOREVER, NULL));
        CHECK(number >= 0 && number < COUNT);
        seen[number]++;
    }
    for (int i = 0; i < COUNT; i++) CHECK_INT(seen[i], 1);
    CHECK_INT(shared->ended, COUNT);
    for (int i = 0; i < 3; i++) { /* large messages need the queue's descriptor in the worker */
        void *data = NULL;
        size_t len = 0;
        unsigned char *bytes = bytes_of(MIB + (size_t)i);
        CHECK_OK(tine_pool_submit(pool, put_large, bytes, MIB + (size_t)i, NULL, NULL));
        CHECK_OK(tine_queue_get_alloc(objects->queue, TINE_FOREVER, &data, &len));
        check_bytes(data, len, MIB + (size_t)i);
        tine_free(data), free(bytes);
    }
    for (int way = 0; way < WAYS_TO_DIE; way++) {
        tine_result_t *result = apply(pool, hold_lock_and_die, &way, sizeof way);
        check_death(result, way);
        tine_result_free(result);
        CHECK_STATUS(tine_lock_acquire(objects->lock, TINE_FOREVER), TINE_OWNER_DIED);
        CHECK_OK(tine_lock_release(objects->lock));
    }
    CHECK_OK(tine_queue_close(objects->queue)); /* global: workers see it */
    tine_result_t *result = apply(pool, put_large, "x", 1);
    CHECK_STATUS(tine_result_status(result), TINE_ETASKFAILED);
    CHECK_INT(tine_result_code(result), TINE_ECLOSED);
    tine_result_free(result);
    end_pool(pool);
    tine_queue_free(objects->queue), tine_lock_free(objects->lock), tine_semaphore_free(objects->semaphore), tine_event_free(objects->event);
}

/* ---- Workers are ordinary processes ---- */
static int32_t run_commands(const void *arg, size_t len, tine_task_t *task) {
    char line[64] = "";
    int status = 0;
    (void)arg, (void)len;
    const int code = system("exit 7");
    CHECK(WIFEXITED(code) && WEXITSTATUS(code) == 7);
    FILE *output = popen("echo from a command", "r");
    CHECK(output != NULL && fgets(line, sizeof line, output) != NULL && pclose(output) == 0);
    const pid_t child = fork();
    if (child == 0) _exit(9);
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 9);
    return tine_task_reply(task, line, strlen(line));
}
TEST(tasks_run_commands_and_have_children) {
    size_t len = 0;
    signal(SIGCHLD, SIG_IGN); /* the host's, not the workers' */
    tine_pool_t *pool = pool_of(2);
    for (int i = 0; i < 5; i++) {
        tine_result_t *result = apply(pool, run_commands, NULL, 0);
        CHECK_STATUS(tine_result_status(result), TINE_OK);
        const char *text = tine_result_data(result, &len);
        CHECK(len == strlen("from a command\n") && memcmp(text, "from a command\n", len) == 0);
        tine_result_free(result);
    }
    end_pool(pool);
}

static tine_pool_t *first_pool;
static int32_t fork_and_leave_a_child(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len, (void)task;
    pid_t child = fork();
    if (child == 0) for (;;) pause();
    return tine_task_reply(task, &child, sizeof child);
}
TEST(a_pool_ends_although_a_task_left_a_child_running) { /* which is that task's affair, as in Python: the pool ends its own processes */
    for (int i = 0; i < 3; i++) {
        tine_pool_t *pool = pool_of(1);
        const pid_t nursery = nursery_of(pool);
        tine_result_t *result = apply(pool, fork_and_leave_a_child, NULL, 0);
        const pid_t child = number_of(result);
        CHECK(!is_gone(child));
        tine_result_free(result);
        if (i == 0) end_pool(pool);
        else if (i == 1) tine_pool_free(pool);
        else CHECK_OK(tine_pool_terminate(pool, 0, NULL)), tine_pool_free(pool);
        CHECK(await_gone(nursery, 10));
        CHECK(kill(child, SIGKILL) == 0 || errno == ESRCH);
    }
}

static int32_t use_first_pool(const void *arg, size_t len, tine_task_t *task) {
    (void)arg, (void)len;
    const tine_status_t status = tine_pool_apply(first_pool, do_nothing, NULL, 0, TINE_FOREVER, NULL);
    return tine_task_reply(task, &status, sizeof status);
}
static int32_t make_inner_pool(const void *arg, size_t len, tine_task_t *task) {
    tine_pool_t *inner = pool_of(2);
    tine_result_t *result = apply(inner, square, arg, len);
    const int number = number_of(result);
    tine_result_free(result);
    end_pool(inner);
    return tine_task_reply(task, &number, sizeof number);
}
TEST(pools_live_side_by_side_and_in_tasks) {
    const int six = 6;
    first_pool = pool_of(2);
    tine_pool_t *second = pool_of(1);
    tine_result_t *result = apply(second, use_first_pool, NULL, 0);
    CHECK_STATUS(number_of(result), TINE_EFORKED); /* a frozen copy of a handle is as inert as a forked one */
    tine_result_free(result);
    result = apply(second, make_inner_pool, &six, sizeof six); /* a worker may have a pool of its own */
    CHECK_STATUS(tine_result_status(result), TINE_OK);
    CHECK_INT(number_of(result), 36);
    tine_result_free(result);
    const pid_t nursery = nursery_of(first_pool);
    end_pool(first_pool); /* the second nursery holds nothing that keeps the first one alive */
    CHECK(await_gone(nursery, 10));
    check_works(second);
    end_pool(second);
}

/* ---- Options ---- */
TEST(a_running_time_limit_ends_the_worker) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    tine_async_t *async = NULL;
    share();
    tine_pool_t *pool = pool_of(1);
    options.timeout_ms = 50;
    CHECK_OK(tine_pool_submit(pool, wait_at_gate, NULL, 0, &options, &async));
    CHECK_STATUS(tine_result_status(get(async)), TINE_ETIMEDOUT);
    CHECK_INT(exit_of(get(async)).reason, TINE_REASON_TIMEOUT);
    tine_async_free(async);
    check_works(pool);
    end_pool(pool);
}

TEST(a_worker_retires_after_so_many_tasks) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_pool_t *pool = NULL;
    pid_t pids[10];
    options.workers = 1, options.max_tasks_per_worker = 3;
    CHECK_OK(tine_pool_new(&options, &pool));
    for (int i = 0; i < 9; i++) {
        tine_result_t *result = apply(pool, do_nothing, NULL, 0);
        pids[i] = tine_result_worker_pid(result);
        tine_result_free(result);
    }
    for (int i = 1; i < 9; i++) CHECK((pids[i] == pids[i - 1]) == (i % 3 != 0));
    CHECK_INT(stats_of(pool).worker_deaths, 0);
    end_pool(pool);
}

TEST(a_queued_task_that_is_cancelled_never_runs) {
    share();
    tine_pool_t *pool = pool_of(1);
    CHECK_OK(tine_pool_submit(pool, wait_at_gate, NULL, 0, NULL, NULL));
    await(&shared->started, 1);
    tine_async_t *queued = submit(pool, count_run, NULL, 0);
    CHECK_OK(tine_async_cancel(queued));
    CHECK_STATUS(end_of(queued), TINE_ECANCELED);
    set(&shared->gate, 1);
    end_pool(pool);
    CHECK_INT(shared->ended, 1);
}

TEST(a_pool_in_the_loop_of_its_host_has_no_thread) {
    tine_pool_options_t of_pool = TINE_POOL_OPTIONS_INIT;
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    tine_pool_t *pool = NULL;
    size_t count = 0;
    const int threads = threads_of_host();
    of_pool.workers = 1, of_pool.flags = TINE_POOL_HOST_LOOP;
    CHECK_OK(tine_pool_new(&of_pool, &pool));
    CHECK_INT(threads_of_host(), threads);
    options.callback = note_order;
    CHECK_STATUS(tine_pool_poll(pool, 0, 0, &count), TINE_ETIMEDOUT);
    for (int i = 0; i < 10; i++) CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &options, NULL));
    while (order_told_count < 10) {
        struct pollfd ready = { tine_pool_fd(pool), POLLIN, 0 };
        CHECK_INT(poll(&ready, 1, -1), 1);
        const tine_status_t status = tine_pool_poll(pool, 0, 3, &count);
        CHECK(status == TINE_OK ? count >= 1 && count <= 3 : status == TINE_ETIMEDOUT);
    }
    check_works(pool);
    end_pool(pool);
}
