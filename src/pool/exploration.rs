//! Taking tasks, who decides how they end, and telling of it, under the scheduler of `sync::explore`.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::board::{Board, Claim, FIRST, Holder, NORMAL, Taken};
use super::duty::{self, End};
use super::journal::{self, Consumed, Entry, Put, Reader, SHORT, UNIT, Writer, flag, seed};
use super::memory::{Claims, Duties, Extent, Files, Sizes, Tasks};
use crate::shm::pool::LANES;
use crate::shm::{Word, Word64, Words};
use crate::sync::explore::{Limits, Names, Rest, Scenario, Sim, exhaust, explore};
use crate::sys::memory::Access;
use crate::sys::thread::Thread;
use crate::sys::{Deadline, errno, fd, file};
use crate::timeout::Timeout;

const TASKS: usize = 3;
const SIZES: Sizes = Sizes { slots: 4, places: 4, arena: 4096 };

fn forever() -> Deadline {
    Deadline::new(Timeout::Forever)
}

fn generation(task: usize) -> u32 {
    task as u32 + 10
}

/// A host that submits, and workers that take: nobody sleeps while there is something to take, nothing is taken twice, and what a
/// worker took that was killed before it began can be taken again.
struct Taking {
    workers: usize,
    tasks: usize,
    /// Each task goes on until so many have begun; whoever has one takes no other.
    together: u32,
}

struct Desk {
    _files: Files,
    board: Board,
    /// How often each task was begun; not words of the simulation, as journals are not.
    begun: [AtomicUsize; TASKS],
    /// How many have begun, for tasks that wait for each other.
    together: Word,
    /// How many the host has submitted, and told of.
    told: AtomicUsize,
}

fn holder(thread: usize) -> Holder {
    Holder { place: thread as u32 - 1, life: 1 }
}

/// The rest of a task.
fn wait_for_others(shared: &Desk, sim: Sim, together: u32) {
    let mut begun = sim.load(&shared.together, Relaxed);
    while let Err(now) = sim.cas(&shared.together, begun, begun + 1, SeqCst) {
        begun = now;
    }
    sim.wake(&shared.together, u32::MAX);
    loop {
        let begun = sim.load(&shared.together, Relaxed);
        if begun >= together {
            return;
        }
        let _ = sim.wait(&shared.together, begun, &forever());
    }
}

fn begin(shared: &Desk, taken: Taken) -> Result<(), String> {
    let task = taken.slot as usize;
    match shared.begun.get(task).map(|begun| begun.fetch_add(1, SeqCst)) {
        Some(0) if taken.generation == generation(task) => Ok(()),
        _ => Err(format!("{taken:?} was begun before, or never submitted")),
    }
}

impl Scenario for Taking {
    type Shared = Desk;

    fn threads(&self) -> usize {
        1 + self.workers
    }

    fn make(&self) -> Desk {
        let (files, claims) = Files::create(SIZES, self.workers + 1).expect("memory");
        for lane in 0..LANES {
            Extent::order(&SIZES, lane).reach(&files.tasks, 64).expect("memory");
        }
        let tasks = Tasks::map(files.tasks.as_fd(), &SIZES, Access::ReadWrite).expect("memory");
        let board = Board { tasks, claims: Claims::map(claims.as_fd(), &SIZES).expect("memory") };
        board.set_places(Thread::current(), self.workers + 1);
        Desk { _files: files, board, begun: Default::default(), together: Word::default(), told: AtomicUsize::new(0) }
    }

    fn run(&self, shared: &Desk, thread: usize, sim: Sim) -> Result<(), String> {
        let board = &shared.board;
        if thread == 0 {
            for task in 0..self.tasks {
                board.publish(sim, NORMAL, task as u64, task as u32, generation(task));
                board.alert(sim);
                shared.told.store(task + 1, SeqCst);
            }
            return Ok(());
        }
        // As in `worker`, without what is between.
        let (me, Some(bell)) = (holder(thread), board.claims.bells.get(thread - 1)) else { return Ok(()) };
        let run = |taken| {
            begin(shared, taken)?;
            if self.together > 0 {
                wait_for_others(shared, sim, self.together);
            }
            Ok::<(), String>(())
        };
        loop {
            if let Some(taken) = board.take(sim, me) {
                run(taken)?;
                continue;
            }
            board.begin_search(sim, me.place);
            if let Some(taken) = board.take(sim, me) {
                board.end_search(sim, me.place);
                run(taken)?;
                continue;
            }
            match board.prepare_to_sleep(sim, me) {
                Ok(taken) => run(taken)?,
                Err(heard) => {
                    let _ = sim.wait(&bell.bell, heard, &forever());
                    board.cancel_sleep(sim, me.place);
                }
            }
        }
    }

