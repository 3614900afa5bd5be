//! A queue of byte messages that several processes put into and get from.
//!
//! # Memory
//! A ring of records, each a header {length, kind}, the bytes, and padding to 8. Two *sides* share nothing but what they publish: the
//! producers own the tail under one robust word, the consumers the head under another. A side's position counts messages and ring
//! units in one 64-bit word, so publishing is one store: a message is there or it is not. Each side keeps the other's position as it
//! last saw it and looks again only when that says full (or empty); this alone doubles the speed.
//!
//! # Kill safety
//! A producer copies the message behind the tail, **wakes, then publishes, then gives** its word. Killed before it published, nothing
//! happened; after, the message is there. Its owner-dead word is met by the next producer, or by the consumer that was woken and
//! registers again, and whoever meets it runs the recovery: the private copy of the position is taken from the published one, and
//! everybody who may have been left asleep is woken to look. A consumer killed before it published its position has taken nothing.
//!
//! # Sleeping
//! Who finds the queue empty (full) becomes the *leader* of its side, registers under the word of the **other** side by setting its
//! bell, and sleeps on the bell. Whoever publishes there sees the bell under that very word. The others sleep on the leader word: a
//! wake-up has exactly one addressee, its death wakes the next leader, nobody polls.
//!
//! # The descriptor
//! A pollable queue has a descriptor that is readable while there is something to tell: a token in a pipe. The producers' bell says
//! in a bit of its own whether the pipe is empty, so a put pays for it only then. Whoever publishes puts the token in before; whoever
//! finds the queue empty takes it out, under the producers' word, and says before that it will be out: a death in between leaves a
//! token too many, never one too few.
//!
//! # Large messages
//! Above a quarter of the ring a message lies in the same memfd beyond the mapping, at ever-growing offsets, written and read by
//! pwrite and pread *under* the side's word and punched out after use. (design.md forbids system calls under a word. Here they are
//! what keeps a killed process from leaking or tearing a message; peers that meet such a section wait within their own timeouts.)

use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::error::{Error, Kind, Result};
use crate::mutant;
use crate::shm::layout::{ObjectKind, QueueShared, SideShared};
use crate::shm::{Bytes, Extent, HandedOn, Naming, Object, RobustCell, Segment, Spin, Woken, Words, handing_on};
use crate::sync::ALL;
use crate::sync::robust::{self, OWNER_DIED, Taken};
use crate::sys::fd::Doorbell;
use crate::sys::heap::Buffer;
use crate::sys::thread::Thread;
use crate::sys::{self, Deadline, file, memory};
use crate::timeout::Timeout;

mod descriptor;
mod grow;
mod hold;
mod many;
mod unfinished;

/// The longest message.
pub const MESSAGE_MAX: usize = 1 << 31;
/// What `capacity_bytes` 0 means.
pub const RING_DEFAULT: usize = 256 << 10;
const RING_MIN: usize = 1 << 10;
const RING_MAX: usize = 1 << 32;
/// What `max_bytes` 0 means.
pub const LARGE_DEFAULT: u64 = 2 << 30;

/// Where no large message begins: a file is never so long.
const OFFSET_MAX: u64 = 1 << 62;

/// From here on a look at how much memory is left costs little beside the message itself.
const HUGE: usize = 4 << 20;

/// Records are aligned to this; the unit of positions.
const UNIT: usize = 8;
const HEADER: usize = 8;

/// What lies behind a record's header.
mod kind {
    /// The message.
    pub const INLINE: u32 = 0;
    /// The offset (from the end of the ring's segment) of a message that lies out of line.
    pub const LARGE: u32 = 1;
}

/// Messages and ring units so far, each modulo 2^32, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Position(u64);

impl Position {
    #[inline]
    fn units(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    fn messages(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline]
    fn advance(self, units: u32) -> Position {
        Position(u64::from(self.messages().wrapping_add(1)) << 32 | u64::from(self.units().wrapping_add(units)))
    }

    #[inline]
    fn units_since(self, earlier: Position) -> u32 {
        self.units().wrapping_sub(earlier.units())
    }

    #[inline]
    fn messages_since(self, earlier: Position) -> u32 {
        self.messages().wrapping_sub(earlier.messages())
    }
}

/// How a section went. Errors are made of it outside of the section: making one may allocate.
enum Step {
    Done(usize),
    /// No room, or no message.
    Nothing,
    /// The word of this side was not to be had in time.
    Busy,
    Closed,
    TooSmall(usize),
    TooLong,
    Corrupt,
    Failed(i32, &'static str),
}

/// How to make a queue; zeros are the defaults.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Messages; 0 = bounded by bytes only.
    pub capacity: usize,
    /// 0 = 256 KiB; rounded up to a power of two, at least 1 KiB.
    pub capacity_bytes: usize,
    /// What large messages may take together, and small ones where it grows; 0 = 2 GiB.
    pub max_bytes: usize,
    /// With a descriptor that tells of messages.
    pub pollable: bool,
    /// Never full below `max_bytes`.
    pub grows: bool,
}

/// The measures of a ring.
struct Ring {
    ring_bytes: usize,
    ring_at: usize,
    window_bytes: usize,
    /// In units.
    limit: u32,
}

impl Ring {
    fn new(window_bytes: usize, max_bytes: u64, grows: bool) -> Result<Ring> {
        let ring_at = size_of::<QueueShared>();
        if !grows {
            return Ok(Ring { ring_bytes: window_bytes, ring_at, window_bytes, limit: (window_bytes / UNIT) as u32 });
        }
        // Memory is made and given back in whole pages.
        let (ring_at, window_bytes) = (Segment::next_page(ObjectKind::Queue, ring_at), window_bytes.max(memory::whole_pages(1)));
        // At both ends a chunk may be there of which little is in use.
        let ring_bytes = max_bytes.saturating_add(2 * window_bytes as u64).checked_next_power_of_two();
        let ring_bytes = ring_bytes.and_then(|bytes| usize::try_from(bytes).ok()).filter(|&bytes| bytes <= RING_MAX);
        let Some(ring_bytes) = ring_bytes else {
            return Err(Error::invalid(format!("queue: max_bytes {max_bytes} is too much for a queue that grows: about 4 GiB")));
        };
        Ok(Ring { ring_bytes, ring_at, window_bytes, limit: (max_bytes / UNIT as u64) as u32 })
    }
}

#[derive(Clone, Debug)]
pub struct Queue {
    shared: Object<QueueShared>,
    ring: Bytes,
    /// Private copies of what never changes: what lies in shared memory is not to be trusted.
    ring_bytes: usize,
    ring_at: usize,
    /// How many units may be in use without a look at how many are; of a queue that grows, a chunk.
    window: u32,
    /// How many units may be in use.
    limit: u32,
    grows: bool,
    capacity: u32,
    max_bytes: u64,
    /// Of a pollable queue.
    doorbell: Option<Arc<Doorbell>>,
}

/// The bits of a bell. Changed under the section of its side only.
mod bell {
    /// The leader of the other side sleeps on it, or is about to.
    pub const ASLEEP: u32 = 1;
    /// The descriptor is silent: the next publication makes it readable.
    pub const SILENT: u32 = 2;
}

impl Queue {
    /// `capacity` messages (0 = bounded by bytes only) in `capacity_bytes` (0 = 256 KiB; rounded up to a power of two, at least
    /// 1 KiB); large messages together up to `max_bytes` (0 = 2 GiB).
    pub fn new(capacity: usize, capacity_bytes: usize, max_bytes: usize) -> Result<Queue> {
        Queue::with(&Options { capacity, capacity_bytes, max_bytes, ..Options::default() })
    }

