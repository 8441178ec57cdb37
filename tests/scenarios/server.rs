//! Limits of the server: each is told from the others that look the same to a client.

use rustix::process::Signal;

use crate::fixtures::foreign::Foreign;
use crate::fixtures::probe::{Probe, paste};
use crate::fixtures::rights::ForNobody;
use crate::fixtures::{Server, until};

#[test]
fn nothing_listens_on_a_port() {
    let nobody = || Probe::of("127.0.0.1:1");
    let outcome = nobody().run();
    outcome.is("server.not_listening", "certain");
    assert_eq!((outcome.exit, outcome.held()), (3, 0));
    assert!(outcome.fact("dials").ends_with("times ECONNREFUSED"), "{outcome}");
    assert_eq!(outcome.fact("LISTEN sockets for it"), "none");
    // From outside a filter could have said the same.
    let outcome = nobody().with(&["--evidence", "none"]).run();
    outcome.is("server.not_listening", "likely");
    assert_eq!(outcome.alternatives(), ["path.rejected"]);
}

#[test]
fn a_socket_file_is_missing_or_nobodys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let target = format!("unix:{}", path.display());
    let outcome = Probe::of(&target).run();
    outcome.is("server.not_listening", "certain");
    assert!(outcome.summary().contains("no socket file"), "{outcome}");
    assert_eq!(outcome.exit, 3);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let outcome = Probe::of(&target).run();
    outcome.is("server.not_listening", "certain");
    assert!(outcome.fact("dials").ends_with("times ECONNREFUSED"), "{outcome}");
}

#[test]
fn nobody_accepts() {
    let server = Server::apart(&["--never-accept", "--backlog", "128"]);
    let outcome = server.probe().with(&["--threads", "1"]).run();
    outcome.is("server.accept_queue", "certain");
    outcome.holds(0);
    assert_eq!(outcome.count("queued"), 129, "{outcome}");
    assert_eq!(outcome.fact("accept queue"), "129, full (backlog 128 + 1)");
    assert!(outcome.remedies()[0].contains(&server.pid().to_string()), "{outcome}");
    assert_eq!(outcome.run["verdict"]["next"]["ceiling"], "RLIMIT_NOFILE soft");
}

#[test]
fn from_outside_a_full_queue_has_several_causes() {
    let server = Server::apart(&["--never-accept", "--backlog", "128"]);
    let outcome = server.probe().with(&["--evidence", "none", "--threads", "1"]).run();
    outcome.is("server.accept_queue", "possible");
    assert_eq!((outcome.held(), outcome.level()), (129, "confirmed"), "{outcome}");
    // Each with what would decide: a command for the server's host.
    let port = server.address.rsplit(':').next().unwrap();
    for (code, command) in [
        ("server.fd_limit", "ls /proc/PID/fd | wc -l; grep files /proc/PID/limits"),
        ("server.stopped", "grep State /proc/PID/status"),
        ("server.unserved", &format!("ss -tan state syn-recv 'sport = :{port}'")),
        ("path.limits_new", "nft list ruleset"),
        ("path.conntrack", "sysctl net.netfilter.nf_conntrack_count"),
    ] {
        assert!(outcome.decides(code).contains(command), "{code}: {outcome}");
    }
    let queue = format!("ss -tln 'sport = :{port}'  # on the server's host: ");
    assert!(outcome.remedies()[0].starts_with(&queue), "{outcome}");
    let tell = format!("--evidence 'ssh HOST sockscope backlog :{port} --format ndjson'");
    assert!(outcome.remedies()[1].contains(&tell), "{outcome}");
    assert!(outcome.run["result"]["counts"]["accepted"].is_null());
}

#[test]
fn from_outside_what_waits_in_the_queue_is_held_and_that_is_said() {
    let server = Server::apart(&["--never-accept", "--backlog", "128"]);
    let outcome = server.probe().with(&["--evidence", "none", "--max", "100"]).run();
    outcome.is("requested", "certain");
    assert_eq!((outcome.held(), outcome.level()), (100, "confirmed"), "{outcome}");
    let said = &outcome.run["warnings"][0]["message"];
    assert!(said.as_str().unwrap().contains("in the accept queue"), "{said}");
}

#[test]
fn a_unix_queue_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let path = format!("unix:{}", folder.path().join("s").display());
    let server = Server::apart(&["--never-accept", "--backlog", "20", "--listen", &path]);
    let outcome = server.probe().run();
    outcome.is("server.accept_queue", "certain");
    assert_eq!((outcome.held(), outcome.count("queued")), (0, 21), "{outcome}");
}

