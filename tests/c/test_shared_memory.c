/* Blocks of shared memory, and locks and semaphores inside them. */
#include <pthread.h>
#include <sys/resource.h>
#include "test.h"

static tine_shared_memory_t *new_block(size_t length) {
    tine_shared_memory_t *memory = NULL;
    CHECK_OK(tine_shared_memory_new(length, NULL, &memory));
    return memory;
}
/* Runs `body` in a child and gives back how it left. */
static int in_child(int32_t (*body)(void *), void *user_data) {
    tine_process_t *child = NULL;
    int32_t code = -1000;
    CHECK_OK(tine_process_start(body, user_data, NULL, &child));
    CHECK_OK(tine_process_join(child, TINE_FOREVER));
    CHECK_OK(tine_process_exit_code(child, &code));
    return tine_process_free(child), code;
}

TEST(a_block_is_zeros_of_exactly_its_length_on_a_page) {
    tine_shared_memory_t *memory = new_block(5001);
    const unsigned char *bytes = tine_shared_memory_data(memory);
    CHECK_INT(tine_shared_memory_length(memory), 5001);
    CHECK_INT((uintptr_t)bytes % (size_t)sysconf(_SC_PAGESIZE), 0);
    for (int i = 0; i < 5001; i++) CHECK_INT(bytes[i], 0);
    CHECK(tine_shared_memory_name(memory) == NULL);
    tine_shared_memory_free(memory);
}

static int32_t write_end(void *user_data) {
    tine_shared_memory_t *memory = user_data;
    ((char *)tine_shared_memory_data(memory))[tine_shared_memory_length(memory) - 1] = 'x';
    tine_shared_memory_free(memory);
    return 0;
}
TEST(a_child_sees_and_writes_the_same_bytes) {
    tine_shared_memory_t *memory = new_block(10000);
    CHECK_INT(in_child(write_end, memory), 0);
    CHECK_INT(((char *)tine_shared_memory_data(memory))[9999], 'x');
    tine_shared_memory_free(memory);
}

TEST(impossible_lengths_are_refused) {
    tine_shared_memory_t *memory = NULL;
    CHECK_STATUS(tine_shared_memory_new(0, NULL, &memory), TINE_EINVAL);
    CHECK_MESSAGE("length");
    CHECK_STATUS(tine_shared_memory_new(SIZE_MAX, NULL, &memory), TINE_ENOSPC);
    CHECK_STATUS(tine_shared_memory_new(SIZE_MAX - 5000, NULL, &memory), TINE_ENOSPC);
    CHECK_STATUS(tine_shared_memory_new(SIZE_MAX / 8, NULL, &memory), TINE_ENOSPC);
    const struct rlimit limit = { 1 << 16, 1 << 16 }; /* SIGXFSZ would end this process */
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
    CHECK_STATUS(tine_shared_memory_new(1 << 20, NULL, &memory), TINE_ENOSPC);
    CHECK(memory == NULL);
}

TEST(predicates_of_null_answer_nothing) {
    CHECK(tine_shared_memory_data(NULL) == NULL);
    CHECK_INT(tine_shared_memory_length(NULL), 0);
    CHECK(tine_shared_memory_name(NULL) == NULL);
    tine_shared_memory_free(NULL);
}

TEST(unknown_flags_are_refused) {
    tine_shared_memory_options_t options = TINE_SHARED_MEMORY_OPTIONS_INIT;
    tine_shared_memory_t *memory = NULL;
    options.flags = 1;
    CHECK_STATUS(tine_shared_memory_new(1, &options, &memory), TINE_EINVAL);
    options.flags = TINE_OPEN_OR_CREATE;
    CHECK_STATUS(tine_shared_memory_new(1, &options, &memory), TINE_EINVAL);
    CHECK_MESSAGE("needs a name");
}

