/* Bad input at the boundary: a status from the contract, a message that names the object and the argument, nothing changed or leaked. */
#include <pthread.h>

#include "test.h"

static tine_queue_t *new_queue(void) {
    tine_queue_t *queue = NULL;
    CHECK_OK(tine_queue_new(NULL, &queue));
    return queue;
}

TEST(the_version_is_that_of_the_header) {
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", TINE_VERSION_MAJOR, TINE_VERSION_MINOR, TINE_VERSION_PATCH);
    CHECK_TEXT(tine_version(), text);
    CHECK_INT(tine_version_number(), TINE_VERSION_NUMBER);
}

TEST(strerror_has_a_text_for_any_number) {
    static const int32_t numbers[] = { INT32_MIN, INT32_MIN + 1, -1000, 4711, INT32_MAX };
    for (int32_t status = -100; status < 100; status++) CHECK(tine_strerror(status)[0] != '\0');
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) CHECK(tine_strerror(numbers[i])[0] != '\0');
    CHECK_TEXT(tine_strerror(TINE_OK), "done");
    for (int32_t a = TINE_ECORRUPT; a < TINE_PIPE_HELD; a++)
        for (int32_t b = a + 1; b <= TINE_PIPE_HELD; b++) CHECK(strcmp(tine_strerror(a), tine_strerror(b)) != 0);
}

TEST(free_of_null_is_nothing) {
    tine_free(NULL);
    tine_queue_free(NULL);
    tine_lock_free(NULL);
    tine_semaphore_free(NULL);
    tine_event_free(NULL);
    tine_condition_free(NULL);
    tine_barrier_free(NULL);
    tine_shared_memory_free(NULL);
    tine_file_lock_free(NULL);
}

TEST(before_the_first_failure_the_message_is_empty) {
    CHECK_TEXT(tine_last_error_message(), "");
    CHECK_INT(tine_last_errno(), 0);
    CHECK_INT(tine_last_error_copy(NULL, 0), 0);
}

TEST(a_null_handle_is_refused_and_named) {
    char byte;
    CHECK_STATUS(tine_queue_put(NULL, "x", 1, 0), TINE_EINVAL);
    CHECK_MESSAGE("queue is NULL");
    CHECK_STATUS(tine_queue_get(NULL, &byte, 1, 0, NULL), TINE_EINVAL);
    CHECK_MESSAGE("queue is NULL");
    CHECK_STATUS(tine_queue_close(NULL), TINE_EINVAL);
    CHECK_STATUS(tine_lock_acquire(NULL, 0), TINE_EINVAL);
    CHECK_MESSAGE("lock is NULL");
    CHECK_STATUS(tine_lock_release(NULL), TINE_EINVAL);
    CHECK_STATUS(tine_semaphore_acquire(NULL, 0), TINE_EINVAL);
    CHECK_MESSAGE("semaphore is NULL");
    CHECK_STATUS(tine_semaphore_release(NULL, 1), TINE_EINVAL);
    CHECK_STATUS(tine_event_wait(NULL, 0), TINE_EINVAL);
    CHECK_MESSAGE("event is NULL");
    CHECK_STATUS(tine_event_set(NULL), TINE_EINVAL);
    CHECK_STATUS(tine_event_clear(NULL), TINE_EINVAL);
}

TEST(getters_answer_null_with_their_fallback) {
    CHECK_INT(tine_queue_size(NULL), 0);
    CHECK(!tine_queue_is_empty(NULL));
    CHECK(!tine_queue_is_full(NULL));
    CHECK_INT(tine_queue_fd(NULL), -1);
    CHECK(!tine_lock_is_held(NULL));
    CHECK_INT(tine_semaphore_value(NULL), 0);
    CHECK(!tine_event_is_set(NULL));
}

TEST(a_null_output_for_a_new_handle_is_refused_and_named) {
    CHECK_STATUS(tine_queue_new(NULL, NULL), TINE_EINVAL);
    CHECK_MESSAGE("out_queue is NULL");
    CHECK_STATUS(tine_lock_new(NULL, NULL), TINE_EINVAL);
    CHECK_MESSAGE("out_lock is NULL");
    CHECK_STATUS(tine_semaphore_new(0, 0, NULL, NULL), TINE_EINVAL);
    CHECK_MESSAGE("out_semaphore is NULL");
    CHECK_STATUS(tine_event_new(NULL, NULL), TINE_EINVAL);
    CHECK_MESSAGE("out_event is NULL");
}

