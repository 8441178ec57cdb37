//! What a run counted and measured.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far a connection got.
///
/// `established`, `confirmed`, `accepted` and `served` each imply the ones before;
/// `queued` is confirmed, but not accepted. Numbers of different levels are never
/// compared with each other.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// connect() succeeded.
    #[default]
    Established,
    /// The server has it too: it is no phantom.
    Confirmed,
    /// The server's application took it, by the host's own tables.
    Accepted,
    /// It answered what was sent.
    Served,
    /// Confirmed and seen in the accept queue, not accepted.
    Queued,
}

impl Level {
    /// The name as the record writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Confirmed => "confirmed",
            Self::Accepted => "accepted",
            Self::Served => "served",
            Self::Queued => "queued",
        }
    }
}

/// What a run found, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RunResult {
    /// The most connections held at once and still held after the hold, at `level`.
    pub practical_max: u64,
    /// The strongest level that this run could check; `practical_max` and `held_peak`
    /// count at it.
    pub level: Level,
    /// Connections by how far they got.
    pub counts: Counts,
    /// Connections that only the client had.
    pub phantoms: Phantoms,
    /// The most connections held at any moment, whether or not they lasted.
    pub held_peak: u64,
    /// From the first dial to the last close, in seconds.
    pub duration_s: f64,
    /// Connections established a second while the run was still rising.
    pub rate_per_s: f64,
    /// Dials of which nothing is left, by what they met: an errno (`ECONNREFUSED`),
    /// `timeout`, `unanswered` (given up when the ramp ended), and what the server ended
    /// by a FIN (`closed`), a FIN after words (`rejected`, or by the name of a reply that
    /// is no answer: `http_503`) or a RST (`reset`). With what was open at the peak they
    /// add up to the dials made.
    pub errors: BTreeMap<String, u64>,
    /// Connections open at the peak that were asked and not served, by why: `no_reply`,
    /// `late_reply`, `other_reply`, `not_http`, `http_503`.
    pub unserved: BTreeMap<String, u64>,
    /// How long those were left in silence that the server ended, of those that it had
    /// held for a while; null where there were none.
    pub ended: Option<Ended>,
    /// How sure the level `confirmed` is; null where nothing was confirmed.
    pub confirmation: Option<Confirmation>,
    /// From the scheduled moment of a dial to ESTABLISHED.
    pub connect_latency_us: Option<Latency>,
    /// From the request (from ESTABLISHED, where the server speaks first) to its answer,
    /// late ones too.
    pub reply_latency_us: Option<Latency>,
    /// What the connections cost.
    pub memory: MemoryUse,
    /// File descriptors at the peak.
    pub fds: Fds,
}

/// Connections by how far they got; null where it was not checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Counts {
    /// Attempts to connect.
    pub dialed: u64,
    /// connect() succeeded.
    pub established: u64,
    /// No phantoms.
    pub confirmed: Option<u64>,
    /// In the accept queue.
    pub queued: Option<u64>,
    /// Taken by the application.
    pub accepted: Option<u64>,
    /// Answered.
    pub served: Option<u64>,
    /// Waiting for a byte at a listener with TCP_DEFER_ACCEPT.
    pub deferred: Option<u64>,
}

/// Connections ESTABLISHED at the client and unknown to the server; null where it was
/// not checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Phantoms {
    /// Answered by a SYN cookie.
    pub cookie: Option<u64>,
    /// Whose request socket the full accept queue kept from completing.
    pub request_socket: Option<u64>,
    /// Of both kinds, and those whose kind is unknown.
    pub total: Option<u64>,
}

/// How sure it is that confirmed connections are the server's too.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Confirmation {
    /// Part of keepalives that were lost, or whose ACK was: 0 to 1.
    pub round_trip_loss: f64,
    /// At that loss, the largest probability with which one connection is counted
    /// wrongly: 0 to 1.
    pub error_probability: f64,
}

/// The ends of connections that the server had held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Ended {
    /// How many.
    pub connections: u64,
    /// One of ten was silent for no longer when it was ended, in milliseconds.
    pub p10_ms: u64,
    /// The median.
    pub p50_ms: u64,
    /// Nine of ten were silent for no longer.
    pub p90_ms: u64,
}

/// A distribution of times, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Latency {
    /// The median.
    pub p50: u64,
    /// Nine of ten are no slower.
    pub p90: u64,
    /// 99 of 100 are no slower.
    pub p99: u64,
    /// 999 of 1,000 are no slower.
    pub p999: u64,
    /// The slowest.
    pub max: u64,
}

/// What the connections cost in memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MemoryUse {
    /// The most resident memory that this process had (VmHWM of proc_pid_status(5)).
    pub client_rss_bytes: u64,
    /// Kernel memory for one socket; on loopback both ends are in it, each counted.
    pub kernel_bytes_per_socket: Option<f64>,
}

/// File descriptors at the peak.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Fds {
    /// Open in the client's tables that hold connections, together.
    pub client_open: u64,
    /// RLIMIT_NOFILE of the client, which bounds each of its tables.
    pub client_limit: u64,
    /// The client's fd tables.
    pub client_tables: u32,
    /// Open in the table that holds the server's listener.
    pub server_open: Option<u64>,
    /// RLIMIT_NOFILE of the server.
    pub server_limit: Option<u64>,
    /// The server's fd tables that hold the listener, as far as they were looked for:
    /// again when dialing ends, unless more than 100,000 are held then.
    pub server_tables: Option<u32>,
}
