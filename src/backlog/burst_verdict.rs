//! What a burst says of its server, and what would have held it. Pure.

use super::burst::Burst;
use crate::record::{Alternative, Confidence, Fact, Verdict};
use crate::render::{count, plural, rate};
use crate::verdict::Code;

/// How the argument of listen(2) is given to the common servers: to those among
/// `owners`, by their command's name, else to all.
fn remedies(n: u64, owners: &[String]) -> Vec<String> {
    let all = [
        ("nginx", format!("nginx: listen 80 backlog={n};")),
        ("redis", format!("Redis: tcp-backlog {n}")),
        ("haproxy", format!("HAProxy: bind :80 backlog {n}")),
        ("node", format!("Node: server.listen({{port: 80, backlog: {n}}})")),
        ("", "Go: net.Listen takes somaxconn as it is when the program starts".into()),
        ("java", format!("Java: new ServerSocket(80, {n})")),
        (
            "python",
            format!("Python: sock.listen({n}); asyncio.start_server(…, backlog={n})"),
        ),
    ];
    let is_owner = |comm: &str| {
        !comm.is_empty() && owners.iter().any(|owner| owner.starts_with(comm))
    };
    let known = all.iter().any(|(comm, _)| is_owner(comm));
    let wanted = all.into_iter().filter(|(comm, _)| !known || is_owner(comm));
    wanted.map(|(_, remedy)| remedy).collect()
}

/// Names what a burst showed. None where nothing was lost, or nothing is known of the
/// server but that it is there.
#[must_use]
pub fn judge(
    burst: &Burst,
    somaxconn: Option<u64>,
    owners: &[String],
) -> Option<Verdict> {
    if burst.lost() == 0 || burst.interrupted {
        return None;
    }
    let answered = burst.at_once + burst.delayed.values().sum::<u64>();
    if answered == 0 {
        return Some(unanswered(burst));
    }
    let turned_away = burst.closed > 0 && burst.depth().0 + burst.closed >= burst.dialed;
    if turned_away {
        return None;
    }
    let drain = burst.drain().filter(|drain| drain.per_s > 0.0);
    let Some(drain) = drain else { return Some(nobody_accepts(burst)) };
    let wanted = burst.dialed.saturating_sub(1);
    let pace = rate(drain.per_s);
    let least = if drain.at_least { "at least " } else { "" };
    let summary = format!(
        "A burst of {} overflows the accept queue, which drains at {least}{pace}; a \
         backlog of {} would have held it.",
        count(burst.dialed),
        count(wanted)
    );
    let mut remedy = Vec::new();
    if somaxconn.is_some_and(|max| max < wanted) {
        remedy.push(format!("sysctl -w net.core.somaxconn={wanted}"));
    }
    remedy.extend(remedies(wanted, owners));
    let in_sight = burst.backlog.is_some();
    Some(Verdict {
        code: Code::ServerSlowAccept.as_str().into(),
        summary,
        confidence: if in_sight { Confidence::Certain } else { Confidence::Likely },
        evidence: facts(burst),
        remedy,
        next: None,
        alternatives: if in_sight {
            Vec::new()
        } else {
            vec![Alternative {
                code: Code::PathLimitsNew.as_str().into(),
                decides: "the same burst from the server's own host".into(),
            }]
        },
    })
}

fn nobody_accepts(burst: &Burst) -> Verdict {
    let (depth, _) = burst.depth();
    let in_sight = burst.backlog.is_some();
    Verdict {
        code: Code::ServerAcceptQueue.as_str().into(),
        summary: format!(
            "The queue took {} of a burst of {}, and nothing was accepted meanwhile.",
            count(depth),
            count(burst.dialed)
        ),
        confidence: if in_sight { Confidence::Certain } else { Confidence::Possible },
        evidence: facts(burst),
        remedy: vec!["see whether the server runs, and what it waits for".into()],
        next: None,
        alternatives: Vec::new(),
    }
}

fn unanswered(burst: &Burst) -> Verdict {
    let refused = burst.refused == burst.dialed;
    let (code, summary) = if refused {
        (Code::ServerNotListening, "Every dial was refused.".to_owned())
    } else {
        let dials = plural(burst.dialed, "dial");
        (Code::PathFiltered, format!("None of {dials} was answered."))
    };
    Verdict {
        code: code.as_str().into(),
        summary,
        confidence: Confidence::Possible,
        evidence: facts(burst),
        ..Verdict::default()
    }
}

fn facts(burst: &Burst) -> Vec<Fact> {
    let fact = |fact: &str, value: String, source: &str| Fact {
        fact: fact.into(),
        value,
        source: source.into(),
    };
    let mut facts = vec![fact(
        "established at once",
        format!("{} of {}", count(burst.at_once), count(burst.dialed)),
        "this burst",
    )];
    if let Some((backlog, admits)) = burst.backlog {
        let value = format!("{}, admits {}", count(backlog), count(admits));
        facts.push(fact("effective backlog", value, "sock_diag"));
    }
    if let Some(drops) = burst.drops {
        facts.push(fact("drops at this listener", count(drops), "sock_diag"));
    }
    if burst.phantoms() > 0 {
        facts.push(fact("phantoms", count(burst.phantoms()), "this burst"));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backlog::burst::QueueLook;
    use std::time::Duration;

    fn overflowing() -> Burst {
        let look = |ms, len| QueueLook {
            at: Duration::from_millis(ms),
            len,
            established: 129,
            established_after: 129,
        };
        Burst {
            dialed: 300,
            at_once: 129,
            never: 171,
            queue: vec![look(0, 129), look(1000, 29)],
            backlog: Some((128, 129)),
            drops: Some(171),
            ..Burst::default()
        }
    }

    #[test]
    fn a_queue_that_drains_is_slow_and_the_backlog_that_would_do_is_named() {
        let verdict = judge(&overflowing(), Some(4096), &[]).unwrap();
        assert_eq!(verdict.code, "server.slow_accept");
        assert_eq!(verdict.confidence, Confidence::Certain);
        assert!(verdict.summary.contains("drains at 100/s"), "{}", verdict.summary);
        assert!(verdict.remedy.iter().any(|r| r == "Redis: tcp-backlog 299"));
        assert!(!verdict.remedy.iter().any(|r| r.contains("somaxconn=")));
        let of_redis = judge(&overflowing(), Some(4096), &["redis-server[7]".into()]);
        assert_eq!(of_redis.unwrap().remedy, ["Redis: tcp-backlog 299"]);
    }

    #[test]
    fn somaxconn_comes_first_where_it_is_lower() {
        let verdict = judge(&overflowing(), Some(128), &[]).unwrap();
        assert_eq!(verdict.remedy[0], "sysctl -w net.core.somaxconn=299");
    }

    #[test]
    fn a_queue_that_does_not_drain_is_no_slow_one() {
        let mut burst = overflowing();
        burst.queue.iter_mut().for_each(|look| look.len = 129);
        assert_eq!(judge(&burst, None, &[]).unwrap().code, "server.accept_queue");
    }

    #[test]
    fn nothing_lost_is_no_limit() {
        let burst = Burst { dialed: 9, at_once: 9, ..Burst::default() };
        assert_eq!(judge(&burst, None, &[]), None);
    }

    #[test]
    fn no_answer_at_all_is_no_queue() {
        let silent = Burst { dialed: 9, never: 9, ..Burst::default() };
        assert_eq!(judge(&silent, None, &[]).unwrap().code, "path.filtered");
        let refused = Burst { dialed: 9, refused: 9, ..Burst::default() };
        assert_eq!(judge(&refused, None, &[]).unwrap().code, "server.not_listening");
    }
}
