//! How processes that did not inherit an object reach it: by token or by name.

use std::ffi::c_char;

use super::barrier::{Action, tine_barrier_t};
use super::condition::tine_condition_t;
use super::event::tine_event_t;
use super::lock::tine_lock_t;
use super::queue::tine_queue_t;
use super::semaphore::tine_semaphore_t;
use super::shared_memory::tine_shared_memory_t;
use super::status::tine_status_t;
use super::{arg, guard, handle};
use crate::error::Result;
use crate::ipc::Queue;
use crate::shm::{HandedOn, Name, SharedMemory, Token};
use crate::sync::{Barrier, Condition, Event, Lock, Semaphore};

/// An object as bytes, for another process of the same user in the same pid namespace: an argument of a task, a message, a word of a
/// command line.
///
/// Valid while the process that made it lives and has not freed the handle that it was made of; so a token outlives neither. An object
/// that must outlive the process gets a name. The first token of a handle costs a descriptor until the handle is freed. Attaching an
/// object that this process has already gives another handle for the same memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tine_token_t {
    /// Opaque.
    pub bytes: [u8; 32],
}

/// Writes what a handle is handed on by.
unsafe fn hand_on(token: Result<Token>, out: *mut tine_token_t) -> Result<()> {
    // SAFETY: contract O.
    unsafe { out.write(tine_token_t { bytes: token?.to_bytes() }) };
    Ok(())
}

/// A new handle for what a token leads to.
unsafe fn attach<T>(token: *const tine_token_t, out: *mut *mut T, attach: impl FnOnce(&Token) -> Result<T>) -> Result<()> {
    // SAFETY: contracts B and O.
    let (token, out) = unsafe { (handle::borrow(token, "token")?, arg::out(out, "out_object")?) };
    let object = attach(&Token::from_bytes(&token.bytes)?)?;
    // SAFETY: checked by `arg::out`.
    unsafe { handle::create(object, out) };
    Ok(())
}

fn without_action(barrier: Barrier) -> tine_barrier_t {
    tine_barrier_t(barrier, Action::NONE)
}

/// A new handle for what has a name.
unsafe fn open<T>(name: *const c_char, out: *mut *mut T, open: impl FnOnce(&Name) -> Result<T>) -> Result<()> {
    // SAFETY: contracts S and O.
    let (name, out) = unsafe { (arg::name(name)?, arg::out(out, "out_object")?) };
    let object = open(&name)?;
    // SAFETY: checked by `arg::out`.
    unsafe { handle::create(object, out) };
    Ok(())
}

/// Makes a token of a queue.
///
/// @param object     The object.
/// @param out_token  The token.
/// @return TINE_OK; TINE_ENOTSUP: tokens need /proc of this pid namespace; TINE_ENOENT: this process has closed a descriptor of the
///         object; TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_token(object: *const tine_queue_t, out_token: *mut tine_token_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and O.
        unsafe {
            let object = handle::borrow(object, "object")?;
            hand_on(object.0.token(), arg::out(out_token, "out_token")?)
        }
    })
}

/// A handle for a queue of another process.
///
/// @param token       What tine_queue_token() made.
/// @param out_object  The object; free it with tine_queue_free().
/// @return TINE_OK; TINE_EINVAL: not a token, or of another kind of object; TINE_ENOENT: its maker has ended or freed the object;
///         TINE_EPERM: of another user; TINE_ENOTSUP: of another pid namespace or another version of the library, or there is no
///         /proc; TINE_ECORRUPT: the shared memory was written over; TINE_ENOMEM; TINE_EMFILE, also for the 257th TINE_QUEUE_POLLABLE
///         handle of this process.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_attach(token: *const tine_token_t, out_object: *mut *mut tine_queue_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts B and O.
        unsafe { attach(token, out_object, |token| Queue::attach(token).map(tine_queue_t)) }
    })
}

/// A handle for a queue with a name.
///
/// @param name        Its name: [A-Za-z0-9._-]{1,200}.
/// @param out_object  The object; free it with tine_queue_free().
/// @return TINE_OK; TINE_ENOENT: no such name; TINE_EINVAL: not a name, or of another kind of object; TINE_EPERM: of another user;
///         TINE_ENOTSUP: its users are in another pid namespace, it was made by another version of the library, or there is no /dev/shm;
///         TINE_ECORRUPT: its file was written over; TINE_EBUSY: a process was stopped inside of this call; TINE_ENOMEM, TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_open(name: *const c_char, out_object: *mut *mut tine_queue_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts S and O.
        unsafe { open(name, out_object, |name| Queue::open(name).map(tine_queue_t)) }
    })
}

