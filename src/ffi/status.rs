//! The numbers that calls return. They are part of the ABI: new ones are appended, none is reused.

use std::ffi::{CStr, c_char};

use super::guard;
use crate::error::Kind;

/// What a call came to: 0 done, negative failed, positive done with a note. New values may appear: have a default branch.
pub type tine_status_t = i32;

/// Done.
pub const TINE_OK: tine_status_t = 0;
/// Acquired; the previous owner died inside: check the data that the lock guards.
pub const TINE_OWNER_DIED: tine_status_t = 1;
/// The command ended; a descendant still holds its output open, what came until now is returned.
pub const TINE_PIPE_HELD: tine_status_t = 2;
/// An argument is wrong; the message names it.
pub const TINE_EINVAL: tine_status_t = -1;
/// An options struct from a newer header has a field set that this library does not know.
pub const TINE_E2BIG: tine_status_t = -2;
/// No memory.
pub const TINE_ENOMEM: tine_status_t = -3;
/// No space: shared memory, a limit on file sizes, a full disk.
pub const TINE_ENOSPC: tine_status_t = -4;
/// Any other failure of the operating system; see tine_last_errno().
pub const TINE_ESYS: tine_status_t = -5;
/// The library failed; the message says where. The object may refuse from now on.
pub const TINE_EPANIC: tine_status_t = -6;
/// Not supported here.
pub const TINE_ENOTSUP: tine_status_t = -7;
/// Not permitted, or the wrong direction of a pipe.
pub const TINE_EPERM: tine_status_t = -8;
/// Access denied.
pub const TINE_EACCES: tine_status_t = -9;
/// No such program, directory or name.
pub const TINE_ENOENT: tine_status_t = -10;
/// The name exists.
pub const TINE_EEXIST: tine_status_t = -11;
/// Part of a path is not a directory.
pub const TINE_ENOTDIR: tine_status_t = -12;
/// Out of descriptors.
pub const TINE_EMFILE: tine_status_t = -13;
/// Out of a resource that may come back: processes, locks held by one thread.
pub const TINE_EAGAIN: tine_status_t = -14;
/// This thread's interrupt check ended the wait.
pub const TINE_EINTR: tine_status_t = -15;
/// The time ran out.
pub const TINE_ETIMEDOUT: tine_status_t = -16;
/// No room in time.
pub const TINE_EFULL: tine_status_t = -17;
/// Nothing there in time.
pub const TINE_EEMPTY: tine_status_t = -18;
/// Closed.
pub const TINE_ECLOSED: tine_status_t = -19;
/// The other end is gone and everything was taken.
pub const TINE_EEOF: tine_status_t = -20;
/// The message is too long, or of the other kind.
pub const TINE_EMSGSIZE: tine_status_t = -21;
/// The buffer is too small; the length needed was written, nothing was taken.
pub const TINE_ETOOSMALL: tine_status_t = -22;
/// The calling thread does not hold it.
pub const TINE_ENOTOWNER: tine_status_t = -23;
/// The calling thread holds it already and would wait for itself.
pub const TINE_EDEADLK: tine_status_t = -24;
/// Above the maximum; nothing was changed.
pub const TINE_EOVERFLOW: tine_status_t = -25;
/// In use, still running, or not from here.
pub const TINE_EBUSY: tine_status_t = -26;
/// The handle belongs to the process that this one was forked from.
pub const TINE_EFORKED: tine_status_t = -27;
/// Broken for good; the message says why.
pub const TINE_EBROKEN: tine_status_t = -28;
/// Canceled.
pub const TINE_ECANCELED: tine_status_t = -29;
/// The task returned something other than 0.
pub const TINE_ETASKFAILED: tine_status_t = -30;
/// The task's worker process died.
pub const TINE_EWORKERDIED: tine_status_t = -31;
/// The process ended and nobody can know how: the host took its status.
pub const TINE_ESTATUSLOST: tine_status_t = -32;
/// The shared memory of the object was written over.
pub const TINE_ECORRUPT: tine_status_t = -33;

