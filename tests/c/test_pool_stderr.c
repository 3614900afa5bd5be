/* What workers write to standard error, in pools that keep its end. */
#include <sys/stat.h>
#include "pool_tools.h"

static tine_pool_t *pool_that_keeps(uint32_t workers, uint32_t bytes) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    options.workers = workers, options.stderr_tail_bytes = bytes, options.crash_budget = 1000;
    return pool_with(&options);
}
static void be_quiet(void) { CHECK(dup2(open("/dev/null", O_WRONLY), 2) == 2); }
static void check_tail(const tine_result_t *result, const char *expected) {
    size_t length = 12345;
    const char *tail = tine_result_stderr_tail(result, &length);
    CHECK(tail != NULL);
    CHECK_TEXT(tail, expected);
    CHECK_INT(length, strlen(expected));
    CHECK(exit_of(result).valid & TINE_EXIT_HAS_STDERR_TAIL);
}
static void check_no_tail(const tine_result_t *result) {
    size_t length = 12345;
    CHECK(tine_result_stderr_tail(result, &length) == NULL);
    CHECK_INT(length, 0);
}

struct words { char text[40]; int way; };
static int32_t say_and(const void *arg, size_t len, tine_task_t *task) { /* dies; or waits; or returns */
    struct words words;
    CHECK_INT(len, sizeof words);
    memcpy(&words, arg, len);
    fputs(words.text, stderr);
    count_up(&shared->started);
    if (words.way < WAYS_TO_DIE) return die(&words.way, sizeof words.way, task);
    if (words.way == WAYS_TO_DIE) await(&shared->gate, 1);
    return 0;
}
enum { WAITS = WAYS_TO_DIE, RETURNS };

TEST(the_end_of_what_a_dead_worker_said_is_in_the_result) {
    share();
    be_quiet();
    tine_pool_t *pool = pool_that_keeps(1, 16);
    for (int way = 0; way < WAYS_TO_DIE; way++) {
        const struct words words = { "the beginning, and the end of it", way };
        tine_result_t *result = apply(pool, say_and, &words, sizeof words);
        check_death(result, way);
        check_tail(result, "nd the end of it");
        tine_result_free(result);
    }
    const struct words few = { "few", BY_SEGV }, none = { "", BY_SEGV }, alive = { "alive", RETURNS };
    tine_result_t *result = apply(pool, say_and, &few, sizeof few);
    check_tail(result, "few");
    tine_result_free(result);
    result = apply(pool, say_and, &none, sizeof none);
    check_tail(result, "");
    tine_result_free(result);
    result = apply(pool, say_and, &alive, sizeof alive);
    CHECK_STATUS(tine_result_status(result), TINE_OK);
    check_no_tail(result);
    tine_result_free(result);
    end_pool(pool);
    pool = pool_of(1);
    result = apply(pool, say_and, &few, sizeof few);
    check_no_tail(result);
    CHECK(!(exit_of(result).valid & TINE_EXIT_HAS_STDERR_TAIL));
    tine_result_free(result);
    end_pool(pool);
}

TEST(the_end_is_there_whatever_ended_the_worker) {
    tine_submit_options_t limited = TINE_SUBMIT_OPTIONS_INIT;
    const struct words words = { "still here", WAITS };
    share();
    be_quiet();
    tine_pool_t *pool = pool_that_keeps(1, 1000);
    limited.timeout_ms = 200;
    tine_async_t *async = submit_with(pool, say_and, &words, sizeof words, &limited);
    CHECK_STATUS(tine_result_status(get(async)), TINE_ETIMEDOUT);
    check_tail(get(async), "still here");
    tine_async_free(async);
    async = submit(pool, say_and, &words, sizeof words);
    await(&shared->started, 2);
    CHECK_OK(tine_async_cancel(async));
    CHECK_STATUS(tine_result_status(get(async)), TINE_ECANCELED);
    check_tail(get(async), "still here");
    tine_async_free(async);
    end_pool(pool);
}

