//! A dialer: one thread, one epoll, one table of connections.
//!
//! It keeps a window of non-blocking dials in flight, each from a four-tuple that it
//! chose, notices what becomes of what it holds, and never waits for one connection.

mod closings;
mod confirm;
mod dial;
mod events;
mod serve;
mod settle;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Sender;

use rustix::event::epoll::{self, CreateFlags};
use rustix::process::{Resource, getrlimit};

use super::conns::Conns;
use super::shared::{Gauges, Phase, Shared};
use super::tuples::{Share, Tuple};
use crate::kernel::fd_table::{LocalFd, OwnTable};
pub use closings::{Closings, Sample};
use confirm::Confirmer;
use serve::Serving;

/// How long a dialer sleeps at most before it looks at the phase again.
const NAP_US: u64 = 25_000;
/// Events taken from the kernel at a time.
const EVENTS: usize = 512;
/// Of so many of its first connections a dialer knows whether they are open: a server
/// that turns new ones away keeps them, one that evicts the oldest does not.
pub const ELDERS: u64 = 64;
/// A server that turns new ones away may let them wait for a while before; the very first
/// are not among these, unless it holds next to none.
pub const FIRST: u64 = 16;
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
    /// When some of the held connections were established, in µs since the start.
    pub held_since_us: Vec<u64>,
    /// The same of all that is open after the hold.
    pub left_since_us: Vec<u64>,
    /// Of the confirmed, those so young that the listener still waited for their first
    /// byte, by its habit: when dialing ended, and now.
    pub deferred: (u64, u64),
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
    /// The places of the first connections that are still open, with their number.
    elders: HashMap<u32, u64>,
    kernel_ports: bool,
    not_before_us: u64,
    pause_us: u64,
    /// Whether, when it last wished to dial, all that was asked for were open.
    all_are_open: bool,
    confirmer: Confirmer,
    serving: Serving,
    closings: Closings,
    unanswered: Unanswered,
    /// When it first reported, in ms since the start and modulo 2^32.
    told_ms: u32,
    /// The first descriptor that it leaves to others.
    fds_end: u64,
    table: Option<OwnTable>,
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
            elders: HashMap::new(),
            kernel_ports: false,
            not_before_us: 0,
            pause_us: 0,
            all_are_open: false,
            confirmer: Confirmer::default(),
            serving: Serving::default(),
            closings: Closings::default(),
            unanswered: Unanswered::default(),
            told_ms: 0,
            fds_end,
            table,
        })
    }

    /// Works until the phase is [`Phase::Drain`]; reports when it settles, and again after
    /// the hold.
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
                    Phase::Recheck => self.tell_again(report),
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

    fn publish(&self) {
        let fixed = if self.table.is_some() { FIXED_FDS } else { 1 };
        self.gauges.fds.store(self.conns.len() as u64 + fixed, Relaxed);
    }
}
