//! Locks, semaphores and events over words in shared memory: between processes and between threads.
//!
//! The rule: a process may be SIGKILLed between any two instructions of anything in here, and every other process goes on. What
//! that takes is explained where it is done: [`robust`] for words that outlive their owner and for leaders and followers,
//! [`semaphore`] for waking before publishing. The algorithms are generic over [`crate::shm::Words`].
//!
//! Two of the instruments that show the rule to hold lie beside the code, in test builds only: `model` checks every order of steps
//! and kills of models of the protocols, `explore` runs the code itself under a scheduler that kills. (The third, `tests/lab`, kills
//! real processes after each instruction. `tests/mutants.rs` shows that mistakes are found.)
#![forbid(unsafe_code)]

pub mod barrier;
pub mod condition;
pub mod event;
pub mod file_lock;
pub mod lock;
pub mod robust;
pub mod semaphore;
pub mod tracked;

pub use barrier::Barrier;
pub use condition::Condition;
pub use event::Event;
pub use file_lock::FileLock;
pub use lock::Lock;
pub use semaphore::Semaphore;

/// How long a call with timeout 0 waits for a peer that is inside an operation. Such sections take nanoseconds, but the peer may have
/// been preempted there, and "full" would then be a wrong answer.
pub(crate) const GRACE_MS: u64 = 20;

/// Every sleeper.
pub(crate) const ALL: u32 = u32::MAX;

#[cfg(test)]
pub(crate) mod explore;
#[cfg(test)]
mod model;
