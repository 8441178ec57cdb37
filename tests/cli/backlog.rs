//! `sockscope backlog` as its users see it: the list, its formats, and what is refused.

use std::net::TcpStream;
use std::process::Command;

use serde_json::Value;

use crate::fixtures::netns::Netns;
use crate::fixtures::probing::{stderr, stdout};
use crate::fixtures::{Server, run, sockscope};

/// Two listeners in a namespace of their own, the second of them full.
struct Scene {
    netns: Netns,
    idle: Server,
    full: Server,
    _clients: Vec<TcpStream>,
}

impl Scene {
    fn new() -> Option<Self> {
        let netns = Netns::new()?;
        let idle = Server::start_in(&netns, &["--backlog", "100"]);
        let full = Server::start_in(&netns, &["--never-accept", "--backlog", "2"]);
        let to = full.socket_addr();
        let clients =
            netns.inside(|| (0..3).map(|_| TcpStream::connect(to).unwrap()).collect());
        Some(Self { netns, idle, full, _clients: clients })
    }

    /// What is listed of its namespace, seen from here.
    fn listed(&self, args: &[&str]) -> String {
        let all = [&["backlog", "--netns", &self.netns.name], args].concat();
        stdout(&run(&all), 0)
    }
}

#[test]
fn all_listeners_are_listed_the_fullest_first() {
    let Some(scene) = Scene::new() else { return };
    let (idle, full) = (&scene.idle, &scene.full);
    let text = scene.listed(&[]);
    let lines: Vec<Vec<&str>> =
        text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["Queue", "Peak", "Backlog", "Drops", "Listener", "Process"]);
    let owner = |server: &Server| format!("sockscope[{}]", server.pid());
    let first = [&lines[1][..5], &lines[1][5..6], &lines[1][8..]].concat();
    assert_eq!(first, ["3", "3", "2", "0", &full.address, &owner(full), "FULL"]);
    let second = [&lines[2][..5], &lines[2][5..6], &lines[2][8..]].concat();
    assert_eq!(second, ["0", "0", "100", "0", &idle.address, &owner(idle)]);
    assert_eq!(lines.len(), 3, "{text}");
}

#[test]
fn every_format_has_the_same_listeners() {
    let Some(scene) = Scene::new() else { return };
    let document: Value = serde_json::from_str(&scene.listed(&["-j"])).unwrap();
    assert_eq!(document["schema"], "sockscope.backlog/1");
    let rows = document["listeners"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["address"], scene.full.address);
    assert_eq!((&rows[0]["queue_len"], &rows[0]["full"]), (&3.into(), &true.into()));
    assert_eq!(rows[0]["owners"][0]["pid"], scene.full.pid());
    let lines = scene.listed(&["--format", "ndjson"]);
    let lines: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(&lines, rows);
    let text = scene.listed(&["--format", "csv"]);
    let mut csv = csv::Reader::from_reader(text.as_bytes());
    let place = csv.headers().unwrap().iter().position(|name| name == "queue_peak");
    let peaks: Vec<String> =
        csv.records().map(|row| row.unwrap()[place.unwrap()].to_owned()).collect();
    assert_eq!(peaks, ["3", "0"]);
}

#[test]
fn a_textfile_collector_gets_queue_backlog_and_drops_of_each() {
    let Some(scene) = Scene::new() else { return };
    let text = scene.listed(&["--format", "openmetrics"]);
    let address = &scene.full.address;
    let labels = format!(
        "address=\"{address}\",protocol=\"tcp\",member=\"0\",process=\"sockscope\""
    );
    for (name, value) in [
        ("sockscope_listener_queue_connections", 3),
        ("sockscope_listener_backlog_connections", 2),
        ("sockscope_listener_dropped_packets_total", 0),
    ] {
        let line = format!("{name}{{{labels}}} {value}");
        assert!(text.lines().any(|one| one == line), "no {line} in {text}");
    }
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    // Of a target alone.
    let only = scene.listed(&[address, "--format", "openmetrics"]);
    assert!(only.contains(address.as_str()), "{only}");
    assert!(!only.contains(scene.idle.address.as_str()), "{only}");
}

#[test]
fn listeners_of_all_namespaces_stand_with_the_names_of_theirs() {
    let Some(scene) = Scene::new() else { return };
    let text = stdout(&run(&["backlog", "--all-netns", "--format", "ndjson"]), 0);
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ours: Vec<Value> =
        rows.filter(|row| row["netns"] == scene.netns.name.as_str()).collect();
    assert_eq!(ours.len(), 2, "{text}");
    assert_eq!(ours[0]["owners"][0]["pid"], scene.full.pid());
}

