//! What a command's process does until it is the command.
//!
//! It shares the memory of the program that started it, on a stack of its own, while the thread that started it stands still. So:
//! nothing is allocated or freed, nothing panics, no lock is taken, no destructor is registered, no signal arrives, and the system
//! calls are raw: libc's would act on a cancellation of the waiting thread, or tell all threads of the program of a setuid(2).

use std::convert::Infallible;
use std::ffi::{c_char, c_int, c_long, c_void};

use super::{Descriptors, Group, Plan, Report, Step};
use crate::sys::descriptors::{Keep, close_all_except};
use crate::sys::errno::errno;
use crate::sys::signal::Mask;
use crate::sys::{fork, process};

/// What the parent hands to its child. It stays where it is until the child has another memory.
pub(super) struct Task<'p, 'a> {
    pub(super) plan: &'p mut Plan<'a>,
    /// What the parent reads, where the memory is shared.
    pub(super) report: Report,
    /// Where it reads it otherwise: the write end of a pipe, else -1.
    pub(super) report_fd: c_int,
    /// The write end of the exit pipe, which the command keeps; -1 with pidfds.
    pub(super) exit_fd: c_int,
    /// The caller's signal mask.
    pub(super) mask: Mask,
}

/// A step that failed, and a number that says at what.
struct Failure(Step, c_int, c_int);

type Result<T = ()> = std::result::Result<T, Failure>;

/// A raw system call. Every argument is a plain number or points to memory that the call's own rules ask for.
macro_rules! call {
    ($number:expr $(, $argument:expr)*) => {
        // SAFETY: pointers are live and as long as the call says; the numbers are this process's own business.
        unsafe { libc::syscall($number $(, $argument)*) }
    };
}

fn check(result: c_long, step: Step, detail: c_int) -> Result<c_int> {
    if result < 0 { Err(Failure(step, detail, errno())) } else { Ok(result as c_int) }
}

/// Never returns.
pub(super) extern "C" fn run(task: *mut c_void) -> c_int {
    // SAFETY: a Task that lives as long as this, and that nobody else touches meanwhile.
    let task = unsafe { &mut *task.cast::<Task>() };
    if task.exit_fd >= 0 {
        task.report.start_time = process::start_time(process::pid()).unwrap_or(0);
    }
    task.tell();
    let Err(Failure(step, detail, errno)) = task.execute();
    task.report = Report { step, detail, errno, unused: 0, ..task.report };
    task.tell();
    if task.report_fd >= 0 {
        // A copy of the host under an instrument that flushes the streams of whoever exits: what is in them is the host's to print.
        fork::kill_self();
    }
    fork::exit_now(127)
}

impl Task<'_, '_> {
    /// To a parent that does not share this memory.
    fn tell(&self) {
        if self.report_fd >= 0 {
            call!(libc::SYS_write, self.report_fd, &raw const self.report, size_of::<Report>());
        }
    }

    fn execute(&mut self) -> Result<Infallible> {
        // First of all: no handler of the host runs in this process.
        reset_signals(self.plan.keep_signals, self.plan.ignored);
        self.place()?;
        self.set_descriptors()?;
        self.limit()?;
        self.become_user()?;
        if let Some(cwd) = self.plan.cwd {
            check(call!(libc::SYS_chdir, cwd.as_ptr()), Step::Cwd, 0)?;
        }
        if let Some(parent) = self.plan.ends_with {
            // After the change of the user, which undoes it.
            process::set_parent_death_signal(libc::SIGKILL);
            if process::parent_pid() != parent {
                // It has ended meanwhile, and nobody hears of this one.
                fork::exit_now(127);
            }
        }
        self.close_others();
        if self.plan.keep_signals { self.mask } else { Mask::EMPTY }.set();
        self.replace()
    }

    /// Where the process stands among others.
    fn place(&self) -> Result {
        match self.plan.group {
            Group::Inherited => {}
            Group::New => drop(check(call!(libc::SYS_setpgid, 0, 0), Step::Group, 0)?),
            Group::Join(group) => drop(check(call!(libc::SYS_setpgid, 0, group), Step::Group, group)?),
            Group::NewSession => drop(check(call!(libc::SYS_setsid), Step::Session, 0)?),
        }
        if self.plan.nice != 0 {
            // The raw call answers 20 - nice.
            let now = 20 - check(call!(libc::SYS_getpriority, libc::PRIO_PROCESS, 0), Step::Nice, self.plan.nice)?;
            let nice = now.saturating_add(self.plan.nice);
            check(call!(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, nice), Step::Nice, self.plan.nice)?;
        }
        let affinity = self.plan.affinity;
        if !affinity.is_empty() {
            check(call!(libc::SYS_sched_setaffinity, 0, size_of_val(affinity), affinity.as_ptr()), Step::Affinity, 0)?;
        }
        if let Some(umask) = self.plan.umask {
            call!(libc::SYS_umask, umask);
        }
        Ok(())
    }

