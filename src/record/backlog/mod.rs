//! What was learned of accept queues, the schema "sockscope.backlog/1".

mod load;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use load::{BurstDoc, FindDoc, FreezeDoc, ProcessDoc, TryDoc};

use super::{Target, Timestamp, Verdict, Warning};

/// The name and version of the schema that this program writes.
pub const SCHEMA: &str = "sockscope.backlog/1";

/// What was seen of a listener, or of all that share its address. What was not asked for
/// is left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(title = "sockscope.backlog/1")]
pub struct BacklogDoc {
    /// [`SCHEMA`].
    #[schemars(extend("const" = SCHEMA))]
    pub schema: String,
    /// When it began.
    pub started: Timestamp,
    /// What was watched.
    pub target: Target,
    /// How, where it was watched without any load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watched: Option<Watched>,
    /// What became of a burst.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<BurstDoc>,
    /// The deepest burst that loses nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub find: Option<FindDoc>,
    /// What the queue admits while nobody accepts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze: Option<FreezeDoc>,
    /// Each listener; several share an address (SO_REUSEPORT). None where the target is
    /// not on this host.
    pub listeners: Vec<ListenerDoc>,
    /// What came and was accepted, where it was watched without any load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<Flow>,
    /// What the counters of the network namespace grew by; null for a unix socket, and
    /// where the target is not on this host.
    pub counters: Option<Counters>,
    /// Sysctls that bear on accept queues, by their names; null where unreadable.
    pub sysctls: std::collections::BTreeMap<String, Option<u64>>,
    /// Connections in SYN_RECV, where they were counted.
    pub syn_recv: Option<SynRecv>,
    /// Whether connections were turned away, and why.
    pub verdict: Verdict,
    /// A backlog that would have held what came; null where nothing was turned away, or
    /// where no backlog would have.
    pub backlog_needed: Option<u64>,
    /// What a reader of the numbers must know.
    pub warnings: Vec<Warning>,
}

impl Default for BacklogDoc {
    fn default() -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            started: Timestamp::default(),
            target: Target::default(),
            watched: None,
            burst: None,
            find: None,
            freeze: None,
            listeners: Vec::new(),
            flow: None,
            counters: None,
            sysctls: std::collections::BTreeMap::new(),
            syn_recv: None,
            verdict: Verdict::default(),
            backlog_needed: None,
            warnings: Vec::new(),
        }
    }
}

/// How a listener was watched.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Watched {
    /// How long.
    pub duration_s: f64,
    /// Looks at the queue.
    pub samples: u64,
    /// The same, a second.
    pub rate_per_s: f64,
    /// The longest time between two looks: a queue may have been full in it unseen.
    pub longest_gap_us: u64,
    /// CPU time of the watch, as a part of one core: 0.05 is 5 %.
    pub cpu_share: f64,
    /// Why it ended: `time`, `overflow`, `interrupted`, `gone`.
    pub ended_by: String,
}

/// A listener.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ListenerDoc {
    /// `tcp` or `unix`.
    pub protocol: String,
    /// Where it listens: `127.0.0.1:7000`, `[::]:443`, `unix:/path`.
    pub address: String,
    /// The network namespace, where several are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// min(backlog, somaxconn), all that the kernel keeps; the queue admits one more.
    pub effective_backlog: u64,
    /// Whether it still listened when it was looked at last.
    pub listening: bool,
    /// Connections in the accept queue, when it was looked at last.
    pub queue_len: u64,
    /// The longest queue that was seen; it may have been longer between two looks.
    pub queue_peak: u64,
    /// Whether the queue takes no more.
    pub full: bool,
    /// Connections that it dropped since it listens; null for a unix socket, which
    /// refuses instead.
    pub drops: Option<u64>,
    /// The same, while it was watched.
    pub drops_watched: Option<u64>,
    /// Who made it.
    pub uid: u32,
    /// Its inode.
    pub inode: u64,
    /// The kernel's identity of it (SO_COOKIE).
    pub cookie: u64,
    /// Every descriptor of it that could be read.
    pub owners: Vec<OwnerDoc>,
    /// Why there is none.
    pub no_owner: Option<String>,
    /// How long its queue was how deep, where it was watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueStats>,
}

