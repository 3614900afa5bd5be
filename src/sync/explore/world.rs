//! What stands for the memory and the kernel: the values of words, who sleeps on them, and the robust words of the threads.
//!
//! Words are known by their addresses; the real ones only give the values to begin with. (What the code under test copies to and from
//! plain bytes is real memory: one thread runs at a time.) A thread that dies leaves its robust words behind, and the kernel's walk
//! over them is scheduled word by word like everything else.

use super::schedule::{Bounds, Choice, Chooser, Point, Schedule};

const WAITERS: u32 = 1 << 31;
const OWNER_DIED: u32 = 1 << 30;
const OWNER: u32 = OWNER_DIED - 1;

/// More decisions than any right run needs.
const DECISIONS_MAX: u32 = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Ended,
    Asleep,
    Dead,
}

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awake {
    Look,
    TimedOut,
    Interrupted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ready,
    /// Until when, on the clock of the run; `None` for ever.
    Asleep {
        word: usize,
        until: Option<u64>,
    },
    Dead,
    Ended,
}

#[derive(Debug)]
struct Task {
    status: Status,
    /// Has begun and not left, dead or alive.
    is_inside: bool,
    awake: Awake,
    /// Its sleep ends from time to time of itself; so often it has since somebody died.
    watches: bool,
    looks: u8,
    pending: Option<usize>,
    /// Oldest first.
    linked: Vec<usize>,
}

struct Cell {
    address: usize,
    value: u64,
    /// What the real word holds: nobody may touch it behind our back.
    real: u64,
}

/// What the scheduler wants of the thread that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    GoOn,
    /// Another has its turn.
    Give(usize),
    /// The thread was killed.
    Die,
    /// Nobody can step.
    Rest,
}

/// One run.
pub struct World {
    tasks: Vec<Task>,
    cells: Vec<Cell>,
    clock: u64,
    left: Bounds,
    chooser: Chooser,
    pub schedule: Schedule,
    pub decisions: u32,
    pub failure: Option<String>,
    /// The run is over; who is still somewhere inside unwinds.
    pub is_over: bool,
    /// What happened, if somebody wants to know.
    pub trace: Option<Vec<(usize, Event)>>,
    options: Vec<Choice>,
}

#[derive(Clone, Debug)]
pub enum Event {
    Did { what: &'static str, word: usize, before: u64, after: u64 },
    Happened(String),
}

impl World {
    pub fn new(threads: usize, bounds: Bounds, chooser: Chooser) -> World {
        let task = || Task {
            status: Status::Ready,
            is_inside: false,
            awake: Awake::Look,
            watches: false,
            looks: 0,
            pending: None,
            linked: Vec::new(),
        };
        World {
            tasks: (0..threads).map(|_| task()).collect(),
            cells: Vec::new(),
            clock: 0,
            left: bounds,
            chooser,
            schedule: Schedule::default(),
            decisions: 0,
            failure: None,
            is_over: false,
            trace: None,
            options: Vec::new(),
        }
    }

    pub fn into_chooser(self) -> Chooser {
        self.chooser
    }

    /// Whether the thread's operations still have effects.
    pub fn is_gone(&self, thread: usize) -> bool {
        self.is_over || self.tasks[thread].status == Status::Dead
    }

    pub fn fates(&self) -> Vec<Fate> {
        let fate = |task: &Task| match task.status {
            Status::Dead => Fate::Dead,
            Status::Asleep { .. } => Fate::Asleep,
            Status::Ready | Status::Ended => Fate::Ended,
        };
        self.tasks.iter().map(fate).collect()
    }

    pub fn is_inside(&self, thread: usize) -> bool {
        self.tasks[thread].is_inside
    }

    pub fn is_asleep(&self, thread: usize) -> bool {
        matches!(self.tasks[thread].status, Status::Asleep { .. })
    }

    pub fn begin(&mut self, thread: usize) {
        self.tasks[thread].is_inside = true;
    }

    pub fn end(&mut self, thread: usize) {
        self.tasks[thread].is_inside = false;
        if self.tasks[thread].status != Status::Dead {
            self.tasks[thread].status = Status::Ended;
        }
    }

    pub fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    pub fn note(&mut self, thread: usize, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push((thread, Event::Happened(text())));
        }
    }

    // ---- memory

    fn cell(&mut self, address: usize, real: u64) -> &mut Cell {
        let index = match self.cells.iter().position(|cell| cell.address == address) {
            Some(index) => index,
            None => {
                self.cells.push(Cell { address, value: real, real });
                self.cells.len() - 1
            }
        };
        let cell = &mut self.cells[index];
        assert!(cell.real == real, "a word was changed by something else than Words");
        cell
    }

    /// Changes a word and answers what it was.
    pub fn change(&mut self, thread: usize, what: &'static str, address: usize, real: u64, new: impl FnOnce(u64) -> u64) -> u64 {
        let cell = self.cell(address, real);
        let before = cell.value;
        let after = new(before);
        cell.value = after;
        if let Some(trace) = &mut self.trace {
            trace.push((thread, Event::Did { what, word: address, before, after }));
        }
        before
    }

