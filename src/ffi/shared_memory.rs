//! Blocks of shared memory for the caller's own data, and small locks inside them.

use std::ffi::{c_char, c_void};
use std::ptr;

use super::lock::{TINE_LOCK_RECURSIVE, TINE_OPEN_OR_CREATE, tine_lock_options_t, tine_lock_t};
use super::semaphore::tine_semaphore_t;
use super::status::tine_status_t;
use super::{arg, guard, handle, options};
use crate::shm::{HandedOn, SharedMemory};
use crate::sync::{Lock, Semaphore};

/// A block of memory that several processes see.
///
/// All of it is there from the beginning, so touching it raises no SIGBUS later. Without a name it cannot shrink and vanishes with
/// the last process that has it. With one it is a file in /dev/shm until tine_unlink(), and only a program of the same user that
/// makes this file shorter can do harm. Every process may have it at another address: put offsets into it, not pointers.
pub struct tine_shared_memory_t(pub(super) SharedMemory);

/// How to make a block of shared memory; there are no flags but TINE_OPEN_OR_CREATE.
pub type tine_shared_memory_options_t = tine_lock_options_t;

/// Makes a block of shared memory, all zeros.
///
/// With TINE_OPEN_OR_CREATE, a block that exists keeps its length and its bytes.
///
/// @param length      Its length in bytes, at least 1.
/// @param options     NULL = defaults.
/// @param out_memory  The new block; free it with tine_shared_memory_free().
/// @return TINE_OK; TINE_EINVAL: a length of 0, unknown flags, not a name, or the name of another kind of object; TINE_EEXIST: the
///         name is taken; TINE_EPERM: by another user; what else tine_shared_memory_open() answers; TINE_ENOSPC: no room
///         (RLIMIT_FSIZE, the memory control group, /dev/shm); TINE_ENOMEM, TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_shared_memory_new(
    length: usize,
    options: *const tine_shared_memory_options_t,
    out_memory: *mut *mut tine_shared_memory_t,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract O.
        let (options, out) = unsafe { (options::read(options)?, arg::out(out_memory, "out_memory")?) };
        arg::flags(options.reserved, 0, "options.reserved")?;
        let flags = arg::flags(options.flags, TINE_OPEN_OR_CREATE, "options.flags")?;
        // SAFETY: contract S.
        let naming = unsafe { arg::naming(options.name, flags)? };
        let memory = SharedMemory::new(length, &naming)?;
        // SAFETY: checked by `arg::out`.
        unsafe { handle::create(tine_shared_memory_t(memory), out) };
        Ok(())
    })
}

/// The address of the block in this process: the beginning of a page.
///
/// @param memory  The block; NULL answers NULL.
/// @return Its first byte; valid until the handle is freed, and as long as another handle or a lock in it is not.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_shared_memory_data(memory: *mut tine_shared_memory_t) -> *mut c_void {
    guard::value(ptr::null_mut(), || {
        // SAFETY: contract H.
        let memory = unsafe { handle::borrow(memory, "memory")? };
        Ok(memory.0.address().cast())
    })
}

/// The length of the block, exactly what was asked for.
///
/// @param memory  The block; NULL answers 0.
/// @return Bytes.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_shared_memory_length(memory: *const tine_shared_memory_t) -> usize {
    guard::value(0, || {
        // SAFETY: contract H.
        let memory = unsafe { handle::borrow(memory, "memory")? };
        Ok(memory.0.length())
    })
}

/// The name of the block.
///
/// @param memory  The block; NULL answers NULL.
/// @return The name that it was made with, also after tine_unlink(); NULL without one. Valid as long as the handle.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_shared_memory_name(memory: *const tine_shared_memory_t) -> *const c_char {
    guard::value(ptr::null(), || {
        // SAFETY: contract H.
        let memory = unsafe { handle::borrow(memory, "memory")? };
        Ok(memory.0.name().map_or(ptr::null(), |name| name.text().as_ptr()))
    })
}

/// Frees this process's handle; others keep theirs. The memory is unmapped with the last handle, of the block or of a lock in it.
///
/// @param memory  The block; NULL is fine.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_shared_memory_free(memory: *mut tine_shared_memory_t) {
    // SAFETY: contract H.
    guard::release(|| unsafe { handle::free(memory) });
}

/// Bytes that a lock takes inside a block of shared memory.
///
/// @return The number, a multiple of 8.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub extern "C" fn tine_lock_footprint() -> usize {
    guard::value(0, || Ok(Lock::FOOTPRINT))
}

