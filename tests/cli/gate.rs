//! What a run has to meet: `--require`, `--no-worse-than`, `--junit`.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::fixtures::Server;
use crate::fixtures::probing::{Records, json, stderr, stdout};

/// Probes a server with room for all that is asked for.
fn quick(server: &Server, records: &Records, more: &[&str]) -> Output {
    let args = [&[&*server.address, "--max", "30", "--hold", "0s"][..], more].concat();
    records.probe(&args).output().unwrap()
}

#[test]
fn what_is_met_ends_with_0_and_what_is_not_with_1_and_a_line_each() {
    let (server, records) = (Server::start(&[]), Records::new());
    let met = [
        "--require",
        "practical_max >= 30",
        "--require",
        "verdict.code = requested",
        "--require",
        "connect_latency_us.p99 < 1m",
        "--require",
        "errors.ECONNREFUSED = 0",
        "-j",
    ];
    let done = quick(&server, &records, &met);
    let run = json(&done, 0);
    assert!(stderr(&done).contains("note: all 4 requirements are met"), "{done:?}");
    assert_eq!(
        run["plan"]["require"],
        "practical_max >= 30; verdict.code = requested; connect_latency_us.p99 < 1m; \
         errors.ECONNREFUSED = 0"
    );

    let unmet = [
        "-q",
        "--require",
        "practical_max >= 10k",
        "--require",
        "level = accepted",
        "--require",
        "verdict.code = server.fd_limit",
        "--require",
        "counts.served = 30",
    ];
    let done = quick(&server, &records, &unmet);
    assert!(stdout(&done, 1).contains("practical maximum"), "{done:?}");
    let expected = "\
        sockscope: not met: practical_max >= 10k: it is 30 (accepted)\n\
        sockscope: not met: verdict.code = server.fd_limit: it is requested\n\
        sockscope: not met: counts.served = 30: not measured in this run; measured \
        beside it: counts.accepted, counts.deferred, counts.dialed, counts.established, \
        counts.queued\n";
    assert_eq!(stderr(&done), expected);
}

#[test]
fn what_means_nothing_is_said_before_anything_is_opened() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let records = Records::new();
    let folder = records.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let folder = folder.to_str().unwrap();
    let mut run = sockscope::record::Run::default();
    run.target.kind = sockscope::record::TargetKind::Unix;
    let unix = tempfile::NamedTempFile::new().unwrap();
    serde_json::to_writer(&unix, &run).unwrap();
    let unix = unix.path().to_str().unwrap();
    for (args, part) in [
        (&["--require", "practical_mx > 1"][..], "near to it: practical_max"),
        (&["--require", "practical_max > 50ms"], "a count is written"),
        (&["--require", "practical_max"], "operators are"),
        (&["--no-worse-than", "/nowhere.json"], "/nowhere.json cannot be read"),
        (&["--no-worse-than", folder], "run.json cannot be read"),
        (&["--no-worse-than", folder, "--dry-run"], "run.json cannot be read"),
        (&["--no-worse-than", unix], "target.kind is tcp here and unix in the baseline"),
        (&["--no-worse-than", "x", "--tolerance", "5"], "a tolerance is written 5%"),
        (&["--tolerance", "5%"], "--no-worse-than"),
        (&["--junit", "/tmp/x.xml"], "--junit has nothing to tell of"),
        (
            &["--require", "practical_max > 1", "--junit", "/nowhere/x"],
            "cannot be written",
        ),
        (&["--repeat", "0"], "must be 1 or more"),
    ] {
        let done = records.probe(&[&[&*address], args].concat()).output().unwrap();
        assert!(stdout(&done, 2).is_empty());
        let said = stderr(&done);
        assert!(said.contains(part) && said.lines().count() == 1, "{args:?}: {said}");
    }
    assert!(listener.accept().is_err(), "something was opened");
    assert_eq!(records.runs().len(), 1, "a run was recorded");
}

#[test]
fn a_run_is_held_against_an_earlier_one() {
    let (server, records) = (Server::start(&[]), Records::new());
    quick(&server, &records, &[]);
    let baseline = records.run();
    let path = baseline.join("run.json");
    let mut run: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    // Far enough from what any machine does that noise decides nothing.
    run["result"]["rate_per_s"] = json!(0.5);
    run["result"]["connect_latency_us"]["p99"] = json!(60_000_000);
    let write = |run: &Value| fs::write(&path, run.to_string()).unwrap();
    write(&run);
    let against = ["-q", "--no-worse-than", baseline.to_str().unwrap()];
    let done = quick(&server, &records, &against);
    assert_eq!((stdout(&done, 0).is_empty(), &*stderr(&done)), (false, ""));

    run["result"]["practical_max"] = json!(40);
    write(&run);
    let done = quick(&server, &records, &against);
    let name = baseline.display();
    let expected = format!(
        "sockscope: not met: practical_max no worse than {name}: it is 30 against 40 \
         (-25.0%); the tolerance is 5%\n"
    );
    assert_eq!((stdout(&done, 1).is_empty(), stderr(&done)), (false, expected));
    let done =
        quick(&server, &records, &[&against[..], &["--tolerance", "25%"]].concat());
    stdout(&done, 0);

    let unseen = [&against[..], &["--tolerance", "100%", "--evidence", "none"]].concat();
    let done = quick(&server, &records, &unseen);
    stdout(&done, 1);
    let level = "result.level is confirmed here and accepted in the baseline";
    assert!(stderr(&done).contains(level), "{done:?}");
}

/// Python's own parser reads it, whatever stands in the names.
#[test]
fn junit_names_each_requirement() {
    let (server, records) = (Server::start(&[]), Records::new());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("junit.xml");
    let more = [
        "--require",
        "practical_max >= 30",
        "--require",
        "target.given != '<&\">'",
        "--require",
        "verdict.summary = '<&\">\u{1}'",
        "--junit",
        file.to_str().unwrap(),
    ];
    stdout(&quick(&server, &records, &more), 1);
    let script = "\
import sys, xml.etree.ElementTree as E
suite = E.parse(sys.argv[1]).getroot()[0]
print(suite.get('tests'), suite.get('failures'))
for case in suite: print(case.get('name'), case[0].tag)";
    let read = Command::new("python3").args(["-c", script]).arg(&file).output().unwrap();
    let expected = "3 1\npractical_max >= 30 system-out\n\
        target.given != '<&\">' system-out\nverdict.summary = '<&\">\u{fffd}' failure\n";
    assert_eq!(String::from_utf8(read.stdout).unwrap(), expected);
}

/// Exit code 3 says more than 1; what is not met is said all the same.
#[test]
fn where_nothing_was_held_that_is_the_exit_code() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let records = Records::new();
    let args = [&closed.to_string(), "-q", "--require", "practical_max >= 1"];
    let done = records.probe(&args).output().unwrap();
    stdout(&done, 3);
    assert!(stderr(&done).contains("not met: practical_max >= 1: it is 0"), "{done:?}");
}

#[test]
fn without_a_run_there_is_no_junit_file() {
    let records = Records::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("junit.xml");
    let args = ["192.0.2.1:9", "--require", "level = accepted", "--junit"];
    let args = [&args[..], &[file.to_str().unwrap()]].concat();
    let done = records.probe(&args).output().unwrap();
    stdout(&done, 2);
    assert!(stderr(&done).contains("--authorized"), "{done:?}");
    assert!(!file.exists());
}
