/* Blocking apply: the caller waits for each task, so the tasks run one after the other although the pool has
 * 3 workers. After Pool(3) with four pool.apply(func, (i,)). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tine.h>

static int32_t func(const void *arg, size_t arg_len, tine_task_t *task)
{
    int id;

    (void)arg_len, (void)task;
    memcpy(&id, arg, sizeof id);
    printf("ID: %d\n", id);
    printf("end of process (%d)\n", getpid());
    return 0;
}

int main(void)
{
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_pool_t *pool = NULL;
    tine_result_t *result = NULL;
    int exit_status = EXIT_FAILURE;

    setvbuf(stdout, NULL, _IOLBF, 0);       /* several processes print: each line leaves at once */
    options.workers = 3;
    if (tine_pool_new(&options, &pool) < 0) goto out;
    for (int i = 0; i < 4; i++) {
        if (tine_pool_apply(pool, func, &i, sizeof i, TINE_FOREVER, &result) < 0) goto out;
        printf("task %d: %s\n", i, tine_result_status(result) == TINE_OK ? "done" : "failed");
        tine_result_free(result);
        result = NULL;
    }
    printf("closing the pool !!!\n");
    if (tine_pool_close(pool) < 0 || tine_pool_join(pool, TINE_FOREVER) < 0) goto out;
    printf("Sub-process(es) done.\n");
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    tine_result_free(result);
    tine_pool_free(pool);
    return exit_status;
}
