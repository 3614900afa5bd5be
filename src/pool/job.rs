//! A task as the host's program sees it: what it will be told, and what became of it.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, OnceLock, Weak};

use super::batch::Batch;
use super::host::Host;
use super::stream::Ended;
use crate::error::{Error, Kind, Result};
use crate::process::ExitInfo;
use crate::sys::heap::Filled;
use crate::sys::wait::Ending;

/// What became of a task.
pub struct Outcome {
    /// `None`: its function returned 0.
    pub failure: Option<Kind>,
    /// What its function returned; 0 where it did not return.
    pub code: i32,
    pub worker_pid: i32,
    /// Where a worker's death has to do with it.
    pub death: Option<ExitInfo>,
    data: Option<Filled>,
    length: usize,
    /// What its worker wrote last to standard error, with a zero behind it.
    tail: Option<Vec<u8>>,
}

impl Outcome {
    pub fn new(failure: Option<Kind>, code: i32, worker_pid: i32) -> Outcome {
        Outcome { failure, code, worker_pid, death: None, data: None, length: 0, tail: None }
    }

    /// The first `length` bytes of `data`.
    pub fn with_data(self, data: Option<Filled>, length: usize) -> Outcome {
        let length = length.min(data.as_ref().map_or(0, |data| data.len()));
        Outcome { data, length, ..self }
    }

    pub fn with_death(self, death: ExitInfo) -> Outcome {
        Outcome { death: Some(death), ..self }
    }

    pub fn with_tail(self, tail: Option<Vec<u8>>) -> Outcome {
        Outcome { tail, ..self }
    }

    /// What its worker wrote last to standard error, and a zero behind it; `None`: nobody wanted that, or no worker died.
    pub fn stderr_tail(&self) -> Option<&[u8]> {
        self.tail.as_deref()
    }

    /// How the task's worker ended.
    pub fn death(&self) -> Result<&ExitInfo> {
        self.death.as_ref().ok_or_else(|| Error::new(Kind::NotFound, "result: no worker ended with this task"))
    }

    /// Why the task failed, for a message.
    pub fn why(&self) -> String {
        match (self.failure, self.death.as_ref().and_then(|death| death.ending)) {
            (Some(Kind::TaskFailed), _) => format!("its function returned {}", self.code),
            (Some(Kind::MessageSize), _) => "its reply is longer than result_size".to_owned(),
            (Some(Kind::TimedOut), _) => "its running time was over".to_owned(),
            (Some(Kind::Canceled), _) => "it was cancelled".to_owned(),
            (_, Some(Ending::Exited(code))) => format!("its worker ended with exit code {code}"),
            (_, Some(Ending::Signaled { signal, .. })) => format!("its worker was ended by signal {signal}"),
            (_, None) => "its worker died".to_owned(),
        }
    }

    pub fn data(&self) -> &[u8] {
        // An empty one, too, has an address that may be read.
        const EMPTY: &[u8; 16] = &[0; 16];
        self.data.as_ref().map_or(&EMPTY[..0], |data| &data[..self.length])
    }
}

/// Calls one of the host's functions; `function` and `user_data` are addresses that only the caller of the library understands.
pub type Invoke = fn(function: usize, user_data: usize, job: &Arc<Job>);

/// Whom to tell.
#[derive(Clone, Copy, Debug)]
pub struct Callbacks {
    /// 0 = nobody.
    pub success: usize,
    pub error: usize,
    pub user_data: usize,
    pub invoke: Invoke,
}

impl Callbacks {
    fn for_outcome(&self, outcome: &Outcome) -> usize {
        if outcome.failure.is_none() { self.success } else { self.error }
    }
}

/// What a job is to others.
#[derive(Clone, Default)]
pub(super) enum Part {
    #[default]
    Single,
    /// Of a map, by its number there.
    Chunk(Arc<Batch>, usize),
    /// A map: no task of its own.
    Whole(Weak<Batch>),
    /// Of a stream that wants to know in which order its items end.
    Item(Arc<Ended>),
}

