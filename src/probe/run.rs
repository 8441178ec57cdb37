//! One probe from its first dial to its record.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::SockRef;

use super::assemble;
use super::closed;
use super::dialer::{Report, spare_fds};
use super::fleet::{Fleet, FleetNote, Totals};
use super::keeper::{Keeper, Progress};
use super::plan::{Close, Plan};
use super::predict;
use super::prepare::Prepared;
use super::ramp::{Glance, Ramp, Watch};
use super::remote::Remote;
use super::server_view::ServerView;
use super::service::Unserved;
use super::shared::{Phase, Settings, Shared, lock};
use super::snapshot::Snapshot;
use super::target::Endpoint;
use crate::host::ceilings::Ceiling;
use crate::host::conntrack::conntrack;
use crate::host::counters::Softnet;
use crate::host::files::file_nr;
use crate::host::memory::{Memory, memory};
use crate::host::{ProcRoot, process};
use crate::record::{PairRow, Predicted, Run, RunFolder, Timestamp, Warning};
use crate::verdict::{Closings, Evidence, ServerCounts, Steadiness, Stop, Trial};

/// Dials in flight of all dialers together, without a rate.
const WINDOW: usize = 512;
/// How long after the ramp the counts must stand still, and how long that is waited for.
const QUIET: Duration = Duration::from_millis(100);
const QUIET_WITHIN: Duration = Duration::from_secs(1);

/// How long the dial may take that asks whether a server is still there.
const TRIAL: Duration = Duration::from_secs(1);

/// Why a probe broke off. What was opened is closed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A dialer could not start or go on.
    #[error("dialing broke off: {0}")]
    Dialer(io::Error),
    /// Not one dialer could start: threads are used up.
    #[error(
        "no thread could be started to dial ({0}): see `ulimit -u`, and pids.max of the cgroup"
    )]
    NoThread(io::Error),
}

/// A probe's surroundings.
pub struct Surroundings<'a> {
    /// Set by Ctrl-C.
    pub interrupted: &'a AtomicBool,
    /// Shown progress, about ten times a second.
    pub show: &'a mut dyn FnMut(&Progress),
    /// The folder of the record, if one is kept.
    pub folder: Option<&'a mut RunFolder>,
    /// Whether the server is one that this program started for the probe.
    pub embedded: bool,
}

/// What was counted and read, from the first dial to the last.
#[derive(Debug)]
pub(super) struct Findings {
    /// Why dialing ended.
    pub stop: Stop,
    /// The hosts' tables when it ended, completed after the hold.
    pub evidence: Evidence,
    /// The sums when all dials had been answered or given up.
    pub settled: Totals,
    /// The sums after the hold.
    pub after: Totals,
    /// Our connections by the server's table, at these two moments.
    pub server: Option<ServerCounts>,
    /// The same after the hold.
    pub server_after: Option<ServerCounts>,
    /// What the dialers reported.
    pub reports: Vec<Report>,
    /// The time spent dialing, in seconds.
    pub ramp_s: f64,
    /// Growth in the last second of it.
    pub growth_per_s: f64,
    /// How evenly dials succeeded.
    pub steadiness: Option<Steadiness>,
    /// Descriptors in the tables that hold the connections.
    pub client_fds: u64,
    /// Whether a further dialer could not be started.
    pub lacks_threads: bool,
    /// Where the dialers share the process's own table: what they leave free in it.
    pub spare_fds: u64,
    /// RLIMIT_NOFILE, soft and hard.
    pub fd_limit: (u64, u64),
    /// Kernel memory that a socket took.
    pub kernel_bytes_per_socket: Option<f64>,
    /// The most that was held at any moment.
    pub peak: u64,
    /// Why connections were not served that were open when dialing had ended.
    pub unserved: BTreeMap<Unserved, u64>,
    /// By which replies the server ended others until then.
    pub refusals: BTreeMap<Unserved, u64>,
    /// Of the confirmed, those that the listener still defers: when dialing had ended, and
    /// after the hold.
    pub deferred: (u64, u64),
    /// What was seen of connections that the server ended.
    pub closings: Closings,
    /// What one more dial met, where nearly all that was held was lost.
    pub trial: Option<Trial>,
}

