//! Starting a command: a child that shares this process's memory until it is the command (CLONE_VM and CLONE_VFORK), so that nothing
//! is copied and the cost does not grow with the program.
//!
//! Everything is prepared before as plain data; `child` is what runs in between. Where the kernel, a filter or an emulator refuses
//! such a child, or makes a copy instead, the same code runs in a forked one, which tells by a pipe why it failed.

mod child;

use std::ffi::{CStr, OsStr, c_char, c_void};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::*};

use self::child::Task;
use super::per_process::PerProcess;
use super::signal::{Mask, Sealed};
use super::thread::page_size;
use super::wait::{self, Child, Seen};
use super::withheld::Withheld;
use super::{Deadline, errno, failure, fd, fork, interrupt, last_failure, pidfd, poll, signal};
use crate::error::{Error, Result};
use crate::timeout::Timeout;

/// How often a child is looked at that has no pidfd, and that may not have told its end.
const LOOK_MS: u64 = 100;

/// What is to become of the child.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Tried one after the other; `searched`: until one is there.
    pub paths: Strings<'a>,
    pub searched: bool,
    pub argv: Strings<'a>,
    pub env: Strings<'a>,
    pub cwd: Option<&'a CStr>,
    pub group: Group,
    pub descriptors: Descriptors,
    /// All that are not among `descriptors`.
    pub close_others: bool,
    pub limits: &'a [Limit],
    /// Bits of processors; empty: as this thread's.
    pub affinity: &'a [u64],
    /// Added to this thread's.
    pub nice: i32,
    pub umask: Option<u32>,
    /// With the supplementary groups.
    pub gid: Option<(u32, &'a [u32])>,
    pub uid: Option<u32>,
    /// The mask and what is ignored.
    pub keep_signals: bool,
    /// With that: ignored as well, though this process does not ignore it.
    pub ignored: Option<i32>,
    /// That mask; `None`: this thread's.
    pub mask: Option<Mask>,
    /// Killed when this thread ends, which is of the process of that number: what executes a set-user-id program is not.
    pub ends_with: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Inherited,
    New,
    Join(i32),
    NewSession,
}

/// As setrlimit(2) takes them.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub resource: i32,
    pub soft: u64,
    pub hard: u64,
}

/// A list of C strings as execve(2) wants it.
#[derive(Debug)]
pub struct Strings<'a> {
    pointers: Vec<*const c_char>,
    strings: PhantomData<&'a CStr>,
}

// SAFETY: strings that nobody changes as long as they are borrowed.
unsafe impl Send for Strings<'_> {}

impl<'a> Strings<'a> {
    pub fn new(strings: impl IntoIterator<Item = &'a CStr>) -> Strings<'a> {
        let pointers = strings.into_iter().map(CStr::as_ptr).chain([ptr::null()]).collect();
        Strings { pointers, strings: PhantomData }
    }

    /// The last one is null.
    fn pointers(&self) -> &[*const c_char] {
        &self.pointers
    }
}

/// The environment of this process, entry by entry.
///
/// As with every function of libc that reads it: who changes it on another thread meanwhile gets what he asked for.
pub fn environment<'a>() -> Vec<&'a CStr> {
    unsafe extern "C" {
        static mut environ: *const *const c_char;
    }
    let mut entries = Vec::new();
    // SAFETY: libc's list of strings, which ends with a null; the program may set it to null.
    unsafe {
        let mut at = environ;
        while !at.is_null() && !(*at).is_null() {
            entries.push(CStr::from_ptr(*at));
            at = at.add(1);
        }
    }
    entries
}

/// Which descriptors the child has, and under which numbers.
#[derive(Debug)]
pub struct Descriptors {
    /// From this process's number to the child's.
    moves: Vec<(i32, i32)>,
    /// Where the child finds what it moves.
    sources: Vec<i32>,
    /// The child's numbers that it has to make, sorted.
    overwritten: Vec<i32>,
    /// All of the child's numbers, sorted.
    kept: Vec<i32>,
    /// How many of `moves` are the caller's map; the others are streams.
    mapped: usize,
}

impl Descriptors {
    /// `moves`: this process's numbers and the child's, no two of which are the same; the first `mapped` are the caller's map, the
    /// others streams.
    pub fn new(moves: Vec<(i32, i32)>, mapped: usize) -> Descriptors {
        let mut overwritten: Vec<i32> = moves.iter().filter(|(from, to)| from != to).map(|&(_, to)| to).collect();
        overwritten.sort_unstable();
        // Room for what the child adds: it must not allocate.
        let mut kept = Vec::with_capacity(moves.len() + 2);
        kept.extend(moves.iter().map(|&(_, to)| to));
        kept.sort_unstable();
        let sources = moves.iter().map(|&(from, _)| from).collect();
        Descriptors { moves, sources, overwritten, kept, mapped }
    }

