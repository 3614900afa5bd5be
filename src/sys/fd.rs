//! Descriptors: all of ours are born close-on-exec.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::{errno, last_failure};
use crate::error::Result;

/// Takes over the descriptor that a system call returned, or fails with its errno.
///
/// # Safety
/// A non-negative `result` is a descriptor that nobody owns yet.
pub unsafe fn owned(result: libc::c_long, what: &str) -> Result<OwnedFd> {
    if result < 0 {
        return Err(last_failure(what));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { OwnedFd::from_raw_fd(result as RawFd) })
}

/// A counter that poll(2) can wait for, non-blocking.
pub fn eventfd() -> Result<OwnedFd> {
    // SAFETY: a fresh descriptor.
    unsafe { owned(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK).into(), "eventfd") }
}

/// Makes an eventfd readable. A full counter is readable already, and nothing else can go wrong.
pub fn ring(fd: RawFd) {
    let one = 1u64;
    // SAFETY: eight readable bytes.
    while unsafe { libc::write(fd, (&raw const one).cast(), 8) } < 0 && errno() == libc::EINTR {}
}

/// Makes an eventfd silent; answers whether it was readable.
pub fn hush(fd: RawFd) -> bool {
    let mut count = 0u64;
    // SAFETY: eight writable bytes.
    unsafe { libc::read(fd, (&raw mut count).cast(), 8) == 8 }
}

/// A duplicate, close-on-exec.
pub fn duplicate(fd: &impl AsRawFd) -> Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC makes a fresh descriptor.
    unsafe { owned(libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3).into(), "fcntl(F_DUPFD_CLOEXEC)") }
}
