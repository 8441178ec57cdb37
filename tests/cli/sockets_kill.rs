//! `sockscope sockets -K`: closing sockets from outside.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, Command, Output, Stdio};

use serde_json::Value;

use crate::fixtures::holder::Holder;
use crate::fixtures::netns::Netns;
use crate::fixtures::probing::{json, stderr, stdout};
use crate::fixtures::rights::ForNobody;
use crate::fixtures::{DEADLINE, run, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sockscope");

/// A listener and a connection to it, both ends.
const CONNECTED: &str = r"
a = tcp()
c, s = pair(a)
say(port=a.getsockname()[1])
";

fn kill(pid: &str, args: &[&str]) -> Output {
    run(&[&["sockets", "-K", "--pid", pid], args].concat())
}

fn refused(done: &Output) -> String {
    let said = stderr(done);
    assert_eq!((done.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(done.stdout.is_empty(), "{done:?}");
    said
}

/// How many TCP sockets of a process are connected or listen.
fn open(holder: &Holder) -> usize {
    let done = run(&["sockets", "--pid", &holder.pid(), "-t", "-j"]);
    let document = json(&done, 0);
    let rows = document["sockets"].as_array().unwrap().iter();
    rows.filter(|row| row["state"] != "UNCONN").count()
}

#[test]
fn it_must_be_told_which_and_be_able_to_ask() {
    let holder = Holder::start(CONNECTED);
    let said = refused(&run(&["sockets", "-K", "--yes"]));
    assert!(said.contains("by a filter (dport = :443) or by --pid"), "{said}");
    let said = refused(&kill(&holder.pid(), &[]));
    assert!(said.contains("no terminal to ask on: add --yes"), "{said}");
    refused(&run(&["sockets", "--yes"]));
    for with in ["--count", "--by=state", "--limit=1"] {
        refused(&kill(&holder.pid(), &["--yes", with]));
    }
    assert_eq!(open(&holder), 3, "nothing was closed");
}

#[test]
fn all_of_a_process_are_closed_and_told() {
    let Some(netns) = Netns::new() else { return };
    let holder = Holder::start_in(&netns, CONNECTED);
    assert_eq!(open(&holder), 3);
    let done = kill(&holder.pid(), &["--yes"]);
    let text = stdout(&done, 0);
    assert!(text.starts_with("Result"), "{text}");
    // Closing one end resets the other.
    let results: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(results.len(), 4, "{text}");
    assert!(
        results[3] == "closed 3" || results[3] == "closed 2, 1 was already gone",
        "{text}"
    );
    assert_eq!(open(&holder), 0);
    let again = stdout(&kill(&holder.pid(), &["--yes"]), 0);
    assert_eq!(again, "closed nothing: no socket that can be closed matches\n");
}

#[test]
fn a_peer_elsewhere_hears_of_it() {
    let Some(netns) = Netns::new() else { return };
    let holder = Holder::start_in(
        &netns,
        r"
a = tcp()
taken = []
threading.Thread(target=lambda: taken.append(a.accept()), daemon=True).start()
x, y = socket.socketpair()
say(port=a.getsockname()[1])
",
    );
    let address = (holder.host(), u16::try_from(holder.number("port")).unwrap());
    let mut client = netns.inside(|| TcpStream::connect(address)).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    until("it is accepted", || open(&holder) == 2);
    let done = kill(&holder.pid(), &["--yes", "-j"]);
    let document = json(&done, 0);
    assert_eq!(document["schema"], "sockscope.closed/1");
    let rows = document["sockets"].as_array().unwrap();
    let mut states: Vec<(&str, bool)> = rows
        .iter()
        .map(|row| (row["state"].as_str().unwrap(), row["closed"] == true))
        .collect();
    states.sort_unstable();
    assert_eq!(states, [("ESTAB", true), ("LISTEN", true)]);
    assert!(
        rows.iter().all(|row| row["why"] == Value::Null && row["owners"] != Value::Null)
    );
    assert!(
        stderr(&done).contains("unix") || stderr(&done).contains("u_str"),
        "{done:?}"
    );
    let heard = client.read(&mut [0]).unwrap_err();
    assert_eq!(heard.kind(), ErrorKind::ConnectionReset);
    let dial = netns.inside(|| TcpStream::connect(address)).unwrap_err();
    assert_eq!(dial.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_filter_says_which() {
    let Some(netns) = Netns::new() else { return };
    let holder = Holder::start_in(
        &netns,
        r"
a, b = tcp(), tcp()
keep = [t for l in (a, a, b) for t in pair(l)]
say(a=a.getsockname()[1], b=b.getsockname()[1])
",
    );
    assert_eq!(open(&holder), 8);
    let port = format!(":{}", holder.number("a"));
    let base = ["sockets", "-K", "--yes", "-j", "--netns", &netns.name];
    // A mistake closes nothing.
    let wrong = run(&[&base[..], &["dport", "=", "nonsense"]].concat());
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    let nothing = run(&[&base[..], &["dport", "=", ":1"]].concat());
    assert_eq!(json(&nothing, 0)["sockets"], Value::Array(Vec::new()));
    assert_eq!(open(&holder), 8);
    let done = run(&[&base[..], &["dport", "=", &port]].concat());
    let document = json(&done, 0);
    let rows = document["sockets"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(
            (&row["remote_port"], &row["closed"]),
            (holder.said("a"), &true.into())
        );
    }
    // Their other ends are reset; the listeners and the third connection are not.
    until("four are left", || open(&holder) == 4);
    let base = ["sockets", "-K", "--yes", "--all-netns", "state", "listening"];
    let port = format!(":{}", holder.number("b"));
    let last =
        run(&[&base[..], &["sport", "=", &port, "pid", "=", &holder.pid()]].concat());
    let text = stdout(&last, 0);
    assert!(text.contains(&netns.name) && text.ends_with("\nclosed 1\n"), "{text}");
    assert_eq!(open(&holder), 3);
}

#[test]
fn what_is_not_of_this_host_is_not_closed() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("7")).unwrap();
    let root = root.path().to_str().unwrap();
    for how in [&["--via", "proc"][..], &["--proc-root", root]] {
        let said =
            refused(&run(&[&["sockets", "-K", "--yes", "--pid", "7"], how].concat()));
        assert!(said.contains("takes neither --proc-root nor --via proc"), "{said}");
    }
}

#[test]
fn what_stays_open_is_not_called_closed() {
    let Some(netns) = Netns::new() else { return };
    let holder = Holder::start_in(
        &netns,
        r"
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('127.0.0.1', 5353))
v = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); v.connect(('127.0.0.1', 5353))
x, y = socket.socketpair()
m = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); m.bind(('127.0.0.1', 0)); m.listen(5)
say()
",
    );
    let done = kill(&holder.pid(), &["--yes", "--format", "csv"]);
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    let said = stderr(&done);
    assert!(said.starts_with("note: 3 more match and stay open"), "{said}");
    assert!(said.contains("(1 mptcp, 2 u_str)"), "{said}");
    let mut csv = csv::Reader::from_reader(&*done.stdout);
    let rows: Vec<std::collections::HashMap<String, String>> =
        csv.deserialize().map(Result::unwrap).collect();
    let mut results: Vec<(&str, &str, bool)> = rows
        .iter()
        .map(|row| (&*row["state"], &*row["closed"], row["why"].is_empty()))
        .collect();
    results.sort_unstable();
    assert_eq!(results, [("ESTAB", "true", true), ("UNCONN", "false", false)]);
    let table = kill(&holder.pid(), &["--yes", "-q"]);
    let text = stdout(&table, 3);
    assert!(table.stderr.is_empty(), "{table:?}");
    let last = text.lines().last().unwrap();
    assert!(
        last.starts_with("closed 0, 1 could not be: the kernel lets a UDP"),
        "{last}"
    );
}

