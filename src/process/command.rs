//! External commands: what the caller asks for becomes a plan of plain data, which [`crate::sys::spawn`] carries out.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::AsRawFd;

use super::children::{self, Child, Watch, What};
use super::handle::Process;
use super::streams::{Ends, Streams};
use super::tree;
use crate::error::{Error, Kind, Result};
use crate::sys::fd::{self, Access, PrivateFd};
use crate::sys::restrictions::Restrictions;
use crate::sys::signal::Mask;
use crate::sys::spawn::{self, Descriptors, Group, Limit, Plan, Strings};
use crate::sys::withheld::Withheld;
use crate::sys::{self, Deadline, cpu, lasting, process, stdio};
use crate::timeout::Timeout;

/// Where PATH is not set.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// What one of a command's three streams is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stdio<'a> {
    /// This process's; /dev/null where it has closed that.
    #[default]
    Inherit,
    Pipe,
    Null,
    /// This descriptor, which stays the caller's.
    Fd(i32),
    Path(&'a CStr),
    Append(&'a CStr),
    /// Of stderr: wherever stdout goes.
    Stdout,
}

/// A command, with everything that can be said about its start.
#[derive(Clone, Debug)]
pub struct Command<'a> {
    pub argv: Vec<&'a CStr>,
    /// `None`: the first of `argv`.
    pub executable: Option<&'a CStr>,
    /// `None`: this process's.
    pub cwd: Option<&'a CStr>,
    /// `None`: this process's.
    pub env: Option<Vec<&'a CStr>>,
    /// Added to that, or replacing in it.
    pub env_extra: Vec<&'a CStr>,
    /// stdin, stdout, stderr.
    pub stdio: [Stdio<'a>; 3],
    /// This process's numbers and the command's.
    pub fds: Vec<(i32, i32)>,
    pub inherit_all_fds: bool,
    pub limits: Vec<Limit>,
    pub affinity: &'a [u64],
    pub group: Group,
    pub nice: i32,
    pub umask: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<(u32, &'a [u32])>,
    pub keep_signals: bool,
    /// Its descendants end with it.
    pub tree: bool,
    /// It is killed when this process ends.
    pub ends_with_host: bool,
    /// Kept of each stream by [`Process::communicate`]; 0 = all.
    pub max_output_bytes: usize,
}

/// Starts a command.
pub fn spawn(command: &Command) -> Result<Process> {
    let Some(&first) = command.argv.first() else { return Err(Error::invalid("argv is empty: it names no command")) };
    start(command, first).map_err(|error| error.context(format_args!("command \"{}\"", first.to_string_lossy())))
}

/// Runs a command to its end; its exit code, or minus the signal. When the time runs out it is killed and reaped.
pub fn call(command: &Command, timeout: Timeout) -> Result<i32> {
    let deadline = Deadline::from_now(timeout);
    if command.stdio.contains(&Stdio::Pipe) {
        return Err(Error::invalid("options: TINE_STDIO_PIPE needs somebody at its other end, and this call only waits"));
    }
    let process = spawn(command)?;
    match process.wait(&deadline) {
        Ok(true) => process.exit_code(),
        Ok(false) => {
            process.stop(Timeout::Try)?;
            Err(Error::new(Kind::TimedOut, format!("{}: it has not ended in time, and was killed", process.label())))
        }
        Err(error) => {
            process.stop(Timeout::Try)?;
            Err(error)
        }
    }
}

fn start(command: &Command, first: &CStr) -> Result<Process> {
    children::reap_freed();
    let env = environment(command)?;
    let executable = command.executable.unwrap_or(first);
    let paths = paths(executable, &env);
    let (descriptors, theirs, ours) = connect(command)?;
    let mut plan = Plan {
        paths: Strings::new(paths.iter().map(CString::as_c_str)),
        searched: is_searched(executable),
        argv: Strings::new(command.argv.iter().copied()),
        env: Strings::new(env),
        cwd: command.cwd,
        group: command.group,
        descriptors,
        close_others: !command.inherit_all_fds,
        limits: &command.limits,
        affinity: command.affinity,
        nice: command.nice,
        umask: command.umask,
        gid: command.gid,
        uid: command.uid,
        keep_signals: command.keep_signals,
        ignored: None,
        mask: None,
        ends_with: None,
    };
    if command.stdio[1..].contains(&Stdio::Inherit) {
        // What this process printed before comes before what the command prints.
        stdio::flush_if_pending();
    }
    let process = |child| Process::new(child, Streams::new(ours, command.max_output_bytes));
    if command.tree {
        return tree::start(first, &mut plan, command.ends_with_host).map(process);
    }
    let own_affinity;
    let started = if command.ends_with_host {
        // It ends with the thread that starts it: that must be one that lasts. Everything else is as of this one.
        own_affinity = cpu::affinity().unwrap_or_default();
        if plan.affinity.is_empty() {
            plan.affinity = &own_affinity;
        }
        plan.mask = Some(Mask::current());
        plan.ends_with = Some(process::pid());
        let restrictions = Restrictions::of_this_thread();
        lasting::run(|| {
            check_same(&restrictions)?;
            spawn::start(&mut plan)
        })??
    } else {
        spawn::start(&mut plan)?
    };
    drop(theirs);
    let watch = match started.watch {
        spawn::Watch::Pidfd(fd) => Watch::Pidfd(PrivateFd::new(fd)),
        spawn::Watch::Pipe { read, started } => Watch::Pipe { read: PrivateFd::new(read), started },
    };
    let leads = matches!(command.group, Group::New | Group::NewSession);
    let what = What::Command(children::Command { leads, peak_before: process::own_peak_rss() });
    Ok(process(Child::new(first.to_owned(), started.pid, watch, what)))
}

/// By the thread that starts commands for others: whether one that it starts may do no more than one of theirs.
fn check_same(theirs: &Restrictions) -> Result<()> {
    match theirs.difference(&Restrictions::of_this_thread()) {
        None => Ok(()),
        Some(name) => Err(Error::new(
            Kind::NotPermitted,
            format!(
                "options.flags: TINE_SPAWN_KILL_ON_PARENT_DEATH: the thread that starts such commands has another {name} than this \
                 one; with TINE_SPAWN_KILL_TREE this one starts it"
            ),
        )),
    }
}

/// The environment that the command gets.
fn environment<'a>(command: &Command<'a>) -> Result<Vec<&'a CStr>> {
    for (entries, list) in [(command.env.as_deref().unwrap_or_default(), "env"), (&command.env_extra, "env_extra")] {
        if let Some(bad) = entries.iter().find(|entry| name_of(entry).is_none_or(<[u8]>::is_empty)) {
            return Err(Error::invalid(format!("options.{list}: \"{}\" is no NAME=value", bad.to_string_lossy())));
        }
    }
    let mut env = command.env.clone().unwrap_or_else(spawn::environment);
    for &extra in &command.env_extra {
        env.retain(|entry| name_of(entry) != name_of(extra));
        env.push(extra);
    }
    Ok(env)
}

