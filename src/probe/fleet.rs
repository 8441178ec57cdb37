//! The dialers of one probe: as many fill at a time as there are cores, and each has an
//! fd table of its own, so that RLIMIT_NOFILE bounds one of them and not the probe.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::dialer::{Dialer, Report};
use super::shared::{Gauges, Phase, Shared};

/// The stack of a dialer; its deepest call needs a tenth of it.
const STACK: usize = 128 * 1024;

/// All dialers, in the order in which they were started.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
    members: Vec<Member>,
    reports: Receiver<Report>,
    report: Sender<Report>,
    filling: usize,
    tables_max: usize,
    own_tables: bool,
    notes: Vec<FleetNote>,
}

#[derive(Debug)]
struct Member {
    gauges: Arc<Gauges>,
    thread: JoinHandle<io::Result<()>>,
}

/// What the fleet could not do as planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FleetNote {
    /// unshare(CLONE_FILES) is forbidden, so all share the process's table.
    OneTable(String),
    /// A further thread could not be started.
    NoThread(String),
}

/// The sums of all dialers' gauges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // each is the sum of the gauge of the same name, or the latest
pub struct Totals {
    pub dialed: u64,
    pub in_flight: u64,
    pub established: u64,
    pub established_at_us: u64,
    pub open: u64,
    pub failed: u64,
    pub timed_out: u64,
    pub abandoned: u64,
    pub closed_silent: u64,
    pub closed_after_words: u64,
    pub closed_answered: u64,
    pub closed_reset: u64,
    pub closed_old: u64,
    pub closed_served: u64,
    pub confirmed: u64,
    pub half_open: u64,
    pub phantoms: u64,
    pub slow_phantoms: u64,
    pub slow_resets: u64,
    pub asked_again: u64,
    pub doubtful: u64,
    pub unheard: u64,
    pub awaited: u64,
    pub served: u64,
    pub unserved: u64,
    pub answered: u64,
    pub pings: u64,
    pub asked_pings: u64,
    pub forgotten: u64,
    pub elders: u64,
    pub elders_open: u64,
    pub first_lost: u64,
    pub skipped: u64,
    pub late: u64,
    pub late_max_us: u64,
    pub fds: u64,
    pub tables: u64,
    pub kernel_ports: bool,
}

impl Totals {
    /// Connections of which it is not yet known whether the server has them.
    #[must_use]
    pub fn undecided(&self) -> u64 {
        self.open.saturating_sub(self.confirmed + self.half_open)
    }

    /// Connections that the server ended.
    #[must_use]
    pub fn closed(&self) -> u64 {
        self.closed_silent
            + self.closed_after_words
            + self.closed_answered
            + self.closed_reset
    }
}

impl Fleet {
    /// Starts the first dialers.
    ///
    /// # Errors
    /// What starting a thread or making its epoll gives.
    pub fn start(
        shared: Arc<Shared>,
        filling: usize,
        tables_max: Option<usize>,
    ) -> io::Result<Self> {
        let (report, reports) = channel();
        let tables_max = tables_max.unwrap_or(usize::MAX);
        let mut fleet = Self {
            shared,
            members: Vec::new(),
            reports,
            report,
            filling,
            tables_max,
            own_tables: true,
            notes: Vec::new(),
        };
        if let Err(error) = fleet.add() {
            // A container's filter says EPERM as a rule, and ENOSYS where it is strict.
            let forbidden = [io::ErrorKind::PermissionDenied, io::ErrorKind::Unsupported];
            if !forbidden.contains(&error.kind()) {
                return Err(error);
            }
            fleet.notes.push(FleetNote::OneTable(error.to_string()));
            (fleet.own_tables, fleet.tables_max, fleet.filling) = (false, 1, 1);
            fleet.add()?;
        }
        fleet.staff();
        Ok(fleet)
    }

    fn add(&mut self) -> io::Result<()> {
        let gauges = Arc::new(Gauges::default());
        let (shared, own_gauges) = (self.shared.clone(), gauges.clone());
        let (slot, own_table) = (self.members.len() % self.filling, self.own_tables);
        let is_first = self.members.is_empty();
        let report = self.report.clone();
        let (ready, is_ready) = channel();
        let name = format!("dialer-{}", self.members.len());
        let thread =
            Builder::new().name(name).stack_size(STACK).spawn(
                move || match Dialer::new(shared, own_gauges, slot, is_first, own_table) {
                    Ok(dialer) => {
                        let _ = ready.send(Ok(()));
                        dialer.run(&report)
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        Ok(())
                    }
                },
            )?;
        let made = is_ready.recv().unwrap_or_else(|e| Err(io::Error::other(e)));
        if let Err(error) = made {
            let _ = thread.join();
            return Err(error);
        }
        self.members.push(Member { gauges, thread });
        Ok(())
    }

