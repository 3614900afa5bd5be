//! The memory that host and workers share: where everything lies in it, and how it grows. The records are in [`crate::shm::pool`].
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::roll::Roll;
use crate::error::Result;
use crate::shm::pool::{Bell, ClaimHead, Duty, LANES, Receipt, TaskHead, TaskRecord};
use crate::shm::{Array, View, Window, Word64};
use crate::sys::memory::{self, Access};
use crate::sys::thread::page_size;

/// Where everything lies. The offsets of what grows are such that its memory can be made piece by piece.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// How many tasks there can be: a power of two.
    pub slots: usize,
    /// Up to how many places there can be: what belongs to one is made when there is one.
    pub places: usize,
    /// Bytes of short arguments.
    pub arena: usize,
}

/// What grows in the task memory begins at multiples of this, and grows by at least this: a whole number of pages everywhere.
const PIECE: usize = 64 << 10;

impl Sizes {
    /// Twice as many positions as tasks: between the oldest that can still be taken and the newest lie also those that were taken.
    pub fn lane(&self) -> usize {
        2 * self.slots
    }

    fn receipts_at(&self) -> usize {
        size_of::<TaskHead>()
    }

    fn order_at(&self, lane: usize) -> usize {
        let first = (self.receipts_at() + self.places * size_of::<Receipt>()).next_multiple_of(PIECE);
        first + lane * (self.lane() * size_of::<Word64>()).next_multiple_of(PIECE)
    }

    pub fn records_at(&self) -> usize {
        self.order_at(LANES)
    }

    pub fn arena_at(&self) -> usize {
        (self.records_at() + self.slots * size_of::<TaskRecord>()).next_multiple_of(PIECE)
    }

    /// All of what is mapped; arguments that are longer than the arena takes lie behind it.
    pub fn tasks_length(&self) -> usize {
        self.arena_at() + self.arena
    }

    fn bells_at(&self) -> usize {
        size_of::<ClaimHead>()
    }

    fn claims_at(&self) -> usize {
        self.bells_at() + self.places * size_of::<Bell>()
    }

    fn claims_length(&self) -> usize {
        memory::whole_pages(self.claims_at() + self.slots * size_of::<Word64>())
    }
}

/// The task memory as one process sees it: the host for writing, the others for reading.
#[derive(Debug)]
pub struct Tasks {
    pub window: Arc<Window>,
    pub head: View<TaskHead>,
    pub receipts: Array<Receipt>,
    orders: [Array<Word64>; LANES],
    pub records: Array<TaskRecord>,
    lane_mask: u64,
}

impl Tasks {
    pub fn map(fd: BorrowedFd, sizes: &Sizes, access: Access) -> Result<Tasks> {
        let window = Window::new(fd, sizes.tasks_length(), access)?;
        Ok(Tasks {
            head: window.object(0)?,
            receipts: window.array(sizes.receipts_at(), sizes.places)?,
            orders: [window.array(sizes.order_at(0), sizes.lane())?, window.array(sizes.order_at(1), sizes.lane())?],
            records: window.array(sizes.records_at(), sizes.slots)?,
            lane_mask: sizes.lane() as u64 - 1,
            window,
        })
    }

    /// What lies at a position of a lane.
    pub fn order(&self, lane: usize, position: u64) -> &Word64 {
        // The mask keeps it inside; the head is only there to answer something.
        self.orders[lane].get((position & self.lane_mask) as usize).unwrap_or(&self.head.tails[lane])
    }
}

/// The memory that every process of the pool may write.
#[derive(Debug)]
pub struct Claims {
    pub window: Arc<Window>,
    pub head: View<ClaimHead>,
    pub bells: Array<Bell>,
    pub claims: Array<Word64>,
}

impl Claims {
    pub fn map(fd: BorrowedFd, sizes: &Sizes) -> Result<Claims> {
        let window = Window::new(fd, sizes.claims_length(), Access::ReadWrite)?;
        Ok(Claims {
            head: window.object(0)?,
            bells: window.array(sizes.bells_at(), sizes.places)?,
            claims: window.array(sizes.claims_at(), sizes.slots)?,
            window,
        })
    }
}

