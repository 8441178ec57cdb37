//! `sockscope backlog TARGET --burst N` and `--find`: what becomes of many dials at once.

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sockscope::sockets::connections::Standing;

use crate::fixtures::burst::{burst, listen, standing, table};
use crate::fixtures::foreign::Foreign;
use crate::fixtures::netns::Netns;
use crate::fixtures::probing::Records;
use crate::fixtures::relay::{Shape, SlowLink};
use crate::fixtures::{Server, echoes, run, sockscope, until};

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// Runs `backlog TARGET …` by this command, and gives its exit code and document.
fn backlog(mut command: Command, target: &str, args: &[&str]) -> (Option<i32>, Value) {
    command.args(["backlog", target, "-j", "--no-record"]).args(args);
    let output = command.stdin(Stdio::null()).output().unwrap();
    (output.status.code(), document(&output))
}

/// The same of a server, from where its address leads to it; it must succeed.
fn of(server: &Server, args: &[&str]) -> Value {
    let (code, said) = backlog(server.sockscope(), &server.address, args);
    assert_eq!(code, Some(0), "{said:#}");
    said
}

fn code(doc: &Value) -> (&str, &str) {
    let verdict = &doc["verdict"];
    (verdict["code"].as_str().unwrap(), verdict["confidence"].as_str().unwrap())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value}"))
}

#[test]
fn nobody_accepts_and_the_queue_takes_its_backlog_and_one_more() {
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let somaxconn: u64 = somaxconn.trim().parse().unwrap();
    let cores = std::thread::available_parallelism().unwrap().get() as u64;
    for backlog in [0, 1, 5, 128, 1000, somaxconn + 904] {
        let listen = ["--never-accept", "--backlog", &backlog.to_string()];
        let server = Server::apart(&listen);
        let admits = backlog.min(somaxconn) + 1;
        let dials = admits + 30;
        // So many more dialers than one.
        let spare = if dials > 1000 { cores - 1 } else { 0 };
        let said = of(&server, &["--burst", &dials.to_string(), "--for", "600ms"]);
        let burst = &said["burst"];
        assert_eq!(burst["dialed"], dials, "{said:#}");
        // Two dialers on two cores may both find the last place: one of them becomes a
        // phantom, on loopback too, or the queue takes one more than it should.
        let phantoms = number(&burst["phantoms"]);
        assert!(phantoms <= spare, "{said:#}");
        let queued = number(&burst["queued"]);
        assert!((admits..=admits + spare).contains(&queued), "{said:#}");
        assert_eq!(burst["at_once"], queued + phantoms, "{said:#}");
        assert_eq!(burst["never"], dials - queued - phantoms);
        assert_eq!(burst["depth"], queued, "{said:#}");
        assert_eq!(burst["depth_at_least"], false);
        assert_eq!(burst["confirmed"], queued);
        assert_eq!(burst["delayed"], json!({}));
        assert!(number(&burst["drops"]) >= dials - queued - phantoms, "{said:#}");
        assert_eq!(said["listeners"][0]["queue_peak"], queued);
        assert_eq!(said["verdict"]["code"], "server.accept_queue");
    }
}

#[test]
fn a_burst_that_fits_loses_nothing() {
    let server = Server::apart(&["--backlog", "500"]);
    let said = of(&server, &["--burst", "400"]);
    assert_eq!(said["burst"]["at_once"], 400, "{said:#}");
    assert_eq!(said["burst"]["depth"], 400);
    assert_eq!(said["burst"]["depth_at_least"], true);
    assert_eq!(said["burst"]["accepted"], 400);
    assert_eq!(code(&said), ("requested", "certain"));
    assert!(echoes(server.connect(), "alive"));
}

