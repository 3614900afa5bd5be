/* Pipes. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include "test.h"

enum { LARGE = 5 << 20, INLINE_MAX = 64 << 10 };

struct ends { tine_connection_t *a, *b; };
static struct ends make(uint32_t flags) {
    struct ends ends = { NULL, NULL };
    CHECK_OK(tine_pipe_new(flags, &ends.a, &ends.b));
    return ends;
}
static void release(struct ends ends) { tine_connection_free(ends.a), tine_connection_free(ends.b); }
static void send_text(tine_connection_t *to, const char *text) { CHECK_OK(tine_connection_send(to, text, strlen(text), TINE_FOREVER)); }
static void check_text(tine_connection_t *from, const char *expected) {
    char text[100];
    size_t length = 1000;
    CHECK_OK(tine_connection_recv(from, text, sizeof text - 1, TINE_FOREVER, &length));
    text[length] = 0;
    CHECK_TEXT(text, expected);
}
static unsigned char *pattern(size_t length, unsigned seed) {
    unsigned char *bytes = malloc(length);
    CHECK(bytes != NULL);
    for (size_t i = 0; i < length; i++) bytes[i] = (unsigned char)((i * 31 + seed) ^ (i >> 9));
    return bytes;
}
static void join(pid_t child) {
    int status = -1;
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
}

TEST(messages_go_both_ways_and_stay_apart) {
    struct ends ends = make(0);
    send_text(ends.a, "one"), send_text(ends.a, "two"), send_text(ends.b, "back");
    check_text(ends.b, "one"), check_text(ends.b, "two"), check_text(ends.a, "back");
    release(ends);
}

TEST(messages_pass_between_processes) {
    struct ends ends = make(0);
    const pid_t child = tine_fork();
    if (child == 0) {
        tine_connection_free(ends.a);
        check_text(ends.b, "ping"), send_text(ends.b, "pong");
        tine_connection_free(ends.b);
        _exit(0);
    }
    tine_connection_free(ends.b);
    send_text(ends.a, "ping"), check_text(ends.a, "pong");
    CHECK_STATUS(tine_connection_recv(ends.a, NULL, 0, TINE_FOREVER, NULL), TINE_EEOF);
    tine_connection_free(ends.a);
    join(child);
}

TEST(an_empty_message_is_not_the_end) {
    struct ends ends = make(0);
    size_t length = 1000;
    void *data = NULL;
    CHECK_OK(tine_connection_send(ends.a, NULL, 0, 0));
    CHECK_OK(tine_connection_send(ends.a, NULL, 0, 0));
    CHECK_OK(tine_connection_close(ends.a));
    CHECK_OK(tine_connection_poll(ends.b, 0));
    CHECK_OK(tine_connection_recv(ends.b, NULL, 0, 0, &length));
    CHECK_INT(length, 0);
    length = 1000;
    CHECK_OK(tine_connection_recv_alloc(ends.b, 0, &data, &length));
    CHECK_INT(length, 0);
    CHECK(data != NULL);
    tine_free(data);
    CHECK_OK(tine_connection_poll(ends.b, TINE_FOREVER)); /* the end is something to tell, too */
    CHECK_STATUS(tine_connection_recv(ends.b, NULL, 0, TINE_FOREVER, &length), TINE_EEOF);
    CHECK_STATUS(tine_connection_recv_alloc(ends.b, 0, &data, &length), TINE_EEOF);
    CHECK_STATUS(tine_connection_send(ends.b, "x", 1, 0), TINE_EEOF);
    release(ends);
}

TEST(the_end_comes_after_all_messages_also_if_some_were_left_unread) {
    struct ends ends = make(0);
    send_text(ends.a, "last words"), send_text(ends.b, "unread");
    tine_connection_free(ends.a);
    check_text(ends.b, "last words");
    CHECK_STATUS(tine_connection_recv(ends.b, NULL, 0, 0, NULL), TINE_EEOF);
    tine_connection_free(ends.b);
    ends = make(0);
    send_text(ends.b, "unread");
    tine_connection_free(ends.a);
    CHECK_STATUS(tine_connection_send(ends.b, "x", 1, TINE_FOREVER), TINE_EEOF); /* and no SIGPIPE */
    CHECK_STATUS(tine_connection_send(ends.b, "x", 1, TINE_FOREVER), TINE_EEOF);
    tine_connection_free(ends.b);
}

