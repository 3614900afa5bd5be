//! Queues.

use std::ffi::{c_char, c_void};

use super::lock::TINE_OPEN_OR_CREATE;
use super::options::Sized0;
use super::status::tine_status_t;
use super::{arg, guard, handle, options};
use crate::error::Kind;
use crate::ipc::Queue;
use crate::ipc::queue::Options;

/// A queue of byte messages: between processes and between threads, any number on both sides, in order.
///
/// When tine_queue_put() returned, the whole message is in shared memory: no thread, no feeder, nothing to flush. A process may be
/// killed at any moment of any call and the others go on; a message is there whole or not at all. A queue has no end of file: when
/// all producers are gone, a get waits; close the queue, or use a pipe.
pub struct tine_queue_t(pub(super) Queue);

/// tine_queue_fd() gives a descriptor to poll for messages: a pipe that all users of the queue share, by inheritance or by a token. Such
/// a queue cannot have a name: a name outlives all processes, a pipe ends with them. Where strangers have to find it, put its token
/// into a named block of shared memory, anew whenever the process that made the queue starts anew. A process has at most 256 handles of
/// such queues, those that it inherited included (TINE_EMFILE).
pub const TINE_QUEUE_POLLABLE: u32 = 1;
/// Never full below max_bytes, whatever the messages' lengths: the queue grows by chunks of capacity_bytes, and gives memory back that
/// is not in use. Address space and length of file for all of max_bytes are taken at once (up to twice of it; RLIMIT_FSIZE and
/// RLIMIT_AS count them), memory is not: max_bytes should be what the machine can spare, since nobody looks before each chunk.
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
    /// Bytes that large messages may take together, in whole pages; 0 = 2 GiB. No message may be longer. With TINE_QUEUE_GROW small
    /// messages, with 8 bytes beside each, may take as much beside them; it is below 4 GiB then.
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
///         TINE_EPERM: by another user; what else tine_queue_open() answers; TINE_ENOTSUP: a name and TINE_QUEUE_POLLABLE;
///         TINE_ENOSPC: no room for the shared memory (RLIMIT_FSIZE and the memory control group are asked before, so that no signal
///         arrives later); TINE_ENOMEM; TINE_EMFILE, also for the 257th TINE_QUEUE_POLLABLE handle of this process.
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
        let options = Options {
            capacity: options.capacity,
            capacity_bytes: options.capacity_bytes,
            max_bytes: options.max_bytes,
            pollable: flags & TINE_QUEUE_POLLABLE != 0,
            grows: flags & TINE_QUEUE_GROW != 0,
        };
        let queue = Queue::named(&naming, &options)?;
        // SAFETY: checked by `arg::out`.
        unsafe { handle::create(tine_queue_t(queue), out) };
        Ok(())
    })
}

/// Adds one message, waiting while the queue is full.
///
/// Those who wait go on one after the other: while a message has no room yet, a shorter one behind it waits too, so that it is not
/// overtaken for ever. What a consumer waits for has to be in the queue, or on its way without its help.
///
/// With a timeout of 0 the call may still take up to 20 ms if another producer was preempted inside a put.
///
/// @param queue       The queue.
/// @param data        First byte of the message, copied before return; may be NULL if `len` is 0.
/// @param len         Length in bytes, up to 2 GiB and the queue's max_bytes; 0 is a message too.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @return TINE_OK; TINE_EFULL: no room in time; TINE_ECLOSED; TINE_EMSGSIZE: too long; TINE_ENOSPC: no memory for a large message, or
///         RLIMIT_FSIZE; TINE_EBUSY: this thread holds a reservation, or the first message of a full queue; TINE_ECORRUPT; TINE_EAGAIN:
///         this thread holds 256 locks; TINE_EINTR.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_put(
    queue: *mut tine_queue_t,
    data: *const c_void,
    len: usize,
    timeout_ms: i64,
) -> tine_status_t {
    guard::status_unless(
        move || {
            // SAFETY: contracts H and B.
            let (queue, data) =
                unsafe { (queue.as_ref().filter(|_| arg::is_timeout(timeout_ms))?, arg::bytes(data, len, "data").ok()?) };
            queue.0.put_free(data)
        },
        move || {
            // SAFETY: contracts H and B.
            let (queue, data) = unsafe { (handle::borrow(queue, "queue")?, arg::bytes(data, len, "data")?) };
            queue.0.put(data, arg::timeout(timeout_ms)?)
        },
    )
}

