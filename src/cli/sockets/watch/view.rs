//! What a pass found as the lines of a table: a title, the columns, and a row for each
//! socket or group, marked where it is new or gone.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;

use super::screen::painted;
use super::{Pass, Totals};
use crate::cli::sockets::collect::{
    Collector, Group, Key as SortKey, group_cells, group_headings,
};
use crate::cli::sockets::plan::Plan;
use crate::cli::sockets::print::Filler;
use crate::render::table::{Align, Cells, Heading, StreamTable};
use crate::render::{count, plural, seconds};
use crate::sockets::changes::{Change, Key, Socket};
use crate::sockets::model::State;
use crate::sockets::row::Kind;
use crate::sockets::show::Shown;

/// A line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) mark: Mark,
}

/// Whether a row was there in the pass before, and is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Same,
    New,
    Gone,
}

/// A table of each pass.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The groups of the pass before; None before the second.
    groups: Option<Vec<(String, Group)>>,
    pages: u64,
}

/// A row of a table, laid out later.
struct Row {
    cells: Cells,
    tail: String,
    mark: Mark,
}

impl View {
    /// Prints the table of a pass where it cannot be drawn in place: below the last one,
    /// with an empty line between.
    pub(super) fn page(&mut self, pass: &Pass<'_>, color: bool) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(64 << 10, io::stdout());
        if self.pages > 0 && !pass.plan.count {
            writeln!(out)?;
        }
        self.pages += 1;
        let mut painting = String::new();
        for line in self.lines(pass, None) {
            painting.clear();
            painted(&mut painting, &line.text, line.mark, color);
            writeln!(out, "{painting}")?;
        }
        out.flush()
    }

    /// Called when a pass is over.
    pub(super) fn after(&mut self, pass: &Pass<'_>) {
        if pass.plan.by.is_some() {
            self.groups = Some(groups(pass));
        }
    }

    /// The lines, as many as there is room for.
    pub(super) fn lines(&self, pass: &Pass<'_>, room: Option<usize>) -> Vec<Line> {
        let Pass { plan, .. } = pass;
        let mut lines = vec![Line { text: title(pass), mark: Mark::Same }];
        if plan.count {
            return lines;
        }
        let header = usize::from(plan.header);
        let left = room.map(|room| room.saturating_sub(1 + header));
        let (headings, rows, all) = match plan.by {
            Some(by) => {
                let rows = self.group_rows(pass);
                let all = rows.len();
                (group_headings(by), rows, all)
            }
            None => socket_rows(pass, left.unwrap_or(usize::MAX)),
        };
        let shown = fitting(&rows, all, left);
        lines.extend(laid_out(headings, &rows[..shown], plan.header));
        if shown < all {
            let text = format!("  … {} more", count((all - shown) as u64));
            lines.push(Line { text, mark: Mark::Same });
        }
        lines.truncate(room.unwrap_or(usize::MAX));
        lines
    }

    fn group_rows(&self, pass: &Pass<'_>) -> Vec<Row> {
        let now = groups(pass);
        let names = |of: &[(String, Group)]| -> HashSet<String> {
            of.iter().map(|(name, _)| name.clone()).collect()
        };
        let before = self.groups.as_deref();
        let (old, new) = (before.map(names), names(&now));
        let row = |name: &str, group: &Group, mark| {
            let mut cells = Cells::default();
            cells.push(|to| to.push_str(sign(mark)));
            group_cells(&mut cells, name, group);
            Row { cells, tail: String::new(), mark }
        };
        let mut rows: Vec<Row> = now[..pass.plan.limit_of(now.len())]
            .iter()
            .map(|(name, group)| match &old {
                Some(old) if !old.contains(name) => row(name, group, Mark::New),
                _ => row(name, group, Mark::Same),
            })
            .collect();
        let gone = before.unwrap_or_default().iter();
        let gone = gone.filter(|(name, _)| !new.contains(name));
        rows.extend(gone.map(|(name, group)| row(name, group, Mark::Gone)));
        rows.truncate(pass.plan.limit_of(rows.len()));
        rows
    }
}

/// `16:05:12Z  312 sockets  12 opened, 3 closed in 41.0 s`.
fn title(pass: &Pass<'_>) -> String {
    let at = pass.at.to_string();
    let sockets: usize = pass.places.iter().map(|place| place.snapshot.len()).sum();
    let Totals { since, opened, closed, missed } = pass.totals;
    let missed =
        if missed { " (some that were there for a moment were missed)" } else { "" };
    format!(
        "{}Z  {}  {} opened, {} closed in {}{missed}",
        at.get(11..19).unwrap_or_default(),
        plural(sockets as u64, "socket"),
        count(opened),
        count(closed),
        seconds(since.elapsed().as_secs_f64()),
    )
}

fn sign(mark: Mark) -> &'static str {
    match mark {
        Mark::Same => " ",
        Mark::New => "+",
        Mark::Gone => "-",
    }
}

