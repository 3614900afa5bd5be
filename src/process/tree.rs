//! A command and its descendants as one: a supervisor of ours between the host and the command.
//!
//! The supervisor is a child of the host and the parent of the command, and the *subreaper* of whatever that starts: a descendant whose
//! parent ends becomes the supervisor's child, whatever session or group it made for itself. So nothing gets away, and the host itself
//! never adopts anybody. When the command has ended, or is to be killed, the supervisor kills its children, whose orphans become its
//! children, until there is none, and only then ends itself: to the host its end is the end of all.
//!
//! Where a control group can be made, the tree lives in one as well: its kill is one act of the kernel, which no fork outruns and which
//! asks nobody's permission. Without one, what changed its user cannot be killed by a supervisor that is not root.
//!
//! The supervisor is a forked copy that touches nothing of the host's but the allocator, which glibc's fork repairs: it has no
//! descriptor but its own, all its signals are blocked, and it tells by a socket how the command ended. It survives the host, because
//! the command may.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::children::{self, Child, End};
use super::role;
use super::start::{self, Manner};
use crate::error::{Error, Kind, Result};
use crate::sys::cgroup::Group;
use crate::sys::descriptors::{self, Keep};
use crate::sys::signal::{self, Mask};
use crate::sys::socket::{self, Take};
use crate::sys::spawn::{self, Plan};
use crate::sys::wait::{self, Ending, Seen, Usage};
use crate::sys::withheld::Withheld;
use crate::sys::{self, Deadline, interrupt, nursery as os, poll, process};
use crate::timeout::Timeout;

/// How often a supervisor without a descriptor of its host looks for it.
const LOOK_MS: u64 = 200;
/// How long those who were killed may take to die.
const KILL_MS: u64 = 10_000;
/// How long a signal waits for room: a supervisor that runs takes hundreds in that time.
const ROOM_MS: u64 = 100;
/// Between two rounds of killing.
const ROUND: Duration = Duration::from_millis(2);

/// The host's side.
#[derive(Debug)]
pub(super) struct Tree {
    socket: Withheld,
    /// The number of the command, which the supervisor reaps.
    pub(super) command: i32,
    supervisor: i32,
    /// See [`super::children::Command`].
    pub(super) peak_before: u64,
}

/// Starts the command of `plan` below a supervisor; answers that, under the command's name.
pub(super) fn start(name: &CStr, plan: &mut Plan, ends_with_host: bool) -> Result<Arc<Child>> {
    check()?;
    start::tell_threads(&format!("command \"{}\"", name.to_string_lossy()));
    plan.mask = Some(Mask::current());
    let peak_before = process::own_peak_rss();
    // Who has a copy of it keeps the supervisor from noticing that the host is gone.
    let (own, other) = Withheld::pair(socket::seqpacket_pair)?;
    let socket = other.as_raw_fd();
    let needed: Vec<_> = plan.descriptors.taken().chain([socket]).collect();
    let manner = Manner { daemon: false, detached: true, deaf: true };
    let (child, _) = start::make(name, manner, &needed, || supervise(socket, plan, ends_with_host))?;
    drop(other);
    match interrupt::unasked(|| first_word(&own, &child)) {
        Ok(command) => {
            // It is set once: here.
            let _ = child.tree.set(Tree { socket: own, command, supervisor: child.pid, peak_before });
            Ok(child)
        }
        Err(error) => {
            // If it has not ended by itself. Killed, it may have left what its command began.
            let _ = socket::send(&own, &signal::KILL.to_ne_bytes(), &[], None);
            let _ = interrupt::unasked(|| child.wait(&Deadline::new(Timeout::Millis(KILL_MS))));
            kill_group_of(child.pid);
            children::free(&child);
            Err(error)
        }
    }
}

/// Of a supervisor that was just made: the number of its command.
fn first_word(socket: &Withheld, supervisor: &Child) -> Result<i32> {
    // The socket alone would not do: a process that another thread forked may hold the other end.
    loop {
        // Asked first: afterwards it says no more. Only a look, because what is taken now would be its own end, not the command's.
        let gone = supervisor.has_ended();
        match receive(socket) {
            Ok(Message::Started(command)) => return Ok(command),
            Ok(Message::Failed { errno, why }) => return Err(Error::with_errno(sys::errno::kind(errno), errno, why)),
            Err(socket::Refused::WouldBlock) if !gone => {}
            _ => break,
        }
        let fds = [socket.as_raw_fd(), supervisor.fd()];
        poll::readable(&fds, &Deadline::new(Timeout::Millis(LOOK_MS)))?;
    }
    Err(Error::new(Kind::Again, "its supervisor was killed before it began"))
}

/// What the two tell each other. The host only ever sends signals; that it sends no more, but is there, is a KILL.
#[derive(Debug, PartialEq)]
enum Message {
    Started(i32),
    Failed { errno: i32, why: String },
    Ended { ending: Ending, usage: Usage },
}

