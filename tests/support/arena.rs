//! Memory that the runner shares with its children, for what they report. It survives whoever dies, and is not the library's.

use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64};

/// What may lie in an arena.
///
/// # Safety
/// Made of atomics only; all zeros is a valid value.
pub unsafe trait Plain: Sync {}

// SAFETY: an atomic integer.
unsafe impl Plain for AtomicU8 {}
// SAFETY: an atomic integer.
unsafe impl Plain for AtomicU32 {}
// SAFETY: an atomic integer.
unsafe impl Plain for AtomicI32 {}
// SAFETY: an atomic integer.
unsafe impl Plain for AtomicU64 {}

/// `count` zeroed values that every child forked from now on shares; never unmapped.
pub fn slice<T: Plain>(count: usize) -> &'static [T] {
    let length = (size_of::<T>() * count).max(1);
    // SAFETY: a fresh mapping; nothing is replaced.
    let memory = unsafe {
        libc::mmap(
            ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    assert!(memory != libc::MAP_FAILED, "no memory for an arena of {length} bytes");
    // SAFETY: zeroed, page-aligned, mapped for ever; `Plain`.
    unsafe { std::slice::from_raw_parts(memory.cast(), count) }
}

/// One zeroed value.
pub fn value<T: Plain>() -> &'static T {
    &slice(1)[0]
}
