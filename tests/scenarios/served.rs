//! What is sent, what comes back, and how fast: a connection counts as held when it is
//! answered.

use rustix::process::Signal;
use serde_json::Value;

use super::ends::until_phase;
use crate::fixtures::foreign::Foreign;
use crate::fixtures::probe::{Outcome, Probe};
use crate::fixtures::{Server, probing, run};

/// A server that answers each thing it hears, `reply()` of the connections that it has;
/// an empty reply is none, and after one that ends in `bye` it closes.
const ANSWERS: &str = r"
import selectors
s = listener(1024)
ready(s)
loop = selectors.DefaultSelector()
loop.register(s, selectors.EVENT_READ)
n = 0
while True:
    for key, _ in loop.select():
        if key.fileobj is s:
            c, _ = s.accept()
            n += 1
            loop.register(c, selectors.EVENT_READ, n)
            continue
        c = key.fileobj
        try:
            heard = c.recv(4096)
        except OSError:
            heard = b''
        if heard:
            said = reply(key.data)
            c.sendall(said)
        if not heard or said.endswith(b'bye'):
            loop.unregister(c)
            c.close()
";

fn answers(reply: &str) -> Foreign {
    Foreign::start(&format!("def reply(n):\n    {reply}\n{ANSWERS}"))
}

#[track_caller]
fn serves(outcome: &Outcome, n: u64) {
    let held = (outcome.held(), outcome.level(), outcome.count("served"));
    assert_eq!(held, (n, "served", n), "{outcome}");
}

fn unserved(outcome: &Outcome, why: &str) -> u64 {
    outcome.number(&format!("/result/unserved/{why}"))
}

const PING: [&str; 6] = ["--send", r"PING\r\n", "--expect", "PING", "--max", "100"];

#[test]
fn what_is_answered_is_served_and_the_tables_still_count() {
    let server = Server::apart(&["--speak", "echo"]);
    let folder = tempfile::tempdir().unwrap();
    let outcome = server.probe().with(&PING).recorded(folder.path()).run();
    outcome.is("requested", "certain");
    serves(&outcome, 100);
    assert_eq!(outcome.count("accepted"), 100);
    let reply = |q: &str| outcome.number(&format!("/result/reply_latency_us/{q}"));
    assert!(
        0 < reply("p50") && reply("p50") <= reply("p99") && reply("p99") <= reply("max")
    );
    let run = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let timeline = probing::timeline(&run);
    assert!(timeline.iter().any(|s| s["served"] == 100), "{timeline:?}");
    assert!(timeline.iter().any(|s| s["reply_p99_us"].as_u64() > Some(0)));
    assert!(probing::sockets(&run).iter().all(|row| row["level"] == "served"));
    assert_eq!(Outcome::recorded(&run)["plan"]["send"], r"PING\r\n");
}

#[test]
fn from_outside_a_reply_confirms_and_no_keepalive_is_sent() {
    let server = Server::apart(&["--speak", "echo"]);
    let outcome = server.probe().with(&PING).with(&["--evidence", "none"]).run();
    outcome.is("requested", "certain");
    serves(&outcome, 100);
    let result = &outcome.run["result"];
    assert_eq!(result["counts"]["confirmed"], Value::Null, "{outcome}");
    assert_eq!(result["confirmation"], Value::Null, "{outcome}");
}

#[test]
fn without_expect_any_reply_will_do_and_with_it_another_is_none() {
    let server = Server::apart(&["--speak", "echo"]);
    let outcome = server.probe().with(&["--send", "x", "--max", "20"]).run();
    serves(&outcome, 20);
    let other = ["--send", "x", "--expect", "y", "--reply-timeout", "300ms"];
    let outcome = server.probe().with(&other).with(&["--max", "20"]).run();
    outcome.is("server.unserved", "certain");
    assert_eq!((outcome.held(), outcome.level()), (0, "served"), "{outcome}");
    assert!(unserved(&outcome, "other_reply") > 0);
}

