//! `sockscope report` of several runs side by side, of one against requirements, and of
//! loads on an accept queue.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::fixtures::probing::{Records, json, stderr, stdout};
use crate::fixtures::{Server, sockscope};

/// Runs of one server, each of so many connections.
fn probes(records: &Records, server: &Server, sizes: &[&str]) -> Vec<PathBuf> {
    for max in sizes {
        let args = [&*server.address, "--max", max, "--hold", "300ms", "--no-report"];
        stdout(&records.probe(&args).output().unwrap(), 0);
    }
    let mut runs = records.runs();
    // Names have the second alone.
    runs.sort_by_key(|run| {
        fs::metadata(run.join("run.json")).unwrap().modified().unwrap()
    });
    runs
}

fn report(runs: &[&Path], args: &[&str]) -> Output {
    sockscope().arg("report").args(runs).args(args).output().unwrap()
}

/// What it says of what it refuses: one line.
fn refused(runs: &[&Path], args: &[&str]) -> String {
    let done = report(runs, args);
    assert_eq!(stdout(&done, 2), "");
    let said = stderr(&done);
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn two_probes_are_compared_in_every_form() {
    let (server, records) = (Server::start(&[]), Records::new());
    let runs = probes(&records, &server, &["20", "30"]);
    let (a, b) = (&*runs[0], &*runs[1]);
    let text = stdout(&report(&[a, b], &[]), 0);
    for words in ["practical maximum", "30 (+10, +50.0%; noise unknown)", "plan.max"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let back = json(&report(&[b, a], &["-j"]), 0);
    assert_eq!(back["schema"], "sockscope.compare/1");
    let rows = back["rows"].as_array().unwrap();
    let held = rows.iter().find(|row| row["key"] == "practical_max").unwrap();
    assert_eq!(held["cells"][1]["difference"]["absolute"], -10.0);

    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("both.html");
    stdout(&report(&[a, b], &["-o", page.to_str().unwrap()]), 0);
    let html = fs::read_to_string(page).unwrap();
    for words in
        ["20 → 30", "2 runs side by side", "noise unknown", "<svg class=\"chart\""]
    {
        assert!(html.contains(words), "{words}: {html}");
    }
    let text = dir.path().join("both.md");
    stdout(&report(&[a, b], &["-o", text.to_str().unwrap()]), 0);
    let markdown = fs::read_to_string(text).unwrap();
    assert!(markdown.contains("30 (+10, +50.0%; noise unknown)"), "{markdown}");
    assert!(markdown.contains("(<both-charts/held.svg>)"), "{markdown}");
    let chart = fs::read_to_string(dir.path().join("both-charts/held.svg")).unwrap();
    assert!(chart.contains("20 at the most"), "{chart}");

    // What a target has not in it, is cut off, or goes with one run alone.
    assert!(refused(&[a, b], &["--target", "nowhere"]).contains("no \"nowhere\" in it"));
    let limits = dir.path().join("limits.json");
    fs::write(&limits, r#"{"schema": "sockscope.limits/1"}"#).unwrap();
    assert!(refused(&[a, b, &limits], &[]).contains("name one probe, or probes alone"));
    let require = ["--require", "practical_max >= 1"];
    assert!(refused(&[a, b], &require).contains("held against one run"));
    assert!(refused(&[records.path()], &require).contains("held against one run"));
    fs::remove_file(b.join("run.json")).unwrap();
    assert!(refused(&[a, b], &[]).contains("was cut off: without run.json"));
}

#[test]
fn a_record_is_held_against_requirements() {
    let (server, records) = (Server::start(&[]), Records::new());
    let runs = probes(&records, &server, &["20", "30"]);
    let (a, b) = (&*runs[0], &*runs[1]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("junit.xml");
    let met = ["--require", "practical_max >= 20", "--require", "phantoms.total = 0"];
    let done = report(&[a], &met);
    assert!(stdout(&done, 0).contains("practical maximum"), "{done:?}");
    assert!(stderr(&done).contains("all 2 requirements are met"), "{done:?}");

    let junit = ["--junit", file.to_str().unwrap()];
    let unmet =
        ["--require", "practical_max >= 10k", "--require", "level = served", "-q"];
    let done = report(&[a], &[&unmet[..], &junit].concat());
    stdout(&done, 1);
    assert_eq!(
        stderr(&done),
        "sockscope: not met: practical_max >= 10k: it is 20 (accepted)\n\
         sockscope: not met: level = served: it is accepted\n"
    );
    assert!(fs::read_to_string(&file).unwrap().contains("failures=\"2\""));

    let than = |worse: &Path, than: &Path| {
        let than = ["--no-worse-than", than.to_str().unwrap(), "--tolerance", "5%"];
        stderr(&report(&[worse], &than))
    };
    let said = than(a, b);
    assert!(
        said.contains("practical_max no worse than") && said.contains("20 against 30")
    );
    assert!(!than(b, a).contains("not met: practical_max"), "{said}");

    // Of a record that was cut off, one line; in the file, each.
    fs::remove_file(a.join("run.json")).unwrap();
    let done = report(&[a], &[&met[..], &junit].concat());
    assert!(stdout(&done, 1).contains("cut off: no run.json"), "{done:?}");
    let said = stderr(&done);
    assert_eq!(said.lines().filter(|l| l.contains("not met")).count(), 1, "{said}");
    assert!(said.contains("the record was cut off"), "{said}");
    assert!(fs::read_to_string(&file).unwrap().contains("tests=\"2\" failures=\"2\""));
}

#[test]
fn a_baseline_is_held_against_the_median_of_a_record_of_repeats() {
    let (server, records) = (Server::start(&[]), Records::new());
    let baseline = probes(&records, &server, &["30"]).remove(0);
    let repeated = Records::new();
    let args = [&*server.address, "--max", "30", "--hold", "0s", "--repeat", "2"];
    stdout(&repeated.probe(&args).output().unwrap(), 0);
    let holds = |run: &PathBuf| {
        fs::read_to_string(run.join("run.json")).unwrap().contains("\"repeat\"")
    };
    let last = repeated.runs().into_iter().find(holds).unwrap();
    // The record's own number is another than the median of all.
    let file = last.join("run.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"practical_max\": 30", "\"practical_max\": 7"))
        .unwrap();
    let than = ["--no-worse-than", baseline.to_str().unwrap(), "--tolerance", "100%"];
    let junit = last.join("junit.xml");
    let junit_args = ["--junit", junit.to_str().unwrap()];
    report(&[&last], &[&than[..], &junit_args].concat());
    let found = fs::read_to_string(junit).unwrap();
    assert!(found.contains("the median of 2 runs is 30 against 30"), "{found}");
}

#[test]
fn a_burst_has_tables_and_its_depth_in_the_list() {
    let server = Server::start(&["--never-accept", "--backlog", "16"]);
    let records = Records::new();
    let mut burst = sockscope();
    burst
        .args(["backlog", &server.address, "--burst", "30", "--for", "600ms", "--out"])
        .arg(records.path());
    stdout(&burst.output().unwrap(), 0);
    let run = records.run();
    let page = stdout(&report(&[&run], &["--format", "html"]), 0);
    let text = stdout(&report(&[&run], &["--format", "md"]), 0);
    for (page, words) in [
        (&page, "What became of 30 dials in"),
        (&text, "| never answered | "),
        (&text, "| of these in the accept queue | "),
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let listed = stdout(&report(&[records.path()], &[]), 0);
    assert!(listed.contains("burst depth"), "{listed}");
    let runs = json(&report(&[records.path()], &["-j"]), 0);
    let depth = runs["runs"][0]["depth"].as_u64().unwrap();
    assert!((17..30).contains(&depth), "{runs}");
    assert!(runs["runs"][0]["queue_peak"].is_null(), "{runs}");
    let require = ["--require", "practical_max >= 1"];
    assert!(refused(&[&run], &require).contains("requirements are held against a probe"));
}