/// Makes a token of a lock.
///
/// @param object     The object.
/// @param out_token  The token.
/// @return TINE_OK; TINE_ENOTSUP: tokens need /proc of this pid namespace; TINE_ENOENT: this process has closed the descriptor of the
///         object; TINE_EOVERFLOW: it lies beyond the first 32 GiB of its block; TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_lock_token(object: *const tine_lock_t, out_token: *mut tine_token_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and O.
        unsafe {
            let object = handle::borrow(object, "object")?;
            hand_on(object.0.token(), arg::out(out_token, "out_token")?)
        }
    })
}

/// A handle for a lock of another process.
///
/// @param token       What tine_lock_token() made.
/// @param out_object  The object; free it with tine_lock_free().
/// @return TINE_OK; TINE_EINVAL: not a token, or of another kind of object; TINE_ENOENT: its maker has ended or freed the object;
///         TINE_EPERM: of another user; TINE_ENOTSUP: of another pid namespace or another version of the library, or there is no
///         /proc; TINE_ECORRUPT: the shared memory was written over; TINE_ENOMEM, TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_lock_attach(token: *const tine_token_t, out_object: *mut *mut tine_lock_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts B and O.
        unsafe { attach(token, out_object, |token| Lock::attach(token).map(tine_lock_t)) }
    })
}

/// A handle for a lock with a name.
///
/// @param name        Its name: [A-Za-z0-9._-]{1,200}.
/// @param out_object  The object; free it with tine_lock_free().
/// @return TINE_OK; TINE_ENOENT: no such name; TINE_EINVAL: not a name, or of another kind of object; TINE_EPERM: of another user;
///         TINE_ENOTSUP: its users are in another pid namespace, it was made by another version of the library, or there is no /dev/shm;
///         TINE_ECORRUPT: its file was written over; TINE_EBUSY: a process was stopped inside of this call; TINE_ENOMEM, TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_lock_open(name: *const c_char, out_object: *mut *mut tine_lock_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts S and O.
        unsafe { open(name, out_object, |name| Lock::open(name).map(tine_lock_t)) }
    })
}

/// Makes a token of a semaphore.
///
/// @param object     The object.
/// @param out_token  The token.
/// @return TINE_OK; TINE_ENOTSUP: tokens need /proc of this pid namespace; TINE_ENOENT: this process has closed the descriptor of the
///         object; TINE_EOVERFLOW: it lies beyond the first 32 GiB of its block; TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_semaphore_token(object: *const tine_semaphore_t, out_token: *mut tine_token_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and O.
        unsafe {
            let object = handle::borrow(object, "object")?;
            hand_on(object.0.token(), arg::out(out_token, "out_token")?)
        }
    })
}

/// A handle for a semaphore of another process.
///
/// @param token       What tine_semaphore_token() made.
/// @param out_object  The object; free it with tine_semaphore_free().
/// @return TINE_OK; TINE_EINVAL: not a token, or of another kind of object; TINE_ENOENT: its maker has ended or freed the object;
///         TINE_EPERM: of another user; TINE_ENOTSUP: of another pid namespace or another version of the library, or there is no
///         /proc; TINE_ECORRUPT: the shared memory was written over; TINE_ENOMEM, TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_semaphore_attach(
    token: *const tine_token_t,
    out_object: *mut *mut tine_semaphore_t,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts B and O.
        unsafe { attach(token, out_object, |token| Semaphore::attach(token).map(tine_semaphore_t)) }
    })
}

/// A handle for a semaphore with a name.
///
/// @param name        Its name: [A-Za-z0-9._-]{1,200}.
/// @param out_object  The object; free it with tine_semaphore_free().
/// @return TINE_OK; TINE_ENOENT: no such name; TINE_EINVAL: not a name, or of another kind of object; TINE_EPERM: of another user;
///         TINE_ENOTSUP: its users are in another pid namespace, it was made by another version of the library, or there is no /dev/shm;
///         TINE_ECORRUPT: its file was written over; TINE_EBUSY: a process was stopped inside of this call; TINE_ENOMEM, TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_semaphore_open(name: *const c_char, out_object: *mut *mut tine_semaphore_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts S and O.
        unsafe { open(name, out_object, |name| Semaphore::open(name).map(tine_semaphore_t)) }
    })
}

