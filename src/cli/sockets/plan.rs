//! What was typed, as what is to be done.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{Args, Format, GroupKey, Letters, OwnersBy, OwnersName, Via};
use super::{filter, metrics, process};
use crate::cli::exit::Failure;
use crate::cli::output::Output;
use crate::host::ProcRoot;
use crate::sockets::filter::{Able, AddressFamily, Filter, FilterError, Needs};
use crate::sockets::listing::Look;
use crate::sockets::model::{State, States};
use crate::sockets::owners::{By, LookUp};
use crate::sockets::select::{Details, Selection, Tables, Versions};
use crate::sockets::show::columns::{self, Column};
use crate::sockets::show::detail::Wanted;
use crate::sockets::show::document::Groups;
use crate::sockets::source::Lack;

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
    /// Whose sockets alone.
    pub(super) pid: Option<u32>,
    /// Whether every owner was asked for by name.
    pub(super) everyones: bool,
    /// Whether the columns were chosen by name.
    pub(super) chosen: bool,
    pub(super) proc_root: PathBuf,
    /// How owners are looked up.
    owners_by: By,
    pub(super) filter: Filter,
    pub(super) filter_needs: Needs,
    pub(super) at: Where,
    pub(super) unbound: bool,
    /// How often to list again.
    pub(super) watch: Option<Duration>,
    /// Whether tables were named, so that one that is lacking is missed.
    names_tables: bool,
}

/// Which network namespaces are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Where {
    Here,
    In(String),
    Everywhere,
}

/// What is wrong with a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wrong {
    Option(String),
    Filter(FilterError),
}

impl Wrong {
    /// As a failure; where in a filter it is stands on lines of their own before.
    pub(super) fn tell(self, output: &Output) -> Failure {
        match self {
            Self::Option(why) => Failure::usage(why),
            Self::Filter(error) => {
                output.show(&error.pointed_at());
                Failure::usage(error)
            }
        }
    }
}

impl From<String> for Wrong {
    fn from(why: String) -> Self {
        Self::Option(why)
    }
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
    /// What is wrong, in one line or with its place in the filter.
    pub(super) fn of(args: &Args) -> Result<Self, Wrong> {
        let letters = &args.meant_letters();
        let chosen = chosen_columns(args)?;
        let (sort, group_sort) = orders(args)?;
        let root = ProcRoot::new(args.proc_root.clone());
        let filter = filter::parse(&args.filter, address_family(letters), &root)?;
        let filter_needs = filter.needs();
        let tables = tables(letters, &filter);
        let at = match (&args.netns, args.all_netns) {
            (Some(spec), _) => Where::In(spec.clone()),
            (None, true) => Where::Everywhere,
            (None, false) => Where::Here,
        };
        let format = if args.json { Format::Json } else { args.format };
        let counts = (args.by.is_some() || args.count) && !args.kill;
        if format == Format::Openmetrics && !(counts && args.watch.is_none()) {
            return Err(Wrong::Option(metrics::FORM.into()));
        }
        let mut columns = match chosen.is_empty() {
            true => default_columns(letters, tables, at == Where::Everywhere),
            false => chosen.clone(),
        };
        if format == Format::Csv && chosen.is_empty() {
            columns.extend(detail_columns(letters));
        }
        if chosen.is_empty() && (args.pid.is_some() || args.fd.is_some()) {
            process::show_all_owners(&mut columns);
        }
        let needs = needs(args, &columns, sort, &filter_needs);
        let look = look(args, needs.owners)?;
        let mut details =
            Details { unix_peers: tables.has(Tables::UNIX), ..needs.details };
        // Tells subflows of MPTCP, which are not closed.
        details.tcp_info |= args.kill;
        Ok(Self {
            selection: Selection {
                tables,
                versions: versions(letters, &filter),
                states: states(letters, &filter),
                details,
                program: None,
            },
            look,
            columns,
            detail: Wanted {
                timer: letters.options,
                extended: letters.extended,
                memory: letters.memory,
                info: letters.info,
            },
            groups: match args.fd {
                Some(_) => Groups::ALL,
                None => groups(letters, &chosen),
            },
            oneline: letters.oneline,
            header: !letters.no_header,
            format,
            sort,
            group_sort,
            limit: args.limit,
            count: args.count,
            by: args.by,
            via: args.via,
            pid: args.pid,
            everyones: args.owners == Some(OwnersName::All),
            chosen: !chosen.is_empty(),
            proc_root: args.proc_root.clone(),
            owners_by: match args.owners_by {
                OwnersBy::Auto => By::Auto,
                OwnersBy::Bpf => By::Bpf,
                OwnersBy::Proc => By::Proc,
            },
            filter,
            filter_needs,
            at,
            unbound: args.lists_unbound(),
            watch: watch(args)?,
            names_tables: letters.any_table(),
        })
    }

