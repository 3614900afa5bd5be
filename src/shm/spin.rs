//! Looking for something awake, for as long as falling asleep and being woken would take.
#![forbid(unsafe_code)]

use super::Words;
use crate::sys::now;

/// The clock is asked once in so many turns.
const TURNS: u32 = 16;

/// Counts the turns of a loop that looks for something.
#[derive(Default)]
pub struct Spin {
    turn: u32,
    until: u64,
}

impl Spin {
    #[inline]
    pub fn new() -> Spin {
        Spin::default()
    }

    /// Gives others a moment; `false`: it has been long enough.
    #[inline]
    pub fn again<W: Words>(&mut self, w: W) -> bool {
        if W::SPIN_NS == 0 && self.turn > 0 {
            return false;
        }
        w.relax(self.turn);
        self.turn += 1;
        W::SPIN_NS == 0 || self.turn % TURNS != 0 || self.is_early(W::SPIN_NS)
    }

    fn is_early(&mut self, spin_ns: u64) -> bool {
        let now = now();
        if self.until == 0 {
            self.until = now + spin_ns;
        }
        now < self.until
    }
}
