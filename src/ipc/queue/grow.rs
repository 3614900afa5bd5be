//! A queue that grows.
//!
//! Its ring is as large as it may ever get, but only a part of its memory is there: from the first message on to a little behind the
//! last one, in whole chunks of `capacity_bytes`. Producers make the chunks that they need, and give back those that consumers are
//! through with, as does a consumer that finds the queue empty; both under the producers' word, so that nothing is given back that is
//! in use again.
//!
//! A put pays nothing for it: what it believes to be the consumers' position ([`SideShared::other`]) is one from which exactly the
//! room that is there has space. Only where that says "full" the truth is looked up.

use super::*;

impl Queue {
    /// Makes memory for `units` units behind `tail`, which are within the queue's limit. Under the producers' word. What is done
    /// twice, because somebody was killed here, is done once.
    #[cold]
    pub(super) fn grow<W: Words>(&self, w: W, tail: Position, head: Position, units: u32) -> std::result::Result<(), Step> {
        let side = &self.shared.producers;
        self.give_back(w);
        let (made, given_back) = (w.load64(&side.made, Relaxed) as u32, w.load64(&side.given_back, Relaxed) as u32);
        let there = made.wrapping_sub(given_back);
        if made % self.window != 0 || given_back % self.window != 0 || there > self.ring_units() {
            return Err(Step::Corrupt);
        }
        let needed = tail.units().wrapping_add(units).wrapping_sub(given_back);
        // Whole chunks: the ring has a whole number of them.
        if needed > self.ring_units() {
            return Err(Step::Corrupt);
        }
        let needed = needed.next_multiple_of(self.window);
        let end = if needed > there { given_back.wrapping_add(needed) } else { made };
        for (offset, length) in self.pieces(made, end.wrapping_sub(made)) {
            if let Err(errno) = file::make(self.segment().fd(), offset, length) {
                return Err(Step::Failed(errno, "queue: no room to grow"));
            }
        }
        w.store64(&side.made, end.into(), Relaxed);
        let believed = u64::from(head.messages()) << 32 | u64::from(end.wrapping_sub(self.window));
        w.store64(side.other(), believed, Relaxed);
        Ok(())
    }

    /// [`Queue::give_back`] where the producers' word is to be had.
    #[cold]
    pub(super) fn give_back_now<W: Words>(&self, w: W) {
        let side = &self.shared.producers;
        let given_back = w.load64(&side.given_back, Relaxed) as u32;
        let head = Position(w.load64(&self.shared.consumers.position, Relaxed));
        if head.units().wrapping_sub(given_back) < self.window {
            return;
        }
        // The caller's time is over.
        match robust::try_take(w, &side.section) {
            Some(Taken::Clean) => {}
            Some(Taken::OwnerDied) => self.recover_producers(w, Side::Consumer),
            None => return,
        }
        self.give_back(w);
        robust::give(w, &side.section);
    }

    /// Gives back the chunks that hold nothing any more. Under the producers' word.
    pub(super) fn give_back<W: Words>(&self, w: W) {
        if !self.grows {
            return;
        }
        let side = &self.shared.producers;
        let (made, given_back) = (w.load64(&side.made, Relaxed) as u32, w.load64(&side.given_back, Relaxed) as u32);
        // SYNC POINT: head (acquire): what lay before it was copied out.
        let head = Position(w.load64(&self.shared.consumers.position, Acquire));
        let through = match mutant::is("gives_back_what_is_in_use") {
            true => head.units().next_multiple_of(self.window),
            false => head.units() & !(self.window - 1),
        };
        let length = through.wrapping_sub(given_back);
        if length == 0 || length > made.wrapping_sub(given_back) || length > self.ring_units() {
            return;
        }
        for (offset, length) in self.pieces(given_back, length) {
            file::punch(self.segment().fd(), offset, length);
        }
        w.store64(&side.given_back, through.into(), Relaxed);
    }

    /// Where so many units from a position on lie in the file; in two pieces where they wrap around.
    fn pieces(&self, from: u32, units: u32) -> impl Iterator<Item = (u64, u64)> {
        let (at, length) = (self.ring_offset(from), units as usize * UNIT);
        let first = length.min(self.ring_bytes - at);
        let begin = self.segment().position(self.ring_at);
        [(begin + at as u64, first as u64), (begin, (length - first) as u64)].into_iter().filter(|(_, length)| *length > 0)
    }
}