    /// What the caller knows a move as.
    fn name(&self, at: usize) -> String {
        match self.moves[at].1 {
            _ if at < self.mapped => format!("options.fds[{at}]"),
            0 => "stdin".into(),
            1 => "stdout".into(),
            _ => "stderr".into(),
        }
    }

    /// This process's numbers that it needs.
    pub fn taken(&self) -> impl Iterator<Item = i32> {
        self.moves.iter().map(|&(from, _)| from)
    }
}

/// A child that is the command now, or was ended on its way there by a signal.
#[derive(Debug)]
pub struct Started {
    pub pid: i32,
    pub watch: Watch,
}

/// How its end will be noticed.
#[derive(Debug)]
pub enum Watch {
    Pidfd(OwnedFd),
    /// The read end of its exit pipe, and when it started.
    Pipe {
        read: OwnedFd,
        started: Option<u64>,
    },
}

/// How far a child came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
enum Step {
    /// No step failed.
    None,
    Group,
    Session,
    Nice,
    Affinity,
    Descriptor,
    Limit,
    Groups,
    Gid,
    Uid,
    Cwd,
    Exec,
}

/// What a child tells its parent.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Report {
    step: Step,
    detail: i32,
    errno: i32,
    unused: u32,
    /// See `process::start_time`; 0 = unknown, or not needed.
    start_time: u64,
}

const NOTHING: Report = Report { step: Step::None, detail: 0, errno: 0, unused: 0, start_time: 0 };

/// Starts the command; fails with the step that failed, and then nothing is left of the child.
pub fn start(plan: &mut Plan) -> Result<Started> {
    loop {
        let shared = shares_memory()?;
        let by_pidfd = pidfd::supported();
        match attempt(plan, shared, by_pidfd)? {
            Some(started) => return Ok(started),
            // A filter, perhaps one that was installed since the first command; once more without.
            None if shared => SHARES.store(NO, Relaxed),
            None if by_pidfd => pidfd::give_up(),
            None => return Err(last_failure("clone")),
        }
    }
}

