/* What a program does around the library: closed standard streams, signal handlers. */
#include <fcntl.h>

#include <sys/resource.h>
#include <sys/time.h>
#include "process_tools.h"

static int32_t echo(const void *arg, size_t arg_len, tine_task_t *task) { return tine_task_reply(task, arg, arg_len) < 0; }
static int32_t seven(void *user_data) { return (void)user_data, 7; }
static void close_stdio(void) {
    const int report = fcntl(1, F_DUPFD, 100);
    CHECK(report >= 0 && fclose(stdin) == 0 && close(1) == 0 && close(2) == 0);
    stdout = fdopen(report, "w"); /* for what fails */
    CHECK(stdout != NULL);
}

/* What a program without standard streams prints all the same must not be written into the memory that processes share. */
TEST(no_descriptor_of_the_library_is_a_standard_stream) {
    tine_pool_t *pool = NULL;
    tine_process_t *process = NULL;
    tine_semaphore_t *semaphore = NULL;
    tine_queue_t *queue = NULL;
    tine_connection_t *a = NULL, *b = NULL;
    char text[4] = "";
    close_stdio();
    CHECK_OK(tine_semaphore_new(2, 5, NULL, &semaphore));
    CHECK_OK(tine_queue_new(NULL, &queue));
    CHECK_OK(tine_pipe_new(0, &a, &b));
    CHECK_OK(tine_process_start(seven, NULL, NULL, &process));
    CHECK_OK(tine_pool_new(NULL, &pool));
    for (int fd = 0; fd <= 2; fd++) {
        for (int i = 0; i < 50; i++) CHECK_INT(write(fd, "what nobody was to read", 23), -1);
        CHECK_INT(errno, EBADF);
    }
    CHECK_OK(tine_semaphore_release(semaphore, 3));
    CHECK_INT(tine_semaphore_value(semaphore), 5);
    CHECK_OK(tine_queue_put(queue, "abc", 4, 0));
    CHECK_OK(tine_queue_get(queue, text, sizeof text, 0, NULL));
    CHECK_TEXT(text, "abc");
    CHECK_OK(tine_connection_send(a, "def", 4, TINE_FOREVER));
    CHECK_OK(tine_connection_recv(b, text, sizeof text, TINE_FOREVER, NULL));
    CHECK_TEXT(text, "def");
    CHECK_OK(tine_process_join(process, TINE_FOREVER));
    CHECK_OK(tine_pool_apply(pool, echo, "ghi", 4, TINE_FOREVER, NULL));
    tine_pool_free(pool), tine_process_free(process), tine_semaphore_free(semaphore), tine_queue_free(queue);
    tine_connection_free(a), tine_connection_free(b);
}

static volatile sig_atomic_t signals;
static int asked;
static void note(int signal_number) { (void)signal_number, signals = signals + 1; }
static int32_t enough(void *user_data) { return (void)user_data, ++asked >= 2; }
static int32_t sleeper(void *user_data) {
    while (pause() != 0) {}
    return user_data == NULL;
}
static int32_t sleeping_task(const void *arg, size_t arg_len, tine_task_t *task) {
    while (pause() != 0) {}
    return arg == NULL && arg_len == 0 && task == NULL;
}
static void interrupted(tine_status_t status, const char *call) {
    test_check_status(__FILE__, __LINE__, call, status, TINE_EINTR);
    CHECK_INT(asked, 2);
    asked = 0;
}
#define INTERRUPTED(call) (*test_line = __LINE__, interrupted(call, #call))

/* signal(3) sets SA_RESTART: the kernel goes on with some waits by itself, and they must not be those of a thread with a check. */
TEST(the_interrupt_check_is_asked_whatever_kind_of_handler_there_is) {
    const struct itimerval often = { { 0, 20000 }, { 0, 20000 } }, never = { { 0, 0 }, { 0, 0 } };
    tine_pool_t *pool = NULL;
    tine_async_t *async = NULL;
    tine_process_t *process = NULL;
    tine_semaphore_t *semaphore = NULL;
    tine_event_t *event = NULL;
    tine_queue_t *queue = NULL;
    tine_connection_t *a = NULL, *b = NULL;
    char byte;
    CHECK_OK(tine_pool_new(NULL, &pool));
    CHECK_OK(tine_process_start(sleeper, NULL, NULL, &process));
    CHECK_OK(tine_semaphore_new(0, 0, NULL, &semaphore));
    CHECK_OK(tine_event_new(NULL, &event));
    CHECK_OK(tine_queue_new(NULL, &queue));
    CHECK_OK(tine_pipe_new(0, &a, &b));
    CHECK_OK(tine_pool_submit(pool, sleeping_task, NULL, 0, NULL, &async));
    CHECK(signal(SIGALRM, note) != SIG_ERR);
    CHECK_INT(setitimer(ITIMER_REAL, &often, NULL), 0);
    tine_set_interrupt_check(enough, NULL);
    INTERRUPTED(tine_semaphore_acquire(semaphore, TINE_FOREVER));
    INTERRUPTED(tine_semaphore_acquire(semaphore, INT64_MAX));
    INTERRUPTED(tine_semaphore_acquire(semaphore, 1000000));
    INTERRUPTED(tine_event_wait(event, TINE_FOREVER));
    INTERRUPTED(tine_queue_get(queue, &byte, 1, TINE_FOREVER, NULL));
    INTERRUPTED(tine_connection_recv(a, &byte, 1, TINE_FOREVER, NULL));
    INTERRUPTED(tine_connection_poll(a, TINE_FOREVER));
    INTERRUPTED(tine_process_join(process, TINE_FOREVER));
    INTERRUPTED(tine_process_wait_any(&process, 1, TINE_FOREVER, NULL));
    INTERRUPTED(tine_async_wait(async, TINE_FOREVER));
    INTERRUPTED(tine_pool_apply(pool, sleeping_task, NULL, 0, TINE_FOREVER, NULL));
    CHECK_INT(setitimer(ITIMER_REAL, &never, NULL), 0);
    tine_set_interrupt_check(NULL, NULL);
    CHECK(signals >= 20);
    CHECK_OK(tine_process_stop(process, 0));
    tine_pool_free(pool), tine_async_free(async), tine_process_free(process), tine_semaphore_free(semaphore);
    tine_event_free(event), tine_queue_free(queue), tine_connection_free(a), tine_connection_free(b);
}

