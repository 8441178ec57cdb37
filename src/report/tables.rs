//! What was asked, where it ran, and its samples, as tables.

use super::page::{Block, Section, Table};
use super::series::thinned;
use crate::record::{Close, Phase, Record, Run, Sample, TargetKind};
use crate::render::{bytes, count, escaped, micros, plural, rate, seconds, shell_word};

/// Rows of the timeline that are shown.
const ROWS: usize = 100;

/// The plan of a run.
pub(super) fn plan(run: &Run) -> Section {
    let command: Vec<String> =
        run.environment.command.iter().map(|word| shell_word(word)).collect();
    let blocks = vec![
        Block::Commands(vec![command.join(" ")]),
        Block::Table(Table::of_pairs("What was asked", asked(run))),
    ];
    Section { id: "plan", title: "Plan", blocks }
}

fn asked(run: &Run) -> Vec<(String, String)> {
    let (p, t) = (&run.plan, &run.target);
    let mut rows: Vec<(&str, String)> = vec![
        ("target", escaped(&t.given)),
        ("address", t.address.clone()),
        (
            "kind",
            match t.kind {
                TargetKind::Tcp => "tcp",
                TargetKind::Http => "http",
                TargetKind::Unix => "unix",
            }
            .to_owned(),
        ),
    ];
    let optional: Vec<(&str, Option<String>)> = vec![
        ("network namespace", t.netns.clone()),
        ("seen by", t.seen_by.as_ref().map(|seen| escaped(&seen.command))),
    ];
    rows.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    rows.push(("time limit", seconds(p.time_limit_s)));
    if run.backlog.is_none() {
        rows.extend(of_probe(run));
    }
    rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn of_probe(run: &Run) -> Vec<(&'static str, String)> {
    let p = &run.plan;
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let mut rows = vec![
        ("stop at", p.max.map_or("the first limit".into(), |n| plural(n, "connection"))),
        ("rate", p.rate_per_s.map_or("as fast as it goes".into(), rate)),
        ("hold", seconds(p.hold_s)),
        ("patience", seconds(p.patience_s)),
        ("connect timeout", seconds(p.connect_timeout_s)),
        ("threads", count(p.threads.into())),
        ("fd tables", count(p.fd_tables.into())),
        (
            "sources",
            match p.sources.is_empty() {
                true => "the default".into(),
                false => p.sources.join(", "),
            },
        ),
        ("evidence", escaped(&p.evidence)),
        ("phantoms told apart", yes(p.confirm)),
        (
            "closed by",
            match p.close {
                Close::Fin => "FIN",
                Close::Rst => "RST",
            }
            .to_owned(),
        ),
        ("--authorized", yes(p.authorized)),
    ];
    let optional = [
        ("sent", p.send.clone()),
        ("expected", p.expect.clone()),
        ("reply timeout", p.reply_timeout_s.map(seconds)),
        ("asked again every", p.ping_s.map(seconds)),
        ("stop at latency", p.stop_at_latency.clone()),
        ("required", p.require.clone()),
        (
            "predicted",
            p.predicted.as_ref().map(|predicted| {
                format!("{}: {}", count(predicted.connections), predicted.ceiling)
            }),
        ),
    ];
    rows.extend(
        optional.into_iter().filter_map(|(name, value)| Some((name, escaped(&value?)))),
    );
    rows
}

/// Where a run took place.
pub(super) fn environment(run: &Run) -> Section {
    let e = &run.environment;
    let size = |n: Option<u64>| n.map_or_else(|| "not read".to_owned(), bytes);
    let limit = |n: Option<u64>| n.map_or_else(|| "unlimited".to_owned(), count);
    let able: Vec<&str> = [
        ("net_admin", e.capabilities.net_admin),
        ("sys_admin", e.capabilities.sys_admin),
        ("sys_ptrace", e.capabilities.sys_ptrace),
    ]
    .into_iter()
    .filter_map(|(name, has)| has.then_some(name))
    .collect();
    let host = [
        ("sockscope", e.sockscope.clone()),
        ("kernel", format!("{} {}", e.kernel, e.machine)),
        ("cores", count(e.cores.into())),
        ("memory", size(e.memory_total_bytes)),
        ("memory available", size(e.memory_available_bytes)),
        ("user id", e.uid.to_string()),
        (
            "capabilities",
            if able.is_empty() { "none of these".to_owned() } else { able.join(", ") },
        ),
        ("RLIMIT_NOFILE soft", limit(e.nofile_soft)),
        ("RLIMIT_NOFILE hard", limit(e.nofile_hard)),
        ("files open on the host", e.file_nr.map_or("not read".into(), count)),
        ("began", run.started.to_string()),
        ("ended", run.finished.to_string()),
    ];
    let host = host.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let sysctls = e.sysctls.iter().map(|(name, value)| (name.clone(), escaped(value)));
    let blocks = vec![
        Block::Table(Table::of_pairs("The probe's host", host)),
        Block::Table(Table::of_pairs("Its sysctls", sysctls.collect())),
    ];
    Section { id: "environment", title: "Environment", blocks }
}

type Column = (&'static str, fn(&Sample) -> Option<String>);

/// The columns of the timeline; those that are empty in every row are left out.
const COLUMNS: &[Column] = &[
    ("dialed", |s| Some(count(s.dialed))),
    ("in flight", |s| Some(count(s.in_flight))),
    ("established", |s| Some(count(s.established))),
    ("queued", |s| s.queued.map(count)),
    ("held", |s| Some(count(s.held))),
    ("failed", |s| Some(count(s.failed))),
    ("closed", |s| Some(count(s.closed))),
    ("rate", |s| Some(rate(s.rate_per_s))),
    ("p50", |s| s.connect_p50_us.map(micros)),
    ("p99", |s| s.connect_p99_us.map(micros)),
    ("served", |s| s.served.map(count)),
    ("reply p50", |s| s.reply_p50_us.map(micros)),
    ("reply p99", |s| s.reply_p99_us.map(micros)),
    ("server fds", |s| s.server_open_fds.map(count)),
    ("drops", |s| s.listen_drops.map(count)),
];
/// Those that a watch of an accept queue fills.
const OF_A_WATCH: [&str; 3] = ["queued", "server fds", "drops"];

/// The samples of a run.
pub(super) fn timeline(record: &Record) -> Section {
    let all = &record.timeline.samples;
    let shown = thinned(all, ROWS);
    let watch = record.run.as_ref().is_some_and(|run| run.backlog.is_some());
    let columns: Vec<&Column> = COLUMNS
        .iter()
        .filter(|(name, _)| !watch || OF_A_WATCH.contains(name))
        .filter(|(_, value)| shown.iter().any(|sample| value(sample).is_some()))
        .collect();
    let rows = shown
        .iter()
        .map(|sample| {
            let time = format!("{:.2}", sample.t_s);
            let values = columns
                .iter()
                .map(|(_, value)| value(sample).unwrap_or_else(|| "–".to_owned()));
            [time, phase(sample.phase).to_owned()].into_iter().chain(values).collect()
        })
        .collect();
    let number = columns.len();
    let names = columns.iter().map(|(name, _)| (*name).to_owned());
    let said = match (all.len(), shown.len()) {
        (0, _) => "There is no sample.".to_owned(),
        (1, _) => "There is one sample.".to_owned(),
        (all, shown) if shown < all => format!(
            "{} of {}, evenly taken; all are in timeline.ndjson.",
            count(shown as u64),
            plural(all as u64, "sample")
        ),
        (all, _) => format!("All {}.", plural(all as u64, "sample")),
    };
    let mut blocks = vec![Block::Text(said)];
    if !all.is_empty() {
        blocks.push(Block::Table(Table {
            caption: "Samples".into(),
            headings: ["s", "phase"].map(Into::into).into_iter().chain(names).collect(),
            numeric: [true, false].into_iter().chain(vec![true; number]).collect(),
            rows,
        }));
    }
    Section { id: "timeline", title: "Timeline", blocks }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Ramp => "ramp",
        Phase::Stalled => "stalled",
        Phase::Confirm => "confirm",
        Phase::Hold => "hold",
        Phase::Close => "close",
    }
}
