/*
 * call_all LIBRARY FUNCTION...: calls each function of the library with zeros for all arguments, and prints one line for each: its
 * name, what it returned as an int32_t, the last error's message. In a library that was built with the feature panic_injection, each
 * call meets a panic. Arguments beyond those that a function has are harmless in the C ABIs that tine knows.
 */
#include <dlfcn.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

typedef intptr_t zero;
typedef int32_t (*any_function)(zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero);

/* ISO C has no cast from an object pointer to a function pointer. */
static any_function find(void *library, const char *name) {
    any_function function;
    *(void **)&function = dlsym(library, name);
    return function;
}

int main(int argc, char **argv) {
    void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (library == NULL) return fprintf(stderr, "%s\n", dlerror()), 2;
    void (*inject)(bool); /* NULL: calls them as they are */
    const char *(*message)(void);
    *(void **)&inject = dlsym(library, "tine_test_inject_panics");
    *(void **)&message = dlsym(library, "tine_last_error_message");
    any_function copy = find(library, "tine_last_error_copy");
    if (message == NULL || copy == NULL) return fprintf(stderr, "%s\n", dlerror()), 2;

    const pid_t self = getpid();
    for (int i = 2; i < argc; i++) {
        any_function function = find(library, argv[i]);
        if (function == NULL) return fprintf(stderr, "%s\n", dlerror()), 2;
        copy(0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0); /* fails, and so replaces the message of the previous function */
        printf("%s ", argv[i]);
        fflush(stdout); /* names the function that never comes back */
        if (inject != NULL) inject(true);
        const int32_t returned = function(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
        if (inject != NULL) inject(false);
        if (getpid() != self) _exit(0); /* a fork that was not stopped */
        printf("%" PRId32 " %s\n", returned, message());
    }
    return 0;
}
