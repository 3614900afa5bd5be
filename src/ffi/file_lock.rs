//! File locks: the boundary is here, the object comes with a later version.

use std::ffi::c_char;

use super::guard;
use super::status::tine_status_t;

/// A lock on a file, for programs that share nothing but a path.
///
/// Only the process that acquired it can release it; a forked child's copy is inert.
pub struct tine_file_lock_t(());

/// Any number may hold it so at once.
pub const TINE_FILE_LOCK_SHARED: u32 = 1;
/// Nobody else holds it.
pub const TINE_FILE_LOCK_EXCLUSIVE: u32 = 2;

/// Opens a file to lock it, and creates it if it is missing.
///
/// @param path      The file.
/// @param out_lock  The new lock, not held; free it with tine_file_lock_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_file_lock_new(path: *const c_char, out_lock: *mut *mut tine_file_lock_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_file_lock_new"))
}

/// Acquires a file lock, waiting while others hold it.
///
/// @param lock        The lock.
/// @param mode        TINE_FILE_LOCK_SHARED or TINE_FILE_LOCK_EXCLUSIVE.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_file_lock_acquire(lock: *mut tine_file_lock_t, mode: u32, timeout_ms: i64) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_file_lock_acquire"))
}

/// Releases a file lock.
///
/// @param lock  The lock.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_file_lock_release(lock: *mut tine_file_lock_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_file_lock_release"))
}

/// Releases a file lock if this handle holds it, and frees the handle. The file stays.
///
/// @param lock  The lock; NULL is fine.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_file_lock_free(lock: *mut tine_file_lock_t) {
    guard::release(|| {});
}
