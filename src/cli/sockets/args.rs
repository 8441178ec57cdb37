//! What is typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use crate::cli::parse;
use crate::sockets::descriptor::DescriptorName;

/// List sockets: both their addresses, and whose they are
///
/// Without options: what listens and what is connected, of TCP, MPTCP and UDP, with
/// owners. Any of ss's letters gives ss's selection instead: -t connected TCP, -tl what
/// listens, -ta all, and so on; -p for owners. Addresses and ports are always numeric.
///
/// FILTER is in ss's language: state established, src 10.0.0.0/8, dport = :443,
/// ( sport ge :1024 or dst [::1] ), not …; and beyond it: pid = 4711, process = nginx,
/// user = www-data, rtt > 50ms, retrans > 0, recv-q > 0.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Only sockets that match, in ss's language
    #[arg(value_name = "FILTER", allow_hyphen_values = false)]
    pub(super) filter: Vec<String>,

    #[command(flatten)]
    pub(super) letters: Letters,

    /// The sockets of one process: every kind and state, with each descriptor, those of its
    /// threads' own fd tables too
    #[arg(long, value_name = "PID", value_parser = super::process::pid)]
    pub(super) pid: Option<u32>,

    /// One descriptor in full: PID:FD, or PID:TID:FD for a thread's own fd table
    #[arg(long, value_name = "PID:FD", conflicts_with_all =
        ["filter", "pid", "kill", "summary", "count", "by", "sort", "limit", "owners",
         "netns", "all_netns", "unbound", "via", "watch"])]
    pub(super) fd: Option<DescriptorName>,

    /// How many sockets there are of each kind, without listing them
    #[arg(short = 's', long, conflicts_with_all = ["filter", "pid", "kill", "count",
        "by", "sort", "limit", "owners", "columns", "all_netns", "unbound", "via", "watch"])]
    pub(super) summary: bool,

    /// Close the sockets that match: with FILTER or --pid alone; asks first
    #[arg(short = 'K', long, conflicts_with_all = ["count", "by", "limit", "unbound", "watch"])]
    pub(super) kill: bool,

    /// Close without asking
    #[arg(long, requires = "kill")]
    pub(super) yes: bool,

    /// Columns to show, apart by commas; `--columns help` lists them
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) columns: Vec<String>,

    /// Sort by a column; -COLUMN for the largest first
    #[arg(long, value_name = "COLUMN", allow_hyphen_values = true)]
    pub(super) sort: Option<String>,

    /// Print at most N rows
    #[arg(long, value_name = "N", value_parser = parse::count_from_1)]
    pub(super) limit: Option<u64>,

    /// Print the number of sockets alone
    #[arg(long)]
    pub(super) count: bool,

    /// Group: how many sockets, and their queues, by KEY
    #[arg(long, value_name = "KEY", value_enum, conflicts_with_all = ["count", "columns"])]
    pub(super) by: Option<GroupKey>,

    /// List again every INTERVAL [default: 1s]: a table in place on a terminal, with what
    /// is new (+) and gone (-); with --format ndjson, a line for each event
    #[arg(
        long,
        value_name = "INTERVAL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1s",
        value_parser = parse::interval
    )]
    pub(super) watch: Option<Duration>,

    /// Which owners to look for: all of them, the first found of each socket (quicker
    /// where few sockets are listed), or none
    #[arg(long, value_name = "all|first|none", value_enum)]
    pub(super) owners: Option<OwnersName>,

    /// How owners are looked up: by a BPF iterator of the kernel, which is quicker and needs
    /// CAP_BPF and CAP_PERFMON (bpf), through /proc (proc), or whichever can be used (auto)
    #[arg(long, value_name = "auto|bpf|proc", value_enum, default_value_t)]
    pub(super) owners_by: OwnersBy,

    /// The sockets of another network namespace: a name of `ip netns`, a PID, or a path
    #[arg(long, value_name = "NAME|PID|PATH", conflicts_with = "all_netns")]
    pub(super) netns: Option<String>,

    /// The sockets of every network namespace that can be seen, each with its name
    #[arg(long)]
    pub(super) all_netns: bool,

    /// Also sockets that a process has and no table shows: neither bound nor connected
    #[arg(long)]
    pub(super) unbound: bool,

    /// Where rows come from: sock_diag and what it lacks from /proc (auto), or one alone
    #[arg(long, value_name = "auto|netlink|proc", value_enum, default_value_t)]
    pub(super) via: Via,

    /// How to print: table, json, ndjson, csv; openmetrics of --by and --count
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,

    /// The same as --format json
    #[arg(short, long = "json", conflicts_with = "format")]
    pub(super) json: bool,

    /// Read processes and tables from here instead of /proc
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub(super) proc_root: PathBuf,
}

