/* A process with state of its own: a clock that prints the time at an interval. After the class
 * ClockProcess(Process) with its __init__ and run: in C the object is a struct and run() is the function that
 * gets it. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <tine.h>

struct clock {
    struct timespec interval;
    int ticks;
};

static int32_t run(void *user_data)
{
    struct clock *clock = user_data;        /* the child's own copy */

    for (; clock->ticks > 0; clock->ticks--) {
        char text[32];
        time_t now = time(NULL);
        struct tm local;
        if (localtime_r(&now, &local) == NULL || strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local) == 0)
            return 1;
        printf("the time is %s\n", text);
        nanosleep(&clock->interval, NULL);
    }
    return 0;
}

int main(void)
{
    struct clock clock = { .interval = { .tv_nsec = 20 * 1000 * 1000 }, .ticks = 5 };
    tine_process_options_t options = TINE_PROCESS_OPTIONS_INIT;
    tine_process_t *process = NULL;
    int32_t code = -1;
    int exit_status = EXIT_FAILURE;

    options.name = "clock";
    if (tine_process_start(run, &clock, &options, &process) < 0) goto out;
    if (tine_process_join(process, TINE_FOREVER) < 0 || tine_process_exit_code(process, &code) < 0) goto out;
    printf("%s ended with code %d; here it still has %d ticks to go\n", tine_process_name(process), code, clock.ticks);
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    tine_process_free(process);
    return exit_status;
}
