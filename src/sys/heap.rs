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

    pub fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: ours, that long, and never read through this type.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr().cast(), self.length) }
    }

    /// # Safety
    /// Every byte has been written.
    pub unsafe fn assume_filled(self) -> Filled {
        Filled(self)
    }

    /// The first `filled` bytes, which somebody has written.
    pub fn to_vec(&self, filled: usize) -> Vec<u8> {
        assert!(filled <= self.length);
        // SAFETY: that many bytes are there; malloc's memory has some value or other where nobody has written.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), filled) }.to_vec()
    }

    /// The first `length` bytes, which somebody has written by the address; `None` where there are not that many.
    pub fn written(&self, length: usize) -> Option<&[u8]> {
        // SAFETY: that many bytes are there; malloc's memory has some value or other where nobody has written.
        (length <= self.length).then(|| unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), length) })
    }

    /// The caller frees it with `tine_free`.
    pub fn hand_out(self) -> *mut c_void {
        let memory = self.memory.as_ptr().cast();
        std::mem::forget(self);
        memory
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

/// # Safety
/// NULL or from [`Buffer::hand_out`], not freed yet.
pub unsafe fn free(memory: *mut c_void) {
    // SAFETY: forwarded.
    unsafe { libc::free(memory) };
}
