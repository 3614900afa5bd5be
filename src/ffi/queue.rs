//! Queues.

use std::ffi::{c_char, c_void};

use super::lock::TINE_OPEN_OR_CREATE;
use super::options::Sized0;
use super::status::tine_status_t;
use super::{arg, guard, handle, options};
use crate::ipc::Queue;

/// A queue of byte messages: between processes and between threads, any number on both sides, in order.
///
/// When tine_queue_put() returned, the whole message is in shared memory: no thread, no feeder, nothing to flush. A process may be
/// killed at any moment of any call and the others go on; a message is there whole or not at all. A queue has no end of file: when
/// all producers are gone, a get waits; close the queue, or use a pipe.
pub struct tine_queue_t(pub(super) Queue);

/// tine_queue_fd() gives a descriptor to poll for messages. Not in this version.
pub const TINE_QUEUE_POLLABLE: u32 = 1;
/// Never full below max_bytes. Not in this version.
pub const TINE_QUEUE_GROW: u32 = 2;

/// How to make a queue.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tine_queue_options_t {
    /// Set by the INIT macro.
    pub size: usize,
    /// NULL = no name: reached by inheritance or by a token. A name is [A-Za-z0-9._-]{1,200}; it and the queue behind it, with the
    /// messages in it, stay until tine_unlink(), also when every process that used it is gone.
    pub name: *const c_char,
    /// Messages; 0 = bounded by bytes only.
    pub capacity: usize,
    /// Bytes of the ring that small messages lie in, 8 of them beside each message; 0 = 256 KiB; rounded up to a power of two, at
    /// least 1 KiB. A message above a quarter of it is large and lies out of line.
    pub capacity_bytes: usize,
    /// Bytes that large messages may take together, in whole pages; 0 = 2 GiB. No message may be longer.
    pub max_bytes: usize,
    /// TINE_QUEUE_*, TINE_OPEN_OR_CREATE
    pub flags: u32,
    /// 0
    pub reserved: u32,
}

// SAFETY: repr(C), `size` first, no padding, zeros are defaults.
unsafe impl Sized0 for tine_queue_options_t {
    const NAME: &'static str = "options";
}

/// Part of a caller's memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tine_bytes_t {
    /// First byte; may be NULL if `len` is 0.
    pub data: *const c_void,
    /// Length in bytes.
    pub len: usize,
}

/// Makes a queue.
///
/// @param options    NULL = defaults.
/// @param out_queue  The new queue; free it with tine_queue_free().
/// @return TINE_OK; TINE_EINVAL: unknown flags, not a name, or the name of another kind of object; TINE_EEXIST: the name is taken;
///         TINE_EPERM: by another user; what else tine_queue_open() answers; TINE_ENOTSUP for flags; TINE_ENOSPC: no room for the
///         shared memory (RLIMIT_FSIZE and the memory control group are asked before, so that no signal arrives later);
///         TINE_ENOMEM, TINE_EMFILE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_new(
    options: *const tine_queue_options_t,
    out_queue: *mut *mut tine_queue_t,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract O.
        let (options, out) = unsafe { (options::read(options)?, arg::out(out_queue, "out_queue")?) };
        arg::flags(options.reserved, 0, "options.reserved")?;
        let flags = arg::flags(options.flags, TINE_QUEUE_POLLABLE | TINE_QUEUE_GROW | TINE_OPEN_OR_CREATE, "options.flags")?;
        // SAFETY: contract S.
        let naming = unsafe { arg::naming(options.name, flags)? };
        arg::not_yet_flags(options.flags, TINE_QUEUE_POLLABLE, "TINE_QUEUE_POLLABLE")?;
        arg::not_yet_flags(options.flags, TINE_QUEUE_GROW, "TINE_QUEUE_GROW")?;
        let queue = Queue::named(&naming, options.capacity, options.capacity_bytes, options.max_bytes)?;
        // SAFETY: checked by `arg::out`.
        unsafe { handle::create(tine_queue_t(queue), out) };
        Ok(())
    })
}

