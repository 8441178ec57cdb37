//! What a burst says of its server, and what would have held it. Pure.

use super::burst::Burst;
use super::find::{Search, SearchEnd};
use super::judge::{Judgement, at_fd_limit, stopped_processes, waits_for};
use super::remedies;
use crate::host::process::ProcessView;
use crate::host::remedy;
use crate::record::backlog::Counters;
use crate::record::{Alternative, Confidence, Fact, Verdict};
use crate::render::{count, plural, rate};
use crate::verdict::Code;

/// What is known of the server beside the burst; nothing, where it is not on this host.
#[derive(Debug, Clone, Default)]
pub struct Server {
    /// Its TCP port.
    pub port: Option<u16>,
    /// Whether it is a unix socket, which counts nothing.
    pub is_unix: bool,
    /// The name of a process that holds the listener.
    pub comm: Option<String>,
    /// net.core.somaxconn.
    pub somaxconn: Option<u64>,
    /// Whether net.ipv4.tcp_abort_on_overflow is 1.
    pub aborts: bool,
    /// What its namespace counted meanwhile.
    pub counters: Option<Counters>,
}

/// Judges a burst.
#[must_use]
pub fn judge(burst: &Burst, server: &Server) -> Judgement {
    judge_as(burst, server, accepts(burst))
}

fn judge_as(burst: &Burst, server: &Server, accepts: bool) -> Judgement {
    if burst.interrupted {
        let summary = "Interrupted before all was known.".to_owned();
        return without_number(burst, verdict(Code::Interrupted, certain(), summary));
    }
    if burst.lost() == 0 {
        let sure = if burst.backlog.is_some() { certain() } else { Confidence::Likely };
        let summary = format!("A burst of {} lost nothing.", count(burst.dialed));
        return without_number(burst, verdict(Code::Requested, sure, summary));
    }
    let not_the_queue = held_up(burst, server)
        .or_else(|| unanswered(burst, server))
        .or_else(|| closed(burst, server))
        .or_else(|| beside_the_queue(burst, server));
    if let Some(verdict) = not_the_queue {
        return without_number(burst, verdict);
    }
    if accepts {
        overflowing(burst, server)
    } else {
        without_number(burst, nobody_accepts(burst))
    }
}

/// Judges a search: by the last burst that lost some, where there is one.
#[must_use]
pub fn judge_search(search: &Search, server: &Server) -> Judgement {
    let deepest = search.tries.iter().map(|one| one.dialed).max().unwrap_or(0);
    let said = |code, sure, summary| Judgement {
        verdict: verdict(code, sure, summary),
        backlog_needed: None,
    };
    match (search.end, &search.overflowed) {
        (SearchEnd::Interrupted, _) => {
            let summary = "Interrupted before the number was found.".to_owned();
            said(Code::Interrupted, certain(), summary)
        }
        (_, Some(burst)) => {
            let accepts = accepts(burst) || has_drained(search);
            let mut judgement = judge_as(burst, server, accepts);
            if let Some(whole) = search.deepest.filter(|deepest| *deepest > 0) {
                let summary = &mut judgement.verdict.summary;
                *summary =
                    format!("Bursts of up to {} lost nothing. {summary}", count(whole));
            }
            judgement
        }
        (SearchEnd::NotDraining, None) => {
            let summary = format!(
                "The queue took a burst of {}, and did not drain.",
                count(deepest)
            );
            said(Code::ServerAcceptQueue, Confidence::Likely, summary)
        }
        (_, None) => {
            let summary = format!("Bursts of up to {} lost nothing.", count(deepest));
            said(Code::Requested, certain(), summary)
        }
    }
}

const fn certain() -> Confidence {
    Confidence::Certain
}

fn verdict(code: Code, confidence: Confidence, summary: String) -> Verdict {
    let code = code.as_str().to_owned();
    Verdict { code, confidence, summary, ..Verdict::default() }
}

fn without_number(burst: &Burst, mut verdict: Verdict) -> Judgement {
    verdict.evidence.extend(facts(burst));
    Judgement { verdict, backlog_needed: None }
}

