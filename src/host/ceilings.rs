//! What bounds connections on this host, and how far each bound still is.

use serde::{Deserialize, Serialize};

use super::process::{ProcessView, own_view};
use super::remedy::{self, Remedy, raised};
use super::{ProcRoot, conntrack, files, memory, sysctl};

/// Kernel memory of one TCP connection with both ends on this host, as measured.
pub const PAIR_BYTES: u64 = 9_500;
/// Kernel memory of one end of a TCP connection, as measured.
pub const END_BYTES: u64 = 4_800;

/// The soft limit of descriptors.
pub const NOFILE_SOFT: &str = "RLIMIT_NOFILE soft";
/// The hard limit of descriptors.
pub const NOFILE_HARD: &str = "RLIMIT_NOFILE hard";
/// The highest limit of descriptors that can be set.
pub const NR_OPEN: &str = "fs.nr_open";
/// Open files of the whole machine.
pub const FILE_MAX: &str = "fs.file-max";
/// The source ports that the kernel picks from.
pub const PORT_RANGE: &str = "ip_local_port_range";
/// The source ports that a program can bind by itself without rights.
pub const PORTS_BOUND: &str = "source ports bound";
/// Connections complete and not yet accepted, for each listener.
pub const SOMAXCONN: &str = "net.core.somaxconn";
/// Connections that netfilter tracks.
pub const CONNTRACK: &str = "nf_conntrack_max";
/// Memory of the machine.
pub const MEMORY: &str = "memory";

/// The first port that needs no right to bind.
const FIRST_PORT: u16 = 1024;

/// A limit on connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceiling {
    /// Its name: one of the constants of this module.
    pub name: String,
    /// Where it lies, in `unit`.
    pub value: u64,
    /// How much of it is taken, in `unit`.
    pub in_use: u64,
    /// What `value` and `in_use` count.
    pub unit: Unit,
    /// How many more connections fit under it.
    pub room: u64,
    /// What it bounds.
    pub bounds: Bounds,
    /// At whose end it binds.
    pub side: Side,
    /// Where it was read.
    pub source: String,
    /// How it is raised.
    pub remedy: Remedy,
}

/// What a ceiling counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Things: descriptors, ports, entries.
    Count,
    /// Bytes.
    Bytes,
}

/// What a ceiling bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bounds {
    /// Connections held.
    Connections,
    /// Connections that nobody has accepted yet: it limits bursts, not what is held.
    AcceptQueue,
}

/// At whose end a ceiling binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The end that dials.
    Client,
    /// The end that accepts.
    Server,
    /// Whichever end is on this host, or in this process.
    Either,
    /// Both ends are on this host, and each counts.
    Both,
}

/// For what ceilings are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CeilingQuery<'a> {
    /// Whose descriptors; this process's without one.
    pub process: Option<&'a ProcessView>,
    /// Which end that process has.
    pub side: Side,
    /// fd tables that it spreads its sockets over; each has the whole limit.
    pub fd_tables: u64,
    /// Whether both ends are on this host.
    pub loopback: bool,
    /// Source addresses that the client has.
    pub sources: u64,
    /// Destinations (address and port) that it dials.
    pub destinations: u64,
    /// Source ports that are taken already, towards all of them.
    pub ports_in_use: u64,
    /// How many more connections are wanted, for the numbers of the remedies.
    pub need: Option<u64>,
}

impl Default for CeilingQuery<'_> {
    /// This process, with one source address and one destination elsewhere.
    fn default() -> Self {
        Self {
            process: None,
            side: Side::Either,
            fd_tables: 1,
            loopback: false,
            sources: 1,
            destinations: 1,
            ports_in_use: 0,
            need: None,
        }
    }
}

/// Every ceiling on connections that can be read, the tightest first; those of the
/// accept queue come last. sysctls of the network are those of the calling thread's
/// namespace.
#[must_use]
pub fn ceilings(root: &ProcRoot, query: &CeilingQuery<'_>) -> Vec<Ceiling> {
    let mut all = descriptors(root, query);
    all.extend(files_of_all(root, query));
    all.extend(ports(root, query));
    all.extend(tracked(root, query));
    all.extend(memory_of_all(root, query));
    all.extend(queue(root));
    all.sort_by_key(|ceiling| (ceiling.bounds, ceiling.room));
    all
}

/// The ceiling that binds first, of what [`ceilings`] gave.
#[must_use]
pub fn binding(ceilings: &[Ceiling]) -> Option<&Ceiling> {
    let held = ceilings.iter().filter(|ceiling| ceiling.bounds == Bounds::Connections);
    held.min_by_key(|ceiling| ceiling.room)
}

