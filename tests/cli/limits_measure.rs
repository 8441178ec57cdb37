//! `sockscope limits --measure`: what this kernel was tried for.

use std::process::Command;

use crate::fixtures::limits::Limits;
use crate::fixtures::probing::stdout;

fn with_limit(limit: u64) -> Command {
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={limit}:{limit}"));
    command.arg(env!("CARGO_BIN_EXE_sockscope"));
    command
}

#[test]
fn each_fd_table_is_filled_up_to_its_limit() {
    let found = Limits::by(with_limit(300), &["--measure", "fds", "--fd-tables", "3"]);
    let fds = &found.document["measured"]["fds"];
    // 0, 1 and 2 are in each table too.
    assert_eq!(
        (&fds["opened"], &fds["limit"]),
        (&(3 * 297).into(), &300.into()),
        "{fds}"
    );
    assert_eq!(
        (&fds["errno"], &fds["stopped_by"]),
        (&"EMFILE".into(), &"RLIMIT_NOFILE".into())
    );
    for table in fds["tables"].as_array().unwrap() {
        assert_eq!((&table["opened"], &table["highest"]), (&297.into(), &299.into()));
    }
    let mut program = with_limit(300);
    let text = program.args(["limits", "--measure", "fds"]).output().unwrap();
    let text = stdout(&text, 0);
    let says = "297 descriptors opened in 1 fd table; stopped by RLIMIT_NOFILE, EMFILE";
    assert!(text.contains(says), "{text}");
}

#[test]
fn what_was_predicted_is_what_is_measured() {
    let mut shell = Command::new("sh");
    let line = "ulimit -n 2000; \"$0\" limits -j --measure fds; exit $?";
    shell.args(["-c", line, env!("CARGO_BIN_EXE_sockscope")]);
    let found = Limits::from(&shell.output().unwrap());
    let predicted = found.number("RLIMIT_NOFILE soft", "room");
    let measured = found.document["measured"]["fds"]["opened"].as_u64().unwrap();
    assert!(predicted.abs_diff(measured) * 100 <= measured, "{predicted}, {measured}");
}

#[test]
fn max_bounds_all_tables_together() {
    let args = ["--measure", "fds", "--fd-tables", "3", "--max", "400"];
    let found = Limits::by(with_limit(300), &args);
    let fds = &found.document["measured"]["fds"];
    assert_eq!(
        (&fds["opened"], &fds["stopped_by"]),
        (&400.into(), &"--max".into()),
        "{fds}"
    );
    assert_eq!(fds["tables"].as_array().unwrap().len(), 2);
    assert_eq!(fds["errno"], serde_json::Value::Null);
}

/// strace(1) makes socket(2) fail as a host out of files or memory does.
#[test]
fn a_host_out_of_files_or_memory_is_told_from_a_full_table() {
    for (errno, stopped_by) in [("ENFILE", "fs.file-max"), ("ENOBUFS", "memory")] {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=socket"]);
        strace.args(["-e", &format!("inject=socket:error={errno}:when=100+")]);
        strace.arg(env!("CARGO_BIN_EXE_sockscope"));
        let args = ["--measure", "fds", "--max", "5000", "--fd-tables", "2"];
        let found = Limits::by(strace, &args);
        let fds = &found.document["measured"]["fds"];
        assert_eq!(
            (&fds["errno"], &fds["stopped_by"]),
            (&errno.into(), &stopped_by.into())
        );
        assert!(fds["opened"].as_u64().unwrap() < 100, "{fds}");
        assert_eq!(
            fds["tables"].as_array().unwrap().len(),
            1,
            "no more after that: {fds}"
        );
    }
}

#[test]
fn memory_of_idle_connections_is_measured_and_used() {
    let found = Limits::of(&["--measure", "memory", "--need", "10M"]);
    let memory = &found.document["measured"]["memory"];
    let need = &found.document["need"]["memory_bytes"];
    let source = found.row("memory")["source"].as_str().unwrap().to_owned();
    if memory.is_null() {
        // Other tests opened and closed thousands meanwhile, and it said so.
        assert_eq!((&need["end"], &need["measured"]), (&4800.into(), &false.into()));
        assert!(source.ends_with("(documented)"), "{source}");
        return;
    }
    let end = memory["end_bytes"].as_u64().unwrap();
    assert!((2_000..50_000).contains(&end), "{memory}");
    assert_eq!((&need["end"], &need["measured"]), (&end.into(), &true.into()));
    assert_eq!(need["server"], end * 10_000_000);
    assert!(source.ends_with("(measured)"), "{source}");
}

#[test]
fn few_descriptors_are_not_enough_to_measure_memory() {
    let mut program = with_limit(60);
    let done = program.args(["limits", "--measure", "memory"]).output().unwrap();
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains("RLIMIT_NOFILE 60 leaves no room for 50 pairs"), "{said}");
}
