/* Barriers between processes and between threads. */
#include <pthread.h>
#include <sched.h>

#include "test.h"

struct shared {
    volatile int count, acted, wrong, indices;
};

static struct shared *shared;

static void share(void) {
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
}

static tine_barrier_t *barrier_of(uint32_t parties, void (*action)(void *)) {
    tine_barrier_options_t options = TINE_BARRIER_OPTIONS_INIT;
    tine_barrier_t *barrier = NULL;
    options.action = action, options.user_data = (void *)&shared;
    CHECK_OK(tine_barrier_new(parties, &options, &barrier));
    CHECK_INT(tine_barrier_parties(barrier), parties);
    return barrier;
}

static void await_waiting(tine_barrier_t *barrier, uint32_t wanted) {
    while (tine_barrier_waiting(barrier) != wanted) sched_yield();
}

static void join(pid_t child) {
    int status;
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
}

/* A child that waits and ends with 0 if that answers `wanted`. */
static pid_t start(tine_barrier_t *barrier, int64_t timeout_ms, tine_status_t wanted) {
    const pid_t child = fork();
    if (child == 0) {
        CHECK_STATUS(tine_barrier_wait(barrier, timeout_ms, NULL), wanted);
        tine_barrier_free(barrier);
        _exit(0);
    }
    return child;
}

static void act(void *user_data) {
    CHECK(user_data == (void *)&shared);
    shared->acted++; /* the others wait: nobody else writes */
}

enum { PARTIES = 4, ROUNDS = 300 };

static void *meet(void *barrier) {
    for (int round = 1; round <= ROUNDS; round++) {
        uint32_t index = 99;
        __atomic_add_fetch(&shared->count, 1, __ATOMIC_SEQ_CST);
        CHECK_OK(tine_barrier_wait(barrier, TINE_FOREVER, &index));
        CHECK(index < PARTIES);
        /* All have come to this meeting, and none can leave the next one before this party comes. */
        if (__atomic_load_n(&shared->count, __ATOMIC_SEQ_CST) != PARTIES * round || shared->acted != 3 * round - 2) shared->wrong++;
        __atomic_add_fetch(&shared->indices, 1 << 8 * index, __ATOMIC_SEQ_CST);
        CHECK_OK(tine_barrier_wait(barrier, TINE_FOREVER, NULL));
        if (index == 0 && shared->indices != 0x01010101) shared->wrong++;
        if (index == 0) shared->indices = 0;
        CHECK_OK(tine_barrier_wait(barrier, TINE_FOREVER, NULL));
    }
    return NULL;
}

TEST(processes_meet_again_and_again) {
    pid_t children[PARTIES];
    share();
    tine_barrier_t *barrier = barrier_of(PARTIES, act);
    for (int i = 0; i < PARTIES; i++)
        if ((children[i] = fork()) == 0) meet(barrier), tine_barrier_free(barrier), _exit(0);
    for (int i = 0; i < PARTIES; i++) join(children[i]);
    CHECK_INT(shared->wrong, 0);
    CHECK_INT(tine_barrier_waiting(barrier), 0);
    CHECK(!tine_barrier_is_broken(barrier));
    tine_barrier_free(barrier);
}

