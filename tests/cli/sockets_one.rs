//! `sockscope sockets --fd`: one descriptor in full.

use std::process::{Command, Output};

use serde_json::Value;

use crate::fixtures::holder::Holder;
use crate::fixtures::netns::Netns;
use crate::fixtures::probing::{json, stderr, stdout};
use crate::fixtures::rights::ForNobody;
use crate::fixtures::run;

fn show(name: &str, args: &[&str]) -> Output {
    run(&[&["sockets", "--fd", name], args].concat())
}

/// The lines of a block, each name with all its values.
fn block(done: &Output) -> Vec<(String, String)> {
    let text = stdout(done, 0);
    let mut lines: Vec<(String, String)> = Vec::new();
    for line in text.lines().skip(1) {
        let (name, value) = line.split_at(11);
        match (name.trim(), lines.last_mut()) {
            ("", Some((_, last))) => last.push_str(&format!(" | {}", value.trim())),
            (name, _) => lines.push((name.to_owned(), value.trim().to_owned())),
        }
    }
    lines
}

fn line<'a>(block: &'a [(String, String)], name: &str) -> &'a str {
    let found = block.iter().find(|(found, _)| found == name);
    found.map_or_else(|| panic!("no {name}: {block:?}"), |(_, value)| value)
}

/// A connection, its client with data to read, and a child that has it all too.
const CONNECTED: &str = r"
a = tcp(backlog=7)
c, s = pair(a)
c.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
c.setsockopt(socket.SOL_IP, socket.IP_TOS, 0x10)
s.send(b'hello'); c.send(b'x' * 3000)
child = os.fork()
if child == 0:
    libc.prctl(1, signal.SIGKILL)
    time.sleep(600)
end = time.monotonic() + 20
while c.recv(9, socket.MSG_PEEK) != b'hello' and time.monotonic() < end: pass
say(a=a.fileno(), c=c.fileno(), s=s.fileno(), child=child, inode=inode(c),
    local=c.getsockname()[1], port=a.getsockname()[1])
";

#[test]
fn a_connection_is_shown_whole() {
    let Some(netns) = Netns::new() else { return };
    let holder = Holder::start_in(&netns, CONNECTED);
    let n = |name: &str| holder.number(name);
    let (pid, child) = (n("pid"), n("child"));
    let done = show(&format!("{pid}:{}", n("c")), &[]);
    let title = format!("descriptor {} of process {pid} (python3)", n("c"));
    assert_eq!(stdout(&done, 0).lines().next().unwrap(), title);
    let block = block(&done);
    let both = |fd: u64| {
        let mut owners = [(pid, fd), (child, fd)];
        owners.sort_unstable();
        owners.map(|(pid, fd)| format!("python3[{pid}] fd {fd}")).join(" | ")
    };
    let host = holder.host();
    let pair = format!("{host}:{} → {host}:{}", n("local"), n("port"));
    let namespace = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let namespace = format!("{}, another than this command's", namespace.display());
    for (name, value) in [
        ("pair", &*pair),
        ("kind", "tcp, IPv4"),
        ("state", "ESTAB: open at both ends"),
        ("owners", &both(n("c"))),
        ("peer", &both(n("s"))),
        ("made by", "root (uid 0)"),
        ("namespace", &namespace),
        ("queues", "5 B to be read, 0 B not acknowledged"),
    ] {
        assert_eq!(line(&block, name), value, "{name}");
    }
    assert!(line(&block, "identity").starts_with(&format!("inode {}, ", n("inode"))));
    assert!(line(&block, "options").starts_with("tos 0x10, "));
    assert!(line(&block, "timer").starts_with("keepalive in 1"));
    assert!(line(&block, "sent").starts_with("2.9 KiB in "));
    assert!(line(&block, "received").starts_with("5 B in "));
    assert!(
        line(&block, "round trip").contains(" µs; timeout ")
            || line(&block, "round trip").contains(" ms; timeout ")
    );
    for name in ["receive", "send", "congestion", "in flight", "windows", "negotiated"] {
        assert!(!line(&block, name).is_empty(), "{name}");
    }
}

