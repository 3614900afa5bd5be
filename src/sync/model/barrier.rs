//! The model of `sync::barrier`: seats that arrive in a round, a state to sleep on, a leader that looks around by itself when somebody
//! has died, followers on the leader word. The section is a single step; the leader word is what `sync::robust` makes of it, but that its
//! mark of waiters is never cleared.

use super::checker::{Kind, Model, Steps};
use super::kernel::{Kernel, OWNER, OWNER_DIED, WAITERS};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Right,
    /// The leader waits for the state to change and nothing else.
    LeaderDoesNotLook,
    /// Seats are not on their owners' lists.
    SeatNotLinked,
    /// Takes the section over from a dead one and does not end the round that was noted as completed.
    RoundNotFinished,
    /// A seat counts by its round alone, whoever has it.
    SeatOfTheGone,
}

#[derive(Clone, Copy, Debug)]
pub struct Barrier {
    pub variant: Variant,
    pub parties: usize,
    pub rounds: u8,
    pub kills: u8,
    pub timeouts: bool,
}

const MAX: usize = 3;
const SECTION: usize = 0;
const LEADER: usize = 1;
/// 2 x round, + 1: broken.
const STATE: usize = 2;
const SEAT: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Sit,
    Arrive,
    Arrived,
    Complete,
    Advance,
    WakeAll,
    WakeFollowers,
    Leave,
    Follow,
    Mark,
    SleepBehind,
    Lead,
    Look,
    Looked,
    SleepOnState,
    Unlead,
    UnleadWake,
    Depart,
    Departed,
    Stand,
    Recover,
    Broken,
}

use At::*;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Process {
    at: At,
    /// Where a wake-up of all, or the section, goes on.
    then: At,
    rounds: u8,
    /// The round that it has come for, + 1.
    mine: u8,
    slept: bool,
    leads: bool,
    late: bool,
}

const IDLE: Process = Process { at: Sit, then: Sit, rounds: 0, mine: 0, slept: false, leads: false, late: false };

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct State {
    kernel: Kernel<6, MAX>,
    processes: [Process; MAX],
    /// Number of who has arrived, and in which round, + 1.
    seats: [(u8, u8); MAX],
    /// The last round that was completed, + 1.
    completed: u8,
    kills: u8,
    /// Who has come through each of the rounds, as bits, and who was told that one was broken.
    through: [u8; 2],
    told: [u8; 2],
}

impl State {
    fn round(&self) -> u8 {
        self.kernel.words[STATE] / 2 + 1
    }

    fn is_broken(&self) -> bool {
        self.kernel.words[STATE] & 1 != 0
    }

    fn is_over(&self, mine: u8) -> bool {
        self.is_broken() || self.round() != mine
    }
}

impl Model for Barrier {
    type State = State;

