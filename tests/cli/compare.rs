//! Recorded runs side by side.

use sockscope::record::Run;
use sockscope::report::compare::{Named, Noise, compare, text};
use sockscope::report::gate::Requirement;

use crate::fixtures::Server;
use crate::fixtures::probing::{Records, stdout, with_fd_limit};

/// The run that these arguments leave, of the record that has the repeats.
fn recorded(name: &str, limit: u64, server: &Server, args: &[&str]) -> Named {
    let records = Records::new();
    let args = [&[&*server.address, "--hold", "0s"], args].concat();
    let probe = records.probe_by(with_fd_limit(limit), &args).output().unwrap();
    stdout(&probe, 0);
    let runs = records.runs().into_iter().map(|folder| {
        let text = std::fs::read(folder.join("run.json")).unwrap();
        serde_json::from_slice::<Run>(&text).unwrap()
    });
    let last = runs.max_by_key(|run| run.repeat.as_ref().map(|repeat| repeat.runs));
    Named { name: name.into(), run: last.unwrap() }
}

#[test]
fn two_probes_that_were_repeated_differ_by_more_than_the_noise() {
    let server = Server::start(&[]);
    let five = ["--repeat", "5", "--max"];
    let small = recorded("small", 1024, &server, &[&five[..], &["20"]].concat());
    let large = recorded("large", 2048, &server, &[&five[..], &["30"]].concat());
    let once = recorded("once", 1024, &server, &["--max", "30"]);
    let all = compare(&[small, large, once]);
    let held = all.rows.iter().find(|row| row.key == "practical_max").unwrap();
    let difference = |n: usize| held.cells[n].difference.clone().unwrap();
    assert_eq!((difference(1).absolute, difference(1).percent), (10.0, Some(50.0)));
    assert_eq!((difference(1).noise, difference(1).better), (Noise::Exceeds, Some(true)));
    assert_eq!(difference(2).noise, Noise::Unknown);
    let changed = |key: &str| {
        let change = all.changes.iter().find(|change| change.key == key);
        let change = change.unwrap_or_else(|| panic!("no {key} in {:?}", all.changes));
        change.values.iter().map(|v| v.clone().unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!(changed("environment.nofile_hard"), ["1024", "2048", "1024"]);
    assert_eq!(changed("plan.max"), ["20", "30", "30"]);
    // Nothing else changed on this host from one to the next.
    assert_eq!(all.changes.len(), 3, "{:?}", all.changes);
    assert_eq!(changed("environment.nofile_soft"), ["1024", "2048", "1024"]);
    let mut printed = Vec::new();
    text(&mut printed, &all).unwrap();
    let printed = String::from_utf8(printed).unwrap();
    assert!(printed.contains("30 (+10, +50.0%; beyond the noise)"), "{printed}");
    // One of them was not repeated.
    assert!(printed.contains("note: noise unknown: "), "{printed}");
}

#[test]
fn runs_of_different_levels_are_shown_and_not_subtracted() {
    let server = Server::start(&[]);
    let seen = recorded("seen", 1024, &server, &["--max", "20"]);
    let unseen =
        recorded("unseen", 1024, &server, &["--max", "25", "--evidence", "none"]);
    let both = compare(&[seen.clone(), unseen.clone()]);
    let held = both.rows.iter().find(|row| row.key == "practical_max").unwrap();
    assert_eq!((held.cells[1].number, &held.cells[1].difference), (Some(25.0), &None));
    assert_eq!(both.notes.len(), 1, "{:?}", both.notes);
    let require = Requirement::parse("practical_max >= 20").unwrap();
    let together = require.check(&[seen.run, unseen.run]);
    assert!(!together.met && together.found.contains("different levels"), "{together:?}");
}
