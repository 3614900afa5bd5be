/* A joinable queue with poison pills. After the program with JoinableQueue: consumers take tasks and put
 * results, an empty message ends a consumer, and tasks.join() waits until every task has been declared done.
 *
 * A task is declared done also where its work fails: else join would wait for ever. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <tine.h>

enum { CONSUMERS = 2, JOBS = 10 };

typedef struct { int a, b; } job_t;

static tine_queue_t *tasks, *results;

static int32_t consume(void *user_data)
{
    (void)user_data;
    for (;;) {
        job_t job;
        char line[64];
        size_t len = 0;

        if (tine_queue_get(tasks, &job, sizeof job, TINE_FOREVER, &len) < 0) return 1;
        if (len == 0) break;                                        /* the pill */
        int n = snprintf(line, sizeof line, "%d * %d = %d", job.a, job.b, job.a * job.b);
        if (tine_queue_put(results, line, (size_t)n, TINE_FOREVER) < 0) return 1;
        if (tine_queue_task_done(tasks) < 0) return 1;
    }
    printf("(%d): exiting\n", getpid());
    return tine_queue_task_done(tasks) < 0;                         /* the pill was put, too */
}

int main(void)
{
    tine_process_t *consumers[CONSUMERS] = { NULL };
    int exit_status = EXIT_FAILURE;

    setvbuf(stdout, NULL, _IOLBF, 0);       /* several processes print: each line leaves at once */
    if (tine_queue_new(NULL, &tasks) < 0 || tine_queue_new(NULL, &results) < 0) goto out;
    printf("Creating %d consumers\n", CONSUMERS);
    for (int i = 0; i < CONSUMERS; i++)
        if (tine_process_start(consume, NULL, NULL, &consumers[i]) < 0) goto out;

    for (int i = 0; i < JOBS; i++)
        if (tine_queue_put(tasks, &(job_t){ i, i + 1 }, sizeof(job_t), TINE_FOREVER) < 0) goto out;
    for (int i = 0; i < CONSUMERS; i++)
        if (tine_queue_put(tasks, NULL, 0, TINE_FOREVER) < 0) goto out;

    if (tine_queue_join(tasks, TINE_FOREVER) < 0) goto out;
    printf("%zu results, %zu unfinished tasks\n", tine_queue_size(results), tine_queue_unfinished(tasks));
    for (int i = 0; i < JOBS; i++) {
        char line[64];
        size_t len = 0;
        if (tine_queue_get(results, line, sizeof line, 0, &len) < 0) goto out;
        printf("Result: %.*s\n", (int)len, line);
    }
    for (int i = 0; i < CONSUMERS; i++)
        if (tine_process_join(consumers[i], TINE_FOREVER) < 0) goto out;
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    for (int i = 0; i < CONSUMERS; i++) tine_process_free(consumers[i]);
    tine_queue_free(tasks);
    tine_queue_free(results);
    return exit_status;
}
