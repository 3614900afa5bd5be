//! Locks, semaphores and events under random kills.

use std::ptr;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use tine::ffi::event::{tine_event_clear, tine_event_free, tine_event_new, tine_event_set, tine_event_t, tine_event_wait};
use tine::ffi::lock::{
    TINE_LOCK_RECURSIVE, tine_lock_acquire, tine_lock_free, tine_lock_new, tine_lock_options_t, tine_lock_release, tine_lock_t,
};
use tine::ffi::semaphore::{
    tine_semaphore_acquire, tine_semaphore_free, tine_semaphore_new, tine_semaphore_release, tine_semaphore_t,
    tine_semaphore_value,
};
use tine::ffi::status::{TINE_EOVERFLOW, TINE_ETIMEDOUT, TINE_OK, TINE_OWNER_DIED};

use crate::crew::{Crew, ODD, Slot};
use crate::support::random::Random;
use crate::support::{arena, clock, rest};

/// What all rounds of an object came to.
#[derive(Default)]
pub struct Sum {
    pub rounds: usize,
    pub kills: usize,
    pub operations: u64,
    /// Deaths told, permits that went with the dead.
    pub told: u64,
}

/// Shared by the crew and the runner.
pub struct Board {
    slots: &'static [Slot],
    stop: &'static AtomicU32,
    /// What the lock guards: who is inside, and two counters that are equal outside.
    inside: &'static AtomicU32,
    counters: &'static [AtomicU32],
}

impl Board {
    pub fn new(crew: usize) -> Board {
        Board { slots: arena::slice(crew), stop: arena::value(), inside: arena::value(), counters: arena::slice(2) }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(SeqCst) != 0
    }

    fn count(&self, sum: &mut Sum, kills: usize) {
        sum.rounds += 1;
        sum.kills += kills;
        sum.operations += self.slots.iter().map(|slot| slot.progress.load(SeqCst)).sum::<u64>();
    }
}

// ---- lock

pub fn lock_round(board: &Board, duration: Duration, recursive: bool, random: &mut Random, sum: &mut Sum) -> Result<(), String> {
    let flags = if recursive { TINE_LOCK_RECURSIVE } else { 0 };
    let options = tine_lock_options_t { size: size_of::<tine_lock_options_t>(), name: ptr::null(), flags, reserved: 0 };
    let mut lock = ptr::null_mut();
    // SAFETY: live options and a place for the handle.
    assert_eq!(unsafe { tine_lock_new(&options, &mut lock) }, TINE_OK, "tine_lock_new");
    board.stop.store(0, SeqCst);
    board.inside.store(0, SeqCst);
    board.counters.iter().for_each(|counter| counter.store(0, SeqCst));
    let work = |number: usize| use_lock(board, lock, recursive, &board.slots[number]);
    let mut crew = Crew::hire(board.slots, &work);
    let mut told = 0;
    crew.harass(duration, random, |_| {})?;
    board.stop.store(1, SeqCst);
    crew.left(0..board.slots.len(), "nobody holds the lock for long and it was told to stop")?;
    // SAFETY: a live lock.
    let (first, _, second) = unsafe { (tine_lock_acquire(lock, 0), tine_lock_release(lock), tine_lock_acquire(lock, 0)) };
    // SAFETY: a live lock, ours; the crew is gone.
    let released = unsafe { tine_lock_release(lock) };
    // SAFETY: as above.
    unsafe { tine_lock_free(lock) };
    if first < 0 || second != TINE_OK || released != TINE_OK {
        return Err(format!("at the end the lock answers {first}, then {second}, then {released}"));
    }
    told += u64::from(first == TINE_OWNER_DIED) + board.slots.iter().map(|slot| slot.sum.load(SeqCst)).sum::<u64>();
    if told > crew.kills as u64 {
        return Err(format!("{told} owners' deaths were told, but only {} were killed", crew.kills));
    }
    board.count(sum, crew.kills);
    sum.told += told;
    Ok(())
}

