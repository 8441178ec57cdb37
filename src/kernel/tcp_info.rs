//! TCP_INFO (tcp(7)): what the kernel knows of one connection.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd};

/// The part of `struct tcp_info` (linux/tcp.h) that this program reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// The state, numbered as in `net/tcp_states.h`: 1 ESTABLISHED, 2 SYN_SENT, ….
    pub state: u8,
    /// Segments sent again in the life of the connection, SYNs included.
    pub total_retrans: u32,
    /// Segments received (RFC 4898 tcpEStatsPerfSegsIn); 0 where the kernel is older
    /// than 4.2.
    pub segs_in: u32,
}

/// The head of `struct tcp_info` up to tcpi_segs_in. It only ever grows at its end;
/// the kernel copies as much as the caller has room for.
#[repr(C)]
struct Raw {
    state: u8,
    _ca_state_to_flags: [u8; 7],
    _rto_to_unacked: [u32; 5],
    _sacked_to_retrans: [u32; 3],
    _fackets: u32,
    _times: [u32; 4],
    _pmtu_to_reordering: [u32; 8],
    _rcv_rtt_space: [u32; 2],
    total_retrans: u32,
    _rates_and_bytes: [u64; 4],
    _segs_out: u32,
    segs_in: u32,
}

impl TcpInfo {
    /// Reads TCP_INFO of a socket.
    ///
    /// # Errors
    /// What getsockopt(2) gives: ENOTSOCK, or ENOPROTOOPT for a socket other than TCP.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let mut raw = MaybeUninit::<Raw>::zeroed();
        let mut len = u32::try_from(size_of::<Raw>()).unwrap_or(0);
        // SAFETY: the kernel writes at most `len` bytes, the size of `raw`, into it.
        let done = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                raw.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: zeroed above, so initialised whatever the kernel wrote; every bit
        // pattern is a value of these integers.
        let raw = unsafe { raw.assume_init() };
        Ok(Self {
            state: raw.state,
            total_retrans: raw.total_retrans,
            segs_in: raw.segs_in,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn fields_lie_where_the_kernel_puts_them() {
        assert_eq!(
            offset_of!(Raw, total_retrans),
            offset_of!(libc::tcp_info, tcpi_total_retrans)
        );
        // linux/tcp.h: tcpi_total_retrans at 100, then four u64 from 104, segs_out 136.
        assert_eq!(offset_of!(Raw, segs_in), 140);
    }

    #[test]
    fn an_idle_connection_has_seen_its_syn_ack_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let info = TcpInfo::of(&client).unwrap();
        assert_eq!((info.state, info.total_retrans, info.segs_in), (1, 0, 1));
    }
}
