//! What a worker has done: which tasks it began, which ended and how, and their results.
//!
//! A journal is a memfd that its worker appends to by write(2) and does not map: no wild pointer of a task reaches what the worker
//! has said about earlier tasks. The host reads it, through a mapping where it usually is and by read(2) elsewhere. One entry says
//! how the last task ended and which one begins, so a busy worker writes once per task. An entry is there as soon as it is there
//! whole: its check covers every byte of it and where it stands. There is nothing to repair and nothing to lock; a worker that is
//! killed has written its last entry or has not.
//!
//! # The file
//! It consists of units of 32 KiB. Entries fill a unit from its beginning; the last one names the unit in which the journal goes on,
//! which is the first one that the host has read to its end, or a new one. So a host that keeps up needs the first two units, the
//! ones that it maps, and one that does not makes the file grow. Long results lie in units of their own, and the host gives their
//! memory back; the units are used again when it has read the entry that names them.
//!
//! The workers that live in one place after each other share the file. Where the host has not retired the last one yet, the next one
//! begins behind everything that was written, and comes back to the first units when the host has caught up: workers die and are
//! replaced without the host.
//!
//! # An entry
//! 64 bytes and a short result, padded to 8 bytes:
//! {tag 4, check 4, ended 8, began 8, slot that ended 4, slot that began 4, stamp 8, length 8, code 4, flags 4, unit 8}
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::room::Room;
use crate::error::Result;
use crate::mutant;
use crate::shm::Window;
use crate::sys::errno::{self, number};
use crate::sys::heap::Filled;
use crate::sys::memory::{self, Access};
use crate::sys::thread::page_size;
use crate::sys::{file, now};

pub const UNIT: u64 = 32 << 10;
/// The units that always exist and that the host maps.
const MAPPED_UNITS: u64 = 2;
const HEAD: usize = 64;
/// A longer result lies in units of its own.
pub const SHORT: usize = UNIT as usize / 4;

/// What an entry says besides its fields.
pub mod flag {
    /// `ended` is a task that has ended.
    pub const ENDED: u32 = 1;
    /// `began` is a task that begins.
    pub const BEGAN: u32 = 2;
    /// The result lies at `unit`.
    pub const LONG: u32 = 4;
    /// The result could not be kept; `code` is an errno.
    pub const LOST: u32 = 8;
    /// The initializer is done.
    pub const READY: u32 = 16;
    /// The initializer returned `code`.
    pub const REFUSED: u32 = 32;
    /// The finalizer is done; nothing follows.
    pub const LEFT: u32 = 64;
    /// The journal goes on at `unit`.
    pub const NEXT: u32 = 128;
    /// The task that begins writes its result, of `length` bytes, at `unit`.
    pub const CHUNK: u32 = 256;
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub flags: u32,
    /// Sequence numbers and slots.
    pub ended: u64,
    pub ended_slot: u32,
    pub began: u64,
    pub began_slot: u32,
    pub code: i32,
    /// When it was written, on the monotonic clock.
    pub stamp: u64,
    /// Of the result.
    pub length: u64,
    pub unit: u64,
}

impl Entry {
    /// A task has ended, and its result could not be kept.
    pub fn lost(errno: i32) -> Entry {
        Entry { flags: flag::ENDED | flag::LOST, code: errno, ..Entry::default() }
    }

    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Whether `unit` and `length` say where a result lies, or will lie.
    fn elsewhere(&self) -> bool {
        self.has(flag::LONG) || self.has(flag::CHUNK)
    }

    /// How many bytes of result follow the entry.
    fn inline(&self) -> usize {
        if self.elsewhere() { 0 } else { self.length as usize }
    }

    fn encode(&self, mark: u64, result: &[u8], to: &mut Vec<u8>) {
        to.clear();
        to.extend_from_slice(&u64::from(tag(mark)).to_ne_bytes());
        for word in
            [self.ended, self.began, u64::from(self.ended_slot) | u64::from(self.began_slot) << 32, self.stamp, self.length]
        {
            to.extend_from_slice(&word.to_ne_bytes());
        }
        to.extend_from_slice(&self.code.to_ne_bytes());
        to.extend_from_slice(&self.flags.to_ne_bytes());
        to.extend_from_slice(&self.unit.to_ne_bytes());
        to.extend_from_slice(result);
        to.resize(to.len().next_multiple_of(8), 0);
        let check = check(mark, &to[8..HEAD], &to[HEAD..]);
        to[4..8].copy_from_slice(&check.to_ne_bytes());
    }

