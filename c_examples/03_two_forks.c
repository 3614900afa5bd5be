/* Two forks in a row make four processes. After the program that prints 1 or 2 behind the first os.fork(), 11
 * or 22 behind the second: both processes that the first one left run the second one.
 *
 * Each parent waits for its child before it prints, so that the six lines have one order. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <tine.h>

/* Forks and says which of the two this process is. The parent comes back when its child has ended. */
static int32_t fork_and_say(const char *in_child, const char *in_parent)
{
    int status = 0;

    int32_t pid = tine_fork();
    if (pid < 0)
        fprintf(stderr, "%s\n", tine_last_error_message());
    if (pid > 0 && (waitpid(pid, &status, 0) != pid || status != 0))
        return -1;
    if (pid >= 0)
        printf("%s\n", pid == 0 ? in_child : in_parent);
    return pid;
}

int main(void)
{
    if (fork_and_say("--1--", "--2--") < 0)
        return EXIT_FAILURE;
    if (fork_and_say("--11--", "--22--") < 0)
        return EXIT_FAILURE;
    return EXIT_SUCCESS;
}
