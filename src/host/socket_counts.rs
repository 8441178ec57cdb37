//! How many sockets of each kind a network namespace has, by counters that the kernel
//! keeps: no table is walked, so that it takes the same time whatever their number.

use super::counters::{Sockstat, parse_group};
use super::{ProcRoot, ReadError};

/// A number of sockets, by IP version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByVersion {
    /// AF_INET.
    pub v4: u64,
    /// AF_INET6, those that carry IPv4 too.
    pub v6: u64,
}

impl ByVersion {
    /// Both.
    #[must_use]
    pub fn total(self) -> u64 {
        self.v4.saturating_add(self.v6)
    }
}

/// The sockets of the calling thread's network namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SocketCounts {
    /// Of every kind, those too that were only made.
    pub all: u64,
    /// TCP: what listens or is, or was, a connection, subflows of MPTCP among them; without
    /// TIME_WAIT and SYN_RECV, which are no whole sockets.
    pub tcp: ByVersion,
    /// Of TCP: ESTABLISHED and CLOSE_WAIT (tcpCurrEstab of RFC 4022).
    pub tcp_established: u64,
    /// TCP in TIME_WAIT, beside `tcp`.
    pub tcp_time_wait: u64,
    /// UDP with a port.
    pub udp: ByVersion,
    /// UDP-Lite with a port.
    pub udplite: ByVersion,
    /// raw(7).
    pub raw: ByVersion,
    /// Packets that wait for more of their fragments.
    pub fragments: ByVersion,
    /// What those take.
    pub fragments_bytes: u64,
    /// By /proc/net/protocols; None where it cannot be read.
    pub others: Option<OtherCounts>,
    /// Of the whole machine, whatever the namespace.
    pub machine: MachineCounts,
}

/// Sockets that /proc/net/protocols alone counts by namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OtherCounts {
    /// MPTCP connections and listeners.
    pub mptcp: ByVersion,
    /// Ping sockets.
    pub ping: ByVersion,
    /// SCTP.
    pub sctp: ByVersion,
    /// unix(7), SOCK_STREAM.
    pub unix_stream: u64,
    /// unix(7), SOCK_DGRAM and SOCK_SEQPACKET.
    pub unix_other: u64,
    /// packet(7).
    pub packet: u64,
    /// netlink(7), but for the kernel's own.
    pub netlink: u64,
}

/// What the kernel counts for the whole machine alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MachineCounts {
    /// TCP sockets that every process has closed and that the kernel still works for.
    pub tcp_orphans: u64,
    /// TCP sockets that were made and not freed.
    pub tcp_allocated: u64,
    /// What TCP's buffers take.
    pub tcp_memory_bytes: u64,
    /// What UDP's buffers take.
    pub udp_memory_bytes: u64,
}

impl SocketCounts {
    /// Reads them. The files are read one after another, so that in a busy namespace the
    /// numbers are of slightly different moments.
    ///
    /// # Errors
    /// As [`ProcRoot::read_net`]; that a file is missing is none for sockstat6 and
    /// protocols.
    pub fn read(root: &ProcRoot) -> Result<Self, ReadError> {
        let sockstat = Sockstat::read(root)?;
        let snmp = root.read_net("snmp")?;
        let protocols = match root.read_net("protocols") {
            Err(error) if error.is_missing() => None,
            read => Some(read?),
        };
        Ok(Self::of(&sockstat, &snmp, protocols.as_deref()))
    }

    fn of(sockstat: &Sockstat, snmp: &str, protocols: Option<&str>) -> Self {
        let established = parse_group(snmp, "Tcp").get("CurrEstab").copied();
        let pages = |n: u64| n.saturating_mul(procfs::page_size());
        Self {
            all: sockstat.sockets_used,
            tcp: ByVersion { v4: sockstat.tcp_inuse, v6: sockstat.tcp6_inuse },
            tcp_established: established.unwrap_or(0),
            tcp_time_wait: sockstat.tcp_tw,
            udp: ByVersion { v4: sockstat.udp_inuse, v6: sockstat.udp6_inuse },
            udplite: ByVersion {
                v4: sockstat.udplite_inuse,
                v6: sockstat.udplite6_inuse,
            },
            raw: ByVersion { v4: sockstat.raw_inuse, v6: sockstat.raw6_inuse },
            fragments: ByVersion { v4: sockstat.frag_inuse, v6: sockstat.frag6_inuse },
            fragments_bytes: sockstat.frag_memory_bytes,
            others: protocols.map(OtherCounts::parse),
            machine: MachineCounts {
                tcp_orphans: sockstat.tcp_orphan,
                tcp_allocated: sockstat.tcp_alloc,
                tcp_memory_bytes: pages(sockstat.tcp_mem_pages),
                udp_memory_bytes: pages(sockstat.udp_mem_pages),
            },
        }
    }