fn or(code: Code, decides: &str) -> Alternative {
    Alternative { code: code.as_str().to_owned(), decides: decides.to_owned() }
}

/// Whether a burst found room after one that had filled the queue.
fn has_drained(search: &Search) -> bool {
    let after = search.tries.iter().skip_while(|one| one.lost == 0).skip(1);
    after.into_iter().any(|one| one.lost < one.dialed)
}

/// Whether anything was accepted, as far as that can be seen.
fn accepts(burst: &Burst) -> bool {
    let by_table = burst.server.is_some_and(|server| server.accepted > 0);
    by_table || burst.drain().is_some_and(|drain| drain.per_s > 0.0)
}

/// Whether the queue was full: it was seen to be, or the kernel says that it ran over.
fn was_full(burst: &Burst, server: &Server) -> bool {
    let longest = burst.queue.iter().map(|look| look.len).max().unwrap_or(0);
    let overflows = server.counters.is_some_and(|counters| counters.listen_overflows > 0);
    let ran_over = overflows && burst.drops.is_some_and(|drops| drops > 0);
    let turned_away = server.is_unix && burst.errors.contains_key(&libc::EAGAIN);
    burst.backlog.is_some_and(|(_, admits)| longest >= admits || ran_over || turned_away)
}

/// The queue was full for what its processes were in.
fn held_up(burst: &Burst, server: &Server) -> Option<Verdict> {
    if !was_full(burst, server) {
        return None;
    }
    let is_stopped = |one: &ProcessView| matches!(one.state, 'T' | 't');
    if burst.processes.iter().all(is_stopped)
        && let Some(verdict) = stopped_processes(&burst.processes)
    {
        return Some(verdict);
    }
    burst.processes.iter().find_map(at_fd_limit)
}

/// No dial was answered, and that is not for the queue.
fn unanswered(burst: &Burst, server: &Server) -> Option<Verdict> {
    let answered = burst.at_once + burst.delayed.values().sum::<u64>();
    if answered > 0 || was_full(burst, server) {
        return None;
    }
    let listens = burst.backlog.is_some();
    let refused = burst.refused == burst.dialed;
    let dials = plural(burst.dialed, "dial");
    let mut verdict = match (refused, listens) {
        (true, true) => {
            let summary = format!("Each of {dials} was refused, though it listens.");
            verdict(Code::PathRejected, Confidence::Likely, summary)
        }
        (true, false) => {
            let summary = "Every dial was refused.".to_owned();
            verdict(Code::ServerNotListening, Confidence::Possible, summary)
        }
        (false, _) => {
            let summary = format!("None of {dials} was answered.");
            verdict(Code::PathFiltered, Confidence::Possible, summary)
        }
    };
    if !listens {
        let decides = "what listens there: ss -tln on its host";
        verdict.alternatives.push(match refused {
            true => or(Code::PathRejected, decides),
            false => or(Code::ServerAcceptQueue, decides),
        });
    }
    Some(verdict)
}

/// The server closed or reset what it had accepted.
fn closed(burst: &Burst, server: &Server) -> Option<Verdict> {
    let (depth, _) = burst.depth();
    if burst.closed > 0 && depth + burst.closed >= burst.dialed {
        let closed = plural(burst.closed, "connection");
        let summary = format!("The server closed {closed}; no other was lost.");
        return Some(verdict(Code::ServerClosesNew, Confidence::Likely, summary));
    }
    let by_itself = burst.drops == Some(0) && !was_full(burst, server);
    if burst.reset >= burst.lost() && by_itself {
        let reset = plural(burst.reset, "connection");
        let summary = format!("The server reset {reset}, and its queue had room.");
        return Some(verdict(Code::ServerResetsNew, Confidence::Likely, summary));
    }
    None
}

