//! What became of connections that were made to an accept queue.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What became of a burst.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BurstDoc {
    /// Dials that were made.
    pub dialed: u64,
    /// How long it took to make them.
    pub dialed_in_ms: f64,
    /// Established without a SYN sent again.
    pub at_once: u64,
    /// Established after the SYN was sent again, by when that was: `"1s"`, `"2s"`.
    pub delayed: BTreeMap<String, u64>,
    /// Answered by an error: a RST, an ICMP error, or EAGAIN of a unix socket.
    pub refused: u64,
    /// Those errors by their names.
    pub errors: BTreeMap<String, u64>,
    /// Not answered in the time that was given.
    pub never: u64,
    /// Established, then reset.
    pub reset: u64,
    /// Established, then closed by the server.
    pub closed: u64,
    /// Established at this side alone, by either sign.
    pub phantoms: u64,
    /// Of these, those that the server knows nothing of: SYN cookies.
    pub phantoms_cookie: u64,
    /// Of these, those that it has half of: it repeats its SYN-ACKs.
    pub phantoms_request_socket: u64,
    /// Established, and known to the server.
    pub confirmed: u64,
    /// How that was found: `server_table` or `client_signs`.
    pub confirmed_by: String,
    /// Of the confirmed, those that the application has; null where that is out of sight.
    pub accepted: Option<u64>,
    /// What stood in the queue before the first dial; null where that is out of sight.
    pub queued_before: Option<u64>,
    /// Of the confirmed, those in the accept queue; null where that is out of sight.
    pub queued: Option<u64>,
    /// Those on which the server waits for a first byte (TCP_DEFER_ACCEPT).
    pub deferred: u64,
    /// How deep a burst the listener takes without loss, as this one shows it.
    pub depth: u64,
    /// Whether it may take more: nothing of this one was lost.
    pub depth_at_least: bool,
    /// Connections a second at which the queue drains; null where that was not seen.
    pub drains_per_s: Option<f64>,
    /// Whether it may drain faster.
    pub drains_at_least: bool,
    /// What the listeners dropped meanwhile; null where they are out of sight, and for a
    /// unix socket.
    pub drops: Option<u64>,
    /// The SYN timer of this host, in ms since the first: when SYNs are sent again. Empty
    /// for a unix socket.
    pub syn_steps_ms: Vec<u64>,
}

impl BurstDoc {
    /// [`Self::delayed`] by the second, not by the letter: `10s` after `2s`.
    #[must_use]
    pub fn delayed_in_order(&self) -> Vec<(u64, u64)> {
        let second = |after: &str| after.trim_end_matches('s').parse();
        let all = self.delayed.iter();
        let mut all: Vec<(u64, u64)> =
            all.map(|(after, n)| (second(after).unwrap_or(u64::MAX), *n)).collect();
        all.sort_unstable();
        all
    }
}

/// What a search for the deepest burst without loss found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FindDoc {
    /// The deepest burst that lost nothing; null where no try was made.
    pub deepest_without_loss: Option<u64>,
    /// What stood in the queue before the first try; null where that is out of sight.
    pub queued_before: Option<u64>,
    /// Why the search ended: `found`; `bound`, without any loss; `not_draining`;
    /// `interrupted`.
    pub ended: String,
    /// The bursts behind it, in order.
    pub tries: Vec<TryDoc>,
}

/// One burst of a search.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TryDoc {
    /// Its depth.
    pub dialed: u64,
    /// Those that were not established at once, or that the server lost.
    pub lost: u64,
    /// How long the queue took to drain after it; null where it was not seen to.
    pub drained_in_ms: Option<f64>,
}

/// How many connections a queue admits while every process that holds it is stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FreezeDoc {
    /// How many the queues admit, all together; null where they could not be filled.
    pub admitted: Option<u64>,
    /// min(backlog, somaxconn) + 1, of all listeners together.
    pub expected: u64,
    /// `full`, or why they could not be filled: `deferred`, `unanswered`, `time_over`,
    /// `continued`, `interrupted`.
    pub ended: String,
    /// What stood in the queues when the processes were stopped.
    pub queued_before: u64,
    /// What stood in them at the end.
    pub queued: u64,
    /// Dials that were made.
    pub dialed: u64,
    /// Of these, those that were established.
    pub established: u64,
    /// For how long the processes were stopped.
    pub stopped_ms: u64,
    /// The processes that were stopped and continued.
    pub stopped: Vec<ProcessDoc>,
    /// Those that were stopped already, and left so.
    pub stopped_before: Vec<ProcessDoc>,
}

/// A process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[allow(missing_docs)]
pub struct ProcessDoc {
    pub pid: u32,
    /// Its command's name, what does not print escaped.
    pub comm: String,
}

#[cfg(test)]
mod tests {
    use super::super::BacklogDoc;
    use super::*;

    #[test]
    fn what_was_made_reads_back_as_it_was_written() {
        let tries = vec![
            TryDoc { dialed: 128, lost: 0, drained_in_ms: Some(0.5) },
            TryDoc { dialed: 256, lost: 127, drained_in_ms: None },
        ];
        let doc = BacklogDoc {
            burst: Some(BurstDoc {
                dialed: 300,
                delayed: [("1s".to_owned(), 20)].into(),
                errors: [("ECONNREFUSED".to_owned(), 2)].into(),
                ..BurstDoc::default()
            }),
            find: Some(FindDoc {
                deepest_without_loss: Some(129),
                ended: "found".into(),
                tries,
                ..FindDoc::default()
            }),
            freeze: Some(FreezeDoc {
                admitted: Some(129),
                stopped: vec![ProcessDoc { pid: 7, comm: "nginx".into() }],
                ..FreezeDoc::default()
            }),
            ..BacklogDoc::default()
        };
        let text = serde_json::to_string(&doc).unwrap();
        assert_eq!(serde_json::from_str::<BacklogDoc>(&text).unwrap(), doc);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(value.get("watched").is_none() && value.get("flow").is_none());
        assert_eq!(value["burst"]["drops"], serde_json::Value::Null, "not 0");
        assert_eq!(value["freeze"]["stopped"][0]["pid"], 7);
    }
}
