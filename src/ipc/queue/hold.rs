//! Writing the next message, and reading the first one, where it lies.
//!
//! Who reserves holds the producers' word across calls, who peeks the consumers': nothing is published before `commit` and `release`,
//! so a death in between is the death of a put before its publication, or of a get before its: the recovery that is there for those
//! sees to it. Others wait for the word within their own timeouts.
//!
//! A message that wraps around the ring's end, or is large, has no one place there: it is written and read in private memory, and
//! copied by `commit` and `peek`.

use super::*;
use crate::mutant;
use crate::sys::heap::Place;
use crate::sys::per_process::PerProcess;

/// Messages of this process that have no one place in a ring, by the words that they were reserved, or peeked at, under. A word has
/// one owner, so an older entry of the same word is one of a thread that has ended: [`SideShared::private`] says whether there is one
/// of the owner's.
static PRIVATE: PerProcess<Vec<(usize, Private)>> = PerProcess::new();

enum Private {
    Reserved(Place),
    Peeked(Buffer),
}

impl Private {
    fn address(&self) -> *mut u8 {
        match self {
            Private::Reserved(memory) => memory.address(),
            Private::Peeked(memory) => memory.address(),
        }
    }
}

/// Answers its address.
fn keep_private<W: Words>(w: W, side: &SideShared, memory: Private) -> *mut u8 {
    let (stale, address) = (forget_private(side), memory.address());
    PRIVATE.with(|list| list.push((std::ptr::from_ref(side).addr(), memory)));
    w.store(side.private(), 1, Relaxed);
    drop(stale);
    address
}

/// What the owner of the section keeps there.
fn take_private<W: Words>(w: W, side: &SideShared) -> Option<Private> {
    if w.load(side.private(), Relaxed) == 0 { None } else { forget_private(side) }
}

fn forget_private(side: &SideShared) -> Option<Private> {
    let address = std::ptr::from_ref(side).addr();
    PRIVATE.with(|list| {
        let index = list.iter().position(|(other, _)| *other == address)?;
        Some(list.swap_remove(index).1)
    })
}

impl Queue {
    // ---- reserve, commit, abandon

    /// Room for a message of that length: where to write it. This thread holds the producers' side until it commits or abandons.
    pub fn reserve(&self, length: usize, timeout: Timeout) -> Result<*mut u8> {
        self.reserve_by(Thread::current(), length, &Deadline::new(timeout))
    }

    /// Publishes the first `length` bytes of what was reserved.
    pub fn commit(&self, length: usize) -> Result<()> {
        self.commit_by(Thread::current(), length)
    }

    /// Nothing was reserved.
    pub fn abandon(&self) -> Result<()> {
        self.abandon_by(Thread::current())
    }

    pub fn reserve_by<W: Words>(&self, w: W, length: usize, deadline: &Deadline) -> Result<*mut u8> {
        self.check_memory(length)?;
        let step = match self.reserve_once(w, length, deadline)? {
            Step::Nothing => {
                // Keeps the memory: the handle may be closed and freed while we sleep.
                let queue = self.clone();
                let room = || queue.has_room(w, length);
                queue.wait(w, Side::Producer, deadline, room, || queue.reserve_once(w, length, deadline))?
            }
            step => step,
        };
        let Step::Done(_) = step else { return Err(put_error(step, length, self)) };
        let side = &self.shared.producers;
        let tail = Position(w.load64(side.own(), Relaxed));
        if let Some(place) = self.place(tail, length) {
            w.store(side.private(), 0, Relaxed);
            return Ok(place);
        }
        match Place::new(length) {
            Ok(memory) => Ok(keep_private(w, side, Private::Reserved(memory))),
            Err(error) => {
                robust::release(w, &side.section);
                Err(error)
            }
        }
    }

    fn reserve_once<W: Words>(&self, w: W, length: usize, deadline: &Deadline) -> Result<Step> {
        let side = &self.shared.producers;
        match robust::take(w, &side.section, deadline)? {
            None => return Ok(Step::Busy),
            Some(Taken::OwnerDied) => self.recover_producers(w, Side::Producer),
            Some(Taken::Clean) => {}
        }
        if let Err(step) = self.room_for(w, length) {
            robust::give(w, &side.section);
            return Ok(step);
        }
        w.store(side.reserved(), length as u32, Relaxed);
        robust::keep_from_lookers(w, &side.section)?;
        Ok(Step::Done(length))
    }

