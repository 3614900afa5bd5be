//! Runs the product's own code under a scheduler that decides, at every operation on a word, who steps next, who is killed, whose
//! time runs out.
//!
//! A [`Scenario`] is a handful of threads that share a few objects. Its threads are threads of the operating system of which one
//! runs at a time; what they do to words, to sleepers and to robust words is done by a [`world`] that stands for the memory and the
//! kernel. So a killed thread is one that unwinds and touches nothing any more, and any order of events can be had again: an order is
//! the list of decisions that differ from the obvious ones ("who runs goes on"), and that is what a failure prints.
//!
//! Two ways to choose: [`explore`] takes random schedules, in the manner of probabilistic concurrency testing (few changes of who
//! runs, at random places); [`exhaust`] takes every schedule with one preemption or one kill.
//!
//! | environment | |
//! |---|---|
//! | `TINE_EXPLORE_RUNS` | random schedules for each scenario |
//! | `TINE_EXPLORE_SEED` | where the random numbers begin |
//! | `TINE_EXPLORE_ALL` | every schedule with one preemption *and* one kill: minutes |
//! | `TINE_EXPLORE_SCHEDULE` | the one schedule to run, as a failure has printed it; for one test at a time |
#![forbid(unsafe_code)]

mod baton;
mod scenarios;
mod schedule;
mod sim;
mod world;

use std::fmt::Write as _;

use crate::shm::RobustCell;

use baton::Stage;
pub use scenarios::LONG;
use schedule::{Bounds, Chooser, Depth, Schedule};
pub use sim::Sim;
use world::Fate;

/// Threads that share something.
pub trait Scenario: Sync {
    /// What they share; made anew for each run.
    type Shared: Send + Sync;

    fn threads(&self) -> usize;

    fn make(&self) -> Self::Shared;

    /// What each thread does. An `Err` is a failure of the code under test.
    fn run(&self, shared: &Self::Shared, thread: usize, sim: Sim) -> Result<(), String>;

    /// Nothing moves any more unless somebody's time runs out: may those sleep who sleep? `sim` reads without being scheduled;
    /// nothing may be changed.
    fn check_rest(&self, shared: &Self::Shared, rest: &Rest, sim: Sim) -> Result<(), String>;

    /// The last rest: whatever is left may be taken apart.
    fn check_end(&self, _shared: &Self::Shared, _rest: &Rest, _sim: Sim) -> Result<(), String> {
        Ok(())
    }

    /// Names of words, for traces.
    fn names(&self, shared: &Self::Shared, names: &mut Names);
}

/// What became of the threads when nothing moves any more.
pub struct Rest {
    fates: Vec<Fate>,
}

impl Rest {
    pub fn is_asleep(&self, thread: usize) -> bool {
        matches!(self.fates[thread], Fate::Asleep)
    }

    pub fn is_dead(&self, thread: usize) -> bool {
        matches!(self.fates[thread], Fate::Dead)
    }

    /// The threads that sleep.
    pub fn asleep(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.fates.len()).filter(|&thread| self.is_asleep(thread))
    }
}

/// Names of words, by their addresses.
#[derive(Default)]
pub struct Names {
    list: Vec<(usize, String)>,
}

impl Names {
    pub fn word<T>(&mut self, name: impl Into<String>, word: &T) {
        self.list.push((std::ptr::from_ref(word).addr(), name.into()));
    }

    pub fn cell(&mut self, name: &str, cell: &RobustCell) {
        self.word(name, &cell.word);
        for (index, word) in cell.small.iter().enumerate() {
            self.word(format!("{name}.small[{index}]"), word);
        }
        for (index, word) in cell.large.iter().enumerate() {
            self.word(format!("{name}.large[{index}]"), word);
        }
    }

    fn find(&self, address: usize) -> String {
        let name = self.list.iter().find(|(at, _)| *at == address).map(|(_, name)| name.clone());
        name.unwrap_or_else(|| format!("{address:#x}"))
    }
}

/// What may happen in a run beside the steps of the threads.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub kills: u8,
    /// Timeouts, interruptions, and wake-ups for no reason, while others could step. At rest, time passes anyway.
    pub timeouts: u8,
}

