//! Samples of one listener, a JSON document a line: what `probe --evidence` takes.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::args::Args;
use super::attach::{Named, attach};
use super::heed_signals;
use crate::backlog::sample::Sample;
use crate::backlog::sampler::Sampler;
use crate::cli::exit::{Exit, Failure};
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
            if is_closed(io::stdout().as_fd(), pause)? {
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

/// Waits for so long, and says at once when the reader of a pipe is gone (poll(2)).
fn is_closed(out: BorrowedFd<'_>, pause: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(out, PollFlags::empty())];
    let pause = Timespec::try_from(pause).ok();
    match poll(&mut fds, pause.as_ref()) {
        Ok(_) => Ok(fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)),
        // A signal: the caller looks at it.
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
