//! Making a child.
//!
//! The parent forks with all signals blocked, so that none is handled in a child that is half made; the child waits at a gate until
//! the parent holds its pidfd. So a child that the parent does not hold never runs a line of the user's.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::*};

use super::child::{self, Setup};
use super::children::{self, Child, Watch, What};
use super::handle::Process;
use super::record::Record;
use super::role;
use super::streams::Streams;
use crate::error::{Error, Kind, Result};
use crate::log::{self, Level};
use crate::sys::fd::{self, Known, PrivateFd};
use crate::sys::fork::{self, Forked};
use crate::sys::fork_gate;
use crate::sys::interrupt;
use crate::sys::per_process::PerProcess;
use crate::sys::signal::{self, Blocked};
use crate::sys::wait::{self, Seen};
use crate::sys::{self, exit, pidfd, process, stdio, withheld};
use crate::timeout::Timeout;

#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// `None`: "Process-N".
    pub name: Option<&'a CStr>,
    /// Ends with the host, whatever ends that.
    pub daemon: bool,
    /// Neither joined nor ended at the host's exit.
    pub detached: bool,
}

/// A plain fork: what the host printed to stdout and stderr before appears once, and nothing else is done for the child.
pub fn fork() -> Result<Forked> {
    children::reap_freed();
    tell_threads("fork");
    let own_exit_pipe = role::get().and_then(|role| role.exit_pipe);
    let _gate = fork_gate::close()?;
    stdio::flush_before_fork();
    let forked = fork::fork().map_err(fork_failure)?;
    if forked == Forked::Child {
        stdio::purge_in_child();
        leave_exit_pipe_of_parent(own_exit_pipe);
    }
    Ok(forked)
}

/// Runs `body` in a child; its value & 0xff is the exit code.
pub fn start(options: Options, body: impl FnOnce() -> i32) -> Result<Process> {
    if options.daemon && options.detached {
        return Err(Error::invalid("options: TINE_PROCESS_DAEMON and TINE_PROCESS_DETACHED exclude each other"));
    }
    children::reap_freed();
    register_exit_rule()?;
    let name = name_for(options.name);
    tell_threads(&format!("process \"{}\"", name.to_string_lossy()));
    let manner = Manner { daemon: options.daemon, detached: options.detached, deaf: false };
    let (child, record) =
        make(&name, manner, &[], body).map_err(|error| error.context(format_args!("process \"{}\"", name.to_string_lossy())))?;
    let process = Process::new(child, Streams::none());
    if options.daemon { watched(process, &record) } else { Ok(process) }
}

/// What kind of a child.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) daemon: bool,
    pub(super) detached: bool,
    /// Runs nothing of the user's, with all signals blocked.
    pub(super) deaf: bool,
}

/// Its failures do not name the process: to whoever started a command that is the command.
/// `needed`: what it keeps of the descriptors that children do not get.
pub(super) fn make(name: &CStr, manner: Manner, needed: &[RawFd], body: impl FnOnce() -> i32) -> Result<(Arc<Child>, Record)> {
    let own_exit_pipe = role::get().and_then(|role| role.exit_pipe);
    let host_pid = process::pid();
    loop {
        let record = Record::new()?;
        // What the child watches.
        let host_fd = pidfd::open_self()?;
        let exit_pipe = if host_fd.is_none() { Some(fd::pipe()?) } else { None };

        // The child of a program with threads must not allocate.
        let name_of_child = name.to_owned();
        let gate = fork_gate::close()?;
        let not_its = withheld::all_but(needed);
        stdio::flush_before_fork();
        let blocked = Blocked::all();
        let pid = match fork::fork().map_err(fork_failure)? {
            Forked::Child => {
                leave_exit_pipe_of_parent(own_exit_pipe);
                let setup = Setup {
                    record,
                    name: name_of_child,
                    daemon: manner.daemon,
                    host_pid,
                    // Open as long as the child.
                    host_fd: host_fd.map_or(-1, IntoRawFd::into_raw_fd),
                    exit_pipe: exit_pipe.and_then(|(_, write)| Known::by_number(write.into_raw_fd())),
                    not_its,
                    deaf: manner.deaf,
                };
                child::run(setup, blocked, body)
            }
            Forked::Parent(pid) => pid,
        };
        drop(gate);
        match hold(pid, exit_pipe) {
            Ok(watch) => {
                let what = What::Function { record: record.clone(), daemon: manner.daemon, detached: manner.detached };
                let child = Child::new(name.to_owned(), pid, watch, what);
                record.open_gate();
                return Ok((child, record));
            }
            Err(NotHeld::Dead) => return Err(Error::new(Kind::Again, "it was killed before it began")),
            Err(NotHeld::Alive(error)) => {
                // It cannot leave the gate before this, so its number is its own.
                let _ = signal::send_to_child(pid, signal::KILL);
                record.cancel();
                let _ = wait::reap_blocking(wait::Child::Pid(pid));
                // Refused although it once was not: a filter was installed since. Once more, without.
                match error {
                    Some(error) => return Err(error),
                    None => pidfd::give_up(),
                }
            }
        }
    }
}

