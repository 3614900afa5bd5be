/* An external command: run it and wait. After subprocess.call(['nslookup', 'www.python.org']), with commands that are everywhere.
 *
 * The command has this program's stdin, stdout and stderr. What cannot start is told at once, and so is a command that takes too
 * long: it has been killed then. */
#include <stdio.h>
#include <stdlib.h>

#include <tine.h>

int main(void)
{
    const char *const date[] = { "date", "+%Y-%m-%d %H:%M:%S", NULL };
    const char *const search[] = { "grep", "-q", "needle", "/dev/null", NULL };
    const char *const slow[] = { "sleep", "1000", NULL };
    const char *const missing[] = { "no-such-command", NULL };
    int32_t code = -1;
    int exit_status = EXIT_FAILURE;

    printf("$ date\n");
    if (tine_process_call(date, NULL, TINE_FOREVER, &code) < 0) goto out;
    printf("Exit code: %d\n", code);

    printf("$ grep -q needle /dev/null\n");
    if (tine_process_call(search, NULL, TINE_FOREVER, &code) < 0) goto out;
    printf("Exit code: %d\n", code);

    printf("$ sleep 1000\n");
    if (tine_process_call(slow, NULL, 100, &code) != TINE_ETIMEDOUT) goto out;
    printf("Took more than 100 ms.\n");

    printf("$ no-such-command\n");
    if (tine_process_call(missing, NULL, TINE_FOREVER, &code) != TINE_ENOENT) goto out;
    printf("Error: %s\n", tine_strerror(TINE_ENOENT));
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    return exit_status;
}
