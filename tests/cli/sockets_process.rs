//! `sockscope sockets --pid`: one process's sockets.

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::fixtures::holder::Holder;
use crate::fixtures::netns::Netns;
use crate::fixtures::probing::{json, stderr};
use crate::fixtures::rights::ForNobody;
use crate::fixtures::{run, sockscope};

/// The descriptors of each socket that was listed, by inode: (pid, tid, fd).
fn listed(document: &Value) -> BTreeMap<u64, Vec<(u64, u64, u64)>> {
    let rows = document["sockets"].as_array().unwrap().iter();
    let owners = |row: &Value| {
        let number = |owner: &Value, key: &str| owner[key].as_u64().unwrap();
        let owners = row["owners"].as_array().unwrap().iter();
        owners
            .map(|owner| {
                (number(owner, "pid"), number(owner, "tid"), number(owner, "fd"))
            })
            .collect::<Vec<_>>()
    };
    let by_inode = rows.map(|row| (row["inode"].as_u64().unwrap(), owners(row)));
    let all: BTreeMap<_, _> = by_inode.collect();
    assert_eq!(all.len(), document["sockets"].as_array().unwrap().len(), "{document}");
    all
}

fn of(pid: &str, args: &[&str]) -> Output {
    run(&[&["sockets", "--pid", pid, "-j"], args].concat())
}

/// Exit code and the one line on stderr.
fn refused(done: &Output) -> (i32, String) {
    let said = stderr(done);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("sockscope: ") && done.stdout.is_empty(), "{done:?}");
    (done.status.code().unwrap(), said)
}

const MANY: &str = r"
a = tcp()
again = os.dup(a.fileno())
c, s = pair(a)
queued = dial(a)
u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u.bind(('::1', 0))
bound = socket.socket(); bound.bind((HOST, 0))
x, y = socket.socketpair()
d, e = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
n = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); n.bind((0, 0))
made = socket.socket(socket.AF_INET6)
all = {inode(t): [t.fileno()] for t in (a, c, s, queued, u, bound, x, y, d, e, n, made)}
all[inode(a)].append(again)
say(sockets=all, made=inode(made), port=a.getsockname()[1])
";

fn expect_many(holder: &Holder, done: &Output) {
    let pid = holder.number("pid");
    let expected: BTreeMap<u64, Vec<(u64, u64, u64)>> = holder
        .said("sockets")
        .as_object()
        .unwrap()
        .iter()
        .map(|(inode, fds)| {
            let fds = fds.as_array().unwrap().iter();
            let owners = fds.map(|fd| (pid, pid, fd.as_u64().unwrap())).collect();
            (inode.parse().unwrap(), owners)
        })
        .collect();
    let document = json(done, 0);
    assert_eq!(listed(&document), expected);
    let made = holder.number("made");
    let rows = document["sockets"].as_array().unwrap();
    let made = rows.iter().find(|row| row["inode"] == made).unwrap();
    let shown = [&made["proto"], &made["state"], &made["local_addr"]];
    assert_eq!(shown, [&"tcp".into(), &"UNCONN".into(), &Value::Null]);
    assert!(done.stderr.is_empty(), "{done:?}");
}

#[test]
fn every_kind_and_state_comes_with_each_of_its_descriptors() {
    let holder = Holder::start(MANY);
    expect_many(&holder, &of(&holder.pid(), &[]));
}

#[test]
fn it_is_found_in_another_network_namespace() {
    let Some(netns) = Netns::new() else { return };
    let holder = Holder::start_in(&netns, MANY);
    let done = of(&holder.pid(), &[]);
    expect_many(&holder, &done);
    let document = json(&done, 0);
    let namespace = std::fs::read_link(format!("/proc/{}/ns/net", holder.pid()));
    let namespace = namespace.unwrap().to_str().unwrap().to_owned();
    let rows = document["sockets"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["netns"] == *namespace), "{document}");
}

