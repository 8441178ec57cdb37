//! What a probe leaves behind: the pairs, against the tables of the kernel; the folder.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::process::Signal;
use serde_json::Value;

use crate::fixtures::probing::{Records, Running, json, sockets, stdout, timeline};
use crate::fixtures::{Server, sockscope, until};

/// The connections of /proc/net/tcp or tcp6: both addresses, and the inode.
fn table(file: &str) -> HashMap<(SocketAddr, SocketAddr), String> {
    let text = fs::read_to_string(file).unwrap();
    let rows = text.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        ((address(fields[1]), address(fields[2])), fields[9].to_owned())
    });
    rows.collect()
}

/// 0100007F:1F90 is 127.0.0.1:8080: words of the host's order, the port a number.
fn address(text: &str) -> SocketAddr {
    let (ip, port) = text.split_once(':').unwrap();
    let words: Vec<u8> = (0..ip.len() / 8)
        .flat_map(|i| u32::from_str_radix(&ip[i * 8..][..8], 16).unwrap().to_ne_bytes())
        .collect();
    let ip: IpAddr = match <[u8; 4]>::try_from(&words[..]) {
        Ok(v4) => Ipv4Addr::from(v4).into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(&words[..]).unwrap()).into(),
    };
    SocketAddr::new(ip, u16::from_str_radix(port, 16).unwrap())
}

fn link(pid: u32, tid: &str, fd: &str) -> String {
    let link = fs::read_link(format!("/proc/{pid}/task/{tid}/fd/{fd}"));
    link.unwrap_or_else(|e| panic!("{pid}/{tid} fd {fd}: {e}")).display().to_string()
}

/// A probe that holds `max` connections; its record has sockets.csv.
fn holding(records: &Records, server: &Server, max: &str, pairs: &str) -> Running {
    let args =
        [&server.address, "--max", max, "--hold", "20s", "--pairs", pairs, "-q", "-j"];
    let probe = Running::start(&mut records.probe(&args));
    until("sockets.csv is there", || {
        records.runs().first().is_some_and(|run| run.join("sockets.csv").exists())
    });
    probe
}

/// Each row against the tables of the kernel, while it is held.
fn assert_true(server: &Server, probe: &Running, rows: &[HashMap<String, String>]) {
    for row in rows {
        assert_eq!(row["level"], "accepted");
        assert_eq!(row["server_pid"], server.pid().to_string());
        let client = link(probe.pid(), &row["tid"], &row["fd"]);
        assert_eq!(client, format!("socket:[{}]", row["inode"]));
        let other = link(server.pid(), &row["server_tid"], &row["server_fd"]);
        assert_eq!(other, format!("socket:[{}]", row["server_inode"]));
        assert_ne!(row["inode"], row["server_inode"]);
    }
}

#[test]
fn pairs_are_those_of_the_kernels_tables_at_both_ends() {
    for (listen, file) in
        [("127.0.0.1:0", "/proc/net/tcp"), ("[::1]:0", "/proc/net/tcp6")]
    {
        let server = Server::start(&["--listen", listen]);
        let records = Records::new();
        let mut probe = holding(&records, &server, "300", "all");
        let rows = sockets(&records.run());
        assert_eq!(rows.len(), 300);
        assert_true(&server, &probe, &rows);
        let table = table(file);
        for row in &rows {
            let at = |ip: &str, port: &str| {
                SocketAddr::new(row[ip].parse().unwrap(), row[port].parse().unwrap())
            };
            let local = at("local_addr", "local_port");
            let remote = at("remote_addr", "remote_port");
            assert_eq!(remote, server.socket_addr());
            assert_eq!(table.get(&(local, remote)), Some(&row["inode"]), "{local}");
            assert_eq!(
                table.get(&(remote, local)),
                Some(&row["server_inode"]),
                "{local}"
            );
        }
        probe.signal(Signal::INT);
        probe.ended();
    }
}

#[test]
fn pairs_of_several_fd_tables_name_the_thread_that_has_them() {
    let server = Server::start(&["--threads", "2"]);
    let records = Records::new();
    let args = [&server.address, "--max", "450", "--hold", "20s", "--pairs", "all"];
    let program = crate::fixtures::probing::with_fd_limit(200);
    let mut probe = Running::start(&mut records.probe_by(program, &args));
    until("sockets.csv is there", || {
        records.runs().first().is_some_and(|run| run.join("sockets.csv").exists())
    });
    let rows = sockets(&records.run());
    assert_eq!(rows.len(), 450);
    assert_true(&server, &probe, &rows);
    let tids: std::collections::BTreeSet<&String> =
        rows.iter().map(|r| &r["tid"]).collect();
    assert!(tids.len() >= 3, "{tids:?}");
    probe.signal(Signal::INT);
    probe.ended();
}

