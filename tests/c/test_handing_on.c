/* Objects that a process did not inherit: tokens, names, and what is left when somebody dies on the way. */
#include <dirent.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include "test.h"

/* A name of this test alone, and what becomes of it. */
static char name[64];
static void remove_name(void) { tine_unlink(name); }
static const char *new_name(void) {
    snprintf(name, sizeof name, "test-%d", (int)getpid());
    tine_unlink(name);
    return atexit(remove_name), name;
}
static const char *path_of_name(void) {
    static char path[96];
    return snprintf(path, sizeof path, "/dev/shm/tine-%s", name), path;
}
static pid_t fork_child(void) {
    fflush(NULL);
    const pid_t pid = fork();
    CHECK(pid >= 0);
    return pid;
}
static int code_of(pid_t pid) {
    int status = 0;
    CHECK_INT(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}
static tine_lock_t *new_lock(void) {
    tine_lock_t *lock = NULL;
    CHECK_OK(tine_lock_new(NULL, &lock));
    return lock;
}
static tine_token_t lock_token(const tine_lock_t *lock) {
    tine_token_t token;
    CHECK_OK(tine_lock_token(lock, &token));
    return token;
}
static tine_queue_t *named_queue(uint32_t flags, tine_status_t expected) {
    tine_queue_options_t options = TINE_QUEUE_OPTIONS_INIT;
    tine_queue_t *queue = NULL;
    options.name = name, options.flags = flags, options.capacity = 7;
    CHECK_STATUS(tine_queue_new(&options, &queue), expected);
    return queue;
}

/* ---- tokens */

TEST(every_kind_is_attached_by_its_token) {
    tine_token_t token;
    tine_lock_t *lock = new_lock(), *lock2 = NULL;
    tine_semaphore_t *semaphore = NULL, *semaphore2 = NULL;
    tine_event_t *event = NULL, *event2 = NULL;
    tine_queue_t *queue = NULL, *queue2 = NULL;
    tine_shared_memory_t *memory = NULL, *memory2 = NULL;
    CHECK_OK(tine_semaphore_new(1, 2, NULL, &semaphore));
    CHECK_OK(tine_event_new(NULL, &event));
    CHECK_OK(tine_queue_new(NULL, &queue));
    CHECK_OK(tine_shared_memory_new(100, NULL, &memory));
    const int mappings = test_count_mappings("tine:");
    CHECK_OK(tine_lock_token(lock, &token));
    CHECK_OK(tine_lock_attach(&token, &lock2));
    CHECK_OK(tine_semaphore_token(semaphore, &token));
    CHECK_OK(tine_semaphore_attach(&token, &semaphore2));
    CHECK_OK(tine_event_token(event, &token));
    CHECK_OK(tine_event_attach(&token, &event2));
    CHECK_OK(tine_queue_token(queue, &token));
    CHECK_OK(tine_queue_attach(&token, &queue2));
    CHECK_OK(tine_shared_memory_token(memory, &token));
    CHECK_OK(tine_shared_memory_attach(&token, &memory2));
    CHECK_INT(test_count_mappings("tine:"), mappings); /* the same mapping */
    CHECK(tine_shared_memory_data(memory2) == tine_shared_memory_data(memory));
    CHECK_INT(tine_shared_memory_length(memory2), 100);
    CHECK_OK(tine_lock_acquire(lock, 0));
    CHECK(tine_lock_is_held(lock2));
    CHECK_STATUS(tine_lock_acquire(lock2, TINE_FOREVER), TINE_EDEADLK);
    CHECK_OK(tine_lock_release(lock2));
    CHECK_OK(tine_semaphore_release(semaphore2, 1));
    CHECK_INT(tine_semaphore_value(semaphore), 2);
    CHECK_STATUS(tine_semaphore_release(semaphore2, 1), TINE_EOVERFLOW);
    CHECK_OK(tine_event_set(event2));
    CHECK(tine_event_is_set(event));
    CHECK_OK(tine_queue_put(queue2, "hello", 5, 0));
    CHECK_INT(tine_queue_size(queue), 1);
    tine_lock_free(lock), tine_lock_free(lock2);
    tine_semaphore_free(semaphore), tine_semaphore_free(semaphore2);
    tine_event_free(event), tine_event_free(event2);
    tine_queue_free(queue), tine_queue_free(queue2);
    tine_shared_memory_free(memory), tine_shared_memory_free(memory2);
}

/* Another program, which has nothing but the tokens on its standard input. */
struct tokens { tine_token_t lock, semaphore, event, queue, memory, lock_in_memory; };
TEST_PROGRAM(stranger) {
    struct tokens tokens;
    tine_lock_t *lock = NULL, *inside = NULL;
    tine_semaphore_t *semaphore = NULL;
    tine_event_t *event = NULL;
    tine_queue_t *queue = NULL;
    tine_shared_memory_t *memory = NULL;
    CHECK_INT(read(0, &tokens, sizeof tokens), sizeof tokens);
    CHECK_OK(tine_lock_attach(&tokens.lock, &lock));
    CHECK_OK(tine_semaphore_attach(&tokens.semaphore, &semaphore));
    CHECK_OK(tine_event_attach(&tokens.event, &event));
    CHECK_OK(tine_queue_attach(&tokens.queue, &queue));
    CHECK_OK(tine_shared_memory_attach(&tokens.memory, &memory));
    CHECK_OK(tine_lock_attach(&tokens.lock_in_memory, &inside));
    CHECK_OK(tine_lock_acquire(inside, TINE_FOREVER));
    strcpy(tine_shared_memory_data(memory), "written");
    CHECK_OK(tine_lock_release(inside));
    char *large = calloc(1, 300000);
    large[299999] = 'z';
    CHECK_OK(tine_queue_put(queue, "small", 5, TINE_FOREVER));
    CHECK_OK(tine_queue_put(queue, large, 300000, TINE_FOREVER));
    CHECK_OK(tine_semaphore_release(semaphore, 1));
    CHECK_OK(tine_event_wait(event, TINE_FOREVER));
    CHECK_OK(tine_lock_acquire(lock, TINE_FOREVER));
    kill(getpid(), SIGKILL); /* with the lock */
}
TEST(a_program_that_inherits_nothing_attaches_by_token) {
    struct tokens tokens;
    int ends[2];
    tine_lock_t *lock = new_lock(), *inside = NULL;
    tine_semaphore_t *semaphore = NULL;
    tine_event_t *event = NULL;
    tine_queue_t *queue = NULL;
    tine_shared_memory_t *memory = NULL;
    size_t len;
    char *message = malloc(300000);
    CHECK_OK(tine_semaphore_new(0, 0, NULL, &semaphore));
    CHECK_OK(tine_event_new(NULL, &event));
    CHECK_OK(tine_queue_new(NULL, &queue));
    CHECK_OK(tine_shared_memory_new(10000, NULL, &memory));
    CHECK_OK(tine_lock_new_in(memory, 4096, NULL, &inside));
    CHECK_OK(tine_lock_token(lock, &tokens.lock));
    CHECK_OK(tine_semaphore_token(semaphore, &tokens.semaphore));
    CHECK_OK(tine_event_token(event, &tokens.event));
    CHECK_OK(tine_queue_token(queue, &tokens.queue));
    CHECK_OK(tine_shared_memory_token(memory, &tokens.memory));
    CHECK_OK(tine_lock_token(inside, &tokens.lock_in_memory));
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    CHECK_INT(write(ends[1], &tokens, sizeof tokens), sizeof tokens);
    const pid_t child = fork_child();
    if (child == 0) dup2(ends[0], 0), test_execute("stranger");
    CHECK_OK(tine_semaphore_acquire(semaphore, TINE_FOREVER));
    CHECK_OK(tine_event_set(event));
    CHECK_INT(code_of(child), -SIGKILL);
    CHECK_STATUS(tine_lock_acquire(lock, TINE_FOREVER), TINE_OWNER_DIED);
    CHECK_OK(tine_lock_release(lock));
    CHECK_TEXT((char *)tine_shared_memory_data(memory), "written");
    CHECK_OK(tine_queue_get(queue, message, 300000, 0, &len));
    CHECK_INT(len, 5);
    CHECK_OK(tine_queue_get(queue, message, 300000, 0, &len));
    CHECK(len == 300000 && message[299999] == 'z');
    tine_lock_free(lock), tine_lock_free(inside), tine_semaphore_free(semaphore), tine_event_free(event);
    tine_queue_free(queue), tine_shared_memory_free(memory), free(message);
}

/* What waits for others: tracked permits, a condition, a barrier, a queue with a descriptor. */
struct meeting { tine_token_t lock, tracked, condition, barrier, queue; };
static int is_readable(tine_queue_t *queue, int timeout_ms) {
    struct pollfd polled = { tine_queue_fd(queue), POLLIN, 0 };
    CHECK(polled.fd >= 0);
    return poll(&polled, 1, timeout_ms) == 1;
}
TEST_PROGRAM(visitor) {
    struct meeting tokens;
    tine_lock_t *lock = NULL;
    tine_semaphore_t *tracked = NULL;
    tine_condition_t *condition = NULL;
    tine_barrier_t *barrier = NULL;
    tine_queue_t *queue = NULL;
    char buffer[10];
    uint32_t index = 9;
    CHECK_INT(read(0, &tokens, sizeof tokens), sizeof tokens);
    CHECK_OK(tine_lock_attach(&tokens.lock, &lock));
    CHECK_OK(tine_semaphore_attach(&tokens.tracked, &tracked));
    CHECK_OK(tine_condition_attach(&tokens.condition, &condition));
    CHECK_OK(tine_barrier_attach(&tokens.barrier, &barrier));
    CHECK_OK(tine_queue_attach(&tokens.queue, &queue));
    CHECK_INT(tine_semaphore_value(tracked), 2);
    CHECK_STATUS(tine_semaphore_release(tracked, 1), TINE_ENOTOWNER);
    CHECK_OK(tine_semaphore_acquire(tracked, 0));
    CHECK_INT(tine_barrier_parties(barrier), 2);
    CHECK_OK(tine_barrier_wait(barrier, TINE_FOREVER, &index));
    CHECK(index < 2);
    CHECK(!is_readable(queue, 0));
    CHECK_OK(tine_lock_acquire(lock, TINE_FOREVER));
    CHECK_OK(tine_queue_put(queue, "here", 4, 0)); /* the other side knows by poll that somebody has the lock and will wait */
    CHECK_OK(tine_condition_wait(condition, lock, TINE_FOREVER));
    CHECK_OK(tine_lock_release(lock));
    CHECK(is_readable(queue, -1));
    CHECK_OK(tine_queue_get(queue, buffer, sizeof buffer, TINE_FOREVER, NULL)); /* the descriptor may tell before it is there */
    CHECK_STATUS(tine_queue_get(queue, buffer, sizeof buffer, 0, NULL), TINE_EEMPTY);
    CHECK(!is_readable(queue, 0));
    CHECK_OK(tine_queue_put(queue, "bye", 3, 0));
    kill(getpid(), SIGKILL); /* with a permit */
}
TEST(a_program_that_inherits_nothing_waits_together_with_us) {
    struct meeting tokens;
    tine_semaphore_options_t semaphore_options = TINE_SEMAPHORE_OPTIONS_INIT;
    tine_queue_options_t queue_options = TINE_QUEUE_OPTIONS_INIT;
    tine_lock_t *lock = new_lock();
    tine_semaphore_t *tracked = NULL;
    tine_condition_t *condition = NULL;
    tine_barrier_t *barrier = NULL;
    tine_queue_t *queue = NULL, *another = NULL;
    int ends[2];
    char buffer[10];
    semaphore_options.flags = TINE_SEMAPHORE_TRACKED, queue_options.flags = TINE_QUEUE_POLLABLE | TINE_QUEUE_GROW;
    CHECK_OK(tine_semaphore_new(2, 0, &semaphore_options, &tracked));
    CHECK_OK(tine_condition_new(NULL, &condition));
    CHECK_OK(tine_barrier_new(2, NULL, &barrier));
    CHECK_OK(tine_queue_new(&queue_options, &queue));
    CHECK_OK(tine_lock_token(lock, &tokens.lock));
    CHECK_OK(tine_semaphore_token(tracked, &tokens.tracked));
    CHECK_OK(tine_condition_token(condition, &tokens.condition));
    CHECK_OK(tine_barrier_token(barrier, &tokens.barrier));
    CHECK_OK(tine_queue_token(queue, &tokens.queue));
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    CHECK_INT(write(ends[1], &tokens, sizeof tokens), sizeof tokens);
    const pid_t child = fork_child();
    if (child == 0) dup2(ends[0], 0), test_execute("visitor");
    CHECK_OK(tine_barrier_wait(barrier, TINE_FOREVER, NULL));
    CHECK_INT(tine_semaphore_value(tracked), 1);
    CHECK(is_readable(queue, -1)); /* by the other's put */
    CHECK_OK(tine_queue_get(queue, buffer, sizeof buffer, TINE_FOREVER, NULL));
    CHECK_STATUS(tine_queue_get(queue, buffer, sizeof buffer, 0, NULL), TINE_EEMPTY);
    CHECK(!is_readable(queue, 0));
    CHECK_OK(tine_lock_acquire(lock, TINE_FOREVER)); /* it waits now */
    CHECK_OK(tine_condition_notify(condition, 1));
    CHECK_OK(tine_lock_release(lock));
    CHECK_OK(tine_queue_attach(&tokens.queue, &another)); /* by whatever handle */
    CHECK_OK(tine_queue_put(another, "more", 4, 0));
    CHECK_INT(code_of(child), -SIGKILL);
    CHECK(is_readable(queue, -1) && is_readable(another, -1));
    CHECK_OK(tine_queue_get(queue, buffer, sizeof buffer, 0, NULL));
    CHECK(memcmp(buffer, "bye", 3) == 0);
    CHECK_OK(tine_semaphore_acquire(tracked, TINE_FOREVER));
    CHECK_OK(tine_semaphore_acquire(tracked, TINE_FOREVER)); /* the dead one's */
    CHECK_OK(tine_semaphore_release(tracked, 2));
    CHECK_INT(tine_barrier_waiting(barrier), 0);
    CHECK_STATUS(tine_barrier_wait(barrier, 0, NULL), TINE_ETIMEDOUT);
    close(tine_queue_fd(queue)); /* behind our back: nobody else gets it any more */
    tine_queue_t *none = NULL;
    CHECK_STATUS(tine_queue_attach(&tokens.queue, &none), TINE_ENOENT);
    CHECK_STATUS(tine_queue_token(queue, &tokens.queue), TINE_ENOENT);
    CHECK_MESSAGE("closed the descriptor");
    CHECK_OK(tine_queue_token(another, &tokens.queue));
    CHECK_OK(tine_queue_attach(&tokens.queue, &none));
    tine_queue_free(none), tine_queue_free(another);
    tine_lock_free(lock), tine_semaphore_free(tracked), tine_condition_free(condition), tine_barrier_free(barrier);
    tine_queue_free(queue);
}

/* The action belongs to the handle. */
static void count_action(void *user_data) { ++*(int *)user_data; }
static void *wait_at_barrier(void *barrier) {
    CHECK_OK(tine_barrier_wait(barrier, TINE_FOREVER, NULL));
    return NULL;
}
TEST(a_barrier_that_is_attached_calls_nothing) {
    tine_barrier_options_t options = TINE_BARRIER_OPTIONS_INIT;
    tine_barrier_t *made = NULL, *attached = NULL, *opened = NULL, *by_name = NULL;
    tine_token_t token;
    int calls = 0;
    options.action = count_action, options.user_data = &calls, options.name = new_name();
    CHECK_OK(tine_barrier_new(2, &options, &made));
    CHECK_OK(tine_barrier_token(made, &token));
    CHECK_OK(tine_barrier_attach(&token, &attached));
    CHECK_OK(tine_barrier_open(name, &opened));
    CHECK_STATUS(tine_barrier_new(2, &options, &by_name), TINE_EEXIST);
    options.flags = TINE_OPEN_OR_CREATE;
    CHECK_OK(tine_barrier_new(7, &options, &by_name));
    CHECK_INT(tine_barrier_parties(by_name), 2); /* as it is */
    tine_barrier_t *const last[] = { made, attached, opened, by_name };
    const int expected[] = { 1, 1, 1, 2 };
    for (int i = 0; i < 4; i++) {
        pthread_t thread;
        CHECK_INT(pthread_create(&thread, NULL, wait_at_barrier, last[(i + 1) % 4]), 0);
        while (tine_barrier_waiting(made) == 0) sched_yield();
        CHECK_OK(tine_barrier_wait(last[i], TINE_FOREVER, NULL));
        CHECK_INT(calls, expected[i]);
        CHECK_INT(pthread_join(thread, NULL), 0);
    }
    for (int i = 0; i < 4; i++) tine_barrier_free(last[i]);
}

/* Objects that are made after the pool reach its workers in the arguments of tasks. */
static int32_t use_tokens(const void *arg, size_t len, tine_task_t *task) {
    struct tokens tokens;
    tine_lock_t *lock = NULL;
    tine_queue_t *queue = NULL;
    tine_shared_memory_t *memory = NULL;
    if (len != sizeof tokens) return 1;
    memcpy(&tokens, arg, len);
    if (tine_lock_attach(&tokens.lock, &lock) != TINE_OK || tine_queue_attach(&tokens.queue, &queue) != TINE_OK ||
        tine_shared_memory_attach(&tokens.memory, &memory) != TINE_OK)
        return tine_task_reply(task, tine_last_error_message(), strlen(tine_last_error_message())), 2;
    if (tine_lock_acquire(lock, TINE_FOREVER) != TINE_OK) return 3;
    ++*(int *)tine_shared_memory_data(memory);
    if (tine_lock_release(lock) != TINE_OK) return 4;
    if (tine_queue_put(queue, &lock, sizeof lock, TINE_FOREVER) != TINE_OK) return 5;
    tine_lock_free(lock), tine_queue_free(queue), tine_shared_memory_free(memory);
    return 0;
}
TEST(tasks_use_objects_that_are_younger_than_their_pool) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_pool_t *pool = NULL;
    struct tokens tokens;
    tine_lock_t *old = new_lock(), *lock = NULL; /* old: the pool inherits the slab that the other lock lies in, too */
    tine_queue_t *queue = NULL;
    tine_shared_memory_t *memory = NULL;
    memset(&tokens, 0, sizeof tokens);
    options.workers = 3;
    CHECK_OK(tine_pool_new(&options, &pool));
    lock = new_lock();
    CHECK_OK(tine_queue_new(NULL, &queue));
    CHECK_OK(tine_shared_memory_new(100, NULL, &memory));
    CHECK_OK(tine_lock_token(lock, &tokens.lock));
    CHECK_OK(tine_queue_token(queue, &tokens.queue));
    CHECK_OK(tine_shared_memory_token(memory, &tokens.memory));
    tine_async_t *asyncs[60];
    for (int i = 0; i < 60; i++) CHECK_OK(tine_pool_submit(pool, use_tokens, &tokens, sizeof tokens, NULL, &asyncs[i]));
    for (int i = 0; i < 60; i++) {
        const tine_result_t *result = NULL;
        CHECK_OK(tine_async_get(asyncs[i], TINE_FOREVER, &result));
        size_t len = 0;
        const char *text = tine_result_data(result, &len);
        if (tine_result_status(result) != TINE_OK) TEST_FAIL("code %d: %.*s", (int)tine_result_code(result), (int)len, text);
        tine_async_free(asyncs[i]);
    }
    CHECK_INT(*(int *)tine_shared_memory_data(memory), 60);
    CHECK_INT(tine_queue_size(queue), 60);
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    tine_pool_free(pool);
    tine_lock_free(old), tine_lock_free(lock), tine_queue_free(queue), tine_shared_memory_free(memory);
}

