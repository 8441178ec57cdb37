//! What was learned of an accept queue, as a document and as a run.

use std::ffi::OsString;
use std::time::{Duration, SystemTime};

use super::judge::{Judgement, judge};
use super::list;
use super::observe::{EndedBy, Observation};
use crate::host::ProcRoot;
use crate::host::environment::environment;
use crate::record::backlog::{BacklogDoc, Flow, ListenerDoc, Watched};
use crate::record::{Plan, Run, Target, TargetKind, Timestamp, Warning};
use crate::sockets::target::Endpoint;

/// A gap so long may have hidden a burst.
const LONG_GAP: Duration = Duration::from_millis(20);

/// What was asked, for the record.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The target as it was typed.
    pub given: String,
    /// What was watched, or dialed.
    pub endpoint: Endpoint,
    /// The network namespace that was named.
    pub netns: Option<String>,
    /// When it began.
    pub started: SystemTime,
    /// Between two looks.
    pub interval: Duration,
    /// For how long; of a burst, how long an answer is waited for; of a freeze, how long
    /// anything may be stopped.
    pub lasts: Duration,
}

/// The document of a watch.
#[must_use]
pub fn document(asked: &Asked, o: &Observation) -> BacklogDoc {
    let Judgement { verdict, backlog_needed } = judge(o);
    let seconds = o.lasted.as_secs_f64().max(1e-3);
    #[allow(clippy::cast_precision_loss)]
    let a_second = |n: u64| n as f64 / seconds;
    let ended_by = match o.ended_by {
        EndedBy::Overflow => "overflow",
        EndedBy::Interrupted => "interrupted",
        EndedBy::Time => "time",
    };
    let left = o.members.iter().map(|member| member.gauge.left()).sum();
    BacklogDoc {
        watched: Some(Watched {
            duration_s: o.lasted.as_secs_f64(),
            samples: o.samples,
            rate_per_s: a_second(o.samples),
            longest_gap_us: u64::try_from(o.longest_gap.as_micros()).unwrap_or(u64::MAX),
            cpu_share: o.cpu.as_secs_f64() / seconds,
            ended_by: ended_by.to_owned(),
        }),
        listeners: o.members.iter().map(|member| listener(o, member)).collect(),
        flow: Some(Flow {
            accepts_per_s_at_least: a_second(left),
            accepts_per_s_at_most: o.accepts_at_most(),
            drains_per_s: o.drains_per_s(),
            other_listeners: o.totals.map_or(0, |totals| totals.other_listeners),
            passive_opens_per_s: o.totals.map(|t| a_second(t.counters.passive_opens)),
        }),
        counters: o.totals.map(|totals| totals.counters),
        sysctls: o.sysctls.clone(),
        syn_recv: o.syn_recv,
        verdict,
        backlog_needed,
        warnings: warnings(asked, o),
        ..begun(asked, o.members.first().map(|member| member.listener.at.to_string()))
    }
}

/// The document of what was asked, with nothing learned yet; `address` is where it
/// listens, where that is known.
pub(super) fn begun(asked: &Asked, address: Option<String>) -> BacklogDoc {
    BacklogDoc {
        started: Timestamp::from(asked.started),
        target: Target {
            given: asked.given.clone(),
            address: address.unwrap_or_else(|| asked.endpoint.to_string()),
            kind: match asked.endpoint {
                Endpoint::Tcp(_) => TargetKind::Tcp,
                Endpoint::Unix(_) => TargetKind::Unix,
            },
            netns: asked.netns.clone(),
            ..Target::default()
        },
        ..BacklogDoc::default()
    }
}

fn listener(o: &Observation, member: &super::observe::Member) -> ListenerDoc {
    let inode = member.listener.inode;
    let owners: Vec<_> =
        o.owners.iter().filter(|(of, _)| *of == inode).map(|(_, owner)| *owner).collect();
    let unreadable = usize::from(o.hidden_owner.is_some());
    let doc = list::document(&member.listener, &owners, unreadable);
    ListenerDoc {
        listening: member.is_there,
        queue_peak: member.gauge.peak().into(),
        drops_watched: doc.drops.map(|_| member.gauge.drops()),
        queue: Some(member.gauge.stats()),
        ..doc
    }
}

fn warnings(asked: &Asked, o: &Observation) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |code: &str, message: String| {
        warnings.push(Warning { code: code.to_owned(), message });
    };
    let took = o.longest_gap;
    if took > LONG_GAP.max(asked.interval * 3) {
        let ms = took.as_millis();
        let message =
            format!("once no look was taken for {ms} ms: a burst may be missed");
        warn("gap", message);
    }
    if o.is_unix() {
        let message = "the kernel counts neither dials nor refusals of a unix socket: what \
                       was turned away between two looks is not known";
        warn("unix", message.to_owned());
    }
    warnings
}

/// The run of what was learned.
#[must_use]
pub fn run(
    asked: &Asked,
    document: BacklogDoc,
    root: &ProcRoot,
    command: impl IntoIterator<Item = OsString>,
) -> Run {
    Run {
        started: document.started,
        finished: Timestamp::now(),
        target: document.target.clone(),
        plan: Plan { time_limit_s: asked.lasts.as_secs_f64(), ..Plan::default() },
        environment: environment(root, command),
        warnings: document.warnings.clone(),
        verdict: document.verdict.clone(),
        backlog: Some(document),
        ..Run::default()
    }
}
