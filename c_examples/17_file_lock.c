/* A lock on a file. After Pool(3) whose tasks append phone numbers to phone.txt under fcntl.flock: three workers
 * append to one file, and nothing is torn and nothing lost.
 *
 * Each number is written in three pieces, so that without the lock the numbers would mix. At the end the file
 * is read and every number looked for. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tine.h>

enum { WORKERS = 3, NUMBERS = 3000, LENGTH = 12, SIZE = 32 };

static char path[] = "/tmp/tine_phone_XXXXXX";

/* 3 to 8 in second place, then the number of the task: each is there once. */
static void phone_number(int task, char *phone)
{
    snprintf(phone, SIZE, "1%d%09d|", 3 + task % 6, task);
}

static int32_t create_phone(const void *arg, size_t arg_len, tine_task_t *task)
{
    tine_file_lock_t *lock = NULL;              /* on the file itself, by its path */
    char phone[SIZE];
    int number, failed = 1;

    (void)arg_len, (void)task;
    memcpy(&number, arg, sizeof number);
    phone_number(number, phone);
    const int fd = open(path, O_WRONLY | O_APPEND);
    if (fd < 0 || tine_file_lock_new(path, &lock) < 0) goto out;
    if (tine_file_lock_acquire(lock, TINE_FILE_LOCK_EXCLUSIVE, TINE_FOREVER) < 0) goto out;
    failed = write(fd, phone, 3) != 3 || write(fd, phone + 3, 4) != 4 || write(fd, phone + 7, 5) != 5;
    failed |= tine_file_lock_release(lock) < 0;
out:
    tine_file_lock_free(lock);
    if (fd >= 0) close(fd);
    return failed;
}

/* How many numbers stand in the file; -1 if one of them is torn or stands there twice. */
static int count_phones(void)
{
    static char seen[NUMBERS];
    char phone[SIZE] = "", wanted[SIZE];
    FILE *file = fopen(path, "r");
    size_t length = 0;
    int count = 0;

    while (file != NULL && (length = fread(phone, 1, LENGTH, file)) == LENGTH) {
        const int number = atoi(phone + 2);
        if (number < 0 || number >= NUMBERS || seen[number]++) break;
        phone_number(number, wanted);
        if (strcmp(phone, wanted) != 0) break;
        count++;
    }
    if (file != NULL) fclose(file);
    return length == 0 ? count : -1;
}

int main(void)
{
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_pool_t *pool = NULL;
    int exit_status = EXIT_FAILURE;
    const int fd = mkstemp(path);               /* before the pool: its workers know the name */

    if (fd < 0) return EXIT_FAILURE;
    close(fd);
    options.workers = WORKERS;
    if (tine_pool_new(&options, &pool) < 0) goto out;
    for (int i = 0; i < NUMBERS; i++)
        if (tine_pool_submit(pool, create_phone, &i, sizeof i, NULL, NULL) < 0) goto out;
    if (tine_pool_close(pool) < 0 || tine_pool_join(pool, TINE_FOREVER) < 0) goto out;
    printf("%d of %d numbers are whole\n", count_phones(), NUMBERS);
    printf("--end--\n");
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    tine_pool_free(pool);
    unlink(path);
    return exit_status;
}
