//! What the server ends as soon as it has taken it: its limit on connections.

use super::make::Draft;
use super::server::named;
use super::tally::HABIT;
use super::{Code, Evidence, ListenerSeen, Stop, Tally, decide};
use crate::render::{count, micros, plural, seconds};

/// Whether it ended some and then no more, while others came and stayed, until no dial was
/// answered: from outside these seem to stand in the queue of one that no longer accepts.
#[allow(clippy::cast_precision_loss)]
pub(super) fn ends_no_more(t: &Tally, e: &Evidence) -> bool {
    let c = &t.closings;
    let later = (c.held_after - c.held_between) * t.held as f64;
    let stuck = t.stop == Stop::Plateau && t.unanswered >= HABIT;
    let rests = t.lost_in_hold == 0 && t.hold_s > 0.0;
    !e.sees_server && stuck && rests && later >= HABIT as f64
}

/// In which way a server ends connections.
struct Way {
    /// What that is called where it is the limit.
    code: Code,
    /// In words, of the server.
    how: &'static str,
    /// How many it ended so.
    ended: u64,
    /// What was seen of it.
    source: &'static str,
    /// Whether it may as well close them with bytes unread.
    may_close: bool,
}

/// In which way most were ended.
fn way(t: &Tally) -> Way {
    let spoke = t.closed_after_words >= t.closed_silent.max(t.closed_reset);
    let answered = t.closed_answered > t.closed_silent.max(t.closed_after_words);
    // What is closed with bytes unread ends by a RST (RFC 2525, 2.17). Who resets by
    // intent sends no FIN at all.
    let unread = t.speaks && t.closed_reset > t.closed_silent;
    let closes = t.closed_silent >= t.closed_reset || unread && t.closed_silent >= HABIT;
    let may_close = unread && !closes && !spoke && !answered;
    let (code, how, ended, source) = if answered {
        let source = "an answer, then FIN";
        (Code::ServerClosesNew, "answers, but closes", t.closed_answered, source)
    } else if spoke {
        let source = "words, then the end";
        (Code::ServerRejects, "speaks and closes", t.closed_after_words, source)
    } else if closes && unread {
        let source = "FIN before any byte, RST where it had not read what was sent";
        (Code::ServerClosesNew, "closes", t.closed_silent + t.closed_reset, source)
    } else if closes {
        (Code::ServerClosesNew, "closes", t.closed_silent, "FIN before any byte")
    } else {
        (Code::ServerResetsNew, "resets", t.closed_reset, "RST")
    };
    Way { code, how, ended, source, may_close }
}

/// Whether more are unknown to the server, or known by half, than it ended soon.
pub(super) fn is_beside_phantoms(t: &Tally) -> bool {
    young(t) < t.half_open + t.phantoms
}

/// Those that it ended soon. Those that came later and did not stay were turned away,
/// however long they waited.
fn young(t: &Tally) -> u64 {
    let waited = if t.closings.spares_the_first() { 0 } else { t.closed_old };
    t.ended().saturating_sub(waited)
}

/// Whether the server ended so many that this may be its limit.
pub(super) fn is_frequent(t: &Tally) -> bool {
    t.ended() >= HABIT && t.ended().saturating_mul(10) >= t.established
}

/// Whether the queue of a server that ended many has emptied since it was seen full, and
/// the server holds no more than before: it ends what it takes.
fn empties(t: &Tally, listener: &ListenerSeen) -> bool {
    let counts =
        t.server.zip(t.server_after).filter(|_| is_frequent(t) && t.hold_s > 0.0);
    counts.is_some_and(|(then, after)| {
        after.queued < listener.queue_len && after.accepted <= then.accepted
    })
}

/// What the way in which most were ended is called, where that is the limit.
pub(super) fn code(t: &Tally) -> Code {
    way(t).code
}

/// Says that the server ended some, where that may be the limit.
pub(super) fn ended(draft: Draft, t: &Tally) -> Draft {
    let Way { code, source, .. } = way(t);
    draft
        .fact("ended by the server", count(t.ended()), source)
        .or(code, "its limit on connections: its settings, its log")
}

/// New connections are closed, with or without words, or reset.
pub(super) fn turned_away(t: &Tally, e: &Evidence) -> Option<Draft> {
    let young = young(t);
    // A few that end for reasons of their own are not a limit, nor where more than these
    // are unknown to the server.
    if young == 0
        || young * 100 < t.established
        || is_beside_phantoms(t)
        || ends_no_more(t, e)
        || e.listener.as_ref().is_some_and(|l| l.is_full() && !empties(t, l))
    {
        return None;
    }
    let held = plural(t.held, "connection");
    let Way { code, how, ended, source, may_close } = way(t);
    // The server's table tells what it accepted from what waits; nothing else does.
    let goes_on = t.server.is_none() && t.lost_in_hold >= HABIT;
    let summary = if goes_on {
        format!(
            "The server {how} further connections more slowly than they came: {held} were \
             left after the hold, and it may not have come to all of these."
        )
    } else {
        format!("The server holds {held} and {how} every further one.")
    };
    let accepted = t.server.is_some();
    let mut draft = match accepted && !may_close {
        true => Draft::certain(code, summary),
        false => Draft::likely(code, summary),
    };
    if may_close {
        let decides =
            "whether it closes with what was sent unread: the same without --send";
        draft = draft.or(Code::ServerClosesNew, decides);
    }
    if !accepted {
        let decides = "a proxy or balancer between that does it: its log";
        draft = draft.or(Code::PathLimitsNew, decides);
        if code == Code::ServerResetsNew {
            draft = draft.or(Code::ServerAcceptQueue, decide::aborts(t));
        }
        if code == Code::ServerResetsNew || how == "closes" {
            draft = draft.or(Code::ServerTasks, decide::tasks(t));
        }
    }
    let many = match t.closings.young_p50_us {
        0 => count(ended),
        us => format!("{}, half of them within {}", count(ended), micros(us)),
    };
    draft = draft.fact("new connections ended", many, source);
    if t.lost_in_hold > 0 {
        let late = format!("{} in {}", count(t.lost_in_hold), seconds(t.hold_s));
        draft = draft.fact("ended while holding", late, "this probe");
    }
    if let Some(words) = t.words.first() {
        draft =
            draft.fact("it said", format!("\"{}\"", words.trim_end()), "the connection");
    }
    draft = draft.queue_facts(t, e);
    if goes_on {
        draft = draft.advice("see how many stay: --hold 10s");
    }
    let whose = e.owners.first().map_or("the server".into(), |o| named(&o.process));
    Some(draft.advice(format_args!(
        "raise the limit on connections in the settings of {whose}"
    )))
}