impl Args {
    /// The letters that were typed, and what --pid means by itself: all of them, and whose.
    pub(super) fn meant_letters(&self) -> Letters {
        let letters = self.letters.clone();
        match self.pid {
            Some(_) => Letters { all: !letters.listening, processes: true, ..letters },
            None => letters,
        }
    }

    /// Whether sockets are listed that no table has: of one process, unless letters say
    /// which of its sockets are wanted.
    pub(super) fn lists_unbound(&self) -> bool {
        let letters = &self.letters;
        let narrowed =
            letters.any_table() || letters.listening || letters.ipv4 || letters.ipv6;
        self.unbound || self.pid.is_some() && !narrowed && !self.kill
    }
}

/// The letters of ss(8).
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Letters {
    /// TCP
    #[arg(short = 't', long)]
    pub(super) tcp: bool,
    /// UDP
    #[arg(short = 'u', long)]
    pub(super) udp: bool,
    /// Raw and ping sockets
    #[arg(short = 'w', long)]
    pub(super) raw: bool,
    /// Unix sockets
    #[arg(short = 'x', long)]
    pub(super) unix: bool,
    /// MPTCP
    #[arg(short = 'M', long)]
    pub(super) mptcp: bool,
    /// SCTP
    #[arg(short = 'S', long)]
    pub(super) sctp: bool,
    /// Packet sockets
    #[arg(short = '0', long)]
    pub(super) packet: bool,
    /// Netlink sockets
    #[arg(long)]
    pub(super) netlink: bool,
    /// Only what listens
    #[arg(short = 'l', long)]
    pub(super) listening: bool,
    /// What listens and all else, whatever its state
    #[arg(short = 'a', long)]
    pub(super) all: bool,
    /// Numeric: as it always is here
    #[arg(short = 'n', long)]
    pub(super) numeric: bool,
    /// Owners
    #[arg(short = 'p', long)]
    pub(super) processes: bool,
    /// TCP_INFO
    #[arg(short = 'i', long)]
    pub(super) info: bool,
    /// Memory (SO_MEMINFO)
    #[arg(short = 'm', long)]
    pub(super) memory: bool,
    /// User, inode, cookie, mark, cgroup, options
    #[arg(short = 'e', long)]
    pub(super) extended: bool,
    /// Timers
    #[arg(short = 'o', long)]
    pub(super) options: bool,
    /// IPv4
    #[arg(short = '4', long)]
    pub(super) ipv4: bool,
    /// IPv6
    #[arg(short = '6', long)]
    pub(super) ipv6: bool,
    /// No header
    #[arg(short = 'H', long)]
    pub(super) no_header: bool,
    /// One line for a socket, -i and -m too
    #[arg(short = 'O', long)]
    pub(super) oneline: bool,
}

impl Letters {
    /// Whether any letter was typed that ss(8) has.
    pub(super) fn any(&self) -> bool {
        self.any_table()
            || self.listening
            || self.all
            || self.numeric
            || self.processes
            || self.info
            || self.memory
            || self.extended
            || self.options
            || self.ipv4
            || self.ipv6
            || self.no_header
            || self.oneline
    }

    /// Whether a table was named.
    pub(super) fn any_table(&self) -> bool {
        self.tcp
            || self.udp
            || self.raw
            || self.unix
            || self.mptcp
            || self.sctp
            || self.packet
            || self.netlink
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum GroupKey {
    Process,
    Pid,
    State,
    Remote,
    RemoteAddr,
    LocalPort,
    RemotePort,
    User,
    Netns,
    Container,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OwnersName {
    All,
    First,
    None,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum OwnersBy {
    #[default]
    Auto,
    Bpf,
    Proc,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Via {
    #[default]
    Auto,
    Netlink,
    Proc,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    #[default]
    Table,
    Json,
    Ndjson,
    Csv,
    Openmetrics,
}
