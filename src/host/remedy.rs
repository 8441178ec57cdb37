//! How a ceiling is raised: commands that can be pasted, with their numbers. What is not
//! a command is a comment of the shell, so that a line can be pasted unread.

use serde::{Deserialize, Serialize};

/// How a ceiling is raised.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remedy {
    /// A command that raises it now, as root types it; advice is a comment.
    pub now: String,
    /// What keeps it raised: a line for a file, behind the name of that file.
    pub persistent: String,
    /// Whether that takes root (CAP_SYS_RESOURCE, CAP_SYS_ADMIN or CAP_NET_ADMIN).
    pub needs_root: bool,
    /// The same as lines, each for one place; empty where there is only advice.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<Line>,
}

/// A line that raises a ceiling, and where it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Where.
    pub place: Place,
    /// What.
    pub text: String,
}

/// A place that lines are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A shell: at once, until the next boot or the end of the process.
    Shell,
    /// A file of sysctl.d(5).
    SysctlD,
    /// The `[Service]` section of a systemd unit.
    SystemdUnit,
    /// A file of limits.conf(5): for logins.
    LimitsConf,
}

impl Place {
    /// Every place, in the order in which they are shown.
    pub const ALL: [Self; 4] =
        [Self::Shell, Self::SysctlD, Self::SystemdUnit, Self::LimitsConf];

    /// What a person calls it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Shell => "now, in a shell",
            Self::SysctlD => "for good, in /etc/sysctl.d/90-connections.conf",
            Self::SystemdUnit => "for good, [Service] of a systemd unit",
            Self::LimitsConf => "for logins, in /etc/security/limits.d/90-nofile.conf",
        }
    }
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

fn line(place: Place, text: impl Into<String>) -> Line {
    Line { place, text: text.into() }
}

/// What can be advised, and not typed.
#[must_use]
pub fn advice(now: &str, persistent: impl Into<String>) -> Remedy {
    Remedy { now: advised(now), persistent: persistent.into(), ..Remedy::default() }
}

impl Remedy {
    /// What raises it now, as a user types it.
    #[must_use]
    pub fn typed(&self) -> String {
        if self.needs_root { by_sudo(&self.now) } else { self.now.clone() }
    }
}

/// Advice as a line of a shell: a comment.
#[must_use]
pub fn advised(advice: impl std::fmt::Display) -> String {
    format!("# {advice}")
}

/// A command with what is to be known of it; advice and commands that have a comment
/// already keep it behind the new one.
#[must_use]
pub fn noted(command: &str, note: &str) -> String {
    if let Some(advice) = command.strip_prefix("# ") {
        return format!("# {note}: {advice}");
    }
    match command.split_once(COMMENT) {
        Some((command, more)) => format!("{command}{COMMENT}{note}: {more}"),
        None => format!("{command}{COMMENT}{note}"),
    }
}

/// What stands between a command and its comment.
const COMMENT: &str = "  # ";

/// A command of root's as another user types it. What is redirected into a file is
/// written there by tee(1), for the shell is the user's.
#[must_use]
pub fn by_sudo(command: &str) -> String {
    if command.starts_with('#') {
        return command.to_owned();
    }
    if let Some((echo, file)) = command.split_once(" > ")
        && echo.starts_with("echo ")
    {
        return format!("{echo} | sudo tee {file}");
    }
    let each = command.split(" && ").map(|one| format!("sudo {one}"));
    each.collect::<Vec<_>>().join(" && ")
}

/// Why a line is not one to be pasted: the shell's own word, or that it begins with what
/// is no command of any remedy.
#[cfg(test)]
pub(crate) fn unpasteable(line: &str) -> Option<String> {
    const COMMANDS: [&str; 18] = [
        "cat",
        "echo",
        "ip",
        "journalctl",
        "kill",
        "namei",
        "nft",
        "prlimit",
        "sockscope",
        "ss",
        "strace",
        "sudo",
        "sysctl",
        "systemctl",
        "ulimit",
        "dmesg",
        "ls",
        "#",
    ];
    let word = line.split([' ', ';']).next().unwrap_or_default();
    if !COMMANDS.contains(&word) {
        return Some(format!("{word:?} is no command: {line}"));
    }
    if line.contains('\n') || line.contains("(root)") {
        return Some(format!("not one line for everybody: {line}"));
    }
    let checked = std::process::Command::new("sh").args(["-n", "-c", line]).output();
    let checked = checked.expect("sh");
    let fails = !checked.status.success();
    fails.then(|| format!("{line}: {}", String::from_utf8_lossy(&checked.stderr)))
}

/// Setting a sysctl; `value` may be several numbers.
#[must_use]
pub fn sysctl(name: &str, value: &str) -> Remedy {
    let quoted =
        if value.contains(' ') { format!("\"{value}\"") } else { value.to_owned() };
    let now = format!("sysctl -w {name}={quoted}");
    let set = format!("{name} = {value}");
    Remedy {
        persistent: format!("{SYSCTL_FILE}: {set}"),
        needs_root: true,
        lines: vec![line(Place::Shell, &*now), line(Place::SysctlD, set)],
        now,
    }
}

/// Raising RLIMIT_NOFILE of a running process, both soft and hard. Where fs.nr_open is
/// lower, it has to be raised first.
#[must_use]
pub fn nofile_of(pid: u32, to: u64, hard: u64, nr_open: Option<u64>) -> Remedy {
    let set = format!("prlimit --pid {pid} --nofile={to}:{}", to.max(hard));
    Remedy {
        persistent: format!("LimitNOFILE={to}"),
        needs_root: to > hard,
        ..nofile(set, to, "-", nr_open)
    }
}

