//! What C says about a command.

use std::ffi::{CStr, c_char};

use super::arg;
use super::handle::null;
use super::options::{self, Sized0};
use super::process::*;
use crate::error::{Error, Result};
use crate::process::{Command, Stdio};
use crate::sys::spawn::{Group, Limit};

// SAFETY: repr(C), `size` first, no padding, zeros are valid.
unsafe impl Sized0 for tine_spawn_options_t {
    const NAME: &'static str = "tine_spawn_options_t";
}

const KNOWN_FLAGS: u32 = TINE_SPAWN_NEW_GROUP
    | TINE_SPAWN_NEW_SESSION
    | TINE_SPAWN_KILL_ON_PARENT_DEATH
    | TINE_SPAWN_KILL_TREE
    | TINE_SPAWN_INHERIT_ALL_FDS
    | TINE_SPAWN_KEEP_SIGNALS
    | TINE_SPAWN_SET_UMASK
    | TINE_SPAWN_SET_UID
    | TINE_SPAWN_SET_GID;

/// A command, borrowed from the caller for the call.
pub(super) unsafe fn read<'a>(argv: *const *const c_char, options: *const tine_spawn_options_t) -> Result<Command<'a>> {
    // SAFETY: contracts S and O.
    unsafe {
        let argv = texts(argv).ok_or_else(|| null("argv"))?;
        let options = options::read(options)?;
        let flags = arg::flags(options.flags, KNOWN_FLAGS, "options.flags")?;
        let has = |flag: u32| flags & flag != 0;
        let fds = arg::array(options.fds, options.fd_count, "options.fds")?;
        let limits = arg::array(options.rlimits, options.rlimit_count, "options.rlimits")?;
        let groups = arg::array(options.groups, options.group_count, "options.groups")?;
        if !groups.is_empty() && !has(TINE_SPAWN_SET_GID) {
            return Err(Error::invalid("options.groups: they count only with TINE_SPAWN_SET_GID"));
        }
        Ok(Command {
            argv,
            executable: arg::optional_text(options.executable),
            cwd: arg::optional_text(options.cwd),
            env: texts(options.env),
            env_extra: texts(options.env_extra).unwrap_or_default(),
            stdio: [
                stdio(options.stdin_mode, options.stdin_fd, options.stdin_path, "stdin")?,
                stdio(options.stdout_mode, options.stdout_fd, options.stdout_path, "stdout")?,
                stdio(options.stderr_mode, options.stderr_fd, options.stderr_path, "stderr")?,
            ],
            fds: fds.iter().map(|map| (map.fd, map.r#as)).collect(),
            inherit_all_fds: has(TINE_SPAWN_INHERIT_ALL_FDS),
            limits: limits.iter().map(limit).collect::<Result<_>>()?,
            affinity: arg::array(options.affinity, options.affinity_words, "options.affinity")?,
            group: group(flags, options.process_group)?,
            nice: options.nice,
            umask: counts(has(TINE_SPAWN_SET_UMASK), options.umask, "umask", "TINE_SPAWN_SET_UMASK")?,
            uid: counts(has(TINE_SPAWN_SET_UID), options.uid, "uid", "TINE_SPAWN_SET_UID")?,
            gid: counts(has(TINE_SPAWN_SET_GID), options.gid, "gid", "TINE_SPAWN_SET_GID")?.map(|gid| (gid, groups)),
            keep_signals: has(TINE_SPAWN_KEEP_SIGNALS),
            tree: has(TINE_SPAWN_KILL_TREE),
            ends_with_host: has(TINE_SPAWN_KILL_ON_PARENT_DEATH),
            max_output_bytes: options.max_output_bytes,
        })
    }
}

/// A list of strings that ends with a NULL; `None` for NULL.
unsafe fn texts<'a>(list: *const *const c_char) -> Option<Vec<&'a CStr>> {
    if list.is_null() {
        return None;
    }
    // SAFETY: contract S, for every one up to the NULL.
    unsafe { Some((0..).map_while(|at| arg::optional_text(*list.add(at))).collect()) }
}

unsafe fn stdio<'a>(mode: i32, fd: i32, path: *const c_char, name: &str) -> Result<Stdio<'a>> {
    // A value that does not count is a mode that was forgotten. Below 0 is no descriptor: for many that is how to say none.
    if fd > 0 && mode != TINE_STDIO_FD {
        return Err(Error::invalid(format!("options.{name}_fd: it counts only with TINE_STDIO_FD")));
    }
    if !path.is_null() && !matches!(mode, TINE_STDIO_PATH | TINE_STDIO_APPEND) {
        return Err(Error::invalid(format!("options.{name}_path: it counts only with TINE_STDIO_PATH or TINE_STDIO_APPEND")));
    }
    // SAFETY: contract S.
    let path = || unsafe { arg::optional_text(path) }.ok_or_else(|| Error::invalid(format!("options.{name}_path is NULL")));
    match mode {
        TINE_STDIO_INHERIT => Ok(Stdio::Inherit),
        TINE_STDIO_PIPE => Ok(Stdio::Pipe),
        TINE_STDIO_NULL => Ok(Stdio::Null),
        TINE_STDIO_FD => Ok(Stdio::Fd(fd)),
        TINE_STDIO_PATH => path().map(Stdio::Path),
        TINE_STDIO_APPEND => path().map(Stdio::Append),
        TINE_STDIO_STDOUT => Ok(Stdio::Stdout),
        _ => Err(Error::invalid(format!("options.{name}_mode: {mode} is no TINE_STDIO_*"))),
    }
}

fn limit(limit: &tine_rlimit_t) -> Result<Limit> {
    arg::flags(limit.reserved, 0, "options.rlimits: reserved")?;
    Ok(Limit { resource: limit.resource, soft: limit.soft, hard: limit.hard })
}

fn group(flags: u32, joined: i32) -> Result<Group> {
    match (flags & TINE_SPAWN_NEW_SESSION != 0, flags & TINE_SPAWN_NEW_GROUP != 0, joined) {
        (false, false, 0) => Ok(Group::Inherited),
        // A session begins with a group of its own.
        (true, _, 0) => Ok(Group::NewSession),
        (false, true, 0) => Ok(Group::New),
        (false, false, 1..) => Ok(Group::Join(joined)),
        (_, _, 1..) => {
            Err(Error::invalid("options.process_group: to join a group excludes TINE_SPAWN_NEW_GROUP and TINE_SPAWN_NEW_SESSION"))
        }
        _ => Err(Error::invalid(format!("options.process_group: {joined} is no group"))),
    }
}

/// A field that counts only with its flag, since 0 means something there. Without it, a value is a flag that was forgotten.
fn counts(flagged: bool, value: u32, field: &str, flag: &str) -> Result<Option<u32>> {
    match (flagged, value) {
        // To the kernel it means "leave it as it is": a look-up that failed must not make a command run as this process's user.
        (true, u32::MAX) => Err(Error::invalid(format!("options.{field}: {value} stands for none"))),
        (true, value) => Ok(Some(value)),
        (false, 0) => Ok(None),
        (false, _) => Err(Error::invalid(format!("options.{field}: it counts only with {flag}"))),
    }
}
