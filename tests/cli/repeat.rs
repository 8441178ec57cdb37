//! `probe --repeat N`.

use std::net::TcpListener;

use rustix::process::Signal;
use serde_json::Value;

use crate::fixtures::probe::Outcome;
use crate::fixtures::probing::{Records, Running, json, stderr, stdout, timeline};
use crate::fixtures::{Server, until};

fn recorded(records: &Records) -> Vec<Value> {
    records.runs().iter().map(|folder| Outcome::recorded(folder)).collect()
}

/// The run that has the repeats.
fn last(runs: &[Value]) -> &Value {
    let mut with = runs.iter().filter(|run| run.get("repeat").is_some());
    let found = with.next().unwrap();
    assert!(with.next().is_none(), "two runs have them");
    assert!(runs.iter().all(|run| run["started"].as_str() <= found["started"].as_str()));
    found
}

#[test]
fn five_runs_have_a_median_and_its_interval() {
    let (server, records) = (Server::start(&[]), Records::new());
    let args = [&*server.address, "--max", "20", "--hold", "0s", "--repeat", "5"];
    let done = records.probe(&args).output().unwrap();
    let text = stdout(&done, 0);
    let runs = recorded(&records);
    assert_eq!(runs.len(), 5);
    let repeat = &last(&runs)["repeat"];
    assert_eq!(repeat["runs"], 5);
    let names: Vec<String> = records
        .runs()
        .iter()
        .map(|run| run.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    let mut folders: Vec<&str> = repeat["folders"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f.as_str().unwrap())
        .collect();
    folders.sort_unstable();
    assert_eq!(folders, names);
    let max = &repeat["practical_max"];
    assert_eq!(max["median"], 20.0);
    assert_eq!(max["values"].as_array().unwrap().len(), 5);
    assert_eq!(
        (&max["interval"]["low"], &max["interval"]["high"]),
        (&20.0.into(), &20.0.into())
    );
    for key in ["rate_per_s", "connect_p99_us"] {
        let of = |pointer: &str| repeat[key].pointer(pointer).unwrap().as_f64().unwrap();
        let (low, median, high) =
            (of("/interval/low"), of("/median"), of("/interval/high"));
        assert!(low <= median && median <= high && low > 0.0, "{key}: {repeat}");
    }
    assert_eq!(repeat["reply_p99_us"], Value::Null);
    assert!(
        text.contains("5 runs               median (95 % interval); each run"),
        "{text}"
    );
    assert!(
        text.contains("practical maximum  20 (20 to 20); 20, 20, 20, 20, 20"),
        "{text}"
    );
    assert!(stderr(&done).contains("note: run 5 of 5"), "{done:?}");
}

#[test]
fn of_two_runs_the_noise_is_unknown_and_the_gate_takes_the_median() {
    let (server, records) = (Server::start(&[]), Records::new());
    let args = [
        &*server.address,
        "--max",
        "20",
        "--hold",
        "0s",
        "--repeat",
        "2",
        "-jq",
        "--require",
        "practical_max > 20",
    ];
    let done = records.probe(&args).output().unwrap();
    let run = json(&done, 1);
    assert_eq!(run["repeat"]["practical_max"]["interval"], Value::Null);
    assert_eq!(run, *last(&recorded(&records)));
    let unmet = "sockscope: not met: practical_max > 20: the median of 2 runs is 20 \
        (accepted)\n";
    assert_eq!(stderr(&done), unmet);
}

#[test]
fn what_is_interrupted_is_none_of_the_repeats() {
    let (server, records) = (Server::start(&[]), Records::new());
    let args =
        [&*server.address, "--max", "20", "--hold", "700ms", "--repeat", "50", "-q"];
    let mut probe = Running::start(&mut records.probe(&args));
    let holds = |folder: &std::path::Path| {
        std::fs::read_to_string(folder.join("timeline.ndjson"))
            .is_ok_and(|text| text.contains("\"hold\""))
    };
    until("the second run holds", || {
        records.runs().iter().filter(|run| holds(run)).count() >= 2
    });
    probe.signal(Signal::INT);
    assert_eq!(probe.ended().code(), Some(130));
    let runs = recorded(&records);
    let cut = |run: &Value| run["verdict"]["code"] == "interrupted";
    let (cut, whole): (Vec<Value>, Vec<Value>) = runs.into_iter().partition(cut);
    assert!(cut.len() <= 1 && cut.iter().all(|run| run.get("repeat").is_none()));
    assert!(!whole.is_empty() && whole.len() < 50);
    assert_eq!(last(&whole)["repeat"]["runs"], whole.len());
    assert!(records.runs().iter().all(|run| !timeline(run).is_empty()));
}

/// The command that tells of the server works once.
#[test]
fn what_went_before_a_failure_is_said_all_the_same() {
    let (server, records) = (Server::start(&[]), Records::new());
    let once = records.path().join("once");
    let evidence = format!(
        "mkdir {} && exec {} backlog {} --format ndjson",
        once.display(),
        env!("CARGO_BIN_EXE_sockscope"),
        server.address
    );
    let args = [
        &*server.address,
        "--max",
        "20",
        "--hold",
        "0s",
        "--repeat",
        "3",
        "-q",
        "--evidence",
        &evidence,
        "--require",
        "practical_max >= 30",
    ];
    let done = records.probe(&args).output().unwrap();
    let text = stdout(&done, 3);
    assert!(text.contains("\n1 run                median; each run."), "{text}");
    let said = stderr(&done);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].contains("not met: practical_max >= 30: it is 20"), "{said}");
    assert!(lines.len() > 1 && lines[1].contains("ended"), "{said}");
    std::fs::remove_dir(once).unwrap();
    let runs = recorded(&records);
    assert_eq!((runs.len(), &last(&runs)["repeat"]["runs"]), (1, &1.into()));
}

#[test]
fn where_nothing_is_held_nothing_is_repeated() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let records = Records::new();
    let args = [&closed.to_string(), "-q", "--repeat", "5"];
    stdout(&records.probe(&args).output().unwrap(), 3);
    assert_eq!(records.runs().len(), 1);
}
