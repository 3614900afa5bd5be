//! Unix sockets that keep messages apart (SOCK_SEQPACKET): each send is one message, whole or not at all, that may carry a descriptor;
//! and the end of the other side is seen. No call here waits, and none raises SIGPIPE.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::fd::owned_pair;
use super::{errno, last_failure};
use crate::error::{Error, Result};

/// Two connected sockets, close-on-exec.
pub fn seqpacket_pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: an array of two.
    if unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()) } != 0 {
        return Err(last_failure("socketpair"));
    }
    // SAFETY: fresh descriptors.
    unsafe { owned_pair(fds) }
}

/// Takes over a descriptor that somebody else made, if it is such a socket; makes it close-on-exec. On failure it stays theirs.
pub fn adopt(fd: RawFd) -> Result<OwnedFd> {
    for (option, expected) in [(libc::SO_DOMAIN, libc::AF_UNIX), (libc::SO_TYPE, libc::SOCK_SEQPACKET)] {
        let mut value = 0i32;
        let mut length = size_of::<i32>() as libc::socklen_t;
        // SAFETY: writable out-values of that length.
        let failed = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, option, (&raw mut value).cast(), &mut length) } != 0;
        if failed || value != expected {
            let why = match failed && errno() == libc::EBADF {
                true => "is not an open descriptor",
                false => "is not an end of a pipe (a Unix socket that keeps messages apart)",
            };
            return Err(Error::invalid(format!("fd: {fd} {why}")));
        }
    }
    // SAFETY: zeros are a valid address, and the call fills as much of it as there is room for.
    let connected = unsafe {
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        let mut length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        libc::getpeername(fd, (&raw mut address).cast(), &mut length) == 0
    };
    if !connected {
        return Err(Error::invalid(format!("fd: {fd} is not an end of a pipe (it is not connected)")));
    }
    // SAFETY: plain numbers; then the caller gives it up.
    unsafe {
        if libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) != 0 {
            return Err(last_failure("fcntl(F_SETFD)"));
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Why nothing was sent or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not now: no room, or nothing there.
    WouldBlock,
    /// The other end is gone.
    Gone,
    /// More than the socket's buffer holds.
    TooLong,
    Failed(i32),
}

/// Sends `head` and `body` as one message, with a descriptor if `carried` is one.
pub fn send(socket: &impl AsRawFd, head: &[u8], body: &[u8], carried: Option<RawFd>) -> std::result::Result<(), Refused> {
    let mut parts = [part(head.as_ptr(), head.len()), part(body.as_ptr(), body.len())];
    let mut control = Control::new();
    // SAFETY: all zeros is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len() as _;
    if let Some(fd) = carried {
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: arithmetic; and the buffer has room for one header with one descriptor.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(size_of::<i32>() as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<i32>() as u32) as _;
            libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd);
        }
    }
    loop {
        // SAFETY: everything that `message` points to is alive.
        if unsafe { libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) } >= 0 {
            return Ok(());
        }
        return Err(match errno() {
            libc::EINTR => continue,
            libc::EAGAIN => Refused::WouldBlock,
            // ECONNRESET: the other end was closed with messages unread; told once, then it is EPIPE.
            libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN | libc::ECONNREFUSED => Refused::Gone,
            libc::EMSGSIZE => Refused::TooLong,
            libc::ENOBUFS => Refused::Failed(libc::ENOMEM),
            // Too many descriptors under way: they come back as the messages are taken.
            libc::ETOOMANYREFS => Refused::Failed(libc::EAGAIN),
            errno => Refused::Failed(errno),
        });
    }
}

/// A message that was looked at or taken.
#[derive(Debug)]
pub struct Received {
    /// The length of the whole message, also of what did not fit. 0 is the end, or an empty message, which nobody of ours sends.
    pub length: usize,
    /// The first descriptor that it carried, if descriptors were asked for; others are closed.
    pub carried: Option<OwnedFd>,
}

