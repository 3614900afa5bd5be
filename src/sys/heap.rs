//! Memory from libc's allocator, for buffers that change hands to C: freed without knowing the length.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use crate::error::{Error, Kind, Result};

/// A buffer for the caller; freed when dropped unless it is handed out.
pub struct Buffer {
    memory: NonNull<u8>,
    length: usize,
}

// SAFETY: owned memory.
unsafe impl Send for Buffer {}

impl Buffer {
    /// Never null, also for length 0.
    pub fn new(length: usize) -> Result<Buffer> {
        // SAFETY: any size is fine.
        let memory = unsafe { libc::malloc(length.max(1)) };
        match NonNull::new(memory.cast()) {
            Some(memory) => Ok(Buffer { memory, length }),
            None => Err(Error::new(Kind::NoMemory, format!("no memory for {length} bytes"))),
        }
    }

    pub fn length(&self) -> usize {
        self.length
    }

    pub fn address(&self) -> *mut u8 {
        self.memory.as_ptr()
    }

    pub fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: ours, that long, and never read through this type.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr().cast(), self.length) }
    }

    /// # Safety
    /// Every byte has been written.
    pub unsafe fn assume_filled(self) -> Filled {
        Filled(self)
    }

    /// The first `filled` bytes: for tests, which have written them.
    #[cfg(test)]
    pub fn to_vec(&self, filled: usize) -> Vec<u8> {
        assert!(filled <= self.length);
        // SAFETY: that many bytes are there, and were written.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), filled) }.to_vec()
    }

    /// The caller frees it with `tine_free`.
    pub fn hand_out(self) -> *mut c_void {
        let memory = self.memory.as_ptr().cast();
        std::mem::forget(self);
        memory
    }
}

/// A buffer that somebody else writes by its address. It is zeros before, so that all of it can be read, whatever was written.
pub struct Place(Buffer);

impl Place {
    /// Never null, also for length 0.
    pub fn new(length: usize) -> Result<Place> {
        // SAFETY: any size is fine.
        let memory = unsafe { libc::calloc(length.max(1), 1) };
        match NonNull::new(memory.cast()) {
            Some(memory) => Ok(Place(Buffer { memory, length })),
            None => Err(Error::new(Kind::NoMemory, format!("no memory for {length} bytes"))),
        }
    }

    pub fn address(&self) -> *mut u8 {
        self.0.address()
    }
}

impl std::ops::Deref for Place {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: ours, that long, and written: with zeros at least.
        unsafe { std::slice::from_raw_parts(self.0.memory.as_ptr(), self.0.length) }
    }
}

impl std::ops::DerefMut for Place {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.0.memory.as_ptr(), self.0.length) }
    }
}

/// A buffer that was written whole.
pub struct Filled(Buffer);

// SAFETY: owned memory that nobody writes any more.
unsafe impl Sync for Filled {}

impl Filled {
    /// `None`: no memory.
    pub fn copy_of(bytes: &[u8]) -> Option<Filled> {
        let mut buffer = Buffer::new(bytes.len()).ok()?;
        for (to, from) in buffer.as_uninit().iter_mut().zip(bytes) {
            to.write(*from);
        }
        Some(Filled(buffer))
    }
}

impl std::ops::Deref for Filled {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: ours, that long, and written.
        unsafe { std::slice::from_raw_parts(self.0.memory.as_ptr(), self.0.length) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: from malloc, ours.
        unsafe { libc::free(self.memory.as_ptr().cast()) };
    }
}

/// Bytes that become more, for the caller in the end. Growing is realloc's: of what is large it moves pages, not bytes.
#[derive(Debug)]
pub struct Growing {
    /// Null as long as there is no capacity.
    memory: *mut u8,
    length: usize,
    capacity: usize,
}

// SAFETY: owned memory.
unsafe impl Send for Growing {}

impl Growing {
    pub const fn new() -> Growing {
        Growing { memory: std::ptr::null_mut(), length: 0, capacity: 0 }
    }

    /// No bytes, and the place of the NUL behind them.
    pub fn empty() -> Result<Growing> {
        let mut empty = Growing::new();
        empty.reserve(0)?;
        Ok(empty)
    }

    pub fn length(&self) -> usize {
        self.length
    }

    pub fn as_bytes(&self) -> &[u8] {
        match self.memory.is_null() {
            true => &[],
            // SAFETY: ours, and that many bytes were written.
            false => unsafe { std::slice::from_raw_parts(self.memory, self.length) },
        }
    }

    /// Makes room for `more` bytes, and for the NUL behind them. On failure everything is as it was.
    pub fn reserve(&mut self, more: usize) -> Result<()> {
        let needed = self.length.checked_add(more).and_then(|length| length.checked_add(1));
        let needed = needed.filter(|&needed| needed <= isize::MAX as usize).unwrap_or(usize::MAX);
        if needed <= self.capacity {
            return Ok(());
        }
        // Doubled, so that every byte is moved once on average; or less, where there is not that much.
        if self.resize(needed.max(self.capacity.saturating_mul(2))) || self.resize(needed) {
            return Ok(());
        }
        Err(Error::new(Kind::NoMemory, format!("no memory for {} bytes", self.length.saturating_add(more))))
    }

    fn resize(&mut self, capacity: usize) -> bool {
        if capacity > isize::MAX as usize {
            return false;
        }
        // SAFETY: null or from malloc, ours; on failure the old memory stays.
        let memory = unsafe { libc::realloc(self.memory.cast(), capacity.max(1)) };
        if memory.is_null() {
            return false;
        }
        self.memory = memory.cast();
        self.capacity = capacity.max(1);
        true
    }

    /// What is free, but for the NUL's place.
    pub(super) fn room(&mut self) -> &mut [MaybeUninit<u8>] {
        let free = self.capacity.saturating_sub(self.length + 1);
        if free == 0 {
            return &mut [];
        }
        // SAFETY: ours, that long, and never read as long as nobody says that it was written.
        unsafe { std::slice::from_raw_parts_mut(self.memory.add(self.length).cast(), free) }
    }

    /// # Safety
    /// The first `length` bytes of [`Growing::room`] were written.
    pub(super) unsafe fn grown_by(&mut self, length: usize) {
        self.length += length;
    }

    /// The bytes, with a NUL behind them that does not count, and their number; null if nothing was ever reserved. The caller frees
    /// them with `tine_free`.
    pub fn hand_out(mut self) -> (*mut c_void, usize) {
        if self.memory.is_null() {
            return (std::ptr::null_mut(), 0);
        }
        // SAFETY: there always is room for one byte more.
        unsafe { self.memory.add(self.length).write(0) };
        // What is not needed goes back; where that fails, it stays.
        self.resize(self.length + 1);
        let handed = (self.memory.cast(), self.length);
        std::mem::forget(self);
        handed
    }
}

impl Default for Growing {
    fn default() -> Growing {
        Growing::new()
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        // SAFETY: null or from malloc, ours.
        unsafe { libc::free(self.memory.cast()) };
    }
}

/// # Safety
/// NULL or from [`Buffer::hand_out`] or [`Growing::hand_out`], not freed yet.
pub unsafe fn free(memory: *mut c_void) {
    // SAFETY: forwarded.
    unsafe { libc::free(memory) };
}
