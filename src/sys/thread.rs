//! What the calling thread is to the kernel: its number, its list of robust words, and whether its process was just forked.
//!
//! # Forks
//! A page that `MADV_WIPEONFORK` empties in every child, whoever forks and however, holds the process's *epoch*. A thread compares
//! it with the copy in its own memory: one load on the hot path, no getpid(), no handler at fork.
//!
//! # The robust list
//! Each thread has one list that the kernel walks when the thread ends: every 32-bit word that it names and that holds the thread's
//! number gets FUTEX_OWNER_DIED, and one waiter is woken. The list belongs to libc, whose own robust mutexes live in it, so ours are
//! linked among them in glibc's format: a node is {prev, next}, both point at the `next` of a neighbour, and the word lies
//! `futex_offset` from there (kernel: Documentation/locking/robust-futex-ABI.rst). A libc whose words lie elsewhere is refused at a
//! thread's first call. `list_op_pending` names one more word, for the moments in which a thread is about to own a word or has just
//! stopped.
//!
//! Our nodes lie in shared memory, where a hostile peer may write. Nothing read from a node is believed: this thread remembers
//! privately which nodes it linked ([`Held`]) and which foreign nodes lay below each of them at that moment, and accepts only
//! those addresses. A foreign mutex may be gone by then, with its memory: its node must lead back to ours, too ([`leads_back`]).

use std::cell::{Cell, RefCell};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering::*, compiler_fence};

use crate::error::{Error, Kind, Result};

/// The kernel's `struct robust_list_head`.
#[repr(C)]
pub struct RobustHead {
    /// Address of the first entry, or of this field itself if there is none.
    next: AtomicUsize,
    futex_offset: isize,
    pending: AtomicUsize,
}

/// Where a node's `next` lies behind its word: what glibc's mutexes on 64-bit Linux have; checked once per thread.
pub const NODE_NEXT: usize = 32;
/// Where its `prev` lies behind the word.
pub const NODE_PREV: usize = NODE_NEXT - size_of::<usize>();

/// How many words one thread may hold across calls at a time. The kernel stops walking after 2,048 entries.
pub const HELD_MAX: usize = 256;
/// How many robust mutexes of others may lie between ours.
const FOREIGN_MAX: usize = 64;

/// The calling thread; cheap to make, good until the thread ends or forks.
#[derive(Clone, Copy)]
pub struct Thread {
    /// In thread-local memory: looked up once per call. Not `Send`, so it cannot outlive the thread.
    local: NonNull<Local>,
}

struct Local {
    epoch: Cell<u64>,
    head: Cell<*const RobustHead>,
    tid: Cell<u32>,
    held: RefCell<Held>,
}

thread_local! {
    // Const and without Drop: plain thread-local memory, no destructor, nothing to allocate.
    static LOCAL: Local = const {
        Local {
            epoch: Cell::new(0),
            head: Cell::new(ptr::null()),
            tid: Cell::new(0),
            held: RefCell::new(Held { count: 0, nodes: [0; HELD_MAX], foreign_start: [0; HELD_MAX], foreign_count: 0, foreign: [0; FOREIGN_MAX] }),
        }
    };
}

static EPOCH_PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());

/// A number that names this process and no ancestor of it; never 0.
#[inline]
pub fn epoch() -> u64 {
    // SYNC POINT: epoch page (acquire; the release is in `make_epoch_page`).
    let page = EPOCH_PAGE.load(Acquire);
    // SAFETY: the page is never unmapped once it is published.
    let epoch = if page.is_null() { 0 } else { unsafe { (*page).load(Relaxed) } };
    if epoch != 0 { epoch } else { new_epoch() }
}

/// The first call in a process, and the first in a forked child.
#[cold]
fn new_epoch() -> u64 {
    let page = EPOCH_PAGE.load(Acquire);
    let page = if page.is_null() { make_epoch_page() } else { page };
    // Unique against every ancestor: its time of birth, mixed with its number for clocks that are namespaced.
    let epoch = (super::now() << 8 ^ u64::from(std::process::id())) | 1;
    // SAFETY: mapped for ever. Two threads may race for the first epoch; the loser takes the winner's.
    match unsafe { (*page).compare_exchange(0, epoch, AcqRel, Acquire) } {
        Ok(_) => epoch,
        Err(winner) => winner,
    }
}

