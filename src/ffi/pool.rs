//! Pools of worker processes.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::transmute;
use std::ptr::{self, with_exposed_provenance_mut};
use std::sync::Arc;

use super::options::Sized0;
use super::process::{TINE_EXIT_HAS_STDERR_TAIL, tine_exit_info_t};
use super::queue::tine_bytes_t;
use super::status::{self, TINE_EEOF, TINE_OK, tine_status_t};
use super::{arg, guard, handle, last_error, options};
use crate::error::{Error, Kind, Result};
use crate::pool::{
    Callbacks, Code, End, Failure, Job, Limits, Map, MapOptions, Options, Outcome, Pool, Results, SourceEnd, Stats,
    StreamOptions, Submission, Task, TaskSpec,
};
use crate::sys::{Deadline, elf};
use crate::timeout::Timeout;

/// A pool of worker processes, which are copies of this process as it was when the pool was made.
///
/// Make pools early: before threads, before big memory, after dropping privileges. A worker that dies takes nothing with it but the
/// task that it was running, and is replaced. Tasks get bytes and answer bytes; pointers mean nothing on the other side.
pub struct tine_pool_t(Pool);

/// A task in its worker.
pub struct tine_task_t(());

/// A task that was submitted, for the program that waits for it.
pub struct tine_async_t(());

/// What became of a task.
pub struct tine_result_t(());

/// The results of tine_pool_imap(), one after the other.
pub struct tine_stream_t(Results);

/// Callbacks run inside tine_pool_poll(), tine_pool_join() and tine_pool_free() instead of on a thread of the pool.
pub const TINE_POOL_HOST_LOOP: u32 = 1;
/// Threads of this process instead of worker processes. Tasks share its memory, and a task that crashes takes it down.
///
/// Whatever needs a process is TINE_ENOTSUP: memory_limit_bytes, max_tasks_per_worker, stderr_tail_bytes, TINE_POOL_KEEP_SIGNALS,
/// TINE_POOL_NO_CORE and TINE_POOL_BREAK_ON_DEATH of a pool, timeout_ms of a task, tine_async_cancel() of one that runs and
/// tine_pool_resize(). An initializer that fails breaks the pool. tine_pool_terminate() only tells the tasks that run
/// (tine_task_cancelled()); they end as what they return, it answers TINE_ETIMEDOUT if they do not return within grace_ms, and
/// tine_pool_free() waits for them: do not call it inside a task. tine_pool_worker_pids() are the threads' numbers. A C++ exception that
/// leaves a task, initializer or finalizer ends this process, as one that leaves any thread's function does (std::terminate): catch it
/// there and return a number.
pub const TINE_POOL_THREADS: u32 = 2;
/// tine_pool_new() answers TINE_EBUSY if this process has more than one thread.
pub const TINE_POOL_SINGLE_THREAD_ONLY: u32 = 4;
/// Workers keep every descriptor that this process has.
pub const TINE_POOL_INHERIT_ALL_FDS: u32 = 8;
/// Workers keep the calling thread's signal mask and this process's dispositions, handlers included; else they have the defaults.
pub const TINE_POOL_KEEP_SIGNALS: u32 = 16;
/// Workers leave no core files.
pub const TINE_POOL_NO_CORE: u32 = 32;
/// Functions may lie in memory that belongs to no file: closures of libffi, code of a JIT compiler. They must exist when the pool is made:
/// its workers have that memory as it was then.
pub const TINE_POOL_ALLOW_CLOSURES: u32 = 64;
/// The first worker that dies breaks the pool.
pub const TINE_POOL_BREAK_ON_DEATH: u32 = 128;

/// Do not wait for room.
pub const TINE_SUBMIT_TRY: u32 = 1;

/// Results come as they are done, instead of in the order of the items.
pub const TINE_IMAP_UNORDERED: u32 = 1;

/// A task's function; runs in a worker. 0 = success. The argument is read-only memory, aligned to 16 bytes (an item of
/// tine_pool_map() as its size allows), and gone when the function returns.
pub type tine_task_fn = Option<unsafe extern "C" fn(arg: *const c_void, arg_len: usize, task: *mut tine_task_t) -> i32>;

/// A callback; runs in the process that made the pool, on the pool's thread or where TINE_POOL_HOST_LOOP says. The result lives until it
/// returns.
pub type tine_result_fn = Option<unsafe extern "C" fn(result: *const tine_result_t, user_data: *mut c_void)>;

/// Runs in each worker before its first task. 0 = success; `*out_state` is what tine_task_worker_state() answers.
pub type tine_initializer_fn = Option<unsafe extern "C" fn(user_data: *mut c_void, out_state: *mut *mut c_void) -> i32>;

/// Runs in each worker when the pool is closed and when another takes its place, not when the pool is terminated.
pub type tine_finalizer_fn = Option<unsafe extern "C" fn(state: *mut c_void, user_data: *mut c_void)>;

/// Gives the next item; TINE_EEOF ends. Its bytes are valid until the next call.
pub type tine_next_fn = Option<unsafe extern "C" fn(user_data: *mut c_void, out_item: *mut tine_bytes_t) -> tine_status_t>;

/// How to make a pool. Start from TINE_POOL_OPTIONS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tine_pool_options_t {
    /// Set by the INIT macro.
    pub size: usize,
    /// For messages; NULL = none.
    pub name: *const c_char,
    /// NULL = none. If it fails, that counts like a worker's death.
    pub initializer: tine_initializer_fn,
    /// NULL = none.
    pub finalizer: tine_finalizer_fn,
    /// For both. The workers have a copy of what it points to.
    pub user_data: *mut c_void,
    /// Descriptors that workers keep, besides 1, 2 and those of the library's shared objects.
    pub inherit_fds: *const i32,
    pub inherit_fd_count: usize,
    /// Tasks submitted and not ended; 0 = 65,536; up to 16,777,216.
    pub max_pending: usize,
    /// Private memory of one worker: what it has beyond what it shares with this process's copy, and beyond its task's argument and
    /// the results of a chunk of tine_pool_map(). While it runs a task that is looked at every 50 ms, or less often where that takes
    /// long; above the limit it is killed, and its task ends as TINE_EWORKERDIED with TINE_REASON_MEMORY. In between only RLIMIT_DATA
    /// holds: what it maps for writing is limited to twice that and 256 MiB, and allocations beyond fail. No control group is made
    /// for it. 0 = no limit.
    pub memory_limit_bytes: u64,
    /// 0 = tine_cpu_count(); up to 1,024.
    pub workers: u32,
    /// TINE_POOL_*
    pub flags: u32,
    /// How many tasks a worker runs before it runs the finalizer and leaves: another works in its stead by then. A chunk of
    /// tine_pool_map() is one task. 0 = no limit.
    pub max_tasks_per_worker: u32,
    /// Worker deaths within crash_window_ms, in a row without a finished task, that break the pool; 0 = 16.
    pub crash_budget: u32,
    /// 0 = 30,000.
    pub crash_window_ms: u32,
    /// Of a dead worker, kept for its result: see tine_result_stderr_tail(). The workers' stderr is a file in memory then, and what
    /// they write comes out of this process's stderr when the task has ended, or with the worker. A task that writes more than
    /// three quarters of RLIMIT_FSIZE dies of SIGXFSZ. 0 = none.
    pub stderr_tail_bytes: u32,
}

