//! Whether an accept queue turned connections away, and why: from what was seen of it.

use super::observe::{EndedBy, Member, Observation};
use super::remedies;
use crate::host::process::ProcessView;
use crate::host::remedy;
use crate::record::{Alternative, Confidence, Fact, Verdict};
use crate::render::{count, escaped, plural, rate};
use crate::verdict::Code;

/// A queue that was full for more than this part of the time is no matter of bursts.
const FULL_MOSTLY: f64 = 0.5;
/// Bursts that went on for longer hold SYNs that were sent again (TCP_TIMEOUT_INIT).
const RESENT_AFTER_S: f64 = 1.0;

/// What tells a slow server from one that is busy with something else.
const HELD_UP: &str =
    "whether other work holds up accept() meanwhile: the server's own log";

/// What is said of a watch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Judgement {
    /// The verdict, with evidence and remedies.
    pub verdict: Verdict,
    /// A backlog that would have held what came.
    pub backlog_needed: Option<u64>,
}

/// Judges a watch.
#[must_use]
pub fn judge(o: &Observation) -> Judgement {
    let stopped = stopped(o).or_else(|| fd_limit(o)).or_else(|| died(o));
    if let Some(verdict) = stopped {
        return Judgement { verdict, backlog_needed: None };
    }
    overflowing(o)
        .or_else(|| syn_queue(o).map(without_number))
        .or_else(|| full_without_drops(o).map(without_number))
        .unwrap_or_else(|| without_number(nothing(o)))
}

fn without_number(verdict: Verdict) -> Judgement {
    Judgement { verdict, backlog_needed: None }
}

fn verdict(code: Code, confidence: Confidence, summary: String) -> Verdict {
    let code = code.as_str().to_owned();
    Verdict { code, confidence, summary, ..Verdict::default() }
}

fn fact(fact: impl Into<String>, value: impl Into<String>, source: &str) -> Fact {
    Fact { fact: fact.into(), value: value.into(), source: source.to_owned() }
}

fn or(code: Code, decides: &str) -> Alternative {
    Alternative { code: code.as_str().to_owned(), decides: decides.to_owned() }
}

fn named(process: &ProcessView) -> String {
    format!("{}[{}]", escaped(&process.comm), process.pid)
}

/// The queue as evidence.
fn queue_facts(o: &Observation) -> Vec<Fact> {
    let source = if o.is_unix() { "unix_diag" } else { "sock_diag" };
    let Some(worst) = worst(o) else { return Vec::new() };
    let admits = u64::from(worst.listener.backlog) + 1;
    let peak =
        format!("at least {} of {}", count(worst.gauge.peak().into()), count(admits));
    let mut facts = vec![fact("peak of the accept queue", peak, source)];
    let full: f64 = full_s(o);
    if full > 0.0 {
        facts.push(fact("full for", format!("{full:.3} s"), source));
    }
    if o.drops() > 0 {
        let drops = count(o.drops());
        facts.push(fact("dropped at this listener", drops, "SK_MEMINFO_DROPS"));
    }
    if let Some(totals) = o.totals
        && totals.counters.listen_overflows > 0
    {
        let grew = format!("+{}", count(totals.counters.listen_overflows));
        let source = "/proc/net/netstat, all listeners of the namespace";
        facts.push(fact("ListenOverflows", grew, source));
    }
    facts
}

/// The member that dropped the most, or had the fullest queue.
fn worst(o: &Observation) -> Option<&Member> {
    let fill = |m: &Member| {
        let admits = u64::from(m.listener.backlog) + 1;
        u64::from(m.gauge.peak()) * 1000 / admits
    };
    o.members.iter().max_by_key(|m| (m.gauge.drops(), fill(m)))
}

/// How long the member that was full for the longest was.
fn full_s(o: &Observation) -> f64 {
    o.members.iter().map(|m| m.gauge.full_for().as_secs_f64()).fold(0.0, f64::max)
}

