//! Making a pool, and its handle.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

use super::board::Board;
use super::crew::Crew;
use super::delivery;
use super::host::{Cursor, Host, Readers, State};
use super::journal::{self, Peek, Reader};
use super::memory::{Claims, Duties, Files, Sizes, Tasks};
use super::message::{self, Message, Received};
use super::nursery::{Child, Nursery};
use super::roll::{Roll, explain, stage, step};
use super::table::Table;
use super::task::Code;
use crate::error::{Error, Kind, Result};
use crate::log::{self, Level};
use crate::shm::Words;
use crate::shm::pool::PROCESSES_MAX;
use crate::sys::elf::Loaded;
use crate::sys::fd::PrivateFd;
use crate::sys::fork::{self, Forked};
use crate::sys::fork_gate::Member;
use crate::sys::gathering::Gathering;
use crate::sys::memory::Access;
use crate::sys::nursery as os;
use crate::sys::signal::{Blocked, Kept};
use crate::sys::stderr;
use crate::sys::thread::{self, Thread};
use crate::sys::wait;
use crate::sys::withheld::Withheld;
use crate::sys::{self, Deadline, cpu, fd, fork_gate, now, pidfd, poll, process, socket, stdio};
use crate::timeout::Timeout;

/// What there is beside a pool's workers: the spare one, and one whose end is being dealt with.
const PLACES_BESIDE: usize = 2;
/// And of a pool whose workers leave after some tasks: so many that run their finalizers, and others their initializers.
const PLACES_LEAVING: usize = 8;
const WORKERS_MAX: u32 = (PROCESSES_MAX - PLACES_BESIDE) as u32;
const PENDING_MAX: usize = 1 << 24;
const PENDING: usize = 65_536;
/// Bytes of arguments of middling length; longer ones, and those that find no room there, lie behind, each in pages of its own. So
/// there are at least so many for each task. Addresses only: the memory is made with use.
const ARENA: usize = 64 << 20;
const ARENA_PER_TASK: usize = 256;
const BUDGET: u32 = 16;
const WINDOW_MS: u32 = 30_000;
/// How long a nursery may take to begin: it forks its workers in that time.
const BEGIN_MS: u64 = 60_000;
/// What the delivery thread has for the host's callbacks.
const STACK: usize = 8 << 20;

/// Zero is the default of every field.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub name: String,
    pub workers: u32,
    pub max_pending: usize,
    pub inherit_fds: Vec<i32>,
    pub inherit_all_fds: bool,
    pub single_thread_only: bool,
    /// Threads instead of processes.
    pub threads: bool,
    /// Functions may lie in memory that was made code at run time.
    pub allow_closures: bool,
    /// Without a thread in the host.
    pub host_loop: bool,
    pub no_core: bool,
    pub keep_signals: bool,
    /// Bytes of the end of a dead worker's standard error that are wanted; 0 = none.
    pub stderr_tail: u32,
    /// Bytes; 0 = without limit.
    pub memory_limit: u64,
    pub break_on_death: bool,
    pub crash_budget: u32,
    pub crash_window_ms: u32,
    /// How many tasks a worker runs before another takes its place; 0 = any number.
    pub max_tasks: u32,
}

/// What the host's side is made of.
struct Parts {
    pool_id: u64,
    files: Files,
    board: Arc<Board>,
    roll: Roll,
    cursors: Vec<Cursor>,
    places: usize,
    host_socket: OwnedFd,
    bell: OwnedFd,
    nursery_pid: i32,
    nursery_pidfd: Option<OwnedFd>,
    crew: Option<Crew>,
}

/// The handle of a pool. In a forked child of the process that made it every call answers EFORKED, and dropping it touches nothing.
pub struct Pool {
    host: Arc<Host>,
    thread: Option<JoinHandle<()>>,
}

impl std::ops::Deref for Pool {
    type Target = Arc<Host>;

    fn deref(&self) -> &Arc<Host> {
        &self.host
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let host = &self.host;
        if !host.is_own_process() {
            // Never dropped: what it names is not here, and other things may be under the same addresses and numbers.
            std::mem::forget((host.clone(), self.thread.take()));
            return;
        }
        if host.is_delivering() {
            // Carried out when the callback has returned.
            host.freed.store(true, Relaxed);
            return;
        }
        let _ = host.terminate(Timeout::Try);
        host.join_crew();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        } else {
            // What was pending has ended, and is told here.
            let _ = host.poll_to_the_end(&Deadline::new(Timeout::Try));
        }
    }
}

