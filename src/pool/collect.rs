//! What workers and nursery have written, and what follows from it.
#![forbid(unsafe_code)]

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use super::board::phase;
use super::ending::HEARING_MS;
use super::host::{Cursor, Host, Lifecycle, Readers, State};
use super::journal::{Peek, seed};
use super::message::{self, Message};
use super::roll::{self, explain, stage};
use super::stderr;
use super::table::WorkerState;
use crate::error::{Error, Kind, Result};
use crate::log::{self, Level};
use crate::process::{ExitInfo, Reason};
use crate::shm::Words;
use crate::sys::thread::Thread;
use crate::sys::wait::Ending;
use crate::sys::{Deadline, now};
use crate::timeout::Timeout;

/// Entries of each journal that are taken in at a time: who submits does not wait longer for the lock than these take.
const BATCH: usize = 64;

impl Host {
    /// Whether there is something to take in. A hint: what lies where only reading can tell is not seen.
    #[inline]
    pub(super) fn sees_entry(&self) -> bool {
        self.peeks().any(|peek| peek.has_entry() == Some(true))
    }

    /// The same without doubt.
    pub(super) fn may_have_entry(&self) -> bool {
        self.peeks().any(|peek| peek.has_entry() != Some(false))
    }

    #[inline]
    fn peeks(&self) -> impl Iterator<Item = &Arc<Peek>> {
        self.peeks.iter().map_while(OnceLock::get)
    }

    /// Takes in all that workers and nursery have written until now. What they write meanwhile may be left: who waits for that is
    /// rung for, and while many write there would be no end.
    pub(super) fn collect(&self) -> Result<()> {
        let mut notes = false;
        let collected = self.collect_entries(&mut notes);
        if notes {
            self.write_notes();
            self.flush_trace();
        }
        collected
    }

    fn collect_entries(&self, notes: &mut bool) -> Result<()> {
        let w = Thread::current();
        let mut readers = self.lock_readers()?;
        let Readers { cursors, batch } = &mut *readers;
        loop {
            let mut changed = false;
            for (place, cursor) in cursors.iter_mut().enumerate() {
                changed |= self.check_life(w, place, cursor);
                while cursor.held < BATCH {
                    let Some((mut entry, result)) = cursor.reader.next_entry() else { break };
                    // In its journal it is in order, whatever somebody has written over.
                    entry.stamp = entry.stamp.max(cursor.latest);
                    (cursor.latest, cursor.held) = (entry.stamp, cursor.held + 1);
                    batch.push((place as u32, entry, result));
                }
                cursor.more = cursor.held == BATCH;
            }
            if batch.is_empty() && !changed {
                // That there are no more workers to be had is said when nothing else happens any more.
                if w.load(&self.roll.head.stage, Acquire) == stage::FAILED {
                    let mut state = self.lock()?;
                    self.advance(w, &mut state);
                    *notes |= state.has_notes();
                }
                return Ok(());
            }
            // In the order in which it happened, as far as clocks of several processors can tell.
            batch.sort_by_key(|(_, entry, _)| entry.stamp);
            // What is later than the last entry of a journal that has more is held back: there may be earlier ones.
            let until = cursors.iter().filter(|cursor| cursor.more).map(|cursor| cursor.latest).min().unwrap_or(u64::MAX);
            let in_order = batch.partition_point(|(_, entry, _)| entry.stamp <= until);
            let mut state = self.lock()?;
            for (place, cursor) in cursors.iter().enumerate().filter(|(_, cursor)| cursor.born) {
                let Some(line) = self.roll.line(place, cursor.life) else { continue };
                let (pid, number) = (w.load(&line.pid, Relaxed) as i32, w.load(&line.worker, Relaxed));
                let replaces = number != 0 && state.table.workers.get(place).is_some_and(|worker| worker.number == 0);
                // The first worker of the first life of its place is no other's successor.
                if replaces && (cursor.life > 1 || place as u32 + 1 != number) {
                    let note = format!("{}: process {pid} is worker {} now", self.name, number - 1);
                    state.notes.push((Level::Info, note));
                }
                state.table.begin_life(place as u32, pid, number);
            }
            for (place, entry, result) in batch.drain(..in_order) {
                cursors[place as usize].held -= 1;
                state.table.apply(place, &entry, result);
            }
            state.table.advance(w);
            for (place, cursor) in cursors.iter_mut().enumerate().filter(|(_, cursor)| cursor.born) {
                let read = cursor.reader.position();
                let receipt = self.board.tasks.receipts.get(place);
                // The host alone writes it. Its worker has the line, which is better left there.
                if let Some(receipt) = receipt.filter(|receipt| w.load64(&receipt.consumed, Relaxed) != read) {
                    w.store64(&receipt.consumed, read, Release);
                }
                if cursor.dead && !cursor.more && cursor.held == 0 {
                    self.retire(w, &mut state, place, cursor);
                }
            }
            if state.doubtful {
                self.check_claims(w, &mut state);
            }
            self.advance(w, &mut state);
            *notes |= state.has_notes();
            // Every journal was read to where it ended, of the last life that has begun.
            if !changed && cursors.iter().all(|cursor| !cursor.more) {
                return Ok(());
            }
        }
    }

