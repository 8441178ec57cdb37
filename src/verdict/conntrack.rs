//! Full tables of tracked connections: that of the client's side, and the server's.

use super::make::Draft;
use super::{Code, Evidence, Tally, decide};
use crate::host::ceilings::CONNTRACK;
use crate::render::count;

const SOURCE: &str = "/proc/sys/net/netfilter/nf_conntrack_count, …_max";

fn is_full((tracked, max): &(u64, u64)) -> bool {
    *max > 0 && tracked >= max
}

fn draft(code: Code, summary: &str, table: (u64, u64), source: String) -> Draft {
    let (tracked, max) = table;
    Draft::likely(code, summary.into())
        .fact(
            "tracked connections",
            format!("{} of {}", count(tracked), count(max)),
            source,
        )
        .or(Code::PathLimitsNew, "a rule that counts: sudo nft list ruleset")
        .raises(Some(max * 4), &[CONNTRACK])
}

fn raise((_, max): (u64, u64)) -> String {
    format!("sysctl -w net.netfilter.nf_conntrack_max={}", max * 4)
}

/// The client's own namespace tracks as many connections as it may.
pub(super) fn client(t: &Tally, e: &Evidence) -> Option<Draft> {
    let table = e.client_conntrack.filter(is_full)?;
    let summary = "This host's table of tracked connections is full; packets of new ones \
                   are dropped before they leave.";
    (t.unanswered > 0 || !t.errors.is_empty()).then(|| {
        draft(Code::ClientConntrack, summary, table, SOURCE.into())
            .remedy(decide::as_root(t, &raise(table)))
    })
}

/// The server's namespace does, where that is another one, or its host.
pub(super) fn server(t: &Tally, e: &Evidence) -> Option<Draft> {
    let here = e.conntrack.filter(is_full);
    let there = e.remote.as_ref().and_then(|host| host.conntrack).filter(is_full);
    let table = here.or(there)?;
    let source = if here.is_some() { SOURCE.to_owned() } else { e.there(SOURCE) };
    let summary =
        "The server's table of tracked connections is full; new ones are dropped.";
    let untracked = decide::port(t).map(untracked);
    Some(
        draft(Code::ServerConntrack, summary, table, source)
            .remedy(decide::as_root_there(t, e, &raise(table)))
            .remedies(untracked.map(|rules| decide::as_root_there(t, e, &rules))),
    )
}

/// Rules that leave the connections of a port out of the table (nft(8), notrack).
fn untracked(port: &str) -> String {
    let chain = |name: &str, hook: &str, field: &str| {
        format!(
            "add chain inet untracked {name} {{ type filter hook {hook} priority raw; }}; \
             add rule inet untracked {name} tcp {field} {port} notrack"
        )
    };
    let (comes, goes) =
        (chain("comes", "prerouting", "dport"), chain("goes", "output", "sport"));
    format!("nft 'add table inet untracked; {comes}; {goes}'")
}
