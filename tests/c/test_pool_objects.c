/* Tasks that use shared objects: by the handles of objects that are older than the pool, by the tokens of those that are younger. */
#include "pool_tools.h"

enum { TASKS = 40, SHARES = 8 };
static struct objects {
    tine_lock_t *lock;
    tine_semaphore_t *permits;
    tine_event_t *go;
    tine_condition_t *changed;
    tine_barrier_t *both;
    tine_shared_memory_t *memory;
    tine_queue_t *queue;
} inherited;
struct tokens { tine_token_t lock, permits, go, changed, both, memory, queue; };

static void make(struct objects *objects) {
    CHECK_OK(tine_lock_new(NULL, &objects->lock));
    CHECK_OK(tine_semaphore_new(1, 1, NULL, &objects->permits));
    CHECK_OK(tine_event_new(NULL, &objects->go));
    CHECK_OK(tine_condition_new(NULL, &objects->changed));
    CHECK_OK(tine_barrier_new(2, NULL, &objects->both));
    CHECK_OK(tine_shared_memory_new(SHARES * sizeof(int), NULL, &objects->memory));
    CHECK_OK(tine_queue_new(NULL, &objects->queue));
}
static void release(const struct objects *objects) {
    tine_lock_free(objects->lock), tine_semaphore_free(objects->permits), tine_event_free(objects->go);
    tine_condition_free(objects->changed), tine_barrier_free(objects->both), tine_shared_memory_free(objects->memory);
    tine_queue_free(objects->queue);
}
static void describe(const struct objects *objects, struct tokens *tokens) {
    memset(tokens, 0, sizeof *tokens);
    CHECK_OK(tine_lock_token(objects->lock, &tokens->lock));
    CHECK_OK(tine_semaphore_token(objects->permits, &tokens->permits));
    CHECK_OK(tine_event_token(objects->go, &tokens->go));
    CHECK_OK(tine_condition_token(objects->changed, &tokens->changed));
    CHECK_OK(tine_barrier_token(objects->both, &tokens->both));
    CHECK_OK(tine_shared_memory_token(objects->memory, &tokens->memory));
    CHECK_OK(tine_queue_token(objects->queue, &tokens->queue));
}
static int attach(const struct tokens *tokens, struct objects *objects) {
    return tine_lock_attach(&tokens->lock, &objects->lock) == TINE_OK && tine_semaphore_attach(&tokens->permits, &objects->permits) == TINE_OK &&
           tine_event_attach(&tokens->go, &objects->go) == TINE_OK && tine_condition_attach(&tokens->changed, &objects->changed) == TINE_OK &&
           tine_barrier_attach(&tokens->both, &objects->both) == TINE_OK && tine_shared_memory_attach(&tokens->memory, &objects->memory) == TINE_OK &&
           tine_queue_attach(&tokens->queue, &objects->queue) == TINE_OK;
}

/* Two tasks at a time meet at the barrier; one waits on the condition for the other. Answers where it failed. */
static int use(const struct objects *objects, int number) {
    int *shares = tine_shared_memory_data(objects->memory);
    uint32_t index = 0;
    if (tine_event_wait(objects->go, TINE_FOREVER) != TINE_OK) return 1;
    if (tine_barrier_wait(objects->both, TINE_FOREVER, &index) != TINE_OK || index > 1) return 2;
    if (tine_lock_acquire(objects->lock, TINE_FOREVER) != TINE_OK) return 3;
    shares[0]++;
    if (tine_condition_notify_all(objects->changed) != TINE_OK) return 4;
    while (shares[0] % 2 != 0)
        if (tine_condition_wait(objects->changed, objects->lock, TINE_FOREVER) != TINE_OK) return 5;
    if (tine_lock_release(objects->lock) != TINE_OK) return 6;
    if (tine_barrier_wait(objects->both, TINE_FOREVER, NULL) != TINE_OK) return 7; /* neither is a pair ahead */
    if (tine_semaphore_acquire(objects->permits, TINE_FOREVER) != TINE_OK) return 8;
    shares[1] += number;
    if (tine_semaphore_release(objects->permits, 1) != TINE_OK) return 9;
    return tine_queue_put(objects->queue, &number, sizeof number, TINE_FOREVER) != TINE_OK ? 10 : 0;
}
static int32_t use_inherited(const void *arg, size_t len, tine_task_t *task) { return (void)task, use(&inherited, number_in(arg, len)); }
struct order { struct tokens tokens; int number; };
static int32_t use_attached(const void *arg, size_t len, tine_task_t *task) {
    struct objects objects;
    struct order order;
    memcpy(&order, arg, len);
    memset(&objects, 0, sizeof objects);
    const int attached = attach(&order.tokens, &objects), failed = attached ? use(&objects, order.number) : 100;
    if (failed != 0) tine_task_reply(task, tine_last_error_message(), strlen(tine_last_error_message()));
    release(&objects);
    return failed;
}
static void run_all(tine_pool_t *pool, const struct objects *objects, tine_task_fn fn, const struct order *order) {
    tine_async_t *asyncs[TASKS];
    int sum = 0;
    for (int i = 0; i < TASKS; i++) {
        struct order its = { .number = i };
        if (order != NULL) its.tokens = order->tokens;
        asyncs[i] = order != NULL ? submit(pool, fn, &its, sizeof its) : submit(pool, fn, &i, sizeof i);
    }
    CHECK_OK(tine_event_set(objects->go));
    for (int i = 0; i < TASKS; i++) {
        size_t len = 0;
        const tine_result_t *result = get(asyncs[i]);
        const char *text = tine_result_data(result, &len);
        if (tine_result_status(result) != TINE_OK) TEST_FAIL("task %d failed at %d: %.*s", i, (int)tine_result_code(result), (int)len, text);
        tine_async_free(asyncs[i]);
    }
    for (int i = 0; i < TASKS; i++) {
        int number = -1;
        CHECK_OK(tine_queue_get(objects->queue, &number, sizeof number, 0, NULL));
        sum += number;
    }
    const int *shares = tine_shared_memory_data(objects->memory);
    CHECK_INT(sum, TASKS * (TASKS - 1) / 2);
    CHECK_INT(shares[0], TASKS);
    CHECK_INT(shares[1], sum);
}

TEST(tasks_use_what_is_older_than_their_pool_by_its_handle) {
    make(&inherited);
    tine_pool_t *pool = pool_of(2);
    run_all(pool, &inherited, use_inherited, NULL);
    end_pool(pool);
    release(&inherited);
}
TEST(tasks_use_what_is_younger_than_their_pool_by_its_token) {
    struct objects objects;
    struct order order = { .number = 0 };
    tine_pool_t *pool = pool_of(2);
    make(&objects);
    describe(&objects, &order.tokens);
    run_all(pool, &objects, use_attached, &order);
    end_pool(pool);
    release(&objects);
}
TEST(threads_use_handles_as_everybody_does) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    options.workers = 2, options.flags = TINE_POOL_THREADS;
    tine_pool_t *pool = pool_with(&options);
    make(&inherited); /* it need not be older: there is only one process */
    run_all(pool, &inherited, use_inherited, NULL);
    end_pool(pool);
    release(&inherited);
}
