/* One pool, three different functions: a task is any function of the program and its argument. After Pool(4)
 * with a list of worker_1, worker_2, worker_3 handed to apply_async in a loop. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include <tine.h>

enum { FUNCTIONS = 3 };

static int32_t worker_1(const void *arg, size_t arg_len, tine_task_t *task)
{
    char text[32];

    (void)arg;
    int length = snprintf(text, sizeof text, "%zu letters", arg_len);
    return tine_task_reply(task, text, (size_t)length) < 0;
}

static int32_t worker_2(const void *arg, size_t arg_len, tine_task_t *task)
{
    const unsigned char *word = arg;
    char text[32];
    size_t length = arg_len < sizeof text ? arg_len : sizeof text;

    for (size_t i = 0; i < length; i++) text[i] = (char)toupper(word[i]);
    return tine_task_reply(task, text, length) < 0;
}

static int32_t worker_3(const void *arg, size_t arg_len, tine_task_t *task)
{
    const char *word = arg;
    char text[32];
    size_t length = arg_len < sizeof text ? arg_len : sizeof text;

    for (size_t i = 0; i < length; i++) text[i] = word[length - 1 - i];
    return tine_task_reply(task, text, length) < 0;
}

int main(void)
{
    static const tine_task_fn functions[FUNCTIONS] = { worker_1, worker_2, worker_3 };
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_async_t *asyncs[FUNCTIONS] = { NULL };
    tine_pool_t *pool = NULL;
    int exit_status = EXIT_FAILURE;

    options.workers = 4;
    if (tine_pool_new(&options, &pool) < 0) goto out;
    for (int i = 0; i < FUNCTIONS; i++)
        if (tine_pool_submit(pool, functions[i], "stressed", 8, NULL, &asyncs[i]) < 0) goto out;
    printf("Waiting for all subprocesses done...\n");
    for (int i = 0; i < FUNCTIONS; i++) {
        const tine_result_t *result = NULL;
        size_t length = 0;
        if (tine_async_get(asyncs[i], TINE_FOREVER, &result) < 0 || tine_result_status(result) < 0) goto out;
        const char *text = tine_result_data(result, &length);
        printf("worker_%d: %.*s\n", i + 1, (int)length, text);
    }
    if (tine_pool_close(pool) < 0 || tine_pool_join(pool, TINE_FOREVER) < 0) goto out;
    printf("All subprocesses done. exiting ...\n");
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    for (int i = 0; i < FUNCTIONS; i++) tine_async_free(asyncs[i]);
    tine_pool_free(pool);
    return exit_status;
}
