//! What holds of every verdict, whatever was counted.

use proptest::collection::btree_map;
use proptest::option;
use proptest::prelude::*;

use super::tests::{process, tally};
use super::*;
use crate::host::counters::TcpExt;
use crate::host::process::ProcessView;
use crate::host::remedy::unpasteable;
use crate::record::{Confidence, Level};

use Confidence::Certain;

/// What a client may call certain though it sees nothing of the server's host: limits
/// of its own, what it was told to do, and answers that can mean one thing only.
const CERTAIN_FROM_OUTSIDE: &[Code] = &[
    Code::Requested,
    Code::Interrupted,
    Code::TimeLimit,
    Code::ClientFdTable,
    Code::ClientFileMax,
    Code::ClientPorts,
    Code::ClientMemory,
    Code::ClientCpu,
    // ENETUNREACH, EACCES, EPERM; ENOENT of a socket file.
    Code::PathUnreachable,
    Code::PathRejected,
    Code::ServerNotListening,
];

fn stops() -> impl Strategy<Value = Stop> {
    prop::sample::select(vec![
        Stop::MaxReached,
        Stop::Plateau,
        Stop::Interrupted,
        Stop::TimeLimit,
        Stop::AllFailed,
        Stop::ServerGone,
        Stop::Losing,
        Stop::NoTuples,
        Stop::TablesFull,
        Stop::NoFiles,
        Stop::NoMemory,
        Stop::MemoryFloor,
        Stop::Latency,
    ])
}

/// A count: often none or few, sometimes more than any host has.
fn counts() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0..2_000_u64, Just(1 << 50)]
}

prop_compose! {
    fn server_counts()(n in prop::array::uniform4(counts())) -> ServerCounts {
        let [accepted, queued, deferred, phantoms] = n;
        ServerCounts { accepted, queued, deferred, half_open: phantoms / 2, phantoms }
    }
}

prop_compose! {
    /// What was asked and answered, and what ended.
    fn exchanges()(
        asks in option::of(Just("what --send says".to_owned())),
        n in prop::array::uniform4(counts()),
        unserved in btree_map("no_reply|late_reply|http_5[0-9]{2}", counts(), 0..3),
        ages in prop::array::uniform6(counts()),
        shares in prop::array::uniform4(0.0..=1.0_f64),
        trial in option::of(prop::sample::select(vec![
            Trial::Answered, Trial::Refused, Trial::Silent,
        ])),
        hold_s in 0.0..1e6_f64,
        met in option::of(counts()),
        server_after in option::of(server_counts()),
    ) -> Tally {
        let [aged, p10_ms, p50_ms, p90_ms, ended_span_ms, born_span_ms] = ages;
        let [held_after, ended_after, older_stay, between_stay] = shares;
        let latency = met.map(|met| Latency {
            limit: "p99<50ms".into(), of: "replies", met, last_us: 51_000, samples: 200,
            pace_per_s: None,
        });
        Tally {
            asks, served: n[0], forgotten: n[1], closed_answered: n[2], phantoms: n[3],
            unserved, trial, hold_s, latency, server_after,
            closings: Closings {
                aged, p10_ms, p50_ms, p90_ms, ended_span_ms, born_span_ms, older_stay,
                between_stay, held_after, held_between: held_after / 2.0, ended_after,
                ..Closings::default()
            },
            ..tally(Stop::Plateau)
        }
    }
}

prop_compose! {
    fn tallies()(
        stop in stops(),
        exchange in exchanges().prop_map(Box::new).boxed(),
        rate_per_s in option::of(1.0..1e7_f64),
        is_unix: bool,
        n in prop::array::uniform16(counts()),
        max in option::of(counts()),
        server in option::of(server_counts()),
        errors in btree_map(prop::sample::select(vec![
            libc::ECONNREFUSED, libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES,
            libc::ENOENT, libc::EAGAIN, libc::EPROTOTYPE, libc::EINVAL, libc::ENOBUFS,
        ]), counts(), 0..3),
        words in prop::collection::vec("[a-zA-Z\\-\\r\\n ]{0,30}", 0..3),
        tables_allowed in option::of(1_u64..4),
        growth_per_s in -1e9..1e9_f64,
        steadiness in option::of((counts(), 0.0..1e6_f64, 0.0..1e6_f64)),
    ) -> Tally {
        Tally {
            stop, is_unix, max, dialed: n[0], established: n[1], errors, unanswered: n[2],
            looked_at: n[3], retransmitted: n[4], silent: n[5], open: n[6], server,
            held: n[7], lost_in_hold: n[8], closed_silent: n[9],
            closed_after_words: n[10], closed_reset: n[11], elders_open: n[13],
            closed_old: n[12], deferred: n[14], half_open: n[15], words, growth_per_s,
            steadiness: steadiness.map(|(seconds, per_s, variance)| Steadiness {
                seconds, per_s, variance,
            }),
            level: if server.is_some() { Level::Accepted } else { Level::Established },
            client: Client {
                fd_limit_hard: n[13], ports_per_source: n[14], skipped: n[15],
                tables_allowed, rate_per_s, late_max_us: n[0], ..Client::default()
            },
            ..*exchange
        }
    }
}