TEST(nothing_is_left_of_a_block) {
    tine_shared_memory_free(new_block(1));
    const int fds = test_count_fds(), mappings = test_count_mappings("tine:");
    for (int i = 0; i < 100; i++) {
        tine_shared_memory_t *memory = new_block(100000);
        tine_lock_t *lock = NULL;
        CHECK_OK(tine_lock_new_in(memory, 64, NULL, &lock));
        tine_lock_free(lock);
        tine_shared_memory_free(memory);
    }
    CHECK_INT(test_count_fds(), fds);
    CHECK_INT(test_count_mappings("tine:"), mappings);
}

/* A table of rows, each with a lock beside what it guards. */
enum { ROWS = 1000, ROUNDS = 2000, WORKERS = 4 };
static size_t row_bytes(void) { return tine_lock_footprint() + 2 * sizeof(uint64_t); }
static int32_t count_rows(void *user_data) {
    tine_shared_memory_t *memory = user_data;
    unsigned seed = (unsigned)getpid();
    tine_lock_t *locks[8];
    for (int row = 0; row < 8; row++)
        if (tine_lock_at(memory, (size_t)row * row_bytes(), &locks[row]) != TINE_OK) return 1;
    for (int i = 0; i < ROUNDS; i++) {
        const int row = rand_r(&seed) % 8;
        uint64_t *counters = (void *)((char *)tine_shared_memory_data(memory) + (size_t)row * row_bytes() + tine_lock_footprint());
        if (tine_lock_acquire(locks[row], TINE_FOREVER) != TINE_OK) return 2;
        if (counters[0] != counters[1]) return 3;
        counters[0]++, counters[1]++;
        if (tine_lock_release(locks[row]) != TINE_OK) return 4;
    }
    for (int row = 0; row < 8; row++) tine_lock_free(locks[row]);
    return 0;
}
TEST(a_lock_lies_beside_what_it_guards) {
    tine_shared_memory_t *memory = new_block(ROWS * row_bytes());
    const int fds = test_count_fds(), mappings = test_count_mappings("tine:");
    tine_lock_t *locks[ROWS];
    for (size_t row = 0; row < ROWS; row++) CHECK_OK(tine_lock_new_in(memory, row * row_bytes(), NULL, &locks[row]));
    CHECK_INT(test_count_fds(), fds);
    CHECK_INT(test_count_mappings("tine:"), mappings);
    tine_process_t *children[WORKERS];
    for (int i = 0; i < WORKERS; i++) CHECK_OK(tine_process_start(count_rows, memory, NULL, &children[i]));
    uint64_t sum = 0;
    for (int i = 0; i < WORKERS; i++) {
        int32_t code = -1;
        CHECK_OK(tine_process_join(children[i], TINE_FOREVER));
        CHECK_OK(tine_process_exit_code(children[i], &code));
        CHECK_INT(code, 0);
        tine_process_free(children[i]);
    }
    for (size_t row = 0; row < ROWS; row++) {
        sum += *(uint64_t *)(void *)((char *)tine_shared_memory_data(memory) + row * row_bytes() + tine_lock_footprint());
        tine_lock_free(locks[row]);
    }
    CHECK_INT(sum, WORKERS * ROUNDS);
    tine_shared_memory_free(memory);
}

static int32_t die_inside(void *user_data) {
    tine_lock_t *lock = NULL;
    if (tine_lock_at(user_data, 8, &lock) != TINE_OK || tine_lock_acquire(lock, TINE_FOREVER) != TINE_OK) return 1;
    kill(getpid(), SIGKILL);
    return 2;
}
TEST(a_lock_in_a_block_survives_its_owner) {
    tine_shared_memory_t *memory = new_block(4096);
    tine_lock_t *lock = NULL;
    CHECK_OK(tine_lock_new_in(memory, 8, NULL, &lock));
    CHECK_INT(in_child(die_inside, memory), -SIGKILL);
    CHECK_STATUS(tine_lock_acquire(lock, TINE_FOREVER), TINE_OWNER_DIED);
    CHECK_OK(tine_lock_release(lock));
    CHECK_OK(tine_lock_acquire(lock, 0));
    CHECK_OK(tine_lock_release(lock));
    tine_lock_free(lock);
    tine_shared_memory_free(memory);
}

