//! A burst: many dials at once, and what became of each over time.
//!
//! A SYN that a full queue drops is sent again by the client's timer, so that a client
//! sees a slow host and no error; and a connection that is established may be a phantom.
//! Both are told apart here, by the dialers and the confirmation of a probe.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::side::{Side, SideSeen};
use super::steps::{RTO_MS, by_step, linear_timeouts, syn_steps_ms};
use crate::host::ProcRoot;
use crate::probe::fleet::{Fleet, Totals};
use crate::probe::plan::Plan;
use crate::probe::prepare::{Prepared, four_tuples};
use crate::probe::ramp::{Look, Observer, Ramp, Watch};
use crate::probe::run::{Blind, raise_nofile};
use crate::probe::server_view::ServerView;
use crate::probe::shared::{Exhausted, Phase, Settings, Shared, histogram, lock};
use crate::probe::sources::SourceError;
use crate::sockets::target::Endpoint;
use crate::verdict::ServerCounts;

/// Between two looks at the queue and the gauges.
const TICK: Duration = Duration::from_millis(2);
/// More dials than this are made by several threads.
const FEW: u64 = 1000;
/// When the server's table is counted before the first SYN is sent again.
const EARLY: Duration = Duration::from_millis(200);
/// For how long a queue is watched when all is answered, until it is empty.
const DRAIN_WATCHED: Duration = Duration::from_secs(1);
/// The queue is full within so long of the first dial, or never by this burst: shorter
/// spans than this give no rate.
const SPAN_MIN: Duration = Duration::from_millis(5);

/// Why a burst could not be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BurstError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the dials could not be made: {0}")]
    Dialer(io::Error),
    #[error("the table of the listeners cannot be read: {0}")]
    Look(io::Error),
    #[error(
        "only {made} of {wanted} dials could be made: {}",
        match .why {
            Exhausted::Tuples => "no source port is left; free some, or ask for fewer",
            Exhausted::Files => "the host has no descriptor left (fs.file-max)",
            Exhausted::Memory => "the kernel has no memory for more sockets",
        }
    )]
    Exhausted { made: u64, wanted: u64, why: Exhausted },
}

/// What was seen of the queue at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLook {
    /// Since the first dial.
    pub at: Duration,
    /// Its length.
    pub len: u64,
    /// Dials established when the look began.
    pub established: u64,
    /// Dials established when it was over.
    pub established_after: u64,
}

/// What became of a burst.
#[derive(Debug, Clone, Default)]
pub struct Burst {
    /// Dials that were made, and how long that took.
    pub dialed: u64,
    /// How long it took to make them.
    pub dialed_in: Duration,
    /// Established without a SYN sent again.
    pub at_once: u64,
    /// Established after the SYN was sent again; by that moment, in ms.
    pub delayed: BTreeMap<u64, u64>,
    /// The moments at which this host sends SYNs again, in ms.
    pub steps_ms: Vec<u64>,
    /// Dials answered by an error.
    pub refused: u64,
    /// The errors, by errno.
    pub errors: BTreeMap<i32, u64>,
    /// Established, then reset.
    pub reset: u64,
    /// Established, then closed by the server.
    pub closed: u64,
    /// Not answered in the time given.
    pub never: u64,
    /// Phantoms of which the server knows nothing.
    pub phantoms_cookie: u64,
    /// Phantoms of which the server has half.
    pub phantoms_request_socket: u64,
    /// Of those established at once, phantoms and resets.
    pub lost_at_once: u64,
    /// Established and known to the server.
    pub confirmed: u64,
    /// The server waits for a first byte on these (TCP_DEFER_ACCEPT).
    pub deferred: u64,
    /// How the server has them, where its table is in sight.
    pub server: Option<ServerCounts>,
    /// What stood in the queue before the first dial, where it is in sight.
    pub queued_before: Option<u64>,
    /// The queue over time, where it is in sight.
    pub queue: Vec<QueueLook>,
    /// The effective backlog of all its listeners together, and what they admit.
    pub backlog: Option<(u64, u64)>,
    /// What its listeners dropped meanwhile.
    pub drops: Option<u64>,
    /// Ended by Ctrl-C, before all was known.
    pub interrupted: bool,
}

