//! The queue under the scheduler of `sync::explore`.

use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::{Options, Queue, bell};
use crate::error::Kind;
use crate::shm::layout::SideShared;
use crate::shm::{RobustCell, Word, Words};
use crate::sync::explore::{LONG, Limits, Names, Rest, Scenario, Sim, exhaust, explore};
use crate::sync::robust::{OWNER, OWNER_DIED};
use crate::sys::{Deadline, poll};
use crate::timeout::Timeout;

/// First the producers, then the consumers, last perhaps one that closes the queue.
#[derive(Clone, Copy)]
struct Passing {
    /// How long the messages of each producer are.
    lengths: &'static [usize],
    puts: usize,
    consumers: usize,
    gets: usize,
    /// How many messages one call puts, or gets, at most.
    many: usize,
    /// Puts by reserve and commit, gets by peek and release.
    holds: bool,
    pollable: bool,
    grows: bool,
    closes: bool,
    capacity: usize,
    max_bytes: usize,
    timeout: Timeout,
}

/// Long enough to lie out of line in the smallest ring.
const LARGE: usize = 300;
const SMALL: usize = 16;
/// Short enough to lie in a ring of a page, of which four do not fit.
const QUARTER: usize = PAGE / 4;
const PAGE: usize = 4096;
const MANY_MAX: usize = 4;

struct Passed {
    queue: Queue,
    /// For each message what its put came to, and how often it was got.
    puts: Vec<AtomicUsize>,
    gets: Vec<AtomicUsize>,
    /// For each thread, and the observer, whether it is in a call that may take a message.
    taking: Vec<AtomicUsize>,
}

impl Passed {
    fn taking(&self, sim: Sim) -> &AtomicUsize {
        &self.taking[(sim.tid() as usize - 1).min(self.taking.len() - 1)]
    }
}

const BEGUN: usize = 1;
const RETURNED: usize = 2;
const REFUSED: usize = 3;

impl Passing {
    fn producers(&self) -> usize {
        self.lengths.len()
    }

    fn options(&self) -> Options {
        let Passing { capacity, max_bytes, pollable, grows, .. } = *self;
        Options { capacity, capacity_bytes: 1, max_bytes, pollable, grows }
    }

    fn message(&self, number: usize) -> Vec<u8> {
        vec![number as u8 + 1; self.lengths[number / self.puts]]
    }

    /// Which message that is, if it is one, and whole.
    fn number(&self, message: &[u8]) -> Result<usize, String> {
        let number = message.first().map_or(usize::MAX, |&byte| usize::from(byte).wrapping_sub(1));
        if number < self.producers() * self.puts && message == self.message(number) {
            return Ok(number);
        }
        Err(format!("got {message:?}, which nobody put"))
    }

    /// By one call; none: nothing there, or nothing more.
    fn get(&self, shared: &Passed, sim: Sim, timeout: Timeout) -> Result<Vec<usize>, String> {
        if self.holds {
            return self.get_in_place(shared, sim, timeout);
        }
        shared.taking(sim).store(1, SeqCst);
        let got = self.get_copies(shared, sim, timeout);
        shared.taking(sim).store(0, SeqCst);
        got
    }

    /// Leaves the message once, and takes the one that is there then.
    fn get_in_place(&self, shared: &Passed, sim: Sim, timeout: Timeout) -> Result<Vec<usize>, String> {
        let mut buffer = [MaybeUninit::new(0); LARGE];
        let mut leave = true;
        loop {
            let length = match shared.queue.peek_by(sim, &Deadline::new(timeout)) {
                Ok((_, length)) => length,
                Err(error) if matches!(error.kind(), Kind::Empty | Kind::Closed | Kind::Interrupted) => return Ok(Vec::new()),
                Err(error) => return Err(error.to_string()),
            };
            sim.note(|| "peeks".into());
            shared.queue.read_peeked(sim, &mut buffer[..length]);
            if !std::mem::take(&mut leave) {
                shared.taking(sim).store(1, SeqCst);
                shared.queue.release_by(sim).map_err(|error| error.to_string())?;
                shared.taking(sim).store(0, SeqCst);
                return Ok(vec![self.has_got(shared, &buffer[..length], sim)?]);
            }
            shared.queue.unpeek_by(sim).map_err(|error| error.to_string())?;
        }
    }

