//! The whole matrix of slow links: does a probe count what the server has, whatever the
//! network is like? Needs root. Writes results/phantoms.md.
//!
//! ```text
//! cargo bench --bench phantoms                            # all cells, 20 trials each
//! cargo bench --bench phantoms -- rtt=200 v6 drained      # the cells of that name
//! cargo bench --bench phantoms -- --trials 3 --links 32 --to FILE --program PATH
//! ```
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[allow(dead_code, unused_imports)]
#[path = "../tests/fixtures/mod.rs"]
mod fixtures;
#[allow(dead_code)]
#[path = "../tests/phantoms/mod.rs"]
mod phantoms;

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use fixtures::relay::{Shape, SlowLink};
use phantoms::cell::Cell;
use phantoms::trial::{LATE, Outcome, prepare, trial_on_time};

/// Trials that are described at length, at most.
const DESCRIBED: usize = 20;

struct Options {
    trials: u32,
    links: usize,
    to: Option<PathBuf>,
    words: Vec<String>,
}

/// None where nothing is to be run: `cargo test --all-targets` starts this too.
fn options() -> Option<Options> {
    let mut options = Options { trials: 20, links: 128, to: None, words: Vec::new() };
    let mut is_bench = false;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg} needs a value"));
        match arg.as_str() {
            "--bench" => is_bench = true,
            "--trials" => options.trials = value().parse().unwrap(),
            "--links" => options.links = value().parse().unwrap(),
            "--to" => options.to = Some(value().into()),
            "--program" => {
                let program = std::fs::canonicalize(value()).unwrap();
                phantoms::trial::PROGRAM.set(program).unwrap();
            }
            word if word.contains('-') => panic!("unknown: {word}"),
            word => options.words.push(word.to_owned()),
        }
    }
    is_bench.then_some(options)
}

