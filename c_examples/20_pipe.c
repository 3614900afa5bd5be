/* A duplex pipe between two processes. After proc1 and proc2, which hold the two ends of Pipe(); here proc2
 * also answers.
 *
 * A process that does not use an end closes its copy: end of file comes when every copy of the other end is
 * closed. */
#include <stdio.h>
#include <stdlib.h>

#include <tine.h>

static tine_connection_t *end1, *end2;

static int32_t proc1(void *user_data)
{
    (void)user_data;
    tine_connection_free(end2);
    for (int i = 0; i < 5; i++) {
        int answer = 0;
        printf("proc1 send: %d\n", i);
        if (tine_connection_send(end1, &i, sizeof i, TINE_FOREVER) < 0) return 1;
        if (tine_connection_recv(end1, &answer, sizeof answer, TINE_FOREVER, NULL) < 0) return 1;
        printf("proc1 rev: %d\n", answer);
    }
    return 0;
}

static int32_t proc2(void *user_data)
{
    (void)user_data;
    tine_connection_free(end1);
    for (;;) {
        int number = 0;
        tine_status_t status = tine_connection_recv(end2, &number, sizeof number, TINE_FOREVER, NULL);
        if (status == TINE_EEOF) break;
        if (status < 0) return 1;
        printf("proc2 rev: %d\n", number);
        number *= number;
        if (tine_connection_send(end2, &number, sizeof number, TINE_FOREVER) < 0) return 1;
    }
    printf("proc2: end of file\n");
    return 0;
}

int main(void)
{
    tine_process_t *p1 = NULL, *p2 = NULL;
    int32_t code1 = -1, code2 = -1;
    int exit_status = EXIT_FAILURE;

    setvbuf(stdout, NULL, _IOLBF, 0);       /* several processes print: each line leaves at once */
    if (tine_pipe_new(0, &end1, &end2) < 0) goto out;
    if (tine_process_start(proc1, NULL, NULL, &p1) < 0 || tine_process_start(proc2, NULL, NULL, &p2) < 0) goto out;
    if (tine_connection_close(end1) < 0 || tine_connection_close(end2) < 0) goto out;
    if (tine_process_join(p1, TINE_FOREVER) < 0 || tine_process_exit_code(p1, &code1) < 0) goto out;
    if (tine_process_join(p2, TINE_FOREVER) < 0 || tine_process_exit_code(p2, &code2) < 0) goto out;
    printf("exit codes %d and %d\n", code1, code2);
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    tine_process_free(p1);
    tine_process_free(p2);
    tine_connection_free(end1);
    tine_connection_free(end2);
    return exit_status;
}
