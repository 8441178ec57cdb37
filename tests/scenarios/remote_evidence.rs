//! A server on another host, seen by a command that runs there: `ip netns exec` stands in
//! for ssh.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, test_kill_process};
use serde_json::Value;

use crate::fixtures::netns::Netns;
use crate::fixtures::probing::{Running, json, number, stderr};
use crate::fixtures::{Server, run, sockscope, until};

const TARGET: &str = "192.0.2.2:2000";
const PROGRAM: &str = env!("CARGO_BIN_EXE_sockscope");

fn serve(there: &Netns, args: &[&str]) -> Server {
    let program = there.command(PROGRAM);
    Server::start_by(program, &[&["--listen", TARGET], args].concat())
}

/// The command that tells of it.
fn telling(there: &Netns, args: &str) -> String {
    let name = &there.name;
    format!("ip netns exec {name} {PROGRAM} backlog {TARGET} --format ndjson {args}")
}

/// A probe of `max`, quick, with these further arguments.
fn probe(here: &Netns, max: &str, args: &[&str]) -> Command {
    let mut command = here.command(PROGRAM);
    command
        .args(["probe", TARGET, "--authorized", "--rate", "2000", "--max", max])
        .args(["--patience", "1s", "--format", "json"])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The same with that evidence, to its end.
fn probed(here: &Netns, max: &str, evidence: &str) -> Outcome {
    let args = ["--hold", "200ms", "--no-record", "--evidence", evidence];
    let done = probe(here, max, &args).output().unwrap();
    Outcome { run: json(&done, 0), stderr: stderr(&done) }
}

/// What a probe said.
struct Outcome {
    run: Value,
    stderr: String,
}

impl Outcome {
    fn text(&self, at: &str) -> &str {
        self.run.pointer(at).and_then(Value::as_str).unwrap_or_else(|| panic!("no {at}"))
    }

    fn confidence(&self) -> &str {
        self.text("/verdict/confidence")
    }

    /// The codes of its warnings about the evidence.
    fn warnings(&self) -> Vec<&str> {
        let all = self.run["warnings"].as_array().unwrap().iter();
        let codes = all.map(|warning| warning["code"].as_str().unwrap());
        codes.filter(|code| code.starts_with("evidence")).collect()
    }

    fn count(&self, name: &str) -> u64 {
        number(&self.run, &format!("/result/counts/{name}"))
    }

    #[track_caller]
    fn is(&self, code: &str, confidence: &str) {
        let verdict = (self.text("/verdict/code"), self.confidence());
        assert_eq!(verdict, (code, confidence), "{self}");
    }

    #[track_caller]
    fn holds(&self, n: u64, level: &str) {
        let held = number(&self.run, "/result/practical_max");
        assert_eq!((held, self.text("/result/level")), (n, level), "{self}");
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verdict, result) = (&self.run["verdict"], &self.run["result"]);
        write!(f, "{verdict:#} {result:#} {}", self.stderr)
    }
}

const COUNTED: &str = "--count-from 192.0.2.1";

#[test]
fn told_of_its_fds_it_is_at_its_fd_limit_for_certain() {
    let Some((here, there)) = Netns::linked() else { return };
    let server = serve(&there, &["--fd-limit", "100", "--backlog", "20"]);
    let outcome = probed(&here, "400", &telling(&there, COUNTED));
    outcome.is("server.fd_limit", "certain");
    let accepted = outcome.count("accepted");
    outcome.holds(accepted, "accepted");
    assert!((80..100).contains(&accepted), "{outcome}");
    assert_eq!(outcome.count("queued"), 21, "{outcome}");
    let fact = &outcome.run["verdict"]["evidence"][0];
    assert_eq!(fact["fact"], format!("open fds of pid {}", server.pid()), "{outcome}");
    assert_eq!(fact["value"], "100 of 100", "{outcome}");
    let raise = outcome.text("/verdict/remedy/0");
    assert!(raise.starts_with("prlimit --pid"), "{outcome}");
    let source = fact["source"].as_str().unwrap();
    assert!(source.contains("on the server's host, by ip netns exec"), "{outcome}");
    let seen_by = &outcome.run["target"]["seen_by"];
    assert!(seen_by["samples"].as_u64() > Some(5), "{outcome}");
    // Both have the same clock: what is left is the way of the fastest sample.
    assert!((0..1_000_000).contains(&seen_by["clock_offset_max_us"].as_i64().unwrap()));
    assert_eq!(outcome.run["plan"]["evidence"], telling(&there, COUNTED));
    assert_eq!(outcome.warnings(), ["evidence_count_from"], "{outcome}");
}

