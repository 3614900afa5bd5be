/*
 * Every item of the contract, used with its exact type or number: each constant is compared with its number, each field of each
 * struct is taken by its type, each function is assigned to a pointer of its prototype. tests/it/contract.rs compiles this file as
 * C99 and as C++17 against include/tine.h; it never runs. What does not compile here breaks somebody's program: lines are added,
 * none is changed.
 */
#include "tine.h"

/* ---- Constants: an array of -1 elements does not compile. ---- */
#define IS(name, number) typedef char name##_is[(name) == (number) ? 1 : -1]
IS(TINE_VERSION_MAJOR, 0);
IS(TINE_VERSION_MINOR, 1);
IS(TINE_VERSION_PATCH, 0);
IS(TINE_VERSION_NUMBER, 100u);
IS(TINE_FOREVER, -1);
IS(TINE_OK, 0);
IS(TINE_OWNER_DIED, 1);
IS(TINE_PIPE_HELD, 2);
IS(TINE_EINVAL, -1);
IS(TINE_E2BIG, -2);
IS(TINE_ENOMEM, -3);
IS(TINE_ENOSPC, -4);
IS(TINE_ESYS, -5);
IS(TINE_EPANIC, -6);
IS(TINE_ENOTSUP, -7);
IS(TINE_EPERM, -8);
IS(TINE_EACCES, -9);
IS(TINE_ENOENT, -10);
IS(TINE_EEXIST, -11);
IS(TINE_ENOTDIR, -12);
IS(TINE_EMFILE, -13);
IS(TINE_EAGAIN, -14);
IS(TINE_EINTR, -15);
IS(TINE_ETIMEDOUT, -16);
IS(TINE_EFULL, -17);
IS(TINE_EEMPTY, -18);
IS(TINE_ECLOSED, -19);
IS(TINE_EEOF, -20);
IS(TINE_EMSGSIZE, -21);
IS(TINE_ETOOSMALL, -22);
IS(TINE_ENOTOWNER, -23);
IS(TINE_EDEADLK, -24);
IS(TINE_EOVERFLOW, -25);
IS(TINE_EBUSY, -26);
IS(TINE_EFORKED, -27);
IS(TINE_EBROKEN, -28);
IS(TINE_ECANCELED, -29);
IS(TINE_ETASKFAILED, -30);
IS(TINE_EWORKERDIED, -31);
IS(TINE_ESTATUSLOST, -32);
IS(TINE_ECORRUPT, -33);
IS(TINE_LOG_ERROR, 1);
IS(TINE_LOG_WARN, 2);
IS(TINE_LOG_INFO, 3);
IS(TINE_LOG_DEBUG, 4);
IS(TINE_PROCESS_DAEMON, 1u);
IS(TINE_PROCESS_DETACHED, 2u);
IS(TINE_STDIO_INHERIT, 0);
IS(TINE_STDIO_PIPE, 1);
IS(TINE_STDIO_NULL, 2);
IS(TINE_STDIO_FD, 3);
IS(TINE_STDIO_PATH, 4);
IS(TINE_STDIO_APPEND, 5);
IS(TINE_STDIO_STDOUT, 6);
IS(TINE_SPAWN_NEW_GROUP, 1u);
IS(TINE_SPAWN_NEW_SESSION, 2u);
IS(TINE_SPAWN_KILL_ON_PARENT_DEATH, 4u);
IS(TINE_SPAWN_KILL_TREE, 8u);
IS(TINE_SPAWN_INHERIT_ALL_FDS, 16u);
IS(TINE_SPAWN_KEEP_SIGNALS, 32u);
IS(TINE_SPAWN_SET_UMASK, 64u);
IS(TINE_SPAWN_SET_UID, 128u);
IS(TINE_SPAWN_SET_GID, 256u);
IS(TINE_EXIT_HAS_STATUS, 1u);
IS(TINE_EXIT_HAS_TIMES, 2u);
IS(TINE_EXIT_HAS_PEAK_RSS, 4u);
IS(TINE_EXIT_HAS_STDERR_TAIL, 8u);
IS(TINE_REASON_EXIT, 1);
IS(TINE_REASON_SIGNAL, 2);
IS(TINE_REASON_TIMEOUT, 3);
IS(TINE_REASON_CANCELED, 4);
IS(TINE_REASON_MEMORY, 5);
IS(TINE_REASON_STOPPED, 6);
IS(TINE_REASON_TERMINATED, 7);
IS(TINE_POOL_HOST_LOOP, 1u);
IS(TINE_POOL_THREADS, 2u);
IS(TINE_POOL_SINGLE_THREAD_ONLY, 4u);
IS(TINE_POOL_INHERIT_ALL_FDS, 8u);
IS(TINE_POOL_KEEP_SIGNALS, 16u);
IS(TINE_POOL_NO_CORE, 32u);
IS(TINE_POOL_ALLOW_CLOSURES, 64u);
IS(TINE_POOL_BREAK_ON_DEATH, 128u);
IS(TINE_SUBMIT_TRY, 1u);
IS(TINE_IMAP_UNORDERED, 1u);
IS(TINE_PIPE_SIMPLEX, 1u);
IS(TINE_QUEUE_POLLABLE, 1u);
IS(TINE_QUEUE_GROW, 2u);
IS(TINE_OPEN_OR_CREATE, 0x10000u);
IS(TINE_LOCK_RECURSIVE, 1u);
IS(TINE_SEMAPHORE_TRACKED, 1u);
IS(TINE_FILE_LOCK_SHARED, 1u);
IS(TINE_FILE_LOCK_EXCLUSIVE, 2u);