#[test]
fn http_is_spoken_over_ipv4_and_ipv6() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let server = Server::apart(&["--speak", "http", "--listen", address]);
        let target = format!("http://{}/any?thing", server.address);
        let outcome = server.probe_at(&target).with(&["--max", "100"]).run();
        outcome.is("requested", "certain");
        serves(&outcome, 100);
        assert_eq!(outcome.run["target"]["kind"], "http");
    }
}

#[test]
fn a_protocol_is_spoken_by_its_name() {
    for (speak, replies) in [
        ("http", "http"),
        ("smtp", r"banner:220 hi\r\n"),
        ("ssh", r"banner:SSH-2.0-x\r\n"),
    ] {
        let server = Server::apart(&["--speak", replies]);
        let outcome = server.probe().with(&["--speak", speak, "--max", "20"]).run();
        outcome.is("requested", "certain");
        serves(&outcome, 20);
        let plan = &outcome.run["plan"];
        assert_eq!(plan["send"].is_null(), speak != "http", "{plan}");
    }
    // A web server is no Redis.
    let server = Server::apart(&["--speak", "http"]);
    let other = ["--speak", "redis", "--max", "20", "--reply-timeout", "300ms"];
    let outcome = server.probe().with(&other).run();
    assert_eq!((outcome.code(), outcome.held()), ("server.unserved", 0), "{outcome}");
    assert_eq!(outcome.run["plan"]["expect"], "+PONG or -NOAUTH");
    let (exit, says) =
        server.probe_at(&format!("http://{}/", server.address)).with(&other).refused();
    assert!(exit == 2 && says.contains("--speak is for tcp://"), "{exit} {says}");
}

/// Its close with bytes unread is a RST; the words came before that.
#[test]
fn words_are_heard_before_a_reset() {
    let server = Foreign::start(
        "
s = listener(1024)
ready(s)
held = []
while True:
    c, _ = s.accept()
    if len(held) < 30:
        c.sendall(b'+PONG')
        held.append(c)
    else:
        c.sendall(b'-ERR full')
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\\1\\0\\0\\0\\0\\0\\0\\0')
        c.close()",
    );
    let outcome = server.probe().with(&["--speak", "redis"]).run();
    outcome.is("server.rejects", "certain");
    serves(&outcome, 30);
    assert_eq!(outcome.fact("it said"), "\"-ERR full\"");
}

#[test]
fn an_http_status_that_is_no_answer_is_counted_by_its_name() {
    // The first 30 connections are served, whatever the path is.
    let server = answers(
        "return b'HTTP/1.1 %d X\\r\\nContent-Length: 0\\r\\n\\r\\n' % (404 if n <= 30 else 503)",
    );
    let outcome = server.probe_http().run();
    outcome.is("server.unserved", "certain");
    serves(&outcome, 30);
    assert!(unserved(&outcome, "http_503") > 0, "{outcome}");
    assert!(!outcome.fact("HTTP status 503").is_empty());
}

#[test]
fn a_server_that_answers_503_and_closes_rejects() {
    let server = answers(
        "return b'HTTP/1.1 200 OK\\r\\n\\r\\n' if n <= 30 else b'HTTP/1.1 503 No\\r\\n\\r\\nbye'",
    );
    let outcome = server.probe_http().run();
    outcome.is("server.rejects", "certain");
    serves(&outcome, 30);
    assert!(outcome.number("/result/errors/http_503") > 0, "{outcome}");
    assert!(outcome.fact("it said").contains("503"), "{outcome}");
}

#[test]
fn a_server_that_closes_after_each_answer_keeps_none() {
    let server = answers("return b'HTTP/1.0 200 OK\\r\\n\\r\\nbye'");
    let outcome = server.probe_http().with(&["--patience", "500ms"]).run();
    outcome.is("server.closes_new", "certain");
    assert!(outcome.summary().contains("answers, but closes"), "{outcome}");
    assert!(outcome.held() < 5, "{outcome}");
}

