//! One probe of one server in one cell, and what it counted wrongly.

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cell::Cell;
use super::watcher::{Watcher, held};
use crate::fixtures::burst::{listen, table};
use crate::fixtures::relay::{Shape, SlowLink};
use crate::fixtures::sockscope;

/// The program that is tried, where it is not the one that was built with this.
pub(crate) static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

const BACKLOG: i32 = 128;
/// What the accept queue of that backlog admits.
const ADMITTED: usize = 129;
const DIALS: &str = "300";
/// Longer than a probe takes in any cell.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long what was counted may take to deliver: with loss, a FIN is sent again.
const DELIVERY: Duration = Duration::from_secs(15);
/// Connections of a faulty trial whose segments are shown.
const SHOWN: usize = 2;

/// What came of one trial.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What the server's table had as the probe began to close.
    pub(crate) expected: usize,
    /// What the probe said: `result.practical_max`.
    pub(crate) counted: u64,
    /// `result.counts.established`.
    pub(crate) established: u64,
    /// Counted, and not in the server's table.
    pub(crate) false_positives: usize,
    /// In the server's table, and not counted.
    pub(crate) false_negatives: usize,
    /// Counted, and what the client sent last did not arrive.
    pub(crate) undelivered: usize,
    /// Given up by the probe's RST, and in the server's table to the end.
    pub(crate) left: usize,
    /// By how much the number differs from the connections listed.
    pub(crate) miscount: u64,
    /// The probability with which the tool says that it counts one wrongly.
    pub(crate) stated_error: f64,
    /// By how much the relay was late: the machine was too busy.
    pub(crate) late: Duration,
    /// How long it took.
    pub(crate) took: Duration,
    /// What went wrong, for people to read.
    pub(crate) detail: String,
}

impl Outcome {
    /// Connections that were counted wrongly.
    pub(crate) fn errors(&self) -> usize {
        self.false_positives + self.false_negatives + self.undelivered
    }

    /// In a line.
    pub(crate) fn summary(&self) -> String {
        format!(
            "expected {}, counted {}: {} false positives, {} false negatives, {} \
             undelivered, {} left",
            self.expected,
            self.counted,
            self.false_positives,
            self.false_negatives,
            self.undelivered,
            self.left
        )
    }

    /// The number of errors that the tool's own statement allows for.
    pub(crate) fn allowed(&self) -> f64 {
        self.established as f64 * self.stated_error
    }
}

/// Gives a link the properties of a cell.
pub(crate) fn prepare(link: &SlowLink, cell: &Cell) {
    let number = |on: bool| if on { "1" } else { "0" };
    link.server.sysctl("net/ipv4/tcp_syncookies", &cell.syncookies.to_string());
    let abort = number(cell.abort_on_overflow);
    link.server.sysctl("net/ipv4/tcp_abort_on_overflow", abort);
    for netns in link.both() {
        netns.sysctl("net/ipv4/tcp_timestamps", number(cell.timestamps));
        // What one trial learns of the path must not reach the next.
        netns.sysctl("net/ipv4/tcp_no_metrics_save", "1");
    }
    link.set_mtu(cell.network.mtu);
}

/// A relay that was later than that was no link of its round trip: the machine was too
/// busy, and the trial is made again, so often at most.
pub(crate) const LATE: Duration = Duration::from_millis(100);
const AGAIN: usize = 3;

/// Runs one trial, and again while the machine is too busy for it; also how often that
/// was.
pub(crate) fn trial_on_time(
    link: &SlowLink,
    cell: &Cell,
    number: u32,
) -> (Outcome, usize) {
    for again in 0..AGAIN {
        let outcome = trial(link, cell, number);
        if outcome.late < LATE {
            return (outcome, again);
        }
    }
    (trial(link, cell, number), AGAIN)
}

/// Runs one trial on a link that was prepared for its cell. `number` tells the trials of
/// a cell apart: when the queue is drained, and what is lost.
fn trial(link: &SlowLink, cell: &Cell, number: u32) -> Outcome {
    let loss = f64::from(cell.loss) / 100.0;
    let seed = u64::from(number) + 1;
    link.set_shape(Shape { round_trip: cell.round_trip, loss, seed });
    let begin = Instant::now();
    link.take_lateness();
    let listener = listen(link, cell.network.v6, BACKLOG);
    listener.set_nonblocking(true).unwrap();
    let server = listener.local_addr().unwrap();
    let watcher = Watcher::new(link, server, cell.bursts);
    let records = tempfile::tempdir().unwrap();
    let mut accepted = Vec::new();
    let done = thread::scope(|scope| {
        let probe = scope.spawn(|| probe(link, server, records.path()));
        if cell.drained {
            while watcher.acked() < ADMITTED && !probe.is_finished() {
                thread::sleep(Duration::from_millis(5));
            }
            thread::sleep(cell.round_trip + drain_after(number));
            accept_all(&listener, &mut accepted);
        }
        probe.join().unwrap()
    });
    let mut outcome = match judge(&done, records.path(), &watcher) {
        Ok(judged) => {
            let mut outcome = judged.outcome;
            deliver(&mut outcome, &judged.counted, &listener, &mut accepted, &watcher);
            let left = held(&table(link, server));
            outcome.left = left.intersection(&judged.given_up).count();
            outcome
        }
        Err(why) => Outcome { undelivered: 1, detail: why, ..Outcome::default() },
    };
    outcome.took = begin.elapsed();
    outcome.late = link.take_lateness();
    link.remove_tap();
    outcome
}