fn make_epoch_page() -> *mut AtomicU64 {
    // SAFETY: a fresh private mapping; the arguments are valid.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            page_size(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert!(page != libc::MAP_FAILED, "no memory for one page");
    // SAFETY: the page was just mapped. The advice is known since Linux 4.14.
    let advised = unsafe { libc::madvise(page, page_size(), libc::MADV_WIPEONFORK) };
    assert!(advised == 0, "the kernel does not know MADV_WIPEONFORK");
    let page = page.cast::<AtomicU64>();
    // SYNC POINT: epoch page (release).
    match EPOCH_PAGE.compare_exchange(ptr::null_mut(), page, AcqRel, Acquire) {
        Ok(_) => page,
        Err(winner) => {
            // SAFETY: ours, and nobody saw it.
            unsafe { libc::munmap(page.cast(), page_size()) };
            winner
        }
    }
}

pub fn page_size() -> usize {
    // SAFETY: no arguments that could be wrong.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Whether a thread of this process has that number; also where nobody can know. Nothing is done to it.
pub fn may_be_ours(tid: u32) -> bool {
    std::path::Path::new("/proc/self/task").join(tid.to_string()).exists() || !super::nursery::proc_is_ours()
}

impl Thread {
    /// `None` in a thread's first call of all, and in its first one in a forked child.
    #[inline(always)]
    pub fn if_known() -> Option<Thread> {
        // SYNC POINT: epoch page (acquire).
        let page = EPOCH_PAGE.load(Acquire);
        // SAFETY: the page is never unmapped once it is published.
        let epoch = if page.is_null() { return None } else { unsafe { (*page).load(Relaxed) } };
        LOCAL.with(|local| (local.epoch.get() == epoch && epoch != 0).then(|| Thread { local: NonNull::from(local) }))
    }

    #[inline]
    pub fn current() -> Thread {
        LOCAL.with(|local| {
            // An epoch of 0 (fresh thread) or of an ancestor never equals this process's.
            if local.epoch.get() != epoch() {
                local.renew();
            }
            Thread { local: NonNull::from(local) }
        })
    }

    #[inline]
    fn local<'a>(self) -> &'a Local {
        // SAFETY: this thread's own memory; it has no destructor and lives as long as the thread.
        unsafe { self.local.as_ref() }
    }

    #[inline]
    fn head<'a>(self) -> &'a RobustHead {
        // SAFETY: libc's list head of this thread, which `renew` asked the kernel for; alive as long as the thread.
        unsafe { &*self.local().head.get() }
    }

    /// The number that the kernel compares with the words at the thread's end.
    #[inline]
    pub fn tid(self) -> u32 {
        self.local().tid.get()
    }

    /// Names the word about to be owned or just given up: if the thread ends now, the kernel looks at that word too.
    #[inline]
    pub fn set_pending(self, word: *const u32) {
        self.head().pending.store(word as usize + NODE_NEXT, Relaxed);
        // The kernel reads it when this very thread is dead: only the compiler could reorder.
        compiler_fence(SeqCst);
    }

    #[inline]
    pub fn clear_pending(self) {
        compiler_fence(SeqCst);
        self.head().pending.store(0, Relaxed);
    }

    /// Puts `word`, which this thread owns or is about to own (it is pending), on the list.
    ///
    /// # Safety
    /// The 64 bytes of the word's cell stay mapped and writable until [`Thread::unlink`].
    #[inline(always)]
    pub unsafe fn link(self, word: *const u32) -> Result<()> {
        let Ok(mut held) = self.local().held.try_borrow_mut() else { return Err(inside()) };
        // SAFETY: forwarded.
        unsafe { held.link(self.head(), word as usize + NODE_NEXT) }
    }

    /// Takes `word` off the list; it is pending. `false`: somebody wrote over its node; the list was mended as far as this thread
    /// knows it.
    ///
    /// # Safety
    /// As for [`Thread::link`].
    #[inline(always)]
    pub unsafe fn unlink(self, word: *const u32) -> bool {
        let Ok(mut held) = self.local().held.try_borrow_mut() else { return false };
        // SAFETY: forwarded.
        unsafe { held.unlink(self.head(), word as usize + NODE_NEXT) }
    }

    /// [`Thread::unlink`] if nothing else is on the list; `false`: nothing was done.
    ///
    /// # Safety
    /// As for [`Thread::link`], if this thread linked it; else any address.
    #[inline(always)]
    pub unsafe fn unlink_only(self, word: *const u32) -> bool {
        let Ok(mut held) = self.local().held.try_borrow_mut() else { return false };
        // SAFETY: forwarded.
        unsafe { held.unlink_only(self.head(), word as usize + NODE_NEXT) }
    }

    /// Whether this thread has `word` on its list.
    #[inline(always)]
    pub fn holds(self, word: *const u32) -> bool {
        self.local().held.try_borrow().is_ok_and(|held| held.position(word as usize + NODE_NEXT).is_some())
    }
}

/// A signal's handler called the library in the middle of a call of the library.
#[cold]
fn inside() -> Error {
    Error::new(Kind::Again, "thread: a signal handler interrupted a call of it that takes or gives a lock")
}

impl Local {
    #[cold]
    fn renew(&self) {
        let mut head: *const RobustHead = ptr::null();
        let mut length = 0usize;
        // SAFETY: the kernel writes the two out-values; pid 0 is the calling thread.
        let failed = unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut length) } != 0;
        assert!(!failed && !head.is_null(), "the kernel or libc keeps no robust list for this thread");
        // SAFETY: libc registered it for this thread.
        let offset = unsafe { (*head).futex_offset };
        assert!(offset == -(NODE_NEXT as isize), "libc's robust mutexes have another layout (futex_offset {offset})");
        self.head.set(head);
        // SAFETY: no arguments.
        self.tid.set(unsafe { libc::syscall(libc::SYS_gettid) } as u32);
        // libc emptied the list of a forked child: what the parent's thread held is not ours.
        self.held.borrow_mut().clear();
        self.epoch.set(epoch());
    }
}

