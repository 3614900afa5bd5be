//! Descriptors: all of ours are born close-on-exec, and none is 0, 1 or 2.

use std::ffi::{CStr, OsStr};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use super::{errno, failure, last_failure, thread};
use crate::error::{Error, Kind, Result};

/// Takes over the descriptor that a system call returned, or fails with its errno.
///
/// # Safety
/// A non-negative `result` is a descriptor that nobody owns yet.
pub unsafe fn owned(result: libc::c_long, what: &str) -> Result<OwnedFd> {
    if result < 0 {
        return Err(last_failure(what));
    }
    // SAFETY: the caller's promise.
    above_stdio(unsafe { OwnedFd::from_raw_fd(result as RawFd) })
}

/// As [`owned`], for a call that returned two.
///
/// # Safety
/// Both are descriptors that nobody owns yet.
pub unsafe fn owned_pair(fds: [RawFd; 2]) -> Result<(OwnedFd, OwnedFd)> {
    // SAFETY: the caller's promise.
    let (a, b) = unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) };
    Ok((above_stdio(a)?, above_stdio(b)?))
}

/// The same descriptor under a number that is not standard input's, output's or error's. A program that has closed those still has
/// code that prints, and what it prints must not be written into shared memory or to another process.
fn above_stdio(fd: OwnedFd) -> Result<OwnedFd> {
    if fd.as_raw_fd() > 2 { Ok(fd) } else { duplicate(&fd) }
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

/// Takes what an eventfd has counted, so that it is not readable any more; answers whether it was readable.
pub fn clear(fd: RawFd) -> bool {
    let mut count = 0u64;
    // SAFETY: eight writable bytes.
    unsafe { libc::read(fd, (&raw mut count).cast(), 8) == 8 }
}

/// A descriptor that is readable while somebody wants it to be: one that every process inherits, with tokens in a pipe.
///
/// Not an eventfd: other processes can open a pipe by its path in /proc.
#[derive(Debug)]
pub struct Doorbell {
    known: Known,
    slot: &'static AtomicI32,
}

/// The numbers of doorbells, + 1: what a pool's nursery keeps. In a child they are the same. Relaxed: nothing is behind a number, and
/// the nursery, which reads them, got them by fork.
static DOORBELLS: [AtomicI32; 256] = [const { AtomicI32::new(0) }; 256];

/// Whether `fd` is a doorbell; async-signal-safe.
pub fn is_doorbell(fd: RawFd) -> bool {
    DOORBELLS.iter().any(|slot| slot.load(Relaxed) == fd + 1)
}

impl Doorbell {
    pub fn new() -> Result<Doorbell> {
        let (reader, _writer) = pipe()?;
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        // Both ends by one number.
        let both = std::fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path);
        let both = both.map_err(|error| failure(error.raw_os_error().unwrap_or(libc::EIO), "opening a pipe by /proc"))?;
        Doorbell::adopt(above_stdio(both.into())?)
    }

    /// Both ends of another process's doorbell.
    pub fn adopt(fd: OwnedFd) -> Result<Doorbell> {
        let number = fd.as_raw_fd();
        let slot = DOORBELLS.iter().find(|slot| slot.compare_exchange(0, number + 1, Relaxed, Relaxed).is_ok());
        let Some(slot) = slot else { return Err(Error::new(Kind::NoDescriptors, "256 pollable queues are there already")) };
        let Some(known) = Known::by_number(number) else { return Err(last_failure("fstat")) };
        std::mem::forget(fd);
        Ok(Doorbell { known, slot })
    }

    pub fn number(&self) -> RawFd {
        self.known.number()
    }

    /// No other pipe has it as long as this one is open anywhere.
    pub fn inode(&self) -> u64 {
        self.known.identity.1
    }

    /// Whether this process has not closed it.
    pub fn is_there(&self) -> bool {
        self.known.is_there()
    }

    /// Makes it readable. `false`: this process has closed it.
    pub fn ring(&self) -> bool {
        let there = self.known.is_there();
        if there {
            ring(self.known.number());
        }
        there
    }

    /// Makes it silent.
    pub fn clear(&self) {
        // It is one token, and more where somebody died before it could say that it had put one in.
        if self.known.is_there() {
            while clear(self.known.number()) {}
        }
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        self.slot.store(0, Relaxed);
        self.known.close();
    }
}

