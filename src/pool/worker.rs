//! A worker: from its birth in the nursery to its end. It has its host's memory of the moment when the pool was made, and of what
//! happens since then nothing but the tasks.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;
use std::time::Duration;

use super::board::{Holder, Taken, phase};
use super::duty::{self, End};
use super::journal::{Consumed, Entry, UNIT, Writer, flag, seed};
use super::nursery::{LOOK_AT_MEMORY_NS, Nursery};
use super::stderr::Stderr;
use super::task::{Argument, Limits, Task, call_user, consumed, flags};
use crate::process::children;
use crate::process::role::{self, Role};
use crate::shm::pool::{Duty, RollLine, TaskRecord};
use crate::shm::{Spin, Words};
use crate::sys::errno::number;
use crate::sys::thread::Thread;
use crate::sys::{Deadline, exit, fd, fork, interrupt, now, nursery as os, process, signal, stdio};
use crate::timeout::Timeout;

/// Exit codes of a worker that cannot go on: its initializer failed; a task took away what it needs; its nursery is gone.
const REFUSED: i32 = 1;
const DISABLED: i32 = 125;
const ORPHANED: i32 = 126;
/// What a worker may map for writing beyond twice its limit of memory: stacks, arenas, what is never touched.
const DATA_BESIDE: u64 = 256 << 20;
/// A busy worker looks after its nursery once in so many tasks.
const TASKS_PER_LOOK: u32 = 64;

struct Worker<'a> {
    w: Thread,
    nursery: &'a Nursery,
    parent: i32,
    place: u32,
    life: u32,
    duty: &'a Duty,
    /// What the nursery says about this process.
    line: Option<&'a RollLine>,
    /// Laps (see [`duty`]) and tasks until now.
    laps: u64,
    tasks: u32,
    bell_fd: i32,
    /// Wakes the nursery.
    alarm_fd: i32,
    /// A descriptor of the task memory, for arguments that are not mapped.
    tasks_fd: i32,
    /// If the host wants its end.
    stderr: Option<Stderr>,
    /// The sleep of the host's delivery thread that this worker has already ended.
    rung: u32,
    /// Whether this worker is in the set of those that search.
    searching: bool,
}

/// How the last task ended, not written down yet, and who is notified of it.
struct Last {
    entry: Entry,
    record: u32,
    flags: u32,
}

/// All of a worker's life. All signals are blocked when it begins.
pub(super) fn run(nursery: &Nursery, parent: i32, place: u32, life: u32, number: u64) -> ! {
    // The signal comes when the nursery dies; it may be dead already.
    process::set_parent_death_signal(signal::KILL);
    if process::parent_pid() != parent {
        fork::exit_now(ORPHANED);
    }
    process::set_name(c"tine-worker");
    nursery.roll.window.forbid();
    nursery.duties.keep_own(place as usize);
    let journal_fd = os::move_up(nursery.keep_for_worker(place));
    let [bell_fd, tasks_fd, alarm_fd] = [nursery.bell_fd, nursery.tasks_fd, nursery.alarm.as_raw_fd()].map(os::move_up);
    let host_fd = if nursery.host_fd >= 0 { os::move_up(nursery.host_fd) } else { -1 };
    os::raise_oom_score();
    if nursery.no_core {
        os::disable_core_files();
    }
    if nursery.memory_limit != 0 {
        os::limit_data(nursery.memory_limit.saturating_mul(2).saturating_add(DATA_BESIDE));
    }
    interrupt::clear();
    // libc runs the latest handler first, and this one never comes to the host's.
    exit::at_exit_with_code(|code| leave(code));
    let name = CString::new(format!("PoolWorker-{number}")).unwrap_or_default();
    role::set(Role { host_pid: nursery.host_pid, host_fd, name: Box::leak(name.into_boxed_c_str()), exit_pipe: None });

    let w = Thread::current();
    let Some(duty) = nursery.duties.get(place as usize) else { fork::exit_now(DISABLED) };
    let line = nursery.worker_roll.line(place as usize, life);
    let stderr = nursery.stderrs.get(place as usize).map(|&file| Stderr::new(os::move_up(file), nursery.stderr_tail));
    let (rung, searching, laps, tasks) = (0, false, 0, 0);
    let worker =
        Worker { w, nursery, parent, place, life, duty, line, laps, tasks, bell_fd, alarm_fd, tasks_fd, stderr, rung, searching };
    let unit = worker.wait_until_on_roll();
    match &nursery.signals {
        Some(signals) => signals.restore(),
        None => signal::unblock_all(),
    }
    worker.serve(Writer::new(journal_fd, seed(nursery.pool_id, place, life), unit))
}

