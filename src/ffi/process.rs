//! Child processes.

use std::ffi::{c_char, c_int, c_void};
use std::os::fd::IntoRawFd;

use super::options::{self, Sized0};
use super::status::tine_status_t;
use super::{arg, command, guard, handle};
use crate::error::Result;
use crate::process::{self, ExitInfo, Keep, Options, Process, Reason, Stream, role};
use crate::sys::wait::Ending;

/// A child process.
///
/// Fork: in a forked child of the process that has the handle every call answers TINE_EFORKED, and tine_process_free() touches
/// nothing of the parent's.
pub struct tine_process_t(Process);

/// The child ends when its host does, whatever ends that: by a signal at the end of the host's main, and by itself when the host is
/// killed.
pub const TINE_PROCESS_DAEMON: u32 = 1;
/// The child is neither joined nor ended at the end of the host's main.
pub const TINE_PROCESS_DETACHED: u32 = 2;

/// Runs in a child process; the lowest 8 bits of the value are its exit code.
pub type tine_process_fn = Option<unsafe extern "C" fn(user_data: *mut c_void) -> i32>;

/// How to start a child. Start from TINE_PROCESS_OPTIONS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tine_process_options_t {
    pub size: usize,
    /// NULL = "Process-N".
    pub name: *const c_char,
    /// TINE_PROCESS_DAEMON or TINE_PROCESS_DETACHED.
    pub flags: u32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: repr(C), `size` first, no padding, zeros are valid.
unsafe impl Sized0 for tine_process_options_t {
    const NAME: &'static str = "tine_process_options_t";
}

/// The command gets this program's stream; /dev/null where this program has closed it.
pub const TINE_STDIO_INHERIT: i32 = 0;
/// A pipe to the caller.
pub const TINE_STDIO_PIPE: i32 = 1;
/// /dev/null.
pub const TINE_STDIO_NULL: i32 = 2;
/// The descriptor in `stdin_fd`, `stdout_fd`, `stderr_fd`.
pub const TINE_STDIO_FD: i32 = 3;
/// The file in `stdin_path`, `stdout_path`, `stderr_path`, as seen from this program's directory; created or truncated for output.
pub const TINE_STDIO_PATH: i32 = 4;
/// As TINE_STDIO_PATH, written to at its end.
pub const TINE_STDIO_APPEND: i32 = 5;
/// stderr only: wherever stdout goes.
pub const TINE_STDIO_STDOUT: i32 = 6;

/// The command leads a new process group.
pub const TINE_SPAWN_NEW_GROUP: u32 = 1;
/// The command leads a new session, and a new process group with it.
pub const TINE_SPAWN_NEW_SESSION: u32 = 2;
/// The command is killed (SIGKILL) when this process ends, however that does, or executes another program, and not when merely the
/// thread that started it ends: it is started by a thread of the library, "tine-spawn", which the first such call makes, with the
/// caller's signal mask and processors and that thread's nice value. The kernel takes this back from a command that executes a
/// set-user-id program, or one with capabilities.
///
/// What else a thread has for itself the command has of that thread. What the caller gave up must not come back: TINE_EPERM where the
/// two differ in users, groups, capabilities, no_new_privs, namespaces or the number of seccomp filters. Landlock's rules cannot be
/// compared: take them before the first such call. With TINE_SPAWN_KILL_TREE, and without this flag, it is the calling thread that
/// starts the command, and all of this is as of that.
pub const TINE_SPAWN_KILL_ON_PARENT_DEATH: u32 = 4;
/// The command and its descendants are one. When the command ends, or is killed or stopped, all of them are killed, also those that
/// made a session of their own; the process counts as ended when the last one has. Other signals are the command's (its group's,
/// where it leads one). With TINE_SPAWN_KILL_ON_PARENT_DEATH they all end with this process.
///
/// A process of the library's own stands between, a forked copy of this one: that costs what a fork costs, and memory that this
/// process writes to meanwhile is copied. Where it may, it makes a control group (version 2, Linux 5.14) for the tree, which the
/// kernel kills as a whole. Without one, descendants that changed their user outlive a supervisor that is not root, and a tree that
/// forks all the time is killed in rounds, for 10 s at most; who kills the supervisor alone kills the command only. TINE_ENOTSUP where
/// /proc does not list children, or is that of another pid namespace.
pub const TINE_SPAWN_KILL_TREE: u32 = 8;
/// The command inherits every descriptor that is not close-on-exec.
pub const TINE_SPAWN_INHERIT_ALL_FDS: u32 = 16;
/// The command keeps the calling thread's signal mask and what the caller ignores. Else nothing is blocked and nothing ignored.
pub const TINE_SPAWN_KEEP_SIGNALS: u32 = 32;
/// `umask` counts.
pub const TINE_SPAWN_SET_UMASK: u32 = 64;
/// `uid` counts.
pub const TINE_SPAWN_SET_UID: u32 = 128;
/// `gid` and `groups` count.
pub const TINE_SPAWN_SET_GID: u32 = 256;

