//! A block of shared memory for the user's own data, with small objects of ours in it where the user wants them.

use std::sync::Arc;

use super::handing_on::{self, HandedOn, Pin, Token};
use super::layout::{Marked, ObjectKind};
use super::name::{Name, Naming};
use super::{Extent, Segment};
use crate::error::{Error, Kind, Result};

#[derive(Debug)]
pub struct SharedMemory {
    segment: Arc<Segment>,
    pin: Pin,
}

impl SharedMemory {
    /// `length` bytes of zeros, or the block that has the name, whatever its length.
    pub fn new(length: usize, naming: &Naming) -> Result<SharedMemory> {
        if length == 0 {
            return Err(Error::invalid("length: a block of 0 bytes is impossible"));
        }
        Segment::make(ObjectKind::SharedMemory, Extent::whole(length), naming, |_| Ok(())).map(SharedMemory::of)
    }

    pub fn open(name: &Name) -> Result<SharedMemory> {
        Segment::open(ObjectKind::SharedMemory, name).map(SharedMemory::of)
    }

    pub fn attach(token: &Token) -> Result<SharedMemory> {
        handing_on::attach_block(token).map(SharedMemory::of)
    }

    pub fn token(&self) -> Result<Token> {
        handing_on::token_of_block(&self.segment, &self.pin)
    }

    fn of(segment: Arc<Segment>) -> SharedMemory {
        SharedMemory { segment, pin: Pin::default() }
    }

    /// Its first byte in this process. Whoever writes there writes what everybody sees.
    pub fn address(&self) -> *mut u8 {
        self.segment.content().as_ptr()
    }

    pub fn length(&self) -> usize {
        self.segment.content_length()
    }

    pub fn name(&self) -> Option<&Name> {
        self.segment.name()
    }

    /// Makes an object at `offset`, over whatever bytes are there.
    pub fn make<T: HandedOn>(&self, offset: usize, init: impl Fn(&T::Shared)) -> Result<T> {
        self.check::<T::Shared>(offset)?;
        // The robust list of the thread that holds what is there leads through these bytes.
        if self.segment.marked::<T::Shared>(offset)?.is_some_and(|there| there.cell().is_owned()) {
            let text = format!("offset: {} lies at {offset} already, and somebody holds it", T::Shared::KIND.noun());
            return Err(Error::new(Kind::Busy, text));
        }
        let object = self.segment.object::<T::Shared>(offset)?;
        let length = size_of::<T::Shared>();
        self.segment.bytes(offset, length)?.write(0, &vec![0; length]);
        handing_on::complete(&object, &init);
        T::of(object)
    }

    /// The object at `offset`.
    pub fn at<T: HandedOn>(&self, offset: usize) -> Result<T> {
        self.check::<T::Shared>(offset)?;
        let there = self.segment.marked::<T::Shared>(offset)?;
        there.map_or_else(
            || Err(Error::invalid(format!("offset: there is not {} at {offset}", T::Shared::KIND.noun()))),
            |object| T::of(object),
        )
    }

    fn check<T: Marked>(&self, offset: usize) -> Result<()> {
        let (needed, length) = (size_of::<T>(), self.length());
        if offset % align_of::<T>() != 0 {
            return Err(Error::invalid(format!("offset: {offset} is not a multiple of {}", align_of::<T>())));
        }
        if offset.checked_add(needed).is_none_or(|end| end > length) {
            let noun = T::KIND.noun();
            return Err(Error::invalid(format!(
                "offset: {noun} of {needed} bytes at {offset} does not lie in a block of {length}"
            )));
        }
        Ok(())
    }
}
