//! What only a pool's nursery and its workers ask of the operating system. Async-signal-safe and without allocation, except for what
//! returns a [`crate::error::Result`]: that is called before the nursery is forked.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::thread;
use std::time::Duration;

use super::errno::number::is_no_descriptor;
use super::fd::owned;
use super::process::{open_raw, read_file, write_path};
use super::wait::{self, Child, Seen};
use crate::error::Result;

/// A descriptor that is readable when SIGCHLD is pending for the process that reads it. The signal must be blocked.
pub fn child_signal_fd() -> Result<OwnedFd> {
    // SAFETY: zeros are a valid set, filled in before use; a fresh descriptor.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        owned(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK).into(), "signalfd")
    }
}

/// Empties a non-blocking descriptor.
pub fn drain(fd: RawFd) {
    let mut buffer = [0u8; 512];
    // SAFETY: a writable buffer of that length.
    while unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) } > 0 {}
}

/// Standard input becomes /dev/null.
pub fn stdin_from_null() {
    // SAFETY: a NUL-terminated path, and plain numbers.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if null > 0 {
            libc::dup2(null, 0);
            libc::close(null);
        } else if null < 0 {
            libc::close(0);
        } else {
            // The host had closed it. What a worker executes shall have it, too.
            libc::fcntl(0, libc::F_SETFD, 0);
        }
    }
}

/// Moves a descriptor out of the way of code that closes low numbers and opens files: whoever closes ours and gets its number would
/// have our bytes in his file. Answers the new number, or the old one where there is none to be had.
pub fn move_up(fd: RawFd) -> RawFd {
    const HIGH: u64 = 900;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a writable rlimit, and plain numbers; whoever calls uses the answer from now on.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        if limit.rlim_cur < HIGH + 64 || fd as u64 >= HIGH {
            return fd;
        }
        let high = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, HIGH as libc::c_int);
        if high < 0 {
            return fd;
        }
        libc::close(fd);
        high
    }
}

/// Another descriptor of the same file, only for reading.
pub fn read_only(fd: BorrowedFd) -> Result<OwnedFd> {
    let mut path = [0u8; 32];
    let path = write_path(&mut path, format_args!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or(c"");
    // SAFETY: a NUL-terminated path; a fresh descriptor.
    let opened = unsafe { owned(libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC).into(), "open") };
    // Without /proc one that can write has to do.
    opened.or_else(|_| super::fd::duplicate(&fd))
}

/// Makes the kernel take this process before others when memory runs out. Best effort.
pub fn raise_oom_score() {
    const MORE: i32 = 500;
    const MOST: i32 = 1000;
    let mut text = [0u8; 16];
    let now = read_file(c"/proc/self/oom_score_adj", &mut text)
        .and_then(|text| std::str::from_utf8(text).ok()?.trim().parse::<i32>().ok());
    let Some(now) = now else { return };
    let mut text = [0u8; 32];
    let Some(text) = write_path(&mut text, format_args!("{}", (now + MORE).min(MOST))) else { return };
    // SAFETY: NUL-terminated strings, readable bytes, a descriptor of our own.
    unsafe {
        let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, text.as_ptr().cast(), text.count_bytes());
            libc::close(fd);
        }
    }
}

/// No core file of this process.
pub fn disable_core_files() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a live rlimit.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
}

/// Whether /proc tells of the processes of this process's own pid namespace.
pub fn proc_is_ours() -> bool {
    let mut link = [0u8; 12];
    // SAFETY: a NUL-terminated path and a buffer of that length.
    let length = unsafe { libc::readlink(c"/proc/self".as_ptr(), link.as_mut_ptr().cast(), link.len()) };
    let digits = usize::try_from(length).ok().and_then(|length| std::str::from_utf8(link.get(..length)?).ok());
    digits.and_then(|digits| digits.parse().ok()) == Some(super::process::pid())
}

/// Who a process acts as: the lines of its status that say so. Compared, not understood.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    text: [u8; 512],
    length: usize,
}

impl Credentials {
    /// `None` where they cannot be read.
    pub fn of(pid: i32) -> Option<Credentials> {
        let mut path = [0u8; 32];
        let path = write_path(&mut path, format_args!("/proc/{pid}/status"))?;
        let mut text = [0u8; 4096];
        let text = read_file(path, &mut text)?;
        let mut credentials = Credentials { text: [0; 512], length: 0 };
        for line in text.split(|&byte| byte == b'\n') {
            if [&b"Uid:"[..], b"Gid:", b"Groups:"].iter().any(|name| line.starts_with(name)) {
                let room = &mut credentials.text[credentials.length..];
                let length = line.len().min(room.len());
                room[..length].copy_from_slice(&line[..length]);
                credentials.length += length;
            }
        }
        (credentials.length > 0).then_some(credentials)
    }
}

