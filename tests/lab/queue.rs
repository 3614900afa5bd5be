//! Queues: what was put is there, once; what a consumer took is gone; nobody sleeps before a message, room or a closed queue.

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, SeqCst};

use tine::ffi::queue::{
    TINE_QUEUE_GROW, TINE_QUEUE_POLLABLE, tine_bytes_t, tine_queue_abandon, tine_queue_close, tine_queue_commit, tine_queue_fd,
    tine_queue_free, tine_queue_get, tine_queue_get_many, tine_queue_new, tine_queue_options_t, tine_queue_peek, tine_queue_put,
    tine_queue_put_many, tine_queue_release, tine_queue_reserve, tine_queue_size, tine_queue_t, tine_queue_unpeek,
};
use tine::ffi::status::{TINE_ECLOSED, TINE_EEMPTY, TINE_EFULL, TINE_OK};
use tine::shm::layout::{QueueShared, SegmentHead};

use crate::ledger::Ledger;
use crate::lock::runs;
use crate::scene::{Books, Scene, Stage, Trial, Verdict, Victim};
use crate::seat::{Act, BUFFER, MANY, Seat};
use crate::support::{host, message};

/// Messages above a quarter of this lie out of line.
const RING: usize = 4096;
const SMALL: usize = 64;
const LARGE: usize = 2000;
/// A quarter of the ring with what lies beside each message.
const QUARTER: usize = 1000;
/// In the scenes in which producers sleep.
const CAPACITY: usize = 2;

struct QueueStage {
    queue: *mut tine_queue_t,
    /// The queue's words, read only: what everybody sees without taking part.
    shared: *const QueueShared,
    capacity: usize,
    length: usize,
    ledger: Ledger,
}

impl QueueStage {
    fn boxed(capacity: usize, length: usize) -> Box<dyn Stage> {
        QueueStage::with(capacity, length, 0)
    }

    fn with(capacity: usize, length: usize, flags: u32) -> Box<dyn Stage> {
        warm();
        let before = host::shared_mappings();
        let queue = open(capacity, flags);
        let new = host::shared_mappings().into_iter().find(|mapping| mapping.name == "tine:queue" && !before.contains(mapping));
        let shared = new.expect("a new queue has a mapping").start + SegmentHead::LENGTH;
        let shared = shared as *const QueueShared;
        Box::new(QueueStage { queue, shared, capacity, length, ledger: Ledger::new(length, TINE_EFULL, TINE_EEMPTY) })
    }

    fn is_closed(&self) -> bool {
        // SAFETY: the queue's mapping begins with its words and stays until the queue is freed.
        unsafe { &*self.shared }.producers.closed().atomic().load(Acquire) != 0
    }

    /// Whether there is something to tell that the descriptor does not tell.
    fn is_mute(&self) -> bool {
        // SAFETY: a live queue.
        let fd = unsafe { tine_queue_fd(self.queue) };
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one live element.
        let readable = unsafe { libc::poll(&mut poll, 1, 0) } == 1;
        fd >= 0 && !readable && (self.size() > 0 || self.is_closed())
    }

    fn size(&self) -> usize {
        // SAFETY: a live queue.
        unsafe { tine_queue_size(self.queue) }
    }

    fn put(&self, number: u64, timeout_ms: i64, seat: &Seat) -> i32 {
        let mut bytes = vec![0; self.length];
        message::fill(number, &mut bytes);
        seat.begin();
        // SAFETY: a live queue and as many bytes.
        let status = unsafe { tine_queue_put(self.queue, bytes.as_ptr().cast(), bytes.len(), timeout_ms) };
        seat.end(status)
    }

    fn get(&self, timeout_ms: i64, seat: &Seat) -> i32 {
        let mut length = 0;
        // The seat's memory is shared: it shows what a dead one was taking.
        let buffer = seat.buffer.as_ptr().cast_mut().cast();
        seat.begin();
        // SAFETY: a live queue and a buffer of that size, which nobody reads meanwhile.
        let status = unsafe { tine_queue_get(self.queue, buffer, BUFFER, timeout_ms, &mut length) };
        self.ledger.has_got(status, length, seat)
    }