#[test]
fn a_listener_shows_its_queue() {
    let holder = Holder::start(CONNECTED);
    let block = block(&show(&format!("{}:{}", holder.pid(), holder.number("a")), &[]));
    let queue = "0 in an accept queue that admits 8 (backlog 7 + 1)";
    assert_eq!(line(&block, "queues"), queue);
    let at = format!("{}:{}", holder.host(), holder.number("port"));
    assert_eq!(line(&block, "pair"), at);
    assert!(block.iter().all(|(name, _)| name != "round trip"), "{block:?}");
}

#[test]
fn json_has_every_group() {
    let holder = Holder::start(CONNECTED);
    let name = format!("{}:{}", holder.pid(), holder.number("c"));
    let document = json(&show(&name, &["-j"]), 0);
    assert_eq!(document["schema"], "sockscope.sockets/1");
    let rows = document["sockets"].as_array().unwrap();
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!(row["inode"], holder.number("inode"));
    assert_eq!(row["owners"].as_array().unwrap().len(), 2);
    for group in ["tcp_info", "memory", "timer", "extended"] {
        assert!(row[group].is_object(), "{group}: {row}");
    }
    assert_eq!(row["tcp_info"]["bytes_received"], 5);
    assert_eq!(row["extended"]["tos"], 0x10);
    assert!(row["netns"].as_str().unwrap().starts_with("net:["), "{row}");
    let line = stdout(&show(&name, &["--format", "ndjson"]), 0);
    let again: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(again["inode"], row["inode"]);
    let csv = stdout(&show(&name, &["--format", "csv", "--columns", "proto,inode"]), 0);
    assert_eq!(csv, format!("proto,inode\ntcp,{}\n", holder.number("inode")));
}

#[test]
fn a_unix_pair_is_shown_with_its_peer() {
    let holder = Holder::start(
        "x, y = socket.socketpair()\nsay(x=x.fileno(), y=y.fileno(), peer=inode(y))",
    );
    let (pid, y) = (holder.pid(), holder.number("y"));
    let block = block(&show(&format!("{pid}:{}", holder.number("x")), &[]));
    assert_eq!(line(&block, "kind"), "unix stream");
    assert_eq!(line(&block, "peer"), format!("python3[{pid}] fd {y}"));
    assert!(line(&block, "pair").ends_with(&format!("→ * {}", holder.number("peer"))));
}

#[test]
fn a_socket_that_was_only_made_is_said_to_be_in_no_table() {
    let Some(netns) = Netns::new() else { return };
    let holder = Holder::start_in(&netns, "m = socket.socket()\nsay(fd=m.fileno())");
    let name = format!("{}:{}", holder.pid(), holder.number("fd"));
    let block = block(&show(&name, &[]));
    assert_eq!(line(&block, "kind"), "tcp, IPv4");
    assert!(line(&block, "state").starts_with("in no table: made, and neither bound"));
    let owner = format!("python3[{}] fd {}", holder.pid(), holder.number("fd"));
    assert_eq!(line(&block, "owners"), owner);
    let row = json(&show(&name, &["-j"]), 0)["sockets"][0].clone();
    assert_eq!((&row["proto"], &row["state"]), (&"tcp".into(), &"UNCONN".into()));
    assert_eq!((&row["local_addr"], &row["uid"]), (&Value::Null, &0.into()));
}

#[test]
fn a_raw_socket_is_found_whatever_table_has_it() {
    let Some(netns) = Netns::new() else { return };
    let script = "r = socket.socket(socket.AF_INET, socket.SOCK_RAW, 200)\n\
                  say(fd=r.fileno())";
    let holder = Holder::start_in(&netns, script);
    let name = format!("{}:{}", holder.pid(), holder.number("fd"));
    let block = block(&show(&name, &[]));
    assert_eq!(line(&block, "kind"), "raw, IPv4");
    assert_eq!(line(&block, "state"), "UNCONN: it has no peer");
    assert_eq!(line(&block, "pair"), "0.0.0.0:200");
}