/// What each process of the pool is doing, a page for each place: a worker keeps its own and no other.
#[derive(Debug)]
pub struct Duties {
    window: Arc<Window>,
    duties: Array<Duty>,
}

impl Duties {
    pub fn map(files: &Files) -> Result<Duties> {
        let length = files.sizes.places * page_size();
        let window = Window::new(files.duties.as_fd(), length, Access::ReadWrite)?;
        Ok(Duties { duties: window.array(0, length / size_of::<Duty>())?, window })
    }

    pub fn get(&self, place: usize) -> Option<&Duty> {
        self.duties.get(place.checked_mul(page_size() / size_of::<Duty>())?)
    }

    /// For the process in a place.
    pub fn keep_own(&self, place: usize) {
        self.window.forbid_all_but(place * page_size(), page_size());
    }
}

/// The files that can grow; of the claims a process has no more than their mapping.
#[derive(Debug)]
pub struct Files {
    pub sizes: Sizes,
    pub tasks: OwnedFd,
    pub roll: OwnedFd,
    pub duties: OwnedFd,
}

impl Files {
    /// Answers the file of the claims as well.
    pub fn create(sizes: Sizes, places: usize) -> Result<(Files, OwnedFd)> {
        let [tasks, roll, duties, claims] =
            [c"tine-pool:tasks", c"tine-pool:roll", c"tine-pool:duties", c"tine-pool:claims"].map(memory::create_empty);
        let (files, claims) = (Files { sizes, tasks: tasks?, roll: roll?, duties: duties? }, claims?);
        // What is made with use: a pool that could not run a single task is none.
        memory::check_reach(sizes.records_at(), PIECE)?;
        memory::extend(files.tasks.as_fd(), 0, sizes.receipts_at())?;
        memory::extend(files.roll.as_fd(), 0, Roll::lines_at(sizes.places))?;
        memory::extend(claims.as_fd(), 0, sizes.claims_length())?;
        files.make_places(0, places)?;
        Ok((files, claims))
    }

    /// What belongs to the places from `first` on, below `end`.
    pub fn make_places(&self, first: usize, end: usize) -> Result<()> {
        let make =
            |file: &OwnedFd, base: usize, each: usize| memory::extend(file.as_fd(), base + first * each, (end - first) * each);
        make(&self.tasks, self.sizes.receipts_at(), size_of::<Receipt>())?;
        make(&self.roll, Roll::lines_at(self.sizes.places), Roll::PLACE)?;
        make(&self.duties, 0, page_size())
    }
}

/// Memory of the task file that was made so far, of something that is used from its beginning on.
#[derive(Debug)]
pub struct Extent {
    at: usize,
    length: usize,
    limit: usize,
}

impl Extent {
    pub fn new(at: usize, limit: usize) -> Extent {
        Extent { at, length: 0, limit }
    }

    pub fn order(sizes: &Sizes, lane: usize) -> Extent {
        Extent::new(sizes.order_at(lane), sizes.lane() * size_of::<Word64>())
    }

    pub fn records(sizes: &Sizes) -> Extent {
        Extent::new(sizes.records_at(), sizes.slots * size_of::<TaskRecord>())
    }

    /// Makes sure that its first `length` bytes exist.
    #[inline]
    pub fn reach(&mut self, fd: &impl AsFd, length: usize) -> Result<()> {
        if length <= self.length { Ok(()) } else { self.extend(fd.as_fd(), length) }
    }

    #[cold]
    fn extend(&mut self, fd: BorrowedFd, length: usize) -> Result<()> {
        let length = length.next_multiple_of(PIECE).min(self.limit.next_multiple_of(PIECE));
        memory::extend(fd, self.at + self.length, length - self.length).map_err(|error| error.context("more tasks"))?;
        self.length = length;
        Ok(())
    }

    pub fn length(&self) -> usize {
        self.length
    }

    pub fn forget(&mut self) {
        self.length = 0;
    }
}
