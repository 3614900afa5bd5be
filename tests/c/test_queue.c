/* Queues between processes. */
#include "test.h"
#include <fcntl.h>
#include <poll.h>
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
    static char message[4 << 20];
    CHECK_OK(tine_queue_put(queue, message, 100000, 0));
    const struct rlimit limit = { 65536, 65536 };
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
    CHECK_STATUS(tine_queue_put(queue, message, 1 << 20, 0), TINE_ENOSPC);
    void *place = NULL;
    CHECK_STATUS(tine_queue_put(queue, message, sizeof message, 0), TINE_ENOSPC); /* so large that it is asked for before */
    CHECK_MESSAGE("RLIMIT_FSIZE");
    CHECK_STATUS(tine_queue_reserve(queue, sizeof message, 0, &place), TINE_ENOSPC);
    const tine_bytes_t many[] = { { message, 1 }, { message, sizeof message } };
    size_t count = 7;
    CHECK_OK(tine_queue_put_many(queue, many, 2, 0, &count));
    CHECK_INT(count, 1);
    CHECK_STATUS(tine_queue_put_many(queue, many + 1, 1, 0, &count), TINE_ENOSPC);
    CHECK_MESSAGE("RLIMIT_FSIZE");
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

static int lets_go[2];
static void *reserve_and_keep(void *queue) {
    void *memory;
    char byte;
    CHECK_OK(tine_queue_reserve(queue, 1, TINE_FOREVER, &memory));
    CHECK_INT(read(lets_go[0], &byte, 1), 1);
    CHECK_OK(tine_queue_abandon(queue));
    return NULL;
}
static void *get_one(void *queue) {
    CHECK_OK(tine_queue_get(queue, NULL, 0, TINE_FOREVER, NULL));
    return NULL;
}

