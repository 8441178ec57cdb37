//! `sockscope backlog`: accept queues, listed or watched without any load, or measured by
//! connections that are made.

mod args;
mod attach;
mod burst;
pub(super) mod freeze;
mod list;
mod loads;
mod observe;
mod print;
mod record;
mod stream;
mod summary;

use std::io::{self, Write};

pub(super) use args::Args;
use args::Format;
use record::Recorder;
pub(super) use summary::write as write_watched;

use super::ending::{closed_pipe_is_fine, heed_signals};
use super::exit::{Exit, Failure};
use super::output::Output;
use crate::backlog::report::Asked;
use crate::host::ProcRoot;
use crate::record::backlog::BacklogDoc;

/// Runs the command.
pub(super) fn run(args: &Args, output: Output) -> Result<Exit, Failure> {
    args.check().map_err(Failure::usage)?;
    if let Some(target) = &args.target {
        if args.burst.is_asked_for() {
            return burst::run(args, target, &output);
        }
        if args.freeze.freeze {
            return freeze::run(args, target, &output);
        }
    }
    match (&args.target, args.format()) {
        (None, _) => list::run(args, &output),
        (Some(target), Format::Ndjson) => stream::run(args, target),
        (Some(target), Format::Csv | Format::Openmetrics) => {
            list::run_of(args, target, &output)
        }
        (Some(target), Format::Table | Format::Json) => {
            observe::run(args, target, &output)
        }
    }
}

/// Writes the record of what was learned, and prints it, notes first.
fn conclude(
    args: &Args,
    asked: &Asked,
    mut document: BacklogDoc,
    recorder: Recorder,
    output: &Output,
) -> Result<(), Failure> {
    let root = ProcRoot::new(&args.proc_root);
    let recorded = recorder.finish(asked, &mut document, &root);
    for warning in &document.warnings {
        output.note(&warning.message);
    }
    closed_pipe_is_fine(match args.format() {
        Format::Json => print_json(&document),
        _ => summary::print(&document, recorded.as_deref(), output),
    })
}

/// Prints a document.
fn print_json(document: &BacklogDoc) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, document)?;
    writeln!(out)?;
    out.flush()
}
