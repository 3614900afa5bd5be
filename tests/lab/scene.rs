//! One operation under the knife: what is there before, who sleeps, what the victim does, who may act meanwhile; and the trials.

use std::fmt;
use std::sync::atomic::Ordering::SeqCst;

use crate::seat::{Act, RETURNED, Seat};
use crate::support::child::{Child, End};
use crate::support::clock;
use crate::support::rest;
use crate::tracer::{self, Point, Stand, Watch};

/// The object of one trial, fresh, and the rules that it is judged by.
pub trait Stage {
    /// Carries out `act`; in a participant, or in the runner. Answers the status of the call.
    fn act(&self, act: Act, timeout_ms: i64, seat: &Seat) -> i32;
    /// Does `act` once on another object, so that nothing happens for the first time when it counts.
    fn warm_up(&self, act: Act);
    /// The victim is dead and everybody else has ended or sleeps: is there somebody who should not sleep?
    fn starving(&self, trial: &Trial) -> Option<String>;
    /// Gives everybody who still waits what it waits for; says what else must hold.
    fn release_all(&self, trial: &mut Trial) -> Verdict;
    /// Everybody has ended: are the books right, does the object go on working?
    fn audit(&self, trial: &mut Trial) -> Result<Books, String>;
}

/// What a trial came to.
pub struct Books {
    /// The victim's operation took effect.
    pub landed: bool,
    /// What the dead had consumed.
    pub consumed: usize,
}

pub type Verdict = Result<(), String>;

pub enum Victim {
    /// A process that runs `act` after `before`.
    Runs { before: &'static [Act], act: Act },
    /// The sleeper of this number, once the runner has done `wake`.
    Woken { sleeper: usize, wake: &'static [Act] },
}

pub struct Scene {
    pub name: &'static str,
    pub stage: fn() -> Box<dyn Stage>,
    /// Done by the runner before anybody else is there.
    pub before: &'static [Act],
    /// Each falls asleep in its operation before the next begins: the first is the leader.
    pub sleepers: &'static [Act],
    pub victim: Victim,
    /// What a third process may do while the victim stands still.
    pub thirds: &'static [Act],
    /// Who died in this operation before the victim begins: the victim, or whoever comes first, has its work to mend.
    pub corpse: Option<Act>,
}

/// Who acts between the victim's stop and its death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Nobody.
    AtOnce,
    /// A third process, with all patience: at the victim's death it is through or asleep.
    Third(Act),
    /// A third process with a timeout: it must come back while the victim stands still.
    Impatient(Act),
    /// Nobody, but the leader of the sleepers dies directly after the victim.
    LeaderToo,
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Variant::AtOnce => write!(f, "killed at once"),
            Variant::Third(act) => write!(f, "a third process: {act:?}"),
            Variant::Impatient(act) => write!(f, "a third process with a timeout: {act:?}"),
            Variant::LeaderToo => write!(f, "the leader killed, too"),
        }
    }
}

/// The "status" of a call that did not return.
const NEVER: i32 = -1000;

const FOREVER: i64 = -1;

/// How often an operation is scouted at most, beside the first time.
const SCOUTS_MAX: usize = 5;
/// How often a trial is repeated whose victim took another way.
const REPEATS_MAX: usize = 3;

/// The timeout of an impatient third process.
const IMPATIENCE_MS: i64 = 2;

pub struct Participant {
    /// What it did before, of its own.
    pub before: &'static [Act],
    pub act: Act,
    /// It slept when the victim began.
    pub slept: bool,
    pub seat: &'static Seat,
    pub child: Child,
    /// Killed by the runner.
    pub killed: bool,
    /// Its timeout is short.
    pub may_time_out: bool,
}

impl Participant {
    /// It got out of its operation with this.
    pub fn returned(&self) -> Option<i32> {
        self.seat.returned()
    }

    /// It is dead and nobody knows how far it came.
    pub fn is_uncertain(&self) -> bool {
        self.killed && self.seat.started()
    }

    /// It is still in its operation.
    pub fn waits(&self) -> bool {
        !self.killed && self.seat.started()
    }
}