    /// Tells the log what happened, under no lock.
    pub(super) fn write_notes(&self) {
        let notes = self.lock().map(|mut state| std::mem::take(&mut state.notes)).unwrap_or_default();
        for (level, note) in notes {
            log::write(level, || note);
        }
    }

    /// Looks whether the life that is being read has begun or ended. Before its journal is read: when it is seen to be dead, all that
    /// it wrote is there. Answers whether something has changed.
    fn check_life(&self, w: Thread, place: usize, cursor: &mut Cursor) -> bool {
        let Some(line) = self.roll.line(place, cursor.life) else { return false };
        // SYNC POINT: life (acquire).
        let life = w.load(&line.life, Acquire);
        cursor.dead = life == cursor.life + 1;
        let newborn = !cursor.born && (life == cursor.life || cursor.dead);
        if newborn {
            cursor.born = true;
            let unit = w.load(&line.first_unit, Relaxed);
            cursor.reader.begin(seed(self.pool_id, place as u32, cursor.life), unit.into());
            if unit == 0 {
                // The nursery has emptied this file as well.
                cursor.stderr_end = 0;
            }
        }
        newborn || cursor.dead
    }

    /// Draws the consequences of a death. Everything that it wrote has been taken in.
    fn retire(&self, w: Thread, state: &mut State, place: usize, cursor: &mut Cursor) {
        let (Some(line), Some(receipt)) = (self.roll.line(place, cursor.life), self.board.tasks.receipts.get(place)) else {
            return;
        };
        let worker = state.table.workers[place];
        let death = roll::read_exit(w, line);
        let kind = match death.reason {
            Some(Reason::Terminated | Reason::Canceled) => Kind::Canceled,
            Some(Reason::Timeout) => Kind::TimedOut,
            _ => Kind::WorkerDied,
        };
        let partial = worker.chunk.and_then(|(unit, length)| cursor.reader.unfinished(unit, length));
        let stderr_end = w.load64(&line.stderr_end, Relaxed);
        let file = cursor.stderr.as_ref().map(AsRawFd::as_raw_fd);
        let tail = file.and_then(|file| stderr::read_tail(file, cursor.stderr_end, stderr_end, self.stderr_tail));
        cursor.stderr_end = stderr_end;
        let mut said = describe(&death, &worker);
        if let Some(text) = tail.as_deref().map(last_words).filter(|text| !text.is_empty()) {
            said.push_str("; it said last: ");
            said.push_str(&text);
        }
        state.table.retire(w, place as u32, death, kind, partial, tail);
        // Its claims are nobody's now. It may have written over what everybody may write: see `Host::check_claims`.
        let lost = state.table.repair_taken(w);
        if !std::mem::replace(&mut state.doubtful, true) {
            state.checked = now();
        }
        if lost > 1 {
            state.notes.push((Level::Warn, format!("{}: {lost} claims were written over", self.name)));
        }
        if let Some(why) = ordered(&death) {
            state.notes.push((Level::Info, format!("{}: worker {} was ended: {why}", self.name, worker.pid)));
        } else if kind == Kind::WorkerDied && !worker.left {
            let note = format!("{}: worker {} ended: {said}", self.name, worker.pid);
            state.notes.push((Level::Info, note));
            state.worker_deaths += 1;
            self.count_death(w, state, &said);
        }
        cursor.reader.finish(w.load(&line.end_unit, Relaxed).into());
        let retired = cursor.life + 1;
        (cursor.life, cursor.born, cursor.dead, cursor.latest) = (cursor.life + 2, false, false, 0);
        w.store64(&receipt.consumed, 0, Relaxed);
        // SYNC POINT: retired (release): who lives here now, or comes next, may use the first units; and the death has been counted.
        w.store(&receipt.retired, retired, Release);
        // It waits for that when many have died and nobody was looking.
        self.command(state, message::LOOK, 0);
    }

    /// Too many deaths in a row, without a finished task in between, break the pool.
    pub(super) fn count_death(&self, w: Thread, state: &mut State, said: &str) {
        if state.finished_at_death != state.table.finished {
            state.finished_at_death = state.table.finished;
            state.recent_deaths.clear();
        }
        let now = now();
        state.recent_deaths.push_back(now);
        while state.recent_deaths.front().is_some_and(|&time| time + self.crash_window_ns < now) {
            state.recent_deaths.pop_front();
        }
        let count = state.recent_deaths.len();
        if count >= self.crash_budget && state.lifecycle <= Lifecycle::Closing {
            let many = if count == 1 { "a worker died".into() } else { format!("{count} workers died in a row, the last one") };
            self.break_pool(w, state, format!("{}: {many}: {said}", self.name));
        }
    }

    /// The pool cannot go on: everything pending ends.
    pub(super) fn break_pool(&self, w: Thread, state: &mut State, why: String) {
        state.notes.push((Level::Error, why.clone()));
        state.broken.get_or_insert(why);
        self.stop(w, state);
        self.order_end(state, 0);
    }

