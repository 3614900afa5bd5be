//! Semaphores: no permit appears from nowhere, none is lost but with the dead who took it, nobody sleeps before a permit.

use std::ptr;

use tine::ffi::lock::tine_lock_options_t;
use tine::ffi::semaphore::{
    TINE_SEMAPHORE_TRACKED, tine_semaphore_acquire, tine_semaphore_free, tine_semaphore_new, tine_semaphore_release,
    tine_semaphore_t, tine_semaphore_value,
};
use tine::ffi::status::{TINE_ENOTOWNER, TINE_EOVERFLOW, TINE_ETIMEDOUT, TINE_OK};

use crate::lock::runs;
use crate::scene::{Books, Scene, Stage, Trial, Verdict, Victim};
use crate::seat::{Act, Seat};

const MAXIMUM: u32 = 8;

struct Semaphore(*mut tine_semaphore_t);

impl Semaphore {
    /// So many permits that belong to threads.
    fn tracked(permits: u32) -> Semaphore {
        let flags = TINE_SEMAPHORE_TRACKED;
        let options = tine_lock_options_t { size: size_of::<tine_lock_options_t>(), name: ptr::null(), flags, reserved: 0 };
        let mut semaphore = ptr::null_mut();
        // SAFETY: live options and a place for the handle.
        let status = unsafe { tine_semaphore_new(permits, 0, &options, &mut semaphore) };
        assert_eq!(status, TINE_OK, "tine_semaphore_new");
        Semaphore(semaphore)
    }

    fn new(maximum: u32) -> Semaphore {
        let mut semaphore = ptr::null_mut();
        // SAFETY: NULL options are the defaults; a place for the handle.
        let status = unsafe { tine_semaphore_new(0, maximum, ptr::null(), &mut semaphore) };
        assert_eq!(status, TINE_OK, "tine_semaphore_new");
        Semaphore(semaphore)
    }

    fn take(&self, timeout_ms: i64) -> i32 {
        // SAFETY: a live semaphore.
        unsafe { tine_semaphore_acquire(self.0, timeout_ms) }
    }

    fn give(&self, count: u32) -> i32 {
        // SAFETY: a live semaphore.
        unsafe { tine_semaphore_release(self.0, count) }
    }

    fn value(&self) -> u32 {
        // SAFETY: a live semaphore.
        unsafe { tine_semaphore_value(self.0) }
    }
}

impl Drop for Semaphore {
    fn drop(&mut self) {
        // SAFETY: ours, and no call is running on it in this process.
        unsafe { tine_semaphore_free(self.0) };
    }
}

struct SemaphoreStage {
    semaphore: Semaphore,
    warm: Semaphore,
    maximum: u32,
}

impl Stage for SemaphoreStage {
    fn act(&self, act: Act, timeout_ms: i64, seat: &Seat) -> i32 {
        seat.begin();
        let status = match act {
            Act::Take => self.semaphore.take(timeout_ms),
            Act::Give(count) => self.semaphore.give(count),
            other => unreachable!("{other:?} is nothing for a semaphore"),
        };
        seat.end(status)
    }

    fn warm_up(&self, _: Act) {
        self.warm.give(1);
        self.warm.take(0);
        self.warm.take(1);
    }

    fn starving(&self, trial: &Trial) -> Option<String> {
        let value = self.semaphore.value();
        let waiting = trial.count(|participant| participant.waits());
        (value > 0 && waiting > 0).then(|| format!("{waiting} sleep although {value} permits are there"))
    }

    fn release_all(&self, trial: &mut Trial) -> Verdict {
        for _ in 0..trial.count(|participant| participant.waits()) {
            trial.must(self, Act::Give(1))?;
        }
        Ok(())
    }

