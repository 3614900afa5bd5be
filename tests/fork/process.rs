//! Function children through the Rust API: what the C tests cannot do, and a little of everything.

use std::os::fd::AsRawFd;

use tine::error::Kind;
use tine::process::{self, ExitInfo, Options, Process, Reason, role};
use tine::sys::wait::Ending;
use tine::sys::{Deadline, descriptors, fd, fork, poll};
use tine::timeout::Timeout;

use crate::filter;
use crate::runner::Test;
use crate::strict;
use crate::system;

pub const TESTS: &[Test] = &[
    ("a_panic_is_101", a_panic_is_101),
    ("a_child_starts_children_of_its_own", a_child_starts_children_of_its_own),
    ("a_child_ends_by_exec_and_by_exit_now", a_child_ends_by_exec_and_by_exit_now),
    ("a_daemon_has_a_watcher_and_others_have_not", a_daemon_has_a_watcher_and_others_have_not),
    ("a_stopped_child_is_stopped_for_good", a_stopped_child_is_stopped_for_good),
    ("the_status_is_lost_only_if_nobody_knows", the_status_is_lost_only_if_nobody_knows),
    ("a_grandchild_that_keeps_descriptors_delays_nobody", a_grandchild_that_keeps_descriptors_delays_nobody),
    ("handles_count_for_nothing", handles_count_for_nothing),
    ("a_child_allocates_nothing_before_its_function", a_child_allocates_nothing_before_its_function),
];

fn start(body: impl FnOnce() -> i32) -> Process {
    process::start(Options::default(), body).expect("start")
}

fn code(process: &Process) -> i32 {
    process.join(Timeout::Forever).expect("join");
    process.exit_code().expect("a code")
}

fn wait_for_ever() -> i32 {
    let _ = poll::readable(&[], &Deadline::new(Timeout::Forever));
    0
}

fn a_panic_is_101() {
    let panicking = start(|| {
        std::panic::set_hook(Box::new(|_| {}));
        panic!("in the child")
    });
    assert_eq!(code(&panicking), 101);
}

fn a_child_starts_children_of_its_own() {
    let child = start(|| {
        let host = role::host_pid();
        let own = std::process::id() as i32;
        let grandchild = start(|| i32::from(role::host_pid() != own || role::name() != c"Process-1") + 3);
        // A role is the process's own.
        code(&grandchild) + 10 * i32::from(role::host_pid() != host)
    });
    assert_eq!(code(&child), 3);
}

fn a_child_ends_by_exec_and_by_exit_now() {
    let exec = start(|| {
        let argv = [c"sh".as_ptr(), c"-c".as_ptr(), c"exit 12".as_ptr(), std::ptr::null()];
        // SAFETY: NUL-terminated strings and a null at the end.
        unsafe { libc::execv(c"/bin/sh".as_ptr(), argv.as_ptr()) };
        1
    });
    assert_eq!(code(&exec), 12);
    let exit_now = start(|| fork::exit_now(13));
    assert_eq!(code(&exit_now), 13);
}

fn a_daemon_has_a_watcher_and_others_have_not() {
    let threads = || tine::sys::process::thread_count().map_or(0, |count| count as i32);
    assert_eq!(code(&start(threads)), 1);
    let daemon = process::start(Options { daemon: true, ..Options::default() }, threads).unwrap();
    assert_eq!(code(&daemon), 2);
}

fn a_stopped_child_is_stopped_for_good() {
    let child = start(wait_for_ever);
    child.stop(Timeout::Forever).unwrap();
    let ExitInfo { ending, reason, usage } = child.exit_info().unwrap();
    assert_eq!(ending, Some(Ending::Signaled { signal: libc::SIGTERM, core: false }));
    assert_eq!(reason, Some(Reason::Terminated));
    assert!(usage.is_some());
}

fn the_status_is_lost_only_if_nobody_knows() {
    let child = start(wait_for_ever);
    child.kill().unwrap();
    // The host reaps it before the library can.
    system::ending(child.pid());
    match child.exit_code() {
        Ok(code) => assert_eq!(code, -libc::SIGKILL),
        Err(error) => assert_eq!(error.kind(), Kind::StatusLost),
    }
    if filter::refused() {
        assert_eq!(child.exit_code().unwrap_err().kind(), Kind::StatusLost);
    }
    assert!(child.exit_info().unwrap().usage.is_none());
    child.kill().unwrap();
    let child = start(|| 5);
    system::ending(child.pid());
    assert_eq!(code(&child), 5);
}

fn a_grandchild_that_keeps_descriptors_delays_nobody() {
    let (read, write) = fd::pipe().unwrap();
    let child = start(|| {
        fd::close_number(write.as_raw_fd());
        // An orphan that has all that its parent had, its exit pipe included, until the test lets it go.
        system::child(|| {
            let _ = poll::readable(&[read.as_raw_fd()], &Deadline::new(Timeout::Forever));
            0
        });
        4
    });
    assert_eq!(code(&child), 4);
    drop(write);
}

fn handles_count_for_nothing() {
    assert_eq!(code(&start(|| 0)), 0);
    let before = descriptors::count_open().unwrap();
    for _ in 0..50 {
        let running = start(wait_for_ever);
        running.kill().unwrap();
        drop(running);
    }
    let last = start(|| 0);
    assert_eq!(code(&last), 0);
    // Those that had not ended yet are reaped as soon as they have.
    while descriptors::count_open().unwrap() > before + 2 {
        assert!(!last.is_alive().unwrap());
        std::thread::yield_now();
    }
}

/// Somebody else's thread may have held the allocator's lock at the moment of the fork, and not every allocator mends that.
fn a_child_allocates_nothing_before_its_function() {
    // What is made once is made; and the parent's state is there to be inherited.
    let running = start(wait_for_ever);
    // SAFETY: a handler that only stores.
    assert_eq!(unsafe { libc::pthread_atfork(None, None, Some(strict::refuse)) }, 0);
    let strict = start(|| {
        strict::allow();
        5
    });
    assert_eq!(code(&strict), 5);
    let strict_to_the_end = start(|| 6);
    assert_eq!(code(&strict_to_the_end), 6);
    let allocating = start(|| *std::hint::black_box(Box::new(7)));
    assert_eq!(code(&allocating), strict::ALLOCATED);
    running.kill().unwrap();
}
