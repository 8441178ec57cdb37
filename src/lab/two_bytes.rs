//! How many connections the two bytes of a port allow.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use socket2::Socket;

use super::bench::Bench;
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::{Moment, moment};
use super::tools::{SoftNofile, connect, connect_from, errno};
use crate::host::ProcRoot;
use crate::kernel::fd_table::OwnTable;
use crate::render::{bytes, count};
use crate::sockets::model::States;
use crate::sockets::select::{Selection, Tables};
use crate::sockets::source::Source;
use crate::sockets::source::netlink::NetlinkSource;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 9,
    id: "two-bytes",
    claim: "65,535 connections are the limit, since a port has two bytes.",
    trial: "Clients connect to one port of a server, from each port of one address and \
            then from a second address, until 70,000 are held; those that the server has \
            accepted are counted in the socket table. At the end one more dials from the \
            first address.",
    run,
};

/// Every port but 0.
const PORTS: u32 = 65_535;
/// How many connections are to be held.
const TOTAL: u32 = 70_000;
/// The most fd tables, a thread each.
const TABLES: u64 = 100;
/// Descriptors of a table that are no connections.
const SPARE: u64 = 64;
/// What both ends of so many take: some 10 kB a pair.
const MEMORY: u64 = TOTAL as u64 * 12_000;

/// What was seen.
#[derive(Debug, Clone, Serialize)]
struct Seen {
    /// Connections on the server's port, accepted, at a time.
    accepted: u32,
    /// Of these, from the first address.
    from_first_address: u32,
    /// From the second.
    from_second_address: u32,
    /// What one more from the first address gave.
    one_more_errno: i32,
    /// Fd tables that the clients were held in, of one process.
    fd_tables: u64,
}

/// What the threads that dial have in common.
struct Dials {
    to: SocketAddr,
    /// The number of the next: the first [`PORTS`] are ports of the first address.
    next: AtomicU32,
    /// How many each may hold.
    each: usize,
}

/// What one of them got.
#[derive(Default)]
struct Got {
    from_first: u32,
    from_second: u32,
    /// What ended it early.
    error: Option<Unable>,
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    bench.needs_private("it takes every port of an address")?;
    let memory = crate::host::memory::memory(&ProcRoot::default()).map_err(|e| e.source);
    let available = memory.step("reading /proc/meminfo")?.available_bytes;
    if available < MEMORY {
        return Err(Unable::Missing(format!(
            "it needs {} of memory, and {} are available",
            bytes(MEMORY),
            bytes(available)
        )));
    }
    bench.set("net/ipv4/ip_unprivileged_port_start", "0")?;
    bench.set("net/ipv4/ip_local_port_range", "1 65535")?;
    bench.set("net/core/somaxconn", "65535")?;
    let limit = SoftNofile::set(u64::from(TOTAL) + SPARE).step("setrlimit()")?;
    let each = limit.now.saturating_sub(SPARE).max(1);
    let fd_tables = u64::from(TOTAL).div_ceil(each);
    if fd_tables > TABLES {
        return Err(Unable::Missing(format!(
            "RLIMIT_NOFILE is {}, and {TOTAL} connections would need {fd_tables} fd \
             tables: raise the hard limit",
            limit.now
        )));
    }
    let server = bench.serve(&[
        "--listen",
        "127.0.0.9:0",
        "--backlog",
        "65535",
        "--fd-tables=auto",
    ])?;
    let no_address = || Unable::Missing("the server has no TCP address".into());
    let to = server.tcp().ok_or_else(no_address)?;
    let each = usize::try_from(each).unwrap_or(usize::MAX);
    let dials = Dials { to, next: AtomicU32::new(0), each };
    let (seen, table) = thread::scope(|scope| {
        let (done, reports) = mpsc::channel();
        let mut ends = Vec::new();
        for _ in 0..fd_tables {
            let (end, ended) = mpsc::channel::<()>();
            let (done, dials) = (done.clone(), &dials);
            thread::Builder::new()
                .spawn_scoped(scope, move || hold(bench, dials, done, &ended))
                .step("starting a thread")?;
            ends.push(end);
        }
        drop(done);
        let seen = measure(bench, to, fd_tables, &reports);
        // This lets them go; so does every other way out.
        drop(ends);
        seen
    })?;
    Ok(Outcome::of(&seen, judge(&seen)).with([table]))
}

