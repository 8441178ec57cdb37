//! What the kernel does over a slow link: a connect() that succeeds is no proof that
//! the server has the connection. These tests describe the kernel, not this program.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepidle};
use sockscope::kernel::tcp_info::TcpInfo;
use sockscope::sockets::connections::Standing;

use crate::fixtures::burst::{burst, is_established, listen, standing, table};
use crate::fixtures::relay::{Shape, SlowLink};
use crate::fixtures::until;

const BURST: usize = 300;
/// What is dialed first, where the burst comes in two parts.
const FIRST: usize = 100;
const BACKLOG: i32 = 128;
/// What the accept queue of that backlog admits, and as many half-open ones.
const ADMITTED: usize = 129;

/// A server that accepts nothing, after a burst over 200 ms.
struct Overrun {
    link: SlowLink,
    server: SocketAddr,
    clients: Vec<TcpStream>,
    _listener: TcpListener,
}

impl Overrun {
    /// With `two`, the second part comes when the first is in the accept queue, which is
    /// then not full yet: the part of it that finds room for a request only.
    fn new(v6: bool, cookies: &str, abort: &str, two: bool) -> Option<Self> {
        let round_trip = Duration::from_millis(200);
        let link = SlowLink::new(Shape { round_trip, ..Shape::default() })?;
        link.server.sysctl("net/ipv4/tcp_syncookies", cookies);
        link.server.sysctl("net/ipv4/tcp_abort_on_overflow", abort);
        let listener = listen(&link, v6, BACKLOG);
        let server = listener.local_addr().unwrap();
        let first = if two { FIRST } else { 0 };
        let mut clients = burst(&link, server, first);
        let queued = |n| standing(&table(&link, server), Standing::Queued) == n;
        until("the first part is in the accept queue", || queued(first));
        clients.extend(burst(&link, server, BURST - first));
        until("the accept queue is full", || queued(ADMITTED));
        Some(Self { link, server, clients, _listener: listener })
    }

    /// Clients that are established; and at the server queued and half-open ones.
    fn counts(&self) -> (usize, usize, usize) {
        let table = table(&self.link, self.server);
        let established = self.clients.iter().filter(|c| is_established(c)).count();
        (
            established,
            standing(&table, Standing::Queued),
            standing(&table, Standing::Deferred),
        )
    }

    /// Waits until the counts are those and checks that they are the final ones.
    fn comes_to(&self, expected: (usize, usize, usize)) {
        until(&format!("{expected:?}, not {:?}", self.counts()), || {
            self.counts() == expected
        });
        // One round trip more, and whatever was still under way has arrived.
        std::thread::sleep(Duration::from_millis(250));
        assert_eq!(self.counts(), expected);
    }

    /// The clients whose end stands so at the server; None: it does not know them.
    fn that_stand(&self, so: Option<Standing>) -> Vec<&TcpStream> {
        let table = table(&self.link, self.server);
        let stands =
            |c: &TcpStream| table.get(&c.local_addr().unwrap()).map(|row| row.standing);
        self.clients.iter().filter(|c| is_established(c) && stands(c) == so).collect()
    }
}

fn segments(client: &TcpStream) -> u32 {
    TcpInfo::of(client).unwrap().segs_in.unwrap()
}

fn send_keepalive(client: &TcpStream) {
    set_socket_keepalive(client, true).unwrap();
    // After a second of silence setting it sends one at once.
    set_tcp_keepidle(client, Duration::from_secs(1)).unwrap();
}

#[test]
fn with_syn_cookies_all_of_a_burst_connect_and_the_server_knows_its_queue_alone() {
    for (cookies, v6) in [("1", false), ("1", true), ("2", false)] {
        let Some(overrun) = Overrun::new(v6, cookies, "0", false) else { return };
        overrun.comes_to((BURST, ADMITTED, 0));
    }
}

#[test]
fn without_syn_cookies_a_burst_beyond_the_request_queue_is_not_answered() {
    let Some(overrun) = Overrun::new(false, "0", "0", false) else { return };
    overrun.comes_to((ADMITTED, ADMITTED, 0));
}

#[test]
fn a_second_burst_leaves_connections_half_open() {
    for (cookies, v6, established, half_open) in [
        ("0", false, ADMITTED + FIRST, FIRST),
        ("1", false, BURST, FIRST),
        ("1", true, BURST, FIRST),
        ("2", false, BURST, 0),
    ] {
        let Some(overrun) = Overrun::new(v6, cookies, "0", true) else { return };
        overrun.comes_to((established, ADMITTED, half_open));
    }
}

#[test]
fn abort_on_overflow_resets_what_would_be_half_open_and_no_cookie() {
    for (cookies, established) in [("0", ADMITTED), ("1", BURST - FIRST), ("2", BURST)] {
        let Some(overrun) = Overrun::new(false, cookies, "1", true) else { return };
        overrun.comes_to((established, ADMITTED, 0));
    }
}

#[test]
fn half_open_ones_hear_again_and_cookie_phantoms_do_not_ack_a_keepalive() {
    for v6 in [false, true] {
        let Some(overrun) = Overrun::new(v6, "1", "0", true) else { return };
        overrun.comes_to((BURST, ADMITTED, FIRST));
        let half_open = overrun.that_stand(Some(Standing::Deferred));
        let queued = overrun.that_stand(Some(Standing::Queued));
        let unknown = overrun.that_stand(None);
        assert_eq!(unknown.len(), BURST - ADMITTED - FIRST);

        until("each half-open one has heard a second SYN-ACK", || {
            half_open.iter().all(|client| segments(client) > 1)
        });
        assert!(queued.iter().chain(&unknown).all(|client| segments(client) == 1));

        queued.iter().chain(&unknown).for_each(|client| send_keepalive(client));
        until("each true one has ACKed its keepalive", || {
            queued.iter().all(|client| segments(client) == 2)
        });
        if v6 {
            // The server takes the keepalive for a late ACK, and its queue is full.
            assert!(unknown.iter().all(|client| segments(client) == 1));
            assert!(unknown.iter().all(|client| is_established(client)));
        } else {
            until("each phantom was reset", || {
                !unknown.iter().any(|client| is_established(client))
            });
        }
    }
}
