//! How a process reaches an object that it did not inherit: by a token, by a name, or by its place in a block of the user.
//!
//! # Tokens
//! A token names a descriptor of the process that made it, and through /proc/PID/fd other processes of the same user open the same
//! file: nothing is sent, no helper process, nothing to clean up. The descriptor is the *pin*: made with the first token of a handle,
//! closed with the handle, its file offset is the place of the object in the file. So a token is good while its maker lives and
//! holds the handle, and that is checked by what cannot be given again: the process's start time, the file's inode, the offset.
//!
//! A queue with a descriptor needs that too, a pipe: its token names the maker's descriptor, and the queue's memory says which pipe it
//! must be. So neither a wrong token nor garbage in the memory alone leads to another pipe.
//!
//! Every byte of a token and of what it leads to may be garbage. Nothing is opened before the kernel has said that it is a file with
//! the right inode, nothing mapped before `Segment::adopt` has looked at it, and an object says by its mark what it is.

use std::os::fd::{AsFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::layout::{Marked, ObjectKind, SegmentHead, VERSION};
use super::name::{Name, Naming};
use super::{Extent, Object, Segment, slab};
use crate::error::{Error, Kind, Result};
use crate::sys::{fd, nursery, process, shared_file, thread};

/// An object as bytes. Native byte order: it never leaves the machine.
///
/// | at | bytes | what |
/// |---|---|---|
/// | 0 | 2 | "tt" |
/// | 2 | 1 | the layout's version |
/// | 3 | 1 | the [`ObjectKind`], and [`PIPED`] |
/// | 4 | 4 | the process that made it |
/// | 8 | 4 | its descriptor |
/// | 12 | 4 | its pid namespace |
/// | 16 | 4 | when it started |
/// | 20 | 4 | where the object lies in the file, in units of 8 bytes; with [`PIPED`], which lies at the beginning, the maker's
///           descriptor of the pipe |
/// | 24 | 8 | the file's inode |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    kind: ObjectKind,
    pid: i32,
    descriptor: i32,
    namespace: u32,
    birth: u32,
    place: u32,
    /// The maker's number of the pipe that belongs to the object.
    pipe: Option<RawFd>,
    inode: u64,
}

/// Places are multiples of this.
const UNIT: u64 = 8;
/// Beside the kind: a queue with a descriptor.
const PIPED: u8 = 0x80;
/// Where the content of its file begins.
const PIPED_PLACE: u32 = (SegmentHead::LENGTH as u64 / UNIT) as u32;

