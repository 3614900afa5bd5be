//! Making a child by copying this process.
//!
//! # Why these are safe functions
//! In a child of a program with threads, locks that another thread held at that moment stay held for ever: whoever takes one hangs.
//! That is no unsoundness, it is a promise to keep: the child's side of a call runs only what its branch does. The library's own
//! branches touch nothing but the calling thread's memory, [`super::per_process`] state and system calls until the user's function
//! runs; what that may do is in the README. The supervisor of a tree, which starts a command of its own, also allocates: glibc's `fork`
//! leaves the child an allocator that nobody holds.

use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use super::errno::{Result, errno};

/// The two returns of a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    Child,
    /// In the parent: the child's number.
    Parent(i32),
}

/// libc's `fork`, from the calling thread: repairs malloc, stdio, the thread's number and its robust list in the child, and runs
/// the handlers of pthread_atfork. Fails with an errno.
pub fn fork() -> Result<Forked> {
    // SAFETY: see the head of this file.
    answer(unsafe { libc::fork() })
}

/// `_Fork` where libc has one (glibc 2.34), else `fork`: no handlers of pthread_atfork run. For processes with one
/// thread that libc's `fork` made: there is nothing to repair but the number and the robust list. Neither allocates nor takes a lock
/// once [`prepare_quiet`] was called in an ancestor.
pub fn fork_quiet() -> Result<Forked> {
    prepare_quiet();
    let quiet = QUIET.load(Relaxed);
    if quiet.is_null() || quiet == missing() {
        return fork();
    }
    // SAFETY: the address of libc's `pid_t _Fork(void)`.
    let quiet = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> libc::pid_t>(quiet) };
    answer(quiet())
}

/// Null: not looked up yet; [`missing`]: libc has none. Relaxed: the code that it points to was there before this program ran.
static QUIET: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

fn missing() -> *mut c_void {
    (&raw const QUIET).cast_mut().cast()
}

/// Looks up what [`fork_quiet`] needs: the lookup takes the loader's lock, which a frozen copy of a process may never get.
pub fn prepare_quiet() {
    if QUIET.load(Relaxed).is_null() {
        // SAFETY: a NUL-terminated name.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_Fork".as_ptr()) };
        QUIET.store(if found.is_null() { missing() } else { found }, Relaxed);
    }
}

fn answer(result: libc::pid_t) -> Result<Forked> {
    match result {
        0 => Ok(Forked::Child),
        1.. => Ok(Forked::Parent(result)),
        _ => Err(errno()),
    }
}

/// Ends this process now: no handler, no destructor, nothing flushed.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(code) }
}

/// Ends this process by SIGKILL.
pub fn kill_self() -> ! {
    // SAFETY: plain numbers: this very process.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    exit_now(128 + libc::SIGKILL)
}
