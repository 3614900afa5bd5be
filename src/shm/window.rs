//! A view of a memfd, for memory whose parts belong to different processes: each maps what it may write for writing and the rest for
//! reading, and a view may be longer than the file is yet.
//!
//! A [`super::Segment`] is not one of those: it owns its file, which says in a head what it is and is found again by it, and a process
//! maps it once, whole, for writing. All that the two have in common is that an offset is checked before it becomes an address.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::word::{Shared, Word};
use crate::error::{Error, Result};
use crate::sys::heap::{Buffer, Filled};
use crate::sys::memory::{Access, Mapping};

/// A mapping of the first bytes of a memfd. What of them is touched must exist (`sys::memory::extend`), and be written only through a
/// window for writing: everything else ends the process by a signal.
#[derive(Debug)]
pub struct Window {
    mapping: Mapping,
}

impl Window {
    pub fn new(fd: BorrowedFd, length: usize, access: Access) -> Result<Arc<Window>> {
        Window::range(fd, 0, length, access)
    }

    /// From `offset` on, a whole number of pages.
    pub fn range(fd: BorrowedFd, offset: u64, length: usize, access: Access) -> Result<Arc<Window>> {
        Ok(Arc::new(Window { mapping: Mapping::range(fd, offset, length, access)? }))
    }

    /// Children that are forked from now on do not have it.
    pub fn keep_from_children(&self) -> Result<()> {
        self.mapping.keep_from_children()
    }

    /// For a child: takes away what it inherited and must never touch.
    pub fn forbid(&self) {
        self.mapping.forbid();
    }

    /// The same for all but some pages.
    pub fn forbid_all_but(&self, offset: usize, length: usize) {
        self.mapping.forbid_all_but(offset, length);
    }

    pub fn length(&self) -> usize {
        self.mapping.length()
    }

    /// `count` elements from `offset` on.
    pub fn array<T: Shared>(self: &Arc<Window>, offset: usize, count: usize) -> Result<Array<T>> {
        let inside = count.checked_mul(size_of::<T>()).and_then(|length| offset.checked_add(length));
        if inside.is_none_or(|end| end > self.length()) || offset % align_of::<T>() != 0 {
            return Err(Error::invalid("shared memory: offset outside of the window"));
        }
        // SAFETY: inside the mapping and aligned.
        let pointer = unsafe { self.mapping.address().add(offset) }.cast();
        Ok(Array { pointer, count, _window: self.clone(), marker: PhantomData })
    }

    /// The element at `offset`.
    pub fn object<T: Shared>(self: &Arc<Window>, offset: usize) -> Result<View<T>> {
        self.array(offset, 1).map(View)
    }

    /// Where `length` bytes from `offset` on lie in this process, for code that reads them there.
    pub fn address(&self, offset: usize, length: usize) -> Option<*const u8> {
        self.check(offset, length).then(|| self.mapping.address().as_ptr().wrapping_add(offset).cast_const())
    }

    /// Copies `data` to `offset`. `false` (nothing copied) where it does not fit.
    #[inline]
    pub fn write(&self, offset: usize, data: &[u8]) -> bool {
        let fits = self.check(offset, data.len());
        if fits {
            // SAFETY: inside; the source is private memory.
            unsafe { ptr::copy_nonoverlapping(data.as_ptr(), self.mapping.address().add(offset).as_ptr(), data.len()) };
        }
        fits
    }

    /// Copies from `offset` into `buffer`. `false` (nothing copied) where there is not that much.
    #[inline]
    pub fn read(&self, offset: usize, buffer: &mut [MaybeUninit<u8>]) -> bool {
        let there = self.check(offset, buffer.len());
        if there {
            // SAFETY: inside; the target is private memory.
            unsafe {
                ptr::copy_nonoverlapping(self.mapping.address().add(offset).as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
            };
        }
        there
    }

    /// The word at `offset`.
    #[inline]
    pub fn word(&self, offset: usize) -> Option<&Word> {
        let inside = self.check(offset, size_of::<Word>()) && offset % align_of::<Word>() == 0;
        // SAFETY: inside and aligned; an atomic integer.
        inside.then(|| unsafe { self.mapping.address().add(offset).cast::<Word>().as_ref() })
    }

    /// The `N` bytes from `offset` on.
    #[inline]
    pub fn read_array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut array = [MaybeUninit::uninit(); N];
        let read = self.read(offset, &mut array);
        // SAFETY: `read` says that it filled all of it.
        read.then(|| array.map(|byte| unsafe { byte.assume_init() }))
    }

    /// The bytes from `offset` on in memory of their own; `None` where there are not that many, or no memory for them.
    pub fn copy(&self, offset: usize, length: usize) -> Option<Filled> {
        let mut buffer = Buffer::new(length).ok()?;
        let read = self.read(offset, buffer.as_uninit());
        // SAFETY: `read` says that it filled all of it.
        read.then(|| unsafe { buffer.assume_filled() })
    }

    fn check(&self, offset: usize, length: usize) -> bool {
        offset.checked_add(length).is_some_and(|end| end <= self.length())
    }
}

/// Elements in a window; keeps the mapping.
#[derive(Debug)]
pub struct Array<T: Shared> {
    pointer: NonNull<T>,
    count: usize,
    _window: Arc<Window>,
    marker: PhantomData<T>,
}

impl<T: Shared> Array<T> {
    #[inline]
    pub fn get(&self, index: usize) -> Option<&T> {
        // SAFETY: inside; every bit pattern of a `Shared` is valid and it consists of atomics.
        (index < self.count).then(|| unsafe { self.pointer.add(index).as_ref() })
    }

    pub fn count(&self) -> usize {
        self.count
    }
}

// SAFETY: a `Shared` type is `Sync`, and the mapping is neither bound to a thread nor changed.
unsafe impl<T: Shared> Send for Array<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for Array<T> {}

/// One object in a window; keeps the mapping.
#[derive(Debug)]
pub struct View<T: Shared>(Array<T>);

impl<T: Shared> Deref for View<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `Window::object` checked it.
        unsafe { self.0.pointer.as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::Word64;
    use crate::sys::memory;
    use std::os::fd::AsFd;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn what_one_window_writes_another_reads() {
        let fd = memory::create_empty(c"test").unwrap();
        let writer = Window::new(fd.as_fd(), 1 << 20, Access::ReadWrite).unwrap();
        let reader = Window::new(fd.as_fd(), 1 << 20, Access::Read).unwrap();
        memory::extend(fd.as_fd(), 8192, 4096).unwrap();
        writer.array::<Word64>(8192, 512).unwrap().get(3).unwrap().atomic().store(7, Relaxed);
        assert_eq!(reader.array::<Word64>(8192, 512).unwrap().get(3).unwrap().atomic().load(Relaxed), 7);
        assert!(reader.array::<Word64>(8192, 512).unwrap().get(512).is_none());
        assert!(reader.array::<Word64>(1 << 20, 1).is_err());
        assert!(!writer.write((1 << 20) - 3, b"four"));
    }
}