impl Token {
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let piped = if self.pipe.is_some() { PIPED } else { 0 };
        bytes[..4].copy_from_slice(&[b't', b't', VERSION as u8, self.kind as u8 | piped]);
        bytes[4..8].copy_from_slice(&self.pid.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.descriptor.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.namespace.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.birth.to_ne_bytes());
        bytes[20..24].copy_from_slice(&self.pipe.map_or(self.place, |pipe| pipe as u32).to_ne_bytes());
        bytes[24..].copy_from_slice(&self.inode.to_ne_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Token> {
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[..2] != *b"tt" {
            return Err(Error::invalid("token: these bytes are not a token"));
        }
        if u32::from(bytes[2]) != VERSION {
            let text = format!("token: of another version of the library: its layout is {}, ours is {VERSION}", bytes[2]);
            return Err(Error::new(Kind::NotSupported, text));
        }
        let (pid, descriptor) = (word(4) as i32, word(8) as i32);
        let pipe = (bytes[3] & PIPED != 0).then_some(word(20) as RawFd);
        let place = if pipe.is_some() { PIPED_PLACE } else { word(20) };
        let kind = ObjectKind::of_number((bytes[3] & !PIPED).into()).filter(|_| pid > 0 && descriptor >= 0);
        let kind = kind.filter(|&kind| pipe.is_none_or(|pipe| kind == ObjectKind::Queue && pipe >= 0));
        let kind = kind.ok_or_else(|| Error::invalid("token: its bytes were written over"))?;
        let inode = u64::from_ne_bytes(std::array::from_fn(|at| bytes[24 + at]));
        Ok(Token { kind, pid, descriptor, namespace: word(12), birth: word(16), place, pipe, inode })
    }

    fn make(kind: ObjectKind, segment: &Segment, offset: usize, pin: &Pin, pipe: Option<RawFd>) -> Result<Token> {
        let pid = process::pid();
        let (namespace, birth) = (shared_file::pid_namespace(), process::start_time(pid));
        let birth = birth.filter(|_| namespace != 0 && nursery::proc_is_ours()).ok_or_else(|| not_there(no_proc()))?;
        let position = segment.position(offset);
        let place = u32::try_from(position / UNIT).ok().filter(|_| position % UNIT == 0);
        let Some(place) = place else {
            return Err(Error::new(Kind::Overflow, "token: an object beyond the first 32 GiB of its block cannot have one"));
        };
        if pipe.is_some() && place != PIPED_PLACE {
            return Err(Error::new(Kind::Corrupt, "token: the queue does not lie at the beginning of its file"));
        }
        let inode = shared_file::facts(segment.fd())?.identity.1;
        Ok(Token {
            kind,
            pid,
            descriptor: pin.number(segment, position, pid)?,
            namespace: namespace as u32,
            birth: birth as u32,
            place,
            pipe,
            inode,
        })
    }

    /// The segment, and where in its content the object lies.
    fn follow(&self, kind: ObjectKind) -> Result<(Arc<Segment>, usize)> {
        if self.kind != kind {
            return Err(Error::invalid(format!("token: of {}, not of {}", self.kind.noun(), kind.noun())));
        }
        let namespace = shared_file::pid_namespace();
        if namespace == 0 || !nursery::proc_is_ours() {
            return Err(no_proc());
        }
        if namespace as u32 != self.namespace {
            return Err(Error::new(Kind::NotSupported, "token: of another pid namespace: objects are not shared between those"));
        }
        let ended = || Error::new(Kind::NotFound, format!("token: process {}, which made it, has ended", self.pid));
        let freed = || Error::new(Kind::NotFound, format!("token: process {}, which made it, has freed the object", self.pid));
        if process::start_time(self.pid).map(|birth| birth as u32) != Some(self.birth) {
            return Err(not_there(ended()));
        }
        let found = shared_file::of_process(self.pid, self.descriptor).map_err(|error| match error.kind() {
            Kind::NotFound => freed(),
            // A zombie is nobody's.
            Kind::Access | Kind::NotPermitted if process::has_ended(self.pid) => ended(),
            Kind::Access | Kind::NotPermitted => self.not_permitted(),
            _ => error.context("token"),
        })?;
        let facts = shared_file::facts(found.as_fd())?;
        let position = u64::from(self.place) * UNIT;
        if facts.identity.1 != self.inode || shared_file::position_in_process(self.pid, self.descriptor) != Some(position) {
            return Err(not_there(freed()));
        }
        if facts.owner != shared_file::own_user() {
            return Err(self.not_permitted());
        }
        if !facts.is_plain {
            return Err(Error::new(Kind::Corrupt, "token: it leads to something else than a file"));
        }
        let opened = shared_file::open_again(found.as_fd()).map_err(|error| match error.kind() {
            Kind::NoDescriptors | Kind::NoMemory => error.context("token"),
            _ => Error::new(Kind::Corrupt, format!("token: what it leads to cannot be opened for writing: {error}")),
        })?;
        let segment = Segment::adopt(opened, &facts).map_err(|error| error.context("token"))?;
        let offset =
            segment.offset(position).ok_or_else(|| Error::new(Kind::Corrupt, "token: it leads outside of the content"))?;
        Ok((segment, offset))
    }

    /// The pipe that the token names, opened by this process, if it is the one with this inode.
    fn open_pipe(&self, number: RawFd, inode: u64) -> Result<OwnedFd> {
        let closed = || {
            let text = format!("token: process {}, which made it, has closed the descriptor of the queue", self.pid);
            not_there(Error::new(Kind::NotFound, text))
        };
        let found = shared_file::of_process(self.pid, number).map_err(|error| match error.kind() {
            Kind::NotFound => closed(),
            Kind::Access | Kind::NotPermitted => self.not_permitted(),
            _ => error.context("token"),
        })?;
        let facts = shared_file::facts(found.as_fd())?;
        if !facts.is_pipe || facts.identity.1 != inode {
            return Err(closed());
        }
        shared_file::open_again(found.as_fd()).map_err(|error| error.context("token"))
    }

    fn not_permitted(&self) -> Error {
        let text =
            format!("token: process {} belongs to another user, or has changed its user and not its dumpable flag", self.pid);
        Error::new(Kind::NotPermitted, text)
    }
}

/// What is not found in /proc may be there: looking takes a descriptor.
fn not_there(error: Error) -> Error {
    match fd::eventfd() {
        Err(none) if none.kind() == Kind::NoDescriptors => none.context("token"),
        _ => error,
    }
}

fn no_proc() -> Error {
    Error::new(Kind::NotSupported, "token: tokens need /proc of this pid namespace")
}

/// The descriptor that the tokens of a handle name.
#[derive(Debug, Default)]
pub struct Pin {
    /// {epoch of the process that made it, number}, 0 = none yet.
    known: AtomicU64,
    /// What the file of the handle has as {device, inode}: somebody may have closed the number, and it be another file's. Written before
    /// `known`.
    device: AtomicU64,
    inode: AtomicU64,
}

impl Pin {
    fn number(&self, segment: &Segment, position: u64, pid: i32) -> Result<i32> {
        let epoch = u64::from(thread::epoch() as u32) << 32;
        let seen = self.known.load(Ordering::Acquire);
        let (made, number) = (seen & !0xffff_ffff, seen as u32 as i32);
        // A child makes one of its own; somebody may have closed ours.
        if seen != 0 && made == epoch && shared_file::position_in_process(pid, number) == Some(position) {
            return Ok(number);
        }
        let ours = shared_file::facts(segment.fd())?;
        let opened = shared_file::open_at(segment.fd(), position).map_err(|error| error.context("token"))?;
        if shared_file::facts(opened.as_fd())? != ours {
            return Err(Error::new(Kind::NotFound, "token: this process has closed the descriptor of the object"));
        }
        self.device.store(ours.identity.0, Ordering::Relaxed);
        self.inode.store(ours.identity.1, Ordering::Relaxed);
        let number = opened.into_raw_fd();
        match self.known.compare_exchange(seen, epoch | number as u64, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(number),
            Err(winner) => {
                fd::close_number(number);
                Ok(winner as u32 as i32)
            }
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let (seen, file) = (*self.known.get_mut(), (*self.device.get_mut(), *self.inode.get_mut()));
        if seen != 0 && (seen >> 32) as u32 == thread::epoch() as u32 {
            if let Some(there) = fd::Known::by_number(seen as u32 as RawFd).filter(|there| there.identity() == file) {
                there.close();
            }
        }
    }
}

/// An object of one kind, as the layers above have it: a new kind of object says these three things and can be handed on.
pub trait HandedOn: Sized {
    /// What lies in shared memory.
    type Shared: Marked;
    /// Bytes that one takes in a block of the user.
    const FOOTPRINT: usize = size_of::<Self::Shared>();

