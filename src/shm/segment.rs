//! Shared memory with typed objects in it.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::Bytes;
use super::handing_on::Pin;
use super::layout::{Marked, ObjectKind, SegmentHead, VERSION};
use super::name::{Name, Naming};
use super::registry::{self, Entry};
use super::word::Shared;
use crate::error::{Error, Kind, Result};
use crate::sys::memory::{self, Access, Mapping};
use crate::sys::per_process::PerProcess;
use crate::sys::shared_file::{self, Facts};
use crate::sys::tsan;
use crate::sys::{self, Deadline, file};
use crate::timeout::Timeout;

/// What `Object::keep_mapped` keeps: reachable, so that leak checkers see that it is meant to stay.
static KEPT: PerProcess<Vec<Arc<Segment>>> = PerProcess::new();

/// A file in memory and this process's one mapping of it: a head ([`SegmentHead`]), then the content.
///
/// Most are memfds: no name, and gone with their last descriptor and mapping. Every one of them is called "tine:…", and the head of
/// those with a name begins with a mark: a pool's nursery recognises by that which descriptors to keep.
#[derive(Debug)]
pub struct Segment {
    fd: OwnedFd,
    mapping: Mapping,
    /// Where the content begins, and its length: what is in the head is not to be trusted.
    body: usize,
    length: usize,
    kind: ObjectKind,
    name: Option<Name>,
    /// Ours in the registry.
    pub(super) entry: AtomicPtr<Entry>,
}

/// How long the content is, and how much of it, from its beginning on, has memory at once. The rest needs `sys::file::make` before it
/// is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub length: usize,
    pub there: usize,
}

impl Extent {
    pub fn whole(length: usize) -> Extent {
        Extent { length, there: length }
    }
}

impl Segment {
    /// `length` bytes of zeros without a name.
    pub fn create(kind: ObjectKind, length: usize) -> Result<Arc<Segment>> {
        Segment::create_unnamed(kind, Extent::whole(length))
    }

    fn create_unnamed(kind: ObjectKind, extent: Extent) -> Result<Arc<Segment>> {
        let (whole, there) = (whole_length(kind, extent.length)?, whole_length(kind, extent.there)?);
        let fd = memory::create(kind.label(), there)?;
        memory::lengthen(fd.as_fd(), there, whole)?;
        Segment::begin(fd, kind, extent.length, None)
    }

    /// The segment that `naming` says: a new one with what `init` writes, or the one with that name as it is.
    pub fn make(
        kind: ObjectKind,
        extent: Extent,
        naming: &Naming,
        init: impl Fn(&Arc<Segment>) -> Result<()>,
    ) -> Result<Arc<Segment>> {
        let (name, opens) = match naming {
            Naming::None => {
                let segment = Segment::create_unnamed(kind, extent).map_err(|error| error.context(kind.word()))?;
                return init(&segment).map(|()| segment);
            }
            Naming::New(name) => (name, false),
            Naming::OpenOrCreate(name) => (name, true),
        };
        // Others may make and remove the name meanwhile: then they got on.
        for _ in 0..1000 {
            if opens {
                match Segment::open(kind, name) {
                    Err(error) if error.kind() == Kind::NotFound => {}
                    opened => return opened,
                }
            }
            // Looked for first: what would be made for nothing may be much. Who has the name in the end is decided by giving it.
            let made = match !opens && shared_file::has_name(&name.path()) {
                true => None,
                false => Segment::create_named(kind, extent, name, &init)?,
            };
            match made {
                Some(segment) => return Ok(segment),
                None if !opens => {
                    return Err(Error::new(Kind::Exists, format!("name: \"{}\" is taken", name.shown())));
                }
                None => {}
            }
        }
        Err(Error::new(Kind::Again, format!("name: \"{}\" is made and removed all the time", name.shown())))
    }

    /// The segment with that name.
    pub fn open(kind: ObjectKind, name: &Name) -> Result<Arc<Segment>> {
        let fd = shared_file::open_named(&name.path()).map_err(|error| match error.kind() {
            Kind::NotFound => Error::new(Kind::NotFound, format!("name: there is no \"{}\"", name.shown())),
            Kind::Access | Kind::NotPermitted => name.not_permitted(),
            _ => error.context("name"),
        })?;
        let of_name = |error: Error| error.context(format_args!("name: \"{}\"", name.shown()));
        let facts = shared_file::facts(fd.as_fd())?;
        // Anybody may make files there, also for others to write, and root may open those of all.
        if facts.owner != shared_file::own_user() {
            return Err(name.not_permitted());
        }
        let segment = Segment::adopt(fd, &facts).map_err(of_name)?;
        match segment.kind {
            same if same == kind => Ok(segment),
            other => Err(of_name(Error::invalid(format!("it is {}, not {}", other.noun(), kind.noun())))),
        }
    }

