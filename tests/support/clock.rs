//! Limits of patience. No test asserts a longest duration; whoever has not come after these is counted as stuck.

use std::env;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// `TINE_TEST_TIMEOUT_SCALE`: for machines (valgrind, emulators) that need more patience.
pub fn scaled(seconds: f64) -> Duration {
    static SCALE: OnceLock<f64> = OnceLock::new();
    let scale = *SCALE.get_or_init(|| number("TINE_TEST_TIMEOUT_SCALE").unwrap_or(1.0).max(1.0));
    Duration::from_secs_f64(seconds * scale)
}

/// How long something that has to happen may take before it counts as a stall.
pub fn patience() -> Duration {
    scaled(5.0)
}

/// [`patience`] as a `timeout_ms`.
pub fn patience_ms() -> i64 {
    patience().as_millis() as i64
}

/// A number from the environment.
pub fn number(name: &str) -> Option<f64> {
    env::var(name).ok()?.parse().ok()
}

/// Looks again and again, first quickly, then five times a millisecond, until `done` or the time is over; answers whether it was done.
pub fn until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    for look in 0u32.. {
        if done() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        pause(if look < 50 { 20 } else { 200 });
    }
    false
}

/// Does nothing for a while: work and kills that are to be spread out. Never to wait for something.
pub fn pause(microseconds: u64) {
    std::thread::sleep(Duration::from_micros(microseconds));
}
