//! The instruction laboratory: an operation is stopped after each of its instructions, perhaps somebody else acts, and then it is
//! killed; everybody else must go on, nothing may be lost beyond what the dead had consumed, nothing may come twice.
//!
//! `lab [WORD…] [--quick|--full] [--first] [--list]`: the scenes whose names contain one of the words; `TINE_LAB=full` is `--full`:
//! after every instruction instead of every one that others could notice; `--first` leaves at the first finding. Leaves with 1 if
//! anything was found, with 2 if a choice was made that fits no scene.
#![allow(clippy::print_stdout, reason = "a test program")]

#[path = "../support/mod.rs"]
mod support;

mod barrier;
mod condition;
mod event;
mod ledger;
mod lock;
mod pipe;
mod queue;
mod scene;
mod seat;
mod semaphore;
mod standin;
mod symbols;
mod tasks;
mod tracer;

use std::env;
use std::time::{Duration, Instant};

use scene::{Corpse, Density, Lab, Pace, Plan, Scene, Tally, Variant};
use seat::Act;
use support::arguments::Arguments;
use support::{arena, clock, confine};

/// The victim, sleepers, a third process, the runner.
const SEATS: usize = 8;

fn main() {
    let arguments = Arguments::read();
    let full = arguments.has("--full") || env::var("TINE_LAB").is_ok_and(|value| value == "full");
    let density = if full && !arguments.has("--quick") { Density::Every } else { Density::Visible };
    if arguments.has("--list") {
        for scene in scenes() {
            println!("{}: test", scene.name);
        }
        return;
    }
    let limit = clock::scaled(if density == Density::Every { 3600.0 } else { 1200.0 });
    confine::run("lab", limit, || run(&arguments, density));
}

fn scenes() -> Vec<Scene> {
    let mut scenes = queue::scenes();
    scenes.extend(pipe::scenes());
    scenes.extend(tasks::scenes());
    scenes.extend(lock::all_scenes());
    scenes.extend(semaphore::scenes());
    scenes.extend(semaphore::tracked_scenes());
    scenes.extend(event::scenes());
    scenes.extend(condition::scenes());
    scenes.extend(barrier::scenes());
    scenes.extend(standin::sound());
    scenes
}

fn run(arguments: &Arguments, density: Density) -> i32 {
    tracer::stay_on_one_core();
    tracer::give_priority(0, tracer::HIGH);
    tracer::start_interval_timer();
    if !tracer::is_permitted() {
        println!("lab: skipped: ptrace is not permitted here");
        return 0;
    }
    let enough = if arguments.has("--first") { Enough { here: 1, total: 1 } } else { Enough { here: 3, total: 30 } };
    let lab = Lab { seats: arena::slice(SEATS) };
    let start = Instant::now();
    let mut sum = Tally::default();
    let mut failures = Vec::new();
    let mut chosen = 0;
    for scene in scenes().iter().filter(|scene| arguments.select(scene.name)) {
        chosen += 1;
        run_scene(&lab, scene, density, enough, &mut sum, &mut failures);
        if failures.len() >= enough.total {
            break;
        }
    }
    if arguments.select("self") && failures.len() < enough.total {
        chosen += 1;
        for (fault, scenes) in standin::broken() {
            prove(&lab, fault, &scenes, &mut failures);
        }
    }
    println!("lab: {chosen} scenes, {sum}, {}", seconds(start.elapsed()));
    if chosen == 0 && (arguments.has("--quick") || arguments.has("--full")) {
        println!("lab: FAILED: no scene has such a name");
        return 2;
    }
    println!("lab: {}", if failures.is_empty() { "passed".into() } else { format!("FAILED ({} findings)", failures.len()) });
    i32::from(!failures.is_empty())
}

