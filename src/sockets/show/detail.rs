//! What ss(8) appends to a row for -o, -e, -m and -i, in its terms.

use std::fmt::Write;

use super::Shown;
use crate::kernel::sock_diag::{SkMem, Timer, TimerKind, escape};
use crate::kernel::tcp_info::TcpInfo;
use crate::sockets::model::State;
use crate::sockets::row::Row;

/// Which of it is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// -o: the timer.
    pub timer: bool,
    /// -e: user, inode, cookie and more.
    pub extended: bool,
    /// -m: memory.
    pub memory: bool,
    /// -i: TCP_INFO.
    pub info: bool,
}

impl Wanted {
    /// Whether anything is.
    #[must_use]
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

/// Appends what is wanted, each part after a space.
pub fn write(to: &mut String, shown: &Shown<'_>, wanted: Wanted) {
    let row = shown.listed.row;
    if wanted.timer
        && let Some(timer) = row.timer
    {
        to.push(' ');
        write_timer(to, timer);
    }
    if wanted.extended {
        extended(to, shown);
    }
    let extra = row.extra.as_deref();
    if wanted.memory
        && let Some(memory) = extra.and_then(|extra| extra.memory)
    {
        to.push(' ');
        write_memory(to, memory);
    }
    if wanted.info {
        info(to, row);
    }
}

/// Appends `timer:(keepalive,1min2sec,0)`: what it waits for, how long it will, and how
/// often it has fired in vain.
pub fn write_timer(to: &mut String, timer: Timer) {
    let kind = timer_name(timer.kind);
    let left = span(timer.expires_ms);
    // A `String` takes all that is written to it; likewise below.
    let _ = write!(to, "timer:({kind},{left},{})", timer.retransmits);
}

/// What a timer waits for, as ss(8) names it.
#[must_use]
pub fn timer_name(kind: TimerKind) -> &'static str {
    match kind {
        TimerKind::Retransmit => "on",
        TimerKind::Keepalive => "keepalive",
        TimerKind::TimeWait => "timewait",
        TimerKind::WindowProbe => "persist",
        TimerKind::Unknown(_) => "unknown",
    }
}

/// `1min2sec`, `3.456sec`, `40ms`.
fn span(ms: u32) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{:.3}sec", f64::from(ms) / 1e3),
        _ => format!("{}min{}sec", ms / 60_000, ms / 1_000 % 60),
    }
}

/// Appends `skmem:(r0,rb131072,t0,…)`, the fields of SO_MEMINFO.
pub fn write_memory(to: &mut String, memory: SkMem) {
    let SkMem { rmem_alloc, rcvbuf, wmem_alloc, sndbuf, fwd_alloc, .. } = memory;
    let SkMem { wmem_queued, optmem, backlog, drops, .. } = memory;
    let _ = write!(
        to,
        "skmem:(r{rmem_alloc},rb{rcvbuf},t{wmem_alloc},tb{sndbuf},f{fwd_alloc},\
         w{wmem_queued},o{optmem},bl{backlog},d{drops})"
    );
}

fn extended(to: &mut String, shown: &Shown<'_>) {
    let row = shown.listed.row;
    if let Some(uid) = row.uid {
        match shown.context.users.name(uid) {
            Some(name) => {
                to.push_str(" uid:");
                let _ = escape(name.as_bytes(), to);
            }
            None => drop(write!(to, " uid:{uid}")),
        }
    }
    let _ = write!(to, " ino:{}", row.inode);
    if let Some(cookie) = row.cookie {
        let _ = write!(to, " sk:{cookie}");
    }
    if let Some(mark) = row.mark.filter(|&mark| mark != 0) {
        let _ = write!(to, " fwmark:{mark:#x}");
    }
    if let Some(cgroup) = shown.context.cgroup(row) {
        to.push_str(" cgroup:");
        let _ = escape(cgroup.as_bytes(), to);
    }
    if let Some(only) = row.v6_only {
        let _ = write!(to, " v6only:{}", u8::from(only));
    }
    let ends = ["<->", "-->", "<--", "---"];
    let _ = write!(to, " {}", ends[usize::from(row.shutdown & 3)]);
    let Some(extra) = row.extra.as_deref() else { return };
    if let Some(tos) = extra.tos {
        let _ = write!(to, " tos:{tos:#x}");
    }
    if let Some(tclass) = extra.tclass {
        let _ = write!(to, " tclass:{tclass:#x}");
    }
    if let Some(class) = extra.class_id.filter(|&class| class != 0) {
        let _ = write!(to, " class_id:{class:#x}");
    }
    if let Some(options) = extra.options {
        for name in options_of(options) {
            let _ = write!(to, " {name}");
        }
    }
}

