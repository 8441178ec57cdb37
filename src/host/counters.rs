//! Counters of a network namespace: /proc/net/netstat, snmp, softnet_stat, sockstat.
//!
//! They are of the calling thread's namespace, and corroborate only: they do not say
//! at which socket.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{ProcRoot, ReadError};

/// The counters of one group (`TcpExt`, `Tcp`) by the kernel's names, from a file of
/// paired lines: names, then values. Negative values are left out; there is one only,
/// the constant Tcp MaxConn.
#[must_use]
pub fn parse_group<'a>(text: &'a str, group: &str) -> HashMap<&'a str, u64> {
    let mut lines = text.lines().filter_map(|line| {
        let (name, rest) = line.split_once(':')?;
        (name == group).then_some(rest)
    });
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return HashMap::new();
    };
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
        .collect()
}

macro_rules! counters {
    (
        $(#[$meta:meta])* $name:ident, $group:literal, $file:literal;
        $($(#[$doc:meta])* $field:ident: $kernel:literal,)*
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl $name {
            #[cfg(test)]
            const NAMES: &[&str] = &[$($kernel),*];

            /// The counters in the text of their file; one that this kernel lacks is 0.
            #[must_use]
            pub fn parse(text: &str) -> Self {
                let all = parse_group(text, $group);
                let of = |name: &str| all.get(name).copied().unwrap_or(0);
                Self { $($field: of($kernel),)* }
            }

            /// Reads them for the calling thread's network namespace.
            ///
            /// # Errors
            /// As [`ProcRoot::read_net`].
            pub fn read(root: &ProcRoot) -> Result<Self, ReadError> {
                Ok(Self::parse(&root.read_net($file)?))
            }

            /// What was counted after `earlier`.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($field: self.$field.saturating_sub(earlier.$field),)* }
            }
        }
    };
}

counters! {
    /// The extended TCP counters (/proc/net/netstat, group TcpExt; include/uapi/linux/
    /// snmp.h and net/ipv4/proc.c of the kernel).
    TcpExt, "TcpExt", "netstat";
    /// Times that a full accept queue turned something away.
    listen_overflows: "ListenOverflows",
    /// SYNs and ACKs that a listener dropped, overflows included.
    listen_drops: "ListenDrops",
    /// Last ACKs of handshakes that TCP_DEFER_ACCEPT let pass unused.
    defer_accept_drop: "TCPDeferAcceptDrop",
    /// SYN cookies sent.
    syncookies_sent: "SyncookiesSent",
    /// ACKs that carried a valid cookie.
    syncookies_recv: "SyncookiesRecv",
    /// ACKs without a request socket whose cookie was not valid.
    syncookies_failed: "SyncookiesFailed",
    /// SYNs answered by a cookie because the request queue was full.
    req_q_full_do_cookies: "TCPReqQFullDoCookies",
    /// SYNs dropped because the request queue was full.
    req_q_full_drop: "TCPReqQFullDrop",
    /// Connections ended because TCP memory or the number of orphans was at its end.
    abort_on_memory: "TCPAbortOnMemory",
    /// Connections reset at close because data was left unread.
    abort_on_close: "TCPAbortOnClose",
    /// Connections ended by a timer: retransmissions or keepalives went unanswered.
    abort_on_timeout: "TCPAbortOnTimeout",
    /// Request sockets reset by the client.
    embryonic_rsts: "EmbryonicRsts",
    /// Times that the bucket of TIME_WAIT sockets was full.
    time_wait_overflow: "TCPTimeWaitOverflow",
    /// Packets dropped because the socket's backlog was full.
    backlog_drop: "TCPBacklogDrop",
    /// SYNs and SYN-ACKs sent again.
    syn_retrans: "TCPSynRetrans",
    /// Retransmission timers that ran out.
    timeouts: "TCPTimeouts",
    /// Times that TCP memory was under pressure.
    memory_pressures: "TCPMemoryPressures",
}

/// SYNs and SYN-ACKs that came to established sockets of the calling thread's network
/// namespace (TCPSYNChallenge); None where that cannot be read, or the kernel lacks it.
#[must_use]
pub fn syn_challenges(root: &ProcRoot) -> Option<u64> {
    let text = root.read_net("netstat").ok()?;
    parse_group(&text, "TcpExt").get("TCPSYNChallenge").copied()
}

counters! {
    /// The TCP counters of RFC 4022 (/proc/net/snmp, group Tcp).
    Tcp, "Tcp", "snmp";
    /// Dials begun.
    active_opens: "ActiveOpens",
    /// Connections that came in.
    passive_opens: "PassiveOpens",
    /// Connections that ended before they were established.
    attempt_fails: "AttemptFails",
    /// Established connections that were reset.
    estab_resets: "EstabResets",
    /// Segments sent again.
    retrans_segs: "RetransSegs",
    /// Resets sent.
    out_rsts: "OutRsts",
    /// Segments with an error.
    in_errs: "InErrs",
}

/// What the processors did with received packets, summed over them
/// (/proc/net/softnet_stat). It is of the whole machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Softnet {
    /// Packets taken.
    pub processed: u64,
    /// Packets dropped because a processor's backlog was full
    /// (net.core.netdev_max_backlog).
    pub dropped: u64,
    /// Times that the budget ran out before the work did.
    pub time_squeeze: u64,
}

impl Softnet {
    /// Sums the lines of the file: 32-bit hexadecimal columns, one line a processor.
    /// What is no number counts as 0.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut sum = Self::default();
        for line in text.lines() {
            let mut columns = line
                .split_whitespace()
                .map(|word| u64::from(u32::from_str_radix(word, 16).unwrap_or(0)));
            sum.processed += columns.next().unwrap_or(0);
            sum.dropped += columns.next().unwrap_or(0);
            sum.time_squeeze += columns.next().unwrap_or(0);
        }
        sum
    }

    /// Reads it.
    ///
    /// # Errors
    /// As [`ProcRoot::read_net`].
    pub fn read(root: &ProcRoot) -> Result<Self, ReadError> {
        Ok(Self::parse(&root.read_net("softnet_stat")?))
    }

    /// What was counted after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            processed: self.processed.saturating_sub(earlier.processed),
            dropped: self.dropped.saturating_sub(earlier.dropped),
            time_squeeze: self.time_squeeze.saturating_sub(earlier.time_squeeze),
        }
    }
}

