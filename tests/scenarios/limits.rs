//! What is predicted is what is measured, and what `limits --need` prints makes it fit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::fixtures::limits::Limits;
use crate::fixtures::netns::Netns;
use crate::fixtures::probe::{Outcome, Probe};
use crate::fixtures::rights::lacking;
use crate::fixtures::{Server, until};

/// Within 1 %.
fn agree(outcome: &Outcome, predicted: u64) {
    agree_with(outcome, outcome.held(), predicted);
}

fn agree_with(outcome: &Outcome, measured: u64, predicted: u64) {
    let apart = predicted.abs_diff(measured);
    assert!(measured > 0 && apart * 100 <= measured, "{predicted} predicted: {outcome}");
}

#[test]
fn the_descriptors_of_the_server_are_predicted() {
    let Some(netns) = Netns::new() else { return };
    let mut limited = netns.command("prlimit");
    limited.args(["--nofile=2000:2000", env!("CARGO_BIN_EXE_sockscope")]);
    let server = Server::start_by(limited, &[]);
    let limits = || {
        let program = netns.command(env!("CARGO_BIN_EXE_sockscope"));
        Limits::by(program, &["--target", &server.address])
    };
    let before = limits();
    assert_eq!(before.document["binding"], "RLIMIT_NOFILE soft");
    let outcome = Probe::of(&server.address).inside(&netns).run();
    outcome.is("server.fd_limit", "certain");
    agree(&outcome, before.document["room"].as_u64().unwrap());
    agree(&outcome, outcome.number("/plan/predicted/connections"));
    assert_eq!(outcome.text("/plan/predicted/ceiling"), "RLIMIT_NOFILE soft");
    assert_eq!(outcome.text("/plan/predicted/side"), "server");
    // Once the server has closed what was held and queued, the same is predicted again.
    until("the same is predicted again", || {
        limits().document["room"] == before.document["room"]
    });
}

#[test]
fn the_source_ports_are_predicted() {
    let Some(netns) = Netns::new() else { return };
    netns.sysctl("net/ipv4/ip_local_port_range", "33000 33999");
    netns.sysctl("net/ipv4/ip_local_reserved_ports", "1024-32999,34000-65535");
    let server = Server::start_in(&netns, &["--listen", "127.0.0.1:2000"]);
    let one = ["--source", "127.0.0.1"];
    let outcome = Probe::of(&server.address).inside(&netns).with(&one).run();
    outcome.is("client.ports", "certain");
    agree(&outcome, outcome.number("/plan/predicted/connections"));
    assert_eq!(outcome.text("/plan/predicted/ceiling"), "source ports bound");
    let by = netns.command(env!("CARGO_BIN_EXE_sockscope"));
    let limits = Limits::by(by, &["--role", "client"]);
    assert_eq!(limits.document["binding"], "source ports bound");
    agree(&outcome, limits.document["room"].as_u64().unwrap());
    agree(&outcome, limits.number("ip_local_port_range", "room"));
}

#[test]
fn the_accept_queue_is_predicted() {
    let server = Server::apart(&["--never-accept", "--backlog", "500"]);
    let outcome = server.probe().run();
    assert_eq!(outcome.code(), "server.accept_queue", "{outcome}");
    let predicted = outcome.number("/plan/predicted/accept_queue");
    agree_with(&outcome, outcome.count("queued"), predicted);
}

#[test]
fn the_most_that_was_asked_for_is_predicted_too() {
    let server = Server::apart(&[]);
    let outcome = server.probe().with(&["--max", "50"]).run();
    outcome.is("requested", "certain");
    assert_eq!(outcome.number("/plan/predicted/connections"), 50);
    assert_eq!(outcome.text("/plan/predicted/ceiling"), "--max");
}

/// A cgroup of a test's own with a limit of memory, removed when dropped.
struct MemoryCgroup {
    folder: PathBuf,
    limit: &'static str,
}

