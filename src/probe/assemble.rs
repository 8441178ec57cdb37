//! From what was found to what is recorded: the pairs, the verdict, the run.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use super::dialer::{ClientEnd, Report};
use super::latency::LatencySeen;
use super::levels::{self, Confirmed};
use super::plan::{Close, EvidenceMode, Plan};
use super::run::Findings;
use super::server_view::{ServerEnd, ServerView};
use rustix::thread::CapabilitySet;

use super::service::{Expect, Service, Unserved};
use super::shared::Shared;
use super::sources::Tier;
use super::target::Endpoint;
use super::tuples::Tuple;
use crate::host::ProcRoot;
use crate::host::environment::environment;
use crate::host::memory::own_resident;
use crate::kernel::errno;
use crate::record::{
    self, Counts, Ended, Fds, Level, MemoryUse, PairRow, Phantoms, Run, RunResult,
    Target, TargetKind, Warning,
};
use crate::render::{count, micros, shell_word};
use crate::verdict::{Client, Latency, Tally, judge};

/// A dial that began this much after it was due makes the client a limit of its own.
const LATE_US: u64 = 100_000;

/// All that a run is made from.
pub(super) struct Parts<'a> {
    pub(super) plan: &'a Plan,
    pub(super) shared: &'a Shared,
    pub(super) findings: &'a Findings,
    pub(super) errors: &'a BTreeMap<i32, u64>,
    pub(super) words: &'a [Vec<u8>],
    pub(super) proc_root: &'a ProcRoot,
    pub(super) embedded: bool,
    /// Established a second while that still grew.
    pub(super) rate_per_s: f64,
    /// What was seen of the latency at which dialing was to stop.
    pub(super) latency: Option<LatencySeen>,
}

/// Our connections at both ends: an even share of each dialer's, up to `limit`.
pub(super) fn pairs(
    plan: &Plan,
    shared: &Shared,
    view: Option<&mut ServerView>,
    reports: &[Report],
    limit: usize,
) -> Vec<PairRow> {
    let share = limit.div_ceil(reports.len().max(1));
    let ends = reports.iter().flat_map(|r| r.ends.iter().take(share)).take(limit);
    let ends: Vec<ClientEnd> = ends.copied().collect();
    let counted = view.is_some();
    let (by_tuple, by_inode) = view.map_or_else(Default::default, |view| {
        let tuples: HashSet<Tuple> = ends.iter().filter_map(|end| end.tuple).collect();
        let inodes: HashSet<u64> = ends.iter().map(|end| end.inode).collect();
        // Without the server's ends the rows still have the client's.
        let by_tuple = view.ends(shared, &tuples).unwrap_or_default();
        let by_inode = if tuples.is_empty() {
            view.unix_ends(shared, &inodes).unwrap_or_default()
        } else {
            HashMap::new()
        };
        (by_tuple, by_inode)
    });
    let row = |end: &ClientEnd| {
        let server = match end.tuple {
            Some(tuple) => by_tuple.get(&tuple),
            None => by_inode.get(&end.inode),
        };
        let (local, remote) = addresses(plan, shared, end);
        let level = match (counted, server) {
            _ if end.served => Level::Served,
            (false, _) if shared.confirm => Level::Confirmed,
            (false, _) => Level::Established,
            (true, Some(_)) => Level::Accepted,
            (true, None) => Level::Queued,
        };
        PairRow {
            fd: end.fd,
            tid: Some(end.tid),
            inode: Some(end.inode),
            local,
            remote,
            level,
            server: server.map(server_end),
        }
    };
    ends.iter().map(row).collect()
}

fn server_end(end: &ServerEnd) -> record::ServerEnd {
    record::ServerEnd {
        pid: end.owner.map(|(pid, _, _)| pid),
        tid: end.owner.map(|(_, tid, _)| tid),
        fd: end.owner.and_then(|(_, _, fd)| i32::try_from(fd).ok()),
        inode: Some(end.inode),
    }
}

fn addresses(
    plan: &Plan,
    shared: &Shared,
    end: &ClientEnd,
) -> (record::Endpoint, record::Endpoint) {
    match (&plan.endpoint, end.tuple, &shared.tuples) {
        (Endpoint::Tcp(target), Some(tuple), Some(tuples)) => {
            let local = tuples.sources().at(tuple.source, tuple.port);
            (record::Endpoint::Inet(local), record::Endpoint::Inet(*target))
        }
        (endpoint, ..) => {
            let name = endpoint.to_string();
            let name = name.strip_prefix("unix:").unwrap_or(&name).to_owned();
            (record::Endpoint::Unix(String::new()), record::Endpoint::Unix(name))
        }
    }
}

