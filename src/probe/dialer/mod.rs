//! A dialer: one thread, one epoll, one table of connections.
//!
//! It keeps a window of non-blocking dials in flight, each from a four-tuple that it
//! chose, notices what becomes of what it holds, and never waits for one connection.

mod closings;
mod confirm;
mod serve;
mod settle;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Sender;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fs::fstat;
use rustix::process::{Resource, getrlimit};
use rustix::time::Timespec;
use socket2::{SockRef, Socket, Type};

use super::conns::{Conns, State};
use super::shared::{Exhausted, Gauges, Permit, Phase, Shared, bump, drop_one, lock};
use super::tuples::{Share, Tuple};
use crate::kernel::fd_table::{LocalFd, OwnTable};
pub use closings::{Closings, Sample};
use confirm::Confirmer;
use serve::Serving;

/// How long is slept while a scout is under way.
const SCOUTED_US: u64 = 1_000;
/// How long a dialer sleeps at most before it looks at the phase again.
const NAP_US: u64 = 25_000;
/// Events taken from the kernel at a time.
const EVENTS: usize = 512;
/// Before the first success a dialer makes this many dials, then one each
/// [`CAUTIOUS_US`].
const CAUTIOUS_DIALS: u64 = 16;
const CAUTIOUS_US: u64 = 250_000;
/// The pause after a unix socket's queue was full (EAGAIN; connect(2)).
const QUEUE_FULL_US: u64 = 10_000;
/// The pause after a loopback dial that was not answered inside connect(): the accept
/// queue is full. It doubles up to the second while that goes on. Without it, a server
/// that is not scheduled for 10 ms has the whole window of SYNs dropped, and each comes
/// again a second later.
const PAUSE_US: u64 = 200;
const PAUSE_MAX_US: u64 = 10_000;
/// Bytes of a server's farewell that are kept, and of how many connections.
const WORDS: usize = 200;
const SPEAKERS: usize = 64;
/// Of so many of its first connections a dialer knows whether they are open: a server
/// that turns new ones away keeps them, one that evicts the oldest does not.
pub const ELDERS: u64 = 64;
/// Descriptors of a table beside the connections: 0, 1, 2 and the epoll.
const FIXED_FDS: u64 = 4;
/// Descriptors of a table that dialers share with the rest of the process which they
/// leave to that: it reads /proc and writes the record.
const SPARE_FDS: u64 = 32;

/// The descriptors that dialers leave free in the process's own table of `limit`.
#[must_use]
pub fn spare_fds(limit: u64) -> u64 {
    SPARE_FDS.min(limit / 4)
}

/// What a dialer says when it has settled.
#[derive(Debug, Default)]
pub struct Report {
    /// What was seen of dials given up unanswered.
    pub unanswered: Unanswered,
    /// The client's ends of some of the held connections.
    pub ends: Vec<ClientEnd>,
    /// What was seen of connections that the server ended.
    pub closings: Closings,
    /// When some of the held connections were established, in µs since the start and
    /// modulo 2^32.
    pub held_since_us: Vec<u32>,
}

/// What TCP_INFO says of dials that were never answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unanswered {
    /// How many were looked at.
    pub looked_at: u64,
    /// Of these, how many had sent their SYN again.
    pub retransmitted: u64,
    /// Of these, how many had received no segment at all.
    pub silent: u64,
}

/// The client's end of a held connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientEnd {
    /// The thread in whose fd table it is open.
    pub tid: u32,
    /// Its descriptor there.
    pub fd: i32,
    /// Its inode.
    pub inode: u64,
    /// Its source address and port; None of a unix socket.
    pub tuple: Option<Tuple>,
    /// Whether the server answered on it.
    pub served: bool,
}

/// A dialer with all that lives in its thread alone.
#[allow(missing_debug_implementations)] // epoll::Event has none
pub struct Dialer {
    shared: Arc<Shared>,
    gauges: Arc<Gauges>,
    slot: usize,
    is_first: bool,
    epoll: LocalFd,
    events: Vec<epoll::Event>,
    conns: Conns,
    share: Share,
    /// Dials in flight, oldest first: place and the µs at which each was due.
    pending: VecDeque<(u32, u32)>,
    /// The first words of servers whose connections are still open.
    said: HashMap<u32, Vec<u8>>,
    /// The places of the first connections that are still open.
    elders: HashSet<u32>,
    kernel_ports: bool,
    not_before_us: u64,
    pause_us: u64,
    confirmer: Confirmer,
    serving: Serving,
    closings: Closings,
    unanswered: Unanswered,
    /// The first descriptor that it leaves to others.
    fds_end: u64,
    table: Option<OwnTable>,
}