    /// `None`: the name is taken.
    fn create_named(
        kind: ObjectKind,
        extent: Extent,
        name: &Name,
        init: &impl Fn(&Arc<Segment>) -> Result<()>,
    ) -> Result<Option<Arc<Segment>>> {
        if let Some(fd) = shared_file::create_unnamed()? {
            let segment = Segment::fill(fd, kind, extent, name, init)?;
            shared_file::lock(segment.fd(), shared_file::Lock::Shared);
            if let Some(given) = shared_file::give_name(segment.fd(), &name.path())? {
                return Ok(given.then_some(segment));
            }
        }
        Segment::create_by_draft(kind, extent, name, init)
    }

    /// For systems without files that have no name, or without /proc: a file that others take for theirs if we are killed.
    fn create_by_draft(
        kind: ObjectKind,
        extent: Extent,
        name: &Name,
        init: &impl Fn(&Arc<Segment>) -> Result<()>,
    ) -> Result<Option<Arc<Segment>>> {
        let deadline = Deadline::new(Timeout::Millis(1000));
        let fd = loop {
            match shared_file::create_draft(&name.draft())? {
                Some(fd) => break fd,
                None if deadline.passed() => {
                    let text = format!("name: for 1 s another process was about to make \"{}\"", name.shown());
                    return Err(Error::new(Kind::Busy, text));
                }
                None => std::thread::sleep(std::time::Duration::from_millis(1)),
            }
        };
        let filled = Segment::fill(fd, kind, extent, name, init);
        let Ok(segment) = filled else {
            let _ = shared_file::remove_name(&name.draft());
            return filled.map(Some);
        };
        let named = shared_file::name_draft(&name.draft(), &name.path())?;
        shared_file::lock(segment.fd(), shared_file::Lock::Shared);
        Ok(named.then_some(segment))
    }

    fn fill(
        fd: OwnedFd,
        kind: ObjectKind,
        extent: Extent,
        name: &Name,
        init: &impl Fn(&Arc<Segment>) -> Result<()>,
    ) -> Result<Arc<Segment>> {
        let (whole, there) = (whole_length(kind, extent.length)?, whole_length(kind, extent.there)?);
        let made = memory::extend(fd.as_fd(), 0, there).and_then(|()| memory::lengthen(fd.as_fd(), there, whole));
        made.map_err(|error| error.context(kind.word()))?;
        let segment = Segment::begin(fd, kind, extent.length, Some(name.clone()))?;
        init(&segment).map(|()| segment)
    }

    /// The first mapping of a file that nobody else knows.
    fn begin(fd: OwnedFd, kind: ObjectKind, length: usize, name: Option<Name>) -> Result<Arc<Segment>> {
        let body = body_of(kind);
        let mapping = Mapping::shared(fd.as_fd(), memory::whole_pages(body + length), Access::ReadWrite)?;
        let mut head = SegmentHead {
            version: VERSION,
            kind: kind as u32,
            namespace: shared_file::pid_namespace(),
            body: body as u64,
            length: length as u64,
            name: [0; 208],
        };
        if let Some(name) = &name {
            let text = name.text().to_bytes();
            head.name[..text.len()].copy_from_slice(text);
        }
        let bytes = head.to_bytes();
        // SAFETY: the mapping is longer than a head, and nobody else has it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), mapping.address().as_ptr(), bytes.len()) };
        let identity = shared_file::facts(fd.as_fd())?.identity;
        Ok(registry::enter(Segment::new(fd, mapping, body, length, kind, name), identity))
    }

    fn new(fd: OwnedFd, mapping: Mapping, body: usize, length: usize, kind: ObjectKind, name: Option<Name>) -> Arc<Segment> {
        tsan::look_up();
        Arc::new(Segment { fd, mapping, body, length, kind, name, entry: AtomicPtr::new(ptr::null_mut()) })
    }