/// A task that was submitted: async and result at once.
pub struct Job {
    /// The number that the caller chose, or the sequence number.
    id: AtomicU64,
    /// {slot, low half of the sequence number}: where to look while it is not ended.
    place: AtomicU64,
    callbacks: Option<Callbacks>,
    outcome: OnceLock<Outcome>,
    /// The outcome is there, and (in a pool with a thread) its callback has returned.
    ready: AtomicBool,
    /// The bell of those who wait, counted from 1; changed under the pool's lock.
    bell: AtomicU64,
    host: Option<Weak<Host>>,
    pub(super) part: Part,
}

/// The place of a job without a task: no slot, and no generation of any.
const NO_PLACE: u64 = u64::MAX;

impl Job {
    pub(super) fn new(id: u64, callbacks: Option<Callbacks>, host: Option<Weak<Host>>, part: Part) -> Job {
        Job {
            id: AtomicU64::new(id),
            place: AtomicU64::new(NO_PLACE),
            callbacks,
            outcome: OnceLock::new(),
            ready: AtomicBool::new(false),
            bell: AtomicU64::new(0),
            host,
            part,
        }
    }

    pub fn id(&self) -> u64 {
        self.id.load(Relaxed)
    }

    /// It has a slot now. Before anybody else can see the job.
    pub(super) fn assign(&self, slot: u32, sequence: u64) {
        if self.id() == 0 {
            self.id.store(sequence, Relaxed);
        }
        self.place.store(u64::from(slot) << 32 | sequence & u64::from(u32::MAX), Relaxed);
    }

    pub(super) fn slot(&self) -> u32 {
        (self.place.load(Relaxed) >> 32) as u32
    }

    pub(super) fn generation(&self) -> u32 {
        self.place.load(Relaxed) as u32
    }

    /// The pool, if it is still there. `None` for jobs that nobody has a handle of.
    pub(super) fn host(&self) -> Option<Arc<Host>> {
        self.host.as_ref().and_then(Weak::upgrade)
    }

    pub(super) fn wants_delivery(&self) -> bool {
        self.callbacks.is_some() || matches!(self.part, Part::Chunk(..))
    }

    /// Whether no worker can ring for those who wait for it: it ends with other jobs.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.part, Part::Whole(_))
    }

    /// Writes down what became of it; answers whether there is somebody to tell. `at_once`: it is ready before they are told.
    pub(super) fn end(&self, outcome: Outcome, at_once: bool) -> bool {
        let tell = self.callbacks.is_some_and(|callbacks| callbacks.for_outcome(&outcome) != 0);
        let _ = self.outcome.set(outcome);
        if !tell || at_once {
            self.set_ready();
        }
        tell
    }

    /// Runs the callback.
    pub(super) fn deliver(self: &Arc<Job>) {
        if let (Some(callbacks), Some(outcome)) = (self.callbacks, self.outcome.get()) {
            (callbacks.invoke)(callbacks.for_outcome(outcome), callbacks.user_data, self);
        }
    }

    pub(super) fn set_ready(&self) {
        self.ready.store(true, SeqCst);
    }

    pub(super) fn bell(&self) -> Option<usize> {
        (self.bell.load(SeqCst) as usize).checked_sub(1)
    }

    pub(super) fn set_bell(&self, bell: Option<usize>) {
        self.bell.store(bell.map_or(0, |bell| bell as u64 + 1), SeqCst);
    }

    pub fn is_ready(&self) -> bool {
        self.ready.load(SeqCst)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.outcome.get().is_some()
    }

    /// What became of it, once it has ended.
    pub fn outcome(&self) -> Result<&Outcome> {
        self.outcome.get().ok_or_else(|| Error::new(Kind::Busy, "async: the task has not ended"))
    }
}