/// What became of an attempt to dial.
enum Attempt {
    Began,
    Failed,
    TableFull,
    Exhausted,
}

impl Dialer {
    /// Makes a dialer in the calling thread, with an fd table of its own if `table`
    /// says so. `slot` is where it records latencies; the first of all is the one that
    /// sends scouts.
    ///
    /// # Errors
    /// What unshare(2) or epoll_create1(2) give.
    pub fn new(
        shared: Arc<Shared>,
        gauges: Arc<Gauges>,
        slot: usize,
        is_first: bool,
        own_table: bool,
    ) -> io::Result<Self> {
        let table = if own_table { Some(OwnTable::unshare(&[])?) } else { None };
        let epoll = epoll::create(CreateFlags::CLOEXEC)?.into();
        let fds_end = match (&table, getrlimit(Resource::Nofile).current) {
            (None, Some(limit)) => limit - spare_fds(limit),
            _ => u64::MAX,
        };
        Ok(Self {
            shared,
            gauges,
            slot,
            is_first,
            epoll,
            events: Vec::with_capacity(EVENTS),
            conns: Conns::default(),
            share: Share::default(),
            pending: VecDeque::new(),
            said: HashMap::new(),
            elders: HashSet::new(),
            kernel_ports: false,
            not_before_us: 0,
            pause_us: 0,
            confirmer: Confirmer::default(),
            serving: Serving::default(),
            closings: Closings::default(),
            unanswered: Unanswered::default(),
            fds_end,
            table,
        })
    }

    /// Works until the phase is [`Phase::Drain`]; reports when it settles, and again when
    /// it has looked at all it holds once more.
    ///
    /// # Errors
    /// What epoll_wait(2) gives; all connections are closed then.
    pub fn run(mut self, report: &Sender<Report>) -> io::Result<()> {
        let mut phase = Phase::Fill;
        loop {
            let mut sleep_us = NAP_US;
            let before = std::mem::replace(&mut phase, self.shared.phase());
            if phase == Phase::Fill {
                sleep_us = self.fill()?;
            } else if phase != before {
                if before == Phase::Fill {
                    self.give_up();
                }
                match phase {
                    Phase::Settle => self.tell(report),
                    Phase::Recheck => {
                        self.recheck();
                        self.tell_closings(report);
                    }
                    Phase::Drain => {
                        self.drain();
                        return Ok(());
                    }
                    Phase::Fill | Phase::Prove | Phase::Hold => {}
                }
            }
            let confirming_us = self.confirm(self.shared.now_us());
            self.handle_events(sleep_us.min(NAP_US).min(confirming_us))?;
            let now = self.shared.now_us();
            self.expire(now);
            self.keep_serving(now);
            self.publish();
        }
    }

    /// Dials until something says wait; returns for how many µs.
    fn fill(&mut self) -> io::Result<u64> {
        loop {
            let now = self.shared.now_us();
            let open_loop = self.shared.schedule.is_open_loop();
            let in_flight = self.gauges.in_flight.load(Relaxed);
            let window_full = !open_loop && self.under_way() >= self.shared.window as u64;
            if self.gauges.full.load(Relaxed)
                || self.shared.exhausted().is_some()
                || self.shared.phase() != Phase::Fill
                || window_full
            {
                return Ok(NAP_US);
            }
            if now < self.not_before_us {
                return Ok(self.not_before_us - now);
            }
            let scouting = self.shared.scouting();
            if scouting && (!self.is_first || in_flight > 0) {
                return Ok(SCOUTED_US);
            }
            if !self.shared.reserve() {
                return Ok(NAP_US);
            }
            let due = match self.shared.schedule.take(now, scouting) {
                Permit::Due(due) => due,
                Permit::NotBefore(at) => {
                    self.shared.release();
                    return Ok(at.saturating_sub(now));
                }
            };
            if open_loop {
                self.note_lateness(now - due);
            }
            match self.dial(due)? {
                Attempt::Began => {}
                Attempt::Failed => self.shared.release(),
                Attempt::TableFull => {
                    self.shared.release();
                    self.gauges.full.store(true, Relaxed);
                    self.publish();
                    self.shared.wake_main();
                }
                Attempt::Exhausted => self.shared.release(),
            }
            self.be_cautious(now);
            self.expire(now);
            self.confirm(now);
            self.keep_serving(now);
            if self.shared.quick {
                // A loopback dial is complete when connect() returns: looked at here,
                // its latency is its own and not that of the batch. 1 % of the rate.
                self.handle_events(0)?;
                if !open_loop {
                    self.back_off(in_flight);
                }
            }
        }
    }

