//! Messages that were put and not yet declared done, and waiting until there are none.
//!
//! How many were put the tail says. Everything else is one word, so that a declaration is one CAS where nobody waits:
//!
//! ```text
//!   bits 63..32     bits 31..1     bit 0
//!   DONE            ENDS           ASLEEP
//! ```
//! DONE counts declarations modulo 2^32. ASLEEP: somebody waits, and whoever declares something done does it under a short robust word;
//! only the owner of that word sets and clears this bit. The last declaration works in the order that `sync::semaphore` explains: it
//! **wakes** all who sleep on the bell, then **publishes** DONE, with ASLEEP cleared and ENDS one higher. Killed before that, it has
//! declared nothing, ASLEEP stays, and who was woken sleeps again. So there is nothing to mend behind a dead owner.
//!
//! The bell is a number that rises with each waking: who was about to sleep finds another one. By ENDS a waiter knows that there was
//! an end while it waited, also if something was put directly afterwards. It counts them from when it first had the word: an end that
//! was under way before that may have looked at the tail before the waiter put something.

use super::*;

const ASLEEP: u64 = 1;
const END: u64 = 2;
const ENDS: u64 = DONE - END;
const DONE: u64 = 1 << 32;

impl Queue {
    /// Declares one message done.
    pub fn task_done(&self) -> Result<()> {
        self.task_done_by(Thread::current())
    }

    /// Waits until every message was declared done.
    pub fn join(&self, timeout: Timeout) -> Result<()> {
        self.join_by(Thread::current(), &Deadline::new(timeout))
    }

    /// Messages put and not declared done, exact at some moment of the call.
    pub fn unfinished(&self) -> usize {
        let (w, state) = (Thread::current(), self.shared.tasks.state());
        let mut seen = w.load64(state, Acquire);
        for _ in 0..1000 {
            let unfinished = self.unfinished_at(w, seen);
            let again = w.load64(state, Acquire);
            if again >> 32 == seen >> 32 {
                return unfinished as usize;
            }
            seen = again;
        }
        self.unfinished_at(w, seen) as usize
    }

    /// With as many done as `state` says, which was read (acquire) before: so no declaration is counted whose put is not.
    #[inline]
    fn unfinished_at<W: Words>(&self, w: W, state: u64) -> u32 {
        let tail = Position(w.load64(&self.shared.producers.position, Acquire));
        tail.messages().wrapping_sub((state >> 32) as u32)
    }

    pub fn task_done_by<W: Words>(&self, w: W) -> Result<()> {
        if self.count_done(w)? {
            return Ok(());
        }
        // Keeps the memory: who waits may free the handle once it knows of the end, and we have the section still.
        self.clone().task_done_waking(w)
    }

    /// `false`: somebody waits, and the state stays as it is.
    fn count_done<W: Words>(&self, w: W) -> Result<bool> {
        let state = self.shared.tasks.state();
        loop {
            let seen = w.load64(state, Acquire);
            if seen & ASLEEP != 0 {
                return Ok(false);
            }
            if self.unfinished_at(w, seen) == 0 {
                return Err(overflow());
            }
            // SYNC POINT: done (release; the acquires are in `is_finished` and `register_waiter`): what was done is seen by who waited for it.
            if w.cas64(state, seen, seen.wrapping_add(DONE), Release).is_ok() {
                return Ok(true);
            }
        }
    }

    #[cold]
    fn task_done_waking<W: Words>(&self, w: W) -> Result<()> {
        let tasks = &self.shared.tasks;
        robust::take_patiently(w, &tasks.section, "queue")?;
        let result = match self.count_done(w) {
            Ok(true) => Ok(()),
            Ok(false) => self.count_done_waking(w),
            Err(error) => Err(error),
        };
        robust::give(w, &tasks.section);
        result
    }

    /// ASLEEP is set and we have the section: nobody else changes the state.
    fn count_done_waking<W: Words>(&self, w: W) -> Result<()> {
        let tasks = &self.shared.tasks;
        let seen = w.load64(tasks.state(), Acquire);
        let counted = seen.wrapping_add(DONE);
        match self.unfinished_at(w, seen) {
            0 => return Err(overflow()),
            1 => {
                let ended = counted & !(ENDS | ASLEEP) | seen.wrapping_add(END) & ENDS;
                if mutant::is("publish_before_wake") {
                    w.store64(tasks.state(), ended, Release);
                }
                let bell = w.load(tasks.bell(), Relaxed);
                w.store(tasks.bell(), bell.wrapping_add(u32::from(!mutant::is("end_leaves_bell"))), Relaxed);
                w.wake(tasks.bell(), ALL);
                // SYNC POINT: done (release). Something may be put at this very moment: it comes after the end of those who wait.
                w.store64(tasks.state(), ended, Release);
            }
            // SYNC POINT: done (release).
            _ => w.store64(tasks.state(), counted, Release),
        }
        Ok(())
    }

    pub fn join_by<W: Words>(&self, w: W, deadline: &Deadline) -> Result<()> {
        if self.is_finished(w) {
            return Ok(());
        }
        if deadline.is_try() {
            return Err(unfinished());
        }
        // Keeps the memory: the handle may be closed and freed while we sleep.
        self.clone().join_waiting(w, deadline)
    }

    fn is_finished<W: Words>(&self, w: W) -> bool {
        // SYNC POINT: done (acquire).
        let seen = w.load64(self.shared.tasks.state(), Acquire);
        self.unfinished_at(w, seen) == 0
    }

    #[cold]
    fn join_waiting<W: Words>(&self, w: W, deadline: &Deadline) -> Result<()> {
        let tasks = &self.shared.tasks;
        let mut ends = None;
        loop {
            if robust::take(w, &tasks.section, deadline)?.is_none() {
                return Err(unfinished());
            }
            let asleep = self.register_waiter(w, &mut ends);
            robust::give(w, &tasks.section);
            let Some(bell) = asleep else { return Ok(()) };
            if w.wait(tasks.bell(), bell, deadline)? == Woken::TimedOut {
                let now = w.load64(tasks.state(), Acquire) & ENDS;
                return if ends != Some(now) || self.is_finished(w) { Ok(()) } else { Err(unfinished()) };
            }
        }
    }

    /// Sets ASLEEP unless there was an end; answers the bell to sleep on. `ends`: when this waiter was here for the first time.
    fn register_waiter<W: Words>(&self, w: W, ends: &mut Option<u64>) -> Option<u32> {
        let tasks = &self.shared.tasks;
        loop {
            // SYNC POINT: done (acquire).
            let seen = w.load64(tasks.state(), Acquire);
            if *ends.get_or_insert(seen & ENDS) != seen & ENDS || self.unfinished_at(w, seen) == 0 {
                return None;
            }
            if w.cas64(tasks.state(), seen, seen | ASLEEP, Relaxed).is_ok() {
                return Some(w.load(tasks.bell(), Relaxed));
            }
        }
    }
}

#[cold]
fn overflow() -> Error {
    Error::new(Kind::Overflow, "queue: every message that was put has been declared done")
}

#[cold]
fn unfinished() -> Error {
    Error::new(Kind::TimedOut, "queue: there are unfinished messages")
}
