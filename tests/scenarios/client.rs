//! Limits of the probe's own side: never blamed on the server.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::fixtures::Server;
use crate::fixtures::netns::Netns;
use crate::fixtures::probe::Probe;
use crate::fixtures::rights::{ForNobody, lacking};

#[test]
fn every_port_of_the_only_source_is_used() {
    let Some(netns) = Netns::new() else { return };
    // 50 ports are left, in ip_local_port_range and beyond it.
    let reserved = "1024-31999,32010-32989,33010-61009,61030-65535";
    netns.sysctl("net/ipv4/ip_local_reserved_ports", reserved);
    let server = Server::start_in(&netns, &["--listen", "127.0.0.1:2000"]);
    let one = ["--source", "127.0.0.1"];
    let outcome = Probe::of(&server.address).inside(&netns).with(&one).run();
    outcome.is("client.ports", "certain");
    outcome.holds(50);
    assert_eq!(outcome.fact("four-tuples"), "1 source address × 50 ports");
    assert!(outcome.warnings().contains(&"all_ports"), "{outcome}");
    assert!(outcome.remedies()[0].contains("leave --source out"), "{outcome}");

    let outcome = Probe::of(&server.address).inside(&netns).with(&["--max", "120"]).run();
    outcome.is("requested", "certain");
    outcome.holds(120);

    // 10 are in the range, 40 are not: the first of these, but not the last of those.
    let outcome =
        Probe::of(&server.address).inside(&netns).with(&one).with(&["--max", "40"]).run();
    outcome.is("requested", "certain");
    assert_eq!(outcome.warnings(), ["ports_beyond_range"], "{outcome}");
}

#[test]
fn ports_that_others_hold_are_said_to_be_taken() {
    let Some(netns) = Netns::new() else { return };
    netns.sysctl("net/ipv4/ip_local_reserved_ports", "1024-32999,33020-65535");
    let server = Server::start_in(&netns, &["--listen", "127.0.0.1:2000"]);
    let other = Server::start_in(&netns, &["--listen", "127.0.0.1:33005"]);
    let one = ["--source", "127.0.0.1"];
    let outcome = Probe::of(&server.address).inside(&netns).with(&one).run();
    outcome.is("client.ports", "certain");
    outcome.holds(19);
    assert_eq!(outcome.fact("taken by others"), "1");
    drop(other);
}

#[test]
fn a_user_who_may_start_no_more_threads_is_told_so() {
    // Of a user that nobody else is: RLIMIT_NPROC counts all that a user runs.
    const NOBODY_ELSE: &str = "61234";
    let Some(program) = ForNobody::copy() else { return };
    let server = Server::apart(&[]);
    let probe = |threads: u32| {
        let mut words = ["setpriv", "--reuid", NOBODY_ELSE, "--clear-groups"]
            .map(str::to_owned)
            .to_vec();
        words.extend(["prlimit".into(), "--nofile=100:100".into()]);
        words.push(format!("--nproc={threads}:{threads}"));
        words.extend(program.words().pop());
        server.probe().by_program(words)
    };
    let (exit, says) = probe(1).refused();
    assert!(exit == 3 && says.contains("no thread could be started"), "{exit}: {says}");
    // Its first and a dialer's.
    let outcome = probe(2).run();
    outcome.is("client.fd_table", "certain");
    assert!((80..100).contains(&outcome.held()), "{outcome}");
    assert!(outcome.summary().contains("no thread can be started"), "{outcome}");
    assert!(outcome.remedies()[0].contains("ulimit -u"), "{outcome}");
    assert_eq!(outcome.warnings(), ["no_thread"], "{outcome}");
}