/// What this thread has on the list, oldest first, and the foreign entries that lay directly below each when it was linked.
struct Held {
    count: usize,
    nodes: [usize; HELD_MAX],
    /// `foreign[foreign_start[i]..foreign_start[i + 1]]` lay between node i and node i - 1.
    foreign_start: [u16; HELD_MAX],
    foreign_count: u16,
    foreign: [usize; FOREIGN_MAX],
}

impl Held {
    fn clear(&mut self) {
        self.count = 0;
        self.foreign_count = 0;
    }

    #[inline(always)]
    fn position(&self, entry: usize) -> Option<usize> {
        self.nodes[..self.count].iter().rposition(|&node| node == entry)
    }

    #[inline(always)]
    unsafe fn link(&mut self, head: &RobustHead, entry: usize) -> Result<()> {
        // The usual case: the list is empty.
        let first = head.next.load(Relaxed);
        if self.count == 0 && first == &raw const head.next as usize {
            self.foreign_start[0] = self.foreign_count;
            // SAFETY: forwarded; `first` is the head.
            unsafe { self.push(head, entry, first) };
            return Ok(());
        }
        // SAFETY: forwarded.
        unsafe { self.link_among_others(head, entry, first) }
    }

    #[inline(never)]
    unsafe fn link_among_others(&mut self, head: &RobustHead, entry: usize, first: usize) -> Result<()> {
        let bottom = &raw const head.next as usize;
        let ours = if self.count == 0 { bottom } else { self.nodes[self.count - 1] };
        // Linked before, and its word written over since: it is on the list still.
        if self.position(entry).is_some() {
            return Ok(());
        }
        if self.count == HELD_MAX {
            return Err(Error::new(Kind::Again, "thread: it holds 256 locks, permits and reservations already"));
        }
        self.foreign_start[self.count] = self.foreign_count;
        if first != ours {
            // SAFETY: robust mutexes of others on this thread's list; libc follows them in the same way.
            unsafe { self.remember_foreign(first, ours, bottom)? };
        }
        // SAFETY: forwarded; our own entries below are mapped, the others are libc's.
        unsafe { self.push(head, entry, first) };
        Ok(())
    }