/// How many sockets there are (/proc/net/sockstat, sockstat6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sockstat {
    /// Sockets of all kinds in this namespace.
    pub sockets_used: u64,
    /// TCP sockets in use in this namespace, IPv4.
    pub tcp_inuse: u64,
    /// TCP sockets in use in this namespace, IPv6.
    pub tcp6_inuse: u64,
    /// TCP sockets without a descriptor, of the whole machine.
    pub tcp_orphan: u64,
    /// TCP sockets in TIME_WAIT in this namespace.
    pub tcp_tw: u64,
    /// TCP sockets allocated, of the whole machine.
    pub tcp_alloc: u64,
    /// Pages that TCP buffers take, of the whole machine; tcp_mem bounds them.
    pub tcp_mem_pages: u64,
    /// UDP sockets with a port in this namespace, IPv4.
    pub udp_inuse: u64,
    /// UDP sockets with a port in this namespace, IPv6.
    pub udp6_inuse: u64,
    /// Pages that UDP buffers take, of the whole machine; udp_mem bounds them.
    pub udp_mem_pages: u64,
    /// UDP-Lite sockets with a port in this namespace, IPv4.
    pub udplite_inuse: u64,
    /// UDP-Lite sockets with a port in this namespace, IPv6.
    pub udplite6_inuse: u64,
    /// Raw sockets in this namespace, IPv4.
    pub raw_inuse: u64,
    /// Raw sockets in this namespace, IPv6.
    pub raw6_inuse: u64,
    /// Packets of IPv4 in this namespace that wait for more of their fragments.
    pub frag_inuse: u64,
    /// Packets of IPv6 in this namespace that wait for more of their fragments.
    pub frag6_inuse: u64,
    /// What the fragments of both take.
    pub frag_memory_bytes: u64,
}

impl Sockstat {
    /// The counts in the text of sockstat and sockstat6 (empty where there is no IPv6);
    /// one that is missing is 0.
    #[must_use]
    pub fn parse(sockstat: &str, sockstat6: &str) -> Self {
        Self {
            sockets_used: count(sockstat, "sockets", "used"),
            tcp_inuse: count(sockstat, "TCP", "inuse"),
            tcp6_inuse: count(sockstat6, "TCP6", "inuse"),
            tcp_orphan: count(sockstat, "TCP", "orphan"),
            tcp_tw: count(sockstat, "TCP", "tw"),
            tcp_alloc: count(sockstat, "TCP", "alloc"),
            tcp_mem_pages: count(sockstat, "TCP", "mem"),
            udp_inuse: count(sockstat, "UDP", "inuse"),
            udp6_inuse: count(sockstat6, "UDP6", "inuse"),
            udp_mem_pages: count(sockstat, "UDP", "mem"),
            udplite_inuse: count(sockstat, "UDPLITE", "inuse"),
            udplite6_inuse: count(sockstat6, "UDPLITE6", "inuse"),
            raw_inuse: count(sockstat, "RAW", "inuse"),
            raw6_inuse: count(sockstat6, "RAW6", "inuse"),
            frag_inuse: count(sockstat, "FRAG", "inuse"),
            frag6_inuse: count(sockstat6, "FRAG6", "inuse"),
            frag_memory_bytes: count(sockstat, "FRAG", "memory")
                .saturating_add(count(sockstat6, "FRAG6", "memory")),
        }
    }

