//! Blocks of shared memory for the caller's own data, and small locks inside them: the boundary is here, the object comes with a
//! later version.

use std::ffi::{c_char, c_void};
use std::ptr;

use super::guard;
use super::lock::{tine_lock_options_t, tine_lock_t};
use super::semaphore::tine_semaphore_t;
use super::status::tine_status_t;

/// A block of memory that several processes see.
pub struct tine_shared_memory_t(());

/// How to make a block of shared memory; there are no flags but TINE_OPEN_OR_CREATE.
pub type tine_shared_memory_options_t = tine_lock_options_t;

/// Makes a block of shared memory, all zeros.
///
/// @param length      Its length in bytes.
/// @param options     NULL = defaults.
/// @param out_memory  The new block; free it with tine_shared_memory_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_shared_memory_new(
    length: usize,
    options: *const tine_shared_memory_options_t,
    out_memory: *mut *mut tine_shared_memory_t,
) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_shared_memory_new"))
}

/// The address of the block in this process.
///
/// @param memory  The block.
/// @return Always NULL: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_shared_memory_data(memory: *mut tine_shared_memory_t) -> *mut c_void {
    guard::value(ptr::null_mut(), || guard::not_yet("tine_shared_memory_data"))
}

/// The length of the block, exactly what was asked for.
///
/// @param memory  The block.
/// @return Always 0: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_shared_memory_length(memory: *const tine_shared_memory_t) -> usize {
    guard::value(0, || guard::not_yet("tine_shared_memory_length"))
}

/// The name of the block.
///
/// @param memory  The block.
/// @return Always NULL: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_shared_memory_name(memory: *const tine_shared_memory_t) -> *const c_char {
    guard::value(ptr::null(), || guard::not_yet("tine_shared_memory_name"))
}

/// Frees this process's handle and mapping; others keep theirs.
///
/// @param memory  The block; NULL is fine.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_shared_memory_free(memory: *mut tine_shared_memory_t) {
    guard::release(|| {});
}

/// Bytes that a lock takes inside a block of shared memory.
///
/// @return Always 0: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub extern "C" fn tine_lock_footprint() -> usize {
    guard::value(0, || guard::not_yet("tine_lock_footprint"))
}

/// Makes a lock inside the caller's block of shared memory, next to the data that it guards.
///
/// @param memory    The block.
/// @param offset    Where in the block, in bytes; a multiple of 8.
/// @param options   NULL = a plain lock.
/// @param out_lock  The lock; free it with tine_lock_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_lock_new_in(
    memory: *mut tine_shared_memory_t,
    offset: usize,
    options: *const tine_lock_options_t,
    out_lock: *mut *mut tine_lock_t,
) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_lock_new_in"))
}

/// A handle for a lock that tine_lock_new_in() made, in this or another process.
///
/// @param memory    The block.
/// @param offset    Where in the block, in bytes; a multiple of 8.
/// @param out_lock  The lock; free it with tine_lock_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_lock_at(
    memory: *mut tine_shared_memory_t,
    offset: usize,
    out_lock: *mut *mut tine_lock_t,
) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_lock_at"))
}

/// Bytes that a semaphore takes inside a block of shared memory.
///
/// @return Always 0: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub extern "C" fn tine_semaphore_footprint() -> usize {
    guard::value(0, || guard::not_yet("tine_semaphore_footprint"))
}

/// Makes a semaphore inside the caller's block of shared memory.
///
/// @param memory         The block.
/// @param offset         Where in the block, in bytes; a multiple of 8.
/// @param initial        Permits that are there at first.
/// @param maximum        Permits that may be there; 0 = no bound.
/// @param out_semaphore  The semaphore; free it with tine_semaphore_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_semaphore_new_in(
    memory: *mut tine_shared_memory_t,
    offset: usize,
    initial: u32,
    maximum: u32,
    out_semaphore: *mut *mut tine_semaphore_t,
) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_semaphore_new_in"))
}

/// A handle for a semaphore that tine_semaphore_new_in() made, in this or another process.
///
/// @param memory         The block.
/// @param offset         Where in the block, in bytes; a multiple of 8.
/// @param out_semaphore  The semaphore; free it with tine_semaphore_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_semaphore_at(
    memory: *mut tine_shared_memory_t,
    offset: usize,
    out_semaphore: *mut *mut tine_semaphore_t,
) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_semaphore_at"))
}