TEST(each_death_has_its_own_words) {
    enum { TASKS = 60 };
    tine_async_t *asyncs[TASKS];
    struct words words[TASKS];
    share();
    be_quiet();
    tine_pool_t *pool = pool_that_keeps(2, 100);
    CHECK_OK(tine_pool_resize(pool, 4)); /* places that came later are no different */
    for (int i = 0; i < TASKS; i++) {
        snprintf(words[i].text, sizeof words[i].text, "task %d\n", i);
        words[i].way = i % 3 == 0 ? RETURNS : i % WAYS_TO_DIE;
        asyncs[i] = submit(pool, say_and, &words[i], sizeof words[i]);
    }
    for (int i = 0; i < TASKS; i++) {
        size_t length = 0;
        const char *tail = tine_result_stderr_tail(get(asyncs[i]), &length);
        if (words[i].way == RETURNS) CHECK(tail == NULL);
        else CHECK(tail != NULL && length >= strlen(words[i].text) && strcmp(tail + length - strlen(words[i].text), words[i].text) == 0);
        tine_async_free(asyncs[i]);
    }
    end_pool(pool);
}

/* ---- Nothing is lost ---- */
TEST_PROGRAM(host_whose_tasks_speak) {
    tine_async_t *asyncs[60];
    share();
    tine_pool_t *pool = pool_that_keeps(2, 10);
    for (int i = 0; i < 60; i++) {
        struct words words = { "", i % 5 == 0 ? i % WAYS_TO_DIE : RETURNS };
        snprintf(words.text, sizeof words.text, "<%02d>", i);
        asyncs[i] = submit(pool, say_and, &words, sizeof words);
    }
    for (int i = 0; i < 60; i++) tine_async_wait(asyncs[i], TINE_FOREVER), tine_async_free(asyncs[i]);
    end_pool(pool);
}
static void check_all_said(const char *text) {
    CHECK_INT(strlen(text), 60 * strlen("<00>"));
    for (int i = 0; i < 60; i++) {
        char word[20];
        snprintf(word, sizeof word, "<%02d>", i);
        CHECK(strstr(text, word) != NULL);
    }
}
TEST(what_tasks_say_reaches_the_hosts_stderr_once) {
    int ends[2], status;
    char text[1000] = "";
    make_pipe(ends);
    pid_t host = run_program("host_whose_tasks_speak", ends[1]);
    close(ends[1]);
    check_all_said(hear_all(ends[0]));
    CHECK_INT(status_of(host), 0);
    FILE *temporary = tmpfile(); /* on a disk all share one offset; a memfd's is not safe from two who write at the same time */
    CHECK(temporary != NULL);
    const int file = fileno(temporary);
    host = run_program("host_whose_tasks_speak", file);
    CHECK_INT(waitpid(host, &status, 0), host);
    CHECK_INT(pread(file, text, sizeof text - 1, 0), 240);
    check_all_said(text);
    fclose(temporary);
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    host = run_program("host_whose_tasks_speak", ends[1]);
    close(ends[1]);
    check_all_said(hear_all(ends[0]));
    CHECK_INT(status_of(host), 0);
}

static int32_t shout_and(const void *arg, size_t len, tine_task_t *task) { /* more than any pipe holds */
    static char much[MIB];
    memset(much, 'x', sizeof much);
    CHECK_INT(write(2, much, sizeof much), sizeof much);
    return number_in(arg, len) < WAYS_TO_DIE ? die(arg, len, task) : 0;
}
TEST(a_stderr_that_nobody_reads_hangs_no_pool) {
    int ends[2];
    const int dies = BY_KILL, returns = RETURNS;
    share();
    make_pipe(ends);
    const int before = dup(2);
    dup2(ends[1], 2);
    tine_pool_t *pool = pool_that_keeps(3, 100);
    for (int i = 0; i < 3; i++) {
        tine_result_t *result = apply(pool, shout_and, &dies, sizeof dies);
        size_t length = 0;
        CHECK(strspn(tine_result_stderr_tail(result, &length), "x") == 100 && length == 100);
        tine_result_free(result);
    }
    for (int i = 0; i < 2; i++) { /* their workers wait for the reader, as with any stderr; nobody else does */
        tine_result_t *result = apply(pool, shout_and, &returns, sizeof returns);
        CHECK_STATUS(tine_result_status(result), TINE_OK);
        tine_result_free(result);
    }
    check_works(pool);
    CHECK_OK(tine_pool_terminate(pool, 0, NULL));
    tine_pool_free(pool);
    dup2(before, 2), close(ends[0]), close(ends[1]), close(before);
}