/// The trials of a cell drain the queue at different times, over the time which a
/// confirmation takes: while SYN-ACKs are repeated, and between two keepalives.
fn drain_after(number: u32) -> Duration {
    Duration::from_millis(100) + Duration::from_millis(150) * (number % 20)
}

/// Probes the server from the link's client, as far as that can see.
fn probe(link: &SlowLink, server: SocketAddr, records: &Path) -> Output {
    let mut command = PROGRAM.get().map_or_else(sockscope, Command::new);
    let target = server.to_string();
    command.args(["probe", &target, "--authorized", "--max", DIALS, "--rate", "1M"]);
    command.args(["--evidence", "none", "--hold", "1s", "--close", "fin"]);
    command.args(["--format", "json", "--pairs", "all", "--out"]).arg(records);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = link.client.inside(|| command.spawn()).unwrap();
    let end = Instant::now() + PATIENCE;
    // What it prints fits the pipe until it is read: a few kB.
    while child.try_wait().unwrap().is_none() && Instant::now() < end {
        thread::sleep(Duration::from_millis(20));
    }
    // It may have ended.
    let _ = child.kill();
    child.wait_with_output().unwrap()
}

struct Judged {
    outcome: Outcome,
    counted: HashSet<SocketAddr>,
    /// What the probe had ended by RST before.
    given_up: HashSet<SocketAddr>,
}

/// Compares what the probe counted with the server's table.
fn judge(done: &Output, records: &Path, watcher: &Watcher) -> Result<Judged, String> {
    let run: Value = serde_json::from_slice(&done.stdout)
        .map_err(|error| format!("the probe failed: {error}: {done:?}"))?;
    let counted = listed(records)?;
    let (table, given_up) = watcher.at_close(&counted);
    // A RST may be lost, and is not sent again.
    let truth = &held(&table) - &given_up;
    let number = |at: &str| run.pointer(at).and_then(Value::as_u64).unwrap_or(0);
    let practical_max = number("/result/practical_max");
    let false_positives: Vec<_> = counted.difference(&truth).collect();
    let false_negatives: Vec<_> = truth.difference(&counted).collect();
    let mut detail = String::new();
    for (what, which) in
        [("false positives", &false_positives), ("false negatives", &false_negatives)]
    {
        if !which.is_empty() {
            detail += &format!("{} {what}, such as\n", which.len());
            detail.extend(which.iter().take(SHOWN).map(|client| watcher.trace(**client)));
        }
    }
    if !detail.is_empty() {
        detail += &format!("  counts {}\n", run["result"]["counts"]);
        detail += &format!("  phantoms {}\n", run["result"]["phantoms"]);
    }
    let stated = run.pointer("/result/confirmation/error_probability");
    let outcome = Outcome {
        expected: truth.len(),
        counted: practical_max,
        established: number("/result/counts/established"),
        false_positives: false_positives.len(),
        false_negatives: false_negatives.len(),
        miscount: practical_max.abs_diff(counted.len() as u64),
        stated_error: stated.and_then(Value::as_f64).unwrap_or(0.0),
        detail,
        ..Outcome::default()
    };
    Ok(Judged { outcome, counted, given_up })
}

/// The client's ends that the probe lists as held, in sockets.csv.
fn listed(records: &Path) -> Result<HashSet<SocketAddr>, String> {
    let read = || -> Result<HashSet<SocketAddr>, Box<dyn std::error::Error>> {
        let run = std::fs::read_dir(records)?.next().ok_or("no run is recorded")??;
        let mut rows = csv::Reader::from_path(run.path().join("sockets.csv"))?;
        rows.deserialize::<HashMap<String, String>>()
            .map(|row| {
                let row = row?;
                let ip = row.get("local_addr").ok_or("no local_addr")?.parse()?;
                let port = row.get("local_port").ok_or("no local_port")?.parse()?;
                Ok(SocketAddr::new(ip, port))
            })
            .collect()
    };
    read().map_err(|error| format!("sockets.csv: {error}"))
}

fn accept_all(listener: &TcpListener, accepted: &mut Vec<(TcpStream, SocketAddr)>) {
    loop {
        match listener.accept() {
            Ok((socket, client)) => {
                socket.set_nonblocking(true).unwrap();
                accepted.push((socket, client));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("accept: {error}"),
        }
    }
}

/// Accepts everything, and waits for the end of each connection that was counted: the
/// client's FIN takes a place in the sequence as a byte does, and is delivered only
/// where nothing before it is missing.
fn deliver(
    outcome: &mut Outcome,
    counted: &HashSet<SocketAddr>,
    listener: &TcpListener,
    accepted: &mut Vec<(TcpStream, SocketAddr)>,
    watcher: &Watcher,
) {
    let mut missing = counted.clone();
    let end = Instant::now() + DELIVERY;
    loop {
        accept_all(listener, accepted);
        for (socket, client) in accepted.iter() {
            if missing.contains(client) && matches!((&*socket).read(&mut [0]), Ok(0)) {
                missing.remove(client);
            }
        }
        if missing.is_empty() || Instant::now() > end {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    outcome.undelivered = missing.len();
    if let Some(client) = missing.iter().next() {
        outcome.detail += &format!("{} undelivered, such as\n", missing.len());
        outcome.detail += &watcher.trace(*client);
    }
}
