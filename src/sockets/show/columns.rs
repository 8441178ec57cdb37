//! The columns that a table, CSV, `--columns` and `--sort` know.

use std::fmt::Write;

use super::Shown;
use super::address::{self, End, decimal};
use super::{detail, owners};
use crate::kernel::sock_diag::escape;
use crate::kernel::tcp_info::TcpInfo;
use crate::render::table::{Align, Heading};
use crate::render::{count, micros};
use crate::sockets::model::Inode;
use crate::sockets::select::Details;

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Column {
    /// The kind.
    Proto,
    /// The state.
    State,
    /// Bytes to be read; of a listener, its accept queue.
    RecvQ,
    /// Bytes to be sent; of a listener, its backlog.
    SendQ,
    /// Its own address.
    Local,
    /// Its peer's.
    Remote,
    /// Whose it is: the first owner.
    Process,
    /// Whose it is: every owner.
    Owners,
    /// What is to be noticed of a listener.
    Note,
    /// Who made it, by name.
    User,
    /// Who made it, by number.
    Uid,
    /// Its inode.
    Inode,
    /// Its cookie.
    Cookie,
    /// The network namespace.
    Netns,
    /// The interface that it is bound to.
    Interface,
    /// SO_MARK.
    Mark,
    /// Its timer.
    Timer,
    /// SO_MEMINFO.
    Memory,
    /// Options.
    Options,
    /// The cgroup.
    Cgroup,
    /// The container or unit of its first owner.
    Container,
    /// Dropped.
    Drops,
    /// The congestion control.
    Congestion,
    /// A number of TCP_INFO.
    Info(Field),
}

/// A number of TCP_INFO that is a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// Smoothed round trip time.
    Rtt,
    /// Least round trip time.
    MinRtt,
    /// Retransmission timeout.
    Rto,
    /// Congestion window.
    Cwnd,
    /// Retransmitted in all.
    Retrans,
    /// Bytes sent.
    BytesSent,
    /// Bytes acknowledged.
    BytesAcked,
    /// Bytes received.
    BytesReceived,
    /// Segments sent.
    SegsOut,
    /// Segments received.
    SegsIn,
    /// Delivery rate.
    DeliveryRate,
    /// Pacing rate.
    PacingRate,
    /// Largest segment sent.
    Mss,
    /// Not acknowledged.
    Unacked,
    /// Lost.
    Lost,
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Plain,
    Micros,
    BytesPerSecond,
}

struct Spec {
    column: Column,
    name: &'static str,
    title: &'static str,
    align: Align,
}

const fn left(column: Column, name: &'static str, title: &'static str) -> Spec {
    Spec { column, name, title, align: Align::Left }
}

const fn right(column: Column, name: &'static str, title: &'static str) -> Spec {
    Spec { column, name, title, align: Align::Right }
}

const SPECS: [Spec; 38] = [
    left(Column::Proto, "proto", "Netid"),
    left(Column::State, "state", "State"),
    right(Column::RecvQ, "recv-q", "Recv-Q"),
    right(Column::SendQ, "send-q", "Send-Q"),
    left(Column::Local, "local", "Local Address:Port"),
    left(Column::Remote, "remote", "Peer Address:Port"),
    left(Column::Process, "process", "Process"),
    left(Column::Owners, "owners", "Owners"),
    left(Column::Note, "note", ""),
    left(Column::User, "user", "User"),
    right(Column::Uid, "uid", "UID"),
    right(Column::Inode, "inode", "Inode"),
    left(Column::Cookie, "cookie", "Cookie"),
    left(Column::Netns, "netns", "Netns"),
    left(Column::Interface, "interface", "Interface"),
    left(Column::Mark, "mark", "Mark"),
    left(Column::Timer, "timer", "Timer"),
    left(Column::Memory, "memory", "Memory"),
    left(Column::Options, "options", "Options"),
    left(Column::Cgroup, "cgroup", "Cgroup"),
    left(Column::Container, "container", "Container"),
    right(Column::Drops, "drops", "Drops"),
    left(Column::Congestion, "congestion", "Congestion"),
    right(Column::Info(Field::Rtt), "rtt", "RTT"),
    right(Column::Info(Field::MinRtt), "min-rtt", "Min-RTT"),
    right(Column::Info(Field::Rto), "rto", "RTO"),
    right(Column::Info(Field::Cwnd), "cwnd", "Cwnd"),
    right(Column::Info(Field::Retrans), "retrans", "Retrans"),
    right(Column::Info(Field::BytesSent), "bytes-sent", "Sent"),
    right(Column::Info(Field::BytesAcked), "bytes-acked", "Acked"),
    right(Column::Info(Field::BytesReceived), "bytes-received", "Received"),
    right(Column::Info(Field::SegsOut), "segs-out", "Segs-Out"),
    right(Column::Info(Field::SegsIn), "segs-in", "Segs-In"),
    right(Column::Info(Field::DeliveryRate), "delivery-rate", "Delivery"),
    right(Column::Info(Field::PacingRate), "pacing-rate", "Pacing"),
    right(Column::Info(Field::Mss), "mss", "MSS"),
    right(Column::Info(Field::Unacked), "unacked", "Unacked"),
    right(Column::Info(Field::Lost), "lost", "Lost"),
];

