//! `sockscope backlog TARGET --freeze`: the exact depth of a queue, and that whatever was
//! stopped runs again.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::fixtures::foreign::Foreign;
use crate::fixtures::netns::Netns;
use crate::fixtures::probing::Records;
use crate::fixtures::{Server, echoes, sockscope, until};

/// The state of a process (proc_pid_stat(5)): `T` is stopped.
fn state(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('X')
}

/// Freezes the target by this command.
fn freeze_by(mut command: Command, target: &str) -> Command {
    command.args(["backlog", target, "--freeze", "--yes", "-j", "--no-record"]);
    // A host with many descriptors takes its time; nothing here does.
    command.args(["--freeze-for", "20s"]).stdin(Stdio::null());
    command
}

fn freeze(server: &Server) -> Command {
    freeze_by(server.sockscope(), &server.address)
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

fn code(doc: &Value) -> (&str, &str) {
    let verdict = &doc["verdict"];
    (verdict["code"].as_str().unwrap(), verdict["confidence"].as_str().unwrap())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Freezes the server, and gives the document.
fn measured(server: &Server) -> Value {
    let output = freeze(server).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    until("it runs again", || state(server.pid()) != 'T');
    document(&output)
}

fn somaxconn() -> u64 {
    let text = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    text.trim().parse().unwrap()
}

#[test]
fn a_queue_admits_its_effective_backlog_and_one_more() {
    let above = somaxconn() + 904;
    for backlog in [0, 1, 5, 128, 1000, above] {
        let server = Server::apart(&["--backlog", &backlog.to_string()]);
        let said = measured(&server);
        let effective = backlog.min(somaxconn());
        assert_eq!(said["schema"], "sockscope.backlog/1");
        assert_eq!(said["freeze"]["admitted"], effective + 1, "{said:#}");
        assert_eq!(said["freeze"]["expected"], effective + 1);
        assert_eq!(said["freeze"]["ended"], "full");
        assert_eq!(said["listeners"][0]["effective_backlog"], effective);
        assert_eq!(said["listeners"][0]["address"], server.address.as_str());
        let stopped = &said["freeze"]["stopped"][0];
        assert_eq!(
            (&stopped["comm"], &stopped["pid"]),
            (&"sockscope".into(), &server.pid().into())
        );
        assert_eq!(said["listeners"][0]["owners"][0]["pid"], server.pid());
        assert_eq!((code(&said), said.get("watched")), (("requested", "certain"), None));
        assert!(said["counters"]["listen_overflows"].as_u64().unwrap() > 0);
        assert!(echoes(server.connect(), "as before"));
    }
}

#[test]
fn the_same_over_ipv6_and_unix_sockets() {
    let folder = tempfile::tempdir().unwrap();
    for backlog in [0, 1, 5, 128, 1000] {
        let backlog_text = backlog.to_string();
        let v6 = Server::apart(&["--backlog", &backlog_text, "--listen", "[::1]:0"]);
        assert_eq!(measured(&v6)["freeze"]["admitted"], backlog + 1);
        assert!(echoes(v6.connect(), "as before"));

        let path = folder.path().join(&backlog_text);
        let listen = format!("unix:{}", path.display());
        let unix = Server::apart(&["--backlog", &backlog_text, "--listen", &listen]);
        let said = measured(&unix);
        assert_eq!(said["freeze"]["admitted"], backlog + 1, "{said:#}");
        assert!(echoes(UnixStream::connect(&path).unwrap(), "as before"));
    }
}

#[test]
fn clients_that_queue_already_count() {
    let server = Server::apart(&["--backlog", "5", "--never-accept"]);
    let _clients = server.connect_many(4);
    let said = measured(&server);
    assert_eq!(said["freeze"]["queued_before"], 4);
    assert_eq!(said["freeze"]["admitted"], 6);
    // Two of its own, and the dials that the full queue did not take.
    assert!(said["freeze"]["dialed"].as_u64().unwrap() > 2);
    // None of its own connections keeps the queue full: they were reset.
    let again = measured(&server);
    assert_eq!(again["freeze"]["queued_before"], 6, "the server never accepts");
}

#[test]
fn every_holder_is_stopped_and_continued() {
    let server = Foreign::start(
        r"
s = listener(9)
for n in range(3):
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        while True:
            c, _ = s.accept()
            c.close()
ready(s)
s.accept()
signal.pause()
",
    );
    let children = children(server.pid());
    assert_eq!(children.len(), 3);
    let output = freeze_by(server.sockscope(), server.address()).output().unwrap();
    let said = document(&output);
    assert_eq!(said["freeze"]["admitted"], 10, "{said:#} {output:?}");
    let stopped = said["freeze"]["stopped"].as_array().unwrap();
    assert_eq!(stopped.len(), 4);
    for pid in children.iter().chain([&server.pid()]) {
        assert!(stopped.iter().any(|one| one["pid"] == *pid), "{pid}: {stopped:?}");
        until("it runs again", || state(*pid) != 'T');
    }
}

#[test]
fn each_listener_of_a_reuseport_group_has_its_queue() {
    let server = Foreign::start(
        r"
REUSE = (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
first = listener(4, set=[REUSE])
port = first.getsockname()[1]
others = [listener(n, port, [REUSE]) for n in (6, 30)]
ready(first)
signal.pause()
",
    );
    let output = freeze_by(server.sockscope(), server.address()).output().unwrap();
    let said = document(&output);
    assert_eq!(said["freeze"]["admitted"], 5 + 7 + 31, "{said:#}");
    let rows = said["listeners"].as_array().unwrap();
    let mut full: Vec<u64> =
        rows.iter().map(|row| row["queue_len"].as_u64().unwrap()).collect();
    full.sort_unstable();
    assert_eq!(full, [5, 7, 31]);
}

#[test]
fn one_that_was_stopped_before_stays_so() {
    let server = Server::apart(&["--backlog", "5"]);
    server.signal(Signal::STOP);
    until("it is stopped", || state(server.pid()) == 'T');
    let output = freeze(&server).output().unwrap();
    let said = document(&output);
    assert_eq!(said["freeze"]["admitted"], 6, "{said:#}");
    assert_eq!(said["freeze"]["stopped"], Value::Array(Vec::new()));
    assert_eq!(said["freeze"]["stopped_before"][0]["pid"], server.pid());
    assert_eq!(code(&said), ("server.stopped", "certain"));
    assert_eq!(state(server.pid()), 'T');
    server.signal(Signal::CONT);
    assert!(echoes(server.connect(), "continued by the test"));
}

#[test]
fn an_ancestor_and_a_traced_process_are_refused() {
    // This test is the parent of the command.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut output = freeze_by(sockscope(), &listener.local_addr().unwrap().to_string());
    let output = output.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("this program was started from it"), "{output:?}");

    let server = Server::apart(&["--backlog", "5"]);
    let pid = server.pid().to_string();
    let strace = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "-p", &pid])
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut strace) = strace else {
        crate::fixtures::rights::lacking("strace");
        return;
    };
    until("it is traced", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        !status.contains("TracerPid:\t0\n")
    });
    let output = freeze(&server).output().unwrap();
    strace.kill().unwrap();
    strace.wait().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("a debugger traces it"), "{output:?}");
}

