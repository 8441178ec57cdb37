//! What a probe knows when it ends: what its dials said, and what the hosts' own tables
//! say. Plain values, so that a verdict can be tested without a socket.

use std::collections::BTreeMap;

use crate::host::ceilings::Ceiling;
use crate::host::cgroup_limits::CgroupLimit;
use crate::host::counters::TcpExt;
use crate::host::process::ProcessView;
use crate::host::remedy;
use crate::host::user_tasks::UserTasks;
use crate::record::Level;

/// Why dialing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// All that was asked for is open.
    MaxReached,
    /// What is held did not grow for the time of patience.
    Plateau,
    /// Ctrl-C.
    Interrupted,
    /// The time limit.
    TimeLimit,
    /// Latency is above what the user allows.
    Latency,
    /// Every dial was answered by an error.
    AllFailed,
    /// The listener went away.
    ServerGone,
    /// The server drops what it already held.
    Losing,
    /// Every four-tuple is in use.
    NoTuples,
    /// Every fd table that there may be is full.
    TablesFull,
    /// ENFILE.
    NoFiles,
    /// ENOBUFS, ENOMEM or ENOSPC.
    NoMemory,
    /// MemAvailable fell under the floor.
    MemoryFloor,
}

/// What the client counted.
#[derive(Debug, Clone)]
pub struct Tally {
    /// The target as it is dialed.
    pub target: String,
    /// Whether it is a unix socket.
    pub is_unix: bool,
    /// Why dialing ended.
    pub stop: Stop,
    /// The strongest level that was checked.
    pub level: Level,
    /// What was asked for.
    pub max: Option<u64>,
    /// Dials made.
    pub dialed: u64,
    /// Dials that succeeded.
    pub established: u64,
    /// Failed dials by errno.
    pub errors: BTreeMap<i32, u64>,
    /// Dials that outlived the connect timeout or were given up unanswered.
    pub unanswered: u64,
    /// Of the unanswered, how many were looked at closely.
    pub looked_at: u64,
    /// Of these, how many had sent their SYN again.
    pub retransmitted: u64,
    /// Of these, how many had received nothing.
    pub silent: u64,
    /// Connections open at the client when the ramp ended.
    pub open: u64,
    /// By the server's table, when the ramp ended; None where it cannot be read.
    pub server: Option<ServerCounts>,
    /// The same after the hold.
    pub server_after: Option<ServerCounts>,
    /// What each connection was asked, in words; None where nothing was.
    pub asks: Option<String>,
    /// Whether bytes are sent before any come: what the server closes without having read
    /// them ends by a RST.
    pub speaks: bool,
    /// Of those open when the ramp ended, how many were answered.
    pub served: u64,
    /// Of those, how many were not, by why.
    pub unserved: BTreeMap<String, u64>,
    /// Connections that were answered once, and not when they were asked again.
    pub forgotten: u64,
    /// What was seen of connections that the server ended.
    pub closings: Closings,
    /// What one more dial met, where nearly all that was held was lost.
    pub trial: Option<Trial>,
    /// How long nothing was dialed and all was held, in seconds.
    pub hold_s: f64,
    /// What was seen of the latency at which dialing was to stop.
    pub latency: Option<Latency>,
    /// Held at the end of the hold, at `level`: the practical maximum.
    pub held: u64,
    /// Connections whose server goes on repeating its SYN-ACK, when the ramp ended.
    pub half_open: u64,
    /// Phantoms that a keepalive unmasked.
    pub phantoms: u64,
    /// Connections that the listener was seen to defer, from the client's side, when the
    /// ramp ended: it waits for their first byte.
    pub deferred: u64,
    /// Of what was held when the ramp ended, how many were lost while holding.
    pub lost_in_hold: u64,
    /// Ended by the server's FIN before it sent a byte.
    pub closed_silent: u64,
    /// Ended by the server, by FIN or RST, after it had said what is no answer.
    pub closed_after_words: u64,
    /// Ended by the server's FIN after it had answered.
    pub closed_answered: u64,
    /// Ended by a RST with no such words before.
    pub closed_reset: u64,
    /// Of those ended, how many had been open for a second or longer.
    pub closed_old: u64,
    /// The first connections of each dialer, a few dozen.
    pub elders: u64,
    /// Of these, those that were still open when the ramp ended.
    pub elders_open: u64,
    /// What the server said before it closed.
    pub words: Vec<String>,
    /// The time spent dialing, in seconds.
    pub duration_s: f64,
    /// Growth of what was held in the last second of dialing.
    pub growth_per_s: f64,
    /// How evenly dials succeeded; None where dialing was too short to tell.
    pub steadiness: Option<Steadiness>,
    /// The resources of this side.
    pub client: Client,
}

