//! The model of `ipc::queue::descriptor`: a token in a pipe, and a bit that says that there is none. Producers publish, consumers take
//! and, where nothing is there, take the token out; both under the producers' section, which is a single step here.

use super::checker::{Kind, Model, Steps};
use super::kernel::{Kernel, OWNER_DIED};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Right,
    /// Says that there is a token before it is in.
    LoudBeforeToken,
    /// Takes the token out before it says so.
    TokenBeforeSilent,
    /// Puts the token in after the publication.
    PublishBeforeToken,
    /// Looks whether the queue is empty before it has the section.
    LooksOutside,
    /// Does not take out what a dead one has put in.
    NoRecovery,
}

#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    pub variant: Variant,
    pub producers: usize,
    pub puts: u8,
    pub consumers: usize,
    pub kills: u8,
}

const MAX: usize = 4;
const SECTION: usize = 0;
/// 1: silent.
const BELL: usize = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Enter,
    Look,
    Token,
    Loud,
    Publish,
    Give,
    Done,
    /// Waits, as poll(2) does, until the descriptor is readable.
    Poll,
    Take,
    EnterToSilence,
    LookAgain,
    Silent,
    TakeToken,
    GiveAndPoll,
    Recover,
}

use At::*;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Process {
    at: At,
    then: At,
    rounds: u8,
    /// It saw the queue empty.
    empty: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct State {
    kernel: Kernel<2, MAX>,
    processes: [Process; MAX],
    tokens: u8,
    messages: u8,
    kills: u8,
}

impl Model for Descriptor {
    type State = State;

    fn initial(&self) -> State {
        let process = |index| {
            let (at, rounds) = if index < self.producers { (Enter, self.puts) } else { (Poll, 1) };
            Process { at, then: at, rounds, empty: false }
        };
        let mut kernel = Kernel::new();
        kernel.words[BELL] = 1;
        State { kernel, processes: std::array::from_fn(process), tokens: 0, messages: 0, kills: self.kills }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for process in 0..self.producers + self.consumers {
            for kernel in state.kernel.bury(process) {
                steps.go(process, State { kernel, ..state.clone() });
            }
            let me = state.processes[process];
            if !state.kernel.is_alive(process) || me.rounds == 0 {
                continue;
            }
            self.step(state, process, steps);
            if state.kills > 0 && !matches!(me.at, Enter | Poll) {
                let mut after = state.clone();
                after.kills -= 1;
                after.kernel.kill(process);
                after.processes[process].rounds = 0;
                steps.add(Kind::Kill, process, after);
            }
        }
    }

    fn check(&self, state: &State) -> Result<(), String> {
        // Told before it is there, and for as long as it is.
        if state.messages > 0 && state.tokens == 0 {
            Err("there is a message and the descriptor is silent".into())
        } else {
            Ok(())
        }
    }

    // A descriptor that is readable for ever, with nothing there, is no rest but a circle.
    fn check_rest(&self, state: &State) -> Result<(), String> {
        if (0..self.producers).any(|process| state.processes[process].rounds > 0) {
            return Err("a producer cannot get the section".into());
        }
        Ok(())
    }

    fn place(&self, state: &State, process: usize) -> String {
        state.kernel.place(process, state.processes[process].at)
    }

    fn shared(&self, state: &State) -> String {
        format!("{} messages, {} tokens  {}", state.messages, state.tokens, state.kernel.describe(&["section", "silent"]))
    }
}

impl Descriptor {
    fn step(&self, state: &State, process: usize, steps: &mut Steps<State>) {
        let variant = self.variant;
        let mut after = state.clone();
        let State { kernel, processes, tokens, messages, .. } = &mut after;
        let me = &mut processes[process];
        let silent = kernel.words[BELL] == 1;
        me.at = match me.at {
            Enter | EnterToSilence => {
                let then = if me.at == Enter { Look } else { LookAgain };
                match kernel.take(process, SECTION) {
                    None => return,
                    Some(true) if variant != Variant::NoRecovery => {
                        me.then = then;
                        Recover
                    }
                    Some(_) => then,
                }
            }
            Recover => {
                if silent {
                    *tokens = 0;
                }
                me.then
            }
            Look if !silent || variant == Variant::PublishBeforeToken => Publish,
            Look if variant == Variant::LoudBeforeToken => Loud,
            Look => Token,
            Token => {
                *tokens += 1;
                match variant {
                    Variant::LoudBeforeToken => Publish,
                    _ => Loud,
                }
            }
            Loud => {
                kernel.words[BELL] = 0;
                match variant {
                    Variant::LoudBeforeToken => Token,
                    Variant::PublishBeforeToken => Give,
                    _ => Publish,
                }
            }
            Publish => {
                *messages += 1;
                if variant == Variant::PublishBeforeToken && silent { Token } else { Give }
            }
            Give => {
                kernel.give(process, SECTION);
                Done
            }
            Done => {
                me.rounds -= 1;
                Enter
            }
            Poll if *tokens == 0 => return,
            Poll => Take,
            Take if *messages > 0 => {
                *messages -= 1;
                Poll
            }
            Take => {
                me.empty = true;
                let died = kernel.words[SECTION] & OWNER_DIED != 0;
                if silent && !died { Poll } else { EnterToSilence }
            }
            LookAgain => {
                let empty = if variant == Variant::LooksOutside { me.empty } else { *messages == 0 };
                me.empty = false;
                match (empty && !silent, variant) {
                    (false, _) => GiveAndPoll,
                    (true, Variant::TokenBeforeSilent) => TakeToken,
                    (true, _) => Silent,
                }
            }
            Silent => {
                kernel.words[BELL] = 1;
                if variant == Variant::TokenBeforeSilent { GiveAndPoll } else { TakeToken }
            }
            TakeToken => {
                *tokens = 0;
                if variant == Variant::TokenBeforeSilent { Silent } else { GiveAndPoll }
            }
            GiveAndPoll => {
                kernel.give(process, SECTION);
                Poll
            }
        };
        steps.go(process, after);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{expect_right, expect_wrong};
    use super::*;

    fn small() -> Descriptor {
        Descriptor { variant: Variant::Right, producers: 2, puts: 2, consumers: 1, kills: 2 }
    }

    #[test]
    fn the_descriptor_tells_of_every_message() {
        expect_right(&small());
        expect_right(&Descriptor { consumers: 2, ..small() });
    }

    #[test]
    fn mutants_are_found() {
        for variant in [Variant::LoudBeforeToken, Variant::TokenBeforeSilent, Variant::PublishBeforeToken] {
            expect_wrong(&Descriptor { variant, ..small() });
        }
        for variant in [Variant::LooksOutside, Variant::NoRecovery] {
            expect_wrong(&Descriptor { variant, consumers: 2, ..small() });
        }
    }
}
