//! What a server answers, and how fast.

use super::make::Draft;
use super::tally::HABIT;
use super::{Code, Evidence, Stop, Tally, decide, turned_away};
use crate::render::{count, micros, plural, rate};

/// Why connections are not served, as facts.
fn reasons(mut draft: Draft, t: &Tally) -> Draft {
    for (why, n) in &t.unserved {
        let fact = match why.as_str() {
            "no_reply" => "no reply in time".to_owned(),
            "late_reply" => "replied too late".to_owned(),
            "other_reply" => "another reply than expected".to_owned(),
            "not_http" => "a reply that is not HTTP/1".to_owned(),
            http => http.replacen("http_", "HTTP status ", 1),
        };
        draft = draft.fact(fact, count(*n), "the connections");
    }
    draft
}

/// Latency rose above what the user allows.
pub(super) fn latency(t: &Tally, _: &Evidence) -> Option<Draft> {
    let seen = t.latency.as_ref().filter(|_| t.stop == Stop::Latency)?;
    let beyond = match seen.met {
        0 => "It was never met.".to_owned(),
        met => format!("It was met up to {} held.", plural(met, "connection")),
    };
    let summary = format!(
        "The latency of {} is above what was allowed ({}). {beyond}",
        seen.of, seen.limit
    );
    let draft = Draft::likely(Code::ServerLatency, summary);
    let draft = match seen.pace_per_s {
        None => draft,
        Some(pace) => draft.fact("dialed at", rate(pace), "slowed down for it"),
    };
    Some(
        draft
            .fact(
                format!(
                    "{} of {}",
                    seen.limit.replace('<', " instead of below "),
                    seen.of
                ),
                micros(seen.last_us),
                format!(
                    "{} samples, the last of two intervals in a row",
                    count(seen.samples)
                ),
            )
            .or(Code::ClientCpu, "a slower load with the same number held: --rate")
            .advice("see what the server waits for: top, perf top, its queues"),
    )
}

/// What was answered once is not answered again.
pub(super) fn forgotten(t: &Tally, _: &Evidence) -> Option<Draft> {
    if t.forgotten == 0 || t.forgotten * 100 < t.served {
        return None;
    }
    let summary = format!(
        "The server answered {} once, and no longer answers {} of them.",
        plural(t.served, "connection"),
        count(t.forgotten)
    );
    Some(
        Draft::likely(Code::ServerUnserved, summary)
            .fact("asked again in vain", count(t.forgotten), "--ping")
            .or(Code::ServerStopped, decide::state(t))
            .advice("see what the server does with idle connections: its log"),
    )
}

