//! How a ceiling is raised: commands that can be pasted, with their numbers.

use serde::{Deserialize, Serialize};

/// How a ceiling is raised.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remedy {
    /// A command that raises it now.
    pub now: String,
    /// What keeps it raised: a line for a file, behind the name of that file.
    pub persistent: String,
    /// Whether that takes root (CAP_SYS_RESOURCE, CAP_SYS_ADMIN or CAP_NET_ADMIN).
    pub needs_root: bool,
}

/// Where a persistent sysctl is put (sysctl.d(5)).
const SYSCTL_FILE: &str = "/etc/sysctl.d/90-connections.conf";
/// Where a persistent limit of a login is put (limits.conf(5)).
const LIMITS_FILE: &str = "/etc/security/limits.d/90-nofile.conf";
/// The least that a limit is raised to where nobody said how much is needed.
const LEAST: u64 = 65_536;

/// The number that a ceiling should be raised to: room for `need` on top of what is in
/// use, or twice what it is.
#[must_use]
pub fn raised(value: u64, in_use: u64, need: Option<u64>) -> u64 {
    const SLACK: u64 = 64;
    let least = match need {
        Some(need) => in_use.saturating_add(need).saturating_add(SLACK).max(value),
        None => {
            let twice = value.saturating_mul(2).max(LEAST);
            return twice.checked_next_power_of_two().unwrap_or(value);
        }
    };
    least.checked_next_multiple_of(1024).unwrap_or(least)
}

/// Setting a sysctl; `value` may be several numbers.
#[must_use]
pub fn sysctl(name: &str, value: &str) -> Remedy {
    let quoted =
        if value.contains(' ') { format!("\"{value}\"") } else { value.to_owned() };
    Remedy {
        now: format!("sysctl -w {name}={quoted}"),
        persistent: format!("{SYSCTL_FILE}: {name} = {value}"),
        needs_root: true,
    }
}

/// Raising RLIMIT_NOFILE of a running process, both soft and hard. Where fs.nr_open is
/// lower, it has to be raised first.
#[must_use]
pub fn nofile_of(pid: u32, to: u64, hard: u64, nr_open: Option<u64>) -> Remedy {
    Remedy {
        now: format!(
            "{}prlimit --pid {pid} --nofile={to}:{}",
            first_nr_open(to, nr_open),
            to.max(hard)
        ),
        persistent: format!("LimitNOFILE={to}"),
        needs_root: to > hard,
    }
}

/// Raising the soft RLIMIT_NOFILE of this shell; `to` is at most the hard one.
#[must_use]
pub fn nofile_soft_here(to: u64) -> Remedy {
    Remedy {
        now: format!("ulimit -n {to}"),
        persistent: format!("{LIMITS_FILE}: * soft nofile {to}"),
        needs_root: false,
    }
}

/// Raising RLIMIT_NOFILE of this shell above its hard limit.
#[must_use]
pub fn nofile_hard_here(to: u64, nr_open: Option<u64>) -> Remedy {
    Remedy {
        now: format!("{}prlimit --pid $$ --nofile={to}:{to}", first_nr_open(to, nr_open)),
        persistent: format!("{LIMITS_FILE}: * - nofile {to}"),
        needs_root: true,
    }
}

/// A higher RLIMIT_NOFILE than fs.nr_open is refused, even to root.
fn first_nr_open(to: u64, nr_open: Option<u64>) -> String {
    match nr_open {
        Some(nr_open) if nr_open < to => format!("sysctl -w fs.nr_open={to} && "),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_filled_in() {
        let remedy = nofile_of(4711, 65_536, 20_000, Some(1_048_576));
        assert_eq!(remedy.now, "prlimit --pid 4711 --nofile=65536:65536");
        assert_eq!(remedy.persistent, "LimitNOFILE=65536");
        assert!(remedy.needs_root);
        let remedy = nofile_of(4711, 20_000, 30_000, None);
        assert_eq!(remedy.now, "prlimit --pid 4711 --nofile=20000:30000");
        assert!(!remedy.needs_root, "the hard limit is not touched");
    }

    #[test]
    fn a_limit_above_nr_open_raises_that_first() {
        let remedy = nofile_hard_here(2_000_896, Some(1_048_576));
        assert_eq!(
            remedy.now,
            "sysctl -w fs.nr_open=2000896 && prlimit --pid $$ --nofile=2000896:2000896"
        );
    }

    #[test]
    fn several_numbers_are_quoted_for_the_shell_alone() {
        let remedy = sysctl("net.ipv4.ip_local_port_range", "1024 65535");
        assert_eq!(remedy.now, "sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"");
        assert!(
            remedy.persistent.ends_with(": net.ipv4.ip_local_port_range = 1024 65535")
        );
    }

    #[test]
    fn without_a_need_a_ceiling_is_doubled() {
        assert_eq!(raised(20_000, 0, None), 65_536);
        assert_eq!(raised(65_536, 0, None), 131_072);
        assert_eq!(raised(1_024, 12, Some(100_000)), 100_352);
    }

    proptest! {
        #[test]
        fn a_raised_ceiling_is_no_lower(
            value: u64,
            in_use: u64,
            need: Option<u64>,
        ) {
            prop_assert!(raised(value, in_use, need) >= value);
        }
    }
}
