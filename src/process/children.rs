//! The parent's side of its children.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::record::Record;
use super::tree::Tree;
use crate::error::{Error, Kind, Result};
use crate::sys::fd::PrivateFd;
use crate::sys::per_process::PerProcess;
use crate::sys::wait::{self, Ending, Seen, Usage};
use crate::sys::{self, Deadline, interrupt, pidfd, poll, process, signal};
use crate::timeout::Timeout;

/// How long what was killed may take to die: longer only in uninterruptible sleep.
const KILL_MS: u64 = 10_000;
/// How long daemon children may take to end by themselves when the host exits.
const EXIT_GRACE_MS: u64 = 2_000;
/// How often a child without a pidfd is looked at, beside its exit pipe: a process that it forked may hold that open.
const LOOK_MS: u64 = 100;
/// How much the kernel's counts of memory may be wrong: each processor keeps some for itself.
const PEAK_SLACK: u64 = 1 << 20;
/// How often a group is looked at whose leader has ended.
const GROUP_LOOK_MS: u64 = 10;
/// What the kernel may need between two steps of a process's end.
const MOMENT: Duration = Duration::from_millis(1);

/// How a child ended, as far as anybody knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) ending: Option<Ending>,
    pub(super) usage: Option<Usage>,
}

/// A child of this process; shared by its handle, those who wait, and the list of [`CHILDREN`].
#[derive(Debug)]
pub(super) struct Child {
    id: u64,
    pub(super) name: CString,
    pub(super) pid: i32,
    watch: Watch,
    pub(super) what: What,
    /// Its handle is gone: reaped as soon as it has ended. Relaxed: set under the lock of [`CHILDREN`], and `state`'s comes after; who
    /// reads it too early leaves the child to the next.
    freed: AtomicBool,
    /// The library ended it, at the caller's wish: a death by signal is its doing. Relaxed: set before the signal, and read once the end
    /// is known, which the kernel puts behind it.
    pub(super) stopping: AtomicBool,
    /// It leads a group that the kernel signals by its leader's number only: below Linux 6.9, or without pidfds.
    group_by_number: bool,
    /// It is the supervisor of a command, which is the child that the caller knows.
    pub(super) tree: OnceLock<Tree>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Known once it has ended.
    end: Option<End>,
    reaped: bool,
    /// How many need its number to stay its own: it is not reaped meanwhile.
    pins: u32,
    /// One of these is for what outlived it in its group.
    keeps_group: bool,
}

/// What a child is.
#[derive(Debug)]
pub(super) enum What {
    /// A function. `detached`: neither joined nor ended at exit.
    Function { record: Record, daemon: bool, detached: bool },
    /// A command, which is neither.
    Command(Command),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Command {
    /// It leads a process group.
    pub(super) leads: bool,
    /// The high-water mark of this process's memory when the command began: the kernel counts that as the command's.
    pub(super) peak_before: u64,
}

/// How the end of a child is noticed.
#[derive(Debug)]
pub(super) enum Watch {
    Pidfd(PrivateFd),
    /// The read end of its exit pipe, and when it started.
    Pipe {
        read: PrivateFd,
        started: Option<u64>,
    },
}

impl Watch {
    /// The child to wait for, whose number is `pid`.
    pub(super) fn child(&self, pid: i32) -> wait::Child<'_> {
        match self {
            Watch::Pidfd(fd) => wait::Child::Pidfd(fd.as_fd()),
            Watch::Pipe { .. } => wait::Child::Pid(pid),
        }
    }

    /// As [`pidfd::signal_group`].
    fn signal_group(&self, signal: i32) -> Option<sys::errno::Result<bool>> {
        match self {
            Watch::Pidfd(fd) => pidfd::signal_group(fd, signal),
            Watch::Pipe { .. } => None,
        }
    }
}

impl Child {
    pub(super) fn new(name: CString, pid: i32, watch: Watch, what: What) -> Arc<Child> {
        let id = CHILDREN.with(|children| {
            children.last_id += 1;
            children.last_id
        });
        let leads = matches!(what, What::Command(Command { leads: true, .. }));
        let group_by_number = leads && watch.signal_group(0).is_none();
        let child = Arc::new(Child {
            id,
            name,
            pid,
            watch,
            what,
            freed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            group_by_number,
            tree: OnceLock::new(),
            state: Mutex::default(),
        });
        CHILDREN.with(|children| children.running.insert(id, child.clone()));
        child
    }