    fn check_rest(&self, shared: &Desk, rest: &Rest, sim: Sim) -> Result<(), String> {
        // After a death the nursery rings for everybody.
        if (0..self.threads()).any(|thread| rest.is_dead(thread)) {
            return Ok(());
        }
        let left = (0..self.tasks).find(|&task| shared.board.claim(sim, task as u32, generation(task)) == Claim::Ready);
        left.map_or(Ok(()), |task| Err(format!("all sleep, and nobody has taken task {task}")))
    }

    fn check_end(&self, shared: &Desk, rest: &Rest, sim: Sim) -> Result<(), String> {
        let board = &shared.board;
        let mut again = 0;
        for task in 0..shared.told.load(SeqCst) {
            let begun = shared.begun[task].load(SeqCst);
            match board.claim(sim, task as u32, generation(task)) {
                Claim::Ready if begun == 0 => {}
                Claim::Running(by) if begun == 1 || rest.is_dead(by.place as usize + 1) => {
                    // What the host does when it retires the dead.
                    if begun == 0 {
                        board.publish(sim, FIRST, again, task as u32, generation(task));
                        again += 1;
                    }
                }
                claim => return Err(format!("task {task} was begun {begun} times, and its claim is {claim:?}")),
            }
        }
        while let Some(taken) = board.take(sim, holder(self.workers + 1)) {
            // Of the one that it was submitting when it died the host tells nobody.
            if (taken.slot as usize) < shared.told.load(SeqCst) {
                begin(shared, taken)?;
            }
        }
        match (0..shared.told.load(SeqCst)).find(|&task| shared.begun[task].load(SeqCst) != 1) {
            Some(task) => Err(format!("task {task} is lost")),
            None => Ok(()),
        }
    }

    fn names(&self, shared: &Desk, names: &mut Names) {
        let board = &shared.board;
        for lane in 0..LANES {
            names.word(format!("tail {lane}"), &board.tasks.head.tails[lane]);
            names.word(format!("hint {lane}"), &board.claims.head.hints[lane]);
        }
        names.word("idle", &board.claims.head.idle[0]);
        names.word("searching", &board.claims.head.searching[0]);
        for task in 0..TASKS {
            names.word(format!("claim {task}"), board.claims.claims.get(task).expect("a claim"));
        }
    }
}

#[test]
fn taking() {
    let plain = Taking { workers: 2, tasks: TASKS, together: 0 };
    exhaust("taking", &plain);
    explore("taking", &plain, Limits { kills: 1, timeouts: 0 }, 1500);
    explore("taking by three", &Taking { workers: 3, ..plain }, Limits { kills: 2, timeouts: 0 }, 500);
    let together = Taking { workers: 2, tasks: 2, together: 2 };
    exhaust("tasks that wait for each other", &together);
    explore("tasks that wait for each other", &together, Limits { kills: 0, timeouts: 0 }, 1500);
}

/// A worker that runs three tasks, of which the second hangs; a nursery that ends the first if it finds it, and the second when the
/// host has cancelled it. Each lap ends in one way, and the second does not hang for ever.
struct Condemning;

struct Condemned {
    _files: Files,
    duties: Duties,
    cancelled: Word,
    told: Word,
    never: Word,
    /// Bits of laps; not words of the simulation.
    in_time: AtomicUsize,
    condemned: AtomicUsize,
}

impl Scenario for Condemning {
    type Shared = Condemned;

    fn threads(&self) -> usize {
        3
    }

    fn make(&self) -> Condemned {
        let (files, _) = Files::create(SIZES, 1).expect("memory");
        let duties = Duties::map(&files).expect("memory");
        duty::clear(Thread::current(), duties.get(0).expect("a page"));
        let (cancelled, told, never) = Default::default();
        let (in_time, condemned) = Default::default();
        Condemned { _files: files, duties, cancelled, told, never, in_time, condemned }
    }

