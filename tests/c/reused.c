/* Built twice, as two objects of one shape: test_nursery.c closes one and finds the other's function at its address. */
#include "tine.h"

int32_t answer(const void *arg, size_t len, tine_task_t *task);
int32_t answer(const void *arg, size_t len, tine_task_t *task) { return (void)arg, (void)len, (void)task, ANSWER; }