/// An owner of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[allow(missing_docs)]
pub struct OwnerDoc {
    pub pid: u32,
    /// `pid`, or a thread with an fd table of its own.
    pub tid: u32,
    /// The name of that thread, what does not print escaped.
    pub comm: String,
    pub fd: u32,
}

/// How long an accept queue was how deep. Percentiles are over time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct QueueStats {
    /// Half of the time it was no deeper.
    pub p50: u64,
    /// 90 of 100 of the time it was no deeper.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1,000.
    pub p999: u64,
    /// How long it stood above 80 % of what it admits, the full time too, in seconds.
    pub above_80_percent_s: f64,
    /// How long it was full, in seconds.
    pub full_s: f64,
    /// The whole of it, by length.
    pub histogram: Vec<Step>,
}

/// How long a queue had a length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Step {
    /// To three digits.
    pub queue_len: u64,
    pub seconds: f64,
}

/// What came to the listeners, and what was accepted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Flow {
    /// Connections accepted a second, at the least: those seen to leave the queue.
    pub accepts_per_s_at_least: f64,
    /// At the most: what came to the namespace (PassiveOpens) less what its queues grew
    /// by. Null for a unix socket, which nothing counts.
    pub accepts_per_s_at_most: Option<f64>,
    /// Connections that left the queue a second while any waited, at the least: how fast
    /// it drains. Null where none waited.
    pub drains_per_s: Option<f64>,
    /// TCP listeners of the namespace that PassiveOpens counts as well; 0: the number
    /// above is exact.
    pub other_listeners: u64,
    /// Connections that came in a second, to the whole namespace.
    pub passive_opens_per_s: Option<f64>,
}

/// Growth of the counters of a network namespace, all of its listeners together.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[serde(default)]
pub struct Counters {
    /// Times that a full accept queue turned something away (ListenOverflows).
    pub listen_overflows: u64,
    /// What listeners dropped, overflows too (ListenDrops).
    pub listen_drops: u64,
    /// Connections that came in (PassiveOpens).
    pub passive_opens: u64,
    /// SYN cookies sent (SyncookiesSent).
    pub syncookies_sent: u64,
    /// ACKs with a valid one (SyncookiesRecv).
    pub syncookies_recv: u64,
    /// ACKs with one that was not valid (SyncookiesFailed).
    pub syncookies_failed: u64,
    /// SYNs answered by a cookie as the SYN queue was full (TCPReqQFullDoCookies).
    pub req_q_full_do_cookies: u64,
    /// SYNs dropped as the SYN queue was full (TCPReqQFullDrop).
    pub req_q_full_drop: u64,
}

/// Connections in SYN_RECV: half-open, or complete while the accept queue is full.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[serde(default)]
pub struct SynRecv {
    /// When they were counted last.
    pub last: u64,
    /// The most that was counted.
    pub peak: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_reads_back_as_it_was_written() {
        let listener = ListenerDoc {
            protocol: "tcp".into(),
            address: "127.0.0.1:7000".into(),
            effective_backlog: 128,
            drops: Some(38),
            queue: Some(QueueStats {
                histogram: vec![Step { queue_len: 129, seconds: 0.038 }],
                ..QueueStats::default()
            }),
            ..ListenerDoc::default()
        };
        let doc = BacklogDoc {
            listeners: vec![listener],
            sysctls: [("net.core.somaxconn".to_owned(), Some(4096))].into(),
            counters: Some(Counters { listen_overflows: 38, ..Counters::default() }),
            ..BacklogDoc::default()
        };
        let text = serde_json::to_string(&doc).unwrap();
        assert_eq!(serde_json::from_str::<BacklogDoc>(&text).unwrap(), doc);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["schema"], SCHEMA);
        // The keys that others build on.
        for key in
            "address effective_backlog queue_len queue_peak drops owners".split(' ')
        {
            assert!(value["listeners"][0].get(key).is_some(), "{key}");
        }
        assert_eq!(value["counters"]["listen_overflows"], 38);
        for key in ["watched", "flow", "burst", "find", "freeze"] {
            assert!(value.get(key).is_none(), "{key} was not asked for");
        }
    }
}
