/* All tests of test_communicate.c where the kernel has no pidfds. */
#include "test_communicate.c"

#include "no_pidfd.h"
