//! How tasks pass from the host to the workers: the algorithms over the words that they share.
//!
//! The host publishes a task by making its claim READY and appending {generation, slot} to the order of a lane. A worker goes
//! through the order from the hint on and takes the first task whose claim it can turn from READY to RUNNING. Nothing else moves: a
//! task that has ended leaves no trace here but a claim that is not READY. The words that everybody may write (hints, claims, sets,
//! bells) decide who runs what and who sleeps, never what is true: the host's own table and the workers' journals do.
//!
//! # A claim
//! | bits 32..64 | bits 28..32 | bits 12..28 | bits 0..12 |
//! |---|---|---|---|
//! | generation: low half of the task's sequence number | state | life of the process that runs it | its place |
//!
//! A claim is taken only by comparing all of it with what the order and the task's record say, both of which only the host can
//! write: whatever else lies there is "not to be had", and the host repairs it.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

use super::memory::{Claims, Tasks};
use crate::mutant;
use crate::shm::pool::{BELLS, LANES, PROCESSES_MAX, SET_WORDS};
use crate::shm::{Word, Word64, Words};

/// What the pool is doing.
pub mod phase {
    pub const OPEN: u32 = 0;
    /// Closed, and every task has ended: workers finish and leave.
    pub const LEAVING: u32 = 1;
    /// No task is started any more; workers wait to be ended.
    pub const STOPPING: u32 = 2;
}

/// Retries, and what was found lost.
pub const FIRST: usize = 0;
pub const NORMAL: usize = 1;

const READY: u64 = 0x5 << 28;
const RUNNING: u64 = 0xa << 28;
/// The claim of a slot without a task that can be taken.
const NONE: u64 = 0;
const PLACE_BITS: u32 = 12;
const _: () = assert!(PROCESSES_MAX <= 1 << PLACE_BITS);

/// A process of the pool: where it lives, and which of those that have lived there it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    pub place: u32,
    /// The low half of the life.
    pub life: u16,
}

fn ready(generation: u32) -> u64 {
    u64::from(generation) << 32 | READY
}

fn running(generation: u32, holder: Holder) -> u64 {
    u64::from(generation) << 32 | RUNNING | u64::from(holder.life) << PLACE_BITS | u64::from(holder.place)
}

/// What a claim says to the host, which knows the task's generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    Ready,
    Running(Holder),
    Other,
}

/// A task that a worker has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub slot: u32,
    pub generation: u32,
}

/// Both memories as one process sees them.
#[derive(Debug)]
pub struct Board {
    pub tasks: Tasks,
    pub claims: Claims,
}

/// The host's side.
impl Board {
    /// Lets workers have the task in `slot`, whose record is written, at position `tail` of the lane.
    #[inline]
    pub fn publish<W: Words>(&self, w: W, lane: usize, tail: u64, slot: u32, generation: u32) {
        if let Some(claim) = self.claims.claims.get(slot as usize) {
            w.store64(claim, ready(generation), Relaxed);
        }
        self.append(w, lane, tail, slot, generation);
    }

    /// Names a task once more that may have been taken already.
    #[inline]
    pub fn append<W: Words>(&self, w: W, lane: usize, tail: u64, slot: u32, generation: u32) {
        w.store64(self.tasks.order(lane, tail), u64::from(generation) << 32 | u64::from(slot), Relaxed);
        // SYNC POINT: publish (release; the acquire is in `take_from`). The record, the claim and the order are there before.
        w.store64(&self.tasks.head.tails[lane], tail + 1, Release);
    }

    /// Nothing before `head` can be taken any more.
    pub fn set_head<W: Words>(&self, w: W, lane: usize, head: u64) {
        w.store64(&self.tasks.head.heads[lane], head, Release);
    }

    /// The slot that the order names at a position, as the host wrote it.
    pub fn ordered<W: Words>(&self, w: W, lane: usize, position: u64) -> Taken {
        Taken::from_order(w.load64(self.tasks.order(lane, position), Relaxed))
    }

    /// Makes somebody look for work, after [`Board::publish`].
    #[inline]
    pub fn alert<W: Words>(&self, w: W) {
        // The order of what follows and what a worker does before it sleeps: one of the two sees the other.
        w.fence();
        if self.is_empty(w, &self.claims.head.searching) {
            self.wake_one(w);
        }
    }

