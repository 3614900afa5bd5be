//! A counting semaphore, bounded or not. (One whose permits belong to threads is another thing: see [`super::tracked`].)
//!
//! The count and "somebody sleeps" share one word, so an operation without sleepers is one CAS and no lock:
//!
//! | state | meaning |
//! |---|---|
//! | 2 n | n permits, nobody sleeps |
//! | 1 | no permits; the leader sleeps, or is about to |
//! | 3 | no permits; a releaser is waking the leader |
//!
//! With a sleeper the releaser works under a short robust word, in this order:
//!
//! 1. **wake**: 1 becomes 3, so that nobody can fall asleep any more, and the sleeper is woken;
//! 2. **publish** the permits: 3 becomes 2 n;
//! 3. give the word.
//!
//! Killed before 2, it has published nothing, and 3 stays: whoever comes next, the woken one or another releaser, must take the
//! owner-dead word first, and mends it. Killed after 2, the sleeper is awake. The other order would lose the wake-up with the
//! permits published; and were 3 the same as 0, the next releaser would pass by without the word, and its wake-up be lost.
//!
//! Of all waiters only the **leader**, the owner of a held word, sleeps on the count; the others sleep on the leader word. A wake-up
//! has exactly one addressee, and if that one is killed the kernel wakes the next leader, who looks for itself.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::ALL;
use super::robust::{self, Taken};
use super::tracked::Permits;
use crate::error::{Error, Kind, Result};
use crate::mutant;
use crate::shm::layout::SemaphoreShared;
use crate::shm::{HandedOn, Naming, Object, Objects, RobustCell, SharedMemory, Spin, Woken, Words};
use crate::sys::Deadline;
use crate::sys::thread::Thread;

/// Permits of a semaphore without a bound.
pub const COUNT_MAX: u32 = i32::MAX as u32;

/// Permits that belong to threads: each is a cache line.
pub const TRACKED_MAX: u32 = 16_384;

/// The leader sleeps. An odd state is changed by the owner of `section` only.
const ASLEEP: u32 = 1;
/// The leader is being woken.
const WAKING: u32 = 3;

/// Whether there is more to do than counting.
#[inline]
fn is_odd(state: u32) -> bool {
    state & 1 != 0
}

#[derive(Clone, Debug)]
pub struct Semaphore {
    shared: Object<SemaphoreShared>,
    maximum: u32,
    /// Where permits belong to threads: one cell for each. The state is their bell.
    tracked: Option<Objects<RobustCell>>,
}

impl Semaphore {
    /// `maximum` 0 = no bound.
    pub fn new(initial: u32, maximum: u32) -> Result<Semaphore> {
        Semaphore::named(&Naming::None, initial, maximum)
    }

    pub fn named(naming: &Naming, initial: u32, maximum: u32) -> Result<Semaphore> {
        let maximum = check(initial, maximum)?;
        Semaphore::make(naming, 0, |shared| prepare(shared, initial, maximum))
    }

    /// Permits belong to threads: there are `initial` of them, and no others can be added.
    pub fn new_tracked(naming: &Naming, initial: u32, maximum: u32) -> Result<Semaphore> {
        let maximum = check(initial, maximum)?;
        if initial > TRACKED_MAX {
            return Err(Error::invalid(format!("semaphore: initial {initial} is above {TRACKED_MAX} tracked permits")));
        }
        Semaphore::make(naming, initial as usize * size_of::<RobustCell>(), |shared| {
            prepare(shared, 0, maximum);
            Thread::current().store(shared.tracked(), 1 + initial, Relaxed);
        })
    }

    /// In a block of the user.
    pub fn new_in(memory: &SharedMemory, offset: usize, initial: u32, maximum: u32) -> Result<Semaphore> {
        let maximum = check(initial, maximum)?;
        memory.make(offset, |shared| prepare(shared, initial, maximum))
    }