#[test]
fn one_connection_at_a_time() {
    let server = Server::apart(&["--model", "iterative", "--backlog", "16"]);
    let outcome = server.probe().run();
    outcome.is("server.accept_queue", "certain");
    outcome.holds(1);
    outcome.fills(16);
}

#[test]
fn a_maximum_that_leaves_the_rest_in_the_queue() {
    let server = Server::apart(&[
        "--max-connections",
        "70",
        "--beyond",
        "ignore",
        "--backlog",
        "30",
    ]);
    let outcome = server.probe().run();
    outcome.is("server.accept_queue", "certain");
    outcome.holds(70);
    outcome.fills(30);
}

#[test]
fn its_descriptors_are_used_up_until_the_remedy_gives_it_more() {
    let server = Server::apart(&["--fd-limit", "200", "--backlog", "64"]);
    let outcome = server.probe().run();
    outcome.is("server.fd_limit", "certain");
    let taken = |fds: &[i32]| fds.iter().filter(|fd| **fd < 200).count() as u64;
    until("it has closed what the probe held", || taken(&server.open_fds()) < 30);
    outcome.holds(200 - taken(&server.open_fds()));
    outcome.fills(64);
    let of_it = format!("open fds of pid {}", server.pid());
    assert!(outcome.fact(&of_it).ends_with(" of 200"), "{outcome}");
    let remedy = outcome.remedies()[0];
    assert!(remedy.contains(&format!("prlimit --pid {}", server.pid())), "{remedy}");
    let (_, raised) = remedy.rsplit_once(':').unwrap();
    let raised: u64 = raised.parse().unwrap();
    let next = outcome.number("/verdict/next/number");
    assert!((raised - 40..raised).contains(&next), "{outcome}");

    paste(remedy);
    let outcome = server.probe().with(&["--max", "1000"]).run();
    outcome.is("requested", "certain");
    outcome.holds(1000);
}

#[test]
fn a_thread_with_an_fd_table_of_its_own_is_full() {
    let server =
        Server::apart(&["--fd-tables", "2", "--fd-limit", "100", "--backlog", "64"]);
    let outcome = server.probe().run();
    outcome.is("server.fd_limit", "certain");
    assert!((180..200).contains(&outcome.held()), "{outcome}");
    let whose = format!("open fds of pid {} thread ", server.pid());
    assert_eq!(outcome.fact(&whose), "100 of 100");
    assert_eq!(outcome.number("/result/fds/server_tables"), 3, "main's, too");
    let raised = outcome.remedies()[0].rsplit_once(':').unwrap().1;
    let raised: u64 = raised.parse().unwrap();
    let next = outcome.number("/verdict/next/number");
    assert!((2 * raised - 40..2 * raised).contains(&next), "{outcome}");
    paste(outcome.remedies()[0]);
    let outcome = server.probe().with(&["--max", "400"]).run();
    outcome.is("requested", "certain");
    outcome.holds(400);
}

#[test]
fn it_is_stopped_until_the_remedy_lets_it_go_on() {
    let server = Server::apart(&["--backlog", "64"]);
    server.signal(Signal::STOP);
    let outcome = server.probe().run();
    outcome.is("server.stopped", "certain");
    outcome.holds(0);
    outcome.fills(64);
    let state = format!("state of pid {}", server.pid());
    assert!(outcome.fact(&state).starts_with('T'), "{outcome}");
    let remedy = format!("kill -CONT {}", server.pid());
    assert_eq!(outcome.remedies(), [&remedy]);

    paste(&remedy);
    let outcome = server.probe().with(&["--max", "300"]).run();
    outcome.is("requested", "certain");
    outcome.holds(300);
}

#[test]
fn stopped_at_its_fd_limit_it_is_stopped() {
    let server = Server::apart(&["--fd-limit", "60", "--backlog", "16"]);
    let held = server.connect_many(56);
    until("its table is full", || server.open_fds().iter().any(|fd| *fd >= 59));
    server.signal(Signal::STOP);
    let outcome = server.probe().run();
    outcome.is("server.stopped", "certain");
    drop(held);
}