/// What a probe hands back.
#[derive(Debug)]
pub struct Outcome {
    /// The run, as it is recorded.
    pub run: Run,
    /// One held connection, with both ends where the server's could be seen.
    pub example: Option<PairRow>,
    /// Whether Ctrl-C ended the dialing or the hold.
    pub interrupted: bool,
}

/// Sees this host's memory, and nothing of the server.
#[derive(Debug)]
pub struct Blind(pub ProcRoot);

impl Watch for Blind {
    fn glance(&mut self) -> io::Result<Glance> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn mem_available(&mut self) -> Option<u64> {
        memory(&self.0).ok().map(|m| m.available_bytes)
    }

    fn packets_dropped(&self) -> Option<u64> {
        Softnet::read(&self.0).ok().map(|softnet| softnet.dropped)
    }
}

/// Raises the soft RLIMIT_NOFILE to the hard one; returns (soft, hard) as they are then.
#[must_use]
pub fn raise_nofile() -> (u64, u64) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
    (now.current.unwrap_or(u64::MAX), now.maximum.unwrap_or(u64::MAX))
}

/// A probe under way.
struct Running<'a> {
    plan: Plan,
    shared: Arc<Shared>,
    fleet: Fleet,
    view: Option<ServerView>,
    remote: Option<Remote>,
    blind: Blind,
    keeper: Keeper<'a>,
    interrupted: &'a AtomicBool,
    warnings: Vec<Warning>,
    proc_root: ProcRoot,
    ceilings: Vec<Ceiling>,
    predicted: Option<Predicted>,
    memory_before: Option<Memory>,
    fd_limit: (u64, u64),
    embedded: bool,
    started: Timestamp,
    example: Option<PairRow>,
}

/// Runs a prepared probe. Everything that was opened is closed when it returns.
///
/// # Errors
/// [`ProbeError`].
pub fn run(prepared: Prepared, around: Surroundings<'_>) -> Result<Outcome, ProbeError> {
    let mut running = Running::start(prepared, around)?;
    let (stop, ramp_s) = match running.ramp() {
        Ok(ended) => ended,
        Err(error) => {
            let ended = running.fleet.drain();
            return Err(ProbeError::Dialer(ended.err().unwrap_or(error)));
        }
    };
    let mut findings = running.settle(stop, ramp_s);
    if findings.settled.open > 0 {
        running.hold(&mut findings);
    }
    running.after(&mut findings);
    running.finish(&findings)
}

