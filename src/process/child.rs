//! What a started child does before and after the user's function. It never returns: the frames below are the parent's.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use super::children;
use super::foreign;
use super::record::{Record, exit_unstarted};
use super::role::{self, Role};
use crate::sys::fd::Known;
use crate::sys::per_process::PerProcess;
use crate::sys::signal::Blocked;
use crate::sys::{Deadline, exit, fork, interrupt, poll, process, stdio};
use crate::timeout::Timeout;

/// The code of a child whose function panicked, and of one that a foreign exception came out of.
const PANICKED: i32 = 101;
const EXCEPTION: i32 = 1;
/// What the watcher of a daemon child needs: it calls poll.
const WATCHER_STACK: usize = 64 << 10;
/// How often it looks for its parent without pidfds, and how often beside one.
const LOOK_MS: u64 = 200;
const LOOK_BESIDE_MS: u64 = 2_000;

/// What the parent prepared for its child.
pub(super) struct Setup {
    pub(super) record: Record,
    pub(super) name: CString,
    pub(super) daemon: bool,
    pub(super) host_pid: i32,
    /// The parent's descriptor of itself; -1 without pidfds.
    pub(super) host_fd: i32,
    /// The write end of the child's exit pipe, without pidfds.
    pub(super) exit_pipe: Option<Known>,
    /// Descriptors that it must not have.
    pub(super) not_its: Vec<Known>,
    /// All signals stay blocked: it runs nothing of the user's.
    pub(super) deaf: bool,
}

/// The record of this process, if it is a started child.
static RECORD: PerProcess<Option<Record>> = PerProcess::new();

/// The child's life. All signals are blocked until the user's function begins.
pub(super) fn run(setup: Setup, blocked: Blocked, body: impl FnOnce() -> i32) -> ! {
    stdio::purge_in_child();
    let Setup { record, name, daemon, host_pid, host_fd, exit_pipe, not_its, deaf } = setup;
    // Not freed either: this process has its memory to its end.
    for fd in &not_its {
        fd.close();
    }
    let parent = Parent { pid: host_pid, fd: host_fd };
    if !record.wait_at_gate(|| parent.is_alive()) {
        exit_unstarted();
    }
    // The thread's check is its parent's.
    interrupt::clear();
    // Before anything of the user's can call exit(3): libc runs the latest handler first, and this one never returns to the parent's.
    exit::at_exit_with_code(|code| leave(code));
    RECORD.with(|own| *own = Some(record.clone()));
    role::set(Role { host_pid, host_fd, name: Box::leak(name.into_boxed_c_str()), exit_pipe });
    if daemon {
        // The new thread inherits the mask: all signals blocked.
        let watcher = thread::Builder::new().name("tine-watch".into()).stack_size(WATCHER_STACK).spawn(move || parent.watch());
        record.tell_ready(watcher.is_ok());
        if watcher.is_err() {
            exit_unstarted();
        }
    }
    match deaf {
        true => std::mem::forget(blocked),
        false => drop(blocked),
    }
    leave(call(body))
}

/// The value of the user's function, or the code for how else it ended.
fn call(body: impl FnOnce() -> i32) -> i32 {
    let result = catch_unwind(AssertUnwindSafe(|| foreign::guard(|| leave(EXCEPTION), body)));
    result.unwrap_or_else(|payload| {
        // Dropping it may panic again.
        std::mem::forget(payload);
        PANICKED
    })
}

/// The end of a started child, also when it calls exit(3): its own children as at the end of any main, its output flushed, its code
/// written down. No handler of the parent's runs.
///
/// A process that the child forked without the library inherits this as its exit handler; it has no record and leaves like this, too.
fn leave(code: i32) -> ! {
    children::at_exit();
    stdio::flush_at_end();
    if let Some(record) = RECORD.with(|record| record.clone()) {
        record.leave(code);
    }
    fork::exit_now(code & 0xff)
}

/// The parent, as its child sees it.
struct Parent {
    pid: i32,
    fd: i32,
}

impl Parent {
    fn is_alive(&self) -> bool {
        process::parent_lives(self.pid, self.fd)
    }

    /// Ends this process when the host has ended. It does not matter which thread of the host started it.
    ///
    /// The descriptor only says when to look: the user's code may close what it does not know, and use the number again.
    fn watch(&self) {
        let interval = if self.fd >= 0 { LOOK_BESIDE_MS } else { LOOK_MS };
        while self.is_alive() {
            let called = poll::readable(&[self.fd], &Deadline::new(Timeout::Millis(interval)));
            if !matches!(called, Ok(0)) && self.is_alive() {
                // Not the host's end: another file, or none.
                thread::sleep(Duration::from_millis(LOOK_MS));
            }
        }
        fork::kill_self()
    }
}
