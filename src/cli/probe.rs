//! `sockscope probe`: arguments to a request, and what was learned to an exit code.

use std::io::{self, BufWriter, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::embedded;
use super::exit::{Exit, Failure};
use super::gate::{Gate, GateArgs};
use super::output::Output;
use super::progress::ProgressLine;
use super::served::ServedArgs;
use super::{dry_run, parse, repeat, report, summary};
use crate::host::ProcRoot;
use crate::host::memory::memory;
use crate::probe::plan::{Close, EvidenceMode, Pairs};
use crate::probe::prepare::{PrepareError, Prepared, Request, prepare};
use crate::probe::remote::RemoteError;
use crate::probe::run::{Outcome, Surroundings, raise_nofile, run as run_probe};
use crate::probe::server_view::ViewError;
use crate::probe::service::Service;
use crate::probe::sources::SourceRange;
use crate::probe::target::{Endpoint, Target};
use crate::record::{Repeat, Run, RunFolder, TargetKind};
use crate::render::{plural, seconds};
use crate::report::metrics;
use crate::report::repeat::together;
use crate::server::child::Child;

/// Memory that is always left: this, or one part in [`FLOOR_PART`] of all.
const FLOOR_BYTES: u64 = 256 << 20;
const FLOOR_PART: u64 = 20;

/// Open connections until something stops them, and say what did
///
/// Without TARGET it starts a reference server and probes that. Targets: 8080,
/// localhost:8080, tcp://host:port, http://host:port/path, [::1]:8080, unix:/path,
/// unix:@name.
///
/// Ctrl-C or SIGTERM ends it in order: everything is closed and the record written, exit
/// code 130. A second one ends it at once.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct Args {
    /// What to probe: host:port, PORT, tcp://host:port, http://host:port/path, unix:/path
    /// or unix:@name
    target: Option<String>,

    /// Stop at N connections [default: at the first limit]
    #[arg(long, value_name = "N", value_parser = parse::connections)]
    max: Option<u64>,

    /// Dials a second, kept even when answers are slow [default: as fast as it goes]
    #[arg(long, value_name = "N", value_parser = parse::rate)]
    rate: Option<f64>,

    /// Hold what was opened for so long, and watch what drops out
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = parse::duration, default_value = "2s")]
    hold: Duration,

    /// End the dialing after so long
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = parse::duration_above_0, default_value = "60s")]
    time_limit: Duration,

    /// Without growth for so long, a limit is reached
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = parse::duration_above_0, default_value = "3s")]
    patience: Duration,

    /// How long one dial may take
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = parse::duration_above_0, default_value = "10s")]
    connect_timeout: Duration,

    /// Threads that dial at a time [default: one a core]
    #[arg(long, value_name = "N", value_parser = parse::threads)]
    threads: Option<u64>,

    /// fd tables to spread the connections over: a number, or auto
    #[arg(long, value_name = "N|auto", value_parser = parse::tables, default_value = "auto")]
    fd_tables: parse::Tables,

    /// Dial from this address or CIDR block; repeatable
    #[arg(long, value_name = "ADDR|CIDR", value_parser = source)]
    source: Vec<SourceRange>,

    /// Look at the server's side where it is on this host (auto), see what a client far
    /// away sees (none), or run a command that tells of the server from its own host, as
    /// 'ssh db1 sockscope backlog :5432 --format ndjson'; it cannot ask for a password.
    /// With --count-from and this client's addresses in it, connections are counted as
    /// accepted
    #[arg(long, value_name = "auto|none|COMMAND", value_parser = evidence, default_value = "auto")]
    evidence: EvidenceMode,

    /// Tell connections from phantoms where the server cannot be seen (auto), or not (off)
    #[arg(long, value_enum, default_value_t = ConfirmName::Auto)]
    confirm: ConfirmName,

    /// Probe so many times, a record each; from 5 on it says how sure the median is
    #[arg(long, value_name = "N", value_parser = parse::repeats, default_value = "1")]
    repeat: u64,

    /// The network namespace that the server is in: a name (`ip netns`) or a PID
    #[arg(long, value_name = "NAME|PID")]
    target_netns: Option<String>,

    /// How to close: fin or rst [default: rst on this host, fin elsewhere]. A listener
    /// that sends SYN cookies may take the last ACK after a FIN for a new connection
    #[arg(long, value_enum)]
    close: Option<CloseName>,

    /// You may load a target that is not this host; needs --max
    #[arg(long)]
    authorized: bool,

    /// Held connections that sockets.csv lists: a number, or all
    #[arg(long, value_name = "N|all", value_parser = pairs, default_value = "1000")]
    pairs: Pairs,

    /// Show the plan and the predicted ceiling; open nothing
    #[arg(long)]
    dry_run: bool,

    /// The folder in which the run's own folder is made
    #[arg(long, value_name = "DIR", default_value = "results/runs")]
    out: PathBuf,

    /// Record nothing
    #[arg(long)]
    no_record: bool,

    /// Write no report.html and report.md beside the record
    #[arg(long)]
    no_report: bool,

    /// How to print: table, json (the content of run.json), or openmetrics
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// The same as --format json
    #[arg(short, long = "json", conflicts_with = "format")]
    json: bool,

    /// Read processes, limits and sysctls from here instead of /proc
    #[arg(long, value_name = "DIR", default_value = "/proc", hide = true)]
    proc_root: PathBuf,

    #[command(flatten)]
    served: ServedArgs,

    #[command(flatten)]
    gate: GateArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ConfirmName {
    Auto,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CloseName {
    Fin,
    Rst,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
    Openmetrics,
}

fn source(text: &str) -> Result<SourceRange, String> {
    SourceRange::parse(text).map_err(|error| error.to_string())
}

fn evidence(text: &str) -> Result<EvidenceMode, String> {
    match text.trim() {
        "" => Err("there are auto, none, or a command".into()),
        "auto" => Ok(EvidenceMode::Auto),
        "none" => Ok(EvidenceMode::None),
        _ => Ok(EvidenceMode::Command(text.to_owned())),
    }
}

fn pairs(text: &str) -> Result<Pairs, String> {
    if text == "all" {
        return Ok(Pairs::All);
    }
    let n = parse::count(text).map_err(|why| format!("{why}, or all"))?;
    Ok(Pairs::Some(usize::try_from(n).unwrap_or(usize::MAX)))
}

/// What is to be probed: the target as it was understood, and its addresses.
#[derive(Debug, Clone)]
struct Goal {
    endpoints: Vec<Endpoint>,
    is_http: bool,
    given: String,
}

impl Goal {
    fn of(target: &Target, given: &str) -> Result<Self, Failure> {
        let is_http = matches!(target, Target::Http { .. });
        let endpoints = target.resolve().map_err(Failure::usage)?;
        Ok(Self { endpoints, is_http, given: given.to_owned() })
    }
}

/// Runs the command.
pub(super) fn run(args: &Args, output: Output) -> Result<Exit, Failure> {
    let (soft_before, hard) = nofile();
    let target = args.target.as_deref().map(Target::parse).transpose();
    let target = target.map_err(Failure::usage)?;
    let service = args.served.service(target.as_ref()).map_err(Failure::usage)?;
    let goal = target.as_ref().zip(args.target.as_deref());
    let goal = goal.map(|(target, given)| Goal::of(target, given)).transpose()?;
    let embedded_limit = hard.min(embedded::FD_LIMIT);
    let kind = match &target {
        Some(Target::Http { .. }) => TargetKind::Http,
        Some(Target::Unix(_)) => TargetKind::Unix,
        _ => TargetKind::Tcp,
    };
    let gate = args.gate.prepare(Some(kind))?;
    if args.dry_run {
        return show_plan(args, goal, service, embedded_limit, &output);
    }
    let interrupted = heed_signals()?;
    let mut whole: Vec<Done> = Vec::new();
    loop {
        let number = whole.len() as u64 + 1;
        if args.repeat > 1 {
            output.note(&format!("run {number} of {}", args.repeat));
        }
        let begun =
            Begun { goal: goal.clone(), service: service.clone(), embedded_limit };
        let says = (number == 1).then_some(soft_before);
        let done = match once(args, begun, says, &interrupted, &output) {
            Ok(done) => done,
            Err(failure) => {
                // What went before it counts all the same.
                if !whole.is_empty() {
                    conclude(args, &mut whole, None, &gate, &output)?;
                }
                return Err(failure);
            }
        };
        if done.outcome.interrupted {
            return conclude(args, &mut whole, Some(&done), &gate, &output);
        }
        let in_vain = done.outcome.run.result.counts.established == 0;
        whole.push(done);
        if in_vain || number == args.repeat {
            return conclude(args, &mut whole, None, &gate, &output);
        }
    }
}

/// A run, and where its record is.
struct Done {
    outcome: Outcome,
    folder: Option<RunFolder>,
    /// Whether a report is beside it.
    reported: bool,
}

/// What each run begins with.
struct Begun {
    goal: Option<Goal>,
    service: Option<Service>,
    embedded_limit: u64,
}

/// Probes once; `says` is the soft RLIMIT_NOFILE of before, where it is to be said what
/// the probe does to others.
fn once(
    args: &Args,
    begun: Begun,
    says: Option<u64>,
    interrupted: &AtomicBool,
    output: &Output,
) -> Result<Done, Failure> {
    let mut folder = match args.no_record {
        true => None,
        false => Some(make_folder(args)?),
    };
    let Begun { goal, service, embedded_limit } = begun;
    let begun = begin(args, goal, service, embedded_limit, interrupted);
    let (prepared, embedded) = begun.inspect_err(|_| {
        // Nothing was measured: an empty run is none.
        if let Some(folder) = folder.take() {
            folder.discard();
        }
    })?;
    if let Some(soft_before) = says {
        announce(output, &prepared, embedded.is_some(), soft_before);
    }
    let outcome =
        probe(prepared, folder.as_mut(), embedded.is_some(), interrupted, output)?;
    for warning in &outcome.run.warnings {
        output.note(&warning.message);
    }
    let reported = folder
        .as_ref()
        .filter(|_| !args.no_report)
        .is_some_and(|folder| write_report(&outcome, folder, output));
    Ok(Done { outcome, folder, reported })
}

/// Prints the last run, and what the whole ones have together; holds these against what
/// was required. One that was cut short is none of the repeats.
fn conclude(
    args: &Args,
    whole: &mut [Done],
    cut_short: Option<&Done>,
    gate: &Gate<'_>,
    output: &Output,
) -> Result<Exit, Failure> {
    let repeat = (args.repeat > 1 && !whole.is_empty()).then(|| all_of(whole));
    if let (Some(repeat), Some(done)) = (&repeat, whole.last_mut()) {
        done.outcome.run.repeat = Some(repeat.clone());
        if let Some(folder) = &done.folder {
            if let Err(error) = folder.write_run(&done.outcome.run) {
                let note = format!("the repeats are not in the last run.json: {error}");
                output.note(&note);
            } else if done.reported {
                done.reported = write_report(&done.outcome, folder, output);
            }
        }
    }
    let Some(last) = cut_short.or(whole.last()) else { return Ok(Exit::Lacking) };
    let path = last.folder.as_ref().map(RunFolder::path);
    let printed = match args.format() {
        Format::Json => print_json(&last.outcome),
        Format::Openmetrics => {
            metrics::write(BufWriter::new(io::stdout().lock()), &last.outcome.run)
        }
        Format::Table => summary::print(&last.outcome, path, last.reported, output)
            .and_then(|()| repeat.as_ref().map_or(Ok(()), repeat::print)),
    };
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let error = anyhow::Error::new(error).context("the result cannot be printed");
            return Err(Failure::lacking(error));
        }
        _ => {}
    }
    let mut runs: Vec<Run> = whole.iter().map(|done| done.outcome.run.clone()).collect();
    if runs.is_empty() {
        runs.push(last.outcome.run.clone());
    }
    let met = gate.check(&runs, output)?;
    Ok(match last.outcome.interrupted {
        true => Exit::Interrupted,
        _ if last.outcome.run.result.counts.established == 0 => Exit::Lacking,
        _ => met,
    })
}

