//! Descriptors that a function child does not get: its copy would keep a command from the end of its input, or from noticing that
//! nobody reads, or a supervisor from noticing that its host is gone.
//!
//! All of them are on a list from the moment they are made until they are closed, as far as a fork can see: to that, making and
//! listing is one step, and so is taking off the list and closing.

use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::fd::{self, Known, PrivateFd};
use super::fork_gate;
use super::per_process::PerProcess;
use crate::error::Result;

/// All that this process has, by their numbers.
static LIST: PerProcess<BTreeMap<RawFd, Known>> = PerProcess::new();

/// What a child that is made now closes: all but those whose numbers it needs. Complete while the gate is closed.
pub fn all_but(needed: &[RawFd]) -> Vec<Known> {
    LIST.with(|list| list.values().copied().filter(|known| !needed.contains(&known.number())).collect())
}

/// A descriptor on the list.
#[derive(Debug)]
pub struct Withheld {
    fd: ManuallyDrop<PrivateFd>,
    known: Option<Known>,
}

impl Withheld {
    /// A pipe: the end to read and the end to write.
    pub fn pipe() -> Result<(Withheld, Withheld)> {
        Withheld::pair(fd::pipe)
    }

    /// What `make` makes, which must not wait.
    pub fn pair(make: impl FnOnce() -> Result<(OwnedFd, OwnedFd)>) -> Result<(Withheld, Withheld)> {
        let _step = fork_gate::step();
        let (a, b) = make()?;
        Ok((Withheld::list(a), Withheld::list(b)))
    }

    /// One that was made before, because that may have had to wait: a child that was forked since has it.
    pub fn late(fd: OwnedFd) -> Withheld {
        let _step = fork_gate::step();
        Withheld::list(fd)
    }

    fn list(fd: OwnedFd) -> Withheld {
        let number = fd.as_raw_fd();
        let known = Known::by_number(number);
        if let Some(known) = known {
            LIST.with(|list| list.insert(number, known));
        }
        Withheld { fd: ManuallyDrop::new(PrivateFd::new(fd)), known }
    }

    fn unlist(&mut self) {
        // In a forked child the number may be another pipe's, made there.
        if let Some(known) = self.known.take() {
            LIST.with(|list| if list.get(&known.number()) == Some(&known) { list.remove(&known.number()) } else { None });
        }
    }

    /// For a new owner, in the process that made it; not withheld any more.
    pub fn into_owned(self) -> OwnedFd {
        let mut own = ManuallyDrop::new(self);
        own.unlist();
        // SAFETY: it is taken once: what held it is not dropped.
        unsafe { ManuallyDrop::take(&mut own.fd) }.into_owned()
    }
}

impl AsRawFd for Withheld {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Drop for Withheld {
    fn drop(&mut self) {
        let _step = fork_gate::step();
        self.unlist();
        // SAFETY: not used again.
        unsafe { ManuallyDrop::drop(&mut self.fd) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_listed() {
        let (read, write) = Withheld::pipe().unwrap();
        let listed = |fd: RawFd| all_but(&[]).iter().any(|known| known.number() == fd);
        let (reader, writer) = (read.as_raw_fd(), write.as_raw_fd());
        assert!(listed(reader) && listed(writer));
        assert!(all_but(&[reader]).iter().all(|known| known.number() != reader));
        let given = read.into_owned();
        assert!(given.as_raw_fd() == reader && !listed(reader) && listed(writer));
        drop(write);
        assert!(!listed(writer));
    }
}
