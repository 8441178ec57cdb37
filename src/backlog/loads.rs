//! Bursts, searches and freezes as documents.

use std::time::Duration;

use super::burst::Burst;
use super::burst_verdict::{Server, judge, judge_search};
use super::find::{Search, SearchEnd, Try};
use super::freeze::{FillEnd, Freeze};
use super::holders::Holder;
use super::judge::Judgement;
use super::report::{Asked, begun};
use super::side::SideSeen;
use crate::host::text::escaped;
use crate::kernel::errno;
use crate::record::Warning;
use crate::record::backlog::{
    BacklogDoc, BurstDoc, FindDoc, FreezeDoc, ProcessDoc, TryDoc,
};
use crate::sockets::target::Endpoint;

/// The document of a burst; `side` is the server's, where that is on this host.
#[must_use]
pub fn of_burst(asked: &Asked, burst: &Burst, side: Option<SideSeen>) -> BacklogDoc {
    let judgement = judge(burst, &server(asked, side.as_ref()));
    let is_tcp = matches!(asked.endpoint, Endpoint::Tcp(_));
    let mut doc = BurstDoc::from(burst);
    if !is_tcp {
        // Neither is there a timer, nor does anything count.
        (doc.syn_steps_ms, doc.drops) = (Vec::new(), None);
    }
    let mut warnings = alone(side.as_ref());
    warnings.extend(deferred(burst));
    let document = document(asked, judgement, side, warnings);
    BacklogDoc { burst: Some(doc), ..document }
}

/// The document of a search.
#[must_use]
pub fn of_search(asked: &Asked, search: &Search, side: Option<SideSeen>) -> BacklogDoc {
    let judgement = judge_search(search, &server(asked, side.as_ref()));
    let mut warnings = alone(side.as_ref());
    if search.end == SearchEnd::NotDraining {
        warnings.push(warning(
            "not_draining",
            "the queue did not drain within 10 s after a try: nobody accepts, so that \
             only the first burst can be told; --freeze gives what it admits",
        ));
    }
    warnings.extend(search.overflowed.as_ref().and_then(deferred));
    let document = document(asked, judgement, side, warnings);
    BacklogDoc { find: Some(search.into()), ..document }
}

/// The document of a freeze.
#[must_use]
pub fn of_freeze(asked: &Asked, freeze: &Freeze) -> BacklogDoc {
    let mut warnings = Vec::new();
    if freeze.unreadable > 0 && freeze.end != FillEnd::Full {
        warnings.push(warning(
            "owners_unreadable",
            "processes of others could not be looked into, and may accept too: run it \
             by sudo",
        ));
    }
    let judgement = Judgement { verdict: freeze.verdict(), backlog_needed: None };
    let document = document(asked, judgement, Some(freeze.side.clone()), warnings);
    BacklogDoc { freeze: Some(freeze.into()), ..document }
}

fn document(
    asked: &Asked,
    judgement: Judgement,
    side: Option<SideSeen>,
    warnings: Vec<Warning>,
) -> BacklogDoc {
    let SideSeen { listeners, counters, sysctls } = side.unwrap_or_default();
    BacklogDoc {
        listeners,
        counters,
        sysctls,
        verdict: judgement.verdict,
        backlog_needed: judgement.backlog_needed,
        warnings,
        ..begun(asked, None)
    }
}

/// What is known of the server, for the verdict.
fn server(asked: &Asked, side: Option<&SideSeen>) -> Server {
    let port = match asked.endpoint {
        Endpoint::Tcp(address) => Some(address.port()),
        Endpoint::Unix(_) => None,
    };
    let Some(side) = side else { return Server { port, ..Server::default() } };
    let sysctl = |name: &str| side.sysctls.get(name).copied().flatten();
    let mut owners = side.listeners.iter().flat_map(|one| &one.owners);
    Server {
        port,
        is_unix: port.is_none(),
        comm: owners.next().map(|owner| owner.comm.clone()),
        somaxconn: sysctl("net.core.somaxconn"),
        aborts: sysctl("net.ipv4.tcp_abort_on_overflow") == Some(1),
        counters: side.counters,
    }
}

