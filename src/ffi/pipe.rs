//! Pipes.

use std::ffi::{c_int, c_void};
use std::os::fd::IntoRawFd;

use super::status::tine_status_t;
use super::{arg, guard, handle};
use crate::error::Error;
use crate::ipc::pipe::{self, Connection};

/// One end of a pipe: sends and receives messages, whole or not at all.
///
/// Fork: works in a forked child, which has its own copy of the end. Each process closes the copies that it does not use, or the
/// other end never sees the end of the file.
pub struct tine_connection_t(Connection);

/// `a` only receives and `b` only sends.
pub const TINE_PIPE_SIMPLEX: u32 = 1;

/// Makes a pipe: two connected ends.
///
/// @param flags  0 = both ends send and receive; TINE_PIPE_SIMPLEX.
/// @param out_a  One end; tine_connection_free() it.
/// @param out_b  The other; tine_connection_free() it.
/// @return TINE_OK; TINE_EINVAL; TINE_EMFILE; TINE_ENOMEM; TINE_ENOSPC.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_pipe_new(
    flags: u32,
    out_a: *mut *mut tine_connection_t,
    out_b: *mut *mut tine_connection_t,
) -> tine_status_t {
    guard::status(|| {
        let (out_a, out_b) = (arg::out(out_a, "out_a")?, arg::out(out_b, "out_b")?);
        let flags = arg::flags(flags, TINE_PIPE_SIMPLEX, "flags")?;
        if out_a == out_b {
            return Err(Error::invalid("out_b is out_a: one of the ends would be lost"));
        }
        let (a, b) = pipe::pipe(flags & TINE_PIPE_SIMPLEX != 0)?;
        // SAFETY: contract O.
        unsafe {
            handle::create(tine_connection_t(a), out_a);
            handle::create(tine_connection_t(b), out_b);
        }
        Ok(())
    })
}

/// Makes a connection of a descriptor that another process handed on: the tine_connection_fd() of one of its ends, inherited or sent.
///
/// @param fd              The descriptor. On success it belongs to the connection, and is close-on-exec; on failure it stays the
///                        caller's.
/// @param flags           0; TINE_PIPE_SIMPLEX for the receiving end of a simplex pipe.
/// @param out_connection  The new connection; tine_connection_free() it.
/// @return TINE_OK; TINE_EINVAL, also if the descriptor is no end of a pipe; TINE_EMFILE; TINE_ENOMEM; TINE_ENOSPC.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_connection_from_fd(
    fd: c_int,
    flags: u32,
    out_connection: *mut *mut tine_connection_t,
) -> tine_status_t {
    guard::status(|| {
        let out_connection = arg::out(out_connection, "out_connection")?;
        let flags = arg::flags(flags, TINE_PIPE_SIMPLEX, "flags")?;
        let connection = Connection::from_fd(fd, flags & TINE_PIPE_SIMPLEX != 0)?;
        // SAFETY: contract O.
        unsafe { handle::create(tine_connection_t(connection), out_connection) };
        Ok(())
    })
}

/// Sends one message. After a failure nothing of it arrives.
///
/// Threads: several threads and processes may send on one end.
///
/// @param connection  The end to send on.
/// @param data        First byte of the message. May be NULL if `len` is 0: empty messages are messages.
/// @param len         Length in bytes, at most 2 GiB.
/// @param timeout_ms  Longest wait for room in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @return TINE_OK; TINE_ETIMEDOUT if there was no room in time; TINE_EEOF if the other end is gone; TINE_ECLOSED if this one was
///         closed; TINE_EPERM if it only receives; TINE_EMSGSIZE above 2 GiB; TINE_ENOSPC, TINE_ENOMEM, TINE_EMFILE, TINE_EAGAIN for
///         what a large message needs; TINE_EINTR; TINE_EINVAL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_connection_send(
    connection: *mut tine_connection_t,
    data: *const c_void,
    len: usize,
    timeout_ms: i64,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and B.
        let (connection, data) = unsafe { (handle::borrow(connection, "connection")?, arg::bytes(data, len, "data")?) };
        connection.0.send(data, arg::timeout(timeout_ms)?)
    })
}

