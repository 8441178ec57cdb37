//! Limits of the way between client and server.

use super::make::Draft;
use super::{Code, Evidence, ListenerSeen, Stop, Tally, decide};
use crate::host::remedy;
use crate::kernel::errno::name as errno_name;
use crate::render::{count, plural, rate, shell_word};

/// The errno that most failed dials met, where no dial succeeded.
fn only_failures(t: &Tally) -> Option<(i32, u64)> {
    if t.established > 0 {
        return None;
    }
    let failed = t.errors.iter().filter(|(errno, _)| **errno != libc::EAGAIN);
    failed.max_by_key(|(_, times)| **times).map(|(errno, times)| (*errno, *times))
}

/// The address of the target as `ip route get` takes it, without port and zone.
fn host(t: &Tally) -> &str {
    let host = t.target.rsplit_once(':').map_or("ADDRESS", |(host, _)| host);
    let host = host.trim_matches(['[', ']']);
    host.split_once('%').map_or(host, |(host, _)| host)
}

/// What every dial met.
fn dials(draft: Draft, (errno, times): (i32, u64)) -> Draft {
    let met = format!("{} times {}", count(times), errno_name(errno));
    draft.fact("dials", met, "connect()")
}

/// What shows the rule that rejects.
fn rejects(t: &Tally) -> String {
    decide::ruleset(t, "look for the rule that rejects")
}

/// Dials were refused: nobody listens, or a filter refuses for one that does.
pub(super) fn refused(t: &Tally, e: &Evidence) -> Option<Draft> {
    let met = only_failures(t)?;
    let target = &t.target;
    let listens = e.listener.is_some() && e.listening_after;
    match met.0 {
        libc::ENOENT | libc::EPROTOTYPE | libc::EACCES | libc::EPERM if t.is_unix => {
            Some(no_way_through_the_file(t, met))
        }
        libc::ECONNREFUSED if listens => {
            let summary =
                format!("{target} has a listener, and yet dials to it are refused.");
            let draft = Draft::certain(Code::PathRejected, summary);
            Some(dials(draft, met).queue_facts(t, e).remedy(rejects(t)))
        }
        libc::EHOSTUNREACH if listens => {
            let summary = format!(
                "{target} has a listener, and yet dials hear that it is unreachable."
            );
            let route = format!("the way there: ip route get {}", host(t));
            let draft = Draft::likely(Code::PathRejected, summary);
            let draft = dials(draft, met).queue_facts(t, e);
            Some(draft.or(Code::PathUnreachable, route).remedy(rejects(t)))
        }
        libc::ECONNREFUSED if e.sees_server => {
            let summary = format!("Nothing listens on {target}: every dial was refused.");
            let source = if t.is_unix { "unix_diag" } else { "sock_diag" };
            let draft = Draft::certain(Code::ServerNotListening, summary);
            Some(
                dials(draft, met)
                    .seen(e, "LISTEN sockets for it", "none", source)
                    .remedy(listing(t).into()),
            )
        }
        libc::ECONNREFUSED => {
            let summary = format!("Every dial to {target} was refused.");
            let draft = Draft::likely(Code::ServerNotListening, summary);
            Some(
                dials(draft, met)
                    .or(Code::PathRejected, decide::rules(t))
                    .remedy(remedy::noted(listing(t), "on the server's host")),
            )
        }
        libc::EACCES | libc::EPERM => {
            let summary = format!("A rule of this host forbids dials to {target}.");
            let rules = decide::as_root(t, "nft list ruleset");
            let look =
                format!("ip route get {}; {rules}  # the route or the rule", host(t));
            Some(dials(Draft::certain(Code::PathRejected, summary), met).remedy(look))
        }
        _ => None,
    }
}

/// The file of a unix socket is missing, of another type, or not permitted.
fn no_way_through_the_file(t: &Tally, met: (i32, u64)) -> Draft {
    let target = &t.target;
    let start = remedy::advised("start the server, or name the path that it made");
    let (code, summary, remedy) = match met.0 {
        libc::ENOENT => {
            let summary = format!("There is no socket file {target}.");
            (Code::ServerNotListening, summary, start)
        }
        libc::EPROTOTYPE => {
            let summary = format!("{target} is a socket of another type than stream.");
            (Code::ServerNotListening, summary, start)
        }
        _ => {
            let summary = format!("This user may not connect to {target}.");
            let path = target.strip_prefix("unix:").unwrap_or(target);
            let look = format!("namei -l {}", shell_word(path));
            let look = remedy::noted(&look, "the file's mode and its folders'");
            (Code::PathRejected, summary, look)
        }
    };
    dials(Draft::certain(code, summary), met).remedy(remedy)
}

/// What shows that, and what, listens.
fn listing(t: &Tally) -> &'static str {
    if t.is_unix {
        "ss -xl  # see what listens"
    } else {
        "ss -tln  # start the server, or see what listens"
    }
}

