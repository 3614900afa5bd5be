//! Giving a command its input and taking its output, in both directions at once, until it ends.
//!
//! One thread and one poll(2): whoever writes all of the input before it reads is stuck with a command that does the same. The ends of
//! the pipes that are ours do not block; the command's own stay as it expects them.
//!
//! # The end
//! It is the command's end, not its output's: a process that it left behind may hold its output open for years. Everything that the
//! command itself wrote lies in the pipe when it has ended; so that much is read, and then, for a moment, what descendants still add.
#![forbid(unsafe_code)]

use std::os::fd::AsRawFd;

use super::children::{self, Child};
use super::handle::Process;
use super::streams::Ends;
use crate::error::{Error, Kind, Note, Result};
use crate::sys::heap::Growing;
use crate::sys::pipe::{self, Moved};
use crate::sys::withheld::Withheld;
use crate::sys::{self, Deadline, poll};
use crate::timeout::Timeout;

/// How long the end of the output is waited for when the command has ended.
const DRAIN_MS: u64 = 50;
/// What is read at a time: as much as a pipe holds.
const CHUNK: usize = 64 << 10;
/// How often a command is looked at whose descriptor tells too much; doubled up to the second.
const NAP_MS: u64 = 1;
const NAP_MOST_MS: u64 = 20;

/// A conversation with a command. What did not come to its end goes on with the next call.
#[derive(Debug)]
pub struct Conversation {
    stdin: Option<Withheld>,
    /// The input that the first call was given and did not get rid of, and how much of it was since; `None` before that call.
    input: Option<(Vec<u8>, usize)>,
    stdout: Output,
    stderr: Output,
}

/// What a command writes.
#[derive(Debug)]
struct Output {
    /// `None`: it has come to its end.
    fd: Option<Withheld>,
    kept: Growing,
    /// More is dropped.
    most: usize,
}

/// Bits of what [`poll::readable_or_writable`] answers.
const STDOUT: u64 = 1;
const STDERR: u64 = 2;
const EXIT: u64 = 4;
const STDIN: u64 = 8;

/// Which of the streams are kept; the others are drained and dropped.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    pub stdout: bool,
    pub stderr: bool,
}

/// What a command had to say, with a NUL's place behind each.
#[derive(Debug)]
pub struct Said {
    pub stdout: Growing,
    pub stderr: Growing,
    /// [`Note::PipeHeld`], or none.
    pub note: Note,
}

impl Process {
    /// Gives the process its input and takes its output until it has ended. A call that fails is gone on with by the next one.
    pub fn communicate(&self, input: &[u8], keep: Keep, timeout: Timeout) -> Result<Said> {
        self.communicate_until(input, keep, &Deadline::from_now(timeout))
    }

    pub(super) fn communicate_until(&self, input: &[u8], keep: Keep, deadline: &Deadline) -> Result<Said> {
        let child = self.child()?.clone();
        children::reap_freed();
        let streams = self.streams()?;
        let of_process = |error: Error| error.context(child.label());
        let mut conversation = streams.converse(!input.is_empty()).map_err(of_process)?;
        let result = conversation.run(&child, input, keep, deadline).and_then(|note| {
            let (stdout, stderr) = conversation.take()?;
            Ok(Said { stdout, stderr, note })
        });
        streams.pause(result.is_err().then_some(conversation));
        result.map_err(of_process)
    }
}

impl Conversation {
    /// `most` bytes of each stream are kept; 0 = all.
    pub(super) fn new(ends: Ends, most: usize) -> Result<Conversation> {
        for end in ends.iter().flatten() {
            pipe::set_nonblocking(end)?;
        }
        let [stdin, stdout, stderr] = ends;
        let output = |fd| Output { fd, kept: Growing::new(), most: if most == 0 { usize::MAX } else { most } };
        Ok(Conversation { stdin, input: None, stdout: output(stdout), stderr: output(stderr) })
    }

    /// Goes on until the command has ended. `input` is the first call's; later calls go on with what that one left.
    fn run(&mut self, child: &Child, input: &[u8], keep: Keep, deadline: &Deadline) -> Result<Note> {
        let left = self.input.take();
        let mut rest = match &left {
            Some((bytes, sent)) => &bytes[*sent..],
            None => input,
        };
        let result = self.exchange(child, &mut rest, keep, deadline);
        if result.is_err() {
            let rest = rest.len();
            self.input = Some(match left {
                Some((bytes, _)) => {
                    let sent = bytes.len() - rest;
                    (bytes, sent)
                }
                // The caller's buffer is the caller's again.
                None => (self.keep_input(&input[input.len() - rest..])?, 0),
            });
        }
        result
    }

    /// What was kept so far.
    fn take(&mut self) -> Result<(Growing, Growing)> {
        // Also of nothing: whoever gets it may print it.
        self.stdout.kept.reserve(0)?;
        self.stderr.kept.reserve(0)?;
        Ok((std::mem::take(&mut self.stdout.kept), std::mem::take(&mut self.stderr.kept)))
    }