prop_compose! {
    fn owners()(
        pid in 1..4_u32,
        thread: bool,
        state in prop::sample::select(vec!['S', 'R', 'T', 't', 'Z']),
        open_fds in option::of(counts()),
        nofile_soft in option::of(prop_oneof![counts(), Just(u64::MAX)]),
        nofile_hard in option::of(prop_oneof![counts(), Just(u64::MAX)]),
        alive_after: bool,
    ) -> OwnerSeen {
        let tid = pid + 10 * u32::from(thread);
        let process =
            ProcessView { pid, tid, state, open_fds, nofile_soft, nofile_hard, ..process() };
        OwnerSeen { process, alive_after }
    }
}

prop_compose! {
    fn listeners()(n in prop::array::uniform5(counts())) -> ListenerSeen {
        let [members, backlog, queue_len, queue_peak, drops] = n;
        let members = members.min(64);
        ListenerSeen {
            address: "127.0.0.1:8080".into(), members, backlog, queue_len, queue_peak, drops,
        }
    }
}

prop_compose! {
    fn seen()(
        listener in option::of(listeners()),
        listening_after: bool,
        owners in prop::collection::vec(owners(), 0..3),
        hidden: bool,
        overflows in option::of(counts()),
        abort_on_overflow in option::of(any::<bool>()),
        conntrack in option::of((counts(), counts())),
        file_nr in option::of((counts(), counts())),
        client_conntrack in option::of((counts(), counts())),
        gone: bool,
        told in option::weighted(0.2, any::<bool>()),
    ) -> Evidence {
        let counters = overflows
            .map(|listen_overflows| TcpExt { listen_overflows, ..TcpExt::default() });
        Evidence {
            gone: if gone { vec![process()] } else { Vec::new() },
            remote: told.map(|is_shaky| RemoteHost { is_shaky, ..RemoteHost::default() }),
            sees_server: true, listener, listening_after, owners, counters,
            unreadable_owner: hidden.then(|| "uid 0".into()),
            abort_on_overflow, conntrack, client_conntrack, file_nr, ..Evidence::default()
        }
    }
}

/// What is seen of the server's host, and what where it is not seen at all.
fn evidences() -> impl Strategy<Value = Evidence> {
    let unseen = option::of((counts(), counts())).prop_map(|file_nr| Evidence {
        file_nr,
        client_conntrack: file_nr,
        ..Evidence::default()
    });
    prop_oneof![3 => seen(), 1 => unseen]
}

/// A number at the end or at the beginning of a text: `1,024`.
fn number(word: &str) -> Option<u64> {
    word.trim_matches(|c: char| !c.is_ascii_digit()).replace(',', "").parse().ok()
}

/// Every `12 of 300` in a text.
fn parts(text: &str) -> Vec<(u64, u64)> {
    let words: Vec<&str> = text.split(' ').collect();
    let pairs = words.windows(3).filter(|three| three[1] == "of");
    pairs.filter_map(|three| Some((number(three[0])?, number(three[2])?))).collect()
}

/// What could have been counted: the parts of everything add up.
#[derive(Debug, Clone)]
struct Whole {
    tally: Tally,
    evidence: Evidence,
}

