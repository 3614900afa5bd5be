//! Garbage in shared memory: a process writes over an object that another one uses. Whoever uses it gets a status from every call,
//! within its timeout; it does not crash, write where it must not, or signal anybody. (Calls that take no timeout wait for an owner
//! that the garbage makes up, as they would for one that is stopped: they are counted.)
//!
//! `hostile [queue|lock|semaphore|event…]`: a fixed set; `TINE_HOSTILE=full`: every word of the object's head as well.
#![allow(clippy::print_stdout, reason = "a test program")]

#[path = "../support/mod.rs"]
mod support;

mod bytes;
mod objects;
mod scribble;

use std::collections::BTreeMap;
use std::env;
use std::ffi::c_void;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicI32, AtomicU32};
use std::time::Instant;

use objects::{Call, KINDS, Kind};
use scribble::{Canary, Pattern};
use support::arguments::Arguments;
use support::child::{Child, End};
use support::random::Random;
use support::{arena, clock, confine, host, rest};

/// Calls that one trial reports.
const CALLS: usize = 512;
/// So many looks in a row must find a user asleep that is said to wait: a tenth of a second.
const LOOKS: u32 = 200;
/// Inputs of each target of `bytes`; so many in one process.
const INPUTS: u64 = 120;
const INPUTS_AT_ONCE: u64 = 40;

/// When the garbage is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// Before the calls.
    Before,
    /// While somebody sleeps in a call.
    Asleep,
    /// All the time.
    Meanwhile,
}

/// What the user of the object tells of its calls.
struct Report {
    /// The call that it is in.
    at: &'static AtomicU32,
    statuses: &'static [AtomicI32],
    /// Pages that nobody may touch, directly before and behind what is scribbled over.
    guards: &'static AtomicU32,
}

fn main() {
    let arguments = Arguments::read();
    if arguments.has("--list") {
        KINDS.iter().for_each(|kind| println!("hostile.{}: test", kind.name));
        bytes::TARGETS.iter().for_each(|(name, _)| println!("hostile.bytes, {name}: test"));
        return;
    }
    objects::begin();
    let full = env::var("TINE_HOSTILE").is_ok_and(|value| value == "full");
    confine::run("hostile", clock::scaled(if full { 1800.0 } else { 300.0 }), || run(&arguments, full));
}

