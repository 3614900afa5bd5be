//! Pipes: what was sent arrives whole and once, or never was; nobody sleeps before a message, and the dead keep nobody from receiving.

use std::ptr;
use std::sync::OnceLock;

use tine::ffi::pipe::{
    tine_connection_fd, tine_connection_free, tine_connection_poll, tine_connection_recv, tine_connection_send,
    tine_connection_t, tine_pipe_new,
};
use tine::ffi::status::{TINE_ETIMEDOUT, TINE_OK};

use crate::ledger::Ledger;
use crate::lock::runs;
use crate::scene::{Books, Scene, Stage, Trial, Verdict, Victim};
use crate::seat::{Act, BUFFER, Seat};
use crate::support::message;

const SMALL: usize = 64;
/// Longer than a datagram may be here: it travels as a file.
const LARGE: usize = 6000;

#[derive(Clone, Copy)]
struct Pipe {
    receives: *mut tine_connection_t,
    sends: *mut tine_connection_t,
}

impl Pipe {
    fn new() -> Pipe {
        let mut pipe = Pipe { receives: ptr::null_mut(), sends: ptr::null_mut() };
        // SAFETY: places for the handles.
        let status = unsafe { tine_pipe_new(0, &mut pipe.receives, &mut pipe.sends) };
        assert_eq!(status, TINE_OK, "tine_pipe_new");
        // The least that the kernel grants.
        let least = 1i32;
        // SAFETY: a live connection's descriptor, and an int.
        let done = unsafe {
            let fd = tine_connection_fd(pipe.sends);
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, (&raw const least).cast(), size_of::<i32>() as u32)
        };
        assert_eq!(done, 0, "SO_SNDBUF");
        pipe
    }

    fn send(self, bytes: &[u8], timeout_ms: i64) -> i32 {
        // SAFETY: a live connection and as many bytes.
        unsafe { tine_connection_send(self.sends, bytes.as_ptr().cast(), bytes.len(), timeout_ms) }
    }

    /// # Safety
    /// `buffer` is writable for [`BUFFER`] bytes.
    unsafe fn recv(self, buffer: *mut u8, timeout_ms: i64, length: &mut usize) -> i32 {
        // SAFETY: a live connection; forwarded.
        unsafe { tine_connection_recv(self.receives, buffer.cast(), BUFFER, timeout_ms, length) }
    }

    fn has_message(self) -> bool {
        // SAFETY: a live connection.
        unsafe { tine_connection_poll(self.receives, 0) == TINE_OK }
    }
}

struct PipeStage {
    pipe: Pipe,
    length: usize,
    ledger: Ledger,
}

impl PipeStage {
    fn boxed(length: usize) -> Box<dyn Stage> {
        warm();
        let ledger = Ledger::new(length, TINE_ETIMEDOUT, TINE_ETIMEDOUT);
        // A file is read after its datagram was taken.
        let ledger = if length > SMALL { ledger.with_unseen() } else { ledger };
        Box::new(PipeStage { pipe: Pipe::new(), length, ledger })
    }
}

/// One pipe for first-use initialisation, made once.
fn warm() -> Pipe {
    static WARM: OnceLock<(usize, usize)> = OnceLock::new();
    let &(receives, sends) = WARM.get_or_init(|| {
        let pipe = Pipe::new();
        (pipe.receives as usize, pipe.sends as usize)
    });
    Pipe { receives: receives as *mut _, sends: sends as *mut _ }
}

impl Drop for PipeStage {
    fn drop(&mut self) {
        // SAFETY: ours, and no call is running on them in this process.
        unsafe {
            tine_connection_free(self.pipe.receives);
            tine_connection_free(self.pipe.sends);
        }
    }
}

impl Stage for PipeStage {
    fn act(&self, act: Act, timeout_ms: i64, seat: &Seat) -> i32 {
        match act {
            Act::Put(number) => {
                let mut bytes = vec![0; self.length];
                message::fill(number, &mut bytes);
                seat.begin();
                let status = self.pipe.send(&bytes, timeout_ms);
                seat.end(status)
            }
            Act::Get => {
                let mut length = 0;
                // The seat's memory is shared: it shows what a dead one was taking.
                let buffer = seat.buffer.as_ptr().cast_mut().cast();
                seat.begin();
                // SAFETY: a seat's buffer, which nobody reads meanwhile.
                let status = unsafe { self.pipe.recv(buffer, timeout_ms, &mut length) };
                self.ledger.has_got(status, length, seat)
            }
            other => unreachable!("{other:?} is nothing for a pipe"),
        }
    }

