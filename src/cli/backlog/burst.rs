//! `sockscope backlog TARGET --burst N` and `--find`.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use clap::ValueEnum;

use super::args::Args;
use super::attach::{Named, attach, inside};
use super::record::Recorder;
use super::{conclude, heed_signals};
use crate::backlog::burst::{Burst, BurstError, Burster, Shape};
use crate::backlog::find::{Limits, Search, SearchEnd, search};
use crate::backlog::loads::{of_burst, of_search};
use crate::backlog::report::Asked;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::Output;
use crate::cli::parse;
use crate::cli::progress::LiveLine;
use crate::host::ProcRoot;
use crate::probe::plan::{EvidenceMode, Pairs};
use crate::probe::prepare::{PrepareError, Prepared, Request, prepare};
use crate::probe::safety::Refusal;
use crate::record::backlog::BacklogDoc;
use crate::record::{Phase, Sample};
use crate::render::{count, seconds};
use crate::sockets::target::{Endpoint, Target};

/// The most dials of a burst: more than any queue is deep.
const DIALS_MAX: u64 = 1_000_000;
/// The deepest burst that a search tries unless told otherwise.
const FIND_MAX: u64 = 8192;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a queue that can be seen may take to drain between two tries.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct BurstArgs {
    /// Dial N times at once, and say what becomes of each over time
    ///
    /// A dial that a full queue drops is sent again by this host's SYN timer, and counts
    /// at the step at which it is established. Phantoms, which are established at this
    /// side alone, are told by the server's table where that is on this host, else by
    /// repeated SYN-ACKs and by keepalives. Dials unanswered after --for count as never.
    #[arg(long, value_name = "N", value_parser = dials, help_heading = "Burst",
        conflicts_with_all = ["freeze", "find", "count_from", "interval", "rate",
            "all_netns", "wait_for_overflow"])]
    pub(super) burst: Option<u64>,

    /// Search for the deepest burst that loses nothing, by doubling and halving
    #[arg(long, help_heading = "Burst",
        conflicts_with_all = ["freeze", "count_from", "interval", "rate", "lasts",
            "all_netns", "wait_for_overflow"])]
    pub(super) find: bool,

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
    pub(super) authorized: bool,

    /// Whether the server's side is looked at: on this host, and by root in the other
    /// network namespaces of it; none is the view of a client elsewhere
    #[arg(long, value_enum, default_value_t = Evidence::Auto, help_heading = "Burst")]
    evidence: Evidence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Evidence {
    Auto,
    None,
}

