//! What bounds connections on this host, and how far each bound still is.

mod descriptors;
mod memory;
mod network;
mod tasks;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::descriptors::together;
use super::ProcRoot;
use super::cgroup_limits::CgroupError;
use super::process::{ProcessView, own_view};
use super::remedy::Remedy;

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
/// What a user's epoll instances can watch.
pub const EPOLL_WATCHES: &str = "epoll max_user_watches";
/// The limit of descriptors that systemd gives to a unit which names none.
pub const SYSTEMD_NOFILE: &str = "systemd DefaultLimitNOFILE";
/// The source ports that the kernel picks from.
pub const PORT_RANGE: &str = "ip_local_port_range";
/// The source ports that a program can bind by itself without rights.
pub const PORTS_BOUND: &str = "source ports bound";
/// Connections complete and not yet accepted, for each listener.
pub const SOMAXCONN: &str = "net.core.somaxconn";
/// Handshakes that a listener remembers without SYN cookies.
pub const SYN_BACKLOG: &str = "tcp_max_syn_backlog";
/// Connections that netfilter tracks.
pub const CONNTRACK: &str = "nf_conntrack_max";
/// Sockets in TIME_WAIT.
pub const TW_BUCKETS: &str = "tcp_max_tw_buckets";
/// Connections closed by their process that the kernel still ends.
pub const ORPHANS: &str = "tcp_max_orphans";
/// Memory of the machine.
pub const MEMORY: &str = "memory";
/// Memory of a cgroup.
pub const CGROUP_MEMORY: &str = "cgroup memory";
/// Memory of the buffers of all TCP sockets.
pub const TCP_MEM: &str = "tcp_mem";
/// Threads of the machine.
pub const THREADS_MAX: &str = "kernel.threads-max";
/// Numbers for processes and threads.
pub const PID_MAX: &str = "kernel.pid_max";
/// Processes and threads of a cgroup.
pub const CGROUP_PIDS: &str = "cgroup pids.max";
/// Mappings of one process: two for the stack of each thread.
pub const MAP_COUNT: &str = "vm.max_map_count";

/// A limit on connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceiling {
    /// Its name: one of the constants of this module.
    pub name: String,
    /// Where it lies, in `unit`.
    pub value: u64,
    /// How much of it is taken, in `unit`; null where that cannot be told, and `room` is
    /// what there is at the most.
    pub in_use: Option<u64>,
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
    /// Connections of a server that has a thread or a process for each.
    Threads,
    /// Connections with data under way.
    Traffic,
    /// Connections that nobody has accepted yet: it limits bursts, not what is held.
    AcceptQueue,
    /// Connections that are over: more are closed in less order.
    Closed,
    /// Connections of what systemd will start.
    NextStart,
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

/// What decides how connections are ended or queued, and is no number of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// As the host has it.
    pub value: String,
    /// What that does.
    pub meaning: String,
    /// Where it was read.
    pub source: String,
}

/// A ceiling that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// Its name.
    pub name: String,
    /// At whose end it binds.
    pub side: Side,
    /// What was to be read.
    pub source: String,
    /// Why it was not.
    pub why: String,
    /// Whether this host does not have it at all, so that it bounds nothing.
    pub absent: bool,
}

/// All that bears on the number of connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// What could be read, by what it bounds and then the tightest first.
    pub ceilings: Vec<Ceiling>,
    /// Settings.
    pub settings: Vec<Setting>,
    /// What could not be read.
    pub unread: Vec<Unread>,
}

/// A listener, as its own kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// Where it listens.
    pub address: String,
    /// Its effective backlog.
    pub backlog: u64,
    /// Connections in its accept queue.
    pub queue_len: u64,
}

/// For what ceilings are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CeilingQuery<'a> {
    /// Whose descriptors; this process's without one.
    pub process: Option<&'a ProcessView>,
    /// Why the process that is asked about cannot be read; then no other is in its place.
    pub hidden_process: Option<&'a str>,
    /// Why its network namespace cannot be.
    pub hidden_network: Option<&'a str>,
    /// Whether that process is the shell which remedies are typed in.
    pub is_shell: bool,
    /// Which end that process has.
    pub side: Side,
    /// fd tables that it spreads its sockets over; each has the whole limit.
    pub fd_tables: u64,
    /// Whether both ends are on this host.
    pub loopback: bool,
    /// Whether connections are of unix sockets: without ports and handshakes.
    pub is_unix: bool,
    /// Source addresses that the client has.
    pub sources: u64,
    /// Destinations (address and port) that it dials.
    pub destinations: u64,
    /// Source ports that are taken already, towards all of them.
    pub ports_in_use: u64,
    /// How many more connections are wanted, for the numbers of the remedies.
    pub need: Option<u64>,
    /// Kernel memory of one end, where it was measured.
    pub end_bytes: Option<u64>,
    /// The listeners that are asked about.
    pub listeners: &'a [Backlog],
    /// Under which folder /sys and /etc lie: `/`, but for a fixture tree.
    pub sys_root: &'a Path,
}

impl Default for CeilingQuery<'_> {
    /// This process, with one source address and one destination elsewhere.
    fn default() -> Self {
        Self {
            process: None,
            hidden_process: None,
            hidden_network: None,
            is_shell: false,
            side: Side::Either,
            fd_tables: 1,
            loopback: false,
            is_unix: false,
            sources: 1,
            destinations: 1,
            ports_in_use: 0,
            need: None,
            end_bytes: None,
            listeners: &[],
            sys_root: Path::new("/"),
        }
    }
}

