//! What has to change before a number of connections fits, and what they will cost.

use serde::{Deserialize, Serialize};

use super::ceilings::{
    Bounds, CGROUP_MEMORY, CONNTRACK, Ceiling, CeilingQuery, END_BYTES, EPOLL_WATCHES,
    FILE_MAX, MEMORY, NOFILE_HARD, NOFILE_SOFT, NR_OPEN, PORT_RANGE, PORTS_BOUND, Side,
    Survey,
};
use super::remedy::{Line, Place};

/// The answer to `--need`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Need {
    /// Connections wanted, beyond those that are open now.
    pub n: u64,
    /// Whether they fit. False too where a ceiling that could stop them is not known.
    pub fits: bool,
    /// The ceilings under `n`, the tightest first.
    pub short: Vec<Short>,
    /// Ceilings that could stop them and could not be read.
    pub unknown: Vec<String>,
    /// What is to be set, each line once.
    pub lines: Vec<Line>,
    /// Kernel memory that they take, idle.
    pub memory_bytes: MemoryNeed,
    /// Hosts like this one that have the memory for them, each with its share; null where
    /// its memory is not known.
    pub hosts: Option<u64>,
    /// Source addresses that they need towards so many destinations as were named; null
    /// where no end that dials is asked about.
    pub source_addresses: Option<u64>,
    /// Destination ports, as `source_addresses`.
    pub destination_ports: Option<u64>,
}

/// A ceiling that is too low.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Short {
    /// Its name.
    pub name: String,
    /// How many fit.
    pub room: u64,
    /// At whose end.
    pub side: Side,
}

/// Kernel memory of idle connections, at each end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryNeed {
    /// At the end that dials, in bytes.
    pub client: u64,
    /// At the end that accepts.
    pub server: u64,
    /// Of one end of one connection.
    pub end: u64,
    /// Whether that was measured on this kernel, now; else it is the documented figure.
    pub measured: bool,
}

/// Whether `n` more connections fit, by a survey that was made with the same query.
/// `with_threads`: the server has a thread or a process for each connection.
#[must_use]
pub fn need(
    n: u64,
    survey: &Survey,
    query: &CeilingQuery<'_>,
    with_threads: bool,
) -> Need {
    let mut short: Vec<&Ceiling> = survey
        .ceilings
        .iter()
        .filter(|c| counts(c, with_threads) && c.room < n)
        .collect();
    short.sort_by_key(|ceiling| ceiling.room);
    let unknown: Vec<String> = survey
        .unread
        .iter()
        .filter(|unread| !unread.absent && decides(&unread.name, query))
        .map(|unread| unread.name.clone())
        .collect();
    let end = query.end_bytes.unwrap_or(END_BYTES);
    let per_end = n.saturating_mul(end);
    let find = |name| survey.ceilings.iter().find(|ceiling| ceiling.name == name);
    let ports = find(PORTS_BOUND);
    Need {
        n,
        fits: short.is_empty() && unknown.is_empty(),
        lines: lines_of(&short),
        short: short
            .iter()
            .map(|c| Short { name: c.name.clone(), room: c.room, side: c.side })
            .collect(),
        unknown,
        memory_bytes: MemoryNeed {
            client: per_end,
            server: per_end,
            end,
            measured: query.end_bytes.is_some(),
        },
        hosts: find(MEMORY).filter(|m| m.room > 0).map(|memory| n.div_ceil(memory.room)),
        source_addresses: ports.map(|ports| multiple(n, ports, query.sources)),
        destination_ports: ports.map(|ports| multiple(n, ports, query.destinations)),
    }
}

/// Whether a ceiling bounds connections held. `with_threads`: the server has a thread or
/// a process for each.
#[must_use]
pub fn counts(ceiling: &Ceiling, with_threads: bool) -> bool {
    match ceiling.bounds {
        Bounds::Connections => true,
        Bounds::Threads => with_threads,
        _ => false,
    }
}

/// Whether a ceiling that could not be read could stop connections.
fn decides(name: &str, query: &CeilingQuery<'_>) -> bool {
    let of_clients = [PORT_RANGE, PORTS_BOUND];
    let of_all = [
        NOFILE_SOFT,
        NOFILE_HARD,
        NR_OPEN,
        FILE_MAX,
        CONNTRACK,
        MEMORY,
        CGROUP_MEMORY,
        EPOLL_WATCHES,
    ];
    of_all.contains(&name) || (of_clients.contains(&name) && query.side != Side::Server)
}

/// How many there must be of what is `now` there, so that the ports do.
fn multiple(n: u64, ports: &Ceiling, now: u64) -> u64 {
    let each = (ports.value / now.max(1)).max(1);
    n.saturating_add(ports.in_use.unwrap_or(0)).div_ceil(each)
}

