//! `sockscope backlog TARGET`: what is said of an accept queue, on real listeners in a
//! network namespace of their own, where every counter is theirs.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::fixtures::netns::Netns;
use crate::fixtures::probing::{Records, json, number};
use crate::fixtures::{Server, sockscope, until};

/// A listener in a namespace of its own.
struct Scene {
    server: Server,
    netns: Netns,
}

impl Scene {
    fn new(args: &[&str]) -> Option<Self> {
        Self::with(&[], args)
    }

    /// The same with these sysctls.
    fn with(sysctls: &[(&str, &str)], args: &[&str]) -> Option<Self> {
        let netns = Netns::new()?;
        for (name, value) in sysctls {
            netns.sysctl(name, value);
        }
        Some(Self { server: Server::start_in(&netns, args), netns })
    }

    /// `sockscope backlog` of it, to be run from another namespace.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = sockscope();
        command.args([
            "backlog",
            &self.server.address,
            "--netns",
            &self.netns.name,
            "-j",
        ]);
        command.args(args).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn watch(&self, args: &[&str], code: i32) -> Value {
        json(&self.command(&[args, &["--no-record"]].concat()).output().unwrap(), code)
    }

    /// Begins a watch, and waits until it looks.
    fn begin(&self, args: &[&str]) -> (Child, Records) {
        let records = Records::new();
        let out = records.path().to_str().unwrap().to_owned();
        let child = self.command(&[args, &["--out", &out]].concat()).spawn().unwrap();
        until("it looks", || {
            let runs = std::fs::read_dir(records.path()).unwrap().filter_map(Result::ok);
            let mut timelines = runs.map(|run| run.path().join("timeline.ndjson"));
            timelines.any(|line| line.metadata().is_ok_and(|file| file.len() > 0))
        });
        (child, records)
    }

    /// Connections that are complete.
    fn connect(&self, n: usize) -> Vec<TcpStream> {
        let to = self.server.socket_addr();
        self.netns.inside(|| (0..n).map(|_| TcpStream::connect(to).unwrap()).collect())
    }

    /// Dials that nobody waits for.
    fn dial(&self, n: usize) -> Vec<Socket> {
        let to: SockAddr = self.server.socket_addr().into();
        self.netns.inside(|| {
            let dial = |_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&to);
                socket
            };
            (0..n).map(dial).collect()
        })
    }
}

fn code(doc: &Value) -> (&str, &str) {
    let verdict = &doc["verdict"];
    (verdict["code"].as_str().unwrap(), verdict["confidence"].as_str().unwrap())
}

#[test]
fn the_effective_backlog_and_a_full_queue_are_exact() {
    let cases = [(0, 4096), (1, 4096), (5, 4096), (128, 4096), (1000, 4096), (1000, 64)];
    for (backlog, somaxconn) in cases {
        let sysctl = [("net/core/somaxconn", &*somaxconn.to_string())];
        let args = ["--never-accept", "--backlog", &backlog.to_string()];
        let Some(scene) = Scene::with(&sysctl, &args) else { return };
        let effective: u64 = backlog.min(somaxconn);
        let admits = effective + 1;
        let _clients = scene.connect(usize::try_from(admits).unwrap());
        let doc = scene.watch(&["--for", "300ms"], 0);
        let one = &doc["listeners"][0];
        let seen = ["effective_backlog", "queue_len", "queue_peak", "drops"]
            .map(|key| one[key].as_u64().unwrap());
        assert_eq!(seen, [effective, admits, admits, 0], "{doc:#}");
        assert_eq!(one["full"], true);
        assert_eq!(number(&doc, "/listeners/0/queue/p50"), admits);
        let full = one["queue"]["full_s"].as_f64().unwrap();
        let watched = doc["watched"]["duration_s"].as_f64().unwrap();
        assert!(full > 0.9 * watched && full <= watched, "{doc:#}");
        assert_eq!(one["owners"][0]["pid"], scene.server.pid());
        assert_eq!(doc["sysctls"]["net.core.somaxconn"], somaxconn);
        assert_eq!(code(&doc), ("server.accept_queue", "likely"), "{doc:#}");
    }
}