TEST(the_end_waits_for_every_copy_of_the_other_end) {
    struct ends ends = make(0);
    int go[2];
    char byte;
    CHECK_INT(pipe(go), 0);
    const pid_t child = tine_fork();
    if (child == 0) {
        CHECK_INT(read(go[0], &byte, 1), 1);
        release(ends);
        _exit(0);
    }
    tine_connection_free(ends.b);
    CHECK_STATUS(tine_connection_recv(ends.a, NULL, 0, 20, NULL), TINE_ETIMEDOUT);
    CHECK_INT(write(go[1], "g", 1), 1);
    CHECK_STATUS(tine_connection_recv(ends.a, NULL, 0, TINE_FOREVER, NULL), TINE_EEOF);
    tine_connection_free(ends.a);
    join(child);
}

TEST(a_simplex_pipe_has_a_direction) {
    struct ends ends = make(TINE_PIPE_SIMPLEX);
    int fd;
    void *data;
    send_text(ends.b, "down");
    check_text(ends.a, "down");
    CHECK_STATUS(tine_connection_send(ends.a, "up", 2, 0), TINE_EPERM);
    CHECK_STATUS(tine_connection_send_fd(ends.a, 0, 0), TINE_EPERM);
    CHECK_STATUS(tine_connection_recv(ends.b, NULL, 0, 0, NULL), TINE_EPERM);
    CHECK_STATUS(tine_connection_recv_alloc(ends.b, 0, &data, NULL), TINE_EPERM);
    CHECK_STATUS(tine_connection_recv_fd(ends.b, 0, &fd), TINE_EPERM);
    CHECK_STATUS(tine_connection_poll(ends.b, 0), TINE_EPERM);
    tine_connection_free(ends.b);
    CHECK_STATUS(tine_connection_recv(ends.a, NULL, 0, 0, NULL), TINE_EEOF);
    tine_connection_free(ends.a);
}

TEST(nothing_there_is_a_timeout) {
    struct ends ends = make(0);
    int fd;
    void *data;
    for (int64_t timeout = 0; timeout <= 10; timeout += 10) {
        CHECK_STATUS(tine_connection_recv(ends.a, NULL, 0, timeout, NULL), TINE_ETIMEDOUT);
        CHECK_STATUS(tine_connection_recv_alloc(ends.a, timeout, &data, NULL), TINE_ETIMEDOUT);
        CHECK_STATUS(tine_connection_recv_fd(ends.a, timeout, &fd), TINE_ETIMEDOUT);
        CHECK_STATUS(tine_connection_poll(ends.a, timeout), TINE_ETIMEDOUT);
    }
    release(ends);
}

TEST(a_small_buffer_leaves_the_message_and_tells_its_length) {
    struct ends ends = make(0);
    char buffer[10];
    size_t length = 0;
    unsigned char *large = pattern(LARGE, 1), *got = malloc(LARGE);
    send_text(ends.a, "eleven char");
    for (int i = 0; i < 3; i++) {
        length = 0;
        CHECK_STATUS(tine_connection_recv(ends.b, buffer, sizeof buffer, TINE_FOREVER, &length), TINE_ETOOSMALL);
        CHECK_INT(length, 11);
        CHECK_OK(tine_connection_poll(ends.b, 0));
    }
    check_text(ends.b, "eleven char");
    CHECK_OK(tine_connection_send(ends.a, large, LARGE, TINE_FOREVER));
    const int fds = test_count_fds();
    CHECK_STATUS(tine_connection_recv(ends.b, buffer, sizeof buffer, TINE_FOREVER, &length), TINE_ETOOSMALL);
    CHECK_INT(length, LARGE);
    CHECK_INT(test_count_fds(), fds);
    CHECK_OK(tine_connection_recv(ends.b, got, LARGE, TINE_FOREVER, &length));
    CHECK_INT(length, LARGE);
    CHECK(memcmp(large, got, LARGE) == 0);
    free(large), free(got);
    release(ends);
}

