//! Control groups: what limits this process together with others.

use std::fs;
use std::str::FromStr;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_above_limit_as_well() {
        assert_eq!(least("/a/b", |group| if group == "/a" { Some(3) } else { None }), Some(3));
        assert_eq!(least("/a/b", |group| Some(group.len())), Some(0));
    }
}
