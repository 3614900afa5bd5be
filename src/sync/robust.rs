//! A word that a thread owns and that survives its owner.
//!
//! ```text
//!   bit 31         bit 30        bits 29..0
//!   WAITERS        OWNER_DIED    OWNER: the owner's thread number, 0 = free
//! ```
//!
//! | word | meaning |
//! |---|---|
//! | 0 | free |
//! | owner | owned, nobody sleeps |
//! | WAITERS + owner | owned, somebody may sleep |
//! | WAITERS | free; somebody was woken and has not come yet |
//! | OWNER_DIED (+ WAITERS) | free; the kernel put it there when the owner ended inside |
//! | WAITERS + OWNER_DIED + owner | owned; the owner is trying to clear WAITERS |
//!
//! Not PTHREAD_MUTEX_ROBUST: that one loses a wake-up when a third process barges in between a dying owner's unlock and its wake,
//! and follows pointers that it finds in shared memory. What makes the difference:
//!
//! - **The word is pending before the CAS** that may own it and until after the wake that gives it up. If the thread ends in
//!   between, the kernel sees to the word: owned by the thread, it becomes owner-dead; free, one sleeper is woken in its stead. So a
//!   sleeper that was woken and killed has not swallowed the wake-up. (Kernel: kernel/futex/core.c, handle_futex_death.)
//! - **WAITERS is sticky**: who acquires keeps it, so whoever barges in still wakes the next one. Only an owner may clear it, and
//!   gives everybody who sleeps the chance to object: see [`clear_waiters`].
//!
//! Two ways to own a word. [`take`]/[`give`]: a short section inside one call, protected by being pending; only one at a time.
//! [`hold`]/[`release`]: across calls and sleeps, linked in the thread's robust list.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::{ALL, GRACE_MS};
use crate::error::{Error, Kind, Result};
use crate::mutant;
use crate::shm::{RobustCell, Woken, Words};
use crate::sys::{Deadline, thread};
use crate::timeout::Timeout;

pub const WAITERS: u32 = 1 << 31;
pub const OWNER_DIED: u32 = 1 << 30;
pub const OWNER: u32 = OWNER_DIED - 1;

/// What the new owner finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Clean,
    /// The previous owner ended inside: what the word guards may be half-done. The new owner mends it, in a way that can be done
    /// again if it ends, too.
    OwnerDied,
}

/// Takes `cell` for a short section; it stays pending until [`give`]. `None`: the time ran out.
///
/// A deadline of "try once" gets [`GRACE_MS`]: see there.
#[inline]
pub fn take<W: Words>(w: W, cell: &RobustCell, deadline: &Deadline) -> Result<Option<Taken>> {
    if acquire_free(w, cell) {
        return Ok(Some(Taken::Clean));
    }
    take_contended(w, cell, deadline, false, || false)
}

/// The usual case of [`take`], which answers everything else: nobody has `cell`, and nobody sleeps.
#[inline(always)]
pub fn take_free<W: Words>(w: W, cell: &RobustCell) -> bool {
    let free = acquire_free(w, cell);
    if !free {
        w.clear_pending();
    }
    free
}

/// [`take`] by somebody who does not need the word any more once there is `enough`: then it answers `None`, too. It looks whenever
/// somebody gives the word or keeps it ([`keep_from_lookers`]), and ten times a second: between its last look and its sleep the same
/// owner may have left and come back.
pub fn take_unless<W: Words>(w: W, cell: &RobustCell, deadline: &Deadline, enough: impl Fn() -> bool) -> Result<Option<Taken>> {
    if acquire_free(w, cell) { Ok(Some(Taken::Clean)) } else { take_contended(w, cell, deadline, true, enough) }
}

#[cold]
fn take_contended<W: Words>(
    w: W,
    cell: &RobustCell,
    deadline: &Deadline,
    watches: bool,
    enough: impl Fn() -> bool,
) -> Result<Option<Taken>> {
    if is_held(w, cell) {
        w.clear_pending();
        return Err(held());
    }
    match deadline.is_try() {
        true => acquire(w, cell, &Deadline::new(Timeout::Millis(GRACE_MS)), watches, enough),
        false => acquire(w, cell, deadline, watches, enough),
    }
}

/// [`take`] for calls without a timeout: no interrupt check ends it, and it gives up only where the owner has been inside for
/// [`Words::PATIENCE`], thousands of times longer than any section takes. That is a process that was stopped there, or garbage.
/// `object` is what the error is about.
pub fn take_patiently<W: Words>(w: W, cell: &RobustCell, object: &str) -> Result<Taken> {
    take_uninterrupted(w, cell, &Deadline::new(W::PATIENCE))?.ok_or_else(|| stuck(object))
}