// SAFETY: repr(C), `size` first, no padding, zeros are defaults.
unsafe impl Sized0 for tine_pool_options_t {
    const NAME: &'static str = "options";
}

/// How to submit a task. Start from TINE_SUBMIT_OPTIONS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tine_submit_options_t {
    /// Set by the INIT macro.
    pub size: usize,
    /// Called if the task succeeded; NULL = nobody.
    pub callback: tine_result_fn,
    /// Called if it did not, whatever became of it; NULL = nobody.
    pub error_callback: tine_result_fn,
    /// For both.
    pub user_data: *mut c_void,
    /// Running time, from when a worker begins the task; then its worker is killed and replaced, and the task ends as
    /// TINE_ETIMEDOUT. 0 = no limit.
    pub timeout_ms: i64,
    /// Running time, then tine_task_cancelled() turns true; 0 = no limit.
    pub soft_timeout_ms: i64,
    /// Waiting for room; 0 = for ever.
    pub submit_timeout_ms: i64,
    /// 0 = chosen.
    pub task_id: u64,
    /// How often the task is started if its worker dies; 0 = 1. More only for tasks that may run twice.
    pub max_attempts: u32,
    /// TINE_SUBMIT_*
    pub flags: u32,
}

// SAFETY: repr(C), `size` first, no padding, zeros are defaults.
unsafe impl Sized0 for tine_submit_options_t {
    const NAME: &'static str = "options";
}

/// How to go through items one after the other. Start from TINE_IMAP_OPTIONS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tine_imap_options_t {
    /// Set by the INIT macro.
    pub size: usize,
    /// Items under way at a time; 0 = two for each worker.
    pub window: usize,
    /// Running time of an item; 0 = no limit.
    pub timeout_ms: i64,
    /// TINE_IMAP_*
    pub flags: u32,
    /// 0
    pub reserved: u32,
}

// SAFETY: repr(C), `size` first, no padding, zeros are defaults.
unsafe impl Sized0 for tine_imap_options_t {
    const NAME: &'static str = "options";
}

/// Numbers of a pool. Start from TINE_POOL_STATS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tine_pool_stats_t {
    /// Set by the INIT macro.
    pub size: usize,
    /// Workers that live.
    pub workers: u64,
    /// Those of them that run no task.
    pub idle: u64,
    /// Tasks that no worker has begun.
    pub queued: u64,
    /// Tasks that workers are running.
    pub running: u64,
    /// Tasks that succeeded.
    pub done: u64,
    /// Tasks that ended otherwise.
    pub failed: u64,
    /// Workers that died and were not told to.
    pub worker_deaths: u64,
    /// Workers that took the place of another.
    pub restarts: u64,
}

// SAFETY: repr(C), `size` first, no padding, zeros are valid.
unsafe impl Sized0 for tine_pool_stats_t {
    const NAME: &'static str = "tine_pool_stats_t";
}

impl From<Stats> for tine_pool_stats_t {
    fn from(stats: Stats) -> tine_pool_stats_t {
        let Stats { workers, idle, queued, running, done, failed, worker_deaths, restarts } = stats;
        let size = size_of::<tine_pool_stats_t>();
        tine_pool_stats_t { size, workers, idle, queued, running, done, failed, worker_deaths, restarts }
    }
}

// ---- What the core calls ----

type TaskFn = unsafe extern "C" fn(*const c_void, usize, *mut tine_task_t) -> i32;
type NextFn = unsafe extern "C" fn(*mut c_void, *mut tine_bytes_t) -> tine_status_t;
type ResultFn = unsafe extern "C" fn(*const tine_result_t, *mut c_void);

/// The functions of one pool.
struct Functions {
    initializer: tine_initializer_fn,
    finalizer: tine_finalizer_fn,
    user_data: *mut c_void,
}

// SAFETY: contract C: the functions may be called from the processes and threads that their docs name.
unsafe impl Send for Functions {}
// SAFETY: as above.
unsafe impl Sync for Functions {}

impl Code for Functions {
    fn initialize(&self) -> std::result::Result<usize, i32> {
        let mut state = ptr::null_mut();
        // SAFETY: contract C.
        match self.initializer.map_or(0, |initializer| unsafe { initializer(self.user_data, &mut state) }) {
            0 => Ok(state.expose_provenance()),
            code => Err(code),
        }
    }

    fn finalize(&self, state: usize) {
        if let Some(finalizer) = self.finalizer {
            // SAFETY: contract C; the state is what the initializer gave.
            unsafe { finalizer(with_exposed_provenance_mut(state), self.user_data) };
        }
    }

    fn run(&self, function: usize, argument: *const u8, length: usize, task: &Task) -> i32 {
        // SAFETY: the address of a `tine_task_fn`, checked by the core to be code that this process has as well; contract C.
        unsafe {
            let function = transmute::<usize, TaskFn>(function);
            function(argument.cast(), length, ptr::from_ref(task).cast_mut().cast())
        }
    }
}

fn call_back(function: usize, user_data: usize, job: &Arc<Job>) {
    // SAFETY: the address of a `tine_result_fn`; contract C.
    unsafe {
        let function = transmute::<usize, ResultFn>(function);
        function(Arc::as_ptr(job).cast(), with_exposed_provenance_mut(user_data));
    }
}

