//! Diagnostics: a callback of the host, silent by default. It is called on any thread of the process that set it and never in a
//! forked child; no call of the library may be made inside.
#![forbid(unsafe_code)]

use crate::sys::per_process::PerProcess;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum Level {
    Error = 1,
    Warn = 2,
    Info = 3,
    Debug = 4,
}

type Sink = std::sync::Arc<dyn Fn(Level, &str) + Send + Sync>;

// A forked child starts without a sink: PerProcess forgets what the parent set.
static SINK: PerProcess<Option<Sink>> = PerProcess::new();

pub fn set(sink: Option<Sink>) {
    SINK.with(|current| *current = sink);
}

/// Whether anybody listens: for what costs something to find out.
pub fn is_on() -> bool {
    SINK.with(|current| current.is_some())
}

/// Tells the host, if it wants to know; `message` is made only then.
pub fn write(level: Level, message: impl FnOnce() -> String) {
    // Cloned out, so that the sink runs under no lock of ours.
    if let Some(sink) = SINK.with(|current| current.clone()) {
        sink(level, &message());
    }
}
