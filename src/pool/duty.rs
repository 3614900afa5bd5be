//! What a worker is doing at this moment, and who decides how that ends: the worker, which has finished, or the nursery, which ends
//! it because its time is over, its task was cancelled or it takes too much memory.
//!
//! A worker goes through *laps*: one function call each, or many where nobody limits them. It turns its state from IDLE to RUNNING
//! before it calls the function and back afterwards; the nursery turns RUNNING of the very lap that it has looked at to CONDEMNED
//! before it sends the signal. Both are exchanges of one word with the number of the lap in it, so exactly one of the two happens:
//! no signal ever meets the next task, and a task that ended in time has ended.
//!
//! The page belongs to the one worker and the nursery: a wild pointer of another worker does not reach it. What a worker writes over
//! its own shortens or lengthens its own life at most.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use super::board::Taken;
use crate::mutant;
use crate::shm::Words;
use crate::shm::pool::Duty;

const IDLE: u64 = 0x11;
const RUNNING: u64 = 0x5a;
const CONDEMNED: u64 = 0xc3;
const RETIRING: u64 = 0x96;
const LAP_SHIFT: u32 = 8;

fn state(lap: u64, what: u64) -> u64 {
    lap << LAP_SHIFT | what
}

/// A task as host and nursery name it to each other.
pub fn name_of(slot: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(slot)
}

/// A lap that the nursery has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lap {
    state: u64,
    pub task: Taken,
    /// 0 = nobody wants to know.
    pub began: u64,
}

/// How a lap ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    InTime,
    /// The nursery has decided otherwise, and its signal is on the way.
    Condemned,
    /// Somebody wrote over the page.
    Spoilt,
}

/// The nursery's, before a process is born.
pub fn clear<W: Words>(w: W, duty: &Duty) {
    w.store64(&duty.state, state(0, IDLE), SeqCst);
}

/// The worker's.
pub fn begin<W: Words>(w: W, duty: &Duty, lap: u64, task: Taken, began: u64) {
    w.store64(&duty.task, name_of(task.slot, task.generation), Relaxed);
    w.store64(&duty.began, began, Relaxed);
    // SYNC POINT: lap (release; the acquire is in `running`).
    w.store64(&duty.state, state(lap, RUNNING), Release);
    // What the worker looks at afterwards is looked at afterwards: whether the task was cancelled, and when the nursery will look by
    // itself.
    w.fence();
}

/// The worker's.
pub fn end<W: Words>(w: W, duty: &Duty, lap: u64) -> End {
    match w.cas64(&duty.state, state(lap, RUNNING), state(lap, IDLE), SeqCst) {
        Ok(_) => End::InTime,
        Err(now) if now == state(lap, CONDEMNED) => End::Condemned,
        Err(_) => End::Spoilt,
    }
}

/// The nursery's: what the worker is doing. What it says may be of the next lap already; then [`condemn`] fails.
pub fn running<W: Words>(w: W, duty: &Duty) -> Option<Lap> {
    // SYNC POINT: lap (acquire).
    let state = w.load64(&duty.state, Acquire);
    let (task, began) = (w.load64(&duty.task, Relaxed), w.load64(&duty.began, Relaxed));
    let task = Taken { slot: task as u32, generation: (task >> 32) as u32 };
    (state & 0xff == RUNNING).then_some(Lap { state, task, began })
}

/// The nursery's: whether somebody wrote over the page.
pub fn is_spoilt<W: Words>(w: W, duty: &Duty) -> bool {
    ![IDLE, RUNNING, CONDEMNED, RETIRING].contains(&(w.load64(&duty.state, Relaxed) & 0xff))
}

/// The worker's: it has run as many tasks as it may, and waits until it may leave.
pub fn retire<W: Words>(w: W, duty: &Duty, lap: u64) {
    w.store64(&duty.state, state(lap, RETIRING), SeqCst);
}

/// The nursery's.
pub fn is_retiring<W: Words>(w: W, duty: &Duty) -> bool {
    w.load64(&duty.state, Acquire) & 0xff == RETIRING
}

/// The nursery's: decides that the lap does not end in time. `false`: it has ended.
pub fn condemn<W: Words>(w: W, duty: &Duty, lap: &Lap) -> bool {
    let condemned = lap.state >> LAP_SHIFT << LAP_SHIFT | CONDEMNED;
    if mutant::is("condemned_whatever_runs") {
        w.store64(&duty.state, condemned, SeqCst);
        return true;
    }
    w.cas64(&duty.state, lap.state, condemned, SeqCst).is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::pool::memory::{Duties, Files, Sizes};
    use crate::sys::thread::Thread;

    const TASK: Taken = Taken { slot: 7, generation: 70 };

    fn duties(places: usize) -> Duties {
        let (files, _claims) = Files::create(Sizes { slots: 8, places, arena: 4096 }, places).unwrap();
        Duties::map(&files).unwrap()
    }

    #[test]
    fn a_lap_ends_in_one_of_two_ways() {
        let (w, duties) = (Thread::current(), duties(2));
        let duty = duties.get(1).unwrap();
        clear(w, duty);
        assert_eq!(running(w, duty), None);
        begin(w, duty, 1, TASK, 5);
        let lap = running(w, duty).unwrap();
        assert_eq!((lap.task, lap.began), (TASK, 5));
        assert_eq!(end(w, duty, 1), End::InTime);
        assert!(!condemn(w, duty, &lap));
        begin(w, duty, 2, TASK, 6);
        assert!(!condemn(w, duty, &lap), "the lap after it pays for it");
        let lap = running(w, duty).unwrap();
        assert!(condemn(w, duty, &lap) && !condemn(w, duty, &lap));
        assert_eq!((end(w, duty, 2), running(w, duty)), (End::Condemned, None));
        assert!(!is_spoilt(w, duty));
    }

    #[test]
    fn a_page_that_was_written_over_is_known() {
        let (w, duties) = (Thread::current(), duties(1));
        let duty = duties.get(0).unwrap();
        assert!(is_spoilt(w, duty), "zeros are nothing that anybody writes");
        begin(w, duty, 3, TASK, 0);
        w.store64(&duty.state, 0x4141_4141_4141_4141, Relaxed);
        assert!(is_spoilt(w, duty));
        assert_eq!(end(w, duty, 3), End::Spoilt);
        assert!(duties.get(1).is_none());
    }
}
