/* Every object orders the memory of the threads that use it: plain variables, handed over in all the ways that there are. `make tsan` runs
 * this with the thread sanitizer, which must see that. */
#include <pthread.h>
#include <sched.h>

#include "test.h"

enum { THREADS = 4, ROUNDS = 2000 };

static long plain; /* what the objects guard */

static void run(int threads, void *(*body)(void *), void *argument) {
    pthread_t all[THREADS];
    plain = 0;
    for (int i = 0; i < threads; i++) CHECK_INT(pthread_create(&all[i], NULL, body, argument), 0);
    for (int i = 0; i < threads; i++) CHECK_INT(pthread_join(all[i], NULL), 0);
}

static void *race(void *nothing) {
    for (int i = 0; i < ROUNDS; i++) plain++;
    return nothing;
}
TEST_PROGRAM(race) { run(2, race, NULL); } /* what the sanitizer must find */

static void *under_lock(void *lock) {
    for (int i = 0; i < ROUNDS; i++) {
        CHECK_OK(tine_lock_acquire(lock, TINE_FOREVER));
        plain++;
        CHECK_OK(tine_lock_release(lock));
    }
    return NULL;
}
TEST(a_lock_orders) {
    tine_lock_t *lock = NULL;
    CHECK_OK(tine_lock_new(NULL, &lock));
    run(THREADS, under_lock, lock);
    CHECK_INT(plain, THREADS * ROUNDS);
    tine_lock_free(lock);
}

static void *under_semaphore(void *semaphore) {
    for (int i = 0; i < ROUNDS; i++) {
        CHECK_OK(tine_semaphore_acquire(semaphore, TINE_FOREVER));
        plain++;
        CHECK_OK(tine_semaphore_release(semaphore, 1));
    }
    return NULL;
}
TEST(semaphores_order) {
    tine_semaphore_options_t options = TINE_SEMAPHORE_OPTIONS_INIT;
    for (uint32_t tracked = 0; tracked < 2; tracked++) {
        tine_semaphore_t *semaphore = NULL;
        options.flags = tracked ? TINE_SEMAPHORE_TRACKED : 0;
        CHECK_OK(tine_semaphore_new(1, 1, &options, &semaphore));
        run(THREADS, under_semaphore, semaphore);
        CHECK_INT(plain, THREADS * ROUNDS);
        tine_semaphore_free(semaphore);
    }
}

static void *after_event(void *event) {
    CHECK_OK(tine_event_wait(event, TINE_FOREVER));
    CHECK_INT(plain, 7);
    return NULL;
}
static void *poll_event(void *event) {
    while (!tine_event_is_set(event)) sched_yield();
    CHECK_INT(plain, 7);
    return NULL;
}
TEST(an_event_orders) {
    tine_event_t *event = NULL;
    pthread_t waiters[2];
    CHECK_OK(tine_event_new(NULL, &event));
    CHECK_INT(pthread_create(&waiters[0], NULL, after_event, event), 0);
    CHECK_INT(pthread_create(&waiters[1], NULL, poll_event, event), 0);
    plain = 7;
    CHECK_OK(tine_event_set(event));
    for (int i = 0; i < 2; i++) CHECK_INT(pthread_join(waiters[i], NULL), 0);
    tine_event_free(event);
}

static tine_lock_t *lock;
static void *with_condition(void *condition) {
    for (int i = 0; i < ROUNDS / 10; i++) {
        CHECK_OK(tine_lock_acquire(lock, TINE_FOREVER));
        while (plain == 0) CHECK_OK(tine_condition_wait(condition, lock, TINE_FOREVER));
        plain--;
        CHECK_OK(tine_lock_release(lock));
    }
    return NULL;
}
static void *notify(void *condition) {
    for (int i = 0; i < 2 * (ROUNDS / 10); i++) {
        CHECK_OK(tine_lock_acquire(lock, TINE_FOREVER));
        plain++;
        CHECK_OK(tine_lock_release(lock));
        CHECK_OK(tine_condition_notify(condition, 1));
    }
    return NULL;
}
TEST(a_condition_orders) {
    tine_condition_t *condition = NULL;
    pthread_t threads[3];
    CHECK_OK(tine_lock_new(NULL, &lock));
    CHECK_OK(tine_condition_new(NULL, &condition));
    for (int i = 0; i < 3; i++) CHECK_INT(pthread_create(&threads[i], NULL, i < 2 ? with_condition : notify, condition), 0);
    for (int i = 0; i < 3; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    CHECK_INT(plain, 0);
    tine_condition_free(condition);
    tine_lock_free(lock);
}

static void *take_turns(void *barrier) {
    for (int i = 0; i < ROUNDS / 10; i++) {
        uint32_t index = 99;
        CHECK_OK(tine_barrier_wait(barrier, TINE_FOREVER, &index));
        if (index == 0) plain++; /* alone until all meet again */
        CHECK_OK(tine_barrier_wait(barrier, TINE_FOREVER, NULL));
        CHECK_INT(plain, i + 1);
    }
    return NULL;
}
TEST(a_barrier_orders) {
    tine_barrier_t *barrier = NULL;
    CHECK_OK(tine_barrier_new(THREADS, NULL, &barrier));
    run(THREADS, take_turns, barrier);
    tine_barrier_free(barrier);
}

struct parcel { int value; };
static void *send_parcels(void *queue) {
    for (int i = 0; i < ROUNDS; i++) {
        struct parcel *parcel = malloc(sizeof *parcel);
        parcel->value = i;
        CHECK_OK(tine_queue_put(queue, &parcel, sizeof parcel, TINE_FOREVER));
    }
    return NULL;
}
static void *receive_parcels(void *queue) {
    for (int i = 0; i < ROUNDS; i++) {
        struct parcel *parcel = NULL;
        size_t length = 0;
        CHECK_OK(tine_queue_get(queue, &parcel, sizeof parcel, TINE_FOREVER, &length));
        CHECK(parcel->value >= 0 && parcel->value < ROUNDS);
        parcel->value = -1;
        free(parcel);
    }
    return NULL;
}
TEST(a_queue_orders) {
    tine_queue_options_t options = TINE_QUEUE_OPTIONS_INIT;
    tine_queue_t *queue = NULL;
    pthread_t threads[4];
    options.capacity_bytes = 4096; /* its memory is used again and again */
    CHECK_OK(tine_queue_new(&options, &queue));
    for (int i = 0; i < 4; i++) CHECK_INT(pthread_create(&threads[i], NULL, i < 2 ? send_parcels : receive_parcels, queue), 0);
    for (int i = 0; i < 4; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    tine_queue_free(queue);
}
