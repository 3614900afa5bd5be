//! Waiting for descriptors.

use super::{Deadline, errno, interrupt, last_failure};
use crate::error::Result;

/// Waits until one of `fds` is ready or the deadline; answers a bit for each (bit i: `fds[i]` is readable, hung up or broken).
/// At most 64 descriptors.
pub fn readable(fds: &[i32], deadline: &Deadline) -> Result<u64> {
    wait(fds, libc::POLLIN, deadline)
}

pub fn writable(fd: i32, deadline: &Deadline) -> Result<bool> {
    wait(&[fd], libc::POLLOUT, deadline).map(|ready| ready != 0)
}

fn wait(fds: &[i32], events: i16, deadline: &Deadline) -> Result<u64> {
    let mut polled = [libc::pollfd { fd: -1, events: 0, revents: 0 }; 64];
    let polled = &mut polled[..fds.len()];
    for (poll, &fd) in polled.iter_mut().zip(fds) {
        *poll = libc::pollfd { fd, events, revents: 0 };
    }
    loop {
        // SAFETY: a live array of that many elements.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, deadline.poll_millis()) };
        if ready > 0 {
            return Ok(polled.iter().enumerate().filter(|(_, poll)| poll.revents != 0).fold(0, |bits, (i, _)| bits | 1 << i));
        }
        if ready == 0 {
            // poll's milliseconds are capped: go on if the deadline lies further away.
            if deadline.passed() {
                return Ok(0);
            }
        } else if errno() == libc::EINTR {
            interrupt::ask()?;
        } else {
            return Err(last_failure("poll"));
        }
    }
}