/// Takes one message, waiting while the queue is empty.
///
/// @param queue       The queue.
/// @param buffer      Where the message is copied; may be NULL if `capacity` is 0.
/// @param capacity    Its size in bytes.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @param out_len     Length of the message; written also with TINE_ETOOSMALL. May be NULL.
/// @return TINE_OK; TINE_EEMPTY: no message in time; TINE_ECLOSED: closed and drained; TINE_ETOOSMALL: the message stays, first in
///         line; TINE_EBUSY: this thread holds the first message, or a reservation in an empty queue; TINE_ECORRUPT; TINE_EAGAIN: this
///         thread holds 256 locks; TINE_EINTR.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_get(
    queue: *mut tine_queue_t,
    buffer: *mut c_void,
    capacity: usize,
    timeout_ms: i64,
    out_len: *mut usize,
) -> tine_status_t {
    guard::status_unless(
        move || {
            // SAFETY: contracts H, B and O.
            unsafe {
                let queue = queue.as_ref().filter(|_| arg::is_timeout(timeout_ms))?;
                let length = queue.0.get_free(arg::buffer(buffer, capacity, "buffer").ok()?)?;
                arg::put(out_len, length);
            }
            Some(())
        },
        move || {
            // SAFETY: contracts H, B and O.
            unsafe {
                let (queue, buffer) = (handle::borrow(queue, "queue")?, arg::buffer(buffer, capacity, "buffer")?);
                arg::length(out_len, queue.0.get(buffer, arg::timeout(timeout_ms)?))
            }
        },
    )
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

/// Adds several messages by one call: as many as fit, waiting only while there is no room for the first.
///
/// What fits becomes visible all at once, in order, with nothing of others between. It costs little more than one tine_queue_put().
///
/// @param queue       The queue.
/// @param messages    The messages, each as for tine_queue_put(); may be NULL if `count` is 0.
/// @param count       How many; 0 does nothing.
/// @param timeout_ms  Longest wait in milliseconds for room for the first one; 0 tries once, TINE_FOREVER waits without limit.
/// @param out_count   How many were added, from the first on: put the others again. May be NULL.
/// @return TINE_OK if at least one was added; else as tine_queue_put() for the first one.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_put_many(
    queue: *mut tine_queue_t,
    messages: *const tine_bytes_t,
    count: usize,
    timeout_ms: i64,
    out_count: *mut usize,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and B.
        let (queue, messages) = unsafe { (handle::borrow(queue, "queue")?, arg::array(messages, count, "messages")?) };
        // SAFETY: contract B, for each of them.
        let bytes = |message: &tine_bytes_t| unsafe { arg::bytes(message.data, message.len, "messages[].data") };
        for message in messages {
            bytes(message)?;
        }
        let timeout = arg::timeout(timeout_ms)?;
        let put = queue.0.put_many(count, |number| bytes(&messages[number]).unwrap_or_default(), timeout)?;
        // SAFETY: contract O.
        unsafe { arg::put(out_count, put) };
        Ok(())
    })
}

/// Takes several messages by one call: as many as are there and fit, waiting only for the first.
///
/// They are packed into the buffer, one directly behind the other. The caller has them all, or none if it was killed in the call.
///
/// @param queue         The queue.
/// @param buffer        Where the messages are packed; may be NULL if `capacity` is 0.
/// @param capacity      Its size in bytes.
/// @param timeout_ms    Longest wait for the first message in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @param out_messages  `max_count` places: where in the buffer each message lies, and its length. May be NULL, where the caller
///                      knows how long they are.
/// @param max_count     How many at most; 0 does nothing.
/// @param out_count     How many were taken. May be NULL.
/// @return TINE_OK if at least one was taken; else as tine_queue_get(). With TINE_ETOOSMALL, `out_messages[0].len` is the length of
///         the first message, which stays.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_get_many(
    queue: *mut tine_queue_t,
    buffer: *mut c_void,
    capacity: usize,
    timeout_ms: i64,
    out_messages: *mut tine_bytes_t,
    max_count: usize,
    out_count: *mut usize,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and B.
        let (queue, bytes) = unsafe { (handle::borrow(queue, "queue")?, arg::buffer(buffer, capacity, "buffer")?) };
        let each = |number: usize, offset: usize, len: usize| {
            if !out_messages.is_null() {
                let data = buffer.cast::<u8>().wrapping_add(offset).cast::<c_void>().cast_const();
                // SAFETY: contract O, for as many places as messages are taken.
                unsafe { out_messages.add(number).write(tine_bytes_t { data, len }) };
            }
        };
        let result = queue.0.get_many(bytes, max_count, each, arg::timeout(timeout_ms)?);
        if let Err(error) = &result {
            if error.kind() == Kind::TooSmall {
                each(0, 0, error.needed());
            }
        }
        // SAFETY: contract O.
        unsafe { arg::put(out_count, result?) };
        Ok(())
    })
}

