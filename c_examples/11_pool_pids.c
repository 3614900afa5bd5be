/* Ten tasks in a pool of 3 run in three processes. After Pool(3) with ten apply_async(worker), where only
 * three pids appear.
 *
 * The first three tasks wait for each other, so that all three workers take part; who gets the other seven is
 * chance. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tine.h>

enum { WORKERS = 3, TASKS = 10 };

static tine_semaphore_t *arrived;           /* made before the pool: its workers inherit the handles */
static tine_event_t *all_here;

static int32_t worker(const void *arg, size_t arg_len, tine_task_t *task)
{
    int number;

    (void)arg_len, (void)task;
    memcpy(&number, arg, sizeof number);
    if (number >= WORKERS) return 0;
    return tine_semaphore_release(arrived, 1) < 0 || tine_event_wait(all_here, TINE_FOREVER) < 0;
}

int main(void)
{
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_async_t *asyncs[TASKS] = { NULL };
    tine_pool_t *pool = NULL;
    int32_t pids[TASKS];
    int exit_status = EXIT_FAILURE, processes = 0;

    if (tine_semaphore_new(0, 0, NULL, &arrived) < 0 || tine_event_new(NULL, &all_here) < 0) goto out;
    options.workers = WORKERS;
    if (tine_pool_new(&options, &pool) < 0) goto out;
    for (int i = 0; i < TASKS; i++)
        if (tine_pool_submit(pool, worker, &i, sizeof i, NULL, &asyncs[i]) < 0) goto out;
    printf("---start---\n");
    for (int i = 0; i < WORKERS; i++)
        if (tine_semaphore_acquire(arrived, TINE_FOREVER) < 0) goto out;
    if (tine_event_set(all_here) < 0) goto out;

    for (int i = 0; i < TASKS; i++) {
        const tine_result_t *result = NULL;
        int before = 0;
        if (tine_async_get(asyncs[i], TINE_FOREVER, &result) < 0 || tine_result_status(result) < 0) goto out;
        pids[i] = tine_result_worker_pid(result);
        printf("task %d ran in process (%d)\n", i, pids[i]);
        while (before < i && pids[before] != pids[i]) before++;
        processes += before == i;           /* the first time that this one appears */
    }
    if (tine_pool_close(pool) < 0 || tine_pool_join(pool, TINE_FOREVER) < 0) goto out;
    printf("%d tasks, %d processes\n", TASKS, processes);
    printf("---end---\n");
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    for (int i = 0; i < TASKS; i++) tine_async_free(asyncs[i]);
    tine_pool_free(pool);
    tine_semaphore_free(arrived);
    tine_event_free(all_here);
    return exit_status;
}
