//! Memory that several processes see, and the only ways to touch it.
//!
//! Whatever lies here may be written by a process that is dying, stopped, of another build or hostile, at any moment. So it
//! consists of atomic words and plain bytes only ([`Shared`]), is never the target of a Rust reference to anything else, and every
//! value read from it is validated before it is used as an index, a length or an address. No number found here is ever signalled,
//! waited for or used as a descriptor.
#![allow(unsafe_code, reason = "typed views of mapped memory")]

pub mod bytes;
pub mod cell;
pub mod handing_on;
pub mod layout;
pub mod name;
pub mod pool;
mod registry;
pub mod segment;
pub mod shared_memory;
pub mod slab;
pub mod spin;
pub mod window;
pub mod word;
pub mod words;

pub use bytes::Bytes;
pub use cell::RobustCell;
pub use handing_on::{HandedOn, Token};
pub use name::{Name, Naming};
pub use segment::{Extent, Object, Objects, Segment};
pub use shared_memory::SharedMemory;
pub use spin::Spin;
pub use window::{Array, View, Window};
pub use word::{Shared, Word, Word64};
pub use words::{Woken, Words};
