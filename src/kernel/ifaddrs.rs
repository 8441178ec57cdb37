//! The addresses of this host's interfaces (getifaddrs(3)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// Every IPv4 and IPv6 address that an interface of the calling thread's network
/// namespace has.
///
/// # Errors
/// What getifaddrs(3) gives.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    collect(|node| node.ifa_addr)
}

/// The broadcast address of every IPv4 network that an interface of the calling
/// thread's network namespace is in, where one was set. (Where none was, getifaddrs
/// gives the interface's own address in its place.)
///
/// # Errors
/// What getifaddrs(3) gives.
pub fn broadcasts() -> io::Result<Vec<IpAddr>> {
    let own = addresses()?;
    let mut found = collect(|node| {
        let has_one = node.ifa_flags & libc::IFF_BROADCAST.unsigned_abs() != 0;
        if has_one { node.ifa_ifu } else { ptr::null_mut() }
    })?;
    found.retain(|address| !own.contains(address));
    Ok(found)
}

/// The addresses that `pick` points at in each node of the list: fields of the node
/// itself, or null.
fn collect(
    pick: impl Fn(&libc::ifaddrs) -> *mut libc::sockaddr,
) -> io::Result<Vec<IpAddr>> {
    let mut list: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: getifaddrs writes one pointer to `list`, which outlives the call.
    if unsafe { libc::getifaddrs(&raw mut list) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut at = list;
    while !at.is_null() {
        // SAFETY: `at` is a node of the list, which is freed only below.
        let node = unsafe { &*at };
        // SAFETY: both callers pick a field of the node, which is null or points to a
        // sockaddr as long as its family says.
        found.extend(unsafe { address(pick(node)) });
        at = node.ifa_next;
    }
    // SAFETY: `list` came from getifaddrs, and no reference into it is left.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

/// # Safety
/// `at` must be null or point to a socket address of the size that its family has.
unsafe fn address(at: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: null or readable, by the caller's promise.
    let family = i32::from(unsafe { at.as_ref() }?.sa_family);
    match family {
        libc::AF_INET => {
            // SAFETY: the family says that it is a sockaddr_in.
            let v4 = unsafe { at.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that it is a sockaddr_in6.
            let v6 = unsafe { at.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_among_them() {
        let all = addresses().unwrap();
        assert!(all.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), "{all:?}");
    }
}