/// `None`: there is no `=`.
fn name_of(entry: &CStr) -> Option<&[u8]> {
    let entry = entry.to_bytes();
    entry.iter().position(|&byte| byte == b'=').map(|at| &entry[..at])
}

/// Whether it is looked for in PATH. An empty name is nowhere.
fn is_searched(executable: &CStr) -> bool {
    !executable.is_empty() && !executable.to_bytes().contains(&b'/')
}

/// What to try to execute, in this order.
fn paths(executable: &CStr, env: &[&CStr]) -> Vec<CString> {
    if !is_searched(executable) {
        return vec![executable.to_owned()];
    }
    let path = env.iter().find_map(|entry| entry.to_bytes().strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
    let folders = path.split(|&byte| byte == b':');
    let join = |folder: &[u8]| {
        // An empty entry is the working directory.
        let separator: &[u8] = if folder.is_empty() { b"" } else { b"/" };
        CString::new([folder, separator, executable.to_bytes()].concat()).ok()
    };
    folders.filter_map(join).collect()
}

/// What is open only until the command has it.
type Theirs = Vec<Withheld>;

/// Opens what the command's descriptors are made of.
fn connect(command: &Command) -> Result<(Descriptors, Theirs, Ends)> {
    let (mut theirs, mut ours) = (Theirs::new(), [None, None, None]);
    let mut moves = mapped(command)?;
    let mut stdout = 1;
    for (number, stdio) in command.stdio.iter().enumerate() {
        let (to, name) = (number as i32, ["stdin", "stdout", "stderr"][number]);
        let source = match (moves.iter().find(|&&(_, mapped)| mapped == to), *stdio) {
            (Some(&(from, _)), Stdio::Inherit) => {
                if to == 1 {
                    stdout = from;
                }
                continue;
            }
            (Some(_), _) => {
                return Err(Error::invalid(format!(
                    "options.fds: {to} is there twice: it is the command's {name}, which has a mode"
                )));
            }
            (None, stdio) => stdio,
        };
        let mut keep = |fd: Withheld| {
            let number = fd.as_raw_fd();
            theirs.push(fd);
            number
        };
        let of_path = |error: Error| error.context(format_args!("{name}_path"));
        let of_stream = |error: Error| error.context(name);
        let access = if to == 0 { Access::Read } else { Access::Write };
        let from = match source {
            Stdio::Inherit if fd::is_open(to) => to,
            Stdio::Inherit | Stdio::Null => keep(Withheld::late(fd::open(c"/dev/null", access).map_err(of_stream)?)),
            Stdio::Pipe => {
                let (read, write) = Withheld::pipe().map_err(of_stream)?;
                let (own, other) = if to == 0 { (write, read) } else { (read, write) };
                ours[number] = Some(own);
                keep(other)
            }
            Stdio::Fd(fd) => {
                check_open(fd, format_args!("options.{name}_fd"))?;
                fd
            }
            Stdio::Path(path) => keep(Withheld::late(fd::open(path, access).map_err(of_path)?)),
            Stdio::Append(path) if to != 0 => keep(Withheld::late(fd::open(path, Access::Append).map_err(of_path)?)),
            Stdio::Stdout if to == 2 => stdout,
            Stdio::Append(_) | Stdio::Stdout => {
                return Err(Error::invalid(format!("options.{name}_mode: not for {name}")));
            }
        };
        if to == 1 {
            stdout = from;
        }
        moves.push((from, to));
    }
    Ok((Descriptors::new(moves, command.fds.len()), theirs, ours))
}

/// The descriptors besides the three.
fn mapped(command: &Command) -> Result<Vec<(i32, i32)>> {
    for (at, &(fd, to)) in command.fds.iter().enumerate() {
        if to < 0 {
            return Err(Error::invalid(format!("options.fds[{at}].as: {to} is no descriptor's number")));
        }
        check_open(fd, format_args!("options.fds[{at}].fd"))?;
    }
    let mut numbers: Vec<i32> = command.fds.iter().map(|&(_, to)| to).collect();
    numbers.sort_unstable();
    if let Some(twice) = numbers.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::invalid(format!("options.fds: {} is there twice", twice[0])));
    }
    Ok(command.fds.clone())
}

fn check_open(fd: i32, what: std::fmt::Arguments) -> Result<()> {
    if fd >= 0 && fd::is_open(fd) {
        return Ok(());
    }
    let message = format!("{what}: {fd} is not an open descriptor");
    Err(Error::with_errno(Kind::Invalid, sys::errno::number::BAD_DESCRIPTOR, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_in_the_path_of_the_command() {
        let env = [c"A=b", c"PATH=/x::/y/z"];
        assert_eq!(paths(c"tool", &env), [c"/x/tool", c"tool", c"/y/z/tool"].map(CStr::to_owned));
        assert_eq!(paths(c"./tool", &env), [c"./tool".to_owned()]);
        assert_eq!(paths(c"tool", &[]), [c"/bin/tool", c"/usr/bin/tool"].map(CStr::to_owned));
        assert_eq!(paths(c"", &env), [c"".to_owned()]);
    }
}
