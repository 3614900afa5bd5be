//! Handing tasks over, and waiting for them.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, SeqCst};
use std::thread;
use std::time::Duration;

use super::duty;
use super::host::{Host, LOOK_MS, Locked, Submission};
use super::job::{Job, Part};
use super::message;
use super::table::{ArgumentAt, Table, TaskSpec};
use crate::error::{Error, Kind, Result};
use crate::shm::pool::BELLS;
use crate::shm::{Spin, Woken, Words};
use crate::sys::thread::Thread;
use crate::sys::{Deadline, elf, file};
use crate::timeout::Timeout;

/// Longer arguments are copied outside of the lock.
const COPIED_UNDER_LOCK: usize = 4 << 10;
/// Who fills a pool of at least so many tasks sleeps so long after one of them has ended.
const MANY: usize = 64;
const ROOM_NAP: Duration = Duration::from_micros(100);

impl Host {
    pub fn submit(self: &Arc<Host>, submission: &Submission, room: &Deadline) -> Result<Arc<Job>> {
        self.check_process()?;
        let spec = &submission.spec;
        self.check_function(spec.function)?;
        if self.crew.is_some() && spec.limits.timeout_ms != 0 {
            return Err(Error::new(Kind::NotSupported, "options.timeout_ms: a task in a thread cannot be ended"));
        }
        let host = submission.handle.then(|| Arc::downgrade(self));
        let job = Arc::new(Job::new(submission.id, submission.callbacks, host, submission.part.clone()));
        let w = Thread::current();
        let mut state = self.admit(room)?;
        let slot = state.table.reserve(spec, &job).map_err(|error| error.context(&self.name))?;
        let at = state.table.argument_at(slot);
        let mut written = Ok(());
        if spec.argument.len() <= COPIED_UNDER_LOCK {
            written = self.copy_argument(at, spec.argument);
        } else {
            // The slot is this task's; nobody looks at it before it is published.
            drop(state);
            let copied = self.copy_argument(at, spec.argument);
            state = self.lock()?;
            // Meanwhile the pool may have been ended.
            written = written.and(copied).and_then(|()| self.admits(&state));
        }
        let publish = |()| state.table.publish(w, slot, spec).map_err(|error| error.context(&self.name));
        if let Err(error) = written.and_then(publish) {
            state.table.release(slot);
            self.advance(w, &mut state);
            return Err(error);
        }
        if !std::mem::replace(&mut state.watched, true) {
            // Under the lock: whoever finds the pool idle meanwhile stops the clock after this, not before.
            self.begin_to_watch();
        }
        let trace_is_full = state.table.is_trace_full();
        drop(state);
        self.board.alert(w);
        if trace_is_full {
            // What came before is in the journals.
            self.collect()?;
            self.flush_trace();
        }
        Ok(job)
    }

    /// Whether a task with this function would be admitted.
    pub(super) fn check_submission(&self, function: usize) -> Result<()> {
        self.check_function(function)?;
        self.admits(&*self.lock()?)
    }

    /// Threads have whatever code there is by now.
    pub(super) fn check_function(&self, function: usize) -> Result<()> {
        match self.loaded.check(function) {
            Err(_) if self.crew.is_some() && elf::is_code(function) => Ok(()),
            checked => checked,
        }
    }

    /// Submits and waits. A task that is not done in time goes on for nobody.
    pub fn apply(self: &Arc<Host>, spec: TaskSpec, timeout: Timeout) -> Result<Arc<Job>> {
        let deadline = Deadline::new(timeout);
        let submission = Submission::new(spec, None, 0, false);
        let job = self.submit(&submission, &deadline).map_err(|error| match error.kind() {
            Kind::Full => Error::new(Kind::TimedOut, format!("{}: no room for the task in time", self.name)),
            _ => error,
        })?;
        match self.wait(&job, &deadline)? {
            true => Ok(job),
            false => {
                let why = format!("{}: the task is not done in time, and goes on for nobody", self.name);
                Err(Error::new(Kind::TimedOut, why))
            }
        }
    }

