//! Pipes: two connections that exchange messages, whole or not at all.
//!
//! # Messages
//! A message is one datagram of a SEQPACKET socket: a header {magic, kind, length} and then its bytes; or, above [`INLINE_MAX`], a
//! descriptor of sealed memory that holds them. So there are no frames: a sender that is killed or runs out of time leaves nothing
//! behind, several may send on one end, and an empty message is not the end of the file. The header tells what a message needs
//! before it is taken.
//!
//! # Receiving
//! Look, then take: two system calls, in the turn of one receiver. The turn is a robust word in shared memory, so it also holds
//! between processes that inherited the same end, and a receiver that is killed between the two has taken nothing. What a message
//! carries is copied while it is still there: out of descriptors, nothing is lost.
//!
//! # Closing and forking
//! A connection closes its descriptor when the last call on it has left; calls that sleep are woken by a bell, because shutting the
//! socket down would also do so to other processes' copies. A forked child starts without the parent's bell, and finds out by the
//! identity of the open file whether it inherited the descriptor or another one under its number: a pool's nursery keeps only what it
//! was told to.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::shm::{Object, RobustCell, slab};
use crate::sync::robust;
use crate::sys::fd::Known;
use crate::sys::heap::Buffer;
use crate::sys::per_process::PerProcess;
use crate::sys::socket::{self, Refused, Take};
use crate::sys::thread::Thread;
use crate::sys::{self, Deadline, fd, file, memory, poll};
use crate::timeout::Timeout;

/// The longest message.
pub const MESSAGE_MAX: usize = 1 << 31;
/// The longest message that lies in its datagram. Two of them fit into a socket's buffer as Linux makes it.
const INLINE_MAX: usize = 64 << 10;

/// {magic, kind, length}, in the byte order of the machine: sockets of this family do not leave it.
const HEADER: usize = 16;
const MAGIC: u32 = u32::from_le_bytes(*b"tine");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// Its bytes follow.
    Inline,
    /// Its bytes lie in the memory that it carries.
    Large,
    /// It is the descriptor that it carries.
    Descriptor,
}

impl Content {
    const ALL: [Content; 3] = [Content::Inline, Content::Large, Content::Descriptor];

    fn header(self, length: usize) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&MAGIC.to_ne_bytes());
        header[4..8].copy_from_slice(&(self as u32 + 1).to_ne_bytes());
        header[8..].copy_from_slice(&(length as u64).to_ne_bytes());
        header
    }

    /// What a datagram of `received` bytes that begins like this is; `None` if none of ours.
    fn parse(header: &[u8; HEADER], received: usize) -> Option<(Content, usize)> {
        let [magic, kind] = [0, 4].map(|at| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]));
        let content = Content::ALL.into_iter().find(|&content| content as u32 + 1 == kind)?;
        let length = header[8..].try_into().map(u64::from_ne_bytes).ok()?;
        let length = usize::try_from(length).ok().filter(|&length| length <= MESSAGE_MAX)?;
        let follows = if content == Content::Inline { length } else { 0 };
        (magic == MAGIC && received == HEADER + follows).then_some((content, length))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Both,
    Receives,
    Sends,
}

/// One end of a pipe.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    socket: Known,
    direction: Direction,
    /// Owned by who receives.
    turn: Object<RobustCell>,
    local: PerProcess<Local>,
}

/// The connection in one process. Numbers and no owners: what a forked child inherits is forgotten, not dropped.
#[derive(Default)]
enum Local {
    /// Nothing was done with it here since the fork.
    #[default]
    Inherited,
    Open(Use),
    /// Closed while calls were inside: the last one closes the descriptors.
    Closing(Use),
    /// Or not inherited.
    Closed,
}

#[derive(Clone, Copy, Default)]
struct Use {
    /// Calls that are inside.
    calls: u32,
    /// Readable once it is closed; made when somebody first sleeps.
    bell: Option<RawFd>,
}

/// A call that is inside: until it leaves, the descriptors stay open.
struct Call<'a>(&'a Inner);

impl AsRawFd for Call<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.socket.number()
    }
}

/// How one attempt to receive went. Errors are made of it outside of the turn: making one may allocate.
enum Step {
    Done(usize),
    Large(OwnedFd, usize),
    Descriptor(OwnedFd),
    Nothing,
    /// Somebody else had the turn for all of the time.
    Busy,
    End,
    TooSmall(usize),
    /// A descriptor where bytes were asked for, or bytes where a descriptor was.
    OtherKind,
    Corrupt,
    Failed(i32),
}

/// What a receiver asks for.
enum Want<'a> {
    Bytes(&'a mut [MaybeUninit<u8>]),
    Descriptor,
}

