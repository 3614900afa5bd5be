//! A word that can be owned by a thread, with the node that the kernel's robust list wants beside it.

use std::mem::offset_of;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::word::{Shared, Word, Word64};
use crate::sys::thread::{NODE_NEXT, NODE_PREV};

/// One cache line: the word, some room for what it guards, and the list node, where libc's mutexes have theirs. It lies on a line of
/// its own, except in a block of the user, who decides that.
#[repr(C, align(8))]
#[derive(Debug, Default)]
pub struct RobustCell {
    /// {waiters, owner died, thread}: see `sync::robust`.
    pub word: Word,
    /// What the word guards lies on the same line: whoever takes the word has it at hand.
    pub small: [Word; 4],
    /// What the object is that begins with this cell: `layout::Marked`.
    pub mark: Word,
    prev: AtomicUsize,
    next: AtomicUsize,
    pub large: [Word64; 3],
}

const _: () = assert!(size_of::<RobustCell>() == 64);
const _: () = assert!(offset_of!(RobustCell, prev) == NODE_PREV && offset_of!(RobustCell, next) == NODE_NEXT);

impl RobustCell {
    /// Whether a thread owns it: see `sync::robust`.
    pub fn is_owned(&self) -> bool {
        const OWNER: u32 = (1 << 30) - 1;
        self.word.atomic().load(Relaxed) & OWNER != 0
    }
}

// SAFETY: atomic integers only; the two node fields are addresses that are never believed (`sys::thread`).
unsafe impl Shared for RobustCell {}
