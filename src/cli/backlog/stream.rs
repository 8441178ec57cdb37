//! Samples of one listener, a JSON document a line: what `probe --evidence` takes.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::args::Args;
use super::attach::{Named, attach};
use super::heed_signals;
use crate::backlog::sample::Sample;
use crate::backlog::sampler::Sampler;
use crate::cli::exit::{Exit, Failure};
use crate::cli::wait::{Woken, wait};
use crate::host::ProcRoot;
use crate::sockets::target::{Endpoint, Target};

const LASTS: Duration = Duration::from_secs(600);
const INTERVAL: Duration = Duration::from_millis(100);

/// Streams samples until --for is over, or nobody reads them any more.
pub(super) fn run(args: &Args, target: &str) -> Result<Exit, Failure> {
    let target = Target::parse(target).map_err(Failure::usage)?;
    let root = ProcRoot::new(&args.proc_root);
    let named = args.netns.as_ref().map(|spec| Named::find(spec, &root)).transpose()?;
    let watch = attach(&target, &root, named.as_ref())?;
    if !args.count_from.is_empty() && matches!(watch.endpoint(), Endpoint::Unix(_)) {
        let why = "--count-from is of addresses, and a unix socket's clients have none";
        return Err(Failure::usage(why));
    }
    let lasts = args.lasts.unwrap_or(LASTS);
    let interval = args.pace().unwrap_or(INTERVAL);
    let interrupted = heed_signals()?;
    let sampler = Sampler::new(watch, args.count_from.clone());
    match stream(sampler, &interrupted, lasts, interval, print) {
        // Nobody reads it any more: the one way in which a stream is meant to end.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(error) => Err(Failure::lacking(error)),
        Ok(()) if interrupted.load(Relaxed) => Ok(Exit::Interrupted),
        Ok(()) => Ok(Exit::Done),
    }
}

fn print(sample: &Sample) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, sample)?;
    writeln!(out)?;
    out.flush()
}

/// Samples until the time is over, a signal comes, or nobody reads on.
fn stream(
    mut sampler: Sampler,
    interrupted: &AtomicBool,
    lasts: Duration,
    interval: Duration,
    mut each: impl FnMut(&Sample) -> io::Result<()>,
) -> io::Result<()> {
    // The first look for owners may take long; the time counts from what it shows.
    each(&sampler.take(false)?)?;
    let end = Instant::now().checked_add(lasts);
    let mut due = Instant::now();
    loop {
        due += interval;
        // A host too slow for the interval does not owe what it missed.
        due = due.max(Instant::now());
        let until = end.map_or(due, |end| end.min(due));
        while !interrupted.load(Relaxed) {
            let pause = until.saturating_duration_since(Instant::now());
            if pause.is_zero() {
                break;
            }
            if wait(io::stdout(), None, pause)? == Woken::Closed {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        let last =
            interrupted.load(Relaxed) || end.is_some_and(|end| end <= Instant::now());
        each(&sampler.take(last)?)?;
        if last {
            return Ok(());
        }
    }
}