/// The options that are set, by the names of struct inet_diag_sockopt.
pub fn options_of(bits: u16) -> impl Iterator<Item = &'static str> {
    const NAMES: [(u16, &str); 10] = [
        (0, "recverr"),
        (2, "freebind"),
        (3, "hdrincl"),
        (4, "mc_loop"),
        (5, "transparent"),
        (6, "mc_all"),
        (7, "nodefrag"),
        (8, "bind_addr_no_port"),
        (9, "recverr_rfc4884"),
        (10, "defer_connect"),
    ];
    NAMES.into_iter().filter(move |(bit, _)| bits >> bit & 1 != 0).map(|(_, name)| name)
}

/// TCP_INFO of a row.
#[must_use]
pub fn tcp_info(row: &Row<'_>) -> Option<TcpInfo> {
    TcpInfo::parse(row.extra.as_deref()?.tcp_info.as_deref()?)
}

fn info(to: &mut String, row: &Row<'_>) {
    let Some(extra) = row.extra.as_deref() else { return };
    if let Some(ulp) = &extra.ulp {
        to.push_str(" ulp:");
        let _ = escape(ulp, to);
    }
    if let Some(congestion) = &extra.congestion {
        to.push(' ');
        let _ = escape(congestion, to);
    }
    let Some(info) = tcp_info(row) else { return };
    if row.state == State::Listen {
        // The kernel fills in no more, but its queue and backlog in other fields' places.
        let _ = write!(to, " cwnd:{}", info.snd_cwnd);
        return;
    }
    const OPTIONS: [(u8, &str); 5] =
        [(1, "ts"), (2, "sack"), (8, "ecn"), (16, "ecnseen"), (32, "fastopen")];
    for (bit, name) in OPTIONS {
        if info.options & bit != 0 {
            let _ = write!(to, " {name}");
        }
    }
    if info.options & 4 != 0 {
        let _ = write!(to, " wscale:{},{}", info.snd_wscale, info.rcv_wscale);
    }
    times(to, &info);
    windows(to, &info);
    counts(to, &info);
    rates(to, &info);
}

fn ms(us: u32) -> f64 {
    f64::from(us) / 1e3
}

fn times(to: &mut String, info: &TcpInfo) {
    let _ = write!(to, " rto:{}", ms(info.rto_us));
    if info.rtt_us > 0 {
        let _ = write!(to, " rtt:{}/{}", ms(info.rtt_us), ms(info.rttvar_us));
    }
    if let Some(min) = info.min_rtt_us.filter(|&us| us != u32::MAX && us > 0) {
        let _ = write!(to, " minrtt:{}", ms(min));
    }
    if info.ato_us > 0 {
        let _ = write!(to, " ato:{}", ms(info.ato_us));
    }
    for (name, since) in [
        ("lastsnd", info.last_data_sent_ms),
        ("lastrcv", info.last_data_recv_ms),
        ("lastack", info.last_ack_recv_ms),
    ] {
        if since > 0 {
            let _ = write!(to, " {name}:{since}");
        }
    }
}

fn windows(to: &mut String, info: &TcpInfo) {
    for (name, value) in [
        ("mss", info.snd_mss),
        ("pmtu", info.pmtu),
        ("rcvmss", info.rcv_mss),
        ("advmss", info.advmss),
        ("cwnd", info.snd_cwnd),
    ] {
        if value > 0 {
            let _ = write!(to, " {name}:{value}");
        }
    }
    if info.snd_ssthresh < 0x7fff_ffff && info.snd_ssthresh > 0 {
        let _ = write!(to, " ssthresh:{}", info.snd_ssthresh);
    }
    let windows = [("snd_wnd", info.snd_wnd), ("rcv_wnd", info.rcv_wnd)];
    for (name, value) in windows {
        if let Some(value) = value.filter(|&value| value > 0) {
            let _ = write!(to, " {name}:{value}");
        }
    }
    let _ =
        write!(to, " rcv_space:{} rcv_ssthresh:{}", info.rcv_space, info.rcv_ssthresh);
}