    /// Pauses where the dial just made, beside `before` older ones, got no answer.
    fn back_off(&mut self, before: u64) {
        if self.gauges.in_flight.load(Relaxed) <= before {
            self.pause_us = 0;
            return;
        }
        self.pause_us = (self.pause_us * 2).clamp(PAUSE_US, PAUSE_MAX_US);
        let until = self.shared.now_us() + self.pause_us;
        self.not_before_us = self.not_before_us.max(until);
    }

    fn note_lateness(&self, late_us: u64) {
        self.gauges.late_max_us.fetch_max(late_us, Relaxed);
        if late_us > 1_000 {
            bump(&self.gauges.late);
        }
    }

    /// Until something answers, a few dials tell as much as many.
    fn be_cautious(&mut self, now: u64) {
        let g = &self.gauges;
        let answers = match self.shared.service {
            Some(_) => g.answered.load(Relaxed),
            None => g.established.load(Relaxed),
        };
        if answers == 0 && !self.shared.schedule.is_open_loop() {
            let waiting = g.in_flight.load(Relaxed) + g.established.load(Relaxed);
            let made = waiting + g.failed.load(Relaxed);
            if made >= CAUTIOUS_DIALS {
                self.not_before_us = now + CAUTIOUS_US;
            }
        }
    }

