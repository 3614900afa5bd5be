//! The host's own account of the pool's tasks: what is true. Nothing that workers can write changes it but through entries of their
//! journals that agree with it.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::arguments::{Arguments, Location};
use super::board::{Board, Claim, FIRST, Holder, NORMAL, Taken};
use super::job::{Job, Outcome, Part};
use super::journal::{Entry, flag};
use super::map::finished_items;
use super::memory::{Extent, Files};
use super::stream::Ended;
use super::task::{Limits, flags};
use super::trace::{Recorder, Run};
use crate::error::{Error, Kind, Result};
use crate::process::ExitInfo;
use crate::shm::Words;
use crate::shm::pool::{BELLS, LANES, TaskRecord};
use crate::sys::errno::{self, kind, number};
use crate::sys::heap::Filled;
use crate::sys::now;
use crate::sys::thread::Thread;

/// What is known of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No worker has said that it has it.
    Ready,
    /// Being written, and not published yet.
    Written,
    Running {
        place: u32,
    },
}

/// What a look at the claim of a slot shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Whoever looks for a task can take it.
    Waiting,
    /// A worker has it, or there is none.
    Elsewhere,
    Lost,
}

struct Slot {
    /// 0 = free.
    sequence: u64,
    job: Option<Arc<Job>>,
    argument: Location,
    stage: Stage,
    attempt: u32,
    attempts: u32,
    flags: u32,
    /// Of each lane: the last position that names it.
    named: [u64; LANES],
}

/// A task as it is submitted.
pub struct TaskSpec<'a> {
    pub function: usize,
    pub argument: &'a [u8],
    pub attempts: u32,
    /// Of a chunk of a map: items; else 0.
    pub items: u32,
    /// The longest reply; `None` = any.
    pub result_size: Option<u64>,
    /// Of a chunk: of each item.
    pub limits: Limits,
}

/// Offset of an argument in the task memory.
#[derive(Clone, Copy, Debug)]
pub enum ArgumentAt {
    Mapped(usize),
    /// Only in the file.
    Unmapped(u64),
}

/// No position in a lane.
const NOWHERE: u64 = u64::MAX;

#[derive(Default)]
struct Lane {
    head: u64,
    tail: u64,
}

/// What a process of the pool is doing, as far as it has said.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerState {
    /// Odd: the life that the host knows of, or (while not alive) the next one.
    pub life: u32,
    /// It has begun, and the host has not retired it.
    pub alive: bool,
    pub pid: i32,
    /// Which worker it is, counted from 1; 0 = it waits for its turn.
    pub number: u32,
    /// {slot, sequence}
    pub running: Option<(u32, u64)>,
    /// Where the results of the running chunk are: {unit, length}.
    pub chunk: Option<(u64, u64)>,
    pub ready: bool,
    /// Its initializer returned this.
    pub refused: Option<i32>,
    pub left: bool,
}

pub struct Table {
    files: Arc<Files>,
    board: Arc<Board>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    lanes: [Lane; LANES],
    orders: [Extent; LANES],
    records: Extent,
    arguments: Arguments,
    pub max_pending: usize,
    pub pending: usize,
    pub last_sequence: u64,
    pub done: u64,
    pub failed: u64,
    /// Tasks whose function has returned.
    pub finished: u64,
    pub workers: Vec<WorkerState>,
    /// Somebody wants to know what happens when.
    pub trace: Option<Box<Recorder>>,
    /// Jobs are ready before their callbacks have run.
    pub ready_at_once: bool,
    /// Ended jobs whose callbacks wait for the delivery thread, or for the host's program to poll.
    pub deliveries: VecDeque<Arc<Job>>,
    /// Bells that are to be rung once the lock is free.
    pub to_ring: u64,
    bells: [u32; BELLS],
    pub bells_in_use: u64,
    /// Bells of threads that wait for any task to end: for room, or for all of several.
    pub room_bells: u64,
    /// Bells of threads that wait for the end of the pool.
    pub join_bells: u64,
}

