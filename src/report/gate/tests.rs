use super::*;
use crate::record::{Counts, Latency, Phantoms, RunResult, Verdict};
use proptest::prelude::*;

fn run() -> Run {
    let result = RunResult {
        practical_max: 9_990,
        level: Level::Accepted,
        counts: Counts { accepted: Some(9_990), ..Counts::default() },
        phantoms: Phantoms { total: None, ..Phantoms::default() },
        errors: [("ECONNREFUSED".into(), 3)].into(),
        rate_per_s: 28_900.25,
        connect_latency_us: Some(Latency { p99: 50_400, ..Latency::default() }),
        ..RunResult::default()
    };
    let mut run = Run { result, ..Run::default() };
    run.verdict = Verdict { code: "server.fd_limit".into(), ..Verdict::default() };
    run.environment.sysctls.insert("net.core.somaxconn".into(), "4096".into());
    run.result.memory.kernel_bytes_per_socket = Some(2_345.5);
    run.plan.confirm = true;
    run
}

#[track_caller]
fn check(text: &str) -> Finding {
    Requirement::parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).check(&[run()])
}

#[test]
fn met_and_unmet() {
    for (text, met, found) in [
        ("practical_max >= 10k", false, "it is 9,990 (accepted)"),
        ("result.practical_max>=9_990", true, "it is 9,990 (accepted)"),
        ("practical_max = 9.99k", true, "it is 9,990 (accepted)"),
        ("practical_max == 9990", true, "it is 9,990 (accepted)"),
        ("practical_max < 1M", true, "it is 9,990 (accepted)"),
        ("practical_max > 9990", false, "it is 9,990 (accepted)"),
        ("counts.accepted != 9990", false, "it is 9,990"),
        ("connect_latency_us.p99 < 50ms", false, "it is 50.4 ms"),
        ("connect_latency_us.p99 <= 50400us", true, "it is 50.4 ms"),
        ("connect_latency_us.p99 <= 50.4ms", true, "it is 50.4 ms"),
        ("connect_latency_us.p99 < 1m30s", true, "it is 50.4 ms"),
        ("connect_latency_us.p99 > 0", true, "it is 50.4 ms"),
        ("rate_per_s >= 28.9k/s", true, "it is 28900.25/s"),
        ("rate_per_s >= 30000", false, "it is 28900.25/s"),
        ("memory.kernel_bytes_per_socket <= 2KiB", false, "it is 2345.5 bytes"),
        ("verdict.code = requested", false, "it is server.fd_limit"),
        ("verdict.code != requested", true, "it is server.fd_limit"),
        ("level = accepted", true, "it is accepted"),
        ("plan.confirm = true", true, "it is true"),
        ("phantoms.total = 0", false, "not measured in this run"),
        (
            "counts.served = 1",
            false,
            "not measured in this run; measured beside it: counts.accepted, counts.dialed, \
             counts.established",
        ),
        ("errors.ECONNREFUSED = 0", false, "it is 3"),
        ("errors.ETIMEDOUT = 0", true, "it is 0"),
        ("environment.sysctls.net.core.somaxconn = '4096'", true, "it is 4096"),
        ("environment.sysctls.net.core.other = 1", false, "not measured in this run"),
        ("backlog.flow.other_listeners = 0", false, "not measured in this run"),
    ] {
        let finding = check(text);
        let expected = Finding::new(text, met, found);
        assert_eq!(finding, expected, "{text}");
    }
}