    /// The number of the process that the caller knows.
    pub(super) fn number(&self) -> i32 {
        self.tree.get().map_or(self.pid, |tree| tree.command)
    }

    /// What messages call it.
    pub(super) fn label(&self) -> String {
        format!("process \"{}\" ({})", self.name.to_string_lossy(), self.number())
    }

    pub(super) fn is_daemon(&self) -> bool {
        matches!(self.what, What::Function { daemon: true, .. })
    }

    fn is_joined_at_exit(&self) -> bool {
        matches!(self.what, What::Function { detached: false, .. })
    }

    /// The code that a function wrote down.
    fn code(&self) -> Option<Ending> {
        match &self.what {
            What::Function { record, .. } => record.code().map(Ending::Exited),
            What::Command(_) => None,
        }
    }

    pub(super) fn fd(&self) -> i32 {
        match &self.watch {
            Watch::Pidfd(fd) | Watch::Pipe { read: fd, .. } => fd.as_raw_fd(),
        }
    }

    /// What it used itself of a high-water mark that the kernel tells, which begins at its parent's; 0 where that says nothing.
    pub(super) fn own_peak(&self, peak: u64) -> u64 {
        let before = match (&self.what, self.tree.get()) {
            (What::Command(command), _) => command.peak_before,
            (_, Some(tree)) => tree.peak_before,
            _ => return 0,
        };
        if peak > before.saturating_add(PEAK_SLACK) { peak } else { 0 }
    }

    /// Without a pidfd: another process may hold the exit pipe open, so the end has to be looked for.
    pub(super) fn may_tell_late(&self) -> bool {
        matches!(self.watch, Watch::Pipe { .. })
    }

    /// Nothing panics under it, so it is never poisoned.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reaps the child if it has ended; answers how it did, `None` while it runs.
    pub(super) fn try_reap(&self) -> Option<End> {
        let mut state = self.lock();
        if state.reaped || (state.pins > 0 && state.end.is_some()) {
            return state.end;
        }
        if self.group_by_number && state.end.is_none() {
            state.end = self.look(wait::peek);
            // Whoever is left there could not be signalled any more; afterwards nobody joins.
            let keeps = state.end.is_some() && !self.freed.load(Relaxed) && process::group_lives(self.pid) != Some(false);
            (state.keeps_group, state.pins) = (keeps, state.pins + u32::from(keeps));
        }
        let take = if state.pins > 0 { wait::peek } else { wait::reap };
        let seen = self.look(take);
        if state.end.is_none() {
            state.end = seen.map(|end| self.tree.get().map_or(end, Tree::end));
        }
        if state.end.is_some() && state.pins == 0 {
            state.reaped = true;
            // The list's share is dropped outside of its lock.
            drop(CHILDREN.with(|children| {
                let child = children.running.remove(&self.id);
                children.freed -= usize::from(child.is_some() && self.freed.load(Relaxed));
                child
            }));
        }
        state.end
    }

    /// Whether it has ended; it is not reaped, and nothing is kept.
    pub(super) fn has_ended(&self) -> bool {
        let state = self.lock();
        state.end.is_some() || self.look(wait::peek).is_some()
    }

