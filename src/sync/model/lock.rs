//! The model of `sync::robust` and `sync::leader`: one robust word, step by step.
//!
//! Two ways to hold it: *short*, pending all the while, and *linked*, on the list while the holder does other things.

use super::checker::{Kind, Model, Steps};
use super::kernel::{Kernel, OWNER, OWNER_DIED, WAITERS};

/// The protocol, or one of the mistakes that the checker must find in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Right,
    /// Release stores 0 where somebody may sleep: a barging acquirer between release and wake-up leaves no WAITERS behind.
    ReleaseDropsW,
    /// The CAS comes before the word is pending.
    PendingAfterCas,
    /// Held across sleeps without being on the list.
    NotLinked,
    /// The holder clears WAITERS without the marker that stops those who are about to sleep.
    ClearsWithoutMarker,
    /// Gives up the pending word before it wakes.
    WakeAfterPending,
}

#[derive(Clone, Copy, Debug)]
pub struct Lock {
    pub variant: Variant,
    pub processes: usize,
    /// How often each takes the word.
    pub rounds: u8,
    pub kills: u8,
    /// Held linked instead of pending.
    pub linked: bool,
    /// Whether waiters may give up.
    pub timeouts: bool,
    /// Whether a release that wakes nobody clears WAITERS.
    pub clears: bool,
}

const MAX: usize = 4;
const WORD: usize = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Start,
    Fast,
    Look,
    Claim,
    Mark,
    Sleep,
    Link,
    Unpend,
    Inside,
    Pend,
    Unlink,
    ReleaseFast,
    ReleaseSlow,
    Wake,
    ClearTake,
    ClearMark,
    ClearWakeAll,
    Clear,
    ClearReleaseFast,
    ClearReleaseSlow,
    ClearWake,
    Done,
}

