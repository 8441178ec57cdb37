//! `sockscope backlog TARGET --burst N` and `--find`.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::exit::{Exit, Failure};
use super::output::Output;
use super::parse;
use crate::backlog::burst::{Burst, Burster, Shape};
use crate::backlog::document::{BurstRow, Document, ListenerRow, SCHEMA};
use crate::backlog::find::{Limits, Search, SearchEnd, search};
use crate::backlog::judge::judge;
use crate::host::ProcRoot;
use crate::host::text::escaped;
use crate::kernel::errno;
use crate::probe::plan::{EvidenceMode, Pairs};
use crate::probe::prepare::{Request, prepare};
use crate::probe::ramp::Watch;
use crate::record::{Verdict, Warning};
use crate::render::{count, plural, rate, seconds};
use crate::sockets::target::Target;

/// The most dials of a burst: more than any queue is deep.
const DIALS_MAX: u64 = 1_000_000;
/// How long a queue that can be seen may take to drain between two tries.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct BurstArgs {
    /// Dial N times at once, and say what becomes of each over time
    ///
    /// A dial that a full queue drops is sent again by this host's SYN timer, and counts
    /// at the step at which it is established. Phantoms, which are established at this
    /// side alone, are told by the server's table where that is on this host, else by
    /// repeated SYN-ACKs and by keepalives. Dials unanswered after --for count as never.
    #[arg(long, value_name = "N", value_parser = dials, help_heading = "Burst",
        conflicts_with_all = ["freeze", "find", "count_from", "interval"])]
    burst: Option<u64>,

    /// Search for the deepest burst that loses nothing, by doubling and halving
    #[arg(long, help_heading = "Burst",
        conflicts_with_all = ["freeze", "count_from", "interval", "lasts"])]
    find: bool,

    /// The deepest burst that --find may try [default: 8192 on this host]
    #[arg(long, value_name = "N", value_parser = dials, requires = "find",
        help_heading = "Burst")]
    max: Option<u64>,

    /// Between two tries, where the queue cannot be seen to drain
    #[arg(long, value_name = "TIME", value_parser = parse::duration, default_value = "2s",
        requires = "find", help_heading = "Burst")]
    pause: Duration,

    /// You may load a target that is not this host; --find needs --max then
    #[arg(long, help_heading = "Burst")]
    authorized: bool,
}

impl BurstArgs {
    /// Whether a burst is to be made.
    pub(super) fn is_asked_for(&self) -> bool {
        self.burst.is_some() || self.find
    }
}

fn dials(text: &str) -> Result<u64, String> {
    match parse::count_from_1(text)? {
        n if n > DIALS_MAX => Err("at most 1M: no queue is deeper".into()),
        n => Ok(n),
    }
}

/// Runs the command.
pub(super) fn run(
    args: &BurstArgs,
    (given, target): (&str, Target),
    lasts: Option<Duration>,
    proc_root: ProcRoot,
    json: bool,
    output: Output,
) -> Result<Exit, Failure> {
    // Without --max the rules refuse a target that is not this host.
    let max = args.burst.or(args.max);
    let patience = lasts.unwrap_or(Duration::from_secs(10));
    let prepared = prepare(request(args, given, target, max, patience, proc_root))
        .map_err(Failure::usage)?;
    let listens = prepared.view.as_ref().map(|view| !view.listeners().is_empty());
    if listens == Some(false) {
        let why = anyhow::anyhow!("nothing listens on {} here", prepared.plan.endpoint);
        return Err(Failure::lacking(why));
    }
    let mut warnings = prepared.warnings.clone();
    output.note(&format!(
        "loading {}; its new clients may be turned away meanwhile",
        prepared.plan.endpoint
    ));
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone())
            .map_err(Failure::lacking)?;
    }
    let mut burster = Burster::new(prepared);
    let made = match args.burst {
        Some(dials) => {
            let shape = Shape { dials, patience };
            burster.burst(shape, &interrupted).map(Made::Burst)
        }
        None => {
            let most = args.max.unwrap_or(8192);
            let how = Limits { max: most, pause: args.pause, drain_within: DRAIN_WITHIN };
            search(&mut burster, how, &interrupted).map(Made::Search)
        }
    };
    let made = made.map_err(Failure::lacking)?;
    warnings.extend(caveats(&made, burster.view().is_some()));
    for warning in &warnings {
        output.note(&warning.message);
    }
    let document = document(&made, &mut burster, warnings);
    print(&made, &document, json)?;
    Ok(made.exit())
}

