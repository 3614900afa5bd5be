//! The library's own threads stand still while it copies the process.
//!
//! A lock that another thread holds at the moment of a fork stays locked in the child. The library's threads are no such threads:
//! they are outside (asleep, holding nothing) or wait at this gate while somebody forks. Inside they run the host's callbacks; one
//! that does not return in time makes the fork fail, instead of copying whatever it was in the middle of.
//!
//! Any thread may have a *step* that a child must not see halfway. It waits for nobody, so a fork waits for it, and it for the fork: but
//! not for one that still waits for a callback, which may wait for that thread, and not for long, because a handler of pthread_atfork
//! may wait for a lock of that thread's.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering::*};

use super::per_process::PerProcess;
use super::{Deadline, futex, thread};
use crate::error::{Error, Kind, Result};
use crate::timeout::Timeout;

/// How long a fork waits for them.
const WAIT_MS: u64 = 1_000;
/// How long a fork lets those go first who wait for others: forks that overlap would keep them out for ever.
const TURN_MS: u64 = 100;
/// How long a fork waits for a step, which takes a moment.
const STEP_MS: u64 = 10_000;
/// How long a step waits for a fork. Descriptors are copied at its beginning, however long the rest takes.
const FORK_MS: u64 = 500;

#[derive(Default)]
struct Gate {
    /// Threads of the library that exist.
    threads: u32,
    /// Those of them that are inside.
    inside: u32,
    /// Threads that are in a step.
    steps: u32,
    /// Threads that want to be inside, or in a step.
    waiting: u32,
    /// Forks under way.
    closed: u32,
    /// Those of them for which nobody is inside any more.
    forking: u32,
}

static GATE: PerProcess<Gate> = PerProcess::new();
/// Changes whenever somebody may have waited for it.
static CHANGED: AtomicU32 = AtomicU32::new(0);

thread_local! {
    // Const and without Drop. The process's epoch, where it is so: a forked child's thread is not.
    static INSIDE: Cell<u64> = const { Cell::new(0) };
    static FORKING: Cell<u64> = const { Cell::new(0) };
}

/// A thread of the library, as long as it lives.
#[derive(Debug)]
pub struct Member(());

impl Member {
    pub fn new() -> Member {
        GATE.with(|gate| gate.threads += 1);
        Member(())
    }

    /// Waits while somebody forks; then the thread is inside until the answer is dropped.
    pub fn enter(&self) -> Inside {
        come_in(Timeout::Forever, |gate| gate.closed == 0, |gate| gate.inside += 1);
        INSIDE.set(thread::epoch());
        Inside(())
    }
}

/// Waits until `is_open`, or for the time; then does what `enter` does.
fn come_in(time: Timeout, is_open: impl Fn(&Gate) -> bool, enter: impl Fn(&mut Gate)) {
    let mut waits = false;
    let come = |gate: &mut Gate| {
        let open = is_open(gate);
        if open {
            enter(gate);
        } else if !waits {
            waits = true;
            gate.waiting += 1;
        }
        open
    };
    if !wait_until(&Deadline::new(time), come) {
        GATE.with(&enter);
    }
    if waits {
        GATE.with(|gate| gate.waiting -= 1);
        tell();
    }
}

impl Default for Member {
    fn default() -> Member {
        Member::new()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        GATE.with(|gate| gate.threads -= 1);
    }
}

#[derive(Debug)]
pub struct Inside(());

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(0);
        let waited_for = GATE.with(|gate| {
            gate.inside -= 1;
            gate.closed > 0
        });
        if waited_for {
            tell();
        }
    }
}

/// A step that no child sees halfway, until the answer is dropped: the thread waits for nobody meanwhile, and has only one at a time.
#[derive(Debug)]
pub struct Step {
    counted: bool,
}

pub fn step() -> Step {
    // A handler of pthread_atfork's may begin one in the midst of its own thread's fork.
    let counted = FORKING.get() != thread::epoch();
    if counted {
        come_in(Timeout::Millis(FORK_MS), |gate| gate.forking == 0, |gate| gate.steps += 1);
    }
    Step { counted }
}

