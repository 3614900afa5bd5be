//! One queue with a small ring, four producers and four consumers, numbered messages of all lengths.

use std::collections::HashSet;
use std::ptr;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use std::time::Duration;

use tine::ffi::queue::{
    TINE_QUEUE_GROW, TINE_QUEUE_POLLABLE, tine_queue_close, tine_queue_commit, tine_queue_free, tine_queue_get, tine_queue_new,
    tine_queue_options_t, tine_queue_peek, tine_queue_put, tine_queue_release, tine_queue_reserve, tine_queue_size, tine_queue_t,
};
use tine::ffi::status::{TINE_ECLOSED, TINE_EEMPTY, TINE_EFULL, TINE_OK};

use crate::crew::{BUFFER, Crew, ODD, Slot};
use crate::support::random::Random;
use crate::support::{arena, clock, message};

const PRODUCERS: usize = 4;
const CONSUMERS: usize = 4;
/// Both sides block often, and every message above a quarter of it lies out of line.
const RING: usize = 4096;
/// Messages of one round.
const MESSAGES: usize = 1 << 21;

const FLAGS: [u32; 4] = [0, TINE_QUEUE_GROW, TINE_QUEUE_POLLABLE, TINE_QUEUE_GROW | TINE_QUEUE_POLLABLE];

const STARTED: u8 = 1;
const RETURNED: u8 = 2;
/// No message has this number.
const NOTHING: u64 = u64::MAX;

/// What is written down, message by message.
pub struct Books {
    slots: &'static [Slot],
    next: &'static AtomicU64,
    stop: &'static AtomicU32,
    /// [`STARTED`], then [`RETURNED`].
    put: &'static [AtomicU8],
    got: &'static [AtomicU8],
    /// Who put it.
    producer: &'static [AtomicU8],
}

#[derive(Default)]
pub struct Sum {
    pub rounds: usize,
    pub kills: usize,
    pub returned: u64,
    pub delivered: u64,
    /// Lost with a consumer that was taking it when it died.
    pub lost: u64,
    /// Delivered although the producer died before its put returned.
    pub extra: u64,
}

impl Books {
    pub fn new() -> Books {
        Books {
            slots: arena::slice(PRODUCERS + CONSUMERS),
            next: arena::value(),
            stop: arena::value(),
            put: arena::slice(MESSAGES),
            got: arena::slice(MESSAGES),
            producer: arena::slice(MESSAGES),
        }
    }

    /// One round of `duration` on a fresh queue: every other one ends with the producers told to stop and the queue drained, the others
    /// are closed in the middle of everything. There are queues of all kinds.
    pub fn round(&self, duration: Duration, number: usize, random: &mut Random, sum: &mut Sum) -> Result<(), String> {
        self.reset();
        let queue = open(FLAGS[number / 2 % FLAGS.len()]);
        let result = self.on_queue(queue, duration, number % 2 == 0, random, sum);
        // SAFETY: ours, and the crew is gone.
        unsafe { tine_queue_free(queue) };
        result
    }

    fn reset(&self) {
        let used = (self.next.load(SeqCst) as usize).min(MESSAGES);
        for byte in self.put[..used].iter().chain(&self.got[..used]) {
            byte.store(0, Relaxed);
        }
        self.next.store(0, SeqCst);
        self.stop.store(0, SeqCst);
    }

    fn on_queue(
        &self,
        queue: *mut tine_queue_t,
        duration: Duration,
        drains: bool,
        random: &mut Random,
        sum: &mut Sum,
    ) -> Result<(), String> {
        let mut suspects = HashSet::new();
        let work = |number: usize| if number < PRODUCERS { self.produce(queue, number) } else { self.consume(queue, number) };
        let mut crew = Crew::hire(self.slots, &work);
        crew.harass(duration, random, |number| {
            if number >= PRODUCERS {
                suspects.extend(self.taking(number));
            }
        })?;
        if drains {
            self.stop.store(1, SeqCst);
            crew.left(0..PRODUCERS, "consumers make room and it was told to stop")?;
            // SAFETY: a live queue.
            if !clock::until(clock::patience(), || unsafe { tine_queue_size(queue) } == 0) {
                return Err("stall: the queue is not drained".into());
            }
        }
        // SAFETY: a live queue.
        let status = unsafe { tine_queue_close(queue) };
        if status != TINE_OK {
            return Err(format!("tine_queue_close: {status}"));
        }
        crew.left(0..PRODUCERS + CONSUMERS, "the queue is closed")?;
        sum.rounds += 1;
        sum.kills += crew.kills;
        drop(crew);
        self.audit(&suspects, sum)
    }

    fn produce(&self, queue: *mut tine_queue_t, number: usize) {
        let slot = &self.slots[number];
        let mut buffer = [0; BUFFER];
        while self.stop.load(SeqCst) == 0 {
            let message = self.next.fetch_add(1, SeqCst);
            if message as usize >= MESSAGES {
                return;
            }
            let bytes = &mut buffer[..length_of(message)];
            message::fill(message, bytes);
            self.producer[message as usize].store(number as u8, SeqCst);
            self.put[message as usize].store(STARTED, SeqCst);
            loop {
                // Sometimes with a timeout, so that waiters leave in all ways.
                let timeout_ms = if message % 5 == 0 { 1 } else { -1 };
                // SAFETY: a live queue.
                match unsafe { put(queue, bytes, message % 3 == 0, timeout_ms) } {
                    TINE_OK => break,
                    TINE_EFULL if timeout_ms >= 0 => slot.done(),
                    TINE_ECLOSED => return,
                    status => slot.fail(status),
                }
            }
            self.put[message as usize].store(RETURNED, SeqCst);
            slot.done();
        }
    }

