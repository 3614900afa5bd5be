//! Test builds only (feature `panic_injection`): lets a test make every export panic inside its guard.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

static ARMED: AtomicBool = AtomicBool::new(false);

pub(super) fn strike() {
    assert!(!ARMED.load(SeqCst), "injected");
}

/// cbindgen:ignore
#[unsafe(no_mangle)]
pub extern "C" fn tine_test_inject_panics(armed: bool) {
    ARMED.store(armed, SeqCst);
}