/// Asks a `tine_next_fn` for an item.
fn pull(next: usize, user_data: usize, take: &mut dyn FnMut(&[u8])) -> std::result::Result<(), SourceEnd> {
    let mut item = tine_bytes_t { data: ptr::null(), len: 0 };
    let failures = last_error::count();
    // SAFETY: the address of a `tine_next_fn`; contract C.
    let status = unsafe { transmute::<usize, NextFn>(next)(with_exposed_provenance_mut(user_data), &mut item) };
    if status < 0 {
        let (errno, why) = last_error::since(failures, status)
            .unwrap_or_else(|| (0, format!("it answered {status}, {}", status::text(status).to_string_lossy())));
        return Err(SourceEnd { status, why: Error::with_errno(Kind::System, errno, why).context("the source of the items") });
    }
    // SAFETY: contract B, until the function is called again.
    let item = unsafe { arg::bytes(item.data, item.len, "out_item->data") };
    item.map(take).map_err(|why| SourceEnd { status: status::of(why.kind()), why })
}

// ---- Conversions ----

/// A task's function, by its address.
fn function(function: tine_task_fn) -> Result<usize> {
    arg::callback(function, "fn").map(|function| function as usize)
}

unsafe fn read_pool_options(options: *const tine_pool_options_t) -> Result<(Options, Functions)> {
    const KNOWN: u32 = 255;
    // SAFETY: contracts O, S and B.
    let (read, name, inherit_fds) = unsafe {
        let read = options::read(options)?;
        let name = arg::optional_text(read.name).map(CStr::to_string_lossy);
        (read, name, arg::array(read.inherit_fds, read.inherit_fd_count, "options.inherit_fds")?)
    };
    let flags = arg::flags(read.flags, KNOWN, "options.flags")?;
    if flags & TINE_POOL_THREADS != 0 {
        check_threads(&read)?;
    }
    check_code(read.initializer.map(|function| function as usize), "options.initializer")?;
    check_code(read.finalizer.map(|function| function as usize), "options.finalizer")?;
    let core = Options {
        name: name.unwrap_or_default().into_owned(),
        workers: read.workers,
        max_pending: read.max_pending,
        inherit_fds: inherit_fds.to_vec(),
        inherit_all_fds: flags & TINE_POOL_INHERIT_ALL_FDS != 0,
        single_thread_only: flags & TINE_POOL_SINGLE_THREAD_ONLY != 0,
        host_loop: flags & TINE_POOL_HOST_LOOP != 0,
        threads: flags & TINE_POOL_THREADS != 0,
        allow_closures: flags & TINE_POOL_ALLOW_CLOSURES != 0,
        no_core: flags & TINE_POOL_NO_CORE != 0,
        keep_signals: flags & TINE_POOL_KEEP_SIGNALS != 0,
        memory_limit: read.memory_limit_bytes,
        stderr_tail: read.stderr_tail_bytes,
        break_on_death: flags & TINE_POOL_BREAK_ON_DEATH != 0,
        crash_budget: read.crash_budget,
        crash_window_ms: read.crash_window_ms,
        max_tasks: read.max_tasks_per_worker,
    };
    Ok((core, Functions { initializer: read.initializer, finalizer: read.finalizer, user_data: read.user_data }))
}

/// What needs a process is not to be had of a thread.
fn check_threads(options: &tine_pool_options_t) -> Result<()> {
    const NEED_PROCESSES: u32 = TINE_POOL_KEEP_SIGNALS | TINE_POOL_NO_CORE | TINE_POOL_BREAK_ON_DEATH;
    let asked = [
        (options.memory_limit_bytes != 0, "options.memory_limit_bytes"),
        (options.max_tasks_per_worker != 0, "options.max_tasks_per_worker"),
        (options.stderr_tail_bytes != 0, "options.stderr_tail_bytes"),
        (options.flags & NEED_PROCESSES != 0, "options.flags: TINE_POOL_KEEP_SIGNALS, _NO_CORE, _BREAK_ON_DEATH"),
    ];
    match asked.iter().find(|(asked, _)| *asked) {
        None => Ok(()),
        Some((_, name)) => Err(Error::new(Kind::NotSupported, format!("{name}: needs processes, not TINE_POOL_THREADS"))),
    }
}

/// Every worker would die of it. Closures are fine: the workers are copies of this process.
fn check_code(address: Option<usize>, name: &str) -> Result<()> {
    match address.filter(|&address| !elf::is_code(address)) {
        None => Ok(()),
        Some(address) => Err(Error::invalid(format!("{name}: {address:#x} is not code"))),
    }
}

unsafe fn read_imap_options(
    options: *const tine_imap_options_t,
    function: usize,
    next: tine_next_fn,
    user_data: *mut c_void,
) -> Result<StreamOptions> {
    // SAFETY: contract O.
    let read = unsafe { options::read(options)? };
    let flags = arg::flags(read.flags, TINE_IMAP_UNORDERED, "options.flags")?;
    arg::flags(read.reserved, 0, "options.reserved")?;
    Ok(StreamOptions {
        function,
        next: arg::callback(next, "next")? as usize,
        user_data: user_data.expose_provenance(),
        pull,
        window: read.window,
        limits: Limits { timeout_ms: running_time(read.timeout_ms, "options.timeout_ms")?, ..Limits::default() },
        unordered: flags & TINE_IMAP_UNORDERED != 0,
    })
}

/// How a task is submitted, and until when to wait for room.
struct SubmitOptions {
    callbacks: Option<Callbacks>,
    id: u64,
    attempts: u32,
    limits: Limits,
    room: Deadline,
}

unsafe fn read_submit_options(options: *const tine_submit_options_t) -> Result<SubmitOptions> {
    // SAFETY: contract O.
    let read = unsafe { options::read(options)? };
    let flags = arg::flags(read.flags, TINE_SUBMIT_TRY, "options.flags")?;
    let limits = Limits {
        timeout_ms: running_time(read.timeout_ms, "options.timeout_ms")?,
        soft_timeout_ms: running_time(read.soft_timeout_ms, "options.soft_timeout_ms")?,
    };
    let room = match read.submit_timeout_ms {
        _ if flags & TINE_SUBMIT_TRY != 0 => Timeout::Try,
        0 => Timeout::Forever,
        millis => arg::time(millis, "options.submit_timeout_ms")?,
    };
    let address = |function: tine_result_fn| function.map_or(0, |function| function as usize);
    let (success, error) = (address(read.callback), address(read.error_callback));
    let user_data = read.user_data.expose_provenance();
    let callbacks = (success != 0 || error != 0).then_some(Callbacks { success, error, user_data, invoke: call_back });
    Ok(SubmitOptions { callbacks, id: read.task_id, attempts: read.max_attempts, limits, room: Deadline::new(room) })
}