#[test]
fn without_counts_the_verdict_is_as_certain_and_the_level_is_the_clients() {
    let Some((here, there)) = Netns::linked() else { return };
    let _server = serve(&there, &["--fd-limit", "100", "--backlog", "20"]);
    let outcome = probed(&here, "400", &telling(&there, ""));
    outcome.is("server.fd_limit", "certain");
    assert_eq!(outcome.text("/result/level"), "confirmed", "{outcome}");
    assert!(outcome.warnings().is_empty(), "{outcome}");
}

#[test]
fn told_of_its_queue_a_server_that_never_accepts_is_found_out() {
    let Some((here, there)) = Netns::linked() else { return };
    // 40 fit into the queue, and none is accepted.
    for (max, queued) in [("40", 40), ("300", 51)] {
        let _server = serve(&there, &["--never-accept", "--backlog", "50"]);
        let outcome = probed(&here, max, &telling(&there, COUNTED));
        outcome.is("server.accept_queue", "certain");
        outcome.holds(0, "accepted");
        assert_eq!(outcome.count("queued"), queued, "{outcome}");
    }
}

#[test]
fn told_of_its_state_a_stopped_server_is_found_out() {
    let Some((here, there)) = Netns::linked() else { return };
    let server = serve(&there, &["--backlog", "30"]);
    server.signal(Signal::STOP);
    let outcome = probed(&here, "200", &telling(&there, COUNTED));
    server.signal(Signal::CONT);
    outcome.is("server.stopped", "certain");
    let resume = format!("kill -CONT {}  # on the server's host", server.pid());
    assert_eq!(outcome.text("/verdict/remedy/0"), resume);
}

#[test]
fn all_that_was_asked_for_is_accepted_by_the_servers_table() {
    let Some((here, there)) = Netns::linked() else { return };
    let _server = serve(&there, &[]);
    let outcome = probed(&here, "300", &telling(&there, COUNTED));
    outcome.is("requested", "certain");
    outcome.holds(300, "accepted");
}

#[test]
fn connections_that_were_there_from_the_same_address_are_left_out() {
    let Some((here, there)) = Netns::linked() else { return };
    let _server = serve(&there, &[]);
    let other = ["--hold", "20s", "--no-record"];
    let other = Running::start(&mut probe(&here, "10", &other));
    until("the other's connections are there", || {
        let listed = there.command("ss").args(["-tnH", "state", "established"]).output();
        String::from_utf8(listed.unwrap().stdout).unwrap().lines().count() == 10
    });
    let outcome = probed(&here, "100", &telling(&there, COUNTED));
    drop(other);
    outcome.is("requested", "certain");
    outcome.holds(100, "accepted");
}

#[test]
fn counts_from_other_addresses_than_are_dialed_from_are_not_taken() {
    let Some((here, there)) = Netns::linked() else { return };
    let _server = serve(&there, &[]);
    let evidence = telling(&there, "--count-from 198.51.100.0/24");
    let outcome = probed(&here, "20", &evidence);
    outcome.is("requested", "certain");
    assert_eq!(outcome.text("/result/level"), "confirmed", "{outcome}");
    assert_eq!(outcome.warnings(), ["evidence_counts"], "{outcome}");
}

#[test]
fn a_server_that_dies_is_seen_to_by_the_command() {
    let Some((here, there)) = Netns::linked() else { return };
    let mut server = serve(&there, &["--die-after", "60"]);
    let outcome = probed(&here, "200", &telling(&there, ""));
    outcome.is("server.died", "certain");
    server.ended();
}

