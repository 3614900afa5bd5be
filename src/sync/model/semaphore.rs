//! The model of `sync::semaphore`: the count and who sleeps in one word, a short lock for who sleeps and who wakes, a leader among those
//! who wait.

use super::checker::{Kind, Model, Steps};
use super::kernel::Kernel;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Right,
    /// The permits are there before the leader is woken.
    PublishBeforeWake,
    /// Sleeps while it owns the leader word, which is not on its list.
    LeaderNotLinked,
    /// Takes the lock over from a dead releaser and wakes nobody.
    RecoveryDoesNotWake,
    /// Only releasers look at what the dead owner left.
    RecoveryOnlyInProducers,
    /// Clears *asleep* and wakes without the lock.
    DoorbellResetOutsideLock,
    /// Everybody who waits sleeps on the count; a release wakes one.
    NoLeader,
    /// While the leader is being woken the state is that of a semaphore without sleepers: the next releaser passes by without the
    /// lock of a dead one.
    WakingLooksFree,
    /// The recovery ends the waking before it wakes, and may be killed in between.
    RecoveryResetsFirst,
}

#[derive(Clone, Copy, Debug)]
pub struct Semaphore {
    pub variant: Variant,
    pub initial: u8,
    pub acquirers: usize,
    pub acquires: u8,
    pub releasers: usize,
    pub releases: u8,
    /// Permits given back by one release.
    pub by: u8,
    pub kills: u8,
    pub timeouts: bool,
}

const MAX: usize = 5;
/// The short lock.
const LOCK: usize = 0;
/// The leader word.
const LEADER: usize = 1;
/// 2 n: n permits; odd: none, and
const STATE: usize = 2;
/// the leader sleeps;
const ASLEEP: u8 = 1;
/// the leader is being woken.
const WAKING: u8 = 3;

fn is_odd(state: u8) -> bool {
    state & 1 != 0
}

fn permits(state: u8) -> u8 {
    if is_odd(state) { 0 } else { state / 2 }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Acquire,
    Lead,
    Register,
    Mark,
    Unlock,
    Sleep,
    Got,
    Unlead,
    Leave,
    Release,
    ReleaseLock,
    Reset,
    Wake,
    Publish,
    ReleaseUnlock,
    Recover,
    RecoverWake,
    RecoverReset,
    Done,
}

