//! What is said of accept queues, as a document ("sockscope.backlog/1").

use std::collections::BTreeMap;

use serde::Serialize;

use super::burst::Burst;
use super::find::{Search, SearchEnd, Try};
use super::freeze::{FillEnd, Freeze};
use crate::host::counters::TcpExt;
use crate::record::{Verdict, Warning};
use crate::sockets::listeners::{ListenAt, Listener};

/// The schema's name.
pub const SCHEMA: &str = "sockscope.backlog/1";

/// The whole document. What was not asked for is left out.
#[derive(Debug, Clone, Default, Serialize)]
#[allow(missing_docs)] // each is described by its type
pub struct Document {
    pub schema: &'static str,
    /// What was given, or where it listens.
    pub target: String,
    /// The listeners that answer for it; none where it is not on this host.
    pub listeners: Vec<ListenerRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<BurstRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub find: Option<FindRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze: Option<FreezeRow>,
    /// What the server's namespace counted meanwhile; none where it is not this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counters: Option<CountersRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub somaxconn: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    pub warnings: Vec<Warning>,
}

/// A listener.
#[derive(Debug, Clone, Serialize)]
pub struct ListenerRow {
    /// Where it listens.
    pub address: String,
    /// min(backlog, somaxconn).
    pub effective_backlog: u64,
    /// The length of its queue when it was last looked at.
    pub queue_len: u64,
    /// The longest that was seen.
    pub queue_peak: u64,
    /// What it dropped, since it listens.
    pub drops: u64,
    /// The processes that hold it.
    pub owners: Vec<String>,
}

impl ListenerRow {
    /// Of a listener, with the longest queue that was seen and its owners.
    #[must_use]
    pub fn new(listener: &Listener, queue_peak: u64, owners: Vec<String>) -> Self {
        let address = match &listener.at {
            ListenAt::Inet(address) => address.to_string(),
            ListenAt::Unix(name, _) => format!("unix:{name}"),
        };
        Self {
            address,
            effective_backlog: listener.backlog.into(),
            queue_len: listener.queue_len.into(),
            queue_peak: queue_peak.max(listener.queue_len.into()),
            drops: listener.drops.into(),
            owners,
        }
    }
}

/// The counters of the server's namespace.
#[derive(Debug, Clone, Copy, Serialize)]
#[allow(missing_docs)] // as those of `TcpExt`
pub struct CountersRow {
    pub listen_overflows: u64,
    pub listen_drops: u64,
    pub syncookies_sent: u64,
    pub req_q_full_drop: u64,
}

impl From<TcpExt> for CountersRow {
    fn from(counted: TcpExt) -> Self {
        Self {
            listen_overflows: counted.listen_overflows,
            listen_drops: counted.listen_drops,
            syncookies_sent: counted.syncookies_sent,
            req_q_full_drop: counted.req_q_full_drop,
        }
    }
}

/// What a freeze found.
#[derive(Debug, Clone, Serialize)]
pub struct FreezeRow {
    /// How many connections the queues admit, all together; none where they could not be
    /// filled.
    pub admitted: Option<u64>,
    /// min(backlog, somaxconn) + 1, of all listeners together.
    pub expected: u64,
    /// `full`, or why they could not be filled.
    pub ended: &'static str,
    /// What stood in the queues when the owners were stopped.
    pub queued_before: u64,
    /// What stood in them at the end.
    pub queued: u64,
    /// Dials that were made.
    pub dialed: u64,
    /// For how long the owners were stopped.
    pub stopped_ms: u64,
    /// The processes that were stopped and continued.
    pub stopped: Vec<String>,
    /// Those that were stopped already, and left so.
    pub stopped_before: Vec<String>,
}

impl From<&Freeze> for FreezeRow {
    fn from(freeze: &Freeze) -> Self {
        let before = freeze.listeners.iter().map(|one| u64::from(one.queued_before));
        Self {
            admitted: freeze.admitted(),
            expected: freeze.expected(),
            ended: name(freeze.end),
            queued_before: before.sum(),
            queued: freeze.queued(),
            dialed: freeze.dialed,
            stopped_ms: u64::try_from(freeze.lasted.as_millis()).unwrap_or(u64::MAX),
            stopped: freeze.stopped.clone(),
            stopped_before: freeze.stopped_before.clone(),
        }
    }
}

fn name(end: FillEnd) -> &'static str {
    match end {
        FillEnd::Full => "full",
        FillEnd::Deferred => "deferred",
        FillEnd::Unanswered => "unanswered",
        FillEnd::TimeOver => "time_over",
        FillEnd::Continued => "continued",
        FillEnd::Interrupted => "interrupted",
    }
}

