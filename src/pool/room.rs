//! Which parts of a file are free, in units of whatever size. The first ones are taken first, so that the file is no longer than it
//! has to be.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

#[derive(Debug)]
pub struct Room {
    /// Of each free range: where it begins, and how long it is. They touch neither each other nor the end.
    free: BTreeMap<u64, u64>,
    /// From here on everything is free.
    end: u64,
}

impl Room {
    /// Only from `end` on.
    pub fn new(end: u64) -> Room {
        Room { free: BTreeMap::new(), end }
    }

    /// Nothing from here on is in use.
    pub fn end(&self) -> u64 {
        self.end
    }

    pub fn first_free(&self) -> u64 {
        self.free.first_key_value().map_or(self.end, |(&start, _)| start)
    }

    /// The first `count` units side by side that are free, none of them before `from`.
    pub fn take(&mut self, count: u64, from: u64) -> u64 {
        let fits = |(&start, &length): (&u64, &u64)| start.max(from) + count <= start + length;
        let found = self.free.iter().find(|&range| fits(range)).map(|(&start, &length)| (start, length));
        let Some((start, length)) = found else {
            let (end, at) = (self.end, self.end.max(from));
            self.end = at + count;
            self.give(end, at - end);
            return at;
        };
        let at = start.max(from);
        self.free.remove(&start);
        self.give(start, at - start);
        self.give(at + count, start + length - at - count);
        at
    }

    /// These are free again.
    pub fn give(&mut self, mut start: u64, count: u64) {
        if count == 0 {
            return;
        }
        let mut end = start + count;
        if let Some((&before, &length)) = self.free.range(..start).next_back() {
            if before + length == start {
                self.free.remove(&before);
                start = before;
            }
        }
        if let Some(length) = self.free.remove(&end) {
            end += length;
        }
        if end == self.end {
            self.end = start;
        } else {
            self.free.insert(start, end - start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_is_taken_first_and_all_of_it_is_found() {
        let mut room = Room::new(10);
        assert_eq!([1, 3, 2, 1].map(|count| room.take(count, 0)), [10, 11, 14, 16]);
        room.give(14, 2);
        room.give(10, 1);
        assert_eq!((room.first_free(), room.take(3, 0), room.end()), (10, 17, 20));
        room.give(11, 3);
        // 10 to 15 are free now.
        assert_eq!((room.take(3, 12), room.take(2, 0), room.take(2, 0)), (12, 10, 20));
        for (start, count) in [(20, 2), (12, 3), (17, 3), (10, 2), (16, 1)] {
            room.give(start, count);
        }
        assert_eq!((room.first_free(), room.end(), room.free.len()), (10, 10, 0));
        assert_eq!((room.take(1, 12), room.first_free()), (12, 10));
    }
}