#[test]
fn without_a_terminal_it_needs_yes() {
    let server = Server::apart(&["--backlog", "5"]);
    let mut command = server.sockscope();
    command.args(["backlog", &server.address, "--freeze"]).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let pid = server.pid();
    let why = format!(
        "--freeze stops sockscope[{pid}]; there is no terminal to ask at, so add --yes"
    );
    assert!(said(&output).contains(&why), "{output:?}");
    assert!(output.stdout.is_empty());
    assert_ne!(state(pid), 'T');
}

#[test]
fn on_a_terminal_it_asks() {
    let server = Server::apart(&["--backlog", "5"]);
    for (answer, code, admits) in [("n\n", "code=2", false), ("y\n", "code=0", true)] {
        let command = server.sockscope();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<&str> = words.map(|word| word.to_str().unwrap()).collect();
        let (program, address) = (words.join(" "), &server.address);
        let line = format!(
            "{program} backlog {address} --freeze --freeze-for 20s --no-record; echo code=$?"
        );
        let script = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut script) = script else {
            crate::fixtures::rights::lacking("script(1)");
            return;
        };
        let mut typed = script.stdin.take().unwrap();
        typed.write_all(answer.as_bytes()).unwrap();
        let output = script.wait_with_output().unwrap();
        drop(typed);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("for at most 20.0 s"), "{text}");
        assert!(text.contains("a supervisor sees SIGCHLD"), "{text}");
        assert!(text.contains(code), "{text}");
        assert_eq!(text.contains("admits   6 connections"), admits, "{text}");
    }
}

