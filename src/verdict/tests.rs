//! The rules of judge, each in the presence of what would point to another.

use super::*;
use crate::host::counters::TcpExt;
use crate::host::process::ProcessView;
use crate::record::{Confidence, Level};

pub(super) fn tally(stop: Stop) -> Tally {
    Tally {
        target: "127.0.0.1:8080".into(),
        is_unix: false,
        stop,
        level: Level::Accepted,
        max: None,
        dialed: 1_000,
        established: 700,
        errors: [].into(),
        unanswered: 300,
        looked_at: 64,
        retransmitted: 64,
        silent: 64,
        open: 700,
        server: Some(ServerCounts { accepted: 571, queued: 129, ..Default::default() }),
        server_after: None,
        held: 571,
        half_open: 0,
        phantoms: 0,
        deferred: 0,
        asks: None,
        speaks: false,
        served: 0,
        unserved: [].into(),
        forgotten: 0,
        closings: Closings { ended_after: 1.0, ..Closings::default() },
        trial: None,
        hold_s: 2.0,
        latency: None,
        lost_in_hold: 0,
        closed_silent: 0,
        closed_after_words: 0,
        closed_answered: 0,
        closed_reset: 0,
        closed_old: 0,
        elders: 128,
        elders_open: 128,
        words: Vec::new(),
        duration_s: 4.0,
        growth_per_s: 0.0,
        steadiness: None,
        client: Client { fd_limit: 1_024, fd_limit_hard: 4_096, ..Client::default() },
    }
}

pub(super) fn process() -> ProcessView {
    ProcessView {
        pid: 4711,
        tid: 4711,
        comm: "node".into(),
        state: 'S',
        uid: 0,
        threads: 1,
        nofile_soft: Some(1_024),
        nofile_hard: Some(1_024),
        open_fds: Some(580),
        started: 1,
    }
}

/// A server whose accept queue of 128 and one is full.
pub(super) fn evidence() -> Evidence {
    Evidence {
        sees_server: true,
        listener: Some(ListenerSeen {
            address: "127.0.0.1:8080".into(),
            members: 1,
            backlog: 128,
            queue_len: 129,
            queue_peak: 129,
            drops: 300,
        }),
        listening_after: true,
        owners: vec![OwnerSeen { process: process(), alive_after: true }],
        file_nr: Some((2_000, 1_000_000)),
        mem_available_bytes: Some(8 << 30),
        ..Evidence::default()
    }
}

/// The same with the owner changed.
fn owned_by(change: impl FnOnce(&mut ProcessView)) -> Evidence {
    let mut e = evidence();
    change(&mut e.owners[0].process);
    e
}

#[track_caller]
pub(super) fn is(t: &Tally, e: &Evidence, code: Code, confidence: Confidence) -> Verdict {
    let verdict = judge(t, e);
    assert_eq!((verdict.code.as_str(), verdict.confidence), (code.as_str(), confidence));
    verdict
}

use Confidence::{Certain, Likely, Possible};

#[test]
fn a_full_file_table_of_the_host_is_named_with_its_numbers() {
    let e = Evidence { file_nr: Some((500_000, 500_000)), ..evidence() };
    let verdict = is(&tally(Stop::NoFiles), &e, Code::ClientFileMax, Certain);
    assert_eq!(verdict.evidence[0].value, "500,000 of 500,000");
    assert_eq!(verdict.remedy, ["sudo sysctl -w fs.file-max=1000000"]);
    // The server meets it as well, but it is its accept() then that fails.
    let server = is(&tally(Stop::Plateau), &e, Code::ServerFileMax, Certain);
    assert!(server.summary.contains("ENFILE"));
    let unread = Evidence { file_nr: None, ..e };
    let verdict = is(&tally(Stop::NoFiles), &unread, Code::ClientFileMax, Certain);
    assert!(verdict.next.is_none() && verdict.remedy[0].contains("fs.file-max"));
}