TEST(two_handles_of_one_place_are_one_lock) {
    tine_shared_memory_t *memory = new_block(4096);
    tine_lock_options_t recursive = TINE_LOCK_OPTIONS_INIT;
    tine_lock_t *lock = NULL, *same = NULL;
    recursive.flags = TINE_LOCK_RECURSIVE;
    CHECK_OK(tine_lock_new_in(memory, 1000, &recursive, &lock));
    CHECK_OK(tine_lock_at(memory, 1000, &same));
    CHECK_OK(tine_lock_acquire(lock, 0));
    CHECK(tine_lock_is_held(same));
    CHECK_OK(tine_lock_acquire(same, 0)); /* the place knows that it is recursive */
    CHECK_OK(tine_lock_release(same));
    CHECK_OK(tine_lock_release(same));
    CHECK(!tine_lock_is_held(lock));
    tine_lock_free(lock);
    tine_lock_free(same);
    tine_shared_memory_free(memory);
}

TEST(wrong_places_are_refused) {
    const size_t length = 4 * tine_lock_footprint();
    tine_shared_memory_t *memory = new_block(length);
    tine_lock_options_t named = TINE_LOCK_OPTIONS_INIT;
    tine_lock_t *lock = NULL;
    tine_semaphore_t *semaphore = NULL;
    CHECK_STATUS(tine_lock_at(memory, 0, &lock), TINE_EINVAL);
    CHECK_MESSAGE("there is not a lock at 0");
    CHECK_STATUS(tine_lock_new_in(memory, 4, NULL, &lock), TINE_EINVAL);
    CHECK_MESSAGE("multiple of 8");
    CHECK_STATUS(tine_lock_new_in(memory, length - tine_lock_footprint() + 8, NULL, &lock), TINE_EINVAL);
    CHECK_STATUS(tine_lock_new_in(memory, length, NULL, &lock), TINE_EINVAL);
    CHECK_STATUS(tine_lock_new_in(memory, SIZE_MAX - 7, NULL, &lock), TINE_EINVAL);
    CHECK_STATUS(tine_lock_at(memory, SIZE_MAX - 7, &lock), TINE_EINVAL);
    CHECK_STATUS(tine_semaphore_new_in(memory, length - 8, 0, 0, &semaphore), TINE_EINVAL);
    CHECK_STATUS(tine_semaphore_new_in(memory, 0, 3, 2, &semaphore), TINE_EINVAL);
    named.name = "no-name-inside";
    CHECK_STATUS(tine_lock_new_in(memory, 0, &named, &lock), TINE_EINVAL);
    CHECK_MESSAGE("no name of its own");
    named.name = NULL, named.flags = TINE_OPEN_OR_CREATE;
    CHECK_STATUS(tine_lock_new_in(memory, 0, &named, &lock), TINE_EINVAL);
    CHECK_STATUS(tine_lock_new_in(NULL, 0, NULL, &lock), TINE_EINVAL);
    CHECK_STATUS(tine_lock_new_in(memory, 0, NULL, NULL), TINE_EINVAL);
    CHECK(lock == NULL && semaphore == NULL);
    CHECK_OK(tine_lock_new_in(memory, length - tine_lock_footprint(), NULL, &lock)); /* the last place there is */
    CHECK_STATUS(tine_semaphore_at(memory, length - tine_lock_footprint(), &semaphore), TINE_EINVAL); /* it would not fit */
    CHECK_OK(tine_semaphore_new_in(memory, 0, 1, 1, &semaphore));
    tine_lock_free(lock), lock = NULL;
    CHECK_STATUS(tine_lock_at(memory, 0, &lock), TINE_EINVAL);
    tine_semaphore_free(semaphore);
    tine_shared_memory_free(memory);
}

