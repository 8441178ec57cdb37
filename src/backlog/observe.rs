//! Watches the accept queues of a target, up to 2,000 times a second, without any load.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::due::Due;
use super::gauge::{Gauge, Reading};
use super::namespace::{Namespace, Totals, sysctls};
use super::owners::OwnerWatch;
use super::pace::{Pace, cpu_time};
use crate::host::process::ProcessView;
use crate::record::backlog::SynRecv;
use crate::sockets::listeners::Listener;
use crate::sockets::model::{Inode, Owner, State};
use crate::sockets::quick::Ways;
use crate::sockets::target::Endpoint;
use crate::sockets::watch::ListenerWatch;

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// Half-open connections are counted by a walk of the whole table.
const SYN_RECV_EVERY: Duration = Duration::from_secs(1);
const SYN_RECV_AT_LEAST_EVERY: Duration = Duration::from_secs(10);
/// While nothing listens, it is looked for by dumps: no more often than this.
const SEARCH_EVERY: Duration = Duration::from_millis(10);
/// A signal is heeded within this.
const NAP: Duration = Duration::from_millis(50);

/// What is asked of a watch.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long.
    pub lasts: Duration,
    /// Between two looks.
    pub interval: Duration,
    /// Whether looks may be fewer where they would take too much of a core.
    pub may_stretch: bool,
    /// Whether the first overflow ends it.
    pub until_overflow: bool,
}

/// Why a watch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// Its time was over.
    Time,
    /// An accept queue ran over.
    Overflow,
    /// A signal.
    Interrupted,
}

/// How a watch gets on.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Since it began.
    pub elapsed: Duration,
    /// Connections in the accept queues, all together.
    pub queue_len: u64,
    /// What they admit.
    pub admits: u64,
    /// The longest of all since the last time that this was told.
    pub recent_peak: u64,
    /// Dropped since it began.
    pub drops: u64,
    /// Dropped since the listeners listen.
    pub drops_total: u64,
    /// Whether it listens.
    pub listening: bool,
    /// Descriptors of the owner that has the most, when it was looked at last.
    pub open_fds: Option<u64>,
}

/// A listener and how its queue was.
#[derive(Debug)]
pub struct Member {
    /// As it was seen last.
    pub listener: Listener,
    /// Its queue over time.
    pub gauge: Gauge,
    /// Whether it was there at the end.
    pub is_there: bool,
}

/// What a watch learned.
#[derive(Debug)]
pub struct Observation {
    /// How long it watched.
    pub lasted: Duration,
    /// Looks.
    pub samples: u64,
    /// The longest time between two of them.
    pub longest_gap: Duration,
    /// CPU time that it took.
    pub cpu: Duration,
    /// Why it ended.
    pub ended_by: EndedBy,
    /// Every listener that was seen.
    pub members: Vec<Member>,
    /// Who holds them, by their inodes.
    pub owners: Vec<(Inode, Owner)>,
    /// Who made the listener, where its owners could not be read.
    pub hidden_owner: Option<u32>,
    /// Their processes, as they were when it mattered most.
    pub processes: Vec<ProcessView>,
    /// Whether all of them were stopped while connections waited.
    pub stopped: bool,
    /// One that had opened all descriptors that it may while connections waited.
    pub at_fd_limit: Option<ProcessView>,
    /// What the namespace counted meanwhile; none for a unix socket.
    pub totals: Option<Totals>,
    /// Sysctls by name.
    pub sysctls: BTreeMap<String, Option<u64>>,
    /// Half-open connections; none for a unix socket.
    pub syn_recv: Option<SynRecv>,
    /// Whether a queue ran over (of a unix socket: was full) meanwhile.
    pub overflowed: bool,
}

impl Observation {
    /// What was dropped by all members meanwhile.
    #[must_use]
    pub fn drops(&self) -> u64 {
        self.members.iter().map(|member| member.gauge.drops()).sum()
    }

    /// Connections accepted a second, at the most: those that came to the namespace less
    /// what its queues grew by.
    #[must_use]
    pub fn accepts_at_most(&self) -> Option<f64> {
        let totals = self.totals?;
        let came = totals.counters.passive_opens.cast_signed();
        #[allow(clippy::cast_precision_loss)]
        let accepted = (came - totals.queue_growth).max(0) as f64;
        Some(accepted / self.lasted.as_secs_f64().max(1e-3))
    }