#[test]
fn memory_ends_a_probe_at_its_floor_or_at_the_kernels_word() {
    let mut t = tally(Stop::MemoryFloor);
    t.client.memory_floor_bytes = 256 << 20;
    let verdict = is(&t, &evidence(), Code::ClientMemory, Certain);
    assert!(verdict.summary.contains("256.0 MiB"), "{}", verdict.summary);
    for (errno, name) in [(libc::ENOBUFS, "ENOBUFS"), (libc::ENOSPC, "ENOSPC")] {
        let mut t = tally(Stop::NoMemory);
        t.errors = [(errno, 1)].into();
        let verdict = is(&t, &evidence(), Code::ClientMemory, Certain);
        assert_eq!(verdict.evidence[0].value, name);
    }
}

#[test]
fn an_end_of_the_clients_own_comes_before_what_the_server_shows() {
    let full = owned_by(|p| p.open_fds = Some(1_024));
    for (stop, code) in [
        (Stop::TablesFull, Code::ClientFdTable),
        (Stop::NoTuples, Code::ClientPorts),
        (Stop::NoFiles, Code::ClientFileMax),
        (Stop::NoMemory, Code::ClientMemory),
        (Stop::MemoryFloor, Code::ClientMemory),
        (Stop::Interrupted, Code::Interrupted),
    ] {
        is(&tally(stop), &full, code, Certain);
    }
}

#[test]
fn a_full_fd_table_explains_a_full_queue() {
    let t = tally(Stop::Plateau);
    is(&t, &evidence(), Code::ServerAcceptQueue, Certain);
    let full = owned_by(|p| p.open_fds = Some(1_024));
    let verdict = is(&t, &full, Code::ServerFdLimit, Certain);
    assert_eq!(verdict.remedy[0], "sudo prlimit --pid 4711 --nofile=65536:65536");
    // 1,024 descriptors for 571 connections: 453 are for other things.
    assert_eq!(verdict.next.unwrap().number, Some(65_536 - 453));
}

#[test]
fn a_limit_that_the_owner_may_raise_himself_needs_no_sudo() {
    let full = owned_by(|p| (p.open_fds, p.nofile_hard) = (Some(1_024), Some(4_096)));
    let verdict = is(&tally(Stop::Plateau), &full, Code::ServerFdLimit, Certain);
    assert_eq!(verdict.remedy[0], "prlimit --pid 4711 --nofile=4096:4096");
}

#[test]
fn a_stopped_server_is_stopped_whatever_its_descriptors() {
    for state in ['T', 't'] {
        let e = owned_by(|p| (p.open_fds, p.state) = (Some(1_024), state));
        let verdict = is(&tally(Stop::Plateau), &e, Code::ServerStopped, Certain);
        assert_eq!(verdict.remedy, ["kill -CONT 4711"]);
    }
}

#[test]
fn with_one_owner_running_the_server_is_not_stopped() {
    let mut e = owned_by(|p| p.state = 'T');
    let process = ProcessView { pid: 4712, tid: 4712, ..process() };
    e.owners.push(OwnerSeen { process, alive_after: true });
    is(&tally(Stop::Plateau), &e, Code::ServerAcceptQueue, Certain);
}

#[test]
fn several_full_tables_are_raised_together() {
    let mut e = owned_by(|p| p.open_fds = Some(1_024));
    let process = ProcessView { tid: 4712, open_fds: Some(1_024), ..process() };
    e.owners.push(OwnerSeen { process, alive_after: true });
    let t = Tally { held: 2_000, ..tally(Stop::Plateau) };
    let t = Tally {
        server: Some(ServerCounts { accepted: 2_000, ..t.server.unwrap() }),
        ..t
    };
    let verdict = is(&t, &e, Code::ServerFdLimit, Certain);
    assert_eq!(verdict.next.unwrap().number, Some(2 * 65_536 - 48));
}

#[test]
fn a_death_comes_before_every_other_cause() {
    let mut e = owned_by(|p| (p.open_fds, p.state) = (Some(1_024), 'T'));
    e.listening_after = false;
    e.owners[0].alive_after = false;
    let t = Tally { closed_silent: 700, open: 0, held: 0, ..tally(Stop::ServerGone) };
    let verdict = is(&t, &e, Code::ServerDied, Certain);
    assert!(verdict.summary.contains("node[4711]"), "{}", verdict.summary);
}

