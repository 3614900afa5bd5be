//! Standard error of a pool's worker, written to a file of its own and from there to where it should have gone. Async-signal-safe and
//! without allocation, except for [`file`].

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::errno::errno;
use super::fd::owned;
use super::last_failure;
use super::signal::PipeSignalHeld;
use crate::error::Result;

/// A file that everybody who has it appends to. Nobody maps it: it may become shorter.
pub fn file() -> Result<OwnedFd> {
    // SAFETY: a NUL-terminated name; a fresh descriptor.
    let fd = unsafe { owned(libc::memfd_create(c"tine-pool:stderr".as_ptr(), libc::MFD_CLOEXEC).into(), "memfd_create")? };
    // SAFETY: plain numbers; the flag is the open file's, which whoever inherits the descriptor shares.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_APPEND) } {
        0 => Ok(fd),
        _ => Err(last_failure("fcntl(O_APPEND)")),
    }
}

/// Descriptor 2 becomes `file`. Answers where it went before; -1: nowhere.
pub fn redirect(file: RawFd) -> RawFd {
    // SAFETY: plain numbers; 2 is this process's own.
    unsafe {
        let before = libc::fcntl(2, libc::F_DUPFD_CLOEXEC, 3);
        libc::dup2(file, 2);
        before
    }
}

/// Writes everything, and waits where that takes time. `false`: it cannot be written. No SIGPIPE comes of it.
pub fn write_all(fd: RawFd, bytes: &[u8]) -> bool {
    let held = PipeSignalHeld::new();
    let written = write_blocked(fd, bytes);
    if !written && errno() == libc::EPIPE {
        held.forget();
    }
    written
}

fn write_blocked(fd: RawFd, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        // SAFETY: readable bytes of that length.
        let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(written) {
            Ok(written) => bytes = &bytes[written..],
            Err(_) if errno() == libc::EINTR => {}
            Err(_) if errno() == libc::EAGAIN => {
                let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
                // SAFETY: one live pollfd.
                unsafe { libc::poll(&mut poll, 1, -1) };
            }
            Err(_) => return false,
        }
    }
    true
}

/// Where this process's standard error goes, for who must not wait for it.
#[derive(Clone, Copy, Debug)]
pub enum Sink {
    /// An open file of its own, non-blocking: the flag belongs to the open file, and that of descriptor 2 is also the host's.
    Own(RawFd),
    Socket,
    /// A file on a disk, where writing does not wait for anybody.
    Plain,
    Nowhere,
}

impl Sink {
    pub fn of_this_process() -> Sink {
        // SAFETY: zeros are a valid stat, which the call fills; a NUL-terminated path.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            if libc::fstat(2, &mut stat) != 0 {
                return Sink::Nowhere;
            }
            match stat.st_mode & libc::S_IFMT {
                libc::S_IFREG => Sink::Plain,
                libc::S_IFSOCK => Sink::Socket,
                _ => {
                    let flags = libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
                    match libc::open(c"/proc/self/fd/2".as_ptr(), flags) {
                        -1 => Sink::Nowhere,
                        fd => Sink::Own(fd),
                    }
                }
            }
        }
    }

    /// Writes as much as can be written at once; answers how much.
    pub fn write(self, bytes: &[u8]) -> usize {
        // SAFETY: readable bytes of that length.
        let written = unsafe {
            match self {
                Sink::Own(fd) => libc::write(fd, bytes.as_ptr().cast(), bytes.len()),
                Sink::Plain => libc::write(2, bytes.as_ptr().cast(), bytes.len()),
                Sink::Socket => libc::send(2, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL),
                Sink::Nowhere => 0,
            }
        };
        usize::try_from(written).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{fd, file as files};
    use std::os::fd::AsFd;

    #[test]
    fn what_is_written_goes_behind_what_was() {
        let file = file().unwrap();
        let other = fd::duplicate(&file).unwrap();
        assert!(write_all(file.as_raw_fd(), b"one") && write_all(other.as_raw_fd(), b"two") && !write_all(-1, b"no"));
        let mut text = [0; 10];
        assert_eq!(files::read_some(file.as_fd(), &mut text, 0).unwrap(), 6);
        assert_eq!(&text[..6], b"onetwo");
    }
}
