/* A queue used by the tasks of a pool. After Manager().Queue() with a blocking apply of writer, which puts
 * the letters of "dongGe", and then of reader. No manager is needed: the queue lies in shared memory.
 *
 * The queue is made before the pool, so that the workers inherit it, and the initializer hands it to each
 * worker's tasks. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <tine.h>

static int32_t initialize(void *user_data, void **out_state)
{
    *out_state = user_data;
    return 0;
}

static int32_t writer(const void *arg, size_t arg_len, tine_task_t *task)
{
    tine_queue_t *queue = tine_task_worker_state(task);
    const char *letters = arg;

    printf("writer starts (%d), it works for (%d)\n", getpid(), tine_host_pid());
    for (size_t i = 0; i < arg_len; i++)
        if (tine_queue_put(queue, &letters[i], 1, TINE_FOREVER) < 0) return 1;
    return 0;
}

static int32_t reader(const void *arg, size_t arg_len, tine_task_t *task)
{
    tine_queue_t *queue = tine_task_worker_state(task);

    (void)arg, (void)arg_len;
    printf("reader starts (%d), it works for (%d)\n", getpid(), tine_host_pid());
    for (size_t n = tine_queue_size(queue); n > 0; n--) {
        char letter = 0;
        if (tine_queue_get(queue, &letter, 1, TINE_FOREVER, NULL) < 0) return 1;
        printf("reader gets from the queue: %c\n", letter);
    }
    return 0;
}

int main(void)
{
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_result_t *written = NULL, *read = NULL;
    tine_queue_t *queue = NULL;
    tine_pool_t *pool = NULL;
    int exit_status = EXIT_FAILURE;

    setvbuf(stdout, NULL, _IOLBF, 0);       /* several processes print: each line leaves at once */
    printf("(%d) start\n", getpid());
    if (tine_queue_new(NULL, &queue) < 0) goto out;
    options.initializer = initialize;
    options.user_data = queue;
    if (tine_pool_new(&options, &pool) < 0) goto out;
    if (tine_pool_apply(pool, writer, "dongGe", 6, TINE_FOREVER, &written) < 0 || tine_result_status(written) < 0) goto out;
    if (tine_pool_apply(pool, reader, NULL, 0, TINE_FOREVER, &read) < 0 || tine_result_status(read) < 0) goto out;
    if (tine_pool_close(pool) < 0 || tine_pool_join(pool, TINE_FOREVER) < 0) goto out;
    printf("(%d) End\n", getpid());
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    tine_result_free(written);
    tine_result_free(read);
    tine_pool_free(pool);
    tine_queue_free(queue);
    return exit_status;
}