/// A ceiling whose every connection takes one.
fn counted(name: &str, value: u64, in_use: u64) -> Ceiling {
    Ceiling {
        name: name.to_owned(),
        value,
        in_use,
        unit: Unit::Count,
        room: value.saturating_sub(in_use),
        bounds: Bounds::Connections,
        side: Side::Either,
        source: String::new(),
        remedy: Remedy::default(),
    }
}

/// RLIMIT_NOFILE and fs.nr_open.
fn descriptors(root: &ProcRoot, query: &CeilingQuery<'_>) -> Vec<Ceiling> {
    let own = if query.process.is_none() { own_view(root).ok() } else { None };
    let Some(process) = query.process.or(own.as_ref()) else {
        return Vec::new();
    };
    let pid = process.pid;
    let in_use = process.open_fds.unwrap_or(0);
    let nr_open = files::nr_open(root).ok();
    let need = query.need.map(|need| need.div_ceil(query.fd_tables.max(1)));
    let ceiling = |name, value, source: &str, remedy| {
        let one_table = counted(name, value, in_use);
        Ceiling {
            room: one_table.room.saturating_mul(query.fd_tables),
            side: query.side,
            source: root.path(source).display().to_string(),
            remedy,
            ..one_table
        }
    };
    let limits = format!("{pid}/limits");
    let mut all = Vec::new();
    if let (Some(soft), Some(hard)) = (process.nofile_soft, process.nofile_hard) {
        let to = raised(soft, in_use, need);
        let here = pid == std::process::id();
        let remedy = match (here, soft < hard) {
            (true, true) => remedy::nofile_soft_here(to.min(hard)),
            (true, false) => remedy::nofile_hard_here(to, nr_open),
            (false, _) => remedy::nofile_of(pid, to, hard, nr_open),
        };
        all.push(ceiling(NOFILE_SOFT, soft, &limits, remedy));
        let to = raised(hard, in_use, need);
        let remedy = if here {
            remedy::nofile_hard_here(to, nr_open)
        } else {
            remedy::nofile_of(pid, to, hard, nr_open)
        };
        all.push(ceiling(NOFILE_HARD, hard, &limits, remedy));
    }
    if let Some(value) = nr_open {
        let to = raised(value, in_use, need).to_string();
        let remedy = remedy::sysctl("fs.nr_open", &to);
        all.push(ceiling(NR_OPEN, value, "sys/fs/nr_open", remedy));
    }
    all
}

/// fs.file-max, against which both ends of a loopback connection count.
fn files_of_all(root: &ProcRoot, query: &CeilingQuery<'_>) -> Option<Ceiling> {
    let files = files::file_nr(root).ok()?;
    let each = ends(query);
    let need = query.need.map(|need| need.saturating_mul(each));
    let all = counted(FILE_MAX, files.max, files.allocated);
    Some(Ceiling {
        room: all.room / each,
        side: side_of_host(query),
        source: format!("{} (root is exempt)", root.path("sys/fs/file-nr").display()),
        remedy: remedy::sysctl(
            "fs.file-max",
            &raised(files.max, files.allocated, need).to_string(),
        ),
        ..all
    })
}

/// Source ports: those that the kernel picks from, and those that can be bound.
fn ports(root: &ProcRoot, query: &CeilingQuery<'_>) -> Vec<Ceiling> {
    let reserved = sysctl::reserved_ports(root).unwrap_or_default();
    let pairs = query.sources.saturating_mul(query.destinations);
    let within = |low: u16, high: u16| {
        (u64::from(high - low) + 1).saturating_sub(reserved.count_within(low, high))
    };
    let ceiling = |name, each: u64, source: &str, remedy| Ceiling {
        side: Side::Client,
        source: root.path(source).display().to_string(),
        remedy,
        ..counted(name, each.saturating_mul(pairs), query.ports_in_use)
    };
    // One is the target's own: from there it would dial itself.
    let each = within(FIRST_PORT, u16::MAX).saturating_sub(1);
    let short = query.need.map_or(2, |need| {
        let taken = need.saturating_add(query.ports_in_use);
        taken.div_ceil(each.saturating_mul(query.destinations).max(1))
    });
    let more_sources = Remedy {
        now: format!("sockscope probe --source {}", source_block(short)),
        persistent: "more source addresses, or more destinations".to_owned(),
        needs_root: false,
    };
    let bound = "sys/net/ipv4/ip_local_reserved_ports";
    let mut all = vec![ceiling(PORTS_BOUND, each, bound, more_sources.clone())];
    if let Ok((low, high)) = sysctl::local_port_range(root) {
        let remedy = if (low, high) == (FIRST_PORT, u16::MAX) {
            more_sources
        } else {
            remedy::sysctl("net.ipv4.ip_local_port_range", "1024 65535")
        };
        let file = "sys/net/ipv4/ip_local_port_range";
        all.push(ceiling(PORT_RANGE, within(low, high), file, remedy));
    }
    all
}

