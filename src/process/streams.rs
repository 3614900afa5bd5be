//! This process's ends of the pipes to a command.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::communicate::Conversation;
use crate::error::{Error, Kind, Result};
use crate::sys::fd::{Known, PrivateFd};
use crate::sys::per_process::PerProcess;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdin,
    Stdout,
    Stderr,
}

impl fmt::Display for Stream {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str(match self {
            Stream::Stdin => "stdin",
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        })
    }
}

/// One slot for each of the three; empty where there is no pipe, and once its end was taken or closed.
pub(super) type Ends = [Option<End>; 3];

/// This process's end of one pipe.
#[derive(Debug)]
pub(super) struct End {
    /// Before the descriptor: what is listed is open.
    listed: Listed,
    fd: PrivateFd,
}

impl End {
    fn new(fd: OwnedFd) -> End {
        End { listed: Listed::new(fd.as_raw_fd()), fd: PrivateFd::new(fd) }
    }

    fn into_owned(self) -> OwnedFd {
        drop(self.listed);
        self.fd.into_owned()
    }
}

impl AsRawFd for End {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// All ends that this process has, by their numbers.
static ENDS: PerProcess<BTreeMap<RawFd, Known>> = PerProcess::new();

/// What a function child that is made now closes: a copy would keep a command from the end of its input, or from noticing that nobody
/// reads.
pub(super) fn not_for_children() -> Vec<Known> {
    ENDS.with(|ends| ends.values().copied().collect())
}

#[derive(Debug)]
struct Listed(Option<Known>);

impl Listed {
    fn new(fd: RawFd) -> Listed {
        let known = Known::by_number(fd);
        if let Some(known) = known {
            ENDS.with(|ends| ends.insert(fd, known));
        }
        Listed(known)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        // In a forked child the number may be another pipe's, made there.
        if let Some(known) = self.0 {
            ENDS.with(|ends| if ends.get(&known.number()) == Some(&known) { ends.remove(&known.number()) } else { None });
        }
    }
}

#[derive(Debug)]
pub(super) struct Streams {
    state: Mutex<State>,
    /// How much of each is kept by a conversation; 0 = all.
    most: usize,
}

#[derive(Debug)]
struct State {
    ends: Ends,
    conversation: Talk,
}

/// From its first call on the conversation has the ends.
#[derive(Debug)]
enum Talk {
    None,
    /// A call is under way.
    Busy,
    /// A call did not come to the end.
    Interrupted(Box<Conversation>),
}

impl Streams {
    pub(super) fn none() -> Streams {
        Streams::new([None, None, None], 0)
    }

    pub(super) fn new(ends: [Option<OwnedFd>; 3], most: usize) -> Streams {
        let ends = ends.map(|end| end.map(End::new));
        Streams { state: Mutex::new(State { ends, conversation: Talk::None }), most }
    }

    /// Nothing panics under it, so it is never poisoned.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// -1 where there is none.
    pub(super) fn fd(&self, stream: Stream) -> i32 {
        self.lock().ends[stream as usize].as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    pub(super) fn take(&self, stream: Stream) -> Option<OwnedFd> {
        self.lock().ends[stream as usize].take().map(End::into_owned)
    }

    /// For one call at a time: the conversation, which begins now or goes on.
    pub(super) fn converse(&self, has_input: bool) -> Result<Box<Conversation>> {
        let mut state = self.lock();
        match std::mem::replace(&mut state.conversation, Talk::Busy) {
            Talk::Interrupted(conversation) => Ok(conversation),
            Talk::Busy => Err(Error::new(Kind::Busy, "another call communicates with it")),
            Talk::None if has_input && state.ends[Stream::Stdin as usize].is_none() => {
                state.conversation = Talk::None;
                Err(Error::invalid("input: there is no pipe to its stdin, or it was taken or closed"))
            }
            Talk::None => {
                let conversation = Conversation::new(std::mem::take(&mut state.ends), self.most);
                if conversation.is_err() {
                    state.conversation = Talk::None;
                }
                conversation.map(Box::new)
            }
        }
    }

    /// The call ends. `Some`: the next one goes on.
    pub(super) fn pause(&self, conversation: Option<Box<Conversation>>) {
        self.lock().conversation = conversation.map_or(Talk::None, Talk::Interrupted);
    }
}
