//! Processes that work on one object, and a runner that kills one of them after the other and hires others in their place.

use std::ops::Range;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

use crate::support::arena::Plain;
use crate::support::child::{Child, End};
use crate::support::clock;
use crate::support::random::Random;

/// Room for the longest message.
pub const BUFFER: usize = 4096;

/// What one place of the crew reports, whoever works there; it outlives them.
#[repr(C)]
pub struct Slot {
    /// Operations that returned.
    pub progress: AtomicU64,
    /// Inside an operation that would change something; how much.
    pub busy: AtomicU32,
    /// The first status that must not be, or [`ODD`].
    pub fault: AtomicI32,
    /// Sums of what was given and taken, or how often a death was told.
    pub sum: AtomicU64,
    /// Where messages arrive: it shows what a dead one was taking.
    pub buffer: [AtomicU8; BUFFER],
}

/// A fault that is no status: something seen that must never be.
pub const ODD: i32 = 1000;

// SAFETY: atomics only.
unsafe impl Plain for Slot {}

impl Slot {
    pub fn reset(&self) {
        for counter in [&self.progress, &self.sum] {
            counter.store(0, SeqCst);
        }
        self.busy.store(0, SeqCst);
        self.fault.store(0, SeqCst);
    }

    /// One more operation returned.
    pub fn done(&self) {
        self.progress.fetch_add(1, SeqCst);
    }

    /// Says what must not be, and leaves.
    pub fn fail(&self, fault: i32) -> ! {
        self.fault.store(fault, SeqCst);
        // SAFETY: leaves without running what the parent registered for its exit.
        unsafe { libc::_exit(3) }
    }
}

pub struct Crew<'a> {
    members: Vec<Child>,
    slots: &'static [Slot],
    work: &'a dyn Fn(usize),
    pub kills: usize,
}

impl<'a> Crew<'a> {
    /// As many as there are `slots`; each runs `work` with its number and ends when that returns.
    pub fn hire(slots: &'static [Slot], work: &'a dyn Fn(usize)) -> Crew<'a> {
        slots.iter().for_each(Slot::reset);
        let members = (0..slots.len()).map(|number| Child::fork(|| work(number))).collect();
        Crew { members, slots, work, kills: 0 }
    }

    /// Kills one at random every 0.5 to 3.5 ms and hires another, for `duration`; calls `died` for each before its slot is taken over.
    /// In between the crew is left alone until each of them has got something done.
    pub fn harass(&mut self, duration: Duration, random: &mut Random, mut died: impl FnMut(usize)) -> Result<(), String> {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            for _ in 0..20 {
                clock::pause(500 + random.below(3000));
                let number = random.below(self.members.len() as u64) as usize;
                let ended = self.members[number].kill();
                if ended != End::Signal(libc::SIGKILL) {
                    return Err(self.fault_of(number, ended));
                }
                died(number);
                self.kills += 1;
                let work = self.work;
                self.slots[number].busy.store(0, SeqCst);
                self.members[number] = Child::fork(|| work(number));
            }
            self.leave_alone()?;
        }
        Ok(())
    }

    /// Nobody is killed until each has got something done.
    fn leave_alone(&mut self) -> Result<(), String> {
        let before: Vec<u64> = self.slots.iter().map(|slot| slot.progress.load(SeqCst)).collect();
        let moved = |number: usize| self.slots[number].progress.load(SeqCst) != before[number];
        if clock::until(clock::patience(), || (0..before.len()).all(moved)) {
            return Ok(());
        }
        for number in 0..self.members.len() {
            if let Some(end) = self.members[number].try_reap() {
                return Err(self.fault_of(number, end));
            }
        }
        let stuck: Vec<usize> = (0..before.len()).filter(|&number| !moved(number)).collect();
        Err(format!("stall: {stuck:?} get nothing done although nobody is killed any more"))
    }

    /// Waits until those have left of themselves.
    pub fn left(&mut self, numbers: Range<usize>, why: &str) -> Result<(), String> {
        let members = &mut self.members[numbers.clone()];
        clock::until(clock::patience(), || members.iter_mut().all(|member| !member.is_running()));
        for number in numbers {
            match self.members[number].try_reap() {
                Some(End::Code(0)) => {}
                Some(end) => return Err(self.fault_of(number, end)),
                None => return Err(format!("stall: {number} does not leave although {why}")),
            }
        }
        Ok(())
    }

    /// Those of the crew.
    pub fn members(&mut self, numbers: Range<usize>) -> Vec<&mut Child> {
        self.members[numbers].iter_mut().collect()
    }

    fn fault_of(&self, number: usize, end: End) -> String {
        match self.slots[number].fault.load(SeqCst) {
            0 => format!("{number} ended of itself: {end:?}"),
            ODD => format!("{number} saw what must never be"),
            status => format!("{number} got status {status}"),
        }
    }
}