TEST(null_bytes_are_empty_only_with_length_0) {
    tine_queue_t *queue = new_queue();
    size_t length = 7;
    CHECK_STATUS(tine_queue_put(queue, NULL, 1, 0), TINE_EINVAL);
    CHECK_MESSAGE("data is NULL");
    CHECK_OK(tine_queue_put(queue, NULL, 0, 0));
    CHECK_STATUS(tine_queue_get(queue, NULL, 1, 0, &length), TINE_EINVAL);
    CHECK_MESSAGE("buffer is NULL");
    CHECK_INT(length, 7);
    CHECK_OK(tine_queue_get(queue, NULL, 0, 0, &length));
    CHECK_INT(length, 0);
    CHECK_STATUS(tine_queue_get_alloc(queue, 0, NULL, NULL), TINE_EINVAL);
    CHECK_MESSAGE("out_data is NULL");
    tine_queue_free(queue);
}

TEST(a_length_that_no_memory_has_is_refused) {
    tine_queue_t *queue = new_queue();
    char byte = 0;
    CHECK_STATUS(tine_queue_put(queue, &byte, SIZE_MAX, 0), TINE_EINVAL);
    CHECK_MESSAGE("data");
    CHECK_STATUS(tine_queue_get(queue, &byte, SIZE_MAX, 0, NULL), TINE_EINVAL);
    CHECK_MESSAGE("buffer");
    CHECK_INT(tine_queue_size(queue), 0);
    tine_queue_free(queue);
}

TEST(a_timeout_below_minus_1_is_refused_and_named) {
    tine_queue_t *queue = new_queue();
    tine_lock_t *lock = NULL;
    tine_semaphore_t *semaphore = NULL;
    tine_event_t *event = NULL;
    void *data = NULL;
    char byte;
    CHECK_OK(tine_lock_new(NULL, &lock));
    CHECK_OK(tine_semaphore_new(1, 0, NULL, &semaphore));
    CHECK_OK(tine_event_new(NULL, &event));
    CHECK_STATUS(tine_queue_put(queue, "x", 1, -2), TINE_EINVAL);
    CHECK_MESSAGE("timeout_ms: -2");
    CHECK_INT(tine_queue_size(queue), 0);
    CHECK_STATUS(tine_queue_get(queue, &byte, 1, INT64_MIN, NULL), TINE_EINVAL);
    CHECK_STATUS(tine_queue_get_alloc(queue, -1000, &data, NULL), TINE_EINVAL);
    CHECK(data == NULL);
    CHECK_STATUS(tine_lock_acquire(lock, -2), TINE_EINVAL);
    CHECK(!tine_lock_is_held(lock));
    CHECK_STATUS(tine_semaphore_acquire(semaphore, -2), TINE_EINVAL);
    CHECK_INT(tine_semaphore_value(semaphore), 1);
    CHECK_STATUS(tine_event_wait(event, -2), TINE_EINVAL);
    CHECK_MESSAGE("timeout_ms: -2");
    tine_event_free(event);
    tine_semaphore_free(semaphore);
    tine_lock_free(lock);
    tine_queue_free(queue);
}

TEST(the_longest_timeouts_are_for_ever_and_no_mistake) {
    tine_queue_t *queue = new_queue();
    tine_lock_t *lock = NULL;
    char byte;
    CHECK_OK(tine_lock_new(NULL, &lock));
    CHECK_OK(tine_queue_put(queue, "x", 1, INT64_MAX));
    CHECK_OK(tine_queue_get(queue, &byte, 1, INT64_MAX - 1, NULL));
    CHECK_OK(tine_lock_acquire(lock, INT64_MAX));
    CHECK_OK(tine_lock_release(lock));
    tine_lock_free(lock);
    tine_queue_free(queue);
}

TEST(options_without_a_size_are_refused) {
    tine_queue_options_t of_queue = TINE_QUEUE_OPTIONS_INIT;
    tine_lock_options_t of_lock = TINE_LOCK_OPTIONS_INIT;
    tine_queue_t *queue = NULL;
    tine_lock_t *lock = NULL;
    for (size_t size = 0; size < sizeof(size_t); size++) {
        of_queue.size = of_lock.size = size;
        CHECK_STATUS(tine_queue_new(&of_queue, &queue), TINE_EINVAL);
        CHECK_MESSAGE("options: size");
        CHECK_STATUS(tine_lock_new(&of_lock, &lock), TINE_EINVAL);
    }
    of_queue.size = SIZE_MAX;
    CHECK_STATUS(tine_queue_new(&of_queue, &queue), TINE_EINVAL);
    CHECK(queue == NULL && lock == NULL);
}

TEST(options_of_an_older_header_are_shorter_and_zero_filled) {
    /* What lies behind `size` is not read. */
    tine_lock_options_t options;
    tine_lock_t *lock = NULL;
    memset(&options, 0xff, sizeof options);
    options.size = offsetof(tine_lock_options_t, name);
    CHECK_OK(tine_lock_new(&options, &lock));
    CHECK_OK(tine_lock_acquire(lock, 0));
    CHECK_STATUS(tine_lock_acquire(lock, TINE_FOREVER), TINE_EDEADLK);
    CHECK_OK(tine_lock_release(lock));
    tine_lock_free(lock);
}

