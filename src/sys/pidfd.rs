//! Descriptors of processes: they become readable when the process ends, and a signal sent through one can never hit another process
//! that got the same number later.
//!
//! Kernels below 5.3, valgrind and some containers have none: every user has another way, taken where [`supported`] says so or
//! [`open`] answers `None`.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use super::errno::{self, errno, last_failure};
use super::fd::owned;
use super::wait::Ending;
use crate::error::Result;

/// Whether this process can open, signal and wait by descriptor; asked once. A forked child inherits the answer with the kernel and
/// the filters that gave it.
pub fn supported() -> bool {
    match ANSWER.load(Relaxed) {
        YES => true,
        NO => false,
        _ => {
            // Out of descriptors is no answer: assumed, and asked again.
            let Ok(answer) = probe() else { return true };
            ANSWER.store(if answer { YES } else { NO }, Relaxed);
            answer
        }
    }
}

const UNKNOWN: u8 = 0;
const YES: u8 = 1;
const NO: u8 = 2;
/// Relaxed: the answer is all there is, and who comes too early asks again.
static ANSWER: AtomicU8 = AtomicU8::new(UNKNOWN);

/// For a caller that was refused although [`supported`] said yes: a filter was installed since. From now on it says no.
pub fn give_up() {
    ANSWER.store(NO, Relaxed);
}

fn probe() -> Result<bool> {
    let Some(own) = open(std::process::id() as i32)? else { return Ok(false) };
    // Signal 0 to oneself only asks. waitid: ECHILD where P_PIDFD is known (5.4), EINVAL where not.
    let sends = send_signal(&own, 0).is_ok();
    // SAFETY: a null siginfo is allowed.
    let waits = unsafe {
        libc::syscall(
            libc::SYS_waitid,
            libc::P_PIDFD,
            own.as_raw_fd(),
            std::ptr::null_mut::<libc::siginfo_t>(),
            libc::WEXITED | libc::WNOHANG,
            std::ptr::null_mut::<libc::rusage>(),
        ) == 0
            || errno() == libc::ECHILD
    };
    Ok(sends && waits)
}

/// A descriptor of process `pid`, close-on-exec; `None` where the kernel or a filter refuses the call.
///
/// `pid` must not be able to change hands meanwhile: a child that is not reaped yet, or the calling process.
pub fn open(pid: i32) -> Result<Option<OwnedFd>> {
    // SAFETY: a fresh descriptor.
    match unsafe { owned(libc::syscall(libc::SYS_pidfd_open, pid, 0), "pidfd_open") } {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if matches!(error.errno(), libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Sends a signal; `false`: the process has ended. Fails with an errno.
pub fn send_signal(pidfd: &impl AsRawFd, signal: i32) -> errno::Result<bool> {
    send(pidfd, signal, 0)
}

/// The same for the group that the process leads, or led: `false`: nobody is in it any more. `None`: the kernel (below 6.9) cannot.
pub fn signal_group(pidfd: &impl AsRawFd, signal: i32) -> Option<errno::Result<bool>> {
    const PROCESS_GROUP: u32 = 1 << 2;
    let sent = send(pidfd, signal, PROCESS_GROUP);
    (!matches!(sent, Err(libc::EINVAL | libc::ENOSYS))).then_some(sent)
}

fn send(pidfd: &impl AsRawFd, signal: i32, flags: u32) -> errno::Result<bool> {
    let nothing = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo means: as kill(2) would.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, nothing, flags) } {
        0 => Ok(true),
        _ if errno() == libc::ESRCH => Ok(false),
        _ => Err(errno()),
    }
}

/// What a kernel without these calls says, or a filter.
pub fn is_refusal(errno: i32) -> bool {
    matches!(errno, libc::ENOSYS | libc::EPERM)
}

/// Whether the process has ended (a zombie has). Asks the kernel, without waiting; neither allocates nor blocks.
pub fn has_ended(pidfd: &impl AsRawFd) -> bool {
    let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one live pollfd.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 && poll.revents & (libc::POLLIN | libc::POLLHUP | libc::POLLERR) != 0 }
}

/// `struct pidfd_info` of Linux 6.15, its first released size.
#[repr(C)]
struct Info {
    mask: u64,
    cgroup: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    /// ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid.
    ids: [u32; 8],
    exit_code: i32,
}

const _: () = assert!(size_of::<Info>() == 64);

/// How the process ended, for one that was reaped by somebody else (Linux 6.15); `None` where the kernel cannot tell.
pub fn exit_status(pidfd: BorrowedFd) -> Option<Ending> {
    const INFO_EXIT: u64 = 1 << 3;
    /// _IOWR(0xFF, 11, struct pidfd_info)
    const GET_INFO: u64 = 3 << 30 | (size_of::<Info>() as u64) << 16 | 0xFF << 8 | 11;
    // SAFETY: all zeros is a valid Info; the kernel writes at most the size that is part of the request.
    let info = unsafe {
        let mut info: Info = std::mem::zeroed();
        info.mask = INFO_EXIT;
        if libc::ioctl(pidfd.as_raw_fd(), GET_INFO as _, &raw mut info) != 0 {
            return None;
        }
        info
    };
    // Left out by kernels that do not know it, and while nobody has reaped the process.
    (info.mask & INFO_EXIT != 0).then(|| Ending::from_wait_status(info.exit_code))
}

/// A descriptor of the calling process, for children to watch; `None` without pidfds.
pub fn open_self() -> Result<Option<OwnedFd>> {
    if !supported() {
        return Ok(None);
    }
    open(std::process::id() as i32)
}

/// A second descriptor for the same process.
pub fn duplicate(pidfd: BorrowedFd) -> Result<OwnedFd> {
    pidfd.try_clone_to_owned().map_err(|_| last_failure("fcntl(F_DUPFD_CLOEXEC)"))
}