/// The smallest block of loopback addresses that has `count` source addresses.
fn source_block(count: u64) -> String {
    // 127.1.0.0 on: apart from 127.0.0.1, where daemons listen.
    let bits = count.max(2).checked_next_power_of_two().map_or(16, u64::trailing_zeros);
    format!("127.1.0.0/{}", 32 - bits.min(16))
}

fn tracked(root: &ProcRoot, query: &CeilingQuery<'_>) -> Option<Ceiling> {
    let table = conntrack::conntrack(root).ok()??;
    let to = raised(table.max, table.count, query.need).to_string();
    Some(Ceiling {
        source: root.path("sys/net/netfilter/nf_conntrack_max").display().to_string(),
        remedy: remedy::sysctl("net.netfilter.nf_conntrack_max", &to),
        ..counted(CONNTRACK, table.max, table.count)
    })
}

fn memory_of_all(root: &ProcRoot, query: &CeilingQuery<'_>) -> Option<Ceiling> {
    let memory = memory::memory(root).ok()?;
    let each = if query.loopback { PAIR_BYTES } else { END_BYTES };
    Some(Ceiling {
        unit: Unit::Bytes,
        room: memory.available_bytes / each,
        side: side_of_host(query),
        source: format!(
            "{} MemAvailable, at {each} bytes a connection",
            root.path("meminfo").display()
        ),
        remedy: Remedy {
            now: "free memory, or spread the connections over more hosts".to_owned(),
            persistent: "more memory".to_owned(),
            needs_root: false,
        },
        ..counted(
            MEMORY,
            memory.total_bytes,
            memory.total_bytes.saturating_sub(memory.available_bytes),
        )
    })
}

fn queue(root: &ProcRoot) -> Option<Ceiling> {
    let value = sysctl::number(root, "net.core.somaxconn").ok()?;
    let to = raised(value, 0, None).to_string();
    Some(Ceiling {
        // The queue of a listener admits one more than its backlog.
        room: value.saturating_add(1),
        bounds: Bounds::AcceptQueue,
        side: Side::Server,
        source: root.path("sys/net/core/somaxconn").display().to_string(),
        remedy: remedy::sysctl("net.core.somaxconn", &to),
        ..counted(SOMAXCONN, value, 0)
    })
}

fn ends(query: &CeilingQuery<'_>) -> u64 {
    if query.loopback { 2 } else { 1 }
}

