//! Proves the instruments: for each mistake that the unit tests can make (`src/mutant.rs`) the explorations that are to find it must
//! fail. (`sync::model` has the same mistakes, and more, as variants of the models; its own tests see to those.)
//!
//! `mutants [WORD…] [--list]`: the mutants whose names contain one of the words.
#![allow(clippy::print_stdout, reason = "a test program")]

#[path = "support/arguments.rs"]
mod arguments;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use arguments::Arguments;

const QUEUE: &str = "ipc::queue::exploration::two_producers_two_consumers";
const ONE_PUT: &str = "ipc::queue::exploration::every_schedule_of_one_put_and_two_gets";
const TWO_PUTS: &str = "ipc::queue::exploration::every_schedule_of_two_puts_and_one_get";
const LARGE_MESSAGES: &str = "ipc::queue::exploration::large_messages";
const DECLARING: &str = "ipc::queue::exploration::declaring_all_messages_done";
const TELLING: &str = "ipc::queue::exploration::telling_by_a_descriptor";
const IN_PLACE: &str = "ipc::queue::exploration::messages_in_place";
const HOLDING: &str = "ipc::queue::exploration::two_reservers_and_one_getter";
const MANY: &str = "ipc::queue::exploration::many_at_once";
const GROWING: &str = "ipc::queue::exploration::a_queue_that_grows";
const LOCK: &str = "sync::explore::scenarios::lock";
const SEMAPHORE: &str = "sync::explore::scenarios::semaphore";
const TRACKED: &str = "sync::explore::scenarios::tracked_semaphore";
const CONDITION: &str = "sync::explore::scenarios::condition";
const CONDITION_AGAIN: &str = "sync::explore::scenarios::condition_again_and_again";
const BARRIER: &str = "sync::explore::scenarios::barrier";
const EVENT: &str = "sync::explore::scenarios::event";
const TAKING: &str = "pool::exploration::taking";
const CONDEMNING: &str = "pool::exploration::condemning";
const REPLYING: &str = "pool::exploration::replying";

/// Each mistake, and the explorations of the objects that it breaks.
const MUTANTS: [(&str, &[&str]); 25] = [
    ("release_drops_w", &[LOCK]),
    ("pending_after_cas", &[LOCK]),
    ("leader_not_linked", &[LOCK, SEMAPHORE, TRACKED, CONDITION, BARRIER, QUEUE]),
    ("publish_before_wake", &[SEMAPHORE, EVENT, CONDITION, ONE_PUT, DECLARING]),
    ("recovery_does_not_wake", &[SEMAPHORE, EVENT, CONDITION, TWO_PUTS]),
    ("recovery_only_in_producers", &[SEMAPHORE, LARGE_MESSAGES]),
    ("doorbell_reset_outside_lock", &[SEMAPHORE, QUEUE]),
    ("two_store_publish", &[QUEUE]),
    ("end_leaves_bell", &[DECLARING]),
    ("commit_before_header", &[IN_PLACE]),
    ("lookers_not_woken", &[HOLDING]),
    ("many_counted_as_one", &[MANY]),
    ("gives_back_what_is_in_use", &[GROWING]),
    ("loud_before_token", &[TELLING]),
    ("token_before_silent", &[TELLING]),
    ("leader_does_not_look", &[TRACKED, BARRIER]),
    ("bell_not_rung", &[TRACKED]),
    ("credit_taken_before_lock", &[CONDITION]),
    ("round_not_finished", &[BARRIER]),
    ("seat_taken_for_its_waiter", &[CONDITION_AGAIN]),
    ("sleeper_does_not_look_again", &[TAKING]),
    ("search_not_passed_on", &[TAKING]),
    ("condemned_whatever_runs", &[CONDEMNING]),
    ("result_not_checked", &[REPLYING]),
    ("unread_room_taken", &[REPLYING]),
];

fn main() -> ExitCode {
    let arguments = Arguments::read();
    if arguments.has("--list") {
        MUTANTS.iter().for_each(|(mutant, _)| println!("{mutant}: test"));
        return ExitCode::SUCCESS;
    }
    let start = Instant::now();
    let mut failures = 0;
    if arguments.select("mutants in the code") {
        failures += compare_with_code();
    }
    let selected: Vec<_> = MUTANTS.iter().filter(|(mutant, _)| arguments.select(mutant)).collect();
    let program = build();
    let next = AtomicUsize::new(0);
    let try_them = || {
        let mut failures = 0;
        while let Some((mutant, explorations)) = selected.get(next.fetch_add(1, Relaxed)) {
            failures += explorations.iter().filter(|exploration| !is_caught(&program, mutant, exploration)).count();
        }
        failures
    };
    failures += thread::scope(|scope| {
        let second = scope.spawn(try_them);
        try_them() + second.join().expect("it does not panic")
    });
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "mutants: {}, {seconds:.1} s",
        if failures == 0 { "passed".into() } else { format!("FAILED ({failures} findings)") }
    );
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one exploration of a mutant. `false`: it finds nothing, or something else goes wrong.
fn is_caught(program: &Path, mutant: &str, exploration: &str) -> bool {
    let mut run = Command::new(program);
    run.args(["--exact", exploration]).env("TINE_MUTANT", mutant).env("RUST_BACKTRACE", "0");
    for name in ["TINE_EXPLORE_RUNS", "TINE_EXPLORE_SEED", "TINE_EXPLORE_ALL", "TINE_EXPLORE_SCHEDULE"] {
        run.env_remove(name);
    }
    let output = run.output().expect("the program was just built");
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text.lines().find_map(|line| line.split_once(": wrong in "));
    let object = exploration.rsplit("::").next().unwrap_or(exploration);
    match found.filter(|_| !output.status.success()) {
        Some((_, place)) => println!("mutants: {mutant:28} {object:38} exploration: caught in {place}"),
        None => println!("mutants: {mutant:28} {object:38} exploration: FAILED: not caught ({})\n{text}", output.status),
    }
    found.is_some() && !output.status.success()
}

/// The library's unit tests: what cargo has just built, where it built them for this test.
fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["test", "--offline", "--lib", "--no-run", "--message-format", "json-render-diagnostics"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command.stderr(Stdio::inherit()).output().expect("cargo is there");
    let text = String::from_utf8_lossy(&output.stdout);
    let executable = text.rsplit_once("\"executable\":\"").and_then(|(_, rest)| rest.split_once('"'));
    executable.expect("cargo says what it has built").0.into()
}

/// A mutant that is not in the list would never be tried, one that is not in the code never be found.
fn compare_with_code() -> usize {
    let mut there = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the sources are readable") {
            let path = entry.expect("the sources are readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let named = text.split("mutant::is(\"").skip(1).filter_map(|rest| rest.split_once('"'));
                there.extend(named.map(|(mutant, _)| mutant.to_owned()));
            }
        }
    }
    let listed: BTreeSet<String> = MUTANTS.iter().map(|(mutant, _)| (*mutant).to_owned()).collect();
    for odd in there.symmetric_difference(&listed) {
        println!("mutants: {odd}: FAILED: the code and the list of tests/mutants.rs differ");
    }
    there.symmetric_difference(&listed).count()
}
