//! Locks on open files. They belong to the *open file description*: two handles of one process exclude each other, and what closes the
//! last descriptor of it, a death too, releases. (The older locks of fcntl(2) belong to the process and vanish with any descriptor of the
//! file that it closes.)

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;

use super::fd::owned;
use super::{Deadline, errno, futex, interrupt, last_failure};
use crate::error::Result;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Shared,
    Exclusive,
}

/// Where nobody can wait with a time limit, this is how often to look at least.
const LOOK_MS: u64 = 16;

/// Opens a file for reading and writing, and creates it if it is missing.
pub fn open(path: &CStr) -> Result<OwnedFd> {
    loop {
        // SAFETY: a string; the mode is for a file that is created, and umask(2) applies.
        let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC | libc::O_NOCTTY, 0o666) };
        if fd >= 0 {
            // SAFETY: just opened, and nobody else's.
            return unsafe { owned(fd.into(), "file lock: open") };
        }
        if errno() != libc::EINTR {
            return Err(last_failure(format_args!("file lock: open(\"{}\")", path.to_string_lossy())));
        }
    }
}

/// Locks the whole file. `false`: the time ran out.
pub fn lock(fd: BorrowedFd, mode: Mode, deadline: &Deadline) -> Result<bool> {
    let kind = match mode {
        Mode::Shared => libc::F_RDLCK,
        Mode::Exclusive => libc::F_WRLCK,
    };
    // A wait in the kernel that a handler with SA_RESTART interrupts goes on there, and the check would never be asked.
    let forever = deadline.at().is_none() && !interrupt::is_set();
    let mut pause = 1;
    loop {
        if set(fd, kind, if forever { libc::F_OFD_SETLKW } else { libc::F_OFD_SETLK }) {
            return Ok(true);
        }
        match errno() {
            libc::EINTR => interrupt::ask()?,
            libc::EAGAIN | libc::EACCES if deadline.passed() => return Ok(false),
            libc::EAGAIN | libc::EACCES => {
                // No more than a sleep that ends at the deadline and hears of interrupts.
                futex::wait(&AtomicU32::new(0), 0, &deadline.at_most(pause))?;
                pause = (pause * 2).min(LOOK_MS);
            }
            _ => return Err(last_failure(format_args!("file lock: fcntl({}, F_OFD_SETLK)", fd.as_raw_fd()))),
        }
    }
}

pub fn unlock(fd: BorrowedFd) -> Result<()> {
    if set(fd, libc::F_UNLCK, libc::F_OFD_SETLK) {
        Ok(())
    } else {
        Err(last_failure(format_args!("file lock: fcntl({}, F_OFD_SETLK, F_UNLCK)", fd.as_raw_fd())))
    }
}

fn set(fd: BorrowedFd, kind: libc::c_int, command: libc::c_int) -> bool {
    // SAFETY: zeros are a valid flock: the whole file, and the pid of 0 that these commands want.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    range.l_type = kind as libc::c_short;
    range.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: a live flock.
    unsafe { libc::fcntl(fd.as_raw_fd(), command, &raw mut range) == 0 }
}