TEST(whoever_reserves_next_keeps_nobody_from_what_is_there) {
    tine_queue_t *queue = new_queue(0, 0, 0);
    pthread_t reserving, getting;
    void *memory;
    CHECK_INT(pipe(lets_go), 0);
    CHECK_OK(tine_queue_reserve(queue, 0, 0, &memory));
    CHECK_INT(pthread_create(&reserving, NULL, reserve_and_keep, queue), 0);
    await_sleepers(1);
    CHECK_INT(pthread_create(&getting, NULL, get_one, queue), 0);
    await_sleepers(2);
    CHECK_OK(tine_queue_commit(queue, 0));
    CHECK_INT(pthread_join(getting, NULL), 0); /* while the other one has its reservation */
    CHECK_INT(write(lets_go[1], "g", 1), 1);
    CHECK_INT(pthread_join(reserving, NULL), 0);
    close(lets_go[0]), close(lets_go[1]);
    tine_queue_free(queue);
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

/* ---- several messages by one call */

static tine_bytes_t bytes_of(const char *text) { return (tine_bytes_t){ text, strlen(text) }; }

TEST(many_messages_go_in_and_come_out_by_one_call) {
    tine_queue_t *queue = new_queue(0, 0, 0);
    const tine_bytes_t messages[] = { bytes_of("one"), bytes_of(""), bytes_of("three"), { NULL, 0 } };
    tine_bytes_t got[8];
    char buffer[64];
    size_t count = 77;
    CHECK_OK(tine_queue_put_many(queue, messages, 4, 0, &count));
    CHECK_INT(count, 4);
    CHECK_INT(tine_queue_size(queue), 4);
    CHECK_OK(tine_queue_get_many(queue, buffer, sizeof buffer, 0, got, 8, &count));
    CHECK_INT(count, 4);
    for (size_t i = 0; i < 4; i++) {
        CHECK_INT(got[i].len, messages[i].len);
        CHECK(memcmp(got[i].data, messages[i].data ? messages[i].data : "", messages[i].len) == 0);
    }
    CHECK(memcmp(buffer, "onethree", 8) == 0);
    CHECK(got[2].data == buffer + 3);
    CHECK_INT(tine_queue_size(queue), 0);
    tine_queue_free(queue);
}

TEST(put_many_adds_what_fits) {
    tine_queue_t *queue = new_queue(3, 0, 0);
    tine_bytes_t messages[5];
    char buffer[5];
    size_t count = 77;
    for (int i = 0; i < 5; i++) messages[i] = (tine_bytes_t){ &"abcde"[i], 1 };
    CHECK_OK(tine_queue_put_many(queue, messages, 5, 0, &count));
    CHECK_INT(count, 3);
    count = 77;
    CHECK_STATUS(tine_queue_put_many(queue, messages + 3, 2, 0, &count), TINE_EFULL);
    CHECK_STATUS(tine_queue_put_many(queue, messages + 3, 2, 20, &count), TINE_EFULL);
    CHECK_INT(count, 77);
    CHECK_OK(tine_queue_get_many(queue, buffer, sizeof buffer, 0, NULL, 2, &count));
    CHECK_INT(count, 2);
    CHECK_OK(tine_queue_put_many(queue, messages + 3, 2, 0, NULL));
    CHECK_OK(tine_queue_get_many(queue, buffer + 2, 3, 0, NULL, SIZE_MAX, NULL));
    CHECK(memcmp(buffer, "abcde", 5) == 0);
    tine_queue_free(queue);
}

TEST(get_many_takes_what_fits_into_the_buffer) {
    tine_queue_t *queue = new_queue(0, 0, 0);
    const tine_bytes_t messages[] = { bytes_of("four"), bytes_of("seven77"), bytes_of("x") };
    tine_bytes_t got[3];
    char buffer[10];
    size_t count = 77;
    CHECK_OK(tine_queue_put_many(queue, messages, 3, 0, NULL));
    CHECK_STATUS(tine_queue_get_many(queue, buffer, 3, TINE_FOREVER, got, 3, &count), TINE_ETOOSMALL);
    CHECK_INT(got[0].len, 4);
    CHECK_INT(count, 77);
    CHECK_OK(tine_queue_get_many(queue, buffer, 10, 0, got, 3, &count));
    CHECK_INT(count, 1); /* the second does not fit, and the third may not overtake it */
    CHECK_OK(tine_queue_get_many(queue, buffer, 10, 0, got, 3, &count));
    CHECK_INT(count, 2);
    CHECK_STATUS(tine_queue_get_many(queue, buffer, 10, 5, got, 3, &count), TINE_EEMPTY);
    CHECK_OK(tine_queue_get_many(queue, buffer, 10, 0, got, 0, &count));
    CHECK_INT(count, 0);
    CHECK_OK(tine_queue_put_many(queue, NULL, 0, 0, &count));
    CHECK_STATUS(tine_queue_put_many(queue, NULL, 1, 0, &count), TINE_EINVAL);
    CHECK_STATUS(tine_queue_put_many(queue, &(tine_bytes_t){ NULL, 1 }, 1, 0, &count), TINE_EINVAL);
    CHECK_MESSAGE("messages[].data is NULL");
    CHECK_OK(tine_queue_close(queue));
    CHECK_STATUS(tine_queue_get_many(queue, buffer, 10, TINE_FOREVER, got, 3, &count), TINE_ECLOSED);
    CHECK_STATUS(tine_queue_put_many(queue, messages, 3, TINE_FOREVER, &count), TINE_ECLOSED);
    tine_queue_free(queue);
}

TEST(large_messages_among_many_come_whole_and_give_their_memory_back) {
    tine_queue_t *queue = new_queue(0, 1024, 300000);
    static char large[100000], buffer[250000];
    const tine_bytes_t messages[] = { { large, 100000 }, bytes_of("small"), { large, 99999 }, { large, 100001 }, bytes_of("last") };
    const long before = blocks_of("memfd:tine:queue");
    tine_bytes_t got[5];
    size_t count;
    memset(large, 7, sizeof large);
    for (int i = 0; i < 20; i++) {
        CHECK_OK(tine_queue_put_many(queue, messages, 5, 0, &count));
        CHECK_INT(count, 3); /* three large ones are more than max_bytes */
        CHECK_OK(tine_queue_get_many(queue, buffer, sizeof buffer, 0, got, 5, &count));
        CHECK_INT(count, 3);
        for (size_t k = 0; k < 3; k++) {
            CHECK_INT(got[k].len, messages[k].len);
            CHECK(memcmp(got[k].data, messages[k].data, got[k].len) == 0);
        }
    }
    CHECK_INT(blocks_of("memfd:tine:queue"), before);
    tine_queue_free(queue);
}

TEST(many_messages_cross_between_processes_in_order) {
    enum { COUNT = 100000, BATCH = 50 };
    tine_queue_t *queue = new_queue(0, 1024, 0);
    const pid_t child = fork();
    if (child == 0) {
        for (uint32_t next = 0; next < COUNT;) {
            uint32_t numbers[BATCH];
            tine_bytes_t messages[BATCH];
            size_t count = 0;
            for (uint32_t i = 0; i < BATCH; i++) numbers[i] = next + i, messages[i] = (tine_bytes_t){ &numbers[i], 4 };
            CHECK_OK(tine_queue_put_many(queue, messages, COUNT - next < BATCH ? COUNT - next : BATCH, TINE_FOREVER, &count));
            next += (uint32_t)count;
        }
        _exit(0);
    }
    for (uint32_t next = 0; next < COUNT;) {
        uint32_t numbers[BATCH];
        size_t count = 0;
        CHECK_OK(tine_queue_get_many(queue, numbers, sizeof numbers, TINE_FOREVER, NULL, BATCH, &count));
        for (size_t i = 0; i < count; i++) CHECK_INT(numbers[i], next++);
    }
    join(child);
    tine_queue_free(queue);
}

/* ---- messages that are declared done */

TEST(unfinished_counts_what_was_put_and_not_declared_done) {
    tine_queue_t *queue = new_queue(0, 0, 0);
    char byte;
    CHECK_INT(tine_queue_unfinished(NULL), 0);
    CHECK_INT(tine_queue_unfinished(queue), 0);
    CHECK_OK(tine_queue_join(queue, 0));
    CHECK_STATUS(tine_queue_task_done(queue), TINE_EOVERFLOW);
    CHECK_OK(tine_queue_put(queue, "a", 1, 0));
    CHECK_OK(tine_queue_put(queue, "b", 1, 0));
    CHECK_OK(tine_queue_get(queue, &byte, 1, 0, NULL));
    CHECK_INT(tine_queue_unfinished(queue), 2);
    CHECK_STATUS(tine_queue_join(queue, 0), TINE_ETIMEDOUT);
    CHECK_STATUS(tine_queue_join(queue, 20), TINE_ETIMEDOUT);
    CHECK_OK(tine_queue_task_done(queue));
    CHECK_INT(tine_queue_unfinished(queue), 1);
    CHECK_OK(tine_queue_task_done(queue)); /* before its get: nobody can tell */
    CHECK_INT(tine_queue_unfinished(queue), 0);
    CHECK_OK(tine_queue_join(queue, TINE_FOREVER));
    CHECK_STATUS(tine_queue_task_done(queue), TINE_EOVERFLOW);
    CHECK_OK(tine_queue_close(queue));
    CHECK_OK(tine_queue_join(queue, TINE_FOREVER));
    tine_queue_free(queue);
}

static void *sleep_in_join(void *queue) {
    CHECK_OK(tine_queue_join(queue, TINE_FOREVER));
    return NULL;
}

TEST(the_last_task_done_releases_everybody_who_joins) {
    enum { THREADS = 3 };
    tine_queue_t *queue = new_queue(0, 0, 0);
    pthread_t threads[THREADS];
    CHECK_OK(tine_queue_put(queue, "a", 1, 0));
    CHECK_OK(tine_queue_put(queue, "b", 1, 0));
    for (int i = 0; i < THREADS; i++) CHECK_INT(pthread_create(&threads[i], NULL, sleep_in_join, queue), 0);
    await_sleepers(THREADS);
    CHECK_OK(tine_queue_task_done(queue));
    CHECK_OK(tine_queue_task_done(queue));
    CHECK_OK(tine_queue_put(queue, "directly afterwards", 19, 0));
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    CHECK_INT(tine_queue_unfinished(queue), 1);
    tine_queue_free(queue);
}

TEST(join_waits_for_the_work_of_other_processes) {
    enum { WORKERS = 3, TASKS = 3000 };
    tine_queue_t *queue = new_queue(8, 0, 0);
    volatile uint32_t *worked = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t children[WORKERS];
    for (int i = 0; i < WORKERS; i++) {
        if ((children[i] = fork()) != 0) continue;
        for (char task;;) {
            CHECK_OK(tine_queue_get(queue, &task, 1, TINE_FOREVER, NULL));
            if (task == 'q') break;
            __sync_fetch_and_add(worked, 1);
            CHECK_OK(tine_queue_task_done(queue));
        }
        CHECK_OK(tine_queue_task_done(queue));
        _exit(0);
    }
    for (uint32_t round = 1; round <= 5; round++) {
        for (int i = 0; i < TASKS; i++) CHECK_OK(tine_queue_put(queue, "t", 1, TINE_FOREVER));
        CHECK_OK(tine_queue_join(queue, TINE_FOREVER));
        CHECK_INT(*worked, round * TASKS);
        CHECK_INT(tine_queue_unfinished(queue), 0);
    }
    for (int i = 0; i < WORKERS; i++) CHECK_OK(tine_queue_put(queue, "q", 1, TINE_FOREVER));
    CHECK_OK(tine_queue_join(queue, TINE_FOREVER));
    for (int i = 0; i < WORKERS; i++) join(children[i]);
    tine_queue_free(queue);
}

TEST(a_consumer_killed_before_its_task_done_leaves_join_waiting_and_is_counted) {
    tine_queue_t *queue = new_queue(0, 0, 0);
    char byte;
    CHECK_OK(tine_queue_put(queue, "a", 1, 0));
    CHECK_OK(tine_queue_put(queue, "b", 1, 0));
    const pid_t child = fork();
    if (child == 0) tine_queue_get(queue, &byte, 1, TINE_FOREVER, NULL), kill(getpid(), SIGKILL);
    waitpid(child, NULL, 0);
    CHECK_OK(tine_queue_get(queue, &byte, 1, 0, NULL));
    CHECK_INT(byte, 'b');
    CHECK_OK(tine_queue_task_done(queue));
    CHECK_STATUS(tine_queue_join(queue, 20), TINE_ETIMEDOUT);
    CHECK_INT(tine_queue_unfinished(queue), 1);
    CHECK_OK(tine_queue_task_done(queue)); /* for the dead one: then all goes on */
    CHECK_OK(tine_queue_join(queue, 0));
    tine_queue_free(queue);
}

/* ---- messages in place */

TEST(a_message_is_written_and_read_where_it_lies) {
    tine_queue_t *queue = new_queue(0, 0, 0);
    const void *data;
    void *memory;
    size_t len;
    CHECK_OK(tine_queue_reserve(queue, 100, 0, &memory));
    CHECK_INT((uintptr_t)memory % 8, 0);
    memcpy(memory, "in place", 8);
    CHECK_INT(tine_queue_size(queue), 0);
    CHECK_STATUS(tine_queue_commit(queue, 101), TINE_EINVAL);
    CHECK_MESSAGE("len");
    CHECK_OK(tine_queue_commit(queue, 8));
    CHECK_INT(tine_queue_size(queue), 1);
    CHECK_OK(tine_queue_peek(queue, 0, &data, &len));
    CHECK_INT(len, 8);
    CHECK(memcmp(data, "in place", 8) == 0);
    CHECK(data == memory); /* nothing was copied */
    CHECK_INT(tine_queue_size(queue), 1);
    CHECK_OK(tine_queue_unpeek(queue));
    CHECK_OK(tine_queue_put(queue, "second", 6, 0));
    CHECK_OK(tine_queue_peek(queue, 0, &data, NULL));
    CHECK(memcmp(data, "in place", 8) == 0);
    CHECK_OK(tine_queue_release(queue));
    CHECK_OK(tine_queue_peek(queue, 0, &data, &len));
    CHECK(len == 6 && memcmp(data, "second", 6) == 0);
    CHECK_OK(tine_queue_release(queue));
    CHECK_STATUS(tine_queue_peek(queue, 0, &data, &len), TINE_EEMPTY);
    CHECK_STATUS(tine_queue_peek(queue, 5, &data, &len), TINE_EEMPTY);
    tine_queue_free(queue);
}

TEST(an_abandoned_reservation_never_was) {
    tine_queue_t *queue = new_queue(1, 0, 0);
    void *memory, *large;
    CHECK_OK(tine_queue_reserve(queue, 10, 0, &memory));
    CHECK_OK(tine_queue_abandon(queue));
    CHECK_OK(tine_queue_reserve(queue, 10000000, 0, &large));
    memset(large, 7, 10000000);
    CHECK_OK(tine_queue_abandon(queue));
    CHECK_INT(tine_queue_size(queue), 0);
    CHECK_OK(tine_queue_put(queue, "x", 1, 0));
    CHECK_STATUS(tine_queue_reserve(queue, 1, 0, &memory), TINE_EFULL);
    CHECK_STATUS(tine_queue_reserve(queue, 1, 20, &memory), TINE_EFULL);
    CHECK_STATUS(tine_queue_reserve(queue, ((size_t)1 << 31) + 1, 0, &memory), TINE_EMSGSIZE);
    CHECK_OK(tine_queue_close(queue));
    CHECK_STATUS(tine_queue_reserve(queue, 1, TINE_FOREVER, &memory), TINE_ECLOSED);
    tine_queue_free(queue);
}

TEST(messages_of_every_length_go_in_place_through_a_small_ring) {
    static const size_t lengths[] = { 0, 1, 8, 63, 200, 255, 256, 257, 1000, 70000 };
    enum { COUNT = sizeof lengths / sizeof *lengths, ROUNDS = 100 };
    tine_queue_t *queue = new_queue(0, 1024, 0);
    const long before = blocks_of("memfd:tine:queue");
    const pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < COUNT * ROUNDS; i++) {
            const size_t len = lengths[i % COUNT];
            void *memory;
            CHECK_OK(tine_queue_reserve(queue, len + (size_t)(i % 3), TINE_FOREVER, &memory));
            memset(memory, i, len);
            CHECK_OK(tine_queue_commit(queue, len));
        }
        _exit(0);
    }
    for (int i = 0; i < COUNT * ROUNDS; i++) {
        const unsigned char *data;
        size_t len;
        CHECK_OK(tine_queue_peek(queue, TINE_FOREVER, (const void **)&data, &len));
        CHECK_INT(len, lengths[i % COUNT]);
        CHECK_INT((uintptr_t)data % 8, 0);
        for (size_t k = 0; k < len; k++) if (data[k] != (unsigned char)i) TEST_FAIL("message %d is torn at %zu", i, k);
        CHECK_OK(tine_queue_release(queue));
    }
    join(child);
    CHECK_INT(blocks_of("memfd:tine:queue"), before);
    tine_queue_free(queue);
}

