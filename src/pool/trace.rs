//! What the workers of a pool did when, as Trace Event JSON: a file that chrome://tracing and Perfetto open.
//!
//! The table notes events under its lock, in memory that holds so many of them; whoever lets go of the lock and finds it full takes them
//! and writes them to the file. So nothing is lost, the file is always readable (its closing bracket may be missing, and its last line
//! if the host was killed while it wrote it: readers of the format accept that), and a pool that nobody traces pays for one look at an empty pointer.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::fmt::Write;
use std::os::fd::AsFd;

use super::collect::describe;
use super::host::{Host, Lifecycle, State};
use super::table::{Table, WorkerState};
use crate::error::{Error, Result};
use crate::log::{self, Level};
use crate::process::ExitInfo;
use crate::sys::fd::PrivateFd;
use crate::sys::{elf, failure, file, now, process};

/// Events that are kept before they are written.
const EVENTS: usize = 8_192;
/// Counts are written no oftener than that.
const COUNT_NS: u64 = 100_000;

/// A task, or a chunk of a map, in a worker.
pub struct Run {
    pub pid: i32,
    pub id: u64,
    pub function: u64,
    pub items: u32,
    pub attempt: u32,
    pub submitted: u64,
    pub began: u64,
    pub ended: u64,
    pub how: &'static str,
    pub code: i32,
}

enum Event {
    Run(Run),
    /// A worker, by its number and process, before anything else of it.
    Worker(u32, i32),
    Death(i32, u64, String),
}

#[derive(Clone, Copy, Default)]
struct Times {
    submitted: u64,
    /// 0 = it waits.
    began: u64,
}

/// What the table notes.
#[derive(Default)]
pub struct Recorder {
    begin: u64,
    events: Vec<Event>,
    /// How the numbers of queued and running tasks change: {when, by, by}
    changes: Vec<(u64, i64, i64)>,
    /// Of each slot.
    times: Vec<Times>,
    known: HashSet<i32>,
}

impl Recorder {
    pub fn new(begin: u64) -> Recorder {
        Recorder { begin, ..Recorder::default() }
    }

    /// What was submitted before the trace began.
    pub fn waits_already(&mut self, slot: u32) {
        let submitted = self.begin;
        *self.time(slot) = Times { submitted, began: 0 };
    }

    /// What has begun before the trace began.
    pub fn runs_already(&mut self, slot: u32, worker: &WorkerState) {
        let begin = self.begin;
        *self.time(slot) = Times { submitted: begin, began: begin };
        if self.known.insert(worker.pid) {
            self.events.push(Event::Worker(worker.number, worker.pid));
        }
    }

    fn is_full(&self) -> bool {
        self.events.len() + self.changes.len() / 4 >= EVENTS
    }

    fn time(&mut self, slot: u32) -> &mut Times {
        let slot = slot as usize;
        if slot >= self.times.len() {
            self.times.resize(slot + 1, Times::default());
        }
        &mut self.times[slot]
    }

    pub fn submitted(&mut self, slot: u32, at: u64) {
        *self.time(slot) = Times { submitted: at, began: 0 };
        self.changes.push((at, 1, 0));
    }

    pub fn began(&mut self, slot: u32, worker: &WorkerState, at: u64) {
        self.time(slot).began = at;
        self.changes.push((at, -1, 1));
        if self.known.insert(worker.pid) {
            self.events.push(Event::Worker(worker.number, worker.pid));
        }
    }

    /// A task has ended that no worker had.
    pub fn dropped(&mut self, at: u64) {
        self.changes.push((at, -1, 0));
    }

    /// `fill` says the rest of what is known of it.
    pub fn ran(&mut self, slot: u32, at: u64, fill: impl FnOnce(Run) -> Run) {
        let &mut Times { submitted, began } = self.time(slot);
        self.changes.push((at, 0, -1));
        let run = Run { pid: 0, id: 0, function: 0, items: 0, attempt: 0, submitted, began, ended: at, how: "", code: 0 };
        self.events.push(Event::Run(fill(run)));
    }

