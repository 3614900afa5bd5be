//! Locks, semaphores and events under the scheduler.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use super::{Limits, Names, Rest, Scenario, Sim, exhaust, explore};
use crate::error::{Error, Kind, Note};
use crate::shm::layout::{BarrierShared, ConditionShared, EventShared, SemaphoreShared};
use crate::shm::{RobustCell, Word, Words};
use crate::sync::barrier::Hall;
use crate::sync::condition::Line;
use crate::sync::robust::{OWNER, OWNER_DIED};
use crate::sync::tracked::Permits;
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

/// Threads that take a tracked permit and give it back.
struct Tracking {
    threads: usize,
    rounds: usize,
    permits: usize,
    timeout: Timeout,
}

struct Tracked {
    semaphore: SemaphoreShared,
    cells: Vec<RobustCell>,
    /// Who has each permit, + 1.
    owners: Vec<AtomicUsize>,
}

impl Tracked {
    fn permits(&self) -> Permits<'_> {
        Permits { cells: &self.cells, bell: self.semaphore.state(), leader: &self.semaphore.leader }
    }
}

impl Scenario for Tracking {
    type Shared = Tracked;

    fn threads(&self) -> usize {
        self.threads
    }

    fn make(&self) -> Tracked {
        Tracked {
            semaphore: SemaphoreShared::default(),
            cells: (0..self.permits).map(|_| RobustCell::default()).collect(),
            owners: (0..self.permits).map(|_| AtomicUsize::new(0)).collect(),
        }
    }

