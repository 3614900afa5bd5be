//! The victim under ptrace(2): driven to an instruction and left standing there.
//!
//! A *point* is a number of instructions after the victim's operation began. One scouting run single-steps the whole operation and
//! writes down where each instruction lies and which of them changed anything that outlives the victim: shared memory, its robust
//! list, the kernel (a system call). Two points with no such instruction between them are the same death for everybody else. Later
//! runs go to a point by a breakpoint: single steps cost up to 20 us each on virtual machines, and to step to each of n
//! instructions takes n²/2.
//!
//! `rep` instructions stop once for each repetition, when stepped. On aarch64 this needs the LSE atomics: a load-exclusive loop
//! never gets through when it is stepped.

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

use crate::seat::{RETURNED, Seat};
use crate::support::child::Child;
use crate::support::clock;
use crate::support::host::{self, Mapping};
use crate::support::rest::{self, State};

/// An operation with more instructions than this is stuck in a loop.
const LONGEST: usize = 200_000;
/// How much of each mapping is watched: the words lie in front.
const WATCHED: usize = 64 << 10;

#[cfg(target_arch = "x86_64")]
mod arch {
    pub const BREAKPOINT: &[u8] = &[0xcc];
    /// How far behind the breakpoint the program counter stands when it was hit.
    pub const BEHIND: u64 = 1;
    pub const SYSTEM_CALL: &[u8] = &[0x0f, 0x05];
    pub type Registers = libc::user_regs_struct;
    pub fn counter(registers: &mut Registers) -> &mut u64 {
        &mut registers.rip
    }
}

#[cfg(target_arch = "aarch64")]
mod arch {
    pub const BREAKPOINT: &[u8] = &0xd420_0000u32.to_le_bytes();
    pub const BEHIND: u64 = 0;
    pub const SYSTEM_CALL: &[u8] = &0xd400_0001u32.to_le_bytes();
    pub type Registers = libc::user_regs_struct;
    pub fn counter(registers: &mut Registers) -> &mut u64 {
        &mut registers.pc
    }
}

/// The victim's operation after one more instruction than the point before.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Where the next instruction lies.
    pub counter: u64,
    /// The last instruction changed something that outlives the victim.
    pub visible: bool,
    /// The last instruction was a system call.
    pub called: bool,
    /// Not after the next instruction but inside: it is a system call, and the victim sleeps in it.
    pub asleep: bool,
}

impl Point {
    /// How a victim that came here stands.
    pub fn stand(&self) -> Stand {
        if self.asleep { Stand::Asleep } else { Stand::Stopped }
    }
}

/// Whether two walks through one operation are the same for everybody else.
pub fn agree(one: &[Point], other: &[Point]) -> bool {
    let visible = |point: &&Point| point.visible;
    let place = |point: &Point| (point.counter, point.called, point.asleep);
    one.iter().filter(visible).map(place).eq(other.iter().filter(visible).map(place))
}

/// Where a victim stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    Stopped,
    Asleep,
    /// It came to the end of its operation, or of its life.
    Over,
}

/// Whether this process may trace its children at all.
pub fn is_permitted() -> bool {
    let mut child = Child::fork(stop_for_tracer);
    stopped(&mut child)
}

/// In the victim: hands itself to the tracer and stops.
pub fn stop_for_tracer() {
    // SAFETY: plain numbers; the signal goes to this process itself.
    unsafe {
        if libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) == 0 {
            libc::kill(libc::getpid(), libc::SIGSTOP);
        }
    }
}

/// Waits until a victim has stopped itself.
pub fn stopped(child: &mut Child) -> bool {
    let stopped = matches!(wait(child), Event::Stop(libc::SIGSTOP));
    if stopped {
        let options = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD;
        request(libc::PTRACE_SETOPTIONS, child, 0, options as usize);
    }
    stopped
}

/// From its stop into its sleep in futex(2), such that it stops again when that call returns.
pub fn into_sleep(child: &mut Child) -> bool {
    loop {
        request(libc::PTRACE_SYSCALL, child, 0, 0);
        match wait(child) {
            Event::Stop(_) => {}
            Event::Asleep => return true,
            Event::Over | Event::Lost => return false,
        }
    }
}

/// Waits until a victim that [`into_sleep`] put to sleep was woken and stands behind its system call.
pub fn woken(child: &mut Child) -> bool {
    let end = Instant::now() + clock::patience();
    while Instant::now() < end {
        match wait(child) {
            Event::Stop(_) => return true,
            Event::Asleep => {}
            Event::Over | Event::Lost => return false,
        }
    }
    false
}

