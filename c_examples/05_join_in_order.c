/* Three processes at once, joined in the order of their start. After the loop that starts three processes,
 * records them and then joins them one by one.
 *
 * Here they even end in the reverse order, each waiting for the next one's event: a join of a process that
 * ended long ago returns at once, so the order of the joins never matters. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <tine.h>

enum { PROCESSES = 3 };

static tine_event_t *done[PROCESSES];       /* made before the children start: they inherit the handles */

static int32_t run(void *user_data)
{
    int id = *(const int *)user_data;       /* the loop goes on in the parent: the child has a copy of that moment */

    if (id + 1 < PROCESSES && tine_event_wait(done[id + 1], TINE_FOREVER) < 0)
        return 1;
    printf("Run process %d (%d)...\n", id, getpid());
    printf("process %d is done\n", id);
    return tine_event_set(done[id]) < 0 ? 1 : 0;
}

int main(void)
{
    tine_process_t *processes[PROCESSES] = { NULL };
    int exit_status = EXIT_FAILURE;

    setvbuf(stdout, NULL, _IOLBF, 0);       /* several processes print: each line leaves at once */
    printf("Parent process (%d).\n", getpid());
    for (int id = 0; id < PROCESSES; id++)
        if (tine_event_new(NULL, &done[id]) < 0) goto out;
    for (int id = 0; id < PROCESSES; id++)
        if (tine_process_start(run, &id, NULL, &processes[id]) < 0) goto out;
    for (int id = 0; id < PROCESSES; id++) {
        int32_t code = -1;
        if (tine_process_join(processes[id], TINE_FOREVER) < 0) goto out;
        if (tine_process_exit_code(processes[id], &code) < 0) goto out;
        printf("Joined process %d (%d), exit code %d.\n", id, tine_process_pid(processes[id]), code);
    }
    printf("Process end.\n");
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    for (int id = 0; id < PROCESSES; id++) {
        tine_process_free(processes[id]);
        tine_event_free(done[id]);
    }
    return exit_status;
}