impl Table {
    pub fn new(files: Arc<Files>, board: Arc<Board>, max_pending: usize) -> Table {
        let sizes = files.sizes;
        Table {
            board,
            slots: Vec::new(),
            free: Vec::new(),
            lanes: Default::default(),
            orders: [Extent::order(&sizes, FIRST), Extent::order(&sizes, NORMAL)],
            records: Extent::records(&sizes),
            arguments: Arguments::new(&sizes),
            max_pending,
            pending: 0,
            last_sequence: 0,
            done: 0,
            failed: 0,
            finished: 0,
            workers: Vec::new(),
            trace: None,
            ready_at_once: false,
            deliveries: VecDeque::new(),
            to_ring: 0,
            bells: [0; BELLS],
            bells_in_use: 0,
            room_bells: 0,
            join_bells: 0,
            files,
        }
    }

    /// Memory for one more task. What its end needs is there before it begins: whoever submits can be told that there is none.
    fn make_room(&mut self) -> Result<()> {
        let returned = self.slots.len() + 1 - self.free.len();
        let room = self.slots.try_reserve(1).and_then(|()| self.free.try_reserve(returned));
        let room = room.and_then(|()| self.deliveries.try_reserve(self.pending + 1));
        room.map_err(|_| Error::new(Kind::NoMemory, "no memory for one more task"))
    }

    /// Gives the task a slot and room for its argument; the caller has seen that it is admitted.
    pub fn reserve(&mut self, spec: &TaskSpec, job: &Arc<Job>) -> Result<u32> {
        self.make_room()?;
        let fresh = self.slots.len() as u32;
        let slot = self.free.last().copied().unwrap_or(fresh);
        self.records.reach(&self.files.tasks, (slot as usize + 1) * size_of::<TaskRecord>())?;
        let argument = self.arguments.allocate(self.files.tasks.as_fd(), spec.argument.len())?;
        if slot == fresh {
            let (job, stage) = (None, Stage::Written);
            self.slots.push(Slot {
                sequence: 0,
                job,
                argument,
                stage,
                attempt: 0,
                attempts: 0,
                flags: 0,
                named: [NOWHERE; LANES],
            });
            Thread::current().store(&self.board.tasks.head.records, fresh + 1, Release);
        } else {
            self.free.pop();
        }
        self.pending += 1;
        let sequence = self.next_sequence();
        job.assign(slot, sequence);
        let mut task_flags = 0;
        if matches!(argument, Location::Unmapped { .. }) {
            task_flags |= flags::UNMAPPED;
        }
        if job.wants_delivery() {
            task_flags |= flags::NOTIFY;
        }
        if spec.result_size.is_some() {
            task_flags |= flags::LIMITED;
        }
        self.slots[slot as usize] = Slot {
            sequence,
            job: Some(job.clone()),
            argument,
            stage: Stage::Written,
            attempt: 1,
            attempts: spec.attempts.max(1),
            flags: task_flags,
            named: [NOWHERE; LANES],
        };
        Ok(slot)
    }

    /// A number that no other task has.
    pub fn next_sequence(&mut self) -> u64 {
        self.last_sequence += 1;
        self.last_sequence
    }

    /// Where the argument of a reserved slot goes.
    pub fn argument_at(&self, slot: u32) -> ArgumentAt {
        match self.slots[slot as usize].argument {
            Location::Inline => {
                let record = self.files.sizes.records_at() + slot as usize * size_of::<TaskRecord>();
                ArgumentAt::Mapped(record + std::mem::offset_of!(TaskRecord, inline))
            }
            Location::Arena { offset, .. } => ArgumentAt::Mapped(offset),
            Location::Unmapped { offset, .. } => ArgumentAt::Unmapped(offset),
        }
    }

