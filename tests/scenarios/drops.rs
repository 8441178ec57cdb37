//! What a server ends that it had taken, and a server or a client that is too slow.

use std::process::Command;

use rustix::process::Signal;

use super::ends::until_phase;
use crate::fixtures::Server;
use crate::fixtures::foreign::Foreign;
use crate::fixtures::rights::lacking;

#[test]
fn an_idle_timeout_is_found_with_its_time_while_holding() {
    for (time, words) in [("1s", "silent for 1."), ("1500ms", "silent for 1.")] {
        let server = Server::apart(&["--idle-timeout", time]);
        let outcome = server.probe().with(&["--max", "50", "--hold", "3s"]).run();
        outcome.is("server.idle_timeout", "likely");
        assert!(outcome.summary().contains(words), "{outcome}");
        // On a busy machine some end before all are there, and are dialed again.
        assert!(outcome.number("/result/ended/connections") >= 50, "{outcome}");
        assert_eq!(outcome.held(), 0, "{outcome}");
        let median = outcome.number("/result/ended/p50_ms");
        let least = if time == "1s" { 990 } else { 1_490 };
        assert!((least..least + 400).contains(&median), "{outcome}");
    }
}

#[test]
fn an_idle_timeout_is_found_while_dialing_too() {
    let server = Server::apart(&["--idle-timeout", "1100ms"]);
    let slowly = ["--rate", "50", "--hold", "600ms"];
    let outcome = server.probe().with(&slowly).run();
    outcome.is("server.idle_timeout", "likely");
    // It stopped soon after the first of those that it held were dropped.
    assert!(outcome.count("dialed") < 150, "{outcome}");
}

#[test]
fn an_idle_timeout_shorter_than_the_proof_is_found_from_outside() {
    // At 1.4 s keepalives have just been sent to them: their answers are no repeats.
    for (time, words) in [("700ms", "0."), ("1415ms", "1.4"), ("2s", "2.")] {
        let server = Server::apart(&["--idle-timeout", time]);
        let outside = ["--evidence", "none", "--max", "50", "--hold", "3s"];
        let outcome = server.probe().with(&outside).run();
        outcome.is("server.idle_timeout", "likely");
        let words = format!("silent for {words}");
        assert!(outcome.summary().contains(&words), "{outcome}");
        assert_eq!(outcome.held(), 0, "{outcome}");
    }
}

#[test]
fn what_waited_to_be_turned_away_was_never_held() {
    // It takes 50 a second of 100, and closes all but the first 20: after seconds.
    let slow = ["--accept-delay", "20ms", "--backlog", "1000"];
    let closes = ["--max-connections", "20", "--beyond", "close"];
    let server = Server::apart(&[&slow[..], &closes[..]].concat());
    for evidence in ["auto", "none"] {
        let slowly = ["--rate", "100", "--patience", "5s", "--time-limit", "6s"];
        let probe = server.probe().with(&slowly);
        let outcome = probe.with(&["--evidence", evidence]).run();
        assert_eq!(outcome.code(), "server.closes_new", "{outcome}");
        // From outside what still waits is not told from what was accepted.
        let all = if evidence == "auto" { 20 } else { 600 };
        assert!((20..=all).contains(&outcome.held()), "{outcome}");
        assert!(outcome.number("/result/ended/p90_ms") > 1_000, "{outcome}");
    }
}

/// Where the queue is full when a handshake ends, the server has half of the connection
/// until it repeats its SYN-ACK a second later: what it closes then was never held.
#[test]
fn what_came_late_to_a_server_that_is_full_was_never_held() {
    let slow = ["--accept-delay", "4ms", "--backlog", "6"];
    let closes = ["--max-connections", "60", "--beyond", "close"];
    for _ in 0..3 {
        let server = Server::apart(&[&slow[..], &closes[..]].concat());
        let outcome = server.probe().with(&["--max", "377", "--time-limit", "6s"]).run();
        outcome.is("server.closes_new", "certain");
        assert_eq!(outcome.held(), 60, "{outcome}");
    }
}

/// Two processes take turns to accept; one of them ends after 3 s.
const HALF_DIES: &str = "
s = listener(1024)
s.settimeout(0.05)
ready(s)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
end = time.time() + (3 if os.fork() == 0 else 1e9)
if end < 1e9:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
held = []
while time.time() < end:
    try:
        held.append(s.accept())
        time.sleep(0.01)
    except TimeoutError:
        pass
os._exit(1)";

#[test]
fn a_process_that_ends_takes_its_connections_with_it() {
    for (evidence, confidence) in [("auto", "certain"), ("none", "likely")] {
        let server = Foreign::start(HALF_DIES);
        let slowly = ["--rate", "100", "--time-limit", "20s", "--patience", "5s"];
        let outcome = server.probe().with(&slowly).with(&["--evidence", evidence]).run();
        outcome.is("server.died", confidence);
        assert!(outcome.summary().contains("still listens"), "{outcome}");
        assert!(outcome.fact("ended at once").contains("established over"), "{outcome}");
        // It stopped loading a server that drops what it holds.
        assert!(outcome.count("dialed") < 1_000, "{outcome}");
        match evidence {
            "auto" => assert_eq!(outcome.fact("python3["), "gone", "{outcome}"),
            _ => {
                let others = ["server.evicts", "server.memory"];
                assert_eq!(outcome.alternatives(), others, "{outcome}");
            }
        }
    }
}