#[test]
fn what_does_not_fit_is_counted_at_its_listener_and_ends_the_wait() {
    for abort in ["0", "1"] {
        let sysctl = [("net/ipv4/tcp_abort_on_overflow", abort)];
        let args = ["--never-accept", "--backlog", "5"];
        let Some(scene) = Scene::with(&sysctl, &args) else { return };
        let _clients = scene.connect(6);
        let (child, _records) = scene.begin(&["--wait-for-overflow", "--for", "20s"]);
        let _turned_away = scene.dial(3);
        let doc = json(&child.wait_with_output().unwrap(), 0);
        assert_eq!(doc["watched"]["ended_by"], "overflow", "{doc:#}");
        assert!(doc["watched"]["duration_s"].as_f64().unwrap() < 15.0, "{doc:#}");
        let drops = number(&doc, "/listeners/0/drops_watched");
        assert!((1..=3).contains(&drops), "{doc:#}");
        assert!(number(&doc, "/counters/listen_overflows") >= drops, "{doc:#}");
        let value = &doc["sysctls"]["net.ipv4.tcp_abort_on_overflow"];
        assert_eq!(value.to_string(), abort);
    }
}

#[test]
fn without_an_overflow_the_wait_ends_with_1() {
    let Some(scene) = Scene::new(&["--backlog", "5"]) else { return };
    let doc = scene.watch(&["--wait-for-overflow", "--for", "300ms"], 1);
    assert_eq!(code(&doc), ("requested", "certain"), "{doc:#}");
    assert_eq!(doc["watched"]["ended_by"], "time");
}

#[test]
fn bursts_that_outrun_accept_are_told_with_the_backlog_that_would_have_held_them() {
    let args = ["--accept-delay", "2ms", "--backlog", "16"];
    let Some(scene) = Scene::new(&args) else { return };
    let (child, records) = scene.begin(&["--for", "2500ms"]);
    let _burst = scene.dial(60);
    let doc = json(&child.wait_with_output().unwrap(), 0);
    assert_eq!(code(&doc), ("server.slow_accept", "likely"), "{doc:#}");
    let one = &doc["listeners"][0];
    assert_eq!((&one["effective_backlog"], &one["queue_peak"]), (&16.into(), &17.into()));
    let drops = one["drops_watched"].as_u64().unwrap();
    assert!(drops > 0 && number(&doc, "/counters/listen_overflows") == drops, "{doc:#}");
    let needed = number(&doc, "/backlog_needed");
    assert!((17..=16 + drops).contains(&needed), "{doc:#}");
    // The owner's own setting, with a power of two that holds what was needed.
    let remedy = doc["verdict"]["remedy"][0].as_str().unwrap();
    let raised = needed.next_power_of_two();
    assert!(
        remedy.starts_with(&format!("# sockscope serve --backlog {raised}")),
        "{remedy}"
    );
    // The only listener of its namespace: what it accepted is known, and all came.
    assert_eq!(doc["flow"]["other_listeners"], 0);
    let seconds = doc["watched"]["duration_s"].as_f64().unwrap();
    let accepted = doc["flow"]["accepts_per_s_at_most"].as_f64().unwrap() * seconds;
    let came = number(&doc, "/counters/passive_opens");
    let left = came - one["queue_len"].as_u64().unwrap();
    assert_eq!(accepted.round(), left as f64, "{doc:#}");
    assert!((17..=60).contains(&came), "{doc:#}");
    // The record has the same, and its timeline the queue.
    let run = std::fs::read(records.run().join("run.json")).unwrap();
    let run: Value = serde_json::from_slice(&run).unwrap();
    assert_eq!((&run["schema"], &run["backlog"]), (&"sockscope.run/1".into(), &doc));
    assert_eq!(run["verdict"], doc["verdict"]);
    let timeline =
        std::fs::read_to_string(records.run().join("timeline.ndjson")).unwrap();
    assert!(timeline.lines().count() > 10, "{timeline}");
    let last: Value = serde_json::from_str(timeline.lines().last().unwrap()).unwrap();
    assert_eq!(last["listen_drops"], drops);
}