fn stopped(o: &Observation) -> Option<Verdict> {
    let mut verdict = stopped_processes(&o.processes).filter(|_| o.stopped)?;
    verdict.evidence.extend(queue_facts(o));
    Some(verdict)
}

/// What is said of a server whose processes, these, are all stopped.
pub(super) fn stopped_processes(processes: &[ProcessView]) -> Option<Verdict> {
    let first = processes.first()?;
    let summary = format!(
        "The server's process {} is stopped; it accepts nothing until it goes on.",
        named(first)
    );
    let mut verdict = verdict(Code::ServerStopped, Confidence::Certain, summary);
    for one in processes {
        let word = if one.state == 't' { "t (traced)" } else { "T (stopped)" };
        let source = format!("/proc/{}/stat", one.pid);
        verdict.evidence.push(fact(format!("state of pid {}", one.pid), word, &source));
    }
    let mut pids: Vec<String> = processes.iter().map(|p| p.pid.to_string()).collect();
    pids.dedup();
    verdict.remedy.push(format!("kill -CONT {}", pids.join(" ")));
    Some(verdict)
}

fn fd_limit(o: &Observation) -> Option<Verdict> {
    let mut verdict = at_fd_limit(o.at_fd_limit.as_ref()?)?;
    verdict.evidence.extend(queue_facts(o));
    Some(verdict)
}

/// Whether a process has opened all descriptors that it may, and what is said of that.
pub(super) fn at_fd_limit(process: &ProcessView) -> Option<Verdict> {
    let (open, limit) = (process.open_fds?, process.nofile_soft?);
    if open < limit {
        return None;
    }
    let summary = format!(
        "The server {} has opened all {} descriptors it may; accept() can only fail \
         with EMFILE.",
        named(process),
        count(limit)
    );
    let mut verdict = verdict(Code::ServerFdLimit, Confidence::Certain, summary);
    let (pid, value) = (process.pid, format!("{} of {}", count(open), count(limit)));
    let source = format!("/proc/{pid}/fd, /proc/{pid}/limits");
    verdict.evidence.push(fact(format!("open fds of pid {pid}"), value, &source));
    let hard = process.nofile_hard.unwrap_or(0);
    let to = match hard {
        hard if hard > limit && hard <= 1 << 30 => hard,
        _ => remedy::raised(limit, 0, None),
    };
    let raise = remedy::nofile_of(pid, to, hard, None);
    verdict.remedy.push(raise.typed());
    let for_good = format!("for good: {} in its unit", raise.persistent);
    verdict.remedy.push(remedy::advised(for_good));
    Some(verdict)
}

fn died(o: &Observation) -> Option<Verdict> {
    (!o.still_listens()).then(|| {
        let at =
            o.members.first().map_or_else(String::new, |m| m.listener.at.to_string());
        let summary = format!("{at} stopped listening while it was watched.");
        let mut verdict = verdict(Code::ServerDied, Confidence::Certain, summary);
        let source = if o.is_unix() { "unix_diag" } else { "sock_diag" };
        verdict.evidence.push(fact("LISTEN socket", "gone", source));
        verdict.evidence.extend(queue_facts(o));
        verdict.remedy.push(remedy::advised("see why it ended: journalctl, dmesg"));
        verdict
    })
}

/// Connections were turned away by a full queue.
fn overflowing(o: &Observation) -> Option<Judgement> {
    let member = worst(o).filter(|m| m.gauge.drops() > 0 && o.overflowed)?;
    // One that ended at the first overflow had no time to see the queue drain.
    if !drains(o) && o.ended_by != EndedBy::Overflow {
        return Some(without_number(nobody_accepts(o)));
    }
    let (seconds, full) = (o.lasted.as_secs_f64().max(1e-3), full_s(o));
    if full > FULL_MOSTLY * seconds && drains(o) {
        let summary = format!(
            "More dials come than the server accepts ({} or more): its queue was full for {:.0} % \
             of the time, and no backlog would hold them.",
            pace(o),
            100.0 * full / seconds
        );
        let mut verdict = verdict(Code::ServerSlowAccept, Confidence::Likely, summary);
        verdict.evidence = queue_facts(o);
        verdict.remedy = faster();
        let decides = "whether it accepts at all for long: --for 1m";
        verdict.alternatives.push(or(Code::ServerAcceptQueue, decides));
        return Some(without_number(verdict));
    }
    Some(bursts(o, member))
}

