//! How long a call may take, as the caller says it; `sys::Deadline` is what waiting makes of it.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// A caller's `timeout_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// 0: try once.
    Try,
    Millis(u64),
    /// -1: wait without limit.
    Forever,
}

impl Timeout {
    pub fn from_millis(timeout_ms: i64) -> Result<Timeout> {
        Timeout::of_argument(timeout_ms, "timeout_ms")
    }

    /// For an argument or a field of another name.
    pub fn of_argument(millis: i64, name: &str) -> Result<Timeout> {
        match millis {
            -1 => Ok(Timeout::Forever),
            0 => Ok(Timeout::Try),
            1.. => Ok(Timeout::Millis(millis.unsigned_abs())),
            _ => Err(Error::invalid(format!("{name}: {millis} is neither TINE_FOREVER (-1), 0 nor positive"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn only_minus_one_zero_and_positive_are_timeouts() {
        assert_eq!(Timeout::from_millis(-1).unwrap(), Timeout::Forever);
        assert_eq!(Timeout::from_millis(0).unwrap(), Timeout::Try);
        assert_eq!(Timeout::from_millis(7).unwrap(), Timeout::Millis(7));
        assert_eq!(Timeout::from_millis(-2).unwrap_err().kind(), Kind::Invalid);
    }
}
