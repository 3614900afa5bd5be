//! How algorithms reach the words.
//!
//! Everything in `sync` and `ipc` is generic over [`Words`]. In the product it is [`Thread`]: plain atomics, futex(2), the kernel's
//! robust list. Under test it is a model of the three, driven by a scheduler that decides who steps next and who is killed
//! (`sync/explore.rs`). So what is explored is the product's own code.

use std::sync::atomic::Ordering;

use super::{RobustCell, Word, Word64};
use crate::error::Result;
use crate::sys::{Deadline, thread::Thread};
use crate::sys::{futex, tsan};
use crate::timeout::Timeout;

pub use crate::sys::futex::Woken;

/// How often [`Words::wait_watching`] looks.
const WATCH_MS: u64 = 100;

/// The calling thread's access to shared words.
pub trait Words: Copy {
    /// How often to look again for a word that its owner gives back soon, before sleeping.
    const SPINS: u32;
    /// How long to look for what may come soon ([`super::Spin`]); 0 = once.
    const SPIN_NS: u64;
    /// How long a call without a timeout waits for a peer that is inside an operation.
    const PATIENCE: Timeout;

    /// The number of the calling thread, below 2^30 and never 0.
    fn tid(self) -> u32;

    fn load(self, word: &Word, order: Ordering) -> u32;
    fn store(self, word: &Word, value: u32, order: Ordering);
    /// Compare and swap; answers the previous value either way. Failure orders as `Relaxed`.
    fn cas(self, word: &Word, current: u32, new: u32, order: Ordering) -> std::result::Result<u32, u32>;
    fn and(self, word: &Word, mask: u32, order: Ordering) -> u32;

    fn load64(self, word: &Word64, order: Ordering) -> u64;
    fn store64(self, word: &Word64, value: u64, order: Ordering);
    fn cas64(self, word: &Word64, current: u64, new: u64, order: Ordering) -> std::result::Result<u64, u64>;

    /// Everything before it is seen before anything after it, by all.
    #[inline]
    fn fence(self) {
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    /// Sleeps while `word` holds `expected`. Fails only if the thread's interrupt check says so.
    fn wait(self, word: &Word, expected: u32, deadline: &Deadline) -> Result<Woken>;
    /// [`Words::wait`] on a word of [`crate::sync::robust`], whose wake-ups the kernel passes on when a woken thread ends.
    fn wait_for_owner(self, word: &Word, expected: u32, deadline: &Deadline) -> Result<Woken> {
        self.wait(word, expected, deadline)
    }
    /// [`Words::wait`] for the one sleeper that watches over others: returns from time to time although nobody woke it, because a
    /// thread that dies wakes nobody here.
    fn wait_watching(self, word: &Word, expected: u32, deadline: &Deadline) -> Result<Woken>;
    /// Wakes at most `count` sleepers; answers how many.
    fn wake(self, word: &Word, count: u32) -> u32;

    /// From here until [`Words::clear_pending`] the kernel looks at this word too if the thread ends: owned by the thread, it becomes
    /// owner-dead and one sleeper is woken; owned by nobody, one sleeper is woken. One word at a time.
    fn set_pending(self, cell: &RobustCell);
    fn clear_pending(self);

    /// Puts a pending, owned cell on the thread's list: the kernel looks at it until [`Words::unlink`], also when it is not pending.
    fn link(self, cell: &RobustCell) -> Result<()>;
    /// `false`: somebody wrote over the node in shared memory.
    fn unlink(self, cell: &RobustCell) -> bool;
    /// [`Words::unlink`] if there is nothing else on the list; `false`: nothing was done.
    fn unlink_only(self, cell: &RobustCell) -> bool;
    /// Whether this thread has linked the cell.
    fn holds(self, cell: &RobustCell) -> bool;

    /// Between two looks at a word that somebody else will change; `turn` counts them.
    fn relax(self, turn: u32);
}

impl Words for Thread {
    // About as long as a peer on another core needs for an operation.
    const SPINS: u32 = 60;
    // What a sleep costs those who sleep and those who wake them, a round trip of it, on ordinary machines; more on virtual ones. Who
    // gives up earlier than its peer can answer makes that one sleep, too, and each message costs both of them a wake-up.
    const SPIN_NS: u64 = 20_000;
    const PATIENCE: Timeout = Timeout::Millis(10_000);

