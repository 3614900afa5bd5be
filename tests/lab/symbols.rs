//! Names for addresses, for reports: addr2line(1) where there is one.

use std::fs;
use std::process::Command;

/// `function (file:line)`, or the file and the offset in it.
pub fn name(address: u64) -> String {
    let Some((file, offset)) = locate(address) else { return format!("{address:#x}") };
    let plain = format!("{}+{offset:#x}", file.rsplit('/').next().unwrap_or(&file));
    let output = Command::new("addr2line").args(["-f", "-C", "-s", "-e", &file, &format!("{offset:#x}")]).output();
    let Ok(output) = output else { return plain };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    match (lines.next(), lines.next()) {
        (Some(function), Some(place)) if function != "??" => format!("{function} ({place}, {plain})"),
        _ => plain,
    }
}

/// The file that is mapped at an address of this process (its children have the same addresses), and the address in that file's
/// own terms.
fn locate(address: u64) -> Option<(String, u64)> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let mut base = (String::new(), 0);
    for line in maps.lines() {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let (start, end) = fields.first()?.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        let Some(&file) = fields.get(5) else { continue };
        if base.0 != file {
            base = (file.to_owned(), start);
        }
        if (start..end).contains(&address) {
            return Some((base.0, address - base.1));
        }
    }
    None
}
