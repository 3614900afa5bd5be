//! The system layer where it takes a second process to see what it does.

use std::os::fd::{AsFd, AsRawFd, IntoRawFd};

use tine::shm::{Word, slab};
use tine::sys::descriptors::{self, Keep};
use tine::sys::fork::{self, Forked};
use tine::sys::signal::{self, Blocked};
use tine::sys::wait::{self, Child, Ending, Seen};
use tine::sys::{Deadline, exit, fd, pidfd, poll, process, socket, stdio, thread};
use tine::timeout::Timeout;

use crate::filter;
use crate::runner::Test;

pub const TESTS: &[Test] = &[
    ("a_child_is_waited_for_by_pid_and_by_pidfd", a_child_is_waited_for_by_pid_and_by_pidfd),
    ("a_stop_is_told_once", a_stop_is_told_once),
    ("a_quiet_fork_is_a_fork", a_quiet_fork_is_a_fork),
    ("pidfds_are_there_or_are_not", pidfds_are_there_or_are_not),
    ("all_descriptors_but_some_are_closed", all_descriptors_but_some_are_closed),
    ("signals_are_blocked_and_back_as_they_were", signals_are_blocked_and_back_as_they_were),
    ("dispositions_become_default", dispositions_become_default),
    ("the_epoch_changes_in_a_child", the_epoch_changes_in_a_child),
    ("a_private_descriptor_is_closed_by_its_process_only", a_private_descriptor_is_closed_by_its_process_only),
    ("an_exit_handler_is_given_the_code", an_exit_handler_is_given_the_code),
    ("stdio_of_a_child_can_be_purged", stdio_of_a_child_can_be_purged),
    ("the_parents_death_is_told", the_parents_death_is_told),
];

/// A child that runs `body` and leaves with its value.
pub fn child(body: impl FnOnce() -> i32) -> i32 {
    match fork::fork().expect("fork") {
        Forked::Child => fork::exit_now(body()),
        Forked::Parent(pid) => pid,
    }
}

/// A child that waits for a signal.
fn sleeper() -> i32 {
    child(|| poll::readable(&[], &Deadline::new(Timeout::Forever)).map_or(1, |_| 0))
}

