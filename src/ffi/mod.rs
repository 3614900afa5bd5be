//! The C boundary: translation only. Each export converts its arguments, makes one call into the core and converts the result; what
//! needs a decision belongs to the core or to `arg`. The header is generated from this folder, in the order of the `mod` lines.
//!
//! # Contracts
//! What the caller promises; SAFETY comments cite them by letter.
//! - **H** handle: NULL, or returned by the matching constructor and not yet freed.
//! - **B** bytes: readable (or writable) for the given length during the call, or NULL with length 0.
//! - **S** string: NULL where the doc allows it, else NUL-terminated.
//! - **O** out: NULL where the doc allows it, else writable and aligned; written only on success.
//! - **C** callback: callable with the given `user_data` from the thread or process that the doc names; must not unwind or longjmp
//!   through the library.
#![allow(unsafe_code, reason = "the C boundary")]
#![allow(non_camel_case_types, reason = "the Rust name is the C name")]

mod arg;
mod command;
mod guard;
mod handle;
mod options;
#[cfg(feature = "panic_injection")]
mod panic_injection;

// In the order of the header.
pub mod version;

pub mod status;

pub mod last_error;

pub mod memory;

pub mod library;

pub mod cpu;

pub mod fork;

pub mod process;

pub mod pool;

pub mod pipe;

pub mod queue;

pub mod lock;

pub mod semaphore;

pub mod event;

pub mod condition;

pub mod barrier;

pub mod shared_memory;

pub mod file_lock;

pub mod handing_on;
