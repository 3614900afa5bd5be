//! A command's output in one call.
#![forbid(unsafe_code)]

use super::command::{self, Command, Stdio};
use super::communicate::{Keep, Said};
use super::handle::Process;
use crate::error::{Error, Kind, Note, Result};
use crate::sys::Deadline;
use crate::sys::heap::Growing;
use crate::timeout::Timeout;

/// How long what a killed command has left is listened to: there is nothing to wait for.
const REST_MS: u64 = 1_000;

/// What a command that was started came to.
#[derive(Debug)]
pub struct Captured {
    /// What it wrote to stdout, whatever else happened.
    pub output: Growing,
    /// As of [`Process::exit_code`].
    pub code: Result<i32>,
    /// Why it was not waited for to its end.
    pub ended: Result<Note>,
}

/// Runs a command to its end with this input and takes what it writes to stdout. Fails if it cannot be started.
pub fn check_output(mut command: Command, input: &[u8], timeout: Timeout) -> Result<Captured> {
    let [stdin, stdout, _] = &mut command.stdio;
    pipe_by_default(stdout, "options.stdout_mode: the output is what is asked for")?;
    if !input.is_empty() {
        pipe_by_default(stdin, "options.stdin_mode: there is an input")?;
    }
    let deadline = Deadline::from_now(timeout);
    let process = command::spawn(&command)?;
    let keep = Keep { stdout: true, stderr: false };
    match process.communicate_until(input, keep, &deadline) {
        Ok(said) => Ok(captured(&process, said.stdout, Ok(said.note))),
        Err(error) => {
            let _ = process.stop(Timeout::Try);
            // What interrupted it may do so again, and here has no say.
            let last = Deadline::from_now(Timeout::Millis(REST_MS));
            let rest = loop {
                match process.communicate_until(&[], keep, &last) {
                    Err(error) if error.kind() == Kind::Interrupted && !last.passed() => {}
                    rest => break rest,
                }
            };
            let output = match rest {
                Ok(Said { stdout, .. }) => stdout,
                Err(_) => Growing::empty()?,
            };
            Ok(captured(&process, output, Err(error)))
        }
    }
}

fn captured(process: &Process, output: Growing, ended: Result<Note>) -> Captured {
    Captured { output, code: process.exit_code(), ended }
}

fn pipe_by_default(stdio: &mut Stdio, why: &str) -> Result<()> {
    match stdio {
        Stdio::Inherit => *stdio = Stdio::Pipe,
        Stdio::Pipe => {}
        _ => return Err(Error::invalid(format!("{why}, so it is a pipe"))),
    }
    Ok(())
}
