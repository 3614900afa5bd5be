//! One function over many items. The items travel in chunks, each a task of its own; what a chunk's worker has finished when it dies
//! is kept, the item that it died of has failed, and the items behind it go on in another chunk.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::host::{Host, Submission};
use super::job::{Job, Outcome, Part};
use super::table::TaskSpec;
use super::task::Limits;
use crate::error::{Error, Kind, Result};
use crate::process::ExitInfo;
use crate::shm::pool::ChunkHead;
use crate::sys::Deadline;
use crate::timeout::Timeout;

/// Chunks under way at a time; more of them would only wait.
const WINDOW: usize = 1024;
/// So many chunks for each worker: one that gets a slow chunk has the others' help with the rest.
const CHUNKS_PER_WORKER: usize = 4;

#[derive(Clone, Copy)]
pub struct Map<'a> {
    pub function: usize,
    pub items: &'a [u8],
    pub item_size: usize,
    pub count: usize,
    /// Items; 0 = chosen.
    pub chunk: usize,
    pub result_size: usize,
    /// Of each item.
    pub limits: Limits,
}

impl<'a> Map<'a> {
    /// How many items make a chunk in a pool of so many workers.
    pub(super) fn chunk(&self, workers: usize) -> usize {
        let chunk = match self.chunk {
            0 => self.count.div_ceil(CHUNKS_PER_WORKER * workers).max(1),
            chunk => chunk,
        };
        chunk.min(u32::MAX as usize)
    }

    pub(super) fn task(&self, first: usize, count: usize) -> TaskSpec<'a> {
        TaskSpec {
            function: self.function,
            argument: &self.items[first * self.item_size..(first + count) * self.item_size],
            attempts: 1,
            items: count as u32,
            result_size: Some(self.result_size as u64),
            limits: self.limits,
        }
    }
}

struct Chunk {
    job: Arc<Job>,
    first: usize,
    count: usize,
}

struct Progress<'a> {
    map: &'a Map<'a>,
    sheet: Sheet<'a>,
    under_way: VecDeque<Chunk>,
    /// The first item that was never in a chunk.
    next: usize,
    /// What is left of chunks whose worker died: {first, count}
    left: Vec<(usize, usize)>,
    chunk: usize,
}

/// The first item that failed, and why.
pub struct Failure {
    pub item: usize,
    pub why: String,
    pub code: i32,
    pub worker_pid: i32,
    pub death: Option<ExitInfo>,
}

impl Host {
    /// Runs the function over all items; answers the first one that failed. `results` are one after the other, or empty if nobody
    /// wants them. After a failure of the call itself nothing more is started, and the results are not touched any more.
    pub fn map(self: &Arc<Host>, map: &Map, results: &mut [MaybeUninit<u8>], timeout: Timeout) -> Result<Option<Failure>> {
        self.check_process()?;
        let deadline = Deadline::new(timeout);
        // An empty map, too, is one of a pool that is open and a function that is one.
        self.check_submission(map.function)?;
        let chunk = map.chunk(self.worker_count.load(Relaxed) as usize);
        let sheet = Sheet::new(results, map.result_size);
        let mut progress = Progress { map, sheet, under_way: VecDeque::new(), next: 0, left: Vec::new(), chunk };
        let done = progress.run(self, &deadline);
        for chunk in &progress.under_way {
            self.abandon(&chunk.job);
        }
        done.map(|()| progress.sheet.failure)
    }
}

impl Progress<'_> {
    fn run(&mut self, host: &Arc<Host>, deadline: &Deadline) -> Result<()> {
        let window = host.max_pending().min(WINDOW);
        loop {
            while self.under_way.len() < window {
                let Some((first, count)) = self.next_chunk() else { break };
                self.submit(host, first, count, deadline)?;
            }
            let Some(chunk) = self.under_way.front() else { return Ok(()) };
            if !host.wait(&chunk.job, deadline)? {
                return Err(Error::new(Kind::TimedOut, format!("{}: not all items were done in time", host.name)));
            }
            if let Some(chunk) = self.under_way.pop_front() {
                self.collect(host, &chunk)?;
            }
        }
    }

    fn next_chunk(&mut self) -> Option<(usize, usize)> {
        if let Some(left) = self.left.pop() {
            return Some(left);
        }
        let (first, count) = (self.next, self.chunk.min(self.map.count - self.next));
        self.next += count;
        (count > 0).then_some((first, count))
    }

    fn submit(&mut self, host: &Arc<Host>, first: usize, count: usize, deadline: &Deadline) -> Result<()> {
        let spec = self.map.task(first, count);
        let submission = Submission { spec, callbacks: None, id: 0, handle: false, part: Part::Single };
        let job = host.submit(&submission, deadline).map_err(|error| match error.kind() {
            Kind::Full => Error::new(Kind::TimedOut, format!("{}: no room for all items in time", host.name)),
            _ => error,
        })?;
        self.under_way.push_back(Chunk { job, first, count });
        Ok(())
    }

    fn collect(&mut self, host: &Host, chunk: &Chunk) -> Result<()> {
        let outcome = chunk.job.outcome()?;
        let taken = self.sheet.take_in(chunk.first, chunk.count, outcome).map_err(|kind| why_stopped(host, kind))?;
        if taken < chunk.count && outcome.failure.is_some() {
            self.left.push((chunk.first + taken, chunk.count - taken));
        }
        Ok(())
    }
}

