//! Pools: many workers, forked and kept by a nursery.
//!
//! | file | what it is |
//! |---|---|
//! | [`make`] | making a pool; its handle |
//! | [`host`], [`submit`], [`collect`], [`ending`] | what the host's threads do: hand tasks over and wait, take in what became of them, end the pool |
//! | [`delivery`], [`host_loop`] | the pool's one thread in the host, which runs callbacks; a pool without it |
//! | [`map`], [`batch`], [`stream`] | one function over many items: in the call, behind it, one after the other |
//! | [`trace`] | what everybody did when, for a viewer |
//! | [`table`], [`arguments`], [`job`] | the host's own account: what is true |
//! | [`memory`] | what host and workers share: where it lies, how it grows |
//! | [`board`] | how tasks pass from the host to the workers: the algorithms over shared words |
//! | [`journal`] | what a worker has done |
//! | [`duty`] | what a worker is doing, and who decides how that ends |
//! | [`worker`], [`task`] | a worker's life; a task as its function sees it |
//! | [`stderr`] | what a worker writes to standard error, if its end is wanted |
//! | [`roll`] | what the nursery tells of itself and of the processes that it forks |
//! | [`message`] | what host and nursery tell each other through their socket |
//! | [`crew`] | threads instead of workers and nursery |
//! | [`nursery`] | the process that forks workers, knows how they ended and replaces them |
//!
//! # Memory by role
//! A worker runs code that may write anywhere. So each memory has one writer, and the others map it for reading or not at all:
//!
//! | memory | written by | read by | holds |
//! |---|---|---|---|
//! | tasks | host | all | the order of tasks, their records and arguments; what the host has read of each journal; who sleeps in the host |
//! | journal, one for each process | its worker, by write(2): it is not mapped there | host | which tasks it began and how they ended, with their results |
//! | roll | nursery | all | who lives, who died of what |
//! | duties, a page for each process | its process, nursery | both | what it is doing, since when |
//! | claims | all | all | who takes which task, who sleeps, who searches: hints and bells |
//! | table | host, private | host | the truth |
//!
//! What everybody may write decides who does what next, and nothing else: a claim counts only if it agrees with the task's record,
//! and a result only if it is in the journal of the worker that said it had begun that very task. A worker that writes over all that
//! it can reach spoils claims and bells; the host rewrites them when it retires that worker ([`table::Table::repair`]). Other tasks'
//! arguments and results, also earlier ones of the same worker, are out of its reach.
//!
//! # The life of a task
//! 1. The host writes its record and argument, makes its claim READY and names it in the order (one store publishes it), and wakes a
//!    worker if one sleeps and none searches.
//! 2. A worker exchanges the claim, READY to RUNNING, writes into its journal that it begins (one entry says how its last task
//!    ended as well), and calls the function.
//! 3. Its end is in the journal as soon as the entry is there whole. The worker rings whoever said that it waits, and the delivery
//!    thread if there is a callback.
//! 4. Whoever in the host looks first takes the entry in, under the table's lock: waiting threads do it themselves. The async is
//!    ready, or its callback goes to the delivery thread.
//!
//! # Deaths
//! The nursery reaps a worker before it says so on the roll, so when the host knows of a death, everything that the worker wrote is
//! there. A task that had begun and not ended died with it; one that was claimed and never begun goes back, first in line; all
//! others do not notice. The worker's number passes to a spare process that has already run the initializer, and another spare is
//! forked. Whatever wake-up died with the worker is made up for: the nursery rings for everybody.
//!
//! None of that waits for the host, whose threads may all be busy: a *place* is used again before the host has *retired* who lived
//! there, that is, read all of its journal and dealt with its death. Each process has a *life*, a number that goes up with every birth
//! and death in its place. The roll has a line for each of the last lives, the journal goes on behind what was written, and a claim
//! names the life of its holder. Only where as many have died as may break the pool, the nursery waits until
//! the host has counted them.
//!
//! # Coming and going
//! A worker that has run as many tasks as it may says so on its page and waits. The nursery gives its number to a spare process whose
//! initializer is done, and only then lets it leave; while some wait there are as many more spares. A pool that shrinks lets workers
//! leave in the same way, without a successor. For one that grows beyond its places the host makes more: their part of each memory,
//! which is mapped for the largest pool from the beginning, and a journal, which goes to the nursery through the socket.
//!
//! # Limits
//! A worker says on its page of the duties which task it begins, and when. The nursery ends it when its time is over or when the host
//! cancels the task; the limits are in the task's record, which no worker can write. Who has decided that a task ends is settled by
//! one exchange between the two ([`duty`]), so the signal never meets the next task. The nursery says how long it sleeps, and a
//! worker that begins something with a shorter limit wakes it: with equal limits it wakes up once in so long, not once for each task.
//! The memory of workers is looked at in the same way, every 50 ms while any of them runs a task; how much one has for itself only the
//! kernel knows, and that takes time in a large process, so most looks are content with an upper bound.
//! A task that is cancelled while it is being taken is not begun: its record says so before the nursery is told.
//!
//! # Orphans
//! The nursery is the subreaper of everything below it: what a dead worker has started becomes the nursery's child, and is killed. It
//! is told from a worker by not being in a place. What a worker that leaves in order has started is left alone, and so is a daemon of
//! a living one, until the next worker dies: they are the nursery's children as well, and nobody can tell whose they were.
//!
//! # Sleeping
//! Who sleeps says so before it looks for the last time, and who has something for it looks afterwards whether somebody sleeps;
//! both with a fence between. Workers sleep on a word each, threads of the host on another, the delivery thread on a descriptor, for
//! it also hears of the nursery's end. A pool in the host's own loop has no such thread; that descriptor and the nursery's are then
//! gathered in one that the host waits for ([`host_loop`]). Nobody polls in an idle pool. While tasks are pending the host looks after things once a
//! second: not needed by the protocol, but a task that writes over the claims and lives on is not noticed by any death.
//!
//! # Ends
//! The nursery ends with the host: it watches a descriptor of the host's process and its end of a socket. Workers end with the
//! nursery: the kernel kills them when its one thread ends. So whatever is killed, nobody is left.
#![forbid(unsafe_code)]

pub mod arguments;
pub mod batch;
pub mod board;
pub mod collect;
pub mod crew;
pub mod delivery;
pub mod duty;
pub mod ending;
#[cfg(test)]
mod exploration;
pub mod host;
pub mod host_loop;
pub mod job;
pub mod journal;
pub mod make;
pub mod map;
pub mod memory;
pub mod message;
pub mod nursery;
pub mod roll;
pub mod room;
pub mod stderr;
pub mod stream;
pub mod submit;
pub mod table;
pub mod task;
pub mod trace;
pub mod worker;

pub use batch::MapOptions;
pub use host::{Stats, Submission};
pub use job::{Callbacks, Job, Outcome};
pub use make::{Options, Pool};
pub use map::{Failure, Map};
pub use stream::{End, Results, SourceEnd, StreamOptions};
pub use table::TaskSpec;
pub use task::{Code, Limits, Task};
