//! What workers and nursery have written, and what follows from it.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use super::board::phase;
use super::host::{Course, Host, Readers, State};
use super::job::{Death, Reason};
use super::journal::{Reader, seed};
use super::nursery::{command, explain, fate, message, stage};
use super::table::Lodger;
use crate::error::{Kind, Result};
use crate::log::{self, Level};
use crate::shm::Words;
use crate::sys::thread::Thread;
use crate::sys::wait::{Ending, Usage};
use crate::sys::{now, nursery as os};

/// Entries that are taken in at a time: who submits does not wait longer for the lock than these take.
const BATCH: usize = 64;

impl Host {
    /// Whether there is something to take in. A hint: what lies where only reading can tell is not seen.
    #[inline]
    pub(super) fn something(&self) -> bool {
        self.peeks.iter().any(|peek| peek.something() == Some(true))
    }

    /// The same without doubt.
    pub(super) fn anything(&self) -> bool {
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

    pub(super) fn collect_quietly(&self, notes: &mut bool) -> Result<()> {
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
    pub(super) fn tell_log(&self) {
        let notes = self.lock().map(|mut state| std::mem::take(&mut state.notes)).unwrap_or_default();
        for (level, note) in notes {
            log::write(level, || note);
        }
    }

    /// Changes with every birth and death.
    pub(super) fn lives(&self, w: Thread) -> u64 {
        (0..self.roll.lines.count())
            .filter_map(|place| self.roll.lines.get(place))
            .map(|line| u64::from(w.load(&line.life, Acquire)))
            .sum()
    }

    /// How often somebody was born or died in a place.
    pub(super) fn lives_of(&self, w: Thread, place: usize) -> u32 {
        self.roll.lines.get(place).map_or(0, |line| w.load(&line.life, Acquire))
    }

    /// Notes who was born.
    pub(super) fn meet(&self, w: Thread, state: &mut State) {
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
    pub(super) fn bury(&self, w: Thread, state: &mut State, journals: &mut [Reader]) -> Result<()> {
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
    pub(super) fn death(&self, w: Thread, place: usize) -> (Death, Kind) {
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
    pub(super) fn count_death(&self, w: Thread, state: &mut State, death: &Death, lodger: &Lodger) {
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
    pub(super) fn break_pool(&self, w: Thread, state: &mut State, why: String) {
        state.notes.push((Level::Error, why.clone()));
        state.broken.get_or_insert(why);
        self.stop(w, state);
        self.command(state, command::TERMINATE, 0);
    }

    /// Starts no task any more; those that no worker has are cancelled.
    pub(super) fn stop(&self, w: Thread, state: &mut State) {
        if state.course < Course::Stopping {
            state.course = Course::Stopping;
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
    pub(super) fn go_on(&self, w: Thread, state: &mut State) {
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
    pub(super) fn command(&self, state: &mut State, kind: u32, argument: i64) -> u32 {
        state.commands = state.commands.wrapping_add(1).max(1);
        os::send(self.socket.as_fd(), &message(kind, state.commands, argument));
        state.commands
    }
}

/// The end of a worker that the library ordered and nobody could look at.
pub(super) const ORDERED: Death = Death { reason: Reason::Terminated, ending: None, usage: None };
/// The end of a worker that nobody saw.
pub(super) const UNKNOWN: Death = Death { reason: Reason::Signal, ending: None, usage: None };

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