/* ---- Handles: by typedef and by struct tag. ---- */
struct tine_process_t *handle_process(tine_process_t *);
struct tine_pool_t *handle_pool(tine_pool_t *);
struct tine_task_t *handle_task(tine_task_t *);
struct tine_async_t *handle_async(tine_async_t *);
struct tine_result_t *handle_result(tine_result_t *);
struct tine_stream_t *handle_stream(tine_stream_t *);
struct tine_connection_t *handle_connection(tine_connection_t *);
struct tine_queue_t *handle_queue(tine_queue_t *);
struct tine_lock_t *handle_lock(tine_lock_t *);
struct tine_semaphore_t *handle_semaphore(tine_semaphore_t *);
struct tine_event_t *handle_event(tine_event_t *);
struct tine_condition_t *handle_condition(tine_condition_t *);
struct tine_barrier_t *handle_barrier(tine_barrier_t *);
struct tine_shared_memory_t *handle_shared_memory(tine_shared_memory_t *);
struct tine_file_lock_t *handle_file_lock(tine_file_lock_t *);

/* ---- Callbacks and aliases: declared twice, which compiles only if both types are the same. ---- */
extern int32_t use_tine_status_t; extern tine_status_t use_tine_status_t;
extern tine_lock_options_t use_tine_semaphore_options_t; extern tine_semaphore_options_t use_tine_semaphore_options_t;
extern tine_lock_options_t use_tine_event_options_t; extern tine_event_options_t use_tine_event_options_t;
extern tine_lock_options_t use_tine_condition_options_t; extern tine_condition_options_t use_tine_condition_options_t;
extern tine_lock_options_t use_tine_shared_memory_options_t; extern tine_shared_memory_options_t use_tine_shared_memory_options_t;
extern tine_log_fn use_tine_log_fn;
extern void (*use_tine_log_fn)(int32_t level, const char *message, void *user_data);
extern tine_interrupt_fn use_tine_interrupt_fn;
extern int32_t (*use_tine_interrupt_fn)(void *user_data);
extern tine_process_fn use_tine_process_fn;
extern int32_t (*use_tine_process_fn)(void *user_data);
extern tine_task_fn use_tine_task_fn;
extern int32_t (*use_tine_task_fn)(const void *arg, size_t arg_len, tine_task_t *task);
extern tine_result_fn use_tine_result_fn;
extern void (*use_tine_result_fn)(const tine_result_t *result, void *user_data);
extern tine_initializer_fn use_tine_initializer_fn;
extern int32_t (*use_tine_initializer_fn)(void *user_data, void **out_state);
extern tine_finalizer_fn use_tine_finalizer_fn;
extern void (*use_tine_finalizer_fn)(void *state, void *user_data);
extern tine_next_fn use_tine_next_fn;
extern tine_status_t (*use_tine_next_fn)(void *user_data, tine_bytes_t *out_item);

/* ---- Structs: the fields by their types, and the macro that options and outputs start from. Designated initialisers are C++20: a
 * C++17 program sets the size by hand. ---- */