/// [`take`] that no interrupt check ends.
fn take_uninterrupted<W: Words>(w: W, cell: &RobustCell, deadline: &Deadline) -> Result<Option<Taken>> {
    loop {
        match take(w, cell, deadline) {
            Err(error) if error.kind() == Kind::Interrupted && deadline.passed() => return Ok(None),
            Err(error) if error.kind() == Kind::Interrupted => {}
            taken => return taken,
        }
    }
}

/// The calling thread would wait for itself. Of what is taken for a short section, only the sides of queues are held across calls.
#[cold]
pub fn held() -> Error {
    let text = "queue: the calling thread would wait for itself: it has to give back what it reserved or peeked at before";
    Error::new(Kind::Busy, text)
}

/// [`take`] for a call that is about to end: no interrupt check ends it, and it gives up where the owner was stopped.
pub fn take_briefly<W: Words>(w: W, cell: &RobustCell) -> Option<Taken> {
    take_uninterrupted(w, cell, &Deadline::new(Timeout::Millis(GRACE_MS))).ok().flatten()
}

/// [`take`] for a call that ends anyway and has something to do before: no interrupt check ends it, and it gives up at the deadline,
/// but not before [`take_briefly`] would; without an end, where [`take_patiently`] would.
pub fn take_before_leaving<W: Words>(w: W, cell: &RobustCell, deadline: &Deadline) -> Option<Taken> {
    let uninterrupted = |deadline| take_uninterrupted(w, cell, deadline).ok().flatten();
    if deadline.at().is_none() {
        return uninterrupted(&Deadline::new(W::PATIENCE));
    }
    let taken = take_briefly(w, cell);
    if taken.is_some() || deadline.passed() { taken } else { uninterrupted(deadline) }
}

#[cold]
fn stuck(object: &str) -> Error {
    let why = "it is stopped, or the shared memory was written over";
    Error::new(Kind::TimedOut, format!("{object}: for 10 s a process was inside an operation on it: {why}"))
}

/// Ends what [`take`] began.
#[inline(always)]
pub fn give<W: Words>(w: W, cell: &RobustCell) {
    give_keeping(w, cell, || ());
}

/// [`give`] with `keep` asked, while the cell is still owned, for what keeps its memory: the next owner may free its handle at once,
/// and there is more to do with the cell if somebody sleeps.
#[inline(always)]
fn give_keeping<W: Words, K>(w: W, cell: &RobustCell, keep: impl FnOnce() -> K) {
    // SYNC POINT: robust word (release; the acquire is in `acquire_free` and `acquire`).
    if w.cas(&cell.word, w.tid(), 0, Release).is_err() {
        let kept = keep();
        give_and_wake(w, cell);
        w.clear_pending();
        drop(kept);
    } else {
        w.clear_pending();
    }
}

/// The usual case of [`hold`], which answers everything else: nobody has `cell`, nobody sleeps, and there is room on the list.
#[inline(always)]
pub fn hold_free<W: Words>(w: W, cell: &RobustCell) -> bool {
    take_free(w, cell) && keep(w, cell).is_ok()
}

/// Owns `cell` until [`release`], across calls. `None`: the time ran out (exactly: no grace).
#[inline]
pub fn hold<W: Words>(w: W, cell: &RobustCell, deadline: &Deadline) -> Result<Option<Taken>> {
    w.set_pending(cell);
    let taken = acquire(w, cell, deadline, false, || false)?;
    if let Some(taken) = taken {
        if let Err(error) = link(w, cell) {
            match taken {
                Taken::Clean => give(w, cell),
                Taken::OwnerDied => put_back(w, cell),
            }
            return Err(error);
        }
    }
    Ok(taken)
}

/// [`hold`] for as long as it is of use: `None` also where `is_over` says that it no longer is. A wake-up that this call had is then
/// passed on to the next sleeper.
///
/// Sleepers look ten times a second: between the last look and the sleep the same owner may have left and come back for another
/// purpose, with others that marked the word again, and the word says nothing of that.
pub fn hold_unless<W: Words>(w: W, cell: &RobustCell, deadline: &Deadline, is_over: impl Fn() -> bool) -> Result<Option<Taken>> {
    w.set_pending(cell);
    let taken = acquire(w, cell, deadline, true, is_over)?;
    if taken.is_some() {
        keep(w, cell)?;
    }
    Ok(taken)
}

/// [`take`] that does not wait, not even for who gives the word at once: `None` where somebody owns it.
#[inline]
pub fn try_take<W: Words>(w: W, cell: &RobustCell) -> Option<Taken> {
    let seen = w.load(&cell.word, Relaxed);
    if seen & OWNER != 0 {
        return None;
    }
    w.set_pending(cell);
    // SYNC POINT: robust word (acquire).
    if w.cas(&cell.word, seen, w.tid() | seen & WAITERS, Acquire).is_err() {
        w.clear_pending();
        return None;
    }
    Some(if seen & OWNER_DIED != 0 { Taken::OwnerDied } else { Taken::Clean })
}

