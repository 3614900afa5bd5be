//! Barriers: the boundary is here, the object comes with a later version.

use std::ffi::{c_char, c_void};

use super::guard;
use super::status::tine_status_t;

/// A meeting point for a number of parties: between processes and between threads.
pub struct tine_barrier_t(());

/// How to make a barrier.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tine_barrier_options_t {
    /// Set by the INIT macro.
    pub size: usize,
    /// NULL = no name: reached by inheritance.
    pub name: *const c_char,
    /// Called by one of the parties when all have come, before they are released. NULL = nothing.
    pub action: Option<unsafe extern "C" fn(user_data: *mut c_void)>,
    /// Passed on to `action`.
    pub user_data: *mut c_void,
    /// TINE_OPEN_OR_CREATE
    pub flags: u32,
    /// 0
    pub reserved: u32,
}

/// Makes a barrier.
///
/// @param parties      How many meet.
/// @param options      NULL = defaults.
/// @param out_barrier  The new barrier; free it with tine_barrier_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_barrier_new(
    parties: u32,
    options: *const tine_barrier_options_t,
    out_barrier: *mut *mut tine_barrier_t,
) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_barrier_new"))
}

/// Waits until all parties have come.
///
/// Who runs out of time breaks the barrier for the others, and so does a party that dies while it waits.
///
/// @param barrier     The barrier.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @param out_index   0 to parties - 1, each once a round. May be NULL.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_barrier_wait(barrier: *mut tine_barrier_t, timeout_ms: i64, out_index: *mut u32) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_barrier_wait"))
}

/// Begins a new round: who waits gets TINE_EBROKEN, a broken barrier works again.
///
/// @param barrier  The barrier.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_barrier_reset(barrier: *mut tine_barrier_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_barrier_reset"))
}

/// Breaks the barrier: who waits or comes gets TINE_EBROKEN until it is reset.
///
/// @param barrier  The barrier.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_barrier_abort(barrier: *mut tine_barrier_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_barrier_abort"))
}

/// How many meet.
///
/// @param barrier  The barrier.
/// @return Always 0: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_barrier_parties(barrier: *const tine_barrier_t) -> u32 {
    guard::value(0, || guard::not_yet("tine_barrier_parties"))
}

/// How many wait at this moment.
///
/// @param barrier  The barrier.
/// @return Always 0: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_barrier_waiting(barrier: *const tine_barrier_t) -> u32 {
    guard::value(0, || guard::not_yet("tine_barrier_waiting"))
}

/// Whether the barrier is broken.
///
/// @param barrier  The barrier.
/// @return Always false: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_barrier_is_broken(barrier: *const tine_barrier_t) -> bool {
    guard::value(false, || guard::not_yet("tine_barrier_is_broken"))
}

/// Frees this process's handle; others keep theirs.
///
/// @param barrier  The barrier; NULL is fine.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_barrier_free(barrier: *mut tine_barrier_t) {
    guard::release(|| {});
}