static void *meet_a_held_queue(void *queue) {
    const void *data;
    void *memory;
    char byte;
    CHECK_STATUS(tine_queue_put(queue, "b", 1, 20), TINE_EFULL);
    CHECK_STATUS(tine_queue_reserve(queue, 1, 0, &memory), TINE_EFULL);
    CHECK_STATUS(tine_queue_get(queue, &byte, 1, 20, NULL), TINE_EEMPTY);
    CHECK_STATUS(tine_queue_peek(queue, 0, &data, NULL), TINE_EEMPTY);
    CHECK_STATUS(tine_queue_commit(queue, 0), TINE_ENOTOWNER);
    CHECK_STATUS(tine_queue_abandon(queue), TINE_ENOTOWNER);
    CHECK_STATUS(tine_queue_release(queue), TINE_ENOTOWNER);
    CHECK_STATUS(tine_queue_unpeek(queue), TINE_ENOTOWNER);
    return NULL;
}

TEST(one_thread_holds_a_side_and_the_others_wait_within_their_timeouts) {
    tine_queue_t *queue = new_queue(0, 0, 0);
    const void *data;
    void *memory;
    char byte;
    pthread_t thread;
    CHECK_STATUS(tine_queue_commit(queue, 0), TINE_ENOTOWNER);
    CHECK_STATUS(tine_queue_release(queue), TINE_ENOTOWNER);
    CHECK_OK(tine_queue_put(queue, "a", 1, 0));
    CHECK_OK(tine_queue_reserve(queue, 1, 0, &memory));
    CHECK_OK(tine_queue_peek(queue, 0, &data, NULL));
    CHECK_STATUS(tine_queue_reserve(queue, 1, 0, &memory), TINE_EBUSY);
    CHECK_STATUS(tine_queue_put(queue, "b", 1, TINE_FOREVER), TINE_EBUSY);
    CHECK_STATUS(tine_queue_peek(queue, 0, &data, NULL), TINE_EBUSY);
    CHECK_STATUS(tine_queue_get(queue, &byte, 1, TINE_FOREVER, NULL), TINE_EBUSY);
    CHECK_STATUS(tine_queue_close(queue), TINE_EBUSY);
    CHECK_INT(pthread_create(&thread, NULL, meet_a_held_queue, queue), 0);
    pthread_join(thread, NULL);
    const pid_t child = fork(); /* owns nothing of its parent's */
    if (child == 0) meet_a_held_queue(queue), _exit(0);
    join(child);
    memcpy(memory, "c", 1);
    CHECK_OK(tine_queue_commit(queue, 1));
    CHECK_OK(tine_queue_release(queue));
    CHECK_OK(tine_queue_get(queue, &byte, 1, 0, NULL));
    CHECK_INT(byte, 'c');
    CHECK_OK(tine_queue_reserve(queue, 1, 0, &memory));
    CHECK_STATUS(tine_queue_get(queue, &byte, 1, TINE_FOREVER, NULL), TINE_EBUSY); /* nobody else can put anything */
    CHECK_OK(tine_queue_abandon(queue));
    CHECK_OK(tine_queue_close(queue));
    tine_queue_free(queue);
}

