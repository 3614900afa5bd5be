/* A lock around printing. After the loop that starts twenty processes, each of which prints "Hello Num"
 * inside lock.acquire() and lock.release().
 *
 * Each line is written in three pieces, so that without the lock the lines of the processes would mix. The
 * order of the lines is chance. */
#include <stdio.h>
#include <stdlib.h>

#include <tine.h>

enum { PROCESSES = 20 };

static tine_lock_t *lock;

static int32_t hello(void *user_data)
{
    if (tine_lock_acquire(lock, TINE_FOREVER) < 0) return 1;
    printf("Hello ");
    fflush(stdout);
    printf("Num: ");
    fflush(stdout);
    printf("%d\n", *(const int *)user_data);
    fflush(stdout);
    return tine_lock_release(lock) < 0;
}

int main(void)
{
    tine_process_t *processes[PROCESSES] = { NULL };
    int exit_status = EXIT_FAILURE, failed = 0;

    if (tine_lock_new(NULL, &lock) < 0) goto out;
    for (int num = 0; num < PROCESSES; num++)
        if (tine_process_start(hello, &num, NULL, &processes[num]) < 0) goto out;
    for (int num = 0; num < PROCESSES; num++) {
        int32_t code = -1;
        if (tine_process_join(processes[num], TINE_FOREVER) < 0) goto out;
        if (tine_process_exit_code(processes[num], &code) < 0) goto out;
        failed += code != 0;
    }
    printf("%d of %d processes failed\n", failed, PROCESSES);
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    for (int num = 0; num < PROCESSES; num++) tine_process_free(processes[num]);
    tine_lock_free(lock);
    return exit_status;
}