/// Adds one message, waiting while the queue is full.
///
/// With a timeout of 0 the call may still take up to 20 ms if another producer was preempted inside a put.
///
/// @param queue       The queue.
/// @param data        First byte of the message, copied before return; may be NULL if `len` is 0.
/// @param len         Length in bytes, up to 2 GiB and the queue's max_bytes; 0 is a message too.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @return TINE_OK; TINE_EFULL: no room in time; TINE_ECLOSED; TINE_EMSGSIZE: too long; TINE_ENOSPC: no memory for a large message, or
///         RLIMIT_FSIZE; TINE_ECORRUPT; TINE_EAGAIN: this thread holds 256 locks; TINE_EINTR.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_put(
    queue: *mut tine_queue_t,
    data: *const c_void,
    len: usize,
    timeout_ms: i64,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and B.
        let (queue, data) = unsafe { (handle::borrow(queue, "queue")?, arg::bytes(data, len, "data")?) };
        queue.0.put(data, arg::timeout(timeout_ms)?)
    })
}

/// Takes one message, waiting while the queue is empty.
///
/// @param queue       The queue.
/// @param buffer      Where the message is copied; may be NULL if `capacity` is 0.
/// @param capacity    Its size in bytes.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @param out_len     Length of the message; written also with TINE_ETOOSMALL. May be NULL.
/// @return TINE_OK; TINE_EEMPTY: no message in time; TINE_ECLOSED: closed and drained; TINE_ETOOSMALL: the message stays, first in
///         line; TINE_ECORRUPT; TINE_EAGAIN: this thread holds 256 locks; TINE_EINTR.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_get(
    queue: *mut tine_queue_t,
    buffer: *mut c_void,
    capacity: usize,
    timeout_ms: i64,
    out_len: *mut usize,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H, B and O.
        unsafe {
            let (queue, buffer) = (handle::borrow(queue, "queue")?, arg::buffer(buffer, capacity, "buffer")?);
            arg::length(out_len, queue.0.get(buffer, arg::timeout(timeout_ms)?))
        }
    })
}

/// Takes one message into memory of its own, waiting while the queue is empty.
///
/// @param queue       The queue.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @param out_data    The message; free it with tine_free(). Never NULL on success.
/// @param out_len     Its length. May be NULL.
/// @return As tine_queue_get(), without TINE_ETOOSMALL; TINE_ENOMEM: the message stays.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_get_alloc(
    queue: *mut tine_queue_t,
    timeout_ms: i64,
    out_data: *mut *mut c_void,
    out_len: *mut usize,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and O.
        unsafe {
            let (queue, out_data) = (handle::borrow(queue, "queue")?, arg::out(out_data, "out_data")?);
            let (message, length) = queue.0.get_alloc(arg::timeout(timeout_ms)?)?;
            arg::put(out_data, message.hand_out());
            arg::put(out_len, length);
        }
        Ok(())
    })
}

/// Adds as many of several messages as fit, in as few publications as possible.
///
/// @param queue  The queue.
/// @param messages  Messages to add.
/// @param count  How many.
/// @param timeout_ms  Longest wait in milliseconds.
/// @param out_count  How many were added.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_queue_put_many(
    queue: *mut tine_queue_t,
    messages: *const tine_bytes_t,
    count: usize,
    timeout_ms: i64,
    out_count: *mut usize,
) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_queue_put_many"))
}

/// Takes several messages, waiting for the first only.
///
/// @param queue  The queue.
/// @param buffer  Where the messages are packed.
/// @param capacity  Its size in bytes.
/// @param timeout_ms  Longest wait for the first message in milliseconds.
/// @param out_messages  Where each message lies in the buffer.
/// @param max_count  How many at most.
/// @param out_count  How many were taken.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_queue_get_many(
    queue: *mut tine_queue_t,
    buffer: *mut c_void,
    capacity: usize,
    timeout_ms: i64,
    out_messages: *mut tine_bytes_t,
    max_count: usize,
    out_count: *mut usize,
) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_queue_get_many"))
}

/// Gives the memory of the next message to write it in place.
///
/// @param queue  The queue.
/// @param len  Length in bytes.
/// @param timeout_ms  Longest wait in milliseconds.
/// @param out_memory  Where to write the message.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_queue_reserve(
    queue: *mut tine_queue_t,
    len: usize,
    timeout_ms: i64,
    out_memory: *mut *mut c_void,
) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_queue_reserve"))
}

