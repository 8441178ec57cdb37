//! One socket in full, for people: a name and a value a line.

mod tcp;

use super::address::{self, End};
use super::{Shown, detail, owners};
use crate::kernel::sock_diag::{SkMem, Timer, TimerKind, escape};
use crate::render::{bytes, count, plural};
use crate::sockets::descriptor::find::InTable;
use crate::sockets::model::{Owner, State};
use crate::sockets::row::{Address, Kind, Row};

/// A line of a block: what it is about, and what is to be said. A line without a name
/// goes on with the one above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What it is about.
    pub name: &'static str,
    /// What is to be said.
    pub value: String,
}

/// A socket, and what is around it.
#[derive(Debug, Clone, Copy)]
pub struct Whole<'a> {
    /// It, and everyone who has it.
    pub shown: Shown<'a>,
    /// Whether it is in a table.
    pub in_table: &'a InTable,
    /// Who has the other end, where that is on this host.
    pub peer: &'a [Owner],
    /// Its network namespace, in words.
    pub netns: &'a str,
}

/// All that is to be said of a socket.
#[must_use]
pub fn lines(whole: &Whole<'_>) -> Vec<Line> {
    let shown = &whole.shown;
    let row = shown.listed.row;
    let mut to = Lines::default();
    if *whole.in_table == InTable::Yes {
        to.add("pair", pair(shown));
    }
    to.add("kind", kind(row));
    to.add("state", state(row, whole.in_table));
    to.each("owners", shown.listed.owners);
    to.each("peer", whole.peer);
    to.add("made by", user(shown));
    to.add("identity", identity(row));
    to.add("namespace", whole.netns.to_owned());
    to.some("interface", shown.context.interface(row).map(|name| name.to_string()));
    to.some("cgroup", shown.context.cgroup(row).map(|path| escaped(path.as_bytes())));
    to.some("container", shown.container().map(|name| escaped(name.as_bytes())));
    if *whole.in_table != InTable::Yes {
        return to.0;
    }
    to.add("queues", queues(shown));
    let extra = row.extra.as_deref();
    if let Some(memory) = extra.and_then(|extra| extra.memory) {
        memory_lines(&mut to, memory);
    }
    to.some("timer", row.timer.map(timer));
    to.some("options", options(row));
    if let Some(ulp) = extra.and_then(|extra| extra.ulp.as_deref()) {
        to.add("upper layer", escaped(ulp));
    }
    tcp::lines(&mut to, row);
    to.0
}

/// Lines that are being put together.
#[derive(Debug, Default)]
struct Lines(Vec<Line>);

impl Lines {
    fn add(&mut self, name: &'static str, value: String) {
        self.0.push(Line { name, value });
    }

    fn some(&mut self, name: &'static str, value: Option<String>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    fn each(&mut self, name: &'static str, all: &[Owner]) {
        for (place, owner) in all.iter().enumerate() {
            let mut value = String::new();
            owners::write_one(&mut value, owner);
            self.add(if place == 0 { name } else { "" }, value);
        }
    }
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    // A `String` takes all that is written to it.
    let _ = escape(bytes, &mut text);
    text
}

fn pair(shown: &Shown<'_>) -> String {
    let row = shown.listed.row;
    let mut text = String::new();
    address::write(&mut text, row, End::Local, shown.context);
    let has_peer = match &row.remote {
        Address::None => false,
        Address::Inet(peer) => peer.port() != 0 || !peer.ip().is_unspecified(),
        _ => true,
    };
    if has_peer {
        text.push_str(" → ");
        address::write(&mut text, row, End::Remote, shown.context);
    }
    text
}

fn kind(row: &Row<'_>) -> String {
    let name = match row.kind {
        Kind::UnixStream => "unix stream",
        Kind::UnixDatagram => "unix datagram",
        Kind::UnixSeqPacket => "unix seqpacket",
        Kind::PacketRaw => "packet, with link-level headers",
        Kind::PacketDatagram => "packet, without link-level headers",
        Kind::Netlink => "netlink",
        Kind::Vsock => "vsock",
        Kind::Family(0) => "of a protocol that is not known",
        Kind::Family(_) | Kind::Named(_) => return row.kind.to_string(),
        _ => return format!("{}, {}", row.kind, version(row)),
    };
    name.to_owned()
}