const SEED: u64 = 1;

/// Random schedules; `runs` unless the environment says otherwise.
pub fn explore<S: Scenario>(name: &str, scenario: &S, limits: Limits, runs: u32) {
    let runs = environment("TINE_EXPLORE_RUNS").unwrap_or(runs.into());
    let seed = environment("TINE_EXPLORE_SEED").unwrap_or(SEED);
    let bounds = Bounds { kills: limits.kills, timeouts: limits.timeouts, preemptions: u8::MAX };
    Stage::open(scenario, |stage| {
        if let Ok(schedule) = std::env::var("TINE_EXPLORE_SCHEDULE") {
            let schedule = Schedule::parse(&schedule).expect("TINE_EXPLORE_SCHEDULE is a schedule");
            match stage.run(bounds, Chooser::replay(schedule.clone())).failure {
                Some(_) => fail(name, stage, bounds, schedule, "the given schedule".into()),
                None => tell(&format!("{name}: the given schedule is right")),
            }
            return;
        }
        let mut length = 200;
        let mut most = 0;
        for run in 0..runs {
            let outcome = stage.run(bounds, Chooser::random(seed.wrapping_add(run), length, bounds, scenario.threads()));
            if outcome.failure.is_some() {
                fail(name, stage, bounds, outcome.schedule, format!("run {} of seed {seed}", run + 1));
            }
            // Later runs spread their events over what a run is long.
            length = (length * 7 + outcome.decisions) / 8;
            most = most.max(outcome.decisions);
        }
        tell(&format!("{name}: {runs} random schedules of up to {most} steps, {limits:?}: right"));
    });
}

/// All schedules with at most one preemption, and all with at most one kill; where `TINE_EXPLORE_ALL` is set, all with one of each.
pub fn exhaust<S: Scenario>(name: &str, scenario: &S) {
    let both = std::env::var_os("TINE_EXPLORE_ALL").is_some();
    let bounds = |preemptions, kills| Bounds { preemptions, kills, timeouts: 0 };
    let all = if both { vec![bounds(1, 1)] } else { vec![bounds(1, 0), bounds(0, 1)] };
    Stage::open(scenario, |stage| {
        for &bounds in &all {
            let mut depth = Depth::new();
            let mut runs = 0;
            loop {
                runs += 1;
                let outcome = stage.run(bounds, Chooser::depth(depth));
                if outcome.failure.is_some() {
                    fail(name, stage, bounds, outcome.schedule, format!("run {runs} of all"));
                }
                depth = outcome.chooser.into_depth();
                if !depth.next() {
                    break;
                }
            }
            let Bounds { preemptions, kills, .. } = bounds;
            tell(&format!("{name}: all {runs} schedules with {preemptions} preemptions and {kills} kills: right"));
        }
    });
}

/// Makes the schedule as short as it goes and panics with what happens in it.
fn fail<S: Scenario>(name: &str, stage: &Stage<S>, bounds: Bounds, schedule: Schedule, found: String) -> ! {
    let mut shortest = schedule;
    let mut tries = 0;
    let mut at = shortest.len();
    while at > 0 && tries < 300 {
        at -= 1;
        let shorter = shortest.without(at);
        tries += 1;
        if stage.run(bounds, Chooser::replay(shorter.clone())).failure.is_some() {
            at = at.min(shorter.len());
            shortest = shorter;
        }
    }
    let outcome = stage.trace(bounds, Chooser::replay(shortest.clone()));
    let mut text = format!("{name}: wrong in {found}\n");
    for line in &outcome.trace {
        let _ = writeln!(text, "  {line}");
    }
    let what = outcome.failure.unwrap_or_else(|| "the failure could not be repeated: something else than words decides".into());
    let _ = write!(text, "{what}\nonce more: TINE_EXPLORE_SCHEDULE='{shortest}'");
    panic!("{text}");
}

fn environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

#[allow(clippy::print_stdout, reason = "a report of a test")]
fn tell(line: &str) {
    println!("{line}");
}
