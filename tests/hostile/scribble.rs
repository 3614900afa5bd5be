//! The garbage.

use std::ptr;

use tine::shm::layout::{QueueShared, SegmentHead};

use crate::support::host::Mapping;
use crate::support::random::Random;

/// What is written.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// These 32 bits in every word.
    Every(Value),
    /// These 32 bits in one word of the object's head.
    Word(usize, Value),
    /// The address of memory that is the user's own, in every pair of words: whoever follows it and writes is found out.
    Pointers,
    /// Anything, everywhere.
    Anything(u64),
    /// Anything behind the object's head: messages.
    AnythingBehind(u64),
    /// Anything in a few words.
    Few(u64),
}

/// A word that means something.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    Number(u32),
    /// The number of the user's own thread.
    User(u32),
    /// The number of somebody else who lives.
    Bystander,
}

/// Where a queue's words end and its ring begins; more than any other object has.
pub const HEAD_WORDS: usize = (SegmentHead::LENGTH + size_of::<QueueShared>()) / 4;

/// Those for the whole of the memory, and those for each of the first words.
pub fn patterns(words: usize) -> Vec<Pattern> {
    let values = [
        Value::Number(0),
        Value::Number(1),
        Value::Number(u32::MAX),
        Value::Number(1 << 31),
        Value::Number(1 << 30),
        Value::Number(3 << 30),
        Value::User(0),
        Value::User(1 << 31),
        Value::Bystander,
    ];
    let mut patterns: Vec<Pattern> = values.iter().map(|&value| Pattern::Every(value)).collect();
    patterns.push(Pattern::Pointers);
    for seed in 0..6 {
        patterns.extend([Pattern::Anything(seed), Pattern::AnythingBehind(seed), Pattern::Few(seed)]);
    }
    for word in 0..words {
        patterns.extend(values.iter().map(|&value| Pattern::Word(word, value)));
    }
    patterns
}

/// Puts a page that nobody may touch directly before and behind each of `mappings`, where nothing else lies; answers how many. For a
/// process that ends soon: they stay.
pub fn guard(mappings: &[Mapping]) -> u32 {
    let page = 4096;
    let places = mappings.iter().flat_map(|mapping| [mapping.start - page, mapping.end]);
    let is_free = |place: &usize| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: replaces nothing. (A kernel that does not know the last flag takes the place for a wish, and another page is lost.)
        unsafe { libc::mmap(*place as *mut libc::c_void, page, libc::PROT_NONE, flags, -1, 0) == *place as *mut libc::c_void }
    };
    places.filter(is_free).count() as u32
}

/// Writes over `mappings`; `round` makes a difference where anything will do.
pub fn over(mappings: &[Mapping], pattern: &Pattern, round: u64, canary: &Canary, bystander: i32) {
    for mapping in mappings {
        let words = (mapping.end - mapping.start) / 4;
        let put = |at: usize, word: u32| {
            // SAFETY: a word of a writable mapping that stays; everybody who shares it expects any bytes.
            unsafe { ptr::write_volatile((mapping.start as *mut u32).add(at), word) };
        };
        let bits = |value: Value| match value {
            Value::Number(number) => number,
            Value::User(more) => canary.user | more,
            Value::Bystander => bystander as u32,
        };
        let head = HEAD_WORDS;
        match *pattern {
            Pattern::Every(value) => (0..words).for_each(|at| put(at, bits(value))),
            Pattern::Word(at, value) => put(at, bits(value)),
            Pattern::Pointers => {
                let address = canary.address();
                (0..words).for_each(|at| put(at, if at % 2 == 0 { address as u32 } else { (address >> 32) as u32 }));
            }
            Pattern::Anything(seed) => {
                let mut random = Random::new(seed << 32 | round);
                (0..words).for_each(|at| put(at, random.next() as u32));
            }
            Pattern::AnythingBehind(seed) => {
                let mut random = Random::new(seed << 32 | round);
                (head.min(words)..words).for_each(|at| put(at, random.next() as u32));
            }
            Pattern::Few(seed) => {
                let mut random = Random::new(seed << 32 | round);
                for _ in 0..8 {
                    put(random.below(head as u64) as usize, random.next() as u32);
                }
            }
        }
    }
}

/// Private memory of the user, and its number.
pub struct Canary {
    memory: Vec<u64>,
    user: u32,
}

/// A user leaves with this when its private memory has changed.
pub const CANARY_DIED: i32 = 90;
const LENGTH: usize = 8192;
const ALIVE: u64 = 0xa5a5_a5a5_a5a5_a5a5;

impl Canary {
    pub fn new() -> Canary {
        // SAFETY: no arguments.
        let user = unsafe { libc::syscall(libc::SYS_gettid) } as u32;
        Canary { memory: vec![ALIVE; LENGTH], user }
    }

    /// In the middle: neighbours in both directions are the canary's own.
    fn address(&self) -> usize {
        &raw const self.memory[LENGTH / 2] as usize
    }

    pub fn check(&self) {
        let alive = self.memory.iter().all(|word| {
            // SAFETY: live memory; read as somebody else could have written it.
            unsafe { ptr::read_volatile(word) == ALIVE }
        });
        if !alive {
            // SAFETY: leaves without running what the parent registered for its exit.
            unsafe { libc::_exit(CANARY_DIED) };
        }
    }
}
