//! What can go wrong: a kind (one for each negative status of the C ABI), the operating system's number where there is one, and a
//! sentence that names the object, the argument and the reason.
#![forbid(unsafe_code)]

use std::borrow::Cow;

pub type Result<T> = std::result::Result<T, Error>;

/// One for each failing `tine_status_t`; `ffi::status` has the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Invalid,
    TooNew,
    NoMemory,
    NoSpace,
    System,
    Panic,
    NotSupported,
    NotPermitted,
    Access,
    NotFound,
    Exists,
    NotDirectory,
    NoDescriptors,
    Again,
    Interrupted,
    TimedOut,
    Full,
    Empty,
    Closed,
    EndOfFile,
    MessageSize,
    TooSmall,
    NotOwner,
    Deadlock,
    Overflow,
    Busy,
    Forked,
    Broken,
    Canceled,
    TaskFailed,
    WorkerDied,
    StatusLost,
    Corrupt,
}

/// What a call that succeeded has to add: the positive statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    None,
    /// Acquired, and the previous owner died inside.
    OwnerDied,
    /// The command ended; a descendant still holds its output open.
    PipeHeld,
}

/// The text is not allocated unless it has something to say that is known only at run time: polling callers meet Full, Empty and
/// TimedOut all the time.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: Kind,
    errno: i32,
    message: Cow<'static, str>,
    /// The length that would have been enough, with [`Kind::TooSmall`].
    needed: usize,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Error {
        Error { kind, errno: 0, message: message.into(), needed: 0 }
    }

    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::Invalid, message)
    }

    /// A buffer that is too small for `needed` bytes; nothing was taken.
    pub fn too_small(needed: usize, message: impl Into<Cow<'static, str>>) -> Error {
        Error { needed, ..Error::new(Kind::TooSmall, message) }
    }

    /// A failed system call; made by `sys::failure`, which knows the numbers.
    pub fn with_errno(kind: Kind, errno: i32, message: String) -> Error {
        Error { kind, errno, message: message.into(), needed: 0 }
    }

    /// The same error seen from further out: `context: message`.
    pub fn context(self, context: impl std::fmt::Display) -> Error {
        Error { message: format!("{context}: {}", self.message).into(), ..self }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The operating system's number, or 0.
    pub fn errno(&self) -> i32 {
        self.errno
    }

    pub fn needed(&self) -> usize {
        self.needed
    }

    pub fn message(&self) -> &str {
        &self.message
    }
}
