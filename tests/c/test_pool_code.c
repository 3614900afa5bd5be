/* Which functions a pool takes: code that its workers have as well. */
#include <dlfcn.h>
#include "pool_tools.h"

static void use(tine_pool_t *pool) { CHECK_OK(tine_pool_apply(pool, do_nothing, NULL, 0, TINE_FOREVER, NULL)); }

static void make_library(const char *folder, const char *name, const char *flags, int value) {
    char command[600];
    snprintf(command, sizeof command,
             "printf 'int f(const void *a, unsigned long l, void *t) { (void)a, (void)l, (void)t; return %d; }' "
             "| cc -shared -fPIC -x c %s -o %s/%s -",
             value, flags, folder, name);
    if (system(command) != 0) SKIP("needs a compiler");
}
static tine_task_fn load(const char *folder, const char *name, void **out_library) {
    char path[300];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    *out_library = dlopen(path, RTLD_NOW);
    CHECK(*out_library != NULL);
    void *found = dlsym(*out_library, "f");
    tine_task_fn fn;
    memcpy(&fn, &found, sizeof fn);
    return fn;
}
static void try_other_libraries(const char *folder) {
    const char *const flags[] = { "-Wl,--build-id", "-Wl,--build-id=none" };
    for (int ids = 0; ids < 2; ids++) {
        void *first, *second;
        make_library(folder, "a.so", flags[ids], 1), make_library(folder, "b.so", flags[ids], 2);
        const tine_task_fn old = load(folder, "a.so", &first);
        tine_pool_t *pool = pool_of(1);
        tine_result_t *result;
        CHECK_OK(tine_pool_apply(pool, old, NULL, 0, TINE_FOREVER, &result));
        CHECK_INT(tine_result_code(result), 1);
        tine_result_free(result);
        /* Loaded when the pool was there already. */
        const tine_task_fn late = load(folder, "b.so", &second);
        CHECK_STATUS(tine_pool_apply(pool, late, NULL, 0, TINE_FOREVER, NULL), TINE_EINVAL);
        CHECK_MESSAGE("loaded after the pool was made");
        dlclose(second), dlclose(first);
        CHECK_STATUS(tine_pool_apply(pool, old, NULL, 0, TINE_FOREVER, NULL), TINE_EINVAL);
        CHECK_MESSAGE("unloaded");
        /* Another object where the old one was: the workers still have the old one there. */
        const tine_task_fn other = load(folder, "b.so", &second);
        if (other == old) {
            CHECK_STATUS(tine_pool_apply(pool, other, NULL, 0, TINE_FOREVER, NULL), TINE_EINVAL);
            CHECK_MESSAGE("when the pool was made it was in");
        } else {
            printf("# the loader has put the second library elsewhere\n");
        }
        dlclose(second);
        /* The same build at the same place is the same code, if it can be told. */
        const tine_task_fn same = load(folder, "a.so", &first);
        if (same == old) {
            const int32_t status = tine_pool_apply(pool, same, NULL, 0, TINE_FOREVER, &result);
            CHECK_STATUS(status, ids == 0 ? TINE_OK : TINE_EINVAL);
            if (status == TINE_OK) tine_result_free(result);
        }
        dlclose(first);
        use(pool);
        tine_pool_free(pool);
    }
}
TEST(a_function_of_another_library_at_the_same_address_is_refused) {
    char folder[] = "/tmp/tine_test_XXXXXX", command[60];
    CHECK(mkdtemp(folder) != NULL);
    fflush(stdout);
    const pid_t pid = fork(); /* so that the folder goes whatever happens */
    int status;
    if (pid == 0) try_other_libraries(folder), exit(0);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK_INT(system(command), 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) SKIP("needs a compiler");
    CHECK_INT(status, 0);
}

/* A function that answers 42, made at run time. NULL: not for this processor. */
static void *make_code(void) {
#if defined __x86_64__
    static const unsigned char code[] = { 0xb8, 42, 0, 0, 0, 0xc3 };
#elif defined __aarch64__
    static const uint32_t code[] = { 0x52800540, 0xd65f03c0 };
#else
    static const unsigned char code[] = { 0 };
    return NULL;
#endif
    char *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    memcpy(memory, code, sizeof code);
    if (mprotect(memory, 4096, PROT_READ | PROT_EXEC) != 0) SKIP("no code may be made here");
    __builtin___clear_cache(memory, memory + sizeof code);
    return memory;
}
TEST(code_that_was_made_at_run_time_is_taken_where_that_is_allowed) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    static char data[64];
    void *const before = make_code();
    if (before == NULL) SKIP("not for this processor");
    options.workers = 1;
    for (int allowed = 0; allowed < 2; allowed++) {
        options.flags = allowed ? TINE_POOL_ALLOW_CLOSURES : 0;
        tine_pool_t *pool = pool_with(&options);
        tine_result_t *result = NULL;
        CHECK_STATUS(tine_pool_apply(pool, function_at(before), NULL, 0, TINE_FOREVER, &result), allowed ? TINE_OK : TINE_EINVAL);
        if (allowed) CHECK_INT(tine_result_code(result), 42);
        tine_result_free(result);
        void *const after = make_code();
        CHECK_STATUS(tine_pool_apply(pool, function_at(after), NULL, 0, TINE_FOREVER, NULL), TINE_EINVAL); /* the workers do not have it */
        CHECK_STATUS(tine_pool_apply(pool, function_at(data), NULL, 0, TINE_FOREVER, NULL), TINE_EINVAL);
        CHECK_STATUS(tine_pool_apply(pool, function_at((void *)8), NULL, 0, TINE_FOREVER, NULL), TINE_EINVAL);
        CHECK_STATUS(tine_pool_apply(pool, NULL, NULL, 0, TINE_FOREVER, NULL), TINE_EINVAL);
        munmap(after, 4096);
        use(pool);
        tine_pool_free(pool);
    }
}