fn version(row: &Row<'_>) -> &'static str {
    let mapped = row
        .local
        .inet()
        .is_some_and(|local| local.is_ipv6() && local.ip().to_canonical().is_ipv4());
    match row.is_v6 {
        false => "IPv4",
        true if mapped => "IPv4 on an IPv6 socket",
        true if row.v6_only == Some(false) => "IPv6 and IPv4",
        true => "IPv6",
    }
}

/// Its state by ss(8)'s name, and what that means.
fn state(row: &Row<'_>, in_table: &InTable) -> String {
    match in_table {
        InTable::Yes => format!("{}: {}", row.state.name(), meaning(row)),
        InTable::No => "in no table: made, and neither bound, listening nor connected \
                        (or no longer)"
            .into(),
        InTable::NotHere => {
            "in no table of this namespace: neither bound, listening nor \
                             connected, or of another namespace"
                .into()
        }
        InTable::Unknown(lack) => format!("not known: {lack}"),
        InTable::NoTable => "not known: no table of its protocol is read here".into(),
    }
}

fn meaning(row: &Row<'_>) -> &'static str {
    let is_stream = row.kind.has_accept_queue();
    match row.state {
        State::Established if is_stream => "open at both ends",
        State::Established => "it has a peer",
        State::SynSent => "it dials: a SYN was sent and is not answered yet",
        State::SynRecv => "a SYN came, and the handshake is not over",
        State::FinWait1 => "closed here; the peer has not acknowledged that",
        State::FinWait2 => "closed here; the peer has not closed yet",
        State::TimeWait => "closed at both ends, here first; kept for late segments",
        State::Close if row.kind.is_unix() => "neither listening nor connected",
        State::Close if is_stream => "bound; neither listening nor connected",
        State::Close => "it has no peer",
        State::CloseWait => "closed by the peer; its owner has not closed it yet",
        State::LastAck => {
            "closed by the peer, then here; the peer has not acknowledged that"
        }
        State::Listen => "it accepts connections",
        State::Closing => "closed at both ends at once",
        State::Unknown(_) => "a state that this program does not know",
    }
}

fn user(shown: &Shown<'_>) -> String {
    let Some(uid) = shown.listed.row.uid else { return "not known".into() };
    match shown.context.users.name(uid) {
        Some(name) => format!("{} (uid {uid})", escaped(name.as_bytes())),
        None => format!("uid {uid}"),
    }
}

fn identity(row: &Row<'_>) -> String {
    let cookie = row.cookie.map(|cookie| format!(", cookie {cookie}"));
    format!("inode {}{}", row.inode, cookie.unwrap_or_default())
}

fn queues(shown: &Shown<'_>) -> String {
    let row = shown.listed.row;
    let (received, sent) = (u64::from(row.recv_q), row.send_q.map(u64::from));
    if row.state == State::Listen && row.kind.has_accept_queue() {
        let mut text = match sent {
            Some(backlog) => format!(
                "{} in an accept queue that admits {} (backlog {} + 1)",
                count(received),
                count(backlog + 1),
                count(backlog)
            ),
            None => format!("{} in the accept queue", count(received)),
        };
        let mut note = String::new();
        owners::write_note(&mut note, shown);
        if !note.is_empty() {
            text.push_str("; ");
            text.push_str(&note);
        }
        return text;
    }
    let waits = match row.kind {
        Kind::Tcp | Kind::Mptcp => "not acknowledged",
        _ => "to be sent",
    };
    let sent = sent.map(|sent| format!(", {} {waits}", bytes(sent)));
    format!("{} to be read{}", bytes(received), sent.unwrap_or_default())
}

fn memory_lines(to: &mut Lines, memory: SkMem) {
    let of = |used: u32, limit: u32| {
        format!("{} of {}", bytes(used.into()), bytes(limit.into()))
    };
    let sent = memory.wmem_queued.max(memory.wmem_alloc);
    to.add("receive", of(memory.rmem_alloc, memory.rcvbuf) + " (SO_RCVBUF)");
    to.add("send", of(sent, memory.sndbuf) + " (SO_SNDBUF)");
    let rest = [
        (memory.fwd_alloc, "allotted and unused"),
        (memory.optmem, "for options"),
        (memory.backlog, "waiting while its owner has it locked"),
    ];
    let mut parts: Vec<String> = rest
        .iter()
        .filter(|(size, _)| *size > 0)
        .map(|(size, what)| format!("{} {what}", bytes((*size).into())))
        .collect();
    if memory.drops > 0 {
        parts.push(format!("{} dropped", count(memory.drops.into())));
    }
    if !parts.is_empty() {
        to.add("memory", parts.join(", "));
    }
}

fn timer(timer: Timer) -> String {
    let Timer { kind, expires_ms, retransmits } = timer;
    let wait = milliseconds(expires_ms.into());
    let vain = |one: &str| match retransmits {
        0 => String::new(),
        n => format!(", after {}", plural(n.into(), one)),
    };
    match kind {
        TimerKind::Retransmit => {
            format!("sends again in {wait}{}", vain("retransmission"))
        }
        TimerKind::Keepalive => {
            format!("keepalive in {wait}{}", vain("unanswered probe"))
        }
        TimerKind::TimeWait => format!("over in {wait}"),
        TimerKind::WindowProbe => {
            format!("probes the peer's window in {wait}{}", vain("unanswered probe"))
        }
        TimerKind::Unknown(number) => format!("of kind {number}, in {wait}"),
    }
}

/// 40 ms, 3.5 s, 2 min 5 s.
fn milliseconds(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms / 100 % 10),
        _ => format!("{} min {} s", ms / 60_000, ms / 1_000 % 60),
    }
}

fn options(row: &Row<'_>) -> Option<String> {
    let mut parts = Vec::new();
    if let Some(only) = row.v6_only {
        parts.push(format!("v6only {}", if only { "on" } else { "off" }));
    }
    let extra = row.extra.as_deref();
    let hex = |name, value: Option<u32>| value.map(|value| format!("{name} {value:#x}"));
    parts.extend(hex("tos", extra.and_then(|e| e.tos).map(u32::from)));
    parts.extend(hex("tclass", extra.and_then(|e| e.tclass).map(u32::from)));
    parts.extend(hex("class or priority", extra.and_then(|e| e.class_id)));
    match row.mark {
        Some(mark) => parts.push(format!("mark {mark:#x}")),
        None if row.kind.is_inet() => {
            parts.push("mark not permitted to see (CAP_NET_ADMIN)".into());
        }
        None => {}
    }
    let set = extra.and_then(|e| e.options).unwrap_or(0);
    parts.extend(detail::options_of(set).map(str::to_owned));
    match row.shutdown & 3 {
        0 => {}
        1 => parts.push("shut down for receiving".into()),
        2 => parts.push("shut down for sending".into()),
        _ => parts.push("shut down at both ends".into()),
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests;