    fn permits(&self) -> Option<Permits<'_>> {
        let cells = self.tracked.as_deref()?;
        Some(Permits { cells, bell: self.shared.state(), leader: &self.shared.leader })
    }

    #[inline]
    pub fn acquire(&self, deadline: &Deadline) -> Result<()> {
        match self.permits() {
            None => acquire(Thread::current(), &self.shared, deadline, || self.shared.clone()),
            Some(permits) => permits.acquire(Thread::current(), deadline, || self.shared.clone()).map(|_| ()),
        }
    }

    #[inline]
    pub fn release(&self, count: u32) -> Result<()> {
        match self.permits() {
            None => release(Thread::current(), &self.shared, count, self.maximum, || self.shared.clone()),
            Some(permits) => {
                // Whoever gets the permit may free the handle before the bell was rung.
                let _kept = self.shared.clone();
                permits.release(Thread::current(), count as usize)
            }
        }
    }

    pub fn value(&self) -> u32 {
        if let Some(permits) = self.permits() {
            return permits.free(Thread::current()) as u32;
        }
        let state = Thread::current().load(self.shared.state(), Relaxed);
        if is_odd(state) { 0 } else { state >> 1 }
    }
}

impl HandedOn for Semaphore {
    type Shared = SemaphoreShared;

    fn of(shared: Object<SemaphoreShared>) -> Result<Semaphore> {
        let w = Thread::current();
        let tracked = match w.load(shared.tracked(), Relaxed) {
            0 => None,
            permits => Some(shared.tail((permits - 1) as usize)),
        };
        match (w.load(shared.maximum(), Relaxed), tracked.transpose()) {
            (maximum @ 1..=COUNT_MAX, Ok(tracked)) => Ok(Semaphore { shared, maximum, tracked }),
            _ => Err(Error::new(Kind::Corrupt, "semaphore: its shared memory was written over")),
        }
    }

    fn object(&self) -> &Object<SemaphoreShared> {
        &self.shared
    }
}

/// The maximum that these two come to.
fn check(initial: u32, maximum: u32) -> Result<u32> {
    let maximum = if maximum == 0 { COUNT_MAX } else { maximum };
    if maximum > COUNT_MAX {
        return Err(Error::invalid(format!("semaphore: a maximum of {maximum} is above {COUNT_MAX}")));
    }
    if initial > maximum {
        return Err(Error::invalid(format!("semaphore: initial {initial} is above the maximum {maximum}")));
    }
    Ok(maximum)
}

fn prepare(shared: &SemaphoreShared, initial: u32, maximum: u32) {
    let w = Thread::current();
    w.store(shared.maximum(), maximum, Relaxed);
    w.store(shared.state(), initial << 1, Relaxed);
}

impl Drop for Semaphore {
    fn drop(&mut self) {
        // The robust lists of the threads that have permits lead through this memory.
        let ours = |cell: &RobustCell| robust::may_be_held_here(Thread::current(), cell);
        if self.tracked.as_deref().is_some_and(|cells| cells.iter().any(ours)) {
            self.shared.keep_mapped();
        }
    }
}

/// `keep` is asked for what keeps the memory if the call will sleep: the handle may be freed meanwhile.
#[inline]
pub fn acquire<W: Words, K>(w: W, shared: &SemaphoreShared, deadline: &Deadline, keep: impl FnOnce() -> K) -> Result<()> {
    if take_permit(w, shared) {
        return Ok(());
    }
    let _kept = keep();
    acquire_waiting(w, shared, deadline)
}

#[inline]
fn take_permit<W: Words>(w: W, shared: &SemaphoreShared) -> bool {
    let mut seen = w.load(shared.state(), Relaxed);
    while seen != 0 && !is_odd(seen) {
        // SYNC POINT: permit (acquire; the release is in `release`).
        match w.cas(shared.state(), seen, seen - 2, Acquire) {
            Ok(_) => return true,
            Err(now) => seen = now,
        }
    }
    false
}

#[cold]
fn acquire_waiting<W: Words>(w: W, shared: &SemaphoreShared, deadline: &Deadline) -> Result<()> {
    if deadline.is_try() {
        return Err(timed_out());
    }
    let mut spin = Spin::new();
    while spin.again(w) {
        if take_permit(w, shared) {
            return Ok(());
        }
    }
    if robust::hold(w, &shared.leader, deadline)?.is_none() {
        // There may be permits all the same: a leader that is stopped does not take them.
        return if take_permit(w, shared) { Ok(()) } else { Err(timed_out()) };
    }
    let result = acquire_leading(w, shared, deadline);
    robust::release(w, &shared.leader);
    result
}

