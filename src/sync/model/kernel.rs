//! What the kernel is to a model: words, who sleeps on them, and what becomes of the words of a dead process.
//!
//! A process here is what the kernel calls a task: it has a list of robust words and one pending word. Words are bytes:
//!
//! ```text
//! bit 7        bit 6         bits 0..6
//! WAITERS (W)  OWNER_DIED    owner: the process + 1, or 0
//! ```
//!
//! A wake-up may reach any of the sleepers: the real kernel keeps an order, but priorities disturb it.

/// Somebody may sleep on the word.
pub const WAITERS: u8 = 0x80;
/// With an owner: the owner is about to clear WAITERS. Without: the last owner died.
pub const OWNER_DIED: u8 = 0x40;
pub const OWNER: u8 = 0x3f;

/// `CELLS` robust words, numbered first, and `DOORS` plain ones behind them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Kernel<const WORDS: usize, const PROCESSES: usize> {
    pub words: [u8; WORDS],
    /// A bit for each process.
    asleep: [u8; WORDS],
    dead: u8,
    /// A bit for each word.
    linked: [u8; PROCESSES],
    /// The word + 1, or 0.
    pending: [u8; PROCESSES],
}

impl<const WORDS: usize, const PROCESSES: usize> Kernel<WORDS, PROCESSES> {
    pub fn new() -> Self {
        Kernel { words: [0; WORDS], asleep: [0; WORDS], dead: 0, linked: [0; PROCESSES], pending: [0; PROCESSES] }
    }

    pub fn is_alive(&self, process: usize) -> bool {
        self.dead & 1 << process == 0
    }

    /// The word that the process sleeps on.
    pub fn sleeps_on(&self, process: usize) -> Option<usize> {
        (0..WORDS).find(|&word| self.asleep[word] & 1 << process != 0)
    }

    pub fn set_pending(&mut self, process: usize, word: usize) {
        self.pending[process] = word as u8 + 1;
    }

    pub fn clear_pending(&mut self, process: usize) {
        self.pending[process] = 0;
    }

    pub fn link(&mut self, process: usize, word: usize) {
        self.linked[process] |= 1 << word;
    }

    pub fn unlink(&mut self, process: usize, word: usize) {
        self.linked[process] &= !(1 << word);
    }

    /// Puts the process to sleep if the word holds `expected`.
    pub fn wait(&mut self, process: usize, word: usize, expected: u8) {
        if self.words[word] == expected {
            self.asleep[word] |= 1 << process;
        }
    }

    /// Every way in which one sleeper may be woken; unchanged where there is none.
    pub fn wake_one(&self, word: usize) -> impl Iterator<Item = Self> + '_ {
        let sleepers = self.asleep[word];
        let choices = if sleepers == 0 { 1 } else { sleepers };
        (0..8).filter(move |process| choices & 1 << process != 0).map(move |process| {
            let mut after = self.clone();
            after.asleep[word] &= !(1 << process);
            after
        })
    }

    pub fn wake_all(&mut self, word: usize) {
        self.asleep[word] = 0;
    }

    /// Ends the sleep of one process: a timeout, or a wake-up for no reason.
    pub fn rouse(&mut self, process: usize) {
        for asleep in &mut self.asleep {
            *asleep &= !(1 << process);
        }
    }

    /// The process runs no more; [`Kernel::bury`] sees to its words, one at a time.
    pub fn kill(&mut self, process: usize) {
        self.rouse(process);
        self.dead |= 1 << process;
    }

    /// What the kernel does next for a dead process: its linked words, last the pending one. Each is looked at once.
    pub fn bury(&self, process: usize) -> Vec<Self> {
        if self.is_alive(process) {
            return Vec::new();
        }
        let mut after = self.clone();
        let pending = self.pending[process].checked_sub(1).map(usize::from);
        let linked = (0..WORDS).find(|&word| self.linked[process] & 1 << word != 0 && pending != Some(word));
        let word = match (linked, pending) {
            (Some(word), _) => {
                after.unlink(process, word);
                word
            }
            (None, Some(word)) => {
                after.linked[process] = 0;
                after.clear_pending(process);
                word
            }
            (None, None) => return Vec::new(),
        };
        let value = self.words[word];
        let wakes = match usize::from(value & OWNER) {
            // Given up, or not yet taken, and the wake-up that came with it may have been this process's.
            0 => linked.is_none(),
            owner if owner == process + 1 => {
                after.words[word] = value & WAITERS | OWNER_DIED;
                value & WAITERS != 0
            }
            _ => false,
        };
        if wakes { after.wake_one(word).collect() } else { vec![after] }
    }

    // A robust lock as a single step: what `model::lock` shows the real one to be. Whoever waits for it is not asleep, it just
    // cannot step; so it has no WAITERS.

    /// Takes a free cell, pending as long as it is held. Answers whether the previous owner died.
    pub fn take(&mut self, process: usize, cell: usize) -> Option<bool> {
        if self.words[cell] & OWNER != 0 {
            return None;
        }
        let died = self.words[cell] & OWNER_DIED != 0;
        self.words[cell] = process as u8 + 1;
        self.set_pending(process, cell);
        Some(died)
    }

    pub fn give(&mut self, process: usize, cell: usize) {
        debug_assert_eq!(usize::from(self.words[cell]), process + 1);
        self.words[cell] = 0;
        self.unlink(process, cell);
        self.clear_pending(process);
    }

    /// Takes a free cell to hold it across sleeps and other cells: linked, not pending.
    pub fn take_linked(&mut self, process: usize, cell: usize) -> Option<bool> {
        let died = self.take(process, cell)?;
        self.link(process, cell);
        self.clear_pending(process);
        Some(died)
    }

    /// For traces: where the process is, which is `at` that place if it lives.
    pub fn place(&self, process: usize, at: impl std::fmt::Debug) -> String {
        if self.is_alive(process) { format!("{at:?}") } else { "the kernel buries".into() }
    }

    /// For traces: the words with their sleepers.
    pub fn describe(&self, names: &[&str]) -> String {
        let mut text = String::new();
        for (word, name) in names.iter().enumerate() {
            let value = self.words[word];
            let flags = [(WAITERS, "W"), (OWNER_DIED, "!")];
            let flags: String = flags.iter().filter(|(flag, _)| value & flag != 0).map(|&(_, text)| text).collect();
            text += &format!("{name}={}{flags}", value & OWNER);
            let sleepers: Vec<String> =
                (0..8).filter(|p| self.asleep[word] & 1 << p != 0).map(|p: usize| p.to_string()).collect();
            if !sleepers.is_empty() {
                text += &format!(" ({} asleep)", sleepers.join(","));
            }
            text += "  ";
        }
        for (process, pending) in self.pending.iter().enumerate().filter(|(_, pending)| **pending != 0) {
            text += &format!("{process} has {} pending  ", names.get(usize::from(*pending) - 1).unwrap_or(&"?"));
        }
        text
    }
}