/// What columns need beyond what every row has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Of the source.
    pub details: Details,
    /// Owners.
    pub owners: bool,
}

impl Column {
    /// A column by its name.
    ///
    /// # Errors
    /// One line that lists the names.
    pub fn parse(name: &str) -> Result<Self, String> {
        let wanted = name.to_ascii_lowercase().replace('_', "-");
        let found = SPECS.iter().find(|spec| spec.name == wanted);
        found.map(|spec| spec.column).ok_or_else(|| {
            let names: Vec<&str> = Self::all().map(Self::name).collect();
            format!("no such column; there are {}", names.join(", "))
        })
    }

    /// Every column, in the order in which they are explained.
    pub fn all() -> impl Iterator<Item = Self> {
        SPECS.iter().map(|spec| spec.column)
    }

    fn spec(self) -> &'static Spec {
        let found = SPECS.iter().find(|spec| spec.column == self);
        found.unwrap_or(&SPECS[0])
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// What stands above it.
    #[must_use]
    pub fn heading(self) -> Heading {
        let spec = self.spec();
        Heading { title: spec.title.to_owned(), align: spec.align }
    }

    /// Its key in CSV: snake_case, with the unit of what it counts.
    #[must_use]
    pub fn key(self) -> String {
        let name = self.name().replace('-', "_");
        match self.unit() {
            Unit::Plain => name,
            Unit::Micros => format!("{name}_us"),
            Unit::BytesPerSecond => format!("{name}_bytes_per_s"),
        }
    }

    /// What it needs.
    #[must_use]
    pub fn needs(self) -> Needs {
        let mut needs = Needs::default();
        match self {
            Self::Process | Self::Owners | Self::Container => needs.owners = true,
            // Listeners have it anyway; where it drops datagrams is asked of each socket.
            Self::Memory | Self::Drops => needs.details.memory = true,
            Self::Options => needs.details.options = true,
            Self::Congestion | Self::Info(_) => needs.details.tcp_info = true,
            _ => {}
        }
        needs
    }

    fn unit(self) -> Unit {
        match self {
            Self::Info(Field::Rtt | Field::MinRtt | Field::Rto) => Unit::Micros,
            Self::Info(Field::DeliveryRate | Field::PacingRate) => Unit::BytesPerSecond,
            _ => Unit::Plain,
        }
    }

    /// Its number of a row, where it is a number and is known.
    #[must_use]
    pub fn number(self, shown: &Shown<'_>) -> Option<u64> {
        let row = shown.listed.row;
        match self {
            Self::RecvQ => Some(row.recv_q.into()),
            Self::SendQ => row.send_q.map(u64::from),
            Self::Uid => row.uid.map(u64::from),
            Self::Inode => Some(row.inode).filter(|i| i.exists()).map(|Inode(i)| i),
            Self::Drops => row.drops.map(u64::from),
            Self::Mark => row.mark.map(u64::from),
            Self::Cookie => row.cookie.map(|cookie| cookie.0),
            Self::Timer => row.timer.map(|timer| timer.expires_ms.into()),
            Self::Info(field) => detail::tcp_info(row).and_then(|info| field.of(&info)),
            _ => None,
        }
    }

    /// Whether it sorts by its number.
    #[must_use]
    pub fn is_number(self) -> bool {
        use Column::{Cookie, Drops, Info, Inode, Mark, RecvQ, SendQ, Timer, Uid};
        matches!(
            self,
            RecvQ | SendQ | Uid | Inode | Drops | Mark | Cookie | Timer | Info(_)
        )
    }

