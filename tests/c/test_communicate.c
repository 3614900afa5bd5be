/* Commands: their input and output, in both directions at once. test_communicate_no_pidfd.c runs all of this once more where the kernel
 * refuses pidfds. */
#include "process_tools.h"

#define MIB ((size_t)1 << 20)

static tine_spawn_options_t piped(void) {
    tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
    options.stdin_mode = options.stdout_mode = options.stderr_mode = TINE_STDIO_PIPE;
    return options;
}
static tine_process_t *shell(const char *script) {
    const tine_spawn_options_t options = piped();
    return spawn_with(SH(script), &options);
}
/* Numbers, so that a byte that is lost or doubled shows. */
static char *pattern(size_t length, unsigned seed) {
    char *bytes = malloc(length);
    for (size_t i = 0; i < length; i++) bytes[i] = (char)((i * 2654435761u >> 13) + seed);
    return bytes;
}
struct output { void *data[2]; size_t length[2]; };
static tine_status_t communicate(tine_process_t *process, const void *input, size_t length, int64_t timeout_ms, struct output *output) {
    return tine_process_communicate(process, input, length, timeout_ms, &output->data[0], &output->length[0], &output->data[1],
                                    &output->length[1]);
}
static void forget(struct output *output) { tine_free(output->data[0]), tine_free(output->data[1]); }
static int32_t forget_and_finish(struct output *output, tine_process_t *process) { return forget(output), finish(process); }
static void check_bytes(const struct output *output, int stream, const char *bytes, size_t length) {
    CHECK_INT(output->length[stream], length);
    CHECK(memcmp(output->data[stream], bytes, length) == 0);
}
/* It gets this, says that, and ends. */
static void check_talk(tine_process_t *process, const char *input, const char *out, const char *err, int32_t code) {
    struct output output;
    CHECK_OK(communicate(process, input, strlen(input), TINE_FOREVER, &output));
    CHECK_TEXT(output.data[0], out);
    CHECK_TEXT(output.data[1], err);
    CHECK_INT(forget_and_finish(&output, process), code);
}
static void kill_left(const char *number) { /* what the command left behind */
    const pid_t left = (pid_t)atoi(number);
    CHECK(left > 1);
    CHECK_INT(kill(left, SIGKILL), 0);
}

TEST(a_command_gets_its_input_and_gives_its_output) {
    const tine_spawn_options_t options = piped();
    const int fds = test_count_fds();
    tine_process_t *process = spawn_with(ARGV("sort"), &options);
    struct output output;
    CHECK_OK(communicate(process, "banana\napple\ncherry\n", 20, TINE_FOREVER, &output));
    CHECK_TEXT(output.data[0], "apple\nbanana\ncherry\n"); /* with a NUL behind it */
    CHECK_INT(output.length[0], 20);
    CHECK_TEXT(output.data[1], "");
    CHECK_INT(output.length[1], 0);
    forget(&output);
    CHECK(!tine_process_is_alive(process));
    CHECK_INT(finish(process), 0);
    CHECK_INT(test_count_fds(), fds);
    CHECK_INT(test_count_children(), 0);
}

TEST(both_streams_are_taken) {
    tine_process_t *process = shell("cat; echo problem >&2; exit 3");
    check_talk(process, "text", "text", "problem\n", 3);
}

TEST_WITHIN(any_size_goes_in_both_directions_at_once, 60) {
    const size_t length = under_valgrind() ? 2 * MIB : 64 * MIB;
    char *input = pattern(length, 1);
    tine_process_t *process = shell("exec cat");
    struct output output;
    CHECK_OK(communicate(process, input, length, TINE_FOREVER, &output));
    check_bytes(&output, 0, input, length);
    CHECK_INT(forget_and_finish(&output, process), 0);

    const size_t third = length / 8;
    process = shell("tee /dev/stderr");
    CHECK_OK(communicate(process, input, third, TINE_FOREVER, &output));
    for (int i = 0; i < 2; i++) check_bytes(&output, i, input, third);
    CHECK_INT(forget_and_finish(&output, process), 0);
    free(input);
}

/* ---- The end ---- */
TEST(it_ends_with_the_command_although_a_descendant_holds_its_output) {
    tine_process_t *process = shell("sleep 100 & echo $! >&2; echo hi");
    struct output output;
    CHECK_STATUS(communicate(process, NULL, 0, TINE_FOREVER, &output), TINE_PIPE_HELD);
    CHECK_TEXT(output.data[0], "hi\n");
    kill_left(output.data[1]);
    CHECK_INT(forget_and_finish(&output, process), 0);
}