static void *put_one(void *queue) {
    CHECK_OK(tine_queue_put(queue, NULL, 0, TINE_FOREVER));
    return NULL;
}

/* Whatever the timeout, and whoever waits there already. */
TEST(a_thread_does_not_wait_for_what_it_holds_itself) {
    tine_queue_t *queue = new_queue(1, 0, 0);
    const int64_t timeouts[] = { 0, 1, TINE_FOREVER };
    const void *data;
    void *memory;
    char byte;
    pthread_t getting, putting;
    CHECK_OK(tine_queue_reserve(queue, 0, 0, &memory));
    CHECK_INT(pthread_create(&getting, NULL, get_one, queue), 0);
    await_sleepers(1);
    for (int i = 0; i < 3; i++) {
        const int64_t timeout = timeouts[i];
        CHECK_STATUS(tine_queue_get(queue, &byte, 1, timeout, NULL), TINE_EBUSY);
        CHECK_STATUS(tine_queue_get_alloc(queue, timeout, &memory, NULL), TINE_EBUSY);
        CHECK_STATUS(tine_queue_get_many(queue, &byte, 1, timeout, NULL, 1, NULL), TINE_EBUSY);
        CHECK_STATUS(tine_queue_peek(queue, timeout, &data, NULL), TINE_EBUSY);
    }
    CHECK_MESSAGE("queue: the calling thread");
    CHECK_OK(tine_queue_commit(queue, 0));
    CHECK_INT(pthread_join(getting, NULL), 0);

    const tine_bytes_t one = { NULL, 0 };
    CHECK_OK(tine_queue_put(queue, NULL, 0, 0));
    CHECK_OK(tine_queue_peek(queue, 0, &data, NULL));
    CHECK_INT(pthread_create(&putting, NULL, put_one, queue), 0);
    await_sleepers(1);
    for (int i = 0; i < 3; i++) {
        const int64_t timeout = timeouts[i];
        CHECK_STATUS(tine_queue_put(queue, "b", 1, timeout), TINE_EBUSY);
        CHECK_STATUS(tine_queue_put_many(queue, &one, 1, timeout, NULL), TINE_EBUSY);
        CHECK_STATUS(tine_queue_reserve(queue, 1, timeout, &memory), TINE_EBUSY);
    }
    CHECK_OK(tine_queue_release(queue));
    CHECK_INT(pthread_join(putting, NULL), 0);
    tine_queue_free(queue);
}