TEST(messages_of_every_size_arrive_whole) {
    static const size_t sizes[] = { 0, 1, 15, 16, 4095, 4096, INLINE_MAX - 1, INLINE_MAX, INLINE_MAX + 1, 1 << 20, LARGE };
    enum { COUNT = sizeof sizes / sizeof sizes[0] };
    struct ends ends = make(0);
    const int fds = test_count_fds();
    const pid_t child = tine_fork();
    if (child == 0) {
        for (unsigned i = 0; i < COUNT; i++) {
            unsigned char *bytes = pattern(sizes[i] + 1, i);
            CHECK_OK(tine_connection_send(ends.a, bytes, sizes[i], TINE_FOREVER));
            free(bytes);
        }
        release(ends);
        _exit(0);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        unsigned char *bytes = pattern(sizes[i] + 1, i);
        void *data = NULL;
        size_t length = 1000;
        CHECK_OK(tine_connection_recv_alloc(ends.b, TINE_FOREVER, &data, &length));
        CHECK_INT(length, sizes[i]);
        CHECK(memcmp(bytes, data, length) == 0);
        tine_free(data), free(bytes);
    }
    join(child);
    CHECK(test_count_fds() <= fds + 1); /* one that wakes sleepers */
    release(ends);
}

TEST(what_is_sent_may_change_afterwards) {
    struct ends ends = make(0);
    unsigned char *bytes = pattern(LARGE, 3), *copy = pattern(LARGE, 3);
    void *data = NULL;
    CHECK_OK(tine_connection_send(ends.a, bytes, LARGE, TINE_FOREVER));
    memset(bytes, 0, LARGE);
    CHECK_OK(tine_connection_recv_alloc(ends.b, TINE_FOREVER, &data, NULL));
    CHECK(memcmp(copy, data, LARGE) == 0);
    tine_free(data), free(bytes), free(copy);
    release(ends);
}

TEST(a_full_pipe_is_a_timeout_and_goes_on) {
    struct ends ends = make(0);
    unsigned sent = 0, received = 0, number = 0;
    size_t length;
    while (tine_connection_send(ends.a, &sent, sizeof sent, 0) == TINE_OK) sent++;
    CHECK(sent > 0);
    CHECK_STATUS(tine_connection_send(ends.a, &sent, sizeof sent, 0), TINE_ETIMEDOUT);
    CHECK_STATUS(tine_connection_send(ends.a, &sent, sizeof sent, 10), TINE_ETIMEDOUT);
    unsigned char *large = pattern(LARGE, 0);
    CHECK_STATUS(tine_connection_send(ends.a, large, LARGE, 10), TINE_ETIMEDOUT);
    free(large);
    for (; tine_connection_recv(ends.b, &number, sizeof number, 0, &length) == TINE_OK; received++) CHECK_INT(number, received);
    CHECK_INT(received, sent); /* nothing of those that ran out of time */
    send_text(ends.a, "on"), check_text(ends.b, "on");
    release(ends);
}

static void *send_when_room(void *connection) {
    return tine_connection_send(connection, "waited", 6, TINE_FOREVER) == TINE_OK ? connection : NULL;
}

TEST(a_sender_waits_for_room) {
    struct ends ends = make(0);
    pthread_t thread;
    void *result = NULL;
    char buffer[10];
    size_t length = 0;
    while (tine_connection_send(ends.a, "x", 1, 0) == TINE_OK) {}
    CHECK_INT(pthread_create(&thread, NULL, send_when_room, ends.a), 0);
    do CHECK_OK(tine_connection_recv(ends.b, buffer, sizeof buffer, TINE_FOREVER, &length));
    while (length == 1);
    CHECK_INT(length, 6);
    CHECK_INT(pthread_join(thread, &result), 0);
    CHECK(result == ends.a);
    release(ends);
}

TEST(several_processes_may_send_on_one_end) {
    enum { SENDERS = 4, MESSAGES = 300 };
    struct ends ends = make(0);
    pid_t children[SENDERS];
    unsigned next[SENDERS] = { 0 };
    for (unsigned i = 0; i < SENDERS; i++)
        if ((children[i] = tine_fork()) == 0) {
            tine_connection_free(ends.b);
            for (unsigned k = 0; k < MESSAGES; k++) {
                const size_t length = k % 50 == 0 ? INLINE_MAX + 100 : 8 + k;
                unsigned *message = calloc(1, length + 8);
                message[0] = i, message[1] = k;
                CHECK_OK(tine_connection_send(ends.a, message, length, TINE_FOREVER));
                free(message);
            }
            tine_connection_free(ends.a);
            _exit(0);
        }
    tine_connection_free(ends.a);
    for (unsigned left = SENDERS * MESSAGES; left > 0; left--) {
        void *data = NULL;
        size_t length = 0;
        CHECK_OK(tine_connection_recv_alloc(ends.b, TINE_FOREVER, &data, &length));
        const unsigned i = ((unsigned *)data)[0], k = ((unsigned *)data)[1];
        CHECK(i < SENDERS);
        CHECK_INT(k, next[i]++);
        CHECK_INT(length, k % 50 == 0 ? INLINE_MAX + 100 : 8 + k);
        tine_free(data);
    }
    CHECK_STATUS(tine_connection_recv(ends.b, NULL, 0, TINE_FOREVER, NULL), TINE_EEOF);
    for (int i = 0; i < SENDERS; i++) join(children[i]);
    tine_connection_free(ends.b);
}

