//! One descriptor for several, and for a clock: a program that waits for its own descriptors adds this one to them.

use std::os::fd::{AsRawFd, RawFd};

use super::fd::{self, PrivateFd, owned};
use super::last_failure;
use crate::error::Result;

/// Readable while one of its descriptors is, or its clock has ticked.
#[derive(Debug)]
pub struct Gathering {
    epoll: PrivateFd,
    clock: PrivateFd,
}

impl Gathering {
    pub fn new(fds: &[RawFd]) -> Result<Gathering> {
        // SAFETY: fresh descriptors.
        let (epoll, clock) = unsafe {
            let clock = libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK);
            let clock = owned(clock.into(), "timerfd_create")?;
            (owned(libc::epoll_create1(libc::EPOLL_CLOEXEC).into(), "epoll_create1")?, clock)
        };
        for &fd in fds.iter().chain([&clock.as_raw_fd()]) {
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
            // SAFETY: a descriptor of ours and a live event.
            if unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) } != 0 {
                return Err(last_failure("epoll_ctl"));
            }
        }
        Ok(Gathering { epoll: PrivateFd::new(epoll), clock: PrivateFd::new(clock) })
    }

    /// Makes the clock tick every so many milliseconds; 0 stops it.
    pub fn tick_every(&self, millis: u64) {
        let period = libc::timespec { tv_sec: (millis / 1000) as _, tv_nsec: (millis % 1000 * 1_000_000) as _ };
        let spec = libc::itimerspec { it_interval: period, it_value: period };
        // SAFETY: a descriptor of ours and a live struct; valid numbers, so the call cannot fail.
        unsafe { libc::timerfd_settime(self.clock.as_raw_fd(), 0, &spec, std::ptr::null_mut()) };
    }

    /// Whether the clock has ticked since it was last asked.
    pub fn has_ticked(&self) -> bool {
        fd::clear(self.clock.as_raw_fd())
    }
}

impl AsRawFd for Gathering {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}
