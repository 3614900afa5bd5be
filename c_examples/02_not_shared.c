/* Processes share no variables. After the program whose child adds 4 and whose parent adds 3 to the same
 * global number.
 *
 * After the fork each process has its own copy: neither sees what the other added. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <tine.h>

static int number = 100;

static void count(const char *who, int step)
{
    for (int round = 0; round < 3; round++) {
        printf("%s: number = %d\n", who, number);
        number += step;
    }
}

int main(void)
{
    int status = 0;

    int32_t pid = tine_fork();
    if (pid < 0) {
        fprintf(stderr, "%s\n", tine_last_error_message());
        return EXIT_FAILURE;
    }
    if (pid == 0) {
        count("child", 4);
        return EXIT_SUCCESS;
    }

    if (waitpid(pid, &status, 0) != pid || status != 0)
        return EXIT_FAILURE;
    count("parent", 3);
    return EXIT_SUCCESS;
}
