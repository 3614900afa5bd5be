//! Memory that the library allocates for the caller: libc's, so that nothing has to remember its size.

use std::ffi::c_void;

use super::guard;
use crate::sys;

/// Frees what a call of the library allocated for the caller (`_alloc` calls, captured output).
///
/// @param memory  What the call returned; NULL is fine.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_free(memory: *mut c_void) {
    // SAFETY: handed out by `sys::heap` and not freed yet: the caller's promise.
    guard::release(|| unsafe { sys::heap::free(memory) });
}
