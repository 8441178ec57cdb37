//! One network namespace that is watched.

use std::io;
use std::ops::ControlFlow;

use crate::cli::output::Output;
use crate::cli::sockets::args::Via;
use crate::cli::sockets::filter;
use crate::cli::sockets::plan::Plan;
use crate::cli::sockets::session::{Names, asked, source};
use crate::host::ProcRoot;
use crate::kernel::netns::Netns;
use crate::kernel::sock_diag::Ends;
use crate::sockets::changes::{Change, End, Snapshot};
use crate::sockets::ends::{EndWatch, Gathered, is_new};
use crate::sockets::filter::Filter;
use crate::sockets::listing::{Listed, Lister, NoOwner};
use crate::sockets::names::Interfaces;
use crate::sockets::row::Row;
use crate::sockets::select::{Selection, Tables};
use crate::sockets::show::{Context, Shown};
use crate::sockets::source::{Again, Passed, Source};

/// A namespace, its sockets as the last pass found them, and what that pass changed.
pub(super) struct Place {
    /// None for the calling thread's own.
    netns: Option<(u64, Netns)>,
    /// What it is called, where several are watched.
    label: Option<String>,
    interfaces: Interfaces,
    source: Box<dyn Source + Send>,
    filter: Filter,
    selection: Selection,
    ends: Option<EndWatch>,
    pub(super) snapshot: Snapshot,
    pub(super) changes: Vec<Change>,
    state: State,
    has_missed: bool,
    failed: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No pass yet.
    New,
    /// One pass.
    First,
    Known,
    /// It is there no more.
    Left,
}

impl Place {
    /// The calling thread's namespace.
    pub(super) fn here(plan: &Plan, output: &Output) -> io::Result<Self> {
        Ok(Self::of(Opened::here(plan)?, output))
    }

    /// Another one.
    pub(super) fn there(
        plan: &Plan,
        inode: u64,
        netns: Netns,
        label: String,
        output: &Output,
    ) -> io::Result<Self> {
        let opened = netns.run(|| Opened::here(plan))??;
        let (netns, label) = (Some((inode, netns)), Some(label));
        Ok(Self { netns, label, ..Self::of(opened, output) })
    }

    fn of(opened: Opened, output: &Output) -> Self {
        let Opened { source, filter, selection, ends } = opened;
        // A thread that was started within a namespace would stay there, and keep it.
        let ends = ends.and_then(|ends| {
            ends.and_then(|ends| EndWatch::start(ends, &selection))
                .inspect_err(|error| output.detail(&no_ends(error)))
                .ok()
        });
        Self {
            netns: None,
            label: None,
            interfaces: Interfaces::default(),
            source,
            filter,
            selection,
            ends,
            snapshot: Snapshot::default(),
            changes: Vec::new(),
            state: State::New,
            has_missed: false,
            failed: None,
        }
    }

    /// Whether it is the namespace with this inode.
    pub(super) fn is(&self, inode: u64) -> bool {
        self.netns.as_ref().is_some_and(|(own, _)| *own == inode)
    }

    /// Looks at its sockets.
    pub(super) fn pass(
        &mut self,
        plan: &Plan,
        lister: &mut Lister<'_>,
        names: &mut Names,
    ) -> io::Result<Passed> {
        self.state = match self.state {
            State::New => State::First,
            State::First | State::Known => State::Known,
            State::Left => {
                let all_gone = &mut |_: &Row<'_>| Again::Gone;
                self.changes =
                    self.snapshot.pass().finish(Vec::new(), all_gone, &|_| false);
                return Ok(Passed::default());
            }
        };
        // An interface may have gone, and another have its number.
        self.interfaces = match &self.netns {
            Some((_, netns)) => Interfaces::of(netns.try_clone()?),
            None => Interfaces::default(),
        };
        let ends = self.take_ends();
        let Self { netns, source, filter, selection, snapshot, changes, .. } = self;
        let (interfaces, label) = (&mut self.interfaces, self.label.as_deref());
        // Names are looked up as they are needed, by one thread at a time.
        let look = move || {
            let interfaces = Some(&*interfaces).filter(|_| plan.is_this_host());
            let context = names.context(interfaces, label);
            let look = Look { plan, lister, filter, selection, context };
            look.over(&mut **source, snapshot, ends)
        };
        let done = match netns {
            Some((_, netns)) => netns.run(look)?,
            None => look(),
        };
        let (changed, passed) = done?;
        *changes = changed;
        Ok(passed)
    }

