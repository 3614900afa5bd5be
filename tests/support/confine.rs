//! A cage for tests that kill and scribble: a pid namespace of their own where that is permitted, limits, a watchdog.

use std::io::{self, Write};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use super::arena;
use super::child::{Child, End};

/// The runner leaves with this when it cannot have its namespace.
const NO_NAMESPACE: i32 = 77;
const LABEL_LENGTH: usize = 240;

static LABEL: OnceLock<&[AtomicU8]> = OnceLock::new();

/// Runs `body` confined and ends the program with its answer, or with 1 when it has not ended after `limit`. When it ends,
/// whichever way, everything that it forked ends too.
pub fn run(name: &str, limit: Duration, body: impl Fn() -> i32) -> ! {
    LABEL.get_or_init(|| arena::slice(LABEL_LENGTH)); // before the first fork
    let code = match attempt(name, limit, true, &body) {
        NO_NAMESPACE => {
            let _ = writeln!(io::stdout(), "{name}: no pid namespace of its own here, running without");
            attempt(name, limit, false, &body)
        }
        code => code,
    };
    leave(code);
}

/// What the runner is at: the watchdog tells it.
pub fn label(text: &str) {
    for (to, from) in LABEL.get().copied().unwrap_or_default().iter().zip(text.bytes().take(LABEL_LENGTH - 1).chain([0])) {
        to.store(from, Relaxed);
    }
}

fn attempt(name: &str, limit: Duration, namespaced: bool, body: &impl Fn() -> i32) -> i32 {
    let mut supervisor = Child::fork(|| {
        // SAFETY: plain numbers; _exit below.
        if namespaced && unsafe { libc::unshare(libc::CLONE_NEWPID | libc::CLONE_NEWNS) } != 0 {
            leave(NO_NAMESPACE);
        }
        let mut runner = Child::fork(|| {
            if namespaced && !own_proc() {
                leave(NO_NAMESPACE);
            }
            if !namespaced {
                become_nobody();
            }
            limits();
            leave(body());
        });
        leave(match runner.reap_within(Duration::MAX / 4) {
            Some(End::Code(code)) => code,
            Some(End::Signal(signal)) => {
                let _ = writeln!(io::stdout(), "{name}: FAILED: the runner died of signal {signal}");
                1
            }
            None => 1,
        });
    });
    match supervisor.reap_within(limit) {
        Some(End::Code(code)) => code,
        Some(End::Signal(signal)) => {
            let _ = writeln!(io::stdout(), "{name}: FAILED: the supervisor died of signal {signal}");
            1
        }
        None => {
            let label = LABEL.get().copied().unwrap_or_default();
            let label: Vec<u8> = label.iter().map(|byte| byte.load(Relaxed)).take_while(|&byte| byte != 0).collect();
            let label = String::from_utf8_lossy(&label).into_owned();
            let _ = writeln!(io::stdout(), "{name}: FAILED: the watchdog barked after {limit:?} during {label}");
            1
        }
    }
}

fn leave(code: i32) -> ! {
    let _ = io::stdout().flush();
    // SAFETY: leaves without running what the parent registered for its exit.
    unsafe { libc::_exit(code) }
}

/// A /proc of this namespace: the old one shows the numbers of the outer.
fn own_proc() -> bool {
    // SAFETY: literals; the mount namespace is our own.
    unsafe {
        libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), libc::MS_REC | libc::MS_PRIVATE, ptr::null()) == 0
            && libc::mount(c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr(), 0, ptr::null()) == 0
    }
}

/// Without a namespace: a superuser's stray signal would reach everybody, so nobody is to be superuser.
fn become_nobody() {
    const NOBODY: u32 = 65534;
    // SAFETY: plain numbers; no groups.
    unsafe {
        if libc::geteuid() == 0 {
            let gone = libc::setgroups(0, ptr::null()) == 0
                && libc::setresgid(NOBODY, NOBODY, NOBODY) == 0
                && libc::setresuid(NOBODY, NOBODY, NOBODY) == 0;
            // Or its children could not be traced, and /proc would be closed.
            libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
            // Forgotten when the user changed.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if !gone {
                let _ = writeln!(io::stdout(), "skipped: neither a pid namespace nor another user to be had");
                leave(0);
            }
        }
    }
}

fn limits() {
    for (resource, limit) in [(libc::RLIMIT_CORE, 0), (libc::RLIMIT_AS, 8 << 30), (libc::RLIMIT_NOFILE, 256)] {
        let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
        // SAFETY: a live rlimit.
        unsafe { libc::setrlimit(resource, &limit) };
    }
}