#[test]
fn requested_is_said_only_of_what_the_server_has() {
    let mut t = Tally { max: Some(700), unanswered: 0, ..tally(Stop::MaxReached) };
    let idle = || {
        let mut e = evidence();
        let listener = ListenerSeen { queue_len: 0, ..e.listener.take().unwrap() };
        Evidence { listener: Some(listener), ..e }
    };
    t.server = Some(ServerCounts { accepted: 700, ..Default::default() });
    is(&t, &idle(), Code::Requested, Certain);
    t.server = Some(ServerCounts { accepted: 690, phantoms: 10, ..Default::default() });
    is(&t, &idle(), Code::ServerSlowAccept, Likely);
    let counters = TcpExt { listen_overflows: 12, ..TcpExt::default() };
    let overflowed = Evidence { counters: Some(counters), ..idle() };
    is(&t, &overflowed, Code::ServerSlowAccept, Certain);
    t.server = Some(ServerCounts { deferred: 700, ..Default::default() });
    is(&t, &idle(), Code::ServerUnserved, Certain);
    t.server = Some(ServerCounts { accepted: 700, ..Default::default() });
    is(&Tally { stop: Stop::Plateau, ..t.clone() }, &idle(), Code::Requested, Certain);
    is(&Tally { lost_in_hold: 1, ..t }, &idle(), Code::ServerIdleTimeout, Possible);
}

#[test]
fn a_server_that_keeps_the_newest_does_not_turn_away() {
    let mut e = evidence();
    e.listener = e.listener.map(|l| ListenerSeen { queue_len: 0, drops: 0, ..l });
    let t = Tally { closed_silent: 5_000, open: 50, held: 50, ..tally(Stop::Plateau) };
    // The first 50 are among the elders.
    is(&Tally { elders_open: 50, ..t.clone() }, &e, Code::ServerClosesNew, Certain);
    is(&Tally { elders_open: 0, ..t }, &e, Code::ServerEvicts, Likely);
}

#[test]
fn turned_away_by_the_most_frequent_way() {
    let mut e = evidence();
    e.listener = e.listener.map(|l| ListenerSeen { queue_len: 0, drops: 0, ..l });
    let ended = |silent, words, reset| Tally {
        closed_silent: silent,
        closed_after_words: words,
        closed_reset: reset,
        ..tally(Stop::Plateau)
    };
    for (t, code) in [
        (ended(200, 3, 1), Code::ServerClosesNew),
        (ended(3, 200, 1), Code::ServerRejects),
        (ended(3, 1, 200), Code::ServerResetsNew),
    ] {
        is(&t, &e, code, Certain);
        let outside = Evidence::default();
        is(&Tally { server: None, ..t }, &outside, code, Likely);
    }
}

/// tcp_abort_on_overflow resets what does not fit, and a cookie's connection is a phantom
/// first: from outside, the one may be the other.
#[test]
fn a_few_resets_among_many_phantoms_are_no_limit_of_the_server() {
    let t = Tally { server: None, closed_reset: 20, ..tally(Stop::Plateau) };
    let t = Tally { level: Level::Confirmed, ..t };
    let outside = Evidence::default();
    let verdict = is(&t, &outside, Code::ServerResetsNew, Likely);
    assert!(verdict.alternatives.iter().any(|a| a.code == "server.accept_queue"));
    let t = Tally { phantoms: 251, established: 900, unanswered: 0, ..t };
    is(&t, &outside, Code::ServerAcceptQueue, Confidence::Possible);
}