#[test]
fn a_unix_queue_turns_away_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for backlog in [0, 1, 5, 128] {
        let path = format!("unix:{}", folder.path().join(backlog.to_string()).display());
        let text = backlog.to_string();
        let server =
            Server::start(&["--backlog", &text, "--never-accept", "--listen", &path]);
        let said = of(&server, &["--burst", "200", "--for", "300ms"]);
        let burst = &said["burst"];
        assert_eq!(burst["dialed"], 200, "{said:#}");
        assert_eq!(burst["at_once"], backlog + 1, "{said:#}");
        assert_eq!(burst["refused"], 200 - backlog - 1);
        assert_eq!(burst["depth"], backlog + 1);
        assert_eq!(burst["never"], 0);
        assert_eq!(burst["delayed"], json!({}));
    }
}

/// A stopped server with a backlog of 5 goes on 1.4 s after a burst: when do the dials
/// that were dropped get in?
fn delayed_by(linear: &str) -> Option<Value> {
    let netns = Netns::new()?;
    netns.sysctl("net/ipv4/tcp_syn_linear_timeouts", linear);
    let server = Server::start_in(&netns, &["--backlog", "5"]);
    server.signal(Signal::STOP);
    let mut command = netns.command(env!("CARGO_BIN_EXE_sockscope"));
    command.args(["backlog", &server.address, "-j", "--no-record", "--burst", "9"]);
    let bursting = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let at: SocketAddr = server.socket_addr();
    until("the queue is full", || {
        let queue = netns.run("ss", &["-ltnH", "sport", "=", &format!(":{}", at.port())]);
        queue.split_whitespace().nth(1) == Some("6")
    });
    let then = Instant::now() + Duration::from_millis(1400);
    while Instant::now() < then {
        std::thread::sleep(Duration::from_millis(5));
    }
    server.signal(Signal::CONT);
    Some(document(&bursting.wait_with_output().unwrap()))
}

#[test]
fn the_steps_are_those_of_the_hosts_own_syn_timer() {
    for (linear, steps, step) in [
        ("4", json!([1000, 2000, 3000, 4000, 5000, 7000]), "2s"),
        ("0", json!([1000, 3000, 7000]), "3s"),
    ] {
        let Some(said) = delayed_by(linear) else { return };
        let burst = &said["burst"];
        assert_eq!(burst["syn_steps_ms"], steps);
        assert_eq!(burst["at_once"], 6, "{said:#}");
        assert_eq!(burst["delayed"], json!({ step: 3 }), "{said:#}");
        assert_eq!(burst["never"], 0);
        assert_eq!(burst["depth"], 6);
        assert_eq!(said["verdict"]["code"], "server.slow_accept");
    }
}

#[test]
fn a_server_that_accepts_slowly_is_named_with_its_pace_and_the_backlog_that_would_do() {
    let server = Server::apart(&["--backlog", "50", "--accept-delay", "10ms"]);
    let said = of(&server, &["--burst", "100", "--for", "900ms"]);
    let burst = &said["burst"];
    let pace = burst["drains_per_s"].as_f64().unwrap();
    // One each 10 ms at the most; a busy machine makes it slower.
    assert!((10.0..=103.0).contains(&pace), "{said:#}");
    let at_once = number(&burst["at_once"]);
    assert!((51..=60).contains(&at_once), "{said:#}");
    assert_eq!(number(&burst["never"]), 100 - at_once);
    let verdict = &said["verdict"];
    assert_eq!(verdict["code"], "server.slow_accept");
    assert_eq!(verdict["confidence"], "certain");
    let summary = verdict["summary"].as_str().unwrap();
    assert!(summary.contains("a backlog of 99 would have held it"), "{summary}");
    assert_eq!(said["backlog_needed"], 99);
    let remedy = verdict["remedy"].as_array().unwrap();
    assert_eq!(
        remedy.last().unwrap(),
        "# sockscope serve --backlog 128, then restart it"
    );
}

