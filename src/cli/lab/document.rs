//! Experiments as JSON.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value};

use super::print::sentence;
use crate::host::{ProcRoot, environment};
use crate::lab::Done;
use crate::lab::bench::Place;
use crate::lab::experiment::{Chart, Experiment, Finding};
use crate::record::Environment;

const SCHEMA: &str = "sockscope.lab/1";

#[derive(Serialize)]
struct Document<'a, T> {
    schema: &'static str,
    /// `private`: a network namespace for each; `loopback`: the host's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<Environment>,
    experiments: &'a [T],
}

#[derive(Serialize)]
struct Listed {
    number: u8,
    id: &'static str,
    claim: &'static str,
    trial: &'static str,
}

#[derive(Serialize)]
struct Made<'a> {
    #[serde(flatten)]
    experiment: Listed,
    /// Null where it was not tried.
    finding: Option<Finding>,
    why: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    numbers: Option<&'a Map<String, Value>>,
    moments: Vec<Then<'a>>,
    charts: &'a [Chart],
    left_out: &'a [String],
    took_s: f64,
}

#[derive(Serialize)]
struct Then<'a> {
    when: &'a str,
    total: usize,
    sockets: &'a [Value],
}

fn listed(experiment: &Experiment) -> Listed {
    let &Experiment { number, id, claim, trial, .. } = experiment;
    Listed { number, id, claim, trial }
}

pub(super) fn list(out: &mut impl Write, all: &[&Experiment]) -> io::Result<()> {
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

pub(super) fn write(out: &mut impl Write, place: Place, all: &[Done]) -> io::Result<()> {
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

/// This host.
pub(super) fn here() -> Environment {
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
            Err(why) => sentence(why),
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