impl Options {
    /// With the defaults instead of zeros.
    fn checked(&self) -> Result<Options> {
        let or = |value: u32, default: u32| if value == 0 { default } else { value };
        let options = Options {
            workers: if self.workers == 0 { cpu::usable() } else { self.workers },
            max_pending: if self.max_pending == 0 { PENDING } else { self.max_pending },
            crash_budget: if self.break_on_death { 1 } else { or(self.crash_budget, BUDGET) },
            crash_window_ms: or(self.crash_window_ms, WINDOW_MS),
            ..self.clone()
        };
        check_workers(options.workers, "options.workers")?;
        if options.max_pending > PENDING_MAX {
            return Err(Error::invalid(format!("options.max_pending: {} are more than {PENDING_MAX}", options.max_pending)));
        }
        for &fd in &options.inherit_fds {
            if !fd::is_open(fd) {
                return Err(Error::invalid(format!("options.inherit_fds: {fd} is not open")));
            }
        }
        Ok(options)
    }

    fn sizes(&self) -> Sizes {
        let slots = self.max_pending.next_power_of_two();
        Sizes { slots, places: PROCESSES_MAX, arena: ARENA.max(slots * ARENA_PER_TASK) }
    }
}

fn check_workers(workers: u32, name: &str) -> Result<()> {
    match workers {
        1..=WORKERS_MAX => Ok(()),
        _ => Err(Error::invalid(format!("{name}: {workers} is not in 1..={WORKERS_MAX}"))),
    }
}

/// How many places a pool needs.
fn places_for(workers: u32, max_tasks: u32) -> usize {
    let leaving = if max_tasks == 0 { 0 } else { PLACES_LEAVING.min(workers as usize) };
    (workers as usize + PLACES_BESIDE + leaving).min(PROCESSES_MAX)
}

/// The library's own threads stand still at a fork, and need not be feared.
fn check_threads(name: &str, single_thread_only: bool) -> Result<()> {
    let Some(threads) = process::thread_count() else { return Ok(()) };
    let others = threads.saturating_sub(1 + fork_gate::own_threads());
    if others > 0 && single_thread_only {
        return Err(Error::new(
            Kind::Busy,
            format!("{name}: this process has {threads} threads, and TINE_POOL_SINGLE_THREAD_ONLY is set"),
        ));
    }
    if others > 0 {
        log::write(Level::Warn, || {
            format!(
                "{name}: this process has {threads} threads; what the others hold at this moment stays locked in every worker"
            )
        });
    }
    Ok(())
}

impl Pool {
    /// A share of the pool, for a call that may sleep: whoever closes the pool may free it meanwhile. To submit takes one as well: the
    /// callback of the very task may free the pool before the call has returned.
    pub fn share(&self) -> Arc<Host> {
        self.host.clone()
    }

    pub fn new(options: &Options, code: Arc<dyn Code>) -> Result<Pool> {
        let name = if options.name.is_empty() { "pool".to_owned() } else { format!("pool \"{}\"", options.name) };
        Pool::make(options, code, &name).map_err(|error| match error.kind() {
            Kind::Invalid | Kind::Busy => error,
            _ => error.context(name),
        })
    }

