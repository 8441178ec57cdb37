use super::*;
use crate::record::{Interval, Latency, Repeat, Samples};
use crate::report::markdown;
use crate::report::noise::estimate;

fn run(name: &str, held: u64, p99: u64) -> Named {
    let mut run = Run::default();
    run.result.practical_max = held;
    run.result.level = Level::Accepted;
    run.result.rate_per_s = 20_000.0;
    run.result.connect_latency_us = Some(Latency { p99, ..Latency::default() });
    run.verdict.code = "server.fd_limit".into();
    run.environment.kernel = "6.1.0".into();
    run.environment.sysctls.insert("net.core.somaxconn".into(), "4096".into());
    Named { name: name.into(), run }
}

fn repeated(mut named: Named, held: &[f64]) -> Named {
    let practical_max = estimate(held.to_vec());
    let runs = held.len() as u64;
    named.run.repeat = Some(Repeat { runs, practical_max, ..Repeat::default() });
    named
}

fn cell<'a>(comparison: &'a Comparison, key: &str, n: usize) -> &'a Cell {
    let row = comparison.rows.iter().find(|row| row.key == key).unwrap();
    &row.cells[n]
}

#[test]
fn differences_have_a_sign_and_say_which_is_better() {
    let both = compare(&[run("a", 20_000, 80), run("b", 18_000, 100)]);
    let held = cell(&both, "practical_max", 1).difference.clone().unwrap();
    assert_eq!((held.absolute, held.percent), (-2_000.0, Some(-10.0)));
    assert_eq!((held.noise, held.better), (Noise::Unknown, Some(false)));
    let latency = cell(&both, "connect_latency_us.p99", 1).difference.clone().unwrap();
    assert_eq!((latency.absolute, latency.better), (20.0, Some(false)));
    let rate = cell(&both, "rate_per_s", 1).difference.clone().unwrap();
    assert_eq!((rate.absolute, rate.better), (0.0, None));
    assert_eq!(cell(&both, "practical_max", 0).difference, None);
    // Nothing was asked, so there is no row of replies.
    assert!(both.rows.iter().all(|row| row.key != "reply_latency_us.p99"));
    assert!(both.changes.is_empty() && both.notes.is_empty());
}

#[test]
fn a_difference_is_held_against_the_intervals_of_both() {
    let steady = |name, held: f64| {
        repeated(
            run(name, 1, 80),
            &[held, held + 1.0, held + 2.0, held + 3.0, held + 4.0],
        )
    };
    let noise = |one: Named, other: Named| {
        let both = compare(&[one, other]);
        cell(&both, "practical_max", 1).difference.clone().unwrap().noise
    };
    let of = |held| steady("x", held);
    let interval = of(100.0).run.repeat.unwrap().practical_max.unwrap().interval;
    assert_eq!(interval, Some(Interval { low: 100.0, high: 104.0 }));
    assert_eq!(noise(of(100.0), of(104.0)), Noise::Within);
    assert_eq!(noise(of(100.0), of(105.0)), Noise::Exceeds);
    assert_eq!(noise(of(105.0), of(100.0)), Noise::Exceeds);
    let few = repeated(run("x", 1, 80), &[1.0; 4]);
    assert_eq!(noise(of(100.0), few), Noise::Unknown);
    // The median stands for what was repeated.
    let both = compare(&[of(100.0), of(105.0)]);
    assert_eq!(cell(&both, "practical_max", 1).number, Some(107.0));
}

