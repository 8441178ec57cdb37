//! What becomes of a client whose server is not there yet, or at another port.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde::Serialize;
use socket2::{SockFilter, Socket};

use super::bench::{Bench, Place};
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::{Moment, moment};
use super::tcp;
use crate::sockets::select::Tables;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 12,
    id: "server-first",
    claim: "A client that does not know the server's port cannot connect, and the server \
            must be started first.",
    trial: "Clients connect to a port where nobody listens, to one whose packets a filter \
            drops, to one with a full queue, and to an address without a route; half a \
            second later all three ports have a server that answers: who is connected in \
            the end? Then the port of a server is searched for, and a client connects to \
            its own port.",
    run,
};

/// When the servers begin to answer: before a SYN is sent again (1 s).
const HEAD_START: Duration = Duration::from_millis(500);
/// How long a client that is not refused is waited for after that.
const PATIENCE: Duration = Duration::from_secs(3);
/// TEST-NET-1 (RFC 5737): in a namespace of our own there is no way to it.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// BPF_RET | BPF_K (linux/bpf_common.h): keep so many bytes of the packet.
const RETURN: u16 = 0x06;

/// What was seen.
#[derive(Debug, Clone, Default, Serialize)]
struct Seen {
    /// What connect() gave where nobody listens, and how soon.
    refused_errno: i32,
    refused_us: u64,
    /// What it gave for an address without a route; null: not tried.
    unreachable_errno: Option<i32>,
    /// Clients that came before their server: refused, dropped by a filter, dropped by a
    /// full queue.
    early_clients: usize,
    /// Of these, connected in the end.
    early_connected: usize,
    /// When the dropped ones were, after their connect(); null: never.
    filtered_connected_ms: Option<u64>,
    queue_full_connected_ms: Option<u64>,
    /// What the refused one gave when its port had a server.
    refused_later_errno: i32,
    /// Ports tried, from the lowest that the kernel gives out, until the server's was
    /// found, and how long that took; null: not tried.
    searched_ports: Option<u64>,
    searched_ms: Option<u64>,
    /// Bytes that a client without any server read from itself.
    self_connected_bytes: usize,
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    let mut seen = Seen::default();
    let mut left_out = Vec::new();
    let early = early(bench, &mut seen, &mut left_out)?;
    if bench.place == Place::Private {
        let unreachable = tcp::socket()?.connect(&SocketAddr::from((NOWHERE, 9)).into());
        seen.unreachable_errno = Some(tcp::errno(unreachable));
        search(bench, &mut seen)?;
    } else {
        left_out.push(
            "an address without a route, and the search of a port: they need a network \
             namespace of its own"
                .to_owned(),
        );
    }
    let own = connect_to_itself(&mut seen)?;
    Ok(Outcome::of(&seen, judge(&seen)).with([early, own]).without(left_out))
}

/// Clients that come half a second before their servers.
fn early(
    bench: &Bench<'_>,
    seen: &mut Seen,
    left_out: &mut Vec<String>,
) -> Result<Moment, Unable> {
    let nobody = tcp::socket()?;
    nobody.bind(&tcp::loopback(0).into()).step("binding")?;
    let at = tcp::address(&nobody)?;
    let begun = Instant::now();
    let refused = tcp::socket()?;
    seen.refused_errno = tcp::errno(refused.connect(&at.into()));
    seen.refused_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    // What a packet filter in front of a server does, this one does for one socket.
    let filtered = tcp::socket()?;
    let drop_all = [SockFilter::new(RETURN, 0, 0, 0)];
    // The kernel's memory for filters is bounded for who has no CAP_BPF (bpf_jit_limit).
    let no_filter = filtered.attach_filter(&drop_all).err();
    filtered.bind(&tcp::loopback(0).into()).step("binding")?;
    filtered.listen(4).step("listening")?;
    let (full, full_at) = tcp::listen(0)?;
    let _first = tcp::connect(full_at)?;
    let begun = Instant::now();
    let filtered_at = tcp::address(&filtered)?;
    let through_filter = match no_filter {
        None => Some(tcp::dial(filtered_at)?),
        Some(why) => {
            left_out.push(format!("a filter that drops what comes to a port: {why}"));
            None
        }
    };
    let has_filter = through_filter.is_some();
    let dials = [through_filter, Some(tcp::dial(full_at)?)];
    let waiting = moment("nobody answers", Tables::TCP, |row| {
        [filtered_at, full_at]
            .into_iter()
            .any(|at| [row.local.inet(), row.remote.inet()].contains(&Some(at)))
    })
    .step("reading the socket table")?;
    bench.wait(HEAD_START.saturating_sub(begun.elapsed()), || Ok(None::<()>))?;
    nobody.listen(4).step("listening")?;
    if has_filter {
        filtered.detach_filter().step("detaching a filter")?;
    }
    drop(tcp::accept(bench, &full)?);
    let mut connected = [None; 2];
    bench.wait(PATIENCE, || {
        for (dial, when) in dials.iter().zip(&mut connected) {
            if when.is_none() && dial.as_ref().is_some_and(|d| d.peer_addr().is_ok()) {
                *when = u64::try_from(begun.elapsed().as_millis()).ok();
            }
        }
        let answered = connected.iter().flatten().count();
        Ok((answered == dials.iter().flatten().count()).then_some(()))
    })?;
    [seen.filtered_connected_ms, seen.queue_full_connected_ms] = connected;
    // Its socket gave its error once; there is no dial that could still be answered.
    seen.refused_later_errno = tcp::errno(refused.peer_addr());
    seen.early_clients = 2 + usize::from(has_filter);
    seen.early_connected =
        connected.iter().flatten().count() + usize::from(seen.refused_later_errno == 0);
    Ok(waiting)
}

