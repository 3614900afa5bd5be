//! A task as its function sees it, in a worker.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::board::Board;
use super::journal::{Consumed, Entry, SHORT, Writer, flag};
use super::memory::Tasks;
use crate::error::{Error, Kind, Result};
use crate::process::foreign;
use crate::shm::pool::{ChunkHead, TaskRecord};
use crate::shm::{View, Window, Words};
use crate::sys::errno::{self, number};
use crate::sys::heap::Filled;
use crate::sys::memory::{self, Access};
use crate::sys::thread::{self, Thread, page_size};
use crate::sys::{failure, now};

/// Flags of a task's record.
pub mod flags {
    /// The argument lies behind the mapped memory: `argument_at` is an offset in the file.
    pub const UNMAPPED: u32 = 1;
    /// The host's delivery thread wants to hear of its end.
    pub const NOTIFY: u32 = 2;
    /// Nobody waits for it any more: it need not be run.
    pub const CANCELLED: u32 = 4;
    /// A reply may have `result_size` bytes at most.
    pub const LIMITED: u32 = 8;
}

/// How long a task may run, in milliseconds; 0 = without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Then its worker is ended.
    pub timeout_ms: u64,
    /// Then it is told so.
    pub soft_timeout_ms: u64,
}

impl Limits {
    pub(super) fn of(w: Thread, record: &TaskRecord) -> Limits {
        let (timeout_ms, soft_timeout_ms) = (w.load64(&record.timeout_ms, Relaxed), w.load64(&record.soft_timeout_ms, Relaxed));
        Limits { timeout_ms, soft_timeout_ms }
    }

    pub(super) fn any(self) -> bool {
        self != Limits::default()
    }

    /// When a task that began then has run for long enough.
    pub(super) fn end(self, began: u64) -> Option<u64> {
        after(began, self.timeout_ms)
    }

    /// When it is told so.
    pub(super) fn soft_end(self, began: u64) -> Option<u64> {
        after(began, self.soft_timeout_ms)
    }
}

fn after(began: u64, millis: u64) -> Option<u64> {
    (millis != 0).then(|| began.saturating_add(millis.saturating_mul(1_000_000)))
}

/// What the functions of one pool are, to its workers. Addresses are the host's, which the workers share; the boundary knows what
/// they mean.
pub trait Code: Send + Sync {
    /// The worker's state, or why there is none.
    fn initialize(&self) -> std::result::Result<usize, i32>;
    fn finalize(&self, state: usize);
    fn run(&self, function: usize, argument: *const u8, length: usize, task: &Task) -> i32;
}

/// Calls a function of the user's. An exception that comes out of it ends the process as abort(3) does, as in any thread.
pub(super) fn call_user<T>(body: impl FnOnce() -> T) -> T {
    foreign::guard(|| std::process::abort(), body)
}

/// An argument, mapped as long as this lives.
pub(super) struct Argument {
    pub(super) address: *const u8,
    _window: Option<Arc<Window>>,
}

impl Argument {
    /// What lies at an offset of the task memory; `fd` is a descriptor of it.
    pub(super) fn of(tasks: &Tasks, fd: BorrowedFd, at: u64, length: usize, task_flags: u32) -> errno::Result<Argument> {
        if task_flags & flags::UNMAPPED == 0 {
            let address = tasks.window.address(at as usize, length);
            return Ok(Argument { address: address.unwrap_or(std::ptr::null()), _window: None });
        }
        // What is left of a chunk begins anywhere.
        let inside = (at % page_size() as u64) as usize;
        let window = Window::range(fd, at - inside as u64, inside + length, Access::Read).map_err(|error| error.errno())?;
        Ok(Argument { address: window.address(inside, length).unwrap_or(std::ptr::null()), _window: Some(window) })
    }
}

/// The task that a worker is running, and what it will say about it.
pub struct Task {
    /// Of the worker: a copy that the task forks has nothing to say.
    epoch: u64,
    board: Arc<Board>,
    pub worker: u32,
    pub state: usize,
    id: Cell<u64>,
    attempt: Cell<u32>,
    slot: Cell<u32>,
    /// When it is told that it should end.
    soft_end: Cell<Option<u64>>,
    reply: Mutex<Reply>,
}

pub(super) struct Reply {
    /// `None` in a thread of the host: its results stay here.
    journal: Option<Writer>,
    place: u32,
    life: u32,
    short: Vec<u8>,
    /// {unit, length}
    long: Option<(u64, u64)>,
    limit: u64,
    /// A reply was refused because it was longer than the limit.
    too_long: bool,
    chunk: Option<Chunk>,
}

/// The results of a chunk of a map that is being run.
struct Chunk {
    unit: u64,
    length: u64,
    window: Arc<Window>,
    head: View<ChunkHead>,
    /// Where the current item's result goes.
    at: usize,
    replied: usize,
}

