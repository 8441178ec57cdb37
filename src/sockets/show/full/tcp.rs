//! TCP_INFO of one connection in words and with units.

use super::super::detail::{bits_per_second, tcp_info};
use super::{Lines, escaped, milliseconds};
use crate::kernel::tcp_info::TcpInfo;
use crate::render::{bytes, count, micros, plural};
use crate::sockets::model::State;
use crate::sockets::row::Row;

/// What of TCP_INFO is to be said; nothing of a listener, of which the kernel fills in its
/// queue and backlog in other fields' places.
pub(super) fn lines(to: &mut Lines, row: &Row<'_>) {
    let name = row.extra.as_deref().and_then(|extra| extra.congestion.as_deref());
    let name = name.map(escaped);
    let Some(info) = tcp_info(row).filter(|_| row.state != State::Listen) else {
        return to.some("congestion", name);
    };
    to.add("round trip", round_trip(&info));
    to.add("congestion", congestion(&info, name));
    to.add("in flight", in_flight(&info));
    to.some("sent", sent(&info));
    to.some("received", received(&info));
    to.add("windows", windows(&info));
    to.add("segments", segments(&info));
    to.some("rates", rates(&info));
    to.some("busy", busy(&info));
    to.add("last", last(&info));
    to.some("trouble", trouble(&info));
    to.some("negotiated", negotiated(&info));
}

fn wide(known: Option<u32>) -> Option<u64> {
    known.map(u64::from)
}

fn round_trip(info: &TcpInfo) -> String {
    let timeout = format!("; timeout {}", micros(info.rto_us.into()));
    if info.rtt_us == 0 {
        return format!("not measured yet{timeout}");
    }
    let least = info.min_rtt_us.filter(|&us| us != u32::MAX);
    let least = least.map(|us| format!(", least {}", micros(us.into())));
    format!(
        "{} ± {}{}{timeout}",
        micros(info.rtt_us.into()),
        micros(info.rttvar_us.into()),
        least.unwrap_or_default()
    )
}

fn congestion(info: &TcpInfo, name: Option<String>) -> String {
    /// TCP_INFINITE_SSTHRESH (net/tcp.h).
    const NONE: u32 = 0x7fff_ffff;
    let name = name.map(|name| format!("{name}: ")).unwrap_or_default();
    let threshold = match info.snd_ssthresh {
        NONE => String::new(),
        n => format!(", slow start up to {}", count(n.into())),
    };
    let state = match info.ca_state {
        0 => "open",
        1 => "disorder",
        2 => "reduced by ECN or a local queue (CWR)",
        3 => "fast recovery",
        4 => "recovery after loss",
        _ => "in a state that this program does not know",
    };
    let window = plural(info.snd_cwnd.into(), "segment");
    format!("{name}window {window}{threshold}; {state}")
}

fn in_flight(info: &TcpInfo) -> String {
    let mut text = plural(info.unacked.into(), "segment");
    for (n, what) in
        [(info.sacked, "SACKed"), (info.lost, "lost"), (info.retrans, "sent again")]
    {
        if n > 0 {
            text += &format!(", {} {what}", count(n.into()));
        }
    }
    if let Some(waiting) = info.notsent_bytes.filter(|&n| n > 0) {
        text += &format!("; {} not sent yet", bytes(waiting.into()));
    }
    text
}

fn sent(info: &TcpInfo) -> Option<String> {
    let segments = plural(wide(info.segs_out)?, "segment");
    let with_data = wide(info.data_segs_out)
        .map(|n| format!(" ({} with data)", count(n)))
        .unwrap_or_default();
    let acknowledged = info
        .bytes_acked
        .map(|n| format!("; {} acknowledged", bytes(n)))
        .unwrap_or_default();
    let amount = info.bytes_sent.map(|n| format!("{} in ", bytes(n)));
    let again = match (info.total_retrans, info.bytes_retrans) {
        (0, _) => String::new(),
        (n, Some(size)) if size > 0 => {
            format!("; {} sent again ({})", plural(n.into(), "segment"), bytes(size))
        }
        (n, _) => format!("; {} sent again", plural(n.into(), "segment")),
    };
    let amount = amount.unwrap_or_default();
    Some(format!("{amount}{segments}{with_data}{acknowledged}{again}"))
}

