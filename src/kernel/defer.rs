//! TCP_DEFER_ACCEPT (tcp(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Has a listener leave each connection in SYN_RECV until its first byte comes, for so
/// many seconds (rounded up to when a SYN-ACK is repeated).
///
/// # Errors
/// ENOPROTOOPT or EOPNOTSUPP for a socket other than TCP.
pub fn set_defer_accept(listener: impl AsFd, seconds: i32) -> io::Result<()> {
    let len = u32::try_from(size_of_val(&seconds)).unwrap_or(0);
    // SAFETY: the kernel reads `len` bytes, the size of `seconds`, from it.
    let done = unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            len,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::testing::{connect, listen, loopback, wait_for};
    use std::io::Write;

    #[test]
    fn a_deferred_connection_is_accepted_with_its_first_byte() {
        let (listener, at) = listen(loopback(), 4);
        set_defer_accept(&listener, 30).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut client = connect(1, at).remove(0);
        let early = listener.accept().unwrap_err();
        assert_eq!(early.kind(), io::ErrorKind::WouldBlock);
        client.write_all(b"x").unwrap();
        wait_for("accept()", || listener.accept().ok());
    }

    #[test]
    fn a_socket_other_than_tcp_refuses_it() {
        let socket = std::net::UdpSocket::bind((loopback(), 0)).unwrap();
        assert!(set_defer_accept(&socket, 1).is_err());
    }
}
