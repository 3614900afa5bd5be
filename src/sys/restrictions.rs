//! Who a thread is to the kernel, and what it may do and see. All of that is a thread's own: libc changes some of it for the whole
//! process, and a raw call, prctl(2), seccomp(2) or unshare(2) for the thread that makes it. What that starts inherits it.

/// Lines of /proc/thread-self/status, by the beginnings of their names.
const LINES: [&str; 6] = ["Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp"];
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid_for_children", "time_for_children", "user", "uts"];

/// Names and values: compared, not understood. What /proc does not tell is not among them: Landlock, and which filters there are.
#[derive(Debug)]
pub struct Restrictions(Vec<(String, String)>);

impl Restrictions {
    /// Of the calling thread; of those that cannot be read none.
    pub fn of_this_thread() -> Restrictions {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let lines = status.lines().filter_map(|line| line.split_once(':'));
        let lines = lines.filter(|(name, _)| LINES.iter().any(|line| name.starts_with(line)));
        let namespaces = NAMESPACES.into_iter().filter_map(|name| {
            let link = std::fs::read_link(format!("/proc/thread-self/ns/{name}")).ok()?;
            Some((format!("{name} namespace"), link.to_str()?.to_owned()))
        });
        Restrictions(lines.map(|(name, value)| (name.to_owned(), value.to_owned())).chain(namespaces).collect())
    }

    /// What this thread has in another way than that one, as far as both can be known.
    pub fn difference(&self, other: &Restrictions) -> Option<&str> {
        let differs = |(name, value): &(String, String)| {
            other.0.iter().any(|(others_name, others_value)| name == others_name && value != others_value)
        };
        self.0.iter().find(|entry| differs(entry)).map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_gives_up_is_its_own() {
        let here = Restrictions::of_this_thread();
        assert!(here.0.len() > 10);
        let there = std::thread::spawn(|| {
            let before = Restrictions::of_this_thread();
            // SAFETY: plain numbers.
            unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
            (before, Restrictions::of_this_thread())
        });
        let (before, after) = there.join().unwrap();
        assert_eq!(here.difference(&before), None);
        // Unless all of them have it.
        assert!(matches!(after.difference(&here), Some("NoNewPrivs") | None));
    }
}