TEST(a_child_attaches_what_its_parent_has_as_the_same_memory) {
    tine_lock_t *lock = new_lock(), *same = NULL;
    const tine_token_t token = lock_token(lock);
    const pid_t child = fork_child();
    if (child == 0) {
        CHECK_OK(tine_lock_attach(&token, &same));
        CHECK_OK(tine_lock_acquire(lock, 0));
        CHECK(tine_lock_is_held(same));
        CHECK_OK(tine_lock_release(same));
        const tine_token_t own = lock_token(lock); /* its own: the parent's pin is not the child's */
        CHECK(memcmp(&own, &token, sizeof own) != 0);
        tine_lock_free(same), same = NULL;
        CHECK_OK(tine_lock_attach(&own, &same));
        tine_lock_free(lock), tine_lock_free(same);
        _exit(0);
    }
    CHECK_INT(code_of(child), 0);
    CHECK_OK(tine_lock_attach(&token, &same)); /* what the child freed was its own */
    tine_lock_free(lock), tine_lock_free(same);
}

static tine_token_t common_token;
static void *attach_common(void *memory) {
    CHECK_OK(tine_shared_memory_attach(&common_token, memory));
    return NULL;
}
TEST(threads_that_attach_at_once_have_one_mapping) {
    enum { THREADS = 4 };
    tine_shared_memory_t *memories[THREADS];
    pthread_t threads[THREADS];
    int ends[2], back[2];
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    CHECK_INT(pipe2(back, O_CLOEXEC), 0);
    const pid_t maker = fork_child();
    if (maker == 0) {
        tine_shared_memory_t *memory = NULL;
        tine_token_t token;
        CHECK_OK(tine_shared_memory_new(100, NULL, &memory));
        CHECK_OK(tine_shared_memory_token(memory, &token));
        CHECK_INT(write(ends[1], &token, sizeof token), sizeof token);
        close(back[1]);
        char end;
        _exit((int)read(back[0], &end, 1));
    }
    CHECK_INT(read(ends[0], &common_token, sizeof common_token), sizeof common_token);
    for (int i = 0; i < THREADS; i++) CHECK_INT(pthread_create(&threads[i], NULL, attach_common, &memories[i]), 0);
    for (int i = 0; i < THREADS; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < THREADS; i++) CHECK(tine_shared_memory_data(memories[i]) == tine_shared_memory_data(memories[0]));
    CHECK_INT(test_count_mappings("tine:memory"), 1);
    for (int i = 0; i < THREADS; i++) tine_shared_memory_free(memories[i]);
    CHECK_INT(test_count_mappings("tine:memory"), 0);
    close(back[0]), close(back[1]);
    CHECK_INT(code_of(maker), 0);
}
TEST(a_token_ends_with_the_handle) {
    tine_lock_t *lock = new_lock(), *other = NULL, *none = NULL;
    const int fds = test_count_fds();
    const tine_token_t token = lock_token(lock), again = lock_token(lock);
    CHECK(memcmp(&token, &again, sizeof token) == 0);
    CHECK_INT(test_count_fds(), fds + 1);
    tine_lock_free(lock);
    CHECK_INT(test_count_fds(), fds);
    CHECK_STATUS(tine_lock_attach(&token, &none), TINE_ENOENT);
    CHECK_MESSAGE("freed the object");
    other = new_lock(); /* in the same slab, and its pin gets the same number */
    const tine_token_t another = lock_token(other);
    CHECK_STATUS(tine_lock_attach(&token, &none), TINE_ENOENT);
    CHECK_OK(tine_lock_attach(&another, &none));
    tine_lock_free(none), tine_lock_free(other);
}