/* Receivers with too small a buffer beside others take nothing from them. */
static int receive_all(tine_connection_t *from, size_t capacity) {
    int count = 0;
    char *buffer = malloc(capacity);
    for (;;) {
        size_t length = 0;
        const tine_status_t status = tine_connection_recv(from, buffer, capacity, TINE_FOREVER, &length);
        if (status == TINE_EEOF) break;
        CHECK(status == TINE_OK || status == TINE_ETOOSMALL);
        if (status == TINE_OK) {
            for (size_t i = 0; i < length; i++) CHECK_INT(buffer[i], (char)length);
            count++;
        }
    }
    free(buffer);
    return count;
}

TEST(several_processes_may_receive_on_one_end) {
    enum { RECEIVERS = 3, MESSAGES = 3000 };
    struct ends ends = make(0);
    int counts[2], sum = 0, count;
    pid_t children[RECEIVERS];
    CHECK_INT(pipe(counts), 0);
    for (int i = 0; i < RECEIVERS; i++)
        if ((children[i] = tine_fork()) == 0) {
            tine_connection_free(ends.a);
            count = receive_all(ends.b, i == 0 ? 40 : 100);
            CHECK_INT(write(counts[1], &count, sizeof count), sizeof count);
            tine_connection_free(ends.b);
            _exit(0);
        }
    for (int i = 0; i < MESSAGES; i++) {
        char message[100];
        const size_t length = (size_t)(i % 100) + 1;
        memset(message, (int)length, length);
        CHECK_OK(tine_connection_send(ends.a, message, length, TINE_FOREVER));
    }
    tine_connection_free(ends.a);
    for (int i = 0; i < RECEIVERS; i++) {
        join(children[i]);
        CHECK_INT(read(counts[0], &count, sizeof count), sizeof count);
        sum += count;
    }
    CHECK_INT(sum, MESSAGES);
    tine_connection_free(ends.b);
}

TEST(a_killed_sender_leaves_no_part_of_a_message) {
    enum { ROUNDS = 30 };
    for (int round = 0; round < ROUNDS; round++) {
        struct ends ends = make(0);
        const pid_t child = tine_fork();
        if (child == 0) {
            unsigned char *bytes = pattern(1 << 20, 7);
            for (;;) CHECK_OK(tine_connection_send(ends.a, bytes, 1 << 20, TINE_FOREVER));
        }
        tine_connection_free(ends.a);
        unsigned char *expected = pattern(1 << 20, 7);
        tine_status_t status;
        void *data;
        size_t length;
        for (int got = 0; (status = tine_connection_recv_alloc(ends.b, TINE_FOREVER, &data, &length)) == TINE_OK; got++) {
            CHECK_INT(length, 1 << 20);
            CHECK(memcmp(data, expected, length) == 0);
            tine_free(data);
            if (got == round % 7) CHECK_INT(kill(child, SIGKILL), 0);
        }
        CHECK_STATUS(status, TINE_EEOF);
        free(expected);
        tine_connection_free(ends.b);
        int killed;
        CHECK_INT(waitpid(child, &killed, 0), child);
    }
}

TEST(a_killed_receiver_does_not_keep_the_others_from_receiving) {
    struct ends ends = make(0);
    for (int round = 0; round < 40; round++) {
        const pid_t child = tine_fork();
        if (child == 0) receive_all(ends.b, 100), _exit(0);
        for (int i = 0; i < round; i++) CHECK_OK(tine_connection_send(ends.a, "\1", 1, TINE_FOREVER));
        CHECK_INT(kill(child, SIGKILL), 0);
        int killed;
        CHECK_INT(waitpid(child, &killed, 0), child);
    }
    while (tine_connection_poll(ends.b, 0) == TINE_OK) CHECK_OK(tine_connection_recv(ends.b, &(char){ 0 }, 1, 0, NULL));
    send_text(ends.a, "still"), check_text(ends.b, "still");
    release(ends);
}