/// `None`: such a child is refused.
fn attempt(plan: &mut Plan, shared: bool, by_pidfd: bool) -> Result<Option<Started>> {
    let stack = Stack::new()?;
    // Their ends tell something: no function child may hold them open.
    let exit_pipe = if by_pidfd { None } else { Some(Withheld::pipe()?) };
    let report_pipe = if shared { None } else { Some(Withheld::pipe()?) };
    let write_end = |pipe: &Option<(Withheld, Withheld)>| pipe.as_ref().map_or(-1, |(_, write)| write.as_raw_fd());
    let dumpable = Dumpable::before(plan);

    let sealed = Sealed::all();
    let (report_fd, exit_fd) = (write_end(&report_pipe), write_end(&exit_pipe));
    let mask = plan.mask.unwrap_or(sealed.before());
    let mut task = Task { plan, report: NOTHING, report_fd, exit_fd, mask };
    // A child without a signal at its end is nobody's but ours until it is the command: who waits for any child does not see it.
    let mut flags = if shared { libc::CLONE_VM | libc::CLONE_VFORK } else { libc::SIGCHLD };
    if by_pidfd {
        flags |= libc::CLONE_PIDFD;
    }
    let (pid, own_fd) = stack.clone(child::run, flags, (&raw mut task).cast());
    let errno = errno();
    drop(sealed);
    drop(dumpable);

    if pid < 0 {
        return match errno {
            libc::EPERM | libc::ENOSYS | libc::EINVAL if shared || by_pidfd => Ok(None),
            errno => Err(failure(errno, "clone")),
        };
    }
    // SAFETY: the kernel made it for us.
    let own_fd = (own_fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(own_fd) });
    let [exit_pipe, report_pipe] = [exit_pipe, report_pipe].map(|pipe| pipe.map(|(read, _write)| read));
    let report = match report_pipe {
        Some(read) => last_report(&read, pid, own_fd.as_ref()),
        None => task.report,
    };
    if report.step != Step::None {
        let _ = wait::reap_blocking(own_fd.as_ref().map_or(Child::Pid(pid), |fd| Child::Pidfd(fd.as_fd())));
        return Err(describe(task.plan, report));
    }
    let watch = match exit_pipe {
        Some(read) => {
            Watch::Pipe { read: read.into_owned(), started: Some(report.start_time).filter(|&start_time| start_time > 0) }
        }
        None => Watch::Pidfd(held(pid, own_fd)?),
    };
    Ok(Some(Started { pid, watch }))
}

/// The descriptor of a child that runs, or else it is ended.
fn held(pid: i32, own_fd: Option<OwnedFd>) -> Result<OwnedFd> {
    let Some(own_fd) = own_fd else {
        // No kernel with pidfd_open leaves it out, but an emulator might.
        let _ = signal::send_to_child(pid, signal::KILL);
        let _ = wait::reap_blocking(Child::Pid(pid));
        return Err(failure(libc::ENOSYS, "clone(CLONE_PIDFD)"));
    };
    if own_fd.as_raw_fd() > 2 {
        return Ok(own_fd);
    }
    // Only where this program has closed one of 0, 1 and 2.
    fd::duplicate(&own_fd).inspect_err(|_| {
        let _ = pidfd::send_signal(&own_fd, signal::KILL);
        let _ = wait::reap_blocking(Child::Pidfd(own_fd.as_fd()));
    })
}

/// The last word of a child that does not share our memory: the pipe ends when the child is the command, or is gone. Where a copy of
/// the program that somebody forked holds the pipe open, only its own end tells that.
fn last_report(read: &Withheld, pid: i32, own_fd: Option<&OwnedFd>) -> Report {
    let mut last = NOTHING;
    let mut is_gone = false;
    loop {
        let timeout = match own_fd {
            // Once more when it is gone: it may have said something between the two looks.
            _ if is_gone => Timeout::Try,
            Some(_) => Timeout::Forever,
            None => Timeout::Millis(LOOK_MS),
        };
        let fds = [read.as_raw_fd(), own_fd.map_or(-1, AsRawFd::as_raw_fd)];
        // Where it cannot wait, reading does.
        let ready = interrupt::unasked(|| poll::readable(&fds, &Deadline::new(timeout))).unwrap_or(1);
        if ready & 1 == 0 {
            if is_gone {
                return last;
            }
            is_gone = ready != 0 || !matches!(wait::peek(Child::Pid(pid)), Ok(Seen::Nothing | Seen::Stopped { .. }));
            continue;
        }
        let mut report = MaybeUninit::<Report>::uninit();
        // SAFETY: writable for that many bytes.
        let length = unsafe { libc::read(read.as_raw_fd(), report.as_mut_ptr().cast(), size_of::<Report>()) };
        if length == size_of::<Report>() as isize {
            // SAFETY: our own child wrote a whole Report into a pipe that nobody else has: a write so short is never split.
            last = unsafe { report.assume_init() };
        } else if length >= 0 || errno() != libc::EINTR {
            return last;
        }
    }
}