/// [`hold`] that does not wait: `None` where somebody owns the cell.
#[inline]
pub fn try_hold<W: Words>(w: W, cell: &RobustCell) -> Result<Option<Taken>> {
    let taken = try_take(w, cell);
    if taken.is_some() {
        keep(w, cell)?;
    }
    Ok(taken)
}

/// Marks `cell`, which `owner` has, so that whoever gives it wakes; answers the value to sleep on. `None`: it has another owner by now, or
/// the mark could not be set just now.
pub fn mark_waiter<W: Words>(w: W, cell: &RobustCell, owner: u32) -> Option<u32> {
    let seen = w.load(&cell.word, Relaxed);
    let asleep = seen & !OWNER_DIED | WAITERS;
    let marked = seen & OWNER == owner && (seen == asleep || w.cas(&cell.word, seen, asleep, Relaxed).is_ok());
    marked.then_some(asleep)
}

/// Makes of a cell that was taken, and mended if its owner had died, one that is held.
#[inline(always)]
pub fn keep<W: Words>(w: W, cell: &RobustCell) -> Result<()> {
    let linked = link(w, cell);
    if linked.is_err() {
        give(w, cell);
    }
    linked
}

/// [`keep`] of a cell that others take only to look ([`take_unless`]): the wake-up that this thread had may have been theirs, and they
/// can look meanwhile. Should this thread end before it has woken them, the kernel wakes the next one, who does the same.
pub fn keep_from_lookers<W: Words>(w: W, cell: &RobustCell) -> Result<()> {
    keep(w, cell)?;
    if w.load(&cell.word, Relaxed) & WAITERS != 0 && !mutant::is("lookers_not_woken") {
        w.wake(&cell.word, ALL);
    }
    Ok(())
}

/// A cell that was linked need not be pending.
#[inline(always)]
fn link<W: Words>(w: W, cell: &RobustCell) -> Result<()> {
    if !mutant::is("leader_not_linked") {
        w.link(cell)?;
    }
    w.clear_pending();
    Ok(())
}

/// Leaves a cell whose owner had died as that one left it: nobody has been told.
#[cold]
fn put_back<W: Words>(w: W, cell: &RobustCell) {
    let mut seen = w.load(&cell.word, Relaxed);
    while seen & OWNER == w.tid() {
        // SYNC POINT: robust word (release).
        match w.cas(&cell.word, seen, seen & WAITERS | OWNER_DIED, Release) {
            Ok(_) => {
                if seen & WAITERS != 0 {
                    w.wake(&cell.word, 1);
                }
                break;
            }
            Err(now) => seen = now,
        }
    }
    w.clear_pending();
}

/// Ends what [`hold`] began. `false`: somebody wrote over the cell in shared memory.
#[inline]
pub fn release<W: Words>(w: W, cell: &RobustCell) -> bool {
    release_keeping(w, cell, || ())
}

/// The usual case of [`release_keeping`], which does everything else: the calling thread holds this cell and no other. `false`:
/// nothing was done.
#[inline(always)]
pub fn release_only<W: Words, K>(w: W, cell: &RobustCell, keep: impl FnOnce() -> K) -> bool {
    if w.load(&cell.word, Relaxed) & OWNER != w.tid() {
        return false;
    }
    w.set_pending(cell);
    let only = w.unlink_only(cell);
    if only {
        give_keeping(w, cell, keep)
    } else {
        w.clear_pending()
    }
    only
}

/// [`release`] with `keep` asked for what keeps the cell's memory: see [`give_keeping`].
#[inline(always)]
pub fn release_keeping<W: Words, K>(w: W, cell: &RobustCell, keep: impl FnOnce() -> K) -> bool {
    w.set_pending(cell);
    let sound = w.unlink(cell) || mutant::is("leader_not_linked");
    give_keeping(w, cell, keep);
    sound
}

/// Whether the calling thread has `cell` by [`hold`], [`try_hold`] or [`keep`].
#[inline(always)]
pub fn is_held<W: Words>(w: W, cell: &RobustCell) -> bool {
    w.load(&cell.word, Relaxed) & OWNER == w.tid() && w.holds(cell)
}

/// Whether a thread of this process may have `cell` on its robust list, which then leads through the cell's memory. Nobody else's
/// list does.
pub fn may_be_held_here<W: Words>(w: W, cell: &RobustCell) -> bool {
    let owner = w.load(&cell.word, Relaxed) & OWNER;
    owner != 0 && thread::may_be_ours(owner)
}

