//! The model of large messages in `ipc::queue`: what lies out of line, and what a side that dies between its stores leaves there.
//!
//! Sleeping is left out (`queue` is its model): who finds no room or no message looks once under the other side's section, as it does
//! before it sleeps, and cannot step before there is some.

use super::checker::{Kind, Model, Steps};
use super::kernel::{Kernel, OWNER_DIED};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Right,
    /// What `large` becomes is stored before the position that makes it count.
    IntentFirst,
    /// A recovery leaves the intent behind.
    IntentStays,
    /// The position is published without an intent.
    NoIntent,
    /// Consumers that take the producers' section over mend nothing.
    RecoveryOnlyInProducers,
}

#[derive(Clone, Copy, Debug)]
pub struct Large {
    pub variant: Variant,
    /// How many producers put one large message, and how many one that lies in the ring.
    pub large: usize,
    pub inline: usize,
    pub consumers: usize,
    pub gets: u8,
    /// Large messages that have room at a time.
    pub room: u8,
    pub kills: u8,
}

const MAX: usize = 5;
const MESSAGES: usize = 8;
const PRODUCERS: usize = 0;
const CONSUMERS: usize = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Enter,
    Look,
    IntendPosition,
    Intend,
    Write,
    Ring,
    Publish,
    Advance,
    Punch,
    Give,
    Return,
    Mend,
    MendPunch,
    MendForget,
    LookAcross,
    GiveBack,
}

use At::*;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Process {
    at: At,
    mends: u8,
    then: At,
    left: u8,
    /// Where the message of this call lies, from 1 on; 0 = in the ring.
    start: u8,
    /// Has looked under the other side's section and found nothing, and was not woken since.
    looked: bool,
}

const IDLE: Process = Process { at: Enter, mends: 0, then: Enter, left: 0, start: 0, looked: false };

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct State {
    kernel: Kernel<2, MAX>,
    processes: [Process; MAX],
    position: [u8; 2],
    large: [u8; 2],
    intent: [u8; 2],
    intent_position: [u8; 2],
    /// The ring: where each message lies.
    ring: [u8; MESSAGES],
    /// Out of line: whether somebody's bytes are there.
    bytes: [bool; MESSAGES],
    kills: u8,
    mistake: bool,
}

impl Model for Large {
    type State = State;

    fn initial(&self) -> State {
        let process = |index| match index {
            _ if index < self.producers() => Process { left: 1, ..IDLE },
            _ if index < self.producers() + self.consumers => Process { left: self.gets, ..IDLE },
            _ => IDLE,
        };
        State {
            kernel: Kernel::new(),
            processes: std::array::from_fn(process),
            position: [0; 2],
            large: [1; 2],
            intent: [0; 2],
            intent_position: [0; 2],
            ring: [0; MESSAGES],
            bytes: [false; MESSAGES],
            kills: self.kills,
            mistake: false,
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for process in 0..self.producers() + self.consumers {
            for kernel in state.kernel.bury(process) {
                steps.go(process, State { kernel, ..state.clone() });
            }
            let me = state.processes[process];
            if !state.kernel.is_alive(process) || me.left == 0 {
                continue;
            }
            if let Some(after) = self.step(state, process) {
                steps.go(process, after);
            }
            if me.at == Enter && !me.looked && !self.is_ready(state, process) {
                if let Some(after) = self.register(state, process) {
                    steps.go(process, after);
                }
            }
            if state.kills > 0 && me.at != Enter {
                let mut after = state.clone();
                after.kills -= 1;
                after.kernel.kill(process);
                after.processes[process] = IDLE;
                steps.add(Kind::Kill, process, after);
            }
        }
    }

    fn check(&self, state: &State) -> Result<(), String> {
        if state.mistake { Err("a record leads to bytes that are not its message's".into()) } else { Ok(()) }
    }

    fn check_rest(&self, state: &State) -> Result<(), String> {
        if state.position[PRODUCERS] != state.position[CONSUMERS] {
            let waiting = (self.producers()..MAX).any(|process| state.processes[process].left != 0);
            return if waiting { Err("a consumer waits for what is there".into()) } else { Ok(()) };
        }
        if let Some(process) = (0..self.producers()).find(|&process| state.processes[process].left != 0) {
            return Err(format!("{process} finds no room in an empty queue"));
        }
        let mended = state.kernel.words.iter().all(|&section| section != OWNER_DIED);
        if mended && state.bytes.contains(&true) { Err("bytes of no message stay for ever".into()) } else { Ok(()) }
    }

    fn place(&self, state: &State, process: usize) -> String {
        state.kernel.place(process, state.processes[process].at)
    }

    fn shared(&self, state: &State) -> String {
        let State { position, large, intent, intent_position, ring, bytes, .. } = state;
        let bytes: String = bytes.iter().map(|&there| if there { '#' } else { '.' }).collect();
        let sections = state.kernel.describe(&["put", "get"]);
        format!("position={position:?} large={large:?} intent={intent:?}@{intent_position:?} ring={ring:?} {bytes}  {sections}")
    }
}

impl Large {
    fn producers(&self) -> usize {
        self.large + self.inline
    }

    fn side(&self, process: usize) -> usize {
        if process < self.producers() { PRODUCERS } else { CONSUMERS }
    }

    fn is_ready(&self, state: &State, process: usize) -> bool {
        if self.side(process) == CONSUMERS {
            return state.position[PRODUCERS] != state.position[CONSUMERS];
        }
        process >= self.large || state.large[PRODUCERS].saturating_sub(state.large[CONSUMERS]) < self.room
    }

