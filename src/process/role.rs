//! What this process is to the library. A process that the library did not make has no role, and neither has a child that it forks.
#![forbid(unsafe_code)]

use std::ffi::CStr;

use crate::sys::fd::Known;
use crate::sys::per_process::PerProcess;
use crate::sys::process::parent_pid;

/// Set once, by a started child or a pool's worker, before the user's code runs.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// The process that started this one, or made the pool.
    pub host_pid: i32,
    /// Becomes readable when that process is gone; open as long as this process lives. -1 without pidfds.
    pub host_fd: i32,
    pub name: &'static CStr,
    /// The write end of this process's exit pipe (see `process`); `None` with pidfds.
    pub exit_pipe: Option<Known>,
}

static ROLE: PerProcess<Option<Role>> = PerProcess::new();

pub fn set(role: Role) {
    ROLE.with(|current| *current = Some(role));
}

pub fn get() -> Option<Role> {
    ROLE.with(|role| *role)
}

/// The process that this one works for; without a role its parent.
pub fn host_pid() -> i32 {
    get().map_or_else(parent_pid, |role| role.host_pid)
}

/// Readable once the host is gone; -1 where there is none.
pub fn host_fd() -> i32 {
    get().map_or(-1, |role| role.host_fd)
}

/// The name that this process was started under. Python's word for a process that was not started by the library.
pub fn name() -> &'static CStr {
    get().map_or(c"MainProcess", |role| role.name)
}
