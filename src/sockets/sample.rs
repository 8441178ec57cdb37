//! One look at a listener by its own host, as a document: what `sockscope backlog
//! TARGET --format ndjson` prints a line of, and a probe elsewhere takes as evidence.

use serde::{Deserialize, Serialize};

use super::block::AddressBlock;
use crate::host::counters::TcpExt;
use crate::host::process::ProcessView;

/// The name and version of the schema that this program writes.
pub const SCHEMA: &str = "sockscope.backlog_sample/1";

/// More of anything than a host holds; a sample that says so is none.
const MOST: u64 = 1 << 40;
/// The years 2001 and 2286: a clock that stands outside of them is none.
const CLOCKS_US: std::ops::Range<u64> = 1_000_000_000_000_000..10_000_000_000_000_000;
/// No more owners than this are taken from a sample.
const OWNERS_MAX: usize = 64;

/// A listener, whose it is, and what its host counts and allows, at one moment. What
/// could not be read is null. Drops and counters are totals, so that two samples give
/// what happened between them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// [`SCHEMA`].
    pub schema: String,
    /// The wall clock of that host, in µs since 1970.
    pub clock_unix_us: u64,
    /// Since the sampler began, by a clock that nobody sets, in µs.
    pub monotonic_us: u64,
    /// Where it listens: `0.0.0.0:443`, `unix:/path`; null: nothing listened so far.
    pub address: Option<String>,
    /// Whether it listens now.
    pub listening: bool,
    /// Listeners that share the address (SO_REUSEPORT).
    pub members: u64,
    /// The effective backlog, of all members together.
    pub backlog: u64,
    /// The length of the accept queue, of all members together.
    pub queue_len: u64,
    /// Members whose queue takes no more.
    pub full: u64,
    /// What its members have dropped (SK_MEMINFO_DROPS).
    pub drops: u64,
    /// Who made the listener.
    pub uid: Option<u32>,
    /// Processes, and threads with fd tables of their own, that hold it.
    pub owners: Vec<OwnerSample>,
    /// Processes whose descriptors the sampler may not read: with no owner, one of these
    /// holds it.
    pub owners_unreadable: u64,
    /// The TCP counters of the listener's network namespace.
    pub counters: Option<TcpExt>,
    /// net.core.somaxconn.
    pub somaxconn: Option<u64>,
    /// net.ipv4.tcp_abort_on_overflow.
    pub abort_on_overflow: Option<u64>,
    /// net.ipv4.tcp_syncookies.
    pub syncookies: Option<u64>,
    /// Tracked connections of the namespace.
    pub conntrack: Option<ConntrackSample>,
    /// Open files of the host.
    pub file_nr: Option<FilesSample>,
    /// MemAvailable of the host.
    pub mem_available_bytes: Option<u64>,
    /// The connections of some clients; about once a second, where they were named.
    pub counts: Option<CountsSample>,
}

/// An owner of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnerSample {
    /// The process.
    pub pid: u32,
    /// The thread whose fd table is meant; `pid` for the first.
    pub tid: u32,
    /// The name of its command, as it is.
    pub comm: String,
    /// Its state: `T` stopped, … (proc_pid_stat(5)).
    pub state: char,
    /// Its effective user.
    pub uid: u32,
    /// When it started, in clock ticks since the host did: with the pid, its identity.
    pub started: u64,
    /// Descriptors open in its table; at the limit, those numbered below the limit.
    pub open_fds: Option<u64>,
    /// RLIMIT_NOFILE, soft.
    pub nofile_soft: Option<u64>,
    /// RLIMIT_NOFILE, hard.
    pub nofile_hard: Option<u64>,
}

/// Tracked connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct ConntrackSample {
    pub count: u64,
    pub max: u64,
}

/// Open files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct FilesSample {
    pub open: u64,
    pub max: u64,
}

/// The listener's connections from some client addresses that came since the sampler
/// began, by how they stand (FACTS 7a).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CountsSample {
    /// The addresses: all of their connections count, whichever program's they are.
    pub from: Vec<AddressBlock>,
    /// Taken by the application.
    pub accepted: u64,
    /// In the accept queue.
    pub queued: u64,
    /// In SYN_RECV.
    pub deferred: u64,
    /// Closed by one end at least.
    pub closing: u64,
    /// From these addresses too, but there when the sampler began.
    pub earlier: u64,
    /// Of other clients, in any of the first three.
    pub others: u64,
}

