//! Limits of the server, and what its process does.

use super::make::Draft;
use super::{
    Code, Evidence, ListenerSeen, OwnerSeen, ServerCounts, Stop, Tally, decide,
    turned_away,
};
use crate::host::ceilings::{FILE_MAX, NOFILE_HARD, NOFILE_SOFT};
use crate::host::process::{ProcessView, UNLIMITED};
use crate::host::remedy;
use crate::record::Level;
use crate::render::{count, escaped, plural, rate, shell_word};

/// `pid 4711`, or `pid 4711 thread 4715` for a table of a thread's own.
pub(super) fn who(process: &ProcessView) -> String {
    if process.tid == process.pid {
        format!("pid {}", process.pid)
    } else {
        format!("pid {} thread {}", process.pid, process.tid)
    }
}

/// `node[4711]`, as tables of processes write it.
pub(super) fn named(process: &ProcessView) -> String {
    format!("{}[{}]", escaped(&process.comm), process.pid)
}

/// Every process that holds the listener is stopped (SIGSTOP, a debugger).
pub(super) fn stopped(t: &Tally, e: &Evidence) -> Option<Draft> {
    let is_stopped = |o: &OwnerSeen| matches!(o.process.state, 'T' | 't');
    let showed = t.stop == Stop::Plateau || t.forgotten > 0;
    if !showed || e.owners.is_empty() || !e.owners.iter().all(is_stopped) {
        return None;
    }
    let first = &e.owners[0].process;
    let summary = format!(
        "The server's process {} is stopped; it accepts nothing until it goes on.",
        named(first)
    );
    let mut draft = Draft::certain(Code::ServerStopped, summary);
    for owner in &e.owners {
        let (pid, state) = (owner.process.pid, owner.process.state);
        let word = if state == 't' { "t (traced)" } else { "T (stopped)" };
        draft = draft.seen(
            e,
            format!("state of {}", who(&owner.process)),
            word,
            format!("/proc/{pid}/stat"),
        );
    }
    let pids: Vec<String> = e.owners.iter().map(|o| o.process.pid.to_string()).collect();
    let resume = e.type_there(format!("kill -CONT {}", pids.join(" ")));
    Some(draft.queue_facts(t, e).remedy(resume))
}

/// An owner of the listener has opened all the descriptors that it may.
pub(super) fn fd_limit(t: &Tally, e: &Evidence) -> Option<Draft> {
    let listener = e.listener.as_ref()?;
    let full = |p: &ProcessView| match (p.open_fds, p.nofile_soft) {
        (Some(open), Some(limit)) => (open >= limit).then_some((open, limit)),
        _ => None,
    };
    let (process, (open, limit)) =
        e.owners.iter().find_map(|o| Some((&o.process, full(&o.process)?)))?;
    let limited = t.stop == Stop::Plateau || t.stop == Stop::Losing;
    if !limited {
        return None;
    }
    let pid = process.pid;
    let summary = format!(
        "The server has opened all {} descriptors it may; accept() can only fail with \
         EMFILE.",
        count(limit)
    );
    let draft = if listener.queue_len > 0 {
        Draft::certain(Code::ServerFdLimit, summary)
    } else {
        let closes = "the server closes them for a reason of its own: its log";
        Draft::likely(Code::ServerFdLimit, summary).or(Code::ServerClosesNew, closes)
    };
    let raised = raised_limit(process, limit);
    let draft = draft
        .seen(
            e,
            format!("open fds of {}", who(process)),
            format!("{} of {}", count(open), count(limit)),
            format!("/proc/{pid}/fd, /proc/{pid}/limits"),
        )
        .queue_facts(t, e);
    let may = process.nofile_hard.is_some_and(|hard| hard >= raised)
        || t.client.may_raise && e.remote.is_none();
    let by = if may { "" } else { "sudo " };
    // The full tables are those that it accepts into; the remedy raises one process's.
    let tables = e.owners.iter().filter_map(|o| Some((o.process.pid, full(&o.process)?)));
    let (open_in_all, room) =
        tables.fold((0, 0_u64), |(open, room), (of, (n, limit))| {
            (open + n, room.saturating_add(if of == pid { raised } else { limit }))
        });
    let overhead = open_in_all.saturating_sub(accepted(t, listener));
    let raise = format!("{by}prlimit --pid {pid} --nofile={raised}:{raised}");
    Some(
        draft
            .remedy(e.type_there(raise))
            .advice(format_args!("for good: LimitNOFILE={raised} in its unit"))
            .raises(Some(room.saturating_sub(overhead)), &[NOFILE_SOFT, NOFILE_HARD]),
    )
}

