//! Nothing stops the probe: all that was asked for is held.

use crate::fixtures::Server;
use crate::fixtures::foreign::Foreign;
use crate::fixtures::netns::Netns;
use crate::fixtures::probe::{Outcome, Probe};

const MAX: [&str; 2] = ["--max", "200"];

#[track_caller]
fn holds_all(outcome: &Outcome) {
    outcome.is("requested", "certain");
    outcome.holds(200);
    assert_eq!((outcome.count("dialed"), outcome.exit), (200, 0), "{outcome}");
    assert_eq!(outcome.number("/result/phantoms/total"), 0);
    assert!(outcome.run["verdict"]["next"]["number"].as_u64().unwrap() > 200);
}

#[test]
fn all_that_was_asked_for_is_accepted() {
    let server = Server::apart(&[]);
    holds_all(&server.probe().with(&MAX).run());
}

#[test]
fn what_binds_next_is_the_limit_of_the_server() {
    let server = Server::apart(&["--fd-limit", "1000"]);
    let outcome = server.probe().with(&MAX).run();
    holds_all(&outcome);
    assert_eq!(outcome.run["verdict"]["next"]["ceiling"], "RLIMIT_NOFILE soft");
    let next = outcome.number("/verdict/next/number");
    assert!((960..1000).contains(&next), "{outcome}");
}

#[test]
fn every_kind_of_address_is_counted_at_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = format!("unix:{}", folder.path().join("s").display());
    let name = format!("unix:@sockscope-test-{}", std::process::id());
    for address in ["[::1]:0", &path, &name] {
        let server = Server::apart(&["--listen", address]);
        holds_all(&server.probe().with(&MAX).run());
    }
}

#[test]
fn every_model_of_a_server_is_seen_to_accept() {
    for model in ["event", "thread", "fork"] {
        let server = Server::apart(&["--model", model]);
        let outcome = server.probe().with(&["--max", "40"]).run();
        outcome.is("requested", "certain");
        outcome.holds(40);
    }
    let server = Server::apart(&["--threads", "3"]);
    holds_all(&server.probe().with(&MAX).run());
}

#[test]
fn connections_come_from_every_source_that_was_named() {
    let Some(netns) = Netns::new() else { return };
    // One source alone has 120 ports.
    netns.sysctl("net/ipv4/ip_local_reserved_ports", "1024-39999,40120-65535");
    let server = Server::start_in(&netns, &["--listen", "127.0.0.1:2000"]);
    let sources = ["--source", "127.0.0.1", "--source", "127.0.0.8/30"];
    holds_all(&Probe::of(&server.address).inside(&netns).with(&MAX).with(&sources).run());
}

#[test]
fn a_listener_on_both_families_is_probed_by_either() {
    let Some(netns) = Netns::new() else { return };
    let _server = Server::start_in(&netns, &["--listen", "[::]:2000"]);
    for address in ["127.0.0.1:2000", "[::1]:2000"] {
        holds_all(&Probe::of(address).inside(&netns).with(&MAX).run());
    }
}

#[test]
fn the_listeners_that_share_a_port_count_together() {
    let both = Foreign::start(
        "
REUSE = (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
first = listener(300, set=[REUSE])
second = listener(300, port=first.getsockname()[1], set=[REUSE])
def accept(s, held=[]):
    while True:
        held.append(s.accept())
for s in first, second:
    threading.Thread(target=accept, args=[s], daemon=True).start()
ready(first)
signal.pause()",
    );
    holds_all(&both.probe().with(&MAX).run());
}
