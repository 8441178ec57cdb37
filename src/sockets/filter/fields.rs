//! The fields that a filter can ask for, and their names.

use super::nearest::nearest;
use super::units::Unit;
#[cfg(doc)]
use crate::kernel::{sock_diag::SkMem, tcp_info::TcpInfo};

/// A field that is a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NumberField {
    /// An owner's process id.
    Pid,
    /// Who made the socket.
    Uid,
    /// Its inode.
    Inode,
    /// Bytes received and not read; of a listener, the length of its accept queue.
    RecvQ,
    /// Bytes not acknowledged; of a listener, its effective backlog.
    SendQ,
    /// Connections or datagrams dropped.
    Drops,
    /// A field of SO_MEMINFO.
    Memory(MemoryField),
    /// A field of TCP_INFO.
    Tcp(TcpField),
}

/// A number of SO_MEMINFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemoryField {
    /// [`SkMem::rmem_alloc`]
    RmemAlloc,
    /// [`SkMem::rcvbuf`]
    Rcvbuf,
    /// [`SkMem::wmem_alloc`]
    WmemAlloc,
    /// [`SkMem::sndbuf`]
    Sndbuf,
}

/// A number of TCP_INFO; durations are compared as such, rates in bits a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TcpField {
    /// [`TcpInfo::total_retrans`]
    TotalRetrans,
    /// [`TcpInfo::retransmits`]
    Retransmits,
    /// [`TcpInfo::unacked`]
    Unacked,
    /// [`TcpInfo::lost`]
    Lost,
    /// [`TcpInfo::sacked`]
    Sacked,
    /// [`TcpInfo::backoff`]
    Backoff,
    /// [`TcpInfo::reordering`]
    Reordering,
    /// [`TcpInfo::snd_cwnd`]
    SndCwnd,
    /// [`TcpInfo::snd_ssthresh`]
    SndSsthresh,
    /// [`TcpInfo::snd_mss`]
    SndMss,
    /// [`TcpInfo::rcv_mss`]
    RcvMss,
    /// [`TcpInfo::pmtu`]
    Pmtu,
    /// [`TcpInfo::rtt_us`]
    Rtt,
    /// [`TcpInfo::rttvar_us`]
    Rttvar,
    /// [`TcpInfo::min_rtt_us`]
    MinRtt,
    /// [`TcpInfo::rcv_rtt_us`]
    RcvRtt,
    /// [`TcpInfo::rto_us`]
    Rto,
    /// [`TcpInfo::ato_us`]
    Ato,
    /// [`TcpInfo::last_data_sent_ms`]
    LastDataSent,
    /// [`TcpInfo::last_data_recv_ms`]
    LastDataRecv,
    /// [`TcpInfo::last_ack_recv_ms`]
    LastAckRecv,
    /// [`TcpInfo::bytes_sent`]
    BytesSent,
    /// [`TcpInfo::bytes_acked`]
    BytesAcked,
    /// [`TcpInfo::bytes_received`]
    BytesReceived,
    /// [`TcpInfo::bytes_retrans`]
    BytesRetrans,
    /// [`TcpInfo::notsent_bytes`]
    NotsentBytes,
    /// [`TcpInfo::segs_out`]
    SegsOut,
    /// [`TcpInfo::segs_in`]
    SegsIn,
    /// [`TcpInfo::data_segs_out`]
    DataSegsOut,
    /// [`TcpInfo::data_segs_in`]
    DataSegsIn,
    /// [`TcpInfo::snd_wnd`]
    SndWnd,
    /// [`TcpInfo::rcv_wnd`]
    RcvWnd,
    /// [`TcpInfo::pacing_rate`]
    PacingRate,
    /// [`TcpInfo::delivery_rate`]
    DeliveryRate,
    /// [`TcpInfo::busy_time_us`]
    BusyTime,
    /// [`TcpInfo::rwnd_limited_us`]
    RwndLimited,
    /// [`TcpInfo::sndbuf_limited_us`]
    SndbufLimited,
}

/// A field that is a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TextField {
    /// The name of a thread that owns the socket (/proc/PID/comm).
    Process,
    /// Who made the socket, by name or uid.
    User,
    /// The container or unit of the owner.
    Container,
    /// The network namespace.
    Netns,
    /// The cgroup v2 that made the socket, by its path.
    Cgroup,
    /// The congestion control of a connection.
    Congestion,
}

