//! The objects that lie in shared memory, all in one place: their layout is a second ABI, between processes, and [`VERSION`] is its
//! number. The algorithms on them are in `sync` and `ipc`.

use std::mem::offset_of;

use super::cell::RobustCell;
use super::word::{Shared, Word, Word64};

/// Goes up with every change below.
pub const VERSION: u32 = 1;

/// Marks a queue: "tineQUE" and the version.
pub const QUEUE_MAGIC: u64 = 0x7469_6e65_5155_4500 | VERSION as u64;

#[repr(C)]
#[derive(Debug, Default)]
pub struct SemaphoreShared {
    /// Guards the "asleep" flag of the state, which is `small[0]`.
    pub section: RobustCell,
    /// Owned by the one waiter that sleeps on the state.
    pub leader: RobustCell,
}

impl SemaphoreShared {
    /// {count, asleep}
    #[inline]
    pub fn state(&self) -> &Word {
        &self.section.small[0]
    }
}

#[repr(C)]
#[derive(Debug, Default)]
pub struct EventShared {
    /// Guards the "asleep" flag of the state, which is `small[0]`.
    pub section: RobustCell,
}

impl EventShared {
    /// {generation, asleep, set}
    #[inline]
    pub fn state(&self) -> &Word {
        &self.section.small[0]
    }
}

/// One side of a queue: what producers write, or what consumers write.
///
/// Its cell and its published line make a pair of cache lines of their own (processors fetch lines in pairs), so that the two sides
/// meet only where one reads what the other has published.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct SideShared {
    /// Owned by the one thread of this side that is inside.
    pub section: RobustCell,
    /// The position of this side: the one store that publishes a put, or a get.
    pub position: Word64,
    /// Producers: where the next large message will lie. Consumers: where the last one taken ended.
    pub large: Word64,
    /// What `large` becomes, and which `position` makes it so: for the recovery of a side that died between the two.
    pub large_intent: Word64,
    pub large_intent_position: Word64,
    rest: [Word64; 4],
}

impl SideShared {
    /// Not 0: the leader of the *other* side may be asleep on it. Changed under this side's section only.
    #[inline]
    pub fn bell(&self) -> &Word {
        &self.section.small[0]
    }

    /// Not 0: no more puts. Changed under both sections.
    #[inline]
    pub fn closed(&self) -> &Word {
        &self.section.small[1]
    }

    /// This side's own copy of `position`, on the line that it has at hand.
    #[inline]
    pub fn own(&self) -> &Word64 {
        &self.section.large[0]
    }

    /// The other side's position as this side last looked it up.
    #[inline]
    pub fn other(&self) -> &Word64 {
        &self.section.large[1]
    }
}

/// The head of a queue's segment; the ring follows.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct QueueShared {
    pub magic: Word64,
    pub ring_bytes: Word64,
    pub max_bytes: Word64,
    pub capacity: Word64,
    rest: [Word64; 12],
    pub producers: SideShared,
    pub consumers: SideShared,
    /// Owned by the producer that sleeps on `consumers.bell()`, and by the consumer that sleeps on `producers.bell()`.
    pub put_leader: RobustCell,
    pub get_leader: RobustCell,
}

const _: () = assert!(size_of::<SideShared>() == 128 && offset_of!(SideShared, position) == 64);
const _: () = assert!(size_of::<QueueShared>() == 512 && offset_of!(QueueShared, producers) == 128);

// SAFETY: robust cells.
unsafe impl Shared for SemaphoreShared {}
// SAFETY: a robust cell.
unsafe impl Shared for EventShared {}
// SAFETY: a robust cell and words.
unsafe impl Shared for SideShared {}
// SAFETY: sides, robust cells and words.
unsafe impl Shared for QueueShared {}
