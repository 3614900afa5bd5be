/* Pools without a thread of their own: callbacks run where the host's program polls. */
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include "pool_tools.h"

static tine_pool_t *loop_pool(uint32_t workers) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    options.workers = workers, options.flags = TINE_POOL_HOST_LOOP;
    tine_pool_t *pool = pool_with(&options);
    CHECK(tine_pool_fd(pool) > 2);
    return pool;
}
static int is_readable(const tine_pool_t *pool, int timeout) {
    struct pollfd ready = { tine_pool_fd(pool), POLLIN, 0 };
    return poll(&ready, 1, timeout);
}
static void await_readable(const tine_pool_t *pool) { CHECK_INT(is_readable(pool, -1), 1); }
/* What a program's loop does until `*count` is `wanted`. */
static void run_loop(tine_pool_t *pool, const int *count, int wanted) {
    while (*count < wanted) {
        await_readable(pool);
        const tine_status_t status = tine_pool_poll(pool, 0, 0, NULL);
        CHECK(status == TINE_OK || status == TINE_ETIMEDOUT);
    }
}

static struct told {
    int succeeded, failed, inside;
    tine_status_t status;
    uint64_t ids[SLOTS];
    pthread_t thread;
} told;
static void note(const tine_result_t *result, void *user_data) {
    (void)user_data;
    CHECK_INT(told.inside++, 0); /* one at a time */
    told.status = tine_result_status(result);
    told.ids[(told.succeeded + told.failed) % SLOTS] = tine_result_task_id(result);
    told.status == TINE_OK ? told.succeeded++ : told.failed++;
    told.thread = pthread_self();
    told.inside--;
}
static tine_submit_options_t noted(void) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = options.error_callback = note;
    return options;
}

TEST(callbacks_run_in_the_loop_of_the_host_and_in_no_other_thread) {
    enum { COUNT = 500 };
    const tine_submit_options_t options = noted();
    tine_pool_t *pool = loop_pool(2);
    const int loop = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = { .events = EPOLLIN };
    CHECK_INT(threads_of_host(), 1);
    CHECK_INT(epoll_ctl(loop, EPOLL_CTL_ADD, tine_pool_fd(pool), &event), 0);
    for (int i = 0; i < COUNT; i++) CHECK_OK(tine_pool_submit(pool, square, &i, sizeof i, &options, NULL));
    CHECK_INT(told.succeeded, 0);
    while (told.succeeded < COUNT) {
        size_t count = 0;
        CHECK_INT(epoll_wait(loop, &event, 1, -1), 1);
        const int before = told.succeeded;
        const tine_status_t status = tine_pool_poll(pool, 0, 0, &count);
        CHECK(status == TINE_OK ? count > 0 : status == TINE_ETIMEDOUT);
        CHECK_INT(told.succeeded - before, count);
    }
    CHECK(pthread_equal(told.thread, pthread_self()));
    CHECK_INT(threads_of_host(), 1);
    end_pool(pool);
    close(loop);
}

TEST(the_descriptor_is_readable_as_long_as_callbacks_wait) {
    const tine_submit_options_t options = noted();
    size_t count = 0;
    tine_pool_t *pool = loop_pool(1);
    for (int i = 0; i < 10; i++) CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &options, NULL));
    while (stats_of(pool).done < 10) sched_yield();
    for (int left = 10; left > 0; left -= (int)count) {
        CHECK_INT(is_readable(pool, 0), 1);
        CHECK_INT(is_readable(pool, 0), 1);
        CHECK_OK(tine_pool_poll(pool, 0, 3, &count));
        CHECK_INT(count, left < 3 ? left : 3);
    }
    for (int i = 0; i < 10; i++) CHECK_INT(told.ids[i], told.ids[0] + (uint64_t)i); /* in order: one worker */
    CHECK_STATUS(tine_pool_poll(pool, 0, 0, &count), TINE_ETIMEDOUT);
    end_pool(pool);
}

