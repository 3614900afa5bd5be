//! Exceptions of other languages, C++ first of all, that come out of a user's function.
#![forbid(unsafe_code)]

use std::thread;

/// Calls `body`. An exception that is no panic ends the process by `leave`, while the frames above are being cleaned up: std would
/// catch it further down, say so on the host's stderr, and abort.
pub fn guard<T>(leave: fn() -> !, body: impl FnOnce() -> T) -> T {
    let guard = Leave(leave);
    let value = body();
    std::mem::forget(guard);
    value
}

struct Leave(fn() -> !);

impl Drop for Leave {
    fn drop(&mut self) {
        if !thread::panicking() {
            (self.0)();
        }
    }
}
