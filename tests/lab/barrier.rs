//! Barriers: a round is met by all or broken for all, whoever dies, and whoever was reset or broken does not sleep on.

use std::ptr;

use tine::ffi::barrier::{
    tine_barrier_abort, tine_barrier_free, tine_barrier_is_broken, tine_barrier_new, tine_barrier_reset, tine_barrier_t,
    tine_barrier_wait,
};
use tine::ffi::status::{TINE_EBROKEN, TINE_ETIMEDOUT, TINE_OK};

use crate::lock::runs;
use crate::scene::{Books, Scene, Stage, Trial, Verdict, Victim};
use crate::seat::{Act, Seat};
use crate::support::clock;

struct Barrier(*mut tine_barrier_t);

impl Barrier {
    fn new(parties: u32) -> Barrier {
        let mut barrier = ptr::null_mut();
        // SAFETY: NULL options are the defaults; a place for the handle.
        let status = unsafe { tine_barrier_new(parties, ptr::null(), &mut barrier) };
        assert_eq!(status, TINE_OK, "tine_barrier_new");
        Barrier(barrier)
    }

    fn wait(&self, timeout_ms: i64) -> i32 {
        // SAFETY: a live barrier.
        unsafe { tine_barrier_wait(self.0, timeout_ms, ptr::null_mut()) }
    }

    fn reset(&self) -> i32 {
        // SAFETY: a live barrier.
        unsafe { tine_barrier_reset(self.0) }
    }

    fn abort(&self) -> i32 {
        // SAFETY: a live barrier.
        unsafe { tine_barrier_abort(self.0) }
    }

    fn is_broken(&self) -> bool {
        // SAFETY: a live barrier.
        unsafe { tine_barrier_is_broken(self.0) }
    }
}

impl Drop for Barrier {
    fn drop(&mut self) {
        // SAFETY: ours, and no call is running on it in this process.
        unsafe { tine_barrier_free(self.0) };
    }
}

struct BarrierStage {
    barrier: Barrier,
    warm: Barrier,
    parties: usize,
}

impl Stage for BarrierStage {
    fn act(&self, act: Act, timeout_ms: i64, seat: &Seat) -> i32 {
        seat.begin();
        let status = match act {
            Act::Wait => self.barrier.wait(timeout_ms),
            Act::Clear => self.barrier.reset(),
            Act::Close => self.barrier.abort(),
            other => unreachable!("{other:?} is nothing for a barrier"),
        };
        seat.end(status)
    }

    fn warm_up(&self, _: Act) {
        self.warm.wait(0);
        self.warm.reset();
        self.warm.wait(1);
        self.warm.abort();
        self.warm.reset();
    }

    fn starving(&self, trial: &Trial) -> Option<String> {
        let waiting = trial.count(|participant| participant.waits() && participant.act == Act::Wait);
        if waiting > 0 && self.barrier.is_broken() {
            return Some(format!("{waiting} sleep although the barrier is broken"));
        }
        // Also one that waited for the seat of the dead.
        if waiting >= self.parties {
            return Some(format!("all {waiting} sleep"));
        }
        let through = trial.count(|participant| participant.slept && participant.returned() == Some(TINE_OK));
        let slept = trial.count(|participant| participant.slept && participant.waits() && participant.act == Act::Wait);
        if through > 0 && slept > 0 && trial.participants.len() == 3 {
            return Some(format!("{slept} sleep although {through} of the same round came through"));
        }
        let ends = |act| matches!(act, Act::Clear | Act::Close);
        let ended = trial.done.iter().any(|(act, _)| ends(*act))
            || trial.participants.iter().any(|participant| ends(participant.act) && participant.returned().is_some());
        (ended && slept > 0).then(|| format!("{slept} sleep although the barrier was reset or aborted after they came"))
    }

    fn release_all(&self, trial: &mut Trial) -> Verdict {
        // With nobody else there is no difference to be told: what came before counts.
        if trial.participants.len() == 3 {
            let came: Vec<_> =
                trial.participants.iter().filter(|one| one.slept && !one.killed).map(|one| one.returned()).collect();
            if came.windows(2).any(|two| two[0] != two[1]) {
                return Err(format!("not all alike: {came:?}"));
            }
        }
        // Who had to wait for a seat comes in after the first reset only.
        for _ in 0..3 {
            if trial.count(|participant| participant.waits()) > 0 {
                trial.must(self, Act::Clear)?;
                clock::until(clock::scaled(0.5), || trial.count(|participant| participant.waits()) == 0);
            }
        }
        Ok(())
    }

    fn audit(&self, trial: &mut Trial) -> Result<Books, String> {
        for participant in trial.participants.iter().filter(|participant| !participant.killed) {
            match participant.returned() {
                Some(TINE_OK | TINE_EBROKEN) => {}
                Some(TINE_ETIMEDOUT) if participant.may_time_out => {}
                status => return Err(format!("{:?} answers {status:?}", participant.act)),
            }
        }
        for (act, wanted) in [
            (Act::Clear, TINE_OK),
            (Act::Wait, TINE_ETIMEDOUT),
            (Act::Wait, TINE_EBROKEN),
            (Act::Close, TINE_OK),
            (Act::Clear, TINE_OK),
        ] {
            let status = trial.try_act(self, act, 0);
            if status != wanted {
                return Err(format!("afterwards {act:?} answers {status}"));
            }
        }
        if self.barrier.is_broken() {
            return Err("broken after a reset".into());
        }
        Ok(Books { landed: trial.victim().returned().is_some(), consumed: 0 })
    }
}

pub fn scenes() -> Vec<Scene> {
    fn three() -> Box<dyn Stage> {
        Box::new(BarrierStage { barrier: Barrier::new(3), warm: Barrier::new(3), parties: 3 })
    }
    fn five() -> Box<dyn Stage> {
        Box::new(BarrierStage { barrier: Barrier::new(5), warm: Barrier::new(5), parties: 5 })
    }
    const ONE: &[Act] = &[Act::Wait];
    const TWO: &[Act] = &[Act::Wait, Act::Wait];
    const THREE: &[Act] = &[Act::Wait, Act::Wait, Act::Wait];
    const BOTH: &[Act] = &[Act::Wait, Act::Clear];
    let scene = |name, stage, sleepers, victim| Scene { name, stage, before: &[], sleepers, victim, thirds: BOTH, corpse: None };
    let after = |name, corpse, act| Scene {
        name,
        stage: five,
        before: &[],
        sleepers: TWO,
        victim: runs(&[], act),
        thirds: &[],
        corpse: Some(corpse),
    };
    let woken = |sleeper, wake| Victim::Woken { sleeper, wake };
    vec![
        scene("barrier.wait, the last", three, TWO, runs(&[], Act::Wait)),
        scene("barrier.wait, the second", three, ONE, runs(&[], Act::Wait)),
        scene("barrier.wait, leader woken", five, THREE, woken(0, &[Act::Clear])),
        scene("barrier.wait, follower woken", five, THREE, woken(1, &[Act::Clear])),
        scene("barrier.reset", five, TWO, runs(&[], Act::Clear)),
        scene("barrier.abort", five, TWO, runs(&[], Act::Close)),
        after("barrier.reset, after a dead reset", Act::Clear, Act::Clear),
        after("barrier.wait, after a dead abort", Act::Close, Act::Wait),
        after("barrier.wait, after a dead wait", Act::Wait, Act::Wait),
    ]
}
