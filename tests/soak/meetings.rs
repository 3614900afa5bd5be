//! Conditions and barriers under random kills.

use std::ptr;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use tine::ffi::barrier::{
    tine_barrier_abort, tine_barrier_free, tine_barrier_is_broken, tine_barrier_new, tine_barrier_reset, tine_barrier_t,
    tine_barrier_wait,
};
use tine::ffi::condition::{
    tine_condition_free, tine_condition_new, tine_condition_notify, tine_condition_notify_all, tine_condition_t,
    tine_condition_wait,
};
use tine::ffi::lock::{tine_lock_acquire, tine_lock_free, tine_lock_new, tine_lock_release, tine_lock_t};
use tine::ffi::status::{TINE_EBROKEN, TINE_ETIMEDOUT, TINE_OK, TINE_OWNER_DIED};

use crate::crew::{Crew, ODD, Slot};
use crate::locks::Sum;
use crate::support::random::Random;
use crate::support::{arena, clock, rest};

/// Shared by the crew and the runner.
pub struct Board {
    slots: &'static [Slot],
    /// How far the end has come: [`WORK`] and so on.
    stage: &'static AtomicU32,
    /// What the lock guards.
    stock: &'static AtomicU32,
    /// How often each party's index came.
    indices: &'static [AtomicU64],
}

const WORK: u32 = 0;
const BRING_NO_MORE: u32 = 1;
const LEAVE: u32 = 2;

impl Board {
    pub fn new(crew: usize) -> Board {
        Board { slots: arena::slice(crew), stage: arena::value(), stock: arena::value(), indices: arena::slice(crew) }
    }

    fn begin(&self) {
        self.stage.store(WORK, SeqCst);
        self.stock.store(0, SeqCst);
        self.indices.iter().for_each(|index| index.store(0, SeqCst));
    }

    fn stage(&self) -> u32 {
        self.stage.load(SeqCst)
    }

    fn count(&self, sum: &mut Sum, kills: usize) {
        sum.rounds += 1;
        sum.kills += kills;
        sum.operations += self.slots.iter().map(|slot| slot.progress.load(SeqCst)).sum::<u64>();
    }
}

// ---- condition

const BRINGERS: usize = 3;
const TAKERS: usize = 3;
pub const CONDITION_CREW: usize = BRINGERS + TAKERS;
const STOCK_MAX: u32 = 20;

#[derive(Clone, Copy)]
struct Store<'a> {
    board: &'a Board,
    lock: *mut tine_lock_t,
    condition: *mut tine_condition_t,
}

/// Bringers add one and notify one; takers wait for one. Whoever learns that the lock's owner died notifies all in its stead. So with
/// stock left and nobody under way, a notification was lost.
pub fn condition_round(board: &Board, duration: Duration, random: &mut Random, sum: &mut Sum) -> Result<(), String> {
    let (mut lock, mut condition) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: NULL options are the defaults; places for the handles.
    unsafe {
        assert_eq!(tine_lock_new(ptr::null(), &mut lock), TINE_OK, "tine_lock_new");
        assert_eq!(tine_condition_new(ptr::null(), &mut condition), TINE_OK, "tine_condition_new");
    }
    board.begin();
    let store = Store { board, lock, condition };
    let work = |number: usize| {
        let slot = &board.slots[number];
        if number < BRINGERS { store.bring(slot) } else { store.take(slot) }
    };
    let mut crew = Crew::hire(board.slots, &work);
    crew.harass(duration, random, |_| {})?;
    board.stage.store(BRING_NO_MORE, SeqCst);
    crew.left(0..BRINGERS, "it was told to stop")?;
    // The last death may be told to nobody but us.
    store.acquire().map_err(|status| format!("at the end the lock answers {status}"))?;
    store.release().map_err(|status| format!("at the end the lock answers {status}"))?;
    if !rest::came_to_rest(&mut crew.members(BRINGERS..CONDITION_CREW)) {
        return Err("the takers do not come to rest although nobody brings anything any more".into());
    }
    let left = board.stock.load(SeqCst);
    if left > 0 {
        return Err(format!("all takers sleep although {left} are there: a notification was lost"));
    }
    board.stage.store(LEAVE, SeqCst);
    // SAFETY: a live condition.
    let status = unsafe { tine_condition_notify_all(condition) };
    if status != TINE_OK {
        return Err(format!("at the end tine_condition_notify_all answers {status}"));
    }
    crew.left(BRINGERS..CONDITION_CREW, "all were notified")?;
    // SAFETY: ours, and the crew is gone.
    unsafe {
        tine_condition_free(condition);
        tine_lock_free(lock);
    }
    board.count(sum, crew.kills);
    sum.told += board.slots.iter().map(|slot| slot.sum.load(SeqCst)).sum::<u64>();
    Ok(())
}

