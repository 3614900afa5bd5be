/*
 * A test harness in one header. Include it once per program and write TEST(fact) { ... } for each fact: that is the program.
 *   ./test_x [NAME...]       runs every test (or these), each in a process of its own, and prints TAP
 *   ./test_x --direct NAME   runs one without a process around it: for a debugger, and for TEST_PROGRAM(NAME), a helper program
 * A test that does not end in time (20 s times TINE_TEST_TIMEOUT_SCALE) or leaves a process behind fails: the runner is the subreaper.
 */
#ifndef TEST_H
#define TEST_H
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "tine.h"
struct test { const char *name; void (*run)(void); int seconds; struct test *next; };
static struct test *test_first, **test_end = &test_first;
static int test_line_here;
static volatile int *test_line = &test_line_here; /* of the last check: tells where a test hung */
extern int __lsan_do_recoverable_leak_check(void) __attribute__((weak)); /* NULL where the address sanitizer is not in */
#define TEST(name) TEST_WITHIN(name, 20)
#define TEST_PROGRAM(name) TEST_WITHIN(name, 0)
#define TEST_WITHIN(name, seconds)                                                                                                \
    static void test_##name(void);                                                                                                \
    static struct test test_of_##name = { #name, test_##name, seconds, NULL };                                                    \
    __attribute__((constructor)) static void test_add_##name(void) { *test_end = &test_of_##name; test_end = &test_of_##name.next; } \
    static void test_##name(void)
#define TEST_FAIL(...) test_fail(__FILE__, __LINE__, __VA_ARGS__)
#define TEST_HERE(line) __atomic_store_n(test_line, line, __ATOMIC_RELAXED) /* by any thread */
#define CHECK(condition) (TEST_HERE(__LINE__), (condition) ? (void)0 : TEST_FAIL("%s", #condition))
#define CHECK_INT(actual, expected) test_check_int(__FILE__, __LINE__, #actual, (intmax_t)(actual), (intmax_t)(expected))
#define CHECK_TEXT(actual, expected) test_check_text(__FILE__, __LINE__, #actual, (actual), (expected))
#define CHECK_STATUS(call, expected) test_check_status(__FILE__, __LINE__, #call, (call), (expected))
#define CHECK_OK(call) CHECK_STATUS(call, TINE_OK)
#define CHECK_MESSAGE(part) /* of the last error */ \
    (strstr(tine_last_error_message(), part) ? (void)0 : TEST_FAIL("no \"%s\" in \"%s\"", part, tine_last_error_message()))
