//! A flag to wait for.
//!
//! ```text
//!   bits 31..3     bit 2     bit 1     bit 0
//!   GENERATION     WAKING    ASLEEP    SET
//! ```
//! Every `set` raises the generation, so a waiter knows that the event was set also if it was cleared at once. With sleepers, `set`
//! works under a short robust word: ASLEEP becomes WAKING, everybody is woken, and only *then* the event is set: see `semaphore` for
//! why. All are woken, so there is no leader.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::ALL;
use super::robust::{self, Taken};
use crate::error::{Error, Kind, Result};
use crate::mutant;
use crate::shm::layout::EventShared;
use crate::shm::{HandedOn, Naming, Object, Spin, Woken, Words};
use crate::sys::Deadline;
use crate::sys::thread::Thread;

const SET: u32 = 1;
/// Somebody sleeps, or is about to. This and WAKING change under the section only, and only while SET is clear; while one of them is
/// set, nobody else changes the state.
const ASLEEP: u32 = 2;
/// The sleepers are being woken: whoever would set the event, or sleep, needs the section.
const WAKING: u32 = 4;
const GENERATION: u32 = 8;

#[derive(Clone, Debug)]
pub struct Event {
    shared: Object<EventShared>,
}

impl Event {
    pub fn new() -> Result<Event> {
        Event::named(&Naming::None)
    }

    pub fn named(naming: &Naming) -> Result<Event> {
        Event::make(naming, 0, |_| {})
    }

    pub fn set(&self) -> Result<()> {
        set(Thread::current(), &self.shared, || self.shared.clone())
    }

    pub fn clear(&self) {
        clear(Thread::current(), &self.shared);
    }

    pub fn is_set(&self) -> bool {
        is_set(Thread::current(), &self.shared)
    }

    pub fn wait(&self, deadline: &Deadline) -> Result<()> {
        wait(Thread::current(), &self.shared, deadline, || self.shared.clone())
    }
}

impl HandedOn for Event {
    type Shared = EventShared;

    fn of(shared: Object<EventShared>) -> Result<Event> {
        Ok(Event { shared })
    }

    fn object(&self) -> &Object<EventShared> {
        &self.shared
    }
}

pub fn is_set<W: Words>(w: W, shared: &EventShared) -> bool {
    // SYNC POINT: event (acquire; the releases are in `set_quietly` and `set_waking`).
    w.load(shared.state(), Acquire) & SET != 0
}

pub fn clear<W: Words>(w: W, shared: &EventShared) {
    w.and(shared.state(), !SET, AcqRel);
}

/// `keep` is asked for what keeps the memory if somebody sleeps: whoever sees the event set may free the handle before this call has
/// given the section.
#[inline]
pub fn set<W: Words, K>(w: W, shared: &EventShared, keep: impl FnOnce() -> K) -> Result<()> {
    if set_quietly(w, shared) {
        return Ok(());
    }
    let _kept = keep();
    set_waking(w, shared)
}

/// `false`: somebody sleeps.
#[inline]
fn set_quietly<W: Words>(w: W, shared: &EventShared) -> bool {
    let mut seen = w.load(shared.state(), Relaxed);
    while seen & (ASLEEP | WAKING) == 0 {
        // Also when it is set already: what this thread did before is then visible to whoever looks from now on.
        // SYNC POINT: event (release; the acquires are in `is_set` and `wait`).
        match w.cas(shared.state(), seen, published(seen), Release) {
            Ok(_) => return true,
            Err(now) => seen = now,
        }
    }
    false
}

fn published(state: u32) -> u32 {
    (state & !(SET | ASLEEP | WAKING)).wrapping_add(GENERATION) | SET
}

