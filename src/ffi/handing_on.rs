//! How processes that did not inherit an object reach it, by token or by name: the boundary is here, the means come with a later
//! version.

use std::ffi::c_char;

use super::barrier::tine_barrier_t;
use super::condition::tine_condition_t;
use super::event::tine_event_t;
use super::guard;
use super::lock::tine_lock_t;
use super::queue::tine_queue_t;
use super::semaphore::tine_semaphore_t;
use super::shared_memory::tine_shared_memory_t;
use super::status::tine_status_t;

/// An object as bytes, to be sent to another process of the same user in the same pid namespace.
///
/// Valid while the process that made it lives and holds the object.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tine_token_t {
    /// Opaque.
    pub bytes: [u8; 32],
}

/// Makes a token of a queue.
///
/// @param object     The object.
/// @param out_token  The token.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_queue_token(object: *const tine_queue_t, out_token: *mut tine_token_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_queue_token"))
}

/// A handle for a queue of another process.
///
/// @param token       What tine_queue_token() made.
/// @param out_object  The object; free it with tine_queue_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_queue_attach(token: *const tine_token_t, out_object: *mut *mut tine_queue_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_queue_attach"))
}

/// A handle for a queue with a name.
///
/// @param name        Its name: [A-Za-z0-9._-]{1,200}.
/// @param out_object  The object; free it with tine_queue_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_queue_open(name: *const c_char, out_object: *mut *mut tine_queue_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_queue_open"))
}

/// Makes a token of a lock.
///
/// @param object     The object.
/// @param out_token  The token.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_lock_token(object: *const tine_lock_t, out_token: *mut tine_token_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_lock_token"))
}

/// A handle for a lock of another process.
///
/// @param token       What tine_lock_token() made.
/// @param out_object  The object; free it with tine_lock_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_lock_attach(token: *const tine_token_t, out_object: *mut *mut tine_lock_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_lock_attach"))
}

/// A handle for a lock with a name.
///
/// @param name        Its name: [A-Za-z0-9._-]{1,200}.
/// @param out_object  The object; free it with tine_lock_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_lock_open(name: *const c_char, out_object: *mut *mut tine_lock_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_lock_open"))
}

/// Makes a token of a semaphore.
///
/// @param object     The object.
/// @param out_token  The token.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_semaphore_token(object: *const tine_semaphore_t, out_token: *mut tine_token_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_semaphore_token"))
}

/// A handle for a semaphore of another process.
///
/// @param token       What tine_semaphore_token() made.
/// @param out_object  The object; free it with tine_semaphore_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_semaphore_attach(
    token: *const tine_token_t,
    out_object: *mut *mut tine_semaphore_t,
) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_semaphore_attach"))
}

/// A handle for a semaphore with a name.
///
/// @param name        Its name: [A-Za-z0-9._-]{1,200}.
/// @param out_object  The object; free it with tine_semaphore_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_semaphore_open(name: *const c_char, out_object: *mut *mut tine_semaphore_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_semaphore_open"))
}

/// Makes a token of an event.
///
/// @param object     The object.
/// @param out_token  The token.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_event_token(object: *const tine_event_t, out_token: *mut tine_token_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_event_token"))
}

/// A handle for an event of another process.
///
/// @param token       What tine_event_token() made.
/// @param out_object  The object; free it with tine_event_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_event_attach(token: *const tine_token_t, out_object: *mut *mut tine_event_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_event_attach"))
}

/// A handle for an event with a name.
///
/// @param name        Its name: [A-Za-z0-9._-]{1,200}.
/// @param out_object  The object; free it with tine_event_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_event_open(name: *const c_char, out_object: *mut *mut tine_event_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_event_open"))
}

/// Makes a token of a condition.
///
/// @param object     The object.
/// @param out_token  The token.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_condition_token(object: *const tine_condition_t, out_token: *mut tine_token_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_condition_token"))
}

/// A handle for a condition of another process.
///
/// @param token       What tine_condition_token() made.
/// @param out_object  The object; free it with tine_condition_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_condition_attach(
    token: *const tine_token_t,
    out_object: *mut *mut tine_condition_t,
) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_condition_attach"))
}

/// A handle for a condition with a name.
///
/// @param name        Its name: [A-Za-z0-9._-]{1,200}.
/// @param out_object  The object; free it with tine_condition_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_condition_open(name: *const c_char, out_object: *mut *mut tine_condition_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_condition_open"))
}

/// Makes a token of a barrier.
///
/// @param object     The object.
/// @param out_token  The token.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_barrier_token(object: *const tine_barrier_t, out_token: *mut tine_token_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_barrier_token"))
}

/// A handle for a barrier of another process.
///
/// @param token       What tine_barrier_token() made.
/// @param out_object  The object; free it with tine_barrier_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_barrier_attach(token: *const tine_token_t, out_object: *mut *mut tine_barrier_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_barrier_attach"))
}

/// A handle for a barrier with a name.
///
/// @param name        Its name: [A-Za-z0-9._-]{1,200}.
/// @param out_object  The object; free it with tine_barrier_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_barrier_open(name: *const c_char, out_object: *mut *mut tine_barrier_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_barrier_open"))
}

/// Makes a token of a block of shared memory.
///
/// @param object     The object.
/// @param out_token  The token.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_shared_memory_token(
    object: *const tine_shared_memory_t,
    out_token: *mut tine_token_t,
) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_shared_memory_token"))
}

/// A handle for a block of shared memory of another process.
///
/// @param token       What tine_shared_memory_token() made.
/// @param out_object  The object; free it with tine_shared_memory_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_shared_memory_attach(
    token: *const tine_token_t,
    out_object: *mut *mut tine_shared_memory_t,
) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_shared_memory_attach"))
}

/// A handle for a block of shared memory with a name.
///
/// @param name        Its name: [A-Za-z0-9._-]{1,200}.
/// @param out_object  The object; free it with tine_shared_memory_free().
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_shared_memory_open(
    name: *const c_char,
    out_object: *mut *mut tine_shared_memory_t,
) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_shared_memory_open"))
}

/// Removes a name. The object lives on until its last handle is freed.
///
/// @param name  The name of any object.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_unlink(name: *const c_char) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_unlink"))
}