TEST(what_a_token_named_and_is_no_longer_there_stays_open) {
    tine_lock_t *lock = new_lock();
    const tine_token_t token = lock_token(lock);
    const int other = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int number;
    memcpy(&number, token.bytes + 8, sizeof number);
    CHECK_INT(dup2(other, number), number); /* somebody has closed it, and opened something else */
    tine_lock_free(lock);
    CHECK(fcntl(number, F_GETFD) >= 0);
    close(number), close(other);
}

TEST(a_token_ends_with_the_process_that_made_it) {
    int ends[2], back[2];
    tine_token_t token;
    tine_lock_t *lock = NULL, *none = NULL;
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    CHECK_INT(pipe2(back, O_CLOEXEC), 0);
    const pid_t child = fork_child();
    if (child == 0) {
        token = lock_token(new_lock());
        CHECK_INT(write(ends[1], &token, sizeof token), sizeof token);
        pause();
    }
    CHECK_INT(read(ends[0], &token, sizeof token), sizeof token);
    CHECK_OK(tine_lock_attach(&token, &lock));
    kill(child, SIGKILL);
    siginfo_t info;
    CHECK_INT(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
    CHECK_STATUS(tine_lock_attach(&token, &none), TINE_ENOENT); /* a zombie holds nothing */
    CHECK_INT(code_of(child), -SIGKILL);
    CHECK_STATUS(tine_lock_attach(&token, &none), TINE_ENOENT);
    CHECK_MESSAGE("has ended");
    CHECK_OK(tine_lock_acquire(lock, 0)); /* what was attached before stays */
    CHECK_OK(tine_lock_release(lock));
    tine_lock_free(lock);
}

TEST(without_descriptors_no_token_is_told_to_be_gone) {
    if (under_valgrind()) SKIP("valgrind limits descriptors itself");
    tine_lock_t *lock = new_lock(), *attached = NULL;
    const tine_token_t token = lock_token(lock);
    int last = -1, low = 0;
    struct rlimit limit = { 200, 200 };
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    while ((low = dup(0)) >= 0) last = low;
    for (int room = 0; room < 5; room++, close(last--)) {
        tine_lock_t *other = new_lock(); /* in the slab */
        tine_token_t another;
        const tine_status_t status = tine_lock_attach(&token, &attached), made = tine_lock_token(other, &another);
        CHECK(status == TINE_EMFILE || (status == TINE_OK && room > 0));
        CHECK(made == TINE_EMFILE || (made == TINE_OK && room > 0));
        tine_lock_free(other);
        if (status == TINE_OK) tine_lock_free(attached);
        if (room == 4) CHECK(status == TINE_OK && made == TINE_OK);
    }
    tine_lock_free(lock);
}

/* What a token says inside: a test of garbage has to know. */
struct inside { uint8_t mark[2], version, kind; int32_t pid, descriptor; uint32_t space, birth, place; uint64_t inode; };

static int is_answer(tine_status_t status) {
    switch (status) {
    case TINE_EINVAL: case TINE_ENOENT: case TINE_ENOTSUP: case TINE_EPERM: case TINE_ECORRUPT: case TINE_EMFILE: return 1;
    default: return 0;
    }
}
TEST(garbage_is_no_token) {
    tine_lock_t *lock = new_lock(), *attached = NULL;
    const tine_token_t good = lock_token(lock);
    tine_token_t token;
    memset(&token, 0, sizeof token);
    CHECK_STATUS(tine_lock_attach(&token, &attached), TINE_EINVAL);
    CHECK_MESSAGE("not a token");
    CHECK_STATUS(tine_lock_attach(NULL, &attached), TINE_EINVAL);
    CHECK_STATUS(tine_lock_attach(&good, NULL), TINE_EINVAL);
    CHECK_STATUS(tine_lock_token(lock, NULL), TINE_EINVAL);
    CHECK_STATUS(tine_lock_token(NULL, &token), TINE_EINVAL);
    for (size_t byte = 0; byte < sizeof token; byte++)
        for (int bit = 0; bit < 8; bit++) {
            token = good;
            token.bytes[byte] ^= (uint8_t)(1 << bit);
            const tine_status_t status = tine_lock_attach(&token, &attached);
            if (!is_answer(status)) TEST_FAIL("bit %d of byte %zu: %d (%s)", bit, byte, (int)status, tine_last_error_message());
            CHECK_MESSAGE("token");
        }
    unsigned seed = 1;
    for (int round = 0; round < 2000; round++) {
        for (size_t byte = round % 2 ? 0 : 4; byte < sizeof token; byte++) token.bytes[byte] = (uint8_t)rand_r(&seed);
        CHECK(is_answer(tine_lock_attach(&token, &attached)));
    }
    CHECK(attached == NULL);
    tine_lock_free(lock);
}

TEST(a_token_of_another_kind_or_place_is_refused) {
    tine_lock_t *lock = new_lock(), *attached = NULL;
    tine_event_t *event = NULL;
    tine_shared_memory_t *memory = NULL;
    tine_token_t token = lock_token(lock);
    CHECK_STATUS(tine_event_attach(&token, &event), TINE_EINVAL);
    CHECK_MESSAGE("of a lock, not of an event");
    CHECK_STATUS(tine_shared_memory_attach(&token, &memory), TINE_EINVAL);
    struct inside inside;
    CHECK_INT(sizeof inside, sizeof token);
    memcpy(&inside, &token, sizeof token);
    inside.version++;
    memcpy(&token, &inside, sizeof token);
    CHECK_STATUS(tine_lock_attach(&token, &attached), TINE_ENOTSUP);
    CHECK_MESSAGE("another version");
    inside.version--, inside.space++;
    memcpy(&token, &inside, sizeof token);
    CHECK_STATUS(tine_lock_attach(&token, &attached), TINE_ENOTSUP);
    CHECK_MESSAGE("pid namespace");
    /* A forged kind leads to the right place, where something else is. */
    inside.space--, inside.kind = 5;
    memcpy(&token, &inside, sizeof token);
    CHECK_STATUS(tine_event_attach(&token, &event), TINE_ECORRUPT);
    inside.kind = 8;
    memcpy(&token, &inside, sizeof token);
    CHECK_STATUS(tine_shared_memory_attach(&token, &memory), TINE_ECORRUPT);
    CHECK(event == NULL && memory == NULL && attached == NULL);
    tine_lock_free(lock);
}

/* A forged token of a descriptor of ours, with `place` as its position. */
static tine_token_t forge(int fd, uint8_t kind, uint32_t place) {
    tine_lock_t *lock = new_lock();
    tine_token_t token = lock_token(lock);
    struct inside inside;
    struct stat facts;
    CHECK_INT(fstat(fd, &facts), 0);
    memcpy(&inside, &token, sizeof token);
    inside.descriptor = fd, inside.kind = kind, inside.inode = facts.st_ino, inside.place = place;
    lseek(fd, (off_t)place * 8, SEEK_SET);
    memcpy(&token, &inside, sizeof token);
    return tine_lock_free(lock), token;
}
static tine_status_t attach_forged(int fd, uint32_t place) {
    const tine_token_t token = forge(fd, 8, place);
    tine_shared_memory_t *memory = NULL;
    const tine_status_t status = tine_shared_memory_attach(&token, &memory);
    CHECK(memory == NULL);
    CHECK_MESSAGE("token");
    return status;
}
struct head { char mark[8]; uint32_t version, kind; uint64_t space, body, length; char name[208], rest[8]; };
static int new_memfd(const struct head *head, off_t length, int seals) {
    const int fd = memfd_create("tine:forged", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0 && ftruncate(fd, length) == 0);
    if (length > 0) CHECK(pwrite(fd, head, length < (off_t)sizeof *head ? (size_t)length : sizeof *head, 0) > 0);
    CHECK_INT(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}
TEST(a_token_that_leads_to_something_else_is_an_error) {
    int ends[2];
    struct head head;
    tine_shared_memory_t *memory = NULL;
    tine_token_t token;
    CHECK_OK(tine_shared_memory_new(5000, NULL, &memory));
    CHECK_OK(tine_shared_memory_token(memory, &token));
    struct inside inside;
    memcpy(&inside, &token, sizeof token);
    CHECK_INT(pread(inside.descriptor, &head, sizeof head, 0), sizeof head);
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    CHECK_STATUS(attach_forged(ends[0], 0), TINE_ECORRUPT);
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    CHECK(is_answer(attach_forged(ends[0], 0)));
    CHECK(is_answer(attach_forged(open("/dev/null", O_RDWR), 0)));
    CHECK(is_answer(attach_forged(open("/tmp", O_RDONLY | O_DIRECTORY), 0)));
    CHECK(is_answer(attach_forged(open("/proc/self/exe", O_RDONLY), 0)));
    FILE *plain = tmpfile();
    CHECK(plain != NULL);
    CHECK_STATUS(attach_forged(fileno(plain), 0), TINE_ECORRUPT);
    const uint32_t page = (uint32_t)head.body / 8;
    const off_t whole = (off_t)(head.body + 8192);
    /* Truncated: no head, half a head, less than the head says. */
    for (int length = 0; length < 3; length++) {
        const off_t lengths[] = { 0, 100, (off_t)head.body + 4096 };
        CHECK_STATUS(attach_forged(new_memfd(&head, lengths[length], F_SEAL_SHRINK), page), TINE_ECORRUPT);
    }
    CHECK_STATUS(attach_forged(new_memfd(&head, whole, F_SEAL_GROW), page), TINE_ECORRUPT); /* it could shrink */
    CHECK(is_answer(attach_forged(new_memfd(&head, whole, F_SEAL_SHRINK | F_SEAL_WRITE), page)));
    struct head wrong = head;
    wrong.mark[0] ^= 1;
    CHECK_STATUS(attach_forged(new_memfd(&wrong, whole, F_SEAL_SHRINK), page), TINE_ECORRUPT);
    wrong = head, wrong.version++;
    CHECK_STATUS(attach_forged(new_memfd(&wrong, whole, F_SEAL_SHRINK), page), TINE_ENOTSUP);
    wrong = head, wrong.space++;
    CHECK_STATUS(attach_forged(new_memfd(&wrong, whole, F_SEAL_SHRINK), page), TINE_ENOTSUP);
    wrong = head, wrong.kind = 77;
    CHECK_STATUS(attach_forged(new_memfd(&wrong, whole, F_SEAL_SHRINK), page), TINE_ECORRUPT);
    const uint64_t numbers[] = { 0, 1, 255, 4095, 1 << 20, UINT64_C(1) << 40, INT64_MAX, UINT64_MAX, UINT64_MAX - 4095, UINT64_MAX - 255 };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        wrong = head, wrong.body = numbers[i];
        CHECK_STATUS(attach_forged(new_memfd(&wrong, whole, F_SEAL_SHRINK), page), TINE_ECORRUPT);
        wrong = head, wrong.length = numbers[i];
        if (numbers[i] > 8192) CHECK_STATUS(attach_forged(new_memfd(&wrong, whole, F_SEAL_SHRINK), page), TINE_ECORRUPT);
    }
    CHECK_STATUS(attach_forged(new_memfd(&head, whole, F_SEAL_SHRINK), page + 1), TINE_ECORRUPT); /* into the middle of the block */
    CHECK_STATUS(attach_forged(new_memfd(&head, whole, F_SEAL_SHRINK), 0), TINE_ECORRUPT);        /* before it */
    close(inside.descriptor); /* closed behind our back: the next token mends it */
    tine_shared_memory_t *attached = NULL;
    CHECK_STATUS(tine_shared_memory_attach(&token, &attached), TINE_ENOENT);
    CHECK_OK(tine_shared_memory_token(memory, &token));
    CHECK_OK(tine_shared_memory_attach(&token, &attached));
    tine_shared_memory_free(attached), tine_shared_memory_free(memory);
}

/* The content of a queue's segment, at an offset of its own: what it says about itself is checked. */
TEST(a_queue_that_was_written_over_is_not_attached) {
    tine_queue_t *queue = NULL, *attached = NULL;
    tine_token_t token;
    CHECK_OK(tine_queue_new(NULL, &queue));
    CHECK_OK(tine_queue_token(queue, &token));
    struct inside inside;
    memcpy(&inside, &token, sizeof token);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", (int)inside.descriptor);
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    const uint64_t wrong[] = { 0, 1, 1000, 1 << 19, UINT64_C(1) << 32, UINT64_C(1) << 33, UINT64_MAX };
    const int step = under_valgrind() ? 4 : 1; /* field 4, which says what is pollable, is among them */
    for (int field = 0; field < 64; field += step)
        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            uint64_t before;
            const off_t at = (off_t)inside.place * 8 + field * 8;
            CHECK_INT(pread(fd, &before, 8, at), 8);
            CHECK_INT(pwrite(fd, &wrong[i], 8, at), 8);
            const pid_t child = fork_child(); /* one that has the mapping, like any */
            if (child == 0) {
                const tine_status_t status = tine_queue_attach(&token, &attached);
                const int says_pollable = field == 4 && wrong[i] != 0;
                CHECK(status == TINE_ECORRUPT || (status == TINE_OK && !says_pollable));
                char buffer[100];
                if (status == TINE_OK) tine_queue_put(attached, "x", 1, 10), tine_queue_get(attached, buffer, 100, 10, NULL);
                _exit(field == 0 && status == TINE_OK ? 1 : 0);
            }
            CHECK_INT(code_of(child), 0);
            CHECK_INT(pwrite(fd, &before, 8, at), 8);
        }
    tine_queue_free(queue);
}

