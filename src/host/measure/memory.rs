//! What an idle connection costs in kernel memory: pairs opened over loopback, and the
//! growth of the kernel's slabs.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::Duration;

use rustix::event::epoll;
use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use super::Meminfo;
use crate::host::ProcRoot;
use crate::host::counters::Sockstat;
use crate::kernel::fd_table::OwnTable;

/// Pairs that are opened in each round, where the fd table has room for them.
const PAIRS: u64 = 500;
/// Where only the sum of all slabs can be read: the kernel brings that up to date a
/// megabyte at a time, and slabs that are partly free take the first pairs.
const PAIRS_OF_SUM: u64 = 4000;
/// Rounds; the median counts, for other programs take and give memory meanwhile.
const ROUNDS: usize = 7;
/// The first port that needs no right to bind.
const FIRST_PORT: u16 = 1024;
/// Between two rounds.
const GRACE: Duration = Duration::from_millis(100);
/// Descriptors that are left free.
const SPARE: u64 = 32;
/// Fewer tell nothing.
const PAIRS_LEAST: u64 = 50;

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemoryMeasured {
    /// Pairs that were open at a time.
    pub pairs: u64,
    /// Kernel memory of both ends of one connection, in bytes: the median of the rounds.
    pub pair_bytes: u64,
    /// Of one end: half of it.
    pub end_bytes: u64,
    /// The least and the most of the rounds.
    pub spread_bytes: [u64; 2],
    /// What it was read from: `/proc/slabinfo`, or `/proc/meminfo` where only root may
    /// read that.
    pub source: String,
}

/// Opens pairs over loopback and closes them, several times.
///
/// # Errors
/// Where pairs could not be opened, or memory not read; ResourceBusy where the rounds
/// differ too much to be believed.
pub fn idle_pairs(root: &ProcRoot) -> io::Result<MemoryMeasured> {
    // In a table of its own: the process may have few descriptors left in its first.
    thread::scope(|scope| {
        let run = thread::Builder::new().spawn_scoped(scope, || {
            let _table = OwnTable::unshare(&[])?;
            measure(root)
        })?;
        run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn measure(root: &ProcRoot) -> io::Result<MemoryMeasured> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let slabs = Slabs::open(root)?;
    let wanted = match slabs {
        Slabs::Each(_) => PAIRS,
        Slabs::All(_) => PAIRS_OF_SUM,
    };
    let pairs = (limit.saturating_sub(SPARE) / 2).min(wanted);
    if pairs < PAIRS_LEAST {
        let why = format!("RLIMIT_NOFILE {limit} leaves no room for {PAIRS_LEAST} pairs");
        return Err(io::Error::new(io::ErrorKind::QuotaExceeded, why));
    }
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut rounds = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        if round > 0 {
            // What the last one closed is freed after a grace period of RCU.
            thread::sleep(GRACE);
        }
        rounds.push(open_once(root, &slabs, epoll.as_fd(), pairs)?);
    }
    rounds.sort_unstable();
    let (least, most) = (rounds[0], rounds[ROUNDS - 1]);
    let pair_bytes = rounds[ROUNDS / 2];
    // Both ends are at least a struct tcp_sock of 2 KiB. Where the rounds in the middle
    // differ much, or are many times the documented figure, it is another program's doing.
    let middle = rounds[ROUNDS - 3].abs_diff(rounds[2]);
    if !(4096..100_000).contains(&pair_bytes) || middle * 4 > pair_bytes {
        let why = format!(
            "other programs take and give too much memory meanwhile ({least} to {most} \
             bytes a pair)"
        );
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, why));
    }
    Ok(MemoryMeasured {
        pairs,
        pair_bytes,
        end_bytes: pair_bytes.div_ceil(2),
        spread_bytes: [least, most],
        source: slabs.source().to_owned(),
    })
}

/// Opens `pairs`, watched by epoll as those of a server are, and says what each took, in
/// bytes; 0 where memory was given back.
fn open_once(
    root: &ProcRoot,
    slabs: &Slabs,
    epoll: BorrowedFd<'_>,
    pairs: u64,
) -> io::Result<u64> {
    let mut ports = FIRST_PORT..=u16::MAX;
    let listener = listen(&mut ports)?;
    let address = listener.local_addr()?;
    let counts = || Sockstat::read(root).map_err(|error| error.source);
    let (counts_before, before) = (counts()?, slabs.read()?);
    let mut held = Vec::new();
    for _ in 0..pairs {
        let client = dial(address, &mut ports)?;
        // Closed by a RST: nothing stays in TIME_WAIT.
        client.set_linger(Some(Duration::ZERO))?;
        let (server, _) = listener.accept()?;
        for end in [client.as_fd(), server.as_fd()] {
            let data = epoll::EventData::new_u64(0);
            epoll::add(epoll, end, data, epoll::EventFlags::IN)?;
        }
        held.push((client, server));
    }
    let (counts_after, after) = (counts()?, slabs.read()?);
    drop(held);
    // Other programs open and close connections meanwhile: what came is shared by all
    // that did.
    let ends = counts_after.tcp_alloc.saturating_sub(counts_before.tcp_alloc);
    let came = ends / 2;
    if came * 2 < pairs {
        return Ok(0);
    }
    let pages = counts_after.tcp_mem_pages.saturating_sub(counts_before.tcp_mem_pages);
    let buffers = pages.saturating_mul(rustix::param::page_size() as u64);
    Ok((after.grown_since(&before, came) + buffers) / came)
}