fn open(fd: i32) -> bool {
    // SAFETY: plain numbers.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// How a child ends.
pub fn ending(pid: i32) -> Ending {
    match wait::reap_blocking(Child::Pid(pid)) {
        Ok(Seen::Ended { ending, .. }) => ending,
        other => panic!("{other:?}"),
    }
}

fn a_child_is_waited_for_by_pid_and_by_pidfd() {
    let own = |seen: Seen, pid: i32| match seen {
        Seen::Ended { pid: seen, ending, usage } => {
            assert_eq!(seen, pid);
            assert!(usage.peak_rss_bytes > 0);
            ending
        }
        other => panic!("{other:?}"),
    };
    let pid = sleeper();
    assert_eq!(wait::peek(Child::Pid(pid)), Ok(Seen::Nothing));
    assert_eq!(signal::send_to_child(pid, signal::KILL), Ok(true));
    assert_eq!(own(wait::reap_blocking(Child::Pid(pid)).unwrap(), pid), Ending::Signaled { signal: signal::KILL, core: false });
    assert_eq!(wait::reap(Child::Pid(pid)), Ok(Seen::NotOurs));
    assert_eq!(signal::send_to_child(-1, 0), Err(libc::EINVAL));

    let Some(pid) = (!filter::refused()).then(|| child(|| 7)) else { return };
    let fd = pidfd::open(pid).unwrap().unwrap();
    assert_ne!(poll::readable(&[fd.as_raw_fd()], &Deadline::new(Timeout::Forever)).unwrap(), 0);
    assert!(pidfd::has_ended(&fd));
    for _ in 0..2 {
        assert_eq!(own(wait::peek(Child::Pidfd(fd.as_fd())).unwrap(), pid), Ending::Exited(7));
    }
    assert_eq!(own(wait::reap(Child::Pidfd(fd.as_fd())).unwrap(), pid), Ending::Exited(7));
    assert_eq!(wait::reap(Child::Pidfd(fd.as_fd())), Ok(Seen::NotOurs));
    assert_eq!(pidfd::send_signal(&fd, signal::KILL), Ok(false));
    // Linux 6.15.
    if let Some(ending) = pidfd::exit_status(fd.as_fd()) {
        assert_eq!(ending, Ending::Exited(7));
    }
}

fn a_stop_is_told_once() {
    let pid = sleeper();
    signal::send_to_child(pid, libc::SIGSTOP).unwrap();
    let stopped = loop {
        match wait::changed(Child::Any).unwrap() {
            Seen::Nothing => std::thread::yield_now(),
            seen => break seen,
        }
    };
    assert_eq!(stopped, Seen::Stopped { pid, signal: libc::SIGSTOP });
    assert_eq!(wait::changed(Child::Any), Ok(Seen::Nothing));
    assert_eq!(wait::reap(Child::Pid(pid)), Ok(Seen::Nothing));
    signal::send_to_child(pid, signal::KILL).unwrap();
    assert_eq!(ending(pid), Ending::Signaled { signal: signal::KILL, core: false });
}

fn a_quiet_fork_is_a_fork() {
    fork::prepare_quiet();
    let tid = thread::Thread::current().tid();
    match fork::fork_quiet().expect("fork") {
        Forked::Child => fork::exit_now(i32::from(thread::Thread::current().tid() == tid)),
        Forked::Parent(pid) => assert_eq!(ending(pid), Ending::Exited(0)),
    }
}

fn pidfds_are_there_or_are_not() {
    assert_eq!(pidfd::supported(), !filter::refused());
    assert_eq!(pidfd::open_self().unwrap().is_some(), !filter::refused());
    assert_eq!(pidfd::open(process::pid()).unwrap().is_some(), !filter::refused());
}

fn all_descriptors_but_some_are_closed() {
    let memory = slab::place::<Word>().unwrap();
    let shared = memory.segment().fd().as_raw_fd();
    let other = tine::sys::memory::create(c"other", 4096).unwrap().into_raw_fd();
    let kept = fd::eventfd().unwrap().into_raw_fd();
    // SAFETY: plain numbers.
    let high = unsafe { libc::fcntl(kept, libc::F_DUPFD_CLOEXEC, 500) };
    assert!(high >= 500);
    let list = [1, 2, kept];
    let with_memory = child(|| {
        descriptors::close_all_except(&list, Keep::ListedAndSharedMemory);
        let right = open(1) && open(2) && open(kept) && open(shared) && !open(0) && !open(other) && !open(high);
        i32::from(!(right && descriptors::count_open() == Some(4)))
    });
    assert_eq!(ending(with_memory), Ending::Exited(0));
    let without = child(|| {
        descriptors::close_all_except(&list, Keep::Listed);
        i32::from(!(open(1) && open(2) && open(kept) && descriptors::count_open() == Some(3)))
    });
    assert_eq!(ending(without), Ending::Exited(0));
    let nothing = child(|| {
        descriptors::close_all_except(&[], Keep::Listed);
        i32::from(descriptors::count_open() != Some(0))
    });
    assert_eq!(ending(nothing), Ending::Exited(0));
    assert!(open(0) && open(other) && open(high));
}

fn signals_are_blocked_and_back_as_they_were() {
    // SAFETY: a live set.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGUSR1);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
    let blocked = || [libc::SIGUSR1, libc::SIGUSR2, libc::SIGTERM].map(signal::is_blocked);
    let all = Blocked::all();
    assert_eq!(blocked(), [true; 3]);
    drop(all);
    assert_eq!(blocked(), [true, false, false]);
    let _all = Blocked::all();
    signal::unblock_all();
    assert_eq!(blocked(), [false; 3]);
}

fn dispositions_become_default() {
    // SAFETY: plain numbers.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
    let pid = child(|| {
        signal::set_all_default();
        // SAFETY: a plain number.
        unsafe { libc::raise(libc::SIGTERM) }
    });
    assert_eq!(ending(pid), Ending::Signaled { signal: libc::SIGTERM, core: false });
}

fn the_epoch_changes_in_a_child() {
    let epoch = thread::epoch();
    assert_eq!(thread::epoch(), epoch);
    let pid = child(|| i32::from(thread::epoch() == epoch));
    assert_eq!(ending(pid), Ending::Exited(0));
    assert_eq!(thread::epoch(), epoch);
}

fn a_private_descriptor_is_closed_by_its_process_only() {
    let own = fd::PrivateFd::new(fd::eventfd().unwrap());
    let number = own.as_raw_fd();
    let pid = match fork::fork().unwrap() {
        Forked::Child => {
            drop(own);
            fork::exit_now(i32::from(!open(number)))
        }
        Forked::Parent(pid) => pid,
    };
    assert_eq!(ending(pid), Ending::Exited(0));
    drop(own);
    assert!(!open(number));
}

fn an_exit_handler_is_given_the_code() {
    let pid = child(|| {
        exit::at_exit(|| fork::exit_now(99)).unwrap();
        // The latest runs first.
        assert!(exit::at_exit_with_code(|code| fork::exit_now(code + 1)));
        crate::runner::exit(6)
    });
    assert_eq!(ending(pid), Ending::Exited(7));
    let pid = child(|| {
        exit::at_exit(|| fork::exit_now(9)).unwrap();
        crate::runner::exit(6)
    });
    assert_eq!(ending(pid), Ending::Exited(9));
}

fn stdio_of_a_child_can_be_purged() {
    let (read, write) = fd::pipe().unwrap();
    let print = |text: &std::ffi::CStr| {
        // SAFETY: a NUL-terminated format without arguments.
        unsafe { libc::printf(text.as_ptr()) };
    };
    let pid = child(|| {
        // SAFETY: plain numbers.
        unsafe { libc::dup2(write.as_raw_fd(), 1) };
        print(c"once;");
        stdio::flush_before_fork();
        print(c"not flushed, so the parent's;");
        let child = child(|| {
            stdio::purge_in_child();
            print(c"child;");
            stdio::flush_at_end();
            0
        });
        ending(child);
        stdio::purge_in_child();
        print(c"parent;");
        crate::runner::exit(0)
    });
    drop(write);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(read), &mut text).unwrap();
    assert_eq!(text, "once;child;parent;");
    assert_eq!(ending(pid), Ending::Exited(0));
}

fn the_parents_death_is_told() {
    let (ours, theirs) = socket::seqpacket_pair().unwrap();
    let parent = child(|| {
        let own = process::pid();
        let _ = child(|| {
            process::set_parent_death_signal(signal::KILL);
            if process::parent_pid() != own {
                return 0;
            }
            let _ = poll::readable(&[], &Deadline::new(Timeout::Forever));
            0
        });
        fork::kill_self()
    });
    assert_eq!(ending(parent), Ending::Signaled { signal: signal::KILL, core: false });
    // Both copies of the other end are gone when both processes are.
    drop(theirs);
    assert_ne!(poll::readable(&[ours.as_raw_fd()], &Deadline::new(Timeout::Forever)).unwrap(), 0);
}