    fn value(&mut self, address: usize) -> &mut u64 {
        let cell = self.cells.iter_mut().find(|cell| cell.address == address);
        &mut cell.expect("a robust word was seen when it was made pending").value
    }

    // ---- the kernel

    pub fn sleep(&mut self, thread: usize, word: usize, until: Option<u64>, watches: bool) -> Result<(), Awake> {
        if until.is_some_and(|until| until <= self.clock) {
            return Err(Awake::TimedOut);
        }
        self.tasks[thread].status = Status::Asleep { word, until };
        self.tasks[thread].watches = watches;
        self.note(thread, || "falls asleep".into());
        Ok(())
    }

    pub fn awake(&self, thread: usize) -> Awake {
        self.tasks[thread].awake
    }

    fn rouse(&mut self, thread: usize, awake: Awake) {
        self.tasks[thread].status = Status::Ready;
        self.tasks[thread].awake = awake;
    }

    /// Wakes at most `count` sleepers of the word.
    pub fn wake(&mut self, word: usize, count: u32) -> u32 {
        let mut woken = 0;
        while woken < count {
            let is_here = |task: &Task| matches!(task.status, Status::Asleep { word: other, .. } if other == word);
            let sleepers = (0..self.tasks.len()).filter(|&thread| is_here(&self.tasks[thread]));
            let options: Vec<Choice> = sleepers.map(|thread| Choice::Wake(thread as u8)).collect();
            let choice = match options.len() {
                0 => break,
                many if many as u32 > count => self.choose(Point::WakeUp, None, &options),
                _ => options[0],
            };
            self.rouse(choice.thread().into(), Awake::Look);
            self.note(choice.thread().into(), || "is woken".into());
            woken += 1;
        }
        woken
    }

    pub fn set_pending(&mut self, thread: usize, word: usize, real: u64) {
        self.cell(word, real);
        self.tasks[thread].pending = Some(word);
    }

    pub fn clear_pending(&mut self, thread: usize) {
        self.tasks[thread].pending = None;
    }

    pub fn link(&mut self, thread: usize, word: usize) {
        self.tasks[thread].linked.push(word);
    }

    pub fn unlink(&mut self, thread: usize, word: usize) -> bool {
        let linked = &mut self.tasks[thread].linked;
        linked.iter().position(|&other| other == word).map(|index| linked.remove(index)).is_some()
    }

    pub fn holds(&self, thread: usize, word: usize) -> bool {
        self.tasks[thread].linked.contains(&word)
    }

    fn kill(&mut self, thread: usize) {
        self.tasks[thread].status = Status::Dead;
        self.left.kills -= 1;
        self.tasks.iter_mut().for_each(|task| task.looks = 0);
        self.note(thread, || "IS KILLED".into());
    }

    fn has_words_to_bury(&self, thread: usize) -> bool {
        let task = &self.tasks[thread];
        task.status == Status::Dead && (task.pending.is_some() || !task.linked.is_empty())
    }

    /// The kernel sees to one robust word of a dead thread: the newest linked one, last the pending one. Each is looked at once.
    fn bury(&mut self, thread: usize) {
        let task = &mut self.tasks[thread];
        let pending = task.pending;
        task.linked.retain(|&word| Some(word) != pending);
        let (word, is_pending) = match task.linked.pop() {
            Some(word) => (word, false),
            None => (task.pending.take().expect("there is a word to bury"), true),
        };
        let tid = thread as u32 + 1;
        let value = *self.value(word) as u32;
        let wakes = match value & OWNER {
            // Given up, or not taken yet: the wake-up that came with it may have been this thread's.
            0 => is_pending,
            owner if owner == tid => {
                let after = value & WAITERS | OWNER_DIED;
                *self.value(word) = after.into();
                if let Some(trace) = &mut self.trace {
                    let (before, after) = (value.into(), after.into());
                    trace.push((thread, Event::Did { what: "the kernel buries", word, before, after }));
                }
                value & WAITERS != 0
            }
            _ => false,
        };
        if wakes {
            self.wake(word, 1);
        }
    }

    // ---- the scheduler

    fn choose(&mut self, point: Point, current: Option<u8>, options: &[Choice]) -> Choice {
        let decision = self.decisions;
        self.decisions += 1;
        let choice = self.chooser.choose(decision, point, current, options, &self.left);
        if choice != options[0] {
            self.schedule.push(decision, choice);
        }
        choice
    }