/// One trial: everybody in it but the runner. The victim is the first.
pub struct Trial {
    pub participants: Vec<Participant>,
    /// The runner's own report; it acts, too.
    pub runner: &'static Seat,
    /// What the runner did that the books must know, in order, with its status.
    pub done: Vec<(Act, i32)>,
}

impl Trial {
    pub fn victim(&self) -> &Participant {
        &self.participants[0]
    }

    /// Everybody of whom `pick` is true.
    pub fn count(&self, pick: impl Fn(&Participant) -> bool) -> usize {
        self.participants.iter().filter(|participant| pick(participant)).count()
    }

    /// The runner acts, and must succeed: nothing that it does has a reason to fail for long.
    pub fn must(&mut self, stage: &dyn Stage, act: Act) -> Verdict {
        match self.try_act(stage, act, clock::patience_ms()) {
            0.. => Ok(()),
            status => Err(format!("afterwards, {act:?} answers {status}")),
        }
    }

    pub fn try_act(&mut self, stage: &dyn Stage, act: Act, timeout_ms: i64) -> i32 {
        // A call without a timeout could keep the runner for ever: somebody else makes it.
        let status = if act.may_block_for_ever() {
            let mut hand = Child::fork(|| {
                tracer::give_priority(0, tracer::LOW);
                stage.act(act, timeout_ms, self.runner);
            });
            match hand.reap_within(clock::patience()) {
                Some(End::Code(0)) => self.runner.returned().unwrap_or(NEVER),
                _ => NEVER,
            }
        } else {
            stage.act(act, timeout_ms, self.runner)
        };
        self.done.push((act, status));
        status
    }

    /// The victim, and everybody else.
    fn split(&mut self) -> (&mut Participant, &mut [Participant]) {
        self.participants.split_first_mut().expect("there is a victim")
    }

    fn children(&mut self) -> Vec<&mut Child> {
        children(&mut self.participants)
    }
}

/// Those that were not killed.
fn children(participants: &mut [Participant]) -> Vec<&mut Child> {
    participants.iter_mut().filter(|participant| !participant.killed).map(|participant| &mut participant.child).collect()
}

/// When the others do what the victim's system calls give them to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Before the victim's next instruction: whom it wakes stands before its words at once.
    Prompt,
    /// When the victim stands still at last.
    Late,
}

impl Pace {
    fn settle(self, others: &mut [Participant]) {
        if self == Pace::Prompt {
            rest::came_to_rest(&mut children(others));
        }
    }
}

/// What to try in a scene.
pub struct Plan {
    pub variant: Variant,
    pub pace: Pace,
    /// The operation as it was scouted at this pace.
    pub points: Vec<Point>,
    /// Where to kill.
    pub picked: Vec<usize>,
    /// Where the corpse of the scene came to in its operation.
    pub corpse: Option<Corpse>,
}

#[derive(Clone)]
pub struct Corpse {
    pub points: Vec<Point>,
    pub goal: usize,
}

/// What to tell about a failure.
#[derive(Default)]
struct Report {
    place: Option<u64>,
    words: String,
}

impl Report {
    fn text(&self, scene: &Scene, plan: &Plan, goal: usize) -> String {
        let place = crate::symbols::name(self.place.unwrap_or(plan.points[goal].counter));
        let asleep = if plan.points[goal].asleep { ", asleep in it" } else { "" };
        let corpse = plan.corpse.as_ref().map(|corpse| {
            let place = crate::symbols::name(corpse.points[corpse.goal].counter);
            format!("\n      and another before it after {} instructions, before {place}", corpse.goal)
        });
        let corpse = corpse.unwrap_or_default();
        let Report { words, .. } = self;
        format!(
            "\n      {}, {}, the others {:?}: after {goal} instructions, before {place}{asleep}{corpse}{words}",
            scene.name, plan.variant, plan.pace
        )
    }
}