#ifdef __cplusplus
#define START(type, object, macro) type object = type(); object.size = sizeof object
#else
#define START(type, object, macro) type object = macro
#endif
void fields_of_bytes(void) {
    tine_bytes_t object;
    const void **data = &object.data;
    size_t *len = &object.len;
    (void)data; (void)len;
}
void fields_of_token(void) {
    tine_token_t object;
    uint8_t (*bytes)[32] = &object.bytes;
    (void)bytes;
}
void fields_of_process_options(void) {
    START(tine_process_options_t, object, TINE_PROCESS_OPTIONS_INIT);
    size_t *size = &object.size;
    const char **name = &object.name;
    uint32_t *flags = &object.flags;
    uint32_t *reserved = &object.reserved;
    (void)size; (void)name; (void)flags; (void)reserved;
}
void fields_of_fd_map(void) {
    tine_fd_map_t object;
    int32_t *fd = &object.fd;
    int32_t *as = &object.as;
    (void)fd; (void)as;
}
void fields_of_rlimit(void) {
    tine_rlimit_t object;
    int32_t *resource = &object.resource;
    uint32_t *reserved = &object.reserved;
    uint64_t *soft = &object.soft;
    uint64_t *hard = &object.hard;
    (void)resource; (void)reserved; (void)soft; (void)hard;
}
void fields_of_spawn_options(void) {
    START(tine_spawn_options_t, object, TINE_SPAWN_OPTIONS_INIT);
    size_t *size = &object.size;
    const char **executable = &object.executable;
    const char **cwd = &object.cwd;
    const char *const **env = &object.env;
    const char *const **env_extra = &object.env_extra;
    const char **stdin_path = &object.stdin_path;
    const char **stdout_path = &object.stdout_path;
    const char **stderr_path = &object.stderr_path;
    const tine_fd_map_t **fds = &object.fds;
    size_t *fd_count = &object.fd_count;
    const tine_rlimit_t **rlimits = &object.rlimits;
    size_t *rlimit_count = &object.rlimit_count;
    const uint32_t **groups = &object.groups;
    size_t *group_count = &object.group_count;
    const uint64_t **affinity = &object.affinity;
    size_t *affinity_words = &object.affinity_words;
    size_t *max_output_bytes = &object.max_output_bytes;
    int32_t *stdin_mode = &object.stdin_mode;
    int32_t *stdout_mode = &object.stdout_mode;
    int32_t *stderr_mode = &object.stderr_mode;
    int32_t *stdin_fd = &object.stdin_fd;
    int32_t *stdout_fd = &object.stdout_fd;
    int32_t *stderr_fd = &object.stderr_fd;
    uint32_t *flags = &object.flags;
    int32_t *nice = &object.nice;
    int32_t *process_group = &object.process_group;
    uint32_t *umask = &object.umask;
    uint32_t *uid = &object.uid;
    uint32_t *gid = &object.gid;
    (void)size; (void)executable; (void)cwd; (void)env; (void)env_extra; (void)stdin_path; (void)stdout_path; (void)stderr_path;
    (void)fds; (void)fd_count; (void)rlimits; (void)rlimit_count; (void)groups; (void)group_count; (void)affinity;
    (void)affinity_words; (void)max_output_bytes; (void)stdin_mode; (void)stdout_mode; (void)stderr_mode; (void)stdin_fd;
    (void)stdout_fd; (void)stderr_fd; (void)flags; (void)nice; (void)process_group; (void)umask; (void)uid; (void)gid;
}
void fields_of_exit_info(void) {
    START(tine_exit_info_t, object, TINE_EXIT_INFO_INIT);
    size_t *size = &object.size;
    uint32_t *valid = &object.valid;
    uint32_t *reason = &object.reason;
    int32_t *code = &object.code;
    int32_t *signal = &object.signal;
    uint32_t *core_dumped = &object.core_dumped;
    uint32_t *reserved = &object.reserved;
    uint64_t *user_us = &object.user_us;
    uint64_t *system_us = &object.system_us;
    uint64_t *peak_rss_bytes = &object.peak_rss_bytes;
    (void)size; (void)valid; (void)reason; (void)code; (void)signal; (void)core_dumped; (void)reserved; (void)user_us;
    (void)system_us; (void)peak_rss_bytes;
}
void fields_of_pool_options(void) {
    START(tine_pool_options_t, object, TINE_POOL_OPTIONS_INIT);
    size_t *size = &object.size;
    const char **name = &object.name;
    tine_initializer_fn *initializer = &object.initializer;
    tine_finalizer_fn *finalizer = &object.finalizer;
    void **user_data = &object.user_data;
    const int32_t **inherit_fds = &object.inherit_fds;
    size_t *inherit_fd_count = &object.inherit_fd_count;
    size_t *max_pending = &object.max_pending;
    uint64_t *memory_limit_bytes = &object.memory_limit_bytes;
    uint32_t *workers = &object.workers;
    uint32_t *flags = &object.flags;
    uint32_t *max_tasks_per_worker = &object.max_tasks_per_worker;
    uint32_t *crash_budget = &object.crash_budget;
    uint32_t *crash_window_ms = &object.crash_window_ms;
    uint32_t *stderr_tail_bytes = &object.stderr_tail_bytes;
    (void)size; (void)name; (void)initializer; (void)finalizer; (void)user_data; (void)inherit_fds; (void)inherit_fd_count;
    (void)max_pending; (void)memory_limit_bytes; (void)workers; (void)flags; (void)max_tasks_per_worker; (void)crash_budget;
    (void)crash_window_ms; (void)stderr_tail_bytes;
}
void fields_of_submit_options(void) {
    START(tine_submit_options_t, object, TINE_SUBMIT_OPTIONS_INIT);
    size_t *size = &object.size;
    tine_result_fn *callback = &object.callback;
    tine_result_fn *error_callback = &object.error_callback;
    void **user_data = &object.user_data;
    int64_t *timeout_ms = &object.timeout_ms;
    int64_t *soft_timeout_ms = &object.soft_timeout_ms;
    int64_t *submit_timeout_ms = &object.submit_timeout_ms;
    uint64_t *task_id = &object.task_id;
    uint32_t *max_attempts = &object.max_attempts;
    uint32_t *flags = &object.flags;
    (void)size; (void)callback; (void)error_callback; (void)user_data; (void)timeout_ms; (void)soft_timeout_ms;
    (void)submit_timeout_ms; (void)task_id; (void)max_attempts; (void)flags;
}
void fields_of_imap_options(void) {
    START(tine_imap_options_t, object, TINE_IMAP_OPTIONS_INIT);
    size_t *size = &object.size;
    size_t *window = &object.window;
    int64_t *timeout_ms = &object.timeout_ms;
    uint32_t *flags = &object.flags;
    uint32_t *reserved = &object.reserved;
    (void)size; (void)window; (void)timeout_ms; (void)flags; (void)reserved;
}
void fields_of_pool_stats(void) {
    START(tine_pool_stats_t, object, TINE_POOL_STATS_INIT);
    size_t *size = &object.size;
    uint64_t *workers = &object.workers;
    uint64_t *idle = &object.idle;
    uint64_t *queued = &object.queued;
    uint64_t *running = &object.running;
    uint64_t *done = &object.done;
    uint64_t *failed = &object.failed;
    uint64_t *worker_deaths = &object.worker_deaths;
    uint64_t *restarts = &object.restarts;
    (void)size; (void)workers; (void)idle; (void)queued; (void)running; (void)done; (void)failed; (void)worker_deaths;
    (void)restarts;
}
void fields_of_queue_options(void) {
    START(tine_queue_options_t, object, TINE_QUEUE_OPTIONS_INIT);
    size_t *size = &object.size;
    const char **name = &object.name;
    size_t *capacity = &object.capacity;
    size_t *capacity_bytes = &object.capacity_bytes;
    size_t *max_bytes = &object.max_bytes;
    uint32_t *flags = &object.flags;
    uint32_t *reserved = &object.reserved;
    (void)size; (void)name; (void)capacity; (void)capacity_bytes; (void)max_bytes; (void)flags; (void)reserved;
}
void fields_of_lock_options(void) {
    START(tine_lock_options_t, object, TINE_LOCK_OPTIONS_INIT);
    size_t *size = &object.size;
    const char **name = &object.name;
    uint32_t *flags = &object.flags;
    uint32_t *reserved = &object.reserved;
    (void)size; (void)name; (void)flags; (void)reserved;
}
void fields_of_barrier_options(void) {
    START(tine_barrier_options_t, object, TINE_BARRIER_OPTIONS_INIT);
    size_t *size = &object.size;
    const char **name = &object.name;
    void (**action)(void *user_data) = &object.action;
    void **user_data = &object.user_data;
    uint32_t *flags = &object.flags;
    uint32_t *reserved = &object.reserved;
    (void)size; (void)name; (void)action; (void)user_data; (void)flags; (void)reserved;
}
void fields_of_semaphore_options(void) {
    START(tine_semaphore_options_t, object, TINE_SEMAPHORE_OPTIONS_INIT);
    tine_lock_options_t *same = &object;
    (void)same;
}
void fields_of_event_options(void) {
    START(tine_event_options_t, object, TINE_EVENT_OPTIONS_INIT);
    tine_lock_options_t *same = &object;
    (void)same;
}
void fields_of_condition_options(void) {
    START(tine_condition_options_t, object, TINE_CONDITION_OPTIONS_INIT);
    tine_lock_options_t *same = &object;
    (void)same;
}
void fields_of_shared_memory_options(void) {
    START(tine_shared_memory_options_t, object, TINE_SHARED_MEMORY_OPTIONS_INIT);
    tine_lock_options_t *same = &object;
    (void)same;
}

