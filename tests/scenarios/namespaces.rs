//! A server in another network namespace, over a link between the two.

use crate::fixtures::Server;
use crate::fixtures::netns::Netns;
use crate::fixtures::probe::Probe;
use crate::fixtures::rights::ForNobody;

const TARGET: &str = "192.0.2.2:2000";

#[test]
fn named_it_is_probed_freely_and_seen_to_accept() {
    let Some((here, there)) = Netns::linked() else { return };
    let server = Server::start_in(&there, &["--listen", TARGET]);
    for name in [there.name.clone(), server.pid().to_string()] {
        let outcome = Probe::of(TARGET)
            .inside(&here)
            .with(&["--target-netns", &name, "--max", "200"])
            .run();
        outcome.is("requested", "certain");
        outcome.holds(200);
        assert_eq!(outcome.run["target"]["netns"], name);
    }
}

#[test]
fn named_its_limits_are_told_apart() {
    let Some((here, there)) = Netns::linked() else { return };
    let args = ["--listen", TARGET, "--fd-limit", "100", "--backlog", "20"];
    let server = Server::start_in(&there, &args);
    let outcome =
        Probe::of(TARGET).inside(&here).with(&["--target-netns", &there.name]).run();
    outcome.is("server.fd_limit", "certain");
    assert!((80..100).contains(&outcome.held()), "{outcome}");
    outcome.fills(20);
    assert!(outcome.remedies()[0].contains(&server.pid().to_string()), "{outcome}");
}

#[test]
fn entering_a_namespace_takes_a_right() {
    let Some(netns) = Netns::new() else { return };
    let Some(nobody) = ForNobody::copy() else { return };
    let server = Server::start_in(&netns, &["--listen", "127.0.0.1:2000"]);
    for name in [netns.name.clone(), server.pid().to_string()] {
        let (exit, says) = Probe::of("127.0.0.1:2000")
            .by_program(nobody.words())
            .with(&["--target-netns", &name])
            .refused();
        assert!(exit == 3 && says.contains("cannot be entered"), "{exit} {says}");
    }
}

#[test]
fn a_loopback_address_is_each_namespaces_own() {
    let Some(netns) = Netns::new() else { return };
    let abstract_name = format!("unix:@sockscope-inside-{}", std::process::id());
    for listen in ["127.0.0.1:2000", "[::1]:2000", &abstract_name] {
        let server = Server::start_in(&netns, &["--listen", listen]);
        let pid = server.pid().to_string();
        let probe = || Probe::of(listen).with(&["--target-netns", &pid, "--max", "20"]);
        let (exit, says) = probe().refused();
        assert!(exit == 2 && says.contains("each namespace's own"), "{exit} {says}");
        // Named from within, it is the one that is dialed.
        let outcome = probe().inside(&netns).run();
        outcome.is("requested", "certain");
        outcome.holds(20);
    }
}

#[test]
fn not_named_it_is_somebody_elses() {
    let Some((here, there)) = Netns::linked() else { return };
    let server = Server::start_in(&there, &["--listen", TARGET]);
    for args in [&[][..], &["--max", "20"], &["--authorized"]] {
        let (exit, says) = Probe::of(TARGET).inside(&here).with(args).refused();
        assert!(exit == 2 && says.contains("--authorized"), "{args:?}: {exit} {says}");
        assert!(says.contains("--max N"), "{args:?}: {says}");
    }
    let args = ["--authorized", "--max", "50", "--evidence", "none"];
    let outcome = Probe::of(TARGET).inside(&here).with(&args).run();
    outcome.is("requested", "certain");
    assert_eq!((outcome.held(), outcome.level()), (50, "confirmed"), "{outcome}");
    assert_eq!(outcome.run["plan"]["rate_per_s"], 200.0);
    drop(server);
}

#[test]
fn not_named_its_side_is_seen_all_the_same_where_it_may_be_loaded() {
    let Some((here, there)) = Netns::linked() else { return };
    // Somebody else has the same address, and a listener on the same port.
    let Some(other) = Netns::new() else { return };
    other.ip(&["address", "add", "192.0.2.2/24", "dev", "lo"]);
    let _other = Server::start_in(&other, &["--listen", TARGET]);
    let args = ["--listen", TARGET, "--fd-limit", "100", "--backlog", "20"];
    let server = Server::start_in(&there, &args);
    let authorized = ["--authorized", "--max", "400", "--rate", "2000"];
    let outcome = Probe::of(TARGET).inside(&here).with(&authorized).run();
    outcome.is("server.fd_limit", "certain");
    assert_eq!(outcome.level(), "accepted", "{outcome}");
    assert!(outcome.remedies()[0].contains(&server.pid().to_string()), "{outcome}");
    assert!(outcome.warnings().contains(&"nearby"), "{outcome}");

    drop(server);
    // What is left has the address, and is not where the dials go.
    let authorized = ["--authorized", "--max", "20"];
    let outcome = Probe::of(TARGET).inside(&here).with(&authorized).run();
    outcome.is("server.not_listening", "likely");
    assert!(!outcome.warnings().contains(&"nearby"), "{outcome}");
}

#[test]
fn an_address_of_this_host_with_nobody_on_it_may_be_anothers() {
    let Some((here, _there)) = Netns::linked() else { return };
    let (exit, says) = Probe::of("192.0.2.1:2000").inside(&here).refused();
    assert!(exit == 2 && says.contains("nothing listens on it here"), "{says}");
}