/// A descriptor that a command gets.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tine_fd_map_t {
    /// The caller's number.
    pub fd: i32,
    /// The command's number.
    pub r#as: i32,
}

/// A resource limit of a command: see setrlimit(2).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tine_rlimit_t {
    pub resource: i32,
    /// 0.
    pub reserved: u32,
    pub soft: u64,
    pub hard: u64,
}

/// How to start a command. Start from TINE_SPAWN_OPTIONS_INIT.
///
/// Order: group or session, nice, affinity, umask, descriptors, limits, groups, gid, uid, cwd. What needs a right is done before the
/// user changes; the directory is entered with the new user's rights.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tine_spawn_options_t {
    pub size: usize,
    /// NULL = argv[0]. Without a slash: looked for in PATH.
    pub executable: *const c_char,
    /// NULL = the caller's. A relative `executable`, and relative entries of PATH, begin there.
    pub cwd: *const c_char,
    /// NULL-terminated "NAME=value"; NULL = the caller's.
    pub env: *const *const c_char,
    /// Added to or replacing in `env`.
    pub env_extra: *const *const c_char,
    /// Of a stream whose mode is TINE_STDIO_PATH or TINE_STDIO_APPEND; without such a mode a path is TINE_EINVAL.
    pub stdin_path: *const c_char,
    pub stdout_path: *const c_char,
    pub stderr_path: *const c_char,
    /// Descriptors that the command gets besides the three, close-on-exec or not; 0, 1 and 2 where the stream's mode is INHERIT.
    pub fds: *const tine_fd_map_t,
    pub fd_count: usize,
    pub rlimits: *const tine_rlimit_t,
    pub rlimit_count: usize,
    /// Supplementary groups, with TINE_SPAWN_SET_GID; none = the command has none.
    pub groups: *const u32,
    pub group_count: usize,
    /// Bit mask of processors; NULL = the calling thread's.
    pub affinity: *const u64,
    pub affinity_words: usize,
    /// Kept by tine_process_communicate() of each stream; 0 = all; the rest is drained and dropped.
    pub max_output_bytes: usize,
    pub stdin_mode: i32,
    pub stdout_mode: i32,
    pub stderr_mode: i32,
    /// Of a stream whose mode is TINE_STDIO_FD; stay the caller's. Above 0 without that mode: TINE_EINVAL.
    pub stdin_fd: i32,
    pub stdout_fd: i32,
    pub stderr_fd: i32,
    /// TINE_SPAWN_*.
    pub flags: u32,
    /// Added to the caller's.
    pub nice: i32,
    /// 0 = the caller's; above 0: the command joins this group.
    pub process_group: i32,
    /// With TINE_SPAWN_SET_UMASK.
    pub umask: u32,
    /// With TINE_SPAWN_SET_UID: real, effective and saved; 4294967295, no user, is TINE_EINVAL. The groups stay, unless TINE_SPAWN_SET_GID is there, too.
    pub uid: u32,
    /// With TINE_SPAWN_SET_GID: real, effective and saved.
    pub gid: u32,
}

/// `code` and `signal` of an exit info are known.
pub const TINE_EXIT_HAS_STATUS: u32 = 1;
/// `user_us` and `system_us` are known.
pub const TINE_EXIT_HAS_TIMES: u32 = 2;
/// `peak_rss_bytes` is known.
pub const TINE_EXIT_HAS_PEAK_RSS: u32 = 4;
/// There is an end of stderr: see tine_result_stderr_tail().
pub const TINE_EXIT_HAS_STDERR_TAIL: u32 = 8;

