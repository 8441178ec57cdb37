//! `sockscope limits`: this shell's, a process's, a server's.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::fixtures::limits::Limits;
use crate::fixtures::netns::Netns;
use crate::fixtures::probing::{stderr, stdout, with_fd_limit};
use crate::fixtures::rights::{self, ForNobody};
use crate::fixtures::{Server, run, sockscope};

/// A shell with a soft limit of its own that starts the program as its child.
fn in_shell(limit: &str, args: &str) -> Command {
    let mut shell = Command::new("sh");
    let line = format!("ulimit -S -n {limit}; \"$0\" limits {args}; exit $?");
    shell.args(["-c", &line, env!("CARGO_BIN_EXE_sockscope")]).stdin(Stdio::null());
    shell
}

#[test]
fn this_shell_is_the_one_that_typed_it() {
    let shell = in_shell("150", "-j").stdout(Stdio::piped()).spawn().unwrap();
    let pid = shell.id();
    let found = Limits::from(&shell.wait_with_output().unwrap());
    assert_eq!(found.exit, 0);
    assert_eq!(found.document["schema"], "sockscope.limits/1");
    assert_eq!(found.document["subject"]["kind"], "shell");
    assert_eq!(found.document["subject"]["pid"], pid);
    assert_eq!(found.document["binding"], "RLIMIT_NOFILE soft");
    let soft = |key| found.number("RLIMIT_NOFILE soft", key);
    assert_eq!(soft("value"), 150);
    assert!(soft("in_use") >= 3);
    assert_eq!(soft("room"), 150 - soft("in_use"));
    assert_eq!(found.document["room"], soft("room"));
    // Not raised by this program, which raises its own where it probes.
    assert!(found.number("RLIMIT_NOFILE hard", "value") > 150);
    let remedy = &found.row("RLIMIT_NOFILE soft")["remedy"];
    assert!(remedy["now"].as_str().unwrap().starts_with("ulimit -Sn "), "{remedy}");
    assert_eq!(remedy["needs_root"], false);
    let rooms: Vec<u64> = found.document["ceilings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["bounds"] == "connections")
        .map(|row| row["room"].as_u64().unwrap())
        .collect();
    assert!(rooms.is_sorted(), "the tightest comes first: {rooms:?}");
}

#[test]
fn the_table_says_first_what_binds_first() {
    let done = in_shell("150", "").output().unwrap();
    let text = stdout(&done, 0);
    let mut lines = text.lines();
    let first = lines.next().unwrap();
    assert!(first.starts_with("room for 14"), "{first}");
    let rest = " connections from this shell; the first to bind: RLIMIT_NOFILE soft";
    assert!(first.ends_with(rest), "{first}");
    let heading = lines.next().unwrap();
    let columns: Vec<&str> = heading.split_whitespace().collect();
    assert_eq!(columns, ["CEILING", "VALUE", "IN", "USE", "ROOM", "SIDE", "RAISE"]);
    assert!(lines.next().unwrap().starts_with("RLIMIT_NOFILE soft"), "{text}");
    assert!(text.contains("\nsettings:\n") && text.contains("tcp_abort_on_overflow"));
    assert!(!text.contains('█'), "a bar is for a terminal");
}

#[test]
fn csv_and_ndjson_have_a_row_for_each_ceiling() {
    let document = Limits::of(&[]).document;
    let names: Vec<&str> = document["ceilings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    let ndjson = stdout(&run(&["limits", "--format", "ndjson"]), 0);
    assert_eq!(ndjson.lines().count(), names.len());
    for line in ndjson.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(names.contains(&row["name"].as_str().unwrap()), "{row}");
    }
    let text = stdout(&run(&["limits", "--format", "csv"]), 0);
    let mut csv = csv::Reader::from_reader(text.as_bytes());
    assert_eq!(&csv.headers().unwrap()[0], "name");
    let rows: Vec<csv::StringRecord> = csv.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), names.len());
    let soft = rows.iter().find(|row| &row[0] == "RLIMIT_NOFILE soft").unwrap();
    assert_eq!((&soft[1], &soft[5], &soft[6]), ("ceiling", "count", "connections"));
    assert!(soft[2].parse::<u64>().unwrap() > 0);
}

