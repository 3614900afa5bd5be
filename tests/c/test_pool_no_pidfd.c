/* All tests of test_pool.c where the kernel has no pidfds. */
#include "test_pool.c"

#include "no_pidfd.h"