/// Every line once, and of one sysctl or limit of each place only the highest.
fn lines_of(short: &[&Ceiling]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let in_place = |place| {
        short
            .iter()
            .flat_map(|ceiling| &ceiling.remedy.lines)
            .filter(move |line| line.place == place)
    };
    for line in Place::ALL.into_iter().flat_map(in_place) {
        if !lines.contains(line) {
            lines.push(line.clone());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ProcRoot;
    use crate::host::ceilings::survey;
    use crate::testing::tree;

    const LIMITS: &str = "Limit  Soft Limit  Hard Limit  Units\n\
        Max open files            1024                 20000                files     \n";
    const STAT: &str = "4711 (api) S 1 4711 4711 0 -1 4194560 1 0 0 0 0 0 0 0 20 \
        0 7 0 99887 1 1 18446744073709551615 1 1 1 1 1 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 \
        0 0 0 0 0 0\n";

    fn host(memory: &str) -> (tempfile::TempDir, ProcRoot) {
        let real = std::fs::read_to_string("/proc/self/limits").unwrap();
        let limits = real.lines().fold(String::new(), |text, line| {
            let ours = LIMITS.lines().nth(1).unwrap();
            let line = if line.starts_with("Max open files") { ours } else { line };
            text + line + "\n"
        });
        tree(&[
            ("4711/stat", STAT),
            ("4711/status", "Name:\tapi\nUid:\t0\t104\t0\t0\n"),
            ("4711/limits", &limits),
            ("4711/fd/0", ""),
            ("sys/fs/nr_open", "1048576\n"),
            ("sys/fs/file-nr", "2186\t0\t2466186\n"),
            ("sys/fs/epoll/max_user_watches", "99999999\n"),
            ("sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("sys/net/ipv4/ip_local_reserved_ports", "\n"),
            ("sys/net/core/somaxconn", "4096\n"),
            ("meminfo", memory),
            ("self/mountinfo", ""),
            ("4711/cgroup", "1:name=systemd:/\n"),
        ])
    }

    fn asked(n: u64, memory: &str, query: &CeilingQuery<'_>) -> Need {
        let (_tree, root) = host(memory);
        let process = crate::host::process::view(&root, 4711, 4711).unwrap();
        let query =
            CeilingQuery { process: Some(&process), need: Some(n), ..query.clone() };
        need(n, &survey(&root, &query), &query, false)
    }

    const MUCH: &str = "MemTotal: 99000000 kB\nMemAvailable: 98000000 kB\nSlab: 1 kB\n";

    fn texts(need: &Need, place: Place) -> Vec<&str> {
        let lines = need.lines.iter().filter(|line| line.place == place);
        lines.map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn what_fits_needs_no_line() {
        let query = CeilingQuery { side: Side::Server, ..CeilingQuery::default() };
        let need = asked(1_000, MUCH, &query);
        assert!(need.fits && need.short.is_empty() && need.lines.is_empty(), "{need:?}");
        assert_eq!((need.hosts, need.source_addresses), (Some(1), None));
        assert_eq!(need.memory_bytes.server, 4_800_000);
    }

    #[test]
    fn a_soft_limit_is_raised_within_the_hard_one_and_beyond_it() {
        let query = CeilingQuery {
            side: Side::Server,
            is_shell: true,
            ..CeilingQuery::default()
        };
        let within = asked(10_000, MUCH, &query);
        assert_eq!(texts(&within, Place::Shell), ["ulimit -Sn 10240"]);
        assert_eq!(texts(&within, Place::SystemdUnit), ["LimitNOFILE=10240"]);
        let beyond = asked(50_000, MUCH, &query);
        let set = "prlimit --pid $$ --nofile=50176:50176";
        assert_eq!(texts(&beyond, Place::Shell), [set]);
        let names: Vec<&str> = beyond.short.iter().map(|s| &*s.name).collect();
        assert_eq!(names, [NOFILE_SOFT, NOFILE_HARD]);
        let far = asked(2_000_000, MUCH, &query);
        let set = "prlimit --pid $$ --nofile=2000896:2000896";
        assert_eq!(texts(&far, Place::Shell), ["sysctl -w fs.nr_open=2000896", set]);
        assert_eq!(texts(&far, Place::SysctlD), ["fs.nr_open = 2000896"]);
        assert_eq!(texts(&far, Place::LimitsConf), ["* - nofile 2000896"]);
    }

    #[test]
    fn past_one_machine_it_says_how_many_hosts_and_addresses() {
        let little = "MemTotal: 2000000 kB\nMemAvailable: 960000 kB\nSlab: 1 kB\n";
        let query = CeilingQuery { side: Side::Client, ..CeilingQuery::default() };
        let need = asked(1_000_000, little, &query);
        assert!(!need.fits);
        // 204,800 ends fit into 960,000 kB.
        assert_eq!(need.hosts, Some(5));
        // 64,511 ports for each address.
        assert_eq!(need.source_addresses, Some(16));
        assert_eq!(need.destination_ports, Some(16));
        let two = CeilingQuery { destinations: 2, ..query };
        let need = asked(1_000_000, little, &two);
        assert_eq!((need.source_addresses, need.destination_ports), (Some(8), Some(16)));
    }

    #[test]
    fn what_is_not_known_does_not_fit() {
        let (_tree, root) = host(MUCH);
        let query = CeilingQuery {
            hidden_process: Some("not permitted (uid 104)"),
            side: Side::Server,
            need: Some(10),
            ..CeilingQuery::default()
        };
        let need = need(10, &survey(&root, &query), &query, false);
        assert!(!need.fits && need.short.is_empty());
        assert_eq!(need.unknown, [NOFILE_SOFT, NOFILE_HARD, CGROUP_MEMORY]);
    }

    #[test]
    fn a_measured_cost_takes_the_place_of_the_documented() {
        let query = CeilingQuery {
            side: Side::Server,
            end_bytes: Some(10_000),
            ..CeilingQuery::default()
        };
        let need = asked(100, MUCH, &query);
        assert_eq!((need.memory_bytes.end, need.memory_bytes.measured), (10_000, true));
        assert_eq!(need.memory_bytes.client, 1_000_000);
    }
}
