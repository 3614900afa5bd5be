//! The pool in its host: what the threads of the host's program share. What they do with it is in the files beside:
//! [`super::submit`], [`super::collect`], [`super::ending`], [`super::delivery`].
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::board::Board;
use super::crew::Crew;
use super::job::{Callbacks, Job, Part};
use super::journal::{Entry, Peek, Reader};
use super::memory::Files;
use super::roll::Roll;
use super::table::{Table, TaskSpec};
use super::trace::Writer;
use crate::error::{Error, Kind, Result};
use crate::log::Level;
use crate::shm::Words;
use crate::sys::elf::Loaded;
use crate::sys::errno;
use crate::sys::fd::{self, PrivateFd};
use crate::sys::gathering::Gathering;
use crate::sys::heap::Filled;
use crate::sys::thread::{self, Thread};
use crate::sys::withheld::Withheld;
use crate::timeout::Timeout;

/// While tasks are pending, or somebody waits, they are looked after once in a while, also when nobody rings.
pub(super) const LOOK_MS: u64 = 1_000;

/// How far the pool is between its making and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lifecycle {
    Open,
    /// Takes no more tasks.
    Closing,
    /// All tasks have ended: workers leave.
    Leaving,
    /// Terminated or broken: workers are being ended.
    Stopping,
    /// The nursery is gone.
    Ended,
}

pub(super) struct State {
    pub(super) table: Table,
    pub(super) lifecycle: Lifecycle,
    /// Why the pool takes no more tasks, if it was not closed.
    pub(super) broken: Option<String>,
    pub(super) worker_deaths: u64,
    /// When workers died in a row without a task in between.
    pub(super) recent_deaths: VecDeque<u64>,
    pub(super) finished_at_death: u64,
    /// A worker has died that may have written over claims of tasks that wait, and when all were last looked at.
    pub(super) doubtful: bool,
    pub(super) checked: u64,
    pub(super) commands: u32,
    /// The argument of a TERMINATE that found no room in the socket; the number of the last one that did.
    pub(super) unsent_end: Option<i64>,
    pub(super) sent_end: u32,
    /// Maps that are being submitted: their ends are still to come, also where all their tasks have ended.
    pub(super) maps: u32,
    /// Somebody looks after pending tasks from time to time, also when nobody rings.
    pub(super) watched: bool,
    /// A thread of the host's program runs callbacks: see [`super::host_loop`].
    pub(super) polling: bool,
    /// Everything is over, and every callback has returned.
    pub(super) finished: bool,
    /// For the log, once no lock is held.
    pub(super) notes: Vec<(Level, String)>,
}

/// A place in which processes of the pool live one after the other, and what the host has read of them.
pub(super) struct Cursor {
    pub(super) reader: Reader,
    /// Odd: the life that is being read, or comes next.
    pub(super) life: u32,
    pub(super) born: bool,
    /// What the last look showed: it is dead, and there is more to read.
    pub(super) dead: bool,
    pub(super) more: bool,
    /// How many entries were read and not taken in yet, and the stamp of the last one.
    pub(super) held: usize,
    pub(super) latest: u64,
    /// If the end of it is wanted; and how much of it is of those who were retired and is still there.
    pub(super) stderr: Option<OwnedFd>,
    pub(super) stderr_end: u64,
}

impl Cursor {
    pub(super) fn new(reader: Reader, stderr: Option<OwnedFd>) -> Cursor {
        Cursor { reader, life: 1, born: false, dead: false, more: false, held: 0, latest: 0, stderr, stderr_end: 0 }
    }
}

pub(super) struct Readers {
    pub(super) cursors: Vec<Cursor>,
    pub(super) batch: Vec<(u32, Entry, errno::Result<Option<Filled>>)>,
}

