//! Processors, and whose process this is.

use std::ffi::c_int;

use super::guard;
use crate::process::role;
use crate::sys::cpu;

/// How many processors this process may use: the least of those that the calling thread may run on, those that are online, and the
/// quota of its control groups rounded up.
///
/// @return At least 1.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub extern "C" fn tine_cpu_count() -> u32 {
    guard::value(1, || Ok(cpu::usable()))
}

/// The process that this one works for.
///
/// @return In a pool's worker the process that made the pool (its parent is another), in a child of tine_process_start() the process
///         that started it, elsewhere the parent.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub extern "C" fn tine_host_pid() -> i32 {
    guard::value(0, || Ok(role::host_pid()))
}

/// A descriptor that becomes readable once the process of tine_host_pid() is gone, for poll(2).
///
/// @return The descriptor, which belongs to the library; -1 in processes that the library did not start, and where the kernel has no
///         pidfds.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub extern "C" fn tine_host_fd() -> c_int {
    guard::value(-1, || Ok(role::host_fd()))
}