/* ---- Functions ---- */
const char *(*use_version)(void) = tine_version;
uint32_t (*use_version_number)(void) = tine_version_number;
uint32_t (*use_cpu_count)(void) = tine_cpu_count;
int32_t (*use_host_pid)(void) = tine_host_pid;
int (*use_host_fd)(void) = tine_host_fd;
const char *(*use_strerror)(int32_t status) = tine_strerror;
const char *(*use_last_error_message)(void) = tine_last_error_message;
int32_t (*use_last_errno)(void) = tine_last_errno;
size_t (*use_last_error_copy)(char *buffer, size_t capacity) = tine_last_error_copy;
void (*use_free)(void *memory) = tine_free;
void (*use_set_log)(tine_log_fn log, void *user_data) = tine_set_log;
void (*use_set_interrupt_check)(tine_interrupt_fn check, void *user_data) = tine_set_interrupt_check;
int32_t (*use_fork)(void) = tine_fork;
tine_status_t (*use_process_start)(tine_process_fn fn, void *user_data,
    const tine_process_options_t *options, tine_process_t **out_process) =
    tine_process_start;
tine_status_t (*use_process_spawn)(const char *const *argv, const tine_spawn_options_t *options,
    tine_process_t **out_process) =
    tine_process_spawn;
tine_status_t (*use_process_join)(tine_process_t *process, int64_t timeout_ms) = tine_process_join;
bool (*use_process_is_alive)(const tine_process_t *process) = tine_process_is_alive;
tine_status_t (*use_process_exit_code)(const tine_process_t *process, int32_t *out_code) = tine_process_exit_code;
tine_status_t (*use_process_exit_info)(const tine_process_t *process, tine_exit_info_t *out_info) = tine_process_exit_info;
int32_t (*use_process_pid)(const tine_process_t *process) = tine_process_pid;
const char *(*use_process_name)(const tine_process_t *process) = tine_process_name;
bool (*use_process_is_daemon)(const tine_process_t *process) = tine_process_is_daemon;
int (*use_process_fd)(const tine_process_t *process) = tine_process_fd;
tine_status_t (*use_process_terminate)(tine_process_t *process) = tine_process_terminate;
tine_status_t (*use_process_kill)(tine_process_t *process) = tine_process_kill;
tine_status_t (*use_process_signal)(tine_process_t *process, int32_t signal) = tine_process_signal;
tine_status_t (*use_process_stop)(tine_process_t *process, int64_t grace_ms) = tine_process_stop;
tine_status_t (*use_process_wait_any)(tine_process_t *const *processes, size_t count, int64_t timeout_ms,
    size_t *out_index) =
    tine_process_wait_any;