    /// Sockets that no kind above counts: made, and neither bound nor connected, or of
    /// another kind.
    #[must_use]
    pub fn rest(&self) -> u64 {
        let others = self.others.unwrap_or_default();
        let by_version = [
            self.tcp,
            self.udp,
            self.udplite,
            self.raw,
            others.mptcp,
            others.ping,
            others.sctp,
        ];
        let alone =
            [others.unix_stream, others.unix_other, others.packet, others.netlink];
        let counted = by_version.map(ByVersion::total).into_iter().chain(alone);
        let counted = counted.fold(0_u64, u64::saturating_add);
        self.all.saturating_sub(counted)
    }
}

impl OtherCounts {
    /// The counts in the text of /proc/net/protocols: a protocol's name, the size of its
    /// sockets, and how many there are in the namespace (`proto_seq_printf` in
    /// net/core/sock.c).
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut counts = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(name), Some(number)) = (words.next(), words.nth(1)) else {
                continue;
            };
            // -1 for a protocol that does not count.
            let number = number.parse().unwrap_or(0);
            *match name {
                "MPTCP" => &mut counts.mptcp.v4,
                "MPTCPv6" => &mut counts.mptcp.v6,
                "PING" => &mut counts.ping.v4,
                "PINGv6" => &mut counts.ping.v6,
                "SCTP" => &mut counts.sctp.v4,
                "SCTPv6" => &mut counts.sctp.v6,
                "UNIX-STREAM" => &mut counts.unix_stream,
                "UNIX" => &mut counts.unix_other,
                "PACKET" => &mut counts.packet,
                "NETLINK" => &mut counts.netlink,
                _ => continue,
            } = number;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree;
    use proptest::prelude::*;

    const PROTOCOLS: &str = "protocol  size sockets  memory press maxhdr  slab module\n\
        PACKET    1600      1      -1   NI       0   no   kernel\n\
        MPTCPv6   2064      2     238   no       0   yes  kernel\n\
        UNIX-STREAM 1152   10      -1   NI       0   yes  kernel\n\
        UNIX      1152      3      -1   NI       0   yes  kernel\n\
        ODD       1152     -1      -1   NI       0   yes  kernel\n\
        TCP       2304      9     238   no     192   yes  kernel\n\
        NETLINK   1096      4      -1   NI       0   no   kernel\n";

    #[test]
    fn kinds_are_counted_and_the_rest_is_what_remains() {
        let (_tree, root) = tree(&[
            (
                "net/sockstat",
                "sockets: used 40\nTCP: inuse 5 orphan 1 tw 7 alloc 6 mem 2\n\
                 UDP: inuse 3 mem 1\nFRAG: inuse 1 memory 512\n",
            ),
            ("net/snmp", "Tcp: MaxConn CurrEstab\nTcp: -1 4\n"),
            ("net/protocols", PROTOCOLS),
        ]);
        let counts = SocketCounts::read(&root).unwrap();
        let others = counts.others.unwrap();
        assert_eq!((others.unix_stream, others.unix_other, others.netlink), (10, 3, 4));
        assert_eq!(others.mptcp, ByVersion { v4: 0, v6: 2 });
        assert_eq!((counts.tcp_established, counts.tcp_time_wait), (4, 7));
        assert_eq!(counts.fragments_bytes, 512);
        assert_eq!(counts.machine.tcp_memory_bytes, 2 * procfs::page_size());
        assert_eq!(counts.rest(), 40 - 5 - 3 - 2 - 13 - 1 - 4);
    }

    #[test]
    fn a_kernel_without_protocols_leaves_them_unknown() {
        let (_tree, root) =
            tree(&[("net/sockstat", "sockets: used 1\n"), ("net/snmp", "")]);
        assert_eq!(SocketCounts::read(&root).unwrap().others, None);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "((UNIX|TCP|NETLINK) ?[ 0-9\\-\\n\u{e9}]{0,30}){0,4}") {
            let _ = OtherCounts::parse(&text);
        }
    }
}