/// Why a line is no sample.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SampleError {
    #[error("it is not JSON of that form: {0}")]
    Json(#[from] serde_json::Error),
    #[error("its schema is '{0}', and not {SCHEMA}")]
    Schema(String),
    #[error("its {0} is no number that a host could have")]
    Number(&'static str),
}

impl Sample {
    /// Reads a line. What it does not say is null or 0; what it says beyond this schema
    /// is left out.
    ///
    /// # Errors
    /// A [`SampleError`] for a line that is none.
    pub fn parse(line: &[u8]) -> Result<Self, SampleError> {
        let mut sample: Self = serde_json::from_slice(line)?;
        if sample.schema != SCHEMA {
            return Err(SampleError::Schema(sample.schema.chars().take(40).collect()));
        }
        if !CLOCKS_US.contains(&sample.clock_unix_us) {
            return Err(SampleError::Number("clock_unix_us"));
        }
        let tracked = sample.conntrack.unwrap_or_default();
        let counts = sample.counts.clone().unwrap_or_default();
        let files = sample.file_nr.unwrap_or_default();
        for (name, number) in [
            ("members", sample.members),
            ("backlog", sample.backlog),
            ("queue_len", sample.queue_len),
            ("full", sample.full),
            ("conntrack", tracked.count.max(tracked.max)),
            // fs.file-max is half of this on many hosts: no limit.
            ("file_nr", files.open.max(files.max) >> 23),
            ("counts.accepted", counts.accepted),
            ("counts.queued", counts.queued),
            ("counts.deferred", counts.deferred),
            ("counts.closing", counts.closing),
        ] {
            if number > MOST {
                return Err(SampleError::Number(name));
            }
        }
        sample.owners.truncate(OWNERS_MAX);
        Ok(sample)
    }
}

impl From<ProcessView> for OwnerSample {
    fn from(p: ProcessView) -> Self {
        Self {
            pid: p.pid,
            tid: p.tid,
            comm: p.comm,
            state: p.state,
            uid: p.uid,
            started: p.started,
            open_fds: p.open_fds,
            nofile_soft: p.nofile_soft,
            nofile_hard: p.nofile_hard,
        }
    }
}

impl From<&OwnerSample> for ProcessView {
    /// How many threads it has, a sample does not say: 0.
    fn from(o: &OwnerSample) -> Self {
        Self {
            pid: o.pid,
            tid: o.tid,
            comm: o.comm.clone(),
            state: o.state,
            uid: o.uid,
            threads: 0,
            nofile_soft: o.nofile_soft,
            nofile_hard: o.nofile_hard,
            open_fds: o.open_fds,
            started: o.started,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn full() -> Sample {
        Sample {
            schema: SCHEMA.into(),
            clock_unix_us: 1_795_449_912_042_000,
            monotonic_us: 100_000,
            address: Some("0.0.0.0:443".into()),
            listening: true,
            members: 1,
            backlog: 128,
            queue_len: 129,
            full: 1,
            drops: 38,
            uid: Some(33),
            owners: vec![OwnerSample {
                pid: 4711,
                tid: 4711,
                comm: "a \"b\"\u{1b}[0m".into(),
                state: 'S',
                open_fds: Some(1024),
                nofile_soft: Some(1024),
                nofile_hard: Some(u64::MAX),
                ..OwnerSample::default()
            }],
            counters: Some(TcpExt { listen_overflows: 38, ..TcpExt::default() }),
            conntrack: Some(ConntrackSample { count: 3, max: 262_144 }),
            file_nr: Some(FilesSample { open: 2_186, max: u64::MAX / 2 }),
            counts: Some(CountsSample {
                from: vec!["192.0.2.0/24".parse().unwrap()],
                accepted: 1_000,
                ..CountsSample::default()
            }),
            ..Sample::default()
        }
    }

    #[test]
    fn a_sample_reads_back_as_it_was_written() {
        let line = serde_json::to_vec(&full()).unwrap();
        assert!(!line.contains(&b'\n') && !line.contains(&0x1b));
        assert_eq!(Sample::parse(&line).unwrap(), full());
    }

    #[test]
    fn what_could_not_be_read_is_null() {
        let value = serde_json::to_value(Sample::default()).unwrap();
        for key in ["address", "uid", "counters", "somaxconn", "conntrack", "counts"] {
            assert!(value[key].is_null(), "{key}");
        }
    }

    #[test]
    fn a_line_that_is_no_sample_is_told_from_one_that_knows_less() {
        let least = json!({ "schema": SCHEMA, "clock_unix_us": 1_795_449_912_042_000_u64,
            "listening": true, "later": [1] });
        let sample = Sample::parse(least.to_string().as_bytes()).unwrap();
        assert!(sample.listening && sample.owners.is_empty());
        for (line, says) in [
            ("", "not JSON"),
            ("Last login: today", "not JSON"),
            ("{}", "its schema is ''"),
            ("[1]", "not JSON"),
            (r#"{"schema":"sockscope.run/1"}"#, "its schema is 'sockscope.run/1'"),
            (r#"{"schema":"sockscope.backlog_sample/1"}"#, "clock_unix_us"),
        ] {
            let error = Sample::parse(line.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "{line}: {error}");
        }
        let mut monstrous = least;
        monstrous["queue_len"] = json!(u64::MAX);
        let error = Sample::parse(monstrous.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains("queue_len"), "{error}");
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in any::<Vec<u8>>()) {
            let _ = Sample::parse(&line);
        }

        #[test]
        fn no_damaged_sample_makes_the_parser_panic(at in 0_usize..900, byte: u8) {
            let mut line = serde_json::to_vec(&full()).unwrap();
            let at = at % line.len();
            line[at] = byte;
            let _ = Sample::parse(&line);
            let _ = Sample::parse(&line[..at]);
        }
    }
}