impl Tree {
    /// `false`: the supervisor is gone.
    pub(super) fn send(&self, signal: i32) -> Result<bool> {
        let deadline = Deadline::new(Timeout::Millis(ROOM_MS));
        loop {
            match socket::send(&self.socket, &signal.to_ne_bytes(), &[], None) {
                Ok(()) => return Ok(true),
                Err(socket::Refused::WouldBlock) if !deadline.passed() => {}
                Err(socket::Refused::Gone) => return Ok(false),
                Err(_) if signal == signal::KILL => {
                    // Needs no room.
                    socket::end_sending(&self.socket);
                    return Ok(true);
                }
                Err(_) => {
                    return Err(Error::new(Kind::Again, "its supervisor has not taken the signals before this one"));
                }
            }
            let _ = interrupt::unasked(|| poll::writable_or_rung(self.socket.as_raw_fd(), -1, &deadline));
        }
    }

    /// How the command ended, once the supervisor has.
    pub(super) fn end(&self) -> End {
        match receive(&self.socket) {
            Ok(Message::Ended { ending, usage }) => End { ending: Some(ending), usage: Some(usage) },
            _ => {
                // It was killed itself, and its command with it.
                kill_group_of(self.supervisor);
                End { ending: None, usage: None }
            }
        }
    }
}

fn kill_group_of(supervisor: i32) {
    if let Some(group) = Group::of(supervisor) {
        group.kill();
        group.remove();
    }
}

fn receive(socket: &impl AsRawFd) -> std::result::Result<Message, socket::Refused> {
    let mut text = [0u8; 1024];
    let length = socket::receive(socket, &mut text, &mut [], Take::Take)?.length;
    text.get(..length).and_then(Message::read).ok_or(socket::Refused::Gone)
}

impl Message {
    fn write(&self) -> Vec<u8> {
        let mut text = Vec::new();
        match self {
            Message::Started(command) => {
                text.push(b'S');
                text.extend(command.to_ne_bytes());
            }
            Message::Failed { errno, why } => {
                text.push(b'F');
                text.extend(errno.to_ne_bytes());
                text.extend(&why.as_bytes()[..why.len().min(1000)]);
            }
            Message::Ended { ending, usage } => {
                let (how, value) = match *ending {
                    Ending::Exited(code) => (b'x', code),
                    Ending::Signaled { signal, core: false } => (b's', signal),
                    Ending::Signaled { signal, core: true } => (b'c', signal),
                };
                text.extend([b'E', how]);
                text.extend(value.to_ne_bytes());
                for number in [usage.user_us, usage.system_us, usage.peak_rss_bytes] {
                    text.extend(number.to_ne_bytes());
                }
            }
        }
        text
    }

    fn read(text: &[u8]) -> Option<Message> {
        let number = |at: usize| Some(i32::from_ne_bytes(text.get(at..at + 4)?.try_into().ok()?));
        let long = |at: usize| Some(u64::from_ne_bytes(text.get(at..at + 8)?.try_into().ok()?));
        Some(match text.first()? {
            b'S' => Message::Started(number(1)?),
            b'F' => Message::Failed { errno: number(1)?, why: String::from_utf8_lossy(text.get(5..)?).into_owned() },
            b'E' => Message::Ended {
                ending: match text.get(1)? {
                    b'x' => Ending::Exited(number(2)?),
                    how => Ending::Signaled { signal: number(2)?, core: *how == b'c' },
                },
                usage: Usage { user_us: long(6)?, system_us: long(14)?, peak_rss_bytes: long(22)? },
            },
            _ => return None,
        })
    }
}

/// Whether there can be a supervisor: it finds its children in /proc.
fn check() -> Result<()> {
    if os::proc_is_ours() && os::knows_children()? {
        return Ok(());
    }
    Err(Error::new(
        Kind::NotSupported,
        "options.flags: TINE_SPAWN_KILL_TREE needs a /proc of this pid namespace that lists children",
    ))
}

/// The supervisor's life; its value is the command's code, for who can read nothing else. All signals are blocked in it.
fn supervise(socket: i32, plan: &mut Plan, ends_with_host: bool) -> i32 {
    let host_fd = role::host_fd();
    match Supervisor::start(socket, plan, host_fd) {
        Ok(supervisor) => {
            say(socket, &Message::Started(supervisor.command));
            supervisor.run(host_fd, ends_with_host)
        }
        Err(error) => {
            say(socket, &Message::Failed { errno: error.errno(), why: error.message().to_owned() });
            127
        }
    }
}

fn say(socket: i32, message: &Message) {
    let _ = socket::send(&socket, &message.write(), &[], None);
}

struct Supervisor {
    socket: i32,
    child_signals: OwnedFd,
    group: Option<Group>,
    command: i32,
    /// It leads a process group, which signals are for.
    leads: bool,
    /// How the command ended.
    end: Option<(Ending, Usage)>,
}