#[test]
fn a_known_server_gets_its_own_remedy_alone() {
    let server = Foreign::start(
        r"
s = listener(3)
ready(s)
while True:
    time.sleep(0.02)
    s.accept()
",
    );
    let args = ["--burst", "30", "--for", "700ms"];
    let (code, said) = backlog(server.sockscope(), server.address(), &args);
    assert_eq!(code, Some(0));
    let remedy = said["verdict"]["remedy"].as_array().unwrap();
    assert_eq!(remedy.len(), 1, "{said:#}");
    assert!(remedy[0].as_str().unwrap().starts_with("# socket.listen(32); asyncio"));
}

const BURST: u64 = 300;
const FIRST: usize = 100;
const BACKLOG: i32 = 128;
const ADMITTED: u64 = 129;

/// A burst over a round trip of 200 ms at a server that accepts nothing; `first` dials
/// are in its queue before.
fn over_a_slow_link(v6: bool, cookies: &str, abort: &str, first: usize) -> Option<Value> {
    let round_trip = Duration::from_millis(200);
    let link = SlowLink::new(Shape { round_trip, ..Shape::default() })?;
    link.server.sysctl("net/ipv4/tcp_syncookies", cookies);
    link.server.sysctl("net/ipv4/tcp_abort_on_overflow", abort);
    let listener = listen(&link, v6, BACKLOG);
    let server = listener.local_addr().unwrap();
    let _clients = burst(&link, server, first);
    until("the first part is in the accept queue", || {
        standing(&table(&link, server), Standing::Queued) == first
    });
    let dials = (BURST - first as u64).to_string();
    let command = link.client.command(env!("CARGO_BIN_EXE_sockscope"));
    let args =
        ["--burst", &dials, "--authorized", "--for", "2500ms", "--evidence", "none"];
    let (code, said) = backlog(command, &server.to_string(), &args);
    assert_eq!(code, Some(0), "{said:#}");
    assert_eq!(said["burst"]["dialed"], BURST - first as u64);
    assert_eq!(said["burst"]["confirmed_by"], "client_signs");
    assert_eq!(said["listeners"], json!([]));
    let notes = said["warnings"].to_string();
    assert!(notes.contains("from this side alone it cannot be known"), "{notes}");
    Some(said)
}

#[test]
fn from_afar_phantoms_of_cookies_are_no_depth() {
    for (cookies, v6) in [("1", false), ("2", false), ("1", true)] {
        let Some(said) = over_a_slow_link(v6, cookies, "0", 0) else { return };
        let burst = &said["burst"];
        assert_eq!(burst["at_once"], BURST, "{cookies} {v6}: {said:#}");
        assert_eq!(burst["confirmed"], ADMITTED, "{cookies} {v6}: {said:#}");
        assert_eq!(burst["phantoms_cookie"], BURST - ADMITTED);
        assert_eq!(burst["phantoms_request_socket"], 0);
        assert_eq!(burst["phantoms"], BURST - ADMITTED);
        assert_eq!(burst["depth"], ADMITTED);
    }
}

#[test]
fn from_afar_without_cookies_the_rest_is_never_answered() {
    let Some(said) = over_a_slow_link(false, "0", "0", 0) else { return };
    let burst = &said["burst"];
    assert_eq!(burst["at_once"], ADMITTED, "{said:#}");
    assert_eq!(burst["confirmed"], ADMITTED, "{said:#}");
    assert_eq!(burst["never"], BURST - ADMITTED);
    assert_eq!(burst["depth"], ADMITTED);
}

#[test]
fn from_afar_both_kinds_of_phantoms_are_told_apart() {
    let Some(said) = over_a_slow_link(false, "1", "0", FIRST) else { return };
    let burst = &said["burst"];
    let kept = ADMITTED - FIRST as u64;
    assert_eq!(burst["at_once"], 200, "{said:#}");
    assert_eq!(burst["confirmed"], kept, "{said:#}");
    assert_eq!(burst["phantoms_request_socket"], 100, "{said:#}");
    assert_eq!(burst["phantoms_cookie"], 200 - 100 - kept);
    assert_eq!(burst["depth"], kept);
}