TEST(options_of_a_newer_header_are_fine_while_the_new_fields_are_zero) {
    struct { tine_lock_options_t known; uint64_t new_field; } options = { TINE_LOCK_OPTIONS_INIT, 0 };
    tine_lock_t *lock = NULL;
    options.known.size = sizeof options;
    CHECK_OK(tine_lock_new(&options.known, &lock));
    tine_lock_free(lock);
    lock = NULL;
    options.new_field = UINT64_C(1) << 56;
    CHECK_STATUS(tine_lock_new(&options.known, &lock), TINE_E2BIG);
    CHECK_MESSAGE("options");
    CHECK(lock == NULL);
}

static int32_t child_of_nobody(void *user_data) { return user_data != NULL; }
TEST(what_is_reserved_must_be_0) {
    tine_queue_options_t of_queue = TINE_QUEUE_OPTIONS_INIT;
    tine_lock_options_t options = TINE_LOCK_OPTIONS_INIT;
    tine_process_options_t of_process = TINE_PROCESS_OPTIONS_INIT;
    tine_queue_t *queue = NULL;
    tine_lock_t *lock = NULL;
    tine_semaphore_t *semaphore = NULL;
    tine_event_t *event = NULL;
    tine_process_t *process = NULL;
    of_queue.reserved = options.reserved = of_process.reserved = 1;
    CHECK_STATUS(tine_queue_new(&of_queue, &queue), TINE_EINVAL);
    CHECK_MESSAGE("options.reserved");
    CHECK_STATUS(tine_lock_new(&options, &lock), TINE_EINVAL);
    CHECK_MESSAGE("options.reserved");
    CHECK_STATUS(tine_semaphore_new(0, 0, &options, &semaphore), TINE_EINVAL);
    CHECK_MESSAGE("options.reserved");
    CHECK_STATUS(tine_event_new(&options, &event), TINE_EINVAL);
    CHECK_MESSAGE("options.reserved");
    CHECK_STATUS(tine_process_start(child_of_nobody, NULL, &of_process, &process), TINE_EINVAL);
    CHECK_MESSAGE("options.reserved");
    CHECK(queue == NULL && lock == NULL && semaphore == NULL && event == NULL && process == NULL);
}

TEST(unknown_flags_are_refused_and_named) {
    tine_queue_options_t of_queue = TINE_QUEUE_OPTIONS_INIT;
    tine_lock_options_t options = TINE_LOCK_OPTIONS_INIT;
    tine_queue_t *queue = NULL;
    tine_lock_t *lock = NULL;
    tine_semaphore_t *semaphore = NULL;
    tine_event_t *event = NULL;
    of_queue.flags = options.flags = 0x80000000u;
    CHECK_STATUS(tine_queue_new(&of_queue, &queue), TINE_EINVAL);
    CHECK_MESSAGE("options.flags");
    CHECK_MESSAGE("0x80000000");
    CHECK_STATUS(tine_lock_new(&options, &lock), TINE_EINVAL);
    CHECK_STATUS(tine_semaphore_new(0, 0, &options, &semaphore), TINE_EINVAL);
    CHECK_STATUS(tine_event_new(&options, &event), TINE_EINVAL);
    CHECK(queue == NULL && lock == NULL && semaphore == NULL && event == NULL);
}

TEST(a_lock_that_is_not_held_is_not_released) {
    tine_lock_t *lock = NULL;
    CHECK_OK(tine_lock_new(NULL, &lock));
    CHECK_STATUS(tine_lock_release(lock), TINE_ENOTOWNER);
    CHECK_MESSAGE("lock");
    CHECK_OK(tine_lock_acquire(lock, 0));
    CHECK_OK(tine_lock_release(lock));
    CHECK_STATUS(tine_lock_release(lock), TINE_ENOTOWNER);
    tine_lock_free(lock);
}

TEST(a_semaphore_does_not_go_above_its_bound) {
    tine_semaphore_t *semaphore = NULL;
    CHECK_STATUS(tine_semaphore_new(3, 2, NULL, &semaphore), TINE_EINVAL);
    CHECK_MESSAGE("semaphore: initial 3");
    CHECK(semaphore == NULL);
    CHECK_OK(tine_semaphore_new(1, 2, NULL, &semaphore));
    CHECK_STATUS(tine_semaphore_release(semaphore, 2), TINE_EOVERFLOW);
    CHECK_MESSAGE("semaphore");
    CHECK_STATUS(tine_semaphore_release(semaphore, UINT32_MAX), TINE_EOVERFLOW);
    CHECK_INT(tine_semaphore_value(semaphore), 1);
    CHECK_OK(tine_semaphore_release(semaphore, 1));
    CHECK_INT(tine_semaphore_value(semaphore), 2);
    tine_semaphore_free(semaphore);
}

