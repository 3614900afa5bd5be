//! What a process has: descriptors and mappings, before and after.

use std::fs;

/// Open descriptors of this process, by number and what they are.
pub fn descriptors() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let mut descriptors: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            Some(format!("{} {}", entry.file_name().to_string_lossy(), fs::read_link(entry.path()).ok()?.display()))
        })
        // The directory that is being read.
        .filter(|line| !line.contains("/proc/"))
        .collect();
    descriptors.sort();
    descriptors
}

/// Mappings of the library's shared memory: where, how long, and which file.
pub fn shared_mappings() -> Vec<Mapping> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines().filter_map(Mapping::parse).collect()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub start: usize,
    pub end: usize,
    pub name: String,
    pub inode: u64,
}

impl Mapping {
    fn parse(line: &str) -> Option<Mapping> {
        let unnamed = line.find("/memfd:tine:").map(|at| &line[at + 7..]);
        let name = unnamed.or_else(|| line.find("/dev/shm/tine-").map(|at| &line[at..]))?;
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let inode = fields.nth(3)?.parse().ok()?;
        let name = name.trim_end_matches(" (deleted)").to_owned();
        Some(Mapping { start: usize::from_str_radix(start, 16).ok()?, end: usize::from_str_radix(end, 16).ok()?, name, inode })
    }
}

/// Memory of this process alone that is there, in bytes.
pub fn private_memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()).unwrap_or(0) * 1024
}