    /// The object that lies there; what it says about itself is checked.
    fn of(object: Object<Self::Shared>) -> Result<Self>;
    fn object(&self) -> &Object<Self::Shared>;

    /// The pipe that belongs to the object: its number in this process.
    fn pipe(&self) -> Result<Option<RawFd>> {
        Ok(None)
    }

    /// [`HandedOn::of`] for an object with a pipe; `open` opens it if it is the one with this inode.
    fn of_piped(_object: Object<Self::Shared>, _open: impl FnOnce(u64) -> Result<OwnedFd>) -> Result<Self> {
        Err(Error::invalid("token: its bytes were written over"))
    }

    fn token(&self) -> Result<Token> {
        let object = self.object();
        Token::make(Self::Shared::KIND, object.segment(), object.offset(), object.pin(), self.pipe()?)
    }

    fn attach(token: &Token) -> Result<Self> {
        let (segment, offset) = token.follow(Self::Shared::KIND)?;
        match (segment.marked(offset), token.pipe) {
            (Ok(Some(object)), None) => Self::of(object),
            (Ok(Some(object)), Some(number)) => Self::of_piped(object, |inode| token.open_pipe(number, inode)),
            _ => Err(Error::new(Kind::Corrupt, format!("token: there is no longer {} at its place", Self::Shared::KIND.noun()))),
        }
    }