#[test]
fn what_means_different_things_is_not_subtracted() {
    let mut other = run("b", 18_000, 100);
    other.run.result.level = Level::Confirmed;
    let both = compare(&[run("a", 20_000, 80), other.clone()]);
    assert_eq!(cell(&both, "practical_max", 1).difference, None);
    assert_eq!(cell(&both, "practical_max", 1).number, Some(18_000.0));
    assert!(cell(&both, "rate_per_s", 1).difference.is_some());
    let note = "a counts what is accepted, b what is confirmed: these maxima are not \
        compared";
    assert_eq!(both.notes, [note]);

    other.run.target.kind = TargetKind::Unix;
    let both = compare(&[run("a", 20_000, 80), other]);
    let subtracted = both.rows.iter().flat_map(|row| &row.cells);
    assert!(subtracted.clone().all(|cell| cell.difference.is_none()));
    assert!(both.notes[0].contains("different kinds"), "{:?}", both.notes);

    let mut slow = run("b", 20_000, 80);
    slow.run.plan.rate_per_s = Some(500.0);
    let both = compare(&[run("a", 20_000, 80), slow]);
    assert_eq!(cell(&both, "rate_per_s", 1).difference, None);
    assert!(cell(&both, "practical_max", 1).difference.is_some());
}

#[test]
fn what_changed_around_is_named_and_what_always_does_is_not() {
    let mut other = run("b", 20_000, 80);
    let environment = &mut other.run.environment;
    environment.kernel = "6.18.0".into();
    environment.sysctls.insert("net.core.somaxconn".into(), "128".into());
    environment.sysctls.insert("fs.file-max".into(), "9".into());
    environment.nofile_hard = Some(20_000);
    environment.file_nr = Some(77);
    environment.command = vec!["other".into()];
    other.run.plan.max = Some(5);
    let mut first = run("a", 20_000, 80);
    for (named, port) in [(&mut first, 7_000), (&mut other, 7_001)] {
        named.run.target.embedded = true;
        named.run.target.address = format!("127.0.0.1:{port}");
    }
    let both = compare(&[first, other]);
    let found: Vec<String> = both
        .changes
        .iter()
        .map(|change| {
            let values = change.values.iter();
            let values = values.map(|v| v.as_deref().unwrap_or("-")).collect::<Vec<_>>();
            format!("{}: {}", change.key, values.join(" "))
        })
        .collect();
    let expected = [
        "environment.kernel: 6.1.0 6.18.0",
        "environment.nofile_hard: - 20000",
        "environment.sysctls.fs.file-max: - 9",
        "environment.sysctls.net.core.somaxconn: 4096 128",
        "plan.max: - 5",
    ];
    assert_eq!(found, expected);
}

#[test]
fn it_reads_well_on_a_terminal_and_as_markdown() {
    let many = |n: f64| [n, n, n, n, n + 2.0];
    let mut other = repeated(run("b|c_d", 1, 100), &many(18_000.0));
    other.run.environment.kernel = "6.18.0".into();
    let both = compare(&[repeated(run("a", 1, 80), &many(20_000.0)), other]);
    let mut out = Vec::new();
    text(&mut out, &both).unwrap();
    let out = String::from_utf8(out).unwrap();
    for part in [
        "18,000 (-2,000, -10.0%; beyond the noise)",
        "100 µs (+20 µs, +25.0%; noise unknown)",
        "20,000/s (the same)",
        "a, 5 runs",
        "environment.kernel",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let samples = [Samples::default(), Samples::default()];
    let text = markdown::render(&page(&both, &samples.each_ref()), None).text;
    for part in [
        "**practical maximum: 20,000 → 18,000** (-2,000, -10.0%; beyond the noise)",
        "All were stopped by server.fd\\_limit.",
        "| what | a, 5 runs | b\\|c\\_d, 5 runs |",
        "| practical maximum | 20,000 | 18,000 (-2,000, -10.0%; beyond the noise) |",
        "| environment.kernel | 6.1.0 | 6.18.0 |",
        "No chart: no timeline has two samples.",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("noise unknown: how far"), "all were repeated: {text}");
    let json = serde_json::to_value(&both).unwrap();
    assert_eq!(json["schema"], "sockscope.compare/1");
    let row =
        json["rows"].as_array().unwrap().iter().find(|r| r["key"] == "practical_max");
    let cell = &row.unwrap()["cells"][1];
    assert_eq!(cell["difference"]["noise"], "exceeds");
    assert_eq!(cell["difference"]["better"], false);
}