/* ---- users and namespaces */

TEST(another_users_objects_are_not_ours) {
    if (getuid() != 0) SKIP("needs root, to become somebody else");
    new_name();
    tine_lock_t *lock = new_lock(), *attached = NULL;
    const tine_token_t token = lock_token(lock);
    tine_queue_t *queue = named_queue(0, TINE_OK);
    const pid_t child = fork_child();
    if (child == 0) {
        CHECK_INT(setgid(65534), 0);
        CHECK_INT(setuid(65534), 0);
        CHECK_STATUS(tine_lock_attach(&token, &attached), TINE_EPERM);
        CHECK_MESSAGE("another user");
        CHECK_STATUS(tine_queue_open(name, &queue), TINE_EPERM);
        named_queue(0, TINE_EEXIST);
        named_queue(TINE_OPEN_OR_CREATE, TINE_EPERM);
        CHECK_MESSAGE("another user");
        CHECK_STATUS(tine_unlink(name), TINE_EPERM);
        snprintf(name, sizeof name, "test-%d-theirs", (int)getpid());
        CHECK(named_queue(0, TINE_OK) != NULL);
        CHECK_STATUS(tine_queue_open(name, &queue), TINE_OK);
        CHECK_INT(chmod(path_of_name(), 0666), 0);
        kill(getpid(), SIGSTOP);
        _exit(tine_unlink(name) == TINE_OK ? 0 : 1);
    }
    int status;
    CHECK_INT(waitpid(child, &status, WUNTRACED), child);
    if (WIFSTOPPED(status)) { /* root may open it, and does not */
        tine_queue_t *theirs = NULL;
        snprintf(name, sizeof name, "test-%d-theirs", (int)child);
        CHECK_STATUS(tine_queue_open(name, &theirs), TINE_EPERM);
        kill(child, SIGCONT);
        CHECK_INT(waitpid(child, &status, 0), child);
    }
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    snprintf(name, sizeof name, "test-%d", (int)getpid());
    tine_lock_free(lock), tine_queue_free(queue);
}