/// Receives one message.
///
/// @param connection  The end to receive on.
/// @param buffer      Where to; may be NULL if `capacity` is 0.
/// @param capacity    Its size in bytes.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @param out_len     The length of the message; also after TINE_ETOOSMALL, which leaves the message where it is. May be NULL.
/// @return TINE_OK; TINE_ETIMEDOUT; TINE_EEOF once every copy of the other end is closed and everything was taken; TINE_ETOOSMALL;
///         TINE_EMSGSIZE if the next message is a descriptor (nothing is taken); TINE_ECLOSED if this end was closed; TINE_EPERM if
///         it only sends; TINE_EMFILE; TINE_ECORRUPT; TINE_EINTR; TINE_EINVAL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_connection_recv(
    connection: *mut tine_connection_t,
    buffer: *mut c_void,
    capacity: usize,
    timeout_ms: i64,
    out_len: *mut usize,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H, B and O.
        unsafe {
            let connection = handle::borrow(connection, "connection")?;
            let buffer = arg::buffer(buffer, capacity, "buffer")?;
            arg::length(out_len, connection.0.recv(buffer, arg::timeout(timeout_ms)?))
        }
    })
}

/// Receives one message into memory of its own.
///
/// @param connection  The end to receive on.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @param out_data    The message; tine_free() it. Never NULL, also if the message is empty.
/// @param out_len     Its length in bytes. May be NULL.
/// @return As tine_connection_recv(), never TINE_ETOOSMALL; TINE_ENOMEM leaves the message where it is.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_connection_recv_alloc(
    connection: *mut tine_connection_t,
    timeout_ms: i64,
    out_data: *mut *mut c_void,
    out_len: *mut usize,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and O.
        unsafe {
            let connection = handle::borrow(connection, "connection")?;
            let out_data = arg::out(out_data, "out_data")?;
            let (buffer, length) = connection.0.recv_alloc(arg::timeout(timeout_ms)?)?;
            arg::put(out_len, length);
            out_data.write(buffer.hand_out());
        }
        Ok(())
    })
}

/// Waits until there is something to receive, or the end. Takes nothing.
///
/// @param connection  The end to receive on.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @return TINE_OK if tine_connection_recv() has something to tell: a message or TINE_EEOF; TINE_ETIMEDOUT; TINE_ECLOSED; TINE_EPERM
///         if this end only sends; TINE_EINTR; TINE_EINVAL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_connection_poll(connection: *mut tine_connection_t, timeout_ms: i64) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        let connection = unsafe { handle::borrow(connection, "connection")? };
        connection.0.poll(arg::timeout(timeout_ms)?)
    })
}

/// Sends a copy of a descriptor, which takes its turn among the messages.
///
/// @param connection  The end to send on.
/// @param fd          The descriptor; stays the caller's.
/// @param timeout_ms  Longest wait for room in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @return As tine_connection_send(); TINE_EINVAL if `fd` is not open.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_connection_send_fd(
    connection: *mut tine_connection_t,
    fd: c_int,
    timeout_ms: i64,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        let connection = unsafe { handle::borrow(connection, "connection")? };
        connection.0.send_fd(fd, arg::timeout(timeout_ms)?)
    })
}

/// Receives a descriptor.
///
/// @param connection  The end to receive on.
/// @param timeout_ms  Longest wait in milliseconds; 0 tries once, TINE_FOREVER waits without limit.
/// @param out_fd      The descriptor, close-on-exec; the caller closes it.
/// @return As tine_connection_recv(); TINE_EMSGSIZE if the next message is bytes (nothing is taken).
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_connection_recv_fd(
    connection: *mut tine_connection_t,
    timeout_ms: i64,
    out_fd: *mut c_int,
) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contracts H and O.
        unsafe {
            let connection = handle::borrow(connection, "connection")?;
            let out_fd = arg::out(out_fd, "out_fd")?;
            out_fd.write(connection.0.recv_fd(arg::timeout(timeout_ms)?)?.into_raw_fd());
        }
        Ok(())
    })
}

/// A descriptor that is readable when there is something to receive, or the end: for poll(2), and to hand the end on to a process
/// that makes a connection of it.
///
/// @param connection  The connection.
/// @return The descriptor, which belongs to the connection; -1 for NULL and once it is closed.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_connection_fd(connection: *const tine_connection_t) -> c_int {
    // SAFETY: contract H.
    guard::value(-1, || unsafe { handle::borrow(connection, "connection")? }.0.fd())
}

/// Closes this process's copy of an end. Calls that are asleep on it answer TINE_ECLOSED, and so does every later one.
///
/// @param connection  The connection; tine_connection_free() it all the same.
/// @return TINE_OK, also if it was closed before; TINE_EINVAL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_connection_close(connection: *mut tine_connection_t) -> tine_status_t {
    guard::status(|| {
        // SAFETY: contract H.
        unsafe { handle::borrow(connection, "connection")? }.0.close();
        Ok(())
    })
}

/// Closes this process's copy of an end, if it is not closed yet, and frees the handle.
///
/// @param connection  The connection; NULL is fine.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_connection_free(connection: *mut tine_connection_t) {
    // SAFETY: contract H.
    guard::release(|| unsafe { handle::free(connection) });
}