#[cold]
fn set_waking<W: Words>(w: W, shared: &EventShared) -> Result<()> {
    if robust::take_patiently(w, &shared.section, "event")? == Taken::OwnerDied {
        recover(w, shared);
    }
    let seen = w.load(shared.state(), Relaxed);
    if seen & (ASLEEP | WAKING) == 0 {
        // Nobody registers while we have the section.
        set_quietly(w, shared);
    } else if mutant::is("publish_before_wake") {
        w.store(shared.state(), published(seen), Release);
        w.wake(shared.state(), ALL);
    } else {
        w.store(shared.state(), seen & !ASLEEP | WAKING, Relaxed);
        w.wake(shared.state(), ALL);
        // SYNC POINT: event (release).
        w.store(shared.state(), published(seen), Release);
    }
    robust::give(w, &shared.section);
    Ok(())
}

/// `keep` is asked for what keeps the memory if the call will sleep: the handle may be freed meanwhile.
pub fn wait<W: Words, K>(w: W, shared: &EventShared, deadline: &Deadline, keep: impl FnOnce() -> K) -> Result<()> {
    let first = w.load(shared.state(), Acquire);
    if first & SET != 0 {
        return Ok(());
    }
    if deadline.is_try() {
        return Err(timed_out());
    }
    let _kept = keep();
    wait_asleep(w, shared, first, deadline)
}

#[cold]
fn wait_asleep<W: Words>(w: W, shared: &EventShared, first: u32, deadline: &Deadline) -> Result<()> {
    let happened = |state: u32| state & SET != 0 || (state ^ first) >= GENERATION;
    loop {
        let mut spin = Spin::new();
        while spin.again(w) {
            if happened(w.load(shared.state(), Acquire)) {
                return Ok(());
            }
        }
        match robust::take(w, &shared.section, deadline)? {
            None => return if happened(w.load(shared.state(), Acquire)) { Ok(()) } else { Err(timed_out()) },
            Some(Taken::OwnerDied) => recover(w, shared),
            Some(Taken::Clean) => {}
        }
        let asleep = register(w, shared, &happened);
        robust::give(w, &shared.section);
        let Some(asleep) = asleep else { return Ok(()) };
        if w.wait(shared.state(), asleep, deadline)? == Woken::TimedOut {
            return if happened(w.load(shared.state(), Acquire)) { Ok(()) } else { Err(timed_out()) };
        }
    }
}

/// Sets ASLEEP unless the event happened; answers the state to sleep on.
fn register<W: Words>(w: W, shared: &EventShared, happened: &impl Fn(u32) -> bool) -> Option<u32> {
    let mut seen = w.load(shared.state(), Acquire);
    loop {
        if happened(seen) {
            return None;
        }
        match w.cas(shared.state(), seen, seen | ASLEEP, Relaxed) {
            Ok(_) => return Some(seen | ASLEEP),
            Err(now) => seen = now,
        }
    }
}

/// The section's owner ended inside: it may not have woken all. All are woken, and look. WAKING stays until then, so that nobody falls
/// asleep meanwhile, and so that this is done again should this thread end, too.
#[cold]
fn recover<W: Words>(w: W, shared: &EventShared) {
    let seen = w.load(shared.state(), Relaxed);
    if seen & WAKING != 0 {
        if !mutant::is("recovery_does_not_wake") {
            w.wake(shared.state(), ALL);
        }
        w.store(shared.state(), seen & !WAKING, Relaxed);
    }
}

#[cold]
fn timed_out() -> Error {
    Error::new(Kind::TimedOut, "event: not set in time")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeout::Timeout;

    #[test]
    fn set_and_clear() {
        let event = Event::new().unwrap();
        assert!(!event.is_set());
        assert_eq!(event.wait(&Deadline::new(Timeout::Try)).unwrap_err().kind(), Kind::TimedOut);
        assert_eq!(event.wait(&Deadline::new(Timeout::Millis(5))).unwrap_err().kind(), Kind::TimedOut);
        event.set().unwrap();
        event.set().unwrap();
        event.wait(&Deadline::new(Timeout::Try)).unwrap();
        event.clear();
        assert!(!event.is_set());
    }

    #[test]
    fn set_releases_all_who_wait() {
        let event = Event::new().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| event.wait(&Deadline::new(Timeout::Forever)).unwrap());
            }
            event.set().unwrap();
        });
    }
}