/// Some was lost, and the accept queue turned none of it away.
fn beside_the_queue(burst: &Burst, server: &Server) -> Option<Verdict> {
    let syn_queue = server.counters.filter(|c| c.req_q_full_drop > 0);
    let overflows = server.counters.map_or(0, |counters| counters.listen_overflows);
    if let Some(counters) = syn_queue
        && overflows == 0
    {
        let full = plural(counters.req_q_full_drop, "time");
        let summary = format!(
            "The SYN queue was full {full}, while the accept queue had room; {} of the \
             burst did not get in at once.",
            count(burst.lost())
        );
        let mut verdict = verdict(Code::ServerSynQueue, Confidence::Likely, summary);
        verdict.remedy.push("sudo sysctl -w net.ipv4.tcp_syncookies=1".into());
        return Some(verdict);
    }
    let none_dropped = burst.drops == Some(0) && overflows == 0;
    (none_dropped && !was_full(burst, server) && !server.is_unix).then(|| {
        let summary = format!(
            "{} of the burst did not get in at once, and the listener dropped none: \
             something before it did.",
            count(burst.lost())
        );
        verdict(Code::PathLimitsNew, Confidence::Possible, summary)
    })
}

/// The queue drains, and the burst was deeper than it.
fn overflowing(burst: &Burst, server: &Server) -> Judgement {
    let queued = burst.queued_before.unwrap_or(0);
    let wanted = (queued + burst.dialed).saturating_sub(1);
    let drain = burst.drain().filter(|drain| drain.per_s > 0.0);
    let pace = drain.map_or(String::new(), |drain| {
        let more = if drain.at_least { " or more" } else { "" };
        format!(", which drains at {}{more}", rate(drain.per_s))
    });
    let summary = format!(
        "A burst of {} overflows the accept queue{pace}; a backlog of {} would have held \
         it.",
        count(burst.dialed),
        count(wanted)
    );
    let in_sight = burst.backlog.is_some();
    let sure = if in_sight { certain() } else { Confidence::Likely };
    let mut verdict = verdict(Code::ServerSlowAccept, sure, summary);
    verdict.evidence = facts(burst);
    let raised = wanted.next_power_of_two();
    if let Some(most) = server.somaxconn.filter(|most| *most < raised) {
        let raise = remedy::sysctl("net.core.somaxconn", &raised.to_string());
        verdict.remedy.push(remedy::noted(&raise.typed(), "it takes effect at listen()"));
        verdict.evidence.push(fact("net.core.somaxconn", count(most), "sysctl"));
    }
    if server.aborts {
        let value = "1: what completes its handshake too late is reset".to_owned();
        verdict.evidence.push(fact("net.ipv4.tcp_abort_on_overflow", value, "sysctl"));
    }
    match &server.comm {
        Some(comm) => {
            let told = remedies::for_server(Some(comm), server.port, raised);
            verdict.remedy.push(remedy::advised(told));
        }
        None => {
            let common = remedies::for_common(server.port, raised);
            verdict.remedy.extend(common.into_iter().map(remedy::advised));
        }
    }
    if !in_sight {
        let decides = "the same burst from the server's own host";
        verdict.alternatives.push(or(Code::PathLimitsNew, decides));
    }
    Judgement { verdict, backlog_needed: Some(wanted) }
}

fn nobody_accepts(burst: &Burst) -> Verdict {
    let (depth, _) = burst.depth();
    let in_sight = burst.backlog.is_some();
    let meanwhile = match in_sight {
        true => ", and nothing was accepted meanwhile",
        false => "; nothing shows from here that any was accepted meanwhile",
    };
    let (took, dialed) = (count(depth), count(burst.dialed));
    let summary = format!("The queue took {took} of a burst of {dialed}{meanwhile}.");
    let sure = if in_sight { certain() } else { Confidence::Possible };
    let mut verdict = verdict(Code::ServerAcceptQueue, sure, summary);
    let pid = burst.processes.first().map_or("PID".to_owned(), |p| p.pid.to_string());
    verdict.remedy.push(waits_for(&pid));
    if !in_sight {
        let decides = "whether it accepts later: a longer --for";
        verdict.alternatives.push(or(Code::ServerSlowAccept, decides));
        let decides = "the same burst from the server's own host";
        verdict.alternatives.push(or(Code::PathLimitsNew, decides));
    }
    verdict
}

fn fact(fact: &str, value: String, source: &str) -> Fact {
    Fact { fact: fact.to_owned(), value, source: source.to_owned() }
}

