//! Several messages by one call: one section, one publication. So all of them are there at once, and a kill takes effect on all or
//! on none.
//!
//! One wake-up is enough for several messages: the leader that it wakes takes what it wants and leaves its word to the next leader,
//! who looks before it sleeps.

use std::mem::MaybeUninit;

use super::*;

impl Queue {
    /// Puts as many of the `count` messages as fit, waiting until the first does; answers how many.
    pub fn put_many<'a>(&self, count: usize, message: impl Fn(usize) -> &'a [u8], timeout: Timeout) -> Result<usize> {
        self.put_many_by(Thread::current(), count, message, &Deadline::new(timeout))
    }

    pub fn put_many_by<'a, W: Words>(
        &self,
        w: W,
        count: usize,
        message: impl Fn(usize) -> &'a [u8],
        deadline: &Deadline,
    ) -> Result<usize> {
        if count == 0 {
            return Ok(0);
        }
        let count = self.check_memory_of_many(count, &message)?;
        let step = match self.put_many_once(w, count, &message, deadline)? {
            Step::Nothing => {
                // Keeps the memory: the handle may be closed and freed while we sleep.
                let queue = self.clone();
                let room = || queue.has_room(w, message(0).len());
                queue.wait(w, Side::Producer, deadline, room, || queue.put_many_once(w, count, &message, deadline))?
            }
            step => step,
        };
        match step {
            Step::Done(put) => Ok(put),
            other => Err(put_error(other, message(0).len(), self)),
        }
    }

    /// [`Queue::check_memory`]: how many of the messages may be tried together.
    fn check_memory_of_many<'a>(&self, count: usize, message: &impl Fn(usize) -> &'a [u8]) -> Result<usize> {
        let lengths = (0..count).map(|number| message(number).len()).filter(|&length| length > self.inline_max());
        let together = lengths.fold(0, usize::saturating_add).min(usize::try_from(self.max_bytes).unwrap_or(usize::MAX));
        if together >= HUGE && memory::check_room(together).is_err() {
            return self.check_memory(message(0).len()).map(|()| 1);
        }
        Ok(count)
    }

    fn put_many_once<'a, W: Words>(
        &self,
        w: W,
        count: usize,
        message: &impl Fn(usize) -> &'a [u8],
        deadline: &Deadline,
    ) -> Result<Step> {
        let side = &self.shared.producers;
        match robust::take(w, &side.section, deadline)? {
            None => return Ok(Step::Busy),
            Some(Taken::OwnerDied) => self.recover_producers(w, Side::Producer),
            Some(Taken::Clean) => {}
        }
        let step = self.put_records(w, count, message);
        robust::give(w, &side.section);
        Ok(step)
    }

    fn put_records<'a, W: Words>(&self, w: W, count: usize, message: &impl Fn(usize) -> &'a [u8]) -> Step {
        let side = &self.shared.producers;
        let mut tail = match self.room(w, HEADER_UNITS) {
            Ok(tail) => tail,
            Err(step) => return step,
        };
        let large = w.load64(&side.large, Relaxed);
        let (mut end, mut put) = (large, 0);
        while put < count {
            match self.put_record(w, tail, end, message(put)) {
                Ok(after) => (tail, end) = after,
                // What comes first says why there is none; the others wait for the next call.
                Err(step) if put == 0 => return step,
                Err(_) => break,
            }
            put += 1;
        }
        if mutant::is("many_counted_as_one") {
            let first = Position(w.load64(side.own(), Relaxed));
            tail = first.advance(tail.units_since(first));
        }
        if end != large {
            intend(w, side, end, tail);
        }
        self.publish_put(w, tail);
        if end != large {
            w.store64(&side.large, end, Release);
        }
        Step::Done(put)
    }

    /// Writes one message behind `tail`, and out of line from `end` on if it is large; answers what the two become.
    fn put_record<W: Words>(&self, w: W, tail: Position, end: u64, data: &[u8]) -> std::result::Result<(Position, u64), Step> {
        if data.len() > self.inline_max() {
            self.room_behind(w, tail, units_of(UNIT))?;
            return self.write_large(w, tail, end, data);
        }
        let units = units_of(data.len());
        self.room_behind(w, tail, units)?;
        self.write_word(tail.units(), header(data.len(), kind::INLINE));
        self.write(tail.units().wrapping_add(1), data);
        Ok((tail.advance(units), end))
    }

    /// Takes as many messages as are there, fit into `buffer` one behind the other and are not more than `most`, waiting for the
    /// first; answers how many. `each` is told of each: which one, where it begins, how long it is.
    pub fn get_many(
        &self,
        buffer: &mut [MaybeUninit<u8>],
        most: usize,
        each: impl FnMut(usize, usize, usize),
        timeout: Timeout,
    ) -> Result<usize> {
        self.get_many_by(Thread::current(), buffer, most, each, &Deadline::new(timeout))
    }

    pub fn get_many_by<W: Words>(
        &self,
        w: W,
        buffer: &mut [MaybeUninit<u8>],
        most: usize,
        mut each: impl FnMut(usize, usize, usize),
        deadline: &Deadline,
    ) -> Result<usize> {
        if most == 0 {
            return Ok(0);
        }
        let capacity = buffer.len();
        let step = match self.get_many_once(w, buffer, most, &mut each, deadline)? {
            Step::Nothing => {
                let queue = self.clone();
                let message = || queue.has_message(w);
                queue.wait(w, Side::Consumer, deadline, message, || queue.get_many_once(w, buffer, most, &mut each, deadline))?
            }
            step => step,
        };
        match step {
            Step::Done(got) => Ok(got),
            other => Err(self.get_nothing(w, other, capacity)),
        }
    }

    fn get_many_once<W: Words>(
        &self,
        w: W,
        buffer: &mut [MaybeUninit<u8>],
        most: usize,
        each: &mut impl FnMut(usize, usize, usize),
        deadline: &Deadline,
    ) -> Result<Step> {
        let side = &self.shared.consumers;
        match robust::take(w, &side.section, deadline)? {
            None => return Ok(Step::Busy),
            Some(Taken::OwnerDied) => self.recover_consumers(w),
            Some(Taken::Clean) => {}
        }
        let step = self.take_records(w, buffer, most, each);
        robust::give(w, &side.section);
        Ok(step)
    }

    fn take_records<W: Words>(
        &self,
        w: W,
        buffer: &mut [MaybeUninit<u8>],
        most: usize,
        each: &mut impl FnMut(usize, usize, usize),
    ) -> Step {
        let side = &self.shared.consumers;
        let mut head = Position(w.load64(side.own(), Relaxed));
        let mut large: Option<Range<u64>> = None;
        let (mut used, mut got) = (0, 0);
        // No tail is further ahead than that: it could run away from us for ever.
        let first = head;
        while got < most && head.units_since(first) < self.ring_units() {
            let earliest = large.as_ref().map_or_else(|| w.load64(&side.large, Relaxed), |large| large.end);
            match self.take_record_at(w, head, earliest, &mut buffer[used..]) {
                Ok(TakenRecord { length, after, large: here }) => {
                    each(got, used, length);
                    (head, used) = (after, used + length);
                    if let Some(here) = here {
                        large = Some(large.map_or(here.start, |large| large.start)..here.end);
                    }
                }
                Err(step) if got == 0 => return step,
                Err(_) => break,
            }
            got += 1;
        }
        match large {
            Some(large) => self.publish_get_large(w, head, large),
            None => self.publish_get(w, head),
        }
        Step::Done(got)
    }

    /// Copies the message at `head` to the beginning of `buffer`.
    fn take_record_at<W: Words>(
        &self,
        w: W,
        head: Position,
        earliest: u64,
        buffer: &mut [MaybeUninit<u8>],
    ) -> std::result::Result<TakenRecord, Step> {
        let (length, kind) = self.record_at(w, head)?;
        let Some(buffer) = buffer.get_mut(..length) else { return Err(Step::TooSmall(length)) };
        if kind == kind::LARGE {
            let large = self.read_large(head, earliest, buffer)?;
            return Ok(TakenRecord { length, after: head.advance(units_of(UNIT)), large: Some(large) });
        }
        self.read(head.units().wrapping_add(1), buffer);
        Ok(TakenRecord { length, after: head.advance(units_of(length)), large: None })
    }
}

/// A message that was copied and not published as taken.
struct TakenRecord {
    length: usize,
    after: Position,
    /// Where it lay out of line.
    large: Option<Range<u64>>,
}

/// The least that a record takes.
const HEADER_UNITS: u32 = 1;
