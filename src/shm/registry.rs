//! Which segments this process has mapped, so that a file is mapped once however often it is attached: a lock's owner is known by the
//! address of the lock.
//!
//! A forked child goes on with its parent's list, because it has its parent's mappings. So the list makes sense whenever a fork may cut
//! off a change: an entry is written before it is led to, entries are reused and never freed, and what is behind one changes in a
//! single store.

use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::*};
use std::sync::{Arc, Weak};

use super::Segment;
use crate::sys::per_process::AcrossForks;

#[derive(Debug)]
pub(super) struct Entry {
    next: *const Entry,
    device: AtomicU64,
    inode: AtomicU64,
    /// From `Weak::into_raw`; null = the entry is free.
    segment: AtomicPtr<Segment>,
}

struct Registry {
    first: AtomicPtr<Entry>,
}

static REGISTRY: AcrossForks<Registry> = AcrossForks::new(Registry { first: AtomicPtr::new(ptr::null_mut()) });

impl Registry {
    fn entries(&self) -> impl Iterator<Item = &Entry> {
        let mut next: *const Entry = self.first.load(Acquire);
        std::iter::from_fn(move || {
            // SAFETY: entries are never freed.
            let entry = unsafe { next.as_ref() }?;
            next = entry.next;
            Some(entry)
        })
    }

    fn find(&self, identity: (u64, u64)) -> Option<Arc<Segment>> {
        let alike = |entry: &&Entry| (entry.device.load(Relaxed), entry.inode.load(Relaxed)) == identity;
        self.entries().filter(alike).find_map(|entry| {
            let segment = entry.segment.load(Acquire);
            // SAFETY: it came from `Weak::into_raw` and is dropped only under the lock, which we hold.
            (!segment.is_null()).then(|| ManuallyDrop::new(unsafe { Weak::from_raw(segment) }).upgrade())?
        })
    }

    fn free_entry(&self) -> &Entry {
        if let Some(entry) = self.entries().find(|entry| entry.segment.load(Relaxed).is_null()) {
            return entry;
        }
        let entry = Box::leak(Box::new(Entry {
            next: self.first.load(Relaxed),
            device: AtomicU64::new(0),
            inode: AtomicU64::new(0),
            segment: AtomicPtr::new(ptr::null_mut()),
        }));
        self.first.store(entry, Release);
        entry
    }
}

/// The mapping that this process has of a file.
pub(super) fn find(identity: (u64, u64)) -> Option<Arc<Segment>> {
    REGISTRY.with(|registry| registry.find(identity))
}

/// Enters a new segment. If another thread was faster with the same file, answers what that one has entered.
pub(super) fn enter(segment: Arc<Segment>, identity: (u64, u64)) -> Arc<Segment> {
    REGISTRY.with(|registry| {
        if let Some(other) = registry.find(identity) {
            return other;
        }
        let entry = registry.free_entry();
        entry.device.store(identity.0, Relaxed);
        entry.inode.store(identity.1, Relaxed);
        segment.entry.store(ptr::from_ref(entry).cast_mut(), Release);
        entry.segment.store(Weak::into_raw(Arc::downgrade(&segment)).cast_mut(), Release);
        segment.clone()
    })
}

/// The segment of this entry is about to be unmapped.
pub(super) fn leave(entry: *const Entry) {
    // SAFETY: entries are never freed.
    let Some(entry) = (unsafe { entry.as_ref() }) else { return };
    let segment = REGISTRY.with(|_| entry.segment.swap(ptr::null_mut(), AcqRel));
    if !segment.is_null() {
        // SAFETY: it came from `Weak::into_raw`, and nobody else finds it any more.
        drop(unsafe { Weak::from_raw(segment) });
    }
}