/// What a child failed at, in words.
#[cold]
fn describe(plan: &Plan, report: Report) -> Error {
    let Report { step, detail, errno, .. } = report;
    let text = |text: *const c_char| {
        // SAFETY: one of the plan's own strings.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    match step {
        Step::None => failure(errno, "clone"),
        Step::Group => match plan.group {
            Group::Join(group) => failure(errno, format_args!("setpgid to group {group}")),
            _ => failure(errno, "setpgid"),
        },
        Step::Session => failure(errno, "setsid"),
        Step::Nice => failure(errno, format_args!("nice {detail}")),
        Step::Affinity => failure(errno, "options.affinity: sched_setaffinity"),
        // -1: a pipe of the library's own.
        Step::Descriptor => match usize::try_from(detail).ok().and_then(|at| Some((at, plan.descriptors.moves.get(at)?))) {
            Some((at, (from, to))) if from == to => {
                failure(errno, format_args!("{}: keeping fd {from}", plan.descriptors.name(at)))
            }
            Some((at, (from, to))) => failure(errno, format_args!("{}: dup2 of fd {from} to {to}", plan.descriptors.name(at))),
            None => failure(errno, "dup"),
        },
        Step::Limit => {
            let resource = usize::try_from(detail).ok().and_then(|at| plan.limits.get(at)).map_or(-1, |limit| limit.resource);
            failure(errno, format_args!("options.rlimits[{detail}]: setrlimit of resource {resource}"))
        }
        Step::Groups => failure(errno, "setgroups"),
        Step::Gid => failure(errno, format_args!("setgid {}", plan.gid.map_or(0, |(gid, _)| gid))),
        Step::Uid => failure(errno, format_args!("setuid {}", plan.uid.unwrap_or_default())),
        Step::Cwd => failure(errno, format_args!("chdir to \"{}\"", plan.cwd.unwrap_or_default().to_string_lossy())),
        Step::Exec => {
            let paths = plan.paths.pointers().iter().filter(|path| !path.is_null()).map(|&path| text(path));
            let folder = plan.cwd.map_or(Path::new(""), |cwd| Path::new(OsStr::from_bytes(cwd.to_bytes())));
            let mut there = paths.clone().filter(|path| folder.join(path).exists());
            match (errno, there.next()) {
                (libc::ENOENT, Some(path)) => failure(errno, format_args!("exec of \"{path}\", whose interpreter is missing")),
                _ if plan.searched => failure(errno, "exec, searched for in PATH"),
                _ => failure(errno, format_args!("exec of \"{}\"", paths.collect::<String>())),
            }
        }
    }
}

/// A child that shares our memory and changes its user makes the kernel protect that memory (no core file, /proc only for root):
/// right while the two share it, wrong for us afterwards. The first such child finds out what it was, and the last restores it.
struct Dumpable;

#[derive(Default)]
struct Sharers {
    count: u32,
    dumpable: bool,
}

static SHARERS: PerProcess<Sharers> = PerProcess::new();

impl Dumpable {
    /// Until the answer is dropped the child may share our memory.
    fn before(plan: &Plan) -> Option<Dumpable> {
        (plan.uid.is_some() || plan.gid.is_some()).then(|| {
            SHARERS.with(|sharers| {
                if sharers.count == 0 {
                    // SAFETY: no pointers.
                    sharers.dumpable = unsafe { libc::prctl(libc::PR_GET_DUMPABLE) } == 1;
                }
                sharers.count += 1;
            });
            Dumpable
        })
    }
}

impl Drop for Dumpable {
    fn drop(&mut self) {
        SHARERS.with(|sharers| {
            sharers.count -= 1;
            if sharers.count == 0 && sharers.dumpable {
                // SAFETY: no pointers.
                unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
            }
        });
    }
}

/// What the child runs on; below it lies a page that nobody may touch.
struct Stack {
    start: *mut c_void,
    length: usize,
}