    pub fn claim<W: Words>(&self, w: W, slot: u32, generation: u32) -> Claim {
        let Some(claim) = self.claims.claims.get(slot as usize) else { return Claim::Other };
        let value = w.load64(claim, Acquire);
        if value == ready(generation) {
            Claim::Ready
        } else if value >> 28 == running(generation, Holder { place: 0, life: 0 }) >> 28 {
            let place = value & ((1 << PLACE_BITS) - 1);
            Claim::Running(Holder { place: place as u32, life: (value >> PLACE_BITS) as u16 })
        } else {
            Claim::Other
        }
    }

    /// Takes a task back; `false`: a worker has it (or somebody wrote over its claim).
    pub fn withdraw<W: Words>(&self, w: W, slot: u32, generation: u32) -> bool {
        let claim = self.claims.claims.get(slot as usize);
        claim.is_some_and(|claim| w.cas64(claim, ready(generation), NONE, AcqRel).is_ok())
    }

    /// Rewrites what only helps: it may have been written over.
    pub fn repair<W: Words>(&self, w: W, heads: [u64; LANES]) {
        for (hint, head) in self.claims.head.hints.iter().zip(heads) {
            w.store64(hint, head, Relaxed);
        }
        for word in self.claims.head.searching.iter().chain(&self.claims.head.idle) {
            w.store64(word, 0, Relaxed);
        }
        // Whoever searches goes on to sleep, whoever sleeps wakes up: all enter the sets anew.
        self.ring_all(w);
    }
}

/// Both sides.
impl Board {
    /// How many places there are.
    pub fn places<W: Words>(&self, w: W) -> usize {
        (w.load(&self.tasks.head.places, Relaxed) as usize).min(self.claims.bells.count())
    }

    /// Says so. No order goes with it: whoever uses what belongs to a place has it by the message that names the place, or by a fork.
    pub fn set_places<W: Words>(&self, w: W, places: usize) {
        w.store(&self.tasks.head.places, places as u32, Relaxed);
    }

    fn is_empty<W: Words>(&self, w: W, set: &[Word64; SET_WORDS]) -> bool {
        set[..self.set_words(w)].iter().all(|word| w.load64(word, SeqCst) == 0)
    }

    fn set_words<W: Words>(&self, w: W) -> usize {
        self.places(w).div_ceil(64)
    }

    /// Wakes one process that sleeps, if any does.
    pub fn wake_one<W: Words>(&self, w: W) {
        for (index, word) in self.claims.head.idle[..self.set_words(w)].iter().enumerate() {
            let mut bits = w.load64(word, SeqCst);
            while bits != 0 {
                let bit = bits.trailing_zeros();
                match w.cas64(word, bits, bits & !(1 << bit), SeqCst) {
                    // Whoever takes the bit out rings: nobody is rung for twice.
                    Ok(_) if self.ring(w, index as u32 * 64 + bit) => return,
                    Ok(_) => bits &= !(1 << bit),
                    Err(now) => bits = now,
                }
            }
        }
    }

    /// Wakes the process in a place, if it sleeps.
    pub fn ring<W: Words>(&self, w: W, place: u32) -> bool {
        match self.claims.bells.get(place as usize) {
            Some(bell) => {
                ring(w, &bell.bell);
                true
            }
            None => false,
        }
    }

    /// The process in a place is dead: it neither sleeps nor searches.
    pub fn forget_place<W: Words>(&self, w: W, place: u32) {
        remove(w, &self.claims.head.searching, place);
        remove(w, &self.claims.head.idle, place);
    }

    pub fn ring_all<W: Words>(&self, w: W) {
        for place in 0..self.places(w) {
            self.ring(w, place as u32);
        }
    }

    /// Wakes the host's thread that waits with this bell.
    pub fn ring_host<W: Words>(&self, w: W, bell: usize) {
        if bell < BELLS {
            ring(w, &self.claims.head.bells[bell]);
        }
    }

    /// Wakes the host's threads whose bells have a bit in `bells`.
    pub fn ring_hosts<W: Words>(&self, w: W, bells: u64) {
        for bell in 0..BELLS {
            if bells & 1 << bell != 0 {
                self.ring_host(w, bell);
            }
        }
    }

    pub fn phase<W: Words>(&self, w: W) -> u32 {
        w.load(&self.tasks.head.phase, Acquire)
    }
}

/// A worker's side.
impl Board {
    /// Takes the next task.
    #[inline]
    pub fn take<W: Words>(&self, w: W, holder: Holder) -> Option<Taken> {
        (0..LANES).find_map(|lane| self.take_from(w, holder, lane, false))
    }