const char *(*use_current_process_name)(void) = tine_current_process_name;
void (*use_process_free)(tine_process_t *process) = tine_process_free;
tine_status_t (*use_process_communicate)(tine_process_t *process, const void *input, size_t input_len,
    int64_t timeout_ms, void **out_stdout, size_t *out_stdout_len, void **out_stderr, size_t *out_stderr_len) =
    tine_process_communicate;
int (*use_process_stdin_fd)(const tine_process_t *process) = tine_process_stdin_fd;
int (*use_process_stdout_fd)(const tine_process_t *process) = tine_process_stdout_fd;
int (*use_process_stderr_fd)(const tine_process_t *process) = tine_process_stderr_fd;
tine_status_t (*use_process_take_stdin)(tine_process_t *process, int *out_fd) = tine_process_take_stdin;
tine_status_t (*use_process_take_stdout)(tine_process_t *process, int *out_fd) = tine_process_take_stdout;
tine_status_t (*use_process_take_stderr)(tine_process_t *process, int *out_fd) = tine_process_take_stderr;
tine_status_t (*use_process_close_stdin)(tine_process_t *process) = tine_process_close_stdin;
tine_status_t (*use_process_call)(const char *const *argv, const tine_spawn_options_t *options,
    int64_t timeout_ms, int32_t *out_code) =
    tine_process_call;
tine_status_t (*use_process_check_output)(const char *const *argv, const tine_spawn_options_t *options,
    const void *input, size_t input_len, int64_t timeout_ms, void **out_data, size_t *out_len, int32_t *out_code) =
    tine_process_check_output;
tine_status_t (*use_task_reply)(tine_task_t *task, const void *data, size_t len) = tine_task_reply;
void *(*use_task_worker_state)(const tine_task_t *task) = tine_task_worker_state;
uint64_t (*use_task_id)(const tine_task_t *task) = tine_task_id;
uint32_t (*use_task_attempt)(const tine_task_t *task) = tine_task_attempt;
uint32_t (*use_task_worker_index)(const tine_task_t *task) = tine_task_worker_index;
bool (*use_task_cancelled)(const tine_task_t *task) = tine_task_cancelled;
tine_status_t (*use_pool_new)(const tine_pool_options_t *options, tine_pool_t **out_pool) = tine_pool_new;
tine_status_t (*use_pool_apply)(tine_pool_t *pool, tine_task_fn fn, const void *arg, size_t arg_len,
    int64_t timeout_ms, tine_result_t **out_result) =
    tine_pool_apply;
tine_status_t (*use_pool_submit)(tine_pool_t *pool, tine_task_fn fn, const void *arg, size_t arg_len,
    const tine_submit_options_t *options, tine_async_t **out_async) =
    tine_pool_submit;
tine_status_t (*use_pool_map)(tine_pool_t *pool, tine_task_fn fn, const void *items, size_t item_size,
    size_t count, size_t chunk, void *out_results, size_t result_size, int64_t timeout_ms, size_t *out_failed_index) =
    tine_pool_map;
tine_status_t (*use_pool_map_async)(tine_pool_t *pool, tine_task_fn fn, const void *items, size_t item_size,
    size_t count, size_t chunk, void *out_results, size_t result_size, const tine_submit_options_t *options, tine_async_t **out_async) =
    tine_pool_map_async;
tine_status_t (*use_pool_imap)(tine_pool_t *pool, tine_task_fn fn, tine_next_fn next, void *user_data,
    const tine_imap_options_t *options, tine_stream_t **out_stream) =
    tine_pool_imap;