/// A pool. Shared by its handle, its delivery thread and whoever waits.
pub struct Host {
    pub(super) name: String,
    pub(super) epoch: u64,
    pub(super) pool_id: u64,
    pub(super) loaded: Loaded,
    pub(super) files: Arc<Files>,
    pub(super) board: Arc<Board>,
    pub(super) roll: Roll,
    /// Of each place that there is.
    pub(super) peeks: Box<[OnceLock<Arc<Peek>>]>,
    pub(super) readers: Mutex<Readers>,
    pub(super) state: Mutex<State>,
    pub(super) trace: Mutex<Option<Writer>>,
    /// A copy of it would keep the nursery from noticing that this program is gone, or another.
    pub(super) socket: Withheld,
    pub(super) nursery_pid: i32,
    pub(super) nursery_start: Option<u64>,
    pub(super) nursery: Option<PrivateFd>,
    pub(super) bell: PrivateFd,
    /// The sleep of the delivery thread that the host has already ended.
    pub(super) rung: AtomicU32,
    /// Threads instead of processes.
    pub(super) crew: Option<Crew>,
    /// Of a pool without a thread: what the host's program waits for.
    pub(super) gathering: Option<Gathering>,
    pub(super) crash_budget: usize,
    pub(super) crash_window_ns: u64,
    pub(super) worker_count: AtomicU32,
    pub(super) max_tasks: u32,
    pub(super) stderr_tail: u32,
    /// How many places the nursery knows.
    pub(super) resizing: Mutex<usize>,
    /// The thread that is inside a callback, by its kernel's number; 0 = none.
    pub(super) delivering: AtomicU32,
    /// The handle was freed inside a callback.
    pub(super) freed: AtomicBool,
}

/// What is to be submitted.
pub struct Submission<'a> {
    pub spec: TaskSpec<'a>,
    pub callbacks: Option<Callbacks>,
    /// 0 = chosen.
    pub id: u64,
    /// Somebody will ask for it by its handle.
    pub handle: bool,
    pub(super) part: Part,
}

impl<'a> Submission<'a> {
    pub fn new(spec: TaskSpec<'a>, callbacks: Option<Callbacks>, id: u64, handle: bool) -> Submission<'a> {
        Submission { spec, callbacks, id, handle, part: Part::Single }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub workers: u64,
    pub idle: u64,
    pub queued: u64,
    pub running: u64,
    pub done: u64,
    pub failed: u64,
    pub worker_deaths: u64,
    pub restarts: u64,
}

/// The state while it is locked. Whoever has to be woken is woken once it no longer is: fields are dropped in this order.
pub(super) struct Locked<'a> {
    guard: MutexGuard<'a, State>,
    after: After<'a>,
}

struct After<'a> {
    host: &'a Host,
    bells: u64,
    deliver: bool,
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.guard
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.guard
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.after.bells = std::mem::take(&mut self.guard.table.to_ring);
        self.after.deliver = !self.guard.table.deliveries.is_empty();
    }
}

impl Drop for After<'_> {
    fn drop(&mut self) {
        let w = Thread::current();
        if self.bells != 0 {
            self.host.board.ring_hosts(w, self.bells);
        }
        if self.deliver {
            self.host.wake_delivery(w);
        }
    }
}

impl State {
    pub(super) fn new(table: Table) -> State {
        State {
            table,
            lifecycle: Lifecycle::Open,
            broken: None,
            worker_deaths: 0,
            recent_deaths: VecDeque::new(),
            finished_at_death: 0,
            doubtful: false,
            checked: 0,
            commands: 0,
            unsent_end: None,
            sent_end: 0,
            maps: 0,
            watched: false,
            polling: false,
            finished: false,
            notes: Vec::new(),
        }
    }

    /// Nothing ends any more, and nobody is to be told of an end.
    pub(super) fn is_over(&self) -> bool {
        self.lifecycle == Lifecycle::Ended && self.maps == 0 && self.table.deliveries.is_empty()
    }

    /// There is something to tell the log, or to write to a trace, once no lock is held.
    pub(super) fn has_notes(&self) -> bool {
        !self.notes.is_empty() || self.table.is_trace_full()
    }
}

impl Host {
    /// The handle of a forked child's parent does nothing there. Asked before any lock.
    pub(super) fn check_process(&self) -> Result<()> {
        if self.epoch == thread::epoch() {
            return Ok(());
        }
        Err(Error::new(Kind::Forked, format!("{}: the handle belongs to the parent process", self.name)))
    }

    pub(super) fn is_own_process(&self) -> bool {
        self.epoch == thread::epoch()
    }

