//! This process's ends of the pipes to a command.
#![forbid(unsafe_code)]

use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::communicate::Conversation;
use crate::error::{Error, Kind, Result};
use crate::sys::withheld::Withheld;

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
pub(super) type Ends = [Option<Withheld>; 3];

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

    pub(super) fn new(ends: Ends, most: usize) -> Streams {
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
        self.lock().ends[stream as usize].take().map(Withheld::into_owned)
    }

    /// `false`: there is none.
    pub(super) fn close(&self, stream: Stream) -> bool {
        let end = self.lock().ends[stream as usize].take();
        end.is_some()
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
