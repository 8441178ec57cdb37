//! `sockscope report`, on runs that the built program made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Signal;
use serde_json::Value;

use crate::fixtures::probing::{Records, Running, json, stderr, stdout, timeline};
use crate::fixtures::{Server, sockscope, until};

/// A run of a server that still listens.
struct Recorded {
    server: Server,
    records: Records,
}

impl Recorded {
    fn new(max: &str) -> Self {
        let recorded = Self { server: Server::start(&[]), records: Records::new() };
        recorded.probe(max);
        recorded
    }

    fn probe(&self, max: &str) {
        let args = [&*self.server.address, "--max", max, "--hold", "100ms"];
        stdout(&self.records.probe(&args).output().unwrap(), 0);
    }

    fn run(&self) -> PathBuf {
        self.records.run()
    }
}

fn report(run: &Path, args: &[&str]) -> Output {
    sockscope().arg("report").arg(run).args(args).output().unwrap()
}

/// What it says of a file that it refuses: one line on stderr, nothing on stdout.
fn refused(run: &Path) -> String {
    let done = report(run, &[]);
    assert_eq!(stdout(&done, 2), "");
    let said = stderr(&done);
    assert_eq!(said.lines().count(), 1, "{said}");
    said.replace(&run.display().to_string(), "RUN")
}

#[test]
fn the_summary_is_printed_again_with_what_was_held_over_time() {
    let recorded = Recorded::new("200");
    let run = recorded.run();
    let text = stdout(&report(&run, &[]), 0);
    for words in [
        "practical maximum  200 connections  (accepted: by the server's own table",
        "stopped by         requested, certain",
        "200 dialed = 200 accepted; 0 phantoms",
        "held over time",
        "200 │",
        "█",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // The same by the name of the file, and of nothing where it is the newest.
    assert_eq!(stdout(&report(&run.join("run.json"), &[]), 0), text);
    let here = tempfile::tempdir().unwrap();
    let runs = here.path().join("results/runs");
    fs::create_dir_all(&runs).unwrap();
    fs::rename(&run, runs.join(run.file_name().unwrap())).unwrap();
    let newest = sockscope().arg("report").current_dir(here.path()).output().unwrap();
    assert!(stdout(&newest, 0).contains("200 dialed = 200 accepted"));
}

#[test]
fn json_is_what_the_probe_recorded() {
    let recorded = Recorded::new("50");
    let recorded_json = fs::read_to_string(recorded.run().join("run.json")).unwrap();
    assert_eq!(stdout(&report(&recorded.run(), &["--format", "json"]), 0), recorded_json);
    assert_eq!(stdout(&report(&recorded.run(), &["-j"]), 0), recorded_json);
}

/// Elements are closed in their order, ids are given once and those that are named are
/// there; nothing is fetched. Prints the text of the page.
const CHECK_HTML: &str = r##"
import re, sys
from html.parser import HTMLParser
VOID = {"meta", "link", "br", "hr", "img", "input"}
class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.ids, self.named, self.text = [], [], [], []
    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if "id" in values: self.ids.append(values["id"])
        self.named += (values.get("aria-labelledby") or "").split()
        href = values.get("href")
        if href is not None:
            assert href == "data:," or href.startswith("#"), href
            if href.startswith("#"): self.named.append(href[1:])
        for fetched in ("src", "srcset", "data", "poster", "xlink:href", "action"):
            assert fetched not in values, (tag, values)
        assert tag not in ("script", "iframe", "object", "embed", "img", "base"), tag
        if tag == "svg":
            assert values["role"] == "img" and values["aria-labelledby"], values
        if tag == "th": assert values["scope"] in ("row", "col"), values
        if tag not in VOID: self.open.append(tag)
    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open[-5:])
        self.open.pop()
    def handle_data(self, data): self.text.append(data)
text = open(sys.argv[1], encoding="utf-8").read()
for fetch in ("@import", "url(", "https:", "//www"): assert fetch not in text, fetch
page = Page()
page.feed(text); page.close()
assert not page.open, page.open
assert len(page.ids) == len(set(page.ids)), sorted(page.ids)
assert set(page.named) <= set(page.ids), set(page.named) - set(page.ids)
assert '<html lang="en">' in text
print(" ".join(page.text))
"##;

fn page_text(file: &Path) -> String {
    let checked = Command::new("python3").args(["-c", CHECK_HTML]).arg(file).output();
    stdout(&checked.unwrap(), 0)
}