/// Steps through the whole operation of a victim that stands at its beginning. After each system call `settle` runs: what the
/// others do with it they may do before the victim goes on.
pub fn scout(child: &mut Child, seat: &Seat, mut settle: impl FnMut()) -> Vec<Point> {
    give_priority(child.pid(), HIGH);
    let mut watch = Watch::new(child);
    let mut points = vec![Point { counter: counter(child), visible: true, called: false, asleep: false }];
    while points.len() < LONGEST {
        let was = *points.last().expect("never empty");
        let called = text(child, was.counter, arch::SYSTEM_CALL.len()) == arch::SYSTEM_CALL;
        request(libc::PTRACE_SINGLESTEP, child, 0, 0);
        match wait(child) {
            Event::Stop(_) => {}
            Event::Asleep => {
                points.push(Point { visible: true, called: false, asleep: true, ..was });
                break;
            }
            Event::Over | Event::Lost => break,
        }
        let visible = watch.changed(child) | called;
        points.push(Point { counter: counter(child), visible, called, asleep: false });
        if seat.state.load(SeqCst) == RETURNED {
            break;
        }
        if called {
            settle();
            watch.changed(child);
        }
    }
    points
}

/// Drives a victim that stands at its beginning to the point `goal` of those that were scouted. After each system call on the way
/// `settle` runs.
pub fn go_to(child: &mut Child, points: &[Point], goal: usize, mut settle: impl FnMut()) -> Stand {
    give_priority(child.pid(), HIGH);
    let asleep = points[goal].asleep;
    let last = if asleep { goal - 1 } else { goal };
    let mut at = 0;
    while at < last {
        let next = (at + 1..last).find(|&point| points[point].called).unwrap_or(last);
        let place = points[next].counter;
        let visits = points[at + 1..=next].iter().filter(|point| point.counter == place).count();
        match visit(child, place, visits) {
            Stand::Stopped => {}
            other => return other,
        }
        if points[next].called && next != goal {
            settle();
        }
        at = next;
    }
    if !asleep {
        return Stand::Stopped;
    }
    request(libc::PTRACE_CONT, child, 0, 0);
    match wait(child) {
        Event::Asleep => Stand::Asleep,
        Event::Stop(_) => Stand::Stopped,
        Event::Over | Event::Lost => Stand::Over,
    }
}

/// Until the next instruction is the one at `place`, for the so-and-so-many-th time from here.
fn visit(child: &mut Child, place: u64, visits: usize) -> Stand {
    for _ in 0..visits {
        // Off the place where it stands, which may be the very one; repetitions of one instruction count, too.
        request(libc::PTRACE_SINGLESTEP, child, 0, 0);
        match wait(child) {
            Event::Stop(_) => {}
            Event::Asleep => return Stand::Asleep,
            Event::Over | Event::Lost => return Stand::Over,
        }
        if counter(child) != place {
            match run_to(child, place) {
                Stand::Stopped => {}
                other => return other,
            }
        }
    }
    Stand::Stopped
}

fn run_to(child: &mut Child, place: u64) -> Stand {
    let text = text(child, place, arch::BREAKPOINT.len());
    set_text(child, place, arch::BREAKPOINT);
    request(libc::PTRACE_CONT, child, 0, 0);
    match wait(child) {
        Event::Stop(_) => {}
        // It stays where it is until it is killed; the breakpoint in its private copy of the text harms nobody.
        Event::Asleep => return Stand::Asleep,
        Event::Over | Event::Lost => return Stand::Over,
    }
    set_text(child, place, &text);
    let mut registers = registers(child);
    let counter = arch::counter(&mut registers);
    if *counter != place + arch::BEHIND {
        return Stand::Over;
    }
    *counter = place;
    set_registers(child, &mut registers);
    Stand::Stopped
}

/// The address of the next instruction.
pub fn counter(child: &Child) -> u64 {
    *arch::counter(&mut registers(child))
}

/// What a wait for the victim ended with.
enum Event {
    Stop(i32),
    /// It is blocked in futex(2).
    Asleep,
    Over,
    /// Neither within all patience.
    Lost,
}

/// The runner's interval timer interrupts this wait now and then: somebody who sleeps on a futex does not stop.
fn wait(child: &mut Child) -> Event {
    let end = Instant::now() + clock::patience();
    loop {
        let mut status = 0;
        // SAFETY: a child of ours, not reaped yet.
        let pid = unsafe { libc::waitpid(child.pid(), &mut status, libc::__WALL) };
        if pid == child.pid() {
            if libc::WIFSTOPPED(status) {
                return Event::Stop(libc::WSTOPSIG(status));
            }
            child.note(status);
            return Event::Over;
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return Event::Over;
        }
        if rest::state(child.pid()) == State::Asleep {
            return Event::Asleep;
        }
        if Instant::now() > end {
            return Event::Lost;
        }
    }
}

/// Has SIGALRM interrupt blocking calls of this process every few milliseconds.
pub fn start_interval_timer() {
    extern "C" fn nothing(_: i32) {}
    let interval = libc::timeval { tv_sec: 0, tv_usec: 5_000 };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: an action without SA_RESTART and a handler that does nothing; zeroed fields are its defaults.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut());
        // libc's crate has no setitimer for Linux.
        libc::syscall(libc::SYS_setitimer, 0, &raw const timer, 0usize);
    }
}

