//! The threads of a scenario and the baton that one of them has.
//!
//! They are started once and used for all runs: starting a thread costs more than a run.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::{self, Thread};

use super::schedule::{Bounds, Chooser, Point, Schedule};
use super::sim::OBSERVER;
use super::world::{Event, Next, World};
use super::{Names, Rest, Scenario, Sim};

/// Has the baton between runs and at rest.
const DIRECTOR: usize = usize::MAX - 1;
/// Who has the baton when all is over: the threads end.
const NOBODY: usize = usize::MAX;

/// With this a killed thread, or one of a run that is over, unwinds. No panic: nothing is printed.
struct Stop;

pub struct Baton {
    world: Mutex<World>,
    holder: AtomicUsize,
    director: OnceLock<Thread>,
    actors: OnceLock<Vec<Thread>>,
}

impl Baton {
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn pass(&self, to: usize) {
        self.holder.store(to, SeqCst);
        match to {
            DIRECTOR => self.director.get().expect("the director is there first").unpark(),
            to => self.actors.get().expect("all threads are there before the first run")[to].unpark(),
        }
    }

    /// Until `me` has the baton. `false`: all is over.
    fn await_turn(&self, me: usize) -> bool {
        loop {
            match self.holder.load(SeqCst) {
                NOBODY => return false,
                holder if holder == me => return true,
                _ => thread::park(),
            }
        }
    }

    /// A decision before an operation of `me`, or because it sleeps. Returns when it is its turn, with the world as it is then;
    /// unwinds if it is killed, or the run over.
    pub fn decide<'a>(&'a self, mut world: MutexGuard<'a, World>, me: usize, point: Point) -> MutexGuard<'a, World> {
        match world.next(Some(me), point) {
            Next::GoOn => return world,
            Next::Die => {
                drop(world);
                resume_unwind(Box::new(Stop));
            }
            Next::Give(to) => {
                drop(world);
                self.pass(to);
            }
            Next::Rest => {
                drop(world);
                self.pass(DIRECTOR);
            }
        }
        let goes_on = self.await_turn(me);
        world = self.world();
        if !goes_on || world.is_over {
            drop(world);
            resume_unwind(Box::new(Stop));
        }
        world
    }

    /// `me` is through with its part.
    fn leave(&self, me: usize, result: Result<Result<(), String>, Box<dyn Any + Send>>) {
        let mut world = self.world();
        match result {
            Ok(Ok(())) => {}
            Ok(Err(what)) => world.fail(format!("thread {me}: {what}")),
            Err(payload) if payload.is::<Stop>() => {}
            Err(payload) => {
                let text = payload.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("something");
                let what = format!("thread {me} panicked: {text}");
                world.fail(what);
            }
        }
        world.end(me);
        let next = if world.is_over { Next::Rest } else { world.next(Some(me), Point::Blocked) };
        drop(world);
        if self.holder.load(SeqCst) == NOBODY {
            return;
        }
        match next {
            Next::Give(to) => self.pass(to),
            _ => self.pass(DIRECTOR),
        }
    }
}

/// What a run came to.
pub struct Outcome {
    pub failure: Option<String>,
    pub schedule: Schedule,
    pub decisions: u32,
    pub trace: Vec<String>,
    pub chooser: Chooser,
}

/// A scenario with its threads, ready to be run.
pub struct Stage<'a, S: Scenario> {
    scenario: &'a S,
    baton: &'a Baton,
    /// What the threads of the current run share, and which of them have begun.
    shared: &'a Mutex<Option<Arc<S::Shared>>>,
}