#[test]
fn what_means_nothing_is_refused_in_one_line_that_helps() {
    for (text, part) in [
        ("", "is written 'practical_max >= 10k'"),
        ("practical_max", "operators are"),
        (">= 10k", "operators are"),
        ("practical_max >=", "operators are"),
        ("practical_max => 10k", "operators are"),
        ("practical_max >== 10k", "operators are"),
        ("practical max >= 10k", "operators are"),
        ("practical_max ! 10k", "operators are"),
        ("practical_mx >= 10k", "near to it: practical_max"),
        ("p99 < 50ms", "near to it: connect_latency_us.p99, reply_latency_us.p99"),
        ("latency.p99 < 50ms", "connect_latency_us.p99"),
        ("zzzzzzzzzzzzzzzz < 50ms", "docs/run.md"),
        ("phantoms = 0", "phantoms.cookie, phantoms.request_socket, phantoms.total"),
        ("errors = 0", "errors.NAME"),
        ("errors. = 0", "a run has no errors."),
        ("warnings = 0", "is a list"),
        ("practical_max >= 50ms", "practical_max is a count: \"50ms\" is none; a count"),
        ("practical_max >= ten", "a count is written 20000, 10k or 1M"),
        ("practical_max >= -1", "a count is written"),
        ("practical_max >= 1e3", "a count is written"),
        ("connect_latency_us.p99 < 50", "is a time: \"50\" is none; a time is written"),
        ("connect_latency_us.p99 < 10k", "a time is written"),
        ("rate_per_s > 5/m", "a rate is written"),
        ("memory.client_rss_bytes < 5s", "a size is written"),
        ("confirmation.round_trip_loss < 5s", "a part is written 0.01 or 1%"),
        ("verdict.code = server.fd_limt", "near to it: server.fd_limit"),
        ("verdict.code >= requested", "is no number: it takes = and !="),
        ("level = acceptd", "there are established, confirmed, accepted"),
        ("plan.confirm = yes", "true or false"),
    ] {
        let error = Requirement::parse(text).expect_err(text).to_string();
        assert!(error.contains(part) && !error.contains('\n'), "{text}: {error}");
    }
}

#[test]
fn units_are_those_of_the_keys() {
    let mut run = run();
    run.result.confirmation = Some(crate::record::Confirmation {
        round_trip_loss: 0.01,
        ..crate::record::Confirmation::default()
    });
    run.result.ended =
        Some(crate::record::Ended { p50_ms: 1_500, ..crate::record::Ended::default() });
    run.plan.hold_s = 0.5;
    run.result.memory.client_rss_bytes = 65_536;
    for text in [
        "confirmation.round_trip_loss = 1%",
        "confirmation.round_trip_loss <= 0.01",
        "ended.p50_ms = 1.5s",
        "ended.p50_ms = 1500ms",
        "plan.hold_s = 500ms",
        "memory.client_rss_bytes = 64KiB",
        "memory.client_rss_bytes < 65.537kB",
    ] {
        let finding = Requirement::parse(text).unwrap().check(&[run.clone()]);
        assert!(finding.met, "{text}: {finding:?}");
    }
}

#[test]
fn of_several_runs_the_median_counts_and_every_text() {
    let mut runs = [run(), run(), run()];
    for (run, held) in runs.iter_mut().zip([10_000, 9_000, 11_000]) {
        run.result.practical_max = held;
    }
    let check = |text: &str, runs: &[Run]| Requirement::parse(text).unwrap().check(runs);
    let median = check("practical_max >= 10k", &runs);
    assert_eq!(median.found, "the median of 3 runs is 10,000 (accepted)");
    assert!(median.met);
    runs[2].verdict.code = "requested".into();
    let text = check("verdict.code = server.fd_limit", &runs);
    assert_eq!((text.met, &*text.found), (false, "it is requested in run 3 of 3"));
    runs[1].result.connect_latency_us = None;
    let null = check("connect_latency_us.p99 < 1s", &runs);
    assert_eq!((null.met, &*null.found), (false, "not measured in run 2 of 3"));
    let together = crate::report::repeat::together(&runs[..2], Vec::new());
    runs[2].repeat = Some(together);
    let repeats = check("repeat.practical_max.median >= 9.5k", &runs);
    assert_eq!((repeats.met, &*repeats.found), (true, "it is 9,500"));
    let interval = check("repeat.practical_max.interval.low >= 9k", &runs);
    assert_eq!((interval.met, &*interval.found), (false, "not measured in this run"));
    assert!(Requirement::parse("repeat.connect_p99_us.interval.high < 5ms").is_ok());
    runs[1].result.level = Level::Confirmed;
    let levels = check("practical_max >= 1", &runs);
    assert!(!levels.met && levels.found.contains("different levels"), "{levels:?}");
}

