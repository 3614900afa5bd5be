/* A function as a process: start, join. After Process(target=run_proc, args=('test',)).
 *
 * The child gets a copy of the parent's memory, so the argument is a plain pointer. What the function returns
 * is the exit code. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <tine.h>

static int32_t run(void *user_data)
{
    const char *name = user_data;

    printf("Run child process %s (%d)...\n", name, getpid());
    return 0;
}

int main(void)
{
    tine_process_t *process = NULL;
    int32_t code = -1;
    int exit_status = EXIT_FAILURE;

    printf("Parent process (%d).\n", getpid());
    printf("Child process will start.\n");
    if (tine_process_start(run, "test", NULL, &process) < 0) goto out;
    if (tine_process_join(process, TINE_FOREVER) < 0) goto out;
    if (tine_process_exit_code(process, &code) < 0) goto out;
    printf("Child process end, exit code %d.\n", code);
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    tine_process_free(process);
    return exit_status;
}