tine_status_t (*use_stream_next)(tine_stream_t *stream, int64_t timeout_ms, tine_result_t **out_result) = tine_stream_next;
void (*use_stream_free)(tine_stream_t *stream) = tine_stream_free;
tine_status_t (*use_pool_close)(tine_pool_t *pool) = tine_pool_close;
tine_status_t (*use_pool_terminate)(tine_pool_t *pool, int64_t grace_ms, uint32_t *out_killed) = tine_pool_terminate;
tine_status_t (*use_pool_join)(tine_pool_t *pool, int64_t timeout_ms) = tine_pool_join;
tine_status_t (*use_pool_resize)(tine_pool_t *pool, uint32_t workers) = tine_pool_resize;
tine_status_t (*use_pool_stats)(const tine_pool_t *pool, tine_pool_stats_t *out_stats) = tine_pool_stats;
tine_status_t (*use_pool_worker_pids)(const tine_pool_t *pool, int32_t *out_pids, size_t capacity,
    size_t *out_count) =
    tine_pool_worker_pids;
tine_status_t (*use_pool_trace)(tine_pool_t *pool, const char *path) = tine_pool_trace;
int (*use_pool_fd)(const tine_pool_t *pool) = tine_pool_fd;
tine_status_t (*use_pool_poll)(tine_pool_t *pool, int64_t timeout_ms, size_t max, size_t *out_count) = tine_pool_poll;
void (*use_pool_free)(tine_pool_t *pool) = tine_pool_free;
tine_status_t (*use_async_wait)(tine_async_t *async, int64_t timeout_ms) = tine_async_wait;
bool (*use_async_ready)(const tine_async_t *async) = tine_async_ready;
bool (*use_async_successful)(const tine_async_t *async) = tine_async_successful;
tine_status_t (*use_async_get)(tine_async_t *async, int64_t timeout_ms, const tine_result_t **out_result) = tine_async_get;
tine_status_t (*use_async_cancel)(tine_async_t *async) = tine_async_cancel;
void (*use_async_free)(tine_async_t *async) = tine_async_free;
tine_status_t (*use_result_status)(const tine_result_t *result) = tine_result_status;
int32_t (*use_result_code)(const tine_result_t *result) = tine_result_code;
const void *(*use_result_data)(const tine_result_t *result, size_t *out_len) = tine_result_data;
uint64_t (*use_result_task_id)(const tine_result_t *result) = tine_result_task_id;
int32_t (*use_result_worker_pid)(const tine_result_t *result) = tine_result_worker_pid;
tine_status_t (*use_result_exit_info)(const tine_result_t *result, tine_exit_info_t *out_info) = tine_result_exit_info;
const char *(*use_result_stderr_tail)(const tine_result_t *result, size_t *out_len) = tine_result_stderr_tail;
void (*use_result_free)(tine_result_t *result) = tine_result_free;
tine_status_t (*use_pipe_new)(uint32_t flags, tine_connection_t **out_a, tine_connection_t **out_b) = tine_pipe_new;
tine_status_t (*use_connection_from_fd)(int fd, uint32_t flags, tine_connection_t **out_connection) = tine_connection_from_fd;
tine_status_t (*use_connection_send)(tine_connection_t *connection, const void *data, size_t len,
    int64_t timeout_ms) =
    tine_connection_send;
tine_status_t (*use_connection_recv)(tine_connection_t *connection, void *buffer, size_t capacity,
    int64_t timeout_ms, size_t *out_len) =
    tine_connection_recv;
tine_status_t (*use_connection_recv_alloc)(tine_connection_t *connection, int64_t timeout_ms,
    void **out_data, size_t *out_len) =
    tine_connection_recv_alloc;
tine_status_t (*use_connection_poll)(tine_connection_t *connection, int64_t timeout_ms) = tine_connection_poll;
tine_status_t (*use_connection_send_fd)(tine_connection_t *connection, int fd, int64_t timeout_ms) = tine_connection_send_fd;
tine_status_t (*use_connection_recv_fd)(tine_connection_t *connection, int64_t timeout_ms, int *out_fd) = tine_connection_recv_fd;
int (*use_connection_fd)(const tine_connection_t *connection) = tine_connection_fd;
tine_status_t (*use_connection_close)(tine_connection_t *connection) = tine_connection_close;
void (*use_connection_free)(tine_connection_t *connection) = tine_connection_free;
tine_status_t (*use_queue_new)(const tine_queue_options_t *options, tine_queue_t **out_queue) = tine_queue_new;
tine_status_t (*use_queue_put)(tine_queue_t *queue, const void *data, size_t len, int64_t timeout_ms) = tine_queue_put;
tine_status_t (*use_queue_get)(tine_queue_t *queue, void *buffer, size_t capacity, int64_t timeout_ms,
    size_t *out_len) =
    tine_queue_get;
tine_status_t (*use_queue_get_alloc)(tine_queue_t *queue, int64_t timeout_ms, void **out_data,
    size_t *out_len) =
    tine_queue_get_alloc;
tine_status_t (*use_queue_put_many)(tine_queue_t *queue, const tine_bytes_t *messages, size_t count,
    int64_t timeout_ms, size_t *out_count) =
    tine_queue_put_many;
