//! Locks.

use std::ffi::c_char;

use super::options::Sized0;
use super::status::tine_status_t;
use super::{arg, guard, handle, options};
use crate::error::Note;
use crate::sync::Lock;

/// A lock, owned by a thread: between processes and between threads.
///
/// Its owner's end, exec and death count alike: the next acquire answers TINE_OWNER_DIED once. A forked child does not own its
/// parent's locks. A lock that anybody may release is a semaphore with a maximum of 1.
pub struct tine_lock_t(pub(super) Lock);

/// The owner may acquire it again, and releases it as often.
pub const TINE_LOCK_RECURSIVE: u32 = 1;

/// An object with a name: opens the one that exists, as it is, instead of failing with TINE_EEXIST.
pub const TINE_OPEN_OR_CREATE: u32 = 0x10000;

/// How to make a lock, and every other object that takes no more than a name and flags.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tine_lock_options_t {
    /// Set by the INIT macro.
    pub size: usize,
    /// NULL = no name: reached by inheritance or by a token. A name is [A-Za-z0-9._-]{1,200}; it and the object behind it stay until
    /// tine_unlink(), also when every process that used it is gone. An object with a name costs a descriptor.
    pub name: *const c_char,
    /// TINE_LOCK_*, TINE_OPEN_OR_CREATE
    pub flags: u32,
    /// 0
    pub reserved: u32,
}

// SAFETY: repr(C), `size` first, no padding, zeros are defaults.
unsafe impl Sized0 for tine_lock_options_t {
    const NAME: &'static str = "options";
}

/// Makes a lock.
///
/// @param options   NULL = a plain lock without a name.
/// @param out_lock  The new lock; free it with tine_lock_free().
/// @return TINE_OK; TINE_EINVAL: unknown flags, not a name, or the name of another kind of object; TINE_EEXIST: the name is taken;
///         TINE_EPERM: by another user; what else tine_lock_open() answers; TINE_ENOMEM, TINE_ENOSPC, TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_lock_new(options: *const tine_lock_options_t, out_lock: *mut *mut tine_lock_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract O.
        let (options, out) = unsafe { (options::read(options)?, arg::out(out_lock, "out_lock")?) };
        arg::flags(options.reserved, 0, "options.reserved")?;
        let flags = arg::flags(options.flags, TINE_LOCK_RECURSIVE | TINE_OPEN_OR_CREATE, "options.flags")?;
        // SAFETY: contract S.
        let naming = unsafe { arg::naming(options.name, flags)? };
        let lock = Lock::named(&naming, flags & TINE_LOCK_RECURSIVE != 0)?;
        // SAFETY: checked by `arg::out`.
        unsafe { handle::create(tine_lock_t(lock), out) };
        Ok(())
    })
}

/// Acquires a lock for the calling thread, waiting while another has it.
///
/// @param lock        The lock.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @return TINE_OK; TINE_OWNER_DIED: acquired, and the previous owner ended inside, so check what the lock guards;
///         TINE_ETIMEDOUT; TINE_EDEADLK: this thread has a plain lock already and would wait for itself for ever;
///         TINE_EOVERFLOW: a recursive lock acquired 65,535 times; TINE_EAGAIN: this thread holds 256 locks; TINE_EINTR.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_lock_acquire(lock: *mut tine_lock_t, timeout_ms: i64) -> tine_status_t {
    guard::noted_unless(
        // SAFETY: contract H.
        move || unsafe { lock.as_ref() }.filter(|_| arg::is_timeout(timeout_ms))?.0.acquire_free(),
        move || {
            // SAFETY: contract H.
            let lock = unsafe { handle::borrow(lock, "lock")? };
            lock.0.acquire(&arg::deadline(timeout_ms)?)
        },
    )
}

/// Releases a lock that the calling thread has; a recursive one once.
///
/// @param lock  The lock.
/// @return TINE_OK; TINE_ENOTOWNER; TINE_ECORRUPT: released, but its shared memory was written over.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_lock_release(lock: *mut tine_lock_t) -> tine_status_t {
    guard::noted_unless(
        // SAFETY: contract H.
        move || unsafe { lock.as_ref() }?.0.release_only(),
        move || {
            // SAFETY: contract H.
            let lock = unsafe { handle::borrow(lock, "lock")? };
            lock.0.release().map(|()| Note::None)
        },
    )
}

/// Whether the calling thread has the lock.
///
/// @param lock  The lock; NULL answers false.
/// @return true if this thread has it.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_lock_is_held(lock: *const tine_lock_t) -> bool {
    guard::value(false, || {
        // SAFETY: contract H.
        let lock = unsafe { handle::borrow(lock, "lock")? };
        Ok(lock.0.is_held())
    })
}

/// Frees this process's handle; others keep theirs. A lock that is held stays held.
///
/// @param lock  The lock; NULL is fine.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_lock_free(lock: *mut tine_lock_t) {
    // SAFETY: contract H.
    guard::release(|| unsafe { handle::free(lock) });
}