static void *hold_both_and_end(void *queue) {
    const void *data;
    void *memory;
    CHECK_OK(tine_queue_reserve(queue, 250, 0, &memory));
    memset(memory, 7, 250);
    CHECK_OK(tine_queue_peek(queue, 0, &data, NULL));
    return NULL;
}

TEST(what_a_dead_holder_held_is_undone) {
    tine_queue_t *queue = new_queue(0, 1024, 0);
    char byte;
    CHECK_OK(tine_queue_put(queue, "a", 1, 0));
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        const pid_t child = fork();
        if (child == 0) hold_both_and_end(queue), kill(getpid(), SIGKILL);
        waitpid(child, NULL, 0);
        CHECK_OK(tine_queue_put(queue, &"bcdefghijklmnopqrstuv"[i], 1, TINE_FOREVER));
        CHECK_OK(tine_queue_get(queue, &byte, 1, TINE_FOREVER, NULL));
        CHECK_INT(byte, 'a' + i);
        CHECK_INT(pthread_create(&thread, NULL, hold_both_and_end, queue), 0);
        pthread_join(thread, NULL);
        CHECK_INT(tine_queue_size(queue), 1);
    }
    CHECK_OK(tine_queue_get(queue, &byte, 1, TINE_FOREVER, NULL));
    CHECK_INT(byte, 'u');
    CHECK_OK(tine_queue_close(queue));
    tine_queue_free(queue);
}