#[test]
fn a_page_is_well_formed_small_and_fetches_nothing() {
    let recorded = Recorded::new("200");
    let run = recorded.run();
    let file = run.join("report.html");
    let size = fs::metadata(&file).unwrap().len();
    assert!(size < 300_000, "{size}");
    let text = page_text(&file);
    let owned = fs::read_to_string(run.join("run.json")).unwrap();
    let json: Value = serde_json::from_str(&owned).unwrap();
    for words in [
        "practical maximum",
        "200 connections",
        json["verdict"]["summary"].as_str().unwrap(),
        json["verdict"]["next"]["text"].as_str().unwrap(),
        &recorded.server.address,
        "Connections over time",
        "The server's accept queue",
        "net.core.somaxconn",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // The command writes the same page that the probe did.
    let again = tempfile::tempdir().unwrap();
    let again = again.path().join("a.html");
    stdout(&report(&run, &["-o", again.to_str().unwrap()]), 0);
    let [first, second] = [file, again].map(|file| fs::read_to_string(file).unwrap());
    assert_eq!(first, second);
}

#[test]
fn markdown_has_its_charts_beside_it_each_an_image() {
    let recorded = Recorded::new("200");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wiki/run.md");
    let args = ["--format", "md", "-o", file.to_str().unwrap()];
    assert_eq!(stdout(&report(&recorded.run(), &args), 0), "");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("**practical maximum: 200 connections**"), "{text}");
    let images: Vec<&str> =
        text.split("](<").skip(1).map(|rest| rest.split(">)").next().unwrap()).collect();
    assert!(images.len() >= 5, "{images:?}");
    for image in &images {
        let path = file.parent().unwrap().join(image);
        let parsed = Command::new("python3")
            .args(["-c", "import sys, xml.dom.minidom as x; x.parse(sys.argv[1])"])
            .arg(&path)
            .output()
            .unwrap();
        stdout(&parsed, 0);
    }
    let charts = fs::read_dir(file.parent().unwrap().join("run-charts")).unwrap();
    assert_eq!(charts.count(), images.len());
}

/// A probe that is killed while it holds, and the end of a line that it had begun.
fn cut_off(records: &Records, server: &Server) -> PathBuf {
    let args = [&*server.address, "--max", "100", "--hold", "50s", "-q"];
    let mut probe = Running::start(&mut records.probe(&args));
    until("samples of held connections are there", || {
        let run = records.runs().into_iter().next();
        let file = run.map(|run| run.join("timeline.ndjson"));
        let text = file.and_then(|file| fs::read_to_string(file).ok());
        text.is_some_and(|text| text.matches("\"held\":100,").count() >= 3)
    });
    probe.signal(Signal::KILL);
    probe.ended();
    records.run()
}

