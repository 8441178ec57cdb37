//! `--no-worse-than BASELINE`: a run held against an earlier one.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{Finding, one_level};
use crate::record::{Run, SCHEMA, TargetKind};
use crate::report::measure::Measure;
use crate::report::noise::median;

/// How much worse a number may be, as a part of the baseline's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance(f64);

impl Default for Tolerance {
    fn default() -> Self {
        Self(0.05)
    }
}

impl FromStr for Tolerance {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "a tolerance is written 5%, from 0% to 100%";
        let percent = text.strip_suffix('%').ok_or(FORM)?.trim_end();
        let plain = percent.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let percent: f64 = percent.parse().ok().filter(|_| plain).ok_or(FORM)?;
        (0.0..=100.0).contains(&percent).then_some(Self(percent / 100.0)).ok_or(FORM)
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", (self.0 * 1e4).round() / 1e2)
    }
}

/// Why there is no baseline.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// It cannot be read.
    #[error("the baseline {} cannot be read: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no JSON, or not that of a run.
    #[error("the baseline {} is no run.json: {source}", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It is another document, or of a version that this program does not know.
    #[error("the baseline {} is no run that this version reads: its schema is {schema:?}, not {SCHEMA:?}", .path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// What it says that it is.
        schema: String,
    },
    /// It is a record of another kind, which has none of these numbers.
    #[error("the baseline {} is of `sockscope backlog`: it has no practical maximum", .path.display())]
    Backlog {
        /// The file.
        path: PathBuf,
    },
}

/// An earlier run.
#[derive(Debug, Clone)]
pub struct Baseline {
    name: String,
    run: Run,
    tolerance: Tolerance,
}

impl Baseline {
    /// Reads it: a run.json, or the folder that holds one.
    ///
    /// # Errors
    /// [`BaselineError`].
    pub fn load(path: &Path, tolerance: Tolerance) -> Result<Self, BaselineError> {
        let name = path.display().to_string();
        let path = if path.is_dir() { path.join("run.json") } else { path.to_owned() };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(source) => return Err(BaselineError::Read { path, source }),
        };
        let read = serde_json::from_slice::<serde_json::Value>(&text);
        let document = match read {
            Ok(document) => document,
            Err(source) => return Err(BaselineError::Json { path, source }),
        };
        let schema = document["schema"].as_str().unwrap_or_default();
        if schema != SCHEMA {
            return Err(BaselineError::Schema { path, schema: schema.to_owned() });
        }
        match serde_json::from_value::<Run>(document) {
            Ok(run) if run.backlog.is_some() => Err(BaselineError::Backlog { path }),
            Ok(run) => Ok(Self { name, run, tolerance }),
            Err(source) => Err(BaselineError::Json { path, source }),
        }
    }

    /// Holds a run against it; of several, the medians.
    #[must_use]
    pub fn check(&self, runs: &[Run]) -> Vec<Finding> {
        if let Err(why) = self.comparable(runs) {
            let requirement = format!("no worse than {}", self.name);
            return vec![Finding::new(requirement, false, why)];
        }
        Measure::ALL.into_iter().filter_map(|one| self.one(one, runs)).collect()
    }

    /// Whether it is of this kind of target, or why it does not compare.
    ///
    /// # Errors
    /// One line.
    pub fn is_of(&self, kind: TargetKind) -> Result<(), String> {
        let name = |kind: TargetKind| format!("{kind:?}").to_lowercase();
        differs("target.kind", &name(kind), &name(self.run.target.kind))
    }

    /// Whether the numbers mean the same, or why not.
    fn comparable(&self, runs: &[Run]) -> Result<(), String> {
        let [first, ..] = runs else { return Err("there is no run".into()) };
        let level = one_level(runs)?;
        let (then, now) = (&self.run, first);
        self.is_of(now.target.kind)?;
        differs("result.level", level, then.result.level.name())?;
        let asked = |run: &Run| {
            run.plan
                .rate_per_s
                .map_or("as fast as it goes".to_owned(), |r| format!("{r}/s"))
        };
        differs("plan.rate_per_s", &asked(now), &asked(then))
    }

    fn one(&self, measure: Measure, runs: &[Run]) -> Option<Finding> {
        let then = measure.best(&self.run)?;
        let Tolerance(part) = self.tolerance;
        let bound = match measure.more_is_better() {
            true => then * (1.0 - part),
            false => then * (1.0 + part),
        };
        let requirement = format!("{} no worse than {}", measure.key(), self.name);
        // A record that was repeated stands for all its repeats.
        let of_all = match runs {
            [one] => measure.estimate(one),
            _ => None,
        };
        let repeats = of_all.and_then(|_| Some(runs[0].repeat.as_ref()?.runs));
        let numbers: Option<Vec<f64>> = match of_all {
            Some(estimate) => Some(vec![estimate.median]),
            None => runs.iter().map(|run| measure.of(run)).collect(),
        };
        let Some(now) = numbers.as_deref().and_then(median) else {
            return Some(Finding::new(requirement, false, "not measured in this run"));
        };
        let met = if measure.more_is_better() { now >= bound } else { now <= bound };
        let unit = measure.unit();
        let it = match repeats.unwrap_or(runs.len() as u64) {
            1 => "it is".to_owned(),
            n => format!("the median of {n} runs is"),
        };
        let change = match then {
            0.0 => String::new(),
            _ => format!(" ({:+.1}%)", (now / then - 1.0) * 100.0),
        };
        let (now, then) = (unit.show(now), unit.show(then));
        let tolerance = self.tolerance;
        let found =
            format!("{it} {now} against {then}{change}; the tolerance is {tolerance}");
        Some(Finding::new(requirement, met, found))
    }
}

fn differs(what: &str, now: &str, then: &str) -> Result<(), String> {
    match now == then {
        true => Ok(()),
        false => Err(format!(
            "not comparable: {what} is {now} here and {then} in the baseline"
        )),
    }
}
