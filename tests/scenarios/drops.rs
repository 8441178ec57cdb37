//! What a server ends that it had taken, and a server or a client that is too slow.

use rustix::process::Signal;

use super::ends::until_phase;
use crate::fixtures::Server;

#[test]
fn an_idle_timeout_is_found_with_its_time_while_holding() {
    for (time, words) in [("1s", "silent for 1."), ("1500ms", "silent for 1.")] {
        let server = Server::apart(&["--idle-timeout", time]);
        let outcome = server.probe().with(&["--max", "50", "--hold", "3s"]).run();
        outcome.is("server.idle_timeout", "likely");
        assert!(outcome.summary().contains(words), "{outcome}");
        assert_eq!(
            (outcome.held(), outcome.number("/result/ended/connections")),
            (0, 50)
        );
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
    assert!(outcome.remedies()[0].starts_with("--rate "), "{outcome}");
    assert!(outcome.warnings().contains(&"client_behind"), "{outcome}");
}
