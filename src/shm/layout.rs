//! The objects that lie in shared memory, all in one place: their layout is a second ABI, between processes, and [`VERSION`] is its
//! number. The algorithms on them are in `sync` and `ipc`.

use std::ffi::CStr;
use std::mem::offset_of;

use super::cell::RobustCell;
use super::word::{Shared, Word, Word64};
use crate::sys::shared_file::MARK;

/// Goes up with every change below.
pub const VERSION: u32 = 1;

/// What can be handed on. The numbers are part of the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ObjectKind {
    /// Small objects of several kinds.
    Slab = 1,
    Queue = 2,
    Lock = 3,
    Semaphore = 4,
    Event = 5,
    Condition = 6,
    Barrier = 7,
    SharedMemory = 8,
}

impl ObjectKind {
    pub fn of_number(number: u32) -> Option<ObjectKind> {
        use ObjectKind::*;
        [Slab, Queue, Lock, Semaphore, Event, Condition, Barrier, SharedMemory].into_iter().find(|kind| *kind as u32 == number)
    }

    /// As messages call it.
    pub fn noun(self) -> &'static str {
        match self {
            ObjectKind::Slab => "a small object",
            ObjectKind::Queue => "a queue",
            ObjectKind::Lock => "a lock",
            ObjectKind::Semaphore => "a semaphore",
            ObjectKind::Event => "an event",
            ObjectKind::Condition => "a condition",
            ObjectKind::Barrier => "a barrier",
            ObjectKind::SharedMemory => "a block of shared memory",
        }
    }

    /// The same without an article: what an error begins with.
    pub fn word(self) -> &'static str {
        self.noun().split_once(' ').map_or("", |(_, word)| word)
    }

    /// What a memfd is called that holds one.
    pub fn label(self) -> &'static CStr {
        match self {
            ObjectKind::Queue => c"tine:queue",
            ObjectKind::SharedMemory => c"tine:memory",
            _ => c"tine:slab",
        }
    }

    /// "tn", the kind, the version.
    pub const fn mark(self) -> u32 {
        0x746e_0000 | (self as u32) << 8 | VERSION
    }
}

const _: () = assert!(VERSION < 256);

/// An object that says in shared memory what it is: written last when it is made, checked by whoever comes upon it there.
pub trait Marked: Shared {
    const KIND: ObjectKind;

    /// The cell that it begins with, or that is held as long as it is in use.
    fn cell(&self) -> &RobustCell;

    fn mark(&self) -> &Word {
        &self.cell().mark
    }
}

impl Marked for RobustCell {
    const KIND: ObjectKind = ObjectKind::Lock;
    fn cell(&self) -> &RobustCell {
        self
    }
}

impl Marked for SemaphoreShared {
    const KIND: ObjectKind = ObjectKind::Semaphore;
    fn cell(&self) -> &RobustCell {
        &self.section
    }
}

impl Marked for EventShared {
    const KIND: ObjectKind = ObjectKind::Event;
    fn cell(&self) -> &RobustCell {
        &self.section
    }
}

impl Marked for ConditionShared {
    const KIND: ObjectKind = ObjectKind::Condition;
    fn cell(&self) -> &RobustCell {
        &self.section
    }
}

impl Marked for BarrierShared {
    const KIND: ObjectKind = ObjectKind::Barrier;
    fn cell(&self) -> &RobustCell {
        &self.section
    }
}

impl Marked for QueueShared {
    const KIND: ObjectKind = ObjectKind::Queue;
    fn cell(&self) -> &RobustCell {
        &self.producers.section
    }
}

/// The first bytes of every segment: written before anybody else can see it, never changed but for the namespace, and read only by
/// whoever maps the segment next, who believes nothing of it without looking.
///
/// | at | bytes | what |
/// |---|---|---|
/// | 0 | 8 | `sys::shared_file::MARK` |
/// | 8 | 4 | [`VERSION`] |
/// | 12 | 4 | the [`ObjectKind`] that the segment was made for |
/// | 16 | 8 | the pid namespace of its users: the words hold thread numbers |
/// | 24 | 8 | where the content begins |
/// | 32 | 8 | the content's length |
/// | 40 | 208 | the name, if it has one, and zeros |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHead {
    pub version: u32,
    pub kind: u32,
    pub namespace: u64,
    pub body: u64,
    pub length: u64,
    pub name: [u8; 208],
}

impl SegmentHead {
    pub const LENGTH: usize = 256;
    pub const NAMESPACE_AT: u64 = 16;

    pub fn to_bytes(self) -> [u8; SegmentHead::LENGTH] {
        let mut bytes = [0; SegmentHead::LENGTH];
        bytes[..8].copy_from_slice(&MARK);
        bytes[8..12].copy_from_slice(&self.version.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.kind.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.namespace.to_ne_bytes());
        bytes[24..32].copy_from_slice(&self.body.to_ne_bytes());
        bytes[32..40].copy_from_slice(&self.length.to_ne_bytes());
        bytes[40..248].copy_from_slice(&self.name);
        bytes
    }