/// A rate that was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drain {
    /// Connections a second.
    pub per_s: f64,
    /// Whether it may be faster.
    pub at_least: bool,
}

impl Burst {
    /// Phantoms of both kinds.
    #[must_use]
    pub fn phantoms(&self) -> u64 {
        self.phantoms_cookie + self.phantoms_request_socket
    }

    /// Those of the burst that the server took without delay: how deep a burst it takes,
    /// and whether that is a lower bound, for none was lost.
    #[must_use]
    pub fn depth(&self) -> (u64, bool) {
        // A phantom may be established at once, and so may what is reset for want of room.
        let kept = self.at_once.saturating_sub(self.lost_at_once);
        (kept, kept == self.dialed)
    }

    /// Dials that were not established at once, or whose connection the server lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.dialed.saturating_sub(self.depth().0)
    }

    /// How fast the queue drains: by the queue itself, or by what each step of the SYN
    /// timer found room for.
    #[must_use]
    pub fn drain(&self) -> Option<Drain> {
        if self.queue.is_empty() { self.drain_by_steps() } else { self.drain_by_queue() }
    }

    /// Over the longest time without a break in which somebody queued: what was accepted
    /// is what came, less what the queue grew by.
    #[allow(clippy::cast_precision_loss)]
    fn drain_by_queue(&self) -> Option<Drain> {
        let (first, last) = self.longest_queue()?;
        let span = last.at - first.at;
        if span < SPAN_MIN {
            return None;
        }
        // The server's own table knows best whether it took any.
        let none = self.server.is_some_and(|s| s.accepted == 0) && self.closed == 0;
        let came = last.established.saturating_sub(first.established_after);
        let accepted = if none { 0 } else { (came + first.len).saturating_sub(last.len) };
        Some(Drain { per_s: accepted as f64 / span.as_secs_f64(), at_least: false })
    }

    /// The longest time in which somebody queued; it ends when the queue is first empty
    /// again. Of equal ones the first.
    fn longest_queue(&self) -> Option<(QueueLook, QueueLook)> {
        let mut longest: Option<(QueueLook, QueueLook)> = None;
        let mut since: Option<QueueLook> = None;
        for look in &self.queue {
            let Some(first) = since.or((look.len > 0).then_some(*look)) else { continue };
            let span = |(first, last): (QueueLook, QueueLook)| last.at - first.at;
            if longest.is_none_or(|longest| span((first, *look)) > span(longest)) {
                longest = Some((first, *look));
            }
            since = (look.len > 0).then_some(first);
        }
        longest
    }

    /// From the client's side alone. Where some still waited after a step, those that
    /// got in at it are all that had become free since the step before; as many as the
    /// queue is deep may mean that it was empty by then.
    #[allow(clippy::cast_precision_loss)]
    fn drain_by_steps(&self) -> Option<Drain> {
        let (depth, _) = self.depth();
        let mut waiting = self.delayed.values().sum::<u64>() + self.never;
        let mut before = 0;
        let mut best: Option<Drain> = None;
        for &step in &self.steps_ms {
            let got_in = self.delayed.get(&step).copied().unwrap_or(0);
            waiting = waiting.saturating_sub(got_in);
            let span_s = (step - before) as f64 / 1e3;
            before = step;
            if got_in > 0 {
                let per_s = got_in as f64 / span_s;
                let at_least = waiting == 0 || got_in >= depth;
                let better = best.is_none_or(|best| per_s > best.per_s);
                if better {
                    best = Some(Drain { per_s, at_least });
                }
            }
        }
        best
    }
}

/// How a burst is made.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Dials.
    pub dials: u64,
    /// How long an answer is waited for.
    pub patience: Duration,
}

/// Makes bursts at one target.
#[derive(Debug)]
pub struct Burster {
    plan: Plan,
    view: Option<ServerView>,
    side: Option<Side>,
    proc_root: ProcRoot,
}

