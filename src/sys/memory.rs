//! Anonymous files and mappings of them.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use super::fd::owned;
use super::thread::page_size;
use super::{cgroup, errno, failure, last_failure};
use crate::error::{Error, Kind, Result};

/// An anonymous file of `length` bytes, all of them there (not sparse), that can never shrink: touching a mapping of it cannot
/// raise SIGBUS.
pub fn create(name: &CStr, length: usize) -> Result<OwnedFd> {
    check_room(length)?;
    // SAFETY: a NUL-terminated name; a fresh descriptor.
    let fd =
        unsafe { owned(libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING).into(), "memfd_create")? };
    allocate(fd.as_raw_fd(), 0, length)?;
    // SAFETY: our own descriptor. Sealed after it has its length: growing stays possible, for what lies beyond the mapping.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK) } != 0 {
        return Err(last_failure("fcntl(F_ADD_SEALS)"));
    }
    Ok(fd)
}

/// Makes a file of `length` bytes longer without giving it memory: what is new needs `sys::file::make` before it is touched.
pub fn lengthen(fd: BorrowedFd, length: usize, longer: usize) -> Result<()> {
    if longer <= length {
        return Ok(());
    }
    let limit = file_size_limit();
    if longer as u64 > limit {
        return Err(Error::new(Kind::NoSpace, format!("{longer} bytes of shared memory exceed RLIMIT_FSIZE ({limit})")));
    }
    // SAFETY: plain numbers.
    match unsafe { libc::ftruncate(fd.as_raw_fd(), longer as libc::off_t) } {
        0 => Ok(()),
        _ => Err(last_failure("ftruncate")),
    }
}

/// Nobody can change the file any more, whoever has a descriptor of it.
pub fn seal(fd: BorrowedFd) -> Result<()> {
    // SAFETY: our own descriptor.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, SEALED) } {
        0 => Ok(()),
        _ => Err(last_failure("fcntl(F_ADD_SEALS)")),
    }
}

const SEALED: i32 = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

/// The length of a file that somebody else sealed; `None` where it is not memory that nobody can change any more.
pub fn sealed_length(fd: BorrowedFd) -> Option<u64> {
    // SAFETY: plain numbers; all zeros is a valid stat, which the call fills.
    unsafe {
        let seals = libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS);
        if seals < 0 || seals & SEALED != SEALED {
            return None;
        }
        let mut stat: libc::stat = std::mem::zeroed();
        (libc::fstat(fd.as_raw_fd(), &mut stat) == 0).then_some(stat.st_size as u64)
    }
}

/// An anonymous file without a byte in it yet, that can never shrink: [`extend`] makes the bytes.
pub fn create_empty(name: &CStr) -> Result<OwnedFd> {
    create(name, 0)
}

/// Makes the bytes `offset..offset + length` of a file: from now on touching a mapping of them cannot raise SIGBUS.
pub fn extend(fd: BorrowedFd, offset: usize, length: usize) -> Result<()> {
    check_reach(offset, length)?;
    check_room(length)?;
    allocate(fd.as_raw_fd(), offset, length)
}

/// Fails with ENOSPC where a file may not be long enough for the bytes `offset..offset + length`.
pub fn check_reach(offset: usize, length: usize) -> Result<()> {
    let limit = file_size_limit();
    if offset.checked_add(length).is_none_or(|end| end as u64 > limit) {
        let why = format!("{length} bytes of shared memory from {offset} on exceed RLIMIT_FSIZE ({limit})");
        return Err(Error::new(Kind::NoSpace, why));
    }
    Ok(())
}

fn allocate(fd: i32, offset: usize, length: usize) -> Result<()> {
    if length == 0 {
        return Ok(());
    }
    loop {
        // SAFETY: plain numbers.
        if unsafe { libc::fallocate(fd, 0, offset as libc::off_t, length as libc::off_t) } == 0 {
            return Ok(());
        }
        if errno() != libc::EINTR {
            return Err(last_failure(format_args!("fallocate of {length} bytes of shared memory")));
        }
    }
}