/// Connections are there, and are not answered.
pub(super) fn unserved(t: &Tally, e: &Evidence) -> Option<Draft> {
    let asks = t.asks.as_ref()?;
    let missing = t.open.saturating_sub(t.served);
    let queued = e.listener.as_ref().map_or(0, |l| l.queue_len);
    let limited = !matches!(t.stop, Stop::TimeLimit | Stop::Latency);
    // What stands in the accept queue cannot be answered: its verdict is another.
    if missing == 0 || missing * 100 < t.open || missing <= queued * 2 || !limited {
        return None;
    }
    let late = t.unserved.get("late_reply").copied().unwrap_or(0);
    let mostly_late = late * 2 > missing;
    let open = plural(t.open, "connection");
    let summary = match t.served {
        served if mostly_late => format!(
            "The server answers {} of {open} in time ({asks}), and {} too late.",
            count(served),
            count(late)
        ),
        0 => format!("The server takes connections and answers none of {open} ({asks})."),
        served => format!(
            "The server answers {} of {open} ({asks}), and no further ones.",
            count(served)
        ),
    };
    // The server's own table shows that these were accepted: nothing else is left.
    let accepted = t.server.is_some_and(|s| s.accepted >= t.served + missing / 2);
    // Where more were ended than are not answered, that may be the limit.
    let ended = t.ended() >= HABIT && t.ended() > missing;
    let draft = match accepted && !ended {
        true => Draft::certain(Code::ServerUnserved, summary),
        false => Draft::likely(Code::ServerUnserved, summary),
    };
    let draft = match t.server.filter(|_| accepted) {
        Some(server) => draft.fact("accepted", count(server.accepted), "sock_diag"),
        None => draft,
    };
    let draft = draft.fact("answered", count(t.served), "this probe");
    let draft = if accepted {
        draft
    } else if mostly_late {
        draft
            .or(Code::ServerSlowAccept, decide::queue(t))
            .or(Code::ServerLatency, "whether fewer are answered in time: --max")
    } else if e.sees_server {
        draft.or(Code::ServerStopped, decide::state(t))
    } else {
        draft
            .or(Code::ServerAcceptQueue, decide::queue(t))
            .or(Code::ServerFdLimit, decide::descriptors(t))
            .or(Code::ServerStopped, decide::state(t))
    };
    let remedy = if mostly_late {
        "it answers, but late: --reply-timeout 1m"
    } else {
        "see what its workers do: their number, their log, strace -f -p PID"
    };
    let draft = reasons(draft, t);
    let draft = if ended { turned_away::ended(draft, t) } else { draft };
    let draft = draft.queue_facts(t, e).advice(remedy);
    Some(if accepted { draft } else { draft.remedies(decide::by_evidence(t, e)) })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{evidence, is, tally};
    use super::super::{Latency, ListenerSeen, ServerCounts};
    use super::*;
    use crate::record::Confidence::{Certain, Likely};

    /// Nothing waits in the accept queue.
    fn idle() -> Evidence {
        let mut e = evidence();
        let listener = e.listener.take();
        let listener = listener.map(|l| ListenerSeen { queue_len: 0, drops: 0, ..l });
        Evidence { listener, ..e }
    }

    fn asked(served: u64, stop: Stop) -> Tally {
        let server = ServerCounts { accepted: 700, ..ServerCounts::default() };
        let unserved = [("no_reply".to_owned(), 700 - served)].into();
        let asks = Some("what --send says".to_owned());
        Tally { server: Some(server), served, unserved, asks, ..tally(stop) }
    }

    #[test]
    fn accepted_and_not_answered_is_unserved() {
        let t = asked(0, Stop::Plateau);
        let verdict = is(&t, &idle(), Code::ServerUnserved, Certain);
        assert!(verdict.evidence.iter().any(|f| f.fact == "no reply in time"));
        let outside = Tally { server: None, ..t };
        let verdict = is(&outside, &Evidence::default(), Code::ServerUnserved, Likely);
        assert_eq!(verdict.alternatives[0].code, "server.accept_queue");
    }

    /// A slow server, seen from outside, that also turns many away.
    #[test]
    fn what_is_answered_late_is_not_called_unanswered() {
        let unserved = [("late_reply".to_owned(), 400)].into();
        let ended = 500;
        let t = Tally { unserved, closed_silent: ended, ..asked(300, Stop::Plateau) };
        let t = Tally { server: None, closed_old: ended, ..t };
        let verdict = is(&t, &Evidence::default(), Code::ServerUnserved, Likely);
        assert!(verdict.summary.contains("400 too late"), "{}", verdict.summary);
        let others: Vec<_> = verdict.alternatives.iter().map(|a| &a.code[..]).collect();
        let all = ["server.slow_accept", "server.latency", "server.closes_new"];
        assert_eq!(others, all);
    }

    #[test]
    fn where_more_are_ended_than_unanswered_being_unserved_is_not_certain() {
        let t = Tally { closed_reset: 401, closed_old: 401, ..asked(300, Stop::Plateau) };
        let verdict = is(&t, &idle(), Code::ServerUnserved, Likely);
        assert_eq!(verdict.alternatives[0].code, "server.resets_new");
        let few = Tally { closed_reset: 400, closed_old: 400, ..t };
        is(&few, &idle(), Code::ServerUnserved, Certain);
    }

    #[test]
    fn what_waits_in_the_queue_is_not_called_unserved() {
        let server = ServerCounts { accepted: 571, queued: 129, ..Default::default() };
        let t = Tally { server: Some(server), ..asked(571, Stop::Plateau) };
        is(&t, &evidence(), Code::ServerAcceptQueue, Certain);
    }

    #[test]
    fn all_that_was_asked_for_must_be_answered_to_be_requested() {
        is(&asked(700, Stop::MaxReached), &idle(), Code::Requested, Certain);
        is(&asked(300, Stop::MaxReached), &idle(), Code::ServerUnserved, Certain);
    }

    #[test]
    fn a_server_that_forgets_is_found_out_and_a_stopped_one_is_stopped() {
        let t = Tally { forgotten: 700, ..asked(700, Stop::MaxReached) };
        let verdict = is(&t, &idle(), Code::ServerUnserved, Likely);
        assert!(verdict.summary.contains("no longer answers 700"), "{}", verdict.summary);
        let mut stopped = idle();
        stopped.owners[0].process.state = 'T';
        is(&t, &stopped, Code::ServerStopped, Certain);
    }

    #[test]
    fn latency_says_how_many_still_met_it() {
        let latency = Some(Latency {
            limit: "p99<50ms".into(),
            of: "replies",
            met: 400,
            last_us: 61_000,
            samples: 200,
            pace_per_s: Some(200.0),
        });
        let t = Tally { latency, ..asked(700, Stop::Latency) };
        let verdict = is(&t, &idle(), Code::ServerLatency, Likely);
        assert!(verdict.summary.contains("400 connections held"), "{}", verdict.summary);
        assert_eq!(verdict.evidence[0].value, "200/s");
    }
}
