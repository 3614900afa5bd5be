#include "tine.h"
#include "tine.h"

int other();
int other() { return TINE_VERSION_MAJOR; }
