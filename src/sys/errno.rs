//! From the operating system's numbers to our kinds.

use std::fmt::Display;

use crate::error::{Error, Kind};

/// Numbers that the layers above tell apart.
pub mod number {
    pub const MESSAGE_SIZE: i32 = libc::EMSGSIZE;
    pub const FILE_TOO_LARGE: i32 = libc::EFBIG;
    pub const NO_MEMORY: i32 = libc::ENOMEM;
    pub const BAD_DESCRIPTOR: i32 = libc::EBADF;
    pub const CANCELED: i32 = libc::ECANCELED;

    /// Whether the process has no number left for one more descriptor.
    pub fn is_no_descriptor(errno: i32) -> bool {
        matches!(errno, libc::EMFILE | libc::ENFILE)
    }

    /// Whether there may be room later.
    pub fn is_no_room(errno: i32) -> bool {
        matches!(errno, libc::ENOSPC | libc::ENOMEM | libc::EFBIG | libc::EDQUOT)
    }
}

/// Of what runs where nothing may be allocated: the failure is a plain number.
pub type Result<T> = std::result::Result<T, i32>;

/// The calling thread's `errno`.
pub fn errno() -> i32 {
    // SAFETY: libc returns the address of this thread's errno.
    unsafe { *libc::__errno_location() }
}

/// An error for a call that failed with `errno`; `what` is the call with the arguments that matter.
#[cold]
pub fn failure(errno: i32, what: impl Display) -> Error {
    let reason = std::io::Error::from_raw_os_error(errno);
    Error::with_errno(kind(errno), errno, format!("{what}: {reason}"))
}

/// [`failure`] with the calling thread's `errno`.
#[cold]
pub fn last_failure(what: impl Display) -> Error {
    failure(errno(), what)
}

/// The numbers that a caller can act on have a status of their own; everything else is ESYS.
pub fn kind(errno: i32) -> Kind {
    match errno {
        libc::ENOMEM => Kind::NoMemory,
        libc::ENOSPC | libc::EFBIG | libc::EDQUOT => Kind::NoSpace,
        libc::EPERM => Kind::NotPermitted,
        libc::EACCES => Kind::Access,
        libc::ENOENT => Kind::NotFound,
        libc::EEXIST => Kind::Exists,
        libc::ENOTDIR => Kind::NotDirectory,
        libc::EMFILE | libc::ENFILE => Kind::NoDescriptors,
        libc::EAGAIN => Kind::Again,
        libc::EMSGSIZE => Kind::MessageSize,
        libc::ECANCELED => Kind::Canceled,
        libc::ENOSYS | libc::EOPNOTSUPP => Kind::NotSupported,
        _ => Kind::System,
    }
}