TEST(an_idle_pool_is_silent) {
    tine_pool_t *pool = loop_pool(2);
    const int64_t start = now_us();
    CHECK_STATUS(tine_pool_poll(pool, 30, 0, NULL), TINE_ETIMEDOUT);
    CHECK(now_us() - start >= 30000);
    tine_result_free(apply(pool, do_nothing, NULL, 0));
    while (tine_pool_poll(pool, 0, 0, NULL) != TINE_ETIMEDOUT) {}
    CHECK_STATUS(tine_pool_poll(pool, 10, 0, NULL), TINE_ETIMEDOUT);
    is_readable(pool, 1500); /* longer than its clock ticks while there are tasks: it stops with the first tick that finds none */
    CHECK_STATUS(tine_pool_poll(pool, 0, 0, NULL), TINE_ETIMEDOUT);
    CHECK_INT(is_readable(pool, 1100), 0);
    tine_pool_free(pool);
}

/* What the kernel says of this process's descriptors: the sum of the numbers behind a name. */
static long sum_of_fdinfo(const char *name) {
    long sum = 0;
    for (int fd = 3; fd < 256; fd++) {
        char path[64], line[256];
        snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
        FILE *info = fopen(path, "r");
        if (info == NULL) continue;
        while (fgets(line, sizeof line, info) != NULL)
            if (strncmp(line, name, strlen(name)) == 0) sum += strtol(line + strlen(name), NULL, 16);
        fclose(info);
    }
    return sum;
}
TEST(tasks_cost_no_calls_that_change_nothing) {
    tine_pool_t *pool = loop_pool(1);
    for (int i = 0; i < 3; i++) {
        tine_result_free(apply(pool, do_nothing, NULL, 0));
        CHECK_STATUS(tine_pool_poll(pool, 0, 0, NULL), TINE_ETIMEDOUT);
        CHECK_INT(sum_of_fdinfo("it_interval: ("), 1); /* the clock goes on */
    }
    const tine_submit_options_t options = noted();
    tine_async_t *async = submit_with(pool, do_nothing, NULL, 0, &options);
    CHECK_OK(tine_async_wait(async, TINE_FOREVER)); /* its callback waits for the next poll, which was told of once */
    for (int i = 0; i < 100; i++) CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL));
    CHECK(sum_of_fdinfo("eventfd-count:") < 10);
    CHECK_OK(tine_pool_poll(pool, 0, 0, NULL));
    CHECK_STATUS(end_of(async), TINE_OK);
    end_pool(pool);
}

TEST(nothing_but_callbacks_needs_a_poll) {
    const tine_submit_options_t options = noted();
    int items[100], squares[100], negative = -1;
    tine_pool_t *pool = loop_pool(2);
    check_works(pool);
    for (int i = 0; i < 100; i++) items[i] = i;
    CHECK_OK(tine_pool_map(pool, square, items, sizeof *items, 100, 3, squares, sizeof *squares, TINE_FOREVER, NULL));
    for (int i = 0; i < 100; i++) CHECK_INT(squares[i], i * i);
    tine_async_t *async = submit_with(pool, square, &negative, sizeof negative, &options);
    CHECK_INT(number_of(get(async)), 1); /* ready, although nobody has run its callback */
    CHECK_INT(told.succeeded, 0);
    tine_async_free(async);
    async = submit(pool, die, (const int[]){ BY_KILL }, sizeof(int));
    check_death(get(async), BY_KILL);
    tine_async_free(async);
    async = submit(pool, do_nothing, NULL, 0);
    while (!tine_async_ready(async)) sched_yield();
    tine_async_free(async);
    CHECK_OK(tine_pool_poll(pool, TINE_FOREVER, 0, NULL));
    CHECK_INT(told.succeeded, 1);
    end_pool(pool);
}

TEST(deaths_are_told_by_the_descriptor) {
    const tine_submit_options_t options = noted();
    tine_pool_t *pool = loop_pool(2);
    for (int way = 0; way < WAYS_TO_DIE; way++) CHECK_OK(tine_pool_submit(pool, die, &way, sizeof way, &options, NULL));
    run_loop(pool, &told.failed, WAYS_TO_DIE);
    CHECK_STATUS(told.status, TINE_EWORKERDIED);
    check_works(pool);
    end_pool(pool);
}