    /// Writes the record of a reserved slot, whose argument is where it should be, and publishes it.
    pub fn publish(&mut self, w: Thread, slot: u32, spec: &TaskSpec) -> Result<()> {
        let at = match self.argument_at(slot) {
            ArgumentAt::Mapped(offset) => offset as u64,
            ArgumentAt::Unmapped(offset) => offset,
        };
        let entry = &mut self.slots[slot as usize];
        let Some(record) = self.board.tasks.records.get(slot as usize) else { return Ok(()) };
        w.store64(&record.sequence, entry.sequence, Relaxed);
        w.store64(&record.id, entry.job.as_ref().map_or(0, |job| job.id()), Relaxed);
        w.store64(&record.function, spec.function as u64, Relaxed);
        w.store64(&record.argument_at, at, Relaxed);
        w.store64(&record.argument_len, spec.argument.len() as u64, Relaxed);
        w.store64(&record.result_size, spec.result_size.unwrap_or(0), Relaxed);
        w.store(&record.items, spec.items, Relaxed);
        w.store(&record.flags, entry.flags, Relaxed);
        w.store(&record.attempt, entry.attempt, Relaxed);
        w.store(&record.bell, 0, Relaxed);
        w.store64(&record.timeout_ms, spec.limits.timeout_ms, Relaxed);
        w.store64(&record.soft_timeout_ms, spec.limits.soft_timeout_ms, Relaxed);
        entry.stage = Stage::Ready;
        let generation = entry.sequence as u32;
        if let Some(trace) = &mut self.trace {
            trace.submitted(slot, now());
        }
        self.push(w, NORMAL, slot, generation)
    }

    /// Appends to a lane.
    fn push(&mut self, w: Thread, lane: usize, slot: u32, generation: u32) -> Result<()> {
        let positions = self.files.sizes.lane() as u64;
        if self.lanes[lane].tail - self.lanes[lane].head >= positions {
            self.advance(w);
        }
        // Still no room: what is oldest may be taken by a worker that has not said so. It goes last, where it is found as well. That
        // ends: a lane has twice as many positions as there are tasks, and needs each only once.
        while self.lanes[lane].tail - self.lanes[lane].head >= positions {
            let oldest = self.board.ordered(w, lane, self.lanes[lane].head);
            self.lanes[lane].head += 1;
            self.board.set_head(w, lane, self.lanes[lane].head);
            if self.is_needed(lane, self.lanes[lane].head - 1, oldest) {
                self.slots[oldest.slot as usize].named[lane] = self.lanes[lane].tail;
                self.board.append(w, lane, self.lanes[lane].tail, oldest.slot, oldest.generation);
                self.lanes[lane].tail += 1;
            }
        }
        let tail = self.lanes[lane].tail;
        let reach = ((tail + 1).min(positions) as usize) * size_of::<u64>();
        self.orders[lane].reach(&self.files.tasks, reach)?;
        // Once is enough, also where it was lost in another lane.
        self.slots[slot as usize].named = [NOWHERE; LANES];
        self.slots[slot as usize].named[lane] = tail;
        self.board.publish(w, lane, tail, slot, generation);
        self.lanes[lane].tail = tail + 1;
        Ok(())
    }

    /// Whether what a lane says at a position can be taken, and is not said again behind it: a task that is lost is named once more.
    fn is_needed(&self, lane: usize, position: u64, named: Taken) -> bool {
        self.is_ready(named.slot, named.generation)
            && self.slots.get(named.slot as usize).is_some_and(|entry| entry.named[lane] == position)
    }

    fn is_ready(&self, slot: u32, generation: u32) -> bool {
        self.slots
            .get(slot as usize)
            .is_some_and(|entry| entry.sequence as u32 == generation && entry.stage == Stage::Ready && entry.sequence != 0)
    }

    /// Moves the heads of the lanes over what can not be taken any more.
    pub fn advance(&mut self, w: Thread) {
        for lane in 0..LANES {
            let Lane { mut head, tail } = self.lanes[lane];
            while head < tail {
                let oldest = self.board.ordered(w, lane, head);
                if self.is_needed(lane, head, oldest) {
                    break;
                }
                head += 1;
            }
            if head != self.lanes[lane].head {
                self.lanes[lane].head = head;
                self.board.set_head(w, lane, head);
            }
        }
    }

    /// What is pending of a stream.
    pub fn jobs_of(&self, stream: &Arc<Ended>) -> Vec<Arc<Job>> {
        let is_its = |job: &&Arc<Job>| matches!(&job.part, Part::Item(ended) if Arc::ptr_eq(ended, stream));
        self.slots.iter().filter_map(|slot| slot.job.as_ref()).filter(is_its).cloned().collect()
    }

