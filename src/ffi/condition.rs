//! Conditions.

use super::lock::{TINE_OPEN_OR_CREATE, tine_lock_options_t, tine_lock_t};
use super::status::tine_status_t;
use super::{arg, guard, handle, options};
use crate::sync::Condition;

/// A condition variable: between processes and between threads.
///
/// All who wait on it at a time use the same lock: they leave one after the other, each with that lock.
pub struct tine_condition_t(pub(super) Condition);

/// How to make a condition; the only flag is TINE_OPEN_OR_CREATE.
pub type tine_condition_options_t = tine_lock_options_t;

/// Makes a condition.
///
/// @param options        NULL = defaults.
/// @param out_condition  The new condition; free it with tine_condition_free().
/// @return TINE_OK; TINE_EINVAL: unknown flags, not a name, or the name of another kind of object; TINE_EEXIST: the name is taken;
///         TINE_EPERM: by another user; what else tine_condition_open() answers; TINE_ENOMEM, TINE_ENOSPC, TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_condition_new(
    options: *const tine_condition_options_t,
    out_condition: *mut *mut tine_condition_t,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract O.
        let (options, out) = unsafe { (options::read(options)?, arg::out(out_condition, "out_condition")?) };
        arg::flags(options.reserved, 0, "options.reserved")?;
        let flags = arg::flags(options.flags, TINE_OPEN_OR_CREATE, "options.flags")?;
        // SAFETY: contract S.
        let naming = unsafe { arg::naming(options.name, flags)? };
        let condition = Condition::named(&naming)?;
        // SAFETY: checked by `arg::out`.
        unsafe { handle::create(tine_condition_t(condition), out) };
        Ok(())
    })
}

/// Releases a lock, waits for a notification and acquires the lock again.
///
/// All levels of a recursive lock are given up and restored. The timeout bounds the wait, not the acquiring after it. Who dies before it has the
/// lock again leaves its notification to the next one who waits. A wait ends only by a notification, but what it was for may be gone by
/// the time that the lock is there: look in a loop.
///
/// @param condition   The condition.
/// @param lock        A lock that the calling thread has. It has it afterwards, too, except after TINE_EINVAL, TINE_ENOTOWNER, TINE_ECORRUPT.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @return TINE_OK; TINE_OWNER_DIED: the lock's owner died meanwhile, so check what the lock guards, whatever else ended the wait;
///         TINE_ETIMEDOUT; TINE_ENOTOWNER: this thread does not have the lock; TINE_EAGAIN: 255 threads wait already, or this thread holds
///         256 locks; TINE_ECORRUPT: the lock's shared memory was written over; TINE_EINTR.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_condition_wait(
    condition: *mut tine_condition_t,
    lock: *mut tine_lock_t,
    timeout_ms: i64,
) -> tine_status_t {
    guard::noted(|| {
        // SAFETY: contract H.
        let (condition, lock) = unsafe { (handle::borrow(condition, "condition")?, handle::borrow(lock, "lock")?) };
        condition.0.wait(&lock.0, &arg::deadline(timeout_ms)?)
    })
}

/// Wakes some of those who wait at this moment, the oldest first; waits for nobody. The caller may hold the lock and need not.
///
/// @param condition  The condition.
/// @param count      How many at most.
/// @return TINE_OK, also if nobody waits; TINE_ETIMEDOUT: for 10 s a process was inside a call on this condition, stopped there, or its
///         shared memory was written over.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_condition_notify(condition: *mut tine_condition_t, count: u32) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        unsafe { handle::borrow(condition, "condition")? }.0.notify(count)
    })
}

/// Wakes all who wait at this moment; waits for nobody. The caller may hold the lock and need not.
///
/// @param condition  The condition.
/// @return As for tine_condition_notify().
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_condition_notify_all(condition: *mut tine_condition_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        unsafe { handle::borrow(condition, "condition")? }.0.notify_all()
    })
}

/// Frees this process's handle; others keep theirs.
///
/// @param condition  The condition; NULL is fine.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_condition_free(condition: *mut tine_condition_t) {
    // SAFETY: contract H.
    guard::release(|| unsafe { handle::free(condition) });
}
