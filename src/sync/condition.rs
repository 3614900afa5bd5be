//! A condition variable.
//!
//! Every waiter has a **seat**, a robust word that it holds, and a **ticket** that tells its age. Notifications are a number of
//! *credits* and a *horizon*: the oldest waiters, as many as there are credits, may leave, if their tickets lie below the horizon,
//! which is where the tickets stood at the last notification. So who comes later takes nothing.
//!
//! The waiters stand in a line. The oldest sleeps on the bell; every other one sleeps on the seat of the next older one, as on a
//! lock. Whoever leaves gives its seat back, and that wakes exactly the next one, who looks what it is now: the oldest, with or without a
//! credit. Death does the same by the kernel's hand, wherever in the line it strikes; and a notification of all does not make a
//! crowd before the lock.
//!
//! A waiter takes its credit last, when it has its lock again: killed before, it leaves the credit to the next one; killed after, it
//! is an owner of the lock that died, of which the next owner is told.
//!
//! | seat | meaning |
//! |---|---|
//! | ticket 0 | waits for nothing |
//! | ticket, `WHO` owns the seat | waits |
//! | ticket, `WHO` does not | is gone: died, or had no time to say good-bye; whoever meets it forgets it |
//!
//! What changes tickets, credits and the bell owns `section`. As in `semaphore`, the oldest is woken before the credits are there, and the bell
//! says so until they are.

use std::sync::atomic::Ordering::Relaxed;

use super::ALL;
use super::lock::{self, Lock};
use super::robust::{self, OWNER, Taken};
use crate::error::{Error, Kind, Note, Result};
use crate::mutant;
use crate::shm::layout::ConditionShared;
use crate::shm::{HandedOn, Naming, Object, Objects, RobustCell, Woken, Words};
use crate::sys::Deadline;
use crate::sys::thread::Thread;

/// How many may wait at a time.
pub const SEATS: usize = 255;

/// The oldest sleeps on the bell, or is about to.
const ASLEEP: u32 = 1;
/// It is being woken.
const WAKING: u32 = 3;

/// Where a seat keeps its waiter.
mod small {
    /// The number of the thread that waits.
    pub const WHO: usize = 0;
    pub const TICKET: usize = 1;
}

#[derive(Clone, Debug)]
pub struct Condition {
    shared: Object<ConditionShared>,
    seats: Objects<RobustCell>,
}

impl Condition {
    pub fn new() -> Result<Condition> {
        Condition::named(&Naming::None)
    }

    pub fn named(naming: &Naming) -> Result<Condition> {
        Condition::make(naming, SEATS * size_of::<RobustCell>(), |_| {})
    }

    fn line(&self) -> Line<'_> {
        Line { shared: &self.shared, seats: &self.seats }
    }

    /// The note, if the lock's owner died while this thread waited.
    pub fn wait(&self, lock: &Lock, deadline: &Deadline) -> Result<Note> {
        // The handles may be freed while this thread is still leaving.
        let _kept = (self.shared.clone(), lock.cell().clone());
        self.line().wait(Thread::current(), lock.cell(), lock.is_recursive(), deadline)
    }

    /// Wakes at most `count` of those who wait.
    pub fn notify(&self, count: u32) -> Result<()> {
        // Whoever is woken may free the handle before this call has given the section.
        let _kept = self.shared.clone();
        self.line().notify(Thread::current(), count)
    }

    pub fn notify_all(&self) -> Result<()> {
        self.notify(ALL)
    }
}

impl HandedOn for Condition {
    type Shared = ConditionShared;

    fn of(shared: Object<ConditionShared>) -> Result<Condition> {
        match shared.tail(SEATS) {
            Ok(seats) => Ok(Condition { shared, seats }),
            Err(_) => Err(Error::new(Kind::Corrupt, "condition: its shared memory was written over")),
        }
    }

    fn object(&self) -> &Object<ConditionShared> {
        &self.shared
    }
}

/// Who waits.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    pub shared: &'a ConditionShared,
    pub seats: &'a [RobustCell],
}

/// What a waiter is in its line.
enum Turn {
    /// There is a credit for it.
    Now,
    /// The oldest, and there is none.
    Oldest,
    /// Behind the one in this seat, with this number and ticket.
    Behind(usize, u32, u32),
}

/// How a sleep ended.
enum End {
    Notified,
    TimedOut,
    Interrupted(Error),
}