    fn put_many(&self, first: u64, timeout_ms: i64, seat: &Seat) -> i32 {
        let mut bytes = vec![0; self.length * MANY as usize];
        let messages = (first..).zip(bytes.chunks_mut(self.length)).map(|(number, bytes)| {
            message::fill(number, bytes);
            tine_bytes_t { data: bytes.as_ptr().cast(), len: bytes.len() }
        });
        let messages = messages.collect::<Vec<_>>();
        let mut count = 0;
        seat.begin();
        // SAFETY: a live queue and as many messages.
        let status = unsafe { tine_queue_put_many(self.queue, messages.as_ptr(), messages.len(), timeout_ms, &mut count) };
        if status == TINE_OK && count != messages.len() {
            seat.is_odd();
        }
        seat.end(status)
    }

    fn get_many(&self, timeout_ms: i64, seat: &Seat) -> i32 {
        let mut count = 0;
        let buffer = seat.buffer.as_ptr().cast_mut().cast();
        let capacity = self.length * MANY as usize;
        seat.buffer[..capacity].iter().for_each(|byte| byte.store(0, SeqCst));
        seat.begin();
        // SAFETY: a live queue and a buffer of that size, which nobody reads meanwhile.
        let status =
            unsafe { tine_queue_get_many(self.queue, buffer, capacity, timeout_ms, ptr::null_mut(), MANY as usize, &mut count) };
        self.ledger.has_got(status, count * self.length, seat)
    }

    fn fill(&self, number: u64, timeout_ms: i64, seat: &Seat) -> i32 {
        let mut bytes = vec![0; self.length];
        message::fill(number, &mut bytes);
        let mut memory = ptr::null_mut();
        seat.begin();
        // SAFETY: a live queue, and as many bytes as were reserved.
        let status = unsafe {
            match tine_queue_reserve(self.queue, self.length, timeout_ms, &mut memory) {
                TINE_OK => match tine_queue_abandon(self.queue) {
                    TINE_OK => tine_queue_reserve(self.queue, self.length, timeout_ms, &mut memory),
                    status => status,
                },
                status => status,
            }
        };
        if status != TINE_OK {
            return seat.end(status);
        }
        // SAFETY: as above.
        seat.end(unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), memory.cast(), self.length);
            tine_queue_commit(self.queue, self.length)
        })
    }

    fn show(&self, timeout_ms: i64, seat: &Seat) -> i32 {
        let (mut data, mut length) = (ptr::null(), 0);
        let buffer = seat.buffer.as_ptr().cast_mut().cast::<u8>();
        seat.begin();
        // SAFETY: a live queue, and a buffer that is longer than every message.
        let status = unsafe {
            match tine_queue_peek(self.queue, timeout_ms, &mut data, &mut length) {
                TINE_OK => match tine_queue_unpeek(self.queue) {
                    TINE_OK => tine_queue_peek(self.queue, timeout_ms, &mut data, &mut length),
                    status => status,
                },
                status => status,
            }
        };
        if status != TINE_OK {
            return seat.end(status);
        }
        // SAFETY: as above.
        let status = unsafe {
            ptr::copy_nonoverlapping(data.cast(), buffer, length.min(BUFFER));
            tine_queue_release(self.queue)
        };
        self.ledger.has_got(status, length, seat)
    }
}

/// One queue for first-use initialisation, made once.
fn warm() -> *mut tine_queue_t {
    static WARM: OnceLock<usize> = OnceLock::new();
    *WARM.get_or_init(|| open(0, TINE_QUEUE_POLLABLE) as usize) as *mut tine_queue_t
}

