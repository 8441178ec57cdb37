//! TCP_INFO (tcp(7)): what the kernel knows of one connection.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// `struct tcp_info` (linux/tcp.h) up to tcpi_total_retrans, which every kernel has had
/// since 2.6.
const HEAD: usize = 104;

/// As much as any kernel of today knows (Linux 6.18: 280 bytes), and room for more.
const ROOM: usize = 320;

macro_rules! fields {
    (
        $(#[$struct_doc:meta])*
        $name:ident: head { $($(#[$doc:meta])* $field:ident: $type:ty = $at:literal,)* }
        later { $($(#[$later_doc:meta])* $later:ident: $later_type:ty = $later_at:literal,)* }
    ) => {
        $(#[$struct_doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$doc])* pub $field: $type,)*
            /// tcpi_snd_wscale: the shift of the window that the peer announces.
            pub snd_wscale: u8,
            /// tcpi_rcv_wscale: the shift of the window announced to it.
            pub rcv_wscale: u8,
            /// tcpi_delivery_rate_app_limited: [`Self::delivery_rate`] was measured while
            /// the application sent less than the path could take.
            pub delivery_rate_app_limited: bool,
            $($(#[$later_doc])* pub $later: Option<$later_type>,)*
        }

        impl $name {
            /// Parses the bytes of `struct tcp_info`, as TCP_INFO and INET_DIAG_INFO give
            /// them, however many the kernel knows; None for fewer than 104.
            #[must_use]
            pub fn parse(bytes: &[u8]) -> Option<Self> {
                let head: &[u8; HEAD] = bytes.first_chunk()?;
                let (low, high) = (head[6] & 0xf, head[6] >> 4);
                let little = cfg!(target_endian = "little");
                let (snd_wscale, rcv_wscale) = if little { (low, high) } else { (high, low) };
                Some(Self {
                    $($field: <$type>::from_ne_bytes(*bytes.get($at..)?.first_chunk()?),)*
                    snd_wscale,
                    rcv_wscale,
                    delivery_rate_app_limited: head[7] & if little { 1 } else { 0x80 } != 0,
                    $($later: bytes
                        .get($later_at..)
                        .and_then(<[u8]>::first_chunk)
                        .map(|bytes| <$later_type>::from_ne_bytes(*bytes)),)*
                })
            }
        }

        /// Each field but the bit fields, with its offset.
        #[cfg(test)]
        const OFFSETS: &[(&str, usize)] = &[
            $((stringify!($field), $at),)*
            $((stringify!($later), $later_at),)*
        ];
    };
}

fields! {
    /// `struct tcp_info` (linux/tcp.h). What came to it after 2.6 is None where the kernel
    /// is older. Of a listener the kernel fills in no more than `unacked` (the length of
    /// its accept queue) and `sacked` (its backlog); the rest is 0.
    TcpInfo: head {
        /// The state, numbered as in `net/tcp_states.h`: 1 ESTABLISHED, 2 SYN_SENT, ….
        state: u8 = 0,
        /// The state of congestion control, TCP_CA_*: 0 open, 1 disorder, 2 CWR,
        /// 3 recovery, 4 loss.
        ca_state: u8 = 1,
        /// Timeouts in a row without an acknowledgement.
        retransmits: u8 = 2,
        /// Window or keepalive probes without an answer.
        probes: u8 = 3,
        /// How often the retransmission timeout was doubled.
        backoff: u8 = 4,
        /// TCPI_OPT_*: 1 timestamps, 2 SACK, 4 window scaling, 8 ECN, 16 ECN seen, 32 data
        /// in the SYN was acknowledged.
        options: u8 = 5,
        /// The retransmission timeout.
        rto_us: u32 = 8,
        /// The delay of a delayed acknowledgement.
        ato_us: u32 = 12,
        /// The largest segment sent.
        snd_mss: u32 = 16,
        /// The largest segment received, by estimate.
        rcv_mss: u32 = 20,
        /// Segments sent and not acknowledged.
        unacked: u32 = 24,
        /// Segments acknowledged by SACK.
        sacked: u32 = 28,
        /// Segments taken for lost.
        lost: u32 = 32,
        /// Segments sent again and not acknowledged.
        retrans: u32 = 36,
        /// Forward acknowledged segments; 0 since Linux 4.15.
        fackets: u32 = 40,
        /// Since data was last sent.
        last_data_sent_ms: u32 = 44,
        /// Since data was last received.
        last_data_recv_ms: u32 = 52,
        /// Since an acknowledgement was last received.
        last_ack_recv_ms: u32 = 56,
        /// The path's MTU.
        pmtu: u32 = 60,
        /// The receive window's slow start threshold, in bytes.
        rcv_ssthresh: u32 = 64,
        /// The round trip time, smoothed; 0: not measured yet.
        rtt_us: u32 = 68,
        /// Its mean deviation.
        rttvar_us: u32 = 72,
        /// The slow start threshold, in segments; 0x7fffffff: none.
        snd_ssthresh: u32 = 76,
        /// The congestion window, in segments.
        snd_cwnd: u32 = 80,
        /// The largest segment that the peer was told of.
        advmss: u32 = 84,
        /// How many segments may be out of order without being taken for lost.
        reordering: u32 = 88,
        /// The round trip time by the receiver's estimate; 0: not measured.
        rcv_rtt_us: u32 = 92,
        /// Bytes that the application reads within a round trip, by estimate.
        rcv_space: u32 = 96,
        /// Segments sent again in the life of the connection, SYNs included.
        total_retrans: u32 = 100,
    }
    later {
        /// Bytes a second at which it paces; u64::MAX: it does not (Linux 3.15).
        pacing_rate: u64 = 104,
        /// SO_MAX_PACING_RATE; u64::MAX: none.
        max_pacing_rate: u64 = 112,
        /// Bytes acknowledged by the peer (RFC 4898; Linux 4.1).
        bytes_acked: u64 = 120,
        /// Bytes received in order.
        bytes_received: u64 = 128,
        /// Segments sent (Linux 4.2).
        segs_out: u32 = 136,
        /// Segments received.
        segs_in: u32 = 140,
        /// Bytes in the send buffer that were not sent yet (Linux 4.6).
        notsent_bytes: u32 = 144,
        /// The least round trip time seen; u32::MAX: none.
        min_rtt_us: u32 = 148,
        /// Segments received with data.
        data_segs_in: u32 = 152,
        /// Segments sent with data.
        data_segs_out: u32 = 156,
        /// Bytes a second that were delivered, last measured (Linux 4.9).
        delivery_rate: u64 = 160,
        /// Time with data to send (Linux 4.10).
        busy_time_us: u64 = 168,
        /// Of it, stalled by the peer's window.
        rwnd_limited_us: u64 = 176,
        /// Of it, stalled by the send buffer.
        sndbuf_limited_us: u64 = 184,
        /// Segments delivered (Linux 4.18).
        delivered: u32 = 192,
        /// Of them, marked by ECN.
        delivered_ce: u32 = 196,
        /// Bytes of data sent, retransmissions included (Linux 4.19).
        bytes_sent: u64 = 200,
        /// Of them, sent again.
        bytes_retrans: u64 = 208,
        /// Duplicates that the peer reported by D-SACK.
        dsack_dups: u32 = 216,
        /// Times that reordering was seen.
        reord_seen: u32 = 220,
        /// Segments received out of order (Linux 5.4).
        rcv_ooopack: u32 = 224,
        /// The window that the peer announces, in bytes (Linux 5.4).
        snd_wnd: u32 = 228,
        /// The window announced to it (Linux 6.2).
        rcv_wnd: u32 = 232,
        /// Times that another path was tried after a timeout (Linux 6.2).
        rehash: u32 = 236,
        /// Retransmission timeouts (Linux 6.7).
        total_rto: u16 = 240,
        /// Of them, runs that an acknowledgement ended.
        total_rto_recoveries: u16 = 242,
        /// Time spent in such runs, in milliseconds.
        total_rto_time_ms: u32 = 244,
    }
}

impl TcpInfo {
    /// Reads TCP_INFO of a socket.
    ///
    /// # Errors
    /// What getsockopt(2) gives: ENOTSOCK, or ENOPROTOOPT for a socket other than TCP.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let mut room = [0_u8; ROOM];
        let mut len = u32::try_from(room.len()).unwrap_or(0);
        // SAFETY: the kernel writes at most `len` bytes, the size of `room`, into it.
        let done = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                room.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        let known = room.get(..usize::try_from(len).unwrap_or(0)).unwrap_or_default();
        Self::parse(known).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

#[cfg(test)]
mod tests;