    /// Every descriptor gets the number that the command knows it by.
    fn set_descriptors(&mut self) -> Result {
        let Descriptors { moves, sources, overwritten, kept, .. } = &mut self.plan.descriptors;
        let is_overwritten = |fd: c_int| overwritten.binary_search(&fd).is_ok();
        // What a later step would close is moved out of its way.
        let safe = |fd: c_int, detail: c_int| -> Result<c_int> {
            let mut free = fd;
            while is_overwritten(free) {
                let floor = if free == fd { 3 } else { free.saturating_add(1) };
                free = check(call!(libc::SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, floor), Step::Descriptor, detail)?;
            }
            Ok(free)
        };
        for (at, (&(from, to), source)) in moves.iter().zip(sources.iter_mut()).enumerate() {
            if from != to {
                *source = safe(from, at as c_int)?;
            }
        }
        // There is room for both: see `Descriptors::new`.
        for own in [&mut self.report_fd, &mut self.exit_fd] {
            if *own >= 0 {
                *own = safe(*own, -1)?;
                kept.push(*own);
            }
        }
        kept.sort_unstable();
        for (at, (&(from, to), &source)) in moves.iter().zip(sources.iter()).enumerate() {
            let done = match from == to {
                true => call!(libc::SYS_fcntl, from, libc::F_SETFD, 0),
                false => call!(libc::SYS_dup3, source, to, 0),
            };
            check(done, Step::Descriptor, at as c_int)?;
        }
        if self.exit_fd >= 0 {
            check(call!(libc::SYS_fcntl, self.exit_fd, libc::F_SETFD, 0), Step::Descriptor, -1)?;
        }
        Ok(())
    }

    fn close_others(&self) {
        if self.plan.close_others {
            close_all_except(&self.plan.descriptors.kept, Keep::Listed);
        }
    }

    fn limit(&self) -> Result {
        if self.plan.limits.iter().any(|limit| limit.resource == libc::RLIMIT_NOFILE as i32) {
            // Without close_range what is open could not be found any more: that takes a descriptor, or the limit that was.
            self.close_others();
        }
        for (at, limit) in self.plan.limits.iter().enumerate() {
            let new = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
            let none = std::ptr::null_mut::<libc::rlimit64>();
            check(call!(libc::SYS_prlimit64, 0, limit.resource, &raw const new, none), Step::Limit, at as c_int)?;
        }
        Ok(())
    }

    fn become_user(&self) -> Result {
        if let Some((gid, groups)) = self.plan.gid {
            let set = call!(libc::SYS_setgroups, groups.len(), groups.as_ptr());
            // Who may not give groups up and was not asked to take any keeps them.
            if !(groups.is_empty() && set < 0 && errno() == libc::EPERM) {
                check(set, Step::Groups, 0)?;
            }
            check(call!(libc::SYS_setresgid, gid, gid, gid), Step::Gid, 0)?;
        }
        if let Some(uid) = self.plan.uid {
            check(call!(libc::SYS_setresuid, uid, uid, uid), Step::Uid, 0)?;
        }
        Ok(())
    }

    /// As execvp(3), but what has the wrong format is no shell script.
    fn replace(&self) -> Result<Infallible> {
        let Plan { paths, argv, env, .. } = &*self.plan;
        let mut refused = false;
        for &path in paths.pointers().iter().take_while(|path| !path.is_null()) {
            let (argv, env): (*const *const c_char, *const *const c_char) = (argv.pointers().as_ptr(), env.pointers().as_ptr());
            call!(libc::SYS_execve, path, argv, env);
            match errno() {
                libc::EACCES => refused = true,
                libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT
                    if self.plan.searched => {}
                errno => return Err(Failure(Step::Exec, 0, errno)),
            }
        }
        Err(Failure(Step::Exec, 0, if refused { libc::EACCES } else { libc::ENOENT }))
    }
}

/// Every signal does what it does by default; with `keep_ignored` those that are ignored stay so, and `ignored` becomes so.
fn reset_signals(keep_ignored: bool, ignored: Option<i32>) {
    /// The kernel's struct sigaction begins with the handler; it is not longer than this on any architecture.
    type Action = [usize; 16];
    const DEFAULT: Action = [0; 16];
    const IGNORED: usize = libc::SIG_IGN;
    for signal in 1..=Mask::SIGNALS {
        let mut now = DEFAULT;
        if keep_ignored {
            call!(libc::SYS_rt_sigaction, signal, std::ptr::null::<Action>(), now.as_mut_ptr(), Mask::BYTES);
        }
        if now[0] == IGNORED {
            continue;
        }
        now = DEFAULT;
        if keep_ignored && ignored == Some(signal) {
            now[0] = IGNORED;
        }
        // KILL and STOP refuse.
        call!(libc::SYS_rt_sigaction, signal, now.as_ptr(), std::ptr::null_mut::<Action>(), Mask::BYTES);
    }
}