    fn room_for<W: Words>(&self, w: W, length: usize) -> std::result::Result<(), Step> {
        if length <= self.inline_max() {
            return self.room(w, units_of(length)).map(drop);
        }
        if length > MESSAGE_MAX || length as u64 > self.max_bytes {
            return Err(Step::TooLong);
        }
        self.room(w, units_of(UNIT))?;
        let start = w.load64(&self.shared.producers.large, Relaxed);
        if self.large_fits(w, start, large_span(length)) { Ok(()) } else { Err(Step::Nothing) }
    }

    /// Where the message of a record at `position` lies in the ring, if it lies there in one piece.
    fn place(&self, position: Position, length: usize) -> Option<*mut u8> {
        if length > self.inline_max() {
            return None;
        }
        self.ring.place(self.ring_offset(position.units().wrapping_add(1)), length)
    }

    pub fn commit_by<W: Words>(&self, w: W, length: usize) -> Result<()> {
        let side = &self.shared.producers;
        check_held(w, &side.section, "reserved")?;
        let reserved = w.load(side.reserved(), Relaxed) as usize;
        if length > reserved {
            return Err(Error::invalid(format!("len: {length} bytes are more than the {reserved} that were reserved")));
        }
        let is_private = w.load(side.private(), Relaxed) != 0;
        let memory = take_private(w, side);
        let step = match &memory {
            None if is_private || length > self.inline_max() => Step::Corrupt,
            None => self.put_in_place(w, length),
            Some(Private::Peeked(_)) => Step::Corrupt,
            Some(Private::Reserved(memory)) => match memory.get(..length) {
                None => Step::Corrupt,
                Some(data) if memory.len() <= self.inline_max() => self.put_inline(w, data),
                Some(data) => self.put_large(w, data),
            },
        };
        match (step, memory) {
            (Step::Done(_), _) => self.let_go(w, &side.section),
            (step, memory) => {
                if let Some(memory) = memory {
                    keep_private(w, side, memory);
                }
                Err(put_error(step, length, self))
            }
        }
    }

    fn put_in_place<W: Words>(&self, w: W, length: usize) -> Step {
        let units = units_of(length);
        match self.room(w, units) {
            Ok(tail) => {
                if mutant::is("commit_before_header") {
                    self.publish_put(w, tail.advance(units));
                    w.relax(0);
                }
                self.write_word(tail.units(), header(length, kind::INLINE));
                if !mutant::is("commit_before_header") {
                    self.publish_put(w, tail.advance(units));
                }
                Step::Done(length)
            }
            Err(step) => step,
        }
    }

    pub fn abandon_by<W: Words>(&self, w: W) -> Result<()> {
        let side = &self.shared.producers;
        check_held(w, &side.section, "reserved")?;
        drop(take_private(w, side));
        self.let_go(w, &side.section)
    }

    // ---- peek, release, unpeek

    /// The first message: where it lies and how long it is. This thread holds the consumers' side until it releases or unpeeks it.
    pub fn peek(&self, timeout: Timeout) -> Result<(*const u8, usize)> {
        self.peek_by(Thread::current(), &Deadline::new(timeout))
    }

    /// Consumes the message that was peeked at.
    pub fn release(&self) -> Result<()> {
        self.release_by(Thread::current())
    }

    /// Leaves the message that was peeked at where it is, first in line.
    pub fn unpeek(&self) -> Result<()> {
        self.unpeek_by(Thread::current())
    }

    pub fn peek_by<W: Words>(&self, w: W, deadline: &Deadline) -> Result<(*const u8, usize)> {
        let step = match self.peek_once(w, deadline)? {
            Step::Nothing => {
                let queue = self.clone();
                let message = || queue.has_message(w);
                queue.wait(w, Side::Consumer, deadline, message, || queue.peek_once(w, deadline))?
            }
            step => step,
        };
        let Step::Done(_) = step else { return Err(self.get_nothing(w, step, 0)) };
        let shown = self.show(w);
        if shown.is_err() {
            robust::release(w, &self.shared.consumers.section);
        }
        shown
    }

