//! Network interfaces of the calling thread's namespace (netdevice(7)).

use std::ffi::c_short;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

/// Sets an interface up.
///
/// # Errors
/// ENODEV where there is none of this name; EPERM without CAP_NET_ADMIN.
pub fn set_up(name: &str) -> io::Result<()> {
    let mut request = named(name)?;
    ask(libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: SIOCGIFFLAGS has just written this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    let up = c_short::try_from(libc::IFF_UP).unwrap_or_default();
    request.ifr_ifru.ifru_flags = flags | up;
    ask(libc::SIOCSIFFLAGS, &mut request)
}

/// Gives an interface an IPv4 address, with a way to the /24 around it.
///
/// # Errors
/// As [`set_up`].
pub fn set_address(name: &str, address: Ipv4Addr) -> io::Result<()> {
    let mut request = named(name)?;
    request.ifr_ifru.ifru_addr = socket_address(address);
    ask(libc::SIOCSIFADDR, &mut request)?;
    request.ifr_ifru.ifru_netmask = socket_address(Ipv4Addr::new(255, 255, 255, 0));
    ask(libc::SIOCSIFNETMASK, &mut request)
}

/// Lets so many packets wait to be sent by an interface.
///
/// # Errors
/// As [`set_up`].
pub fn set_queue_len(name: &str, packets: i32) -> io::Result<()> {
    let mut request = named(name)?;
    // ifr_qlen is another name of this int.
    request.ifr_ifru.ifru_metric = packets;
    ask(libc::SIOCSIFTXQLEN, &mut request)
}

fn named(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: an ifreq of zeros is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

/// struct sockaddr_in in the bytes of a struct sockaddr: the port is 0.
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut sa_data = [0; 14];
    for (to, from) in sa_data.iter_mut().skip(2).zip(address.octets()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let family = libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default();
    libc::sockaddr { sa_family: family, sa_data }
}

fn ask(what: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // One of IPv4 first: a v6 socket takes another struct for addresses.
    let socket =
        UdpSocket::bind(("0.0.0.0", 0)).or_else(|_| UdpSocket::bind(("::", 0)))?;
    // SAFETY: each request that this is called with reads the name, which ends with a
    // zero, and reads or writes one member of the union, all within `request`.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), what, &raw mut *request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::testing::new_netns_or_rerun;

    #[test]
    fn an_interface_that_is_not_there_is_not_set_up() {
        for set in [set_up("nosuch0"), set_queue_len("nosuch0", 1)] {
            assert_eq!(set.unwrap_err().raw_os_error(), Some(libc::ENODEV));
        }
        let error = set_up("a-name-that-is-too-long").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn an_address_leads_to_this_host() {
        let test = "kernel::interface::tests::an_address_leads_to_this_host";
        let Some(netns) = new_netns_or_rerun(test) else { return };
        let bind = |c, d| UdpSocket::bind((Ipv4Addr::new(10, 77, c, d), 0));
        netns
            .run(|| {
                // Before any interface is up there is no table to look an address up in.
                set_up("lo").unwrap();
                let before = bind(0, 1).unwrap_err();
                assert_eq!(before.raw_os_error(), Some(libc::EADDRNOTAVAIL));
                set_address("lo", Ipv4Addr::new(10, 77, 0, 1)).unwrap();
                set_queue_len("lo", 77).unwrap();
                // On a loopback device the whole /24 is this host's, and no more.
                bind(0, 1).unwrap();
                bind(0, 99).unwrap();
                let beyond = bind(1, 1).unwrap_err();
                assert_eq!(beyond.raw_os_error(), Some(libc::EADDRNOTAVAIL));
            })
            .unwrap();
    }
}
