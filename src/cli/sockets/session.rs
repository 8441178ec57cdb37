//! One listing, of one or several network namespaces.

use std::io;
use std::ops::ControlFlow;

use super::args::Via;
use super::collect::Collector;
use super::plan::Plan;
use super::print::{self, Printer};
use crate::cli::output::Output;
use crate::host::{ProcRoot, sysctl};
use crate::kernel::netns::Netns;
use crate::sockets::listing::{Listed, Lister};
use crate::sockets::names::{Cgroups, Interfaces, Users, Workloads};
use crate::sockets::select::Selection;
use crate::sockets::show::{Context, Shown};
use crate::sockets::source::auto::AutoSource;
use crate::sockets::source::netlink::NetlinkSource;
use crate::sockets::source::proc::ProcSource;
use crate::sockets::source::{Passed, Source};
use crate::sockets::unbound;

/// What is kept from one namespace to the next.
pub(super) struct Session<'a> {
    plan: &'a Plan,
    names: Names,
    lister: Lister<'a>,
    sink: Sink,
    passed: Passed,
    left: Option<u64>,
}

struct Names {
    users: Users,
    workloads: Workloads,
    cgroups: Cgroups,
}

/// Where rows go: printed as they come, or kept until all have come.
enum Sink {
    Stream(Box<dyn Printer + Send>),
    /// The printer is of rows: sums have their own.
    Keep(Collector, Option<Box<dyn Printer + Send>>),
}

impl<'a> Session<'a> {
    pub(super) fn begin(plan: &'a Plan, output: Output) -> io::Result<Self> {
        let names = Names {
            users: Users::default(),
            workloads: Workloads::new(&plan.proc_root),
            cgroups: Cgroups::default(),
        };
        let lister = Lister::new(&plan.proc_root, plan.look)?;
        let printer = || print::printer(plan, output);
        let sink = match plan.collects() {
            true if plan.sums() => Sink::Keep(Collector::default(), None),
            true => Sink::Keep(Collector::default(), Some(printer()?)),
            false => Sink::Stream(printer()?),
        };
        let (passed, left) = (Passed::default(), plan.stream_limit());
        Ok(Self { plan, names, lister, sink, passed, left })
    }

    /// Lists the sockets of the calling thread's network namespace.
    pub(super) fn namespace(&mut self, label: Option<&str>) -> io::Result<()> {
        let Self { plan, names, lister, sink, passed, left } = self;
        let interfaces = Interfaces::default();
        let is_this_host = plan.is_this_host();
        let context = Context {
            users: &names.users,
            interfaces: is_this_host.then_some(&interfaces),
            workloads: &names.workloads,
            cgroups: &names.cgroups,
            netns: label,
        };
        let root = ProcRoot::new(plan.proc_root.clone());
        let mut source = source(plan, root.clone())?;
        let ports = sysctl::local_port_range(&root).ok();
        let filter = match ports {
            Some(ports) => plan.filter.clone().with_local_ports(ports),
            None => plan.filter.clone(),
        };
        let selection =
            Selection { program: filter.kernel(&plan.able()), ..plan.selection.clone() };
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
                failed = Some(error);
                return ControlFlow::Break(());
            }
            *left = left.map(|left| left - 1);
            ControlFlow::Continue(())
        };
        let mut done = lister.list(&mut *source, &selection, &mut each)?;
        if plan.unbound {
            let more = list_unbound(plan, lister, &mut *source, &mut each)?;
            done.lacking.extend(more.lacking);
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
        let Self { plan, names, lister, sink, passed, .. } = self;
        let context = Context {
            users: &names.users,
            interfaces: None,
            workloads: &names.workloads,
            cgroups: &names.cgroups,
            netns: None,
        };
        sink.finish(plan, &context)?;
        if passed.interrupted {
            output.note("the table changed while it was read: a row may be missing");
        }
        for lack in &passed.lacking {
            if plan.minds(lack) {
                output.note(&lack.to_string());
            } else {
                output.detail(&lack.to_string());
            }
        }
        output.note_hidden_owners(lister.not_permitted());
        Ok(())
    }
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

/// The source that was asked for, in the calling thread's network namespace. Another
/// /proc than this host's has no sock_diag.
fn source(plan: &Plan, root: ProcRoot) -> io::Result<Box<dyn Source>> {
    Ok(match plan.via {
        Via::Netlink => Box::new(NetlinkSource::open()?),
        Via::Auto if plan.is_this_host() => Box::new(AutoSource::open(root)),
        Via::Auto | Via::Proc => Box::new(ProcSource::new(root)),
    })
}

/// Lists what the processes of this namespace have and none of its tables shows. The
/// tables are read after the descriptors, or a new connection would look unbound.
fn list_unbound(
    plan: &Plan,
    lister: &Lister<'_>,
    source: &mut dyn Source,
    each: &mut dyn FnMut(&Listed<'_>) -> ControlFlow<()>,
) -> io::Result<Passed> {
    let mut seen = std::collections::HashSet::new();
    source.rows(&Selection::everything(), &mut |row| {
        seen.insert(row.inode);
        ControlFlow::Continue(())
    })?;
    let root = ProcRoot::new(plan.proc_root.clone());
    let netns = Netns::current().and_then(|netns| netns.inode()).ok();
    let netns = netns.filter(|_| plan.is_this_host());
    let index = lister.index();
    let is_seen = |inode| seen.contains(&inode);
    Ok(unbound::rows(&root, index.iter(), is_seen, netns, &mut |row, _| {
        let owners: Vec<_> = index.owners(row.inode).collect();
        each(&Listed { row: &row, owners: &owners, no_owner: None })
    }))
}