fn side_of_host(query: &CeilingQuery<'_>) -> Side {
    if query.loopback { Side::Both } else { Side::Either }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree;
    use std::path::Path;

    fn server() -> ProcessView {
        ProcessView {
            pid: 4711,
            tid: 4711,
            comm: "api".into(),
            state: 'S',
            uid: 104,
            threads: 1,
            nofile_soft: Some(20_000),
            nofile_hard: Some(20_000),
            open_fds: Some(7),
            started: 1,
        }
    }

    fn host() -> (tempfile::TempDir, ProcRoot) {
        tree(&[
            ("sys/fs/nr_open", "1048576\n"),
            ("sys/fs/file-nr", "2186\t0\t2466186\n"),
            ("sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("sys/net/ipv4/ip_local_reserved_ports", "8080,40000-40009\n"),
            ("sys/net/core/somaxconn", "4096\n"),
            ("sys/net/netfilter/nf_conntrack_count", "310\n"),
            ("sys/net/netfilter/nf_conntrack_max", "262144\n"),
            ("meminfo", "MemTotal: 2000 kB\nMemAvailable: 1000 kB\nSlab: 10 kB\n"),
        ])
    }

    fn find<'a>(all: &'a [Ceiling], name: &str) -> &'a Ceiling {
        all.iter().find(|ceiling| ceiling.name == name).unwrap()
    }

    #[test]
    fn the_tightest_comes_first_and_a_queue_bounds_no_connections() {
        let (_tree, root) = host();
        let server = server();
        let query = CeilingQuery {
            process: Some(&server),
            side: Side::Server,
            loopback: true,
            ..CeilingQuery::default()
        };
        let all = ceilings(&root, &query);
        let names: Vec<&str> = all.iter().map(|ceiling| &*ceiling.name).collect();
        assert_eq!(
            names,
            [
                MEMORY,
                NOFILE_SOFT,
                NOFILE_HARD,
                PORT_RANGE,
                PORTS_BOUND,
                CONNTRACK,
                NR_OPEN,
                FILE_MAX,
                SOMAXCONN
            ]
        );
        assert_eq!(binding(&all).unwrap().name, MEMORY);
        assert_eq!(binding(&all[8..]), None);
    }

    #[test]
    fn a_limit_of_descriptors_is_raised_where_it_is() {
        let (_tree, root) = host();
        let server = server();
        let query = CeilingQuery {
            process: Some(&server),
            side: Side::Server,
            ..CeilingQuery::default()
        };
        let all = ceilings(&root, &query);
        let soft = find(&all, NOFILE_SOFT);
        assert_eq!((soft.value, soft.in_use, soft.room), (20_000, 7, 19_993));
        assert_eq!(soft.side, Side::Server);
        assert_eq!(soft.remedy.now, "prlimit --pid 4711 --nofile=65536:65536");
        assert!(soft.source.ends_with("/4711/limits"));
    }

    #[test]
    fn each_fd_table_has_the_whole_limit() {
        let (_tree, root) = host();
        let client = server();
        let query = CeilingQuery {
            process: Some(&client),
            fd_tables: 3,
            need: Some(90_000),
            ..CeilingQuery::default()
        };
        let all = ceilings(&root, &query);
        let soft = find(&all, NOFILE_SOFT);
        assert_eq!((soft.value, soft.room), (20_000, 3 * 19_993));
        assert_eq!(soft.remedy.now, "prlimit --pid 4711 --nofile=30720:30720");
    }

    #[test]
    fn both_ends_on_one_host_count_twice() {
        let (_tree, root) = host();
        let loopback = CeilingQuery { loopback: true, ..CeilingQuery::default() };
        let near = ceilings(&root, &loopback);
        let far = ceilings(&root, &CeilingQuery::default());
        let room = |all: &[Ceiling], name| find(all, name).room;
        assert_eq!(room(&far, FILE_MAX), 2_464_000);
        assert_eq!(room(&near, FILE_MAX), 1_232_000);
        assert_eq!(room(&far, MEMORY), 1_024_000 / END_BYTES);
        assert_eq!(room(&near, MEMORY), 1_024_000 / PAIR_BYTES);
        assert_eq!(room(&near, CONNTRACK), 261_834, "one entry has both ends");
    }

    #[test]
    fn ports_are_counted_without_the_reserved_for_each_pair_of_addresses() {
        let (_tree, root) = host();
        let one = ceilings(&root, &CeilingQuery::default());
        assert_eq!(find(&one, PORT_RANGE).room, 28_232 - 10);
        assert_eq!(find(&one, PORTS_BOUND).room, 64_511 - 11);
        let query = CeilingQuery {
            sources: 2,
            destinations: 3,
            ports_in_use: 12,
            ..CeilingQuery::default()
        };
        let many = ceilings(&root, &query);
        assert_eq!(find(&many, PORT_RANGE).room, (28_232 - 10) * 6 - 12);
        let remedy = &find(&many, PORT_RANGE).remedy.now;
        assert_eq!(remedy, "sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"");
    }

    #[test]
    fn enough_source_addresses_are_named_for_what_is_needed() {
        let (_tree, root) = host();
        let query = CeilingQuery { need: Some(1_000_000), ..CeilingQuery::default() };
        let all = ceilings(&root, &query);
        let remedy = &find(&all, PORTS_BOUND).remedy.now;
        assert_eq!(remedy, "sockscope probe --source 127.1.0.0/28");
        let remedy = &find(&all, FILE_MAX).remedy.now;
        assert_eq!(remedy, "sysctl -w fs.file-max=2466816");
    }

    #[test]
    fn what_this_host_does_not_have_is_no_ceiling() {
        let (_tree, root) = tree(&[("sys/net/core/somaxconn", "128\n")]);
        let all = ceilings(&root, &CeilingQuery::default());
        let names: Vec<&str> = all.iter().map(|ceiling| &*ceiling.name).collect();
        assert_eq!(names, [PORTS_BOUND, SOMAXCONN]);
        assert_eq!(find(&all, SOMAXCONN).room, 129);
    }

    #[test]
    fn this_host_has_ceilings_and_the_sysctls_of_their_remedies() {
        let all = ceilings(&ProcRoot::default(), &CeilingQuery::default());
        let own = find(&all, NOFILE_SOFT);
        assert!(own.in_use > 0 && own.room < own.value);
        for ceiling in &all {
            let Some(set) = ceiling.remedy.now.strip_prefix("sysctl -w ") else {
                continue;
            };
            let name = set.split('=').next().unwrap().replace('.', "/");
            let file = Path::new("/proc/sys").join(name);
            assert!(file.exists(), "{}", ceiling.remedy.now);
        }
    }
}