/// Two connected ends; simplex: the first receives and the second sends.
pub fn pipe(simplex: bool) -> Result<(Connection, Connection)> {
    let (a, b) = socket::seqpacket_pair().map_err(|error| error.context("pipe"))?;
    let [of_a, of_b] = if simplex { [Direction::Receives, Direction::Sends] } else { [Direction::Both; 2] };
    Ok((Connection::new(a, of_a)?, Connection::new(b, of_b)?))
}

impl Connection {
    fn new(socket: OwnedFd, direction: Direction) -> Result<Connection> {
        let turn = slab::place().map_err(|error| error.context("pipe"))?;
        Connection::with_turn(socket, direction, turn)
    }

    /// Takes over a descriptor of an end that another process handed on. On failure it stays the caller's.
    pub fn from_fd(fd: RawFd, receives_only: bool) -> Result<Connection> {
        // First what else can fail.
        let turn = slab::place().map_err(|error| error.context("connection"))?;
        let direction = if receives_only { Direction::Receives } else { Direction::Both };
        Connection::with_turn(socket::adopt(fd)?, direction, turn)
    }

    fn with_turn(socket: OwnedFd, direction: Direction, turn: Object<RobustCell>) -> Result<Connection> {
        let known = Known::by_number(socket.as_raw_fd()).ok_or_else(|| sys::last_failure("fstat"))?;
        let inner = Inner { socket: known, direction, turn, local: PerProcess::new() };
        inner.local.with(|local| *local = Local::Open(Use::default()));
        // From here on the number is the connection's.
        let _ = socket.into_raw_fd();
        Ok(Connection { inner: Arc::new(inner) })
    }

    pub fn send(&self, data: &[u8], timeout: Timeout) -> Result<()> {
        let inner = self.inner.clone();
        inner.check(Direction::Sends)?;
        let length = data.len();
        if length > MESSAGE_MAX {
            return Err(Error::new(Kind::MessageSize, format!("connection: a message of {length} bytes is above {MESSAGE_MAX}")));
        }
        let deadline = Deadline::new(timeout);
        if length <= INLINE_MAX && inner.transmit(Content::Inline, length, data, None, &deadline)? {
            return Ok(());
        }
        let memory = memory::create(c"tine-message", length).map_err(|error| error.context("connection"))?;
        file::write_at(memory.as_fd(), data, 0).map_err(|errno| sys::failure(errno, "connection: pwrite of a large message"))?;
        memory::seal(memory.as_fd())?;
        inner.transmit_surely(Content::Large, length, memory.as_raw_fd(), &deadline)
    }

    /// Takes one message into `buffer`; answers its length.
    pub fn recv(&self, buffer: &mut [MaybeUninit<u8>], timeout: Timeout) -> Result<usize> {
        self.inner.clone().recv(buffer, &Deadline::new(timeout))
    }

