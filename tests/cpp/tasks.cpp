// Exceptions that come out of tasks and initializers: each costs its worker, its task says so, and nothing is printed.
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include <sys/resource.h>

#include "tine.h"

#define CHECK(condition) ((condition) ? (void)0 : (std::printf("%d: %s: %s\n", __LINE__, #condition, tine_last_error_message()), std::exit(1)))

static int32_t throws(const void *, size_t, tine_task_t *) { throw std::runtime_error("out of the task"); }
static int32_t fine(const void *, size_t, tine_task_t *) { return 0; }
static int32_t initializer_throws(void *, void **) { throw 42; }

static tine_pool_t *pool_with(tine_pool_options_t options) {
    tine_pool_t *pool = nullptr;
    CHECK(tine_pool_new(&options, &pool) == TINE_OK);
    return pool;
}
static void end(tine_pool_t *pool) {
    CHECK(tine_pool_close(pool) == TINE_OK);
    CHECK(tine_pool_join(pool, TINE_FOREVER) == TINE_OK);
    tine_pool_free(pool);
}

int main() {
    const rlimit none = { 0, 0 };
    setrlimit(RLIMIT_CORE, &none);
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    options.workers = 2;
    tine_pool_t *pool = pool_with(options);
    for (int i = 0; i < 5; i++) {
        tine_result_t *result = nullptr;
        CHECK(tine_pool_apply(pool, throws, nullptr, 0, TINE_FOREVER, &result) >= TINE_OK);
        CHECK(tine_result_status(result) == TINE_EWORKERDIED);
        tine_exit_info_t info = TINE_EXIT_INFO_INIT;
        CHECK(tine_result_exit_info(result, &info) == TINE_OK && info.signal == 6);
        tine_result_free(result);
        CHECK(tine_pool_apply(pool, fine, nullptr, 0, TINE_FOREVER, nullptr) == TINE_OK);
    }
    end(pool);

    options.initializer = initializer_throws, options.crash_budget = 3;
    pool = pool_with(options);
    tine_result_t *result = nullptr;
    const tine_status_t status = tine_pool_apply(pool, fine, nullptr, 0, TINE_FOREVER, &result);
    CHECK((status == TINE_OK && tine_result_status(result) == TINE_ECANCELED) || status == TINE_EBROKEN);
    tine_result_free(result);
    CHECK(tine_pool_submit(pool, fine, nullptr, 0, nullptr, nullptr) == TINE_EBROKEN);
    end(pool);
    std::printf("done\n");
}
