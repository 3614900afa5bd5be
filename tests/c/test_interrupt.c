/*
 * Signals while a call waits, for each call that waits. Without an interrupt check the wait goes on and its timeout holds as a whole;
 * a check that says no ends the call with TINE_EINTR and nothing taken; with one that says yes the wait goes on. The signals come from a
 * timer for as long as the call lasts, so one of them meets it asleep.
 */
#include <pthread.h>
#include <sys/time.h>

#include "pool_tools.h"

/* A call that waits, and a second thread that makes it wait and lets it go. Functions may be NULL. */
struct wait {
    const char *name;
    void (*make)(void);                         /* what it is about */
    void (*hold)(void);                         /* by the other thread: makes it wait */
    tine_status_t (*call)(int64_t timeout_ms);  /* waits */
    tine_status_t in_vain;                      /* what it answers when the time is over */
    void (*untouched)(void);                    /* nothing was taken by a call in vain */
    void (*let_go)(void);                       /* by the other thread: what it waits for */
    void (*done)(void);                         /* after it came to its end */
    void (*unmake)(void);
};

/* ---- the signals ---- */
static int handled, asked, refuses;
static void on_signal(int number) { (void)number, count_up(&handled); }
static int32_t check(void *unused) {
    (void)unused, count_up(&asked);
    return value_of(&refuses);
}
static void signals(int on) {
    const long us = !on ? 0 : under_valgrind() ? 10000 : 500;
    const struct itimerval every = { { 0, us }, { 0, us } };
    CHECK_INT(setitimer(ITIMER_REAL, &every, NULL), 0);
}
static void handle(int flags) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal, action.sa_flags = flags;
    CHECK_INT(sigaction(SIGALRM, &action, NULL), 0);
}

