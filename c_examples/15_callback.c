/* The task runs in a worker, its callback in the parent. After apply_async(func=test, callback=test2), where
 * test prints its pid and ppid and returns "hahah".
 *
 * Callbacks run one at a time on the pool's own thread; join returns when the last one has returned. A worker
 * is not a child of the process that made the pool: its parent is the pool's nursery, and tine_host_pid() is
 * the process that it works for. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <tine.h>

static int32_t test(const void *arg, size_t arg_len, tine_task_t *task)
{
    (void)arg, (void)arg_len;
    printf("---process in the pool--pid=(%d), host=(%d)---\n", getpid(), tine_host_pid());
    for (int i = 0; i < 3; i++) printf("---%d---\n", i);
    return tine_task_reply(task, "hahah", 5) < 0;
}

static void test2(const tine_result_t *result, void *user_data)
{
    size_t length = 0;
    const char *text = tine_result_data(result, &length);

    printf("---callback func--pid=(%d)---\n", getpid());
    printf("---callback func--args=%.*s---\n", (int)length, text);
    ++*(int *)user_data;
}

int main(void)
{
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_submit_options_t submit = TINE_SUBMIT_OPTIONS_INIT;
    tine_pool_t *pool = NULL;
    int exit_status = EXIT_FAILURE, calls = 0;

    setvbuf(stdout, NULL, _IOLBF, 0);       /* several processes print: each line leaves at once */
    printf("---main process-pid=(%d)---\n", getpid());
    options.workers = 3;
    if (tine_pool_new(&options, &pool) < 0) goto out;
    submit.callback = test2;
    submit.user_data = &calls;
    if (tine_pool_submit(pool, test, NULL, 0, &submit, NULL) < 0) goto out;
    if (tine_pool_close(pool) < 0 || tine_pool_join(pool, TINE_FOREVER) < 0) goto out;
    printf("---main process-pid=(%d), callbacks=%d---\n", getpid(), calls);
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    tine_pool_free(pool);
    return exit_status;
}
