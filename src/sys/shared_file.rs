//! Files that hold shared memory, and how a process comes by those that it did not inherit: by a number in another process, and by a
//! name in /dev/shm.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::fd::owned;
use super::{Deadline, errno, failure, last_failure};
use crate::error::{Error, Kind, Result};
use crate::timeout::Timeout;

/// Where files with names live: memory, as memfds are.
pub const FOLDER: &str = "/dev/shm";

/// The first bytes of each file of ours; [`super::descriptors`] knows them by it.
pub const MARK: [u8; 8] = *b"tineMEM\n";

/// What the kernel says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// {device, inode}: no other file has it while this one is open or mapped.
    pub identity: (u64, u64),
    pub owner: u32,
    pub length: u64,
    /// Not a socket, terminal, pipe, …: reading and mapping it does nothing else.
    pub is_plain: bool,
    pub is_pipe: bool,
}

pub fn facts(fd: BorrowedFd) -> Result<Facts> {
    // SAFETY: all zeros is a valid stat, which the call fills.
    let stat = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        if libc::fstat(fd.as_raw_fd(), &mut stat) != 0 {
            return Err(last_failure("fstat of shared memory"));
        }
        stat
    };
    Ok(Facts {
        identity: (stat.st_dev, stat.st_ino),
        owner: stat.st_uid,
        length: u64::try_from(stat.st_size).unwrap_or(0),
        is_plain: stat.st_mode & libc::S_IFMT == libc::S_IFREG,
        is_pipe: stat.st_mode & libc::S_IFMT == libc::S_IFIFO,
    })
}

/// Who this process acts as.
pub fn own_user() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::geteuid() }
}

/// A number that no other living pid namespace has; 0 where /proc does not tell.
pub fn pid_namespace() -> u64 {
    // SAFETY: all zeros is a valid stat, which the call fills; a NUL-terminated path.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        if libc::stat(c"/proc/self/ns/pid".as_ptr(), &mut stat) == 0 { stat.st_ino } else { 0 }
    }
}

/// Whether the file is one of those in [`FOLDER`], under whatever name or none.
pub fn is_in_folder(facts: &Facts) -> bool {
    let folder = CString::new(FOLDER).unwrap_or_default();
    // SAFETY: all zeros is a valid stat, which the call fills; a NUL-terminated path.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        libc::stat(folder.as_ptr(), &mut stat) == 0 && stat.st_dev == facts.identity.0
    }
}

/// Whether the file can never become shorter. Only memfds can be sealed so.
pub fn never_shrinks(fd: BorrowedFd) -> bool {
    // SAFETY: plain numbers.
    let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    seals >= 0 && seals & libc::F_SEAL_SHRINK != 0
}

// ---- descriptors of other processes

/// A descriptor that stands for another process's descriptor `number`, and with which nothing can be done but asking for its facts and
/// [`open_again`]: opening a terminal or a device may have effects.
pub fn of_process(pid: i32, number: i32) -> Result<OwnedFd> {
    open(&in_proc(pid, "fd", number), libc::O_PATH)
}

/// The file offset of another process's descriptor; `None` where it is not there or may not be looked at.
pub fn position_in_process(pid: i32, number: i32) -> Option<u64> {
    let mut text = [0u8; 512];
    let text = super::process::read_file(&in_proc(pid, "fdinfo", number), &mut text)?;
    let line = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"pos:"))?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

fn in_proc(pid: i32, folder: &str, number: i32) -> CString {
    CString::new(format!("/proc/{pid}/{folder}/{number}")).unwrap_or_default()
}

/// The same file opened for reading and writing.
pub fn open_again(fd: BorrowedFd) -> Result<OwnedFd> {
    open(&through_proc(fd), libc::O_RDWR | libc::O_NONBLOCK)
}