impl Task {
    pub(super) fn new(board: Arc<Board>, place: u32, life: u32, worker: u32, state: usize, journal: Writer) -> Task {
        Task::with(board, place, life, worker, state, Some(journal))
    }

    /// In a thread of the host.
    pub(super) fn in_thread(board: Arc<Board>, place: u32, state: usize) -> Task {
        Task::with(board, place, 1, place, state, None)
    }

    fn with(board: Arc<Board>, place: u32, life: u32, worker: u32, state: usize, journal: Option<Writer>) -> Task {
        let (short, long, chunk) = (Vec::new(), None, None);
        Task {
            epoch: thread::epoch(),
            board,
            worker,
            state,
            id: Cell::new(0),
            attempt: Cell::new(0),
            slot: Cell::new(0),
            soft_end: Cell::new(None),
            reply: Mutex::new(Reply { journal, place, life, short, long, limit: u64::MAX, too_long: false, chunk }),
        }
    }

    pub(super) fn begin(&self, slot: u32, id: u64, attempt: u32) {
        self.slot.set(slot);
        self.id.set(id);
        self.attempt.set(attempt);
    }

    /// Nothing panics under it.
    pub(super) fn reply_state(&self) -> MutexGuard<'_, Reply> {
        self.reply.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this process was forked by the task.
    pub(super) fn is_copy(&self) -> bool {
        self.epoch != thread::epoch()
    }

    pub fn id(&self) -> u64 {
        self.id.get()
    }

    /// 1 for the first.
    pub fn attempt(&self) -> u32 {
        self.attempt.get()
    }

    /// Its function, or the next item's, is about to be called.
    pub(super) fn set_soft_end(&self, end: Option<u64>) {
        self.soft_end.set(end);
    }

    /// Whether it should end: nobody waits for it, or it has run for long enough.
    pub fn is_cancelled(&self) -> bool {
        self.is_abandoned() || self.soft_end.get().is_some_and(|end| now() >= end)
    }

    /// Whether nobody waits for it any more.
    pub(super) fn is_abandoned(&self) -> bool {
        let record = self.board.tasks.records.get(self.slot.get() as usize);
        record.is_some_and(|record| Thread::current().load(&record.flags, Relaxed) & flags::CANCELLED != 0)
    }

    /// Keeps the result; a second one takes the place of the first.
    pub fn reply(&self, data: &[u8]) -> Result<()> {
        if self.is_copy() {
            return Err(Error::new(Kind::Forked, "tine_task_reply: this process is a copy of the worker"));
        }
        let mut reply = self.reply_state();
        let consumed = consumed(&self.board, reply.place, reply.life);
        reply.keep(data, consumed)
    }
}

/// How much of its journal the host has read.
pub(super) fn consumed(board: &Board, place: u32, life: u32) -> Consumed {
    let (w, receipt) = (Thread::current(), board.tasks.receipts.get(place as usize)?);
    // SYNC POINT: retired (acquire): with it comes that nothing of this life was read yet, or what was.
    let retired = w.load(&receipt.retired, Acquire);
    (retired == life - 1).then(|| w.load64(&receipt.consumed, Acquire))
}

impl Reply {
    fn keep(&mut self, data: &[u8], consumed: Consumed) -> Result<()> {
        if data.len() as u64 > self.limit {
            self.too_long = true;
            let limit = self.limit;
            return Err(Error::new(
                Kind::MessageSize,
                format!("tine_task_reply: {} bytes exceed result_size {limit}", data.len()),
            ));
        }
        if let Some(chunk) = &mut self.chunk {
            chunk.keep(data);
            return Ok(());
        }
        self.forget();
        let Some(journal) = self.journal.as_mut().filter(|_| data.len() > SHORT) else {
            let room = self.short.try_reserve(data.len());
            room.map_err(|_| Error::new(Kind::NoMemory, format!("tine_task_reply: {} bytes", data.len())))?;
            self.short.extend_from_slice(data);
            return Ok(());
        };
        crate::sys::memory::check_room(data.len())?;
        let unit = journal.write_long(data, consumed);
        let unit = unit.map_err(|errno| failure(errno, format_args!("tine_task_reply: {} bytes", data.len())))?;
        self.long = Some((unit, data.len() as u64));
        Ok(())
    }

    fn forget(&mut self) {
        self.short.clear();
        if let (Some(_), Some(journal)) = (self.long.take(), &mut self.journal) {
            journal.discard_long();
        }
    }

    /// A task begins whose replies have `limit` bytes at most.
    pub(super) fn begin(&mut self, limit: u64) {
        self.forget();
        self.limit = limit;
        self.too_long = false;
    }