    #[inline]
    fn tid(self) -> u32 {
        Thread::tid(self)
    }

    #[inline]
    fn load(self, word: &Word, order: Ordering) -> u32 {
        let value = word.atomic().load(order);
        tsan::after(word, order);
        value
    }

    #[inline]
    fn store(self, word: &Word, value: u32, order: Ordering) {
        tsan::before(word, order);
        word.atomic().store(value, order);
    }

    #[inline]
    fn cas(self, word: &Word, current: u32, new: u32, order: Ordering) -> std::result::Result<u32, u32> {
        tsan::before(word, order);
        let result = word.atomic().compare_exchange(current, new, order, Ordering::Relaxed);
        if result.is_ok() {
            tsan::after(word, order);
        }
        result
    }

    #[inline]
    fn and(self, word: &Word, mask: u32, order: Ordering) -> u32 {
        tsan::before(word, order);
        let value = word.atomic().fetch_and(mask, order);
        tsan::after(word, order);
        value
    }

    #[inline]
    fn load64(self, word: &Word64, order: Ordering) -> u64 {
        let value = word.atomic().load(order);
        tsan::after(word, order);
        value
    }

    #[inline]
    fn store64(self, word: &Word64, value: u64, order: Ordering) {
        tsan::before(word, order);
        word.atomic().store(value, order);
    }

    #[inline]
    fn cas64(self, word: &Word64, current: u64, new: u64, order: Ordering) -> std::result::Result<u64, u64> {
        tsan::before(word, order);
        let result = word.atomic().compare_exchange(current, new, order, Ordering::Relaxed);
        if result.is_ok() {
            tsan::after(word, order);
        }
        result
    }

    #[inline]
    fn wait(self, word: &Word, expected: u32, deadline: &Deadline) -> Result<Woken> {
        futex::wait(word.atomic(), expected, deadline)
    }

    fn wait_for_owner(self, word: &Word, expected: u32, deadline: &Deadline) -> Result<Woken> {
        if futex::passes_wakeups_on() {
            return self.wait(word, expected, deadline);
        }
        self.wait_watching(word, expected, deadline)
    }

    fn wait_watching(self, word: &Word, expected: u32, deadline: &Deadline) -> Result<Woken> {
        let slice = deadline.at_most(WATCH_MS);
        match self.wait(word, expected, &slice)? {
            Woken::TimedOut if !deadline.passed() => Ok(Woken::Look),
            woken => Ok(woken),
        }
    }

    #[inline]
    fn wake(self, word: &Word, count: u32) -> u32 {
        futex::wake(word.atomic(), count)
    }

    #[inline]
    fn set_pending(self, cell: &RobustCell) {
        Thread::set_pending(self, cell.word.atomic().as_ptr());
    }

    #[inline]
    fn clear_pending(self) {
        Thread::clear_pending(self);
    }

    #[inline(always)]
    fn link(self, cell: &RobustCell) -> Result<()> {
        // SAFETY: cells lie in mappings that their object keeps alive; an object that is freed while its lock is held leaves its
        // memory mapped (`Object::keep_mapped`).
        unsafe { Thread::link(self, cell.word.atomic().as_ptr()) }
    }

    #[inline(always)]
    fn unlink(self, cell: &RobustCell) -> bool {
        // SAFETY: as above.
        unsafe { Thread::unlink(self, cell.word.atomic().as_ptr()) }
    }

    #[inline(always)]
    fn unlink_only(self, cell: &RobustCell) -> bool {
        // SAFETY: as above.
        unsafe { Thread::unlink_only(self, cell.word.atomic().as_ptr()) }
    }

    #[inline(always)]
    fn holds(self, cell: &RobustCell) -> bool {
        Thread::holds(self, cell.word.atomic().as_ptr())
    }

    #[inline]
    fn relax(self, turn: u32) {
        // Two runners on one core: who spins without yielding starves the very process it waits for. Not at once: an answer from another
        // core comes within a microsecond, and a yield would take longer.
        if turn % 16 == 15 && turn > 32 { std::thread::yield_now() } else { std::hint::spin_loop() }
    }
}
