/* What a pool tells of itself: the file of what its workers did when, and the log. */
#include <sys/stat.h>
#include "json.h"
#include "pool_tools.h"

static char path[200];
static void choose_path(void) { snprintf(path, sizeof path, "%s/tine_trace_%d.json", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", (int)getpid()); }
static char *read_file(void) {
    FILE *file = fopen(path, "re");
    struct stat stat;
    CHECK(file != NULL && fstat(fileno(file), &stat) == 0);
    char *text = malloc((size_t)stat.st_size + 3);
    CHECK_INT(fread(text, 1, (size_t)stat.st_size, file), stat.st_size);
    text[stat.st_size] = 0;
    fclose(file);
    return text;
}

/* What a file says. */
static struct seen {
    int slices, ends, counts, deaths, canceled, workers;
    double queued, running, most_queued;
    char name[300];
} seen;
static struct row { double tid, until; } rows[256];
static int row_count;
static struct row *row_of(double tid) {
    for (int i = 0; i < row_count; i++)
        if (rows[i].tid == tid) return &rows[i];
    return NULL;
}
static int by_start(const void *a, const void *b) {
    const double first = json_double(*(const char *const *)a, "ts"), second = json_double(*(const char *const *)b, "ts");
    return (first > second) - (first < second);
}
static void check_text(const char *text) {
    static const char *events[400000];
    size_t count = 0;
    memset(&seen, 0, sizeof seen), row_count = 0;
    const char *end = json_value(text);
    CHECK(end != NULL && *json_space(end) == 0 && *text == '[');
    for (const char *at = json_space(text + 1); *at == '{'; at = json_space(at)) {
        CHECK(count < sizeof events / sizeof *events);
        events[count++] = at;
        at = json_space(json_value(at));
        at += *at == ',';
    }
    for (size_t i = 0; i < count; i++) {
        CHECK_INT((int)json_double(events[i], "pid"), getpid());
        CHECK(json_double(events[i], "ts") >= 0);
        if (json_is(events[i], "name", "thread_name")) {
            CHECK(row_count < 256 && row_of(json_double(events[i], "tid")) == NULL);
            rows[row_count++] = (struct row){ json_double(events[i], "tid"), 0 };
        } else if (json_is(events[i], "name", "process_name")) {
            const char *name = json_field(json_field(events[i], "args"), "name");
            snprintf(seen.name, sizeof seen.name, "%.*s", (int)(json_text(name) - name), name);
        }
    }
    qsort(events, count, sizeof *events, by_start);
    for (size_t i = 0; i < count; i++) {
        const char *event = events[i], *args = json_field(event, "args");
        if (json_is(event, "ph", "X")) {
            struct row *row = row_of(json_double(event, "tid"));
            CHECK(row != NULL && args != NULL);
            const double start = json_double(event, "ts"), length = json_double(event, "dur");
            CHECK(length >= 0 && start >= row->until - 0.002); /* one after the other; rounded to nanoseconds */
            row->until = start + length;
            CHECK(json_double(args, "waited_us") >= 0 && json_double(args, "attempt") >= 1 && json_double(args, "items") >= 1);
            seen.slices++, seen.deaths += json_is(args, "end", "worker died"), seen.canceled += json_is(args, "end", "canceled");
        } else if (json_is(event, "ph", "C")) {
            seen.counts++, seen.queued = json_double(args, "queued"), seen.running = json_double(args, "running");
            if (seen.queued > seen.most_queued) seen.most_queued = seen.queued;
        } else if (json_is(event, "ph", "i")) CHECK(row_of(json_double(event, "tid")) != NULL), seen.ends++;
        else CHECK(json_is(event, "ph", "M"));
    }
    seen.workers = row_count;
}
static void check_file(void) {
    char *text = read_file();
    check_text(text);
    free(text);
}

TEST(json_is_told_from_what_is_none) {
    static const char *const good[] = { "[]", "[1,-2.5e+3 , \"a\\u00e9\\\"\"]", "{\"a\":{},\"b\":[true,false,null]}" };
    static const char *const bad[] = { "[", "[1,]", "{\"a\"}", "{a:1}", "[01]", "\"\\x\"", "[1 2]", "\"\n\"", "{\"a\":1,}" };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) CHECK(json_value(good[i]) != NULL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK(json_value(bad[i]) == NULL);
}

TEST(each_task_is_a_slice_of_its_worker) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    share(), choose_path();
    options.workers = 2, options.name = "with \"quotes\" and a \\ and \n";
    tine_pool_t *pool = pool_with(&options);
    CHECK_OK(tine_pool_submit(pool, wait_at_gate, NULL, 0, NULL, NULL));
    CHECK_OK(tine_pool_submit(pool, wait_at_gate, NULL, 0, NULL, NULL));
    await(&shared->started, 2);
    CHECK_OK(tine_pool_trace(pool, path));
    for (int i = 0; i < 40; i++) CHECK_OK(tine_pool_submit(pool, i % 10 == 3 ? die : square, &(int){ BY_KILL }, sizeof i, NULL, NULL));
    set(&shared->gate, 1);
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    check_file();
    CHECK_INT(seen.slices, 42);
    CHECK_INT(seen.deaths, 4);
    CHECK(seen.workers >= 2 && seen.workers <= 6);
    CHECK_INT(seen.ends, seen.workers); /* four died, two left */
    CHECK(seen.counts > 0 && seen.queued == 0 && seen.running == 0 && seen.most_queued >= 30);
    CHECK(strstr(seen.name, "with \\\"quotes\\\" and a \\\\ and \\u000a") != NULL);
    CHECK_STATUS(tine_pool_trace(pool, path), TINE_ECLOSED);
    CHECK_OK(tine_pool_trace(pool, NULL));
    tine_pool_free(pool);
    unlink(path);
}

TEST(a_trace_ends_when_told_and_another_begins) {
    tine_async_t *async = NULL;
    int items[100] = { 0 };
    share(), choose_path();
    tine_pool_t *pool = pool_of(1);
    CHECK_OK(tine_pool_trace(pool, NULL)); /* none */
    CHECK_OK(tine_pool_trace(pool, path));
    for (int i = 0; i < 10; i++) tine_result_free(apply(pool, do_nothing, NULL, 0));
    CHECK_OK(tine_pool_map(pool, square, items, sizeof *items, 100, 10, NULL, 4, TINE_FOREVER, NULL));
    async = submit(pool, wait_at_gate, NULL, 0);
    await(&shared->started, 1);
    CHECK_OK(tine_pool_trace(pool, NULL));
    check_file();
    CHECK_INT(seen.slices, 21); /* the last one as far as it has come */
    CHECK(seen.running == 0 && seen.queued == 0);
    CHECK_OK(tine_pool_trace(pool, path));
    tine_async_t *queued = submit(pool, do_nothing, NULL, 0);
    CHECK_OK(tine_async_cancel(queued));
    CHECK_STATUS(end_of(queued), TINE_ECANCELED);
    CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL));
    tine_pool_free(pool);
    check_file();
    CHECK_INT(seen.slices, 1);
    CHECK_INT(seen.canceled, 1);
    CHECK(seen.running == 0 && seen.queued == 0);
    tine_async_free(async);
    unlink(path);
}

