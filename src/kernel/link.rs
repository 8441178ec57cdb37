//! Virtual links between network namespaces (veth(4)), their addresses and routes, as
//! rtnetlink(7) makes them.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::Protocol;
use rustix::net::netdevice::name_to_index;

use super::interface::set_up;
use super::netlink::frame::push;
use super::netlink::socket::Socket;
use super::netns::Netns;

/// NETLINK_ROUTE is protocol 0.
const ROUTE: Option<Protocol> = None;
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;

/// Joins the calling thread's network namespace with `there`: a pair of veth devices,
/// `here_name` on this side and `there_name` on the other, both up and without address.
/// They are gone with either namespace.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN in both; EEXIST where a name is taken; EOPNOTSUPP where
/// the kernel has no veth.
pub fn join(here_name: &str, there: &Netns, there_name: &str) -> io::Result<()> {
    let fd = OwnedFd::from(there.try_clone()?);
    // A struct ifinfomsg that asks for nothing: a device without peer cannot be up yet.
    let any_link = vec![0; 16];
    let mut peer = any_link.clone();
    push(&mut peer, libc::IFLA_IFNAME, &terminated(there_name));
    push(&mut peer, libc::IFLA_NET_NS_FD, &fd.as_raw_fd().to_ne_bytes());
    let (mut data, mut info) = (Vec::new(), Vec::new());
    // VETH_INFO_PEER (linux/veth.h).
    push(&mut data, 1, &peer);
    push(&mut info, libc::IFLA_INFO_KIND, b"veth");
    push(&mut info, libc::IFLA_INFO_DATA, &data);
    let mut request = any_link;
    push(&mut request, libc::IFLA_IFNAME, &terminated(here_name));
    push(&mut request, libc::IFLA_LINKINFO, &info);
    Socket::open(ROUTE)?.create(NEW_LINK, &request)?;
    set_up(here_name)?;
    there.run(|| set_up(there_name))?
}

/// Gives a device of the calling thread's network namespace an address, in a network of
/// so many leading bits.
///
/// # Errors
/// ENODEV where there is no such device; EPERM without CAP_NET_ADMIN; EEXIST where it
/// has the address.
pub fn add_address(name: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    let any = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let index = name_to_index(&any, name)?;
    // struct ifaddrmsg: family, prefix, flags, scope, index.
    let mut request = vec![AF_INET, prefix, 0, 0];
    request.extend_from_slice(&index.to_ne_bytes());
    push(&mut request, libc::IFA_LOCAL, &address.octets());
    push(&mut request, libc::IFA_ADDRESS, &address.octets());
    Socket::open(ROUTE)?.create(NEW_ADDRESS, &request)
}

/// Sends what has no other way, in the calling thread's network namespace, to `router`.
///
/// # Errors
/// ENETUNREACH where the router itself cannot be reached; EPERM without CAP_NET_ADMIN;
/// EEXIST where there is such a route.
pub fn add_default_route(router: Ipv4Addr) -> io::Result<()> {
    // struct rtmsg: family, both prefixes, tos, table, protocol, scope, type, flags.
    let mut request = vec![
        AF_INET,
        0,
        0,
        0,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_STATIC,
        libc::RT_SCOPE_UNIVERSE,
        libc::RTN_UNICAST,
    ];
    request.extend_from_slice(&0_u32.to_ne_bytes());
    push(&mut request, libc::RTA_GATEWAY, &router.octets());
    Socket::open(ROUTE)?.create(NEW_ROUTE, &request)
}

/// AF_INET in the one byte that rtnetlink has for it.
const AF_INET: u8 = 2;

fn terminated(name: &str) -> Vec<u8> {
    name.bytes().chain([0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::private::enter_network_namespace;
    use crate::kernel::testing::new_netns;
    use crate::sockets::testing::skip;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

    fn errno(done: io::Result<()>) -> Option<i32> {
        done.err().and_then(|error| error.raw_os_error())
    }

    #[test]
    fn a_link_joins_two_namespaces_and_a_route_leads_beyond() {
        let inside = std::thread::spawn(|| {
            enter_network_namespace()?;
            let far = new_netns()?;
            join("near0", &far, "far0")?;
            add_address("near0", NEAR, 24)?;
            // Another address of this namespace, beyond the link's network.
            add_address("lo", ELSEWHERE, 32)?;
            let listener = TcpListener::bind("0.0.0.0:0")?;
            let port = listener.local_addr()?.port();
            assert_eq!(errno(join("near0", &far, "far1")), Some(libc::EEXIST));
            assert_eq!(errno(add_address("nosuch0", FAR, 24)), Some(libc::ENODEV));
            far.run(|| {
                let wait = Duration::from_secs(5);
                add_address("far0", FAR, 24)?;
                let to =
                    |ip: Ipv4Addr| TcpStream::connect_timeout(&(ip, port).into(), wait);
                assert_eq!(to(NEAR)?.local_addr()?.ip(), FAR);
                let no_way = to(ELSEWHERE).unwrap_err();
                assert_eq!(no_way.raw_os_error(), Some(libc::ENETUNREACH));
                add_default_route(NEAR)?;
                assert_eq!(to(ELSEWHERE)?.local_addr()?.ip(), FAR);
                Ok(())
            })?
        });
        let done: io::Result<()> = inside.join().unwrap();
        match done.as_ref().err().and_then(io::Error::raw_os_error) {
            Some(libc::EPERM) => skip("no network namespaces"),
            _ => done.unwrap(),
        }
    }
}
