//! Models of the protocols and a checker that visits all their states, kills included.
//!
//! The code is shown right in two ways that need each other. Here every order of steps and kills of a *model* is tried: nothing is
//! left to chance, but a model is not the code. `sync::explore` runs the *code* itself under a scheduler that kills: nothing is
//! left out, but not every order is tried. Each model has mutants, single mistakes that the checker must find: a property that
//! catches nothing proves nothing.
//!
//! `TINE_MODEL_SIZE=1` (2, …) checks larger systems; `cargo test model -- --nocapture` prints the numbers of states.
#![forbid(unsafe_code)]

mod barrier;
mod checker;
mod condition;
mod descriptor;
mod event;
mod kernel;
mod large;
mod lock;
mod queue;
mod semaphore;
mod tasks;
mod tracked;

use checker::{Model, Outcome, Report, check};

/// What `cargo test` may take; larger systems come with `TINE_MODEL_SIZE`.
const LIMIT: usize = 40_000_000;

/// How much larger than usual the systems are to be, at most `most`.
fn size(most: u8) -> u8 {
    std::env::var("TINE_MODEL_SIZE").ok().and_then(|size| size.parse().ok()).unwrap_or(0).min(most)
}

fn expect_right<M: Model + std::fmt::Debug>(model: &M) {
    let Report { states, steps, outcome } = check(model, LIMIT);
    match outcome {
        Outcome::Right => tell(&format!("{model:?}: right in all of {states} states ({steps} steps)")),
        Outcome::TooLarge => panic!("{model:?}: more than {LIMIT} states"),
        Outcome::Wrong { what, trace } => panic!("{model:?}: {what}\n{}", trace.join("\n")),
    }
}

/// A mutant that is not found is a hole in the properties.
fn expect_wrong<M: Model + std::fmt::Debug>(model: &M) {
    let Report { states, outcome, .. } = check(model, LIMIT);
    match outcome {
        Outcome::Wrong { what, trace } => {
            tell(&format!("{model:?}: found after {states} states, {} steps: {what}", trace.len() - 1));
        }
        other => panic!("{model:?}: the mistake was not found in {states} states: {other:?}"),
    }
}

#[allow(clippy::print_stdout, reason = "a report of a test")]
fn tell(line: &str) {
    println!("{line}");
}
