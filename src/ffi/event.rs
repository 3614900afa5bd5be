//! Events.

use super::lock::{TINE_OPEN_OR_CREATE, tine_lock_options_t};
use super::status::tine_status_t;
use super::{arg, guard, handle, options};
use crate::sync::Event;

/// A flag to wait for: between processes and between threads.
pub struct tine_event_t(pub(super) Event);

/// How to make an event; there are no flags but TINE_OPEN_OR_CREATE.
pub type tine_event_options_t = tine_lock_options_t;

/// Makes an event that is not set.
///
/// @param options    NULL = defaults.
/// @param out_event  The new event; free it with tine_event_free().
/// @return TINE_OK; TINE_EINVAL: unknown flags, not a name, or the name of another kind of object; TINE_EEXIST: the name is taken;
///         TINE_EPERM: by another user; what else tine_event_open() answers; TINE_ENOMEM, TINE_ENOSPC, TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_event_new(
    options: *const tine_event_options_t,
    out_event: *mut *mut tine_event_t,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract O.
        let (options, out) = unsafe { (options::read(options)?, arg::out(out_event, "out_event")?) };
        arg::flags(options.reserved, 0, "options.reserved")?;
        let flags = arg::flags(options.flags, TINE_OPEN_OR_CREATE, "options.flags")?;
        // SAFETY: contract S.
        let naming = unsafe { arg::naming(options.name, flags)? };
        let event = Event::named(&naming)?;
        // SAFETY: checked by `arg::out`.
        unsafe { handle::create(tine_event_t(event), out) };
        Ok(())
    })
}

/// Sets an event: releases everybody who waits, also if it is cleared at once.
///
/// @param event  The event.
/// @return TINE_OK; TINE_ETIMEDOUT: for 10 s a process was inside a call on this event, stopped there, or its shared memory was written
///         over.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_event_set(event: *mut tine_event_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        unsafe { handle::borrow(event, "event")? }.0.set()
    })
}

/// Clears an event: who waits from now on waits for the next set.
///
/// @param event  The event.
/// @return TINE_OK.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_event_clear(event: *mut tine_event_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        unsafe { handle::borrow(event, "event")? }.0.clear();
        Ok(())
    })
}

/// Waits until an event is set.
///
/// @param event       The event.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @return TINE_OK; TINE_ETIMEDOUT; TINE_EINTR.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_event_wait(event: *mut tine_event_t, timeout_ms: i64) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        let event = unsafe { handle::borrow(event, "event")? };
        event.0.wait(&arg::deadline(timeout_ms)?)
    })
}

/// Whether an event is set at this moment.
///
/// @param event  The event; NULL answers false.
/// @return true if it is set.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_event_is_set(event: *const tine_event_t) -> bool {
    guard::value(false, || {
        // SAFETY: contract H.
        let event = unsafe { handle::borrow(event, "event")? };
        Ok(event.0.is_set())
    })
}

/// Frees this process's handle; others keep theirs.
///
/// @param event  The event; NULL is fine.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_event_free(event: *mut tine_event_t) {
    // SAFETY: contract H.
    guard::release(|| unsafe { handle::free(event) });
}
