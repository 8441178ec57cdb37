//! One listing, of one or several network namespaces.

use std::io;
use std::ops::ControlFlow;

use super::args::Via;
use super::collect::Collector;
use super::plan::{Plan, Where};
use super::print::{self, Printer};
use super::{process, unbound};
use crate::cli::output::Output;
use crate::host::{ProcRoot, sysctl};
use crate::sockets::filter::Filter;
use crate::sockets::listing::{Listed, Lister};
use crate::sockets::names::{Cgroups, Interfaces, Users, Workloads};
use crate::sockets::select::Selection;
use crate::sockets::show::{Context, Shown};
use crate::sockets::source::auto::AutoSource;
use crate::sockets::source::netlink::NetlinkSource;
use crate::sockets::source::proc::ProcSource;
use crate::sockets::source::{Passed, Source};

/// What is kept from one namespace to the next.
pub(super) struct Session<'a> {
    plan: &'a Plan,
    names: Names,
    lister: Lister<'a>,
    sink: Sink,
    passed: Passed,
    left: Option<u64>,
    /// Sockets of the one process whose are listed that are of other namespaces.
    elsewhere: u64,
}

/// Names of what rows have as numbers.
pub(super) struct Names {
    users: Users,
    workloads: Workloads,
    cgroups: Cgroups,
}

impl Names {
    pub(super) fn of(plan: &Plan) -> Self {
        Self {
            users: Users::default(),
            workloads: Workloads::new(&plan.proc_root),
            cgroups: Cgroups::default(),
        }
    }

    /// Forgets what processes run in: their numbers are used again.
    pub(super) fn forget_processes(&mut self, plan: &Plan) {
        self.workloads = Workloads::new(&plan.proc_root);
    }

    /// Those and what is known of one namespace.
    pub(super) fn context<'a>(
        &'a self,
        interfaces: Option<&'a Interfaces>,
        netns: Option<&'a str>,
    ) -> Context<'a> {
        let Self { users, workloads, cgroups } = self;
        Context { users, interfaces, workloads, cgroups, netns }
    }
}

/// Where rows go: printed as they come, or kept until all have come.
enum Sink {
    Stream(Box<dyn Printer + Send>),
    /// The printer is of rows: sums have their own.
    Keep(Collector, Option<Box<dyn Printer + Send>>),
}

impl<'a> Session<'a> {
    pub(super) fn begin(plan: &'a Plan, output: Output) -> io::Result<Self> {
        let names = Names::of(plan);
        let lister = process::lister(plan)?;
        let printer = || print::printer(plan, output);
        let sink = match plan.collects() {
            true if plan.sums() => Sink::Keep(Collector::default(), None),
            true => {
                Sink::Keep(Collector::default(), Some(printer().map_err(unprintable)?))
            }
            false => Sink::Stream(printer().map_err(unprintable)?),
        };
        let (passed, left) = (Passed::default(), plan.stream_limit());
        Ok(Self { plan, names, lister, sink, passed, left, elsewhere: 0 })
    }

    /// Lists the sockets of the calling thread's network namespace.
    pub(super) fn namespace(&mut self, label: Option<&str>) -> io::Result<()> {
        let Self { plan, names, lister, sink, passed, left, elsewhere } = self;
        let interfaces = Interfaces::default();
        let interfaces = Some(&interfaces).filter(|_| plan.is_this_host());
        let context = names.context(interfaces, label);
        let root = ProcRoot::new(plan.proc_root.clone());
        let mut source = source(plan, root.clone())?;
        let (filter, selection) = asked(plan, &root);
        let mut failed = None;
        let mut each = |listed: &Listed<'_>| {
            if *left == Some(0) {
                return ControlFlow::Break(());
            }
            let shown = Shown { listed, context: &context };
            if !super::filter::matches(&filter, &plan.filter_needs, &shown) {
                return ControlFlow::Continue(());
            }
            if let Err(error) = sink.row(plan, &shown) {
                failed = Some(unprintable(error));
                return ControlFlow::Break(());
            }
            *left = left.map(|left| left - 1);
            ControlFlow::Continue(())
        };
        let mut done = lister.list(&mut *source, &selection, &mut each)?;
        if plan.unbound {
            let source = &mut *source;
            let (more, others) =
                unbound::list(plan, lister, source, &selection, &mut each)?;
            done.lacking.extend(more.lacking);
            *elsewhere += others;
        }
        passed.interrupted |= done.interrupted;
        for lack in done.lacking {
            if !passed.lacking.contains(&lack) {
                passed.lacking.push(lack);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Prints what is left, and says what is to be known of it.
    pub(super) fn finish(self, output: &Output) -> io::Result<()> {
        let Self { plan, names, lister, sink, passed, elsewhere, .. } = self;
        sink.finish(plan, &names.context(None, None)).map_err(unprintable)?;
        if passed.interrupted {
            output.note("the table changed while it was read: a row may be missing");
        }
        if plan.at != Where::Everywhere {
            process::note_elsewhere(output, elsewhere);
        }
        notes(plan, output, &passed, &lister);
        Ok(())
    }
}

/// Says what could not be read.
pub(super) fn notes(plan: &Plan, output: &Output, passed: &Passed, lister: &Lister<'_>) {
    for lack in &passed.lacking {
        if plan.minds(lack) {
            output.note(&lack.to_string());
        } else {
            output.detail(&lack.to_string());
        }
    }
    if let Some(why) = lister.index().why_not_by_bpf() {
        output.detail(why);
    }
    output.note_hidden_owners(lister.not_permitted());
}

impl Sink {
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

/// An error of stdout, said as such.
#[expect(clippy::needless_pass_by_value, reason = "as map_err gives it")]
pub(super) fn unprintable(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the sockets cannot be printed: {error}"))
}

/// The filter and what the kernel is asked for, in the calling thread's network namespace.
pub(super) fn asked(plan: &Plan, root: &ProcRoot) -> (Filter, Selection) {
    let filter = match sysctl::local_port_range(root).ok() {
        Some(ports) => plan.filter.clone().with_local_ports(ports),
        None => plan.filter.clone(),
    };
    let program = filter.kernel(&plan.able());
    let selection = Selection { program, ..plan.selection.clone() };
    (filter, selection)
}

/// The source that was asked for, in the calling thread's network namespace. Another
/// /proc than this host's has no sock_diag.
pub(super) fn source(plan: &Plan, root: ProcRoot) -> io::Result<Box<dyn Source + Send>> {
    Ok(match plan.via {
        Via::Netlink => Box::new(NetlinkSource::open()?),
        Via::Auto if plan.is_this_host() => Box::new(AutoSource::open(root)),
        Via::Auto | Via::Proc => Box::new(ProcSource::new(root)),
    })
}
