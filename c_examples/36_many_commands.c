/* Many commands, a few at a time: as soon as one has ended, the next begins. */
#include <stdio.h>
#include <stdlib.h>

#include <tine.h>

enum { COMMANDS = 12, AT_A_TIME = 4 };

static tine_process_t *start(int number)
{
    char script[64];
    const char *const command[] = { "sh", "-c", script, NULL };
    tine_process_t *process = NULL;

    snprintf(script, sizeof script, "exit $((%d * 7 %% 5))", number);
    return tine_process_spawn(command, NULL, &process) < 0 ? NULL : process;
}

int main(void)
{
    tine_process_t *running[AT_A_TIME] = { NULL };
    int numbers[AT_A_TIME], codes[COMMANDS], started = 0, exit_status = EXIT_FAILURE;
    size_t count = 0;

    while (started < COMMANDS || count > 0) {
        size_t ended;

        while (count < AT_A_TIME && started < COMMANDS) {
            if ((running[count] = start(started)) == NULL) goto out;
            numbers[count++] = started++;
        }
        if (tine_process_wait_any(running, count, TINE_FOREVER, &ended) < 0) goto out;
        if (tine_process_exit_code(running[ended], &codes[numbers[ended]]) < 0) goto out;
        tine_process_free(running[ended]);
        running[ended] = running[--count];
        numbers[ended] = numbers[count];
        running[count] = NULL;
    }
    for (int i = 0; i < COMMANDS; i++) printf("Command %d left with %d.\n", i, codes[i]);
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    for (size_t i = 0; i < AT_A_TIME; i++) tine_process_free(running[i]);
    return exit_status;
}