    /// Reads both files.
    ///
    /// # Errors
    /// As [`ProcRoot::read_net`]; a missing sockstat6 is no error.
    pub fn read(root: &ProcRoot) -> Result<Self, ReadError> {
        let v6 = match root.read_net("sockstat6") {
            Err(error) if error.is_missing() => String::new(),
            read => read?,
        };
        Ok(Self::parse(&root.read_net("sockstat")?, &v6))
    }
}

/// The number behind `key` on the line of `group`.
fn count(text: &str, group: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| {
        let (name, rest) = line.split_once(':')?;
        (name == group).then_some(rest)
    });
    let mut words = line.unwrap_or_default().split_whitespace();
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        if name == key {
            return value.parse().unwrap_or(0);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree;
    use proptest::prelude::*;

    const NETSTAT: &str = "TcpExt: SyncookiesSent ListenOverflows ListenDrops New\n\
        TcpExt: 7 102 105 1\n\
        IpExt: ListenOverflows InOctets\n\
        IpExt: 9 63317452\n";

    #[test]
    fn counters_are_taken_from_their_own_group() {
        let (_tree, root) = tree(&[("net/netstat", NETSTAT)]);
        let counted = TcpExt::read(&root).unwrap();
        let expected = TcpExt {
            syncookies_sent: 7,
            listen_overflows: 102,
            listen_drops: 105,
            ..TcpExt::default()
        };
        assert_eq!(counted, expected);
        let octets = parse_group(NETSTAT, "IpExt")["InOctets"];
        assert_eq!(octets, 63_317_452);
    }

    #[test]
    fn a_difference_never_runs_below_zero() {
        let early = TcpExt { listen_drops: 5, ..TcpExt::default() };
        let late = TcpExt { listen_drops: 12, listen_overflows: 3, ..early };
        let expected =
            TcpExt { listen_drops: 7, listen_overflows: 3, ..TcpExt::default() };
        assert_eq!(late.since(&early), expected);
        assert_eq!(early.since(&late), TcpExt::default());
    }

    #[test]
    fn a_negative_constant_does_not_shift_the_others() {
        let text = "Tcp: RtoAlgorithm MaxConn ActiveOpens OutRsts\nTcp: 1 -1 5 6\n";
        let counted = Tcp::parse(text);
        assert_eq!((counted.active_opens, counted.out_rsts), (5, 6));
    }

    #[test]
    fn drops_of_all_processors_are_summed() {
        let text = "00000021 00000002 00000001 00000000\n000000f0 00000010 00000000 0\n";
        let expected = Softnet { processed: 0x111, dropped: 0x12, time_squeeze: 1 };
        assert_eq!(Softnet::parse(text), expected);
    }

    #[test]
    fn sockets_are_counted_by_kind() {
        let text = "sockets: used 11\nTCP: inuse 4 orphan 1 tw 2 alloc 5 mem 3\n\
            UDP: inuse 9 mem 8\nUDPLITE: inuse 7\nRAW: inuse 10\n\
            FRAG: inuse 12 memory 13\n";
        let text6 = "TCP6: inuse 6\nUDP6: inuse 14\nUDPLITE6: inuse 15\n\
            RAW6: inuse 16\nFRAG6: inuse 17 memory 18\n";
        let expected = Sockstat {
            sockets_used: 11,
            tcp_inuse: 4,
            tcp6_inuse: 6,
            tcp_orphan: 1,
            tcp_tw: 2,
            tcp_alloc: 5,
            tcp_mem_pages: 3,
            udp_inuse: 9,
            udp6_inuse: 14,
            udp_mem_pages: 8,
            udplite_inuse: 7,
            udplite6_inuse: 15,
            raw_inuse: 10,
            raw6_inuse: 16,
            frag_inuse: 12,
            frag6_inuse: 17,
            frag_memory_bytes: 31,
        };
        assert_eq!(Sockstat::parse(text, text6), expected);
    }

    #[test]
    fn this_kernel_counts_dials() {
        let root = ProcRoot::default();
        let before = Tcp::read(&root).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let counted = Tcp::read(&root).unwrap().since(&before);
        assert!(counted.active_opens >= 1 && counted.passive_opens >= 1, "{counted:?}");
        assert!(Sockstat::read(&root).unwrap().tcp_inuse >= 2);
        Softnet::read(&root).unwrap();
    }

    #[test]
    fn this_kernel_has_every_counter_by_its_name() {
        let root = ProcRoot::default();
        let (netstat, snmp) = (root.read_net("netstat"), root.read_net("snmp"));
        let (netstat, snmp) = (netstat.unwrap(), snmp.unwrap());
        for (text, group, names) in
            [(&netstat, "TcpExt", TcpExt::NAMES), (&snmp, "Tcp", Tcp::NAMES)]
        {
            let known = parse_group(text, group);
            for name in names {
                assert!(known.contains_key(name), "{name}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(TcpExt:|TCP:)?[ a-z0-9:\\-\\n\u{e9}]{0,60}") {
            let _ = TcpExt::parse(&text);
            let _ = Softnet::parse(&text);
            let _ = Sockstat::parse(&text, &text);
        }
    }
}
