// What is C++ about function children: exceptions that come out of them, and destructors of the parent that must not run in them.
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <unistd.h>
#include "tine.h"

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            std::printf("line %d: failed: %s: %s\n", __LINE__, #condition, tine_last_error_message()); \
            std::fflush(stdout); \
            _exit(1); \
        } \
    } while (0)

static const pid_t test = getpid();
static int told[2];

struct Tells {
    char what;
    ~Tells() {
        if (write(told[1], &what, 1) != 1) std::abort();
    }
};
static Tells static_object{'S'};

static int code_of(tine_process_fn fn) {
    tine_process_t *process = nullptr;
    int32_t code = 1000;
    CHECK(tine_process_start(fn, nullptr, nullptr, &process) == TINE_OK);
    CHECK(tine_process_join(process, TINE_FOREVER) == TINE_OK);
    CHECK(tine_process_exit_code(process, &code) == TINE_OK);
    tine_process_free(process);
    return code;
}
static int32_t throws(void *) {
    Tells local{'l'};
    throw std::runtime_error("out of the child");
}
static int32_t throws_a_number(void *) { throw 42; }
static int32_t catches(void *) {
    try {
        throws_a_number(nullptr);
    } catch (int number) {
        return number;
    }
    return 0;
}
static int32_t throws_out_of_noexcept(void *) {
    std::freopen("/dev/null", "w", stderr); // what std::terminate says
    []() noexcept { throw 1; }();
    return 0;
}
static int32_t exits(void *) {
    static Tells own{'o'};
    std::exit(9);
}
static void take_told(const char *expected) {
    char end = '.';
    CHECK(write(told[1], &end, 1) == 1);
    for (char got;; expected++) {
        CHECK(read(told[0], &got, 1) == 1);
        CHECK(got == (*expected ? *expected : '.'));
        if (got == '.') return;
    }
}

int main() {
    CHECK(pipe(told) == 0);
    // A caller's handler lies below on the stack: the exception must not get there.
    try {
        CHECK(code_of(throws) == 1);
        take_told("l");
        CHECK(code_of(throws_a_number) == 1);
        CHECK(code_of(catches) == 42);
        CHECK(code_of(throws_out_of_noexcept) == -6);
        CHECK(code_of(exits) == 9);
        take_told("o"); // its own static objects end with it, the parent's do not
    } catch (...) {
        CHECK(!"an exception came out of the library");
    }
    CHECK(getpid() == test);
    std::printf("done\n");
}
