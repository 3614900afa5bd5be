//! The model of `sync::event`: {generation, waking, asleep, set} in one word; all who wait sleep on it.

use super::checker::{Kind, Model, Steps};
use super::kernel::Kernel;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Right,
    /// The event is set before the sleepers are woken.
    PublishBeforeWake,
    /// Takes the lock over from a dead setter and wakes nobody.
    RecoveryDoesNotWake,
    /// No generation: who was waiting when the event was set may find it cleared again.
    NoGeneration,
    /// While the sleepers are being woken the state is that of an event without sleepers.
    WakingLooksFree,
}

#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub variant: Variant,
    pub waiters: usize,
    pub waits: u8,
    pub setters: usize,
    pub sets: u8,
    /// Each setter clears the event after it has set it.
    pub clears: bool,
    pub kills: u8,
    pub timeouts: bool,
}

const MAX: usize = 5;
const LOCK: usize = 0;
const EVENT: usize = 1;
const SET: u8 = 1;
const ASLEEP: u8 = 2;
const WAKING: u8 = 4;
const GENERATION: u8 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Wait,
    Register,
    Mark,
    Unlock,
    UnlockAndSleep,
    Sleep,
    Check,
    Left,
    Set,
    SetLock,
    Reset,
    Wake,
    Publish,
    SetUnlock,
    SetDone,
    Clear,
    Recover,
    RecoverWake,
    RecoverReset,
}

use At::*;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Process {
    at: At,
    /// Where a recovery goes on.
    then: At,
    rounds: u8,
    /// The word as it was when the wait began.
    seen: u8,
    /// The event was set while this process waited.
    owed: bool,
}

const IDLE: Process = Process { at: Wait, then: Wait, rounds: 0, seen: 0, owed: false };

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct State {
    kernel: Kernel<2, MAX>,
    processes: [Process; MAX],
    kills: u8,
}

impl Model for Event {
    type State = State;

    fn initial(&self) -> State {
        let process = |index| match index {
            _ if index < self.waiters => Process { at: Wait, rounds: self.waits, ..IDLE },
            _ if index < self.waiters + self.setters => Process { at: Set, rounds: self.sets, ..IDLE },
            _ => IDLE,
        };
        State { kernel: Kernel::new(), processes: std::array::from_fn(process), kills: self.kills }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for process in 0..self.waiters + self.setters {
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
            if self.timeouts && (asleep || me.at == Register) {
                let mut late = state.clone();
                late.kernel.rouse(process);
                late.processes[process].at = Left;
                steps.add(Kind::Timeout, process, late);
            }
            if state.kills > 0 && !matches!(me.at, Wait | Set) {
                let mut after = state.clone();
                after.kills -= 1;
                after.kernel.kill(process);
                after.processes[process] = IDLE;
                steps.add(Kind::Kill, process, after);
            }
        }
    }

    fn check(&self, _: &State) -> Result<(), String> {
        Ok(())
    }

    fn check_rest(&self, state: &State) -> Result<(), String> {
        let waiting = |process: &usize| state.processes[*process].rounds != 0;
        if let Some(setter) = (self.waiters..self.waiters + self.setters).find(waiting) {
            return Err(format!("{setter} cannot set"));
        }
        for waiter in (0..self.waiters).filter(waiting) {
            if state.kernel.words[EVENT] & SET != 0 || state.processes[waiter].owed {
                return Err(format!("{waiter} sleeps although the event was set"));
            }
            if state.kernel.sleeps_on(waiter) != Some(EVENT) || state.kernel.words[EVENT] & (ASLEEP | WAKING) == 0 {
                return Err(format!("{waiter} waits and the next set would not wake it"));
            }
        }
        Ok(())
    }

    fn place(&self, state: &State, process: usize) -> String {
        state.kernel.place(process, state.processes[process].at)
    }

    fn shared(&self, state: &State) -> String {
        state.kernel.describe(&["lock", "event"])
    }
}