/// Makes a token of an event.
///
/// @param object     The object.
/// @param out_token  The token.
/// @return TINE_OK; TINE_ENOTSUP: tokens need /proc of this pid namespace; TINE_ENOENT: this process has closed the descriptor of the
///         object; TINE_EOVERFLOW: it lies beyond the first 32 GiB of its block; TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_event_token(object: *const tine_event_t, out_token: *mut tine_token_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and O.
        unsafe {
            let object = handle::borrow(object, "object")?;
            hand_on(object.0.token(), arg::out(out_token, "out_token")?)
        }
    })
}

/// A handle for an event of another process.
///
/// @param token       What tine_event_token() made.
/// @param out_object  The object; free it with tine_event_free().
/// @return TINE_OK; TINE_EINVAL: not a token, or of another kind of object; TINE_ENOENT: its maker has ended or freed the object;
///         TINE_EPERM: of another user; TINE_ENOTSUP: of another pid namespace or another version of the library, or there is no
///         /proc; TINE_ECORRUPT: the shared memory was written over; TINE_ENOMEM, TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_event_attach(token: *const tine_token_t, out_object: *mut *mut tine_event_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts B and O.
        unsafe { attach(token, out_object, |token| Event::attach(token).map(tine_event_t)) }
    })
}

/// A handle for an event with a name.
///
/// @param name        Its name: [A-Za-z0-9._-]{1,200}.
/// @param out_object  The object; free it with tine_event_free().
/// @return TINE_OK; TINE_ENOENT: no such name; TINE_EINVAL: not a name, or of another kind of object; TINE_EPERM: of another user;
///         TINE_ENOTSUP: its users are in another pid namespace, it was made by another version of the library, or there is no /dev/shm;
///         TINE_ECORRUPT: its file was written over; TINE_EBUSY: a process was stopped inside of this call; TINE_ENOMEM, TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_event_open(name: *const c_char, out_object: *mut *mut tine_event_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts S and O.
        unsafe { open(name, out_object, |name| Event::open(name).map(tine_event_t)) }
    })
}

/// Makes a token of a condition.
///
/// @param object     The object.
/// @param out_token  The token.
/// @return TINE_OK; TINE_ENOTSUP: tokens need /proc of this pid namespace; TINE_ENOENT: this process has closed the descriptor of the
///         object; TINE_EOVERFLOW: it lies beyond the first 32 GiB of its block; TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_condition_token(object: *const tine_condition_t, out_token: *mut tine_token_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and O.
        unsafe {
            let object = handle::borrow(object, "object")?;
            hand_on(object.0.token(), arg::out(out_token, "out_token")?)
        }
    })
}

/// A handle for a condition of another process.
///
/// @param token       What tine_condition_token() made.
/// @param out_object  The object; free it with tine_condition_free().
/// @return TINE_OK; TINE_EINVAL: not a token, or of another kind of object; TINE_ENOENT: its maker has ended or freed the object;
///         TINE_EPERM: of another user; TINE_ENOTSUP: of another pid namespace or another version of the library, or there is no
///         /proc; TINE_ECORRUPT: the shared memory was written over; TINE_ENOMEM, TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_condition_attach(
    token: *const tine_token_t,
    out_object: *mut *mut tine_condition_t,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts B and O.
        unsafe { attach(token, out_object, |token| Condition::attach(token).map(tine_condition_t)) }
    })
}

/// A handle for a condition with a name.
///
/// @param name        Its name: [A-Za-z0-9._-]{1,200}.
/// @param out_object  The object; free it with tine_condition_free().
/// @return TINE_OK; TINE_ENOENT: no such name; TINE_EINVAL: not a name, or of another kind of object; TINE_EPERM: of another user;
///         TINE_ENOTSUP: its users are in another pid namespace, it was made by another version of the library, or there is no /dev/shm;
///         TINE_ECORRUPT: its file was written over; TINE_EBUSY: a process was stopped inside of this call; TINE_ENOMEM, TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_condition_open(name: *const c_char, out_object: *mut *mut tine_condition_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts S and O.
        unsafe { open(name, out_object, |name| Condition::open(name).map(tine_condition_t)) }
    })
}

/// Makes a token of a barrier.
///
/// @param object     The object.
/// @param out_token  The token.
/// @return TINE_OK; TINE_ENOTSUP: tokens need /proc of this pid namespace; TINE_ENOENT: this process has closed the descriptor of the
///         object; TINE_EOVERFLOW: it lies beyond the first 32 GiB of its block; TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_barrier_token(object: *const tine_barrier_t, out_token: *mut tine_token_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and O.
        unsafe {
            let object = handle::borrow(object, "object")?;
            hand_on(object.0.token(), arg::out(out_token, "out_token")?)
        }
    })
}

