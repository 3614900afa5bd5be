//! The objects, and every call on them.

use std::ffi::c_void;
use std::ptr;

use tine::ffi::event::{
    tine_event_clear, tine_event_free, tine_event_is_set, tine_event_new, tine_event_set, tine_event_t, tine_event_wait,
};
use tine::ffi::handing_on::{tine_queue_attach, tine_queue_token, tine_token_t};
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
use tine::ffi::status::TINE_OK;

/// One call: its name, and what it answers (predicates and numbers always 0).
pub type Call = (&'static str, fn(*mut c_void) -> i32);

/// Calls that take no timeout: they wait for as long as a word is owned by somebody who is inside, or seems to be.
pub fn takes_timeout(call: &str) -> bool {
    !matches!(call, "close" | "set" | "clear" | "task_done") && !(call.starts_with("release"))
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
    let mut token = tine_token_t { bytes: [0; 32] };
    let mut other = ptr::null_mut();
    // SAFETY: a live queue, a live token, places for both.
    let status = unsafe {
        match tine_queue_token(queue.cast(), &mut token) {
            TINE_OK => tine_queue_attach(&token, &mut other),
            failed => failed,
        }
    };
    if status == TINE_OK {
        put(other.cast());
        get(other.cast());
        // SAFETY: a queue of this process, not used again.
        unsafe { tine_queue_free(other) };
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
