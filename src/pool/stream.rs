//! One function over items that come one after the other. The source of the items is asked only by a thread that is inside a call of
//! the stream, and only for so many items as may be under way: it need not be thread-safe, and need not end.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::host::{Host, Submission};
use super::job::{Job, Part};
use super::table::TaskSpec;
use super::task::Limits;
use crate::error::{Error, Kind, Result};
use crate::sys::{Deadline, thread};
use crate::timeout::Timeout;

/// Items under way for each worker, where nobody says how many.
const ITEMS_PER_WORKER: usize = 2;

/// Asks the host's program for an item: gives its bytes to `take`, or answers why there is none.
pub type Pull = fn(next: usize, user_data: usize, take: &mut dyn FnMut(&[u8])) -> std::result::Result<(), SourceEnd>;

/// What a source has answered instead of an item: a number below 0, which only the caller of the library understands, and what is
/// known about it.
#[derive(Clone)]
pub struct SourceEnd {
    pub status: i32,
    pub why: Error,
}

pub struct StreamOptions {
    pub function: usize,
    /// The source; both numbers are addresses that only the caller of the library understands.
    pub next: usize,
    pub user_data: usize,
    pub pull: Pull,
    /// Items under way; 0 = chosen.
    pub window: usize,
    pub limits: Limits,
    /// Results as they come, instead of in the order of the items.
    pub unordered: bool,
}

/// Jobs that have ended, in that order. `None`: nobody asks any more.
#[derive(Default)]
pub struct Ended(Mutex<Option<VecDeque<Arc<Job>>>>);

impl Ended {
    /// Nothing panics under it.
    fn jobs(&self) -> MutexGuard<'_, Option<VecDeque<Arc<Job>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, job: &Arc<Job>) {
        if let Some(jobs) = &mut *self.jobs() {
            jobs.push_back(job.clone());
        }
    }
}

/// Why there are no more items.
#[derive(Clone)]
pub enum End {
    Source(SourceEnd),
    Pool(Error),
}

pub struct Stream {
    epoch: u64,
    host: Weak<Host>,
    options: StreamOptions,
    window: usize,
    ended: Arc<Ended>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// A thread is inside, perhaps in the source.
    busy: bool,
    freed: bool,
    /// Items that the source has given.
    items: u64,
    /// Those of them whose results nobody has taken.
    outstanding: usize,
    /// In order, if there is one.
    under_way: VecDeque<Arc<Job>>,
    /// An item that found no room.
    waiting: Option<Vec<u8>>,
    end: Option<End>,
}

/// The handle of a stream. Its drop takes back what has not begun.
pub struct Results(Arc<Stream>);

impl Drop for Results {
    fn drop(&mut self) {
        self.0.free();
    }
}

impl Results {
    /// A share of the stream, for a call: the source may free the handle meanwhile.
    pub fn share(&self) -> Arc<Stream> {
        self.0.clone()
    }
}

impl Host {
    /// Begins to run the function over what the source gives.
    pub fn stream(self: &Arc<Host>, options: StreamOptions) -> Result<Results> {
        self.check_process()?;
        self.check_submission(options.function)?;
        let window =
            if options.window == 0 { ITEMS_PER_WORKER * self.worker_count.load(Relaxed) as usize } else { options.window };
        let ended = Arc::new(Ended(Mutex::new(options.unordered.then(VecDeque::new))));
        let (epoch, host, state) = (thread::epoch(), Arc::downgrade(self), Mutex::default());
        let stream = Arc::new(Stream { epoch, host, options, window, ended, state });
        let inside = stream.enter()?;
        stream.fill(&Deadline::new(Timeout::Try))?;
        drop(inside);
        Ok(Results(stream))
    }
}

/// The one thread that may be inside.
struct Inside<'a>(&'a Stream);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.state().busy = false;
    }
}