    /// Gives a slot back: its task has ended, or was never published.
    pub fn release(&mut self, slot: u32) -> Option<Arc<Job>> {
        let entry = &mut self.slots[slot as usize];
        entry.sequence = 0;
        let (job, argument) = (entry.job.take(), std::mem::take(&mut entry.argument));
        self.arguments.free(&self.files.tasks, argument);
        self.free.push(slot);
        self.pending -= 1;
        self.to_ring |= self.room_bells;
        job
    }

    /// The task of a slot has ended.
    fn end(&mut self, slot: u32, outcome: Outcome) {
        if outcome.failure.is_none() {
            self.done += 1;
        } else {
            self.failed += 1;
        }
        let Some(job) = self.release(slot) else { return };
        if let Part::Chunk(batch, chunk) = &job.part {
            if let Some(whole) = batch.end_chunk(*chunk, &outcome) {
                self.end_whole(&batch.whole, whole);
            }
        }
        self.end_job(&job, outcome);
        if let Part::Item(ended) = &job.part {
            ended.push(&job);
        }
    }

    /// The last part of a job has ended that is no task itself.
    pub fn end_whole(&mut self, job: &Arc<Job>, outcome: Outcome) {
        // What wakes those who wait for it otherwise was rung for its parts.
        self.to_ring |= self.room_bells;
        self.end_job(job, outcome);
    }

    fn end_job(&mut self, job: &Arc<Job>, outcome: Outcome) {
        let tell = job.end(outcome, self.ready_at_once);
        if job.is_ready() {
            self.ring_for(job);
        }
        if tell {
            self.deliveries.push_back(job.clone());
        }
    }

    /// Whoever waits for the job is to look.
    fn ring_for(&mut self, job: &Job) {
        if let Some(bell) = job.bell() {
            self.to_ring |= 1 << bell;
        }
    }

    /// There are so many places.
    pub fn make_places(&mut self, places: usize) {
        self.workers.resize(places, WorkerState { life: 1, ..WorkerState::default() });
    }

    /// The next process in a place was born.
    pub fn begin_life(&mut self, place: u32, pid: i32, number: u32) {
        if let Some(worker) = self.workers.get_mut(place as usize) {
            (worker.alive, worker.pid, worker.number) = (true, pid, number);
        }
    }

    /// What a worker has written. `place` is alive, or was when it wrote that.
    pub fn apply(&mut self, place: u32, entry: &Entry, result: errno::Result<Option<Filled>>) {
        let Some(worker) = self.workers.get_mut(place as usize) else { return };
        worker.ready |= entry.has(flag::READY);
        worker.left |= entry.has(flag::LEFT);
        if entry.has(flag::REFUSED) {
            worker.refused = Some(entry.code);
        }
        let pid = worker.pid;
        if entry.has(flag::ENDED) {
            worker.running = None;
            worker.chunk = None;
            if self.runs(entry.ended_slot, entry.ended, place) {
                self.finished += 1;
                let outcome = outcome_of(entry, result, pid);
                self.note_run(entry.ended_slot, entry.stamp, &outcome);
                self.end(entry.ended_slot, outcome);
            }
        }
        if entry.has(flag::BEGAN) {
            // Cancelled meanwhile, or claimed twice because somebody wrote over the claim: what comes of it is nobody's.
            let Some(task) = self.slots.get_mut(entry.began_slot as usize) else { return };
            if task.sequence == entry.began && task.stage == Stage::Ready {
                task.stage = Stage::Running { place };
                let worker = &mut self.workers[place as usize];
                worker.running = Some((entry.began_slot, entry.began));
                worker.chunk = entry.has(flag::CHUNK).then_some((entry.unit, entry.length));
                if let Some(trace) = &mut self.trace {
                    trace.began(entry.began_slot, worker, entry.stamp);
                }
            }
        }
    }

    fn runs(&self, slot: u32, sequence: u64, place: u32) -> bool {
        let task = self.slots.get(slot as usize);
        sequence != 0 && task.is_some_and(|task| task.sequence == sequence && task.stage == Stage::Running { place })
    }

