//! States of the kernel and the way around a server that has no limit of its own.

use std::fmt::Write;

use super::{PLAIN, Remedy, Scenario, Scene, expect, set};

pub(super) const ALL: &[&Scenario] =
    &[&COUNTING, &TRACKED, &TWO_CAUSES, &BEHIND_A_PROXY, &THREADS, &PROCESSES];

const SERVE: &[&str] =
    &["{sockscope}", "serve", "--listen", "0.0.0.0:2000", "--backlog", "1024"];

fn no_rules(scene: &Scene) {
    scene.server.run("nft", &["flush", "ruleset"]);
}

pub(super) const COUNTING: Scenario = Scenario {
    name: "nftables, ct count over 100 drop",
    command: SERVE,
    arrange: |scene| {
        scene.server.filter("tcp dport 2000 ct state new ct count over 100 drop");
    },
    here: expect("path.limits_new", "likely", 100..=100),
    outside: expect("server.accept_queue", "possible", 100..=100),
    remedy: Remedy::Done { by: no_rules, told: "nft list ruleset" },
    after: 300..=300,
    ..PLAIN
};

/// The nearer of two is the verdict; without it the other one binds.
pub(super) const TWO_CAUSES: Scenario = Scenario {
    name: "nftables, ct count over 60, before RLIMIT_NOFILE 100",
    command: &[
        "{sockscope}",
        "serve",
        "--listen",
        "0.0.0.0:2000",
        "--backlog",
        "1024",
        "--fd-limit",
        "100",
    ],
    arrange: |scene| {
        scene.server.filter("tcp dport 2000 ct state new ct count over 60 drop");
    },
    here: expect("path.limits_new", "likely", 60..=60),
    outside: expect("server.accept_queue", "possible", 60..=60),
    remedy: Remedy::Done { by: no_rules, told: "nft list ruleset" },
    after: 80..=99,
    ..PLAIN
};

/// The connections for which the table has room.
const ROOM: u32 = 50;

/// All but [`ROOM`] entries that the table may have; the maximum is one for all namespaces
/// of the machine, and is left as it is.
fn fill_the_table(scene: &Scene) {
    // From now on it tracks.
    scene.server.filter("ct state invalid drop");
    let max = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max");
    let max: u32 = max.unwrap().trim().parse().unwrap();
    let mut all = String::new();
    for n in 0..max - ROOM {
        let [_, high, mid, low] = n.to_be_bytes();
        writeln!(
            all,
            "-A -p tcp -s 10.{high}.{mid}.{low} -d 10.255.0.1 --sport 1000 --dport 80 \
             --state ESTABLISHED -u ASSURED -t 600"
        )
        .unwrap();
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), all).unwrap();
    scene.server.run("conntrack", &["-R", file.path().to_str().unwrap()]);
    let count = scene.server.run("conntrack", &["-C"]);
    assert_eq!(count.trim().parse(), Ok(max - ROOM));
}

pub(super) const TRACKED: Scenario = Scenario {
    name: "conntrack, a full table in the server's namespace",
    command: SERVE,
    arrange: fill_the_table,
    neighbour: true,
    here: expect("path.conntrack", "likely", 50..=50),
    outside: expect("server.accept_queue", "possible", 50..=50),
    remedy: Remedy::Pasted("notrack"),
    after: 300..=300,
    ..PLAIN
};

/// It takes them all; only who asks learns that the server behind it does not.
pub(super) const BEHIND_A_PROXY: Scenario = Scenario {
    name: "HAProxy before a server that takes no more",
    files: &[(
        "haproxy.cfg",
        "
global
    maxconn 2000
defaults
    mode tcp
    timeout client 60s
    timeout server 60s
    timeout connect 5s
frontend all
    bind *:2000
    default_backend one
backend one
    server one 127.0.0.1:3000
",
    )],
    command: &[
        "sh",
        "-c",
        "{sockscope} serve --listen 127.0.0.1:3000 --speak echo --max-connections {limit} \
         --beyond ignore & exec haproxy -db -f {dir}/haproxy.cfg",
    ],
    limit: "50",
    probe: &["--max", "200", "--send", "x", "--reply-timeout", "1s"],
    here: expect("server.unserved", "certain", 50..=50),
    outside: expect("server.unserved", "likely", 50..=50),
    remedy: set("300", "its workers"),
    after: 200..=200,
    ..PLAIN
};

/// A thread each: two more are its own.
pub(super) const THREADS: Scenario = Scenario {
    name: "pids.max of the cgroup, a thread for each connection",
    command: &[
        "{sockscope}",
        "serve",
        "--listen",
        "0.0.0.0:2000",
        "--model",
        "thread",
        "--backlog",
        "1024",
    ],
    arrange: |scene| scene.bound_tasks(40),
    cgroup: true,
    here: expect("server.tasks", "likely", 30..=40),
    outside: expect("server.closes_new", "likely", 30..=40),
    remedy: Remedy::Printed,
    after: 150..=160,
    ..PLAIN
};

pub(super) const PROCESSES: Scenario = Scenario {
    name: "pids.max of the cgroup, a process for each connection",
    command: &[
        "{sockscope}",
        "serve",
        "--listen",
        "0.0.0.0:2000",
        "--model",
        "fork",
        "--backlog",
        "1024",
    ],
    ..THREADS
};