#[test]
fn from_afar_abort_on_overflow_shows_as_resets() {
    let Some(said) = over_a_slow_link(false, "0", "1", FIRST) else { return };
    let burst = &said["burst"];
    let kept = ADMITTED - FIRST as u64;
    assert_eq!(burst["confirmed"], kept, "{said:#}");
    assert_eq!(burst["reset"], 100, "{said:#}");
    assert_eq!(burst["phantoms"], 0);
    assert_eq!(burst["depth"], kept);
}

#[test]
fn from_afar_phantoms_do_not_make_a_queue_drain_faster() {
    let Some((client, host)) = Netns::linked() else { return };
    // At most 50 a second; with phantoms 100 and more seem to get in after 1 s.
    let args = ["--listen", "192.0.2.2:0", "--backlog", "20", "--accept-delay", "20ms"];
    let server = Server::start_in(&host, &args);
    let command = client.command(env!("CARGO_BIN_EXE_sockscope"));
    let args =
        ["--burst", "150", "--authorized", "--for", "1800ms", "--evidence", "none"];
    let (exit, said) = backlog(command, &server.address, &args);
    assert_eq!(exit, Some(0), "{said:#}");
    let pace = said["burst"]["drains_per_s"].as_f64().unwrap();
    assert!((5.0..=55.0).contains(&pace), "{said:#}");
    assert_eq!(said["burst"]["drains_at_least"], true);
    assert_eq!(code(&said), ("server.slow_accept", "likely"));
    let remedy = said["verdict"]["remedy"].as_array().unwrap();
    assert!(remedy.iter().any(|one| one == "# Redis: tcp-backlog 256, then restart it"));
}

#[test]
fn find_gives_the_depth_with_the_tries_behind_it() {
    for backlog in [0, 1, 5] {
        let text = backlog.to_string();
        let server = Server::apart(&["--backlog", &text, "--accept-delay", "60ms"]);
        let said = of(&server, &["--find", "--max", "100"]);
        let found = number(&said["find"]["deepest_without_loss"]);
        // One may be accepted meanwhile.
        assert!((backlog + 1..=backlog + 2).contains(&found), "{said:#}");
        assert_eq!(said["find"]["ended"], "found");
        let tries = said["find"]["tries"].as_array().unwrap();
        for one in tries {
            let (dialed, lost) = (number(&one["dialed"]), number(&one["lost"]));
            assert!(dialed > backlog + 1 || lost == 0, "{said:#}");
            assert!(dialed <= found || lost > 0, "{said:#}");
        }
        assert!(tries.iter().any(|one| one["dialed"] == found));
        assert!(tries.iter().any(|one| one["dialed"] == found + 1));
    }
}

#[test]
fn find_from_afar_needs_no_sight_of_the_queue() {
    let Some(link) = SlowLink::new(Shape::default()) else { return };
    // A script that accepts all that queues, each 0.3 s.
    let script = "import socket, sys, time\n\
        s = socket.socket(); s.bind(('10.77.0.2', 0)); s.listen(5)\n\
        print(s.getsockname()[1], flush=True)\n\
        s.setblocking(False)\n\
        while True:\n\
        \x20   time.sleep(0.3)\n\
        \x20   try:\n\
        \x20       while True: s.accept()\n\
        \x20   except BlockingIOError: pass\n";
    let mut python = link.server.command("python3");
    let mut server = python.args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut port = String::new();
    let stdout = server.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut port).unwrap();
    let target = format!("10.77.0.2:{}", port.trim());
    let command = link.client.command(env!("CARGO_BIN_EXE_sockscope"));
    let args = [
        &["--find", "--authorized", "--max", "8", "--pause", "700ms"][..],
        &["--evidence", "none"],
    ]
    .concat();
    let (code, said) = backlog(command, &target, &args);
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(code, Some(0), "{said:#}");
    let found = number(&said["find"]["deepest_without_loss"]);
    // A try in which the script accepts takes more.
    assert!(found >= 6, "{said:#}");
    assert!(number(&said["find"]["tries"][3]["dialed"]) == 8, "{said:#}");
}