/// What was done.
enum Made {
    Burst(Burst),
    Search(Search),
}

impl Made {
    /// The burst to judge: of a search the last one that lost some.
    fn burst(&self) -> Option<&Burst> {
        match self {
            Self::Burst(burst) => Some(burst),
            Self::Search(search) => search.overflowed.as_ref(),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Burst(burst) if burst.interrupted => Exit::Interrupted,
            Self::Search(search) if search.end == SearchEnd::Interrupted => {
                Exit::Interrupted
            }
            Self::Burst(burst) if burst.at_once + delayed(burst) == 0 => Exit::Lacking,
            Self::Search(search) if search.end == SearchEnd::NotDraining => Exit::Lacking,
            _ => Exit::Done,
        }
    }
}

fn delayed(burst: &Burst) -> u64 {
    burst.delayed.values().sum()
}

fn request(
    args: &BurstArgs,
    given: &str,
    target: Target,
    max: Option<u64>,
    patience: Duration,
    proc_root: ProcRoot,
) -> Request {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Request {
        target,
        given: given.to_owned(),
        max,
        rate: None,
        hold: Duration::ZERO,
        time_limit: patience,
        patience,
        connect_timeout: patience,
        threads,
        fd_tables: None,
        close: None,
        sources: Vec::new(),
        evidence: EvidenceMode::Auto,
        confirm: true,
        service: None,
        stop_at_latency: None,
        target_netns: None,
        pairs: Pairs::Some(0),
        out: None,
        memory_floor_bytes: 0,
        authorized: args.authorized,
        command_line: Vec::new(),
        may_dial: true,
        proc_root,
    }
}

fn caveats(made: &Made, in_sight: bool) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |code: &str, message: &str| {
        warnings.push(Warning { code: code.into(), message: message.into() });
    };
    if !in_sight {
        warn(
            "client_alone",
            "from this side alone it cannot be known how long the queue is, what its \
             backlog is, or whether what was confirmed was accepted too; run it on the \
             server's host for that",
        );
    }
    if let Made::Burst(burst) = made
        && burst.deferred > 0
    {
        warn(
            "deferred",
            "the listener waits for a first byte (TCP_DEFER_ACCEPT), and none is sent: \
             what it deferred does not queue",
        );
    }
    match made {
        Made::Search(search) if search.end == SearchEnd::NotDraining => warn(
            "not_draining",
            "the queue did not drain within 10 s after a try: nobody accepts, so that \
             only the first burst can be told; --freeze gives what it admits",
        ),
        _ => {}
    }
    warnings
}

fn document(made: &Made, burster: &mut Burster, warnings: Vec<Warning>) -> Document {
    let mut document = Document {
        schema: SCHEMA,
        target: burster.endpoint().to_string(),
        warnings,
        ..Document::default()
    };
    let peak = made.burst().and_then(|b| b.queue.iter().map(|look| look.len).max());
    if let Some(view) = burster.view_mut() {
        let owners: Vec<String> = view
            .processes()
            .map(|p| format!("{}[{}]", escaped(&p.comm), p.pid))
            .collect();
        // A listener that is gone by now has been described before.
        let _ = view.glance();
        // Of several the peak is of all together, and so of none.
        let peak = peak.filter(|_| view.listeners().len() == 1).unwrap_or(0);
        let rows = view.listeners().iter();
        document.listeners =
            rows.map(|one| ListenerRow::new(one, peak, owners.clone())).collect();
        let evidence = view.evidence(u64::MAX);
        document.counters = evidence.counters.map(Into::into);
        document.somaxconn = evidence.somaxconn;
    }
    let owners = document.listeners.first().map(|one| one.owners.clone());
    let owners = owners.unwrap_or_default();
    document.verdict = made.burst().and_then(|b| judge(b, document.somaxconn, &owners));
    match made {
        Made::Burst(burst) => document.burst = Some(burst.into()),
        Made::Search(search) => document.find = Some(search.into()),
    }
    document
}

