//! Children of the runner: forked, killed and reaped here and nowhere else.

use std::io::Write;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use super::clock;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Code(i32),
    Signal(i32),
}

/// A process that this process forked. Dropped while it runs, it is killed and reaped.
#[derive(Debug)]
pub struct Child {
    pid: libc::pid_t,
    end: Option<End>,
}

impl Child {
    /// Runs `body` in a child, which then leaves with code 0 (101 after a panic). The child dies with its parent.
    pub fn fork(body: impl FnOnce()) -> Child {
        // What is buffered would be written twice.
        let _ = std::io::stdout().flush();
        // SAFETY: no arguments.
        let parent = unsafe { libc::getpid() };
        // SAFETY: these test programs have one thread.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            die_with(parent);
            let code = match panic::catch_unwind(AssertUnwindSafe(body)) {
                Ok(()) => 0,
                Err(_) => 101,
            };
            // SAFETY: leaves without running what the parent registered for its exit.
            unsafe { libc::_exit(code) };
        }
        Child { pid, end: None }
    }

    pub fn pid(&self) -> libc::pid_t {
        self.pid
    }

    pub fn is_running(&mut self) -> bool {
        self.try_reap().is_none()
    }

    /// How it ended, if it did.
    pub fn try_reap(&mut self) -> Option<End> {
        if self.end.is_none() {
            self.wait(libc::WNOHANG);
        }
        self.end
    }

    /// Waits for its end; `None` if it takes longer.
    pub fn reap_within(&mut self, limit: Duration) -> Option<End> {
        clock::until(limit, || self.try_reap().is_some());
        self.end
    }

    /// SIGKILL, then its end: when this returns, the kernel has walked its robust list.
    pub fn kill(&mut self) -> End {
        while self.end.is_none() {
            self.signal(libc::SIGKILL);
            self.wait(0);
        }
        self.end.expect("reaped")
    }

    /// A signal to this very child: it is not reaped yet, so its number is still its own.
    pub fn signal(&self, signal: i32) {
        assert!(self.pid > 1 && self.end.is_none(), "only a running child of our own is ever signalled");
        // SAFETY: plain numbers, checked above.
        unsafe { libc::kill(self.pid, signal) };
    }

    fn wait(&mut self, flags: i32) {
        let mut status = 0;
        // SAFETY: a child of ours; __WALL: also while it is traced.
        let pid = unsafe { libc::waitpid(self.pid, &mut status, flags | libc::__WALL) };
        if pid == self.pid {
            self.note(status);
        }
    }

    /// Takes notice of a status that somebody else's waitpid (the tracer's) returned for this child.
    pub fn note(&mut self, status: i32) {
        if libc::WIFEXITED(status) {
            self.end = Some(End::Code(libc::WEXITSTATUS(status)));
        } else if libc::WIFSIGNALED(status) {
            self.end = Some(End::Signal(libc::WTERMSIG(status)));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ends with `parent`, also if that is gone already.
fn die_with(parent: libc::pid_t) {
    // SAFETY: plain numbers; _exit takes nothing along.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // A parent outside of our pid namespace is 0.
        if libc::getppid() != parent && libc::getppid() != 0 {
            libc::_exit(0);
        }
    }
}