    /// Starts a dialer for each that has filled its table, while more is wanted.
    pub fn staff(&mut self) {
        let is_filling = |m: &&Member| !m.gauges.full.load(Relaxed);
        while self.shared.phase() == Phase::Fill
            && self.members.iter().filter(is_filling).count() < self.filling
            && self.members.len() < self.tables_max
            && self.shared.open() < self.shared.max
        {
            if let Err(error) = self.add() {
                self.notes.push(FleetNote::NoThread(error.to_string()));
                self.tables_max = self.members.len();
            }
        }
    }

    /// Whether every table that there may be is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let full = |m: &Member| m.gauges.full.load(Relaxed);
        self.members.len() >= self.tables_max && self.members.iter().all(full)
    }

    /// Whether each dialer has an fd table of its own.
    #[must_use]
    pub fn has_own_tables(&self) -> bool {
        self.own_tables
    }

    /// Whether a dialer ended before it was told to.
    #[must_use]
    pub fn has_broken(&self) -> bool {
        self.members.iter().any(|m| m.thread.is_finished())
    }

    /// Whether a further thread was wanted and could not be started.
    #[must_use]
    pub fn lacks_threads(&self) -> bool {
        self.notes.iter().any(|note| matches!(note, FleetNote::NoThread(_)))
    }

    /// What could not be done as planned, since this was last asked.
    pub fn take_notes(&mut self) -> Vec<FleetNote> {
        std::mem::take(&mut self.notes)
    }

    /// The sums of all gauges.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut t = Totals { tables: self.members.len() as u64, ..Totals::default() };
        for g in self.members.iter().map(|m| &m.gauges) {
            t.dialed += g.dialed.load(Relaxed);
            t.in_flight += g.in_flight.load(Relaxed);
            t.established += g.established.load(Relaxed);
            let at_us = g.established_at_us.load(Relaxed);
            t.established_at_us = t.established_at_us.max(at_us);
            t.open += g.open.load(Relaxed);
            t.failed += g.failed.load(Relaxed);
            t.timed_out += g.timed_out.load(Relaxed);
            t.abandoned += g.abandoned.load(Relaxed);
            t.closed_silent += g.closed_silent.load(Relaxed);
            t.closed_after_words += g.closed_after_words.load(Relaxed);
            t.closed_answered += g.closed_answered.load(Relaxed);
            t.awaited += g.awaited.load(Relaxed);
            t.served += g.served.load(Relaxed);
            t.unserved += g.unserved.load(Relaxed);
            t.answered += g.answered.load(Relaxed);
            t.pings += g.pings.load(Relaxed);
            t.asked_pings += g.asked_pings.load(Relaxed);
            t.forgotten += g.forgotten.load(Relaxed);
            t.closed_reset += g.closed_reset.load(Relaxed);
            t.closed_old += g.closed_old.load(Relaxed);
            t.closed_served += g.closed_served.load(Relaxed);
            t.confirmed += g.confirmed.load(Relaxed);
            t.half_open += g.half_open.load(Relaxed);
            t.phantoms += g.phantoms.load(Relaxed);
            t.slow_phantoms += g.slow_phantoms.load(Relaxed);
            t.slow_resets += g.slow_resets.load(Relaxed);
            t.asked_again += g.asked_again.load(Relaxed);
            t.doubtful += g.doubtful.load(Relaxed);
            t.unheard += g.unheard.load(Relaxed);
            t.elders += g.elders.load(Relaxed);
            t.elders_open += g.elders_open.load(Relaxed);
            t.first_lost += g.first_lost.load(Relaxed);
            t.skipped += g.skipped.load(Relaxed);
            t.late += g.late.load(Relaxed);
            t.late_max_us = t.late_max_us.max(g.late_max_us.load(Relaxed));
            t.fds += g.fds.load(Relaxed);
            t.kernel_ports |= g.kernel_ports.load(Relaxed);
        }
        t
    }

    /// Has every dialer report; dialing has ended then.
    pub fn settle(&self) -> Vec<Report> {
        self.ask(Phase::Settle)
    }

    /// Has every dialer report what has become of what it held.
    pub fn recheck(&self) -> Vec<Report> {
        self.ask(Phase::Recheck)
    }

    fn ask(&self, phase: Phase) -> Vec<Report> {
        self.shared.enter(phase);
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut reports = Vec::new();
        while reports.len() < self.members.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok(report) => reports.push(report),
                Err(_) => break,
            }
        }
        reports
    }

    /// Closes everything, in every thread at once, and waits until it is done.
    ///
    /// # Errors
    /// The first error that ended a dialer early.
    pub fn drain(self) -> io::Result<()> {
        self.shared.enter(Phase::Drain);
        let mut outcome = Ok(());
        for member in self.members {
            let ended = member.thread.join();
            let ended =
                ended.unwrap_or_else(|_| Err(io::Error::other("a dialer panicked")));
            outcome = outcome.and(ended);
        }
        outcome
    }
}
