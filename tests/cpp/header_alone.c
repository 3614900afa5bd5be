/* Nothing before the header: it brings what it needs. Compiled as C99, C11 and C17. */
#include "tine.h"

int main(void) { return TINE_OK; }
