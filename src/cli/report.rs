//! `sockscope report`: recorded runs, for people and for programs.

mod compared;
mod many;
mod one;
mod write;

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::exit::{Exit, Failure};
use super::gate::GateArgs;
use super::output::Output;
use crate::record::{Record, read};
use crate::report::Input;
use crate::report::list::Listed;
pub(super) use write::write_beside;

/// Where runs are, unless another place is named.
const RUNS: &str = "results/runs";

/// Show recorded runs: a page, Markdown, JSON, or the summary again
///
/// RUN is the folder of a run, its run.json, or what probe -j printed; without RUN, the
/// newest under results/runs. A folder of runs (results/runs/) lists them. Two or more
/// probes are compared, each with the first. One probe with what limits -j and backlog
/// TARGET -j printed of its target, or with runs of backlog, is one report of its capacity.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folders of runs, files, or a folder with many [default: the newest run]
    #[arg(value_name = "RUN")]
    runs: Vec<PathBuf>,

    #[command(flatten)]
    form: Form,

    #[command(flatten)]
    gate: GateArgs,
}

/// What is written, and where.
#[derive(Debug, clap::Args)]
struct Form {
    /// How to print [default: by the ending of -o, else text]
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// The same as --format json
    #[arg(short, long = "json", conflicts_with = "format")]
    json: bool,

    /// Write to FILE; with md, its charts into a folder beside it
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Only runs whose target, as it was typed or dialed, contains TEXT
    #[arg(long, value_name = "TEXT")]
    target: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Html,
    Md,
    Json,
}

impl Form {
    fn format(&self) -> Format {
        if self.json {
            return Format::Json;
        }
        let ending = self.output.as_deref().and_then(Path::extension);
        self.format.unwrap_or_else(|| match ending.and_then(|e| e.to_str()) {
            Some("html" | "htm") => Format::Html,
            Some("md") => Format::Md,
            Some("json") => Format::Json,
            _ => Format::Text,
        })
    }
}

/// Runs the command.
pub(super) fn run(args: &Args, output: Output) -> Result<Exit, Failure> {
    let named = match args.runs.is_empty() {
        true => vec![newest(args.form.target.as_deref())?],
        false => args.runs.clone(),
    };
    if named.iter().any(|path| is_many(path)) {
        needs_one(&args.gate)?;
        return many::run(&args.form, &named, output);
    }
    let read = |path: &PathBuf| Input::read(path).map_err(Failure::usage);
    let inputs: Vec<Input> = named.iter().map(read).collect::<Result<_, _>>()?;
    let (subjects, beside) = subjects(inputs);
    if let [record] = &subjects[..] {
        return gated(args, record, beside, output);
    }
    needs_one(&args.gate)?;
    if subjects.is_empty() {
        return Err(Failure::usage(
            "none of these is a run: name one, and these beside it",
        ));
    }
    if subjects.iter().all(is_watch) {
        return many::run(&args.form, &named, output);
    }
    if !beside.is_empty() {
        return Err(Failure::usage(
            "several probes are a comparison, and one probe with what limits and backlog \
             say of its target is a report of its capacity: name one probe, or probes alone",
        ));
    }
    compared::run(&args.form, &subjects, output)
}

/// One run, and whether it meets what is required of it.
fn gated(
    args: &Args,
    record: &Record,
    beside: Vec<Input>,
    output: Output,
) -> Result<Exit, Failure> {
    if !args.gate.is_asked_for() {
        return one::run(&args.form, record, beside, output);
    }
    if is_watch(record) {
        return Err(Failure::usage(format_args!(
            "{} is of `sockscope backlog`: requirements are held against a probe",
            record.path.display()
        )));
    }
    let kind = record.run.as_ref().map(|run| run.target.kind);
    let gate = args.gate.prepare(kind)?;
    match one::run(&args.form, record, beside, output)? {
        Exit::Done => match &record.run {
            Some(run) => gate.check(std::slice::from_ref(run), &output),
            None => gate.check_cut_off(record),
        },
        other => Ok(other),
    }
}

/// Refuses requirements where there is more than one run.
fn needs_one(gate: &GateArgs) -> Result<(), Failure> {
    match gate.is_asked_for() {
        false => Ok(()),
        true => Err(Failure::usage(
            "requirements are held against one run: name one; --no-worse-than has the other",
        )),
    }
}

/// The newest run where runs are recorded.
fn newest(target: Option<&str>) -> Result<PathBuf, Failure> {
    let root = Path::new(RUNS);
    let runs = match root.is_dir() {
        true => read::runs_in(root).map_err(Failure::usage)?,
        false => Vec::new(),
    };
    let newest = |of: &[&PathBuf]| {
        let dated = of.iter().filter_map(|path| Some((Record::read(path).ok()?, *path)));
        let dated = dated.map(|(record, path)| (record.started(), path));
        dated.max_by_key(|(started, _)| *started).map(|(_, path)| path.clone())
    };
    match target {
        // Names have the second: of those of the last one, the record tells.
        None => {
            let last = runs.last().and_then(|path| second(path));
            let of_it: Vec<&PathBuf> =
                runs.iter().filter(|path| second(path) == last).collect();
            newest(&of_it).or_else(|| runs.last().cloned()).ok_or_else(|| {
                Failure::usage(format_args!(
                    "no run in {RUNS}; sockscope probe records one"
                ))
            })
        }
        Some(text) => {
            let is_of = |path: &&PathBuf| {
                Record::read(path).is_ok_and(|record| Listed::of(&record).is_of(text))
            };
            let of_it: Vec<&PathBuf> = runs.iter().filter(is_of).collect();
            newest(&of_it).ok_or_else(|| {
                let what =
                    format_args!("no run in {RUNS} of a target with {text:?} in it");
                Failure::usage(what)
            })
        }
    }
}

/// The moment in the name of a run's folder.
fn second(run: &Path) -> Option<String> {
    let name = run.file_name()?.to_string_lossy().into_owned();
    name.split('-').next().map(str::to_owned)
}

/// Whether a path is a folder that is no run itself, but holds some, or may.
fn is_many(path: &Path) -> bool {
    let holds = || read::runs_in(path).is_ok_and(|runs| !runs.is_empty());
    path.is_dir() && !read::is_run(path) && (holds() || path.ends_with(RUNS))
}

/// Whether a record is one of `sockscope backlog`.
fn is_watch(record: &Record) -> bool {
    record.run.as_ref().is_some_and(|run| run.backlog.is_some())
}

/// The runs that are to be shown, and what goes beside them: a watch of an accept queue
/// is shown itself only where there is no probe.
fn subjects(inputs: Vec<Input>) -> (Vec<Record>, Vec<Input>) {
    let is_probe =
        |input: &Input| matches!(input, Input::Run(record) if !is_watch(record));
    let probes = inputs.iter().filter(|input| is_probe(input)).count();
    let (mut subjects, mut beside) = (Vec::new(), Vec::new());
    for input in inputs {
        match input {
            Input::Run(record) if probes == 0 || !is_watch(&record) => {
                subjects.push(*record);
            }
            other => beside.push(other),
        }
    }
    (subjects, beside)
}
