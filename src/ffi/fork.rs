//! A plain fork.

use super::guard;
use crate::process;
use crate::sys::fork::Forked;

/// Forks this process from the calling thread, as fork(2) does.
///
/// What was printed to stdout and stderr before appears once: both are flushed before (unless another thread is inside of them) and
/// their buffers are emptied in the child. No other stream is touched. The child leaves as any process does; exit handlers of the
/// parent run in it if it calls exit(3).
///
/// Threads: the child has only the calling one. Locks that others held at that moment stay held in the child.
///
/// @return In the parent the child's pid, which the caller waits for; in the child 0; below 0 a status: TINE_EAGAIN (no more
///         processes allowed), TINE_ENOMEM; TINE_EBUSY: a callback of a pool has been running on another thread for a second.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub extern "C" fn tine_fork() -> i32 {
    guard::number(|| {
        process::fork().map(|forked| match forked {
            Forked::Child => 0,
            Forked::Parent(pid) => pid,
        })
    })
}