/// Where the tickets stood at the last notification, and how many may leave.
#[derive(Clone, Copy)]
struct Credits {
    horizon: u32,
    count: u32,
}

/// `one` was given out before `other`.
fn is_older(one: u32, other: u32) -> bool {
    (one.wrapping_sub(other) as i32) < 0
}

impl Line<'_> {
    pub fn wait<W: Words>(self, w: W, lock: &RobustCell, recursive: bool, deadline: &Deadline) -> Result<Note> {
        if !robust::is_held(w, lock) {
            return Err(Error::new(Kind::NotOwner, "condition: the calling thread does not hold the lock"));
        }
        let seat = self.sit_down(w)?;
        let ticket = match self.register(w, seat, deadline) {
            Ok(ticket) => ticket,
            Err(error) => {
                robust::release(w, &self.seats[seat]);
                return Err(error);
            }
        };
        let depth = match lock::release_wholly(w, lock, recursive) {
            Ok(depth) => depth,
            Err(error) => {
                // The ticket goes with the seat.
                robust::release(w, &self.seats[seat]);
                return Err(error);
            }
        };
        let end = self.sleep(w, ticket, deadline);
        let note = lock::reacquire(w, lock, depth);
        let result = self.stand_up(w, seat, ticket, end, deadline);
        robust::release(w, &self.seats[seat]);
        match (note?, result) {
            // Whatever else happened: the caller must look at what the lock guards.
            (Note::OwnerDied, _) => Ok(Note::OwnerDied),
            (note, result) => result.map(|()| note),
        }
    }

    fn sit_down<W: Words>(self, w: W) -> Result<usize> {
        for (index, seat) in self.seats.iter().enumerate() {
            if robust::try_hold(w, seat)?.is_some() {
                // A ticket that the last one left here is that of somebody who is gone.
                w.store(&seat.small[small::WHO], 0, Relaxed);
                return Ok(index);
            }
        }
        Err(Error::new(Kind::Again, "condition: 255 threads wait already"))
    }

    fn register<W: Words>(self, w: W, index: usize, deadline: &Deadline) -> Result<u32> {
        if !self.enter(w, deadline)? {
            return Err(timed_out());
        }
        let seat = &self.seats[index];
        let ticket = w.load(self.shared.next(), Relaxed).max(1);
        w.store(self.shared.next(), ticket.wrapping_add(1), Relaxed);
        let used = w.load(self.shared.used(), Relaxed);
        if used <= index as u32 {
            w.store(self.shared.used(), index as u32 + 1, Relaxed);
        }
        w.store(&seat.small[small::WHO], w.tid(), Relaxed);
        w.store(&seat.small[small::TICKET], ticket, Relaxed);
        robust::give(w, &self.shared.section);
        Ok(ticket)
    }

    /// `false`: the time ran out.
    fn enter<W: Words>(self, w: W, deadline: &Deadline) -> Result<bool> {
        Ok(self.is_inside(w, robust::take(w, &self.shared.section, deadline)?))
    }

    fn is_inside<W: Words>(self, w: W, taken: Option<Taken>) -> bool {
        if taken == Some(Taken::OwnerDied) {
            self.recover(w);
        }
        taken.is_some()
    }

    /// The section's owner ended inside: it may not have woken the oldest, who looks for itself. WAKING stays until then, so that this is
    /// done again should this thread end, too.
    #[cold]
    fn recover<W: Words>(self, w: W) {
        if w.load(self.shared.bell(), Relaxed) == WAKING {
            if !mutant::is("recovery_does_not_wake") {
                w.wake(self.shared.bell(), ALL);
            }
            w.store(self.shared.bell(), 0, Relaxed);
        }
    }

    // ---- in the section

    /// Shows everybody who waits, with number and ticket; forgets who is gone.
    fn survey<W: Words>(self, w: W, mut visit: impl FnMut(usize, u32, u32)) {
        let used = w.load(self.shared.used(), Relaxed) as usize;
        for (index, seat) in self.seats.iter().enumerate().take(used) {
            let ticket = w.load(&seat.small[small::TICKET], Relaxed);
            if ticket == 0 {
                continue;
            }
            let who = w.load(&seat.small[small::WHO], Relaxed);
            if who != 0 && w.load(&seat.word, Relaxed) & OWNER == who {
                visit(index, who, ticket);
            } else {
                w.store(&seat.small[small::TICKET], 0, Relaxed);
            }
        }
    }

    fn credits<W: Words>(self, w: W) -> Credits {
        let both = w.load64(self.shared.credits(), Relaxed);
        Credits { horizon: (both >> 32) as u32, count: both as u32 }
    }

    fn set_credits<W: Words>(self, w: W, credits: Credits) {
        w.store64(self.shared.credits(), u64::from(credits.horizon) << 32 | u64::from(credits.count), Relaxed);
    }

    /// What the waiter with this ticket is; the oldest is going to sleep then.
    fn turn<W: Words>(self, w: W, ticket: u32) -> Turn {
        let mut ahead: Option<(usize, u32, u32)> = None;
        self.survey(w, |index, who, other| {
            if is_older(other, ticket) && ahead.is_none_or(|(_, _, nearest)| is_older(nearest, other)) {
                ahead = Some((index, who, other));
            }
        });
        if let Some((index, who, other)) = ahead {
            return Turn::Behind(index, who, other);
        }
        let credits = self.credits(w);
        if credits.count > 0 && is_older(ticket, credits.horizon) {
            if mutant::is("credit_taken_before_lock") {
                self.set_credits(w, Credits { count: credits.count - 1, ..credits });
            }
            return Turn::Now;
        }
        w.store(self.shared.bell(), ASLEEP, Relaxed);
        Turn::Oldest
    }

    // ---- outside again

    fn sleep<W: Words>(self, w: W, ticket: u32, deadline: &Deadline) -> End {
        match self.await_turn(w, ticket, deadline) {
            Ok(true) => End::Notified,
            Ok(false) => End::TimedOut,
            Err(error) => End::Interrupted(error),
        }
    }

    /// `false`: the time ran out.
    fn await_turn<W: Words>(self, w: W, ticket: u32, deadline: &Deadline) -> Result<bool> {
        loop {
            if !self.enter(w, deadline)? {
                return Ok(false);
            }
            let turn = self.turn(w, ticket);
            robust::give(w, &self.shared.section);
            let woken = match turn {
                Turn::Now => return Ok(true),
                Turn::Oldest => w.wait(self.shared.bell(), ASLEEP, deadline)?,
                Turn::Behind(index, who, other) => self.sleep_behind(w, index, who, other, deadline)?,
            };
            if woken == Woken::TimedOut {
                return Ok(false);
            }
        }
    }

    /// Sleeps until the one in this seat leaves or dies.
    fn sleep_behind<W: Words>(self, w: W, index: usize, who: u32, ticket: u32, deadline: &Deadline) -> Result<Woken> {
        let seat = &self.seats[index];
        let Some(asleep) = robust::mark_waiter(w, seat, who) else { return Ok(Woken::Look) };
        // The same thread may have left and come back meanwhile, to the end of the line. From here on its leaving is felt: who gives a
        // marked word wakes, and clears the mark if nobody was there.
        if w.load(&seat.small[small::TICKET], Relaxed) != ticket && !mutant::is("seat_taken_for_its_waiter") {
            return Ok(Woken::Look);
        }
        // Between this look and the sleep it may do so still, and another waiter mark it again: hence the watching.
        w.wait_watching(&seat.word, asleep, deadline)
    }

    /// Takes the credit, or leaves the line.
    fn stand_up<W: Words>(self, w: W, index: usize, ticket: u32, end: End, deadline: &Deadline) -> Result<()> {
        let taken = match end {
            // Where it gives up the notification is another's, too: the caller's time counts more.
            End::Notified => robust::take_before_leaving(w, &self.shared.section, deadline),
            _ => robust::take_briefly(w, &self.shared.section),
        };
        let mut notified = matches!(end, End::Notified);
        // Where somebody was stopped inside: this one's ticket goes with its seat.
        if self.is_inside(w, taken) {
            let credits = self.credits(w);
            let (mut ahead, mut others) = (0, 0);
            self.survey(w, |_, _, other| {
                ahead += u32::from(is_older(other, ticket));
                others += u32::from(other != ticket && is_older(other, credits.horizon));
            });
            // A notification that came too late for the sleep came in time for the call.
            notified |= matches!(end, End::TimedOut) && is_older(ticket, credits.horizon) && ahead < credits.count;
            // In this order: killed in between, this one is gone, and its credit is the next one's.
            w.store(&self.seats[index].small[small::TICKET], 0, Relaxed);
            let taken = u32::from(notified && !mutant::is("credit_taken_before_lock"));
            let left = credits.count.saturating_sub(taken);
            self.set_credits(w, Credits { count: left.min(others), ..credits });
            robust::give(w, &self.shared.section);
        }
        match end {
            _ if notified => Ok(()),
            End::Interrupted(error) => Err(error),
            _ => Err(timed_out()),
        }
    }

    pub fn notify<W: Words>(self, w: W, count: u32) -> Result<()> {
        // Nobody waits: whoever began to wait before this call has left its mark, or holds its lock still.
        if count == 0 || w.load(self.shared.used(), Relaxed) == 0 {
            return Ok(());
        }
        self.is_inside(w, Some(robust::take_patiently(w, &self.shared.section, "condition")?));
        let before = self.credits(w);
        let (mut waiting, mut served) = (0u32, 0u32);
        self.survey(w, |_, _, ticket| {
            waiting += 1;
            served += u32::from(is_older(ticket, before.horizon));
        });
        let there = before.count.min(served);
        let after = Credits { horizon: w.load(self.shared.next(), Relaxed), count: there.saturating_add(count).min(waiting) };
        if w.load(self.shared.bell(), Relaxed) == 0 {
            self.set_credits(w, after);
        } else if mutant::is("publish_before_wake") {
            self.set_credits(w, after);
            w.store(self.shared.bell(), 0, Relaxed);
            w.wake(self.shared.bell(), ALL);
        } else {
            w.store(self.shared.bell(), WAKING, Relaxed);
            w.wake(self.shared.bell(), ALL);
            self.set_credits(w, after);
            w.store(self.shared.bell(), 0, Relaxed);
        }
        if waiting == 0 {
            w.store(self.shared.used(), 0, Relaxed);
        }
        robust::give(w, &self.shared.section);
        Ok(())
    }
}

