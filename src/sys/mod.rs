//! The operating system and nothing else: the only folder that names libc.
//!
//! Contract of the layer: one family of system calls a file; EINTR is handled here unless a function says otherwise; a failure
//! carries the call and the arguments that matter; nothing here keeps state but [`thread`] and [`per_process`].
#![allow(unsafe_code, reason = "system calls and the memory that the kernel writes")]

pub mod cgroup;
pub mod cpu;
pub mod deadline;
pub mod descriptors;
pub mod elf;
pub mod errno;
pub mod exit;
pub mod fd;
pub mod file;
pub mod file_lock;
pub mod fork;
pub mod fork_gate;
pub mod futex;
pub mod gathering;
pub mod heap;
pub mod interrupt;
pub mod lasting;
pub mod memory;
pub mod nursery;
pub mod per_process;
pub mod pidfd;
pub mod pipe;
pub mod poll;
pub mod process;
pub mod restrictions;
pub mod shared_file;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod stderr;
pub mod stdio;
pub mod thread;
pub mod tsan;
pub mod wait;
pub mod withheld;

pub use deadline::{Deadline, now};
pub use errno::{errno, failure, last_failure};