/// What became of all trials of one scene and variant.
#[derive(Default)]
pub struct Tally {
    pub trials: usize,
    pub kills: usize,
    pub landed: usize,
    pub consumed: usize,
    pub stalls: usize,
    pub wrong: usize,
    /// The victim took another way than the scout and did not come to the point, however often it was tried.
    pub missed: usize,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.trials += other.trials;
        self.kills += other.kills;
        self.landed += other.landed;
        self.consumed += other.consumed;
        self.stalls += other.stalls;
        self.wrong += other.wrong;
        self.missed += other.missed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Tally { trials, kills, landed, consumed, stalls, wrong, missed } = self;
        write!(
            f,
            "{trials} trials, {kills} kills, {landed} landed, {consumed} consumed by the dead, {missed} missed, {stalls} stalls, {wrong} wrong"
        )
    }
}

/// What one trial found.
struct Finding {
    killed: bool,
    landed: bool,
    consumed: usize,
    missed: bool,
}

enum Failure {
    Stall(String),
    Wrong(String),
}

/// The seats of all participants and the runner's.
pub struct Lab {
    pub seats: &'static [Seat],
}

impl Lab {
    /// Walks through the operation of the scene's corpse, while it lives.
    pub fn scout_corpse(&self, scene: &Scene, act: Act) -> Result<Vec<Point>, String> {
        let stage = (scene.stage)();
        let mut trial = self.set_up(scene, None, stage.as_ref())?;
        let seat = trial.participants.len();
        let mut corpse = self.participant(stage.as_ref(), seat, &[], act, FOREVER, true);
        tracer::stopped(&mut corpse.child);
        let (_, others) = trial.split();
        Ok(tracer::scout(&mut corpse.child, corpse.seat, || Pace::Prompt.settle(others)))
    }

    /// Walks through the victim's operation and notes all points. Once is not enough: on a busy machine a walk may take so long that a
    /// sleeper looks around by itself, and the victim meets another state than in all trials. Two in a row must agree on what others
    /// could notice.
    pub fn scout(&self, scene: &Scene, corpse: Option<&Corpse>, pace: Pace) -> Result<Vec<Point>, String> {
        let mut points = self.scout_once(scene, corpse, pace)?;
        for _ in 0..SCOUTS_MAX {
            let again = self.scout_once(scene, corpse, pace)?;
            let agree = tracer::agree(&points, &again);
            points = again;
            if agree {
                break;
            }
        }
        Ok(points)
    }

    fn scout_once(&self, scene: &Scene, corpse: Option<&Corpse>, pace: Pace) -> Result<Vec<Point>, String> {
        let stage = (scene.stage)();
        let mut trial = self.set_up(scene, corpse, stage.as_ref())?;
        let (victim, others) = trial.split();
        pace.settle(others);
        Ok(tracer::scout(&mut victim.child, victim.seat, || pace.settle(others)))
    }

    /// All trials at the `picked` ones of `points`, until so many `failures` were found that more would only repeat them.
    pub fn run(&self, scene: &Scene, plan: &Plan, enough: usize, failures: &mut Vec<String>) -> Tally {
        let mut tally = Tally::default();
        for &goal in &plan.picked {
            tally.trials += 1;
            let mut report = Report::default();
            let mut result = self.trial(scene, plan, goal, &mut report);
            for _ in 0..REPEATS_MAX {
                if !result.as_ref().is_ok_and(|finding| finding.missed) {
                    break;
                }
                result = self.trial(scene, plan, goal, &mut report);
            }
            match result {
                Ok(finding) => {
                    tally.kills += usize::from(finding.killed);
                    tally.landed += usize::from(finding.landed);
                    tally.consumed += finding.consumed;
                    tally.missed += usize::from(finding.missed);
                    continue;
                }
                Err(Failure::Stall(text)) => {
                    tally.stalls += 1;
                    failures.push(format!("stall: {text}{}", report.text(scene, plan, goal)));
                }
                Err(Failure::Wrong(text)) => {
                    tally.wrong += 1;
                    failures.push(format!("wrong: {text}{}", report.text(scene, plan, goal)));
                }
            }
            if tally.stalls + tally.wrong == enough {
                break;
            }
        }
        tally
    }