impl Tally {
    /// How many are held for sure of a share of what is open: the server's table knows
    /// how many it does not hold, and not which. Where each is asked or confirmed, what is
    /// not held has no part in the share.
    #[allow(clippy::cast_precision_loss)]
    #[must_use]
    pub fn held_of(&self, share: f64) -> f64 {
        let unheld = |s: &ServerCounts| s.queued + s.deferred + s.phantoms;
        let known = self.server_after.as_ref().filter(|_| self.asks.is_none());
        let unheld = known.map_or(0.0, |s| unheld(s) as f64);
        (share * (self.held as f64 + unheld) - unheld).max(0.0)
    }

    /// Established connections that the server ended, in whatever way.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.closed_silent
            + self.closed_after_words
            + self.closed_answered
            + self.closed_reset
    }
}

/// The probe's connections as the server's host counts them (FACTS 7a).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerCounts {
    /// Taken by the application.
    pub accepted: u64,
    /// In the accept queue.
    pub queued: u64,
    /// Waiting for a byte (TCP_DEFER_ACCEPT), in SYN_RECV.
    pub deferred: u64,
    /// Open at the client, and in SYN_RECV since its last ACK met a full queue.
    pub half_open: u64,
    /// Open at the client and not at the server: the half-open ones, and those that it
    /// does not know at all.
    pub phantoms: u64,
}

/// What this side has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Client {
    /// The command that ran, as root may type it: a path, where its name alone is not
    /// found.
    pub program: String,
    /// Whether it may raise hard limits (CAP_SYS_RESOURCE), and so needs no sudo for it.
    pub may_raise: bool,
    /// Whether it is root, and needs no sudo for anything.
    pub is_root: bool,
    /// Descriptors open in the fd tables that hold connections.
    pub fds_open: u64,
    /// Whether a thread for a further table could not be started.
    pub lacks_threads: bool,
    /// Those that are left free for the probe itself, where its dialers share one table
    /// with it because unshare(2) is forbidden.
    pub fds_spare: u64,
    /// RLIMIT_NOFILE of each table.
    pub fd_limit: u64,
    /// The hard limit, up to which the soft one can be raised.
    pub fd_limit_hard: u64,
    /// fd tables in use.
    pub tables: u64,
    /// The most tables that the user allowed.
    pub tables_allowed: Option<u64>,
    /// Source addresses.
    pub sources: u64,
    /// Whether the user named them.
    pub sources_given: bool,
    /// Ports of each.
    pub ports_per_source: u64,
    /// Four-tuples skipped since something else uses them.
    pub skipped: u64,
    /// Whether the target is on loopback.
    pub loopback: bool,
    /// The floor of MemAvailable, in bytes.
    pub memory_floor_bytes: u64,
    /// Dials a second that were asked for.
    pub rate_per_s: Option<f64>,
    /// The longest that a dial began after it was due, in µs.
    pub late_max_us: u64,
}

/// What the connections have in common that the server ended.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Closings {
    /// For how long those had been open that ended within a second, in µs: the median;
    /// 0 where there were none, or where something was asked of them.
    pub young_p50_us: u64,
    /// Those that it had held for a while.
    pub aged: u64,
    /// For how long one of ten of these had been silent at the most, in ms.
    pub p10_ms: u64,
    /// The median of that.
    pub p50_ms: u64,
    /// For how long nine of ten had been silent at the most.
    pub p90_ms: u64,
    /// The share of those still open after the hold that was established before all of
    /// these.
    pub older_stay: f64,
    /// The share of those still open that was established between these.
    pub between_stay: f64,
    /// The time in which these ended, but for a tenth at either end, in ms.
    pub ended_span_ms: u64,
    /// The time in which they had been established, likewise.
    pub born_span_ms: u64,
    /// The share of the held that was established after the first of those that ended
    /// while still others were dialed: 0 where new ones are turned away, 1 where old ones
    /// make room.
    pub held_after: f64,
    /// The part of these that was established before the last of those that ended: where
    /// chance decides, nearly all of them. The others came when no more was ended.
    pub held_between: f64,
    /// The share of those that ended that was established after the median of the held: 1
    /// where new ones are turned away, 0 where old ones make room.
    pub ended_after: f64,
}

