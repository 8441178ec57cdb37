//! Evidence from where the server runs, told by a command: `--evidence 'ssh db1 sockscope
//! backlog :5432 --format ndjson'`.

mod command;
mod inbox;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use self::command::Running;
use self::inbox::{Inbox, Received};
use super::ramp::{Glance, Watch};
use super::server_view::server_counts;
use super::shared::Shared;
use crate::host::ProcRoot;
use crate::host::counters::Softnet;
use crate::host::memory::memory;
use crate::host::process::ProcessView;
use crate::record::{SeenBy, Warning};
use crate::render::{plural, seconds};
use crate::sockets::connections::ServerSide;
use crate::sockets::sample::{CountsSample, Sample};
use crate::verdict::{Evidence, ListenerSeen, OwnerSeen, RemoteHost, ServerCounts};

/// How long the command has for its first sample.
const FIRST_WITHIN: Duration = Duration::from_secs(5);
/// Without a sample for so long, the server is out of sight.
const LAG: Duration = Duration::from_secs(2);
/// A verdict is certain only with a sample this fresh.
const FRESH: Duration = Duration::from_secs(1);
/// What a sample takes to get here at the least cannot be measured from one side. It is
/// taken to be below this: more than half of a round trip around the world.
const WAY: Duration = Duration::from_millis(200);
/// How long is waited for connections to be counted: they are about once a second.
const COUNT_WITHIN: Duration = Duration::from_secs(5);
/// So much of the command is shown with what it told.
const SHOWN: usize = 56;

/// Why an evidence command is of no use. Nothing was dialed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RemoteError {
    #[error("the evidence command cannot be started: {0}")]
    Start(io::Error),
    #[error("the evidence command ended before it gave a sample ({how}){said}")]
    Ended { how: String, said: String },
    #[error("the evidence command gave no sample within {} s{said}", FIRST_WITHIN.as_secs())]
    Silent { said: String },
    #[error("interrupted while waiting for the evidence command")]
    Interrupted,
}

/// What the verdict has of what the command told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// A sample of the moment at which dialing ended.
    Clear,
    /// One from shortly before, or the command had ended.
    Shaky,
    /// Nothing.
    Outside,
}

/// A command that tells of the server, and what it told. The command ends with it.
#[derive(Debug)]
pub struct Remote {
    command: String,
    running: Running,
    inbox: Arc<Inbox>,
    proc_root: ProcRoot,
    /// The greatest age of the newest sample that stood in the way, and how many lines
    /// that are no samples had come since.
    lag: Option<(Duration, u64)>,
    sight: Sight,
    warnings: Vec<Warning>,
}

impl Remote {
    /// Starts the command by a shell, and waits for its first sample.
    ///
    /// # Errors
    /// A [`RemoteError`], in one line.
    pub fn start(
        command: &str,
        proc_root: ProcRoot,
        interrupted: &AtomicBool,
    ) -> Result<Self, RemoteError> {
        let (running, out) = Running::start(command).map_err(RemoteError::Start)?;
        let remote = Self {
            command: command.to_owned(),
            running,
            inbox: Inbox::read(out).map_err(RemoteError::Start)?,
            proc_root,
            lag: None,
            sight: Sight::Clear,
            warnings: Vec::new(),
        };
        let given_up = || interrupted.load(Relaxed);
        let received = remote.inbox.wait(FIRST_WITHIN, given_up, |r| r.samples > 0);
        if received.samples > 0 {
            drop(received);
            return Ok(remote);
        }
        if given_up() {
            return Err(RemoteError::Interrupted);
        }
        let (ended, rubbish) = (received.ended, rubbish(&received));
        drop(received);
        let how = if ended { remote.how_it_ended() } else { String::new() };
        let said = remote.running.last_words().map(|words| format!("; it said: {words}"));
        let said = rubbish + &said.unwrap_or_default();
        Err(if ended {
            RemoteError::Ended { how, said }
        } else {
            RemoteError::Silent { said }
        })
    }