    fn make(options: &Options, code: Arc<dyn Code>, name: &str) -> Result<Pool> {
        let options = options.checked()?;
        if options.threads {
            return Pool::make_crew(&options, code, name);
        }
        let sizes = options.sizes();
        check_threads(name, options.single_thread_only)?;
        let pool_id = now() ^ u64::from(process::pid() as u32) << 40;

        // What the host writes it keeps from all its children; the nursery inherits a view for reading.
        let places = places_for(options.workers, options.max_tasks);
        let (files, claims) = Files::create(sizes, places)?;
        let tasks = &files.tasks;
        let nursery_tasks = Tasks::map(tasks.as_fd(), &sizes, Access::Read)?;
        let host_tasks = Tasks::map(tasks.as_fd(), &sizes, Access::ReadWrite)?;
        host_tasks.window.keep_from_children()?;
        let tasks_for_workers = os::read_only(tasks.as_fd())?;
        let map_roll = |access| Roll::map(&files.roll, sizes.places, access);
        let (roll, worker_roll) = (map_roll(Access::Read)?, map_roll(Access::Read)?);
        let (mut readers, mut journals) = (Vec::new(), Vec::with_capacity(sizes.places));
        for _ in 0..places {
            let reader = Reader::new(journal::create()?)?;
            journals.push(reader.fd());
            readers.push(reader);
        }
        let (mut files_of_stderr, mut stderrs) = (Vec::new(), Vec::with_capacity(sizes.places));
        for _ in 0..if options.stderr_tail == 0 { 0 } else { places } {
            let file = stderr::file()?;
            stderrs.push(file.as_raw_fd());
            files_of_stderr.push(file);
        }
        let bell = fd::eventfd()?;
        let (host_socket, socket) = socket::seqpacket_pair()?;
        let host_pidfd = pidfd::open_self()?;
        let child_signals = os::child_signal_fd()?;
        let alarm = fd::eventfd()?;

        let mut children = Vec::with_capacity(sizes.places);
        children.resize(places, Child::default());
        let mut kept: Vec<i32> = options.inherit_fds.clone();
        kept.extend([0, 1, 2]);
        kept.extend([&bell, &socket, &child_signals, &alarm, &tasks_for_workers].map(AsRawFd::as_raw_fd));
        kept.extend(&journals);
        kept.extend(&stderrs);
        kept.extend(host_pidfd.as_ref().map(AsRawFd::as_raw_fd));
        kept.sort_unstable();
        kept.dedup();
        let mut nursery = Nursery {
            pool_id,
            workers: options.workers,
            code,
            board: Arc::new(Board { tasks: nursery_tasks, claims: Claims::map(claims.as_fd(), &sizes)? }),
            roll: map_roll(Access::ReadWrite)?,
            worker_roll,
            duties: Duties::map(&files)?,
            journals,
            stderrs,
            stderr_tail: options.stderr_tail,
            bell_fd: bell.as_raw_fd(),
            tasks_fd: tasks_for_workers.as_raw_fd(),
            host_fd: host_pidfd.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            socket,
            child_signals,
            alarm,
            kept,
            keep_all: options.inherit_all_fds,
            host_socket: host_socket.as_raw_fd(),
            no_core: options.no_core,
            signals: None,
            memory_limit: options.memory_limit,
            max_tasks: options.max_tasks,
            crash_budget: options.crash_budget,
            host_pid: process::pid(),
            proc_is_ours: os::proc_is_ours(),
            host_start: process::start_time(process::pid()).filter(|_| os::proc_is_ours()),
            children,
        };
        let board = Arc::new(Board { tasks: host_tasks, claims: Claims::map(claims.as_fd(), &sizes)? });
        board.claims.window.keep_from_children()?;
        board.set_places(Thread::current(), places);
        drop(claims);

        // From here until the thread runs nothing may be handled in the wrong process, or by the thread.
        let blocked = Blocked::all();
        nursery.signals = options.keep_signals.then(|| Kept::new(&blocked));
        let nursery_pid = begin(nursery, &host_socket, &roll)?;
        roll.window.keep_from_children()?;
        let nursery_pidfd = if pidfd::supported() { pidfd::open(nursery_pid)? } else { None };
        // It was alive when its descriptor was opened if it still is: the number is its own.
        if pidfd::has_ended(&host_socket) {
            return Err(Error::new(Kind::Broken, "its nursery was killed before it began"));
        }

        let files_of_stderr = files_of_stderr.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let cursors = readers.into_iter().zip(files_of_stderr).map(|(reader, stderr)| Cursor::new(reader, stderr)).collect();
        let parts =
            Parts { pool_id, files, board, roll, cursors, places, host_socket, bell, nursery_pid, nursery_pidfd, crew: None };
        Pool::of(&options, name, parts)
    }