fn run(arguments: &Arguments, full: bool) -> i32 {
    let report = Report { at: arena::value(), statuses: arena::slice(CALLS), guards: arena::value() };
    // Nobody may ever signal this one, whatever numbers lie about.
    let mut bystander = Child::fork(|| {
        loop {
            // SAFETY: sleeps until a signal.
            unsafe { libc::pause() };
        }
    });
    let words_before = if full { scribble::HEAD_WORDS } else { 4 };
    let mut failures = 0;
    for kind in KINDS.iter().filter(|kind| arguments.select(&format!("hostile.{}", kind.name))) {
        let start = Instant::now();
        let mut answers: BTreeMap<i32, usize> = BTreeMap::new();
        let (mut trials, mut waiting) = (0, 0);
        report.guards.store(0, SeqCst);
        for moment in [Moment::Before, Moment::Asleep, Moment::Meanwhile] {
            for pattern in scribble::patterns(if moment == Moment::Before { words_before } else { 0 }) {
                trials += 1;
                confine::label(&format!("{}, {moment:?}, {pattern:?}", kind.name));
                let failure = trial(kind, moment, &pattern, bystander.pid(), &report, &mut answers, &mut waiting);
                if let Some(text) = failure {
                    failures += 1;
                    println!("hostile: {}, {moment:?}, {pattern:?}: FAILED: {text}", kind.name);
                }
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let guards = report.guards.load(SeqCst);
        println!(
            "hostile: {}: {trials} trials, {guards} guard pages, answers {answers:?}, {waiting} calls without a timeout that wait, \
             {seconds:.1} s",
            kind.name
        );
    }
    for &(name, target) in bytes::TARGETS.iter().filter(|(name, _)| arguments.select(&format!("hostile.bytes, {name}"))) {
        let start = Instant::now();
        let inputs = if full { INPUTS * 20 } else { INPUTS };
        for first in (0..inputs).step_by(INPUTS_AT_ONCE as usize) {
            confine::label(&format!("bytes, {name}, from {first} on"));
            if let Some(text) = try_inputs(target, first, report.at) {
                failures += 1;
                println!("hostile: bytes, {name}: FAILED: {text}");
            }
        }
        println!("hostile: bytes, {name}: {inputs} inputs, {:.1} s", start.elapsed().as_secs_f64());
    }
    objects::remove_names();
    if !bystander.is_running() {
        failures += 1;
        println!("hostile: FAILED: a bystander was killed");
    }
    println!("hostile: {}", if failures == 0 { "passed".into() } else { format!("FAILED ({failures} findings)") });
    i32::from(failures > 0)
}

/// Some of the fixed set, in a process of their own.
fn try_inputs(target: fn(&[u8]), first: u64, at: &AtomicU32) -> Option<String> {
    let mut user = Child::fork(|| {
        limits();
        for number in first..first + INPUTS_AT_ONCE {
            at.store(number as u32, SeqCst);
            let mut random = Random::new(number);
            let input: Vec<u8> = (0..4 + random.below(200)).map(|_| random.next() as u8).collect();
            target(&input);
        }
    });
    let mut seen = (u32::MAX, Instant::now());
    while user.is_running() {
        let now = at.load(SeqCst);
        if now != seen.0 {
            seen = (now, Instant::now());
        } else if seen.1.elapsed() > clock::patience() {
            return Some(format!("input {now} hangs"));
        }
        clock::pause(1000);
    }
    let end = user.try_reap();
    (end != Some(End::Code(0))).then(|| format!("input {} ends with {end:?}", at.load(SeqCst)))
}

/// One object, one user, one kind of garbage; what must not be, if it was.
fn trial(
    kind: &Kind,
    moment: Moment,
    pattern: &Pattern,
    bystander: i32,
    report: &Report,
    answers: &mut BTreeMap<i32, usize>,
    waiting: &mut usize,
) -> Option<String> {
    report.at.store(0, SeqCst);
    let mut user = Child::fork(|| use_object(kind, moment, pattern, bystander, report));
    let call_at = |number: u32| calls_of(kind, moment).nth(number as usize).map_or("the end", |(name, _)| *name);
    // Asleep for so long in a call that takes no timeout, it waits for somebody that only the garbage knows.
    let mut waits = 0;
    clock::until(clock::patience(), || {
        let idle = !objects::takes_timeout(call_at(report.at.load(SeqCst))) && rest::state(user.pid()) == rest::State::Asleep;
        waits = if idle { waits + 1 } else { 0 };
        !user.is_running() || waits > LOOKS
    });
    let end = user.try_reap();
    let calls = report.at.load(SeqCst) as usize;
    for status in &report.statuses[..calls.min(CALLS)] {
        *answers.entry(status.load(SeqCst)).or_default() += 1;
    }
    let last = call_at(calls as u32);
    match end {
        None if waits > LOOKS => *waiting += 1,
        None => return Some(format!("{last} hangs")),
        Some(End::Signal(signal)) => return Some(format!("{last} dies of signal {signal}")),
        Some(End::Code(0)) => {}
        Some(End::Code(scribble::CANARY_DIED)) => return Some("private memory was written".into()),
        Some(End::Code(code)) => return Some(format!("{last} ends with code {code}")),
    }
    report.statuses[..calls.min(CALLS)]
        .iter()
        .map(|status| status.load(SeqCst))
        .find_map(|status| (!bytes::is_status(status)).then(|| format!("a call answers {status}")))
}

/// What the user calls, in order.
fn calls_of(kind: &Kind, moment: Moment) -> Box<dyn Iterator<Item = &'static Call> + '_> {
    match moment {
        Moment::Before => Box::new(kind.calls.iter()),
        Moment::Asleep => Box::new(std::iter::empty()),
        Moment::Meanwhile => Box::new(kind.calls.iter().cycle().take(kind.calls.len() * 8)),
    }
}

/// The user: makes the object, has it scribbled over, uses it.
fn use_object(kind: &Kind, moment: Moment, pattern: &Pattern, bystander: i32, report: &Report) {
    limits();
    let canary = Canary::new();
    let object = (kind.new)();
    for (name, call) in kind.before {
        assert!(call(object) >= 0, "{name} on a sound object");
    }
    let mappings = host::shared_mappings();
    report.guards.fetch_add(scribble::guard(&mappings), SeqCst);
    let scribble = |round: u64| scribble::over(&mappings, pattern, round, &canary, bystander);
    match moment {
        Moment::Before => {
            let mut scribbler = Child::fork(|| scribble(0));
            assert_eq!(scribbler.reap_within(clock::patience()), Some(End::Code(0)));
            call_all(kind, moment, object, report);
        }
        Moment::Asleep => {
            let mut sleeper = Child::fork(|| {
                (kind.sleeps.1)(object);
            });
            rest::fell_asleep(&mut sleeper);
            scribble(0);
            let end = sleeper.reap_within(clock::patience() / 2);
            assert_eq!(end, Some(End::Code(0)), "the sleeper in {}", kind.sleeps.0);
        }
        Moment::Meanwhile => {
            let scribbler = Child::fork(|| {
                for round in 0.. {
                    scribble(round);
                    std::thread::yield_now();
                }
            });
            call_all(kind, moment, object, report);
            drop(scribbler);
        }
    }
    (kind.free)(object);
    canary.check();
}

fn call_all(kind: &Kind, moment: Moment, object: *mut c_void, report: &Report) {
    for (number, (_, call)) in calls_of(kind, moment).enumerate() {
        let status = call(object);
        report.statuses[number % CALLS].store(status, SeqCst);
        report.at.store(number as u32 + 1, SeqCst);
    }
}

/// A length or an offset that is garbage must not take the machine's memory, nor raise SIGXFSZ.
fn limits() {
    for (resource, limit) in [(libc::RLIMIT_AS, 6 << 30), (libc::RLIMIT_FSIZE, 64 << 20)] {
        let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
        // SAFETY: a live rlimit.
        unsafe { libc::setrlimit(resource, &limit) };
    }
}