/// strace(1) makes bind(2) fail as a filter of system calls does.
#[test]
fn where_ports_cannot_be_chosen_the_kernel_chooses() {
    let Some(netns) = Netns::new() else { return };
    if Command::new("strace").arg("-V").output().is_err() {
        return lacking("strace");
    }
    netns.sysctl("net/ipv4/ip_local_port_range", "40000 40199");
    let server = Server::start_in(&netns, &["--listen", "127.0.0.1:2000"]);
    let probe = |args: &[&str]| {
        let inject = ["-e", "trace=bind", "-e", "inject=bind:error=EPERM"];
        let strace = [&["strace", "-f", "-qq", "-o", "/dev/null"], &inject[..]].concat();
        Probe::of(&server.address).inside(&netns).by(&strace).with(args).run()
    };
    let outcome = probe(&["--max", "120"]);
    outcome.is("requested", "certain");
    outcome.holds(120);
    assert_eq!(outcome.warnings(), ["kernel_ports"], "{outcome}");

    let outcome = probe(&[]);
    outcome.is("client.ports", "certain");
    assert_eq!(outcome.held(), 200, "{outcome}");
}

#[test]
fn its_only_fd_table_is_full() {
    let server = Server::apart(&[]);
    let limited = || server.probe().by(&["prlimit", "--nofile=100:100"]);
    let outcome = limited().with(&["--fd-tables", "1"]).run();
    outcome.is("client.fd_table", "certain");
    assert!((90..100).contains(&outcome.held()), "{outcome}");
    assert_eq!(outcome.number("/result/fds/client_limit"), 100);
    assert!(outcome.remedies()[0].contains("--fd-tables auto"), "{outcome}");

    // As the remedy says.
    let outcome = limited().with(&["--max", "300"]).run();
    outcome.is("requested", "certain");
    outcome.holds(300);
    assert!(outcome.number("/result/fds/client_tables") > 3, "{outcome}");
}

#[test]
fn a_soft_limit_is_raised_to_the_hard_one_first() {
    let server = Server::apart(&[]);
    let probe = server.probe().by(&["prlimit", "--nofile=50:400"]);
    let outcome = probe.with(&["--fd-tables", "1", "--max", "300"]).run();
    outcome.is("requested", "certain");
    outcome.holds(300);
}

/// /proc, but that the table of tracked connections is full. (The real maximum is one for
/// all namespaces of the machine.)
fn proc_with_full_conntrack(at: &Path) {
    let link_all_but = |from: &str, to: &Path, but: &str| {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().filter_map(Result::ok) {
            let name = entry.file_name();
            let of_others = name.to_str().is_some_and(|n| n.parse::<u32>().is_ok());
            if name != but && !of_others {
                symlink(entry.path(), to.join(&name)).unwrap();
            }
        }
    };
    link_all_but("/proc", at, "sys");
    link_all_but("/proc/sys", &at.join("sys"), "net");
    link_all_but("/proc/sys/net", &at.join("sys/net"), "netfilter");
    let netfilter = at.join("sys/net/netfilter");
    fs::create_dir_all(&netfilter).unwrap();
    for name in ["nf_conntrack_count", "nf_conntrack_max"] {
        fs::write(netfilter.join(name), "262144\n").unwrap();
    }
}

#[test]
fn its_own_table_of_tracked_connections_is_full() {
    for evidence in ["auto", "none"] {
        let Some(netns) = Netns::new() else { return };
        let server = Server::start_in(&netns, &["--listen", "127.0.0.1:2000"]);
        // As a full table does it: no packet of a further connection gets through.
        netns.filter("tcp dport 2000 ct state new ct count over 60 drop");
        let root = tempfile::tempdir().unwrap();
        proc_with_full_conntrack(root.path());
        let probe = Probe::of(&server.address).inside(&netns);
        let root = root.path().to_str().unwrap();
        let outcome = probe.with(&["--proc-root", root, "--evidence", evidence]).run();
        outcome.is("client.conntrack", "likely");
        assert_eq!(outcome.held(), 60, "{outcome}");
        assert_eq!(outcome.fact("tracked connections"), "262,144 of 262,144");
        let remedy = "sysctl -w net.netfilter.nf_conntrack_max=1048576";
        assert_eq!(outcome.remedies()[0], remedy);
        assert_eq!(outcome.alternatives(), ["path.limits_new"]);
    }
}