/// Gives room for the next message, to write it where it will lie: then commit it.
///
/// The calling thread holds the producers' side of the queue until tine_queue_commit() or tine_queue_abandon(): other puts wait, each
/// within its own timeout. Keep that short. If the thread ends before, the reservation never was. A large message, and one that would
/// wrap around the end of the ring, is written in private memory and copied by the commit.
///
/// @param queue       The queue.
/// @param len         Length in bytes, as for tine_queue_put(); the commit may say less.
/// @param timeout_ms  Longest wait for room in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @param out_memory  Where to write: `len` bytes, aligned to 8, of any content.
/// @return As tine_queue_put(); TINE_EBUSY: this thread holds a reservation already, or, where the queue is full, its first message;
///         TINE_ENOMEM.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_reserve(
    queue: *mut tine_queue_t,
    len: usize,
    timeout_ms: i64,
    out_memory: *mut *mut c_void,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and O.
        unsafe {
            let (queue, out_memory) = (handle::borrow(queue, "queue")?, arg::out(out_memory, "out_memory")?);
            let memory = queue.0.reserve(len, arg::timeout(timeout_ms)?)?;
            arg::put(out_memory, memory.cast());
        }
        Ok(())
    })
}

/// Publishes what was written into the memory of tine_queue_reserve(), which is not the caller's any more.
///
/// @param queue  The queue.
/// @param len    Length of the message in bytes, at most what was reserved.
/// @return TINE_OK; TINE_EINVAL: longer than reserved; TINE_ENOTOWNER: this thread has no reservation; TINE_ENOSPC: no memory for a
///         large message, or RLIMIT_FSIZE. The reservation stays with these: commit again, or abandon it. TINE_ECORRUPT.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_commit(queue: *mut tine_queue_t, len: usize) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        let queue = unsafe { handle::borrow(queue, "queue")? };
        queue.0.commit(len)
    })
}

/// Gives back what tine_queue_reserve() gave: nothing is added.
///
/// @param queue  The queue.
/// @return TINE_OK; TINE_ENOTOWNER: this thread has no reservation; TINE_ECORRUPT.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_abandon(queue: *mut tine_queue_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        let queue = unsafe { handle::borrow(queue, "queue")? };
        queue.0.abandon()
    })
}

/// Shows the first message where it lies, waiting while the queue is empty.
///
/// The calling thread holds the consumers' side of the queue until tine_queue_release() or tine_queue_unpeek(): other gets wait, each
/// within its own timeout. Keep that short. If the thread ends before, the message goes to the next getter. A large message, and one
/// that wraps around the end of the ring, is shown as a private copy.
///
/// @param queue       The queue.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @param out_data    The message, aligned to 8: to read only, until it is released or given back. Never NULL on success.
/// @param out_len     Its length. May be NULL.
/// @return As tine_queue_get_alloc(); TINE_EBUSY: this thread holds the first message already, or, where the queue is empty, a
///         reservation.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_peek(
    queue: *mut tine_queue_t,
    timeout_ms: i64,
    out_data: *mut *const c_void,
    out_len: *mut usize,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and O.
        unsafe {
            let (queue, out_data) = (handle::borrow(queue, "queue")?, arg::out(out_data, "out_data")?);
            let (data, length) = queue.0.peek(arg::timeout(timeout_ms)?)?;
            arg::put(out_data, data.cast());
            arg::put(out_len, length);
        }
        Ok(())
    })
}

