//! Conditions: the boundary is here, the object comes with a later version.

use super::guard;
use super::lock::{tine_lock_options_t, tine_lock_t};
use super::status::tine_status_t;

/// A condition variable: between processes and between threads.
pub struct tine_condition_t(());

/// How to make a condition; there are no flags.
pub type tine_condition_options_t = tine_lock_options_t;

/// Makes a condition.
///
/// @param options        NULL = defaults.
/// @param out_condition  The new condition; free it with tine_condition_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_condition_new(
    options: *const tine_condition_options_t,
    out_condition: *mut *mut tine_condition_t,
) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_condition_new"))
}

/// Releases a lock, waits for a notification and acquires the lock again.
///
/// All levels of a recursive lock are given up and restored. The timeout bounds the wait, not the acquiring after it.
///
/// @param condition   The condition.
/// @param lock        A lock that the calling thread has.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_condition_wait(
    condition: *mut tine_condition_t,
    lock: *mut tine_lock_t,
    timeout_ms: i64,
) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_condition_wait"))
}

/// Wakes some of those who wait at this moment; waits for nobody.
///
/// @param condition  The condition.
/// @param count      How many at most.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_condition_notify(condition: *mut tine_condition_t, count: u32) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_condition_notify"))
}

/// Wakes all who wait at this moment; waits for nobody.
///
/// @param condition  The condition.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_condition_notify_all(condition: *mut tine_condition_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_condition_notify_all"))
}

/// Frees this process's handle; others keep theirs.
///
/// @param condition  The condition; NULL is fine.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_condition_free(condition: *mut tine_condition_t) {
    guard::release(|| {});
}
