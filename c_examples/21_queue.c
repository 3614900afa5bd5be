/* A queue between a writer and a reader. After the program whose writer puts A, B, C and whose reader, in an
 * endless loop, is terminated once the writer has ended.
 *
 * The writer waits until the reader is ready for the next value, so that the lines have one order. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <tine.h>

static tine_queue_t *queue;
static tine_semaphore_t *ready;

static int32_t write_values(void *user_data)
{
    (void)user_data;
    if (tine_semaphore_acquire(ready, TINE_FOREVER) < 0) return 1;
    printf("Process to write: (%d)\n", getpid());
    for (char value = 'A'; value <= 'C'; value++) {
        printf("Put %c to queue...\n", value);
        if (tine_queue_put(queue, &value, sizeof value, TINE_FOREVER) < 0) return 1;
        if (tine_semaphore_acquire(ready, TINE_FOREVER) < 0) return 1;
    }
    return 0;
}

static int32_t read_values(void *user_data)
{
    (void)user_data;
    printf("Process to read: (%d)\n", getpid());
    for (;;) {
        char value = 0;
        if (tine_semaphore_release(ready, 1) < 0) return 1;
        if (tine_queue_get(queue, &value, sizeof value, TINE_FOREVER, NULL) < 0) return 1;
        printf("Get %c from queue.\n", value);
    }
}

int main(void)
{
    tine_process_t *writer = NULL, *reader = NULL;
    int32_t writer_code = -1, reader_code = -1;
    int exit_status = EXIT_FAILURE;

    setvbuf(stdout, NULL, _IOLBF, 0);       /* several processes print: each line leaves at once */
    if (tine_queue_new(NULL, &queue) < 0 || tine_semaphore_new(0, 0, NULL, &ready) < 0) goto out;
    if (tine_process_start(write_values, NULL, NULL, &writer) < 0) goto out;
    if (tine_process_start(read_values, NULL, NULL, &reader) < 0) goto out;
    if (tine_process_join(writer, TINE_FOREVER) < 0) goto out;
    if (tine_process_terminate(reader) < 0) goto out;      /* it would wait for ever */
    if (tine_process_join(reader, TINE_FOREVER) < 0) goto out;
    if (tine_process_exit_code(writer, &writer_code) < 0 || tine_process_exit_code(reader, &reader_code) < 0) goto out;
    printf("Exit codes: writer %d, reader %d (minus the signal that ended it)\n", writer_code, reader_code);
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    tine_process_free(writer);
    tine_process_free(reader);
    tine_queue_free(queue);
    tine_semaphore_free(ready);
    return exit_status;
}