    fn trial(&self, scene: &Scene, plan: &Plan, goal: usize, report: &mut Report) -> Result<Finding, Failure> {
        let stage = (scene.stage)();
        let stage = stage.as_ref();
        let mut trial = self.set_up(scene, plan.corpse.as_ref(), stage).map_err(Failure::Wrong)?;
        let watch = Watch::new(&trial.participants[0].child);
        let result = self.operate(plan, goal, stage, &mut trial, report);
        if result.is_err() {
            report.words = watch.differences();
            for (number, participant) in trial.participants.iter_mut().enumerate() {
                let state = if participant.killed {
                    "killed".to_owned()
                } else if participant.child.is_running() {
                    format!("{:?}", rest::state(participant.child.pid()))
                } else {
                    "ended".to_owned()
                };
                let (act, returned) = (participant.act, participant.returned());
                report.words += &format!("\n        participant {number}: {act:?}, {state}, {returned:?}");
            }
        }
        result
    }

    fn operate(
        &self,
        plan: &Plan,
        goal: usize,
        stage: &dyn Stage,
        trial: &mut Trial,
        report: &mut Report,
    ) -> Result<Finding, Failure> {
        let (victim, others) = trial.split();
        plan.pace.settle(others);
        let stand = tracer::go_to(&mut victim.child, &plan.points, goal, || plan.pace.settle(others));
        if stand == Stand::Stopped {
            report.place = Some(tracer::counter(&victim.child));
        }
        match plan.variant {
            Variant::AtOnce | Variant::LeaderToo => {}
            Variant::Third(act) => {
                let third = self.participant(stage, trial.participants.len(), &[], act, 10 * clock::patience_ms(), false);
                trial.participants.push(third);
                let (_, others) = trial.split();
                if !rest::came_to_rest(&mut children(others)) {
                    return Err(Failure::Wrong("while the victim stood still, the others did not come to rest".into()));
                }
            }
            Variant::Impatient(act) => {
                let mut third = self.participant(stage, trial.participants.len(), &[], act, IMPATIENCE_MS, false);
                let came = third.child.reap_within(clock::patience()).is_some();
                trial.participants.push(third);
                if !came {
                    return Err(Failure::Stall("its timeout did not hold while the victim stood still".into()));
                }
            }
        }
        let killed = trial.participants[0].child.kill() == End::Signal(libc::SIGKILL);
        trial.participants[0].killed = killed;
        if plan.variant == Variant::LeaderToo {
            if let Some(leader) = trial.participants.get_mut(1) {
                leader.killed = leader.child.kill() == End::Signal(libc::SIGKILL);
            }
        }
        let restless = || Failure::Wrong("after the victim's death the others did not come to rest".into());
        if !rest::came_to_rest(&mut trial.children()) {
            return Err(restless());
        }
        let starving = stage.starving(trial);
        if let Some(text) = starving {
            // Something in the library looks from time to time? It may: that is slow, not stuck.
            if !clock::until(clock::scaled(1.0), || stage.starving(trial).is_none()) {
                return Err(Failure::Stall(text));
            }
        }
        stage.release_all(trial).map_err(Failure::Wrong)?;
        if !rest::all_ended(&mut trial.children()) {
            return Err(Failure::Stall("somebody still sleeps although there is something for everybody".into()));
        }
        for participant in &mut trial.participants {
            if !participant.killed && participant.child.try_reap() != Some(End::Code(0)) {
                return Err(Failure::Wrong(format!("{:?} ended with {:?}", participant.act, participant.child.try_reap())));
            }
            if participant.seat.odd.load(SeqCst) != 0 {
                return Err(Failure::Wrong(format!("{:?} saw what must never be", participant.act)));
            }
        }
        let Books { landed, consumed } = stage.audit(trial).map_err(Failure::Wrong)?;
        Ok(Finding { killed, landed, consumed, missed: stand != plan.points[goal].stand() })
    }