    /// [`Board::take`] without believing the hints, before a process sleeps.
    fn take_anywhere<W: Words>(&self, w: W, holder: Holder) -> Option<Taken> {
        (0..LANES).find_map(|lane| self.take_from(w, holder, lane, true))
    }

    #[inline]
    fn take_from<W: Words>(&self, w: W, holder: Holder, lane: usize, doubt: bool) -> Option<Taken> {
        let (shared, hint) = (&self.tasks.head, &self.claims.head.hints[lane]);
        // The head before the tail: it is never beyond a tail that is read later.
        let head = w.load64(&shared.heads[lane], Acquire);
        // SYNC POINT: publish (acquire).
        let tail = w.load64(&shared.tails[lane], Acquire);
        let hinted = w.load64(hint, Relaxed);
        let begin = if doubt || tail.wrapping_sub(hinted) > tail - head { head } else { hinted };
        for position in begin..tail {
            let taken = Taken::from_order(w.load64(self.tasks.order(lane, position), Relaxed));
            if self.claim_for(w, holder, taken) {
                w.store64(hint, position + 1, Relaxed);
                return Some(taken);
            }
        }
        if hinted != tail {
            w.store64(hint, tail, Relaxed);
        }
        None
    }

    #[inline]
    fn claim_for<W: Words>(&self, w: W, holder: Holder, task: Taken) -> bool {
        let Some(claim) = self.claims.claims.get(task.slot as usize) else { return false };
        let expected = ready(task.generation);
        // Looked at first: most of what is met was taken, and a failed exchange takes the line from whoever has it.
        w.load64(claim, Relaxed) == expected && w.cas64(claim, expected, running(task.generation, holder), AcqRel).is_ok()
    }

    /// From now on what is submitted need not wake anybody: this process looks.
    pub fn begin_search<W: Words>(&self, w: W, place: u32) {
        insert(w, &self.claims.head.searching, place);
    }

    /// The search has found something. Somebody else goes on with it if there is more: whoever submitted that counted on this search.
    pub fn end_search<W: Words>(&self, w: W, place: u32) {
        remove(w, &self.claims.head.searching, place);
        self.pass_on(w);
    }

    /// Somebody else looks, if there is more.
    fn pass_on<W: Words>(&self, w: W) {
        w.fence();
        let more = (0..LANES).any(|lane| {
            let hint = w.load64(&self.claims.head.hints[lane], Relaxed);
            w.load64(&self.tasks.head.tails[lane], Relaxed) != hint
        });
        if more && self.is_empty(w, &self.claims.head.searching) && !mutant::is("search_not_passed_on") {
            self.wake_one(w);
        }
    }

    /// The search has found nothing: announces that this process will sleep, and looks once more. `Err` is what its bell says now.
    pub fn prepare_to_sleep<W: Words>(&self, w: W, holder: Holder) -> Result<Taken, u32> {
        let place = holder.place;
        let heard = self.claims.bells.get(place as usize).map_or(0, |bell| w.load(&bell.bell, Acquire));
        // At every moment in one of the two sets: whoever submits sees one or the other.
        insert(w, &self.claims.head.idle, place);
        remove(w, &self.claims.head.searching, place);
        w.fence();
        if mutant::is("sleeper_does_not_look_again") {
            return Err(heard);
        }
        match self.take_anywhere(w, holder) {
            Some(taken) => {
                remove(w, &self.claims.head.idle, place);
                // Until a moment ago it was searching, and whoever submitted counted on that.
                self.pass_on(w);
                Ok(taken)
            }
            None => Err(heard),
        }
    }

    /// Awake again for another reason than a bell.
    pub fn cancel_sleep<W: Words>(&self, w: W, place: u32) {
        remove(w, &self.claims.head.idle, place);
    }
}

impl Taken {
    fn from_order(order: u64) -> Taken {
        Taken { slot: order as u32, generation: (order >> 32) as u32 }
    }
}

/// Changes a bell and wakes whoever sleeps on it.
fn ring<W: Words>(w: W, bell: &Word) {
    let mut seen = w.load(bell, Relaxed);
    while let Err(now) = w.cas(bell, seen, seen.wrapping_add(1), SeqCst) {
        seen = now;
    }
    w.wake(bell, u32::MAX);
}

fn insert<W: Words>(w: W, set: &[Word64; SET_WORDS], place: u32) {
    change(w, set, place, |bits, bit| bits | bit);
}

fn remove<W: Words>(w: W, set: &[Word64; SET_WORDS], place: u32) {
    change(w, set, place, |bits, bit| bits & !bit);
}