/// It exited with a code.
pub const TINE_REASON_EXIT: u32 = 1;
/// A signal ended it.
pub const TINE_REASON_SIGNAL: u32 = 2;
/// The library ended it: its time ran out.
pub const TINE_REASON_TIMEOUT: u32 = 3;
/// The library ended it: its task was canceled.
pub const TINE_REASON_CANCELED: u32 = 4;
/// The library ended it: it used more memory than it may. Also where a SIGKILL came from elsewhere (the kernel is out of memory) when
/// it did.
pub const TINE_REASON_MEMORY: u32 = 5;
/// The library ended it: it had stopped itself.
pub const TINE_REASON_STOPPED: u32 = 6;
/// The library ended it: tine_process_stop() or tine_pool_terminate().
pub const TINE_REASON_TERMINATED: u32 = 7;

/// How a process ended. Start from TINE_EXIT_INFO_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tine_exit_info_t {
    pub size: usize,
    /// TINE_EXIT_HAS_*: what is known.
    pub valid: u32,
    /// TINE_REASON_*; 0 = unknown. An end that the library ordered names its cause.
    pub reason: u32,
    /// The exit code if it exited, else -1.
    pub code: i32,
    /// The signal that ended it, else 0.
    pub signal: i32,
    /// 1 if the signal left a core file.
    pub core_dumped: u32,
    pub reserved: u32,
    /// Processor time in microseconds, that of the children it waited for included.
    pub user_us: u64,
    pub system_us: u64,
    /// The most memory it had. The kernel counts from the parent's: unknown for function children, and for commands that had less.
    pub peak_rss_bytes: u64,
}

// SAFETY: repr(C), `size` first, no padding, zeros are valid.
unsafe impl Sized0 for tine_exit_info_t {
    const NAME: &'static str = "tine_exit_info_t";
}

impl From<ExitInfo> for tine_exit_info_t {
    fn from(info: ExitInfo) -> tine_exit_info_t {
        let (code, signal, core) = match info.ending {
            Some(Ending::Exited(code)) => (code, 0, false),
            Some(Ending::Signaled { signal, core }) => (-1, signal, core),
            None => (-1, 0, false),
        };
        let usage = info.usage.unwrap_or_default();
        let flag = |known: bool, flag: u32| if known { flag } else { 0 };
        tine_exit_info_t {
            size: size_of::<tine_exit_info_t>(),
            valid: flag(info.ending.is_some(), TINE_EXIT_HAS_STATUS)
                | flag(info.usage.is_some(), TINE_EXIT_HAS_TIMES)
                | flag(usage.peak_rss_bytes > 0, TINE_EXIT_HAS_PEAK_RSS),
            reason: match info.reason {
                Some(Reason::Exit) => TINE_REASON_EXIT,
                Some(Reason::Signal) => TINE_REASON_SIGNAL,
                Some(Reason::Timeout) => TINE_REASON_TIMEOUT,
                Some(Reason::Canceled) => TINE_REASON_CANCELED,
                Some(Reason::Memory) => TINE_REASON_MEMORY,
                Some(Reason::Stopped) => TINE_REASON_STOPPED,
                Some(Reason::Terminated) => TINE_REASON_TERMINATED,
                None => 0,
            },
            code,
            signal,
            core_dumped: core.into(),
            reserved: 0,
            user_us: usage.user_us,
            system_us: usage.system_us,
            peak_rss_bytes: usage.peak_rss_bytes,
        }
    }
}

/// Calls a C or C++ function so that an exception may come out of it.
fn caller(function: unsafe extern "C" fn(*mut c_void) -> i32, user_data: *mut c_void) -> impl FnOnce() -> i32 {
    // SAFETY: the same function; "C-unwind" only says what is to happen if it unwinds.
    let function = unsafe {
        std::mem::transmute::<unsafe extern "C" fn(*mut c_void) -> i32, unsafe extern "C-unwind" fn(*mut c_void) -> i32>(function)
    };
    // SAFETY: contract C, but for the unwinding.
    move || unsafe { function(user_data) }
}

/// The caller's options. The name is borrowed for the call.
unsafe fn read_options<'a>(options: *const tine_process_options_t) -> Result<Options<'a>> {
    // SAFETY: contracts O and S.
    let (options, name) = unsafe {
        let options = options::read(options)?;
        (options, arg::optional_text(options.name))
    };
    let flags = arg::flags(options.flags, TINE_PROCESS_DAEMON | TINE_PROCESS_DETACHED, "options.flags")?;
    arg::flags(options.reserved, 0, "options.reserved")?;
    Ok(Options { name, daemon: flags & TINE_PROCESS_DAEMON != 0, detached: flags & TINE_PROCESS_DETACHED != 0 })
}

