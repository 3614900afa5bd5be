//! Telling ThreadSanitizer what the library's words order.
//!
//! A program that is built with it sees its own memory accesses and not the library's atomics, so it would take everything that
//! two threads hand to each other through a lock or a queue for a race. It offers two functions for such cases; whether this process has
//! them is asked once. Elsewhere each call is one load and a branch that is always taken.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering, Ordering::Relaxed};

const UNKNOWN: u8 = 0;
const ABSENT: u8 = 1;
const PRESENT: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);
static ACQUIRE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static RELEASE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Directly before a write of `word` with this ordering.
#[inline]
pub fn before<T>(word: &T, order: Ordering) {
    if matches!(order, Ordering::Release | Ordering::AcqRel | Ordering::SeqCst) && STATE.load(Relaxed) != ABSENT {
        tell(&RELEASE, word);
    }
}

/// Directly after a read of `word` with this ordering.
#[inline]
pub fn after<T>(word: &T, order: Ordering) {
    if matches!(order, Ordering::Acquire | Ordering::AcqRel | Ordering::SeqCst) && STATE.load(Relaxed) != ABSENT {
        tell(&ACQUIRE, word);
    }
}

#[cold]
fn tell<T>(function: &AtomicPtr<c_void>, word: &T) {
    // SYNC POINT: tsan (acquire; the release is in `look_up`).
    if STATE.load(Ordering::Acquire) == UNKNOWN {
        look_up();
    }
    let function = function.load(Relaxed);
    if !function.is_null() {
        // SAFETY: the address of `void __tsan_acquire(void *)` or of `void __tsan_release(void *)`; they take any address of the program.
        unsafe {
            let function = std::mem::transmute::<*mut c_void, extern "C" fn(*mut c_void)>(function);
            function(std::ptr::from_ref(word).cast_mut().cast());
        }
    }
}

/// Asks the loader. In time: a process that was forked while another thread had the loader's lock can not.
pub fn look_up() {
    if STATE.load(Relaxed) != UNKNOWN {
        return;
    }
    // SAFETY: a NUL-terminated name.
    let find = |name: &CStr| unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    let (acquire, release) = (find(c"__tsan_acquire"), find(c"__tsan_release"));
    let present = !acquire.is_null() && !release.is_null();
    if present {
        ACQUIRE.store(acquire, Relaxed);
        RELEASE.store(release, Relaxed);
    }
    // SYNC POINT: tsan (release).
    STATE.store(if present { PRESENT } else { ABSENT }, Ordering::Release);
}
