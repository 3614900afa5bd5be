//! The simulated thread's access to words.

use std::sync::MutexGuard;
use std::sync::atomic::Ordering::{self, Relaxed};

use super::baton::Baton;
use super::schedule::Point;
use super::world::{Awake, World};
use crate::error::{Error, Kind, Result};
use crate::shm::{RobustCell, Woken, Word, Word64, Words};
use crate::sys::Deadline;
use crate::timeout::Timeout;

/// A simulated thread, or an observer: an observer is not scheduled and does not sleep.
#[derive(Clone, Copy)]
pub struct Sim<'a> {
    baton: &'a Baton,
    me: usize,
}

pub(super) const OBSERVER: usize = usize::MAX;

impl<'a> Sim<'a> {
    pub(super) fn new(baton: &'a Baton, me: usize) -> Sim<'a> {
        Sim { baton, me }
    }

    pub(super) fn observer(baton: &'a Baton) -> Sim<'a> {
        Sim { baton, me: OBSERVER }
    }

    /// For traces.
    pub fn note(self, text: impl FnOnce() -> String) {
        if let Some(mut world) = self.look() {
            world.note(self.me, text);
        }
    }

    /// Whether that thread sleeps at the moment.
    pub fn sees_asleep(self, thread: usize) -> bool {
        self.look().is_some_and(|world| world.is_asleep(thread))
    }

    /// Whether that thread was killed.
    pub fn sees_dead(self, thread: usize) -> bool {
        self.look().is_none_or(|world| world.is_gone(thread))
    }

    /// The world, unless this thread is dead: what it still does while it unwinds has no effect.
    fn look(self) -> Option<MutexGuard<'a, World>> {
        let world = self.baton.world();
        if self.me != OBSERVER && world.is_gone(self.me) { None } else { Some(world) }
    }

    /// The world, once it is this thread's turn.
    fn enter(self, point: Point) -> Option<MutexGuard<'a, World>> {
        let world = self.look()?;
        if self.me == OBSERVER { Some(world) } else { Some(self.baton.decide(world, self.me, point)) }
    }

    fn sleep(self, word: &Word, expected: u32, deadline: &Deadline, watches: bool) -> Result<Woken> {
        let Some(mut world) = self.enter(Point::Operation) else { return Ok(Woken::Look) };
        let real = word.atomic().load(Relaxed).into();
        if deadline.is_try() || self.me == OBSERVER {
            return Ok(Woken::TimedOut);
        }
        if world.change(self.me, "would sleep on", address(word), real, |value| value) as u32 != expected {
            return Ok(Woken::Look);
        }
        let awake = match world.sleep(self.me, address(word), deadline.at(), watches) {
            Ok(()) => self.baton.decide(world, self.me, Point::Blocked).awake(self.me),
            Err(awake) => awake,
        };
        match awake {
            Awake::Look => Ok(Woken::Look),
            Awake::TimedOut => Ok(Woken::TimedOut),
            Awake::Interrupted => Err(Error::new(Kind::Interrupted, "interrupted")),
        }
    }

    fn change(self, what: &'static str, address: usize, real: u64, new: impl FnOnce(u64) -> u64) -> Option<u64> {
        let mut world = self.enter(Point::Operation)?;
        Some(world.change(self.me, what, address, real, new))
    }

    fn change32(self, what: &'static str, word: &Word, new: impl FnOnce(u32) -> u32) -> Option<u32> {
        let before = self.change(what, address(word), word.atomic().load(Relaxed).into(), |value| new(value as u32).into());
        before.map(|before| before as u32)
    }

    fn change64(self, what: &'static str, word: &Word64, new: impl FnOnce(u64) -> u64) -> Option<u64> {
        self.change(what, std::ptr::from_ref(word).addr(), word.atomic().load(Relaxed), new)
    }
}

fn address(word: &Word) -> usize {
    std::ptr::from_ref(word).addr()
}

// What a dead thread is told ends every loop: its CAS succeeds, its sleeps are short.
impl Words for Sim<'_> {
    const SPINS: u32 = 1;
    const SPIN_NS: u64 = 0;
    const PATIENCE: Timeout = Timeout::Forever;

    fn tid(self) -> u32 {
        // An observer comes after all of them.
        if self.me == OBSERVER { 1 << 20 } else { self.me as u32 + 1 }
    }

    fn load(self, word: &Word, _: Ordering) -> u32 {
        self.change32("loads", word, |value| value).unwrap_or(0)
    }

    fn store(self, word: &Word, value: u32, _: Ordering) {
        self.change32("stores", word, |_| value);
    }

    fn cas(self, word: &Word, current: u32, new: u32, _: Ordering) -> std::result::Result<u32, u32> {
        let before = self.change32("compares and swaps", word, |value| if value == current { new } else { value });
        before.filter(|&before| before != current).map_or(Ok(current), Err)
    }

    fn and(self, word: &Word, mask: u32, _: Ordering) -> u32 {
        self.change32("masks", word, |value| value & mask).unwrap_or(0)
    }

    fn load64(self, word: &Word64, _: Ordering) -> u64 {
        self.change64("loads", word, |value| value).unwrap_or(0)
    }

    fn store64(self, word: &Word64, value: u64, _: Ordering) {
        self.change64("stores", word, |_| value);
    }

    fn cas64(self, word: &Word64, current: u64, new: u64, _: Ordering) -> std::result::Result<u64, u64> {
        let before = self.change64("compares and swaps", word, |value| if value == current { new } else { value });
        before.filter(|&before| before != current).map_or(Ok(current), Err)
    }

    fn wait(self, word: &Word, expected: u32, deadline: &Deadline) -> Result<Woken> {
        self.sleep(word, expected, deadline, false)
    }

    fn wait_watching(self, word: &Word, expected: u32, deadline: &Deadline) -> Result<Woken> {
        self.sleep(word, expected, deadline, true)
    }

    fn wake(self, word: &Word, count: u32) -> u32 {
        let Some(mut world) = self.enter(Point::Waking) else { return 0 };
        world.change(self.me, "wakes", address(word), word.atomic().load(Relaxed).into(), |value| value);
        world.wake(address(word), count)
    }

    fn set_pending(self, cell: &RobustCell) {
        if self.me != OBSERVER {
            if let Some(mut world) = self.enter(Point::Private) {
                world.set_pending(self.me, address(&cell.word), cell.word.atomic().load(Relaxed).into());
            }
        }
    }

    fn clear_pending(self) {
        if self.me != OBSERVER {
            if let Some(mut world) = self.enter(Point::Private) {
                world.clear_pending(self.me);
            }
        }
    }

    fn link(self, cell: &RobustCell) -> Result<()> {
        if self.me != OBSERVER {
            if let Some(mut world) = self.enter(Point::Private) {
                world.link(self.me, address(&cell.word));
            }
        }
        Ok(())
    }

    fn unlink(self, cell: &RobustCell) -> bool {
        if self.me == OBSERVER {
            return true;
        }
        self.enter(Point::Private).is_none_or(|mut world| world.unlink(self.me, address(&cell.word)))
    }

    fn holds(self, cell: &RobustCell) -> bool {
        self.me != OBSERVER && self.look().is_some_and(|world| world.holds(self.me, address(&cell.word)))
    }

    fn unlink_only(self, cell: &RobustCell) -> bool {
        self.holds(cell) && self.unlink(cell)
    }

    fn relax(self, _: u32) {
        drop(self.enter(Point::Yield));
    }
}