impl Event {
    fn step(&self, state: &State, process: usize, steps: &mut Steps<State>) {
        let mut after = state.clone();
        let State { kernel, processes, .. } = &mut after;
        let event = kernel.words[EVENT];
        let variant = self.variant;
        let published = match variant {
            Variant::NoGeneration => event & !(ASLEEP | WAKING) | SET,
            _ => (event & !(ASLEEP | WAKING) | SET).wrapping_add(GENERATION),
        };
        let me = &mut processes[process];
        let is_over = event & SET != 0 || event / GENERATION != me.seen / GENERATION;
        me.at = match me.at {
            Wait if event & SET != 0 => Left,
            Wait => {
                me.seen = event;
                Register
            }
            Register => match kernel.take(process, LOCK) {
                None => return,
                Some(true) => {
                    me.then = Mark;
                    Recover
                }
                Some(false) => Mark,
            },
            Mark if is_over => Unlock,
            Mark => {
                kernel.words[EVENT] = event | ASLEEP;
                me.seen = event | ASLEEP;
                UnlockAndSleep
            }
            Unlock => {
                kernel.give(process, LOCK);
                Left
            }
            UnlockAndSleep => {
                kernel.give(process, LOCK);
                Sleep
            }
            Sleep => {
                kernel.wait(process, EVENT, me.seen);
                Check
            }
            Check if is_over => Left,
            Check => Register,
            Left => {
                me.rounds -= 1;
                me.owed = false;
                me.seen = 0;
                Wait
            }
            Set if event & (ASLEEP | WAKING) == 0 => {
                kernel.words[EVENT] = published;
                SetDone
            }
            Set => SetLock,
            SetLock => match kernel.take(process, LOCK) {
                None => return,
                Some(true) => {
                    me.then = Reset;
                    Recover
                }
                Some(false) => Reset,
            },
            Reset if event & (ASLEEP | WAKING) == 0 => Publish,
            Reset if variant == Variant::PublishBeforeWake => {
                kernel.words[EVENT] = published;
                Wake
            }
            Reset => {
                kernel.words[EVENT] = event & !ASLEEP | if variant == Variant::WakingLooksFree { 0 } else { WAKING };
                Wake
            }
            Wake => {
                kernel.wake_all(EVENT);
                if variant == Variant::PublishBeforeWake { SetUnlock } else { Publish }
            }
            Publish => {
                kernel.words[EVENT] = published;
                SetUnlock
            }
            SetUnlock => {
                kernel.give(process, LOCK);
                SetDone
            }
            SetDone if self.clears => Clear,
            SetDone => {
                me.rounds -= 1;
                Set
            }
            Clear => {
                kernel.words[EVENT] = event & !SET;
                me.rounds -= 1;
                Set
            }
            Recover if event & WAKING != 0 || variant == Variant::WakingLooksFree => RecoverWake,
            Recover => me.then,
            RecoverWake => {
                if variant != Variant::RecoveryDoesNotWake {
                    kernel.wake_all(EVENT);
                }
                RecoverReset
            }
            RecoverReset => {
                kernel.words[EVENT] = event & !WAKING;
                me.then
            }
        };
        if after.kernel.words[EVENT] & !event & SET != 0 || after.kernel.words[EVENT] / GENERATION != event / GENERATION {
            for waiter in &mut after.processes[..self.waiters] {
                waiter.owed = waiter.rounds != 0 && waiter.at != Wait;
            }
        }
        steps.go(process, after);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{expect_right, expect_wrong, size};
    use super::*;

    fn small() -> Event {
        Event { variant: Variant::Right, waiters: 2, waits: 1, setters: 2, sets: 1, clears: false, kills: 1, timeouts: false }
    }

    #[test]
    fn everybody_who_waits_is_released() {
        expect_right(&Event { waiters: 3, timeouts: true, ..small() });
        expect_right(&Event { clears: true, sets: 2, kills: 1 + size(1), ..small() });
        expect_right(&Event { clears: true, waits: 2, kills: 2, timeouts: true, ..small() });
    }

    #[test]
    fn mutants_are_found() {
        expect_wrong(&Event { variant: Variant::PublishBeforeWake, ..small() });
        expect_wrong(&Event { variant: Variant::RecoveryDoesNotWake, clears: true, ..small() });
        expect_wrong(&Event { variant: Variant::NoGeneration, clears: true, kills: 0, ..small() });
        expect_wrong(&Event { variant: Variant::WakingLooksFree, ..small() });
    }
}