/// Milliseconds; 0 = without limit, and so is TINE_FOREVER.
fn running_time(millis: i64, name: &'static str) -> Result<u64> {
    match arg::time(millis, name)? {
        Timeout::Millis(millis) => Ok(millis),
        Timeout::Try | Timeout::Forever => Ok(0),
    }
}

/// The job behind an async or a result.
unsafe fn job<'a, T>(handle: *const T, name: &'static str) -> Result<&'a Job> {
    // SAFETY: contract H: both are the address of a job that an `Arc` keeps.
    unsafe { handle::borrow(handle.cast::<Job>(), name) }
}

/// A share of the job for the caller.
unsafe fn give<T>(job: Arc<Job>, out: *mut *mut T) {
    if !out.is_null() {
        // SAFETY: contract O.
        unsafe { out.write(Arc::into_raw(job).cast_mut().cast()) };
    }
}

unsafe fn give_up<T>(handle: *mut T) {
    if !handle.is_null() {
        // SAFETY: contract H; it came from `give` and is not used again.
        drop(unsafe { Arc::from_raw(handle.cast_const().cast::<Job>()) });
    }
}

fn status_of(outcome: &Outcome) -> tine_status_t {
    outcome.failure.map_or(TINE_OK, status::of)
}

/// What a call came to that tells, besides its status, which item failed.
unsafe fn failed_index(out_failed_index: *mut usize, failure: Option<Failure>) -> Result<()> {
    let Some(Failure { item, why, .. }) = failure else { return Ok(()) };
    // SAFETY: contract O.
    unsafe { arg::put(out_failed_index, item) };
    Err(Error::new(Kind::TaskFailed, format!("tine_pool_map: item {item} failed: {why}")))
}

/// Copies as many as there is room for.
unsafe fn put_pids(pids: &[i32], out_pids: *mut i32, capacity: usize) -> Result<()> {
    if capacity > 0 {
        let out = arg::out(out_pids, "out_pids")?;
        // SAFETY: contract B for elements: room for `capacity` of them.
        unsafe { ptr::copy_nonoverlapping(pids.as_ptr(), out, pids.len().min(capacity)) };
    }
    Ok(())
}

// ---- In a worker ----

/// Keeps the result of the task, copied before the call returns. A second call replaces the first.
///
/// @param task  The task that the calling function is.
/// @param data  First byte; may be NULL if `len` is 0.
/// @param len   Length in bytes; any.
/// @return TINE_OK; TINE_EMSGSIZE: above the result_size of tine_pool_map(), the item fails; TINE_ENOSPC, TINE_ENOMEM; TINE_EFORKED
///         in a process that the task has forked.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_task_reply(task: *mut tine_task_t, data: *const c_void, len: usize) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and B.
        let (task, data) = unsafe { (handle::borrow(task.cast::<Task>(), "task")?, arg::bytes(data, len, "data")?) };
        task.reply(data)
    })
}

/// What the pool's initializer has made in this worker.
///
/// @param task  The task.
/// @return The state; NULL without an initializer.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_task_worker_state(task: *const tine_task_t) -> *mut c_void {
    // SAFETY: contract H.
    guard::value(ptr::null_mut(), || unsafe {
        Ok(with_exposed_provenance_mut(handle::borrow(task.cast::<Task>(), "task")?.state))
    })
}

/// The number of the task.
///
/// @param task  The task.
/// @return The task_id of its options, or the number that was chosen; 0 for NULL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_task_id(task: *const tine_task_t) -> u64 {
    // SAFETY: contract H.
    guard::value(0, || unsafe { Ok(handle::borrow(task.cast::<Task>(), "task")?.id()) })
}

/// How often the task was started, this time included.
///
/// @param task  The task.
/// @return 1, or more if a worker died of it and max_attempts allows it; 0 for NULL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_task_attempt(task: *const tine_task_t) -> u32 {
    // SAFETY: contract H.
    guard::value(0, || unsafe { Ok(handle::borrow(task.cast::<Task>(), "task")?.attempt()) })
}

/// Which worker this is.
///
/// @param task  The task.
/// @return 0 … workers - 1; a replacement has the number of the one that it replaces.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_task_worker_index(task: *const tine_task_t) -> u32 {
    // SAFETY: contract H.
    guard::value(0, || unsafe { Ok(handle::borrow(task.cast::<Task>(), "task")?.worker) })
}

/// Whether nobody wants the result any more. Cheap: long tasks may ask often.
///
/// @param task  The task.
/// @return true: the task may as well return.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_task_cancelled(task: *const tine_task_t) -> bool {
    // SAFETY: contract H.
    guard::value(false, || unsafe { Ok(handle::borrow(task.cast::<Task>(), "task")?.is_cancelled()) })
}

// ---- The pool ----

/// Makes a pool.
///
/// Returns when the workers are there; their initializers may still run. What this process has printed to stdout and stderr before
/// appears once. The workers are no children of this process, and end with it, whatever ends it.
///
/// @param options   NULL = defaults.
/// @param out_pool  The new pool; free it with tine_pool_free().
/// @return TINE_OK; TINE_EINVAL; TINE_EBUSY: more than one thread with TINE_POOL_SINGLE_THREAD_ONLY, or a callback of another pool
///         has been running for a second; TINE_EAGAIN, TINE_ENOMEM: no process to be had; TINE_ENOSPC, TINE_EMFILE; TINE_EBROKEN: a
///         handler of pthread_atfork() starts threads in children; TINE_ENOTSUP: something that TINE_POOL_THREADS cannot have.
///
/// Fork: copies the calling thread. Locks that other threads hold at this moment stay locked in every worker.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_pool_new(options: *const tine_pool_options_t, out_pool: *mut *mut tine_pool_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts O, S, B and C.
        let ((options, functions), out) = unsafe { (read_pool_options(options)?, arg::out(out_pool, "out_pool")?) };
        let pool = Pool::new(&options, Arc::new(functions))?;
        // SAFETY: checked by `arg::out`.
        unsafe { handle::create(tine_pool_t(pool), out) };
        Ok(())
    })
}