#[test]
fn a_server_that_speaks_first_is_waited_for() {
    let server = Server::apart(&["--speak", r"banner:220 hi\r\n"]);
    for evidence in ["auto", "none"] {
        let greeting = ["--expect", "220", "--max", "100", "--evidence", evidence];
        let outcome = server.probe().with(&greeting).run();
        outcome.is("requested", "certain");
        serves(&outcome, 100);
    }
}

#[test]
fn accepted_and_never_answered_is_not_held() {
    let server = Server::apart(&["--speak", "nothing"]);
    let ask = ["--send", "x", "--reply-timeout", "300ms"];
    let outcome = server.probe().with(&ask).run();
    outcome.is("server.unserved", "certain");
    assert_eq!((outcome.held(), outcome.level()), (0, "served"), "{outcome}");
    // A few tell as much as many.
    assert!(outcome.count("dialed") < 200, "{outcome}");
    assert_eq!(unserved(&outcome, "no_reply"), outcome.count("accepted"));

    let outcome = server.probe().with(&ask).with(&["--evidence", "none"]).run();
    outcome.is("server.unserved", "likely");
    assert!(outcome.alternatives().contains(&"server.accept_queue"), "{outcome}");
}

#[test]
fn what_waits_in_the_accept_queue_is_not_blamed_on_the_application() {
    let server = Server::apart(&["--never-accept", "--backlog", "64"]);
    let ask = ["--send", "x", "--reply-timeout", "300ms"];
    let outcome = server.probe().with(&ask).run();
    outcome.is("server.accept_queue", "certain");
    assert_eq!((outcome.held(), outcome.count("accepted")), (0, 0), "{outcome}");
}

#[test]
fn a_late_reply_is_told_from_none() {
    let server = answers("time.sleep(0.4); return b'x'");
    let ask = ["--send", "x", "--reply-timeout", "200ms", "--max", "3", "--hold", "2s"];
    let outcome = server.probe().with(&ask).run();
    outcome.is("server.unserved", "certain");
    assert_eq!(outcome.held(), 0, "{outcome}");
    assert!(outcome.number("/result/reply_latency_us/p50") > 200_000, "{outcome}");
}

/// A RST that is met while the request is sent is no FIN: send(2) takes its error.
#[test]
fn what_is_reset_before_it_is_asked_was_reset() {
    let server = Server::apart(&[
        "--max-connections",
        "20",
        "--beyond",
        "reset",
        "--speak",
        "echo",
    ]);
    let ask =
        ["--evidence", "none", "--threads", "1", "--patience", "2s", "--max", "2000"];
    let outcome = server.probe().with(&PING[..4]).with(&ask).run();
    outcome.is("server.resets_new", "likely");
    assert!(outcome.number("/result/errors/reset") > 500, "{outcome}");
    assert_eq!(outcome.run["result"]["errors"].get("closed"), None, "{outcome}");
    assert!(outcome.alternatives().contains(&"server.closes_new"), "{outcome}");
}

/// A probe that holds and asks again, of a server that is stopped while it holds.
fn stopped_while_held(evidence: &str) -> Outcome {
    let server = Server::apart(&["--speak", "echo"]);
    let folder = tempfile::tempdir().unwrap();
    let ask = ["--ping", "300ms", "--reply-timeout", "300ms", "--hold", "2s"];
    let probe = server.probe().with(&PING).with(&ask).with(&["--evidence", evidence]);
    let probe = probe.recorded(folder.path()).start();
    until_phase(folder.path(), "hold");
    server.signal(Signal::STOP);
    probe.ended()
}

#[test]
fn asked_again_a_stopped_server_is_found_out() {
    let outcome = stopped_while_held("auto");
    outcome.is("server.stopped", "certain");
    assert_eq!((outcome.held(), outcome.count("served")), (0, 100), "{outcome}");
}

