/* Semaphore(2) with 5 workers: never more than two are inside. After the program whose five processes print
 * acquire, sleep and print release.
 *
 * The workers tell the parent through a queue when they come and go. It lets one go whenever both places are
 * taken, so that the next one can come. */
#include <stdio.h>
#include <stdlib.h>

#include <tine.h>

enum { WORKERS = 5, PLACES = 2 };

static tine_semaphore_t *places, *leave;
static tine_queue_t *news;

static int32_t work(void *user_data)
{
    const int came = +1, goes = -1;

    (void)user_data;
    if (tine_semaphore_acquire(places, TINE_FOREVER) < 0) return 1;
    if (tine_queue_put(news, &came, sizeof came, TINE_FOREVER) < 0) return 1;
    if (tine_semaphore_acquire(leave, TINE_FOREVER) < 0) return 1;
    if (tine_queue_put(news, &goes, sizeof goes, TINE_FOREVER) < 0) return 1;
    return tine_semaphore_release(places, 1) < 0;
}

int main(void)
{
    tine_process_t *processes[WORKERS] = { NULL };
    int exit_status = EXIT_FAILURE, inside = 0, left = 0;

    if (tine_semaphore_new(PLACES, PLACES, NULL, &places) < 0 || tine_semaphore_new(0, 0, NULL, &leave) < 0) goto out;
    if (tine_queue_new(NULL, &news) < 0) goto out;
    for (int i = 0; i < WORKERS; i++)
        if (tine_process_start(work, NULL, NULL, &processes[i]) < 0) goto out;

    while (left < WORKERS) {
        int change = 0;
        if (tine_queue_get(news, &change, sizeof change, TINE_FOREVER, NULL) < 0) goto out;
        inside += change;
        left += change < 0;
        printf("%s, %d inside\n", change > 0 ? "acquire" : "release", inside);
        if ((inside == PLACES || left + inside == WORKERS) && inside > 0 && tine_semaphore_release(leave, 1) < 0) goto out;
    }
    for (int i = 0; i < WORKERS; i++)
        if (tine_process_join(processes[i], TINE_FOREVER) < 0) goto out;
    printf("%u of %d places are free again\n", (unsigned)tine_semaphore_value(places), PLACES);
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    for (int i = 0; i < WORKERS; i++) tine_process_free(processes[i]);
    tine_semaphore_free(places);
    tine_semaphore_free(leave);
    tine_queue_free(news);
    return exit_status;
}
