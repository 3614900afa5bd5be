/* Conditions between processes and between threads. */
#include <pthread.h>
#include <sched.h>

#include "test.h"

struct shared { /* guarded by the lock */
    volatile int waiting, tokens, back;
};

static tine_lock_t *lock;
static tine_condition_t *condition;
static struct shared *shared;

static void make(uint32_t lock_flags) {
    tine_lock_options_t options = TINE_LOCK_OPTIONS_INIT;
    options.flags = lock_flags;
    CHECK_OK(tine_lock_new(&options, &lock));
    CHECK_OK(tine_condition_new(NULL, &condition));
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
}

static void unmake(void) {
    tine_condition_free(condition);
    tine_lock_free(lock);
    munmap(shared, sizeof *shared);
}

static void acquire(void) { CHECK(tine_lock_acquire(lock, TINE_FOREVER) >= 0); }
static void release(void) { CHECK_OK(tine_lock_release(lock)); }

/* Once `*count` is `wanted`; who counts then waits, for it gave the lock up. */
static void await(volatile int *count, int wanted) {
    for (int there = -1; there != wanted; sched_yield()) acquire(), there = *count, release();
}

static void consume(void) {
    acquire();
    shared->waiting++;
    while (shared->tokens == 0) CHECK(tine_condition_wait(condition, lock, TINE_FOREVER) >= 0);
    shared->tokens--, shared->back++;
    release();
}

static pid_t start_consumer(void) {
    const pid_t child = fork();
    if (child == 0) consume(), unmake(), _exit(0);
    return child;
}

static void join(pid_t child) {
    int status;
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
}

static void bring(int tokens) {
    acquire(), shared->tokens += tokens, release();
    CHECK_OK(tine_condition_notify(condition, (uint32_t)tokens));
}

TEST(as_many_are_woken_as_were_asked_for) {
    enum { WAITERS = 5 };
    pid_t children[WAITERS];
    make(0);
    for (int i = 0; i < WAITERS; i++) children[i] = start_consumer(), await(&shared->waiting, i + 1);
    bring(2);
    join(children[0]), join(children[1]); /* the oldest */
    CHECK_INT(shared->back, 2);
    CHECK_OK(tine_condition_notify(condition, 0));
    bring(1);
    join(children[2]);
    acquire(), shared->tokens = 2, release();
    CHECK_OK(tine_condition_notify_all(condition));
    join(children[3]), join(children[4]);
    CHECK_OK(tine_condition_notify_all(condition)); /* nobody is there */
    unmake();
}

TEST(the_dead_do_not_eat_notifications) {
    enum { ROUNDS = 30, WAITERS = 3 };
    make(0);
    for (int round = 0; round < ROUNDS; round++) {
        pid_t children[WAITERS];
        shared->waiting = shared->back = 0;
        for (int i = 0; i < WAITERS; i++) children[i] = start_consumer(), await(&shared->waiting, i + 1);
        /* One is notified while the lock is held, so that it cannot leave, and dies there; sometimes before or after. */
        const int victim = round % WAITERS;
        acquire();
        if (round % 2) kill(children[victim], SIGKILL), waitpid(children[victim], NULL, 0);
        shared->tokens = WAITERS - 1;
        CHECK_OK(tine_condition_notify(condition, WAITERS - 1));
        if (round % 2 == 0) kill(children[victim], SIGKILL), waitpid(children[victim], NULL, 0);
        release();
        for (int i = 0; i < WAITERS; i++)
            if (i != victim) join(children[i]);
        CHECK_INT(shared->tokens, 0);
    }
    unmake();
}

TEST(a_wait_that_is_not_notified_ends_in_time_with_the_lock) {
    make(TINE_LOCK_RECURSIVE);
    CHECK_STATUS(tine_condition_wait(condition, lock, 0), TINE_ENOTOWNER);
    CHECK_MESSAGE("condition");
    for (int i = 0; i < 3; i++) acquire();
    CHECK_STATUS(tine_condition_wait(condition, lock, 0), TINE_ETIMEDOUT);
    CHECK_STATUS(tine_condition_wait(condition, lock, 20), TINE_ETIMEDOUT);
    CHECK_STATUS(tine_condition_wait(condition, lock, -2), TINE_EINVAL);
    int looked[2];
    char byte;
    CHECK_INT(pipe(looked), 0);
    const pid_t child = fork();
    if (child == 0) {
        CHECK_STATUS(tine_lock_acquire(lock, 0), TINE_ETIMEDOUT); /* all levels are back */
        CHECK_STATUS(tine_condition_wait(condition, lock, 0), TINE_ENOTOWNER);
        CHECK_INT(write(looked[1], "x", 1), 1);
        bring(1), _exit(0);
    }
    CHECK_INT(read(looked[0], &byte, 1), 1);
    while (shared->tokens == 0) CHECK_OK(tine_condition_wait(condition, lock, TINE_FOREVER));
    for (int i = 0; i < 3; i++) release();
    CHECK(!tine_lock_is_held(lock));
    int status;
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
    unmake();
}

