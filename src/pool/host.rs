//! The pool in its host: what the threads of the host's program do with it.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use super::board::{Board, Files, phase};
use super::job::{Callbacks, Death, Job, Reason};
use super::journal::{Entry, Peek, Reader, seed};
use super::nursery::{Roll, command, explain, fate, message, stage};
use super::table::{ArgumentAt, Lodger, Order, Table, closed};
use crate::error::{Error, Kind, Result};
use crate::log::{self, Level};
use crate::shm::pool::BELLS;
use crate::shm::{Woken, Words};
use crate::sys::elf::Loaded;
use crate::sys::fd::{self, PrivateFd};
use crate::sys::heap::Filled;
use crate::sys::thread::{self, Thread};
use crate::sys::wait::{self, Child, Ending, Usage};
use crate::sys::{Deadline, file, now, nursery as os, pidfd, poll, process, signal};
use crate::timeout::Timeout;

/// How often who waits for a task looks itself before it sleeps.
const LOOKS: u32 = 60;
/// Whoever waits looks after the nursery once in a while: the delivery thread, whose task that is, may be busy with a callback.
const LOOK_MS: u64 = 1_000;
/// How long the nursery may take to hear a command, and how long after the grace to carry it out.
const HEARING_MS: u64 = 2_000;
const ENDING_MS: u64 = 5_000;
/// Longer arguments are copied outside of the lock.
const COPIED_UNDER_LOCK: usize = 4 << 10;
/// Who fills a pool of at least so many tasks sleeps so long after one of them has ended.
const MANY: usize = 64;
const ROOM_NAP_US: u32 = 100;
/// Entries that are taken in at a time: who submits does not wait longer for the lock than these take.
const BATCH: usize = 64;

/// What becomes of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Course {
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
    pub(super) course: Course,
    /// Why the pool takes no more tasks, if it was not closed.
    broken: Option<String>,
    worker_deaths: u64,
    /// When workers died in a row without a task in between.
    recent_deaths: VecDeque<u64>,
    finished_at_death: u64,
    commands: u32,
    /// The delivery thread wakes up by itself from time to time.
    pub(super) watched: bool,
    /// Everything is over, and every callback has returned.
    pub(super) finished: bool,
    joiners: u64,
    /// For the log, once no lock is held.
    notes: Vec<(Level, String)>,
}

struct Readers {
    readers: Vec<Reader>,
    batch: Vec<(u32, Entry, std::result::Result<Option<Filled>, i32>)>,
}

/// A pool. Shared by its handle, its delivery thread and whoever waits.
pub struct Host {
    pub(super) name: String,
    epoch: u64,
    pool: u64,
    loaded: Loaded,
    files: Arc<Files>,
    pub(super) board: Arc<Board>,
    roll: Roll,
    peeks: Vec<Arc<Peek>>,
    readers: Mutex<Readers>,
    state: Mutex<State>,
    socket: PrivateFd,
    nursery_pid: i32,
    nursery_start: Option<u64>,
    nursery: Option<PrivateFd>,
    pub(super) bell: PrivateFd,
    budget: usize,
    window_ns: u64,
    worker_count: usize,
    /// The handle was freed inside a callback.
    pub(super) freed: AtomicBool,
    pub(super) thread: Mutex<Option<JoinHandle<()>>>,
}

/// What `new` has made before a pool is one.
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) pool: u64,
    pub(super) loaded: Loaded,
    pub(super) files: Arc<Files>,
    pub(super) board: Arc<Board>,
    pub(super) roll: Roll,
    pub(super) readers: Vec<Reader>,
    pub(super) table: Table,
    pub(super) socket: PrivateFd,
    pub(super) nursery_pid: i32,
    pub(super) nursery: Option<PrivateFd>,
    pub(super) bell: PrivateFd,
    pub(super) budget: usize,
    pub(super) window_ns: u64,
    pub(super) worker_count: usize,
}

thread_local! {
    /// The pool whose callbacks this thread runs. Const and without Drop.
    static DELIVERING: Cell<usize> = const { Cell::new(0) };
}

/// What is to be submitted.
pub struct Submission<'a> {
    pub order: Order<'a>,
    pub callbacks: Option<Callbacks>,
    /// 0 = chosen.
    pub id: u64,
    /// Somebody will ask for it by its handle.
    pub handle: bool,
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
            self.host.nudge(w);
        }
    }
}

