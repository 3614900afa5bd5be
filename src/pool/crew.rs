//! Threads instead of processes behind the same interface: for tasks that need no protection from each other, or must share memory.
//!
//! A crew plays the part of workers and nursery. Its threads take tasks from the same board, but what became of them goes straight into
//! the host's table: there is no journal to read and no death to survive. What host and nursery tell each other by a socket is here
//! only its end: the last thread that leaves closes it. Nobody can end a thread: what ends a task of a process is not to be had.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::thread::JoinHandle;

use super::board::{Holder, Taken, phase};
use super::ending::ENDING_MS;
use super::host::{Host, Lifecycle};
use super::journal::{Entry, flag};
use super::memory::Tasks;
use super::roll::{Roll, stage};
use super::task::{Argument, Code, Limits, Task, call_user, flags};
use crate::error::{Error, Kind, Result};
use crate::shm::{Spin, Words};
use crate::sys::errno::{self, number};
use crate::sys::heap::Filled;
use crate::sys::thread::Thread;
use crate::sys::{self, Deadline, now};
use crate::timeout::Timeout;

/// All threads live once.
const LIFE: u32 = 1;

pub(super) struct Crew {
    code: Arc<dyn Code>,
    /// The task memory, for reading: what is a task's argument in a thread is no more to be written than in a process.
    arguments: Tasks,
    /// Written here as the nursery does it.
    roll: Roll,
    /// Threads that have not left.
    left: AtomicU32,
    /// Dropped by the last one.
    end: Mutex<Option<OwnedFd>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Crew {
    pub(super) fn new(code: Arc<dyn Code>, arguments: Tasks, roll: Roll, end: OwnedFd) -> Crew {
        Crew { code, arguments, roll, left: AtomicU32::new(0), end: Mutex::new(Some(end)), threads: Mutex::default() }
    }

    /// One thread less; the last one ends the pool.
    fn leave(&self) {
        if self.left.fetch_sub(1, SeqCst) == 1 {
            Thread::current().store(&self.roll.head.stage, stage::ENDED, Release);
            if let Ok(mut end) = self.end.lock() {
                *end = None;
            }
        }
    }

    /// Waits until every thread is gone. Not by one of them.
    fn join(&self) {
        let threads = self.threads.lock().map(|mut threads| std::mem::take(&mut *threads)).unwrap_or_default();
        for thread in threads {
            let _ = thread.join();
        }
    }
}

/// A thread that has not left. Whatever happens to it, it leaves.
struct Present<'a> {
    host: &'a Host,
    crew: &'a Crew,
    place: u32,
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        let w = Thread::current();
        self.host.board.forget_place(w, self.place);
        self.set_life(w, LIFE + 1);
        self.crew.leave();
    }
}

impl Present<'_> {
    fn set_life(&self, w: Thread, life: u32) {
        let (roll, place) = (&self.crew.roll, self.place as usize);
        if let (Some(line), Some(latest)) = (roll.line(place, LIFE), roll.latest.get(place)) {
            w.store(&line.life, life, Release);
            w.store(latest, life, Release);
        }
    }
}

impl Host {
    /// Starts the threads of a crew.
    pub(super) fn start_crew(self: &Arc<Host>, count: u32) -> Result<()> {
        let Some(crew) = &self.crew else { return Ok(()) };
        // Held until all are there: the first one that leaves is not taken for the last.
        crew.left.fetch_add(1, SeqCst);
        let mut started = Ok(());
        for place in 0..count {
            let host = self.clone();
            crew.left.fetch_add(1, SeqCst);
            let thread = std::thread::Builder::new().name("tine-worker".into()).spawn(move || {
                if let Some(crew) = &host.crew {
                    run(&host, crew, place);
                }
            });
            match thread {
                Ok(thread) => crew.threads.lock().map(|mut threads| threads.push(thread)).unwrap_or_default(),
                Err(error) => {
                    crew.left.fetch_sub(1, SeqCst);
                    started = Err(sys::failure(error.raw_os_error().unwrap_or(0), "a thread for tasks"));
                    break;
                }
            }
        }
        crew.leave();
        started
    }