    /// A process is dead.
    pub fn died(&mut self, worker: &WorkerState, death: &ExitInfo, at: u64) {
        if self.known.remove(&worker.pid) {
            let why = if worker.left { "left".to_owned() } else { describe(death, worker) };
            self.events.push(Event::Death(worker.pid, at, why));
        }
    }
}

/// The file.
pub struct Writer {
    fd: PrivateFd,
    path: String,
    length: u64,
    begin: u64,
    host: i32,
    queued: i64,
    running: i64,
    names: HashMap<u64, String>,
    failed: Option<Error>,
}

impl Writer {
    /// The file at a path, which is left as it is for the moment: it may be the one that is being written.
    fn open(path: &CStr) -> Result<Writer> {
        let path_shown = path.to_string_lossy().into_owned();
        let fd = file::open(path).map_err(|errno| failure(errno, format_args!("path: creating \"{path_shown}\"")))?;
        let (fd, host, names) = (PrivateFd::new(fd), process::pid(), HashMap::new());
        Ok(Writer { fd, path: path_shown, length: 0, begin: 0, host, queued: 0, running: 0, names, failed: None })
    }

    /// Begins the file anew.
    fn begin(self, name: &str, begin: u64, (queued, running): (i64, i64)) -> Result<Writer> {
        let (mut writer, host) = (Writer { begin, queued, running, ..self }, self.host);
        file::shorten(writer.fd.as_fd(), 0);
        let name = escaped(name);
        writer.write(&format!(
            "[\n{{\"name\":\"process_name\",\"ph\":\"M\",\"ts\":0,\"pid\":{host},\"tid\":0,\"args\":{{\"name\":\"{name}\"}}}}"
        ));
        writer.count_at(begin);
        match writer.failed.take() {
            None => Ok(writer),
            Some(error) => Err(error),
        }
    }

    fn write(&mut self, text: &str) {
        if self.failed.is_some() {
            return;
        }
        match file::write_at(self.fd.as_fd(), text.as_bytes(), self.length) {
            Ok(()) => self.length += text.len() as u64,
            Err(errno) => self.failed = Some(failure(errno, format_args!("trace: writing \"{}\"", self.path))),
        }
    }

    fn count_at(&mut self, at: u64) {
        let mut text = String::new();
        self.put_count(&mut text, at);
        self.write(&text);
    }

    fn put_count(&self, text: &mut String, at: u64) {
        let (time, host) = (micros(at.saturating_sub(self.begin)), self.host);
        // The clocks of two processors may differ: for a moment more tasks can have begun than were submitted.
        let (queued, running) = (self.queued.max(0), self.running.max(0));
        let _ = write!(
            text,
            ",\n{{\"name\":\"tasks\",\"ph\":\"C\",\"ts\":{time},\"pid\":{host},\"args\":{{\"queued\":{queued},\"running\":{running}}}}}"
        );
    }

    /// Writes what was noted.
    fn put(&mut self, events: Vec<Event>, mut changes: Vec<(u64, i64, i64)>) {
        let (mut text, host) = (String::new(), self.host);
        for event in events {
            match event {
                Event::Run(run) => self.put_run(&mut text, &run),
                Event::Worker(number, pid) => {
                    let index = number.saturating_sub(1);
                    let _ = write!(
                        text,
                        ",\n{{\"name\":\"thread_name\",\"ph\":\"M\",\"ts\":0,\"pid\":{host},\"tid\":{pid},\"args\":{{\"name\":\"worker {index}\"}}}}\
                         ,\n{{\"name\":\"thread_sort_index\",\"ph\":\"M\",\"ts\":0,\"pid\":{host},\"tid\":{pid},\"args\":{{\"sort_index\":{number}}}}}"
                    );
                }
                Event::Death(pid, at, why) => {
                    let (time, why) = (micros(at.saturating_sub(self.begin)), escaped(&why));
                    let _ = write!(
                        text,
                        ",\n{{\"name\":\"{why}\",\"cat\":\"end\",\"ph\":\"i\",\"s\":\"t\",\"ts\":{time},\"pid\":{host},\"tid\":{pid}}}"
                    );
                }
            }
        }
        changes.sort_unstable();
        for (index, &(at, queued, running)) in changes.iter().enumerate() {
            self.queued += queued;
            self.running += running;
            // The last one of those that come close together.
            if changes.get(index + 1).is_none_or(|&(next, ..)| next / COUNT_NS != at / COUNT_NS) {
                self.put_count(&mut text, at);
            }
        }
        self.write(&text);
    }