/// A server that holds 50 and then does `beyond`, and what a probe says of it.
fn beyond_50(beyond: &str, code: &str) {
    let server = Server::apart(&["--max-connections", "50", "--beyond", beyond]);
    let outcome = server.probe().run();
    outcome.is(code, "certain");
    outcome.holds(50);
    assert!(outcome.remedies()[0].contains(&server.pid().to_string()), "{outcome}");
    let ended = outcome.fact("new connections ended");
    assert!(ended.contains(", half of them within "), "{ended}");
    if let Some(words) = beyond.strip_prefix("reject:") {
        assert_eq!(outcome.fact("it said"), format!("\"{words}\""));
    }
    let outcome = server.probe().with(&["--evidence", "none"]).run();
    outcome.is(code, "likely");
    assert_eq!((outcome.held(), outcome.level()), (50, "confirmed"), "{outcome}");
}

#[test]
fn it_ends_its_oldest_for_new_ones() {
    let server = Server::apart(&["--max-connections", "50", "--evict-oldest"]);
    let outcome = server.probe().run();
    outcome.is("server.evicts", "likely");
    outcome.holds(50);
    assert_eq!(outcome.alternatives(), ["server.idle_timeout"]);
}

#[test]
fn it_closes_new_connections() {
    beyond_50("close", "server.closes_new");
}

#[test]
fn it_says_why_it_takes_no_more() {
    beyond_50("reject:-ERR max number of clients reached", "server.rejects");
}

#[test]
fn it_resets_new_connections() {
    beyond_50("reset", "server.resets_new");
}

#[test]
fn its_process_ends() {
    let mut server = Server::apart(&["--die-after", "60"]);
    let outcome = server.probe().run();
    outcome.is("server.died", "certain");
    outcome.holds(0);
    assert!(!server.ended().success());
    assert!(outcome.summary().contains(&format!("[{}]", server.pid())), "{outcome}");
    assert_eq!(outcome.fact("LISTEN socket"), "gone");
}

#[test]
fn its_process_ends_while_the_probe_holds() {
    let mut server = Server::apart(&[]);
    let folder = tempfile::tempdir().unwrap();
    let probe = server
        .probe()
        .with(&["--max", "50", "--hold", "1s"])
        .recorded(folder.path())
        .start();
    super::ends::until_phase(folder.path(), "hold");
    server.signal(Signal::KILL);
    server.ended();
    let outcome = probe.ended();
    outcome.is("server.died", "certain");
    outcome.holds(0);
}

#[test]
fn from_outside_lost_connections_and_refused_dials_are_a_death() {
    let server = Server::apart(&["--die-after", "60"]);
    let outcome = server.probe().with(&["--evidence", "none"]).run();
    outcome.is("server.died", "likely");
    assert_eq!(outcome.held(), 0, "{outcome}");
}

#[test]
fn what_was_idle_is_ended_by_the_server() {
    let server = Server::apart(&["--idle-timeout", "700ms"]);
    let outcome = server.probe().with(&["--max", "50", "--hold", "1500ms"]).run();
    outcome.is("server.idle_timeout", "likely");
    assert_eq!((outcome.held(), outcome.alternatives()[0]), (0, "server.evicts"));
}

#[test]
fn a_server_of_another_user_is_seen_as_far_as_an_ordinary_user_can() {
    let Some(nobody) = ForNobody::copy() else { return };
    let server = Server::apart(&["--fd-limit", "100", "--backlog", "32"]);
    let outcome = server.probe().by_program(nobody.words()).run();
    outcome.is("server.accept_queue", "likely");
    assert!((80..100).contains(&outcome.held()), "{outcome}");
    assert_eq!(outcome.level(), "accepted");
    outcome.fills(32);
    assert!(outcome.summary().contains("uid 0"), "{outcome}");
    let (program, target) = (nobody.words().pop().unwrap(), &server.address);
    assert_eq!(outcome.remedies(), [format!("sudo {program} probe {target}")]);
    assert!(outcome.alternatives().contains(&"server.fd_limit"));
}

#[test]
fn a_group_of_listeners_is_full_when_each_of_them_is() {
    let group = Foreign::start(
        "
REUSE = (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
first = listener(10, set=[REUSE])
second = listener(20, port=first.getsockname()[1], set=[REUSE])
ready(first)
signal.pause()",
    );
    let outcome = group.probe().with(&["--threads", "1"]).run();
    outcome.is("server.accept_queue", "certain");
    outcome.holds(0);
    outcome.fills(31);
}