    fn peek_once<W: Words>(&self, w: W, deadline: &Deadline) -> Result<Step> {
        let side = &self.shared.consumers;
        match robust::take(w, &side.section, deadline)? {
            None => return Ok(Step::Busy),
            Some(Taken::OwnerDied) => self.recover_consumers(w),
            Some(Taken::Clean) => {}
        }
        let length = match self.next_record(w) {
            Ok((_, length, _)) => length,
            Err(step) => {
                robust::give(w, &side.section);
                return Ok(step);
            }
        };
        robust::keep_from_lookers(w, &side.section)?;
        Ok(Step::Done(length))
    }

    /// The first message, once this thread holds the consumers' side.
    fn show<W: Words>(&self, w: W) -> Result<(*const u8, usize)> {
        let side = &self.shared.consumers;
        let (head, length, kind) = self.next_record(w).map_err(common_error)?;
        if let Some(place) = self.place(head, length).filter(|_| kind == kind::INLINE) {
            w.store(side.private(), 0, Relaxed);
            return Ok((place.cast_const(), length));
        }
        let mut memory = Buffer::new(length)?;
        if kind == kind::LARGE {
            self.read_large(head, w.load64(&side.large, Relaxed), memory.as_uninit()).map_err(common_error)?;
        } else {
            self.read(head.units().wrapping_add(1), memory.as_uninit());
        }
        let place = keep_private(w, side, Private::Peeked(memory));
        Ok((place.cast_const(), length))
    }

    pub fn release_by<W: Words>(&self, w: W) -> Result<()> {
        let side = &self.shared.consumers;
        check_held(w, &side.section, "peeked at")?;
        let (head, length, kind) = self.next_record(w).map_err(common_error)?;
        if kind == kind::INLINE {
            self.publish_get(w, head.advance(units_of(length)));
        } else {
            let large = self.large_at(head, w.load64(&side.large, Relaxed), length).map_err(common_error)?;
            self.publish_get_large(w, head.advance(units_of(UNIT)), large);
        }
        drop(take_private(w, side));
        self.let_go(w, &side.section)
    }

    pub fn unpeek_by<W: Words>(&self, w: W) -> Result<()> {
        let side = &self.shared.consumers;
        check_held(w, &side.section, "peeked at")?;
        drop(take_private(w, side));
        self.let_go(w, &side.section)
    }

    // ----

    fn let_go<W: Words>(&self, w: W, cell: &RobustCell) -> Result<()> {
        if robust::release(w, cell) { Ok(()) } else { Err(common_error(Step::Corrupt)) }
    }

    /// Before this process's handle goes. Where a thread of this process holds a side, that thread's robust list leads through this
    /// memory: it stays mapped.
    pub fn leave(&self) {
        for side in [&self.shared.producers, &self.shared.consumers] {
            if robust::may_be_held_here(Thread::current(), &side.section) {
                self.shared.keep_mapped();
            } else {
                drop(forget_private(side));
            }
        }
    }
}

fn check_held<W: Words>(w: W, cell: &RobustCell, verb: &str) -> Result<()> {
    if robust::is_held(w, cell) {
        return Ok(());
    }
    Err(Error::new(Kind::NotOwner, format!("queue: the calling thread has {verb} nothing")))
}

/// What C does by the pointers.
#[cfg(test)]
impl Queue {
    pub(super) fn fill_reserved<W: Words>(&self, w: W, data: &[u8]) {
        let side = &self.shared.producers;
        let tail = Position(w.load64(side.own(), Relaxed));
        if let Some(Private::Reserved(mut memory)) = take_private(w, side) {
            memory[..data.len()].copy_from_slice(data);
            keep_private(w, side, Private::Reserved(memory));
        } else {
            self.write(tail.units().wrapping_add(1), data);
        }
    }

    pub(super) fn read_peeked<W: Words>(&self, w: W, buffer: &mut [MaybeUninit<u8>]) {
        let side = &self.shared.consumers;
        let head = Position(w.load64(side.own(), Relaxed));
        if let Some(Private::Peeked(mut memory)) = take_private(w, side) {
            buffer.copy_from_slice(&memory.as_uninit()[..buffer.len()]);
            keep_private(w, side, Private::Peeked(memory));
        } else {
            self.read(head.units().wrapping_add(1), buffer);
        }
    }
}
