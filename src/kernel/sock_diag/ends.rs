//! The ends of sockets as the kernel tells them when it frees one: the multicast groups
//! of sock_diag(7) (SKNLGRP_*_DESTROY, `sock_diag_broadcast_destroy` in
//! net/core/sock_diag.c). No right is needed to hear them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, sockopt};

use super::super::netlink::frame::{self, Messages};
use super::{BY_FAMILY, InetRow, Protocol, explain};

/// SKNLGRP_INET_TCP_DESTROY, INET_UDP, INET6_TCP, INET6_UDP (linux/sock_diag.h), as the
/// mask that bind takes. There are no groups for other protocols.
const GROUPS: u32 = 0b1111;
/// Room for what comes while nobody reads; the kernel counts about 1 kB for each end.
const QUEUE: usize = 8 << 20;
/// Longer than any row with a struct tcp_info.
const DATAGRAM: usize = 4096;

/// Hears of every TCP and UDP socket of a network namespace when the kernel frees it.
///
/// That is after the last descriptor of it was closed, and for TCP after the last byte
/// was acknowledged or the connection given up. A connection that goes to TIME_WAIT is
/// freed when TIME_WAIT begins; neither its end nor that of a SYN_RECV is told.
#[derive(Debug)]
pub struct Ends {
    fd: OwnedFd,
    buffer: Box<[u8]>,
}

/// What was heard at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heard {
    /// How many ends.
    pub ends: u64,
    /// More ended than there was room to tell (ENOBUFS): some were not heard.
    pub missed: bool,
}

impl Ends {
    /// Listens in the calling thread's network namespace, whichever thread reads later.
    ///
    /// # Errors
    /// As [`super::SockDiag::open`].
    pub fn open() -> io::Result<Self> {
        Self::bind().map_err(|error| {
            explain(error, "hearing of the ends of sockets", "sock_diag")
        })
    }

    fn bind() -> io::Result<Self> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(SOCK_DIAG),
        )?;
        // Beyond rmem_max with CAP_NET_ADMIN alone; what is less than wished is no error.
        if sockopt::set_socket_recv_buffer_size_force(&fd, QUEUE).is_err() {
            sockopt::set_socket_recv_buffer_size(&fd, QUEUE)?;
        }
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, GROUPS))?;
        // Connected to port 0, it hears the kernel alone.
        rustix::net::connect(&fd, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { fd, buffer: vec![0; DATAGRAM].into_boxed_slice() })
    }

    /// Hands out every end that has been told by now. Of a row there are its addresses,
    /// cookie, interface and protocol, of TCP its TCP_INFO as it was last, of UDP its
    /// state; inode, user and queues tell nothing. A connection that was reset may have
    /// lost an address or a port (they are 0).
    ///
    /// # Errors
    /// What recv(2) gives; InvalidData for a message that is cut short.
    pub fn drain(&mut self, mut each: impl FnMut(&InetRow<'_>)) -> io::Result<Heard> {
        let mut heard = Heard::default();
        loop {
            let received =
                rustix::net::recv(&self.fd, &mut *self.buffer, RecvFlags::TRUNC);
            let len = match received {
                Ok((_, len)) => len,
                Err(Errno::AGAIN) => return Ok(heard),
                Err(Errno::INTR) => continue,
                Err(Errno::NOBUFS) => {
                    heard.missed = true;
                    continue;
                }
                Err(errno) => return Err(errno.into()),
            };
            let datagram = self.buffer.get(..len).ok_or_else(frame::malformed)?;
            for message in Messages::of(datagram) {
                let message = message?;
                if message.kind != BY_FAMILY {
                    continue;
                }
                let row = InetRow::parse(message.payload, Protocol::TCP);
                each(&row.ok_or_else(frame::malformed)?);
                heard.ends += 1;
            }
        }
    }
}

impl AsFd for Ends {
    /// Readable when an end was told.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::sock_diag::{Cookie, Family};
    use crate::sockets::testing::{
        connect, listen, loopback, new_netns_or_rerun, wait_for,
    };
    use std::net::{SocketAddr, UdpSocket};

    /// The first end of a socket with this local address.
    fn end_of(
        ends: &mut Ends,
        local: SocketAddr,
    ) -> (Family, Protocol, SocketAddr, bool) {
        wait_for("the end of a socket is told", || {
            let mut found = None;
            let heard = ends.drain(|row| {
                if row.local == local {
                    assert_ne!(row.cookie, Cookie(0));
                    let info = row.tcp_info.is_some();
                    found = Some((row.family, row.protocol, row.remote, info));
                }
            });
            assert!(!heard.unwrap().missed);
            found
        })
    }

    #[test]
    fn the_ends_of_tcp_and_udp_are_told_with_their_addresses() {
        let mut ends = Ends::open().unwrap();
        let (listener, address) = listen(loopback(), 5);
        let client = connect(1, address).remove(0);
        let (accepted, _) = listener.accept().unwrap();
        let here = client.local_addr().unwrap();
        drop(client);
        let (family, protocol, remote, info) = end_of(&mut ends, here);
        assert_eq!((family, protocol, remote), (Family::V4, Protocol::TCP, address));
        assert!(info, "TCP_INFO comes with it");
        drop((accepted, listener));
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        let here = udp.local_addr().unwrap();
        drop(udp);
        let (family, protocol, remote, info) = end_of(&mut ends, here);
        assert_eq!((family, protocol, info), (Family::V6, Protocol::UDP, false));
        assert_eq!(remote.port(), 0);
    }

    #[test]
    fn more_ends_than_there_is_room_for_are_said_to_be_missed() {
        let test = "kernel::sock_diag::ends::tests::more_ends_than_there_is_room_for_\
                    are_said_to_be_missed";
        // Of its own: nothing else ends there, and nobody else is told so often.
        let Some(namespace) = new_netns_or_rerun(test) else { return };
        let inside = || {
            let mut ends = Ends::open().unwrap();
            sockopt::set_socket_recv_buffer_size(&ends, 1).unwrap();
            for _ in 0..100 {
                drop(UdpSocket::bind("0.0.0.0:0").unwrap());
            }
            wait_for("it says so", || ends.drain(|_| {}).unwrap().missed.then_some(()));
            // And it goes on, once there is room again.
            let mut later = Vec::new();
            wait_for("a later one is told", || {
                let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
                later.push(udp.local_addr().unwrap());
                drop(udp);
                let mut told = false;
                ends.drain(|row| told |= later.contains(&row.local)).unwrap();
                told.then_some(())
            });
        };
        namespace.run(inside).unwrap();
    }
}