#define SKIP(why) (printf("# skipped: %s\n", why), fflush(stdout), _exit(77))
/* _exit: after a failure nobody can say what an exit handler would wait for. */
__attribute__((format(printf, 3, 4), noreturn)) static inline void test_fail(const char *file, int line, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    printf("# %s:%d: failed: ", file, line), vprintf(format, arguments), printf("\n"), fflush(stdout), _exit(1);
}
static inline void test_check_int(const char *file, int line, const char *text, intmax_t actual, intmax_t expected) {
    TEST_HERE(line);
    if (actual != expected) test_fail(file, line, "%s is %" PRIdMAX ", not %" PRIdMAX, text, actual, expected);
}
static inline void test_check_text(const char *file, int line, const char *text, const char *actual, const char *expected) {
    TEST_HERE(line);
    if (strcmp(actual, expected) != 0) test_fail(file, line, "%s is \"%s\", not \"%s\"", text, actual, expected);
}
static inline void test_check_status(const char *file, int line, const char *call, int32_t actual, int32_t expected) {
    TEST_HERE(line);
    if (actual != expected)
        test_fail(file, line, "%s is %d (%s), not %d (%s); the last message is \"%s\"", call, (int)actual, tine_strerror(actual),
                  (int)expected, tine_strerror(expected), tine_last_error_message());
}
/* For before and after: descriptors; mappings with `part` in their line of /proc/self/maps (NULL: all); children. */
static inline int test_count_fds(void) {
    DIR *folder = opendir("/proc/self/fd");
    int count = -3; /* ".", ".." and the folder itself */
    while (folder != NULL && readdir(folder) != NULL) count++;
    return closedir(folder), count;
}
static inline int test_count_mappings(const char *part) {
    FILE *maps = fopen("/proc/self/maps", "re");
    int count = 0;
    for (char line[4600]; maps != NULL && fgets(line, sizeof line, maps) != NULL;) count += !part || strstr(line, part) != NULL;
    return fclose(maps), count;
}
static inline int under_valgrind(void) { return test_count_mappings("vgpreload") > 0; }
static inline int test_signal_children(int signal) { /* zombies count too; 0: only counts */
    DIR *folder = opendir("/proc");
    int count = 0;
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        char line[300], *name_end;
        int parent = 0, pid = atoi(entry->d_name);
        snprintf(line, sizeof line, "/proc/%d/stat", pid);
        FILE *file = pid > 0 ? fopen(line, "re") : NULL;
        if (file == NULL) continue;
        if (fgets(line, sizeof line, file) != NULL && (name_end = strrchr(line, ')')) != NULL) sscanf(name_end, ") %*c %d", &parent);
        fclose(file);
        if (parent == getpid()) count++, signal != 0 ? kill(pid, signal) : 0;
    }
    return closedir(folder), count;
}
static inline int test_count_children(void) { return test_signal_children(0); }
/* Becomes this program's TEST_PROGRAM(name). Not by /proc/self/exe: under valgrind that is valgrind. */
static inline void test_execute(const char *name) {
    char self[4096];
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length > 0) self[length] = '\0', execl(self, self, "--direct", name, (char *)NULL);
    _exit(127);
}
/* Waits for one child (-1: for all), for so many seconds times the scale at most: whether there is none any more. */
static int test_await(pid_t pid, int seconds, int *status) {
    const char *scale = getenv("TINE_TEST_TIMEOUT_SCALE");
    struct timespec now, left = { 0, 0 };
    sigset_t ended;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const time_t end = now.tv_sec + 1 + seconds * (scale != NULL && atoi(scale) > 0 ? atoi(scale) : 1);
    for (sigemptyset(&ended), sigaddset(&ended, SIGCHLD);; sigtimedwait(&ended, NULL, &left)) {
        pid_t got;
        while ((got = waitpid(pid, status, WNOHANG)) > 0 && pid == -1) {}
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (got != 0 || now.tv_sec >= end) return got != 0;
        left.tv_sec = end - now.tv_sec;
    }
}
static int test_run(const struct test *test, int number, const sigset_t *mask) {
    int status = *test_line = 0;
    fflush(NULL);
    const pid_t pid = fork();
    if (pid == 0) { /* leaks are those of the test's own process: the copies that it forks free nothing */
        sigprocmask(SIG_SETMASK, mask, NULL), test->run();
        exit(__lsan_do_recoverable_leak_check != NULL && __lsan_do_recoverable_leak_check());
    }
    const int in_time = pid > 0 && test_await(pid, test->seconds, &status), left_behind = in_time && status == 0 && !test_await(-1, 10, NULL);
    while (test_signal_children(SIGKILL) > 0) test_await(-1, 1, NULL);
    const int skipped = WIFEXITED(status) && WEXITSTATUS(status) == 77, good = skipped || (in_time && status == 0 && !left_behind);
    printf("%s %d - %s%s", good ? "ok" : "not ok", number, test->name, skipped ? " # skip" : good ? "" : ": ");
    if (!in_time) printf("did not end in time; its last check was in line %d", *test_line);
    else if (left_behind) printf("left a process behind");
    else if (WIFSIGNALED(status)) printf("signal %d; its last check was in line %d", WTERMSIG(status), *test_line);
    else if (!good) printf("exit code %d", WEXITSTATUS(status));
    return printf("\n"), good;
}
int main(int argc, char **argv) {
    int number = 0, failed = 0, direct = argc == 3 && strcmp(argv[1], "--direct") == 0;
    sigset_t ended, mask;
    for (struct test *test = test_first; direct && test != NULL; test = test->next)
        if (strcmp(argv[2], test->name) == 0) return test->run(), 0;
    test_line = mmap(NULL, sizeof *test_line, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (test_line == MAP_FAILED || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0) return 2;
    signal(SIGCHLD, SIG_DFL);
    sigemptyset(&ended), sigaddset(&ended, SIGCHLD), sigprocmask(SIG_BLOCK, &ended, &mask);
    for (struct test *test = test_first; test != NULL; test = test->next) {
        int chosen = argc < 2 && test->seconds > 0;
        for (int i = 1; i < argc; i++) chosen |= strcmp(argv[i], test->name) == 0;
        if (chosen) failed += !test_run(test, ++number, &mask);
    }
    printf("1..%d\n", number);
    return failed > 0 || number == 0;
}
#endif
