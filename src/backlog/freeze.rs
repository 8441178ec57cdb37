//! How many connections an accept queue admits, exactly: nobody accepts meanwhile, for
//! every process that holds the listener is stopped.
//!
//! What is stopped is continued whatever happens: by a guard's drop, and where this
//! process dies by a [`Watchdog`].

mod fill;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Signal, getrlimit, pidfd_send_signal};

use super::holders::{Found, Holder, HoldersError, is_stopped, look_for_more};
use super::side::{Side, SideSeen};
use super::watchdog::Watchdog;
use crate::host::ProcRoot;
use crate::probe::run::raise_nofile;
use crate::probe::sources::SourceError;
use crate::record::backlog::ProcessDoc;
use crate::record::{Alternative, Confidence, Fact, Verdict};
use crate::render::count;
use crate::sockets::model::{Inode, Owner};
use crate::sockets::target::Endpoint;
use crate::sockets::watch::{ListenerWatch, ViewError};
use crate::verdict::Code;
pub use fill::FillEnd;
use fill::Filler;

/// Looks for holders until one finds no new one, so many at the most.
const LOOKS_MAX: usize = 20;
/// The queue is full within so long, and so much for each connection, as a rule.
const PATIENCE: Duration = Duration::from_millis(250);
const PATIENCE_EACH: Duration = Duration::from_micros(100);
/// A thread stops when it next leaves the kernel: at once, as a rule.
const STOPPED_WITHIN: Duration = Duration::from_millis(500);
/// The watchdog's deadline is that of the user; ours is this part of it earlier.
const EARLIER: u32 = 10;
/// Descriptors that are wanted beside the connections.
const SPARE_FDS: u64 = 64;

/// Why nothing was measured. Nothing is stopped any more.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum FreezeError {
    #[error("nothing listens on {0} here")]
    NotListening(Endpoint),
    #[error(transparent)]
    View(#[from] ViewError),
    #[error(transparent)]
    Holders(#[from] HoldersError),
    #[error(
        "whose {endpoint} is cannot be seen (made by uid {uid}); only its owner and root \
         can stop it: run this as that user, or by sudo"
    )]
    NoOwner { endpoint: Endpoint, uid: u32 },
    #[error(
        "{needs} descriptors are needed to fill the queue, and {limit} is the limit; \
         raise it: ulimit -Hn {needs}"
    )]
    Descriptors { needs: u64, limit: u64 },
    #[error("no watchdog, so nothing was stopped: {0}")]
    Watchdog(io::Error),
    #[error("{who} cannot be stopped ({why}); all were continued")]
    Stop { who: String, why: io::Error },
    #[error("{who} did not stop within 500 ms; all were continued")]
    StillRuns { who: String },
    #[error("new processes hold the listener at each look: it keeps forking")]
    KeepsForking,
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the queue could not be filled: {0}")]
    Fill(io::Error),
    #[error("interrupted; all were continued")]
    Interrupted,
}

/// What was measured.
#[derive(Debug, Clone)]
pub struct Freeze {
    /// How the filling ended.
    pub end: FillEnd,
    /// The listeners, their queues as they were at the end.
    pub side: SideSeen,
    /// The length of the queues when the owners were stopped, all together.
    pub queued_before: u64,
    /// Connections that were made to fill them.
    pub dialed: u64,
    /// Of these, how many were established.
    pub established: u64,
    /// The processes that were stopped and continued.
    pub stopped: Vec<ProcessDoc>,
    /// Those that were stopped already and were left so.
    pub stopped_before: Vec<ProcessDoc>,
    /// Processes of this host that could not be looked into: one of them may hold the
    /// listener too.
    pub unreadable: usize,
    /// For how long they were stopped.
    pub lasted: Duration,
}

