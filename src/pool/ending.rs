//! The end of a pool: closing, terminating, joining, and a nursery that is gone.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::thread;
use std::time::Duration;

use super::board::phase;
use super::collect::{ORDERED, UNKNOWN};
use super::host::{Host, Lifecycle, State};
use super::roll::stage;
use crate::error::{Error, Kind, Result};
use crate::log::{self, Level};
use crate::shm::Words;
use crate::sys::thread::Thread;
use crate::sys::wait::{self, Child};
use crate::sys::{Deadline, fd, now, pidfd, poll, process, signal};
use crate::timeout::Timeout;

/// How long the nursery may take to hear a command, and how long after the grace to carry it out.
pub(super) const HEARING_MS: u64 = 2_000;
pub(super) const ENDING_MS: u64 = 5_000;
/// How long claims are left alone once all were looked at: less than whoever waits takes until it looks again.
const CHECK_NS: u64 = 900_000_000;

impl Host {
    /// What becomes readable when the nursery ends.
    pub(super) fn nursery_fd(&self) -> i32 {
        self.nursery.as_ref().map_or(self.socket.as_raw_fd(), AsRawFd::as_raw_fd)
    }

    pub(super) fn nursery_is_gone(&self) -> bool {
        pidfd::has_ended(&self.nursery_fd())
    }

    /// A host that adopts orphans (the first process of a container, a subreaper) has adopted the nursery and would keep its zombie.
    /// For every other host it is no child, and nothing happens.
    pub(super) fn reap_nursery(&self) {
        if let Some(nursery) = &self.nursery {
            let _ = wait::reap(Child::Pidfd(nursery.as_fd()));
        }
    }

    pub(super) fn kill_nursery(&self) {
        match &self.nursery {
            Some(nursery) => {
                let _ = pidfd::send_signal(nursery, signal::KILL);
            }
            // Its number is its own as long as its end of the socket is open and it is as old as it was.
            None if !self.nursery_is_gone() && process::start_time(self.nursery_pid) == self.nursery_start => {
                let _ = signal::send_to_child(self.nursery_pid, signal::KILL);
            }
            None => {}
        }
    }

    /// The nursery is gone: nothing comes any more. Whatever is pending ends.
    pub(super) fn end(&self) -> Result<()> {
        let w = Thread::current();
        // What workers did before they died is done.
        self.collect()?;
        let mut state = self.lock()?;
        if state.lifecycle == Lifecycle::Ended {
            return Ok(());
        }
        self.reap_nursery();
        let in_order = w.load(&self.roll.head.stage, Acquire) == stage::ENDED;
        if !in_order && state.lifecycle < Lifecycle::Stopping {
            let why = format!("{}: its nursery was killed", self.name);
            state.notes.push((Level::Error, why.clone()));
            state.broken.get_or_insert(why);
            self.set_phase(w, phase::STOPPING);
            state.table.end_all(w, Kind::Canceled, None, false);
            state.table.end_all(w, Kind::WorkerDied, Some(UNKNOWN), true);
        }
        state.table.end_all(w, Kind::Canceled, Some(ORDERED), true);
        state.lifecycle = Lifecycle::Ended;
        state.unsent_end = None;
        state.table.to_ring |= state.table.join_bells | state.table.room_bells;
        for worker in &mut state.table.workers {
            worker.alive = false;
        }
        drop(state);
        self.write_notes();
        if let Err(error) = self.end_trace() {
            log::write(Level::Warn, || format!("{}: {}", self.name, error.message()));
        }
        // The delivery thread ends with this.
        fd::ring(self.bell.as_raw_fd());
        Ok(())
    }

    /// Now and then, by whoever waits or delivers.
    pub(super) fn check_up(&self) -> Result<()> {
        if self.nursery_is_gone() {
            return self.end();
        }
        let mut state = self.lock()?;
        self.send_end(&mut state);
        self.check_claims(Thread::current(), &mut state);
        drop(state);
        self.write_notes();
        Ok(())
    }

    /// Looks at all that waits, which is not quick: once in a while, whoever looks.
    pub(super) fn check_claims(&self, w: Thread, state: &mut State) {
        let (queued, _) = state.table.counts();
        if queued == 0 || state.lifecycle > Lifecycle::Closing {
            state.doubtful = false;
        } else if now() >= state.checked + CHECK_NS {
            state.doubtful = false;
            let lost = state.table.repair(w);
            if lost > 0 {
                state.notes.push((Level::Warn, format!("{}: {lost} claims were written over", self.name)));
            }
            state.checked = now();
        }
    }

