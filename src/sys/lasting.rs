//! A thread that lasts as long as the process, for what must not end with the thread that wants it: the kernel ties the parent death
//! signal to the parent *thread*.

use std::sync::mpsc::{self, Sender, SyncSender};
use std::thread;

use super::fork_gate::{self, Member};
use super::per_process::PerProcess;
use super::signal::Blocked;
use crate::error::{Error, Kind, Result};

const STACK: usize = 256 << 10;

/// What it is to do, and whom it tells when that is done.
struct Job {
    work: *mut (dyn FnMut() + Send),
    done: SyncSender<()>,
    /// Who waits for it is inside the gate: a fork waits for the two as for one.
    covered: bool,
}

// SAFETY: the work is Send, and whoever sends it leaves it alone until it is done.
unsafe impl Send for Job {}

/// A forked child has no such thread, and makes its own when it needs one.
static THREAD: PerProcess<Option<Sender<Job>>> = PerProcess::new();

/// Runs `work` on that thread and waits for it. Made by the first call: named "tine-spawn", all signals blocked, at rest while somebody
/// forks.
pub fn run<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    let sender = match THREAD.with(|thread| thread.clone()) {
        Some(sender) => sender,
        None => start()?,
    };
    let (mut work, mut result) = (Some(work), None);
    let mut once = || result = work.take().map(|work| work());
    let (done, is_done) = mpsc::sync_channel(1);
    let once: *mut (dyn FnMut() + Send + '_) = &mut once;
    // SAFETY: the same pointer without its lifetime: this call does not return before nobody has it any more.
    let work = unsafe { std::mem::transmute::<*mut (dyn FnMut() + Send + '_), *mut (dyn FnMut() + Send + 'static)>(once) };
    let lost = || Error::new(Kind::Panic, "the thread that starts commands failed");
    sender.send(Job { work, done, covered: fork_gate::is_inside() }).map_err(|_| lost())?;
    // Fails when the thread has dropped the job: then, too, it is done with it.
    let _ = is_done.recv();
    result.ok_or_else(lost)
}

fn start() -> Result<Sender<Job>> {
    let (sender, jobs) = mpsc::channel::<Job>();
    let blocked = Blocked::all();
    let member = Member::new();
    let body = move || {
        for Job { work, done, covered } in jobs {
            let inside = (!covered).then(|| member.enter());
            // SAFETY: see `run`: it is there until it is told, and nobody else touches it.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| unsafe { (*work)() }));
            drop(inside);
            let _ = done.send(());
        }
    };
    let made = thread::Builder::new().name("tine-spawn".into()).stack_size(STACK).spawn(body);
    drop(blocked);
    made.map_err(|_| Error::new(Kind::Again, "process: no thread to be had for commands that end with this process"))?;
    // Of two that were made at once one stays without work, and ends.
    Ok(THREAD.with(|thread| thread.get_or_insert(sender).clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_thread_and_another_than_the_callers() {
        let here = thread::current().id();
        let (first, second) = (run(|| thread::current().id()).unwrap(), run(|| thread::current().id()).unwrap());
        assert!(first == second && first != here);
        assert_eq!(run(|| thread::current().name().map(str::to_owned)).unwrap().as_deref(), Some("tine-spawn"));
    }
}
