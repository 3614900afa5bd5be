/* Locks, semaphores and events between processes. */
#include <sched.h>
#include "test.h"

static void join(pid_t child) {
    int status;
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
}

static volatile long *shared_counter(void) {
    volatile long *counter = mmap(NULL, sizeof *counter, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(counter != MAP_FAILED);
    return counter;
}

TEST(a_lock_excludes_other_processes) {
    enum { PROCESSES = 4, ROUNDS = 50000 };
    tine_lock_t *lock = NULL;
    volatile long *counter = shared_counter();
    pid_t children[PROCESSES];
    CHECK_OK(tine_lock_new(NULL, &lock));
    for (int i = 0; i < PROCESSES; i++)
        if ((children[i] = fork()) == 0) {
            for (int k = 0; k < ROUNDS; k++) {
                CHECK_OK(tine_lock_acquire(lock, TINE_FOREVER));
                *counter = *counter + 1;
                CHECK_OK(tine_lock_release(lock));
            }
            tine_lock_free(lock);
            _exit(0);
        }
    for (int i = 0; i < PROCESSES; i++) join(children[i]);
    CHECK_INT(*counter, PROCESSES * ROUNDS);
    tine_lock_free(lock);
}

TEST(a_plain_lock_refuses_its_owner_and_a_recursive_one_counts) {
    tine_lock_options_t options = TINE_LOCK_OPTIONS_INIT;
    tine_lock_t *plain = NULL, *recursive = NULL;
    options.flags = TINE_LOCK_RECURSIVE;
    CHECK_OK(tine_lock_new(NULL, &plain));
    CHECK_OK(tine_lock_new(&options, &recursive));
    CHECK_OK(tine_lock_acquire(plain, 0));
    CHECK_STATUS(tine_lock_acquire(plain, TINE_FOREVER), TINE_EDEADLK);
    CHECK_STATUS(tine_lock_acquire(plain, 0), TINE_ETIMEDOUT);
    CHECK_STATUS(tine_lock_acquire(plain, 10), TINE_ETIMEDOUT);
    for (int i = 0; i < 3; i++) CHECK_OK(tine_lock_acquire(recursive, TINE_FOREVER));
    for (int i = 0; i < 3; i++) CHECK(tine_lock_is_held(recursive)), CHECK_OK(tine_lock_release(recursive));
    CHECK_STATUS(tine_lock_release(recursive), TINE_ENOTOWNER);
    CHECK_OK(tine_lock_release(plain));
    CHECK_STATUS(tine_lock_release(plain), TINE_ENOTOWNER);
    CHECK_MESSAGE("lock");
    tine_lock_free(plain);
    tine_lock_free(recursive);
}

TEST(a_lock_may_be_freed_while_it_is_held) {
    for (int i = 0; i < 1000; i++) { /* more than fit into one piece of memory */
        tine_lock_t *lock = NULL;
        CHECK_OK(tine_lock_new(NULL, &lock));
        if (i % 10 == 0 && i < 1000) CHECK_OK(tine_lock_acquire(lock, 0));
        tine_lock_free(lock);
    }
    tine_lock_t *lock = NULL;
    CHECK_OK(tine_lock_new(NULL, &lock));
    const pid_t child = fork();
    if (child == 0) CHECK_OK(tine_lock_acquire(lock, 0)), raise(SIGKILL);
    waitpid(child, NULL, 0);
    CHECK_STATUS(tine_lock_acquire(lock, 0), TINE_OWNER_DIED);
    CHECK_OK(tine_lock_release(lock));
    tine_lock_free(lock);
}

TEST(the_next_owner_is_told_of_a_death_once_and_sleepers_wake) {
    tine_lock_t *lock = NULL;
    int ready[2], done[2];
    char byte;
    CHECK_OK(tine_lock_new(NULL, &lock));
    CHECK_INT(pipe(ready), 0);
    CHECK_INT(pipe(done), 0);
    const pid_t owner = fork();
    if (owner == 0) {
        CHECK_OK(tine_lock_acquire(lock, 0));
        CHECK_INT(write(ready[1], "x", 1), 1);
        pause();
    }
    CHECK_INT(read(ready[0], &byte, 1), 1);
    pid_t sleepers[2];
    for (int i = 0; i < 2; i++)
        if ((sleepers[i] = fork()) == 0) {
            const tine_status_t status = tine_lock_acquire(lock, TINE_FOREVER);
            byte = status == TINE_OWNER_DIED ? 'D' : status == TINE_OK ? 'K' : '?';
            CHECK_INT(write(done[1], &byte, 1), 1);
            CHECK_OK(tine_lock_release(lock));
            tine_lock_free(lock);
            _exit(0);
        }
    kill(owner, SIGKILL), waitpid(owner, NULL, 0);
    char told[2];
    CHECK_INT(read(done[0], &told[0], 1), 1);
    CHECK_INT(read(done[0], &told[1], 1), 1);
    CHECK(told[0] == 'D' && told[1] == 'K');
    for (int i = 0; i < 2; i++) join(sleepers[i]);
    tine_lock_free(lock);
}

static void do_nothing(int signal) { (void)signal; }
static pid_t copy = -1; /* of the process whose check forked */
static int32_t fork_once(void *user_data) {
    volatile long *counter = user_data;
    if (copy == -1) CHECK((copy = fork()) >= 0);
    counter[1] = 1;
    return 0;
}
TEST(both_sides_of_a_fork_in_an_interrupt_check_go_on_waiting) {
    tine_lock_t *lock = NULL;
    volatile long *counter = shared_counter();
    CHECK_OK(tine_lock_new(NULL, &lock));
    CHECK_OK(tine_lock_acquire(lock, 0));
    const pid_t child = fork();
    if (child == 0) {
        const struct sigaction action = { .sa_handler = do_nothing };
        CHECK_INT(sigaction(SIGUSR1, &action, NULL), 0);
        tine_set_interrupt_check(fork_once, (void *)counter);
        counter[2] = 1;
        CHECK_OK(tine_lock_acquire(lock, TINE_FOREVER));
        CHECK(tine_lock_is_held(lock));
        *counter = *counter + 1;
        CHECK_OK(tine_lock_release(lock));
        if (copy > 0) join(copy);
        _exit(0);
    }
    while (counter[2] == 0) sched_yield();
    while (counter[1] == 0) CHECK_INT(kill(child, SIGUSR1), 0), sched_yield();
    CHECK_OK(tine_lock_release(lock));
    join(child);
    CHECK_INT(*counter, 2);
    tine_lock_free(lock);
}

TEST(a_semaphore_lets_so_many_in) {
    enum { PERMITS = 2, PROCESSES = 5, ROUNDS = 5000 };
    tine_semaphore_t *semaphore = NULL;
    volatile long *inside = shared_counter();
    pid_t children[PROCESSES];
    CHECK_OK(tine_semaphore_new(PERMITS, PERMITS, NULL, &semaphore));
    for (int i = 0; i < PROCESSES; i++)
        if ((children[i] = fork()) == 0) {
            for (int k = 0; k < ROUNDS; k++) {
                CHECK_OK(tine_semaphore_acquire(semaphore, TINE_FOREVER));
                CHECK(__atomic_add_fetch(inside, 1, __ATOMIC_SEQ_CST) <= PERMITS);
                __atomic_sub_fetch(inside, 1, __ATOMIC_SEQ_CST);
                CHECK_OK(tine_semaphore_release(semaphore, 1));
            }
            tine_semaphore_free(semaphore);
            _exit(0);
        }
    for (int i = 0; i < PROCESSES; i++) join(children[i]);
    CHECK_INT(tine_semaphore_value(semaphore), PERMITS);
    CHECK_STATUS(tine_semaphore_release(semaphore, 1), TINE_EOVERFLOW);
    CHECK_INT(tine_semaphore_value(semaphore), PERMITS);
    tine_semaphore_free(semaphore);
}

static void await_sleep(pid_t child) {
    char path[40], state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", child);
    while (state != 'S') {
        FILE *file = fopen(path, "re");
        CHECK(file != NULL && fscanf(file, "%*d %*s %c", &state) == 1);
        fclose(file), sched_yield();
    }
}
/* Of several who wait only one is woken. */
TEST(a_waiter_that_is_stopped_keeps_no_permit_from_one_that_has_waited_enough) {
    tine_semaphore_t *semaphore = NULL;
    volatile long *started = shared_counter();
    pid_t waiters[2];
    CHECK_OK(tine_semaphore_new(0, 0, NULL, &semaphore));
    for (int i = 0; i < 2; i++) {
        if ((waiters[i] = fork()) == 0) {
            started[i] = 1;
            CHECK_OK(tine_semaphore_acquire(semaphore, i == 0 ? TINE_FOREVER : 3000));
            _exit(0);
        }
        while (started[i] == 0) sched_yield();
        await_sleep(waiters[i]);
        if (i == 0) CHECK_INT(kill(waiters[0], SIGSTOP) + waitpid(waiters[0], NULL, WUNTRACED), waiters[0]);
    }
    CHECK_OK(tine_semaphore_release(semaphore, 1));
    join(waiters[1]);
    CHECK_INT(kill(waiters[0], SIGKILL), 0);
    CHECK_INT(waitpid(waiters[0], NULL, 0), waiters[0]);
    tine_semaphore_free(semaphore);
}

TEST(a_semaphore_without_a_bound_counts_far) {
    tine_semaphore_t *semaphore = NULL;
    CHECK_STATUS(tine_semaphore_new(3, 2, NULL, &semaphore), TINE_EINVAL);
    CHECK_MESSAGE("initial 3");
    CHECK_OK(tine_semaphore_new(0, 0, NULL, &semaphore));
    CHECK_STATUS(tine_semaphore_acquire(semaphore, 0), TINE_ETIMEDOUT);
    CHECK_STATUS(tine_semaphore_acquire(semaphore, 20), TINE_ETIMEDOUT);
    CHECK_OK(tine_semaphore_release(semaphore, INT32_MAX));
    CHECK_INT(tine_semaphore_value(semaphore), INT32_MAX);
    CHECK_STATUS(tine_semaphore_release(semaphore, 1), TINE_EOVERFLOW);
    CHECK_OK(tine_semaphore_release(semaphore, 0));
    CHECK_OK(tine_semaphore_acquire(semaphore, 0));
    tine_semaphore_free(semaphore);
}

TEST(an_event_releases_everybody) {
    enum { WAITERS = 4 };
    tine_event_t *event = NULL;
    pid_t children[WAITERS];
    CHECK_OK(tine_event_new(NULL, &event));
    CHECK(!tine_event_is_set(event));
    CHECK_STATUS(tine_event_wait(event, 0), TINE_ETIMEDOUT);
    CHECK_STATUS(tine_event_wait(event, 20), TINE_ETIMEDOUT);
    for (int i = 0; i < WAITERS; i++)
        if ((children[i] = fork()) == 0) CHECK_OK(tine_event_wait(event, TINE_FOREVER)), tine_event_free(event), _exit(0);
    CHECK_OK(tine_event_set(event));
    CHECK(tine_event_is_set(event));
    for (int i = 0; i < WAITERS; i++) join(children[i]);
    CHECK_OK(tine_event_wait(event, 0));
    CHECK_OK(tine_event_clear(event));
    CHECK(!tine_event_is_set(event));
    tine_event_free(event);
}

TEST(nothing_stays_behind) {
    const int fds = test_count_fds();
    for (int i = 0; i < 2000; i++) {
        tine_lock_t *lock = NULL;
        tine_semaphore_t *semaphore = NULL;
        tine_event_t *event = NULL;
        CHECK_OK(tine_lock_new(NULL, &lock));
        CHECK_OK(tine_semaphore_new(1, 0, NULL, &semaphore));
        CHECK_OK(tine_event_new(NULL, &event));
        tine_lock_free(lock), tine_semaphore_free(semaphore), tine_event_free(event);
    }
    /* Small objects share memory: one piece is kept for the next ones. */
    CHECK_INT(test_count_fds(), fds + 1);
    CHECK_INT(test_count_mappings("memfd:tine"), 1);
}