fn open(capacity: usize, flags: u32) -> *mut tine_queue_t {
    // SAFETY: zeros are the defaults.
    let mut options: tine_queue_options_t = unsafe { std::mem::zeroed() };
    options.size = size_of::<tine_queue_options_t>();
    options.capacity = capacity;
    options.capacity_bytes = RING;
    options.flags = flags;
    let mut queue = ptr::null_mut();
    // SAFETY: live options and a place for the handle.
    let status = unsafe { tine_queue_new(&options, &mut queue) };
    assert_eq!(status, TINE_OK, "tine_queue_new");
    queue
}

impl Drop for QueueStage {
    fn drop(&mut self) {
        // SAFETY: ours, and no call is running on it in this process.
        unsafe { tine_queue_free(self.queue) };
    }
}

impl Stage for QueueStage {
    fn act(&self, act: Act, timeout_ms: i64, seat: &Seat) -> i32 {
        match act {
            Act::Put(number) => self.put(number, timeout_ms, seat),
            Act::Get => self.get(timeout_ms, seat),
            Act::PutMany(first) => self.put_many(first, timeout_ms, seat),
            Act::GetMany => self.get_many(timeout_ms, seat),
            Act::Fill(number) => self.fill(number, timeout_ms, seat),
            Act::Show => self.show(timeout_ms, seat),
            Act::Close => {
                seat.begin();
                // SAFETY: a live queue.
                seat.end(unsafe { tine_queue_close(self.queue) })
            }
            other => unreachable!("{other:?} is nothing for a queue"),
        }
    }

    fn warm_up(&self, _: Act) {
        let bytes = [0u8; SMALL];
        let mut buffer = [0u8; SMALL];
        // SAFETY: a live queue, as many bytes.
        unsafe {
            tine_queue_put(warm(), bytes.as_ptr().cast(), SMALL, 0);
            tine_queue_get(warm(), buffer.as_mut_ptr().cast(), SMALL, 0, ptr::null_mut());
            tine_queue_get(warm(), buffer.as_mut_ptr().cast(), SMALL, 1, ptr::null_mut());
            let (mut memory, mut data) = (ptr::null_mut(), ptr::null());
            tine_queue_reserve(warm(), LARGE, 0, &mut memory);
            tine_queue_commit(warm(), LARGE);
            tine_queue_peek(warm(), 0, &mut data, ptr::null_mut());
            tine_queue_release(warm());
        }
    }

    fn starving(&self, trial: &Trial) -> Option<String> {
        if self.is_mute() {
            return Some("there is something to tell and the descriptor is silent".into());
        }
        let size = self.size();
        let getters = trial.count(|participant| participant.waits() && participant.act.gets());
        let putters = trial.count(|participant| participant.waits() && participant.act.puts() > 0);
        if self.is_closed() && getters + putters > 0 {
            return Some(format!("{getters} getters and {putters} putters sleep although the queue is closed"));
        }
        if size > 0 && getters > 0 {
            return Some(format!("{getters} getters sleep although {size} messages are there"));
        }
        if self.capacity > 0 && size < self.capacity && putters > 0 {
            return Some(format!("{putters} putters sleep although {size} of {} places are taken", self.capacity));
        }
        None
    }

    fn release_all(&self, trial: &mut Trial) -> Verdict {
        if self.is_closed() {
            return Ok(());
        }
        for probe in 0..trial.count(|participant| participant.waits() && participant.act.gets()) {
            trial.must(self, Act::Put(1000 + probe as u64))?;
        }
        for _ in 0..trial.count(|participant| participant.waits() && participant.act.puts() > 0) {
            trial.must(self, Act::Get)?;
        }
        Ok(())
    }

