//! Anonymous shared memory with typed objects in it.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use super::Bytes;
use super::word::Shared;
use crate::error::{Error, Result};
use crate::sys::memory::{self, Access, Mapping};
use crate::sys::per_process::PerProcess;

/// What `Object::keep_mapped` keeps: reachable, so that leak checkers see that it is meant to stay.
static KEPT: PerProcess<Vec<Arc<Segment>>> = PerProcess::new();

/// A memfd and this process's mapping of it. It has no name and vanishes with its last descriptor and mapping. Every one of them is
/// called "tine:…": a pool's nursery recognises by that which descriptors to keep.
#[derive(Debug)]
pub struct Segment {
    fd: OwnedFd,
    mapping: Mapping,
}

impl Segment {
    /// `length` bytes of zeros, rounded up to whole pages.
    pub fn create(name: &CStr, length: usize) -> Result<Arc<Segment>> {
        debug_assert!(name.to_bytes().starts_with(b"tine:"));
        let length = memory::whole_pages(length);
        let fd = memory::create(name, length)?;
        let mapping = Mapping::shared(fd.as_fd(), length, Access::ReadWrite)?;
        Ok(Arc::new(Segment { fd, mapping }))
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub fn length(&self) -> usize {
        self.mapping.length()
    }

    /// The bytes from `offset` on.
    pub fn bytes(self: &Arc<Segment>, offset: usize, length: usize) -> Result<Bytes> {
        self.check(offset, length, 1)?;
        // SAFETY: inside the mapping, which the `Arc` keeps.
        Ok(unsafe { Bytes::new(self.mapping.address().add(offset), length, self.clone()) })
    }

    /// The object at `offset`.
    pub fn object<T: Shared>(self: &Arc<Segment>, offset: usize) -> Result<Object<T>> {
        self.check(offset, size_of::<T>(), align_of::<T>())?;
        // SAFETY: inside the mapping and aligned.
        let pointer = unsafe { self.mapping.address().add(offset) }.cast();
        Ok(Object { pointer, segment: self.clone(), marker: PhantomData })
    }

    fn check(&self, offset: usize, length: usize, align: usize) -> Result<()> {
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.length());
        if inside && offset % align == 0 { Ok(()) } else { Err(Error::invalid("shared memory: offset outside of the segment")) }
    }
}

/// A `T` in shared memory; keeps the mapping.
#[derive(Debug)]
pub struct Object<T: Shared> {
    pointer: NonNull<T>,
    segment: Arc<Segment>,
    marker: PhantomData<T>,
}

impl<T: Shared> Object<T> {
    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Keeps the memory mapped until the process ends. For an object that is freed while a thread has a word of it on its robust
    /// list: the list must not lead into unmapped memory, what lies behind it would be lost.
    pub fn keep_mapped(&self) {
        KEPT.with(|kept| {
            if !kept.iter().any(|other| Arc::ptr_eq(other, &self.segment)) {
                kept.push(self.segment.clone());
            }
        });
    }
}

impl<T: Shared> Clone for Object<T> {
    fn clone(&self) -> Object<T> {
        Object { pointer: self.pointer, segment: self.segment.clone(), marker: PhantomData }
    }
}

impl<T: Shared> Deref for Object<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `Segment::object` checked it; every bit pattern of a `Shared` is valid and it consists of atomics.
        unsafe { self.pointer.as_ref() }
    }
}

// SAFETY: a `Shared` type is `Sync`, and the mapping is neither bound to a thread nor changed.
unsafe impl<T: Shared> Send for Object<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for Object<T> {}
