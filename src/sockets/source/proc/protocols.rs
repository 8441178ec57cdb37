//! /proc/net/protocols: how many sockets there are of the protocols that have no table
//! in /proc/net.

use crate::sockets::select::{Selection, Tables};
use crate::sockets::source::Lack;

/// A protocol without a table here: its table of sock_diag(7), what it is called, and
/// the names that the kernel has for it, IPv4's first.
struct Absent {
    table: Tables,
    name: &'static str,
    kernel_names: &'static [&'static str],
    /// Whether the kernel counts its sockets.
    is_counted: bool,
}

const ABSENT: [Absent; 5] = [
    Absent {
        table: Tables::MPTCP,
        name: "MPTCP",
        kernel_names: &["MPTCP", "MPTCPv6"],
        is_counted: true,
    },
    Absent {
        table: Tables::SCTP,
        name: "SCTP",
        kernel_names: &["SCTP", "SCTPv6"],
        is_counted: true,
    },
    Absent { table: Tables::XDP, name: "XDP", kernel_names: &["XDP"], is_counted: true },
    Absent {
        table: Tables::VSOCK,
        name: "vsock",
        kernel_names: &["AF_VSOCK"],
        is_counted: false,
    },
    Absent {
        table: Tables::OTHER_INET,
        name: "DCCP, L2TP and SMC",
        kernel_names: &["DCCP", "DCCPv6", "L2TP/IP", "L2TP/IPv6", "SMC", "SMC6"],
        is_counted: true,
    },
];

/// What of a selection has no table in /proc/net: named where such sockets exist, or may
/// exist because the count of them (`protocols`, the bytes of the file) is not to be had.
pub(super) fn without_table(
    protocols: Option<&[u8]>,
    selection: &Selection,
) -> Vec<Lack> {
    ABSENT
        .iter()
        .filter(|absent| selection.tables.has(absent.table))
        .filter_map(|absent| {
            let what = match protocols {
                Some(text) => match count(text, absent)? {
                    0 if absent.is_counted => return None,
                    0 => format!("{} sockets, if there are any", absent.name),
                    1 => format!("1 {} socket", absent.name),
                    n => format!("{n} {} sockets", absent.name),
                },
                None => format!("{} sockets", absent.name),
            };
            Some(Lack { what, why: "/proc/net has no table of its kind".to_owned() })
        })
        .collect()
}

/// The sockets of a protocol; None where the kernel does not have it.
fn count(protocols: &[u8], absent: &Absent) -> Option<u64> {
    let text = String::from_utf8_lossy(protocols);
    let counts = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let name = words.next()?;
        absent.kernel_names.contains(&name).then_some(())?;
        words.nth(1)?.parse::<u64>().ok()
    });
    counts.reduce(u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::model::States;
    use crate::sockets::select::{Details, Versions};
    use proptest::prelude::*;

    const PROTOCOLS: &[u8] = b"\
protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re bi br ha uh gp em
AF_VSOCK  1240      0      -1   NI       0   yes  kernel      y  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n
MPTCPv6   2064      1    4331   no       0   yes  kernel      y  y  y  n  y  y  y  y  y  y  y  y  n  n  y  y  y  n
XDP       1088      0      -1   NI       0   no   kernel      n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n
MPTCP     1936      2    4331   no       0   yes  kernel      y  y  y  n  y  y  y  y  y  y  y  y  n  n  y  y  y  n
TCP       2304    107    4331   no     192   yes  kernel      y  y  y  y  y  y  y  y  y  y  y  y  n  y  y  y  y  y
";

    fn all() -> Selection {
        Selection {
            tables: Tables::ALL,
            versions: Versions::BOTH,
            states: States::ALL,
            details: Details::default(),
            program: None,
        }
    }

    fn lacking(protocols: Option<&[u8]>, selection: &Selection) -> Vec<String> {
        without_table(protocols, selection).into_iter().map(|lack| lack.what).collect()
    }

    #[test]
    fn only_sockets_that_exist_are_lacking() {
        let all = all();
        let expected = ["3 MPTCP sockets", "vsock sockets, if there are any"];
        assert_eq!(lacking(Some(PROTOCOLS), &all), expected);
        assert_eq!(lacking(None, &all).len(), ABSENT.len(), "nothing is known of them");
        let tcp = Selection { tables: Tables::TCP, ..all };
        assert_eq!(lacking(None, &tcp), [""; 0]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = without_table(Some(&bytes), &all());
        }
    }
}