fn change<W: Words>(w: W, set: &[Word64; SET_WORDS], place: u32, new: impl Fn(u64, u64) -> u64) {
    let Some(word) = set.get(place as usize / 64) else { return };
    let bit = 1 << (place % 64);
    let mut seen = w.load64(word, Relaxed);
    while let Err(now) = w.cas64(word, seen, new(seen, bit), SeqCst) {
        seen = now;
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::memory::{Extent, Files, Sizes};
    use super::*;
    use crate::sys::memory::Access;
    use crate::sys::thread::Thread;

    fn holder(place: u32) -> Holder {
        Holder { place, life: 0xf003 }
    }

    fn board() -> (Files, Board) {
        let (files, claims) = Files::create(Sizes { slots: 8, places: 70, arena: 4096 }, 3).unwrap();
        let mut orders = [0, 1].map(|lane| Extent::order(&files.sizes, lane));
        for order in &mut orders {
            order.reach(&files.tasks, 64).unwrap();
        }
        let tasks = Tasks::map(files.tasks.as_fd(), &files.sizes, Access::ReadWrite).unwrap();
        let claims = Claims::map(claims.as_fd(), &files.sizes).unwrap();
        let board = Board { tasks, claims };
        board.set_places(Thread::current(), 3);
        (files, board)
    }

    #[test]
    fn tasks_are_taken_in_order_and_once_and_the_first_lane_first() {
        let (w, (_files, board)) = (Thread::current(), board());
        board.publish(w, NORMAL, 0, 4, 40);
        board.publish(w, NORMAL, 1, 5, 50);
        board.publish(w, FIRST, 0, 6, 60);
        let taken: Vec<_> = std::iter::from_fn(|| board.take(w, holder(1))).map(|taken| (taken.slot, taken.generation)).collect();
        assert_eq!(taken, [(6, 60), (4, 40), (5, 50)]);
        assert_eq!(board.claim(w, 4, 40), Claim::Running(holder(1)));
        assert_eq!(board.claim(w, 4, 41), Claim::Other);
    }

    #[test]
    fn a_hint_that_was_written_over_hides_nothing_from_who_will_sleep() {
        let (w, (_files, board)) = (Thread::current(), board());
        board.publish(w, NORMAL, 0, 4, 40);
        board.publish(w, NORMAL, 1, 5, 50);
        for garbage in [u64::MAX, 77] {
            w.store64(&board.claims.head.hints[NORMAL], garbage, Relaxed);
            assert!(board.take(w, holder(0)).is_some());
        }
        board.publish(w, NORMAL, 2, 6, 60);
        w.store64(&board.claims.head.hints[NORMAL], 3, Relaxed);
        assert_eq!(board.take(w, holder(0)), None);
        assert_eq!(board.prepare_to_sleep(w, holder(0)).unwrap().slot, 6);
        assert!(board.prepare_to_sleep(w, holder(0)).is_err());
    }

    #[test]
    fn a_claim_that_was_written_over_is_not_to_be_had() {
        let (w, (_files, board)) = (Thread::current(), board());
        board.publish(w, NORMAL, 0, 4, 40);
        w.store64(board.claims.claims.get(4).unwrap(), 0x4141_4141_4141_4141, Relaxed);
        assert_eq!(board.take(w, holder(0)), None);
        assert_eq!(board.claim(w, 4, 40), Claim::Other);
        assert!(!board.withdraw(w, 4, 40));
    }

    #[test]
    fn who_submits_wakes_a_sleeper_unless_somebody_searches() {
        let (w, (_files, board)) = (Thread::current(), board());
        let bell = |place: usize| w.load(&board.claims.bells.get(place).unwrap().bell, Relaxed);
        board.begin_search(w, 0);
        board.begin_search(w, 1);
        assert!(board.prepare_to_sleep(w, holder(1)).is_err());
        board.publish(w, NORMAL, 0, 4, 40);
        board.alert(w);
        assert_eq!(bell(1), 0);
        // The searcher finds it; there is no more, so the sleeper sleeps on.
        assert!(board.take(w, holder(0)).is_some());
        board.end_search(w, 0);
        assert_eq!(bell(1), 0);
        board.publish(w, NORMAL, 1, 5, 50);
        board.alert(w);
        assert_eq!(bell(1), 1);
        board.publish(w, NORMAL, 2, 6, 60);
        board.alert(w);
        assert_eq!(bell(1), 1);
    }
}
