//! `sockscope probe`: arguments to a request, and what was learned to an exit code.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::embedded::Embedded;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::progress::ProgressLine;
use super::served::ServedArgs;
use super::{dry_run, parse, summary};
use crate::host::ProcRoot;
use crate::host::memory::memory;
use crate::probe::plan::{Close, EvidenceMode, Pairs};
use crate::probe::prepare::{Prepared, Request, prepare};
use crate::probe::remote::RemoteError;
use crate::probe::run::{Outcome, Surroundings, raise_nofile, run as run_probe};
use crate::probe::service::Service;
use crate::probe::sources::SourceRange;
use crate::probe::target::Target;
use crate::record::RunFolder;
use crate::render::{plural, seconds};

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
    #[arg(long, value_name = "TIME", value_parser = parse::duration, default_value = "2s")]
    hold: Duration,

    /// End the dialing after so long
    #[arg(long, value_name = "TIME", value_parser = parse::duration_above_0, default_value = "60s")]
    time_limit: Duration,

    /// Without growth for so long, a limit is reached
    #[arg(long, value_name = "TIME", value_parser = parse::duration_above_0, default_value = "3s")]
    patience: Duration,

    /// How long one dial may take
    #[arg(long, value_name = "TIME", value_parser = parse::duration_above_0, default_value = "10s")]
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

    #[command(flatten)]
    served: ServedArgs,

    /// The network namespace that the server is in: a name (`ip netns`) or a PID
    #[arg(long, value_name = "NAME|PID")]
    target_netns: Option<String>,

    /// How to close: fin or rst [default: rst on this host, fin elsewhere]
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

    /// How to print: table, or json (the content of run.json)
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// The same as --format json
    #[arg(short, long = "json", conflicts_with = "format")]
    json: bool,

    /// Read processes, limits and sysctls from here instead of /proc
    #[arg(long, value_name = "DIR", default_value = "/proc", hide = true)]
    proc_root: PathBuf,
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

/// Runs the command.
pub(super) fn run(args: &Args, output: Output) -> Result<Exit, Failure> {
    let format = if args.json { Format::Json } else { args.format };
    let (soft_before, hard) = nofile();
    let target = args.target.as_deref().map(Target::parse).transpose();
    let target = target.map_err(Failure::usage)?;
    let service = args.served.service(target.as_ref()).map_err(Failure::usage)?;
    let embedded_limit = hard.min(super::embedded::FD_LIMIT);
    if args.dry_run {
        let stand_in = Target::Tcp { host: "127.0.0.1".into(), port: 9 };
        let starts = target.is_none().then_some(embedded_limit);
        let mut prepared =
            prepare(request(args, target.unwrap_or(stand_in), service, None))
                .map_err(Failure::usage)?;
        let json = format == Format::Json;
        dry_run::print(&mut prepared, starts, json).map_err(|error| {
            Failure::lacking(
                anyhow::Error::new(error).context("the plan cannot be printed"),
            )
        })?;
        return Ok(Exit::Done);
    }
    let mut folder = match (&target, args.no_record) {
        (_, true) => None,
        (target, false) => Some(make_folder(args, target.as_ref())?),
    };
    let discard = |folder: Option<RunFolder>| {
        // Nothing was measured: an empty run is none.
        if let Some(folder) = folder {
            folder.discard();
        }
    };
    let embedded = match &target {
        Some(_) => None,
        None => match Embedded::start(embedded_limit) {
            Ok(embedded) => Some(embedded),
            Err(error) => {
                discard(folder);
                return Err(Failure::lacking(error));
            }
        },
    };
    let given = embedded.as_ref().map(|server| server.address.clone());
    let target =
        match target.map_or_else(|| Target::parse(given.as_deref().unwrap_or("")), Ok) {
            Ok(target) => target,
            Err(error) => {
                discard(folder);
                return Err(Failure::usage(error));
            }
        };
    let mut prepared = match prepare(request(args, target, service, given)) {
        Ok(prepared) => prepared,
        Err(error) => {
            discard(folder);
            return Err(Failure::usage(error));
        }
    };
    let interrupted = heed_signals()?;
    match prepared.begin_evidence(&interrupted) {
        Ok(()) => {}
        Err(error) => {
            discard(folder);
            if matches!(error, RemoteError::Interrupted) {
                output.note(&error.to_string());
                return Ok(Exit::Interrupted);
            }
            return Err(Failure::lacking(error));
        }
    }
    announce(&output, &prepared, embedded.is_some(), soft_before);
    let outcome =
        probe(prepared, folder.as_mut(), embedded.is_some(), &interrupted, &output)?;
    for warning in &outcome.run.warnings {
        output.note(&warning.message);
    }
    let path = folder.as_ref().map(RunFolder::path);
    let printed = match format {
        Format::Json => print_json(&outcome),
        Format::Table => summary::print(&outcome, path, &output),
    };
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let error = anyhow::Error::new(error).context("the result cannot be printed");
            return Err(Failure::lacking(error));
        }
        _ => {}
    }
    Ok(match outcome.interrupted {
        true => Exit::Interrupted,
        _ if outcome.run.result.counts.established == 0 => Exit::Lacking,
        _ => Exit::Done,
    })
}

fn nofile() -> (u64, u64) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX))
}

fn request(
    args: &Args,
    target: Target,
    service: Option<Service>,
    given: Option<String>,
) -> Request {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let proc_root = ProcRoot::new(&args.proc_root);
    let part = memory(&proc_root).map_or(0, |m| m.total_bytes / FLOOR_PART);
    let threads = args.threads.and_then(|n| usize::try_from(n).ok());
    Request {
        given: given.or(args.target.clone()).unwrap_or_default(),
        target,
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
        command_line: std::env::args_os()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect(),
        may_dial: !args.dry_run,
        proc_root,
    }
}

fn make_folder(args: &Args, target: Option<&Target>) -> Result<RunFolder, Failure> {
    let name = match (&args.target, target) {
        (Some(given), Some(_)) => given.as_str(),
        _ => "reference-server",
    };
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
