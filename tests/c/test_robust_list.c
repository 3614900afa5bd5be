/* tine's locks and the host's own robust mutexes live in one list per thread: whatever the order, both survive. */
#include "test.h"
#include <pthread.h>

enum { MUTEXES = 4, LOCKS = 4 };
static pthread_mutex_t *mutexes; /* in memory that children share */
static tine_lock_t *locks[LOCKS];

static void make_objects(void) {
    pthread_mutexattr_t attributes;
    mutexes = mmap(NULL, MUTEXES * sizeof *mutexes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(mutexes != MAP_FAILED);
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    for (int i = 0; i < MUTEXES; i++) {
        /* The list marks those with priority inheritance by a bit in the pointer to them. */
        pthread_mutexattr_setprotocol(&attributes, i < MUTEXES / 2 ? PTHREAD_PRIO_NONE : PTHREAD_PRIO_INHERIT);
        CHECK_INT(pthread_mutex_init(&mutexes[i], &attributes), 0);
    }
    for (int i = 0; i < LOCKS; i++) CHECK_OK(tine_lock_new(NULL, &locks[i]));
}

static uint32_t seed;
static uint32_t next_random(void) { return seed = seed * 1664525u + 1013904223u, seed >> 16; }

/* Takes and gives back both kinds at random, then dies holding some. Bits 0..3: mutexes held, 4..7: locks held. */
static unsigned take_and_give(int steps) {
    unsigned held = 0;
    for (int i = 0; i < steps; i++) {
        const unsigned k = next_random() % (MUTEXES + LOCKS), bit = 1u << k;
        if (k < MUTEXES) {
            CHECK_INT(held & bit ? pthread_mutex_unlock(&mutexes[k]) : pthread_mutex_lock(&mutexes[k]), 0);
        } else if (held & bit) {
            CHECK_OK(tine_lock_release(locks[k - MUTEXES]));
        } else {
            CHECK_OK(tine_lock_acquire(locks[k - MUTEXES], TINE_FOREVER));
        }
        held ^= bit;
    }
    return held;
}

TEST(both_kinds_interleaved_survive_the_death_of_their_holder) {
    make_objects();
    volatile unsigned *held = mmap(NULL, sizeof *held, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(held != MAP_FAILED);
    for (int round = 0; round < 300; round++) {
        int status;
        const pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) seed = (uint32_t)round, *held = take_and_give(round % 40), raise(SIGKILL);
        CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
        for (int i = 0; i < MUTEXES; i++) {
            const int expected = *held & (1u << i) ? EOWNERDEAD : 0;
            CHECK_INT(pthread_mutex_trylock(&mutexes[i]), expected);
            if (expected) pthread_mutex_consistent(&mutexes[i]);
        }
        for (int i = 0; i < LOCKS; i++)
            CHECK_STATUS(tine_lock_acquire(locks[i], 0), *held & (1u << (MUTEXES + i)) ? TINE_OWNER_DIED : TINE_OK);
        for (int i = 0; i < LOCKS; i++) CHECK_OK(tine_lock_release(locks[i]));
        for (int i = 0; i < MUTEXES; i++) CHECK_INT(pthread_mutex_unlock(&mutexes[i]), 0);
    }
}

/* Garbage over the list node of a held lock in shared memory: an error, and nothing else of this process is written. */
TEST(a_node_that_a_peer_wrote_over_is_not_followed) {
    make_objects();
    static long victim[4] = { 0x1111, 0x2222, 0x3333, 0x4444 };
    CHECK_OK(tine_lock_acquire(locks[0], 0));
    CHECK_OK(tine_lock_acquire(locks[1], 0));
    CHECK_INT(pthread_mutex_lock(&mutexes[0]), 0);
    CHECK_OK(tine_lock_acquire(locks[2], 0));
    /* The cells lie in the slab, the only mapping of that name; find those that hold our thread's number. */
    FILE *maps = fopen("/proc/self/maps", "r");
    int written = 0;
    for (char line[512]; fgets(line, sizeof line, maps) != NULL;) {
        uintptr_t from, to;
        if (strstr(line, "memfd:tine:slab") == NULL || sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &from, &to) != 2) continue;
        for (uintptr_t cell = from; cell < to; cell += 64)
            if ((*(uint32_t *)cell & 0x3fffffff) == (uint32_t)getpid()) {
                *(uintptr_t *)(cell + 24) = (uintptr_t)&victim[3];
                *(uintptr_t *)(cell + 32) = (uintptr_t)&victim[1];
                written++;
            }
    }
    fclose(maps);
    CHECK_INT(written, 3);
    CHECK_STATUS(tine_lock_release(locks[1]), TINE_ECORRUPT);
    /* The first walk may have mended the others' nodes. */
    for (int i = 0; i <= 2; i += 2) {
        const tine_status_t status = tine_lock_release(locks[i]);
        CHECK(status == TINE_OK || status == TINE_ECORRUPT);
    }
    CHECK_INT(victim[0] ^ victim[1] ^ victim[2] ^ victim[3], 0x1111 ^ 0x2222 ^ 0x3333 ^ 0x4444);
    CHECK_OK(tine_lock_acquire(locks[1], 0));
    CHECK_OK(tine_lock_release(locks[1]));
}

