//! `-K`: closes the sockets that match.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufWriter, IsTerminal, Write};
use std::ops::ControlFlow;

use serde::Serialize;

use super::args::{Format, Via};
use super::closed_pipe_is_fine;
use super::filter::matches;
use super::metrics;
use super::plan::Plan;
use super::process;
use super::session::{Names, asked, source, unprintable};
use super::visit::Visit;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::Output;
use crate::host::ProcRoot;
use crate::kernel::netns::Netns;
use crate::render::document::{JsonDocument, csv_error, ndjson};
use crate::render::table::{Align, Cells, Heading, StreamTable};
use crate::render::{count, plural};
use crate::sockets::close::{Outcome, Why, can_be_closed, close_all, is_subflow};
use crate::sockets::listing::{Listed, Lister, NoOwner};
use crate::sockets::model::Owner;
use crate::sockets::names::Interfaces;
use crate::sockets::row::Row;
use crate::sockets::show::Shown;
use crate::sockets::show::document::SocketDoc;
use crate::sockets::source::netlink::NetlinkSource;

/// What is called a document of sockets that were to be closed.
const SCHEMA: &str = "sockscope.closed/1";

/// A socket that is to be closed.
struct Target {
    row: Row<'static>,
    owners: Vec<Owner>,
    no_owner: Option<NoOwner>,
}

impl Target {
    fn listed(&self) -> Listed<'_> {
        Listed { row: &self.row, owners: &self.owners, no_owner: self.no_owner }
    }
}

/// The sockets of one network namespace that match.
struct Group {
    label: Option<String>,
    /// To close them by.
    source: NetlinkSource,
    interfaces: Interfaces,
    targets: Vec<Target>,
}

/// What matches, in one namespace after another.
struct Hunt<'a> {
    plan: &'a Plan,
    names: Names,
    lister: Lister<'a>,
    /// The namespace that this command is in.
    home: u64,
    groups: Vec<Group>,
    /// What matches and cannot be closed, by its kind.
    others: BTreeMap<String, u64>,
    interrupted: bool,
}

/// Closes what matches the filter of a plan, and is of its process; one of the two must
/// be given.
pub(super) fn run(plan: &Plan, yes: bool, output: Output) -> Result<Exit, Failure> {
    if !plan.has_filter() && plan.pid.is_none() {
        return Err(Failure::usage(
            "-K closes the sockets that match: say which, by a filter (dport = :443) or \
             by --pid",
        ));
    }
    if !plan.is_this_host() || plan.via == Via::Proc {
        return Err(Failure::usage(
            "-K finds what it closes by sock_diag on this host: it takes neither \
             --proc-root nor --via proc",
        ));
    }
    let has_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !yes && !has_terminal {
        return Err(Failure::usage(
            "-K asks before it closes anything, and there is no terminal to ask on: add \
             --yes to close without being asked",
        ));
    }
    let visit = Visit::of(plan)?;
    let mut hunt = Hunt::begin(plan).map_err(Failure::lacking)?;
    visit.each(&output, &mut |label| hunt.namespace(label)).map_err(Failure::lacking)?;
    hunt.notes(&output);
    let Hunt { names, mut groups, .. } = hunt;
    if !yes && !agreed(plan, &names, &groups).map_err(Failure::lacking)? {
        output.note("nothing was closed");
        return Ok(Exit::Done);
    }
    let outcomes = close(&mut groups)?;
    let is_open = |outcome: &Outcome| matches!(outcome, Outcome::Open(_));
    let exit = match outcomes.iter().any(is_open) {
        true => Exit::Lacking,
        false => Exit::Done,
    };
    let results = Results { plan, names: &names, groups: &groups, outcomes: &outcomes };
    closed_pipe_is_fine(results.print(yes).map_err(unprintable))?;
    Ok(exit)
}

impl<'a> Hunt<'a> {
    fn begin(plan: &'a Plan) -> io::Result<Self> {
        Ok(Self {
            plan,
            names: Names::of(plan),
            lister: process::lister(plan)?,
            home: Netns::current()?.inode()?,
            groups: Vec::new(),
            others: BTreeMap::new(),
            interrupted: false,
        })
    }