    pub(super) fn lock(&self) -> Result<Locked<'_>> {
        match self.state.lock() {
            Ok(guard) => Ok(Locked { guard, after: After { host: self, bells: 0, deliver: false } }),
            Err(_) => Err(Error::new(Kind::Panic, format!("{}: the library failed in an earlier call", self.name))),
        }
    }

    /// Whether the pool takes tasks, or why it does not.
    pub(super) fn admits(&self, state: &State) -> Result<()> {
        match (&state.broken, state.lifecycle) {
            (Some(why), _) => Err(Error::new(Kind::Broken, why.clone())),
            (None, Lifecycle::Open) => Ok(()),
            (None, _) => Err(self.closed(state)),
        }
    }

    pub(super) fn closed(&self, state: &State) -> Error {
        let how = match state.lifecycle {
            Lifecycle::Open | Lifecycle::Closing | Lifecycle::Leaving => "it was closed",
            Lifecycle::Stopping => "it was terminated",
            Lifecycle::Ended => "it has ended",
        };
        Error::new(Kind::Closed, format!("{}: {how}", self.name))
    }

    /// The file of the trace. Before the readers' lock and the state's.
    pub(super) fn lock_trace(&self) -> Result<MutexGuard<'_, Option<Writer>>> {
        self.trace.lock().map_err(|_| Error::new(Kind::Panic, format!("{}: the library failed in an earlier call", self.name)))
    }

    pub(super) fn lock_readers(&self) -> Result<MutexGuard<'_, Readers>> {
        self.readers.lock().map_err(|_| Error::new(Kind::Panic, format!("{}: the library failed in an earlier call", self.name)))
    }

    /// Wakes the delivery thread, once each time it sleeps.
    pub(super) fn wake_delivery(&self, w: Thread) {
        w.fence();
        let sleep = w.load(&self.board.tasks.head.delivery, Relaxed);
        if sleep % 2 == 1 && self.rung.swap(sleep, Relaxed) != sleep {
            fd::ring(self.bell.as_raw_fd());
        }
    }

    /// Whether the calling thread is inside a callback of this pool.
    pub(super) fn is_delivering(&self) -> bool {
        self.delivering.load(Relaxed) == Thread::current().tid()
    }

    /// Runs the callback of a job that has ended.
    pub(super) fn run_callback(&self, job: &Arc<Job>) {
        let w = Thread::current();
        self.delivering.store(w.tid(), Relaxed);
        job.deliver();
        self.delivering.store(0, Relaxed);
        // Whoever waits says so before it looks whether the job is ready.
        job.set_ready();
        if let Some(bell) = job.bell() {
            self.board.ring_host(w, bell);
        }
        if self.freed.load(Relaxed) {
            let _ = self.terminate(Timeout::Try);
            // A pool's own thread goes on until the end. Without it nobody looks after the pool once this turn is over.
            if self.gathering.is_some() && !self.is_in_task() {
                self.join_crew();
            }
        }
    }

    pub fn stats(&self) -> Result<Stats> {
        self.check_process()?;
        self.collect()?;
        let w = Thread::current();
        let state = self.lock()?;
        let (queued, running) = state.table.counts();
        let workers = if state.lifecycle == Lifecycle::Ended { 0 } else { self.workers(w).count() as u64 };
        Ok(Stats {
            workers,
            idle: workers.saturating_sub(running),
            queued,
            running,
            done: state.table.done,
            failed: state.table.failed,
            worker_deaths: state.worker_deaths,
            restarts: w.load(&self.roll.head.restarts, Relaxed).into(),
        })
    }

    pub(super) fn max_pending(&self) -> usize {
        self.lock().map_or(1, |state| state.table.max_pending)
    }

    /// The living workers: {which, process}.
    pub(super) fn workers(&self, w: Thread) -> impl Iterator<Item = (u32, i32)> + '_ {
        (0..self.board.places(w)).filter_map(move |place| {
            let life = w.load(self.roll.latest.get(place)?, Acquire);
            let line = self.roll.line(place, life).filter(|_| life % 2 == 1)?;
            let worker = w.load(&line.worker, Relaxed).checked_sub(1)?;
            Some((worker, w.load(&line.pid, Relaxed) as i32))
        })
    }

    pub fn worker_pids(&self) -> Result<Vec<i32>> {
        self.check_process()?;
        if self.lock()?.lifecycle == Lifecycle::Ended {
            return Ok(Vec::new());
        }
        let mut workers: Vec<_> = self.workers(Thread::current()).collect();
        workers.sort_unstable();
        Ok(workers.into_iter().map(|(_, pid)| pid).collect())
    }
}