impl Stack {
    fn new() -> Result<Stack> {
        let guard = page_size();
        let length = guard + (64 << 10);
        // SAFETY: a fresh mapping, of which all but the lowest page is made accessible.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
            let start = libc::mmap(ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0);
            if start == libc::MAP_FAILED {
                return Err(last_failure("mmap of a stack"));
            }
            let stack = Stack { start, length };
            match libc::mprotect(start.byte_add(guard), length - guard, libc::PROT_READ | libc::PROT_WRITE) {
                0 => Ok(stack),
                _ => Err(last_failure("mprotect of a stack")),
            }
        }
    }

    /// A child that runs `body` on this stack; its number, or -1, and the pidfd if `flags` asks for one.
    fn clone(&self, body: extern "C" fn(*mut c_void) -> i32, flags: i32, argument: *mut c_void) -> (i32, i32) {
        let mut own_fd = -1;
        let none = ptr::null_mut::<c_void>();
        // SAFETY: the top of a stack that lives until the child has other memory: it shares ours only while this thread stands still,
        // or, in the probe, until it was waited for. The body's argument is the caller's promise: all of this is private.
        let pid = unsafe { libc::clone(body, self.start.byte_add(self.length), flags, argument, &raw mut own_fd, none, none) };
        (pid, own_fd)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { libc::munmap(self.start, self.length) };
    }
}

/// Whether a child may share our memory, and stops us meanwhile; asked once, by making one. Emulators make a copy, and so does valgrind.
fn shares_memory() -> Result<bool> {
    if SHARES.load(Relaxed) == UNKNOWN {
        let answer = probe()?;
        SHARES.store(if answer { YES } else { NO }, Relaxed);
    }
    Ok(SHARES.load(Relaxed) == YES)
}

const UNKNOWN: u8 = 0;
const YES: u8 = 1;
const NO: u8 = 2;
/// Relaxed: the answer is all there is, and who comes too early asks again.
static SHARES: AtomicU8 = AtomicU8::new(UNKNOWN);

fn probe() -> Result<bool> {
    extern "C" fn body(word: *mut c_void) -> i32 {
        let moment = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        // SAFETY: a live timespec; and a word that the parent keeps until it has waited for us.
        unsafe {
            libc::syscall(libc::SYS_nanosleep, &raw const moment, ptr::null_mut::<libc::timespec>());
            (*word.cast::<AtomicU32>()).store(1, SeqCst);
        }
        fork::exit_now(0)
    }
    let word = AtomicU32::new(0);
    let stack = Stack::new()?;
    let sealed = Sealed::all();
    let (pid, _) = stack.clone(body, libc::CLONE_VM | libc::CLONE_VFORK, (&raw const word).cast_mut().cast());
    let (errno, seen) = (errno(), word.load(SeqCst));
    drop(sealed);
    match pid {
        0.. => {
            let _ = wait::reap_blocking(Child::Pid(pid));
            Ok(seen == 1)
        }
        _ if matches!(errno, libc::EPERM | libc::ENOSYS | libc::EINVAL) => Ok(false),
        _ => Err(failure(errno, "clone")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_overwritten_is_what_gets_another_number() {
        let descriptors = Descriptors::new(vec![(1, 5), (5, 1), (0, 0), (9, 2)], 2);
        assert_eq!(descriptors.overwritten, [1, 2, 5]);
        assert_eq!(descriptors.kept, [0, 1, 2, 5]);
        assert!(descriptors.kept.capacity() >= 6);
        assert_eq!([0, 1, 2, 3].map(|at| descriptors.name(at)), ["options.fds[0]", "options.fds[1]", "stdin", "stderr"]);
    }

    #[test]
    fn the_environment_is_that_of_the_process() {
        let path = std::env::var("PATH").unwrap();
        assert!(environment().iter().any(|entry| entry.to_bytes() == format!("PATH={path}").as_bytes()));
    }
}