/// The usual case: nobody has it, nobody waits. The cell is pending afterwards, either way.
#[inline(always)]
fn acquire_free<W: Words>(w: W, cell: &RobustCell) -> bool {
    if mutant::is("pending_after_cas") {
        let free = w.cas(&cell.word, 0, w.tid(), Acquire).is_ok();
        w.set_pending(cell);
        return free;
    }
    w.set_pending(cell);
    // SYNC POINT: robust word (acquire; the release is in `give`).
    w.cas(&cell.word, 0, w.tid(), Acquire).is_ok()
}

/// `cell` is pending, and stays so unless the time runs out, or it is over.
#[cold]
fn acquire<W: Words>(
    w: W,
    cell: &RobustCell,
    deadline: &Deadline,
    watches: bool,
    is_over: impl Fn() -> bool,
) -> Result<Option<Taken>> {
    let mut turn = 0;
    let mut slept = false;
    loop {
        if is_over() {
            if slept {
                w.wake(&cell.word, 1);
            }
            w.clear_pending();
            return Ok(None);
        }
        let seen = w.load(&cell.word, Relaxed);
        if seen & OWNER == 0 {
            // SYNC POINT: robust word (acquire). After a death the kernel wrote the word: what the owner wrote before is visible,
            // its end was a system call on another core that this value was read after.
            if w.cas(&cell.word, seen, w.tid() | seen & WAITERS, Acquire).is_ok() {
                return Ok(Some(if seen & OWNER_DIED != 0 { Taken::OwnerDied } else { Taken::Clean }));
            }
            continue;
        }
        // Of `hold` only: `take` has made a little time of it. A mark would cost the owner two system calls, for nobody who sleeps.
        if deadline.is_try() {
            w.clear_pending();
            return Ok(None);
        }
        if turn < W::SPINS {
            w.relax(turn);
            turn += 1;
            continue;
        }
        // Bit 30 beside a living owner means that it is about to clear WAITERS: not while we sleep.
        let asleep = seen & !OWNER_DIED | WAITERS;
        if seen != asleep && w.cas(&cell.word, seen, asleep, Relaxed).is_err() {
            continue;
        }
        // Meanwhile it may have been over, and somebody else be the owner; who looks after the mark is seen by whoever gives the word.
        if is_over() {
            continue;
        }
        let woken =
            if watches { w.wait_watching(&cell.word, asleep, deadline) } else { w.wait_for_owner(&cell.word, asleep, deadline) };
        match woken {
            // An interrupt check may have used the library: pending was whatever it took, and now nothing is. It was asked when this
            // thread no longer slept, so no wake-up is lost between the two.
            Ok(Woken::Look) => {
                w.set_pending(cell);
                slept = true;
            }
            Ok(Woken::TimedOut) => {
                w.clear_pending();
                return Ok(None);
            }
            Err(interrupted) => {
                w.clear_pending();
                return Err(interrupted);
            }
        }
    }
}

/// `give` with WAITERS set.
#[cold]
fn give_and_wake<W: Words>(w: W, cell: &RobustCell) {
    if w.load(&cell.word, Relaxed) & OWNER != w.tid() {
        return; // written over: not ours to free any more
    }
    let kept = if mutant::is("release_drops_w") { 0 } else { WAITERS };
    // SYNC POINT: robust word (release).
    let before = w.and(&cell.word, kept, Release);
    if before & WAITERS != 0 && w.wake(&cell.word, 1) == 0 {
        clear_waiters(w, cell);
    }
}

/// Nobody slept: WAITERS is left over from before, and every further `give` would pay for a system call.
///
/// As its owner (again): announce it by bit 30, wake everybody who slept meanwhile, and clear it unless one of them, or one who was
/// about to sleep, took the announcement back. Whoever sleeps has seen a word without bit 30 and is woken; whoever is about to sleep
/// meets a changed word.
#[cold]
fn clear_waiters<W: Words>(w: W, cell: &RobustCell) {
    let mine = w.tid();
    if w.cas(&cell.word, WAITERS, mine | WAITERS, Acquire).is_err() {
        return; // the next owner will see to it
    }
    if w.cas(&cell.word, mine | WAITERS, mine | WAITERS | OWNER_DIED, Relaxed).is_ok() {
        w.wake(&cell.word, ALL);
        let _ = w.cas(&cell.word, mine | WAITERS | OWNER_DIED, mine, Relaxed);
    }
    // SYNC POINT: robust word (release).
    if w.cas(&cell.word, mine, 0, Release).is_err() && w.and(&cell.word, WAITERS, Release) & WAITERS != 0 {
        w.wake(&cell.word, 1);
    }
}