#[test]
fn a_record_that_was_cut_off_is_shown_as_what_it_is() {
    let server = Server::start(&[]);
    let records = Records::new();
    let run = cut_off(&records, &server);
    let samples = timeline(&run).len();
    let file = run.join("timeline.ndjson");
    let torn = fs::read_to_string(&file).unwrap() + r#"{"t_s":9.5,"phase":"ho"#;
    fs::write(&file, torn).unwrap();

    let text = stdout(&report(&run, &[]), 0);
    for words in [
        "cut off: no run.json",
        &format!("{samples} samples can be read"),
        "100 at the most",
        "torn and left out",
        "100 │",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let document = json(&report(&run, &["-j"]), 0);
    assert_eq!(document["schema"], "sockscope.cut_off/1");
    assert_eq!(document["samples"], samples);
    assert_eq!((&document["held_peak"], &document["torn"]), (&100.into(), &true.into()));

    let page = run.join("made.html");
    stdout(&report(&run, &["-o", page.to_str().unwrap()]), 0);
    let text = page_text(&page);
    for words in ["This record was cut off", "at least 100 connections", "is torn"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let listed = stdout(&report(records.path(), &[]), 0);
    assert!(listed.contains("cut off: no run.json"), "{listed}");
    // What the timeline alone holds can be asked for where run.json is damaged.
    fs::write(run.join("run.json"), "{\"schema\": ").unwrap();
    assert!(stdout(&report(&file, &[]), 0).contains("100 at the most"));
}

#[test]
fn what_is_no_run_is_refused_in_one_line_that_says_where() {
    let recorded = Recorded::new("2");
    let run = recorded.run();
    let file = run.join("run.json");
    let good = fs::read_to_string(&file).unwrap();

    let half = &good[..good.len() / 2];
    fs::write(&file, half).unwrap();
    let said = refused(&run);
    let line = format!("at line {} column ", half.lines().count());
    assert!(said.contains("RUN/run.json is damaged") && said.contains(&line), "{said}");

    fs::write(&file, good.replace("sockscope.run/1", "sockscope.run/7")).unwrap();
    let said = refused(&run);
    for words in ["newer", "\"sockscope.run/7\"", "\"sockscope.run/1\""] {
        assert!(said.contains(words), "{words}: {said}");
    }

    fs::write(&file, "not JSON").unwrap();
    assert!(refused(&run).contains("line 1 column "));

    let empty = tempfile::tempdir().unwrap();
    assert!(refused(empty.path()).contains("RUN is no run: it has neither run.json nor"));
    assert!(
        refused(&empty.path().join("gone")).contains("cannot read RUN: No such file")
    );
    let csv = run.join("sockets.csv");
    assert!(refused(&csv).contains("RUN is damaged, or no run: "));

    fs::write(&file, good).unwrap();
    let other = report(&run, &["--target", "nowhere"]);
    assert_eq!(stdout(&other, 2), "");
    assert!(stderr(&other).contains(&*recorded.server.address), "{}", stderr(&other));
    let limits = empty.path().join("limits.json");
    fs::write(&limits, r#"{"schema": "sockscope.limits/1"}"#).unwrap();
    assert!(refused(&limits).contains("none of these is a run"));

    let nothing = sockscope().arg("report").current_dir(empty.path()).output().unwrap();
    assert_eq!(stdout(&nothing, 2), "");
    assert!(
        stderr(&nothing).contains("no run in results/runs; sockscope probe records one")
    );
}

#[test]
fn runs_are_listed_and_filtered_by_target() {
    let recorded = Recorded::new("20");
    recorded.probe("30");
    let other = Server::start(&[]);
    let args = [&*other.address, "--max", "40", "--hold", "0s"];
    stdout(&recorded.records.probe(&args).output().unwrap(), 0);

    let text = stdout(&report(recorded.records.path(), &[]), 0);
    let rows: Vec<&str> = text.lines().collect();
    assert_eq!(rows.len(), 4, "{text}");
    assert!(rows[0].starts_with("STARTED"), "{text}");
    for (row, n) in rows[1..].iter().zip(["20", "30", "40"]) {
        for words in [n, "accepted", "requested", "/s"] {
            assert!(row.contains(words), "{words}: {text}");
        }
    }
    // The newest, also of several in one second.
    let here = tempfile::tempdir().unwrap();
    fs::create_dir(here.path().join("results")).unwrap();
    let runs = here.path().join("results/runs");
    std::os::unix::fs::symlink(recorded.records.path(), &runs).unwrap();
    let newest = |args: &[&str]| {
        let mut report = sockscope();
        report.args(["report", "-j"]).args(args).current_dir(here.path());
        json(&report.output().unwrap(), 0)["result"]["practical_max"].clone()
    };
    assert_eq!(newest(&[]), 40);
    assert_eq!(newest(&["--target", &recorded.server.address]), 30);

    let filter = ["--target", &*other.address, "-j"];
    let document = json(&report(recorded.records.path(), &filter), 0);
    assert_eq!(document["schema"], "sockscope.runs/1");
    let runs = document["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 1, "{document}");
    assert_eq!(runs[0]["practical_max"], 40);
    assert_eq!(
        (&runs[0]["level"], &runs[0]["kind"]),
        (&"accepted".into(), &"probe".into())
    );

    let none = report(recorded.records.path(), &["--target", "nowhere"]);
    assert_eq!(stdout(&none, 0).lines().count(), 1);
    assert!(stderr(&none).contains("no run of such a target"));
}

#[test]
fn what_limits_and_backlog_say_of_the_target_goes_into_its_report() {
    let recorded = Recorded::new("100");
    let (run, address) = (recorded.run(), &*recorded.server.address);
    let bare = page_text(&run.join("report.html"));
    let command = format!("sockscope limits --target {address} --need 200 -j > ");
    assert!(bare.contains(&command), "{bare}");
    assert!(bare.contains(&format!("sockscope backlog {address}")), "{bare}");

    let limits = recorded.records.path().join("limits.json");
    let args = ["limits", "--target", address, "--need", "200", "-j"];
    let asked = sockscope().args(args).output().unwrap();
    fs::write(&limits, &asked.stdout).unwrap();
    let asked: Value = serde_json::from_slice(&asked.stdout).unwrap();
    let mut watch = sockscope();
    watch
        .args(["backlog", address, "--for", "300ms", "--out"])
        .arg(recorded.records.path());
    stdout(&watch.output().unwrap(), 0);

    let file = run.join("whole.html");
    stdout(&report(&run, &["-o", file.to_str().unwrap()]), 0);
    let text = page_text(&file);
    let binding = asked["binding"].as_str().unwrap();
    for words in [
        &format!("first to bind: {binding}"),
        "200 more fit; they take",
        "peak 0 of ",
        "Ceilings of the server's host",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("then report again"), "{text}");
}

#[test]
fn a_watch_of_an_accept_queue_has_a_report_of_its_own() {
    let server = Server::start(&["--backlog", "16"]);
    let records = Records::new();
    let mut watch = sockscope();
    watch
        .args(["backlog", &server.address, "--for", "300ms", "--out"])
        .arg(records.path());
    let printed = stdout(&watch.output().unwrap(), 0);
    let run = records.run();
    let again = stdout(&report(&run, &[]), 0);
    let first = printed.lines().next().unwrap();
    assert!(again.starts_with(first), "{first}: {again}");
    let file = run.join("r.html");
    stdout(&report(&run, &["-o", file.to_str().unwrap()]), 0);
    let text = page_text(&file);
    for words in
        ["longest queue seen", "which admits 17", "How long the queue was how long"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("practical maximum"), "{text}");
}
