/*
 * What a pool costs: wall time, and processor time of host and workers, which says more on a busy machine.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "tine.h"

#define OK(call) ((call) < 0 ? (fprintf(stderr, "%s: %s\n", #call, tine_last_error_message()), exit(1)) : (void)0)

static int32_t nothing(const void *arg, size_t len, tine_task_t *task) { return (void)arg, (void)len, (void)task, 0; }
static int32_t twice(const void *arg, size_t len, tine_task_t *task) {
    int32_t number;
    (void)len, memcpy(&number, arg, sizeof number);
    return number *= 2, tine_task_reply(task, &number, sizeof number);
}
static void ignore(const tine_result_t *result, void *user_data) { (void)result, ++*(long *)user_data; }

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}
static double worker_seconds(tine_pool_t *pool) {
    int32_t pids[64];
    size_t count = 0;
    double sum = 0;
    OK(tine_pool_worker_pids(pool, pids, 64, &count));
    for (size_t i = 0; i < count && i < 64; i++) {
        char path[50];
        unsigned long long spent = 0;
        snprintf(path, sizeof path, "/proc/%d/schedstat", (int)pids[i]);
        FILE *file = fopen(path, "r");
        if (file != NULL && fscanf(file, "%llu", &spent) == 1) sum += (double)spent * 1e-9;
        if (file != NULL) fclose(file);
    }
    return sum;
}
static double wall, host, workers;
static void begin(tine_pool_t *pool) { workers = worker_seconds(pool), host = seconds(CLOCK_PROCESS_CPUTIME_ID), wall = seconds(CLOCK_MONOTONIC); }
static void end(tine_pool_t *pool, const char *what, long count) {
    const double took = seconds(CLOCK_MONOTONIC) - wall, ours = seconds(CLOCK_PROCESS_CPUTIME_ID) - host, theirs = worker_seconds(pool) - workers;
    printf("%-44s %9.0f/s %8.2f us each; processor: host %.2f us, workers %.2f us\n", what, (double)count / took, took / (double)count * 1e6,
           ours / (double)count * 1e6, theirs / (double)count * 1e6);
}

int main(int argc, char **argv) {
    const long tasks = argc > 1 ? atol(argv[1]) : 200000;
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_pool_t *pool;
    options.workers = 2;
    double start = seconds(CLOCK_MONOTONIC);
    OK(tine_pool_new(&options, &pool));
    printf("pool of 2 made in %.0f us\n", (seconds(CLOCK_MONOTONIC) - start) * 1e6);

    for (int round = 0; round < 3; round++) {
        begin(pool);
        for (long i = 0; i < tasks / 10; i++) OK(tine_pool_apply(pool, nothing, NULL, 0, TINE_FOREVER, NULL));
        end(pool, "apply, empty", tasks / 10);
    }
    begin(pool);
    for (int32_t i = 0; i < tasks / 10; i++) {
        tine_result_t *result;
        OK(tine_pool_apply(pool, twice, &i, sizeof i, TINE_FOREVER, &result));
        tine_result_free(result);
    }
    end(pool, "apply, 4 bytes there and back", tasks / 10);

    tine_submit_options_t submitting = TINE_SUBMIT_OPTIONS_INIT;
    long calls = 0;
    submitting.callback = submitting.error_callback = ignore;
    submitting.user_data = &calls;
    for (int round = 0; round < 3; round++) {
        begin(pool);
        tine_async_t *last;
        for (long i = 1; i < tasks; i++) OK(tine_pool_submit(pool, nothing, NULL, 0, &submitting, NULL));
        OK(tine_pool_submit(pool, nothing, NULL, 0, &submitting, &last));
        OK(tine_async_wait(last, TINE_FOREVER));
        tine_async_free(last);
        end(pool, "submit, empty, with callbacks", tasks);
    }

    tine_async_t **asyncs = malloc((size_t)tasks * sizeof *asyncs);
    for (int round = 0; round < 3 && asyncs != NULL; round++) {
        begin(pool);
        for (long i = 0; i < tasks; i++) OK(tine_pool_submit(pool, nothing, NULL, 0, NULL, &asyncs[i]));
        for (long i = 0; i < tasks; i++) OK(tine_async_get(asyncs[i], TINE_FOREVER, NULL)), tine_async_free(asyncs[i]);
        end(pool, "submit, empty, with asyncs", tasks);
    }
    free(asyncs);

    const size_t count = 1000000;
    int32_t *items = calloc(count, sizeof *items), *results = calloc(count, sizeof *results);
    for (int round = 0; round < 3 && items != NULL && results != NULL; round++) {
        begin(pool);
        OK(tine_pool_map(pool, twice, items, sizeof *items, count, 0, results, sizeof *results, TINE_FOREVER, NULL));
        end(pool, "map, a million items of 4 bytes", (long)count);
    }
    free(items), free(results);

    start = seconds(CLOCK_MONOTONIC);
    tine_pool_free(pool);
    printf("freed in %.0f us\n", (seconds(CLOCK_MONOTONIC) - start) * 1e6);
    return 0;
}