fn facts(burst: &Burst) -> Vec<Fact> {
    let at_once = format!("{} of {}", count(burst.at_once), count(burst.dialed));
    let mut facts = vec![fact("established at once", at_once, "this burst")];
    if let Some((backlog, admits)) = burst.backlog {
        let value = format!("{}, admits {}", count(backlog), count(admits));
        facts.push(fact("effective backlog", value, "sock_diag"));
    }
    if let Some(queued) = burst.queued_before.filter(|queued| *queued > 0) {
        facts.push(fact("queued before the first dial", count(queued), "sock_diag"));
    }
    if let Some(drops) = burst.drops.filter(|drops| *drops > 0) {
        facts.push(fact("dropped at this listener", count(drops), "SK_MEMINFO_DROPS"));
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
    use crate::backlog::find::Try;
    use crate::verdict::ServerCounts;
    use std::time::Duration;

    fn overflowing() -> Burst {
        let look = |ms, len| QueueLook {
            at: Duration::from_millis(ms),
            len,
            established: 129,
            established_after: 129,
            ..QueueLook::default()
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

    fn of(comm: &str, somaxconn: u64) -> Server {
        Server {
            port: Some(80),
            comm: Some(comm.to_owned()),
            somaxconn: Some(somaxconn),
            ..Server::default()
        }
    }

    fn code(burst: &Burst, server: &Server) -> String {
        let verdict = judge(burst, server).verdict;
        for line in &verdict.remedy {
            assert_eq!(remedy::unpasteable(line), None);
        }
        verdict.code
    }

    #[test]
    fn a_queue_that_drains_is_slow_and_the_backlog_that_would_do_is_named() {
        let judged = judge(&overflowing(), &of("redis-server", 4096));
        let verdict = judged.verdict;
        assert_eq!(verdict.code, "server.slow_accept");
        assert_eq!(verdict.confidence, Confidence::Certain);
        assert!(verdict.summary.contains("drains at 100/s"), "{}", verdict.summary);
        assert_eq!(judged.backlog_needed, Some(299));
        assert_eq!(verdict.remedy, ["# tcp-backlog 512, then restart it"]);
        let behind_others = Burst { queued_before: Some(7), ..overflowing() };
        let judged = judge(&behind_others, &of("redis-server", 4096));
        assert_eq!(judged.backlog_needed, Some(306));
    }

    #[test]
    fn one_that_drains_too_fast_for_a_rate_is_slow_all_the_same() {
        let counts = ServerCounts { accepted: 129, ..ServerCounts::default() };
        let burst = Burst { queue: Vec::new(), server: Some(counts), ..overflowing() };
        assert_eq!(code(&burst, &of("nginx", 4096)), "server.slow_accept");
    }

    #[test]
    fn of_an_unknown_server_the_common_ones_are_named() {
        let unseen =
            Burst { backlog: None, delayed: [(1000, 50)].into(), ..overflowing() };
        let verdict =
            judge(&unseen, &Server { port: Some(80), ..Server::default() }).verdict;
        assert_eq!(verdict.confidence, Confidence::Likely);
        for name in ["nginx", "Redis", "HAProxy", "Node", "Java", "Python", "Go"] {
            let named =
                verdict.remedy.iter().any(|line| line.starts_with(&format!("# {name}")));
            assert!(named, "{name}: {:?}", verdict.remedy);
        }
    }

    #[test]
    fn somaxconn_comes_first_where_it_is_lower() {
        let verdict = judge(&overflowing(), &of("nginx", 128)).verdict;
        let first =
            "sudo sysctl -w net.core.somaxconn=512  # it takes effect at listen()";
        assert_eq!(verdict.remedy[0], first);
    }

    #[test]
    fn a_queue_that_does_not_drain_is_no_slow_one() {
        let mut burst = overflowing();
        burst.queue.iter_mut().for_each(|look| look.len = 129);
        assert_eq!(code(&burst, &of("nginx", 4096)), "server.accept_queue");
        // Full before the first dial.
        let burst = Burst { at_once: 0, never: 300, ..burst };
        assert_eq!(code(&burst, &of("nginx", 4096)), "server.accept_queue");
    }

    fn process(pid: u32, state: char, open_fds: u64) -> ProcessView {
        ProcessView {
            pid,
            tid: pid,
            comm: "nginx".into(),
            state,
            uid: 0,
            threads: 1,
            nofile_soft: Some(1024),
            nofile_hard: Some(4096),
            open_fds: Some(open_fds),
            started: 1,
        }
    }

    #[test]
    fn a_server_that_cannot_accept_is_not_slow() {
        let stopped = vec![process(7, 'T', 9), process(8, 'T', 9)];
        let burst = Burst { processes: stopped, ..overflowing() };
        let verdict = judge(&burst, &of("nginx", 4096)).verdict;
        assert_eq!(verdict.code, "server.stopped");
        assert_eq!(verdict.remedy, ["kill -CONT 7 8"]);
        let one_runs = vec![process(7, 'T', 9), process(8, 'S', 9)];
        let burst = Burst { processes: one_runs, ..burst };
        assert_eq!(code(&burst, &of("nginx", 4096)), "server.slow_accept");
        let at_limit = vec![process(7, 'S', 1024)];
        let burst = Burst { processes: at_limit, ..burst };
        assert_eq!(code(&burst, &of("nginx", 4096)), "server.fd_limit");
    }

    #[test]
    fn what_the_accept_queue_did_not_turn_away_is_not_its_fault() {
        let mut burst = Burst { drops: Some(0), ..overflowing() };
        burst.queue.iter_mut().for_each(|look| look.len = 3);
        assert_eq!(code(&burst, &of("nginx", 4096)), "path.limits_new");
        let resets =
            Burst { reset: 171, never: 0, at_once: 300, lost_at_once: 171, ..burst };
        assert_eq!(code(&resets, &of("nginx", 4096)), "server.resets_new");
        let counters = Counters { req_q_full_drop: 9, ..Counters::default() };
        let server = Server { counters: Some(counters), ..of("nginx", 4096) };
        let dropped = Burst { drops: Some(171), reset: 0, never: 171, ..resets };
        assert_eq!(code(&dropped, &server), "server.syn_queue");
    }

    #[test]
    fn of_a_search_from_afar_later_bursts_show_that_the_queue_drains() {
        let one = |dialed, lost| Try { dialed, lost, drained_in: None };
        let unseen = Burst { backlog: None, queue: Vec::new(), ..overflowing() };
        let search = |tries: &[Try]| Search {
            deepest: Some(129),
            end: SearchEnd::Found,
            tries: tries.to_vec(),
            queued_before: None,
            overflowed: Some(unseen.clone()),
        };
        let drains = search(&[one(128, 0), one(256, 127), one(192, 63)]);
        let verdict = judge_search(&drains, &Server::default()).verdict;
        assert_eq!(verdict.code, "server.slow_accept");
        let said = "Bursts of up to 129 lost nothing. A burst of 300 overflows";
        assert!(verdict.summary.starts_with(said), "{}", verdict.summary);
        let stuck = search(&[one(128, 0), one(256, 256)]);
        let verdict = judge_search(&stuck, &Server::default()).verdict;
        assert_eq!(verdict.code, "server.accept_queue");
    }

    #[test]
    fn nothing_lost_is_no_limit() {
        let burst = Burst { dialed: 9, at_once: 9, ..Burst::default() };
        assert_eq!(code(&burst, &Server::default()), "requested");
        let cut_short = Burst { interrupted: true, ..overflowing() };
        assert_eq!(code(&cut_short, &Server::default()), "interrupted");
    }

    #[test]
    fn no_answer_at_all_is_no_queue() {
        let nowhere = Server::default();
        let silent = Burst { dialed: 9, never: 9, ..Burst::default() };
        assert_eq!(code(&silent, &nowhere), "path.filtered");
        let refused = Burst { dialed: 9, refused: 9, ..Burst::default() };
        assert_eq!(code(&refused, &nowhere), "server.not_listening");
        let listens = Burst { backlog: Some((5, 6)), ..refused };
        assert_eq!(code(&listens, &nowhere), "path.rejected");
    }
}
