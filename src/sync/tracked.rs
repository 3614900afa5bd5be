//! Permits that belong to threads and come back when they die.
//!
//! Each permit is a robust word of its own: a thread that has the permit holds the word. So there is no count that could disagree
//! with its owners, and the death of an owner frees exactly what it had, by the kernel's hand. Barriers and conditions seat their
//! waiters in the same way.
//!
//! A death rings no bell. Of all who wait one, the leader, sleeps on the bell and looks at all permits ten times a second, too; the
//! others sleep on the leader word. Who gives a permit back frees it first and rings then; killed in between, it is one more death.

use std::sync::atomic::Ordering::Relaxed;

use super::robust;
use crate::error::{Error, Kind, Result};
use crate::mutant;
use crate::shm::{RobustCell, Woken, Word, Words};
use crate::sys::Deadline;

/// The bell when the leader sleeps, or is about to.
const ASLEEP: u32 = 1;

/// Permits in shared memory. All fields zero: all are free, nobody waits.
#[derive(Clone, Copy)]
pub struct Permits<'a> {
    pub cells: &'a [RobustCell],
    pub bell: &'a Word,
    /// Owned by the one waiter that sleeps on the bell.
    pub leader: &'a RobustCell,
}

impl Permits<'_> {
    /// Permits that nobody has.
    pub fn free<W: Words>(self, w: W) -> usize {
        self.cells.iter().filter(|cell| w.load(&cell.word, Relaxed) & robust::OWNER == 0).count()
    }

    /// Takes a permit; answers which. `keep` is asked for what keeps the memory if the call will sleep: the handle may be freed meanwhile.
    #[inline]
    pub fn acquire<W: Words, K>(self, w: W, deadline: &Deadline, keep: impl FnOnce() -> K) -> Result<usize> {
        if let Some(index) = self.take(w)? {
            return Ok(index);
        }
        let _kept = keep();
        self.acquire_waiting(w, deadline)
    }

    /// A free permit, if there is one.
    #[inline]
    pub fn take<W: Words>(self, w: W) -> Result<Option<usize>> {
        for index in self.mine_first(w) {
            if robust::try_hold(w, &self.cells[index])?.is_some() {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// All permits, beginning where this thread usually finds one: threads do not run after each other, and a thread finds its own.
    #[inline]
    fn mine_first<W: Words>(self, w: W) -> impl Iterator<Item = usize> {
        let count = self.cells.len();
        let first = w.tid() as usize % count.max(1);
        (first..count).chain(0..first)
    }

    #[cold]
    fn acquire_waiting<W: Words>(self, w: W, deadline: &Deadline) -> Result<usize> {
        if deadline.is_try() {
            return Err(timed_out());
        }
        for turn in 0..W::SPINS {
            w.relax(turn);
            if let Some(index) = self.take(w)? {
                return Ok(index);
            }
        }
        if robust::hold(w, self.leader, deadline)?.is_none() {
            // There may be permits all the same: a leader that is stopped does not take them.
            return self.take(w)?.ok_or_else(timed_out);
        }
        let result = self.acquire_leading(w, deadline);
        w.store(self.bell, 0, Relaxed);
        robust::release(w, self.leader);
        result
    }

    fn acquire_leading<W: Words>(self, w: W, deadline: &Deadline) -> Result<usize> {
        loop {
            w.store(self.bell, ASLEEP, Relaxed);
            // SYNC POINT: bell (fence; its partner is in `ring`): either this thread sees the permit, or the other the bell.
            w.fence();
            if let Some(index) = self.take(w)? {
                return Ok(index);
            }
            let woken = if mutant::is("leader_does_not_look") {
                w.wait(self.bell, ASLEEP, deadline)?
            } else {
                w.wait_watching(self.bell, ASLEEP, deadline)?
            };
            if woken == Woken::TimedOut {
                return self.take(w)?.ok_or_else(timed_out);
            }
        }
    }

    /// Gives `count` permits back; all of them, or none if this thread has less.
    #[inline]
    pub fn release<W: Words>(self, w: W, count: usize) -> Result<()> {
        let mine = || self.mine_first(w).filter(|&index| robust::is_held(w, &self.cells[index]));
        if count == 1 {
            let index = mine().next().ok_or_else(not_owner)?;
            return self.release_one(w, index);
        }
        if mine().take(count).count() < count {
            return Err(not_owner());
        }
        let mut result = Ok(());
        for index in mine().take(count) {
            result = result.and(self.release_one(w, index));
        }
        result
    }

    /// Gives back the permit of this number, which this thread has.
    #[inline]
    pub fn release_one<W: Words>(self, w: W, index: usize) -> Result<()> {
        let sound = robust::release(w, &self.cells[index]);
        self.ring(w);
        if sound { Ok(()) } else { Err(Error::new(Kind::Corrupt, "semaphore: its shared memory was written over")) }
    }

    #[inline]
    fn ring<W: Words>(self, w: W) {
        // SYNC POINT: bell (fence).
        w.fence();
        if w.load(self.bell, Relaxed) != 0 && !mutant::is("bell_not_rung") {
            w.store(self.bell, 0, Relaxed);
            w.wake(self.bell, 1);
        }
    }
}

#[cold]
fn timed_out() -> Error {
    Error::new(Kind::TimedOut, "semaphore: no permit in time")
}

#[cold]
fn not_owner() -> Error {
    Error::new(Kind::NotOwner, "semaphore: the calling thread does not have so many permits")
}
