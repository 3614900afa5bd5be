/* File locks between processes, and between the handles of one. */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/stat.h>

#include "test.h"

static char path[64];

static void make_path(void) {
    strcpy(path, "/tmp/tine_file_lock_XXXXXX");
    const int fd = mkstemp(path);
    CHECK(fd >= 0), close(fd), unlink(path);
}

static tine_file_lock_t *new_lock(void) {
    tine_file_lock_t *lock = NULL;
    CHECK_OK(tine_file_lock_new(path, &lock));
    return lock;
}

static void join(pid_t child) {
    int status;
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
}

TEST(many_append_and_nothing_is_torn_or_lost) {
    enum { PROCESSES = 4, ROUNDS = 500 };
    pid_t children[PROCESSES];
    make_path();
    for (int i = 0; i < PROCESSES; i++)
        if ((children[i] = fork()) == 0) {
            tine_file_lock_t *lock = new_lock();
            const int fd = open(path, O_RDWR | O_APPEND);
            CHECK(fd >= 0);
            for (int k = 0; k < ROUNDS; k++) {
                char number[24];
                snprintf(number, sizeof number, "%d%04d", i, k);
                CHECK_OK(tine_file_lock_acquire(lock, TINE_FILE_LOCK_EXCLUSIVE, k % 2 ? TINE_FOREVER : 15000));
                CHECK_INT(write(fd, number, 2), 2); /* in pieces: without the lock they would mix */
                CHECK_INT(write(fd, number + 2, 3), 3);
                CHECK_INT(write(fd, "\n", 1), 1);
                CHECK_OK(tine_file_lock_release(lock));
            }
            tine_file_lock_free(lock), close(fd), _exit(0);
        }
    for (int i = 0; i < PROCESSES; i++) join(children[i]);
    int next[PROCESSES] = {0};
    FILE *file = fopen(path, "r");
    for (char line[16]; fgets(line, sizeof line, file) != NULL;) {
        CHECK_INT(strlen(line), 6);
        const int writer = line[0] - '0';
        CHECK(writer >= 0 && writer < PROCESSES);
        CHECK_INT(atoi(line + 1), next[writer]++);
    }
    for (int i = 0; i < PROCESSES; i++) CHECK_INT(next[i], ROUNDS);
    fclose(file), unlink(path);
}

TEST(modes_and_times) {
    make_path();
    tine_file_lock_t *one = new_lock(), *two = new_lock();
    CHECK_OK(tine_file_lock_acquire(one, TINE_FILE_LOCK_SHARED, 0));
    CHECK_OK(tine_file_lock_acquire(two, TINE_FILE_LOCK_SHARED, 0));
    CHECK_OK(tine_file_lock_release(two));
    CHECK_STATUS(tine_file_lock_acquire(two, TINE_FILE_LOCK_EXCLUSIVE, 0), TINE_ETIMEDOUT);
    CHECK_STATUS(tine_file_lock_acquire(two, TINE_FILE_LOCK_EXCLUSIVE, 30), TINE_ETIMEDOUT);
    CHECK_STATUS(tine_file_lock_release(two), TINE_ENOTOWNER);
    CHECK_STATUS(tine_file_lock_acquire(one, TINE_FILE_LOCK_EXCLUSIVE, 0), TINE_EBUSY);
    CHECK_STATUS(tine_file_lock_acquire(one, 0, 0), TINE_EINVAL);
    CHECK_STATUS(tine_file_lock_acquire(one, 3, 0), TINE_EINVAL);
    CHECK_MESSAGE("mode");
    CHECK_OK(tine_file_lock_release(one));
    CHECK_STATUS(tine_file_lock_release(one), TINE_ENOTOWNER);
    CHECK_OK(tine_file_lock_acquire(one, TINE_FILE_LOCK_EXCLUSIVE, 0));
    CHECK_STATUS(tine_file_lock_acquire(two, TINE_FILE_LOCK_SHARED, 0), TINE_ETIMEDOUT);
    tine_file_lock_free(one); /* releases */
    CHECK_OK(tine_file_lock_acquire(two, TINE_FILE_LOCK_EXCLUSIVE, 0));
    tine_file_lock_free(two);
    unlink(path);
}

TEST(a_death_releases) {
    int ready[2];
    char byte;
    make_path();
    CHECK_INT(pipe(ready), 0);
    const pid_t owner = fork();
    if (owner == 0) {
        CHECK_OK(tine_file_lock_acquire(new_lock(), TINE_FILE_LOCK_EXCLUSIVE, 0));
        CHECK_INT(write(ready[1], "x", 1), 1);
        for (;;) pause();
    }
    CHECK_INT(read(ready[0], &byte, 1), 1);
    const pid_t waiter = fork();
    if (waiter == 0) {
        tine_file_lock_t *lock = new_lock();
        CHECK_STATUS(tine_file_lock_acquire(lock, TINE_FILE_LOCK_EXCLUSIVE, 0), TINE_ETIMEDOUT);
        CHECK_INT(write(ready[1], "x", 1), 1);
        CHECK_OK(tine_file_lock_acquire(lock, TINE_FILE_LOCK_EXCLUSIVE, TINE_FOREVER));
        tine_file_lock_free(lock);
        _exit(0);
    }
    CHECK_INT(read(ready[0], &byte, 1), 1);
    kill(owner, SIGKILL), waitpid(owner, NULL, 0);
    join(waiter);
    unlink(path);
}