/// A handle for a barrier of another process. It has no action: see tine_barrier_options_t.
///
/// @param token       What tine_barrier_token() made.
/// @param out_object  The object; free it with tine_barrier_free().
/// @return TINE_OK; TINE_EINVAL: not a token, or of another kind of object; TINE_ENOENT: its maker has ended or freed the object;
///         TINE_EPERM: of another user; TINE_ENOTSUP: of another pid namespace or another version of the library, or there is no
///         /proc; TINE_ECORRUPT: the shared memory was written over; TINE_ENOMEM, TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_barrier_attach(token: *const tine_token_t, out_object: *mut *mut tine_barrier_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts B and O.
        unsafe { attach(token, out_object, |token| Barrier::attach(token).map(without_action)) }
    })
}

/// A handle for a barrier with a name. It has no action: see tine_barrier_options_t.
///
/// @param name        Its name: [A-Za-z0-9._-]{1,200}.
/// @param out_object  The object; free it with tine_barrier_free().
/// @return TINE_OK; TINE_ENOENT: no such name; TINE_EINVAL: not a name, or of another kind of object; TINE_EPERM: of another user;
///         TINE_ENOTSUP: its users are in another pid namespace, it was made by another version of the library, or there is no /dev/shm;
///         TINE_ECORRUPT: its file was written over; TINE_EBUSY: a process was stopped inside of this call; TINE_ENOMEM, TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_barrier_open(name: *const c_char, out_object: *mut *mut tine_barrier_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts S and O.
        unsafe { open(name, out_object, |name| Barrier::open(name).map(without_action)) }
    })
}

/// Makes a token of a block of shared memory.
///
/// @param object     The object.
/// @param out_token  The token.
/// @return TINE_OK; TINE_ENOTSUP: tokens need /proc of this pid namespace; TINE_ENOENT: this process has closed the descriptor of the
///         object; TINE_EOVERFLOW: it lies beyond the first 32 GiB of its block; TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_shared_memory_token(
    object: *const tine_shared_memory_t,
    out_token: *mut tine_token_t,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and O.
        unsafe {
            let object = handle::borrow(object, "object")?;
            hand_on(object.0.token(), arg::out(out_token, "out_token")?)
        }
    })
}

/// A handle for a block of shared memory of another process.
///
/// @param token       What tine_shared_memory_token() made.
/// @param out_object  The object; free it with tine_shared_memory_free().
/// @return TINE_OK; TINE_EINVAL: not a token, or of another kind of object; TINE_ENOENT: its maker has ended or freed the object;
///         TINE_EPERM: of another user; TINE_ENOTSUP: of another pid namespace or another version of the library, or there is no
///         /proc; TINE_ECORRUPT: the shared memory was written over; TINE_ENOMEM, TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_shared_memory_attach(
    token: *const tine_token_t,
    out_object: *mut *mut tine_shared_memory_t,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts B and O.
        unsafe { attach(token, out_object, |token| SharedMemory::attach(token).map(tine_shared_memory_t)) }
    })
}

/// A handle for a block of shared memory with a name.
///
/// @param name        Its name: [A-Za-z0-9._-]{1,200}.
/// @param out_object  The object; free it with tine_shared_memory_free().
/// @return TINE_OK; TINE_ENOENT: no such name; TINE_EINVAL: not a name, or of another kind of object; TINE_EPERM: of another user;
///         TINE_ENOTSUP: its users are in another pid namespace, it was made by another version of the library, or there is no /dev/shm;
///         TINE_ECORRUPT: its file was written over; TINE_EBUSY: a process was stopped inside of this call; TINE_ENOMEM, TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_shared_memory_open(
    name: *const c_char,
    out_object: *mut *mut tine_shared_memory_t,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts S and O.
        unsafe { open(name, out_object, |name| SharedMemory::open(name).map(tine_shared_memory_t)) }
    })
}

/// Removes a name. The object lives on until its last handle is freed, and the name is free for another.
///
/// @param name  The name of any object.
/// @return TINE_OK; TINE_ENOENT: no such name; TINE_EINVAL: not a name; TINE_EPERM: of another user.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_unlink(name: *const c_char) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract S.
        unsafe { arg::name(name)? }.unlink()
    })
}
