//! What a run was asked to do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was probed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Target {
    /// The target as it was typed; empty where none was given.
    pub given: String,
    /// What was dialed: `127.0.0.1:8080`, `[::1]:80` or the path of a unix socket.
    pub address: String,
    /// The protocol that the target named.
    pub kind: TargetKind,
    /// Whether this run started the server itself.
    pub embedded: bool,
    /// The network namespace in which the server lives, where it was named.
    pub netns: Option<String>,
    /// The command that told of the server's host, where one was given.
    pub seen_by: Option<SeenBy>,
}

/// An evidence command, and what came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SeenBy {
    /// As it was given.
    pub command: String,
    /// Samples that it gave.
    pub samples: u64,
    /// Lines that it printed and that are none.
    pub other_lines: u64,
    /// This host's clock less that of the server's host, at the most, in µs: the time
    /// that the fastest sample took to get here is in it.
    pub clock_offset_max_us: i64,
}

/// The protocol of a target.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// `tcp://…`, `host:port`, or a port alone.
    #[default]
    Tcp,
    /// `http://…`.
    Http,
    /// `unix:/path`.
    Unix,
}

/// How connections are closed when the run is over.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Close {
    /// In order; the client's end stays in TIME_WAIT.
    #[default]
    Fin,
    /// At once, by SO_LINGER of 0; nothing is left behind.
    Rst,
}

/// The plan of a run, as validated.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Plan {
    /// The most connections to hold at once; null: until a limit shows.
    pub max: Option<u64>,
    /// New dials a second; null where they were dialed as fast as possible.
    pub rate_per_s: Option<f64>,
    /// How long the peak must be held to count, in seconds.
    pub hold_s: f64,
    /// The longest that the run may take, in seconds.
    pub time_limit_s: f64,
    /// How long nothing may move before the run counts as stopped, in seconds.
    pub patience_s: f64,
    /// How long one dial may take, in seconds.
    pub connect_timeout_s: f64,
    /// Threads that dial.
    pub threads: u32,
    /// fd tables that the client's sockets are spread over.
    pub fd_tables: u32,
    /// Source addresses or CIDR blocks that were given; empty for the default source.
    pub sources: Vec<String>,
    /// Where evidence was to be looked for: `auto`, `none`, or a command.
    pub evidence: String,
    /// Whether connections were to be told from phantoms.
    pub confirm: bool,
    /// How connections were to be closed.
    pub close: Close,
    /// What was sent on each connection.
    pub send: Option<String>,
    /// What an answer had to contain to count as served.
    pub expect: Option<String>,
    /// How long a reply was allowed to take, in seconds.
    pub reply_timeout_s: Option<f64>,
    /// After how many seconds held connections were asked again.
    pub ping_s: Option<f64>,
    /// The latency at which the run was to stop: `p99<50ms`.
    pub stop_at_latency: Option<String>,
    /// The expectation that decides the exit code.
    pub require: Option<String>,
    /// Whether `--authorized` was given.
    pub authorized: bool,
    /// What was predicted before the first dial; null where nothing could be.
    pub predicted: Option<Predicted>,
}

/// How many connections there would be, by the ceilings that were known before the first
/// dial.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Predicted {
    /// Connections held, if the server accepts them.
    pub connections: u64,
    /// The ceiling that stops them: `RLIMIT_NOFILE soft`, `source ports bound`, `--max`, ….
    pub ceiling: String,
    /// At whose end that is: `client`, `server`, `either`, `both`.
    pub side: String,
    /// Connections held, if the server accepts none: what its accept queues have room
    /// for. Null where the server's side was not seen.
    pub accept_queue: Option<u64>,
}