TEST(pid_namespaces_do_not_share_objects) {
    new_name();
    tine_lock_t *lock = new_lock(), *attached = NULL;
    const tine_token_t token = lock_token(lock);
    tine_queue_t *queue = named_queue(0, TINE_OK);
    CHECK_OK(tine_queue_put(queue, "before", 6, 0));
    int ends[2], looked[2];
    char end;
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    CHECK_INT(pipe2(looked, O_CLOEXEC), 0);
    const pid_t outer = fork_child();
    if (outer == 0) {
        if (unshare(CLONE_NEWPID) != 0) _exit(77);
        tine_queue_free(queue);
        const pid_t inner = fork_child();
        if (inner == 0) {
            tine_queue_t *opened = NULL;
            char buffer[10], go;
            /* Its /proc is the outer one's, where it has no number of its own; a container mounts its own. */
            CHECK_STATUS(tine_lock_attach(&token, &attached), TINE_ENOTSUP);
            CHECK_STATUS(tine_queue_open(name, &opened), TINE_ENOTSUP);
            CHECK_MESSAGE("pid namespace");
            named_queue(TINE_OPEN_OR_CREATE, TINE_ENOTSUP);
            CHECK_INT(write(looked[1], "x", 1), 1);
            CHECK_INT(read(ends[0], &go, 1), 1); /* nobody has it open any more */
            CHECK_OK(tine_queue_open(name, &opened));
            CHECK_OK(tine_queue_get(opened, buffer, 10, 0, NULL)); /* with what was in it */
            tine_queue_free(opened);
            _exit(0);
        }
        _exit(code_of(inner));
    }
    close(looked[1]);
    const int seen = (int)read(looked[0], &end, 1);
    tine_queue_free(queue), queue = NULL;
    CHECK_INT(write(ends[1], "x", 1), 1);
    const int code = code_of(outer);
    if (code == 77) remove_name(), SKIP("no pid namespaces here");
    CHECK_INT(code, 0);
    CHECK_INT(seen, 1);
    tine_lock_free(lock);
}

/* ---- names */

TEST(a_name_is_made_once_and_opened_often) {
    new_name();
    tine_queue_t *queue = named_queue(0, TINE_OK), *second = NULL, *third = NULL;
    CHECK(named_queue(0, TINE_EEXIST) == NULL);
    CHECK_MESSAGE("is taken");
    tine_shared_memory_options_t larger = TINE_SHARED_MEMORY_OPTIONS_INIT; /* than what there could be: it is not tried */
    tine_shared_memory_t *memory = NULL;
    larger.name = name;
    CHECK_STATUS(tine_shared_memory_new((size_t)1 << 46, &larger, &memory), TINE_EEXIST);
    CHECK_OK(tine_queue_open(name, &second));
    third = named_queue(TINE_OPEN_OR_CREATE, TINE_OK);
    CHECK_INT(test_count_mappings("tine-test"), 0); /* it was mapped before it had the name */
    CHECK_OK(tine_queue_put(queue, "x", 1, 0));
    CHECK_INT(tine_queue_size(second), 1);
    CHECK_INT(tine_queue_size(third), 1);
    tine_queue_free(queue), tine_queue_free(second), tine_queue_free(third);
    CHECK_OK(tine_queue_open(name, &queue)); /* also when nobody has it */
    CHECK_INT(tine_queue_size(queue), 1);
    CHECK_INT(test_count_mappings("tine-test"), 1);
    for (int i = 0; i < 6; i++) CHECK_OK(tine_queue_put(queue, "x", 1, 0));
    CHECK_STATUS(tine_queue_put(queue, "x", 1, 0), TINE_EFULL); /* its capacity is in it */
    CHECK_OK(tine_unlink(name));
    CHECK_STATUS(tine_unlink(name), TINE_ENOENT);
    CHECK_STATUS(tine_queue_open(name, &second), TINE_ENOENT);
    CHECK_MESSAGE(name);
    third = named_queue(0, TINE_OK); /* another one of this name, beside the old */
    CHECK_INT(tine_queue_size(third), 0);
    CHECK_INT(tine_queue_size(queue), 7);
    tine_queue_free(queue), tine_queue_free(third);
}

