//! Small objects share a memfd.
//!
//! A slot is never used twice: a process that was forked meanwhile may still use the object that lay there. A slab is unmapped when
//! all its objects are freed, so only slabs with a long-lived object in them stay. A forked child starts a slab of its own:
//! [`PerProcess`] sees to that.

use std::sync::Arc;

use super::layout::{ObjectKind, SegmentHead};
use super::segment::{Object, Segment};
use super::word::Shared;
use crate::error::Result;
use crate::sys::per_process::PerProcess;

/// With the head, four pages.
const SLAB_LENGTH: usize = (16 << 10) - SegmentHead::LENGTH;
/// A cache line: neighbours do not disturb each other.
const SLOT_ALIGN: usize = 64;

#[derive(Default)]
struct Current {
    segment: Option<Arc<Segment>>,
    used: usize,
}

static CURRENT: PerProcess<Current> = PerProcess::new();

/// A fresh `T`, all zeros.
pub fn place<T: Shared>() -> Result<Object<T>> {
    place_with_tail(0)
}

/// A fresh `T` with `tail` bytes directly behind it, all zeros. What would take half a slab gets a memfd of its own.
pub fn place_with_tail<T: Shared>(tail: usize) -> Result<Object<T>> {
    const { assert!(size_of::<T>() <= SLAB_LENGTH && align_of::<T>() <= SLOT_ALIGN) };
    let length = size_of::<T>().saturating_add(tail);
    if length >= SLAB_LENGTH / 2 {
        return Segment::create(ObjectKind::Slab, length)?.object(0);
    }
    CURRENT.with(|current| {
        let length = length.next_multiple_of(SLOT_ALIGN);
        let segment = match &current.segment {
            Some(segment) if current.used + length <= SLAB_LENGTH => segment.clone(),
            _ => {
                let segment = Segment::create(ObjectKind::Slab, SLAB_LENGTH)?;
                current.used = 0;
                current.segment.insert(segment).clone()
            }
        };
        let object = segment.object(current.used)?;
        current.used += length;
        Ok(object)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::Word;

    #[test]
    fn neighbours_share_a_segment_and_no_bytes() {
        let first = place::<[Word; 4]>().unwrap();
        let second = place::<[Word; 4]>().unwrap();
        first[3].atomic().store(7, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(second[0].atomic().load(std::sync::atomic::Ordering::Relaxed), 0);
    }

    #[test]
    fn a_tail_may_be_longer_than_a_slab() {
        let long = place_with_tail::<[Word; 4]>(SLAB_LENGTH).unwrap();
        assert!(long.segment().object::<Word>(SLAB_LENGTH + 12).is_ok());
        assert!(place_with_tail::<[Word; 4]>(usize::MAX).is_err());
        let short = place_with_tail::<[Word; 4]>(500).unwrap();
        let next = place::<[Word; 4]>().unwrap();
        assert!(!std::sync::Arc::ptr_eq(short.segment(), next.segment()) || next.offset() >= short.offset() + 516);
    }
}
