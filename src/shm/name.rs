//! Names of objects: files in /dev/shm.
//!
//! A file gets its name when the object in it is complete, in one step, so nobody ever finds a half-made one; whoever is killed before
//! leaves a file without a name, which the kernel frees. A name stays until it is removed.

use std::ffi::{CStr, CString};

use crate::error::{Error, Kind, Result};
use crate::sys::shared_file;

const LONGEST: usize = 200;

/// A name that is well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(CString);

impl Name {
    pub fn new(text: &CStr) -> Result<Name> {
        if Name::is_good(text.to_bytes()) {
            return Ok(Name(text.to_owned()));
        }
        let shown: String = text.to_string_lossy().chars().take(LONGEST + 1).flat_map(char::escape_default).collect();
        Err(Error::invalid(format!("name: \"{shown}\" is not 1 to {LONGEST} of the characters A-Z a-z 0-9 . _ -")))
    }

    fn is_good(text: &[u8]) -> bool {
        let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        (1..=LONGEST).contains(&text.len()) && text.iter().all(known)
    }

    /// What the head of a segment says; `None`: nothing, or nonsense.
    pub(super) fn of_head(bytes: &[u8]) -> Option<Name> {
        let text = CStr::from_bytes_until_nul(bytes).ok()?;
        Name::is_good(text.to_bytes()).then(|| Name(text.to_owned()))
    }

    pub fn text(&self) -> &CStr {
        &self.0
    }

    pub(super) fn path(&self) -> CString {
        self.in_folder("")
    }

    /// Where the file lies until it is complete, on systems without files that have no name. No name ends like this.
    pub(super) fn draft(&self) -> CString {
        self.in_folder("~")
    }

    fn in_folder(&self, end: &str) -> CString {
        CString::new(format!("{}/tine-{}{end}", shared_file::FOLDER, self.0.to_string_lossy())).unwrap_or_default()
    }

    /// Removes the name. The object stays until the last process has freed it.
    pub fn unlink(&self) -> Result<()> {
        shared_file::remove_name(&self.path()).map_err(|error| match error.kind() {
            Kind::NotFound => Error::new(Kind::NotFound, format!("name: there is no \"{}\"", self.shown())),
            Kind::Access | Kind::NotPermitted => self.not_permitted(),
            _ => error.context("name"),
        })
    }

    pub(super) fn shown(&self) -> std::borrow::Cow<'_, str> {
        self.0.to_string_lossy()
    }

    pub(super) fn not_permitted(&self) -> Error {
        Error::new(Kind::NotPermitted, format!("name: \"{}\" belongs to another user", self.shown()))
    }
}

/// What a constructor is told about names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    None,
    /// Must be free.
    New(Name),
    /// Opens what has the name already.
    OpenOrCreate(Name),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_the_grammar() {
        for good in [c"a", c"A-Za-z0-9._-", c"..", c"-"] {
            assert_eq!(Name::new(good).unwrap().text(), good);
        }
        let long = CString::new("x".repeat(201)).unwrap();
        for bad in [c"", c"a/b", c"a b", c"a~", c"\xc3\xa4", &long] {
            let error = Name::new(bad).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(error.message().starts_with("name: "));
        }
    }
}