/// What these runs have together.
fn all_of(whole: &[Done]) -> Repeat {
    let runs: Vec<Run> = whole.iter().map(|done| done.outcome.run.clone()).collect();
    let folders = whole.iter().filter_map(|done| done.folder.as_ref());
    let names = folders.filter_map(|folder| {
        folder.path().file_name().map(|name| name.to_string_lossy().into_owned())
    });
    together(&runs, names.collect())
}

/// Prepares the probe of `goal`, or else of a server that it starts for it.
fn begin(
    args: &Args,
    goal: Option<Goal>,
    service: Option<Service>,
    embedded_limit: u64,
    interrupted: &AtomicBool,
) -> Result<(Prepared, Option<Child>), Failure> {
    let (goal, embedded) = match goal {
        Some(goal) => (goal, None),
        None => {
            let server = embedded::start(embedded_limit).map_err(Failure::lacking)?;
            let target = Target::parse(&server.address).map_err(Failure::usage)?;
            (Goal::of(&target, &server.address)?, Some(server))
        }
    };
    let mut prepared = prepare(request(args, goal, service)).map_err(not_begun)?;
    prepared.begin_evidence(interrupted).map_err(|error| match error {
        RemoteError::Interrupted => Failure::interrupted(error),
        error => Failure::lacking(error),
    })?;
    if interrupted.load(Relaxed) {
        return Err(Failure::interrupted("interrupted before anything was dialed"));
    }
    Ok((prepared, embedded))
}