#[test]
fn a_clock_that_is_wrong_by_hours_makes_no_difference() {
    let Some((here, there)) = Netns::linked() else { return };
    let _server = serve(&there, &["--fd-limit", "100", "--backlog", "20"]);
    for hours in [-5, 3] {
        let shift = format!(
            "import json, sys\nfor line in sys.stdin:\n    s = json.loads(line)\n    \
             s['clock_unix_us'] += {hours} * 3600 * 10**6\n    print(json.dumps(s), \
             flush=True)"
        );
        let evidence = format!("{} | python3 -c \"{shift}\"", telling(&there, COUNTED));
        let outcome = probed(&here, "400", &evidence);
        outcome.is("server.fd_limit", "certain");
        assert_eq!(outcome.warnings(), ["evidence_count_from"], "{outcome}");
        let offset = &outcome.run["target"]["seen_by"]["clock_offset_max_us"];
        let offset_h = offset.as_f64().unwrap() / 3.6e9;
        assert!((offset_h + f64::from(hours)).abs() < 0.01, "{outcome}");
    }
}

/// Fails the test unless the probe went on by itself, and said why once.
#[track_caller]
fn is_from_outside(outcome: &Outcome, warning: &str) {
    assert_ne!(outcome.confidence(), "certain", "{outcome}");
    assert!(outcome.text("/verdict/code").starts_with("server."), "{outcome}");
    assert_eq!(outcome.warnings(), [warning], "{outcome}");
    assert!(outcome.stderr.contains("note: the evidence command"), "{outcome}");
}

#[test]
fn a_command_that_ends_too_early_leaves_the_view_from_outside() {
    let Some((here, there)) = Netns::linked() else { return };
    let _server = serve(&there, &["--never-accept", "--backlog", "10"]);
    let evidence = telling(&there, "--for 500ms") + "; echo link lost >&2; exit 7";
    let outcome = probed(&here, "60", &evidence);
    is_from_outside(&outcome, "evidence_ended");
    assert!(outcome.stderr.contains("exit status 7"), "{outcome}");
    assert!(outcome.stderr.contains("it said: link lost"), "{outcome}");
}

#[test]
fn a_command_that_falls_silent_leaves_the_view_from_outside() {
    let Some((here, there)) = Netns::linked() else { return };
    let _server = serve(&there, &["--never-accept", "--backlog", "10"]);
    let evidence = telling(&there, "--for 500ms") + "; sleep 60";
    let outcome = probed(&here, "60", &evidence);
    is_from_outside(&outcome, "evidence_lags");
}

