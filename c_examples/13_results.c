/* What the tasks reply is collected by get, in the order of submission, whatever the order in which they
 * ended. After Pool(4) with ten apply_async(func) whose results are appended to a list and asked one by one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tine.h>

enum { TASKS = 10 };

static int32_t func(const void *arg, size_t arg_len, tine_task_t *task)
{
    char text[16];
    int id, length;

    (void)arg_len;
    memcpy(&id, arg, sizeof id);
    length = snprintf(text, sizeof text, "done%d", id);
    return tine_task_reply(task, text, (size_t)length) < 0;
}

int main(void)
{
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_async_t *asyncs[TASKS] = { NULL };
    tine_pool_t *pool = NULL;
    int exit_status = EXIT_FAILURE;

    options.workers = 4;
    if (tine_pool_new(&options, &pool) < 0) goto out;
    for (int i = 0; i < TASKS; i++)
        if (tine_pool_submit(pool, func, &i, sizeof i, NULL, &asyncs[i]) < 0) goto out;
    if (tine_pool_close(pool) < 0 || tine_pool_join(pool, TINE_FOREVER) < 0) goto out;
    for (int i = 0; i < TASKS; i++) {
        const tine_result_t *result = NULL; /* belongs to its async */
        size_t length = 0;
        if (tine_async_get(asyncs[i], TINE_FOREVER, &result) < 0 || tine_result_status(result) < 0) goto out;
        const char *text = tine_result_data(result, &length);
        printf("::: %.*s\n", (int)length, text);
    }
    printf("Sub-process(es) done.\n");
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    for (int i = 0; i < TASKS; i++) tine_async_free(asyncs[i]);
    tine_pool_free(pool);
    return exit_status;
}
