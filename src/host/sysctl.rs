//! sysctls (sysctl(8)), read from /proc/sys by their dotted names.
//!
//! Those under `net` are of the calling thread's network namespace.

use super::ports::PortSet;
use super::{ProcRoot, ReadError};

/// The value of a sysctl: `net.core.somaxconn`. Blanks between its parts become one
/// space each.
///
/// # Errors
/// NotFound where this kernel lacks it or its module is not loaded.
pub fn read(root: &ProcRoot, name: &str) -> Result<String, ReadError> {
    let text = root.read(&file(name))?;
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A sysctl that is one number.
///
/// # Errors
/// As [`read`], and InvalidData where it is not one number from 0 on.
pub fn number(root: &ProcRoot, name: &str) -> Result<u64, ReadError> {
    let text = read(root, name)?;
    text.parse().map_err(|_| root.malformed(&file(name), "not one number"))
}

/// A sysctl that is several numbers: `net.ipv4.tcp_mem`, `fs.file-nr`.
///
/// # Errors
/// As [`read`], and InvalidData where there are not exactly `N` numbers from 0 on.
pub fn numbers<const N: usize>(
    root: &ProcRoot,
    name: &str,
) -> Result<[u64; N], ReadError> {
    let text = read(root, name)?;
    let parsed: Option<Vec<u64>> =
        text.split(' ').map(|word| word.parse().ok()).collect();
    parsed
        .and_then(|all| all.try_into().ok())
        .ok_or_else(|| root.malformed(&file(name), "not the numbers that were expected"))
}

/// The ports that the kernel picks a source port from, both ends included
/// (net.ipv4.ip_local_port_range; it holds for IPv6 too).
///
/// # Errors
/// As [`numbers`].
pub fn local_port_range(root: &ProcRoot) -> Result<(u16, u16), ReadError> {
    let name = "net.ipv4.ip_local_port_range";
    let [low, high] = numbers(root, name)?;
    match (u16::try_from(low), u16::try_from(high)) {
        (Ok(low), Ok(high)) if low <= high => Ok((low, high)),
        _ => Err(root.malformed(&file(name), "no range of ports")),
    }
}

/// The ports that the kernel never picks as a source port by itself
/// (net.ipv4.ip_local_reserved_ports).
///
/// # Errors
/// As [`read`], and InvalidData where it names no ports.
pub fn reserved_ports(root: &ProcRoot) -> Result<PortSet, ReadError> {
    let name = "net.ipv4.ip_local_reserved_ports";
    let text = read(root, name)?;
    PortSet::parse(&text).map_err(|error| root.malformed(&file(name), &error.to_string()))
}

fn file(name: &str) -> String {
    format!("sys/{}", name.replace('.', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree;
    use std::io::ErrorKind;

    #[test]
    fn values_are_read_by_their_dotted_names() {
        let (_tree, root) = tree(&[
            ("sys/net/core/somaxconn", "4096\n"),
            ("sys/net/ipv4/tcp_mem", "288546\t384730\t577092\n"),
            ("sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("sys/net/ipv4/ip_local_reserved_ports", "8080,9000-9100\n"),
        ]);
        assert_eq!(number(&root, "net.core.somaxconn").unwrap(), 4096);
        assert_eq!(read(&root, "net.ipv4.tcp_mem").unwrap(), "288546 384730 577092");
        let tcp_mem = numbers::<3>(&root, "net.ipv4.tcp_mem").unwrap();
        assert_eq!(tcp_mem, [288_546, 384_730, 577_092]);
        assert_eq!(local_port_range(&root).unwrap(), (32_768, 60_999));
        assert_eq!(reserved_ports(&root).unwrap().to_string(), "8080,9000-9100");
    }

    #[test]
    fn a_value_of_another_form_is_an_error_and_no_guess() {
        let (_tree, root) = tree(&[
            ("sys/net/core/somaxconn", "many\n"),
            ("sys/net/ipv4/ip_local_port_range", "60999 32768\n"),
            ("sys/net/ipv4/ip_local_reserved_ports", "80-x\n"),
            ("sys/fs/file-nr", "1 2\n"),
        ]);
        for error in [
            number(&root, "net.core.somaxconn").unwrap_err(),
            local_port_range(&root).unwrap_err(),
            reserved_ports(&root).unwrap_err(),
            numbers::<3>(&root, "fs.file-nr").unwrap_err(),
        ] {
            assert_eq!(error.source.kind(), ErrorKind::InvalidData, "{error}");
        }
        assert!(number(&root, "net.core.nothing").unwrap_err().is_missing());
    }

    #[test]
    fn this_kernel_has_the_known_forms() {
        let root = ProcRoot::default();
        let (low, high) = local_port_range(&root).unwrap();
        assert!(low <= high);
        reserved_ports(&root).unwrap();
        assert!(number(&root, "net.core.somaxconn").unwrap() > 0);
    }
}