TEST(a_nursery_that_is_killed_ends_it_all) {
    const tine_submit_options_t options = noted();
    share();
    tine_pool_t *pool = loop_pool(1);
    for (int i = 0; i < 3; i++) CHECK_OK(tine_pool_submit(pool, wait_at_gate, NULL, 0, &options, NULL));
    await(&shared->started, 1);
    CHECK_INT(kill(nursery_of(pool), SIGKILL), 0);
    run_loop(pool, &told.failed, 3);
    CHECK_STATUS(tine_pool_poll(pool, TINE_FOREVER, 0, NULL), TINE_EBROKEN);
    CHECK_MESSAGE("nursery was killed");
    CHECK_INT(is_readable(pool, 0), 1);
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_join(pool, 0));
    tine_pool_free(pool);
}

TEST(polling_drains_a_pool_that_was_closed) {
    const tine_submit_options_t options = noted();
    tine_pool_t *pool = loop_pool(2);
    for (int i = 0; i < 50; i++) CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &options, NULL));
    CHECK_OK(tine_pool_close(pool));
    tine_status_t status;
    while ((status = tine_pool_poll(pool, TINE_FOREVER, 0, NULL)) == TINE_OK) {}
    CHECK_STATUS(status, TINE_ECLOSED);
    CHECK_INT(told.succeeded, 50);
    CHECK_STATUS(tine_pool_poll(pool, 0, 0, NULL), TINE_ECLOSED);
    CHECK_INT(is_readable(pool, 0), 1);
    CHECK_OK(tine_pool_join(pool, 0));
    tine_pool_free(pool);
}

TEST(join_runs_callbacks) {
    const tine_submit_options_t options = noted();
    share();
    tine_pool_t *pool = loop_pool(2);
    CHECK_STATUS(tine_pool_join(pool, 0), TINE_EINVAL);
    for (int i = 0; i < 50; i++) CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &options, NULL));
    CHECK_OK(tine_pool_submit(pool, wait_at_gate, NULL, 0, &options, NULL));
    CHECK_OK(tine_pool_close(pool));
    CHECK_STATUS(tine_pool_join(pool, 20), TINE_ETIMEDOUT);
    set(&shared->gate, 1);
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    CHECK_INT(told.succeeded, 51);
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    tine_pool_free(pool);
}

TEST(what_is_pending_when_the_pool_is_freed_is_told_before_that_returns) {
    const tine_submit_options_t options = noted();
    share();
    tine_pool_t *pool = loop_pool(1);
    for (int i = 0; i < 20; i++) CHECK_OK(tine_pool_submit(pool, wait_at_gate, NULL, 0, &options, NULL));
    await(&shared->started, 1);
    tine_pool_free(pool);
    CHECK_INT(told.failed, 20);
    CHECK_STATUS(told.status, TINE_ECANCELED);
}

/* ---- Inside a callback ---- */
static tine_pool_t *used;
static tine_async_t *victim;
static int generation;
static void submit_more(const tine_result_t *result, void *user_data) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    note(result, user_data);
    CHECK_STATUS(tine_pool_poll(used, 0, 0, NULL), TINE_EBUSY);
    CHECK_STATUS(tine_pool_join(used, 0), TINE_EBUSY);
    options.callback = submit_more;
    if (++generation < 10) CHECK_OK(tine_pool_submit(used, do_nothing, NULL, 0, &options, NULL));
    check_works(used);
}
TEST(a_callback_submits_and_applies) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    used = loop_pool(1);
    options.callback = submit_more;
    CHECK_OK(tine_pool_submit(used, do_nothing, NULL, 0, &options, NULL));
    run_loop(used, &told.succeeded, 10);
    end_pool(used);
}

