//! `sockscope lab`: what each experiment finds on this kernel, and how it is asked for.

use serde_json::Value;

use crate::fixtures::probing::{json, stdout};
use crate::fixtures::rights::{ForNobody, lacking};
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
    accepted_sockets_keep_the_port: "new-port" "holds"
    a_connected_client_may_be_alone: "connected" "does_not_hold"
    a_client_can_come_before_its_server: "server-first" "holds_within_limits"
    a_socket_ends_with_its_last_descriptor: "shared" "holds"
    an_ended_socket_connects_again_unbound: "ended" "does_not_hold"
    a_taken_port_is_free_on_another_address: "taken-port" "holds_within_limits"
    connections_are_accepted_first_in_first_out: "queue-order" "holds"
    some_sockets_carry_without_connect_and_accept: "unconnected" "holds_within_limits"
    a_connection_exists_before_it_is_accepted: "unaccepted" "does_not_hold"
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
fn a_slow_link_leaves_the_server_a_backlog_and_one_of_300_connected_clients() {
    if !rustix::process::geteuid().is_root() {
        return lacking("root, for /dev/net/tun");
    }
    let made = &experiments(&["connected"])[0];
    let link = &made["numbers"]["slow_link"];
    assert_eq!(made["left_out"], serde_json::json!([]));
    assert_eq!(link["at_server"], 129, "{made:#}");
    assert!(link["connected"].as_u64().unwrap() > 129, "{made:#}");
}

#[test]
fn an_ordinary_user_finds_the_same() {
    let Some(program) = ForNobody::copy() else { return };
    let words = program.words();
    let ids = ["file", "connected", "shared", "ended", "unaccepted"];
    let output = std::process::Command::new(&words[0])
        .args(&words[1..])
        .args(["lab", "--format", "json"])
        .args(ids)
        .output();
    let document = json(&output.unwrap(), 0);
    let made = document["experiments"].as_array().unwrap();
    for (made, id) in made.iter().zip(ids) {
        let found = FINDINGS.iter().find(|one| one.0 == id).unwrap().1;
        assert_eq!(made["finding"], found, "{made:#}");
    }
    assert_eq!(made.len(), ids.len());
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