/// What a reader of the numbers must know about how they came about.
pub(super) fn caveats(parts: &Parts<'_>) -> Vec<Warning> {
    let (plan, shared) = (parts.plan, parts.shared);
    let mut warnings = levels::caveats(parts);
    let mut warn = |code: &str, message: String| {
        warnings.push(Warning { code: code.into(), message });
    };
    let t = &parts.findings.after;
    if let Some((code, message)) = port_caveat(shared, t.kernel_ports) {
        warn(code, message.to_owned());
    }
    let pings = plan.service.as_ref().and_then(|s| s.ping);
    if let Some(ping) = pings
        && t.pings == 0
    {
        let ping = humantime::format_duration(ping);
        warn(
            "no_ping",
            format!("nothing was asked again: --hold ended before --ping {ping}"),
        );
    }
    if let Some(limit) = plan.stop_at_latency
        && parts.latency.is_none_or(|seen| seen.intervals == 0)
    {
        warn(
            "latency_unjudged",
            format!("there were too few samples to judge {limit} by"),
        );
    }
    if let Some(rate) = plan.rate
        && t.late_max_us > LATE_US
    {
        warn(
            "client_behind",
            format!(
                "this client fell behind its schedule of {rate}/s: {} dials began late, \
                 by up to {}; their latency counts from when they were due",
                count(t.late),
                micros(t.late_max_us)
            ),
        );
    }
    warnings
}

/// What the source ports that were used mean for others, or for the rate.
fn port_caveat(
    shared: &Shared,
    kernel_ports: bool,
) -> Option<(&'static str, &'static str)> {
    if kernel_ports {
        return Some((
            "kernel_ports",
            "source ports cannot be chosen here: the kernel searched for them, which is \
             slower and ends at ip_local_port_range",
        ));
    }
    match shared.tuples.as_ref()?.progress().1 {
        Tier::InRange => None,
        Tier::Others => Some((
            "ports_beyond_range",
            "ports outside of ip_local_port_range were held: a daemon that wanted one of \
             them could not have started",
        )),
        Tier::Spared => Some((
            "all_ports",
            "every port of ip_local_port_range was held, and ports outside of it: other \
             programs here could not connect anywhere (EADDRNOTAVAIL) meanwhile, nor \
             could a daemon that wanted one of these ports have started",
        )),
    }
}

fn tally(parts: &Parts<'_>, held: u64, level: Level) -> Tally {
    let (plan, f) = (parts.plan, parts.findings);
    let sum = |of: fn(&Report) -> u64| f.reports.iter().map(of).sum();
    let t = &f.after;
    let outside = Confirmed::at_peak(f, parts.shared).unwrap_or_default();
    Tally {
        target: plan.endpoint.to_string(),
        is_unix: matches!(plan.endpoint, Endpoint::Unix(_)),
        stop: f.stop,
        level,
        max: plan.max,
        dialed: t.dialed,
        established: t.established,
        errors: parts.errors.clone(),
        unanswered: t.timed_out + t.abandoned,
        looked_at: sum(|r| r.unanswered.looked_at),
        retransmitted: sum(|r| r.unanswered.retransmitted),
        silent: sum(|r| r.unanswered.silent),
        open: f.settled.open,
        server: f.server,
        server_after: f.server_after,
        held,
        asks: parts.shared.service.as_ref().map(asks),
        speaks: parts.shared.service.as_ref().is_some_and(|s| !s.speaks_first()),
        served: f.settled.served,
        unserved: named(&f.unserved),
        forgotten: t.forgotten,
        closings: f.closings,
        trial: f.trial,
        hold_s: plan.hold.as_secs_f64(),
        latency: parts.latency.zip(plan.stop_at_latency).map(|(seen, limit)| Latency {
            limit: limit.to_string(),
            of: if plan.service.is_some() { "replies" } else { "connects" },
            met: seen.met,
            last_us: seen.last_us,
            samples: seen.samples,
            pace_per_s: seen.gap_us.map(|gap_us| 1e6 / gap_us as f64),
        }),
        lost_in_hold: f.after.closed().saturating_sub(f.settled.closed()),
        half_open: outside.half_open,
        phantoms: t.phantoms,
        deferred: outside.deferred,
        closed_silent: t.closed_silent,
        closed_after_words: t.closed_after_words,
        closed_answered: t.closed_answered,
        closed_reset: t.closed_reset,
        closed_old: t.closed_old,
        elders: f.settled.elders,
        elders_open: f.settled.elders_open,
        words: parts
            .words
            .iter()
            .map(|said| crate::render::escaped(&String::from_utf8_lossy(said)))
            .collect(),
        duration_s: f.ramp_s,
        growth_per_s: f.growth_per_s,
        steadiness: f.steadiness,
        client: client(parts),
    }
}