    /// A pool of threads: what is a nursery's part is a crew's.
    fn make_crew(options: &Options, code: Arc<dyn Code>, name: &str) -> Result<Pool> {
        let (sizes, places) = (options.sizes(), options.workers as usize);
        let (files, claims) = Files::create(sizes, places)?;
        let tasks = Tasks::map(files.tasks.as_fd(), &sizes, Access::ReadWrite)?;
        let arguments = Tasks::map(files.tasks.as_fd(), &sizes, Access::Read)?;
        let map_roll = |access| Roll::map(&files.roll, sizes.places, access);
        let (roll, crew_roll) = (map_roll(Access::Read)?, map_roll(Access::ReadWrite)?);
        let board = Arc::new(Board { tasks, claims: Claims::map(claims.as_fd(), &sizes)? });
        for window in [&board.tasks.window, &arguments.window, &board.claims.window, &roll.window, &crew_roll.window] {
            window.keep_from_children()?;
        }
        board.set_places(Thread::current(), places);
        let (bell, (host_socket, end)) = (fd::eventfd()?, socket::seqpacket_pair()?);
        Thread::current().store(&crew_roll.head.stage, stage::RUNNING, Relaxed);
        let crew = Some(Crew::new(code, arguments, crew_roll, end));
        let (pool_id, nursery_pid, nursery_pidfd, cursors) = (now(), 0, None, Vec::new());
        let _blocked = Blocked::all();
        let parts = Parts { pool_id, files, board, roll, cursors, places, host_socket, bell, nursery_pid, nursery_pidfd, crew };
        let pool = Pool::of(options, name, parts)?;
        pool.host.start_crew(options.workers)?;
        Ok(pool)
    }

    /// The host's side.
    fn of(options: &Options, name: &str, parts: Parts) -> Result<Pool> {
        let Parts { pool_id, files, board, roll, cursors, places, host_socket, bell, nursery_pid, nursery_pidfd, crew } = parts;
        let files = Arc::new(files);
        let mut table = Table::new(files.clone(), board.clone(), options.max_pending);
        table.make_places(places);
        let peeks: Box<[OnceLock<Arc<Peek>>]> = (0..files.sizes.places).map(|_| OnceLock::new()).collect();
        for (peek, cursor) in peeks.iter().zip(&cursors) {
            let _ = peek.set(cursor.reader.peek.clone());
        }
        table.ready_at_once = options.host_loop;
        let gathering = if options.host_loop {
            // Outside of a turn such a pool counts as asleep.
            Thread::current().store(&board.tasks.head.delivery, 1, SeqCst);
            let end = nursery_pidfd.as_ref().map_or(host_socket.as_raw_fd(), AsRawFd::as_raw_fd);
            Some(Gathering::new(&[bell.as_raw_fd(), end])?)
        } else {
            None
        };
        let host = Arc::new(Host {
            name: name.to_owned(),
            epoch: thread::epoch(),
            pool_id,
            loaded: if options.allow_closures { Loaded::now_with_made_code() } else { Loaded::now() },
            files,
            board,
            roll,
            peeks,
            readers: Mutex::new(Readers { cursors, batch: Vec::new() }),
            state: Mutex::new(State::new(table)),
            trace: Mutex::new(None),
            socket: Withheld::late(host_socket),
            nursery_pid,
            nursery_start: process::start_time(nursery_pid),
            nursery: nursery_pidfd.map(PrivateFd::new),
            bell: PrivateFd::new(bell),
            rung: AtomicU32::new(0),
            gathering,
            crew,
            crash_budget: options.crash_budget as usize,
            crash_window_ns: u64::from(options.crash_window_ms) * 1_000_000,
            worker_count: AtomicU32::new(options.workers),
            max_tasks: options.max_tasks,
            stderr_tail: options.stderr_tail,
            resizing: Mutex::new(places),
            delivering: AtomicU32::new(0),
            freed: AtomicBool::new(false),
        });
        if options.host_loop {
            return Ok(Pool { host, thread: None });
        }
        // Counted from now on, whenever the thread begins.
        let (for_thread, member) = (host.clone(), Member::new());
        let thread = std::thread::Builder::new()
            .name("tine-pool".into())
            .stack_size(STACK)
            .spawn(move || delivery::run(&for_thread, &member));
        // Dropping the pool ends it.
        let mut pool = Pool { host, thread: None };
        pool.thread = Some(thread.map_err(|error| sys::failure(error.raw_os_error().unwrap_or(0), "a thread for callbacks"))?);
        Ok(pool)
    }
}