    /// The process in `place` is dead, and all that it wrote was taken in. `partial` is what it left of a chunk.
    pub fn retire(&mut self, w: Thread, place: u32, death: ExitInfo, kind: Kind, partial: Option<Filled>, tail: Option<Vec<u8>>) {
        let Some(worker) = self.workers.get_mut(place as usize) else { return };
        let WorkerState { running, pid, chunk, .. } = *worker;
        let (died, at) = (*worker, if self.trace.is_some() { now() } else { 0 });
        *worker = WorkerState { life: worker.life.wrapping_add(2), ..WorkerState::default() };
        if let Some((slot, sequence)) = running.filter(|&(slot, sequence)| self.runs(slot, sequence, place)) {
            let Slot { attempt, attempts, flags, .. } = self.slots[slot as usize];
            let again = kind == Kind::WorkerDied && attempt < attempts && flags & flags::CANCELLED == 0;
            let length = partial.as_ref().map_or(0, |partial| partial.len());
            let outcome = Outcome::new(Some(kind), 0, pid).with_data(partial, length).with_death(death).with_tail(tail);
            if chunk.is_some() && finished_items(&outcome, usize::MAX) > 0 {
                self.finished += 1;
            }
            self.note_run(slot, at, &outcome);
            if !self.go_on(w, slot, &outcome) && (!again || !self.begin_again(w, slot, sequence)) {
                self.end(slot, outcome);
            }
        }
        if let Some(trace) = &mut self.trace {
            trace.died(&died, &death, at);
        }
    }

    /// Lets workers have what is left of a chunk whose worker died; answers whether there is something left.
    fn go_on(&mut self, w: Thread, slot: u32, outcome: &Outcome) -> bool {
        let Some(&Slot { job: Some(ref job), sequence, attempt, attempts, .. }) = self.slots.get(slot as usize) else {
            return false;
        };
        let (Part::Chunk(batch, chunk), Some(record)) = (&job.part, self.board.tasks.records.get(slot as usize)) else {
            return false;
        };
        let may_try = |attempt| outcome.failure == Some(Kind::WorkerDied) && attempt < attempts;
        let Some((taken, tried)) = batch.go_on(*chunk, outcome, attempt, may_try) else { return false };
        let (length, items) = (w.load64(&record.argument_len, Relaxed), w.load(&record.items, Relaxed));
        let bytes = length / u64::from(items.max(1)) * taken as u64;
        w.store64(&record.argument_at, w.load64(&record.argument_at, Relaxed) + bytes, Relaxed);
        w.store64(&record.argument_len, length - bytes, Relaxed);
        w.store(&record.items, items - taken as u32, Relaxed);
        self.slots[slot as usize].attempt = tried;
        if !self.begin_again(w, slot, sequence) {
            self.end(slot, Outcome::new(Some(Kind::NoMemory), 0, 0));
        }
        true
    }

    /// Lets workers have a task once more that was begun. `false`: there is no memory to name it again.
    fn begin_again(&mut self, w: Thread, slot: u32, sequence: u64) -> bool {
        let task = &mut self.slots[slot as usize];
        task.attempt += 1;
        task.stage = Stage::Ready;
        if let Some(trace) = &mut self.trace {
            trace.submitted(slot, now());
        }
        if let Some(record) = self.board.tasks.records.get(slot as usize) {
            w.store(&record.attempt, task.attempt, Relaxed);
        }
        self.push(w, FIRST, slot, sequence as u32).is_ok()
    }

    /// Compares what can be written over with what is true: every task that no worker has can be taken afterwards, or (without memory
    /// to name it again) is found lost the next time, too.
    pub fn repair(&mut self, w: Thread) -> u32 {
        self.advance(w);
        let (mut lost, mut left) = (0, self.pending);
        for slot in 0..self.slots.len() as u32 {
            if left == 0 {
                break;
            }
            left -= usize::from(self.slots[slot as usize].sequence != 0);
            lost += u32::from(self.find(w, slot) == Found::Lost);
        }
        self.board.repair(w, [self.lanes[FIRST].head, self.lanes[NORMAL].head]);
        lost
    }