/* ---- the other thread ---- */
enum { HOLD, LET_GO, LEAVE };
static const struct wait *current;
static int what, ordered, finished; /* how many orders there were */
static int *counted, after;         /* to let go after that many signals were handled, or questions asked */
static void *other_thread(void *unused) {
    for (int number = 1;; number++) {
        await(&ordered, number);
        if (what == LEAVE) return unused;
        if (what == HOLD && current->hold != NULL) current->hold();
        if (what == LET_GO) await(counted, after), current->let_go();
        set(&finished, number);
    }
}
static void order(int order) { what = order, count_up(&ordered); }
static void until_done(void) { await(&finished, value_of(&ordered)); }
static pthread_t start_thread(void *(*run)(void *)) { /* it gets no signals */
    pthread_t thread;
    sigset_t alarm, before;
    sigemptyset(&alarm), sigaddset(&alarm, SIGALRM);
    CHECK_INT(pthread_sigmask(SIG_BLOCK, &alarm, &before), 0);
    CHECK_INT(pthread_create(&thread, NULL, run, NULL), 0);
    CHECK_INT(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
    return thread;
}

static tine_status_t call(int64_t timeout_ms) {
    handled = asked = 0;
    signals(1);
    const tine_status_t status = current->call(timeout_ms);
    signals(0);
    return status;
}
#define EXPECT(status, expected)                                                                                              \
    do {                                                                                                                      \
        const tine_status_t status_ = (status);                                                                               \
        if (status_ != (expected))                                                                                            \
            TEST_FAIL("%s, %s: %d (%s), not %d: %s", current->name, phase, (int)status_, tine_strerror(status_), (int)(expected), \
                      tine_last_error_message());                                                                             \
    } while (0)

enum { TIME_IS_OVER, REFUSED, REFUSED_WITH_TIME, ACCEPTED, NO_CHECK, PHASES };
static const char *const phases[] = { "the time runs out", "a check refuses", "a check refuses, with time left", "a check accepts",
                                      "no check" };
static void run_phase(int number) {
    const char *phase = phases[number];
    const int in_vain = number <= REFUSED_WITH_TIME, checks = number != TIME_IS_OVER && number != NO_CHECK;
    if (current->make != NULL) current->make();
    order(HOLD), until_done();
    set(&refuses, in_vain);
    tine_set_interrupt_check(checks ? check : NULL, NULL);
    counted = checks ? &asked : &handled, after = 0;
    if (number == TIME_IS_OVER) {
        const int ms = under_valgrind() ? 100 : 20;
        const int64_t start = now_us();
        EXPECT(call(ms), current->in_vain);
        CHECK(now_us() - start >= ms * INT64_C(1000) && handled > 0 && asked == 0);
    } else if (in_vain) {
        EXPECT(call(number == REFUSED ? TINE_FOREVER : 3600 * 1000), TINE_EINTR);
        CHECK(asked > 0);
    }
    if (in_vain && current->untouched != NULL) current->untouched();
    if (in_vain) {
        tine_set_interrupt_check(NULL, NULL);
        order(LET_GO);
        EXPECT(current->call(TINE_FOREVER), TINE_OK);
    } else {
        handled = asked = 0, after = 3;
        order(LET_GO);
        EXPECT(call(TINE_FOREVER), TINE_OK);
        CHECK(checks ? asked >= 3 : handled >= 3 && asked == 0);
        tine_set_interrupt_check(NULL, NULL);
    }
    until_done();
    if (current->done != NULL) current->done();
    if (current->unmake != NULL) current->unmake();
}
static void run(const struct wait *waits, size_t count) {
    ordered = finished = 0;
    const pthread_t other = start_thread(other_thread);
    for (size_t i = 0; i < count; i++)
        for (int number = 0; number < PHASES * 2; number++) { /* whatever kind of handler there is */
            if (under_valgrind() && number % 2 == (int)i % 2) continue; /* it has no time for both */
            current = &waits[i];
            handle(number % 2 ? SA_RESTART : 0);
            run_phase(number / 2);
        }
    order(LEAVE);
    CHECK_INT(pthread_join(other, NULL), 0);
}
#define RUN(waits) run(waits, sizeof(waits) / sizeof *(waits))

/* ---- locks and the rest ---- */
static tine_lock_t *lock;
static void make_lock(void) { CHECK_OK(tine_lock_new(NULL, &lock)); }
static void acquire_lock(void) { CHECK_OK(tine_lock_acquire(lock, TINE_FOREVER)); }
static void release_lock(void) { CHECK_OK(tine_lock_release(lock)); }
static void free_lock(void) { tine_lock_free(lock); }
static tine_status_t wait_for_lock(int64_t timeout_ms) { return tine_lock_acquire(lock, timeout_ms); }
static void no_lock(void) { CHECK(!tine_lock_is_held(lock)); }

static tine_semaphore_t *semaphore;
static void make_semaphore(void) { CHECK_OK(tine_semaphore_new(0, 1, NULL, &semaphore)); }
static void make_tracked(void) {
    tine_semaphore_options_t options = TINE_SEMAPHORE_OPTIONS_INIT;
    options.flags = TINE_SEMAPHORE_TRACKED;
    CHECK_OK(tine_semaphore_new(1, 1, &options, &semaphore));
}
static void take_permit(void) { CHECK_OK(tine_semaphore_acquire(semaphore, TINE_FOREVER)); }
static void give_permit(void) { CHECK_OK(tine_semaphore_release(semaphore, 1)); }
static void give_permit_and_count(void) {
    give_permit();
    CHECK_INT(tine_semaphore_value(semaphore), 1);
}
static tine_status_t wait_for_permit(int64_t timeout_ms) { return tine_semaphore_acquire(semaphore, timeout_ms); }
static void free_semaphore(void) { tine_semaphore_free(semaphore); }

static tine_event_t *event;
static void make_event(void) { CHECK_OK(tine_event_new(NULL, &event)); }
static void set_event(void) { CHECK_OK(tine_event_set(event)); }
static void free_event(void) { tine_event_free(event); }
static tine_status_t wait_for_event(int64_t timeout_ms) { return tine_event_wait(event, timeout_ms); }

/* Recursive, so that all levels have to come back. */
static tine_condition_t *condition;
static void make_condition(void) {
    tine_lock_options_t options = TINE_LOCK_OPTIONS_INIT;
    options.flags = TINE_LOCK_RECURSIVE;
    CHECK_OK(tine_lock_new(&options, &lock));
    CHECK_OK(tine_condition_new(NULL, &condition));
    acquire_lock(), acquire_lock();
}
static tine_status_t wait_for_condition(int64_t timeout_ms) { return tine_condition_wait(condition, lock, timeout_ms); }
static void lock_is_held(void) { CHECK(tine_lock_is_held(lock)); }
static void notify(void) { /* the lock is to be had only while the other one waits */
    acquire_lock();
    CHECK_OK(tine_condition_notify(condition, 1));
    release_lock();
}
static void free_condition(void) {
    lock_is_held(), release_lock(), lock_is_held(), release_lock();
    CHECK_STATUS(tine_lock_release(lock), TINE_ENOTOWNER);
    CHECK_OK(tine_lock_acquire(lock, 0)), release_lock();
    tine_condition_free(condition), tine_lock_free(lock);
}

static tine_barrier_t *barrier;
static void make_barrier(void) { CHECK_OK(tine_barrier_new(2, NULL, &barrier)); }
static tine_status_t wait_at_barrier(int64_t timeout_ms) { return tine_barrier_wait(barrier, timeout_ms, NULL); }
static void nobody_was_there(void) {
    CHECK_INT(tine_barrier_waiting(barrier), 0);
    if (asked == 0) CHECK_OK(tine_barrier_reset(barrier)); /* the time was over: that breaks it */
    CHECK(!tine_barrier_is_broken(barrier));
}
static void come(void) { CHECK_OK(tine_barrier_wait(barrier, TINE_FOREVER, NULL)); }
static void free_barrier(void) { tine_barrier_free(barrier); }

static tine_file_lock_t *file_lock, *other_file_lock;
static void make_file_lock(void) {
    char path[64] = "/tmp/tine-test-XXXXXX";
    const int fd = mkstemp(path);
    CHECK(fd >= 0);
    close(fd);
    CHECK_OK(tine_file_lock_new(path, &file_lock));
    CHECK_OK(tine_file_lock_new(path, &other_file_lock));
    unlink(path);
}
static void hold_file(void) { CHECK_OK(tine_file_lock_acquire(other_file_lock, TINE_FILE_LOCK_EXCLUSIVE, TINE_FOREVER)); }
static void let_file_go(void) { CHECK_OK(tine_file_lock_release(other_file_lock)); }
static tine_status_t wait_for_file(int64_t timeout_ms) {
    return tine_file_lock_acquire(file_lock, TINE_FILE_LOCK_EXCLUSIVE, timeout_ms);
}
static tine_status_t wait_for_file_shared(int64_t timeout_ms) {
    return tine_file_lock_acquire(file_lock, TINE_FILE_LOCK_SHARED, timeout_ms);
}
static void no_file_lock(void) { CHECK_STATUS(tine_file_lock_release(file_lock), TINE_ENOTOWNER); }
static void free_file_locks(void) {
    CHECK_OK(tine_file_lock_release(file_lock));
    tine_file_lock_free(file_lock), tine_file_lock_free(other_file_lock);
}

TEST(locks_and_the_rest) {
    static const struct wait waits[] = {
        { "lock", make_lock, acquire_lock, wait_for_lock, TINE_ETIMEDOUT, no_lock, release_lock, release_lock, free_lock },
        { "semaphore", make_semaphore, NULL, wait_for_permit, TINE_ETIMEDOUT, NULL, give_permit, give_permit_and_count, free_semaphore },
        { "semaphore, tracked", make_tracked, take_permit, wait_for_permit, TINE_ETIMEDOUT, NULL, give_permit, give_permit_and_count,
          free_semaphore },
        { "event", make_event, NULL, wait_for_event, TINE_ETIMEDOUT, NULL, set_event, NULL, free_event },
        { "condition", make_condition, NULL, wait_for_condition, TINE_ETIMEDOUT, lock_is_held, notify, lock_is_held, free_condition },
        { "barrier", make_barrier, NULL, wait_at_barrier, TINE_ETIMEDOUT, nobody_was_there, come, NULL, free_barrier },
    };
    RUN(waits);
}

TEST(file_locks) {
    if (under_valgrind()) SKIP("valgrind keeps all threads waiting while one waits for a file lock");
    static const struct wait waits[] = {
        { "file lock", make_file_lock, hold_file, wait_for_file, TINE_ETIMEDOUT, no_file_lock, let_file_go, NULL, free_file_locks },
        { "file lock, shared", make_file_lock, hold_file, wait_for_file_shared, TINE_ETIMEDOUT, no_file_lock, let_file_go, NULL,
          free_file_locks },
    };
    RUN(waits);
}

/* The lock is given back whatever a check says, and however long that takes. */
static void *take_the_lock_meanwhile(void *unused) {
    acquire_lock(); /* so the other one waits */
    set(&refuses, 1);
    await(&asked, value_of(&asked) + 3);
    release_lock();
    return unused;
}
TEST(a_condition_gives_the_lock_back_whatever_the_check_says) {
    make_condition();
    const pthread_t other = start_thread(take_the_lock_meanwhile);
    handle(0);
    refuses = 0;
    tine_set_interrupt_check(check, NULL);
    signals(1);
    CHECK_STATUS(tine_condition_wait(condition, lock, TINE_FOREVER), TINE_EINTR);
    signals(0);
    tine_set_interrupt_check(NULL, NULL);
    CHECK_INT(pthread_join(other, NULL), 0);
    free_condition();
}

/* ---- queues ---- */
enum { LARGE = 40000, SMALL = 3 };
static tine_queue_t *queue;
static size_t size_before;
static char buffer[LARGE];
static void make_queue_of(size_t capacity, size_t max_bytes) {
    tine_queue_options_t options = TINE_QUEUE_OPTIONS_INIT;
    options.capacity = capacity, options.capacity_bytes = 1024, options.max_bytes = max_bytes;
    CHECK_OK(tine_queue_new(&options, &queue));
    size_before = 0;
}
static void make_queue(void) { make_queue_of(0, 0); }
static void put(const char *text) { CHECK_OK(tine_queue_put(queue, text, SMALL, TINE_FOREVER)); }
static void put_two(void) { put("two"); }
static void make_queue_with_one(void) { make_queue(), put("one"), size_before = 1; }
static void make_full_queue(void) { make_queue_of(1, 0), put("one"), size_before = 1; }
static void make_queue_full_of_large(void) { /* out of line, in whole pages */
    make_queue_of(0, LARGE + 4096);
    CHECK_OK(tine_queue_put(queue, buffer, LARGE, 0));
    size_before = 1;
}
static void free_queue(void) { tine_queue_free(queue); }
static void size_is_as_before(void) { CHECK_INT(tine_queue_size(queue), size_before); }
static void queue_is_empty(void) { CHECK(tine_queue_is_empty(queue)); }
static tine_status_t get_text(int64_t timeout_ms, const char *expected) {
    char text[SMALL];
    size_t len = 0;
    const tine_status_t status = tine_queue_get(queue, text, SMALL, timeout_ms, &len);
    if (status == TINE_OK) CHECK(len == SMALL && memcmp(text, expected, SMALL) == 0);
    return status;
}
static void get_one(void) { CHECK_OK(get_text(0, "one")); }
static void only_two_is_there(void) { CHECK_OK(get_text(0, "two")), queue_is_empty(); }
static void get_large(void) {
    size_t len = 0;
    CHECK_OK(tine_queue_get(queue, buffer, LARGE, 0, &len));
    CHECK_INT(len, LARGE);
}
static void only_large_is_there(void) { get_large(), queue_is_empty(); }

static tine_status_t wait_to_put(int64_t timeout_ms) { return tine_queue_put(queue, "two", SMALL, timeout_ms); }
static tine_status_t wait_to_put_large(int64_t timeout_ms) { return tine_queue_put(queue, buffer, LARGE, timeout_ms); }
static tine_status_t wait_to_put_many(int64_t timeout_ms) {
    const tine_bytes_t messages[] = { { "two", SMALL }, { "too", SMALL } };
    size_t count = 0;
    const tine_status_t status = tine_queue_put_many(queue, messages, 2, timeout_ms, &count);
    CHECK_INT(count, status == TINE_OK); /* there is room for one */
    return status;
}
static tine_status_t wait_to_reserve(int64_t timeout_ms) {
    void *memory = NULL;
    const tine_status_t status = tine_queue_reserve(queue, SMALL, timeout_ms, &memory);
    if (status == TINE_OK) memcpy(memory, "two", SMALL), CHECK_OK(tine_queue_commit(queue, SMALL));
    else CHECK_STATUS(tine_queue_abandon(queue), TINE_ENOTOWNER);
    return status;
}
static void reserve(void) {
    void *memory = NULL;
    CHECK_OK(tine_queue_reserve(queue, SMALL, 0, &memory));
}
static void abandon(void) { CHECK_OK(tine_queue_abandon(queue)); }
static tine_status_t wait_for_two(int64_t timeout_ms) { return get_text(timeout_ms, "two"); }
static tine_status_t wait_for_one(int64_t timeout_ms) { return get_text(timeout_ms, "one"); }
static tine_status_t wait_for_alloc(int64_t timeout_ms) {
    void *data = NULL;
    size_t len = 0;
    const tine_status_t status = tine_queue_get_alloc(queue, timeout_ms, &data, &len);
    CHECK((status == TINE_OK) == (data != NULL && len == SMALL));
    return tine_free(data), status;
}
static tine_status_t wait_for_many(int64_t timeout_ms) {
    tine_bytes_t messages[5];
    size_t count = 0;
    const tine_status_t status = tine_queue_get_many(queue, buffer, LARGE, timeout_ms, messages, 5, &count);
    CHECK_INT(count, status == TINE_OK);
    return status;
}
static tine_status_t wait_to_peek(int64_t timeout_ms) {
    const void *data = NULL;
    size_t len = 0;
    const tine_status_t status = tine_queue_peek(queue, timeout_ms, &data, &len);
    if (status == TINE_OK) CHECK_INT(len, SMALL), CHECK_OK(tine_queue_release(queue));
    else CHECK_STATUS(tine_queue_release(queue), TINE_ENOTOWNER);
    return status;
}
static void peek(void) {
    const void *data = NULL;
    CHECK_OK(tine_queue_peek(queue, 0, &data, NULL));
}
static void unpeek(void) { CHECK_OK(tine_queue_unpeek(queue)); }
static tine_status_t wait_for_tasks(int64_t timeout_ms) { return tine_queue_join(queue, timeout_ms); }
static void one_is_unfinished(void) { CHECK_INT(tine_queue_unfinished(queue), 1); }
static void declare_done(void) { CHECK_OK(tine_queue_task_done(queue)); }

TEST(queues) {
    static const struct wait waits[] = {
        { "put", make_full_queue, NULL, wait_to_put, TINE_EFULL, size_is_as_before, get_one, only_two_is_there, free_queue },
        { "put, large", make_queue_full_of_large, NULL, wait_to_put_large, TINE_EFULL, size_is_as_before, get_large,
          only_large_is_there, free_queue },
        { "put, others reserve", make_queue, reserve, wait_to_put, TINE_EFULL, size_is_as_before, abandon, only_two_is_there,
          free_queue },
        { "put_many", make_full_queue, NULL, wait_to_put_many, TINE_EFULL, size_is_as_before, get_one, only_two_is_there, free_queue },
        { "reserve", make_full_queue, NULL, wait_to_reserve, TINE_EFULL, size_is_as_before, get_one, only_two_is_there, free_queue },
        { "reserve, others too", make_queue, reserve, wait_to_reserve, TINE_EFULL, size_is_as_before, abandon, only_two_is_there,
          free_queue },
        { "get", make_queue, NULL, wait_for_two, TINE_EEMPTY, size_is_as_before, put_two, queue_is_empty, free_queue },
        { "get, others peek", make_queue_with_one, peek, wait_for_one, TINE_EEMPTY, size_is_as_before, unpeek, queue_is_empty,
          free_queue },
        { "get_alloc", make_queue, NULL, wait_for_alloc, TINE_EEMPTY, size_is_as_before, put_two, queue_is_empty, free_queue },
        { "get_many", make_queue, NULL, wait_for_many, TINE_EEMPTY, size_is_as_before, put_two, queue_is_empty, free_queue },
        { "peek", make_queue, NULL, wait_to_peek, TINE_EEMPTY, size_is_as_before, put_two, queue_is_empty, free_queue },
        { "peek, others too", make_queue_with_one, peek, wait_to_peek, TINE_EEMPTY, size_is_as_before, unpeek, queue_is_empty,
          free_queue },
        { "join", make_queue_with_one, NULL, wait_for_tasks, TINE_ETIMEDOUT, one_is_unfinished, declare_done, NULL, free_queue },
    };
    RUN(waits);
}

/* ---- pipes ---- */
static tine_connection_t *end, *other_end;
static int in_the_way;
static void make_pipe_of_messages(void) { CHECK_OK(tine_pipe_new(0, &end, &other_end)); }
static void make_full_pipe(void) {
    make_pipe_of_messages();
    tine_status_t status = TINE_OK;
    for (in_the_way = 0; status == TINE_OK; in_the_way += status == TINE_OK) status = tine_connection_send(end, "one", SMALL, 0);
    CHECK_STATUS(status, TINE_ETIMEDOUT);
}
static void free_pipe(void) { tine_connection_free(end), tine_connection_free(other_end); }
static tine_status_t receive(int64_t timeout_ms, tine_connection_t *connection, const char *expected) {
    char text[SMALL];
    size_t len = 0;
    const tine_status_t status = tine_connection_recv(connection, text, SMALL, timeout_ms, &len);
    if (status == TINE_OK) CHECK(len == SMALL && memcmp(text, expected, SMALL) == 0);
    return status;
}
static void make_room(void) { for (int i = 0; i < in_the_way; i++) CHECK_OK(receive(0, other_end, "one")); }
static void send_two(void) { CHECK_OK(tine_connection_send(other_end, "two", SMALL, 0)); }
static void send_descriptor(void) { CHECK_OK(tine_connection_send_fd(other_end, 0, 0)); }
static void nothing_is_there(void) {
    CHECK_STATUS(tine_connection_poll(end, 0), TINE_ETIMEDOUT);
    CHECK_STATUS(tine_connection_poll(other_end, 0), TINE_ETIMEDOUT);
}
static void only_two_came(void) { CHECK_OK(receive(0, other_end, "two")), nothing_is_there(); }
static void only_large_came(void) {
    size_t len = 0;
    CHECK_OK(tine_connection_recv(other_end, buffer, LARGE, 0, &len));
    CHECK_INT(len, LARGE);
    nothing_is_there();
}
static void only_a_descriptor_came(void) {
    int fd = -1;
    CHECK_OK(tine_connection_recv_fd(other_end, 0, &fd));
    close(fd), nothing_is_there();
}
static void two_is_there(void) { CHECK_OK(receive(0, end, "two")), nothing_is_there(); }
static tine_status_t wait_to_send(int64_t timeout_ms) { return tine_connection_send(end, "two", SMALL, timeout_ms); }
static tine_status_t wait_to_send_large(int64_t timeout_ms) { return tine_connection_send(end, buffer, LARGE, timeout_ms); }
static tine_status_t wait_to_send_fd(int64_t timeout_ms) { return tine_connection_send_fd(end, 0, timeout_ms); }
static tine_status_t wait_to_recv(int64_t timeout_ms) { return receive(timeout_ms, end, "two"); }
static tine_status_t wait_to_recv_alloc(int64_t timeout_ms) {
    void *data = NULL;
    size_t len = 0;
    const tine_status_t status = tine_connection_recv_alloc(end, timeout_ms, &data, &len);
    CHECK((status == TINE_OK) == (data != NULL && len == SMALL));
    return tine_free(data), status;
}
static tine_status_t wait_to_poll(int64_t timeout_ms) { return tine_connection_poll(end, timeout_ms); }
static tine_status_t wait_to_recv_fd(int64_t timeout_ms) {
    int fd = -1;
    const tine_status_t status = tine_connection_recv_fd(end, timeout_ms, &fd);
    if (status == TINE_OK) close(fd);
    return status;
}
TEST(pipes) {
    static const struct wait waits[] = {
        { "send", make_full_pipe, NULL, wait_to_send, TINE_ETIMEDOUT, NULL, make_room, only_two_came, free_pipe },
        { "send, large", make_full_pipe, NULL, wait_to_send_large, TINE_ETIMEDOUT, NULL, make_room, only_large_came, free_pipe },
        { "send_fd", make_full_pipe, NULL, wait_to_send_fd, TINE_ETIMEDOUT, NULL, make_room, only_a_descriptor_came, free_pipe },
        { "recv", make_pipe_of_messages, NULL, wait_to_recv, TINE_ETIMEDOUT, nothing_is_there, send_two, nothing_is_there, free_pipe },
        { "recv_alloc", make_pipe_of_messages, NULL, wait_to_recv_alloc, TINE_ETIMEDOUT, nothing_is_there, send_two, nothing_is_there,
          free_pipe },
        { "poll", make_pipe_of_messages, NULL, wait_to_poll, TINE_ETIMEDOUT, nothing_is_there, send_two, two_is_there, free_pipe },
        { "recv_fd", make_pipe_of_messages, NULL, wait_to_recv_fd, TINE_ETIMEDOUT, nothing_is_there, send_descriptor, nothing_is_there,
          free_pipe },
    };
    make_pipe_of_messages();
    const int fds = test_count_fds(); /* with what is made once */
    free_pipe();
    RUN(waits);
    CHECK_INT(test_count_fds(), fds - 2);
}

/* ---- processes ---- */
static tine_process_t *process;
static int32_t ignore_all(void *ready) {
    signal(SIGTERM, SIG_IGN);
    tell(*(int *)ready, 'r');
    while (pause() != 0) {}
    return 0;
}
static void make_process(void) {
    int ends[2];
    make_pipe(ends);
    CHECK_OK(tine_process_start(ignore_all, &ends[1], NULL, &process));
    CHECK_INT(hear(ends[0]), 'r');
    close(ends[0]), close(ends[1]);
}
static void kill_process(void) { CHECK_OK(tine_process_kill(process)); }
static void process_lives(void) { CHECK(tine_process_is_alive(process)); }
static void process_is_stopped_in_time_only(void) { CHECK_INT(tine_process_is_alive(process), asked > 0); }
static void process_was_killed(void) {
    int32_t code = 0;
    CHECK_OK(tine_process_exit_code(process, &code));
    CHECK_INT(code, -SIGKILL);
}
static void free_process(void) { tine_process_free(process); }
static tine_status_t wait_to_join(int64_t timeout_ms) { return tine_process_join(process, timeout_ms); }
static tine_status_t wait_for_any(int64_t timeout_ms) {
    size_t index = 9;
    const tine_status_t status = tine_process_wait_any(&process, 1, timeout_ms, &index);
    CHECK_INT(index, status == TINE_OK ? 0 : 9);
    return status;
}
static tine_status_t wait_to_stop(int64_t timeout_ms) { return tine_process_stop(process, timeout_ms); }
/* ---- commands ---- */
static int line[2]; /* what lets a command go that reads a line */
static const char *const read_line[] = { "sh", "-c", "read line && echo two", NULL };
static tine_spawn_options_t reading_options(void) {
    tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
    options.stdin_mode = TINE_STDIO_FD, options.stdin_fd = line[0];
    return options;
}
static void make_line(void) { make_pipe(line); }
static void write_line(void) { CHECK_INT(write(line[1], "\n", 1), 1); }
static void free_line(void) { close(line[0]), close(line[1]); }
static void make_command(void) {
    tine_spawn_options_t options = (make_line(), reading_options());
    options.stdout_mode = TINE_STDIO_PIPE;
    CHECK_OK(tine_process_spawn(read_line, &options, &process));
}
static void free_command(void) { free_process(), free_line(); }
static tine_status_t wait_to_communicate(int64_t timeout_ms) {
    void *out = NULL;
    size_t len = 9;
    const tine_status_t status = tine_process_communicate(process, NULL, 0, timeout_ms, &out, &len, NULL, NULL);
    if (status == TINE_OK) CHECK(len == 4 && memcmp(out, "two", SMALL) == 0);
    return tine_free(out), status;
}
static tine_status_t wait_to_call(int64_t timeout_ms) {
    tine_spawn_options_t options = reading_options();
    int32_t code = -1;
    options.stdout_mode = TINE_STDIO_NULL;
    const tine_status_t status = tine_process_call(read_line, &options, timeout_ms, &code);
    if (status == TINE_OK) CHECK_INT(code, 0);
    return status;
}
static tine_status_t wait_to_check_output(int64_t timeout_ms) {
    const tine_spawn_options_t options = reading_options();
    void *out = NULL;
    size_t len = 9;
    const tine_status_t status = tine_process_check_output(read_line, &options, NULL, 0, timeout_ms, &out, &len, NULL);
    CHECK_INT(len, status == TINE_OK ? 4 : 0);
    return tine_free(out), status;
}
static void no_child_is_left(void) { CHECK_INT(test_count_children(), 0); }
TEST(commands) {
    static const struct wait waits[] = {
        { "communicate", make_command, NULL, wait_to_communicate, TINE_ETIMEDOUT, process_lives, write_line, NULL, free_command },
        { "process_call", make_line, NULL, wait_to_call, TINE_ETIMEDOUT, no_child_is_left, write_line, no_child_is_left, free_line },
        { "check_output", make_line, NULL, wait_to_check_output, TINE_ETIMEDOUT, no_child_is_left, write_line, no_child_is_left,
          free_line },
    };
    RUN(waits);
}

TEST(processes) {
    static const struct wait waits[] = {
        { "process_join", make_process, NULL, wait_to_join, TINE_ETIMEDOUT, process_lives, kill_process, process_was_killed, free_process },
        { "wait_any", make_process, NULL, wait_for_any, TINE_ETIMEDOUT, process_lives, kill_process, process_was_killed, free_process },
        { "stop", make_process, NULL, wait_to_stop, TINE_OK, process_is_stopped_in_time_only, kill_process, process_was_killed,
          free_process },
    };
    RUN(waits);
}

static int32_t wait_for_signals(void *unused) {
    (void)unused;
    for (;;) pause();
    return 0;
}
TEST(what_comes_to_its_end_anyway_asks_nobody) {
    handle(0), set(&refuses, 1), set(&asked, 0), set(&handled, 0);
    tine_set_interrupt_check(check, NULL);
    signals(1);
    for (int i = 0; i < (under_valgrind() ? 5 : 60); i++) {
        tine_process_options_t options = TINE_PROCESS_OPTIONS_INIT;
        options.flags = TINE_PROCESS_DAEMON;
        CHECK_OK(tine_process_start(wait_for_signals, NULL, &options, &process));
        CHECK_OK(tine_process_stop(process, 0));
        tine_process_free(process);
    }
    while (value_of(&handled) == 0) {}
    signals(0);
    CHECK_INT(value_of(&asked), 0);
}

static int32_t get_in_vain(void *unused) {
    char text[8];
    size_t length = 0;
    (void)unused, set(&asked, 0), set(&handled, 0);
    CHECK_OK(tine_queue_new(NULL, &queue));
    signals(1);
    CHECK_STATUS(tine_queue_get(queue, text, sizeof text, 100, &length), TINE_EEMPTY);
    signals(0);
    CHECK(value_of(&handled) > 0);
    CHECK_INT(value_of(&asked), 0);
    return tine_queue_free(queue), 7;
}
TEST(a_child_does_not_have_its_parents_check) {
    handle(0), set(&refuses, 1);
    tine_set_interrupt_check(check, NULL);
    CHECK_OK(tine_process_start(get_in_vain, NULL, NULL, &process));
    CHECK_INT(finish(process), 7);
}

/* ---- pools ---- */
static tine_pool_t *pool, *ending_pool;
static tine_async_t *async, *second;
static int32_t at_gate(const void *arg, size_t len, tine_task_t *task) {
    if (len > 0 && *(const char *)arg == 't') signal(SIGTERM, SIG_IGN);
    count_up(&shared->started);
    await(&shared->gate, 1);
    return task == NULL;
}
static void close_gate(void) { set(&shared->gate, 0); }
static void open_gate(void) { set(&shared->gate, 1); }
static void make_task(void) { close_gate(), async = submit(pool, at_gate, NULL, 0); }
static void task_is_pending(void) { CHECK(!tine_async_ready(async)); }
static void free_task(void) { CHECK_STATUS(end_of(async), TINE_OK); }
static void second_task_is_done(void) { CHECK_STATUS(end_of(second), TINE_OK); }
static tine_status_t wait_to_apply(int64_t timeout_ms) {
    tine_result_t *result = NULL;
    const tine_status_t status = tine_pool_apply(pool, at_gate, NULL, 0, timeout_ms, &result);
    if (status == TINE_OK) CHECK_STATUS(tine_result_status(result), TINE_OK);
    return tine_result_free(result), status;
}
static tine_status_t wait_to_map(int64_t timeout_ms) {
    static const char items[3] = { 1, 2, 3 };
    return tine_pool_map(pool, at_gate, items, 1, 3, 1, NULL, 0, timeout_ms, NULL);
}
static tine_status_t wait_to_submit(int64_t timeout_ms) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.submit_timeout_ms = timeout_ms == TINE_FOREVER ? 0 : timeout_ms;
    return tine_pool_submit(pool, at_gate, NULL, 0, &options, &second);
}
static tine_status_t wait_for_async(int64_t timeout_ms) { return tine_async_wait(async, timeout_ms); }
static tine_status_t wait_to_get(int64_t timeout_ms) {
    const tine_result_t *result = NULL;
    const tine_status_t status = tine_async_get(async, timeout_ms, &result);
    CHECK((status == TINE_OK) == (result != NULL));
    return status;
}
static int called;
static void note_result(const tine_result_t *result, void *unused) {
    (void)unused;
    CHECK_STATUS(tine_result_status(result), TINE_OK);
    called++;
}
static void make_task_with_callback(void) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = note_result;
    close_gate(), called = 0;
    CHECK_OK(tine_pool_submit(pool, at_gate, NULL, 0, &options, NULL));
}
static tine_status_t wait_to_poll_pool(int64_t timeout_ms) { return tine_pool_poll(pool, timeout_ms, 0, NULL); }
static void not_called(void) { CHECK_INT(called, 0); }
static void called_once(void) { CHECK_INT(called, 1); }
static tine_stream_t *stream;
static tine_status_t next_item(void *items, tine_bytes_t *out_item) {
    if (--*(int *)items < 0) return TINE_EEOF;
    return out_item->data = NULL, out_item->len = 0, TINE_OK;
}
static int items;
static void make_stream(void) {
    close_gate(), items = 1;
    CHECK_OK(tine_pool_imap(pool, at_gate, next_item, &items, NULL, &stream));
}
static tine_status_t wait_for_next(int64_t timeout_ms) {
    tine_result_t *result = NULL;
    const tine_status_t status = tine_stream_next(stream, timeout_ms, &result);
    if (status == TINE_OK) CHECK_INT(tine_result_task_id(result), 1);
    return tine_result_free(result), status;
}
static void stream_is_at_its_end(void) { CHECK_STATUS(tine_stream_next(stream, TINE_FOREVER, NULL), TINE_EEOF); }
static void free_stream(void) { tine_stream_free(stream); }
static void make_closed_pool(void) {
    ending_pool = pool_of(1);
    close_gate(), async = submit(ending_pool, at_gate, NULL, 0);
    CHECK_OK(tine_pool_close(ending_pool));
}
static tine_status_t wait_for_end(int64_t timeout_ms) { return tine_pool_join(ending_pool, timeout_ms); }
static void free_closed_pool(void) { free_task(), tine_pool_free(ending_pool); }

