/* Semaphores whose permits belong to threads and come back when those die. */
#include <pthread.h>
#include <sched.h>

#include "test.h"

static tine_semaphore_t *tracked(uint32_t permits) {
    tine_semaphore_options_t options = TINE_SEMAPHORE_OPTIONS_INIT;
    tine_semaphore_t *semaphore = NULL;
    options.flags = TINE_SEMAPHORE_TRACKED;
    CHECK_OK(tine_semaphore_new(permits, permits, &options, &semaphore));
    return semaphore;
}

TEST(permits_of_the_killed_come_back_to_who_sleeps) {
    enum { PERMITS = 3 };
    tine_semaphore_t *semaphore = tracked(PERMITS);
    pid_t owners[PERMITS], sleepers[PERMITS];
    int ready[2];
    char byte;
    CHECK_INT(pipe(ready), 0);
    for (int i = 0; i < PERMITS; i++)
        if ((owners[i] = fork()) == 0) {
            CHECK_OK(tine_semaphore_acquire(semaphore, 0));
            CHECK_INT(write(ready[1], "x", 1), 1);
            for (;;) pause();
        }
    for (int i = 0; i < PERMITS; i++) CHECK_INT(read(ready[0], &byte, 1), 1);
    CHECK_INT(tine_semaphore_value(semaphore), 0);
    CHECK_STATUS(tine_semaphore_acquire(semaphore, 0), TINE_ETIMEDOUT);
    for (int i = 0; i < PERMITS; i++)
        if ((sleepers[i] = fork()) == 0) {
            CHECK_OK(tine_semaphore_acquire(semaphore, TINE_FOREVER)); /* and ends with it */
            _exit(0);
        }
    for (int i = 0; i < PERMITS; i++) kill(owners[i], SIGKILL), waitpid(owners[i], NULL, 0);
    for (int i = 0; i < PERMITS; i++) {
        int status;
        CHECK_INT(waitpid(sleepers[i], &status, 0), sleepers[i]);
        CHECK_INT(status, 0);
    }
    CHECK_INT(tine_semaphore_value(semaphore), PERMITS);
    tine_semaphore_free(semaphore);
}

static void *release_of_another(void *semaphore) {
    CHECK_STATUS(tine_semaphore_release(semaphore, 1), TINE_ENOTOWNER);
    CHECK_MESSAGE("semaphore");
    CHECK_OK(tine_semaphore_acquire(semaphore, 0));
    return NULL; /* ends with a permit */
}

TEST(only_the_thread_that_has_a_permit_releases_it) {
    tine_semaphore_t *semaphore = tracked(3);
    pthread_t thread;
    CHECK_STATUS(tine_semaphore_release(semaphore, 1), TINE_ENOTOWNER);
    CHECK_OK(tine_semaphore_release(semaphore, 0));
    CHECK_OK(tine_semaphore_acquire(semaphore, 0));
    CHECK_OK(tine_semaphore_acquire(semaphore, 0));
    CHECK_STATUS(tine_semaphore_release(semaphore, 3), TINE_ENOTOWNER);
    CHECK_INT(tine_semaphore_value(semaphore), 1);
    CHECK_INT(pthread_create(&thread, NULL, release_of_another, semaphore), 0);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK_OK(tine_semaphore_acquire(semaphore, TINE_FOREVER)); /* the permit of the thread that ended */
    const pid_t child = fork();
    if (child == 0) {
        CHECK_STATUS(tine_semaphore_release(semaphore, 1), TINE_ENOTOWNER);
        CHECK_STATUS(tine_semaphore_acquire(semaphore, 5), TINE_ETIMEDOUT);
        tine_semaphore_free(semaphore);
        _exit(0);
    }
    int status;
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
    CHECK_OK(tine_semaphore_release(semaphore, 3));
    CHECK_INT(tine_semaphore_value(semaphore), 3);
    tine_semaphore_free(semaphore);
}

TEST(so_many_are_inside_while_others_are_killed_there) {
    enum { PERMITS = 2, PROCESSES = 4, KILLS = 60 };
    tine_semaphore_t *semaphore = tracked(PERMITS);
    /* Who is inside: a bit for each process, all in one word, so that a look at it is of one moment. */
    volatile int *inside = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    volatile int *rounds = inside + 1, *wrong = rounds + 1;
    pid_t children[PROCESSES] = {0};
    CHECK(inside != MAP_FAILED);
    for (int kills = 0; kills <= KILLS; kills++) {
        for (int i = 0; i < PROCESSES; i++)
            if (children[i] == 0 && (children[i] = fork()) == 0)
                for (;;) {
                    CHECK_OK(tine_semaphore_acquire(semaphore, TINE_FOREVER));
                    const int now = __atomic_or_fetch(inside, 1 << i, __ATOMIC_SEQ_CST);
                    if (__builtin_popcount((unsigned)now) > PERMITS) __atomic_add_fetch(wrong, 1, __ATOMIC_SEQ_CST);
                    __atomic_add_fetch(rounds, 1, __ATOMIC_SEQ_CST);
                    __atomic_and_fetch(inside, ~(1 << i), __ATOMIC_SEQ_CST);
                    CHECK_OK(tine_semaphore_release(semaphore, 1));
                }
        const int seen = __atomic_load_n(rounds, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(rounds, __ATOMIC_SEQ_CST) < seen + 20) sched_yield(); /* all others go on */
        const int victim = kills % PROCESSES;
        /* Stopped first, so that its flag can be taken down before its permits come back. */
        kill(children[victim], SIGSTOP), waitpid(children[victim], NULL, WUNTRACED);
        __atomic_and_fetch(inside, ~(1 << victim), __ATOMIC_SEQ_CST);
        kill(children[victim], SIGKILL), waitpid(children[victim], NULL, 0);
        children[victim] = 0;
    }
    for (int i = 0; i < PROCESSES; i++)
        if (children[i] != 0) kill(children[i], SIGKILL), waitpid(children[i], NULL, 0);
    CHECK_INT(*wrong, 0);
    CHECK_INT(tine_semaphore_value(semaphore), PERMITS);
    tine_semaphore_free(semaphore);
}

TEST(limits_are_told) {
    tine_semaphore_options_t options = TINE_SEMAPHORE_OPTIONS_INIT;
    tine_semaphore_t *semaphore = NULL;
    options.flags = TINE_SEMAPHORE_TRACKED;
    CHECK_STATUS(tine_semaphore_new(16385, 0, &options, &semaphore), TINE_EINVAL);
    CHECK_MESSAGE("16384");
    CHECK_OK(tine_semaphore_new(300, 0, &options, &semaphore));
    for (int i = 0; i < 256; i++) CHECK_OK(tine_semaphore_acquire(semaphore, 0));
    CHECK_STATUS(tine_semaphore_acquire(semaphore, 0), TINE_EAGAIN);
    CHECK_INT(tine_semaphore_value(semaphore), 44);
    CHECK_OK(tine_semaphore_release(semaphore, 256));
    CHECK_INT(tine_semaphore_value(semaphore), 300);
    tine_semaphore_free(semaphore);
    CHECK_OK(tine_semaphore_new(0, 0, &options, &semaphore)); /* of no use, and no harm */
    CHECK_STATUS(tine_semaphore_acquire(semaphore, 10), TINE_ETIMEDOUT);
    tine_semaphore_free(semaphore);
}