use self::MemoryField::{Rcvbuf, RmemAlloc, Sndbuf, WmemAlloc};
use self::NumberField::{Memory, Tcp};
use self::TcpField as T;

/// Each number with its unit and its names, the one that is shown first.
const NUMBERS: [(NumberField, Unit, &[&str]); 47] = [
    (NumberField::Pid, Unit::Count, &["pid"]),
    (NumberField::Uid, Unit::Count, &["uid"]),
    (NumberField::Inode, Unit::Count, &["inode", "ino"]),
    (NumberField::RecvQ, Unit::Bytes, &["recv-q", "recvq", "rqueue"]),
    (NumberField::SendQ, Unit::Bytes, &["send-q", "sendq", "wqueue"]),
    (NumberField::Drops, Unit::Count, &["drops"]),
    (Memory(RmemAlloc), Unit::Bytes, &["rmem"]),
    (Memory(Rcvbuf), Unit::Bytes, &["rcvbuf"]),
    (Memory(WmemAlloc), Unit::Bytes, &["wmem"]),
    (Memory(Sndbuf), Unit::Bytes, &["sndbuf"]),
    (Tcp(T::TotalRetrans), Unit::Count, &["retrans", "total-retrans"]),
    (Tcp(T::Retransmits), Unit::Count, &["retransmits"]),
    (Tcp(T::Unacked), Unit::Count, &["unacked"]),
    (Tcp(T::Lost), Unit::Count, &["lost"]),
    (Tcp(T::Sacked), Unit::Count, &["sacked"]),
    (Tcp(T::Backoff), Unit::Count, &["backoff"]),
    (Tcp(T::Reordering), Unit::Count, &["reordering"]),
    (Tcp(T::SndCwnd), Unit::Count, &["cwnd", "snd-cwnd"]),
    (Tcp(T::SndSsthresh), Unit::Count, &["ssthresh", "snd-ssthresh"]),
    (Tcp(T::SndMss), Unit::Bytes, &["mss", "snd-mss"]),
    (Tcp(T::RcvMss), Unit::Bytes, &["rcv-mss", "rcvmss"]),
    (Tcp(T::Pmtu), Unit::Bytes, &["pmtu"]),
    (Tcp(T::Rtt), Unit::Micros, &["rtt"]),
    (Tcp(T::Rttvar), Unit::Micros, &["rttvar"]),
    (Tcp(T::MinRtt), Unit::Micros, &["min-rtt", "minrtt"]),
    (Tcp(T::RcvRtt), Unit::Micros, &["rcv-rtt"]),
    (Tcp(T::Rto), Unit::Micros, &["rto"]),
    (Tcp(T::Ato), Unit::Micros, &["ato"]),
    (Tcp(T::LastDataSent), Unit::Micros, &["last-send", "lastsnd", "last-data-sent"]),
    (Tcp(T::LastDataRecv), Unit::Micros, &["last-recv", "lastrcv", "last-data-recv"]),
    (Tcp(T::LastAckRecv), Unit::Micros, &["last-ack", "lastack", "last-ack-recv"]),
    (Tcp(T::BytesSent), Unit::Bytes, &["bytes-sent"]),
    (Tcp(T::BytesAcked), Unit::Bytes, &["bytes-acked"]),
    (Tcp(T::BytesReceived), Unit::Bytes, &["bytes-received", "bytes-recv"]),
    (Tcp(T::BytesRetrans), Unit::Bytes, &["bytes-retrans"]),
    (Tcp(T::NotsentBytes), Unit::Bytes, &["notsent", "notsent-bytes"]),
    (Tcp(T::SegsOut), Unit::Count, &["segs-out"]),
    (Tcp(T::SegsIn), Unit::Count, &["segs-in"]),
    (Tcp(T::DataSegsOut), Unit::Count, &["data-segs-out"]),
    (Tcp(T::DataSegsIn), Unit::Count, &["data-segs-in"]),
    (Tcp(T::SndWnd), Unit::Bytes, &["snd-wnd"]),
    (Tcp(T::RcvWnd), Unit::Bytes, &["rcv-wnd"]),
    (Tcp(T::PacingRate), Unit::BitsPerSecond, &["pacing-rate"]),
    (Tcp(T::DeliveryRate), Unit::BitsPerSecond, &["delivery-rate"]),
    (Tcp(T::BusyTime), Unit::Micros, &["busy", "busy-time"]),
    (Tcp(T::RwndLimited), Unit::Micros, &["rwnd-limited"]),
    (Tcp(T::SndbufLimited), Unit::Micros, &["sndbuf-limited"]),
];