/// Connections are of different ages where they came over so long.
const AGES_MS: u64 = 500;
/// A look a second, at a time in whole seconds: between the first and the last of equal
/// age lies less than this.
const TICK_MS: u64 = 2_000;
/// The fewest ends from which a habit is read.
pub(super) const HABIT: u64 = 10;

impl Closings {
    /// Whether all ended after the same time: nine of ten within 20 % of the median.
    #[must_use]
    pub fn same_age(&self) -> bool {
        let spread = self.p90_ms.saturating_sub(self.p10_ms);
        self.aged >= 3 && spread.saturating_mul(5) <= self.p50_ms
    }

    /// Whether all ended after the same time but for the tick of the server's clock: those
    /// that look for idle connections do so once a second, and by whole seconds.
    #[must_use]
    pub fn same_age_but_for_a_tick(&self) -> bool {
        let spread = self.p90_ms.saturating_sub(self.p10_ms);
        self.aged >= HABIT && spread <= TICK_MS && spread.saturating_mul(2) <= self.p10_ms
    }

    /// Whether the first stay, and none that came later until all of these had: as where
    /// new ones wait in a queue to be turned away.
    #[must_use]
    pub fn spares_the_first(&self) -> bool {
        self.older_stay > 0.0 && self.between_stay < 0.05
    }

    /// Whether all ended at one moment, however old they were.
    #[must_use]
    pub fn at_once(&self) -> bool {
        let times = self.ended_span_ms.saturating_mul(5);
        self.aged >= 10 && self.born_span_ms >= AGES_MS && times <= self.born_span_ms
    }
}

/// How many dials succeeded in each second of dialing, but for the first.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Steadiness {
    /// Of how many seconds.
    pub seconds: u64,
    /// The mean.
    pub per_s: f64,
    /// The variance of these counts.
    pub variance: f64,
}

impl Steadiness {
    /// Fewer seconds may look even by chance.
    const SECONDS: u64 = 10;

    /// Whether dials succeeded more evenly than chance would have it, with so many a
    /// second made. Where each is lost by chance, the successes are binomial: their
    /// variance is the mean times the share that is lost. A fifth of it in ten seconds
    /// comes by chance once in 180 times.
    #[must_use]
    pub fn is_even(&self, dials_per_s: f64) -> bool {
        let lost = 1.0 - self.per_s / dials_per_s.max(f64::MIN_POSITIVE);
        self.seconds >= Self::SECONDS
            && self.per_s > 0.0
            && lost >= 0.2
            && self.variance <= self.per_s * lost / 5.0
    }
}

/// What a single dial met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// A connection.
    Answered,
    /// ECONNREFUSED.
    Refused,
    /// Nothing, or another error.
    Silent,
}

/// What was seen of the latency at which dialing was to stop.
#[derive(Debug, Clone, PartialEq)]
pub struct Latency {
    /// The limit as it was given: `p99<50ms`.
    pub limit: String,
    /// Of what: `replies` or `connects`.
    pub of: &'static str,
    /// The most that was held while it was met.
    pub met: u64,
    /// What it was when dialing stopped, in µs.
    pub last_us: u64,
    /// Of so many samples.
    pub samples: u64,
    /// The pace to which dialing had slowed down for it, in dials a second; None where it
    /// had not, or went by a rate.
    pub pace_per_s: Option<f64>,
}

