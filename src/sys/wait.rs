//! Waiting for children: what became of them, and what they used. Nothing here waits for a child that it was not told of, except
//! [`Child::Any`], which is for processes that have only our own children (a pool's nursery).
//!
//! Errors are plain errnos: the nursery must not allocate.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::errno::{Result, errno};

/// Which child.
#[derive(Clone, Copy, Debug)]
pub enum Child<'a> {
    Pidfd(BorrowedFd<'a>),
    /// Only while it cannot have been reaped.
    Pid(i32),
    Any,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Exited(i32),
    Signaled { signal: i32, core: bool },
}

impl Ending {
    /// From the `status` of waitpid(2).
    pub fn from_wait_status(status: i32) -> Ending {
        match status & 0x7f {
            0 => Ending::Exited(status >> 8 & 0xff),
            signal => Ending::Signaled { signal, core: status & 0x80 != 0 },
        }
    }
}

/// What a process and the children that it waited for used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub user_us: u64,
    pub system_us: u64,
    /// The high-water mark of its memory. For a forked child it starts at the parent's.
    pub peak_rss_bytes: u64,
}

/// What waitid(2) had to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing: the child runs, or (unless asked for) is stopped.
    Nothing,
    Ended {
        pid: i32,
        ending: Ending,
        usage: Usage,
    },
    /// A signal stopped it; only from [`changed`].
    Stopped {
        pid: i32,
        signal: i32,
    },
    /// No such child: somebody else reaped it, or it is nobody's to wait for.
    NotOurs,
}

/// Looks without waiting and without taking: the status stays there.
pub fn peek(child: Child) -> Result<Seen> {
    waitid(child, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)
}

/// Takes the status of a child that has ended, without waiting.
pub fn reap(child: Child) -> Result<Seen> {
    waitid(child, libc::WEXITED | libc::WNOHANG)
}

/// As [`reap`], and also tells, once, that a child was stopped.
pub fn changed(child: Child) -> Result<Seen> {
    waitid(child, libc::WEXITED | libc::WSTOPPED | libc::WNOHANG)
}

/// Takes the status of a child that is ending anyway, waiting for it as long as it takes.
pub fn reap_blocking(child: Child) -> Result<Seen> {
    waitid(child, libc::WEXITED)
}

/// The raw call: libc's has no rusage.
fn waitid(child: Child, options: i32) -> Result<Seen> {
    // __WALL: also one that does not send SIGCHLD, as commands before they are what they shall be.
    let (kind, id, options) = match child {
        Child::Pidfd(fd) => (libc::P_PIDFD, fd.as_raw_fd(), options | libc::__WALL),
        Child::Pid(pid) => (libc::P_PID, pid, options | libc::__WALL),
        Child::Any => (libc::P_ALL, 0, options),
    };
    // SAFETY: all zeros is valid for both.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    loop {
        // SAFETY: writable out-values.
        if unsafe { libc::syscall(libc::SYS_waitid, kind, id, &raw mut info, options, &raw mut usage) } == 0 {
            break;
        }
        match errno() {
            libc::EINTR => {}
            libc::ECHILD => return Ok(Seen::NotOurs),
            errno => return Err(errno),
        }
    }
    // SAFETY: filled by waitid, or still zeros.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(Seen::Nothing);
    }
    let ending = match info.si_code {
        libc::CLD_EXITED => Ending::Exited(status & 0xff),
        libc::CLD_STOPPED | libc::CLD_TRAPPED => return Ok(Seen::Stopped { pid, signal: status }),
        code => Ending::Signaled { signal: status, core: code == libc::CLD_DUMPED },
    };
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    let usage = Usage {
        user_us: micros(usage.ru_utime),
        system_us: micros(usage.ru_stime),
        peak_rss_bytes: usage.ru_maxrss as u64 * 1024,
    };
    Ok(Seen::Ended { pid, ending, usage })
}
