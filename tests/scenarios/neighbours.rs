//! A probe counts its own connections alone, and leaves nothing behind.

use std::net::TcpStream;

use rustix::process::Signal;

use crate::fixtures::netns::Netns;
use crate::fixtures::probe::Probe;
use crate::fixtures::{Server, until};

#[test]
fn two_probes_in_a_row_find_the_same() {
    let server = Server::apart(&["--max-connections", "80", "--beyond", "close"]);
    for _ in 0..2 {
        let outcome = server.probe().run();
        outcome.is("server.closes_new", "certain");
        outcome.holds(80);
    }
    let server = Server::apart(&["--fd-limit", "100", "--backlog", "20"]);
    let found = [(); 2].map(|()| server.probe().run());
    for outcome in &found {
        outcome.is("server.fd_limit", "certain");
        outcome.holds(found[0].held());
    }
}

#[test]
fn an_own_address_is_dialed_as_gently_as_loopback() {
    let Some((here, _there)) = Netns::linked() else { return };
    let args = ["--listen", "192.0.2.1:2000", "--never-accept", "--backlog", "16"];
    let server = Server::start_in(&here, &args);
    let outcome =
        Probe::of("192.0.2.1:2000").inside(&here).with(&["--threads", "1"]).run();
    outcome.is("server.accept_queue", "certain");
    outcome.fills(16);
    // One in ten milliseconds once the queue is full, not all of the window at once.
    assert!(outcome.count("dialed") < 400, "{outcome}");
    drop(server);
}

#[test]
fn other_programs_find_a_port_while_all_that_is_asked_for_is_held() {
    let Some(netns) = Netns::new() else { return };
    // The kernel gives nobody a port that a socket is bound to, whatever its address.
    netns.sysctl("net/ipv4/ip_local_port_range", "40000 40063");
    let server = Server::start_in(&netns, &["--listen", "127.0.0.1:2000"]);
    let folder = tempfile::tempdir().unwrap();
    let probe = Probe::of(&server.address)
        .inside(&netns)
        .with(&["--max", "300", "--hold", "1h"])
        .recorded(folder.path())
        .start();
    super::ends::until_phase(folder.path(), "hold");
    let others: Vec<_> = netns.inside(|| {
        let connect = |_| TcpStream::connect("127.0.0.1:2000").map(drop);
        (0..5).map(connect).collect()
    });
    probe.signal(Signal::INT);
    let outcome = probe.ended();
    outcome.holds(300);
    assert!(others.iter().all(Result::is_ok), "{others:?}");
}

#[test]
fn two_probes_at_a_time_count_each_its_own() {
    let server = Server::apart(&[]);
    let start = |n| {
        let args = ["--max", n, "--rate", "300", "--hold", "1s"];
        server.probe().with(&args).start()
    };
    let both = [("150", start("150")), ("110", start("110"))];
    for (n, probe) in both {
        let outcome = probe.ended();
        outcome.is("requested", "certain");
        outcome.holds(n.parse().unwrap());
    }
}

#[test]
fn other_clients_are_not_counted_as_ours() {
    let server = Server::apart(&["--max-connections", "100", "--beyond", "close"]);
    let others = server.connect_many(30);
    until("it has them", || server.open_fds().len() > 30);
    let outcome = server.probe().run();
    outcome.is("server.closes_new", "certain");
    outcome.holds(70);
    drop(others);

    let server = Server::apart(&["--never-accept", "--backlog", "50"]);
    let others = server.connect_many(20);
    let outcome = server.probe().run();
    outcome.is("server.accept_queue", "certain");
    outcome.holds(0);
    outcome.fills(30);
    drop(others);
}

#[test]
fn nothing_is_left_of_a_probe() {
    let Some(netns) = Netns::new() else { return };
    let tables = || netns.run("ss", &["-Htan"]);
    for (port, args) in [("2000", &[][..]), ("2001", &["--never-accept"])] {
        let listen = format!("127.0.0.1:{port}");
        let args = [&["--listen", &listen, "--backlog", "50"], args].concat();
        let server = Server::start_in(&netns, &args);
        let max = ["--max", "300"];
        let outcome = Probe::of(&server.address).inside(&netns).with(&max).run();
        assert!(outcome.count("dialed") >= 51, "{outcome}");
        // No TIME_WAIT, which a FIN would leave; at the server a dead one may queue.
        let ours = |line: &&str| !line.starts_with("LISTEN");
        let left = || tables().lines().filter(ours).any(|l| !l.starts_with("CLOSE"));
        until("all is closed", || !left());
        assert!(!tables().contains("TIME-WAIT"), "{}", tables());
    }
}

/// Where all is lost in the hold, one more dial asks whether the server is still there.
#[test]
fn nothing_is_left_of_the_dial_that_looks_whether_a_server_is_there() {
    let Some(netns) = Netns::new() else { return };
    let args = ["--listen", "127.0.0.1:2000", "--idle-timeout", "500ms"];
    let server = Server::start_in(&netns, &args);
    let args = ["--max", "30", "--evidence", "none", "--confirm", "off", "--hold", "2s"];
    let outcome = Probe::of(&server.address).inside(&netns).with(&args).run();
    outcome.is("server.idle_timeout", "likely");
    let clients = || netns.run("ss", &["-Htan", "dport = :2000"]);
    until("all is closed", || clients().is_empty());
}