TEST(descriptors_can_be_sent) {
    struct ends ends = make(0);
    int ends_of_pipe[2], got = -1;
    char byte = 0;
    CHECK_INT(pipe(ends_of_pipe), 0);
    const int fds = test_count_fds();
    send_text(ends.a, "first");
    CHECK_OK(tine_connection_send_fd(ends.a, ends_of_pipe[1], TINE_FOREVER));
    CHECK_STATUS(tine_connection_recv_fd(ends.b, TINE_FOREVER, &got), TINE_EMSGSIZE); /* bytes come first */
    CHECK_INT(got, -1);
    check_text(ends.b, "first");
    CHECK_STATUS(tine_connection_recv(ends.b, &byte, 1, TINE_FOREVER, NULL), TINE_EMSGSIZE);
    void *data;
    CHECK_STATUS(tine_connection_recv_alloc(ends.b, TINE_FOREVER, &data, NULL), TINE_EMSGSIZE);
    CHECK_INT(test_count_fds(), fds); /* nothing was taken, nothing leaked */
    CHECK_OK(tine_connection_recv_fd(ends.b, 0, &got));
    CHECK(fcntl(got, F_GETFD) & FD_CLOEXEC);
    CHECK_INT(test_count_fds(), fds + 1);
    CHECK_INT(write(got, "x", 1), 1);
    CHECK_INT(read(ends_of_pipe[0], &byte, 1), 1);
    CHECK_INT(byte, 'x');
    close(got);
    CHECK_STATUS(tine_connection_send_fd(ends.a, -1, 0), TINE_EINVAL);
    CHECK_STATUS(tine_connection_send_fd(ends.a, 1000, 0), TINE_EINVAL);
    CHECK_MESSAGE("fd");
    release(ends);
}

TEST(without_descriptors_nothing_is_lost) {
    if (under_valgrind()) SKIP("valgrind has a limit of descriptors of its own");
    struct ends ends = make(0);
    struct rlimit limit;
    int got = -1;
    unsigned char *large = pattern(LARGE, 2), *buffer = malloc(LARGE);
    size_t length = 0;
    CHECK_OK(tine_connection_send(ends.a, large, LARGE, TINE_FOREVER));
    CHECK_OK(tine_connection_send_fd(ends.a, 0, TINE_FOREVER));
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    const struct rlimit none = { 3, limit.rlim_max };
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &none), 0);
    CHECK_STATUS(tine_connection_send(ends.a, large, LARGE, 0), TINE_EMFILE);
    CHECK_STATUS(tine_connection_recv(ends.b, buffer, LARGE, TINE_FOREVER, &length), TINE_EMFILE);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    CHECK_OK(tine_connection_recv(ends.b, buffer, LARGE, TINE_FOREVER, &length));
    CHECK(memcmp(buffer, large, LARGE) == 0);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &none), 0);
    CHECK_STATUS(tine_connection_recv_fd(ends.b, TINE_FOREVER, &got), TINE_EMFILE);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    CHECK_OK(tine_connection_recv_fd(ends.b, TINE_FOREVER, &got));
    close(got), free(large), free(buffer);
    release(ends);
}

TEST(a_limit_on_file_sizes_is_an_answer_and_no_signal) {
    struct ends ends = make(0);
    const struct rlimit limit = { 1 << 20, 1 << 20 };
    unsigned char *large = pattern(LARGE, 2);
    const int fds = test_count_fds();
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
    CHECK_STATUS(tine_connection_send(ends.a, large, LARGE, TINE_FOREVER), TINE_ENOSPC);
    CHECK_INT(test_count_fds(), fds);
    send_text(ends.a, "small"), check_text(ends.b, "small");
    free(large);
    release(ends);
}

TEST(the_descriptor_is_level_triggered) {
    struct ends ends = make(0);
    struct pollfd ready = { tine_connection_fd(ends.b), POLLIN, 0 };
    CHECK(ready.fd >= 0);
    CHECK_INT(poll(&ready, 1, 0), 0);
    send_text(ends.a, "one"), send_text(ends.a, "two");
    CHECK_INT(poll(&ready, 1, -1), 1);
    CHECK_OK(tine_connection_poll(ends.b, TINE_FOREVER)); /* takes nothing */
    check_text(ends.b, "one");
    CHECK_INT(poll(&ready, 1, 0), 1);
    check_text(ends.b, "two");
    CHECK_INT(poll(&ready, 1, 0), 0);
    tine_connection_free(ends.a);
    CHECK_INT(poll(&ready, 1, 0), 1); /* the end */
    tine_connection_free(ends.b);
}

