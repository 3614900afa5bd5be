// Nothing before the header: it brings what it needs. Compiled as C++11, C++17 and C++20.
#include "tine.h"

static const tine_lock_options_t of_lock = TINE_LOCK_OPTIONS_INIT;

int main() {
    tine_queue_options_t of_queue = TINE_QUEUE_OPTIONS_INIT;
    of_queue.capacity = 1;
    of_queue = TINE_QUEUE_OPTIONS_INIT;
    return of_queue.size == sizeof of_queue && of_lock.size == sizeof of_lock && of_queue.capacity == 0 ? TINE_OK : TINE_EINVAL;
}