/// What became of a burst.
#[derive(Debug, Clone, Default, Serialize)]
pub struct BurstRow {
    /// Dials that were made.
    pub dialed: u64,
    /// Established without a SYN sent again.
    pub at_once: u64,
    /// Established after the SYN was sent again, by when that was.
    pub delayed: BTreeMap<String, u64>,
    /// Established at this side alone, by either sign.
    pub phantoms: u64,
    /// Of these, those that the server knows nothing of: SYN cookies.
    pub phantoms_cookie: u64,
    /// Of these, those that it has half of: its SYN-ACKs went on.
    pub phantoms_request_socket: u64,
    /// Established, and known to the server.
    pub confirmed: u64,
    /// How that was found: `server_table` or `client_signs`.
    pub confirmed_by: &'static str,
    /// Of the confirmed, those that the application has; none where that is out of sight.
    pub accepted: Option<u64>,
    /// Of the confirmed, those in the accept queue; none where that is out of sight.
    pub queued: Option<u64>,
    /// Those on which the server waits for a first byte (TCP_DEFER_ACCEPT).
    pub deferred: u64,
    /// Answered by a RST or an ICMP error.
    pub refused: u64,
    /// Established, then reset.
    pub reset: u64,
    /// Established, then closed by the server.
    pub closed: u64,
    /// Not answered in the time that was given.
    pub never: u64,
    /// How long the dials took to make.
    pub dialed_in_ms: f64,
    /// How deep a burst the listener takes without loss, as this one shows it.
    pub depth: u64,
    /// Whether it would take more: nothing of this one was lost.
    pub depth_at_least: bool,
    /// Connections a second at which the queue drains; none where that was not seen.
    pub drains_per_s: Option<f64>,
    /// Whether it drains faster still.
    pub drains_at_least: bool,
    /// What the listeners dropped meanwhile; none where they are out of sight.
    pub drops: Option<u64>,
    /// The SYN timer of this host, in ms since the first: when SYNs are sent again.
    pub syn_steps_ms: Vec<u64>,
}

/// What a search found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct FindRow {
    /// The deepest burst that lost nothing.
    pub deepest_without_loss: Option<u64>,
    /// Why the search ended: `found`; `bound`, without any loss; `not_draining`;
    /// `interrupted`.
    pub ended: &'static str,
    /// The bursts behind it, in order.
    pub tries: Vec<TryRow>,
}

/// One burst of a search.
#[derive(Debug, Clone, Serialize)]
pub struct TryRow {
    /// Its depth.
    pub dialed: u64,
    /// Those that were not established at once, or are phantoms.
    pub lost: u64,
    /// How long the queue took to drain after it; none where it was not seen to.
    pub drained_in_ms: Option<f64>,
}

fn ms(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

impl From<&Burst> for BurstRow {
    fn from(burst: &Burst) -> Self {
        let (depth, depth_at_least) = burst.depth();
        let drain = burst.drain();
        let after = |(at, n): (&u64, &u64)| (format!("{}s", at / 1000), *n);
        Self {
            dialed: burst.dialed,
            at_once: burst.at_once,
            delayed: burst.delayed.iter().map(after).collect(),
            phantoms: burst.phantoms(),
            phantoms_cookie: burst.phantoms_cookie,
            phantoms_request_socket: burst.phantoms_request_socket,
            confirmed: burst.confirmed,
            confirmed_by: match burst.server {
                Some(_) => "server_table",
                None => "client_signs",
            },
            accepted: burst.server.map(|server| server.accepted),
            queued: burst.server.map(|server| server.queued),
            deferred: burst.deferred,
            refused: burst.refused,
            reset: burst.reset,
            closed: burst.closed,
            never: burst.never,
            dialed_in_ms: ms(burst.dialed_in),
            depth,
            depth_at_least,
            drains_per_s: drain.map(|drain| (drain.per_s * 10.0).round() / 10.0),
            drains_at_least: drain.is_some_and(|drain| drain.at_least),
            drops: burst.drops,
            syn_steps_ms: burst.steps_ms.clone(),
        }
    }
}

impl From<&Search> for FindRow {
    fn from(search: &Search) -> Self {
        let row = |one: &Try| TryRow {
            dialed: one.dialed,
            lost: one.lost,
            drained_in_ms: one.drained_in.map(ms),
        };
        Self {
            deepest_without_loss: search.deepest,
            ended: match search.end {
                SearchEnd::Found => "found",
                SearchEnd::Bound => "bound",
                SearchEnd::NotDraining => "not_draining",
                SearchEnd::Interrupted => "interrupted",
            },
            tries: search.tries.iter().map(row).collect(),
        }
    }
}