/// Publishes what tine_queue_reserve() gave.
///
/// @param queue  The queue.
/// @param len  Bytes written.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_queue_commit(queue: *mut tine_queue_t, len: usize) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_queue_commit"))
}

/// Gives back what tine_queue_reserve() gave.
///
/// @param queue  The queue.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_queue_abandon(queue: *mut tine_queue_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_queue_abandon"))
}

/// Shows the first message in place.
///
/// @param queue  The queue.
/// @param timeout_ms  Longest wait in milliseconds.
/// @param out_data  The message.
/// @param out_len  Its length.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_queue_peek(
    queue: *mut tine_queue_t,
    timeout_ms: i64,
    out_data: *mut *const c_void,
    out_len: *mut usize,
) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_queue_peek"))
}

/// Consumes what tine_queue_peek() showed.
///
/// @param queue  The queue.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_queue_release(queue: *mut tine_queue_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_queue_release"))
}

/// Gives back what tine_queue_peek() showed, first in line.
///
/// @param queue  The queue.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_queue_unpeek(queue: *mut tine_queue_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_queue_unpeek"))
}

/// Messages that are there, exact at some moment of the call.
///
/// @param queue  The queue; NULL answers 0.
/// @return The number.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_size(queue: *const tine_queue_t) -> usize {
    guard::value(0, || {
        // SAFETY: contract H.
        let queue = unsafe { handle::borrow(queue, "queue")? };
        Ok(queue.0.size())
    })
}

/// Messages put and not yet declared done by tine_queue_task_done().
///
/// @param queue  The queue.
/// @return Always 0: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_queue_unfinished(queue: *const tine_queue_t) -> usize {
    guard::value(0, || guard::not_yet("tine_queue_unfinished"))
}

/// Whether there is no message at this moment.
///
/// @param queue  The queue; NULL answers false.
/// @return true if it is empty.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_is_empty(queue: *const tine_queue_t) -> bool {
    guard::value(false, || {
        // SAFETY: contract H.
        let queue = unsafe { handle::borrow(queue, "queue")? };
        Ok(queue.0.is_empty())
    })
}

/// Whether putting one byte would find no room at this moment.
///
/// @param queue  The queue; NULL answers false.
/// @return true if it is full.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_is_full(queue: *const tine_queue_t) -> bool {
    guard::value(false, || {
        // SAFETY: contract H.
        let queue = unsafe { handle::borrow(queue, "queue")? };
        Ok(queue.0.is_full())
    })
}

/// Closes a queue for everybody: puts, also those that wait, answer TINE_ECLOSED; gets drain it first.
///
/// @param queue  The queue.
/// @return TINE_OK, also if it was closed; TINE_EAGAIN: this thread holds 256 locks; TINE_ETIMEDOUT, not closed: for 10 s a process was
///         inside a call on this queue, stopped there, or its shared memory was written over.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_close(queue: *mut tine_queue_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        let queue = unsafe { handle::borrow(queue, "queue")? };
        queue.0.close()
    })
}

/// Declares one message that was taken as done.
///
/// @param queue  The queue.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_queue_task_done(queue: *mut tine_queue_t) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_queue_task_done"))
}

/// Waits until every message was declared done.
///
/// @param queue  The queue.
/// @param timeout_ms  Longest wait in milliseconds.
/// @return Always TINE_ENOTSUP: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_queue_join(queue: *mut tine_queue_t, timeout_ms: i64) -> tine_status_t {
    guard::status(|| guard::not_yet("tine_queue_join"))
}

/// A descriptor to poll for messages.
///
/// @param queue  The queue.
/// @return Always -1: not in this version.
/// @since 0.1.0
#[unsafe(no_mangle)]
#[expect(unused_variables, reason = "not in this version")]
pub unsafe extern "C" fn tine_queue_fd(queue: *mut tine_queue_t) -> i32 {
    guard::value(-1, || guard::not_yet("tine_queue_fd"))
}

/// Frees this process's handle; others keep theirs. After tine_queue_close() calls may still be asleep on it.
///
/// @param queue  The queue; NULL is fine.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_free(queue: *mut tine_queue_t) {
    // SAFETY: contract H.
    guard::release(|| unsafe { handle::free(queue) });
}