    /// Starts no task any more; those that no worker has are cancelled.
    pub(super) fn stop(&self, w: Thread, state: &mut State) {
        if state.lifecycle < Lifecycle::Stopping {
            state.lifecycle = Lifecycle::Stopping;
            self.set_phase(w, phase::STOPPING);
            state.table.end_all(w, Kind::Canceled, Some(ORDERED), false);
            // Whoever waits for room learns that there is none to come.
            state.table.to_ring |= state.table.room_bells;
        }
    }

    pub(super) fn set_phase(&self, w: Thread, phase: u32) {
        w.store(&self.board.tasks.head.phase, phase, SeqCst);
        self.board.ring_all(w);
    }

    /// What follows from the tasks that have ended, and from what the nursery says.
    pub(super) fn advance(&self, w: Thread, state: &mut State) {
        if state.lifecycle == Lifecycle::Closing && state.table.pending == 0 {
            state.lifecycle = Lifecycle::Leaving;
            self.set_phase(w, phase::LEAVING);
            self.command(state, message::LOOK, 0);
        }
        if w.load(&self.roll.head.stage, Acquire) == stage::FAILED && state.lifecycle <= Lifecycle::Closing {
            let failed = w.load(&self.roll.head.step, Relaxed);
            self.break_pool(w, state, format!("{}: {}", self.name, explain(failed)));
        }
    }

    /// Tells the nursery something that must not be lost. Under no lock: there may be no room for a while.
    pub(super) fn order(&self, kind: u32, argument: i64) -> Result<()> {
        self.order_with(kind, argument, None)
    }

    /// The same with a descriptor.
    pub(super) fn order_with(&self, kind: u32, argument: i64, carried: Option<i32>) -> Result<()> {
        let deadline = Deadline::new(Timeout::Millis(HEARING_MS));
        loop {
            {
                let mut state = self.lock()?;
                state.commands = state.commands.wrapping_add(1).max(1);
                if message::send_with(&self.socket, Message { kind, number: state.commands, argument }, carried) {
                    return Ok(());
                }
            }
            if self.nursery_is_gone() {
                return self.end();
            }
            if deadline.passed() {
                return Err(Error::new(Kind::Broken, format!("{}: its nursery does not answer", self.name)));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Tells the nursery something; answers the number of the command, if there was room for it.
    pub(super) fn command(&self, state: &mut State, kind: u32, argument: i64) -> Option<u32> {
        state.commands = state.commands.wrapping_add(1).max(1);
        message::send(&self.socket, Message { kind, number: state.commands, argument }).then_some(state.commands)
    }

    /// Tells the nursery to end all workers: TERM, so many milliseconds (-1: without limit), KILL. Where there is no room for that,
    /// whoever looks after the pool tells it again.
    pub(super) fn order_end(&self, state: &mut State, grace_ms: i64) {
        let before = state.unsent_end.unwrap_or(-1);
        state.unsent_end = Some((before as u64).min(grace_ms as u64) as i64);
        if self.send_end(state).is_none() && !std::mem::replace(&mut state.watched, true) {
            self.begin_to_watch();
        }
    }

    /// The number of the order to end all workers, once it is sent.
    pub(super) fn send_end(&self, state: &mut State) -> Option<u32> {
        if let Some(grace_ms) = state.unsent_end {
            state.sent_end = self.command(state, message::TERMINATE, grace_ms)?;
            state.unsent_end = None;
        }
        Some(state.sent_end)
    }
}

/// The end of a text, for a message.
fn last_words(text: &[u8]) -> String {
    const MOST: usize = 300;
    let text = text.strip_suffix(b"\0").unwrap_or(text).trim_ascii();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(MOST)..]).into_owned();
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// Why the nursery ended a worker because of its task.
fn ordered(death: &ExitInfo) -> Option<&'static str> {
    match death.reason {
        Some(Reason::Timeout) => Some("its task's running time was over"),
        Some(Reason::Canceled) => Some("its task was cancelled"),
        Some(Reason::Memory) => Some("it took more memory than it may"),
        _ => None,
    }
}

/// The end of a worker that the library ordered and nobody could look at.
pub(super) const ORDERED: ExitInfo = ExitInfo { reason: Some(Reason::Terminated), ending: None, usage: None };
/// The end of a worker that nobody saw.
pub(super) const UNKNOWN: ExitInfo = ExitInfo { reason: Some(Reason::Signal), ending: None, usage: None };

pub(super) fn describe(death: &ExitInfo, worker: &WorkerState) -> String {
    match (worker.refused, death.ending) {
        (Some(code), _) => format!("its initializer returned {code}"),
        (None, Some(Ending::Exited(code))) if !worker.ready => format!("exit code {code} in its initializer"),
        (None, Some(Ending::Signaled { signal, .. })) if !worker.ready => format!("signal {signal} in its initializer"),
        (None, Some(Ending::Exited(code))) => format!("exit code {code}"),
        (None, Some(Ending::Signaled { signal, .. })) => format!("signal {signal}"),
        (None, None) => "nobody saw its end".to_owned(),
    }
}