    fn step(&self, state: &State, process: usize) -> Option<State> {
        let side = self.side(process);
        let variant = self.variant;
        let ready = self.is_ready(state, process);
        let mut after = state.clone();
        let State { kernel, processes, position, large, intent, intent_position, ring, bytes, mistake, .. } = &mut after;
        let me = &mut processes[process];
        let next = position[side] + 1;
        let slot = usize::from(position[side]) % MESSAGES;
        let mut rings = false;
        let intend = match variant {
            Variant::NoIntent => Write,
            Variant::IntentFirst => Intend,
            _ => IntendPosition,
        };
        me.at = match me.at {
            // Where nothing is ready a dead owner's section is still taken.
            Enter if !ready && kernel.words[side] != OWNER_DIED => return None,
            Enter => {
                if kernel.take(process, side)? {
                    me.mends = side as u8;
                    me.then = Look;
                    Mend
                } else {
                    Look
                }
            }
            Look if !ready => GiveBack,
            Look if side == PRODUCERS => {
                me.start = if process < self.large { large[PRODUCERS] } else { 0 };
                if me.start == 0 { Write } else { intend }
            }
            Look => {
                me.start = ring[slot];
                let lost = me.start != 0 && (me.start < large[CONSUMERS] || !bytes[usize::from(me.start) % MESSAGES]);
                *mistake |= lost;
                if me.start == 0 { Ring } else { intend }
            }
            IntendPosition => {
                intent_position[side] = next;
                if variant == Variant::IntentFirst { Write } else { Intend }
            }
            Intend => {
                intent[side] = me.start + 1;
                if variant == Variant::IntentFirst { IntendPosition } else { Write }
            }
            Write => {
                if side == PRODUCERS {
                    if me.start != 0 {
                        // Written over: somebody's message that has not been taken yet.
                        *mistake |= bytes[usize::from(me.start) % MESSAGES] && me.start < large[PRODUCERS];
                        bytes[usize::from(me.start) % MESSAGES] = true;
                    }
                    ring[slot] = me.start;
                }
                Ring
            }
            Ring => {
                rings = true;
                Publish
            }
            Publish => {
                position[side] = next;
                if me.start == 0 { Give } else { Advance }
            }
            Advance => {
                large[side] = me.start + 1;
                if side == CONSUMERS { Punch } else { Give }
            }
            Punch => {
                bytes[usize::from(me.start) % MESSAGES] = false;
                Give
            }
            Give => {
                kernel.give(process, side);
                Return
            }
            Return => {
                me.left -= 1;
                me.start = 0;
                me.looked = false;
                Enter
            }
            Mend => {
                let side = usize::from(me.mends);
                if intent[side] != 0 && intent_position[side] == position[side] {
                    large[side] = intent[side];
                }
                if intent[side] != 0 { MendPunch } else { self.mended(me) }
            }
            MendPunch => {
                let (mine, reach) = (usize::from(large[usize::from(me.mends)]), MESSAGES);
                let range = if usize::from(me.mends) == PRODUCERS { mine.min(reach)..reach } else { 0..mine.min(reach) };
                bytes[range].fill(false);
                if variant == Variant::IntentStays { self.mended(me) } else { MendForget }
            }
            MendForget => {
                intent[usize::from(me.mends)] = 0;
                self.mended(me)
            }
            LookAcross => {
                me.looked = true;
                GiveBack
            }
            GiveBack => {
                let held = if kernel.words[PRODUCERS] == process as u8 + 1 { PRODUCERS } else { CONSUMERS };
                kernel.give(process, held);
                Enter
            }
        };
        if rings {
            // Some are asleep, and awake now; those who are not will look anyway.
            for other in (0..MAX).filter(|&other| self.side(other) != side) {
                after.processes[other].looked = false;
            }
        }
        Some(after)
    }

    fn mended(&self, me: &mut Process) -> At {
        me.mends = 0;
        std::mem::replace(&mut me.then, Enter)
    }

    /// Takes the other side's section.
    fn register(&self, state: &State, process: usize) -> Option<State> {
        let mut after = state.clone();
        let me = &mut after.processes[process];
        let other = 1 - self.side(process);
        let died = after.kernel.take(process, other)?;
        me.at = LookAcross;
        if died && (self.variant != Variant::RecoveryOnlyInProducers || other == CONSUMERS) {
            me.mends = other as u8;
            me.then = LookAcross;
            me.at = Mend;
        }
        Some(after)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{expect_right, expect_wrong, size};
    use super::*;

    fn small() -> Large {
        Large { variant: Variant::Right, large: 2, inline: 1, consumers: 2, gets: 2, room: 1, kills: 1 }
    }

    #[test]
    fn no_kill_leaks_or_tears_a_large_message() {
        expect_right(&Large { kills: 2 + size(1), ..small() });
        expect_right(&Large { large: 3, inline: 0, room: 2, ..small() });
    }

    #[test]
    fn mutants_are_found() {
        expect_wrong(&Large { variant: Variant::IntentFirst, large: 3, inline: 0, ..small() });
        expect_wrong(&Large { variant: Variant::IntentStays, kills: 2, ..small() });
        expect_wrong(&Large { variant: Variant::NoIntent, ..small() });
        expect_wrong(&Large { variant: Variant::RecoveryOnlyInProducers, ..small() });
    }
}
