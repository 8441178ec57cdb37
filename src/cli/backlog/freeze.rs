//! `sockscope backlog TARGET --freeze`, and the watchdog behind it.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::exit::{Exit, Failure};
use super::output::Output;
use super::parse;
use crate::backlog::document::{Document, FreezeRow, ListenerRow, SCHEMA};
use crate::backlog::freeze::{FillEnd, Freeze, FreezeError, Prepared, WatchdogCommand};
use crate::backlog::owners::HoldersError;
use crate::backlog::watchdog;
use crate::host::ProcRoot;
use crate::record::Warning;
use crate::render::{count, plural, seconds};
use crate::sockets::watch::ListenerWatch;

/// Nothing is stopped for longer, whatever is asked for.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(super) struct FreezeArgs {
    /// Stop the server (SIGSTOP), fill its queue, and say how many it admits
    ///
    /// Every process that holds the listener is stopped, and continued whatever happens:
    /// an error, Ctrl-C, kill -9 of sockscope. A watchdog process sees to that. What it
    /// cannot outlive is a kill -9 of itself as well: then kill -CONT PID continues them.
    /// A process that was stopped before stays so. New clients are turned away meanwhile.
    #[arg(long, help_heading = "Freeze", conflicts_with_all = ["count_from", "lasts", "interval"])]
    pub(super) freeze: bool,

    /// Stop it for at most so long, up to 60s
    #[arg(long, value_name = "TIME", value_parser = freeze_for, default_value = "3s",
        requires = "freeze", help_heading = "Freeze")]
    freeze_for: Duration,

    /// Do not ask; needed where there is no terminal
    #[arg(long, requires = "freeze", help_heading = "Freeze")]
    yes: bool,
}

fn freeze_for(text: &str) -> Result<Duration, String> {
    match parse::duration_above_0(text)? {
        long if long > LONGEST => Err("at most 60s".into()),
        short if short < Duration::from_millis(50) => Err("must be 50ms or more".into()),
        some => Ok(some),
    }
}

/// Stands by to continue processes that another one stopped; not for people.
#[derive(Debug, clap::Args)]
pub(super) struct WatchdogArgs {
    /// Continue them after so many ms
    #[arg(long, value_name = "MS")]
    within_ms: u64,
}

/// Runs the watchdog.
pub(super) fn watch(args: &WatchdogArgs) -> Result<Exit, Failure> {
    watchdog::leave().map_err(Failure::lacking)?;
    let within = Duration::from_millis(args.within_ms);
    let ended =
        watchdog::watch(io::stdin().lock(), io::stdout(), within, &ProcRoot::default());
    ended.map(|_| Exit::Done).map_err(Failure::lacking)
}

/// Runs the command.
pub(super) fn run(
    args: &FreezeArgs,
    watch: ListenerWatch,
    json: bool,
    output: Output,
) -> Result<Exit, Failure> {
    let prepared = Prepared::new(watch, args.freeze_for).map_err(failure)?;
    if !args.yes && !is_agreed(&prepared)? {
        return Err(Failure::usage("not agreed: nothing was stopped"));
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone())
            .map_err(Failure::lacking)?;
    }
    let watchdog = WatchdogCommand {
        // This program, even where its file has been replaced since.
        program: "/proc/self/exe".into(),
        args: vec![
            "watchdog".into(),
            "--within-ms".into(),
            args.freeze_for.as_millis().to_string().into(),
        ],
    };
    let freeze = match prepared.run(&watchdog, &interrupted) {
        Ok(freeze) => freeze,
        Err(FreezeError::Interrupted) => {
            output.note(&FreezeError::Interrupted.to_string());
            return Ok(Exit::Interrupted);
        }
        Err(error) => return Err(failure(error)),
    };
    let warnings = warnings(&freeze);
    for warning in &warnings {
        output.note(&warning.message);
    }
    let mut out = io::stdout().lock();
    let printed = if json {
        serde_json::to_writer_pretty(&mut out, &document(&freeze, warnings))
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        write!(out, "{}", summary(&freeze))
    };
    match printed.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(Failure::lacking(error));
        }
        _ => {}
    }
    Ok(match freeze.end {
        FillEnd::Full => Exit::Done,
        FillEnd::Interrupted => Exit::Interrupted,
        _ => Exit::Lacking,
    })
}

/// What may not be stopped was refused before anything was; the rest is lacking.
fn failure(error: FreezeError) -> Failure {
    match error {
        FreezeError::Holders(HoldersError::Forbidden { .. }) => Failure::usage(error),
        other => Failure::lacking(other),
    }
}

