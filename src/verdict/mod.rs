//! Which limit stopped a probe: the one verdict, drawn from what was counted and what
//! the hosts' tables said. Pure: no socket is opened and nothing is read here.

mod client;
pub mod code;
mod conntrack;
mod decide;
mod died;
mod drops;
mod make;
mod path;
#[cfg(test)]
mod properties;
mod served;
mod server;
mod tally;
mod tasks;
#[cfg(test)]
mod tests;
mod turned_away;

pub use code::Code;
pub use tally::{
    Client, Closings, Evidence, Latency, ListenerSeen, MemoryKill, OwnerSeen, RemoteHost,
    ServerCounts, Steadiness, Stop, Tally, Trial,
};

use crate::record::Verdict;
use crate::render::{count, plural, rate};
use make::Draft;

/// A rule: its verdict where it applies.
type Rule = fn(&Tally, &Evidence) -> Option<Draft>;

/// The rules in the order in which they are asked: what is unambiguous comes first, and
/// a nearer cause before one that would show the same further away.
const RULES: &[Rule] = &[
    interrupted,
    requested,
    died::died,
    client::fd_table,
    client::file_max,
    client::memory,
    client::ports,
    path::refused,
    path::unreachable,
    server::stopped,
    server::fd_limit,
    server::file_max,
    tasks::tasks,
    server::deferred,
    served::latency,
    served::forgotten,
    drops::max_startups,
    drops::ended_while_held,
    server::resets_by_overflow,
    drops::evicts,
    drops::random,
    turned_away::turned_away,
    server::slow_accept,
    served::unserved,
    client::cpu,
    path::rate_limited,
    time_limit,
    server::phantoms,
    server::accept_queue,
    conntrack::client,
    conntrack::server,
    path::filtered,
    path::limits_new,
];

/// Names the limit that stopped a probe.
#[must_use]
pub fn judge(tally: &Tally, evidence: &Evidence) -> Verdict {
    let draft = RULES.iter().find_map(|rule| rule(tally, evidence));
    draft.unwrap_or_else(|| server::unknown(tally, evidence)).finish(tally, evidence)
}

fn interrupted(t: &Tally, _: &Evidence) -> Option<Draft> {
    (t.stop == Stop::Interrupted).then(|| {
        Draft::certain(
            Code::Interrupted,
            format!(
                "Interrupted with {} open, before a limit was certain.",
                count(t.open)
            ),
        )
    })
}

fn requested(t: &Tally, _: &Evidence) -> Option<Draft> {
    let there = |s: &ServerCounts| s.accepted + s.queued >= t.open;
    // A listener that defers hands a connection on when it has waited long enough.
    let at_last =
        |s: &ServerCounts| s.deferred > 0 && t.server_after.as_ref().is_some_and(there);
    let all = t.open >= t.max.unwrap_or(0)
        && t.lost_in_hold + t.forgotten == 0
        && t.server.as_ref().is_none_or(|s| there(s) || at_last(s))
        && (t.asks.is_none() || t.served >= t.open);
    // The last were accepted when patience was over, just before it was counted.
    let full = |s: ServerCounts| t.max.is_some_and(|max| s.accepted >= max);
    let reached = t.stop == Stop::MaxReached
        || t.stop == Stop::Plateau && t.server.is_some_and(full);
    (reached && all).then(|| {
        let max = t.max.unwrap_or(t.open);
        let asked = plural(max, "connection");
        let more = max.saturating_mul(2);
        Draft::certain(
            Code::Requested,
            format!("Nothing stopped it: all {asked} that were asked for are held."),
        )
        .advice(format_args!("ask for more: --max {more}, or leave --max out"))
    })
}

fn time_limit(t: &Tally, _: &Evidence) -> Option<Draft> {
    (t.stop == Stop::TimeLimit).then(|| {
        let growth = rate(t.growth_per_s.max(0.0));
        let summary = if t.growth_per_s > 0.0 {
            format!("The time was over while what was held still grew by {growth}.")
        } else {
            "The time was over before a limit showed.".to_owned()
        };
        let draft = Draft::certain(Code::TimeLimit, summary)
            .fact("dialed for", format!("{:.1} s", t.duration_s), "--time-limit")
            .fact("growth in the last second", growth, "this probe")
            .advice("give it more time: --time-limit 5m");
        if t.unanswered * 5 < t.dialed {
            return draft;
        }
        let unanswered = format!("{} of {}", count(t.unanswered), count(t.dialed));
        draft.fact("dials that heard nothing", unanswered, "this probe").advice(
            "packets are lost, or a rule limits new connections by the second: see \
             whether as many get through at another --rate",
        )
    })
}