#[test]
fn without_the_right_nothing_is_closed_and_the_right_is_named() {
    let (Some(nobody), Some(netns)) = (ForNobody::copy(), Netns::new()) else { return };
    let holder = Holder::start_as_nobody_in(&netns, CONNECTED);
    let words = nobody.words();
    let mut command = netns.command(&words[0]);
    command.args(&words[1..]).args(["sockets", "-K", "--yes", "--pid", &holder.pid()]);
    let done = command.output().unwrap();
    let said = stderr(&done);
    assert_eq!((done.status.code(), said.lines().count()), (Some(3), 1), "{said}");
    assert!(said.contains("CAP_NET_ADMIN") && said.contains("sudo"), "{said}");
    assert!(said.contains("nothing was closed") && done.stdout.is_empty(), "{done:?}");
    assert_eq!(open(&holder), 3);
}

/// Of an SO_REUSEPORT group the kernel first finds another, of which it says nothing.
#[test]
fn without_the_right_no_listener_of_a_group_is_closed_either() {
    let (Some(nobody), Some(netns)) = (ForNobody::copy(), Netns::new()) else { return };
    let holder = Holder::start_as_nobody_in(
        &netns,
        r"
port, keep = 0, []
for _ in range(8):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind((HOST, port)); s.listen(5); keep.append(s)
    port = s.getsockname()[1]
say()
",
    );
    let words = nobody.words();
    let row = json(&run(&["sockets", "--pid", &holder.pid(), "-j"]), 0);
    for listener in row["sockets"].as_array().unwrap() {
        let inode = listener["inode"].to_string();
        let mut command = netns.command(&words[0]);
        command
            .args(&words[1..])
            .args(["sockets", "-K", "--yes", "-l", "inode", "=", &inode]);
        let done = command.output().unwrap();
        let said = stderr(&done);
        assert!(
            done.status.code() == Some(3) && said.contains("CAP_NET_ADMIN"),
            "{said}"
        );
        assert!(done.stdout.is_empty(), "{done:?}");
    }
    assert_eq!(open(&holder), 8);
}

