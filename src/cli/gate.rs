//! The gate: what a run has to meet, on the command line.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure, complain};
use super::output::Output;
use crate::record::{Record, Run, TargetKind};
use crate::render::plural;
use crate::report::gate::{Baseline, Finding, Requirement, Tolerance, junit};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Requirements: exit code 1 where one is not met")]
pub(super) struct GateArgs {
    /// A key of run.json, and what it has to be: 'practical_max >= 10k',
    /// 'connect_latency_us.p99 < 50ms', 'phantoms.total = 0', 'verdict.code = requested';
    /// operators are >= <= > < = !=; repeatable
    #[arg(long, value_name = "EXPR", value_parser = Requirement::parse)]
    require: Vec<Requirement>,

    /// practical_max, rate and p99 latencies have to be as good as in this run: a
    /// run.json, or the folder that holds it
    #[arg(long, value_name = "BASELINE")]
    no_worse_than: Option<PathBuf>,

    /// How much worse than BASELINE is still good enough [default: 5%]
    #[arg(long, value_name = "PERCENT", value_parser = tolerance, requires = "no_worse_than")]
    tolerance: Option<Tolerance>,

    /// Write what was met and what was not as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

fn tolerance(text: &str) -> Result<Tolerance, &'static str> {
    text.parse()
}

/// What runs are held against, ready to be checked.
#[derive(Debug)]
pub(super) struct Gate<'a> {
    args: &'a GateArgs,
    baseline: Option<Baseline>,
}

impl GateArgs {
    /// Finds what is wrong before anything is opened: a baseline that is none, a file that
    /// cannot be written.
    /// `kind` is that of the target, where it is known already.
    pub(super) fn prepare(&self, kind: Option<TargetKind>) -> Result<Gate<'_>, Failure> {
        let tolerance = self.tolerance.unwrap_or_default();
        let load = |path: &PathBuf| Baseline::load(path, tolerance);
        let baseline = self.no_worse_than.as_ref().map(load).transpose();
        let baseline = baseline.map_err(Failure::usage)?;
        if let Some((baseline, kind)) = baseline.as_ref().zip(kind) {
            baseline.is_of(kind).map_err(|why| {
                Failure::usage(format!("{} is {why}", self.name_of_baseline()))
            })?;
        }
        if let Some(path) = &self.junit {
            if self.require.is_empty() && baseline.is_none() {
                return Err(Failure::usage(
                    "--junit has nothing to tell of: give --require or --no-worse-than",
                ));
            }
            let is_new = !path.exists();
            let opened = OpenOptions::new().append(true).create(true).open(path);
            opened.map_err(|error| Failure::usage(unwritable(path, &error)))?;
            if is_new {
                // Without a run there is nothing to tell: an empty file is no XML. Where
                // it cannot be removed, it is empty.
                let _ = fs::remove_file(path);
            }
        }
        Ok(Gate { args: self, baseline })
    }

    /// Whether anything is required.
    pub(super) fn is_asked_for(&self) -> bool {
        !self.require.is_empty() || self.no_worse_than.is_some() || self.junit.is_some()
    }

    fn name_of_baseline(&self) -> String {
        let path = self.no_worse_than.as_deref();
        path.map_or_else(String::new, |path| path.display().to_string())
    }

    /// All of --require, for the record.
    pub(super) fn text(&self) -> Option<String> {
        let all: Vec<String> = self.require.iter().map(ToString::to_string).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> String {
    format!("the JUnit file {} cannot be written: {error}", path.display())
}

impl Gate<'_> {
    /// Holds a run, or several of one probe, against all that was asked for: says on
    /// stderr what is not met, a line each, and writes the JUnit file.
    pub(super) fn check(&self, runs: &[Run], output: &Output) -> Result<Exit, Failure> {
        let each = self.args.require.iter().map(|require| require.check(runs));
        let compared = self.baseline.iter().flat_map(|baseline| baseline.check(runs));
        let findings: Vec<Finding> = each.chain(compared).collect();
        for Finding { requirement, found, .. } in findings.iter().filter(|f| !f.met) {
            complain(format_args!("not met: {requirement}: {found}"));
        }
        let target = runs.first().map_or("", |run| &run.target.address);
        let seconds = runs.iter().map(|run| run.result.duration_s).sum();
        self.write_junit(&findings, target, seconds)?;
        if findings.iter().any(|finding| !finding.met) {
            return Ok(Exit::Unmet);
        }
        match findings.len() as u64 {
            0 => {}
            1 => output.note("the requirement is met"),
            n => output.note(&format!("all {} are met", plural(n, "requirement"))),
        }
        Ok(Exit::Done)
    }

    /// Says that a record which was cut off meets nothing: without its run.json there are
    /// no numbers. One line on stderr; the JUnit file has each requirement.
    pub(super) fn check_cut_off(&self, record: &Record) -> Result<Exit, Failure> {
        const WHY: &str = "the record was cut off: it has no run.json, and so no numbers";
        complain(format_args!("not met: {}: {WHY}", record.path.display()));
        let each = self.args.require.iter().map(ToString::to_string);
        let baseline = self
            .baseline
            .iter()
            .map(|_| format!("no worse than {}", self.args.name_of_baseline()));
        let unmet = |requirement| Finding { requirement, met: false, found: WHY.into() };
        let findings: Vec<Finding> = each.chain(baseline).map(unmet).collect();
        self.write_junit(&findings, &record.target(), 0.0)?;
        Ok(Exit::Unmet)
    }

    fn write_junit(
        &self,
        findings: &[Finding],
        target: &str,
        seconds: f64,
    ) -> Result<(), Failure> {
        let Some(path) = &self.args.junit else { return Ok(()) };
        fs::write(path, junit(findings, target, seconds)).map_err(|error| {
            Failure::lacking(anyhow::anyhow!("{}", unwritable(path, &error)))
        })
    }
}