    /// Puts `entry` before `first`, the entry that is the newest.
    #[inline(always)]
    unsafe fn push(&mut self, head: &RobustHead, entry: usize, first: usize) {
        // SAFETY: the caller's cell, and an entry of this thread's list or its head.
        unsafe {
            next_of(entry).store(first, Relaxed);
            prev_of(entry).store(&raw const head.next as usize, Relaxed);
            // Bit 0 marks a priority-inheritance mutex.
            prev_of(first & !1).store(entry, Relaxed);
        }
        // The node must be whole before the list leads to it.
        compiler_fence(SeqCst);
        head.next.store(entry, Relaxed);
        compiler_fence(SeqCst);
        self.nodes[self.count] = entry;
        self.count += 1;
    }

    #[cold]
    unsafe fn remember_foreign(&mut self, first: usize, ours: usize, bottom: usize) -> Result<()> {
        let start = self.foreign_count;
        let mut entry = first & !1;
        while entry != ours && entry != bottom {
            if self.foreign_count as usize == FOREIGN_MAX {
                self.foreign_count = start;
                return Err(Error::new(Kind::Again, "thread: it holds more than 64 robust mutexes that are not of this library"));
            }
            self.foreign[self.foreign_count as usize] = entry;
            self.foreign_count += 1;
            // SAFETY: the caller's promise.
            entry = unsafe { next_of(entry).load(Relaxed) } & !1;
        }
        Ok(())
    }

    /// The entries that lay below node `index` when it was linked.
    fn foreign_below(&self, index: usize) -> std::ops::Range<usize> {
        let end = if index + 1 < self.count { self.foreign_start[index + 1] } else { self.foreign_count };
        self.foreign_start[index] as usize..end as usize
    }

    fn own_below(&self, index: usize, bottom: usize) -> usize {
        if index == 0 { bottom } else { self.nodes[index - 1] }
    }

    /// What the node at `index` says comes next, if it is an address that this thread knows; else its own next older node, and false.
    unsafe fn next_checked(&self, index: usize, bottom: usize) -> (usize, bool) {
        let node = self.nodes[index];
        // SAFETY: a cell that this thread linked and whose owner keeps it mapped.
        let next = unsafe { next_of(node).load(Relaxed) };
        let below = self.own_below(index, bottom);
        let is_foreign = || self.foreign[self.foreign_below(index)].contains(&(next & !1)) && leads_back(next & !1, node);
        if next == below || is_foreign() { (next, true) } else { (below, false) }
    }

    /// The usual case of [`Held::unlink`]: nothing else is on the list. `false`: nothing was done.
    ///
    /// # Safety
    /// As for [`Thread::link`], if this thread linked it; else any number.
    #[inline(always)]
    unsafe fn unlink_only(&mut self, head: &RobustHead, entry: usize) -> bool {
        let bottom = &raw const head.next as usize;
        let linked = self.count == 1 && self.nodes[0] == entry && head.next.load(Relaxed) == entry;
        // SAFETY: forwarded; this thread linked it.
        if !linked || unsafe { next_of(entry).load(Relaxed) } != bottom {
            return false;
        }
        head.next.store(bottom, Relaxed);
        // SAFETY: libc keeps a `prev` before its head.
        unsafe { prev_of(bottom).store(bottom, Relaxed) };
        compiler_fence(SeqCst);
        self.foreign_count = self.foreign_start[0];
        self.count = 0;
        true
    }

    #[inline]
    unsafe fn unlink(&mut self, head: &RobustHead, entry: usize) -> bool {
        // SAFETY: forwarded.
        unsafe { self.unlink_only(head, entry) || self.unlink_among_others(head, entry) }
    }

