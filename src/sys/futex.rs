//! Sleeping on a word that several processes see. Never FUTEX_PRIVATE_FLAG: private waits are not woken from another process.

use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

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
    // A wait without an end that a handler with SA_RESTART interrupts goes on in the kernel, and the check would never be asked.
    let until = deadline
        .at()
        .or_else(|| interrupt::is_set().then_some(i64::MAX as u64))
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
pub fn wake(word: &AtomicU32, count: u32) -> u32 {
    let count = count.min(i32::MAX as u32);
    // SAFETY: a live word; waking nobody is harmless.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) };
    woken.max(0) as u32
}

/// Whether the kernel passes a wake-up on when the woken thread ends before it took a *contended* free word: since Linux 6.2, and in
/// the stable series from December 2022 on, which this does not try to tell apart. Elsewhere sleepers look every 100 ms.
pub fn passes_wakeups_on() -> bool {
    const UNKNOWN: u32 = 2;
    static KNOWN: AtomicU32 = AtomicU32::new(UNKNOWN);
    match KNOWN.load(Ordering::Relaxed) {
        UNKNOWN => {
            let passes = release() >= (6, 2);
            KNOWN.store(passes.into(), Ordering::Relaxed);
            passes
        }
        known => known == 1,
    }
}

/// The running kernel's version, (0, 0) where it says nothing that can be read.
fn release() -> (u32, u32) {
    // SAFETY: zeros are a valid utsname, and the call fills it.
    let name = unsafe {
        let mut name: libc::utsname = std::mem::zeroed();
        libc::uname(&mut name);
        name
    };
    let mut numbers = name.release.split(|&byte| !(byte as u8).is_ascii_digit()).map(|digits| {
        digits.iter().fold(0u32, |number, &digit| number.saturating_mul(10).saturating_add(u32::from(digit as u8 - b'0')))
    });
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_tells_its_version() {
        assert!(super::release() >= (5, 4));
    }
}
