/* A queue that is younger than the pool whose tasks use it. Workers inherit what there was when their pool was made; what comes
 * later goes to them as a token in a task's argument: 32 bytes that lead to the object as long as its maker has it. */
#include <stdio.h>
#include <stdlib.h>

#include <tine.h>

struct work {
    tine_token_t queue;
    int number;
};

static int32_t square(const void *arg, size_t arg_len, tine_task_t *task)
{
    const struct work *work = arg;
    tine_queue_t *queue = NULL;
    int32_t failed = 1;

    (void)arg_len, (void)task;
    if (tine_queue_attach(&work->queue, &queue) < 0) return 1;
    const int result = work->number * work->number;
    failed = tine_queue_put(queue, &result, sizeof result, TINE_FOREVER) < 0;
    tine_queue_free(queue);
    return failed;
}

int main(void)
{
    tine_pool_t *pool = NULL;
    tine_queue_t *queue = NULL;
    struct work work = { .number = 0 };
    int exit_status = EXIT_FAILURE, sum = 0;

    if (tine_pool_new(NULL, &pool) < 0) goto out;
    if (tine_queue_new(NULL, &queue) < 0 || tine_queue_token(queue, &work.queue) < 0) goto out;
    for (work.number = 1; work.number <= 10; work.number++)
        if (tine_pool_submit(pool, square, &work, sizeof work, NULL, NULL) < 0) goto out;
    for (int i = 0; i < 10; i++) {
        int result = 0;
        if (tine_queue_get(queue, &result, sizeof result, 10000, NULL) < 0) goto out;
        sum += result;
    }
    printf("the squares of 1 to 10 sum up to %d\n", sum);
    if (tine_pool_close(pool) < 0 || tine_pool_join(pool, TINE_FOREVER) < 0) goto out;
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    tine_pool_free(pool);
    tine_queue_free(queue);
    return exit_status;
}