    /// The same for what was taken, however much waits behind it: tasks are taken in their order, so what a dead worker had is before
    /// the first one that nobody has, unless somebody has written over more than that.
    pub fn repair_taken(&mut self, w: Thread) -> u32 {
        self.advance(w);
        let mut lost = 0;
        for lane in 0..LANES {
            let Lane { head, tail } = self.lanes[lane];
            // Whoever was killed between taking a task and moving the hint has not moved it, and who was slow has moved it back.
            let hint = w.load64(&self.board.claims.head.hints[lane], Relaxed);
            let hint = if hint <= tail { hint } else { head };
            for position in head..tail {
                let named = self.board.ordered(w, lane, position);
                if self.is_needed(lane, position, named) {
                    match self.find(w, named.slot) {
                        Found::Waiting if position >= hint => break,
                        Found::Lost => lost += 1,
                        _ => {}
                    }
                }
            }
        }
        self.board.repair(w, [self.lanes[FIRST].head, self.lanes[NORMAL].head]);
        lost
    }

    /// Looks who has the task of a slot, and names it once more if nobody can.
    fn find(&mut self, w: Thread, slot: u32) -> Found {
        let Slot { sequence, stage, .. } = self.slots[slot as usize];
        if sequence == 0 || stage != Stage::Ready {
            return Found::Elsewhere;
        }
        match self.board.claim(w, slot, sequence as u32) {
            Claim::Ready => return Found::Waiting,
            // It has taken it and not said so yet, or the host has not read that yet: unless it is retired.
            Claim::Running(Holder { place, life }) => {
                let worker = self.workers.get(place as usize);
                if worker.is_some_and(|worker| life.wrapping_sub(worker.life as u16) as i16 >= 0) {
                    return Found::Elsewhere;
                }
            }
            Claim::Other => {}
        }
        let _ = self.push(w, FIRST, slot, sequence as u32);
        Found::Lost
    }

    /// Takes back a task that no worker has; answers whether it could.
    pub fn cancel(&mut self, w: Thread, job: &Job, why: Kind) -> bool {
        let (slot, generation) = (job.slot(), job.generation());
        if !self.is_ready(slot, generation) || !self.board.withdraw(w, slot, generation) {
            return false;
        }
        self.note_dropped();
        self.end(slot, Outcome::new(Some(why), 0, 0));
        true
    }

    /// Nobody waits for the job any more: a worker that has it and has not begun it does not, and one that runs it is told.
    pub fn abandon(&mut self, w: Thread, job: &Job) {
        let (slot, generation) = (job.slot(), job.generation());
        let Some(task) = self.slots.get_mut(slot as usize).filter(|task| task.sequence as u32 == generation && !job.has_ended())
        else {
            return;
        };
        task.flags |= flags::CANCELLED;
        if let Some(record) = self.board.tasks.records.get(slot as usize) {
            w.store(&record.flags, task.flags, Relaxed);
        }
    }

    /// Workers are told that nobody waits for what they run.
    pub fn abandon_running(&mut self, w: Thread) {
        for slot in 0..self.slots.len() as u32 {
            if let Slot { sequence: 1.., stage: Stage::Running { .. }, job: Some(job), .. } = &self.slots[slot as usize] {
                let job = job.clone();
                self.abandon(w, &job);
            }
        }
    }

    /// Ends every task: those that no worker has (`running` false), or all.
    pub fn end_all(&mut self, w: Thread, why: Kind, death: Option<ExitInfo>, running: bool) {
        for slot in 0..self.slots.len() as u32 {
            let Slot { sequence, stage, .. } = self.slots[slot as usize];
            if sequence == 0 || stage == Stage::Written {
                continue;
            }
            let mut outcome = Outcome::new(Some(why), 0, 0);
            outcome.death = death;
            match stage {
                Stage::Running { place } if running => {
                    outcome.worker_pid = self.workers.get(place as usize).map_or(0, |worker| worker.pid);
                    self.note_run(slot, now(), &outcome);
                }
                Stage::Ready if running || self.board.withdraw(w, slot, sequence as u32) => self.note_dropped(),
                _ => continue,
            }
            self.end(slot, outcome);
        }
    }