/// Asks, on a terminal.
fn is_agreed(prepared: &Prepared) -> Result<bool, Failure> {
    let names: Vec<String> = prepared.holders().map(ToString::to_string).collect();
    if names.is_empty() {
        // All are stopped already, and stay so.
        return Ok(true);
    }
    let (names, address) = (names.join(", "), prepared.address());
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let why = format!(
            "--freeze stops {names}; there is no terminal to ask at, so add --yes if \
             that may be"
        );
        return Err(Failure::usage(why));
    }
    let mut err = io::stderr().lock();
    let most = seconds(prepared.freeze_for().as_secs_f64());
    let asked = write!(
        err,
        "Stop {names} for at most {most}, and fill the queue of {address}?\n\
         New clients are turned away meanwhile, and a supervisor sees SIGCHLD. [y/N] "
    );
    asked.and_then(|()| err.flush()).map_err(Failure::lacking)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(Failure::lacking)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn warnings(freeze: &Freeze) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |code: &str, message: String| {
        warnings.push(Warning { code: code.into(), message });
    };
    let names = freeze.stopped.join(", ");
    match freeze.end {
        FillEnd::Full => {}
        FillEnd::Deferred => warn(
            "deferred",
            "connections are established but do not queue: the listener waits for a \
             first byte (TCP_DEFER_ACCEPT), and none is sent"
                .into(),
        ),
        FillEnd::Unanswered => warn(
            "unanswered",
            "dials are not answered though the queue has room: a packet filter drops \
             them, or the request queue is full"
                .into(),
        ),
        FillEnd::TimeOver => {
            warn("time_over", "the time was over before the queue was full".into());
        }
        FillEnd::Continued => warn(
            "continued",
            format!("{names} ran before the queue was full: somebody else continued it"),
        ),
        FillEnd::Interrupted => warn("interrupted", format!("interrupted; {names} runs")),
    }
    if freeze.unreadable > 0 && freeze.end != FillEnd::Full {
        let n = plural(freeze.unreadable as u64, "process");
        warn(
            "owners_unreadable",
            format!("{n} could not be looked into, and may accept too: run it by sudo"),
        );
    }
    warnings
}

fn document(freeze: &Freeze, warnings: Vec<Warning>) -> Document {
    let owners: Vec<String> =
        freeze.stopped.iter().chain(&freeze.stopped_before).cloned().collect();
    let row = |one: &crate::backlog::freeze::Filled| {
        ListenerRow::new(&one.listener, one.queued_before.into(), owners.clone())
    };
    Document {
        schema: SCHEMA,
        target: freeze.address.clone(),
        listeners: freeze.listeners.iter().map(row).collect(),
        freeze: Some(freeze.into()),
        counters: freeze.counters.map(Into::into),
        somaxconn: freeze.somaxconn,
        warnings,
        ..Document::default()
    }
}

fn summary(freeze: &Freeze) -> String {
    let row = FreezeRow::from(freeze);
    let mut lines = Vec::new();
    let who = match (&freeze.stopped[..], &freeze.stopped_before[..]) {
        ([], before) => {
            format!("{} was stopped already, and stays so", before.join(", "))
        }
        (stopped, _) => format!(
            "{} stopped for {} ms, runs again",
            stopped.join(", "),
            count(row.stopped_ms)
        ),
    };
    lines.push(format!("{}  {who}", freeze.address));
    let admits = match row.admitted {
        Some(admitted) if admitted == row.expected => {
            format!("{} connections: min(backlog, somaxconn) + 1", count(admitted))
        }
        Some(admitted) => {
            format!("{} connections, not {}", count(admitted), count(row.expected))
        }
        None => format!(
            "not known: {} of {} were queued when it ended",
            count(row.queued),
            count(row.expected)
        ),
    };
    lines.push(format!("admits   {admits}"));
    for one in freeze.listeners.iter().filter(|_| freeze.listeners.len() > 1) {
        let (queued, expected) = (one.listener.queue_len.into(), one.expected());
        lines.push(format!("         {} of {} at one", count(queued), count(expected)));
    }
    let backlog: Vec<String> = freeze
        .listeners
        .iter()
        .map(|one| count(u64::from(one.listener.backlog)))
        .collect();
    let somaxconn = freeze.somaxconn.map_or("?".into(), count);
    let capped = freeze
        .listeners
        .iter()
        .any(|l| freeze.somaxconn == Some(l.listener.backlog.into()));
    let capped = if capped {
        " (all that it allows: the server may have asked for more)"
    } else {
        ""
    };
    lines.push(format!(
        "backlog  {} effective; somaxconn {somaxconn}{capped}",
        backlog.join(" + ")
    ));
    lines.push(format!(
        "queue    {} before, {} at the end; {} dialed, {} established",
        count(row.queued_before),
        count(row.queued),
        count(freeze.dialed),
        count(freeze.established)
    ));
    lines.join("\n") + "\n"
}