TEST(a_closed_connection_says_so) {
    struct ends ends = make(0);
    int fd;
    void *data;
    const int fds = test_count_fds();
    CHECK_OK(tine_connection_close(ends.a));
    CHECK_INT(test_count_fds(), fds - 1);
    CHECK_OK(tine_connection_close(ends.a));
    CHECK_STATUS(tine_connection_send(ends.a, "x", 1, 0), TINE_ECLOSED);
    CHECK_STATUS(tine_connection_send_fd(ends.a, 0, 0), TINE_ECLOSED);
    CHECK_STATUS(tine_connection_recv(ends.a, NULL, 0, 0, NULL), TINE_ECLOSED);
    CHECK_STATUS(tine_connection_recv_alloc(ends.a, 0, &data, NULL), TINE_ECLOSED);
    CHECK_STATUS(tine_connection_recv_fd(ends.a, 0, &fd), TINE_ECLOSED);
    CHECK_STATUS(tine_connection_poll(ends.a, 0), TINE_ECLOSED);
    CHECK_INT(tine_connection_fd(ends.a), -1);
    CHECK_STATUS(tine_connection_recv(ends.b, NULL, 0, TINE_FOREVER, NULL), TINE_EEOF);
    release(ends);
    CHECK_INT(test_count_fds(), fds - 2);
}

static void *receive_until_closed(void *connection) {
    const tine_status_t status = tine_connection_recv(connection, NULL, 0, TINE_FOREVER, NULL);
    return (void *)(intptr_t)status;
}
static void *poll_until_closed(void *connection) { return (void *)(intptr_t)tine_connection_poll(connection, TINE_FOREVER); }
static void *send_until_closed(void *connection) {
    tine_status_t status;
    while ((status = tine_connection_send(connection, "x", 1, TINE_FOREVER)) == TINE_OK) {}
    return (void *)(intptr_t)status;
}

TEST(closing_wakes_who_sleeps_there) {
    for (int round = 0; round < 100; round++) {
        struct ends ends = make(0);
        void *(*const sleepers[])(void *) = { receive_until_closed, poll_until_closed, send_until_closed };
        pthread_t threads[3];
        for (int i = 0; i < 3; i++) CHECK_INT(pthread_create(&threads[i], NULL, sleepers[i], ends.a), 0);
        CHECK_OK(tine_connection_poll(ends.b, TINE_FOREVER));
        CHECK_OK(tine_connection_close(ends.a));
        for (int i = 0; i < 3; i++) {
            void *status = NULL;
            CHECK_INT(pthread_join(threads[i], &status), 0);
            CHECK_INT((intptr_t)status, TINE_ECLOSED);
        }
        release(ends);
    }
}

TEST(closing_in_a_child_closes_its_copy_only) {
    struct ends ends = make(0);
    const pid_t child = tine_fork();
    if (child == 0) {
        CHECK_OK(tine_connection_close(ends.a));
        tine_connection_free(ends.b); /* never used here */
        CHECK_STATUS(tine_connection_send(ends.a, "x", 1, 0), TINE_ECLOSED);
        tine_connection_free(ends.a);
        _exit(0);
    }
    join(child);
    send_text(ends.a, "still open"), check_text(ends.b, "still open");
    release(ends);
}

TEST(a_child_without_the_descriptor_does_not_use_another_under_its_number) {
    struct ends ends = make(0);
    const int number = tine_connection_fd(ends.a);
    const pid_t child = tine_fork();
    if (child == 0) {
        int other[2];
        CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, other), 0);
        CHECK(dup2(other[0], number) == number); /* as in a pool's worker: closed, and the number used again */
        CHECK_STATUS(tine_connection_send(ends.a, "x", 1, 0), TINE_ECLOSED);
        CHECK_INT(tine_connection_fd(ends.a), -1);
        release(ends);
        CHECK(fcntl(number, F_GETFD) >= 0);
        _exit(0);
    }
    join(child);
    release(ends);
}

