//! Opaque handles: a box that C holds by its address.
//!
//! Borrowing costs nothing; a count on every call would. The core's objects are cheap to clone (they count what lies behind them),
//! and calls that sleep clone theirs before they do. So `tine_x_close(x); tine_x_free(x);` is safe while other threads are still
//! leaving a blocked call on `x`.

use crate::error::{Error, Result};

/// Gives a new handle to the caller. `out` was checked by `arg::out`.
pub(super) unsafe fn create<T>(value: T, out: *mut *mut T) {
    // SAFETY: contract O.
    unsafe { out.write(Box::into_raw(Box::new(value))) };
}

/// The object behind a handle, for the duration of a call.
#[inline]
pub(super) unsafe fn borrow<'a, T>(handle: *const T, name: &'static str) -> Result<&'a T> {
    // SAFETY: contract H.
    unsafe { handle.as_ref() }.ok_or_else(|| null(name))
}

/// Gives up the caller's handle; NULL is fine.
pub(super) unsafe fn free<T>(handle: *mut T) {
    if !handle.is_null() {
        // SAFETY: contract H; it came from `create` and is not used again.
        drop(unsafe { Box::from_raw(handle) });
    }
}

#[cold]
pub(super) fn null(name: &'static str) -> Error {
    Error::invalid(format!("{name} is NULL"))
}