pub(super) fn unreachable(t: &Tally, _: &Evidence) -> Option<Draft> {
    let met = only_failures(t)?;
    let name = errno_name(met.0);
    let no_way = matches!(
        met.0,
        libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EHOSTDOWN | libc::ENETDOWN
    );
    if no_way {
        let summary = format!("No way leads to {}: {name}.", t.target);
        let route = match t.client.loopback && met.0 == libc::ENETUNREACH {
            true => {
                let up = decide::as_root(t, "ip link set lo up");
                remedy::noted(&up, "the loopback interface is down")
            }
            false => format!("ip route get {}", host(t)),
        };
        let draft = if met.0 == libc::EHOSTUNREACH {
            Draft::likely(Code::PathUnreachable, summary).or(
                Code::PathRejected,
                "a filter may answer so: sudo nft list ruleset, there too",
            )
        } else {
            Draft::certain(Code::PathUnreachable, summary)
        };
        return Some(dials(draft, met).remedy(route));
    }
    (t.stop == Stop::AllFailed).then(|| {
        let summary = format!("Every dial to {} failed with {name}.", t.target);
        dials(Draft::possible(Code::PathUnreachable, summary), met)
            .or(Code::PathRejected, "a rule that answers so: sudo nft list ruleset")
            .advice(format_args!("see what connect(2) says of {name}"))
    })
}

/// Not one dial was answered.
pub(super) fn filtered(t: &Tally, e: &Evidence) -> Option<Draft> {
    if t.established > 0 || !t.errors.is_empty() || t.dialed == 0 {
        return None;
    }
    let summary = match t.unanswered {
        1 => format!("The one dial to {} was not answered.", t.target),
        n => format!("Not one of {} to {} was answered.", plural(n, "dial"), t.target),
    };
    let rule = decide::as_root(t, "nft list ruleset && iptables-save");
    let rule = remedy::noted(&rule, "find the rule that drops");
    if e.sees_server && e.listener.is_some() {
        let summary = format!("{summary} Its listener is there and its queue is empty.");
        return Some(
            Draft::certain(Code::PathFiltered, summary).queue_facts(t, e).remedy(rule),
        );
    }
    Some(
        Draft::likely(Code::PathFiltered, summary)
            .unanswered_facts(t)
            .or(
                Code::PathUnreachable,
                "the host is down, or packets are lost: ping, tracepath",
            )
            .or(Code::ServerAcceptQueue, decide::queue(t))
            .or(Code::PathConntrack, decide::tracked_between())
            .remedy(rule)
            .remedies(decide::by_evidence(t, e)),
    )
}

/// Dials get through so many a second, evenly, and the others hear nothing.
pub(super) fn rate_limited(t: &Tally, e: &Evidence) -> Option<Draft> {
    let steady = t.steadiness?;
    #[allow(clippy::cast_precision_loss)]
    let dials_per_s = t.dialed as f64 / t.duration_s.max(1e-3);
    let grows = t.stop == Stop::TimeLimit && t.growth_per_s > 0.0 && t.unanswered > 0;
    // A queue that overflows lets through as many as the server accepts.
    let idle = |l: &ListenerSeen| l.drops == 0 && !l.is_full();
    if !grows || !steady.is_even(dials_per_s) || !e.listener.as_ref().is_none_or(idle) {
        return None;
    }
    let (pace, dials) = (rate(steady.per_s), rate(dials_per_s));
    let summary = format!(
        "Of {dials} dials an even {pace} get through, and the others hear nothing: \
         something on the way limits new connections by the second."
    );
    let spread = steady.variance.sqrt();
    let even = format!("{pace} ± {spread:.1}, in {} seconds", count(steady.seconds));
    let pace_below = steady.per_s.floor().max(1.0);
    let draft = match e.sees_server && e.listener.is_some() {
        true => Draft::likely(Code::PathRateLimited, summary).or(
            Code::PathConntrack,
            "a full table on a host between, whose entries expire: conntrack -C there",
        ),
        false => Draft::possible(Code::PathRateLimited, summary)
            .or(Code::ServerSlowAccept, decide::queue(t))
            .or(Code::PathConntrack, decide::tracked_between()),
    };
    Some(
        draft
            .fact("established", even, "this probe")
            .fact("dialed", dials, "this probe")
            .queue_facts(t, e)
            .remedy(decide::ruleset(t, "find the rule that limits"))
            .advice(format_args!("or dial no faster: --rate {pace_below}"))
            .remedies(decide::by_evidence(t, e)),
    )
}

/// What helps against a rule that counts for each source address.
fn more_sources(t: &Tally) -> Option<String> {
    let from = match t.client.loopback {
        // What was closed just now may still count.
        true => "127.0.1.0/24, which take turns",
        false => "ADDRESS for several of this host's, which take turns",
    };
    let how = format!("if it counts for each source address: --source {from}");
    (!t.is_unix).then(|| remedy::advised(how))
}

/// The first so many are fine and then nothing is answered, and the listener is idle.
pub(super) fn limits_new(t: &Tally, e: &Evidence) -> Option<Draft> {
    let idle = e.listener.as_ref().is_some_and(|l| l.queue_len == 0 && l.drops == 0);
    if !idle || t.established == 0 || t.unanswered == 0 {
        return None;
    }
    let summary = format!(
        "After {} no dial was answered, though the listener's queue is empty: something \
         on the way takes no more.",
        plural(t.open, "connection")
    );
    Some(
        Draft::likely(Code::PathLimitsNew, summary)
            .queue_facts(t, e)
            .seen(e, "dropped at this listener", "0", "SK_MEMINFO_DROPS")
            .or(
                Code::PathConntrack,
                "a full table on a host between, or a NAT that lacks ports: conntrack -C \
                 there; conntrack -S (insert_failed)",
            )
            .or(
                Code::PathRateLimited,
                "a rule that lets a few through by the minute: --patience 2m --time-limit 5m",
            )
            .remedy(decide::ruleset(t, "find the rule that counts"))
            .remedies(more_sources(t)),
    )
}
