//! to come
#![forbid(unsafe_code)]

pub mod board;
pub mod journal;