use At::*;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Process {
    at: At,
    /// Where a recovery goes on.
    then: At,
    rounds: u8,
    leads: bool,
    got: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct State {
    kernel: Kernel<3, MAX>,
    processes: [Process; MAX],
    kills: u8,
    /// Permits that releases which returned have given, and that acquires have taken.
    given: u8,
    taken: u8,
    /// Permits that releases which are under way or died may have given.
    promised: u8,
}

impl Model for Semaphore {
    type State = State;

    fn initial(&self) -> State {
        let mut kernel = Kernel::new();
        kernel.words[STATE] = self.initial * 2;
        let process = |index| {
            let (at, rounds) = match index {
                _ if index < self.acquirers => (Acquire, self.acquires),
                _ if index < self.acquirers + self.releasers => (Release, self.releases),
                _ => (Acquire, 0),
            };
            Process { at, then: Done, rounds, leads: false, got: false }
        };
        let processes = std::array::from_fn(process);
        State { kernel, processes, kills: self.kills, given: 0, taken: 0, promised: 0 }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for process in 0..self.acquirers + self.releasers {
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
            if self.timeouts && process < self.acquirers && (asleep || matches!(me.at, Lead | Register)) {
                let mut late = state.clone();
                late.kernel.rouse(process);
                late.processes[process].at = if me.leads { Unlead } else { Leave };
                steps.add(Kind::Timeout, process, late);
            }
            if state.kills > 0 && (me.leads || !matches!(me.at, Acquire | Release)) {
                let mut after = state.clone();
                after.kills -= 1;
                after.kernel.kill(process);
                after.processes[process] = Process { at: Acquire, then: Done, rounds: 0, leads: false, got: false };
                if self.variant == Variant::LeaderNotLinked {
                    after.kernel.unlink(process, LEADER);
                }
                steps.add(Kind::Kill, process, after);
            }
        }
    }

    fn check(&self, state: &State) -> Result<(), String> {
        let there = state.taken + permits(state.kernel.words[STATE]);
        if there < self.initial + state.given {
            return Err("a permit is lost".into());
        }
        if there > self.initial + state.promised { Err("a permit was made of nothing".into()) } else { Ok(()) }
    }

    fn check_rest(&self, state: &State) -> Result<(), String> {
        let waiting = |process: &usize| state.processes[*process].rounds != 0;
        if let Some(releaser) = (self.acquirers..self.acquirers + self.releasers).find(waiting) {
            return Err(format!("{releaser} cannot release"));
        }
        let Some(acquirer) = (0..self.acquirers).find(waiting) else { return Ok(()) };
        if state.kernel.words[STATE] & 1 == 0 {
            return Err(format!("{acquirer} waits although there are permits, or the next release would not wake it"));
        }
        let registered = (0..self.acquirers).any(|process| state.kernel.sleeps_on(process) == Some(STATE));
        if registered { Ok(()) } else { Err(format!("{acquirer} waits behind a leader that does not sleep")) }
    }

    fn place(&self, state: &State, process: usize) -> String {
        state.kernel.place(process, state.processes[process].at)
    }

    fn shared(&self, state: &State) -> String {
        state.kernel.describe(&["lock", "leader", "state"])
    }
}

impl Semaphore {
    fn step(&self, state: &State, process: usize, steps: &mut Steps<State>) {
        let mut after = state.clone();
        let State { kernel, processes, given, taken, promised, .. } = &mut after;
        let me = &mut processes[process];
        let word = kernel.words[STATE];
        let variant = self.variant;
        me.at = match me.at {
            Acquire if permits(word) > 0 => {
                kernel.words[STATE] = word - 2;
                *taken += 1;
                Got
            }
            Acquire if me.leads || variant == Variant::NoLeader => Register,
            Acquire => Lead,
            Lead => match kernel.take_linked(process, LEADER) {
                None => return,
                Some(_) => {
                    me.leads = true;
                    Acquire
                }
            },
            Register => match kernel.take(process, LOCK) {
                None => return,
                Some(died) if died && variant != Variant::RecoveryOnlyInProducers => {
                    me.then = Mark;
                    Recover
                }
                Some(_) => Mark,
            },
            Mark => {
                if word == 0 {
                    kernel.words[STATE] = ASLEEP;
                }
                Unlock
            }
            Unlock => {
                kernel.give(process, LOCK);
                Sleep
            }
            Sleep => {
                kernel.wait(process, STATE, ASLEEP);
                Acquire
            }
            Got if me.leads => Unlead,
            Got => Leave,
            Unlead => {
                kernel.give(process, LEADER);
                me.leads = false;
                Leave
            }
            Leave => {
                me.rounds -= 1;
                Acquire
            }
            Release if !is_odd(word) => {
                *promised += self.by;
                kernel.words[STATE] = word + self.by * 2;
                Done
            }
            Release if variant == Variant::DoorbellResetOutsideLock => Reset,
            Release => ReleaseLock,
            ReleaseLock => match kernel.take(process, LOCK) {
                None => return,
                Some(true) => {
                    me.then = Reset;
                    Recover
                }
                Some(false) => Reset,
            },
            Reset if !is_odd(word) => Publish,
            Reset if variant == Variant::PublishBeforeWake => {
                *promised += self.by;
                kernel.words[STATE] = self.by * 2;
                Wake
            }
            Reset => {
                kernel.words[STATE] = if variant == Variant::WakingLooksFree { 0 } else { WAKING };
                Wake
            }
            Wake => {
                for kernel in state.kernel.wake_one(STATE) {
                    let mut after = State { kernel, ..state.clone() };
                    after.processes[process].at = if variant == Variant::PublishBeforeWake { ReleaseUnlock } else { Publish };
                    steps.go(process, after);
                }
                return;
            }
            Publish => {
                *promised += self.by;
                kernel.words[STATE] = (permits(word) + self.by) * 2;
                if variant == Variant::DoorbellResetOutsideLock { Done } else { ReleaseUnlock }
            }
            ReleaseUnlock => {
                kernel.give(process, LOCK);
                Done
            }
            Done => {
                *given += self.by;
                me.rounds -= 1;
                Release
            }
            // Only a waking that began must be done again. WAKING stays until all are awake.
            Recover if word == WAKING || variant == Variant::WakingLooksFree => {
                if variant == Variant::RecoveryResetsFirst {
                    kernel.words[STATE] = 0;
                }
                RecoverWake
            }
            Recover => me.then,
            RecoverWake => {
                if variant != Variant::RecoveryDoesNotWake {
                    kernel.wake_all(STATE);
                }
                RecoverReset
            }
            RecoverReset => {
                if word == WAKING {
                    kernel.words[STATE] = 0;
                }
                me.then
            }
        };
        steps.go(process, after);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{expect_right, expect_wrong, size};
    use super::*;

    fn small() -> Semaphore {
        Semaphore {
            variant: Variant::Right,
            initial: 0,
            acquirers: 3,
            acquires: 1,
            releasers: 2,
            releases: 1,
            by: 1,
            kills: 1,
            timeouts: false,
        }
    }

    #[test]
    fn no_kill_loses_a_permit_or_a_waiter() {
        expect_right(&Semaphore { kills: 2, acquires: 1 + size(1), ..small() });
        expect_right(&Semaphore { kills: 1 + size(1), releases: 2, timeouts: true, ..small() });
        expect_right(&Semaphore { initial: 1, acquirers: 2, acquires: 2, by: 2, timeouts: true, kills: 2, ..small() });
    }

    #[test]
    fn mutants_are_found() {
        expect_wrong(&Semaphore { variant: Variant::PublishBeforeWake, ..small() });
        expect_wrong(&Semaphore { variant: Variant::LeaderNotLinked, ..small() });
        expect_wrong(&Semaphore { variant: Variant::RecoveryDoesNotWake, ..small() });
        expect_wrong(&Semaphore { variant: Variant::RecoveryOnlyInProducers, releases: 2, ..small() });
        expect_wrong(&Semaphore { variant: Variant::DoorbellResetOutsideLock, ..small() });
        expect_wrong(&Semaphore { variant: Variant::NoLeader, ..small() });
        expect_wrong(&Semaphore { variant: Variant::WakingLooksFree, ..small() });
        expect_wrong(&Semaphore { variant: Variant::RecoveryResetsFirst, kills: 2, releasers: 3, acquirers: 2, ..small() });
    }
}