#[test]
fn where_somaxconn_is_in_the_way_it_is_raised_first() {
    let args = ["--accept-delay", "2ms", "--backlog", "500"];
    let Some(scene) = Scene::with(&[("net/core/somaxconn", "8")], &args) else { return };
    let (child, _records) = scene.begin(&["--for", "1500ms"]);
    let _burst = scene.dial(40);
    let doc = json(&child.wait_with_output().unwrap(), 0);
    assert_eq!(code(&doc), ("server.slow_accept", "likely"), "{doc:#}");
    let remedy = doc["verdict"]["remedy"][0].as_str().unwrap();
    assert!(remedy.starts_with("sudo sysctl -w net.core.somaxconn="), "{remedy}");
    assert!(remedy.contains("listen()"), "{remedy}");
}

#[test]
fn each_listener_of_a_group_has_its_own_queue() {
    let Some(netns) = Netns::new() else { return };
    let mut at: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut group = Vec::new();
    for _ in 0..4 {
        let socket =
            netns.inside(|| Socket::new(Domain::IPV4, Type::STREAM, None)).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&at.into()).unwrap();
        socket.listen(50).unwrap();
        at = socket.local_addr().unwrap().as_socket().unwrap();
        group.push(socket);
    }
    let _clients: Vec<TcpStream> =
        netns.inside(|| (0..60).map(|_| TcpStream::connect(at).unwrap()).collect());
    let mut command = sockscope();
    command.args(["backlog", &at.to_string(), "--netns", &netns.name, "-j"]);
    let done = command.args(["--no-record", "--for", "300ms"]).output().unwrap();
    let doc = json(&done, 0);
    let listeners = doc["listeners"].as_array().unwrap();
    assert_eq!(listeners.len(), 4, "{doc:#}");
    let queued: u64 =
        listeners.iter().map(|one| one["queue_len"].as_u64().unwrap()).sum();
    assert_eq!(queued, 60, "{doc:#}");
    let mut fds: Vec<u64> = listeners
        .iter()
        .map(|one| {
            assert_eq!(one["owners"][0]["pid"], std::process::id());
            one["owners"][0]["fd"].as_u64().unwrap()
        })
        .collect();
    fds.dedup();
    assert_eq!(fds.len(), 4, "each has its own descriptor: {doc:#}");
    assert_eq!(number(&doc, "/flow/other_listeners"), 0);
}

#[test]
fn cookies_are_counted_as_the_namespace_sends_them() {
    for (mode, sent) in [("0", 0), ("1", 0), ("2", 12)] {
        let sysctl = [("net/ipv4/tcp_syncookies", mode)];
        let Some(scene) = Scene::with(&sysctl, &["--backlog", "64"]) else { return };
        let (child, _records) = scene.begin(&["--for", "1s"]);
        let _clients = scene.connect(12);
        let doc = json(&child.wait_with_output().unwrap(), 0);
        let counted = ["sent", "recv", "failed"]
            .map(|what| number(&doc, &format!("/counters/syncookies_{what}")));
        assert_eq!(counted, [sent, sent, 0], "{doc:#}");
        assert_eq!(number(&doc, "/counters/passive_opens"), 12, "{doc:#}");
        let value = &doc["sysctls"]["net.ipv4.tcp_syncookies"];
        assert_eq!(value.to_string(), mode);
    }
}

