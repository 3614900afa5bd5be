//! Declaring a queue's messages done, and waiting for all of them to be: nobody waits although nothing is unfinished.

use std::cell::Cell;
use std::ptr;
use std::sync::OnceLock;

use tine::ffi::queue::{
    tine_queue_free, tine_queue_join, tine_queue_new, tine_queue_put, tine_queue_t, tine_queue_task_done, tine_queue_unfinished,
};
use tine::ffi::status::{TINE_EOVERFLOW, TINE_ETIMEDOUT, TINE_OK};

use crate::lock::runs;
use crate::scene::{Books, Scene, Stage, Trial, Verdict, Victim};
use crate::seat::{Act, Seat};

struct TasksStage {
    queue: *mut tine_queue_t,
    /// When the others came to rest.
    left: Cell<usize>,
}

impl TasksStage {
    fn unfinished(&self) -> usize {
        // SAFETY: a live queue.
        unsafe { tine_queue_unfinished(self.queue) }
    }
}

fn open() -> *mut tine_queue_t {
    let mut queue = ptr::null_mut();
    // SAFETY: NULL options are the defaults; a place for the handle.
    let status = unsafe { tine_queue_new(ptr::null(), &mut queue) };
    assert_eq!(status, TINE_OK, "tine_queue_new");
    queue
}

impl Drop for TasksStage {
    fn drop(&mut self) {
        // SAFETY: ours, and no call is running on it in this process.
        unsafe { tine_queue_free(self.queue) };
    }
}

impl Stage for TasksStage {
    fn act(&self, act: Act, timeout_ms: i64, seat: &Seat) -> i32 {
        seat.begin();
        // SAFETY: a live queue, and one byte.
        let status = unsafe {
            match act {
                Act::Put(_) => tine_queue_put(self.queue, c"t".as_ptr().cast(), 1, timeout_ms),
                Act::TaskDone => tine_queue_task_done(self.queue),
                Act::Join => tine_queue_join(self.queue, timeout_ms),
                other => unreachable!("{other:?} is nothing for tasks"),
            }
        };
        seat.end(status)
    }

    fn warm_up(&self, _: Act) {
        static WARM: OnceLock<usize> = OnceLock::new();
        let warm = *WARM.get_or_init(|| open() as usize) as *mut tine_queue_t;
        // SAFETY: a live queue, and one byte.
        unsafe {
            tine_queue_put(warm, c"t".as_ptr().cast(), 1, 0);
            tine_queue_join(warm, 1);
            tine_queue_task_done(warm);
            tine_queue_join(warm, 0);
        }
    }

    fn starving(&self, trial: &Trial) -> Option<String> {
        self.left.set(self.unfinished());
        let waiting = trial.count(|participant| participant.waits() && participant.act == Act::Join);
        (self.left.get() == 0 && waiting > 0).then(|| format!("{waiting} wait although all messages are done"))
    }

    fn release_all(&self, trial: &mut Trial) -> Verdict {
        for _ in 0..self.unfinished() {
            trial.must(self, Act::TaskDone)?;
        }
        Ok(())
    }

    fn audit(&self, trial: &mut Trial) -> Result<Books, String> {
        let mut declared = trial.done.iter().filter(|(act, status)| (*act, *status) == (Act::TaskDone, TINE_OK)).count();
        for participant in &trial.participants {
            match (participant.act, participant.returned()) {
                (Act::TaskDone, Some(TINE_OK)) => declared += 1,
                (Act::TaskDone, Some(TINE_EOVERFLOW)) | (Act::Join, Some(TINE_OK)) => {}
                (Act::Join, Some(TINE_ETIMEDOUT)) if participant.may_time_out => {}
                (_, None) if participant.killed => {}
                (act, status) => return Err(format!("{act:?} answers {status:?}")),
            }
        }
        let put = trial.done.iter().filter(|(act, _)| matches!(act, Act::Put(_))).count();
        let unknown = trial.count(|participant| participant.act == Act::TaskDone && participant.is_uncertain());
        if self.unfinished() != 0 || declared > put || declared + unknown < put {
            return Err(format!(
                "{declared} declarations, {unknown} of the dead, for {put} messages; {} left",
                self.unfinished()
            ));
        }
        for (act, wanted) in [
            (Act::Join, TINE_OK),
            (Act::TaskDone, TINE_EOVERFLOW),
            (Act::Put(9), TINE_OK),
            (Act::Join, TINE_ETIMEDOUT),
            (Act::TaskDone, TINE_OK),
            (Act::Join, TINE_OK),
        ] {
            let status = trial.try_act(self, act, 0);
            if status != wanted {
                return Err(format!("afterwards {act:?} answers {status}"));
            }
        }
        let landed = match trial.victim().act {
            Act::TaskDone => self.left.get() == 0 || trial.victim().returned().is_some(),
            _ => trial.victim().returned().is_some(),
        };
        Ok(Books { landed, consumed: 0 })
    }
}

pub fn scenes() -> Vec<Scene> {
    fn stage() -> Box<dyn Stage> {
        Box::new(TasksStage { queue: open(), left: Cell::new(0) })
    }
    const ONE: &[Act] = &[Act::Put(1)];
    const TWO: &[Act] = &[Act::Put(1), Act::Put(2)];
    const WAITERS: &[Act] = &[Act::Join, Act::Join];
    const WAITERS3: &[Act] = &[Act::Join, Act::Join, Act::Join];
    const ALL: &[Act] = &[Act::TaskDone, Act::Join];
    let scene = |name, before, sleepers, victim| Scene { name, stage, before, sleepers, victim, thirds: ALL, corpse: None };
    let after = |name, act| Scene {
        name,
        stage,
        before: TWO,
        sleepers: WAITERS,
        victim: runs(&[], act),
        thirds: &[],
        corpse: Some(Act::TaskDone),
    };
    vec![
        scene("queue.task_done, the last", ONE, WAITERS, runs(&[], Act::TaskDone)),
        scene("queue.task_done, not the last", TWO, WAITERS, runs(&[], Act::TaskDone)),
        scene("queue.task_done, nobody waits", ONE, &[], runs(&[], Act::TaskDone)),
        scene("queue.join", ONE, WAITERS, runs(&[], Act::Join)),
        scene("queue.join, first woken", ONE, WAITERS3, Victim::Woken { sleeper: 0, wake: &[Act::TaskDone] }),
        scene("queue.join, second woken", ONE, WAITERS3, Victim::Woken { sleeper: 1, wake: &[Act::TaskDone] }),
        after("queue.task_done, after a dead task_done", Act::TaskDone),
        after("queue.join, after a dead task_done", Act::Join),
    ]
}
