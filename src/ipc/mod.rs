//! Messages between processes.
#![forbid(unsafe_code)]

pub mod queue;

pub use queue::Queue;