    fn open(name: &Name) -> Result<Self> {
        find(Segment::open(Self::Shared::KIND, name)?)
    }

    /// A new object that `init` prepares, with `tail` bytes of zeros directly behind it, or the one that has the name.
    fn make(naming: &Naming, tail: usize, init: impl Fn(&Self::Shared)) -> Result<Self> {
        if *naming == Naming::None {
            let object = slab::place_with_tail(tail).map_err(|error| error.context(Self::Shared::KIND.word()))?;
            complete(&object, init);
            return Self::of(object);
        }
        let length = size_of::<Self::Shared>().saturating_add(tail);
        find(Segment::make(Self::Shared::KIND, Extent::whole(length), naming, |segment| {
            complete(&segment.object(0)?, &init);
            Ok(())
        })?)
    }
}

/// Prepares an object and says what it is.
pub fn complete<T: Marked>(object: &Object<T>, init: impl FnOnce(&T)) {
    init(object);
    // SYNC POINT: mark (release; the acquire is in `Segment::marked`).
    object.mark().atomic().store(T::KIND.mark(), Ordering::Release);
}

/// The object that a segment was made for.
pub fn find<T: HandedOn>(segment: Arc<Segment>) -> Result<T> {
    match segment.marked(0) {
        Ok(Some(object)) => T::of(object),
        _ => Err(Error::new(Kind::Corrupt, format!("name: {} was written over", T::Shared::KIND.noun()))),
    }
}

/// A block: the whole content of a segment.
pub(super) fn token_of_block(segment: &Segment, pin: &Pin) -> Result<Token> {
    Token::make(ObjectKind::SharedMemory, segment, 0, pin, None)
}

pub(super) fn attach_block(token: &Token) -> Result<Arc<Segment>> {
    match token.follow(ObjectKind::SharedMemory)? {
        (segment, 0) if segment.kind() == ObjectKind::SharedMemory => Ok(segment),
        _ => Err(Error::new(Kind::Corrupt, "token: there is no block of shared memory at its place")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_same_read_back() {
        let token = Token {
            kind: ObjectKind::Lock,
            pid: 4711,
            descriptor: 9,
            namespace: 0xf000_0001,
            birth: 77,
            place: 32,
            pipe: None,
            inode: 0x1234_5678_9abc_def0,
        };
        assert_eq!(Token::from_bytes(&token.to_bytes()).unwrap(), token);
        let piped = Token { kind: ObjectKind::Queue, place: PIPED_PLACE, pipe: Some(7), ..token };
        assert_eq!(Token::from_bytes(&piped.to_bytes()).unwrap(), piped);
        let lock_with_pipe = Token { kind: ObjectKind::Lock, ..piped };
        assert_eq!(Token::from_bytes(&lock_with_pipe.to_bytes()).unwrap_err().kind(), Kind::Invalid);
        let mut other = token.to_bytes();
        other[2] += 1;
        assert_eq!(Token::from_bytes(&other).unwrap_err().kind(), Kind::NotSupported);
        assert_eq!(Token::from_bytes(&[0; 32]).unwrap_err().kind(), Kind::Invalid);
    }
}
