//! Looks at a listener again and again.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::due::Due;
use super::sample::{
    ConntrackSample, CountsSample, FilesSample, OwnerSample, SCHEMA, Sample,
};
use crate::host::files::file_nr;
use crate::host::memory::memory;
use crate::host::process::ProcessView;
use crate::kernel::sock_diag::SockDiag;
use crate::sockets::block::AddressBlock;
use crate::sockets::connections::{ServerRow, ServerSide, port_rows};
use crate::sockets::listeners::{self, Listener};
use crate::sockets::model::{Cookie, Family};
use crate::sockets::target::Endpoint;
use crate::sockets::watch::ListenerWatch;

/// All but the queue is read no more often than this: owners, counters, memory.
const SURROUNDINGS_EVERY: Duration = Duration::from_millis(100);
/// Connections are counted this often; where that takes long, less often, but not so
/// seldom that a probe would wait in vain.
const COUNT_EVERY: Duration = Duration::from_secs(1);
const COUNT_AT_LEAST_EVERY: Duration = Duration::from_secs(2);
/// The owners are looked for no more often than this: no sample can be taken meanwhile,
/// and with a million descriptors on a host it takes seconds.
const OWNERS_EVERY: Duration = Duration::from_secs(5);
const OWNERS_AT_LEAST_EVERY: Duration = Duration::from_secs(600);
/// Takes samples of one listener.
#[derive(Debug)]
pub struct Sampler {
    watch: ListenerWatch,
    count_from: Vec<AddressBlock>,
    began: Instant,
    address: Option<String>,
    uid: Option<u32>,
    surroundings: Sample,
    read: Due,
    owners: Due,
    count: Due,
    /// Connections of the clients named that were there at the first count.
    earlier: Option<HashSet<Cookie>>,
    /// Descriptors numbered below the limit, by pid and thread, when counted last.
    below: HashMap<(u32, u32), (Due, Option<u64>)>,
}

impl Sampler {
    /// Of what `watch` found; connections of `count_from` are counted.
    #[must_use]
    pub fn new(watch: ListenerWatch, count_from: Vec<AddressBlock>) -> Self {
        Self {
            watch,
            count_from,
            began: Instant::now(),
            address: None,
            uid: None,
            surroundings: Sample::default(),
            read: Due::every(SURROUNDINGS_EVERY, SURROUNDINGS_EVERY),
            owners: Due::every(OWNERS_EVERY, OWNERS_AT_LEAST_EVERY),
            count: Due::every(COUNT_EVERY, COUNT_AT_LEAST_EVERY),
            earlier: None,
            below: HashMap::new(),
        }
    }

    /// One look. The listener's numbers are of this moment; those of its owners and its
    /// host are up to 100 ms old; the `last` sample has all of them anew.
    ///
    /// # Errors
    /// What the dump of the listeners gives.
    pub fn take(&mut self, last: bool) -> io::Result<Sample> {
        if self.owners.is_due() && !self.watch.listeners().is_empty() {
            let began = Instant::now();
            self.watch.look_for_owners();
            self.owners.done(began);
        }
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if last || self.read.is_due() {
            let began = Instant::now();
            self.surroundings = self.surroundings();
            self.read.done(began);
        }
        let counts = (!self.count_from.is_empty() && (last || self.count.is_due()))
            .then(|| self.counted());
        let there = self.look()?;
        let full = self.watch.listeners().iter().filter(|l| l.is_full()).count();
        // A listener that is gone leaves its last numbers behind.
        let if_there = |n| if there > 0 { n } else { 0 };
        Ok(Sample {
            schema: SCHEMA.into(),
            clock_unix_us: u64::try_from(clock.as_micros()).unwrap_or(0),
            monotonic_us: u64::try_from(self.began.elapsed().as_micros()).unwrap_or(0),
            address: self.address.clone(),
            listening: there > 0,
            members: there as u64,
            backlog: if_there(self.watch.backlog()),
            queue_len: if_there(self.watch.queue_len()),
            full: if_there(full as u64),
            drops: self.watch.drops(),
            uid: self.uid,
            counts: counts.transpose()?,
            ..self.surroundings.clone()
        })
    }