impl Burster {
    /// Of a target that may be loaded.
    ///
    /// # Errors
    /// [`BurstError::Look`].
    pub fn new(prepared: Prepared) -> Result<Self, BurstError> {
        let Prepared { plan, mut view, proc_root, .. } = prepared;
        let _ = raise_nofile();
        let side = view.as_mut().map(|view| {
            view.begin();
            Side::begin(view.watch_mut())
        });
        let side = side.transpose().map_err(BurstError::Look)?;
        Ok(Self { plan, view, side, proc_root })
    }

    /// The server's side as it is now, where it is on this host.
    #[must_use]
    pub fn side(&mut self) -> Option<SideSeen> {
        let (Some(view), Some(side)) = (&mut self.view, &mut self.side) else {
            return None;
        };
        // A listener that is gone by now is described as it was.
        let there = view.watch_mut().look().unwrap_or(0);
        side.note(view.listeners());
        let watch = view.watch();
        Some(side.seen(watch, there, watch.owners_by_inode(), watch.unreadable()))
    }

    /// The target.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.plan.endpoint
    }

    /// The server's side, where it is on this host.
    #[must_use]
    pub fn view(&self) -> Option<&ServerView> {
        self.view.as_ref()
    }

    /// The same, to look again.
    pub fn view_mut(&mut self) -> Option<&mut ServerView> {
        self.view.as_mut()
    }

    /// Where /proc is.
    #[must_use]
    pub fn proc_root(&self) -> &ProcRoot {
        &self.proc_root
    }

    /// Makes one burst. All that was opened is closed when it returns.
    ///
    /// # Errors
    /// A [`BurstError`].
    pub fn burst(
        &mut self,
        shape: Shape,
        interrupted: &AtomicBool,
    ) -> Result<Burst, BurstError> {
        let tuples =
            four_tuples(&self.plan.endpoint, &self.plan.sources, &self.proc_root)?;
        let filling = if shape.dials > FEW { self.plan.threads.max(1) } else { 1 };
        let confirm = self.view.is_none() && tuples.is_some();
        let patience = shape.patience.as_micros();
        let shared = Arc::new(Shared::new(Settings {
            address: self.plan.endpoint.sock_addr().map_err(BurstError::Dialer)?,
            domain: self.plan.endpoint.domain(),
            quick: self.plan.is_quick,
            window: usize::MAX,
            one_burst: true,
            connect_timeout_us: u64::try_from(patience).unwrap_or(u64::MAX),
            close: self.plan.close,
            max: Some(shape.dials),
            confirm,
            service: None,
            pairs: 0,
            rate: None,
            tuples,
            filling,
        }));
        let before = self.view.as_mut().map(Watch::glance);
        let before = before.transpose().map_err(BurstError::Look)?;
        let fleet = Fleet::start(shared.clone(), filling, None);
        let mut running = Running {
            shape,
            shared,
            fleet: fleet.map_err(BurstError::Dialer)?,
            plan: &self.plan,
            view: self.view.as_mut(),
            side: self.side.as_mut(),
            blind: Blind(self.proc_root.clone()),
            proc_root: &self.proc_root,
            interrupted,
            burst: Burst {
                queued_before: before.map(|glance| glance.queue_len),
                ..Burst::default()
            },
            early_phantoms: None,
        };
        let done = running.run(before.map(|glance| glance.drops));
        let Running { fleet, mut burst, shared, .. } = running;
        let ended = fleet.drain().map_err(BurstError::Dialer);
        done.and(ended)?;
        burst.errors = lock(&shared.errors).clone();
        if let Some(why) = shared.exhausted()
            && burst.dialed < shape.dials
        {
            return Err(BurstError::Exhausted {
                made: burst.dialed,
                wanted: shape.dials,
                why,
            });
        }
        burst.steps_ms = syn_steps_ms(linear_timeouts(&self.proc_root), shape.patience);
        (burst.at_once, burst.delayed) = by_step(&latencies(&shared), &burst.steps_ms);
        Ok(burst)
    }
}

