//! Unix sockets that keep messages apart.

use std::os::fd::{FromRawFd, OwnedFd};

use super::last_failure;
use crate::error::Result;

/// Two connected SEQPACKET sockets, close-on-exec: each send is one message, and the end of the other side is seen.
pub fn seqpacket_pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: an array of two.
    if unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()) } != 0 {
        return Err(last_failure("socketpair"));
    }
    // SAFETY: fresh descriptors.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}
