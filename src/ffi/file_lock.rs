//! File locks.

use std::ffi::c_char;

use super::status::tine_status_t;
use super::{arg, guard, handle};
use crate::sync::FileLock;

/// A lock on a file, for programs that share nothing but a path. It is advisory: it keeps out those who lock the file, too, by this
/// library or by flock-like locks of open files (F_OFD_SETLK), also other handles of the same process.
///
/// The end of the process that acquired it releases it. A forked child's copy of the handle is inert. A child that was forked while the lock was
/// held shares it, though: should the process that acquired it die, the file stays locked until the child has freed its copy or ended.
pub struct tine_file_lock_t(FileLock);

/// Any number may hold it so at once.
pub const TINE_FILE_LOCK_SHARED: u32 = 1;
/// Nobody else holds it.
pub const TINE_FILE_LOCK_EXCLUSIVE: u32 = 2;

/// Opens a file to lock it, and creates it if it is missing. It must be writable; what is in it stays.
///
/// @param path      The file.
/// @param out_lock  The new lock, not held; free it with tine_file_lock_free().
/// @return TINE_OK; TINE_EINVAL; TINE_ENOENT or TINE_ENOTDIR: no such directory; TINE_EACCES; TINE_EMFILE; TINE_ESYS.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_file_lock_new(path: *const c_char, out_lock: *mut *mut tine_file_lock_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract S.
        let path = unsafe { arg::text(path, "path")? };
        let out = arg::out(out_lock, "out_lock")?;
        let lock = FileLock::new(path)?;
        // SAFETY: contract O; checked by `arg::out`.
        unsafe { handle::create(tine_file_lock_t(lock), out) };
        Ok(())
    })
}

/// Acquires a file lock, waiting while others hold it. With a finite timeout it looks every 16 ms at least; without one the kernel wakes it.
///
/// @param lock        The lock.
/// @param mode        TINE_FILE_LOCK_SHARED or TINE_FILE_LOCK_EXCLUSIVE.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @return TINE_OK; TINE_ETIMEDOUT; TINE_EINVAL; TINE_EBUSY: this handle holds it already, or is acquiring it on another thread;
///         TINE_EFORKED: the handle is a parent's; TINE_ESYS: the file system has no locks; TINE_EINTR.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_file_lock_acquire(lock: *mut tine_file_lock_t, mode: u32, timeout_ms: i64) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        let lock = unsafe { handle::borrow(lock, "lock")? };
        lock.0.acquire(arg::lock_mode(mode)?, &arg::deadline(timeout_ms)?)
    })
}

/// Releases a file lock.
///
/// @param lock  The lock.
/// @return TINE_OK; TINE_ENOTOWNER: this handle does not hold it; TINE_EFORKED: the handle is a parent's.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_file_lock_release(lock: *mut tine_file_lock_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        unsafe { handle::borrow(lock, "lock")? }.0.release()
    })
}

/// Releases a file lock if this handle holds it, and frees the handle. The file stays.
///
/// @param lock  The lock; NULL is fine.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_file_lock_free(lock: *mut tine_file_lock_t) {
    // SAFETY: contract H.
    guard::release(|| unsafe { handle::free(lock) });
}