    /// Its number stays its own until the answer is dropped, unless the host itself reaps it.
    fn pin(&self) -> Pin<'_> {
        self.lock().pins += 1;
        Pin(self)
    }

    /// Nobody will signal its group any more.
    fn let_group_go(&self) {
        let mut state = self.lock();
        state.pins -= u32::from(std::mem::take(&mut state.keeps_group));
    }

    /// Under the lock: nobody else of ours reaps it meanwhile.
    fn look(&self, take: fn(wait::Child) -> sys::errno::Result<Seen>) -> Option<End> {
        if !self.number_is_its_own() {
            return self.reaped_by_others();
        }
        match take(self.watch.child(self.pid)) {
            Ok(Seen::Ended { ending, usage, .. }) => Some(End { ending: Some(ending), usage: Some(usage) }),
            Ok(Seen::Nothing | Seen::Stopped { .. }) => None,
            Ok(Seen::NotOurs) | Err(_) => self.reaped_by_others(),
        }
    }

    /// Whether the number may still name this child: not if a process that started at another time has it. A zombie has its start
    /// time, too. Where there is nothing to read, the kernel will say that there is no such child.
    fn number_is_its_own(&self) -> bool {
        let Watch::Pipe { started: Some(started), .. } = self.watch else { return true };
        process::start_time(self.pid).is_none_or(|now| now == started)
    }

    /// The host took the status. What is left: the kernel's memory of it, and what the child wrote down itself.
    fn reaped_by_others(&self) -> Option<End> {
        let known = |ending| Some(End { ending, usage: None });
        let Watch::Pidfd(fd) = &self.watch else { return known(self.code()) };
        if !pidfd::has_ended(fd) {
            return None;
        }
        if let Some(ending) = pidfd::exit_status(fd.as_fd()) {
            return known(Some(ending));
        }
        if let Some(ending) = self.code() {
            return known(Some(ending));
        }
        // Descriptors tell the end a moment before the kernel has written down how.
        for _ in 0..20 {
            std::thread::sleep(MOMENT);
            if let Some(ending) = pidfd::exit_status(fd.as_fd()) {
                return known(Some(ending));
            }
        }
        known(None)
    }

    /// Waits until the child has ended and reaps it; `None`: the time ran out.
    pub(super) fn wait(&self, deadline: &Deadline) -> Result<Option<End>> {
        loop {
            if let Some(end) = self.try_reap() {
                return Ok(Some(end));
            }
            if deadline.passed() {
                return Ok(None);
            }
            sleep_on(&[self], deadline)?;
        }
    }

    /// `false`: it has ended.
    pub(super) fn send(&self, signal: i32) -> Result<bool> {
        if let Some(tree) = self.tree.get() {
            return tree.send(signal).map_err(|error| error.context(self.label()));
        }
        if let Watch::Pidfd(fd) = &self.watch {
            match pidfd::send_signal(fd, signal) {
                Ok(sent) => return Ok(sent),
                // A filter that was installed after the first probe may refuse the call.
                Err(errno) if !pidfd::is_refusal(errno) => return Err(self.send_failure(errno, signal)),
                Err(_) => {}
            }
        }
        // Under the lock nobody of ours reaps it, so its number stays its own.
        let state = self.lock();
        if state.end.is_some() || !self.number_is_its_own() {
            return Ok(false);
        }
        signal::send_to_child(self.pid, signal).map_err(|errno| self.send_failure(errno, signal))
    }

    #[cold]
    fn send_failure(&self, errno: i32, signal: i32) -> Error {
        sys::failure(errno, format_args!("{}: signal {signal}", self.label()))
    }

    /// TERM, a grace, KILL; without a grace KILL; answers whether it ended. Of one that leads a group the whole group, also when it has
    /// ended itself.
    pub(super) fn stop(&self, grace: &Deadline) -> Result<bool> {
        let leads = matches!(self.what, What::Command(Command { leads: true, .. }));
        // Also a leader that has ended: it is not reaped before its group is gone.
        let _pin = leads.then(|| self.pin());
        let ended = self.try_reap().is_some();
        if ended && !leads {
            return Ok(true);
        }
        if !ended {
            self.stopping.store(true, Relaxed);
        }
        let polite = !grace.is_try();
        if leads {
            // Whom no signal reaches will not end of it.
            let reached = !polite || self.send_to_group(signal::TERM)?;
            if self.wait(grace)?.is_none() || (reached && !self.group_has_ended(grace)?) {
                self.send_to_group(signal::KILL)?;
            }
        } else {
            if polite {
                self.ask_to_end(grace)?;
            }
            if self.wait(grace)?.is_none() {
                self.send(signal::KILL)?;
            }
        }
        // An interrupt check has no say any more: it ends at once, and nobody comes back to reap it.
        let last = Deadline::new(Timeout::Millis(KILL_MS));
        let waited = interrupt::unasked(|| self.wait(&last));
        self.let_group_go();
        waited.map(|end| end.is_some())
    }

    /// A supervisor that takes no signal is asked until the grace has passed: then it has to be KILL.
    fn ask_to_end(&self, grace: &Deadline) -> Result<()> {
        while let Err(error) = self.send(signal::TERM) {
            if error.kind() != Kind::Again {
                return Err(error);
            }
            if self.wait(&grace.at_most(LOOK_MS))?.is_some() || grace.passed() {
                break;
            }
        }
        Ok(())
    }

    /// `false`: nobody is in its group any more, or nobody can say whether what has that number is its group.
    fn send_to_group(&self, signal: i32) -> Result<bool> {
        let failure = |errno| sys::failure(errno, format_args!("{}: signal {signal} to its group", self.label()));
        if let Some(sent) = self.watch.signal_group(signal) {
            return sent.map_err(failure);
        }
        let state = self.lock();
        let own = !state.reaped && self.number_is_its_own();
        if !own || !matches!(wait::peek(self.watch.child(self.pid)), Ok(Seen::Nothing | Seen::Ended { .. })) {
            return Ok(false);
        }
        signal::send_to_group(self.pid, signal).map_err(failure)
    }

    /// Waits until nobody is in the group that it led; `false`: the time ran out.
    fn group_has_ended(&self, deadline: &Deadline) -> Result<bool> {
        loop {
            // Zombies count here, and not below.
            if matches!(self.watch.signal_group(0), Some(Ok(false))) {
                return Ok(true);
            }
            match process::group_lives(self.pid) {
                Some(false) => return Ok(true),
                Some(true) if !deadline.passed() => {}
                // Without /proc nobody can say when to stop waiting.
                _ => return Ok(false),
            }
            poll::readable(&[], &deadline.at_most(GROUP_LOOK_MS))?;
        }
    }
}