/// Runs a function in a worker and waits for it.
///
/// @param pool        The pool.
/// @param fn          The function, of the program or of a library that was loaded when the pool was made.
/// @param arg         First byte of its argument, copied; may be NULL if `arg_len` is 0.
/// @param arg_len     Length in bytes; any.
/// @param timeout_ms  Longest wait in milliseconds; TINE_FOREVER waits without limit. A task that is not done in time goes on, and
///                    its result is dropped.
/// @param out_result  What became of it; free it with tine_result_free(). May be NULL.
/// @return TINE_OK: there is a result, see tine_result_status(); TINE_ETIMEDOUT; TINE_EINVAL; TINE_ECLOSED; TINE_EBROKEN;
///         TINE_EFORKED; TINE_ENOSPC, TINE_ENOMEM: no room for the argument; TINE_EINTR.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_pool_apply(
    pool: *mut tine_pool_t,
    r#fn: tine_task_fn,
    arg: *const c_void,
    arg_len: usize,
    timeout_ms: i64,
    out_result: *mut *mut tine_result_t,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and B.
        let (pool, argument) = unsafe { (handle::borrow(pool, "pool")?.0.share(), arg::bytes(arg, arg_len, "arg")?) };
        let spec =
            TaskSpec { function: function(r#fn)?, argument, attempts: 1, items: 0, result_size: None, limits: Limits::default() };
        let job = pool.apply(spec, arg::timeout(timeout_ms)?)?;
        // SAFETY: contract O.
        unsafe { give(job, out_result) };
        Ok(())
    })
}

/// Hands a function over to the workers.
///
/// @param pool       The pool.
/// @param fn         The function, of the program or of a library that was loaded when the pool was made.
/// @param arg        First byte of its argument, copied; may be NULL if `arg_len` is 0.
/// @param arg_len    Length in bytes; any.
/// @param options    NULL = defaults.
/// @param out_async  To wait for it; free it with tine_async_free(). May be NULL.
/// @return TINE_OK; TINE_EFULL: max_pending tasks are pending and none has ended in time; TINE_EINVAL; TINE_ECLOSED; TINE_EBROKEN;
///         TINE_EFORKED; TINE_ENOSPC, TINE_ENOMEM: no room for the argument; TINE_EINTR.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_pool_submit(
    pool: *mut tine_pool_t,
    r#fn: tine_task_fn,
    arg: *const c_void,
    arg_len: usize,
    options: *const tine_submit_options_t,
    out_async: *mut *mut tine_async_t,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H, B, O and C.
        let (pool, argument, options) =
            unsafe { (handle::borrow(pool, "pool")?.0.share(), arg::bytes(arg, arg_len, "arg")?, read_submit_options(options)?) };
        let (attempts, limits) = (options.attempts, options.limits);
        let spec = TaskSpec { function: function(r#fn)?, argument, attempts, items: 0, result_size: None, limits };
        let submission = Submission::new(spec, options.callbacks, options.id, !out_async.is_null());
        let job = pool.submit(&submission, &options.room)?;
        // SAFETY: contract O.
        unsafe { give(job, out_async) };
        Ok(())
    })
}

