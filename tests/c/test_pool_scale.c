/* Very many tasks at a time. TINE_TEST_TASKS says how many: a million by hand. */
#include "pool_tools.h"

static long kilobytes(const char *field) { return atol(field_of(getpid(), field)); }
static long memory(void) { return kilobytes("RssAnon:") + kilobytes("RssShmem:"); }

static int32_t check_bytes(const void *arg, size_t len, tine_task_t *task) {
    const unsigned char *bytes = arg;
    (void)task;
    for (size_t i = 4; i < len; i++)
        if (bytes[i] != bytes[0]) return 1;
    return len != 100;
}
TEST_WITHIN(pending_tasks_need_memory_as_they_come, 60) {
    const char *asked = getenv("TINE_TEST_TASKS");
    const int count = asked != NULL ? atoi(asked) : under_valgrind() ? 3000 : 50000;
    tine_pool_options_t of_pool = TINE_POOL_OPTIONS_INIT;
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    if (kilobytes("RssShmem:") == 0 && field_of(getpid(), "RssShmem:")[0] == 0) SKIP("the kernel does not tell");
    share();
    of_pool.workers = 2, of_pool.max_pending = 1 << 24;
    const long before = memory();
    tine_pool_t *pool = pool_with(&of_pool);
    for (int i = 0; i < 2; i++) CHECK_OK(tine_pool_submit(pool, wait_at_gate, NULL, 0, NULL, NULL));
    await(&shared->started, 2);
    const long empty = memory();
    if (!under_asan() && !under_valgrind()) CHECK(empty - before < 16 * KIB); /* although there may be 16 million */
    options.flags = TINE_SUBMIT_TRY;
    const int64_t start = now_us();
    for (int i = 0; i < count; i++) {
        char bytes[100];
        memset(bytes, i, sizeof bytes);
        CHECK_OK(tine_pool_submit(pool, check_bytes, bytes, sizeof bytes, &options, NULL));
    }
    const int64_t submitted = now_us();
    const long full = memory();
    CHECK_INT(stats_of(pool).queued, count);
    printf("# %d pending tasks of 100 bytes: %ld MiB, %ld bytes each; submitted in %.2f s", count, (full - empty) / KIB,
           (full - empty) * KIB / count, (double)(submitted - start) / 1e6);
    if (!under_asan() && !under_valgrind()) CHECK((full - empty) * KIB / count < 1073); /* a million within 1 GiB */
    set(&shared->gate, 1);
    CHECK_OK(tine_pool_close(pool));
    CHECK_OK(tine_pool_join(pool, TINE_FOREVER));
    printf(", done in %.2f s\n", (double)(now_us() - submitted) / 1e6);
    const tine_pool_stats_t stats = stats_of(pool);
    CHECK_INT(stats.done, count + 2);
    CHECK_INT(stats.failed, 0);
    tine_pool_free(pool);
    if (!under_asan() && !under_valgrind()) CHECK(kilobytes("RssShmem:") < 16 * KIB);
}
