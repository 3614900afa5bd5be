/* Queues between processes. */
#include "test.h"
#include <pthread.h>
#include <sys/resource.h>

static tine_queue_t *new_queue(size_t capacity, size_t capacity_bytes, size_t max_bytes) {
    tine_queue_options_t options = TINE_QUEUE_OPTIONS_INIT;
    tine_queue_t *queue = NULL;
    options.capacity = capacity, options.capacity_bytes = capacity_bytes, options.max_bytes = max_bytes;
    CHECK_OK(tine_queue_new(&options, &queue));
    return queue;
}

static void join(pid_t child) {
    int status;
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
}

TEST(messages_of_every_length_cross_in_order) {
    static const size_t lengths[] = { 0, 1, 7, 8, 9, 63, 64, 255, 256, 257, 1000, 4095, 4096, 4097, 70000, 1 << 20 };
    enum { COUNT = sizeof lengths / sizeof *lengths, ROUNDS = 200 };
    tine_queue_t *queue = new_queue(0, 1024, 0);
    const pid_t child = fork();
    if (child == 0) {
        static unsigned char message[1 << 20];
        for (int i = 0; i < COUNT * ROUNDS; i++) {
            memset(message, i, lengths[i % COUNT]);
            CHECK_OK(tine_queue_put(queue, message, lengths[i % COUNT], TINE_FOREVER));
        }
        _exit(0);
    }
    for (int i = 0; i < COUNT * ROUNDS; i++) {
        unsigned char *data;
        size_t len;
        CHECK_OK(tine_queue_get_alloc(queue, TINE_FOREVER, (void **)&data, &len));
        CHECK_INT(len, lengths[i % COUNT]);
        for (size_t k = 0; k < len; k++) if (data[k] != (unsigned char)i) TEST_FAIL("message %d is torn at %zu", i, k);
        tine_free(data);
    }
    join(child);
    tine_queue_free(queue);
}

TEST(full_and_empty_answer_at_once_and_after_a_time) {
    tine_queue_t *queue = new_queue(1, 0, 0);
    char byte;
    size_t len = 77;
    CHECK_STATUS(tine_queue_get(queue, &byte, 1, 0, &len), TINE_EEMPTY);
    CHECK_MESSAGE("queue: empty");
    CHECK_STATUS(tine_queue_get(queue, &byte, 1, 20, &len), TINE_EEMPTY);
    CHECK_INT(len, 77);
    CHECK(tine_queue_is_empty(queue) && !tine_queue_is_full(queue));
    CHECK_OK(tine_queue_put(queue, "a", 1, 0));
    CHECK_STATUS(tine_queue_put(queue, "b", 1, 0), TINE_EFULL);
    CHECK_STATUS(tine_queue_put(queue, "b", 1, 20), TINE_EFULL);
    CHECK(!tine_queue_is_empty(queue) && tine_queue_is_full(queue));
    CHECK_INT(tine_queue_size(queue), 1);
    CHECK_OK(tine_queue_get(queue, &byte, 1, 0, NULL));
    CHECK_INT(byte, 'a');
    tine_queue_free(queue);
}

TEST(a_small_buffer_leaves_the_message_and_tells_its_length) {
    tine_queue_t *queue = new_queue(0, 0, 0);
    char buffer[8];
    size_t len = 0;
    CHECK_OK(tine_queue_put(queue, "eight by", 8, 0));
    CHECK_STATUS(tine_queue_get(queue, buffer, 7, 0, &len), TINE_ETOOSMALL);
    CHECK_INT(len, 8);
    CHECK_STATUS(tine_queue_get(queue, NULL, 0, 0, NULL), TINE_ETOOSMALL);
    CHECK_OK(tine_queue_get(queue, buffer, 8, 0, &len));
    CHECK(memcmp(buffer, "eight by", 8) == 0);
    tine_queue_free(queue);
}

TEST(limits_on_length_are_kept) {
    tine_queue_t *queue = new_queue(0, 1024, 100000);
    static char message[100001];
    CHECK_STATUS(tine_queue_put(queue, message, 100001, 0), TINE_EMSGSIZE);
    CHECK_MESSAGE("100001");
    CHECK_OK(tine_queue_put(queue, message, 100000, 0));
    CHECK_STATUS(tine_queue_put(queue, message, 5000, 0), TINE_EFULL);
    CHECK_OK(tine_queue_put(queue, message, 100, 0));
    tine_queue_free(queue);
    queue = new_queue(0, 0, 0);
    CHECK_STATUS(tine_queue_put(queue, message, ((size_t)1 << 31) + 1, 0), TINE_EMSGSIZE);
    tine_queue_free(queue);
}

TEST(a_file_size_limit_is_an_error_and_no_signal) {
    tine_queue_t *queue = new_queue(0, 1024, 0);
    static char message[1 << 20];
    CHECK_OK(tine_queue_put(queue, message, 100000, 0));
    const struct rlimit limit = { 65536, 65536 };
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
    CHECK_STATUS(tine_queue_put(queue, message, sizeof message, 0), TINE_ENOSPC);
    tine_queue_options_t options = TINE_QUEUE_OPTIONS_INIT;
    tine_queue_t *second = NULL;
    CHECK_STATUS(tine_queue_new(&options, &second), TINE_ENOSPC);
    CHECK_MESSAGE("RLIMIT_FSIZE");
    void *data;
    CHECK_OK(tine_queue_get_alloc(queue, 0, &data, NULL));
    tine_free(data);
    tine_queue_free(queue);
}