/// Total: a new kind does not compile until it has a number.
pub(super) fn of(kind: Kind) -> tine_status_t {
    match kind {
        Kind::Invalid => TINE_EINVAL,
        Kind::TooNew => TINE_E2BIG,
        Kind::NoMemory => TINE_ENOMEM,
        Kind::NoSpace => TINE_ENOSPC,
        Kind::System => TINE_ESYS,
        Kind::Panic => TINE_EPANIC,
        Kind::NotSupported => TINE_ENOTSUP,
        Kind::NotPermitted => TINE_EPERM,
        Kind::Access => TINE_EACCES,
        Kind::NotFound => TINE_ENOENT,
        Kind::Exists => TINE_EEXIST,
        Kind::NotDirectory => TINE_ENOTDIR,
        Kind::NoDescriptors => TINE_EMFILE,
        Kind::Again => TINE_EAGAIN,
        Kind::Interrupted => TINE_EINTR,
        Kind::TimedOut => TINE_ETIMEDOUT,
        Kind::Full => TINE_EFULL,
        Kind::Empty => TINE_EEMPTY,
        Kind::Closed => TINE_ECLOSED,
        Kind::EndOfFile => TINE_EEOF,
        Kind::MessageSize => TINE_EMSGSIZE,
        Kind::TooSmall => TINE_ETOOSMALL,
        Kind::NotOwner => TINE_ENOTOWNER,
        Kind::Deadlock => TINE_EDEADLK,
        Kind::Overflow => TINE_EOVERFLOW,
        Kind::Busy => TINE_EBUSY,
        Kind::Forked => TINE_EFORKED,
        Kind::Broken => TINE_EBROKEN,
        Kind::Canceled => TINE_ECANCELED,
        Kind::TaskFailed => TINE_ETASKFAILED,
        Kind::WorkerDied => TINE_EWORKERDIED,
        Kind::StatusLost => TINE_ESTATUSLOST,
        Kind::Corrupt => TINE_ECORRUPT,
    }
}

/// The fixed text for a status.
///
/// @param status  Any number; unknown ones have a text too.
/// @return A static string, never NULL.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub extern "C" fn tine_strerror(status: i32) -> *const c_char {
    guard::value(c"unknown status".as_ptr(), || Ok(text(status).as_ptr()))
}

pub(super) fn text(status: tine_status_t) -> &'static CStr {
    match status {
        TINE_OK => c"done",
        TINE_OWNER_DIED => c"acquired, and the previous owner died inside",
        TINE_PIPE_HELD => c"the command ended, and a descendant still holds its output open",
        TINE_EINVAL => c"invalid argument",
        TINE_E2BIG => c"options from a newer header than this library",
        TINE_ENOMEM => c"out of memory",
        TINE_ENOSPC => c"out of space",
        TINE_ESYS => c"operating system failure",
        TINE_EPANIC => c"internal failure of the library",
        TINE_ENOTSUP => c"not supported",
        TINE_EPERM => c"not permitted",
        TINE_EACCES => c"access denied",
        TINE_ENOENT => c"not found",
        TINE_EEXIST => c"exists already",
        TINE_ENOTDIR => c"not a directory",
        TINE_EMFILE => c"out of descriptors",
        TINE_EAGAIN => c"resource temporarily unavailable",
        TINE_EINTR => c"interrupted",
        TINE_ETIMEDOUT => c"timed out",
        TINE_EFULL => c"full",
        TINE_EEMPTY => c"empty",
        TINE_ECLOSED => c"closed",
        TINE_EEOF => c"end of file",
        TINE_EMSGSIZE => c"message too long",
        TINE_ETOOSMALL => c"buffer too small",
        TINE_ENOTOWNER => c"not held by the calling thread",
        TINE_EDEADLK => c"would wait for itself",
        TINE_EOVERFLOW => c"above the maximum",
        TINE_EBUSY => c"busy",
        TINE_EFORKED => c"the handle belongs to the parent process",
        TINE_EBROKEN => c"broken",
        TINE_ECANCELED => c"canceled",
        TINE_ETASKFAILED => c"the task failed",
        TINE_EWORKERDIED => c"the worker process died",
        TINE_ESTATUSLOST => c"the exit status is lost",
        TINE_ECORRUPT => c"shared memory is corrupt",
        _ => c"unknown status",
    }
}
