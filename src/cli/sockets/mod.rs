//! `sockscope sockets`: the socket table.

mod args;
mod collect;
mod plan;
mod print;

use std::io;
use std::ops::ControlFlow;

use super::exit::{Exit, Failure};
use super::output::Output;
pub(super) use args::Args;
use collect::Collector;
use plan::Plan;
use print::Printer;

use crate::render::count;
use crate::sockets::listing::Lister;
use crate::sockets::names::{Interfaces, Users};
use crate::sockets::show::{Context, Shown};
use crate::sockets::source::netlink::NetlinkSource;
use crate::sockets::source::{Passed, Source};

/// Runs the command.
pub(super) fn run(args: &Args, output: Output) -> Result<Exit, Failure> {
    if args.columns.iter().any(|name| name == "help") {
        return print::column_names()
            .map_err(|error| Failure::lacking(unprintable(error)));
    }
    let plan = Plan::of(args).map_err(Failure::usage)?;
    match list(&plan, output) {
        // A reader that has seen enough (`| head`) is no error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(error) => Err(Failure::lacking(error)),
        Ok(()) => Ok(Exit::Done),
    }
}

fn list(plan: &Plan, output: Output) -> io::Result<()> {
    let users = Users::default();
    let mut source = NetlinkSource::open()?;
    let interfaces = Interfaces::default();
    let context = Context {
        users: &users,
        interfaces: Some(&interfaces),
        netns: None,
        proc_root: &plan.proc_root,
    };
    let mut lister = Lister::new(&plan.proc_root, plan.look)?;
    let mut sink = Sink::of(plan, output).map_err(unprintable)?;
    let passed = pass(plan, &mut lister, &mut source, &context, &mut sink)?;
    sink.finish(plan, &context).map_err(unprintable)?;
    notes(&output, &passed, &lister);
    Ok(())
}

/// Where rows go: printed as they come, or kept until all have come.
enum Sink {
    Stream(Box<dyn Printer>),
    /// The printer is of rows: sums have their own.
    Keep(Collector, Option<Box<dyn Printer>>),
}

impl Sink {
    fn of(plan: &Plan, output: Output) -> io::Result<Self> {
        let printer = || print::printer(plan, output);
        Ok(match plan.collects() {
            true if plan.sums() => Self::Keep(Collector::default(), None),
            true => Self::Keep(Collector::default(), Some(printer()?)),
            false => Self::Stream(printer()?),
        })
    }

    fn row(&mut self, plan: &Plan, shown: &Shown<'_>) -> io::Result<()> {
        match self {
            Self::Stream(printer) => printer.row(shown),
            Self::Keep(collector, _) => {
                collector.take(plan, shown);
                Ok(())
            }
        }
    }

    fn finish(self, plan: &Plan, context: &Context<'_>) -> io::Result<()> {
        match self {
            Self::Stream(printer) => printer.finish(),
            Self::Keep(collector, printer) => collector.print(plan, context, printer),
        }
    }
}

/// Lists one namespace.
fn pass(
    plan: &Plan,
    lister: &mut Lister<'_>,
    source: &mut dyn Source,
    context: &Context<'_>,
    sink: &mut Sink,
) -> io::Result<Passed> {
    let mut failed = None;
    let mut left = plan.stream_limit();
    let passed = lister.list(source, &plan.selection, &mut |listed| {
        if left == Some(0) {
            return ControlFlow::Break(());
        }
        let shown = Shown { listed, context };
        if let Err(error) = sink.row(plan, &shown) {
            failed = Some(unprintable(error));
            return ControlFlow::Break(());
        }
        left = left.map(|left| left - 1);
        ControlFlow::Continue(())
    })?;
    failed.map_or(Ok(passed), Err)
}

/// An error of stdout, said as such.
fn unprintable(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the sockets cannot be printed: {error}"))
}

fn notes(output: &Output, passed: &Passed, lister: &Lister<'_>) {
    if passed.interrupted {
        output.note("the table changed while it was read: a row may be missing or twice");
    }
    for lack in &passed.lacking {
        output.detail(&lack.to_string());
    }
    let hidden = lister.not_permitted();
    if hidden > 0 {
        let owners = match hidden {
            1 => "1 owner".to_owned(),
            n => format!("{} owners", count(n)),
        };
        let remedy = match rustix::process::geteuid().is_root() {
            true => "this root lacks CAP_SYS_PTRACE over their processes",
            false => "run with sudo to see them",
        };
        output.note(&format!("{owners} could not be read; {remedy}"));
    }
}
