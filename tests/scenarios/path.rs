//! Limits of the way to the server, each in a network namespace of its own.

use crate::fixtures::Server;
use crate::fixtures::netns::Netns;
use crate::fixtures::probe::{Outcome, Probe};

/// A server on port 2000 of a namespace with this filter.
fn behind(rule: &str) -> Option<(Netns, Server)> {
    let netns = Netns::new()?;
    let server = Server::start_in(&netns, &["--listen", "127.0.0.1:2000"]);
    netns.filter(&format!("tcp dport 2000 {rule}"));
    Some((netns, server))
}

fn probe(netns: &Netns, server: &Server, args: &[&str]) -> Outcome {
    Probe::of(&server.address).inside(netns).with(args).run()
}

#[test]
fn a_filter_that_drops_everything() {
    let Some((netns, server)) = behind("drop") else { return };
    let outcome = probe(&netns, &server, &[]);
    outcome.is("path.filtered", "certain");
    assert_eq!((outcome.held(), outcome.exit), (0, 3));
    assert!(outcome.fact("unanswered dials").ends_with("heard nothing"), "{outcome}");
    // Without the listener in sight, nobody may be there.
    let outcome = probe(&netns, &server, &["--evidence", "none"]);
    outcome.is("path.filtered", "likely");
    let others = ["path.unreachable", "server.accept_queue", "path.conntrack"];
    assert_eq!(outcome.alternatives(), others);
}

#[test]
fn a_filter_that_refuses_is_not_a_port_without_a_listener() {
    for rule in ["reject with tcp reset", "reject"] {
        let Some((netns, server)) = behind(rule) else { return };
        let outcome = probe(&netns, &server, &[]);
        outcome.is("path.rejected", "certain");
        assert_eq!((outcome.held(), outcome.exit), (0, 3), "{rule}: {outcome}");
        let outcome = probe(&netns, &server, &["--evidence", "none"]);
        outcome.is("server.not_listening", "likely");
        assert_eq!(outcome.alternatives(), ["path.rejected"]);
    }
}

#[test]
fn a_filter_that_calls_a_listener_unreachable_refuses() {
    for kind in ["host-unreachable", "admin-prohibited"] {
        let rule = format!("reject with icmp type {kind}");
        let Some((netns, server)) = behind(&rule) else { return };
        let outcome = probe(&netns, &server, &[]);
        outcome.is("path.rejected", "likely");
        assert_eq!(outcome.exit, 3, "{outcome}");
        let outcome = probe(&netns, &server, &["--evidence", "none"]);
        outcome.is("path.unreachable", "likely");
        assert_eq!(outcome.alternatives(), ["path.rejected"]);
    }
}

#[test]
fn a_filter_that_counts_connections() {
    let Some((netns, server)) = behind("ct state new ct count over 100 drop") else {
        return;
    };
    let outcome = probe(&netns, &server, &[]);
    outcome.is("path.limits_new", "likely");
    outcome.holds(100);
    assert_eq!(outcome.alternatives(), ["path.conntrack", "path.rate_limited"]);
    assert_eq!(outcome.fact("accept queue"), "0 of 4,097");
}

const SYNS: &str = "tcp flags & (syn | ack) == syn";
/// Long enough for ten whole seconds, on a busy machine too.
const LONG: [&str; 4] = ["--time-limit", "15s", "--confirm", "off"];

#[test]
fn a_filter_that_limits_new_connections_by_the_second() {
    let rule = format!("{SYNS} limit rate over 20/second drop");
    let Some((netns, server)) = behind(&rule) else { return };
    let outcome = probe(&netns, &server, &LONG);
    outcome.is("path.rate_limited", "likely");
    assert_eq!(outcome.alternatives(), ["path.conntrack"]);
    assert_eq!(outcome.fact("accept queue"), "0 of 4,097");
    let even = outcome.fact("established");
    assert!(even.starts_with("20/s ± ") || even.starts_with("19/s ± "), "{outcome}");
    // No more than the rule lets through: its burst of 5, and 20 a second.
    let duration_s = outcome.run["result"]["duration_s"].as_f64().unwrap();
    #[allow(clippy::cast_precision_loss)]
    let held = outcome.held() as f64;
    assert!((100.0..=5.0 + 20.0 * duration_s).contains(&held), "{outcome}");
}