/* Where the next node of the only lock that this thread holds is said to be. */
static uintptr_t *next_of_the_held_lock(void) {
    FILE *maps = fopen("/proc/self/maps", "r");
    uintptr_t *next = NULL;
    for (char line[512]; next == NULL && fgets(line, sizeof line, maps) != NULL;) {
        uintptr_t from, to;
        if (strstr(line, "memfd:tine:slab") == NULL || sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &from, &to) != 2) continue;
        for (uintptr_t cell = from; cell < to; cell += 64)
            if ((*(uint32_t *)cell & 0x3fffffff) == (uint32_t)getpid()) next = (uintptr_t *)(cell + 32);
    }
    fclose(maps);
    CHECK(next != NULL);
    return next;
}

/* A peer leads the node of a held lock to a mutex of the host that was below it, and is not held any more, or not even there. */
TEST(a_mutex_that_is_gone_is_not_followed) {
    enum { PAGE = 65536 };
    make_objects();
    for (int unmapped = 0; unmapped < 2; unmapped++) {
        pthread_mutex_t *mutex = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(mutex != MAP_FAILED);
        memcpy(mutex, &mutexes[MUTEXES / 2 - 1], sizeof *mutex); /* as it was made */
        CHECK_INT(pthread_mutex_lock(mutex), 0);
        CHECK_OK(tine_lock_acquire(locks[0], 0));
        CHECK_INT(pthread_mutex_unlock(mutex), 0);
        *next_of_the_held_lock() = (uintptr_t)mutex + 32;
        const pthread_mutex_t before = *mutex;
        if (unmapped) CHECK_INT(munmap(mutex, PAGE), 0);
        CHECK_STATUS(tine_lock_release(locks[0]), TINE_ECORRUPT);
        if (!unmapped) CHECK_INT(memcmp(mutex, &before, sizeof before), 0);
        CHECK_OK(tine_lock_acquire(locks[0], 0));
        CHECK_OK(tine_lock_release(locks[0]));
    }
}

static void *hold_and_end(void *lock) {
    CHECK_OK(tine_lock_acquire(lock, 0));
    return NULL;
}

TEST(the_end_of_a_thread_counts_like_a_death) {
    make_objects();
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, hold_and_end, locks[0]), 0);
    pthread_join(thread, NULL);
    CHECK_STATUS(tine_lock_acquire(locks[0], TINE_FOREVER), TINE_OWNER_DIED);
    CHECK_OK(tine_lock_release(locks[0]));
}

TEST(exec_counts_like_a_death) {
    make_objects();
    const pid_t child = fork();
    if (child == 0) CHECK_OK(tine_lock_acquire(locks[0], 0)), execlp("true", "true", (char *)NULL), _exit(1);
    CHECK_INT(waitpid(child, NULL, 0), child);
    CHECK_STATUS(tine_lock_acquire(locks[0], TINE_FOREVER), TINE_OWNER_DIED);
}

TEST(a_forked_child_does_not_own_its_parents_locks) {
    make_objects();
    CHECK_OK(tine_lock_acquire(locks[0], 0));
    const pid_t child = fork();
    if (child == 0) {
        CHECK(!tine_lock_is_held(locks[0]));
        CHECK_STATUS(tine_lock_acquire(locks[0], 0), TINE_ETIMEDOUT);
        CHECK_STATUS(tine_lock_release(locks[0]), TINE_ENOTOWNER);
        CHECK_OK(tine_lock_acquire(locks[1], 0));
        CHECK_OK(tine_lock_release(locks[1]));
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_INT(status, 0);
    CHECK(tine_lock_is_held(locks[0]));
    CHECK_OK(tine_lock_release(locks[0]));
}
