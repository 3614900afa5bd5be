//! Plain bytes in shared memory: copied in and out, never borrowed.

use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::Segment;

/// A range of a segment. Another process may write it at any moment: there is no reference to it, only copies.
#[derive(Debug, Clone)]
pub struct Bytes {
    address: NonNull<u8>,
    length: usize,
    _segment: Arc<Segment>,
}

// SAFETY: plain memory that is only copied.
unsafe impl Send for Bytes {}
// SAFETY: as above; concurrent copies of the same bytes give arbitrary bytes, which every reader expects.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// # Safety
    /// `length` bytes from `address` on lie in the segment's mapping.
    pub(super) unsafe fn new(address: NonNull<u8>, length: usize, segment: Arc<Segment>) -> Bytes {
        Bytes { address, length, _segment: segment }
    }

    pub fn length(&self) -> usize {
        self.length
    }

    /// Copies `data` to `at`. `false` (nothing copied) where it does not fit.
    #[inline]
    pub fn write(&self, at: usize, data: &[u8]) -> bool {
        if at > self.length || data.len() > self.length - at {
            return false;
        }
        // SAFETY: inside; the source is private memory.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), self.address.add(at).as_ptr(), data.len()) };
        true
    }

    /// Copies from `at` into `buffer`. `false` (nothing copied) where there is not that much.
    #[inline]
    pub fn read(&self, at: usize, buffer: &mut [MaybeUninit<u8>]) -> bool {
        if at > self.length || buffer.len() > self.length - at {
            return false;
        }
        // SAFETY: inside; the target is private memory.
        unsafe { ptr::copy_nonoverlapping(self.address.add(at).as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
        true
    }

    /// Where `length` bytes from `at` on lie in this process, for code of the caller that writes or reads them there.
    pub fn place(&self, at: usize, length: usize) -> Option<*mut u8> {
        let inside = at <= self.length && length <= self.length - at;
        inside.then(|| self.address.as_ptr().wrapping_add(at))
    }

    /// Stores eight aligned bytes; the others see them whole.
    #[inline]
    pub fn write_u64(&self, at: usize, value: u64) -> bool {
        if at % 8 != 0 || at > self.length || self.length - at < 8 {
            return false;
        }
        // SAFETY: inside and aligned (mappings begin on a page).
        unsafe { self.address.add(at).cast::<u64>().write_volatile(value) };
        true
    }

    #[inline]
    pub fn read_u64(&self, at: usize) -> Option<u64> {
        if at % 8 != 0 || at > self.length || self.length - at < 8 {
            return None;
        }
        // SAFETY: inside and aligned.
        Some(unsafe { self.address.add(at).cast::<u64>().read_volatile() })
    }
}