impl Freeze {
    /// Connections that the queues held at the end, of all listeners together; the exact
    /// number that they admit if [`Self::end`] is [`FillEnd::Full`].
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.side.listeners.iter().map(|one| one.queue_len).sum()
    }

    /// What the kernel should admit, of all listeners together: of each one more than its
    /// effective backlog, which is min(backlog, somaxconn).
    #[must_use]
    pub fn expected(&self) -> u64 {
        self.side.listeners.iter().map(|one| one.effective_backlog + 1).sum()
    }

    /// How many they admit, where that was found.
    #[must_use]
    pub fn admitted(&self) -> Option<u64> {
        (self.end == FillEnd::Full).then(|| self.queued())
    }

    /// What it found, or why it found nothing.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let (code, confidence, summary) = self.said();
        let mut verdict = Verdict {
            code: code.as_str().to_owned(),
            confidence,
            summary,
            ..Verdict::default()
        };
        let at_end = format!("{} of {}", count(self.queued()), count(self.expected()));
        verdict.evidence.push(Fact {
            fact: "accept queue at the end".to_owned(),
            value: at_end,
            source: "sock_diag".to_owned(),
        });
        if code == Code::ServerStopped {
            let pids = self.stopped_before.iter().map(|one| one.pid.to_string());
            let pids: Vec<String> = pids.collect();
            verdict.remedy.push(format!("kill -CONT {}", pids.join(" ")));
        }
        if self.end == FillEnd::Unanswered {
            verdict.alternatives.push(Alternative {
                code: Code::ServerSynQueue.as_str().to_owned(),
                decides: "whether TCPReqQFullDrop grew: nstat -az TcpExtTCPReqQFullDrop"
                    .to_owned(),
            });
        }
        verdict
    }

    fn said(&self) -> (Code, Confidence, String) {
        let certain = Confidence::Certain;
        let admits = match self.queued() {
            all if all == self.expected() => {
                let each =
                    if self.side.listeners.len() > 1 { ", of each listener" } else { "" };
                format!("admits {}: min(backlog, somaxconn) + 1{each}", count(all))
            }
            all => format!("admits {}, not {}", count(all), count(self.expected())),
        };
        match self.end {
            FillEnd::Full if self.stopped.is_empty() => {
                let summary = format!(
                    "The server was stopped before and still is; its queue {admits}."
                );
                (Code::ServerStopped, certain, summary)
            }
            FillEnd::Full => (Code::Requested, certain, format!("The queue {admits}.")),
            FillEnd::Deferred => {
                let summary = "Connections are established and do not queue: the listener \
                               waits for a first byte (TCP_DEFER_ACCEPT), and none is sent.";
                (Code::ServerUnserved, Confidence::Likely, summary.to_owned())
            }
            FillEnd::Unanswered => {
                let summary = "Dials are not answered though the queue has room.";
                (Code::PathFiltered, Confidence::Possible, summary.to_owned())
            }
            FillEnd::TimeOver => {
                let summary = "The time was over before the queue was full.";
                (Code::TimeLimit, certain, summary.to_owned())
            }
            FillEnd::Continued => {
                let summary =
                    "Somebody else continued the server before the queue was full.";
                (Code::Interrupted, certain, summary.to_owned())
            }
            FillEnd::Interrupted => {
                let summary = "Interrupted; what was stopped runs again.";
                (Code::Interrupted, certain, summary.to_owned())
            }
        }
    }
}

/// How the watchdog is started: a program that calls [`super::watchdog::watch`].
#[derive(Debug, Clone)]
pub struct WatchdogCommand {
    /// The program.
    pub program: PathBuf,
    /// What it is called with.
    pub args: Vec<std::ffi::OsString>,
}

/// A freeze that may begin: everything is known that can be without stopping anything.
#[derive(Debug)]
pub struct Prepared {
    watch: ListenerWatch,
    holders: Vec<Holder>,
    owners: Vec<(Inode, Owner)>,
    unreadable: usize,
    freeze_for: Duration,
}