#[test]
fn a_baseline_is_of_the_same_level_and_kind_and_has_a_tolerance() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.json");
    let write = |run: &Run| {
        std::fs::write(&path, serde_json::to_string(run).unwrap()).unwrap();
    };
    let then = run();
    write(&then);
    let load = |tolerance: &str| {
        Baseline::load(folder.path(), tolerance.parse().unwrap()).unwrap()
    };
    let unmet = |baseline: &Baseline, run: &Run| -> Vec<String> {
        let found = baseline.check(std::slice::from_ref(run)).into_iter();
        found
            .filter(|f| !f.met)
            .map(|f| format!("{}: {}", f.requirement, f.found))
            .collect()
    };
    assert!(unmet(&load("0%"), &then).is_empty());
    let mut now = then.clone();
    now.result.practical_max = 9_491;
    now.result.rate_per_s = 27_456.0;
    now.result.connect_latency_us.as_mut().unwrap().p99 = 52_919;
    assert!(unmet(&load("5%"), &now).is_empty());
    let worse = unmet(&load("4.9%"), &now);
    let [max, rate, latency] = &worse[..] else { panic!("{worse:?}") };
    let name = folder.path().display();
    let found = "it is 9,491 against 9,990 (-5.0%); the tolerance is 4.9%";
    assert_eq!(*max, format!("practical_max no worse than {name}: {found}"));
    assert!(rate.starts_with("rate_per_s no worse than"), "{rate}");
    assert!(latency.contains("52.919 ms against 50.4 ms (+5.0%)"), "{latency}");

    let mut other = then.clone();
    other.result.level = Level::Confirmed;
    let [why] = &unmet(&load("100%"), &other)[..] else { panic!() };
    let level = "result.level is confirmed here and accepted in the baseline";
    assert!(why.contains(level), "{why}");
    let mut other = then.clone();
    other.target.kind = crate::record::TargetKind::Unix;
    let [why] = &unmet(&load("100%"), &other)[..] else { panic!() };
    assert!(why.contains("target.kind is unix here and tcp in the baseline"), "{why}");
    let mut other = then.clone();
    other.plan.rate_per_s = Some(500.0);
    let [why] = &unmet(&load("100%"), &other)[..] else { panic!() };
    assert!(why.contains("plan.rate_per_s is 500/s here"), "{why}");
    let mut other = then.clone();
    other.result.connect_latency_us = None;
    let [why] = &unmet(&load("100%"), &other)[..] else { panic!() };
    assert!(why.ends_with("not measured in this run"), "{why}");
    for text in ["5", "", "%", "-1%", "101%", "5%%", "1e1%", "NaN%"] {
        assert!(text.parse::<Tolerance>().is_err(), "{text}");
    }
}

#[test]
fn what_is_no_baseline_says_so_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let load = |name: &str, text: Option<&str>| {
        let path = folder.path().join(name);
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let error = Baseline::load(&path, Tolerance::default()).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(!error.contains('\n'), "{error}");
        error
    };
    assert!(load("missing.json", None).contains("cannot be read: No such file"));
    assert!(
        load("cut.json", Some("{\"schema\": \"sock")).contains("is no run.json: EOF")
    );
    let newer = load("newer.json", Some("{\"schema\": \"sockscope.run/2\"}"));
    assert!(newer.contains("its schema is \"sockscope.run/2\""), "{newer}");
    assert!(load("none.json", Some("[]")).contains("its schema is \"\""));
    let wrong = "{\"schema\": \"sockscope.run/1\", \"result\": {\"practical_max\": -1}}";
    assert!(load("wrong.json", Some(wrong)).contains("is no run.json: invalid value"));
}

proptest! {
    #[test]
    fn nothing_that_is_typed_panics(text in any::<String>()) {
        let _ = Requirement::parse(&text);
    }

    #[test]
    fn no_comparison_panics(
        name in "(practical_max|connect_latency_us\\.p99|rate_per_s|verdict\\.code|errors\\.X)",
        operator in "[<>=!]{1,2}",
        value in "[0-9._]{0,20}(k|M|ms|s|%|/s|KiB|x)?",
    ) {
        if let Ok(requirement) = Requirement::parse(&format!("{name}{operator}{value}")) {
            let _ = requirement.check(&[run()]);
        }
    }
}
