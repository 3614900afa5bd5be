//! A barrier.
//!
//! There are as many **seats** as parties: robust words, taken like tracked permits ([`super::tracked`]). A party takes a seat, and
//! arrives by writing the generation of the round into it. A round is complete when all seats have arrived in it; who sees that
//! completes it. Everything else is derived from the seats, so a death leaves nothing behind that would have to be undone: a seat that
//! has arrived and whose owner is not the one who arrived, belongs to a party that is gone, and breaks the round. The numbers of the
//! seats are the indices that the parties get.
//!
//! The state is {generation, acting, broken}. It changes in the section only; whoever waits sleeps on it, or behind who does:
//!
//! - one of those who wait, the leader, sleeps on the state and looks at all seats ten times a second, for a death wakes nobody;
//! - the others sleep on the leader word. Who changes the state wakes them all; whom that misses, the leader that leaves wakes.
//!
//! A round is completed in two steps: its generation is noted as completed, then the state goes on to the next. So a party that comes late
//! to look knows whether its round was completed or reset; and between the two whoever has the section next does the second step.
//!
//! Who arrives for the next round while some are still leaving takes a seat that was left; where there is none, because more threads
//! than parties come, it waits for one.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::ALL;
use super::robust::{self, OWNER, Taken};
use super::tracked::Permits;
use crate::error::{Error, Kind, Result};
use crate::mutant;
use crate::shm::layout::BarrierShared;
use crate::shm::{HandedOn, Naming, Object, Objects, RobustCell, Woken, Words};
use crate::sys::Deadline;
use crate::sys::thread::Thread;
use crate::timeout::Timeout;

/// Each is a cache line.
pub const PARTIES_MAX: u32 = 16_384;

const BROKEN: u32 = 1;
/// All have come; one of them runs the action.
const ACTING: u32 = 2;
const GENERATION: u32 = 4;

/// Where a seat keeps its party.
mod small {
    /// The number of the thread that has arrived.
    pub const WHO: usize = 0;
    /// The generation that it has arrived in; odd, so that 0 is none.
    pub const ARRIVED: usize = 1;
}

fn generation(state: u32) -> u32 {
    state & !(GENERATION - 1) | 1
}

#[derive(Clone, Debug)]
pub struct Barrier {
    shared: Object<BarrierShared>,
    seats: Objects<RobustCell>,
}

impl Barrier {
    pub fn new(parties: u32) -> Result<Barrier> {
        Barrier::named(&Naming::None, parties)
    }

    /// With a name; one that exists is opened as it is.
    pub fn named(naming: &Naming, parties: u32) -> Result<Barrier> {
        if parties == 0 || parties > PARTIES_MAX {
            return Err(Error::invalid(format!("parties: {parties} is not in 1 to {PARTIES_MAX}")));
        }
        let seats = parties as usize * size_of::<RobustCell>();
        Barrier::make(naming, seats, |shared| Thread::current().store(shared.parties(), parties, Relaxed))
    }

    fn hall(&self) -> Hall<'_> {
        Hall { shared: &self.shared, seats: &self.seats }
    }

    // What follows keeps the memory: whoever is released may free the handle before the call that released it is through.

    /// Answers the party's index. `action`, if there is one, runs in the party that came last.
    pub fn wait(&self, deadline: &Deadline, action: Option<&mut dyn FnMut()>) -> Result<u32> {
        let _kept = self.shared.clone();
        let mut action = action.map(|action| {
            || {
                action();
                // It may have forked, and this may be the child: there the thread has another number, which the wait goes on with.
                Thread::current();
            }
        });
        self.hall().wait(Thread::current(), deadline, action.as_mut().map(|action| action as &mut dyn FnMut()))
    }

    pub fn reset(&self) -> Result<()> {
        let _kept = self.shared.clone();
        self.hall().reset(Thread::current())
    }

    pub fn abort(&self) -> Result<()> {
        let _kept = self.shared.clone();
        self.hall().abort(Thread::current())
    }

    pub fn parties(&self) -> u32 {
        self.seats.len() as u32
    }

    pub fn waiting(&self) -> u32 {
        self.hall().waiting(Thread::current())
    }

    /// Also if a party died and nobody has seen that yet.
    pub fn is_broken(&self) -> bool {
        self.hall().is_broken(Thread::current())
    }
}