    /// Connections that left the queues a second, at the least, while any waited in them;
    /// none where none did.
    #[must_use]
    pub fn drains_per_s(&self) -> Option<f64> {
        let rates = self.members.iter().filter_map(|member| {
            let busy = member.gauge.busy_for().as_secs_f64();
            #[allow(clippy::cast_precision_loss)]
            (busy > 0.0).then(|| member.gauge.left() as f64 / busy)
        });
        rates.reduce(|sum, one| sum + one)
    }

    /// Whether the target is a unix socket.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        self.members.iter().all(|member| member.listener.family().is_none())
    }

    /// Whether it still listened at the end.
    #[must_use]
    pub fn still_listens(&self) -> bool {
        self.members.iter().any(|member| member.is_there)
    }
}

/// Watches until the time is over, a queue runs over where that is waited for, or
/// `interrupted`. `tell` is called about ten times a second.
///
/// # Errors
/// What sock_diag gives.
pub fn observe(
    watch: ListenerWatch,
    settings: Settings,
    interrupted: &AtomicBool,
    tell: &mut dyn FnMut(&Progress),
) -> io::Result<Observation> {
    let mut watching = Watching::begin(watch)?;
    let mut pace = Pace::new(settings.interval, settings.may_stretch);
    let began = watching.began;
    let end = began + settings.lasts;
    let mut told = Due::every(TELL_EVERY, TELL_EVERY);
    let ended_by = loop {
        watching.look()?;
        let now = Instant::now();
        if told.is_due() {
            tell(&watching.progress());
            told.done(now);
        }
        if watching.overflowed && settings.until_overflow {
            break EndedBy::Overflow;
        }
        if interrupted.load(Relaxed) {
            break EndedBy::Interrupted;
        }
        if now >= end {
            break EndedBy::Time;
        }
        let mut due = pace.next();
        if watching.there == 0 {
            due = due.max(now + SEARCH_EVERY);
        }
        sleep_until(due.min(end), interrupted);
    };
    let observation = watching.finish(ended_by);
    Ok(observation)
}

fn sleep_until(due: Instant, interrupted: &AtomicBool) {
    while !interrupted.load(Relaxed) {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(NAP));
    }
}

struct Watching {
    watch: ListenerWatch,
    ways: Ways,
    members: Vec<Member>,
    owners: OwnerWatch,
    namespace: Option<Namespace>,
    began: Instant,
    cpu_before: Duration,
    last_look: Instant,
    longest_gap: Duration,
    samples: u64,
    there: usize,
    recent_peak: u64,
    syn_recv: Option<SynRecv>,
    syn_recv_due: Due,
    overflowed: bool,
    /// Drops that were looked into.
    drops_explained: u64,
}

impl Watching {
    fn begin(mut watch: ListenerWatch) -> io::Result<Self> {
        // The look for owners may take long: the time counts from after it.
        watch.look_for_owners();
        let is_unix = matches!(watch.endpoint(), Endpoint::Unix(_));
        let namespace = if is_unix { None } else { Some(Namespace::begin(&mut watch)?) };
        let ways = find_ways(&mut watch)?;
        let now = Instant::now();
        Ok(Self {
            watch,
            ways,
            members: Vec::new(),
            owners: OwnerWatch::default(),
            namespace,
            began: now,
            cpu_before: cpu_time(),
            last_look: now,
            longest_gap: Duration::ZERO,
            samples: 0,
            there: 0,
            recent_peak: 0,
            syn_recv: None,
            syn_recv_due: Due::every(SYN_RECV_EVERY, SYN_RECV_AT_LEAST_EVERY),
            overflowed: false,
            drops_explained: 0,
        })
    }

    /// One look, and what follows from it.
    fn look(&mut self) -> io::Result<()> {
        let (diag, found) = self.watch.diag_and_listeners_mut();
        let known = found.len();
        self.there = self.ways.sample(diag, found)?;
        if self.there < known.max(1) {
            self.find_again()?;
        }
        let now = Instant::now();
        if self.samples > 0 {
            self.longest_gap = self.longest_gap.max(now - self.last_look);
        }
        (self.last_look, self.samples) = (now, self.samples + 1);
        self.take_readings(now - self.began);
        self.explain_drops();
        let waits = self.watch.queue_len() > 0;
        self.owners.look(&self.watch, waits);
        if self.namespace.is_some() && self.syn_recv_due.is_due() {
            let began = Instant::now();
            self.count_syn_recv()?;
            self.syn_recv_due.done(began);
        }
        Ok(())
    }