static void *reserve_a_large_one_and_end(void *queue) {
    void *memory;
    CHECK_OK(tine_queue_reserve(queue, 100000, 0, &memory));
    memset(memory, 'x', 100000);
    return NULL;
}

TEST(a_commit_publishes_nothing_of_a_thread_that_ended) {
    tine_queue_t *queue = new_queue(0, 1024, 0);
    pthread_t thread;
    void *memory;
    char buffer[8];
    size_t len;
    CHECK_INT(pthread_create(&thread, NULL, reserve_a_large_one_and_end, queue), 0);
    pthread_join(thread, NULL);
    CHECK_OK(tine_queue_reserve(queue, 8, TINE_FOREVER, &memory));
    memcpy(memory, "in place", 8);
    CHECK_OK(tine_queue_commit(queue, 8));
    CHECK_OK(tine_queue_get(queue, buffer, sizeof buffer, 0, &len));
    CHECK(len == 8 && memcmp(buffer, "in place", 8) == 0);
    tine_queue_free(queue);
}

TEST(a_queue_that_is_freed_while_it_is_held_leaves_the_threads_robust_list_whole) {
    tine_queue_t *queue = new_queue(0, 0, 0), *other = new_queue(0, 0, 0);
    void *memory;
    char byte;
    CHECK_OK(tine_queue_reserve(queue, 1, 0, &memory));
    CHECK_OK(tine_queue_reserve(other, 1, 0, &memory));
    tine_queue_free(queue);
    CHECK_OK(tine_queue_commit(other, 0));
    CHECK_OK(tine_queue_get(other, &byte, 1, 0, NULL));
    const int mappings = test_count_mappings("memfd:tine:queue");
    CHECK_INT(mappings, 2); /* it stays until the process ends */
    tine_queue_free(other);
}

/* ---- the descriptor */



static tine_queue_t *new_pollable_queue(void) {
    tine_queue_options_t options = TINE_QUEUE_OPTIONS_INIT;
    tine_queue_t *queue = NULL;
    options.flags = TINE_QUEUE_POLLABLE;
    CHECK_OK(tine_queue_new(&options, &queue));
    return queue;
}

static int is_readable(int fd, int timeout_ms) {
    struct pollfd poll_ = { fd, POLLIN, 0 };
    return poll(&poll_, 1, timeout_ms) == 1 && (poll_.revents & POLLIN) != 0;
}