impl Store<'_> {
    /// Answers how many deaths it was told of.
    fn acquire(self) -> Result<u64, i32> {
        // SAFETY: a live lock.
        self.told(unsafe { tine_lock_acquire(self.lock, -1) })
    }

    /// The lock is held. Whoever had it may have brought something and not said so.
    fn told(self, status: i32) -> Result<u64, i32> {
        match status {
            TINE_OK => Ok(0),
            // SAFETY: a live condition.
            TINE_OWNER_DIED => match unsafe { tine_condition_notify_all(self.condition) } {
                TINE_OK => Ok(1),
                status => Err(status),
            },
            status => Err(status),
        }
    }

    fn release(self) -> Result<(), i32> {
        // SAFETY: a live lock, ours.
        match unsafe { tine_lock_release(self.lock) } {
            TINE_OK => Ok(()),
            status => Err(status),
        }
    }

    fn bring(self, slot: &Slot) {
        for turn in 0u64.. {
            if self.board.stage() != WORK {
                return;
            }
            let brought = (|| {
                slot.sum.fetch_add(self.acquire()?, SeqCst);
                let stock = self.board.stock.load(Relaxed);
                if stock < STOCK_MAX {
                    self.board.stock.store(stock + 1, Relaxed);
                    // SAFETY: a live condition.
                    let status = unsafe { tine_condition_notify(self.condition, 1) };
                    if status != TINE_OK {
                        return Err(status);
                    }
                }
                self.release()
            })();
            if let Err(status) = brought {
                slot.fail(status);
            }
            slot.done();
            if turn % 4 == 0 {
                clock::pause(50);
            }
        }
    }

    fn take(self, slot: &Slot) {
        for turn in 0u64.. {
            match self.take_one(slot, turn) {
                Ok(true) => slot.done(),
                Ok(false) => return,
                Err(status) => slot.fail(status),
            }
        }
    }

    /// `false`: it is time to leave.
    fn take_one(self, slot: &Slot, turn: u64) -> Result<bool, i32> {
        slot.sum.fetch_add(self.acquire()?, SeqCst);
        while self.board.stock.load(Relaxed) == 0 {
            if self.board.stage() == LEAVE {
                return self.release().map(|()| false);
            }
            let timeout_ms = if turn % 5 == 0 && self.board.stage() == WORK { 1 } else { -1 };
            // SAFETY: live objects.
            match unsafe { tine_condition_wait(self.condition, self.lock, timeout_ms) } {
                TINE_ETIMEDOUT if timeout_ms >= 0 => return self.release().map(|()| true),
                status => slot.sum.fetch_add(self.told(status)?, SeqCst),
            };
        }
        self.board.stock.fetch_sub(1, Relaxed);
        self.release().map(|()| true)
    }
}

// ---- barrier

pub const PARTIES: usize = 4;

/// All meet again and again; whoever finds the barrier broken puts it back. A round that was completed gave each index once.
pub fn barrier_round(board: &Board, duration: Duration, random: &mut Random, sum: &mut Sum) -> Result<(), String> {
    let mut barrier = ptr::null_mut();
    // SAFETY: NULL options are the defaults; a place for the handle.
    assert_eq!(unsafe { tine_barrier_new(PARTIES as u32, ptr::null(), &mut barrier) }, TINE_OK, "tine_barrier_new");
    board.begin();
    let work = |number: usize| meet(board, barrier, &board.slots[number]);
    let mut crew = Crew::hire(board.slots, &work);
    crew.harass(duration, random, |_| {})?;
    board.stage.store(LEAVE, SeqCst);
    // Somebody may put it back once more.
    clock::until(clock::patience(), || {
        // SAFETY: a live barrier.
        unsafe { tine_barrier_abort(barrier) };
        crew.members(0..PARTIES).iter_mut().all(|member| !member.is_running())
    });
    crew.left(0..PARTIES, "the barrier is broken")?;
    // SAFETY: ours, and the crew is gone.
    unsafe { tine_barrier_free(barrier) };
    let counts: Vec<u64> = board.indices.iter().map(|index| index.load(SeqCst)).collect();
    // Who was killed may not have written down that it was there.
    let spread = counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0);
    if spread > crew.kills as u64 {
        return Err(format!("the indices came {counts:?} times, and only {} were killed", crew.kills));
    }
    board.count(sum, crew.kills);
    sum.told += board.slots.iter().map(|slot| slot.sum.load(SeqCst)).sum::<u64>();
    Ok(())
}

fn meet(board: &Board, barrier: *mut tine_barrier_t, slot: &Slot) {
    for turn in 0u64.. {
        if board.stage() != WORK {
            return;
        }
        let (timeout_ms, mut index) = (if turn % 50 == 49 { 20 } else { -1 }, u32::MAX);
        // SAFETY: a live barrier, a place for the index.
        match unsafe { tine_barrier_wait(barrier, timeout_ms, &mut index) } {
            TINE_OK => match board.indices.get(index as usize) {
                Some(count) => {
                    count.fetch_add(1, SeqCst);
                    slot.done();
                }
                None => slot.fail(ODD),
            },
            TINE_EBROKEN | TINE_ETIMEDOUT => {
                slot.sum.fetch_add(1, SeqCst);
                // SAFETY: a live barrier.
                let broken = board.stage() == WORK && unsafe { tine_barrier_is_broken(barrier) };
                // SAFETY: as above.
                let status = if broken { unsafe { tine_barrier_reset(barrier) } } else { TINE_OK };
                if status != TINE_OK {
                    slot.fail(status);
                }
            }
            status => slot.fail(status),
        }
    }
}