#[test]
fn a_socket_from_another_namespace_than_its_process_is_found() {
    let Some(netns) = Netns::new() else { return };
    let made = format!(
        "netns = os.open('/run/netns/{}', os.O_RDONLY)\n\
         home = os.open('/proc/self/ns/net', os.O_RDONLY)\n\
         assert libc.setns(netns, 0) == 0\n\
         a = tcp()\n\
         assert libc.setns(home, 0) == 0\n\
         say(fd=a.fileno())",
        netns.name
    );
    let holder = Holder::start(&made);
    let block = block(&show(&format!("{}:{}", holder.pid(), holder.number("fd")), &[]));
    assert_eq!(line(&block, "state"), "LISTEN: it accepts connections");
    let namespace = line(&block, "namespace");
    assert!(namespace.ends_with("another than this command's"), "{namespace}");
}

#[test]
fn a_threads_own_table_is_named_by_the_thread() {
    let holder = Holder::start(
        r"
said = {}
ready = threading.Event()
def own():
    own_table()
    s = tcp()
    os.dup2(s.fileno(), 200)
    said.update(tid=threading.get_native_id(), fd=200)
    ready.set()
    time.sleep(600)
threading.Thread(target=own, daemon=True).start()
ready.wait()
say(**said)
",
    );
    let (pid, tid) = (holder.pid(), holder.number("tid"));
    let done = show(&format!("{pid}:{tid}:200"), &[]);
    let title = format!("descriptor 200 of thread {tid} of process {pid} (python3)");
    assert_eq!(stdout(&done, 0).lines().next().unwrap(), title);
    let owners = block(&done);
    let owner = format!("python3[{pid}] thread {tid} fd 200");
    assert!(line(&owners, "owners").ends_with(&owner), "{owners:?}");
    refused(&format!("{pid}:200"), &format!("{pid}:{tid}:200"));
    refused(&format!("{tid}:200"), &format!("write {pid}:{tid}:200"));
}

/// Ends with exit code 2 and one line that contains `says`.
fn refused(name: &str, says: &str) {
    let done = show(name, &[]);
    let said = stderr(&done);
    let ends = (done.status.code(), said.lines().count());
    assert_eq!(ends, (Some(2), 1), "{name}: {said}");
    assert!(said.contains(says) && done.stdout.is_empty(), "{name}: {said}");
}

#[test]
fn what_is_no_socket_is_refused_by_name() {
    let holder = Holder::start(
        r"
r, w = os.pipe()
f = os.open('/dev/null', os.O_RDONLY)
say(pipe=r, null=f)
",
    );
    let pid = holder.pid();
    let of = |name| format!("{pid}:{}", holder.number(name));
    refused(&of("pipe"), "is a pipe (pipe:[");
    refused(&of("null"), "is the device /dev/null, not a socket");
    refused(&format!("{pid}:999"), "descriptor 999 of process");
    refused("4194305:1", "there is no process 4194305");
    refused(&format!("{pid}:4194305:1"), "has no thread 4194305");
    for text in ["1", "1:", ":1", "x:1", "1:2:3:4", "0:1", "1:-1"] {
        refused(text, "a descriptor is written PID:FD, as 4711:18");
    }
    for args in [&["-t"][..], &["--count"], &["--pid", "1"], &["dport", "=", ":1"]] {
        let done = show(&of("pipe"), args);
        assert_eq!(done.status.code(), Some(2), "{args:?}: {done:?}");
    }
}

#[test]
fn without_the_right_it_says_what_helps() {
    let Some(nobody) = ForNobody::copy() else { return };
    let holder = Holder::start("a = tcp()\nsay(fd=a.fileno())");
    let words = nobody.words();
    let done = Command::new(&words[0])
        .args(&words[1..])
        .args(["sockets", "--fd", &format!("{}:{}", holder.pid(), holder.number("fd"))])
        .output()
        .unwrap();
    let said = stderr(&done);
    assert_eq!((done.status.code(), said.lines().count()), (Some(3), 1), "{said}");
    assert!(said.contains("may not be read: run with sudo"), "{said}");
}