    pub(super) fn copy_argument(&self, at: ArgumentAt, argument: &[u8]) -> Result<()> {
        match at {
            ArgumentAt::Mapped(offset) => {
                self.board.tasks.window.write(offset, argument);
                Ok(())
            }
            ArgumentAt::Unmapped(offset) => file::write_at(self.files.tasks.as_fd(), argument, offset).map_err(|errno| {
                crate::sys::failure(errno, format_args!("{}: an argument of {} bytes", self.name, argument.len()))
            }),
        }
    }

    /// The state, once there is room for one more task.
    pub(super) fn admit(&self, room: &Deadline) -> Result<Locked<'_>> {
        let state = self.lock()?;
        self.admits(&state)?;
        if state.table.pending < state.table.max_pending {
            return Ok(state);
        }
        drop(state);
        self.wait_for_room(room)
    }

    #[cold]
    pub(super) fn wait_for_room(&self, room: &Deadline) -> Result<Locked<'_>> {
        loop {
            self.collect()?;
            let mut state = self.lock()?;
            self.admits(&state)?;
            if state.table.pending < state.table.max_pending {
                return Ok(state);
            }
            if room.passed() {
                return Err(Error::new(
                    Kind::Full,
                    format!("{}: {} tasks are pending already", self.name, state.table.max_pending),
                ));
            }
            let many = state.table.max_pending >= MANY;
            let bell = state.table.take_bell();
            state.table.room_bells |= 1 << bell;
            self.publish_bells(&state.table);
            drop(state);
            let waited = self.wait_with_bell(bell, room, || {
                let state = self.lock()?;
                Ok(self.admits(&state).is_err() || state.table.pending < state.table.max_pending)
            });
            if waited? && many {
                // There is room for one. Whoever fills a pool soon needs more: better asleep once for many than once for each.
                thread::sleep(ROOM_NAP);
            }
        }
    }

    pub(super) fn publish_bells(&self, table: &Table) {
        let (w, head) = (Thread::current(), &self.board.tasks.head);
        w.store64(&head.bells_in_use, table.bells_in_use, SeqCst);
        w.store64(&head.any_bells, table.room_bells, SeqCst);
    }

    // ---- Waiting ----

    /// Waits until the job is ready; `false`: the time ran out.
    pub fn wait(&self, job: &Job, deadline: &Deadline) -> Result<bool> {
        // A callback that waits cannot wait for callbacks that come after it.
        let delivering = self.is_delivering();
        let ready = || job.is_ready() || delivering && job.has_ended();
        if ready() {
            return Ok(true);
        }
        let w = Thread::current();
        if deadline.is_try() {
            return Ok(self.is_ready(job));
        }
        let mut spin = Spin::new();
        while spin.again(w) {
            if self.sees_entry() {
                self.collect()?;
            }
            if ready() {
                return Ok(true);
            }
        }
        let bell = {
            let mut state = self.lock()?;
            let bell = match job.bell() {
                Some(bell) => {
                    state.table.share_bell(bell);
                    bell
                }
                None => state.table.take_bell(),
            };
            job.set_bell(Some(bell));
            if job.is_whole() {
                state.table.room_bells |= 1 << bell;
            }
            state.table.ring_when_ended(w, job, bell);
            self.publish_bells(&state.table);
            bell
        };
        self.wait_with_bell(bell, deadline, || Ok(ready()))
    }

    /// Waits until `ready`, which can change whenever a task ends; `false`: the time ran out.
    pub(super) fn wait_for_any(&self, deadline: &Deadline, ready: impl Fn() -> bool) -> Result<bool> {
        let (w, mut spin) = (Thread::current(), Spin::new());
        loop {
            self.collect()?;
            if ready() || deadline.is_try() {
                return Ok(ready());
            }
            if !spin.again(w) {
                break;
            }
        }
        let bell = {
            let mut state = self.lock()?;
            let bell = state.table.take_bell();
            state.table.room_bells |= 1 << bell;
            self.publish_bells(&state.table);
            bell
        };
        self.wait_with_bell(bell, deadline, || Ok(ready()))
    }

    /// Sleeps until `ready`, looking whenever the bell rings; then gives the bell back. `false`: the time ran out.
    pub(super) fn wait_with_bell(&self, bell: usize, deadline: &Deadline, ready: impl Fn() -> Result<bool>) -> Result<bool> {
        let waited = self.sleep_until(bell, deadline, ready);
        let mut state = self.lock()?;
        state.table.return_bell(bell);
        self.publish_bells(&state.table);
        waited
    }

    fn sleep_until(&self, bell: usize, deadline: &Deadline, ready: impl Fn() -> Result<bool>) -> Result<bool> {
        let w = Thread::current();
        let word = &self.board.claims.head.bells[bell.min(BELLS - 1)];
        loop {
            let heard = w.load(word, Acquire);
            // Either the one who ends the task sees that somebody waits, or this one sees that it has ended.
            w.fence();
            self.collect()?;
            if ready()? {
                return Ok(true);
            }
            if deadline.passed() {
                return Ok(false);
            }
            // The delivery thread, whose task it is to look after the nursery, may be busy with a callback.
            if w.wait(word, heard, &deadline.at_most(LOOK_MS))? == Woken::TimedOut {
                self.check_up()?;
            }
        }
    }

    /// Whether the job is ready now.
    pub fn is_ready(&self, job: &Job) -> bool {
        let delivering = self.is_delivering();
        if !job.is_ready() && self.may_have_entry() {
            let _ = self.collect();
        }
        job.is_ready() || delivering && job.has_ended()
    }

    /// Nobody waits for the job any more: it does not start, or goes on for nobody.
    pub(super) fn abandon(&self, job: &Job) {
        let w = Thread::current();
        if let Ok(mut state) = self.lock() {
            if !state.table.cancel(w, job, Kind::Canceled) {
                state.table.abandon(w, job);
            }
            self.advance(w, &mut state);
        }
    }

    /// Takes the task back if no worker has it; else has its worker ended.
    pub fn cancel(&self, job: &Job) -> Result<()> {
        self.check_process()?;
        self.collect()?;
        if job.has_ended() {
            return Ok(());
        }
        if let Part::Whole(batch) = &job.part {
            return batch.upgrade().map_or(Ok(()), |batch| self.stop_batch(&batch, false));
        }
        let w = Thread::current();
        {
            let mut state = self.lock()?;
            if state.table.cancel(w, job, Kind::Canceled) {
                self.advance(w, &mut state);
                return Ok(());
            }
            if job.has_ended() {
                return Ok(());
            }
            if self.crew.is_some() {
                let why = format!("{}: a task that runs in a thread cannot be cancelled", self.name);
                return Err(Error::new(Kind::NotSupported, why));
            }
            // Before the nursery is told: a worker that it does not see running the task yet sees this.
            state.table.abandon(w, job);
        }
        self.order(message::CANCEL, duty::name_of(job.slot(), job.generation()) as i64)
    }
}

impl Job {
    /// Waits until the task has ended and its callback has returned.
    pub fn wait(&self, timeout: Timeout) -> Result<()> {
        if self.is_ready() {
            return Ok(());
        }
        let in_time = match self.host() {
            Some(host) => {
                host.check_process()?;
                host.wait(self, &Deadline::new(timeout))?
            }
            // A pool that is gone has ended all its tasks.
            None => self.has_ended(),
        };
        if in_time { Ok(()) } else { Err(Error::new(Kind::TimedOut, "async: the task has not ended in time")) }
    }

    pub fn is_ready_now(&self) -> Result<bool> {
        match self.host() {
            Some(host) => {
                host.check_process()?;
                Ok(host.is_ready(self))
            }
            None => Ok(self.has_ended()),
        }
    }

    pub fn is_successful(&self) -> Result<bool> {
        Ok(self.is_ready_now()? && self.outcome()?.failure.is_none())
    }

    pub fn cancel(&self) -> Result<()> {
        match self.host() {
            Some(host) => host.cancel(self),
            None => Ok(()),
        }
    }
}