    /// How the command ended, once its stdout is closed.
    fn how_it_ended(&self) -> String {
        for _ in 0..20 {
            if let Some(how) = self.running.ended() {
                return how;
            }
            thread::sleep(Duration::from_millis(5));
        }
        "it closed its output".into()
    }

    /// The processes that held the listener before the first dial.
    #[must_use]
    pub fn processes(&self) -> Vec<ProcessView> {
        let received = self.inbox.look();
        let owners = received.first.iter().flat_map(|first| &first.owners);
        owners.map(ProcessView::from).collect()
    }

    /// The command, cut where it is long.
    #[must_use]
    pub fn shown(&self) -> String {
        let command = crate::render::escaped(&self.command);
        if command.chars().count() <= SHOWN {
            return command;
        }
        command.chars().take(SHOWN).collect::<String>() + "…"
    }

    /// What the record says of it.
    #[must_use]
    pub fn seen_by(&self) -> SeenBy {
        let received = self.inbox.look();
        SeenBy {
            command: self.command.clone(),
            samples: received.samples,
            other_lines: received.rubbish,
            clock_offset_max_us: received.offset_us.unwrap_or(0),
        }
    }

    /// Everything that the verdict needs to know of the moment at which dialing ended;
    /// `outside` is what can be known without the command.
    pub fn evidence(&mut self, outside: Evidence, interrupted: &AtomicBool) -> Evidence {
        let inbox = self.inbox.clone();
        let is_fresh = |r: &Received| age(&inbox, r).is_some_and(|age| age <= FRESH);
        let received = inbox.wait(FRESH, || interrupted.load(Relaxed), is_fresh);
        let (age, ended) = (age(&inbox, &received), received.ended);
        if let Some(age) = age
            && age > FRESH
        {
            self.note_lag(age, &received);
        }
        let age = age.unwrap_or(Duration::MAX);
        self.sight = match age {
            _ if age > LAG => Sight::Outside,
            _ if ended || age > FRESH => Sight::Shaky,
            _ => Sight::Clear,
        };
        match (&received.first, &received.latest) {
            (Some(first), Some(latest)) if self.sight != Sight::Outside => Evidence {
                remote: Some(RemoteHost {
                    command: self.shown(),
                    age_s: age.as_secs_f64(),
                    is_shaky: self.sight == Sight::Shaky,
                    file_nr: latest.file_nr.map(|f| (f.open, f.max)),
                    conntrack: latest.conntrack.map(|c| (c.count, c.max)),
                }),
                ..of_server(outside, first, latest, &received)
            },
            _ => outside,
        }
    }

    /// Completes what [`Self::evidence`] said by how it is now.
    pub fn update(&mut self, evidence: &mut Evidence, interrupted: &AtomicBool) {
        if self.sight == Sight::Outside {
            return;
        }
        let inbox = self.inbox.clone();
        let is_fresh = |r: &Received| age(&inbox, r).is_some_and(|age| age <= FRESH);
        let received = inbox.wait(FRESH, || interrupted.load(Relaxed), is_fresh);
        // Without news nothing is known to have changed.
        if let Some(latest) = received.latest.as_ref().filter(|_| is_fresh(&received)) {
            evidence.listening_after = latest.listening;
            for owner in &mut evidence.owners {
                let p = &owner.process;
                let same = latest
                    .owners
                    .iter()
                    .find(|o| (o.pid, o.tid, o.started) == (p.pid, p.tid, p.started));
                owner.alive_after = same.is_some_and(|o| o.state != 'Z');
            }
        }
    }

