/* All tests of test_host_loop.c where the kernel has no pidfds. */
#include "test_host_loop.c"

#include "no_pidfd.h"