    /// Decides what happens before the thread that asks goes on, if it can.
    pub fn next(&mut self, current: Option<usize>, point: Point) -> Next {
        loop {
            if self.decisions > DECISIONS_MAX {
                self.fail(format!("runs in circles: no rest after {DECISIONS_MAX} steps"));
            }
            if self.failure.is_some() {
                return Next::Rest;
            }
            let goes_on = current.filter(|&thread| self.tasks[thread].status == Status::Ready);
            let options = self.options(current, goes_on.is_some(), point);
            let Some(&first) = options.first() else { return Next::Rest };
            if !matches!(first, Choice::Run(_)) {
                // Time may pass, but nobody steps.
                return Next::Rest;
            }
            let choice = self.choose(point, current.map(|thread| thread as u8), &options);
            let thread = usize::from(choice.thread());
            self.options = options;
            match choice {
                Choice::Run(_) if self.tasks[thread].status == Status::Dead => self.bury(thread),
                Choice::Run(_) if Some(thread) == current => return Next::GoOn,
                Choice::Run(_) => {
                    if matches!(point, Point::Operation | Point::Waking) && goes_on.is_some() {
                        self.left.preemptions = self.left.preemptions.saturating_sub(1);
                    }
                    return Next::Give(thread);
                }
                Choice::Kill(_) => {
                    self.kill(thread);
                    if Some(thread) == current {
                        return Next::Die;
                    }
                }
                other => self.let_time_pass(other),
            }
        }
    }

    fn let_time_pass(&mut self, choice: Choice) {
        let thread = usize::from(choice.thread());
        self.left.timeouts = self.left.timeouts.saturating_sub(1);
        match (choice, self.tasks[thread].status) {
            (Choice::Timeout(_), Status::Asleep { until: Some(until), .. }) => {
                self.clock = self.clock.max(until);
                self.tasks.iter_mut().for_each(|task| task.looks = 0);
                self.rouse(thread, Awake::TimedOut);
                self.note(thread, || "runs out of time".into());
            }
            (Choice::Interrupt(_), _) => {
                self.rouse(thread, Awake::Interrupted);
                self.note(thread, || "is interrupted".into());
            }
            _ => {
                // It may have been a signal, whose interrupt check used the library: then nothing is pending any more.
                self.clear_pending(thread);
                self.rouse(thread, Awake::Look);
                self.note(thread, || "wakes up for no reason".into());
            }
        }
    }

    /// The obvious one first.
    fn options(&mut self, current: Option<usize>, goes_on: bool, point: Point) -> Vec<Choice> {
        let mut options = std::mem::take(&mut self.options);
        options.clear();
        let count = self.tasks.len();
        // Round robin: who comes after the current one is the first to run when it cannot, or yields.
        let start = current.map_or(0, |thread| thread + 1);
        if let Some(current) = current.filter(|_| goes_on && point != Point::Yield) {
            options.push(Choice::Run(current as u8));
        }
        if point != Point::Private {
            for thread in (start..start + count).map(|thread| thread % count) {
                let steps = self.tasks[thread].status == Status::Ready || self.has_words_to_bury(thread);
                let run = Choice::Run(thread as u8);
                if steps && options.first() != Some(&run) {
                    options.push(run);
                }
            }
        }
        let asleep = |task: &Task| matches!(task.status, Status::Asleep { .. });
        if self.left.kills > 0 {
            let killable = |&thread: &usize| match point {
                Point::Private => Some(thread) == current,
                _ => asleep(&self.tasks[thread]) || self.tasks[thread].status == Status::Ready,
            };
            options.extend((0..count).filter(killable).map(|thread| Choice::Kill(thread as u8)));
        }
        if self.left.timeouts > 0 && point != Point::Private {
            for thread in (0..count).filter(|&thread| asleep(&self.tasks[thread])) {
                if matches!(self.tasks[thread].status, Status::Asleep { until: Some(_), .. }) {
                    options.push(Choice::Timeout(thread as u8));
                }
                options.push(Choice::Spurious(thread as u8));
                options.push(Choice::Interrupt(thread as u8));
            }
        }
        options
    }

    /// At rest: a sleeper that watches looks around, twice after each death and each timeout (who has no time may leave something for
    /// it to do); nothing else may need it. `false`: all have.
    pub fn look_around(&mut self) -> bool {
        let reason = self.clock > 0 || self.tasks.iter().any(|task| task.status == Status::Dead);
        let watcher = (0..self.tasks.len()).find(|&thread| {
            let task = &self.tasks[thread];
            task.watches && task.looks < 2 && matches!(task.status, Status::Asleep { .. })
        });
        let Some(watcher) = watcher.filter(|_| reason) else { return false };
        self.tasks[watcher].looks += 1;
        self.rouse(watcher, Awake::Look);
        self.note(watcher, || "looks around".into());
        true
    }

    /// At rest: somebody's time runs out, or somebody is killed. `false`: nothing more happens.
    pub fn go_on_from_rest(&mut self) -> bool {
        let asleep: Vec<u8> = (0..self.tasks.len()).filter(|&thread| self.is_asleep(thread)).map(|thread| thread as u8).collect();
        let ends = |&thread: &u8| matches!(self.tasks[usize::from(thread)].status, Status::Asleep { until: Some(_), .. });
        let mut options: Vec<Choice> = asleep.iter().copied().filter(ends).map(Choice::Timeout).collect();
        if options.is_empty() {
            options.push(Choice::End);
        }
        if self.left.kills > 0 {
            options.extend(asleep.into_iter().map(Choice::Kill));
        }
        match self.choose(Point::Rest, None, &options) {
            Choice::End => return false,
            Choice::Kill(thread) => self.kill(thread.into()),
            choice => self.let_time_pass(choice),
        }
        true
    }
}
