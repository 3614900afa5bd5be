//! The queue under the scheduler of `sync::explore`.

use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::Queue;
use crate::error::Kind;
use crate::shm::layout::SideShared;
use crate::shm::{RobustCell, Words};
use crate::sync::explore::{LONG, Limits, Names, Rest, Scenario, Sim, exhaust, explore};
use crate::sync::robust::{OWNER, OWNER_DIED};
use crate::sys::Deadline;
use crate::timeout::Timeout;

/// First the producers, then the consumers, last perhaps one that closes the queue.
#[derive(Clone, Copy)]
struct Passing {
    /// How long the messages of each producer are.
    lengths: &'static [usize],
    puts: usize,
    consumers: usize,
    gets: usize,
    closes: bool,
    capacity: usize,
    max_bytes: usize,
    timeout: Timeout,
}

/// Long enough to lie out of line in the smallest ring.
const LARGE: usize = 300;
const SMALL: usize = 16;
const PAGE: usize = 4096;

struct Passed {
    queue: Queue,
    /// For each message what its put came to, and how often it was got.
    puts: Vec<AtomicUsize>,
    gets: Vec<AtomicUsize>,
}

const BEGUN: usize = 1;
const RETURNED: usize = 2;
const REFUSED: usize = 3;

impl Passing {
    fn producers(&self) -> usize {
        self.lengths.len()
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

    /// Gets one message. `None`: nothing there, or nothing more.
    fn get(&self, shared: &Passed, sim: Sim, timeout: Timeout) -> Result<Option<usize>, String> {
        let mut buffer = [MaybeUninit::new(0); LARGE];
        match shared.queue.get_by(sim, &mut buffer, &Deadline::new(timeout)) {
            Ok(length) => {
                let number = self.number(&initialised(&buffer[..length]))?;
                sim.note(|| format!("has got message {number}"));
                if shared.gets[number].fetch_add(1, SeqCst) != 0 {
                    return Err(format!("message {number} was got twice"));
                }
                match shared.puts[number].load(SeqCst) {
                    REFUSED => Err(format!("message {number} was got although its put was refused")),
                    _ => Ok(Some(number)),
                }
            }
            Err(error) if matches!(error.kind(), Kind::Empty | Kind::Closed | Kind::Interrupted) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    fn produce(&self, shared: &Passed, producer: usize, sim: Sim) -> Result<(), String> {
        for number in producer * self.puts..(producer + 1) * self.puts {
            shared.puts[number].store(BEGUN, SeqCst);
            let outcome = match shared.queue.put_by(sim, &self.message(number), &Deadline::new(self.timeout)) {
                Ok(()) => RETURNED,
                Err(error) if matches!(error.kind(), Kind::Full | Kind::Closed | Kind::Interrupted) => REFUSED,
                Err(error) => return Err(error.to_string()),
            };
            let verb = if outcome == RETURNED { "has put" } else { "could not put" };
            sim.note(|| format!("{verb} message {number}"));
            shared.puts[number].store(outcome, SeqCst);
        }
        Ok(())
    }

    fn consume(&self, shared: &Passed, sim: Sim) -> Result<(), String> {
        let mut last = vec![None; self.producers()];
        for _ in 0..self.gets {
            if let Some(number) = self.get(shared, sim, self.timeout)? {
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
        let will_ring = sim.load(opposite.bell(), Relaxed) == 1;
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
        let zeros = || (0..self.producers() * self.puts).map(|_| AtomicUsize::new(0)).collect();
        let queue = Queue::new(self.capacity, 1, self.max_bytes).expect("a small queue");
        Passed { queue, puts: zeros(), gets: zeros() }
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
        if self.capacity != 0 && tail.messages_since(head) as usize > self.capacity {
            return Err(format!("{} messages are more than the capacity", tail.messages_since(head)));
        }
        Ok(())
    }

    fn check_end(&self, shared: &Passed, rest: &Rest, sim: Sim) -> Result<(), String> {
        while self.get(shared, sim, Timeout::Try)?.is_some() {}
        let lost = (0..shared.puts.len())
            .filter(|&number| shared.puts[number].load(SeqCst) == RETURNED && shared.gets[number].load(SeqCst) == 0)
            .count();
        let dead = (self.producers()..self.producers() + self.consumers).filter(|&thread| rest.is_dead(thread)).count();
        if lost > dead {
            return Err(format!("{lost} messages are lost, {dead} consumers died"));
        }
        // What a dead process left out of line is given back once both sides were entered.
        let _ = shared.queue.put_by(sim, b"", &Deadline::new(Timeout::Try));
        let segment = shared.queue.segment();
        let file = segment.fd().try_clone_to_owned().map(std::fs::File::from).and_then(|file| file.metadata());
        let bytes = file.map_err(|error| error.to_string())?.blocks() as usize * 512;
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
fn every_schedule_of_one_put_and_two_gets() {
    let one = Passing { lengths: &[SMALL], puts: 1, gets: 1, ..SMALL_QUEUE };
    exhaust("one put, two gets", &one);
}

#[test]
fn every_schedule_of_two_puts_and_one_get() {
    let one = Passing { puts: 1, consumers: 1, gets: 1, ..SMALL_QUEUE };
    exhaust("two puts, one get", &one);
}
