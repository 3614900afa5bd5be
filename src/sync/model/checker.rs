//! A checker of models: visits every state that any order of steps, kills and timeouts can reach, breadth first, so that a trace to
//! what is wrong is a shortest one.
//!
//! Beside what a model itself forbids it finds two kinds of standstill. *At rest*: nothing moves any more; the model says which
//! sleepers may sleep then. *Running in circles*: something moves for ever, but without another kill or timeout no rest can be
//! reached any more.
//!
//! Each state is kept once, with four bytes for the state that it was first reached from and four for every step out of it. The
//! memory is bounded by a number of states.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};

/// A protocol as a set of processes that take turns at atomic steps.
pub trait Model {
    type State: Clone + Eq + Hash;

    fn initial(&self) -> Self::State;

    /// Everything that may happen next.
    fn steps(&self, state: &Self::State, steps: &mut Steps<Self::State>);

    /// What holds in every state.
    fn check(&self, state: &Self::State) -> Result<(), String>;

    /// What holds where no process moves any more: nobody sleeps who could be served.
    fn check_rest(&self, state: &Self::State) -> Result<(), String>;

    /// For traces: where the process is.
    fn place(&self, state: &Self::State, process: usize) -> String;

    /// For traces: what everybody sees.
    fn shared(&self, state: &Self::State) -> String;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A process, or the kernel cleaning up behind a dead one, moves.
    Move,
    /// May happen and need not: nobody may rely on it.
    Timeout,
    Spurious,
    Kill,
}

/// What may follow a state.
pub struct Steps<S> {
    list: Vec<(Kind, usize, S)>,
}

impl<S> Steps<S> {
    pub fn add(&mut self, kind: Kind, process: usize, state: S) {
        self.list.push((kind, process, state));
    }

    /// A step of the process itself.
    pub fn go(&mut self, process: usize, state: S) {
        self.add(Kind::Move, process, state);
    }
}

/// What a search came to.
#[derive(Debug)]
pub struct Report {
    pub states: usize,
    pub steps: usize,
    pub outcome: Outcome,
}

#[derive(Debug)]
pub enum Outcome {
    /// Every reachable state was visited and is right.
    Right,
    /// What is wrong and how to get there, one step a line.
    Wrong { what: String, trace: Vec<String> },
    /// There are more states than allowed; those that were visited are right.
    TooLarge,
}

/// Visits the states of `model`, at most `limit` of them.
pub fn check<M: Model>(model: &M, limit: usize) -> Report {
    Search::new(model).run(limit)
}

struct Search<'a, M: Model> {
    model: &'a M,
    states: Vec<M::State>,
    parents: Vec<u32>,
    index: Index,
    /// `moves[first_move[i]..first_move[i + 1]]`: where the moves out of state i lead.
    moves: Vec<u32>,
    first_move: Vec<u32>,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M) -> Self {
        Search { model, states: Vec::new(), parents: Vec::new(), index: Index::new(), moves: Vec::new(), first_move: vec![0] }
    }

    fn run(mut self, limit: usize) -> Report {
        let mut next = Steps { list: Vec::new() };
        let mut rests = Vec::new();
        let mut steps = 0;
        self.visit(self.model.initial(), 0);
        let mut at = 0;
        while at < self.states.len() {
            if let Err(what) = self.model.check(&self.states[at]) {
                return self.report(steps, self.wrong(what, at));
            }
            self.model.steps(&self.states[at], &mut next);
            for (kind, _, state) in next.list.drain(..) {
                steps += 1;
                let to = self.visit(state, at);
                if kind == Kind::Move {
                    self.moves.push(to as u32);
                }
            }
            if self.moves.len() == self.first_move[at] as usize {
                if let Err(what) = self.model.check_rest(&self.states[at]) {
                    return self.report(steps, self.wrong(format!("at rest: {what}"), at));
                }
                rests.push(at as u32);
            }
            self.first_move.push(self.moves.len() as u32);
            if self.states.len() > limit {
                return self.report(steps, Outcome::TooLarge);
            }
            at += 1;
        }
        let outcome = match self.restless(rests) {
            Some(at) => self.wrong("runs in circles: no rest can be reached from here".into(), at),
            None => Outcome::Right,
        };
        self.report(steps, outcome)
    }

    fn report(&self, steps: usize, outcome: Outcome) -> Report {
        Report { states: self.states.len(), steps, outcome }
    }

    /// The number of `state`; a new one if it was not seen before.
    fn visit(&mut self, state: M::State, from: usize) -> usize {
        match self.index.find(&state, &self.states) {
            Some(seen) => seen,
            None => {
                self.index.add(&state, self.states.len(), &self.states);
                self.states.push(state);
                self.parents.push(from as u32);
                self.states.len() - 1
            }
        }
    }

    /// A state from which moves alone lead to none of `rests`.
    fn restless(&self, rests: Vec<u32>) -> Option<usize> {
        // The moves backwards, in the same form as forwards.
        let mut first = vec![0u32; self.states.len() + 1];
        for &to in &self.moves {
            first[to as usize + 1] += 1;
        }
        for i in 1..first.len() {
            first[i] += first[i - 1];
        }
        let mut place = first.clone();
        let mut sources = vec![0u32; self.moves.len()];
        for from in 0..self.states.len() {
            for &to in &self.moves[self.first_move[from] as usize..self.first_move[from + 1] as usize] {
                sources[place[to as usize] as usize] = from as u32;
                place[to as usize] += 1;
            }
        }
        let mut reaches = vec![false; self.states.len()];
        let mut open = rests;
        while let Some(at) = open.pop() {
            if !std::mem::replace(&mut reaches[at as usize], true) {
                open.extend(&sources[first[at as usize] as usize..first[at as usize + 1] as usize]);
            }
        }
        reaches.iter().position(|reaches| !reaches)
    }

    fn wrong(&self, what: String, at: usize) -> Outcome {
        let mut path = vec![at];
        while path[path.len() - 1] != 0 {
            path.push(self.parents[path[path.len() - 1]] as usize);
        }
        path.reverse();
        let mut trace = vec![format!("{:34}{}", "start", self.model.shared(&self.states[0]))];
        for pair in path.windows(2) {
            let (from, to) = (&self.states[pair[0]], &self.states[pair[1]]);
            let mut next = Steps { list: Vec::new() };
            self.model.steps(from, &mut next);
            let taken = next.list.iter().find(|(_, _, state)| state == to);
            let (kind, process) = taken.map(|&(kind, process, _)| (kind, process)).expect("the state was reached by a step");
            let what = match kind {
                Kind::Move => self.model.place(from, process),
                kind => format!("{kind:?} at {}", self.model.place(from, process)),
            };
            trace.push(format!("{:34}{}", format!("{process}: {what}"), self.model.shared(to)));
        }
        Outcome::Wrong { what, trace }
    }
}

