//! From C arguments to Rust values, checked: the only place that makes slices and strings of the caller's pointers.

use std::ffi::{CStr, c_char, c_void};
use std::slice;

use super::file_lock::{TINE_FILE_LOCK_EXCLUSIVE, TINE_FILE_LOCK_SHARED};
use super::handle::null;
use super::lock::TINE_OPEN_OR_CREATE;
use crate::error::{Error, Kind, Result};
use crate::shm::{Name, Naming};
use crate::sync::file_lock::Mode;
use crate::sys::Deadline;
use crate::sys::heap::Growing;
use crate::timeout::Timeout;

/// The caller's bytes; NULL with length 0 is empty.
#[inline]
pub(super) unsafe fn bytes<'a>(data: *const c_void, len: usize, name: &'static str) -> Result<&'a [u8]> {
    // SAFETY: contract B.
    unsafe { array(data.cast(), len, name) }
}

/// The caller's buffer, which need not be initialised: only ever written.
#[inline]
pub(super) unsafe fn buffer<'a>(
    data: *mut c_void,
    capacity: usize,
    name: &'static str,
) -> Result<&'a mut [std::mem::MaybeUninit<u8>]> {
    if data.is_null() {
        return if capacity == 0 { Ok(&mut []) } else { Err(null(name)) };
    }
    if capacity > isize::MAX as usize {
        return Err(Error::invalid(format!("{name}: a capacity of {capacity} bytes is impossible")));
    }
    // SAFETY: contract B.
    Ok(unsafe { slice::from_raw_parts_mut(data.cast(), capacity) })
}

/// The caller's array of `count` elements; NULL with 0 is empty.
#[inline]
pub(super) unsafe fn array<'a, T>(data: *const T, count: usize, name: &'static str) -> Result<&'a [T]> {
    if data.is_null() {
        return if count == 0 { Ok(&[]) } else { Err(null(name)) };
    }
    if count > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Error::invalid(format!("{name}: a length of {count} is impossible")));
    }
    // SAFETY: contract B, for elements.
    Ok(unsafe { slice::from_raw_parts(data, count) })
}

/// A string that may be NULL.
pub(super) unsafe fn optional_text<'a>(text: *const c_char) -> Option<&'a CStr> {
    // SAFETY: contract S.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

/// A required string.
pub(super) unsafe fn text<'a>(text: *const c_char, name: &'static str) -> Result<&'a CStr> {
    // SAFETY: contract S.
    unsafe { optional_text(text) }.ok_or_else(|| null(name))
}

/// TINE_FILE_LOCK_*
pub(super) fn lock_mode(mode: u32) -> Result<Mode> {
    match mode {
        TINE_FILE_LOCK_SHARED => Ok(Mode::Shared),
        TINE_FILE_LOCK_EXCLUSIVE => Ok(Mode::Exclusive),
        _ => Err(Error::invalid(format!("mode: {mode} is neither TINE_FILE_LOCK_SHARED nor TINE_FILE_LOCK_EXCLUSIVE"))),
    }
}

/// A required output.
#[inline]
pub(super) fn out<T>(out: *mut T, name: &'static str) -> Result<*mut T> {
    if out.is_null() { Err(null(name)) } else { Ok(out) }
}

/// Fills an output that may be NULL.
#[inline]
pub(super) unsafe fn put<T>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: contract O.
        unsafe { out.write(value) };
    }
}

/// Gives what was captured to the caller, or frees it where nobody wants it.
pub(super) unsafe fn hand_out(captured: Growing, out_data: *mut *mut c_void, out_len: *mut usize) {
    let length = captured.length();
    // SAFETY: contract O.
    unsafe {
        if !out_data.is_null() {
            out_data.write(captured.hand_out().0);
        }
        put(out_len, length);
    }
}

/// The caller's `timeout_ms`.
#[inline]
pub(super) fn timeout(timeout_ms: i64) -> Result<Timeout> {
    Timeout::from_millis(timeout_ms)
}

/// The same for calls that wait in more than one place: the end of the whole call.
#[inline]
pub(super) fn deadline(timeout_ms: i64) -> Result<Deadline> {
    Timeout::from_millis(timeout_ms).map(Deadline::new)
}

/// Whether the former takes it.
#[inline(always)]
pub(super) fn is_timeout(timeout_ms: i64) -> bool {
    timeout_ms >= -1
}

/// A time that is called otherwise.
pub(super) fn time(millis: i64, name: &'static str) -> Result<Timeout> {
    Timeout::of_argument(millis, name)
}

/// Only the bits in `known` may be set.
pub(super) fn flags(flags: u32, known: u32, name: &'static str) -> Result<u32> {
    match flags & !known {
        0 => Ok(flags),
        unknown => Err(Error::invalid(format!("{name}: unknown bits {unknown:#x}"))),
    }
}

/// A required callback.
pub(super) fn callback<F>(callback: Option<F>, name: &'static str) -> Result<F> {
    callback.ok_or_else(|| null(name))
}

/// Copies a text into a caller's buffer, cut off where it does not fit, NUL-terminated. `capacity` is not 0.
pub(super) unsafe fn copy_text(text: &[u8], buffer: *mut c_void, capacity: usize, name: &'static str) -> Result<()> {
    // SAFETY: forwarded.
    let buffer = unsafe { self::buffer(buffer, capacity, name)? };
    let length = text.len().min(capacity - 1);
    for (to, &from) in buffer.iter_mut().zip(text[..length].iter().chain([&0])) {
        to.write(from);
    }
    Ok(())
}

/// The length that a call came to, also the one that would have been enough.
pub(super) unsafe fn length(out_len: *mut usize, result: Result<usize>) -> Result<()> {
    match result {
        // SAFETY: contract O.
        Ok(length) => unsafe { put(out_len, length) },
        Err(error) => {
            if error.kind() == Kind::TooSmall {
                // SAFETY: contract O.
                unsafe { put(out_len, error.needed()) };
            }
            return Err(error);
        }
    }
    Ok(())
}

/// The name of an object.
pub(super) unsafe fn name(name: *const c_char) -> Result<Name> {
    // SAFETY: contract S.
    unsafe { optional_text(name) }.ok_or_else(|| null("name")).and_then(Name::new)
}

/// What the options of a constructor say about names.
pub(super) unsafe fn naming(name: *const c_char, flags: u32) -> Result<Naming> {
    let opens = flags & TINE_OPEN_OR_CREATE != 0;
    // SAFETY: contract S.
    match unsafe { optional_text(name) } {
        Some(text) if opens => Name::new(text).map(Naming::OpenOrCreate),
        Some(text) => Name::new(text).map(Naming::New),
        None if opens => Err(Error::invalid("options.flags: TINE_OPEN_OR_CREATE needs a name")),
        None => Ok(Naming::None),
    }
}

/// For objects that lie in a block: they are found by their place.
pub(super) fn no_name(name: *const c_char) -> Result<()> {
    if name.is_null() { Ok(()) } else { Err(Error::invalid("options.name: an object inside a block has no name of its own")) }
}

/// The length of `count` things of `size` bytes.
pub(super) fn product(size: usize, count: usize, name: &'static str) -> Result<usize> {
    let product = size.checked_mul(count).filter(|&product| product <= isize::MAX as usize);
    product.ok_or_else(|| Error::invalid(format!("{name}: {count} of {size} bytes are impossible")))
}