static void submit_and_wait_for_it(const tine_result_t *result, void *user_data) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    note(result, user_data);
    const uint64_t done = stats_of(used).done;
    options.callback = submit_and_wait_for_it;
    if (++generation == 3) return;
    CHECK_OK(tine_pool_submit(used, do_nothing, NULL, 0, &options, NULL));
    while (stats_of(used).done == done) sched_yield();
}
TEST(a_poll_leaves_to_the_next_one_what_ends_meanwhile) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    used = loop_pool(1);
    options.callback = submit_and_wait_for_it;
    CHECK_OK(tine_pool_submit(used, do_nothing, NULL, 0, &options, NULL));
    while (stats_of(used).done == 0) sched_yield();
    for (int i = 1; i <= 3; i++) {
        size_t count = 0;
        CHECK_INT(is_readable(used, 0), 1);
        CHECK_OK(tine_pool_poll(used, 0, 0, &count));
        CHECK_INT(count, 1);
        CHECK_INT(told.succeeded, i);
    }
    CHECK_STATUS(tine_pool_poll(used, 0, 0, NULL), TINE_ETIMEDOUT);
    end_pool(used);
}

static void cancel_and_close(const tine_result_t *result, void *user_data) {
    note(result, user_data);
    CHECK_OK(tine_async_cancel(victim));
    CHECK_OK(tine_pool_close(used));
    CHECK_STATUS(tine_pool_join(used, 0), TINE_EBUSY);
    set(&shared->gate, 1);
}
TEST(a_callback_cancels_and_closes) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT, noting = noted();
    share();
    used = loop_pool(1);
    options.callback = cancel_and_close;
    CHECK_OK(tine_pool_submit(used, do_nothing, NULL, 0, &options, NULL));
    CHECK_OK(tine_pool_submit(used, wait_at_gate, NULL, 0, &noting, NULL));
    victim = submit_with(used, count_run, NULL, 0, &noting);
    await(&shared->started, 1);
    while (tine_pool_poll(used, TINE_FOREVER, 0, NULL) == TINE_OK) {}
    CHECK_INT(told.succeeded, 2);
    CHECK_INT(told.failed, 1);
    CHECK_STATUS(end_of(victim), TINE_ECANCELED);
    CHECK_INT(shared->ended, 1);
    tine_pool_free(used);
}

static void terminate_it(const tine_result_t *result, void *user_data) {
    note(result, user_data);
    CHECK_OK(tine_pool_terminate(used, 0, NULL));
}
static void free_it(const tine_result_t *result, void *user_data) {
    note(result, user_data);
    tine_pool_free(used);
}
static void end_inside(tine_result_fn callback, size_t max) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT, noting = noted();
    const int fds = test_count_fds();
    size_t count = 0;
    share();
    used = loop_pool(1);
    options.callback = callback;
    CHECK_OK(tine_pool_submit(used, do_nothing, NULL, 0, &options, NULL));
    for (int i = 0; i < 20; i++) CHECK_OK(tine_pool_submit(used, wait_at_gate, NULL, 0, &noting, NULL));
    await(&shared->started, 1);
    CHECK_OK(tine_pool_poll(used, TINE_FOREVER, max, &count));
    CHECK_INT(count, callback == free_it ? 21 : max);
    if (callback == terminate_it) {
        while (tine_pool_poll(used, TINE_FOREVER, max, NULL) == TINE_OK) {}
        tine_pool_free(used);
    }
    CHECK_INT(told.succeeded, 1);
    CHECK_INT(told.failed, 20);
    CHECK_STATUS(told.status, TINE_ECANCELED);
    CHECK_INT(test_count_fds(), fds);
}
TEST(a_callback_terminates_its_pool) { end_inside(terminate_it, 1); }
TEST(a_callback_frees_its_pool_and_the_poll_tells_the_rest) { end_inside(free_it, 1); }
TEST(a_callback_frees_its_pool_inside_join) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    used = loop_pool(1);
    options.callback = free_it;
    CHECK_OK(tine_pool_submit(used, do_nothing, NULL, 0, &options, NULL));
    CHECK_OK(tine_pool_close(used));
    CHECK_OK(tine_pool_join(used, TINE_FOREVER));
    CHECK_INT(told.succeeded, 1);
}