    fn exchange(&mut self, child: &Child, input: &mut &[u8], keep: Keep, deadline: &Deadline) -> Result<Note> {
        // Set while the descriptor of the command's end is readable although it has not ended.
        let mut nap: Option<u64> = None;
        loop {
            if input.is_empty() {
                self.stdin = None;
            }
            let exit = if nap.is_none() { child.fd() } else { -1 };
            let limit = match nap {
                Some(nap) => deadline.at_most(nap),
                None if child.may_tell_late() => deadline.at_most(NAP_MOST_MS),
                None => deadline.clone(),
            };
            let ready =
                poll::readable_or_writable(&[self.stdout.number(), self.stderr.number(), exit], number(&self.stdin), &limit)?;

            let rung = ready & EXIT != 0;
            if (rung || nap.is_some() || child.may_tell_late()) && child.try_reap().is_some() {
                // Nobody is there to read it.
                self.stdin = None;
                return self.drain(keep, deadline);
            }
            if rung || nap.is_some() {
                nap = Some(nap.map_or(NAP_MS, |nap| (nap * 2).min(NAP_MOST_MS)));
            }
            self.read(ready, keep)?;
            if ready & STDIN != 0 {
                self.write(input)?;
            }
            if deadline.passed() {
                return Err(Error::new(Kind::TimedOut, "it has not ended in time"));
            }
        }
    }

    /// The command has ended: everything that it wrote is there.
    fn drain(&mut self, keep: Keep, deadline: &Deadline) -> Result<Note> {
        let end = deadline.at_most(DRAIN_MS);
        loop {
            // The first time this reads what the command left; the last time it makes sure that no end of file lies behind it, however
            // late this thread comes.
            let last = end.passed();
            self.stdout.read_out("stdout", keep.stdout)?;
            self.stderr.read_out("stderr", keep.stderr)?;
            let fds = [self.stdout.number(), self.stderr.number(), -1];
            if fds == [-1; 3] {
                return Ok(Note::None);
            }
            if last {
                return Ok(Note::PipeHeld);
            }
            poll::readable_or_writable(&fds, -1, &end)?;
        }
    }

    fn read(&mut self, ready: u64, keep: Keep) -> Result<()> {
        if ready & STDOUT != 0 {
            self.stdout.read("stdout", keep.stdout)?;
        }
        if ready & STDERR != 0 {
            self.stderr.read("stderr", keep.stderr)?;
        }
        Ok(())
    }

    fn keep_input(&mut self, rest: &[u8]) -> Result<Vec<u8>> {
        let mut kept = Vec::new();
        if kept.try_reserve_exact(rest.len()).is_err() {
            // What is lost is lost; the next call must not begin anew.
            self.stdin = None;
            self.input = Some((Vec::new(), 0));
            let why = format!("no memory for {} bytes of input that are left", rest.len());
            return Err(Error::new(Kind::NoMemory, why));
        }
        kept.extend_from_slice(rest);
        Ok(kept)
    }

    fn write(&mut self, input: &mut &[u8]) -> Result<()> {
        let Some(stdin) = &self.stdin else { return Ok(()) };
        match pipe::write(stdin, input) {
            Ok(Moved::Bytes(length)) => *input = &input[length..],
            Ok(Moved::Nothing) => {}
            // It wants no more: no failure of ours, and often none of its own.
            Ok(Moved::End) => *input = &[],
            Err(errno) => {
                self.stdin = None;
                return Err(sys::failure(errno, "writing to its stdin"));
            }
        }
        Ok(())
    }
}

impl Output {
    fn number(&self) -> i32 {
        number(&self.fd)
    }

    /// Reads once.
    fn read(&mut self, name: &str, keep: bool) -> Result<Moved> {
        let Some(fd) = &self.fd else { return Ok(Moved::End) };
        let room = if keep { self.most - self.kept.length() } else { 0 };
        let moved = match room {
            0 => pipe::discard(fd),
            _ => {
                self.kept.reserve(room.min(CHUNK))?;
                pipe::read_to(fd, &mut self.kept, room)
            }
        };
        if !matches!(moved, Ok(Moved::Bytes(_) | Moved::Nothing)) {
            self.fd = None;
        }
        moved.map_err(|errno| sys::failure(errno, format_args!("reading its {name}")))
    }

    /// Reads what lies there at this moment, and looks behind it.
    fn read_out(&mut self, name: &str, keep: bool) -> Result<()> {
        let mut left = self.fd.as_ref().map_or(0, pipe::length);
        while let Moved::Bytes(length) = self.read(name, keep)? {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(length);
        }
        Ok(())
    }
}

fn number(fd: &Option<Withheld>) -> i32 {
    fd.as_ref().map_or(-1, AsRawFd::as_raw_fd)
}
