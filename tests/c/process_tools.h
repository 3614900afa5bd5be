/* What the tests of processes and of pools share: pipes between them, programs beside them, and what /proc tells of them. */
#ifndef PROCESS_TOOLS_H
#define PROCESS_TOOLS_H
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include "test.h"

static inline int64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000) + now.tv_nsec / 1000;
}
static inline int has_pidfd(void) {
    const int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (fd >= 0) close(fd);
    return fd >= 0;
}
static inline int under_asan(void) { return test_count_mappings("libasan") > 0; }
static inline void make_pipe(int ends[2]) { CHECK_INT(pipe2(ends, O_CLOEXEC), 0); }
static inline void tell(int fd, char what) { CHECK_INT(write(fd, &what, 1), 1); }
static inline char hear(int fd) { /* 0: end of file */
    char what = 0;
    ssize_t got;
    while ((got = read(fd, &what, 1)) < 0 && errno == EINTR) {}
    CHECK(got >= 0);
    return got == 0 ? 0 : what;
}
static inline const char *hear_all(int fd) { /* until the end of file */
    static char text[64 << 10];
    size_t length = 0;
    ssize_t got;
    while ((got = read(fd, text + length, sizeof text - 1 - length)) > 0) length += (size_t)got;
    CHECK(got == 0);
    text[length] = 0;
    return text;
}
static inline int status_of(pid_t pid) {
    int status = -1;
    CHECK_INT(waitpid(pid, &status, 0), pid);
    return status;
}
/* Runs a TEST_PROGRAM of the same file, with `out` as its standard output and error. */
static inline pid_t run_program(const char *name, int out) {
    const pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        dup2(out, 1), dup2(out, 2);
        test_execute(name);
    }
    return pid;
}

/* ---- Commands and children ---- */
#define ARGV(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define SH(script) ARGV("sh", "-c", script)
#define PROGRAM(name) ARGV(self(), "--direct", #name) /* a TEST_PROGRAM of the same file */
static inline const char *self(void) {
    static char path[4096];
    const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    CHECK(length > 0);
    return path[length] = 0, path;
}
static inline tine_process_t *spawn_with(const char *const *argv, const tine_spawn_options_t *options) {
    tine_process_t *process = NULL;
    CHECK_OK(tine_process_spawn(argv, options, &process));
    return process;
}
static inline int32_t code_of(tine_process_t *process) {
    int32_t code = 1000;
    CHECK_OK(tine_process_join(process, TINE_FOREVER));
    CHECK_OK(tine_process_exit_code(process, &code));
    return code;
}
static inline int32_t finish(tine_process_t *process) {
    const int32_t code = code_of(process);
    tine_process_free(process);
    return code;
}

/* ---- /proc ---- */
/* The text behind `field` ("PPid:") in /proc/PID/status; "" if there is no such process. */
static inline const char *proc_field(const char *pid, const char *field) {
    static __thread char line[512];
    char path[300];
    snprintf(path, sizeof path, "/proc/%s/status", pid);
    FILE *file = fopen(path, "re");
    const char *found = "";
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, field, strlen(field)) == 0) {
            line[strcspn(line, "\n")] = 0;
            found = line + strlen(field);
            found += strspn(found, " \t");
            break;
        }
    if (file != NULL) fclose(file);
    return found;
}
static inline const char *field_of(pid_t pid, const char *field) {
    char text[20];
    snprintf(text, sizeof text, "%d", pid);
    return proc_field(text, field);
}
static inline pid_t parent_of(pid_t pid) { return (pid_t)atoi(field_of(pid, "PPid:")); }
static inline int is_gone(pid_t pid) { /* a zombie runs nothing */
    const char state = field_of(pid, "State:")[0];
    return state == 0 || state == 'Z' || state == 'X';
}
/* Looks until the process is gone, for so many seconds times the scale at most. */
static inline int await_gone(pid_t pid, int seconds) {
    const char *scale = getenv("TINE_TEST_TIMEOUT_SCALE");
    const int64_t end = now_us() + INT64_C(1000000) * seconds * (scale != NULL && atoi(scale) > 0 ? atoi(scale) : 1);
    while (!is_gone(pid) && now_us() < end) poll(NULL, 0, 2);
    return is_gone(pid);
}

static inline int processes_of_session(pid_t session) { /* zombies are nobody */
    DIR *folder = opendir("/proc");
    int count = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        const pid_t pid = atoi(entry->d_name);
        if (pid > 0 && getsid(pid) == session && !is_gone(pid)) count++;
    }
    return closedir(folder), count;
}

/* ---- Threads that are inside a stream, and say so with a byte to `stream_ready` ---- */
static int stream_ready;
static inline void *read_stdin(void *unused) {
    char line[10];
    (void)unused;
    tell(stream_ready, 'r');
    return fgets(line, sizeof line, stdin);
}
static inline void *hold_stdout(void *fd) { /* until a byte comes */
    flockfile(stdout);
    tell(stream_ready, 'r');
    hear((int)(intptr_t)fd);
    funlockfile(stdout);
    return NULL;
}
#endif