fn acquire_leading<W: Words>(w: W, shared: &SemaphoreShared, deadline: &Deadline) -> Result<()> {
    loop {
        if take_permit(w, shared) {
            return Ok(());
        }
        if !register(w, shared, deadline)? {
            return Err(timed_out());
        }
        // If the state is no longer "no permits, asleep" somebody released meanwhile, and this returns at once.
        if w.wait(shared.state(), ASLEEP, deadline)? == Woken::TimedOut {
            return Err(timed_out());
        }
    }
}

/// Says that the leader is about to sleep, unless there are permits. `false`: the time ran out.
///
/// Who owns the section finds the leader asleep or an even state; with any other the leader would neither sleep nor get a permit.
fn register<W: Words>(w: W, shared: &SemaphoreShared, deadline: &Deadline) -> Result<bool> {
    match robust::take(w, &shared.section, deadline)? {
        None => return Ok(false),
        Some(Taken::OwnerDied) => recover(w, shared, Side::Waiter),
        Some(Taken::Clean) => {}
    }
    let sound = match w.cas(shared.state(), 0, ASLEEP, Relaxed) {
        Ok(_) | Err(ASLEEP) => true,
        Err(state) => !is_odd(state),
    };
    robust::give(w, &shared.section);
    if sound { Ok(true) } else { Err(Error::new(Kind::Corrupt, "semaphore: its shared memory was written over")) }
}

/// `keep` is asked for what keeps the memory if somebody sleeps: whoever gets the permit may free the handle before this call has
/// given the section.
#[inline]
pub fn release<W: Words, K>(w: W, shared: &SemaphoreShared, count: u32, maximum: u32, keep: impl FnOnce() -> K) -> Result<()> {
    if add_permits(w, shared, count, maximum)? {
        return Ok(());
    }
    let _kept = keep();
    release_waking(w, shared, count, maximum)
}

/// `false`: the state is odd, and stays as it is.
#[inline]
fn add_permits<W: Words>(w: W, shared: &SemaphoreShared, count: u32, maximum: u32) -> Result<bool> {
    let mut seen = w.load(shared.state(), Relaxed);
    while !is_odd(seen) {
        let new = add(seen, count, maximum)?;
        // SYNC POINT: permit (release; the acquire is in `take_permit`).
        match w.cas(shared.state(), seen, new, Release) {
            Ok(_) => return Ok(true),
            Err(now) => seen = now,
        }
    }
    Ok(false)
}

#[cold]
fn release_waking<W: Words>(w: W, shared: &SemaphoreShared, count: u32, maximum: u32) -> Result<()> {
    // What an odd state becomes. Before the section: once the leader is being woken, nothing may fail.
    let permits = add(0, count, maximum)?;
    if count == 0 {
        return Ok(());
    }
    if robust::take_patiently(w, &shared.section, "semaphore")? == Taken::OwnerDied {
        recover(w, shared, Side::Releaser);
    }
    if mutant::is("doorbell_reset_outside_lock") {
        robust::give(w, &shared.section);
    }
    let result = if !is_odd(w.load(shared.state(), Relaxed)) {
        // It stays even: only the owner of the section makes it odd.
        add_permits(w, shared, count, maximum).map(|_| ())
    } else {
        if mutant::is("publish_before_wake") {
            w.store(shared.state(), permits, Release);
            w.wake(shared.state(), 1);
        } else {
            w.store(shared.state(), WAKING, Relaxed);
            w.wake(shared.state(), 1);
            // SYNC POINT: permit (release).
            w.store(shared.state(), permits, Release);
        }
        Ok(())
    };
    if !mutant::is("doorbell_reset_outside_lock") {
        robust::give(w, &shared.section);
    }
    result
}

