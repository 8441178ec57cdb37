//! What bind() is to a client.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use socket2::{Domain, Socket, Type};

use super::bench::{Bench, Place};
use super::experiment::{
    Chart, Experiment, Finding, Line, Outcome, Quantity, Step, Unable,
};
use super::moment::{Moment, moment};
use super::tools::{SoftNofile, connect, connect_from, errno, local};
use crate::host::{ProcRoot, sysctl};
use crate::render::count;
use crate::sockets::select::Tables;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 10,
    id: "client-bind",
    claim: "A client needs no bind(), the kernel picks its port; binding a client is \
            possible but pointless.",
    trial: "Clients connect without bind() and their ports are compared with \
            net.ipv4.ip_local_port_range. Then the range is made small and used up; the \
            CPU time of each connect() is taken, and clients that bind() to ports of \
            their own choice connect beside them.",
    run,
};

/// How many ports are looked at for their order.
const LOOKED_AT: usize = 40;
/// The range that is used up, where there are descriptors enough.
const FIRST_PORT: u16 = 20_000;
const RANGE: u64 = 8000;
/// Below this there is little to be seen.
const LEAST: u64 = 2000;
/// Connections of which the CPU time is taken together.
const CHUNK: u16 = 500;
/// Descriptors that are no connections to ports of the range.
const SPARE: u64 = 2 * CHUNK as u64 + 100;

/// What was seen.
#[derive(Debug, Clone, Serialize)]
struct Seen {
    /// The first port of net.ipv4.ip_local_port_range.
    low_port: u16,
    /// The last.
    high_port: u16,
    /// Of so many clients that did not bind,
    looked_at: usize,
    /// how many got a port of the range,
    in_range: usize,
    /// and how many an even one, if its first is even, else an odd one.
    like_the_first: usize,
    /// Of as many sockets that bound to port 0.
    bound_like_the_first: usize,
    /// Clients that bound to ports outside of the range and connected.
    chosen: usize,
    /// What was measured with a small range.
    #[serde(flatten)]
    small_range: Option<Small>,
}

/// What was seen of a range that was used up.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Small {
    /// Its ports.
    small_range_ports: u64,
    /// Connections that the kernel found a port of it for.
    connected: u64,
    /// What the next gave.
    next_errno: i32,
    /// CPU time of one of the first connections.
    first_us: u64,
    /// Of one of the last.
    last_us: u64,
    /// Of one that chose its port itself, when the range was used up.
    chosen_us: u64,
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    let limit = SoftNofile::at_least(RANGE + SPARE).step("setrlimit()")?;
    let server = bench.serve(&["--listen", "127.0.0.9:0", "--fd-tables", "2"])?;
    let no_address = || Unable::Missing("the server has no TCP address".into());
    let to = server.tcp().ok_or_else(no_address)?;
    let range = sysctl::local_port_range(&ProcRoot::default()).map_err(|e| e.source);
    let (low_port, high_port) = range.step("reading ip_local_port_range")?;
    let unbound = ports((0..LOOKED_AT).map(|_| connect(to)))?;
    let bound = ports((0..LOOKED_AT).map(|_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        Ok(socket)
    }))?;
    let like =
        |ports: &[u16]| ports.iter().filter(|&port| (port ^ low_port) & 1 == 0).count();
    let is_in = |port: &&u16| (low_port..=high_port).contains(*port);
    let mut seen = Seen {
        low_port,
        high_port,
        looked_at: LOOKED_AT,
        in_range: unbound.iter().filter(is_in).count(),
        like_the_first: like(&unbound),
        bound_like_the_first: like(&bound),
        chosen: 0,
        small_range: None,
    };
    let range = limit.now.saturating_sub(SPARE).min(RANGE) / 2 * 2;
    let (mut charts, mut moments, mut left_out) = (Vec::new(), Vec::new(), None);
    if bench.place == Place::Private && range >= LEAST {
        let high_port = u64::from(FIRST_PORT) + range - 1;
        bench
            .set("net/ipv4/ip_local_port_range", &format!("{FIRST_PORT} {high_port}"))?;
        let used_up = use_up(bench, to, range)?;
        seen.chosen = used_up.chosen;
        charts.push(used_up.chart);
        moments.push(used_up.moment);
        seen.small_range = Some(used_up.small);
    } else {
        let outside = (10_000..=u16::MAX).filter(|port| !is_in(&port));
        seen.chosen = choose(to, outside.take(CHUNK.into())).len();
        let what = match bench.place {
            Place::Private => format!("RLIMIT_NOFILE is {}, too little", limit.now),
            Place::Loopback => "the range is of the whole host".into(),
        };
        left_out = Some(format!("using up a range of ports: {what}"));
    }
    let mut outcome = Outcome::of(&seen, judge(&seen)).with(moments).without(left_out);
    for chart in charts {
        outcome = outcome.chart(chart);
    }
    Ok(outcome)
}

/// The local ports of sockets that are open together.
fn ports(made: impl Iterator<Item = io::Result<Socket>>) -> Result<Vec<u16>, Unable> {
    let all: Vec<Socket> = made.collect::<Result<_, _>>().step("connecting")?;
    let ports = all.iter().map(|socket| Ok(local(socket)?.port()));
    ports.collect::<io::Result<_>>().step("getsockname()")
}

/// Clients that bind to these ports and connect; those in use are left out.
fn choose(to: SocketAddr, ports: impl Iterator<Item = u16>) -> Vec<Socket> {
    ports.filter_map(|port| connect_from(from(port), to).ok()).collect()
}

