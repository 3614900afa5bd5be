//! Reading and writing a file at an offset, for what lies in a memfd beyond its mapping. Errors are plain numbers: these are called
//! where nothing may be allocated.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::errno::{Result, errno};
use super::fd::owned;
use super::heap::{Buffer, Filled};
use super::memory::file_size_limit;
use super::thread::page_size;

/// The file at a path, for writing; an empty one if there was none.
pub fn open(path: &CStr) -> Result<OwnedFd> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK;
    loop {
        // SAFETY: a string, and a fresh descriptor.
        let opened = unsafe { owned(libc::open(path.as_ptr(), flags, 0o666).into(), "open") };
        match opened {
            Err(error) if error.errno() == libc::EINTR => {}
            opened => return opened.map_err(|error| error.errno()),
        }
    }
}

/// Writes all of `data`. Above RLIMIT_FSIZE this is EFBIG: the kernel would send SIGXFSZ.
pub fn write_at(fd: BorrowedFd, data: &[u8], offset: u64) -> Result<()> {
    if offset.checked_add(data.len() as u64).is_none_or(|end| end > file_size_limit().min(i64::MAX as u64)) {
        return Err(libc::EFBIG);
    }
    write_below_limit(fd, data, offset)
}

/// [`write_at`] for an end that is known to lie below the limit: one system call less.
pub fn write_below_limit(fd: BorrowedFd, mut data: &[u8], mut offset: u64) -> Result<()> {
    while !data.is_empty() {
        // SAFETY: readable bytes of that length.
        let written = unsafe { libc::pwrite(fd.as_raw_fd(), data.as_ptr().cast(), data.len(), offset as libc::off_t) };
        match written {
            1.. => {
                data = &data[written as usize..];
                offset += written as u64;
            }
            0 => return Err(libc::ENOSPC),
            _ if errno() == libc::EINTR => {}
            _ => return Err(errno()),
        }
    }
    Ok(())
}

/// Fills all of `buffer`; `false` where the file ends before that.
pub fn read_at(fd: BorrowedFd, mut buffer: &mut [MaybeUninit<u8>], mut offset: u64) -> Result<bool> {
    while !buffer.is_empty() {
        // SAFETY: writable bytes of that length.
        let read = unsafe { libc::pread(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), offset as libc::off_t) };
        match read {
            1.. => {
                buffer = &mut buffer[read as usize..];
                offset += read as u64;
            }
            0 => return Ok(false),
            _ if errno() == libc::EINTR => {}
            _ => return Err(errno()),
        }
    }
    Ok(true)
}

/// Reads what there is from `offset` on, up to the length of `buffer`; answers how much.
pub fn read_some(fd: BorrowedFd, buffer: &mut [u8], offset: u64) -> Result<usize> {
    loop {
        // SAFETY: writable bytes of that length.
        let read = unsafe { libc::pread(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), offset as libc::off_t) };
        match usize::try_from(read) {
            Ok(read) => return Ok(read),
            Err(_) if errno() == libc::EINTR => {}
            Err(_) => return Err(errno()),
        }
    }
}

/// The bytes `offset..offset + length` in memory of their own; `None` where the file ends before that.
pub fn read_new(fd: BorrowedFd, length: usize, offset: u64) -> Result<Option<Filled>> {
    let mut buffer = Buffer::new(length).map_err(|_| libc::ENOMEM)?;
    let whole = read_at(fd, buffer.as_uninit(), offset)?;
    // SAFETY: `read_at` says that it filled all of it.
    Ok(whole.then(|| unsafe { buffer.assume_filled() }))
}

/// Makes the memory of a range, so that touching a mapping of it cannot raise SIGBUS; what is there stays. Above RLIMIT_FSIZE this is
/// EFBIG: the kernel would send SIGXFSZ.
pub fn make(fd: BorrowedFd, offset: u64, length: u64) -> Result<()> {
    if offset.checked_add(length).is_none_or(|end| end > file_size_limit().min(i64::MAX as u64)) {
        return Err(libc::EFBIG);
    }
    loop {
        // SAFETY: plain numbers.
        if unsafe { libc::fallocate(fd.as_raw_fd(), 0, offset as libc::off_t, length as libc::off_t) } == 0 {
            return Ok(());
        }
        if errno() != libc::EINTR {
            return Err(errno());
        }
    }
}

/// Gives the memory of a range back; the file keeps its length. Best effort: what stays is reused or vanishes with the file.
pub fn punch(fd: BorrowedFd, offset: u64, length: u64) {
    if length == 0 || offset.checked_add(length).is_none_or(|end| end > i64::MAX as u64) {
        return;
    }
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: plain numbers.
    while unsafe { libc::fallocate(fd.as_raw_fd(), mode, offset as libc::off_t, length as libc::off_t) } != 0
        && errno() == libc::EINTR
    {}
}

/// Makes the file shorter: what lies behind `length` is gone. Best effort, for what nobody maps.
pub fn shorten(fd: BorrowedFd, length: u64) {
    // SAFETY: plain numbers.
    while unsafe { libc::ftruncate(fd.as_raw_fd(), length as libc::off_t) } != 0 && errno() == libc::EINTR {}
}

/// The length of the file; 0 where it cannot be asked.
pub fn length(fd: BorrowedFd) -> u64 {
    // SAFETY: a plain number.
    u64::try_from(unsafe { libc::lseek(fd.as_raw_fd(), 0, libc::SEEK_END) }).unwrap_or(0)
}

/// Bytes of memory that the file takes.
#[cfg(test)]
pub fn in_use(fd: BorrowedFd) -> u64 {
    // SAFETY: all zeros is a valid stat, which the call fills.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        libc::fstat(fd.as_raw_fd(), &mut stat);
        stat.st_blocks as u64 * 512
    }
}

/// [`punch`] to the end of the file, and of its last page: of a page that is punched in part nothing is given back.
pub fn punch_from(fd: BorrowedFd, offset: u64) {
    punch(fd, offset, length(fd).saturating_sub(offset).next_multiple_of(page_size() as u64));
}