    fn initial(&self) -> State {
        let process = |index| Process { rounds: if index < self.parties { self.rounds } else { 0 }, ..IDLE };
        State {
            kernel: Kernel::new(),
            processes: std::array::from_fn(process),
            seats: [(0, 0); MAX],
            completed: 0,
            kills: self.kills,
            through: [0; 2],
            told: [0; 2],
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        // Looking around again and again is a move only where there is something to be seen: else nothing would ever be at rest.
        let is_gone =
            |seat: usize| state.seats[seat].1 == state.round() && state.kernel.words[SEAT + seat] & OWNER != state.seats[seat].0;
        let is_to_be_seen = state.kernel.words[SECTION] & OWNER_DIED != 0 || (0..self.parties).any(is_gone);
        for process in 0..self.parties {
            for kernel in state.kernel.bury(process) {
                steps.go(process, State { kernel, ..state.clone() });
            }
            let me = state.processes[process];
            if !state.kernel.is_alive(process) || me.rounds == 0 {
                continue;
            }
            let asleep = state.kernel.sleeps_on(process);
            if asleep.is_none() {
                self.step(state, process, steps);
            } else {
                // Followers look, too: the leader that they sleep behind may be one of a later round.
                let looks = asleep == Some(LEADER) && state.is_over(me.mine)
                    || asleep == Some(STATE)
                        && (is_to_be_seen || state.is_over(me.mine))
                        && self.variant != Variant::LeaderDoesNotLook;
                let mut woken = state.clone();
                woken.kernel.rouse(process);
                steps.add(if looks { Kind::Move } else { Kind::Spurious }, process, woken);
            }
            if self.timeouts && asleep.is_some() {
                let mut late = state.clone();
                late.kernel.rouse(process);
                late.kernel.clear_pending(process);
                late.processes[process].late = true;
                late.processes[process].at = if me.leads { Unlead } else { Depart };
                steps.add(Kind::Timeout, process, late);
            }
            if state.kills > 0 && me.at != Sit {
                let mut after = state.clone();
                after.kills -= 1;
                after.kernel.kill(process);
                after.processes[process] = IDLE;
                if self.variant == Variant::SeatNotLinked {
                    after.kernel.unlink(process, SEAT + process);
                }
                steps.add(Kind::Kill, process, after);
            }
        }
    }

    fn check(&self, state: &State) -> Result<(), String> {
        for round in 0..usize::from(self.rounds) {
            let through = state.through[round];
            if through != 0 && state.completed <= round as u8 {
                return Err(format!("somebody came through round {round} before all were there"));
            }
            if through != 0 && state.told[round] != 0 && !self.timeouts {
                return Err(format!("round {round} was completed for some and broken for others"));
            }
        }
        Ok(())
    }

    fn check_rest(&self, state: &State) -> Result<(), String> {
        if state.completed == state.round() && state.kernel.words[SECTION] == 0 {
            return Err("a round was completed and does not end".into());
        }
        let sleepers: Vec<usize> = (0..self.parties).filter(|&process| state.processes[process].rounds != 0).collect();
        if sleepers.is_empty() {
            return Ok(());
        }
        if state.is_broken() {
            return Err(format!("{sleepers:?} sleep although it is broken"));
        }
        // A party that died before it came is missed by nobody.
        let here = |&seat: &usize| state.seats[seat].1 == state.round();
        if (0..self.parties).filter(here).count() != sleepers.len() {
            return Err(format!("{sleepers:?} sleep although one of them is gone, or the round is another"));
        }
        if sleepers.len() == self.parties { Err("all are there".into()) } else { Ok(()) }
    }

    fn place(&self, state: &State, process: usize) -> String {
        state.kernel.place(process, state.processes[process].at)
    }

    fn shared(&self, state: &State) -> String {
        let State { seats, completed, .. } = state;
        let words = state.kernel.describe(&["section", "leader", "state", "seat 0", "seat 1", "seat 2"]);
        format!("{words}{seats:?}  completed {completed}")
    }
}

impl Barrier {
    fn step(&self, state: &State, process: usize, steps: &mut Steps<State>) {
        let mut after = state.clone();
        let variant = self.variant;
        let mut me = state.processes[process];
        let tid = process as u8 + 1;
        let leader = state.kernel.words[LEADER];
        let then = match me.at {
            Arrive => Some(Arrived),
            Look => Some(Looked),
            Depart => Some(Departed),
            _ => None,
        };
        if let Some(then) = then {
            let Some(died) = after.kernel.take(process, SECTION) else { return };
            me.then = then;
            me.at = if died { Recover } else { then };
            after.processes[process] = me;
            steps.go(process, after);
            return;
        }
        let gone = |state: &State| {
            let is_gone = |&seat: &usize| {
                let (who, round) = state.seats[seat];
                round == state.round() && state.kernel.words[SEAT + seat] & OWNER != who
            };
            variant != Variant::SeatOfTheGone && (0..self.parties).any(|seat| is_gone(&seat))
        };
        let arrived = |state: &State| (0..self.parties).filter(|&seat| state.seats[seat].1 == state.round()).count();
        me.at = match me.at {
            // Each has its own seat: who sits where makes no difference here.
            Sit if state.is_broken() => Broken,
            Sit => match after.kernel.take_linked(process, SEAT + process) {
                None => return,
                Some(_) => {
                    after.seats[process].0 = 0;
                    Arrive
                }
            },
            Arrived if state.is_broken() || gone(state) => {
                me.then = Stand;
                me.mine = state.round();
                after.kernel.words[STATE] |= 1;
                WakeAll
            }
            Arrived => {
                me.mine = state.round();
                after.seats[process] = (tid, me.mine);
                if arrived(&after) == self.parties {
                    Complete
                } else {
                    after.kernel.give(process, SECTION);
                    Follow
                }
            }
            Complete => {
                after.completed = me.mine;
                Advance
            }
            Advance => {
                after.kernel.words[STATE] = state.kernel.words[STATE] + 2;
                me.then = Stand;
                WakeAll
            }
            WakeAll => {
                after.kernel.wake_all(STATE);
                WakeFollowers
            }
            WakeFollowers => {
                after.kernel.wake_all(LEADER);
                Leave
            }
            Leave => {
                after.kernel.give(process, SECTION);
                me.then
            }
            Follow if state.is_over(me.mine) => {
                if me.slept {
                    for kernel in state.kernel.wake_one(LEADER) {
                        let mut after = State { kernel, ..state.clone() };
                        after.kernel.clear_pending(process);
                        me.at = Stand;
                        after.processes[process] = me;
                        steps.go(process, after);
                    }
                    return;
                }
                after.kernel.clear_pending(process);
                Stand
            }
            Follow => {
                after.kernel.set_pending(process, LEADER);
                Mark
            }
            Mark if leader & OWNER == 0 => {
                after.kernel.words[LEADER] = leader & WAITERS | tid;
                after.kernel.link(process, LEADER);
                after.kernel.clear_pending(process);
                Lead
            }
            Mark => {
                after.kernel.words[LEADER] = leader | WAITERS;
                SleepBehind
            }
            SleepBehind => {
                // Whoever owns it by now: it matters that it is owned and marked.
                if leader & OWNER != 0 && leader & WAITERS != 0 {
                    after.kernel.wait(process, LEADER, leader);
                    me.slept = true;
                }
                Follow
            }
            Lead => {
                me.leads = true;
                Look
            }
            Looked if state.is_over(me.mine) => {
                me.then = Unlead;
                Leave
            }
            Looked if gone(state) => {
                after.kernel.words[STATE] |= 1;
                me.then = Unlead;
                WakeAll
            }
            Looked => {
                after.kernel.give(process, SECTION);
                SleepOnState
            }
            SleepOnState => {
                after.kernel.wait(process, STATE, (me.mine - 1) * 2);
                Look
            }
            Unlead => {
                after.kernel.set_pending(process, LEADER);
                after.kernel.unlink(process, LEADER);
                after.kernel.words[LEADER] = leader & WAITERS;
                UnleadWake
            }
            UnleadWake => {
                for kernel in state.kernel.wake_one(LEADER) {
                    let mut after = State { kernel, ..state.clone() };
                    after.kernel.clear_pending(process);
                    me.leads = false;
                    me.at = if me.late { Depart } else { Stand };
                    after.processes[process] = me;
                    steps.go(process, after);
                }
                return;
            }
            Departed if state.is_over(me.mine) => {
                me.then = Stand;
                Leave
            }
            Departed => {
                after.kernel.words[STATE] |= 1;
                me.then = Stand;
                WakeAll
            }
            Stand => {
                after.kernel.give(process, SEAT + process);
                if state.completed >= me.mine && me.mine != 0 {
                    after.through[usize::from(me.mine) - 1] |= 1 << process;
                    me = Process { rounds: me.rounds - 1, ..IDLE };
                    Sit
                } else {
                    Broken
                }
            }
            Broken => {
                if me.mine != 0 {
                    after.told[usize::from(me.mine) - 1] |= 1 << process;
                }
                me = IDLE;
                Sit
            }
            Recover => {
                if state.completed == state.round() && variant != Variant::RoundNotFinished {
                    after.kernel.words[STATE] = state.kernel.words[STATE] + 2;
                }
                after.kernel.wake_all(STATE);
                after.kernel.wake_all(LEADER);
                me.then
            }
            Arrive | Look | Depart => unreachable!("the section is above"),
        };
        after.processes[process] = me;
        steps.go(process, after);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{expect_right, expect_wrong, size};
    use super::*;

    fn small() -> Barrier {
        Barrier { variant: Variant::Right, parties: 3, rounds: 1, kills: 1, timeouts: false }
    }

    #[test]
    fn all_meet_or_none() {
        expect_right(&Barrier { kills: 1 + size(1), ..small() });
        expect_right(&Barrier { rounds: 2, kills: size(1), ..small() });
        expect_right(&Barrier { parties: 2, rounds: 2, kills: 2, timeouts: true, ..small() });
        expect_right(&Barrier { timeouts: true, ..small() });
    }

    #[test]
    fn mutants_are_found() {
        expect_wrong(&Barrier { variant: Variant::LeaderDoesNotLook, ..small() });
        expect_wrong(&Barrier { variant: Variant::SeatNotLinked, ..small() });
        expect_wrong(&Barrier { variant: Variant::RoundNotFinished, ..small() });
        expect_wrong(&Barrier { variant: Variant::SeatOfTheGone, ..small() });
    }
}
