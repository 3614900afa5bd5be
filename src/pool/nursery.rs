//! The nursery: one single-threaded process, a copy of the host of the moment when the pool was made. It forks the workers, knows
//! what became of them, replaces them and ends with the host.
//!
//! It never allocates, never waits for the host and trusts nothing that a worker can write. What it knows it writes on the roll,
//! which the others can only read; what the host wants it to do comes through a socket, whose end is also one of the two signs that
//! the host is gone (the other is a descriptor of the host's process, which no forked copy holds open).
#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use super::board::{Board, phase};
use super::duty::{self, Lap};
use super::journal;
use super::memory::Duties;
use super::message::{self, Message, Received};
use super::roll::{self, Roll, stage, step};
use super::stderr;
use super::task::{Code, Limits, flags};
use super::worker;
use crate::process::Reason;
use crate::shm::Words;
use crate::shm::pool::LIVES;
use crate::sys::descriptors::{self, Keep};
use crate::sys::errno;
use crate::sys::fork::{self, Forked};
use crate::sys::nursery::{self as os, Credentials};
use crate::sys::stderr::Sink;
use crate::sys::thread::Thread;
use crate::sys::wait::{self, Ending, Seen, Usage};
use crate::sys::{Deadline, fd, file, now, pidfd, poll, process, signal, stdio};
use crate::timeout::Timeout;

/// How long a worker may be stopped.
const STOPPED_NS: u64 = 1_000_000_000;
/// How long killed workers may take to die.
const DYING_NS: u64 = 2_000_000_000;
/// How long a task that is cancelled may take to end by itself, if it has a soft limit and no other.
const CANCEL_GRACE_MS: u64 = 1_000;
/// How often the memory of workers is looked at while they run tasks, and how many times as long as that takes it is left alone.
pub(super) const LOOK_AT_MEMORY_NS: u64 = 50_000_000;
const PAUSES_PER_LOOK: u64 = 20;
/// How often the host is looked at without pidfds.
const LOOK_MS: u64 = 250;
/// A worker that died before its initializer was done is replaced after this, and twice that the next time, up to a second.
const BACKOFF_NS: u64 = 1_000_000;
const BACKOFF_MAX_NS: u64 = 1_000_000_000;
/// A pool without a worker gives up after so many forks that failed: with the pauses between them, after some ten seconds.
const FORK_FAILURES_MAX: u32 = 20;

/// All that the nursery needs, made by the host before the fork.
pub struct Nursery {
    /// Names the pool in the marks of its journals.
    pub pool_id: u64,
    pub workers: u32,
    pub code: Arc<dyn Code>,
    pub board: Arc<Board>,
    pub roll: Roll,
    /// For the workers.
    pub worker_roll: Roll,
    pub duties: Duties,
    /// Descriptors, by their numbers: the host owns them, and in the copy the nursery does.
    pub journals: Vec<i32>,
    /// See [`super::stderr`]; empty if nobody wants the end of it.
    pub stderrs: Vec<i32>,
    pub stderr_tail: u32,
    pub bell_fd: i32,
    pub tasks_fd: i32,
    pub host_fd: i32,
    pub socket: OwnedFd,
    pub child_signals: OwnedFd,
    /// Workers ring when they begin something that has to be watched.
    pub alarm: OwnedFd,
    /// Sorted: what stays open.
    pub kept: Vec<i32>,
    pub keep_all: bool,
    /// The host's end of the socket: nobody else may hold it open.
    pub host_socket: i32,
    pub no_core: bool,
    /// What workers keep of the host's signals; else everything is as by default.
    pub signals: Option<signal::Kept>,
    /// Bytes of private memory that a worker may have; 0 = any.
    pub memory_limit: u64,
    /// How many tasks a worker runs before it leaves; 0 = any number.
    pub max_tasks: u32,
    /// Deaths in a row that break the pool.
    pub crash_budget: u32,
    pub host_pid: i32,
    /// /proc knows processes by the numbers that they have here.
    pub proc_is_ours: bool,
    /// The host's, without pidfds.
    pub host_start: Option<u64>,
    /// With room for more places, as `journals` has.
    pub children: Vec<Child>,
}

