//! Conditions: a notification that returned releases one who waited, whoever dies; nobody is released by nothing.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::Ordering::SeqCst;

use tine::ffi::condition::{
    tine_condition_free, tine_condition_new, tine_condition_notify, tine_condition_t, tine_condition_wait,
};
use tine::ffi::lock::{tine_lock_acquire, tine_lock_free, tine_lock_new, tine_lock_release, tine_lock_t};
use tine::ffi::status::{TINE_ETIMEDOUT, TINE_OK, TINE_OWNER_DIED};

use crate::lock::runs;
use crate::scene::{Books, Scene, Stage, Trial, Verdict, Victim};
use crate::seat::{Act, Seat};

/// A condition and its lock.
struct Condition {
    condition: *mut tine_condition_t,
    lock: *mut tine_lock_t,
}

impl Condition {
    fn new() -> Condition {
        let (mut condition, mut lock) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: NULL options are the defaults; places for the handles.
        let status = unsafe { (tine_condition_new(ptr::null(), &mut condition), tine_lock_new(ptr::null(), &mut lock)) };
        assert_eq!(status, (TINE_OK, TINE_OK), "tine_condition_new, tine_lock_new");
        Condition { condition, lock }
    }

    fn acquire(&self, timeout_ms: i64) -> i32 {
        // SAFETY: a live lock.
        unsafe { tine_lock_acquire(self.lock, timeout_ms) }
    }

    fn release(&self) -> i32 {
        // SAFETY: a live lock.
        unsafe { tine_lock_release(self.lock) }
    }

    fn wait(&self, timeout_ms: i64) -> i32 {
        // SAFETY: a live condition and a live lock.
        unsafe { tine_condition_wait(self.condition, self.lock, timeout_ms) }
    }

    fn notify(&self, count: u32) -> i32 {
        // SAFETY: a live condition.
        unsafe { tine_condition_notify(self.condition, count) }
    }
}

impl Drop for Condition {
    fn drop(&mut self) {
        // SAFETY: ours, and no call is running on them in this process.
        unsafe { (tine_condition_free(self.condition), tine_lock_free(self.lock)) };
    }
}

struct ConditionStage {
    condition: Condition,
    warm: Condition,
    /// Deaths of the lock's owner that the runner was told of: that one had its notification.
    told: Cell<usize>,
    /// Who had come back before the runner released all.
    back: Cell<usize>,
}

impl ConditionStage {
    /// Notes that are here or there.
    fn died(&self, trial: &Trial) -> usize {
        let told: u32 = trial.participants.iter().map(|participant| participant.seat.died.load(SeqCst)).sum();
        told as usize + self.told.get()
    }

    fn look_at_lock(&self) {
        match self.condition.acquire(0) {
            TINE_OWNER_DIED => self.told.set(self.told.get() + 1),
            TINE_OK => {}
            _ => return,
        }
        self.condition.release();
    }
}

/// How many this act notifies.
fn notified(act: Act) -> usize {
    if let Act::Notify(count) = act { count as usize } else { 0 }
}

fn is_back(status: Option<i32>) -> bool {
    matches!(status, Some(TINE_OK | TINE_OWNER_DIED))
}

impl Stage for ConditionStage {
    fn act(&self, act: Act, timeout_ms: i64, seat: &Seat) -> i32 {
        match act {
            Act::Notify(count) => {
                seat.begin();
                seat.end(self.condition.notify(count))
            }
            Act::Wait => {
                seat.begin();
                let acquired = self.condition.acquire(timeout_ms);
                if acquired < 0 {
                    return seat.end(acquired);
                }
                seat.died.fetch_add(u32::from(acquired == TINE_OWNER_DIED), SeqCst);
                let status = self.condition.wait(timeout_ms);
                seat.died.fetch_add(u32::from(status == TINE_OWNER_DIED), SeqCst);
                seat.end(status);
                self.condition.release();
                status
            }
            other => unreachable!("{other:?} is nothing for a condition"),
        }
    }

    fn warm_up(&self, _: Act) {
        self.warm.acquire(-1);
        self.warm.wait(1);
        self.warm.wait(0);
        self.warm.notify(1);
        self.warm.release();
        self.warm.notify(1);
    }