#[cold]
fn timed_out() -> Error {
    Error::new(Kind::TimedOut, "condition: not notified in time")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeout::Timeout;

    fn millis(millis: u64) -> Deadline {
        Deadline::new(if millis == 0 { Timeout::Try } else { Timeout::Millis(millis) })
    }

    #[test]
    fn the_lock_is_held_before_and_after() {
        let (condition, lock) = (Condition::new().unwrap(), Lock::new(true).unwrap());
        assert_eq!(condition.wait(&lock, &millis(0)).unwrap_err().kind(), Kind::NotOwner);
        for _ in 0..3 {
            lock.acquire(&millis(0)).unwrap();
        }
        for timeout in [0, 5] {
            assert_eq!(condition.wait(&lock, &millis(timeout)).unwrap_err().kind(), Kind::TimedOut);
            assert!(lock.is_held());
        }
        for _ in 0..3 {
            lock.release().unwrap();
        }
        assert!(!lock.is_held());
    }

    #[test]
    fn nobody_waits_so_nothing_is_kept() {
        let (condition, lock) = (Condition::new().unwrap(), Lock::new(false).unwrap());
        condition.notify_all().unwrap();
        lock.acquire(&millis(0)).unwrap();
        assert_eq!(condition.wait(&lock, &millis(1)).unwrap_err().kind(), Kind::TimedOut);
        condition.notify(7).unwrap();
        assert_eq!(condition.wait(&lock, &millis(1)).unwrap_err().kind(), Kind::TimedOut);
        lock.release().unwrap();
    }

    #[test]
    fn as_many_leave_as_are_notified() {
        use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        let (condition, lock) = (Condition::new().unwrap(), Lock::new(false).unwrap());
        let (waiting, back) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let alone = |body: &dyn Fn()| {
            lock.acquire(&Deadline::new(Timeout::Forever)).unwrap();
            body();
            lock.release().unwrap();
        };
        let until = |count: &AtomicUsize, wanted| {
            while count.load(SeqCst) != wanted {
                std::thread::yield_now();
            }
            // Whoever counts waits as soon as it gives the lock up.
            alone(&|| {});
        };
        std::thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| {
                    alone(&|| {
                        waiting.fetch_add(1, SeqCst);
                        condition.wait(&lock, &Deadline::new(Timeout::Forever)).unwrap();
                        back.fetch_add(1, SeqCst);
                    });
                });
            }
            until(&waiting, 5);
            condition.notify(2).unwrap();
            until(&back, 2);
            condition.notify(1).unwrap();
            until(&back, 3);
            condition.notify_all().unwrap();
            until(&back, 5);
        });
    }
}
