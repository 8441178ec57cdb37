//! How a probe is ended from outside, and what it leaves then.

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::fixtures::probing::{Records, Running, is_alive, number, timeline};
use crate::fixtures::{Server, until};

/// A probe of its own server that holds 500, and that server's pid.
fn holding(records: &Records) -> (Running, u32) {
    let probe =
        Running::start(&mut records.probe(&["--max", "500", "--hold", "30s", "-j"]));
    let server = probe.server();
    until("it holds", || {
        records.runs().first().is_some_and(|run| run.join("sockets.csv").exists())
    });
    (probe, server)
}

#[test]
fn a_probe_that_is_interrupted_writes_what_it_learned_and_leaves_nothing_running() {
    for signal in [Signal::INT, Signal::TERM] {
        let records = Records::new();
        let (mut probe, server) = holding(&records);
        probe.signal(signal);
        assert_eq!(probe.ended().code(), Some(130));
        let text = fs::read_to_string(records.run().join("run.json")).unwrap();
        let run: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(run["verdict"]["code"], "interrupted", "{}", run["verdict"]);
        assert_eq!(number(&run, "/result/counts/accepted"), 500);
        until("its server is gone", || !is_alive(server));
        assert!(!timeline(&records.run()).is_empty());
    }
}

#[test]
fn an_interrupted_ramp_closes_what_it_opened() {
    let server = Server::start(&[]);
    let before = server.open_fds().len();
    let records = Records::new();
    let args = [&server.address, "--rate", "200", "--max", "100k", "-j"];
    let mut probe = Running::start(&mut records.probe(&args));
    until("it has opened some", || server.open_fds().len() > before + 20);
    probe.signal(Signal::INT);
    assert_eq!(probe.ended().code(), Some(130));
    let text = fs::read_to_string(records.run().join("run.json")).unwrap();
    let run: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(run["verdict"]["code"], "interrupted");
    until("the server has closed all", || server.open_fds().len() == before);
}

/// A second signal is for a user who will not wait: nothing more is written. Here the
/// first leaves the probe at a fifo, which stands for a disk that does not answer.
#[test]
fn a_second_signal_ends_it_at_once() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let server = Server::start(&[]);
        let before = server.open_fds().len();
        let records = Records::new();
        let args = [&server.address, "--max", "50", "--hold", "30s"];
        let mut probe = Running::start(&mut records.probe(&args));
        until("it holds", || {
            records.runs().first().is_some_and(|run| run.join("sockets.csv").exists())
        });
        let fifo = records.run().join(".run.json.tmp");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        probe.signal(signal);
        until("it has closed all", || server.open_fds().len() == before);
        assert!(is_alive(probe.pid()));
        probe.signal(signal);
        assert_eq!(probe.ended().code(), Some(code));
        assert!(!records.run().join("run.json").exists());
    }
}

#[test]
fn a_probe_that_is_killed_takes_its_server_along_and_leaves_a_whole_timeline() {
    let records = Records::new();
    let (mut probe, server) = holding(&records);
    assert!(is_alive(server));
    probe.signal(Signal::KILL);
    assert_eq!(probe.ended().code(), None);
    until("its server is gone", || !is_alive(server));
    let samples = timeline(&records.run());
    let last = samples.iter().map(|s| number(s, "/established")).max();
    assert_eq!(last, Some(500), "{samples:?}");
    assert!(!records.run().join("run.json").exists());
}
