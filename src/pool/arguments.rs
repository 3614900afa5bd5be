//! Where the arguments of tasks lie in the task memory. Only the host knows and decides; workers are told an offset and a length.
//!
//! Short ones lie in the task's record, those up to 64 KiB in the arena that every process maps, longer ones behind it, where the
//! worker that runs the task maps them for as long as it does.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};

use super::memory::{Extent, Sizes};
use super::room::Room;
use crate::error::Result;
use crate::sys::{file, memory};

/// The longest argument in a record.
pub const INLINE: usize = 48;
/// Pieces of the arena are 128 bytes, 256, …, 64 KiB.
const SMALLEST: u32 = 7;
const LARGEST: u32 = 16;
const CLASSES: usize = (LARGEST - SMALLEST + 1) as usize;
/// So much of the arena is kept when nothing is in it.
const KEPT: usize = 1 << 20;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Location {
    #[default]
    Inline,
    /// Offset in the mapped memory.
    Arena { offset: usize, class: u32 },
    /// Offset in the file, behind what is mapped; whole pages.
    Unmapped { offset: u64, length: u64 },
}

#[derive(Debug)]
pub struct Arguments {
    base: usize,
    limit: usize,
    made: Extent,
    /// Bytes of the arena that were ever given out.
    used: usize,
    /// Of each class: pieces that came back.
    free: [Vec<usize>; CLASSES],
    in_arena: usize,
    /// Behind the arena, in bytes: whole pages.
    unmapped: Room,
}

impl Arguments {
    pub fn new(sizes: &Sizes) -> Arguments {
        Arguments {
            base: sizes.arena_at(),
            limit: sizes.arena,
            made: Extent::new(sizes.arena_at(), sizes.arena),
            used: 0,
            free: Default::default(),
            in_arena: 0,
            unmapped: Room::new(memory::whole_pages(sizes.tasks_length()) as u64),
        }
    }

    /// Room for an argument; what lies in the arena exists already.
    pub fn allocate(&mut self, fd: BorrowedFd, length: usize) -> Result<Location> {
        if length <= INLINE {
            return Ok(Location::Inline);
        }
        if length <= 1 << LARGEST {
            if let Some(location) = self.allocate_in_arena(fd, length)? {
                return Ok(location);
            }
        }
        memory::check_room(length)?;
        let length = memory::whole_pages(length) as u64;
        Ok(Location::Unmapped { offset: self.unmapped.take(length, 0), length })
    }

    /// `None`: the arena is full.
    fn allocate_in_arena(&mut self, fd: BorrowedFd, length: usize) -> Result<Option<Location>> {
        let class = length.next_power_of_two().trailing_zeros().max(SMALLEST) - SMALLEST;
        let offset = match self.free[class as usize].pop() {
            Some(offset) => offset,
            None => {
                let piece = 1 << (class + SMALLEST);
                if self.used + piece > self.limit {
                    return Ok(None);
                }
                self.made.reach(&fd, self.used + piece)?;
                self.used += piece;
                self.base + self.used - piece
            }
        };
        self.in_arena += 1;
        Ok(Some(Location::Arena { offset, class }))
    }

    pub fn free(&mut self, fd: &impl AsFd, location: Location) {
        match location {
            Location::Inline => {}
            Location::Arena { offset, class } => {
                self.free[class as usize].push(offset);
                self.in_arena -= 1;
                if self.in_arena == 0 {
                    self.empty(fd.as_fd());
                }
            }
            Location::Unmapped { offset, length } => {
                file::punch(fd.as_fd(), offset, length);
                self.unmapped.give(offset, length);
            }
        }
    }

    /// Nothing is in the arena: it begins anew, in the memory that is warm.
    fn empty(&mut self, fd: BorrowedFd) {
        self.used = 0;
        self.free.iter_mut().for_each(Vec::clear);
        if self.made.length() > KEPT {
            file::punch(fd, self.base as u64, self.made.length() as u64);
            self.made.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_do_not_overlap_and_come_back() {
        let sizes = Sizes { slots: 8, places: 3, arena: 256 << 10 };
        let fd = memory::create_empty(c"test").unwrap();
        let mut arguments = Arguments::new(&sizes);
        assert_eq!(arguments.allocate(fd.as_fd(), INLINE).unwrap(), Location::Inline);
        for _ in 0..2 {
            let mut locations = Vec::new();
            for length in [INLINE + 1, 128, 129, 60_000, 65_536, 65_537, 100_000, 65_536, 65_536, 65_536] {
                locations.push((arguments.allocate(fd.as_fd(), length).unwrap(), length as u64));
            }
            let range = |&(location, length): &(Location, u64)| match location {
                Location::Inline => (0, 0),
                Location::Arena { offset, .. } => (offset as u64, offset as u64 + length),
                Location::Unmapped { offset, .. } => (offset, offset + length),
            };
            let mut ranges: Vec<_> = locations.iter().map(range).collect();
            ranges.sort_unstable();
            assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
            assert!(locations.iter().filter(|(location, _)| matches!(location, Location::Unmapped { .. })).count() > 2);
            for (location, _) in locations {
                arguments.free(&fd, location);
            }
            assert_eq!((arguments.in_arena, arguments.unmapped.end(), arguments.used), (0, memory_end(&sizes), 0));
        }
    }

    fn memory_end(sizes: &Sizes) -> u64 {
        memory::whole_pages(sizes.tasks_length()) as u64
    }

    #[test]
    fn long_ones_come_and_go_beside_one_that_stays() {
        let sizes = Sizes { slots: 8, places: 3, arena: 256 << 10 };
        let fd = memory::create_empty(c"test").unwrap();
        let mut arguments = Arguments::new(&sizes);
        let length = 100_001;
        let put = |arguments: &mut Arguments| {
            let location = arguments.allocate(fd.as_fd(), length).unwrap();
            let Location::Unmapped { offset, .. } = location else { unreachable!("{location:?}") };
            file::write_at(fd.as_fd(), &vec![1; length], offset).unwrap();
            location
        };
        let (stays, mut before) = (put(&mut arguments), put(&mut arguments));
        for _ in 0..100 {
            let next = put(&mut arguments);
            arguments.free(&fd, before);
            before = next;
        }
        let pages = memory::whole_pages(length) as u64;
        assert_eq!((arguments.unmapped.end(), file::in_use(fd.as_fd())), (memory_end(&sizes) + 2 * pages, 2 * pages));
        for location in [stays, before] {
            arguments.free(&fd, location);
        }
        assert_eq!((arguments.unmapped.end(), file::in_use(fd.as_fd())), (memory_end(&sizes), 0));
    }
}