/// What the application took, as far as it was counted or can be told.
fn accepted(t: &Tally, listener: &ListenerSeen) -> u64 {
    t.server.map_or(t.held.saturating_sub(listener.queue_len), |s| s.accepted)
}

/// What to raise a descriptor limit to: its hard limit where that helps, else 65,536 or
/// four times what it is.
fn raised_limit(process: &ProcessView, limit: u64) -> u64 {
    match process.nofile_hard {
        Some(hard) if hard >= limit.saturating_mul(2) && hard <= 1 << 30 => hard,
        _ if limit < 32_768 => 65_536,
        _ => limit.saturating_mul(4),
    }
}

/// fs.file-max holds the server back: accept() fails with ENFILE.
pub(super) fn file_max(t: &Tally, e: &Evidence) -> Option<Draft> {
    let (open, max) = e.server_file_nr()?;
    let waits = e.listener.as_ref().is_some_and(|l| l.queue_len > 0);
    (waits && open >= max && t.stop == Stop::Plateau).then(|| {
        let summary = "The host has opened all files that fs.file-max allows; the \
                       server's accept() can only fail with ENFILE.";
        Draft::certain(Code::ServerFileMax, summary.into())
            .seen(
                e,
                "open files of that host",
                format!("{} of {}", count(open), count(max)),
                "/proc/sys/fs/file-nr",
            )
            .queue_facts(t, e)
            .remedy(decide::as_root_there(
                t,
                e,
                &format!("sysctl -w fs.file-max={}", max * 2),
            ))
            .raises(Some(max * 2), &[FILE_MAX])
    })
}

/// The listener waits for a first byte (TCP_DEFER_ACCEPT) that is never sent.
pub(super) fn deferred(t: &Tally, e: &Evidence) -> Option<Draft> {
    let remedies = [
        "send it one: --send TEXT --expect TEXT, or http://… as the target",
        "or TCP_DEFER_ACCEPT (`deferred` in nginx, AcceptFilter in Apache) off",
    ]
    .map(remedy::advised);
    if t.deferred > t.held {
        let waiting = plural(t.deferred, "connection");
        let summary = format!(
            "The listener defers: {waiting} wait for a first byte, and the application \
             sees none of them."
        );
        let seen = "SYN-ACKs repeated, of the first dials too, each made alone";
        return Some(
            Draft::likely(Code::ServerUnserved, summary)
                .fact("waiting for a byte", count(t.deferred), seen)
                .or(Code::ServerAcceptQueue, decide::queue(t))
                .remedies(remedies),
        );
    }
    // What it has handed on by the end of the hold is served as well as any other.
    let waits = |s: &ServerCounts| s.deferred > 0 && s.deferred >= s.accepted + s.queued;
    let s = t.server.filter(waits)?;
    let most = t.server_after.as_ref().is_none_or(waits);
    (most && t.stop != Stop::TimeLimit).then(|| {
        let summary = format!(
            "The listener defers: {} wait in SYN_RECV for a first byte, and the \
             application sees none of them.",
            plural(s.deferred, "connection")
        );
        Draft::certain(Code::ServerUnserved, summary)
            .seen(e, "in SYN_RECV", count(s.deferred), "sock_diag")
            .remedies(remedies)
    })
}

/// The queue is full, or overflows, and yet accepts go on.
pub(super) fn slow_accept(t: &Tally, e: &Evidence) -> Option<Draft> {
    let Some(listener) = &e.listener else { return slow_from_outside(t, e) };
    let later = t
        .server
        .zip(t.server_after)
        .map_or(0, |(then, after)| after.accepted.saturating_sub(then.accepted));
    let goes_on = match t.stop {
        Stop::TimeLimit => t.growth_per_s > 0.0,
        Stop::Plateau => later > 0 && t.hold_s > 0.0,
        _ => false,
    };
    let nearly_full = listener.queue_len * 10 >= listener.backlog * 9;
    // What it drops comes again seconds later, so that the queue is not always full.
    let overflows = t.stop == Stop::TimeLimit && listener.drops * 20 >= t.dialed;
    let full = listener.is_full() || listener.drops > 0 && (nearly_full || overflows);
    // All that was asked for is open, and some of it waits to be accepted for too long.
    let waits = t.stop == Stop::Plateau && t.server.is_some_and(|s| s.queued > 0);
    if !goes_on || !full && !waits {
        return None;
    }
    // By the server's table: what is open here may be a phantom.
    #[allow(clippy::cast_precision_loss)]
    let pace = match (t.stop, t.server) {
        (Stop::TimeLimit, Some(s)) => s.accepted as f64 / t.duration_s.max(1e-3),
        (Stop::TimeLimit, None) => t.growth_per_s,
        _ => later as f64 / t.hold_s,
    };
    let pace = rate(pace);
    let summary = if full {
        format!("The server accepts {pace}, and more come: its accept queue overflows.")
    } else {
        let queued = plural(listener.queue_len, "connection");
        format!("The server accepts {pace}, and {queued} waited for it too long.")
    };
    let accepted = t.server.map_or(t.held, |s| s.accepted);
    // One that turns new ones away does so slowly, too.
    let ends = turned_away::is_frequent(t);
    let draft = match t.server.is_some() && !ends {
        true => Draft::certain(Code::ServerSlowAccept, summary),
        false => Draft::likely(Code::ServerSlowAccept, summary),
    };
    let draft = if t.server.is_some() {
        draft
    } else {
        let decides = "whether what it holds still grows: --time-limit 5m";
        draft.or(Code::ServerAcceptQueue, decides)
    };
    let draft = if ends { turned_away::ended(draft, t) } else { draft };
    Some(
        draft
            .fact("accepted when dialing ended", count(accepted), "sock_diag")
            .fact("accepts", pace, "sock_diag, this probe")
            .queue_facts(t, e)
            .remedies(faster()),
    )
}