TEST(a_buffer_that_is_too_small_leaves_the_message_and_tells_its_length) {
    tine_queue_t *queue = new_queue();
    char buffer[8] = "";
    size_t length = 0;
    CHECK_OK(tine_queue_put(queue, "12345", 5, 0));
    CHECK_STATUS(tine_queue_get(queue, buffer, 4, 0, &length), TINE_ETOOSMALL);
    CHECK_INT(length, 5);
    CHECK_INT(buffer[0], 0);
    CHECK_OK(tine_queue_get(queue, buffer, 5, 0, &length));
    CHECK_TEXT(buffer, "12345");
    tine_queue_free(queue);
}

TEST(success_does_not_clear_the_message_and_the_next_failure_replaces_it) {
    tine_queue_t *queue = NULL;
    CHECK_STATUS(tine_lock_acquire(NULL, 0), TINE_EINVAL);
    CHECK_OK(tine_queue_new(NULL, &queue));
    tine_queue_free(queue);
    CHECK_TEXT(tine_last_error_message(), "lock is NULL");
    CHECK_STATUS(tine_event_set(NULL), TINE_EINVAL);
    CHECK_TEXT(tine_last_error_message(), "event is NULL");
}

TEST(the_copy_of_a_message_is_cut_off_where_it_does_not_fit) {
    char buffer[16];
    CHECK_STATUS(tine_lock_acquire(NULL, 0), TINE_EINVAL);
    CHECK_INT(tine_last_error_copy(NULL, 0), strlen("lock is NULL"));
    memset(buffer, '!', sizeof buffer);
    CHECK_INT(tine_last_error_copy(buffer, 1), strlen("lock is NULL"));
    CHECK_TEXT(buffer, "");
    CHECK_INT(buffer[1], '!');
    CHECK_INT(tine_last_error_copy(buffer, 5), strlen("lock is NULL"));
    CHECK_TEXT(buffer, "lock");
    CHECK_INT(buffer[5], '!');
    CHECK_INT(tine_last_error_copy(buffer, sizeof buffer), strlen("lock is NULL"));
    CHECK_TEXT(buffer, "lock is NULL");
}

static void *fail_elsewhere(void *unused) {
    (void)unused;
    CHECK_TEXT(tine_last_error_message(), "");
    CHECK_STATUS(tine_event_set(NULL), TINE_EINVAL);
    CHECK_TEXT(tine_last_error_message(), "event is NULL");
    return NULL;
}
TEST(each_thread_has_its_own_message) {
    pthread_t thread;
    CHECK_STATUS(tine_lock_acquire(NULL, 0), TINE_EINVAL);
    CHECK_INT(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK_TEXT(tine_last_error_message(), "lock is NULL");
}

/* Makes one of each, once with success and once in vain. */
static void make_and_free(void) {
    tine_queue_options_t refused = TINE_QUEUE_OPTIONS_INIT;
    tine_queue_t *queue = new_queue();
    tine_lock_t *lock = NULL;
    tine_semaphore_t *semaphore = NULL;
    tine_event_t *event = NULL;
    void *data;
    refused.capacity_bytes = SIZE_MAX;
    CHECK_STATUS(tine_queue_new(&refused, &queue), TINE_EINVAL);
    CHECK_OK(tine_lock_new(NULL, &lock));
    CHECK_STATUS(tine_semaphore_new(UINT32_MAX, 0, NULL, &semaphore), TINE_EINVAL);
    CHECK_OK(tine_semaphore_new(1, 1, NULL, &semaphore));
    CHECK_OK(tine_event_new(NULL, &event));
    CHECK_OK(tine_queue_put(queue, "x", 1, 0));
    CHECK_OK(tine_queue_get_alloc(queue, 0, &data, NULL));
    CHECK_STATUS(tine_queue_get_alloc(queue, 0, &data, NULL), TINE_EEMPTY);
    tine_free(data);
    tine_event_free(event);
    tine_semaphore_free(semaphore);
    tine_lock_free(lock);
    tine_queue_free(queue);
}
TEST(nothing_is_leaked_by_success_or_failure) {
    make_and_free(); /* what is made once per process stays */
    const int fds = test_count_fds(), mappings = test_count_mappings("memfd:"), children = test_count_children();
    for (int i = 0; i < 100; i++) make_and_free();
    CHECK_INT(test_count_fds(), fds);
    CHECK_INT(test_count_mappings("memfd:"), mappings);
    CHECK_INT(test_count_children(), children);
}
