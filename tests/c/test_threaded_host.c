/* A host with threads forks while they are inside every kind of call, and the child uses the library: nothing of it is locked or half
 * done there. */
#include "process_tools.h"

static int stop; /* of the threads */
static int inside(void) { return !__atomic_load_n(&stop, __ATOMIC_RELAXED); }

static int32_t give_back(void *value) { return (int32_t)(intptr_t)value; }
static int32_t reply_length(const void *arg, size_t length, tine_task_t *task) {
    (void)arg;
    return tine_task_reply(task, &length, sizeof length);
}

/* A fork waits a second for the library's own threads; where a processor has much to do that may not be enough. */
#define UNTIL_NOT_BUSY(status, call) do status = (call); while (status == TINE_EBUSY)

/* ---- Each kind of call, once ---- */
static void use_queue(void) {
    tine_queue_t *queue = NULL;
    char text[8];
    size_t length = 0;
    CHECK_OK(tine_queue_new(NULL, &queue));
    CHECK_OK(tine_queue_put(queue, "text", 5, TINE_FOREVER));
    CHECK_OK(tine_queue_get(queue, text, sizeof text, TINE_FOREVER, &length));
    CHECK_TEXT(text, "text");
    CHECK_STATUS(tine_queue_get(queue, text, sizeof text, 0, &length), TINE_EEMPTY);
    tine_queue_free(queue);
}
static void use_locks(void) {
    tine_lock_t *lock = NULL;
    tine_semaphore_t *semaphore = NULL;
    tine_event_t *event = NULL;
    tine_condition_t *condition = NULL;
    tine_barrier_t *barrier = NULL;
    CHECK_OK(tine_lock_new(NULL, &lock));
    CHECK_OK(tine_semaphore_new(1, 1, NULL, &semaphore));
    CHECK_OK(tine_event_new(NULL, &event));
    CHECK_OK(tine_condition_new(NULL, &condition));
    CHECK_OK(tine_barrier_new(1, NULL, &barrier));
    CHECK_OK(tine_lock_acquire(lock, TINE_FOREVER));
    CHECK_STATUS(tine_condition_wait(condition, lock, 0), TINE_ETIMEDOUT);
    CHECK_OK(tine_lock_release(lock));
    CHECK_OK(tine_semaphore_acquire(semaphore, TINE_FOREVER));
    CHECK_STATUS(tine_semaphore_acquire(semaphore, 1), TINE_ETIMEDOUT);
    CHECK_OK(tine_semaphore_release(semaphore, 1));
    CHECK_OK(tine_event_set(event));
    CHECK_OK(tine_event_wait(event, TINE_FOREVER));
    CHECK_OK(tine_barrier_wait(barrier, TINE_FOREVER, NULL));
    tine_barrier_free(barrier), tine_condition_free(condition), tine_event_free(event), tine_semaphore_free(semaphore), tine_lock_free(lock);
}
static void use_memory(void) {
    tine_shared_memory_t *memory = NULL, *again = NULL;
    tine_connection_t *a = NULL, *b = NULL;
    tine_token_t token;
    char text[8];
    CHECK_OK(tine_shared_memory_new(100, NULL, &memory));
    CHECK_OK(tine_shared_memory_token(memory, &token));
    CHECK_OK(tine_shared_memory_attach(&token, &again));
    tine_shared_memory_free(again), tine_shared_memory_free(memory);
    CHECK_OK(tine_pipe_new(0, &a, &b));
    CHECK_OK(tine_connection_send(a, "text", 5, TINE_FOREVER));
    CHECK_OK(tine_connection_recv(b, text, sizeof text, TINE_FOREVER, NULL));
    CHECK_TEXT(text, "text");
    tine_connection_free(a), tine_connection_free(b);
}
static void use_function(void) {
    tine_process_t *process = NULL;
    int32_t code = 1000;
    tine_status_t status;
    UNTIL_NOT_BUSY(status, tine_process_start(give_back, (void *)3, NULL, &process));
    CHECK_STATUS(status, TINE_OK);
    CHECK_OK(tine_process_join(process, TINE_FOREVER));
    CHECK_OK(tine_process_exit_code(process, &code));
    CHECK_INT(code, 3);
    tine_process_free(process);
}
static void use_command(void) {
    const char *argv[] = { "cat", NULL };
    tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
    void *data = NULL;
    int32_t code = 1000;
    for (int i = 0; i < 2; i++) {
        options.flags = i ? TINE_SPAWN_KILL_ON_PARENT_DEATH : 0;
        CHECK_OK(tine_process_check_output(argv, &options, "text", 4, TINE_FOREVER, &data, NULL, &code));
        CHECK_TEXT(data, "text");
        CHECK_INT(code, 0);
        tine_free(data);
    }
}
static void use_tree(void) {
    const char *argv[] = { "true", NULL };
    tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
    int32_t code = 1000;
    tine_status_t status;
    options.flags = TINE_SPAWN_KILL_TREE;
    UNTIL_NOT_BUSY(status, tine_process_call(argv, &options, TINE_FOREVER, &code));
    CHECK_STATUS(status, TINE_OK);
    CHECK_INT(code, 0);
}
static void apply(tine_pool_t *pool) {
    tine_result_t *result = NULL;
    CHECK_OK(tine_pool_apply(pool, reply_length, "text", 4, TINE_FOREVER, &result));
    CHECK_OK(tine_result_status(result));
    tine_result_free(result);
}
static void use_pool(void) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_pool_t *pool = NULL;
    options.workers = 1;
    CHECK_OK(tine_pool_new(&options, &pool));
    apply(pool);
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    tine_pool_free(pool);
}
static void hear_log(int32_t level, const char *message, void *count) {
    (void)level;
    if (strstr(message, "threads") != NULL) __atomic_add_fetch((int *)count, 1, __ATOMIC_RELAXED);
}
static void use_failures(void) {
    static int unheard;
    CHECK_STATUS(tine_queue_put(NULL, NULL, 0, 0), TINE_EINVAL);
    CHECK_MESSAGE("queue");
    tine_set_log(hear_log, &unheard);
    tine_set_log(NULL, NULL);
}

