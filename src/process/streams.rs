//! This process's ends of the pipes to a command.
#![forbid(unsafe_code)]

use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::sys::fd::PrivateFd;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdin,
    Stdout,
    Stderr,
}

impl fmt::Display for Stream {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str(match self {
            Stream::Stdin => "stdin",
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        })
    }
}

/// One slot for each of the three; empty where there is no pipe, and once its end was taken or closed.
#[derive(Debug)]
pub(super) struct Streams(Mutex<[Option<PrivateFd>; 3]>);

impl Streams {
    pub(super) fn none() -> Streams {
        Streams::new([None, None, None])
    }

    pub(super) fn new(ends: [Option<OwnedFd>; 3]) -> Streams {
        Streams(Mutex::new(ends.map(|end| end.map(PrivateFd::new))))
    }

    /// Nothing panics under it, so it is never poisoned.
    fn lock(&self) -> MutexGuard<'_, [Option<PrivateFd>; 3]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// -1 where there is none.
    pub(super) fn fd(&self, stream: Stream) -> i32 {
        self.lock()[stream as usize].as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    pub(super) fn take(&self, stream: Stream) -> Option<OwnedFd> {
        self.lock()[stream as usize].take().map(PrivateFd::into_owned)
    }
}
