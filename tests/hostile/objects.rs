//! The objects, and every call on them.

use std::ffi::{CString, c_char, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tine::ffi::barrier::{
    tine_barrier_abort, tine_barrier_free, tine_barrier_is_broken, tine_barrier_new, tine_barrier_options_t, tine_barrier_reset,
    tine_barrier_t, tine_barrier_wait, tine_barrier_waiting,
};
use tine::ffi::condition::{
    tine_condition_free, tine_condition_new, tine_condition_notify, tine_condition_notify_all, tine_condition_t,
    tine_condition_wait,
};
use tine::ffi::event::{
    tine_event_clear, tine_event_free, tine_event_is_set, tine_event_new, tine_event_set, tine_event_t, tine_event_wait,
};
use tine::ffi::handing_on::{
    tine_barrier_attach, tine_barrier_open, tine_barrier_token, tine_condition_attach, tine_condition_open, tine_condition_token,
    tine_event_attach, tine_event_open, tine_event_token, tine_lock_attach, tine_lock_open, tine_lock_token, tine_queue_attach,
    tine_queue_open, tine_queue_token, tine_semaphore_attach, tine_semaphore_open, tine_semaphore_token,
    tine_shared_memory_attach, tine_shared_memory_open, tine_shared_memory_token, tine_token_t, tine_unlink,
};
use tine::ffi::lock::{
    TINE_LOCK_RECURSIVE, tine_lock_acquire, tine_lock_free, tine_lock_is_held, tine_lock_new, tine_lock_options_t,
    tine_lock_release, tine_lock_t,
};
use tine::ffi::memory::tine_free;
use tine::ffi::queue::{
    TINE_QUEUE_GROW, TINE_QUEUE_POLLABLE, tine_bytes_t, tine_queue_abandon, tine_queue_close, tine_queue_commit, tine_queue_free,
    tine_queue_get, tine_queue_get_alloc, tine_queue_get_many, tine_queue_is_empty, tine_queue_is_full, tine_queue_join,
    tine_queue_new, tine_queue_options_t, tine_queue_peek, tine_queue_put, tine_queue_put_many, tine_queue_release,
    tine_queue_reserve, tine_queue_size, tine_queue_t, tine_queue_task_done, tine_queue_unfinished, tine_queue_unpeek,
};
use tine::ffi::semaphore::{
    TINE_SEMAPHORE_TRACKED, tine_semaphore_acquire, tine_semaphore_free, tine_semaphore_new, tine_semaphore_release,
    tine_semaphore_t, tine_semaphore_value,
};
use tine::ffi::shared_memory::{
    tine_lock_at, tine_lock_new_in, tine_semaphore_at, tine_semaphore_new_in, tine_shared_memory_data, tine_shared_memory_free,
    tine_shared_memory_length, tine_shared_memory_new, tine_shared_memory_t,
};
use tine::ffi::status::{TINE_OK, tine_status_t};

/// One call: its name, and what it answers (predicates and numbers always 0).
pub type Call = (&'static str, fn(*mut c_void) -> i32);

/// Calls that take no timeout: they wait for as long as a word is owned by somebody who is inside, or seems to be.
pub fn takes_timeout(call: &str) -> bool {
    let none = ["close", "set", "clear", "task_done", "notify", "notify_all", "reset", "abort", "wait, acting", "wait, lock too"];
    !none.contains(&call) && !call.starts_with("release")
}

pub struct Kind {
    pub name: &'static str,
    pub new: fn() -> *mut c_void,
    pub free: fn(*mut c_void),
    /// Done before anybody scribbles, so that there is something to destroy.
    pub before: &'static [Call],
    pub calls: &'static [Call],
    /// What a sleeper sleeps in.
    pub sleeps: Call,
}

const TIMEOUT_MS: i64 = 2;
/// Long enough to be met asleep, short enough to wait for.
const ASLEEP_MS: i64 = 40;
const RING: usize = 4096;
const SMALL: [u8; 64] = [7; 64];
const LARGE: [u8; 1500] = [9; 1500];

pub const KINDS: &[Kind] = &[
    Kind {
        name: "queue",
        new: new_queue,
        free: free_queue,
        before: &[("put", put), ("put, large", put_large), ("put", put), ("get", get)],
        calls: &[
            ("get", get),
            ("put", put),
            ("get, small buffer", get_small),
            ("get_alloc", get_alloc),
            ("put, large", put_large),
            ("size", size),
            ("put, try", put_try),
            ("get, try", get_try),
            ("close", close),
            ("get, closed", get),
        ],
        sleeps: ("get", get_asleep),
    },
    Kind {
        name: "queue, in place",
        new: new_queue,
        free: free_queue,
        before: &[("reserve", reserve), ("commit", commit), ("peek", peek), ("reserve", reserve)],
        calls: &[
            ("commit", commit),
            ("unpeek", unpeek),
            ("peek", peek),
            ("release", release_message),
            ("reserve, large", reserve_large),
            ("commit", commit),
            ("peek", peek),
            ("put", put),
            ("get", get),
            ("release", release_message),
            ("reserve", reserve),
            ("abandon", abandon),
        ],
        sleeps: ("peek", peek_asleep),
    },
    Kind {
        name: "queue, many, growing, pollable",
        new: || new_queue_with(TINE_QUEUE_GROW | TINE_QUEUE_POLLABLE),
        free: free_queue,
        before: &[("put_many", put_many), ("get_many", get_many), ("put_many", put_many)],
        calls: &[
            ("get_many", get_many),
            ("put_many", put_many),
            ("put_many", put_many),
            ("unfinished", unfinished),
            ("join", join),
            ("task_done", task_done),
            ("get_many", get_many),
            ("put, large", put_large),
            ("get_many", get_many),
            ("get_many", get_many),
            ("close", close),
        ],
        sleeps: ("join", join_asleep),
    },
    Kind {
        name: "queue, attached",
        new: new_queue,
        free: free_queue,
        before: &[("put", put), ("attach", attach)],
        calls: &[("attach", attach), ("put", put), ("attach", attach), ("get", get), ("attach", attach)],
        sleeps: ("get", get_asleep),
    },
    Kind {
        name: "queue, growing, attached",
        new: || new_queue_with(TINE_QUEUE_GROW),
        free: free_queue,
        before: &[("put", put), ("attach", attach)],
        calls: &[("attach", attach), ("put", put), ("put_many", put_many), ("attach", attach), ("get", get), ("attach", attach)],
        sleeps: ("get", get_asleep),
    },
    Kind {
        name: "lock",
        new: || new_lock(0),
        free: free_lock,
        before: &[("acquire", acquire), ("release", release)],
        calls: LOCK_CALLS,
        sleeps: ("acquire", acquire_asleep),
    },
    Kind {
        name: "lock, held",
        new: || new_lock(0),
        free: free_lock,
        before: &[("acquire", acquire)],
        calls: LOCK_CALLS_HELD,
        sleeps: ("acquire", acquire_asleep),
    },
    Kind {
        name: "lock, recursive, held",
        new: || new_lock(TINE_LOCK_RECURSIVE),
        free: free_lock,
        before: &[("acquire", acquire), ("acquire", acquire)],
        calls: LOCK_CALLS_HELD,
        sleeps: ("acquire", acquire_asleep),
    },
    Kind {
        name: "semaphore",
        new: new_semaphore,
        free: |semaphore| {
            // SAFETY: a semaphore of this process, not used again.
            unsafe { tine_semaphore_free(semaphore.cast()) }
        },
        before: &[("release", give), ("acquire", take)],
        calls: &[("acquire", take), ("value", value), ("release", give), ("acquire", take), ("acquire", take)],
        sleeps: ("acquire", take_asleep),
    },
    Kind {
        name: "semaphore, tracked",
        new: new_tracked,
        free: |semaphore| {
            // SAFETY: a semaphore of this process, not used again.
            unsafe { tine_semaphore_free(semaphore.cast()) }
        },
        before: &[("acquire", take), ("acquire", take), ("acquire", take), ("release", give)],
        calls: &[("acquire", take), ("value", value), ("release", give), ("acquire", take), ("acquire", take)],
        sleeps: ("acquire", take_asleep),
    },
    Kind {
        name: "event",
        new: new_event,
        free: |event| {
            // SAFETY: an event of this process, not used again.
            unsafe { tine_event_free(event.cast()) }
        },
        before: &[("set", set), ("clear", clear)],
        calls: &[("wait", wait), ("is_set", is_set), ("clear", clear), ("wait", wait), ("set", set), ("wait", wait)],
        sleeps: ("wait", wait_asleep),
    },
    Kind {
        name: "condition",
        new: || new_condition(true),
        free: free_condition,
        before: &[("acquire", acquire_of_condition), ("notify_all", notify_all), ("release", release_of_condition)],
        calls: CONDITION_CALLS,
        sleeps: ("wait", wait_notified_asleep),
    },
    Kind {
        name: "condition, lock too",
        new: || new_condition(false),
        free: free_condition,
        before: &[("acquire", acquire_of_condition), ("notify_all", notify_all), ("release", release_of_condition)],
        calls: &[
            ("acquire", acquire_of_condition),
            ("wait, lock too", wait_notified),
            ("notify", notify),
            ("release", release_of_condition),
            ("acquire", acquire_of_condition),
        ],
        sleeps: ("acquire", acquire_of_condition_asleep),
    },
    Kind {
        name: "barrier",
        new: || new_barrier(2, false),
        free: free_barrier,
        before: &[("waiting", waiting)],
        calls: &[("wait", meet), ("is_broken", waiting), ("wait", meet), ("reset", reset), ("wait", meet), ("abort", abort)],
        sleeps: ("wait", meet_asleep),
    },
    Kind {
        name: "barrier, acting",
        new: || new_barrier(1, true),
        free: free_barrier,
        before: &[("wait, acting", meet), ("wait, acting", meet)],
        calls: &[("wait, acting", meet), ("waiting", waiting), ("wait, acting", meet), ("reset", reset), ("wait, acting", meet)],
        sleeps: ("wait", meet_asleep),
    },
    Kind {
        name: "attached, small",
        new: new_small,
        free: free_small,
        before: ATTACHING,
        calls: ATTACHING,
        sleeps: ("acquire", take_small_asleep),
    },
    Kind {
        name: "attached, pollable",
        new: || new_queue_with(TINE_QUEUE_POLLABLE),
        free: free_queue,
        before: &[("put", put), ("attach", attach)],
        calls: &[("attach", attach), ("put", put), ("get", get), ("get", get), ("attach", attach)],
        sleeps: ("get", get_asleep),
    },
    Kind {
        name: "shared memory",
        new: new_memory,
        free: free_memory,
        before: IN_MEMORY,
        calls: IN_MEMORY,
        sleeps: ("acquire", take_in_memory_asleep),
    },
    Kind {
        name: "opened",
        new: new_named,
        free: free_named,
        before: OPENING,
        calls: OPENING,
        sleeps: ("open, wait", open_barrier_asleep),
    },
];

const CONDITION_CALLS: &[Call] = &[
    ("acquire", acquire_of_condition),
    ("wait", wait_notified),
    ("notify", notify),
    ("wait", wait_notified),
    ("notify_all", notify_all),
    ("release", release_of_condition),
];
const ATTACHING: &[Call] = &[
    ("attach, lock", attach_lock),
    ("attach, semaphore", attach_semaphore),
    ("attach, event", attach_event),
    ("attach, condition", attach_condition),
    ("attach, barrier", attach_barrier),
];
const IN_MEMORY: &[Call] = &[
    ("attach", attach_memory),
    ("new_in", make_in_memory),
    ("acquire", acquire_in_memory),
    ("release, semaphore", take_in_memory),
    ("new_in", make_in_memory),
    ("attach", attach_memory),
];
const OPENING: &[Call] = &[
    ("open, queue", open_queue),
    ("open, semaphore", open_semaphore),
    ("open, condition", open_condition),
    ("open, wait", open_barrier),
    ("open, memory", open_memory),
];

const LOCK_CALLS: &[Call] = &[("acquire", acquire), ("is_held", is_held), ("release", release), ("acquire", acquire)];
const LOCK_CALLS_HELD: &[Call] =
    &[("is_held", is_held), ("acquire", acquire), ("release", release), ("release", release), ("acquire", acquire)];

// ---- queue

fn new_queue() -> *mut c_void {
    new_queue_with(0)
}

fn free_queue(queue: *mut c_void) {
    // SAFETY: a queue of this process, not used again.
    unsafe { tine_queue_free(queue.cast()) }
}

fn new_queue_with(flags: u32) -> *mut c_void {
    // SAFETY: zeros are the defaults.
    let mut options: tine_queue_options_t = unsafe { std::mem::zeroed() };
    options.size = size_of::<tine_queue_options_t>();
    options.capacity_bytes = RING;
    options.max_bytes = 1 << 20;
    options.flags = flags;
    let mut queue = ptr::null_mut();
    // SAFETY: live options and a place for the handle.
    assert_eq!(unsafe { tine_queue_new(&options, &mut queue) }, TINE_OK);
    queue.cast()
}

fn put_bytes(queue: *mut c_void, bytes: &[u8], timeout_ms: i64) -> i32 {
    // SAFETY: a live queue, as many bytes.
    unsafe { tine_queue_put(queue.cast::<tine_queue_t>(), bytes.as_ptr().cast(), bytes.len(), timeout_ms) }
}

fn get_bytes(queue: *mut c_void, capacity: usize, timeout_ms: i64) -> i32 {
    let mut buffer = [0u8; 2048];
    let mut length = 0;
    // SAFETY: a live queue, a buffer that is at least so long.
    let status = unsafe { tine_queue_get(queue.cast(), buffer.as_mut_ptr().cast(), capacity, timeout_ms, &mut length) };
    assert!(status != TINE_OK || length <= capacity, "a message longer than the buffer");
    status
}

fn put(queue: *mut c_void) -> i32 {
    put_bytes(queue, &SMALL, TIMEOUT_MS)
}

fn put_try(queue: *mut c_void) -> i32 {
    put_bytes(queue, &SMALL, 0)
}

fn put_large(queue: *mut c_void) -> i32 {
    put_bytes(queue, &LARGE, TIMEOUT_MS)
}

fn get(queue: *mut c_void) -> i32 {
    get_bytes(queue, 2048, TIMEOUT_MS)
}

fn get_small(queue: *mut c_void) -> i32 {
    get_bytes(queue, 16, TIMEOUT_MS)
}

fn get_try(queue: *mut c_void) -> i32 {
    get_bytes(queue, 2048, 0)
}

/// The queue has a message at first: empty it, then wait.
fn get_asleep(queue: *mut c_void) -> i32 {
    while get_bytes(queue, 2048, 0) == TINE_OK {}
    get_bytes(queue, 2048, ASLEEP_MS)
}

fn get_alloc(queue: *mut c_void) -> i32 {
    let (mut data, mut length) = (ptr::null_mut(), 0);
    // SAFETY: a live queue, two places.
    let status = unsafe { tine_queue_get_alloc(queue.cast(), TIMEOUT_MS, &mut data, &mut length) };
    if status == TINE_OK {
        // SAFETY: what the library allocated.
        unsafe { tine_free(data) };
    }
    status
}

fn put_many(queue: *mut c_void) -> i32 {
    let messages = [&SMALL[..], &LARGE[..500], &[], &SMALL[..1]];
    let messages = messages.map(|bytes| tine_bytes_t { data: bytes.as_ptr().cast(), len: bytes.len() });
    // SAFETY: a live queue, as many messages.
    unsafe { tine_queue_put_many(queue.cast(), messages.as_ptr(), messages.len(), TIMEOUT_MS, ptr::null_mut()) }
}

fn get_many(queue: *mut c_void) -> i32 {
    let mut buffer = [0u8; 2048];
    let mut messages = [const { tine_bytes_t { data: ptr::null(), len: 0 } }; 5];
    let mut count = 0;
    let (place, room) = (buffer.as_mut_ptr().cast(), buffer.len());
    // SAFETY: a live queue, a buffer and places of that number.
    let status = unsafe { tine_queue_get_many(queue.cast(), place, room, TIMEOUT_MS, messages.as_mut_ptr(), 5, &mut count) };
    let length: usize = messages[..count].iter().map(|message| message.len).sum();
    assert!(count <= 5 && length <= room, "messages longer than the buffer");
    status
}

/// As long as what `commit` writes there.
fn reserve(queue: *mut c_void) -> i32 {
    reserve_bytes(queue, SMALL.len())
}

fn reserve_large(queue: *mut c_void) -> i32 {
    reserve_bytes(queue, LARGE.len())
}

fn reserve_bytes(queue: *mut c_void, length: usize) -> i32 {
    let mut memory = ptr::null_mut::<c_void>();
    // SAFETY: a live queue, a place; and as many bytes.
    unsafe {
        let status = tine_queue_reserve(queue.cast(), length, TIMEOUT_MS, &mut memory);
        if status == TINE_OK {
            memory.cast::<u8>().write_bytes(7, length);
        }
        status
    }
}

fn commit(queue: *mut c_void) -> i32 {
    // SAFETY: a live queue.
    unsafe { tine_queue_commit(queue.cast(), SMALL.len()) }
}

fn abandon(queue: *mut c_void) -> i32 {
    // SAFETY: a live queue.
    unsafe { tine_queue_abandon(queue.cast()) }
}

fn peek(queue: *mut c_void) -> i32 {
    peek_for(queue, TIMEOUT_MS)
}

fn peek_asleep(queue: *mut c_void) -> i32 {
    while peek_for(queue, 0) == TINE_OK && release_message(queue) == TINE_OK {}
    peek_for(queue, ASLEEP_MS)
}

/// Reads all of what is shown.
fn peek_for(queue: *mut c_void, timeout_ms: i64) -> i32 {
    let (mut data, mut length) = (ptr::null::<c_void>(), 0);
    // SAFETY: a live queue, two places; and as many bytes.
    unsafe {
        let status = tine_queue_peek(queue.cast(), timeout_ms, &mut data, &mut length);
        if status == TINE_OK {
            let sum = (0..length).fold(0u8, |sum, at| sum.wrapping_add(data.cast::<u8>().add(at).read_volatile()));
            std::hint::black_box(sum);
        }
        status
    }
}

fn release_message(queue: *mut c_void) -> i32 {
    // SAFETY: a live queue.
    unsafe { tine_queue_release(queue.cast()) }
}

fn unpeek(queue: *mut c_void) -> i32 {
    // SAFETY: a live queue.
    unsafe { tine_queue_unpeek(queue.cast()) }
}

fn task_done(queue: *mut c_void) -> i32 {
    // SAFETY: a live queue.
    unsafe { tine_queue_task_done(queue.cast()) }
}

fn unfinished(queue: *mut c_void) -> i32 {
    // SAFETY: a live queue.
    unsafe { tine_queue_unfinished(queue.cast()) };
    0
}

fn join(queue: *mut c_void) -> i32 {
    // SAFETY: a live queue.
    unsafe { tine_queue_join(queue.cast(), TIMEOUT_MS) }
}

fn join_asleep(queue: *mut c_void) -> i32 {
    // SAFETY: a live queue.
    unsafe { tine_queue_join(queue.cast(), ASLEEP_MS) }
}

fn size(queue: *mut c_void) -> i32 {
    // SAFETY: a live queue.
    unsafe { (tine_queue_size(queue.cast()), tine_queue_is_empty(queue.cast()), tine_queue_is_full(queue.cast())) };
    0
}

fn close(queue: *mut c_void) -> i32 {
    // SAFETY: a live queue.
    unsafe { tine_queue_close(queue.cast()) }
}

/// Another handle by a token; what can be done with it is done.
fn attach(queue: *mut c_void) -> i32 {
    attach_with(queue, tine_queue_token, tine_queue_attach, tine_queue_free, use_queue)
}

type Hand<T> = unsafe extern "C" fn(*const T, *mut tine_token_t) -> tine_status_t;
type Attach<T> = unsafe extern "C" fn(*const tine_token_t, *mut *mut T) -> tine_status_t;
type Open<T> = unsafe extern "C" fn(*const c_char, *mut *mut T) -> tine_status_t;
type Free<T> = unsafe extern "C" fn(*mut T);

fn attach_with<T>(object: *mut c_void, hand: Hand<T>, attach: Attach<T>, free: Free<T>, used: impl FnOnce(*mut c_void)) -> i32 {
    let mut token = tine_token_t { bytes: [0; 32] };
    let mut other = ptr::null_mut();
    // SAFETY: a live object, a live token, places for both.
    let status = unsafe {
        match hand(object.cast(), &mut token) {
            TINE_OK => attach(&token, &mut other),
            failed => failed,
        }
    };
    use_and_free(status, other, free, used)
}

fn use_and_free<T>(status: i32, object: *mut T, free: Free<T>, used: impl FnOnce(*mut c_void)) -> i32 {
    if status == TINE_OK {
        used(object.cast());
        // SAFETY: an object of this process, not used again.
        unsafe { free(object) };
    }
    status
}

// ---- lock

fn new_lock(flags: u32) -> *mut c_void {
    let options = tine_lock_options_t { size: size_of::<tine_lock_options_t>(), name: ptr::null(), flags, reserved: 0 };
    let mut lock = ptr::null_mut();
    // SAFETY: live options and a place for the handle.
    assert_eq!(unsafe { tine_lock_new(&options, &mut lock) }, TINE_OK);
    lock.cast()
}

fn free_lock(lock: *mut c_void) {
    // SAFETY: a lock of this process, not used again.
    unsafe { tine_lock_free(lock.cast()) }
}

fn acquire(lock: *mut c_void) -> i32 {
    // SAFETY: a live lock.
    unsafe { tine_lock_acquire(lock.cast::<tine_lock_t>(), TIMEOUT_MS) }
}

/// Another process holds it already.
fn acquire_asleep(lock: *mut c_void) -> i32 {
    // SAFETY: a live lock.
    unsafe { tine_lock_acquire(lock.cast::<tine_lock_t>(), ASLEEP_MS) }
}

fn release(lock: *mut c_void) -> i32 {
    // SAFETY: a live lock.
    unsafe { tine_lock_release(lock.cast()) }
}

fn is_held(lock: *mut c_void) -> i32 {
    // SAFETY: a live lock.
    unsafe { tine_lock_is_held(lock.cast()) };
    0
}

// ---- semaphore

fn new_semaphore() -> *mut c_void {
    let mut semaphore = ptr::null_mut();
    // SAFETY: NULL options are the defaults; a place for the handle.
    assert_eq!(unsafe { tine_semaphore_new(0, 4, ptr::null(), &mut semaphore) }, TINE_OK);
    semaphore.cast()
}

fn new_tracked() -> *mut c_void {
    let flags = TINE_SEMAPHORE_TRACKED;
    let options = tine_lock_options_t { size: size_of::<tine_lock_options_t>(), name: ptr::null(), flags, reserved: 0 };
    let mut semaphore = ptr::null_mut();
    // SAFETY: live options and a place for the handle.
    assert_eq!(unsafe { tine_semaphore_new(3, 0, &options, &mut semaphore) }, TINE_OK);
    semaphore.cast()
}

fn take(semaphore: *mut c_void) -> i32 {
    // SAFETY: a live semaphore.
    unsafe { tine_semaphore_acquire(semaphore.cast::<tine_semaphore_t>(), TIMEOUT_MS) }
}

fn take_asleep(semaphore: *mut c_void) -> i32 {
    // SAFETY: a live semaphore.
    unsafe { tine_semaphore_acquire(semaphore.cast(), ASLEEP_MS) }
}

fn give(semaphore: *mut c_void) -> i32 {
    // SAFETY: a live semaphore.
    unsafe { tine_semaphore_release(semaphore.cast(), 1) }
}

fn value(semaphore: *mut c_void) -> i32 {
    // SAFETY: a live semaphore.
    unsafe { tine_semaphore_value(semaphore.cast()) };
    0
}

// ---- event

fn new_event() -> *mut c_void {
    let mut event = ptr::null_mut();
    // SAFETY: NULL options are the defaults; a place for the handle.
    assert_eq!(unsafe { tine_event_new(ptr::null(), &mut event) }, TINE_OK);
    event.cast()
}

fn set(event: *mut c_void) -> i32 {
    // SAFETY: a live event.
    unsafe { tine_event_set(event.cast::<tine_event_t>()) }
}

fn clear(event: *mut c_void) -> i32 {
    // SAFETY: a live event.
    unsafe { tine_event_clear(event.cast()) }
}

fn wait(event: *mut c_void) -> i32 {
    // SAFETY: a live event.
    unsafe { tine_event_wait(event.cast(), TIMEOUT_MS) }
}

fn wait_asleep(event: *mut c_void) -> i32 {
    // SAFETY: a live event.
    unsafe { tine_event_wait(event.cast(), ASLEEP_MS) }
}

fn is_set(event: *mut c_void) -> i32 {
    // SAFETY: a live event.
    unsafe { tine_event_is_set(event.cast()) };
    0
}

// ---- condition

struct Line {
    lock: *mut tine_lock_t,
    condition: *mut tine_condition_t,
}

fn line<'a>(line: *mut c_void) -> &'a Line {
    // SAFETY: what `new_condition` made; it lives as long as it is used.
    unsafe { &*line.cast::<Line>() }
}

/// `apart`: with a lock that nobody writes over, because no timeout bounds how long it takes to get it back.
fn new_condition(apart: bool) -> *mut c_void {
    let lock = if apart { new_lock_apart() } else { new_lock(0).cast() };
    let mut condition = ptr::null_mut();
    // SAFETY: NULL options are the defaults; a place for the handle.
    assert_eq!(unsafe { tine_condition_new(ptr::null(), &mut condition) }, TINE_OK);
    Box::into_raw(Box::new(Line { lock, condition })).cast()
}

/// In a file that had a name for a moment.
fn new_lock_apart() -> *mut tine_lock_t {
    let name = name_of("lock");
    let options = named_options(&name, 0);
    let mut lock = ptr::null_mut();
    // SAFETY: live options and a place for the handle.
    unsafe {
        tine_unlink(name.as_ptr());
        assert_eq!(tine_lock_new(&options, &mut lock), TINE_OK);
        tine_unlink(name.as_ptr());
    }
    lock
}

fn free_condition(object: *mut c_void) {
    // SAFETY: objects of this process, not used again.
    unsafe {
        let Line { lock, condition } = *Box::from_raw(object.cast::<Line>());
        tine_lock_release(lock);
        tine_condition_free(condition);
        tine_lock_free(lock);
    }
}

fn acquire_of_condition(object: *mut c_void) -> i32 {
    acquire(line(object).lock.cast())
}

/// Another process holds it already.
fn acquire_of_condition_asleep(object: *mut c_void) -> i32 {
    acquire_asleep(line(object).lock.cast())
}

fn release_of_condition(object: *mut c_void) -> i32 {
    release(line(object).lock.cast())
}

fn wait_notified(object: *mut c_void) -> i32 {
    // SAFETY: live objects.
    unsafe { tine_condition_wait(line(object).condition, line(object).lock, TIMEOUT_MS) }
}

fn wait_notified_asleep(object: *mut c_void) -> i32 {
    acquire_of_condition(object);
    // SAFETY: live objects.
    unsafe { tine_condition_wait(line(object).condition, line(object).lock, ASLEEP_MS) }
}

fn notify(object: *mut c_void) -> i32 {
    // SAFETY: a live condition.
    unsafe { tine_condition_notify(line(object).condition, 1) }
}

fn notify_all(object: *mut c_void) -> i32 {
    // SAFETY: a live condition.
    unsafe { tine_condition_notify_all(line(object).condition) }
}

// ---- barrier

unsafe extern "C" fn act(_: *mut c_void) {}

fn new_barrier(parties: u32, acts: bool) -> *mut c_void {
    // SAFETY: zeros are the defaults.
    let mut options: tine_barrier_options_t = unsafe { std::mem::zeroed() };
    options.size = size_of::<tine_barrier_options_t>();
    options.action = acts.then_some(act as unsafe extern "C" fn(*mut c_void));
    let mut barrier = ptr::null_mut();
    // SAFETY: live options and a place for the handle.
    assert_eq!(unsafe { tine_barrier_new(parties, &options, &mut barrier) }, TINE_OK);
    barrier.cast()
}

fn free_barrier(barrier: *mut c_void) {
    // SAFETY: a barrier of this process, not used again.
    unsafe { tine_barrier_free(barrier.cast()) }
}

fn meet(barrier: *mut c_void) -> i32 {
    // SAFETY: a live barrier.
    unsafe { tine_barrier_wait(barrier.cast::<tine_barrier_t>(), TIMEOUT_MS, ptr::null_mut()) }
}

fn meet_asleep(barrier: *mut c_void) -> i32 {
    // SAFETY: a live barrier.
    unsafe { tine_barrier_wait(barrier.cast::<tine_barrier_t>(), ASLEEP_MS, ptr::null_mut()) }
}

fn reset(barrier: *mut c_void) -> i32 {
    // SAFETY: a live barrier.
    unsafe { tine_barrier_reset(barrier.cast()) }
}

fn abort(barrier: *mut c_void) -> i32 {
    // SAFETY: a live barrier.
    unsafe { tine_barrier_abort(barrier.cast()) }
}

fn waiting(barrier: *mut c_void) -> i32 {
    // SAFETY: a live barrier.
    unsafe { (tine_barrier_waiting(barrier.cast()), tine_barrier_is_broken(barrier.cast())) };
    0
}

// ---- small objects, each attached anew

struct Small {
    lock: *mut c_void,
    tracked: *mut c_void,
    event: *mut c_void,
    condition: *mut c_void,
    barrier: *mut c_void,
}

fn small<'a>(object: *mut c_void) -> &'a Small {
    // SAFETY: what `new_small` made; it lives as long as it is used.
    unsafe { &*object.cast::<Small>() }
}

fn new_small() -> *mut c_void {
    let (lock, tracked, event, condition) = (new_lock(0), new_tracked(), new_event(), new_condition_alone());
    Box::into_raw(Box::new(Small { lock, tracked, event, condition, barrier: new_barrier(2, false) })).cast()
}

fn free_small(object: *mut c_void) {
    // SAFETY: objects of this process, not used again.
    unsafe {
        let Small { lock, tracked, event, condition, barrier } = *Box::from_raw(object.cast::<Small>());
        tine_lock_free(lock.cast());
        tine_semaphore_free(tracked.cast());
        tine_event_free(event.cast());
        tine_condition_free(condition.cast());
        tine_barrier_free(barrier.cast());
    }
}

fn take_small_asleep(object: *mut c_void) -> i32 {
    let tracked = small(object).tracked;
    for _ in 0..3 {
        take(tracked);
    }
    take_asleep(tracked)
}

fn attach_lock(object: *mut c_void) -> i32 {
    attach_with(small(object).lock, tine_lock_token, tine_lock_attach, tine_lock_free, use_lock)
}

fn attach_semaphore(object: *mut c_void) -> i32 {
    attach_with(small(object).tracked, tine_semaphore_token, tine_semaphore_attach, tine_semaphore_free, use_semaphore)
}

fn attach_event(object: *mut c_void) -> i32 {
    attach_with(small(object).event, tine_event_token, tine_event_attach, tine_event_free, use_event)
}

fn attach_condition(object: *mut c_void) -> i32 {
    attach_with(small(object).condition, tine_condition_token, tine_condition_attach, tine_condition_free, |_| {})
}

fn attach_barrier(object: *mut c_void) -> i32 {
    attach_with(small(object).barrier, tine_barrier_token, tine_barrier_attach, tine_barrier_free, use_barrier)
}

// What can be done with another handle in a short time.

fn use_queue(queue: *mut c_void) {
    put(queue);
    get(queue);
}

fn use_lock(lock: *mut c_void) {
    acquire(lock);
    release(lock);
}

fn use_semaphore(semaphore: *mut c_void) {
    take(semaphore);
    value(semaphore);
    give(semaphore);
}

fn use_event(event: *mut c_void) {
    wait(event);
}

fn use_barrier(barrier: *mut c_void) {
    meet(barrier);
    waiting(barrier);
}

// ---- shared memory

const BLOCK: usize = 4096;
const LOCK_AT: usize = 64;
const SEMAPHORE_AT: usize = 1024;

fn new_memory() -> *mut c_void {
    let mut memory = ptr::null_mut();
    // SAFETY: NULL options are the defaults; a place for the handle.
    assert_eq!(unsafe { tine_shared_memory_new(BLOCK, ptr::null(), &mut memory) }, TINE_OK);
    make_in_memory(memory.cast());
    memory.cast()
}

fn free_memory(memory: *mut c_void) {
    // SAFETY: a block of this process, not used again.
    unsafe { tine_shared_memory_free(memory.cast()) }
}

fn make_in_memory(memory: *mut c_void) -> i32 {
    let (mut lock, mut semaphore) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: a live block, places for the handles.
    unsafe {
        let status = tine_lock_new_in(memory.cast(), LOCK_AT, ptr::null(), &mut lock);
        let second = tine_semaphore_new_in(memory.cast(), SEMAPHORE_AT, 1, 1, &mut semaphore);
        tine_lock_free(lock);
        tine_semaphore_free(semaphore);
        status.min(second)
    }
}

/// Reads and writes all of it.
fn attach_memory(memory: *mut c_void) -> i32 {
    let (hand, attach) = (tine_shared_memory_token, tine_shared_memory_attach);
    attach_with(memory, hand, attach, tine_shared_memory_free, |memory| fill(memory.cast(), BLOCK))
}

fn fill(memory: *mut tine_shared_memory_t, expected: usize) {
    // SAFETY: a live block; as many bytes as it says.
    unsafe {
        let length = tine_shared_memory_length(memory);
        assert!(length <= expected, "a block that is longer than it was made");
        let last = tine_shared_memory_data(memory).cast::<u8>().add(length.max(1) - 1);
        last.write_volatile(last.read_volatile());
    }
}

fn acquire_in_memory(memory: *mut c_void) -> i32 {
    let mut lock = ptr::null_mut();
    // SAFETY: a live block, a place for the handle.
    let status = unsafe { tine_lock_at(memory.cast(), LOCK_AT, &mut lock) };
    use_and_free(status, lock, tine_lock_free, use_lock)
}

fn take_in_memory(memory: *mut c_void) -> i32 {
    semaphore_in_memory(memory, use_semaphore)
}

fn take_in_memory_asleep(memory: *mut c_void) -> i32 {
    semaphore_in_memory(memory, |semaphore| {
        take(semaphore);
        take_asleep(semaphore);
    })
}

fn semaphore_in_memory(memory: *mut c_void, used: impl FnOnce(*mut c_void)) -> i32 {
    let mut semaphore = ptr::null_mut();
    // SAFETY: a live block, a place for the handle.
    let status = unsafe { tine_semaphore_at(memory.cast(), SEMAPHORE_AT, &mut semaphore) };
    use_and_free(status, semaphore, tine_semaphore_free, used)
}

// ---- objects with names, mapped anew by each call

/// In the names of all objects: one user at a time, and the runs of a machine apart.
static RUN: AtomicU32 = AtomicU32::new(0);

/// Before the first object: inside of a pid namespace all runs have the same number.
pub fn begin() {
    RUN.store(std::process::id(), Relaxed);
}

pub fn name_of(what: &str) -> CString {
    let runner = RUN.load(Relaxed);
    CString::new(format!("hostile-{runner}-{what}")).expect("no NUL in it")
}

const NAMES: [&str; 6] = ["lock", "queue", "semaphore", "condition", "barrier", "memory"];

/// What a user that was killed has left.
pub fn remove_names() {
    for what in NAMES {
        // SAFETY: a string.
        unsafe { tine_unlink(name_of(what).as_ptr()) };
    }
}

pub fn path_of(name: &CString) -> String {
    format!("/dev/shm/tine-{}", name.to_string_lossy())
}

fn named_options(name: &CString, flags: u32) -> tine_lock_options_t {
    tine_lock_options_t { size: size_of::<tine_lock_options_t>(), name: name.as_ptr(), flags, reserved: 0 }
}

/// The files, mapped here as well: whoever writes over shared memory finds them in our list of mappings.
fn new_named() -> *mut c_void {
    remove_names();
    let names = NAMES.map(name_of);
    let [_, queue, semaphore, condition, barrier, memory] = &names;
    // SAFETY: live options, places for the handles; zeros are the defaults.
    unsafe {
        let (mut object, mut options) = (ptr::null_mut(), std::mem::zeroed::<tine_queue_options_t>());
        (options.size, options.name) = (size_of::<tine_queue_options_t>(), queue.as_ptr());
        (options.capacity_bytes, options.max_bytes) = (RING, 1 << 20);
        assert_eq!(tine_queue_new(&options, &mut object), TINE_OK);
        tine_queue_free(object);
        let (mut object, options) = (ptr::null_mut(), named_options(semaphore, TINE_SEMAPHORE_TRACKED));
        assert_eq!(tine_semaphore_new(3, 0, &options, &mut object), TINE_OK);
        tine_semaphore_free(object);
        let (mut object, options) = (ptr::null_mut(), named_options(condition, 0));
        assert_eq!(tine_condition_new(&options, &mut object), TINE_OK);
        tine_condition_free(object);
        let (mut object, mut options) = (ptr::null_mut(), std::mem::zeroed::<tine_barrier_options_t>());
        (options.size, options.name) = (size_of::<tine_barrier_options_t>(), barrier.as_ptr());
        assert_eq!(tine_barrier_new(2, &options, &mut object), TINE_OK);
        tine_barrier_free(object);
        let (mut object, options) = (ptr::null_mut(), named_options(memory, 0));
        assert_eq!(tine_shared_memory_new(BLOCK, &options, &mut object), TINE_OK);
        tine_shared_memory_free(object);
    }
    names[1..].iter().for_each(map);
    Box::into_raw(Box::new(())).cast()
}

fn map(name: &CString) {
    let file = std::fs::File::options().read(true).write(true).open(path_of(name)).expect("it was just made");
    let length = file.metadata().expect("it is open").len() as usize;
    let (access, descriptor) = (libc::PROT_READ | libc::PROT_WRITE, std::os::fd::AsRawFd::as_raw_fd(&file));
    // SAFETY: a fresh mapping; nothing is replaced.
    let mapped = unsafe { libc::mmap(ptr::null_mut(), length, access, libc::MAP_SHARED, descriptor, 0) };
    assert!(mapped != libc::MAP_FAILED);
}

fn free_named(_: *mut c_void) {
    remove_names();
}

fn open_with<T>(what: &str, open: Open<T>, free: Free<T>, used: impl FnOnce(*mut c_void)) -> i32 {
    let (name, mut object) = (name_of(what), ptr::null_mut());
    // SAFETY: a string, a place for the handle.
    let status = unsafe { open(name.as_ptr(), &mut object) };
    use_and_free(status, object, free, used)
}

fn open_queue(_: *mut c_void) -> i32 {
    open_with("queue", tine_queue_open, tine_queue_free, use_queue)
}

fn open_semaphore(_: *mut c_void) -> i32 {
    open_with("semaphore", tine_semaphore_open, tine_semaphore_free, use_semaphore)
}

fn open_condition(_: *mut c_void) -> i32 {
    open_with("condition", tine_condition_open, tine_condition_free, |_| {})
}

fn open_barrier(_: *mut c_void) -> i32 {
    open_with("barrier", tine_barrier_open, tine_barrier_free, use_barrier)
}

fn open_barrier_asleep(_: *mut c_void) -> i32 {
    open_with("barrier", tine_barrier_open, tine_barrier_free, |barrier| {
        meet_asleep(barrier);
    })
}

fn open_memory(_: *mut c_void) -> i32 {
    open_with("memory", tine_shared_memory_open, tine_shared_memory_free, |memory| fill(memory.cast(), BLOCK))
}

// ---- each kind, for any bytes

/// An object of each kind: how it is made, handed on and freed.
pub type Sample = (fn() -> *mut c_void, fn(*mut c_void, &mut tine_token_t) -> i32, fn(*mut c_void));

fn token_of<T>(hand: Hand<T>, object: *mut c_void, token: &mut tine_token_t) -> i32 {
    // SAFETY: a live object, a live token.
    unsafe { hand(object.cast(), token) }
}

fn free_of<T>(free: Free<T>, object: *mut c_void) {
    // SAFETY: an object of this process, not used again.
    unsafe { free(object.cast()) }
}

pub const SAMPLES: [Sample; 9] = [
    (new_queue, |object, token| token_of(tine_queue_token, object, token), free_queue),
    (|| new_queue_with(TINE_QUEUE_GROW), |object, token| token_of(tine_queue_token, object, token), free_queue),
    (|| new_queue_with(TINE_QUEUE_POLLABLE), |object, token| token_of(tine_queue_token, object, token), free_queue),
    (|| new_lock(0), |object, token| token_of(tine_lock_token, object, token), free_lock),
    (new_tracked, |object, token| token_of(tine_semaphore_token, object, token), |object| free_of(tine_semaphore_free, object)),
    (new_event, |object, token| token_of(tine_event_token, object, token), |object| free_of(tine_event_free, object)),
    (
        new_condition_alone,
        |object, token| token_of(tine_condition_token, object, token),
        |object| free_of(tine_condition_free, object),
    ),
    (|| new_barrier(300, false), |object, token| token_of(tine_barrier_token, object, token), free_barrier),
    (new_memory, |object, token| token_of(tine_shared_memory_token, object, token), free_memory),
];

fn attach_any<T>(token: &tine_token_t, attach: Attach<T>, free: Free<T>, used: impl FnOnce(*mut c_void)) -> i32 {
    let mut object = ptr::null_mut();
    // SAFETY: a live token, a place for the handle.
    let status = unsafe { attach(token, &mut object) };
    use_and_free(status, object, free, used)
}

/// A function, and what it answers to `T`.
pub type Reach<T> = (&'static str, fn(&T) -> i32);

/// What each kind makes of a token.
pub const ATTACH: [Reach<tine_token_t>; 7] = [
    ("tine_queue_attach", |token| attach_any(token, tine_queue_attach, tine_queue_free, use_queue)),
    ("tine_lock_attach", |token| attach_any(token, tine_lock_attach, tine_lock_free, use_lock)),
    ("tine_semaphore_attach", |token| attach_any(token, tine_semaphore_attach, tine_semaphore_free, take_and_count)),
    ("tine_event_attach", |token| attach_any(token, tine_event_attach, tine_event_free, use_event)),
    ("tine_condition_attach", |token| attach_any(token, tine_condition_attach, tine_condition_free, |_| {})),
    ("tine_barrier_attach", |token| attach_any(token, tine_barrier_attach, tine_barrier_free, use_barrier)),
    ("tine_shared_memory_attach", |token| {
        attach_any(token, tine_shared_memory_attach, tine_shared_memory_free, |memory| fill(memory.cast(), usize::MAX))
    }),
];

fn open_any<T>(name: &CString, open: Open<T>, free: Free<T>, used: impl FnOnce(*mut c_void)) -> i32 {
    let mut object = ptr::null_mut();
    // SAFETY: a string, a place for the handle.
    let status = unsafe { open(name.as_ptr(), &mut object) };
    use_and_free(status, object, free, used)
}

/// What each kind makes of what has a name.
pub const OPEN: [Reach<CString>; 7] = [
    ("tine_queue_open", |name| open_any(name, tine_queue_open, tine_queue_free, use_queue)),
    ("tine_lock_open", |name| open_any(name, tine_lock_open, tine_lock_free, use_lock)),
    ("tine_semaphore_open", |name| open_any(name, tine_semaphore_open, tine_semaphore_free, take_and_count)),
    ("tine_event_open", |name| open_any(name, tine_event_open, tine_event_free, use_event)),
    ("tine_condition_open", |name| open_any(name, tine_condition_open, tine_condition_free, |_| {})),
    ("tine_barrier_open", |name| open_any(name, tine_barrier_open, tine_barrier_free, use_barrier)),
    ("tine_shared_memory_open", |name| {
        open_any(name, tine_shared_memory_open, tine_shared_memory_free, |memory| fill(memory.cast(), usize::MAX))
    }),
];

/// Giving it back would wait for whom the bytes make up.
fn take_and_count(semaphore: *mut c_void) {
    take(semaphore);
    value(semaphore);
}

fn new_condition_alone() -> *mut c_void {
    let mut condition = ptr::null_mut();
    // SAFETY: NULL options are the defaults; a place for the handle.
    assert_eq!(unsafe { tine_condition_new(ptr::null(), &mut condition) }, TINE_OK);
    condition.cast()
}