impl<S: Scenario> Stage<'_, S> {
    /// Starts the threads for as long as `body` takes.
    pub fn open(scenario: &S, body: impl FnOnce(&Stage<S>)) {
        let bounds = Bounds { kills: 0, timeouts: 0, preemptions: 0 };
        let baton = Baton {
            world: Mutex::new(World::new(0, bounds, Chooser::replay(Schedule::default()))),
            holder: AtomicUsize::new(DIRECTOR),
            director: OnceLock::new(),
            actors: OnceLock::new(),
        };
        let shared = Mutex::new(None);
        let stage = Stage { scenario, baton: &baton, shared: &shared };
        let _ = baton.director.set(thread::current());
        thread::scope(|scope| {
            let actors = (0..scenario.threads()).map(|me| scope.spawn(move || stage.act(me)).thread().clone()).collect();
            let _ = baton.actors.set(actors);
            let result = catch_unwind(AssertUnwindSafe(|| body(&stage)));
            baton.world().is_over = true;
            baton.holder.store(NOBODY, SeqCst);
            baton.actors.get().into_iter().flatten().for_each(Thread::unpark);
            if let Err(failure) = result {
                resume_unwind(failure);
            }
        });
    }

    fn act(&self, me: usize) {
        while self.baton.await_turn(me) {
            let shared = self.shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
            let shared = shared.expect("a thread has its turn in a run only");
            self.baton.world().begin(me);
            let sim = Sim::new(self.baton, me);
            let result = catch_unwind(AssertUnwindSafe(|| self.scenario.run(&shared, me, sim)));
            drop(shared);
            self.baton.leave(me, result);
        }
    }

    pub fn run(&self, bounds: Bounds, chooser: Chooser) -> Outcome {
        self.play(bounds, chooser, false)
    }

    /// [`Stage::run`] that keeps what happened.
    pub fn trace(&self, bounds: Bounds, chooser: Chooser) -> Outcome {
        self.play(bounds, chooser, true)
    }

    fn play(&self, bounds: Bounds, chooser: Chooser, trace: bool) -> Outcome {
        let threads = self.scenario.threads();
        let shared = Arc::new(self.scenario.make());
        *self.shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(shared.clone());
        let mut world = World::new(threads, bounds, chooser);
        world.trace = trace.then(Vec::new);
        *self.baton.world() = world;
        loop {
            let mut world = self.baton.world();
            let next = world.next(None, Point::Blocked);
            drop(world);
            if let Next::Give(to) = next {
                self.baton.pass(to);
                self.baton.await_turn(DIRECTOR);
            }
            let mut world = self.baton.world();
            if world.failure.is_some() {
                break;
            }
            if world.look_around() {
                continue;
            }
            let rest = Rest { fates: world.fates() };
            drop(world);
            let observer = Sim::observer(self.baton);
            let mut checked = self.scenario.check_rest(&shared, &rest, observer);
            world = self.baton.world();
            if checked.is_ok() && world.go_on_from_rest() {
                continue;
            }
            drop(world);
            checked = checked.and_then(|()| self.scenario.check_end(&shared, &rest, observer));
            if let Err(what) = checked {
                self.baton.world().fail(what);
            }
            break;
        }
        self.strike(threads);
        self.outcome(&shared)
    }

    /// Ends the run: whoever is still inside unwinds.
    fn strike(&self, threads: usize) {
        self.baton.world().is_over = true;
        for thread in 0..threads {
            if self.baton.world().is_inside(thread) {
                self.baton.pass(thread);
                self.baton.await_turn(DIRECTOR);
            }
        }
    }

    fn outcome(&self, shared: &S::Shared) -> Outcome {
        let bounds = Bounds { kills: 0, timeouts: 0, preemptions: 0 };
        let empty = World::new(0, bounds, Chooser::replay(Schedule::default()));
        let mut world = std::mem::replace(&mut *self.baton.world(), empty);
        let mut names = Names::default();
        self.scenario.names(shared, &mut names);
        let trace = world.trace.take().unwrap_or_default();
        let trace = trace.into_iter().map(|(thread, event)| describe(thread, &event, &names)).collect();
        Outcome {
            failure: world.failure.take(),
            schedule: std::mem::take(&mut world.schedule),
            decisions: world.decisions,
            trace,
            chooser: world.into_chooser(),
        }
    }
}

impl<S: Scenario> Clone for Stage<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Scenario> Copy for Stage<'_, S> {}

fn describe(thread: usize, event: &Event, names: &Names) -> String {
    let thread = if thread == OBSERVER { "the observer".into() } else { thread.to_string() };
    match event {
        Event::Happened(what) => format!("{thread} {what}"),
        Event::Did { what, word, before, after } if before == after => {
            format!("{thread} {what} {}: {before:#x}", names.find(*word))
        }
        Event::Did { what, word, before, after } => {
            format!("{thread} {what} {}: {before:#x} -> {after:#x}", names.find(*word))
        }
    }
}