TEST_WITHIN(pools, 40) {
    static const struct wait waits[] = {
        { "apply", close_gate, NULL, wait_to_apply, TINE_ETIMEDOUT, NULL, open_gate, NULL, NULL },
        { "map", close_gate, NULL, wait_to_map, TINE_ETIMEDOUT, NULL, open_gate, NULL, NULL },
        { "async_wait", make_task, NULL, wait_for_async, TINE_ETIMEDOUT, task_is_pending, open_gate, NULL, free_task },
        { "async_get", make_task, NULL, wait_to_get, TINE_ETIMEDOUT, task_is_pending, open_gate, NULL, free_task },
        { "stream_next", make_stream, NULL, wait_for_next, TINE_ETIMEDOUT, NULL, open_gate, stream_is_at_its_end, free_stream },
        { "pool_join", make_closed_pool, NULL, wait_for_end, TINE_ETIMEDOUT, task_is_pending, open_gate, NULL, free_closed_pool },
    };
    static const struct wait full[] = {
        { "submit", make_task, NULL, wait_to_submit, TINE_EFULL, task_is_pending, open_gate, second_task_is_done, free_task },
    };
    static const struct wait looped[] = {
        { "pool_poll", make_task_with_callback, NULL, wait_to_poll_pool, TINE_ETIMEDOUT, not_called, open_gate, called_once, NULL },
    };
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    share();
    pool = pool_of(1);
    RUN(waits);
    end_pool(pool);
    options.workers = 1, options.flags = TINE_POOL_HOST_LOOP;
    pool = pool_with(&options);
    RUN(looped);
    end_pool(pool);
    options.flags = 0;
    options.workers = 1, options.max_pending = 1;
    pool = pool_with(&options);
    RUN(full);
    end_pool(pool);
}

/* Terminate always ends the pool: a check has no say. */
TEST(to_terminate_a_pool_is_not_interrupted) {
    share();
    handle(SA_RESTART);
    refuses = 1;
    tine_set_interrupt_check(check, NULL);
    for (int in_time = 0; in_time < 2; in_time++) {
        uint32_t killed = 9;
        close_gate(), shared->started = 0;
        pool = pool_of(1);
        async = submit(pool, at_gate, "t", 1);
        await(&shared->started, 1);
        const int64_t start = now_us();
        handled = 0;
        signals(1);
        CHECK_OK(tine_pool_terminate(pool, in_time ? 50 : 0, &killed));
        signals(0);
        CHECK(!in_time || (now_us() - start >= 50000 && handled > 0));
        CHECK(killed > 0);
        CHECK_STATUS(end_of(async), TINE_ECANCELED);
        tine_pool_free(pool);
    }
    tine_set_interrupt_check(NULL, NULL);
}