    fn audit(&self, trial: &mut Trial) -> Result<Books, String> {
        let closed = self.is_closed();
        let end = if closed { TINE_ECLOSED } else { TINE_EEMPTY };
        let status = loop {
            match trial.try_act(self, Act::Get, 0) {
                TINE_OK => {}
                status => break status,
            }
        };
        if status != end || self.size() != 0 {
            return Err(format!("drained, with {} messages left: {status} instead of {end}", self.size()));
        }
        let books = self.ledger.settle(trial, closed)?;
        // The queue goes on.
        let status = trial.try_act(self, Act::Put(9000), 0);
        if closed {
            return if status == TINE_ECLOSED { Ok(books) } else { Err(format!("a put after close answers {status}")) };
        }
        trial.must(self, Act::Get)?;
        if status != TINE_OK || self.ledger.last() != Some(9000) {
            return Err(format!("a put and a get at the end: {status}, got {:?}", self.ledger.last()));
        }
        Ok(books)
    }
}

pub fn scenes() -> Vec<Scene> {
    fn empty() -> Box<dyn Stage> {
        QueueStage::boxed(0, SMALL)
    }
    fn full() -> Box<dyn Stage> {
        QueueStage::boxed(CAPACITY, SMALL)
    }
    fn large() -> Box<dyn Stage> {
        QueueStage::boxed(0, LARGE)
    }
    fn large_full() -> Box<dyn Stage> {
        QueueStage::boxed(CAPACITY, LARGE)
    }
    fn told() -> Box<dyn Stage> {
        QueueStage::with(0, SMALL, TINE_QUEUE_POLLABLE)
    }
    fn growing() -> Box<dyn Stage> {
        QueueStage::with(0, QUARTER, TINE_QUEUE_GROW)
    }
    const RING_FULL: &[Act] = &[Act::Put(1), Act::Put(2), Act::Put(3), Act::Put(4)];
    const CHUNK_LEFT: &[Act] =
        &[Act::Put(1), Act::Put(2), Act::Put(3), Act::Put(4), Act::Put(5), Act::Get, Act::Get, Act::Get, Act::Get, Act::Get];
    const NONE: &[Act] = &[];
    const GETTERS: &[Act] = &[Act::Get, Act::Get];
    const PUTTERS: &[Act] = &[Act::Put(11), Act::Put(12)];
    const GETTERS3: &[Act] = &[Act::Get, Act::Get, Act::Get];
    const PUTTERS3: &[Act] = &[Act::Put(11), Act::Put(12), Act::Put(13)];
    const FILLED: &[Act] = &[Act::Put(1), Act::Put(2)];
    const ALL: &[Act] = &[Act::Put(301), Act::Get, Act::Close];
    const BOTH: &[Act] = &[Act::Put(301), Act::Get];
    let scene =
        |name, stage, before, sleepers, victim, thirds| Scene { name, stage, before, sleepers, victim, thirds, corpse: None };
    let after = |name, stage, before, sleepers, corpse, act| Scene {
        name,
        stage,
        before,
        sleepers,
        victim: runs(&[], act),
        thirds: &[],
        corpse: Some(corpse),
    };
    let woken = |sleeper, wake| Victim::Woken { sleeper, wake };
    vec![
        scene("queue.put", empty, NONE, GETTERS, runs(&[], Act::Put(1)), ALL),
        scene("queue.put, full", full, FILLED, PUTTERS, runs(&[], Act::Put(3)), ALL),
        scene("queue.put, large", large, NONE, GETTERS, runs(&[], Act::Put(1)), BOTH),
        scene("queue.get", full, FILLED, PUTTERS, runs(&[], Act::Get), ALL),
        scene("queue.get, empty", empty, NONE, GETTERS, runs(&[], Act::Get), ALL),
        scene("queue.get, large", large_full, FILLED, PUTTERS, runs(&[], Act::Get), BOTH),
        scene("queue.close, getters asleep", empty, NONE, GETTERS, runs(&[], Act::Close), ALL),
        scene("queue.close, putters asleep", full, FILLED, PUTTERS, runs(&[], Act::Close), ALL),
        scene("queue.get, leader woken", empty, NONE, GETTERS3, woken(0, &[Act::Put(1)]), BOTH),
        scene("queue.get, follower woken", empty, NONE, GETTERS3, woken(1, &[Act::Put(1)]), BOTH),
        scene("queue.get, leader woken by close", empty, NONE, GETTERS, woken(0, &[Act::Close]), BOTH),
        scene("queue.get, large, leader woken", large, NONE, GETTERS3, woken(0, &[Act::Put(1)]), BOTH),
        scene("queue.put, leader woken", full, FILLED, PUTTERS3, woken(0, &[Act::Get]), BOTH),
        scene("queue.put, follower woken", full, FILLED, PUTTERS3, woken(1, &[Act::Get]), BOTH),
        scene("queue.put_many", empty, NONE, GETTERS, runs(&[], Act::PutMany(1)), ALL),
        scene("queue.put_many, large", large, NONE, GETTERS, runs(&[], Act::PutMany(1)), BOTH),
        scene("queue.get_many", full, FILLED, PUTTERS, runs(&[], Act::GetMany), ALL),
        scene("queue.get_many, empty", empty, NONE, GETTERS, runs(&[], Act::GetMany), BOTH),
        scene("queue.reserve and commit", empty, NONE, GETTERS, runs(&[], Act::Fill(1)), BOTH),
        scene("queue.reserve and commit, large", large, NONE, GETTERS, runs(&[], Act::Fill(1)), BOTH),
        scene("queue.reserve, full", full, FILLED, PUTTERS, runs(&[], Act::Fill(3)), BOTH),
        scene("queue.peek and release", full, FILLED, PUTTERS, runs(&[], Act::Show), BOTH),
        scene("queue.peek and release, large", large_full, FILLED, PUTTERS, runs(&[], Act::Show), BOTH),
        scene("queue.peek, empty", empty, NONE, GETTERS, runs(&[], Act::Show), BOTH),
        scene("queue.put, growing", growing, RING_FULL, NONE, runs(&[], Act::Put(5)), BOTH),
        scene("queue.put_many, growing", growing, RING_FULL, NONE, runs(&[], Act::PutMany(5)), BOTH),
        scene("queue.get, empty, giving memory back", growing, CHUNK_LEFT, NONE, runs(&[], Act::Get), BOTH),
        after("queue.put, growing, after a dead put", growing, RING_FULL, NONE, Act::Put(5), Act::Put(6)),
        scene("queue.put, pollable", told, NONE, NONE, runs(&[], Act::Put(1)), ALL),
        scene("queue.put, pollable, getters asleep", told, NONE, GETTERS, runs(&[], Act::Put(1)), ALL),
        scene("queue.close, pollable", told, NONE, GETTERS, runs(&[], Act::Close), ALL),
        after("queue.put, pollable, after a dead put", told, NONE, GETTERS, Act::Put(5), Act::Put(1)),
        after("queue.reserve, after a dead commit", empty, NONE, GETTERS, Act::Fill(5), Act::Fill(1)),
        after("queue.peek, after a dead release", full, FILLED, PUTTERS, Act::Show, Act::Show),
        after("queue.get_many, after a dead put_many", empty, NONE, GETTERS, Act::PutMany(5), Act::GetMany),
        after("queue.put, after a dead put", empty, NONE, GETTERS, Act::Put(5), Act::Put(1)),
        after("queue.put, after a dead get", full, FILLED, PUTTERS, Act::Get, Act::Put(3)),
        after("queue.put, large, after a dead put", large, NONE, GETTERS, Act::Put(5), Act::Put(1)),
        after("queue.get, after a dead get", full, FILLED, PUTTERS, Act::Get, Act::Get),
        after("queue.get, after a dead put", empty, NONE, GETTERS, Act::Put(5), Act::Get),
        after("queue.get, large, after a dead get", large_full, FILLED, PUTTERS, Act::Get, Act::Get),
        after("queue.close, after a dead close", empty, NONE, GETTERS, Act::Close, Act::Close),
        after("queue.put, after a dead close", empty, NONE, GETTERS, Act::Close, Act::Put(1)),
    ]
}