/// A burst under way.
struct Running<'a> {
    shape: Shape,
    shared: Arc<Shared>,
    fleet: Fleet,
    plan: &'a Plan,
    view: Option<&'a mut ServerView>,
    side: Option<&'a mut Side>,
    blind: Blind,
    proc_root: &'a ProcRoot,
    interrupted: &'a AtomicBool,
    burst: Burst,
    /// The phantoms before any SYN was sent again, by the server's table.
    early_phantoms: Option<u64>,
}

impl Running<'_> {
    fn run(&mut self, drops_before: Option<u64>) -> Result<(), BurstError> {
        self.wait()?;
        self.shared.enter(Phase::Prove);
        if self.shared.confirm {
            self.prove();
        }
        self.fleet.settle();
        let totals = self.fleet.totals();
        self.count(&totals)?;
        if let (Some(view), Some(before)) = (&mut self.view, drops_before) {
            let glance = view.glance().map_err(BurstError::Look)?;
            self.burst.drops = Some(glance.drops.saturating_sub(before));
            let members = view.listeners().len() as u64;
            self.burst.backlog = Some((glance.backlog, glance.backlog + members));
        }
        self.burst.interrupted = self.interrupted.load(Relaxed);
        Ok(())
    }

    /// Waits until each dial is answered, or the time is over.
    fn wait(&mut self) -> Result<(), BurstError> {
        let began = Instant::now();
        let (mut dialed_at, mut answered_at) = (None, None);
        loop {
            thread::park_timeout(TICK);
            self.fleet.staff();
            let totals = self.fleet.totals();
            let at = began.elapsed();
            let mut empty = true;
            if let Some(view) = &mut self.view {
                let len = view.glance().map_err(BurstError::Look)?.queue_len;
                self.burst.queue.push(QueueLook {
                    at,
                    len,
                    established: totals.established,
                    established_after: self.fleet.totals().established,
                });
                empty = len == 0;
                if let Some(side) = &mut self.side {
                    side.note(view.listeners());
                }
                if self.early_phantoms.is_none()
                    && dialed_at.is_some_and(|then| at > then + EARLY)
                    && at < Duration::from_millis(RTO_MS)
                {
                    let counts = view.count(&self.shared, totals.open);
                    self.early_phantoms =
                        Some(counts.map_err(BurstError::Look)?.phantoms);
                }
            }
            if totals.dialed >= self.shape.dials {
                dialed_at.get_or_insert(at);
            }
            if self.fleet.has_broken() {
                return Err(BurstError::Dialer(io::Error::other("a dialer ended early")));
            }
            if dialed_at.is_some() && totals.in_flight == 0 {
                answered_at.get_or_insert(at);
            }
            let watched = DRAIN_WATCHED.min(self.shape.patience);
            let answered =
                answered_at.is_some_and(|then: Duration| empty || at > then + watched);
            let over = dialed_at.is_some_and(|then| at >= then + self.shape.patience);
            let stuck = self.fleet.is_full() || self.shared.exhausted().is_some();
            if answered || over || stuck || self.interrupted.load(Relaxed) {
                self.burst.dialed_in = dialed_at.unwrap_or(at);
                return Ok(());
            }
        }
    }

    fn prove(&mut self) {
        let mut unseen = Unseen;
        let watch: &mut dyn Watch = &mut self.blind;
        Ramp {
            plan: self.plan,
            shared: &self.shared,
            fleet: &mut self.fleet,
            watch,
            sees_server: false,
            interrupted: self.interrupted,
            observer: &mut unseen,
            proc_root: self.proc_root,
        }
        .prove();
    }

    fn count(&mut self, totals: &Totals) -> Result<(), BurstError> {
        let burst = &mut self.burst;
        burst.dialed = totals.dialed;
        burst.refused = totals.failed;
        burst.reset = totals.closed_reset;
        burst.closed = totals.closed() - totals.closed_reset;
        burst.never = totals.timed_out + totals.abandoned;
        let Some(view) = &mut self.view else {
            burst.confirmed = totals.confirmed;
            burst.phantoms_cookie = totals.phantoms;
            burst.phantoms_request_socket = totals.half_open;
            burst.lost_at_once =
                (totals.phantoms + totals.half_open + totals.closed_reset)
                    .saturating_sub(totals.slow_phantoms + totals.slow_resets);
            // However full a queue gets, it takes the first: where the server waits on
            // each one of them, it waits for a byte.
            if totals.half_open > 0 && totals.half_open == totals.established {
                burst.phantoms_request_socket = 0;
                burst.lost_at_once = 0;
                burst.deferred = totals.half_open;
            }
            return Ok(());
        };
        let counts = view.count(&self.shared, totals.open).map_err(BurstError::Look)?;
        burst.confirmed = counts.accepted + counts.queued;
        burst.deferred = counts.deferred;
        burst.phantoms_request_socket = counts.half_open;
        burst.phantoms_cookie = counts.phantoms - counts.half_open;
        burst.server = Some(counts);
        // What came later can only have added to them.
        let early = self.early_phantoms.unwrap_or(counts.phantoms).min(counts.phantoms);
        burst.lost_at_once = early + (totals.closed_reset - totals.slow_resets);
        Ok(())
    }
}

