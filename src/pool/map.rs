//! One function over many items. The items travel in chunks, each a task of its own; what a chunk's worker has finished when it dies
//! is kept, the item that it died of has failed, and the items behind it go on in another chunk.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::host::{Host, Submission};
use super::job::{Job, Outcome};
use super::table::TaskSpec;
use super::task::Limits;
use crate::error::{Error, Kind, Result};
use crate::shm::pool::ChunkHead;
use crate::sys::Deadline;
use crate::timeout::Timeout;

/// Chunks under way at a time; more of them would only wait.
const WINDOW: usize = 1024;
/// So many chunks for each worker: one that gets a slow chunk has the others' help with the rest.
const CHUNKS_PER_WORKER: usize = 4;

pub struct Map<'a> {
    pub function: usize,
    pub items: &'a [u8],
    pub item_size: usize,
    pub count: usize,
    /// Items; 0 = chosen.
    pub chunk: usize,
    /// One result after the other; empty if nobody wants them.
    pub results: &'a mut [MaybeUninit<u8>],
    pub result_size: usize,
}

struct Chunk {
    job: Arc<Job>,
    first: usize,
    count: usize,
}

struct Progress<'a, 'b> {
    map: &'a mut Map<'b>,
    under_way: VecDeque<Chunk>,
    /// The first item that was never in a chunk.
    next: usize,
    /// What is left of chunks whose worker died: {first, count}
    left: Vec<(usize, usize)>,
    chunk: usize,
    failure: Option<Failure>,
}

/// The first item that failed, and why.
pub struct Failure {
    pub item: usize,
    pub why: String,
}

impl Host {
    /// Runs the function over all items; answers the first one that failed. After a failure of the call itself nothing more is
    /// started, and the results are not touched any more.
    pub fn map(self: &Arc<Host>, mut map: Map, timeout: Timeout) -> Result<Option<Failure>> {
        self.check_process()?;
        let deadline = Deadline::new(timeout);
        let chunk = match map.chunk {
            0 => map.count.div_ceil(CHUNKS_PER_WORKER * self.worker_count.load(Relaxed) as usize).max(1),
            chunk => chunk,
        };
        // An empty map, too, is one of a pool that is open and a function that is one.
        self.check_submission(map.function)?;
        let chunk = chunk.min(u32::MAX as usize);
        let mut progress =
            Progress { map: &mut map, under_way: VecDeque::new(), next: 0, left: Vec::new(), chunk, failure: None };
        let done = progress.run(self, &deadline);
        for chunk in &progress.under_way {
            self.abandon(&chunk.job);
        }
        done.map(|()| progress.failure)
    }
}

impl Progress<'_, '_> {
    fn run(&mut self, host: &Arc<Host>, deadline: &Deadline) -> Result<()> {
        let window = host.max_pending().min(WINDOW);
        loop {
            while self.under_way.len() < window {
                let Some((first, count)) = self.next_chunk() else { break };
                self.submit(host, first, count, deadline)?;
            }
            let Some(chunk) = self.under_way.front() else { return Ok(()) };
            if !host.wait(&chunk.job, deadline)? {
                return Err(Error::new(Kind::TimedOut, "tine_pool_map: not all items were done in time"));
            }
            if let Some(chunk) = self.under_way.pop_front() {
                self.collect(&chunk)?;
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
        let size = self.map.item_size;
        let spec = TaskSpec {
            function: self.map.function,
            argument: &self.map.items[first * size..(first + count) * size],
            attempts: 1,
            items: count as u32,
            result_size: Some(self.map.result_size as u64),
            limits: Limits::default(),
        };
        let submission = Submission { spec, callbacks: None, id: 0, handle: false };
        let job = host.submit(&submission, deadline).map_err(|error| match error.kind() {
            Kind::Full => Error::new(Kind::TimedOut, "tine_pool_map: no room for all items in time"),
            _ => error,
        })?;
        self.under_way.push_back(Chunk { job, first, count });
        Ok(())
    }

    fn collect(&mut self, chunk: &Chunk) -> Result<()> {
        let outcome = chunk.job.outcome()?;
        match outcome.failure {
            Some(Kind::Canceled) => return Err(Error::new(Kind::Canceled, "tine_pool_map: the pool was terminated, or broke")),
            Some(kind @ (Kind::NoSpace | Kind::NoMemory)) => return Err(Error::new(kind, "tine_pool_map: no room for results")),
            failure if chunk.count == 1 => match failure {
                None => self.put(chunk.first, outcome.data()),
                Some(_) => self.fail(chunk.first, outcome),
            },
            failure => {
                let (head, results) = outcome.data().split_at_checked(size_of::<ChunkHead>()).unwrap_or_default();
                let word = |index: usize| {
                    head.get(index * 8..index * 8 + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_ne_bytes)
                };
                let (done, failed, first_failed) = ((word(0) as usize).min(chunk.count), word(1), word(2) as usize);
                let first_code = word(3) as i32;
                let size = self.map.result_size;
                for item in 0..done {
                    self.put(chunk.first + item, results.get(item * size..(item + 1) * size).unwrap_or_default());
                }
                if failed > 0 && first_failed < done {
                    let kind = if first_code == 0 { Kind::MessageSize } else { Kind::TaskFailed };
                    self.note_failure(chunk.first + first_failed, &Outcome::new(Some(kind), first_code, 0));
                }
                if done < chunk.count && failure.is_some() {
                    self.fail(chunk.first + done, outcome);
                    if done + 1 < chunk.count {
                        self.left.push((chunk.first + done + 1, chunk.count - done - 1));
                    }
                }
            }
        }
        Ok(())
    }

    /// Zeros are what is missing.
    fn put(&mut self, item: usize, result: &[u8]) {
        let size = self.map.result_size;
        let Some(room) = self.map.results.get_mut(item * size..(item + 1) * size) else { return };
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
            self.failure = Some(Failure { item, why: outcome.why() });
        }
    }
}