TEST(every_kind_has_names_in_one_space) {
    tine_lock_options_t options = TINE_LOCK_OPTIONS_INIT;
    tine_lock_t *lock = NULL, *lock2 = NULL;
    tine_semaphore_t *semaphore = NULL, *semaphore2 = NULL;
    tine_event_t *event = NULL, *event2 = NULL;
    tine_condition_t *condition = NULL, *condition2 = NULL;
    tine_barrier_t *barrier = NULL;
    tine_shared_memory_t *memory = NULL, *memory2 = NULL;
    options.name = new_name(), options.flags = TINE_LOCK_RECURSIVE;
    CHECK_OK(tine_lock_new(&options, &lock));
    CHECK_OK(tine_lock_open(name, &lock2));
    CHECK_OK(tine_lock_acquire(lock, 0));
    CHECK_OK(tine_lock_acquire(lock2, 0));
    CHECK_OK(tine_lock_release(lock));
    CHECK_OK(tine_lock_release(lock2));
    CHECK_STATUS(tine_event_open(name, &event), TINE_EINVAL);
    CHECK_MESSAGE("it is a lock, not an event");
    options.flags = TINE_OPEN_OR_CREATE;
    CHECK_STATUS(tine_event_new(&options, &event), TINE_EINVAL);
    options.flags = 0;
    CHECK_STATUS(tine_event_new(&options, &event), TINE_EEXIST);
    CHECK_OK(tine_unlink(name));
    CHECK_OK(tine_event_new(&options, &event));
    CHECK_OK(tine_event_open(name, &event2));
    CHECK_OK(tine_event_set(event2));
    CHECK(tine_event_is_set(event));
    CHECK_OK(tine_unlink(name));
    CHECK_OK(tine_semaphore_new(2, 3, &options, &semaphore));
    CHECK_OK(tine_semaphore_open(name, &semaphore2));
    CHECK_OK(tine_semaphore_acquire(semaphore2, 0));
    CHECK_INT(tine_semaphore_value(semaphore), 1);
    CHECK_STATUS(tine_semaphore_release(semaphore2, 3), TINE_EOVERFLOW);
    CHECK_OK(tine_unlink(name));
    tine_semaphore_free(semaphore), tine_semaphore_free(semaphore2);
    options.flags = TINE_SEMAPHORE_TRACKED;
    CHECK_OK(tine_semaphore_new(2, 3, &options, &semaphore));
    CHECK_OK(tine_semaphore_open(name, &semaphore2));
    CHECK_OK(tine_semaphore_acquire(semaphore2, 0));
    CHECK_INT(tine_semaphore_value(semaphore), 1);
    CHECK_OK(tine_semaphore_release(semaphore, 1));
    CHECK_STATUS(tine_semaphore_release(semaphore2, 1), TINE_ENOTOWNER);
    CHECK_OK(tine_unlink(name));
    options.flags = 0;
    CHECK_OK(tine_condition_new(&options, &condition));
    CHECK_OK(tine_condition_open(name, &condition2));
    CHECK_STATUS(tine_condition_new(&options, &condition2), TINE_EEXIST);
    CHECK_STATUS(tine_barrier_open(name, &barrier), TINE_EINVAL);
    CHECK_MESSAGE("it is a condition, not a barrier");
    CHECK_OK(tine_lock_acquire(lock, 0));
    CHECK_STATUS(tine_condition_wait(condition2, lock, 1), TINE_ETIMEDOUT);
    CHECK_OK(tine_condition_notify_all(condition));
    CHECK_OK(tine_lock_release(lock));
    tine_condition_free(condition2);
    options.flags = TINE_OPEN_OR_CREATE;
    CHECK_OK(tine_condition_new(&options, &condition2));
    CHECK_STATUS(tine_barrier_new(2, &(tine_barrier_options_t){ .size = sizeof(tine_barrier_options_t), .name = name, .flags = TINE_OPEN_OR_CREATE }, &barrier), TINE_EINVAL);
    options.flags = TINE_LOCK_RECURSIVE;
    CHECK_STATUS(tine_condition_new(&options, &condition2), TINE_EINVAL);
    options.flags = 0;
    CHECK_OK(tine_unlink(name));
    CHECK_OK(tine_shared_memory_new(12345, &options, &memory));
    CHECK_TEXT(tine_shared_memory_name(memory), name);
    CHECK_OK(tine_shared_memory_open(name, &memory2));
    CHECK(tine_shared_memory_data(memory) == tine_shared_memory_data(memory2));
    tine_shared_memory_free(memory), tine_shared_memory_free(memory2);
    CHECK_OK(tine_shared_memory_open(name, &memory));
    CHECK_INT(tine_shared_memory_length(memory), 12345);
    CHECK_TEXT(tine_shared_memory_name(memory), name);
    options.flags = TINE_OPEN_OR_CREATE;
    CHECK_OK(tine_shared_memory_new(1, &options, &memory2)); /* as it is */
    CHECK_INT(tine_shared_memory_length(memory2), 12345);
    tine_lock_free(lock), tine_lock_free(lock2), tine_semaphore_free(semaphore), tine_semaphore_free(semaphore2);
    tine_event_free(event), tine_event_free(event2), tine_shared_memory_free(memory), tine_shared_memory_free(memory2);
    tine_condition_free(condition), tine_condition_free(condition2), tine_barrier_free(barrier);
}

static void *hold_until_told(void *ends) {
    tine_lock_options_t lock_options = TINE_LOCK_OPTIONS_INIT;
    tine_semaphore_options_t semaphore_options = TINE_SEMAPHORE_OPTIONS_INIT;
    const int *to = ends;
    if (semaphore_options.name = name, semaphore_options.flags = TINE_SEMAPHORE_TRACKED, to[2]) {
        tine_semaphore_t *semaphore = NULL;
        CHECK_OK(tine_semaphore_new(2, 0, &semaphore_options, &semaphore));
        CHECK_OK(tine_semaphore_acquire(semaphore, 0));
    } else {
        tine_lock_t *lock = NULL;
        lock_options.name = name;
        CHECK_OK(tine_lock_new(&lock_options, &lock));
        CHECK_OK(tine_lock_acquire(lock, 0));
    }
    CHECK_INT(write(to[1], "x", 1), 1);
    pause();
    return NULL;
}
TEST(a_handle_of_what_another_process_holds_leaves_nothing) {
    for (int tracked = 0; tracked < 2; tracked++) {
        int ends[3];
        char byte;
        new_name();
        CHECK_INT(pipe(ends), 0);
        ends[2] = tracked;
        const pid_t owner = fork_child();
        if (owner == 0) hold_until_told(ends);
        CHECK_INT(read(ends[0], &byte, 1), 1);
        const int fds = test_count_fds();
        tine_lock_t *lock = NULL;
        tine_semaphore_t *semaphore = NULL;
        if (tracked) CHECK_OK(tine_semaphore_open(name, &semaphore));
        else CHECK_OK(tine_lock_open(name, &lock));
        tine_lock_free(lock), tine_semaphore_free(semaphore);
        CHECK_INT(test_count_fds(), fds);
        CHECK_INT(test_count_mappings("tine-test"), 0);
        close(ends[0]), close(ends[1]), kill(owner, SIGKILL);
        CHECK_INT(code_of(owner), -SIGKILL);
    }
}

TEST(names_are_of_the_grammar) {
    char longest[201 + 1];
    tine_lock_t *lock = NULL;
    tine_lock_options_t options = TINE_LOCK_OPTIONS_INIT;
    const char *wrong[] = { "", "a/b", "/a", "..//", "a b", "caf\xc3\xa9", "a~", "a\n", longest };
    memset(longest, 'x', 201), longest[201] = '\0';
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        options.name = wrong[i];
        CHECK_STATUS(tine_lock_new(&options, &lock), TINE_EINVAL);
        CHECK_STATUS(tine_lock_open(wrong[i], &lock), TINE_EINVAL);
        CHECK_STATUS(tine_unlink(wrong[i]), TINE_EINVAL);
        CHECK_MESSAGE("name");
    }
    CHECK_STATUS(tine_lock_open(NULL, &lock), TINE_EINVAL);
    CHECK_STATUS(tine_unlink(NULL), TINE_EINVAL);
    memcpy(longest, "A-Za-z0-9._-", 12), longest[200] = '\0';
    options.name = longest;
    CHECK_OK(tine_lock_new(&options, &lock));
    CHECK_OK(tine_unlink(longest));
    tine_lock_free(lock);
}

TEST(nothing_is_left_of_a_name) {
    tine_queue_free((new_name(), named_queue(0, TINE_OK)));
    CHECK_OK(tine_unlink(name));
    const int fds = test_count_fds(), mappings = test_count_mappings("/dev/shm");
    for (int i = 0; i < 50; i++) {
        tine_queue_t *first = named_queue(0, TINE_OK), *second = NULL;
        tine_token_t token;
        named_queue(0, TINE_EEXIST);
        CHECK_OK(tine_queue_open(name, &second));
        CHECK_OK(tine_queue_token(second, &token));
        CHECK_OK(tine_unlink(name));
        tine_queue_free(first), tine_queue_free(second);
        CHECK_STATUS(tine_queue_attach(&token, &first), TINE_ENOENT);
    }
    CHECK_INT(test_count_fds(), fds);
    CHECK_INT(test_count_mappings("/dev/shm"), mappings);
}