/// Makes a lock inside the caller's block of shared memory, next to the data that it guards.
///
/// Once for each lock, by one process, before others use tine_lock_at(). It costs neither a descriptor nor memory beyond its place.
///
/// @param memory    The block.
/// @param offset    Where in the block, in bytes; a multiple of 8. What is there is written over.
/// @param options   NULL = a plain lock. It has no name of its own.
/// @param out_lock  The lock; free it with tine_lock_free().
/// @return TINE_OK; TINE_EINVAL: not a multiple of 8, beyond the end, unknown flags, a name; TINE_EBUSY: a lock is there and somebody
///         holds it.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_lock_new_in(
    memory: *mut tine_shared_memory_t,
    offset: usize,
    options: *const tine_lock_options_t,
    out_lock: *mut *mut tine_lock_t,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and O.
        let (memory, options, out) =
            unsafe { (handle::borrow(memory, "memory")?, options::read(options)?, arg::out(out_lock, "out_lock")?) };
        arg::no_name(options.name)?;
        arg::flags(options.reserved, 0, "options.reserved")?;
        let recursive = arg::flags(options.flags, TINE_LOCK_RECURSIVE, "options.flags")? & TINE_LOCK_RECURSIVE != 0;
        let lock = Lock::new_in(&memory.0, offset, recursive)?;
        // SAFETY: checked by `arg::out`.
        unsafe { handle::create(tine_lock_t(lock), out) };
        Ok(())
    })
}

/// A handle for a lock that tine_lock_new_in() made, in this or another process.
///
/// @param memory    The block.
/// @param offset    Where in the block, in bytes; a multiple of 8.
/// @param out_lock  The lock; free it with tine_lock_free().
/// @return TINE_OK; TINE_EINVAL: not a multiple of 8, beyond the end, or there is no lock.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_lock_at(
    memory: *mut tine_shared_memory_t,
    offset: usize,
    out_lock: *mut *mut tine_lock_t,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and O.
        let (memory, out) = unsafe { (handle::borrow(memory, "memory")?, arg::out(out_lock, "out_lock")?) };
        let lock = memory.0.at(offset)?;
        // SAFETY: checked by `arg::out`.
        unsafe { handle::create(tine_lock_t(lock), out) };
        Ok(())
    })
}

/// Bytes that a semaphore takes inside a block of shared memory.
///
/// @return The number, a multiple of 8.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub extern "C" fn tine_semaphore_footprint() -> usize {
    guard::value(0, || Ok(Semaphore::FOOTPRINT))
}

/// Makes a semaphore inside the caller's block of shared memory.
///
/// Once for each semaphore, by one process, before others use tine_semaphore_at().
///
/// @param memory         The block.
/// @param offset         Where in the block, in bytes; a multiple of 8. What is there is written over.
/// @param initial        Permits that are there at first.
/// @param maximum        Permits that may be there; 0 = no bound.
/// @param out_semaphore  The semaphore; free it with tine_semaphore_free().
/// @return TINE_OK; TINE_EINVAL: not a multiple of 8, beyond the end, or initial above maximum; TINE_EBUSY: a semaphore is there and
///         somebody is inside of a call on it.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_semaphore_new_in(
    memory: *mut tine_shared_memory_t,
    offset: usize,
    initial: u32,
    maximum: u32,
    out_semaphore: *mut *mut tine_semaphore_t,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and O.
        let (memory, out) = unsafe { (handle::borrow(memory, "memory")?, arg::out(out_semaphore, "out_semaphore")?) };
        let semaphore = Semaphore::new_in(&memory.0, offset, initial, maximum)?;
        // SAFETY: checked by `arg::out`.
        unsafe { handle::create(tine_semaphore_t(semaphore), out) };
        Ok(())
    })
}

/// A handle for a semaphore that tine_semaphore_new_in() made, in this or another process.
///
/// @param memory         The block.
/// @param offset         Where in the block, in bytes; a multiple of 8.
/// @param out_semaphore  The semaphore; free it with tine_semaphore_free().
/// @return TINE_OK; TINE_EINVAL: not a multiple of 8, beyond the end, or there is no semaphore; TINE_ECORRUPT.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_semaphore_at(
    memory: *mut tine_shared_memory_t,
    offset: usize,
    out_semaphore: *mut *mut tine_semaphore_t,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and O.
        let (memory, out) = unsafe { (handle::borrow(memory, "memory")?, arg::out(out_semaphore, "out_semaphore")?) };
        let semaphore = memory.0.at(offset)?;
        // SAFETY: checked by `arg::out`.
        unsafe { handle::create(tine_semaphore_t(semaphore), out) };
        Ok(())
    })
}
