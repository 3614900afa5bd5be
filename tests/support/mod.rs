//! What the tests that fork, stop and kill have in common: confinement, children, shared boards, and seeing that somebody sleeps.
//!
//! These tests have a main of their own and one thread: Rust's harness runs tests on threads, and a fork of a threaded process
//! may hang in its child. Nothing is ever signalled but what [`child::Child`] forked itself.
#![allow(dead_code, reason = "each test uses its part")]

pub mod arena;
pub mod arguments;
pub mod child;
pub mod clock;
pub mod confine;
pub mod host;
pub mod message;
pub mod random;
pub mod rest;