    pub fn with(options: &Options) -> Result<Queue> {
        Queue::named(&Naming::None, options)
    }

    /// With a name; one that exists is opened as it is.
    pub fn named(naming: &Naming, options: &Options) -> Result<Queue> {
        let Options { capacity, capacity_bytes, max_bytes, pollable, grows } = *options;
        if pollable && *naming != Naming::None {
            return Err(descriptor_ends());
        }
        let window_bytes = match capacity_bytes {
            0 => RING_DEFAULT,
            bytes if bytes <= RING_MAX => bytes.next_power_of_two().max(RING_MIN),
            bytes => return Err(Error::invalid(format!("queue: capacity_bytes {bytes} is above {RING_MAX}"))),
        };
        let capacity = u32::try_from(capacity).ok().filter(|&capacity| capacity <= i32::MAX as u32);
        let Some(capacity) = capacity else { return Err(Error::invalid("queue: capacity is above 2,147,483,647 messages")) };
        let max_bytes = if max_bytes == 0 { LARGE_DEFAULT } else { max_bytes as u64 };

        let doorbell = if pollable { Some(Arc::new(Doorbell::new().map_err(|error| error.context("queue"))?)) } else { None };
        let Ring { ring_bytes, ring_at, window_bytes, .. } = Ring::new(window_bytes, max_bytes, grows)?;
        let extent = Extent { length: ring_at + ring_bytes, there: ring_at + if grows { window_bytes } else { ring_bytes } };
        let segment = Segment::make(ObjectKind::Queue, extent, naming, |segment| {
            let w = Thread::current();
            handing_on::complete(&segment.object(0)?, |shared: &QueueShared| {
                w.store64(&shared.window_bytes, window_bytes as u64, Relaxed);
                w.store64(&shared.max_bytes, max_bytes, Relaxed);
                w.store64(&shared.capacity, capacity.into(), Relaxed);
                w.store64(&shared.grows, grows.into(), Relaxed);
                w.store64(&shared.pipe, doorbell.as_ref().map_or(0, |doorbell| doorbell.inode()), Relaxed);
                w.store64(&shared.producers.made, (window_bytes / UNIT) as u64, Relaxed);
                w.store(shared.producers.bell(), if pollable { bell::SILENT } else { 0 }, Relaxed);
            });
            Ok(())
        })?;
        match doorbell {
            None => handing_on::find(segment),
            Some(doorbell) => Queue::over(segment.object(0)?, Some(doorbell)),
        }
    }

    /// The queue that lies there; what it says about itself is checked.
    fn over(shared: Object<QueueShared>, doorbell: Option<Arc<Doorbell>>) -> Result<Queue> {
        let w = Thread::current();
        let window_bytes = usize::try_from(w.load64(&shared.window_bytes, Relaxed)).map_err(|_| written_over())?;
        let capacity = u32::try_from(w.load64(&shared.capacity, Relaxed)).map_err(|_| written_over())?;
        let max_bytes = w.load64(&shared.max_bytes, Relaxed);
        let grows = w.load64(&shared.grows, Relaxed);
        let sound = window_bytes.is_power_of_two() && (RING_MIN..=RING_MAX).contains(&window_bytes);
        if !sound || capacity > i32::MAX as u32 || max_bytes == 0 || grows > 1 {
            return Err(written_over());
        }
        let grows = grows != 0;
        let ring = Ring::new(window_bytes, max_bytes, grows).map_err(|_| written_over())?;
        let segment = shared.segment();
        let whole = segment.kind() == ObjectKind::Queue && segment.content_length() == ring.ring_at + ring.ring_bytes;
        if !whole || ring.window_bytes != window_bytes {
            return Err(written_over());
        }
        let Ring { ring_bytes, ring_at, limit, .. } = ring;
        let ring = segment.bytes(ring_at, ring_bytes).map_err(|_| written_over())?;
        let window = (window_bytes / UNIT) as u32;
        Ok(Queue { shared, ring, ring_bytes, ring_at, window, limit, grows, capacity, max_bytes, doorbell })
    }

    #[inline]
    pub fn put(&self, data: &[u8], timeout: Timeout) -> Result<()> {
        self.put_by(Thread::current(), data, &Deadline::new(timeout))
    }

    /// Takes one message into `buffer`; answers its length.
    #[inline]
    pub fn get(&self, buffer: &mut [MaybeUninit<u8>], timeout: Timeout) -> Result<usize> {
        self.get_by(Thread::current(), buffer, &Deadline::new(timeout))
    }