    /// Whether a filter narrows it.
    pub(super) fn has_filter(&self) -> bool {
        self.filter.expr().is_some() || self.filter.names_states()
    }

    /// Whether the processes are those of this host, and not of a fixture tree.
    pub(super) fn is_this_host(&self) -> bool {
        self.proc_root == Path::new("/proc")
    }

    /// Where and how owners are looked up.
    pub(super) fn look_up(&self) -> LookUp<'_> {
        LookUp { proc_root: &self.proc_root, by: self.owners_by }
    }

    /// What the kernel may be asked to filter by: no marks, for a right that is missing
    /// would cost all rows.
    pub(super) fn able(&self) -> Able<'static> {
        Able::default()
    }

    /// Whether what a source lacks matters to this listing.
    pub(super) fn minds(&self, lack: &Lack) -> bool {
        // Of all tables those that this kernel does not have are not missed.
        self.names_tables || self.via == Via::Proc || lack.what == "sock_diag"
    }

    /// Whether sums are printed, and no row.
    pub(super) fn sums(&self) -> bool {
        self.count || self.by.is_some()
    }

    /// Whether every row must have come before the first is printed.
    pub(super) fn collects(&self) -> bool {
        self.sort.is_some() || self.sums()
    }

    /// How many of so many rows are to be shown.
    pub(super) fn limit_of(&self, rows: usize) -> usize {
        self.limit.and_then(|n| usize::try_from(n).ok()).map_or(rows, |n| n.min(rows))
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

/// What a watch can be asked for: a table on and on, or a stream of events.
fn watch(args: &Args) -> Result<Option<Duration>, String> {
    if args.watch.is_none() {
        return Ok(None);
    }
    let format = if args.json { Format::Json } else { args.format };
    let is_stream = format == Format::Ndjson;
    match args {
        _ if matches!(format, Format::Json | Format::Csv) => {
            Err("--watch prints a table, or events with --format ndjson: there is no \
                 end to a document or a sheet"
                .into())
        }
        Args { sort: Some(_), .. } | Args { limit: Some(_), .. } if is_stream => {
            Err("--watch --format ndjson gives events as they come: --sort and --limit \
                 are for a table"
                .into())
        }
        Args { count: true, .. } | Args { by: Some(_), .. } if is_stream => {
            Err("--watch --format ndjson gives events: --count and --by are for a table"
                .into())
        }
        Args { pid: Some(pid), .. } => {
            Err(format!("--watch follows a filter: write pid = {pid} for --pid {pid}"))
        }
        Args { unbound: true, .. } => {
            Err("--watch sees what is in the kernel's tables: --unbound is for one list"
                .into())
        }
        _ => Ok(args.watch),
    }
}

/// The columns that were named.
fn chosen_columns(args: &Args) -> Result<Vec<Column>, String> {
    let column = |name: &String| {
        Column::parse(name).map_err(|why| format!("--columns {name}: {why}"))
    };
    args.columns.iter().map(column).collect()
}

/// The order of rows, and that of groups.
fn orders(args: &Args) -> Result<(Option<Sort>, GroupSort), String> {
    Ok(match args.sort.as_deref() {
        Some(text) if args.by.is_some() => (None, GroupSort::parse(text)?),
        Some(text) => (Some(Sort::parse(text)?), GroupSort::DEFAULT),
        None => (None, GroupSort::DEFAULT),
    })
}

/// How far owners are looked for; `needed`: something that is shown tells of them.
fn look(args: &Args, needed: bool) -> Result<Look, String> {
    let look = match (args.owners, needed || args.unbound) {
        (Some(OwnersName::None), _) | (None, false) => Look::None,
        (Some(OwnersName::First), _) => Look::First,
        (Some(OwnersName::All), _) | (None, true) => Look::All,
    };
    if args.unbound && look != Look::All && args.pid.is_none() {
        return Err(
            "--unbound finds sockets by their owners: it needs --owners all".into()
        );
    }
    Ok(look)
}

/// What all that is shown, sorted and filtered by needs.
fn needs(
    args: &Args,
    columns: &[Column],
    sort: Option<Sort>,
    filter: &Needs,
) -> columns::Needs {
    use GroupKey::{Container, Pid, Process};
    let letters = &args.letters;
    let mut all = columns::Needs {
        details: Details {
            tcp_info: letters.info || filter.tcp_info,
            memory: letters.memory || filter.memory,
            options: letters.extended,
            unix_peers: filter.unix_peers,
        },
        owners: filter.owners || filter.container,
    };
    // Groups and counts show no column.
    let shown = if args.by.is_some() || args.count { &[] } else { columns };
    for column in shown.iter().copied().chain(sort.map(|sort| sort.column)) {
        let needs = column.needs();
        all.owners |= needs.owners;
        all.details.tcp_info |= needs.details.tcp_info;
        all.details.memory |= needs.details.memory;
        all.details.options |= needs.details.options;
    }
    all.owners |= matches!(args.by, Some(Process | Pid | Container));
    all
}

/// How an address in a filter is read, as ss's letters imply.
fn address_family(letters: &Letters) -> AddressFamily {
    match letters {
        _ if letters.unix => AddressFamily::Unix,
        _ if letters.packet => AddressFamily::Link,
        _ if letters.ipv4 && !letters.ipv6 => AddressFamily::Inet,
        _ if letters.ipv6 && !letters.ipv4 => AddressFamily::Inet6,
        _ if letters.netlink => AddressFamily::Netlink,
        _ => AddressFamily::Unspecified,
    }
}

fn versions(letters: &Letters, filter: &Filter) -> Versions {
    let (v4, v6) = match (letters.ipv4, letters.ipv6) {
        (true, false) => (true, false),
        (false, true) => (false, true),
        _ => (true, true),
    };
    let within = filter.versions();
    Versions { v4: v4 && within.v4, v6: v6 && within.v6 }
}

/// ss's selection of tables: those named; else every one, or those that have the IP
/// version that was named. Without letters, our own. What cannot match is left out; where
/// that is all of our own, those that can.
fn tables(letters: &Letters, filter: &Filter) -> Tables {
    let mut named = Tables::NONE;
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
            named |= table;
        }
    }
    if !named.is_empty() {
        return named;
    }
    let can_match = filter.tables();
    let default = match letters {
        _ if letters.ipv4 || letters.ipv6 => Tables::INET,
        _ if letters.any() => Tables::ALL,
        _ => Tables::TCP | Tables::MPTCP | Tables::UDP,
    };
    let both = default.and(can_match);
    if both.is_empty() { can_match } else { both }
}

/// ss's selection of states: connected ones; -l what listens; -a all; or those that the
/// filter names. Packet and netlink sockets are never connected: where they are named, so
/// are those that are not.
fn states(letters: &Letters, filter: &Filter) -> States {
    let unconnected = States::LISTEN | States::CLOSE;
    let connected = States::CONNECTED - State::SynRecv.into();
    let can_match = filter.states().unwrap_or(States::ALL);
    if filter.names_states() {
        return can_match;
    }
    can_match.and(match letters {
        _ if letters.all => States::ALL,
        _ if letters.listening => unconnected,
        _ if letters.packet || letters.netlink => connected | States::CLOSE,
        _ if letters.any() => connected,
        _ => unconnected | States::CONNECTED,
    })
}

/// ss's order, with the kind first where several are shown.
fn default_columns(letters: &Letters, tables: Tables, everywhere: bool) -> Vec<Column> {
    let mut columns = Vec::new();
    if everywhere {
        columns.push(Column::Netns);
    }
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