    /// Takes one message into memory of its own.
    pub fn recv_alloc(&self, timeout: Timeout) -> Result<(Buffer, usize)> {
        let inner = self.inner.clone();
        let deadline = Deadline::new(timeout);
        let mut buffer = Buffer::new(0)?;
        loop {
            match inner.recv(buffer.as_uninit(), &deadline) {
                Ok(length) => return Ok((buffer, length)),
                // Another receiver may have taken it before we come back with more: then the next one is ours.
                Err(error) if error.kind() == Kind::TooSmall => buffer = Buffer::new(error.needed())?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until there is a message, or the end.
    pub fn poll(&self, timeout: Timeout) -> Result<()> {
        let inner = self.inner.clone();
        inner.check(Direction::Receives)?;
        let deadline = Deadline::new(timeout);
        loop {
            let call = inner.enter()?;
            if poll::readable(&[call.as_raw_fd()], &Deadline::new(Timeout::Try))? != 0 {
                return Ok(());
            }
            call.sleep_to_receive(&deadline)?;
        }
    }

    /// Sends a copy of a descriptor; the caller's stays its own.
    pub fn send_fd(&self, fd: RawFd, timeout: Timeout) -> Result<()> {
        let inner = self.inner.clone();
        inner.check(Direction::Sends)?;
        if !fd::is_open(fd) {
            return Err(Error::invalid(format!("fd: {fd} is not an open descriptor")));
        }
        inner.transmit_surely(Content::Descriptor, 0, fd, &Deadline::new(timeout))
    }

    /// Takes a descriptor, close-on-exec.
    pub fn recv_fd(&self, timeout: Timeout) -> Result<OwnedFd> {
        let inner = self.inner.clone();
        inner.check(Direction::Receives)?;
        let deadline = Deadline::new(timeout);
        loop {
            let call = inner.enter()?;
            match call.receive(Want::Descriptor, &deadline)? {
                Step::Descriptor(fd) => return Ok(fd),
                Step::Nothing => call.sleep_to_receive(&deadline)?,
                other => return Err(failed(other)),
            }
        }
    }

    /// Readable when there is a message, or the end; stays the connection's.
    pub fn fd(&self) -> Result<RawFd> {
        self.inner.enter().map(|call| call.as_raw_fd())
    }

    /// Closes this process's copy; calls that sleep on it end. Once is as good as twice.
    pub fn close(&self) {
        self.inner.close();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    fn check(&self, needed: Direction) -> Result<()> {
        if self.direction == Direction::Both || self.direction == needed {
            return Ok(());
        }
        Err(Error::new(
            Kind::NotPermitted,
            match self.direction {
                Direction::Sends => "connection: this end of a simplex pipe only sends",
                _ => "connection: this end of a simplex pipe only receives",
            },
        ))
    }

    /// In a forked child, the first time: is the descriptor there?
    fn find_out(&self, local: &mut Local) {
        if matches!(local, Local::Inherited) {
            *local = if self.socket.is_there() { Local::Open(Use::default()) } else { Local::Closed };
        }
    }

    fn enter(&self) -> Result<Call<'_>> {
        let open = self.local.with(|local| {
            self.find_out(local);
            match local {
                Local::Open(inside) => {
                    inside.calls += 1;
                    true
                }
                _ => false,
            }
        });
        if open { Ok(Call(self)) } else { Err(closed()) }
    }

    fn close(&self) {
        self.local.with(|local| {
            self.find_out(local);
            if let Local::Open(inside) = *local {
                if let Some(bell) = inside.bell {
                    fd::ring(bell);
                }
                *local = self.closed_unless_used(inside);
            }
        });
    }

    fn closed_unless_used(&self, inside: Use) -> Local {
        if inside.calls > 0 {
            return Local::Closing(inside);
        }
        self.socket.close();
        if let Some(bell) = inside.bell {
            fd::close_number(bell);
        }
        Local::Closed
    }

    /// `false`: it is too long for a datagram here.
    fn transmit(
        &self,
        content: Content,
        length: usize,
        body: &[u8],
        carried: Option<RawFd>,
        deadline: &Deadline,
    ) -> Result<bool> {
        let header = content.header(length);
        loop {
            let call = self.enter()?;
            match socket::send(&call, &header, body, carried) {
                Ok(()) => return Ok(true),
                Err(Refused::WouldBlock) => call.sleep_to_send(deadline)?,
                Err(Refused::TooLong) => return Ok(false),
                Err(Refused::Gone) => return Err(Error::new(Kind::EndOfFile, "connection: the other end is gone")),
                Err(Refused::Failed(errno)) => return Err(sys::failure(errno, "connection: sendmsg")),
            }
        }
    }

    fn transmit_surely(&self, content: Content, length: usize, carried: RawFd, deadline: &Deadline) -> Result<()> {
        if self.transmit(content, length, &[], Some(carried), deadline)? {
            return Ok(());
        }
        Err(Error::new(Kind::MessageSize, "connection: the socket's buffer holds no message at all"))
    }

    fn recv(&self, buffer: &mut [MaybeUninit<u8>], deadline: &Deadline) -> Result<usize> {
        self.check(Direction::Receives)?;
        loop {
            let call = self.enter()?;
            match call.receive(Want::Bytes(buffer), deadline)? {
                Step::Done(length) => return Ok(length),
                Step::Large(memory, length) => return fetch(&memory, &mut buffer[..length]),
                Step::Nothing => call.sleep_to_receive(deadline)?,
                other => return Err(failed(other)),
            }
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.local.with(|local| match local {
            Local::Open(inside) => inside.calls -= 1,
            Local::Closing(inside) => {
                inside.calls -= 1;
                *local = self.0.closed_unless_used(*inside);
            }
            // An interrupt check forked, and this is the child: the call is the parent's.
            Local::Inherited | Local::Closed => {}
        });
    }
}

impl Call<'_> {
    fn bell(&self) -> Result<RawFd> {
        self.0.local.with(|local| match local {
            Local::Open(inside) => match inside.bell {
                Some(bell) => Ok(bell),
                None => Ok(*inside.bell.insert(fd::eventfd()?.into_raw_fd())),
            },
            _ => Err(closed()),
        })
    }

    /// Until there may be something to receive, or the connection is closed.
    fn sleep_to_receive(&self, deadline: &Deadline) -> Result<()> {
        if deadline.passed() {
            return Err(Error::new(Kind::TimedOut, "connection: no message in time"));
        }
        poll::readable(&[self.as_raw_fd(), self.bell()?], deadline).map(|_| ())
    }

    fn sleep_to_send(&self, deadline: &Deadline) -> Result<()> {
        if deadline.passed() {
            return Err(Error::new(Kind::TimedOut, "connection: no room for the message in time"));
        }
        poll::writable_or_rung(self.as_raw_fd(), self.bell()?, deadline)
    }

    /// One look, and one message if there is one.
    fn receive(&self, want: Want, deadline: &Deadline) -> Result<Step> {
        let w = Thread::current();
        // Whoever died in its turn has taken a message or has not: there is nothing to mend.
        if robust::take(w, &self.0.turn, deadline)?.is_none() {
            return Ok(Step::Busy);
        }
        let step = in_turn(self.as_raw_fd(), want);
        robust::give(w, &self.0.turn);
        Ok(step)
    }
}

/// Nothing is allocated, and nothing can panic.
fn in_turn(socket: RawFd, want: Want) -> Step {
    let mut header = [0; HEADER];
    let received = match socket::receive(&socket, &mut header, &mut [], Take::Look) {
        Ok(seen) => seen.length,
        Err(refused) => return refused.into(),
    };
    if received == 0 && socket::is_hung_up(&socket) {
        return Step::End;
    }
    let Some((content, length)) = Content::parse(&header, received) else {
        return drop_message(socket, Step::Corrupt);
    };
    match (content, want) {
        (Content::Inline, Want::Bytes(buffer)) => match buffer.get_mut(..length) {
            None => Step::TooSmall(length),
            Some(buffer) => match socket::receive(&socket, &mut header, buffer, Take::Take) {
                Ok(_) => Step::Done(length),
                Err(refused) => refused.into(),
            },
        },
        (Content::Large, Want::Bytes(buffer)) if length > buffer.len() => Step::TooSmall(length),
        (Content::Large, Want::Bytes(_)) => take_carried(socket, |memory| Step::Large(memory, length)),
        (Content::Descriptor, Want::Descriptor) => take_carried(socket, Step::Descriptor),
        _ => Step::OtherKind,
    }
}

/// Copies what the next message carries, then takes the message away.
fn take_carried(socket: RawFd, step: impl FnOnce(OwnedFd) -> Step) -> Step {
    match socket::receive(&socket, &mut [0; HEADER], &mut [], Take::LookAndCopy) {
        Ok(copy) => match copy.carried {
            Some(carried) => drop_message(socket, step(carried)),
            None => drop_message(socket, Step::Corrupt),
        },
        Err(refused) => refused.into(),
    }
}

/// The next message goes; what is known of it stays.
fn drop_message(socket: RawFd, step: Step) -> Step {
    match socket::receive(&socket, &mut [], &mut [], Take::Take) {
        Ok(_) => step,
        Err(refused) => refused.into(),
    }
}

/// The bytes of a large message.
fn fetch(memory: &OwnedFd, buffer: &mut [MaybeUninit<u8>]) -> Result<usize> {
    if memory::sealed_length(memory.as_fd()) != Some(buffer.len() as u64) {
        return Err(failed(Step::Corrupt));
    }
    match file::read_at(memory.as_fd(), buffer, 0) {
        Ok(true) => Ok(buffer.len()),
        Ok(false) => Err(failed(Step::Corrupt)),
        Err(errno) => Err(sys::failure(errno, "connection: pread of a large message")),
    }
}

impl From<Refused> for Step {
    fn from(refused: Refused) -> Step {
        match refused {
            Refused::WouldBlock => Step::Nothing,
            Refused::Gone => Step::End,
            Refused::TooLong => Step::Corrupt,
            Refused::Failed(errno) => Step::Failed(errno),
        }
    }
}

#[cold]
fn failed(step: Step) -> Error {
    match step {
        Step::End => Error::new(Kind::EndOfFile, "connection: the other end is gone, and everything was taken"),
        Step::Busy => Error::new(Kind::TimedOut, "connection: others received for all of the time"),
        Step::TooSmall(needed) => {
            Error::too_small(needed, format!("connection: the buffer is too small for a message of {needed} bytes"))
        }
        Step::OtherKind => Error::new(
            Kind::MessageSize,
            "connection: the next message is of the other kind (a descriptor, or bytes); nothing was taken",
        ),
        Step::Failed(errno) => sys::failure(errno, "connection: recvmsg"),
        _ => Error::new(Kind::Corrupt, "connection: what the other end sent is no message; it was dropped"),
    }
}

#[cold]
fn closed() -> Error {
    Error::new(Kind::Closed, "connection: closed, or not inherited by this process")
}
