//! The thread's interrupt check: asked when a signal interrupts a wait.

use std::cell::Cell;

use super::thread::Thread;
use crate::error::{Error, Kind, Result};

/// Non-zero ends the call that was interrupted.
pub type Check = unsafe extern "C" fn(*mut libc::c_void) -> i32;

thread_local! {
    // Const and without Drop: no destructor is registered.
    static CHECK: Cell<Option<(Check, *mut libc::c_void)>> = const { Cell::new(None) };
}

/// # Safety
/// `check` may be called with `user_data` on this thread until it is replaced.
pub unsafe fn set(check: Option<Check>, user_data: *mut libc::c_void) {
    CHECK.set(check.map(|check| (check, user_data)));
}

/// A forked child's thread has its parent's check, and should not.
pub fn clear() {
    CHECK.set(None);
}

/// Whether this thread wants to be asked.
pub fn is_set() -> bool {
    CHECK.get().is_some()
}

/// Runs `body` without this thread's check, for what must come to its end: signals wait for the next call.
pub fn unasked<T>(body: impl FnOnce() -> T) -> T {
    let check = CHECK.take();
    let result = body();
    CHECK.set(check);
    result
}

/// After EINTR: goes on unless this thread has a check and it says no.
#[cold]
pub fn ask() -> Result<()> {
    let Some((check, user_data)) = CHECK.get() else { return Ok(()) };
    // SAFETY: promised by whoever called `set`.
    let answer = unsafe { check(user_data) };
    // It may have forked, and this may be the child: there the thread has another number, which the wait goes on with.
    Thread::current();
    match answer {
        0 => Ok(()),
        _ => Err(Error::new(Kind::Interrupted, "interrupted: the thread's interrupt check ended the call")),
    }
}