/// What was asked for means nothing or is refused; or this host lacks a right.
fn not_begun(error: PrepareError) -> Failure {
    match error {
        PrepareError::View(ViewError::NetnsClosed { .. })
        | PrepareError::Addresses(_) => Failure::lacking(error),
        _ => Failure::usage(error),
    }
}

/// Prints what would be done, and opens nothing.
fn show_plan(
    args: &Args,
    goal: Option<Goal>,
    service: Option<Service>,
    embedded_limit: u64,
    output: &Output,
) -> Result<Exit, Failure> {
    let starts = goal.is_none().then_some(embedded_limit);
    let goal = goal.unwrap_or_else(|| {
        let stand_in = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let endpoints = vec![Endpoint::Tcp(stand_in)];
        Goal { endpoints, is_http: false, given: String::new() }
    });
    if args.format() == Format::Openmetrics {
        return Err(Failure::usage(
            "--dry-run measures nothing: it prints table or json",
        ));
    }
    let prepared = prepare(request(args, goal, service)).map_err(not_begun)?;
    for warning in &prepared.warnings {
        output.note(&warning.message);
    }
    dry_run::print(prepared, starts, args.format() == Format::Json).map_err(|error| {
        Failure::lacking(anyhow::Error::new(error).context("the plan cannot be printed"))
    })?;
    Ok(Exit::Done)
}