impl Stream {
    /// Nothing panics under it, and nothing of the host's program runs.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> Result<Inside<'_>> {
        if self.epoch != thread::epoch() {
            return Err(Error::new(Kind::Forked, "stream: the handle belongs to the parent process"));
        }
        if std::mem::replace(&mut self.state().busy, true) {
            return Err(Error::new(Kind::Busy, "stream: a thread is inside tine_stream_next already, or this is its source"));
        }
        Ok(Inside(self))
    }

    /// The job whose result comes next, or why there is none.
    pub fn next(&self, timeout: Timeout) -> Result<std::result::Result<Arc<Job>, End>> {
        let (_inside, deadline) = (self.enter()?, &Deadline::new(timeout));
        loop {
            self.fill(deadline)?;
            if let Some(job) = self.take_ended() {
                return Ok(Ok(job));
            }
            let (front, end) = {
                let state = self.state();
                if state.freed {
                    return Err(Error::new(Kind::Closed, "stream: its source has freed it"));
                }
                (state.under_way.front().cloned(), state.end.clone().filter(|_| state.outstanding == 0))
            };
            if let Some(end) = end {
                return Ok(Err(end));
            }
            // A pool that is gone has ended all its tasks.
            let Some(host) = self.host.upgrade() else { continue };
            let in_time = match front {
                Some(job) => host.wait(&job, deadline)?,
                None => host.wait_for_any(deadline, || self.has_ended())?,
            };
            if !in_time {
                return Err(Error::new(Kind::TimedOut, "stream: no result in time"));
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.ended.jobs().as_ref().is_some_and(|jobs| !jobs.is_empty())
    }

    fn take_ended(&self) -> Option<Arc<Job>> {
        let mut state = self.state();
        let job = if self.options.unordered {
            self.ended.jobs().as_mut().and_then(VecDeque::pop_front)
        } else if state.under_way.front().is_some_and(|job| job.is_ready()) {
            state.under_way.pop_front()
        } else {
            None
        };
        state.outstanding -= usize::from(job.is_some());
        job
    }

    /// Asks the source for as many items as may be under way. Waits for room only where nothing is under way.
    fn fill(&self, deadline: &Deadline) -> Result<()> {
        loop {
            let (waiting, idle) = {
                let mut state = self.state();
                if state.freed || state.end.is_some() || state.outstanding >= self.window {
                    return Ok(());
                }
                (state.waiting.take(), state.outstanding == 0)
            };
            let Some(host) = self.host.upgrade() else {
                self.state().end = Some(End::Pool(Error::new(Kind::Closed, "stream: its pool was freed")));
                return Ok(());
            };
            let room = if idle { deadline.clone() } else { Deadline::new(Timeout::Try) };
            let submitted = match waiting {
                Some(item) => self.submit(&host, &item, &room),
                None => self.ask(&host, &room),
            };
            match submitted {
                Ok(()) => {}
                Err(error) if error.kind() == Kind::Full && (!idle || deadline.is_try()) => return Ok(()),
                Err(error) if error.kind() == Kind::Full => {
                    return Err(Error::new(Kind::TimedOut, format!("{}: no room for an item in time", host.name)));
                }
                Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                Err(error) => {
                    let mut state = self.state();
                    (state.waiting, state.end) = (None, Some(End::Pool(error)));
                }
            }
        }
    }

    /// Asks for one item, under no lock, and submits it.
    fn ask(&self, host: &Arc<Host>, room: &Deadline) -> Result<()> {
        let StreamOptions { next, user_data, pull, .. } = self.options;
        // Also a closed pool takes no more items: it is asked first, or an item would be lost.
        host.check_submission(self.options.function)?;
        let mut submitted = Ok(());
        let pulled = pull(next, user_data, &mut |item| {
            let mut state = self.state();
            if !state.freed {
                state.items += 1;
                drop(state);
                submitted = self.submit(host, item, room);
            }
        });
        if let Err(end) = pulled {
            self.state().end = Some(End::Source(end));
        }
        submitted
    }

    /// Keeps the item if there is no room for it now.
    fn submit(&self, host: &Arc<Host>, item: &[u8], room: &Deadline) -> Result<()> {
        let StreamOptions { function, limits, unordered, .. } = self.options;
        let spec = TaskSpec { function, argument: item, attempts: 1, items: 0, result_size: None, limits };
        let part = if unordered { Part::Item(self.ended.clone()) } else { Part::Single };
        let id = self.state().items;
        let submission = Submission { spec, callbacks: None, id, handle: true, part };
        // Before it can end.
        self.state().outstanding += 1;
        let submitted = host.submit(&submission, room);
        let mut state = self.state();
        match submitted {
            Ok(job) if state.freed => {
                drop(state);
                host.abandon(&job);
            }
            Ok(job) if !unordered => state.under_way.push_back(job),
            Ok(_) => {}
            Err(error) => {
                state.outstanding -= 1;
                state.waiting = matches!(error.kind(), Kind::Full | Kind::Interrupted).then(|| item.to_vec());
                return Err(error);
            }
        }
        Ok(())
    }

    fn free(&self) {
        if self.epoch != thread::epoch() {
            return;
        }
        let mut jobs = {
            let mut state = self.state();
            (state.freed, state.waiting) = (true, None);
            std::mem::take(&mut state.under_way)
        };
        *self.ended.jobs() = None;
        let Some(host) = self.host.upgrade() else { return };
        if self.options.unordered {
            jobs.extend(host.jobs_of(&self.ended));
        }
        // The last ones first: a worker that gets free meanwhile takes what will be taken back later.
        for job in jobs.iter().rev() {
            host.abandon(job);
        }
    }
}

impl Host {
    /// What is pending of an unordered stream.
    fn jobs_of(&self, ended: &Arc<Ended>) -> Vec<Arc<Job>> {
        let _ = self.collect();
        self.lock().map(|state| state.table.jobs_of(ended)).unwrap_or_default()
    }
}
