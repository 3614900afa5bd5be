//! Messages between processes.
#![forbid(unsafe_code)]

pub mod pipe;
pub mod queue;

pub use pipe::Connection;
pub use queue::Queue;