fn from(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

struct UsedUp {
    chosen: usize,
    small: Small,
    chart: Chart,
    moment: Moment,
}

/// Connects until the kernel finds no port in the range.
fn use_up(bench: &Bench<'_>, to: SocketAddr, ports: u64) -> Result<UsedUp, Unable> {
    let started = cpu_us();
    let early = choose(to, 10_000..10_000 + CHUNK);
    let mut chosen_at = vec![(0.0, each(started, early.len()))];
    let (mut held, mut found_at) = (Vec::new(), Vec::new());
    let next_errno = loop {
        let (started, before) = (cpu_us(), held.len());
        let refused = (0..CHUNK).find_map(|_| {
            let done = bench.go_on().map(|()| connect(to));
            match done {
                Ok(Ok(one)) => {
                    held.push(one);
                    None
                }
                Ok(Err(error)) => Some(Ok(error)),
                Err(interrupted) => Some(Err(interrupted)),
            }
        });
        match refused.transpose()? {
            None => found_at.push((before as f64, each(started, held.len() - before))),
            Some(error) => break errno(&io::Result::<()>::Err(error)),
        }
    };
    let started = cpu_us();
    let late = choose(to, 11_000..11_000 + CHUNK);
    chosen_at.push((held.len() as f64, each(started, late.len())));
    let moment =
        moment("the range is used up", Tables::TCP, |row| row.remote.inet() == Some(to))
            .step("reading the socket table")?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let us = |point: Option<&(f64, f64)>| point.map_or(0, |point| point.1.round() as u64);
    let small = Small {
        small_range_ports: ports,
        connected: held.len() as u64,
        next_errno,
        first_us: us(found_at.first()),
        last_us: us(found_at.last()),
        chosen_us: us(chosen_at.last()),
    };
    let chart = Chart {
        title: format!("CPU time of a connection, by connections held, of {ports} ports"),
        x: "held",
        y: Quantity::MicrosUs,
        lines: vec![
            Line { name: "the kernel finds the port".into(), points: found_at },
            Line { name: "the client chooses it".into(), points: chosen_at },
        ],
    };
    Ok(UsedUp { chosen: early.len() + late.len(), small, chart, moment })
}

/// What this thread has used of a CPU, in microseconds.
fn cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

fn each(started: f64, n: usize) -> f64 {
    ((cpu_us() - started) / n.max(1) as f64 * 10.0).round() / 10.0
}

fn judge(seen: &Seen) -> (Finding, String) {
    let Seen { low_port, high_port, looked_at, in_range, like_the_first, .. } = *seen;
    if in_range < looked_at {
        let why = format!(
            "Of {looked_at} clients that did not bind only {in_range} got a port of \
             {low_port}–{high_port}."
        );
        return (Finding::DoesNotHold, why);
    }
    let order = format!(
        "Each of {looked_at} clients got a port of {low_port}–{high_port} without bind(), \
         {like_the_first} of them an {} one; of {looked_at} sockets bound to port 0, {} \
         did.",
        if low_port % 2 == 0 { "even" } else { "odd" },
        seen.bound_like_the_first,
    );
    if seen.chosen == 0 {
        let why = format!("{order} No client could connect from a port of its choice.");
        return (Finding::Holds, why);
    }
    let Some(small) = &seen.small_range else {
        let why = format!(
            "{order} But {} clients that bound to ports outside of it connected too: \
             bind() reaches ports that the kernel never picks.",
            seen.chosen
        );
        return (Finding::HoldsWithinLimits, why);
    };
    let gains = match small.next_errno {
        libc::EADDRNOTAVAIL => format!(
            "When {} connections to one server had used up a range of {} ports, the next \
             failed with EADDRNOTAVAIL, and {} that bound to ports outside of it \
             connected all the same",
            count(small.connected),
            count(small.small_range_ports),
            count(seen.chosen as u64)
        ),
        other => format!(
            "{} that bound to ports outside of the range connected; without bind() {} \
             did, and the next failed with {}",
            count(seen.chosen as u64),
            count(small.connected),
            super::errno_name(other)
        ),
    };
    let half = match like_the_first == looked_at {
        true => {
            " (it tries the half of them that are like the first, and when that is used \
             up walks through it for every connection)"
        }
        false => "",
    };
    let cost = format!(
        "the kernel's search took {} µs of CPU a connection at first and {} µs at \
         the end{half}; with a port of the client's own \
         choice it was {} µs",
        small.first_us, small.last_us, small.chosen_us
    );
    (Finding::HoldsWithinLimits, format!("{order} {gains}; {cost}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        let small = Small {
            small_range_ports: 8000,
            connected: 8000,
            next_errno: libc::EADDRNOTAVAIL,
            first_us: 40,
            last_us: 250,
            chosen_us: 38,
        };
        let seen = Seen {
            low_port: 32_768,
            high_port: 60_999,
            looked_at: 40,
            in_range: 40,
            like_the_first: 40,
            bound_like_the_first: 0,
            chosen: 1000,
            small_range: Some(small.clone()),
        };
        let (finding, why) = judge(&seen);
        assert_eq!(finding, Finding::HoldsWithinLimits);
        assert!(why.contains("an even one") && why.contains("used up a range"), "{why}");
        let full = Small { next_errno: libc::ENFILE, ..small };
        let full = Seen { small_range: Some(full), ..seen.clone() };
        assert!(judge(&full).1.contains("ENFILE"));
        let shared = Seen { small_range: None, low_port: 32_769, ..seen.clone() };
        let (finding, why) = judge(&shared);
        assert_eq!(finding, Finding::HoldsWithinLimits);
        assert!(why.contains("never picks") && why.contains("an odd one"), "{why}");
        let pointless = Seen { chosen: 0, ..seen.clone() };
        assert_eq!(judge(&pointless).0, Finding::Holds);
        let outside = Seen { in_range: 39, ..seen };
        assert_eq!(judge(&outside).0, Finding::DoesNotHold);
    }
}
