//! Whose a socket is: every process that has it, or why none can be named.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use serde_json::{Value, json};

use crate::fixtures::netns::Netns;
use crate::fixtures::rights::{ForNobody, NOBODY};
use crate::fixtures::table::{
    Holder, ndjson, only, pids, printed, rows, sockets, well, with,
};

/// `(pid, tid, fd)` of each owner.
fn owners(row: &Value) -> Vec<(u64, u64, u64)> {
    let number = |owner: &Value, key: &str| owner[key].as_u64().unwrap();
    let owners = row["owners"].as_array().unwrap();
    owners.iter().map(|o| (number(o, "pid"), number(o, "tid"), number(o, "fd"))).collect()
}

#[test]
fn forked_and_passed_descriptors_are_owners_too() {
    let Some(netns) = Netns::new() else { return };
    let script = "
l = socket.socket(); l.bind(('127.0.0.1', 7000)); l.listen(1)
here, there = socket.socketpair()
took = os.pipe()
child = os.fork()
if not child:
    libc.prctl(1, signal.SIGKILL)
    _, fds, _, _ = socket.recv_fds(there, 1, 1)
    os.write(took[1], struct.pack('i', fds[0]))
    time.sleep(600)
p = socket.socket(); p.bind(('127.0.0.1', 7001)); p.listen(1)
socket.send_fds(here, [b'x'], [p.fileno()])
passed = struct.unpack('i', os.read(took[0], 4))[0]
again = l.dup()
say(child=child, forked=l.fileno(), again=again.fileno(), own=p.fileno(), passed=passed)";
    let holder = Holder::start(&netns, script);
    let said = |key: &str| holder.said[key].as_u64().unwrap();
    let (parent, child) = (holder.pid(), said("child"));
    let all = rows(&netns, &["-tlp"]);
    let mut expected = vec![
        (parent, parent, said("forked")),
        (parent, parent, said("again")),
        (child, child, said("forked")),
    ];
    expected.sort_unstable();
    let mut forked = owners(only(&all, "local_port", 7000));
    forked.sort_unstable();
    assert_eq!(forked, expected);
    let passed = owners(only(&all, "local_port", 7001));
    assert_eq!(passed.len(), 2, "{passed:?}");
    assert!(passed.contains(&(parent, parent, said("own"))), "{passed:?}");
    assert!(passed.contains(&(child, child, said("passed"))), "{passed:?}");
    let text = printed(&netns, &["-tlnp"]);
    assert!(text.contains(", 2 more\n") && text.contains(", 1 more\n"), "{text}");
    let text = printed(&netns, &["-tln", "--columns", "local,owners"]);
    let line = text.lines().find(|line| line.contains(":7000")).unwrap();
    assert_eq!(line.matches(&format!("[{parent}] fd ")).count(), 2, "{line}");
    assert_eq!(line.matches(&format!("[{child}] fd ")).count(), 1, "{line}");

    // The first owner of each is enough where that is asked for.
    let all = rows(&netns, &["-tl", "--owners", "first"]);
    assert!(all.iter().all(|row| !pids(row).is_empty()), "{all:#?}");
    let all = rows(&netns, &["-tl", "--owners", "none"]);
    assert!(all.iter().all(|row| pids(row).is_empty() && row["no_owner"].is_null()));
}

#[test]
fn the_owner_in_a_threads_own_fd_table_is_named() {
    let Some(netns) = Netns::new() else { return };
    let script = "
facts, made = {}, threading.Event()
def hold():
    libc.unshare(0x400)  # CLONE_FILES
    name(b'own table')
    s = socket.socket(); s.bind(('127.0.0.1', 7000)); s.listen(1)
    facts.update(tid=threading.get_native_id(), fd=s.fileno())
    made.set()
    time.sleep(600)
threading.Thread(target=hold, daemon=True).start()
made.wait()
say(**facts)";
    let holder = Holder::start(&netns, script);
    let said = |key: &str| holder.said[key].as_u64().unwrap();
    for look in ["all", "first"] {
        let all = rows(&netns, &["-tl", "--owners", look]);
        let expected = [(holder.pid(), said("tid"), said("fd"))];
        assert_eq!(owners(only(&all, "local_port", 7000)), expected);
        assert_eq!(all[0]["owners"][0]["comm"], "own table");
    }
    let (pid, tid, fd) = (holder.pid(), said("tid"), said("fd"));
    let text = printed(&netns, &["-tlnp"]);
    assert!(
        text.ends_with(&format!(" own table[{pid}] thread {tid} fd {fd}\n")),
        "{text}"
    );
}

#[test]
fn the_first_owners_of_many_listeners_are_found_however_they_are_spread() {
    let Some(netns) = Netns::new() else { return };
    // One process has its listener at a high number, others at a low one, and others
    // came later.
    let script = "
def listener(port):
    s = socket.socket(); s.bind(('127.0.0.1', port)); s.listen(1); return s
more = [os.open('/dev/null', os.O_RDONLY) for _ in range(200)]
high = listener(7000)
for fd in more[:100]: os.close(fd)
children = []
for n in range(1, 6):
    ready = os.pipe()
    child = os.fork()
    if not child:
        libc.prctl(1, signal.SIGKILL)
        if n % 2: high.close()
        low = listener(7000 + n)
        os.write(ready[1], b'x'); time.sleep(600)
    os.read(ready[0], 1)
    children.append(child)
say(children=children)";
    let holder = Holder::start(&netns, script);
    for _ in 0..10 {
        let all = rows(&netns, &["-tl", "--owners", "first"]);
        assert_eq!(all.len(), 6);
        for row in &all {
            assert!(!pids(row).is_empty(), "{row}");
        }
        for (at, child) in holder.said["children"].as_array().unwrap().iter().enumerate()
        {
            let row = only(&all, "local_port", 7001 + at as u64);
            assert_eq!(pids(row), [child.as_u64().unwrap()]);
        }
    }
}