    fn run(&self, shared: &Condemned, thread: usize, sim: Sim) -> Result<(), String> {
        let Some(page) = shared.duties.get(0) else { return Ok(()) };
        let condemn = |slot: u32| {
            let lap = duty::running(sim, page).filter(|lap| lap.task.slot == slot);
            if lap.is_some_and(|lap| duty::condemn(sim, page, &lap)) {
                shared.condemned.fetch_or(1 << slot, SeqCst);
            }
        };
        match thread {
            0 => {
                for lap in 1..=3u32 {
                    duty::begin(sim, page, lap.into(), Taken { slot: lap, generation: lap }, 0);
                    while lap == 2 && sim.load(&shared.cancelled, Relaxed) == 0 && duty::running(sim, page).is_some() {
                        let _ = sim.wait(&shared.never, 0, &forever());
                    }
                    match duty::end(sim, page, lap.into()) {
                        End::InTime => shared.in_time.fetch_or(1 << lap, SeqCst),
                        End::Condemned => return Ok(()),
                        End::Spoilt => return Err(format!("lap {lap} met the verdict on another")),
                    };
                }
            }
            1 => {
                condemn(1);
                while sim.load(&shared.told, Relaxed) == 0 {
                    let _ = sim.wait(&shared.told, 0, &forever());
                }
                sim.fence();
                condemn(2);
            }
            _ => {
                sim.store(&shared.cancelled, 1, Relaxed);
                sim.store(&shared.told, 1, SeqCst);
                sim.wake(&shared.told, u32::MAX);
            }
        }
        Ok(())
    }

    fn check_rest(&self, shared: &Condemned, rest: &Rest, _sim: Sim) -> Result<(), String> {
        let (in_time, condemned) = (shared.in_time.load(SeqCst), shared.condemned.load(SeqCst));
        if in_time & condemned != 0 {
            return Err(format!("laps {in_time:b} ended in time, and {condemned:b} did not"));
        }
        let all_live = (0..3).all(|thread| !rest.is_dead(thread));
        if all_live && rest.is_asleep(0) && condemned & 4 == 0 {
            return Err("a task that was cancelled hangs for ever".into());
        }
        Ok(())
    }

    fn names(&self, shared: &Condemned, names: &mut Names) {
        names.word("cancelled", &shared.cancelled);
        names.word("told", &shared.told);
        names.word("state", &shared.duties.get(0).expect("a page").state);
    }
}

#[test]
fn condemning() {
    exhaust("condemning", &Condemning);
    explore("condemning", &Condemning, Limits { kills: 1, timeouts: 0 }, 2000);
}

/// A worker that replies to one task after the other, and a host that reads meanwhile: wherever the worker is killed, the host gets
/// every reply that was written down whole, the first ones first and each as it was, and then those of who lives in that place next.
struct Replying {
    /// Where the worker's journal begins: in what the host maps, or behind that, as if others before were not retired.
    unit: u64,
}

/// Bytes of each reply. The last but one begins a new unit; three lie in units of their own, which are the same ones if the host has
/// read them in time.
const REPLIES: [usize; 8] = [20, LONG, SHORT, SHORT, LONG, SHORT, SHORT, LONG];
const LONG: usize = UNIT as usize / 2;

struct Letterbox {
    file: OwnedFd,
    host: Mutex<Heard>,
    consumed: Word64,
    /// Between two pieces of what is written.
    step: Word,
    /// How many replies were written down; not a word of the simulation.
    told: AtomicUsize,
}

struct Heard {
    reader: Reader,
    replies: usize,
}

impl Letterbox {
    /// What the host does when it looks.
    fn collect(&self, heard: &mut Heard) -> Result<(), String> {
        while let Some((entry, result)) = heard.reader.next_entry() {
            let length = REPLIES.get(heard.replies).copied().unwrap_or(usize::MAX);
            heard.replies += 1;
            let result = result.map_err(|errno| format!("reply {} cannot be read: errno {errno}", heard.replies))?;
            let result = result.as_deref().and_then(|result| result.get(..length)).unwrap_or_default();
            let whole = entry.ended == heard.replies as u64 && entry.length == length as u64 && result.len() == length;
            if !whole || result.iter().any(|&byte| byte != heard.replies as u8) {
                return Err(format!("reply {} is not what was written: {entry:?}", heard.replies));
            }
        }
        Ok(())
    }
}

/// Writes as whoever maps the file may see it, and as far as the kernel may come: the mark of an entry, its head, half of its result.
struct Pieces<'a>(Sim<'a>, &'a Word);

