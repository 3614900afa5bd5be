//! How many processors this process may use.

use super::{cgroup, errno};

/// The least of: processors that this thread may run on, processors that are online, and what the control groups allow per time,
/// rounded up. At least 1.
pub fn usable() -> u32 {
    let allowed = allowed().unwrap_or(u32::MAX);
    let quota = quota_v2().or_else(quota_v1).unwrap_or(u32::MAX);
    allowed.min(online()).min(quota).max(1)
}

fn online() -> u32 {
    // SAFETY: no arguments that could be wrong.
    u32::try_from(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }).ok().filter(|&count| count > 0).unwrap_or(u32::MAX)
}

fn allowed() -> Option<u32> {
    affinity().map(|mask| mask.iter().map(|word| word.count_ones()).sum())
}

/// The processors that this thread may run on, one bit each; longer than libc's cpu_set_t where the kernel's is.
pub fn affinity() -> Option<Vec<u64>> {
    let mut words = 16;
    while words <= 1 << 14 {
        let mut mask = vec![0u64; words];
        // The raw call answers how many bytes it wrote.
        // SAFETY: a writable buffer of that length; 0 is the calling thread.
        let written = unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, words * 8, mask.as_mut_ptr()) };
        if written > 0 {
            mask.truncate(written as usize / 8);
            return Some(mask);
        }
        if errno() != libc::EINVAL {
            return None;
        }
        words *= 4;
    }
    None
}

/// cpu.max of this process's control group and its ancestors: "quota period" or "max period".
fn quota_v2() -> Option<u32> {
    cgroup::least(&cgroup::of_version_2()?, |group| {
        let text = cgroup::read(group, "cpu.max")?;
        let (quota, period) = text.split_once(' ')?;
        processors(quota.parse().ok()?, period.parse().ok()?)
    })
}

fn quota_v1() -> Option<u32> {
    cgroup::least(&cgroup::of_version_1("cpu")?, |group| {
        let group = format!("/cpu{group}");
        processors(cgroup::number(&group, "cpu.cfs_quota_us")?, cgroup::number(&group, "cpu.cfs_period_us")?)
    })
}

fn processors(quota: i64, period: i64) -> Option<u32> {
    let (quota, period) = (u64::try_from(quota).ok()?, u64::try_from(period).ok()?);
    if period == 0 { None } else { u32::try_from(quota.div_ceil(period)).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_one_and_not_more_than_online() {
        assert!((1..=online()).contains(&usable()));
    }

    #[test]
    fn quotas_round_up() {
        assert_eq!(processors(150_000, 100_000), Some(2));
        assert_eq!(processors(-1, 100_000), None);
        assert_eq!(processors(1, 0), None);
    }
}