#[test]
fn processes_that_end_while_they_are_looked_at_cost_no_row_and_no_error() {
    let Some(netns) = Netns::new() else { return };
    let listener = netns.inside(|| TcpListener::bind("127.0.0.1:7000").unwrap());
    let over = AtomicBool::new(false);
    // Stops the churn even where an assertion below fails.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let churn = || {
        while !over.load(Relaxed) {
            // Each has the listener as its stdin for the moment that it lives.
            let copy = std::os::fd::OwnedFd::from(listener.try_clone().unwrap());
            assert!(Command::new("true").stdin(copy).status().unwrap().success());
        }
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(churn);
        }
        let _stop = Stop(&over);
        for round in 0..20 {
            let look = ["all", "first"][round % 2];
            let done = sockets(Some(&netns), &["-tl", "-j", "--owners", look]).output();
            let document: Value =
                serde_json::from_str(&well(&done.unwrap())).expect("a whole document");
            let all = document["sockets"].as_array().unwrap();
            let row = only(all, "local_port", 7000);
            assert!(!pids(row).is_empty(), "{row}");
            if look == "all" {
                assert!(pids(row).contains(&std::process::id().into()), "{row}");
            }
        }
    });
}

/// `sockscope sockets ARGS` as an ordinary user, in a namespace.
fn as_nobody(netns: &Netns, nobody: &ForNobody, args: &[&str]) -> Output {
    let words = nobody.words();
    let mut command = netns.command(&words[0]);
    command.args(&words[1..]).arg("sockets").args(args);
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn an_ordinary_user_is_told_once_what_may_not_be_seen() {
    let Some(netns) = Netns::new() else { return };
    let Some(nobody) = ForNobody::copy() else { return };
    let script = "
l = socket.socket(); l.bind(('127.0.0.1', 7000)); l.listen(1)
m = socket.socket(); m.bind(('127.0.0.1', 7001)); m.listen(1)
say()";
    let holder = Holder::start(&netns, script);
    // Who changes his user is readable by root alone until he says otherwise.
    let mine = format!(
        "os.setgid({NOBODY}); os.setuid({NOBODY})
libc.prctl(4, 1); libc.prctl(1, signal.SIGKILL)
{script}"
    );
    let mine = Holder::start(&netns, &mine.replace("700", "710"));
    for look in ["all", "first"] {
        let args = ["-tl", "--format", "ndjson", "--owners", look];
        let done = as_nobody(&netns, &nobody, &args);
        let all = ndjson(&well(&done));
        assert_eq!(all.len(), 4, "{all:#?}");
        for port in [7000, 7001] {
            let row = only(&all, "local_port", port);
            assert_eq!(
                (&row["no_owner"], &row["uid"]),
                (&json!("not permitted"), &json!(0))
            );
        }
        for port in [7100, 7101] {
            assert_eq!(pids(only(&all, "local_port", port)), [mine.pid()]);
        }
        let said = String::from_utf8(done.stderr).unwrap();
        let note = "note: 2 owners could not be read; run with sudo to see them\n";
        assert_eq!(said, note);
    }
    let done = as_nobody(&netns, &nobody, &["-tlnp", "-q"]);
    assert!(well(&done).contains("not permitted (uid 0)"), "{done:?}");
    assert!(done.stderr.is_empty(), "-q silences the note: {done:?}");
    // Where owners were not asked for there is nothing to note.
    let done = as_nobody(&netns, &nobody, &["-tln"]);
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    // Packet and netlink tables, which have rules of their own, can be read too.
    let done = as_nobody(&netns, &nobody, &["-a", "--format", "ndjson"]);
    let all = ndjson(&well(&done));
    assert!(!with(&all, "proto", "nl").is_empty(), "{all:#?}");
    assert!(all.iter().all(|row| row["interface"].is_null()));
    drop(holder);
}

#[test]
fn without_its_owners_processes_nothing_of_a_row_is_missing() {
    let Some(netns) = Netns::new() else { return };
    let Some(nobody) = ForNobody::copy() else { return };
    let script = "
l = socket.socket(); l.bind(('127.0.0.1', 7000)); l.listen(3)
c = socket.create_connection(('127.0.0.1', 7000))
say()";
    let _holder = Holder::start(&netns, script);
    let bare = |done: &Output| {
        let mut all = ndjson(&well(done));
        for row in &mut all {
            for key in ["owners", "no_owner"] {
                row[key].take();
            }
        }
        all.sort_by_key(|row| row["cookie"].as_u64());
        all
    };
    let args = ["-ta", "--format", "ndjson", "--owners", "all"];
    let ordinary = bare(&as_nobody(&netns, &nobody, &args));
    let root = bare(&sockets(Some(&netns), &args).output().unwrap());
    assert_eq!(ordinary.len(), 3);
    assert_eq!(ordinary, root);
}
