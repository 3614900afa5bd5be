//! The one way through the boundary: every export's body runs inside one of these functions.
//!
//! A panic becomes TINE_EPANIC instead of unwinding into C. That is honest only because state stays sound: nothing between lock and
//! unlock of a shared object can panic, and private state behind a poisoned mutex refuses from then on.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::last_error;
use super::status::{TINE_OK, TINE_OWNER_DIED, TINE_PIPE_HELD, tine_status_t};
use crate::error::{Note, Result};

thread_local! {
    /// How many guards are on this thread's stack. Const and without Drop.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// For exports that return a status and nothing else.
#[inline]
pub(super) fn status(body: impl FnOnce() -> Result<()>) -> tine_status_t {
    noted(|| body().map(|()| Note::None))
}

/// For exports that may succeed with a note.
#[inline]
pub(super) fn noted(body: impl FnOnce() -> Result<Note>) -> tine_status_t {
    number(|| {
        Ok(match body()? {
            Note::None => TINE_OK,
            Note::OwnerDied => TINE_OWNER_DIED,
            Note::PipeHeld => TINE_PIPE_HELD,
        })
    })
}

/// For exports whose usual case is so short that the guard would be a third of it: `usual` can neither fail nor panic and answers
/// whether that was all; `body` does everything else.
#[inline(always)]
pub(super) fn noted_unless(usual: impl FnOnce() -> Option<()>, body: impl FnOnce() -> Result<Note>) -> tine_status_t {
    #[inline(never)]
    fn unusual(body: impl FnOnce() -> Result<Note>) -> tine_status_t {
        noted(body)
    }

    let done = if cfg!(feature = "panic_injection") { false } else { usual().is_some() };
    if done { TINE_OK } else { unusual(body) }
}

/// As `noted_unless`, for exports that return a status and nothing else.
#[inline(always)]
pub(super) fn status_unless(usual: impl FnOnce() -> Option<()>, body: impl FnOnce() -> Result<()>) -> tine_status_t {
    noted_unless(usual, || body().map(|()| Note::None))
}

/// For exports that return a number on success and a status below 0 on failure.
#[inline]
pub(super) fn number(body: impl FnOnce() -> Result<i32>) -> i32 {
    recorded(body).unwrap_or_else(|status| status)
}

/// For exports that return what they know and `fallback` where they cannot; the failure is recorded.
#[inline]
pub(super) fn value<T>(fallback: T, body: impl FnOnce() -> Result<T>) -> T {
    recorded(body).unwrap_or(fallback)
}

/// For exports that cannot fail: `_free` and the like.
#[inline]
pub(super) fn release(body: impl FnOnce()) {
    value((), || {
        body();
        Ok(())
    });
}

/// Runs `body`; its failure, or panic, is this thread's last error. `AssertUnwindSafe`: see the head of this file.
#[inline]
fn recorded<T>(body: impl FnOnce() -> Result<T>) -> std::result::Result<T, tine_status_t> {
    silence_panics();
    DEPTH.set(DEPTH.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(|| {
        #[cfg(feature = "panic_injection")]
        super::panic_injection::strike();
        body()
    }));
    DEPTH.set(DEPTH.get() - 1);
    match result {
        Ok(result) => result.map_err(|error| last_error::record(&error)),
        Err(payload) => Err(last_error::record_panic(&payload_message(payload))),
    }
}

/// The default hook would print to the host's stderr before we can answer. In a shared library the hook is that of our own copy of
/// std; linked statically into a Rust program it is the program's, and goes on to serve everything outside of a guard.
#[inline]
fn silence_panics() {
    static DONE: AtomicBool = AtomicBool::new(false);
    if !DONE.load(Relaxed) {
        install_hook(&DONE);
    }
}

#[cold]
fn install_hook(done: &AtomicBool) {
    if done.swap(true, Relaxed) {
        return;
    }
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if DEPTH.get() == 0 {
            previous(info);
        }
    }));
}

#[cold]
fn payload_message(payload: Box<dyn Any + Send>) -> String {
    let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "a panic without a message".to_owned(),
    };
    // Dropping the payload may panic again.
    std::mem::forget(payload);
    message
}