/// The caller's array of handles.
unsafe fn borrow_all<'a>(processes: *const *mut tine_process_t, count: usize) -> Result<Vec<&'a Process>> {
    // SAFETY: contract B, for elements, and contract H for each.
    unsafe {
        let processes = arg::array(processes, count, "processes")?;
        processes.iter().map(|&process| Ok(&handle::borrow(process, "an element of processes")?.0)).collect()
    }
}

/// Runs a function in a child process: a copy of this one, forked from the calling thread.
///
/// The child leaves by _exit(2) with the function's value & 0xff (1 after a C++ exception), also when it calls exit(3): no exit
/// handler and no static destructor of this process runs in it. stdout and stderr are flushed at its end, other streams are not.
/// At the end of this process's main, children that are still running are joined, daemon children terminated, detached ones left
/// alone, whether their handles were freed or not.
///
/// Threads: the child has only the calling one. Locks that others held at that moment stay held in the child: start children before
/// threads where you can. Nothing of the library is locked there. A log callback is told how many threads there were.
///
/// The child has this process's descriptors, but not those of tine_process_stdin_fd(): a command would not see the end of its input.
///
/// @param fn           What to run.
/// @param user_data    Passed to it; what it points to is there in the child as it was at this moment.
/// @param options      Name and flags; NULL = defaults.
/// @param out_process  The new handle; tine_process_free() it.
/// @return TINE_OK; TINE_EINVAL; TINE_E2BIG; TINE_EAGAIN if no more processes are allowed; TINE_ENOMEM; TINE_EMFILE; TINE_ENOSPC;
///         TINE_EBUSY: a callback of a pool has been running on another thread for a second.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_start(
    r#fn: tine_process_fn,
    user_data: *mut c_void,
    options: *const tine_process_options_t,
    out_process: *mut *mut tine_process_t,
) -> tine_status_t {
    guard::status(|| {
        let function = arg::callback(r#fn, "fn")?;
        let out_process = arg::out(out_process, "out_process")?;
        // SAFETY: contract O; the name is used during the call only.
        let options = unsafe { read_options(options)? };
        let process = process::start(options, caller(function, user_data))?;
        // SAFETY: contract O.
        unsafe { handle::create(tine_process_t(process), out_process) };
        Ok(())
    })
}

/// Starts a command.
///
/// A name without a slash is looked for in the PATH of the environment that the command gets. It gets no descriptor but the three
/// streams and those in `fds`, an empty signal mask and default signals. Nothing of this process is copied: the cost does not grow
/// with it, and threads do not matter. Where it inherits stdout or stderr, what was printed there before is flushed first. At the end
/// of this process's main it is neither joined nor ended.
///
/// @param argv         The command and its arguments, NULL-terminated.
/// @param options      How; NULL = defaults.
/// @param out_process  The new handle; tine_process_free() it.
/// @return TINE_OK: the command runs. Else nothing does, and the message names the step that failed: TINE_ENOENT (no such program,
///         `cwd` or file); TINE_ENOTDIR; TINE_EACCES (not executable, or a directory); TINE_EPERM; TINE_EMFILE; TINE_EAGAIN (no more
///         processes allowed); TINE_ENOMEM; TINE_EINVAL; TINE_E2BIG; TINE_ENOTSUP: TINE_SPAWN_KILL_TREE cannot be had;
///         TINE_EBUSY, with that flag: a callback of a pool has been running on another thread for a second; TINE_ESYS with any other
///         errno, as ENOEXEC (no program) or E2BIG (arguments too long).
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_spawn(
    argv: *const *const c_char,
    options: *const tine_spawn_options_t,
    out_process: *mut *mut tine_process_t,
) -> tine_status_t {
    guard::status(|| {
        let out_process = arg::out(out_process, "out_process")?;
        // SAFETY: contracts S and O.
        let command = unsafe { command::read(argv, options)? };
        let process = process::spawn(&command)?;
        // SAFETY: contract O.
        unsafe { handle::create(tine_process_t(process), out_process) };
        Ok(())
    })
}

/// Waits until a process has ended. Any number of times, from any number of threads.
///
/// @param process     The process.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @return TINE_OK once it has ended, however it did; TINE_ETIMEDOUT; TINE_EINTR; TINE_EFORKED; TINE_EINVAL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_join(process: *mut tine_process_t, timeout_ms: i64) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        let process = unsafe { handle::borrow(process, "process")? };
        process.0.join(arg::timeout(timeout_ms)?)
    })
}