prop_compose! {
    fn wholes()(
        any in tallies().boxed(),
        e in evidences().boxed(),
        open in prop::array::uniform5(0..3_000_u64),
        ended in prop::array::uniform4(0..3_000_u64),
        [failed, unanswered, phantoms, looked_at] in prop::array::uniform4(0..3_000_u64),
        asked: bool,
        seen: bool,
    ) -> Whole {
        let [accepted, queued, deferred, half_open, unknown] = open;
        let server = ServerCounts {
            accepted, queued, deferred, half_open, phantoms: half_open + unknown,
        };
        let open: u64 = open.iter().sum();
        let closed: u64 = ended.iter().sum();
        let [closed_silent, closed_after_words, closed_answered, closed_reset] = ended;
        let served = if asked { accepted } else { 0 };
        let listener = e.listener.map(|l| ListenerSeen {
            queue_len: l.queue_len.min(l.backlog + l.members), ..l
        });
        let established = open + closed + phantoms;
        let tally = Tally {
            dialed: established + failed + unanswered,
            established, unanswered, phantoms, half_open, open, served,
            errors: if failed == 0 { [].into() } else { [(libc::ECONNREFUSED, failed)].into() },
            looked_at: looked_at.min(unanswered),
            silent: looked_at.min(unanswered) / 2,
            server: seen.then_some(server),
            server_after: seen.then_some(server),
            held: accepted,
            deferred: if seen { 0 } else { deferred },
            level: if seen { Level::Accepted } else { Level::Confirmed },
            asks: asked.then(|| "what --send says".to_owned()),
            unserved: [("no_reply".to_owned(), open - served)].into(),
            forgotten: any.forgotten.min(served),
            lost_in_hold: any.lost_in_hold.min(closed),
            closings: Closings { aged: any.closings.aged.min(closed), ..any.closings },
            closed_silent, closed_after_words, closed_answered, closed_reset,
            closed_old: any.closed_old.min(closed),
            elders_open: any.elders_open.min(any.elders),
            latency: any.latency.map(|seen| Latency { met: seen.met.min(open), ..seen }),
            ..any
        };
        Whole { tally, evidence: Evidence { listener, ..e } }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_was_counted_a_verdict_is_one_of_the_catalogue(
        t in tallies().boxed(), e in evidences().boxed(),
    ) {
        let verdict = judge(&t, &e);
        prop_assert!(Code::ALL.iter().any(|code| code.as_str() == verdict.code));
        prop_assert!(verdict.summary.ends_with('.'), "{}", verdict.summary);
        prop_assert!(!verdict.remedy.is_empty() || verdict.code == "interrupted");
        for line in &verdict.remedy {
            prop_assert_eq!(unpasteable(line), None);
        }
        let decides = verdict.alternatives.iter().all(|other| !other.decides.contains("(root)"));
        prop_assert!(decides, "{verdict:?}");
        // A number that went below zero is this long.
        let texts = verdict.evidence.iter().map(|fact| &fact.value);
        for text in texts.chain([&verdict.summary]).chain(&verdict.remedy) {
            prop_assert!(!text.contains("18,446,74"), "{text}");
        }
    }

    #[test]
    fn what_is_not_certain_says_what_else_it_could_be(t in tallies().boxed(), e in evidences().boxed()) {
        let verdict = judge(&t, &e);
        let named = !verdict.alternatives.is_empty();
        // An old word makes less sure of the same, and of nothing else.
        let old = e.remote.as_ref().is_some_and(|host| host.is_shaky);
        prop_assert!(verdict.confidence != Certain || !named, "{:?}", verdict);
        prop_assert!(verdict.confidence == Certain || named || old, "{:?}", verdict);
        for other in &verdict.alternatives {
            prop_assert!(other.code != verdict.code && !other.decides.is_empty());
            prop_assert!(Code::ALL.iter().any(|code| code.as_str() == other.code));
        }
    }

    #[test]
    fn certain_is_what_a_kernel_said_or_what_can_mean_one_thing_only(
        t in tallies().boxed(), e in evidences().boxed(),
    ) {
        let verdict = judge(&Tally { server: t.server.filter(|_| e.sees_server), ..t }, &e);
        if verdict.confidence == Certain && !e.sees_server {
            let known = CERTAIN_FROM_OUTSIDE.iter().any(|c| c.as_str() == verdict.code);
            prop_assert!(known, "{verdict:?}");
        }
        let theirs = ["server.", "path."].iter().any(|half| verdict.code.starts_with(half));
        if theirs && e.remote.is_some_and(|host| host.is_shaky) {
            prop_assert!(verdict.confidence != Certain, "{verdict:?}");
        }
        if verdict.confidence == Certain {
            let words = ["requested", "interrupted"].contains(&verdict.code.as_str());
            prop_assert!(words || !verdict.evidence.is_empty(), "{verdict:?}");
        }
    }

    #[test]
    fn the_counts_of_a_verdict_add_up(whole in wholes().boxed()) {
        let Whole { tally: t, evidence: e } = whole;
        let verdict = judge(&t, &e);
        let texts = verdict.evidence.iter().filter(|fact| {
            // What a host has open may be beyond a limit that was lowered since.
            !["open fds", "open files", "tracked", "descriptors", "dials"]
                .iter()
                .any(|of| fact.fact.starts_with(of))
        });
        let texts = texts.map(|fact| &fact.value).chain([&verdict.summary]);
        for text in texts {
            for (part, all) in parts(text) {
                prop_assert!(part <= all, "{text}: {verdict:#?}");
            }
            let most = t.dialed.max(t.max.unwrap_or(0));
            let of_host = verdict.code.starts_with("client.") || verdict.code.contains("max")
                || verdict.code.contains("fd_limit") || verdict.code.contains("conntrack")
                // Other clients' connections stand in it too.
                || text.contains("in the accept queue");
            let connections = text.split(" connection").next().filter(|_| text.contains(" connection"));
            let counted = connections.and_then(|text| number(text.rsplit(' ').next()?));
            prop_assert!(of_host || counted.is_none_or(|n| n <= most), "{text}: {verdict:#?}");
        }
    }
}
