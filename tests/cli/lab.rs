//! `sockscope lab`: what each experiment finds on this kernel, and how it is asked for.

use serde_json::Value;

use crate::fixtures::probing::{json, stdout};
use crate::fixtures::sockscope;

/// A test for each experiment: its id, and the finding; several where time decides which
/// of them it is.
macro_rules! on_this_kernel {
    ($($test:ident: $id:literal $($finding:literal)|+)*) => {
        $(#[test]
        fn $test() {
            finds($id, &[$($finding),+]);
        })*

        const TESTED: &[&str] = &[$($id),*];
    };
}

on_this_kernel! {
    a_socket_is_a_file_without_a_name: "file" "holds_within_limits"
    accepted_sockets_keep_the_port: "new-port" "holds"
    silent_clients_cost_no_time: "many-clients" "holds_within_limits"
    one_thread_serves_as_many_as_a_thread_for_each: "models" "holds_within_limits"
    as_many_threads_as_cpus_is_good: "io-threads" "holds" | "holds_within_limits"
    clients_that_were_told_of_each_other_connect: "rendezvous" "holds"
    tcp_to_this_host_is_work_and_unix_sockets_are_less: "local-cost" "holds_within_limits"
    written_bytes_are_in_the_kernel: "buffers" "holds"
    a_wrong_port_may_be_another_service: "wrong-port" "holds_within_limits"
}

fn finds(id: &str, findings: &[&str]) {
    let made = &experiments(&[id])[0];
    let found = made["finding"].as_str().unwrap_or("none");
    assert!(findings.contains(&found), "{made:#}");
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
    assert_eq!(ids, TESTED);
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
