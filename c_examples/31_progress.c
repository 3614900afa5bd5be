/* The numbers of a pool as a progress display, and a trace of what its workers did.
 *
 *   31_progress [TRACE]      TRACE is a file for https://ui.perfetto.dev or chrome://tracing
 *
 * On a terminal the display is one line that is written over; elsewhere it is a line for each quarter of the
 * work. One of the tasks ends its worker: that costs the task and nothing else, and shows in both. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <tine.h>

enum { TASKS = 20, WIDTH = 20, CRASHES = 7 };

static int32_t work(const void *arg, size_t arg_len, tine_task_t *task)
{
    const struct timespec while_it_works = { 0, 10 * 1000 * 1000 };

    (void)arg_len, (void)task;
    nanosleep(&while_it_works, NULL);
    if (*(const int *)arg == CRASHES) abort();
    return 0;
}

static void show(const tine_pool_stats_t *stats)
{
    static int quarters = -1;
    int ended = (int)(stats->done + stats->failed);
    char bar[WIDTH + 1] = "";

    if (isatty(STDOUT_FILENO)) {
        memset(bar, '#', (size_t)(WIDTH * ended / TASKS));
        printf("\r[%-*s] %d of %d, %d running, %d failed ", WIDTH, bar, ended, TASKS, (int)stats->running, (int)stats->failed);
        if (ended == TASKS) printf("\n");
        fflush(stdout);
        return;
    }
    while (quarters < 4 * ended / TASKS) {
        quarters++;
        memset(bar, '#', (size_t)(WIDTH * quarters / 4));
        printf("[%-*s] %d of %d\n", WIDTH, bar, TASKS * quarters / 4, TASKS);
    }
}

/* How many slices the file has: one for each task that ran. */
static int slices_of(const char *path)
{
    char line[1000];
    int slices = 0;
    FILE *file = fopen(path, "r");

    while (file != NULL && fgets(line, sizeof line, file) != NULL) slices += strstr(line, "\"ph\":\"X\"") != NULL;
    if (file != NULL) fclose(file);
    return slices;
}

int main(int argc, char **argv)
{
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_pool_stats_t stats = TINE_POOL_STATS_INIT;
    tine_pool_t *pool = NULL;
    char temporary[] = "/tmp/tine_progress_XXXXXX";
    const char *trace = argc > 1 ? argv[1] : temporary;
    int exit_status = EXIT_FAILURE, fd = argc > 1 ? -1 : mkstemp(temporary);

    options.name = "progress";
    options.workers = 2;
    options.flags = TINE_POOL_NO_CORE;
    if (tine_pool_new(&options, &pool) < 0 || tine_pool_trace(pool, trace) < 0) goto out;
    show(&stats);
    for (int i = 0; i < TASKS; i++)
        if (tine_pool_submit(pool, work, &i, sizeof i, NULL, NULL) < 0) goto out;
    if (tine_pool_close(pool) < 0) goto out;
    for (tine_status_t joined = TINE_ETIMEDOUT; joined != TINE_OK;) {
        joined = tine_pool_join(pool, 5);
        if (joined < 0 && joined != TINE_ETIMEDOUT) goto out;
        if (tine_pool_stats(pool, &stats) < 0) goto out;
        show(&stats);
    }
    printf("%d done, %d failed, %d worker died\n", (int)stats.done, (int)stats.failed, (int)stats.worker_deaths);
    printf("the trace has %d slices\n", slices_of(trace));
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    tine_pool_free(pool);
    if (fd >= 0) close(fd), unlink(temporary);
    return exit_status;
}
