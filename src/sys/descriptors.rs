//! Closing what a child should not have. Async-signal-safe: no allocation, no lock. By raw system calls, because a command's child
//! shares its parent's memory: libc's would act on a cancellation of the waiting thread.

use super::fd::{is_doorbell, is_open};
use super::process::{close_raw as close_number, open_raw, write_path};
use super::{errno, shared_file};

/// What [`close_all_except`] keeps besides its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    Listed,
    /// Also shared objects: memfds named "tine:…", files of ours in /dev/shm, and the descriptors of pollable queues.
    ListedAndSharedMemory,
}

/// Closes every descriptor of this process that is not in `list` (sorted, none negative).
pub fn close_all_except(list: &[i32], keep: Keep) {
    debug_assert!(list.is_sorted());
    if keep == Keep::Listed && close_gaps(list) {
        return;
    }
    let closes = |fd: i32| {
        list.binary_search(&fd).is_err() && !(keep == Keep::ListedAndSharedMemory && (is_doorbell(fd) || is_shared_memory(fd)))
    };
    if !for_each_open(|fd| {
        if closes(fd) {
            close_number(fd);
        }
    }) {
        // No /proc: every number that can be one.
        for fd in 0..highest_possible() {
            if is_open(fd) && closes(fd) {
                close_number(fd);
            }
        }
    }
}

/// How many descriptors this process has open; `None` without /proc.
pub fn count_open() -> Option<usize> {
    let mut count = 0;
    for_each_open(|_| count += 1).then_some(count)
}

/// Whether `fd` is a memfd whose name begins with "tine:", or a file in /dev/shm that begins with our mark (its name may be gone).
fn is_shared_memory(fd: i32) -> bool {
    const PREFIX: &[u8] = b"/memfd:tine:";
    const FOLDER: &[u8] = shared_file::FOLDER.as_bytes();
    let mut path = [0u8; 32];
    let path = write_path(&mut path, format_args!("/proc/self/fd/{fd}")).unwrap_or(c"");
    let mut link = [0u8; PREFIX.len()];
    // SAFETY: a NUL-terminated path and a buffer of that length; a longer link is cut off, which is all that is needed.
    let length = unsafe { libc::readlink(path.as_ptr(), link.as_mut_ptr().cast(), link.len()) };
    if length < 0 {
        // No /proc: any sealable file is kept rather than an object lost.
        // SAFETY: plain numbers.
        return unsafe { libc::fcntl(fd, libc::F_GET_SEALS) } >= 0;
    }
    link == PREFIX || (link[..FOLDER.len()] == *FOLDER && link[FOLDER.len()] == b'/' && is_marked(fd))
}

fn is_marked(fd: i32) -> bool {
    let mut mark = [0u8; shared_file::MARK.len()];
    // SAFETY: writable bytes of that length.
    let read = unsafe { libc::pread(fd, mark.as_mut_ptr().cast(), mark.len(), 0) };
    read == mark.len() as isize && mark == shared_file::MARK
}

/// Calls `body` for each open descriptor but the one it reads the directory with. `body` may close what it is given. `false`:
/// /proc/self/fd cannot be read.
fn for_each_open(mut body: impl FnMut(i32)) -> bool {
    let directory = open_raw(c"/proc/self/fd", libc::O_DIRECTORY);
    if directory < 0 {
        return false;
    }
    /// Aligned for the kernel's records.
    #[repr(align(8))]
    struct Records([u8; 2048]);
    /// ino, off, reclen: the name follows after one byte of type.
    const RECORD_LENGTH_AT: usize = 16;
    const NAME_AT: usize = 19;
    let mut records = Records([0; 2048]);
    let complete = loop {
        // SAFETY: a writable buffer of that length.
        let length = unsafe { libc::syscall(libc::SYS_getdents64, directory, records.0.as_mut_ptr(), records.0.len()) };
        let Ok(length) = usize::try_from(length) else {
            if errno() == libc::EINTR {
                continue;
            }
            break false;
        };
        if length == 0 {
            break true;
        }
        let mut rest = &records.0[..length];
        while rest.len() > NAME_AT {
            let record = usize::from(u16::from_ne_bytes([rest[RECORD_LENGTH_AT], rest[RECORD_LENGTH_AT + 1]]));
            if record <= NAME_AT || record > rest.len() {
                break;
            }
            if let Some(fd) = parse(&rest[NAME_AT..record]).filter(|&fd| fd != directory) {
                body(fd);
            }
            rest = &rest[record..];
        }
    };
    close_number(directory);
    complete
}

/// A descriptor's number; `None` for "." and "..".
fn parse(name: &[u8]) -> Option<i32> {
    let digits = name.split(|&byte| byte == 0).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// By close_range(2) (Linux 5.9); `false` where it is refused, having closed nothing or what should be closed anyway.
fn close_gaps(list: &[i32]) -> bool {
    let range = |first: u32, last: u32| {
        // SAFETY: plain numbers; whoever calls knows that nothing in this process uses these descriptors any more.
        first > last || unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0
    };
    let mut first = 0u32;
    for fd in list.iter().map(|&fd| fd.unsigned_abs()) {
        if fd > first && !range(first, fd - 1) {
            return false;
        }
        first = first.max(fd + 1);
    }
    range(first, u32::MAX)
}

fn highest_possible() -> i32 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a writable rlimit.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    // Descriptors made before the limit was lowered may lie above it.
    i32::try_from(limit.rlim_max).unwrap_or(1 << 20).min(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn shared_memory_is_known_by_its_name() {
        let ours = super::super::memory::create(c"tine:test", 4096).unwrap();
        let other = super::super::memory::create(c"other", 4096).unwrap();
        assert!(is_shared_memory(ours.as_raw_fd()));
        assert!(!is_shared_memory(other.as_raw_fd()));
        assert!(!is_shared_memory(0));
    }

    #[test]
    fn open_descriptors_are_found() {
        let fd = super::super::fd::eventfd().unwrap();
        let mut seen = false;
        assert!(for_each_open(|open| seen |= open == fd.as_raw_fd()));
        assert!(seen);
    }
}
