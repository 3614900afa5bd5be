//! libc's stdout and stderr around a fork. What the host printed before must appear once: flushed before if nobody is inside,
//! discarded in the child, and what the child printed is flushed at its end. No other stream is touched, stdin never: flushing it
//! moves the file offset that the processes share, and hangs beside a thread that reads it.

use libc::FILE;

unsafe extern "C" {
    static stdout: *mut FILE;
    static stderr: *mut FILE;
    fn ftrylockfile(stream: *mut FILE) -> libc::c_int;
    fn funlockfile(stream: *mut FILE);
    /// Takes no lock.
    fn __fpurge(stream: *mut FILE);
    /// Takes no lock.
    fn __fpending(stream: *mut FILE) -> usize;
}

fn both() -> [*mut FILE; 2] {
    // SAFETY: libc sets them before anything runs. A program may assign them; then it is that stream.
    unsafe { [stdout, stderr] }
}

/// Flushes those of the two whose lock is free.
pub fn flush_before_fork() {
    for stream in both() {
        // SAFETY: a stream of libc; locked by us while we flush.
        unsafe {
            if !stream.is_null() && ftrylockfile(stream) == 0 {
                libc::fflush(stream);
                funlockfile(stream);
            }
        }
    }
}

/// In a child, first thing: forgets what is still buffered; it is the parent's to print.
pub fn purge_in_child() {
    for stream in both() {
        if !stream.is_null() {
            // SAFETY: the child has one thread, so nobody is inside.
            unsafe { __fpurge(stream) };
        }
    }
}

/// In a child, before `_exit`.
pub fn flush_at_end() {
    flush_before_fork();
}

/// Flushes those of the two that have something to flush: cheap enough for after every task.
pub fn flush_if_pending() {
    // SAFETY: streams of libc; what another thread writes meanwhile makes the answer old, no more.
    if both().iter().any(|&stream| !stream.is_null() && unsafe { __fpending(stream) } > 0) {
        flush_before_fork();
    }
}