/// A daemon child counts as started once it watches its parent.
fn watched(process: Process, record: &Record) -> Result<Process> {
    if record.wait_ready(|| process.is_alive().unwrap_or(false)) {
        return Ok(process);
    }
    interrupt::unasked(|| process.join(Timeout::Forever))?;
    let why = format!("{}: no thread to be had for the daemon child to watch its parent", process.label());
    Err(Error::new(Kind::Again, why))
}

enum NotHeld {
    /// It waits at its gate. `None`: pidfds are refused.
    Alive(Option<Error>),
    /// Somebody killed it there; it is reaped.
    Dead,
}

/// How the parent will notice the end of a child that waits at its gate.
fn hold(pid: i32, exit_pipe: Option<(OwnedFd, OwnedFd)>) -> std::result::Result<Watch, NotHeld> {
    let watch = match exit_pipe {
        None => match pidfd::open(pid) {
            Ok(Some(fd)) => Watch::Pidfd(PrivateFd::new(fd)),
            Ok(None) => return Err(NotHeld::Alive(None)),
            Err(error) => return Err(NotHeld::Alive(Some(error))),
        },
        Some((read, _write)) => Watch::Pipe { read: PrivateFd::new(read), started: process::start_time(pid) },
    };
    // If it was killed and the host reaped it, what has its number now may be another process.
    match wait::peek(watch.child(pid)) {
        Ok(Seen::Nothing) => return Ok(watch),
        Ok(Seen::Ended { .. }) => drop(wait::reap(watch.child(pid))),
        _ => {}
    }
    Err(NotHeld::Dead)
}

/// The library's own threads stand still at a fork, and need not be feared.
pub(super) fn tell_threads(what: &str) {
    if !log::is_on() {
        return;
    }
    let threads = process::thread_count().unwrap_or(1);
    if threads > 1 + fork_gate::own_threads() {
        log::write(Level::Warn, || {
            format!("{what}: this process has {threads} threads; what the others hold at this moment stays locked in the child")
        });
    }
}

#[cold]
fn fork_failure(errno: i32) -> Error {
    sys::failure(errno, "fork")
}

/// A process that a started child makes must not hold that child's exit pipe open.
fn leave_exit_pipe_of_parent(pipe: Option<Known>) {
    if let Some(pipe) = pipe {
        pipe.close();
    }
}

/// The counter goes on also where a name is given.
fn name_for(given: Option<&CStr>) -> CString {
    static STARTED: PerProcess<u64> = PerProcess::new();
    let number = STARTED.with(|started| {
        *started += 1;
        *started
    });
    given.map_or_else(|| CString::new(format!("Process-{number}")).unwrap_or_default(), CStr::to_owned)
}

/// Once per program, more or less: a forked child inherits the handler, and it sees to the children of whatever process it runs in.
fn register_exit_rule() -> Result<()> {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    // SYNC POINT: exit rule (acquire).
    if REGISTERED.load(Acquire) {
        return Ok(());
    }
    // Two threads may both do it: the second run finds nothing left to do. A `Once` would hang in the child of a fork meanwhile.
    exit::at_exit(children::at_exit)?;
    // SYNC POINT: exit rule (release).
    REGISTERED.store(true, Release);
    Ok(())
}