impl<'a> Running<'a> {
    fn start(prepared: Prepared, around: Surroundings<'a>) -> Result<Self, ProbeError> {
        let Prepared { plan, mut view, remote, tuples, warnings, proc_root, .. } =
            prepared;
        let started = Timestamp::now();
        let fd_limit = raise_nofile();
        if let Some(view) = &mut view {
            // Before the prediction, for that asks whose the listener is.
            view.begin();
        }
        let mut ceilings =
            predict::ceilings(&plan, tuples.as_ref(), view.as_ref(), &proc_root);
        if let Some(remote) = &remote {
            predict::add_remote(&mut ceilings, remote, &proc_root);
        }
        let filling = plan.filling(fd_limit.0);
        let predicted = predict::predict(&plan, &ceilings, view.as_ref());
        let timeout = plan.connect_timeout.as_micros();
        let memory_before = memory(&proc_root).ok();
        let shared = Arc::new(Shared::new(Settings {
            address: plan.endpoint.sock_addr().map_err(ProbeError::Dialer)?,
            domain: plan.endpoint.domain(),
            quick: plan.is_quick,
            window: (WINDOW / filling).max(1),
            one_burst: false,
            connect_timeout_us: u64::try_from(timeout).unwrap_or(u64::MAX),
            close: plan.close,
            max: plan.max,
            // Data first: a reply confirms, and a keepalive is not free of consequence.
            confirm: plan.confirm
                && plan.service.is_none()
                && tuples.is_some()
                && view.as_ref().is_none_or(|view| view.listeners().is_empty()),
            service: plan.service.clone(),
            pairs: plan.pairs.limit(),
            rate: plan.rate,
            tuples,
            filling,
        }));
        let Surroundings { interrupted, show, folder, embedded } = around;
        let keeper = Keeper::new(shared.clone(), folder, show, proc_root.clone(), &plan);
        let fleet = Fleet::start(shared.clone(), filling, plan.fd_tables);
        let fleet = fleet.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => ProbeError::NoThread(error),
            _ => ProbeError::Dialer(error),
        })?;
        let blind = Blind(proc_root.clone());
        Ok(Self {
            plan,
            shared,
            fleet,
            view,
            remote,
            blind,
            keeper,
            interrupted,
            warnings,
            proc_root,
            ceilings,
            predicted,
            memory_before,
            fd_limit,
            embedded,
            started,
            example: None,
        })
    }

    fn driver(&mut self) -> Ramp<'_> {
        let sees_server = self.view.is_some() || self.remote.is_some();
        let watch: &mut dyn Watch = match (&mut self.view, &mut self.remote) {
            (Some(view), _) => view,
            (None, Some(remote)) => remote,
            (None, None) => &mut self.blind,
        };
        Ramp {
            plan: &self.plan,
            shared: &self.shared,
            fleet: &mut self.fleet,
            watch,
            sees_server,
            interrupted: self.interrupted,
            observer: &mut self.keeper,
            proc_root: &self.proc_root,
        }
    }

    fn ramp(&mut self) -> io::Result<(Stop, f64)> {
        let stop = self.driver().run()?;
        Ok((stop, self.shared.started.elapsed().as_secs_f64()))
    }

    /// Ends the dialing, and counts at the peak.
    fn settle(&mut self, stop: Stop, ramp_s: f64) -> Findings {
        let growth_per_s = self.keeper.growth_per_s();
        if stop == Stop::MaxReached {
            // What ends while this host's tables are read, which takes seconds on a busy
            // one, is not to be dialed anew: all of it was there.
            self.shared.enter(Phase::Prove);
        }
        let mut evidence = match &mut self.view {
            Some(view) => view.evidence(self.fleet.totals().open),
            None => {
                let outside = self.evidence_of_client();
                match &mut self.remote {
                    Some(remote) => remote.evidence(outside, self.interrupted),
                    None => outside,
                }
            }
        };
        let tracked = conntrack(&self.proc_root).ok().flatten();
        evidence.client_conntrack = tracked.map(|c| (c.count, c.max));
        evidence.ceilings = std::mem::take(&mut self.ceilings);
        self.prove();
        let reports = self.fleet.settle();
        let (peak, server) = self.count_at_peak(stop);
        let settled = peak.totals;
        self.driver().look_once();
        let kernel_bytes_per_socket = self.kernel_memory(settled.open);
        let (client_fds, spare_fds) = self.descriptors(&settled);
        self.example = self.record_pairs(&reports, server.is_some());
        Findings {
            stop,
            evidence,
            settled,
            after: settled,
            server,
            server_after: server,
            reports,
            ramp_s,
            growth_per_s,
            steadiness: self.keeper.steadiness(),
            client_fds,
            lacks_threads: self.fleet.lacks_threads(),
            spare_fds,
            fd_limit: self.fd_limit,
            kernel_bytes_per_socket,
            peak: self.keeper.peak(),
            unserved: peak.unserved,
            refusals: peak.refusals,
            deferred: (0, 0),
            closings: Closings::default(),
            trial: None,
        }
    }

    /// Ends the dialing, and waits until each connection is known to be true or not, or
    /// to be served.
    fn prove(&mut self) {
        self.shared.enter(Phase::Prove);
        if self.shared.confirm || self.shared.service.is_some() {
            self.driver().prove();
        }
    }

    /// Descriptors of the tables that hold connections, and how many dialers leave free.
    fn descriptors(&self, settled: &Totals) -> (u64, u64) {
        if self.fleet.has_own_tables() {
            return (settled.fds, 0);
        }
        let own = process::own_view(&self.proc_root).ok().and_then(|own| own.open_fds);
        (own.unwrap_or(settled.fds), spare_fds(self.fd_limit.0))
    }

    fn evidence_of_client(&self) -> Evidence {
        Evidence {
            file_nr: file_nr(&self.proc_root).ok().map(|f| (f.allocated, f.max)),
            mem_available_bytes: self.blind_memory(),
            ..Evidence::default()
        }
    }

    fn blind_memory(&self) -> Option<u64> {
        memory(&self.proc_root).ok().map(|m| m.available_bytes)
    }

    /// Waits until what the server still closes is closed.
    fn quiet(&self) -> Snapshot {
        let deadline = Instant::now() + QUIET_WITHIN;
        let mut since = Instant::now();
        let mut last = self.fleet.totals();
        while since.elapsed() < QUIET && Instant::now() < deadline {
            thread::park_timeout(QUIET / 5);
            let now = self.fleet.totals();
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        Snapshot::of(&self.fleet, &self.shared)
    }

    /// Counts both sides when dialing has ended. Where something moves meanwhile, or the
    /// server is just accepting the last of what was asked for, that is waited for.
    fn count_at_peak(&mut self, stop: Stop) -> (Snapshot, Option<ServerCounts>) {
        let deadline = Instant::now() + QUIET_WITHIN;
        loop {
            let peak = self.quiet();
            let counts = self.count(peak.totals.open);
            let moved = self.fleet.totals().open != peak.totals.open;
            let queued = counts.is_some_and(|counts| counts.queued > 0);
            let again = moved || queued && stop == Stop::MaxReached;
            if !again || self.remote.is_some() || Instant::now() >= deadline {
                return (peak, counts);
            }
        }
    }

    /// Our connections by the server's own table; None where it knows none of them
    /// though some are open: something between (NAT) gives them other addresses.
    fn count(&mut self, open: u64) -> Option<ServerCounts> {
        if let Some(remote) = &mut self.remote {
            return remote.count(&self.shared, open, self.interrupted);
        }
        let view = self.view.as_mut().filter(|view| !view.listeners().is_empty())?;
        let counted = view.count(&self.shared, open);
        let there = view.is_there();
        // What the server is just ending is known to neither.
        let still = self.fleet.totals().open == open;
        match counted {
            Ok(counts)
                if open > 0
                    && still
                    && counts.phantoms - counts.half_open == open
                    && there =>
            {
                let message = "the server's table shows none of these connections: \
                               something between gives them other addresses, so they \
                               count as established only; --evidence none confirms them \
                               from this side";
                self.warn("other_addresses", message.to_owned());
                None
            }
            Ok(counts) => Some(counts),
            Err(error) => {
                let message = format!(
                    "the server's table could not be read ({error}): what is counted is \
                     established only"
                );
                self.warn("no_server_table", message);
                None
            }
        }
    }

    /// Writes sockets.csv; returns a pair to show, one with both ends if there is one.
    fn record_pairs(&mut self, reports: &[Report], counted: bool) -> Option<PairRow> {
        let limit = self.plan.pairs.limit();
        let view = self.view.as_mut().filter(|_| counted);
        let pairs = assemble::pairs(&self.plan, &self.shared, view, reports, limit);
        if let Some(folder) = self.keeper.folder()
            && let Err(error) = folder.write_sockets(pairs.iter().cloned())
        {
            self.warn("sockets_csv", format!("sockets.csv is not written: {error}"));
        }
        let whole = pairs.iter().find(|pair| pair.server.is_some());
        whole.or(pairs.first()).cloned()
    }

    fn warn(&mut self, code: &str, message: String) {
        if self.warnings.iter().all(|known| known.code != code) {
            self.warnings.push(Warning { code: code.into(), message });
        }
    }

    /// What a socket took of the kernel's memory, by the slab's growth.
    #[allow(clippy::cast_precision_loss)]
    fn kernel_memory(&self, open: u64) -> Option<f64> {
        const ENOUGH: u64 = 1000;
        let now = memory(&self.proc_root).ok()?;
        let grown = now.slab_bytes.checked_sub(self.memory_before?.slab_bytes)?;
        let ends = if self.view.is_some() { 2 } else { 1 };
        (open >= ENOUGH).then(|| grown as f64 / (open * ends) as f64)
    }

    fn hold(&mut self, findings: &mut Findings) {
        self.shared.enter(Phase::Hold);
        self.driver().hold();
        if !self.interrupted.load(Relaxed) || findings.stop == Stop::Interrupted {
            return;
        }
        if findings.stop == Stop::MaxReached {
            findings.stop = Stop::Interrupted;
        }
        let message = "interrupted while it held: that what was counted lasts for the \
                       time of --hold is not known";
        self.warn("hold_cut_short", message.to_owned());
    }

    fn after(&mut self, findings: &mut Findings) {
        self.shared.enter(Phase::Recheck);
        self.driver().hear_pings();
        let reports = self.fleet.recheck();
        findings.closings = closed::summary(&findings.reports, &reports);
        let deferred = reports.iter().map(|report| report.deferred);
        findings.deferred = deferred.fold((0, 0), |sum, n| (sum.0 + n.0, sum.1 + n.1));
        findings.after = Snapshot::of(&self.fleet, &self.shared).totals;
        findings.trial = self.trial(findings);
        if findings.server.is_some() {
            findings.server_after = self.count(findings.after.open);
        }
        if let Some(view) = &mut self.view {
            view.update(&mut findings.evidence);
        }
        if let Some(remote) = &mut self.remote {
            remote.update(&mut findings.evidence, self.interrupted);
        }
    }

    /// One more dial, where the server cannot be seen and nearly all was lost while
    /// nothing was dialed: is it still there?
    fn trial(&self, findings: &Findings) -> Option<Trial> {
        let (open, left) = (findings.settled.open, findings.after.open);
        let lost = open > 0 && left * 10 <= open && self.view.is_none();
        let Endpoint::Tcp(address) = &self.plan.endpoint else { return None };
        lost.then(|| match TcpStream::connect_timeout(address, TRIAL) {
            Ok(conn) => {
                // No TIME_WAIT stays of it where none stays of the others.
                if self.plan.close == Close::Rst {
                    let _ = SockRef::from(&conn).set_linger(Some(Duration::ZERO));
                }
                Trial::Answered
            }
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Trial::Refused,
            Err(_) => Trial::Silent,
        })
    }

    fn finish(mut self, findings: &Findings) -> Result<Outcome, ProbeError> {
        let cut_short = self.warnings.iter().any(|w| w.code == "hold_cut_short");
        let interrupted = cut_short || findings.stop == Stop::Interrupted;
        for note in self.fleet.take_notes() {
            let (code, message) = match note {
                FleetNote::OneTable(why) => (
                    "one_fd_table",
                    format!(
                        "unshare(CLONE_FILES) is forbidden here ({why}): one fd table"
                    ),
                ),
                FleetNote::NoThread(why) => {
                    ("no_thread", format!("no further thread could be started: {why}"))
                }
            };
            self.warn(code, message);
        }
        let ended = self.fleet.drain();
        if let Some(why) = self.keeper.failure() {
            let message = format!("timeline.ndjson has gaps: {why}");
            self.warnings.push(Warning { code: "timeline".into(), message });
        }
        ended.map_err(ProbeError::Dialer)?;
        let errors = lock(&self.shared.errors).clone();
        let words = lock(&self.shared.words).clone();
        let parts = assemble::Parts {
            plan: &self.plan,
            shared: &self.shared,
            findings,
            errors: &errors,
            words: &words,
            proc_root: &self.proc_root,
            embedded: self.embedded,
            rate_per_s: self.keeper.rate_per_s(),
            latency: self.keeper.latency_seen(),
        };
        self.warnings.extend(assemble::caveats(&parts));
        let mut run = assemble::run(&parts);
        run.plan.predicted = self.predicted.take();
        run.result.connect_latency_us = self.keeper.connect_latency();
        run.result.reply_latency_us = self.keeper.reply_latency();
        if let Some(remote) = self.remote.take() {
            run.target.seen_by = Some(remote.seen_by());
            self.warnings.extend(remote.warnings());
        }
        run.warnings = self.warnings;
        run.started = self.started;
        run.finished = Timestamp::now();
        if let Some(folder) = self.keeper.folder()
            && let Err(error) = folder.write_run(&run)
        {
            let message = format!("run.json is not written: {error}");
            run.warnings.push(Warning { code: "run_json".into(), message });
        }
        Ok(Outcome { run, example: self.example, interrupted })
    }
}