fn print(made: &Made, document: &Document, json: bool) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let printed = if json {
        serde_json::to_writer_pretty(&mut out, document)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        write!(out, "{}", summary(made, document))
    };
    match printed.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::lacking(error))
        }
        _ => Ok(()),
    }
}

fn summary(made: &Made, document: &Document) -> String {
    let mut lines = Vec::new();
    let owners = document.listeners.first().map(|l| l.owners.join(", "));
    let owners = owners.unwrap_or_default();
    lines.push(format!("{}  {owners}", document.target).trim_end().to_owned());
    match made {
        Made::Burst(burst) => lines.extend(of_burst(burst)),
        Made::Search(search) => lines.extend(of_search(search)),
    }
    if let Some(verdict) = &document.verdict {
        lines.extend(of_verdict(verdict));
    }
    lines.join("\n") + "\n"
}

fn of_burst(burst: &Burst) -> Vec<String> {
    let row = BurstRow::from(burst);
    let took = format!("{:.1} ms", row.dialed_in_ms);
    let mut lines = vec![format!("burst    {} in {took}", plural(burst.dialed, "dial"))];
    let mut came = vec![format!("{} at once", count(burst.at_once))];
    came.extend(burst.delayed.iter().map(|(ms, n)| {
        let after = Duration::from_millis(*ms).as_secs();
        format!("{} after {after} s", count(*n))
    }));
    for (n, what) in [
        (burst.refused, "refused"),
        (burst.never, "never"),
        (burst.reset, "reset"),
        (burst.closed, "closed"),
    ] {
        if n > 0 {
            came.push(format!("{} {what}", count(n)));
        }
    }
    lines.push(format!("became   {}", came.join(", ")));
    if !burst.errors.is_empty() {
        let names = burst.errors.iter();
        let names: Vec<String> =
            names.map(|(no, n)| format!("{} {}", count(*n), errno::name(*no))).collect();
        lines.push(format!("errors   {}", names.join(", ")));
    }
    let held = match &burst.server {
        Some(s) => format!(
            "{} accepted, {} queued (by the server's own table)",
            count(s.accepted),
            count(s.queued)
        ),
        None => format!("{} confirmed", count(burst.confirmed)),
    };
    lines.push(format!(
        "server   {held}; {} (cookie {}, request socket {})",
        plural(burst.phantoms(), "phantom"),
        count(burst.phantoms_cookie),
        count(burst.phantoms_request_socket)
    ));
    let (depth, at_least) = burst.depth();
    let least = if at_least { "at least " } else { "" };
    let admits = burst.backlog.map_or(String::new(), |(backlog, admits)| {
        format!("; backlog {}, admits {}", count(backlog), count(admits))
    });
    lines.push(format!("depth    {least}{} without loss{admits}", count(depth)));
    let drains = match burst.drain() {
        Some(drain) if drain.at_least => format!("at least {}", rate(drain.per_s)),
        Some(drain) => rate(drain.per_s),
        None => "not seen: nothing queued for long enough".into(),
    };
    lines.push(format!("drains   {drains}"));
    lines
}

fn of_search(search: &Search) -> Vec<String> {
    let least = if search.end == SearchEnd::Bound { "at least " } else { "" };
    let deepest = search.deepest.map_or("not known".into(), count);
    let mut lines = vec![format!("deepest  {least}{deepest} without loss")];
    for one in &search.tries {
        let drained = one.drained_in.map_or(String::new(), |took| {
            format!(", drained in {}", seconds(took.as_secs_f64()))
        });
        let lost = match one.lost {
            0 => "none lost".to_owned(),
            n => format!("{} lost", count(n)),
        };
        lines.push(format!("tried    {}: {lost}{drained}", count(one.dialed)));
    }
    lines
}

fn of_verdict(verdict: &Verdict) -> Vec<String> {
    let mut lines =
        vec![format!("verdict  {}, {}", verdict.code, verdict.confidence.name())];
    lines.push(format!("  {}", verdict.summary));
    lines.extend(verdict.remedy.iter().map(|remedy| format!("raise    {remedy}")));
    lines
}