impl Host {
    /// Changes how many workers there are. They come and go while this has returned.
    pub fn resize(&self, workers: u32) -> Result<()> {
        self.check_process()?;
        check_workers(workers, "workers")?;
        self.admits(&*self.lock()?)?;
        if self.crew.is_some() {
            return Err(Error::new(Kind::NotSupported, format!("{}: tine_pool_resize of a pool of threads", self.name)));
        }
        // How many places the nursery knows. One call after the other: it gets them in their order.
        let mut known = match self.resizing.lock() {
            Ok(known) => known,
            Err(_) => return Err(Error::new(Kind::Panic, format!("{}: the library failed in an earlier call", self.name))),
        };
        for place in *known..places_for(workers, self.max_tasks) {
            let (journal, stderr) = self.make_place(place)?;
            if let Some(stderr) = stderr {
                self.order_with(message::STDERR, place as i64, Some(stderr))?;
            }
            self.order_with(message::PLACE, place as i64, Some(journal))?;
            *known = place + 1;
        }
        self.worker_count.store(workers, Relaxed);
        self.order(message::RESIZE, workers.into())
    }

    /// The host's part of one more place; answers the descriptors of its journal and of its file for standard error, which it keeps.
    /// A place that the nursery could not be told of has them already.
    fn make_place(&self, place: usize) -> Result<(i32, Option<i32>)> {
        let mut readers = self.lock_readers()?;
        if readers.cursors.len() == place {
            let reader = Reader::new(journal::create()?)?;
            self.files.make_places(place, place + 1)?;
            let stderr = if self.stderr_tail == 0 { None } else { Some(stderr::file()?) };
            if let Some(peek) = self.peeks.get(place) {
                let _ = peek.set(reader.peek.clone());
            }
            readers.cursors.push(Cursor::new(reader, stderr));
            self.lock()?.table.make_places(place + 1);
            self.board.set_places(Thread::current(), place + 1);
        }
        match readers.cursors.get(place) {
            Some(cursor) => Ok((cursor.reader.fd(), cursor.stderr.as_ref().map(AsRawFd::as_raw_fd))),
            None => Err(Error::invalid(format!("{}: no place {place}", self.name))),
        }
    }
}

/// Forks the nursery and waits until it has its workers; answers its number. By way of a process in between: the nursery is not the
/// host's child, and a host that waits for all its children does not wait for it.
fn begin(nursery: Nursery, host_socket: &OwnedFd, roll: &Roll) -> Result<i32> {
    fork::prepare_quiet();
    let gate = fork_gate::close()?;
    stdio::flush_before_fork();
    let between = match fork::fork() {
        Ok(Forked::Child) => match fork::fork_quiet() {
            Ok(Forked::Child) => nursery.run(),
            Ok(Forked::Parent(_)) => fork::exit_now(0),
            Err(errno) => {
                nursery.note_failure(step::FORK, errno);
                fork::exit_now(1)
            }
        },
        Ok(Forked::Parent(pid)) => pid,
        Err(errno) => return Err(sys::failure(errno, "fork of the nursery")),
    };
    drop(gate);
    // Somebody who waits for any child may have been faster: that is as well.
    let _ = wait::reap_blocking(wait::Child::Pid(between));
    // Its end of the socket, and what it sees of the memory, is its own from now on.
    drop(nursery);

    let deadline = Deadline::new(Timeout::Millis(BEGIN_MS));
    loop {
        match message::receive(host_socket) {
            Received::Message(started) => return Ok(started.argument as i32),
            Received::Closed => return Err(why_not(roll)),
            Received::Nothing if deadline.passed() => break,
            Received::Nothing => {
                poll::readable(&[host_socket.as_raw_fd()], &deadline)?;
            }
        }
    }
    // Dropping the socket ends it, when it comes to that.
    message::send(host_socket, Message { kind: message::TERMINATE, number: 1, argument: 0 });
    Err(Error::new(Kind::TimedOut, "its nursery did not begin in a minute"))
}

#[cold]
fn why_not(roll: &Roll) -> Error {
    let w = Thread::current();
    let failed = w.load(&roll.head.stage, Acquire) == stage::FAILED;
    let (step, errno) = (w.load(&roll.head.step, Relaxed), w.load(&roll.head.errno, Relaxed) as i32);
    match errno {
        0 => Error::new(Kind::Broken, explain(if failed { step } else { step::NONE })),
        errno => sys::failure(errno, explain(step)),
    }
}
