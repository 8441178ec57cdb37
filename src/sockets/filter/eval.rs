//! Whether a condition holds for a socket: true, false, or not known.

use super::super::model::{Family, State, UnixName};
use super::super::row::{Address, Kind, Row};
use super::Subject;
use super::address::{AddressPattern, Device, PortPattern, PortSpace};
use super::ast::{Condition, End, Expr, Op};
use super::fields::{MemoryField, NumberField, TcpField, TextField};
use super::pattern::{Case, Pattern};
use crate::kernel::tcp_info::TcpInfo;

/// TASK_COMM_LEN without its zero byte.
const COMM_LEN: usize = 15;

/// Whether an expression holds; None where it is not known.
pub(super) fn holds(
    expr: &Expr,
    subject: &Subject<'_>,
    ports: (u16, u16),
) -> Option<bool> {
    let first = |parts: &[Expr], decides: bool| {
        let mut known = true;
        for part in parts {
            match holds(part, subject, ports) {
                Some(found) if found == decides => return Some(decides),
                Some(_) => {}
                None => known = false,
            }
        }
        known.then_some(!decides)
    };
    match expr {
        Expr::All(parts) => first(parts, false),
        Expr::Any(parts) => first(parts, true),
        Expr::Not(part) => holds(part, subject, ports).map(|found| !found),
        Expr::Is(condition) => holds_one(condition, subject, ports),
    }
}

fn holds_one(
    condition: &Condition,
    subject: &Subject<'_>,
    ports: (u16, u16),
) -> Option<bool> {
    let row = subject.row;
    match condition {
        Condition::State(states) => Some(states.contains(row)),
        Condition::Address { end, equality, pattern } => {
            address(pattern, *end, subject).map(|same| equality.of(same))
        }
        Condition::Port { end, op, port: pattern } => port(*pattern, *op, *end, row),
        Condition::Autobound => autobound(&row.local, ports),
        Condition::Device { equality, device: wanted } => {
            device(wanted, subject).map(|same| equality.of(same))
        }
        Condition::Mark { equality, value, mask } => {
            row.mark.map(|mark| equality.of(mark & mask == *value))
        }
        Condition::Number { field: NumberField::Pid, op, value } => {
            // `!=`: no owner is it; the others: some owner is.
            let wanted = if *op == Op::Ne { Op::Eq } else { *op };
            let some =
                subject.owners.iter().any(|owner| wanted.holds(&owner.pid.into(), value));
            (!subject.owners.is_empty()).then_some(some != (*op == Op::Ne))
        }
        Condition::Number { field, op, value } => {
            number(*field, subject).map(|found| op.holds(&found, value))
        }
        Condition::Text { field, equality, pattern } => {
            text(*field, pattern, subject).map(|same| equality.of(same))
        }
    }
}

fn end_of<'a>(row: &'a Row<'_>, end: End) -> &'a Address<'a> {
    match end {
        End::Local => &row.local,
        End::Remote => &row.remote,
    }
}

fn address(pattern: &AddressPattern, end: End, subject: &Subject<'_>) -> Option<bool> {
    let row = subject.row;
    let found = end_of(row, end);
    let or_any = |wanted: Option<u32>, found: u32| wanted.is_none_or(|w| w == found);
    match (pattern, found) {
        (AddressPattern::Any, _) => Some(true),
        (AddressPattern::Inet { family, prefix, port }, Address::Inet(found)) => {
            if !is_of(row, *family) {
                return None;
            }
            let same_port = port.is_none_or(|port| port == found.port());
            Some(same_port && prefix.is_none_or(|prefix| prefix.contains(found.ip())))
        }
        (AddressPattern::Unix(pattern), _) if row.kind.is_unix() => {
            unix(pattern, found, end)
        }
        (
            AddressPattern::Packet { protocol, device: wanted },
            Address::Packet { protocol: found, .. },
        ) => {
            let same = or_any(protocol.map(u32::from), (*found).into());
            let device =
                wanted.as_ref().map_or(Some(true), |wanted| device(wanted, subject));
            if same { device } else { Some(false) }
        }
        (
            AddressPattern::Netlink { family, port },
            Address::Netlink { family: found, port: found_port },
        ) => Some(
            or_any(family.map(u32::from), (*found).into()) && or_any(*port, *found_port),
        ),
        (
            AddressPattern::Vsock { cid, port },
            Address::Vsock { cid: found, port: found_port },
        ) => Some(or_any(*cid, *found) && or_any(*port, *found_port)),
        _ => None,
    }
}