/// The same file opened for reading, at `position`, which has no other use than to be seen by [`position_in_process`].
pub fn open_at(fd: BorrowedFd, position: u64) -> Result<OwnedFd> {
    let opened = open(&through_proc(fd), libc::O_RDONLY)?;
    // SAFETY: plain numbers.
    match unsafe { libc::lseek(opened.as_raw_fd(), position as libc::off_t, libc::SEEK_SET) } {
        0.. => Ok(opened),
        _ => Err(last_failure("lseek in shared memory")),
    }
}

fn through_proc(fd: BorrowedFd) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default()
}

fn open(path: &CStr, flags: i32) -> Result<OwnedFd> {
    // SAFETY: a NUL-terminated path; a fresh descriptor.
    unsafe { owned(libc::open(path.as_ptr(), flags | libc::O_CLOEXEC).into(), "open").map_err(|error| error.context(text(path))) }
}

fn text(path: &CStr) -> std::borrow::Cow<'_, str> {
    path.to_string_lossy()
}

// ---- names

/// Opens the file with this name; it need not be one of ours.
pub fn open_named(path: &CStr) -> Result<OwnedFd> {
    // Somebody else may have put anything there: a link to elsewhere, a pipe that nobody writes.
    open(path, libc::O_RDWR | libc::O_NOFOLLOW | libc::O_NONBLOCK)
}

/// A file in [`FOLDER`] that has no name yet, and is gone with its last descriptor if it never gets one. `None`: this system has no
/// such files there.
pub fn create_unnamed() -> Result<Option<OwnedFd>> {
    let folder = CString::new(FOLDER).unwrap_or_default();
    // SAFETY: a NUL-terminated path; a fresh descriptor.
    let opened = unsafe {
        owned(libc::open(folder.as_ptr(), libc::O_TMPFILE | libc::O_RDWR | libc::O_CLOEXEC, 0o600).into(), "open(O_TMPFILE)")
    };
    match opened {
        Ok(file) => only_for_owner(file).map(Some),
        Err(error) if matches!(error.errno(), libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL) => Ok(None),
        Err(error) if matches!(error.errno(), libc::ENOENT | libc::ENOTDIR) => {
            Err(Error::new(Kind::NotSupported, "names need /dev/shm, and this system has none"))
        }
        Err(error) => Err(error.context(FOLDER)),
    }
}

/// Whether there is something with this name.
pub fn has_name(path: &CStr) -> bool {
    // SAFETY: all zeros is a valid stat, which the call fills; a NUL-terminated path.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        libc::lstat(path.as_ptr(), &mut stat) == 0
    }
}

/// Gives a name to what [`create_unnamed`] made. `false`: it is taken; `None`: that cannot be done here.
pub fn give_name(fd: BorrowedFd, path: &CStr) -> Result<Option<bool>> {
    // SAFETY: NUL-terminated paths.
    let linked = unsafe {
        let here = libc::AT_FDCWD;
        libc::linkat(here, through_proc(fd).as_ptr(), here, path.as_ptr(), libc::AT_SYMLINK_FOLLOW) == 0
            // Without /proc, and with the privilege.
            || (errno() == libc::ENOENT && libc::linkat(fd.as_raw_fd(), c"".as_ptr(), here, path.as_ptr(), libc::AT_EMPTY_PATH) == 0)
    };
    match errno() {
        _ if linked => Ok(Some(true)),
        libc::EEXIST => Ok(Some(false)),
        libc::ENOENT => Ok(None),
        number => Err(failure(number, format_args!("linkat to {}", text(path)))),
    }
}