#[test]
fn a_full_queue_from_which_accepts_go_on_is_a_slow_server() {
    let t = Tally { growth_per_s: 90.0, ..tally(Stop::TimeLimit) };
    let verdict = is(&t, &evidence(), Code::ServerSlowAccept, Certain);
    assert!(verdict.summary.contains("143/s"), "{}", verdict.summary);
    // It may be slow to turn new ones away.
    let ended = t.established;
    let ends = Tally { established: 2 * ended, closed_after_words: ended, ..t };
    let verdict = is(&ends, &evidence(), Code::ServerSlowAccept, Likely);
    assert_eq!(verdict.alternatives[0].code, "server.rejects");
    // Its queue is empty then, and it holds no more: it does.
    let after = Some(ServerCounts { queued: 0, ..ends.server.unwrap() });
    let done = Tally { server_after: after, ..ends.clone() };
    is(&done, &evidence(), Code::ServerRejects, Certain);
    // Or it holds more: it was slow.
    let more = ServerCounts { queued: 0, accepted: 600, ..Default::default() };
    let grown = Tally { server_after: Some(more), ..ends };
    is(&grown, &evidence(), Code::ServerSlowAccept, Likely);
    let later = ServerCounts { accepted: 580, queued: 129, ..Default::default() };
    let t = Tally { server_after: Some(later), ..tally(Stop::Plateau) };
    is(&t, &evidence(), Code::ServerSlowAccept, Certain);
    let t = Tally { growth_per_s: 0.0, ..tally(Stop::TimeLimit) };
    is(&t, &evidence(), Code::TimeLimit, Certain);
}

/// A filter that lets 20 a second through; a path that loses as many by chance; and what
/// looks even by chance, since it was seen too briefly.
#[test]
fn what_gets_through_evenly_is_limited_by_the_second_and_what_does_by_chance_is_not() {
    let seen = |seconds, variance| Tally {
        dialed: 1_400,
        established: 405,
        unanswered: 995,
        open: 405,
        held: 405,
        duration_s: 20.0,
        growth_per_s: 20.0,
        steadiness: Some(Steadiness { seconds, per_s: 20.0, variance }),
        server: Some(ServerCounts { accepted: 405, ..Default::default() }),
        ..tally(Stop::TimeLimit)
    };
    let queue = |len, drops| {
        let mut e = evidence();
        let l = e.listener.take().unwrap();
        Evidence { listener: Some(ListenerSeen { queue_len: len, drops, ..l }), ..e }
    };
    let even = seen(18, 0.8);
    let verdict = is(&even, &queue(0, 0), Code::PathRateLimited, Likely);
    assert!(verdict.summary.contains("Of 70/s dials an even 20/s"), "{verdict:?}");
    assert!(verdict.remedy.iter().any(|r| r.ends_with("--rate 20")), "{verdict:?}");
    // By chance 71 % are lost: the variance would be 14.
    is(&seen(18, 14.0), &queue(0, 0), Code::TimeLimit, Certain);
    is(&seen(6, 0.8), &queue(0, 0), Code::TimeLimit, Certain);
    is(
        &Tally { steadiness: None, ..even.clone() },
        &queue(0, 0),
        Code::TimeLimit,
        Certain,
    );
    // A server that accepts 20 a second from a full queue.
    is(&even, &queue(129, 900), Code::ServerSlowAccept, Certain);
    is(&even, &queue(3, 900), Code::ServerSlowAccept, Certain);
    // Dials made as evenly as they get through, with a few lost, are no limit.
    let few = Tally { dialed: 420, unanswered: 15, ..even.clone() };
    is(&few, &queue(0, 0), Code::TimeLimit, Certain);
    let outside = Tally { server: None, level: Level::Confirmed, ..even };
    let verdict = is(&outside, &Evidence::default(), Code::PathRateLimited, Possible);
    assert_eq!(verdict.alternatives[0].code, "server.slow_accept");
}

/// 127 asked for, 25 ms before each accept, and a second for the reply.
#[test]
fn a_queue_with_room_from_which_accepts_go_on_is_a_slow_server() {
    let counts =
        |accepted, queued| ServerCounts { accepted, queued, ..Default::default() };
    let mut e = evidence();
    let queue = ListenerSeen { queue_len: 48, drops: 0, ..e.listener.take().unwrap() };
    e.listener = Some(queue);
    let t = Tally {
        asks: Some("what --send says".into()),
        served: 42,
        unserved: [("no_reply".to_owned(), 85)].into(),
        open: 127,
        server: Some(counts(84, 43)),
        server_after: Some(counts(98, 29)),
        hold_s: 0.36,
        ..tally(Stop::Plateau)
    };
    let verdict = is(&t, &e, Code::ServerSlowAccept, Certain);
    assert!(verdict.summary.starts_with("The server accepts 39/s"), "{verdict:?}");
    // None goes on: nobody accepts.
    let t = Tally { server_after: t.server, ..t };
    is(&t, &e, Code::ServerAcceptQueue, Certain);
}