TEST(a_lock_that_is_held_is_not_written_over) {
    tine_shared_memory_t *memory = new_block(100);
    tine_lock_t *lock = NULL, *again = NULL;
    memset(tine_shared_memory_data(memory), 0xa5, 100); /* what is no lock may be anything */
    CHECK_OK(tine_lock_new_in(memory, 0, NULL, &lock));
    CHECK_OK(tine_lock_acquire(lock, 0));
    CHECK_STATUS(tine_lock_new_in(memory, 0, NULL, &again), TINE_EBUSY);
    CHECK_OK(tine_lock_release(lock));
    CHECK_OK(tine_lock_new_in(memory, 0, NULL, &again));
    CHECK_OK(tine_lock_acquire(again, 0));
    CHECK_OK(tine_lock_release(again));
    tine_lock_free(lock);
    tine_lock_free(again);
    tine_shared_memory_free(memory);
}

TEST(a_lock_keeps_its_block_mapped) {
    tine_shared_memory_t *memory = new_block(100);
    tine_lock_t *lock = NULL, *held = NULL;
    CHECK_OK(tine_lock_new_in(memory, 8, NULL, &lock));
    tine_shared_memory_free(memory);
    CHECK_OK(tine_lock_acquire(lock, 0));
    CHECK_OK(tine_lock_release(lock));
    tine_lock_free(lock);
    memory = new_block(100);
    CHECK_OK(tine_lock_new_in(memory, 8, NULL, &held));
    CHECK_OK(tine_lock_new(NULL, &lock));
    CHECK_OK(tine_lock_acquire(lock, 0));
    CHECK_OK(tine_lock_acquire(held, 0));
    tine_lock_free(held); /* it stays held: this thread's list leads through the block */
    tine_shared_memory_free(memory);
    CHECK_OK(tine_lock_release(lock));
    tine_lock_free(lock);
}

static int32_t give_three(void *user_data) {
    tine_semaphore_t *semaphore = NULL;
    if (tine_semaphore_at(user_data, 256, &semaphore) != TINE_OK) return 1;
    for (int i = 0; i < 3; i++)
        if (tine_semaphore_release(semaphore, 1) != TINE_OK) return 2;
    return tine_semaphore_release(semaphore, 3) == TINE_EOVERFLOW ? 0 : 3; /* the place knows the maximum */
}
TEST(a_semaphore_in_a_block_wakes_across_processes) {
    tine_shared_memory_t *memory = new_block(4096);
    tine_semaphore_t *semaphore = NULL;
    tine_process_t *child = NULL;
    int32_t code = -1;
    CHECK_INT(tine_semaphore_footprint() % 8, 0);
    CHECK_OK(tine_semaphore_new_in(memory, 256, 0, 4, &semaphore));
    CHECK_OK(tine_process_start(give_three, memory, NULL, &child));
    for (int i = 0; i < 2; i++) CHECK_OK(tine_semaphore_acquire(semaphore, TINE_FOREVER));
    CHECK_OK(tine_process_join(child, TINE_FOREVER));
    CHECK_OK(tine_process_exit_code(child, &code));
    CHECK(code == 0 || code == 3); /* 3: we were faster than its last release */
    tine_process_free(child);
    CHECK_OK(tine_semaphore_acquire(semaphore, 0));
    tine_semaphore_free(semaphore);
    tine_shared_memory_free(memory);
}

TEST(garbage_in_a_semaphores_place_is_an_error) {
    tine_shared_memory_t *memory = new_block(4096);
    tine_semaphore_t *semaphore = NULL, *other = NULL;
    uint32_t *words = tine_shared_memory_data(memory);
    CHECK_OK(tine_semaphore_new_in(memory, 0, 1, 1, &semaphore));
    for (size_t i = 0; i < tine_semaphore_footprint() / 4; i++) {
        const uint32_t before = words[i];
        words[i] = 0xffffffff;
        const tine_status_t status = tine_semaphore_at(memory, 0, &other);
        CHECK(status == TINE_OK || status == TINE_EINVAL || status == TINE_ECORRUPT);
        if (status == TINE_OK) tine_semaphore_free(other);
        words[i] = before;
    }
    tine_semaphore_free(semaphore);
    tine_shared_memory_free(memory);
}
