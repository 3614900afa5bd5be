/* A command's output in the program's own event loop. tine has no loop: it gives descriptors, which any loop can wait for. Here it
 * is epoll.
 *
 * tine_process_fd() becomes readable when the command has ended; its pipes tell what it wrote, and their end. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <tine.h>

enum { ENDED, OUTPUT };

static int watch(int loop, int fd, uint32_t what)
{
    struct epoll_event event = { .events = EPOLLIN, .data.u32 = what };

    return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0 ? -1 : epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
}

/* Prints whole lines, as they come. 0: the end. */
static int print_output(int fd)
{
    static char line[256];
    static size_t length;
    char buffer[64];
    const ssize_t got = read(fd, buffer, sizeof buffer);

    if (got <= 0) return got < 0 && errno == EAGAIN;
    for (ssize_t i = 0; i < got; i++) {
        if (buffer[i] == '\n') {
            printf("It says: %.*s\n", (int)length, line);
            length = 0;
        } else if (length < sizeof line) {
            line[length++] = buffer[i];
        }
    }
    return 1;
}

int main(void)
{
    const char *const command[] = { "sh", "-c", "for word in one two three; do echo $word; done; exit 4", NULL };
    tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
    tine_process_t *process = NULL;
    int32_t code = -1;
    int loop = epoll_create1(EPOLL_CLOEXEC), exit_status = EXIT_FAILURE;

    options.stdin_mode = TINE_STDIO_NULL;
    options.stdout_mode = TINE_STDIO_PIPE;
    options.stderr_mode = TINE_STDIO_STDOUT;
    if (tine_process_spawn(command, &options, &process) < 0) goto out;
    const int output = tine_process_stdout_fd(process), end = tine_process_fd(process);
    if (watch(loop, output, OUTPUT) < 0 || watch(loop, end, ENDED) < 0) goto out;

    for (int waiting_for = 2; waiting_for > 0;) {
        struct epoll_event event;

        if (epoll_wait(loop, &event, 1, -1) != 1) continue;
        if (event.data.u32 == OUTPUT ? print_output(output) : tine_process_is_alive(process)) continue;
        epoll_ctl(loop, EPOLL_CTL_DEL, event.data.u32 == OUTPUT ? output : end, NULL);
        waiting_for--;
    }
    if (tine_process_exit_code(process, &code) < 0) goto out;
    printf("It left with %d.\n", code);
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    tine_process_free(process);
    close(loop);
    return exit_status;
}