    pub fn close(&self) -> Result<()> {
        self.check_process()?;
        self.collect()?;
        let w = Thread::current();
        let mut state = self.lock()?;
        if state.lifecycle == Lifecycle::Open {
            state.lifecycle = Lifecycle::Closing;
            // The last task that ends is to be heard of.
            w.store(&self.board.tasks.head.eager, 1, SeqCst);
            state.table.to_ring |= state.table.room_bells;
            self.advance(w, &mut state);
        }
        drop(state);
        // Either whoever ends the last task sees that this is to be heard of, or its end is seen now.
        w.fence();
        self.collect()
    }

    /// Ends all workers; answers how many had to be killed.
    pub fn terminate(&self, grace: Timeout) -> Result<u32> {
        self.check_process()?;
        if self.crew.is_some() {
            return self.terminate_crew(grace);
        }
        let w = Thread::current();
        let grace_ms = match grace {
            Timeout::Forever => -1,
            Timeout::Try => 0,
            Timeout::Millis(millis) => i64::try_from(millis).unwrap_or(i64::MAX),
        };
        {
            let _ = self.collect();
            let mut state = self.lock()?;
            if state.lifecycle == Lifecycle::Ended {
                return Ok(w.load(&self.roll.head.killed, Relaxed));
            }
            self.stop(w, &mut state);
            self.order_end(&mut state, grace_ms);
        }
        if !self.hears_of_end(w) {
            log::write(Level::Warn, || format!("{}: its nursery does not answer and is killed", self.name));
            self.kill_nursery();
        }
        let end = match grace {
            Timeout::Forever => Deadline::new(Timeout::Forever),
            Timeout::Try => Deadline::new(Timeout::Millis(ENDING_MS)),
            Timeout::Millis(millis) => Deadline::new(Timeout::Millis(millis.saturating_add(ENDING_MS))),
        };
        if !self.await_nursery(&end) {
            self.kill_nursery();
            self.await_nursery(&Deadline::new(Timeout::Millis(HEARING_MS)));
        }
        self.end()?;
        match w.load(&self.roll.head.stuck, Relaxed) {
            0 => Ok(w.load(&self.roll.head.killed, Relaxed)),
            stuck => Err(Error::new(Kind::TimedOut, format!("{}: {stuck} workers were killed and cannot die", self.name))),
        }
    }

    /// Whether the nursery takes note in time that it has to end all workers, or is gone.
    fn hears_of_end(&self, w: Thread) -> bool {
        let deadline = Deadline::new(Timeout::Millis(HEARING_MS));
        loop {
            let heard = w.load(&self.roll.head.heard, Acquire);
            let sent = self.lock().ok().and_then(|mut state| self.send_end(&mut state));
            if sent.is_some_and(|number| heard.wrapping_sub(number) as i32 >= 0) || self.nursery_is_gone() {
                return true;
            }
            if deadline.passed() {
                return false;
            }
            let _ = w.wait(&self.roll.head.heard, heard, &deadline.at_most(100));
        }
    }

    pub(super) fn await_nursery(&self, deadline: &Deadline) -> bool {
        while !self.nursery_is_gone() {
            if deadline.passed() {
                return false;
            }
            // The thread's interrupt check has no say: terminate always returns anyway.
            if poll::readable(&[self.nursery_fd()], deadline).is_err() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        true
    }

    /// Waits until everything is over and every callback has returned.
    pub fn join(&self, timeout: Timeout) -> Result<()> {
        self.check_process()?;
        let deadline = Deadline::new(timeout);
        let bell = {
            let mut state = self.lock()?;
            if self.is_in_task() {
                return Err(Error::new(Kind::Busy, format!("{}: join inside a task would wait for itself", self.name)));
            }
            if self.is_delivering() {
                return Err(Error::new(Kind::Busy, format!("{}: join inside a callback would wait for itself", self.name)));
            }
            if state.lifecycle == Lifecycle::Open {
                return Err(Error::invalid(format!("{}: join before close or terminate", self.name)));
            }
            self.gathering.is_none().then(|| {
                let bell = state.table.take_bell();
                state.table.join_bells |= 1 << bell;
                self.publish_bells(&state.table);
                bell
            })
        };
        let in_time = match bell {
            Some(bell) => self.wait_with_bell(bell, &deadline, || Ok(self.lock()?.finished))?,
            None => self.poll_to_the_end(&deadline)?,
        };
        if in_time {
            return Ok(());
        }
        Err(Error::new(Kind::TimedOut, format!("{}: not all workers have left in time", self.name)))
    }

    /// The delivery thread has nothing to do any more.
    pub(super) fn finish(&self) {
        if let Ok(mut state) = self.lock() {
            state.finished = true;
            state.table.to_ring |= state.table.join_bells;
        }
    }
}