TEST(a_descendant_that_holds_nothing_is_not_waited_for) {
    tine_process_t *process = shell("trap 'echo $!; exit 0' USR1; (exec >/dev/null 2>&1; kill -USR1 $$; exec sleep 100) & "
                                    "while :; do wait; done");
    struct output output;
    CHECK_OK(communicate(process, NULL, 0, TINE_FOREVER, &output));
    kill_left(output.data[0]);
    CHECK_INT(forget_and_finish(&output, process), 0);
}

TEST(a_descendant_that_never_stops_writing_is_not_listened_to_for_ever) {
    tine_process_t *process = shell("yes & echo $! >&2");
    struct output output;
    CHECK_STATUS(communicate(process, NULL, 0, TINE_FOREVER, &output), TINE_PIPE_HELD);
    kill_left(output.data[1]);
    CHECK_INT(forget_and_finish(&output, process), 0);
}

TEST(everything_that_the_command_wrote_is_there_also_when_there_is_no_time) {
    tine_process_t *process = shell("head -c 60000 /dev/zero; sleep 100 & echo $! >&2");
    struct output output;
    CHECK_OK(tine_process_join(process, TINE_FOREVER));
    CHECK_STATUS(communicate(process, NULL, 0, 0, &output), TINE_PIPE_HELD);
    CHECK_INT(output.length[0], 60000);
    kill_left(output.data[1]);
    CHECK_INT(forget_and_finish(&output, process), 0);
}

TEST(closing_its_output_is_not_its_end) {
    tine_process_t *process = shell("echo first; exec >/dev/null 2>&1; kill -STOP $$; exit 4");
    struct output output = { { NULL, NULL }, { 7, 7 } };
    while (communicate(process, NULL, 0, 5, &output) == TINE_ETIMEDOUT && field_of(tine_process_pid(process), "State:")[0] != 'T') {}
    CHECK(tine_process_is_alive(process));
    CHECK(output.data[0] == NULL);
    CHECK_INT(output.length[0], 7);
    CHECK_OK(tine_process_signal(process, SIGCONT));
    check_talk(process, "", "first\n", "", 4);
}

/* ---- Time ---- */
TEST(after_a_timeout_it_goes_on_where_it_was) {
    const size_t length = under_valgrind() ? MIB / 4 : MIB;
    tine_process_t *process = shell("trap 'go=1' TERM; echo ready; while [ -z \"$go\" ]; do sleep 0.01; done; cat; echo end >&2");
    char line[6], *input = pattern(length, 2), *given = malloc(length);
    for (size_t got = 0; got < sizeof line;) {
        const ssize_t more = read(tine_process_stdout_fd(process), line + got, sizeof line - got);
        CHECK(more > 0);
        got += (size_t)more;
    }
    struct output output = { { NULL, NULL }, { 0, 0 } };
    memcpy(given, input, length);
    CHECK_STATUS(communicate(process, given, length, 30, &output), TINE_ETIMEDOUT);
    memset(given, 'x', length); /* the caller's again */
    CHECK_STATUS(communicate(process, given, length, 0, &output), TINE_ETIMEDOUT);
    CHECK(output.data[0] == NULL);
    CHECK(tine_process_is_alive(process));
    CHECK_OK(tine_process_terminate(process));
    CHECK_OK(communicate(process, given, length, TINE_FOREVER, &output));
    check_bytes(&output, 0, input, length);
    CHECK_TEXT(output.data[1], "end\n");
    free(input), free(given);
    CHECK_INT(forget_and_finish(&output, process), 0);
}

TEST(the_time_is_that_of_the_whole_call) {
    const char *scripts[] = { "yes", "cat; exec sleep 100" };
    for (int i = 0; i < 2; i++) { /* output without an end, and no output */
        tine_process_t *process = shell(scripts[i]);
        const int64_t start = now_us();
        CHECK_STATUS(tine_process_communicate(process, NULL, 0, 50, NULL, NULL, NULL, NULL), TINE_ETIMEDOUT);
        CHECK(now_us() - start >= 50000);
        CHECK_STATUS(tine_process_communicate(process, NULL, 0, 0, NULL, NULL, NULL, NULL), TINE_ETIMEDOUT);
        CHECK_MESSAGE("process \"sh\" (");
        CHECK_OK(tine_process_kill(process));
        CHECK(tine_process_communicate(process, NULL, 0, TINE_FOREVER, NULL, NULL, NULL, NULL) >= 0);
        CHECK_INT(finish(process), -SIGKILL);
    }
}