TEST(a_child_forked_beside_a_sleeper_has_its_own_state) {
    static struct ends ends; /* what the sleeper holds is not freed in the child, but reachable */
    pthread_t thread;
    void *status = NULL;
    ends = make(0);
    CHECK_STATUS(tine_connection_recv(ends.a, NULL, 0, 1, NULL), TINE_ETIMEDOUT); /* has slept: there is a bell */
    CHECK_INT(pthread_create(&thread, NULL, receive_until_closed, ends.a), 0);
    const pid_t child = tine_fork();
    if (child == 0) {
        CHECK_STATUS(tine_connection_recv(ends.a, NULL, 0, 10, NULL), TINE_ETIMEDOUT);
        CHECK_OK(tine_connection_close(ends.a));
        _exit(0);
    }
    join(child);
    CHECK_OK(tine_connection_send(ends.b, NULL, 0, 0)); /* the parent's sleeper was not woken by the child's close */
    CHECK_INT(pthread_join(thread, &status), 0);
    CHECK_INT((intptr_t)status, TINE_OK);
    release(ends);
}

TEST(a_connection_is_made_of_a_descriptor) {
    struct ends ends = make(0);
    tine_connection_t *copy = NULL;
    int ends_of_pipe[2], stream[2];
    const int fd = dup(tine_connection_fd(ends.b));
    const int fds = test_count_fds();
    CHECK_OK(tine_connection_from_fd(fd, 0, &copy));
    CHECK_INT(tine_connection_fd(copy), fd);
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    send_text(ends.a, "to both"), check_text(copy, "to both");
    send_text(copy, "back"), check_text(ends.a, "back");
    tine_connection_free(copy);
    CHECK_INT(test_count_fds(), fds - 1);
    CHECK_OK(tine_connection_from_fd(dup(tine_connection_fd(ends.b)), TINE_PIPE_SIMPLEX, &copy));
    CHECK_STATUS(tine_connection_send(copy, "x", 1, 0), TINE_EPERM);
    tine_connection_free(copy), copy = NULL;
    CHECK_INT(pipe(ends_of_pipe), 0);
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, stream), 0);
    CHECK_STATUS(tine_connection_from_fd(ends_of_pipe[0], 0, &copy), TINE_EINVAL);
    CHECK_STATUS(tine_connection_from_fd(stream[0], 0, &copy), TINE_EINVAL);
    CHECK_STATUS(tine_connection_from_fd(-1, 0, &copy), TINE_EINVAL);
    CHECK_MESSAGE("fd: -1 is not an open descriptor");
    CHECK_STATUS(tine_connection_from_fd(stream[0], 2, &copy), TINE_EINVAL);
    CHECK_STATUS(tine_connection_from_fd(socket(AF_UNIX, SOCK_SEQPACKET, 0), 0, &copy), TINE_EINVAL);
    CHECK_MESSAGE("not connected");
    CHECK(copy == NULL);
    tine_connection_free(ends.a), ends.a = NULL; /* an end all the same */
    CHECK_OK(tine_connection_from_fd(dup(tine_connection_fd(ends.b)), 0, &copy));
    CHECK_STATUS(tine_connection_recv(copy, NULL, 0, TINE_FOREVER, NULL), TINE_EEOF);
    tine_connection_free(copy), copy = NULL;
    CHECK(fcntl(ends_of_pipe[0], F_GETFD) >= 0 && fcntl(stream[0], F_GETFD) >= 0); /* stay the caller's */
    release(ends);
}

/* What a broken or hostile peer sends. */
struct header { char magic[4]; uint32_t kind; uint64_t length; };
static void send_raw(int socket, struct header header, size_t length, int carried) {
    struct iovec part = { &header, length };
    union { struct cmsghdr align; char space[CMSG_SPACE(sizeof(int))]; } control = { .space = { 0 } };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
    memset(&control, 0, sizeof control); /* its padding is sent, too */
    if (carried >= 0) {
        message.msg_control = &control, message.msg_controllen = sizeof control;
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET, rights->cmsg_type = SCM_RIGHTS, rights->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(rights), &carried, sizeof carried);
    }
    CHECK(sendmsg(socket, &message, 0) >= 0);
}