#[test]
fn letters_narrow_it() {
    let Some(netns) = Netns::new() else { return };
    let holder = Holder::start_in(&netns, MANY);
    let states = |args: &[&str]| {
        let done = of(&holder.pid(), args);
        let rows = json(&done, 0)["sockets"].as_array().unwrap().clone();
        let mut states: Vec<String> = rows
            .iter()
            .map(|row| format!("{} {}", row["proto"], row["state"]).replace('"', ""))
            .collect();
        states.sort();
        states
    };
    assert_eq!(states(&["-tl"]), ["tcp LISTEN"]);
    assert_eq!(
        states(&["-t"]),
        ["tcp ESTAB", "tcp ESTAB", "tcp ESTAB", "tcp LISTEN", "tcp UNCONN"]
    );
    assert_eq!(states(&["-u"]), ["udp UNCONN"]);
}

#[test]
fn sockets_in_threads_own_tables_are_its_too() {
    let holder = Holder::start(
        r"
said = {}
ready = threading.Event()
def own():
    own_table()
    s = tcp()
    said.update(tid=threading.get_native_id(), fd=s.fileno(), inode=inode(s))
    ready.set()
    time.sleep(600)
threading.Thread(target=own, daemon=True).start()
ready.wait()
say(**said)
",
    );
    let found = listed(&json(&of(&holder.pid(), &[]), 0));
    let n = |name| holder.number(name);
    assert_eq!(found[&n("inode")], [(n("pid"), n("tid"), n("fd"))]);
    let thread = of(&n("tid").to_string(), &[]);
    let says = format!("{} is a thread of process {}", n("tid"), n("pid"));
    let (code, said) = refused(&thread);
    assert!(code == 2 && said.contains(&says), "{said}");
}

#[test]
fn owners_of_other_processes_are_shown_where_they_are_asked_for() {
    let holder = Holder::start(
        r"
a = tcp()
child = os.fork()
if child == 0:
    libc.prctl(1, signal.SIGKILL)
    time.sleep(600)
say(inode=inode(a), fd=a.fileno(), child=child)
",
    );
    let n = |name| holder.number(name);
    let own = (n("pid"), n("pid"), n("fd"));
    let found = listed(&json(&of(&holder.pid(), &[]), 0));
    assert_eq!(found[&n("inode")], [own]);
    let found = listed(&json(&of(&holder.pid(), &["--owners", "all"]), 0));
    let mut both = [own, (n("child"), n("child"), n("fd"))];
    both.sort_unstable();
    assert_eq!(found[&n("inode")], both);
}

#[test]
fn a_table_shows_every_descriptor() {
    let holder =
        Holder::start("a = tcp()\nb = os.dup(a.fileno())\nsay(a=a.fileno(), b=b)");
    let done = run(&["ss", "--pid", &holder.pid()]);
    let text = String::from_utf8(done.stdout).unwrap();
    let (pid, a, b) = (holder.pid(), holder.number("a"), holder.number("b"));
    let owners = format!("python3[{pid}] fd {a}, python3[{pid}] fd {b}");
    let row = text.lines().nth(1).unwrap();
    assert!(row.starts_with("tcp   LISTEN") && row.ends_with(&owners), "{text}");
    let count = run(&["ss", "--pid", &pid, "--count"]);
    assert_eq!(count.stdout, b"1\n");
}

#[test]
fn what_is_no_process_is_refused() {
    let (code, said) = refused(&of("4194305", &[]));
    assert_eq!((code, said.trim()), (2, "sockscope: there is no process 4194305"));
    for odd in ["0", "", "x", "+1", "1.5", "-1", "99999999999"] {
        let done = run(&["sockets", &format!("--pid={odd}")]);
        let (code, said) = refused(&done);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("a process is given by its id, as 4711"), "{said}");
    }
}

#[test]
fn without_the_right_it_says_what_helps() {
    let Some(nobody) = ForNobody::copy() else { return };
    let holder = Holder::start("a = tcp()\nsay()");
    let words = nobody.words();
    let done = Command::new(&words[0])
        .args(&words[1..])
        .args(["sockets", "--pid", &holder.pid()])
        .output()
        .unwrap();
    let (code, said) = refused(&done);
    assert!(code == 3 && said.contains("run with sudo"), "{said}");
}