    fn audit(&self, trial: &mut Trial) -> Result<Books, String> {
        let value = i64::from(self.semaphore.value());
        let mut expected = 0;
        let mut uncertain = Vec::new();
        let mut consumed = 0;
        for (act, status) in &trial.done {
            expected += if *status == TINE_OK { worth(*act) } else { 0 };
        }
        for participant in &trial.participants {
            match participant.returned() {
                Some(TINE_OK) => {
                    expected += worth(participant.act);
                    consumed += usize::from(participant.killed && participant.act == Act::Take);
                }
                Some(TINE_ETIMEDOUT) if participant.may_time_out => {}
                None if participant.killed => uncertain.push(worth(participant.act)),
                status => return Err(format!("{:?} answers {status:?}", participant.act)),
            }
        }
        // Each who died on the way did it wholly or not at all.
        let done = (0..1u32 << uncertain.len()).find(|choice| {
            let sum: i64 = uncertain.iter().enumerate().filter(|(bit, _)| choice & 1 << bit != 0).map(|(_, worth)| worth).sum();
            value == expected + sum
        });
        let Some(done) = done else {
            return Err(format!("{value} permits instead of {expected}, or with the dead's of {uncertain:?}"));
        };
        consumed += uncertain.iter().enumerate().filter(|(bit, worth)| done & 1 << bit != 0 && **worth < 0).count();
        // It goes on, and keeps its bound.
        trial.must(self, Act::Give(1))?;
        trial.must(self, Act::Take)?;
        if self.maximum != 0 && trial.try_act(self, Act::Give(self.maximum + 1), 0) != TINE_EOVERFLOW {
            return Err("more permits than the maximum were accepted".into());
        }
        if i64::from(self.semaphore.value()) != value {
            return Err(format!("{} permits instead of {value} at the end", self.semaphore.value()));
        }
        let victim = trial.victim();
        let landed = match victim.returned() {
            Some(status) => status == TINE_OK,
            None => done & 1 != 0,
        };
        Ok(Books { landed, consumed })
    }
}

/// What an act adds to the permits that are there.
fn worth(act: Act) -> i64 {
    match act {
        Act::Take => -1,
        Act::Give(count) => i64::from(count),
        _ => 0,
    }
}

pub fn scenes() -> Vec<Scene> {
    fn bounded() -> Box<dyn Stage> {
        Box::new(SemaphoreStage { semaphore: Semaphore::new(MAXIMUM), warm: Semaphore::new(MAXIMUM), maximum: MAXIMUM })
    }
    fn unbounded() -> Box<dyn Stage> {
        Box::new(SemaphoreStage { semaphore: Semaphore::new(0), warm: Semaphore::new(0), maximum: 0 })
    }
    const TAKERS: &[Act] = &[Act::Take, Act::Take];
    const TAKERS3: &[Act] = &[Act::Take, Act::Take, Act::Take];
    const BOTH: &[Act] = &[Act::Give(1), Act::Take];
    let scene =
        |name, stage, before, sleepers, victim| Scene { name, stage, before, sleepers, victim, thirds: BOTH, corpse: None };
    let after = |name, corpse, act| Scene {
        name,
        stage: bounded,
        before: &[],
        sleepers: TAKERS,
        victim: runs(&[], act),
        thirds: &[],
        corpse: Some(corpse),
    };
    let woken = |sleeper, wake| Victim::Woken { sleeper, wake };
    vec![
        scene("semaphore.release", bounded, &[], TAKERS, runs(&[], Act::Give(1))),
        scene("semaphore.release, two at once", unbounded, &[], TAKERS, runs(&[], Act::Give(2))),
        scene("semaphore.acquire", bounded, &[Act::Give(1)], &[], runs(&[], Act::Take)),
        scene("semaphore.acquire, contended", unbounded, &[], TAKERS, runs(&[], Act::Take)),
        scene("semaphore.acquire, leader woken", bounded, &[], TAKERS3, woken(0, &[Act::Give(1)])),
        scene("semaphore.acquire, leader woken by two", unbounded, &[], TAKERS3, woken(0, &[Act::Give(2)])),
        scene("semaphore.acquire, follower woken", bounded, &[], TAKERS3, woken(1, &[Act::Give(1)])),
        after("semaphore.release, after a dead release", Act::Give(1), Act::Give(1)),
        after("semaphore.acquire, after a dead release", Act::Give(1), Act::Take),
        after("semaphore.release, after a dead acquire", Act::Take, Act::Give(1)),
    ]
}

