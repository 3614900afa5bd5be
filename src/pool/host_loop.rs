//! A pool without a thread of its own in the host: callbacks run where the host's program polls, joins or frees the pool.
//!
//! Its descriptor gathers what the delivery thread of other pools sleeps for. Outside of a turn the pool counts as asleep, so whoever
//! has something for it makes the descriptor readable; each turn ends by looking once more for what came before that was known.
#![forbid(unsafe_code)]

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::host::{Host, LOOK_MS};
use crate::error::{Error, Kind, Result};
use crate::shm::Words;
use crate::sys::gathering::Gathering;
use crate::sys::thread::Thread;
use crate::sys::{Deadline, fd, poll};
use crate::timeout::Timeout;

/// What one thread at a time has: it runs the pool's callbacks.
struct Turn<'a> {
    host: &'a Host,
    gathering: &'a Gathering,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Ok(mut state) = self.host.lock() {
            state.polling = false;
            // Whoever waits for a turn waits for the end as well.
            state.table.to_ring |= state.table.join_bells;
        }
    }
}

impl Turn<'_> {
    /// Takes in what is there and runs its callbacks, at most `max`, or all once one of them has freed the pool; answers how many.
    fn work(&self, max: usize) -> Result<usize> {
        let (w, host, word) = (Thread::current(), self.host, &self.host.board.tasks.head.delivery);
        let nap = w.load(word, Relaxed);
        w.store(word, nap & !1, SeqCst);
        fd::clear(host.bell.as_raw_fd());
        let done = self.run_callbacks(max);
        // Odd, and another number than the last time: see `Host::wake_delivery`.
        w.store(word, nap.wrapping_add(2) | 1, SeqCst);
        w.fence();
        // What came meanwhile makes the descriptor readable again.
        host.collect()?;
        // So does what is left: see `Host::lock`.
        drop(host.lock()?);
        done
    }

    fn run_callbacks(&self, max: usize) -> Result<usize> {
        let (host, mut count) = (self.host, 0);
        if self.gathering.has_ticked() {
            host.check_up()?;
            self.calm_down()?;
        } else if host.nursery_is_gone() {
            host.end()?;
        }
        loop {
            host.collect()?;
            // Nobody can ask for the rest of what a pool tells that was freed.
            let left = if host.freed.load(Relaxed) { usize::MAX } else { max };
            let jobs: Vec<_> = {
                let deliveries = &mut host.lock()?.table.deliveries;
                let many = deliveries.len().min(left);
                deliveries.drain(..many).collect()
            };
            if jobs.is_empty() {
                return Ok(count);
            }
            count += jobs.len();
            for job in jobs {
                host.run_callback(&job);
            }
            if !host.freed.load(Relaxed) {
                // What ended meanwhile is the next turn's: callbacks that submit would never let this one end.
                return Ok(count);
            }
        }
    }

    /// Without tasks nobody has to look after them. Asked when the clock ticks: each task would set and stop it.
    fn calm_down(&self) -> Result<()> {
        let mut state = self.host.lock()?;
        if state.watched && state.table.pending == 0 && state.unsent_end.is_none() {
            state.watched = false;
            self.gathering.tick_every(0);
        }
        Ok(())
    }

    fn is_over(&self) -> Result<bool> {
        Ok(self.host.lock()?.is_over())
    }

    fn sleep(&self, deadline: &Deadline) -> Result<()> {
        poll::readable(&[self.gathering.as_raw_fd()], deadline).map(|_| ())
    }
}

impl Host {
    /// What is readable while there is something to poll for; -1 for a pool with a thread.
    pub fn loop_fd(&self) -> Result<i32> {
        self.check_process()?;
        Ok(self.gathering.as_ref().map_or(-1, AsRawFd::as_raw_fd))
    }

    /// Somebody has submitted the first task for a while: it is looked after once a second.
    pub(super) fn begin_to_watch(&self) {
        match &self.gathering {
            Some(gathering) => gathering.tick_every(LOOK_MS),
            None => fd::ring(self.bell.as_raw_fd()),
        }
    }

    /// Runs callbacks, at most `max`, as soon as there are some; answers how many.
    pub fn poll(&self, timeout: Timeout, max: usize) -> Result<usize> {
        self.check_process()?;
        if self.gathering.is_none() {
            return Err(Error::new(Kind::NotSupported, format!("{}: tine_pool_poll is for TINE_POOL_HOST_LOOP", self.name)));
        }
        if self.is_delivering() {
            return Err(Error::new(Kind::Busy, format!("{}: tine_pool_poll inside a callback", self.name)));
        }
        let deadline = Deadline::new(timeout);
        let nothing = || Error::new(Kind::TimedOut, "tine_pool_poll: no callback to run in time");
        let Some(turn) = self.take_turn(&deadline)? else { return Err(nothing()) };
        loop {
            match turn.work(max)? {
                0 if turn.is_over()? => return Err(self.why_over()?),
                0 if deadline.passed() => return Err(nothing()),
                0 => turn.sleep(&deadline)?,
                count => return Ok(count),
            }
        }
    }

    /// Runs callbacks until everything is over; `false`: the time ran out.
    pub(super) fn poll_to_the_end(&self, deadline: &Deadline) -> Result<bool> {
        let Some(turn) = self.take_turn(deadline)? else { return Ok(false) };
        loop {
            turn.work(usize::MAX)?;
            if turn.is_over()? {
                return Ok(true);
            }
            if deadline.passed() {
                return Ok(false);
            }
            turn.sleep(deadline)?;
        }
    }

    fn why_over(&self) -> Result<Error> {
        let state = self.lock()?;
        Ok(self.admits(&state).err().unwrap_or_else(|| self.closed(&state)))
    }

    /// `None`: another thread has it all the time, or this is no pool for it.
    fn take_turn(&self, deadline: &Deadline) -> Result<Option<Turn<'_>>> {
        let Some(gathering) = &self.gathering else { return Ok(None) };
        loop {
            let bell = {
                let mut state = self.lock()?;
                if !std::mem::replace(&mut state.polling, true) {
                    return Ok(Some(Turn { host: self, gathering }));
                }
                let bell = state.table.take_bell();
                state.table.join_bells |= 1 << bell;
                self.publish_bells(&state.table);
                bell
            };
            if !self.wait_with_bell(bell, deadline, || Ok(!self.lock()?.polling))? {
                return Ok(None);
            }
        }
    }
}
