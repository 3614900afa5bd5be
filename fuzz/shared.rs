//! The targets are those of tests/hostile, where a fixed set of inputs is tried with every `cargo test`.
#![allow(dead_code, reason = "each program uses a part")]

#[path = "../tests/hostile/bytes.rs"]
pub mod bytes;
#[path = "../tests/hostile/objects.rs"]
mod objects;
#[path = "."]
mod support {
    #[path = "../tests/support/host.rs"]
    pub mod host;
}

use std::sync::Once;

/// On a thread of its own: what it holds when it ends is gone with it, and the next input begins anew.
pub fn run(target: fn(&[u8]), data: &[u8]) {
    static ONCE: Once = Once::new();
    ONCE.call_once(objects::begin);
    let ended = std::thread::scope(|scope| scope.spawn(|| target(data)).join());
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}