    /// Our connections by the server's own table, where the command counts those from
    /// our addresses; None where it does not, or cannot tell them from others.
    pub fn count(
        &mut self,
        shared: &Shared,
        open: u64,
        interrupted: &AtomicBool,
    ) -> Option<ServerCounts> {
        let asked_us = self.inbox.now_us();
        let after = |r: &Received| {
            let way = i64::try_from(WAY.as_micros()).unwrap_or(0);
            let counted = r.counted.as_ref();
            counted.is_none_or(|(at, _)| r.taken_us(at) >= asked_us + way)
        };
        let inbox = self.inbox.clone();
        let received = inbox.wait(COUNT_WITHIN, || interrupted.load(Relaxed), after);
        let (at, counts) = received.counted.as_ref()?;
        if !after(&received) {
            let text = "the evidence command stopped counting connections: what is held \
                        counts as seen from here";
            self.warn("evidence_counts", text.into());
            return None;
        }
        if let Some(missed) = missed(shared, counts) {
            let text = format!(
                "--count-from of the evidence command leaves out {missed}, which is \
                 dialed from: what is held counts as seen from here"
            );
            self.warn("evidence_counts", text);
            return None;
        }
        let (side, others) = ours(counts, open);
        let counted = server_counts(&side, at.full > 0, open);
        if open > 0 && counted.phantoms == open && at.listening {
            let text = "the server's table shows no connection from the addresses that \
                        are dialed from: something between gives them others, so what \
                        is held counts as seen from here";
            self.warn("other_addresses", text.into());
            return None;
        }
        let mut text = "accepted is what the server's table has from this client's \
                        addresses since the probe began: other programs' connections \
                        from there count too"
            .to_owned();
        if others > 0 {
            let others = plural(others, "connection");
            text += &format!("; {others} too many were taken off");
        }
        self.warn("evidence_count_from", text);
        Some(counted)
    }

    fn warn(&mut self, code: &str, message: String) {
        if self.warnings.iter().all(|known| known.code != code) {
            self.warnings.push(Warning { code: code.into(), message });
        }
    }

    fn note_lag(&mut self, age: Duration, received: &Received) {
        let so_far = self.lag.map_or(Duration::ZERO, |(age, _)| age);
        if age > so_far {
            self.lag = Some((age, received.rubbish_since));
        }
    }

    /// What a reader must know of the command: one word on what went wrong with it.
    #[must_use]
    pub fn warnings(mut self) -> Vec<Warning> {
        let inbox = self.inbox.clone();
        let received = inbox.look();
        let rests = match self.sight {
            Sight::Clear => "the verdict rests on a sample of when dialing ended",
            Sight::Shaky => "the verdict rests on an older sample, and is less certain",
            Sight::Outside => "the verdict is that of a view from outside",
        };
        let samples = plural(received.samples, "sample");
        let said = || {
            let words = self.running.last_words();
            words.map(|words| format!("; it said: {words}")).unwrap_or_default()
        };
        let trouble = match self.lag {
            _ if received.ended => Some((
                "evidence_ended",
                format!(
                    "the evidence command ended before the probe did ({}), after \
                     {samples}; {rests}{}",
                    self.how_it_ended(),
                    said()
                ),
            )),
            Some((age, since)) if since > 0 => Some((
                "evidence_rubbish",
                format!(
                    "the evidence command gave no sample for {}, after {samples}{}; \
                     {rests}",
                    seconds(age.as_secs_f64()),
                    rubbish(&received)
                ),
            )),
            Some((age, _)) => Some((
                "evidence_lags",
                format!(
                    "the evidence command gave no sample for {}; {rests}{}",
                    seconds(age.as_secs_f64()),
                    said()
                ),
            )),
            None if received.rubbish > 0 => Some((
                "evidence_rubbish",
                format!(
                    "the evidence command gave {samples}{}; they were passed over",
                    rubbish(&received)
                ),
            )),
            None => None,
        };
        drop(received);
        if let Some((code, text)) = trouble {
            self.warn(code, text);
        }
        std::mem::take(&mut self.warnings)
    }
}

/// Since the newest sample was taken.
fn age(inbox: &Inbox, received: &Received) -> Option<Duration> {
    received.latest.as_ref().map(|latest| inbox.age(received, latest))
}