#[test]
fn rubbish_instead_of_samples_leaves_the_view_from_outside() {
    let Some((here, there)) = Netns::linked() else { return };
    let _server = serve(&there, &["--never-accept", "--backlog", "10"]);
    let evidence = telling(&there, "--for 500ms") + "; exec yes '{\"schema\":1}'";
    let outcome = probed(&here, "60", &evidence);
    is_from_outside(&outcome, "evidence_rubbish");
    assert!(outcome.stderr.contains(r#"the first: '{"schema":1}'"#), "{outcome}");
}

#[test]
fn a_greeting_before_the_samples_does_no_harm() {
    let Some((here, there)) = Netns::linked() else { return };
    let _server = serve(&there, &["--never-accept", "--backlog", "10"]);
    let evidence = format!("echo Welcome; {}", telling(&there, ""));
    let outcome = probed(&here, "60", &evidence);
    outcome.is("server.accept_queue", "certain");
    assert_eq!(outcome.warnings(), ["evidence_rubbish"], "{outcome}");
}

#[test]
fn a_command_that_gives_no_sample_at_all_opens_nothing() {
    let Some((here, there)) = Netns::linked() else { return };
    let _server = serve(&there, &[]);
    let folder = tempfile::tempdir().unwrap();
    for (evidence, says) in [
        ("nonesuch-sockscope", "not found"),
        ("echo Permission denied. >&2; exit 255", "it said: Permission denied."),
        ("true", "exit status 0"),
        ("echo Welcome; sleep 60", "no sample within 5 s; 1 line"),
        ("sleep 60", "no sample within 5 s"),
    ] {
        let args = ["--evidence", evidence, "--out", folder.path().to_str().unwrap()];
        let done: Output = probe(&here, "9", &args).output().unwrap();
        let said = stderr(&done);
        assert!(done.status.code() == Some(3) && done.stdout.is_empty(), "{said}");
        assert!(said.starts_with("sockscope: the evidence command "), "{said}");
        assert!(said.contains(says) && said.lines().count() == 1, "{evidence}: {said}");
    }
    let counted = there.command("cat").arg("/proc/net/snmp").output().unwrap();
    let counted = String::from_utf8(counted.stdout).unwrap();
    let tcp: Vec<&str> = counted.lines().filter(|l| l.starts_with("Tcp:")).collect();
    let opens = tcp[0].split(' ').position(|name| name == "PassiveOpens").unwrap();
    assert_eq!(tcp[1].split(' ').nth(opens), Some("0"), "{counted}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "an empty run is none");
}

/// The pid that a command noted, once it has.
fn noted(path: &Path) -> Pid {
    let mut pid = None;
    until("the command notes its pid", || {
        let text = fs::read_to_string(path).unwrap_or_default();
        pid = text.strip_suffix('\n').and_then(|text| text.parse().ok());
        pid.is_some()
    });
    Pid::from_raw(pid.unwrap()).unwrap()
}

#[test]
fn an_interrupted_probe_ends_its_command() {
    let Some((here, there)) = Netns::linked() else { return };
    let _server = serve(&there, &[]);
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("pid");
    for (evidence, exit) in [
        (format!("echo $$ >{}; exec sleep 60", note.display()), None),
        (format!("echo $$ >{}; exec {}", note.display(), telling(&there, "")), Some(130)),
    ] {
        let _ = fs::remove_file(&note);
        let args = ["--hold", "30s", "--no-record", "--evidence", &evidence];
        let mut probe = Running::start(&mut probe(&here, "50", &args));
        let pid = noted(&note);
        if exit.is_some() {
            // Dialing is over, and nothing but Ctrl-C ends the hold.
            until("its connections are there", || {
                let listed = there.command("ss").args(["-tnH"]).output().unwrap();
                String::from_utf8(listed.stdout).unwrap().lines().count() == 50
            });
        }
        probe.signal(Signal::INT);
        assert_eq!(probe.ended().code(), Some(130), "{evidence}");
        until("the command has ended", || test_kill_process(pid).is_err());
    }
}

#[test]
fn a_sampler_ends_when_nobody_reads_it_any_more() {
    let server = Server::start(&[]);
    let mut sampler = sockscope()
        .args(["backlog", &server.address, "--format", "ndjson", "--interval", "10m"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(sampler.stdout.take());
    until("the sampler ends", || sampler.try_wait().unwrap().is_some());
    assert_eq!(sampler.wait().unwrap().code(), Some(0));
}

#[test]
fn a_sampler_ends_after_its_time() {
    let server = Server::start(&["--never-accept", "--backlog", "5"]);
    let _clients = server.connect_many(6);
    // Those that were there when it began are counted apart.
    let args = ["--format", "ndjson", "--for", "300ms", "--count-from", "127.0.0.0/8"];
    let output = run(&[&["backlog", &server.address], &args[..]].concat());
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let samples: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(samples.len() >= 2, "{said}");
    for sample in &samples {
        assert_eq!(sample["schema"], "sockscope.backlog_sample/1");
        assert_eq!((&sample["queue_len"], &sample["backlog"]), (&6.into(), &5.into()));
        assert_eq!(sample["owners"][0]["pid"], server.pid());
    }
    let last = samples.last().unwrap();
    assert_eq!(last["counts"]["earlier"], 6, "the last sample has counts");
}
