//! Runs each test in a process of its own, with a time limit, and sees to what it leaves behind.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::panic::catch_unwind;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, io, mem, ptr};

use crate::filter;

/// A fact and what shows it.
pub type Test = (&'static str, fn());

const TIME_LIMIT: Duration = Duration::from_secs(20);
/// What a test started may take so long to end after it.
const LEFT_LIMIT: Duration = Duration::from_secs(10);

pub fn main(files: &[(&str, &[Test])]) -> ! {
    let words: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let tests = files.iter().flat_map(|(file, tests)| tests.iter().map(move |(name, run)| (format!("{file}::{name}"), *run)));
    let chosen: Vec<_> = tests.filter(|(name, _)| words.is_empty() || words.iter().any(|word| name.contains(word))).collect();
    if env::args().any(|word| word == "--list") {
        for (name, _) in &chosen {
            say(&format!("{name}: test"));
        }
        exit(0);
    }
    if filter::refused() && !filter::install() {
        say("skipped: tests without pidfds: this kernel has no seccomp filters");
        exit(0);
    }
    // Orphans of the tests become ours, and SIGCHLD tells of each end.
    // SAFETY: plain numbers and a live set.
    let child_ended = unsafe {
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let mut set = mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &set, ptr::null_mut());
        set
    };
    let mut failed = 0;
    for (name, test) in &chosen {
        let complaint = run(*test, &child_ended);
        say(&format!(
            "test {name} ... {}",
            complaint.as_deref().map_or("ok".to_owned(), |complaint| format!("FAILED: {complaint}"))
        ));
        failed += u32::from(complaint.is_some());
    }
    let without = if filter::refused() { ", without pidfds" } else { "" };
    say(&format!("test result: {} passed; {failed} failed{without}", chosen.len() as u32 - failed));
    if failed == 0 && !filter::refused() {
        let itself = env::current_exe().expect("a test knows its own path");
        let error = Command::new(itself).args(env::args().skip(1)).env(filter::VARIABLE, "1").exec();
        panic!("exec: {error}");
    }
    exit(i32::from(failed > 0))
}

/// `None`, or what went wrong.
fn run(test: fn(), child_ended: &libc::sigset_t) -> Option<String> {
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: a live set.
        unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, child_ended, ptr::null_mut()) };
        let passed = catch_unwind(test).is_ok();
        // Through exit: handlers that the library registered are part of what is tested.
        exit(if passed { 0 } else { 101 });
    }
    let status = wait(pid, TIME_LIMIT, child_ended);
    let left = wait(-1, if status == Some(0) { LEFT_LIMIT } else { Duration::ZERO }, child_ended).is_none();
    if left {
        while kill_children() > 0 {
            wait(-1, Duration::from_secs(1), child_ended);
        }
    }
    match status {
        None => Some("did not end in time".to_owned()),
        Some(0) if left => Some("left a process behind".to_owned()),
        Some(0) => None,
        Some(status) if status & 0x7f != 0 => Some(format!("signal {}", status & 0x7f)),
        Some(status) => Some(format!("exit code {}", status >> 8 & 0xff)),
    }
}

/// Waits for one child, or (-1) for all: the last status, `None` if some are left.
fn wait(pid: i32, limit: Duration, child_ended: &libc::sigset_t) -> Option<i32> {
    let scale = env::var("TINE_TEST_TIMEOUT_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1);
    let end = Instant::now() + limit * scale;
    let mut status = 0;
    loop {
        // SAFETY: a writable int.
        match unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } {
            0 => {}
            -1 => return Some(status),
            _ if pid > 0 => return Some(status),
            _ => continue,
        }
        let left = end.checked_duration_since(Instant::now())?;
        let left = libc::timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ };
        // SAFETY: a live set and a live time.
        unsafe { libc::sigtimedwait(child_ended, ptr::null_mut(), &left) };
    }
}

/// Kills what is left, if the kernel tells what that is.
fn kill_children() -> usize {
    // SAFETY: no arguments.
    let own = unsafe { libc::getpid() };
    let children = fs::read_to_string(format!("/proc/self/task/{own}/children")).unwrap_or_default();
    let children: Vec<i32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(|&pid| pid > 1).collect();
    for &pid in &children {
        // SAFETY: our own child, which nobody but us reaps.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    children.len()
}

fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

pub fn exit(code: i32) -> ! {
    // SAFETY: one thread at most is in here.
    unsafe { libc::exit(code) }
}
