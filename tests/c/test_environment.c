/* What a program does around the library: closed standard streams, signal handlers. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "test.h"

static int32_t echo(const void *arg, size_t arg_len, tine_task_t *task) { return tine_task_reply(task, arg, arg_len) < 0; }
static int32_t seven(void *user_data) { return (void)user_data, 7; }
static void close_stdio(void) {
    const int report = fcntl(1, F_DUPFD, 100);
    CHECK(report >= 0 && fclose(stdin) == 0 && close(1) == 0 && close(2) == 0);
    stdout = fdopen(report, "w"); /* for what fails */
    CHECK(stdout != NULL);
}

/* What a program without standard streams prints all the same must not be written into the memory that processes share. */
TEST(no_descriptor_of_the_library_is_a_standard_stream) {
    tine_pool_t *pool = NULL;
    tine_process_t *process = NULL;
    tine_semaphore_t *semaphore = NULL;
    tine_queue_t *queue = NULL;
    tine_connection_t *a = NULL, *b = NULL;
    char text[4] = "";
    close_stdio();
    CHECK_OK(tine_semaphore_new(2, 5, NULL, &semaphore));
    CHECK_OK(tine_queue_new(NULL, &queue));
    CHECK_OK(tine_pipe_new(0, &a, &b));
    CHECK_OK(tine_process_start(seven, NULL, NULL, &process));
    CHECK_OK(tine_pool_new(NULL, &pool));
    for (int fd = 0; fd <= 2; fd++) {
        for (int i = 0; i < 50; i++) CHECK_INT(write(fd, "what nobody was to read", 23), -1);
        CHECK_INT(errno, EBADF);
    }
    CHECK_OK(tine_semaphore_release(semaphore, 3));
    CHECK_INT(tine_semaphore_value(semaphore), 5);
    CHECK_OK(tine_queue_put(queue, "abc", 4, 0));
    CHECK_OK(tine_queue_get(queue, text, sizeof text, 0, NULL));
    CHECK_TEXT(text, "abc");
    CHECK_OK(tine_connection_send(a, "def", 4, TINE_FOREVER));
    CHECK_OK(tine_connection_recv(b, text, sizeof text, TINE_FOREVER, NULL));
    CHECK_TEXT(text, "def");
    CHECK_OK(tine_process_join(process, TINE_FOREVER));
    CHECK_OK(tine_pool_apply(pool, echo, "ghi", 4, TINE_FOREVER, NULL));
    tine_pool_free(pool), tine_process_free(process), tine_semaphore_free(semaphore), tine_queue_free(queue);
    tine_connection_free(a), tine_connection_free(b);
}
