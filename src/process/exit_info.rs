//! How a process of the library ended: a started child, or a pool's worker.
#![forbid(unsafe_code)]

use crate::sys::wait::{Ending, Usage};

/// Numbers are part of the ABI: see `ffi::process`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Exit,
    Signal,
    /// The library ended it: its task's running time was over.
    Timeout,
    /// The library ended it: its task was cancelled.
    Canceled,
    /// The library ended it: it had more memory than it may.
    Memory,
    /// A signal stopped it, nothing made it go on, and the library killed it.
    Stopped,
    /// The library ended it, at the caller's wish.
    Terminated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitInfo {
    /// `None`: nobody can know.
    pub ending: Option<Ending>,
    pub reason: Option<Reason>,
    /// `None`: unknown, and so is a `peak_rss_bytes` of 0.
    pub usage: Option<Usage>,
}
