//! Where the arguments of tasks lie in the task memory. Only the host knows and decides; workers are told an offset and a length.
//!
//! Short ones lie in the task's record, those up to 64 KiB in the arena that every process maps, longer ones behind it, where the
//! worker that runs the task maps them for as long as it does.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};

use super::board::{Extent, Sizes};
use crate::error::Result;
use crate::sys::{file, memory};

/// The longest argument in a record.
pub const INLINE: usize = 64;
/// Pieces of the arena are 128 bytes, 256, …, 64 KiB.
const SMALLEST: u32 = 7;
const LARGEST: u32 = 16;
const CLASSES: usize = (LARGEST - SMALLEST + 1) as usize;
/// So much of the arena is kept when nothing is in it.
const KEPT: usize = 1 << 20;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    #[default]
    Inline,
    /// Offset in the mapped memory.
    Arena { offset: usize, class: u32 },
    /// Offset in the file, behind what is mapped.
    Behind { offset: u64, length: usize },
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
    next_behind: u64,
    behind: usize,
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
            next_behind: memory::whole_pages(sizes.tasks_length()) as u64,
            behind: 0,
        }
    }

    /// Room for an argument; what lies in the arena exists already.
    pub fn place(&mut self, fd: BorrowedFd, length: usize) -> Result<Place> {
        if length <= INLINE {
            return Ok(Place::Inline);
        }
        if length <= 1 << LARGEST {
            if let Some(place) = self.place_in_arena(fd, length)? {
                return Ok(place);
            }
        }
        let offset = self.next_behind;
        memory::check_room(length)?;
        self.next_behind += memory::whole_pages(length) as u64;
        self.behind += 1;
        Ok(Place::Behind { offset, length })
    }

    /// `None`: the arena is full.
    fn place_in_arena(&mut self, fd: BorrowedFd, length: usize) -> Result<Option<Place>> {
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
        Ok(Some(Place::Arena { offset, class }))
    }

    pub fn give_back(&mut self, fd: &impl AsFd, place: Place) {
        match place {
            Place::Inline => {}
            Place::Arena { offset, class } => {
                self.free[class as usize].push(offset);
                self.in_arena -= 1;
                if self.in_arena == 0 {
                    self.empty(fd.as_fd());
                }
            }
            Place::Behind { offset, length } => {
                file::punch(fd.as_fd(), offset, length as u64);
                self.behind -= 1;
                if self.behind == 0 {
                    self.next_behind = memory::whole_pages(self.base + self.limit) as u64;
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
        assert_eq!(arguments.place(fd.as_fd(), 64).unwrap(), Place::Inline);
        for _ in 0..2 {
            let mut places = Vec::new();
            for length in [65, 128, 129, 60_000, 65_536, 65_537, 100_000, 65_536, 65_536, 65_536] {
                places.push((arguments.place(fd.as_fd(), length).unwrap(), length as u64));
            }
            let range = |&(place, length): &(Place, u64)| match place {
                Place::Inline => (0, 0),
                Place::Arena { offset, .. } => (offset as u64, offset as u64 + length),
                Place::Behind { offset, .. } => (offset, offset + length),
            };
            let mut ranges: Vec<_> = places.iter().map(range).collect();
            ranges.sort_unstable();
            assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
            assert!(places.iter().filter(|(place, _)| matches!(place, Place::Behind { .. })).count() > 2);
            for (place, _) in places {
                arguments.give_back(&fd, place);
            }
            assert_eq!((arguments.in_arena, arguments.behind, arguments.used), (0, 0, 0));
        }
    }
}