/// What a listener that waits for a first byte makes of the numbers.
fn deferred(burst: &Burst) -> Option<Warning> {
    let text = "the listener waits for a first byte (TCP_DEFER_ACCEPT), and none is sent: \
                what it deferred does not queue";
    (burst.deferred > 0).then(|| warning("deferred", text))
}

/// What is out of a client's sight.
fn alone(side: Option<&SideSeen>) -> Vec<Warning> {
    let text = "from this side alone it cannot be known how long the queue is, what its \
                backlog is, or whether what was confirmed was accepted too; run it on the \
                server's host for that";
    if side.is_some() { Vec::new() } else { vec![warning("client_alone", text)] }
}

fn warning(code: &str, message: &str) -> Warning {
    Warning { code: code.to_owned(), message: message.to_owned() }
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

impl From<&Burst> for BurstDoc {
    fn from(burst: &Burst) -> Self {
        let (depth, depth_at_least) = burst.depth();
        let drain = burst.drain();
        let after = |(at, n): (&u64, &u64)| (format!("{}s", at / 1000), *n);
        let confirmed_by = match burst.server {
            Some(_) => "server_table",
            None => "client_signs",
        };
        Self {
            dialed: burst.dialed,
            dialed_in_ms: ms(burst.dialed_in),
            at_once: burst.at_once,
            delayed: burst.delayed.iter().map(after).collect(),
            refused: burst.refused,
            errors: burst.errors.iter().map(|(no, n)| (errno::name(*no), *n)).collect(),
            never: burst.never,
            reset: burst.reset,
            closed: burst.closed,
            phantoms: burst.phantoms(),
            phantoms_cookie: burst.phantoms_cookie,
            phantoms_request_socket: burst.phantoms_request_socket,
            confirmed: burst.confirmed,
            confirmed_by: confirmed_by.to_owned(),
            accepted: burst.server.map(|server| server.accepted),
            queued_before: burst.queued_before,
            queued: burst.server.map(|server| server.queued),
            deferred: burst.deferred,
            depth,
            depth_at_least,
            drains_per_s: drain.map(|drain| (drain.per_s * 10.0).round() / 10.0),
            drains_at_least: drain.is_some_and(|drain| drain.at_least),
            drops: burst.drops,
            syn_steps_ms: burst.steps_ms.clone(),
        }
    }
}

impl From<&Search> for FindDoc {
    fn from(search: &Search) -> Self {
        let row = |one: &Try| TryDoc {
            dialed: one.dialed,
            lost: one.lost,
            drained_in_ms: one.drained_in.map(ms),
        };
        let ended = match search.end {
            SearchEnd::Found => "found",
            SearchEnd::Bound => "bound",
            SearchEnd::NotDraining => "not_draining",
            SearchEnd::Interrupted => "interrupted",
        };
        Self {
            deepest_without_loss: search.deepest,
            queued_before: search.queued_before,
            ended: ended.to_owned(),
            tries: search.tries.iter().map(row).collect(),
        }
    }
}

impl From<&Freeze> for FreezeDoc {
    fn from(freeze: &Freeze) -> Self {
        let ended = match freeze.end {
            FillEnd::Full => "full",
            FillEnd::Deferred => "deferred",
            FillEnd::Unanswered => "unanswered",
            FillEnd::TimeOver => "time_over",
            FillEnd::Continued => "continued",
            FillEnd::Interrupted => "interrupted",
        };
        Self {
            admitted: freeze.admitted(),
            expected: freeze.expected(),
            ended: ended.to_owned(),
            queued_before: freeze.queued_before,
            queued: freeze.queued(),
            dialed: freeze.dialed,
            established: freeze.established,
            stopped_ms: u64::try_from(freeze.lasted.as_millis()).unwrap_or(u64::MAX),
            stopped: freeze.stopped.clone(),
            stopped_before: freeze.stopped_before.clone(),
        }
    }
}

impl From<&Holder> for ProcessDoc {
    fn from(holder: &Holder) -> Self {
        Self { pid: holder.id.pid, comm: escaped(&holder.comm) }
    }
}
