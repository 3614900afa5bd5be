/* The stop ladder: SIGTERM, a grace, SIGKILL; afterwards the process has ended and is reaped.
 *
 * One command cleans up when it is asked to end, one does not listen, and one has a daemon that left its session: as a tree, all of it
 * ends. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <tine.h>

static int stop(const char *name, const char *script, int64_t grace_ms, uint32_t flags)
{
    const char *const command[] = { "sh", "-c", script, NULL };
    tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
    tine_process_t *process = NULL;
    int32_t code = 0;
    char ready;
    int done = 0;

    options.stdout_mode = TINE_STDIO_PIPE;
    options.flags = flags;
    if (tine_process_spawn(command, &options, &process) < 0) goto out;
    if (read(tine_process_stdout_fd(process), &ready, 1) != 1) goto out;
    if (tine_process_stop(process, grace_ms) < 0) goto out;
    if (tine_process_exit_code(process, &code) < 0) goto out;
    if (code < 0)
        printf("%s: signal %d\n", name, -code);
    else
        printf("%s: code %d\n", name, code);
    done = 1;

out:
    tine_process_free(process);
    return done;
}

int main(void)
{
    const char *polite = "trap 'exit 3' TERM; echo; while :; do sleep 0.1; done";
    const char *deaf = "trap '' TERM; echo; while :; do sleep 0.1; done";
    const char *daemon = "setsid sleep 100 & echo; wait";

    if (!stop("polite", polite, 10000, 0) || !stop("deaf", deaf, 200, TINE_SPAWN_NEW_GROUP) ||
        !stop("with a daemon", daemon, 10000, TINE_SPAWN_KILL_TREE)) {
        fprintf(stderr, "%s\n", tine_last_error_message());
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