    /// Takes one message into memory of its own.
    pub fn get_alloc(&self, timeout: Timeout) -> Result<(Buffer, usize)> {
        let deadline = Deadline::new(timeout);
        let mut buffer = Buffer::new(0)?;
        loop {
            match self.get_by(Thread::current(), buffer.as_uninit(), &deadline) {
                Ok(length) => return Ok((buffer, length)),
                // Another consumer may have taken it before we come back with more: then the next one is ours.
                Err(error) if error.kind() == Kind::TooSmall => buffer = Buffer::new(error.needed())?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Messages that are there, exact at some moment of the call.
    pub fn size(&self) -> usize {
        let (tail, head) = self.positions(Thread::current());
        tail.messages_since(head) as usize
    }

    pub fn is_empty(&self) -> bool {
        self.size() == 0
    }

    /// Whether putting one byte would find no room.
    pub fn is_full(&self) -> bool {
        let (tail, head) = self.positions(Thread::current());
        !self.fits_within(self.limit, tail, head, units_of(1))
    }

    pub fn close(&self) -> Result<()> {
        self.close_by(Thread::current())
    }

    /// The descriptor of the memory; stays the queue's.
    pub fn segment(&self) -> &Segment {
        self.shared.segment()
    }

    fn positions<W: Words>(&self, w: W) -> (Position, Position) {
        let (producers, consumers) = (&self.shared.producers, &self.shared.consumers);
        let mut tail = w.load64(&producers.position, Acquire);
        for _ in 0..1000 {
            let head = w.load64(&consumers.position, Acquire);
            let again = w.load64(&producers.position, Acquire);
            if again == tail {
                return (Position(tail), Position(head));
            }
            tail = again;
        }
        // A producer was faster every time; this pair is at most one message apart.
        (Position(tail), Position(w.load64(&consumers.position, Acquire)))
    }

    /// The longest message that lies in the ring.
    #[inline]
    fn inline_max(&self) -> usize {
        self.window as usize * UNIT / 4
    }

    #[inline]
    fn ring_units(&self) -> u32 {
        (self.ring_bytes / UNIT) as u32
    }

    #[inline]
    fn fits(&self, tail: Position, head: Position, units: u32) -> bool {
        self.fits_within(self.window, tail, head, units)
    }

    #[inline]
    fn fits_within(&self, limit: u32, tail: Position, head: Position, units: u32) -> bool {
        let used = u64::from(tail.units_since(head));
        used + u64::from(units) <= u64::from(limit) && (self.capacity == 0 || tail.messages_since(head) < self.capacity)
    }

    /// Whether two positions can belong to this queue at all.
    fn is_sound(&self, tail: Position, head: Position) -> bool {
        let (units, messages) = (tail.units_since(head), tail.messages_since(head));
        units <= self.ring_units() && messages <= units && (units == 0) == (messages == 0)
    }

    /// Fails where the kernel would answer messages of that length with a signal. Before the section: it takes its time.
    fn check_memory(&self, length: usize) -> Result<()> {
        // What is longer is refused for that.
        let is_asked_for = (HUGE..=MESSAGE_MAX).contains(&length) && length as u64 <= self.max_bytes;
        if is_asked_for { memory::check_room(length).map_err(|error| error.context("queue")) } else { Ok(()) }
    }

    // ---- put

    /// The usual case of [`Queue::put`], which answers everything else: nobody is inside, and there is room in the ring.
    #[inline(always)]
    pub fn put_free(&self, data: &[u8]) -> Option<()> {
        let w = Thread::if_known().filter(|_| data.len() <= self.inline_max())?;
        let section = &self.shared.producers.section;
        robust::take_free(w, section).then_some(())?;
        let step = self.put_inline(w, data);
        robust::give(w, section);
        matches!(step, Step::Done(_)).then_some(())
    }

    #[inline]
    pub fn put_by<W: Words>(&self, w: W, data: &[u8], deadline: &Deadline) -> Result<()> {
        self.check_memory(data.len())?;
        match self.put_once(w, data, deadline)? {
            Step::Done(_) => Ok(()),
            Step::Nothing => self.put_waiting(w, data, deadline),
            other => Err(put_error(other, data.len(), self)),
        }
    }

    #[inline]
    fn put_once<W: Words>(&self, w: W, data: &[u8], deadline: &Deadline) -> Result<Step> {
        let side = &self.shared.producers;
        match robust::take(w, &side.section, deadline)? {
            None => return Ok(Step::Busy),
            Some(Taken::OwnerDied) => self.recover_producers(w, Side::Producer),
            Some(Taken::Clean) => {}
        }
        let step = if data.len() <= self.inline_max() { self.put_inline(w, data) } else { self.put_large(w, data) };
        robust::give(w, &side.section);
        Ok(step)
    }

    // Always: it has several callers, and one that must be fast.
    #[inline(always)]
    fn put_inline<W: Words>(&self, w: W, data: &[u8]) -> Step {
        let units = units_of(data.len());
        match self.room(w, units) {
            Ok(tail) => {
                self.write_word(tail.units(), header(data.len(), kind::INLINE));
                self.write(tail.units().wrapping_add(1), data);
                self.publish_put(w, tail.advance(units));
                Step::Done(data.len())
            }
            Err(step) => step,
        }
    }

    /// The tail, if there is room for a record of that many units behind it. Under the producers' word.
    #[inline]
    fn room<W: Words>(&self, w: W, units: u32) -> std::result::Result<Position, Step> {
        let side = &self.shared.producers;
        if w.load(side.closed(), Relaxed) != 0 {
            return Err(Step::Closed);
        }
        let tail = Position(w.load64(side.own(), Relaxed));
        self.room_behind(w, tail, units).map(|()| tail)
    }

    /// Whether a record of that many units has room behind `tail`, which need not be published yet. Under the producers' word.
    #[inline]
    fn room_behind<W: Words>(&self, w: W, tail: Position, units: u32) -> std::result::Result<(), Step> {
        let side = &self.shared.producers;
        if self.fits(tail, Position(w.load64(side.other(), Relaxed)), units) {
            return Ok(());
        }
        // SYNC POINT: head (acquire; the release is in `publish_get`): what we overwrite was copied out.
        let head = Position(w.load64(&self.shared.consumers.position, Acquire));
        if !self.is_sound(tail, head) {
            return Err(Step::Corrupt);
        }
        if !self.fits_within(self.limit, tail, head, units) {
            return Err(Step::Nothing);
        }
        if self.grows {
            return self.grow(w, tail, head, units);
        }
        w.store64(side.other(), head.0, Relaxed);
        Ok(())
    }

    /// Wakes, then publishes: see the head of this file.
    #[inline]
    fn publish_put<W: Words>(&self, w: W, tail: Position) {
        let side = &self.shared.producers;
        if !mutant::is("publish_before_wake") && !mutant::is("doorbell_reset_outside_lock") {
            self.ring_consumers(w);
        }
        w.store64(side.own(), tail.0, Relaxed);
        if mutant::is("two_store_publish") {
            let before = w.load64(&side.position, Relaxed);
            w.store64(&side.position, before & !0xffff_ffff | u64::from(tail.units()), Release);
        }
        // SYNC POINT: tail (release; the acquire is in `next_record`).
        w.store64(&side.position, tail.0, Release);
        if mutant::is("publish_before_wake") {
            self.ring_consumers(w);
        }
        if mutant::is("doorbell_reset_outside_lock") {
            robust::give(w, &side.section);
            self.ring_consumers(w);
        }
    }

    #[cold]
    fn put_large<W: Words>(&self, w: W, data: &[u8]) -> Step {
        let side = &self.shared.producers;
        let tail = match self.room(w, units_of(UNIT)) {
            Ok(tail) => tail,
            Err(step) => return step,
        };
        match self.write_large(w, tail, w.load64(&side.large, Relaxed), data) {
            Ok((after, end)) => {
                self.publish_put(w, after);
                // Release: not before the position, which the recovery goes by.
                w.store64(&side.large, end, Release);
                Step::Done(data.len())
            }
            Err(step) => step,
        }
    }

    /// Writes a large message that begins at `start`, and its record behind `tail`, where there is room for it. Answers what the
    /// tail and `large` become by it.
    #[cold]
    fn write_large<W: Words>(&self, w: W, tail: Position, start: u64, data: &[u8]) -> std::result::Result<(Position, u64), Step> {
        let side = &self.shared.producers;
        if data.len() > MESSAGE_MAX || data.len() as u64 > self.max_bytes {
            return Err(Step::TooLong);
        }
        if start >= OFFSET_MAX {
            return Err(Step::Corrupt);
        }
        let span = large_span(data.len());
        if !self.large_fits(w, start, span) {
            return Err(Step::Nothing);
        }
        let offset = self.segment().length() as u64 + start;
        let after = tail.advance(units_of(UNIT));
        intend(w, side, start + span, after);
        if let Err(errno) = file::write_at(self.segment().fd(), data, offset) {
            file::punch(self.segment().fd(), offset, span);
            // As if it had not been begun; in this order, so that no pair says that `tail` ends behind this message.
            w.store64(&side.large_intent, start, Release);
            w.store64(&side.large_intent_position, tail.0, Release);
            return Err(Step::Failed(errno, "queue: no room for a large message"));
        }
        self.write_word(tail.units(), header(data.len(), kind::LARGE));
        self.write_word(tail.units().wrapping_add(1), start);
        Ok((after, start + span))
    }

    /// Whether `span` more bytes of large messages, from `start` on, stay within `max_bytes`.
    fn large_fits<W: Words>(&self, w: W, start: u64, span: u64) -> bool {
        let used = start.saturating_sub(w.load64(&self.shared.consumers.large, Acquire));
        // A message alone always has room: its length was checked, its last page is not counted against it.
        used == 0 || used.saturating_add(span) <= self.max_bytes
    }

    #[cold]
    fn put_waiting<W: Words>(&self, w: W, data: &[u8], deadline: &Deadline) -> Result<()> {
        if !self.may_wait(w, Side::Producer, deadline)? {
            return Err(put_error(Step::Nothing, data.len(), self));
        }
        // Keeps the memory: the handle may be closed and freed while we sleep.
        let queue = self.clone();
        let room = || queue.has_room(w, data.len());
        queue.wait(w, Side::Producer, deadline, room, || queue.put_once(w, data, deadline)).and_then(|step| match step {
            Step::Done(_) => Ok(()),
            other => Err(put_error(other, data.len(), &queue)),
        })
    }

    // ---- get

    /// The usual case of [`Queue::get`], which answers everything else: nobody is inside, and a message is there that fits.
    #[inline(always)]
    pub fn get_free(&self, buffer: &mut [MaybeUninit<u8>]) -> Option<usize> {
        let w = Thread::if_known()?;
        let section = &self.shared.consumers.section;
        robust::take_free(w, section).then_some(())?;
        let step = self.take_record(w, buffer);
        robust::give(w, section);
        if let Step::Done(length) = step { Some(length) } else { None }
    }

    #[inline]
    pub fn get_by<W: Words>(&self, w: W, buffer: &mut [MaybeUninit<u8>], deadline: &Deadline) -> Result<usize> {
        match self.get_once(w, buffer, deadline)? {
            Step::Done(length) => Ok(length),
            Step::Nothing => self.get_waiting(w, buffer, deadline),
            other => Err(get_error(other, buffer.len())),
        }
    }

    #[inline]
    fn get_once<W: Words>(&self, w: W, buffer: &mut [MaybeUninit<u8>], deadline: &Deadline) -> Result<Step> {
        let side = &self.shared.consumers;
        match robust::take(w, &side.section, deadline)? {
            None => return Ok(Step::Busy),
            Some(Taken::OwnerDied) => self.recover_consumers(w),
            Some(Taken::Clean) => {}
        }
        let step = self.take_record(w, buffer);
        robust::give(w, &side.section);
        Ok(step)
    }

    #[inline]
    fn take_record<W: Words>(&self, w: W, buffer: &mut [MaybeUninit<u8>]) -> Step {
        let (head, length, kind) = match self.next_record(w) {
            Ok(record) => record,
            Err(step) => return step,
        };
        if length > buffer.len() {
            return Step::TooSmall(length);
        }
        if kind == kind::LARGE {
            return self.take_large(w, head, &mut buffer[..length]);
        }
        let (buffer, _) = buffer.split_at_mut(length);
        self.read(head.units().wrapping_add(1), buffer);
        self.publish_get(w, head.advance(units_of(length)));
        Step::Done(length)
    }

    /// The head and the header there, validated. Under the consumers' word.
    #[inline]
    fn next_record<W: Words>(&self, w: W) -> std::result::Result<(Position, usize, u32), Step> {
        let head = Position(w.load64(self.shared.consumers.own(), Relaxed));
        self.record_at(w, head).map(|(length, kind)| (head, length, kind))
    }

    /// The header at `head`, which need not be published yet.
    #[inline]
    fn record_at<W: Words>(&self, w: W, head: Position) -> std::result::Result<(usize, u32), Step> {
        let side = &self.shared.consumers;
        let mut tail = Position(w.load64(side.other(), Relaxed));
        if tail == head {
            tail = self.look_for_tail(w, head)?;
        }
        let there = tail.units_since(head);
        let header = self.read_word(head.units());
        let (length, kind) = (header as u32 as usize, (header >> 32) as u32);
        let inline = kind == kind::INLINE && length <= self.inline_max() && units_of(length) <= there;
        let large = kind == kind::LARGE && length <= MESSAGE_MAX && units_of(UNIT) <= there;
        if there <= self.ring_units() && (inline || large) { Ok((length, kind)) } else { Err(Step::Corrupt) }
    }

    #[inline]
    fn look_for_tail<W: Words>(&self, w: W, head: Position) -> std::result::Result<Position, Step> {
        let (producers, consumers) = (&self.shared.producers, &self.shared.consumers);
        // SYNC POINT: tail (acquire; the release is in `publish_put`): the record is whole. No message follows once a queue was closed,
        // which takes both words: with this side's copy set, this is the last tail.
        let tail = Position(w.load64(&producers.position, Acquire));
        if !self.is_sound(tail, head) {
            return Err(Step::Corrupt);
        }
        if tail == head {
            return Err(if w.load(consumers.closed(), Relaxed) != 0 { Step::Closed } else { Step::Nothing });
        }
        w.store64(consumers.other(), tail.0, Relaxed);
        Ok(tail)
    }

    #[inline]
    fn publish_get<W: Words>(&self, w: W, head: Position) {
        let side = &self.shared.consumers;
        ring_producers(w, side);
        w.store64(side.own(), head.0, Relaxed);
        // SYNC POINT: head (release; the acquire is in `room`).
        w.store64(&side.position, head.0, Release);
    }

    #[cold]
    fn take_large<W: Words>(&self, w: W, head: Position, buffer: &mut [MaybeUninit<u8>]) -> Step {
        match self.read_large(head, w.load64(&self.shared.consumers.large, Relaxed), buffer) {
            Ok(large) => {
                self.publish_get_large(w, head.advance(units_of(UNIT)), large);
                Step::Done(buffer.len())
            }
            Err(step) => step,
        }
    }

    /// Reads the large message whose record lies at `head`; answers where it lies. It cannot lie before `earliest`.
    #[cold]
    fn read_large(&self, head: Position, earliest: u64, buffer: &mut [MaybeUninit<u8>]) -> std::result::Result<Range<u64>, Step> {
        let large = self.large_at(head, earliest, buffer.len())?;
        match file::read_at(self.segment().fd(), buffer, self.segment().length() as u64 + large.start) {
            Ok(true) => Ok(large),
            Ok(false) => Err(Step::Corrupt),
            Err(errno) => Err(Step::Failed(errno, "queue: reading a large message")),
        }
    }

    /// Where the large message whose record lies at `head` lies, validated.
    fn large_at(&self, head: Position, earliest: u64, length: usize) -> std::result::Result<Range<u64>, Step> {
        let start = self.read_word(head.units().wrapping_add(1));
        let sound = start >= earliest && start < OFFSET_MAX;
        if sound { Ok(start..start + large_span(length)) } else { Err(Step::Corrupt) }
    }

    /// [`Queue::publish_get`] where all large messages in `large` were taken: gives their memory back.
    #[cold]
    fn publish_get_large<W: Words>(&self, w: W, head: Position, large: Range<u64>) {
        let side = &self.shared.consumers;
        intend(w, side, large.end, head);
        self.publish_get(w, head);
        w.store64(&side.large, large.end, Release);
        file::punch(self.segment().fd(), self.segment().length() as u64 + large.start, large.end - large.start);
    }

    #[cold]
    fn get_waiting<W: Words>(&self, w: W, buffer: &mut [MaybeUninit<u8>], deadline: &Deadline) -> Result<usize> {
        if !self.may_wait(w, Side::Consumer, deadline)? {
            return Err(self.get_nothing(w, Step::Nothing, buffer.len()));
        }
        // Keeps the memory: the handle may be closed and freed while we sleep.
        let queue = self.clone();
        let capacity = buffer.len();
        let message = || queue.has_message(w);
        queue.wait(w, Side::Consumer, deadline, message, || queue.get_once(w, buffer, deadline)).and_then(|step| match step {
            Step::Done(length) => Ok(length),
            other => Err(queue.get_nothing(w, other, capacity)),
        })
    }

    // ---- sleeping

    /// A side, and the word that its leader owns.
    fn side(&self, side: Side) -> (&SideShared, &RobustCell) {
        match side {
            Side::Producer => (&self.shared.producers, &self.shared.put_leader),
            Side::Consumer => (&self.shared.consumers, &self.shared.get_leader),
        }
    }

    /// Whether there is time to wait. Whatever the time: an error if nobody but this thread itself could change that there is nothing.
    fn may_wait<W: Words>(&self, w: W, side: Side, deadline: &Deadline) -> Result<bool> {
        let (opposite, _) = self.side(side.opposite());
        if w.holds(&opposite.section) { Err(robust::held()) } else { Ok(!deadline.is_try()) }
    }

    /// Tries `once` until it comes to something else than `Nothing`, or until the deadline: then the answer is `Nothing`. `ready` is
    /// asked under the word of the other side whether another try is worth it.
    fn wait<W: Words>(
        &self,
        w: W,
        side: Side,
        deadline: &Deadline,
        ready: impl Fn() -> bool,
        mut once: impl FnMut() -> Result<Step>,
    ) -> Result<Step> {
        if !self.may_wait(w, side, deadline)? {
            return Ok(Step::Nothing);
        }
        let ((own, leader), (opposite, _)) = (self.side(side), self.side(side.opposite()));
        // As it was when the caller found nothing: what was published since then is worth a look at once.
        let mut seen = Position(w.load64(own.other(), Relaxed));
        let mut spin = Spin::new();
        while spin.again(w) {
            let now = Position(w.load64(&opposite.position, Relaxed));
            if self.is_worth_a_look(side, seen, now) {
                seen = now;
                match once()? {
                    Step::Nothing => {}
                    step => return Ok(step),
                }
            }
        }
        if robust::hold(w, leader, deadline)?.is_none() {
            // There may be something all the same: a leader that is stopped does not take it.
            return once();
        }
        let step = self.wait_leading(w, side, deadline, ready, once);
        robust::release(w, leader);
        step
    }

    /// Whether the other side has gone far enough to try again. Who waits for room waits, as long as it is awake, for a sixteenth of the
    /// queue: else the two sides would take the same lines from each other for each message.
    #[inline]
    fn is_worth_a_look(&self, side: Side, seen: Position, now: Position) -> bool {
        match side {
            Side::Consumer => now != seen,
            Side::Producer => {
                let many = self.capacity != 0 && now.messages_since(seen) > self.capacity / 16;
                many || now.units_since(seen) > self.limit / 16
            }
        }
    }

    fn wait_leading<W: Words>(
        &self,
        w: W,
        side: Side,
        deadline: &Deadline,
        ready: impl Fn() -> bool,
        mut once: impl FnMut() -> Result<Step>,
    ) -> Result<Step> {
        let (opposite, _) = self.side(side.opposite());
        loop {
            match once()? {
                Step::Nothing => {}
                step => return Ok(step),
            }
            let bell = match self.register(w, side, deadline, &ready)? {
                Registered::Asleep(bell) => bell,
                Registered::Look if deadline.passed() => return once(),
                Registered::Look => continue,
                Registered::Closed => return Ok(Step::Closed),
                // Somebody may have reserved anew behind what is there for us.
                Registered::TimedOut => return once(),
            };
            if w.wait(opposite.bell(), bell, deadline)? == Woken::TimedOut {
                // Somebody may have rung for us at this very moment.
                return once();
            }
        }
    }

    /// Sets the other side's bell under its word, unless there is reason to look again. What that side publishes next, it publishes
    /// after it has seen the bell.
    fn register<W: Words>(&self, w: W, side: Side, deadline: &Deadline, ready: &impl Fn() -> bool) -> Result<Registered> {
        let (opposite, _) = self.side(side.opposite());
        // While somebody there holds a reservation, or the first message, one publication may follow the other without this word ever
        // being free for us.
        match robust::take_unless(w, &opposite.section, deadline, ready)? {
            None if deadline.passed() => return Ok(Registered::TimedOut),
            None => return Ok(Registered::Look),
            Some(Taken::OwnerDied) if side == Side::Consumer => self.recover_producers(w, Side::Consumer),
            Some(Taken::OwnerDied) => self.recover_consumers(w),
            Some(Taken::Clean) => {}
        }
        let (look, closed) = (ready(), w.load(self.shared.producers.closed(), Relaxed) != 0);
        if side == Side::Consumer && !look && !closed {
            self.give_back(w);
        }
        let bell = w.load(opposite.bell(), Relaxed) | bell::ASLEEP;
        if !look && !closed {
            w.store(opposite.bell(), bell, Relaxed);
        }
        robust::give(w, &opposite.section);
        Ok(match (look, closed) {
            (true, _) => Registered::Look,
            (false, true) => Registered::Closed,
            (false, false) => Registered::Asleep(bell),
        })
    }

    /// Exact under the producers' word, which makes the tail exact; the head may only come closer to it.
    fn has_message<W: Words>(&self, w: W) -> bool {
        // SYNC POINT: tail (acquire).
        let tail = w.load64(&self.shared.producers.position, Acquire);
        tail != w.load64(&self.shared.consumers.position, Relaxed)
    }

    /// Exact under the consumers' word, which makes the head exact; the tail may only run further away from it.
    fn has_room<W: Words>(&self, w: W, length: usize) -> bool {
        let tail = Position(w.load64(&self.shared.producers.position, Relaxed));
        // SYNC POINT: head (acquire).
        let head = Position(w.load64(&self.shared.consumers.position, Acquire));
        if length <= self.inline_max() {
            return self.fits_within(self.limit, tail, head, units_of(length)) || !self.is_sound(tail, head);
        }
        let large = w.load64(&self.shared.producers.large, Relaxed);
        (self.fits_within(self.limit, tail, head, units_of(UNIT)) && self.large_fits(w, large, large_span(length)))
            || !self.is_sound(tail, head)
    }

    // ---- closing and recovery

    /// Both words at once, so that "closed" appears with nobody left asleep, wherever the closer may be killed.
    pub fn close_by<W: Words>(&self, w: W) -> Result<()> {
        let (producers, consumers) = (&self.shared.producers, &self.shared.consumers);
        if robust::take_patiently(w, &producers.section, "queue")? == Taken::OwnerDied {
            self.recover_producers(w, Side::Producer);
        }
        robust::keep(w, &producers.section)?;
        match robust::take_patiently(w, &consumers.section, "queue") {
            Ok(Taken::OwnerDied) => self.recover_consumers(w),
            Ok(Taken::Clean) => {}
            Err(stuck) => {
                robust::release(w, &producers.section);
                return Err(stuck);
            }
        }
        self.make_readable(w);
        for side in [producers, consumers] {
            reset_bell(w, side);
            w.wake(side.bell(), ALL);
        }
        w.store(producers.closed(), 1, Relaxed);
        w.store(consumers.closed(), 1, Relaxed);
        robust::give(w, &consumers.section);
        robust::release(w, &producers.section);
        Ok(())
    }

    /// A producer ended inside. Can be done again, should this one end, too.
    #[cold]
    fn recover_producers<W: Words>(&self, w: W, by: Side) {
        if mutant::is("recovery_only_in_producers") && by == Side::Consumer {
            return;
        }
        let side = &self.shared.producers;
        self.recover_descriptor(w);
        recover(w, side);
        // Large messages that were written and not published.
        if w.load64(&side.large_intent, Relaxed) != 0 {
            let next = w.load64(&side.large, Relaxed);
            file::punch_from(self.segment().fd(), (self.segment().length() as u64).saturating_add(next));
            w.store64(&side.large_intent, 0, Release);
        }
    }

    /// A consumer ended inside.
    #[cold]
    fn recover_consumers<W: Words>(&self, w: W) {
        let side = &self.shared.consumers;
        recover(w, side);
        w.store(side.closed(), w.load(self.shared.producers.closed(), Relaxed), Relaxed);
        // Large messages that were taken and not punched out.
        if w.load64(&side.large_intent, Relaxed) != 0 {
            let done = w.load64(&side.large, Relaxed);
            file::punch(self.segment().fd(), self.segment().length() as u64, done);
            w.store64(&side.large_intent, 0, Release);
        }
    }

    // ---- the ring

    #[inline]
    fn ring_offset(&self, units: u32) -> usize {
        (units as usize * UNIT) & (self.ring_bytes - 1)
    }

    #[inline]
    fn write_word(&self, units: u32, value: u64) {
        self.ring.write_u64(self.ring_offset(units), value);
    }

    #[inline]
    fn read_word(&self, units: u32) -> u64 {
        self.ring.read_u64(self.ring_offset(units)).unwrap_or(u64::MAX)
    }

    #[inline]
    fn write(&self, units: u32, data: &[u8]) {
        let at = self.ring_offset(units);
        if data.len() <= self.ring_bytes - at {
            self.ring.write(at, data);
        } else {
            let (first, second) = data.split_at(self.ring_bytes - at);
            self.ring.write(at, first);
            self.ring.write(0, second);
        }
    }

    #[inline]
    fn read(&self, units: u32, buffer: &mut [MaybeUninit<u8>]) {
        let at = self.ring_offset(units);
        if buffer.len() <= self.ring_bytes - at {
            self.ring.read(at, buffer);
        } else {
            let (first, second) = buffer.split_at_mut(self.ring_bytes - at);
            self.ring.read(at, first);
            self.ring.read(0, second);
        }
    }
}

impl HandedOn for Queue {
    type Shared = QueueShared;

    fn of(shared: Object<QueueShared>) -> Result<Queue> {
        match Thread::current().load64(&shared.pipe, Relaxed) {
            0 => Queue::over(shared, None),
            _ => Err(written_over()),
        }
    }

    fn of_piped(shared: Object<QueueShared>, open: impl FnOnce(u64) -> Result<OwnedFd>) -> Result<Queue> {
        let inode = Thread::current().load64(&shared.pipe, Relaxed);
        if inode == 0 {
            return Err(written_over());
        }
        let doorbell = Doorbell::adopt(open(inode)?).map_err(|error| error.context("queue"))?;
        Queue::over(shared, Some(Arc::new(doorbell)))
    }

    fn pipe(&self) -> Result<Option<RawFd>> {
        match &self.doorbell {
            Some(doorbell) if !doorbell.is_there() => {
                Err(Error::new(Kind::NotFound, "token: this process has closed the descriptor of the queue"))
            }
            doorbell => Ok(doorbell.as_ref().map(|doorbell| doorbell.number())),
        }
    }

    fn object(&self) -> &Object<QueueShared> {
        &self.shared
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Producer,
    Consumer,
}

impl Side {
    fn opposite(self) -> Side {
        match self {
            Side::Producer => Side::Consumer,
            Side::Consumer => Side::Producer,
        }
    }
}

enum Registered {
    /// With the bell as it is now.
    Asleep(u32),
    Look,
    /// And nothing is there.
    Closed,
    TimedOut,
}

/// Wakes the producers' leader if it sleeps. Under the consumers' word.
#[inline]
fn ring_producers<W: Words>(w: W, side: &SideShared) {
    if w.load(side.bell(), Relaxed) != 0 {
        w.store(side.bell(), 0, Relaxed);
        w.wake(side.bell(), 1);
    }
}

/// Says what `large` becomes once `after` is published, for the recovery of a side that dies between the two. Until then nothing is
/// said: the position is stored first, and the one that is published is another.
fn intend<W: Words>(w: W, side: &SideShared, large: u64, after: Position) {
    w.store64(&side.large_intent_position, after.0, Relaxed);
    w.store64(&side.large_intent, large, Release);
}

/// What both sides mend when they meet an owner-dead word: the published position is the truth, and whoever may sleep is woken to
/// look.
fn recover<W: Words>(w: W, side: &SideShared) {
    let position = w.load64(&side.position, Relaxed);
    w.store64(side.own(), position, Relaxed);
    let intent = w.load64(&side.large_intent, Relaxed);
    if intent != 0 && w.load64(&side.large_intent_position, Relaxed) == position {
        w.store64(&side.large, intent, Release);
    }
    if !mutant::is("recovery_does_not_wake") {
        reset_bell(w, side);
        w.wake(side.bell(), ALL);
    }
}

/// Nobody sleeps on it any more; what it says of the descriptor stays.
fn reset_bell<W: Words>(w: W, side: &SideShared) {
    let bell = w.load(side.bell(), Relaxed);
    w.store(side.bell(), bell & !bell::ASLEEP, Relaxed);
}

#[inline]
fn units_of(length: usize) -> u32 {
    ((HEADER + length).div_ceil(UNIT)) as u32
}

#[inline]
fn header(length: usize, kind: u32) -> u64 {
    u64::from(kind) << 32 | length as u64
}

/// A name outlives all processes, a pipe does not; and whoever opens the name later could not make the descriptors of others readable.
#[cold]
fn descriptor_ends() -> Error {
    let text = "queue: a pollable queue cannot have a name, which would outlive its descriptor: hand it on by a token";
    Error::new(Kind::NotSupported, text)
}

/// What a large message takes out of line: whole pages, so that they can be given back.
fn large_span(length: usize) -> u64 {
    memory::whole_pages(length) as u64
}

#[cold]
fn put_error(step: Step, length: usize, queue: &Queue) -> Error {
    match step {
        Step::Nothing => Error::new(Kind::Full, "queue: full"),
        Step::Busy => Error::new(Kind::Full, "queue: another producer was inside all the time, or holds a reservation"),
        Step::TooLong => {
            let limit = queue.max_bytes.min(MESSAGE_MAX as u64);
            Error::new(Kind::MessageSize, format!("queue: a message of {length} bytes is above the limit of {limit}"))
        }
        other => common_error(other),
    }
}

#[cold]
fn get_error(step: Step, capacity: usize) -> Error {
    match step {
        Step::Nothing => Error::new(Kind::Empty, "queue: empty"),
        Step::Busy => Error::new(Kind::Empty, "queue: another consumer was inside all the time, or holds the first message"),
        Step::TooSmall(length) => {
            Error::too_small(length, format!("queue: the message has {length} bytes, the buffer {capacity}"))
        }
        other => common_error(other),
    }
}

fn common_error(step: Step) -> Error {
    match step {
        Step::Closed => Error::new(Kind::Closed, "queue: closed"),
        Step::Failed(errno, what) => sys::failure(errno, what),
        _ => written_over(),
    }
}

fn written_over() -> Error {
    Error::new(Kind::Corrupt, "queue: its shared memory was written over")
}

#[cfg(test)]
mod exploration;

#[cfg(test)]
mod tests {
    use super::*;

    fn put(queue: &Queue, data: &[u8]) -> Result<()> {
        queue.put(data, Timeout::Try)
    }

    fn get(queue: &Queue) -> Result<Vec<u8>> {
        let (buffer, length) = queue.get_alloc(Timeout::Try)?;
        Ok(buffer.to_vec(length))
    }

    #[test]
    fn messages_come_out_as_they_went_in() {
        let queue = Queue::new(0, 1 << 10, 0).unwrap();
        for round in 0..500usize {
            let message: Vec<u8> = (0..round % 250).map(|byte| (byte + round) as u8).collect();
            put(&queue, &message).unwrap();
            put(&queue, b"").unwrap();
            assert_eq!(queue.size(), 2);
            assert_eq!(get(&queue).unwrap(), message);
            assert_eq!(get(&queue).unwrap(), b"");
        }
        assert_eq!(get(&queue).unwrap_err().kind(), Kind::Empty);
    }

    #[test]
    fn capacity_counts_messages() {
        let queue = Queue::new(2, 0, 0).unwrap();
        put(&queue, b"a").unwrap();
        assert!(!queue.is_full());
        put(&queue, b"b").unwrap();
        assert!(queue.is_full());
        assert_eq!(put(&queue, b"c").unwrap_err().kind(), Kind::Full);
        assert_eq!(queue.put(b"c", Timeout::Millis(5)).unwrap_err().kind(), Kind::Full);
        assert_eq!(get(&queue).unwrap(), b"a");
        put(&queue, b"c").unwrap();
    }

    #[test]
    fn a_small_buffer_leaves_the_message() {
        let queue = Queue::new(0, 0, 0).unwrap();
        put(&queue, b"hello").unwrap();
        let error = queue.get(&mut [MaybeUninit::uninit(); 4], Timeout::Forever).unwrap_err();
        assert_eq!((error.kind(), error.needed()), (Kind::TooSmall, 5));
        assert_eq!(get(&queue).unwrap(), b"hello");
    }

    #[test]
    fn large_messages_lie_out_of_line_in_order() {
        let queue = Queue::new(0, 1 << 10, 100_000).unwrap();
        let large = |byte: u8| vec![byte; 40_000];
        put(&queue, &large(1)).unwrap();
        put(&queue, b"small").unwrap();
        put(&queue, &large(2)).unwrap();
        assert_eq!(put(&queue, &large(3)).unwrap_err().kind(), Kind::Full);
        assert_eq!(put(&queue, &vec![0; 100_001]).unwrap_err().kind(), Kind::MessageSize);
        assert_eq!(get(&queue).unwrap(), large(1));
        put(&queue, &large(3)).unwrap();
        assert_eq!(get(&queue).unwrap(), b"small");
        assert_eq!(get(&queue).unwrap(), large(2));
        assert_eq!(get(&queue).unwrap(), large(3));
        assert_eq!(queue.size(), 0);
    }

    #[test]
    fn who_finds_nothing_does_not_wait_for_producers() {
        let kinds = [Options { pollable: true, ..Options::default() }, Options { grows: true, ..Options::default() }];
        for kind in kinds {
            let queue = Queue::with(&Options { capacity_bytes: 4096, ..kind }).unwrap();
            // There is something to be made silent, and something to give back.
            for _ in 0..10 {
                put(&queue, &[7; 1000]).unwrap();
                get(&queue).unwrap();
            }
            queue.reserve(1, Timeout::Try).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| assert_eq!(get(&queue).unwrap_err().kind(), Kind::Empty));
            });
            let word = Thread::current().load(&queue.shared.producers.section.word, Relaxed);
            assert_eq!(word & robust::WAITERS, 0);
            queue.abandon().unwrap();
        }
    }

    #[test]
    fn where_large_messages_are_to_lie_is_checked() {
        let queue = Queue::new(0, 1 << 10, 0).unwrap();
        let w = Thread::current();
        let head_of_the_file = (queue.segment().length() as u64).wrapping_neg();
        for start in [1 << 62, u64::MAX - 100, head_of_the_file] {
            w.store64(&queue.shared.producers.large, start, Relaxed);
            w.store64(&queue.shared.consumers.large, start, Relaxed);
            assert_eq!(put(&queue, &[7; 4000]).unwrap_err().kind(), Kind::Corrupt);
            assert_eq!(queue.size(), 0);
        }
    }

    #[test]
    fn a_tail_that_runs_ahead_is_not_followed_for_ever() {
        let queue = Queue::new(0, 1 << 10, 0).unwrap();
        put(&queue, b"").unwrap();
        let (w, tail) = (Thread::current(), &queue.shared.producers.position);
        let run_ahead = |_, _, _| w.store64(tail, Position(w.load64(tail, Relaxed)).advance(1).0, Relaxed);
        let got = queue.get_many(&mut [], 1000, run_ahead, Timeout::Try).unwrap();
        assert_eq!(got, (1 << 10) / UNIT);
    }

    #[test]
    fn a_closed_queue_drains() {
        let queue = Queue::new(0, 0, 0).unwrap();
        put(&queue, b"last").unwrap();
        queue.close().unwrap();
        queue.close().unwrap();
        assert_eq!(put(&queue, b"x").unwrap_err().kind(), Kind::Closed);
        assert_eq!(get(&queue).unwrap(), b"last");
        assert_eq!(queue.get_alloc(Timeout::Forever).err().unwrap().kind(), Kind::Closed);
    }

    #[test]
    fn closing_releases_all_who_wait() {
        let queue = Queue::new(1, 0, 0).unwrap();
        let empty = Queue::new(1, 0, 0).unwrap();
        put(&queue, b"x").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| assert_eq!(queue.put(b"y", Timeout::Forever).unwrap_err().kind(), Kind::Closed));
                scope.spawn(|| assert_eq!(empty.get_alloc(Timeout::Forever).err().unwrap().kind(), Kind::Closed));
            }
            queue.close().unwrap();
            empty.close().unwrap();
        });
    }

    #[test]
    fn several_threads_on_both_sides_of_a_small_ring() {
        const EACH: u64 = 20_000;
        let queue = Queue::new(0, 1 << 10, 0).unwrap();
        let sum = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for producer in 0..2u64 {
                let queue = &queue;
                scope.spawn(move || {
                    (0..EACH).for_each(|i| queue.put(&(producer * EACH + i).to_ne_bytes(), Timeout::Forever).unwrap())
                });
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        let (buffer, length) = queue.get_alloc(Timeout::Forever).unwrap();
                        let value = u64::from_ne_bytes(buffer.to_vec(length).try_into().unwrap());
                        sum.fetch_add(value, std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), (0..2 * EACH).sum());
    }
}