#[test]
fn a_namespace_that_may_not_be_entered_is_said_to_be_so() {
    let Some(nobody) = ForNobody::copy() else { return };
    let words = nobody.words();
    let (program, as_nobody) = words.split_last().unwrap();
    let mut python = Command::new(&as_nobody[0]);
    python.args(&as_nobody[1..]);
    python.args(["unshare", "--user", "--net", "/usr/bin/python3"]);
    let holder = Holder::start_by(python, "a = tcp(host='0.0.0.0')\nsay()");
    let done = Command::new(&as_nobody[0])
        .args(&as_nobody[1..])
        .args([program, "sockets", "--pid", &holder.pid()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (code, said) = refused(&done);
    assert!(code == 3 && said.contains("may not be entered"), "{said}");
    // Root may.
    let rows = json(&of(&holder.pid(), &[]), 0)["sockets"].clone();
    assert_eq!(rows[0]["state"], "LISTEN", "{rows}");
}

#[test]
fn a_process_that_ends_meanwhile_is_no_panic() {
    for _ in 0..30 {
        let mut child = Command::new("true").spawn().unwrap();
        let done = sockscope()
            .args(["sockets", "--pid", &child.id().to_string(), "-j"])
            .output()
            .unwrap();
        child.wait().unwrap();
        assert!(matches!(done.status.code(), Some(0 | 2)), "{done:?}");
    }
}

#[test]
fn a_filter_and_sums_apply_to_it() {
    let holder = Holder::start(MANY);
    let pid = holder.pid();
    let states = |filter: &[&str]| -> Vec<String> {
        let rows = json(&of(&pid, filter), 0)["sockets"].as_array().unwrap().clone();
        rows.iter().map(|row| row["state"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(states(&["state", "listening"]), ["LISTEN"]);
    let to_listener = format!(":{}", holder.number("port"));
    assert_eq!(states(&["dport", "=", &to_listener]), ["ESTAB", "ESTAB"]);
    let count = run(&["sockets", "--pid", &pid, "--count"]);
    let expected = holder.said("sockets").as_object().unwrap().len();
    assert_eq!(String::from_utf8(count.stdout).unwrap(), format!("{expected}\n"));
    // Whoever else has many sockets.
    let everyone = run(&["sockets", "-a", "pid", "=", &pid, "-j"]);
    let others: Vec<u64> = listed(&json(&everyone, 0)).into_keys().collect();
    let mine: Vec<u64> = listed(&json(&of(&pid, &[]), 0)).into_keys().collect();
    assert!(others.iter().all(|inode| mine.contains(inode)), "{others:?} {mine:?}");
}

/// A process that has a socket of another namespace than its own.
fn with_one_of(netns: &Netns) -> Holder {
    Holder::start(&format!(
        r"
home = os.open('/proc/self/ns/net', os.O_RDONLY)
there = os.open('/run/netns/{}', os.O_RDONLY)
assert libc.setns(there, 0) == 0
away = tcp()
assert libc.setns(home, 0) == 0
own = tcp()
say(own=inode(own), away=inode(away), fd=away.fileno())
",
        netns.name
    ))
}

#[test]
fn sockets_of_other_namespaces_are_told_from_those_that_were_only_made() {
    let Some(netns) = Netns::new() else { return };
    let holder = with_one_of(&netns);
    let done = of(&holder.pid(), &[]);
    let found: Vec<u64> = listed(&json(&done, 0)).into_keys().collect();
    assert_eq!(found, [holder.number("own")]);
    let note = "note: 1 more socket of this process belongs to another network namespace \
                than its own: --all-netns lists them";
    assert_eq!(stderr(&done).trim(), note);
    let done = of(&holder.pid(), &["--all-netns"]);
    let document = json(&done, 0);
    let mut both = [holder.number("own"), holder.number("away")];
    both.sort_unstable();
    assert!(listed(&document).into_keys().eq(both), "{document}");
    let rows = document["sockets"].as_array().unwrap();
    let away = rows.iter().find(|row| row["netns"] == *netns.name).unwrap();
    assert_eq!(away["inode"], holder.number("away"));
    let there = of(&holder.pid(), &["--netns", &netns.name]);
    let there: Vec<u64> = listed(&json(&there, 0)).into_keys().collect();
    assert_eq!(there, [holder.number("away")]);
}