#[test]
fn asked_again_a_server_that_forgets_is_found_out_from_outside() {
    let outcome = stopped_while_held("none");
    outcome.is("server.unserved", "likely");
    assert_eq!((outcome.held(), outcome.count("served")), (0, 100), "{outcome}");
    assert_eq!(outcome.fact("asked again in vain"), "100");
}

#[test]
fn pings_keep_a_connection_from_its_idle_timeout() {
    let server = Server::apart(&["--speak", "echo", "--idle-timeout", "1500ms"]);
    let keep = ["--ping", "300ms", "--hold", "3s"];
    let outcome = server.probe().with(&PING).with(&keep).run();
    outcome.is("requested", "certain");
    serves(&outcome, 100);
}

#[test]
fn latency_that_grows_with_the_count_ends_it_where_it_was_still_met() {
    // 20 µs for each connection it has: at 500/s that is all its time with 100.
    let server = answers("time.sleep(n * 2e-5); return b'x'");
    let limit = ["--stop-at-latency", "p50<40ms", "--rate", "500", "--time-limit", "15s"];
    let outcome = server.probe().with(&["--send", "x"]).with(&limit).run();
    outcome.is("server.latency", "likely");
    assert!(outcome.held() > 0, "{outcome}");
    assert!(outcome.held() < outcome.count("established"), "{outcome}");
    assert!(outcome.summary().contains("p50<40ms"), "{outcome}");
}

/// As fast as it goes the answers of so slow a server take 100 ms; at a pace that it can
/// keep they take one.
#[test]
fn latency_that_the_load_makes_is_none_of_the_count() {
    let server = answers("time.sleep(3e-4); return b'x'");
    let limit = ["--stop-at-latency", "p50<30ms", "--max", "1500"];
    let outcome = server.probe().with(&["--send", "x"]).with(&limit).run();
    outcome.is("requested", "certain");
    serves(&outcome, 1500);
}

#[test]
fn latency_is_met_up_to_all_that_was_asked_for() {
    let server = Server::apart(&["--speak", "echo"]);
    let limit = ["--stop-at-latency", "p99<10s"];
    let outcome = server.probe().with(&PING).with(&limit).run();
    outcome.is("requested", "certain");
    serves(&outcome, 100);
}

#[test]
fn wrong_words_are_refused_in_one_line() {
    for (args, says) in [
        (&["--stop-at-latency", "p99"][..], "a latency is written 'p99<50ms'"),
        (&["--stop-at-latency", "p99<fast"], "a latency is written 'p99<50ms'"),
        (&["--ping", "1s"], "--ping has nothing to ask"),
        (&["--ping", "1s", "--expect", "x"], "--ping asks again"),
        (&["--reply-timeout", "1s"], "--reply-timeout has no reply to wait for"),
        (&["--send", r"\q"], r"\q is no escape"),
        (&["--send", ""], "must not be empty"),
        (&["--send", "x", "--reply-timeout", "0s"], "longer than 0s"),
    ] {
        let (exit, stderr) = Probe::of("127.0.0.1:1").with(args).refused();
        assert_eq!(exit, 2, "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
    for (target, says) in [
        ("https://127.0.0.1/", "write tcp://127.0.0.1:443"),
        ("http://127.0.0.1:0/", "ports are 1 to 65535"),
    ] {
        let (exit, stderr) = Probe::of(target).refused();
        assert_eq!((exit, stderr.contains(says)), (2, true), "{stderr}");
    }
    let (exit, stderr) =
        Probe::of("http://127.0.0.1:1/").with(&["--send", "x"]).refused();
    assert_eq!((exit, stderr.contains("asked by GET")), (2, true), "{stderr}");
}

#[test]
fn help_names_what_can_be_asked() {
    let help = String::from_utf8(run(&["probe", "--help"]).stdout).unwrap();
    for option in ["--send", "--expect", "--reply-timeout", "--ping", "--stop-at-latency"]
    {
        assert!(help.contains(option), "{option}");
    }
}