/// Whether anything was accepted, as far as that is known.
fn drains(o: &Observation) -> bool {
    let alone = o.totals.is_some_and(|totals| totals.other_listeners == 0);
    o.members.iter().any(|member| member.gauge.left() > 0)
        || (alone && o.accepts_at_most().is_some_and(|most| most > 0.0))
}

/// `1,210/s` at the least, while connections wait: what it accepts when it has work.
fn pace(o: &Observation) -> String {
    rate(o.drains_per_s().unwrap_or(0.0))
}

fn faster() -> Vec<String> {
    vec![
        remedy::advised(
            "accept in a loop until EAGAIN, and let other threads do the work",
        ),
        remedy::advised("several listeners: SO_REUSEPORT, one for each thread"),
    ]
}

/// Bursts run over a queue that drains: a deeper one would have held them.
fn bursts(o: &Observation, member: &Member) -> Judgement {
    let (backlog, burst) = (u64::from(member.listener.backlog), member.gauge.worst());
    let needed = backlog + burst.drops;
    let raised = needed.next_power_of_two();
    let resent = burst.lasted.as_secs_f64() > RESENT_AFTER_S;
    let less =
        if resent { " (SYNs sent again are counted again: less may do)" } else { "" };
    let (confidence, draining) = match drains(o) {
        true => {
            (Confidence::Likely, format!("a queue that drains at {} or more", pace(o)))
        }
        false => (Confidence::Possible, "the queue, not seen to drain yet".to_owned()),
    };
    let summary = format!(
        "Bursts outrun accept(): up to {} of one did not fit {draining}; a backlog of {} \
         would have held it{less}.",
        count(burst.drops),
        count(needed),
    );
    let mut verdict = verdict(Code::ServerSlowAccept, confidence, summary);
    verdict.evidence = queue_facts(o);
    verdict.evidence.push(fact(
        "effective backlog",
        count(backlog),
        "sock_diag: min(backlog, somaxconn)",
    ));
    let somaxconn = o.sysctls.get("net.core.somaxconn").copied().flatten();
    let comm = o.processes.first().map(|process| process.comm.as_str());
    let told = remedies::for_server(comm, member.listener.port(), raised);
    let bound = somaxconn.filter(|most| *most < raised);
    if let Some(most) = bound {
        let is_cut = backlog == most;
        let cut = if is_cut { " (it may ask for more already)" } else { "" };
        verdict.evidence.push(fact(
            "net.core.somaxconn",
            format!("{}{cut}", count(most)),
            "sysctl",
        ));
        let raise = remedy::sysctl("net.core.somaxconn", &raised.to_string());
        verdict.remedy.push(remedy::noted(&raise.typed(), "it takes effect at listen()"));
    }
    verdict.remedy.push(remedy::advised(told));
    if o.sysctls.get("net.ipv4.tcp_abort_on_overflow") == Some(&Some(1)) {
        let value = "1: what completes its handshake too late is reset";
        verdict.evidence.push(fact("net.ipv4.tcp_abort_on_overflow", value, "sysctl"));
    }
    verdict.alternatives.push(or(Code::ServerAcceptQueue, HELD_UP));
    Judgement { verdict, backlog_needed: Some(needed) }
}

/// What shows in which system call a process sleeps.
pub(super) fn waits_for(pid: &str) -> String {
    format!("sudo cat /proc/{pid}/stack /proc/{pid}/wchan  # see what it waits for")
}

