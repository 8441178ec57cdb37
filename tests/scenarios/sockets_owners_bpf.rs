//! Owners by the kernel's BPF iterator are those that /proc shows; where it may not be
//! used, /proc answers.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::fixtures::netns::Netns;
use crate::fixtures::rights::{ForNobody, lacking};
use crate::fixtures::table::{Holder, ndjson, only, pids, sockets, well};

/// Whether owners can be looked up by BPF here.
fn has_bpf(netns: &Netns) -> bool {
    let done = sockets(Some(netns), &["-tlp", "--owners-by", "bpf"]).output().unwrap();
    if !done.status.success() {
        lacking(&String::from_utf8_lossy(&done.stderr));
    }
    done.status.success()
}

/// Rows in the order of their cookies.
fn rows(netns: &Netns, by: &str, args: &[&str]) -> Vec<Value> {
    let args = [args, &["--format", "ndjson", "--owners-by", by]].concat();
    let mut all = ndjson(&well(&sockets(Some(netns), &args).output().unwrap()));
    all.sort_by_key(|row| (row["cookie"].as_u64(), row["inode"].as_u64()));
    all
}

/// Many owners of many kinds, in one namespace.
const SCENE: &str = r#"
def listener(port):
    s = socket.socket(); s.bind(("127.0.0.1", port)); s.listen(8); return s
def child(does):
    ready = os.pipe()
    pid = os.fork()
    if not pid:
        libc.prctl(1, signal.SIGKILL)
        does(); os.write(ready[1], b"x"); time.sleep(600)
    os.read(ready[0], 1); os.close(ready[0]); os.close(ready[1])
    return pid
kept = [listener(7000), listener(7001)]
kept += [kept[0].dup() for _ in range(3)]
here, there = socket.socketpair()
# Forked; with a name of its own; passed; closed again.
child(lambda: kept[1].close())
child(lambda: name(b'a "b" (c)\n\x1b[0m'))
passed = listener(7002)
socket.send_fds(here, [b"x"], [passed.fileno()])
child(lambda: kept.append(socket.recv_fds(there, 1, 1)[1]))
# A process that shares the fd table of this one.
shares = os.fork if os.uname().machine != "x86_64" else (
    lambda: libc.syscall(56, 0x400 | 17, 0, 0, 0, 0))
pid = shares()
if not pid:
    libc.prctl(1, signal.SIGKILL); time.sleep(600)
# Connections, one waiting in the queue; UDP, unix and raw sockets.
client = socket.create_connection(("127.0.0.1", 7000)); kept.append(client)
kept.append(kept[0].accept()[0])
waiting = socket.create_connection(("127.0.0.1", 7001))
for kind, port in ((socket.AF_INET, 7003), (socket.AF_INET6, 7004)):
    u = socket.socket(kind, socket.SOCK_DGRAM); u.bind(("", port)); kept.append(u)
kept.append(socket.socket(socket.AF_INET, socket.SOCK_RAW, 17))
n = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); n.bind((0, 0)); kept.append(n)
# Tables of threads' own: one of one thread, one of two, and a thread without one.
made, facts = threading.Barrier(5), {}
def hold(port, comm, own, more=None):
    if own:
        libc.unshare(0x400)  # CLONE_FILES
    name(comm)
    s = listener(port)
    facts[port] = threading.get_native_id()
    if more:
        threading.Thread(target=hold, args=more, daemon=True).start()
    made.wait()
    time.sleep(600)
start = lambda *args: threading.Thread(target=hold, args=args, daemon=True).start()
start(7010, b"own", True)
start(7011, b"own of two", True, (7012, b"second of two", False))
start(7013, b"shares", False)
made.wait()
say(**{str(port): tid for port, tid in facts.items()})
"#;

#[test]
fn owners_by_bpf_are_row_by_row_those_of_proc() {
    let Some(netns) = Netns::new() else { return };
    if !has_bpf(&netns) {
        return;
    }
    let holder = Holder::start(&netns, SCENE);
    let rows = |by: &str, args: &[&str]| {
        let mut all = rows(&netns, by, args);
        // The command itself has netlink sockets.
        all.retain(|row| row["proto"] != "nl" || pids(row).contains(&holder.pid()));
        all
    };
    for args in [
        &["-ap"][..],
        &["-apx"],
        &["-ap", "--unbound"],
        &["-tlp"],
        &["-ap", "pid", "=", &holder.pid().to_string()],
        &["--pid", &holder.pid().to_string()],
        &["--pid", &holder.pid().to_string(), "--owners", "all"],
    ] {
        let through_proc = rows("proc", args);
        assert!(through_proc.len() >= 2, "{args:?}: {through_proc:#?}");
        assert_eq!(rows("bpf", args), through_proc, "{args:?}");
    }
    // What the scene is for.
    let all = rows("bpf", &["-tlp"]);
    let of = |port: u64| only(&all, "local_port", port)["owners"].as_array().unwrap();
    let (me, tid) = (holder.pid(), |port: &str| holder.said[port].as_u64().unwrap());
    assert!(of(7000).len() >= 4 * 3, "{:#?}", of(7000));
    assert!(of(7000).iter().any(|owner| owner["comm"] == "a \"b\" (c)\\x0a\\x1b[0m"));
    assert!(of(7002).len() >= 3);
    assert_eq!((of(7010).len(), &of(7010)[0]["comm"]), (1, &"own".into()));
    assert_eq!(of(7010)[0]["tid"], tid("7010"));
    // Both of the two threads have both, and count once.
    for port in [7011, 7012] {
        assert_eq!((of(port).len(), &of(port)[0]["comm"]), (1, &"own of two".into()));
        assert_eq!(of(port)[0]["tid"], tid("7011"));
    }
    assert!(of(7013).iter().any(|owner| owner["pid"] == me && owner["tid"] == me));
    let first = rows("bpf", &["-tl", "--owners", "first"]);
    assert!(first.iter().all(|row| !pids(row).is_empty()), "{first:#?}");
}

