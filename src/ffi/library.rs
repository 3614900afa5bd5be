//! What belongs to no object: diagnostics and interrupts.

use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;

use super::guard;
use crate::log::{self, Level};
use crate::sys::interrupt;

/// A level of the log callback: something is lost or broken.
pub const TINE_LOG_ERROR: i32 = 1;
/// A level of the log callback: something is not as it should be.
pub const TINE_LOG_WARN: i32 = 2;
/// A level of the log callback: something that the host may want to know.
pub const TINE_LOG_INFO: i32 = 3;
/// A level of the log callback: details.
pub const TINE_LOG_DEBUG: i32 = 4;

const _: () = assert!(TINE_LOG_ERROR == Level::Error as i32 && TINE_LOG_WARN == Level::Warn as i32);
const _: () = assert!(TINE_LOG_INFO == Level::Info as i32 && TINE_LOG_DEBUG == Level::Debug as i32);

/// Receives diagnostics.
pub type tine_log_fn = Option<unsafe extern "C" fn(level: i32, message: *const c_char, user_data: *mut c_void)>;

/// Asked when a signal interrupts a wait of its thread; non-zero ends the call with TINE_EINTR.
pub type tine_interrupt_fn = Option<unsafe extern "C" fn(user_data: *mut c_void) -> i32>;

struct Sink(unsafe extern "C" fn(i32, *const c_char, *mut c_void), *mut c_void);
// SAFETY: contract C: the callback may be called on any thread.
unsafe impl Send for Sink {}
// SAFETY: as above.
unsafe impl Sync for Sink {}

impl Sink {
    fn write(&self, level: Level, message: &str) {
        let text = CString::new(message.replace('\0', " ")).unwrap_or_default();
        // SAFETY: contract C.
        unsafe { (self.0)(level as i32, text.as_ptr(), self.1) };
    }
}

/// Sets where diagnostics go; nowhere by default.
///
/// @param log        Called on any thread, never in a forked child; must not call the library. NULL = nowhere.
/// @param user_data  Passed on; borrowed until it is replaced.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_set_log(log: tine_log_fn, user_data: *mut c_void) {
    guard::release(|| {
        log::set(log.map(|log| {
            let sink = Sink(log, user_data);
            Arc::new(move |level: Level, message: &str| sink.write(level, message)) as _
        }));
    });
}

/// Sets this thread's interrupt check. Without one, waits go on after a signal. It is asked whether the handler restarts system calls
/// (SA_RESTART) or not, and not inside the handler.
///
/// @param check      Asked when a signal interrupts a wait of this thread; non-zero ends the call with TINE_EINTR. NULL = none.
/// @param user_data  Passed on; borrowed until it is replaced.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_set_interrupt_check(check: tine_interrupt_fn, user_data: *mut c_void) {
    // SAFETY: contract C.
    guard::release(|| unsafe { interrupt::set(check, user_data) });
}
