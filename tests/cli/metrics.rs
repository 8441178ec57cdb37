//! `--format openmetrics`, read by the parser of Prometheus's Python client.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::fixtures::netns::Netns;
use crate::fixtures::probing::{Records, stderr, stdout};
use crate::fixtures::rights::lacking;
use crate::fixtures::table::Holder;
use crate::fixtures::{Server, sockscope};

/// Prints each sample as a line of JSON: name, labels, value, type and unit.
const READ: &str = "\
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read
for family in read(sys.stdin.read()):
    assert family.documentation and family.samples, family
    for s in family.samples:
        print(json.dumps([s.name, s.labels, s.value, family.type, family.unit]))";

/// A sample: its labels, its value, the type and the unit of its family.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    labels: BTreeMap<String, String>,
    value: f64,
    kind: String,
    unit: String,
}

/// The samples of a text by their names; None where the parser is not installed.
fn parsed(text: &str) -> Option<BTreeMap<String, Vec<Sample>>> {
    // Debian's own Python, which has Debian's packages.
    let python = "/usr/bin/python3";
    let import = Command::new(python).args(["-c", "import prometheus_client"]).output();
    if !import.is_ok_and(|done| done.status.success()) {
        lacking("Debian's python3-prometheus-client");
        return None;
    }
    let mut python = Command::new(python)
        .args(["-c", READ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let done = python.wait_with_output().unwrap();
    assert!(done.status.success(), "{}\n{text}", String::from_utf8_lossy(&done.stderr));
    let mut found: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
    for line in String::from_utf8(done.stdout).unwrap().lines() {
        type Line = (String, BTreeMap<String, String>, f64, String, String);
        let (name, labels, value, kind, unit): Line = serde_json::from_str(line).unwrap();
        found.entry(name).or_default().push(Sample { labels, value, kind, unit });
    }
    Some(found)
}

/// The only sample of this name with this label.
#[track_caller]
fn one<'a>(
    all: &'a BTreeMap<String, Vec<Sample>>,
    name: &str,
    (label, value): (&str, &str),
) -> &'a Sample {
    let of_name = all.get(name).unwrap_or_else(|| panic!("no {name} in {all:?}")).iter();
    let mut with = of_name.filter(|sample| sample.labels[label] == value);
    let found = with.next().unwrap_or_else(|| panic!("no {label}={value}: {all:?}"));
    assert!(with.next().is_none(), "two of {name} with {label}={value}");
    found
}

#[test]
fn a_collector_reads_what_a_probe_found() {
    let (server, records) = (Server::start(&[]), Records::new());
    let args = [&*server.address, "--max", "20", "--hold", "0s", "--send", "x"];
    let openmetrics = [&args[..], &["--format", "openmetrics"]].concat();
    let text = stdout(&records.probe(&openmetrics).output().unwrap(), 0);
    let Some(all) = parsed(&text) else { return };
    let target = ("target", server.address.as_str());
    let max = one(&all, "sockscope_probe_practical_max_connections", target);
    assert_eq!((max.value, &*max.unit, &*max.kind), (20.0, "connections", "gauge"));
    assert_eq!(max.labels["level"], "served");
    let verdict = one(&all, "sockscope_probe_verdict_info", target);
    assert_eq!((verdict.value, &*verdict.labels["code"]), (1.0, "requested"));
    let accepted = one(&all, "sockscope_probe_connections", ("state", "accepted"));
    assert_eq!(accepted.value, 20.0);
    for name in ["connect", "reply"] {
        let name = format!("sockscope_probe_{name}_latency_seconds");
        let p99 = one(&all, &name, ("quantile", "0.99"));
        assert!(p99.value > 0.0 && p99.value < 60.0, "{name} {p99:?}");
        assert_eq!((&*p99.kind, &*p99.unit), ("summary", "seconds"));
    }
    // Nothing failed, and fewer than 1,000 do not tell what one takes.
    assert!(!all.contains_key("sockscope_probe_failed_connections"), "{all:?}");
    assert!(!all.contains_key("sockscope_probe_socket_memory_bytes"), "{all:?}");
    let began = one(&all, "sockscope_probe_start_time_seconds", target).value;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!(began <= now && now - began < 600.0, "{began} {now}");

    let dry = [&openmetrics[..], &["--dry-run"]].concat();
    let refused = records.probe(&dry).output().unwrap();
    stdout(&refused, 2);
    assert!(stderr(&refused).contains("--dry-run measures nothing"), "{refused:?}");
}