/// What the hosts' own tables say.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// Whether the server's host could be read at all.
    pub sees_server: bool,
    /// The listener as it was when the ramp ended; None: none was found.
    pub listener: Option<ListenerSeen>,
    /// Whether it still listened after the hold.
    pub listening_after: bool,
    /// Who holds the listener.
    pub owners: Vec<OwnerSeen>,
    /// Who held it before the first dial and ended, where it still listened.
    pub gone: Vec<ProcessView>,
    /// The user whose process owns the listener and cannot be read.
    pub unreadable_owner: Option<String>,
    /// What TcpExt counted in the server's namespace meanwhile.
    pub counters: Option<TcpExt>,
    /// net.core.somaxconn of the server's namespace.
    pub somaxconn: Option<u64>,
    /// tcp_abort_on_overflow of the server's namespace.
    pub abort_on_overflow: Option<bool>,
    /// nf_conntrack_count and nf_conntrack_max of the server's namespace, where that is
    /// another one, when the ramp ended.
    pub conntrack: Option<(u64, u64)>,
    /// The same of the client's namespace.
    pub client_conntrack: Option<(u64, u64)>,
    /// pids.max of the server's cgroup, or of one above it, and what is taken of it.
    pub tasks: Option<CgroupLimit>,
    /// RLIMIT_NPROC of the server, and what its user runs.
    pub user_tasks: Option<UserTasks>,
    /// Where the kernel killed for the memory of the server's cgroup meanwhile.
    pub memory_kill: Option<MemoryKill>,
    /// Open files of this host and fs.file-max when the ramp ended.
    pub file_nr: Option<(u64, u64)>,
    /// MemAvailable when the ramp ended, in bytes.
    pub mem_available_bytes: Option<u64>,
    /// The ceilings on the way, as they were before the first dial.
    pub ceilings: Vec<Ceiling>,
    /// The server's host, where it is not this one and a command told of it: what is said
    /// above of listener, owners, counters and sysctls is by that command.
    pub remote: Option<RemoteHost>,
}

/// The host of a server elsewhere, as a command tells of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RemoteHost {
    /// The command.
    pub command: String,
    /// How old the newest sample was when the ramp ended, in seconds.
    pub age_s: f64,
    /// It was too old to be sure, or the command had ended.
    pub is_shaky: bool,
    /// Open files of that host and its fs.file-max.
    pub file_nr: Option<(u64, u64)>,
    /// nf_conntrack_count and nf_conntrack_max of that host.
    pub conntrack: Option<(u64, u64)>,
}

impl Evidence {
    /// Where something was read on the server's host: `source`, and by which command
    /// where that is another host.
    #[must_use]
    pub fn there(&self, source: &str) -> String {
        match &self.remote {
            None => source.to_owned(),
            Some(host) => {
                format!("{source} on the server's host, by {}", host.command)
            }
        }
    }

    /// A command, or advice, that is for the server's host.
    #[must_use]
    pub fn type_there(&self, command: String) -> String {
        match &self.remote {
            None => command,
            Some(_) => remedy::noted(&command, "on the server's host"),
        }
    }

    /// Open files and fs.file-max of the server's host.
    #[must_use]
    pub fn server_file_nr(&self) -> Option<(u64, u64)> {
        self.remote.as_ref().map_or(self.file_nr, |host| host.file_nr)
    }
}

/// The kernel killed a process of the server's cgroup, for memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryKill {
    /// How often.
    pub kills: u64,
    /// The file that counts that.
    pub source: String,
    /// The limit with the least room before the first dial.
    pub limit: Option<CgroupLimit>,
}

/// A listener, with the other members of its SO_REUSEPORT group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListenerSeen {
    /// Where it listens.
    pub address: String,
    /// How many listeners share the address.
    pub members: u64,
    /// The effective backlog, of all members together.
    pub backlog: u64,
    /// The length of the accept queue, of all members together.
    pub queue_len: u64,
    /// The longest queue that a look met.
    pub queue_peak: u64,
    /// What the listeners dropped since the probe began (SK_MEMINFO_DROPS).
    pub drops: u64,
}

impl ListenerSeen {
    /// Whether the queue admits no more: it takes the backlog and one (FACTS 5).
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.queue_len >= self.backlog + self.members
    }
}

/// A process, or a thread with an fd table of its own, that holds the listener.
#[derive(Debug, Clone)]
pub struct OwnerSeen {
    /// How it was when the ramp ended.
    pub process: ProcessView,
    /// Whether it was still there after the hold.
    pub alive_after: bool,
}
