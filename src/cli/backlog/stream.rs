//! `sockscope backlog`: a listener's accept queue, watched.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::cli::exit::{Exit, Failure};
use crate::cli::parse;
use crate::backlog::sample::Sample;
use crate::backlog::sampler::Sampler;
use crate::host::ProcRoot;
use crate::record::Timestamp;
use crate::render::{count, escaped};
use crate::sockets::block::AddressBlock;
use crate::sockets::listeners::{self, ListenAt};
use crate::sockets::target::{Endpoint, Target};
use crate::sockets::watch::ListenerWatch;

/// Watch a listener's accept queue, without any load
///
/// It ends after --for, or when nobody reads its output any more. `probe --evidence`
/// takes what --format ndjson prints, from another machine too:
/// sockscope probe db1:5432 --authorized --max 20k --evidence
/// 'ssh db1 sockscope backlog :5432 --format ndjson'
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// A listener of this host: PORT, host:port, tcp://host:port, unix:/path or unix:@name
    target: String,

    /// Print a JSON document a line [default: a line for people]
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// Watch for so long [default: 10s; 10m with --format]
    #[arg(long = "for", value_name = "TIME", value_parser = parse::duration_above_0)]
    lasts: Option<Duration>,

    /// Between two samples, 500us or longer [default: 1s; 100ms with --format]
    #[arg(long, value_name = "TIME", value_parser = interval)]
    interval: Option<Duration>,

    /// Count the connections of these clients, about once a second; repeatable. All
    /// programs' connections from there count
    #[arg(long, value_name = "ADDR|CIDR", value_delimiter = ',')]
    count_from: Vec<AddressBlock>,

    /// Read processes, limits and sysctls from here instead of /proc
    #[arg(long, value_name = "DIR", default_value = "/proc", hide = true)]
    proc_root: std::path::PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Ndjson,
}

fn interval(text: &str) -> Result<Duration, String> {
    match parse::duration(text)? {
        short if short < Duration::from_micros(500) => {
            Err("must be 500us or more".into())
        }
        some => Ok(some),
    }
}

/// Runs the command.
pub(in crate::cli) fn run(args: &Args) -> Result<Exit, Failure> {
    let target = Target::parse(&args.target).map_err(Failure::usage)?;
    let watch = attach(&target, &ProcRoot::new(&args.proc_root))?;
    if !args.count_from.is_empty() && matches!(watch.endpoint(), Endpoint::Unix(_)) {
        let why = "--count-from is of addresses, and a unix socket's clients have none";
        return Err(Failure::usage(why));
    }
    let json = args.format.is_some();
    if !json && watch.listeners().is_empty() {
        let why = anyhow::anyhow!("nothing listens on {} here", watch.endpoint());
        return Err(Failure::lacking(why));
    }
    let (lasts, interval) = if json { (600, 100) } else { (10, 1000) };
    let lasts = args.lasts.unwrap_or(Duration::from_secs(lasts));
    let interval = args.interval.unwrap_or(Duration::from_millis(interval));
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone())
            .map_err(Failure::lacking)?;
    }
    let sampler = Sampler::new(watch, args.count_from.clone());
    let mut printer = Printer { json, drops_before: None };
    let watched =
        stream(sampler, &interrupted, lasts, interval, |sample| printer.print(sample));
    match watched {
        // Nobody reads it any more: the one way in which a stream is meant to end.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(error) => Err(Failure::lacking(error)),
        Ok(()) if interrupted.load(Relaxed) => Ok(Exit::Interrupted),
        Ok(()) => Ok(Exit::Done),
    }
}

/// Finds the listener: at the first of the target's addresses that has one. A port of
/// this host means whatever listens on it, if that is one address only.
fn attach(target: &Target, root: &ProcRoot) -> Result<ListenerWatch, Failure> {
    let at = |endpoint: &Endpoint| {
        ListenerWatch::attach(endpoint, None, root.clone()).map_err(Failure::lacking)
    };
    let mut first = None;
    for endpoint in target.resolve().map_err(Failure::usage)? {
        let watch = at(&endpoint)?;
        if !watch.listeners().is_empty() {
            return Ok(watch);
        }
        first.get_or_insert(watch);
    }
    let mut first = first.ok_or_else(|| Failure::usage("the target has no address"))?;
    let Target::Tcp { host, port } = target else { return Ok(first) };
    if host != "localhost" {
        return Ok(first);
    }
    let all = listeners::inet(first.diag()).map_err(Failure::lacking)?;
    let mut addresses: Vec<_> = all
        .iter()
        .filter_map(|listener| match listener.at {
            ListenAt::Inet(address) if address.port() == *port => Some(address),
            _ => None,
        })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    match addresses[..] {
        [] => Ok(first),
        [one] => at(&Endpoint::Tcp(one)),
        _ => {
            let names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let names = names.join(", ");
            Err(Failure::usage(format!("port {port} has several listeners: {names}")))
        }
    }
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

struct Printer {
    json: bool,
    drops_before: Option<u64>,
}

impl Printer {
    fn print(&mut self, sample: &Sample) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, sample)?;
        } else {
            let before = *self.drops_before.get_or_insert(sample.drops);
            let dropped = sample.drops.saturating_sub(before);
            write!(out, "{}", line(sample, dropped))?;
        }
        writeln!(out)?;
        out.flush()
    }
}

/// `16:05:12  127.0.0.1:7000  queue 41 of 129  3 dropped  node[4711] S, 64 of 1,024 fds`
fn line(sample: &Sample, dropped: u64) -> String {
    let now = Timestamp::now().to_string();
    let mut parts = vec![now.get(11..19).unwrap_or_default().to_owned()];
    parts.extend(sample.address.clone());
    if sample.listening {
        let admits = sample.backlog + sample.members;
        let full = if sample.queue_len >= admits { ", FULL" } else { "" };
        let queue = count(sample.queue_len);
        parts.push(format!("queue {queue} of {}{full}", count(admits)));
        parts.push(format!("{} dropped", count(dropped)));
    } else {
        parts.push("listens no more".into());
    }
    for owner in sample.owners.iter().take(3) {
        let limit = owner.nofile_soft.map_or("?".into(), count);
        let open = owner.open_fds.map_or("?".into(), count);
        let (comm, pid, state) = (escaped(&owner.comm), owner.pid, owner.state);
        parts.push(format!("{comm}[{pid}] {state}, {open} of {limit} fds"));
    }
    if sample.owners.is_empty() && sample.owners_unreadable > 0 {
        let uid = sample.uid.map_or("?".into(), |uid| uid.to_string());
        parts.push(format!("not permitted (uid {uid})"));
    }
    if let Some(c) = &sample.counts {
        parts.push(format!("{} accepted there", count(c.accepted)));
    }
    parts.join("  ")
}
