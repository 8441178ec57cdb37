//! `sockscope lab`: what is said of sockets, checked against this kernel.

mod page;
mod print;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

use clap::ValueEnum;

use super::ending::{closed_pipe_is_fine, heed_signals};
use super::exit::{Exit, Failure};
use super::output::Output;
use crate::lab::bench::{Bench, Place};
use crate::lab::experiment::{Experiment, Unable};
use crate::lab::{self, Done, document};
use crate::render::plural;

/// Check what is said of sockets against this kernel
///
/// Each claim is an experiment of a few seconds, in a network namespace of its own where
/// this host allows one (as root, or as an ordinary user by a user namespace), else on
/// loopback. EXPERIMENT is the number or the name of one; without it, all are made.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Numbers or names of experiments [default: all]
    #[arg(value_name = "EXPERIMENT")]
    experiments: Vec<String>,

    /// List the experiments and their claims, and make none
    #[arg(long)]
    list: bool,

    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// The same as --format json
    #[arg(short, long = "json", conflicts_with = "format")]
    json: bool,

    /// Write a report: FILE.html, FILE.md, or both into a folder
    #[arg(long, value_name = "PATH", conflicts_with = "list")]
    report: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

pub(super) fn run(args: &Args, output: Output) -> Result<Exit, Failure> {
    let chosen = choose(&args.experiments)?;
    let is_json = args.json || args.format == Format::Json;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if let Some(to) = &args.report {
        page::fits(to)?;
    }
    if args.list {
        let listed = match is_json {
            true => document::list(&mut out, &chosen),
            false => print::list(&mut out, &chosen),
        };
        closed_pipe_is_fine(listed.and_then(|()| out.flush()))?;
        return Ok(Exit::Done);
    }
    // Before anything starts a thread: what comes may move this process.
    let (place, why) = Place::prepare();
    if let Some(why) = why {
        output.note(&format!(
            "no network namespace of its own ({why}): on this host's loopback, without \
             what needs one"
        ));
    }
    let interrupted = heed_signals()?;
    let program = std::env::current_exe().map_err(|error| {
        Failure::lacking(anyhow::Error::new(error).context("this program's own file"))
    })?;
    let bench = Bench::new(place, &program, &interrupted);
    let mut all = Vec::new();
    let color = output.colors_stdout();
    for experiment in chosen {
        if !is_json && all.is_empty() {
            output.detail(&format!("in {}", place.words()));
        }
        let done = lab::make(experiment, &bench);
        let stop = matches!(done.outcome, Err(Unable::Interrupted));
        if !is_json && !stop {
            closed_pipe_is_fine(
                print::done(&mut out, &done, color).and_then(|()| out.flush()),
            )?;
        }
        all.push(done);
        if stop || interrupted.load(Relaxed) {
            break;
        }
    }
    let printed = match is_json {
        true => document::write(&mut out, place, &all),
        false => print::sum(&mut out, &all),
    };
    closed_pipe_is_fine(printed.and_then(|()| out.flush()))?;
    if let Some(to) = &args.report {
        for path in page::write(to, place, &all)? {
            output.note(&format!("report: {path}"));
        }
    }
    Ok(exit(&all, interrupted.load(Relaxed)))
}

fn exit(all: &[Done], interrupted: bool) -> Exit {
    match all.iter().any(|done| done.outcome.is_ok()) {
        _ if interrupted => Exit::Interrupted,
        true => Exit::Done,
        false => Exit::Lacking,
    }
}

/// The experiments of these names, in the order of their numbers.
fn choose(names: &[String]) -> Result<Vec<&'static Experiment>, Failure> {
    let mut chosen = Vec::new();
    for name in names {
        chosen.push(lab::find(name).ok_or_else(|| {
            let all = plural(lab::ALL.len() as u64, "experiment");
            Failure::usage(format!(
                "there is no experiment '{name}'; `sockscope lab --list` shows {all}"
            ))
        })?);
    }
    if chosen.is_empty() {
        chosen.extend(lab::ALL);
    }
    chosen.sort_by_key(|one| one.number);
    chosen.dedup_by_key(|one| one.number);
    Ok(chosen)
}