#[inline]
fn add(state: u32, count: u32, maximum: u32) -> Result<u32> {
    match (state >> 1).checked_add(count) {
        Some(sum) if sum <= maximum => Ok(sum << 1),
        _ => Err(overflow()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Waiter,
    Releaser,
}

/// The section's owner ended inside: it may not have woken the leader. All are woken, and look. The state is WAKING until then, so
/// that nobody falls asleep meanwhile, and so that this is done again should this thread end, too.
#[cold]
fn recover<W: Words>(w: W, shared: &SemaphoreShared, side: Side) {
    if mutant::is("recovery_only_in_producers") && side == Side::Waiter {
        return;
    }
    if w.load(shared.state(), Relaxed) == WAKING {
        if !mutant::is("recovery_does_not_wake") {
            w.wake(shared.state(), ALL);
        }
        w.store(shared.state(), 0, Relaxed);
    }
}

#[cold]
fn timed_out() -> Error {
    Error::new(Kind::TimedOut, "semaphore: no permit in time")
}

#[cold]
fn overflow() -> Error {
    Error::new(Kind::Overflow, "semaphore: count would put it above its maximum")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeout::Timeout;

    #[test]
    fn counts_up_to_its_maximum() {
        let semaphore = Semaphore::new(1, 2).unwrap();
        let now = Deadline::new(Timeout::Try);
        semaphore.release(1).unwrap();
        assert_eq!(semaphore.release(1).unwrap_err().kind(), Kind::Overflow);
        assert_eq!(semaphore.value(), 2);
        semaphore.acquire(&now).unwrap();
        semaphore.acquire(&now).unwrap();
        assert_eq!(semaphore.acquire(&now).unwrap_err().kind(), Kind::TimedOut);
        assert_eq!(semaphore.acquire(&Deadline::new(Timeout::Millis(5))).unwrap_err().kind(), Kind::TimedOut);
        assert_eq!(semaphore.value(), 0);
    }

    #[test]
    fn the_initial_value_must_fit() {
        assert_eq!(Semaphore::new(3, 2).unwrap_err().kind(), Kind::Invalid);
        assert_eq!(Semaphore::new(0, u32::MAX).unwrap_err().kind(), Kind::Invalid);
        assert_eq!(Semaphore::new(7, 0).unwrap().value(), 7);
    }

    #[test]
    fn tracked_permits_belong_to_threads() {
        let semaphore = Semaphore::new_tracked(&Naming::None, 2, 0).unwrap();
        let now = Deadline::new(Timeout::Try);
        semaphore.acquire(&now).unwrap();
        assert_eq!(semaphore.release(2).unwrap_err().kind(), Kind::NotOwner);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let now = Deadline::new(Timeout::Try);
                semaphore.acquire(&now).unwrap();
                assert_eq!(semaphore.release(2).unwrap_err().kind(), Kind::NotOwner);
                assert_eq!(semaphore.acquire(&now).unwrap_err().kind(), Kind::TimedOut);
            });
        });
        // That thread ended with its permit. join() returns before the kernel has walked its list.
        semaphore.acquire(&Deadline::new(Timeout::Forever)).unwrap();
        assert_eq!(semaphore.value(), 0);
        semaphore.release(2).unwrap();
        assert_eq!(semaphore.value(), 2);
        assert_eq!(semaphore.release(1).unwrap_err().kind(), Kind::NotOwner);
    }

    #[test]
    fn tracked_permits_are_handed_on() {
        let semaphore = Semaphore::new_tracked(&Naming::None, 2, 0).unwrap();
        let same = Semaphore::attach(&semaphore.token().unwrap()).unwrap();
        same.acquire(&Deadline::new(Timeout::Try)).unwrap();
        assert_eq!(semaphore.value(), 1);
        assert_eq!(semaphore.release(2).unwrap_err().kind(), Kind::NotOwner);
        semaphore.release(1).unwrap();
        assert_eq!(same.value(), 2);
    }

    #[test]
    fn many_tracked_permits_lie_apart() {
        let semaphore = Semaphore::new_tracked(&Naming::None, 1000, 0).unwrap();
        let now = Deadline::new(Timeout::Try);
        for _ in 0..crate::sys::thread::HELD_MAX {
            semaphore.acquire(&now).unwrap();
        }
        assert_eq!(semaphore.acquire(&now).unwrap_err().kind(), Kind::Again);
        assert_eq!(semaphore.value(), 744);
        semaphore.release(256).unwrap();
        assert_eq!(semaphore.value(), 1000);
        assert_eq!(Semaphore::new_tracked(&Naming::None, TRACKED_MAX + 1, 0).unwrap_err().kind(), Kind::Invalid);
    }

    #[test]
    fn one_release_of_many_serves_many_sleepers() {
        let semaphore = Semaphore::new(0, 0).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| semaphore.acquire(&Deadline::new(Timeout::Forever)).unwrap());
            }
            semaphore.release(4).unwrap();
        });
        assert_eq!(semaphore.value(), 0);
    }
}
