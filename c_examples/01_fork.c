/* One call, two returns. After os.fork() with getpid() and getppid().
 *
 * tine_fork() is fork(2) with a repair: a line that stdio still holds at the call appears once, not once per
 * process. The child is an ordinary one, waited for with waitpid(). The parent waits before it prints, so
 * that the lines have one order. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <tine.h>

int main(void)
{
    int status = 0;

    printf("Process (%d) start...\n", getpid());
    int32_t pid = tine_fork();
    if (pid < 0) {
        fprintf(stderr, "%s\n", tine_last_error_message());
        return EXIT_FAILURE;
    }
    if (pid == 0) {
        printf("I am child process (%d) and my parent is (%d).\n", getpid(), getppid());
        return EXIT_SUCCESS;
    }

    if (waitpid(pid, &status, 0) != pid || status != 0)
        return EXIT_FAILURE;
    printf("I (%d) just created a child process (%d).\n", getpid(), pid);
    return EXIT_SUCCESS;
}