TEST(the_descriptor_is_readable_while_there_is_something_to_tell) {
    tine_queue_t *queue = new_queue(0, 0, 0);
    const int fds = test_count_fds();
    const void *data;
    char byte;
    CHECK_INT(tine_queue_fd(queue), -1);
    CHECK_INT(tine_queue_fd(NULL), -1);
    tine_queue_free(queue);
    for (int i = 0; i < 300; i++) {
        queue = new_pollable_queue();
        const int fd = tine_queue_fd(queue);
        CHECK(fd > 2 && !is_readable(fd, 0));
        CHECK_OK(tine_queue_put(queue, "a", 1, 0));
        CHECK(is_readable(fd, 0));
        CHECK_OK(tine_queue_put(queue, "b", 1, 0));
        CHECK_OK(tine_queue_get(queue, &byte, 1, 0, NULL));
        CHECK(is_readable(fd, 0));
        CHECK_OK(tine_queue_get(queue, &byte, 1, 0, NULL));
        CHECK_STATUS(tine_queue_get(queue, &byte, 1, 0, NULL), TINE_EEMPTY);
        CHECK(!is_readable(fd, 0));
        CHECK_OK(tine_queue_put(queue, "c", 1, 0));
        CHECK(is_readable(fd, 0));
        CHECK_OK(tine_queue_peek(queue, 0, &data, NULL));
        CHECK_OK(tine_queue_release(queue));
        CHECK_STATUS(tine_queue_peek(queue, 1, &data, NULL), TINE_EEMPTY);
        CHECK(!is_readable(fd, 0));
        CHECK_OK(tine_queue_close(queue));
        CHECK(is_readable(fd, 0));
        CHECK_STATUS(tine_queue_get(queue, &byte, 1, 0, NULL), TINE_ECLOSED);
        CHECK(is_readable(fd, 0));
        tine_queue_free(queue);
    }
    CHECK_INT(test_count_fds(), fds - 1);
}

TEST(the_descriptor_tells_of_messages_of_other_processes) {
    enum { COUNT = 20000, PRODUCERS = 2 };
    tine_queue_t *queue = new_pollable_queue();
    pid_t children[PRODUCERS];
    for (int i = 0; i < PRODUCERS; i++) {
        if ((children[i] = fork()) != 0) continue;
        for (int k = 0; k < COUNT; k++) CHECK_OK(tine_queue_put(queue, &k, sizeof k, TINE_FOREVER));
        tine_queue_free(queue);
        _exit(0);
    }
    for (int got = 0; got < PRODUCERS * COUNT;) {
        int number;
        CHECK(is_readable(tine_queue_fd(queue), -1));
        while (tine_queue_get(queue, &number, sizeof number, 0, NULL) == TINE_OK) got++;
    }
    for (int i = 0; i < PRODUCERS; i++) join(children[i]);
    CHECK(!is_readable(tine_queue_fd(queue), 0));
    tine_queue_free(queue);
}

TEST(the_descriptor_is_readable_whoever_was_killed_when) {
    tine_queue_t *queue = new_pollable_queue();
    char buffer[8];
    for (int i = 0; i < 300; i++) {
        const pid_t child = fork();
        if (child == 0) for (;;) tine_queue_put(queue, "eight by", 8, 0), tine_queue_get(queue, buffer, 8, 0, NULL), tine_queue_get(queue, buffer, 8, 0, NULL);
        for (int spin = 0; spin < i * 40; spin++) is_readable(-1, 0);
        kill(child, SIGKILL), waitpid(child, NULL, 0);
        if (tine_queue_size(queue) > 0) CHECK(is_readable(tine_queue_fd(queue), 0));
        while (tine_queue_get(queue, buffer, 8, 0, NULL) == TINE_OK) {}
        CHECK(!is_readable(tine_queue_fd(queue), 0));
    }
    tine_queue_free(queue);
}

TEST(a_process_that_closed_the_descriptor_touches_nothing_else) {
    tine_queue_t *queue = new_pollable_queue();
    int reused[2];
    char byte;
    const pid_t child = fork();
    if (child == 0) {
        const int fd = tine_queue_fd(queue);
        CHECK_INT(close(fd), 0);
        CHECK_INT(pipe(reused), 0);
        if (reused[0] != fd) CHECK_INT(dup2(reused[1], fd), fd);
        CHECK_OK(tine_queue_put(queue, "a", 1, 0));
        CHECK(!is_readable(reused[0], 0));
        tine_queue_free(queue);
        CHECK(fcntl(fd, F_GETFD) >= 0);
        _exit(0);
    }
    join(child);
    CHECK_OK(tine_queue_put(queue, "b", 1, 0)); /* tells for both */
    CHECK(is_readable(tine_queue_fd(queue), 0));
    CHECK_OK(tine_queue_get(queue, &byte, 1, 0, NULL));
    tine_queue_free(queue);
}

static int32_t put_in_worker(const void *arg, size_t arg_len, tine_task_t *task) {
    (void)task;
    return tine_queue_put(*(tine_queue_t *const *)arg, "from a worker", 13, 0) + (int)(arg_len - sizeof(void *));
}

TEST(a_worker_of_a_pool_makes_the_descriptor_readable) {
    tine_queue_t *queue = new_pollable_queue();
    tine_pool_t *pool = NULL;
    tine_result_t *result = NULL;
    CHECK_OK(tine_pool_new(NULL, &pool));
    CHECK_OK(tine_pool_apply(pool, put_in_worker, &queue, sizeof queue, TINE_FOREVER, &result));
    CHECK_OK(tine_result_status(result));
    CHECK(is_readable(tine_queue_fd(queue), 0));
    tine_result_free(result);
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    tine_pool_free(pool);
    tine_queue_free(queue);
}

