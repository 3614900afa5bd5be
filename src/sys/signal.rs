//! Signal masks and dispositions. Signals to other processes go through [`super::pidfd`], or [`send_to_child`] where there is none.

use std::marker::PhantomData;

use super::errno::{Result, errno};

pub const TERM: i32 = libc::SIGTERM;
pub const KILL: i32 = libc::SIGKILL;
pub const CHILD: i32 = libc::SIGCHLD;

/// All signals that can be blocked are blocked on this thread until this is dropped; then the mask is what it was.
pub struct Blocked {
    before: libc::sigset_t,
    /// A mask belongs to a thread.
    not_send: PhantomData<*const ()>,
}

impl Blocked {
    pub fn all() -> Blocked {
        Blocked { before: set_mask(&filled()), not_send: PhantomData }
    }
}

/// What a process had before it blocked its signals, for a copy of it.
#[derive(Clone, Copy)]
pub struct Kept {
    mask: libc::sigset_t,
    /// What it does with SIGCHLD: whoever reaps cannot have that ignored.
    child: libc::sigaction,
}

impl Kept {
    pub fn new(blocked: &Blocked) -> Kept {
        // SAFETY: all zeros is a valid sigaction; a null new action changes nothing.
        unsafe {
            let mut child = std::mem::zeroed();
            libc::sigaction(libc::SIGCHLD, std::ptr::null(), &mut child);
            Kept { mask: blocked.before, child }
        }
    }

    /// Again what it was, in a child.
    pub fn restore(&self) {
        // SAFETY: a live action, which this process had before: its handler is there.
        unsafe { libc::sigaction(libc::SIGCHLD, &self.child, std::ptr::null_mut()) };
        set_mask(&self.mask);
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        set_mask(&self.before);
    }
}

/// A signal mask as the kernel has it, libc's own two signals included, which libc's calls leave alone.
#[derive(Clone, Copy, Debug)]
pub struct Mask(u64);

impl Mask {
    pub const EMPTY: Mask = Mask(0);
    pub const BYTES: usize = size_of::<u64>();
    /// The highest number of a signal.
    pub const SIGNALS: i32 = 64;

    /// The calling thread's.
    pub fn current() -> Mask {
        Sealed::all().before()
    }

    /// Makes it the calling thread's; answers the one before. Async-signal-safe.
    pub fn set(self) -> Mask {
        let mut before = Mask::EMPTY;
        // SAFETY: live masks of that length.
        unsafe {
            libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const self.0, &raw mut before.0, Mask::BYTES);
        }
        before
    }
}

/// As [`Blocked`], libc's own signals included: for a child that shares this process's memory, in which none of its handlers may run.
pub struct Sealed {
    before: Mask,
    not_send: PhantomData<*const ()>,
}

impl Sealed {
    pub fn all() -> Sealed {
        Sealed { before: Mask(u64::MAX).set(), not_send: PhantomData }
    }

    pub fn before(&self) -> Mask {
        self.before
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        self.before.set();
    }
}

/// SIGPIPE is blocked on this thread until this is dropped: a write to a pipe that nobody reads raises it for the writing thread, and
/// the program never asked for it.
///
/// Why like this: a disposition belongs to the whole program; sockets, which could do without a signal, are not what commands expect
/// as their stdin (nobody can open /dev/stdin then); vmsplice(2) raises it too; RWF_NOSIGNAL needs Linux 6.18.
pub struct PipeSignalHeld {
    before: libc::sigset_t,
    /// It was pending before: the one that the program will see is not ours.
    was_pending: bool,
    /// A mask belongs to a thread.
    not_send: PhantomData<*const ()>,
}

impl PipeSignalHeld {
    #[allow(clippy::new_without_default, reason = "it does something")]
    pub fn new() -> PipeSignalHeld {
        let mut before = empty();
        // SAFETY: live sets; with valid arguments the call cannot fail.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &only(libc::SIGPIPE), &mut before) };
        PipeSignalHeld { before, was_pending: is_pipe_signal_pending(), not_send: PhantomData }
    }

