//! What a byte to a process of this host costs, by the way that it takes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};
use serde::Serialize;

use super::bench::{Bench, Place};
use super::clients::{ask, median};
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::moment;
use super::neighbour::Neighbour;
use crate::sockets::model::{State, UnixName};
use crate::sockets::row::{Address, Row};
use crate::sockets::select::Tables;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 20,
    id: "local-cost",
    claim: "A socket on the same machine costs what one over the network costs.",
    trial: "A byte is sent to another thread and one comes back, and 8 MiB are sent, by \
            pipes, a pair of sockets, a unix socket, TCP over loopback, and TCP over a \
            link between two network namespaces, which stands for a network without its \
            wire. In turn, eight rounds of each; the quickest round counts. All are on one \
            CPU.",
    run,
};

const ROUNDS: usize = 8;
/// Questions in a round.
const QUESTIONS: usize = 50;
const BLOCK: usize = 64 * 1024;
/// Sent in a round.
const BULK: usize = 8 << 20;
/// What is so many times another is clearly more.
const CLEARLY: f64 = 1.15;
/// What is less than so many times another is about the same.
const ALIKE: f64 = 1.5;
const MIB: f64 = 1024.0 * 1024.0;

const UNIX: &str = "unix_socket";
const LOOPBACK: &str = "tcp_loopback";
const LINK: &str = "tcp_link";

/// What was seen.
#[derive(Debug, Clone, Serialize)]
struct Seen {
    /// Each way.
    ways: BTreeMap<&'static str, Cost>,
}

/// What a way costs.
#[derive(Debug, Clone, Copy, Serialize)]
struct Cost {
    /// A byte there and back.
    answer_us: f64,
    /// MiB in a second.
    mib_per_s: f64,
    /// Packets for each question and its answer that passed a network device; none where
    /// the devices carry what others send.
    packets_each: Option<f64>,
}

/// An end of a way; the other is held by a thread that answers.
struct Way {
    name: &'static str,
    near: Box<dyn Both>,
    answer: Duration,
    bulk: Duration,
    packets: u64,
}

trait Both: Read + Write + Send {}
impl<T: Read + Write + Send> Both for T {}

/// Two pipes, one for each direction.
struct Pipes {
    from: File,
    to: File,
}

impl Read for Pipes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.from.read(buffer)
    }
}

impl Write for Pipes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    super::tools::on_one_cpu()?;
    let folder = bench.folder()?;
    let path = folder.path().join("socket");
    let mut ends: Vec<(&'static str, [Box<dyn Both>; 2])> = vec![
        ("pipes", pipes().step("making pipes")?),
        ("socketpair", both(UnixStream::pair().step("socketpair()")?)),
        (UNIX, unix(&path).step("connecting a unix socket")?),
        (LOOPBACK, tcp(None).step("connecting over loopback")?),
    ];
    let mut left_out = None;
    let neighbour = match Neighbour::new(bench, 0) {
        Ok(neighbour) => {
            ends.push((LINK, tcp(Some(&neighbour)).step("connecting over the link")?));
            Some(neighbour)
        }
        Err(why) => {
            left_out = Some(format!("TCP over a link: {why}"));
            None
        }
    };
    let table = moment("all are connected", Tables::TCP | Tables::UNIX_STREAM, |row| {
        row.state == State::Established && is_ours(row, &path)
    })
    .step("reading the socket table")?;
    let ways = thread::scope(|scope| {
        let mut ways = Vec::new();
        for (name, [near, far]) in ends {
            scope.spawn(|| answer(far));
            let [answer, bulk] = [Duration::MAX; 2];
            ways.push(Way { name, near, answer, bulk, packets: 0 });
        }
        let measured = (0..ROUNDS).try_for_each(|_| round(bench, &mut ways));
        // The other ends see end of file, and their threads end.
        let done = ways
            .iter_mut()
            .map(|way| std::mem::replace(&mut way.near, Box::new(io::empty())));
        drop(done.collect::<Vec<_>>());
        measured.map(|()| ways)
    })?;
    drop(neighbour);
    let packets = |way: &Way| way.packets as f64 / (ROUNDS * QUESTIONS) as f64;
    let cost = |way: &Way| Cost {
        answer_us: way.answer.as_secs_f64() * 1e6,
        mib_per_s: BULK as f64 / MIB / way.bulk.as_secs_f64(),
        packets_each: (bench.place == Place::Private).then(|| packets(way)),
    };
    let seen = Seen { ways: ways.iter().map(|way| (way.name, cost(way))).collect() };
    Ok(Outcome::of(&seen, judge(&seen)).with([table]).without(left_out))
}