/// Kills every child of this process, and those that become its children by that, as far as it gets in a bounded number of rounds.
/// For processes that have only children to kill.
pub fn kill_all_children() {
    for _ in 0..200 {
        loop {
            match wait::reap(Child::Any) {
                Ok(Seen::Ended { .. }) => {}
                Ok(Seen::NotOurs) => return,
                _ => break,
            }
        }
        if !kill_children_once() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Kills the children that this process has at this moment. `false`: they cannot be known.
pub fn kill_children_once() -> bool {
    kill_children(|_| false).is_some()
}

/// Kills those children of this process that `is_known` does not know: what became its children because their parent has ended.
/// Answers how many it killed; their own children come next.
pub fn kill_orphans(is_known: impl Fn(i32) -> bool) -> usize {
    kill_children(is_known).unwrap_or(0)
}

/// `None`: the children cannot be known.
fn kill_children(is_spared: impl Fn(i32) -> bool) -> Option<usize> {
    // SAFETY: a NUL-terminated path.
    let fd = unsafe { libc::open(CHILDREN.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if fd < 0 {
        return None;
    }
    let (mut buffer, mut number, mut killed) = ([0u8; 4096], 0i32, 0);
    loop {
        // SAFETY: writable for that many bytes.
        let read = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
        let Ok(read @ 1..) = usize::try_from(read) else { break };
        for &byte in &buffer[..read] {
            if byte.is_ascii_digit() {
                number = number.saturating_mul(10).saturating_add(i32::from(byte - b'0'));
                continue;
            }
            let pid = std::mem::take(&mut number);
            // /proc may be another pid namespace's, whose numbers mean others here: only what can be waited for is killed, and that
            // is our child until we reap it.
            if pid > 1 && !is_spared(pid) && matches!(wait::peek(Child::Pid(pid)), Ok(Seen::Nothing)) {
                killed += usize::from(super::signal::send_to_child(pid, libc::SIGKILL) == Ok(true));
            }
        }
    }
    // SAFETY: ours.
    unsafe { libc::close(fd) };
    Some(killed)
}

/// Whether a child has more than `limit` bytes of memory for itself: pages that it shares with the process that it is a copy of do not
/// count.
pub fn memory_above(pid: i32, limit: u64) -> bool {
    let mut path = [0u8; 32];
    let Some(status) = write_path(&mut path, format_args!("/proc/{pid}/status")) else { return false };
    // Quick: all anonymous pages, the shared ones included.
    let mut text = [0u8; 4096];
    let most = read_file(status, &mut text).map_or(0, |text| sum_of(text, &[b"RssAnon:", b"VmSwap:", b"RssShmem:"]));
    if most <= limit {
        return false;
    }
    // Exact, and slow for a large process.
    let mut path = [0u8; 32];
    let Some(rollup) = write_path(&mut path, format_args!("/proc/{pid}/smaps_rollup")) else { return false };
    let mut text = [0u8; 4096];
    read_file(rollup, &mut text).is_some_and(|text| sum_of(text, &[b"Private_Dirty:", b"Swap:"]) > limit)
}

/// Lines of /proc that count kilobytes, in bytes.
fn sum_of(text: &[u8], names: &[&[u8]]) -> u64 {
    let number = |line: &[u8]| {
        let digits = line.iter().skip_while(|byte| !byte.is_ascii_digit()).take_while(|byte| byte.is_ascii_digit());
        digits.fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0')) * 1024
    };
    text.split(|&byte| byte == b'\n').filter(|line| names.iter().any(|name| line.starts_with(name))).map(number).sum()
}

/// Lets this process map at most so many bytes more for writing. Best effort.
pub fn limit_data(more: u64) {
    let mut text = [0u8; 4096];
    let Some(now) = read_file(c"/proc/self/status", &mut text).map(|text| sum_of(text, &[b"VmData:"])) else { return };
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: live rlimits.
    unsafe {
        libc::getrlimit(libc::RLIMIT_DATA, &mut limit);
        limit.rlim_cur = limit.rlim_cur.min(now.saturating_add(more));
        libc::setrlimit(libc::RLIMIT_DATA, &limit);
    }
}

/// Those of the calling thread. Kernels may be built without it.
const CHILDREN: &std::ffi::CStr = c"/proc/thread-self/children";

/// Whether a process can know its children. Fails where nobody can say: no descriptor is left to look with.
pub fn knows_children() -> Result<bool> {
    // SAFETY: a fresh descriptor.
    match unsafe { owned(open_raw(CHILDREN, 0).into(), "open of /proc/thread-self/children") } {
        Ok(_) => Ok(true),
        Err(error) if is_no_descriptor(error.errno()) => Err(error),
        Err(_) => Ok(false),
    }
}

/// Kills every process of this process's group, itself included, if it leads one; else ends only this process.
pub fn kill_own_group() -> ! {
    // SAFETY: plain numbers; 0 is the caller's own group, which it leads.
    unsafe {
        if libc::getpgrp() == libc::getpid() {
            libc::kill(0, libc::SIGKILL);
        }
    }
    super::fork::exit_now(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::pid;

    #[test]
    fn kilobytes_are_counted() {
        let text = b"RssAnon:\t     100 kB\nRssFile:\t 7 kB\nVmSwap:\t       2 kB\n";
        assert_eq!(sum_of(text, &[b"RssAnon:", b"VmSwap:"]), 102 << 10);
        assert!(memory_above(pid(), 1) && !memory_above(pid(), u64::MAX) && !memory_above(-5, 0));
    }

    #[test]
    fn credentials_are_the_same_twice() {
        let own = Credentials::of(pid()).unwrap();
        assert!(own.text.starts_with(b"Uid:"));
        assert!(Some(own) == Credentials::of(pid()));
        assert!(Credentials::of(-5).is_none());
    }
}