    /// The server was started anew, or a member of its group came or went.
    fn find_again(&mut self) -> io::Result<()> {
        let cookies = |watch: &ListenerWatch| -> Vec<_> {
            watch.listeners().iter().map(|one| one.cookie).collect()
        };
        let before = cookies(&self.watch);
        self.watch.find()?;
        let after = cookies(&self.watch);
        self.there = after.len();
        if after != before {
            self.ways = find_ways(&mut self.watch)?;
            if after.iter().any(|cookie| !before.contains(cookie)) {
                self.watch.look_for_owners();
            }
        }
        Ok(())
    }

    fn take_readings(&mut self, at: Duration) {
        for member in &mut self.members {
            member.is_there = false;
        }
        for one in self.watch.listeners() {
            let reading = Reading {
                queue_len: one.queue_len,
                backlog: one.backlog,
                drops: one.drops,
            };
            let known = self.members.iter().position(|m| m.listener.cookie == one.cookie);
            let place = known.unwrap_or_else(|| {
                let (listener, gauge) = (one.clone(), Gauge::new());
                self.members.push(Member { listener, gauge, is_there: true });
                self.members.len() - 1
            });
            let Some(member) = self.members.get_mut(place) else { continue };
            member.gauge.take(at, reading);
            member.listener.clone_from(one);
            member.is_there = true;
        }
        self.recent_peak = self.recent_peak.max(self.watch.queue_len());
    }

    /// Whether what was dropped is an overflow: a full SYN queue, or lack of memory,
    /// drops as well.
    fn explain_drops(&mut self) {
        if self.overflowed {
            return;
        }
        let Some(namespace) = &self.namespace else {
            self.overflowed = self.watch.listeners().iter().any(Listener::is_full);
            return;
        };
        let drops = self.drops();
        if drops > self.drops_explained {
            self.drops_explained = drops;
            let totals = namespace.counted(&self.watch);
            self.overflowed = totals.is_none_or(|t| t.counters.listen_overflows > 0);
        }
    }

    fn drops(&self) -> u64 {
        self.members.iter().map(|member| member.gauge.drops()).sum()
    }

    fn count_syn_recv(&mut self) -> io::Result<()> {
        let half_open = super::namespace::count(&mut self.watch, State::SynRecv.into())?;
        let seen = self.syn_recv.get_or_insert_default();
        seen.last = half_open;
        seen.peak = seen.peak.max(half_open);
        Ok(())
    }

    fn progress(&mut self) -> Progress {
        let there = self.watch.listeners();
        let listening = self.there > 0;
        let members = there.len() as u64;
        Progress {
            elapsed: self.began.elapsed(),
            queue_len: if listening { self.watch.queue_len() } else { 0 },
            admits: self.watch.backlog() + members,
            recent_peak: std::mem::take(&mut self.recent_peak),
            drops: self.drops(),
            drops_total: self.watch.drops(),
            listening,
            open_fds: self.owners.most_open_fds(),
        }
    }

    fn finish(mut self, ended_by: EndedBy) -> Observation {
        let lasted = self.began.elapsed();
        let cpu = cpu_time().saturating_sub(self.cpu_before);
        let totals = self.namespace.take().and_then(|ns| ns.finish(&mut self.watch));
        let seen = self.owners.finish(&self.watch);
        Observation {
            lasted,
            samples: self.samples,
            longest_gap: self.longest_gap,
            cpu,
            ended_by,
            members: self.members,
            owners: self.watch.owners_by_inode().to_vec(),
            hidden_owner: self.watch.hidden_owner(),
            processes: seen.processes,
            stopped: seen.stopped,
            at_fd_limit: seen.at_fd_limit,
            totals,
            sysctls: sysctls(&self.watch),
            syn_recv: self.syn_recv,
            overflowed: self.overflowed,
        }
    }
}

fn find_ways(watch: &mut ListenerWatch) -> io::Result<Ways> {
    let (diag, found) = watch.diag_and_listeners();
    Ways::find(diag, found)
}
