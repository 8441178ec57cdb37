//! States of the kernel and the way around a server that has no limit of its own.

use std::fmt::Write;

use super::{Controller, PLAIN, Remedy, Scenario, Scene, Way, expect, set};

pub(super) const ALL: &[&Scenario] = &[
    &COUNTING,
    &PER_SOURCE,
    &TRACKED,
    &TWO_CAUSES,
    &TIME_WAIT,
    &BEHIND_A_PROXY,
    &BEHIND_A_NAT,
    &BEHIND_A_PROXY_MUTE,
    &THREADS,
    &PROCESSES,
    &USER_THREADS,
    &USER_PROCESSES,
];

const SERVE: &[&str] =
    &["{sockscope}", "serve", "--listen", "0.0.0.0:2000", "--backlog", "1024"];

fn no_rules(scene: &Scene) {
    scene.server().run("nft", &["flush", "ruleset"]);
}

pub(super) const COUNTING: Scenario = Scenario {
    name: "nftables, ct count over 100 drop",
    command: SERVE,
    arrange: |scene| {
        scene.server().filter("tcp dport 2000 ct state new ct count over 100 drop");
    },
    here: expect("path.limits_new", "likely", 100..=100),
    outside: expect("server.accept_queue", "possible", 100..=100),
    remedy: Remedy::Done { by: no_rules, told: "nft list ruleset" },
    after: 300..=300,
    ..PLAIN
};

/// connlimit(8) of old: each source address may have so many.
pub(super) const PER_SOURCE: Scenario = Scenario {
    name: "nftables, ct count over 60 drop for each source address",
    arrange: |scene| {
        let run = |rule| scene.server().run("nft", &[rule]);
        run("add table inet test");
        run("add set inet test each { type ipv4_addr; size 65535; flags dynamic; }");
        run("add chain inet test in { type filter hook input priority 0; }");
        run("add rule inet test in tcp dport 2000 ct state new \
             add @each { ip saddr ct count over 60 } drop");
    },
    here: expect("path.limits_new", "likely", 60..=60),
    outside: expect("server.accept_queue", "possible", 60..=60),
    remedy: Remedy::Asked {
        with: &["--max", "300", "--source", "127.0.1.0/24"],
        told: "--source 127.0.1.0/24",
    },
    ..COUNTING
};

/// One for each port that the router may give.
pub(super) const BEHIND_A_NAT: Scenario = Scenario {
    name: "a NAT with 100 ports between",
    way: Way::Nat { ports: "20000-20099" },
    arrange: |_| (),
    neighbour: true,
    here: expect("path.limits_new", "likely", 100..=100),
    outside: expect("server.accept_queue", "possible", 100..=100),
    remedy: Remedy::Done {
        by: |scene| scene.renumber("20000-20999"),
        told: "nft list ruleset",
    },
    ..COUNTING
};

/// Ports of the only source, of which 60 are in TIME_WAIT: without timestamps none of these
/// is given anew (tcp_tw_reuse).
const PORTS: &str = "33000 33099";
const OTHER_PORTS: &str = "1024-32999,33100-65535";

pub(super) const TIME_WAIT: Scenario = Scenario {
    name: "60 of 100 source ports in TIME_WAIT, timestamps off",
    command: SERVE,
    arrange: |scene| {
        let [_, server] = scene.addresses();
        for (netns, to) in [(scene.server(), "127.0.0.1"), (scene.client(), server)] {
            netns.sysctl("net/ipv4/tcp_timestamps", "0");
            netns.sysctl("net/ipv4/ip_local_port_range", PORTS);
            netns.sysctl("net/ipv4/ip_local_reserved_ports", OTHER_PORTS);
            scene.leave_in_time_wait(netns, to, 60);
        }
    },
    probe: &["--max", "300", "--source", "{source}"],
    here: expect("client.ports", "certain", 40..=40),
    outside: expect("client.ports", "certain", 40..=40),
    remedy: Remedy::Asked { with: &["--max", "300"], told: "leave --source out" },
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
        scene.server().filter("tcp dport 2000 ct state new ct count over 60 drop");
    },
    here: expect("path.limits_new", "likely", 60..=60),
    next: "RLIMIT_NOFILE soft",
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
    scene.server().filter("ct state invalid drop");
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
    scene.server().run("conntrack", &["-R", file.path().to_str().unwrap()]);
    let count = scene.server().run("conntrack", &["-C"]);
    assert_eq!(count.trim().parse(), Ok(max - ROOM));
}

pub(super) const TRACKED: Scenario = Scenario {
    name: "conntrack, a full table in the server's namespace",
    command: SERVE,
    arrange: fill_the_table,
    neighbour: true,
    here: expect("server.conntrack", "likely", 50..=50),
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

/// Without a question there is nothing to show it.
pub(super) const BEHIND_A_PROXY_MUTE: Scenario = Scenario {
    name: "HAProxy before a server that takes no more, a bare TCP client",
    probe: &["--max", "200"],
    here: expect("requested", "certain", 200..=200),
    outside: expect("requested", "certain", 200..=200),
    remedy: Remedy::Asked {
        with: &["--max", "200", "--send", "x", "--reply-timeout", "1s"],
        told: "--max 400",
    },
    after: 50..=50,
    ..BEHIND_A_PROXY
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
    arrange: |scene| scene.bound(40),
    cgroup: Some(Controller::Pids),
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

/// It counts all that a user runs: this one runs nothing else. Root it does not bind.
pub(super) const USER_THREADS: Scenario = Scenario {
    name: "RLIMIT_NPROC, a thread for each connection",
    command: &[
        "sh",
        "-c",
        "setpriv --reuid 61240 --clear-groups prlimit --nproc={limit} {sockscope} serve \
         --listen 0.0.0.0:2000 --model thread --backlog 1024; exit",
    ],
    cgroup: None,
    arrange: |_| (),
    limit: "40",
    remedy: set("160", "prlimit --pid "),
    ..THREADS
};

pub(super) const USER_PROCESSES: Scenario = Scenario {
    name: "RLIMIT_NPROC, a process for each connection",
    command: &[
        "sh",
        "-c",
        "setpriv --reuid 61241 --clear-groups prlimit --nproc={limit} {sockscope} serve \
         --listen 0.0.0.0:2000 --model fork --backlog 1024; exit",
    ],
    ..USER_THREADS
};