impl Supervisor {
    fn start(socket: i32, plan: &mut Plan, host_fd: i32) -> Result<Supervisor> {
        // Who reaps cannot have it ignored; its command can.
        plan.ignored = signal::is_ignored(signal::CHILD).then_some(signal::CHILD);
        signal::set_default(signal::CHILD);
        // Who kills the supervisor alone kills the command.
        plan.ends_with = Some(process::pid());
        process::become_subreaper()?;
        let child_signals = os::child_signal_fd()?;
        let leads = matches!(plan.group, spawn::Group::New | spawn::Group::NewSession);
        let group = Group::make();
        let started = match &group {
            Some(group) => group.with_new_children_in_it(|| spawn::start(plan)),
            None => spawn::start(plan),
        };
        let started = match started {
            Ok(started) => started,
            Err(error) => {
                if let Some(group) = group {
                    group.remove();
                }
                return Err(error);
            }
        };
        process::set_name(c"tine-tree");
        // Out of the way of who signals the host's group: what is left of the tree has to be killed by somebody.
        process::lead_new_group();
        let mut kept = [
            socket,
            host_fd,
            child_signals.as_raw_fd(),
            role::get().and_then(|role| role.exit_pipe).map_or(-1, |pipe| pipe.number()),
        ];
        kept.sort_unstable();
        let first = kept.partition_point(|&fd| fd < 0);
        std::mem::forget(started.watch);
        descriptors::close_all_except(&kept[first..], Keep::Listed);
        Ok(Supervisor { socket, child_signals, group, command: started.pid, leads, end: None })
    }

    fn run(mut self, mut host_fd: i32, ends_with_host: bool) -> i32 {
        let mut host = Some(role::host_pid());
        let mut socket = self.socket;
        while self.reap() && self.end.is_none() {
            let interval = if host.is_none() || host_fd >= 0 { Timeout::Forever } else { Timeout::Millis(LOOK_MS) };
            let fds = [self.child_signals.as_raw_fd(), socket, host_fd];
            let Ok(ready) = poll::readable(&fds, &Deadline::new(interval)) else { break };
            if ready & 1 != 0 {
                os::drain(fds[0]);
            }
            if ready & 2 != 0 && !self.obey() {
                // Nobody has the other end: the host has ended, or runs another program.
                socket = -1;
                if ends_with_host {
                    break;
                }
            }
            if host.is_some_and(|host| !process::parent_lives(host, host_fd)) {
                (host, host_fd, socket) = (None, -1, -1);
                if ends_with_host {
                    break;
                }
            }
        }
        self.kill_all();
        if let Some(group) = self.group.take() {
            group.remove();
        }
        let Some((ending, usage)) = self.end else { return 0 };
        say(self.socket, &Message::Ended { ending, usage });
        match ending {
            Ending::Exited(code) => code,
            Ending::Signaled { .. } => 0,
        }
    }

    /// What the host wants; `false`: there is no host to want anything.
    fn obey(&mut self) -> bool {
        let mut number = [0u8; 4];
        match socket::receive(&self.socket, &mut number, &mut [], Take::Take) {
            Ok(received) if received.length == number.len() => self.pass_on(i32::from_ne_bytes(number)),
            Ok(_) if !socket::is_closed(&self.socket) => self.pass_on(signal::KILL),
            Ok(_) | Err(socket::Refused::Gone | socket::Refused::Failed(_)) => return false,
            Err(_) => {}
        }
        true
    }

    fn pass_on(&mut self, signal: i32) {
        if signal == signal::KILL {
            if self.leads && self.end.is_none() {
                // Whoever joined the group is meant, too.
                let _ = signal::send_to_group(self.command, signal);
            }
            self.kill_all();
        } else if self.end.is_none() {
            // Reaped by nobody but us: the number is its own, and its group's.
            let _ = match self.leads {
                true => signal::send_to_group(self.command, signal),
                false => signal::send_to_child(self.command, signal),
            };
        }
    }

    /// Takes whoever has ended; `false`: there is nobody left.
    fn reap(&mut self) -> bool {
        loop {
            match wait::reap(wait::Child::Any) {
                Ok(Seen::Ended { pid, ending, usage }) if pid == self.command => self.end = Some((ending, usage)),
                Ok(Seen::Ended { .. }) => {}
                Ok(Seen::NotOurs) => return false,
                _ => return true,
            }
        }
    }

    fn kill_all(&mut self) {
        let end = Deadline::new(Timeout::Millis(KILL_MS));
        while self.reap() && !end.passed() {
            if let Some(group) = &self.group {
                group.kill();
            }
            os::kill_children_once();
            std::thread::sleep(ROUND);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let usage = Usage { user_us: 1, system_us: 2, peak_rss_bytes: 3 };
        for message in [
            Message::Started(7),
            Message::Failed { errno: 2, why: "exec of \"x\"".into() },
            Message::Ended { ending: Ending::Exited(3), usage },
            Message::Ended { ending: Ending::Signaled { signal: 9, core: true }, usage },
        ] {
            let text = message.write();
            assert_eq!(Message::read(&text[..text.len() - 1]).is_some(), matches!(message, Message::Failed { .. }));
            assert_eq!(Message::read(&text), Some(message));
        }
        assert_eq!(Message::read(b""), None);
        assert_eq!(Message::read(b"?"), None);
    }
}
