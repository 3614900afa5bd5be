/* Pools of every kind with tasks of every kind, by chance: each task ends exactly once and as it must, and nothing is left.
 * TINE_SOAK_SECONDS (2) says for how long, TINE_SOAK_SEED which chance. */
#include "pool_tools.h"

static uint64_t seed;
static int first_seed;
static uint32_t random_below(uint32_t below) {
    seed += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = seed;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9), z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((z ^ (z >> 31)) % below);
}
static int number_from(const char *name, int otherwise) {
    const char *value = getenv(name);
    return value != NULL ? atoi(value) : otherwise;
}

enum { QUICK, BUSY, LONG_REPLY, FAILING, CRASHING, RUNS_OUT, CANCELED, KINDS, MANY = 250, LONG = 100000 };
struct order { int kind, way, length; };
static struct order orders[MANY];
static struct told { int count, data_is_right; tine_status_t status; size_t len; } told[MANY];
static tine_async_t *asyncs[MANY];

static int32_t obey(const void *arg, size_t len, tine_task_t *task) {
    static __thread char reply[LONG];
    struct order order;
    CHECK_INT(len, sizeof order);
    memcpy(&order, arg, sizeof order);
    switch (order.kind) {
        case BUSY: poll(NULL, 0, order.length % 4); return tine_task_reply(task, &order, sizeof order);
        case LONG_REPLY: memset(reply, order.way, LONG); return tine_task_reply(task, reply, (size_t)order.length);
        case FAILING: return 7;
        case CRASHING: return die(&order.way, sizeof order.way, task);
        case RUNS_OUT: case CANCELED: for (;;) pause();
        default: return tine_task_reply(task, &order, sizeof order);
    }
}
static int is_right(const tine_result_t *result, const struct order *order) {
    size_t len = 0;
    const char *data = tine_result_data(result, &len);
    if (order->kind != LONG_REPLY) return len == sizeof *order && memcmp(data, order, len) == 0;
    for (size_t i = 0; i < len; i++)
        if (data[i] != (char)order->way) return 0;
    return len == (size_t)order->length;
}
static void note(const tine_result_t *result, void *user_data) {
    struct told *its = user_data;
    its->count++;
    its->status = tine_result_status(result);
    tine_result_data(result, &its->len);
    its->data_is_right = its->status != TINE_OK || is_right(result, &orders[its - told]);
}

static struct sum { int pools, tasks, deaths, terminated; } sum;
static void round_of_chance(void) {
    static const uint32_t flags[] = { 0, 0, TINE_POOL_HOST_LOOP, TINE_POOL_HOST_LOOP, TINE_POOL_THREADS, TINE_POOL_THREADS | TINE_POOL_HOST_LOOP };
    tine_pool_options_t of_pool = TINE_POOL_OPTIONS_INIT;
    of_pool.flags = flags[random_below(6)], of_pool.workers = 1 + random_below(4), of_pool.crash_budget = 1000000;
    of_pool.max_pending = random_below(3) == 0 ? 1 + random_below(20) : 0;
    const int threads = (of_pool.flags & TINE_POOL_THREADS) != 0, loop = (of_pool.flags & TINE_POOL_HOST_LOOP) != 0;
    if (!threads && random_below(3) == 0) of_pool.max_tasks_per_worker = 1 + random_below(20);
    tine_pool_t *pool = pool_with(&of_pool);
    const int count = 1 + (int)random_below(MANY), stop_at = random_below(4) == 0 ? (int)random_below((uint32_t)count) : -1;
    memset(told, 0, sizeof told), memset(asyncs, 0, sizeof asyncs);
    int submitted = 0;
    for (; submitted < count && submitted != stop_at; submitted++) {
        tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
        struct order *order = &orders[submitted];
        *order = (struct order){ (int)random_below(threads ? FAILING + 1 : KINDS), (int)random_below(WAYS_TO_DIE), (int)random_below(LONG) };
        if (random_below(2) == 0) order->kind = QUICK;
        options.callback = options.error_callback = note, options.user_data = &told[submitted];
        if (order->kind == RUNS_OUT) options.timeout_ms = 1 + random_below(10);
        if (order->kind == CRASHING) options.max_attempts = random_below(3);
        const int with_async = order->kind == CANCELED || random_below(2) == 0;
        CHECK_OK(tine_pool_submit(pool, obey, order, sizeof *order, &options, with_async ? &asyncs[submitted] : NULL));
        if (order->kind == CANCELED && random_below(2) == 0) CHECK_OK(tine_async_cancel(asyncs[submitted]));
        else if (order->kind == CANCELED && of_pool.max_pending != 0) CHECK_OK(tine_async_cancel(asyncs[submitted])); /* it would fill the pool */
        if (loop && random_below(8) == 0) tine_pool_poll(pool, 0, random_below(5), NULL);
        if (!threads && random_below(60) == 0) CHECK_OK(tine_pool_resize(pool, 1 + random_below(4)));
    }
    const int terminated = submitted == stop_at;
    if (terminated) CHECK_OK(tine_pool_terminate(pool, threads ? TINE_FOREVER : (int64_t)random_below(3), NULL));
    for (int i = 0; i < submitted; i++)
        if (orders[i].kind == CANCELED) CHECK_OK(tine_async_cancel(asyncs[i]));
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    int done = 0;
    for (int i = 0; i < submitted; i++) {
        static const tine_status_t ends[KINDS] = { TINE_OK, TINE_OK, TINE_OK, TINE_ETASKFAILED, TINE_EWORKERDIED, TINE_ETIMEDOUT, TINE_ECANCELED };
        CHECK_INT(told[i].count, 1);
        if (told[i].status != ends[orders[i].kind] && !(terminated && told[i].status == TINE_ECANCELED))
            TEST_FAIL("task %d of kind %d ended as %s", i, orders[i].kind, tine_strerror(told[i].status));
        if (!told[i].data_is_right)
            TEST_FAIL("seed %d, pool %d, flags %u: task %d of kind %d: %zu bytes are not its reply of %d", first_seed, sum.pools,
                      (unsigned)of_pool.flags, i, orders[i].kind, told[i].len, orders[i].length);
        if (asyncs[i] != NULL) CHECK_STATUS(end_of(asyncs[i]), told[i].status);
        done += told[i].status == TINE_OK;
    }
    const tine_pool_stats_t stats = stats_of(pool);
    CHECK_INT(stats.done, done);
    CHECK_INT(stats.failed, submitted - done);
    CHECK_INT(stats.queued + stats.running + stats.workers, 0);
    tine_pool_free(pool);
    sum.pools++, sum.tasks += submitted, sum.deaths += (int)stats.worker_deaths, sum.terminated += terminated;
}
TEST_WITHIN(every_task_ends_once_and_as_it_must, 700) {
    const int64_t end = now_us() + INT64_C(1000000) * number_from("TINE_SOAK_SECONDS", 2);
    first_seed = number_from("TINE_SOAK_SEED", 1);
    seed = (uint64_t)first_seed;
    share();
    tine_pool_free(pool_of(1)); /* what is made once */
    const int fds = test_count_fds(), threads = threads_of_host(), mappings = test_count_mappings("memfd:tine");
    do {
        round_of_chance();
        CHECK_INT(test_count_fds(), fds);
        CHECK_INT(threads_of_host(), threads);
        CHECK_INT(test_count_mappings("memfd:tine"), mappings);
        CHECK_INT(test_count_children(), 0);
    } while (now_us() < end);
    printf("# seed %d: %d pools, %d terminated; %d tasks, %d deaths\n", first_seed, sum.pools, sum.terminated, sum.tasks, sum.deaths);
}