    /// The ends that were told since the last pass.
    fn take_ends(&mut self) -> Vec<End> {
        let Some(watch) = &self.ends else { return Vec::new() };
        let Gathered { mut ends, missed, failed } = watch.take();
        self.has_missed = missed;
        if let Some(error) = failed {
            self.ends = None;
            self.has_missed = true;
            self.failed = Some(no_ends(&error));
        }
        if self.state == State::First {
            // They ended before there was anything to compare with.
            ends.clear();
            self.has_missed = false;
        }
        ends.retain(|end| {
            end.row.cookie.is_none_or(|cookie| !self.source.left_out(cookie))
        });
        ends
    }

    pub(super) fn context<'a>(&'a self, plan: &Plan, names: &'a Names) -> Context<'a> {
        let interfaces = Some(&self.interfaces).filter(|_| plan.is_this_host());
        names.context(interfaces, self.label.as_deref())
    }

    /// Whether its sockets were there when it was first looked at.
    pub(super) fn is_first(&self) -> bool {
        self.state == State::First
    }

    /// It is there no more: the next pass finds all of its sockets closed.
    pub(super) fn leave(&mut self) {
        self.ends = None;
        self.state = State::Left;
    }

    pub(super) fn is_left(&self) -> bool {
        self.state == State::Left
    }

    /// How many the last pass found opened and closed.
    pub(super) fn counts(&self) -> (u64, u64) {
        let (mut opened, mut closed) = (0, 0);
        for change in &self.changes {
            match change {
                Change::Opened(_) => opened += u64::from(!self.is_first()),
                Change::Changed(..) => {}
                Change::Closed(one) => {
                    closed += 1;
                    opened += u64::from(!one.was_seen);
                }
            }
        }
        (opened, closed)
    }

    /// Whether ends were missed before the last pass.
    pub(super) fn has_missed(&self) -> bool {
        self.has_missed
    }

    /// Why ends are told no more, once.
    pub(super) fn failed(&mut self) -> Option<String> {
        self.failed.take()
    }
}

/// What is opened within a namespace.
struct Opened {
    source: Box<dyn Source + Send>,
    filter: Filter,
    selection: Selection,
    /// None where they are not wanted.
    ends: Option<io::Result<Ends>>,
}

impl Opened {
    fn here(plan: &Plan) -> io::Result<Self> {
        let root = ProcRoot::new(plan.proc_root.clone());
        let (filter, selection) = asked(plan, &root);
        let source = source(plan, root)?;
        let is_told = plan.is_this_host() && plan.via != Via::Proc;
        let wanted = selection.tables.has(Tables::TCP | Tables::UDP) && is_told;
        let ends = wanted.then(Ends::open);
        Ok(Self { source, filter, selection, ends })
    }
}

/// One look at the sockets of a namespace, from within it.
struct Look<'a, 'b> {
    plan: &'a Plan,
    lister: &'a mut Lister<'b>,
    filter: &'a Filter,
    selection: &'a Selection,
    context: Context<'a>,
}

impl Look<'_, '_> {
    fn over(
        self,
        source: &mut dyn Source,
        snapshot: &mut Snapshot,
        ends: Vec<End>,
    ) -> io::Result<(Vec<Change>, Passed)> {
        let Self { plan, lister, filter, selection, context } = self;
        let matches = |listed: &Listed<'_>| {
            let shown = Shown { listed, context: &context };
            filter::matches(filter, &plan.filter_needs, &shown)
        };
        let mut pass = snapshot.pass();
        let passed = lister.list(source, selection, &mut |listed| {
            if matches(listed) {
                pass.row(listed);
            }
            ControlFlow::Continue(())
        })?;
        let again = &mut |row: &Row<'_>| match source.again(row, selection) {
            Again::Here(row) => {
                let owners: Vec<_> = lister.index().owners(row.inode).collect();
                let listed = Listed { row: &row, owners: &owners, no_owner: None };
                if matches(&listed) { Again::Here(row) } else { Again::Left }
            }
            other => other,
        };
        let counts = &|row: &Row<'_>| {
            let no_owner = Some(NoOwner::Closed);
            let listed = Listed { row, owners: &[], no_owner };
            is_new(row, selection) && matches(&listed)
        };
        Ok((pass.finish(ends, again, counts), passed))
    }
}

fn no_ends(error: &io::Error) -> String {
    format!("{error}; what opens and closes between two looks is not seen")
}