static int32_t say_no(void *times) { return ++*(int *)times >= 0; }
static void nothing(int signal) { (void)signal; }
static void *interrupt_until(void *thread) {
    for (;;) pthread_kill(*(pthread_t *)thread, SIGUSR1), poll(NULL, 0, 5);
    return NULL;
}
TEST(an_interrupt_check_may_end_the_call) {
    struct sigaction action = { .sa_handler = nothing };
    pthread_t self = pthread_self(), other;
    int times = 0;
    tine_process_t *process = shell("trap 'echo late; exit 5' TERM; echo early; while :; do sleep 0.01; done");
    CHECK_INT(hear(tine_process_stdout_fd(process)), 'e'); /* the trap is set */
    sigaction(SIGUSR1, &action, NULL);
    tine_set_interrupt_check(say_no, &times);
    CHECK_INT(pthread_create(&other, NULL, interrupt_until, &self), 0);
    struct output output;
    CHECK_STATUS(communicate(process, NULL, 0, TINE_FOREVER, &output), TINE_EINTR);
    tine_set_interrupt_check(NULL, NULL);
    pthread_cancel(other), pthread_join(other, NULL);
    CHECK(times > 0);
    CHECK_OK(tine_process_terminate(process));
    check_talk(process, "", "arly\nlate\n", "", 5);
}

/* Every mix of sizes, caps and interruptions comes to the same. */
TEST(however_often_it_is_interrupted_nothing_is_lost_or_doubled) {
    const size_t most = MIB / 2;
    char *input = pattern(most, 7);
    unsigned seed = 12345;
    for (int i = under_valgrind() ? 3 : 25; i > 0; i--) {
        tine_spawn_options_t options = piped();
        unsigned random[4];
        for (int k = 0; k < 4; k++) seed = seed * 1103515245 + 12345, random[k] = seed >> 8;
        const size_t length = random[0] % 3 == 0 ? random[1] % 100 : random[1] % most, cap = random[2] % 2 ? 0 : 1 + random[2] % most;
        const size_t kept = cap == 0 || length < cap ? length : cap;
        options.max_output_bytes = cap;
        tine_process_t *process = spawn_with(ARGV("tee", "/dev/stderr"), &options);
        struct output output;
        tine_status_t status;
        while ((status = communicate(process, input, length, random[3]++ % 3, &output)) == TINE_ETIMEDOUT) {}
        CHECK_STATUS(status, TINE_OK);
        for (int k = 0; k < 2; k++) check_bytes(&output, k, input, kept);
        CHECK_INT(forget_and_finish(&output, process), 0);
    }
    free(input);
}

/* ---- Input that nobody wants ---- */
TEST(a_command_that_wants_no_more_input_is_no_error_and_no_signal) {
    const size_t length = 4 * MIB;
    char *input = pattern(length, 3);
    const char *scripts[] = { "exec <&-; echo done", "head -c 5 | wc -c; echo done", "echo done" };
    for (int i = 0; i < 3; i++) {
        tine_process_t *process = shell(scripts[i]);
        struct output output;
        CHECK_OK(communicate(process, input, length, TINE_FOREVER, &output)); /* SIGPIPE would end this process */
        CHECK(strstr(output.data[0], "done\n") != NULL);
        CHECK_INT(forget_and_finish(&output, process), 0);
    }
    free(input);
}

TEST(the_signal_of_pipes_is_left_as_it_was) {
    sigset_t mask, pending;
    char *input = pattern(MIB, 4);
    for (int blocked = 0; blocked < 2; blocked++) {
        if (blocked) { /* one that is the host's own, and waits */
            sigemptyset(&mask), sigaddset(&mask, SIGPIPE), pthread_sigmask(SIG_BLOCK, &mask, NULL);
            CHECK_INT(raise(SIGPIPE), 0);
        }
        tine_process_t *process = shell("exec <&-; echo done");
        CHECK_OK(tine_process_communicate(process, input, MIB, TINE_FOREVER, NULL, NULL, NULL, NULL));
        CHECK_INT(finish(process), 0);
        pthread_sigmask(SIG_BLOCK, NULL, &mask), sigpending(&pending);
        CHECK_INT(sigismember(&mask, SIGPIPE), blocked);
        CHECK_INT(sigismember(&pending, SIGPIPE), blocked);
    }
    free(input);
}