    /// Takes in what matches in the calling thread's namespace.
    fn namespace(&mut self, label: Option<&str>) -> io::Result<()> {
        let Self { plan, names, lister, home, groups, others, interrupted } = self;
        let closer = NetlinkSource::open()?;
        let netns = Netns::current()?;
        let interfaces = match netns.inode()? == *home {
            true => Interfaces::default(),
            false => Interfaces::of(netns),
        };
        let context = names.context(Some(&interfaces), label);
        let root = ProcRoot::new(plan.proc_root.clone());
        let mut source = source(plan, root.clone())?;
        let (filter, selection) = asked(plan, &root);
        let mut targets = Vec::new();
        let passed = lister.list(&mut *source, &selection, &mut |listed| {
            let shown = Shown { listed, context: &context };
            if !matches(&filter, &plan.filter_needs, &shown) {
                return ControlFlow::Continue(());
            }
            let row = listed.row;
            if can_be_closed(row) {
                targets.push(Target {
                    row: row.clone().into_owned(),
                    owners: listed.owners.to_vec(),
                    no_owner: listed.no_owner,
                });
            } else {
                let kind = match is_subflow(row) {
                    true => "subflow of mptcp".into(),
                    false => row.kind.to_string(),
                };
                *others.entry(kind).or_default() += 1;
            }
            ControlFlow::Continue(())
        })?;
        *interrupted |= passed.interrupted;
        let label = label.map(str::to_owned);
        groups.push(Group { label, source: closer, interfaces, targets });
        Ok(())
    }

    fn notes(&self, output: &Output) {
        if self.interrupted {
            output.note("the table changed while it was read: a socket may be missing");
        }
        if self.others.is_empty() {
            return;
        }
        let each = self.others.iter().map(|(kind, n)| format!("{} {kind}", count(*n)));
        let each: Vec<String> = each.collect();
        let all = self.others.values().sum();
        let stay = if all == 1 { "matches and stays" } else { "match and stay" };
        output.note(&format!(
            "{} more {stay} open: the kernel closes TCP connections and listeners, and \
             UDP sockets, alone ({})",
            count(all),
            each.join(", ")
        ));
    }
}

/// Closes every target; gives what became of each, in their order.
fn close(groups: &mut [Group]) -> Result<Vec<Outcome>, Failure> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    for Group { source, targets, .. } in groups {
        let rows: Vec<Row<'_>> = targets.iter().map(|one| one.row.clone()).collect();
        match close_all(source, &rows) {
            Ok(done) => outcomes.extend(done),
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                return Err(Failure::lacking(error));
            }
            Err(_) if outcomes.is_empty() => {
                return Err(Failure::lacking(anyhow::anyhow!(
                    "closing sockets needs CAP_NET_ADMIN in their network namespace: run \
                     with sudo; nothing was closed"
                )));
            }
            // The right may be there in one namespace and lack in the next.
            Err(_) => {
                let denied = || io::Error::from_raw_os_error(libc::EPERM);
                let each = rows.iter().map(|_| Outcome::Open(Why::Refused(denied())));
                outcomes.extend(each);
            }
        }
    }
    Ok(outcomes)
}

/// Shows what would be closed, and asks, all on stderr. Nothing is asked where nothing
/// matches.
fn agreed(plan: &Plan, names: &Names, groups: &[Group]) -> io::Result<bool> {
    let sockets = match groups.iter().map(|group| group.targets.len() as u64).sum() {
        0 => return Ok(true),
        1 => "this socket".to_owned(),
        n => format!("these {}", plural(n, "socket")),
    };
    let mut to = io::stderr().lock();
    Results { plan, names, groups, outcomes: &[] }.table(&mut to)?;
    write!(to, "close {sockets}? [y/N] ")?;
    to.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// A socket that was to be closed, as JSON.
#[derive(Serialize)]
struct ClosedDoc<'a> {
    #[serde(flatten)]
    socket: SocketDoc<'a>,
    /// Whether it was closed.
    closed: bool,
    /// Why not.
    why: Option<String>,
}

/// Why a socket was not closed; None where it was.
fn why(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Closed => None,
        Outcome::Gone => Some("already gone".into()),
        Outcome::Open(why) => Some(why.to_string()),
    }
}

/// What was to be closed, and what became of it.
struct Results<'a> {
    plan: &'a Plan,
    names: &'a Names,
    groups: &'a [Group],
    /// Of each target of each group in turn; none before anything was closed.
    outcomes: &'a [Outcome],
}

