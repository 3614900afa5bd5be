//! Locks: nobody is inside with another, an owner's death is told once, nobody sleeps before a free lock.

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;

use tine::ffi::lock::{
    TINE_LOCK_RECURSIVE, tine_lock_acquire, tine_lock_free, tine_lock_new, tine_lock_options_t, tine_lock_release, tine_lock_t,
};
use tine::ffi::status::{TINE_ETIMEDOUT, TINE_OK, TINE_OWNER_DIED};

use crate::scene::{Books, Scene, Stage, Trial, Verdict, Victim};
use crate::seat::{Act, Seat};
use crate::support::arena;

/// What acquires and releases, with the statuses of tine_lock_t.
pub trait Lock {
    fn acquire(&self, timeout_ms: i64) -> i32;
    fn release(&self) -> i32;
}

pub struct LockStage<L: Lock> {
    lock: L,
    warm: L,
    /// How many are between acquire and release.
    inside: &'static AtomicU32,
}

impl<L: Lock> LockStage<L> {
    pub fn new(lock: L, warm: L) -> LockStage<L> {
        static INSIDE: OnceLock<&AtomicU32> = OnceLock::new();
        let inside = INSIDE.get_or_init(arena::value);
        inside.store(0, SeqCst);
        LockStage { lock, warm, inside }
    }

    fn acquire(&self, timeout_ms: i64, seat: &Seat) -> i32 {
        let status = self.lock.acquire(timeout_ms);
        if status == TINE_OWNER_DIED {
            seat.died.fetch_add(1, SeqCst);
            self.inside.store(0, SeqCst);
        }
        status
    }
}

impl<L: Lock> Stage for LockStage<L> {
    fn act(&self, act: Act, timeout_ms: i64, seat: &Seat) -> i32 {
        seat.begin();
        let status = match act {
            Act::Acquire => self.acquire(timeout_ms, seat),
            Act::Release => self.lock.release(),
            Act::Use => match self.acquire(timeout_ms, seat) {
                failed @ ..0 => failed,
                acquired => {
                    if self.inside.fetch_add(1, SeqCst) != 0 {
                        seat.is_odd();
                    }
                    std::thread::yield_now();
                    self.inside.fetch_sub(1, SeqCst);
                    acquired.min(self.lock.release())
                }
            },
            other => unreachable!("{other:?} is nothing for a lock"),
        };
        seat.end(status)
    }

    fn warm_up(&self, _: Act) {
        self.warm.acquire(-1);
        self.warm.release();
        // Also what a timed wait needs for the first time.
        self.warm.acquire(0);
        self.warm.release();
    }

    fn starving(&self, trial: &Trial) -> Option<String> {
        let held = levels(&trial.done.iter().filter(|(_, status)| *status >= 0).map(|(act, _)| *act).collect::<Vec<_>>()) > 0;
        let waiting = trial.count(|participant| participant.waits());
        (!held && waiting > 0).then(|| format!("{waiting} sleep although no living process holds the lock"))
    }

    fn release_all(&self, trial: &mut Trial) -> Verdict {
        let acts: Vec<_> = trial.done.iter().map(|(act, _)| *act).collect();
        for _ in 0..levels(&acts) {
            trial.must(self, Act::Release)?;
        }
        Ok(())
    }

    fn audit(&self, trial: &mut Trial) -> Result<Books, String> {
        trial.must(self, Act::Use)?;
        let told: u32 = trial.participants.iter().map(|participant| participant.seat.died.load(SeqCst)).sum();
        let told = (told + trial.runner.died.load(SeqCst)) as usize;
        trial.must(self, Act::Use)?;
        if trial.done.last().map(|(_, status)| *status) != Some(TINE_OK) {
            return Err("the owner's death is told twice".into());
        }
        let (mut certain, mut possible, mut swallowed) = (0, 0, 0);
        for participant in trial.participants.iter().filter(|participant| participant.killed) {
            let before = levels(participant.before);
            let after = levels(&[participant.before, &[participant.act]].concat());
            let (returned, uncertain) = (participant.returned().is_some(), participant.is_uncertain());
            certain += usize::from(before.min(after) > 0 || (returned && after > 0));
            possible += usize::from(before.max(after) > 0 || participant.act == Act::Use);
            // Who died in its own use of the lock may have been told, and have released.
            swallowed += usize::from(participant.act == Act::Use && uncertain);
            if before.max(after) > 0 && returned && after == 0 {
                possible -= 1;
            }
        }
        if told < certain.min(1).saturating_sub(swallowed) || told > possible {
            return Err(format!("the death of an owner was told {told} times; {certain} to {possible} owners died"));
        }
        for participant in trial.participants.iter().filter(|participant| !participant.killed) {
            match participant.returned() {
                Some(TINE_OK | TINE_OWNER_DIED) => {}
                Some(TINE_ETIMEDOUT) if participant.may_time_out => {}
                status => return Err(format!("{:?} answers {status:?}", participant.act)),
            }
        }
        let acquires = matches!(trial.victim().act, Act::Acquire | Act::Use);
        Ok(Books { landed: acquires == (told > 0), consumed: 0 })
    }
}

