//! The file that a token or a name leads to.
#![no_main]

#[path = "../shared.rs"]
mod shared;

libfuzzer_sys::fuzz_target!(|data: &[u8]| shared::run(shared::bytes::head, data));
