//! Waiting for descriptors.

use std::os::fd::AsRawFd;

use super::fd::owned;
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
    match wait(&mut polled, deadline) {
        // The only thing that can be wrong with them is their number.
        Err(error) if error.errno() == libc::EINVAL => first_of_many(fds, deadline),
        waited => waited.map(|_| polled.iter().position(|poll| poll.revents != 0)),
    }
}

/// The same for more than poll(2) takes: that is as many as the process may have open, and it may have opened more before, or name one
/// twice. For the price of a descriptor.
#[cold]
fn first_of_many(fds: &[i32], deadline: &Deadline) -> Result<Option<usize>> {
    // SAFETY: a fresh descriptor.
    let all = unsafe { owned(libc::epoll_create1(libc::EPOLL_CLOEXEC).into(), "epoll_create1")? };
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    for (at, &fd) in fds.iter().enumerate() {
        event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: at as u64 };
        // SAFETY: a live event.
        let added = unsafe { libc::epoll_ctl(all.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) } == 0;
        // One that is there already is known by its first place.
        if !added && errno() != libc::EEXIST {
            return Err(last_failure(format_args!("epoll_ctl of fd {fd}")));
        }
    }
    wait(&mut [libc::pollfd { fd: all.as_raw_fd(), events: libc::POLLIN, revents: 0 }], deadline)?;
    // SAFETY: room for one event.
    let ready = unsafe { libc::epoll_wait(all.as_raw_fd(), &raw mut event, 1, 0) };
    Ok((ready == 1).then_some(event.u64 as usize))
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
