//! The command line of tests with a main of their own: as far as cargo's harness has it, plus switches of theirs.

use std::env;

pub struct Arguments {
    words: Vec<String>,
    switches: Vec<String>,
}

impl Arguments {
    pub fn read() -> Arguments {
        let (switches, words) = env::args().skip(1).partition(|argument| argument.starts_with('-'));
        Arguments { words, switches }
    }

    /// Switches that nobody asks about (--nocapture, --test-threads=1, …) are ignored.
    pub fn has(&self, switch: &str) -> bool {
        self.switches.iter().any(|given| given == switch)
    }

    /// Whether a test of this name is asked for: no words ask for all, a word for all whose name contains it.
    pub fn select(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| name.contains(word.as_str()))
    }
}