    /// Looks at the listeners, and for others in the place of any that is gone.
    fn look(&mut self) -> io::Result<usize> {
        let known = self.watch.listeners().len();
        let mut there = self.watch.look()?;
        if there < known.max(1) {
            let before = cookies(self.watch.listeners());
            self.watch.find()?;
            there = self.watch.listeners().len();
            if there > 0 && cookies(self.watch.listeners()) != before {
                self.owners.at_once();
            }
        }
        if let Some(first) = self.watch.listeners().first() {
            self.uid = Some(first.uid);
            if self.address.is_none() {
                self.address = self.watch.address();
            }
        }
        Ok(there)
    }

    fn surroundings(&mut self) -> Sample {
        let owners: Vec<ProcessView> = self.watch.processes().collect();
        let owners = owners.into_iter().map(|owner| self.at_its_limit(owner));
        let owners = owners.map(OwnerSample::from).collect();
        let watch = &self.watch;
        let root = watch.proc_root();
        let tracked = watch.conntrack();
        let files = file_nr(root).ok();
        Sample {
            owners,
            owners_unreadable: watch.unreadable() as u64,
            counters: watch.counters(),
            somaxconn: watch.sysctl("net.core.somaxconn"),
            abort_on_overflow: watch.sysctl("net.ipv4.tcp_abort_on_overflow"),
            syncookies: watch.sysctl("net.ipv4.tcp_syncookies"),
            conntrack: tracked.map(|t| ConntrackSample { count: t.count, max: t.max }),
            file_nr: files.map(|f| FilesSample { open: f.allocated, max: f.max }),
            mem_available_bytes: memory(root).ok().map(|m| m.available_bytes),
            ..Sample::default()
        }
    }

    /// At its limit, an owner's descriptors below the limit are counted: 2 µs each, so
    /// not at every look.
    fn at_its_limit(&mut self, mut owner: ProcessView) -> ProcessView {
        if owner.open_fds.is_none() || owner.open_fds < owner.nofile_soft {
            return owner;
        }
        let (due, below) = self
            .below
            .entry((owner.pid, owner.tid))
            .or_insert((Due::every(COUNT_EVERY, COUNT_AT_LEAST_EVERY), None));
        if due.is_due() {
            let began = Instant::now();
            self.watch.count_below_limit(&mut owner);
            *below = owner.open_fds;
            due.done(began);
        }
        owner.open_fds = owner.open_fds.min(*below);
        owner
    }

    fn counted(&mut self) -> io::Result<CountsSample> {
        let began = Instant::now();
        let from = self.count_from.clone();
        let Endpoint::Tcp(target) = *self.watch.endpoint() else {
            return Ok(CountsSample { from, ..CountsSample::default() });
        };
        let (diag, found) = self.watch.diag_and_listeners();
        let is_first = self.earlier.is_none();
        let earlier = self.earlier.get_or_insert_default();
        let (mut side, mut old) = (ServerSide::default(), 0);
        each_row(diag, found, target.port(), |row| {
            let is_named = from.iter().any(|block| block.contains(row.remote.ip()));
            if is_named && is_first {
                earlier.insert(row.cookie);
            }
            if is_named && earlier.contains(&row.cookie) {
                old += 1;
            } else {
                side.count(row.standing, is_named);
            }
        })?;
        self.count.done(began);
        Ok(CountsSample {
            from,
            accepted: side.accepted,
            queued: side.queued,
            deferred: side.deferred,
            closing: side.closing,
            earlier: old,
            others: side.others,
        })
    }
}

fn cookies(found: &[Listener]) -> Vec<Cookie> {
    found.iter().map(|l| l.cookie).collect()
}

