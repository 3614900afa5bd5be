//! The pool's one thread in the host: takes in what workers and nursery write when nobody else does, and runs the callbacks.
#![forbid(unsafe_code)]

use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::host::{Host, LOOK_MS, Lifecycle};
use super::job::Job;
use crate::error::Result;
use crate::log::{self, Level};
use crate::shm::Words;
use crate::sys::fork_gate::Member;
use crate::sys::thread::Thread;
use crate::sys::{Deadline, fd, poll};
use crate::timeout::Timeout;

/// Callbacks that it takes over at a time.
const AT_ONCE: usize = 256;
/// How often it looks before it sleeps.
const LOOKS: u32 = 60;

/// The thread's life.
pub(super) fn run(host: &Arc<Host>, member: &Member) {
    // A panic is ours, and poisons the pool's locks: whoever calls is told. Callbacks cannot panic, they are C.
    if catch_unwind(AssertUnwindSafe(|| deliver_all(host, member))).is_err() {
        log::write(Level::Error, || format!("{}: the delivery thread failed", host.name));
    }
}

fn deliver_all(host: &Arc<Host>, member: &Member) {
    let mut sleep = Sleep { number: 0, submitted: 0 };
    let mut jobs = Vec::with_capacity(AT_ONCE);
    loop {
        {
            let _inside = member.enter();
            if work(host, &mut jobs).is_err() {
                return;
            }
        }
        match host.lock().map(|state| state.is_over()) {
            Ok(true) => break,
            Ok(false) => {}
            Err(_) => return,
        }
        sleep.until_something(host, member);
    }
    host.finish();
}

/// Takes in what is there, and runs callbacks until there are none left.
fn work(host: &Arc<Host>, jobs: &mut Vec<Arc<Job>>) -> Result<()> {
    loop {
        host.collect()?;
        {
            // The table keeps its room: it was made when these were submitted, for those that are pending.
            let deliveries = &mut host.lock()?.table.deliveries;
            let many = deliveries.len().min(AT_ONCE);
            jobs.extend(deliveries.drain(..many));
        }
        if jobs.is_empty() {
            break;
        }
        for job in jobs.drain(..) {
            host.run_callback(&job);
        }
    }
    if host.nursery_is_gone() {
        host.end()?;
    }
    Ok(())
}

struct Sleep {
    /// Of this sleep; odd while the thread sleeps.
    number: u32,
    /// Tasks that were submitted before the last sleep.
    submitted: u64,
}

impl Sleep {
    fn until_something(&mut self, host: &Host, member: &Member) {
        let (w, word) = (Thread::current(), &host.board.tasks.head.delivery);
        // Waking a thread costs whoever rings more than a moment's patience costs here.
        for turn in 0..LOOKS {
            if host.sees_entry() {
                return;
            }
            w.relax(turn);
        }
        let Ok(timeout) = self.how_long(host) else { return };
        self.number = self.number.wrapping_add(2) | 1;
        w.store(word, self.number, SeqCst);
        // Either whoever has something for this thread sees that it sleeps, or it sees what there is.
        w.fence();
        let idle = {
            let _inside = member.enter();
            host.collect().and_then(|()| self.is_idle(host))
        };
        if let Ok(Some(nursery)) = idle {
            let deadline = Deadline::new(timeout);
            match poll::readable(&[host.bell.as_raw_fd(), nursery], &deadline) {
                Ok(0) => {
                    let _inside = member.enter();
                    let _ = host.check_up();
                }
                Ok(ready) if ready & 1 != 0 => {
                    fd::clear(host.bell.as_raw_fd());
                }
                _ => {}
            }
        }
        w.store(word, self.number & !1, SeqCst);
    }

    /// Whether there is nothing to do; what to wait for beside the bell. The end of the nursery comes only once.
    fn is_idle(&self, host: &Host) -> Result<Option<i32>> {
        let state = host.lock()?;
        let idle = state.table.deliveries.is_empty() && !state.is_over();
        Ok(idle.then(|| if state.lifecycle == Lifecycle::Ended { -1 } else { host.nursery_fd() }))
    }

    /// For ever in a pool without tasks, from a second after the last one on: whoever submits the next one rings.
    fn how_long(&mut self, host: &Host) -> Result<Timeout> {
        let mut state = host.lock()?;
        let quiet = state.table.pending == 0 && state.unsent_end.is_none() && state.table.last_sequence == self.submitted;
        self.submitted = state.table.last_sequence;
        state.watched = !quiet;
        Ok(if quiet { Timeout::Forever } else { Timeout::Millis(LOOK_MS) })
    }
}
