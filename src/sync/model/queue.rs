//! The model of `ipc::queue`: two sides, each with a short section, a bell that the other side's leader sleeps on, a leader word and
//! a position that publishes with one store. Sections and leader words are single steps here: `lock` is their model.

use super::checker::{Kind, Model, Steps};
use super::kernel::{Kernel, OWNER, OWNER_DIED};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Right,
    PublishBeforeWake,
    /// Sleeps while it owns the leader word, which is not on its list.
    LeaderNotLinked,
    RecoveryDoesNotWake,
    /// The bell is reset, and its sleeper woken, after the section was given.
    DoorbellResetOutsideLock,
    /// The bell is reset after the section was given, although its sleeper was woken before.
    DoorbellResetLate,
    /// Units and messages become visible one after the other.
    TwoStorePublish,
    /// Everybody sleeps on the bell; a publication wakes one.
    NoLeader,
    /// Closing sets the flag first and wakes then.
    CloseBeforeWake,
    /// Who registers does not look whether the queue was closed.
    RegisterIgnoresClose,
}

#[derive(Clone, Copy, Debug)]
pub struct Queue {
    pub variant: Variant,
    pub producers: usize,
    pub puts: u8,
    pub consumers: usize,
    pub gets: u8,
    /// One more process, which closes the queue.
    pub closer: bool,
    /// In messages.
    pub capacity: u8,
    pub kills: u8,
    pub timeouts: bool,
}

const MAX: usize = 5;
/// Two units: enough for a message to be there by half.
const UNITS: u8 = 2;
const RING: usize = 4;

/// A side is 0 or 1, and so are its words.
const PRODUCERS: usize = 0;
const CONSUMERS: usize = 1;
const SECTION: [usize; 2] = [0, 1];
const LEADER: [usize; 2] = [2, 3];
const BELL: [usize; 2] = [4, 5];
const NAMES: [&str; 6] = ["put", "get", "put leader", "get leader", "put bell", "get bell"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Enter,
    Look,
    Copy,
    CopyRest,
    Ring,
    RingWake,
    Publish,
    PublishRest,
    Give,
    LateRing,
    LateRingWake,
    LateReset,
    Unlead,
    Return,
    GiveNothing,
    Lead,
    Register,
    Mark,
    GiveBack,
    GiveBackAndSleep,
    Sleep,
    GiveClosed,
    Recover,
    RecoverWake,
    CloseEnter,
    CloseEnterOther,
    CloseReset,
    CloseWake,
    CloseResetOther,
    CloseWakeOther,
    Close,
    CloseGive,
    CloseGiveOther,
}

use At::*;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Process {
    at: At,
    /// The side whose section is being mended, and what comes after.
    mends: u8,
    then: At,
    /// Calls to come.
    left: u8,
    leads: bool,
    /// The message that is being put or got, from 1 on; 0 = none.
    message: u8,
}

