//! What became of connections that were made, as a person reads it.

use super::print::owner;
use super::summary::{backlog, target, verdict};
use crate::record::backlog::{BacklogDoc, BurstDoc, FindDoc, FreezeDoc, ProcessDoc};
use crate::render::{count, plural, rate, seconds};

/// Listeners of a group that are shown one by one.
const MEMBERS_SHOWN: usize = 16;

/// The summary of a burst, a search or a freeze.
pub(super) fn lines(d: &BacklogDoc) -> Vec<String> {
    let mut lines = Vec::new();
    match &d.freeze {
        Some(freeze) => lines.push(frozen(d, freeze)),
        None => lines.push(target(d)),
    }
    if !d.listeners.is_empty() {
        lines.push(backlog(d));
    }
    lines.extend(d.burst.iter().flat_map(of_burst));
    lines.extend(d.find.iter().flat_map(of_search));
    lines.extend(d.freeze.iter().flat_map(|freeze| of_freeze(d, freeze)));
    lines.extend(verdict(&d.verdict));
    lines
}

fn of_burst(burst: &BurstDoc) -> Vec<String> {
    let dials = plural(burst.dialed, "dial");
    let mut lines = vec![format!("burst    {dials} in {:.1} ms", burst.dialed_in_ms)];
    lines.extend(queued_before(burst.queued_before));
    let mut came = vec![format!("{} at once", count(burst.at_once))];
    let delayed = burst.delayed_in_order();
    came.extend(delayed.iter().map(|(s, n)| format!("{} after {s} s", count(*n))));
    for (n, what) in [
        (burst.refused, "refused"),
        (burst.never, "never answered"),
        (burst.reset, "reset"),
        (burst.closed, "closed by the server"),
    ] {
        if n > 0 {
            came.push(format!("{} {what}", count(n)));
        }
    }
    lines.push(format!("became   {}", came.join(", ")));
    if !burst.errors.is_empty() {
        let names = burst.errors.iter().map(|(name, n)| format!("{} {name}", count(*n)));
        lines.push(format!("errors   {}", names.collect::<Vec<_>>().join(", ")));
    }
    let held = match (burst.accepted, burst.queued) {
        (Some(accepted), Some(queued)) => format!(
            "{} accepted, {} queued (by the server's own table)",
            count(accepted),
            count(queued)
        ),
        _ => format!("{} confirmed (by this side alone)", count(burst.confirmed)),
    };
    let phantoms = match burst.phantoms {
        0 => "no phantoms".to_owned(),
        n => format!(
            "{} (cookie {}, request socket {})",
            plural(n, "phantom"),
            count(burst.phantoms_cookie),
            count(burst.phantoms_request_socket)
        ),
    };
    lines.push(format!("server   {held}; {phantoms}"));
    if burst.refused == burst.dialed {
        return lines;
    }
    let least = if burst.depth_at_least { "at least " } else { "" };
    lines.push(format!("depth    {least}{} without loss", count(burst.depth)));
    let drains = match burst.drains_per_s {
        Some(none) if none <= 0.0 => "not at all: nothing was accepted".to_owned(),
        Some(per_s) if burst.drains_at_least => format!("at least {}", rate(per_s)),
        Some(per_s) => rate(per_s),
        None => "not seen: nothing queued for long enough".to_owned(),
    };
    lines.push(format!("drains   {drains}"));
    lines
}

/// What stood in the queue already leaves less room.
fn queued_before(before: Option<u64>) -> Option<String> {
    let n = before.filter(|n| *n > 0)?;
    Some(format!("queue    {} in it before the first dial", count(n)))
}

fn of_search(find: &FindDoc) -> Vec<String> {
    let deepest = match find.deepest_without_loss {
        Some(n) if find.ended == "found" => format!("{} without loss", count(n)),
        Some(n) => format!("at least {} without loss", count(n)),
        None => "not known".to_owned(),
    };
    let mut lines = vec![format!("deepest  {deepest}")];
    lines.extend(queued_before(find.queued_before));
    for one in &find.tries {
        let drained = one.drained_in_ms.map_or_else(String::new, |took| match took {
            short if short < 1.0 => ", drained within 1 ms".to_owned(),
            short if short < 1e3 => format!(", drained in {short:.0} ms"),
            long => format!(", drained in {}", seconds(long / 1e3)),
        });
        let lost = match one.lost {
            0 => "none lost".to_owned(),
            n => format!("{} lost", count(n)),
        };
        lines.push(format!("tried    {}: {lost}{drained}", count(one.dialed)));
    }
    lines
}

/// `127.0.0.1:7000  nginx[7] stopped for 12 ms, runs again`.
fn frozen(d: &BacklogDoc, freeze: &FreezeDoc) -> String {
    let names = |of: &[ProcessDoc]| {
        let named = of.iter().map(|one| format!("{}[{}]", one.comm, one.pid));
        named.collect::<Vec<_>>().join(", ")
    };
    let mut parts = Vec::new();
    if !freeze.stopped.is_empty() {
        let (who, ms) = (names(&freeze.stopped), count(freeze.stopped_ms));
        let again = if freeze.stopped.len() == 1 { "runs" } else { "run" };
        parts.push(format!("{who} stopped for {ms} ms, {again} again"));
    }
    if !freeze.stopped_before.is_empty() {
        let (who, many) =
            (names(&freeze.stopped_before), freeze.stopped_before.len() > 1);
        let (was, stays) = if many { ("were", "stay") } else { ("was", "stays") };
        parts.push(format!("{who} {was} stopped before, and {stays} so"));
    }
    format!("{}  {}", d.target.address, parts.join("; "))
}

fn of_freeze(d: &BacklogDoc, freeze: &FreezeDoc) -> Vec<String> {
    let admits = match freeze.admitted {
        Some(admitted) if admitted == freeze.expected => {
            let each = if d.listeners.len() > 1 { " of each listener" } else { "" };
            let n = plural(admitted, "connection");
            format!("{n}: min(backlog, somaxconn) + 1{each}")
        }
        Some(admitted) => {
            format!("{}, not {}", plural(admitted, "connection"), count(freeze.expected))
        }
        None => format!(
            "not known: {} of {} were queued when it ended",
            count(freeze.queued),
            count(freeze.expected)
        ),
    };
    let mut lines = vec![format!("admits   {admits}")];
    if d.listeners.len() > 1 {
        for one in d.listeners.iter().take(MEMBERS_SHOWN) {
            let (queued, admits) = (one.queue_len, one.effective_backlog + 1);
            let (queued, admits) = (count(queued), count(admits));
            lines.push(format!("         {queued} of {admits}  {}", owner(one)));
        }
    }
    lines.push(format!(
        "queue    {} before, {} at the end; {} dialed, {} established",
        count(freeze.queued_before),
        count(freeze.queued),
        count(freeze.dialed),
        count(freeze.established)
    ));
    lines
}