TEST(the_death_of_the_locks_owner_is_told_whatever_ended_the_wait) {
    int told[2];
    char byte = 0;
    make(0);
    CHECK_INT(pipe(told), 0);
    const pid_t waiter = fork();
    if (waiter == 0) {
        acquire(), shared->waiting = 1;
        tine_status_t ended;
        do ended = tine_condition_wait(condition, lock, 100); while (ended == TINE_ETIMEDOUT && !shared->back); /* not there yet */
        byte = ended == TINE_OWNER_DIED && tine_lock_is_held(lock) ? 'D' : '?';
        CHECK_INT(write(told[1], &byte, 1), 1);
        release(), _exit(0);
    }
    await(&shared->waiting, 1);
    const pid_t owner = fork();
    if (owner == 0) acquire(), shared->back = 1, pause();
    while (!shared->back) sched_yield();
    kill(owner, SIGKILL), waitpid(owner, NULL, 0);
    CHECK_INT(read(told[0], &byte, 1), 1);
    join(waiter);
    CHECK(byte == 'D');
    unmake();
}

static void *consume_on_thread(void *nothing) { return consume(), nothing; }

TEST(threads_wait_like_processes) {
    enum { THREADS = 8 };
    pthread_t threads[THREADS];
    make(0);
    for (int i = 0; i < THREADS; i++) CHECK_INT(pthread_create(&threads[i], NULL, consume_on_thread, NULL), 0);
    for (int i = 0; i < THREADS; i++) bring(1);
    for (int i = 0; i < THREADS; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    CHECK_INT(shared->back, THREADS);
    unmake();
}

TEST(nothing_is_lost_while_waiters_are_killed) {
    enum { CONSUMERS = 4, KILLS = 100 };
    make(0);
    pid_t children[CONSUMERS] = {0};
    unsigned random = 1;
    for (int i = 0; i < KILLS; i++) {
        for (int k = 0; k < CONSUMERS; k++)
            if (children[k] == 0 && (children[k] = fork()) == 0)
                for (;;) {
                    acquire();
                    while (shared->tokens == 0) CHECK(tine_condition_wait(condition, lock, TINE_FOREVER) >= 0);
                    shared->tokens--;
                    release();
                    /* Died with the lock: what it should have told the next one, whoever is told of its death tells now. */
                    CHECK_OK(tine_condition_notify(condition, 1));
                }
        bring(3);
        random = random * 1103515245 + 12345;
        for (unsigned pause = random >> 16 & 31; pause > 0; pause--) sched_yield();
        const int victim = (int)((random >> 8) % CONSUMERS);
        kill(children[victim], SIGKILL), waitpid(children[victim], NULL, 0), children[victim] = 0;
        acquire(), release();
        CHECK_OK(tine_condition_notify(condition, 1)); /* for the token of one that died with the lock */
        for (int tokens = 1; tokens > 0; sched_yield()) acquire(), tokens = shared->tokens, release();
    }
    for (int k = 0; k < CONSUMERS; k++)
        if (children[k] != 0) kill(children[k], SIGKILL), waitpid(children[k], NULL, 0);
    unmake();
}

TEST(nothing_stays_behind) {
    make(0), unmake();
    const int fds = test_count_fds(), mappings = test_count_mappings("memfd:tine");
    for (int i = 0; i < 500; i++) {
        tine_condition_t *one = NULL;
        CHECK_OK(tine_condition_new(NULL, &one));
        CHECK_OK(tine_condition_notify_all(one));
        tine_condition_free(one);
    }
    CHECK_INT(test_count_fds(), fds);
    CHECK_INT(test_count_mappings("memfd:tine"), mappings);
}