/// This process and what it forks from now on runs on one core: stepping somebody on another costs three times as much.
pub fn stay_on_one_core() {
    // SAFETY: a zeroed set is empty; the calls get its true size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu().max(0) as usize, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// Who may run when several want to, all on one core: the runner and the victim before everybody else. So a victim that walks comes
/// to its point before those whom it woke on the way run, unless the runner waits for them; and a busy machine does not matter.
/// Without the permission for it the laboratory works, too: some victims then take another way than the scout, and are counted.
pub fn give_priority(pid: libc::pid_t, priority: i32) {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: live parameters; 0 is this process.
    unsafe { libc::sched_setscheduler(pid, libc::SCHED_FIFO, &parameters) };
}

/// Everybody else.
pub const LOW: i32 = 1;
/// The runner, and the victim while it walks.
pub const HIGH: i32 = 2;

fn request(request: libc::c_uint, child: &Child, address: usize, data: usize) -> libc::c_long {
    // SAFETY: a stopped child of ours; requests that write to our memory get live addresses.
    unsafe { libc::ptrace(request, child.pid(), address, data) }
}

fn registers(child: &Child) -> arch::Registers {
    let mut registers = MaybeUninit::<arch::Registers>::zeroed();
    let mut vector = libc::iovec { iov_base: registers.as_mut_ptr().cast(), iov_len: size_of::<arch::Registers>() };
    request(libc::PTRACE_GETREGSET, child, libc::NT_PRSTATUS as usize, &raw mut vector as usize);
    // SAFETY: integers; zeroed above.
    unsafe { registers.assume_init() }
}

fn set_registers(child: &Child, registers: &mut arch::Registers) {
    let mut vector = libc::iovec { iov_base: (&raw mut *registers).cast(), iov_len: size_of::<arch::Registers>() };
    request(libc::PTRACE_SETREGSET, child, libc::NT_PRSTATUS as usize, &raw mut vector as usize);
}

fn text(child: &Child, place: u64, length: usize) -> Vec<u8> {
    let word = request(libc::PTRACE_PEEKTEXT, child, place as usize, 0);
    word.to_le_bytes()[..length].to_vec()
}

fn set_text(child: &Child, place: u64, text: &[u8]) {
    let mut word = request(libc::PTRACE_PEEKTEXT, child, place as usize, 0).to_le_bytes();
    word[..text.len()].copy_from_slice(text);
    request(libc::PTRACE_POKETEXT, child, place as usize, usize::from_le_bytes(word));
}

/// What outlives a victim: the library's shared memory and the victim's robust list.
pub struct Watch {
    mappings: Vec<(Mapping, Vec<u8>)>,
    robust_head: usize,
    robust: [usize; 3],
}

impl Watch {
    pub fn new(child: &Child) -> Watch {
        let mut head = 0usize;
        let mut length = 0usize;
        // SAFETY: two writable words; a child of ours.
        unsafe { libc::syscall(libc::SYS_get_robust_list, child.pid(), &raw mut head, &raw mut length) };
        let mappings = host::shared_mappings().into_iter().map(|mapping| (mapping, Vec::new())).collect();
        let mut watch = Watch { mappings, robust_head: head, robust: [0; 3] };
        watch.changed(child);
        watch
    }

    /// Whether anything is different from the last look.
    fn changed(&mut self, child: &Child) -> bool {
        let mut changed = false;
        for (mapping, copy) in &mut self.mappings {
            let now = bytes(mapping);
            if now != copy.as_slice() {
                copy.clear();
                copy.extend_from_slice(now);
                changed = true;
            }
        }
        let robust = words_of(child, self.robust_head);
        changed |= robust != self.robust;
        self.robust = robust;
        changed
    }

    /// The words that differ from the first look, for a report.
    pub fn differences(&self) -> String {
        let mut text = String::new();
        for (mapping, copy) in &self.mappings {
            let words = bytes(mapping).chunks_exact(4).zip(copy.chunks_exact(4)).enumerate().filter(|(_, (now, was))| now != was);
            for (at, (now, was)) in words.take(24) {
                let (now, was) = (u32::from_le_bytes(now.try_into().expect("4")), u32::from_le_bytes(was.try_into().expect("4")));
                text += &format!("\n        {}+{:#x}: {was:#x} -> {now:#x}", mapping.name, at * 4);
            }
        }
        text
    }
}

/// The watched part of a mapping of this process.
fn bytes(mapping: &Mapping) -> &[u8] {
    // SAFETY: mapped while the object of this trial lives; others write it meanwhile, any bytes will do.
    unsafe { std::slice::from_raw_parts(mapping.start as *const u8, (mapping.end - mapping.start).min(WATCHED)) }
}

/// Three words of the victim's private memory.
fn words_of(child: &Child, address: usize) -> [usize; 3] {
    let mut words = [0usize; 3];
    let local = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: size_of_val(&words) };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: size_of_val(&words) };
    // SAFETY: three writable words here; the kernel checks the address there.
    unsafe { libc::process_vm_readv(child.pid(), &local, 1, &remote, 1, 0) };
    words
}