use At::*;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Process {
    at: At,
    /// What Look saw.
    seen: u8,
    rounds: u8,
    /// Took the word from a dead owner.
    recovers: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct State {
    kernel: Kernel<1, MAX>,
    processes: [Process; MAX],
    kills: u8,
    /// Somebody died inside and nobody was told yet.
    broken: bool,
}

impl Process {
    fn is_inside(&self) -> bool {
        matches!(self.at, Link | Unpend | Inside | Pend | Unlink | ReleaseFast | ReleaseSlow)
    }

    fn is_owner(&self) -> bool {
        self.is_inside() || matches!(self.at, ClearMark | ClearWakeAll | Clear | ClearReleaseFast | ClearReleaseSlow)
    }
}

impl Model for Lock {
    type State = State;

    fn initial(&self) -> State {
        let process =
            |index| Process { at: Start, seen: 0, rounds: if index < self.processes { self.rounds } else { 0 }, recovers: false };
        State { kernel: Kernel::new(), processes: std::array::from_fn(process), kills: self.kills, broken: false }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for process in 0..self.processes {
            for kernel in state.kernel.bury(process) {
                steps.go(process, State { kernel, ..state.clone() });
            }
            let Process { at, rounds, .. } = state.processes[process];
            if !state.kernel.is_alive(process) || rounds == 0 {
                continue;
            }
            if state.kernel.sleeps_on(process).is_none() {
                self.step(state, process, steps);
            } else {
                let mut woken = state.clone();
                woken.kernel.rouse(process);
                steps.add(Kind::Spurious, process, woken.clone());
                if self.timeouts {
                    woken.processes[process].at = Done;
                    steps.add(Kind::Timeout, process, woken);
                }
            }
            if state.kills > 0 && at != Start {
                let mut after = state.clone();
                after.kills -= 1;
                after.broken |= state.processes[process].is_inside();
                after.kernel.kill(process);
                after.processes[process] = Process { at: Start, seen: 0, rounds: 0, recovers: false };
                steps.add(Kind::Kill, process, after);
            }
        }
    }

    fn check(&self, state: &State) -> Result<(), String> {
        let mut owners = (0..self.processes).filter(|&process| state.processes[process].is_owner());
        if let (Some(one), Some(other)) = (owners.next(), owners.next()) {
            return Err(format!("{one} and {other} hold the word at the same time"));
        }
        match state.processes.iter().position(|process| process.at == Inside && state.broken && !process.recovers) {
            Some(process) => Err(format!("{process} was not told that the previous owner died inside")),
            None => Ok(()),
        }
    }

    fn check_rest(&self, state: &State) -> Result<(), String> {
        // The word always becomes free again, so nobody may be left waiting.
        match state.processes.iter().position(|process| process.rounds != 0) {
            Some(process) => Err(format!("{process} waits for a word that nobody will give it")),
            None => Ok(()),
        }
    }

    fn place(&self, state: &State, process: usize) -> String {
        state.kernel.place(process, state.processes[process].at)
    }

    fn shared(&self, state: &State) -> String {
        state.kernel.describe(&["word"])
    }
}

impl Lock {
    fn step(&self, state: &State, process: usize, steps: &mut Steps<State>) {
        let mut after = state.clone();
        let State { kernel, processes, broken, .. } = &mut after;
        let me = &mut processes[process];
        let word = kernel.words[WORD];
        let tid = process as u8 + 1;
        let variant = self.variant;
        me.at = match me.at {
            Start => {
                if variant != Variant::PendingAfterCas {
                    kernel.set_pending(process, WORD);
                }
                Fast
            }
            Fast if word == 0 => {
                kernel.words[WORD] = tid;
                self.taken()
            }
            Fast => Look,
            Look => {
                me.seen = word;
                match word {
                    _ if word & OWNER == 0 => Claim,
                    // A marker means that the owner is about to clear WAITERS: asleep then, nobody would wake this process.
                    _ if word & (WAITERS | OWNER_DIED) == WAITERS => Sleep,
                    _ => Mark,
                }
            }
            Claim if word == me.seen => {
                me.recovers = word & OWNER_DIED != 0;
                kernel.words[WORD] = tid | word & WAITERS;
                self.taken()
            }
            Mark if word == me.seen => {
                me.seen = word & !OWNER_DIED | WAITERS;
                kernel.words[WORD] = me.seen;
                Sleep
            }
            Claim | Mark => Look,
            Sleep => {
                kernel.wait(process, WORD, me.seen);
                // The deadline may have passed by then.
                if self.timeouts && kernel.sleeps_on(process).is_none() {
                    let mut late = state.clone();
                    late.processes[process].at = Done;
                    steps.add(Kind::Timeout, process, late);
                }
                Look
            }
            Link => {
                if variant == Variant::PendingAfterCas && !self.linked {
                    kernel.set_pending(process, WORD);
                } else {
                    kernel.link(process, WORD);
                }
                if self.linked { Unpend } else { Inside }
            }
            Unpend => {
                kernel.clear_pending(process);
                Inside
            }
            Inside => {
                *broken = false;
                me.recovers = false;
                if self.linked { Pend } else { ReleaseFast }
            }
            Pend => {
                kernel.set_pending(process, WORD);
                Unlink
            }
            Unlink => {
                kernel.unlink(process, WORD);
                ReleaseFast
            }
            ReleaseFast if word == tid => {
                kernel.words[WORD] = 0;
                Done
            }
            ReleaseFast => ReleaseSlow,
            ReleaseSlow => {
                me.seen = word;
                kernel.words[WORD] = if variant == Variant::ReleaseDropsW { 0 } else { word & WAITERS };
                if variant == Variant::WakeAfterPending {
                    kernel.clear_pending(process);
                }
                Wake
            }
            Wake | ClearWake => {
                for kernel in state.kernel.wake_one(WORD) {
                    let nobody = kernel == state.kernel;
                    let mut after = State { kernel, ..state.clone() };
                    let clears = self.clears && nobody && me.at == Wake;
                    after.processes[process].at = if clears { ClearTake } else { Done };
                    steps.go(process, after);
                }
                return;
            }
            ClearTake if word == WAITERS => {
                kernel.words[WORD] = tid | WAITERS;
                if variant == Variant::ClearsWithoutMarker { ClearWakeAll } else { ClearMark }
            }
            ClearTake => Done,
            ClearMark if word == tid | WAITERS => {
                kernel.words[WORD] = word | OWNER_DIED;
                ClearWakeAll
            }
            ClearMark => ClearReleaseFast,
            ClearWakeAll => {
                kernel.wake_all(WORD);
                Clear
            }
            Clear => {
                if word == tid | WAITERS | OWNER_DIED || variant == Variant::ClearsWithoutMarker {
                    kernel.words[WORD] = tid;
                }
                ClearReleaseFast
            }
            ClearReleaseFast if word == tid => {
                kernel.words[WORD] = 0;
                Done
            }
            ClearReleaseFast => ClearReleaseSlow,
            ClearReleaseSlow => {
                kernel.words[WORD] = word & WAITERS;
                if word & WAITERS != 0 { ClearWake } else { Done }
            }
            Done => {
                kernel.clear_pending(process);
                me.rounds -= 1;
                Start
            }
        };
        // Locals that are not used any more would only multiply the states.
        if !matches!(me.at, Claim | Mark | Sleep) {
            me.seen = 0;
        }
        steps.go(process, after);
    }

    /// What follows a successful CAS.
    fn taken(&self) -> At {
        match self.variant {
            Variant::PendingAfterCas => Link,
            Variant::NotLinked if self.linked => Unpend,
            _ if self.linked => Link,
            _ => Inside,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{expect_right, expect_wrong, size};
    use super::*;

    fn small() -> Lock {
        Lock { variant: Variant::Right, processes: 3, rounds: 2, kills: 1, linked: false, timeouts: false, clears: false }
    }

    #[test]
    fn a_short_word_outlives_its_owners() {
        let kills = 1 + size(1);
        expect_right(&Lock { kills, ..small() });
        expect_right(&Lock { kills: 1 + size(1), timeouts: true, clears: true, ..small() });
    }

    #[test]
    fn a_linked_word_outlives_its_owners() {
        let rounds = 1 + size(1);
        expect_right(&Lock { linked: true, rounds, kills: 2, timeouts: true, ..small() });
        expect_right(&Lock { linked: true, rounds: 2, kills: 1, clears: true, timeouts: true, ..small() });
    }

    #[test]
    fn mutants_are_found() {
        expect_wrong(&Lock { variant: Variant::ReleaseDropsW, ..small() });
        expect_wrong(&Lock { variant: Variant::PendingAfterCas, ..small() });
        expect_wrong(&Lock { variant: Variant::NotLinked, linked: true, ..small() });
        expect_wrong(&Lock { variant: Variant::ClearsWithoutMarker, clears: true, timeouts: true, ..small() });
        expect_wrong(&Lock { variant: Variant::WakeAfterPending, ..small() });
    }
}