/* ---- The same by threads, all the time ---- */
static tine_pool_t *pool_of_host;
static void use_pool_of_host(void) { apply(pool_of_host); }
static void *repeat(void *use) {
    void (*body)(void);
    memcpy(&body, use, sizeof body);
    while (inside()) body(), poll(NULL, 0, 1);
    return NULL;
}

TEST_WITHIN(a_child_of_a_host_with_threads_can_use_everything, 60) {
    static void (*const uses[])(void) = { use_queue, use_locks, use_memory, use_function, use_command, use_tree, use_failures, use_pool_of_host };
    enum { COUNT = sizeof uses / sizeof uses[0] };
    const char *argv[] = { "sleep", "100", NULL };
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    pthread_t threads[COUNT];
    tine_process_t *inherited = NULL;
    if (under_asan()) SKIP("its allocator is not sound in a child of a program with threads");
    options.workers = 1;
    CHECK_OK(tine_pool_new(&options, &pool_of_host));
    CHECK_OK(tine_process_spawn(argv, NULL, &inherited));
    for (int i = 0; i < COUNT; i++) CHECK_INT(pthread_create(&threads[i], NULL, repeat, (void *)(uintptr_t)&uses[i]), 0);
    for (int round = 0; round < (under_valgrind() ? 2 : 12); round++) {
        pid_t pid;
        UNTIL_NOT_BUSY(pid, round % 2 ? (pid_t)tine_fork() : fork());
        CHECK(pid >= 0);
        if (pid == 0) {
            for (int i = 0; i < COUNT - 1; i++) uses[i]();
            use_pool();
            CHECK_STATUS(tine_process_join(inherited, 0), TINE_EFORKED);
            tine_process_free(inherited), tine_pool_free(pool_of_host);
            _exit(0);
        }
        CHECK_INT(status_of(pid), 0);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < COUNT; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    CHECK(tine_process_is_alive(inherited));
    CHECK_OK(tine_process_kill(inherited));
    CHECK_OK(tine_process_join(inherited, TINE_FOREVER));
    tine_process_free(inherited);
    CHECK_OK(tine_pool_close(pool_of_host));
    CHECK_OK(tine_pool_join(pool_of_host, TINE_FOREVER));
    tine_pool_free(pool_of_host);
}

static void *wait_to_end(void *fd) { return hear((int)(intptr_t)fd), NULL; }
TEST(the_log_tells_of_threads) {
    int count = 0, ends[2];
    pthread_t thread;
    make_pipe(ends);
    tine_set_log(hear_log, &count);
    use_function();
    CHECK_INT(count, 0); /* there were none */
    CHECK_INT(pthread_create(&thread, NULL, wait_to_end, (void *)(intptr_t)ends[0]), 0);
    use_function();
    CHECK_INT(count, 1);
    const pid_t pid = (pid_t)tine_fork();
    if (pid == 0) _exit(0);
    CHECK_INT(status_of(pid), 0);
    CHECK_INT(count, 2);
    use_command(); /* a command is no copy */
    CHECK_INT(count, 2);
    use_tree(); /* but its supervisor is */
    CHECK_INT(count, 3);
    tell(ends[1], 'e');
    CHECK_INT(pthread_join(thread, NULL), 0);
    while (atoi(field_of(getpid(), "Threads:")) > 2) sched_yield(); /* who was joined may not be gone yet */
    use_function(); /* the library's own thread does not count */
    CHECK_INT(count, 3);
    tine_set_log(NULL, NULL);
}

/* ---- A lock of the host's that its handler of a fork takes ---- */
static pthread_mutex_t host_lock = PTHREAD_MUTEX_INITIALIZER;
static int locked[2], forking[2];
static void lock_for_fork(void) {
    tell(forking[1], 'f');
    pthread_mutex_lock(&host_lock);
}
static void unlock_after_fork(void) { pthread_mutex_unlock(&host_lock); }
static void *close_under_the_lock(void *process) {
    pthread_mutex_lock(&host_lock);
    tell(locked[1], 'l');
    CHECK_INT(hear(forking[0]), 'f');
    CHECK_OK(tine_process_close_stdin(process)); /* which no fork sees halfway */
    pthread_mutex_unlock(&host_lock);
    return NULL;
}
TEST(a_fork_may_wait_for_a_lock_of_a_thread_that_closes_a_pipe) {
    const char *argv[] = { "cat", NULL };
    tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
    tine_process_t *command = NULL, *process = NULL;
    pthread_t thread;
    make_pipe(locked), make_pipe(forking);
    options.stdin_mode = TINE_STDIO_PIPE;
    CHECK_OK(tine_process_spawn(argv, &options, &command));
    CHECK_INT(pthread_atfork(lock_for_fork, unlock_after_fork, unlock_after_fork), 0);
    CHECK_INT(pthread_create(&thread, NULL, close_under_the_lock, command), 0);
    CHECK_INT(hear(locked[0]), 'l');
    CHECK_OK(tine_process_start(give_back, (void *)3, NULL, &process));
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK_OK(tine_process_join(process, TINE_FOREVER));
    CHECK_OK(tine_process_join(command, TINE_FOREVER));
    tine_process_free(process), tine_process_free(command);
}
