//! What a worker writes to standard error, where the host wants its end back if the worker dies.
//!
//! Descriptor 2 of the worker is a file in memory that the processes in one place append to, one after the other. Writing to it never
//! waits. The worker copies what is new to where descriptor 2 went before, after each task; what a dead one did not copy any more the
//! nursery does, as far as it need not wait. The host reads the end of what a dead worker wrote before it retires it; the memory of
//! what was copied is given back up to there, and the next process that is born when all before it are retired finds the file empty.
//!
//! Where the length of files is limited (RLIMIT_FSIZE), a worker also shortens the file itself when all of it was copied, for whoever
//! writes beyond the limit dies of SIGXFSZ. What a thread or a child of a task writes at that very moment is lost, and of a worker that
//! dies next there is less to tell; so without a limit it does not.
#![forbid(unsafe_code)]

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::Relaxed;

use crate::shm::Words;
use crate::shm::pool::Duty;
use crate::sys::fd::inherited;
use crate::sys::file;
use crate::sys::memory;
use crate::sys::nursery as os;
use crate::sys::stderr::{self, Sink};
use crate::sys::thread::Thread;

const PIECE: usize = 16 << 10;
/// Memory is given back in pieces of at least this.
const KEPT: u64 = 256 << 10;
/// The file is shortened when it takes so much of what RLIMIT_FSIZE allows: the next task has all of the rest.
const PART_OF_LIMIT: u64 = 4;
/// The nursery copies so much at most, of the end.
const MOST: u64 = 16 << 20;

/// A worker's side.
pub(super) struct Stderr {
    file: RawFd,
    /// Where it goes.
    to: RawFd,
    /// Where this process's own part begins.
    from: u64,
    passed_on: u64,
    given_back: u64,
    /// What the host wants to have.
    tail: u64,
}

impl Stderr {
    /// From now on descriptor 2 of this process is `file`.
    pub(super) fn new(file: RawFd, tail: u32) -> Stderr {
        let from = file::length(inherited(file));
        let before = stderr::redirect(file);
        let to = if before < 0 { before } else { os::move_up(before) };
        Stderr { file, to, from, passed_on: from, given_back: from, tail: tail.into() }
    }

    pub(super) fn has_more(&self) -> bool {
        file::length(inherited(self.file)) > self.passed_on
    }

    /// Copies what is new. `all_is_read`: the host has read what others wrote here before.
    pub(super) fn pass_on(&mut self, w: Thread, duty: &Duty, all_is_read: bool) {
        let end = file::length(inherited(self.file));
        let mut piece = [0; PIECE];
        while self.passed_on < end {
            let wanted = (end - self.passed_on).min(PIECE as u64) as usize;
            let read = file::read_some(inherited(self.file), &mut piece[..wanted], self.passed_on).unwrap_or(0);
            // What nobody takes is lost, as with any standard error.
            if read == 0 || !stderr::write_all(self.to, &piece[..read]) {
                self.passed_on = end;
            } else {
                self.passed_on += read as u64;
            }
            w.store64(&duty.passed_on, self.passed_on, Relaxed);
        }
        let keep_from = self.passed_on.saturating_sub(self.tail);
        if all_is_read && keep_from > self.given_back + KEPT {
            file::punch(inherited(self.file), self.given_back, keep_from - self.given_back);
            self.given_back = keep_from;
        }
        let much = self.passed_on - self.from > memory::file_size_limit() / PART_OF_LIMIT;
        if much && file::length(inherited(self.file)) == self.passed_on {
            file::shorten(inherited(self.file), self.from);
            (self.passed_on, self.given_back) = (self.from, self.from);
            w.store64(&duty.passed_on, self.from, Relaxed);
        }
    }
}

/// The nursery's: copies what a dead worker did not, of what lies between `from` and the end; answers the end.
pub(super) fn pass_on_rest(w: Thread, file: RawFd, duty: &Duty, from: u64, sink: Sink) -> u64 {
    let end = file::length(inherited(file));
    let passed_on = w.load64(&duty.passed_on, Relaxed);
    let mut at = if (from..=end).contains(&passed_on) { passed_on } else { from }.max(end.saturating_sub(MOST));
    let mut piece = [0; PIECE];
    while at < end {
        let wanted = (end - at).min(PIECE as u64) as usize;
        let read = file::read_some(inherited(file), &mut piece[..wanted], at).unwrap_or(0);
        match sink.write(&piece[..read]) {
            0 => break,
            written => at += written as u64,
        }
    }
    end
}

/// The host's: the last `tail` bytes between `from` and `end`, as far as there is memory for them.
pub(super) fn read_tail(file: RawFd, from: u64, end: u64, tail: u32) -> Option<Vec<u8>> {
    let from = end.saturating_sub(tail.into()).max(from);
    let length = usize::try_from(end.saturating_sub(from)).ok()?;
    let mut text = Vec::new();
    // With an end that C knows.
    text.try_reserve_exact(length + 1).ok()?;
    text.resize(length, 0);
    let read = file::read_some(inherited(file), &mut text, from).unwrap_or(0);
    text.truncate(read);
    text.push(0);
    Some(text)
}