#[test]
fn processes_that_end_while_the_iterator_passes_cost_no_row() {
    let Some(netns) = Netns::new() else { return };
    if !has_bpf(&netns) {
        return;
    }
    let script = "
l = socket.socket(); l.bind(('127.0.0.1', 7000)); l.listen(1)
churn = os.fork()
if not churn:
    libc.prctl(1, signal.SIGKILL)
    while True:
        if not os.fork(): os._exit(0)
        os.wait()
say()";
    let holder = Holder::start(&netns, script);
    for _ in 0..30 {
        let all = rows(&netns, "bpf", &["-tlp"]);
        let found = pids(only(&all, "local_port", 7000));
        assert!(found.contains(&holder.pid()), "{found:?}");
    }
}

/// Holds so many files open that the iterator is worth it, and a listener at 7000.
const MANY_FILES: &str = "
l = socket.socket(); l.bind(('127.0.0.1', 7000)); l.listen(1)
for _ in range(4):
    ready = os.pipe()
    if not os.fork():
        libc.prctl(1, signal.SIGKILL)
        l.close()
        kept = [open('/dev/null') for _ in range(600)]
        os.write(ready[1], b'x'); time.sleep(600)
    os.read(ready[0], 1)
say()";

#[test]
fn who_may_not_load_a_program_has_the_owners_that_proc_shows() {
    let Some(netns) = Netns::new() else { return };
    let Some(nobody) = ForNobody::copy() else { return };
    let _many = Holder::start(&netns, MANY_FILES);
    let run = |args: &[&str]| {
        let words = nobody.words();
        let mut command = netns.command(&words[0]);
        command.args(&words[1..]).arg("sockets").args(args);
        command.stdin(Stdio::null()).output().unwrap()
    };
    let by = |by: &str| run(&["-tlp", "--format", "ndjson", "-v", "--owners-by", by]);
    let (auto, through_proc) = (by("auto"), by("proc"));
    assert_eq!(well(&auto), well(&through_proc));
    let why = "owners cannot be looked up by BPF: it needs CAP_BPF and CAP_PERFMON\n";
    let said =
        |done: &std::process::Output| String::from_utf8(done.stderr.clone()).unwrap();
    assert!(said(&auto).contains(&format!("note: {why}")), "{auto:?}");
    assert!(!said(&through_proc).contains("BPF"), "{through_proc:?}");
    let done = by("bpf");
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    assert_eq!(said(&done), format!("sockscope: {why}"));
    // Said to those alone who ask.
    let quiet = run(&["-tlp", "--format", "ndjson"]);
    assert!(!said(&quiet).contains("BPF"), "{quiet:?}");
}

#[test]
fn in_another_pid_namespace_owners_have_its_process_ids() {
    let Some(netns) = Netns::new() else { return };
    let _many = Holder::start(&netns, MANY_FILES);
    let inside = |args: &str| {
        let script = format!(
            "python3 -c '
import os, socket, subprocess, sys
l = socket.socket(); l.bind((\"127.0.0.1\", 7005)); l.listen(1)
print(os.getpid(), flush=True)
sys.exit(subprocess.run(sys.argv[1:]).returncode)' {} sockets -tlp {args}",
            env!("CARGO_BIN_EXE_sockscope")
        );
        let mut command = netns.command("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "sh", "-c", &script]);
        command.stdin(Stdio::null()).output().unwrap()
    };
    let done = inside("--format ndjson -v");
    let text = well(&done);
    let (pid, rest) = text.split_once('\n').unwrap();
    let all = ndjson(rest);
    assert_eq!(pids(only(&all, "local_port", 7005)), [pid.parse::<u64>().unwrap()]);
    assert_eq!(only(&all, "local_port", 7000)["no_owner"], "other namespace");
    let said = String::from_utf8(done.stderr).unwrap();
    let why = "owners are looked up by BPF in the first pid namespace alone\n";
    assert!(said.contains(why), "{said}");
    let done = inside("--owners-by bpf");
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    assert!(String::from_utf8(done.stderr).unwrap().contains(why));
}

#[test]
fn a_tree_of_proc_files_is_not_read_by_bpf() {
    let tree = tempfile::tempdir().unwrap();
    let run = |by: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sockscope"));
        command.args(["sockets", "-tlp", "--owners-by", by, "--proc-root"]);
        command.arg(tree.path()).stdin(Stdio::null()).output().unwrap()
    };
    let done = run("bpf");
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains("this host's own /proc alone"), "{said}");
}
