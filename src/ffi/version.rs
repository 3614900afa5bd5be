//! Which library this is.

use std::ffi::c_char;

use super::guard;

/// Version of this header.
pub const TINE_VERSION_MAJOR: u32 = 0;
/// Version of this header.
pub const TINE_VERSION_MINOR: u32 = 1;
/// Version of this header.
pub const TINE_VERSION_PATCH: u32 = 0;
/// Version of this header as one number: major * 10000 + minor * 100 + patch.
pub const TINE_VERSION_NUMBER: u32 = 100;

const _: () = assert!(TINE_VERSION_NUMBER == TINE_VERSION_MAJOR * 10000 + TINE_VERSION_MINOR * 100 + TINE_VERSION_PATCH);

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");

/// The version of the library that runs, as "major.minor.patch".
///
/// @return A static string.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub extern "C" fn tine_version() -> *const c_char {
    guard::value(c"".as_ptr(), || Ok(VERSION.as_ptr().cast()))
}

/// The version of the library that runs, as one number; compare with TINE_VERSION_NUMBER of the header that you compiled with.
///
/// @return major * 10000 + minor * 100 + patch.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub extern "C" fn tine_version_number() -> u32 {
    guard::value(0, || Ok(TINE_VERSION_NUMBER))
}