/// Nobody is shown the looks of a burst.
struct Unseen;

impl Observer for Unseen {
    fn look(&mut self, _: &Look) {}

    fn is_too_slow(&self) -> bool {
        false
    }
}

/// The latencies of all dials that were established.
fn latencies(shared: &Shared) -> Histogram<u64> {
    let mut all = histogram();
    for one in &shared.latencies {
        // The bounds are the same.
        let _ = all.add(&*lock(one));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phantoms_and_resets_are_no_depth() {
        let burst = Burst {
            dialed: 300,
            at_once: 300,
            phantoms_cookie: 100,
            phantoms_request_socket: 50,
            reset: 21,
            lost_at_once: 171,
            ..Burst::default()
        };
        assert_eq!(burst.depth(), (129, false));
        assert_eq!(burst.lost(), 171);
        let whole = Burst { dialed: 9, at_once: 9, ..Burst::default() };
        assert_eq!(whole.depth(), (9, true));
    }

    #[test]
    fn what_was_accepted_is_what_came_less_growth() {
        let look = |ms, len, established| QueueLook {
            at: Duration::from_millis(ms),
            len,
            established,
            established_after: established,
        };
        let burst = Burst {
            queue: vec![
                look(0, 0, 0),
                look(10, 50, 60),
                look(110, 30, 70),
                look(210, 10, 70),
                look(310, 0, 70),
                look(1010, 60, 130),
            ],
            ..Burst::default()
        };
        // 10 came, and the queue is shorter by 50, in 300 ms.
        assert_eq!(burst.drain(), Some(Drain { per_s: 200.0, at_least: false }));
        // Where the server has none of them, it took none, whatever the looks may say.
        let none = Burst { server: Some(ServerCounts::default()), ..burst };
        assert_eq!(none.drain(), Some(Drain { per_s: 0.0, at_least: false }));
        let idle = Burst { queue: vec![look(0, 0, 5)], ..Burst::default() };
        assert_eq!(idle.drain(), None);
    }

    #[test]
    fn from_the_client_alone_a_step_that_leaves_some_waiting_gives_the_rate() {
        let burst = |delayed: &[(u64, u64)], never, at_once| Burst {
            dialed: 100,
            at_once,
            delayed: delayed.iter().copied().collect(),
            never,
            steps_ms: vec![1000, 2000, 3000, 4000, 5000, 7000],
            ..Burst::default()
        };
        let saturated = burst(&[(1000, 20), (2000, 20)], 30, 30);
        assert_eq!(saturated.drain(), Some(Drain { per_s: 20.0, at_least: false }));
        let all_came = burst(&[(1000, 70)], 0, 80);
        assert_eq!(all_came.drain(), Some(Drain { per_s: 70.0, at_least: true }));
        let whole_queue = burst(&[(1000, 30)], 40, 30);
        assert_eq!(whole_queue.drain(), Some(Drain { per_s: 30.0, at_least: true }));
        assert_eq!(burst(&[], 70, 30).drain(), None);
    }
}