impl Prepared {
    /// Looks for the listener and the processes that hold it, and checks that all may be
    /// stopped.
    ///
    /// # Errors
    /// A [`FreezeError`].
    pub fn new(
        mut watch: ListenerWatch,
        freeze_for: Duration,
    ) -> Result<Self, FreezeError> {
        let Some(first) = watch.listeners().first() else {
            return Err(FreezeError::NotListening(watch.endpoint().clone()));
        };
        let uid = first.uid;
        let Found { new: holders, owners, unreadable } =
            look_for_more(watch.proc_root(), watch.listeners(), &[])?;
        if holders.is_empty() {
            let endpoint = watch.endpoint().clone();
            return Err(FreezeError::NoOwner { endpoint, uid });
        }
        watch.look().map_err(FreezeError::Fill)?;
        let (soft, _) = raise_nofile();
        let own = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).min(soft);
        let room = watch.backlog() + watch.listeners().len() as u64;
        let extra = fill::extra(watch.listeners().len()) as u64;
        let needs = room + extra + SPARE_FDS + holders.len() as u64;
        if needs > own {
            return Err(FreezeError::Descriptors { needs, limit: own });
        }
        Ok(Self { watch, holders, owners, unreadable, freeze_for })
    }

    /// The processes that are going to be stopped.
    pub fn holders(&self) -> impl Iterator<Item = &Holder> {
        self.holders.iter().filter(|holder| !holder.was_stopped)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        self.watch.address().unwrap_or_else(|| self.watch.endpoint().to_string())
    }

    /// The longest time for which anything is stopped.
    #[must_use]
    pub fn freeze_for(&self) -> Duration {
        self.freeze_for
    }

    /// Stops them, fills the queue, and continues them.
    ///
    /// # Errors
    /// A [`FreezeError`]; all are continued then too.
    pub fn run(
        mut self,
        watchdog: &WatchdogCommand,
        interrupted: &AtomicBool,
    ) -> Result<Freeze, FreezeError> {
        let mut filler = Filler::new(self.watch.endpoint(), self.watch.proc_root())?;
        let side = Side::begin(&mut self.watch).map_err(FreezeError::Fill)?;
        let watchdog = Watchdog::start(&watchdog.program, &watchdog.args)
            .map_err(FreezeError::Watchdog)?;
        let mut stopped = Stopped {
            watchdog: Some(watchdog),
            holders: Vec::new(),
            proc_root: self.watch.proc_root().clone(),
            since: None,
        };
        self.look_until_none_is_new(interrupted)?;
        stopped.stop(std::mem::take(&mut self.holders))?;
        let since = stopped.since.unwrap_or_else(Instant::now);
        let deadline = since + self.freeze_for - self.freeze_for / EARLIER;
        if self.watch.look().map_err(FreezeError::Fill)? == 0 {
            return Err(FreezeError::NotListening(self.watch.endpoint().clone()));
        }
        let queued_before = self.watch.queue_len();
        let end = self.fill(&mut filler, &mut stopped, deadline, interrupted);
        let mut end = end?;
        // Had one of them run meanwhile, the number would mean nothing.
        if end == FillEnd::Full && !stopped.all_are_stopped() {
            end = FillEnd::Continued;
        }
        let (names, names_before) = stopped.names();
        let lasted = stopped.resume();
        let (dialed, established) = (filler.dialed(), filler.established());
        drop(filler);
        // What is told of the queues is from the last look, when they were full.
        let listening = self.watch.listeners().len();
        let side = side.seen(&self.watch, listening, &self.owners, self.unreadable);
        Ok(Freeze {
            end,
            side,
            queued_before,
            dialed,
            established,
            stopped: names,
            stopped_before: names_before,
            unreadable: self.unreadable,
            lasted: lasted.min(self.freeze_for),
        })
    }

    /// Looks for holders again, for some may have come while the user was asked.
    fn look_until_none_is_new(
        &mut self,
        interrupted: &AtomicBool,
    ) -> Result<(), FreezeError> {
        for _ in 0..LOOKS_MAX {
            if interrupted.load(Relaxed) {
                return Err(FreezeError::Interrupted);
            }
            let Found { new, owners, unreadable } = look_for_more(
                self.watch.proc_root(),
                self.watch.listeners(),
                &self.holders,
            )?;
            (self.owners, self.unreadable) = (owners, unreadable);
            if new.is_empty() {
                return Ok(());
            }
            self.holders.extend(new);
        }
        Err(FreezeError::KeepsForking)
    }

    /// Fills the queues. A queue that is full and stays so shows by itself that nobody
    /// accepts; where it does not fill, a holder that was forked, or got the listener,
    /// after the last look is looked for. (A look takes seconds on a host with a million
    /// descriptors, so none is made while all is well.)
    fn fill(
        &mut self,
        filler: &mut Filler,
        stopped: &mut Stopped,
        deadline: Instant,
        interrupted: &AtomicBool,
    ) -> Result<FillEnd, FreezeError> {
        let patience = PATIENCE
            + PATIENCE_EACH * u32::try_from(self.watch.backlog()).unwrap_or(u32::MAX);
        let mut until = Instant::now() + patience;
        loop {
            let end = filler.fill(&mut self.watch, deadline.min(until), || {
                if interrupted.load(Relaxed) {
                    return Some(FillEnd::Interrupted);
                }
                (!stopped.is_held()).then_some(FillEnd::Continued)
            });
            let end = end.map_err(FreezeError::Fill)?;
            if end != FillEnd::TimeOver || Instant::now() >= deadline {
                return Ok(end);
            }
            let Found { new, owners, unreadable } = look_for_more(
                &stopped.proc_root,
                self.watch.listeners(),
                &stopped.holders,
            )?;
            (self.owners, self.unreadable) = (owners, unreadable);
            until = if new.is_empty() { deadline } else { Instant::now() + patience };
            stopped.stop(new)?;
        }
    }
}

/// Processes that are stopped; continued when this is dropped.
#[derive(Debug)]
struct Stopped {
    watchdog: Option<Watchdog>,
    holders: Vec<Holder>,
    proc_root: ProcRoot,
    since: Option<Instant>,
}