impl State {
    fn admits(&self) -> Result<()> {
        match (&self.broken, self.course) {
            (Some(why), _) => Err(Error::new(Kind::Broken, why.clone())),
            (None, Course::Open) => Ok(()),
            (None, _) => Err(closed()),
        }
    }
}

impl Host {
    pub(super) fn new(parts: Parts) -> Host {
        let state = State {
            table: parts.table,
            course: Course::Open,
            broken: None,
            worker_deaths: 0,
            recent_deaths: VecDeque::new(),
            finished_at_death: 0,
            commands: 0,
            watched: false,
            finished: false,
            joiners: 0,
            notes: Vec::new(),
        };
        Host {
            name: parts.name,
            epoch: thread::epoch(),
            pool: parts.pool,
            loaded: parts.loaded,
            board: parts.board,
            roll: parts.roll,
            peeks: parts.readers.iter().map(|reader| reader.peek.clone()).collect(),
            readers: Mutex::new(Readers { readers: parts.readers, batch: Vec::new() }),
            state: Mutex::new(state),
            socket: parts.socket,
            nursery_start: process::start_time(parts.nursery_pid),
            nursery_pid: parts.nursery_pid,
            nursery: parts.nursery,
            bell: parts.bell,
            budget: parts.budget,
            window_ns: parts.window_ns,
            worker_count: parts.worker_count,
            freed: AtomicBool::new(false),
            files: parts.files,
            thread: Mutex::new(None),
        }
    }

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

