//! Keeps what is seen while a probe runs: the timeline, the latencies, the growth.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::latency::{LatencyGate, LatencySeen};
use super::plan::Plan;
use super::ramp::{Look, Observer};
use super::shared::{Phase, Shared, histogram, lock};
use super::steady::Steady;
use crate::host::ProcRoot;
use crate::host::memory::memory;
use crate::record::{self, Latency, RunFolder, Sample};
use crate::verdict::Steadiness;

/// Between two samples of the timeline, for the first minute and after it.
const EVERY_US: u64 = 100_000;
const LATER_EVERY_US: u64 = 1_000_000;
const FIRST_MINUTE_US: u64 = 60_000_000;
/// Over what span growth is told.
const GROWTH_SPAN_US: u64 = 1_000_000;

/// What a person is told while a probe runs.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Since the start.
    pub elapsed: Duration,
    /// What is being done.
    pub phase: Phase,
    /// Held now, as far as a look can tell.
    pub held: u64,
    /// In the accept queue.
    pub queued: Option<u64>,
    /// Established a second, lately.
    pub rate_per_s: f64,
    /// Dials that failed.
    pub failed: u64,
    /// Connections that the server ended.
    pub closed: u64,
    /// Dials without an answer yet.
    pub in_flight: u64,
    /// What is waited for.
    pub waits_for: Option<&'static str>,
}

/// Keeps the timeline of one run.
pub(super) struct Keeper<'a> {
    shared: Arc<Shared>,
    folder: Option<&'a mut RunFolder>,
    show: &'a mut dyn FnMut(&Progress),
    proc_root: ProcRoot,
    connects: Latencies,
    replies: Latencies,
    gate: Option<LatencyGate>,
    last: Option<(u64, u64)>,
    phase: Option<Phase>,
    recent: VecDeque<(u64, u64)>,
    peak: u64,
    /// Connections established, and when the last of them was, in µs.
    established: (u64, u64),
    steady: Steady,
    failure: Option<String>,
}

impl<'a> Keeper<'a> {
    /// A keeper that writes samples to `folder`, and shows progress.
    pub(super) fn new(
        shared: Arc<Shared>,
        folder: Option<&'a mut RunFolder>,
        show: &'a mut dyn FnMut(&Progress),
        proc_root: ProcRoot,
        plan: &Plan,
    ) -> Self {
        Self {
            shared,
            folder,
            show,
            proc_root,
            connects: Latencies::default(),
            replies: Latencies::default(),
            gate: plan
                .stop_at_latency
                .map(|limit| LatencyGate::new(limit, plan.rate.is_some())),
            last: None,
            phase: None,
            recent: VecDeque::new(),
            peak: 0,
            established: (0, 0),
            steady: Steady::default(),
            failure: None,
        }
    }

    /// The most that was held at any look.
    #[must_use]
    pub(super) fn peak(&self) -> u64 {
        self.peak
    }

    /// Connections established a second, from the first dial until the last came.
    #[must_use]
    pub(super) fn rate_per_s(&self) -> f64 {
        let (established, at_us) = self.established;
        if at_us == 0 { 0.0 } else { established as f64 * 1e6 / at_us as f64 }
    }

    /// The folder of the record.
    pub(super) fn folder(&mut self) -> Option<&mut RunFolder> {
        self.folder.as_deref_mut()
    }

    /// How fast what is held grew in the last second.
    #[must_use]
    pub(super) fn growth_per_s(&self) -> f64 {
        match (self.recent.front(), self.recent.back()) {
            (Some((t0, h0)), Some((t1, h1))) if t1 > t0 => {
                (*h1 as f64 - *h0 as f64) * 1e6 / (t1 - t0) as f64
            }
            _ => 0.0,
        }
    }

    /// How evenly dials succeeded, second by second.
    #[must_use]
    pub(super) fn steadiness(&self) -> Option<Steadiness> {
        self.steady.seen()
    }

    /// All connect latencies; None where no dial succeeded.
    #[must_use]
    pub(super) fn connect_latency(&mut self) -> Option<Latency> {
        self.take_latencies();
        self.connects.summary()
    }

    /// All reply latencies; None where nothing was answered.
    #[must_use]
    pub(super) fn reply_latency(&mut self) -> Option<Latency> {
        self.take_latencies();
        self.replies.summary()
    }

    /// What was seen of the latency at which dialing was to stop.
    #[must_use]
    pub(super) fn latency_seen(&self) -> Option<LatencySeen> {
        self.gate.as_ref().map(|gate| gate.seen)
    }

    /// Why the timeline has gaps, if it has.
    #[must_use]
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    fn take_latencies(&mut self) {
        self.connects.take(&self.shared.latencies);
        self.replies.take(&self.shared.reply_latencies);
    }

