//! # tine
//!
//! Processes, pools of worker processes, pipes, queues, locks and external commands behind a C ABI.
//!
//! The tree is the architecture; each folder is a layer and may import only from those above it in this list:
//!
//! | layer | what it is |
//! |---|---|
//! | [`error`], [`timeout`], [`log`] | what everything speaks: statuses with a message, time limits, diagnostics |
//! | [`sys`] | the operating system and nothing else; the only folder that names libc |
//! | [`shm`] | memory that several processes see, and the only ways to read, write, wait for and own its words |
//! | [`sync`] | locks, semaphores, events: algorithms over words |
//! | [`ipc`] | queues and pipes |
//! | [`process`] | children: started functions, and commands |
//! | [`pool`] | many workers, forked by a nursery |
//! | [`ffi`] | the C boundary: translation only |
//!
//! Start reading at `shm/words.rs`: the rule that shapes the library is that a process may be SIGKILLed between any two
//! instructions and every other process goes on. `sync/robust.rs` is how a word survives its owner, `ipc/queue.rs` how that makes
//! a queue, `pool/mod.rs` how workers are made and replaced.
#![deny(unsafe_code)]

#[cfg(panic = "abort")]
compile_error!("tine answers TINE_EPANIC instead of unwinding into its host; with panic = \"abort\" it would take the host down");

// The robust lists of other libcs are laid out otherwise, and nobody but glibc tells an exit handler the code.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
compile_error!("tine needs Linux with glibc");

pub mod error;
pub mod log;
mod mutant;
pub mod timeout;

pub mod sys;

pub mod shm;

pub mod sync;

pub mod ipc;

pub mod process;

pub mod pool;

pub mod ffi;
