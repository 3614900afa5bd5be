//! The monotonic clock, and the point on it at which a call has to end.

use std::cell::Cell;

use crate::timeout::Timeout;

/// Nanoseconds of CLOCK_MONOTONIC: the clock of every wait in this library.
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a writable timespec; the clock exists on every Linux, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The end of a call on the monotonic clock. The clock is read only when the call first has to wait: calls that need not wait do
/// not pay for it.
#[derive(Clone, Debug)]
pub struct Deadline {
    timeout: Timeout,
    /// Nanoseconds of the monotonic clock; 0 = not asked yet.
    at: Cell<u64>,
}

impl Deadline {
    /// The end of a call that begins now.
    pub fn new(timeout: Timeout) -> Deadline {
        Deadline { timeout, at: Cell::new(0) }
    }

    /// The same, for a call that does something first that counts: the clock is read now.
    pub fn from_now(timeout: Timeout) -> Deadline {
        let deadline = Deadline::new(timeout);
        deadline.at();
        deadline
    }

    pub fn timeout(&self) -> Timeout {
        self.timeout
    }

    pub fn is_try(&self) -> bool {
        self.timeout == Timeout::Try
    }

    /// The absolute end in nanoseconds of the monotonic clock, `None` for ever (also where the sum overflows).
    pub fn at(&self) -> Option<u64> {
        let millis = match self.timeout {
            Timeout::Forever => return None,
            Timeout::Try => 0,
            Timeout::Millis(millis) => millis,
        };
        if self.at.get() == 0 {
            let end = millis.checked_mul(1_000_000).and_then(|nanos| nanos.checked_add(now()));
            self.at.set(end.unwrap_or(u64::MAX));
        }
        Some(self.at.get()).filter(|&at| at < i64::MAX as u64)
    }

    /// What is left, in nanoseconds; `None` for ever, 0 once it has passed.
    pub fn left(&self) -> Option<u64> {
        self.at().map(|at| at.saturating_sub(now()))
    }

    pub fn passed(&self) -> bool {
        self.is_try() || self.left() == Some(0)
    }

    /// This deadline, or `millis` from now if that comes first.
    pub fn at_most(&self, millis: u64) -> Deadline {
        let slice = Deadline::new(Timeout::Millis(millis));
        // Numbers, not Options: of two Options the payloads are compared first, also where there are none, which memcheck reports.
        let (end, limit) = (self.at().unwrap_or(u64::MAX), slice.at().unwrap_or(u64::MAX));
        if end <= limit { self.clone() } else { slice }
    }

    /// For poll(2): milliseconds rounded up, -1 for ever.
    pub fn poll_millis(&self) -> i32 {
        match self.left() {
            None => -1,
            Some(left) => i32::try_from(left.div_ceil(1_000_000)).unwrap_or(i32::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_timeouts_mean_forever() {
        assert_eq!(Deadline::new(Timeout::Millis(i64::MAX as u64)).at(), None);
        assert!(!Deadline::new(Timeout::Forever).passed());
        assert!(Deadline::new(Timeout::Try).passed());
    }
}
