//! The last failure of each thread: fixed size, no destructor, no lock, nothing to free; safe after fork and at thread exit.

use std::cell::UnsafeCell;
use std::ffi::{c_char, c_void};

use super::status::{TINE_EPANIC, TINE_OK, of, tine_status_t};
use super::{arg, guard};
use crate::error::Error;

const CAPACITY: usize = 512;
/// So much of the beginning of a longer message is kept, and the rest of its end.
const BEGINNING: usize = 100;

struct LastError {
    /// How many failures there were before it, and it.
    count: u64,
    status: tine_status_t,
    errno: i32,
    /// NUL-terminated.
    text: [u8; CAPACITY],
}

thread_local! {
    // Const and without Drop: plain thread-local memory.
    static LAST: UnsafeCell<LastError> = const { UnsafeCell::new(LastError {
        count: 0,
        status: TINE_OK,
        errno: 0,
        text: [0; CAPACITY],
    }) };
}

pub(super) fn record(error: &Error) -> tine_status_t {
    record_as(of(error.kind()), error)
}

/// A failure whose number is not of the library's kinds.
pub(super) fn record_as(status: tine_status_t, error: &Error) -> tine_status_t {
    write(status, error.errno(), error.message());
    status
}

#[cold]
pub(super) fn record_panic(message: &str) -> tine_status_t {
    write(TINE_EPANIC, 0, &format!("the library failed: {message}"));
    TINE_EPANIC
}

/// How many failures this thread has met.
pub(super) fn count() -> u64 {
    // SAFETY: this thread's own memory.
    LAST.with(|last| unsafe { (*last.get()).count })
}

/// The errno and the message of the last failure, if there was one after the first `count` of them and this was its status.
pub(super) fn since(count: u64, status: tine_status_t) -> Option<(i32, String)> {
    LAST.with(|last| {
        // SAFETY: only this thread reaches it, and nothing below calls back.
        let last = unsafe { &*last.get() };
        let text = || String::from_utf8_lossy(last.text.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned();
        (last.count > count && last.status == status).then(|| (last.errno, text()))
    })
}

/// What there is no room for is cut out behind the beginning: messages begin with a name, which may be of any length, and end with
/// the reason.
fn cut(message: &str) -> [&str; 3] {
    if message.len() < CAPACITY {
        return [message, "", ""];
    }
    let between = "...";
    let (mut begin, mut end) = (BEGINNING, message.len() + BEGINNING + between.len() - (CAPACITY - 1));
    while !message.is_char_boundary(begin) {
        begin -= 1;
    }
    while !message.is_char_boundary(end) {
        end += 1;
    }
    [&message[..begin], between, &message[end..]]
}

fn write(status: tine_status_t, errno: i32, message: &str) {
    let parts = cut(message);
    LAST.with(|last| {
        // SAFETY: only this thread reaches it, and nothing below calls back.
        let last = unsafe { &mut *last.get() };
        (last.count, last.status, last.errno) = (last.count + 1, status, errno);
        let mut length = 0;
        for part in parts {
            last.text[length..length + part.len()].copy_from_slice(part.as_bytes());
            length += part.len();
        }
        last.text[length] = 0;
    });
}

/// What the last failing call of this thread said: what, on which object, why. Not for parsing.
///
/// Success does not clear it.
///
/// @return A string of this thread, never NULL, valid until its next failing call; empty before the first.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub extern "C" fn tine_last_error_message() -> *const c_char {
    // SAFETY: the address of this thread's own buffer.
    guard::value(c"".as_ptr(), || Ok(LAST.with(|last| unsafe { (&raw const (*last.get()).text).cast() })))
}

/// The operating system's number behind the last failing call of this thread.
///
/// @return An errno, or 0 where the operating system was not the cause.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub extern "C" fn tine_last_errno() -> i32 {
    // SAFETY: this thread's own memory.
    guard::value(0, || Ok(LAST.with(|last| unsafe { (*last.get()).errno })))
}

/// Copies tine_last_error_message() into the caller's buffer, cut off where it does not fit, always NUL-terminated.
///
/// @param buffer    Where to; may be NULL if `capacity` is 0.
/// @param capacity  Its size in bytes.
/// @return The length of the whole message without the NUL, whatever `capacity` is.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_last_error_copy(buffer: *mut c_char, capacity: usize) -> usize {
    guard::value(0, || {
        LAST.with(|last| {
            // SAFETY: this thread's own memory; contract B for the buffer.
            let text = unsafe { &(*last.get()).text };
            let length = text.iter().position(|&byte| byte == 0).unwrap_or(CAPACITY - 1);
            if capacity > 0 {
                // SAFETY: contract B; the length is below the capacity.
                unsafe { arg::copy_text(&text[..length], buffer.cast::<c_void>(), capacity, "buffer")? };
            }
            Ok(length)
        })
    })
}