/// Runs one function over many items and waits for all of them. All items run, whatever becomes of some.
///
/// @param pool              The pool.
/// @param fn                The function; gets one item and replies one result.
/// @param items             The first of `count` items, one after the other; may be NULL if they are empty.
/// @param item_size         Bytes of one.
/// @param count             How many.
/// @param chunk             How many make one task; 0 = chosen.
/// @param out_results       Room for `count` results of `result_size` bytes; NULL = nobody wants them. A shorter reply is filled up
///                          with zeros, a failed item is all zeros.
/// @param result_size       Bytes of one; an item with a longer reply fails, also where nobody wants the results.
/// @param timeout_ms        Longest wait in milliseconds; TINE_FOREVER waits without limit. After it nothing more starts, and
///                          `out_results` is not touched any more.
/// @param out_failed_index  With TINE_ETASKFAILED: the first item that failed. May be NULL.
/// @return TINE_OK; TINE_ETASKFAILED: some items failed, or their workers died, the others are done; TINE_ETIMEDOUT; TINE_EINVAL;
///         TINE_ECLOSED; TINE_ECANCELED: the pool was terminated or broke meanwhile; TINE_EBROKEN; TINE_EFORKED; TINE_ENOSPC,
///         TINE_ENOMEM; TINE_EINTR.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_pool_map(
    pool: *mut tine_pool_t,
    r#fn: tine_task_fn,
    items: *const c_void,
    item_size: usize,
    count: usize,
    chunk: usize,
    out_results: *mut c_void,
    result_size: usize,
    timeout_ms: i64,
    out_failed_index: *mut usize,
) -> tine_status_t {
    guard::status(|| {
        let (item_bytes, result_bytes) =
            (arg::product(item_size, count, "item_size")?, arg::product(result_size, count, "result_size")?);
        let result_bytes = if out_results.is_null() { 0 } else { result_bytes };
        // SAFETY: contracts H and B.
        let (pool, items, results) = unsafe {
            (
                handle::borrow(pool, "pool")?.0.share(),
                arg::bytes(items, item_bytes, "items")?,
                arg::buffer(out_results, result_bytes, "out_results")?,
            )
        };
        let limits = Limits::default();
        let map = Map { function: function(r#fn)?, items, item_size, count, chunk, result_size, limits };
        // SAFETY: contract O.
        unsafe { failed_index(out_failed_index, pool.map(&map, results, arg::timeout(timeout_ms)?)?) }
    })
}

/// tine_pool_map() without waiting for the items.
///
/// The result of the async tells what became of all of it. Its status is TINE_OK, or TINE_ETASKFAILED where some items failed: then its
/// data is the index of the first one, a size_t, and tine_result_code() and tine_result_exit_info() are that item's. It is
/// TINE_ECANCELED, TINE_ENOSPC or TINE_ENOMEM where not all items have run.
///
/// @param pool         The pool.
/// @param fn           As in tine_pool_map().
/// @param items        As in tine_pool_map(); copied.
/// @param item_size    As in tine_pool_map().
/// @param count        As in tine_pool_map().
/// @param chunk        As in tine_pool_map(). One chunk is one task of the pool's max_pending.
/// @param out_results  As in tine_pool_map(); written until the async is ready (or its callback begins), whatever is done with it
///                     meanwhile. Freeing the pool ends that, too.
/// @param result_size  As in tine_pool_map().
/// @param options      NULL = defaults. The callbacks are called once, for all of it; max_attempts and the running times are each item's.
/// @param out_async    To wait for all of it; free it with tine_async_free(). May be NULL.
/// @return TINE_OK; TINE_EFULL: not all chunks found room in time, nothing more is started; TINE_EINVAL; TINE_ECLOSED; TINE_EBROKEN;
///         TINE_EFORKED; TINE_ENOSPC, TINE_ENOMEM: no room for the items; TINE_EINTR.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_pool_map_async(
    pool: *mut tine_pool_t,
    r#fn: tine_task_fn,
    items: *const c_void,
    item_size: usize,
    count: usize,
    chunk: usize,
    out_results: *mut c_void,
    result_size: usize,
    options: *const tine_submit_options_t,
    out_async: *mut *mut tine_async_t,
) -> tine_status_t {
    guard::status(|| {
        let (item_bytes, result_bytes) =
            (arg::product(item_size, count, "item_size")?, arg::product(result_size, count, "result_size")?);
        let result_bytes = if out_results.is_null() { 0 } else { result_bytes };
        // SAFETY: contracts H, B, O and C; the results are the library's until the job has ended.
        let (pool, items, results, options) = unsafe {
            (
                handle::borrow(pool, "pool")?.0.share(),
                arg::bytes(items, item_bytes, "items")?,
                arg::buffer(out_results, result_bytes, "out_results")?,
                read_submit_options(options)?,
            )
        };
        let SubmitOptions { callbacks, id, attempts, limits, room } = options;
        let map = Map { function: function(r#fn)?, items, item_size, count, chunk, result_size, limits };
        let job = pool.map_async(&map, results, &MapOptions { callbacks, id, attempts, room })?;
        // SAFETY: contract O.
        unsafe { give(job, out_async) };
        Ok(())
    })
}

/// Runs one function over items that come one after the other, and gives the results one after the other.
///
/// `next` is called by the thread that is inside this function or tine_stream_next(), and by no other, only for so many items as may be
/// under way, and no more once it has answered something below 0. It may use the pool, and may free the stream. What it gives is
/// copied.
///
/// @param pool        The pool. It may be freed before the stream: what is under way then ends as TINE_ECANCELED.
/// @param fn          The function; gets one item as its argument.
/// @param next        Gives the items; TINE_EEOF ends, any other failure ends as well and is passed on.
/// @param user_data   For `next`.
/// @param options     NULL = defaults.
/// @param out_stream  The results; free it with tine_stream_free().
/// @return TINE_OK, also if `next` failed: tine_stream_next() tells; TINE_EINVAL; TINE_ECLOSED; TINE_EBROKEN; TINE_EFORKED; TINE_EINTR.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_pool_imap(
    pool: *mut tine_pool_t,
    r#fn: tine_task_fn,
    next: tine_next_fn,
    user_data: *mut c_void,
    options: *const tine_imap_options_t,
    out_stream: *mut *mut tine_stream_t,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H, O and C.
        let (pool, options, out) = unsafe {
            let pool = handle::borrow(pool, "pool")?.0.share();
            (pool, read_imap_options(options, function(r#fn)?, next, user_data)?, arg::out(out_stream, "out_stream")?)
        };
        let results = pool.stream(options)?;
        // SAFETY: checked by `arg::out`.
        unsafe { handle::create(tine_stream_t(results), out) };
        Ok(())
    })
}

/// The next result: of the next item, or with TINE_IMAP_UNORDERED of the one that was done next.
///
/// tine_result_task_id() of the result is the number of its item, counted from 1. Where items end otherwise than by `next`, the results of
/// those before come first.
///
/// @param stream      The stream.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit. `next` takes its own time.
/// @param out_result  What became of the item; free it with tine_result_free(). May be NULL.
/// @return TINE_OK: there is a result, see tine_result_status(); TINE_EEOF: there are no more, or what else `next` has answered, any
///         number of times; TINE_ETIMEDOUT; TINE_ECLOSED, TINE_EBROKEN: the pool takes no more items; TINE_ENOSPC, TINE_ENOMEM: no room
///         for an item; TINE_EBUSY: another thread is inside, or this is `next`; TINE_EINVAL; TINE_EFORKED; TINE_EINTR.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_stream_next(
    stream: *mut tine_stream_t,
    timeout_ms: i64,
    out_result: *mut *mut tine_result_t,
) -> tine_status_t {
    guard::number(|| {
        // SAFETY: contract H.
        let stream = unsafe { handle::borrow(stream, "stream")? }.0.share();
        match stream.next(arg::timeout(timeout_ms)?)? {
            Ok(job) => {
                // SAFETY: contract O.
                unsafe { give(job, out_result) };
                Ok(TINE_OK)
            }
            Err(End::Source(SourceEnd { status: TINE_EEOF, .. })) => {
                Err(Error::new(Kind::EndOfFile, "tine_stream_next: there are no more items"))
            }
            Err(End::Source(SourceEnd { status, why })) => Ok(last_error::record_as(status, &why)),
            Err(End::Pool(error)) => Err(error),
        }
    })
}

/// Frees a stream. Items that no worker has begun do not run; those that have go on for nobody.
///
/// @param stream  NULL is fine.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_stream_free(stream: *mut tine_stream_t) {
    // SAFETY: contract H.
    guard::release(|| unsafe { handle::free(stream) });
}

/// Takes no more tasks. Those that are pending are done, then the workers run the finalizer and leave.
///
/// @param pool  The pool.
/// @return TINE_OK, also if it was closed or terminated before; TINE_EFORKED.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_pool_close(pool: *mut tine_pool_t) -> tine_status_t {
    // SAFETY: contract H.
    guard::status(|| unsafe { handle::borrow(pool, "pool")? }.0.share().close())
}

/// Ends the workers. No task is started any more; those that are pending end as TINE_ECANCELED. An interrupt check has no say here.
///
/// @param pool        The pool.
/// @param grace_ms    Workers get SIGTERM, and SIGKILL after so many milliseconds; TINE_FOREVER: never.
/// @param out_killed  How many workers needed SIGKILL. May be NULL.
/// @return TINE_OK, also if it was terminated before; TINE_ETIMEDOUT: a worker was killed and cannot die (uninterruptible sleep);
///         TINE_EINVAL; TINE_EFORKED.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_pool_terminate(pool: *mut tine_pool_t, grace_ms: i64, out_killed: *mut u32) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        let pool = unsafe { handle::borrow(pool, "pool")? }.0.share();
        let killed = pool.terminate(arg::time(grace_ms, "grace_ms")?)?;
        // SAFETY: contract O.
        unsafe { arg::put(out_killed, killed) };
        Ok(())
    })
}

