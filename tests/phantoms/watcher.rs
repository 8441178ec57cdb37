//! What the relay sees of one probe: it holds a second burst back, and looks into the
//! server's table at the moment when the probe begins to close what it held.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sockscope::kernel::sock_diag::SockDiag;
use sockscope::sockets::connections::{ServerRow, Standing};

use crate::fixtures::burst::read_table;
use crate::fixtures::relay::{Fate, Passing, SlowLink, Way};
use crate::fixtures::until;

/// What arrives first, where the burst comes in two.
const FIRST: usize = 100;
/// How much later the rest arrives: before the first SYN is due again.
const GAP: Duration = Duration::from_millis(700);
/// FINs that lie further apart than that are not of the same closing.
const CLOSING: Duration = Duration::from_millis(100);

/// The server's table, by the client's address.
pub(crate) type Table = HashMap<SocketAddr, ServerRow>;

#[derive(Default)]
struct Seen {
    dialed: HashSet<SocketAddr>,
    acked: HashSet<SocketAddr>,
    finished: HashSet<SocketAddr>,
    reset: HashSet<SocketAddr>,
    gap_ends: Option<Instant>,
    closings: Vec<Closing>,
    trace: Vec<(Duration, Passing)>,
}

/// FINs that follow each other closely.
struct Closing {
    /// The server's table when the first left, and what the client had reset by then.
    table: Table,
    reset: HashSet<SocketAddr>,
    last: Instant,
    fins: HashSet<SocketAddr>,
}

/// Watches one probe of one server over a link.
pub(crate) struct Watcher {
    seen: Arc<Mutex<Seen>>,
    server: SocketAddr,
}

impl Watcher {
    pub(crate) fn new(link: &SlowLink, server: SocketAddr, bursts: u8) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut diag = link.server.inside(SockDiag::open).unwrap();
        let (shared, begin) = (seen.clone(), Instant::now());
        link.set_tap(move |passing| {
            let segment = &passing.segment;
            let (client, other) = match passing.way {
                Way::Up => (segment.source, segment.destination),
                Way::Down => (segment.destination, segment.source),
            };
            if other != server {
                return Fate::Carried;
            }
            let mut seen = shared.lock().unwrap();
            seen.trace.push((begin.elapsed(), *passing));
            match passing.way {
                Way::Down => {}
                Way::Up if segment.rst() => drop(seen.reset.insert(client)),
                Way::Up if segment.opens() => return seen.dial(client, bursts),
                Way::Up if segment.fin() => {
                    seen.closes(client, || read_table(&mut diag, server));
                    seen.finished.insert(client);
                }
                Way::Up => drop(seen.acked.insert(client)),
            }
            Fate::Carried
        });
        Self { seen, server }
    }

    /// How many clients have ACKed the server's SYN-ACK.
    pub(crate) fn acked(&self) -> usize {
        self.seen.lock().unwrap().acked.len()
    }

    /// The server's table at the moment when the probe began to close what it counted,
    /// and what it had given up by RST before that.
    pub(crate) fn at_close(
        &self,
        counted: &HashSet<SocketAddr>,
    ) -> (Table, HashSet<SocketAddr>) {
        // The probe has ended, but what it sent may still stand in front of the relay.
        until("what was counted is closed", || {
            let seen = self.seen.lock().unwrap();
            counted.iter().all(|c| seen.finished.contains(c) || seen.reset.contains(c))
        });
        let seen = self.seen.lock().unwrap();
        // A busy client closes with pauses: by the second the server has closed some too.
        let of_counted = |closing: &&Closing| !closing.fins.is_disjoint(counted);
        let first = seen.closings.iter().find(of_counted);
        let most = || seen.closings.iter().max_by_key(|closing| closing.fins.len());
        let closing = first.or_else(most);
        closing.map(|c| (c.table.clone(), c.reset.clone())).unwrap_or_default()
    }

    /// Each segment of one connection, a line each.
    pub(crate) fn trace(&self, client: SocketAddr) -> String {
        let seen = self.seen.lock().unwrap();
        let of_it = seen.trace.iter().filter(|(_, passing)| {
            let segment = &passing.segment;
            [segment.source, segment.destination].contains(&client)
        });
        let line = |(at, passing): &(Duration, Passing)| {
            let Passing { way, segment, is_lost } = passing;
            let lost = if *is_lost { " LOST" } else { "" };
            format!("    {:9.3} ms {way:?} {segment}{lost}\n", at.as_secs_f64() * 1e3)
        };
        format!("  {client} to {}\n{}", self.server, of_it.map(line).collect::<String>())
    }
}

impl Seen {
    fn dial(&mut self, client: SocketAddr, bursts: u8) -> Fate {
        self.dialed.insert(client);
        if bursts < 2 || self.dialed.len() <= FIRST {
            return Fate::Carried;
        }
        let now = Instant::now();
        let ends = *self.gap_ends.get_or_insert(now + GAP);
        Fate::Late(ends.saturating_duration_since(now))
    }

    fn closes(&mut self, client: SocketAddr, read: impl FnOnce() -> Table) {
        let now = Instant::now();
        if let Some(closing) = self.closings.last_mut()
            && now < closing.last + CLOSING
        {
            closing.last = now;
            closing.fins.insert(client);
            return;
        }
        let (table, reset) = (read(), self.reset.clone());
        let (last, fins) = (Instant::now(), HashSet::from([client]));
        self.closings.push(Closing { table, reset, last, fins });
    }
}

/// Those that the server has, in its queue or accepted.
pub(crate) fn held(table: &Table) -> HashSet<SocketAddr> {
    let has =
        |row: &&ServerRow| matches!(row.standing, Standing::Queued | Standing::Accepted);
    table.values().filter(has).map(|row| row.remote).collect()
}