#[test]
fn a_server_that_closes_the_oldest_for_the_newest_evicts() {
    let server = Server::apart(&["--max-connections", "50", "--evict-oldest"]);
    let outcome = server.probe().run();
    outcome.is("server.evicts", "likely");
    outcome.holds(50);
    assert!(outcome.summary().contains("keeps 50 connections"), "{outcome}");
}

#[test]
fn slow_eviction_is_not_taken_for_an_idle_timeout() {
    // Each lives for 1.3 s, which is the same age.
    let server = Server::apart(&["--max-connections", "40", "--evict-oldest"]);
    let outcome = server.probe().with(&["--rate", "30", "--patience", "3s"]).run();
    outcome.is("server.evicts", "likely");
    outcome.holds(40);
}

#[test]
fn closing_a_share_of_new_ones_is_told_from_a_fixed_limit() {
    let server = Server::apart(&["--early-drop", "20:300"]);
    let outcome = server.probe().run();
    outcome.is("server.random_drop", "likely");
    assert!((100..=300).contains(&outcome.held()), "{outcome}");
    assert!(outcome.alternatives().contains(&"server.closes_new"), "{outcome}");

    let server = Server::apart(&["--max-connections", "200"]);
    let outcome = server.probe().run();
    outcome.is("server.closes_new", "certain");
    outcome.holds(200);
}

#[test]
fn a_slow_accept_is_told_from_none() {
    let server = Server::apart(&["--accept-delay", "20ms", "--backlog", "16"]);
    let outcome = server.probe().with(&["--time-limit", "2s"]).run();
    outcome.is("server.slow_accept", "certain");
    assert!(outcome.held() > 10, "{outcome}");
    // One in 20 ms is 50 a second: phantoms are not among them.
    assert!(outcome.held() <= 50 * 3, "{outcome}");
    assert!(!outcome.fact("dropped at this listener").is_empty());
}

#[test]
fn a_slow_accept_is_found_from_outside_by_its_phantoms() {
    let server = Server::apart(&["--accept-delay", "5ms", "--backlog", "16"]);
    let outside = ["--evidence", "none", "--time-limit", "6s"];
    let outcome = server.probe().with(&outside).run();
    outcome.is("server.slow_accept", "likely");
    assert_eq!(outcome.level(), "confirmed", "{outcome}");
    // 200 a second at the most, and what waits in the queue.
    assert!((100..=200 * 8).contains(&outcome.held()), "{outcome}");
    assert_eq!(outcome.alternatives(), ["path.limits_new"], "{outcome}");
}

#[test]
fn all_lost_at_once_is_a_death_even_from_outside() {
    let server = Server::apart(&[]);
    let folder = tempfile::tempdir().unwrap();
    let outside = ["--evidence", "none", "--confirm", "off", "--hold", "20s"];
    let probe = server.probe().with(&outside).with(&["--max", "50"]);
    let probe = probe.recorded(folder.path()).start();
    until_phase(folder.path(), "hold");
    server.signal(Signal::KILL);
    let outcome = probe.ended();
    outcome.is("server.died", "likely");
    assert_eq!(outcome.held(), 0, "{outcome}");
    // There was nothing left to hold.
    assert!(outcome.run["result"]["duration_s"].as_f64() < Some(15.0), "{outcome}");
}

#[test]
fn a_rate_beyond_this_client_is_the_clients_limit() {
    let server = Server::apart(&[]);
    // So few dials that its accept queue takes them all.
    let impossible = ["--rate", "10M", "--time-limit", "80ms"];
    let outcome = server.probe().with(&impossible).run();
    outcome.is("client.cpu", "certain");
    assert!(outcome.remedies()[0].starts_with("# --rate "), "{outcome}");
    assert!(outcome.warnings().contains(&"client_behind"), "{outcome}");
}

/// strace(1) makes the probe slow to read its host's tables, as a busy host does.
#[test]
fn what_ends_while_evidence_is_read_is_not_dialed_anew() {
    if Command::new("strace").arg("-V").output().is_err() {
        return lacking("strace");
    }
    let server = Server::apart(&["--idle-timeout", "700ms"]);
    let read = "/proc/sys/net/ipv4/tcp_abort_on_overflow";
    let slowly = ["-e", "trace=openat", "-e", "inject=openat:delay_enter=1500ms"];
    let strace = [&["strace", "-f", "-qq", "-o", "/dev/null", "-P", read], &slowly[..]];
    let probe = server.probe().by(&strace.concat());
    let outcome = probe.with(&["--max", "50", "--hold", "1s"]).run();
    outcome.is("server.idle_timeout", "likely");
    assert_eq!((outcome.count("dialed"), outcome.held()), (50, 0), "{outcome}");
}