tine_status_t (*use_queue_get_many)(tine_queue_t *queue, void *buffer, size_t capacity, int64_t timeout_ms,
    tine_bytes_t *out_messages, size_t max_count, size_t *out_count) =
    tine_queue_get_many;
tine_status_t (*use_queue_reserve)(tine_queue_t *queue, size_t len, int64_t timeout_ms, void **out_memory) = tine_queue_reserve;
tine_status_t (*use_queue_commit)(tine_queue_t *queue, size_t len) = tine_queue_commit;
tine_status_t (*use_queue_abandon)(tine_queue_t *queue) = tine_queue_abandon;
tine_status_t (*use_queue_peek)(tine_queue_t *queue, int64_t timeout_ms, const void **out_data,
    size_t *out_len) =
    tine_queue_peek;
tine_status_t (*use_queue_release)(tine_queue_t *queue) = tine_queue_release;
tine_status_t (*use_queue_unpeek)(tine_queue_t *queue) = tine_queue_unpeek;
size_t (*use_queue_size)(const tine_queue_t *queue) = tine_queue_size;
size_t (*use_queue_unfinished)(const tine_queue_t *queue) = tine_queue_unfinished;
bool (*use_queue_is_empty)(const tine_queue_t *queue) = tine_queue_is_empty;
bool (*use_queue_is_full)(const tine_queue_t *queue) = tine_queue_is_full;
tine_status_t (*use_queue_close)(tine_queue_t *queue) = tine_queue_close;
tine_status_t (*use_queue_task_done)(tine_queue_t *queue) = tine_queue_task_done;
tine_status_t (*use_queue_join)(tine_queue_t *queue, int64_t timeout_ms) = tine_queue_join;
int (*use_queue_fd)(tine_queue_t *queue) = tine_queue_fd;
void (*use_queue_free)(tine_queue_t *queue) = tine_queue_free;
tine_status_t (*use_lock_new)(const tine_lock_options_t *options, tine_lock_t **out_lock) = tine_lock_new;
tine_status_t (*use_lock_acquire)(tine_lock_t *lock, int64_t timeout_ms) = tine_lock_acquire;
tine_status_t (*use_lock_release)(tine_lock_t *lock) = tine_lock_release;
bool (*use_lock_is_held)(const tine_lock_t *lock) = tine_lock_is_held;
void (*use_lock_free)(tine_lock_t *lock) = tine_lock_free;
tine_status_t (*use_semaphore_new)(uint32_t initial, uint32_t maximum,
    const tine_semaphore_options_t *options, tine_semaphore_t **out_semaphore) =
    tine_semaphore_new;
tine_status_t (*use_semaphore_acquire)(tine_semaphore_t *semaphore, int64_t timeout_ms) = tine_semaphore_acquire;
tine_status_t (*use_semaphore_release)(tine_semaphore_t *semaphore, uint32_t count) = tine_semaphore_release;
uint32_t (*use_semaphore_value)(const tine_semaphore_t *semaphore) = tine_semaphore_value;
void (*use_semaphore_free)(tine_semaphore_t *semaphore) = tine_semaphore_free;
tine_status_t (*use_event_new)(const tine_event_options_t *options, tine_event_t **out_event) = tine_event_new;
tine_status_t (*use_event_set)(tine_event_t *event) = tine_event_set;
tine_status_t (*use_event_clear)(tine_event_t *event) = tine_event_clear;
tine_status_t (*use_event_wait)(tine_event_t *event, int64_t timeout_ms) = tine_event_wait;
bool (*use_event_is_set)(const tine_event_t *event) = tine_event_is_set;
void (*use_event_free)(tine_event_t *event) = tine_event_free;
tine_status_t (*use_condition_new)(const tine_condition_options_t *options,
    tine_condition_t **out_condition) =
    tine_condition_new;
tine_status_t (*use_condition_wait)(tine_condition_t *condition, tine_lock_t *lock, int64_t timeout_ms) = tine_condition_wait;
tine_status_t (*use_condition_notify)(tine_condition_t *condition, uint32_t count) = tine_condition_notify;
tine_status_t (*use_condition_notify_all)(tine_condition_t *condition) = tine_condition_notify_all;
void (*use_condition_free)(tine_condition_t *condition) = tine_condition_free;
tine_status_t (*use_barrier_new)(uint32_t parties, const tine_barrier_options_t *options,
    tine_barrier_t **out_barrier) =
    tine_barrier_new;
tine_status_t (*use_barrier_wait)(tine_barrier_t *barrier, int64_t timeout_ms, uint32_t *out_index) = tine_barrier_wait;
tine_status_t (*use_barrier_reset)(tine_barrier_t *barrier) = tine_barrier_reset;
tine_status_t (*use_barrier_abort)(tine_barrier_t *barrier) = tine_barrier_abort;
uint32_t (*use_barrier_parties)(const tine_barrier_t *barrier) = tine_barrier_parties;
uint32_t (*use_barrier_waiting)(const tine_barrier_t *barrier) = tine_barrier_waiting;
bool (*use_barrier_is_broken)(const tine_barrier_t *barrier) = tine_barrier_is_broken;
void (*use_barrier_free)(tine_barrier_t *barrier) = tine_barrier_free;
tine_status_t (*use_shared_memory_new)(size_t length, const tine_shared_memory_options_t *options,
    tine_shared_memory_t **out_memory) =
    tine_shared_memory_new;