static rlim_t limit(int resource, rlim_t most) { /* answers what it was */
    struct rlimit limits;
    CHECK_INT(getrlimit(resource, &limits), 0);
    const rlim_t before = limits.rlim_cur;
    limits.rlim_cur = most;
    CHECK_INT(setrlimit(resource, &limits), 0);
    return before;
}
#define REFUSED(call, status, object) (CHECK_STATUS(call, status), CHECK_MESSAGE(object))
/* Whatever is made. */
static void make_all(tine_status_t status) {
    tine_pool_t *pool = NULL;
    tine_process_t *process = NULL;
    tine_lock_t *lock = NULL;
    tine_semaphore_t *semaphore = NULL;
    tine_event_t *event = NULL;
    tine_queue_t *queue = NULL;
    tine_connection_t *a = NULL, *b = NULL;
    REFUSED(tine_queue_new(NULL, &queue), status, "queue: ");
    REFUSED(tine_lock_new(NULL, &lock), status, "lock: ");
    REFUSED(tine_semaphore_new(0, 0, NULL, &semaphore), status, "semaphore: ");
    REFUSED(tine_event_new(NULL, &event), status, "event: ");
    REFUSED(tine_process_start(seven, NULL, NULL, &process), status, "process \"Process-1\": ");
    REFUSED(tine_pipe_new(0, &a, &b), status, "pipe: ");
    REFUSED(tine_pool_new(NULL, &pool), status, "pool: ");
    CHECK(!pool && !process && !lock && !semaphore && !event && !queue && !a && !b);
}

TEST(without_descriptors_every_message_names_the_object) {
    if (under_valgrind()) SKIP("it has a limit of descriptors of its own");
    const rlim_t before = limit(RLIMIT_NOFILE, 3);
    make_all(TINE_EMFILE);
    limit(RLIMIT_NOFILE, before);
}

TEST(with_a_limit_on_file_sizes_every_message_names_the_object) {
    const rlim_t before = limit(RLIMIT_FSIZE, 100);
    make_all(TINE_ENOSPC);
    limit(RLIMIT_FSIZE, before);
}

static size_t address_space(void) {
    FILE *file = fopen("/proc/self/statm", "re");
    size_t pages = 0;
    CHECK(file != NULL && fscanf(file, "%zu", &pages) == 1 && fclose(file) == 0);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}
static int32_t wait_for_the_event(const void *arg, size_t arg_len, tine_task_t *task) {
    return (void)arg, (void)arg_len, tine_event_wait(tine_task_worker_state(task), TINE_FOREVER) < 0;
}
static int32_t keep(void *user_data, void **out_state) { return *out_state = user_data, 0; }

/* The account of pending tasks grows with them: where it cannot, the one who submits is told, and the rest goes on. */
TEST(no_memory_for_one_more_task_is_an_answer) {
    enum { BEFORE = 4000, SMALL = 20000 };
    static void *small[SMALL];
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_pool_stats_t stats = TINE_POOL_STATS_INIT;
    tine_pool_t *pool = NULL;
    tine_event_t *event = NULL;
    tine_status_t status = TINE_OK;
    uint64_t submitted = BEFORE;
    if (under_asan()) SKIP("it needs all addresses");
    if (under_valgrind()) SKIP("it has memory of its own");
    CHECK_OK(tine_event_new(NULL, &event));
    options.workers = 1, options.initializer = keep, options.user_data = event;
    CHECK_OK(tine_pool_new(&options, &pool));
    for (int i = 0; i < BEFORE; i++) CHECK_OK(tine_pool_submit(pool, wait_for_the_event, NULL, 0, NULL, NULL));
    for (int i = 0; i < SMALL; i++) CHECK((small[i] = malloc(64)) != NULL);
    for (int i = 0; i < SMALL - 1; i++) free(small[i]); /* the last keeps the others from the system */
    const rlim_t before = limit(RLIMIT_AS, address_space() + (100 << 10));
    for (; status == TINE_OK && submitted < 3 * BEFORE; submitted += status == TINE_OK)
        status = tine_pool_submit(pool, wait_for_the_event, NULL, 0, NULL, NULL);
    limit(RLIMIT_AS, before);
    CHECK_INT(status, TINE_ENOMEM);
    CHECK_MESSAGE("no memory for one more task");
    CHECK_OK(tine_event_set(event));
    CHECK_OK(tine_pool_submit(pool, wait_for_the_event, NULL, 0, NULL, NULL));
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    CHECK_OK(tine_pool_stats(pool, &stats));
    CHECK_INT(stats.done, submitted + 1);
    free(small[SMALL - 1]), tine_pool_free(pool), tine_event_free(event);
}