/// Waits until all workers have left and all callbacks have returned. With TINE_POOL_HOST_LOOP it runs them, too.
///
/// @param pool        The pool, closed or terminated.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @return TINE_OK, any number of times; TINE_ETIMEDOUT; TINE_EINVAL: neither closed nor terminated; TINE_EBUSY inside a callback;
///         TINE_EFORKED; TINE_EINTR.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_pool_join(pool: *mut tine_pool_t, timeout_ms: i64) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        let pool = unsafe { handle::borrow(pool, "pool")? }.0.share();
        pool.join(arg::timeout(timeout_ms)?)
    })
}

/// Changes how many workers there are, and does not wait for it: new ones begin as soon as they can, and of those that are too many
/// each finishes the task that it runs, then runs the finalizer and leaves.
///
/// @param pool     The pool.
/// @param workers  1 to 1,024.
/// @return TINE_OK; TINE_EINVAL; TINE_ECLOSED; TINE_EBROKEN, also if the pool's nursery does not answer; TINE_EFORKED; TINE_EMFILE,
///         TINE_ENOSPC.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_pool_resize(pool: *mut tine_pool_t, workers: u32) -> tine_status_t {
    // SAFETY: contract H.
    guard::status(|| unsafe { handle::borrow(pool, "pool")? }.0.share().resize(workers))
}

/// Numbers of the pool at some moment of the call.
///
/// @param pool       The pool.
/// @param out_stats  Filled as far as its size reaches.
/// @return TINE_OK; TINE_EINVAL; TINE_EFORKED.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_pool_stats(pool: *const tine_pool_t, out_stats: *mut tine_pool_stats_t) -> tine_status_t {
    guard::status(|| {
        let out_stats = arg::out(out_stats, "out_stats")?;
        // SAFETY: contracts H and O.
        unsafe {
            let stats = handle::borrow(pool, "pool")?.0.stats()?;
            options::write(out_stats, &stats.into())
        }
    })
}

/// The processes of the workers, in the order of their numbers; one that is just being replaced is missing.
///
/// @param pool       The pool.
/// @param out_pids   Room for them; may be NULL if `capacity` is 0.
/// @param capacity   For how many.
/// @param out_count  How many there are, also if that is more than `capacity`. May be NULL.
/// @return TINE_OK; TINE_EINVAL; TINE_EFORKED.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_pool_worker_pids(
    pool: *const tine_pool_t,
    out_pids: *mut i32,
    capacity: usize,
    out_count: *mut usize,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H, B and O.
        unsafe {
            let pids = handle::borrow(pool, "pool")?.0.worker_pids()?;
            put_pids(&pids, out_pids, capacity)?;
            arg::put(out_count, pids.len());
        }
        Ok(())
    })
}

/// Writes to a file what the pool does from now on, as Trace Event JSON: chrome://tracing and Perfetto show it.
///
/// Each worker has a row, with a slice for each task or chunk of a map that it ran (how long it had waited, which attempt it was, how it
/// ended) and a mark where it died; a counter shows how many tasks were queued and running. The file is finished by the end of the pool,
/// by NULL, or by another path. Until then it lacks its last events and its closing bracket.
///
/// @param pool  The pool.
/// @param path  A file, made anew; NULL finishes the present one.
/// @return TINE_OK; TINE_EINVAL; TINE_ENOENT, TINE_EACCES, TINE_ENOTDIR, TINE_EMFILE, TINE_ENOSPC, TINE_ESYS: the file cannot be
///         made, or (with NULL) was not written whole; TINE_ECLOSED: the pool has ended; TINE_EFORKED.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_pool_trace(pool: *mut tine_pool_t, path: *const c_char) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and S.
        let (pool, path) = unsafe { (handle::borrow(pool, "pool")?.0.share(), arg::optional_text(path)) };
        match path {
            Some(path) => pool.begin_trace(path),
            None => pool.end_trace(),
        }
    })
}

/// A descriptor that is readable while tine_pool_poll() has something to do, for poll(2), epoll(7) and the like.
///
/// It belongs to the pool: do not read or close it, and take it out of your own loop before you free the pool. It can be readable
/// although there is nothing to do, and stays so once the pool has ended.
///
/// @param pool  The pool, made with TINE_POOL_HOST_LOOP.
/// @return -1: the pool has a thread of its own, or belongs to the parent process.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_pool_fd(pool: *const tine_pool_t) -> c_int {
    // SAFETY: contract H.
    guard::value(-1, || unsafe { handle::borrow(pool, "pool")? }.0.loop_fd())
}

/// Runs callbacks of a pool without a thread of its own, as soon as there are some, on the calling thread.
///
/// One thread at a time does that: another one waits until it has finished. Asyncs, tine_pool_apply() and tine_pool_map() need no poll.
///
/// @param pool        The pool, made with TINE_POOL_HOST_LOOP.
/// @param timeout_ms  Longest wait for the first one in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @param max         How many at most; 0 = all that can run now. If one of them frees the pool, all that are left run.
/// @param out_count   How many ran, at least 1; more than `max` only if one of them freed the pool. May be NULL.
/// @return TINE_OK; TINE_ETIMEDOUT: there was none to run; TINE_ECLOSED: the pool has ended and every callback has run, or TINE_EBROKEN
///         where it broke; TINE_EBUSY inside a callback; TINE_ENOTSUP: the pool has a thread of its own; TINE_EINVAL; TINE_EFORKED;
///         TINE_EINTR.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_pool_poll(
    pool: *mut tine_pool_t,
    timeout_ms: i64,
    max: usize,
    out_count: *mut usize,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        let pool = unsafe { handle::borrow(pool, "pool")? }.0.share();
        let count = pool.poll(arg::timeout(timeout_ms)?, if max == 0 { usize::MAX } else { max })?;
        // SAFETY: contract O.
        unsafe { arg::put(out_count, count) };
        Ok(())
    })
}

/// Frees a pool, terminating it if it runs. Inside one of its callbacks that is carried out when the callback has returned. Callbacks of
/// what was pending run before this returns.
///
/// Asyncs and results stay valid. In a forked child this touches nothing.
///
/// @param pool  NULL is fine.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_pool_free(pool: *mut tine_pool_t) {
    // SAFETY: contract H.
    guard::release(|| unsafe { handle::free(pool) });
}

// ---- Asyncs ----