/// Whether an inet socket is of a family, where one is asked for.
fn is_of(row: &Row<'_>, family: Option<Family>) -> bool {
    family.is_none_or(|family| row.is_v6 == (family == Family::V6))
}

/// A socket without a name has the empty one; of a peer, that may be because it was not
/// looked for.
fn unix(pattern: &Pattern, found: &Address<'_>, end: End) -> Option<bool> {
    match found {
        Address::Unix { name: Some(UnixName::Path(path)), .. } => {
            Some(pattern.matches(path, Case::Same))
        }
        Address::Unix { name: Some(UnixName::Abstract(name)), .. } => {
            let name = [b"@", name.as_ref()].concat();
            Some(pattern.matches(&name, Case::Same))
        }
        Address::Unix { name: None, .. } | Address::None if end == End::Local => {
            Some(pattern.matches(b"", Case::Same))
        }
        _ => None,
    }
}

fn port(pattern: PortPattern, op: Op, end: End, row: &Row<'_>) -> Option<bool> {
    let found = match (pattern.space, end_of(row, end)) {
        (PortSpace::Inet, Address::Inet(found)) => found.port().into(),
        (PortSpace::Family(family), Address::Inet(found)) if is_of(row, Some(family)) => {
            found.port().into()
        }
        (PortSpace::Netlink, Address::Netlink { port, .. })
        | (PortSpace::Vsock, Address::Vsock { port, .. }) => *port,
        _ => return None,
    };
    Some(match pattern.port {
        Some(wanted) => op.holds(&found, &wanted),
        None => op != Op::Ne,
    })
}

/// Whether a port or name is like those that the kernel chooses.
fn autobound(local: &Address<'_>, (first, last): (u16, u16)) -> Option<bool> {
    match local {
        Address::Inet(address) => Some((first..=last).contains(&address.port())),
        Address::Unix { name: Some(UnixName::Abstract(name)), .. } => {
            // unix_autobind() in net/unix/af_unix.c.
            let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            Some(name.len() == 5 && name.iter().all(is_hex))
        }
        Address::Unix { name: Some(UnixName::Path(_)), .. } => Some(false),
        // The first of a process gets its pid, the others what is negative in the kernel.
        Address::Netlink { port, .. } => Some(port.cast_signed() < 0),
        Address::Packet { protocol, interface } => {
            Some(*protocol == 0 && *interface == 0)
        }
        Address::Vsock { port, .. } => Some(*port > 1023),
        Address::Unix { name: None, .. } | Address::None => None,
    }
}

fn device(wanted: &Device, subject: &Subject<'_>) -> Option<bool> {
    let row = subject.row;
    let has_one = row.kind.is_inet()
        || matches!(row.kind, Kind::PacketRaw | Kind::PacketDatagram | Kind::Xdp);
    if !has_one {
        return None;
    }
    match wanted {
        Device::Index(index) => Some(row.interface == *index),
        Device::Name(_) if row.interface == 0 => Some(false),
        Device::Name(name) => subject.device.map(|found| found == name),
    }
}

fn number(field: NumberField, subject: &Subject<'_>) -> Option<u64> {
    let row = subject.row;
    match field {
        // Several owners have several: compared where the operator is known.
        NumberField::Pid => None,
        NumberField::Uid => row.uid.map(u64::from),
        NumberField::Inode => Some(row.inode.0),
        NumberField::RecvQ => Some(row.recv_q.into()),
        NumberField::SendQ => row.send_q.map(u64::from),
        NumberField::Drops => {
            let memory = row.extra.as_ref().and_then(|extra| extra.memory);
            row.drops.or(memory.map(|memory| memory.drops)).map(u64::from)
        }
        NumberField::Memory(field) => {
            let memory = row.extra.as_ref()?.memory?;
            Some(u64::from(match field {
                MemoryField::RmemAlloc => memory.rmem_alloc,
                MemoryField::Rcvbuf => memory.rcvbuf,
                MemoryField::WmemAlloc => memory.wmem_alloc,
                MemoryField::Sndbuf => memory.sndbuf,
            }))
        }
        // Of what is no connection the kernel gives zeros, and a listener's queue for
        // `unacked`.
        NumberField::Tcp(_) if matches!(row.state, State::Listen | State::Close) => None,
        NumberField::Tcp(field) => tcp_number(field, subject.tcp_info?),
    }
}

