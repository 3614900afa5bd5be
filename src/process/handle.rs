//! The handle of a child.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::children::{self, Child, End};
use super::exit_info::{ExitInfo, Reason};
use super::streams::{Stream, Streams};
use crate::error::{Error, Kind, Result};
use crate::sys::wait::{Ending, Usage};
use crate::sys::{Deadline, signal, thread};
use crate::timeout::Timeout;

/// In a forked child of the process that has it every call answers EFORKED, and dropping it touches nothing but memory.
#[derive(Debug)]
pub struct Process {
    epoch: u64,
    child: Arc<Child>,
    streams: Streams,
}

impl Process {
    pub(super) fn new(child: Arc<Child>, streams: Streams) -> Process {
        Process { epoch: thread::epoch(), child, streams }
    }

    /// The child, in the process that started it. Asked before any lock.
    pub(super) fn child(&self) -> Result<&Arc<Child>> {
        if self.epoch == thread::epoch() {
            return Ok(&self.child);
        }
        Err(Error::new(
            Kind::Forked,
            format!("process \"{}\": the handle belongs to the parent process", self.name().to_string_lossy()),
        ))
    }

    /// The same for the pipes to a command's streams.
    pub(super) fn streams(&self) -> Result<&Streams> {
        self.child().map(|_| &self.streams)
    }

    pub(super) fn label(&self) -> String {
        self.child.label()
    }

    pub fn join(&self, timeout: Timeout) -> Result<()> {
        // Not the handle: it may be freed by whoever is told first that the child ended.
        let child = self.child()?.clone();
        children::reap_freed();
        match child.wait(&Deadline::new(timeout))? {
            Some(_) => Ok(()),
            None => Err(Error::new(Kind::TimedOut, format!("{}: it has not ended in time", child.label()))),
        }
    }

    pub fn is_alive(&self) -> Result<bool> {
        let child = self.child()?;
        children::reap_freed();
        Ok(child.try_reap().is_none())
    }

    fn end(&self) -> Result<End> {
        let child = self.child()?;
        children::reap_freed();
        child.try_reap().ok_or_else(|| Error::new(Kind::Busy, format!("{}: it has not ended", self.label())))
    }

    /// The code, or minus the signal.
    pub fn exit_code(&self) -> Result<i32> {
        match self.end()?.ending {
            Some(Ending::Exited(code)) => Ok(code),
            Some(Ending::Signaled { signal, .. }) => Ok(-signal),
            None => {
                let why = match self.child.tree.get() {
                    Some(_) => "the supervisor of its tree was killed, or could not kill it",
                    None => "this process ignores SIGCHLD or waits for children that it did not start",
                };
                Err(Error::new(Kind::StatusLost, format!("{}: the exit status is lost: {why}", self.label())))
            }
        }
    }

    pub fn exit_info(&self) -> Result<ExitInfo> {
        let End { ending, usage } = self.end()?;
        let reason = ending.map(|ending| match ending {
            Ending::Exited(_) => Reason::Exit,
            Ending::Signaled { signal, .. } => {
                let ours = signal == signal::TERM || signal == signal::KILL;
                if ours && self.child.stopping.load(Relaxed) { Reason::Terminated } else { Reason::Signal }
            }
        });
        let usage = usage.map(|usage| Usage { peak_rss_bytes: self.child.own_peak(usage.peak_rss_bytes), ..usage });
        Ok(ExitInfo { ending, reason, usage })
    }

    pub fn pid(&self) -> i32 {
        self.child.number()
    }

    pub fn name(&self) -> &CStr {
        &self.child.name
    }

    pub fn is_daemon(&self) -> bool {
        self.child.is_daemon()
    }

    /// Readable once the child has ended; stays the handle's.
    pub fn fd(&self) -> Result<i32> {
        Ok(self.child()?.fd())
    }

    /// Whether it has ended by then.
    pub(super) fn wait(&self, deadline: &Deadline) -> Result<bool> {
        Ok(self.child()?.wait(deadline)?.is_some())
    }

    /// This process's end of a pipe to a command; -1 where there is none (any more).
    pub fn stream_fd(&self, stream: Stream) -> Result<i32> {
        Ok(self.streams()?.fd(stream))
    }

    /// The same, the caller's from now on.
    pub fn take_stream(&self, stream: Stream) -> Result<OwnedFd> {
        self.streams()?.take(stream).ok_or_else(|| self.no_pipe(stream))
    }

    #[cold]
    fn no_pipe(&self, stream: Stream) -> Error {
        Error::new(Kind::Closed, format!("{}: there is no pipe to its {stream}, or it was taken or closed", self.label()))
    }

    /// The command sees the end of its input.
    pub fn close_stdin(&self) -> Result<()> {
        match self.streams()?.close(Stream::Stdin) {
            true => Ok(()),
            false => Err(self.no_pipe(Stream::Stdin)),
        }
    }

    pub fn terminate(&self) -> Result<()> {
        self.signal(signal::TERM)
    }

    pub fn kill(&self) -> Result<()> {
        self.signal(signal::KILL)
    }

    pub fn signal(&self, signal: i32) -> Result<()> {
        let child = self.child()?;
        if !signal::is_valid(signal) {
            return Err(Error::invalid(format!("signal: {signal} is none")));
        }
        child.send(signal).map(|_| ())
    }

    /// TERM, a grace, KILL; afterwards it has ended.
    pub fn stop(&self, grace: Timeout) -> Result<()> {
        let child = self.child()?.clone();
        children::reap_freed();
        if child.stop(&Deadline::new(grace))? {
            return Ok(());
        }
        Err(Error::new(Kind::TimedOut, format!("{}: it was killed and cannot die (uninterruptible sleep)", self.label())))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.epoch != thread::epoch() {
            return;
        }
        children::free(&self.child);
    }
}

/// Waits until one of the processes has ended; answers the index of the first that has.
pub fn wait_any(processes: &[&Process], timeout: Timeout) -> Result<usize> {
    if processes.is_empty() {
        return Err(Error::invalid("processes is NULL or empty: nothing to wait for"));
    }
    let shared = processes.iter().map(|process| process.child().cloned()).collect::<Result<Vec<_>>>()?;
    let waited: Vec<&Child> = shared.iter().map(|child| &**child).collect();
    children::reap_freed();
    let deadline = Deadline::new(timeout);
    loop {
        if let Some(index) = waited.iter().position(|child| child.try_reap().is_some()) {
            return Ok(index);
        }
        if deadline.passed() {
            return Err(Error::new(Kind::TimedOut, "processes: none of them has ended in time"));
        }
        children::sleep_on(&waited, &deadline)?;
    }
}