/// Whether a process has not ended yet. One that is stopped (SIGSTOP) is alive.
///
/// @param process  The process.
/// @return true while it lives; false for NULL and in a forked child.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_is_alive(process: *const tine_process_t) -> bool {
    // SAFETY: contract H.
    guard::value(false, || unsafe { handle::borrow(process, "process")? }.0.is_alive())
}

/// The exit code of a process that has ended.
///
/// @param process   The process.
/// @param out_code  0 or above the exit code, below 0 minus the signal that ended it.
/// @return TINE_OK; TINE_EBUSY while it runs; TINE_ESTATUSLOST if this program took the status (it ignores SIGCHLD, or waits for any
///         child) and the process did not leave by itself; TINE_EFORKED; TINE_EINVAL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_exit_code(process: *const tine_process_t, out_code: *mut i32) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and O.
        unsafe {
            let code = handle::borrow(process, "process")?.0.exit_code()?;
            arg::put(out_code, code);
        }
        Ok(())
    })
}

/// How a process ended, and what it used.
///
/// @param process   The process.
/// @param out_info  Start from TINE_EXIT_INFO_INIT; filled as far as its `size` reaches. `valid` says what is known.
/// @return TINE_OK; TINE_EBUSY while it runs; TINE_EFORKED; TINE_EINVAL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_exit_info(
    process: *const tine_process_t,
    out_info: *mut tine_exit_info_t,
) -> tine_status_t {
    guard::status(|| {
        let out_info = arg::out(out_info, "out_info")?;
        // SAFETY: contracts H and O.
        unsafe {
            let info = handle::borrow(process, "process")?.0.exit_info()?;
            options::write(out_info, &info.into())
        }
    })
}

/// The number of a process. It is the kernel's to give away again once the process was reaped: signal through the handle.
///
/// @param process  The process.
/// @return Its pid; -1 for NULL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_pid(process: *const tine_process_t) -> i32 {
    // SAFETY: contract H.
    guard::value(-1, || Ok(unsafe { handle::borrow(process, "process")? }.0.pid()))
}

/// The name of a process.
///
/// @param process  The process.
/// @return What the options said, else "Process-N"; of a command its argv[0]; valid as long as the handle; empty for NULL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_name(process: *const tine_process_t) -> *const c_char {
    // SAFETY: contract H.
    guard::value(c"".as_ptr(), || Ok(unsafe { handle::borrow(process, "process")? }.0.name().as_ptr()))
}

/// Whether a process was started with TINE_PROCESS_DAEMON.
///
/// @param process  The process.
/// @return true if so; false for NULL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_is_daemon(process: *const tine_process_t) -> bool {
    // SAFETY: contract H.
    guard::value(false, || Ok(unsafe { handle::borrow(process, "process")? }.0.is_daemon()))
}

/// A descriptor that becomes readable once a process has ended, for poll(2). Where the kernel has no pidfds it may become readable
/// early (the process closed its descriptors) or late (a process that it forked still has them).
///
/// @param process  The process.
/// @return The descriptor, which belongs to the handle; -1 for NULL and in a forked child.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_fd(process: *const tine_process_t) -> c_int {
    // SAFETY: contract H.
    guard::value(-1, || unsafe { handle::borrow(process, "process")? }.0.fd())
}

/// Sends SIGTERM to a process.
///
/// @param process  The process.
/// @return TINE_OK, also if it has ended; TINE_EAGAIN as from tine_process_signal(); TINE_EPERM; TINE_EFORKED; TINE_EINVAL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_terminate(process: *mut tine_process_t) -> tine_status_t {
    // SAFETY: contract H.
    guard::status(|| unsafe { handle::borrow(process, "process")? }.0.terminate())
}

/// Sends SIGKILL to a process; with TINE_SPAWN_KILL_TREE to its descendants as well.
///
/// @param process  The process.
/// @return TINE_OK, also if it has ended; TINE_EPERM; TINE_EFORKED; TINE_EINVAL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_kill(process: *mut tine_process_t) -> tine_status_t {
    // SAFETY: contract H.
    guard::status(|| unsafe { handle::borrow(process, "process")? }.0.kill())
}

