//! What was typed, as what is to be done.

use std::path::PathBuf;

use super::args::{Args, Format, GroupKey, Letters, OwnersName, Via};
use crate::sockets::listing::Look;
use crate::sockets::model::{State, States};
use crate::sockets::select::{Details, Selection, Tables, Versions};
use crate::sockets::show::columns::Column;
use crate::sockets::show::detail::Wanted;
use crate::sockets::show::document::Groups;

/// A validated command line.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) selection: Selection,
    pub(super) look: Look,
    pub(super) columns: Vec<Column>,
    pub(super) detail: Wanted,
    pub(super) groups: Groups,
    pub(super) oneline: bool,
    pub(super) header: bool,
    pub(super) format: Format,
    pub(super) sort: Option<Sort>,
    pub(super) group_sort: GroupSort,
    pub(super) limit: Option<u64>,
    pub(super) count: bool,
    pub(super) by: Option<GroupKey>,
    pub(super) via: Via,
    pub(super) proc_root: PathBuf,
}

/// The order of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sort {
    pub(super) column: Column,
    pub(super) descending: bool,
}

/// The order of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupSort {
    pub(super) column: GroupColumn,
    pub(super) descending: bool,
}

/// What groups are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupColumn {
    Key,
    Sockets,
    RecvQ,
    SendQ,
}

impl Plan {
    /// # Errors
    /// One line that says what is wrong.
    pub(super) fn of(args: &Args) -> Result<Self, String> {
        let letters = &args.letters;
        let column = |name: &String| {
            Column::parse(name).map_err(|why| format!("--columns {name}: {why}"))
        };
        let chosen: Vec<Column> =
            args.columns.iter().map(column).collect::<Result<_, _>>()?;
        let (mut sort, mut group_sort) = (None, GroupSort::DEFAULT);
        match args.sort.as_deref() {
            Some(text) if args.by.is_some() => group_sort = GroupSort::parse(text)?,
            Some(text) => sort = Some(Sort::parse(text)?),
            None => {}
        }
        let tables = tables(letters);
        let format = if args.json { Format::Json } else { args.format };
        let mut columns = match chosen.is_empty() {
            true => default_columns(letters, tables),
            false => chosen.clone(),
        };
        if format == Format::Csv && chosen.is_empty() {
            columns.extend(detail_columns(letters));
        }
        let mut details = Details {
            tcp_info: letters.info,
            memory: letters.memory,
            options: letters.extended,
            unix_peers: tables.has(Tables::UNIX),
        };
        let mut owners = false;
        for needed in columns.iter().chain(sort.iter().map(|sort| &sort.column)) {
            let needs = needed.needs();
            owners |= needs.owners;
            details.tcp_info |= needs.details.tcp_info;
            details.memory |= needs.details.memory;
            details.options |= needs.details.options;
        }
        if let Some(key) = args.by {
            use GroupKey::{Container, Pid, Process};
            owners = matches!(key, Process | Pid | Container);
        } else if args.count {
            owners = false;
        }
        let look = match (args.owners, owners) {
            (Some(OwnersName::None), _) | (None, false) => Look::None,
            (Some(OwnersName::First), _) => Look::First,
            (Some(OwnersName::All), _) | (None, true) => Look::All,
        };
        let versions = match (letters.ipv4, letters.ipv6) {
            (true, false) => Versions { v4: true, v6: false },
            (false, true) => Versions { v4: false, v6: true },
            _ => Versions::BOTH,
        };
        Ok(Self {
            selection: Selection { tables, versions, states: states(letters), details },
            look,
            columns,
            detail: Wanted {
                timer: letters.options,
                extended: letters.extended,
                memory: letters.memory,
                info: letters.info,
            },
            groups: groups(letters, &chosen),
            oneline: letters.oneline,
            header: !letters.no_header,
            format,
            sort,
            group_sort,
            limit: args.limit,
            count: args.count,
            by: args.by,
            via: args.via,
            proc_root: args.proc_root.clone(),
        })
    }

    /// Whether sums are printed, and no row.
    pub(super) fn sums(&self) -> bool {
        self.count || self.by.is_some()
    }

    /// Whether every row must have come before the first is printed.
    pub(super) fn collects(&self) -> bool {
        self.sort.is_some() || self.sums()
    }

    /// The limit, where it ends the reading too.
    pub(super) fn stream_limit(&self) -> Option<u64> {
        self.limit.filter(|_| !self.collects())
    }
}