fn use_lock(board: &Board, lock: *mut tine_lock_t, recursive: bool, slot: &Slot) {
    let me = std::process::id();
    for turn in 0u64.. {
        if board.is_stopped() {
            return;
        }
        let timeout_ms = [-1, -1, 1, -1, 0][turn as usize % 5];
        // SAFETY: a live lock.
        match unsafe { tine_lock_acquire(lock, timeout_ms) } {
            TINE_OK => {
                if board.inside.load(Relaxed) != 0 || board.counters[0].load(Relaxed) != board.counters[1].load(Relaxed) {
                    slot.fail(ODD);
                }
            }
            TINE_OWNER_DIED => {
                slot.sum.fetch_add(1, SeqCst);
                board.inside.store(0, Relaxed);
                board.counters[1].store(board.counters[0].load(Relaxed), Relaxed);
            }
            TINE_ETIMEDOUT if timeout_ms >= 0 => {
                slot.done();
                continue;
            }
            status => slot.fail(status),
        }
        let levels = if recursive { turn % 3 } else { 0 };
        board.inside.store(me, Relaxed);
        for _ in 0..levels {
            // SAFETY: a live lock, held.
            if unsafe { tine_lock_acquire(lock, -1) } != TINE_OK {
                slot.fail(ODD);
            }
        }
        for counter in board.counters {
            counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
            if turn % 4 == 1 {
                clock::pause(20);
            }
        }
        if board.inside.load(Relaxed) != me {
            slot.fail(ODD);
        }
        for level in (0..=levels).rev() {
            if level == 0 {
                board.inside.store(0, Relaxed);
            }
            // SAFETY: a live lock, held so often.
            match unsafe { tine_lock_release(lock) } {
                TINE_OK => {}
                status => slot.fail(status),
            }
        }
        slot.done();
        if turn % 8 == 0 {
            // The lock is not fair: who takes it again at once keeps others out for long.
            clock::pause(20);
        }
    }
}

// ---- semaphore

const GIVERS: usize = 3;
const TAKERS: usize = 3;
const MAXIMUM: u32 = 16;
pub const SEMAPHORE_CREW: usize = GIVERS + TAKERS;

pub fn semaphore_round(board: &Board, duration: Duration, random: &mut Random, sum: &mut Sum) -> Result<(), String> {
    let mut semaphore = ptr::null_mut();
    // SAFETY: NULL options are the defaults; a place for the handle.
    assert_eq!(unsafe { tine_semaphore_new(0, MAXIMUM, ptr::null(), &mut semaphore) }, TINE_OK, "tine_semaphore_new");
    board.stop.store(0, SeqCst);
    let work = |number: usize| {
        let slot = &board.slots[number];
        if number < GIVERS { give_permits(board, semaphore, slot) } else { take_permits(board, semaphore, slot) }
    };
    let mut crew = Crew::hire(board.slots, &work);
    let (mut perhaps_given, mut perhaps_taken) = (0, 0);
    crew.harass(duration, random, |number| {
        let busy = u64::from(board.slots[number].busy.load(SeqCst));
        *(if number < GIVERS { &mut perhaps_given } else { &mut perhaps_taken }) += busy;
    })?;
    board.stop.store(1, SeqCst);
    crew.left(0..GIVERS, "it was told to stop")?;
    // Each taker ends with the next permit: as many as there are permits, and one for each of the others.
    // SAFETY: a live semaphore.
    let status = unsafe { tine_semaphore_release(semaphore, TAKERS as u32) };
    let mut given = if status == TINE_OK { TAKERS as u64 } else { 0 };
    let left = crew.left(GIVERS..GIVERS + TAKERS, "there is a permit for each");
    // SAFETY: a live semaphore, ours; it is not used again.
    let value = u64::from(unsafe { tine_semaphore_value(semaphore) });
    left?;
    // SAFETY: as above; the crew is gone.
    unsafe { tine_semaphore_free(semaphore) };
    given += board.slots[..GIVERS].iter().map(|slot| slot.sum.load(SeqCst)).sum::<u64>();
    let gone = value + board.slots[GIVERS..].iter().map(|slot| slot.sum.load(SeqCst)).sum::<u64>();
    if gone > given + perhaps_given || gone + perhaps_taken < given {
        return Err(format!(
            "{given} permits given and perhaps {perhaps_given} by the dead, {gone} taken or there and perhaps {perhaps_taken} with the dead"
        ));
    }
    board.count(sum, crew.kills);
    sum.told += given.saturating_sub(gone);
    Ok(())
}