#[test]
fn pairs_of_unix_sockets_have_inodes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s").display().to_string();
    let server = Server::start(&["--listen", &format!("unix:{path}")]);
    let records = Records::new();
    let mut probe = holding(&records, &server, "100", "10");
    let rows = sockets(&records.run());
    assert_eq!(rows.len(), 10);
    assert_true(&server, &probe, &rows);
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    let inodes: Vec<&str> =
        table.lines().filter_map(|line| line.split_whitespace().nth(6)).collect();
    for row in &rows {
        assert_eq!((&*row["local_addr"], &row["remote_addr"]), ("", &path));
        assert!(
            inodes.contains(&&*row["inode"]) && inodes.contains(&&*row["server_inode"])
        );
    }
    probe.signal(Signal::INT);
    probe.ended();
}

#[test]
fn json_is_the_content_of_run_json_and_nothing_else() {
    let server = Server::start(&[]);
    let records = Records::new();
    let args = [&server.address, "--format", "json", "--max", "20", "--hold", "0s"];
    let done = records.probe(&args).output().unwrap();
    let recorded = fs::read_to_string(records.run().join("run.json")).unwrap();
    assert_eq!(stdout(&done, 0), recorded);
    let mut files: Vec<_> = fs::read_dir(records.run())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let expected = [
        "report-charts",
        "report.html",
        "report.md",
        "run.json",
        "sockets.csv",
        "timeline.ndjson",
    ];
    assert_eq!(files, expected);
}

#[test]
fn runs_of_the_same_second_have_folders_of_their_own() {
    let server = Server::start(&[]);
    let records = Records::new();
    let args = [&*server.address, "--max", "2", "--hold", "0s"];
    let probes: Vec<Running> =
        (0..4).map(|_| Running::start(&mut records.probe(&args))).collect();
    for mut probe in probes {
        assert_eq!(probe.ended().code(), Some(0));
    }
    assert_eq!(records.runs().len(), 4);
    for run in records.runs() {
        let text = fs::read_to_string(run.join("run.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap();
        timeline(&run);
    }
}

#[test]
fn without_a_record_nothing_is_left() {
    let server = Server::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let args = ["probe", &server.address, "--max", "2", "--hold", "0s"];
    let mut probe = sockscope();
    probe.current_dir(dir.path()).args(args);
    let done = probe.args(["--no-record", "-j"]).output().unwrap();
    assert_eq!(json(&done, 0)["verdict"]["code"], "requested");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    // With one, it is where the help says.
    let done = sockscope().current_dir(dir.path()).args(args).output().unwrap();
    let printed = stdout(&done, 0);
    let at = printed.lines().last().unwrap().split_whitespace().nth(1).unwrap();
    assert!(
        at.starts_with("results/runs/") && at.ends_with("/report.html;"),
        "{printed}"
    );
    assert!(dir.path().join(at.trim_end_matches(';')).is_file());
}

#[test]
fn a_record_that_the_disk_has_no_room_for_is_missed_and_the_result_printed() {
    let server = Server::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    // A file-size limit stands for a disk that is full; SIGXFSZ must be ignored then.
    let mut sh = std::process::Command::new("sh");
    sh.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""]);
    sh.arg(env!("CARGO_BIN_EXE_sockscope"));
    sh.args(["probe", &server.address, "--max", "20", "--hold", "0s", "--out"]);
    let done = sh.arg(dir.path()).output().unwrap();
    let printed = stdout(&done, 0);
    assert!(printed.contains("20 dialed = 20 accepted"), "{printed}");
    assert!(printed.ends_with("record     not written\n"), "{printed}");
    let said = crate::fixtures::probing::stderr(&done);
    assert!(said.contains("run.json is not written: "), "{said}");
}

#[test]
fn a_report_that_cannot_be_written_is_a_note_and_the_run_no_less() {
    let server = Server::start(&[]);
    let records = Records::new();
    // Room for run.json and the samples, not for a page.
    let mut sh = std::process::Command::new("sh");
    sh.args(["-c", "trap '' XFSZ; ulimit -f 40; exec \"$0\" \"$@\""]);
    sh.arg(env!("CARGO_BIN_EXE_sockscope"));
    let args = [&*server.address, "--max", "20", "--hold", "0s"];
    let done = records.probe_by(sh, &args).output().unwrap();
    let printed = stdout(&done, 0);
    assert!(printed.ends_with("/run.json and sockets.csv\n"), "{printed}");
    let said = crate::fixtures::probing::stderr(&done);
    assert!(said.contains("note: the report is not written: File too large"), "{said}");
    assert!(!records.run().join("report.html").exists());
    assert!(!records.run().join(".report.html.tmp").exists());
}

#[test]
fn no_report_leaves_the_record_alone() {
    let server = Server::start(&[]);
    let records = Records::new();
    let args = [&*server.address, "--max", "2", "--hold", "0s", "--no-report"];
    let printed = stdout(&records.probe(&args).output().unwrap(), 0);
    assert!(printed.ends_with("/run.json and sockets.csv\n"), "{printed}");
    let files = fs::read_dir(records.run()).unwrap().count();
    assert_eq!(files, 3);
}