/// What lengthens the accept queue. Where the backlog is all that somaxconn allows, the
/// server may have asked for more.
fn longer_queue(listener: &ListenerSeen, t: &Tally, e: &Evidence) -> String {
    let each = listener.backlog / listener.members.max(1);
    match e.somaxconn.filter(|max| *max > 0 && each >= *max) {
        Some(max) => {
            let raise = format!("sysctl -w net.core.somaxconn={}", max * 4);
            let raise = decide::as_root_there(t, e, &raise);
            remedy::noted(&raise, "then listen() anew with as much")
        }
        None => remedy::advised(format_args!(
            "give listen() a larger backlog than {}",
            count(each)
        )),
    }
}

/// What is held grows, and yet many a dial ends as a phantom: the queue is full at times.
fn slow_from_outside(t: &Tally, e: &Evidence) -> Option<Draft> {
    let phantoms = t.half_open + t.phantoms;
    let slow = t.stop == Stop::TimeLimit && t.growth_per_s > 0.0 && t.held > 0;
    if !slow || e.sees_server || phantoms * 20 < t.established {
        return None;
    }
    #[allow(clippy::cast_precision_loss)]
    let pace = rate(t.held as f64 / t.duration_s.max(1e-3));
    let summary = format!(
        "The server takes {pace}, and more come: {} were phantoms, since its accept queue \
         was full when their handshake ended.",
        plural(phantoms, "connection")
    );
    Some(
        Draft::likely(Code::ServerSlowAccept, summary)
            .fact("held", count(t.held), "this probe")
            .phantom_facts(t)
            .or(Code::PathLimitsNew, decide::rules(t))
            .remedies(faster())
            .remedies(decide::by_evidence(t, e)),
    )
}

fn faster() -> [String; 2] {
    [
        "accept in a loop until EAGAIN, and let other threads do the work",
        "several listeners: SO_REUSEPORT, one for each thread",
    ]
    .map(remedy::advised)
}

/// Resets that are the kernel's answer to a full queue (tcp_abort_on_overflow).
pub(super) fn resets_by_overflow(t: &Tally, e: &Evidence) -> Option<Draft> {
    let overflows = e.counters.as_ref().map_or(0, |c| c.listen_overflows);
    let aborts = e.abort_on_overflow == Some(true) && overflows > 0;
    (aborts && t.closed_reset > 0).then(|| {
        let summary =
            "The accept queue is full, and the kernel resets what does not fit.";
        Draft::certain(Code::ServerAcceptQueue, summary.into())
            .queue_facts(t, e)
            .seen(e, "ListenOverflows", count(overflows), "/proc/net/netstat")
            .seen(e, "net.ipv4.tcp_abort_on_overflow", "1", "sysctl")
            .advice("make the server accept faster")
            .remedy(e.listener.as_ref().map_or_else(
                || remedy::advised("or give listen() a larger backlog"),
                |listener| longer_queue(listener, t, e),
            ))
    })
}

/// All that was asked for is established, and some of it unknown to the server: its
/// queue was full when their handshake ended (FACTS 6).
pub(super) fn phantoms(t: &Tally, e: &Evidence) -> Option<Draft> {
    let phantoms = t.server.map(|s| s.phantoms).filter(|n| *n > 0)?;
    let listener = e.listener.as_ref()?;
    if t.stop != Stop::MaxReached {
        return None;
    }
    let summary = format!(
        "The server accepts more slowly than these dials came: {} here it does not \
         have, since its accept queue was full when their handshake ended.",
        plural(phantoms, "established connection")
    );
    let overflows = e.counters.as_ref().map_or(0, |c| c.listen_overflows);
    let overflowed = listener.drops > 0 && overflows > 0;
    let draft = if overflowed {
        Draft::certain(Code::ServerSlowAccept, summary)
    } else {
        Draft::likely(Code::ServerSlowAccept, summary)
            .or(Code::PathLimitsNew, "something between answers for it: its log")
    };
    Some(
        draft
            .fact("established, unknown to the server", count(phantoms), "sock_diag")
            .queue_facts(t, e)
            .remedy(longer_queue(listener, t, e))
            .advice("or dial more slowly: --rate 100"),
    )
}

