// Nothing before the header: it brings what it needs. Compiled as C++17 and C++20.
#include "tine.h"

int main() { return TINE_OK; }
