//! `sockscope sockets`: the socket table.

mod args;
mod collect;
mod filter;
mod plan;
mod print;
mod session;
mod watch;

use std::io;

use super::exit::{Exit, Failure};
use super::output::Output;
pub(super) use args::Args;
use plan::{Plan, Where};
use session::Session;

use crate::host::ProcRoot;
use crate::render::count;
use crate::sockets::namespaces::{Label, Namespace, Places};

/// Runs the command.
pub(super) fn run(args: &Args, output: Output) -> Result<Exit, Failure> {
    if args.columns.iter().any(|name| name == "help") {
        return print::column_names()
            .map_err(|error| Failure::lacking(session::unprintable(error)));
    }
    let plan = Plan::of(args).map_err(|why| why.tell(&output))?;
    for note in plan.filter.notes() {
        output.note(&note.to_string());
    }
    let places =
        Places { proc: ProcRoot::new(plan.proc_root.clone()), ..Places::default() };
    if let Some(interval) = plan.watch {
        return watch::run(&plan, &places, interval, output);
    }
    let listed = match &plan.at {
        Where::Here => here(&plan, output),
        Where::In(spec) => {
            let netns = places.resolve(spec).map_err(Failure::usage)?;
            let listed = netns.run(|| here(&plan, output));
            listed.unwrap_or_else(|error| {
                let why = format!("the network namespace of '{spec}' cannot be entered");
                Err(Failure::lacking(anyhow::Error::new(error).context(why)))
            })
        }
        Where::Everywhere => everywhere(&plan, &places, output),
    };
    listed.map(|()| Exit::Done)
}

fn here(plan: &Plan, output: Output) -> Result<(), Failure> {
    let list = || {
        let mut session = Session::begin(plan, output)?;
        session.namespace(None)?;
        session.finish(&output)
    };
    closed_pipe_is_fine(list())
}

fn everywhere(plan: &Plan, places: &Places, output: Output) -> Result<(), Failure> {
    let visible = places.visible().map_err(Failure::lacking)?;
    for lack in &visible.lacking {
        output.note(&lack.to_string());
    }
    let list = || {
        let mut session = Session::begin(plan, output)?;
        let mut closed = 0_u64;
        for namespace in &visible.namespaces {
            let label = label(namespace);
            let session = &mut session;
            match namespace.netns.run(|| session.namespace(Some(&label))) {
                Ok(listed) => listed?,
                Err(_) => closed += 1,
            }
        }
        note_closed(&output, closed);
        session.finish(&output)
    };
    closed_pipe_is_fine(list())
}

/// What a namespace is called in a list.
fn label(namespace: &Namespace) -> String {
    match &namespace.label {
        Label::Name(_) => namespace.label.to_string(),
        _ if namespace.is_current => "here".to_owned(),
        other => other.to_string(),
    }
}

fn note_closed(output: &Output, closed: u64) {
    let namespaces = match closed {
        0 => return,
        1 => "1 network namespace".to_owned(),
        n => format!("{} network namespaces", count(n)),
    };
    output.note(&format!(
        "{namespaces} may not be entered; run with sudo to see what is there"
    ));
}

/// A reader that has seen enough (`| head`) is no error.
fn closed_pipe_is_fine(listed: io::Result<()>) -> Result<(), Failure> {
    match listed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Failure::lacking),
    }
}
