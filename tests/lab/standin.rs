//! The instrument's own test: a small robust lock that is right, and three that are not. The laboratory must find nothing in the
//! first and something in each of the others, in every run.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use tine::ffi::status::{TINE_ETIMEDOUT, TINE_OK, TINE_OWNER_DIED};
use tine::shm::layout::ObjectKind;
use tine::shm::{Object, RobustCell, Segment};
use tine::sys::thread::Thread;
use tine::sys::{Deadline, futex};
use tine::timeout::Timeout;

use crate::lock::{self, Lock, LockStage};
use crate::scene::{Scene, Stage};

const WAITERS: u32 = 1 << 31;
const DIED: u32 = 1 << 30;
const OWNER: u32 = DIED - 1;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Dead between the two, the owner leaves a word that the kernel does not look at.
    PendingAfterCas,
    /// Dead between the two, it leaves sleepers before a free word.
    NotPendingAtWake,
    /// Whoever releases forgets that others still sleep.
    WakesNobodyElse,
}

struct StandIn {
    cell: Object<RobustCell>,
    fault: Fault,
}

impl StandIn {
    fn new(fault: Fault) -> StandIn {
        let segment: Arc<Segment> = Segment::create(ObjectKind::Slab, 4096).expect("memory");
        StandIn { cell: segment.object(0).expect("inside"), fault }
    }
}

impl Lock for StandIn {
    fn acquire(&self, timeout_ms: i64) -> i32 {
        let deadline = Deadline::new(Timeout::from_millis(timeout_ms).expect("a timeout"));
        let (thread, word) = (Thread::current(), self.cell.word.atomic());
        if self.fault != Fault::PendingAfterCas {
            thread.set_pending(word.as_ptr());
        }
        let status = loop {
            let was = word.load(SeqCst);
            if was & OWNER == 0 {
                let keep = if self.fault == Fault::WakesNobodyElse { 0 } else { was & WAITERS };
                if word.compare_exchange(was, thread.tid() | keep, SeqCst, SeqCst).is_ok() {
                    break if was & DIED == 0 { TINE_OK } else { TINE_OWNER_DIED };
                }
            } else if deadline.passed() {
                break TINE_ETIMEDOUT;
            } else if was & WAITERS != 0 || word.compare_exchange(was, was | WAITERS, SeqCst, SeqCst).is_ok() {
                let _ = futex::wait(word, was | WAITERS, &deadline);
            }
        };
        thread.set_pending(word.as_ptr());
        if status != TINE_ETIMEDOUT {
            // SAFETY: the cell stays mapped as long as its object lives.
            unsafe { thread.link(word.as_ptr()).expect("room on the list") };
        }
        thread.clear_pending();
        status
    }

    fn release(&self) -> i32 {
        let (thread, word) = (Thread::current(), self.cell.word.atomic());
        thread.set_pending(word.as_ptr());
        // SAFETY: as above.
        unsafe { thread.unlink(word.as_ptr()) };
        let was = word.fetch_and(WAITERS, SeqCst);
        if self.fault == Fault::NotPendingAtWake {
            thread.clear_pending();
        }
        if was & WAITERS != 0 {
            futex::wake(word, 1);
        }
        thread.clear_pending();
        TINE_OK
    }
}

fn stage(fault: Fault) -> Box<dyn Stage> {
    Box::new(LockStage::new(StandIn::new(fault), StandIn::new(fault)))
}

/// A lock in which nothing is to be found.
pub fn sound() -> Vec<Scene> {
    let names = [
        "standin.acquire",
        "standin.acquire, contended",
        "standin.release",
        "standin.acquire, leader woken",
        "standin.acquire, follower woken",
        "standin.acquire, after a dead acquire",
    ];
    lock::scenes(names, || stage(Fault::None))
}

/// Locks in each of which something is to be found, by the name of their fault.
pub fn broken() -> Vec<(&'static str, Vec<Scene>)> {
    let names = [
        "acquire",
        "acquire, contended",
        "release",
        "acquire, leader woken",
        "acquire, follower woken",
        "acquire, after a dead acquire",
    ];
    vec![
        ("pending after the CAS", lock::scenes(names, || stage(Fault::PendingAfterCas))),
        ("not pending at the wake", lock::scenes(names, || stage(Fault::NotPendingAtWake))),
        ("the mark of the waiters dropped", lock::scenes(names, || stage(Fault::WakesNobodyElse))),
    ]
}