const IDLE: Process = Process { at: Enter, mends: 0, then: Enter, left: 0, leads: false, message: 0 };

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Position {
    messages: u8,
    units: u8,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct State {
    kernel: Kernel<6, MAX>,
    processes: [Process; MAX],
    /// What each side has published, and its own copy.
    position: [Position; 2],
    own: [Position; 2],
    ring: [u8; RING],
    closed: bool,
    kills: u8,
    /// Bits of messages: put and returned; got and returned; published by a consumer that died before it returned.
    put: u16,
    got: u16,
    buried: u16,
    mistake: Option<Mistake>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mistake {
    HalfMessage,
    GotTwice,
    ImpossiblePositions,
}

impl Model for Queue {
    type State = State;

    fn initial(&self) -> State {
        let process = |index| match index {
            _ if index < self.producers => Process { left: self.puts, ..IDLE },
            _ if index < self.producers + self.consumers => Process { left: self.gets, ..IDLE },
            _ if index < self.processes() => Process { at: CloseEnter, left: 1, ..IDLE },
            _ => IDLE,
        };
        let start = [Position { messages: 0, units: 0 }; 2];
        State {
            kernel: Kernel::new(),
            processes: std::array::from_fn(process),
            position: start,
            own: start,
            ring: [0; RING],
            closed: false,
            kills: self.kills,
            put: 0,
            got: 0,
            buried: 0,
            mistake: None,
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for process in 0..self.processes() {
            for kernel in state.kernel.bury(process) {
                steps.go(process, State { kernel, ..state.clone() });
            }
            let me = state.processes[process];
            if !state.kernel.is_alive(process) || me.left == 0 {
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
            if self.timeouts && (asleep || matches!(me.at, Enter | Lead | Register)) {
                let mut late = state.clone();
                late.kernel.rouse(process);
                late.processes[process].at = if me.leads { Unlead } else { Return };
                steps.add(Kind::Timeout, process, late);
            }
            if state.kills > 0 && (me.leads || !matches!(me.at, Enter | CloseEnter)) {
                let mut after = state.clone();
                after.kills -= 1;
                after.kernel.kill(process);
                if self.side(process) == CONSUMERS && me.has_published() {
                    after.buried |= 1 << me.message;
                }
                after.processes[process] = IDLE;
                steps.add(Kind::Kill, process, after);
            }
        }
    }

    fn check(&self, state: &State) -> Result<(), String> {
        if let Some(mistake) = state.mistake {
            return Err(format!("{mistake:?}"));
        }
        let mut there = state.got | state.buried;
        for process in (0..self.processes()).filter(|&process| self.side(process) == CONSUMERS) {
            if state.processes[process].has_published() {
                there |= 1 << state.processes[process].message;
            }
        }
        let (tail, head) = (state.position[PRODUCERS], state.position[CONSUMERS]);
        for units in 0..tail.units.wrapping_sub(head.units).min(RING as u8) {
            there |= 1 << state.ring[slot(head.units + units)];
        }
        if state.put & !there != 0 { Err("a message whose put returned is lost".into()) } else { Ok(()) }
    }

    fn check_rest(&self, state: &State) -> Result<(), String> {
        for process in 0..self.processes() {
            if state.processes[process].left == 0 {
                continue;
            }
            let side = self.side(process);
            if !state.kernel.words[SECTION[side]] & OWNER == 0 || process >= self.producers + self.consumers {
                return Err(format!("{process} cannot get a section"));
            }
            if state.closed || self.is_ready(state, side) {
                return Err(format!("{process} waits for what is there, or for a closed queue"));
            }
            let bell = BELL[1 - side];
            let leader_sleeps = (0..MAX).any(|other| state.kernel.sleeps_on(other) == Some(bell) && self.side(other) == side);
            // Whoever rings next must see the bell, or mend the section first.
            let will_ring = state.kernel.words[bell] == 1 || state.kernel.words[SECTION[1 - side]] == OWNER_DIED;
            if !leader_sleeps || !will_ring {
                return Err(format!("{process} waits, and the other side will not wake it"));
            }
        }
        Ok(())
    }

    fn place(&self, state: &State, process: usize) -> String {
        state.kernel.place(process, state.processes[process].at)
    }

    fn shared(&self, state: &State) -> String {
        let [tail, head] = state.position.map(|position| format!("{}/{}", position.messages, position.units));
        let closed = if state.closed { "closed  " } else { "" };
        format!("tail={tail} head={head} ring={:?}  {closed}{}", state.ring, state.kernel.describe(&NAMES))
    }
}

fn slot(units: u8) -> usize {
    usize::from(units) % RING
}

impl Process {
    fn has_published(&self) -> bool {
        self.message != 0 && matches!(self.at, Give | LateRing | LateRingWake | LateReset | Unlead | Return)
    }
}

impl Queue {
    fn processes(&self) -> usize {
        self.producers + self.consumers + usize::from(self.closer)
    }

    fn side(&self, process: usize) -> usize {
        if process < self.producers { PRODUCERS } else { CONSUMERS }
    }

    /// Whether that side finds room, or a message.
    fn is_ready(&self, state: &State, side: usize) -> bool {
        let (tail, head) = (state.position[PRODUCERS], state.position[CONSUMERS]);
        if side == CONSUMERS { tail != head } else { tail.messages.wrapping_sub(head.messages) < self.capacity }
    }

    fn step(&self, state: &State, process: usize, steps: &mut Steps<State>) {
        let side = self.side(process);
        let other = 1 - side;
        let variant = self.variant;
        let ready = self.is_ready(state, side);
        let mut after = state.clone();
        let State { kernel, processes, position, own, ring, closed, put, got, mistake, .. } = &mut after;
        let me = &mut processes[process];
        let next = Position { messages: own[side].messages + 1, units: own[side].units + UNITS };
        let leave = if me.leads { Unlead } else { Return };
        me.at = match me.at {
            Enter => match enter(kernel, process, me, side, Look) {
                Some(at) => at,
                None => return,
            },
            Look if side == PRODUCERS && state.closed => GiveClosed,
            Look if ready => Copy,
            Look if state.closed => GiveClosed,
            Look => GiveNothing,
            Copy if side == PRODUCERS => {
                me.message = process as u8 * self.puts + me.left;
                ring[slot(own[side].units)] = me.message;
                CopyRest
            }
            Copy => {
                me.message = ring[slot(own[side].units)];
                CopyRest
            }
            CopyRest if side == PRODUCERS => {
                ring[slot(own[side].units + 1)] = me.message;
                Ring
            }
            CopyRest => {
                let (tail, head) = (state.position[PRODUCERS], state.own[CONSUMERS]);
                if tail.units.wrapping_sub(head.units) != tail.messages.wrapping_sub(head.messages).wrapping_mul(UNITS) {
                    *mistake = Some(Mistake::ImpossiblePositions);
                } else if me.message == 0 || ring[slot(own[side].units + 1)] != me.message {
                    *mistake = Some(Mistake::HalfMessage);
                }
                Ring
            }
            Ring if matches!(variant, Variant::PublishBeforeWake | Variant::DoorbellResetOutsideLock) => Publish,
            Ring | LateRing if kernel.words[BELL[side]] != 0 => {
                if variant != Variant::DoorbellResetLate {
                    kernel.words[BELL[side]] = 0;
                }
                if me.at == Ring { RingWake } else { LateRingWake }
            }
            Ring => Publish,
            LateRing if variant == Variant::PublishBeforeWake => Give,
            LateRing => leave,
            RingWake | LateRingWake => {
                let next = match (me.at, variant) {
                    (RingWake, _) => Publish,
                    (_, Variant::PublishBeforeWake) => Give,
                    _ => leave,
                };
                for kernel in state.kernel.wake_one(BELL[side]) {
                    let mut after = State { kernel, ..state.clone() };
                    after.processes[process].at = next;
                    steps.go(process, after);
                }
                return;
            }
            Publish if variant == Variant::TwoStorePublish => {
                position[side].units = next.units;
                PublishRest
            }
            Publish | PublishRest => {
                own[side] = next;
                position[side] = next;
                if variant == Variant::PublishBeforeWake { LateRing } else { Give }
            }
            Give => {
                kernel.give(process, SECTION[side]);
                match variant {
                    Variant::DoorbellResetOutsideLock => LateRing,
                    Variant::DoorbellResetLate => LateReset,
                    _ => leave,
                }
            }
            LateReset => {
                kernel.words[BELL[side]] = 0;
                leave
            }
            Unlead => {
                kernel.give(process, LEADER[side]);
                me.leads = false;
                Return
            }
            Return => {
                let message = 1 << me.message;
                if me.message == 0 {
                    // Timed out, or closed: such a process stops if it was closed.
                } else if side == PRODUCERS {
                    *put |= message;
                } else if *got & message != 0 {
                    *mistake = Some(Mistake::GotTwice);
                } else {
                    *got |= message;
                }
                me.message = 0;
                me.left -= 1;
                Enter
            }
            GiveNothing => {
                kernel.give(process, SECTION[side]);
                if me.leads || variant == Variant::NoLeader { Register } else { Lead }
            }
            Lead => match kernel.take_linked(process, LEADER[side]) {
                None => return,
                Some(_) => {
                    if variant == Variant::LeaderNotLinked {
                        kernel.unlink(process, LEADER[side]);
                    }
                    me.leads = true;
                    Enter
                }
            },
            Register => match enter(kernel, process, me, other, Mark) {
                Some(at) => at,
                None => return,
            },
            Mark if ready || (state.closed && variant != Variant::RegisterIgnoresClose) => GiveBack,
            Mark => {
                kernel.words[BELL[other]] = 1;
                GiveBackAndSleep
            }
            GiveBack => {
                kernel.give(process, SECTION[other]);
                Enter
            }
            GiveBackAndSleep => {
                kernel.give(process, SECTION[other]);
                Sleep
            }
            Sleep => {
                kernel.wait(process, BELL[other], 1);
                Enter
            }
            GiveClosed => {
                kernel.give(process, SECTION[side]);
                leave
            }
            Recover => {
                let mended = usize::from(me.mends);
                own[mended] = position[mended];
                kernel.words[BELL[mended]] = 0;
                RecoverWake
            }
            RecoverWake => {
                if variant != Variant::RecoveryDoesNotWake {
                    kernel.wake_all(BELL[usize::from(me.mends)]);
                }
                me.mends = 0;
                std::mem::replace(&mut me.then, Enter)
            }
            CloseEnter => match enter(kernel, process, me, PRODUCERS, CloseEnterOther) {
                Some(at) => {
                    kernel.link(process, SECTION[PRODUCERS]);
                    at
                }
                None => return,
            },
            CloseEnterOther => {
                kernel.clear_pending(process);
                let first = if variant == Variant::CloseBeforeWake { Close } else { CloseReset };
                match enter(kernel, process, me, CONSUMERS, first) {
                    Some(at) => at,
                    None => return,
                }
            }
            CloseReset => {
                kernel.words[BELL[PRODUCERS]] = 0;
                CloseWake
            }
            CloseWake => {
                kernel.wake_all(BELL[PRODUCERS]);
                CloseResetOther
            }
            CloseResetOther => {
                kernel.words[BELL[CONSUMERS]] = 0;
                CloseWakeOther
            }
            CloseWakeOther => {
                kernel.wake_all(BELL[CONSUMERS]);
                if variant == Variant::CloseBeforeWake { CloseGive } else { Close }
            }
            Close => {
                *closed = true;
                if variant == Variant::CloseBeforeWake { CloseReset } else { CloseGive }
            }
            CloseGive => {
                kernel.give(process, SECTION[CONSUMERS]);
                CloseGiveOther
            }
            CloseGiveOther => {
                kernel.give(process, SECTION[PRODUCERS]);
                me.left = 0;
                Enter
            }
        };
        steps.go(process, after);
    }
}

/// Takes the section of `side`; where its owner died the recovery comes before `then`.
fn enter(kernel: &mut Kernel<6, MAX>, process: usize, me: &mut Process, side: usize, then: At) -> Option<At> {
    let died = kernel.take(process, SECTION[side])?;
    if died {
        me.mends = side as u8;
        me.then = then;
    }
    Some(if died { Recover } else { then })
}

#[cfg(test)]
mod tests {
    use super::super::{expect_right, expect_wrong, size};
    use super::*;

    fn small() -> Queue {
        Queue {
            variant: Variant::Right,
            producers: 2,
            puts: 1,
            consumers: 2,
            gets: 1,
            closer: false,
            capacity: 1,
            kills: 1,
            timeouts: false,
        }
    }

    #[test]
    fn consumers_are_woken_and_nothing_is_lost() {
        expect_right(&Queue { kills: 1 + size(1), ..small() });
        expect_right(&Queue { puts: 2, kills: 1, consumers: 1, gets: 3 + size(1), capacity: 2, ..small() });
    }

    #[test]
    fn producers_are_woken_and_nothing_is_lost() {
        expect_right(&Queue { puts: 2, consumers: 1, gets: 3, kills: 1 + size(1), ..small() });
    }

    #[test]
    fn timeouts_lose_nothing() {
        expect_right(&Queue { timeouts: true, kills: 1, ..small() });
    }

    #[test]
    fn closing_releases_all_who_wait() {
        expect_right(&Queue { producers: 1, puts: 2, consumers: 1, gets: 3, closer: true, kills: 2, ..small() });
    }

    /// For a quiet hour.
    #[test]
    fn larger_queues() {
        if size(2) >= 1 {
            expect_right(&Queue { puts: 2, gets: 2, ..small() });
        }
        if size(2) >= 2 {
            expect_right(&Queue { puts: 2, gets: 2, kills: 2, ..small() });
            expect_right(&Queue { closer: true, timeouts: true, ..small() });
        }
    }

    #[test]
    fn mutants_are_found() {
        for variant in [Variant::PublishBeforeWake, Variant::LeaderNotLinked, Variant::RecoveryDoesNotWake] {
            expect_wrong(&Queue { variant, ..small() });
        }
        for variant in [Variant::DoorbellResetOutsideLock, Variant::TwoStorePublish, Variant::NoLeader] {
            expect_wrong(&Queue { variant, ..small() });
        }
        expect_wrong(&Queue { variant: Variant::DoorbellResetLate, kills: 0, ..small() });
        let closing = Queue { producers: 1, puts: 2, consumers: 1, gets: 3, closer: true, ..small() };
        expect_wrong(&Queue { variant: Variant::CloseBeforeWake, ..closing });
        expect_wrong(&Queue { variant: Variant::RegisterIgnoresClose, ..closing });
    }
}