#[test]
fn a_process_has_its_own_limits_and_descriptors() {
    let server = Server::start_by(with_fd_limit(321), &[]);
    let _clients = server.connect_many(20);
    let pid = server.pid().to_string();
    crate::fixtures::until("the server has its clients", || server.open_fds().len() > 20);
    let found = Limits::of(&["--pid", &pid]);
    assert_eq!(found.document["subject"]["comm"], "sockscope");
    let soft = |key| found.number("RLIMIT_NOFILE soft", key);
    assert_eq!((soft("value"), soft("in_use")), (321, server.open_fds().len() as u64));
    let remedy = &found.row("RLIMIT_NOFILE soft")["remedy"]["now"];
    let starts = format!("prlimit --pid {pid} --nofile=");
    assert!(remedy.as_str().unwrap().starts_with(&starts), "{remedy}");
    assert!(found.number("vm.max_map_count", "in_use") > 5);
}

#[test]
fn a_target_is_the_server_that_listens_there() {
    let server = Server::start_by(with_fd_limit(400), &["--backlog", "77"]);
    let found = Limits::of(&["--target", &server.address]);
    assert_eq!(found.document["subject"]["pid"], server.pid());
    assert_eq!(found.document["subject"]["role"], "server");
    assert_eq!(found.number("RLIMIT_NOFILE soft", "value"), 400);
    let queue = format!("backlog of {}", server.address);
    assert_eq!(found.number(&queue, "value"), 77);
    assert_eq!(found.number(&queue, "room"), 78);
    assert_eq!(found.row(&queue)["bounds"], "accept_queue");
    assert!(!found.has("ip_local_port_range"), "that is the client's");
    let port = server.socket_addr().port().to_string();
    let by_port = Limits::of(&["--target", &port]);
    assert_eq!(by_port.document["subject"]["pid"], server.pid());
    let text = stdout(&run(&["limits", "--target", &server.address]), 0);
    let at = format!("at {}, sockscope[{}]; the first", server.address, server.pid());
    assert!(text.lines().next().unwrap().contains(&at), "{text}");
}

#[test]
fn a_unix_target_has_no_ports() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("unix:{}/s", folder.path().display());
    let server = Server::start(&["--listen", &address]);
    let found = Limits::of(&["--target", &server.address]);
    assert_eq!(found.document["subject"]["pid"], server.pid());
    assert!(found.has(&format!("backlog of {}", server.address)), "{:#}", found.document);
    assert!(!found.has("tcp_syncookies") && !found.has("ip_local_port_range"));
}

#[test]
fn a_server_in_another_network_namespace_is_read_in_there() {
    let Some(netns) = Netns::new() else { return };
    netns.sysctl("net/ipv4/ip_local_port_range", "40000 40099");
    netns.sysctl("net/core/somaxconn", "321");
    let server = Server::start_in(&netns, &[]);
    let found = Limits::of(&["--pid", &server.pid().to_string()]);
    assert_eq!(found.number("ip_local_port_range", "value"), 100);
    assert_eq!(found.number("net.core.somaxconn", "value"), 321);
    assert_eq!(found.document["binding"], "ip_local_port_range");
    let by = netns.command(env!("CARGO_BIN_EXE_sockscope"));
    let found = Limits::by(by, &["--target", &server.address, "--role", "loopback"]);
    assert_eq!(found.number("ip_local_port_range", "value"), 100);
}

#[test]
fn on_loopback_both_ends_count() {
    let one = Limits::of(&["--role", "client"]);
    let both = Limits::of(&["--role", "loopback"]);
    // Other tests open and close files meanwhile.
    let (one, both) =
        (one.number("fs.file-max", "room"), both.number("fs.file-max", "room"));
    assert!(both.abs_diff(one / 2) < one / 10, "{both} of {one}");
    assert!(!Limits::of(&["--role", "client"]).has("net.core.somaxconn"));
    assert!(!Limits::of(&["--role", "server"]).has("ip_local_port_range"));
}

#[test]
fn what_does_not_fit_is_exit_code_1_and_says_what_to_type() {
    let done = in_shell("150", "--need 100 --role server -j").output().unwrap();
    let found = Limits::from(&done);
    assert_eq!((found.exit, &found.document["need"]["fits"]), (0, &true.into()));
    let done = in_shell("150", "--need 1k --role server -j").output().unwrap();
    let found = Limits::from(&done);
    assert_eq!(found.exit, 1);
    let need = &found.document["need"];
    assert_eq!((&need["n"], &need["fits"]), (&1000.into(), &false.into()));
    assert_eq!(need["short"][0]["name"], "RLIMIT_NOFILE soft");
    assert_eq!(found.lines("shell"), ["ulimit -Sn 2048"]);
    assert_eq!(found.lines("systemd_unit"), ["LimitNOFILE=2048"]);
    assert_eq!(found.lines("limits_conf"), ["* soft nofile 2048"]);
    assert_eq!(need["memory_bytes"]["server"], 4_800_000);
    let text = stdout(&in_shell("150", "--need 1k --role server").output().unwrap(), 1);
    assert!(text.contains("\n1,000 connections more: does not fit\n"), "{text}");
    assert!(text.contains("\n# now, in a shell\nulimit -Sn 2048\n"), "{text}");
}

