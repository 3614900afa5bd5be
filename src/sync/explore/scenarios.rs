//! Locks, semaphores and events under the scheduler.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use super::{Limits, Names, Rest, Scenario, Sim, exhaust, explore};
use crate::error::{Error, Kind, Note};
use crate::shm::layout::{EventShared, SemaphoreShared};
use crate::shm::{RobustCell, Word, Words};
use crate::sync::{event, lock, semaphore};
use crate::sys::Deadline;
use crate::timeout::Timeout;

/// So long that it passes only when the scheduler says so.
pub const LONG: Timeout = Timeout::Millis(1 << 40);

/// `Ok(false)`: the time ran out, or a signal came.
fn in_time<T>(result: Result<T, Error>) -> Result<bool, String> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), Kind::TimedOut | Kind::Interrupted) => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

/// Threads that take a lock and count up what it guards.
struct Locking {
    threads: usize,
    rounds: usize,
    recursive: bool,
    timeout: Timeout,
}

#[derive(Default)]
struct Locked {
    cell: RobustCell,
    counter: Word,
    /// The thread inside + 1; not a word of the simulation.
    inside: AtomicUsize,
    /// How often somebody came out again.
    through: AtomicUsize,
}

impl Scenario for Locking {
    type Shared = Locked;

    fn threads(&self) -> usize {
        self.threads
    }

    fn make(&self) -> Locked {
        Locked::default()
    }

