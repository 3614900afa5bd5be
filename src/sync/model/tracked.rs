//! The model of `sync::tracked`: a word for each permit, a bell for the leader of those who wait, who looks around by itself when
//! somebody has died.

use super::checker::{Kind, Model, Steps};
use super::kernel::{Kernel, OWNER};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Right,
    /// The leader waits for the bell and nothing else.
    LeaderDoesNotLook,
    /// Who gives a permit back wakes nobody.
    BellNotRung,
    /// A permit is not on its owner's list.
    PermitNotLinked,
    LeaderNotLinked,
    /// The leader looks for a permit first and says then that it sleeps.
    LooksBeforeBell,
    /// The bell is rung first and the permit given back then.
    RingsBeforeFree,
}

#[derive(Clone, Copy, Debug)]
pub struct Tracked {
    pub variant: Variant,
    pub processes: usize,
    pub rounds: u8,
    pub permits: usize,
    pub kills: u8,
    pub timeouts: bool,
}

const MAX: usize = 4;
const LEADER: usize = 0;
const BELL: usize = 1;
const PERMIT: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    /// Tries the permit of this number.
    Try(u8),
    Lead,
    SetBell,
    Sleep,
    ClearBell,
    Unlead,
    Inside,
    Free,
    Look,
    ResetBell,
    Wake,
    Done,
}

use At::*;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Process {
    at: At,
    rounds: u8,
    leads: bool,
    /// The permit that it has, + 1.
    has: u8,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct State {
    kernel: Kernel<4, MAX>,
    processes: [Process; MAX],
    kills: u8,
}

impl Model for Tracked {
    type State = State;

    fn initial(&self) -> State {
        let rounds = |index| if index < self.processes { self.rounds } else { 0 };
        let process = |index| Process { at: Try(0), rounds: rounds(index), leads: false, has: 0 };
        State { kernel: Kernel::new(), processes: std::array::from_fn(process), kills: self.kills }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        let somebody_died = (0..self.processes).any(|process| !state.kernel.is_alive(process));
        for process in 0..self.processes {
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
                let looks = somebody_died && self.variant != Variant::LeaderDoesNotLook;
                let mut woken = state.clone();
                woken.kernel.rouse(process);
                steps.add(if looks { Kind::Move } else { Kind::Spurious }, process, woken);
            }
            if self.timeouts && (asleep || me.at == Lead) {
                let mut late = state.clone();
                late.kernel.rouse(process);
                late.processes[process].at = if me.leads { ClearBell } else { Done };
                steps.add(Kind::Timeout, process, late);
            }
            if state.kills > 0 {
                let mut after = state.clone();
                after.kills -= 1;
                after.kernel.kill(process);
                after.processes[process] = Process { at: Try(0), rounds: 0, leads: false, has: 0 };
                if self.variant == Variant::LeaderNotLinked {
                    after.kernel.unlink(process, LEADER);
                }
                if self.variant == Variant::PermitNotLinked {
                    (PERMIT..PERMIT + self.permits).for_each(|word| after.kernel.unlink(process, word));
                }
                steps.add(Kind::Kill, process, after);
            }
        }
    }

    fn check(&self, _: &State) -> Result<(), String> {
        Ok(())
    }

    fn check_rest(&self, state: &State) -> Result<(), String> {
        if let Some(process) = (0..self.processes).find(|&process| state.processes[process].rounds != 0) {
            return Err(format!("{process} waits for ever"));
        }
        match (PERMIT..PERMIT + self.permits).find(|&word| state.kernel.words[word] & OWNER != 0) {
            Some(word) => Err(format!("permit {} is lost", word - PERMIT)),
            None => Ok(()),
        }
    }

    fn place(&self, state: &State, process: usize) -> String {
        state.kernel.place(process, state.processes[process].at)
    }

    fn shared(&self, state: &State) -> String {
        state.kernel.describe(&["leader", "bell", "permit 0", "permit 1"])
    }
}

impl Tracked {
    fn step(&self, state: &State, process: usize, steps: &mut Steps<State>) {
        let mut after = state.clone();
        let State { kernel, processes, .. } = &mut after;
        let me = &mut processes[process];
        let variant = self.variant;
        me.at = match me.at {
            Try(index) if usize::from(index) == self.permits => match (me.leads, variant) {
                (false, _) => Lead,
                (true, Variant::LooksBeforeBell) => SetBell,
                (true, _) => Sleep,
            },
            Try(index) => match kernel.take_linked(process, PERMIT + usize::from(index)) {
                None => Try(index + 1),
                Some(_) => {
                    me.has = index + 1;
                    if me.leads { ClearBell } else { Inside }
                }
            },
            Lead => match kernel.take_linked(process, LEADER) {
                None => return,
                Some(_) => {
                    me.leads = true;
                    if variant == Variant::LooksBeforeBell { Try(0) } else { SetBell }
                }
            },
            SetBell => {
                kernel.words[BELL] = 1;
                if variant == Variant::LooksBeforeBell { Sleep } else { Try(0) }
            }
            Sleep => {
                kernel.wait(process, BELL, 1);
                if variant == Variant::LooksBeforeBell { Try(0) } else { SetBell }
            }
            ClearBell => {
                kernel.words[BELL] = 0;
                Unlead
            }
            Unlead => {
                kernel.give(process, LEADER);
                me.leads = false;
                if me.has == 0 { Done } else { Inside }
            }
            Inside if variant == Variant::RingsBeforeFree => Look,
            Inside => Free,
            Free => {
                kernel.give(process, PERMIT + usize::from(me.has) - 1);
                me.has = 0;
                if variant == Variant::RingsBeforeFree { Done } else { Look }
            }
            Look if variant == Variant::BellNotRung => Done,
            Look if kernel.words[BELL] != 0 => ResetBell,
            Look if me.has != 0 => Free,
            Look => Done,
            ResetBell => {
                kernel.words[BELL] = 0;
                Wake
            }
            Wake => {
                for kernel in state.kernel.wake_one(BELL) {
                    let mut after = State { kernel, ..state.clone() };
                    after.processes[process].at = if me.has != 0 { Free } else { Done };
                    steps.go(process, after);
                }
                return;
            }
            Done => {
                me.rounds -= 1;
                Try(0)
            }
        };
        steps.go(process, after);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{expect_right, expect_wrong, size};
    use super::*;

    fn small() -> Tracked {
        Tracked { variant: Variant::Right, processes: 3, rounds: 1, permits: 1, kills: 1, timeouts: false }
    }

    #[test]
    fn permits_of_the_dead_come_back() {
        expect_right(&Tracked { rounds: 2, kills: 0, ..small() });
        expect_right(&Tracked { rounds: 1 + size(1), kills: 2, timeouts: true, ..small() });
        expect_right(&Tracked { processes: 4, permits: 2, kills: 1 + size(1), ..small() });
    }

    #[test]
    fn mutants_are_found() {
        expect_wrong(&Tracked { variant: Variant::LeaderDoesNotLook, ..small() });
        expect_wrong(&Tracked { variant: Variant::BellNotRung, kills: 0, ..small() });
        expect_wrong(&Tracked { variant: Variant::PermitNotLinked, ..small() });
        expect_wrong(&Tracked { variant: Variant::LeaderNotLinked, ..small() });
        expect_wrong(&Tracked { variant: Variant::LooksBeforeBell, kills: 0, ..small() });
        expect_wrong(&Tracked { variant: Variant::RingsBeforeFree, kills: 0, ..small() });
    }
}