/// Why a map ended that did not run all of its items.
fn why_stopped(host: &Host, kind: Kind) -> Error {
    let why = match kind {
        Kind::Canceled => "the pool was terminated, or broke, before all items were done",
        _ => "no room for the results of a chunk of items",
    };
    Error::new(kind, format!("{}: {why}", host.name))
}

/// How far the worker of a chunk has come, as the head of its results says.
pub(super) fn finished_items(outcome: &Outcome, count: usize) -> usize {
    (head_word(outcome, 0) as usize).min(count)
}

fn head_word(outcome: &Outcome, index: usize) -> u64 {
    let word = outcome.data().get(index * 8..index * 8 + 8).and_then(|word| word.try_into().ok());
    word.map_or(0, u64::from_ne_bytes)
}

/// Where the results of a map go, and the first item that failed.
pub(super) struct Sheet<'a> {
    results: &'a mut [MaybeUninit<u8>],
    size: usize,
    pub(super) failure: Option<Failure>,
}

impl<'a> Sheet<'a> {
    pub(super) fn new(results: &'a mut [MaybeUninit<u8>], size: usize) -> Sheet<'a> {
        Sheet { results, size, failure: None }
    }

    /// Takes over what became of a chunk; answers how many of its items that was. If its worker died, the last of them has failed,
    /// and those behind it have not begun. `Err`: the map cannot go on.
    pub(super) fn take_in(&mut self, first: usize, count: usize, outcome: &Outcome) -> std::result::Result<usize, Kind> {
        match outcome.failure {
            Some(kind @ (Kind::Canceled | Kind::NoSpace | Kind::NoMemory)) => Err(kind),
            None if count == 1 => {
                self.put(first, outcome.data());
                Ok(1)
            }
            Some(_) if count == 1 => {
                self.fail(first, outcome);
                Ok(1)
            }
            failure => {
                let done = self.take_in_finished(first, count, outcome);
                if done < count && failure.is_some() {
                    self.fail(first + done, outcome);
                    return Ok(done + 1);
                }
                Ok(done)
            }
        }
    }

    /// Of a chunk of several items: those that its worker has finished.
    pub(super) fn take_in_finished(&mut self, first: usize, count: usize, outcome: &Outcome) -> usize {
        let done = finished_items(outcome, count);
        let results = outcome.data().get(size_of::<ChunkHead>()..).unwrap_or_default();
        for item in 0..done {
            self.put(first + item, results.get(item * self.size..(item + 1) * self.size).unwrap_or_default());
        }
        let (failed, first_failed, first_code) =
            (head_word(outcome, 1), head_word(outcome, 2) as usize, head_word(outcome, 3) as i32);
        if failed > 0 && first_failed < done {
            let kind = if first_code == 0 { Kind::MessageSize } else { Kind::TaskFailed };
            self.note_failure(first + first_failed, &Outcome::new(Some(kind), first_code, outcome.worker_pid));
        }
        done
    }

    /// Zeros are what is missing.
    fn put(&mut self, item: usize, result: &[u8]) {
        let size = self.size;
        let Some(room) = self.results.get_mut(item * size..(item + 1) * size) else { return };
        for (index, byte) in room.iter_mut().enumerate() {
            byte.write(result.get(index).copied().unwrap_or(0));
        }
    }

    fn fail(&mut self, item: usize, outcome: &Outcome) {
        self.put(item, &[]);
        self.note_failure(item, outcome);
    }

    fn note_failure(&mut self, item: usize, outcome: &Outcome) {
        if self.failure.as_ref().is_none_or(|first| item < first.item) {
            let &Outcome { code, worker_pid, death, .. } = outcome;
            self.failure = Some(Failure { item, why: outcome.why(), code, worker_pid, death });
        }
    }
}