    fn starving(&self, trial: &Trial) -> Option<String> {
        self.look_at_lock();
        let waits = |act| act == Act::Wait;
        let waiting = trial.count(|participant| participant.waits() && waits(participant.act));
        let stuck = trial.count(|participant| participant.waits() && !waits(participant.act));
        if stuck > 0 {
            return Some(format!("{stuck} cannot notify"));
        }
        let back = trial.count(|participant| waits(participant.act) && is_back(participant.returned()));
        self.back.set(back);
        let by_runner: usize = trial.done.iter().map(|(act, _)| notified(*act)).sum();
        let returned = trial.participants.iter().filter(|participant| participant.returned().is_some());
        let given = by_runner + returned.map(|participant| notified(participant.act)).sum::<usize>();
        let slept = trial.count(|participant| participant.slept && waits(participant.act));
        let owed = given.min(slept).saturating_sub(back + self.died(trial));
        (waiting > 0 && owed > 0).then(|| format!("{waiting} wait although {given} were notified and {back} came back"))
    }

    fn release_all(&self, trial: &mut Trial) -> Verdict {
        for _ in 0..2 {
            if trial.count(|participant| participant.waits()) > 0 {
                trial.must(self, Act::Notify(u32::MAX))?;
            }
        }
        Ok(())
    }

    fn audit(&self, trial: &mut Trial) -> Result<Books, String> {
        for participant in trial.participants.iter().filter(|participant| !participant.killed) {
            match participant.returned() {
                Some(TINE_OK | TINE_OWNER_DIED) => {}
                Some(TINE_ETIMEDOUT) if participant.may_time_out && participant.act == Act::Wait => {}
                status => return Err(format!("{:?} answers {status:?}", participant.act)),
            }
        }
        let begun: usize = trial.participants.iter().map(|participant| notified(participant.act)).sum();
        let by_runner: usize = trial.done.iter().map(|(act, _)| notified(*act)).sum();
        if self.back.get() > begun + by_runner + self.died(trial) {
            return Err(format!("{} came back, {begun} and {by_runner} were notified", self.back.get()));
        }
        // Nobody waits: nothing is left of all that.
        trial.must(self, Act::Notify(1))?;
        self.look_at_lock();
        let status = trial.try_act(self, Act::Wait, 0);
        if status != TINE_ETIMEDOUT {
            return Err(format!("afterwards Wait answers {status}"));
        }
        let victim = trial.victim();
        let landed = match victim.act {
            Act::Wait => is_back(victim.returned()),
            _ => self.back.get() > 0,
        };
        Ok(Books { landed, consumed: 0 })
    }
}

pub fn scenes() -> Vec<Scene> {
    fn stage() -> Box<dyn Stage> {
        Box::new(ConditionStage { condition: Condition::new(), warm: Condition::new(), told: Cell::new(0), back: Cell::new(0) })
    }
    const WAITERS: &[Act] = &[Act::Wait, Act::Wait];
    const WAITERS3: &[Act] = &[Act::Wait, Act::Wait, Act::Wait];
    const BOTH: &[Act] = &[Act::Notify(1), Act::Wait];
    let scene = |name, sleepers, victim| Scene { name, stage, before: &[], sleepers, victim, thirds: BOTH, corpse: None };
    let after = |name, corpse, act| Scene {
        name,
        stage,
        before: &[],
        sleepers: WAITERS,
        victim: runs(&[], act),
        thirds: &[],
        corpse: Some(corpse),
    };
    let woken = |sleeper, wake| Victim::Woken { sleeper, wake };
    vec![
        scene("condition.notify", WAITERS, runs(&[], Act::Notify(1))),
        scene("condition.notify, two at once", WAITERS3, runs(&[], Act::Notify(2))),
        scene("condition.wait", WAITERS, runs(&[], Act::Wait)),
        scene("condition.wait, first woken", WAITERS3, woken(0, &[Act::Notify(1)])),
        scene("condition.wait, first woken of two", WAITERS3, woken(0, &[Act::Notify(2)])),
        scene("condition.wait, second woken", WAITERS3, woken(1, &[Act::Notify(2)])),
        after("condition.notify, after a dead notify", Act::Notify(1), Act::Notify(1)),
        after("condition.wait, after a dead notify", Act::Notify(1), Act::Wait),
        after("condition.notify, after a dead wait", Act::Wait, Act::Notify(1)),
    ]
}