/// A command on a terminal of its own, by script(1), whose output is what that shows.
struct OnTerminal {
    child: Child,
    stdin: ChildStdin,
}

impl OnTerminal {
    fn start(args: &str) -> Self {
        let mut child = Command::new("script")
            .args(["-q", "-e", "-c", &format!("{PROGRAM} {args}"), "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        Self { child, stdin }
    }

    /// Waits for the question, answers, and gives all that was shown, and the exit code.
    fn answer(mut self, answer: &str) -> (String, Option<i32>) {
        let mut out = self.child.stdout.take().unwrap();
        let mut shown = Vec::new();
        while !shown.ends_with(b"[y/N] ") {
            let mut byte = [0];
            assert_eq!(out.read(&mut byte).unwrap(), 1, "it ended: {shown:?}");
            shown.extend(byte);
        }
        self.stdin.write_all(answer.as_bytes()).unwrap();
        self.stdin.flush().unwrap();
        out.read_to_end(&mut shown).unwrap();
        let status = self.child.wait().unwrap();
        (String::from_utf8(shown).unwrap(), status.code())
    }
}

#[test]
fn on_a_terminal_it_shows_and_asks() {
    let Some(netns) = Netns::new() else { return };
    let holder = Holder::start_in(&netns, CONNECTED);
    let args = format!("sockets -K --pid {}", holder.pid());
    for no in ["\n", "n\n", "yeah\n"] {
        let (shown, code) = OnTerminal::start(&args).answer(no);
        assert_eq!(code, Some(0), "{shown}");
        assert!(shown.contains("LISTEN") && shown.contains("close these 3 sockets?"));
        assert!(shown.contains("note: nothing was closed"), "{shown}");
        assert_eq!(open(&holder), 3);
    }
    let (shown, code) = OnTerminal::start(&format!("{args} -tl")).answer("y\n");
    assert_eq!(code, Some(0), "{shown}");
    assert!(
        shown.contains("close this socket?") && shown.contains("\nclosed 1"),
        "{shown}"
    );
    assert_eq!(open(&holder), 2, "the connection's ends were not meant");
}
