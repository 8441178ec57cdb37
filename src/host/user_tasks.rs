//! RLIMIT_NPROC (getrlimit(2)): how many threads and processes the user of a process may
//! run, in all.

use std::fs;

use super::ProcRoot;
use super::process::{UNLIMITED, limit_of};
use super::text::field;

/// What a process's user runs, and may run by that process's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserTasks {
    /// The process.
    pub pid: u32,
    /// Its real user id.
    pub uid: u32,
    /// Its RLIMIT_NPROC, soft: with so many running it can start no more.
    pub limit: u64,
    /// Its RLIMIT_NPROC, hard; [`UNLIMITED`] where there is none.
    pub hard: u64,
    /// Threads of all processes of that user, as far as they are seen from here.
    pub used: u64,
}

/// CAP_SYS_ADMIN and CAP_SYS_RESOURCE (linux/capability.h): with one of these the limit
/// does not bind (kernel/fork.c).
const EXEMPT: u64 = 1 << 21 | 1 << 24;

impl UserTasks {
    /// Reads them, 10 µs for each process of the host; None where the limit does not bind,
    /// or cannot be read.
    #[must_use]
    pub fn of(root: &ProcRoot, pid: u32) -> Option<Self> {
        let limits = root.read(&format!("{pid}/limits")).ok()?;
        let (limit, hard) =
            limit_of(limits.as_bytes(), |limits| limits.max_processes).ok()?;
        let status = root.read(&format!("{pid}/status")).ok()?;
        let uid = real_uid(&status).filter(|uid| *uid != 0)?;
        let may = u64::from_str_radix(field(&status, "CapEff")?.trim(), 16).ok()?;
        if limit == UNLIMITED || may & EXEMPT != 0 {
            return None;
        }
        let used = fs::read_dir(root.as_path())
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .filter_map(|pid| root.read(&format!("{pid}/status")).ok())
            .filter(|status| real_uid(status) == Some(uid))
            .filter_map(|status| field(&status, "Threads")?.trim().parse::<u64>().ok())
            .sum();
        Some(Self { pid, uid, limit, hard, used })
    }
}

fn real_uid(status: &str) -> Option<u32> {
    field(status, "Uid")?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree;

    fn status(uid: u32, threads: u32, capabilities: &str) -> String {
        format!(
            "Name:\tx\nUid:\t{uid}\t0\t0\t0\nThreads:\t{threads}\nCapEff:\t{capabilities}\n"
        )
    }

    #[test]
    fn the_threads_of_all_processes_of_the_user_count() {
        let real = fs::read_to_string("/proc/self/limits").unwrap();
        let limits = real.lines().fold(String::new(), |text, line| {
            let bound = line.starts_with("Max processes");
            let own =
                "Max processes             40                   unlimited  processes";
            text + if bound { own } else { line } + "\n"
        });
        let none = "0000000000000000";
        let of = |uid, capabilities: &str| {
            let (_tree, root) = tree(&[
                ("7/limits", &limits),
                ("7/status", &status(uid, 3, capabilities)),
                ("8/status", &status(33, 4, none)),
                ("9/status", &status(34, 5, none)),
            ]);
            UserTasks::of(&root, 7)
        };
        let expected = UserTasks { pid: 7, uid: 33, limit: 40, hard: UNLIMITED, used: 7 };
        assert_eq!(of(33, none), Some(expected));
        assert_eq!(of(0, none), None, "root is not bound");
        assert_eq!(of(33, "0000000001000000"), None, "CAP_SYS_RESOURCE");
    }
}
