//! A burst: many dials at once, and what became of each over time.
//!
//! A SYN that a full queue drops is sent again by the client's timer, so that a client
//! sees a slow host and no error; and a connection that is established may be a phantom.
//! Both are told apart here, by the dialers and the confirmation of a probe.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

pub use super::burst_outcome::{Burst, Drain, QueueLook};
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

/// Between two looks at the queue and the gauges.
const TICK: Duration = Duration::from_millis(2);
/// More dials than this are made by several threads.
const FEW: u64 = 1000;
/// When the server's table is counted before the first SYN is sent again.
const EARLY: Duration = Duration::from_millis(200);
/// For how long a queue is watched when all is answered, until it is empty.
const DRAIN_WATCHED: Duration = Duration::from_secs(1);

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

    /// Whether dials do not leave this host, and are answered at once.
    #[must_use]
    pub fn is_quick(&self) -> bool {
        self.plan.is_quick
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
                    dialed: totals.dialed,
                    in_flight: totals.in_flight,
                    refused: totals.failed,
                    closed: totals.closed(),
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
            burst.lost_later = totals.slow_phantoms + totals.slow_resets;
            burst.lost_at_once =
                (totals.phantoms + totals.half_open + totals.closed_reset)
                    .saturating_sub(burst.lost_later);
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
        let watch = view.watch();
        burst.processes = watch.processes().collect();
        burst.processes.iter_mut().for_each(|one| watch.count_below_limit(one));
        // What came later can only have added to them.
        let early = self.early_phantoms.unwrap_or(counts.phantoms).min(counts.phantoms);
        burst.lost_at_once = early + (totals.closed_reset - totals.slow_resets);
        burst.lost_later = counts.phantoms - early + totals.slow_resets;
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
