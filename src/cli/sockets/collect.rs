//! Rows that must all have come before the first is printed: sorted, counted, grouped.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::SocketAddr;

use super::args::{Format, GroupKey};
use super::metrics;
use super::plan::{GroupColumn, GroupSort, Plan, Sort};
use super::print::Printer;
use crate::render::table::{Align, Cells, Heading, StreamTable};
use crate::sockets::listing::{Listed, NoOwner};
use crate::sockets::model::Owner;
use crate::sockets::row::Row;
use crate::sockets::show::address;
use crate::sockets::show::columns::Column;
use crate::sockets::show::document::groups::{GroupDoc, GroupsDocument};
use crate::sockets::show::{Context, Shown};

/// Keeps what the plan needs of each row.
#[derive(Debug, Default)]
pub(super) struct Collector {
    kept: Vec<Kept>,
    count: u64,
    groups: HashMap<String, Group>,
}

/// One row, kept.
#[derive(Debug)]
struct Kept {
    key: Key,
    row: Row<'static>,
    owners: Vec<Owner>,
    no_owner: Option<NoOwner>,
}

/// What a row is sorted by. What is not known comes last, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Number(u64),
    Address(SocketAddr),
    Text(String),
    Unknown,
}

/// What a group adds up to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Group {
    pub(super) sockets: u64,
    pub(super) recv_q: u64,
    pub(super) send_q: u64,
}

impl Group {
    fn document(self, key: &str) -> GroupDoc<'_> {
        let Self { sockets, recv_q, send_q } = self;
        GroupDoc { key, sockets, recv_q, send_q }
    }
}

impl Collector {
    pub(super) fn take(&mut self, plan: &Plan, shown: &Shown<'_>) {
        self.count += 1;
        if let Some(by) = plan.by {
            self.group(by, shown);
        } else if !plan.count {
            let listed = shown.listed;
            self.kept.push(Kept {
                key: plan.sort.map_or(Key::Unknown, |sort| Key::of(sort, shown)),
                row: listed.row.clone().into_owned(),
                owners: listed.owners.to_vec(),
                no_owner: listed.no_owner,
            });
        }
    }

    fn group(&mut self, by: GroupKey, shown: &Shown<'_>) {
        let row = shown.listed.row;
        for key in keys(by, shown) {
            let group = self.groups.entry(key).or_default();
            group.sockets += 1;
            // Of a listener these are its queue and its backlog, not bytes.
            if row.state != crate::sockets::model::State::Listen {
                group.recv_q += u64::from(row.recv_q);
                group.send_q += u64::from(row.send_q.unwrap_or(0));
            }
        }
    }

    pub(super) fn print(
        mut self,
        plan: &Plan,
        context: &Context<'_>,
        printer: Option<Box<dyn Printer + Send>>,
    ) -> io::Result<()> {
        if let Some(by) = plan.by {
            let groups = self.groups(plan);
            return print_groups(plan, by, &groups[..plan.limit_of(groups.len())]);
        }
        if plan.count {
            return print_count(plan, self.count);
        }
        let Some(mut printer) = printer else { return Ok(()) };
        if let Some(sort) = plan.sort {
            self.kept.sort_by(|a, b| a.key.compare(&b.key, sort.descending));
        }
        let limit = plan.limit_of(self.kept.len());
        for Kept { row, owners, no_owner, .. } in &self.kept[..limit] {
            let listed = Listed { row, owners, no_owner: *no_owner };
            printer.row(&Shown { listed: &listed, context })?;
        }
        printer.finish()
    }

    /// All groups, in order.
    pub(super) fn groups(self, plan: &Plan) -> Vec<(String, Group)> {
        let mut sorted: Vec<(String, Group)> = self.groups.into_iter().collect();
        sorted.sort_by(|one, other| plan.group_sort.compare(one, other));
        sorted
    }
}

/// The headings of a table of groups.
pub(super) fn group_headings(by: GroupKey) -> Vec<Heading> {
    let heading = |title: &str, align| Heading { title: title.to_owned(), align };
    vec![
        heading("Sockets", Align::Right),
        heading("Recv-Q", Align::Right),
        heading("Send-Q", Align::Right),
        heading(&key_name(by), Align::Left),
    ]
}

/// Adds the cells of a group.
pub(super) fn group_cells(cells: &mut Cells, key: &str, group: &Group) {
    for number in [group.sockets, group.recv_q, group.send_q] {
        cells.push(|to| to.push_str(&number.to_string()));
    }
    cells.push(|to| to.push_str(key));
}