void *(*use_shared_memory_data)(tine_shared_memory_t *memory) = tine_shared_memory_data;
size_t (*use_shared_memory_length)(const tine_shared_memory_t *memory) = tine_shared_memory_length;
const char *(*use_shared_memory_name)(const tine_shared_memory_t *memory) = tine_shared_memory_name;
void (*use_shared_memory_free)(tine_shared_memory_t *memory) = tine_shared_memory_free;
tine_status_t (*use_file_lock_new)(const char *path, tine_file_lock_t **out_lock) = tine_file_lock_new;
tine_status_t (*use_file_lock_acquire)(tine_file_lock_t *lock, uint32_t mode, int64_t timeout_ms) = tine_file_lock_acquire;
tine_status_t (*use_file_lock_release)(tine_file_lock_t *lock) = tine_file_lock_release;
void (*use_file_lock_free)(tine_file_lock_t *lock) = tine_file_lock_free;
size_t (*use_lock_footprint)(void) = tine_lock_footprint;
tine_status_t (*use_lock_new_in)(tine_shared_memory_t *memory, size_t offset,
    const tine_lock_options_t *options, tine_lock_t **out_lock) =
    tine_lock_new_in;
tine_status_t (*use_lock_at)(tine_shared_memory_t *memory, size_t offset, tine_lock_t **out_lock) = tine_lock_at;
size_t (*use_semaphore_footprint)(void) = tine_semaphore_footprint;
tine_status_t (*use_semaphore_new_in)(tine_shared_memory_t *memory, size_t offset, uint32_t initial,
    uint32_t maximum, tine_semaphore_t **out_semaphore) =
    tine_semaphore_new_in;
tine_status_t (*use_semaphore_at)(tine_shared_memory_t *memory, size_t offset,
    tine_semaphore_t **out_semaphore) =
    tine_semaphore_at;
tine_status_t (*use_queue_token)(const tine_queue_t *object, tine_token_t *out_token) = tine_queue_token;
tine_status_t (*use_queue_attach)(const tine_token_t *token, tine_queue_t **out_object) = tine_queue_attach;
tine_status_t (*use_queue_open)(const char *name, tine_queue_t **out_object) = tine_queue_open;
tine_status_t (*use_lock_token)(const tine_lock_t *object, tine_token_t *out_token) = tine_lock_token;
tine_status_t (*use_lock_attach)(const tine_token_t *token, tine_lock_t **out_object) = tine_lock_attach;
tine_status_t (*use_lock_open)(const char *name, tine_lock_t **out_object) = tine_lock_open;
tine_status_t (*use_semaphore_token)(const tine_semaphore_t *object, tine_token_t *out_token) = tine_semaphore_token;
tine_status_t (*use_semaphore_attach)(const tine_token_t *token, tine_semaphore_t **out_object) = tine_semaphore_attach;
tine_status_t (*use_semaphore_open)(const char *name, tine_semaphore_t **out_object) = tine_semaphore_open;
tine_status_t (*use_event_token)(const tine_event_t *object, tine_token_t *out_token) = tine_event_token;
tine_status_t (*use_event_attach)(const tine_token_t *token, tine_event_t **out_object) = tine_event_attach;
tine_status_t (*use_event_open)(const char *name, tine_event_t **out_object) = tine_event_open;
tine_status_t (*use_condition_token)(const tine_condition_t *object, tine_token_t *out_token) = tine_condition_token;
tine_status_t (*use_condition_attach)(const tine_token_t *token, tine_condition_t **out_object) = tine_condition_attach;
tine_status_t (*use_condition_open)(const char *name, tine_condition_t **out_object) = tine_condition_open;
tine_status_t (*use_barrier_token)(const tine_barrier_t *object, tine_token_t *out_token) = tine_barrier_token;
tine_status_t (*use_barrier_attach)(const tine_token_t *token, tine_barrier_t **out_object) = tine_barrier_attach;
tine_status_t (*use_barrier_open)(const char *name, tine_barrier_t **out_object) = tine_barrier_open;
tine_status_t (*use_shared_memory_token)(const tine_shared_memory_t *object, tine_token_t *out_token) = tine_shared_memory_token;
tine_status_t (*use_shared_memory_attach)(const tine_token_t *token,
    tine_shared_memory_t **out_object) =
    tine_shared_memory_attach;
tine_status_t (*use_shared_memory_open)(const char *name, tine_shared_memory_t **out_object) = tine_shared_memory_open;
tine_status_t (*use_unlink)(const char *name) = tine_unlink;