    fn run(&self, shared: &Locked, thread: usize, sim: Sim) -> Result<(), String> {
        for _ in 0..self.rounds {
            let acquired = lock::acquire(sim, &shared.cell, self.recursive, &Deadline::new(self.timeout));
            let note = match acquired {
                Ok(note) => note,
                Err(error) if matches!(error.kind(), Kind::TimedOut | Kind::Interrupted) => continue,
                Err(error) => return Err(error.to_string()),
            };
            let before = shared.inside.swap(thread + 1, SeqCst);
            if before != 0 && note != Note::OwnerDied {
                return Err(format!("inside together with {}, or not told of its death", before - 1));
            }
            if self.recursive {
                in_time(lock::acquire(sim, &shared.cell, true, &Deadline::new(self.timeout)))?;
            }
            let count = sim.load(&shared.counter, Relaxed);
            sim.store(&shared.counter, count + 1, Relaxed);
            shared.through.fetch_add(1, SeqCst);
            if self.recursive {
                lock::release(sim, &shared.cell, true, || ()).map_err(|error| error.to_string())?;
            }
            shared.inside.store(0, SeqCst);
            lock::release(sim, &shared.cell, self.recursive, || ()).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn check_rest(&self, shared: &Locked, rest: &Rest, sim: Sim) -> Result<(), String> {
        if let Some(thread) = rest.asleep().next() {
            return Err(format!("{thread} sleeps for ever: everybody who held the lock is gone"));
        }
        let (counted, through) = (sim.load(&shared.counter, Relaxed) as usize, shared.through.load(SeqCst));
        let dead = (0..self.threads).filter(|&thread| rest.is_dead(thread)).count();
        if counted < through || counted > through + dead {
            Err(format!("{through} were inside, {counted} counted"))
        } else {
            Ok(())
        }
    }

    fn names(&self, shared: &Locked, names: &mut Names) {
        names.cell("lock", &shared.cell);
        names.word("counter", &shared.counter);
    }
}

#[test]
fn lock() {
    let plain = Locking { threads: 3, rounds: 2, recursive: false, timeout: Timeout::Forever };
    exhaust("lock", &Locking { rounds: 1, ..plain });
    explore("lock", &plain, Limits { kills: 2, timeouts: 1 }, 1500);
}

#[test]
fn lock_with_timeouts() {
    let timed = Locking { threads: 4, rounds: 2, recursive: false, timeout: LONG };
    explore("lock with timeouts", &timed, Limits { kills: 1, timeouts: 2 }, 1000);
}

#[test]
fn recursive_lock() {
    let recursive = Locking { threads: 3, rounds: 2, recursive: true, timeout: Timeout::Forever };
    explore("recursive lock", &recursive, Limits { kills: 2, timeouts: 1 }, 600);
}

/// The first threads acquire, the others release.
struct Counting {
    initial: u32,
    acquirers: usize,
    acquires: usize,
    releasers: usize,
    releases: usize,
    by: u32,
    timeout: Timeout,
}

#[derive(Default)]
struct Counted {
    semaphore: SemaphoreShared,
    acquired: AtomicUsize,
    /// Permits given back by calls that were begun, and by those that returned.
    begun: AtomicUsize,
    given: AtomicUsize,
}

impl Scenario for Counting {
    type Shared = Counted;

    fn threads(&self) -> usize {
        self.acquirers + self.releasers
    }

    fn make(&self) -> Counted {
        let shared = Counted::default();
        shared.semaphore.state().atomic().store(self.initial << 1, Relaxed);
        shared
    }

    fn run(&self, shared: &Counted, thread: usize, sim: Sim) -> Result<(), String> {
        if thread < self.acquirers {
            for _ in 0..self.acquires {
                if in_time(semaphore::acquire(sim, &shared.semaphore, &Deadline::new(self.timeout), || ()))? {
                    shared.acquired.fetch_add(1, SeqCst);
                }
            }
        } else {
            for _ in 0..self.releases {
                shared.begun.fetch_add(self.by as usize, SeqCst);
                semaphore::release(sim, &shared.semaphore, self.by, 1000, || ()).map_err(|error| error.to_string())?;
                shared.given.fetch_add(self.by as usize, SeqCst);
            }
        }
        Ok(())
    }

    fn check_rest(&self, shared: &Counted, rest: &Rest, sim: Sim) -> Result<(), String> {
        let state = sim.load(shared.semaphore.state(), Relaxed);
        let permits = if state & 1 == 0 { state as usize / 2 } else { 0 };
        if let Some(thread) = rest.asleep().find(|&thread| thread >= self.acquirers) {
            return Err(format!("{thread} cannot release"));
        }
        if let Some(thread) = rest.asleep().next().filter(|_| state & 1 == 0) {
            return Err(format!("{thread} sleeps beside {permits} permits, or unseen by the next release"));
        }
        let dead = (0..self.acquirers).filter(|&thread| rest.is_dead(thread)).count();
        let there = shared.acquired.load(SeqCst) + permits;
        if there + dead < self.initial as usize + shared.given.load(SeqCst) {
            return Err("a permit is lost".into());
        }
        if there > self.initial as usize + shared.begun.load(SeqCst) {
            Err("a permit was made of nothing".into())
        } else {
            Ok(())
        }
    }

    fn names(&self, shared: &Counted, names: &mut Names) {
        names.word("state", shared.semaphore.state());
        names.cell("section", &shared.semaphore.section);
        names.cell("leader", &shared.semaphore.leader);
    }
}

#[test]
fn semaphore() {
    let counting =
        Counting { initial: 0, acquirers: 3, acquires: 1, releasers: 2, releases: 2, by: 1, timeout: Timeout::Forever };
    exhaust("semaphore", &Counting { acquirers: 2, releases: 1, ..counting });
    explore("semaphore", &counting, Limits { kills: 2, timeouts: 1 }, 2000);
}

#[test]
fn semaphore_with_timeouts() {
    let timed = Counting { initial: 1, acquirers: 3, acquires: 2, releasers: 2, releases: 1, by: 2, timeout: LONG };
    explore("semaphore with timeouts", &timed, Limits { kills: 1, timeouts: 2 }, 1000);
}

/// The first threads wait, the others set, and perhaps clear.
struct Signalling {
    waiters: usize,
    waits: usize,
    setters: usize,
    clears: bool,
    timeout: Timeout,
}

struct Signalled {
    event: EventShared,
    /// For each waiter: how often it has come back, and how often at least it must have.
    back: Vec<AtomicUsize>,
    owed: Vec<AtomicUsize>,
}

impl Scenario for Signalling {
    type Shared = Signalled;

    fn threads(&self) -> usize {
        self.waiters + self.setters
    }

    fn make(&self) -> Signalled {
        let zeros = || (0..self.waiters).map(|_| AtomicUsize::new(0)).collect();
        Signalled { event: EventShared::default(), back: zeros(), owed: zeros() }
    }

    fn run(&self, shared: &Signalled, thread: usize, sim: Sim) -> Result<(), String> {
        if thread < self.waiters {
            for _ in 0..self.waits {
                in_time(event::wait(sim, &shared.event, &Deadline::new(self.timeout), || ()))?;
                shared.back[thread].fetch_add(1, SeqCst);
            }
            return Ok(());
        }
        // Whoever sleeps on the event now must be back after it was set.
        let asleep: Vec<usize> = (0..self.waiters).filter(|&waiter| sim.sees_asleep(waiter)).collect();
        let rounds: Vec<usize> = asleep.iter().map(|&waiter| shared.back[waiter].load(SeqCst) + 1).collect();
        event::set(sim, &shared.event, || ()).expect("nobody is inside for ever");
        for (&waiter, round) in asleep.iter().zip(rounds) {
            shared.owed[waiter].fetch_max(round, SeqCst);
        }
        if self.clears {
            event::clear(sim, &shared.event);
        }
        Ok(())
    }

    fn check_rest(&self, shared: &Signalled, rest: &Rest, sim: Sim) -> Result<(), String> {
        let state = sim.load(shared.event.state(), Acquire);
        for thread in rest.asleep() {
            if thread >= self.waiters {
                return Err(format!("{thread} cannot set"));
            }
            if state & 1 != 0 || shared.back[thread].load(SeqCst) < shared.owed[thread].load(SeqCst) {
                return Err(format!("{thread} sleeps although the event was set"));
            }
            if state & 6 == 0 {
                return Err(format!("{thread} sleeps unseen by the next set"));
            }
        }
        Ok(())
    }

    fn names(&self, shared: &Signalled, names: &mut Names) {
        names.word("state", shared.event.state());
        names.cell("section", &shared.event.section);
    }
}

#[test]
fn event() {
    let signalling = Signalling { waiters: 2, waits: 1, setters: 2, clears: false, timeout: Timeout::Forever };
    exhaust("event", &signalling);
    explore("event", &signalling, Limits { kills: 2, timeouts: 1 }, 2000);
}

#[test]
fn event_cleared_at_once() {
    let pulsing = Signalling { waiters: 3, waits: 2, setters: 3, clears: true, timeout: LONG };
    explore("event cleared at once", &pulsing, Limits { kills: 2, timeouts: 2 }, 1000);
}