    /// Takes the signal that a write has just raised. It is this thread's own, and such are taken before the process's.
    pub fn forget(&self) {
        if !self.was_pending {
            let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: live values; a null info is allowed.
            while unsafe { libc::sigtimedwait(&only(libc::SIGPIPE), std::ptr::null_mut(), &at_once) } < 0
                && errno() == libc::EINTR
            {}
        }
    }
}

impl Drop for PipeSignalHeld {
    fn drop(&mut self) {
        set_mask(&self.before);
    }
}

/// Whether SIGPIPE is blocked and was raised.
pub fn is_pipe_signal_pending() -> bool {
    let mut pending = empty();
    // SAFETY: a writable set.
    unsafe { libc::sigpending(&mut pending) == 0 && libc::sigismember(&pending, libc::SIGPIPE) == 1 }
}

/// Nothing is blocked on this thread any more.
pub fn unblock_all() {
    set_mask(&empty());
}

/// Whether `signal` is blocked on this thread.
pub fn is_blocked(signal: i32) -> bool {
    let mut mask = empty();
    // SAFETY: a writable set; a null new set changes nothing.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &mut mask);
        libc::sigismember(&mask, signal) == 1
    }
}

fn set_mask(mask: &libc::sigset_t) -> libc::sigset_t {
    let mut before = empty();
    // SAFETY: live sets; with valid arguments the call cannot fail.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, &mut before) };
    before
}

fn empty() -> libc::sigset_t {
    // SAFETY: all zeros is a valid sigset_t, and sigemptyset writes it anyway.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        set
    }
}

fn only(signal: i32) -> libc::sigset_t {
    let mut set = empty();
    // SAFETY: a live set.
    unsafe { libc::sigaddset(&mut set, signal) };
    set
}

fn filled() -> libc::sigset_t {
    let mut set = empty();
    // SAFETY: a live set.
    unsafe { libc::sigfillset(&mut set) };
    set
}

/// Every signal does what it does by default again. For children only: the host's dispositions are the host's.
pub fn set_all_default() {
    // SAFETY: all zeros is SIG_DFL without flags.
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: a live action. Those that cannot be changed (KILL, STOP, libc's own two) refuse, which is fine.
        unsafe { libc::sigaction(signal, &default, std::ptr::null_mut()) };
    }
}

/// `signal` does what it does by default again. For processes of our own.
pub fn set_default(signal: i32) {
    // SAFETY: all zeros is SIG_DFL without flags; a live action.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, &default, std::ptr::null_mut());
    }
}

/// Whether this process ignores `signal`.
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: all zeros is a valid sigaction; a null new action changes nothing.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut now) == 0 && now.sa_sigaction == libc::SIG_IGN
    }
}

/// Whether `signal` is a number that a process can be sent.
pub fn is_valid(signal: i32) -> bool {
    (0..=libc::SIGRTMAX()).contains(&signal)
}

/// kill(2) for a child that is not reaped yet (the caller holds the lock under which it would be): its number cannot name another
/// process. `false`: it has ended.
pub fn send_to_child(pid: i32, signal: i32) -> Result<bool> {
    // Never a group, never everybody.
    if pid <= 1 {
        return Err(libc::EINVAL);
    }
    kill(pid, signal)
}

/// The same for the whole group that such a child leads.
pub fn send_to_group(leader: i32, signal: i32) -> Result<bool> {
    // Never everybody.
    if leader <= 1 {
        return Err(libc::EINVAL);
    }
    kill(-leader, signal)
}

fn kill(pid: i32, signal: i32) -> Result<bool> {
    // SAFETY: plain numbers.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(true),
        _ if errno() == libc::ESRCH => Ok(false),
        _ => Err(errno()),
    }
}