/// A place, and the process in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Child {
    /// 0 = nobody.
    pid: i32,
    life: u32,
    /// Counted from 1; 0 = a spare.
    worker: u32,
    /// When it was seen to be stopped; 0 = it was not.
    stopped: u64,
    /// Killed by the nursery, and why.
    killed: Option<Reason>,
    /// Where what it writes to standard error begins.
    stderr_from: u64,
    /// It was told to leave once it has finished what it runs.
    leaves: bool,
    /// A task that is cancelled, and when it has to have ended.
    cancel: Option<(u64, u64)>,
}

impl Child {
    fn is_spare(&self) -> bool {
        self.pid != 0 && self.worker == 0 && !self.leaves
    }
}

/// What the nursery knows, beside what is on the roll.
struct Supervisor<'a> {
    nursery: &'a mut Nursery,
    children: Vec<Child>,
    /// How many there are to be.
    workers: u32,
    /// Workers up to this number have been there: whoever becomes one of them takes the place of another.
    begun: u32,
    w: Thread,
    own_pid: i32,
    credentials: Option<Credentials>,
    /// The greatest memory use that is the copied host's and no worker's doing.
    inherited_rss: u64,
    forks: u64,
    shutdown: Shutdown,
    /// No forks before.
    backoff_until: u64,
    backoff: u64,
    /// Forks that failed in a row.
    fork_failures: u32,
    deaths_in_a_row: u32,
    /// Where standard error goes.
    sink: Sink,
    /// Of the place that comes next.
    stderr_of_next: Option<OwnedFd>,
    /// A worker has died, and what it has started may be left.
    has_orphans: bool,
    /// The memory of workers is not looked at before.
    look_again: u64,
    /// How many tasks had been finished at the last death.
    finished_at_death: u32,
    failed: bool,
}

/// The end of all workers that the host ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shutdown {
    None,
    /// They got SIGTERM; killed at the given time.
    Terminating(u64),
    /// They got SIGKILL; given up at the given time.
    Killing(u64),
}

impl Nursery {
    /// For a worker: closes what is not for it, and answers the number of its journal.
    pub(super) fn keep_for_worker(&self, place: u32) -> i32 {
        for (index, &journal) in self.journals.iter().enumerate() {
            if index != place as usize {
                fd::close_number(journal);
            }
        }
        for (index, &stderr) in self.stderrs.iter().enumerate() {
            if index != place as usize {
                fd::close_number(stderr);
            }
        }
        fd::close_number(self.socket.as_raw_fd());
        fd::close_number(self.child_signals.as_raw_fd());
        self.journals.get(place as usize).copied().unwrap_or(-1)
    }

    /// All of the nursery's life. Runs in the copy, with all signals blocked.
    pub fn run(mut self) -> ! {
        match self.signals {
            Some(_) => signal::set_default(signal::CHILD),
            None => signal::set_all_default(),
        }
        process::lead_new_group();
        stdio::purge_in_child();
        os::stdin_from_null();
        fd::close_number(self.host_socket);
        if !self.keep_all {
            descriptors::close_all_except(&self.kept, Keep::ListedAndSharedMemory);
        }
        process::set_name(c"tine-nursery");
        let children = std::mem::take(&mut self.children);
        let credentials = Credentials::of(self.host_pid).filter(|_| self.proc_is_ours);
        let sink = if self.stderr_tail == 0 { Sink::Nowhere } else { Sink::of_this_process() };
        let mut supervisor = Supervisor {
            workers: self.workers,
            begun: self.workers,
            nursery: &mut self,
            children,
            w: Thread::current(),
            own_pid: process::pid(),
            credentials,
            inherited_rss: process::own_peak_rss(),
            forks: 0,
            shutdown: Shutdown::None,
            backoff_until: 0,
            backoff: 0,
            fork_failures: 0,
            deaths_in_a_row: 0,
            sink,
            stderr_of_next: None,
            has_orphans: false,
            look_again: 0,
            finished_at_death: 0,
            failed: false,
        };
        supervisor.begin();
        supervisor.supervise()
    }

    /// For the process between host and nursery.
    pub fn note_failure(&self, step: u32, errno: i32) {
        let w = Thread::current();
        w.store(&self.roll.head.errno, errno as u32, Relaxed);
        w.store(&self.roll.head.step, step, Relaxed);
        w.store(&self.roll.head.stage, stage::FAILED, Release);
    }
}