    /// The mapping of a file that another process made, if it is one of ours; the only one in this process.
    pub(super) fn adopt(fd: OwnedFd, facts: &Facts) -> Result<Arc<Segment>> {
        let damaged = |why: &str| Error::new(Kind::Corrupt, format!("it is not shared memory of this library: {why}"));
        if !facts.is_plain {
            return Err(damaged("it is not a file"));
        }
        let has_name = shared_file::is_in_folder(facts);
        if !has_name && !shared_file::never_shrinks(fd.as_fd()) {
            return Err(damaged("somebody could make it shorter"));
        }
        // Before the head is read: from here on nobody moves it elsewhere.
        if has_name && !shared_file::lock_shared_patiently(fd.as_fd()) {
            return Err(Error::new(Kind::Busy, "for 1 s a process was about to take it over"));
        }
        let head = read_head(fd.as_fd())?.ok_or_else(|| damaged("it does not begin with the mark"))?;
        if head.version != VERSION {
            let text = format!("made by another version of the library: its layout is {}, ours is {VERSION}", head.version);
            return Err(Error::new(Kind::NotSupported, text));
        }
        let kind = ObjectKind::of_number(head.kind).ok_or_else(|| damaged("its kind is unknown"))?;
        let (body, length) = match (usize::try_from(head.body), usize::try_from(head.length)) {
            (Ok(body), Ok(length)) if body == body_of(kind) => (body, length),
            _ => return Err(damaged("its head was written over")),
        };
        let whole = whole_length(kind, length).map_err(|_| damaged("its head was written over"))?;
        if facts.length < whole as u64 {
            return Err(damaged("it is shorter than it was made"));
        }
        if head.namespace != shared_file::pid_namespace() {
            move_here(fd.as_fd(), has_name)?;
        }
        if let Some(mapped) = registry::find(facts.identity) {
            return Ok(mapped);
        }
        let mapping = Mapping::shared(fd.as_fd(), whole, Access::ReadWrite)?;
        let name = Name::of_head(&head.name);
        Ok(registry::enter(Segment::new(fd, mapping, body, length, kind, name), facts.identity))
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Of the mapping, from the file's first byte on: whole pages.
    pub fn length(&self) -> usize {
        self.mapping.length()
    }

    pub fn kind(&self) -> ObjectKind {
        self.kind
    }

    pub fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    /// Of the content, as it was asked for.
    pub fn content_length(&self) -> usize {
        self.length
    }

    /// Where the content lies in this process.
    pub fn content(&self) -> NonNull<u8> {
        // SAFETY: inside the mapping.
        unsafe { self.mapping.address().add(self.body) }
    }

    /// Where in the file the byte `offset` of the content lies, and back.
    pub fn position(&self, offset: usize) -> u64 {
        (self.body + offset) as u64
    }

    pub(super) fn offset(&self, position: u64) -> Option<usize> {
        usize::try_from(position).ok()?.checked_sub(self.body)
    }

    /// The first offset in the content, from `offset` on, that lies at the beginning of a page of the file.
    pub fn next_page(kind: ObjectKind, offset: usize) -> usize {
        memory::whole_pages(body_of(kind) + offset) - body_of(kind)
    }

    /// The bytes of the content from `offset` on.
    pub fn bytes(self: &Arc<Segment>, offset: usize, length: usize) -> Result<Bytes> {
        self.check(offset, length, 1)?;
        // SAFETY: inside the mapping, which the `Arc` keeps.
        Ok(unsafe { Bytes::new(self.content().add(offset), length, self.clone()) })
    }

    /// The object at `offset` of the content.
    pub fn object<T: Shared>(self: &Arc<Segment>, offset: usize) -> Result<Object<T>> {
        self.check(offset, size_of::<T>(), align_of::<T>())?;
        // SAFETY: inside the mapping and aligned.
        let pointer = unsafe { self.content().add(offset) }.cast();
        Ok(Object { pointer, segment: self.clone(), pin: Pin::default(), marker: PhantomData })
    }

    /// The object at `offset`, which says itself what it is; `None`: it is not a `T`.
    pub fn marked<T: Marked>(self: &Arc<Segment>, offset: usize) -> Result<Option<Object<T>>> {
        let object: Object<T> = self.object(offset)?;
        // SYNC POINT: mark (acquire; the release is in `handing_on::complete`).
        let marked = object.mark().atomic().load(Ordering::Acquire) == T::KIND.mark();
        Ok(marked.then_some(object))
    }

    /// The `count` objects from `offset` on.
    pub fn objects<T: Shared>(self: &Arc<Segment>, offset: usize, count: usize) -> Result<Objects<T>> {
        let length = count.checked_mul(size_of::<T>()).ok_or_else(|| Error::invalid("shared memory: too many objects"))?;
        self.check(offset, length, align_of::<T>())?;
        // SAFETY: inside the mapping and aligned.
        let first = unsafe { self.content().add(offset) }.cast();
        Ok(Objects { first, count, _segment: self.clone(), marker: PhantomData })
    }

    fn check(&self, offset: usize, length: usize, align: usize) -> Result<()> {
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.length);
        if inside && offset % align == 0 { Ok(()) } else { Err(Error::invalid("shared memory: offset outside of the segment")) }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        registry::leave(self.entry.load(Ordering::Acquire));
    }
}

/// The users of blocks get whole pages.
fn body_of(kind: ObjectKind) -> usize {
    if kind == ObjectKind::SharedMemory { memory::whole_pages(SegmentHead::LENGTH) } else { SegmentHead::LENGTH }
}