/// Hands out the connections of these listeners, whatever address of the host they came
/// in at: each belongs to the listener that would answer there.
fn each_row(
    diag: &mut SockDiag,
    found: &[Listener],
    port: u16,
    mut each: impl FnMut(&ServerRow),
) -> io::Result<()> {
    let all = listeners::inet(diag)?;
    let mut ours: HashMap<IpAddr, bool> = HashMap::new();
    for family in [Family::V4, Family::V6] {
        if !found.iter().any(|l| l.family() == Some(family)) {
            continue;
        }
        port_rows(diag, port, family, |row| {
            let is_ours = ours.entry(row.local.ip()).or_insert_with(|| {
                let answering = listeners::answering(&all, row.local);
                answering.iter().any(|l| found.iter().any(|f| f.cookie == l.cookie))
            });
            if *is_ours {
                each(row);
            }
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ProcRoot;
    use crate::sockets::testing::{connect, listen, loopback, wait_for};
    use std::net::{SocketAddr, TcpListener};

    fn sampler(at: SocketAddr, from: &[&str]) -> Sampler {
        let watch =
            ListenerWatch::attach(&Endpoint::Tcp(at), None, ProcRoot::default()).unwrap();
        Sampler::new(watch, from.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn a_sample_says_whose_the_listener_is_and_how_full() {
        let (listener, at) = listen(loopback(), 3);
        let _clients = connect(4, at);
        let sample = sampler(at, &[]).take(false).unwrap();
        assert!(sample.listening && sample.counts.is_none());
        assert_eq!((sample.backlog, sample.queue_len, sample.full), (3, 4, 1));
        assert_eq!(sample.address, Some(at.to_string()));
        let owner = sample.owners.iter().find(|o| o.pid == std::process::id()).unwrap();
        assert!(owner.open_fds > Some(3) && owner.nofile_soft.is_some());
        assert!(sample.counters.is_some() && sample.somaxconn.is_some());
        drop(listener);
    }

    #[test]
    fn a_listener_that_goes_and_comes_is_followed() {
        let (listener, at) = listen(loopback(), 3);
        let mut sampler = sampler(at, &[]);
        assert!(sampler.take(false).unwrap().listening);
        drop(listener);
        let gone = sampler.take(false).unwrap();
        assert!(!gone.listening && gone.address == Some(at.to_string()));
        let _again = wait_for("the address", || TcpListener::bind(at).ok());
        assert!(sampler.take(false).unwrap().listening);
    }

    #[test]
    fn connections_are_counted_by_their_clients_addresses() {
        let (listener, at) = listen(loopback(), 8);
        let froms = ["127.0.0.0/8", "127.0.0.1", "192.0.2.0/24"];
        let mut samplers = froms.map(|from| sampler(at, &[from]));
        let _earlier = connect(1, at);
        for sampler in &mut samplers {
            assert_eq!(sampler.take(false).unwrap().counts.unwrap().accepted, 0);
        }
        let _clients = connect(4, at);
        let _taken: Vec<_> = (0..2).map(|_| listener.accept().unwrap()).collect();
        let counts = samplers.map(|mut sampler| {
            let c = sampler.take(true).unwrap().counts.unwrap();
            [c.earlier, c.accepted, c.queued, c.others]
        });
        // The first that was taken is the one that was there before.
        assert_eq!(counts, [[1, 1, 3, 0], [1, 1, 3, 0], [0, 0, 0, 5]]);
    }

    #[test]
    fn connections_are_counted_about_once_a_second_and_in_the_last_sample() {
        let (_listener, at) = listen(loopback(), 3);
        let mut sampler = sampler(at, &["127.0.0.0/8"]);
        let mut counted = |last| sampler.take(last).unwrap().counts.is_some();
        assert_eq!((counted(false), counted(false), counted(true)), (true, false, true));
    }

    #[test]
    fn those_that_came_in_at_any_address_count_for_a_wildcard_listener() {
        let (_listener, bound) = listen(std::net::Ipv4Addr::UNSPECIFIED, 8);
        let at = SocketAddr::from((loopback(), bound.port()));
        let named = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, bound.port()));
        let mut sampler = sampler(named, &["127.0.0.0/8"]);
        sampler.take(false).unwrap();
        let _clients = connect(2, at);
        assert_eq!(sampler.take(true).unwrap().counts.unwrap().queued, 2);
    }
}