/// What to try in a scene: alone, the leader killed as well, each third process with and without patience; and alone with others
/// that come late. Where somebody died before: alone, for several places of that death.
fn plans(lab: &Lab, scene: &Scene, density: Density) -> Result<Vec<Plan>, String> {
    if let Some(act) = scene.corpse {
        return plans_after(lab, scene, act, density);
    }
    let mut variants = vec![(Variant::AtOnce, Pace::Prompt), (Variant::AtOnce, Pace::Late)];
    if scene.sleepers.len() > 1 {
        variants.push((Variant::LeaderToo, Pace::Prompt));
    }
    variants.extend(scene.thirds.iter().map(|&act| (Variant::Third(act), Pace::Prompt)));
    let timed = scene.thirds.iter().filter(|act| act.has_timeout());
    variants.extend(timed.map(|&act| (Variant::Impatient(act), Pace::Prompt)));
    let prompt = lab.scout(scene, None, Pace::Prompt)?;
    let late = lab.scout(scene, None, Pace::Late)?;
    let plan = |(variant, pace)| {
        let points = if pace == Pace::Late { late.clone() } else { prompt.clone() };
        let alone = density == Density::Visible && (variant, pace) == (Variant::AtOnce, Pace::Prompt);
        let density = if alone { Density::VisibleAndSome } else { density };
        Plan { variant, pace, picked: density.pick(&points), points, corpse: None }
    };
    Ok(variants.into_iter().map(plan).collect())
}

fn plans_after(lab: &Lab, scene: &Scene, act: Act, density: Density) -> Result<Vec<Plan>, String> {
    let points = lab.scout_corpse(scene, act)?;
    let mut goals = (0..points.len()).filter(|&point| points[point].visible).collect::<Vec<_>>();
    if density == Density::Visible {
        // In the middle it owned something and was not through.
        let middle = goals.len() / 2;
        goals = goals[middle.saturating_sub(1)..(middle + 1).min(goals.len())].to_vec();
    }
    goals
        .into_iter()
        .map(|goal| {
            let corpse = Corpse { points: points.clone(), goal };
            let points = lab.scout(scene, Some(&corpse), Pace::Prompt)?;
            // Every instruction after each death would take hours: what others could notice is enough.
            let picked = Density::Visible.pick(&points);
            Ok(Plan { variant: Variant::AtOnce, pace: Pace::Prompt, picked, points, corpse: Some(corpse) })
        })
        .collect()
}

/// How many findings of one scene and variant, and in all, say enough.
#[derive(Clone, Copy)]
struct Enough {
    here: usize,
    total: usize,
}

fn run_scene(lab: &Lab, scene: &Scene, density: Density, enough: Enough, sum: &mut Tally, failures: &mut Vec<String>) {
    confine::label(&format!("{}: scouting", scene.name));
    let plans = match plans(lab, scene, density) {
        Ok(plans) => plans,
        Err(text) => {
            println!("lab: {}: FAILED: {text}", scene.name);
            failures.push(text);
            return;
        }
    };
    let (start, mut all, variants) = (Instant::now(), Tally::default(), plans.len());
    let instructions = plans[0].points.len() - 1;
    let visible = plans[0].points.iter().filter(|point| point.visible).count();
    for plan in plans {
        confine::label(&format!("{}, {}", scene.name, plan.variant));
        let start = Instant::now();
        let before = failures.len();
        let tally = lab.run(scene, &plan, enough.here, failures);
        if density == Density::Every {
            let late = if plan.pace == Pace::Late { ", the others late" } else { "" };
            println!("lab: {}, {}{late}: {tally}, {}", scene.name, plan.variant, seconds(start.elapsed()));
        }
        for failure in &failures[before..] {
            println!("    {failure}");
        }
        all.add(&tally);
        if failures.len() >= enough.total {
            break;
        }
    }
    let verdict = if all.stalls + all.wrong == 0 { "ok" } else { "FAILED" };
    println!(
        "lab: {}: {instructions} instructions, {visible} of them visible, {variants} variants, {all}, {}: {verdict}",
        scene.name,
        seconds(start.elapsed())
    );
    sum.add(&all);
}

/// A lock with a known fault: something must be found.
fn prove(lab: &Lab, fault: &str, scenes: &[Scene], failures: &mut Vec<String>) {
    let start = Instant::now();
    let mut findings = Vec::new();
    for scene in scenes {
        confine::label(&format!("self: {fault}, {}", scene.name));
        for plan in plans(lab, scene, Density::Visible).unwrap_or_default() {
            lab.run(scene, &plan, 1, &mut findings);
            if let Some(finding) = findings.first() {
                let place = finding.lines().nth(1).unwrap_or_default().trim();
                println!("lab: self, a lock with {fault}: found: {place}, {}", seconds(start.elapsed()));
                return;
            }
        }
    }
    println!("lab: self, a lock with {fault}: FAILED: not found, {}", seconds(start.elapsed()));
    failures.push(format!("a lock with {fault} was not found"));
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
