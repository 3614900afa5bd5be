//! The allocator of this program, which ends a process that must not allocate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What a process leaves with that allocated all the same.
pub const ALLOCATED: i32 = 99;

static REFUSED: AtomicBool = AtomicBool::new(false);

/// From now on.
pub extern "C" fn refuse() {
    REFUSED.store(true, Relaxed);
}

pub fn allow() {
    REFUSED.store(false, Relaxed);
}

struct Strict;

#[global_allocator]
static ALLOCATOR: Strict = Strict;

fn check() {
    if REFUSED.load(Relaxed) {
        // SAFETY: never returns.
        unsafe { libc::_exit(ALLOCATED) };
    }
}

// SAFETY: the system's allocator.
unsafe impl GlobalAlloc for Strict {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check();
        // SAFETY: forwarded.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        check();
        // SAFETY: forwarded.
        unsafe { System.dealloc(memory, layout) }
    }
}
