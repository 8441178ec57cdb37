//! `sockscope sockets`: the socket table.

mod args;
mod collect;
mod filter;
mod kill;
mod metrics;
mod one;
mod plan;
mod print;
mod process;
mod session;
mod summary;
mod unbound;
mod visit;
mod watch;

use std::io;

use super::exit::{Exit, Failure};
use super::output::Output;
pub(super) use args::Args;
use plan::Plan;
use session::Session;
use visit::Visit;

use crate::render::count;
use crate::sockets::namespaces::{Label, Namespace};

/// Runs the command.
pub(super) fn run(args: &Args, output: Output) -> Result<Exit, Failure> {
    if args.columns.iter().any(|name| name == "help") {
        return print::column_names()
            .map_err(|error| Failure::lacking(session::unprintable(error)));
    }
    if args.summary {
        return summary::run(args, output);
    }
    let plan = Plan::of(args).map_err(|why| why.tell(&output))?;
    for note in plan.filter.notes() {
        output.note(&note.to_string());
    }
    if let Some(name) = args.fd {
        return one::run(&plan, &args.letters, name, output);
    }
    if args.kill {
        return kill::run(&plan, args.yes, output);
    }
    if let Some(interval) = plan.watch {
        return watch::run(&plan, &visit::places(&plan), interval, output);
    }
    let visit = Visit::of(&plan)?;
    closed_pipe_is_fine(list(&plan, &visit, output))
}

fn list(plan: &Plan, visit: &Visit, output: Output) -> io::Result<()> {
    let mut session = Session::begin(plan, output)?;
    visit.each(&output, &mut |label| session.namespace(label))?;
    session.finish(&output)
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
fn closed_pipe_is_fine(done: io::Result<()>) -> Result<Exit, Failure> {
    match done {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::lacking(error))
        }
        _ => Ok(Exit::Done),
    }
}