/// Whether it is a connection of TCP, or one accepted at this path.
fn is_ours(row: &Row<'_>, path: &Path) -> bool {
    match &row.local {
        Address::Unix { name: Some(UnixName::Path(at)), .. } => {
            at.as_ref() == path.as_os_str().as_bytes()
        }
        _ => row.remote.inet().is_some(),
    }
}

fn both<T: Both + 'static>((near, far): (T, T)) -> [Box<dyn Both>; 2] {
    [Box::new(near), Box::new(far)]
}

fn pipes() -> io::Result<[Box<dyn Both>; 2]> {
    let (there_from, here_to) = pipe_with(PipeFlags::CLOEXEC)?;
    let (here_from, there_to) = pipe_with(PipeFlags::CLOEXEC)?;
    let near = Pipes { from: here_from.into(), to: here_to.into() };
    Ok(both((near, Pipes { from: there_from.into(), to: there_to.into() })))
}

fn unix(path: &Path) -> io::Result<[Box<dyn Both>; 2]> {
    let listener = UnixListener::bind(path)?;
    let near = UnixStream::connect(path)?;
    Ok(both((near, listener.accept()?.0)))
}

/// A connection within this namespace, or to a neighbour.
fn tcp(to: Option<&Neighbour>) -> io::Result<[Box<dyn Both>; 2]> {
    let listen = |at: IpAddr| {
        let listener = TcpListener::bind((at, 0))?;
        Ok::<_, io::Error>((listener.local_addr()?, listener))
    };
    let (at, listener) = match to {
        None => listen(Ipv4Addr::LOCALHOST.into())?,
        Some(there) => there.netns.run(|| listen(there.there.into()))??,
    };
    let near = TcpStream::connect(at)?;
    let far = listener.accept()?.0;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    near.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(both((near, far)))
}

/// Answers a question with a byte, and the end of a bulk with one; until end of file.
fn answer(mut far: Box<dyn Both>) {
    let mut buffer = vec![0; BLOCK];
    let mut of_bulk = 0;
    while let Ok(n @ 1..) = far.read(&mut buffer) {
        if buffer[0] != b'?' {
            of_bulk += n;
            if of_bulk < BULK {
                continue;
            }
            of_bulk = 0;
        }
        if far.write_all(b"!").is_err() {
            break;
        }
    }
}

/// A round of each way.
fn round(bench: &Bench<'_>, ways: &mut [Way]) -> Result<(), Unable> {
    let block = vec![b'x'; BLOCK];
    for way in ways {
        bench.go_on()?;
        let before = packets().step("reading /proc/net/dev")?;
        let times = (0..QUESTIONS).map(|_| ask(&mut way.near)).collect::<Result<_, _>>();
        way.answer = way.answer.min(median(times.step("asking")?));
        way.packets += packets().step("reading /proc/net/dev")? - before;
        let began = Instant::now();
        for _ in 0..BULK / BLOCK {
            way.near.write_all(&block).step("write()")?;
        }
        way.near.read_exact(&mut [0]).step("read()")?;
        way.bulk = way.bulk.min(began.elapsed());
    }
    Ok(())
}

/// Packets that passed the devices of this namespace, in either direction; what loopback
/// sends it also receives, so there only what it received.
fn packets() -> io::Result<u64> {
    Ok(count_packets(&fs::read_to_string("/proc/thread-self/net/dev")?))
}

