//! `sockscope sockets -s`: how many sockets there are.

use std::collections::HashMap;
use std::fs;

use serde_json::Value;

use crate::fixtures::holder::Holder;
use crate::fixtures::netns::Netns;
use crate::fixtures::probing::{json, number, stderr, stdout};
use crate::fixtures::{run, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sockscope");

/// So many of each that no two numbers are the same by chance.
const SOCKETS: &str = r"
def udp(n, family, host):
    for _ in range(n):
        s = socket.socket(family, socket.SOCK_DGRAM); s.bind((host, 0)); keep.append(s)
keep = [tcp() for _ in range(3)] + [tcp(host='::1') for _ in range(2)]
keep += [t for _ in range(6) for t in pair(keep[0])]
keep += pair(keep[3])
# One in TIME_WAIT, two that are half closed.
c, s = pair(keep[0]); c.close(); s.close()
for _ in range(2):
    c, s = pair(keep[0]); c.shutdown(socket.SHUT_WR); keep += [c, s]
udp(7, socket.AF_INET, '127.0.0.1'); udp(4, socket.AF_INET6, '::1')
keep += [socket.socket(socket.AF_INET, socket.SOCK_RAW, 200 + n) for n in range(2)]
keep.append(socket.socket(socket.AF_INET6, socket.SOCK_RAW, 200))
keep += [t for _ in range(5) for t in socket.socketpair()]
keep += [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(3)]
keep += [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3 << 8) for _ in range(2)]
for _ in range(4):
    n = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); n.bind((0, 0)); keep.append(n)
keep += [socket.socket() for _ in range(8)]
try:
    m = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    m.bind(('127.0.0.1', 0)); m.listen(5); keep.append(m)
    mptcp = 1
except OSError:
    mptcp = 0
say(mptcp=mptcp)
";

fn summary(netns: &Netns) -> Value {
    let done = netns.command(PROGRAM).args(["sockets", "-s", "-j"]).output().unwrap();
    assert!(done.stderr.is_empty(), "{done:?}");
    json(&done, 0)
}

/// The number before a word in what `ss -s` says.
fn before<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(word));
    lines.flat_map(|line| line.split_whitespace()).collect()
}

#[test]
fn the_numbers_are_those_of_real_sockets_and_of_ss() {
    let Some(netns) = Netns::new() else { return };
    let holder = Holder::start_in(&netns, SOCKETS);
    // The last acknowledgements take a moment, and so does the end of the netlink socket
    // of the summary before.
    let mut counted = summary(&netns);
    until("all have settled", || {
        let n = |pointer| number(&counted, pointer);
        let settled = (n("/tcp/time_wait"), n("/other")) == (1, 8);
        if !settled {
            counted = summary(&netns);
        }
        settled
    });
    let n = |pointer| number(&counted, pointer);
    let mptcp = holder.number("mptcp");
    assert_eq!(counted["schema"], "sockscope.summary/1");
    for (pointer, expected) in [
        // Listeners, both ends of seven connections, and of two that are half closed.
        ("/tcp/ipv4", 3 + 12 + 4 + mptcp),
        ("/tcp/ipv6", 2 + 2),
        // With CLOSE_WAIT; FIN_WAIT2 is the other end of it.
        ("/tcp/established", 14 + 2),
        ("/tcp/listening", 5 + mptcp),
        ("/tcp/other", 2),
        ("/tcp/time_wait", 1),
        ("/mptcp/total", mptcp),
        ("/udp/ipv4", 7),
        ("/udp/ipv6", 4),
        ("/raw/ipv4", 2),
        ("/raw/ipv6", 1),
        ("/unix/stream", 10),
        ("/unix/datagram_or_seqpacket", 3),
        ("/packet", 2),
        ("/netlink", 4),
        ("/other", 8),
        ("/fragments/total", 0),
    ] {
        assert_eq!(n(pointer), expected, "{pointer}: {counted}");
    }
    let total = n("/tcp/total") + n("/mptcp/total") + n("/udp/total") + n("/raw/total");
    let rest = n("/unix/total") + n("/packet") + n("/netlink") + n("/other");
    assert_eq!(n("/sockets"), total + rest, "{counted}");

    let named = run(&["sockets", "-s", "-j", "--netns", &netns.name]);
    for pointer in ["/tcp", "/udp", "/raw", "/unix"] {
        assert_eq!(json(&named, 0).pointer(pointer), counted.pointer(pointer));
    }
    let mut text = String::new();
    let of_ss = |text: &str, word: &str, place: usize| -> u64 {
        let cells = before(text, word);
        cells[place].trim_matches([',', '(', ')']).parse().unwrap()
    };
    until("the last netlink socket of ours is gone", || {
        text = netns.run("ss", &["-s"]);
        of_ss(&text, "Total:", 0) == n("/sockets")
    });
    // What ss calls the total of TCP, and `closed`, is of the whole machine.
    let tcp: Vec<&str> = before(&text, "TCP:");
    let estab = tcp.iter().position(|word| *word == "(estab").unwrap();
    assert_eq!(tcp[estab + 1], format!("{},", n("/tcp/established")), "{text}");
    let wait = tcp.iter().position(|word| *word == "timewait").unwrap();
    assert_eq!(tcp[wait + 1], format!("{})", n("/tcp/time_wait")), "{text}");
    for (word, kind) in
        [("RAW", "raw"), ("UDP", "udp"), ("TCP\t", "tcp"), ("FRAG", "fragments")]
    {
        let ours = ["total", "ipv4", "ipv6"].map(|key| n2(&counted, kind, key));
        let theirs = [0, 1, 2].map(|place| of_ss(&text, word, place));
        assert_eq!(ours, theirs, "{kind}: {text}");
    }
}