struct Pin<'a>(&'a Child);

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.0.lock().pins -= 1;
        self.0.try_reap();
    }
}

/// Sleeps until one of the children may have ended; not for long if nobody can tell when.
pub(super) fn sleep_on(children: &[&Child], deadline: &Deadline) -> Result<()> {
    let slice;
    let deadline = if children.iter().any(|child| matches!(child.watch, Watch::Pipe { .. })) {
        slice = deadline.at_most(LOOK_MS);
        &slice
    } else {
        deadline
    };
    let fds: Vec<_> = children.iter().map(|child| child.fd()).collect();
    if let Some(ready) = poll::first_readable(&fds, deadline)? {
        // Usually it has ended. If it closed its exit pipe instead, or is between closing it and ending, or a debugger holds it
        // back, the descriptor stays readable.
        if children[ready].try_reap().is_none() {
            std::thread::sleep(MOMENT);
        }
    }
    Ok(())
}

/// All children of this process that were not reaped yet.
#[derive(Default)]
struct Children {
    last_id: u64,
    running: BTreeMap<u64, Arc<Child>>,
    /// How many of them nobody has a handle of.
    freed: usize,
}

static CHILDREN: PerProcess<Children> = PerProcess::new();

/// The handle of a child is gone.
pub(super) fn free(child: &Child) {
    CHILDREN.with(|children| {
        if children.running.contains_key(&child.id) {
            child.freed.store(true, Relaxed);
            children.freed += 1;
        }
    });
    child.let_group_go();
    reap_freed();
}

/// Reaps children that ended after their handle was freed.
pub(super) fn reap_freed() {
    if CHILDREN.with(|children| children.freed) > 0 {
        for child in all_running() {
            if child.freed.load(Relaxed) {
                child.try_reap();
            }
        }
    }
}

fn all_running() -> Vec<Arc<Child>> {
    CHILDREN.with(|children| children.running.values().cloned().collect())
}

/// The rule for the end of a process's main: its daemon children are terminated, the others joined; detached ones and commands neither.
pub fn at_exit() {
    let (daemons, others): (Vec<_>, Vec<_>) =
        all_running().into_iter().filter(|child| child.is_joined_at_exit()).partition(|child| child.is_daemon());
    for daemon in &daemons {
        let _ = daemon.send(signal::TERM);
    }
    let grace = Deadline::new(Timeout::Millis(EXIT_GRACE_MS));
    for daemon in &daemons {
        if !matches!(daemon.wait(&grace), Ok(Some(_))) {
            let _ = daemon.send(signal::KILL);
        }
    }
    let last = Deadline::new(Timeout::Millis(KILL_MS));
    for daemon in &daemons {
        let _ = interrupt::unasked(|| daemon.wait(&last));
    }
    for child in &others {
        // An interrupt check that says no ends the waiting for this one.
        let _ = child.wait(&Deadline::new(Timeout::Forever));
    }
}