TEST(of_many_that_open_or_create_one_creates) {
    enum { CHILDREN = 8, ROUNDS = 30 };
    new_name();
    for (int round = 0; round < ROUNDS; round++) {
        pid_t children[CHILDREN];
        int go[2];
        char end;
        CHECK_INT(pipe2(go, O_CLOEXEC), 0);
        for (int i = 0; i < CHILDREN; i++)
            if ((children[i] = fork_child()) == 0) {
                tine_semaphore_options_t options = TINE_SEMAPHORE_OPTIONS_INIT;
                tine_semaphore_t *semaphore = NULL;
                options.name = name, options.flags = TINE_OPEN_OR_CREATE;
                close(go[1]);
                if (read(go[0], &end, 1) != 0) _exit(1);
                CHECK_OK(tine_semaphore_new(0, 0, &options, &semaphore));
                CHECK_OK(tine_semaphore_release(semaphore, 1));
                _exit(0);
            }
        close(go[0]), close(go[1]);
        for (int i = 0; i < CHILDREN; i++) CHECK_INT(code_of(children[i]), 0);
        tine_semaphore_t *semaphore = NULL;
        CHECK_OK(tine_semaphore_open(name, &semaphore));
        CHECK_INT(tine_semaphore_value(semaphore), CHILDREN);
        CHECK_OK(tine_unlink(name));
        tine_semaphore_free(semaphore);
    }
}

TEST(a_queue_that_grows_has_a_name_and_tokens) {
    enum { COUNT = 20000 };
    char message[200] = { 0 };
    int go[2], byte = 0;
    size_t len;
    new_name();
    CHECK_INT(pipe2(go, O_CLOEXEC), 0);
    const pid_t child = fork();
    if (child == 0) {
        tine_token_t token;
        tine_queue_t *opened = NULL, *attached = NULL;
        CHECK_INT(read(go[0], &token, sizeof token), sizeof token);
        CHECK_OK(tine_queue_open(name, &opened));
        CHECK_OK(tine_queue_attach(&token, &attached));
        for (int i = 0; i < COUNT; i++) {
            memcpy(message, &i, sizeof i);
            CHECK_OK(tine_queue_put(i % 2 == 0 ? opened : attached, message, sizeof i + (size_t)i % 190, TINE_FOREVER));
        }
        _exit(0);
    }
    tine_queue_options_t options = TINE_QUEUE_OPTIONS_INIT;
    tine_queue_t *queue = NULL;
    tine_token_t token;
    struct stat facts;
    options.name = name, options.flags = TINE_QUEUE_GROW, options.capacity_bytes = 4096, options.max_bytes = 64 << 20;
    CHECK_OK(tine_queue_new(&options, &queue));
    CHECK_INT(stat(path_of_name(), &facts), 0);
    CHECK(facts.st_size >= 64 << 20 && facts.st_blocks * 512 <= 4096 + 4096);
    CHECK_OK(tine_queue_token(queue, &token));
    CHECK_INT(write(go[1], &token, sizeof token), sizeof token);
    CHECK_INT(code_of(child), 0); /* all of it fits */
    CHECK_INT(stat(path_of_name(), &facts), 0);
    CHECK(facts.st_blocks * 512 >= COUNT * 90);
    for (int i = 0; i < COUNT; i++) {
        CHECK_OK(tine_queue_get(queue, message, sizeof message, 0, &len));
        memcpy(&byte, message, sizeof byte);
        CHECK(byte == i && len == sizeof i + (size_t)i % 190);
    }
    CHECK_STATUS(tine_queue_get(queue, message, sizeof message, 0, &len), TINE_EEMPTY);
    CHECK_INT(stat(path_of_name(), &facts), 0);
    CHECK(facts.st_blocks * 512 <= 4 * 4096); /* and is given back, the head is not */
    tine_queue_free(queue);
    CHECK_OK(tine_queue_open(name, &queue));
    CHECK_OK(tine_queue_put(queue, "x", 1, 0));
    tine_queue_free(queue);
    CHECK_OK(tine_unlink(name));
}

TEST(a_queue_with_a_descriptor_has_tokens_and_no_name) {
    tine_queue_options_t options = TINE_QUEUE_OPTIONS_INIT;
    tine_queue_t *queue = NULL, *many[300] = { NULL };
    tine_token_t token, plain;
    new_name();
    options.flags = TINE_QUEUE_POLLABLE, options.name = name;
    CHECK_STATUS(tine_queue_new(&options, &queue), TINE_ENOTSUP);
    CHECK_MESSAGE("pollable");
    options.flags |= TINE_OPEN_OR_CREATE;
    CHECK_STATUS(tine_queue_new(&options, &queue), TINE_ENOTSUP);
    CHECK_STATUS(tine_queue_open(name, &queue), TINE_ENOENT);
    options.flags = TINE_QUEUE_POLLABLE | TINE_QUEUE_GROW, options.name = NULL;
    CHECK_OK(tine_queue_new(&options, &queue));
    CHECK_OK(tine_queue_token(queue, &token));
    struct inside inside, other;
    memcpy(&inside, &token, sizeof token);
    CHECK_INT(inside.place, tine_queue_fd(queue));
    /* Another pipe, a descriptor that is no pipe, none: nothing there is ever written to. */
    int ends[2];
    CHECK_INT(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    const uint32_t wrong[] = { (uint32_t)ends[0], (uint32_t)ends[1], (uint32_t)inside.descriptor, 0, 1 << 20, INT32_MAX, UINT32_MAX };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        inside.place = wrong[i];
        memcpy(&plain, &inside, sizeof plain);
        CHECK_STATUS(tine_queue_attach(&plain, &many[0]), wrong[i] == UINT32_MAX ? TINE_EINVAL : TINE_ENOENT);
    }
    char byte;
    CHECK(read(ends[0], &byte, 1) < 0 && errno == EAGAIN);
    /* A token that says nothing of the pipe, and one that does where there is none. */
    memcpy(&inside, &token, sizeof token);
    inside.kind &= 0x7f, inside.place = 32;
    memcpy(&plain, &inside, sizeof plain);
    CHECK_STATUS(tine_queue_attach(&plain, &many[0]), TINE_ECORRUPT);
    options.flags = 0;
    CHECK_OK(tine_queue_new(&options, &many[0]));
    CHECK_OK(tine_queue_token(many[0], &plain));
    memcpy(&other, &plain, sizeof plain);
    other.kind |= 0x80, other.place = (uint32_t)ends[0];
    memcpy(&plain, &other, sizeof plain);
    CHECK_STATUS(tine_queue_attach(&plain, &many[1]), TINE_ECORRUPT);
    tine_queue_free(many[0]), many[0] = NULL;
    const int fds = test_count_fds();
    int count = 1;
    tine_status_t status = TINE_OK;
    while (status == TINE_OK && count < 300) count += (status = tine_queue_attach(&token, &many[count])) == TINE_OK;
    CHECK_STATUS(status, TINE_EMFILE);
    CHECK_INT(count, 256);
    for (int i = 0; i < 300; i++) tine_queue_free(many[i]);
    CHECK_INT(test_count_fds(), fds);
    tine_queue_free(queue);
    CHECK_STATUS(tine_queue_attach(&token, &queue), TINE_ENOENT);
}

/* The numbers of seats are counts of what lies behind the object: they must never lead out of the memory. */
static void write_word(const tine_token_t *token, int word, uint32_t value) {
    struct inside inside;
    memcpy(&inside, token, sizeof inside);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", (int)inside.descriptor);
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK_INT(pwrite(fd, &value, 4, (off_t)inside.place * 8 + word * 4), 4);
    close(fd);
}
TEST(the_numbers_of_seats_are_checked) {
    enum { THIRD_SMALL_WORD = 3 };
    const uint32_t wrong[] = { 16385, 16386, 1 << 20, 1 << 26, (1 << 26) + 1, INT32_MAX, UINT32_C(1) << 31, UINT32_MAX };
    tine_semaphore_options_t options = TINE_SEMAPHORE_OPTIONS_INIT;
    tine_semaphore_t *tracked = NULL, *same = NULL;
    tine_barrier_t *barrier = NULL, *second = NULL;
    tine_token_t of_tracked, of_barrier;
    options.flags = TINE_SEMAPHORE_TRACKED;
    CHECK_OK(tine_semaphore_new(300, 0, &options, &tracked)); /* files of their own */
    CHECK_OK(tine_barrier_new(300, NULL, &barrier));
    CHECK_OK(tine_semaphore_token(tracked, &of_tracked));
    CHECK_OK(tine_barrier_token(barrier, &of_barrier));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        write_word(&of_tracked, THIRD_SMALL_WORD, wrong[i]);
        write_word(&of_barrier, THIRD_SMALL_WORD, wrong[i]);
        CHECK_STATUS(tine_semaphore_attach(&of_tracked, &same), TINE_ECORRUPT);
        CHECK_STATUS(tine_barrier_attach(&of_barrier, &second), TINE_ECORRUPT);
        CHECK_INT(tine_semaphore_value(tracked), 300); /* who has it already does not look there */
        CHECK_INT(tine_barrier_parties(barrier), 300);
    }
    write_word(&of_barrier, THIRD_SMALL_WORD, 0);
    CHECK_STATUS(tine_barrier_attach(&of_barrier, &second), TINE_ECORRUPT);
    write_word(&of_barrier, THIRD_SMALL_WORD, 301);
    CHECK_STATUS(tine_barrier_attach(&of_barrier, &second), TINE_ECORRUPT);
    write_word(&of_barrier, THIRD_SMALL_WORD, 300);
    CHECK_OK(tine_barrier_attach(&of_barrier, &second));
    write_word(&of_tracked, THIRD_SMALL_WORD, 302);
    CHECK_STATUS(tine_semaphore_attach(&of_tracked, &same), TINE_ECORRUPT);
    write_word(&of_tracked, THIRD_SMALL_WORD, 301);
    CHECK_OK(tine_semaphore_attach(&of_tracked, &same));
    tine_semaphore_free(tracked), tine_semaphore_free(same), tine_barrier_free(barrier), tine_barrier_free(second);
}

