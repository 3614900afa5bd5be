//! A lock on a file, for programs that share nothing but a path.
//!
//! The kernel keeps it ([`crate::sys::file_lock`]), so a death releases it. A child that is forked while it is held shares the kernel's
//! lock with its parent; its handle does nothing, and lets go of that share when it is freed.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::error::{Error, Kind, Result};
pub use crate::sys::file_lock::Mode;
use crate::sys::{Deadline, file_lock, thread};

const FREE: u32 = 0;
/// A thread is acquiring or releasing.
const BUSY: u32 = 1;
const HELD: u32 = 2;

#[derive(Debug)]
pub struct FileLock {
    file: OwnedFd,
    /// The process that made it.
    epoch: u64,
    /// Of this handle.
    state: AtomicU32,
}

impl FileLock {
    /// Creates the file if it is missing.
    pub fn new(path: &CStr) -> Result<FileLock> {
        let file = file_lock::open(path)?;
        Ok(FileLock { file, epoch: thread::epoch(), state: AtomicU32::new(FREE) })
    }

    pub fn acquire(&self, mode: Mode, deadline: &Deadline) -> Result<()> {
        self.check()?;
        // The kernel would change the mode of what this handle has already.
        if self.state.compare_exchange(FREE, BUSY, Acquire, Relaxed).is_err() {
            return Err(Error::new(Kind::Busy, "file lock: this handle holds it already, or is acquiring it on another thread"));
        }
        let result = file_lock::lock(self.file.as_fd(), mode, deadline);
        self.state.store(if matches!(result, Ok(true)) { HELD } else { FREE }, Release);
        match result? {
            true => Ok(()),
            false => Err(Error::new(Kind::TimedOut, "file lock: others held it all the time")),
        }
    }

    pub fn release(&self) -> Result<()> {
        self.check()?;
        if self.state.compare_exchange(HELD, BUSY, Acquire, Relaxed).is_err() {
            return Err(Error::new(Kind::NotOwner, "file lock: this handle does not hold it"));
        }
        let result = file_lock::unlock(self.file.as_fd());
        self.state.store(if result.is_ok() { FREE } else { HELD }, Release);
        result
    }

    fn check(&self) -> Result<()> {
        if self.epoch == thread::epoch() {
            Ok(())
        } else {
            Err(Error::new(Kind::Forked, "file lock: the handle is a parent's; a child opens the file itself"))
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Children that were forked meanwhile may share the kernel's lock: closing it would not be enough. It is a child's last.
        if self.state.load(Acquire) == HELD {
            let _ = self.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeout::Timeout;
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn handles_exclude_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = CString::new(folder.path().join("lock").as_os_str().as_bytes()).unwrap();
        let (one, two) = (FileLock::new(&path).unwrap(), FileLock::new(&path).unwrap());
        let now = Deadline::new(Timeout::Try);
        one.acquire(Mode::Shared, &now).unwrap();
        two.acquire(Mode::Shared, &now).unwrap();
        two.release().unwrap();
        assert_eq!(two.acquire(Mode::Exclusive, &now).unwrap_err().kind(), Kind::TimedOut);
        assert_eq!(two.acquire(Mode::Exclusive, &Deadline::new(Timeout::Millis(5))).unwrap_err().kind(), Kind::TimedOut);
        assert_eq!(two.release().unwrap_err().kind(), Kind::NotOwner);
        assert_eq!(one.acquire(Mode::Exclusive, &now).unwrap_err().kind(), Kind::Busy);
        std::thread::scope(|scope| {
            scope.spawn(|| two.acquire(Mode::Exclusive, &Deadline::new(Timeout::Forever)).unwrap());
            one.release().unwrap();
        });
        drop(two);
        one.acquire(Mode::Exclusive, &now).unwrap();
        assert_eq!(FileLock::new(c"/nowhere/at/all").unwrap_err().kind(), Kind::NotFound);
    }
}