    /// How the task that has returned `code` ended; what goes with the entry is [`Reply::result`].
    pub(super) fn end(&mut self, code: i32) -> Entry {
        if self.too_long {
            self.forget();
            return Entry::lost(number::MESSAGE_SIZE);
        }
        let ended = Entry { flags: flag::ENDED, code, ..Entry::default() };
        match self.long.take() {
            Some((unit, length)) => Entry { flags: flag::ENDED | flag::LONG, unit, length, ..ended },
            None => ended,
        }
    }

    pub(super) fn append(&mut self, entry: Entry, consumed: Consumed) -> errno::Result<()> {
        let result: &[u8] =
            if entry.has(flag::ENDED) && !entry.has(flag::LONG) && !entry.has(flag::LOST) { &self.short } else { &[] };
        self.journal.as_mut().map_or(Ok(()), |journal| journal.append(entry, result, consumed))
    }

    /// Of the journal: bytes of entries that were written.
    pub(super) fn position(&self) -> u64 {
        self.journal.as_ref().map_or(0, Writer::position)
    }

    pub(super) fn rewind(&mut self, consumed: Consumed) {
        if let Some(journal) = &mut self.journal {
            journal.rewind(consumed);
        }
    }

    /// In a thread: what was replied.
    pub(super) fn take_short(&mut self) -> errno::Result<Filled> {
        let taken = Filled::copy_of(&self.short).ok_or(number::NO_MEMORY);
        self.short.clear();
        if self.short.capacity() > SHORT {
            self.short = Vec::new();
        }
        taken
    }

    /// In a thread: the results of the chunk, with their head.
    pub(super) fn take_chunk(&self) -> Option<Filled> {
        self.chunk.as_ref().and_then(|chunk| chunk.window.copy(0, chunk.length as usize))
    }

    /// Makes room for the results of a chunk; answers the entry that says so.
    pub(super) fn begin_chunk(&mut self, items: usize, result_size: u64, consumed: Consumed) -> Result<Entry> {
        self.begin(result_size);
        let bytes = result_size.checked_mul(items as u64).and_then(|bytes| bytes.checked_add(size_of::<ChunkHead>() as u64));
        let length = bytes.ok_or_else(|| Error::new(Kind::NoSpace, "the results of a chunk are too long"))?;
        let (unit, window) = match &mut self.journal {
            Some(journal) => journal.map_long(length, consumed)?,
            None => {
                let memory = memory::create(c"tine-pool:chunk", memory::whole_pages(length as usize))?;
                (0, Window::new(memory.as_fd(), length as usize, Access::ReadWrite)?)
            }
        };
        let head = window.object(0)?;
        self.chunk = Some(Chunk { unit, length, window, head, at: 0, replied: 0 });
        Ok(Entry { flags: flag::CHUNK, unit, length, ..Entry::default() })
    }

    pub(super) fn begin_item(&mut self, item: usize) {
        let limit = self.limit as usize;
        self.too_long = false;
        if let Some(chunk) = &mut self.chunk {
            (chunk.at, chunk.replied) = (size_of::<ChunkHead>() + item * limit, 0);
        }
    }

    /// The item's function has returned `code`. Its result is there before the count that covers it.
    pub(super) fn end_item(&mut self, item: usize, code: i32) {
        let (w, Some(chunk)) = (Thread::current(), &mut self.chunk) else { return };
        if code != 0 || self.too_long {
            chunk.keep(&[]);
            let failed = w.load64(&chunk.head.failed, Relaxed);
            if failed == 0 {
                w.store64(&chunk.head.first_failed, item as u64, Relaxed);
                w.store64(&chunk.head.first_code, code as u32 as u64, Relaxed);
            }
            w.store64(&chunk.head.failed, failed + 1, Relaxed);
        }
        // SYNC POINT: chunk (release): the host reads it when the worker is dead, through the kernel.
        w.store64(&chunk.head.done, item as u64 + 1, Release);
    }

    /// The chunk was not begun.
    pub(super) fn discard_chunk(&mut self) {
        if let (Some(_), Some(journal)) = (self.chunk.take(), &mut self.journal) {
            journal.empty_long();
        }
    }

    pub(super) fn end_chunk(&mut self) -> Entry {
        match self.chunk.take() {
            Some(Chunk { unit, length, .. }) => Entry { flags: flag::ENDED | flag::LONG, unit, length, ..Entry::default() },
            None => Entry { flags: flag::ENDED, ..Entry::default() },
        }
    }
}

impl Chunk {
    fn keep(&mut self, data: &[u8]) {
        self.window.write(self.at, data);
        // A shorter result after a longer one: what is beyond it is zero.
        for at in data.len()..self.replied {
            self.window.write(self.at + at, &[0]);
        }
        self.replied = data.len();
    }
}
