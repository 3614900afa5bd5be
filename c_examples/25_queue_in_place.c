/* Big messages without copies: the producer draws each picture where it lies in the queue, and the consumer
 * looks at it there. Only a message that would wrap around the end of the queue's ring is copied.
 *
 * Between reserve and commit other producers wait, and between peek and release other consumers. A process
 * that is killed in between leaves nothing behind: the reservation never was, the message stays. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <tine.h>

enum { WIDTH = 128, HEIGHT = 96, PICTURES = 5 };

typedef struct {
    uint32_t number;
    uint8_t pixels[HEIGHT][WIDTH];
} picture_t;

static tine_queue_t *queue;

static int32_t draw(void *user_data)
{
    (void)user_data;
    for (uint32_t number = 1; number <= PICTURES; number++) {
        void *memory = NULL;
        if (tine_queue_reserve(queue, sizeof(picture_t), TINE_FOREVER, &memory) < 0) return 1;
        picture_t *picture = memory;
        picture->number = number;
        for (int y = 0; y < HEIGHT; y++)
            for (int x = 0; x < WIDTH; x++) picture->pixels[y][x] = (uint8_t)(x * y * (int)number);
        if (tine_queue_commit(queue, sizeof *picture) < 0) return 1;
    }
    return tine_queue_close(queue) < 0;
}

int main(void)
{
    tine_queue_options_t options = TINE_QUEUE_OPTIONS_INIT;
    tine_process_t *process = NULL;
    const void *data = NULL;
    tine_status_t status;
    int exit_status = EXIT_FAILURE;

    options.capacity_bytes = 1 << 20;       /* a message in place is at most a quarter of it */
    if (tine_queue_new(&options, &queue) < 0) goto out;
    if (tine_process_start(draw, NULL, NULL, &process) < 0) goto out;

    while ((status = tine_queue_peek(queue, TINE_FOREVER, &data, NULL)) == TINE_OK) {
        const picture_t *picture = data;
        uint32_t light = 0;
        for (int y = 0; y < HEIGHT; y++)
            for (int x = 0; x < WIDTH; x++) light += picture->pixels[y][x];
        printf("picture %u: light %u\n", (unsigned)picture->number, (unsigned)light);
        if (tine_queue_release(queue) < 0) goto out;
    }
    if (status != TINE_ECLOSED || tine_process_join(process, TINE_FOREVER) < 0) goto out;
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    tine_process_free(process);
    tine_queue_free(queue);
    return exit_status;
}
