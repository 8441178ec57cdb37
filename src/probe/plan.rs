//! A validated plan: everything that a probe is told before it opens a socket.

use std::path::PathBuf;
use std::time::Duration;

use super::latency::LatencyLimit;
use super::service::Service;
use super::sources::SourceRange;
use super::target::Endpoint;

/// Descriptors of an fd table that are not for connections, at the most.
const SPARE_FDS: u64 = 8;

/// How the client closes what it held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// An ordinary close; leaves TIME_WAIT at this side.
    Fin,
    /// SO_LINGER of zero seconds (socket(7)): a RST, and no TIME_WAIT.
    Rst,
}

/// Where the evidence on the server's side comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvidenceMode {
    /// From this host's tables where the server runs on it.
    Auto,
    /// None: what a client far away would see.
    None,
    /// From this command, which prints samples of the listener.
    Command(String),
}

/// How many held connections sockets.csv lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// At most this many.
    Some(usize),
    /// All.
    All,
}

impl Pairs {
    /// The largest number of rows.
    #[must_use]
    pub fn limit(self) -> usize {
        match self {
            Self::Some(n) => n,
            Self::All => usize::MAX,
        }
    }
}

/// A probe, ready to be run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The target as the user wrote it, or as it was made.
    pub given: String,
    /// The one address that is dialed.
    pub endpoint: Endpoint,
    /// Stop at this many; None: at the first limit.
    pub max: Option<u64>,
    /// Dials a second, open loop; None: as fast as the window allows.
    pub rate: Option<f64>,
    /// How long what was opened is held and watched.
    pub hold: Duration,
    /// The end of dialing, whatever was reached.
    pub time_limit: Duration,
    /// How long the number held may stand still before that is called a limit.
    pub patience: Duration,
    /// How long one dial may take.
    pub connect_timeout: Duration,
    /// How many threads dial at a time.
    pub threads: usize,
    /// The most fd tables; None: as many as are needed.
    pub fd_tables: Option<usize>,
    /// How connections are closed.
    pub close: Close,
    /// Source addresses; empty: the default one, and all of 127.0.0.0/8 for IPv4
    /// loopback targets.
    pub sources: Vec<SourceRange>,
    /// Where evidence comes from.
    pub evidence: EvidenceMode,
    /// Whether connections are told from phantoms where the server cannot be seen.
    pub confirm: bool,
    /// What is asked on each connection, if anything is.
    pub service: Option<Service>,
    /// The latency at which dialing stops.
    pub stop_at_latency: Option<LatencyLimit>,
    /// Whether the target was given as http://….
    pub is_http: bool,
    /// Whether dials do not leave this host, and so complete inside connect().
    pub is_quick: bool,
    /// The network namespace that the server lives in, where it is not this one.
    pub target_netns: Option<String>,
    /// How many pairs of addresses are recorded.
    pub pairs: Pairs,
    /// The folder that the run's own folder is made in; None: nothing is recorded.
    pub out: Option<PathBuf>,
    /// MemAvailable under which dialing stops, in bytes.
    pub memory_floor_bytes: u64,
    /// Whether --authorized was given.
    pub authorized: bool,
    /// What --require says, for the record.
    pub require: Option<String>,
    /// The command line, for the record.
    pub command_line: Vec<String>,
}

impl Plan {
    /// How many threads dial at a time: one where few connections or a low rate are
    /// asked for, since a second would only open a second fd table. `fd_limit` is
    /// RLIMIT_NOFILE of each.
    #[must_use]
    pub fn filling(&self, fd_limit: u64) -> usize {
        let few = self.max.is_some_and(|max| max <= fd_limit.saturating_sub(SPARE_FDS));
        let slow = self.rate.is_some_and(|rate| rate < 10_000.0);
        let most = if few || slow { 1 } else { self.threads };
        most.min(self.fd_tables.unwrap_or(usize::MAX)).max(1)
    }
}