/// What this side of the probe had and was allowed.
fn client(parts: &Parts<'_>) -> Client {
    let (plan, f) = (parts.plan, parts.findings);
    let t = &f.after;
    let tuples = parts.shared.tuples.as_ref();
    let ports = tuples.map(|t| t.sources().ports());
    Client {
        program: program(),
        may_raise: may_raise_limits(),
        is_root: rustix::process::geteuid().is_root(),
        fds_open: f.client_fds,
        fds_spare: f.spare_fds,
        lacks_threads: f.lacks_threads,
        fd_limit: f.fd_limit.0,
        fd_limit_hard: f.fd_limit.1,
        tables: t.tables,
        tables_allowed: plan.fd_tables.map(|n| n as u64),
        sources: tuples.map_or(0, |t| t.sources().len() as u64),
        sources_given: !plan.sources.is_empty(),
        // The kernel searches its own range alone.
        ports_per_source: ports.map_or(0, |p| {
            let kernels = t.kernel_ports;
            (if kernels { p.count_in_range() } else { p.count() }) as u64
        }),
        skipped: t.skipped,
        loopback: plan.endpoint.is_loopback(),
        memory_floor_bytes: plan.memory_floor_bytes,
        rate_per_s: plan.rate,
        late_max_us: t.late_max_us,
    }
}

/// How root calls this program. sudo(8) as a rule looks into the folders of the system
/// alone.
fn program() -> String {
    const SYSTEM: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];
    let file = std::env::current_exe().unwrap_or_default();
    match (file.parent(), file.file_name()) {
        (Some(folder), Some(name)) if !SYSTEM.iter().any(|s| folder == Path::new(s)) => {
            shell_word(&folder.join(name).to_string_lossy())
        }
        _ => env!("CARGO_PKG_NAME").to_owned(),
    }
}

fn named(by_why: &BTreeMap<Unserved, u64>) -> BTreeMap<String, u64> {
    let some = by_why.iter().filter(|(_, n)| **n > 0);
    some.map(|(why, n)| (why.name(), *n)).collect()
}

/// Whether this process has CAP_SYS_RESOURCE (capabilities(7)).
fn may_raise_limits() -> bool {
    let sets = rustix::thread::capabilities(None);
    sets.is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE))
}

/// What is asked, in words.
fn asks(service: &Service) -> String {
    match (&service.expect, service.speaks_first()) {
        (_, true) => "a greeting".into(),
        (Expect::Http, _) => "an HTTP request".into(),
        (_, false) => "what --send says".into(),
    }
}

/// Judges, and puts the run together.
pub(super) fn run(parts: &Parts<'_>) -> Run {
    let plan = parts.plan;
    let (held, level) = levels::held(parts);
    let tally = tally(parts, held, level);
    let verdict = judge(&tally, &parts.findings.evidence);
    let command = plan.command_line.iter().map(Into::into);
    Run {
        target: Target {
            given: plan.given.clone(),
            address: plan.endpoint.to_string(),
            kind: match plan.endpoint {
                _ if plan.is_http => TargetKind::Http,
                Endpoint::Tcp(_) => TargetKind::Tcp,
                Endpoint::Unix(_) => TargetKind::Unix,
            },
            embedded: parts.embedded,
            netns: plan.target_netns.clone(),
            seen_by: None,
        },
        plan: planned(plan, parts.findings.after.tables),
        environment: environment(parts.proc_root, command),
        result: result(parts, held, level),
        verdict,
        ..Run::default()
    }
}