impl BurstArgs {
    /// Whether connections are to be made.
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
pub(super) fn run(args: &Args, given: &str, output: &Output) -> Result<Exit, Failure> {
    let root = ProcRoot::new(&args.proc_root);
    let named = args.netns.as_ref().map(|spec| Named::find(spec, &root)).transpose()?;
    let interrupted = heed_signals()?;
    inside(named.as_ref(), || measure(args, given, named.as_ref(), &interrupted, output))
}

fn measure(
    args: &Args,
    given: &str,
    named: Option<&Named>,
    interrupted: &AtomicBool,
    output: &Output,
) -> Result<Exit, Failure> {
    let root = ProcRoot::new(&args.proc_root);
    let patience = args.lasts.unwrap_or(PATIENCE);
    let target = Target::parse(given).map_err(Failure::usage)?;
    let endpoints = endpoints(&target, &root, named)?;
    let request = request(&args.burst, given, endpoints, patience, root.clone());
    let prepared = prepare(request).map_err(|error| refused(error, &args.burst))?;
    let asked = Asked {
        given: given.to_owned(),
        endpoint: prepared.plan.endpoint.clone(),
        netns: args.netns.clone(),
        started: SystemTime::now(),
        interval: Duration::ZERO,
        lasts: patience,
    };
    if prepared.view.as_ref().is_some_and(|view| view.listeners().is_empty()) {
        let why = anyhow::anyhow!("nothing listens on {} here", asked.endpoint);
        return Err(Failure::lacking(why));
    }
    let mut recorder = Recorder::create(args, &asked)?;
    let long = match args.burst.burst {
        Some(_) => format!(" for up to {}", seconds(patience.as_secs_f64())),
        None => String::new(),
    };
    output.note(&format!(
        "loading {}{long}; its new clients may be turned away meanwhile",
        asked.endpoint
    ));
    let warnings = prepared.warnings.clone();
    let made = match make(&args.burst, patience, prepared, interrupted, output) {
        Ok(made) => made,
        Err(error) => {
            recorder.discard();
            return Err(Failure::lacking(error));
        }
    };
    let (outcome, mut document) = made.into_document(&asked, &mut recorder);
    document.warnings.splice(0..0, warnings);
    conclude(args, &asked, document, recorder, output)?;
    Ok(outcome)
}

/// The addresses to try; a port of this host means whatever listens on it.
fn endpoints(
    target: &Target,
    root: &ProcRoot,
    named: Option<&Named>,
) -> Result<Vec<Endpoint>, Failure> {
    if let Target::Tcp { host, .. } = target
        && host == "localhost"
    {
        return Ok(vec![attach(target, root, named)?.endpoint().clone()]);
    }
    target.resolve().map_err(Failure::usage)
}

/// What was refused, in the words of these flags.
fn refused(error: PrepareError, args: &BurstArgs) -> Failure {
    let flags = if args.find { "--authorized --max N" } else { "--authorized" };
    match error {
        PrepareError::Refused(Refusal::NotOurs(address)) => Failure::usage(format!(
            "{address} is not this host: loading it needs its owner's consent; if you \
             have it, add {flags}"
        )),
        PrepareError::Refused(Refusal::NoListener(address)) => Failure::usage(format!(
            "{address} is an address of this host, but nothing listens on it here, so \
             another machine may answer; if that may be loaded, add {flags}"
        )),
        other => Failure::usage(other),
    }
}

/// What was done, and the server's side of it.
enum Made {
    Burst(Burst, Burster),
    Search(Search, Burster),
}

fn make(
    args: &BurstArgs,
    patience: Duration,
    prepared: Prepared,
    interrupted: &AtomicBool,
    output: &Output,
) -> Result<Made, BurstError> {
    let mut burster = Burster::new(prepared)?;
    if let Some(dials) = args.burst {
        let burst = burster.burst(Shape { dials, patience }, interrupted)?;
        return Ok(Made::Burst(burst, burster));
    }
    let max = args.max.unwrap_or(FIND_MAX);
    let how = Limits { max, pause: args.pause, drain_within: DRAIN_WITHIN };
    let (line, began) = (LiveLine::new(output), Instant::now());
    let found = search(&mut burster, how, interrupted, &mut |one| {
        let (dialed, lost) = (count(one.dialed), count(one.lost));
        line.show(began.elapsed(), &format!("tried {dialed}: {lost} lost"));
    });
    line.clear();
    let found = found?;
    Ok(Made::Search(found, burster))
}

impl Made {
    fn into_document(self, asked: &Asked, recorder: &mut Recorder) -> (Exit, BacklogDoc) {
        match self {
            Self::Burst(burst, mut burster) => {
                timeline(&burst, recorder);
                let got_in = burst.at_once + burst.delayed.values().sum::<u64>();
                let exit = match got_in {
                    _ if burst.interrupted => Exit::Interrupted,
                    0 => Exit::Lacking,
                    _ => Exit::Done,
                };
                (exit, of_burst(asked, &burst, burster.side()))
            }
            Self::Search(search, mut burster) => {
                let exit = match search.end {
                    SearchEnd::Interrupted => Exit::Interrupted,
                    SearchEnd::NotDraining => Exit::Lacking,
                    SearchEnd::Found | SearchEnd::Bound => Exit::Done,
                };
                (exit, of_search(asked, &search, burster.side()))
            }
        }
    }
}

/// The looks at the queue that show a change.
fn timeline(burst: &Burst, recorder: &mut Recorder) {
    let mut last = None;
    for look in &burst.queue {
        if last.replace((look.len, look.established))
            == Some((look.len, look.established))
        {
            continue;
        }
        recorder.append(&Sample {
            t_s: look.at.as_secs_f64(),
            phase: Phase::Ramp,
            dialed: look.dialed,
            in_flight: look.in_flight,
            established: look.established,
            queued: Some(look.len),
            held: look.established.saturating_sub(look.len + look.closed),
            failed: look.refused,
            closed: look.closed,
            ..Sample::default()
        });
    }
}

fn request(
    args: &BurstArgs,
    given: &str,
    endpoints: Vec<Endpoint>,
    patience: Duration,
    proc_root: ProcRoot,
) -> Request {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Request {
        endpoints,
        is_http: false,
        given: given.to_owned(),
        // Without --max the rules refuse a target that is not this host.
        max: args.burst.or(args.max),
        rate: None,
        hold: Duration::ZERO,
        time_limit: patience,
        patience,
        connect_timeout: patience,
        threads,
        fd_tables: None,
        close: None,
        sources: Vec::new(),
        evidence: match args.evidence {
            Evidence::Auto => EvidenceMode::Auto,
            Evidence::None => EvidenceMode::None,
        },
        confirm: true,
        service: None,
        stop_at_latency: None,
        target_netns: None,
        pairs: Pairs::Some(0),
        out: None,
        memory_floor_bytes: 0,
        authorized: args.authorized,
        require: None,
        command_line: Vec::new(),
        may_dial: true,
        proc_root,
    }
}