    /// A bell for a thread that will wait; shared where there are not enough.
    pub fn take_bell(&mut self) -> usize {
        let bell = self.bells.iter().position(|&users| users == 0).unwrap_or(BELLS - 1);
        self.share_bell(bell);
        bell
    }

    pub fn share_bell(&mut self, bell: usize) {
        self.bells[bell] += 1;
        self.bells_in_use |= 1 << bell;
    }

    pub fn return_bell(&mut self, bell: usize) {
        self.bells[bell] -= 1;
        if self.bells[bell] == 0 {
            for bells in [&mut self.bells_in_use, &mut self.room_bells, &mut self.join_bells] {
                *bells &= !(1 << bell);
            }
        }
    }

    /// Makes the worker that runs (or will run) the job ring `bell`.
    pub fn ring_when_ended(&mut self, w: Thread, job: &Job, bell: usize) {
        if let Some(record) = self.board.tasks.records.get(job.slot() as usize) {
            let task = &self.slots[job.slot() as usize];
            if task.sequence as u32 == job.generation() && !job.has_ended() {
                w.store(&record.bell, bell as u32 + 1, Relaxed);
            }
        }
    }

    // ---- For a trace ----

    /// Begins to note what happens; answers {queued, running}.
    pub fn begin_trace(&mut self, at: u64) -> (i64, i64) {
        let mut trace = Box::new(Recorder::new(at));
        let (mut queued, mut running) = (0, 0);
        for (slot, task) in self.slots.iter().enumerate().filter(|(_, task)| task.sequence != 0) {
            match task.stage {
                Stage::Ready => {
                    queued += 1;
                    trace.waits_already(slot as u32);
                }
                Stage::Running { place } => {
                    running += 1;
                    trace.runs_already(slot as u32, &self.workers[place as usize]);
                }
                Stage::Written => {}
            }
        }
        self.trace = Some(trace);
        (queued, running)
    }

    /// The trace ends: what runs has run until now.
    pub fn note_unfinished(&mut self, at: u64) {
        if self.trace.is_none() {
            return;
        }
        for slot in 0..self.slots.len() as u32 {
            if let Slot { sequence: 1.., stage: Stage::Running { place }, .. } = self.slots[slot as usize] {
                let pid = self.workers[place as usize].pid;
                self.note(slot, at, pid, "unfinished", 0);
            }
        }
    }

    /// A worker has run a task until now.
    fn note_run(&mut self, slot: u32, at: u64, outcome: &Outcome) {
        if self.trace.is_some() {
            let how = match outcome.failure {
                None => "done",
                Some(Kind::TaskFailed) => "failed",
                Some(Kind::WorkerDied) => "worker died",
                Some(Kind::TimedOut) => "timed out",
                Some(Kind::Canceled) => "canceled",
                Some(_) => "reply lost",
            };
            self.note(slot, at, outcome.worker_pid, how, outcome.code);
        }
    }

    fn note(&mut self, slot: u32, at: u64, pid: i32, how: &'static str, code: i32) {
        let (w, Some(trace)) = (Thread::current(), &mut self.trace) else { return };
        let (task, record) = (&self.slots[slot as usize], self.board.tasks.records.get(slot as usize));
        let (function, items) =
            record.map_or((0, 0), |record| (w.load64(&record.function, Relaxed), w.load(&record.items, Relaxed)));
        let (id, attempt) = (task.job.as_ref().map_or(0, |job| job.id()), task.attempt);
        trace.ran(slot, at, |run| Run { pid, id, function, items: items.max(1), attempt, how, code, ..run });
    }

    /// A task has ended that no worker had.
    fn note_dropped(&mut self) {
        if let Some(trace) = &mut self.trace {
            trace.dropped(now());
        }
    }

    /// {queued, running}
    pub fn counts(&self) -> (u64, u64) {
        let running = self.workers.iter().filter(|worker| worker.alive && worker.running.is_some()).count() as u64;
        (self.pending as u64 - running.min(self.pending as u64), running)
    }
}