static tine_pool_t *other;
static void poll_the_other(const tine_result_t *result, void *user_data) {
    const tine_submit_options_t options = noted();
    (void)result, (void)user_data;
    CHECK_OK(tine_pool_submit(other, do_nothing, NULL, 0, &options, NULL));
    CHECK_OK(tine_pool_poll(other, TINE_FOREVER, 0, NULL));
    CHECK_STATUS(tine_pool_poll(used, 0, 0, NULL), TINE_EBUSY);
    generation++;
}
TEST(a_callback_of_one_pool_polls_another) {
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    used = loop_pool(1), other = loop_pool(1);
    options.callback = poll_the_other;
    CHECK_OK(tine_pool_submit(used, do_nothing, NULL, 0, &options, NULL));
    CHECK_OK(tine_pool_poll(used, TINE_FOREVER, 0, NULL));
    CHECK_INT(generation, 1);
    CHECK_INT(told.succeeded, 1);
    end_pool(other), end_pool(used);
}

/* ---- Threads and processes ---- */
static void *poll_to_the_end(void *pool) {
    tine_status_t status;
    while ((status = tine_pool_poll(pool, TINE_FOREVER, 1, NULL)) == TINE_OK) {}
    CHECK_STATUS(status, TINE_ECLOSED);
    return NULL;
}
TEST(threads_that_poll_at_once_run_callbacks_one_at_a_time) {
    enum { THREADS = 4, COUNT = 400 };
    const tine_submit_options_t options = noted();
    pthread_t threads[THREADS];
    tine_pool_t *pool = loop_pool(2);
    for (int i = 0; i < THREADS; i++) CHECK_INT(pthread_create(&threads[i], NULL, poll_to_the_end, pool), 0);
    for (int i = 0; i < COUNT; i++) CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, &options, NULL));
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    for (int i = 0; i < THREADS; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    CHECK_INT(told.succeeded, COUNT);
    tine_pool_free(pool);
}
static void *poll_for_ever(void *pool) {
    CHECK_STATUS(tine_pool_poll(pool, TINE_FOREVER, 0, NULL), TINE_ECLOSED);
    return NULL;
}
TEST(a_poll_that_sleeps_keeps_its_turn) {
    pthread_t thread;
    tine_pool_t *pool = loop_pool(1);
    CHECK_INT(pthread_create(&thread, NULL, poll_for_ever, pool), 0);
    for (int i = 0; i < 3; i++) CHECK_STATUS(tine_pool_poll(pool, 10, 0, NULL), TINE_ETIMEDOUT);
    CHECK_OK(tine_pool_terminate(pool, 0, NULL));
    CHECK_INT(pthread_join(thread, NULL), 0);
    tine_pool_free(pool);
}

TEST(a_forked_child_has_no_loop_of_its_parents_pool) {
    tine_pool_t *pool = loop_pool(1);
    const pid_t child = fork();
    if (child == 0) {
        CHECK_INT(tine_pool_fd(pool), -1);
        CHECK_STATUS(tine_pool_poll(pool, TINE_FOREVER, 0, NULL), TINE_EFORKED);
        CHECK_STATUS(tine_pool_join(pool, TINE_FOREVER), TINE_EFORKED);
        tine_pool_free(pool);
        _exit(0);
    }
    int status = -1;
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
    check_works(pool);
    end_pool(pool);
}

TEST(a_pool_with_a_thread_is_not_polled) {
    tine_pool_t *pool = pool_of(1);
    CHECK_INT(tine_pool_fd(pool), -1);
    CHECK_STATUS(tine_pool_poll(pool, 0, 0, NULL), TINE_ENOTSUP);
    CHECK_MESSAGE("TINE_POOL_HOST_LOOP");
    CHECK_STATUS(tine_pool_poll(NULL, 0, 0, NULL), TINE_EINVAL);
    CHECK_INT(tine_pool_fd(NULL), -1);
    tine_pool_free(pool);
    pool = loop_pool(1);
    CHECK_STATUS(tine_pool_poll(pool, -2, 0, NULL), TINE_EINVAL);
    tine_pool_free(pool);
}