fn give_permits(board: &Board, semaphore: *mut tine_semaphore_t, slot: &Slot) {
    let mut count = 0;
    while !board.is_stopped() {
        count = count % 3 + 1;
        slot.busy.store(count, SeqCst);
        // SAFETY: a live semaphore.
        let status = unsafe { tine_semaphore_release(semaphore, count) };
        if status == TINE_OK {
            // Killed between the two, it counts as uncertain and as given: both are in the bounds.
            slot.sum.fetch_add(count.into(), SeqCst);
        }
        slot.busy.store(0, SeqCst);
        match status {
            TINE_OK => {}
            TINE_EOVERFLOW => clock::pause(50),
            status => slot.fail(status),
        }
        slot.done();
    }
}

fn take_permits(board: &Board, semaphore: *mut tine_semaphore_t, slot: &Slot) {
    for turn in 0u64.. {
        let timeout_ms = if turn % 5 == 0 { 1 } else { -1 };
        slot.busy.store(1, SeqCst);
        // SAFETY: a live semaphore.
        let status = unsafe { tine_semaphore_acquire(semaphore, timeout_ms) };
        if status == TINE_OK {
            slot.sum.fetch_add(1, SeqCst);
        }
        slot.busy.store(0, SeqCst);
        slot.done();
        match status {
            TINE_OK if board.is_stopped() => return,
            TINE_OK => {}
            TINE_ETIMEDOUT if timeout_ms >= 0 => {}
            status => slot.fail(status),
        }
    }
}

// ---- event

const SETTERS: usize = 2;
const WAITERS: usize = 4;
pub const EVENT_CREW: usize = SETTERS + WAITERS;

pub fn event_round(board: &Board, duration: Duration, random: &mut Random, sum: &mut Sum) -> Result<(), String> {
    let mut event = ptr::null_mut();
    // SAFETY: NULL options are the defaults; a place for the handle.
    assert_eq!(unsafe { tine_event_new(ptr::null(), &mut event) }, TINE_OK, "tine_event_new");
    board.stop.store(0, SeqCst);
    let work = |number: usize| {
        let slot = &board.slots[number];
        if number < SETTERS { set_and_clear(board, event, slot) } else { wait_for(board, event, slot) }
    };
    let mut crew = Crew::hire(board.slots, &work);
    crew.harass(duration, random, |_| {})?;
    board.stop.store(1, SeqCst);
    crew.left(0..SETTERS, "it was told to stop")?;
    // SAFETY: a live event.
    unsafe { tine_event_clear(event) };
    // Whoever sleeps now is released by one set, also if it is cleared at once.
    if !rest::came_to_rest(&mut crew.members(SETTERS..EVENT_CREW)) {
        return Err("the waiters do not come to rest before a cleared event".into());
    }
    // SAFETY: a live event.
    unsafe { (tine_event_set(event), tine_event_clear(event)) };
    crew.left(SETTERS..EVENT_CREW, "the event was set after it had slept")?;
    // SAFETY: ours, and the crew is gone.
    unsafe { tine_event_free(event) };
    board.count(sum, crew.kills);
    Ok(())
}

fn set_and_clear(board: &Board, event: *mut tine_event_t, slot: &Slot) {
    for turn in 0u64.. {
        if board.is_stopped() {
            return;
        }
        // SAFETY: a live event.
        let status = unsafe { tine_event_set(event) };
        if turn % 3 != 0 {
            std::thread::yield_now();
        }
        // SAFETY: as above.
        let cleared = unsafe { tine_event_clear(event) };
        if status != TINE_OK || cleared != TINE_OK {
            slot.fail(ODD);
        }
        if turn % 4 == 0 {
            clock::pause(50);
        }
        slot.done();
    }
}

fn wait_for(board: &Board, event: *mut tine_event_t, slot: &Slot) {
    for turn in 0u64.. {
        let timeout_ms = if turn % 5 == 0 && !board.is_stopped() { 1 } else { -1 };
        // SAFETY: a live event.
        match unsafe { tine_event_wait(event, timeout_ms) } {
            TINE_OK if board.is_stopped() => return,
            // It may stay set until a setter gets a turn.
            TINE_OK if turn % 4 == 0 => clock::pause(20),
            TINE_OK => {}
            TINE_ETIMEDOUT if timeout_ms >= 0 => {}
            status => slot.fail(status),
        }
        slot.done();
    }
}
