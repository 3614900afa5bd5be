//! What runs when the program calls exit(3) or returns from main. libc runs the latest handler first, and a forked child inherits
//! them all.

use std::ffi::c_void;

use crate::error::{Error, Kind, Result};

unsafe extern "C" {
    /// atexit with an argument; every libc has it, for C++.
    fn __cxa_atexit(handler: extern "C" fn(*mut c_void), argument: *mut c_void, library: *mut c_void) -> libc::c_int;
    /// glibc's: the only one that tells the code.
    fn on_exit(handler: extern "C" fn(libc::c_int, *mut c_void), argument: *mut c_void) -> libc::c_int;
}

/// `handler` runs when this process exits.
pub fn at_exit(handler: fn()) -> Result<()> {
    extern "C" fn call(handler: *mut c_void) {
        // SAFETY: the address of a `fn()`, put there below.
        let handler = unsafe { std::mem::transmute::<*mut c_void, fn()>(handler) };
        // A panic must not end what is left of the exit.
        let _ = std::panic::catch_unwind(handler);
    }
    // SAFETY: the library is never unloaded (-z nodelete), so the address stays good, and null says that no unloading runs it.
    match unsafe { __cxa_atexit(call, handler as *mut c_void, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(Error::new(Kind::NoMemory, "atexit: no memory for one more handler")),
    }
}

/// `handler` runs when this process exits and is given the code. `false`: no memory for one more.
pub fn at_exit_with_code(handler: fn(i32)) -> bool {
    extern "C" fn call(code: libc::c_int, handler: *mut c_void) {
        // SAFETY: the address of a `fn(i32)`, put there below.
        let handler = unsafe { std::mem::transmute::<*mut c_void, fn(i32)>(handler) };
        handler(code);
    }
    // SAFETY: as in `at_exit`.
    unsafe { on_exit(call, handler as *mut c_void) == 0 }
}