    fn warm_up(&self, _: Act) {
        let (mut buffer, mut length) = ([0u8; BUFFER], 0);
        for bytes in [&[0u8; SMALL][..], &[0u8; LARGE]] {
            warm().send(bytes, 0);
            // SAFETY: writable for that many bytes.
            unsafe { warm().recv(buffer.as_mut_ptr(), 0, &mut length) };
        }
        // SAFETY: as above.
        unsafe { warm().recv(buffer.as_mut_ptr(), 1, &mut length) };
    }

    fn starving(&self, trial: &Trial) -> Option<String> {
        let receivers = trial.count(|participant| participant.waits() && participant.act.gets());
        let senders = trial.count(|participant| participant.waits() && participant.act.puts() > 0);
        match self.pipe.has_message() {
            true if receivers > 0 => Some(format!("{receivers} receivers sleep although a message is there")),
            false if senders > 0 => Some(format!("{senders} senders sleep although the pipe is empty")),
            _ => None,
        }
    }

    fn release_all(&self, trial: &mut Trial) -> Verdict {
        for probe in 0..trial.count(|participant| participant.waits() && participant.act.gets()) {
            trial.must(self, Act::Put(1000 + probe as u64))?;
        }
        // Room for a sender is what the kernel takes for it: an empty pipe has some.
        while trial.count(|participant| participant.waits() && participant.act.puts() > 0) > 0 && self.pipe.has_message() {
            trial.must(self, Act::Get)?;
        }
        Ok(())
    }

    fn audit(&self, trial: &mut Trial) -> Result<Books, String> {
        let status = loop {
            match trial.try_act(self, Act::Get, 0) {
                TINE_OK => {}
                status => break status,
            }
        };
        if status != TINE_ETIMEDOUT {
            return Err(format!("drained: {status}"));
        }
        let books = self.ledger.settle(trial, false)?;
        trial.must(self, Act::Put(9000))?;
        trial.must(self, Act::Get)?;
        match self.ledger.last() {
            Some(9000) => Ok(books),
            other => Err(format!("at the end {other:?} arrives")),
        }
    }
}

pub fn scenes() -> Vec<Scene> {
    fn small() -> Box<dyn Stage> {
        PipeStage::boxed(SMALL)
    }
    fn large() -> Box<dyn Stage> {
        PipeStage::boxed(LARGE)
    }
    const NONE: &[Act] = &[];
    const RECEIVERS: &[Act] = &[Act::Get, Act::Get];
    const RECEIVER: &[Act] = &[Act::Get];
    const SENT: &[Act] = &[Act::Put(1), Act::Put(2)];
    const BOTH: &[Act] = &[Act::Put(301), Act::Get];
    let scene =
        |name, stage, before, sleepers, victim| Scene { name, stage, before, sleepers, victim, thirds: BOTH, corpse: None };
    let after = |name, stage, before, corpse, act| Scene {
        name,
        stage,
        before,
        sleepers: NONE,
        victim: runs(&[], act),
        thirds: &[],
        corpse: Some(corpse),
    };
    // Alone: of several who are woken another one would take the message at once.
    let woken = || Victim::Woken { sleeper: 0, wake: &[Act::Put(1)] };
    vec![
        scene("pipe.send", small, NONE, RECEIVERS, runs(&[], Act::Put(1))),
        scene("pipe.send, large", large, NONE, RECEIVERS, runs(&[], Act::Put(1))),
        scene("pipe.recv", small, SENT, NONE, runs(&[], Act::Get)),
        scene("pipe.recv, large", large, SENT, NONE, runs(&[], Act::Get)),
        scene("pipe.recv, empty", small, NONE, RECEIVERS, runs(&[], Act::Get)),
        scene("pipe.recv, woken", small, NONE, RECEIVER, woken()),
        scene("pipe.recv, large, woken", large, NONE, RECEIVER, woken()),
        after("pipe.recv, after a dead recv", small, SENT, Act::Get, Act::Get),
        after("pipe.recv, large, after a dead recv", large, SENT, Act::Get, Act::Get),
        after("pipe.recv, after a dead send", small, NONE, Act::Put(5), Act::Get),
    ]
}