    fn run(&self, shared: &Tracked, thread: usize, sim: Sim) -> Result<(), String> {
        for _ in 0..self.rounds {
            let index = match shared.permits().acquire(sim, &Deadline::new(self.timeout), || ()) {
                Ok(index) => index,
                Err(error) if matches!(error.kind(), Kind::TimedOut | Kind::Interrupted) => continue,
                Err(error) => return Err(error.to_string()),
            };
            let before = shared.owners[index].swap(thread + 1, SeqCst);
            if before != 0 && !sim.sees_dead(before - 1) {
                return Err(format!("has the permit of {}, which lives", before - 1));
            }
            shared.owners[index].store(0, SeqCst);
            shared.permits().release(sim, 1).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn check_rest(&self, shared: &Tracked, rest: &Rest, sim: Sim) -> Result<(), String> {
        if let Some(thread) = rest.asleep().next() {
            return Err(format!("{thread} sleeps for ever: everybody who had a permit is gone"));
        }
        match shared.permits().free(sim) {
            free if free == self.permits => Ok(()),
            free => Err(format!("{free} permits of {}", self.permits)),
        }
    }

    fn names(&self, shared: &Tracked, names: &mut Names) {
        names.word("bell", shared.semaphore.state());
        names.cell("leader", &shared.semaphore.leader);
        shared.cells.iter().enumerate().for_each(|(index, cell)| names.word(format!("permit {index}"), &cell.word));
    }
}

#[test]
fn tracked_semaphore() {
    let tracking = Tracking { threads: 3, rounds: 1, permits: 1, timeout: Timeout::Forever };
    exhaust("tracked semaphore", &tracking);
    explore("tracked semaphore", &Tracking { rounds: 2, ..tracking }, Limits { kills: 0, timeouts: 0 }, 1000);
    explore("tracked semaphore", &Tracking { threads: 4, permits: 2, ..tracking }, Limits { kills: 2, timeouts: 1 }, 1500);
}

#[test]
fn tracked_semaphore_with_timeouts() {
    let timed = Tracking { threads: 4, rounds: 2, permits: 2, timeout: LONG };
    explore("tracked semaphore with timeouts", &timed, Limits { kills: 1, timeouts: 2 }, 1000);
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

/// The first threads wait for tokens, the others bring some and notify so many.
struct Waiting {
    consumers: usize,
    rounds: usize,
    producers: usize,
    by: u32,
    recursive: bool,
    timeout: Timeout,
}

struct Awaited {
    lock: RobustCell,
    condition: ConditionShared,
    seats: Vec<RobustCell>,
    /// Guarded by the lock; not a word of the simulation: nobody dies between the end of a wait and the taking.
    tokens: AtomicUsize,
    /// Tokens that somebody brought and has not announced yet.
    unannounced: Vec<AtomicUsize>,
    /// Notifications that were begun, and waits that ended by one.
    begun: AtomicUsize,
    woken: AtomicUsize,
    /// Deaths of the lock's owner that somebody was told of: that one had left its wait.
    told: AtomicUsize,
    waits: Vec<AtomicUsize>,
}

impl Awaited {
    fn line(&self) -> Line<'_> {
        Line { shared: &self.condition, seats: &self.seats }
    }

    fn note(&self, note: Note) {
        if note == Note::OwnerDied {
            self.told.fetch_add(1, SeqCst);
        }
    }
}

impl Waiting {
    fn acquire(&self, shared: &Awaited, sim: Sim) -> Result<(), String> {
        loop {
            match lock::acquire(sim, &shared.lock, self.recursive, &Deadline::new(Timeout::Forever)) {
                Ok(note) => {
                    shared.note(note);
                    return Ok(());
                }
                Err(error) if error.kind() == Kind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn release(&self, shared: &Awaited, sim: Sim) -> Result<(), String> {
        lock::release(sim, &shared.lock, self.recursive, || ()).map_err(|error| error.to_string())
    }

    fn consume(&self, shared: &Awaited, thread: usize, sim: Sim) -> Result<(), String> {
        self.acquire(shared, sim)?;
        if self.recursive {
            self.acquire(shared, sim)?;
        }
        while shared.tokens.load(SeqCst) == 0 {
            shared.waits[thread].store(1, SeqCst);
            let result = shared.line().wait(sim, &shared.lock, self.recursive, &Deadline::new(self.timeout));
            shared.waits[thread].store(0, SeqCst);
            match result {
                Ok(note) => {
                    shared.note(note);
                    shared.woken.fetch_add(usize::from(note == Note::None), SeqCst);
                }
                Err(error) if matches!(error.kind(), Kind::TimedOut | Kind::Interrupted) => break,
                Err(error) => return Err(error.to_string()),
            }
            if shared.woken.load(SeqCst) > shared.begun.load(SeqCst) {
                return Err("woke up although nobody notified it".into());
            }
        }
        let taken = shared.tokens.fetch_update(SeqCst, SeqCst, |tokens| tokens.checked_sub(1));
        sim.note(|| format!("has a token: {}", taken.is_ok()));
        if self.recursive {
            self.release(shared, sim)?;
        }
        self.release(shared, sim)
    }

    fn produce(&self, shared: &Awaited, thread: usize, sim: Sim) -> Result<(), String> {
        self.acquire(shared, sim)?;
        shared.tokens.fetch_add(self.by as usize, SeqCst);
        shared.unannounced[thread].fetch_add(self.by as usize, SeqCst);
        sim.note(|| format!("brings {}", self.by));
        self.release(shared, sim)?;
        shared.begun.fetch_add(self.by as usize, SeqCst);
        shared.line().notify(sim, self.by).map_err(|error| error.to_string())?;
        shared.unannounced[thread].store(0, SeqCst);
        Ok(())
    }
}

impl Scenario for Waiting {
    type Shared = Awaited;

    fn threads(&self) -> usize {
        self.consumers + self.producers
    }

    fn make(&self) -> Awaited {
        let zeros = |count| (0..count).map(|_| AtomicUsize::new(0)).collect();
        Awaited {
            lock: RobustCell::default(),
            condition: ConditionShared::default(),
            seats: (0..self.consumers).map(|_| RobustCell::default()).collect(),
            tokens: AtomicUsize::new(0),
            unannounced: zeros(self.threads()),
            begun: AtomicUsize::new(0),
            woken: AtomicUsize::new(0),
            told: AtomicUsize::new(0),
            waits: zeros(self.threads()),
        }
    }

    fn run(&self, shared: &Awaited, thread: usize, sim: Sim) -> Result<(), String> {
        for _ in 0..self.rounds {
            if thread < self.consumers {
                self.consume(shared, thread, sim)?;
            } else {
                self.produce(shared, thread, sim)?;
            }
        }
        Ok(())
    }

    fn check_rest(&self, shared: &Awaited, rest: &Rest, sim: Sim) -> Result<(), String> {
        let lock = sim.load(&shared.lock.word, Relaxed);
        if let Some(thread) = rest.asleep().find(|&thread| shared.waits[thread].load(SeqCst) == 0) {
            return Err(format!("{thread} sleeps, and not on the condition"));
        }
        if lock & OWNER != 0 {
            return Err("somebody sleeps in its wait and has the lock".into());
        }
        // Announced by nobody; or announced to somebody that died with the lock, which the next owner is told.
        let died = shared.told.load(SeqCst) + usize::from(lock & OWNER_DIED != 0);
        let unannounced: usize = shared.unannounced.iter().map(|count| count.load(SeqCst)).sum();
        let tokens = shared.tokens.load(SeqCst);
        match rest.asleep().next().filter(|_| tokens > unannounced + died) {
            Some(thread) => Err(format!("{thread} waits beside {tokens} tokens")),
            None => Ok(()),
        }
    }

    fn names(&self, shared: &Awaited, names: &mut Names) {
        names.cell("lock", &shared.lock);
        names.word("bell", shared.condition.bell());
        names.word("credits", shared.condition.credits());
        names.cell("section", &shared.condition.section);
        shared.seats.iter().enumerate().for_each(|(index, seat)| names.cell(&format!("seat {index}"), seat));
    }
}

#[test]
fn condition() {
    let waiting = Waiting { consumers: 2, rounds: 1, producers: 2, by: 1, recursive: false, timeout: Timeout::Forever };
    exhaust("condition", &Waiting { producers: 1, ..waiting });
    // A notifier that finds what a dead one left.
    exhaust("condition", &Waiting { consumers: 1, ..waiting });
    explore("condition", &Waiting { consumers: 3, ..waiting }, Limits { kills: 2, timeouts: 1 }, 1000);
}

#[test]
fn condition_again_and_again() {
    let waiting = Waiting { consumers: 2, rounds: 3, producers: 2, by: 1, recursive: false, timeout: Timeout::Forever };
    explore("condition again and again", &waiting, Limits { kills: 0, timeouts: 1 }, 3000);
    explore("condition again and again", &waiting, Limits { kills: 1, timeouts: 1 }, 3000);
}

#[test]
fn condition_notify_all_with_timeouts() {
    let waiting = Waiting { consumers: 3, rounds: 2, producers: 2, by: 3, recursive: true, timeout: LONG };
    explore("condition with timeouts", &waiting, Limits { kills: 1, timeouts: 2 }, 500);
}

/// The first threads meet again and again; one more may reset the barrier, or ask it.
struct Meeting {
    parties: usize,
    threads: usize,
    rounds: usize,
    acts: bool,
    resets: bool,
    asks: bool,
    timeout: Timeout,
}

struct Met {
    barrier: BarrierShared,
    seats: Vec<RobustCell>,
    /// For each round: who came, whose index was told, how often the action ran. Nothing of this is for barriers that were reset.
    came: Vec<AtomicUsize>,
    indices: Vec<AtomicUsize>,
    acted: Vec<AtomicUsize>,
    waits: Vec<AtomicUsize>,
}

impl Met {
    fn hall(&self) -> Hall<'_> {
        Hall { shared: &self.barrier, seats: &self.seats }
    }
}

impl Scenario for Meeting {
    type Shared = Met;

    fn threads(&self) -> usize {
        self.threads + usize::from(self.resets) + usize::from(self.asks)
    }

    fn make(&self) -> Met {
        let zeros = |count| (0..count).map(|_| AtomicUsize::new(0)).collect();
        let seats = (0..self.parties).map(|_| RobustCell::default()).collect();
        let (came, indices, acted) = (zeros(self.rounds), zeros(self.rounds), zeros(self.rounds));
        Met { barrier: BarrierShared::default(), seats, came, indices, acted, waits: zeros(self.threads()) }
    }

    fn run(&self, shared: &Met, thread: usize, sim: Sim) -> Result<(), String> {
        if thread >= self.threads && self.asks {
            return if shared.hall().is_broken(sim) { Err("it is said to be broken".into()) } else { Ok(()) };
        }
        if thread == self.threads {
            return shared.hall().reset(sim).map_err(|error| error.to_string());
        }
        let in_order = self.threads == self.parties && !self.resets;
        let mut round = 0;
        while round < self.rounds {
            let mut act = || {
                shared.acted[round].fetch_add(1, SeqCst);
            };
            shared.came[round].fetch_add(1, SeqCst);
            shared.waits[thread].store(1, SeqCst);
            let action: Option<&mut dyn FnMut()> = if self.acts { Some(&mut act) } else { None };
            let result = shared.hall().wait(sim, &Deadline::new(self.timeout), action);
            shared.waits[thread].store(0, SeqCst);
            match result {
                Ok(index) if in_order => {
                    sim.note(|| format!("comes through as {index}"));
                    if shared.came[round].load(SeqCst) != self.parties {
                        return Err("came through before all were there".into());
                    }
                    if self.acts && shared.acted[round].load(SeqCst) != 1 {
                        return Err(format!("the action ran {} times", shared.acted[round].load(SeqCst)));
                    }
                    if shared.indices[round].fetch_or(1 << index, SeqCst) & 1 << index != 0 {
                        return Err(format!("index {index} comes twice"));
                    }
                }
                Ok(_) => {}
                Err(error) if error.kind() == Kind::Interrupted => {
                    shared.came[round].fetch_sub(1, SeqCst);
                    continue;
                }
                Err(error) if matches!(error.kind(), Kind::Broken | Kind::TimedOut) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
            round += 1;
        }
        Ok(())
    }

    fn check_rest(&self, shared: &Met, rest: &Rest, sim: Sim) -> Result<(), String> {
        let asleep = rest.asleep().count();
        let (state, section) = (sim.load(shared.barrier.state(), Relaxed), sim.load(&shared.barrier.section.word, Relaxed));
        if sim.load(shared.barrier.completed(), Relaxed) == (state | 3) - 2 && section & OWNER_DIED == 0 {
            return Err("a round was completed and does not end".into());
        }
        if asleep == 0 {
            return Ok(());
        }
        if let Some(thread) = rest.asleep().find(|&thread| shared.waits[thread].load(SeqCst) == 0) {
            return Err(format!("{thread} sleeps, and not at the barrier"));
        }
        if shared.hall().is_broken(sim) {
            return Err(format!("{asleep} sleep although the barrier is broken"));
        }
        match shared.hall().waiting(sim) as usize {
            waiting if waiting != asleep => Err(format!("{asleep} sleep, {waiting} wait")),
            waiting if waiting == self.parties => Err("all are there".into()),
            _ => Ok(()),
        }
    }

    fn names(&self, shared: &Met, names: &mut Names) {
        names.word("state", shared.barrier.state());
        names.word("completed", shared.barrier.completed());
        names.word("bell", shared.barrier.bell());
        names.cell("section", &shared.barrier.section);
        names.cell("leader", &shared.barrier.leader);
        names.cell("queue", &shared.barrier.queue);
        shared.seats.iter().enumerate().for_each(|(index, seat)| names.cell(&format!("seat {index}"), seat));
    }
}

#[test]
fn barrier() {
    let meeting =
        Meeting { parties: 2, threads: 2, rounds: 1, acts: false, resets: false, asks: false, timeout: Timeout::Forever };
    exhaust("barrier", &Meeting { parties: 3, threads: 3, ..meeting });
    explore("barrier", &Meeting { parties: 3, threads: 3, rounds: 3, ..meeting }, Limits { kills: 0, timeouts: 2 }, 500);
    explore("barrier", &Meeting { parties: 3, threads: 3, rounds: 2, ..meeting }, Limits { kills: 2, timeouts: 1 }, 1000);
}

#[test]
fn barrier_with_an_action() {
    let meeting =
        Meeting { parties: 3, threads: 3, rounds: 2, acts: true, resets: false, asks: false, timeout: Timeout::Forever };
    explore("barrier with an action", &meeting, Limits { kills: 1, timeouts: 2 }, 800);
    explore("barrier with an action", &Meeting { timeout: LONG, ..meeting }, Limits { kills: 1, timeouts: 2 }, 500);
}

#[test]
fn barrier_with_resets_and_a_crowd() {
    let meeting = Meeting { parties: 2, threads: 4, rounds: 2, acts: false, resets: false, asks: false, timeout: LONG };
    explore("barrier with a crowd", &meeting, Limits { kills: 1, timeouts: 2 }, 600);
    let resets = Meeting { threads: 3, resets: true, acts: true, timeout: Timeout::Forever, ..meeting };
    explore("barrier with resets", &resets, Limits { kills: 1, timeouts: 1 }, 600);
}

/// Nobody dies and no time runs out, and so it is never broken, also while a round ends or somebody is interrupted.
#[test]
fn barrier_that_is_asked() {
    let meeting =
        Meeting { parties: 2, threads: 2, rounds: 2, acts: false, resets: false, asks: true, timeout: Timeout::Forever };
    explore("barrier that is asked", &meeting, Limits { kills: 0, timeouts: 1 }, 1500);
}
