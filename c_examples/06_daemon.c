/* What becomes of children that still run at the end of main: a daemon is terminated, any other child is
 * joined. After the pair of programs with daemon = True and without.
 *
 * Both children say that they started; main ends; the daemon waits for something that never comes and is
 * terminated in its sleep, the other one is given the time to finish. Freeing a handle neither ends nor
 * forgets a process. */
#include <stdio.h>
#include <stdlib.h>

#include <tine.h>

static tine_semaphore_t *started;
static tine_event_t *main_ended, *never;

static int32_t work(void *user_data)
{
    const char *name = tine_current_process_name();
    tine_event_t *until = user_data;

    printf("%s: work start\n", name);
    if (tine_semaphore_release(started, 1) < 0 || tine_event_wait(until, TINE_FOREVER) < 0)
        return 1;
    printf("%s: work end\n", name);
    return 0;
}

int main(void)
{
    tine_process_options_t options = TINE_PROCESS_OPTIONS_INIT;
    tine_process_t *daemon = NULL, *child = NULL;
    int exit_status = EXIT_FAILURE;

    setvbuf(stdout, NULL, _IOLBF, 0);       /* several processes print: each line leaves at once */
    if (tine_event_new(NULL, &main_ended) < 0 || tine_event_new(NULL, &never) < 0) goto out;
    if (tine_semaphore_new(0, 0, NULL, &started) < 0) goto out;

    options.name = "daemon";
    options.flags = TINE_PROCESS_DAEMON;
    if (tine_process_start(work, never, &options, &daemon) < 0) goto out;
    if (tine_semaphore_acquire(started, TINE_FOREVER) < 0) goto out;
    options.name = "child";
    options.flags = 0;
    if (tine_process_start(work, main_ended, &options, &child) < 0) goto out;
    if (tine_semaphore_acquire(started, TINE_FOREVER) < 0) goto out;
    printf("end of the main process!\n");
    if (tine_event_set(main_ended) < 0) goto out;
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    tine_process_free(daemon);
    tine_process_free(child);
    tine_semaphore_free(started);
    tine_event_free(main_ended);
    tine_event_free(never);
    return exit_status;
}