    fn sample(&mut self, look: &Look) -> Sample {
        self.take_latencies();
        let t = look.totals;
        let (since_us, before) = self.last.unwrap_or((0, 0));
        let span_s = (look.at_us - since_us).max(1) as f64 / 1e6;
        if let Some(gate) = &mut self.gate {
            let asks = self.shared.service.is_some();
            let judged = if asks { &self.replies } else { &self.connects };
            if let Some(gap_us) = gate.feed(&judged.lately, look.at_us, look.held) {
                self.shared.schedule.pace(gap_us);
            }
        }
        self.last = Some((look.at_us, t.established));
        // Where the listener defers, those are no phantoms.
        let deferring = self.shared.habit.waits_s().is_some();
        let half_open = if deferring { 0 } else { t.half_open };
        Sample {
            t_s: look.at_us as f64 / 1e6,
            phase: match (look.phase, look.waits_for) {
                (Phase::Fill, None) => record::Phase::Ramp,
                (Phase::Fill, Some(_)) => record::Phase::Stalled,
                (Phase::Prove, _) => record::Phase::Confirm,
                (Phase::Settle | Phase::Hold | Phase::Recheck, _) => record::Phase::Hold,
                (Phase::Drain, _) => record::Phase::Close,
            },
            dialed: t.dialed,
            in_flight: t.in_flight,
            established: t.open,
            queued: look.glance.map(|g| g.queue_len),
            held: look.held,
            phantoms: self.shared.confirm.then_some(t.phantoms + half_open),
            failed: t.failed + t.timed_out,
            closed: t.closed(),
            rate_per_s: (t.established - before) as f64 / span_s,
            connect_p50_us: self.connects.lately_at(0.5),
            connect_p99_us: self.connects.lately_at(0.99),
            served: self.shared.service.as_ref().map(|_| t.served),
            reply_p50_us: self.replies.lately_at(0.5),
            reply_p99_us: self.replies.lately_at(0.99),
            server_open_fds: look.glance.and_then(|g| g.server_open_fds),
            listen_drops: look.glance.map(|g| g.drops),
            mem_available_bytes: memory(&self.proc_root).ok().map(|m| m.available_bytes),
        }
    }
}

/// Latencies of one kind.
#[derive(Debug)]
struct Latencies {
    all: Histogram<u64>,
    lately: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { all: histogram(), lately: histogram() }
    }
}

impl Latencies {
    /// Takes what the dialers recorded since the last time.
    fn take(&mut self, slots: &[Mutex<Histogram<u64>>]) {
        self.lately.reset();
        for slot in slots {
            let mut slot = lock(slot);
            if !slot.is_empty() {
                // The bounds are the same, so that nothing can fail to fit.
                let _ = self.lately.add(&*slot);
                slot.reset();
            }
        }
        let _ = self.all.add(&self.lately);
    }

    fn lately_at(&self, quantile: f64) -> Option<u64> {
        (!self.lately.is_empty()).then(|| self.lately.value_at_quantile(quantile))
    }

    fn summary(&self) -> Option<Latency> {
        let at = |q| self.all.value_at_quantile(q);
        (!self.all.is_empty()).then(|| Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: self.all.max(),
        })
    }
}

impl Observer for Keeper<'_> {
    fn is_too_slow(&self) -> bool {
        self.gate.as_ref().is_some_and(LatencyGate::is_exceeded)
    }

    fn look(&mut self, look: &Look) {
        self.peak = self.peak.max(look.held);
        self.established = (look.totals.established, look.totals.established_at_us);
        if look.phase == Phase::Fill {
            self.steady.feed(look.at_us, look.totals.established);
        }
        let every = if look.at_us < FIRST_MINUTE_US { EVERY_US } else { LATER_EVERY_US };
        let phase_goes_on = self.phase.replace(look.phase) == Some(look.phase);
        if phase_goes_on && self.last.is_some_and(|(at, _)| look.at_us < at + every) {
            return;
        }
        let sample = self.sample(look);
        self.recent.push_back((look.at_us, look.held));
        while self.recent.front().is_some_and(|(at, _)| at + GROWTH_SPAN_US < look.at_us)
        {
            self.recent.pop_front();
        }
        (self.show)(&Progress {
            elapsed: Duration::from_micros(look.at_us),
            phase: look.phase,
            held: look.held,
            queued: sample.queued,
            rate_per_s: sample.rate_per_s,
            failed: sample.failed,
            closed: sample.closed,
            in_flight: sample.in_flight,
            waits_for: look.waits_for,
        });
        if let Some(folder) = &mut self.folder
            && let Err(error) = folder.append(&sample)
        {
            self.failure.get_or_insert(error.to_string());
        }
    }
}