#[test]
fn nothing_listening_is_said() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let output = freeze_by(sockscope(), &address).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output).contains("nothing listens on"), "{output:?}");
}

/// A server whose queue takes a while to fill.
fn slow_to_fill() -> Server {
    Server::apart(&["--backlog", "4000"])
}

/// `sockscope backlog --freeze` under way; killed when dropped.
struct Freezing(Child);

impl Freezing {
    fn start(server: &Server, freeze_for: &str) -> Self {
        let mut command = server.sockscope();
        command.args([
            "backlog",
            &server.address,
            "--freeze",
            "--yes",
            "--no-record",
            "--freeze-for",
            freeze_for,
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Waits until it has stopped the server; false where it ended before that was seen.
    fn has_stopped(&mut self, server: &Server) -> bool {
        let mut stopped = false;
        until("the server is stopped", || {
            stopped = state(server.pid()) == 'T';
            stopped || self.0.try_wait().unwrap().is_some()
        });
        stopped
    }

    fn code(&mut self) -> Option<i32> {
        let mut status = None;
        until("it ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Freezing {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn children(pid: u32) -> Vec<u32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let listed = listed.unwrap_or_default();
    listed.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Waits until a watchdog has ended, and so done what it had to.
fn until_gone(watchdogs: &[u32]) {
    for watchdog in watchdogs {
        let file = format!("/proc/{watchdog}/stat");
        let lives = || fs::read_to_string(&file).is_ok_and(|s| !s.contains(") Z "));
        until("the watchdog has ended", || !lives());
    }
}

/// SplitMix64 from a seed, for moments that differ from run to run.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z ^ (z >> 27)
}

#[test]
fn killed_at_any_moment_it_leaves_the_server_running() {
    let server = slow_to_fill();
    let began = Instant::now();
    let mut whole = Freezing::start(&server, "20s");
    assert_eq!(whole.code(), Some(0));
    let whole_us = u64::try_from(began.elapsed().as_micros()).unwrap();
    let mut seed = u64::from(std::process::id());
    let mut killed_while_stopped = 0;
    for turn in 0..50 {
        let mut freezing = Freezing::start(&server, "20s");
        // Half of them anywhere, half of them while the server is stopped.
        let within_us = if turn % 2 == 0 {
            whole_us
        } else {
            freezing.has_stopped(&server);
            whole_us / 10
        };
        let moment = Duration::from_micros(random(&mut seed) % within_us);
        let then = Instant::now() + moment;
        while Instant::now() < then {
            std::thread::sleep(Duration::from_micros(50));
        }
        let watchdogs = children(freezing.0.id());
        killed_while_stopped += usize::from(state(server.pid()) == 'T');
        freezing.signal(Signal::KILL);
        freezing.code();
        until_gone(&watchdogs);
        until("the server runs", || state(server.pid()) != 'T');
        assert!(echoes(server.connect(), "alive"), "turn {turn} after {moment:?}");
    }
    assert!(killed_while_stopped >= 5, "{killed_while_stopped} were killed in time");
}

#[test]
fn signals_end_it_in_order() {
    let server = slow_to_fill();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut freezing = Freezing::start(&server, "20s");
        assert!(freezing.has_stopped(&server));
        freezing.signal(signal);
        assert_eq!(freezing.code(), Some(130), "{signal:?}");
        assert_ne!(state(server.pid()), 'T');
        assert!(echoes(server.connect(), "alive"));
    }
}

#[test]
fn the_watchdog_is_deaf_to_what_ends_others_and_its_death_ends_the_freeze() {
    let server = slow_to_fill();
    let mut freezing = Freezing::start(&server, "20s");
    assert!(freezing.has_stopped(&server));
    let [watchdog] = children(freezing.0.id())[..] else { panic!("one watchdog") };
    let watchdog = Pid::from_raw(watchdog.cast_signed()).unwrap();
    let session = rustix::process::getsid(Some(watchdog)).unwrap();
    assert_eq!(session, watchdog, "it leads a session of its own");
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::KILL] {
        kill_process(watchdog, signal).unwrap();
    }
    // Only the last was heard.
    assert_eq!(freezing.code(), Some(3));
    assert_ne!(state(server.pid()), 'T');
}

#[test]
fn the_deadline_holds_even_where_the_command_hangs() {
    let server = slow_to_fill();
    let mut freezing = Freezing::start(&server, "1s");
    assert!(freezing.has_stopped(&server));
    let stopped = Instant::now();
    freezing.signal(Signal::STOP);
    until("the watchdog continues it", || state(server.pid()) != 'T');
    assert!(stopped.elapsed() < Duration::from_secs(3), "{:?}", stopped.elapsed());
    freezing.signal(Signal::CONT);
    freezing.code();
    assert!(echoes(server.connect(), "alive"));
}

#[test]
fn another_namespace_is_measured_from_inside_it_and_recorded() {
    let Some(netns) = Netns::new() else { return };
    let server = Server::start_in(&netns, &["--backlog", "7"]);
    let records = Records::new();
    let port = server.socket_addr().port().to_string();
    let mut command = sockscope();
    command.args(["backlog", &port, "--netns", &netns.name, "--freeze", "--yes", "-j"]);
    command.args(["--freeze-for", "20s", "--out"]).arg(records.path());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = document(&output);
    assert_eq!(said["freeze"]["admitted"], 8, "{output:?}");
    assert_eq!(said["target"]["netns"], netns.name);
    let file = fs::read(records.run().join("run.json")).unwrap();
    let run: Value = serde_json::from_slice(&file).unwrap();
    assert_eq!(run["backlog"], said);
    until("it runs again", || state(server.pid()) != 'T');
}

#[test]
fn with_too_few_descriptors_nothing_is_stopped_and_nothing_recorded() {
    let server = Server::apart(&["--backlog", "500"]);
    let records = Records::new();
    let command = server.sockscope();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 300; exec \"$0\" \"$@\""]);
    limited.arg(command.get_program()).args(command.get_args());
    limited.args(["backlog", &server.address, "--freeze", "--yes", "--out"]);
    let output = limited.arg(records.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let why = said(&output);
    assert!(why.contains("descriptors are needed to fill the queue"), "{why}");
    assert!(records.runs().is_empty());
    assert_ne!(state(server.pid()), 'T');
}

#[test]
fn the_summary_says_what_was_stopped_and_what_is_admitted() {
    let server = Server::apart(&["--backlog", "128"]);
    let output = server
        .sockscope()
        .args(["backlog", &server.address, "--freeze", "--yes", "--no-record"])
        .args(["--freeze-for", "20s"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (address, pid) = (&server.address, server.pid());
    assert!(text.starts_with(&format!("{address}  sockscope[{pid}] stopped for ")));
    for line in [
        "\nadmits   129 connections: min(backlog, somaxconn) + 1\n",
        "\nbacklog  128 effective (admits 129); somaxconn ",
        "\nverdict  requested, certain: The queue admits 129: min(backlog, somaxconn) + 1.",
        "\nqueue    0 before, 129 at the end; 145 dialed, 129 established\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}
