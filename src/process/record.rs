//! What a parent and its child tell each other in shared memory.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::{Acquire, Release};

use crate::error::Result;
use crate::shm::{Object, Word, Words, slab};
use crate::sys::thread::Thread;
use crate::sys::{Deadline, fork, interrupt};
use crate::timeout::Timeout;

/// Two words.
/// - `GATE`: how far the start has come.
/// - `CODE`: 0, or `LEFT` with the code that the child left with.
#[derive(Clone, Debug)]
pub struct Record(Object<[Word; 2]>);

const GATE: usize = 0;
const CODE: usize = 1;
const LEFT: u32 = 1 << 8;

/// The states of the gate, in the order in which they can follow each other. What a child that scribbles may do with them is keep
/// its own start waiting until it ends.
mod gate {
    /// The child waits.
    pub const CLOSED: u32 = 0;
    /// The parent holds it: the child runs.
    pub const OPEN: u32 = 1;
    /// The parent could not hold it: the child leaves.
    pub const CANCELLED: u32 = 2;
    /// Of a daemon child: its watcher runs.
    pub const READY: u32 = 3;
    /// Its watcher could not be made: no thread to be had.
    pub const FAILED: u32 = 4;
}

/// How long either side sleeps before it looks whether the other still lives.
const LOOK_MS: u64 = 50;

impl Record {
    pub fn new() -> Result<Record> {
        Ok(Record(slab::place()?))
    }

    /// The code that the child left with, if it did that by itself.
    pub fn code(&self) -> Option<i32> {
        // SYNC POINT: exit code (acquire).
        let word = Thread::current().load(&self.0[CODE], Acquire);
        (word & !0xff == LEFT).then_some((word & 0xff) as i32)
    }

    /// In the child, right before it leaves. The first code stays.
    pub fn leave(&self, code: i32) {
        // SYNC POINT: exit code (release).
        let _ = Thread::current().cas(&self.0[CODE], 0, LEFT | (code & 0xff) as u32, Release);
    }

    /// In the child: waits until the parent has opened the gate. `false`: it will not, or is gone.
    pub fn wait_at_gate(&self, parent_lives: impl Fn() -> bool) -> bool {
        self.wait_while(gate::CLOSED, parent_lives) == gate::OPEN
    }

    /// In the parent.
    pub fn open_gate(&self) {
        self.set_gate(gate::OPEN);
    }

    pub fn cancel(&self) {
        self.set_gate(gate::CANCELLED);
    }

    /// In a daemon child, after the gate: whether its watcher runs.
    pub fn tell_ready(&self, ready: bool) {
        self.set_gate(if ready { gate::READY } else { gate::FAILED });
    }

    /// In the parent of a daemon child: `false` if it could not make its watcher.
    pub fn wait_ready(&self, child_lives: impl Fn() -> bool) -> bool {
        self.wait_while(gate::OPEN, child_lives) != gate::FAILED
    }

    fn set_gate(&self, state: u32) {
        let w = Thread::current();
        // SYNC POINT: gate (release).
        w.store(&self.0[GATE], state, Release);
        w.wake(&self.0[GATE], u32::MAX);
    }

    /// The state that follows `state`, or `state` if the other side is gone.
    fn wait_while(&self, state: u32, other_lives: impl Fn() -> bool) -> u32 {
        let w = Thread::current();
        loop {
            // SYNC POINT: gate (acquire).
            let seen = w.load(&self.0[GATE], Acquire);
            if seen != state || !other_lives() {
                return seen;
            }
            // A start comes to its end: no check is asked.
            let _ = interrupt::unasked(|| w.wait(&self.0[GATE], state, &Deadline::new(Timeout::Millis(LOOK_MS))));
        }
    }
}

/// Ends a child that never began.
pub fn exit_unstarted() -> ! {
    fork::exit_now(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_code_stays() {
        let record = Record::new().unwrap();
        assert_eq!(record.code(), None);
        record.leave(0x103);
        record.leave(4);
        assert_eq!(record.code(), Some(3));
        Thread::current().store(&record.0[CODE], u32::MAX, Release);
        assert_eq!(record.code(), None);
    }
}