/* ---- Less than all ---- */
TEST(what_is_above_the_cap_is_dropped_and_no_error) {
    tine_spawn_options_t options = piped();
    char *input = pattern(MIB, 5);
    options.max_output_bytes = 1000;
    tine_process_t *process = spawn_with(SH("cat; head -c 300000 /dev/zero >&2"), &options);
    struct output output;
    CHECK_OK(communicate(process, input, MIB, TINE_FOREVER, &output));
    check_bytes(&output, 0, input, 1000);
    CHECK_INT(output.length[1], 1000);
    free(input);
    CHECK_INT(forget_and_finish(&output, process), 0);
}

TEST(what_nobody_asks_for_is_dropped) {
    char *input = pattern(MIB, 6);
    for (int i = 0; i < 3; i++) {
        tine_process_t *process = shell("tee /dev/stderr");
        void *data = NULL;
        size_t length = 0;
        CHECK_OK(tine_process_communicate(process, input, MIB, TINE_FOREVER, i == 1 ? &data : NULL, i == 1 ? &length : NULL,
                                          i == 2 ? &data : NULL, i == 2 ? &length : NULL));
        CHECK_INT(length, i == 0 ? 0 : MIB);
        tine_free(data);
        CHECK_INT(finish(process), 0);
    }
    free(input);
}

TEST(without_pipes_there_is_nothing_but_the_end) {
    tine_process_t *process = spawn_with(SH("exit 6"), NULL);
    struct output output;
    CHECK_STATUS(communicate(process, "x", 1, TINE_FOREVER, &output), TINE_EINVAL);
    CHECK_MESSAGE("input");
    check_talk(process, "", "", "", 6);
}

TEST(afterwards_the_descriptors_are_gone) {
    tine_process_t *process = shell("cat");
    struct output output;
    int fd = -5;
    CHECK(tine_process_stdin_fd(process) > 2 && tine_process_stdout_fd(process) > 2 && tine_process_stderr_fd(process) > 2);
    CHECK_OK(communicate(process, "x", 1, TINE_FOREVER, &output));
    forget(&output);
    CHECK_INT(tine_process_stdin_fd(process), -1);
    CHECK_INT(tine_process_stdout_fd(process), -1);
    CHECK_INT(tine_process_stderr_fd(process), -1);
    CHECK(tine_process_take_stdout(process, &fd) < 0);
    CHECK_INT(fd, -5);
    CHECK_OK(communicate(process, NULL, 0, 0, &output)); /* once more: it has ended, and everything was handed out */
    CHECK_TEXT(output.data[0], "");
    CHECK_INT(forget_and_finish(&output, process), 0);
}

TEST(what_the_caller_took_is_the_callers) {
    tine_process_t *process = shell("cat; echo problem >&2");
    int in = -1;
    CHECK_OK(tine_process_take_stdin(process, &in));
    CHECK_INT(write(in, "mine", 4), 4);
    CHECK_INT(close(in), 0);
    check_talk(process, "", "mine", "problem\n", 0);
}