static void *sleep_in_get(void *queue) {
    CHECK_STATUS(tine_queue_get(queue, NULL, 0, TINE_FOREVER, NULL), TINE_ECLOSED);
    return NULL;
}

/* Whether the thread sleeps in futex(2): only then it is "asleep after close". */
static void await_sleepers(int count) {
    for (int asleep = 0; asleep < count;) {
        DIR *tasks = opendir("/proc/self/task");
        asleep = 0;
        for (struct dirent *entry; (entry = readdir(tasks)) != NULL;) {
            char path[300], line[64] = "";
            snprintf(path, sizeof path, "/proc/self/task/%s/syscall", entry->d_name);
            FILE *file = fopen(path, "r");
            if (file == NULL) continue;
            if (fgets(line, sizeof line, file) != NULL && atoi(line) == 202 /* futex on x86-64 */) asleep++;
            if (line[0] == '9' && line[1] == '8') asleep++; /* and on aarch64 */
            fclose(file);
        }
        closedir(tasks);
        sched_yield();
    }
}

TEST(close_wakes_everybody_and_the_handle_may_be_freed_at_once) {
    enum { THREADS = 3 };
    tine_queue_t *queue = new_queue(0, 0, 0);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) CHECK_INT(pthread_create(&threads[i], NULL, sleep_in_get, queue), 0);
    await_sleepers(THREADS);
    CHECK_OK(tine_queue_close(queue));
    tine_queue_free(queue);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
}

TEST(a_closed_queue_drains_in_every_process) {
    tine_queue_t *queue = new_queue(0, 0, 0);
    CHECK_OK(tine_queue_put(queue, "x", 1, 0));
    const pid_t child = fork();
    if (child == 0) CHECK_OK(tine_queue_close(queue)), tine_queue_free(queue), _exit(0);
    join(child);
    CHECK_STATUS(tine_queue_put(queue, "y", 1, TINE_FOREVER), TINE_ECLOSED);
    char byte;
    CHECK_OK(tine_queue_get(queue, &byte, 1, TINE_FOREVER, NULL));
    CHECK_STATUS(tine_queue_get(queue, &byte, 1, TINE_FOREVER, NULL), TINE_ECLOSED);
    CHECK_OK(tine_queue_close(queue));
    tine_queue_free(queue);
}

TEST(a_peer_stopped_inside_an_operation_costs_no_more_than_the_timeout) {
    tine_queue_t *queue = new_queue(0, 1024, 0);
    const pid_t child = fork(); /* puts and gets until it is stopped at some point */
    if (child == 0) for (char b[8];;) tine_queue_put(queue, b, 8, 0), tine_queue_get(queue, b, 8, 0, NULL);
    for (int i = 0; i < 200; i++) {
        char byte[8];
        int32_t status;
        int stop;
        kill(child, SIGSTOP);
        CHECK_INT(waitpid(child, &stop, WUNTRACED), child);
        status = tine_queue_put(queue, "eight by", 8, 5);
        CHECK(status == TINE_OK || status == TINE_EFULL);
        status = tine_queue_get(queue, byte, 8, 5, NULL);
        CHECK(status == TINE_OK || status == TINE_EEMPTY);
        kill(child, SIGCONT);
    }
    kill(child, SIGKILL), waitpid(child, NULL, 0);
    tine_queue_free(queue);
}

TEST(nothing_stays_behind) {
    tine_queue_t *queue = new_queue(0, 0, 0); /* first use */
    tine_queue_free(queue);
    const int fds = test_count_fds(), mappings = test_count_mappings("memfd:tine");
    for (int i = 0; i < 100; i++) {
        queue = new_queue(0, 0, 0);
        CHECK_OK(tine_queue_put(queue, "x", 1, 0));
        tine_queue_free(queue);
    }
    CHECK_INT(test_count_fds(), fds);
    CHECK_INT(test_count_mappings("memfd:tine"), mappings);
}

static long blocks_of(const char *part) { /* memory of the descriptor whose link has `part` in it, in 512 byte blocks */
    long blocks = -1;
    for (int fd = 3; fd < 64; fd++) {
        char path[64], link[256] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (readlink(path, link, sizeof link - 1) <= 0 || strstr(link, part) == NULL) continue;
        const off_t length = lseek(fd, 0, SEEK_END);
        off_t at = 0, data;
        for (blocks = 0; at < length && (data = lseek(fd, at, SEEK_DATA)) >= 0;) {
            const off_t end = lseek(fd, data, SEEK_HOLE);
            blocks += (long)((end - data) / 512), at = end;
        }
    }
    return blocks;
}

TEST(large_messages_give_their_memory_back) {
    tine_queue_t *queue = new_queue(0, 1024, 0);
    static char message[1 << 20];
    const long before = blocks_of("memfd:tine:queue");
    CHECK(before >= 0);
    for (int i = 0; i < 50; i++) {
        void *data;
        CHECK_OK(tine_queue_put(queue, message, sizeof message, 0));
        CHECK(blocks_of("memfd:tine:queue") > before);
        CHECK_OK(tine_queue_get_alloc(queue, 0, &data, NULL));
        tine_free(data);
    }
    CHECK_INT(blocks_of("memfd:tine:queue"), before);
    tine_queue_free(queue);
}
