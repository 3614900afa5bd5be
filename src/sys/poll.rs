//! Waiting for descriptors.

use super::{Deadline, errno, interrupt, last_failure};
use crate::error::Result;

/// Waits until one of `fds` is ready or the deadline; answers a bit for each (bit i: `fds[i]` is readable, hung up or broken).
/// At most 64 descriptors; -1 stands for none.
pub fn readable(fds: &[i32], deadline: &Deadline) -> Result<u64> {
    let mut polled = [libc::pollfd { fd: -1, events: 0, revents: 0 }; 64];
    let polled = &mut polled[..fds.len()];
    for (poll, &fd) in polled.iter_mut().zip(fds) {
        poll.fd = fd;
        poll.events = libc::POLLIN;
    }
    wait(polled, deadline)?;
    Ok(bits(polled))
}

/// Waits until `fd` is writable or `bell` readable.
pub fn writable_or_rung(fd: i32, bell: i32, deadline: &Deadline) -> Result<()> {
    let for_writing = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    wait(&mut [for_writing, libc::pollfd { fd: bell, events: libc::POLLIN, revents: 0 }], deadline).map(|_| ())
}

/// Waits until one of `reading` can be read or `writing` be written; answers a bit for each of `reading` and then one for `writing`:
/// ready, hung up or broken. -1 stands for none.
pub fn readable_or_writable(reading: &[i32; 3], writing: i32, deadline: &Deadline) -> Result<u64> {
    let mut polled = [libc::pollfd { fd: writing, events: libc::POLLOUT, revents: 0 }; 4];
    for (poll, &fd) in polled.iter_mut().zip(reading) {
        *poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    }
    wait(&mut polled, deadline)?;
    Ok(bits(&polled))
}

fn bits(polled: &[libc::pollfd]) -> u64 {
    polled.iter().enumerate().filter(|(_, poll)| poll.revents != 0).fold(0, |bits, (i, _)| bits | 1 << i)
}

/// As [`readable`] for any number of descriptors: the first that is ready.
pub fn first_readable(fds: &[i32], deadline: &Deadline) -> Result<Option<usize>> {
    let mut polled: Vec<_> = fds.iter().map(|&fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    wait(&mut polled, deadline)?;
    Ok(polled.iter().position(|poll| poll.revents != 0))
}

fn wait(polled: &mut [libc::pollfd], deadline: &Deadline) -> Result<bool> {
    loop {
        // SAFETY: a live array of that many elements.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, deadline.poll_millis()) };
        if ready > 0 {
            return Ok(true);
        }
        if ready == 0 {
            // poll's milliseconds are capped: go on if the deadline lies further away.
            if deadline.passed() {
                return Ok(false);
            }
        } else if errno() == libc::EINTR {
            interrupt::ask()?;
        } else {
            return Err(last_failure("poll"));
        }
    }
}
