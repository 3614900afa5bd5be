/* All tests of test_process.c where the kernel has no pidfds. */
#include "test_process.c"

#include "no_pidfd.h"
