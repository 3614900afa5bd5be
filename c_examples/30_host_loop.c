/* A pool in a program that has a loop of its own. Requests come in on a socket, workers do the work, and the
 * answers go out from callbacks, all in one epoll loop and one thread: no lock anywhere.
 *
 * TINE_POOL_HOST_LOOP makes a pool without a thread. Its descriptor is one more in the loop; when it is readable,
 * tine_pool_poll runs the callbacks. The client is another process, at the other end of the socket. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <tine.h>

enum { REQUESTS = 5 };

struct message {
    int number, square;
};

static int32_t client(void *user_data)
{
    int fd = *(int *)user_data;

    for (int i = 1; i <= REQUESTS; i++) {
        struct message request = { i, 0 };
        if (send(fd, &request, sizeof request, 0) < 0) return 1;
    }
    shutdown(fd, SHUT_WR);
    for (int i = 1; i <= REQUESTS; i++) {
        struct message answer;
        if (recv(fd, &answer, sizeof answer, 0) != sizeof answer) return 1;
        printf("client: %d squared is %d\n", answer.number, answer.square);
    }
    return 0;
}

static int32_t square(const void *arg, size_t arg_len, tine_task_t *task)
{
    struct message message = *(const struct message *)arg;

    message.square = message.number * message.number;
    return tine_task_reply(task, &message, arg_len) < 0;
}

static void answer(const tine_result_t *result, void *user_data)
{
    size_t length = 0;
    const void *message = tine_result_data(result, &length);

    if (send(*(int *)user_data, message, length, 0) < 0) perror("send");
}

/* Takes one request in; 0: there are no more. */
static int take_request(tine_pool_t *pool, int *fd)
{
    tine_submit_options_t submit = TINE_SUBMIT_OPTIONS_INIT;
    struct message request;

    if (recv(*fd, &request, sizeof request, 0) != sizeof request) return 0;
    submit.callback = answer;
    submit.user_data = fd;
    return tine_pool_submit(pool, square, &request, sizeof request, &submit, NULL) == TINE_OK;
}

int main(void)
{
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    struct epoll_event event = { .events = EPOLLIN };
    tine_pool_t *pool = NULL;
    tine_process_t *process = NULL;
    tine_status_t status = TINE_OK;
    int exit_status = EXIT_FAILURE, ends[2] = { -1, -1 }, loop = epoll_create1(EPOLL_CLOEXEC);
    int32_t code = -1;

    setvbuf(stdout, NULL, _IOLBF, 0);
    options.workers = 2;
    options.flags = TINE_POOL_HOST_LOOP;
    if (tine_pool_new(&options, &pool) < 0) goto out;
    if (loop < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) goto out;
    if (tine_process_start(client, &ends[1], NULL, &process) < 0) goto out;
    event.data.fd = ends[0];
    if (epoll_ctl(loop, EPOLL_CTL_ADD, ends[0], &event) < 0) goto out;
    event.data.fd = tine_pool_fd(pool);
    if (epoll_ctl(loop, EPOLL_CTL_ADD, event.data.fd, &event) < 0) goto out;

    /* A pool that was closed has no more to tell when every answer is out. */
    while (status == TINE_OK || status == TINE_ETIMEDOUT) {
        if (epoll_wait(loop, &event, 1, -1) != 1) continue;
        if (event.data.fd == ends[0] && !take_request(pool, &ends[0])) {
            epoll_ctl(loop, EPOLL_CTL_DEL, ends[0], NULL);
            if (tine_pool_close(pool) < 0) goto out;
        } else if (event.data.fd == tine_pool_fd(pool)) {
            status = tine_pool_poll(pool, 0, 0, NULL);
        }
    }
    if (status != TINE_ECLOSED || tine_pool_join(pool, TINE_FOREVER) < 0) goto out;
    if (tine_process_join(process, TINE_FOREVER) < 0 || tine_process_exit_code(process, &code) < 0 || code != 0) goto out;
    printf("server: every request was answered\n");
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    tine_pool_free(pool);
    tine_process_free(process);
    close(ends[0]), close(ends[1]), close(loop);
    return exit_status;
}