fn counts(to: &mut String, info: &TcpInfo) {
    let wide = |n: Option<u32>| n.map(u64::from);
    for (name, value) in [
        ("bytes_sent", info.bytes_sent),
        ("bytes_retrans", info.bytes_retrans),
        ("bytes_acked", info.bytes_acked),
        ("bytes_received", info.bytes_received),
        ("segs_out", wide(info.segs_out)),
        ("segs_in", wide(info.segs_in)),
        ("data_segs_out", wide(info.data_segs_out)),
        ("data_segs_in", wide(info.data_segs_in)),
        ("unacked", Some(info.unacked.into())),
        ("lost", Some(info.lost.into())),
        ("sacked", Some(info.sacked.into())),
        ("notsent", wide(info.notsent_bytes)),
        ("delivered", wide(info.delivered)),
        ("rcv_ooopack", wide(info.rcv_ooopack)),
        ("dsack_dups", wide(info.dsack_dups)),
        ("reord_seen", wide(info.reord_seen)),
        ("rehash", wide(info.rehash)),
        ("total_rto", info.total_rto.map(u64::from)),
    ] {
        if let Some(value) = value.filter(|&value| value > 0) {
            let _ = write!(to, " {name}:{value}");
        }
    }
    if info.retrans > 0 || info.total_retrans > 0 {
        let _ = write!(to, " retrans:{}/{}", info.retrans, info.total_retrans);
    }
    if info.backoff > 0 {
        let _ = write!(to, " backoff:{}", info.backoff);
    }
}

fn rates(to: &mut String, info: &TcpInfo) {
    let rate = |n: Option<u64>| n.filter(|&n| n > 0 && n != u64::MAX);
    if let Some(pacing) = rate(info.pacing_rate) {
        let _ = write!(to, " pacing_rate:{}", bits_per_second(pacing));
    }
    if let Some(delivery) = rate(info.delivery_rate) {
        let _ = write!(to, " delivery_rate:{}", bits_per_second(delivery));
        if info.delivery_rate_app_limited {
            to.push_str(" app_limited");
        }
    }
    for (name, us) in [
        ("busy", info.busy_time_us),
        ("rwnd_limited", info.rwnd_limited_us),
        ("sndbuf_limited", info.sndbuf_limited_us),
    ] {
        if let Some(us) = us.filter(|&us| us > 0) {
            let _ = write!(to, " {name}:{}ms", us / 1_000);
        }
    }
}

/// A rate given in bytes a second, as ss(8) has it: `1.5Mbps`.
#[must_use]
pub fn bits_per_second(bytes: u64) -> String {
    let bits = bytes as f64 * 8.0;
    let (scaled, unit) = match bits {
        ..1e3 => (bits, "bps"),
        1e3..1e6 => (bits / 1e3, "Kbps"),
        1e6..1e9 => (bits / 1e6, "Mbps"),
        _ => (bits / 1e9, "Gbps"),
    };
    let text = format!("{scaled:.1}");
    format!("{}{unit}", text.strip_suffix(".0").unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_and_rates_read_as_in_ss() {
        let timer = |kind, expires_ms| Timer { kind, expires_ms, retransmits: 2 };
        let mut text = String::new();
        write_timer(&mut text, timer(TimerKind::Keepalive, 62_000));
        write_timer(&mut text, timer(TimerKind::Retransmit, 204));
        write_timer(&mut text, timer(TimerKind::TimeWait, 3_456));
        assert_eq!(
            text,
            "timer:(keepalive,1min2sec,2)timer:(on,204ms,2)timer:(timewait,3.456sec,2)"
        );
        assert_eq!(bits_per_second(125), "1Kbps");
        assert_eq!(bits_per_second(1_562_500), "12.5Mbps");
    }

    #[test]
    fn options_are_named_by_their_bits() {
        assert_eq!(
            options_of(0b1_0000_0001).collect::<Vec<_>>(),
            ["recverr", "bind_addr_no_port"]
        );
    }
}