/// Sends a signal to a process, never to another one that got its number later.
///
/// @param process  The process.
/// @param signal   The signal's number.
/// @return TINE_OK, also if it has ended; TINE_EAGAIN with TINE_SPAWN_KILL_TREE, if hundreds of signals before this one have not been
///         taken in 0.1 s, because somebody has stopped what passes them on (never for SIGKILL); TINE_EPERM; TINE_EFORKED; TINE_EINVAL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_signal(process: *mut tine_process_t, signal: i32) -> tine_status_t {
    // SAFETY: contract H.
    guard::status(|| unsafe { handle::borrow(process, "process")? }.0.signal(signal))
}

/// Ends a process: SIGTERM, a grace, SIGKILL; afterwards it has ended and is reaped. Of a command that leads a process group, the whole
/// group, which may also have outlived the command; with TINE_SPAWN_KILL_TREE whatever it left when it has ended.
///
/// A group is signalled through its leader's descriptor (Linux 6.9), or else by its number. That only the leader keeps: one that ended
/// before its group, and was joined, stays a zombie there until it is stopped or its handle freed. A host that reaps it itself, or
/// ignores SIGCHLD, gives the number away: then only the leader is stopped.
///
/// @param process   The process.
/// @param grace_ms  How long it may take to end by itself; 0 kills at once, TINE_FOREVER never.
/// @return TINE_OK, also if it had ended; TINE_ETIMEDOUT if it was killed and cannot die (uninterruptible sleep); TINE_EPERM;
///         TINE_EINTR; TINE_EFORKED; TINE_EINVAL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_stop(process: *mut tine_process_t, grace_ms: i64) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        let process = unsafe { handle::borrow(process, "process")? };
        process.0.stop(arg::time(grace_ms, "grace_ms")?)
    })
}

/// Waits until one of several processes has ended.
///
/// @param processes   The handles; none may be NULL.
/// @param count       How many; at least 1.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @param out_index   The first in the array that has ended, also if it had before.
/// @return TINE_OK; TINE_ETIMEDOUT; TINE_EINTR; TINE_EFORKED; TINE_EINVAL; TINE_EMFILE: there are more than RLIMIT_NOFILE
///         allows, and no descriptor is left to wait for so many with.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_wait_any(
    processes: *const *mut tine_process_t,
    count: usize,
    timeout_ms: i64,
    out_index: *mut usize,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts B, H and O.
        unsafe {
            let processes = borrow_all(processes, count)?;
            let index = process::wait_any(&processes, arg::timeout(timeout_ms)?)?;
            arg::put(out_index, index);
        }
        Ok(())
    })
}

/// The name that this process was started under.
///
/// @return In a child of tine_process_start() its name, in a pool's worker the worker's, elsewhere "MainProcess"; never NULL, valid
///         as long as the process.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub extern "C" fn tine_current_process_name() -> *const c_char {
    guard::value(c"".as_ptr(), || Ok(role::name().as_ptr()))
}

/// Frees a handle. A process that still runs goes on; it is reaped by a later call of the library, or at exit.
///
/// @param process  The handle; NULL is fine.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_free(process: *mut tine_process_t) {
    // SAFETY: contract H.
    guard::release(|| unsafe { handle::free(process) });
}