fn n2(counted: &Value, kind: &str, key: &str) -> u64 {
    number(counted, &format!("/{kind}/{key}"))
}

/// A host as /proc shows it, of another machine.
fn fixture() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("net")).unwrap();
    for (name, text) in [
        (
            "sockstat",
            "sockets: used 50\nTCP: inuse 9 orphan 2 tw 1234 alloc 2000 mem 3\n\
             UDP: inuse 3 mem 1\nUDPLITE: inuse 0\nRAW: inuse 1\nFRAG: inuse 1 memory 4096\n",
        ),
        (
            "sockstat6",
            "TCP6: inuse 2\nUDP6: inuse 1\nRAW6: inuse 0\nFRAG6: inuse 0 memory 0\n",
        ),
        ("snmp", "Tcp: MaxConn CurrEstab\nTcp: -1 6\n"),
    ] {
        fs::write(root.path().join("net").join(name), text).unwrap();
    }
    root
}

#[test]
fn every_format_has_the_same_numbers() {
    let root = fixture();
    let root = root.path().to_str().unwrap();
    let printed = |format: &str| {
        stdout(&run(&["ss", "-s", "--proc-root", root, "--format", format]), 0)
    };
    let document: Value = serde_json::from_str(&printed("json")).unwrap();
    assert_eq!(printed("json"), printed("ndjson"), "one document, on one line");
    // Nobody can be asked what listens there, nor is there a list of protocols.
    assert_eq!(document["tcp"]["listening"], Value::Null);
    assert_eq!(document["tcp"]["other"], Value::Null);
    assert_eq!(document.get("unix"), None);
    let numbers = ["/sockets", "/tcp/total", "/tcp/established", "/tcp/time_wait"];
    assert_eq!(numbers.map(|at| number(&document, at)), [50, 11, 6, 1234]);
    assert_eq!(number(&document, "/machine/tcp_orphaned"), 2);

    let text = printed("csv");
    let mut csv = csv::Reader::from_reader(text.as_bytes());
    let rows: HashMap<String, (u64, Option<u64>, Option<u64>)> = csv
        .deserialize::<(String, u64, Option<u64>, Option<u64>)>()
        .map(|row| row.map(|(kind, total, v4, v6)| (kind, (total, v4, v6))).unwrap())
        .collect();
    assert_eq!(rows["tcp"], (11, Some(9), Some(2)));
    assert_eq!(rows["tcp_time_wait"], (1234, None, None));
    assert_eq!(rows["machine_tcp_allocated"].0, 2000);
    assert!(!rows.contains_key("tcp_listening"));

    let table = printed("table");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = table.lines().map(words).collect();
    for line in [
        "tcp 11 9 2 6 established; and 1,234 in TIME-WAIT",
        "udp 4 3 1",
        "all 50",
        "fragments 1 1 0 packets that wait for the rest, 4.0 KiB",
    ] {
        assert!(lines.iter().any(|found| found == line), "{line} in {table}");
    }
    assert!(table.contains("whole machine: 2 orphaned of 2,000 TCP sockets"), "{table}");
    let bare = stdout(&run(&["ss", "-s", "-H", "--proc-root", root]), 0);
    assert_eq!(lines[1..], bare.lines().map(words).collect::<Vec<_>>());
}

#[test]
fn what_it_cannot_narrow_is_refused() {
    for args in [&["-t"][..], &["-a"], &["-p"], &["-4"], &["--count"], &["--pid", "1"]] {
        let done = run(&[&["sockets", "-s"], args].concat());
        let said = stderr(&done);
        assert_eq!((done.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    }
    let done = run(&["sockets", "-s", "--proc-root", "/nowhere"]);
    assert_eq!(done.status.code(), Some(3));
    assert!(stderr(&done).contains("/nowhere/net/sockstat"), "{done:?}");
}