    /// Whether the calling thread is one of the pool's, inside a task.
    pub(super) fn is_in_task(&self) -> bool {
        let w = Thread::current();
        self.crew.is_some() && self.workers(w).any(|(_, tid)| tid as u32 == w.tid())
    }

    /// Nobody can end a task in a thread: it is waited for, once the pool is terminated. Does nothing in a pool of processes.
    pub(super) fn join_crew(&self) {
        if let Some(crew) = &self.crew {
            crew.join();
            let _ = self.end();
        }
    }

    /// The end of a pool of threads: no task starts any more, those that run are told, and waited for.
    pub(super) fn terminate_crew(&self, grace: Timeout) -> Result<u32> {
        let w = Thread::current();
        {
            let _ = self.collect();
            let mut state = self.lock()?;
            if state.lifecycle == Lifecycle::Ended {
                return Ok(0);
            }
            self.stop(w, &mut state);
            state.table.abandon_running(w);
        }
        if self.is_in_task() || !self.await_nursery(&Deadline::new(grace)) {
            let (_, running) = self.lock()?.table.counts();
            // Whoever runs nothing is about to leave: that needs no grace.
            let idle = running == 0 && !self.is_in_task();
            if !idle || !self.await_nursery(&Deadline::new(Timeout::Millis(ENDING_MS))) {
                let what = if idle { "an initializer or finalizer is".into() } else { format!("{running} tasks are") };
                let why = format!("{}: {what} running, and threads cannot be killed", self.name);
                return Err(Error::new(Kind::TimedOut, why));
            }
        }
        self.end()?;
        Ok(0)
    }
}

/// A thread's life.
fn run(host: &Arc<Host>, crew: &Crew, place: u32) {
    let w = Thread::current();
    let present = Present { host, crew, place };
    if let Some(line) = crew.roll.line(place as usize, LIFE) {
        w.store(&line.worker, place + 1, Relaxed);
        w.store(&line.pid, w.tid(), Relaxed);
    }
    present.set_life(w, LIFE);
    if let Ok(mut state) = host.lock() {
        state.table.begin_life(place, w.tid() as i32, place + 1);
    }
    let state = match call_user(|| crew.code.initialize()) {
        Ok(state) => state,
        Err(code) => {
            if let Ok(mut state) = host.lock() {
                if state.lifecycle <= Lifecycle::Closing {
                    host.break_pool(w, &mut state, format!("{}: its initializer returned {code}", host.name));
                }
            }
            host.write_notes();
            return;
        }
    };
    let worker = Worker { w, host, crew, place, task: Task::in_thread(host.board.clone(), place, state) };
    if worker.work() {
        call_user(|| crew.code.finalize(state));
    }
}

struct Worker<'a> {
    w: Thread,
    host: &'a Arc<Host>,
    crew: &'a Crew,
    place: u32,
    task: Task,
}

