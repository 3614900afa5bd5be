//! The books of messages: what was put must be got once, or have been taken by the dead; nothing comes twice or from nowhere.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::Ordering::SeqCst;

use tine::ffi::status::{TINE_ECLOSED, TINE_OK};

use crate::scene::{Books, Participant, Trial};
use crate::seat::{Act, MANY, Seat};
use crate::support::message;

pub struct Ledger {
    /// Of every message.
    length: usize,
    /// What a put and a get answer when their time has run out.
    full: i32,
    empty: i32,
    /// What the runner got.
    got: RefCell<Vec<u64>>,
    /// One that died in a get may have taken a message without having begun to write it down.
    unseen: bool,
}

impl Ledger {
    pub fn new(length: usize, full: i32, empty: i32) -> Ledger {
        Ledger { length, full, empty, got: RefCell::default(), unseen: false }
    }

    pub fn with_unseen(self) -> Ledger {
        Ledger { unseen: true, ..self }
    }

    /// The newest message that the runner got.
    pub fn last(&self) -> Option<u64> {
        self.got.borrow().last().copied()
    }

    /// A call that gets has come back: to `seat`, with so many bytes.
    pub fn has_got(&self, status: i32, length: usize, seat: &Seat) -> i32 {
        seat.length.store(length as u64, SeqCst);
        seat.end(status);
        if status == TINE_OK {
            if length == 0 || length % self.length != 0 {
                seat.is_odd();
            }
            for bytes in seat.message(length).chunks(self.length) {
                match message::number(bytes) {
                    Some(number) => self.got.borrow_mut().push(number),
                    None => seat.is_odd(),
                }
            }
        }
        status
    }

    /// What was put against what was got.
    pub fn settle(&self, trial: &Trial, closed: bool) -> Result<Books, String> {
        let mut received: HashMap<u64, usize> = HashMap::new();
        let mut suspects = Vec::new();
        let (mut certain, mut possible) = (Vec::new(), Vec::new());
        for number in self.got.borrow().iter() {
            *received.entry(*number).or_default() += 1;
        }
        for (act, status) in &trial.done {
            if *status == TINE_OK {
                certain.extend(act.messages());
            }
        }
        let mut consumed = 0;
        let mut unseen = 0;
        for participant in &trial.participants {
            let status = participant.returned();
            match (participant.act, status) {
                (act, Some(TINE_OK)) if act.puts() > 0 => certain.extend(act.messages()),
                (act, None) if act.puts() > 0 && participant.killed => possible.push(act.messages()),
                (act, Some(TINE_OK)) if act.gets() => {
                    for number in self.taken(participant) {
                        *received.entry(number).or_default() += 1;
                        consumed += usize::from(participant.killed);
                    }
                }
                (act, None) if act.gets() && participant.killed => {
                    let taken = self.taken(participant);
                    unseen += usize::from(self.unseen && taken.iter().all(|&number| number == 0));
                    suspects.extend(taken);
                }
                (Act::Close, Some(TINE_OK)) if closed => {}
                (Act::Close, None) if participant.killed => {}
                (_, Some(TINE_ECLOSED)) if closed => {}
                (act, Some(status)) if act.puts() > 0 && status == self.full && participant.may_time_out => {}
                (act, Some(status)) if act.gets() && status == self.empty && participant.may_time_out => {}
                (act, status) => return Err(format!("{act:?} answers {status:?}")),
            }
        }
        let taken_by_victim = consumed > 0;
        let is_there = |number: &u64| received.contains_key(number) || suspects.contains(number);
        let put_by_victim = trial.victim().act.messages().any(|number| is_there(&number));
        for put in &possible {
            let there = put.clone().filter(is_there).count();
            if there != 0 && there != put.clone().count() {
                return Err(format!("of the messages {put:?} only {there} are there"));
            }
        }
        for number in &certain {
            match received.remove(number) {
                Some(1) => {}
                Some(times) => return Err(format!("message {number} came {times} times")),
                None if suspects.contains(number) => consumed += 1,
                None if unseen > 0 => {
                    unseen -= 1;
                    consumed += 1;
                }
                None => return Err(format!("message {number} is lost; the dead were taking {suspects:?}")),
            }
        }
        for number in possible.into_iter().flatten() {
            match received.remove(&number) {
                Some(1) => {}
                Some(times) => return Err(format!("message {number} came {times} times")),
                None if suspects.contains(&number) => consumed += 1,
                None => {}
            }
        }
        if let Some(number) = received.keys().next() {
            return Err(format!("message {number} came from nowhere"));
        }
        let landed = match trial.victim().act {
            act if act.puts() > 0 => put_by_victim,
            act if act.gets() => taken_by_victim || consumed > 0,
            _ => closed,
        };
        Ok(Books { landed, consumed })
    }

    /// The numbers of the messages that this one got, or was taking when it died.
    fn taken(&self, participant: &Participant) -> Vec<u64> {
        let (most, returned) = match (participant.act, participant.returned()) {
            (Act::GetMany, Some(_)) => (participant.seat.length.load(SeqCst) as usize / self.length, true),
            (Act::GetMany, None) => (MANY as usize, false),
            _ => (1, true),
        };
        let bytes = participant.seat.message(most * self.length);
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        bytes.chunks(self.length).map(number).filter(|&number| returned || number != 0).collect()
    }
}