#[test]
fn a_schedule_that_was_not_kept_is_the_clients_limit() {
    let mut t = tally(Stop::TimeLimit);
    (t.client.rate_per_s, t.client.late_max_us) = (Some(1_000.0), 3_000_000);
    let queue = ListenerSeen { queue_len: 0, ..evidence().listener.unwrap() };
    let e = Evidence { listener: Some(queue), ..evidence() };
    // 4,000 were due in these 4 s, and 1,000 were made.
    let verdict = is(&t, &e, Code::ClientCpu, Certain);
    assert_eq!(verdict.evidence[0].value, "1,000 of 4,000 that were due");
    // None was due while all that was asked for were open.
    t.client.late_max_us = 50_000;
    is(&t, &e, Code::TimeLimit, Certain);
    t.dialed = 3_990;
    t.client.late_max_us = 150_000;
    is(&t, &e, Code::ClientCpu, Certain);
}

#[test]
fn a_full_table_of_the_clients_own_is_not_the_servers() {
    let queue = ListenerSeen { queue_len: 0, drops: 0, ..evidence().listener.unwrap() };
    let e = Evidence { listener: Some(queue), ..evidence() };
    let e = Evidence { client_conntrack: Some((262_144, 262_144)), ..e };
    is(&tally(Stop::Plateau), &e, Code::ClientConntrack, Likely);
    let e = Evidence { client_conntrack: None, conntrack: Some((9, 9)), ..e };
    is(&tally(Stop::Plateau), &e, Code::ServerConntrack, Likely);
}

#[test]
fn without_the_servers_side_nothing_of_it_is_certain() {
    let t = Tally { server: None, level: Level::Established, ..tally(Stop::Plateau) };
    let verdict = is(&t, &Evidence::default(), Code::ServerAcceptQueue, Possible);
    let others: Vec<&str> = verdict.alternatives.iter().map(|a| &*a.code).collect();
    for code in [Code::ServerFdLimit, Code::ServerStopped, Code::PathLimitsNew] {
        assert!(others.contains(&code.as_str()), "{code} is not among {others:?}");
    }
}

/// As Node.js does beyond server.maxConnections: whether it had read the request is chance.
#[test]
fn what_is_closed_with_bytes_unread_ends_by_a_reset() {
    let server = Some(ServerCounts { accepted: 50, ..ServerCounts::default() });
    let (closed_silent, closed_reset) = (558, 1_524);
    let (open, held, speaks) = (50, 50, true);
    let t = tally(Stop::Plateau);
    let t = Tally { server, closed_silent, closed_reset, open, held, speaks, ..t };
    let mut e = evidence();
    e.listener = e.listener.map(|l| ListenerSeen { queue_len: 0, drops: 0, ..l });
    let verdict = is(&t, &e, Code::ServerClosesNew, Certain);
    assert_eq!(verdict.evidence[0].value, "2,082");
    // All of them may be: who reset them looks the same.
    let all_reset = Tally { closed_silent: 0, ..t.clone() };
    let verdict = is(&all_reset, &e, Code::ServerResetsNew, Likely);
    assert_eq!(verdict.alternatives[0].code, "server.closes_new");
    // Nothing was sent: then a reset is one.
    let mute = Tally { speaks: false, ..t };
    is(&mute, &e, Code::ServerResetsNew, Certain);
}

#[test]
fn who_may_raise_limits_needs_no_sudo_for_it() {
    let full = owned_by(|p| p.open_fds = Some(1_024));
    let mut t = tally(Stop::Plateau);
    t.client.may_raise = true;
    let verdict = is(&t, &full, Code::ServerFdLimit, Certain);
    assert_eq!(verdict.remedy[0], "prlimit --pid 4711 --nofile=65536:65536");
}
