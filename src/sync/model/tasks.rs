//! The model of `ipc::queue::unfinished`: what was put is counted by one word, what was done, the ends and "somebody sleeps" by
//! another, changed in one step each; who waits sleeps on a bell that is a number.

use super::checker::{Kind, Model, Steps};
use super::kernel::Kernel;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Right,
    /// The last message is done before the sleepers are woken.
    PublishBeforeWake,
    /// The bell does not rise: who was about to sleep does.
    BellStays,
    /// No ends: who waited may find that something was put again.
    NoEnds,
    /// Counts without the section although somebody sleeps.
    CountsPastSleepers,
    /// Takes an end for its own that was begun before this process was seen to wait, perhaps before it put something.
    EndsFromTheStart,
}

#[derive(Clone, Copy, Debug)]
pub struct Tasks {
    pub variant: Variant,
    /// Put before it begins.
    pub messages: u8,
    pub doers: usize,
    pub each: u8,
    pub waiters: usize,
    pub putters: usize,
    pub kills: u8,
    pub timeouts: bool,
}

const MAX: usize = 5;
const SECTION: usize = 0;
const BELL: usize = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Look,
    Count,
    Section,
    LookInside,
    CountInside,
    Ring,
    Wake,
    End,
    LateRing,
    Give,
    Done,
    Join,
    JoinSection,
    Register,
    Mark,
    GiveAndSleep,
    Sleep,
    GiveAndLeave,
    Left,
    Put,
}