#[test]
fn unix_listeners_are_listed_too() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", folder.path().join("s").display());
    let server = Server::start(&["--listen", &address, "--backlog", "9"]);
    let text = stdout(&run(&["backlog", "--format", "ndjson"]), 0);
    let mut rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let row = rows.find(|row| row["address"] == address.as_str()).unwrap();
    assert_eq!((&row["effective_backlog"], &row["drops"]), (&9.into(), &Value::Null));
    assert_eq!(row["owners"][0]["pid"], server.pid());
}

#[test]
fn the_summary_says_how_full_whose_and_what_to_do() {
    let Some(scene) = Scene::new() else { return };
    let text = scene.listed(&[&scene.full.address, "--for", "300ms", "--no-record"]);
    let pid = scene.full.pid();
    for says in [
        &format!("{}  sockscope[{pid}] fd ", scene.full.address),
        "backlog  2 effective (admits 3); somaxconn ",
        "queue    p50 3, p99 3, peak at least 3; above 80 % for ",
        "flow     ",
        "in SYN_RECV; 0 cookies sent; tcp_max_syn_backlog ",
        "verdict  server.accept_queue, likely: ",
        "  or server.slow_accept: ",
    ] {
        assert!(text.contains(says), "no '{says}' in {text}");
    }
    assert!(!text.contains("record "), "{text}");
}

#[test]
fn of_a_target_elsewhere_it_says_what_cannot_be_known_from_here() {
    let done = run(&["backlog", "192.0.2.1:80"]);
    assert_eq!(done.status.code(), Some(2));
    let said = stderr(&done);
    assert!(said.contains("192.0.2.1:80 is no address of this host"), "{said}");
    assert!(said.contains("--burst") && said.contains("ssh HOST"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(done.stdout.is_empty());
}

#[test]
fn a_wildcard_listener_does_not_answer_for_another_hosts_address() {
    let Some(netns) = Netns::new() else { return };
    let server = Server::start_in(&netns, &["--listen", "0.0.0.0:7000"]);
    let at = |target: &str| {
        run(&["backlog", target, "--netns", &netns.name, "--for", "50ms", "--no-record"])
    };
    assert_eq!(at("192.0.2.1:7000").status.code(), Some(2));
    let own = stdout(&at("127.0.0.1:7000"), 0);
    assert!(
        own.starts_with(&format!("0.0.0.0:7000  sockscope[{}]", server.pid())),
        "{own}"
    );
}

#[test]
fn where_nothing_listens_there_is_nothing_to_watch() {
    let Some(netns) = Netns::new() else { return };
    let done = run(&["backlog", "127.0.0.1:7000", "--netns", &netns.name]);
    assert_eq!(done.status.code(), Some(3));
    assert_eq!(stderr(&done), "sockscope: nothing listens on 127.0.0.1:7000 here\n");
}

#[test]
fn what_is_in_vain_is_refused() {
    for (args, says) in [
        ("--wait-for-overflow", "TARGET"),
        ("--rate 100", "are for a TARGET"),
        (":80 --rate 2001", "at most 2000"),
        (":80 --interval 100us", "500us or more"),
        (":80 --rate 10 --interval 1s", "cannot be used with"),
        (":80 --all-netns", "cannot be used with"),
        (":80 --count-from 10.0.0.0/8", "--format ndjson"),
        (":80 --wait-for-overflow --format csv", "table and json"),
        ("https://a", "tcp://"),
    ] {
        let args: Vec<&str> = std::iter::once("backlog").chain(args.split(' ')).collect();
        let done = run(&args);
        assert_eq!(done.status.code(), Some(2), "{args:?}: {done:?}");
        assert!(stderr(&done).contains(says), "{args:?}: {}", stderr(&done));
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let server = Server::start(&[]);
    for args in [&[][..], &[&server.address, "--for", "50ms", "--no-record"]] {
        let mut sh = Command::new("sh");
        let program = sockscope();
        sh.args(["-c", "\"$0\" backlog \"$@\" | true; exit ${PIPESTATUS:-0}"]);
        let done = sh.arg(program.get_program()).args(args).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        assert!(!stderr(&done).contains("roken pipe"), "{done:?}");
    }
}