impl Put for Pieces<'_> {
    fn put(&self, file: BorrowedFd, data: &[u8], offset: u64) -> errno::Result<()> {
        let mut at = 0;
        for end in [8, 64, data.len().midpoint(64), data.len()] {
            if let Some(piece) = data.get(at..end) {
                self.0.load(self.1, Relaxed);
                file::write_below_limit(file, piece, offset + at as u64)?;
                at = end;
            }
        }
        Ok(())
    }
}

fn reply(journal: &mut Writer<impl Put>, number: usize, length: usize, consumed: Consumed) -> errno::Result<()> {
    let (result, entry) = (vec![number as u8; length], Entry { flags: flag::ENDED, ended: number as u64, ..Entry::default() });
    if length <= SHORT {
        return journal.append(entry, &result, consumed);
    }
    let unit = journal.write_long(&result, consumed)?;
    journal.append(Entry { flags: flag::ENDED | flag::LONG, unit, length: length as u64, ..entry }, &[], consumed)
}

impl Scenario for Replying {
    type Shared = Letterbox;

    fn threads(&self) -> usize {
        2
    }

    fn make(&self) -> Letterbox {
        let file = journal::create().expect("memory");
        let mut reader = Reader::new(fd::duplicate(&file).expect("a descriptor")).expect("memory");
        reader.begin(seed(7, 1, 1), self.unit);
        let (host, told) = (Mutex::new(Heard { reader, replies: 0 }), AtomicUsize::new(0));
        Letterbox { file, host, consumed: Word64::default(), step: Word::default(), told }
    }

    fn run(&self, shared: &Letterbox, thread: usize, sim: Sim) -> Result<(), String> {
        if thread == 0 {
            for _ in 0..REPLIES.len() {
                let position = {
                    let mut heard = shared.host.lock().map_err(|_| "the host has failed")?;
                    shared.collect(&mut heard)?;
                    heard.reader.position()
                };
                sim.store64(&shared.consumed, position, SeqCst);
            }
            return Ok(());
        }
        let mut journal = Writer::with(Pieces(sim, &shared.step), shared.file.as_raw_fd(), seed(7, 1, 1), self.unit);
        for (index, &length) in REPLIES.iter().enumerate() {
            let consumed = (self.unit == 0).then(|| sim.load64(&shared.consumed, SeqCst));
            reply(&mut journal, index + 1, length, consumed).map_err(|errno| format!("errno {errno}"))?;
            shared.told.store(index + 1, SeqCst);
        }
        Ok(())
    }

    fn check_rest(&self, _shared: &Letterbox, _rest: &Rest, _sim: Sim) -> Result<(), String> {
        Ok(())
    }

    fn check_end(&self, shared: &Letterbox, rest: &Rest, _sim: Sim) -> Result<(), String> {
        let mut heard = shared.host.lock().map_err(|_| "the host has failed")?;
        shared.collect(&mut heard)?;
        let told = shared.told.load(SeqCst);
        if heard.replies != told && !(rest.is_dead(1) && heard.replies == told + 1) {
            return Err(format!("{told} replies were written, {} have arrived", heard.replies));
        }
        // As when the host retires it: the next one begins where the host maps.
        let (fd, next) = (shared.file.as_raw_fd(), seed(7, 1, 3));
        heard.reader.finish(journal::end_unit(fd).into());
        heard.reader.begin(next, 0);
        heard.replies = 0;
        shared.collect(&mut heard)?;
        let mut journal = Writer::new(fd, next, 0);
        for (before, &length) in REPLIES.iter().enumerate() {
            if heard.replies != before {
                return Err(format!("{} replies, of which {before} were written, of who lives there next", heard.replies));
            }
            reply(&mut journal, before + 1, length, Some(heard.reader.position())).map_err(|errno| format!("errno {errno}"))?;
            shared.collect(&mut heard)?;
        }
        Ok(())
    }

    fn names(&self, shared: &Letterbox, names: &mut Names) {
        names.word("consumed", &shared.consumed);
        names.word("step", &shared.step);
    }
}

#[test]
fn replying() {
    for unit in [0, 2] {
        let replying = Replying { unit };
        exhaust("replying", &replying);
        explore("replying", &replying, Limits { kills: 1, timeouts: 0 }, 300);
    }
}
