//! Sleeping on a word that several processes see. Never FUTEX_PRIVATE_FLAG: private waits are not woken from another process.

use std::ptr;
use std::sync::atomic::AtomicU32;

use super::{Deadline, errno, interrupt};
use crate::error::Result;

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Woken, or the word had changed, or for no reason: look again.
    Look,
    TimedOut,
}

/// Sleeps while `word` holds `expected`, until a wake-up, a change or the deadline.
pub fn wait(word: &AtomicU32, expected: u32, deadline: &Deadline) -> Result<Woken> {
    if deadline.is_try() {
        return Ok(Woken::TimedOut);
    }
    let until = deadline
        .at()
        .map(|at| libc::timespec { tv_sec: (at / 1_000_000_000) as libc::time_t, tv_nsec: (at % 1_000_000_000) as _ });
    let until = until.as_ref().map_or(ptr::null(), ptr::from_ref);
    // FUTEX_WAIT_BITSET takes an absolute time of the monotonic clock: restarting after a signal does not lengthen the wait.
    // SAFETY: a live word and a live or null timespec.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT_BITSET,
            expected,
            until,
            ptr::null::<u32>(),
            libc::FUTEX_BITSET_MATCH_ANY,
        )
    };
    if result == 0 {
        return Ok(Woken::Look);
    }
    match errno() {
        libc::ETIMEDOUT => Ok(Woken::TimedOut),
        libc::EINTR => interrupt::ask().map(|()| Woken::Look),
        _ => Ok(Woken::Look), // EAGAIN: the word had changed
    }
}

/// Wakes at most `count` sleepers; answers how many.
pub fn wake(word: *const AtomicU32, count: u32) -> u32 {
    let count = count.min(i32::MAX as u32);
    // SAFETY: the kernel only uses the address as a key; waking nobody is harmless.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, count) };
    woken.max(0) as u32
}