/// `; 3 lines are no samples, the first: 'Last login'`, or nothing.
fn rubbish(received: &Received) -> String {
    let Some(first) = &received.first_rubbish else { return String::new() };
    let lines = plural(received.rubbish, "line");
    format!("; {lines} it printed are no samples, the first: '{first}'")
}

/// The evidence in the samples.
fn of_server(
    outside: Evidence,
    first: &Sample,
    latest: &Sample,
    received: &Received,
) -> Evidence {
    let seen = received.listening.as_ref();
    let hidden = latest.owners.is_empty() && latest.owners_unreadable > 0;
    let uid = latest.uid.filter(|_| hidden);
    let counters = latest.counters.zip(first.counters);
    Evidence {
        sees_server: true,
        listener: seen.map(|seen| ListenerSeen {
            address: seen.address.clone().unwrap_or_default(),
            members: seen.members,
            backlog: seen.backlog,
            queue_len: seen.queue_len,
            queue_peak: received.queue_peak,
            drops: seen.drops.saturating_sub(first.drops),
        }),
        listening_after: latest.listening,
        owners: latest
            .owners
            .iter()
            .map(|o| OwnerSeen { process: o.into(), alive_after: true })
            .collect(),
        unreadable_owner: uid.map(|uid| format!("uid {uid}")),
        counters: counters.map(|(now, before)| now.since(&before)),
        somaxconn: latest.somaxconn,
        abort_on_overflow: latest.abort_on_overflow.map(|n| n != 0),
        ..outside
    }
}

/// A source address that the counts leave out.
fn missed(shared: &Shared, counts: &CountsSample) -> Option<IpAddr> {
    let tuples = shared.tuples.as_ref()?;
    let (begun, _) = tuples.progress();
    let begun = u32::try_from(begun).unwrap_or(u32::MAX);
    (0..begun)
        .map(|i| tuples.sources().at(i, 0).ip())
        .find(|ip| !counts.from.iter().any(|block| block.contains(*ip)))
}

/// Ours among the connections from our addresses: no more than are open. And how many
/// there were beyond.
fn ours(counts: &CountsSample, open: u64) -> (ServerSide, u64) {
    let mut left = open;
    let mut part = |counted: u64| {
        let part = counted.min(left);
        left -= part;
        part
    };
    let side = ServerSide {
        accepted: part(counts.accepted),
        queued: part(counts.queued),
        deferred: part(counts.deferred),
        // Most of these are closed here too, and not among the open ones.
        closing: part(counts.closing),
        others: 0,
    };
    let counted = counts.accepted + counts.queued + counts.deferred;
    let others = counted - side.accepted - side.queued - side.deferred;
    (side, others)
}

impl Watch for Remote {
    fn glance(&mut self) -> io::Result<Glance> {
        let inbox = self.inbox.clone();
        let received = inbox.look();
        let (Some(latest), Some(first)) = (&received.latest, &received.first) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let age = inbox.age(&received, latest);
        if age > LAG {
            self.note_lag(age, &received);
            return Err(io::ErrorKind::Unsupported.into());
        }
        let behind = u64::try_from((age + WAY).as_micros()).unwrap_or(u64::MAX);
        Ok(Glance {
            listening: latest.listening,
            queue_len: latest.queue_len,
            backlog: latest.backlog,
            drops: latest.drops.saturating_sub(first.drops),
            server_open_fds: latest.owners.iter().filter_map(|o| o.open_fds).max(),
            behind_us: behind,
        })
    }

    fn mem_available(&mut self) -> Option<u64> {
        memory(&self.proc_root).ok().map(|m| m.available_bytes)
    }

    fn packets_dropped(&self) -> Option<u64> {
        Softnet::read(&self.proc_root).ok().map(|softnet| softnet.dropped)
    }
}

#[cfg(test)]
mod tests;