fn outcome_of(entry: &Entry, result: errno::Result<Option<Filled>>, pid: i32) -> Outcome {
    let lost = |errno| Outcome::new(Some(kind(errno)), 0, pid);
    if entry.has(flag::LOST) {
        return lost(entry.code);
    }
    match result {
        Err(errno) => lost(errno),
        Ok(None) if entry.length > 0 => lost(number::NO_MEMORY),
        Ok(data) => {
            let failure = (entry.code != 0).then_some(Kind::TaskFailed);
            Outcome::new(failure, entry.code, pid).with_data(data, entry.length as usize)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::memory::{Claims, Sizes, Tasks};
    use crate::sys::memory::Access;
    use std::sync::mpsc;
    use std::time::Duration;

    const SLOTS: usize = 4;

    fn table() -> Table {
        let (files, claims) = Files::create(Sizes { slots: SLOTS, places: 3, arena: 64 << 10 }, 3).unwrap();
        let tasks = Tasks::map(files.tasks.as_fd(), &files.sizes, Access::ReadWrite).unwrap();
        let claims = Claims::map(claims.as_fd(), &files.sizes).unwrap();
        let mut table = Table::new(Arc::new(files), Arc::new(Board { tasks, claims }), SLOTS);
        table.make_places(3);
        table
    }

    fn submit(w: Thread, table: &mut Table) {
        let spec = TaskSpec { function: 1, argument: &[], attempts: 1, items: 0, result_size: None, limits: Limits::default() };
        let slot = table.reserve(&spec, &Arc::new(Job::new(0, None, None, Part::Single))).unwrap();
        table.publish(w, slot, &spec).unwrap();
    }

    /// Workers that die with a claim and say nothing, and tasks that write over claims, over and over.
    #[test]
    fn tasks_that_are_lost_again_and_again_find_room_in_the_order() {
        let (tell, done) = mpsc::channel();
        std::thread::spawn(move || {
            let (w, mut table) = (Thread::current(), table());
            let board = table.board.clone();
            // One that was buried before the first life.
            let dead = Holder { place: 0, life: 0xffff };
            let take_all = || std::iter::from_fn(|| board.take(w, dead).map(|taken| taken.slot)).collect::<Vec<_>>();
            (0..SLOTS).for_each(|_| submit(w, &mut table));
            for _ in 0..10 * SLOTS {
                assert_eq!(take_all().len(), SLOTS);
                assert_eq!(table.repair(w) as usize, SLOTS);
            }
            let mut slots = take_all();
            slots.sort_unstable();
            tell.send(slots).unwrap();
        });
        assert_eq!(done.recv_timeout(Duration::from_secs(60)).expect("it does not end"), [0, 1, 2, 3]);
    }

    /// What a death costs does not depend on how much waits.
    #[test]
    fn what_was_taken_is_found_without_looking_at_what_waits() {
        let (w, mut table) = (Thread::current(), table());
        let (board, dead) = (table.board.clone(), Holder { place: 0, life: 0xffff });
        (0..SLOTS).for_each(|_| submit(w, &mut table));
        let hint = &board.claims.head.hints[NORMAL];
        // Whoever takes one may be killed before it moves the hint, or be slow and move it back.
        assert!((0..2).all(|_| board.take(w, dead).is_some()));
        w.store64(hint, 0, Relaxed);
        // The last one was written over: that is found in time.
        w.store64(board.claims.claims.get(SLOTS - 1).unwrap(), 0x41, Relaxed);
        assert_eq!(table.repair_taken(w), 2);
        // Several may die at once.
        assert_eq!((table.repair_taken(w), w.load64(hint, Relaxed)), (0, 2));
        assert!((0..2).all(|_| board.take(w, dead).is_some()));
        assert_eq!((table.repair_taken(w), table.repair(w)), (2, 1));
        assert_eq!((table.repair_taken(w), table.repair(w)), (0, 0));
        let mut slots: Vec<_> = std::iter::from_fn(|| board.take(w, dead).map(|taken| taken.slot)).collect();
        slots.sort_unstable();
        assert_eq!(slots, [0, 1, 2, 3]);
    }
}
