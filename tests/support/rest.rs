//! Seeing that a process sleeps on a futex or on descriptors: asked of the kernel, never assumed after a while.

use std::fs;

use super::child::Child;
use super::clock;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In futex(2) or poll(2), not running and not about to.
    Asleep,
    Awake,
}

/// A wait that a signal interrupted goes on as restart_syscall.
#[cfg(target_arch = "x86_64")]
const SLEEPS: [libc::c_long; 4] = [libc::SYS_futex, libc::SYS_restart_syscall, libc::SYS_ppoll, libc::SYS_poll];
#[cfg(not(target_arch = "x86_64"))]
const SLEEPS: [libc::c_long; 3] = [libc::SYS_futex, libc::SYS_restart_syscall, libc::SYS_ppoll];

/// Whether `pid` sleeps at this moment.
pub fn state(pid: libc::pid_t) -> State {
    // "running", or the number of the system call that it is blocked in, with its arguments.
    match fs::read_to_string(format!("/proc/{pid}/syscall")) {
        Ok(text) => match text.split_ascii_whitespace().next().and_then(|number| number.parse::<libc::c_long>().ok()) {
            Some(number) if SLEEPS.contains(&number) => State::Asleep,
            _ => State::Awake,
        },
        // Kernels without that file: the function that it sleeps in.
        Err(_) => match fs::read_to_string(format!("/proc/{pid}/wchan")) {
            Ok(function) if function.contains("futex") || function.contains("poll") => State::Asleep,
            _ => State::Awake,
        },
    }
}

/// Waits until `child` sleeps; `false` if it ended instead, or if that takes too long.
pub fn fell_asleep(child: &mut Child) -> bool {
    let mut asleep = false;
    clock::until(clock::patience(), || {
        asleep = state(child.pid()) == State::Asleep;
        asleep || !child.is_running()
    });
    asleep
}

/// How often `pid` came to run: unchanged between two looks means that it did not between them.
fn runs(pid: libc::pid_t) -> u64 {
    if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/schedstat")) {
        return text.split_ascii_whitespace().nth(2).and_then(|count| count.parse().ok()).unwrap_or(0);
    }
    // Without that file: how often it was scheduled out, which costs five times as much to ask.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let counts = status.lines().filter(|line| line.contains("ctxt_switches:"));
    counts.filter_map(|line| line.rsplit(char::is_whitespace).next()?.parse::<u64>().ok()).sum()
}

/// Waits until each of `children` has ended or sleeps, and none of them ran while that was looked at: from then on nothing happens
/// unless somebody else acts. `false` if they do not come to rest.
pub fn came_to_rest(children: &mut [&mut Child]) -> bool {
    clock::until(clock::patience(), || {
        let before: Vec<_> = children.iter().map(|child| runs(child.pid())).collect();
        let still = children.iter_mut().all(|child| !child.is_running() || state(child.pid()) == State::Asleep);
        still && children.iter_mut().zip(before).all(|(child, before)| !child.is_running() || runs(child.pid()) == before)
    })
}

/// Waits until all `children` have ended; `false` if some are at rest for a second although they have no reason to, or if it takes
/// longer than all patience. (A second: on old kernels the library looks again ten times a second.)
pub fn all_ended(children: &mut [&mut Child]) -> bool {
    came_to_rest(children);
    clock::until(clock::scaled(1.0), || children.iter_mut().all(|child| !child.is_running()))
}
