//! Random SIGKILLs while several processes work on one object.
//!
//! `soak [queue|lock|semaphore|event|condition|barrier…]`: about seven seconds; `TINE_SOAK_SECONDS` is how long each object is worked on,
//! `TINE_SOAK_SEED` chooses who is killed when.
#![allow(clippy::print_stdout, reason = "a test program")]

#[path = "../support/mod.rs"]
mod support;

mod crew;
mod locks;
mod meetings;
mod queue;

use std::fmt::Display;
use std::time::{Duration, Instant};

use locks::Board;
use support::arguments::Arguments;
use support::random::Random;
use support::{clock, confine, host};

/// Each on a fresh object; at the end of each nobody may be left behind.
const ROUND: Duration = Duration::from_millis(250);
/// What a sound process's private memory may grow by.
const MEMORY_SLACK: usize = 4 << 20;
const OBJECTS: [&str; 6] = ["queue", "lock", "semaphore", "event", "condition", "barrier"];

fn main() {
    let arguments = Arguments::read();
    if arguments.has("--list") {
        OBJECTS.iter().for_each(|object| println!("soak.{object}: test"));
        return;
    }
    let asked = clock::number("TINE_SOAK_SECONDS");
    let limit = clock::scaled(120.0) + Duration::from_secs_f64(asked.unwrap_or(0.0) * 8.0);
    confine::run("soak", limit, || {
        let seed = clock::number("TINE_SOAK_SEED").unwrap_or(1.0) as u64;
        let chosen = OBJECTS.into_iter().filter(|object| arguments.select(&format!("soak.{object}")));
        let failed = chosen.map(|object| soak(object, asked, seed)).filter(|failed| *failed).count();
        println!("soak: {}", if failed == 0 { "passed" } else { "FAILED" });
        i32::from(failed > 0)
    });
}

/// Works on one object; answers whether something was found.
fn soak(object: &str, asked: Option<f64>, seed: u64) -> bool {
    confine::label(object);
    let seconds = Duration::from_secs_f64(asked.unwrap_or(if object == "queue" { 2.0 } else { 1.0 }));
    let random = &mut Random::new(seed);
    match object {
        "queue" => {
            let books = queue::Books::new();
            let mut sum = queue::Sum::default();
            let result = rounds(seconds, |number| books.round(ROUND, number, random, &mut sum));
            let queue::Sum { rounds, kills, returned, delivered, lost, extra } = sum;
            report(
                object,
                seed,
                result,
                format_args!(
                    "{rounds} rounds, {kills} kills, {returned} puts returned, {delivered} messages delivered, {lost} lost with \
                     consumers that were taking them, {extra} delivered though the producer died first, 0 doubled"
                ),
            )
        }
        "lock" => {
            let board = Board::new(4);
            let mut sum = locks::Sum::default();
            let result = rounds(seconds, |number| locks::lock_round(&board, ROUND, number % 2 == 1, random, &mut sum));
            let locks::Sum { rounds, kills, operations, told } = sum;
            report(
                object,
                seed,
                result,
                format_args!("{rounds} rounds, {kills} kills, {operations} operations, {told} deaths told"),
            )
        }
        "semaphore" => {
            let board = Board::new(locks::SEMAPHORE_CREW);
            let mut sum = locks::Sum::default();
            let result = rounds(seconds, |_| locks::semaphore_round(&board, ROUND, random, &mut sum));
            let locks::Sum { rounds, kills, operations, told } = sum;
            report(
                object,
                seed,
                result,
                format_args!("{rounds} rounds, {kills} kills, {operations} operations, {told} permits went with the dead"),
            )
        }
        "condition" => {
            let board = meetings::Board::new(meetings::CONDITION_CREW);
            let mut sum = locks::Sum::default();
            let result = rounds(seconds, |_| meetings::condition_round(&board, ROUND, random, &mut sum));
            let locks::Sum { rounds, kills, operations, told } = sum;
            report(
                object,
                seed,
                result,
                format_args!("{rounds} rounds, {kills} kills, {operations} operations, {told} deaths told, 0 notifications lost"),
            )
        }
        "barrier" => {
            let board = meetings::Board::new(meetings::PARTIES);
            let mut sum = locks::Sum::default();
            let result = rounds(seconds, |_| meetings::barrier_round(&board, ROUND, random, &mut sum));
            let locks::Sum { rounds, kills, operations, told } = sum;
            report(
                object,
                seed,
                result,
                format_args!("{rounds} rounds, {kills} kills, {operations} waits came to their end, {told} were broken"),
            )
        }
        _ => {
            let board = Board::new(locks::EVENT_CREW);
            let mut sum = locks::Sum::default();
            let result = rounds(seconds, |_| locks::event_round(&board, ROUND, random, &mut sum));
            let locks::Sum { rounds, kills, operations, .. } = sum;
            report(object, seed, result, format_args!("{rounds} rounds, {kills} kills, {operations} operations"))
        }
    }
}

/// As many rounds as fit; descriptors and mappings must be back where they began, and private memory not far above.
fn rounds(seconds: Duration, mut round: impl FnMut(usize) -> Result<(), String>) -> Result<(), String> {
    let end = Instant::now() + seconds;
    let mut before = None;
    for number in 0.. {
        round(number)?;
        // What the library makes once (a slab for small objects) is there after the first round.
        let now = (host::descriptors().len(), host::shared_mappings().len());
        let memory = host::private_memory();
        let (first, first_memory) = *before.get_or_insert((now, memory));
        if first != now {
            return Err(format!("{first:?} descriptors and mappings after the first round, {now:?} after round {number}"));
        }
        if memory > first_memory + MEMORY_SLACK {
            return Err(format!("{first_memory} bytes of private memory after the first round, {memory} after round {number}"));
        }
        if Instant::now() >= end {
            break;
        }
    }
    Ok(())
}

fn report(object: &str, seed: u64, result: Result<(), String>, sum: impl Display) -> bool {
    let verdict = match &result {
        Ok(()) => "0 stalls, ok".to_owned(),
        Err(text) => format!("FAILED (seed {seed}): {text}"),
    };
    println!("soak: {object}: {sum}: {verdict}");
    result.is_err()
}
