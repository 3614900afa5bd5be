//! A map that nobody waits for in the call: its chunks are submitted at once, and whoever in the host takes in what became of the last
//! one ends the whole. All under the table's lock, so it must be short: results are copied, nothing else.
//!
//! A chunk whose worker died goes on in its own slot: its argument is still there, and its record is changed to begin behind the item
//! that the worker died of.
#![forbid(unsafe_code)]

use std::mem::MaybeUninit;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::host::{Host, Submission};
use super::job::{Callbacks, Job, Outcome, Part};
use super::map::{Map, Sheet, finished_items};
use super::table::TaskSpec;
use crate::error::{Kind, Result};
use crate::sys::Deadline;
use crate::sys::heap::Filled;
use crate::sys::thread::Thread;

/// All chunks of one map.
pub struct Batch {
    /// What the caller has a handle of.
    pub(super) whole: Arc<Job>,
    state: Mutex<State>,
}

struct State {
    sheet: Sheet<'static>,
    chunks: Vec<Chunk>,
    /// Chunks that have not ended, and one more while they are being submitted.
    left: usize,
    /// Why not all items have run.
    stopped: Option<Kind>,
    /// The caller was told that it could not begin: nobody hears of its end.
    silent: bool,
}

struct Chunk {
    first: usize,
    count: usize,
    job: Weak<Job>,
}

impl Batch {
    /// No invariant spans two statements that can panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker of a chunk died: keeps what it has finished. Where items are left, answers how many are dealt with, and how often
    /// the next one was tried. `may_try` says whether one that was tried so often may be tried once more; that of the chunk's first
    /// item is known by its record.
    pub(super) fn go_on(
        &self,
        chunk: usize,
        outcome: &Outcome,
        first_attempt: u32,
        may_try: impl Fn(u32) -> bool,
    ) -> Option<(usize, u32)> {
        let mut state = self.state();
        let State { sheet, chunks, stopped, .. } = &mut *state;
        let chunk = chunks.get_mut(chunk).filter(|chunk| chunk.count > 1 && stopped.is_none())?;
        let done = finished_items(outcome, chunk.count);
        let attempt = if done == 0 { first_attempt } else { 1 };
        let again = may_try(attempt);
        let dealt_with = if again { done } else { done + 1 };
        if dealt_with >= chunk.count {
            return None;
        }
        if again {
            sheet.take_in_finished(chunk.first, chunk.count, outcome);
        } else {
            sheet.take_in(chunk.first, chunk.count, outcome).ok()?;
        }
        chunk.first += dealt_with;
        chunk.count -= dealt_with;
        Some((dealt_with, if again { attempt } else { 0 }))
    }

    /// A chunk has ended; answers what became of the whole if it was the last one.
    pub(super) fn end_chunk(&self, chunk: usize, outcome: &Outcome) -> Option<Outcome> {
        let mut state = self.state();
        let State { sheet, chunks, stopped, .. } = &mut *state;
        if let Some(&Chunk { first, count, .. }) = chunks.get(chunk) {
            match sheet.take_in(first, count, outcome) {
                // It was told to stop.
                Ok(taken) if taken < count => *stopped = stopped.or(Some(Kind::Canceled)),
                Ok(_) => {}
                Err(kind) => *stopped = stopped.or(Some(kind)),
            }
        }
        state.count_down()
    }

    /// From now on what comes of it is not looked at. Answers what is under way.
    fn stop(&self, silent: bool) -> Vec<Arc<Job>> {
        let mut state = self.state();
        state.stopped = state.stopped.or(Some(Kind::Canceled));
        if silent {
            state.silent = true;
            state.sheet = Sheet::new(&mut [], 0);
        }
        state.chunks.iter().filter_map(|chunk| chunk.job.upgrade()).collect()
    }
}

impl State {
    fn count_down(&mut self) -> Option<Outcome> {
        self.left -= 1;
        if self.left > 0 || self.silent {
            return None;
        }
        // From now on the results are the caller's.
        let failure = std::mem::replace(&mut self.sheet, Sheet::new(&mut [], 0)).failure;
        Some(match (self.stopped, failure) {
            (Some(kind), _) => Outcome::new(Some(kind), 0, 0),
            (None, None) => Outcome::new(None, 0, 0),
            (None, Some(failure)) => {
                let index = Filled::copy_of(&failure.item.to_ne_bytes());
                let mut outcome = Outcome::new(Some(Kind::TaskFailed), failure.code, failure.worker_pid);
                outcome.death = failure.death;
                outcome.with_data(index, size_of::<usize>())
            }
        })
    }
}

impl Host {
    /// Begins to run the function over all items. `results` are written until the job has ended.
    pub fn map_async(
        self: &Arc<Host>,
        map: &Map,
        results: &'static mut [MaybeUninit<u8>],
        options: &MapOptions,
    ) -> Result<Arc<Job>> {
        self.check_process()?;
        self.check_submission(map.function)?;
        let id = if options.id == 0 { self.lock()?.table.next_sequence() } else { options.id };
        let batch = Arc::new_cyclic(|batch: &Weak<Batch>| Batch {
            whole: Arc::new(Job::new(id, options.callbacks, Some(Arc::downgrade(self)), Part::Whole(batch.clone()))),
            state: Mutex::new(State {
                sheet: Sheet::new(results, map.result_size),
                chunks: Vec::new(),
                left: 1,
                stopped: None,
                silent: false,
            }),
        });
        let submitted = self.submit_chunks(map, &batch, options);
        if submitted.is_err() {
            // The caller's memory is not touched after this.
            self.stop_batch(&batch, true)?;
        }
        let w = Thread::current();
        let mut state = self.lock()?;
        if let Some(outcome) = batch.state().count_down() {
            state.table.end_whole(&batch.whole, outcome);
            self.advance(w, &mut state);
        }
        submitted.map(|()| batch.whole.clone())
    }

    fn submit_chunks(self: &Arc<Host>, map: &Map, batch: &Arc<Batch>, options: &MapOptions) -> Result<()> {
        let size = map.chunk(self.worker_count.load(Relaxed) as usize);
        for (chunk, first) in (0..map.count).step_by(size).enumerate() {
            let count = size.min(map.count - first);
            {
                // Before it can end.
                let mut state = batch.state();
                state.chunks.push(Chunk { first, count, job: Weak::new() });
                state.left += 1;
            }
            let spec = TaskSpec { attempts: options.attempts, ..map.task(first, count) };
            let part = Part::Chunk(batch.clone(), chunk);
            let submission = Submission { spec, callbacks: None, id: 0, handle: false, part };
            match self.submit(&submission, &options.room) {
                Ok(job) => batch.state().chunks[chunk].job = Arc::downgrade(&job),
                Err(error) => {
                    batch.state().left -= 1;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Takes back what no worker has, and stops the rest: at once, or (`silent`, or in threads) after the present item.
    pub(super) fn stop_batch(&self, batch: &Batch, silent: bool) -> Result<()> {
        for job in batch.stop(silent) {
            if silent || self.crew.is_some() {
                self.abandon(&job);
            } else {
                self.cancel(&job)?;
            }
        }
        Ok(())
    }
}

/// How to submit a map.
pub struct MapOptions {
    pub callbacks: Option<Callbacks>,
    /// 0 = chosen.
    pub id: u64,
    /// How often an item is tried whose worker dies.
    pub attempts: u32,
    pub room: Deadline,
}