fn nobody_accepts(o: &Observation) -> Verdict {
    let summary = "The accept queue is full and nothing left it: nobody accepts.".into();
    let mut verdict = verdict(Code::ServerAcceptQueue, Confidence::Likely, summary);
    verdict.evidence = queue_facts(o);
    let decides = "whether it accepts from time to time: --for 1m";
    verdict.alternatives.push(or(Code::ServerSlowAccept, decides));
    let pid = o.processes.first().map_or("PID".to_owned(), |p| p.pid.to_string());
    verdict.remedy.push(waits_for(&pid));
    verdict
}

/// Dropped, and not by a full accept queue.
fn syn_queue(o: &Observation) -> Option<Verdict> {
    let totals = o.totals.filter(|t| t.counters.req_q_full_drop > 0)?;
    (o.drops() > 0).then(|| {
        let summary = format!(
            "The SYN queue was full {}, while the accept queue had room.",
            plural(totals.counters.req_q_full_drop, "time")
        );
        let mut verdict = verdict(Code::ServerSynQueue, Confidence::Likely, summary);
        let (dropped, source) =
            (count(totals.counters.req_q_full_drop), "/proc/net/netstat, all listeners");
        verdict.evidence = queue_facts(o);
        verdict.evidence.push(fact("TCPReqQFullDrop", format!("+{dropped}"), source));
        for name in ["net.ipv4.tcp_max_syn_backlog", "net.ipv4.tcp_syncookies"] {
            if let Some(value) = o.sysctls.get(name).copied().flatten() {
                verdict.evidence.push(fact(name, count(value), "sysctl"));
            }
        }
        verdict.remedy.push("sudo sysctl -w net.ipv4.tcp_syncookies=1".into());
        verdict
    })
}

/// A queue that was full, and nothing was dropped (yet), or of a unix socket.
fn full_without_drops(o: &Observation) -> Option<Verdict> {
    let full = full_s(o);
    if full == 0.0 {
        return None;
    }
    if !drains(o) && full > FULL_MOSTLY * o.lasted.as_secs_f64() {
        return Some(nobody_accepts(o));
    }
    let turned_away = if o.is_unix() {
        "a dial that does not wait got EAGAIN then"
    } else {
        "nothing was turned away"
    };
    let summary = format!("The accept queue was full for {full:.3} s; {turned_away}.");
    let mut verdict = verdict(Code::ServerSlowAccept, Confidence::Possible, summary);
    verdict.evidence = queue_facts(o);
    verdict.remedy = faster();
    verdict.alternatives.push(or(Code::ServerAcceptQueue, HELD_UP));
    Some(verdict)
}

fn nothing(o: &Observation) -> Verdict {
    let code = match o.ended_by {
        EndedBy::Interrupted => Code::Interrupted,
        EndedBy::Time | EndedBy::Overflow => Code::Requested,
    };
    let summary = match o.drops() {
        0 => "Nothing was turned away while it was watched.".to_owned(),
        n => format!(
            "{} dropped at this listener, none of them for a full queue.",
            plural(n, "packet")
        ),
    };
    let mut verdict = verdict(code, Confidence::Certain, summary);
    verdict.evidence = queue_facts(o);
    verdict
}

#[cfg(test)]
mod tests {
    use super::super::gauge::{Gauge, Reading};
    use super::super::namespace::Totals;
    use super::*;
    use crate::record::backlog::Counters;
    use crate::sockets::listeners::{ListenAt, Listener};
    use crate::sockets::model::{Cookie, Inode};
    use std::time::Duration;

    /// A watch of one listener with a backlog of 9: (ms, queue, drops) each.
    fn watched(readings: &[(u64, u32, u32)], totals: Totals) -> Observation {
        let mut gauge = Gauge::new();
        let (mut last, mut lasted) = (0, Duration::ZERO);
        for &(ms, queue_len, drops) in readings {
            (last, lasted) = (queue_len, Duration::from_millis(ms));
            gauge.take(lasted, Reading { queue_len, backlog: 9, drops });
        }
        let listener = Listener {
            at: ListenAt::Inet("127.0.0.1:7000".parse().unwrap()),
            backlog: 9,
            queue_len: last,
            drops: 0,
            inode: Inode(1),
            cookie: Cookie(1),
            uid: 0,
            v6_only: false,
            interface: 0,
        };
        Observation {
            lasted,
            samples: readings.len() as u64,
            longest_gap: Duration::ZERO,
            cpu: Duration::ZERO,
            ended_by: EndedBy::Time,
            overflowed: totals.counters.listen_overflows > 0,
            members: vec![Member { listener, gauge, is_there: true }],
            owners: Vec::new(),
            hidden_owner: None,
            processes: Vec::new(),
            stopped: false,
            at_fd_limit: None,
            totals: Some(totals),
            sysctls: [("net.core.somaxconn".to_owned(), Some(4096))].into(),
            syn_recv: None,
        }
    }