TEST(threads_meet_again_and_again) {
    pthread_t threads[PARTIES];
    share();
    tine_barrier_t *barrier = barrier_of(PARTIES, act);
    for (int i = 0; i < PARTIES; i++) CHECK_INT(pthread_create(&threads[i], NULL, meet, barrier), 0);
    for (int i = 0; i < PARTIES; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    CHECK_INT(shared->wrong, 0);
    tine_barrier_free(barrier);
}

TEST(a_timeout_breaks_it_for_the_others_until_it_is_reset) {
    tine_barrier_t *barrier = barrier_of(3, NULL);
    const pid_t other = start(barrier, TINE_FOREVER, TINE_EBROKEN);
    await_waiting(barrier, 1);
    CHECK_STATUS(tine_barrier_wait(barrier, 20, NULL), TINE_ETIMEDOUT);
    CHECK_MESSAGE("barrier");
    join(other);
    CHECK(tine_barrier_is_broken(barrier));
    CHECK_INT(tine_barrier_waiting(barrier), 0);
    CHECK_STATUS(tine_barrier_wait(barrier, TINE_FOREVER, NULL), TINE_EBROKEN);
    CHECK_OK(tine_barrier_reset(barrier));
    CHECK(!tine_barrier_is_broken(barrier));
    const pid_t one = start(barrier, TINE_FOREVER, TINE_OK), two = start(barrier, TINE_FOREVER, TINE_OK);
    CHECK_OK(tine_barrier_wait(barrier, TINE_FOREVER, NULL));
    join(one), join(two);
    CHECK_STATUS(tine_barrier_wait(barrier, 0, NULL), TINE_ETIMEDOUT); /* tried once */
    CHECK(tine_barrier_is_broken(barrier));
    tine_barrier_free(barrier);
}

TEST(reset_and_abort_release_who_waits) {
    tine_barrier_t *barrier = barrier_of(3, NULL);
    for (int i = 0; i < 2; i++) {
        const pid_t one = start(barrier, TINE_FOREVER, TINE_EBROKEN), two = start(barrier, TINE_FOREVER, TINE_EBROKEN);
        await_waiting(barrier, 2);
        if (i == 0) CHECK_OK(tine_barrier_reset(barrier));
        else CHECK_OK(tine_barrier_abort(barrier));
        join(one), join(two);
        CHECK_INT(tine_barrier_is_broken(barrier), i);
    }
    CHECK_OK(tine_barrier_abort(barrier)); /* again */
    tine_barrier_free(barrier);
}

TEST(a_party_that_dies_breaks_it) {
    for (int victim = 0; victim < 3; victim++) {
        tine_barrier_t *barrier = barrier_of(4, NULL);
        pid_t children[3];
        for (int i = 0; i < 3; i++) {
            children[i] = start(barrier, TINE_FOREVER, TINE_EBROKEN);
            await_waiting(barrier, (uint32_t)i + 1);
        }
        kill(children[victim], SIGKILL), waitpid(children[victim], NULL, 0);
        for (int i = 0; i < 3; i++)
            if (i != victim) join(children[i]);
        CHECK(tine_barrier_is_broken(barrier));
        tine_barrier_free(barrier);
    }
}

static void die(void *nothing) {
    (void)nothing;
    raise(SIGKILL);
}

TEST(a_party_that_dies_in_the_action_breaks_it) {
    tine_barrier_t *barrier = barrier_of(2, die);
    const pid_t waiter = start(barrier, TINE_FOREVER, TINE_EBROKEN);
    await_waiting(barrier, 1);
    const pid_t actor = start(barrier, TINE_FOREVER, TINE_OK);
    int status;
    CHECK_INT(waitpid(actor, &status, 0), actor);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    join(waiter);
    tine_barrier_free(barrier);
}

TEST(more_than_the_parties_take_turns) {
    enum { THREADS = 6, TIMES = 50 }; /* two meet at a time; the times of all add up to whole rounds */
    pid_t children[THREADS];
    tine_barrier_t *barrier = barrier_of(2, NULL);
    share();
    for (int i = 0; i < THREADS; i++)
        if ((children[i] = fork()) == 0) {
            /* As many as are left may be one alone in the end: it goes on until it is told to stop. */
            for (int k = 0; k < TIMES; k++) {
                const tine_status_t status = tine_barrier_wait(barrier, TINE_FOREVER, NULL);
                if (status == TINE_EBROKEN) break;
                CHECK_OK(status);
                __atomic_add_fetch(&shared->count, 1, __ATOMIC_SEQ_CST);
            }
            tine_barrier_free(barrier);
            _exit(0);
        }
    while (__atomic_load_n(&shared->count, __ATOMIC_SEQ_CST) < TIMES) sched_yield();
    CHECK_OK(tine_barrier_abort(barrier));
    for (int i = 0; i < THREADS; i++) join(children[i]);
    tine_barrier_free(barrier);
}

TEST(what_makes_no_barrier_is_refused) {
    tine_barrier_options_t options = TINE_BARRIER_OPTIONS_INIT;
    tine_barrier_t *barrier = NULL;
    CHECK_STATUS(tine_barrier_new(0, NULL, &barrier), TINE_EINVAL);
    CHECK_MESSAGE("parties");
    CHECK_STATUS(tine_barrier_new(16385, NULL, &barrier), TINE_EINVAL);
    options.flags = 1;
    CHECK_STATUS(tine_barrier_new(2, &options, &barrier), TINE_EINVAL);
    CHECK_INT(tine_barrier_parties(NULL), 0);
    CHECK_INT(tine_barrier_waiting(NULL), 0);
    CHECK(!tine_barrier_is_broken(NULL));
    CHECK_OK(tine_barrier_new(1, NULL, &barrier));
    tine_barrier_free(barrier);
    const int fds = test_count_fds(), mappings = test_count_mappings("memfd:tine");
    for (int i = 0; i < 300; i++) {
        tine_barrier_t *one = NULL;
        uint32_t index = 7;
        CHECK_OK(tine_barrier_new(i % 2 ? 1 : 1000, NULL, &one));
        if (i % 2) CHECK_OK(tine_barrier_wait(one, 0, &index)), CHECK_INT(index, 0);
        tine_barrier_free(one);
    }
    CHECK_INT(test_count_fds(), fds);
    CHECK_INT(test_count_mappings("memfd:tine"), mappings);
}