/// Gives a command its input and takes its output until it ends, both of any size and at once.
///
/// It ends when the command has: what that wrote is returned whole. A process that the command left behind and that still holds its
/// output open is waited for for a moment only (TINE_PIPE_HELD). A command that does not want all of the input is no error.
///
/// From the first call on the pipes are the conversation's: tine_process_stdin_fd() and the like answer -1. After TINE_ETIMEDOUT or
/// TINE_EINTR another call goes on where this one was; it ignores `input`, and what it returns holds everything since the first.
///
/// SIGPIPE does not reach this program, and its disposition is not touched.
///
/// @param process         The process. One without pipes is waited for.
/// @param input           Written to its stdin, which is closed then; borrowed for the call.
/// @param input_len       Length in bytes; 0 closes its stdin at once.
/// @param timeout_ms      Longest wait of the whole call in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @param out_stdout      What it wrote to stdout, `max_output_bytes` at most, and a NUL behind it; tine_free() it. NULL: dropped.
/// @param out_stdout_len  Its length in bytes, without the NUL.
/// @param out_stderr      What it wrote to stderr, likewise.
/// @param out_stderr_len  Its length in bytes, without the NUL.
/// @return TINE_OK once it has ended, however it did: see tine_process_exit_code(); TINE_PIPE_HELD; TINE_ETIMEDOUT; TINE_EINTR;
///         TINE_EBUSY: another thread communicates with it; TINE_ENOMEM; TINE_EFORKED; TINE_EINVAL, also if there is an input and
///         no pipe for it; TINE_ESYS.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_communicate(
    process: *mut tine_process_t,
    input: *const c_void,
    input_len: usize,
    timeout_ms: i64,
    out_stdout: *mut *mut c_void,
    out_stdout_len: *mut usize,
    out_stderr: *mut *mut c_void,
    out_stderr_len: *mut usize,
) -> tine_status_t {
    guard::noted(|| {
        // SAFETY: contracts H, B and O.
        unsafe {
            let process = handle::borrow(process, "process")?;
            let input = arg::bytes(input, input_len, "input")?;
            let keep = Keep { stdout: !out_stdout.is_null(), stderr: !out_stderr.is_null() };
            let said = process.0.communicate(input, keep, arg::timeout(timeout_ms)?)?;
            arg::hand_out(said.stdout, out_stdout, out_stdout_len);
            arg::hand_out(said.stderr, out_stderr, out_stderr_len);
            Ok(said.note)
        }
    })
}

/// The caller's end of a command's stdin.
///
/// @param process  The process.
/// @return The descriptor, which belongs to the handle; -1 where there is no pipe (any more), for NULL and in a forked child.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_stdin_fd(process: *const tine_process_t) -> c_int {
    // SAFETY: contract H.
    guard::value(-1, || unsafe { handle::borrow(process, "process")? }.0.stream_fd(Stream::Stdin))
}

/// The caller's end of a command's stdout.
///
/// @param process  The process.
/// @return The descriptor, which belongs to the handle; -1 where there is no pipe (any more), for NULL and in a forked child.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_stdout_fd(process: *const tine_process_t) -> c_int {
    // SAFETY: contract H.
    guard::value(-1, || unsafe { handle::borrow(process, "process")? }.0.stream_fd(Stream::Stdout))
}

/// The caller's end of a command's stderr.
///
/// @param process  The process.
/// @return The descriptor, which belongs to the handle; -1 where there is no pipe (any more), for NULL and in a forked child.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_stderr_fd(process: *const tine_process_t) -> c_int {
    // SAFETY: contract H.
    guard::value(-1, || unsafe { handle::borrow(process, "process")? }.0.stream_fd(Stream::Stderr))
}

/// Takes the caller's end of a command's stdin out of the handle.
///
/// @param process  The process.
/// @param out_fd   The descriptor, the caller's from now on: close-on-exec. Required.
/// @return TINE_OK; TINE_ECLOSED if there is no pipe, or it was taken or closed; TINE_EFORKED; TINE_EINVAL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_take_stdin(process: *mut tine_process_t, out_fd: *mut c_int) -> tine_status_t {
    guard::status(|| {
        let out_fd = arg::out(out_fd, "out_fd")?;
        // SAFETY: contracts H and O.
        unsafe {
            let fd = handle::borrow(process, "process")?.0.take_stream(Stream::Stdin)?;
            arg::put(out_fd, fd.into_raw_fd());
        }
        Ok(())
    })
}

/// Takes the caller's end of a command's stdout out of the handle.
///
/// @param process  The process.
/// @param out_fd   The descriptor, the caller's from now on: close-on-exec. Required.
/// @return TINE_OK; TINE_ECLOSED if there is no pipe, or it was taken or closed; TINE_EFORKED; TINE_EINVAL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_take_stdout(process: *mut tine_process_t, out_fd: *mut c_int) -> tine_status_t {
    guard::status(|| {
        let out_fd = arg::out(out_fd, "out_fd")?;
        // SAFETY: contracts H and O.
        unsafe {
            let fd = handle::borrow(process, "process")?.0.take_stream(Stream::Stdout)?;
            arg::put(out_fd, fd.into_raw_fd());
        }
        Ok(())
    })
}

