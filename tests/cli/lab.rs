//! `sockscope lab`: what each experiment finds on this kernel, and how it is asked for.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::fixtures::probing::{json, stdout};
use crate::fixtures::rights::{ForNobody, lacking};
use crate::fixtures::schema::Schema;
use crate::fixtures::sockscope;

/// A test for each experiment: its id, and the finding; several where time decides which
/// of them it is.
macro_rules! on_this_kernel {
    ($($test:ident: $id:literal $($finding:literal)|+)*) => {
        $(#[test]
        fn $test() {
            finds($id, &[$($finding),+]);
        })*

        const TESTED: &[(&str, &[&str])] = &[$(($id, &[$($finding),+])),*];
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
    a_connected_client_may_be_alone: "connected" "does_not_hold"
    a_client_can_come_before_its_server: "server-first" "holds_within_limits"
    a_socket_ends_with_its_last_descriptor: "shared" "holds"
    an_ended_socket_connects_again_unbound: "ended" "does_not_hold"
    silent_clients_cost_no_time: "many-clients" "holds_within_limits"
    one_thread_serves_as_many_as_a_thread_for_each: "models" "holds_within_limits"
    as_many_threads_as_cpus_is_good: "io-threads" "holds" | "holds_within_limits"
    clients_that_were_told_of_each_other_connect: "rendezvous" "holds"
    a_taken_port_is_free_on_another_address: "taken-port" "holds_within_limits"
    tcp_to_this_host_is_work_and_unix_sockets_are_less: "local-cost" "holds_within_limits"
    connections_are_accepted_first_in_first_out: "queue-order" "holds"
    some_sockets_carry_without_connect_and_accept: "unconnected" "holds_within_limits"
    a_connection_exists_before_it_is_accepted: "unaccepted" "does_not_hold"
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
        let findings = TESTED.iter().find(|one| one.0 == id).unwrap().1;
        assert!(
            findings.contains(&made["finding"].as_str().unwrap_or("none")),
            "{made:#}"
        );
    }
    assert_eq!(made.len(), ids.len());
}

#[test]
fn every_experiment_has_its_finding_here() {
    let listed = experiments(&["--list"]);
    let ids: Vec<&str> = listed.iter().map(|one| one["id"].as_str().unwrap()).collect();
    let tested: Vec<&str> = TESTED.iter().map(|one| one.0).collect();
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

#[test]
fn the_published_schema_is_that_of_what_is_printed() {
    let path = format!("{}/docs/lab.schema.json", env!("CARGO_MANIFEST_DIR"));
    let ours = serde_json::to_string_pretty(&sockscope::lab::document::schema());
    let ours = ours.unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMA").is_some_and(|update| update == "1") {
        fs::write(&path, &ours).unwrap();
    }
    let published = fs::read_to_string(&path).unwrap_or_default();
    assert!(published == ours, "docs/lab.schema.json is not what UPDATE_SCHEMA=1 writes");
    let output = sockscope().args(["lab", "-j", "file", "new-port"]).output().unwrap();
    let document = json(&output, 0);
    let schema = Schema::published("lab.schema.json");
    schema.check(&document).unwrap_or_else(|why| panic!("{why}"));
    let rows = Schema::published("socket.schema.json");
    let sockets = &document["experiments"][1]["moments"][0]["sockets"];
    let sockets =
        serde_json::json!({"schema": "sockscope.sockets/1", "sockets": sockets});
    rows.check(&sockets).unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn a_report_is_written_as_its_ending_says() {
    let folder = TempDir::new().unwrap();
    let report = |name: &str, code: i32| {
        let to = folder.path().join(name);
        let output =
            sockscope().args(["lab", "new-port", "--report"]).arg(to).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    report("both", 0);
    for name in ["both/lab.html", "both/lab.md"] {
        let text = fs::read_to_string(folder.path().join(name)).unwrap();
        for part in ["gets a new socket, not a new port", "LISTEN", "Finding"] {
            assert!(text.contains(part), "{name}: no {part}");
        }
    }
    report("one.md", 0);
    assert!(folder.path().join("one.md").is_file());
    let said = report("one.pdf", 2);
    assert!(said.contains("nothing is written as .pdf"), "{said}");
    assert!(!folder.path().join("one.pdf").exists());
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = sockscope()
        .args(["lab", "--list"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