#[test]
fn find_ends_at_its_bound_and_where_nobody_accepts() {
    let server = Server::apart(&["--backlog", "100"]);
    let said = of(&server, &["--find", "--max", "5"]);
    assert_eq!(said["find"]["deepest_without_loss"], 5);
    assert_eq!(said["find"]["ended"], "bound");
    let dialed: Vec<&Value> =
        said["find"]["tries"].as_array().unwrap().iter().map(|t| &t["dialed"]).collect();
    assert_eq!(dialed, [1, 2, 4, 5]);

    let silent = Server::apart(&["--backlog", "100", "--never-accept"]);
    let args = ["--find", "--max", "5"];
    let (code, said) = backlog(silent.sockscope(), &silent.address, &args);
    assert_eq!(code, Some(3));
    assert_eq!(said["find"]["ended"], "not_draining", "{said:#}");
}

#[test]
fn find_and_burst_say_what_stood_in_the_queue_before() {
    let server = Server::apart(&["--backlog", "9", "--never-accept"]);
    let _clients = server.connect_many(4);
    let said = of(&server, &["--burst", "20", "--for", "300ms"]);
    assert_eq!(said["burst"]["queued_before"], 4, "{said:#}");
    assert_eq!(said["burst"]["depth"], 6, "the room that was left");
    let said = of(&server, &["--find", "--max", "8"]);
    assert_eq!(said["find"]["queued_before"], 10, "{said:#}");
    assert_eq!(said["find"]["deepest_without_loss"], 0);
    assert_eq!(code(&said), ("server.accept_queue", "certain"));
}

#[test]
fn a_search_waits_until_what_others_left_is_out_of_the_queue() {
    let server = Server::apart(&["--backlog", "9", "--accept-delay", "30ms"]);
    let left = server.connect_many(10);
    drop(left);
    let said = of(&server, &["--find", "--max", "30"]);
    assert_eq!(said["find"]["queued_before"], 0, "{said:#}");
    let found = number(&said["find"]["deepest_without_loss"]);
    // One may be accepted meanwhile; on a busy machine two.
    assert!((10..=12).contains(&found), "{said:#}");
    let tries = said["find"]["tries"].as_array().unwrap();
    let eight = tries.iter().find(|one| one["dialed"] == 8).unwrap();
    // 30 ms each, the first at once.
    let drained = eight["drained_in_ms"].as_f64().unwrap();
    assert!(drained > 100.0, "{said:#}");
}

#[test]
fn a_unix_queue_is_searched_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = format!("unix:{}", folder.path().join("s").display());
    let args = ["--backlog", "5", "--accept-delay", "200ms", "--listen", &path];
    let server = Server::start(&args);
    let said = of(&server, &["--find", "--max", "30"]);
    let found = number(&said["find"]["deepest_without_loss"]);
    // One may be accepted meanwhile.
    assert!((6..=7).contains(&found), "{said:#}");
    assert_eq!(said["counters"], Value::Null);
    assert_eq!(code(&said), ("server.slow_accept", "certain"), "{said:#}");
}

#[test]
fn a_stopped_server_is_named_and_what_was_dialed_is_the_address() {
    let server = Server::apart(&["--backlog", "3", "--listen", "0.0.0.0:0"]);
    server.signal(Signal::STOP);
    let port = server.socket_addr().port().to_string();
    let args = ["--burst", "9", "--for", "300ms"];
    let (exit, said) = backlog(server.sockscope(), &port, &args);
    assert_eq!(exit, Some(0), "{said:#}");
    assert_eq!(code(&said), ("server.stopped", "certain"));
    assert_eq!(said["verdict"]["remedy"][0], format!("kill -CONT {}", server.pid()));
    assert_eq!(said["target"]["address"], format!("127.0.0.1:{port}"));
    assert_eq!(said["listeners"][0]["address"], format!("0.0.0.0:{port}"));
}