/// Raising the soft RLIMIT_NOFILE of this shell; `to` is at most the hard one.
#[must_use]
pub fn nofile_soft_here(to: u64) -> Remedy {
    // Without -S a shell lowers the hard limit to the same.
    let set = format!("ulimit -Sn {to}");
    Remedy {
        persistent: format!("{LIMITS_FILE}: * soft nofile {to}"),
        ..nofile(set, to, "soft", None)
    }
}

/// Raising RLIMIT_NOFILE of this shell above its hard limit.
#[must_use]
pub fn nofile_hard_here(to: u64, nr_open: Option<u64>) -> Remedy {
    Remedy {
        persistent: format!("{LIMITS_FILE}: * - nofile {to}"),
        needs_root: true,
        ..nofile(format!("prlimit --pid $$ --nofile={to}:{to}"), to, "-", nr_open)
    }
}

/// The lines that raise RLIMIT_NOFILE, by `set` now. A higher one than fs.nr_open is
/// refused, even to root.
fn nofile(set: String, to: u64, kind: &str, nr_open: Option<u64>) -> Remedy {
    let first = nr_open.filter(|&nr_open| nr_open < to);
    let first = first.map(|_| sysctl("fs.nr_open", &to.to_string()));
    let mut now = set.clone();
    let mut lines = Vec::new();
    if let Some(first) = first {
        now = format!("{} && {set}", first.now);
        lines.extend(first.lines);
    }
    lines.extend([
        line(Place::Shell, set),
        line(Place::SystemdUnit, format!("LimitNOFILE={to}")),
        line(Place::LimitsConf, format!("* {kind} nofile {to}")),
    ]);
    Remedy { now, lines, ..Remedy::default() }
}

/// Raising a limit of a cgroup: its file, and the property of a systemd unit that sets
/// it (systemd.resource-control(5)), empty where there is none.
#[must_use]
pub fn cgroup(file: &str, property: &str, to: u64) -> Remedy {
    let now = format!("echo {to} > {}", shell_word(file));
    let mut lines = vec![line(Place::Shell, &*now)];
    let mut persistent = String::new();
    if !property.is_empty() {
        persistent = format!("{property}={to}");
        lines.push(line(Place::SystemdUnit, &*persistent));
    }
    Remedy { lines, persistent, needs_root: true, now }
}

/// A path as one word of a shell.
fn shell_word(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-@:+,=".contains(c);
    match path.chars().all(plain) {
        true => path.to_owned(),
        false => format!("'{}'", path.replace('\'', "'\\''")),
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
        let lines: Vec<(Place, &str)> =
            remedy.lines.iter().map(|line| (line.place, &*line.text)).collect();
        let expected = [
            (Place::Shell, "sysctl -w fs.nr_open=2000896"),
            (Place::SysctlD, "fs.nr_open = 2000896"),
            (Place::Shell, "prlimit --pid $$ --nofile=2000896:2000896"),
            (Place::SystemdUnit, "LimitNOFILE=2000896"),
            (Place::LimitsConf, "* - nofile 2000896"),
        ];
        assert_eq!(lines, expected);
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
    fn the_soft_limit_is_raised_without_lowering_the_hard_one() {
        let remedy = nofile_soft_here(20_000);
        assert_eq!(remedy.now, "ulimit -Sn 20000");
        assert!(!remedy.needs_root);
    }

    #[test]
    fn a_cgroup_of_any_name_is_one_word_of_the_shell() {
        let plain = cgroup("/sys/fs/cgroup/a.slice/memory.max", "MemoryMax", 4096);
        assert_eq!(plain.now, "echo 4096 > /sys/fs/cgroup/a.slice/memory.max");
        let odd = cgroup("/sys/fs/cgroup/it's $x/memory.max", "MemoryMax", 1);
        assert_eq!(odd.now, "echo 1 > '/sys/fs/cgroup/it'\\''s $x/memory.max'");
    }

    #[test]
    fn every_line_can_be_pasted_by_root_and_by_others() {
        let all = [
            nofile_of(4711, 65_536, 20_000, Some(1_048_576)),
            nofile_hard_here(2_000_896, Some(1_048_576)),
            nofile_soft_here(20_000),
            sysctl("net.ipv4.ip_local_port_range", "1024 65535"),
            cgroup("/sys/fs/cgroup/it's $x/memory.max", "MemoryMax", 1),
            advice("it's more memory (or less)", ""),
        ];
        for line in all.iter().flat_map(|remedy| [remedy.now.clone(), remedy.typed()]) {
            assert_eq!(unpasteable(&line), None);
        }
        for prose in ["see why: dmesg", "sysctl -w a=1 (root)", "sudo echo it's"] {
            assert!(unpasteable(prose).is_some(), "{prose}");
        }
    }

    #[test]
    fn sudo_reaches_every_part_of_a_command() {
        assert_eq!(by_sudo("sysctl -w a=1"), "sudo sysctl -w a=1");
        assert_eq!(by_sudo("echo 1 > /a/b"), "echo 1 | sudo tee /a/b");
        let both = "sysctl -w fs.nr_open=9 && prlimit --pid $$ --nofile=9:9";
        let typed = "sudo sysctl -w fs.nr_open=9 && sudo prlimit --pid $$ --nofile=9:9";
        assert_eq!(by_sudo(both), typed);
        assert_eq!(by_sudo("# advice"), "# advice");
    }

    #[test]
    fn a_note_is_a_comment_before_any_other() {
        assert_eq!(noted("ss -tln", "there"), "ss -tln  # there");
        assert_eq!(noted("ss -tln  # a queue", "there"), "ss -tln  # there: a queue");
        assert_eq!(noted("# look", "there"), "# there: look");
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