impl Supervisor<'_> {
    fn begin(&mut self) {
        // Orphans that tasks leave behind are to come here.
        let _ = process::become_subreaper();
        if process::thread_count().is_some_and(|count| count > 1) {
            self.fail_to_begin(step::THREADS, 0);
        }
        for worker in 1..=self.workers {
            if let Err(errno) = self.fork_worker(worker as usize - 1, worker, 0) {
                self.fail_to_begin(step::FORK, errno);
            }
        }
        // A pool can do without the spare one; it is tried again.
        self.w.store(&self.nursery.roll.head.stage, stage::RUNNING, Release);
        let started = Message { kind: message::STARTED, number: 0, argument: self.own_pid.into() };
        if !message::send(&self.nursery.socket, started) {
            self.end_all();
        }
    }

    fn fail_to_begin(&mut self, step: u32, errno: i32) -> ! {
        self.nursery.note_failure(step, errno);
        self.end_all()
    }

    /// Until the end of the pool or of the host.
    fn supervise(&mut self) -> ! {
        loop {
            self.reap();
            self.handle_messages();
            self.kill_stopped();
            self.end_overdue();
            self.end_greedy();
            self.continue_shutdown();
            let leaving = self.nursery.board.phase(self.w) == phase::LEAVING;
            if leaving && self.shutdown == Shutdown::None {
                if self.alive() == 0 {
                    self.leave();
                }
                // Spares sleep on their own bells, and may not have heard.
                self.nursery.board.ring_all(self.w);
            }
            self.fill();
            self.sleep();
            fd::clear(self.nursery.alarm.as_raw_fd());
            if self.host_is_gone() {
                self.end_all();
            }
        }
    }

    fn alive(&self) -> usize {
        self.children.iter().filter(|child| child.pid != 0).count()
    }

    /// Makes the process that is missing in each place, and hands the place of a dead worker to the spare one.
    fn fill(&mut self) {
        if self.shutdown != Shutdown::None
            || self.failed
            || self.nursery.board.phase(self.w) != phase::OPEN
            || self.may_be_broken()
        {
            return;
        }
        for worker in 1..=self.workers {
            if self.children.iter().any(|child| child.pid != 0 && child.worker == worker) {
                continue;
            }
            if let Some(spare) = self.spare(false) {
                self.promote(spare, worker);
            } else {
                self.try_fork_worker(worker);
            }
        }
        let waiting = self.replace_retiring();
        let spares = self.children.iter().filter(|child| child.is_spare()).count();
        for _ in spares..1 + waiting {
            self.try_fork_worker(0);
        }
    }

    /// A process that can take the place of another; one whose initializer is done, if that is asked.
    fn spare(&self, ready: bool) -> Option<usize> {
        let is_ready = |place: usize, child: &Child| {
            self.nursery.board.claims.bells.get(place).is_some_and(|bell| self.w.load(&bell.ready, Acquire) == child.life)
        };
        let mut spares = self.children.iter().enumerate().filter(|(_, child)| child.is_spare());
        spares.find(|&(place, child)| !ready || is_ready(place, child)).map(|(place, _)| place)
    }

    /// Lets workers leave that have run as many tasks as they may, each once another process works in its stead. Answers how many
    /// have to wait for that.
    fn replace_retiring(&mut self) -> usize {
        let mut waiting = 0;
        for place in 0..self.children.len() {
            let Child { pid, worker, .. } = self.children[place];
            let retiring = self.nursery.duties.get(place).is_some_and(|duty| duty::is_retiring(self.w, duty));
            if pid == 0 || worker == 0 || !retiring {
                continue;
            }
            match self.spare(true) {
                Some(spare) => {
                    self.promote(spare, worker);
                    self.let_leave(place);
                }
                None => waiting += 1,
            }
        }
        waiting
    }

    /// From now on the worker in a place is none: it leaves when it has finished what it runs.
    fn let_leave(&mut self, place: usize) {
        let Some(child) = self.children.get_mut(place) else { return };
        child.leaves = true;
        child.worker = 0;
        if let Some(line) = self.nursery.roll.line(place, child.life) {
            self.w.store(&line.worker, 0, Relaxed);
            self.w.store(&line.leaves, 1, Release);
            self.nursery.board.ring(self.w, place as u32);
        }
    }

    fn resize(&mut self, workers: u32) {
        self.workers = workers;
        self.begun = self.begun.min(workers);
        for place in 0..self.children.len() {
            if self.children[place].pid != 0 && self.children[place].worker > workers {
                self.let_leave(place);
            }
        }
    }

    /// The host has made one more place. Nothing is allocated: there was room from the beginning.
    fn add_place(&mut self, place: i64, journal: Option<OwnedFd>) {
        let Some(journal) = journal.filter(|_| place == self.children.len() as i64) else { return };
        let stderr = self.stderr_of_next.take();
        if self.nursery.stderr_tail != 0 {
            let Some(stderr) = stderr.filter(|_| self.nursery.stderrs.len() < self.nursery.stderrs.capacity()) else { return };
            self.nursery.stderrs.push(stderr.into_raw_fd());
        }
        if self.children.len() < self.children.capacity() && self.nursery.journals.len() < self.nursery.journals.capacity() {
            self.children.push(Child::default());
            self.nursery.journals.push(journal.into_raw_fd());
        }
    }

    /// How many births and deaths in a place the host has not dealt with yet.
    fn behind(&self, place: usize) -> u32 {
        let (child, receipt) = (self.children.get(place), self.nursery.board.tasks.receipts.get(place));
        // SYNC POINT: retired (acquire): the host has read what the dead wrote here, whose units may be used again.
        child.map_or(0, |child| child.life).wrapping_sub(receipt.map_or(0, |receipt| self.w.load(&receipt.retired, Acquire)))
    }

    /// Whether so many have died in a row that the host must say whether it goes on. It tells the nursery when it has counted one.
    fn may_be_broken(&self) -> bool {
        self.deaths_in_a_row >= self.nursery.crash_budget && (0..self.children.len()).any(|place| self.behind(place) > 1)
    }

    /// In a row: without a finished task in between.
    fn count_death(&mut self) {
        let bells = &self.nursery.board.claims.bells;
        let finished =
            (0..self.children.len()).filter_map(|place| bells.get(place)).map(|bell| self.w.load(&bell.finished, Relaxed));
        let finished = finished.fold(0, u32::wrapping_add);
        if finished != self.finished_at_death {
            (self.finished_at_death, self.deaths_in_a_row) = (finished, 0);
        }
        self.deaths_in_a_row = self.deaths_in_a_row.saturating_add(1);
    }

    fn try_fork_worker(&mut self, worker: u32) {
        // Where the host is done with everybody who has lived there, or at least not far behind.
        let free = self.children.iter().enumerate().filter(|(_, child)| child.pid == 0);
        let free = free.map(|(place, _)| (self.behind(place), place)).filter(|&(behind, _)| behind as usize <= 2 * (LIVES - 2));
        let Some((behind, place)) = free.min() else { return };
        if self.failed || now() < self.backoff_until {
            return;
        }
        if self.credentials.is_some() && Credentials::of(self.nursery.host_pid) != self.credentials {
            // A dead host has none; that is seen elsewhere.
            if !self.host_is_gone() {
                self.failed = true;
                self.nursery.note_failure(step::CREDENTIALS, 0);
                self.notify_host();
            }
            return;
        }
        let unit = if behind == 0 { 0 } else { journal::end_unit(self.nursery.journals[place]) };
        match self.fork_worker(place, worker, unit) {
            Ok(()) => {
                self.fork_failures = 0;
                self.count_worker(worker);
            }
            Err(errno) => {
                self.back_off();
                self.fork_failures += 1;
                if self.alive() == 0 && self.fork_failures >= FORK_FAILURES_MAX {
                    self.failed = true;
                    self.nursery.note_failure(step::FORK, errno);
                    self.notify_host();
                }
            }
        }
    }

    fn back_off(&mut self) {
        self.backoff = (self.backoff * 2).clamp(BACKOFF_NS, BACKOFF_MAX_NS);
        self.backoff_until = now() + self.backoff;
    }

    /// A process has become this worker, in the place of another unless the pool has grown. 0 = a spare.
    fn count_worker(&mut self, worker: u32) {
        if worker > self.begun {
            self.begun = worker;
        } else if worker != 0 {
            let restarts = &self.nursery.roll.head.restarts;
            self.w.store(restarts, self.w.load(restarts, Relaxed).wrapping_add(1), Relaxed);
        }
    }

    /// Forks a process of the pool, whose journal begins in a unit: the first one if the host has retired all who have lived in that
    /// place. Fails with an errno.
    fn fork_worker(&mut self, place: usize, worker: u32, unit: u32) -> errno::Result<()> {
        let (roll, w) = (&self.nursery.roll, self.w);
        let (Some(child), Some(latest)) = (self.children.get_mut(place), roll.latest.get(place)) else { return Ok(()) };
        let life = child.life.wrapping_add(1);
        let Some(line) = roll.line(place, life) else { return Ok(()) };
        let stderr_from = self.nursery.stderrs.get(place).map_or(0, |&stderr| {
            if unit == 0 {
                // Nobody wants to read what is there: the host is done with all who have lived here.
                file::shorten(fd::inherited(stderr), 0);
            }
            file::length(fd::inherited(stderr))
        });
        if let Some(duty) = self.nursery.duties.get(place) {
            duty::clear(w, duty);
            w.store64(&duty.passed_on, stderr_from, Relaxed);
        }
        self.forks += 1;
        w.store(&line.worker, worker, Relaxed);
        w.store(&line.first_unit, unit, Relaxed);
        w.store(&line.leaves, 0, Relaxed);
        let pid = match fork::fork_quiet()? {
            Forked::Child => worker::run(self.nursery, self.own_pid, place as u32, life, self.forks),
            Forked::Parent(pid) => pid,
        };
        *child = Child { pid, life, worker, stderr_from, ..Child::default() };
        w.store(&line.pid, pid as u32, Relaxed);
        // SYNC POINT: life (release). The process waits for it, so nothing of it is seen before its name.
        w.store(&line.life, life, Release);
        w.store(latest, life, Release);
        w.wake(&line.life, 1);
        self.notify_host();
        Ok(())
    }

    fn promote(&mut self, place: usize, worker: u32) {
        let Some(child) = self.children.get_mut(place) else { return };
        if let Some(line) = self.nursery.roll.line(place, child.life) {
            child.worker = worker;
            self.w.store(&line.worker, worker, Release);
            self.nursery.board.ring(self.w, place as u32);
            self.count_worker(worker);
        }
    }

    /// Takes note of everything that happened to children. Those that are nobody's are orphans of tasks.
    fn reap(&mut self) {
        os::drain(self.nursery.child_signals.as_raw_fd());
        loop {
            match wait::changed(wait::Child::Any) {
                Ok(Seen::Ended { pid, ending, usage }) => {
                    if let Some(place) = self.place_of(pid) {
                        // What a worker that leaves in order leaves behind is its affair. One that a task ends leaves by no order,
                        // whatever its exit code.
                        let leaves = self.children[place].leaves || self.nursery.board.phase(self.w) == phase::LEAVING;
                        self.has_orphans |= !leaves || ending != Ending::Exited(0);
                        self.note_end(place, ending, usage);
                    }
                }
                Ok(Seen::Stopped { pid, .. }) => {
                    if let Some(place) = self.place_of(pid) {
                        self.children[place].stopped = now();
                    }
                }
                _ => break,
            }
        }
        if self.has_orphans {
            // The children of those that are killed are next: their end is told.
            self.has_orphans = os::kill_orphans(|pid| self.place_of(pid).is_some()) > 0;
        }
    }

    fn place_of(&self, pid: i32) -> Option<usize> {
        self.children.iter().position(|child| child.pid == pid)
    }

    fn note_end(&mut self, place: usize, ending: Ending, usage: Usage) {
        let Supervisor { nursery: &mut Nursery { ref roll, ref journals, .. }, .. } = *self;
        let (Some(child), Some(latest)) = (self.children.get_mut(place), roll.latest.get(place)) else { return };
        let Some(line) = roll.line(place, child.life) else { return };
        // What the nursery ordered is why it ended, unless it ended by itself before.
        let ordered = child
            .killed
            .filter(|_| matches!(ending, Ending::Signaled { signal, .. } if signal == signal::KILL || signal == signal::TERM));
        // It was faster than who looks, and the kernel than both. All other signals are its own: the peak counts every file that it read.
        let above = usage.peak_rss_bytes.saturating_sub(self.inherited_rss) > self.nursery.memory_limit;
        let killed = matches!(ending, Ending::Signaled { signal: signal::KILL, .. });
        let greedy = self.nursery.memory_limit != 0 && above && killed;
        let ordered = ordered.or(greedy.then_some(Reason::Memory));
        child.pid = 0;
        child.life = child.life.wrapping_add(1);
        let (life, leaves) = (child.life, child.leaves);
        let peak_rss_bytes = Some(usage.peak_rss_bytes).filter(|&peak| peak > self.inherited_rss).unwrap_or(0);
        roll::write_exit(self.w, line, ending, ordered, Usage { peak_rss_bytes, ..usage });
        if let (Some(&stderr), Some(duty)) = (self.nursery.stderrs.get(place), self.nursery.duties.get(place)) {
            let end = stderr::pass_on_rest(self.w, stderr, duty, child.stderr_from, self.sink);
            self.w.store64(&line.stderr_end, end, Relaxed);
        }
        self.w.store(&line.end_unit, journal::end_unit(journals[place]), Relaxed);
        // SYNC POINT: life (release): its end is there, and nothing of it comes any more.
        self.w.store(&line.life, life, Release);
        self.w.store(latest, life, Release);

        let bell = self.nursery.board.claims.bells.get(place);
        let ready = bell.map_or(0, |bell| self.w.load(&bell.ready, Relaxed));
        if ready == life.wrapping_sub(1) {
            self.backoff = 0;
        } else if ordered.is_none() {
            self.back_off();
        }
        if ordered.is_none() && !leaves {
            self.count_death();
        }
        let board = &self.nursery.board;
        board.forget_place(self.w, place as u32);
        // It may have been woken for a task that it did not take: somebody else looks.
        board.ring_all(self.w);
        self.notify_host();
    }

    /// Something on the roll has changed.
    fn notify_host(&self) {
        self.w.fence();
        fd::ring(self.nursery.bell_fd);
        let head = &self.nursery.board.tasks.head;
        self.nursery.board.ring_hosts(self.w, self.w.load64(&head.bells_in_use, SeqCst));
    }

    fn handle_messages(&mut self) {
        loop {
            let (received, carried) = message::receive_with(&self.nursery.socket);
            match received {
                Received::Message(Message { kind, number, argument }) => {
                    match kind {
                        message::TERMINATE => self.begin_shutdown(argument),
                        message::CANCEL => self.cancel(argument as u64),
                        message::STDERR => self.stderr_of_next = carried,
                        message::PLACE => self.add_place(argument, carried),
                        message::RESIZE => self.resize(argument as u32),
                        _ => {}
                    }
                    let heard = &self.nursery.roll.head.heard;
                    self.w.store(heard, number, Release);
                    self.w.wake(heard, u32::MAX);
                }
                Received::Nothing => return,
                // The host execs another program, or is gone.
                Received::Closed => self.end_all(),
            }
        }
    }

    fn begin_shutdown(&mut self, grace_ms: i64) {
        let until = u64::try_from(grace_ms).map_or(u64::MAX, |grace| now().saturating_add(grace.saturating_mul(1_000_000)));
        match self.shutdown {
            Shutdown::None => {
                self.signal_all(signal::TERM, Reason::Terminated);
                self.shutdown = Shutdown::Terminating(until);
            }
            Shutdown::Terminating(before) => self.shutdown = Shutdown::Terminating(before.min(until)),
            Shutdown::Killing(_) => {}
        }
    }

    fn signal_all(&mut self, signal: i32, why: Reason) {
        for child in self.children.iter_mut().filter(|child| child.pid != 0) {
            child.killed.get_or_insert(why);
            // Its number is its own until it is reaped, here.
            let _ = signal::send_to_child(child.pid, signal);
        }
    }

    fn continue_shutdown(&mut self) {
        let (alive, head) = (self.alive() as u32, &self.nursery.roll.head);
        match self.shutdown {
            Shutdown::None => {}
            _ if alive == 0 => {
                os::kill_all_children();
                self.leave();
            }
            Shutdown::Terminating(until) if now() >= until => {
                self.w.store(&head.killed, alive, Relaxed);
                self.signal_all(signal::KILL, Reason::Terminated);
                self.shutdown = Shutdown::Killing(now() + DYING_NS);
            }
            Shutdown::Killing(until) if now() >= until => {
                self.w.store(&head.stuck, alive, Relaxed);
                self.leave();
            }
            _ => {}
        }
    }

    fn kill_stopped(&mut self) {
        let now = now();
        for child in self.children.iter_mut().filter(|child| child.pid != 0 && child.stopped != 0) {
            if now < child.stopped + STOPPED_NS {
                continue;
            }
            child.stopped = 0;
            // Without /proc it is taken for true: it was stopped when the kernel said so.
            if !self.nursery.proc_is_ours || process::is_stopped(child.pid).unwrap_or(true) {
                child.killed.get_or_insert(Reason::Stopped);
                let _ = signal::send_to_child(child.pid, signal::KILL);
            }
        }
    }

    /// What the worker in a place is running, if it says something that can be.
    fn lap(&self, place: usize) -> Option<(Lap, Limits)> {
        let (w, nursery) = (self.w, &self.nursery);
        let lap = duty::running(w, nursery.duties.get(place)?)?;
        let tasks = &nursery.board.tasks;
        if lap.task.slot >= w.load(&tasks.head.records, Acquire) {
            return None;
        }
        let record = tasks.records.get(lap.task.slot as usize)?;
        (w.load64(&record.sequence, Relaxed) as u32 == lap.task.generation).then(|| (lap, Limits::of(w, record)))
    }

    /// The host does not want the task any more. A worker that is about to begin it sees that for itself.
    fn cancel(&mut self, task: u64) {
        self.w.fence();
        for place in 0..self.children.len() {
            let Some((lap, limits)) = self.lap(place) else { continue };
            if duty::name_of(lap.task.slot, lap.task.generation) != task {
                continue;
            }
            let grace = match limits {
                Limits { soft_timeout_ms: 0, .. } => 0,
                Limits { timeout_ms: 0, .. } => CANCEL_GRACE_MS,
                Limits { timeout_ms, soft_timeout_ms } => timeout_ms.saturating_sub(soft_timeout_ms),
            };
            let end = now().saturating_add(grace.saturating_mul(1_000_000));
            let child = &mut self.children[place];
            // Whoever cancels it once more does not give it more time.
            let end = child.cancel.filter(|&(before, _)| before == task).map_or(end, |(_, before)| before.min(end));
            child.cancel = Some((task, end));
        }
    }

    /// Why and when the worker in a place has to be ended because of what it is running.
    fn limit(&self, place: usize) -> Option<(u64, Reason, Lap)> {
        let child = self.children.get(place).filter(|child| child.pid != 0 && child.killed.is_none())?;
        let (lap, limits) = self.lap(place)?;
        // What begins later than now was written by somebody else.
        let timeout = limits.end(lap.began).map(|end| (if lap.began <= now() { end } else { 0 }, Reason::Timeout));
        let name = duty::name_of(lap.task.slot, lap.task.generation);
        let cancel = child.cancel.filter(|&(task, _)| task == name).map(|(_, end)| (end, Reason::Canceled));
        let first = timeout.into_iter().chain(cancel).min_by_key(|&(end, _)| end);
        first.map(|(end, why)| (end, why, lap))
    }

    /// Ends the workers that run what has to have ended.
    fn end_overdue(&mut self) {
        for place in 0..self.children.len() {
            let Some(duty) = self.nursery.duties.get(place) else { continue };
            if duty::is_spoilt(self.w, duty) {
                // Nobody could say any more how long it runs.
                if let Some(child) = self.children.get(place).filter(|child| child.pid != 0) {
                    let _ = signal::send_to_child(child.pid, signal::KILL);
                }
                continue;
            }
            let overdue = self.limit(place).filter(|&(end, ..)| end <= now());
            let Some((_, why, lap)) = overdue else { continue };
            // Otherwise it has ended at the last moment.
            if duty::condemn(self.w, duty, &lap) {
                self.kill(place, why);
            }
        }
    }

    /// Whether anybody runs what may take too much memory.
    fn may_be_greedy(&self) -> bool {
        let runs = |(place, child): (usize, &Child)| child.pid != 0 && child.killed.is_none() && self.lap(place).is_some();
        self.nursery.memory_limit != 0 && self.children.iter().enumerate().any(runs)
    }

    /// Ends workers that run tasks and have more memory than they may.
    fn end_greedy(&mut self) {
        if now() < self.look_again || !self.may_be_greedy() {
            return;
        }
        let began = now();
        for place in 0..self.children.len() {
            let Child { pid, killed: None, .. } = self.children[place] else { continue };
            let (Some((lap, _)), Some(duty)) = (self.lap(place).filter(|_| pid != 0), self.nursery.duties.get(place)) else {
                continue;
            };
            let limit = self.nursery.memory_limit.saturating_add(self.lent_to(lap.task.slot));
            // A task that has just ended is lucky; the next one of that worker is not.
            if os::memory_above(pid, limit) && duty::condemn(self.w, duty, &lap) {
                self.kill(place, Reason::Memory);
            }
        }
        self.look_again = began + LOOK_AT_MEMORY_NS.max((now() - began) * PAUSES_PER_LOOK);
    }

    /// Bytes of files that a worker alone maps for a task, and that are not its own memory: a long argument, a chunk's results.
    fn lent_to(&self, slot: u32) -> u64 {
        let Some(record) = self.nursery.board.tasks.records.get(slot as usize) else { return 0 };
        let unmapped = self.w.load(&record.flags, Relaxed) & flags::UNMAPPED != 0;
        let argument = if unmapped { self.w.load64(&record.argument_len, Relaxed) } else { 0 };
        let items = Some(self.w.load(&record.items, Relaxed)).filter(|&items| items > 1).unwrap_or(0);
        argument.saturating_add(self.w.load64(&record.result_size, Relaxed).saturating_mul(items.into()))
    }

    fn kill(&mut self, place: usize, why: Reason) {
        if let Some(child) = self.children.get_mut(place).filter(|child| child.pid != 0) {
            child.killed.get_or_insert(why);
            let _ = signal::send_to_child(child.pid, signal::KILL);
        }
    }

    /// When something has to be done by itself; u64::MAX = never.
    fn next_time(&self) -> u64 {
        let stopped = self.children.iter().filter(|child| child.stopped != 0).map(|child| child.stopped + STOPPED_NS);
        let limits = (0..self.children.len()).filter_map(|place| self.limit(place)).map(|(end, ..)| end);
        let shutdown = match self.shutdown {
            Shutdown::Terminating(time) | Shutdown::Killing(time) => Some(time),
            Shutdown::None => None,
        };
        let backoff = Some(self.backoff_until).filter(|&until| until > now());
        let look = (self.nursery.host_fd < 0).then(|| now() + LOOK_MS * 1_000_000);
        // Once more after each look: else whoever begins a short task after the other would wake it for each.
        let looks = self.nursery.memory_limit != 0 && (now() < self.look_again || self.may_be_greedy());
        let memory = looks.then_some(self.look_again);
        stopped.chain(limits).chain(memory).chain(shutdown).chain(backoff).chain(look).min().unwrap_or(u64::MAX)
    }

    /// Until something happens or has to be done.
    fn sleep(&self) {
        let (nursery, wakes_at) = (&self.nursery, &self.nursery.roll.head.wakes_at);
        self.w.store64(wakes_at, self.next_time(), SeqCst);
        // Who begins something after this sees how long the sleep is, and what was begun before is seen now.
        self.w.fence();
        let until = self.next_time();
        let timeout = match until {
            u64::MAX => Timeout::Forever,
            until => Timeout::Millis(until.saturating_sub(now()).div_ceil(1_000_000)),
        };
        let fds = [&nursery.socket, &nursery.child_signals, &nursery.alarm].map(AsRawFd::as_raw_fd);
        let deadline = Deadline::new(timeout);
        // All signals are blocked and the descriptors are open: it cannot fail.
        let _ = poll::readable(&[fds[0], fds[1], fds[2], nursery.host_fd], &deadline);
        self.w.store64(wakes_at, 0, Relaxed);
    }

    fn host_is_gone(&self) -> bool {
        if self.nursery.host_fd >= 0 {
            return pidfd::has_ended(&self.nursery.host_fd);
        }
        self.nursery.host_start.is_some() && process::start_time(self.nursery.host_pid) != self.nursery.host_start
    }

    fn leave(&self) -> ! {
        self.w.store(&self.nursery.roll.head.stage, stage::ENDED, Release);
        self.notify_host();
        fork::exit_now(0)
    }

    /// Ends everything that comes from here: workers, what they started, and this process.
    fn end_all(&mut self) -> ! {
        self.signal_all(signal::KILL, Reason::Terminated);
        os::kill_all_children();
        os::kill_own_group()
    }
}
