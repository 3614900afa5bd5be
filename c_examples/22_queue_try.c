/* put and get that do not block. After writer_proc and reader_proc with put(111, block=False) and
 * get(block=False), which swallow the exceptions Full and Empty: here those are statuses. */
#include <stdio.h>
#include <stdlib.h>

#include <tine.h>

static tine_queue_t *queue;

static int32_t writer(void *user_data)
{
    (void)user_data;
    for (int value = 111;; value++) {
        tine_status_t status = tine_queue_put(queue, &value, sizeof value, 0);
        printf("put %d: %s\n", value, status == TINE_OK ? "done" : status == TINE_EFULL ? "the queue is full" : "failed");
        if (status < 0) return status == TINE_EFULL ? 0 : 1;
    }
}

static int32_t reader(void *user_data)
{
    (void)user_data;
    for (;;) {
        int value = 0;
        tine_status_t status = tine_queue_get(queue, &value, sizeof value, 0, NULL);
        if (status < 0) {
            printf("get: %s\n", status == TINE_EEMPTY ? "the queue is empty" : "failed");
            return status == TINE_EEMPTY ? 0 : 1;
        }
        printf("get %d: done\n", value);
    }
}

/* Starts the function as a process and waits for it. */
static tine_status_t run(tine_process_fn function)
{
    tine_process_t *process = NULL;
    int32_t code = -1;
    tine_status_t status = tine_process_start(function, NULL, NULL, &process);

    if (status >= 0) status = tine_process_join(process, TINE_FOREVER);
    if (status >= 0) status = tine_process_exit_code(process, &code);
    if (status >= 0) printf("exit code %d\n", code);
    tine_process_free(process);
    return status;
}

int main(void)
{
    tine_queue_options_t options = TINE_QUEUE_OPTIONS_INIT;
    int exit_status = EXIT_FAILURE;

    options.capacity = 2;
    if (tine_queue_new(&options, &queue) < 0) goto out;
    if (run(writer) < 0 || run(reader) < 0) goto out;
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    tine_queue_free(queue);
    return exit_status;
}