impl Stopped {
    /// Stops these too, but for those that were stopped already, and waits until they
    /// are.
    fn stop(&mut self, new: Vec<Holder>) -> Result<(), FreezeError> {
        let first = self.holders.len();
        for mut holder in new {
            // It may have been stopped, or continued, since it was found.
            holder.was_stopped = is_stopped(&self.proc_root, holder.id, false);
            if !holder.was_stopped {
                match self.watchdog.as_mut().map(|watchdog| watchdog.guard(holder.id)) {
                    Some(Ok(())) => {}
                    // It has ended since it was found.
                    Some(Err(why)) if why.kind() == io::ErrorKind::NotFound => continue,
                    Some(Err(why)) => return Err(FreezeError::Watchdog(why)),
                    None => return Err(FreezeError::Watchdog(broken())),
                }
                self.since.get_or_insert_with(Instant::now);
            }
            // From here on it is continued, whatever comes.
            self.holders.push(holder);
            let Some(holder) = self.holders.last() else { continue };
            if holder.was_stopped {
                continue;
            }
            match pidfd_send_signal(&holder.pidfd, Signal::STOP) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(errno) => {
                    let who = holder.to_string();
                    return Err(FreezeError::Stop { who, why: errno.into() });
                }
            }
        }
        let deadline = Instant::now() + STOPPED_WITHIN;
        for holder in &self.holders[first..] {
            while !is_stopped(&self.proc_root, holder.id, true) {
                if Instant::now() > deadline {
                    return Err(FreezeError::StillRuns { who: holder.to_string() });
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// Whether the watchdog still lives, and so the promise holds.
    fn is_held(&mut self) -> bool {
        self.watchdog.as_mut().is_some_and(Watchdog::is_alive)
    }

    fn all_are_stopped(&self) -> bool {
        self.holders.iter().all(|h| is_stopped(&self.proc_root, h.id, true))
    }

    /// The names of those stopped here, and of those that were so before.
    fn names(&self) -> (Vec<ProcessDoc>, Vec<ProcessDoc>) {
        let (before, here): (Vec<&Holder>, Vec<&Holder>) =
            self.holders.iter().partition(|holder| holder.was_stopped);
        let names = |of: Vec<&Holder>| of.into_iter().map(ProcessDoc::from).collect();
        (names(here), names(before))
    }

    /// Continues them; says for how long they were stopped.
    fn resume(mut self) -> Duration {
        self.continue_all();
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn continue_all(&mut self) {
        let mut all = true;
        for holder in self.holders.drain(..).filter(|holder| !holder.was_stopped) {
            let done = pidfd_send_signal(&holder.pidfd, Signal::CONT);
            all &= matches!(done, Ok(()) | Err(rustix::io::Errno::SRCH));
        }
        if let Some(watchdog) = self.watchdog.take()
            && all
        {
            // Where it has ended, there is nothing left for it to do.
            let _ = watchdog.dismiss();
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.continue_all();
    }
}

fn broken() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::backlog::ListenerDoc;

    fn frozen(end: FillEnd, queued: u64) -> Freeze {
        let listener = ListenerDoc {
            effective_backlog: 128,
            queue_len: queued,
            ..ListenerDoc::default()
        };
        Freeze {
            end,
            side: SideSeen { listeners: vec![listener], ..SideSeen::default() },
            queued_before: 0,
            dialed: 145,
            established: queued,
            stopped: vec![ProcessDoc { pid: 7, comm: "nginx".into() }],
            stopped_before: Vec::new(),
            unreadable: 0,
            lasted: Duration::ZERO,
        }
    }

    #[test]
    fn the_verdict_says_what_was_found_or_why_nothing_was() {
        let full = frozen(FillEnd::Full, 129);
        assert_eq!((full.admitted(), full.expected()), (Some(129), 129));
        let verdict = full.verdict();
        assert_eq!(verdict.code, "requested");
        let said = "The queue admits 129: min(backlog, somaxconn) + 1.";
        assert_eq!(verdict.summary, said);
        for (end, code) in [
            (FillEnd::Deferred, "server.unserved"),
            (FillEnd::Unanswered, "path.filtered"),
            (FillEnd::TimeOver, "time_limit"),
            (FillEnd::Continued, "interrupted"),
            (FillEnd::Interrupted, "interrupted"),
        ] {
            let none = frozen(end, 60);
            assert_eq!(none.admitted(), None, "{end:?}");
            assert_eq!(none.verdict().code, code, "{end:?}");
        }
    }

    #[test]
    fn one_that_was_stopped_before_is_told_how_to_go_on() {
        let mut freeze = frozen(FillEnd::Full, 129);
        freeze.stopped_before = std::mem::take(&mut freeze.stopped);
        let verdict = freeze.verdict();
        assert_eq!(verdict.code, "server.stopped");
        assert_eq!(verdict.remedy, ["kill -CONT 7"]);
    }
}
