/* A command gets its input and gives its output. After subprocess.Popen(..., stdin=PIPE, stdout=PIPE, stderr=PIPE) and
 * communicate(), with a command that is everywhere.
 *
 * Both sides may be of any size: nobody waits for the other. What the command wrote has a NUL behind it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tine.h>

int main(void)
{
    static const char input[] = "pear\napple\nplum\n";
    const char *const command[] = { "sort", NULL };
    tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
    tine_process_t *process = NULL;
    void *output = NULL, *errors = NULL;
    int32_t code = -1;
    int exit_status = EXIT_FAILURE;

    options.stdin_mode = options.stdout_mode = options.stderr_mode = TINE_STDIO_PIPE;
    printf("$ sort\n");
    if (tine_process_spawn(command, &options, &process) < 0) goto out;
    if (tine_process_communicate(process, input, strlen(input), 10000, &output, NULL, &errors, NULL) < 0) goto out;
    if (tine_process_exit_code(process, &code) < 0) goto out;
    printf("%s%s", (char *)output, (char *)errors);
    printf("Exit code: %d\n", code);
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    tine_free(output);
    tine_free(errors);
    tine_process_free(process);
    return exit_status;
}