TEST(a_stderr_that_is_closed_ends_no_worker) {
    int ends[2];
    const int returns = RETURNS;
    share();
    make_pipe(ends);
    const int before = dup(2);
    dup2(ends[1], 2), close(ends[0]), close(ends[1]);
    tine_pool_t *pool = pool_that_keeps(1, 100);
    for (int i = 0; i < 3; i++) tine_result_free(apply(pool, shout_and, &returns, sizeof returns));
    CHECK_INT(stats_of(pool).worker_deaths, 0);
    end_pool(pool);
    close(2);
    pool = pool_that_keeps(1, 100);
    for (int i = 0; i < 3; i++) tine_result_free(apply(pool, shout_and, &returns, sizeof returns));
    CHECK_INT(stats_of(pool).worker_deaths, 0);
    end_pool(pool);
    dup2(before, 2), close(before);
}

TEST(much_output_costs_no_memory) {
    const int returns = RETURNS;
    share();
    const int nothing = open("/dev/null", O_WRONLY), before = dup(2);
    dup2(nothing, 2);
    tine_pool_t *pool = pool_that_keeps(1, 100);
    for (int i = 0; i < 64; i++) tine_result_free(apply(pool, shout_and, &returns, sizeof returns));
    char path[64];
    struct stat stat;
    int64_t blocks = 0;
    for (int fd = 3; fd < 1024; fd++) { /* the host has the file, too */
        char link[100] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (readlink(path, link, sizeof link - 1) > 0 && strstr(link, "tine-pool:stderr") && fstat(fd, &stat) == 0) blocks += stat.st_blocks;
    }
    CHECK(blocks * 512 < 4 * MIB);
    end_pool(pool);
    dup2(before, 2), close(before), close(nothing);
}

TEST(output_above_rlimit_fsize_ends_no_innocent_task) {
    const int returns = RETURNS, dies = BY_KILL;
    const struct rlimit limit = { 8 * MIB, RLIM_INFINITY };
    share();
    be_quiet();
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
    tine_pool_t *pool = pool_that_keeps(1, 100);
    for (int i = 0; i < 30; i++) {
        tine_result_t *result = apply(pool, shout_and, &returns, sizeof returns);
        CHECK_STATUS(tine_result_status(result), TINE_OK);
        tine_result_free(result);
    }
    CHECK_INT(stats_of(pool).worker_deaths, 0);
    for (int i = 0; i < 30; i++) { /* nor does what others in its place have left */
        tine_result_t *result = apply(pool, shout_and, &dies, sizeof dies);
        size_t length = 0;
        check_death(result, dies);
        CHECK(strspn(tine_result_stderr_tail(result, &length), "x") == 100 && length == 100);
        tine_result_free(result);
    }
    end_pool(pool);
}

static int32_t complain(void *user_data, void **out_state) {
    (void)user_data, (void)out_state;
    fputs("cannot load the model\n", stderr);
    return 3;
}
TEST(a_pool_whose_initializer_fails_says_what_it_said) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    options.workers = 1, options.initializer = complain, options.stderr_tail_bytes = 1000, options.crash_budget = 2;
    be_quiet();
    tine_pool_t *pool = pool_with(&options);
    while (tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL) == TINE_OK) sched_yield();
    CHECK_STATUS(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL), TINE_EBROKEN);
    CHECK_MESSAGE("its initializer returned 3; it said last: cannot load the model");
    tine_pool_free(pool);
}