#[test]
fn a_collector_reads_ceilings_and_the_room_below_them() {
    let limits = || {
        let mut shell = Command::new("sh");
        let script = "ulimit -n 1024; \"$0\" limits --format openmetrics; exit $?";
        shell.args(["-c", script, env!("CARGO_BIN_EXE_sockscope")]);
        shell.output().unwrap()
    };
    let text = stdout(&limits(), 0);
    let Some(all) = parsed(&text) else { return };
    let soft = ("name", "RLIMIT_NOFILE soft");
    assert_eq!(one(&all, "sockscope_ceiling_value", soft).value, 1024.0);
    let room = one(&all, "sockscope_ceiling_room_connections", soft);
    assert!(room.value > 900.0 && room.value < 1024.0, "{room:?}");
    assert_eq!((&*room.labels["side"], &*room.unit), ("either", "connections"));
    let rooms = &all["sockscope_ceiling_room_connections"];
    let connections = rooms.iter().filter(|s| s.labels["bounds"] == "connections");
    let least = connections.map(|s| s.value).fold(f64::INFINITY, f64::min);
    assert_eq!(all["sockscope_room_connections"][0].value, least);
}

#[test]
fn a_collector_reads_groups_of_sockets() {
    let Some(netns) = Netns::new() else { return };
    let _holder = Holder::start(
        &netns,
        r"
l = socket.socket(); l.bind(('127.0.0.1', 7000)); l.listen(9)
kept = [socket.create_connection(('127.0.0.1', 7000)) for _ in range(3)]
kept[0].send(b'abc')
say()",
    );
    let of = |args: &[&str]| {
        let mut command = sockscope();
        command.args(["sockets", "--netns", &netns.name, "--format", "openmetrics"]);
        command.args(args).output().unwrap()
    };
    let text = stdout(&of(&["-ta", "--by", "state"]), 0);
    let Some(all) = parsed(&text) else { return };
    assert_eq!(one(&all, "sockscope_sockets", ("state", "LISTEN")).value, 1.0);
    assert_eq!(one(&all, "sockscope_sockets", ("state", "ESTAB")).value, 6.0);
    let queued = one(&all, "sockscope_sockets_receive_queue_bytes", ("state", "ESTAB"));
    assert_eq!((queued.value, &*queued.unit), (3.0, "bytes"));
    let text = stdout(&of(&["-ta", "--by", "remote-port"]), 0);
    let ports = parsed(&text).unwrap();
    assert_eq!(one(&ports, "sockscope_sockets", ("remote_port", "7000")).value, 3.0);
    let text = stdout(&of(&["-ta", "--count"]), 0);
    assert_eq!(parsed(&text).unwrap()["sockscope_sockets"][0].value, 7.0);
    for args in [&["-ta"][..], &["-s"], &["-ta", "--by", "state", "--watch"]] {
        let refused = of(args);
        assert!(stdout(&refused, 2).is_empty());
        assert!(stderr(&refused).contains("give --by KEY or --count"), "{refused:?}");
    }
}

#[test]
fn the_ceilings_of_a_server_say_whose_they_are() {
    let server = Server::start(&["--fd-limit", "300"]);
    let args = ["limits", "--target", &server.address, "--format", "openmetrics"];
    let text = stdout(&sockscope().args(args).output().unwrap(), 0);
    let Some(all) = parsed(&text) else { return };
    let soft = one(&all, "sockscope_ceiling_value", ("name", "RLIMIT_NOFILE soft"));
    assert_eq!(soft.value, 300.0);
    assert_eq!(soft.labels["address"], server.address);
    assert_eq!(soft.labels["process"], "sockscope");
    // The same series at the next look, whatever the process is.
    assert!(!text.contains(&format!("/proc/{}", server.pid())), "{text}");
}

/// The port of its server is another each time.
#[test]
fn a_probe_of_its_own_server_has_the_same_series_each_time() {
    let records = Records::new();
    let args = ["--max", "20", "--hold", "0s", "--format", "openmetrics"];
    let text = stdout(&records.probe(&args).output().unwrap(), 0);
    let Some(all) = parsed(&text) else { return };
    let target = ("target", "reference-server");
    let max = one(&all, "sockscope_probe_practical_max_connections", target);
    assert_eq!(max.value, 20.0);
}

/// Whatever bytes a name has.
#[test]
fn a_collector_reads_listeners_whatever_their_names() {
    let Some(netns) = Netns::new() else { return };
    let _holder = Holder::start(
        &netns,
        r#"
x = socket.socket(socket.AF_UNIX); x.bind('\0quo"te\\back\nline'); x.listen(2)
l = socket.socket(); l.bind(('127.0.0.1', 7000)); l.listen(9)
say()"#,
    );
    let args = ["backlog", "--netns", &netns.name, "--format", "openmetrics"];
    let text = stdout(&sockscope().args(args).output().unwrap(), 0);
    let Some(all) = parsed(&text) else { return };
    let address = ("address", "127.0.0.1:7000");
    let backlog = one(&all, "sockscope_listener_backlog_connections", address);
    assert_eq!(backlog.value, 9.0);
    let drops = one(&all, "sockscope_listener_dropped_packets_total", address);
    assert_eq!((drops.value, &*drops.kind), (0.0, "counter"));
}