/// Permits that belong to threads: who lives has what it took and did not give back, the dead have nothing.
struct TrackedStage {
    semaphore: Semaphore,
    warm: Semaphore,
}

const PERMITS: u32 = 2;

impl Stage for TrackedStage {
    fn act(&self, act: Act, timeout_ms: i64, seat: &Seat) -> i32 {
        seat.begin();
        let status = match act {
            Act::Take => self.semaphore.take(timeout_ms),
            Act::Release => self.semaphore.give(1),
            Act::Use => match self.semaphore.take(timeout_ms) {
                TINE_OK => self.semaphore.give(1),
                failed => failed,
            },
            other => unreachable!("{other:?} is nothing for a semaphore"),
        };
        seat.end(status)
    }

    fn warm_up(&self, _: Act) {
        self.warm.take(0);
        self.warm.give(1);
        self.warm.take(1);
        self.warm.give(1);
    }

    fn starving(&self, trial: &Trial) -> Option<String> {
        let value = self.semaphore.value();
        let waiting = trial.count(|participant| participant.waits());
        (value > 0 && waiting > 0).then(|| format!("{waiting} sleep although {value} permits are there"))
    }

    fn release_all(&self, trial: &mut Trial) -> Verdict {
        // What the runner still has.
        let count = |act| trial.done.iter().filter(|done| **done == (act, TINE_OK)).count();
        for _ in count(Act::Release)..count(Act::Take) {
            trial.must(self, Act::Release)?;
        }
        Ok(())
    }

    fn audit(&self, trial: &mut Trial) -> Result<Books, String> {
        for participant in trial.participants.iter().filter(|participant| !participant.killed) {
            match participant.returned() {
                Some(TINE_OK) => {}
                Some(TINE_ETIMEDOUT) if participant.may_time_out => {}
                status => return Err(format!("{:?} answers {status:?}", participant.act)),
            }
        }
        // Everybody has ended: nobody has a permit any more.
        for _ in 0..PERMITS {
            trial.must(self, Act::Take)?;
        }
        if trial.try_act(self, Act::Take, 0) != TINE_ETIMEDOUT {
            return Err("there are more permits than were made".into());
        }
        for _ in 0..PERMITS {
            trial.must(self, Act::Release)?;
        }
        if trial.try_act(self, Act::Release, 0) != TINE_ENOTOWNER {
            return Err("a permit was given back by somebody who did not have it".into());
        }
        match self.semaphore.value() {
            PERMITS => Ok(Books { landed: trial.victim().returned().is_some(), consumed: 0 }),
            value => Err(format!("{value} permits at the end")),
        }
    }
}

pub fn tracked_scenes() -> Vec<Scene> {
    fn stage() -> Box<dyn Stage> {
        Box::new(TrackedStage { semaphore: Semaphore::tracked(PERMITS), warm: Semaphore::tracked(PERMITS) })
    }
    const BOTH: &[Act] = &[Act::Take, Act::Take];
    const ONE: &[Act] = &[Act::Take];
    const USERS: &[Act] = &[Act::Use, Act::Use];
    const USERS3: &[Act] = &[Act::Use, Act::Use, Act::Use];
    let scene =
        |name, before, sleepers, victim| Scene { name, stage, before, sleepers, victim, thirds: &[Act::Use], corpse: None };
    vec![
        scene("tracked.acquire", ONE, &[], runs(&[], Act::Take)),
        scene("tracked.acquire, contended", BOTH, USERS, runs(&[], Act::Take)),
        scene("tracked.release", ONE, USERS, runs(&[Act::Take], Act::Release)),
        scene("tracked.release, of two", &[], USERS, runs(&[Act::Take, Act::Take], Act::Release)),
        scene("tracked.acquire, leader woken", BOTH, USERS3, Victim::Woken { sleeper: 0, wake: &[Act::Release] }),
        scene("tracked.acquire, follower woken", BOTH, USERS3, Victim::Woken { sleeper: 1, wake: &[Act::Release] }),
    ]
}
