//! The words that shared memory is made of.

use std::sync::atomic::{AtomicU32, AtomicU64};

/// 32 bits that may be waited for. Only [`super::Words`] reads and writes it: what the product does to mapped memory, the
/// instruments do under a scheduler that also kills.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Word(AtomicU32);

/// 64 bits.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Word64(AtomicU64);

impl Word {
    pub const fn new(value: u32) -> Word {
        Word(AtomicU32::new(value))
    }

    #[inline]
    pub fn atomic(&self) -> &AtomicU32 {
        &self.0
    }
}

impl Word64 {
    pub const fn new(value: u64) -> Word64 {
        Word64(AtomicU64::new(value))
    }

    #[inline]
    pub fn atomic(&self) -> &AtomicU64 {
        &self.0
    }
}

/// What may lie in shared memory.
///
/// # Safety
/// `repr(C)`, made of [`Word`], [`Word64`], [`super::RobustCell`] and other `Shared` types only, no padding that matters, every bit
/// pattern valid, all zeros its initial state.
pub unsafe trait Shared: Sync {}

// SAFETY: an atomic integer.
unsafe impl Shared for Word {}
// SAFETY: an atomic integer.
unsafe impl Shared for Word64 {}
// SAFETY: nothing but `T`s.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {}