/// The name of a key, as it is typed.
fn key_name(by: GroupKey) -> String {
    clap::ValueEnum::to_possible_value(&by)
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

impl Key {
    pub(super) fn of(sort: Sort, shown: &Shown<'_>) -> Self {
        let (column, row) = (sort.column, shown.listed.row);
        if column.is_number() {
            return column.number(shown).map_or(Self::Unknown, Self::Number);
        }
        let address = match column {
            Column::Local => row.local.inet(),
            Column::Remote => row.remote.inet(),
            _ => None,
        };
        if let Some(address) = address {
            return Self::Address(address);
        }
        let mut text = String::new();
        column.write(&mut text, shown);
        if text.is_empty() { Self::Unknown } else { Self::Text(text) }
    }

    pub(super) fn compare(&self, other: &Self, descending: bool) -> Ordering {
        let order = match (self, other) {
            (Self::Unknown, _) | (_, Self::Unknown) => {
                return (*self == Self::Unknown).cmp(&(*other == Self::Unknown));
            }
            (Self::Number(a), Self::Number(b)) => a.cmp(b),
            (Self::Address(a), Self::Address(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Number(_), _) | (Self::Address(_), Self::Text(_)) => Ordering::Less,
            (_, Self::Number(_)) | (Self::Text(_), Self::Address(_)) => Ordering::Greater,
        };
        if descending { order.reverse() } else { order }
    }
}

impl GroupSort {
    fn compare(
        self,
        (a, one): &(String, Group),
        (b, other): &(String, Group),
    ) -> Ordering {
        let order = match self.column {
            GroupColumn::Key => a.cmp(b),
            GroupColumn::Sockets => one.sockets.cmp(&other.sockets),
            GroupColumn::RecvQ => one.recv_q.cmp(&other.recv_q),
            GroupColumn::SendQ => one.send_q.cmp(&other.send_q),
        };
        let order = if self.descending { order.reverse() } else { order };
        order.then_with(|| a.cmp(b))
    }
}

/// What a row counts under: each process that has it, where processes are asked for.
fn keys(by: GroupKey, shown: &Shown<'_>) -> Vec<String> {
    let row = shown.listed.row;
    let column = |column: Column| {
        let mut text = String::new();
        column.write(&mut text, shown);
        vec![text]
    };
    let port = |address: Option<std::net::SocketAddr>| {
        vec![address.map_or("-".into(), |address| address.port().to_string())]
    };
    let each_owner = |name: &dyn Fn(&Owner) -> String| {
        let mut names: Vec<String> = shown.listed.owners.iter().map(name).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            let why = shown.listed.no_owner.map_or("-", NoOwner::name);
            names.push(format!("({why})"));
        }
        names
    };
    match by {
        GroupKey::Process => each_owner(&|owner| owner.comm.to_string()),
        GroupKey::Pid => each_owner(&|owner| format!("{}[{}]", owner.comm, owner.pid)),
        GroupKey::State => column(Column::State),
        GroupKey::User => column(Column::User),
        GroupKey::Remote => column(Column::Remote),
        GroupKey::Netns => column(Column::Netns),
        GroupKey::Container => {
            vec![shown.container().unwrap_or_else(|| "-".into())]
        }
        GroupKey::RemoteAddr => {
            let mut text = String::new();
            match row.remote.inet() {
                Some(peer) if !peer.ip().is_unspecified() => {
                    address::ip(&mut text, peer.ip());
                }
                _ => text.push('-'),
            }
            vec![text]
        }
        GroupKey::LocalPort => port(row.local.inet()),
        GroupKey::RemotePort => {
            port(row.remote.inet().filter(|remote| remote.port() != 0))
        }
    }
}

fn print_count(plan: &Plan, count: u64) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match plan.format {
        Format::Table => writeln!(out, "{count}"),
        Format::Csv => writeln!(out, "sockets\n{count}"),
        Format::Json | Format::Ndjson => writeln!(out, "{{\"sockets\":{count}}}"),
        Format::Openmetrics => metrics::count(&mut out, count),
    }?;
    out.flush()
}

fn print_groups(plan: &Plan, by: GroupKey, sorted: &[(String, Group)]) -> io::Result<()> {
    let name = key_name(by);
    let mut out = io::BufWriter::new(io::stdout().lock());
    match plan.format {
        Format::Json => {
            let groups = sorted.iter().map(|(key, group)| group.document(key)).collect();
            let document = GroupsDocument::new(&name, groups);
            serde_json::to_writer(&mut out, &document)?;
            writeln!(out)?;
        }
        Format::Ndjson => {
            for (key, group) in sorted {
                crate::render::document::ndjson(&mut out, &group.document(key))?;
            }
        }
        Format::Csv => {
            let mut csv = csv::Writer::from_writer(&mut out);
            let write = |csv: &mut csv::Writer<_>, cells: [&str; 4]| {
                csv.write_record(cells).map_err(crate::render::document::csv_error)
            };
            write(&mut csv, ["key", "sockets", "recv_q", "send_q"])?;
            for (key, g) in sorted {
                let [a, b, c] = [g.sockets, g.recv_q, g.send_q].map(|n| n.to_string());
                write(&mut csv, [key, &a, &b, &c])?;
            }
            csv.flush()?;
        }
        Format::Openmetrics => metrics::groups(&mut out, &name, sorted)?,
        Format::Table => {
            let mut table = StreamTable::new(&mut out, group_headings(by), plan.header);
            let mut cells = Cells::default();
            for (key, group) in sorted {
                cells.clear();
                group_cells(&mut cells, key, group);
                table.row(&cells, "")?;
            }
            table.finish()?;
        }
    }
    out.flush()
}