impl CeilingQuery<'_> {
    /// How many ends of each connection are on this host.
    #[must_use]
    pub fn ends(&self) -> u64 {
        if self.loopback { 2 } else { 1 }
    }

    /// Kernel memory that a connection takes on this host, idle.
    #[must_use]
    pub fn bytes_each(&self) -> u64 {
        match self.end_bytes {
            Some(end) => end.saturating_mul(self.ends()).max(1),
            None if self.loopback => PAIR_BYTES,
            None => END_BYTES,
        }
    }

    /// Whether the end that dials is on this host.
    fn has_client(&self) -> bool {
        self.side != Side::Server || self.loopback
    }

    /// Whether the end that accepts is.
    fn has_server(&self) -> bool {
        self.side != Side::Client || self.loopback
    }

    fn side_of_host(&self) -> Side {
        if self.loopback { Side::Both } else { Side::Either }
    }

    /// Files that the wanted connections take on this host.
    fn need_of_host(&self) -> Option<u64> {
        self.need.map(|need| need.saturating_mul(self.ends()))
    }
}

/// Every ceiling on connections that can be read, the tightest first; those of the
/// accept queue come later. sysctls of the network are those of the calling thread's
/// namespace.
#[must_use]
pub fn ceilings(root: &ProcRoot, query: &CeilingQuery<'_>) -> Vec<Ceiling> {
    survey(root, query).ceilings
}

/// Every ceiling on connections and what goes with them: what can be read, and what
/// cannot.
#[must_use]
pub fn survey(root: &ProcRoot, query: &CeilingQuery<'_>) -> Survey {
    let own = match (query.process, query.hidden_process) {
        (None, None) => own_view(root).ok(),
        _ => None,
    };
    let process = query.process.or(own.as_ref());
    let mut looking = Looking { root, query, process, found: Survey::default() };
    descriptors::look(&mut looking);
    network::look(&mut looking);
    memory::look(&mut looking);
    tasks::look(&mut looking);
    let mut found = looking.found;
    found.ceilings.sort_by_key(|ceiling| (ceiling.bounds, ceiling.room));
    found
}

/// The ceiling that binds first, of what [`ceilings`] gave.
#[must_use]
pub fn binding(ceilings: &[Ceiling]) -> Option<&Ceiling> {
    let held = ceilings.iter().filter(|ceiling| ceiling.bounds == Bounds::Connections);
    held.min_by_key(|ceiling| ceiling.room)
}

/// A survey under way.
struct Looking<'a> {
    root: &'a ProcRoot,
    query: &'a CeilingQuery<'a>,
    /// Whose limits, where any process can be read.
    process: Option<&'a ProcessView>,
    found: Survey,
}

impl Looking<'_> {
    fn add(&mut self, ceiling: Ceiling) {
        self.found.ceilings.push(ceiling);
    }

    /// A file of /proc as a source.
    fn source(&self, relative: &str) -> String {
        self.root.path(relative).display().to_string()
    }

    fn unread(&mut self, name: &str, side: Side, source: String, why: String) {
        let (name, absent) = (name.to_owned(), false);
        self.found.unread.push(Unread { name, side, source, why, absent });
    }

    /// That this host does not have it.
    fn absent(&mut self, name: &str, side: Side, source: String, why: &str) {
        let (name, why) = (name.to_owned(), why.to_owned());
        self.found.unread.push(Unread { name, side, source, why, absent: true });
    }

    /// That a sysctl could not be read.
    fn no_sysctl(&mut self, name: &str, side: Side, error: &super::ReadError) {
        let source = error.path.display().to_string();
        match error.is_missing() {
            true => self.absent(name, side, source, "this kernel has no such file"),
            false => self.unread(name, side, source, error.source.to_string()),
        }
    }

    /// What could not be read of the process's cgroup.
    fn no_cgroup(&mut self, name: &str, side: Side, error: &CgroupError) {
        let source = self.source(&format!("{}/cgroup", self.pid_folder()));
        let why = error.to_string();
        let absent = matches!(error, CgroupError::NoController(_));
        let name = name.to_owned();
        self.found.unread.push(Unread { name, side, source, why, absent });
    }

    fn setting(&mut self, name: &str, value: String, meaning: &str, source: String) {
        let (name, meaning) = (name.to_owned(), meaning.to_owned());
        self.found.settings.push(Setting { name, value, meaning, source });
    }

    /// The folder of the process under /proc: its number, or `self`.
    fn pid_folder(&self) -> String {
        self.process.map_or("self".to_owned(), |process| process.pid.to_string())
    }

    /// Says that a ceiling of the process is not known where that process is hidden.
    fn is_hidden(&mut self, name: &str, side: Side) -> bool {
        let Some(why) = self.query.hidden_process else { return false };
        self.unread(
            name,
            side,
            self.root.as_path().display().to_string(),
            why.to_owned(),
        );
        true
    }
}

/// A ceiling of which each connection takes one.
fn counted(name: &str, value: u64, in_use: u64) -> Ceiling {
    Ceiling {
        name: name.to_owned(),
        value,
        in_use: Some(in_use),
        unit: Unit::Count,
        room: value.saturating_sub(in_use),
        bounds: Bounds::Connections,
        side: Side::Either,
        source: String::new(),
        remedy: Remedy::default(),
    }
}

#[cfg(test)]
mod tests;
