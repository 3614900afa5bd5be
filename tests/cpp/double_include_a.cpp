#include "tine.h"
#include "tine.h"

int other();

int main() { return other() == TINE_VERSION_MAJOR ? 0 : 1; }