    /// `None` where this is not all of the entry that belongs here.
    fn decode(head: &[u8; HEAD], mark: u64) -> Option<Entry> {
        let word = |at: usize| head.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes);
        let (slots, code_and_flags) = (word(24), word(48));
        let entry = Entry {
            ended: word(8),
            began: word(16),
            ended_slot: slots as u32,
            began_slot: (slots >> 32) as u32,
            stamp: word(32),
            length: word(40),
            code: code_and_flags as i32,
            flags: (code_and_flags >> 32) as u32,
            unit: word(56),
        };
        let fits = entry.elsewhere() || entry.length <= SHORT as u64;
        (word(0) as u32 == tag(mark) && fits).then_some(entry)
    }
}

/// What an entry carries to prove that all of it was written, at the position that the mark belongs to.
fn check(mark: u64, head: &[u8], result: &[u8]) -> u32 {
    let result = if mutant::is("result_not_checked") { &[] } else { result };
    let mixed = add(add(mark, head), result);
    (mixed ^ mixed >> 32) as u32
}

/// Depends on every bit of what is added.
fn add(mixed: u64, bytes: &[u8]) -> u64 {
    bytes.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_ne_bytes)).fold(mixed, mix)
}

fn mix(seed: u64, word: u64) -> u64 {
    let mixed = (seed ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// The mark of the entry at a position: what another life, pool or round left there has another.
fn mark(seed: u64, position: u64) -> u64 {
    mix(seed, position)
}

/// Its upper half, which is the entry's tag. The check is begun with all of it: old entries with the same tag are met once in four
/// billion times, and one that was taken for the next would be taken in its stead.
fn tag(mark: u64) -> u32 {
    (mark >> 32) as u32
}

/// The seed of one life in one place of one pool.
pub fn seed(pool: u64, place: u32, life: u32) -> u64 {
    mix(pool, u64::from(place) << 32 | u64::from(life))
}

pub fn create() -> Result<OwnedFd> {
    let fd = memory::create_empty(c"tine-pool:journal")?;
    memory::extend(fd.as_fd(), 0, (MAPPED_UNITS * UNIT) as usize)?;
    Ok(fd)
}

/// The first unit behind everything that was written, for a worker whose predecessors are not retired yet.
pub fn end_unit(fd: i32) -> u32 {
    u32::try_from(file::length(borrow(fd)).div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// How much of a journal the host has read; `None` while it still reads what others have written in that place before.
pub type Consumed = Option<u64>;

/// How bytes come into the file. An exploration does it piece by piece, and kills in between.
pub trait Put {
    fn put(&self, file: BorrowedFd, data: &[u8], offset: u64) -> errno::Result<()>;
}

/// By one system call.
#[derive(Debug)]
pub struct AtOnce;

impl Put for AtOnce {
    fn put(&self, file: BorrowedFd, data: &[u8], offset: u64) -> errno::Result<()> {
        file::write_below_limit(file, data, offset)
    }
}

/// A worker's side. Failures are errnos.
#[derive(Debug)]
pub struct Writer<P = AtOnce> {
    fd: i32,
    put: P,
    seed: u64,
    /// Bytes of entries so far.
    position: u64,
    unit: u64,
    /// Within the unit.
    at: u64,
    /// Where this life began, while the host reads what others have written before that.
    first: Option<u64>,
    room: Room,
    /// What the host may still read: {unit, units}, and the position behind the entry that names or leaves them, in this order.
    unread: VecDeque<(u64, u64, u64)>,
    /// {unit, units} for a long result of the task that runs: no entry has said yet that it has ended.
    pending: Option<(u64, u64)>,
    buffer: Vec<u8>,
}

impl Writer {
    /// The journal of a life that begins in a unit.
    pub fn new(fd: i32, seed: u64, unit: u64) -> Writer {
        Writer::with(AtOnce, fd, seed, unit)
    }
}

impl<P: Put> Writer<P> {
    pub fn with(put: P, fd: i32, seed: u64, unit: u64) -> Writer<P> {
        let (first, room) = (Some(unit), Room::new(unit + 1));
        let (unread, buffer) = (VecDeque::new(), Vec::with_capacity(HEAD + SHORT));
        let mut writer = Writer { fd, put, seed, position: 0, unit, at: 0, first, room, unread, pending: None, buffer };
        if unit < MAPPED_UNITS {
            writer.free_before();
        }
        writer
    }

    /// Nobody reads any more what others have written.
    fn free_before(&mut self) {
        self.room.give(0, self.first.take().unwrap_or(0));
    }

    /// What the host has read is free.
    fn free_read(&mut self, consumed: Consumed) {
        let Some(consumed) = consumed else { return };
        self.free_before();
        let is_read = |behind| behind <= consumed || mutant::is("unread_room_taken");
        while let Some(&(unit, units, _)) = self.unread.front().filter(|&&(_, _, behind)| is_read(behind)) {
            self.unread.pop_front();
            self.room.give(unit, units);
        }
    }

    /// Bytes of entries so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Adds an entry; the host has read `consumed`. `result` is what is not LONG.
    pub fn append(&mut self, mut entry: Entry, result: &[u8], consumed: Consumed) -> errno::Result<()> {
        if !entry.elsewhere() {
            entry.length = result.len() as u64;
        }
        entry.stamp = now();
        let length = (HEAD + result.len()).next_multiple_of(8) as u64;
        // Room is kept for the entry that leads on.
        if self.at + length + HEAD as u64 > UNIT {
            let unit = self.take(1, 0, consumed)?;
            self.continue_in(unit)?;
        }
        self.write(&entry, result)?;
        if let Some((unit, units)) = self.pending.take_if(|_| entry.has(flag::ENDED)) {
            self.unread.push_back((unit, units, self.position));
        }
        Ok(())
    }

    fn continue_in(&mut self, unit: u64) -> errno::Result<()> {
        if let Err(errno) = self.write(&Entry { flags: flag::NEXT, unit, ..Entry::default() }, &[]) {
            self.room.give(unit, 1);
            return Err(errno);
        }
        self.unread.push_back((self.unit, 1, self.position));
        (self.unit, self.at) = (unit, 0);
        Ok(())
    }

    fn write(&mut self, entry: &Entry, result: &[u8]) -> errno::Result<()> {
        entry.encode(mark(self.seed, self.position), result, &mut self.buffer);
        self.put.put(borrow(self.fd), &self.buffer, self.unit * UNIT + self.at)?;
        self.position += self.buffer.len() as u64;
        self.at += self.buffer.len() as u64;
        Ok(())
    }

    /// Goes on in the units that the host maps, if it has read them. For a worker that has nothing to do.
    pub fn rewind(&mut self, consumed: Consumed) {
        if self.unit >= MAPPED_UNITS {
            self.free_read(consumed);
            if self.room.first_free() < MAPPED_UNITS {
                let unit = self.room.take(1, 0);
                // What cannot be written now need not be: there is room here.
                let _ = self.continue_in(unit);
            }
        }
    }

    /// So many units side by side that nobody uses.
    fn take(&mut self, count: u64, from: u64, consumed: Consumed) -> errno::Result<u64> {
        self.free_read(consumed);
        let unit = self.room.take(count, from);
        if (unit + count).saturating_mul(UNIT) > memory::file_size_limit() {
            self.room.give(unit, count);
            return Err(number::FILE_TOO_LARGE);
        }
        Ok(unit)
    }

    /// Makes room for a long result of `length` bytes; answers its unit.
    fn reserve_long(&mut self, length: u64, consumed: Consumed) -> errno::Result<u64> {
        let units = length.div_ceil(UNIT).max(1);
        let unit = self.take(units, MAPPED_UNITS, consumed)?;
        self.pending = Some((unit, units));
        Ok(unit)
    }

    /// Puts a long result where there is room for it.
    pub fn write_long(&mut self, data: &[u8], consumed: Consumed) -> errno::Result<u64> {
        let unit = self.reserve_long(data.len() as u64, consumed)?;
        if let Err(errno) = self.put.put(borrow(self.fd), data, unit * UNIT) {
            self.discard_long();
            return Err(errno);
        }
        Ok(unit)
    }

    /// A long result that is written in place, through a window of its own.
    pub fn map_long(&mut self, length: u64, consumed: Consumed) -> Result<(u64, Arc<Window>)> {
        memory::check_room(length as usize)?;
        let unit = self.reserve_long(length, consumed).map_err(|errno| crate::sys::failure(errno, "a chunk's results"))?;
        // Entries may have been there before, and the results begin as zeros.
        self.empty_long();
        memory::extend(borrow(self.fd), (unit * UNIT) as usize, length as usize)?;
        let window = Window::range(borrow(self.fd), unit * UNIT, length as usize, Access::ReadWrite);
        if window.is_err() {
            self.empty_long();
        }
        Ok((unit, window?))
    }

    /// A long result is not wanted any more, and no entry has named it.
    pub fn discard_long(&mut self) {
        self.empty_long();
        if let Some((unit, units)) = self.pending.take() {
            self.room.give(unit, units);
        }
    }

    /// The same for what an entry has named: until the host has read that the task has ended, it may read what lies there.
    pub fn empty_long(&mut self) {
        if let Some((unit, units)) = self.pending {
            file::punch(borrow(self.fd), unit * UNIT, units * UNIT);
        }
    }
}

fn borrow(fd: i32) -> BorrowedFd<'static> {
    crate::sys::fd::inherited(fd)
}

/// The host's side.
pub struct Reader {
    fd: OwnedFd,
    window: Arc<Window>,
    seed: u64,
    position: u64,
    unit: u64,
    at: u64,
    /// What was read of a unit that is not mapped, and where it begins: entries are short, and a call for each is slow.
    ahead: Vec<u8>,
    ahead_at: u64,
    /// For those who only look whether there is something.
    pub peek: Arc<Peek>,
}

/// No entry has this tag.
const NOBODY: u64 = 1 << 32;

/// Where the next entry of a journal will be, and its tag. Read by many threads, without a lock: what they see may be old.
#[derive(Debug)]
pub struct Peek {
    window: Arc<Window>,
    at: AtomicU64,
    tag: AtomicU64,
}

impl Peek {
    /// Whether the next entry may be there; `None` where only reading the file can tell.
    #[inline]
    pub fn has_entry(&self) -> Option<bool> {
        let (at, tag) = (self.at.load(Relaxed), self.tag.load(Relaxed));
        self.window.word(at as usize).map(|word| u64::from(word.atomic().load(Relaxed)) == tag)
    }
}

/// The entry that begins with `head`, if it and the short result that `rest` gives are what was written there.
fn checked(head: &[u8; HEAD], mark: u64, rest: impl FnOnce(usize) -> Option<Filled>) -> Option<(Entry, Option<Filled>)> {
    let entry = Entry::decode(head, mark)?;
    let padded = entry.inline().next_multiple_of(8);
    let result = if padded > 0 { Some(rest(padded)?) } else { None };
    let found = check(mark, &head[8..], result.as_deref().unwrap_or_default());
    let expected = u32::from_ne_bytes([head[4], head[5], head[6], head[7]]);
    (found == expected).then_some((entry, result))
}

impl Reader {
    pub fn new(fd: OwnedFd) -> Result<Reader> {
        let window = Window::new(fd.as_fd(), (MAPPED_UNITS * UNIT) as usize, Access::Read)?;
        window.keep_from_children()?;
        let peek = Arc::new(Peek { window: window.clone(), at: AtomicU64::new(0), tag: AtomicU64::new(NOBODY) });
        Ok(Reader { fd, window, seed: 0, position: 0, unit: 0, at: 0, ahead: Vec::new(), ahead_at: 0, peek })
    }

    pub fn fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// A life begins in a unit.
    pub fn begin(&mut self, seed: u64, unit: u64) {
        (self.seed, self.position, self.unit, self.at) = (seed, 0, unit, 0);
        self.ahead.clear();
        self.publish_peek();
    }

    /// The life is over, and everything that it wrote was read: gives the memory of the units before `end` back.
    pub fn finish(&mut self, end: u64) {
        file::punch(self.fd.as_fd(), MAPPED_UNITS * UNIT, end.saturating_sub(MAPPED_UNITS) * UNIT);
        self.peek.at.store(0, Relaxed);
        self.peek.tag.store(NOBODY, Relaxed);
    }

    /// Bytes of entries that were read.
    pub fn position(&self) -> u64 {
        self.position
    }

    fn publish_peek(&self) {
        self.peek.at.store(self.unit * UNIT + self.at, Relaxed);
        self.peek.tag.store(tag(mark(self.seed, self.position)).into(), Relaxed);
    }

    /// The next entry and its result (a short one is padded), if it is there. `Err`: the result cannot be read.
    pub fn next_entry(&mut self) -> Option<(Entry, errno::Result<Option<Filled>>)> {
        loop {
            let mark = mark(self.seed, self.position);
            let offset = self.unit * UNIT + self.at;
            let (entry, short) = self.entry(offset, mark)?;
            let length = (HEAD + entry.inline()).next_multiple_of(8) as u64;
            self.position += length;
            self.at += length;
            if entry.has(flag::NEXT) {
                (self.unit, self.at) = (entry.unit, 0);
                self.publish_peek();
                continue;
            }
            self.publish_peek();
            let result = if entry.has(flag::LONG) { self.long(&entry) } else { Ok(short) };
            return Some((entry, result));
        }
    }

    /// The entry at `offset` with its short result, if all of it is there.
    fn entry(&mut self, offset: u64, mark: u64) -> Option<(Entry, Option<Filled>)> {
        if self.is_mapped(offset, HEAD) {
            if self.peek.has_entry() == Some(false) {
                return None;
            }
            let head = self.window.read_array(offset as usize)?;
            return checked(&head, mark, |length| self.window.copy(offset as usize + HEAD, length));
        }
        // What was read ahead may have been read before it was written.
        for fresh in [false, true] {
            if fresh {
                self.read_ahead(offset);
            }
            let ahead = offset.checked_sub(self.ahead_at).and_then(|at| self.ahead.get(at as usize..)).unwrap_or_default();
            let Some((head, rest)) = ahead.split_first_chunk() else { continue };
            let entry = checked(head, mark, |length| rest.get(..length).and_then(Filled::copy_of));
            if entry.is_some() {
                return entry;
            }
        }
        None
    }

    /// Reads the rest of the unit, or enough of it.
    fn read_ahead(&mut self, offset: u64) {
        const ENOUGH: u64 = (HEAD + SHORT) as u64;
        self.ahead.resize((UNIT - offset % UNIT).min(ENOUGH) as usize, 0);
        self.ahead_at = offset;
        let read = file::read_some(self.fd.as_fd(), &mut self.ahead, offset).unwrap_or(0);
        self.ahead.truncate(read);
    }

    fn is_mapped(&self, offset: u64, length: usize) -> bool {
        offset.saturating_add(length as u64) <= MAPPED_UNITS * UNIT
    }

    /// Reads a long result, and gives its memory back.
    fn long(&self, entry: &Entry) -> errno::Result<Option<Filled>> {
        let offset = entry.unit.checked_mul(UNIT).ok_or(number::FILE_TOO_LARGE)?;
        let length = usize::try_from(entry.length).map_err(|_| number::FILE_TOO_LARGE)?;
        let result = file::read_new(self.fd.as_fd(), length, offset);
        // Whole pages: of one that is punched in part nothing is given back.
        file::punch(self.fd.as_fd(), offset, entry.length.next_multiple_of(page_size() as u64));
        result
    }

    /// What a worker that died had written of a chunk's results.
    pub fn unfinished(&self, unit: u64, length: u64) -> Option<Filled> {
        let entry = Entry { unit, length, ..Entry::default() };
        self.long(&entry).ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> (Writer, Reader) {
        let fd = create().unwrap();
        let seed = seed(7, 1, 1);
        let mut reader = Reader::new(crate::sys::fd::duplicate(&fd).unwrap()).unwrap();
        reader.begin(seed, 0);
        (Writer::new(std::os::fd::IntoRawFd::into_raw_fd(fd), seed, 0), reader)
    }

    fn ended(sequence: u64) -> Entry {
        Entry { flags: flag::ENDED, ended: sequence, ..Entry::default() }
    }

    #[test]
    fn entries_arrive_in_order_with_their_results() {
        let (mut writer, mut reader) = both();
        assert!(reader.next_entry().is_none() && reader.peek.has_entry() == Some(false));
        for number in 0..5000u64 {
            let result = vec![number as u8; (number % 300) as usize];
            writer.append(ended(number), &result, Some(reader.position())).unwrap();
            assert_eq!(reader.peek.has_entry(), Some(true));
            let (entry, data) = reader.next_entry().unwrap();
            assert_eq!((entry.ended, entry.length as usize), (number, result.len()));
            let data = data.unwrap();
            assert_eq!(data.as_deref().map_or(&[][..], |data| &data[..result.len()]), result);
            assert!(reader.next_entry().is_none());
        }
        // A host that keeps up needs no more than the first units.
        assert!(writer.room.end() <= MAPPED_UNITS);
    }

    #[test]
    fn a_host_that_does_not_read_makes_the_journal_grow_and_loses_nothing() {
        let (mut writer, mut reader) = both();
        for round in 0..3 {
            for number in 0..3000u64 {
                writer.append(ended(number), &[round; 100], Some(reader.position())).unwrap();
            }
            assert!(writer.room.end() > MAPPED_UNITS);
            for number in 0..3000 {
                assert_eq!(reader.next_entry().unwrap().0.ended, number);
            }
            assert!(reader.next_entry().is_none());
        }
    }

    #[test]
    fn long_results_lie_elsewhere_and_their_room_is_used_again() {
        let (mut writer, mut reader) = both();
        let data = vec![9; 1 << 20];
        let mut units = Vec::new();
        for _ in 0..3 {
            let unit = writer.write_long(&data, Some(reader.position())).unwrap();
            let entry = Entry { flags: flag::ENDED | flag::LONG, unit, length: data.len() as u64, ..Entry::default() };
            writer.append(entry, &[], Some(reader.position())).unwrap();
            assert_eq!(reader.next_entry().unwrap().1.unwrap().as_deref(), Some(&data[..]));
            units.push(unit);
        }
        assert!(units.windows(2).all(|pair| pair[0] == pair[1]));
    }

    fn write_long(writer: &mut Writer, reader: &Reader, data: &[u8]) -> Entry {
        let unit = writer.write_long(data, Some(reader.position())).unwrap();
        Entry { flags: flag::ENDED | flag::LONG, unit, length: data.len() as u64, ..Entry::default() }
    }

    /// Bytes that the file takes.
    fn memory(writer: &Writer) -> u64 {
        file::in_use(borrow(writer.fd))
    }

    #[test]
    fn their_room_is_used_again_by_a_worker_that_is_always_ahead() {
        let (mut writer, mut reader) = both();
        let (before, began) = (memory(&writer), Entry { flags: flag::BEGAN, ..Entry::default() });
        for number in 0..200u64 {
            writer.append(began, &[], Some(reader.position())).unwrap();
            let long = write_long(&mut writer, &reader, &[number as u8; 9000]);
            writer.append(Entry { ended: number, ..long }, &[], Some(reader.position())).unwrap();
            // One result after the other, and one is always left.
            if let Some(before) = number.checked_sub(1) {
                let (entry, result) =
                    std::iter::from_fn(|| reader.next_entry()).find(|(entry, _)| entry.has(flag::ENDED)).unwrap();
                assert_eq!((entry.ended, result.unwrap().as_deref()), (before, Some(&[before as u8; 9000][..])));
            }
        }
        assert!(writer.room.end() <= MAPPED_UNITS + 3, "{:?}", writer.room);
        assert!(memory(&writer) <= before + UNIT);
    }

    #[test]
    fn so_is_that_of_long_results_that_nobody_wants() {
        let (mut writer, mut reader) = both();
        let before = memory(&writer);
        for number in 0..200u64 {
            write_long(&mut writer, &reader, &[1; 9000]);
            writer.discard_long();
            writer.append(ended(number), b"short", Some(reader.position())).unwrap();
            assert_eq!(reader.next_entry().unwrap().0.ended, number);
        }
        assert!(writer.room.end() <= MAPPED_UNITS && memory(&writer) == before);
    }

    /// The host reads what a dead worker has left of it.
    #[test]
    fn the_room_of_a_chunk_is_not_used_again_before_its_end_was_read() {
        let (mut writer, mut reader) = both();
        let (unit, _) = writer.map_long(100, Some(0)).unwrap();
        let begins = Entry { flags: flag::BEGAN | flag::CHUNK, unit, length: 100, ..Entry::default() };
        writer.append(begins, &[], Some(0)).unwrap();
        let _ = reader.next_entry().unwrap();
        writer.empty_long();
        let lost = Entry { ended: 1, ..Entry::lost(number::NO_MEMORY) };
        writer.append(lost, &[], Some(reader.position())).unwrap();
        assert!(write_long(&mut writer, &reader, &[1; 9000]).unit > unit);
        writer.discard_long();
        let _ = reader.next_entry().unwrap();
        assert_eq!(write_long(&mut writer, &reader, &[1; 9000]).unit, unit);
    }

    #[test]
    fn what_another_life_left_is_no_entry() {
        let (mut writer, mut reader) = both();
        writer.append(ended(1), &[], Some(0)).unwrap();
        reader.begin(seed(7, 1, 2), 0);
        assert!(reader.next_entry().is_none());
    }

    #[test]
    fn nor_is_it_one_if_its_mark_begins_in_the_same_way() {
        let seed_of = |life| seed(7, 1, life);
        let mut lives: Vec<_> = (0..400_000).map(|life| (tag(mark(seed_of(life), 0)), life)).collect();
        lives.sort_unstable();
        let twins = lives.windows(2).find(|pair| pair[0].0 == pair[1].0).unwrap();
        let fd = create().unwrap();
        let mut reader = Reader::new(crate::sys::fd::duplicate(&fd).unwrap()).unwrap();
        let mut writer = Writer::new(std::os::fd::IntoRawFd::into_raw_fd(fd), seed_of(twins[0].1), 0);
        writer.append(ended(1), &[], Some(0)).unwrap();
        reader.begin(seed_of(twins[1].1), 0);
        assert_eq!(reader.peek.has_entry(), Some(true));
        assert!(reader.next_entry().is_none());
    }

    #[test]
    fn a_successor_begins_behind_and_comes_back_when_its_predecessor_is_retired() {
        let (mut first, mut reader) = both();
        for number in 0..700 {
            first.append(ended(number), &[1; 40], None).unwrap();
        }
        let unit = u64::from(end_unit(first.fd));
        assert!(unit >= MAPPED_UNITS);
        let mut second = Writer::new(first.fd, seed(7, 1, 3), unit);
        second.append(ended(1000), b"second", None).unwrap();
        for number in 0..700 {
            assert_eq!(reader.next_entry().unwrap().0.ended, number);
        }
        assert!(reader.next_entry().is_none());
        reader.finish(unit);
        reader.begin(seed(7, 1, 3), unit);
        assert_eq!(reader.next_entry().unwrap().0.ended, 1000);
        second.rewind(Some(reader.position()));
        second.append(ended(1001), b"", Some(reader.position())).unwrap();
        assert_eq!(reader.next_entry().unwrap().0.ended, 1001);
        assert!(reader.unit < MAPPED_UNITS && reader.peek.has_entry() == Some(false));
    }

    /// A host that reads now and then, and a worker that does everything it can, in an order that only a number decides.
    #[test]
    fn whatever_the_host_reads_when_it_finds_all_entries_in_order() {
        for round in 0..20u64 {
            let (mut writer, mut reader) = both();
            let mut state = round;
            let mut random = move |below: u64| {
                state = mix(state, 1);
                state % below
            };
            let (mut written, mut read, mut published, mut asleep_until) = (0u64, 0, Some(0), 0);
            let take = |reader: &mut Reader, read: &mut u64, many: u64| {
                for _ in 0..many {
                    let Some((entry, result)) = reader.next_entry() else { break };
                    assert_eq!(entry.ended, *read);
                    let result = result.unwrap();
                    let result = result.as_deref().map_or(&[][..], |result| &result[..entry.length as usize]);
                    assert!(result.iter().all(|&byte| byte == *read as u8));
                    *read += 1;
                }
            };
            while written < 8000 {
                match random(100) {
                    0..70 => {
                        let longest = if random(10) == 0 { SHORT as u64 } else { 80 };
                        let result = vec![written as u8; random(longest) as usize];
                        writer.append(ended(written), &result, published).unwrap();
                        written += 1;
                    }
                    70..72 => {
                        let result = vec![written as u8; 9000 + random(90_000) as usize];
                        let unit = writer.write_long(&result, published).unwrap();
                        let long = Entry { flags: flag::ENDED | flag::LONG, unit, length: result.len() as u64, ..ended(written) };
                        writer.append(long, &[], published).unwrap();
                        written += 1;
                    }
                    72..75 => writer.rewind(published),
                    _ if written < asleep_until => {}
                    // Reads all, and sleeps while units fill.
                    75 => {
                        take(&mut reader, &mut read, u64::MAX);
                        published = Some(reader.position());
                        writer.rewind(published);
                        asleep_until = written + random(1000);
                    }
                    _ => {
                        take(&mut reader, &mut read, random(60));
                        // What the worker learns may be old.
                        if random(4) > 0 {
                            published = Some(reader.position());
                        }
                    }
                }
            }
            while let Some((entry, _)) = reader.next_entry() {
                assert_eq!(entry.ended, read);
                read += 1;
            }
            assert_eq!(read, written);
        }
    }
}