    fn lock_readers(&self) -> Result<MutexGuard<'_, Readers>> {
        self.readers.lock().map_err(|_| Error::new(Kind::Panic, format!("{}: the library failed in an earlier call", self.name)))
    }

    /// Wakes the delivery thread, if it sleeps.
    pub(super) fn nudge(&self, w: Thread) {
        w.fence();
        if w.load(&self.board.tasks.head.delivery, Relaxed) % 2 == 1 {
            fd::ring(self.bell.as_raw_fd());
        }
    }

    /// Whether the calling thread is inside a callback of this pool.
    pub(super) fn is_delivering(&self) -> bool {
        DELIVERING.get() == std::ptr::from_ref(self) as usize
    }

    pub(super) fn set_delivering(&self, delivering: bool) {
        DELIVERING.set(if delivering { std::ptr::from_ref(self) as usize } else { 0 });
    }

    // ---- What workers and nursery have written ----

    /// Whether there is something to take in. A hint: what lies where only reading can tell is not seen.
    #[inline]
    pub(super) fn something(&self) -> bool {
        self.peeks.iter().any(|peek| peek.something() == Some(true))
    }

    /// The same without doubt.
    fn anything(&self) -> bool {
        self.peeks.iter().any(|peek| peek.something() != Some(false))
    }

    /// Takes in all that workers and nursery have written.
    pub(super) fn collect(&self) -> Result<()> {
        let mut notes = false;
        let collected = self.collect_quietly(&mut notes);
        if notes {
            self.tell_log();
        }
        collected
    }

    fn collect_quietly(&self, notes: &mut bool) -> Result<()> {
        let w = Thread::current();
        let mut readers = self.lock_readers()?;
        loop {
            // Lives before entries: when a process is seen to be dead, all that it wrote is there.
            let lives: u64 = self.lives(w);
            let Readers { readers: journals, batch } = &mut *readers;
            for (place, journal) in journals.iter_mut().enumerate() {
                let before = batch.len();
                while batch.len() - before < BATCH {
                    let Some((entry, result)) = journal.next_entry() else { break };
                    batch.push((place as u32, entry, result));
                }
            }
            let mut state = self.lock()?;
            let changed = lives != state.table.lives();
            if batch.is_empty() && !changed {
                return Ok(());
            }
            // In the order in which it happened, as far as clocks of several processors can tell.
            batch.sort_by_key(|(_, entry, _)| entry.stamp);
            self.meet(w, &mut state);
            for (place, entry, result) in batch.drain(..) {
                state.table.take_in(place, &entry, result);
            }
            state.table.advance(w);
            for (place, journal) in journals.iter().enumerate() {
                if let Some(receipt) = self.board.tasks.receipts.get(place) {
                    w.store64(&receipt.consumed, journal.position(), Release);
                }
            }
            if changed {
                self.bury(w, &mut state, journals)?;
            }
            self.go_on(w, &mut state);
            *notes |= !state.notes.is_empty();
        }
    }

    /// Tells the log what happened, under no lock.
    fn tell_log(&self) {
        let notes = self.lock().map(|mut state| std::mem::take(&mut state.notes)).unwrap_or_default();
        for (level, note) in notes {
            log::write(level, || note);
        }
    }

    /// Changes with every birth and death.
    fn lives(&self, w: Thread) -> u64 {
        (0..self.roll.lines.count())
            .filter_map(|place| self.roll.lines.get(place))
            .map(|line| u64::from(w.load(&line.life, Acquire)))
            .sum()
    }

    /// How often somebody was born or died in a place.
    fn lives_of(&self, w: Thread, place: usize) -> u32 {
        self.roll.lines.get(place).map_or(0, |line| w.load(&line.life, Acquire))
    }

    /// Notes who was born.
    fn meet(&self, w: Thread, state: &mut State) {
        for (place, lodger) in state.table.lodgers.iter_mut().enumerate() {
            let Some(line) = self.roll.lines.get(place) else { continue };
            // SYNC POINT: life (acquire).
            let life = w.load(&line.life, Acquire);
            // Odd: it lives. Even and above: it was born and has died since; it is buried below.
            if life > lodger.life && !lodger.alive {
                let life = lodger.life + 1;
                *lodger = Lodger { life, alive: true, pid: w.load(&line.pid, Relaxed) as i32, ..Default::default() };
            }
        }
    }

    /// Draws the consequences of deaths. Everything that the dead wrote has been taken in.
    fn bury(&self, w: Thread, state: &mut State, journals: &mut [Reader]) -> Result<()> {
        for (place, journal) in journals.iter_mut().enumerate() {
            let (Some(line), Some(receipt)) = (self.roll.lines.get(place), self.board.tasks.receipts.get(place)) else {
                continue;
            };
            let lodger = state.table.lodgers[place];
            let life = w.load(&line.life, Acquire);
            if !lodger.alive || life != lodger.life + 1 {
                continue;
            }
            // Read after its death was seen: these are its last entries.
            while let Some((entry, result)) = journal.next_entry() {
                state.table.take_in(place as u32, &entry, result);
            }
            let lodger = state.table.lodgers[place];
            let (death, kind) = self.death(w, place);
            let partial = lodger.chunk.and_then(|(unit, length)| journal.unfinished(unit, length));
            state.table.bury(w, place as u32, death, kind, partial)?;
            state.table.lodgers[place].life = life;
            // It may have written over what everybody may write, and its claims are nobody's now.
            let lost = state.table.mend(w, |place| self.lives_of(w, place))?;
            if !lodger.left {
                let note = format!("{}: worker {} ended: {}", self.name, lodger.pid, describe(&death, &lodger));
                state.notes.push((Level::Info, note));
            }
            if lost > 1 {
                state.notes.push((Level::Warn, format!("{}: {lost} claims were written over", self.name)));
            }
            journal.begin(seed(self.pool, place as u32, life + 1));
            w.store64(&receipt.consumed, 0, Relaxed);
            // SYNC POINT: buried (release): the nursery may use the place again.
            w.store(&receipt.buried, life, Release);
            self.command(state, command::LOOK, 0);
            if kind == Kind::WorkerDied && !lodger.left {
                state.worker_deaths += 1;
                self.count_death(w, state, &death, &lodger);
            }
        }
        Ok(())
    }

    /// How the process in a place ended, and what that makes of the task that it ran.
    fn death(&self, w: Thread, place: usize) -> (Death, Kind) {
        let Some(line) = self.roll.lines.get(place) else { return (UNKNOWN, Kind::WorkerDied) };
        let status = w.load(&line.status, Relaxed) as i32;
        let (ending, reason, kind) = match w.load(&line.fate, Relaxed) {
            fate::EXITED => (Ending::Exited(status), Reason::Exit, Kind::WorkerDied),
            fate::DUMPED => (Ending::Signaled { signal: status, core: true }, Reason::Signal, Kind::WorkerDied),
            fate::STOPPED => (Ending::Signaled { signal: status, core: false }, Reason::Stopped, Kind::WorkerDied),
            fate::TERMINATED => (Ending::Signaled { signal: status, core: false }, Reason::Terminated, Kind::Canceled),
            _ => (Ending::Signaled { signal: status, core: false }, Reason::Signal, Kind::WorkerDied),
        };
        let usage = Usage {
            user_us: w.load64(&line.user_us, Relaxed),
            system_us: w.load64(&line.system_us, Relaxed),
            peak_rss_bytes: w.load64(&line.peak_rss_bytes, Relaxed),
        };
        (Death { reason, ending: Some(ending), usage: Some(usage) }, kind)
    }

    /// Too many deaths in a row, without a finished task in between, break the pool.
    fn count_death(&self, w: Thread, state: &mut State, death: &Death, lodger: &Lodger) {
        if state.finished_at_death != state.table.finished {
            state.finished_at_death = state.table.finished;
            state.recent_deaths.clear();
        }
        let now = now();
        state.recent_deaths.push_back(now);
        while state.recent_deaths.front().is_some_and(|&time| time + self.window_ns < now) {
            state.recent_deaths.pop_front();
        }
        let count = state.recent_deaths.len();
        if count >= self.budget && state.course <= Course::Closing {
            let many = if count == 1 { "a worker died".to_owned() } else { format!("{count} workers died in a row") };
            self.break_pool(w, state, format!("{}: {many}, the last one: {}", self.name, describe(death, lodger)));
        }
    }

    /// The pool cannot go on: everything pending ends.
    fn break_pool(&self, w: Thread, state: &mut State, why: String) {
        state.notes.push((Level::Error, why.clone()));
        state.broken.get_or_insert(why);
        self.stop(w, state);
        self.command(state, command::TERMINATE, 0);
    }

    /// Starts no task any more; those that no worker has are cancelled.
    fn stop(&self, w: Thread, state: &mut State) {
        if state.course < Course::Stopping {
            state.course = Course::Stopping;
            self.set_phase(w, phase::STOPPING);
            state.table.end_all(w, Kind::Canceled, Some(ORDERED), false);
            // Whoever waits for room learns that there is none to come.
            state.table.to_ring |= state.table.room_bells;
        }
    }

    fn set_phase(&self, w: Thread, phase: u32) {
        w.store(&self.board.tasks.head.phase, phase, SeqCst);
        self.board.ring_all(w);
    }

    /// What follows from the tasks that have ended, and from what the nursery says.
    fn go_on(&self, w: Thread, state: &mut State) {
        if state.course == Course::Closing && state.table.pending == 0 {
            state.course = Course::Leaving;
            self.set_phase(w, phase::LEAVING);
            self.command(state, command::LOOK, 0);
        }
        if w.load(&self.roll.head.stage, Acquire) == stage::FAILED && state.course <= Course::Closing {
            let failed = w.load(&self.roll.head.step, Relaxed);
            self.break_pool(w, state, format!("{}: {}", self.name, explain(failed)));
        }
    }

    /// Tells the nursery something; answers the number of the command.
    fn command(&self, state: &mut State, kind: u32, argument: i64) -> u32 {
        state.commands = state.commands.wrapping_add(1).max(1);
        os::send(self.socket.as_fd(), &message(kind, state.commands, argument));
        state.commands
    }

    // ---- The nursery's end ----

    /// What becomes readable when the nursery ends.
    pub(super) fn nursery_fd(&self) -> i32 {
        self.nursery.as_ref().unwrap_or(&self.socket).as_raw_fd()
    }

    pub(super) fn nursery_is_gone(&self) -> bool {
        pidfd::has_ended(&self.nursery_fd())
    }

    /// A host that adopts orphans (the first process of a container, a subreaper) has adopted the nursery and would keep its zombie.
    /// For every other host it is no child, and nothing happens.
    fn take_zombie(&self) {
        if let Some(nursery) = &self.nursery {
            let _ = wait::reap(Child::Pidfd(nursery.as_fd()));
        }
    }

    fn kill_nursery(&self) {
        match &self.nursery {
            Some(nursery) => {
                let _ = pidfd::send_signal(nursery, signal::KILL);
            }
            // Its number is its own as long as its end of the socket is open and it is as old as it was.
            None if !self.nursery_is_gone() && process::start_time(self.nursery_pid) == self.nursery_start => {
                let _ = signal::send_to_child(self.nursery_pid, signal::KILL);
            }
            None => {}
        }
    }

    /// The nursery is gone: nothing comes any more. Whatever is pending ends.
    pub(super) fn end(&self) -> Result<()> {
        let w = Thread::current();
        // What workers did before they died is done.
        self.collect()?;
        let mut state = self.lock()?;
        if state.course == Course::Ended {
            return Ok(());
        }
        self.take_zombie();
        let in_order = w.load(&self.roll.head.stage, Acquire) == stage::ENDED;
        if !in_order && state.course < Course::Stopping {
            let why = format!("{}: its nursery was killed", self.name);
            state.notes.push((Level::Error, why.clone()));
            state.broken.get_or_insert(why);
            self.set_phase(w, phase::STOPPING);
            state.table.end_all(w, Kind::Canceled, None, false);
            state.table.end_all(w, Kind::WorkerDied, Some(UNKNOWN), true);
        }
        state.table.end_all(w, Kind::Canceled, Some(ORDERED), true);
        state.course = Course::Ended;
        let joiners = state.joiners | state.table.room_bells;
        state.table.to_ring |= joiners;
        for lodger in &mut state.table.lodgers {
            lodger.alive = false;
        }
        drop(state);
        // The delivery thread ends with this.
        fd::ring(self.bell.as_raw_fd());
        self.tell_log();
        Ok(())
    }

    /// Now and then, by whoever waits or delivers.
    pub(super) fn look(&self) -> Result<()> {
        if self.nursery_is_gone() {
            return self.end();
        }
        let w = Thread::current();
        let mut state = self.lock()?;
        let (queued, _) = state.table.counts();
        if queued > 0 && state.course <= Course::Closing {
            let lost = state.table.mend(w, |place| self.lives_of(w, place))?;
            drop(state);
            if lost > 0 {
                log::write(Level::Warn, || format!("{}: {lost} claims were written over", self.name));
            }
        }
        Ok(())
    }

    // ---- Submitting ----

    pub fn submit(self: &Arc<Host>, submission: &Submission, room: &Deadline) -> Result<Arc<Job>> {
        self.check_process()?;
        let order = &submission.order;
        self.loaded.check(order.function)?;
        let host = submission.handle.then(|| Arc::downgrade(self));
        let job = Arc::new(Job::new(submission.id, submission.callbacks, host));
        let w = Thread::current();
        let mut state = self.admit(room)?;
        let slot = state.table.reserve(order, &job)?;
        let at = state.table.argument_at(slot);
        let mut written = Ok(());
        if order.argument.len() <= COPIED_UNDER_LOCK {
            written = self.copy_argument(at, order.argument);
        } else {
            // The slot is this task's; nobody looks at it before it is published.
            drop(state);
            let copied = self.copy_argument(at, order.argument);
            state = self.lock()?;
            // Meanwhile the pool may have been ended.
            written = written.and(copied).and_then(|()| state.admits());
        }
        if let Err(error) = written.and_then(|()| state.table.publish(w, slot, order)) {
            state.table.give_up(slot);
            self.go_on(w, &mut state);
            return Err(error);
        }
        let unwatched = !std::mem::replace(&mut state.watched, true);
        drop(state);
        self.board.alert(w);
        if unwatched {
            fd::ring(self.bell.as_raw_fd());
        }
        Ok(job)
    }

    /// Whether a task with this function would be admitted.
    pub(super) fn check_submission(&self, function: usize) -> Result<()> {
        self.loaded.check(function)?;
        self.lock()?.admits()
    }

    /// Submits and waits. A task that is not done in time goes on for nobody.
    pub fn apply(self: &Arc<Host>, order: Order, timeout: Timeout) -> Result<Arc<Job>> {
        let deadline = Deadline::new(timeout);
        let submission = Submission { order, callbacks: None, id: 0, handle: false };
        let job = self.submit(&submission, &deadline).map_err(|error| match error.kind() {
            Kind::Full => Error::new(Kind::TimedOut, format!("{}: no room for the task in time", self.name)),
            _ => error,
        })?;
        match self.wait(&job, &deadline)? {
            true => Ok(job),
            false => Err(Error::new(Kind::TimedOut, "tine_pool_apply: the task is not done in time, and goes on for nobody")),
        }
    }

    fn copy_argument(&self, at: ArgumentAt, argument: &[u8]) -> Result<()> {
        match at {
            ArgumentAt::Mapped(offset) => {
                self.board.tasks.window.write(offset, argument);
                Ok(())
            }
            ArgumentAt::Behind(offset) => file::write_at(self.files.tasks.as_fd(), argument, offset).map_err(|errno| {
                crate::sys::failure(errno, format_args!("{}: an argument of {} bytes", self.name, argument.len()))
            }),
        }
    }

    /// The state, once there is room for one more task.
    fn admit(&self, room: &Deadline) -> Result<Locked<'_>> {
        let state = self.lock()?;
        state.admits()?;
        if state.table.pending < state.table.max_pending {
            return Ok(state);
        }
        drop(state);
        self.wait_for_room(room)
    }

    #[cold]
    fn wait_for_room(&self, room: &Deadline) -> Result<Locked<'_>> {
        loop {
            self.collect()?;
            let mut state = self.lock()?;
            state.admits()?;
            if state.table.pending < state.table.max_pending {
                return Ok(state);
            }
            if room.passed() {
                return Err(Error::new(
                    Kind::Full,
                    format!("{}: {} tasks are pending already", self.name, state.table.max_pending),
                ));
            }
            let bell = state.table.take_bell();
            state.table.room_bells |= 1 << bell;
            self.publish_bells(&state.table);
            drop(state);
            let waited = self.wait_with_bell(bell, room, || {
                let state = self.lock()?;
                Ok(state.admits().is_err() || state.table.pending < state.table.max_pending)
            });
            let mut state = self.lock()?;
            state.table.return_bell(bell);
            if state.table.bells_in_use & 1 << bell == 0 {
                state.table.room_bells &= !(1 << bell);
            }
            self.publish_bells(&state.table);
            let many = state.table.max_pending >= MANY;
            drop(state);
            if waited? && many {
                // There is room for one. Whoever fills a pool soon needs more: better asleep once for many than once for each.
                os::nap_micros(ROOM_NAP_US);
            }
        }
    }

    fn publish_bells(&self, table: &Table) {
        let (w, head) = (Thread::current(), &self.board.tasks.head);
        w.store64(&head.bells_in_use, table.bells_in_use, SeqCst);
        w.store64(&head.any_bells, table.room_bells, SeqCst);
    }

    // ---- Waiting ----

    /// Waits until the job is ready; `false`: the time ran out.
    pub fn wait(&self, job: &Job, deadline: &Deadline) -> Result<bool> {
        // A callback that waits cannot wait for callbacks that come after it.
        let delivering = self.is_delivering();
        let ready = || job.is_ready() || delivering && job.has_ended();
        if ready() {
            return Ok(true);
        }
        let w = Thread::current();
        if deadline.is_try() {
            return Ok(self.is_ready(job));
        }
        for turn in 0..LOOKS {
            if self.something() {
                self.collect()?;
            }
            if ready() {
                return Ok(true);
            }
            w.relax(turn);
        }
        let bell = {
            let mut state = self.lock()?;
            let bell = match job.bell() {
                Some(bell) => {
                    state.table.share_bell(bell);
                    bell
                }
                None => state.table.take_bell(),
            };
            job.set_bell(Some(bell));
            state.table.wait_with(w, job, bell);
            self.publish_bells(&state.table);
            bell
        };
        let waited = self.wait_with_bell(bell, deadline, || Ok(ready()));
        let mut state = self.lock()?;
        state.table.return_bell(bell);
        self.publish_bells(&state.table);
        waited
    }

    /// Sleeps until `ready`, looking whenever the bell rings.
    fn wait_with_bell(&self, bell: usize, deadline: &Deadline, ready: impl Fn() -> Result<bool>) -> Result<bool> {
        let w = Thread::current();
        let word = &self.board.claims.head.bells[bell.min(BELLS - 1)];
        loop {
            let heard = w.load(word, Acquire);
            // Either the one who ends the task sees that somebody waits, or this one sees that it has ended.
            w.fence();
            self.collect()?;
            if ready()? {
                return Ok(true);
            }
            if deadline.passed() {
                return Ok(false);
            }
            if w.wait(word, heard, &deadline.at_most(LOOK_MS))? == Woken::TimedOut {
                self.look()?;
            }
        }
    }

    /// Whether the job is ready now.
    pub fn is_ready(&self, job: &Job) -> bool {
        let delivering = self.is_delivering();
        if !job.is_ready() && self.anything() {
            let _ = self.collect();
        }
        job.is_ready() || delivering && job.has_ended()
    }

    /// Nobody waits for the job any more: it does not start, or goes on for nobody.
    pub(super) fn abandon_quietly(&self, job: &Job) {
        let w = Thread::current();
        if let Ok(mut state) = self.lock() {
            if !state.table.cancel(w, job, Kind::Canceled) {
                state.table.abandon(w, job);
            }
            self.go_on(w, &mut state);
        }
    }

    /// Takes the task back if no worker has it.
    pub fn cancel(&self, job: &Job) -> Result<()> {
        self.check_process()?;
        self.collect()?;
        if job.has_ended() {
            return Ok(());
        }
        let w = Thread::current();
        let mut state = self.lock()?;
        if state.table.cancel(w, job, Kind::Canceled) {
            self.go_on(w, &mut state);
            return Ok(());
        }
        if job.has_ended() {
            return Ok(());
        }
        Err(Error::new(Kind::NotSupported, "tine_async_cancel of a running task: not in this version"))
    }

    // ---- The end of the pool ----

    pub fn close(&self) -> Result<()> {
        self.check_process()?;
        self.collect()?;
        let w = Thread::current();
        let mut state = self.lock()?;
        if state.course == Course::Open {
            state.course = Course::Closing;
            // The last task that ends is to be heard of.
            w.store(&self.board.tasks.head.eager, 1, SeqCst);
            state.table.to_ring |= state.table.room_bells;
            self.go_on(w, &mut state);
        }
        drop(state);
        // What ended between the last look and the store above is seen now.
        self.collect()
    }

    /// Ends all workers; answers how many had to be killed.
    pub fn terminate(&self, grace: Timeout) -> Result<u32> {
        self.check_process()?;
        let w = Thread::current();
        let grace_ms = match grace {
            Timeout::Forever => -1,
            Timeout::Try => 0,
            Timeout::Millis(millis) => i64::try_from(millis).unwrap_or(i64::MAX),
        };
        let ended = {
            let _ = self.collect();
            let mut state = self.lock()?;
            if state.course == Course::Ended {
                return Ok(w.load(&self.roll.head.killed, Relaxed));
            }
            self.stop(w, &mut state);
            self.command(&mut state, command::TERMINATE, grace_ms)
        };
        if !self.was_heard(w, ended) {
            log::write(Level::Warn, || format!("{}: its nursery does not answer and is killed", self.name));
            self.kill_nursery();
        }
        let end = match grace {
            Timeout::Forever => Deadline::new(Timeout::Forever),
            Timeout::Try => Deadline::new(Timeout::Millis(ENDING_MS)),
            Timeout::Millis(millis) => Deadline::new(Timeout::Millis(millis.saturating_add(ENDING_MS))),
        };
        if !self.await_nursery(&end) {
            self.kill_nursery();
            self.await_nursery(&Deadline::new(Timeout::Millis(HEARING_MS)));
        }
        self.end()?;
        match w.load(&self.roll.head.stuck, Relaxed) {
            0 => Ok(w.load(&self.roll.head.killed, Relaxed)),
            stuck => Err(Error::new(Kind::TimedOut, format!("{}: {stuck} workers were killed and cannot die", self.name))),
        }
    }

    /// Whether the nursery takes note of the command in time, or is gone.
    fn was_heard(&self, w: Thread, number: u32) -> bool {
        let deadline = Deadline::new(Timeout::Millis(HEARING_MS));
        loop {
            let heard = w.load(&self.roll.head.heard, Acquire);
            if heard.wrapping_sub(number) as i32 >= 0 || self.nursery_is_gone() {
                return true;
            }
            if deadline.passed() {
                return false;
            }
            let _ = w.wait(&self.roll.head.heard, heard, &deadline.at_most(100));
        }
    }

    fn await_nursery(&self, deadline: &Deadline) -> bool {
        while !self.nursery_is_gone() {
            if deadline.passed() {
                return false;
            }
            // The thread's interrupt check has no say: terminate always returns anyway.
            if poll::readable(&[self.nursery_fd()], deadline).is_err() {
                os::nap(1);
            }
        }
        true
    }

    /// Waits until everything is over and every callback has returned.
    pub fn join(&self, timeout: Timeout) -> Result<()> {
        self.check_process()?;
        let deadline = Deadline::new(timeout);
        let bell = {
            let mut state = self.lock()?;
            if self.is_delivering() {
                return Err(Error::new(Kind::Busy, format!("{}: join inside a callback would wait for itself", self.name)));
            }
            if state.course == Course::Open {
                return Err(Error::invalid(format!("{}: join before close or terminate", self.name)));
            }
            let bell = state.table.take_bell();
            state.joiners |= 1 << bell;
            self.publish_bells(&state.table);
            bell
        };
        let joined = self.wait_with_bell(bell, &deadline, || Ok(self.lock()?.finished));
        let mut state = self.lock()?;
        state.table.return_bell(bell);
        if state.table.bells_in_use & 1 << bell == 0 {
            state.joiners &= !(1 << bell);
        }
        self.publish_bells(&state.table);
        if joined? {
            return Ok(());
        }
        Err(Error::new(Kind::TimedOut, format!("{}: not all workers have left in time", self.name)))
    }

    /// The delivery thread has nothing to do any more.
    pub(super) fn finish(&self) {
        if let Ok(mut state) = self.lock() {
            state.finished = true;
            let joiners = state.joiners;
            state.table.to_ring |= joiners;
        }
    }

    // ---- Looking ----

    pub fn stats(&self) -> Result<Stats> {
        self.check_process()?;
        self.collect()?;
        let w = Thread::current();
        let state = self.lock()?;
        let (queued, running) = state.table.counts();
        let workers = if state.course == Course::Ended { 0 } else { self.workers(w).count() as u64 };
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

    pub(super) fn worker_count(&self) -> usize {
        self.worker_count
    }

    pub(super) fn max_pending(&self) -> usize {
        self.lock().map_or(1, |state| state.table.max_pending)
    }

    /// The living workers: {which, process}.
    fn workers(&self, w: Thread) -> impl Iterator<Item = (u32, i32)> + '_ {
        (0..self.roll.lines.count()).filter_map(move |place| {
            let line = self.roll.lines.get(place)?;
            let lives = w.load(&line.life, Acquire) % 2 == 1;
            let worker = w.load(&line.worker, Relaxed);
            (lives && worker != 0).then(|| (worker - 1, w.load(&line.pid, Relaxed) as i32))
        })
    }

    pub fn worker_pids(&self) -> Result<Vec<i32>> {
        self.check_process()?;
        if self.lock()?.course == Course::Ended {
            return Ok(Vec::new());
        }
        let mut workers: Vec<_> = self.workers(Thread::current()).collect();
        workers.sort_unstable();
        Ok(workers.into_iter().map(|(_, pid)| pid).collect())
    }
}

