//! Whatever forks without exec: a runner with one thread, and a process for each test. All of it runs twice, the second time where
//! the kernel refuses pidfds and close_range.
//!
//! `cargo test --test fork -- NAME...` runs the tests whose names contain one of the words. A file of tests has a `TESTS` and a line
//! in `FILES`.

mod filter;
mod process;
mod runner;
mod strict;
mod system;

const FILES: &[(&str, &[runner::Test])] = &[("system", system::TESTS), ("process", process::TESTS)];

fn main() {
    runner::main(FILES);
}