impl Args {
    fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

fn nofile() -> (u64, u64) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX))
}

fn request(args: &Args, goal: Goal, service: Option<Service>) -> Request {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let proc_root = ProcRoot::new(&args.proc_root);
    let part = memory(&proc_root).map_or(0, |m| m.total_bytes / FLOOR_PART);
    let threads = args.threads.and_then(|n| usize::try_from(n).ok());
    Request {
        endpoints: goal.endpoints,
        is_http: goal.is_http,
        given: goal.given,
        max: args.max,
        rate: args.rate,
        hold: args.hold,
        time_limit: args.time_limit,
        patience: args.patience,
        connect_timeout: args.connect_timeout,
        threads: threads.unwrap_or(cores),
        fd_tables: args.fd_tables.0,
        close: args.close.map(|close| match close {
            CloseName::Fin => Close::Fin,
            CloseName::Rst => Close::Rst,
        }),
        sources: args.source.clone(),
        evidence: args.evidence.clone(),
        confirm: args.confirm == ConfirmName::Auto,
        service,
        stop_at_latency: args.served.stop_at_latency,
        target_netns: args.target_netns.clone(),
        pairs: args.pairs,
        out: (!args.no_record).then(|| args.out.clone()),
        memory_floor_bytes: part.max(FLOOR_BYTES),
        authorized: args.authorized,
        require: args.gate.text(),
        command_line: std::env::args_os()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect(),
        may_dial: !args.dry_run,
        proc_root,
    }
}