    fn consume(&self, queue: *mut tine_queue_t, number: usize) {
        let slot = &self.slots[number];
        let buffer = slot.buffer.as_ptr().cast_mut().cast::<u8>();
        let mut last = [None; PRODUCERS];
        for turn in 0u64.. {
            for byte in &slot.buffer[..8] {
                byte.store(0xff, SeqCst);
            }
            let timeout_ms = if turn % 5 == 0 { 1 } else { -1 };
            let mut length = 0;
            // SAFETY: a live queue and a buffer of that size.
            match unsafe { get(queue, buffer, turn % 3 == 0, timeout_ms, &mut length) } {
                TINE_OK => {}
                TINE_EEMPTY if timeout_ms >= 0 => {
                    slot.done();
                    continue;
                }
                TINE_ECLOSED => return,
                status => slot.fail(status),
            }
            // SAFETY: the library wrote so many bytes there, and nobody writes them now.
            let bytes = unsafe { std::slice::from_raw_parts(buffer, length) };
            let message = match message::number(bytes) {
                Some(message) if (message as usize) < MESSAGES && length == length_of(message) => message as usize,
                _ => slot.fail(ODD),
            };
            self.got[message].fetch_add(1, SeqCst);
            // What one producer put comes in its order.
            let producer = self.producer[message].load(SeqCst) as usize;
            if last[producer] >= Some(message) {
                slot.fail(ODD);
            }
            last[producer] = Some(message);
            slot.done();
        }
    }

    /// What a dead consumer was taking.
    fn taking(&self, number: usize) -> Option<u64> {
        let bytes: Vec<u8> = self.slots[number].buffer[..8].iter().map(|byte| byte.load(SeqCst)).collect();
        Some(u64::from_le_bytes(bytes.try_into().ok()?)).filter(|&message| message != NOTHING)
    }

    fn audit(&self, suspects: &HashSet<u64>, sum: &mut Sum) -> Result<(), String> {
        let used = (self.next.load(SeqCst) as usize).min(MESSAGES);
        for message in 0..used {
            let (put, got) = (self.put[message].load(SeqCst), self.got[message].load(SeqCst));
            if got > 1 {
                return Err(format!("message {message} came {got} times"));
            }
            sum.delivered += u64::from(got);
            sum.returned += u64::from(put == RETURNED);
            sum.extra += u64::from(put == STARTED && got == 1);
            if put == RETURNED && got == 0 {
                if !suspects.contains(&(message as u64)) {
                    return Err(format!("message {message} is lost, and no dead consumer was taking it"));
                }
                sum.lost += 1;
            }
        }
        Ok(())
    }
}

/// By a copy, or in place.
///
/// # Safety
/// A live queue.
unsafe fn put(queue: *mut tine_queue_t, bytes: &[u8], in_place: bool, timeout_ms: i64) -> i32 {
    let mut memory = ptr::null_mut();
    // SAFETY: the caller's queue; as many bytes as were reserved.
    unsafe {
        if !in_place {
            return tine_queue_put(queue, bytes.as_ptr().cast(), bytes.len(), timeout_ms);
        }
        match tine_queue_reserve(queue, bytes.len(), timeout_ms, &mut memory) {
            TINE_OK => {
                ptr::copy_nonoverlapping(bytes.as_ptr(), memory.cast(), bytes.len());
                tine_queue_commit(queue, bytes.len())
            }
            status => status,
        }
    }
}

/// By a copy, or in place: what is taken lies in the buffer before it is taken, either way.
///
/// # Safety
/// A live queue, a buffer of [`BUFFER`] bytes.
unsafe fn get(queue: *mut tine_queue_t, buffer: *mut u8, in_place: bool, timeout_ms: i64, length: &mut usize) -> i32 {
    let mut data = ptr::null();
    // SAFETY: the caller's queue and buffer; no message is longer.
    unsafe {
        if !in_place {
            return tine_queue_get(queue, buffer.cast(), BUFFER, timeout_ms, length);
        }
        match tine_queue_peek(queue, timeout_ms, &mut data, length) {
            TINE_OK => {
                ptr::copy_nonoverlapping(data.cast(), buffer, (*length).min(BUFFER));
                tine_queue_release(queue)
            }
            status => status,
        }
    }
}

fn length_of(message: u64) -> usize {
    if message % 61 == 0 { 1100 + (message % 1900) as usize } else { 16 + (message % 7) as usize * 8 }
}

fn open(flags: u32) -> *mut tine_queue_t {
    // SAFETY: zeros are the defaults.
    let mut options: tine_queue_options_t = unsafe { std::mem::zeroed() };
    options.size = size_of::<tine_queue_options_t>();
    options.capacity_bytes = RING;
    options.max_bytes = 64 << 10;
    options.flags = flags;
    let mut queue = ptr::null_mut();
    // SAFETY: live options and a place for the handle.
    let status = unsafe { tine_queue_new(&options, &mut queue) };
    assert_eq!(status, TINE_OK, "tine_queue_new");
    queue
}