impl Sort {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, descending) = direction(text);
        let column =
            Column::parse(name).map_err(|why| format!("--sort {text}: {why}"))?;
        Ok(Self { column, descending })
    }
}

impl GroupSort {
    /// The largest group first.
    const DEFAULT: Self = Self { column: GroupColumn::Sockets, descending: true };

    fn parse(text: &str) -> Result<Self, String> {
        let (name, descending) = direction(text);
        let column = match name.to_ascii_lowercase().replace('_', "-").as_str() {
            "key" => GroupColumn::Key,
            "sockets" => GroupColumn::Sockets,
            "recv-q" => GroupColumn::RecvQ,
            "send-q" => GroupColumn::SendQ,
            _ => {
                return Err(format!(
                    "--sort {text}: groups are sorted by key, sockets, recv-q or send-q"
                ));
            }
        };
        Ok(Self { column, descending })
    }
}

/// `-COLUMN` is COLUMN, the largest first.
fn direction(text: &str) -> (&str, bool) {
    text.strip_prefix('-').map_or((text, false), |name| (name, true))
}

/// ss's selection of tables: those named; else every one, or those that have the IP
/// version that was named. Without letters, our own.
fn tables(letters: &Letters) -> Tables {
    let mut tables = Tables::NONE;
    for (wanted, table) in [
        (letters.tcp, Tables::TCP),
        (letters.udp, Tables::UDP),
        (letters.raw, Tables::RAW),
        (letters.unix, Tables::UNIX),
        (letters.mptcp, Tables::MPTCP),
        (letters.sctp, Tables::SCTP),
        (letters.packet, Tables::PACKET),
        (letters.netlink, Tables::NETLINK),
    ] {
        if wanted {
            tables |= table;
        }
    }
    match letters {
        _ if !tables.is_empty() => tables,
        _ if letters.ipv4 || letters.ipv6 => Tables::INET,
        _ if letters.any() => Tables::ALL,
        _ => Tables::TCP | Tables::MPTCP | Tables::UDP,
    }
}

/// ss's selection of states: connected ones; -l what listens; -a all. Packet and netlink
/// sockets are never connected: where they are named, so are those that are not.
fn states(letters: &Letters) -> States {
    let unconnected = States::LISTEN | States::CLOSE;
    let connected = States::CONNECTED - State::SynRecv.into();
    match letters {
        _ if letters.all => States::ALL,
        _ if letters.listening => unconnected,
        _ if letters.packet || letters.netlink => connected | States::CLOSE,
        _ if letters.any() => connected,
        _ => unconnected | States::CONNECTED,
    }
}

/// ss's order, with the kind first where several are shown.
fn default_columns(letters: &Letters, tables: Tables) -> Vec<Column> {
    let mut columns = Vec::new();
    if !tables.is_one() {
        columns.push(Column::Proto);
    }
    columns.extend([
        Column::State,
        Column::RecvQ,
        Column::SendQ,
        Column::Local,
        Column::Remote,
    ]);
    if letters.processes || !letters.any() {
        columns.push(Column::Process);
    }
    columns.push(Column::Note);
    columns
}

/// What a JSON object has beyond the keys of every one.
fn groups(letters: &Letters, chosen: &[Column]) -> Groups {
    let has = |column| chosen.contains(&column);
    Groups {
        tcp_info: letters.info || chosen.iter().any(|c| c.needs().details.tcp_info),
        memory: letters.memory || has(Column::Memory),
        timer: letters.options || has(Column::Timer),
        extended: letters.extended
            || has(Column::Cgroup)
            || has(Column::Mark)
            || has(Column::Options),
        container: has(Column::Container),
    }
}

/// What -o, -e, -m and -i append to a line, as columns of their own.
fn detail_columns(letters: &Letters) -> Vec<Column> {
    let mut columns = Vec::new();
    if letters.options {
        columns.push(Column::Timer);
    }
    if letters.extended {
        use Column::{Cgroup, Cookie, Inode, Interface, Mark, Options, User};
        columns.extend([User, Inode, Cookie, Interface, Mark, Cgroup, Options]);
    }
    if letters.memory {
        columns.push(Column::Memory);
    }
    if letters.info {
        columns.push(Column::Congestion);
        columns.extend(Column::all().filter(|column| matches!(column, Column::Info(_))));
    }
    columns
}