/// An address that others hardly use. The kernel's own search for a port fails where a
/// program has bound all of its range, at whatever address.
fn own_address() -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 89, high, low)
}

/// Listens at the next port that can be had.
fn listen(ports: &mut impl Iterator<Item = u16>) -> io::Result<TcpListener> {
    next_free(ports, |port| TcpListener::bind((own_address(), port)))
}

/// Connects from the next port that can be had.
fn dial(to: SocketAddr, ports: &mut impl Iterator<Item = u16>) -> io::Result<Socket> {
    next_free(ports, |port| {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        client.set_reuse_address(true)?;
        client.bind(&SocketAddr::from((own_address(), port)).into())?;
        client.connect(&to.into())?;
        Ok(client)
    })
}

fn next_free<T>(
    ports: &mut impl Iterator<Item = u16>,
    mut at: impl FnMut(u16) -> io::Result<T>,
) -> io::Result<T> {
    for port in ports {
        match at(port) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
                ) => {}
            other => return other,
        }
    }
    Err(io::ErrorKind::AddrNotAvailable.into())
}

/// Where slabs are read.
enum Slabs {
    /// Each cache by itself; only root may read it.
    Each(ProcRoot),
    /// All of them together.
    All(Meminfo),
}

/// Slabs at a moment.
enum Sizes {
    /// Of each cache, its objects and what one takes with its share of the slab.
    Each(HashMap<String, (u64, f64)>),
    All(u64),
}

impl Slabs {
    fn open(root: &ProcRoot) -> io::Result<Self> {
        let readable = root.read("slabinfo").is_ok_and(|text| !parse(&text).is_empty());
        Ok(match readable {
            true => Self::Each(root.clone()),
            false => Self::All(Meminfo::open(root)?),
        })
    }

    fn source(&self) -> &'static str {
        match self {
            Self::Each(_) => "/proc/slabinfo",
            Self::All(_) => "/proc/meminfo",
        }
    }

    fn read(&self) -> io::Result<Sizes> {
        Ok(match self {
            Self::Each(root) => {
                let text = root.read("slabinfo").map_err(|error| error.source)?;
                Sizes::Each(parse(&text))
            }
            Self::All(meminfo) => Sizes::All(meminfo.read()?.slab_bytes),
        })
    }
}

impl Sizes {
    /// Bytes that came since, of caches that grew with the pairs.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    fn grown_since(&self, before: &Self, pairs: u64) -> u64 {
        match (self, before) {
            (Self::Each(now), Self::Each(before)) => {
                let grown = now.iter().map(|(name, &(objects, each))| {
                    let had = before.get(name).map_or(0, |&(objects, _)| objects);
                    let more = objects.saturating_sub(had);
                    // What grew by less than one for two pairs grew for another reason.
                    if more * 2 < pairs { 0.0 } else { more as f64 * each }
                });
                grown.sum::<f64>() as u64
            }
            (Self::All(now), Self::All(before)) => now.saturating_sub(*before),
            _ => 0,
        }
    }
}

/// /proc/slabinfo (slabinfo(5)): of each cache its active objects, and what one takes.
#[allow(clippy::cast_precision_loss)]
fn parse(slabinfo: &str) -> HashMap<String, (u64, f64)> {
    let page = rustix::param::page_size() as f64;
    let cache = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?.to_owned();
        let mut number = || words.next()?.parse::<u64>().ok();
        let (active, _all, _size) = (number()?, number()?, number()?);
        let (per_slab, pages) = (number()?, number()?);
        let each = pages as f64 * page / per_slab.max(1) as f64;
        Some((name, (active, each)))
    };
    slabinfo.lines().filter_map(cache).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "slabinfo - version: 2.1\n# name  <active_objs> <num_objs>\n\
        TCP   100  104  2368  13  8 : tunables 0 0 0 : slabdata 8 8 0\n\
        other 5000 5000 4096 8 8 : tunables 0 0 0 : slabdata 1 1 0\n";

    #[test]
    fn caches_that_did_not_grow_with_the_pairs_are_left_out() {
        let before = Sizes::Each(parse(BEFORE));
        let now =
            BEFORE.replace("TCP   100", "TCP   300").replace("5000 5000", "5040 5040");
        let grown = Sizes::Each(parse(&now)).grown_since(&before, 100);
        let page = rustix::param::page_size() as u64;
        assert_eq!(grown, 200 * 8 * page / 13);
    }

    #[test]
    fn a_connection_of_this_kernel_costs_what_a_tcp_socket_can() {
        match idle_pairs(&ProcRoot::default()) {
            Ok(found) => {
                assert!((5_000..30_000).contains(&found.pair_bytes), "{found:?}");
                assert_eq!(found.pairs, PAIRS.min(found.pairs));
            }
            // Other tests open and close thousands at the same time.
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "{error}");
            }
        }
    }
}
