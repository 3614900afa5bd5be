//! Child processes: functions that run in a copy of this process, and commands.
//!
//! | file | what it is |
//! |---|---|
//! | [`start`] | making a child: fork, the gate that it waits at, what goes wrong |
//! | [`child`] | what the child does before and after the user's function |
//! | [`children`] | the parent's side: waiting, signalling, reaping; and all children of this process |
//! | [`command`] | starting an external command |
//! | [`communicate`] | a command's input and output, in both directions at once |
//! | [`foreign`] | exceptions that come out of a user's function |
//! | [`handle`] | what the caller holds |
//! | [`exit_info`] | how a process ended |
//! | [`output`] | a command's output in one call |
//! | [`record`] | what the two tell each other in shared memory |
//! | [`tree`] | a command and its descendants as one: the supervisor |
//! | [`streams`] | this process's ends of the pipes to a command |
//! | [`role`] | what this process is to the library: whose child, under which name |
//!
//! # Whose status is it
//! The host may ignore SIGCHLD, set SA_NOCLDWAIT or reap everything with waitpid(-1). So a child stores its exit code in a shared
//! word before it leaves, and of one that the host reaped the kernel is asked through its pidfd. Where nobody can know, the answer
//! is ESTATUSLOST, never a wrong number.
//!
//! # Without pidfds
//! Where the kernel or a filter refuses them, a child holds the only write end of an *exit pipe*, and its number is only used while
//! nobody can have given it to another process: under the handle's lock, with its start time compared.
#![forbid(unsafe_code)]

mod child;
pub mod children;
mod command;
mod communicate;
mod exit_info;
pub mod foreign;
mod handle;
mod output;
mod record;
pub mod role;
pub mod start;
mod streams;
mod tree;

pub use command::{Command, Stdio, call, spawn};
pub use communicate::{Keep, Said};
pub use exit_info::{ExitInfo, Reason};
pub use handle::{Process, wait_any};
pub use output::{Captured, check_output};
pub use start::{Options, fork, start};
pub use streams::Stream;
