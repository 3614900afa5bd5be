//! What one participant of a trial does, and where it reports that.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64};

use crate::support::arena::Plain;
use crate::tracer;

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Puts the message of this number.
    Put(u64),
    Get,
    /// Puts [`MANY`] messages from this number on, by one call.
    PutMany(u64),
    /// Gets up to [`MANY`] messages by one call.
    GetMany,
    /// Reserves room, abandons it, reserves it again, writes the message of this number there and commits it.
    Fill(u64),
    /// Peeks, unpeeks, peeks, reads and releases.
    Show,
    /// Declares a message done.
    TaskDone,
    /// Waits until all are.
    Join,
    Close,
    Acquire,
    Release,
    /// Acquires a lock, looks whether it is alone, releases.
    Use,
    /// Takes a permit.
    Take,
    /// Gives that many permits.
    Give(u32),
    Set,
    Wait,
    Clear,
    /// Notifies so many.
    Notify(u32),
}

impl Act {
    /// Whether the call takes a timeout: the others wait for as long as a peer stands still inside.
    pub fn has_timeout(self) -> bool {
        matches!(self, Act::Acquire | Act::Use | Act::Take | Act::Wait | Act::Join) || self.puts() > 0 || self.gets()
    }

    /// Whether the call waits for words that others own, without a limit.
    pub fn may_block_for_ever(self) -> bool {
        matches!(self, Act::Close | Act::Give(_) | Act::Set | Act::Clear | Act::TaskDone | Act::Notify(_))
    }

    /// How many messages it puts, if all have room.
    pub fn puts(self) -> u64 {
        match self {
            Act::Put(_) | Act::Fill(_) => 1,
            Act::PutMany(_) => MANY,
            _ => 0,
        }
    }

    /// Their numbers.
    pub fn messages(self) -> std::ops::Range<u64> {
        match self {
            Act::Put(first) | Act::Fill(first) | Act::PutMany(first) => first..first + self.puts(),
            _ => 0..0,
        }
    }

    /// Whether it takes messages.
    pub fn gets(self) -> bool {
        matches!(self, Act::Get | Act::GetMany | Act::Show)
    }
}

/// How many messages one call puts, or gets.
pub const MANY: u64 = 3;

pub const STARTED: u32 = 1;
pub const RETURNED: u32 = 2;

/// One participant's report, in memory that outlives it.
#[repr(C)]
pub struct Seat {
    /// 0, [`STARTED`] or [`RETURNED`].
    pub state: AtomicU32,
    pub status: AtomicI32,
    /// Its preparations are over.
    pub ready: AtomicU32,
    /// It stops itself for the tracer before its operation.
    pub traced: AtomicU32,
    /// Counts what must never be: a message that is not whole, two inside a lock.
    pub odd: AtomicU32,
    /// What it saw before its operation: [`Act::Clear`] says here whether the event was set.
    pub saw: AtomicU32,
    /// Notes of owners that died.
    pub died: AtomicU32,
    /// Length of what it got.
    pub length: AtomicU64,
    /// What it got. It lies here so that one knows what a dead one was taking.
    pub buffer: [AtomicU8; BUFFER],
}

/// Room for the longest message of the laboratory.
pub const BUFFER: usize = 8192;

// SAFETY: atomics only.
unsafe impl Plain for Seat {}

impl Seat {
    pub fn reset(&self) {
        for word in [&self.state, &self.ready, &self.traced, &self.odd, &self.saw, &self.died] {
            word.store(0, SeqCst);
        }
        self.status.store(0, SeqCst);
        self.length.store(0, SeqCst);
        for byte in &self.buffer[..8] {
            byte.store(0, SeqCst);
        }
    }

    /// Directly before the operation. A traced participant stops here.
    pub fn begin(&self) {
        self.state.store(STARTED, SeqCst);
        if self.traced.load(SeqCst) != 0 {
            tracer::stop_for_tracer();
        }
    }

    /// Directly after the operation.
    pub fn end(&self, status: i32) -> i32 {
        self.status.store(status, SeqCst);
        self.state.store(RETURNED, SeqCst);
        status
    }

    pub fn returned(&self) -> Option<i32> {
        (self.state.load(SeqCst) == RETURNED).then(|| self.status.load(SeqCst))
    }

    pub fn started(&self) -> bool {
        self.state.load(SeqCst) == STARTED
    }

    /// The bytes in the buffer.
    pub fn message(&self, length: usize) -> Vec<u8> {
        self.buffer[..length.min(BUFFER)].iter().map(|byte| byte.load(SeqCst)).collect()
    }

    pub fn is_odd(&self) {
        self.odd.fetch_add(1, SeqCst);
    }
}
