//! What this process is, and what it asks the kernel to do with it. Async-signal-safe, except where a function says otherwise.

use std::ffi::CStr;
use std::str::FromStr;

use super::{errno, last_failure};
use crate::error::Result;

pub fn pid() -> i32 {
    std::process::id() as i32
}

pub fn parent_pid() -> i32 {
    // SAFETY: no arguments.
    unsafe { libc::getppid() }
}

/// Whether the process `parent` that made this one still lives; `pidfd`: its descriptor, or -1. The kernel gives an orphan another
/// parent before it tells anybody that the old one has ended.
pub fn parent_lives(parent: i32, pidfd: i32) -> bool {
    match parent_pid() {
        // It is outside of this process's pid namespace.
        0 => pidfd < 0 || !super::pidfd::has_ended(&pidfd),
        now => now == parent,
    }
}

/// The name of the calling thread (of the process, on its first thread) as ps and top show it; cut off after 15 bytes.
pub fn set_name(name: &CStr) {
    // SAFETY: a NUL-terminated string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// `signal` comes when the *thread* that made this process ends; 0 = none. Whoever sets it then checks that the parent still lives.
pub fn set_parent_death_signal(signal: i32) {
    // SAFETY: plain numbers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong, 0, 0, 0) };
}

/// Orphaned descendants become children of this process.
pub fn become_subreaper() -> Result<()> {
    // SAFETY: plain numbers.
    match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(last_failure("prctl(PR_SET_CHILD_SUBREAPER)")),
    }
}

/// The processes of a group of their own do not get what is sent to the terminal's group.
pub fn lead_new_group() {
    // SAFETY: plain numbers. Fails only for a session leader, which leads its group already.
    unsafe { libc::setpgid(0, 0) };
}

/// The high-water mark of this process's memory, in bytes.
pub fn own_peak_rss() -> u64 {
    // SAFETY: zeros are a valid rusage, and the call fills it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage.ru_maxrss as u64 * 1024
    }
}

/// How many threads this process has; `None` without /proc.
pub fn thread_count() -> Option<u32> {
    stat_field(c"/proc/self/stat", FIELD_THREADS)
}

/// When process `pid` started, in clock ticks since boot: with its number, a name that is not given again. `None` when there is no
/// such process, or no /proc.
pub fn start_time(pid: i32) -> Option<u64> {
    let mut path = [0u8; 32];
    stat_field(write_path(&mut path, format_args!("/proc/{pid}/stat"))?, FIELD_START_TIME)
}

/// Whether a signal has stopped the process, and nothing made it go on since; `None` as above.
pub fn is_stopped(pid: i32) -> Option<bool> {
    let mut path = [0u8; 32];
    let state: char = stat_field(write_path(&mut path, format_args!("/proc/{pid}/stat"))?, FIELD_STATE)?;
    Some(state == 'T')
}

/// Whether there is a process of that number, if only a zombie; asks the kernel, and sends nothing.
pub fn exists(pid: i32) -> bool {
    // SAFETY: plain numbers; signal 0 is none, whoever is asked about.
    unsafe { libc::kill(pid, 0) == 0 || errno() != libc::ESRCH }
}

/// Whether nothing is left of process `pid` but its number, or not even that: a zombie holds no memory and no descriptor.
pub fn has_ended(pid: i32) -> bool {
    let mut path = [0u8; 32];
    let Some(path) = write_path(&mut path, format_args!("/proc/{pid}/stat")) else { return false };
    let mut text = [0u8; 1024];
    let Some(text) = read_file(path, &mut text) else { return true };
    let after_name = text.iter().rposition(|&byte| byte == b')');
    after_name.and_then(|at| text.get(at + 2)).is_some_and(|state| b"ZX".contains(state))
}

/// Whether a process that is no zombie is in this group; `None` without /proc. Not async-signal-safe.
pub fn group_lives(group: i32) -> Option<bool> {
    let lives = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.ok()?.file_name().to_str()?.parse::<i32>().ok()?;
        let text = std::fs::read(format!("/proc/{path}/stat")).ok()?;
        let fields = &text[text.iter().rposition(|&byte| byte == b')')? + 2..];
        let mut fields = fields.split(|&byte| byte == b' ');
        let (state, own) = (fields.next()?, fields.nth(FIELD_GROUP - FIELD_STATE - 1)?);
        Some(own == group.to_string().as_bytes() && !matches!(state, b"Z" | b"X"))
    };
    Some(std::fs::read_dir("/proc").ok()?.any(|entry| lives(entry) == Some(true)))
}

/// A short string made without allocation; `None` where it does not fit.
pub(super) fn write_path<'a>(buffer: &'a mut [u8; 32], text: std::fmt::Arguments) -> Option<&'a CStr> {
    let mut writer = Cursor { buffer: &mut buffer[..31], at: 0 };
    std::fmt::Write::write_fmt(&mut writer, text).ok()?;
    CStr::from_bytes_until_nul(buffer).ok()
}

/// Fields of proc_pid_stat(5), counted from 1.
const FIELD_STATE: usize = 3;
const FIELD_GROUP: usize = 5;
const FIELD_THREADS: usize = 20;
const FIELD_START_TIME: usize = 22;

fn stat_field<T: FromStr>(path: &CStr, field: usize) -> Option<T> {
    let mut text = [0u8; 1024];
    let text = read_file(path, &mut text)?;
    // The second field is the name in parentheses, which may contain anything.
    let after_name = text.iter().rposition(|&byte| byte == b')')? + 2;
    let value = text.get(after_name..)?.split(|&byte| byte == b' ').nth(field - 3)?;
    std::str::from_utf8(value).ok()?.trim_end().parse().ok()
}

/// open(2) for reading, close-on-exec, by the raw call: libc's is a point where a thread may be cancelled.
pub(super) fn open_raw(path: &CStr, flags: i32) -> i32 {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | flags;
    // SAFETY: a NUL-terminated path.
    unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0) as i32 }
}

/// close(2) by the raw call; the number must be the caller's to close.
pub(super) fn close_raw(fd: i32) {
    // SAFETY: no memory depends on a descriptor.
    unsafe { libc::syscall(libc::SYS_close, fd) };
}

pub(super) fn read_file<'a>(path: &CStr, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let fd = open_raw(path, 0);
    if fd < 0 {
        return None;
    }
    let mut length = 0;
    while length < buffer.len() {
        let rest = &mut buffer[length..];
        // SAFETY: writable for that many bytes.
        let read = unsafe { libc::syscall(libc::SYS_read, fd, rest.as_mut_ptr(), rest.len()) };
        match read {
            1.. => length += read as usize,
            0 => break,
            _ if errno() == libc::EINTR => {}
            _ => break,
        }
    }
    close_raw(fd);
    Some(&buffer[..length])
}

struct Cursor<'a> {
    buffer: &'a mut [u8],
    at: usize,
}

impl std::fmt::Write for Cursor<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.at + text.len();
        self.buffer.get_mut(self.at..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.at = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_threads_and_a_start() {
        assert!(thread_count().unwrap() >= 1);
        assert_eq!(start_time(pid()), stat_field(c"/proc/self/stat", FIELD_START_TIME));
        assert!(start_time(pid()).unwrap() > 0);
        assert!(exists(pid()) && !exists(i32::MAX));
        assert_eq!(start_time(0), None);
        assert_eq!(is_stopped(pid()), Some(false));
        // SAFETY: no arguments.
        assert_eq!(group_lives(unsafe { libc::getpgrp() }), Some(true));
        assert_eq!(group_lives(i32::MAX), Some(false));
    }
}