fn make_folder(args: &Args) -> Result<RunFolder, Failure> {
    let name = args.target.as_deref().unwrap_or("reference-server");
    RunFolder::create(&args.out, SystemTime::now(), name).map_err(Failure::usage)
}

/// Says in one line what the probe does to others, where it loads a server that it did
/// not start.
fn announce(output: &Output, prepared: &Prepared, embedded: bool, soft_before: u64) {
    let plan = &prepared.plan;
    let idle = prepared.view.as_ref().is_some_and(|view| view.listeners().is_empty());
    if !embedded && !idle {
        let about = plan.hold + plan.patience;
        output.note(&format!(
            "loading {}; its new clients may be turned away for about {}",
            plan.endpoint,
            seconds(about.as_secs_f64())
        ));
    }
    let (soft, _) = raise_nofile();
    if soft > soft_before {
        output.detail(&format!(
            "RLIMIT_NOFILE of this process raised from {soft_before} to {soft}"
        ));
    }
}

/// Sees to Ctrl-C: the first ends the probe in order, a second at once.
fn heed_signals() -> Result<Arc<AtomicBool>, Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for (signal, code) in [(SIGINT, 130), (SIGTERM, 143)] {
        flag::register_conditional_shutdown(signal, code, interrupted.clone())
            .and_then(|_| flag::register(signal, interrupted.clone()))
            .map_err(Failure::lacking)?;
    }
    Ok(interrupted)
}

/// Runs the probe.
fn probe(
    prepared: Prepared,
    folder: Option<&mut RunFolder>,
    embedded: bool,
    interrupted: &AtomicBool,
    output: &Output,
) -> Result<Outcome, Failure> {
    let line = ProgressLine::new(output, prepared.plan.max);
    let mut show = |progress: &crate::probe::Progress| line.show(progress);
    let around = Surroundings { interrupted, show: &mut show, folder, embedded };
    let outcome = run_probe(prepared, around);
    line.clear();
    outcome.map_err(Failure::lacking)
}

/// Writes the report into the folder of the run, and says whether it is there: without
/// it the run is no less.
fn write_report(outcome: &Outcome, folder: &RunFolder, output: &Output) -> bool {
    if outcome.run.warnings.iter().any(|warning| warning.code == "run_json") {
        return false;
    }
    let written = report::write_beside(folder);
    if let Err(error) = &written {
        output.note(&format!("the report is not written: {error:#}"));
    }
    written.is_ok()
}

fn print_json(outcome: &Outcome) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &outcome.run)?;
    writeln!(out)?;
    out.flush()
}

/// `3 tables`, for the dry run.
pub(super) fn tables(n: Option<usize>) -> String {
    n.map_or("as many fd tables as are needed".into(), |n| plural(n as u64, "fd table"))
}
