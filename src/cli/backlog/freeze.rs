//! `sockscope backlog TARGET --freeze`, and the watchdog behind it.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, SystemTime};

use super::args::Args;
use super::attach::{Named, attach_listening, inside};
use super::record::Recorder;
use super::{conclude, heed_signals};
use crate::backlog::HoldersError;
use crate::backlog::freeze::{FillEnd, FreezeError, Prepared, WatchdogCommand};
use crate::backlog::loads::of_freeze;
use crate::backlog::report::Asked;
use crate::backlog::watchdog;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::Output;
use crate::cli::parse;
use crate::host::ProcRoot;
use crate::render::seconds;
use crate::sockets::target::Target;

/// Nothing is stopped for longer, whatever is asked for.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct FreezeArgs {
    /// Stop the server (SIGSTOP), fill its queue, and say how many it admits
    ///
    /// Every process that holds the listener is stopped, and continued whatever happens:
    /// an error, Ctrl-C, kill -9 of sockscope. A watchdog process sees to that. What it
    /// cannot outlive is a kill -9 of itself as well: then kill -CONT PID continues them.
    /// A process that was stopped before stays so. New clients are turned away meanwhile.
    #[arg(long, help_heading = "Freeze",
        conflicts_with_all = ["count_from", "lasts", "interval", "rate", "all_netns",
            "wait_for_overflow"])]
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
pub(in crate::cli) struct WatchdogArgs {
    /// Continue them after so many ms
    #[arg(long, value_name = "MS")]
    within_ms: u64,
}

/// Runs the watchdog.
pub(in crate::cli) fn watch(args: &WatchdogArgs) -> Result<Exit, Failure> {
    watchdog::leave().map_err(Failure::lacking)?;
    let within = Duration::from_millis(args.within_ms);
    let ended =
        watchdog::watch(io::stdin().lock(), io::stdout(), within, &ProcRoot::default());
    ended.map(|_| Exit::Done).map_err(Failure::lacking)
}

/// Runs the command.
pub(super) fn run(args: &Args, given: &str, output: &Output) -> Result<Exit, Failure> {
    let root = ProcRoot::new(&args.proc_root);
    let named = args.netns.as_ref().map(|spec| Named::find(spec, &root)).transpose()?;
    inside(named.as_ref(), || measure(args, given, named.as_ref(), output))
}

fn measure(
    args: &Args,
    given: &str,
    named: Option<&Named>,
    output: &Output,
) -> Result<Exit, Failure> {
    let root = ProcRoot::new(&args.proc_root);
    let target = Target::parse(given).map_err(Failure::usage)?;
    let watch = attach_listening(&target, &root, named)?;
    let asked = Asked {
        given: given.to_owned(),
        endpoint: watch.endpoint().clone(),
        netns: args.netns.clone(),
        started: SystemTime::now(),
        interval: Duration::ZERO,
        lasts: args.freeze.freeze_for,
    };
    let prepared = Prepared::new(watch, args.freeze.freeze_for).map_err(failure)?;
    if !args.freeze.yes && !is_agreed(&prepared)? {
        return Err(Failure::usage("not agreed: nothing was stopped"));
    }
    // Not before it was asked: Ctrl-C ends a question at once.
    let interrupted = heed_signals()?;
    let recorder = Recorder::create(args, &asked)?;
    let freeze = match prepared.run(&watchdog_of(&args.freeze), &interrupted) {
        Ok(freeze) => freeze,
        Err(error) => {
            recorder.discard();
            return Err(failure(error));
        }
    };
    conclude(args, &asked, of_freeze(&asked, &freeze), recorder, output)?;
    Ok(match freeze.end {
        FillEnd::Full => Exit::Done,
        FillEnd::Interrupted => Exit::Interrupted,
        _ => Exit::Lacking,
    })
}

fn watchdog_of(args: &FreezeArgs) -> WatchdogCommand {
    let within_ms = args.freeze_for.as_millis().to_string();
    WatchdogCommand {
        // This program, even where its file has been replaced since.
        program: "/proc/self/exe".into(),
        args: vec!["watchdog".into(), "--within-ms".into(), within_ms.into()],
    }
}

/// What may not be stopped was refused before anything was; the rest is lacking.
fn failure(error: FreezeError) -> Failure {
    match error {
        FreezeError::Holders(HoldersError::Forbidden { .. }) => Failure::usage(error),
        FreezeError::Interrupted => Failure::interrupted(error),
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