fn main() -> ExitCode {
    let Some(options) = options() else { return ExitCode::SUCCESS };
    let cells: Vec<Cell> =
        Cell::all().into_iter().filter(|cell| cell.matches(&options.words)).collect();
    let begin = Instant::now();
    let Some((rows, again)) = run_all(&cells, &options) else { return ExitCode::FAILURE };
    let text = write(&rows, &options, again, begin.elapsed());
    let whole = options.words.is_empty() && options.trials >= 20;
    match (&options.to, whole) {
        (Some(path), _) => std::fs::write(path, &text).unwrap(),
        (None, true) => std::fs::write("results/phantoms.md", &text).unwrap(),
        (None, false) => print!("{text}"),
    }
    let wrong = rows.iter().filter(|row| row.is_wrong()).count();
    println!("{} cells, {wrong} wrong, {} s", rows.len(), begin.elapsed().as_secs());
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Row {
    cell: Cell,
    outcomes: Vec<Outcome>,
}

impl Row {
    fn sum(&self, of: impl Fn(&Outcome) -> usize) -> usize {
        self.outcomes.iter().map(of).sum()
    }

    /// The least and the most.
    fn range(&self, of: impl Fn(&Outcome) -> u64) -> String {
        let all = || self.outcomes.iter().map(&of);
        match (all().min().unwrap_or(0), all().max().unwrap_or(0)) {
            (least, most) if least == most => least.to_string(),
            (least, most) => format!("{least}–{most}"),
        }
    }

    /// The errors that the tool's own statements allow for, with what chance adds.
    fn allowed(&self) -> f64 {
        let mean: f64 = self.outcomes.iter().map(Outcome::allowed).sum();
        if self.cell.loss == 0 { 0.0 } else { mean + 3.0 * mean.sqrt() }
    }

    fn is_wrong(&self) -> bool {
        let miscounts = |o: &Outcome| usize::from(o.miscount > 0 && self.cell.loss == 0);
        self.sum(Outcome::errors) as f64 > self.allowed() || self.sum(miscounts) > 0
    }
}

/// All trials of all cells, many cells side by side, and how many had to be made again.
/// None without the rights.
fn run_all(cells: &[Cell], options: &Options) -> Option<(Vec<Row>, usize)> {
    let (next, again) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let rows: Vec<Mutex<Vec<Outcome>>> =
        cells.iter().map(|_| Mutex::new(Vec::new())).collect();
    let work = || {
        let link = SlowLink::new(Shape::default())?;
        while let Some(cell) = cells.get(next.fetch_add(1, Relaxed)) {
            prepare(&link, cell);
            let row = cells.iter().position(|other| other == cell)?;
            for number in 0..options.trials {
                let (outcome, often) = trial_on_time(&link, cell, number);
                again.fetch_add(often, Relaxed);
                if !outcome.detail.is_empty() {
                    eprintln!("{cell}, trial {number}: {}", outcome.summary());
                }
                rows[row].lock().unwrap().push(outcome);
            }
        }
        Some(())
    };
    let able = thread::scope(|scope| {
        let links = options.links.min(cells.len());
        let workers: Vec<_> = (0..links).map(|_| scope.spawn(work)).collect();
        workers.into_iter().all(|worker| worker.join().unwrap().is_some())
    });
    let row = |(cell, outcomes): (&Cell, Mutex<Vec<Outcome>>)| Row {
        cell: *cell,
        outcomes: outcomes.into_inner().unwrap(),
    };
    able.then(|| (cells.iter().zip(rows).map(row).collect(), again.into_inner()))
}

fn write(rows: &[Row], options: &Options, again: usize, took: Duration) -> String {
    let wrong: Vec<&Row> = rows.iter().filter(|row| row.is_wrong()).collect();
    let trials: usize = rows.iter().map(|row| row.outcomes.len()).sum();
    let late =
        rows.iter().map(|row| row.sum(|o| usize::from(o.late >= LATE))).sum::<usize>();
    let longest = rows.iter().flat_map(|row| &row.outcomes).map(|o| o.took).max();
    let mut out = format!(
        "# Phantoms: what a probe counts over a slow link\n\n\
         Written by `cargo bench --bench phantoms`. Each trial is `sockscope probe` of 300 \
         dials, as fast as they go, `--evidence none`, against `listen(128)` in another \
         network namespace, over a relay that delays and loses packets. *expected* is \
         what the server's own table has at the moment when the probe begins to close, \
         queued and accepted; *counted* is what the probe says. *false +* are connections \
         that the probe counts and the server does not have, *false −* the reverse, \
         *undelivered* those that were counted and whose client's last segment did not \
         reach the application in order. With loss the tool states how often it errs; \
         *allowed* is what that comes to, with three standard deviations. *left* are those that the probe \
         gave up by RST and the server has to the end: a RST may be lost, and is not sent \
         again. *full*: the \
         server accepts nothing; *drained*: it empties its full queue once, 0.1 to 3 s \
         after it was full.\n\n\
         {} on Linux {}: {} cells, {trials} trials (at most {} links side by side), \
         {} s; the longest trial {:.1} s. {again} trials were made again because the \
         machine was too busy for the relay to keep its time (more than {} ms late, once \
         in a trial); {late} of those in the table were late all the same. **{} cells are \
         wrong.**\n\n",
        humantime::format_rfc3339_seconds(SystemTime::now()),
        std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim(),
        rows.len(),
        options.links,
        took.as_secs(),
        longest.unwrap_or_default().as_secs_f64(),
        LATE.as_millis(),
        wrong.len(),
    );
    write_table(&mut out, rows);
    let faulty = wrong.iter().flat_map(|row| {
        let bad = row.outcomes.iter().enumerate().filter(|(_, o)| !o.detail.is_empty());
        bad.map(|(number, outcome)| (row.cell, number, outcome)).take(2)
    });
    for (cell, number, outcome) in faulty.take(DESCRIBED) {
        let (summary, detail) = (outcome.summary(), &outcome.detail);
        let _ =
            write!(out, "\n{cell}, trial {number}: {summary}\n\n```text\n{detail}```\n");
    }
    out
}

fn write_table(out: &mut String, rows: &[Row]) {
    *out += "| cell | trials | expected | counted | established | false + | false − | \
             undelivered | left | allowed | |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|\n";
    for row in rows {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.1} | {} |",
            row.cell,
            row.outcomes.len(),
            row.range(|o| o.expected as u64),
            row.range(|o| o.counted),
            row.range(|o| o.established),
            row.sum(|o| o.false_positives),
            row.sum(|o| o.false_negatives),
            row.sum(|o| o.undelivered),
            row.sum(|o| o.left),
            row.allowed(),
            if row.is_wrong() { "**wrong**" } else { "" },
        );
    }
}
