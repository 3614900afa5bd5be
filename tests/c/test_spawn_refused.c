/* All tests of test_spawn.c where the kernel is old or a filter is strict: no pidfds, no close_range, no child that shares memory. */
#include "test_spawn.c"

#include <linux/filter.h>
#include <linux/seccomp.h>

#define REFUSE(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (call), 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS)

__attribute__((constructor)) static void refuse_all_that(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        REFUSE(SYS_pidfd_open),
        REFUSE(SYS_pidfd_send_signal),
        REFUSE(SYS_close_range),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_VFORK, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof code / sizeof code[0], code };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        printf("# skipped: no seccomp filters here\n1..0\n");
        exit(0);
    }
}

/* One thread is held up behind its second pipe: that by which a child that is a copy tells why it failed. */
static int reached[2], go_on[2];
static __thread int pipes_to_go;
int pipe2(int ends[2], int flags) {
    const int result = (int)syscall(SYS_pipe2, ends, flags);
    if (pipes_to_go > 0 && --pipes_to_go == 0) {
        struct pollfd poll_go_on = { go_on[0], POLLIN, 0 };
        tell(reached[1], 'r');
        poll(&poll_go_on, 1, 100);
    }
    return result;
}
static const char *slow_command;
static int32_t slow_status;
static void *spawn_slowly(void *process) {
    pipes_to_go = 2;
    slow_status = tine_process_spawn(ARGV(slow_command), NULL, process);
    return NULL;
}
TEST(a_command_starts_although_a_copy_of_the_host_was_made_meanwhile) {
    for (int i = 0; i < 2; i++) {
        tine_process_t *process = NULL, *child = NULL;
        struct timespec late;
        pthread_t thread;
        int ends[2];
        pid_t copy = 0;
        make_pipe(ends), make_pipe(reached), make_pipe(go_on);
        slow_command = i == 0 ? "true" : "/no/such/program";
        CHECK_INT(pthread_create(&thread, NULL, spawn_slowly, &process), 0);
        CHECK_INT(hear(reached[0]), 'r');
        if (i == 0) CHECK_OK(tine_process_start(wait_and_tell_nothing, (void *)(intptr_t)ends[0], NULL, &child));
        if (i == 1 && (copy = fork()) == 0) hear(ends[0]), _exit(0); /* the host's own: it has everything */
        tell(go_on[1], 0);
        clock_gettime(CLOCK_REALTIME, &late);
        late.tv_sec += 10;
        CHECK_INT(pthread_timedjoin_np(thread, NULL, &late), 0);
        CHECK_STATUS(slow_status, i == 0 ? TINE_OK : TINE_ENOENT);
        if (i == 0) CHECK_INT(finish(process), 0);
        tell(ends[1], 0);
        i == 0 ? CHECK_INT(finish(child), 0) : CHECK_INT(status_of(copy), 0);
    }
}
