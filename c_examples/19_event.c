/* An event, waited for without a limit and with one. After the pair wait_for_event and
 * wait_for_event_timeout: the second one's time runs out before the event is set. */
#include <stdio.h>
#include <stdlib.h>

#include <tine.h>

static tine_event_t *event;
static tine_semaphore_t *started;

static int32_t wait_for_event(void *user_data)
{
    int64_t timeout_ms = *(const int64_t *)user_data;
    const char *name = tine_current_process_name();

    printf("%s: starting\n", name);
    if (tine_semaphore_release(started, 1) < 0) return 1;
    tine_status_t status = tine_event_wait(event, timeout_ms);
    if (status < 0 && status != TINE_ETIMEDOUT) return 1;
    printf("%s: is_set -> %s\n", name, tine_event_is_set(event) ? "True" : "False");
    return 0;
}

int main(void)
{
    tine_process_options_t options = TINE_PROCESS_OPTIONS_INIT;
    tine_process_t *block = NULL, *non_block = NULL;
    int64_t timeout_ms = TINE_FOREVER;
    int exit_status = EXIT_FAILURE;

    setvbuf(stdout, NULL, _IOLBF, 0);       /* several processes print: each line leaves at once */
    if (tine_event_new(NULL, &event) < 0 || tine_semaphore_new(0, 0, NULL, &started) < 0) goto out;

    options.name = "block";
    if (tine_process_start(wait_for_event, &timeout_ms, &options, &block) < 0) goto out;
    if (tine_semaphore_acquire(started, TINE_FOREVER) < 0) goto out;
    options.name = "non-block";
    timeout_ms = 50;
    if (tine_process_start(wait_for_event, &timeout_ms, &options, &non_block) < 0) goto out;
    if (tine_process_join(non_block, TINE_FOREVER) < 0) goto out;
    printf("main: event is set\n");
    if (tine_event_set(event) < 0) goto out;
    if (tine_process_join(block, TINE_FOREVER) < 0) goto out;
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    tine_process_free(block);
    tine_process_free(non_block);
    tine_event_free(event);
    tine_semaphore_free(started);
    return exit_status;
}
