//! Where the arguments of tasks lie in the task memory. Only the host knows and decides; workers are told an offset and a length.
//!
//! Short ones lie in the task's record, those up to 64 KiB in the arena that every process maps, longer ones behind it, where the
//! worker that runs the task maps them for as long as it does.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};

use super::memory::{Extent, Sizes};
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
    /// Offset in the file, behind what is mapped.
    Unmapped { offset: u64, length: usize },
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
    /// Where the next one behind the arena may begin.
    next_unmapped: u64,
    unmapped: usize,
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
            next_unmapped: memory::whole_pages(sizes.tasks_length()) as u64,
            unmapped: 0,
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
        let offset = self.next_unmapped;
        memory::check_room(length)?;
        self.next_unmapped += memory::whole_pages(length) as u64;
        self.unmapped += 1;
        Ok(Location::Unmapped { offset, length })
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
                file::punch(fd.as_fd(), offset, length as u64);
                self.unmapped -= 1;
                if self.unmapped == 0 {
                    self.next_unmapped = memory::whole_pages(self.base + self.limit) as u64;
                }
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
            assert_eq!((arguments.in_arena, arguments.unmapped, arguments.used), (0, 0, 0));
        }
    }
}
