//! A lock owned by a thread, plain or recursive.

use std::sync::atomic::Ordering::Relaxed;

use super::robust::{self, Taken};
use crate::error::{Error, Kind, Note, Result};
use crate::shm::{HandedOn, Naming, Object, RobustCell, SharedMemory, Words};
use crate::sys::Deadline;
use crate::sys::thread::Thread;
use crate::timeout::Timeout;

/// How deep a recursive lock may be acquired.
pub const DEPTH_MAX: u32 = 65_535;

/// Where the cell keeps what belongs to a lock.
mod small {
    /// How often the owner acquired it again; written by the owner only.
    pub const DEPTH: usize = 0;
    pub const FLAGS: usize = 1;
}

const RECURSIVE: u32 = 1;

#[derive(Clone, Debug)]
pub struct Lock {
    cell: Object<RobustCell>,
    recursive: bool,
}

impl Lock {
    pub fn new(recursive: bool) -> Result<Lock> {
        Lock::named(&Naming::None, recursive)
    }

    pub fn named(naming: &Naming, recursive: bool) -> Result<Lock> {
        Lock::make(naming, 0, |cell| prepare(cell, recursive))
    }

    /// In a block of the user.
    pub fn new_in(memory: &SharedMemory, offset: usize, recursive: bool) -> Result<Lock> {
        memory.make(offset, |cell| prepare(cell, recursive))
    }

    /// The usual case of [`Lock::acquire`]: `None` has changed nothing.
    #[inline(always)]
    pub fn acquire_free(&self) -> Option<()> {
        robust::hold_free(Thread::if_known()?, &self.cell).then_some(())
    }

    /// The usual case of [`Lock::release`]: the only lock of this thread, and a plain one. `None` has changed nothing.
    #[inline(always)]
    pub fn release_only(&self) -> Option<()> {
        (!self.recursive && robust::release_only(Thread::if_known()?, &self.cell, || self.cell.clone())).then_some(())
    }

    #[inline]
    pub fn acquire(&self, deadline: &Deadline) -> Result<Note> {
        acquire(Thread::current(), &self.cell, self.recursive, deadline)
    }

    #[inline]
    pub fn release(&self) -> Result<()> {
        release(Thread::current(), &self.cell, self.recursive, || self.cell.clone())
    }

    pub(super) fn cell(&self) -> &Object<RobustCell> {
        &self.cell
    }

    pub(super) fn is_recursive(&self) -> bool {
        self.recursive
    }

    /// By the calling thread.
    pub fn is_held(&self) -> bool {
        robust::is_held(Thread::current(), &self.cell)
    }
}

impl HandedOn for Lock {
    type Shared = RobustCell;

    fn of(cell: Object<RobustCell>) -> Result<Lock> {
        let recursive = Thread::current().load(&cell.small[small::FLAGS], Relaxed) & RECURSIVE != 0;
        Ok(Lock { cell, recursive })
    }

    fn object(&self) -> &Object<RobustCell> {
        &self.cell
    }
}

fn prepare(cell: &RobustCell, recursive: bool) {
    Thread::current().store(&cell.small[small::FLAGS], if recursive { RECURSIVE } else { 0 }, Relaxed);
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The robust list of the thread that holds it leads through this memory.
        if robust::may_be_held_here(Thread::current(), &self.cell) {
            self.cell.keep_mapped();
        }
    }
}

#[inline]
pub fn acquire<W: Words>(w: W, cell: &RobustCell, recursive: bool, deadline: &Deadline) -> Result<Note> {
    if robust::hold_free(w, cell) { Ok(Note::None) } else { acquire_taken(w, cell, recursive, deadline) }
}

#[cold]
fn acquire_taken<W: Words>(w: W, cell: &RobustCell, recursive: bool, deadline: &Deadline) -> Result<Note> {
    if robust::is_held(w, cell) {
        if recursive {
            return enter_again(w, cell);
        }
        if deadline.timeout() == Timeout::Forever {
            return Err(Error::new(Kind::Deadlock, "lock: the calling thread holds it already and would wait for itself"));
        }
    }
    match robust::hold(w, cell, deadline)? {
        Some(Taken::Clean) => Ok(Note::None),
        Some(Taken::OwnerDied) => {
            // Its depth died with it.
            w.store(&cell.small[small::DEPTH], 0, Relaxed);
            Ok(Note::OwnerDied)
        }
        None => Err(Error::new(Kind::TimedOut, "lock: another thread held it all the time")),
    }
}

fn enter_again<W: Words>(w: W, cell: &RobustCell) -> Result<Note> {
    let depth = w.load(&cell.small[small::DEPTH], Relaxed);
    if depth >= DEPTH_MAX - 1 {
        return Err(Error::new(Kind::Overflow, "lock: acquired 65,535 times already"));
    }
    w.store(&cell.small[small::DEPTH], depth + 1, Relaxed);
    Ok(Note::None)
}

#[inline]
pub fn release<W: Words, K>(w: W, cell: &RobustCell, recursive: bool, keep: impl Fn() -> K) -> Result<()> {
    if !recursive && robust::release_only(w, cell, &keep) {
        return Ok(());
    }
    if !robust::is_held(w, cell) {
        return Err(Error::new(Kind::NotOwner, "lock: the calling thread does not hold it"));
    }
    if recursive {
        let depth = w.load(&cell.small[small::DEPTH], Relaxed);
        if depth > 0 {
            w.store(&cell.small[small::DEPTH], depth - 1, Relaxed);
            return Ok(());
        }
    }
    match robust::release_keeping(w, cell, keep) {
        true => Ok(()),
        false => Err(corrupt()),
    }
}

