//! A map that nobody waits for in the call: its chunks are submitted at once, and whoever in the host takes in what became of the last
//! one ends the whole. All under the table's lock, so it must be short: results are copied, nothing else.
//!
//! A chunk whose worker died goes on in its own slot: its argument is still there, and its record is changed to begin behind the item
//! that the worker died of.
#![forbid(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::host::{Host, Lifecycle, Submission};
use super::job::{Callbacks, Job, Outcome, Part};
use super::map::{Map, Sheet, finished_items};
use super::table::TaskSpec;
use crate::error::{Kind, Result};
use crate::sys::heap::Filled;
use crate::sys::thread::Thread;
use crate::sys::{Deadline, fd};

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
        self.check_function(map.function)?;
        let batch = self.begin_batch(results, map.result_size, options)?;
        let submitted = self.submit_chunks(map, &batch, options);
        if submitted.is_err() {
            // The caller's memory is not touched after this.
            let _ = self.stop_batch(&batch, true);
        }
        self.finish_batch(&batch)?;
        submitted.map(|()| batch.whole.clone())
    }

    /// Admits a map. Until [`Host::finish_batch`] the pool is not over.
    fn begin_batch(
        self: &Arc<Host>,
        results: &'static mut [MaybeUninit<u8>],
        result_size: usize,
        options: &MapOptions,
    ) -> Result<Arc<Batch>> {
        let id = {
            let mut state = self.lock()?;
            self.admits(&state)?;
            state.maps += 1;
            if options.id == 0 { state.table.next_sequence() } else { options.id }
        };
        Ok(Arc::new_cyclic(|batch: &Weak<Batch>| Batch {
            whole: Arc::new(Job::new(id, options.callbacks, Some(Arc::downgrade(self)), Part::Whole(batch.clone()))),
            state: Mutex::new(State {
                sheet: Sheet::new(results, result_size),
                chunks: Vec::new(),
                left: 1,
                stopped: None,
                silent: false,
            }),
        }))
    }

    /// All chunks are submitted; they may have ended, and the pool with them.
    fn finish_batch(&self, batch: &Batch) -> Result<()> {
        let w = Thread::current();
        let mut state = self.lock()?;
        if let Some(outcome) = batch.state().count_down() {
            state.table.end_whole(&batch.whole, outcome);
            self.advance(w, &mut state);
        }
        state.maps -= 1;
        if state.lifecycle == Lifecycle::Ended {
            // Whoever delivers has waited for this.
            fd::ring(self.bell.as_raw_fd());
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use super::*;
    use crate::pool::task::{Code, Task};
    use crate::pool::{Options, Pool};
    use crate::timeout::Timeout;

    struct NoCode;

    impl Code for NoCode {
        fn initialize(&self) -> std::result::Result<usize, i32> {
            Ok(0)
        }
        fn finalize(&self, _: usize) {}
        fn run(&self, _: usize, _: *const u8, _: usize, _: &Task) -> i32 {
            0
        }
    }

    static TOLD: AtomicU32 = AtomicU32::new(0);

    fn note(_: usize, _: usize, _: &Arc<Job>) {
        TOLD.fetch_add(1, Relaxed);
    }

    /// Threads, for nothing may be forked here: host and delivery are the same.
    #[test]
    fn a_pool_that_ends_while_a_map_is_submitted_waits_for_the_maps_end() {
        for host_loop in [false, true] {
            let options = Options { workers: 1, threads: true, host_loop, ..Options::default() };
            let pool = Pool::new(&options, Arc::new(NoCode)).unwrap();
            let callbacks = Some(Callbacks { success: 1, error: 1, user_data: 0, invoke: note });
            let options = MapOptions { callbacks, id: 0, attempts: 1, room: Deadline::new(Timeout::Try) };
            let batch = pool.begin_batch(&mut [], 0, &options).unwrap();
            let before = TOLD.load(Relaxed);
            pool.terminate(Timeout::Forever).unwrap();
            assert_eq!(pool.join(Timeout::Millis(20)).unwrap_err().kind(), Kind::TimedOut);
            let host = pool.share();
            let submitter = thread::spawn(move || {
                host.finish_batch(&batch).unwrap();
                batch
            });
            pool.join(Timeout::Millis(60_000)).unwrap();
            let batch = submitter.join().unwrap();
            assert!(batch.whole.is_ready());
            assert_eq!(TOLD.load(Relaxed), before + 1);
        }
    }
}