const TEXTS: [(TextField, &[&str], &str); 6] = [
    (
        TextField::Process,
        &["process", "proc", "comm"],
        "a process's name, as nginx or node*",
    ),
    (TextField::User, &["user"], "a user's name or uid, as www-data or 33"),
    (TextField::Container, &["container"], "a part of a container's name, as web"),
    (TextField::Netns, &["netns"], "a network namespace's name"),
    (TextField::Cgroup, &["cgroup"], "a cgroup's path, as /system.slice/ssh.service"),
    (
        TextField::Congestion,
        &["congestion", "cc"],
        "the name of a congestion control, as cubic",
    ),
];

impl NumberField {
    /// The field of a name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let found = NUMBERS.iter().find(|(.., names)| names.contains(&name))?;
        Some(found.0)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        let found = NUMBERS.iter().find(|(field, ..)| *field == self);
        found.and_then(|(.., names)| names.first()).copied().unwrap_or_default()
    }

    /// Every field.
    pub fn all() -> impl Iterator<Item = Self> {
        NUMBERS.iter().map(|(field, ..)| *field)
    }

    pub(super) fn unit(self) -> Unit {
        let found = NUMBERS.iter().find(|(field, ..)| *field == self);
        found.map_or(Unit::Count, |(_, unit, _)| *unit)
    }
}

impl TextField {
    /// The field of a name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let found = TEXTS.iter().find(|(_, names, _)| names.contains(&name))?;
        Some(found.0)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        let found = TEXTS.iter().find(|(field, ..)| *field == self);
        found.and_then(|(_, names, _)| names.first()).copied().unwrap_or_default()
    }

    /// Every field.
    pub fn all() -> impl Iterator<Item = Self> {
        TEXTS.iter().map(|(field, ..)| *field)
    }

    /// What is compared with it.
    pub(super) fn form(self) -> &'static str {
        let found = TEXTS.iter().find(|(field, ..)| *field == self);
        found.map_or("", |(.., form)| *form)
    }
}

/// The words of ss's own language that begin a condition.
pub(super) const WORDS: [&str; 9] =
    ["src", "dst", "sport", "dport", "state", "exclude", "dev", "fwmark", "autobound"];

/// The name of every field, as it is shown.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let texts = TextField::all().map(TextField::name);
    WORDS.into_iter().chain(texts).chain(NumberField::all().map(NumberField::name))
}

/// Every way to name a field.
fn spellings() -> impl Iterator<Item = &'static str> {
    let numbers = NUMBERS.iter().flat_map(|(.., names)| names.iter().copied());
    let texts = TEXTS.iter().flat_map(|(_, names, _)| names.iter().copied());
    WORDS.into_iter().chain(texts).chain(numbers)
}

/// The name of a field that a wrong one may be meant for.
pub(super) fn nearest_field(name: &str) -> Option<&'static str> {
    nearest(&canonical(name), spellings())
}

/// A name with the case and the hyphens of ours.
pub(super) fn canonical(name: &str) -> String {
    name.replace('_', "-").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_spelling_stands_for_one_field_and_is_in_canonical_form() {
        let all: Vec<_> = spellings().collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        for name in all {
            assert_eq!(canonical(name), name);
        }
    }

    #[test]
    fn each_field_is_in_the_table_once_and_has_a_name() {
        assert_eq!(NumberField::all().collect::<HashSet<_>>().len(), NUMBERS.len());
        for field in NumberField::all() {
            assert_eq!(NumberField::of_name(field.name()), Some(field));
        }
        for field in TextField::all() {
            assert_eq!(TextField::of_name(field.name()), Some(field));
        }
    }

    #[test]
    fn a_slip_is_told_from_nonsense() {
        for (wrong, right) in [
            ("sprot", "sport"),
            ("dprot", "dport"),
            ("sprt", "sport"),
            ("Recv_Qq", "recv-q"),
            ("statte", "state"),
            ("proces", "process"),
            ("rttt", "rtt"),
            ("bytes-send", "bytes-sent"),
        ] {
            assert_eq!(nearest_field(wrong), Some(right), "{wrong}");
        }
        for nonsense in ["", "x", "zzzzzz", "127.0.0.1", &"s".repeat(5_000)] {
            assert_eq!(nearest_field(nonsense), None, "{nonsense}");
        }
    }
}