impl Worker<'_> {
    fn holder(&self) -> Holder {
        Holder { place: self.place, life: LIFE as u16 }
    }

    /// Runs tasks; answers whether the pool was closed, and not terminated.
    fn work(&self) -> bool {
        let board = &self.host.board;
        loop {
            match board.phase(self.w) {
                phase::LEAVING => return true,
                phase::STOPPING => return false,
                _ => {}
            }
            let taken = board.take(self.w, self.holder()).or_else(|| self.wait_for_task());
            if let Some(taken) = taken {
                self.run(taken);
            }
        }
    }

    /// Looks for a task, for a while awake and then asleep. `None`: something else has happened.
    fn wait_for_task(&self) -> Option<Taken> {
        let (w, board) = (self.w, &self.host.board);
        let bell = &board.claims.bells.get(self.place as usize)?.bell;
        board.begin_search(w, self.place);
        let phase = board.phase(w);
        let mut spin = Spin::new();
        while phase == phase::OPEN && spin.again(w) {
            if let Some(taken) = board.take(w, self.holder()) {
                board.end_search(w, self.place);
                return Some(taken);
            }
        }
        match board.prepare_to_sleep(w, self.holder()) {
            Ok(taken) => {
                // Whoever submitted more meanwhile counted on this search.
                board.end_search(w, self.place);
                Some(taken)
            }
            Err(heard) => {
                // Whoever changes the phase rings afterwards.
                if board.phase(w) == phase::OPEN {
                    let _ = w.wait(bell, heard, &Deadline::new(Timeout::Forever));
                }
                board.cancel_sleep(w, self.place);
                None
            }
        }
    }

    fn run(&self, taken: Taken) -> Option<()> {
        let (w, task) = (self.w, &self.task);
        let record = self.host.board.tasks.records.get(taken.slot as usize)?;
        let sequence = w.load64(&record.sequence, Relaxed);
        if sequence as u32 != taken.generation || !self.begin(taken.slot, sequence) {
            return None;
        }
        let load = |word| w.load64(word, Relaxed);
        let (function, at, length) =
            (load(&record.function) as usize, load(&record.argument_at), load(&record.argument_len) as usize);
        let (task_flags, items) = (w.load(&record.flags, Relaxed), w.load(&record.items, Relaxed) as usize);
        task.begin(taken.slot, load(&record.id), w.load(&record.attempt, Relaxed));
        task.set_soft_end(Limits::of(w, record).soft_end(now()));
        let limit = if task_flags & flags::LIMITED != 0 { load(&record.result_size) } else { u64::MAX };
        let (entry, result) = match Argument::of(&self.crew.arguments, self.host.files.tasks.as_fd(), at, length, task_flags) {
            Ok(argument) if items > 1 => self.call_for_each(function, &argument, length, items, limit),
            Ok(argument) => self.call(function, &argument, length, limit),
            Err(errno) => (Entry::lost(errno), Ok(None)),
        };
        self.end(Entry { ended: sequence, ended_slot: taken.slot, stamp: now(), ..entry }, result);
        Some(())
    }

    /// `false`: it was cancelled meanwhile.
    fn begin(&self, slot: u32, sequence: u64) -> bool {
        let entry = Entry { flags: flag::BEGAN, began: sequence, began_slot: slot, stamp: now(), ..Entry::default() };
        let Ok(mut state) = self.host.lock() else { return false };
        state.table.apply(self.place, &entry, Ok(None));
        if state.lifecycle >= Lifecycle::Stopping {
            // It was taken before that, and is not started any more.
            state.table.abandon_running(self.w);
        }
        state.table.workers.get(self.place as usize).is_some_and(|worker| worker.running == Some((slot, sequence)))
    }

    fn end(&self, entry: Entry, result: errno::Result<Option<Filled>>) {
        let notes = {
            let Ok(mut state) = self.host.lock() else { return };
            state.table.apply(self.place, &entry, result);
            state.table.advance(self.w);
            self.host.advance(self.w, &mut state);
            state.has_notes()
        };
        if notes {
            self.host.write_notes();
            self.host.flush_trace();
        }
    }

    fn call(&self, function: usize, argument: &Argument, length: usize, limit: u64) -> (Entry, errno::Result<Option<Filled>>) {
        let task = &self.task;
        if task.is_abandoned() {
            return (Entry::lost(number::CANCELED), Ok(None));
        }
        task.reply_state().begin(limit);
        let code = call_user(|| self.crew.code.run(function, argument.address, length, task));
        let mut reply = task.reply_state();
        let entry = reply.end(code);
        let result = reply.take_short();
        let length = result.as_ref().map_or(0, |result| result.len() as u64);
        (Entry { length, ..entry }, result.map(Some))
    }

    fn call_for_each(
        &self,
        function: usize,
        argument: &Argument,
        length: usize,
        items: usize,
        limit: u64,
    ) -> (Entry, errno::Result<Option<Filled>>) {
        let task = &self.task;
        if let Err(error) = task.reply_state().begin_chunk(items, limit, None) {
            return (Entry::lost(error.errno()), Ok(None));
        }
        let item_length = length / items;
        for item in 0..items {
            if task.is_abandoned() {
                break;
            }
            task.reply_state().begin_item(item);
            let address = argument.address.wrapping_add(item * item_length);
            let code = call_user(|| self.crew.code.run(function, address, item_length, task));
            task.reply_state().end_item(item, code);
        }
        let mut reply = task.reply_state();
        let results = reply.take_chunk();
        let entry = reply.end_chunk();
        (entry, results.map(Some).ok_or(number::NO_MEMORY))
    }
}