/// Whether a message stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    Look,
    /// Looks, and gets a copy of what it carries.
    LookAndCopy,
    /// What does not fit and what it carries is dropped.
    Take,
    /// With what it carries.
    TakeAll,
}

/// Receives one message into `head` and `body`, in this order.
pub fn receive(
    socket: &impl AsRawFd,
    head: &mut [u8],
    body: &mut [MaybeUninit<u8>],
    take: Take,
) -> std::result::Result<Received, Refused> {
    let mut parts = [part(head.as_ptr(), head.len()), part(body.as_ptr().cast(), body.len())];
    let mut control = Control::new();
    let flags = match take {
        Take::Look | Take::LookAndCopy => libc::MSG_PEEK,
        Take::Take | Take::TakeAll => 0,
    };
    // After an error that was left by the other end's close, what it sent before that is still there.
    let mut reset = false;
    loop {
        // SAFETY: all zeros is a valid msghdr.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = parts.as_mut_ptr();
        message.msg_iovlen = parts.len() as _;
        let asked = matches!(take, Take::LookAndCopy | Take::TakeAll);
        if asked {
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = size_of::<Control>() as _;
        }
        let flags = flags | libc::MSG_DONTWAIT | libc::MSG_TRUNC | libc::MSG_CMSG_CLOEXEC;
        // SAFETY: everything that `message` points to is alive and writable.
        let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, flags) };
        if let Ok(length) = usize::try_from(length) {
            // SAFETY: filled by the kernel just now.
            let carried = unsafe { take_descriptors(&message) };
            return match carried {
                // The kernel could not install it.
                None if asked && message.msg_flags & libc::MSG_CTRUNC != 0 => Err(Refused::Failed(libc::EMFILE)),
                carried => Ok(Received { length, carried }),
            };
        }
        return Err(match errno() {
            libc::EINTR => continue,
            libc::ECONNRESET if !reset => {
                reset = true;
                continue;
            }
            libc::EAGAIN => Refused::WouldBlock,
            libc::ECONNRESET | libc::ENOTCONN => Refused::Gone,
            errno => Refused::Failed(errno),
        });
    }
}

/// Room for what a message of ours carries, and for the credentials that a foreign maker of the socket may have asked for.
#[repr(align(8))]
struct Control([u8; 128]);

impl Control {
    fn new() -> Control {
        Control([0; 128])
    }
}

/// The first descriptor; the others are closed.
///
/// # Safety
/// `message` was filled by recvmsg, and nobody took its descriptors yet.
unsafe fn take_descriptors(message: &libc::msghdr) -> Option<OwnedFd> {
    let mut first = None;
    // SAFETY: the kernel wrote well-formed headers into the control buffer.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let length = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                for index in 0..length / size_of::<i32>() {
                    let fd = libc::CMSG_DATA(header).cast::<i32>().add(index).read_unaligned();
                    let fd = OwnedFd::from_raw_fd(fd);
                    first.get_or_insert(fd);
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    first
}

fn part(start: *const u8, length: usize) -> libc::iovec {
    libc::iovec { iov_base: if length == 0 { ptr::null_mut() } else { start.cast_mut().cast() }, iov_len: length }
}

/// Nothing more can be sent: the other end sees that behind what was sent before. It is the socket that knows this, not one copy of it.
pub fn end_sending(socket: &impl AsRawFd) {
    // SAFETY: plain numbers. It fails where the other end is gone.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) };
}

/// Whether every copy of the other end is closed, or it sends no more. What it sent before may still be there.
pub fn is_hung_up(socket: &impl AsRawFd) -> bool {
    events(socket) & (libc::POLLRDHUP | libc::POLLHUP) != 0
}

/// Whether every copy of the other end is closed.
pub fn is_closed(socket: &impl AsRawFd) -> bool {
    events(socket) & libc::POLLHUP != 0
}

fn events(socket: &impl AsRawFd) -> libc::c_short {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one live pollfd.
    if unsafe { libc::poll(&mut poll, 1, 0) } == 1 { poll.revents } else { 0 }
}
