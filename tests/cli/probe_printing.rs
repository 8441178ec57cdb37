//! What a probe prints, and where.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::fixtures::probing::{Records, stderr, stdout};
use crate::fixtures::{Server, sockscope};

fn short(server: &Server) -> Command {
    let mut probe = sockscope();
    probe.args(["probe", &server.address, "--max", "20", "--hold", "0s", "--no-record"]);
    probe.stdin(Stdio::null());
    probe
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let server = Server::start(&[]);
    for args in [&["-q"][..], &["-q", "-j"], &["-q", "--dry-run"]] {
        let mut probe = short(&server);
        let mut child = probe
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let done = child.wait_with_output().unwrap();
        assert_eq!((done.status.code(), stderr(&done)), (Some(0), String::new()));
        let mut sh = Command::new("sh");
        sh.args(["-c", "exec \"$0\" \"$@\" <&- >&-", env!("CARGO_BIN_EXE_sockscope")]);
        let done = sh.args(probe.get_args()).output().unwrap();
        assert_eq!((done.status.code(), stderr(&done)), (Some(0), String::new()));
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error_in_one_line() {
    let server = Server::start(&[]);
    for args in [&["-q"][..], &["-q", "-j"], &["-q", "--dry-run"]] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut probe = short(&server);
        let done = probe.args(args).stdout(full).output().unwrap();
        assert_eq!(done.status.code(), Some(3));
        let said = stderr(&done);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("cannot be printed: No space left on device"), "{said}");
    }
}

#[test]
fn a_closed_stderr_changes_no_result() {
    let server = Server::start(&[]);
    let mut sh = Command::new("sh");
    sh.args(["-c", "exec \"$0\" \"$@\" 2>&-", env!("CARGO_BIN_EXE_sockscope")]);
    let done = sh.args(short(&server).get_args()).output().unwrap();
    assert!(stdout(&done, 0).contains("20 dialed = 20 accepted"), "{done:?}");
}

#[test]
fn notes_go_to_stderr_and_quiet_silences_them() {
    let server = Server::start(&[]);
    let done = short(&server).output().unwrap();
    let loading = format!("note: loading {}; its new clients", server.address);
    assert!(stderr(&done).contains(&loading), "{done:?}");
    assert!(!stdout(&done, 0).contains("note:"));
    let quiet = short(&server).arg("-q").output().unwrap();
    assert_eq!(stderr(&quiet), "");
    assert!(stdout(&quiet, 0).contains("practical maximum"));
}

#[test]
fn escape_sequences_are_for_terminals_and_those_who_ask() {
    let server = Server::start(&[]);
    let escapes = |args: &[&str], no_color: bool| {
        let mut probe = short(&server);
        if no_color {
            probe.env("NO_COLOR", "1");
        }
        let done = probe.args(args).output().unwrap();
        assert!(!stderr(&done).contains('\x1b'), "{done:?}");
        stdout(&done, 0).contains('\x1b')
    };
    assert!(!escapes(&[], false));
    assert!(!escapes(&[], true));
    assert!(!escapes(&["--color", "never"], false));
    assert!(escapes(&["--color", "always"], false));
    assert!(!escapes(&["--color", "always", "-j"], false));
}

#[test]
fn a_process_named_with_escape_sequences_harms_no_output() {
    let dir = tempfile::tempdir().unwrap();
    // The kernel names a process after the file that it was started by.
    let evil = dir.path().join("a\x1b[31m\nb\t)");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sockscope"), &evil).unwrap();
    for (fault, n, code) in [
        ("--fd-limit", "30", "server.fd_limit"),
        ("--max-connections", "5", "server.closes_new"),
    ] {
        let server = Server::start_by(Command::new(&evil), &[fault, n]);
        let comm =
            std::fs::read_to_string(format!("/proc/{}/comm", server.pid())).unwrap();
        assert!(comm.contains('\x1b'), "{comm:?}");
        for format in ["table", "json"] {
            let done = sockscope()
                .args(["probe", &server.address, "--max", "60", "--patience", "300ms"])
                .args(["--hold", "0s", "--no-record", "--format", format])
                .output()
                .unwrap();
            let text = stdout(&done, 0);
            assert!(text.contains(code), "{text}");
            let all = text + &stderr(&done);
            assert!(!all.contains(|c: char| c.is_control() && c != '\n'), "{all:?}");
        }
    }
}

