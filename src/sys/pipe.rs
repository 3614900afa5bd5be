//! Reading and writing pipes that do not block, whose other ends belong to programs that we did not write.

use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

use super::errno::{Result, errno};
use super::heap::Growing;
use super::{last_failure, signal};

/// What a read or a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    Bytes(usize),
    /// Not now: nothing there, or no room.
    Nothing,
    /// Nobody writes any more and everything was read; or nobody reads any more.
    End,
}

/// Reads and writes of this end do not block from now on. A pipe's two ends are two open files: the other end stays as it is, and
/// programs rarely expect anything else of theirs.
pub fn set_nonblocking(fd: &impl AsRawFd) -> crate::error::Result<()> {
    // SAFETY: plain numbers.
    let set = unsafe {
        let flags = libc::fcntl(fd.as_raw_fd(), libc::F_GETFL);
        flags >= 0 && libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) == 0
    };
    if set { Ok(()) } else { Err(last_failure("fcntl(F_SETFL) of a pipe")) }
}

/// Reads once, into `room`.
fn read(fd: &impl AsRawFd, room: &mut [MaybeUninit<u8>]) -> Result<Moved> {
    loop {
        // SAFETY: writable for that many bytes.
        match unsafe { libc::read(fd.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) } {
            0 => return Ok(Moved::End),
            read @ 1.. => return Ok(Moved::Bytes(read as usize)),
            _ => match errno() {
                libc::EINTR => {}
                libc::EAGAIN => return Ok(Moved::Nothing),
                errno => return Err(errno),
            },
        }
    }
}

/// Reads once and appends to `buffer`, `most` bytes at most, of which there is one. `buffer` has room for what it answers.
pub fn read_to(fd: &impl AsRawFd, buffer: &mut Growing, most: usize) -> Result<Moved> {
    let room = buffer.room();
    let length = room.len().min(most);
    let moved = read(fd, &mut room[..length])?;
    if let Moved::Bytes(length) = moved {
        // SAFETY: the kernel wrote them.
        unsafe { buffer.grown_by(length) };
    }
    Ok(moved)
}

/// Reads once and forgets what it was.
pub fn discard(fd: &impl AsRawFd) -> Result<Moved> {
    read(fd, &mut [const { MaybeUninit::uninit() }; 16 << 10])
}

/// Writes once. The SIGPIPE that the kernel has for writers without a reader does not reach the program.
pub fn write(fd: &impl AsRawFd, bytes: &[u8]) -> Result<Moved> {
    let held = signal::PipeSignalHeld::new();
    loop {
        // SAFETY: readable for that many bytes.
        match unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) } {
            written @ 0.. => return Ok(Moved::Bytes(written as usize)),
            _ => match errno() {
                libc::EINTR => {}
                libc::EAGAIN => return Ok(Moved::Nothing),
                libc::EPIPE => {
                    held.forget();
                    return Ok(Moved::End);
                }
                errno => return Err(errno),
            },
        }
    }
}

/// How many bytes lie in a pipe.
pub fn length(fd: &impl AsRawFd) -> usize {
    let mut length: libc::c_int = 0;
    // SAFETY: a writable int, which is what this request fills.
    match unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut length) } {
        0 => usize::try_from(length).unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fd;

    #[test]
    fn what_one_writes_another_reads() {
        let (reader, writer) = fd::pipe().unwrap();
        set_nonblocking(&reader).unwrap();
        let mut buffer = Growing::new();
        buffer.reserve(64).unwrap();
        assert_eq!(read_to(&reader, &mut buffer, 64), Ok(Moved::Nothing));
        assert_eq!(write(&writer, b"twelve bytes"), Ok(Moved::Bytes(12)));
        assert_eq!(length(&reader), 12);
        assert_eq!(read_to(&reader, &mut buffer, 6), Ok(Moved::Bytes(6)));
        assert_eq!(discard(&reader), Ok(Moved::Bytes(6)));
        drop(writer);
        assert_eq!(read_to(&reader, &mut buffer, 64), Ok(Moved::End));
        assert_eq!(buffer.as_bytes(), b"twelve");
    }

    #[test]
    fn a_write_to_nobody_is_no_signal() {
        let (reader, writer) = fd::pipe().unwrap();
        drop(reader);
        // The harness ignores SIGPIPE; what counts is that none is left pending.
        let before = signal::PipeSignalHeld::new();
        assert_eq!(write(&writer, b"x"), Ok(Moved::End));
        assert!(!signal::is_pipe_signal_pending());
        drop(before);
    }
}