fn count_packets(text: &str) -> u64 {
    let devices = text.lines().filter_map(|line| line.split_once(':'));
    let counts = devices.map(|(name, numbers)| {
        let number = |at| numbers.split_whitespace().nth(at)?.parse::<u64>().ok();
        let sent = if name.trim() == "lo" { 0 } else { number(9).unwrap_or(0) };
        number(1).unwrap_or(0) + sent
    });
    counts.sum()
}

fn judge(seen: &Seen) -> (Finding, String) {
    let none = Cost { answer_us: f64::NAN, mib_per_s: f64::NAN, packets_each: None };
    let [unix, loopback] =
        [UNIX, LOOPBACK].map(|way| seen.ways.get(way).copied().unwrap_or(none));
    let unix_is_cheaper = loopback.answer_us > CLEARLY * unix.answer_us
        || unix.mib_per_s > CLEARLY * loopback.mib_per_s;
    let packets = match (loopback.packets_each, unix.packets_each) {
        (Some(of_tcp), Some(of_unix)) => format!(
            " A question and its answer are {of_tcp:.1} packets through the loopback \
             device, and {of_unix:.1} through any for a unix socket."
        ),
        _ => String::new(),
    };
    let local = format!(
        "A byte there and back takes {:.1} µs by TCP over loopback, {:.1} by a unix \
         socket; {:.0} and {:.0} MiB pass in a second.{packets}",
        loopback.answer_us, unix.answer_us, loopback.mib_per_s, unix.mib_per_s,
    );
    let link = seen.ways.get(LINK).map(|cost| cost.answer_us);
    if let Some(link) = link
        && !(1.0 / ALIKE..ALIKE).contains(&(link / loopback.answer_us))
    {
        let why = format!(
            "{local} Over the link between two namespaces it takes {link:.1} µs, which is \
             something else."
        );
        return (Finding::DoesNotHold, why);
    }
    let link = match link {
        Some(link) => format!(
            "Over a link between two namespaces it takes {link:.1} µs: so TCP does the \
             same work for a neighbour as for this host, and a real network adds its wire \
             to that, from tens of µs in a building to many ms across a country."
        ),
        None => "What it takes over a network could not be tried here.".into(),
    };
    if unix_is_cheaper {
        let why = format!(
            "{local} {link} A unix socket, a pair of sockets or a pipe costs less: its \
             bytes go from one process's memory to the other's without any protocol."
        );
        return (Finding::HoldsWithinLimits, why);
    }
    (Finding::Holds, format!("{local} {link} A unix socket saves nothing here."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(unix: (f64, f64), link: Option<f64>) -> Finding {
        let of =
            |(answer_us, mib_per_s)| Cost { answer_us, mib_per_s, packets_each: None };
        let mut ways =
            BTreeMap::from([(UNIX, of(unix)), (LOOPBACK, of((12.0, 2_500.0)))]);
        ways.extend(link.map(|link| (LINK, of((link, 2_500.0)))));
        judge(&Seen { ways }).0
    }

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        assert_eq!(found((8.0, 7_000.0), Some(12.1)), Finding::HoldsWithinLimits);
        assert_eq!(found((8.0, 7_000.0), None), Finding::HoldsWithinLimits);
        assert_eq!(found((12.0, 7_000.0), Some(12.1)), Finding::HoldsWithinLimits);
        assert_eq!(found((12.0, 2_400.0), Some(12.1)), Finding::Holds);
        assert_eq!(found((8.0, 7_000.0), Some(60.0)), Finding::DoesNotHold);
        assert_eq!(found((8.0, 7_000.0), Some(2.0)), Finding::DoesNotHold);
    }

    #[test]
    fn packets_of_loopback_count_once() {
        let text = "Inter-|   Receive\n face |bytes    packets errs drop\n    \
            lo:  100 7 0 0 0 0 0 0 100 7 0 0 0 0 0 0\n link0:  100 3 0 0 0 0 0 0 100 4 0\n";
        assert_eq!(count_packets(text), 7 + 3 + 4);
    }
}