/// The end of a worker, also when a task calls exit(3): its own children as at the end of any main, its output flushed.
fn leave(code: i32) -> ! {
    children::at_exit();
    stdio::flush_at_end();
    fork::exit_now(code & 0xff)
}

impl Worker<'_> {
    /// Until the nursery has written down who this is: before that, nobody could say of whom a task or a death is. Answers where
    /// the journal begins.
    fn wait_until_on_roll(&self) -> u64 {
        let Some(line) = self.line else { fork::exit_now(DISABLED) };
        loop {
            let seen = self.w.load(&line.life, Acquire);
            if seen == self.life {
                return self.w.load(&line.first_unit, Relaxed).into();
            }
            let _ = self.w.wait(&line.life, seen, &Deadline::new(Timeout::Forever));
        }
    }

    fn holder(&self) -> Holder {
        Holder { place: self.place, life: self.life as u16 }
    }

    fn consumed(&self) -> Consumed {
        consumed(&self.nursery.board, self.place, self.life)
    }

    fn serve(mut self, mut journal: Writer) -> ! {
        let state = match call_user(|| self.nursery.code.initialize()) {
            Ok(state) => state,
            Err(code) => {
                let _ = journal.append(Entry { flags: flag::REFUSED, code, ..Entry::default() }, &[], self.consumed());
                self.ring_delivery();
                leave(REFUSED)
            }
        };
        stdio::flush_at_end();
        self.pass_on_stderr();
        // What the initializer did (setuid clears it) must not make an orphan of this worker.
        self.check_nursery();
        let _ = journal.append(Entry { flags: flag::READY, ..Entry::default() }, &[], self.consumed());
        if let Some(bell) = self.nursery.board.claims.bells.get(self.place as usize) {
            self.w.store(&bell.ready, self.life, Release);
        }
        // It waits for that where another is to leave only then.
        fd::ring(self.alarm_fd);
        let worker = self.wait_for_promotion();
        let task = Task::new(self.nursery.board.clone(), self.place, self.life, worker.unwrap_or(0), state, journal);
        if worker.is_some() {
            self.work(&task);
        }
        call_user(|| self.nursery.code.finalize(state));
        stdio::flush_at_end();
        self.pass_on_stderr();
        self.write(&task, Entry { flags: flag::LEFT, ..Entry::default() });
        leave(0)
    }

    /// A spare worker waits until it takes the place of another. `None`: the pool was closed before.
    fn wait_for_promotion(&self) -> Option<u32> {
        let line = self.line?;
        let bell = &self.nursery.board.claims.bells.get(self.place as usize)?.bell;
        loop {
            let heard = self.w.load(bell, Acquire);
            let worker = self.w.load(&line.worker, Acquire);
            if worker != 0 {
                return Some(worker - 1);
            }
            if self.nursery.board.phase(self.w) == phase::LEAVING || self.leaves() {
                return None;
            }
            let _ = self.w.wait(bell, heard, &Deadline::new(Timeout::Forever));
        }
    }

    /// Runs tasks until the pool is closed and there are none left, or until another process does instead.
    fn work(&mut self, task: &Task) {
        let board = self.nursery.board.clone();
        let mut last: Option<Last> = None;
        for round in 0u32.. {
            if self.nursery.max_tasks != 0 && self.tasks == self.nursery.max_tasks {
                self.write_last(task, last.take());
                return self.wait_for_successor();
            }
            let open = board.phase(self.w) == phase::OPEN && !self.leaves();
            let mut taken = if open { board.take(self.w, self.holder()) } else { None };
            if taken.is_none() {
                // Told at once: there is no entry of a next task to go with it.
                self.write_last(task, last.take());
                taken = self.wait_for_task(task);
            }
            if self.searching {
                board.end_search(self.w, self.place);
                self.searching = false;
            }
            let Some(taken) = taken else { return };
            last = self.run(task, taken, last.take());
            self.tasks += 1;
            if self.stderr.as_ref().is_some_and(Stderr::has_more) {
                // Told first: where it goes there may be somebody who takes his time.
                self.write_last(task, last.take());
                self.pass_on_stderr();
            }
            if round % TASKS_PER_LOOK == TASKS_PER_LOOK - 1 && process::parent_pid() != self.parent {
                fork::exit_now(ORPHANED);
            }
        }
    }

    /// Looks for a task, for a while awake and then asleep. `None`: leave.
    fn wait_for_task(&mut self, task: &Task) -> Option<Taken> {
        let board = &self.nursery.board;
        let bell = &board.claims.bells.get(self.place as usize)?.bell;
        loop {
            board.begin_search(self.w, self.place);
            self.searching = true;
            let phase = board.phase(self.w);
            // Whoever counts on this process's search is passed on by its end.
            if phase == phase::LEAVING || self.leaves() {
                return None;
            }
            if phase == phase::STOPPING {
                self.wait_for_kill();
            }
            let mut spin = Spin::new();
            while spin.again(self.w) {
                if let Some(taken) = board.take(self.w, self.holder()) {
                    return Some(taken);
                }
            }
            self.check_nursery();
            task.reply_state().rewind(self.consumed());
            self.searching = false;
            match board.prepare_to_sleep(self.w, self.holder()) {
                Ok(taken) => return Some(taken),
                Err(heard) => {
                    // Whoever changes the phase, or wants this process to leave, rings afterwards.
                    if board.phase(self.w) == phase && !self.leaves() {
                        let _ = self.w.wait(bell, heard, &Deadline::new(Timeout::Forever));
                    }
                    board.cancel_sleep(self.w, self.place);
                }
            }
        }
    }

    /// What the host and the host's user would have seen by now.
    fn pass_on_stderr(&mut self) {
        let all_is_read = self.consumed().is_some();
        if let Some(stderr) = &mut self.stderr {
            stderr.pass_on(self.w, self.duty, all_is_read);
        }
    }

    /// Whether the nursery wants this process to leave.
    fn leaves(&self) -> bool {
        self.line.is_some_and(|line| self.w.load(&line.leaves, Relaxed) != 0)
    }

    /// Runs no task any more, and waits until another process does in its stead.
    fn wait_for_successor(&self) {
        duty::retire(self.w, self.duty, self.laps);
        fd::ring(self.alarm_fd);
        let board = &self.nursery.board;
        let Some(bell) = board.claims.bells.get(self.place as usize).map(|bell| &bell.bell) else { return };
        loop {
            let heard = self.w.load(bell, Acquire);
            self.w.fence();
            match board.phase(self.w) {
                _ if self.leaves() => return,
                phase::LEAVING => return,
                phase::STOPPING => self.wait_for_kill(),
                _ => {}
            }
            let _ = self.w.wait(bell, heard, &Deadline::new(Timeout::Forever));
        }
    }

    fn wait_for_kill(&self) -> ! {
        loop {
            self.check_nursery();
            thread::sleep(Duration::from_secs(1));
        }
    }

    /// Runs a task. What it finds in the way of the last one goes with the entry that says that this one begins.
    fn run(&mut self, task: &Task, taken: Taken, mut last: Option<Last>) -> Option<Last> {
        let (w, nursery) = (self.w, self.nursery);
        let record = nursery.board.tasks.records.get(taken.slot as usize)?;
        let sequence = w.load64(&record.sequence, Relaxed);
        if sequence as u32 != taken.generation {
            // A claim that somebody wrote.
            return last;
        }
        let load = |word| w.load64(word, Relaxed);
        let (function, at, length) = (load(&record.function), load(&record.argument_at), load(&record.argument_len) as usize);
        let task_flags = self.w.load(&record.flags, Relaxed);
        let items = self.w.load(&record.items, Relaxed) as usize;
        task.begin(taken.slot, load(&record.id), self.w.load(&record.attempt, Relaxed));

        let mut begins = Entry { flags: flag::BEGAN, began: sequence, began_slot: taken.slot, ..Entry::default() };
        let mut refused = None;
        if items > 1 {
            // The last result is still in the buffer that the chunk's replies use.
            self.write_last(task, last.take());
            let consumed = self.consumed();
            match task.reply_state().begin_chunk(items, load(&record.result_size), consumed) {
                Ok(chunk) => {
                    begins = Entry { flags: flag::BEGAN | flag::CHUNK, unit: chunk.unit, length: chunk.length, ..begins }
                }
                Err(error) => refused = Some(error.errno()),
            }
        }
        // One entry, one system call: the end of the last task and the beginning of this one.
        match last {
            Some(last) => {
                let both =
                    Entry { flags: last.entry.flags | begins.flags, began: sequence, began_slot: taken.slot, ..last.entry };
                let unread = self.write(task, both);
                self.notify(&last, unread);
            }
            None => {
                self.write(task, begins);
            }
        }
        if items <= 1 {
            let limited = task_flags & flags::LIMITED != 0;
            task.reply_state().begin(if limited { load(&record.result_size) } else { u64::MAX });
        }

        let ended = match refused {
            Some(errno) => Entry::lost(errno),
            None => match Argument::of(&nursery.board.tasks, fd::inherited(self.tasks_fd), at, length, task_flags) {
                Ok(argument) => {
                    let call = Call { taken, function: function as usize, limits: Limits::of(w, record), items };
                    self.call(task, &call, argument.address, length)
                }
                Err(errno) => {
                    task.reply_state().discard_chunk();
                    Entry::lost(errno)
                }
            },
        };
        stdio::flush_if_pending();
        if let Some(bell) = nursery.board.claims.bells.get(self.place as usize) {
            w.store(&bell.finished, w.load(&bell.finished, Relaxed).wrapping_add(1), Relaxed);
        }
        let entry = Entry { ended: sequence, ended_slot: taken.slot, ..ended };
        Some(Last { entry, record: taken.slot, flags: task_flags })
    }

    fn call(&mut self, task: &Task, call: &Call, argument: *const u8, length: usize) -> Entry {
        let nursery = self.nursery;
        let run = |address, length| {
            let code = call_user(|| nursery.code.run(call.function, address, length, task));
            Self::leave_if_copied(task, code);
            code
        };
        if call.items <= 1 {
            self.begin_lap(task, call);
            // It was cancelled before the nursery could know who has it.
            let code = if task.is_abandoned() { None } else { Some(run(argument, length)) };
            self.end_lap();
            return code.map_or(Entry::lost(number::CANCELED), |code| task.reply_state().end(code));
        }
        // Each item has the time that is the limit; without one, they are one lap.
        let (each, item_length) = (call.limits.any(), length / call.items);
        for item in 0..call.items {
            if item == 1 {
                // Only the first one may have been tried before.
                task.begin(call.taken.slot, task.id(), 1);
            }
            if item == 0 || each {
                self.begin_lap(task, call);
            }
            if task.is_abandoned() {
                self.end_lap();
                break;
            }
            task.reply_state().begin_item(item);
            let code = run(argument.wrapping_add(item * item_length), item_length);
            // First the decision whether it ended in time: an item that was condemned has not ended, and the next one is not charged.
            if each || item + 1 == call.items {
                self.end_lap();
            }
            task.reply_state().end_item(item, code);
        }
        task.reply_state().end_chunk()
    }

    /// From here on the nursery may end this process because of the task.
    fn begin_lap(&mut self, task: &Task, call: &Call) {
        let limits = call.limits;
        let greedy = self.nursery.memory_limit != 0;
        let began = if limits.any() || greedy { now() } else { 0 };
        task.set_soft_end(limits.soft_end(began));
        self.laps += 1;
        duty::begin(self.w, self.duty, self.laps, call.taken, began);
        // Either the nursery sees this lap before it sleeps, or this process sees how long it sleeps.
        let look = greedy.then_some(began + LOOK_AT_MEMORY_NS);
        let next = limits.end(began).into_iter().chain(look).min();
        if next.is_some_and(|next| next < self.w.load64(&self.nursery.worker_roll.head.wakes_at, Relaxed)) {
            fd::ring(self.alarm_fd);
        }
    }

    /// What the task left in the streams' buffers goes out first, still on its time: whoever reads them may be slow, or never come.
    fn end_lap(&self) {
        stdio::flush_if_pending();
        match duty::end(self.w, self.duty, self.laps) {
            End::InTime => {}
            End::Condemned => self.wait_for_kill(),
            End::Spoilt => fork::exit_now(DISABLED),
        }
    }

    /// A task that forks and returns twice ends the copy, which is no worker.
    fn leave_if_copied(task: &Task, code: i32) {
        if task.is_copy() {
            leave(code);
        }
    }

    /// Writes down how the last task ended.
    fn write_last(&mut self, task: &Task, last: Option<Last>) {
        if let Some(last) = last {
            let unread = self.write(task, last.entry);
            self.notify(&last, unread);
        }
    }

    /// Adds to the journal, and answers how much of it the host has not read. Without room for it there is nothing to do but wait;
    /// without a journal there is nothing to do at all.
    fn write(&self, task: &Task, entry: Entry) -> u64 {
        loop {
            let consumed = self.consumed();
            let mut reply = task.reply_state();
            match reply.append(entry, consumed) {
                Ok(()) => return reply.position() - consumed.unwrap_or(0),
                Err(errno) if number::is_no_room(errno) => {
                    drop(reply);
                    self.check_nursery();
                    thread::sleep(Duration::from_millis(10));
                }
                Err(_) => fork::exit_now(DISABLED),
            }
        }
    }

    /// Tells of a task whose end is written down. Whoever waits has said so before it looked at the journal for the last time.
    fn notify(&mut self, last: &Last, unread: u64) {
        let board = &self.nursery.board;
        self.w.fence();
        let bell =
            board.tasks.records.get(last.record as usize).map_or(0, |record: &TaskRecord| self.w.load(&record.bell, Relaxed));
        if bell != 0 {
            board.ring_host(self.w, bell as usize - 1);
        }
        let any = self.w.load64(&board.tasks.head.any_bells, Relaxed);
        if any != 0 {
            board.ring_hosts(self.w, any);
        }
        let eager = last.flags & flags::NOTIFY != 0 || self.w.load(&board.tasks.head.eager, Relaxed) != 0;
        // Also when the host has much to read: otherwise it reads when it wants to know something.
        if eager || unread + last.entry.length > UNIT {
            self.ring_delivery();
        }
    }

    /// Wakes the host's delivery thread, once each time it sleeps.
    fn ring_delivery(&mut self) {
        let sleep = self.w.load(&self.nursery.board.tasks.head.delivery, Relaxed);
        if sleep % 2 == 1 && sleep != self.rung {
            self.rung = sleep;
            fd::ring(self.bell_fd);
        }
    }

    /// Ends with the nursery, whatever a task has done to the signal that is to see to that.
    fn check_nursery(&self) {
        process::set_parent_death_signal(signal::KILL);
        if process::parent_pid() != self.parent {
            fork::exit_now(ORPHANED);
        }
    }
}

/// What is to be called.
struct Call {
    taken: Taken,
    function: usize,
    limits: Limits,
    items: usize,
}
