//! What host and nursery tell each other through their socket. Neither waits for the other.
#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::sys::errno;
use crate::sys::socket::{self, Refused, Take};

/// To the nursery: ends all workers: TERM, the argument's milliseconds (-1: without limit), KILL.
pub const TERMINATE: u32 = 1;
/// To the nursery: something on the host's memory has changed.
pub const LOOK: u32 = 2;
/// To the nursery: ends the worker that runs a task, the argument: {generation, slot}.
pub const CANCEL: u32 = 4;
/// To the nursery: there is one more place, the argument; its journal comes along.
pub const PLACE: u32 = 5;
/// To the nursery, before that: the file for what is written to standard error there.
pub const STDERR: u32 = 7;
/// To the nursery: how many workers there are to be.
pub const RESIZE: u32 = 6;
/// To the host: the workers are there. The argument is the nursery's number.
pub const STARTED: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub kind: u32,
    /// Of a command, counted from 1.
    pub number: u32,
    pub argument: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    Message(Message),
    Nothing,
    /// The other side is gone.
    Closed,
}

const LENGTH: usize = size_of::<u128>();

/// `false` where there is no room or nobody.
pub fn send(socket: &impl AsRawFd, message: Message) -> bool {
    send_with(socket, message, None)
}

/// The same with a descriptor.
pub fn send_with(socket: &impl AsRawFd, message: Message, carried: Option<RawFd>) -> bool {
    let Message { kind, number, argument } = message;
    let bytes = (u128::from(kind) | u128::from(number) << 32 | u128::from(argument as u64) << 64).to_ne_bytes();
    socket::send(socket, &bytes, &[], carried).is_ok()
}

/// The next message. What is not of the right length is none.
pub fn receive(socket: &impl AsRawFd) -> Received {
    receive_with(socket).0
}

/// The same, and the descriptor that it carries.
pub fn receive_with(socket: &impl AsRawFd) -> (Received, Option<OwnedFd>) {
    let mut bytes = [0; LENGTH];
    loop {
        match socket::receive(socket, &mut bytes, &mut [], Take::TakeAll) {
            Ok(socket::Received { length: LENGTH, carried }) => {
                let bits = u128::from_ne_bytes(bytes);
                let message = Message { kind: bits as u32, number: (bits >> 32) as u32, argument: (bits >> 64) as i64 };
                return (Received::Message(message), carried);
            }
            Ok(socket::Received { length: 1.., .. }) => {}
            // It carried something for which there was no number. It is lost, and the socket goes on.
            Err(Refused::Failed(number)) if errno::number::is_no_descriptor(number) => {}
            Err(Refused::WouldBlock) => return (Received::Nothing, None),
            Ok(_) | Err(_) => return (Received::Closed, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_and_the_end_is_seen() {
        let (a, b) = socket::seqpacket_pair().unwrap();
        let message = Message { kind: TERMINATE, number: u32::MAX, argument: -1 };
        assert_eq!(receive(&b), Received::Nothing);
        socket::send(&a, b"none of ours", &[], None).unwrap();
        assert!(send(&a, message));
        assert_eq!(receive(&b), Received::Message(message));
        drop(a);
        assert_eq!(receive(&b), Received::Closed);
        assert!(!send(&b, message));
    }
}