/// Finds states by their hash: open addressing over the numbers of the states.
struct Index {
    slots: Vec<u32>,
    used: usize,
}

const FREE: u32 = u32::MAX;

impl Index {
    fn new() -> Index {
        Index { slots: vec![FREE; 1 << 10], used: 0 }
    }

    fn slot<S: Hash>(&self, state: &S) -> usize {
        let mut hasher = Mix(0);
        state.hash(&mut hasher);
        // The high bits are the well-mixed ones of a product.
        (hasher.finish() >> 20) as usize & (self.slots.len() - 1)
    }

    fn find<S: Hash + Eq>(&self, state: &S, states: &[S]) -> Option<usize> {
        let mut slot = self.slot(state);
        while self.slots[slot] != FREE {
            let at = self.slots[slot] as usize;
            if &states[at] == state {
                return Some(at);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        None
    }

    fn add<S: Hash>(&mut self, state: &S, number: usize, states: &[S]) {
        self.used += 1;
        if self.used * 2 > self.slots.len() {
            self.slots = vec![FREE; self.slots.len() * 2];
            for (number, state) in states.iter().enumerate() {
                self.put(state, number);
            }
        }
        self.put(state, number);
    }

    fn put<S: Hash>(&mut self, state: &S, number: usize) {
        let mut slot = self.slot(state);
        while self.slots[slot] != FREE {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.slots[slot] = number as u32;
    }
}

/// Multiply and rotate: states are a few dozen bytes, and there are millions of them.
struct Mix(u64);

impl Mix {
    fn add(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 29
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            self.add(chunk.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.add(value.into());
    }

    fn write_u16(&mut self, value: u16) {
        self.add(value.into());
    }

    fn write_usize(&mut self, value: usize) {
        self.add(value as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A walker on a ring of `length` places, of which one may be a trap and one a loop without a way out.
    struct Ring {
        length: u8,
        trap: u8,
        end: u8,
    }

    impl Model for Ring {
        type State = u8;

        fn initial(&self) -> u8 {
            0
        }

        fn steps(&self, &at: &u8, steps: &mut Steps<u8>) {
            if at != self.end {
                steps.go(0, (at + 1) % self.length);
            }
            steps.add(Kind::Timeout, 0, self.end);
        }

        fn check(&self, &at: &u8) -> Result<(), String> {
            if at == self.trap { Err("in the trap".into()) } else { Ok(()) }
        }

        fn check_rest(&self, &at: &u8) -> Result<(), String> {
            if at == self.end { Ok(()) } else { Err("rests elsewhere".into()) }
        }

        fn place(&self, at: &u8, _: usize) -> String {
            at.to_string()
        }

        fn shared(&self, _: &u8) -> String {
            String::new()
        }
    }

    #[test]
    fn a_trap_is_found_by_the_shortest_way() {
        match check(&Ring { length: 9, trap: 4, end: 7 }, 100).outcome {
            Outcome::Wrong { what, trace } => assert_eq!((what.as_str(), trace.len()), ("in the trap", 5)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn circles_are_found() {
        match check(&Ring { length: 9, trap: 100, end: 50 }, 100).outcome {
            Outcome::Wrong { what, .. } => assert!(what.contains("circles"), "{what}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_number_of_states_is_bounded() {
        assert!(matches!(check(&Ring { length: 200, trap: 250, end: 199 }, 50).outcome, Outcome::TooLarge));
        assert!(matches!(check(&Ring { length: 200, trap: 250, end: 199 }, 500).outcome, Outcome::Right));
    }
}