#[test]
fn a_stopped_server_and_one_at_its_fd_limit_are_told_for_certain() {
    let Some(scene) = Scene::new(&["--backlog", "20"]) else { return };
    scene.server.signal(Signal::STOP);
    until("it is stopped", || {
        let stat = format!("/proc/{}/stat", scene.server.pid());
        std::fs::read_to_string(stat).unwrap().contains(") T ")
    });
    let _clients = scene.connect(3);
    let doc = scene.watch(&["--for", "400ms"], 0);
    scene.server.signal(Signal::CONT);
    assert_eq!(code(&doc), ("server.stopped", "certain"), "{doc:#}");
    let cont = format!("kill -CONT {}", scene.server.pid());
    assert_eq!(doc["verdict"]["remedy"][0], cont);

    let Some(scene) = Scene::new(&["--backlog", "20", "--fd-limit", "30"]) else {
        return;
    };
    let _clients = scene.connect(40);
    let doc = scene.watch(&["--for", "400ms"], 0);
    assert_eq!(code(&doc), ("server.fd_limit", "certain"), "{doc:#}");
    let fact = &doc["verdict"]["evidence"][0];
    assert_eq!(fact["value"], "30 of 30", "{doc:#}");
}

#[test]
fn a_listener_that_goes_away_is_told_and_one_that_comes_back_is_followed() {
    let Some(scene) = Scene::new(&["--backlog", "7"]) else { return };
    let Scene { server, netns } = scene;
    let address = server.address.clone();
    let mut command = sockscope();
    command.args(["backlog", &address, "--netns", &netns.name, "-j", "--no-record"]);
    command.args(["--for", "700ms"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    // It reads its target at once; what is watched may be either of the two.
    drop(server);
    let done = child.wait_with_output().unwrap();
    match done.status.code() {
        Some(0) => {
            let doc = json(&done, 0);
            assert_eq!(code(&doc), ("server.died", "certain"), "{doc:#}");
        }
        // It was gone before the first look.
        code => assert_eq!(code, Some(3), "{done:?}"),
    }
}

#[test]
fn a_unix_socket_is_measured_the_same_and_nothing_is_said_of_what_is_not_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let address = format!("unix:{}", path.display());
    let args = ["--listen", &address, "--never-accept", "--backlog", "3"];
    let _server = Server::start(&args);
    let dial = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.connect(&SockAddr::unix(&path).unwrap()).map(|()| socket)
    };
    let _clients: Vec<Socket> = (0..4).map(|_| dial().unwrap()).collect();
    assert_eq!(dial().unwrap_err().raw_os_error(), Some(libc::EAGAIN));
    let mut command = sockscope();
    command.args(["backlog", &address, "-j", "--no-record", "--for", "300ms"]);
    let doc = json(&command.output().unwrap(), 0);
    let one = &doc["listeners"][0];
    let seen = ["effective_backlog", "queue_len", "queue_peak"].map(|key| &one[key]);
    assert_eq!(seen, [3, 4, 4], "{doc:#}");
    assert_eq!(one["protocol"], "unix");
    for null in ["/listeners/0/drops", "/counters", "/flow/accepts_per_s_at_most"] {
        assert!(doc.pointer(null).unwrap().is_null(), "{null}: {doc:#}");
    }
    assert_eq!(code(&doc), ("server.accept_queue", "likely"), "{doc:#}");
    let mut command = sockscope();
    command.args(["backlog", &address, "--no-record", "--wait-for-overflow"]);
    assert_eq!(command.output().unwrap().status.code(), Some(0), "full is what it knows");
}

#[test]
fn two_thousand_looks_a_second_take_little_of_a_core() {
    let Some(scene) = Scene::new(&["--backlog", "20"]) else { return };
    let doc = scene.watch(&["--for", "2s"], 0);
    let share = doc["watched"]["cpu_share"].as_f64().unwrap();
    let looks = doc["watched"]["rate_per_s"].as_f64().unwrap();
    // It takes fewer looks where they cost more, as in a debug build.
    assert!(share < 0.07 && looks > 100.0 && looks <= 2010.0, "{doc:#}");
}