fn whole_length(kind: ObjectKind, length: usize) -> Result<usize> {
    let whole = length.checked_add(body_of(kind)).filter(|&whole| whole <= 1 << 47).map(memory::whole_pages);
    whole.ok_or_else(|| Error::new(Kind::NoSpace, format!("{length} bytes of shared memory are more than there can be")))
}

fn read_head(fd: BorrowedFd) -> Result<Option<SegmentHead>> {
    let mut bytes = [MaybeUninit::uninit(); SegmentHead::LENGTH];
    match file::read_at(fd, &mut bytes, 0) {
        // SAFETY: `read_at` says that it filled all of it.
        Ok(true) => Ok(SegmentHead::from_bytes(&bytes.map(|byte| unsafe { byte.assume_init() }))),
        Ok(false) => Ok(None),
        Err(errno) => Err(sys::failure(errno, "pread of shared memory")),
    }
}

/// Makes this process's pid namespace the segment's, which is another one's: possible if nobody uses the segment, as after a container
/// was started anew. Its words are free then: the kernel has seen to those of the dead.
fn move_here(fd: BorrowedFd, has_name: bool) -> Result<()> {
    let refused = || {
        let text = "its users are in another pid namespace: the numbers of their threads mean others here";
        Err(Error::new(Kind::NotSupported, text))
    };
    let here = shared_file::pid_namespace();
    if here == 0 || !has_name || !shared_file::lock(fd, shared_file::Lock::Alone) {
        return refused();
    }
    let written = file::write_at(fd, &here.to_ne_bytes(), SegmentHead::NAMESPACE_AT);
    written.map_err(|errno| sys::failure(errno, "pwrite to shared memory"))?;
    // Between the two locks somebody else may have had it alone.
    let still_here = shared_file::lock_shared_patiently(fd) && read_head(fd)?.is_some_and(|head| head.namespace == here);
    if still_here { Ok(()) } else { refused() }
}

/// A `T` in shared memory; keeps the mapping.
#[derive(Debug)]
pub struct Object<T: Shared> {
    pointer: NonNull<T>,
    segment: Arc<Segment>,
    /// What the tokens of this handle depend on.
    pin: Pin,
    marker: PhantomData<T>,
}

impl<T: Shared> Object<T> {
    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    pub(super) fn pin(&self) -> &Pin {
        &self.pin
    }

    /// Where in the segment's content it lies.
    pub(super) fn offset(&self) -> usize {
        self.pointer.as_ptr() as usize - self.segment.content().as_ptr() as usize
    }

    /// The `count` objects directly behind it.
    pub fn tail<U: Shared>(&self, count: usize) -> Result<Objects<U>> {
        self.segment.objects(self.offset() + size_of::<T>(), count)
    }

    /// Keeps the memory mapped until the process ends. For an object that is freed while a thread has a word of it on its robust
    /// list: the list must not lead into unmapped memory, what lies behind it would be lost.
    pub fn keep_mapped(&self) {
        KEPT.with(|kept| {
            if !kept.iter().any(|other| Arc::ptr_eq(other, &self.segment)) {
                kept.push(self.segment.clone());
            }
        });
    }
}

/// For a call that sleeps: not another handle, so without the tokens.
impl<T: Shared> Clone for Object<T> {
    fn clone(&self) -> Object<T> {
        Object { pointer: self.pointer, segment: self.segment.clone(), pin: Pin::default(), marker: PhantomData }
    }
}

impl<T: Shared> Deref for Object<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `Segment::object` checked it; every bit pattern of a `Shared` is valid and it consists of atomics.
        unsafe { self.pointer.as_ref() }
    }
}

// SAFETY: a `Shared` type is `Sync`, and the mapping is neither bound to a thread nor changed.
unsafe impl<T: Shared> Send for Object<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for Object<T> {}

/// Several `T`s in a row; keeps the mapping.
#[derive(Debug)]
pub struct Objects<T: Shared> {
    first: NonNull<T>,
    count: usize,
    _segment: Arc<Segment>,
    marker: PhantomData<T>,
}

impl<T: Shared> Clone for Objects<T> {
    fn clone(&self) -> Objects<T> {
        Objects { first: self.first, count: self.count, _segment: self._segment.clone(), marker: PhantomData }
    }
}

impl<T: Shared> Deref for Objects<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `Segment::objects` checked them; every bit pattern of a `Shared` is valid and it consists of atomics.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

// SAFETY: a `Shared` type is `Sync`, and the mapping is neither bound to a thread nor changed.
unsafe impl<T: Shared> Send for Objects<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for Objects<T> {}