    fn put_run(&mut self, text: &mut String, run: &Run) {
        let &Run { pid, id, function, items, attempt, submitted, began, ended, how, code } = run;
        let name = self.names.entry(function).or_insert_with(|| escaped(&elf::name_of(function as usize)));
        let began = began.max(self.begin);
        let (time, duration) = (micros(began - self.begin), micros(ended.saturating_sub(began)));
        let waited = micros(began.saturating_sub(submitted));
        let _ = write!(
            text,
            ",\n{{\"name\":\"{name}\",\"cat\":\"task\",\"ph\":\"X\",\"ts\":{time},\"dur\":{duration},\"pid\":{},\"tid\":{pid},\"args\":\
             {{\"task\":{id},\"attempt\":{attempt},\"items\":{items},\"waited_us\":{waited},\"end\":\"{how}\",\"code\":{code}}}}}",
            self.host
        );
    }

    /// Writes the end of the file.
    fn finish(mut self) -> Result<()> {
        self.write("\n]\n");
        self.failed.map_or(Ok(()), Err)
    }
}

/// Microseconds, as the format has it, of nanoseconds.
fn micros(nanos: u64) -> String {
    format!("{}.{:03}", nanos / 1000, nanos % 1000)
}

/// For between two quotation marks.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '"' | '\\' => escaped.extend(['\\', letter]),
            control if control < ' ' => {
                let _ = write!(escaped, "\\u{:04x}", u32::from(control));
            }
            other => escaped.push(other),
        }
    }
    escaped
}

impl Host {
    /// Writes down what happens from now on; what was being written to another file is finished.
    pub fn begin_trace(&self, path: &CStr) -> Result<()> {
        self.check_process()?;
        let ended = |state: &State| if state.lifecycle == Lifecycle::Ended { Err(self.closed(state)) } else { Ok(()) };
        ended(&*self.lock()?)?;
        // A path that leads nowhere ends nothing.
        let writer = Writer::open(path)?;
        self.end_trace()?;
        let mut file = self.lock_trace()?;
        let mut state = self.lock()?;
        ended(&state)?;
        let begin = now();
        let (queued, running) = state.table.begin_trace(begin);
        drop(state);
        match writer.begin(&self.name, begin, (queued, running)) {
            Ok(writer) => *file = Some(writer),
            Err(error) => {
                self.lock()?.table.trace = None;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Finishes the file, if one is being written.
    pub fn end_trace(&self) -> Result<()> {
        self.check_process()?;
        self.collect()?;
        let mut file = self.lock_trace()?;
        let recorder = {
            let mut state = self.lock()?;
            state.table.note_unfinished(now());
            state.table.trace.take()
        };
        let Some(mut writer) = file.take() else { return Ok(()) };
        if let Some(recorder) = recorder {
            writer.put(recorder.events, recorder.changes);
        }
        writer.finish()
    }

    /// Writes what was noted, if it is much. Under no lock.
    pub(super) fn flush_trace(&self) {
        let Ok(mut file) = self.lock_trace() else { return };
        let noted = self.lock().ok().and_then(|mut state| {
            let recorder = state.table.trace.as_mut().filter(|recorder| recorder.is_full())?;
            Some((std::mem::take(&mut recorder.events), std::mem::take(&mut recorder.changes)))
        });
        let (Some(writer), Some((events, changes))) = (file.as_mut(), noted) else { return };
        let failed_before = writer.failed.is_some();
        writer.put(events, changes);
        if let Some(error) = writer.failed.as_ref().filter(|_| !failed_before) {
            let why = error.message().to_owned();
            log::write(Level::Warn, || format!("{}: {why}", self.name));
        }
    }
}

impl Table {
    pub fn is_trace_full(&self) -> bool {
        self.trace.as_ref().is_some_and(|trace| trace.is_full())
    }
}
