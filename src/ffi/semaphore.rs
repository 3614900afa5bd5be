//! Semaphores.

use super::lock::{TINE_OPEN_OR_CREATE, tine_lock_options_t};
use super::status::tine_status_t;
use super::{arg, guard, handle, options};
use crate::sync::Semaphore;

/// A counting semaphore: between processes and between threads.
pub struct tine_semaphore_t(pub(super) Semaphore);

/// Permits belong to the threads that acquired them and come back when those die; only they release them. There are as many as `initial`
/// says, at most 16,384, and one thread has at most 256. A permit of the dead is there for who waits within a tenth of a second.
pub const TINE_SEMAPHORE_TRACKED: u32 = 1;

/// How to make a semaphore; flags are TINE_SEMAPHORE_* and TINE_OPEN_OR_CREATE.
pub type tine_semaphore_options_t = tine_lock_options_t;

/// Makes a semaphore.
///
/// @param initial        Permits that are there at first; with TINE_SEMAPHORE_TRACKED all that there ever are.
/// @param maximum        Permits that may be there; 0 = no bound (2,147,483,647).
/// @param options        NULL = defaults.
/// @param out_semaphore  The new semaphore; free it with tine_semaphore_free().
/// @return TINE_OK; TINE_EINVAL: initial above maximum or above 16,384 tracked permits, unknown flags, not a name, or the name of
///         another kind of object; TINE_EEXIST: the name is taken; TINE_EPERM: by another user; what else tine_semaphore_open()
///         answers; TINE_ENOMEM, TINE_ENOSPC, TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_semaphore_new(
    initial: u32,
    maximum: u32,
    options: *const tine_semaphore_options_t,
    out_semaphore: *mut *mut tine_semaphore_t,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract O.
        let (options, out) = unsafe { (options::read(options)?, arg::out(out_semaphore, "out_semaphore")?) };
        arg::flags(options.reserved, 0, "options.reserved")?;
        let flags = arg::flags(options.flags, TINE_SEMAPHORE_TRACKED | TINE_OPEN_OR_CREATE, "options.flags")?;
        // SAFETY: contract S.
        let naming = unsafe { arg::naming(options.name, flags)? };
        let tracked = flags & TINE_SEMAPHORE_TRACKED != 0;
        let semaphore = if tracked {
            Semaphore::new_tracked(&naming, initial, maximum)?
        } else {
            Semaphore::named(&naming, initial, maximum)?
        };
        // SAFETY: checked by `arg::out`.
        unsafe { handle::create(tine_semaphore_t(semaphore), out) };
        Ok(())
    })
}

/// Takes one permit, waiting while there is none.
///
/// @param semaphore   The semaphore.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @return TINE_OK; TINE_ETIMEDOUT; TINE_EAGAIN: this thread holds 256 locks, or tracked permits; TINE_ECORRUPT: its shared memory was
///         written over; TINE_EINTR.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_semaphore_acquire(semaphore: *mut tine_semaphore_t, timeout_ms: i64) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        let semaphore = unsafe { handle::borrow(semaphore, "semaphore")? };
        semaphore.0.acquire(&arg::deadline(timeout_ms)?)
    })
}

/// Adds permits; any thread of any process may. Tracked permits are given back by the thread that has them.
///
/// @param semaphore  The semaphore.
/// @param count      How many; 0 changes nothing.
/// @return TINE_OK; TINE_EOVERFLOW: above the maximum, nothing was added; TINE_ENOTOWNER: this thread does not have so many tracked
///         permits, nothing was given back; TINE_ECORRUPT: given back, but the shared memory was written over; TINE_ETIMEDOUT, nothing added: for 10 s a process was inside a
///         call on this semaphore, stopped there, or its shared memory was written over.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_semaphore_release(semaphore: *mut tine_semaphore_t, count: u32) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        let semaphore = unsafe { handle::borrow(semaphore, "semaphore")? };
        semaphore.0.release(count)
    })
}

/// Permits that are there at this moment.
///
/// @param semaphore  The semaphore; NULL answers 0.
/// @return The number.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_semaphore_value(semaphore: *const tine_semaphore_t) -> u32 {
    guard::value(0, || {
        // SAFETY: contract H.
        let semaphore = unsafe { handle::borrow(semaphore, "semaphore")? };
        Ok(semaphore.0.value())
    })
}

/// Frees this process's handle; others keep theirs.
///
/// @param semaphore  The semaphore; NULL is fine.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_semaphore_free(semaphore: *mut tine_semaphore_t) {
    // SAFETY: contract H.
    guard::release(|| unsafe { handle::free(semaphore) });
}
