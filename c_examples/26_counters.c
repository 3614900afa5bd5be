/* A table of counters with a lock beside each, in one block of shared memory: processes that count in different rows do not
 * wait for each other. One of them is killed while it holds a lock; whoever comes next is told, looks at the row and goes on.
 *
 * Every process may have the block at another address: rows are found by their offset. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <tine.h>

enum { ROWS = 100, PROCESSES = 4, ROUNDS = 5000 };

static tine_shared_memory_t *table;

/* A row: the lock, then the counter and how often it was changed, which must be the same. */
static size_t row_bytes(void)
{
    return tine_lock_footprint() + 2 * sizeof(uint64_t);
}

static uint64_t *counters(size_t row)
{
    char *data = tine_shared_memory_data(table);

    return (uint64_t *)(void *)(data + row * row_bytes() + tine_lock_footprint());
}

static int32_t count(void *user_data)
{
    unsigned seed = *(const unsigned *)user_data;
    tine_lock_t *locks[ROWS] = { NULL };
    int32_t failed = 1;

    for (size_t row = 0; row < ROWS; row++)
        if (tine_lock_at(table, row * row_bytes(), &locks[row]) < 0) goto out;
    for (int round = 0; round < ROUNDS; round++) {
        const size_t row = (size_t)rand_r(&seed) % ROWS;
        const tine_status_t status = tine_lock_acquire(locks[row], TINE_FOREVER);

        if (status < 0) goto out;
        if (status == TINE_OWNER_DIED) counters(row)[1] = counters(row)[0]; /* it may have died between the two */
        counters(row)[0]++;
        counters(row)[1]++;
        if (tine_lock_release(locks[row]) < 0) goto out;
    }
    failed = 0;
out:
    for (size_t row = 0; row < ROWS; row++) tine_lock_free(locks[row]);
    return failed;
}

/* Dies with the lock of row 0, and with its counter half changed. */
static int32_t die(void *user_data)
{
    tine_lock_t *lock = NULL;

    (void)user_data;
    if (tine_lock_at(table, 0, &lock) < 0 || tine_lock_acquire(lock, TINE_FOREVER) < 0) return 1;
    counters(0)[0]++;
    raise(SIGKILL);
    return 1;
}

int main(void)
{
    tine_process_t *processes[PROCESSES + 1] = { NULL };
    int exit_status = EXIT_FAILURE, failed = 0, killed = 0;
    uint64_t sum = 0, torn = 0;

    if (tine_shared_memory_new(ROWS * row_bytes(), NULL, &table) < 0) goto out;
    for (size_t row = 0; row < ROWS; row++) {
        tine_lock_t *lock = NULL;
        if (tine_lock_new_in(table, row * row_bytes(), NULL, &lock) < 0) goto out;
        tine_lock_free(lock); /* this handle; the lock is in the table */
    }
    for (unsigned i = 0; i < PROCESSES; i++)
        if (tine_process_start(count, &i, NULL, &processes[i]) < 0) goto out;
    if (tine_process_start(die, NULL, NULL, &processes[PROCESSES]) < 0) goto out;
    for (int i = 0; i <= PROCESSES; i++) {
        int32_t code = -1;
        if (tine_process_join(processes[i], TINE_FOREVER) < 0) goto out;
        if (tine_process_exit_code(processes[i], &code) < 0) goto out;
        failed += code > 0;
        killed += code == -SIGKILL;
    }
    for (size_t row = 0; row < ROWS; row++) {
        const uint64_t *counter = counters(row);
        tine_lock_t *lock = NULL;
        tine_status_t status;

        if (tine_lock_at(table, row * row_bytes(), &lock) < 0) goto out;
        status = tine_lock_acquire(lock, TINE_FOREVER);
        if (status == TINE_OWNER_DIED) counters(row)[1] = counter[0]; /* nobody counted here after its death */
        sum += counter[0];
        torn += counter[0] != counter[1];
        tine_lock_release(lock);
        tine_lock_free(lock);
    }
    printf("%d processes counted to %d in %d rows, %d failed, %d killed\n", PROCESSES, ROUNDS, ROWS, failed, killed);
    printf("sum %llu, rows that are torn: %llu\n", (unsigned long long)sum, (unsigned long long)torn);
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    for (int i = 0; i <= PROCESSES; i++) tine_process_free(processes[i]);
    tine_shared_memory_free(table);
    return exit_status;
}