    #[inline(never)]
    unsafe fn unlink_among_others(&mut self, head: &RobustHead, entry: usize) -> bool {
        let bottom = &raw const head.next as usize;
        let Some(index) = self.position(entry) else { return false };
        // SAFETY: forwarded.
        let (next, mut sound) = unsafe { self.next_checked(index, bottom) };
        if head.next.load(Relaxed) == entry {
            head.next.store(next, Relaxed);
            // SAFETY: `next` is the head, a node of ours or one that libc linked.
            unsafe { prev_of(next & !1).store(bottom, Relaxed) };
        } else {
            // SAFETY: forwarded.
            sound &= unsafe { self.unlink_below(head, entry, next) };
        }
        compiler_fence(SeqCst);
        self.forget(index);
        sound
    }

    /// Unlinks an entry that others were linked after.
    #[cold]
    unsafe fn unlink_below(&self, head: &RobustHead, entry: usize, next: usize) -> bool {
        let bottom = &raw const head.next as usize;
        let mut sound = true;
        let mut above = bottom;
        for _ in 0..2048 {
            let following = if above == bottom {
                head.next.load(Relaxed) & !1
            } else if let Some(index) = self.position(above) {
                // SAFETY: forwarded.
                let (next, known) = unsafe { self.next_checked(index, bottom) };
                sound &= known;
                next & !1
            } else {
                // SAFETY: libc linked it and follows it in the same way.
                unsafe { next_of(above).load(Relaxed) & !1 }
            };
            if following == entry {
                // SAFETY: both are nodes of this thread's list or its head.
                unsafe {
                    next_of(above).store(next, Relaxed);
                    prev_of(next & !1).store(above, Relaxed);
                }
                return sound;
            }
            if following == bottom {
                break;
            }
            above = following;
        }
        // A damaged node hid it: everything newer that this thread knows is still above, so lead from the next newer one past it.
        if let Some(newer) = self.position(entry).and_then(|index| self.nodes[..self.count].get(index + 1)) {
            // SAFETY: a node that this thread linked.
            unsafe { next_of(*newer).store(next, Relaxed) };
        }
        false
    }

    #[inline(always)]
    fn forget(&mut self, index: usize) {
        if index + 1 == self.count {
            self.foreign_count = self.foreign_start[index];
        } else {
            // What lay below this node now lies below the next newer one.
            self.foreign_start[index + 1] = self.foreign_start[index];
            self.nodes.copy_within(index + 1..self.count, index);
            self.foreign_start.copy_within(index + 1..self.count, index);
        }
        self.count -= 1;
    }
}

/// Whether the foreign node at `entry`, or what lies there by now, says that `newer` is its neighbour: libc clears that when the mutex
/// is given up. Its memory may be gone, so the kernel is asked to read it; where it refuses that altogether, nobody can know.
#[cold]
fn leads_back(entry: usize, newer: usize) -> bool {
    let mut prev = 0usize;
    let local = libc::iovec { iov_base: (&raw mut prev).cast(), iov_len: size_of::<usize>() };
    let there = ptr::without_provenance_mut(entry - size_of::<usize>());
    let remote = libc::iovec { iov_base: there, iov_len: size_of::<usize>() };
    // SAFETY: one writable word; the kernel checks the other address, which is one of this process.
    let read = unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
    if read == size_of::<usize>() as isize { prev == newer } else { super::errno() != libc::EFAULT }
}

/// # Safety
/// `entry` is the address of a mapped `next` of a node, or of the list's head.
unsafe fn next_of<'a>(entry: usize) -> &'a AtomicUsize {
    // SAFETY: forwarded.
    unsafe { &*ptr::with_exposed_provenance::<AtomicUsize>(entry) }
}

/// # Safety
/// As for `next_of`; libc keeps a `prev` before its head, too.
unsafe fn prev_of<'a>(entry: usize) -> &'a AtomicUsize {
    // SAFETY: forwarded.
    unsafe { &*ptr::with_exposed_provenance::<AtomicUsize>(entry - size_of::<usize>()) }
}