/// The end of a worker that the library ordered and nobody could look at.
const ORDERED: Death = Death { reason: Reason::Terminated, ending: None, usage: None };
/// The end of a worker that nobody saw.
const UNKNOWN: Death = Death { reason: Reason::Signal, ending: None, usage: None };

fn describe(death: &Death, lodger: &Lodger) -> String {
    match (lodger.refused, death.ending) {
        (Some(code), _) => format!("its initializer returned {code}"),
        (None, Some(Ending::Exited(code))) if !lodger.ready => format!("exit code {code} in its initializer"),
        (None, Some(Ending::Signaled { signal, .. })) if !lodger.ready => format!("signal {signal} in its initializer"),
        (None, Some(Ending::Exited(code))) => format!("exit code {code}"),
        (None, Some(Ending::Signaled { signal, .. })) => format!("signal {signal}"),
        (None, None) => "nobody saw its end".to_owned(),
    }
}

impl Job {
    /// Waits until the task has ended and its callback has returned.
    pub fn wait(&self, timeout: Timeout) -> Result<()> {
        let in_time = match self.host() {
            Some(host) => {
                host.check_process()?;
                host.wait(self, &Deadline::new(timeout))?
            }
            // A pool that is gone has ended all its tasks.
            None => self.has_ended(),
        };
        if in_time { Ok(()) } else { Err(Error::new(Kind::TimedOut, "async: the task has not ended in time")) }
    }

    pub fn is_ready_now(&self) -> Result<bool> {
        match self.host() {
            Some(host) => {
                host.check_process()?;
                Ok(host.is_ready(self))
            }
            None => Ok(self.has_ended()),
        }
    }

    pub fn is_successful(&self) -> Result<bool> {
        Ok(self.is_ready_now()? && self.outcome()?.failure.is_none())
    }

    pub fn cancel(&self) -> Result<()> {
        match self.host() {
            Some(host) => host.cancel(self),
            None => Ok(()),
        }
    }
}