TEST(nothing_is_lost_of_many_tasks) {
    const int COUNT = under_valgrind() ? 9000 : 30000;
    choose_path();
    tine_pool_t *pool = pool_of(2);
    CHECK_OK(tine_pool_trace(pool, path));
    for (int i = 0; i < COUNT; i++) CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL));
    end_pool(pool);
    check_file();
    CHECK_INT(seen.slices, COUNT);
    CHECK(seen.queued == 0 && seen.running == 0);
    unlink(path);
}

static int deaths_logged, successors_logged, overdue_logged;
static void log_it(int32_t level, const char *message, void *user_data) {
    CHECK(level >= TINE_LOG_ERROR && level <= TINE_LOG_DEBUG && strstr(message, "pool \"logged\"") != NULL);
    CHECK(user_data == &deaths_logged);
    __atomic_fetch_add(&deaths_logged, strstr(message, "ended: signal 9") != NULL, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&overdue_logged, strstr(message, "running time was over") != NULL, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&successors_logged, strstr(message, "is worker 0 now") != NULL, __ATOMIC_SEQ_CST);
}
TEST(the_log_tells_of_deaths_and_successors_and_running_times) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_submit_options_t limited = TINE_SUBMIT_OPTIONS_INIT;
    share();
    tine_set_log(log_it, &deaths_logged);
    options.workers = 1, options.name = "logged";
    tine_pool_t *pool = pool_with(&options);
    for (int i = 0; i < 3; i++) {
        tine_result_t *result = apply(pool, die, &(int){ BY_KILL }, sizeof i);
        check_death(result, BY_KILL);
        tine_result_free(result);
        tine_result_free(apply(pool, do_nothing, NULL, 0));
    }
    limited.timeout_ms = 10;
    CHECK_STATUS(end_of(submit_with(pool, wait_at_gate, NULL, 0, &limited)), TINE_ETIMEDOUT);
    tine_result_free(apply(pool, do_nothing, NULL, 0));
    end_pool(pool);
    CHECK_INT(deaths_logged, 3);
    CHECK_INT(overdue_logged, 1);
    CHECK_INT(successors_logged, 4);
}