#[test]
fn a_server_without_descriptors_is_not_called_slow() {
    // Fewer than the queue admits: it is never empty again.
    let server = Server::apart(&["--backlog", "20", "--fd-limit", "24"]);
    let said = of(&server, &["--burst", "150", "--for", "500ms"]);
    assert_eq!(code(&said), ("server.fd_limit", "certain"), "{said:#}");
    assert_eq!(said["backlog_needed"], Value::Null);
}

#[test]
fn each_member_of_a_reuseport_group_takes_its_share() {
    let server = Foreign::start(
        r"
REUSE = (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
first = listener(4, set=[REUSE])
second = listener(30, first.getsockname()[1], [REUSE])
ready(first)
signal.pause()
",
    );
    // Each is missed by all of 400 dials with a probability of 2^-400.
    let args = ["--burst", "400", "--for", "500ms"];
    let (exit, said) = backlog(server.sockscope(), server.address(), &args);
    assert_eq!(exit, Some(0), "{said:#}");
    assert_eq!(said["burst"]["queued"], 5 + 31, "{said:#}");
    let mut peaks: Vec<u64> = said["listeners"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| number(&row["queue_peak"]))
        .collect();
    peaks.sort_unstable();
    assert_eq!(peaks, [5, 31]);
}

#[test]
fn here_too_cookies_and_aborts_change_what_becomes_of_a_burst_and_not_its_depth() {
    for (cookies, abort) in [("0", "0"), ("1", "0"), ("2", "0"), ("0", "1")] {
        let Some(netns) = Netns::new() else { return };
        netns.sysctl("net/ipv4/tcp_syncookies", cookies);
        netns.sysctl("net/ipv4/tcp_abort_on_overflow", abort);
        let args = ["--never-accept", "--backlog", "20"];
        let server = Server::start_in(&netns, &args);
        let program = netns.command(env!("CARGO_BIN_EXE_sockscope"));
        let burst = ["--burst", "60", "--for", "500ms"];
        let (exit, said) = backlog(program, &server.address, &burst);
        assert_eq!(exit, Some(0), "{cookies} {abort}: {said:#}");
        assert_eq!(said["burst"]["depth"], 21, "{cookies} {abort}: {said:#}");
        assert_eq!(said["burst"]["queued"], 21);
        let sysctl = &said["sysctls"]["net.ipv4.tcp_abort_on_overflow"];
        assert_eq!(sysctl.as_u64().unwrap().to_string(), abort);
        assert!(number(&said["counters"]["listen_overflows"]) > 0, "{said:#}");
    }
}

#[test]
fn another_namespace_is_measured_from_inside_it() {
    let Some(netns) = Netns::new() else { return };
    let server = Server::start_in(&netns, &["--never-accept", "--backlog", "7"]);
    let port = server.socket_addr().port().to_string();
    let args = ["--netns", &netns.name, "--burst", "20", "--for", "300ms"];
    let (exit, said) = backlog(sockscope(), &port, &args);
    assert_eq!(exit, Some(0), "{said:#}");
    assert_eq!(said["burst"]["queued"], 8, "{said:#}");
    assert_eq!(said["target"]["netns"], netns.name);
    assert_eq!(said["listeners"][0]["owners"][0]["pid"], server.pid());
}

#[test]
fn a_burst_and_a_search_are_recorded() {
    let server = Server::apart(&["--backlog", "50"]);
    for flags in [&["--burst", "40"][..], &["--find", "--max", "4"]] {
        let records = Records::new();
        let mut command = server.sockscope();
        command.args(["backlog", &server.address, "-j"]).args(flags);
        let output = command.arg("--out").arg(records.path()).output().unwrap();
        let printed = document(&output);
        let file = std::fs::read(records.run().join("run.json")).unwrap();
        let run: Value = serde_json::from_slice(&file).unwrap();
        assert_eq!(run["schema"], "sockscope.run/1");
        assert_eq!(run["backlog"], printed);
        assert_eq!(run["verdict"], printed["verdict"]);
    }
    // What was refused leaves nothing.
    let records = Records::new();
    let mut command = sockscope();
    command.args(["backlog", "192.0.2.7:80", "--burst", "9", "--out"]);
    command.arg(records.path()).output().unwrap();
    assert!(records.runs().is_empty());
}

#[test]
fn only_what_may_be_loaded_is() {
    for (args, says) in [
        (&["192.0.2.7:80", "--burst", "9"][..], "is not this host"),
        (&["192.0.2.7:80", "--find", "--authorized"], "also needs --max N"),
        (&["224.0.0.1:80", "--burst", "9", "--authorized"], "is a multicast address"),
        (&["127.0.0.1:80", "--burst", "9", "--freeze"], "cannot be used with"),
        (&["127.0.0.1:80", "--burst", "0"], "must be 1 or more"),
        (&["127.0.0.1:80", "--burst", "2M"], "at most 1M"),
        (&["--burst", "9"], "--burst needs a TARGET"),
        (&["--find"], "--find needs a TARGET"),
        (&["--freeze"], "--freeze needs a TARGET"),
        (&["127.0.0.1:80", "--authorized"], "is for --burst and --find"),
        (&["127.0.0.1:80", "--burst", "9", "--format", "csv"], "table and json"),
        (&["127.0.0.1:80", "--find", "--format", "ndjson"], "table and json"),
        (&["127.0.0.1:80", "--freeze", "--format", "openmetrics"], "table and json"),
        (&["127.0.0.1:80", "--burst", "9", "--rate", "9"], "cannot be used with"),
        (&["127.0.0.1:80", "--find", "--interval", "9ms"], "cannot be used with"),
        (&["127.0.0.1:80", "--freeze", "--for", "9s"], "cannot be used with"),
        (&["127.0.0.1:80", "--freeze", "--wait-for-overflow"], "cannot be used with"),
        (&["127.0.0.1:80", "--burst", "9", "--all-netns"], "cannot be used with"),
    ] {
        let output = run(&[&["backlog"], args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(says), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn ctrl_c_ends_a_burst_that_waits() {
    let server = Server::apart(&["--backlog", "5", "--never-accept"]);
    let mut command = server.sockscope();
    command.args(["backlog", &server.address, "--burst", "20", "--for", "10m", "-q"]);
    command.arg("--no-record");
    let bursting = command.stdout(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_child(&bursting);
    until("the queue is full", || server.listed("-tanH").contains("SYN-SENT"));
    kill_process(pid, Signal::INT).unwrap();
    let output = bursting.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\nbecame   6 at once, 14 never answered\n"), "{text}");
}

#[test]
fn the_summary_says_what_became_of_them() {
    let server = Server::apart(&["--backlog", "128", "--never-accept"]);
    let mut command = server.sockscope();
    command.args(["backlog", &server.address, "--burst", "300", "--for", "500ms"]);
    command.arg("--no-record");
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (address, pid) = (&server.address, server.pid());
    assert!(text.starts_with(&format!("{address}  sockscope[{pid}] fd ")), "{text}");
    for line in [
        "\nbacklog  128 effective (admits 129); somaxconn ",
        "\nburst    300 dials in ",
        "\nbecame   129 at once, 171 never answered\n",
        "\nserver   0 accepted, 129 queued (by the server's own table); no phantoms\n",
        "\ndepth    129 without loss\n",
        "\nverdict  server.accept_queue, certain: The queue took 129 of a burst of 300, ",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let note = String::from_utf8(output.stderr).unwrap();
    assert!(note.contains("its new clients may be turned away"), "{note}");
}
