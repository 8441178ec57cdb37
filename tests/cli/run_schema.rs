//! The published schemas of a run and of an accept queue are those of this program, and
//! what it writes is as they say. `UPDATE_SCHEMA=1 cargo nextest run run_schema` writes
//! them anew.

use std::fs;

use serde_json::{Value, json};
use sockscope::record::{Run, backlog_schema, run_schema};

use crate::fixtures::probing::{Records, json, stdout};
use crate::fixtures::schema::Schema;
use crate::fixtures::{Server, sockscope};

#[test]
fn published_schemas_of_records_are_those_of_this_program() {
    for (name, schema) in
        [("run.schema.json", run_schema()), ("backlog.schema.json", backlog_schema())]
    {
        let path = format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"));
        let ours = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if std::env::var_os("UPDATE_SCHEMA").is_some_and(|update| update == "1") {
            fs::write(&path, &ours).unwrap();
        }
        let published = fs::read_to_string(&path).unwrap_or_default();
        assert!(published == ours, "docs/{name} is not what UPDATE_SCHEMA=1 writes");
    }
}

#[test]
fn what_a_probe_records_and_prints_is_as_the_schema_says() {
    let schema = Schema::published("run.schema.json");
    let server = Server::start(&[]);
    let records = Records::new();
    let quick = ["-j", "--max", "20", "--hold", "0s"];
    let of = |more: &[&str]| {
        let args = [&[&*server.address][..], &quick[..], more].concat();
        json(&records.probe(&args).output().unwrap(), 0)
    };
    for more in [
        &[][..],
        &["--evidence", "none"],
        &["--send", "x", "--require", "practical_max = 20"],
        &["--repeat", "2"],
    ] {
        let run = of(more);
        schema.check(&run).unwrap_or_else(|why| panic!("{more:?}: {why}"));
    }
    assert_eq!(records.runs().len(), 5);
    for folder in records.runs() {
        let text = fs::read(folder.join("run.json")).unwrap();
        let run: Value = serde_json::from_slice(&text).unwrap();
        schema.check(&run).unwrap_or_else(|why| panic!("{why}"));
        let read: Run = serde_json::from_slice(&text).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), run);
    }
}

#[test]
fn what_is_seen_of_an_accept_queue_is_as_its_schema_says() {
    let server = Server::start(&[]);
    let args = ["backlog", &server.address, "-j", "--for", "200ms", "--no-record"];
    let done = sockscope().args(args).output().unwrap();
    let document: Value = serde_json::from_str(&stdout(&done, 0)).unwrap();
    let schema = Schema::published("backlog.schema.json");
    schema.check(&document).unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn a_record_that_is_not_as_the_schema_says_is_found() {
    let schema = Schema::published("run.schema.json");
    let run = serde_json::to_value(Run::default()).unwrap();
    assert_eq!(schema.check(&run), Ok(()));
    for (pointer, wrong) in [
        ("/schema", json!("sockscope.run/2")),
        ("/result/practical_max", json!(-1)),
        ("/result/level", json!("held")),
        ("/result/errors", json!({ "ECONNREFUSED": "3" })),
        ("/result/phantoms", json!({ "total": null })),
        ("/environment/sysctls", json!({ "net.core.somaxconn": 4096 })),
    ] {
        let mut run = run.clone();
        *run.pointer_mut(pointer).unwrap() = wrong;
        let why = schema.check(&run).unwrap_err();
        let key = pointer.rsplit('/').next().unwrap();
        assert!(why.contains(key), "{pointer}: {why}");
    }
}

/// A run as the program wrote it before keys were added: what it lacks is as if it had
/// not been measured.
#[test]
fn a_run_of_an_earlier_program_is_read() {
    let text = fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/run_before_repeat.json"
    ))
    .unwrap();
    let run: Run = serde_json::from_slice(&text).unwrap();
    let written: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(run.result.practical_max, written["result"]["practical_max"]);
    assert_eq!(run.verdict.code, written["verdict"]["code"]);
    assert!(run.repeat.is_none() && run.plan.require.is_none());
}
