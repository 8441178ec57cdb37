//! What the server really had: the namespace's own table (`/proc/net/tcp`, proc_net(5)),
//! read over and over while the probe runs. Nothing of what is tested has a part in it.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::fixtures::netns::Netns;

/// How often the table is read.
const EVERY: Duration = Duration::from_millis(5);

/// The most at any one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Peak {
    /// ESTABLISHED or CLOSE_WAIT at the server, with an inode: a descriptor refers to it.
    pub(super) accepted: u64,
    /// The same with those that no descriptor refers to yet: the accept queue.
    pub(super) known: u64,
    /// ESTABLISHED or CLOSE_WAIT at the client.
    pub(super) client: u64,
    /// The longest time between two readings: what lasted longer has been seen.
    pub(super) blind: Duration,
}

impl Peak {
    fn or(self, other: Self) -> Self {
        Self {
            accepted: self.accepted.max(other.accepted),
            known: self.known.max(other.known),
            client: self.client.max(other.client),
            blind: self.blind.max(other.blind),
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    local_port: u16,
    remote_port: u16,
    state: u8,
    inode: u64,
}

const ESTABLISHED: u8 = 0x01;
const CLOSE_WAIT: u8 = 0x08;
const LISTEN: u8 = 0x0a;

impl Row {
    /// A line of `/proc/net/tcp` or `tcp6`; None of their heading.
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let port = |word: &str| u16::from_str_radix(word.rsplit_once(':')?.1, 16).ok();
        Some(Self {
            local_port: port(words.get(1)?)?,
            remote_port: port(words.get(2)?)?,
            state: u8::from_str_radix(words.get(3)?, 16).ok()?,
            inode: words.get(9)?.parse().ok()?,
        })
    }

    fn is_open(&self) -> bool {
        [ESTABLISHED, CLOSE_WAIT].contains(&self.state)
    }
}

/// The rows of the namespace that the thread is in, without listeners: at the server's
/// end, and at the client's.
fn rows(port: u16) -> (Vec<Row>, Vec<Row>) {
    let (mut server, mut client) = (Vec::new(), Vec::new());
    for table in ["tcp", "tcp6"] {
        // Not /proc/net, which is that of the main thread.
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}"));
        let text = text.unwrap_or_default();
        for row in text.lines().filter_map(Row::parse).filter(|r| r.state != LISTEN) {
            match () {
                () if row.local_port == port => server.push(row),
                () if row.remote_port == port => client.push(row),
                () => {}
            }
        }
    }
    (server, client)
}

fn now(port: u16) -> Peak {
    let (server, client) = rows(port);
    let open = |rows: &[Row], with_inode: bool| {
        let counts = |row: &&Row| row.is_open() && (!with_inode || row.inode != 0);
        rows.iter().filter(counts).count() as u64
    };
    Peak {
        accepted: open(&server, true),
        known: open(&server, false),
        client: open(&client, false),
        blind: Duration::ZERO,
    }
}

/// Ends the reading, also where a panic does.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Runs `f`, and gives what it gave, and the peaks of the namespace meanwhile.
pub(super) fn meanwhile<T>(netns: &Netns, port: u16, f: impl FnOnce() -> T) -> (T, Peak) {
    let done = AtomicBool::new(false);
    let read = || {
        let (mut peak, mut last) = (Peak::default(), Instant::now());
        while !done.load(Relaxed) {
            let began = std::mem::replace(&mut last, Instant::now());
            peak = peak.or(now(port));
            peak.blind = peak.blind.max(began.elapsed());
            thread::sleep(EVERY);
        }
        peak
    };
    thread::scope(|s| {
        let reader = s.spawn(|| netns.inside(read));
        let ends = Ends(&done);
        let given = f();
        drop(ends);
        (given, reader.join().unwrap())
    })
}

/// Connections that the server has and nobody else. Under SYN cookies a listener takes an
/// ACK of TIME_WAIT's for the end of a handshake where nothing was sent before the FINs:
/// both sequence numbers are one further, and their difference is all that a cookie
/// holds (`check_tcp_syn_cookie`, net/ipv4/syncookies.c).
pub(super) fn ghosts(netns: &Netns, port: u16) -> usize {
    let (server, client) = netns.inside(|| rows(port));
    server.iter().filter(|row| is_ghost(row, &client)).count()
}

fn is_ghost(row: &Row, client: &[Row]) -> bool {
    let is_dialed = |c: &Row| c.is_open() && c.local_port == row.remote_port;
    row.state == ESTABLISHED && !client.iter().any(is_dialed)
}

/// What is left, in words; None where nothing is. What was closed by a FIN leaves the
/// states that end a connection (TIME_WAIT and before), and a client's dead connection may
/// stand in an accept queue that nobody empties. Ghosts may stay where it is haunted.
pub(super) fn left(
    netns: &Netns,
    port: u16,
    by_fin: bool,
    haunted: bool,
) -> Option<String> {
    let (server, client) = netns.inside(|| rows(port));
    let may_stay = |row: &Row| row.inode == 0 || haunted && is_ghost(row, &client);
    let at_server = server.iter().find(|row| row.is_open() && !may_stay(row));
    let at_client = client.iter().find(|row| row.is_open() || !by_fin);
    let found = at_server.or(at_client)?;
    Some(format!("{found:?}"))
}

#[test]
fn a_row_of_the_table_is_read() {
    let heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when \
                   retrnsmt   uid  timeout inode";
    assert_eq!(Row::parse(heading), None);
    let line = "   1: 0100007F:07D0 0200007F:9C41 01 00000000:00000000 00:00000000 \
                00000000     0        0 81224 1 0000000000000000 20 4 30 10 -1";
    let row = Row { local_port: 2000, remote_port: 40_001, state: 1, inode: 81_224 };
    assert_eq!(Row::parse(line), Some(row));
}

#[test]
fn what_a_namespace_has_is_counted_by_side() {
    let Some(netns) = Netns::new() else { return };
    let ((), peak) = meanwhile(&netns, 2000, || {
        netns.inside(|| {
            let listener =
                std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 2000)).unwrap();
            let dial = |_| std::net::TcpStream::connect(listener.local_addr().unwrap());
            let clients: Vec<_> = (0..5).map(|n| dial(n).unwrap()).collect();
            let accepted = [(); 3].map(|()| listener.accept().unwrap());
            // Until it was read once more.
            let seen = || now(2000);
            crate::fixtures::until("all are there", || seen().accepted == 3);
            thread::sleep(EVERY * 4);
            drop((clients, accepted));
        });
    });
    assert_eq!((peak.accepted, peak.known, peak.client), (3, 5, 5));
    assert!(peak.blind > Duration::ZERO);
}