/// For where [`create_unnamed`] has nothing: a file of the name `draft`, alone. What somebody who was killed left under that name is
/// thrown away. `None`: somebody is at work there.
pub fn create_draft(draft: &CStr) -> Result<Option<OwnedFd>> {
    let flags = libc::O_CREAT | libc::O_RDWR | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    // SAFETY: a NUL-terminated path; a fresh descriptor.
    let file = unsafe { owned(libc::open(draft.as_ptr(), flags, 0o600).into(), "open").map_err(|e| e.context(text(draft)))? };
    if facts(file.as_fd())?.owner != own_user() || !lock(file.as_fd(), Lock::Alone) {
        return Ok(None);
    }
    // The one before us may have renamed it between our open and our lock: then it is complete, and not ours to empty.
    let still = open_named(draft).and_then(|now| facts(now.as_fd()));
    if !still.is_ok_and(|still| facts(file.as_fd()).is_ok_and(|ours| ours.identity == still.identity)) {
        return Ok(None);
    }
    // SAFETY: plain numbers.
    if unsafe { libc::ftruncate(file.as_raw_fd(), 0) } != 0 {
        return Err(last_failure("ftruncate"));
    }
    only_for_owner(file).map(Some)
}

/// Gives a draft its name, in one step. `false`: it is taken, and the draft is gone.
pub fn name_draft(draft: &CStr, path: &CStr) -> Result<bool> {
    // SAFETY: NUL-terminated paths.
    let result = unsafe {
        libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, draft.as_ptr(), libc::AT_FDCWD, path.as_ptr(), libc::RENAME_NOREPLACE)
    };
    if result == 0 {
        return Ok(true);
    }
    let error = last_failure(format_args!("renameat2 to {}", text(path)));
    // SAFETY: a NUL-terminated path.
    unsafe { libc::unlink(draft.as_ptr()) };
    if error.errno() == libc::EEXIST { Ok(false) } else { Err(error) }
}

/// Whatever the process's umask says.
fn only_for_owner(file: OwnedFd) -> Result<OwnedFd> {
    // SAFETY: plain numbers.
    match unsafe { libc::fchmod(file.as_raw_fd(), 0o600) } {
        0 => Ok(file),
        _ => Err(last_failure("fchmod")),
    }
}

pub fn remove_name(path: &CStr) -> Result<()> {
    // SAFETY: a NUL-terminated path.
    match unsafe { libc::unlink(path.as_ptr()) } {
        0 => Ok(()),
        _ => Err(last_failure(text(path))),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// As long as the descriptor, or a copy of it in a child, is open: somebody uses the file.
    Shared,
    /// Nobody else does.
    Alone,
}

/// Locks the file, or changes its lock; the kernel frees it when the process ends. `false`: others have it.
pub fn lock(fd: BorrowedFd, lock: Lock) -> bool {
    let operation = match lock {
        Lock::Shared => libc::LOCK_SH,
        Lock::Alone => libc::LOCK_EX,
    };
    loop {
        // SAFETY: plain numbers.
        if unsafe { libc::flock(fd.as_raw_fd(), operation | libc::LOCK_NB) } == 0 {
            return true;
        }
        if errno() != libc::EINTR {
            return false;
        }
    }
}

/// [`Lock::Shared`]; whoever has the file alone has it for microseconds, or was stopped.
pub fn lock_shared_patiently(fd: BorrowedFd) -> bool {
    let deadline = Deadline::new(Timeout::Millis(1000));
    loop {
        if lock(fd, Lock::Shared) {
            return true;
        }
        if deadline.passed() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_found_by_its_number_and_its_position() {
        let memory = crate::sys::memory::create(c"tine:test", 4096).unwrap();
        let pin = open_at(memory.as_fd(), 64).unwrap();
        let pid = crate::sys::process::pid();
        let found = of_process(pid, pin.as_raw_fd()).unwrap();
        assert_eq!(facts(found.as_fd()).unwrap(), facts(memory.as_fd()).unwrap());
        assert_eq!(position_in_process(pid, pin.as_raw_fd()), Some(64));
        assert!(never_shrinks(open_again(found.as_fd()).unwrap().as_fd()));
        assert_eq!(position_in_process(pid, 1 << 20), None);
        assert_eq!(of_process(pid, 1 << 20).unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn this_process_is_in_a_namespace() {
        assert!(pid_namespace() != 0);
    }
}