#[test]
fn such_a_filter_from_outside_at_a_rate_of_our_own() {
    let rule = format!("{SYNS} limit rate over 100/second drop");
    let Some((netns, server)) = behind(&rule) else { return };
    let args = [&LONG[..2], &["--rate", "200", "--evidence", "none"]].concat();
    let outcome = probe(&netns, &server, &args);
    outcome.is("path.rate_limited", "possible");
    let others = ["server.slow_accept", "path.conntrack"];
    assert_eq!(outcome.alternatives(), others, "{outcome}");
}

/// As many are lost as by the filter, but by chance.
#[test]
fn a_link_that_loses_packets_does_not_limit_new_connections() {
    let rule = format!("{SYNS} numgen random mod 100 < 60 drop");
    let Some((netns, server)) = behind(&rule) else { return };
    let args = [&LONG[..], &["--rate", "60"]].concat();
    let outcome = probe(&netns, &server, &args);
    assert_ne!(outcome.code(), "path.rate_limited", "{outcome}");
    assert!(!outcome.alternatives().contains(&"path.rate_limited"), "{outcome}");
    assert!(outcome.held() > 300, "{outcome}");
}

#[test]
fn no_way_leads_there() {
    let Some(netns) = Netns::new() else { return };
    let far = |target: &str| {
        Probe::of(target).inside(&netns).with(&["--authorized", "--max", "20"]).run()
    };
    let no_route = far("192.0.2.1:80");
    no_route.is("path.unreachable", "certain");
    assert!(no_route.fact("dials").ends_with("ENETUNREACH"), "{no_route}");
    assert_eq!((no_route.exit, no_route.remedies()[0]), (3, "ip route get 192.0.2.1"));
    far("[2001:db8::1]:80").is("path.unreachable", "certain");

    netns.ip(&["route", "add", "unreachable", "192.0.2.0/24"]);
    let unreachable = far("192.0.2.1:80");
    // A filter may say that, too.
    unreachable.is("path.unreachable", "likely");
    assert!(unreachable.fact("dials").ends_with("EHOSTUNREACH"), "{unreachable}");

    netns.ip(&["route", "add", "prohibit", "198.51.100.0/24"]);
    let forbidden = far("198.51.100.1:80");
    forbidden.is("path.rejected", "certain");
    assert!(forbidden.fact("dials").ends_with("EACCES"), "{forbidden}");
}

#[test]
fn the_loopback_interface_is_down() {
    let Some(netns) = Netns::new() else { return };
    netns.ip(&["address", "flush", "dev", "lo"]);
    netns.ip(&["link", "set", "lo", "down"]);
    let outcome = Probe::of("127.0.0.1:80").inside(&netns).run();
    outcome.is("path.unreachable", "certain");
    assert!(outcome.remedies()[0].contains("ip link set lo up"), "{outcome}");
}

#[test]
fn a_host_that_is_not_there() {
    let Some(netns) = Netns::new() else { return };
    netns.ip(&["link", "add", "near", "type", "veth", "peer", "far"]);
    for end in ["near", "far"] {
        netns.ip(&["link", "set", end, "up"]);
    }
    netns.ip(&["address", "add", "192.0.2.1/24", "dev", "near"]);
    // A listener on all addresses of this host does not answer for those of others.
    let server = Server::start_in(&netns, &["--listen", "0.0.0.0:0"]);
    let target = format!("192.0.2.7:{}", server.socket_addr().port());
    let probe = Probe::of(&target).inside(&netns);
    let outcome = probe.with(&["--authorized", "--max", "20"]).run();
    outcome.is("path.unreachable", "likely");
    assert!(outcome.run["result"]["counts"]["accepted"].is_null(), "{outcome}");
    // It tried all 20, and waited for them: that is not to be behind.
    assert!(!outcome.warnings().contains(&"client_behind"), "{outcome}");
    assert!(outcome.fact("dials").ends_with("EHOSTUNREACH"), "{outcome}");
}
