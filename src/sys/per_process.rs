//! Process-wide state that survives a fork in the right way: by starting anew in the child ([`PerProcess`]), or as it is
//! ([`AcrossForks`]).
//!
//! A mutex of std that another thread holds at the moment of a fork stays locked in the child for ever, and state that describes the
//! parent (its children, its memory, its log) is wrong there. Here the lock word holds the *epoch* of the process that locked it;
//! in a child both the lock and the value belong to another epoch and are replaced.

use std::cell::UnsafeCell;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU64, Ordering::*};

use super::thread;

/// The epoch of the process whose thread is inside; 0 = nobody.
struct EpochLock(AtomicU64);

impl EpochLock {
    fn lock(&self, epoch: u64) -> Unlock<'_> {
        let mut spins = 0u32;
        loop {
            let holder = self.0.load(Relaxed);
            // Free, or held by a thread that this process does not have: it was left behind by the fork.
            // SYNC POINT: per_process (acquire; the release is in Unlock).
            if holder != epoch && self.0.compare_exchange(holder, epoch, Acquire, Relaxed).is_ok() {
                return Unlock(&self.0);
            }
            spins += 1;
            if spins % 16 == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

struct Unlock<'a>(&'a AtomicU64);

impl Drop for Unlock<'_> {
    fn drop(&mut self) {
        // SYNC POINT: per_process (release).
        self.0.store(0, Release);
    }
}

/// State that a child has as its parent left it, in the midst of a change perhaps: for what makes sense at any moment.
pub struct AcrossForks<T> {
    lock: EpochLock,
    value: T,
}

impl<T: Sync> AcrossForks<T> {
    pub const fn new(value: T) -> AcrossForks<T> {
        AcrossForks { lock: EpochLock(AtomicU64::new(0)), value }
    }

    /// Runs `body` alone in this process. `body` must be short, must not come back here and must not call foreign code.
    pub fn with<R>(&self, body: impl FnOnce(&T) -> R) -> R {
        let _unlock = self.lock.lock(thread::epoch());
        body(&self.value)
    }
}

pub struct PerProcess<T> {
    lock: EpochLock,
    /// The epoch that `value` was made in; only read and written inside the lock.
    made: UnsafeCell<u64>,
    value: UnsafeCell<Option<T>>,
    /// What the last ancestors left, never touched again: so that a leak detector in the child finds it reachable. Not a list: the
    /// child of a program with threads must not allocate.
    inherited: UnsafeCell<[Option<ManuallyDrop<T>>; 2]>,
}

// SAFETY: the cells are only touched between `lock` and `unlock`, by one thread of the process at a time.
unsafe impl<T: Send> Sync for PerProcess<T> {}

impl<T: Default> PerProcess<T> {
    #[allow(clippy::new_without_default, reason = "const, for statics")]
    pub const fn new() -> PerProcess<T> {
        PerProcess {
            lock: EpochLock(AtomicU64::new(0)),
            made: UnsafeCell::new(0),
            value: UnsafeCell::new(None),
            inherited: UnsafeCell::new([const { None }; 2]),
        }
    }

    /// Runs `body` alone in this process. `body` must be short, must not come back here and must not call foreign code.
    pub fn with<R>(&self, body: impl FnOnce(&mut T) -> R) -> R {
        let epoch = thread::epoch();
        let unlock = self.lock.lock(epoch);
        // SAFETY: we hold the lock.
        let (made, value) = unsafe { (&mut *self.made.get(), &mut *self.value.get()) };
        if *made != epoch {
            // The parent's value may be half-written and its parts may be locked: kept, not dropped.
            // SAFETY: we hold the lock.
            let inherited = unsafe { &mut *self.inherited.get() };
            inherited.rotate_right(1);
            inherited[0] = value.take().map(ManuallyDrop::new);
            *made = epoch;
        }
        let result = body(value.get_or_insert_with(T::default));
        drop(unlock);
        result
    }
}