impl Results<'_> {
    fn print(&self, shows_table: bool) -> io::Result<()> {
        let mut out = BufWriter::new(io::stdout().lock());
        match self.plan.format {
            Format::Json => {
                let mut document = JsonDocument::begin(&mut out, SCHEMA, "sockets")?;
                self.each_doc(&mut |doc| document.row(doc))?;
                document.finish()?;
            }
            Format::Ndjson => self.each_doc(&mut |doc| ndjson(&mut out, doc))?,
            Format::Csv => self.csv(&mut out)?,
            Format::Openmetrics => return Err(metrics::none_of_rows()),
            Format::Table => {
                // On a terminal they were shown with the question.
                if shows_table && !self.outcomes.is_empty() {
                    self.table(&mut out)?;
                }
                writeln!(out, "{}", tally(self.outcomes))?;
            }
        }
        out.flush()
    }

    /// Hands out each target, with what became of it.
    fn each(
        &self,
        f: &mut dyn FnMut(&Shown<'_>, Option<&Outcome>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut outcomes = self.outcomes.iter();
        for Group { label, interfaces, targets, .. } in self.groups {
            let context = self.names.context(Some(interfaces), label.as_deref());
            for target in targets {
                let listed = target.listed();
                f(&Shown { listed: &listed, context: &context }, outcomes.next())?;
            }
        }
        Ok(())
    }

    fn each_doc(
        &self,
        f: &mut dyn FnMut(&ClosedDoc<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.each(&mut |shown, outcome| {
            let socket = SocketDoc::of(shown, self.plan.groups);
            let why = outcome.and_then(why);
            f(&ClosedDoc { socket, closed: why.is_none(), why })
        })
    }

    fn table(&self, out: impl Write) -> io::Result<()> {
        let columns = &self.plan.columns;
        let mut headings: Vec<Heading> =
            columns.iter().map(|column| column.heading()).collect();
        if !self.outcomes.is_empty() {
            headings.insert(0, Heading { title: "Result".into(), align: Align::Left });
        }
        let mut table = StreamTable::new(out, headings, self.plan.header);
        let mut cells = Cells::default();
        self.each(&mut |shown, outcome| {
            cells.clear();
            if let Some(outcome) = outcome {
                cells.push(|to| to.push_str(word(outcome)));
            }
            for column in columns {
                cells.push(|to| column.write(to, shown));
            }
            table.row(&cells, "")
        })?;
        table.finish().map(drop)
    }

    fn csv(&self, out: impl Write) -> io::Result<()> {
        let columns = &self.plan.columns;
        let mut csv = csv::Writer::from_writer(out);
        if self.plan.header {
            let keys = columns.iter().map(|column| column.key());
            let keys = keys.chain(["closed".to_owned(), "why".to_owned()]);
            csv.write_record(keys).map_err(csv_error)?;
        }
        let mut cells = Cells::default();
        self.each(&mut |shown, outcome| {
            let why = outcome.and_then(why);
            cells.clear();
            for column in columns {
                cells.push(|to| column.write_plain(to, shown));
            }
            cells.push(|to| to.push_str(if why.is_none() { "true" } else { "false" }));
            cells.push(|to| to.push_str(why.as_deref().unwrap_or("")));
            csv.write_record(cells.iter()).map_err(csv_error)
        })?;
        csv.flush()
    }
}

/// `closed 2, 1 was already gone, 1 could not be: the kernel …`.
fn tally(outcomes: &[Outcome]) -> String {
    let (mut closed, mut gone) = (0_u64, 0_u64);
    let mut open: BTreeMap<String, u64> = BTreeMap::new();
    for outcome in outcomes {
        match outcome {
            Outcome::Closed => closed += 1,
            Outcome::Gone => gone += 1,
            Outcome::Open(why) => *open.entry(why.to_string()).or_default() += 1,
        }
    }
    let mut text = match outcomes.is_empty() {
        true => "closed nothing: no socket that can be closed matches".to_owned(),
        false => format!("closed {}", count(closed)),
    };
    match gone {
        0 => {}
        1 => text.push_str(", 1 was already gone"),
        n => text.push_str(&format!(", {} were already gone", count(n))),
    }
    for (why, n) in open {
        text.push_str(&format!(", {} could not be: {why}", count(n)));
    }
    text
}

/// The word for an outcome in a table.
fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Closed => "closed",
        Outcome::Gone => "already gone",
        Outcome::Open(_) => "not closed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_says_what_became_of_each() {
        assert_eq!(tally(&[Outcome::Closed, Outcome::Closed]), "closed 2");
        let refused = || Outcome::Open(Why::Refused(io::Error::from_raw_os_error(22)));
        let all = [Outcome::Gone, refused(), Outcome::Closed, refused()];
        assert_eq!(
            tally(&all),
            "closed 1, 1 was already gone, 2 could not be: Invalid argument (os error 22)"
        );
        assert!(tally(&[]).starts_with("closed nothing: "));
    }
}