/// All groups of all sockets.
fn groups(pass: &Pass<'_>) -> Vec<(String, Group)> {
    let plan = pass.plan;
    let mut collector = Collector::default();
    for place in pass.places {
        let context = place.context(plan, pass.names);
        for (_, socket) in place.snapshot.iter() {
            let listed = socket.listed();
            collector.take(plan, &Shown { listed: &listed, context: &context });
        }
    }
    collector.groups(plan)
}

/// Where a socket stands in the table.
struct Ranked<'a> {
    /// What `--sort` asks for.
    key: Option<SortKey>,
    is_marked: bool,
    /// In the order of the namespaces, then listeners, then by addresses.
    order: (usize, bool, Kind, Option<SocketAddr>, Option<SocketAddr>, u64),
    mark: Mark,
    socket: &'a Socket,
}

impl<'a> Ranked<'a> {
    fn of(pass: &Pass<'a>, at: usize, socket: &'a Socket, mark: Mark) -> Self {
        let row = &socket.row;
        let key = pass.plan.sort.map(|sort| {
            let listed = socket.listed();
            let context = pass.places[at].context(pass.plan, pass.names);
            SortKey::of(sort, &Shown { listed: &listed, context: &context })
        });
        let tie = row.cookie.map_or(row.inode.0, |cookie| cookie.0);
        let (local, remote) = (row.local.inet(), row.remote.inet());
        let order = (at, row.state != State::Listen, row.kind, local, remote, tie);
        Self { key, is_marked: mark != Mark::Same, order, mark, socket }
    }

    /// `changes_first` where not all can be seen and nobody asked for an order.
    fn compare(&self, other: &Self, plan: &Plan, changes_first: bool) -> Ordering {
        let by_key = match (&self.key, &other.key, plan.sort) {
            (Some(one), Some(two), Some(sort)) => one.compare(two, sort.descending),
            _ if changes_first => other.is_marked.cmp(&self.is_marked),
            _ => Ordering::Equal,
        };
        by_key.then_with(|| self.order.cmp(&other.order))
    }
}

/// The headings, the first rows of all, and how many there are.
fn socket_rows(pass: &Pass<'_>, room: usize) -> (Vec<Heading>, Vec<Row>, usize) {
    let plan = pass.plan;
    let mut sockets = Vec::new();
    for (at, place) in pass.places.iter().enumerate() {
        let mut opened: HashSet<&Key> = HashSet::new();
        for change in &place.changes {
            match change {
                Change::Opened(key) if !place.is_first() => drop(opened.insert(key)),
                Change::Opened(_) | Change::Changed(..) => {}
                Change::Closed(closed) => {
                    sockets.push(Ranked::of(pass, at, &closed.socket, Mark::Gone));
                }
            }
        }
        sockets.extend(place.snapshot.iter().map(|(key, socket)| {
            let mark = if opened.contains(key) { Mark::New } else { Mark::Same };
            Ranked::of(pass, at, socket, mark)
        }));
    }
    let limit = plan.limit_of(sockets.len());
    let changes_first = sockets.len() > room.min(limit);
    sockets.sort_by(|one, other| one.compare(other, plan, changes_first));
    sockets.truncate(limit);
    let all = sockets.len();
    let mut filler = Filler::of(plan);
    let rows = sockets.iter().take(room).map(|one| {
        let listed = one.socket.listed();
        let context = pass.places[one.order.0].context(plan, pass.names);
        filler.fill(&Shown { listed: &listed, context: &context });
        let mut cells = Cells::default();
        cells.push(|to| to.push_str(sign(one.mark)));
        filler.cells.iter().for_each(|cell| cells.push(|to| to.push_str(cell)));
        Row { cells, tail: filler.tail.clone(), mark: one.mark }
    });
    let rows = rows.collect();
    (filler.headings(), rows, all)
}

/// How many rows fit, with a line that says how many do not.
fn fitting(rows: &[Row], all: usize, left: Option<usize>) -> usize {
    let Some(left) = left else { return rows.len() };
    let lines = |row: &Row| 1 + row.tail.lines().count();
    if all == rows.len() && rows.iter().map(lines).sum::<usize>() <= left {
        return all;
    }
    let mut used = 1;
    let fits = rows.iter().take_while(|row| {
        used += lines(row);
        used <= left
    });
    fits.count()
}

/// The rows in their columns, below the headings.
fn laid_out(headings: Vec<Heading>, rows: &[Row], header: bool) -> Vec<Line> {
    let mark = Heading { title: String::new(), align: Align::Left };
    let headings = std::iter::once(mark).chain(headings).collect();
    let mut table = StreamTable::new(Vec::new(), headings, header);
    // Writing to a Vec does not fail.
    for row in rows {
        let _ = table.row(&row.cells, &row.tail);
    }
    let text = table.finish().unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let first = header.then_some(Mark::Same);
    let marks = rows
        .iter()
        .flat_map(|row| std::iter::repeat_n(row.mark, 1 + row.tail.lines().count()));
    let line =
        |(text, mark): (&str, Mark)| Line { text: text.replace('\t', "        "), mark };
    text.lines().zip(first.into_iter().chain(marks)).map(line).collect()
}