#[test]
fn a_dry_run_opens_nothing_and_says_what_it_would_do() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let records = Records::new();
    let done = records.probe(&[&target, "--dry-run", "--max", "777"]).output().unwrap();
    let printed = stdout(&done, 0);
    assert!(printed.contains("predicted  777 connections: --max"), "{printed}");
    assert!(printed.contains("would dial 777 connections at most"), "{printed}");
    let done = records.probe(&[&target, "--dry-run", "--format", "json"]).output();
    let plan: Value = serde_json::from_str(&stdout(&done.unwrap(), 0)).unwrap();
    assert_eq!(plan["target"], target);
    assert!(plan["predicted"].is_u64() && plan["ceilings"].is_array(), "{plan}");
    let done = records.probe(&["--dry-run"]).output().unwrap();
    let printed = stdout(&done, 0);
    assert!(
        printed.contains("RLIMIT_NOFILE soft (of the reference server)"),
        "{printed}"
    );
    assert!(records.runs().is_empty());
    let nobody = listener.accept().map_err(|error| error.kind());
    assert_eq!(nobody.unwrap_err(), ErrorKind::WouldBlock);
    drop(listener);
    let done = records.probe(&[&target, "--dry-run"]).output().unwrap();
    let printed = stdout(&done, 0);
    assert!(printed.contains("listener   none is found here"), "{printed}");
}

#[test]
fn a_dry_run_predicts_the_limit_of_the_server_that_it_would_meet() {
    let server = Server::start(&["--fd-limit", "200", "--backlog", "30"]);
    let records = Records::new();
    let plan = |args: &[&str]| {
        let args = [&[&*server.address, "--dry-run"], args].concat();
        stdout(&records.probe(&args).output().unwrap(), 0)
    };
    let text = plan(&[]);
    let pid = server.pid();
    assert!(text.contains(&format!("[{pid}], backlog 30\n")), "{text}");
    assert!(text.contains(&format!("soft (/proc/{pid}/limits)\n")), "{text}");
    let document: Value = serde_json::from_str(&plan(&["-j"])).unwrap();
    assert_eq!(document["binding"], "RLIMIT_NOFILE soft");
    let predicted = document["predicted"].as_u64().unwrap();
    let outcome = server.probe().run();
    outcome.is("server.fd_limit", "certain");
    // A descriptor that was inherited may have a number beyond the limit.
    assert!(outcome.held().abs_diff(predicted) <= 2, "{predicted}: {outcome}");
    for args in [&["--max", "100"][..], &["--rate", "50"], &["--fd-tables", "1"]] {
        assert!(plan(args).contains("by 1 thread,"), "{args:?}");
    }
}

/// `sockscope probe --dry-run -j | head -1`
#[test]
fn a_reader_that_has_seen_enough_of_a_plan_is_no_error() {
    let mut probe = sockscope()
        .args(["probe", "127.0.0.1:9", "--dry-run", "-j"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(probe.stdout.take());
    let done = probe.wait_with_output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
}

#[test]
fn help_fits_a_hundred_columns() {
    for args in [&["--help"][..], &["probe", "-h"], &["probe", "--help"]] {
        let done = sockscope().args(args).output().unwrap();
        for line in stdout(&done, 0).lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
    // `sockscope probe --help | head -1`
    let mut help =
        sockscope().args(["probe", "--help"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(help.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(help.wait().unwrap().success() && line.starts_with("Open connections"));
    let full = File::options().write(true).open("/dev/full").unwrap();
    assert!(sockscope().arg("--help").stdout(full).status().is_ok());
}