/// Finds the port of a listener by trying every one that the kernel gives out.
fn search(bench: &Bench<'_>, seen: &mut Seen) -> Result<(), Unable> {
    let (_listener, at) = tcp::listen(4)?;
    let begun = Instant::now();
    // One source port for all, lest a client meet itself.
    let own = tcp::loopback(1023);
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .step("reading the range of ports")?;
    let mut ends = range.split_whitespace().filter_map(|end| end.parse::<u16>().ok());
    let (low, high) = (ends.next().unwrap_or(1024), ends.next().unwrap_or(u16::MAX));
    for port in low..=high {
        if port % 256 == 0 {
            bench.go_on()?;
        }
        let client = tcp::socket()?;
        client.set_reuse_address(true).step("setting SO_REUSEADDR")?;
        client.bind(&own.into()).step("binding to port 1023")?;
        if client.connect(&tcp::loopback(port).into()).is_ok() && port == at.port() {
            seen.searched_ports = Some(u64::from(port - low) + 1);
            seen.searched_ms = u64::try_from(begun.elapsed().as_millis()).ok();
            return Ok(());
        }
    }
    Ok(())
}

/// Two SYNs that cross make a connection too (RFC 9293, simultaneous open): here they
/// are the same one.
fn connect_to_itself(seen: &mut Seen) -> Result<Moment, Unable> {
    let socket = tcp::socket()?;
    socket.bind(&tcp::loopback(0).into()).step("binding")?;
    let own = tcp::address(&socket)?;
    if socket.connect(&own.into()).is_ok() {
        seen.self_connected_bytes = echo(&socket)?;
    }
    moment("connected to itself", Tables::TCP, |row| row.local.inet() == Some(own))
        .step("reading the socket table")
}

fn echo(mut socket: &Socket) -> Result<usize, Unable> {
    socket.set_read_timeout(Some(tcp::SOON)).step("setting a timeout")?;
    socket.write_all(b"self").step("writing")?;
    socket.read(&mut [0; 16]).step("reading")
}

fn judge(seen: &Seen) -> (Finding, String) {
    if seen.refused_errno == 0 {
        let why = "connect() succeeded at a port where nobody listens.";
        return (Finding::DoesNotHold, why.into());
    }
    let mut why = format!(
        "Where nobody listens, connect() gave {} after {} µs, and a server that comes \
         later changes nothing for that client.",
        super::errno_name(seen.refused_errno),
        seen.refused_us,
    );
    if let Some(errno) = seen.unreachable_errno {
        why += &format!(" Without a route it gave {} at once.", super::errno_name(errno));
    }
    let exceptions = [
        seen.early_connected > 0,
        seen.searched_ports.is_some(),
        seen.self_connected_bytes > 0,
    ];
    if !exceptions.contains(&true) {
        return (Finding::Holds, why);
    }
    why += " But";
    let mut also = " ";
    if seen.early_connected > 0 {
        let late = seen.filtered_connected_ms.max(seen.queue_full_connected_ms);
        why += &format!(
            " a SYN that is dropped, by a filter or a full queue, gives no error: the \
             client sends it again, and {} of {} clients that came before their server \
             were connected when it answered, after {} ms at the most;",
            seen.early_connected,
            seen.early_clients,
            late.unwrap_or_default(),
        );
        also = " also, ";
    }
    if let (Some(ports), Some(ms)) = (seen.searched_ports, seen.searched_ms) {
        why += &format!(
            "{also}a port can be found: after {ports} refusals in {ms} ms here;"
        );
        also = " and ";
    }
    if seen.self_connected_bytes > 0 {
        why += &format!(
            "{also}a client that connects to its own port needs no server at all: it read \
             back its own {} bytes;",
            seen.self_connected_bytes
        );
    }
    why.pop();
    why.push('.');
    (Finding::HoldsWithinLimits, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        let seen = Seen { refused_errno: libc::ECONNREFUSED, ..Default::default() };
        assert_eq!(judge(&seen).0, Finding::Holds);
        let open = Seen::default();
        assert_eq!(judge(&open).0, Finding::DoesNotHold);
        let patient = Seen {
            early_connected: 1,
            filtered_connected_ms: Some(1020),
            ..seen.clone()
        };
        let found =
            Seen { searched_ports: Some(9), searched_ms: Some(1), ..seen.clone() };
        let alone = Seen { self_connected_bytes: 4, ..seen };
        for (seen, said) in [
            (patient, "after 1020 ms"),
            (found, "after 9 refusals"),
            (alone, "own 4 bytes."),
        ] {
            let (finding, why) = judge(&seen);
            assert_eq!(finding, Finding::HoldsWithinLimits);
            assert!(why.contains(said), "{why}");
        }
    }
}