impl Drop for Step {
    fn drop(&mut self) {
        if self.counted {
            let waited_for = GATE.with(|gate| {
                gate.steps -= 1;
                gate.forking > 0
            });
            if waited_for {
                tell();
            }
        }
    }
}

/// No other thread of the library is inside, and none of the process in a step, until the answer is dropped. In the child of a fork it
/// may be dropped as well.
#[derive(Debug)]
pub struct Closed {
    forking: bool,
    /// What the thread was before.
    before: u64,
}

/// Closes the gate for a fork. A callback that forks is inside itself, and does not wait for itself.
pub fn close() -> Result<Closed> {
    wait_until(&Deadline::new(Timeout::Millis(TURN_MS)), |gate| gate.waiting == 0);
    GATE.with(|gate| gate.closed += 1);
    let mut closed = Closed { forking: false, before: FORKING.get() };
    let own = u32::from(is_inside());
    let alone = |gate: &mut Gate| {
        let alone = gate.inside <= own;
        gate.forking += u32::from(alone);
        alone
    };
    if !wait_until(&Deadline::new(Timeout::Millis(WAIT_MS)), alone) {
        return Err(Error::new(
            Kind::Busy,
            "fork: a callback of a pool has been running for a second; what it holds would stay locked in the child",
        ));
    }
    closed.forking = true;
    FORKING.set(thread::epoch());
    if !wait_until(&Deadline::new(Timeout::Millis(STEP_MS)), |gate| gate.steps == 0) {
        return Err(Error::new(Kind::Busy, "fork: another thread has been opening or closing a pipe for ten seconds"));
    }
    Ok(closed)
}

/// Whether this thread is inside.
pub fn is_inside() -> bool {
    INSIDE.get() == thread::epoch()
}

impl Drop for Closed {
    fn drop(&mut self) {
        // The child has a gate of its own, which is open.
        GATE.with(|gate| {
            gate.closed = gate.closed.saturating_sub(1);
            gate.forking = gate.forking.saturating_sub(u32::from(self.forking));
        });
        FORKING.set(self.before);
        tell();
    }
}

/// How many threads of this process are the library's: they need not be feared at a fork.
pub fn own_threads() -> u32 {
    GATE.with(|gate| gate.threads)
}

fn tell() {
    // SYNC POINT: fork gate (release): behind the change of the gate that it tells of.
    CHANGED.fetch_add(1, Release);
    futex::wake(&CHANGED, u32::MAX);
}

/// `false`: the time ran out.
fn wait_until(deadline: &Deadline, mut condition: impl FnMut(&mut Gate) -> bool) -> bool {
    loop {
        // SYNC POINT: fork gate (acquire): before the look at the gate, whose lock orders the two.
        let seen = CHANGED.load(Acquire);
        if GATE.with(&mut condition) {
            return true;
        }
        if deadline.passed() {
            return false;
        }
        // An interrupt check of the forking thread has no say: the wait is short.
        let _ = super::interrupt::unasked(|| futex::wait(&CHANGED, seen, deadline));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_fork_waits_for_those_inside_and_in_a_step_and_they_for_the_fork() {
        let (entered, inside) = mpsc::channel();
        let (leave, may_leave) = mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            let member = Member::new();
            let guard = member.enter();
            entered.send(()).unwrap();
            may_leave.recv().unwrap();
            drop(guard);
            drop(member.enter());
        });
        inside.recv().unwrap();
        assert_eq!(close().unwrap_err().kind(), Kind::Busy);
        leave.send(()).unwrap();
        let closed = close().unwrap();
        drop(closed);
        other.join().unwrap();

        let begun = step();
        let other = std::thread::spawn(|| drop(close().unwrap()));
        while GATE.with(|gate| gate.forking) == 0 {
            std::thread::yield_now();
        }
        assert!(!other.is_finished());
        drop(begun);
        other.join().unwrap();
        let closed = close().unwrap();
        // Its own, as a handler of a fork's has, and another thread's, for which it does not wait for ever.
        drop(step());
        std::thread::spawn(|| drop(step())).join().unwrap();
        drop(closed);
    }
}