impl HandedOn for Barrier {
    type Shared = BarrierShared;

    fn of(shared: Object<BarrierShared>) -> Result<Barrier> {
        let parties = Thread::current().load(shared.parties(), Relaxed);
        match (parties, shared.tail(parties as usize)) {
            (1..=PARTIES_MAX, Ok(seats)) => Ok(Barrier { shared, seats }),
            _ => Err(Error::new(Kind::Corrupt, "barrier: its shared memory was written over")),
        }
    }

    fn object(&self) -> &Object<BarrierShared> {
        &self.shared
    }
}

/// Who meets.
#[derive(Clone, Copy)]
pub struct Hall<'a> {
    pub shared: &'a BarrierShared,
    pub seats: &'a [RobustCell],
}

/// What a look into the section says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// The state to sleep on.
    Wait(u32),
    Complete,
    Broken,
}

/// How many have arrived, and whether one of them is gone.
struct Attendance {
    arrived: usize,
    gone: bool,
}

impl Hall<'_> {
    fn permits(&self) -> Permits<'_> {
        Permits { cells: self.seats, bell: self.shared.bell(), leader: &self.shared.queue }
    }

    pub fn wait<W: Words>(self, w: W, deadline: &Deadline, action: Option<&mut dyn FnMut()>) -> Result<u32> {
        // A barrier that is broken has no room to wait for.
        if w.load(self.shared.state(), Acquire) & BROKEN != 0 {
            return Err(broken());
        }
        let seat = match self.permits().acquire(w, deadline, || ()) {
            Ok(seat) => seat,
            Err(error) if error.kind() == Kind::TimedOut => return self.give_up_outside(w),
            Err(error) => return Err(error),
        };
        // Whoever sat here before is gone, whatever it left.
        w.store(&self.seats[seat].small[small::WHO], 0, Release);
        let result = self.wait_seated(w, seat, deadline, action);
        let left = self.permits().release_one(w, seat);
        result?;
        left.map(|()| seat as u32).map_err(|_| Error::new(Kind::Corrupt, "barrier: its shared memory was written over"))
    }

    /// It came, and had no time to wait until a seat was free.
    fn give_up_outside<W: Words>(self, w: W) -> Result<u32> {
        if self.enter_briefly(w) {
            self.break_up(w);
            self.leave(w);
        }
        Err(timed_out())
    }

    fn wait_seated<W: Words>(self, w: W, seat: usize, deadline: &Deadline, action: Option<&mut dyn FnMut()>) -> Result<()> {
        let cell = &self.seats[seat];
        if !self.enter(w, deadline)? {
            // Somebody was stopped inside. As one that has arrived and is gone this party breaks the round.
            w.store(&cell.small[small::ARRIVED], generation(w.load(self.shared.state(), Relaxed)), Release);
            return Err(timed_out());
        }
        let state = w.load(self.shared.state(), Relaxed);
        let mine = generation(state);
        let others = self.attendance(w, mine);
        if state & BROKEN != 0 || others.gone {
            self.break_up(w);
            self.leave(w);
            return Err(broken());
        }
        w.store(&cell.small[small::WHO], w.tid(), Relaxed);
        // SYNC POINT: seat (release; the acquire is in `is_here`).
        w.store(&cell.small[small::ARRIVED], mine, Release);
        if others.arrived + 1 == self.seats.len() {
            return self.come_last(w, mine, action);
        }
        if deadline.is_try() {
            // Tried once: that is a party that does not come.
            self.break_up(w);
            self.leave(w);
            return Err(timed_out());
        }
        self.leave(w);
        match self.sleep(w, mine, deadline) {
            Ok(true) => self.outcome(w, mine),
            Ok(false) => self.depart(w, seat, mine, timed_out()),
            Err(interrupted) => self.depart(w, seat, mine, interrupted),
        }
    }

    /// In the section: all are there.
    fn come_last<W: Words>(self, w: W, mine: u32, action: Option<&mut dyn FnMut()>) -> Result<()> {
        let Some(action) = action else {
            self.complete(w, mine);
            self.leave(w);
            return Ok(());
        };
        let state = w.load(self.shared.state(), Relaxed);
        w.store(self.shared.state(), state | ACTING, Relaxed);
        // Those who sleep on the state see by themselves what it is.
        self.leave(w);
        action();
        self.enter_patiently(w)?;
        let goes_on = matches!(self.look(w, mine), Look::Wait(_));
        if goes_on {
            self.complete(w, mine);
        }
        self.leave(w);
        if goes_on { Ok(()) } else { Err(broken()) }
    }

    // ---- the section

    /// `false`: the time ran out.
    fn enter<W: Words>(self, w: W, deadline: &Deadline) -> Result<bool> {
        Ok(self.is_inside(w, robust::take(w, &self.shared.section, deadline)?))
    }

    fn enter_briefly<W: Words>(self, w: W) -> bool {
        self.is_inside(w, robust::take_briefly(w, &self.shared.section))
    }

    fn enter_patiently<W: Words>(self, w: W) -> Result<()> {
        self.is_inside(w, Some(robust::take_patiently(w, &self.shared.section, "barrier")?));
        Ok(())
    }

    fn is_inside<W: Words>(self, w: W, taken: Option<Taken>) -> bool {
        if taken == Some(Taken::OwnerDied) {
            self.recover(w);
        }
        taken.is_some()
    }

    fn leave<W: Words>(self, w: W) {
        robust::give(w, &self.shared.section);
    }

    /// The section's owner ended inside: a round that was noted as completed goes on, and all look.
    #[cold]
    fn recover<W: Words>(self, w: W) {
        let state = w.load(self.shared.state(), Relaxed);
        if w.load(self.shared.completed(), Relaxed) == generation(state) && !mutant::is("round_not_finished") {
            self.change(w, next(state));
        } else {
            self.change(w, state);
        }
    }

    /// Puts the state to what it is to be, and wakes everybody who waits.
    fn change<W: Words>(self, w: W, state: u32) {
        // SYNC POINT: barrier (release; the acquire is in `outcome`).
        w.store(self.shared.state(), state, Release);
        w.wake(self.shared.state(), ALL);
        w.wake(&self.shared.leader.word, ALL);
    }

    fn complete<W: Words>(self, w: W, mine: u32) {
        w.store(self.shared.completed(), mine, Release);
        self.change(w, next(w.load(self.shared.state(), Relaxed)));
    }

    fn break_up<W: Words>(self, w: W) {
        let state = w.load(self.shared.state(), Relaxed);
        if state & BROKEN == 0 {
            self.change(w, state & !ACTING | BROKEN);
        }
    }

    fn attendance<W: Words>(self, w: W, mine: u32) -> Attendance {
        let mut attendance = Attendance { arrived: 0, gone: false };
        for is_here in self.seats.iter().filter_map(|seat| is_here(w, seat, mine)) {
            attendance.arrived += usize::from(is_here);
            attendance.gone |= !is_here;
        }
        attendance
    }

    /// Outside of the section: the state, and who had arrived while it was that. `None`: it changes all the time.
    fn overview<W: Words>(self, w: W) -> Option<(u32, Attendance)> {
        let mut state = w.load(self.shared.state(), Acquire);
        for _ in 0..1000 {
            let attendance = self.attendance(w, generation(state));
            // Where the round was over by then, its parties have left and are not gone.
            let now = w.load(self.shared.state(), Acquire);
            if now == state {
                return Some((state, attendance));
            }
            state = now;
        }
        None
    }

    /// In the section: what has become of the round `mine`. Breaks it if a party is gone.
    fn look<W: Words>(self, w: W, mine: u32) -> Look {
        let state = w.load(self.shared.state(), Relaxed);
        if generation(state) != mine {
            return if w.load(self.shared.completed(), Relaxed) == mine { Look::Complete } else { Look::Broken };
        }
        if state & BROKEN == 0 && self.attendance(w, mine).gone {
            self.break_up(w);
        }
        let state = w.load(self.shared.state(), Relaxed);
        if state & BROKEN != 0 { Look::Broken } else { Look::Wait(state) }
    }

    // ---- outside

    /// The round is over.
    fn outcome<W: Words>(self, w: W, mine: u32) -> Result<()> {
        // No later round can be completed while this party has its seat.
        if w.load(self.shared.completed(), Acquire) == mine { Ok(()) } else { Err(broken()) }
    }

    fn is_over<W: Words>(self, w: W, mine: u32) -> bool {
        let state = w.load(self.shared.state(), Acquire);
        state & BROKEN != 0 || generation(state) != mine
    }

    /// `false`: the time ran out.
    fn sleep<W: Words>(self, w: W, mine: u32, deadline: &Deadline) -> Result<bool> {
        for turn in 0..W::SPINS {
            if self.is_over(w, mine) {
                return Ok(true);
            }
            w.relax(turn);
        }
        if robust::hold_unless(w, &self.shared.leader, deadline, || self.is_over(w, mine))?.is_some() {
            let result = self.lead(w, mine, deadline);
            robust::release(w, &self.shared.leader);
            return result;
        }
        Ok(self.is_over(w, mine))
    }

    fn lead<W: Words>(self, w: W, mine: u32, deadline: &Deadline) -> Result<bool> {
        loop {
            if !self.enter(w, deadline)? {
                return Ok(false);
            }
            let look = self.look(w, mine);
            self.leave(w);
            let Look::Wait(state) = look else { return Ok(true) };
            let woken = if mutant::is("leader_does_not_look") {
                w.wait(self.shared.state(), state, deadline)?
            } else {
                w.wait_watching(self.shared.state(), state, deadline)?
            };
            if woken == Woken::TimedOut {
                return Ok(false);
            }
        }
    }

    /// Before the round is over: who runs out of time breaks it; who is interrupted was never there.
    fn depart<W: Words>(self, w: W, seat: usize, mine: u32, reason: Error) -> Result<()> {
        let interrupted = reason.kind() == Kind::Interrupted;
        // Where somebody was stopped inside: the seat that is given up breaks the round. That is what a timeout does, anyway; who was
        // interrupted waits for longer.
        let entered = if interrupted { self.enter_patiently(w).is_ok() } else { self.enter_briefly(w) };
        if !entered {
            return if w.load(self.shared.completed(), Acquire) == mine { Ok(()) } else { Err(reason) };
        }
        let state = match self.look(w, mine) {
            Look::Wait(state) => state,
            over => {
                self.leave(w);
                return if over == Look::Complete { Ok(()) } else { Err(broken()) };
            }
        };
        if interrupted && state & ACTING != 0 {
            // All have come, this one too: the round ends with the action.
            self.leave(w);
            return self.await_action(w, mine);
        }
        if interrupted {
            w.store(&self.seats[seat].small[small::ARRIVED], 0, Relaxed);
        } else {
            self.break_up(w);
        }
        self.leave(w);
        Err(reason)
    }

    #[cold]
    fn await_action<W: Words>(self, w: W, mine: u32) -> Result<()> {
        loop {
            match self.sleep(w, mine, &Deadline::new(Timeout::Forever)) {
                Ok(_) => return self.outcome(w, mine),
                Err(error) if error.kind() == Kind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub fn reset<W: Words>(self, w: W) -> Result<()> {
        self.enter_patiently(w)?;
        let state = w.load(self.shared.state(), Relaxed);
        self.change(w, next(state));
        self.leave(w);
        Ok(())
    }

    pub fn abort<W: Words>(self, w: W) -> Result<()> {
        self.enter_patiently(w)?;
        self.break_up(w);
        self.leave(w);
        Ok(())
    }

    pub fn waiting<W: Words>(self, w: W) -> u32 {
        let arrived = |(state, attendance): (u32, Attendance)| if state & BROKEN != 0 { 0 } else { attendance.arrived as u32 };
        self.overview(w).map_or(0, arrived)
    }

    pub fn is_broken<W: Words>(self, w: W) -> bool {
        self.overview(w).is_some_and(|(state, attendance)| state & BROKEN != 0 || attendance.gone)
    }
}

/// Whether the party of a seat that has come in the round `mine` is there; `None`: nobody has come to this seat.
fn is_here<W: Words>(w: W, seat: &RobustCell, mine: u32) -> Option<bool> {
    let [arrived, who] = [&seat.small[small::ARRIVED], &seat.small[small::WHO]];
    loop {
        // SYNC POINT: seat (acquire, all of it: what is loaded after it is not older).
        if w.load(arrived, Acquire) != mine {
            return None;
        }
        let party = w.load(who, Acquire);
        if party != 0 && w.load(&seat.word, Acquire) & OWNER == party {
            return Some(true);
        }
        // Who is interrupted takes its arrival back and leaves, and another may have taken the seat and come.
        if w.load(arrived, Acquire) == mine && w.load(who, Acquire) == party {
            return Some(false);
        }
    }
}

/// The state of the round after this one.
fn next(state: u32) -> u32 {
    (state & !(GENERATION - 1)).wrapping_add(GENERATION)
}

#[cold]
fn timed_out() -> Error {
    Error::new(Kind::TimedOut, "barrier: not all parties came in time; it is broken now")
}

#[cold]
fn broken() -> Error {
    Error::new(Kind::Broken, "barrier: broken: a party ran out of time or died, or the barrier was aborted or reset")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    fn forever() -> Deadline {
        Deadline::new(Timeout::Forever)
    }

    #[test]
    fn each_index_comes_once_a_round_and_the_action_too() {
        const PARTIES: u32 = 4;
        const ROUNDS: u32 = 50;
        let barrier = Barrier::new(PARTIES).unwrap();
        let (sum, acted) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..PARTIES {
                scope.spawn(|| {
                    for round in 1..=ROUNDS {
                        let mut action = || {
                            acted.fetch_add(1, SeqCst);
                        };
                        sum.fetch_add(barrier.wait(&forever(), Some(&mut action)).unwrap(), SeqCst);
                        assert!(acted.load(SeqCst) >= round);
                    }
                });
            }
        });
        assert_eq!(acted.load(SeqCst), ROUNDS);
        assert_eq!(sum.load(SeqCst), ROUNDS * (0..PARTIES).sum::<u32>());
        assert_eq!((barrier.waiting(), barrier.is_broken()), (0, false));
    }

    #[test]
    fn a_timeout_breaks_it_until_it_is_reset() {
        let barrier = Barrier::new(2).unwrap();
        assert_eq!(barrier.wait(&Deadline::new(Timeout::Millis(5)), None).unwrap_err().kind(), Kind::TimedOut);
        assert!(barrier.is_broken());
        assert_eq!(barrier.wait(&forever(), None).unwrap_err().kind(), Kind::Broken);
        barrier.reset().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| barrier.wait(&forever(), None).unwrap());
            barrier.wait(&forever(), None).unwrap();
        });
        barrier.abort().unwrap();
        assert!(barrier.is_broken());
    }

    #[test]
    fn one_party_waits_for_nobody() {
        let barrier = Barrier::new(1).unwrap();
        assert_eq!(barrier.wait(&Deadline::new(Timeout::Try), None).unwrap(), 0);
        assert_eq!(Barrier::new(0).unwrap_err().kind(), Kind::Invalid);
        assert_eq!(Barrier::new(PARTIES_MAX + 1).unwrap_err().kind(), Kind::Invalid);
    }
}
