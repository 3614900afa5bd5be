//! Control groups: what limits this process together with others.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write;
use std::str::FromStr;
use std::time::Duration;

use super::process;

/// This process's group of version 2; "" is the root.
pub(super) fn of_version_2() -> Option<String> {
    path(|line| line.strip_prefix("0::"))
}

/// This process's group of version 1 for a controller.
pub(super) fn of_version_1(controller: &str) -> Option<String> {
    path(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        fields.next()?.split(',').any(|name| name == controller).then(|| fields.next())?
    })
}

fn path(select: impl Fn(&str) -> Option<&str>) -> Option<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().find_map(select).map(|path| path.trim_end_matches('/').to_owned())
}

/// The least that a group or one above it allows.
pub(super) fn least<T: Ord>(mut group: &str, limit: impl Fn(&str) -> Option<T>) -> Option<T> {
    let mut least = limit(group);
    while let Some(cut) = group.rfind('/') {
        group = &group[..cut];
        least = match (least, limit(group)) {
            (Some(least), Some(limit)) => Some(least.min(limit)),
            (least, limit) => least.or(limit),
        };
    }
    least
}

/// What a file of a group says.
pub(super) fn read(group: &str, file: &str) -> Option<String> {
    fs::read_to_string(format!("/sys/fs/cgroup{group}/{file}")).ok().map(|text| text.trim().to_owned())
}

/// The number that a file of a group holds; `None` also for "max".
pub(super) fn number<T: FromStr>(group: &str, file: &str) -> Option<T> {
    read(group, file)?.parse().ok()
}

/// A group of version 2 that this process made below its own one, for children of its.
#[derive(Debug)]
pub struct Group {
    own: String,
    path: String,
    /// Whether children went there, and this process came back.
    used: Cell<bool>,
}

impl Group {
    /// That of another process, which could not remove it any more; `None` if there is none.
    pub fn of(pid: i32) -> Option<Group> {
        let group = Group::named(pid)?;
        group.used.set(true);
        fs::exists(&group.path).unwrap_or(false).then_some(group)
    }

    fn named(pid: i32) -> Option<Group> {
        let own = of_version_2()?;
        // Version 2 lies beside version 1 on some systems.
        let own = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(|root| format!("{root}{own}"));
        let own = own.into_iter().find(|own| fs::exists(format!("{own}/cgroup.procs")).unwrap_or(false))?;
        Some(Group { path: format!("{own}/{PREFIX}{pid}"), own, used: Cell::new(false) })
    }

    /// `None` where this process may not, or the kernel cannot kill groups (5.14).
    pub fn make() -> Option<Group> {
        let group = Group::named(process::pid())?;
        // One of that name was left by a process of this number that was killed.
        let _ = fs::remove_dir(&group.path);
        remove_left(&group.own);
        fs::create_dir(&group.path).ok()?;
        if !fs::exists(format!("{}/cgroup.kill", group.path)).unwrap_or(false) {
            group.remove();
            return None;
        }
        Some(group)
    }

    /// Children that `start` makes are in the group, and so is what they make. This process is, for that long.
    pub fn with_new_children_in_it<T>(&self, start: impl FnOnce() -> T) -> T {
        // Both are opened first: what `start` makes may take the last descriptor, and who cannot leave the group is killed with it.
        let (Ok(mut this), Ok(mut own)) = (members(&self.path), members(&self.own)) else { return start() };
        let entered = enter(&mut this);
        let result = start();
        self.used.set(entered && enter(&mut own));
        result
    }

    /// Kills everybody in it.
    pub fn kill(&self) {
        if self.used.get() {
            let _ = fs::write(format!("{}/cgroup.kill", self.path), "1");
        }
    }

    /// Of a group with nobody in it. Those who were killed are in it for a moment.
    pub fn remove(self) {
        for _ in 0..100 {
            match fs::remove_dir(&self.path) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    // Who was killed in it may have made groups of its own.
                    remove_left(&self.path);
                    std::thread::sleep(Duration::from_millis(2));
                }
                _ => return,
            }
        }
    }
}

/// What a group of ours is called, with the number of the process that made it.
const PREFIX: &str = "tine-";

/// Removes the groups in `folder` whose processes were killed before they could. One that somebody is in stays: the kernel refuses.
fn remove_left(folder: &str) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse().ok()) else { continue };
        if pid > 0 && !process::exists(pid) {
            let group = format!("{folder}/{PREFIX}{pid}");
            remove_left(&group);
            let _ = fs::remove_dir(&group);
        }
    }
}

/// Who is in a group, for [`enter`].
fn members(group: &str) -> std::io::Result<File> {
    File::options().write(true).open(format!("{group}/cgroup.procs"))
}

/// This process moves to another group.
fn enter(members: &mut File) -> bool {
    members.write_all(b"0").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_above_limit_as_well() {
        assert_eq!(least("/a/b", |group| if group == "/a" { Some(3) } else { None }), Some(3));
        assert_eq!(least("/a/b", |group| Some(group.len())), Some(0));
    }
}