/// How often these acts leave a lock held.
fn levels(acts: &[Act]) -> i32 {
    acts.iter()
        .map(|act| match act {
            Act::Acquire => 1,
            Act::Release => -1,
            _ => 0,
        })
        .sum()
}

/// The scenes of a lock that is made by `stage`; each object has its own names.
pub fn scenes(names: [&'static str; 6], stage: fn() -> Box<dyn Stage>) -> Vec<Scene> {
    let [acquire, contended, release, woken, woken_follower, after] = names;
    let thirds: &[Act] = &[Act::Use];
    vec![
        // Free: nobody can sleep before it; the third process is the one that must not be left behind.
        Scene { name: acquire, stage, before: &[], sleepers: &[], victim: runs(&[], Act::Acquire), thirds, corpse: None },
        // Held by the runner.
        Scene {
            name: contended,
            stage,
            before: &[Act::Acquire],
            sleepers: &[Act::Use, Act::Use],
            victim: runs(&[], Act::Acquire),
            thirds,
            corpse: None,
        },
        Scene {
            name: release,
            stage,
            before: &[],
            sleepers: &[Act::Use, Act::Use],
            victim: runs(&[Act::Acquire], Act::Release),
            thirds,
            corpse: None,
        },
        Scene {
            name: woken,
            stage,
            before: &[Act::Acquire],
            sleepers: &[Act::Use, Act::Use],
            victim: Victim::Woken { sleeper: 0, wake: &[Act::Release] },
            thirds,
            corpse: None,
        },
        Scene {
            name: woken_follower,
            stage,
            before: &[Act::Acquire],
            sleepers: &[Act::Use, Act::Use, Act::Use],
            victim: Victim::Woken { sleeper: 1, wake: &[Act::Release] },
            thirds,
            corpse: None,
        },
        Scene {
            name: after,
            stage,
            before: &[],
            sleepers: &[],
            victim: runs(&[], Act::Acquire),
            thirds: &[],
            corpse: Some(Act::Acquire),
        },
    ]
}

struct TineLock(*mut tine_lock_t);

impl TineLock {
    fn new(flags: u32) -> TineLock {
        let options = tine_lock_options_t { size: size_of::<tine_lock_options_t>(), name: ptr::null(), flags, reserved: 0 };
        let mut lock = ptr::null_mut();
        // SAFETY: live options and a place for the handle.
        let status = unsafe { tine_lock_new(&options, &mut lock) };
        assert_eq!(status, TINE_OK, "tine_lock_new");
        TineLock(lock)
    }
}

impl Lock for TineLock {
    fn acquire(&self, timeout_ms: i64) -> i32 {
        // SAFETY: a live lock.
        unsafe { tine_lock_acquire(self.0, timeout_ms) }
    }

    fn release(&self) -> i32 {
        // SAFETY: a live lock.
        unsafe { tine_lock_release(self.0) }
    }
}

impl Drop for TineLock {
    fn drop(&mut self) {
        // SAFETY: ours, and no call is running on it in this process.
        unsafe { tine_lock_free(self.0) };
    }
}

pub fn all_scenes() -> Vec<Scene> {
    fn plain() -> Box<dyn Stage> {
        Box::new(LockStage::new(TineLock::new(0), TineLock::new(0)))
    }
    fn recursive() -> Box<dyn Stage> {
        Box::new(LockStage::new(TineLock::new(TINE_LOCK_RECURSIVE), TineLock::new(TINE_LOCK_RECURSIVE)))
    }
    let plain_names = [
        "lock.acquire",
        "lock.acquire, contended",
        "lock.release",
        "lock.acquire, leader woken",
        "lock.acquire, follower woken",
        "lock.acquire, after a dead acquire",
    ];
    let recursive_names = [
        "lock.acquire, recursive",
        "lock.acquire, recursive, contended",
        "lock.release, recursive",
        "lock.acquire, recursive, leader woken",
        "lock.acquire, recursive, follower woken",
        "lock.acquire, recursive, after a dead acquire",
    ];
    let mut scenes = scenes(plain_names, plain);
    scenes.extend(self::scenes(recursive_names, recursive));
    let inner = |name, victim| Scene {
        name,
        stage: recursive,
        before: &[],
        sleepers: &[Act::Use, Act::Use],
        victim,
        thirds: &[Act::Use],
        corpse: None,
    };
    scenes.push(inner("lock.acquire, again", runs(&[Act::Acquire], Act::Acquire)));
    scenes.push(inner("lock.release, inner", runs(&[Act::Acquire, Act::Acquire], Act::Release)));
    scenes
}

pub fn runs(before: &'static [Act], act: Act) -> Victim {
    Victim::Runs { before, act }
}
