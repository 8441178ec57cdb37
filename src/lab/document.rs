//! Experiments as a JSON document.

use std::io::{self, Write};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::Done;
use super::bench::Place;
use super::experiment::{Chart, Experiment, Finding};
use crate::host::{ProcRoot, environment};
use crate::record::{Environment, schema_of};

/// What a document of experiments says that it is.
pub const SCHEMA: &str = "sockscope.lab/1";

/// Experiments: those that there are, or those that were made.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Lab")]
struct Document<'a, T> {
    /// `sockscope.lab/1`.
    schema: &'static str,
    /// `private`: a network namespace for each experiment; `loopback`: the host's own.
    /// Not in a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<&'static str>,
    /// Where they were made. Not in a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<Environment>,
    /// In the order of their numbers.
    experiments: &'a [T],
}

/// An experiment.
#[derive(Serialize, JsonSchema)]
struct Listed {
    /// From 1.
    number: u8,
    /// Its name on the command line.
    id: &'static str,
    /// What is said.
    claim: &'static str,
    /// How it is tried.
    trial: &'static str,
}

/// An experiment that was made.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Experiment")]
struct Made<'a> {
    #[serde(flatten)]
    experiment: Listed,
    /// What the trial says of the claim; null where it could not be made.
    finding: Option<Finding>,
    /// One paragraph: why that is so, or why it could not be made.
    why: String,
    /// What was measured: the names end with their units. Not there where it could not
    /// be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    numbers: Option<&'a Map<String, Value>>,
    /// The socket table at the decisive moments.
    moments: Vec<Then<'a>>,
    /// What is better seen than read.
    charts: &'a [Chart],
    /// What could not be tried here, and why.
    left_out: &'a [String],
    /// How long it took.
    took_s: f64,
}

/// The socket table at a moment.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Moment")]
struct Then<'a> {
    /// When it was read.
    when: &'a str,
    /// How many sockets there were; more than there are rows where they were too many.
    total: usize,
    /// Rows, as socket.schema.json has them.
    sockets: &'a [Value],
}

/// The schema of the document that `sockscope lab --format json` prints.
#[must_use]
pub fn schema() -> schemars::Schema {
    schema_of::<Document<'static, Made<'static>>>()
}

fn listed(experiment: &Experiment) -> Listed {
    let &Experiment { number, id, claim, trial, .. } = experiment;
    Listed { number, id, claim, trial }
}

/// Writes a list of experiments.
///
/// # Errors
/// What writing gives.
pub fn list(out: &mut impl Write, all: &[&Experiment]) -> io::Result<()> {
    let experiments: Vec<Listed> = all.iter().map(|one| listed(one)).collect();
    put(
        out,
        &Document {
            schema: SCHEMA,
            place: None,
            environment: None,
            experiments: &experiments,
        },
    )
}

/// Writes what came of experiments.
///
/// # Errors
/// What writing gives.
pub fn write(out: &mut impl Write, place: Place, all: &[Done]) -> io::Result<()> {
    let experiments: Vec<Made> = all.iter().map(made).collect();
    put(
        out,
        &Document {
            schema: SCHEMA,
            place: Some(place.name()),
            environment: Some(here()),
            experiments: &experiments,
        },
    )
}

/// This host, and the command line.
#[must_use]
pub fn here() -> Environment {
    environment::environment(&ProcRoot::default(), std::env::args_os())
}

fn made(done: &Done) -> Made<'_> {
    let outcome = done.outcome.as_ref().ok();
    let moments = outcome.map_or(&[][..], |outcome| &outcome.moments);
    Made {
        experiment: listed(done.experiment),
        finding: outcome.map(|outcome| outcome.finding),
        why: match &done.outcome {
            Ok(outcome) => outcome.why.clone(),
            Err(why) => why.sentence(),
        },
        numbers: outcome.map(|outcome| &outcome.numbers),
        moments: moments
            .iter()
            .map(|one| Then { when: &one.when, total: one.total, sockets: &one.sockets })
            .collect(),
        charts: outcome.map_or(&[], |outcome| &outcome.charts),
        left_out: outcome.map_or(&[], |outcome| &outcome.left_out),
        took_s: done.took.as_secs_f64(),
    }
}

fn put(out: &mut impl Write, document: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, document)?;
    writeln!(out)
}