/// A duplicate, close-on-exec.
pub fn duplicate(fd: &impl AsRawFd) -> Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC makes a fresh descriptor.
    unsafe { owned(libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3).into(), "fcntl(F_DUPFD_CLOEXEC)") }
}

/// A descriptor that only the process that got it closes. In a forked child the number may have been closed and given to another
/// file, and dropping an inherited handle must not touch that.
#[derive(Debug)]
pub struct PrivateFd {
    fd: ManuallyDrop<OwnedFd>,
    epoch: u64,
}

impl PrivateFd {
    pub fn new(fd: OwnedFd) -> PrivateFd {
        PrivateFd { fd: ManuallyDrop::new(fd), epoch: thread::epoch() }
    }
}

impl PrivateFd {
    /// For a new owner, in the process that got it.
    pub fn into_owned(self) -> OwnedFd {
        let mut own = ManuallyDrop::new(self);
        // SAFETY: it is taken once: what held it is not dropped.
        unsafe { ManuallyDrop::take(&mut own.fd) }
    }
}

impl AsRawFd for PrivateFd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for PrivateFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for PrivateFd {
    fn drop(&mut self) {
        if self.epoch == thread::epoch() {
            // SAFETY: not used again.
            unsafe { ManuallyDrop::drop(&mut self.fd) };
        }
    }
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    /// Created or truncated.
    Write,
    /// Created or written to at its end.
    Append,
}

/// Opens a file by its path.
pub fn open(path: &CStr, access: Access) -> Result<OwnedFd> {
    let mut options = std::fs::OpenOptions::new();
    match access {
        Access::Read => options.read(true),
        Access::Write => options.write(true).create(true).truncate(true),
        Access::Append => options.append(true).create(true),
    };
    // A terminal must not become this process's.
    let opened = options.custom_flags(libc::O_NOCTTY).open(OsStr::from_bytes(path.to_bytes()));
    let failed = |error: std::io::Error| {
        failure(error.raw_os_error().unwrap_or(libc::EIO), format_args!("open of \"{}\"", path.to_string_lossy()))
    };
    above_stdio(opened.map_err(failed)?.into())
}

/// A pipe: the end to read and the end to write.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: an array of two.
    if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(last_failure("pipe2"));
    }
    // SAFETY: fresh descriptors.
    unsafe { owned_pair(fds) }
}

/// A descriptor that is known by its number only, and open as long as this process lives.
///
/// # Why it is safe
/// It is for children, for numbers that they own for ever. Where a task has closed one, the calls with it fail.
pub fn inherited(fd: RawFd) -> BorrowedFd<'static> {
    debug_assert!(fd >= 0);
    // SAFETY: see above; a number that is not open is an error of the call that gets it.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// A descriptor known by its number, in a process where somebody may have closed it and the number may be another file's: a child
/// that inherited it, or should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    number: RawFd,
    /// {device, inode}: unique among the sockets and pipes that are open.
    identity: (u64, u64),
}

impl Known {
    /// `None`: nothing is open under that number.
    pub fn by_number(number: RawFd) -> Option<Known> {
        identity(number).map(|identity| Known { number, identity })
    }

    pub fn number(self) -> RawFd {
        self.number
    }

    pub fn identity(self) -> (u64, u64) {
        self.identity
    }

    /// Whether the number still is that file's.
    pub fn is_there(self) -> bool {
        identity(self.number) == Some(self.identity)
    }

    /// Closes it, if it is there; for whoever owns it in this process.
    pub fn close(self) {
        if self.is_there() {
            close_number(self.number);
        }
    }
}

fn identity(fd: RawFd) -> Option<(u64, u64)> {
    // SAFETY: all zeros is a valid stat, which the call fills.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        (libc::fstat(fd, &mut stat) == 0).then_some((stat.st_dev, stat.st_ino))
    }
}

/// Whether something is open under that number.
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: plain numbers.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Closes a descriptor that is known by its number only.
///
/// # Why it is safe
/// No memory depends on a descriptor. The number must be the caller's to close: one that it keeps itself, or that its parent owned.
pub fn close_number(fd: RawFd) {
    // SAFETY: see above.
    unsafe { libc::close(fd) };
}