TEST(what_else_lies_under_a_name_is_an_error) {
    new_name();
    tine_queue_t *queue = named_queue(0, TINE_OK);
    struct head head;
    int fd = open(path_of_name(), O_RDWR);
    CHECK_INT(pread(fd, &head, sizeof head, 0), sizeof head);
    struct stat facts;
    CHECK_INT(fstat(fd, &facts), 0);
    CHECK_INT(facts.st_mode & 07777, 0600);
    /* A part of its file, with every field of the head wrong in turn. */
    tine_queue_free(queue), queue = NULL;
    for (size_t at = 0; at < 48; at += 4) {
        const uint32_t before = ((uint32_t *)(void *)&head)[at / 4], wrong = before ^ 0x10001;
        CHECK_INT(pwrite(fd, &wrong, 4, (off_t)at), 4);
        const tine_status_t status = tine_queue_open(name, &queue);
        if (at < 40 && at != 16 && at != 20) CHECK(status == TINE_ECORRUPT || status == TINE_ENOTSUP || status == TINE_EINVAL);
        if (status == TINE_OK) tine_queue_free(queue), queue = NULL; /* 16: nobody has it, so it moves to this pid namespace */
        else CHECK_MESSAGE(name);
        CHECK_INT(pwrite(fd, &before, 4, (off_t)at), 4);
    }
    CHECK_OK(tine_queue_open(name, &queue));
    tine_queue_free(queue), queue = NULL;
    for (off_t length = 4096; length >= 0; length -= 256) {
        CHECK_INT(ftruncate(fd, length), 0);
        CHECK_STATUS(tine_queue_open(name, &queue), TINE_ECORRUPT);
    }
    named_queue(0, TINE_EEXIST);
    named_queue(TINE_OPEN_OR_CREATE, TINE_ECORRUPT);
    CHECK_OK(tine_unlink(name));
    CHECK_INT(symlink("/etc/passwd", path_of_name()), 0);
    CHECK(tine_queue_open(name, &queue) < 0);
    CHECK_OK(tine_unlink(name));
    CHECK_INT(mkfifo(path_of_name(), 0600), 0);
    CHECK_STATUS(tine_queue_open(name, &queue), TINE_ECORRUPT);
    CHECK_OK(tine_unlink(name));
    CHECK_INT(mkdir(path_of_name(), 0700), 0);
    CHECK(tine_queue_open(name, &queue) < 0);
    CHECK(tine_unlink(name) < 0);
    CHECK_INT(rmdir(path_of_name()), 0);
    CHECK(queue == NULL);
    close(fd);
}

static int32_t put_large(const void *arg, size_t len, tine_task_t *task) {
    tine_queue_t *queue = *(tine_queue_t *const *)arg;
    char *large = calloc(1, 200000);
    (void)len, (void)task;
    const tine_status_t status = tine_queue_put(queue, large, 200000, 1000); /* by its descriptor */
    return free(large), status;
}
TEST(workers_keep_what_has_a_name) {
    new_name();
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_queue_t *made = named_queue(0, TINE_OK), *opened = NULL;
    tine_pool_t *pool = NULL;
    snprintf(name, sizeof name, "test-%d-2", (int)getpid());
    tine_queue_free(named_queue(0, TINE_OK));
    CHECK_OK(tine_queue_open(name, &opened));
    options.workers = 1;
    CHECK_OK(tine_pool_new(&options, &pool));
    for (int i = 0; i < 2; i++) {
        tine_result_t *result = NULL;
        CHECK_OK(tine_pool_apply(pool, put_large, i ? &opened : &made, sizeof made, TINE_FOREVER, &result));
        CHECK_STATUS(tine_result_status(result), TINE_OK);
        tine_result_free(result);
        CHECK_INT(tine_queue_size(i ? opened : made), 1);
    }
    tine_pool_free(pool);
    CHECK_OK(tine_unlink(name));
    snprintf(name, sizeof name, "test-%d", (int)getpid());
    tine_queue_free(made), tine_queue_free(opened);
}

/* ---- killed on the way */

/* Lets a child run to its `stop`th system call in `body`, entry and return counted, and kills it there. 0: it came to its end. */
static int killed_at(int stop, void (*body)(void)) {
    const pid_t child = fork_child();
    int status;
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(77);
        raise(SIGSTOP);
        body();
        _exit(0);
    }
    CHECK_INT(waitpid(child, &status, 0), child);
    if (WIFEXITED(status)) SKIP("no ptrace here");
    for (int i = 0; i <= stop; i++) {
        CHECK_INT(ptrace(PTRACE_SYSCALL, child, NULL, NULL), 0);
        CHECK_INT(waitpid(child, &status, 0), child);
        if (WIFEXITED(status)) return CHECK_INT(WEXITSTATUS(status), 0), 0;
        CHECK(WIFSTOPPED(status));
    }
    kill(child, SIGKILL);
    CHECK_INT(waitpid(child, &status, 0), child);
    return 1;
}
/* Files in /dev/shm with our name in theirs. */
static int count_files(void) {
    DIR *folder = opendir("/dev/shm");
    int count = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) count += strstr(entry->d_name, name) != NULL;
    return closedir(folder), count;
}
static void open_or_create(void) {
    tine_queue_t *queue = named_queue(TINE_OPEN_OR_CREATE, TINE_OK);
    CHECK_OK(tine_queue_put(queue, "x", 1, 0));
    tine_queue_free(queue);
}
static void unlink_it(void) {
    const tine_status_t status = tine_unlink(name);
    CHECK(status == TINE_OK || status == TINE_ENOENT);
}
static void kill_everywhere(int drafts) {
    int kills = 0;
    new_name();
    for (int made = 0; made < 2; made++) /* it creates; it opens */
        for (int stop = 0, more = 1; more; stop++, kills++) {
            unlink_it();
            if (made) open_or_create();
            more = killed_at(stop, open_or_create);
            if (!drafts) CHECK(count_files() <= 1); /* the name, or nothing */
            open_or_create();                       /* nobody is in the way */
            tine_queue_t *queue = NULL;
            CHECK_OK(tine_queue_open(name, &queue));
            CHECK(tine_queue_size(queue) >= 1 + (size_t)made);
            CHECK_OK(tine_queue_close(queue));
            tine_queue_free(queue);
            CHECK_INT(count_files(), 1);
        }
    for (int stop = 0, more = 1; more; stop++, kills++) {
        unlink_it();
        open_or_create();
        more = killed_at(stop, unlink_it);
        CHECK(count_files() <= 1);
        open_or_create();
        CHECK_INT(count_files(), 1);
    }
    unlink_it();
    CHECK_INT(count_files(), 0);
    printf("# %d kills\n", kills);
    CHECK(kills > 60);
}
TEST_WITHIN(killed_at_any_system_call_nobody_is_stuck, 120) {
    if (under_valgrind()) SKIP("valgrind makes system calls of its own");
    kill_everywhere(0);
}

/* As it is where /dev/shm has no files without a name. */
static void refuse_unnamed_files(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_TMPFILE & ~O_DIRECTORY, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof code / sizeof code[0], code };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        SKIP("no seccomp filters here");
}
TEST_WITHIN(also_without_files_that_have_no_name, 120) {
    if (under_valgrind()) SKIP("valgrind makes system calls of its own");
    refuse_unnamed_files();
    CHECK_INT(open("/dev/shm", O_TMPFILE | O_RDWR, 0600), -1);
    kill_everywhere(1);
}