    /// `None`: the mark is missing.
    pub fn from_bytes(bytes: &[u8; SegmentHead::LENGTH]) -> Option<SegmentHead> {
        let (mark, rest) = bytes.split_first_chunk::<8>()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (kind, rest) = rest.split_first_chunk()?;
        let (namespace, rest) = rest.split_first_chunk()?;
        let (body, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (name, _) = rest.split_first_chunk()?;
        (*mark == MARK).then_some(SegmentHead {
            version: u32::from_ne_bytes(*version),
            kind: u32::from_ne_bytes(*kind),
            namespace: u64::from_ne_bytes(*namespace),
            body: u64::from_ne_bytes(*body),
            length: u64::from_ne_bytes(*length),
            name: *name,
        })
    }
}

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

    /// Permits that may be there; set once.
    pub fn maximum(&self) -> &Word {
        &self.section.small[1]
    }

    /// 0, or one more than the permits that belong to threads: their cells follow. Set once.
    pub fn tracked(&self) -> &Word {
        &self.section.small[2]
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

/// The head of a condition; its seats follow.
#[repr(C)]
#[derive(Debug, Default)]
pub struct ConditionShared {
    pub section: RobustCell,
}

impl ConditionShared {
    /// What the oldest waiter sleeps on.
    #[inline]
    pub fn bell(&self) -> &Word {
        &self.section.small[0]
    }

    /// The next ticket.
    #[inline]
    pub fn next(&self) -> &Word {
        &self.section.small[1]
    }

    /// Seats from here on were not used since nobody waited.
    #[inline]
    pub fn used(&self) -> &Word {
        &self.section.small[2]
    }

    /// {horizon, count}
    #[inline]
    pub fn credits(&self) -> &Word64 {
        &self.section.large[0]
    }
}

/// The head of a barrier; its seats follow.
#[repr(C)]
#[derive(Debug, Default)]
pub struct BarrierShared {
    pub section: RobustCell,
    /// Owned by the one waiter that sleeps on the state.
    pub leader: RobustCell,
    /// Owned by the one that waits for a seat, asleep on the bell.
    pub queue: RobustCell,
}

impl BarrierShared {
    /// {generation, acting, broken}
    #[inline]
    pub fn state(&self) -> &Word {
        &self.section.small[0]
    }

    /// The last generation that was completed.
    #[inline]
    pub fn completed(&self) -> &Word {
        &self.section.small[1]
    }

    /// How many meet, and how many seats there are; set once.
    pub fn parties(&self) -> &Word {
        &self.section.small[2]
    }

    /// Whether somebody waits for a seat.
    #[inline]
    pub fn bell(&self) -> &Word {
        &self.queue.small[0]
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
    /// Producers of a queue that grows: the ring's memory is there from `given_back` to `made`, in units.
    pub made: Word64,
    pub given_back: Word64,
    rest: [Word64; 2],
}

impl SideShared {
    /// Not 0: the leader of the *other* side may be asleep on it. Changed under this side's section only.
    #[inline]
    pub fn bell(&self) -> &Word {
        &self.section.small[0]
    }

    /// Not 0: no more puts. Changed under both sections; the producers' is what counts, the consumers have a copy on the line that they
    /// have at hand.
    #[inline]
    pub fn closed(&self) -> &Word {
        &self.section.small[1]
    }

    /// Producers: how many bytes the owner of the section has reserved.
    #[inline]
    pub fn reserved(&self) -> &Word {
        &self.section.small[2]
    }

    /// Not 0: what the owner of the section has reserved, or peeked at, lies in its private memory.
    #[inline]
    pub fn private(&self) -> &Word {
        &self.section.small[3]
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

/// How many of a queue's messages were declared done, and who waits for all of them to be.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct TasksShared {
    /// Guards the "asleep" flag of the state, which is `large[0]`.
    pub section: RobustCell,
    rest: [Word64; 8],
}

impl TasksShared {
    /// {done, ends, asleep}
    #[inline]
    pub fn state(&self) -> &Word64 {
        &self.section.large[0]
    }

    /// What they sleep on who wait.
    #[inline]
    pub fn bell(&self) -> &Word {
        &self.section.small[0]
    }
}

/// The head of a queue's segment; the ring follows, in one that grows from the file's next page on.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct QueueShared {
    /// How much of the ring may be in use at once; of one that grows, how much is made at once.
    pub window_bytes: Word64,
    pub max_bytes: Word64,
    pub capacity: Word64,
    /// Not 0: it grows.
    pub grows: Word64,
    /// Not 0: it has a descriptor, the pipe with this inode.
    pub pipe: Word64,
    rest: [Word64; 11],
    pub producers: SideShared,
    pub consumers: SideShared,
    /// Owned by the producer that sleeps on `consumers.bell()`, and by the consumer that sleeps on `producers.bell()`.
    pub put_leader: RobustCell,
    pub get_leader: RobustCell,
    pub tasks: TasksShared,
}

const _: () = assert!(size_of::<SideShared>() == 128 && offset_of!(SideShared, position) == 64);
const _: () = assert!(size_of::<QueueShared>() == 640 && offset_of!(QueueShared, producers) == 128);

// SAFETY: robust cells.
unsafe impl Shared for SemaphoreShared {}
// SAFETY: a robust cell.
unsafe impl Shared for EventShared {}
// SAFETY: a robust cell.
unsafe impl Shared for ConditionShared {}
// SAFETY: robust cells.
unsafe impl Shared for BarrierShared {}
// SAFETY: a robust cell and words.
unsafe impl Shared for SideShared {}
// SAFETY: a robust cell and words.
unsafe impl Shared for TasksShared {}
// SAFETY: sides, robust cells and words.
unsafe impl Shared for QueueShared {}
