//! Probes that end before a limit: the clock, and Ctrl-C.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::fixtures::probe::Outcome;
use crate::fixtures::{Server, until};

/// The folder of the one run that was recorded in `out`.
fn run_folder(out: &Path) -> Option<PathBuf> {
    Some(fs::read_dir(out).ok()?.next()?.ok()?.path())
}

/// Waits until the timeline says that the probe is in this phase, and holds something.
pub(super) fn until_phase(out: &Path, phase: &str) {
    until(phase, || {
        let timeline = run_folder(out).map(|run| run.join("timeline.ndjson"));
        let text = timeline.and_then(|path| fs::read_to_string(path).ok());
        let text = text.unwrap_or_default();
        let samples = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        let mut samples = samples.map(|sample: serde_json::Value| sample);
        samples.any(|s| s["phase"] == phase && s["held"].as_u64() > Some(0))
    });
}

fn nothing_is_left_of(server: &Server) {
    until("only its listener is left", || server.listed("-Htan").lines().count() == 1);
}

#[test]
fn the_time_is_over_while_more_could_be_held() {
    let server = Server::apart(&["--accept-delay", "10ms"]);
    // Not so fast that its accept queue fills: that would be a limit.
    let outcome = server.probe().with(&["--time-limit", "1s", "--rate", "300"]).run();
    outcome.is("time_limit", "certain");
    // Twenty a second; a busy machine counts them late.
    assert!((2..=200).contains(&outcome.held()), "{outcome}");
    assert!(outcome.remedies()[0].contains("--time-limit"), "{outcome}");
}

#[test]
fn interrupted_while_dialing_it_says_what_it_learned() {
    let server = Server::apart(&[]);
    let folder = tempfile::tempdir().unwrap();
    let probe = server.probe().with(&["--rate", "200"]);
    let probe = probe.recorded(folder.path()).start();
    until_phase(folder.path(), "ramp");
    probe.signal(Signal::INT);
    let outcome = probe.ended();
    outcome.is("interrupted", "certain");
    assert_eq!(outcome.exit, 130);
    assert!(outcome.held() > 0, "{outcome}");
    let run = run_folder(folder.path()).unwrap();
    assert_eq!(Outcome::recorded(&run)["verdict"]["code"], "interrupted");
    nothing_is_left_of(&server);
}

#[test]
fn interrupted_while_holding_it_does_not_claim_to_have_held() {
    let server = Server::apart(&[]);
    let folder = tempfile::tempdir().unwrap();
    let probe = server.probe().with(&["--max", "50", "--hold", "1h"]);
    let probe = probe.recorded(folder.path()).start();
    until_phase(folder.path(), "hold");
    probe.signal(Signal::INT);
    let outcome = probe.ended();
    outcome.is("interrupted", "certain");
    outcome.holds(50);
    assert_eq!(outcome.exit, 130);
    let run = run_folder(folder.path()).unwrap();
    assert_eq!(Outcome::recorded(&run)["result"]["practical_max"], 50);
    nothing_is_left_of(&server);
}

#[test]
fn a_limit_that_was_found_outlives_the_interruption_of_the_hold() {
    let server = Server::apart(&["--max-connections", "30", "--beyond", "close"]);
    let folder = tempfile::tempdir().unwrap();
    let probe = server.probe().with(&["--hold", "1h"]);
    let probe = probe.recorded(folder.path()).start();
    until_phase(folder.path(), "hold");
    probe.signal(Signal::TERM);
    let outcome = probe.ended();
    outcome.is("server.closes_new", "certain");
    outcome.holds(30);
    assert_eq!(outcome.exit, 130);
    assert!(outcome.warnings().contains(&"hold_cut_short"), "{outcome}");
}
