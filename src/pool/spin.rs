//! Looking for something awake, for as long as falling asleep and being woken would take.
#![forbid(unsafe_code)]

use crate::shm::Words;
use crate::sys::now;

/// What a sleep costs those who sleep and those who wake them, a round trip of it, on ordinary machines; more on virtual ones.
const SPIN_NS: u64 = 20_000;
/// The clock is asked once in so many turns.
const TURNS: u32 = 16;

/// Counts the turns of a loop that looks for something.
pub(super) struct Spin {
    turn: u32,
    until: u64,
}

impl Spin {
    pub(super) fn new() -> Spin {
        Spin { turn: 0, until: 0 }
    }

    /// Gives others a moment; `false`: it has been long enough.
    #[inline]
    pub(super) fn again(&mut self, w: impl Words) -> bool {
        w.relax(self.turn);
        self.turn += 1;
        self.turn % TURNS != 0 || self.is_early()
    }

    fn is_early(&mut self) -> bool {
        let now = now();
        if self.until == 0 {
            self.until = now + SPIN_NS;
        }
        now < self.until
    }
}