/// Waits until the task has ended and its callback, if there is one for what became of it, has returned.
///
/// With TINE_POOL_HOST_LOOP, and inside a callback of the same pool, an async is ready as soon as its task has ended.
///
/// @param async       The async.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @return TINE_OK; TINE_ETIMEDOUT; TINE_EINVAL; TINE_EFORKED; TINE_EINTR.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_async_wait(r#async: *mut tine_async_t, timeout_ms: i64) -> tine_status_t {
    // SAFETY: contract H.
    guard::status(|| unsafe { job(r#async, "async")? }.wait(arg::timeout(timeout_ms)?))
}

/// Whether tine_async_wait() would not wait.
///
/// @param async  The async.
/// @return false also for NULL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_async_ready(r#async: *const tine_async_t) -> bool {
    // SAFETY: contract H.
    guard::value(false, || unsafe { job(r#async, "async")? }.is_ready_now())
}

/// Whether the task has ended well.
///
/// @param async  The async.
/// @return false also while it has not ended, and for NULL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_async_successful(r#async: *const tine_async_t) -> bool {
    // SAFETY: contract H.
    guard::value(false, || unsafe { job(r#async, "async")? }.is_successful())
}

/// tine_async_wait(), and what became of the task.
///
/// @param async       The async.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @param out_result  The result; stays the async's, do not free it. May be NULL.
/// @return TINE_OK: there is a result, see tine_result_status(); TINE_ETIMEDOUT; TINE_EINVAL; TINE_EFORKED; TINE_EINTR.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_async_get(
    r#async: *mut tine_async_t,
    timeout_ms: i64,
    out_result: *mut *const tine_result_t,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and O.
        unsafe {
            job(r#async, "async")?.wait(arg::timeout(timeout_ms)?)?;
            arg::put(out_result, r#async.cast_const().cast());
        }
        Ok(())
    })
}

/// Cancels a task, and does not wait for its end.
///
/// One that no worker has begun never runs. Of one that runs the worker is killed and replaced. If it has a soft_timeout_ms,
/// tine_task_cancelled() turns true first, and the worker is killed only when the task goes on for as long as lies between its two
/// limits (a second if it has no timeout_ms); if it returns before, it ends as what it returned. Otherwise it ends as
/// TINE_ECANCELED. Of tine_pool_map_async(), that goes for each chunk.
///
/// @param async  The async.
/// @return TINE_OK, also if the task has ended; TINE_EBROKEN: the pool's nursery does not answer; TINE_EFORKED.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_async_cancel(r#async: *mut tine_async_t) -> tine_status_t {
    // SAFETY: contract H.
    guard::status(|| unsafe { job(r#async, "async")? }.cancel())
}

/// Frees an async, and the result that tine_async_get() showed. The task goes on.
///
/// @param async  NULL is fine.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_async_free(r#async: *mut tine_async_t) {
    // SAFETY: contract H.
    guard::release(|| unsafe { give_up(r#async) });
}

// ---- Results ----

/// What became of the task.
///
/// @param result  The result.
/// @return TINE_OK; TINE_ETASKFAILED: its function returned something other than 0, see tine_result_code(); TINE_EWORKERDIED: its
///         worker died, see tine_result_exit_info(); TINE_ETIMEDOUT: its running time was over; TINE_ECANCELED; TINE_EMSGSIZE, TINE_ENOSPC, TINE_ENOMEM: its reply was lost.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_result_status(result: *const tine_result_t) -> tine_status_t {
    // SAFETY: contract H.
    guard::number(|| unsafe { Ok(status_of(job(result, "result")?.outcome()?)) })
}

/// What the task's function returned.
///
/// @param result  The result.
/// @return 0 also where it did not return.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_result_code(result: *const tine_result_t) -> i32 {
    // SAFETY: contract H.
    guard::value(0, || unsafe { Ok(job(result, "result")?.outcome()?.code) })
}

/// What the task replied, also if it failed afterwards.
///
/// @param result   The result.
/// @param out_len  Length in bytes. May be NULL.
/// @return The first byte, aligned to 16 bytes, valid as long as the result; NULL only for NULL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_result_data(result: *const tine_result_t, out_len: *mut usize) -> *const c_void {
    guard::value(ptr::null(), || {
        // SAFETY: contracts H and O.
        unsafe {
            let data = job(result, "result")?.outcome()?.data();
            arg::put(out_len, data.len());
            Ok(data.as_ptr().cast())
        }
    })
}

/// The number of the task.
///
/// @param result  The result.
/// @return The task_id of its options, or the number that was chosen; 0 for NULL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_result_task_id(result: *const tine_result_t) -> u64 {
    // SAFETY: contract H.
    guard::value(0, || unsafe { Ok(job(result, "result")?.id()) })
}

/// The process that ran the task, for messages: by now its number may be another's.
///
/// @param result  The result.
/// @return 0 where none did.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_result_worker_pid(result: *const tine_result_t) -> i32 {
    // SAFETY: contract H.
    guard::value(0, || unsafe { Ok(job(result, "result")?.outcome()?.worker_pid) })
}

/// How the task's worker ended.
///
/// @param result    The result.
/// @param out_info  Filled as far as its size reaches.
/// @return TINE_OK; TINE_ENOENT: no worker ended with this task; TINE_EINVAL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_result_exit_info(result: *const tine_result_t, out_info: *mut tine_exit_info_t) -> tine_status_t {
    guard::status(|| {
        let out_info = arg::out(out_info, "out_info")?;
        // SAFETY: contracts H and O.
        unsafe {
            let outcome = job(result, "result")?.outcome()?;
            let mut info = tine_exit_info_t::from(*outcome.death()?);
            if outcome.stderr_tail().is_some() {
                info.valid |= TINE_EXIT_HAS_STDERR_TAIL;
            }
            options::write(out_info, &info)
        }
    })
}

/// The end of what the task's worker wrote to stderr before it died, also if the library killed it.
///
/// @param result   The result.
/// @param out_len  Length in bytes, at most the stderr_tail_bytes of the pool's options. May be NULL.
/// @return The first byte, valid as long as the result, with a NUL behind the last one; NULL (and length 0): no worker died, or the
///         pool keeps none.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_result_stderr_tail(result: *const tine_result_t, out_len: *mut usize) -> *const c_char {
    guard::value(ptr::null(), || {
        // SAFETY: contracts H and O.
        unsafe {
            let tail = job(result, "result")?.outcome()?.stderr_tail();
            arg::put(out_len, tail.map_or(0, |tail| tail.len() - 1));
            Ok(tail.map_or(ptr::null(), |tail| tail.as_ptr().cast()))
        }
    })
}

/// Frees a result of tine_pool_apply() or tine_stream_next().
///
/// @param result  NULL is fine.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_result_free(result: *mut tine_result_t) {
    // SAFETY: contract H.
    guard::release(|| unsafe { give_up(result) });
}
