//! The roll: what the nursery says about itself, and about the processes that it forks. It alone writes it, and everybody reads it.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::error::Result;
use crate::process::{ExitInfo, Reason};
use crate::shm::pool::{LIVES, RollHead, RollLine};
use crate::shm::{Array, View, Window, Word, Words};
use crate::sys::memory::Access;
use crate::sys::thread::Thread;
use crate::sys::wait::{Ending, Usage};

/// What the nursery is doing; 0: it begins.
pub mod stage {
    pub const RUNNING: u32 = 1;
    /// It could not begin, or makes no more workers: see `step` and `errno`.
    pub const FAILED: u32 = 2;
    /// All its workers are gone, and so is it.
    pub const ENDED: u32 = 3;
}

/// What failed.
pub mod step {
    pub const NONE: u32 = 0;
    pub const FORK: u32 = 1;
    /// A handler of pthread_atfork started threads in it.
    pub const THREADS: u32 = 2;
    /// The host acts as somebody else by now.
    pub const CREDENTIALS: u32 = 3;
}

/// What a step that failed means.
pub fn explain(step: u32) -> &'static str {
    match step {
        step::FORK => "fork of a worker",
        step::THREADS => "the copy of this process has more than one thread: a handler of pthread_atfork() starts some",
        step::CREDENTIALS => "this process has changed its user or group: workers would act as the old one",
        _ => "the nursery ended before it began",
    }
}

/// How a process of the pool ended, and why.
mod fate {
    pub const EXITED: u32 = 1;
    pub const SIGNALED: u32 = 2;
    pub const DUMPED: u32 = 3;
    /// By the nursery, because it was stopped.
    pub const STOPPED: u32 = 4;
    /// By the nursery, because the host said so.
    pub const TERMINATED: u32 = 5;
    /// By the nursery, because of its task.
    pub const TIMEOUT: u32 = 6;
    pub const CANCELED: u32 = 7;
    pub const MEMORY: u32 = 8;
}

/// Writes down how a process ended, before its line says that it has. `ordered`: why the nursery ended it.
pub fn write_exit(w: Thread, line: &RollLine, ending: Ending, ordered: Option<Reason>, usage: Usage) {
    let (status, fate) = match ending {
        Ending::Exited(code) => (code, fate::EXITED),
        Ending::Signaled { signal, core: false } => (signal, fate::SIGNALED),
        Ending::Signaled { signal, core: true } => (signal, fate::DUMPED),
    };
    let fate = match ordered {
        Some(Reason::Stopped) => fate::STOPPED,
        Some(Reason::Terminated) => fate::TERMINATED,
        Some(Reason::Timeout) => fate::TIMEOUT,
        Some(Reason::Canceled) => fate::CANCELED,
        Some(Reason::Memory) => fate::MEMORY,
        Some(Reason::Exit | Reason::Signal) | None => fate,
    };
    w.store(&line.status, status as u32, Relaxed);
    w.store(&line.fate, fate, Relaxed);
    w.store64(&line.user_us, usage.user_us, Relaxed);
    w.store64(&line.system_us, usage.system_us, Relaxed);
    w.store64(&line.peak_rss_bytes, usage.peak_rss_bytes, Relaxed);
}

/// How the process ended whose line says that it has.
pub fn read_exit(w: Thread, line: &RollLine) -> ExitInfo {
    let (status, fate) = (w.load(&line.status, Relaxed) as i32, w.load(&line.fate, Relaxed));
    let ending = match fate {
        fate::EXITED => Ending::Exited(status),
        _ => Ending::Signaled { signal: status, core: fate == fate::DUMPED },
    };
    let reason = match fate {
        fate::EXITED => Reason::Exit,
        fate::STOPPED => Reason::Stopped,
        fate::TERMINATED => Reason::Terminated,
        fate::TIMEOUT => Reason::Timeout,
        fate::CANCELED => Reason::Canceled,
        fate::MEMORY => Reason::Memory,
        _ => Reason::Signal,
    };
    let usage = Usage {
        user_us: w.load64(&line.user_us, Relaxed),
        system_us: w.load64(&line.system_us, Relaxed),
        peak_rss_bytes: w.load64(&line.peak_rss_bytes, Relaxed),
    };
    ExitInfo { ending: Some(ending), reason: Some(reason), usage: Some(usage) }
}

/// The roll as one process sees it: the nursery for writing, the others for reading.
#[derive(Debug)]
pub struct Roll {
    pub window: Arc<Window>,
    pub head: View<RollHead>,
    /// Of each place: births and deaths until now.
    pub latest: Array<Word>,
    /// The last [`LIVES`] lives in each place.
    lines: Array<RollLine>,
}

impl Roll {
    /// Bytes of what belongs to one place.
    pub(super) const PLACE: usize = LIVES * size_of::<RollLine>();

    pub(super) fn lines_at(places: usize) -> usize {
        (size_of::<RollHead>() + places * size_of::<Word>()).next_multiple_of(size_of::<RollLine>())
    }

    pub fn map(fd: &OwnedFd, places: usize, access: Access) -> Result<Roll> {
        let window = Window::new(fd.as_fd(), Roll::lines_at(places) + places * Roll::PLACE, access)?;
        let (head, latest) = (window.object(0)?, window.array(size_of::<RollHead>(), places)?);
        Ok(Roll { head, latest, lines: window.array(Roll::lines_at(places), places * LIVES)?, window })
    }

    /// The line of a life in a place.
    pub fn line(&self, place: usize, life: u32) -> Option<&RollLine> {
        self.lines.get(place * LIVES + life as usize / 2 % LIVES)
    }
}
