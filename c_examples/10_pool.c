/* A pool of 4 workers gets 5 tasks: task 4 waits until a worker is free. After Pool(4) with five
 * apply_async(long_time_task).
 *
 * What ends when is left to sleep(random()) there and steered by events here, so that the program can show
 * what must happen: task 2 ends first, and its worker goes on with task 4. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tine.h>

enum { WORKERS = 4, TASKS = 5 };

static tine_semaphore_t *started;           /* made before the pool: its workers inherit the handles */
static tine_event_t *finish[TASKS];

static int32_t long_time_task(const void *arg, size_t arg_len, tine_task_t *task)
{
    int number;

    (void)arg_len, (void)task;
    memcpy(&number, arg, sizeof number);    /* a task gets bytes, of no particular alignment */
    printf("Run task %d (%d)...\n", number, getpid());
    if (tine_semaphore_release(started, 1) < 0 || tine_event_wait(finish[number], TINE_FOREVER) < 0)
        return 1;
    printf("Task %d ends.\n", number);
    return 0;
}

int main(void)
{
    static const int order_of_ends[TASKS] = { 2, 0, 1, 3, 4 };
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_pool_stats_t stats = TINE_POOL_STATS_INIT;
    tine_async_t *asyncs[TASKS] = { NULL };
    tine_pool_t *pool = NULL;
    int exit_status = EXIT_FAILURE;

    setvbuf(stdout, NULL, _IOLBF, 0);       /* several processes print: each line leaves at once */
    if (tine_semaphore_new(0, 0, NULL, &started) < 0) goto out;
    for (int i = 0; i < TASKS; i++)
        if (tine_event_new(NULL, &finish[i]) < 0) goto out;
    options.workers = WORKERS;
    if (tine_pool_new(&options, &pool) < 0) goto out;

    printf("Parent process (%d).\n", getpid());
    for (int i = 0; i < TASKS; i++) {
        if (tine_pool_submit(pool, long_time_task, &i, sizeof i, NULL, &asyncs[i]) < 0) goto out;
        if (i < WORKERS && tine_semaphore_acquire(started, TINE_FOREVER) < 0) goto out;
    }
    if (tine_pool_stats(pool, &stats) < 0) goto out;
    printf("Waiting for all subprocesses done: %d tasks run, %d waits.\n", (int)stats.running, (int)stats.queued);
    for (int i = 0; i < TASKS; i++) {
        if (tine_event_set(finish[order_of_ends[i]]) < 0) goto out;
        if (tine_async_wait(asyncs[order_of_ends[i]], TINE_FOREVER) < 0) goto out;
        if (i == 0 && tine_semaphore_acquire(started, TINE_FOREVER) < 0) goto out;  /* task 4 has its worker */
    }
    if (tine_pool_close(pool) < 0 || tine_pool_join(pool, TINE_FOREVER) < 0) goto out;
    printf("All subprocesses done.\n");
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    tine_pool_free(pool);
    for (int i = 0; i < TASKS; i++) {
        tine_async_free(asyncs[i]);
        tine_event_free(finish[i]);
    }
    tine_semaphore_free(started);
    return exit_status;
}