    /// Appends its text of a row for people; nothing where it is not known.
    pub fn write(self, to: &mut String, shown: &Shown<'_>) {
        let row = shown.listed.row;
        match self {
            Self::Proto => to.push_str(&row.kind.name()),
            Self::State => to.push_str(row.state.name()),
            Self::RecvQ => decimal(to, row.recv_q),
            Self::SendQ => match row.send_q {
                Some(send_q) => decimal(to, send_q),
                None => to.push('-'),
            },
            Self::Local => address::write(to, row, End::Local, shown.context),
            Self::Remote => address::write(to, row, End::Remote, shown.context),
            Self::Process => owners::write(to, shown),
            Self::Owners => owners::write_all(to, shown),
            Self::Note => owners::write_note(to, shown),
            Self::User => user(to, shown),
            Self::Netns => {
                let _ = escape(shown.context.netns.unwrap_or("").as_bytes(), to);
            }
            Self::Interface => {
                to.push_str(shown.context.interface(row).as_deref().unwrap_or(""));
            }
            Self::Mark => {
                if let Some(mark) = row.mark {
                    let _ = write!(to, "{mark:#x}");
                }
            }
            Self::Cookie => {
                if let Some(cookie) = row.cookie {
                    let _ = write!(to, "{cookie}");
                }
            }
            Self::Timer => {
                if let Some(timer) = row.timer {
                    detail::write_timer(to, timer);
                }
            }
            Self::Memory => {
                if let Some(memory) = row.extra.as_deref().and_then(|e| e.memory) {
                    detail::write_memory(to, memory);
                }
            }
            Self::Options => options(to, shown),
            Self::Cgroup => {
                let cgroup = shown.context.cgroup(row).unwrap_or_default();
                let _ = escape(cgroup.as_bytes(), to);
            }
            Self::Container => {
                let container = shown.container().unwrap_or_default();
                let _ = escape(container.as_bytes(), to);
            }
            Self::Congestion => {
                let name = row.extra.as_deref().and_then(|e| e.congestion.as_deref());
                let _ = escape(name.unwrap_or_default(), to);
            }
            Self::Uid | Self::Inode | Self::Drops | Self::Info(_) => {
                if let Some(number) = self.number(shown) {
                    to.push_str(&self.readable(number));
                }
            }
        }
    }

    /// Appends its text of a row for programs: numbers bare, in the unit of its key.
    pub fn write_plain(self, to: &mut String, shown: &Shown<'_>) {
        match self.number(shown) {
            Some(number) if self != Self::Timer && self != Self::Cookie => {
                let _ = write!(to, "{number}");
            }
            _ if matches!(self, Self::SendQ) => {}
            _ => self.write(to, shown),
        }
    }

    fn readable(self, number: u64) -> String {
        match (self, self.unit()) {
            (_, Unit::Micros) => micros(number),
            (_, Unit::BytesPerSecond) => detail::bits_per_second(number),
            (Self::Uid | Self::Inode, _) => number.to_string(),
            _ => count(number),
        }
    }
}

impl Field {
    fn of(self, info: &TcpInfo) -> Option<u64> {
        let known = |n: Option<u64>| n.filter(|&n| n != u64::MAX);
        let wide = |n: Option<u32>| n.filter(|&n| n != u32::MAX).map(u64::from);
        match self {
            Self::Rtt => Some(info.rtt_us.into()).filter(|&rtt| rtt > 0),
            Self::MinRtt => wide(info.min_rtt_us),
            Self::Rto => Some(info.rto_us.into()),
            Self::Cwnd => Some(info.snd_cwnd.into()),
            Self::Retrans => Some(info.total_retrans.into()),
            Self::BytesSent => info.bytes_sent,
            Self::BytesAcked => info.bytes_acked,
            Self::BytesReceived => info.bytes_received,
            Self::SegsOut => wide(info.segs_out),
            Self::SegsIn => wide(info.segs_in),
            Self::DeliveryRate => known(info.delivery_rate),
            Self::PacingRate => known(info.pacing_rate),
            Self::Mss => Some(info.snd_mss.into()),
            Self::Unacked => Some(info.unacked.into()),
            Self::Lost => Some(info.lost.into()),
        }
    }
}

fn user(to: &mut String, shown: &Shown<'_>) {
    let Some(uid) = shown.listed.row.uid else { return };
    match shown.context.users.name(uid) {
        Some(name) => drop(escape(name.as_bytes(), to)),
        None => decimal(to, uid),
    }
}

fn options(to: &mut String, shown: &Shown<'_>) {
    let Some(extra) = shown.listed.row.extra.as_deref() else { return };
    for (place, name) in detail::options_of(extra.options.unwrap_or(0)).enumerate() {
        if place > 0 {
            to.push(' ');
        }
        to.push_str(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_column_has_a_name_of_its_own_that_is_read_back() {
        let names: HashSet<&str> = SPECS.iter().map(|spec| spec.name).collect();
        assert_eq!(names.len(), SPECS.len());
        for spec in &SPECS {
            assert_eq!(Column::parse(spec.name), Ok(spec.column));
            assert_eq!(spec.column.name(), spec.name);
        }
        assert_eq!(Column::parse("Recv_Q"), Ok(Column::RecvQ));
        let error = Column::parse("prot").unwrap_err();
        assert!(error.starts_with("no such column; there are proto, state,"), "{error}");
    }

    #[test]
    fn a_key_names_the_unit() {
        assert_eq!(Column::Info(Field::Rtt).key(), "rtt_us");
        assert_eq!(Column::RecvQ.key(), "recv_q");
    }
}