/* ---- a queue that grows */

static tine_queue_t *new_growing_queue(size_t capacity, size_t capacity_bytes, size_t max_bytes) {
    tine_queue_options_t options = TINE_QUEUE_OPTIONS_INIT;
    tine_queue_t *queue = NULL;
    options.capacity = capacity, options.capacity_bytes = capacity_bytes, options.max_bytes = max_bytes;
    options.flags = TINE_QUEUE_GROW;
    CHECK_OK(tine_queue_new(&options, &queue));
    return queue;
}

TEST(a_queue_that_grows_is_never_full_below_max_bytes_and_gives_its_memory_back) {
    enum { MAX = 8 << 20, CHUNK = 65536 };
    tine_queue_t *queue = new_growing_queue(0, CHUNK, MAX);
    const long before = blocks_of("memfd:tine:queue");
    uint64_t message[7] = { 0 }, put = 0, got = 0; /* and 8 bytes beside each */
    CHECK(before * 512 <= 4096 + CHUNK);
    for (int round = 0; round < 5; round++) {
        tine_status_t status;
        CHECK(!tine_queue_is_full(queue));
        while ((message[0] = put, status = tine_queue_put(queue, message, sizeof message, 0)) == TINE_OK) put++;
        CHECK_STATUS(status, TINE_EFULL);
        CHECK(tine_queue_is_full(queue));
        CHECK_INT(put - got, MAX / 64);
        CHECK(blocks_of("memfd:tine:queue") * 512 >= MAX);
        while ((status = tine_queue_get(queue, message, sizeof message, 0, NULL)) == TINE_OK) CHECK_INT(message[0], got++);
        CHECK_STATUS(status, TINE_EEMPTY);
        CHECK_INT(got, put);
        CHECK(blocks_of("memfd:tine:queue") * 512 <= 4096 + 2 * CHUNK);
    }
    tine_queue_free(queue);
}

TEST(a_queue_that_grows_keeps_its_capacity_in_messages) {
    tine_queue_t *queue = new_growing_queue(3000, 4096, 0);
    static char message[1024], large[100000];
    void *data;
    for (int i = 0; i < 3000; i++) CHECK_OK(tine_queue_put(queue, i % 500 == 7 ? large : message, i % 500 == 7 ? sizeof large : sizeof message, 0));
    CHECK_STATUS(tine_queue_put(queue, "x", 1, 0), TINE_EFULL);
    CHECK_OK(tine_queue_get_alloc(queue, 0, &data, NULL));
    tine_free(data);
    CHECK_OK(tine_queue_put(queue, "x", 1, 0));
    tine_queue_free(queue);
    tine_queue_options_t options = TINE_QUEUE_OPTIONS_INIT;
    options.flags = TINE_QUEUE_GROW, options.max_bytes = (size_t)5 << 30;
    CHECK_STATUS(tine_queue_new(&options, &queue), TINE_EINVAL);
    CHECK_MESSAGE("max_bytes");
}

TEST(messages_cross_a_queue_that_grows_in_order) {
    enum { COUNT = 60000 };
    tine_queue_t *queue = new_growing_queue(0, 4096, 1 << 20);
    const pid_t child = fork();
    if (child == 0) {
        unsigned char message[3000];
        for (int i = 0; i < COUNT; i++) {
            void *memory;
            const size_t len = (size_t)(i * 37 % 3000);
            memset(message, i, len);
            if (i % 3 != 0) CHECK_OK(tine_queue_put(queue, message, len, TINE_FOREVER));
            else CHECK_OK(tine_queue_reserve(queue, len, TINE_FOREVER, &memory)), memcpy(memory, message, len), CHECK_OK(tine_queue_commit(queue, len));
        }
        _exit(0);
    }
    for (int i = 0; i < COUNT; i++) {
        const unsigned char *data;
        size_t len;
        CHECK_OK(tine_queue_peek(queue, TINE_FOREVER, (const void **)&data, &len));
        CHECK_INT(len, i * 37 % 3000);
        for (size_t k = 0; k < len; k++) if (data[k] != (unsigned char)i) TEST_FAIL("message %d is torn at %zu", i, k);
        CHECK_OK(tine_queue_release(queue));
    }
    join(child);
    tine_queue_free(queue);
}

TEST(a_queue_that_cannot_grow_says_so) {
    tine_queue_t *queue = new_growing_queue(0, 4096, 1 << 20);
    const struct rlimit limit = { 65536, 65536 };
    static char message[1000];
    tine_status_t status;
    int put = 0;
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
    while ((status = tine_queue_put(queue, message, sizeof message, 0)) == TINE_OK) put++;
    CHECK_STATUS(status, TINE_ENOSPC);
    CHECK(put > 50);
    for (int i = 0; i < 40; i++) CHECK_OK(tine_queue_get(queue, message, sizeof message, 0, NULL));
    tine_queue_free(queue);
}
