/* A command in one call, with a deadline. After subprocess.check_output(...) and its timeout.
 *
 * The deadline is that of everything. A command that is late is killed, and what it had written until then is there; with
 * TINE_SPAWN_KILL_TREE its descendants are killed as well. */
#include <stdio.h>
#include <stdlib.h>

#include <tine.h>

/* Runs one and prints what it came to. */
static void show(const char *const *command, int64_t timeout_ms)
{
    tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
    void *output = NULL;
    int32_t code = 0;

    options.flags = TINE_SPAWN_KILL_TREE;
    const tine_status_t status = tine_process_check_output(command, &options, NULL, 0, timeout_ms, &output, NULL, &code);
    if (status == TINE_ETIMEDOUT)
        printf("late: %s", (char *)output);
    else if (status < 0)
        printf("%s: %s\n", command[0], tine_strerror(status));
    else
        printf("code %d: %s", code, (char *)output);
    tine_free(output);
}

int main(void)
{
    const char *const date[] = { "date", "-u", "-d", "@0", "+the clock began in %Y", NULL };
    const char *const failing[] = { "sh", "-c", "echo not found; exit 4", NULL };
    const char *const late[] = { "sh", "-c", "echo working; sleep 100 & wait", NULL };
    const char *const missing[] = { "no-such-command", NULL };

    show(date, 10000);
    show(failing, 10000);
    show(late, 1000);
    show(missing, 10000);
    return EXIT_SUCCESS;
}