/* ---- Many, and misuse ---- */
static void *talk(void *number) {
    char *input = pattern(MIB, (unsigned)(uintptr_t)number);
    tine_process_t *process = shell("cat");
    struct output output;
    CHECK_OK(communicate(process, input, MIB, TINE_FOREVER, &output));
    check_bytes(&output, 0, input, MIB);
    free(input);
    CHECK_INT(forget_and_finish(&output, process), 0);
    return NULL;
}
TEST(many_threads_talk_to_many_commands) {
    pthread_t threads[8];
    const int fds = test_count_fds();
    for (uintptr_t i = 0; i < 8; i++) CHECK_INT(pthread_create(&threads[i], NULL, talk, (void *)i), 0);
    for (int i = 0; i < 8; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    CHECK_INT(test_count_fds(), fds);
}

static void *talk_for_ever(void *process) {
    CHECK(tine_process_communicate(process, NULL, 0, TINE_FOREVER, NULL, NULL, NULL, NULL) >= 0);
    return NULL;
}
TEST(one_at_a_time_talks_to_a_command_and_others_may_do_the_rest) {
    pthread_t thread;
    tine_process_t *process = shell("while :; do sleep 0.01; done");
    CHECK_INT(pthread_create(&thread, NULL, talk_for_ever, process), 0);
    while (tine_process_stdout_fd(process) >= 0) poll(NULL, 0, 1);
    CHECK_STATUS(tine_process_communicate(process, NULL, 0, 0, NULL, NULL, NULL, NULL), TINE_EBUSY);
    CHECK_MESSAGE("process \"sh\" (");
    CHECK_STATUS(tine_process_join(process, 0), TINE_ETIMEDOUT);
    CHECK_OK(tine_process_kill(process));
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK_INT(finish(process), -SIGKILL);
}

static int32_t wait_for_end(void *fd) { return hear((int)(intptr_t)fd); }
TEST(a_function_child_does_not_keep_a_command_waiting_for_input) {
    int ends[2], in = -1;
    make_pipe(ends);
    tine_process_t *process = shell("cat"), *other = shell("cat"), *child = NULL;
    CHECK_OK(tine_process_take_stdin(other, &in));
    CHECK_OK(tine_process_start(wait_for_end, (void *)(intptr_t)ends[0], NULL, &child));
    check_talk(process, "x", "x", "", 0); /* the child has no other end of its stdin */
    CHECK_INT(close(in), 0); /* what the caller took is the caller's to close in the child */
    CHECK_STATUS(tine_process_join(other, 20), TINE_ETIMEDOUT);
    tell(ends[1], 0);
    CHECK_INT(finish(child), 0);
    CHECK_INT(finish(other), 0);
}

/* One call of one thread lasts until a byte comes, or as long as a fork that does not wait for it would need. */
static enum { NOTHING, PIPE, CLOSE } slow;
static int slow_fd = -1, reached[2], go_on[2];
static __thread int is_slow;
static void be_slow(void) {
    struct pollfd poll_go_on = { go_on[0], POLLIN, 0 };
    slow = NOTHING;
    tell(reached[1], 'r');
    poll(&poll_go_on, 1, 100);
}
int pipe2(int ends[2], int flags) {
    const int result = (int)syscall(SYS_pipe2, ends, flags);
    if (is_slow && slow == PIPE) be_slow();
    return result;
}
int close(int fd) {
    if (is_slow && slow == CLOSE && fd == slow_fd) be_slow();
    return (int)syscall(SYS_close, fd);
}
static void *spawn_slowly(void *process) {
    is_slow = 1;
    *(tine_process_t **)process = shell("cat");
    return NULL;
}
static void *close_slowly(void *process) {
    is_slow = 1;
    CHECK_OK(tine_process_close_stdin(*(tine_process_t **)process));
    return NULL;
}
TEST(a_function_child_that_another_thread_starts_meanwhile_has_no_pipe_either) {
    for (int i = 0; i < 2; i++) {
        tine_process_t *process = i == 0 ? NULL : shell("cat"), *child = NULL;
        struct output output;
        pthread_t thread;
        int ends[2];
        make_pipe(ends), make_pipe(reached), make_pipe(go_on);
        slow = i == 0 ? PIPE : CLOSE;
        slow_fd = i == 0 ? -1 : tine_process_stdin_fd(process);
        CHECK_INT(pthread_create(&thread, NULL, i == 0 ? spawn_slowly : close_slowly, &process), 0);
        CHECK_INT(hear(reached[0]), 'r');
        CHECK_OK(tine_process_start(wait_for_end, (void *)(intptr_t)ends[0], NULL, &child));
        tell(go_on[1], 0);
        CHECK_INT(pthread_join(thread, NULL), 0);
        CHECK_OK(communicate(process, NULL, 0, 10000, &output));
        forget(&output);
        CHECK_INT(finish(process), 0);
        tell(ends[1], 0);
        CHECK_INT(finish(child), 0);
    }
}

TEST(in_a_forked_child_the_handle_is_inert) {
    tine_process_t *process = shell("cat");
    const pid_t pid = fork();
    if (pid == 0) {
        struct output output;
        CHECK_STATUS(communicate(process, "y", 1, TINE_FOREVER, &output), TINE_EFORKED);
        CHECK_INT(tine_process_stdout_fd(process), -1);
        tine_process_free(process);
        _exit(0);
    }
    CHECK_INT(status_of(pid), 0);
    check_talk(process, "x", "x", "", 0);
}

TEST(wrong_arguments_are_named) {
    struct output output = { { NULL, NULL }, { 0, 0 } };
    CHECK_STATUS(communicate(NULL, NULL, 0, 0, &output), TINE_EINVAL);
    CHECK_MESSAGE("process");
    tine_process_t *process = shell("cat");
    CHECK_STATUS(communicate(process, NULL, 1, 0, &output), TINE_EINVAL);
    CHECK_MESSAGE("input");
    CHECK_STATUS(communicate(process, NULL, 0, -2, &output), TINE_EINVAL);
    check_talk(process, "x", "x", "", 0); /* nothing had begun */
}

/* ---- Called and forgotten ---- */
static tine_status_t output_of(const char *script, const char *input, int64_t timeout_ms, char **text, int32_t *code) {
    void *data = NULL;
    size_t length = 0;
    const tine_status_t status =
        tine_process_check_output(SH(script), NULL, input, strlen(input), timeout_ms, &data, &length, code);
    CHECK(data == NULL || strlen(data) == length);
    return *text = data, status;
}
static void check_output_of(const char *script, const char *input, const char *expected, int32_t expected_code) {
    char *text;
    int32_t code = 1000;
    CHECK_OK(output_of(script, input, TINE_FOREVER, &text, &code));
    CHECK_TEXT(text, expected);
    CHECK_INT(code, expected_code);
    tine_free(text);
}
TEST(output_is_taken_in_one_call) {
    const int fds = test_count_fds();
    check_output_of("echo out; exit 0", "", "out\n", 0);
    check_output_of("sort; exit 3", "b\na\n", "a\nb\n", 3); /* the code is the caller's to judge */
    check_output_of("echo out; kill -KILL $$", "", "out\n", -SIGKILL);
    const char *argv[] = { "sh", "-c", "echo out; echo err >&2", NULL };
    tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
    void *data;
    size_t length;
    options.stderr_mode = TINE_STDIO_STDOUT;
    CHECK_OK(tine_process_check_output(argv, &options, NULL, 0, TINE_FOREVER, &data, &length, NULL));
    CHECK_TEXT(data, "out\nerr\n");
    tine_free(data);
    options.stderr_mode = TINE_STDIO_PIPE; /* drained and dropped */
    options.max_output_bytes = 2;
    CHECK_OK(tine_process_check_output(argv, &options, NULL, 0, TINE_FOREVER, &data, &length, NULL));
    CHECK_TEXT(data, "ou");
    tine_free(data);
    CHECK_INT(test_count_fds(), fds);
    CHECK_INT(test_count_children(), 0);
}

TEST(what_takes_too_long_is_killed_and_gives_what_it_had) {
    char *text;
    int32_t code = 1000;
    CHECK_STATUS(output_of("echo part; exec sleep 100", "", 200, &text, &code), TINE_ETIMEDOUT);
    CHECK(strcmp(text, "part\n") == 0 || *text == 0); /* slow machines */
    CHECK_INT(code, -SIGKILL);
    tine_free(text);
    CHECK_INT(test_count_children(), 0);
    const char *argv[] = { "sleep", "100", NULL };
    code = 1000;
    CHECK_STATUS(tine_process_call(argv, NULL, 20, &code), TINE_ETIMEDOUT);
    CHECK_INT(test_count_children(), 0);
}

TEST(a_command_that_cannot_be_started_has_no_output) {
    const char *argv[] = { "/no/such/program", NULL };
    void *data = &data;
    size_t length = 5;
    int32_t code = 1000;
    CHECK_STATUS(tine_process_check_output(argv, NULL, NULL, 0, TINE_FOREVER, &data, &length, &code), TINE_ENOENT);
    CHECK(data == (void *)&data);
    CHECK_INT(length, 5);
    CHECK_INT(code, 1000);
    tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
    const char *cat[] = { "cat", NULL };
    options.stdout_mode = TINE_STDIO_NULL;
    CHECK_STATUS(tine_process_check_output(cat, &options, NULL, 0, TINE_FOREVER, &data, &length, &code), TINE_EINVAL);
    CHECK_MESSAGE("stdout_mode");
    options.stdout_mode = TINE_STDIO_INHERIT, options.stdin_mode = TINE_STDIO_NULL;
    CHECK_STATUS(tine_process_check_output(cat, &options, "x", 1, TINE_FOREVER, &data, &length, &code), TINE_EINVAL);
    CHECK_MESSAGE("stdin_mode");
    CHECK_STATUS(tine_process_check_output(cat, NULL, NULL, 1, TINE_FOREVER, &data, &length, &code), TINE_EINVAL);
    CHECK_MESSAGE("input");
    CHECK_INT(test_count_children(), 0);
}