/// Fails with ENOSPC where making `length` bytes would be answered with a signal instead: above RLIMIT_FSIZE (SIGXFSZ), and above
/// what the memory control group or the machine has left (the OOM killer: memfds have no limit of their own).
pub fn check_room(length: usize) -> Result<()> {
    let limit = file_size_limit();
    if length as u64 > limit {
        return Err(Error::new(Kind::NoSpace, format!("{length} bytes of shared memory exceed RLIMIT_FSIZE ({limit})")));
    }
    // Small objects come by the thousand, and reading the group's files costs more than making them.
    if length >= 1 << 20 {
        if let Some(left) = cgroup_headroom().filter(|&left| (length as u64) > left) {
            return Err(Error::new(
                Kind::NoSpace,
                format!("{length} bytes of shared memory exceed what the memory control group has left ({left})"),
            ));
        }
        if let Some(left) = machine_headroom().filter(|&left| (length as u64) > left) {
            return Err(Error::new(
                Kind::NoSpace,
                format!("{length} bytes of shared memory exceed what the machine has left ({left})"),
            ));
        }
    }
    Ok(())
}

/// RLIMIT_FSIZE of this process in bytes; u64::MAX without a limit.
pub fn file_size_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: 0 };
    // SAFETY: a writable rlimit; the resource exists.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) };
    limit.rlim_cur
}

/// Bytes that the kernel could still give, by its own estimate.
fn machine_headroom() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kilobytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some((kilobytes("MemAvailable")? + kilobytes("SwapFree").unwrap_or(0)) * 1024)
}

/// Bytes that the memory control group (version 2) of this process and its ancestors still allow; `None` where nothing limits.
fn cgroup_headroom() -> Option<u64> {
    cgroup::least(&cgroup::of_version_2()?, |group| {
        let max: u64 = cgroup::number(group, "memory.max")?;
        Some(max.saturating_sub(cgroup::number(group, "memory.current")?))
    })
}

/// A mapping; unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    address: NonNull<u8>,
    length: usize,
}

// SAFETY: plain memory; what may be done with it from several threads is the business of the types in `shm`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    ReadWrite,
}

impl Mapping {
    /// Maps the first `length` bytes of `fd`, shared.
    pub fn shared(fd: BorrowedFd, length: usize, access: Access) -> Result<Mapping> {
        Mapping::range(fd, 0, length, access)
    }

    /// Maps `length` bytes of `fd` from `offset` (a whole number of pages) on, shared. They may lie beyond its end, as long as nobody
    /// touches them before [`extend`].
    pub fn range(fd: BorrowedFd, offset: u64, length: usize, access: Access) -> Result<Mapping> {
        let protection = match access {
            Access::Read => libc::PROT_READ,
            Access::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        };
        // SAFETY: the kernel chooses the address, so nothing that exists is replaced.
        let address =
            unsafe { libc::mmap(ptr::null_mut(), length, protection, libc::MAP_SHARED, fd.as_raw_fd(), offset as libc::off_t) };
        if address == libc::MAP_FAILED {
            return Err(last_failure(format_args!("mmap of {length} bytes of shared memory")));
        }
        let address = NonNull::new(address.cast()).ok_or_else(|| failure(libc::ENOMEM, "mmap"))?;
        Ok(Mapping { address, length })
    }

    pub fn address(&self) -> NonNull<u8> {
        self.address
    }

    pub fn length(&self) -> usize {
        self.length
    }

    /// Children that are forked from now on do not have it.
    pub fn keep_from_children(&self) -> Result<()> {
        // SAFETY: ours; the advice changes nothing in this process.
        match unsafe { libc::madvise(self.address.as_ptr().cast(), self.length, libc::MADV_DONTFORK) } {
            0 => Ok(()),
            _ => Err(last_failure("madvise(MADV_DONTFORK)")),
        }
    }

    /// Whoever touches it in this process from now on is ended by SIGSEGV. For children, about what they inherited and never use.
    pub fn forbid(&self) {
        // SAFETY: ours; what it takes away is access, not the addresses.
        unsafe { libc::mprotect(self.address.as_ptr().cast(), self.length, libc::PROT_NONE) };
    }

    /// [`Mapping::forbid`] for all but `length` bytes from `offset` on, both a whole number of pages.
    pub fn forbid_all_but(&self, offset: usize, length: usize) {
        let end = offset.saturating_add(length).min(self.length);
        for (from, to) in [(0, offset.min(self.length)), (end, self.length)] {
            // SAFETY: as above; `from..to` lies inside.
            unsafe { libc::mprotect(self.address.add(from).as_ptr().cast(), to - from, libc::PROT_NONE) };
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: ours, and nothing borrows from it any more.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.length) };
    }
}

/// `length` rounded up to whole pages.
pub fn whole_pages(length: usize) -> usize {
    length.next_multiple_of(page_size())
}