TEST(a_forked_copy_is_inert) {
    make_path();
    tine_file_lock_t *lock = new_lock(), *other = new_lock();
    CHECK_OK(tine_file_lock_acquire(lock, TINE_FILE_LOCK_EXCLUSIVE, 0));
    pid_t child = fork();
    if (child == 0) {
        CHECK_STATUS(tine_file_lock_release(lock), TINE_EFORKED);
        CHECK_STATUS(tine_file_lock_acquire(other, TINE_FILE_LOCK_SHARED, 0), TINE_EFORKED);
        tine_file_lock_free(lock), tine_file_lock_free(other);
        lock = new_lock();
        CHECK_STATUS(tine_file_lock_acquire(lock, TINE_FILE_LOCK_SHARED, 0), TINE_ETIMEDOUT);
        tine_file_lock_free(lock);
        _exit(0);
    }
    join(child);
    CHECK_STATUS(tine_file_lock_acquire(other, TINE_FILE_LOCK_SHARED, 0), TINE_ETIMEDOUT); /* still held */
    /* A child that keeps its copy does not keep the lock. */
    int stop[2];
    char byte;
    CHECK_INT(pipe(stop), 0);
    if ((child = fork()) == 0) close(stop[1]), CHECK_INT(read(stop[0], &byte, 1), 0), _exit(0);
    CHECK_OK(tine_file_lock_release(lock));
    CHECK_OK(tine_file_lock_acquire(other, TINE_FILE_LOCK_EXCLUSIVE, 0));
    close(stop[1]), join(child);
    tine_file_lock_free(lock), tine_file_lock_free(other);
    unlink(path);
}

static int interrupted(void *count) { return ++*(int *)count > 1; }
static void nothing(int signal) { (void)signal; }

TEST(an_interrupt_check_ends_the_wait) {
    if (under_valgrind()) SKIP("a signal after the other leaves valgrind no time for anything else");
    make_path();
    int count = 0;
    tine_file_lock_t *one = new_lock(), *two = new_lock();
    CHECK_OK(tine_file_lock_acquire(one, TINE_FILE_LOCK_EXCLUSIVE, 0));
    sigaction(SIGUSR1, &(struct sigaction){ .sa_handler = nothing }, NULL);
    const pid_t parent = getpid(), child = fork();
    if (child == 0) for (;;) kill(parent, SIGUSR1), sched_yield();
    tine_set_interrupt_check(interrupted, &count);
    CHECK_STATUS(tine_file_lock_acquire(two, TINE_FILE_LOCK_EXCLUSIVE, TINE_FOREVER), TINE_EINTR);
    count = 0;
    CHECK_STATUS(tine_file_lock_acquire(two, TINE_FILE_LOCK_EXCLUSIVE, 15000), TINE_EINTR);
    kill(child, SIGKILL), waitpid(child, NULL, 0);
    tine_file_lock_free(one), tine_file_lock_free(two);
    unlink(path);
}

TEST(what_cannot_be_opened_is_told) {
    tine_file_lock_t *lock = NULL;
    CHECK_STATUS(tine_file_lock_new("/nowhere/at/all", &lock), TINE_ENOENT);
    CHECK_MESSAGE("/nowhere/at/all");
    CHECK_STATUS(tine_file_lock_new("/dev/null/x", &lock), TINE_ENOTDIR);
    CHECK_STATUS(tine_file_lock_new("/", &lock), TINE_ESYS);
    CHECK(lock == NULL);
    make_path();
    const int fds = test_count_fds();
    for (int i = 0; i < 100; i++) {
        lock = new_lock();
        if (i % 2) CHECK_OK(tine_file_lock_acquire(lock, TINE_FILE_LOCK_EXCLUSIVE, 0));
        tine_file_lock_free(lock);
    }
    CHECK_INT(test_count_fds(), fds);
    unlink(path);
}

TEST(a_host_without_stdout_prints_nothing_into_the_file) {
    struct stat file;
    make_path();
    fflush(stdout);
    const int out = dup(STDOUT_FILENO);
    CHECK(out > 2);
    close(STDOUT_FILENO);
    tine_file_lock_t *lock = new_lock();
    CHECK_INT(write(STDOUT_FILENO, "x", 1), -1);
    CHECK_INT(dup2(out, STDOUT_FILENO), STDOUT_FILENO), close(out);
    CHECK_INT(stat(path, &file), 0);
    CHECK_INT(file.st_size, 0);
    tine_file_lock_free(lock), unlink(path);
}