/// Gives up all levels of a lock that the calling thread holds; answers what [`reacquire`] restores.
pub fn release_wholly<W: Words>(w: W, cell: &RobustCell, recursive: bool) -> Result<u32> {
    let mut depth = 0;
    if recursive {
        depth = w.load(&cell.small[small::DEPTH], Relaxed);
        w.store(&cell.small[small::DEPTH], 0, Relaxed);
    }
    match robust::release(w, cell) {
        true => Ok(depth),
        false => Err(corrupt()),
    }
}

/// Acquires a lock with this many levels more, however long that takes.
pub fn reacquire<W: Words>(w: W, cell: &RobustCell, depth: u32) -> Result<Note> {
    let forever = Deadline::new(Timeout::Forever);
    let taken = loop {
        match robust::hold(w, cell, &forever) {
            Ok(Some(taken)) => break taken,
            Ok(None) => {}
            Err(error) if error.kind() == Kind::Interrupted => {}
            Err(error) => return Err(error),
        }
    };
    w.store(&cell.small[small::DEPTH], depth, Relaxed);
    Ok(if taken == Taken::OwnerDied { Note::OwnerDied } else { Note::None })
}

#[cold]
fn corrupt() -> Error {
    Error::new(Kind::Corrupt, "lock: its shared memory was written over")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Deadline {
        Deadline::new(if millis == 0 { Timeout::Try } else { Timeout::Millis(millis) })
    }

    #[test]
    fn plain_lock_refuses_its_owner() {
        let lock = Lock::new(false).unwrap();
        assert_eq!(lock.acquire(&millis(0)).unwrap(), Note::None);
        assert!(lock.is_held());
        assert_eq!(lock.acquire(&Deadline::new(Timeout::Forever)).unwrap_err().kind(), Kind::Deadlock);
        assert_eq!(lock.acquire(&millis(1)).unwrap_err().kind(), Kind::TimedOut);
        lock.release().unwrap();
        assert!(!lock.is_held());
        assert_eq!(lock.release().unwrap_err().kind(), Kind::NotOwner);
    }

    #[test]
    fn who_tries_leaves_no_mark_for_the_owner() {
        let lock = Lock::new(false).unwrap();
        lock.acquire(&millis(0)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(lock.acquire(&millis(0)).unwrap_err().kind(), Kind::TimedOut));
        });
        assert_eq!(Thread::current().load(&lock.cell.word, Relaxed) & robust::WAITERS, 0);
        lock.release().unwrap();
    }

    #[test]
    fn recursive_lock_counts() {
        let lock = Lock::new(true).unwrap();
        for _ in 0..DEPTH_MAX {
            lock.acquire(&millis(0)).unwrap();
        }
        assert_eq!(lock.acquire(&millis(0)).unwrap_err().kind(), Kind::Overflow);
        for _ in 0..DEPTH_MAX {
            lock.release().unwrap();
        }
        assert_eq!(lock.release().unwrap_err().kind(), Kind::NotOwner);
    }

    #[test]
    fn a_thread_that_ends_inside_is_told_once() {
        let lock = Lock::new(false).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| lock.acquire(&millis(0)).unwrap());
        });
        // join() returns before the kernel has walked the list: wait for it.
        assert_eq!(lock.acquire(&Deadline::new(Timeout::Forever)).unwrap(), Note::OwnerDied);
        lock.release().unwrap();
        assert_eq!(lock.acquire(&millis(0)).unwrap(), Note::None);
        lock.release().unwrap();
    }

    #[test]
    fn held_locks_may_be_released_in_any_order() {
        let locks: Vec<Lock> = (0..5).map(|_| Lock::new(false).unwrap()).collect();
        for lock in &locks {
            lock.acquire(&millis(0)).unwrap();
        }
        for index in [2, 4, 0, 1, 3] {
            locks[index].release().unwrap();
        }
        assert!(locks.iter().all(|lock| !lock.is_held()));
    }

    #[test]
    fn one_thread_holds_at_most_256_locks() {
        let locks: Vec<Lock> = (0..257).map(|_| Lock::new(false).unwrap()).collect();
        for lock in &locks[..256] {
            lock.acquire(&millis(0)).unwrap();
        }
        assert_eq!(locks[256].acquire(&millis(0)).unwrap_err().kind(), Kind::Again);
        for lock in &locks[..256] {
            lock.release().unwrap();
        }
        locks[256].acquire(&millis(0)).unwrap();
        locks[256].release().unwrap();
    }

    #[test]
    fn who_cannot_hold_one_lock_more_leaves_the_death_of_its_owner_to_the_next() {
        let locks: Vec<Lock> = (0..257).map(|_| Lock::new(false).unwrap()).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| locks[256].acquire(&millis(0)).unwrap());
        });
        for lock in &locks[..256] {
            lock.acquire(&millis(0)).unwrap();
        }
        let forever = Deadline::new(Timeout::Forever);
        assert_eq!(locks[256].acquire(&forever).unwrap_err().kind(), Kind::Again);
        for lock in &locks[..256] {
            lock.release().unwrap();
        }
        assert_eq!(locks[256].acquire(&forever).unwrap(), Note::OwnerDied);
        locks[256].release().unwrap();
    }
}