    fn overflows(listen_overflows: u64, passive_opens: u64) -> Totals {
        let counters =
            Counters { listen_overflows, passive_opens, ..Counters::default() };
        Totals { counters, ..Totals::default() }
    }

    fn judged(o: &Observation) -> (String, Confidence, Option<u64>) {
        let Judgement { verdict, backlog_needed } = judge(o);
        for line in &verdict.remedy {
            assert_eq!(remedy::unpasteable(line), None);
        }
        (verdict.code, verdict.confidence, backlog_needed)
    }

    const BURST: [(u64, u32, u32); 4] = [(0, 0, 0), (10, 10, 5), (20, 2, 5), (999, 0, 5)];

    #[test]
    fn a_burst_that_did_not_fit_gives_the_backlog_that_would_have_held_it() {
        let o = watched(&BURST, overflows(5, 10));
        // 8 left within the first 10 ms of waiting, 2 within the rest.
        let summary = judge(&o).verdict.summary;
        assert!(summary.contains("drains at 10/s or more"), "{summary}");
        let judged = judged(&o);
        assert_eq!(judged, ("server.slow_accept".into(), Confidence::Likely, Some(14)));
    }

    #[test]
    fn where_somaxconn_is_lower_it_is_raised_before_the_backlog() {
        let mut o = watched(&BURST, overflows(5, 10));
        o.sysctls = [("net.core.somaxconn".to_owned(), Some(9))].into();
        let remedy = judge(&o).verdict.remedy;
        assert!(
            remedy[0].starts_with("sudo sysctl -w net.core.somaxconn=16  # "),
            "{remedy:?}"
        );
        assert!(remedy[1].starts_with("# listen(fd, 16)"), "{remedy:?}");
    }

    #[test]
    fn more_than_it_accepts_for_most_of_the_time_is_no_matter_of_backlog() {
        let all = [(0, 10, 0), (500, 9, 40), (501, 10, 90), (1000, 10, 130)];
        let (code, _, needed) = judged(&watched(&all, overflows(130, 300)));
        assert_eq!((code.as_str(), needed), ("server.slow_accept", None));
    }

    #[test]
    fn a_queue_that_nothing_leaves_is_not_slow() {
        let all = [(0, 0, 0), (900, 10, 5), (1000, 10, 9)];
        let mut o = watched(&all, Totals { queue_growth: 10, ..overflows(9, 10) });
        assert_eq!(judged(&o).0, "server.accept_queue");
        // At the first overflow that cannot be known yet.
        o.ended_by = EndedBy::Overflow;
        let expected = ("server.slow_accept".into(), Confidence::Possible, Some(18));
        assert_eq!(judged(&o), expected);
    }

    #[test]
    fn drops_without_an_overflow_are_not_blamed_on_the_accept_queue() {
        let all = [(0, 1, 0), (500, 2, 7), (1000, 0, 7)];
        let o = watched(&all, Totals::default());
        let verdict = judge(&o).verdict;
        assert_eq!(verdict.code, "requested");
        assert!(verdict.summary.starts_with("7 packets dropped"), "{}", verdict.summary);
        let counters = Counters { req_q_full_drop: 7, ..Counters::default() };
        let o = watched(&all, Totals { counters, ..Totals::default() });
        assert_eq!(judged(&o).0, "server.syn_queue");
    }
}
