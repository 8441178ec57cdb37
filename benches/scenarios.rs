//! Plays the scenarios of real servers and writes what was found to results/scenarios.md.
//! Needs root and the packages that `./check` installs; about three minutes.
//!
//! ```text
//! cargo bench --bench scenarios                 # all of them
//! cargo bench --bench scenarios -- nginx Redis  # those with one of these in their name
//! ```
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[allow(dead_code, unused_imports)]
#[path = "../tests/fixtures/mod.rs"]
mod fixtures;
#[allow(dead_code)]
#[path = "../tests/scenarios/real/mod.rs"]
mod real;

use std::fmt::Write;
use std::panic::catch_unwind;
use std::process::{Command, ExitCode};
use std::time::SystemTime;

const TO: &str = "results/scenarios.md";

fn main() -> ExitCode {
    let names: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let is_wanted = |scenario: &&real::Scenario| {
        names.is_empty() || names.iter().any(|part| scenario.name.contains(part))
    };
    let (mut rows, mut bad) = (String::new(), 0);
    for scenario in real::all().filter(is_wanted) {
        eprintln!("{}", scenario.name);
        let row = match catch_unwind(|| scenario.play()) {
            Ok(Some(row)) => row.to_string(),
            Ok(None) => format!("| {} | not played: see above | | | |", scenario.name),
            Err(_) => {
                bad += 1;
                format!("| {} | **failed** | | | |", scenario.name)
            }
        };
        writeln!(rows, "{row}").unwrap();
    }
    let text = format!("{}{rows}", heading());
    if names.is_empty() {
        std::fs::write(TO, text).unwrap();
        println!("{TO}");
    } else {
        print!("{text}");
    }
    ExitCode::from(u8::from(bad > 0))
}

fn heading() -> String {
    let kernel = Command::new("uname").arg("-sr").output().unwrap().stdout;
    let kernel = String::from_utf8(kernel).unwrap();
    let day = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    format!(
        "# What is found of real servers

Each has its limit set low, in a network namespace of its own. It is probed on its host
(*here*), and from another namespace that sees its packets alone (*from outside*,
`--evidence none`): there several causes look the same, and the truth is the verdict or
stands under its alternatives. Then the remedy is applied, and it is probed again
(*remedy*: how many were held before and after; 150, 200 and 300 are often all that was
asked for then).

Made by `cargo bench --bench scenarios`, {}, {}.

| scenario | expected | here | from outside | remedy |
|---|---|---|---|---|
",
        kernel.trim(),
        &day[..10]
    )
}
