//! What the processes of a pool share, by who may write it: see `pool` for the protocol.

use super::word::{Shared, Word, Word64};

/// How many processes of a pool there can be at a time, those that are being replaced included.
pub const PROCESSES_MAX: usize = 1024 + 2;
/// Words of a set of processes, one bit each.
pub const SET_WORDS: usize = PROCESSES_MAX.div_ceil(64);
/// How many threads of the host can wait with a word of their own; more share one.
pub const BELLS: usize = 64;
/// Orders of tasks: those that go first, and all others.
pub const LANES: usize = 2;
/// Lives in one place that the roll remembers: so many workers may die there while the host does not look.
pub const LIVES: usize = 64;

/// Written by the host; workers and nursery can only read it.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct TaskHead {
    /// Of each lane: the position that the next task will get.
    pub tails: [Word64; LANES],
    /// Of each lane: nothing before this position can still be taken.
    pub heads: [Word64; LANES],
    rest: [Word64; 4],
    /// What the pool is doing: `pool::board::phase`.
    pub phase: Word,
    /// Odd: the host's delivery thread is asleep; another number each time.
    pub delivery: Word,
    /// Not 0: the delivery thread wants to hear of every task that ends.
    pub eager: Word,
    /// So many records exist.
    pub records: Word,
    /// Bells of threads that wait for any task to end.
    pub any_bells: Word64,
    /// Bells that somebody waits on: the nursery rings them when a worker has died.
    pub bells_in_use: Word64,
    /// How many places there are.
    pub places: Word,
    rest2: Word,
    rest3: [Word64; 3],
}

/// Written by the host, for one process of the pool.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Receipt {
    /// How much of its journal the host has read, of the life after the last one that it has retired.
    pub consumed: Word64,
    /// How many births and deaths (see [`RollLine`]) the host is done with.
    pub retired: Word,
    rest: Word,
    rest2: [Word64; 6],
}

/// A task, written by the host before it is published.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct TaskRecord {
    /// Unique in the pool, never 0.
    pub sequence: Word64,
    /// The caller's number for it.
    pub id: Word64,
    /// Address of the function.
    pub function: Word64,
    /// Where the argument lies: see `pool::task::flags`.
    pub argument_at: Word64,
    pub argument_len: Word64,
    /// Of a chunk of a map: bytes of one item's result.
    pub result_size: Word64,
    /// Of a chunk of a map: how many items; else 0.
    pub items: Word,
    pub flags: Word,
    pub attempt: Word,
    /// The bell of a thread that waits for this task, counted from 1; 0 = none.
    pub bell: Word,
    /// How long it may run, and how long before it is asked to end, in milliseconds; 0 = without limit.
    pub timeout_ms: Word64,
    pub soft_timeout_ms: Word64,
    /// A short argument.
    pub inline: [Word64; 6],
}

/// Written by everybody: the claims on tasks follow.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct ClaimHead {
    /// Of each lane: where to begin to look. Only a hint.
    pub hints: [Word64; LANES],
    rest: [Word64; 14],
    /// Processes that sleep until somebody rings.
    pub idle: [Word64; SET_WORDS],
    /// Processes that look for a task: what is submitted now, one of them will find.
    pub searching: [Word64; SET_WORDS],
    rest2: [Word64; 14],
    /// Bells of the host's threads.
    pub bells: [Word; BELLS],
}

/// Written by everybody, for one process of the pool.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Bell {
    pub bell: Word,
    /// The last life whose initializer is done.
    pub ready: Word,
    /// How many tasks have been finished here.
    pub finished: Word,
    rest: Word,
    rest2: [Word64; 6],
}

/// Written by the nursery.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct RollHead {
    /// What the nursery is doing: `pool::roll::stage`.
    pub stage: Word,
    /// An errno: why it could not begin, or why it makes no more workers.
    pub errno: Word,
    /// The number of the last command that it has understood.
    pub heard: Word,
    /// How many workers it had to kill in the end.
    pub killed: Word,
    /// How many of them would not die.
    pub stuck: Word,
    /// What failed: `pool::roll::step`.
    pub step: Word,
    /// Workers that took the place of another.
    pub restarts: Word,
    rest: Word,
    /// When it looks after the workers again, whatever happens; 0 = it is awake.
    pub wakes_at: Word64,
    rest2: [Word64; 3],
}

/// Written by the nursery, for one life of a process in one place.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct RollLine {
    /// Births and deaths in the place until now: odd while the process lives. Stored last.
    pub life: Word,
    /// Which worker it is, counted from 1; 0 = it waits for its turn.
    pub worker: Word,
    pub pid: Word,
    /// How it ended: exit code, or signal.
    pub status: Word,
    /// `pool::roll::fate`.
    pub fate: Word,
    /// The units of the journal's file that it wrote begin here, and end there.
    pub first_unit: Word,
    pub end_unit: Word,
    /// Not 0: it is to leave once it has finished what it runs.
    pub leaves: Word,
    pub user_us: Word64,
    pub system_us: Word64,
    /// 0 = unknown.
    pub peak_rss_bytes: Word64,
    /// Where what it wrote to standard error ends: see `pool::stderr`.
    pub stderr_end: Word64,
}

/// What a process of the pool is doing: written by it and by the nursery. Of those in other places no process has it.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Duty {
    /// `pool::duty`.
    pub state: Word64,
    /// The task: {generation, slot}.
    pub task: Word64,
    /// When it began, on the monotonic clock; 0 = nobody wants to know.
    pub began: Word64,
    /// How much of what it wrote to standard error it has passed on.
    pub passed_on: Word64,
    rest: [Word64; 4],
}

/// The head of a chunk's results: written by the worker that runs it, while it runs it.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct ChunkHead {
    /// Items that have ended. Stored after the item's result.
    pub done: Word64,
    /// Those of them that failed.
    pub failed: Word64,
    /// The first of them.
    pub first_failed: Word64,
    /// What its function returned.
    pub first_code: Word64,
    rest: [Word64; 4],
}

const _: () = assert!(size_of::<TaskHead>() == 128 && size_of::<Receipt>() == 64 && size_of::<TaskRecord>() == 128);
const _: () = assert!(size_of::<RollHead>() == 64 && size_of::<RollLine>() == 64 && size_of::<Bell>() == 64);
const _: () = assert!(size_of::<ChunkHead>() == 64 && size_of::<Duty>() == 64);

// SAFETY: words only.
unsafe impl Shared for TaskHead {}
// SAFETY: words only.
unsafe impl Shared for Receipt {}
// SAFETY: words only.
unsafe impl Shared for TaskRecord {}
// SAFETY: words only.
unsafe impl Shared for ClaimHead {}
// SAFETY: words only.
unsafe impl Shared for Bell {}
// SAFETY: words only.
unsafe impl Shared for RollHead {}
// SAFETY: words only.
unsafe impl Shared for RollLine {}
// SAFETY: words only.
unsafe impl Shared for Duty {}
// SAFETY: words only.
unsafe impl Shared for ChunkHead {}
