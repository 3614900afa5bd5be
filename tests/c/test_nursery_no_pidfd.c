/* All tests of test_nursery.c where the kernel has no pidfds. */
#include "test_nursery.c"

#include "no_pidfd.h"
