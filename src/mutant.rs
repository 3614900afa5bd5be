//! Known mistakes, which the instruments must find: the unit tests are built with all of them and make the one that TINE_MUTANT names
//! (tests/mutants.rs tries each). In every other build nothing is left of them.
#![forbid(unsafe_code)]

#[cfg(test)]
pub(crate) fn is(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("TINE_MUTANT").ok()).as_deref() == Some(name)
}

#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn is(_name: &str) -> bool {
    false
}
