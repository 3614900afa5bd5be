//! Events: a set releases everybody who waited, also if it is cleared at once.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::Ordering::SeqCst;

use tine::ffi::event::{
    tine_event_clear, tine_event_free, tine_event_is_set, tine_event_new, tine_event_set, tine_event_t, tine_event_wait,
};
use tine::ffi::status::{TINE_ETIMEDOUT, TINE_OK};

use crate::lock::runs;
use crate::scene::{Books, Scene, Stage, Trial, Verdict, Victim};
use crate::seat::{Act, Seat};

struct Event(*mut tine_event_t);

impl Event {
    fn new() -> Event {
        let mut event = ptr::null_mut();
        // SAFETY: NULL options are the defaults; a place for the handle.
        let status = unsafe { tine_event_new(ptr::null(), &mut event) };
        assert_eq!(status, TINE_OK, "tine_event_new");
        Event(event)
    }

    fn is_set(&self) -> bool {
        // SAFETY: a live event.
        unsafe { tine_event_is_set(self.0) }
    }

    fn wait(&self, timeout_ms: i64) -> i32 {
        // SAFETY: a live event.
        unsafe { tine_event_wait(self.0, timeout_ms) }
    }

    fn set(&self) -> i32 {
        // SAFETY: a live event.
        unsafe { tine_event_set(self.0) }
    }

    fn clear(&self) -> i32 {
        // SAFETY: a live event.
        unsafe { tine_event_clear(self.0) }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: ours, and no call is running on it in this process.
        unsafe { tine_event_free(self.0) };
    }
}

struct EventStage {
    event: Event,
    warm: Event,
    /// When the others came to rest.
    was_set: Cell<bool>,
}

impl Stage for EventStage {
    fn act(&self, act: Act, timeout_ms: i64, seat: &Seat) -> i32 {
        if act == Act::Clear {
            seat.saw.store(u32::from(self.event.is_set()), SeqCst);
        }
        seat.begin();
        let status = match act {
            Act::Set => self.event.set(),
            Act::Clear => self.event.clear(),
            Act::Wait => self.event.wait(timeout_ms),
            other => unreachable!("{other:?} is nothing for an event"),
        };
        seat.end(status)
    }

    fn warm_up(&self, _: Act) {
        self.warm.set();
        self.warm.wait(0);
        self.warm.clear();
        self.warm.wait(1);
    }

    fn starving(&self, trial: &Trial) -> Option<String> {
        self.was_set.set(self.event.is_set());
        let waiting = trial.count(|participant| participant.waits() && participant.act == Act::Wait);
        if self.was_set.get() && waiting > 0 {
            return Some(format!("{waiting} wait although the event is set"));
        }
        // Who slept before was released by a set that returned, or that was seen, whatever came after.
        let returned =
            trial.participants.iter().any(|participant| participant.act == Act::Set && participant.returned().is_some());
        let seen = trial.participants.iter().any(|participant| participant.seat.saw.load(SeqCst) != 0);
        let slept = trial.count(|participant| participant.slept && participant.waits());
        ((returned || seen) && slept > 0).then(|| format!("{slept} still wait although the event was set after they had slept"))
    }

    fn release_all(&self, trial: &mut Trial) -> Verdict {
        if trial.count(|participant| participant.waits()) > 0 { trial.must(self, Act::Set) } else { Ok(()) }
    }

    fn audit(&self, trial: &mut Trial) -> Result<Books, String> {
        for participant in trial.participants.iter().filter(|participant| !participant.killed) {
            match participant.returned() {
                Some(TINE_OK) => {}
                Some(TINE_ETIMEDOUT) if participant.may_time_out && participant.act == Act::Wait => {}
                status => return Err(format!("{:?} answers {status:?}", participant.act)),
            }
        }
        for (act, wanted) in [(Act::Clear, TINE_OK), (Act::Wait, TINE_ETIMEDOUT), (Act::Set, TINE_OK), (Act::Wait, TINE_OK)] {
            let status = trial.try_act(self, act, 0);
            if status != wanted {
                return Err(format!("afterwards {act:?} answers {status}"));
            }
        }
        let landed = match trial.victim().act {
            Act::Clear => !self.was_set.get(),
            Act::Wait => trial.victim().returned().is_some(),
            _ => self.was_set.get(),
        };
        Ok(Books { landed, consumed: 0 })
    }
}

pub fn scenes() -> Vec<Scene> {
    fn stage() -> Box<dyn Stage> {
        Box::new(EventStage { event: Event::new(), warm: Event::new(), was_set: Cell::new(false) })
    }
    const WAITERS: &[Act] = &[Act::Wait, Act::Wait];
    const WAITERS3: &[Act] = &[Act::Wait, Act::Wait, Act::Wait];
    const ALL: &[Act] = &[Act::Wait, Act::Set, Act::Clear];
    let scene = |name, before, sleepers, victim| Scene { name, stage, before, sleepers, victim, thirds: ALL, corpse: None };
    let after = |name, corpse, act| Scene {
        name,
        stage,
        before: &[],
        sleepers: WAITERS,
        victim: runs(&[], act),
        thirds: &[],
        corpse: Some(corpse),
    };
    vec![
        scene("event.set", &[], WAITERS, runs(&[], Act::Set)),
        scene("event.wait", &[], WAITERS, runs(&[], Act::Wait)),
        // Nobody can sleep before a set event.
        scene("event.clear", &[Act::Set], &[], runs(&[], Act::Clear)),
        scene("event.wait, first woken", &[], WAITERS3, Victim::Woken { sleeper: 0, wake: &[Act::Set] }),
        scene("event.wait, second woken", &[], WAITERS3, Victim::Woken { sleeper: 1, wake: &[Act::Set] }),
        after("event.set, after a dead set", Act::Set, Act::Set),
        after("event.wait, after a dead set", Act::Set, Act::Wait),
    ]
}