TEST_PROGRAM(traced_and_killed) {
    tine_pool_t *pool = pool_of(2);
    snprintf(path, sizeof path, "%s", getenv("TRACE_PATH"));
    CHECK_OK(tine_pool_trace(pool, path));
    for (struct stat file = { 0 }; file.st_size <= 100000; CHECK_INT(stat(path, &file), 0))
        for (int i = 0; i < 1000; i++) CHECK_OK(tine_pool_submit(pool, do_nothing, NULL, 0, NULL, NULL));
    kill(getpid(), SIGKILL);
}
TEST(the_file_of_a_host_that_was_killed_is_readable) { /* readers add the bracket */
    choose_path();
    setenv("TRACE_PATH", path, 1);
    const pid_t host = run_program("traced_and_killed", 1);
    CHECK_INT(WTERMSIG(status_of(host)), SIGKILL);
    char *text = read_file();
    CHECK(json_value(text) == NULL);
    char *end_of_text = text + strlen(text), *last = NULL;
    for (char *at = text; (at = strstr(at, ",\n")) != NULL; at++) last = at;
    strcpy(end_of_text, "]");
    const char *end = json_value(text);
    if (end == NULL) { /* it was killed in the middle of a write */
        strcpy(last, "]");
        end = json_value(text);
    }
    CHECK(end != NULL && *end == 0);
    CHECK(end_of_text - text > 100000);
    free(text);
    unlink(path);
}

TEST(a_path_that_cannot_be_opened_leaves_the_trace_that_runs) {
    choose_path();
    tine_pool_t *pool = pool_of(1);
    CHECK_OK(tine_pool_trace(pool, path));
    for (int i = 0; i < 20; i++) {
        tine_result_free(apply(pool, do_nothing, NULL, 0));
        if (i % 5 == 0) CHECK_STATUS(tine_pool_trace(pool, "/nonexistent/file"), TINE_ENOENT);
    }
    CHECK_OK(tine_pool_trace(pool, NULL));
    check_file();
    CHECK_INT(seen.slices, 20);
    for (int i = 0; i < 8; i++) { /* the same path: the file begins anew */
        if (i % 5 == 0) CHECK_OK(tine_pool_trace(pool, path));
        tine_result_free(apply(pool, do_nothing, NULL, 0));
    }
    end_pool(pool);
    check_file();
    CHECK_INT(seen.slices, 3);
    unlink(path);
}

TEST(a_file_that_cannot_be_written_is_told) {
    share();
    tine_pool_t *pool = pool_of(1);
    const int fds = test_count_fds();
    CHECK_STATUS(tine_pool_trace(NULL, "x"), TINE_EINVAL);
    CHECK_STATUS(tine_pool_trace(pool, "/nonexistent/file"), TINE_ENOENT);
    CHECK_MESSAGE("/nonexistent/file");
    CHECK_STATUS(tine_pool_trace(pool, ""), TINE_ENOENT);
    CHECK_STATUS(tine_pool_trace(pool, "/dev/null/file"), TINE_ENOTDIR);
    CHECK_STATUS(tine_pool_trace(pool, "/tmp"), TINE_ESYS);
    if (access("/dev/full", W_OK) == 0) CHECK_STATUS(tine_pool_trace(pool, "/dev/full"), TINE_ENOSPC);
    CHECK_INT(test_count_fds(), fds);
    choose_path();
    CHECK_OK(tine_pool_trace(pool, path));
    struct rlimit limit = { 1000, RLIM_INFINITY };
    for (int i = 0; i < 10; i++) tine_result_free(apply(pool, do_nothing, NULL, 0));
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
    CHECK_STATUS(tine_pool_trace(pool, NULL), TINE_ENOSPC); /* and no signal */
    CHECK_INT(test_count_fds(), fds);
    limit.rlim_cur = RLIM_INFINITY;
    setrlimit(RLIMIT_FSIZE, &limit);
    check_works(pool);
    const pid_t child = fork();
    if (child == 0) {
        CHECK_STATUS(tine_pool_trace(pool, path), TINE_EFORKED);
        _exit(0);
    }
    CHECK_INT(status_of(child), 0);
    end_pool(pool);
    unlink(path);
}