/// The numbers; the latencies are added by who kept them.
fn result(parts: &Parts<'_>, held: u64, level: Level) -> RunResult {
    let f = parts.findings;
    let confirm = parts.shared.confirm;
    let outside = Confirmed::at_peak(f, parts.shared);
    let half_open = outside.map(|outside| outside.half_open);
    // Nothing seen is no proof of none.
    let deferred = outside.map(|outside| outside.deferred).filter(|n| *n > 0);
    let tables = f.evidence.owners.iter().map(|o| &o.process);
    let server_fds = tables
        .filter_map(|p| Some((p.open_fds?, p.nofile_soft)))
        .max_by_key(|(open, _)| *open);
    let cookie = confirm.then_some(f.settled.phantoms);
    RunResult {
        practical_max: held,
        level,
        counts: Counts {
            dialed: f.after.dialed,
            established: f.after.established,
            confirmed: outside.map(|outside| outside.confirmed),
            queued: f.server.map(|s| s.queued),
            accepted: f.server.map(|s| s.accepted),
            served: parts.shared.service.as_ref().map(|_| f.settled.served),
            deferred: f.server.map(|s| s.deferred).or(deferred),
        },
        phantoms: Phantoms {
            cookie,
            request_socket: f.server.map(|s| s.half_open).or(half_open),
            total: f
                .server
                .map(|s| s.phantoms)
                .or(cookie.zip(half_open).map(|(c, h)| c + h)),
        },
        unserved: named(&f.unserved),
        ended: (f.closings.aged > 0).then_some(Ended {
            connections: f.closings.aged,
            p10_ms: f.closings.p10_ms,
            p50_ms: f.closings.p50_ms,
            p90_ms: f.closings.p90_ms,
        }),
        held_peak: match level {
            Level::Accepted => f.server.map_or(held, |s| s.accepted).max(held),
            _ => f.peak.max(held),
        },
        duration_s: parts.shared.started.elapsed().as_secs_f64(),
        rate_per_s: parts.rate_per_s,
        errors: errors(parts),
        confirmation: confirm.then(|| levels::confirmation(f)),
        connect_latency_us: None,
        reply_latency_us: None,
        memory: MemoryUse {
            client_rss_bytes: own_resident(parts.proc_root).map_or(0, |r| r.peak_bytes),
            kernel_bytes_per_socket: f.kernel_bytes_per_socket,
        },
        fds: Fds {
            client_open: f.client_fds,
            client_limit: f.fd_limit.0,
            client_tables: u32::try_from(f.after.tables).unwrap_or(u32::MAX),
            server_open: server_fds.map(|(open, _)| open),
            server_limit: server_fds.and_then(|(_, limit)| limit),
            server_tables: server_fds
                .map(|_| u32::try_from(f.evidence.owners.len()))
                .and_then(Result::ok),
        },
    }
}

/// Dials of which nothing was left at the peak, by what they met.
fn errors(parts: &Parts<'_>) -> BTreeMap<String, u64> {
    let (f, at_peak) = (parts.findings, &parts.findings.settled);
    let refused: u64 = f.refusals.values().sum();
    let others = [
        ("timeout", at_peak.timed_out),
        ("unanswered", at_peak.abandoned),
        ("closed", at_peak.closed_silent + at_peak.closed_answered),
        ("rejected", at_peak.closed_after_words.saturating_sub(refused)),
        ("reset", at_peak.closed_reset),
        ("phantom", at_peak.phantoms),
    ];
    let met = others.into_iter().filter(|(_, n)| *n > 0);
    let by_errno = parts.errors.iter().map(|(e, n)| (errno::name(*e), *n));
    by_errno
        .chain(met.map(|(name, n)| (name.to_owned(), n)))
        .chain(named(&f.refusals))
        .collect()
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn planned(plan: &Plan, tables: u64) -> record::Plan {
    record::Plan {
        max: plan.max,
        rate_per_s: plan.rate,
        hold_s: plan.hold.as_secs_f64(),
        time_limit_s: plan.time_limit.as_secs_f64(),
        patience_s: plan.patience.as_secs_f64(),
        connect_timeout_s: plan.connect_timeout.as_secs_f64(),
        threads: u32::try_from(plan.threads).unwrap_or(u32::MAX),
        fd_tables: u32::try_from(tables).unwrap_or(u32::MAX),
        sources: plan.sources.iter().map(ToString::to_string).collect(),
        evidence: match &plan.evidence {
            EvidenceMode::Auto => "auto".into(),
            EvidenceMode::None => "none".into(),
            EvidenceMode::Command(command) => command.clone(),
        },
        close: match plan.close {
            Close::Fin => record::Close::Fin,
            Close::Rst => record::Close::Rst,
        },
        confirm: plan.confirm,
        send: plan.service.as_ref().filter(|s| !s.send.is_empty()).map(|s| text(&s.send)),
        expect: plan.service.as_ref().and_then(|s| match &s.expect {
            Expect::Text(expected) => Some(text(expected)),
            Expect::OneOf(texts) => {
                let texts: Vec<String> = texts.iter().map(|one| text(one)).collect();
                Some(texts.join(" or "))
            }
            Expect::Anything | Expect::Http => None,
        }),
        reply_timeout_s: plan.service.as_ref().map(|s| s.reply_timeout.as_secs_f64()),
        ping_s: plan.service.as_ref().and_then(|s| Some(s.ping?.as_secs_f64())),
        stop_at_latency: plan.stop_at_latency.map(|limit| limit.to_string()),
        authorized: plan.authorized,
        require: plan.require.clone(),
        ..record::Plan::default()
    }
}
