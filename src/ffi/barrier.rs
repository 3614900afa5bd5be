//! Barriers.

use std::ffi::{c_char, c_void};
use std::ptr;

use super::lock::TINE_OPEN_OR_CREATE;
use super::options::Sized0;
use super::status::tine_status_t;
use super::{arg, guard, handle, options};
use crate::sync::Barrier;

/// A meeting point for a number of parties: between processes and between threads.
pub struct tine_barrier_t(pub(super) Barrier, pub(super) Action);

/// What the options ask to run in one of the parties.
#[derive(Clone, Copy)]
pub(super) struct Action {
    function: Option<unsafe extern "C" fn(user_data: *mut c_void)>,
    user_data: *mut c_void,
}

impl Action {
    /// A handle that no options made has none.
    pub(super) const NONE: Action = Action { function: None, user_data: ptr::null_mut() };
}

/// How to make a barrier.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tine_barrier_options_t {
    /// Set by the INIT macro.
    pub size: usize,
    /// NULL = no name: reached by inheritance or by a token. A name is [A-Za-z0-9._-]{1,200}; it and the barrier behind it stay until
    /// tine_unlink().
    pub name: *const c_char,
    /// Called by one of the parties when all have come, before they are released. NULL = nothing. It belongs to this handle and to those
    /// that are inherited from it: a party that comes last by a handle of tine_barrier_attach() or tine_barrier_open() calls nothing.
    /// With a name, give every party its action by tine_barrier_new() and TINE_OPEN_OR_CREATE.
    pub action: Option<unsafe extern "C" fn(user_data: *mut c_void)>,
    /// Passed on to `action`.
    pub user_data: *mut c_void,
    /// TINE_OPEN_OR_CREATE
    pub flags: u32,
    /// 0
    pub reserved: u32,
}

// SAFETY: repr(C), `size` first, no padding, zeros are defaults.
unsafe impl Sized0 for tine_barrier_options_t {
    const NAME: &'static str = "options";
}

/// Makes a barrier.
///
/// @param parties      How many meet: 1 to 16,384. One that is opened by its name keeps its own number: see tine_barrier_parties().
/// @param options      NULL = defaults.
/// @param out_barrier  The new barrier; free it with tine_barrier_free().
/// @return TINE_OK; TINE_EINVAL: parties, unknown flags, not a name, or the name of another kind of object; TINE_EEXIST: the name is
///         taken; TINE_EPERM: by another user; what else tine_barrier_open() answers; TINE_ENOMEM, TINE_ENOSPC, TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_barrier_new(
    parties: u32,
    options: *const tine_barrier_options_t,
    out_barrier: *mut *mut tine_barrier_t,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract O.
        let (options, out) = unsafe { (options::read(options)?, arg::out(out_barrier, "out_barrier")?) };
        arg::flags(options.reserved, 0, "options.reserved")?;
        let flags = arg::flags(options.flags, TINE_OPEN_OR_CREATE, "options.flags")?;
        // SAFETY: contract S.
        let naming = unsafe { arg::naming(options.name, flags)? };
        let barrier = Barrier::named(&naming, parties)?;
        let action = Action { function: options.action, user_data: options.user_data };
        // SAFETY: checked by `arg::out`.
        unsafe { handle::create(tine_barrier_t(barrier, action), out) };
        Ok(())
    })
}

/// Waits until all parties have come.
///
/// Who runs out of time breaks the barrier for the others, and so does a party that dies while it waits: the others know within a tenth of
/// a second. Whoever is interrupted by the interrupt check was never there. Late arrivals of more threads than parties wait until the others
/// have left.
///
/// @param barrier     The barrier.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit. The action is not bounded by it.
/// @param out_index   0 to parties - 1, each once a round. May be NULL.
/// @return TINE_OK: all have come, and the action has run; TINE_ETIMEDOUT; TINE_EBROKEN: another party ran out of time or died, or the barrier
///         was aborted or reset; TINE_EAGAIN: this thread holds 256 locks; TINE_ECORRUPT: the shared memory was written over; TINE_EINTR.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_barrier_wait(barrier: *mut tine_barrier_t, timeout_ms: i64, out_index: *mut u32) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        let tine_barrier_t(barrier, action) = unsafe { handle::borrow(barrier, "barrier")? };
        // SAFETY: contract C.
        let mut run = action.function.map(|function| move || unsafe { function(action.user_data) });
        let run = run.as_mut().map(|run| run as &mut dyn FnMut());
        let index = barrier.wait(&arg::deadline(timeout_ms)?, run)?;
        // SAFETY: contract O.
        unsafe { arg::put(out_index, index) };
        Ok(())
    })
}

/// Puts a barrier back to its beginning; who waits gets TINE_EBROKEN.
///
/// @param barrier  The barrier.
/// @return TINE_OK; TINE_ETIMEDOUT: for 10 s a process was inside a call on this barrier, stopped there, or its shared memory was written
///         over.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_barrier_reset(barrier: *mut tine_barrier_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        unsafe { handle::borrow(barrier, "barrier")? }.0.reset()
    })
}

/// Breaks the barrier: who waits or comes gets TINE_EBROKEN until it is reset.
///
/// @param barrier  The barrier.
/// @return As for tine_barrier_reset().
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_barrier_abort(barrier: *mut tine_barrier_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        unsafe { handle::borrow(barrier, "barrier")? }.0.abort()
    })
}

/// How many meet.
///
/// @param barrier  The barrier; NULL answers 0.
/// @return The number of parties.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_barrier_parties(barrier: *const tine_barrier_t) -> u32 {
    guard::value(0, || {
        // SAFETY: contract H.
        Ok(unsafe { handle::borrow(barrier, "barrier")? }.0.parties())
    })
}

/// How many wait at this moment.
///
/// @param barrier  The barrier; NULL answers 0.
/// @return The number; 0 if it is broken.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_barrier_waiting(barrier: *const tine_barrier_t) -> u32 {
    guard::value(0, || {
        // SAFETY: contract H.
        Ok(unsafe { handle::borrow(barrier, "barrier")? }.0.waiting())
    })
}

/// Whether the barrier is broken.
///
/// @param barrier  The barrier; NULL answers false.
/// @return true if it is, also by a death that nobody has met yet.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_barrier_is_broken(barrier: *const tine_barrier_t) -> bool {
    guard::value(false, || {
        // SAFETY: contract H.
        Ok(unsafe { handle::borrow(barrier, "barrier")? }.0.is_broken())
    })
}

/// Frees this process's handle; others keep theirs.
///
/// @param barrier  The barrier; NULL is fine.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_barrier_free(barrier: *mut tine_barrier_t) {
    // SAFETY: contract H.
    guard::release(|| unsafe { handle::free(barrier) });
}
