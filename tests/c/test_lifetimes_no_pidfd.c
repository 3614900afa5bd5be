/* All tests of test_lifetimes.c where the kernel has no pidfds. */
#include "test_lifetimes.c"

#include "no_pidfd.h"
