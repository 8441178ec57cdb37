//! `sockscope lab`: what each experiment finds on this kernel, and how it is asked for.

use serde_json::Value;

use crate::fixtures::probing::{json, stdout};
use crate::fixtures::sockscope;

/// A test for each experiment: its id, and the finding.
macro_rules! on_this_kernel {
    ($($test:ident: $id:literal $finding:literal)*) => {
        $(#[test]
        fn $test() {
            finds($id, $finding);
        })*

        const FINDINGS: &[(&str, &str)] = &[$(($id, $finding)),*];
    };
}

on_this_kernel! {
    a_socket_is_a_file_without_a_name: "file" "holds_within_limits"
    three_of_four_parts_can_be_shared: "address-pair" "holds_within_limits"
    addresses_come_with_calls_but_before_accept: "bare-descriptor" "holds_within_limits"
    a_port_has_many_connections_at_a_time: "busy-port" "does_not_hold"
    accepted_sockets_keep_the_port: "new-port" "holds"
    a_backlog_is_no_number_of_clients: "backlog" "does_not_hold"
    five_is_not_what_can_wait_any_more: "five-waiting" "was_true_once"
    a_thousand_is_a_default_that_can_be_raised: "thousand" "does_not_hold"
    a_port_has_more_connections_than_there_are_ports: "two-bytes" "does_not_hold"
    a_client_gains_ports_by_bind: "client-bind" "holds_within_limits"
}

fn finds(id: &str, finding: &str) {
    let made = &experiments(&[id])[0];
    assert_eq!(made["finding"], finding, "{made:#}");
    assert!(made["why"].as_str().is_some_and(|why| why.ends_with('.')), "{made:#}");
    assert_ne!(made["numbers"], Value::Null);
}

/// What it prints as JSON with these arguments.
fn experiments(args: &[&str]) -> Vec<Value> {
    let output = sockscope().args(["lab", "--format", "json"]).args(args).output();
    let document = json(&output.unwrap(), 0);
    assert_eq!(document["schema"], "sockscope.lab/1");
    document["experiments"].as_array().unwrap().clone()
}

#[test]
fn every_experiment_has_its_finding_here() {
    let listed = experiments(&["--list"]);
    let ids: Vec<&str> = listed.iter().map(|one| one["id"].as_str().unwrap()).collect();
    let tested: Vec<&str> = FINDINGS.iter().map(|one| one.0).collect();
    assert_eq!(ids, tested);
}

#[test]
fn a_name_that_nothing_has_is_said() {
    let output = sockscope().args(["lab", "filee"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("there is no experiment 'filee'"), "{said}");
    assert_eq!(said.lines().count(), 1);
}

#[test]
fn text_says_claim_trial_table_numbers_and_why() {
    let output = sockscope().args(["lab", "5"]).output().unwrap();
    let text = stdout(&output, 0);
    assert!(text.starts_with("5. new-port: holds"), "{text}");
    for part in ["claim  ", "trial  ", "table  ", "LISTEN", "seen  ", "why  "] {
        assert!(text.contains(part), "no {part}: {text}");
    }
}