/// Dials in an fd table of its own until all are held or the table is full; holds them
/// until `ended`.
fn hold(bench: &Bench<'_>, dials: &Dials, done: Sender<Got>, ended: &Receiver<()>) {
    let mut got = Got::default();
    let mut held = Vec::new();
    let table = OwnTable::unshare(&[]).step("unshare(CLONE_FILES)");
    // Bound to a name: what it proves ends with this function.
    let (_table, filled) = match table {
        Ok(table) => (Some(table), fill(bench, dials, &mut held, &mut got)),
        Err(error) => (None, Err(error)),
    };
    got.error = filled.err();
    let _ = done.send(got);
    // Who reads the reports waits until nobody can send any more.
    drop(done);
    // Err: that is the sign.
    let _ = ended.recv();
}

fn fill(
    bench: &Bench<'_>,
    dials: &Dials,
    held: &mut Vec<Socket>,
    got: &mut Got,
) -> Result<(), Unable> {
    while held.len() < dials.each {
        bench.go_on()?;
        let number = dials.next.fetch_add(1, Ordering::Relaxed);
        if number >= TOTAL {
            break;
        }
        let is_first = number < PORTS;
        let (host, port) = if is_first { (1, number) } else { (2, number - PORTS) };
        let port = u16::try_from(port + 1).unwrap_or(u16::MAX);
        let from = (Ipv4Addr::new(127, 0, 0, host), port).into();
        held.push(connect_from(from, dials.to).step("connecting from a chosen port")?);
        *(if is_first { &mut got.from_first } else { &mut got.from_second }) += 1;
    }
    Ok(())
}

/// Counts when all are held.
fn measure(
    bench: &Bench<'_>,
    to: SocketAddr,
    fd_tables: u64,
    reports: &Receiver<Got>,
) -> Result<(Seen, Moment), Unable> {
    let (mut from_first_address, mut from_second_address) = (0, 0);
    for got in reports {
        if let Some(error) = got.error {
            return Err(error);
        }
        from_first_address += got.from_first;
        from_second_address += got.from_second;
    }
    let held = from_first_address + from_second_address;
    let mut accepted = 0;
    bench.wait(Duration::from_secs(3), || {
        accepted = count_accepted(to)?;
        Ok((accepted >= held).then_some(()))
    })?;
    let one_more_errno = errno(&connect(to));
    let table = moment("all are held", Tables::TCP, |row| row.local.inet() == Some(to))
        .step("reading the socket table")?;
    let seen = Seen {
        accepted,
        from_first_address,
        from_second_address,
        one_more_errno,
        fd_tables,
    };
    Ok((seen, table))
}

/// How many connections a server has accepted at this address.
fn count_accepted(at: SocketAddr) -> io::Result<u32> {
    let selection = Selection {
        tables: Tables::TCP,
        states: States::ESTABLISHED,
        ..Selection::everything()
    };
    let mut accepted = 0;
    NetlinkSource::open()?.rows(&selection, &mut |row| {
        accepted += u32::from(row.local.inet() == Some(at) && row.inode.exists());
        ControlFlow::Continue(())
    })?;
    Ok(accepted)
}

fn judge(seen: &Seen) -> (Finding, String) {
    let accepted = count(seen.accepted.into());
    if seen.accepted <= PORTS {
        let why = format!(
            "A server's port had {accepted} connections and no more, with clients at two \
             addresses."
        );
        return (Finding::Holds, why);
    }
    let first = count(seen.from_first_address.into());
    let end = match seen.one_more_errno {
        0 => format!("and even from the first address, after {first}, one more came"),
        errno => format!(
            "but from one address to this port only {first}, one for each of its ports: \
             the next failed with {}",
            super::errno_name(errno)
        ),
    };
    let why = format!(
        "One port of a server had {accepted} connections at a time, {end}. The two bytes \
         bound what one client address can have with one ip:port; each other client \
         brings as many again, and a server has no more need of ports than the one. A \
         descriptor table has its own limit, so the clients here took {} of them.",
        seen.fd_tables
    );
    (Finding::DoesNotHold, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        let seen = Seen {
            accepted: 70_000,
            from_first_address: 65_535,
            from_second_address: 4_465,
            one_more_errno: libc::EADDRNOTAVAIL,
            fd_tables: 4,
        };
        let (finding, why) = judge(&seen);
        assert_eq!(finding, Finding::DoesNotHold);
        assert!(why.contains("one for each of its ports"), "{why}");
        let more = Seen { one_more_errno: 0, ..seen.clone() };
        assert!(judge(&more).1.contains("one more came"));
        let full = Seen { accepted: 65_535, ..seen };
        assert_eq!(judge(&full).0, Finding::Holds);
    }
}