fn tcp_number(field: TcpField, info: &TcpInfo) -> Option<u64> {
    use TcpField as F;
    let us = |ms: u32| Some(u64::from(ms) * 1_000);
    let measured = |us: u32| (us != 0).then_some(u64::from(us));
    let bits = |bytes: Option<u64>| bytes.map(|bytes| bytes.saturating_mul(8));
    let wide = |number: Option<u32>| number.map(u64::from);
    match field {
        F::TotalRetrans => Some(info.total_retrans.into()),
        F::Retransmits => Some(info.retransmits.into()),
        F::Unacked => Some(info.unacked.into()),
        F::Lost => Some(info.lost.into()),
        F::Sacked => Some(info.sacked.into()),
        F::Backoff => Some(info.backoff.into()),
        F::Reordering => Some(info.reordering.into()),
        F::SndCwnd => Some(info.snd_cwnd.into()),
        F::SndSsthresh => Some(info.snd_ssthresh.into()),
        F::SndMss => Some(info.snd_mss.into()),
        F::RcvMss => Some(info.rcv_mss.into()),
        F::Pmtu => Some(info.pmtu.into()),
        F::Rtt => measured(info.rtt_us),
        // Before the first measurement it is a guess of the kernel's.
        F::Rttvar => measured(info.rtt_us).map(|_| info.rttvar_us.into()),
        F::MinRtt => wide(info.min_rtt_us.filter(|us| *us != u32::MAX)),
        F::RcvRtt => measured(info.rcv_rtt_us),
        F::Rto => Some(info.rto_us.into()),
        F::Ato => Some(info.ato_us.into()),
        F::LastDataSent => us(info.last_data_sent_ms),
        F::LastDataRecv => us(info.last_data_recv_ms),
        F::LastAckRecv => us(info.last_ack_recv_ms),
        F::BytesSent => info.bytes_sent,
        F::BytesAcked => info.bytes_acked,
        F::BytesReceived => info.bytes_received,
        F::BytesRetrans => info.bytes_retrans,
        F::NotsentBytes => wide(info.notsent_bytes),
        F::SegsOut => wide(info.segs_out),
        F::SegsIn => wide(info.segs_in),
        F::DataSegsOut => wide(info.data_segs_out),
        F::DataSegsIn => wide(info.data_segs_in),
        F::SndWnd => wide(info.snd_wnd),
        F::RcvWnd => wide(info.rcv_wnd),
        F::PacingRate => bits(info.pacing_rate),
        F::DeliveryRate => bits(info.delivery_rate),
        F::BusyTime => info.busy_time_us,
        F::RwndLimited => info.rwnd_limited_us,
        F::SndbufLimited => info.sndbuf_limited_us,
    }
}

fn text(field: TextField, pattern: &Pattern, subject: &Subject<'_>) -> Option<bool> {
    let like = |found: &str| pattern.matches(found.as_bytes(), Case::Differ);
    match field {
        TextField::Process => {
            let some = subject
                .owners
                .iter()
                .any(|owner| is_named(pattern, owner.comm.as_bytes()));
            (!subject.owners.is_empty()).then_some(some)
        }
        TextField::User => match pattern.as_str().parse::<u32>() {
            Ok(uid) => subject.row.uid.map(|found| found == uid),
            Err(_) => subject.user.map(like),
        },
        TextField::Container => subject.container.map(|found| match pattern.literal() {
            Some(part) => found.contains(&part),
            None => like(found),
        }),
        TextField::Netns => subject.netns.map(like),
        TextField::Cgroup => subject.cgroup_path.map(like),
        TextField::Congestion => {
            let name = subject.row.extra.as_ref()?.congestion.as_ref()?;
            Some(pattern.matches(name, Case::Differ))
        }
    }
}

/// Whether a process has a name. The kernel keeps 15 bytes of it, so a longer one is
/// compared as far as that.
fn is_named(pattern: &Pattern, comm: &[u8]) -> bool {
    match pattern.literal() {
        Some(name) if name.len() > COMM_LEN => {
            name.as_bytes().get(..COMM_LEN) == Some(comm)
        }
        _ => pattern.matches(comm, Case::Differ),
    }
}