TEST(what_is_no_message_is_dropped) {
    const struct header good = { "tine", 2, 4096 };
    struct ends ends = make(0);
    const int socket = tine_connection_fd(ends.a);
    char buffer[4096];
    const int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), unsealed = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK_INT(ftruncate(unsealed, 4096), 0);
    const int sealed = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK_INT(ftruncate(sealed, 100), 0);
    CHECK_INT(fcntl(sealed, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE), 0);
    const int fds = test_count_fds();
    struct { struct header header; size_t length; int carried; } bad[] = {
        { good, 0, -1 },                                                      /* nothing at all, and yet not the end */
        { good, 7, -1 },                                                      /* half a header */
        { { "Tine", 1, 0 }, sizeof good, -1 },                                /* of something else */
        { { "tine", 0, 0 }, sizeof good, -1 },                                /* unknown kinds */
        { { "tine", 4, 0 }, sizeof good, -1 },
        { { "tine", 1, 10 }, sizeof good, -1 },                               /* another length than it has */
        { { "tine", 1, UINT64_MAX }, sizeof good, -1 },
        { { "tine", 2, (1ull << 31) + 1 }, sizeof good, sealed },             /* too long */
        { good, sizeof good, -1 },                                            /* no memory with it */
        { good, sizeof good, file },                                          /* not memory */
        { good, sizeof good, unsealed },                                      /* memory that may change */
        { good, sizeof good, sealed },                                        /* memory of another length */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        send_raw(socket, bad[i].header, bad[i].length, bad[i].carried);
        CHECK_STATUS(tine_connection_recv(ends.b, buffer, sizeof buffer, TINE_FOREVER, NULL), TINE_ECORRUPT);
        CHECK_STATUS(tine_connection_recv(ends.b, buffer, sizeof buffer, 0, NULL), TINE_ETIMEDOUT);
        CHECK_INT(test_count_fds(), fds);
    }
    send_raw(socket, (struct header){ "tine", 3, 0 }, sizeof good, -1);
    CHECK_STATUS(tine_connection_recv_fd(ends.b, TINE_FOREVER, &(int){ 0 }), TINE_ECORRUPT);
    send_raw(socket, (struct header){ "tine", 1, 0 }, sizeof good, file); /* a gift that nobody asked for */
    CHECK_OK(tine_connection_recv(ends.b, buffer, sizeof buffer, 0, NULL));
    CHECK_INT(test_count_fds(), fds);
    send_text(ends.a, "good"), check_text(ends.b, "good");
    release(ends);
}

TEST(bad_arguments_are_refused) {
    struct ends ends = make(0);
    tine_connection_t *none = NULL;
    CHECK_STATUS(tine_pipe_new(2, &none, &none), TINE_EINVAL);
    CHECK_STATUS(tine_pipe_new(0, NULL, &none), TINE_EINVAL);
    CHECK_MESSAGE("out_a");
    CHECK_STATUS(tine_pipe_new(0, &none, NULL), TINE_EINVAL);
    CHECK_STATUS(tine_pipe_new(0, &none, &none), TINE_EINVAL);
    CHECK_MESSAGE("out_b is out_a");
    CHECK_STATUS(tine_connection_send(NULL, "x", 1, 0), TINE_EINVAL);
    CHECK_STATUS(tine_connection_send(ends.a, NULL, 1, 0), TINE_EINVAL);
    CHECK_STATUS(tine_connection_send(ends.a, "x", 1, -2), TINE_EINVAL);
    CHECK_STATUS(tine_connection_recv(ends.a, NULL, 1, 0, NULL), TINE_EINVAL);
    CHECK_STATUS(tine_connection_recv(ends.a, NULL, 0, -2, NULL), TINE_EINVAL);
    CHECK_STATUS(tine_connection_recv_alloc(ends.a, 0, NULL, NULL), TINE_EINVAL);
    CHECK_STATUS(tine_connection_poll(ends.a, -2), TINE_EINVAL);
    CHECK_INT(tine_connection_fd(NULL), -1);
    tine_connection_free(NULL);
    CHECK(none == NULL);
    release(ends);
}

TEST(pipes_leave_nothing_behind) {
    release(make(0));
    const int fds = test_count_fds();
    for (int i = 0; i < 500; i++) {
        struct ends ends = make(i % 2);
        CHECK_OK(tine_connection_send(ends.b, "x", 1, 0));
        CHECK_STATUS(tine_connection_recv(ends.a, NULL, 0, 0, NULL), TINE_ETOOSMALL);
        if (i % 5 == 0) CHECK_STATUS(tine_connection_recv_fd(ends.a, 0, &(int){ 0 }), TINE_EMSGSIZE);
        release(ends);
    }
    CHECK(test_count_fds() <= fds + 1); /* at most one piece of shared memory more */
}