/// Consumes the message that tine_queue_peek() showed. Its memory is not the caller's any more.
///
/// @param queue  The queue.
/// @return TINE_OK; TINE_ENOTOWNER: this thread has not peeked; TINE_ECORRUPT.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_release(queue: *mut tine_queue_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        let queue = unsafe { handle::borrow(queue, "queue")? };
        queue.0.release()
    })
}

/// Gives the message that tine_queue_peek() showed back, first in line. Its memory is not the caller's any more.
///
/// @param queue  The queue.
/// @return TINE_OK; TINE_ENOTOWNER: this thread has not peeked; TINE_ECORRUPT.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_unpeek(queue: *mut tine_queue_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        let queue = unsafe { handle::borrow(queue, "queue")? };
        queue.0.unpeek()
    })
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

/// Messages put and not yet declared done by tine_queue_task_done(), exact at some moment of the call.
///
/// A consumer that is killed between its get and its tine_queue_task_done() leaves its message unfinished for ever: nobody can know
/// how far it came. Where no message is ever declared done, this is the number of all messages put, modulo 2^32.
///
/// @param queue  The queue; NULL answers 0.
/// @return The number.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_unfinished(queue: *const tine_queue_t) -> usize {
    guard::value(0, || {
        // SAFETY: contract H.
        let queue = unsafe { handle::borrow(queue, "queue")? };
        Ok(queue.0.unfinished())
    })
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
/// @return TINE_OK, also if it was closed; TINE_EBUSY: this thread holds a reservation or the first message: give it back before;
///         TINE_EAGAIN: this thread holds 256 locks; TINE_ETIMEDOUT, not closed: for 10 s a process was inside a call on this queue,
///         stopped there, or held a reservation or the first message, or the shared memory was written over.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_close(queue: *mut tine_queue_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        let queue = unsafe { handle::borrow(queue, "queue")? };
        queue.0.close()
    })
}

/// Declares one message that was taken as done: its work is finished, whatever came of it. For tine_queue_join().
///
/// @param queue  The queue.
/// @return TINE_OK; TINE_EOVERFLOW: every message that was put has been declared done already; TINE_ETIMEDOUT, not declared: for 10 s
///         a process was inside a call on this queue, stopped there, or its shared memory was written over.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_task_done(queue: *mut tine_queue_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        let queue = unsafe { handle::borrow(queue, "queue")? };
        queue.0.task_done()
    })
}

/// Waits until every message that was put has been declared done by tine_queue_task_done().
///
/// It returns also if something is put directly afterwards. Closing the queue does not end the wait.
///
/// @param queue       The queue.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @return TINE_OK; TINE_ETIMEDOUT: there are unfinished messages, perhaps of a consumer that was killed: see
///         tine_queue_unfinished(); TINE_EINTR.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_join(queue: *mut tine_queue_t, timeout_ms: i64) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        let queue = unsafe { handle::borrow(queue, "queue")? };
        queue.0.join(arg::timeout(timeout_ms)?)
    })
}

/// A descriptor to poll(2) for messages: readable while tine_queue_get() with timeout 0 may have one, or its end, to tell.
///
/// Level-triggered, with false alarms: it becomes silent when a call to take or peek at a message finds the queue empty. Only poll it;
/// it is the queue's, close-on-exec, and inherited by forked children and by the workers of pools that are made later.
///
/// @param queue  The queue.
/// @return The descriptor; -1 for a queue without TINE_QUEUE_POLLABLE.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_fd(queue: *mut tine_queue_t) -> i32 {
    guard::value(-1, || {
        // SAFETY: contract H.
        let queue = unsafe { handle::borrow(queue, "queue")? };
        Ok(queue.0.descriptor().unwrap_or(-1))
    })
}

/// Frees this process's handle; others keep theirs. After tine_queue_close() calls may still be asleep on it.
///
/// @param queue  The queue; NULL is fine.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_queue_free(queue: *mut tine_queue_t) {
    // SAFETY: contract H.
    guard::release(|| unsafe {
        if let Ok(queue) = handle::borrow(queue, "queue") {
            queue.0.leave();
        }
        handle::free(queue);
    });
}