    /// A longer one first, which is abandoned, then the message.
    fn put_in_place(shared: &Passed, sim: Sim, message: &[u8], deadline: &Deadline) -> crate::error::Result<()> {
        shared.queue.reserve_by(sim, message.len() + 1, deadline)?;
        shared.queue.abandon_by(sim)?;
        shared.queue.reserve_by(sim, message.len() + 1, deadline)?;
        sim.note(|| "reserves".into());
        shared.queue.fill_reserved(sim, message);
        shared.queue.commit_by(sim, message.len())
    }

    fn get_copies(&self, shared: &Passed, sim: Sim, timeout: Timeout) -> Result<Vec<usize>, String> {
        let mut buffer = [MaybeUninit::new(0); 2 * QUARTER];
        let deadline = Deadline::new(timeout);
        let mut places = [(0, 0); MANY_MAX];
        let got = if self.many == 1 {
            shared.queue.get_by(sim, &mut buffer, &deadline).map(|length| {
                places[0] = (0, length);
                1
            })
        } else {
            let each = |number: usize, start: usize, length: usize| places[number] = (start, length);
            shared.queue.get_many_by(sim, &mut buffer, self.many, each, &deadline)
        };
        match got {
            Ok(got) => {
                let message = |&(start, length): &(usize, usize)| self.has_got(shared, &buffer[start..start + length], sim);
                places[..got].iter().map(message).collect()
            }
            Err(error) if matches!(error.kind(), Kind::Empty | Kind::Closed | Kind::Interrupted) => Ok(Vec::new()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn has_got(&self, shared: &Passed, message: &[MaybeUninit<u8>], sim: Sim) -> Result<usize, String> {
        let number = self.number(&initialised(message))?;
        sim.note(|| format!("has got message {number}"));
        if shared.gets[number].fetch_add(1, SeqCst) != 0 {
            return Err(format!("message {number} was got twice"));
        }
        match shared.puts[number].load(SeqCst) {
            REFUSED => Err(format!("message {number} was got although its put was refused")),
            _ => Ok(number),
        }
    }

    fn produce(&self, shared: &Passed, producer: usize, sim: Sim) -> Result<(), String> {
        let mut next = producer * self.puts;
        let end = next + self.puts;
        while next < end {
            let batch = next..end.min(next + self.many);
            let messages: Vec<_> = batch.clone().map(|number| self.message(number)).collect();
            batch.clone().for_each(|number| shared.puts[number].store(BEGUN, SeqCst));
            let deadline = Deadline::new(self.timeout);
            let put = if self.holds {
                Self::put_in_place(shared, sim, &messages[0], &deadline).map(|()| 1)
            } else if self.many == 1 {
                shared.queue.put_by(sim, &messages[0], &deadline).map(|()| 1)
            } else {
                shared.queue.put_many_by(sim, messages.len(), |number| &messages[number], &deadline)
            };
            let put = match put {
                Ok(put) => put,
                Err(error) if matches!(error.kind(), Kind::Full | Kind::Closed | Kind::Interrupted) => 0,
                Err(error) => return Err(error.to_string()),
            };
            sim.note(|| format!("has put {put} of the messages {batch:?}"));
            for number in batch.clone() {
                shared.puts[number].store(if number < batch.start + put { RETURNED } else { REFUSED }, SeqCst);
            }
            next = batch.end;
        }
        Ok(())
    }

    fn consume(&self, shared: &Passed, sim: Sim) -> Result<(), String> {
        let mut last = vec![None; self.producers()];
        for _ in 0..self.gets {
            for number in self.get(shared, sim, self.timeout)? {
                let producer = number / self.puts;
                if last[producer] >= Some(number) {
                    return Err(format!("message {number} came after a later one"));
                }
                last[producer] = Some(number);
            }
        }
        Ok(())
    }

    /// Those who sleep on one side: may they?
    fn check_sleepers(
        &self,
        side: &str,
        sleepers: &[usize],
        served: impl Fn(usize) -> bool,
        leader: &RobustCell,
        opposite: &SideShared,
        sim: Sim,
    ) -> Result<(), String> {
        let Some(&first) = sleepers.first() else { return Ok(()) };
        // The others follow the leader, even where there would be room for a smaller message of theirs.
        let leading = (sim.load(&leader.word, Relaxed) & OWNER) as usize;
        let Some(leading) = leading.checked_sub(1).filter(|leading| sleepers.contains(leading)) else {
            return Err(format!("{side} {first} sleeps, but no leader"));
        };
        if served(leading) {
            return Err(format!("{side} {leading} sleeps although it could go on"));
        }
        let will_ring = sim.load(opposite.bell(), Relaxed) & bell::ASLEEP != 0;
        let will_mend = sim.load(&opposite.section.word, Relaxed) & (OWNER_DIED | OWNER) == OWNER_DIED;
        if will_ring || will_mend { Ok(()) } else { Err(format!("{side} {leading} sleeps unseen by the other side")) }
    }
}

/// Read back as plain bytes; all of the buffer was initialised.
fn initialised(buffer: &[MaybeUninit<u8>]) -> Vec<u8> {
    let mut memory = crate::sys::heap::Buffer::new(buffer.len()).expect("a few bytes");
    memory.as_uninit().copy_from_slice(buffer);
    memory.to_vec(buffer.len())
}

impl Scenario for Passing {
    type Shared = Passed;

    fn threads(&self) -> usize {
        self.producers() + self.consumers + usize::from(self.closes)
    }

    fn make(&self) -> Passed {
        let count = |count: usize| (0..count).map(|_| AtomicUsize::new(0)).collect();
        let messages = self.producers() * self.puts;
        let queue = Queue::with(&self.options()).expect("a small queue");
        Passed { queue, puts: count(messages), gets: count(messages), taking: count(self.threads() + 1) }
    }

    fn run(&self, shared: &Passed, thread: usize, sim: Sim) -> Result<(), String> {
        if thread < self.producers() {
            self.produce(shared, thread, sim)
        } else if thread < self.producers() + self.consumers {
            self.consume(shared, sim)
        } else {
            shared.queue.close_by(sim).map_err(|error| error.to_string())
        }
    }

    fn check_rest(&self, shared: &Passed, rest: &Rest, sim: Sim) -> Result<(), String> {
        let queue = &shared.queue;
        let (tail, head) = queue.positions(sim);
        let inside = &queue.shared;
        let closed = sim.load(inside.producers.closed(), Relaxed) != 0;
        let consumers = self.producers()..self.producers() + self.consumers;
        if rest.is_asleep(self.threads() - 1) && self.closes {
            return Err("the queue cannot be closed".into());
        }
        let sleepers: Vec<usize> = rest.asleep().filter(|thread| consumers.contains(thread)).collect();
        let served = |_| closed || tail != head;
        self.check_sleepers("consumer", &sleepers, served, &inside.get_leader, &inside.producers, sim)?;
        let sleepers: Vec<usize> = rest.asleep().filter(|&thread| thread < self.producers()).collect();
        // A consumer that died may have published and not said how much of the large room is free: whoever asks next mends that.
        let mended = sim.load(&inside.consumers.section.word, Relaxed) & OWNER_DIED == 0;
        let served = |thread: usize| closed || mended && queue.has_room(sim, self.lengths[thread]) || tail == head;
        self.check_sleepers("producer", &sleepers, served, &inside.put_leader, &inside.consumers, sim)?;
        if let Some(fd) = queue.descriptor().filter(|_| closed || tail != head) {
            let readable = poll::readable(&[fd], &Deadline::new(Timeout::Try)).map_err(|error| error.to_string())?;
            if readable == 0 {
                return Err("there is something to tell, and the descriptor is silent".into());
            }
        }
        if self.capacity != 0 && tail.messages_since(head) as usize > self.capacity {
            return Err(format!("{} messages are more than the capacity", tail.messages_since(head)));
        }
        Ok(())
    }

    fn check_end(&self, shared: &Passed, rest: &Rest, sim: Sim) -> Result<(), String> {
        while !self.get_copies(shared, sim, Timeout::Try)?.is_empty() {}
        if let Some(fd) = shared.queue.descriptor().filter(|_| !self.closes) {
            if poll::readable(&[fd], &Deadline::new(Timeout::Try)).map_err(|error| error.to_string())? != 0 {
                return Err("the queue is empty, and the descriptor not silent".into());
            }
        }
        let lost = (0..shared.puts.len())
            .filter(|&number| shared.puts[number].load(SeqCst) == RETURNED && shared.gets[number].load(SeqCst) == 0)
            .count();
        let took = |thread: &usize| rest.is_dead(*thread) && shared.taking[*thread].load(SeqCst) != 0;
        let dead = (self.producers()..self.producers() + self.consumers).filter(took).count();
        if lost > dead * self.many {
            return Err(format!("{lost} messages are lost, {dead} consumers died"));
        }
        // What a dead process left out of line is given back once both sides were entered.
        let _ = shared.queue.put_by(sim, b"", &Deadline::new(Timeout::Try));
        let segment = shared.queue.segment();
        let file = segment.fd().try_clone_to_owned().map(std::fs::File::from).and_then(|file| file.metadata());
        let bytes = file.map_err(|error| error.to_string())?.blocks() as usize * 512;
        // The head, and the chunks in which head and tail are.
        if self.grows && bytes > 4 * PAGE {
            return Err(format!("{bytes} bytes of an empty queue were not given back"));
        }
        if bytes > segment.length() {
            return Err(format!("{} bytes of large messages were not given back", bytes - segment.length()));
        }
        Ok(())
    }

    fn names(&self, shared: &Passed, names: &mut Names) {
        let inside = &shared.queue.shared;
        for (name, side) in [("put", &inside.producers), ("get", &inside.consumers)] {
            names.word(format!("{name} bell"), side.bell());
            names.word(format!("{name} position"), &side.position);
            names.word(format!("{name} own"), side.own());
            names.word(format!("{name} other"), side.other());
            names.word(format!("{name} large"), &side.large);
            names.word(format!("{name} intent"), &side.large_intent);
            names.word(format!("{name} intent position"), &side.large_intent_position);
            names.cell(&format!("{name} section"), &side.section);
        }
        names.word("closed", inside.producers.closed());
        names.cell("put leader", &inside.put_leader);
        names.cell("get leader", &inside.get_leader);
    }
}

const SMALL_QUEUE: Passing = Passing {
    lengths: &[SMALL, SMALL],
    puts: 2,
    consumers: 2,
    gets: 2,
    many: 1,
    holds: false,
    pollable: false,
    grows: false,
    closes: false,
    capacity: 1,
    max_bytes: 0,
    timeout: Timeout::Forever,
};

#[test]
fn two_producers_two_consumers() {
    explore("queue", &SMALL_QUEUE, Limits { kills: 2, timeouts: 1 }, 4000);
}

#[test]
fn with_timeouts() {
    let timed = Passing { timeout: LONG, ..SMALL_QUEUE };
    explore("queue with timeouts", &timed, Limits { kills: 1, timeouts: 3 }, 2000);
}

#[test]
fn closing() {
    let closing = Passing { closes: true, gets: 3, ..SMALL_QUEUE };
    explore("closing a queue", &closing, Limits { kills: 2, timeouts: 1 }, 2000);
}

#[test]
fn large_messages() {
    let large = Passing { lengths: &[LARGE, SMALL], capacity: 0, max_bytes: PAGE, consumers: 1, gets: 4, ..SMALL_QUEUE };
    explore("large messages", &large, Limits { kills: 2, timeouts: 1 }, 2000);
    let all_large = Passing { lengths: &[LARGE, LARGE, LARGE], puts: 1, consumers: 2, max_bytes: PAGE, capacity: 0, ..large };
    explore("large messages only", &all_large, Limits { kills: 2, timeouts: 1 }, 2000);
}

#[test]
fn messages_in_place() {
    let held = Passing { holds: true, ..SMALL_QUEUE };
    explore("messages in place", &held, Limits { kills: 2, timeouts: 1 }, 3000);
    let timed = Passing { timeout: LONG, ..held };
    explore("messages in place with timeouts", &timed, Limits { kills: 1, timeouts: 3 }, 1500);
    let closing = Passing { closes: true, gets: 3, ..held };
    explore("messages in place, closing", &closing, Limits { kills: 2, timeouts: 1 }, 1500);
    let large = Passing { lengths: &[LARGE - 1, SMALL], capacity: 0, max_bytes: PAGE, consumers: 1, gets: 4, ..held };
    explore("large messages in place", &large, Limits { kills: 2, timeouts: 1 }, 1500);
}

#[test]
fn telling_by_a_descriptor() {
    let polled = Passing { pollable: true, capacity: 0, ..SMALL_QUEUE };
    explore(
        "telling by a descriptor",
        &Passing { timeout: Timeout::Try, gets: 3, ..polled },
        Limits { kills: 2, timeouts: 0 },
        3000,
    );
    explore(
        "telling by a descriptor, asleep",
        &Passing { closes: true, gets: 3, ..polled },
        Limits { kills: 2, timeouts: 1 },
        2000,
    );
    exhaust("telling by a descriptor", &Passing { lengths: &[SMALL], puts: 2, consumers: 1, timeout: Timeout::Try, ..polled });
}

#[test]
fn a_queue_that_grows() {
    let growing = Passing {
        grows: true,
        lengths: &[QUARTER, QUARTER],
        capacity: 0,
        max_bytes: 5 * QUARTER,
        puts: 6,
        gets: 6,
        ..SMALL_QUEUE
    };
    explore("a queue that grows", &growing, Limits { kills: 2, timeouts: 1 }, 1500);
    let tried = Passing { timeout: Timeout::Try, puts: 8, gets: 8, consumers: 1, max_bytes: 8 * QUARTER, ..growing };
    explore("a queue that grows, tried", &tried, Limits { kills: 2, timeouts: 0 }, 1500);
}

#[test]
fn every_schedule_of_one_commit_and_two_releases() {
    exhaust("one commit, two releases", &Passing { holds: true, lengths: &[SMALL], puts: 1, gets: 1, ..SMALL_QUEUE });
}

#[test]
fn many_at_once() {
    let many = Passing { many: 2, capacity: 2, puts: 4, gets: 3, ..SMALL_QUEUE };
    explore("many at once", &many, Limits { kills: 2, timeouts: 1 }, 2000);
    let timed = Passing { timeout: LONG, capacity: 3, many: 3, ..many };
    explore("many at once with timeouts", &timed, Limits { kills: 1, timeouts: 2 }, 1000);
    let large = Passing { lengths: &[LARGE, SMALL], capacity: 0, max_bytes: 2 * PAGE, consumers: 1, many: 2, ..SMALL_QUEUE };
    explore("many large at once", &large, Limits { kills: 2, timeouts: 1 }, 1000);
}

#[test]
fn every_schedule_of_two_puts_of_two_and_one_get_of_two() {
    exhaust("two puts of two, one get of two", &Passing { many: 2, capacity: 2, consumers: 1, gets: 1, ..SMALL_QUEUE });
}

#[test]
fn every_schedule_of_one_put_and_two_gets() {
    let one = Passing { lengths: &[SMALL], puts: 1, gets: 1, ..SMALL_QUEUE };
    exhaust("one put, two gets", &one);
}

#[test]
fn every_schedule_of_two_puts_and_one_get() {
    let one = Passing { puts: 1, consumers: 1, gets: 1, ..SMALL_QUEUE };
    exhaust("two puts, one get", &one);
}

// ---- one hold after the other

/// Two threads that hold a side, one after the other, and one of the other side. The second holder keeps the side until the third thread
/// has got what the first one made it: a message that was committed, or the room of one that was released.
struct Holding {
    /// The messages are peeked at, not reserved.
    peeks: bool,
}

struct Held {
    queue: Queue,
    /// The first one holds the side.
    holds: Word,
    /// The third one has what it waited for.
    served: Word,
}

impl Held {
    fn set(word: &Word, sim: Sim) {
        sim.store(word, 1, Relaxed);
        sim.wake(word, u32::MAX);
    }

    fn await_set(word: &Word, thread: usize, sim: Sim) {
        while sim.load(word, Relaxed) == 0 && !sim.sees_dead(thread) {
            let _ = sim.wait(word, 0, &Deadline::new(Timeout::Forever));
        }
    }
}

impl Holding {
    fn hold(&self, queue: &Queue, sim: Sim) -> crate::error::Result<()> {
        let forever = Deadline::new(Timeout::Forever);
        if self.peeks { queue.peek_by(sim, &forever).map(drop) } else { queue.reserve_by(sim, 1, &forever).map(drop) }
    }

    fn act(&self, shared: &Held, thread: usize, sim: Sim) -> crate::error::Result<()> {
        let Held { queue, holds, served } = shared;
        match (thread, self.peeks) {
            (0, _) => {
                self.hold(queue, sim)?;
                Held::set(holds, sim);
                if self.peeks { queue.release_by(sim) } else { queue.commit_by(sim, 1) }
            }
            (1, _) => {
                Held::await_set(holds, thread, sim);
                self.hold(queue, sim)?;
                Held::await_set(served, thread, sim);
                if self.peeks { queue.unpeek_by(sim) } else { queue.abandon_by(sim) }
            }
            (_, true) => queue.put_by(sim, b"c", &Deadline::new(Timeout::Forever)),
            (_, false) => queue.get_by(sim, &mut [MaybeUninit::uninit()], &Deadline::new(Timeout::Forever)).map(drop),
        }
    }
}

impl Scenario for Holding {
    type Shared = Held;

    fn threads(&self) -> usize {
        3
    }

    fn make(&self) -> Held {
        let queue = Queue::new(2, 1, 0).expect("a small queue");
        if self.peeks {
            (0..2).for_each(|_| queue.put(b"a", Timeout::Try).expect("it has room"));
        }
        Held { queue, holds: Word::default(), served: Word::default() }
    }

    fn run(&self, shared: &Held, thread: usize, sim: Sim) -> Result<(), String> {
        loop {
            match self.act(shared, thread, sim) {
                Ok(()) => break,
                Err(error) if error.kind() == Kind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        if thread == 2 {
            Held::set(&shared.served, sim);
        }
        Ok(())
    }

    fn check_rest(&self, shared: &Held, rest: &Rest, sim: Sim) -> Result<(), String> {
        if rest.is_asleep(0) {
            return Err("the first one sleeps".into());
        }
        let there = shared.queue.positions(sim).0.messages_since(shared.queue.positions(sim).1);
        let served = if self.peeks { there < 2 } else { there > 0 };
        if rest.is_asleep(2) && served { Err("the third one sleeps beside what it waits for".into()) } else { Ok(()) }
    }

    fn names(&self, shared: &Held, names: &mut Names) {
        let inside = &shared.queue.shared;
        names.cell("put section", &inside.producers.section);
        names.cell("get section", &inside.consumers.section);
        names.word("put position", &inside.producers.position);
        names.word("get position", &inside.consumers.position);
        names.word("put bell", inside.producers.bell());
        names.word("get bell", inside.consumers.bell());
        names.word("holds", &shared.holds);
        names.word("served", &shared.served);
    }
}

#[test]
fn two_reservers_and_one_getter() {
    let reserving = Holding { peeks: false };
    exhaust("two reservers and one getter", &reserving);
    explore("two reservers and one getter", &reserving, Limits { kills: 2, timeouts: 1 }, 500);
}

#[test]
fn two_peekers_and_one_putter() {
    let peeking = Holding { peeks: true };
    exhaust("two peekers and one putter", &peeking);
    explore("two peekers and one putter", &peeking, Limits { kills: 2, timeouts: 1 }, 500);
}

// ---- declarations

/// First those who declare messages done, then those who wait for all of them to be, last perhaps one who puts one more.
#[derive(Clone, Copy)]
struct Finishing {
    /// Put before anybody begins.
    messages: usize,
    doers: usize,
    /// How often each of them declares one done.
    each: usize,
    waiters: usize,
    puts: bool,
    timeout: Timeout,
}

struct Finished {
    queue: Queue,
    begun: AtomicUsize,
    declared: AtomicUsize,
}

impl Finishing {
    fn done(shared: &Finished, sim: Sim) -> u32 {
        (sim.load64(shared.queue.shared.tasks.state(), Relaxed) >> 32) as u32
    }

    fn wait(&self, shared: &Finished, sim: Sim) -> Result<(), String> {
        let put = shared.queue.positions(sim).0.messages();
        match shared.queue.join_by(sim, &Deadline::new(self.timeout)) {
            Ok(()) if Self::done(shared, sim) < put => Err(format!("released although not all {put} messages are done")),
            Ok(()) => Ok(()),
            Err(error) if matches!(error.kind(), Kind::TimedOut | Kind::Interrupted) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn declare(&self, shared: &Finished, sim: Sim) -> Result<(), String> {
        for _ in 0..self.each {
            shared.begun.fetch_add(1, SeqCst);
            match shared.queue.task_done_by(sim) {
                Ok(()) => drop(shared.declared.fetch_add(1, SeqCst)),
                Err(error) if error.kind() == Kind::Overflow && self.doers * self.each > self.messages => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }
}

impl Scenario for Finishing {
    type Shared = Finished;

    fn threads(&self) -> usize {
        self.doers + self.waiters + usize::from(self.puts)
    }

    fn make(&self) -> Finished {
        let queue = Queue::new(0, 1, 0).expect("a small queue");
        (0..self.messages).for_each(|_| queue.put(b"task", Timeout::Try).expect("it has room"));
        Finished { queue, begun: AtomicUsize::new(0), declared: AtomicUsize::new(0) }
    }

    fn run(&self, shared: &Finished, thread: usize, sim: Sim) -> Result<(), String> {
        if thread < self.doers {
            self.declare(shared, sim)
        } else if thread < self.doers + self.waiters {
            self.wait(shared, sim)
        } else {
            shared.queue.put_by(sim, b"more", &Deadline::new(Timeout::Forever)).map_err(|error| error.to_string())
        }
    }

    fn check_rest(&self, shared: &Finished, rest: &Rest, sim: Sim) -> Result<(), String> {
        let (put, done) = (shared.queue.positions(sim).0.messages(), Self::done(shared, sim));
        let (begun, declared) = (shared.begun.load(SeqCst), shared.declared.load(SeqCst));
        if done > put || (done as usize) < declared || done as usize > begun {
            return Err(format!("{done} of {put} messages are done, of {begun} declarations {declared} returned"));
        }
        for thread in rest.asleep() {
            if thread < self.doers || thread == self.doers + self.waiters {
                return Err(format!("{thread} waits for nothing"));
            }
            if put == done {
                return Err(format!("{thread} waits although all messages are done"));
            }
            // With one to come, everybody who waits has seen no end at all.
            if !self.puts && done as usize >= self.messages {
                return Err(format!("{thread} missed the end"));
            }
            if sim.load64(shared.queue.shared.tasks.state(), Relaxed) & 1 == 0 {
                return Err(format!("{thread} sleeps unseen by the next declaration"));
            }
        }
        Ok(())
    }

    fn names(&self, shared: &Finished, names: &mut Names) {
        names.word("tail", &shared.queue.shared.producers.position);
        names.word("state", shared.queue.shared.tasks.state());
        names.word("bell", shared.queue.shared.tasks.bell());
        names.cell("section", &shared.queue.shared.tasks.section);
    }
}

const FINISHING: Finishing = Finishing { messages: 3, doers: 2, each: 2, waiters: 2, puts: false, timeout: Timeout::Forever };

#[test]
fn declaring_all_messages_done() {
    exhaust("declaring one done", &Finishing { messages: 1, doers: 1, each: 1, ..FINISHING });
    explore("declaring all done", &FINISHING, Limits { kills: 2, timeouts: 1 }, 2000);
    let timed = Finishing { puts: true, timeout: LONG, ..FINISHING };
    explore("declaring all done while more is put", &timed, Limits { kills: 1, timeouts: 2 }, 1000);
}