    /// The object, the sleepers asleep, the victim at the beginning of its operation.
    fn set_up(&self, scene: &Scene, corpse: Option<&Corpse>, stage: &dyn Stage) -> Result<Trial, String> {
        let runner = self.seats.last().expect("a seat for the runner");
        runner.reset();
        let mut trial = Trial { participants: Vec::new(), runner, done: Vec::new() };
        for &act in scene.before {
            trial.must(stage, act)?;
        }
        if let Victim::Runs { before, act } = scene.victim {
            let mut victim = self.participant(stage, 0, before, act, FOREVER, true);
            if !tracer::stopped(&mut victim.child) {
                return Err("the victim does not stop at the beginning of its operation".into());
            }
            trial.participants.push(victim);
        }
        for (number, &act) in scene.sleepers.iter().enumerate() {
            let traced = matches!(scene.victim, Victim::Woken { sleeper, .. } if sleeper == number);
            // The victim always sits in front, the others in the order in which they fell asleep.
            let seat = match scene.victim {
                Victim::Runs { .. } => number + 1,
                Victim::Woken { .. } if traced => 0,
                Victim::Woken { sleeper, .. } => number + usize::from(number < sleeper),
            };
            let mut sleeper = self.participant(stage, seat, &[], act, FOREVER, traced);
            let asleep = if traced {
                tracer::stopped(&mut sleeper.child) && tracer::into_sleep(&mut sleeper.child)
            } else {
                rest::fell_asleep(&mut sleeper.child)
            };
            if !asleep {
                return Err(format!("sleeper {number} does not fall asleep: {:?}", sleeper.returned()));
            }
            let at = if traced { 0 } else { trial.participants.len() };
            trial.participants.insert(at, sleeper);
        }
        if let (Some(act), Some(Corpse { points, goal })) = (scene.corpse, corpse) {
            let mut corpse = self.participant(stage, trial.participants.len(), &[], act, FOREVER, true);
            tracer::stopped(&mut corpse.child);
            let (_, others) = trial.split();
            tracer::go_to(&mut corpse.child, points, *goal, || Pace::Prompt.settle(others));
            corpse.killed = corpse.child.kill() == End::Signal(libc::SIGKILL);
            Pace::Prompt.settle(others);
            trial.participants.push(corpse);
        }
        if let Victim::Woken { wake, .. } = scene.victim {
            for &act in wake {
                trial.must(stage, act)?;
            }
            if !tracer::woken(&mut trial.participants[0].child) {
                return Err("the sleeper that is to be the victim was not woken".into());
            }
        }
        Ok(trial)
    }

    fn participant(
        &self,
        stage: &dyn Stage,
        seat: usize,
        before: &'static [Act],
        act: Act,
        timeout_ms: i64,
        traced: bool,
    ) -> Participant {
        let seat = &self.seats[seat];
        seat.reset();
        let child = Child::fork(|| {
            tracer::give_priority(0, tracer::LOW);
            stage.warm_up(act);
            for &act in before {
                stage.act(act, timeout_ms, seat);
            }
            seat.traced.store(u32::from(traced), SeqCst);
            seat.ready.store(1, SeqCst);
            stage.act(act, timeout_ms, seat);
            debug_assert!(seat.state.load(SeqCst) == RETURNED);
        });
        // Who sleeps from here on sleeps in its operation. (No look at the child: that would take the victim's stop from the tracer.)
        clock::until(clock::patience(), || seat.ready.load(SeqCst) != 0);
        Participant {
            before,
            act,
            slept: timeout_ms == FOREVER,
            seat,
            child,
            killed: false,
            may_time_out: timeout_ms == IMPATIENCE_MS,
        }
    }
}

/// Where in a scouted operation to kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Density {
    /// After each instruction that changed something for others.
    Visible,
    /// And at a few places between: should the watch be blind for something, not all is lost.
    VisibleAndSome,
    /// After every instruction.
    Every,
}

impl Density {
    pub fn pick(self, points: &[Point]) -> Vec<usize> {
        let last = points.len() - 1;
        let stride = (points.len() / 8).max(1);
        let picks = |at: usize| {
            // Many in a row at one place are a `rep` instruction that copies: its beginning and its end will do.
            let place = points[at].counter;
            let copies = at >= 3 && at + 3 <= last && (at - 3..=at + 3).all(|near| points[near].counter == place);
            match self {
                Density::Every => true,
                Density::VisibleAndSome if at % stride == stride - 1 => true,
                _ => (points[at].visible && !copies) || at == last,
            }
        };
        (0..=last).filter(|&at| picks(at)).collect()
    }
}