    /// Begins one dial.
    fn dial(&mut self, due_us: u64) -> io::Result<Attempt> {
        loop {
            let stream = Type::STREAM.nonblocking().cloexec();
            let socket = match Socket::new(self.shared.domain, stream, None) {
                Ok(socket) => socket,
                Err(error) => return Ok(self.no_socket(&error)),
            };
            // The kernel gives the lowest free descriptor (open(2)).
            if u64::try_from(socket.as_raw_fd()).is_ok_and(|fd| fd >= self.fds_end) {
                return Ok(Attempt::TableFull);
            }
            let Some(tuple) = self.bind(&socket)? else {
                self.shared.exhaust(Exhausted::Tuples);
                return Ok(Attempt::Exhausted);
            };
            match socket.connect(&self.shared.address) {
                Ok(()) => return self.began(socket, tuple, due_us),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINPROGRESS) => return self.began(socket, tuple, due_us),
                    Some(libc::EADDRNOTAVAIL) if !self.kernel_ports => {
                        // The tuple is live, or in TIME_WAIT without timestamps.
                        bump(&self.gauges.skipped);
                    }
                    Some(libc::EADDRNOTAVAIL) => {
                        self.shared.exhaust(Exhausted::Tuples);
                        return Ok(Attempt::Exhausted);
                    }
                    errno => {
                        drop(socket);
                        bump(&self.gauges.dialed);
                        self.share.put_back(tuple);
                        self.failed(errno.unwrap_or(0));
                        return Ok(Attempt::Failed);
                    }
                },
            }
        }
    }

    fn no_socket(&self, error: &io::Error) -> Attempt {
        match error.raw_os_error() {
            Some(libc::EMFILE) => return Attempt::TableFull,
            Some(libc::ENFILE) => self.shared.exhaust(Exhausted::Files),
            _ => self.shared.exhaust(Exhausted::Memory),
        }
        self.shared.count_error(error.raw_os_error().unwrap_or(0));
        Attempt::Exhausted
    }

    /// Binds the socket to the next four-tuple that nothing else holds; None when there
    /// is none left. A unix socket has none.
    fn bind(&mut self, socket: &Socket) -> io::Result<Option<Tuple>> {
        let none = Tuple { source: u32::MAX, port: 0 };
        let Some(tuples) = &self.shared.tuples else { return Ok(Some(none)) };
        if self.kernel_ports {
            return Ok(Some(none));
        }
        socket.set_reuse_address(true)?;
        while let Some(tuple) = self.share.next(tuples) {
            let from = tuples.sources().at(tuple.source, tuple.port);
            match socket.bind(&from.into()) {
                Ok(()) => return Ok(Some(tuple)),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EADDRINUSE | libc::EADDRNOTAVAIL) => {
                        bump(&self.gauges.skipped);
                    }
                    _ => {
                        // Something forbids explicit binding: the kernel chooses.
                        self.kernel_ports = true;
                        self.gauges.kernel_ports.store(true, Relaxed);
                        return Ok(Some(none));
                    }
                },
            }
        }
        Ok(None)
    }

    #[allow(clippy::cast_possible_truncation)] // µs modulo 2^32, as `Conn::since` says
    fn began(&mut self, socket: Socket, tuple: Tuple, due: u64) -> io::Result<Attempt> {
        bump(&self.gauges.dialed);
        let fd = LocalFd::from(socket);
        let interest =
            EventFlags::OUT | EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        let place = EventData::new_u64(u64::from(self.conns.next_place()));
        if let Err(errno) = epoll::add(&self.epoll, &fd, place, interest) {
            // ENOSPC: fs.epoll.max_user_watches; ENOMEM.
            self.failed(errno.raw_os_error());
            self.shared.exhaust(Exhausted::Memory);
            return Ok(Attempt::Exhausted);
        }
        let place = self.conns.add(fd, tuple, due as u32);
        self.pending.push_back((place, due as u32));
        self.gauges.in_flight.store(self.gauges.in_flight.load(Relaxed) + 1, Relaxed);
        Ok(Attempt::Began)
    }

    fn failed(&mut self, errno: i32) {
        bump(&self.gauges.failed);
        self.shared.count_error(errno);
        if errno == libc::EAGAIN {
            self.not_before_us = self.shared.now_us() + QUEUE_FULL_US;
        }
    }

    /// Waits at most `wait_us` for events, and handles them.
    fn handle_events(&mut self, wait_us: u64) -> io::Result<()> {
        let wait = Duration::from_micros(wait_us);
        let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
        self.events.clear();
        let room = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, room, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if self.events.is_empty() {
            return Ok(());
        }
        let now = self.shared.now_us();
        let events = std::mem::take(&mut self.events);
        for event in &events {
            let place = u32::try_from(event.data.u64()).unwrap_or(u32::MAX);
            self.on_event(place, event.flags, now);
        }
        self.events = events;
        Ok(())
    }

    fn on_event(&mut self, place: u32, flags: EventFlags, now: u64) {
        let Some(conn) = self.conns.get(place) else { return };
        let mut flags = flags;
        if conn.state == State::Connecting {
            if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
                let error = conn.fd().and_then(|fd| SockRef::from(fd).take_error().ok());
                let errno = error.flatten().and_then(|e| e.raw_os_error());
                match errno {
                    // It was established, and reset or closed before we looked.
                    None | Some(libc::ECONNRESET | libc::EPIPE) => {
                        self.establish(place, now);
                        if errno.is_some() {
                            self.closed(place, now, &self.gauges.clone().closed_reset);
                            return;
                        }
                    }
                    Some(errno) => {
                        self.refused(place, errno);
                        return;
                    }
                }
            } else if flags.contains(EventFlags::OUT) {
                self.establish(place, now);
                flags.remove(EventFlags::OUT);
            }
        } else if flags.contains(EventFlags::OUT) {
            self.send_on(place);
        }
        let news = EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        if flags.intersects(news) {
            self.read(place, now);
        }
    }

    #[allow(clippy::cast_possible_truncation)] // modulo 2^32, as `Conn::since` says
    fn establish(&mut self, place: u32, now: u64) {
        let Some(conn) = self.conns.get(place) else { return };
        let latency = u64::from((now as u32).wrapping_sub(conn.since)).max(1);
        conn.state = State::Open;
        conn.since = (now / 1000) as u32;
        conn.asked = now as u32;
        match &self.shared.tuples {
            None => {
                let inode = conn.fd().and_then(|fd| fstat(fd).ok()).map(|s| s.st_ino);
                conn.source = inode.and_then(|i| u32::try_from(i).ok()).unwrap_or(0);
                lock(&self.shared.inodes).insert(u64::from(conn.source));
            }
            Some(tuples) => {
                if self.kernel_ports
                    && let Some(fd) = conn.fd()
                    && let Ok(local) = SockRef::from(fd).local_addr()
                    && let Some(local) = local.as_socket()
                    && let Some(source) = tuples.sources().index_of(local.ip())
                {
                    (conn.source, conn.port) = (source, local.port());
                }
                self.shared.held.insert(conn.tuple());
            }
        }
        lock(&self.shared.latencies[self.slot]).saturating_record(latency);
        let g = &self.gauges;
        drop_one(&g.in_flight);
        bump(&g.established);
        bump(&g.open);
        if g.elders.load(Relaxed) < ELDERS {
            self.elders.insert(place);
            bump(&g.elders);
            bump(&g.elders_open);
        }
        if self.shared.service.is_none() {
            self.not_before_us = 0;
        }
        self.watch(place, latency);
        self.ask_first(place, now);
    }

    /// A dial was answered by an error.
    fn refused(&mut self, place: u32, errno: i32) {
        if let Some(conn) = self.conns.get(place) {
            let tuple = conn.tuple();
            self.conns.remove(place);
            self.share.put_back(tuple);
            drop_one(&self.gauges.in_flight);
            self.shared.release();
            self.gauges.full.store(false, Relaxed);
            self.failed(errno);
        }
    }

    /// Reads what came on an established connection until there is no more.
    fn read(&mut self, place: u32, now: u64) {
        let mut buffer = [0_u8; 4096];
        for _ in 0..16 {
            let Some(conn) = self.conns.get(place) else { return };
            let Some(fd) = conn.fd() else { return };
            match rustix::io::read(fd, &mut buffer) {
                Ok(0) => {
                    let (spoken, reply) = (conn.state == State::Spoken, conn.reply);
                    let gauges = self.gauges.clone();
                    if let Some(words) = self.said.remove(&place) {
                        self.shared.keep_words(words);
                    }
                    let kind = if reply.is_served() {
                        &gauges.closed_answered
                    } else if spoken {
                        &gauges.closed_after_words
                    } else {
                        &gauges.closed_silent
                    };
                    self.closed(place, now, kind);
                    return;
                }
                Ok(n) => {
                    let first = std::mem::replace(&mut conn.state, State::Spoken);
                    self.hear(place, &buffer[..n], now);
                    let served =
                        self.conns.get(place).is_some_and(|c| c.reply.is_served());
                    if first == State::Open && !served && self.said.len() < SPEAKERS {
                        let words = buffer[..n.min(WORDS)].to_vec();
                        self.said.insert(place, words);
                    }
                    self.proven_by_words(place);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => {
                    self.closed(place, now, &self.gauges.clone().closed_reset);
                    return;
                }
            }
        }
    }

    /// Gives up dials that are older than the connect timeout.
    #[allow(clippy::cast_possible_truncation)] // modulo 2^32, as `Conn::since` says
    fn expire(&mut self, now: u64) {
        let now = now as u32;
        while let Some(&(place, due)) = self.pending.front() {
            let waiting = |state, since| state == State::Connecting && since == due;
            let conn = self.conns.get(place).filter(|c| waiting(c.state, c.since));
            if let Some(conn) = conn {
                if u64::from(now.wrapping_sub(due)) < self.shared.connect_timeout_us {
                    return;
                }
                let tuple = conn.tuple();
                self.conns.remove(place);
                self.share.put_back(tuple);
                drop_one(&self.gauges.in_flight);
                bump(&self.gauges.timed_out);
                self.gauges.full.store(false, Relaxed);
                self.shared.release();
            }
            self.pending.pop_front();
        }
    }

    fn publish(&self) {
        let fixed = if self.table.is_some() { FIXED_FDS } else { 1 };
        self.gauges.fds.store(self.conns.len() as u64 + fixed, Relaxed);
    }
}