/// Takes the caller's end of a command's stderr out of the handle.
///
/// @param process  The process.
/// @param out_fd   The descriptor, the caller's from now on: close-on-exec. Required.
/// @return TINE_OK; TINE_ECLOSED if there is no pipe, or it was taken or closed; TINE_EFORKED; TINE_EINVAL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_take_stderr(process: *mut tine_process_t, out_fd: *mut c_int) -> tine_status_t {
    guard::status(|| {
        let out_fd = arg::out(out_fd, "out_fd")?;
        // SAFETY: contracts H and O.
        unsafe {
            let fd = handle::borrow(process, "process")?.0.take_stream(Stream::Stderr)?;
            arg::put(out_fd, fd.into_raw_fd());
        }
        Ok(())
    })
}

/// Closes the caller's end of a command's stdin: the command sees its end.
///
/// @param process  The process.
/// @return TINE_OK; TINE_ECLOSED if there is no pipe, or it was taken or closed; TINE_EFORKED; TINE_EINVAL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_close_stdin(process: *mut tine_process_t) -> tine_status_t {
    // SAFETY: contract H.
    guard::status(|| unsafe { handle::borrow(process, "process")? }.0.close_stdin())
}

/// Runs a command and waits for its end. It has no pipes to this process: TINE_STDIO_PIPE is TINE_EINVAL.
///
/// @param argv        The command and its arguments, NULL-terminated.
/// @param options     How; NULL = defaults.
/// @param timeout_ms  Longest wait in milliseconds; then the command (with its group, where it leads one) is killed and reaped.
/// @param out_code    As of tine_process_exit_code().
/// @return TINE_OK once it has ended, however it did; TINE_ETIMEDOUT; TINE_ESTATUSLOST as of tine_process_exit_code(); TINE_EINTR: as
///         TINE_ETIMEDOUT, the command is killed; what tine_process_spawn() answers.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_call(
    argv: *const *const c_char,
    options: *const tine_spawn_options_t,
    timeout_ms: i64,
    out_code: *mut i32,
) -> tine_status_t {
    guard::status(|| {
        let timeout = arg::timeout(timeout_ms)?;
        // SAFETY: contracts S and O.
        unsafe {
            let command = command::read(argv, options)?;
            arg::put(out_code, process::call(&command, timeout)?);
        }
        Ok(())
    })
}

/// Runs a command, waits for its end and takes its output: tine_process_communicate() in one call.
///
/// stdout is a pipe, and stdin where there is an input: their modes must be left at TINE_STDIO_INHERIT or be TINE_STDIO_PIPE. stderr is
/// the caller's unless the options say otherwise; what goes into a pipe of its own is dropped.
///
/// Once the command runs the outputs are written whatever comes of it: after a timeout, what it had written until then.
///
/// @param argv        The command and its arguments, NULL-terminated.
/// @param options     How; NULL = defaults.
/// @param input       Written to its stdin.
/// @param input_len   Length in bytes; 0: none.
/// @param timeout_ms  Longest wait in milliseconds; then the command is killed and reaped. TINE_FOREVER waits without limit.
/// @param out_data    What it wrote to stdout, and a NUL behind it; tine_free() it.
/// @param out_len     Its length in bytes, without the NUL.
/// @param out_code    As of tine_process_exit_code(); other than 0 is no failure of this call.
/// @return TINE_OK once it has ended, however it did; TINE_PIPE_HELD; TINE_ETIMEDOUT, TINE_EINTR: it was killed; TINE_ESTATUSLOST: the
///         code is unknown; TINE_ENOMEM; and what tine_process_spawn() answers, with no output.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_process_check_output(
    argv: *const *const c_char,
    options: *const tine_spawn_options_t,
    input: *const c_void,
    input_len: usize,
    timeout_ms: i64,
    out_data: *mut *mut c_void,
    out_len: *mut usize,
    out_code: *mut i32,
) -> tine_status_t {
    guard::noted(|| {
        // SAFETY: contracts S, B and O.
        unsafe {
            let command = command::read(argv, options)?;
            let input = arg::bytes(input, input_len, "input")?;
            let captured = process::check_output(command, input, arg::timeout(timeout_ms)?)?;
            arg::hand_out(captured.output, out_data, out_len);
            if let Ok(code) = captured.code {
                arg::put(out_code, code);
            }
            let note = captured.ended?;
            captured.code.map(|_| note)
        }
    })
}