use At::*;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Process {
    at: At,
    rounds: u8,
    /// The word as it was last seen.
    seen: Word,
    /// The ends when this process was first seen to wait, + 1; 0 = it was not yet.
    first: u8,
    bell: u8,
    /// There was an end since this process began to wait and slept.
    owed: bool,
    /// What was put before this process began to wait.
    put: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Word {
    done: u8,
    ends: u8,
    asleep: bool,
}

const START: Word = Word { done: 0, ends: 0, asleep: false };
const IDLE: Process = Process { at: Look, rounds: 0, seen: START, first: 0, bell: 0, owed: false, put: 0 };

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct State {
    kernel: Kernel<2, MAX>,
    processes: [Process; MAX],
    put: u8,
    word: Word,
    kills: u8,
    early: bool,
}

impl Model for Tasks {
    type State = State;

    fn initial(&self) -> State {
        let process = |index| match index {
            _ if index < self.doers => Process { rounds: self.each, ..IDLE },
            _ if index < self.doers + self.waiters => Process { at: Join, rounds: 1, ..IDLE },
            _ if index < self.processes() => Process { at: Put, rounds: 1, ..IDLE },
            _ => IDLE,
        };
        State {
            kernel: Kernel::new(),
            processes: std::array::from_fn(process),
            put: self.messages,
            word: START,
            kills: self.kills,
            early: false,
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for process in 0..self.processes() {
            for kernel in state.kernel.bury(process) {
                steps.go(process, State { kernel, ..state.clone() });
            }
            let me = state.processes[process];
            if !state.kernel.is_alive(process) || me.rounds == 0 {
                continue;
            }
            let asleep = state.kernel.sleeps_on(process).is_some();
            if !asleep {
                self.step(state, process, steps);
            } else {
                let mut woken = state.clone();
                woken.kernel.rouse(process);
                steps.add(Kind::Spurious, process, woken);
            }
            if self.timeouts && (asleep || me.at == JoinSection) {
                let mut late = state.clone();
                late.kernel.rouse(process);
                late.processes[process].put = 0;
                late.processes[process].at = Left;
                steps.add(Kind::Timeout, process, late);
            }
            if state.kills > 0 && !matches!(me.at, Look | Join | Put) {
                let mut after = state.clone();
                after.kills -= 1;
                after.kernel.kill(process);
                after.processes[process] = IDLE;
                steps.add(Kind::Kill, process, after);
            }
        }
    }

    fn check(&self, state: &State) -> Result<(), String> {
        if state.word.done > state.put {
            return Err("more is done than was put".into());
        }
        if state.early { Err("released although something that was put before is not done".into()) } else { Ok(()) }
    }

    fn check_rest(&self, state: &State) -> Result<(), String> {
        for process in (0..self.processes()).filter(|&process| state.processes[process].rounds != 0) {
            if state.kernel.sleeps_on(process) != Some(BELL) {
                return Err(format!("{process} cannot get the section"));
            }
            if state.word.done == state.put || state.processes[process].owed {
                return Err(format!("{process} sleeps although all was done"));
            }
            if !state.word.asleep {
                return Err(format!("{process} sleeps and the end would not wake it"));
            }
        }
        Ok(())
    }

    fn place(&self, state: &State, process: usize) -> String {
        state.kernel.place(process, state.processes[process].at)
    }

    fn shared(&self, state: &State) -> String {
        format!("put={} {:?}  {}", state.put, state.word, state.kernel.describe(&["section", "bell"]))
    }
}

impl Tasks {
    fn processes(&self) -> usize {
        self.doers + self.waiters + self.putters
    }

    fn step(&self, state: &State, process: usize, steps: &mut Steps<State>) {
        let mut after = state.clone();
        let State { kernel, processes, put, word, early, .. } = &mut after;
        let variant = self.variant;
        let me = &mut processes[process];
        let ends = if variant == Variant::NoEnds { word.ends } else { word.ends + 1 };
        me.at = match me.at {
            Look if word.asleep && variant != Variant::CountsPastSleepers => Section,
            Look if word.done == *put => Done,
            Look => {
                me.seen = *word;
                Count
            }
            Count if *word == me.seen => {
                word.done += 1;
                Done
            }
            Count => Look,
            Section => match kernel.take(process, SECTION) {
                None => return,
                Some(_) => LookInside,
            },
            LookInside if word.done == *put => Give,
            LookInside if !word.asleep => {
                me.seen = *word;
                CountInside
            }
            LookInside if *put - word.done > 1 => {
                word.done += 1;
                Give
            }
            LookInside if variant == Variant::PublishBeforeWake => {
                *word = Word { done: word.done + 1, ends, asleep: false };
                LateRing
            }
            LookInside => Ring,
            CountInside if *word == me.seen => {
                word.done += 1;
                Give
            }
            CountInside => LookInside,
            Ring | LateRing => {
                kernel.words[BELL] += u8::from(variant != Variant::BellStays);
                Wake
            }
            Wake => {
                kernel.wake_all(BELL);
                if variant == Variant::PublishBeforeWake { Give } else { End }
            }
            End => {
                *word = Word { done: word.done + 1, ends, asleep: false };
                Give
            }
            Give => {
                kernel.give(process, SECTION);
                Done
            }
            Done => {
                me.rounds -= 1;
                me.seen = START;
                Look
            }
            Join => {
                me.put = *put;
                me.first = if variant == Variant::EndsFromTheStart { word.ends + 1 } else { 0 };
                if word.done == *put { Left } else { JoinSection }
            }
            JoinSection => match kernel.take(process, SECTION) {
                None => return,
                Some(_) => Register,
            },
            Register if (me.first != 0 && word.ends + 1 != me.first) || word.done == *put => GiveAndLeave,
            Register => {
                me.seen = *word;
                me.first = if me.first == 0 { word.ends + 1 } else { me.first };
                Mark
            }
            Mark if *word == me.seen => {
                word.asleep = true;
                me.bell = kernel.words[BELL];
                GiveAndSleep
            }
            Mark => Register,
            GiveAndSleep => {
                kernel.give(process, SECTION);
                Sleep
            }
            Sleep => {
                kernel.wait(process, BELL, me.bell);
                JoinSection
            }
            GiveAndLeave => {
                kernel.give(process, SECTION);
                Left
            }
            Left => {
                *early |= word.done < me.put;
                *me = IDLE;
                Join
            }
            Put => {
                *put += 1;
                *me = IDLE;
                Put
            }
        };
        // Only an end while somebody is registered is owed: before, the next look tells.
        if after.word.ends != state.word.ends || (state.word.asleep && !after.word.asleep) {
            for waiter in &mut after.processes[self.doers..self.doers + self.waiters] {
                waiter.owed |= waiter.rounds != 0 && waiter.first != 0;
            }
        }
        steps.go(process, after);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{expect_right, expect_wrong, size};
    use super::*;

    fn small() -> Tasks {
        Tasks { variant: Variant::Right, messages: 2, doers: 2, each: 1, waiters: 2, putters: 0, kills: 1, timeouts: false }
    }

    #[test]
    fn everybody_who_waits_sees_the_end() {
        expect_right(&Tasks { each: 2, kills: 1 + size(1), timeouts: true, ..small() });
        expect_right(&Tasks { each: 2, putters: 1, kills: size(1), ..small() });
        expect_right(&Tasks { putters: 1, waiters: 1 + usize::from(size(1)), timeouts: true, ..small() });
    }

    #[test]
    fn mutants_are_found() {
        let putting = Tasks { putters: 1, kills: 0, ..small() };
        expect_wrong(&Tasks { variant: Variant::EndsFromTheStart, each: 2, ..putting });
        expect_wrong(&Tasks { variant: Variant::PublishBeforeWake, ..small() });
        expect_wrong(&Tasks { variant: Variant::BellStays, kills: 0, ..small() });
        expect_wrong(&Tasks { variant: Variant::NoEnds, ..putting });
        expect_wrong(&Tasks { variant: Variant::CountsPastSleepers, kills: 0, ..small() });
    }
}