impl MemoryCgroup {
    /// Beside this process's own one; None after a printed line where that cannot be.
    fn with_limit(bytes: u64) -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
        let path_of = |v1: bool| {
            groups.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':');
                let (_, controllers, path) =
                    (parts.next()?, parts.next()?, parts.next()?);
                let is_it = match v1 {
                    true => controllers.split(',').any(|name| name == "memory"),
                    false => controllers.is_empty(),
                };
                is_it.then(|| path.trim_start_matches('/').to_owned())
            })
        };
        let name = format!("sst-{}", std::process::id());
        let v1 = path_of(true).map(|path| Path::new("/sys/fs/cgroup/memory").join(path));
        let v2 = path_of(false).map(|path| Path::new("/sys/fs/cgroup").join(path));
        let choices = [(v1, "memory.limit_in_bytes"), (v2, "memory.max")];
        for (parent, limit) in choices {
            let Some(folder) = parent.map(|parent| parent.join(&name)) else { continue };
            if fs::create_dir(&folder).is_err() {
                continue;
            }
            let cgroup = Self { folder, limit };
            if fs::write(cgroup.file(limit), bytes.to_string()).is_ok() {
                return Some(cgroup);
            }
        }
        lacking("a cgroup of its own with a limit of memory");
        None
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        // It stays while a process is in it; the last has ended, or will.
        for _ in 0..100 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// What a person does: asks, pastes the lines, asks again, and probes.
#[test]
fn heavy_the_lines_that_need_prints_make_it_fit() {
    let Some(netns) = Netns::new() else { return };
    let Some(cgroup) = MemoryCgroup::with_limit(20 << 20) else { return };
    netns.sysctl("net/ipv4/ip_local_port_range", "40000 40999");
    let server = Server::start_in(&netns, &["--listen", "127.0.0.1:2000"]);
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
        set -u
        echo $$ > "$CGROUP/cgroup.procs" || exit 9
        ulimit -S -n 500
        ask() { "$SOCKSCOPE" limits --need 6k --role client "$@"; }
        ask -j > before.json; echo $? > before.exit
        ask > before.txt
        sed -n '/^# now, in a shell/,/^# for good/p' before.txt > lines.sh
        . ./lines.sh
        ask -j > after.json; echo $? > after.exit
        exec "$SOCKSCOPE" probe "$TARGET" --max 6k --source 127.0.0.1 --fd-tables 1 \
            --hold 200ms --no-record --format json > probe.json
    "#;
    // `ip netns exec` has a /sys of its own, without cgroups.
    let mut shell = Command::new("nsenter");
    shell.arg(format!("--net=/run/netns/{}", netns.name)).arg("sh");
    let done = shell
        .args(["-c", script])
        .current_dir(folder.path())
        .env("CGROUP", &cgroup.folder)
        .env("SOCKSCOPE", env!("CARGO_BIN_EXE_sockscope"))
        .env("TARGET", &server.address)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let said = |name: &str| {
        let exit = read(&format!("{name}.exit")).trim().parse().unwrap();
        Limits {
            exit,
            document: serde_json::from_str(&read(&format!("{name}.json"))).unwrap(),
        }
    };
    let before = said("before");
    assert_eq!((before.exit, &before.document["need"]["fits"]), (1, &false.into()));
    let short: Vec<&str> = before.document["need"]["short"]
        .as_array()
        .unwrap()
        .iter()
        .map(|short| short["name"].as_str().unwrap())
        .collect();
    for name in ["RLIMIT_NOFILE soft", "ip_local_port_range", "cgroup memory"] {
        assert!(short.contains(&name), "{name} is not in {short:?}");
    }
    assert!(read("lines.sh").contains(cgroup.limit), "{}", read("lines.sh"));
    let after = said("after");
    assert_eq!(after.exit, 0, "{:#}", after.document["need"]);
    assert_eq!(after.document["need"]["fits"], true);
    assert!(after.document["need"]["short"].as_array().unwrap().is_empty());
    let run: serde_json::Value = serde_json::from_str(&read("probe.json")).unwrap();
    assert_eq!(run["verdict"]["code"], "requested", "{}", run["verdict"]);
    assert_eq!(run["result"]["practical_max"], 6_000, "{}", run["result"]);
}