fn received(info: &TcpInfo) -> Option<String> {
    let mut text = format!(
        "{} in {}",
        bytes(info.bytes_received?),
        plural(wide(info.segs_in)?, "segment")
    );
    if let Some(n) = wide(info.data_segs_in) {
        text += &format!(" ({} with data)", count(n));
    }
    if let Some(n) = wide(info.rcv_ooopack).filter(|&n| n > 0) {
        text += &format!("; {} out of order", count(n));
    }
    Some(text)
}

fn windows(info: &TcpInfo) -> String {
    let size = |known: Option<u32>| known.map(|n| bytes(n.into()));
    let mut parts = Vec::new();
    parts.extend(size(info.snd_wnd).map(|n| format!("the peer takes {n}")));
    parts.extend(size(info.rcv_wnd).map(|n| format!("this end takes {n}")));
    parts.push(format!("its owner reads {} a round trip", bytes(info.rcv_space.into())));
    parts.join(", ")
}

fn segments(info: &TcpInfo) -> String {
    format!(
        "at most {} sent, {} received; path MTU {}",
        bytes_plain(info.snd_mss),
        bytes_plain(info.rcv_mss),
        bytes_plain(info.pmtu)
    )
}

/// Sizes of segments are known by their numbers.
fn bytes_plain(n: u32) -> String {
    format!("{} B", count(n.into()))
}

fn rates(info: &TcpInfo) -> Option<String> {
    let known = |n: Option<u64>| n.filter(|&n| n > 0 && n != u64::MAX);
    let mut parts = Vec::new();
    parts.extend(known(info.pacing_rate).map(|n| format!("paced at {}", rate(n))));
    parts.extend(known(info.delivery_rate).map(|n| {
        let why = match info.delivery_rate_app_limited {
            true => " (its owner sent no more)",
            false => "",
        };
        format!("delivered {}{why}", rate(n))
    }));
    parts.extend(known(info.max_pacing_rate).map(|n| format!("limit {}", rate(n))));
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn rate(bytes_per_second: u64) -> String {
    let text = bits_per_second(bytes_per_second);
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    format!("{number} {}", unit.replace("bps", "bit/s"))
}

fn busy(info: &TcpInfo) -> Option<String> {
    let busy = info.busy_time_us.filter(|&us| us > 0)?;
    let mut text = format!("{} with data to send", micros(busy));
    for (us, what) in [
        (info.rwnd_limited_us, "held up by the peer's window"),
        (info.sndbuf_limited_us, "by the send buffer"),
    ] {
        if let Some(us) = us.filter(|&us| us > 0) {
            text += &format!(", {} {what}", micros(us));
        }
    }
    Some(text)
}

fn last(info: &TcpInfo) -> String {
    let ago = |ms: u32| format!("{} ago", milliseconds(ms.into()));
    format!(
        "sent {}, received {}, acknowledged {}",
        ago(info.last_data_sent_ms),
        ago(info.last_data_recv_ms),
        ago(info.last_ack_recv_ms)
    )
}

fn trouble(info: &TcpInfo) -> Option<String> {
    let mut parts = Vec::new();
    let wide = |n: Option<u32>| n.unwrap_or(0);
    for (n, what) in [
        (info.retransmits.into(), "timeout in a row"),
        (info.probes.into(), "unanswered probe"),
        (info.total_rto.unwrap_or(0).into(), "timeout in all"),
        (wide(info.dsack_dups), "duplicate reported by the peer"),
        (wide(info.reord_seen), "reordering seen"),
        (wide(info.rehash), "other path tried"),
        (wide(info.delivered_ce), "segment marked by ECN"),
    ] {
        if n > 0 {
            parts.push(format!("{what}: {}", count(n.into())));
        }
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn negotiated(info: &TcpInfo) -> Option<String> {
    let set = |bit: u8| info.options & bit != 0;
    let mut parts = Vec::new();
    for (bit, name) in [(1, "timestamps"), (2, "SACK"), (8, "ECN"), (32, "fast open")] {
        if set(bit) {
            parts.push(name.to_owned());
        }
    }
    if set(4) {
        let (peer, own) = (1_u32 << info.snd_wscale, 1_u32 << info.rcv_wscale);
        parts.push(format!("windows times {peer} (the peer's) and {own}"));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}