/// Connections wait in the accept queue and nobody accepts.
pub(super) fn accept_queue(t: &Tally, e: &Evidence) -> Option<Draft> {
    let listener = e.listener.as_ref().filter(|l| l.queue_len > 0)?;
    let accepted = accepted(t, listener);
    let so_far = if accepted == 0 {
        "has accepted none".to_owned()
    } else {
        format!("accepted {} and then no more", plural(accepted, "connection"))
    };
    let waits = plural(listener.queue_len, "connection");
    let stand = if listener.queue_len == 1 { "stands" } else { "stand" };
    if let Some(user) = &e.unreadable_owner {
        let summary = format!(
            "{waits} {stand} in the accept queue; the server {so_far}. Why cannot be \
             seen: its process belongs to {user}."
        );
        let decides = "its open fds and state: run this probe again with sudo";
        return Some(
            Draft::likely(Code::ServerAcceptQueue, summary)
                .queue_facts(t, e)
                .or(Code::ServerFdLimit, decides)
                .or(Code::ServerStopped, decides)
                .remedy(match &e.remote {
                    None => {
                        let target = shell_word(&t.target);
                        format!("sudo {} probe {target}", t.client.program)
                    }
                    Some(host) => remedy::advised(format_args!(
                        "sudo on the server's host, in: {}",
                        host.command
                    )),
                }),
        );
    }
    let mut draft = Draft::certain(
        Code::ServerAcceptQueue,
        format!("{waits} {stand} in the accept queue; the server {so_far}."),
    )
    .queue_facts(t, e);
    for owner in e.owners.iter().take(3) {
        let p = &owner.process;
        if let (Some(open), Some(limit)) = (p.open_fds, p.nofile_soft) {
            draft = draft.seen(
                e,
                format!("open fds of {}", who(p)),
                match limit {
                    UNLIMITED => format!("{}, unlimited", count(open)),
                    _ => format!("{} of {}", count(open), count(limit)),
                },
                format!("/proc/{0}/fd, /proc/{0}/limits", p.pid),
            );
        }
        draft = draft.seen(
            e,
            format!("state of {}", who(p)),
            p.state.to_string(),
            format!("/proc/{}/stat", p.pid),
        );
    }
    let remedy = match e.owners.first() {
        Some(owner) => e.type_there(format!(
            "strace -f -p {}  # see what {} does instead of accept()",
            owner.process.pid,
            named(&owner.process)
        )),
        None => remedy::advised("make the server call accept()"),
    };
    Some(draft.remedy(remedy))
}

/// No rule applies: what a client sees fits several causes.
pub(super) fn unknown(t: &Tally, e: &Evidence) -> Draft {
    let confirmed = t.level == Level::Confirmed;
    let open = plural(if confirmed { t.held } else { t.open }, "connection");
    let summary = if confirmed && t.half_open + t.phantoms > 0 {
        format!(
            "The server has {open}; of the further ones that connect() called established \
             it knows nothing, or half."
        )
    } else if t.unanswered > 0 {
        format!("After {open} no dial was answered any more.")
    } else {
        format!("What is held did not grow beyond {open}.")
    };
    let mut draft = Draft::possible(Code::ServerAcceptQueue, summary).queue_facts(t, e);
    if confirmed {
        draft = draft.phantom_facts(t);
    }
    if e.sees_server && e.listener.is_some() {
        return draft
            .or(
                Code::ServerSlowAccept,
                "whether the queue fills now and then: ss -tln while this runs",
            )
            .or(Code::PathLimitsNew, "a rule that counts: sudo nft list ruleset")
            .advice("see the server's log");
    }
    if turned_away::ends_no_more(t, e) {
        draft = turned_away::ended(draft, t);
    }
    draft
        .or(Code::ServerFdLimit, decide::descriptors(t))
        .or(Code::ServerUnserved, decide::deferring(t))
        .or(Code::ServerStopped, decide::state(t))
        .or(Code::PathLimitsNew, decide::rules(t))
        .or(Code::ServerConntrack, decide::tracked_there(t))
        .or(Code::PathConntrack, decide::tracked_between())
        .remedy(decide::look_at_queue(t))
        .remedies(decide::by_evidence(t, e))
}