#[test]
fn ten_million_are_more_than_ports_and_descriptors_of_one_host() {
    let found = Limits::of(&["--need", "10M"]);
    assert_eq!(found.exit, 1);
    let need = &found.document["need"];
    // 64,511 for each address and port, less what is reserved here.
    assert!(need["source_addresses"].as_u64().unwrap() >= 156, "{need}");
    assert!(need["destination_ports"].as_u64().unwrap() >= 156, "{need}");
    assert!(need["hosts"].as_u64().unwrap() >= 1);
    assert_eq!(need["memory_bytes"]["client"], 48_000_000_000_u64);
    assert_eq!(need["memory_bytes"]["measured"], false);
    assert!(found.lines("sysctl_d").iter().any(|line| line.starts_with("fs.nr_open = ")));
    assert!(found.lines("shell").iter().all(|line| !line.contains("pid_max")));
    let threads = Limits::of(&["--need", "300k", "--thread-per-connection"]);
    let short = threads.document["need"]["short"].to_string();
    assert!(short.contains("vm.max_map_count"), "{short}");
}

#[test]
fn arguments_that_mean_nothing_are_exit_code_2() {
    for (args, says) in [
        (&["--pid", "4194304"][..], "no process 4194304 here"),
        (&["--target", "x.test"], "write x.test:PORT"),
        (&["--to", "unix:/x"], "a unix socket takes none"),
        (&["--need", "0"], "must be 1 or more"),
        (&["--pid", "1", "--target", ":80"], "cannot be used with"),
        (&["--measure", "fds", "--proc-root", "/x"], "not with --proc-root"),
        (&["--fd-tables", "70000"], "at most 65536"),
    ] {
        let done = run(&[&["limits"], args].concat());
        assert_eq!(done.status.code(), Some(2), "{args:?}: {done:?}");
        assert!(stderr(&done).contains(says), "{args:?}: {done:?}");
    }
    let done = run(&["limits", "--target", "127.0.0.1:1"]);
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    assert!(stderr(&done).contains("nothing listens on 127.0.0.1:1 here"), "{done:?}");
}

#[test]
fn what_another_user_may_not_read_is_a_row_that_says_so() {
    let Some(nobody) = ForNobody::copy() else { return };
    let server = Server::start(&[]);
    let pid = server.pid().to_string();
    let as_nobody = |before: &str| {
        let words = nobody.words().join(" ");
        let mut unshare = Command::new("unshare");
        let line = format!("{before} exec {words} limits -j --need 10 --pid {pid}");
        unshare.args(["-m", "sh", "-c", &line]);
        unshare.stdin(Stdio::null()).output().unwrap()
    };
    let seen = Limits::from(&as_nobody(""));
    assert!(seen.number("RLIMIT_NOFILE soft", "value") > 0, "limits are for all to read");
    assert_eq!(seen.row("vm.max_map_count")["in_use"], serde_json::Value::Null);
    let ports = seen.row("ip_local_port_range");
    assert_eq!(ports["kind"], "unread");
    assert!(ports["note"].as_str().unwrap().contains("Permission denied"), "{ports}");
    // A /proc that hides what is in a process's folder.
    let hidden = as_nobody("mount -t proc -o hidepid=1 proc /proc || exit 9;");
    if hidden.status.code() == Some(9) {
        return rights::lacking("to mount a /proc with hidepid");
    }
    let hidden = Limits::from(&hidden);
    for name in ["RLIMIT_NOFILE soft", "RLIMIT_NOFILE hard", "cgroup memory"] {
        let row = hidden.row(name);
        assert_eq!(row["kind"], "unread", "{row}");
        assert!(row["note"].as_str().unwrap().contains("not permitted"), "{row}");
    }
    assert_eq!((hidden.exit, &hidden.document["need"]["fits"]), (1, &false.into()));
    let unknown = hidden.document["need"]["unknown"].to_string();
    assert!(unknown.contains("RLIMIT_NOFILE soft"), "{unknown}");
}

#[test]
fn a_run_takes_under_20_ms() {
    let fastest = (0..20)
        .map(|_| {
            let begin = Instant::now();
            assert!(sockscope().arg("limits").output().unwrap().status.success());
            begin.elapsed()
        })
        .min();
    assert!(fastest.unwrap() < Duration::from_millis(20), "{fastest:?}");
}
