//! ss(8)'s letters give ss's selection, in ss's order of columns.

use std::collections::BTreeSet;
use std::process::Stdio;

use crate::fixtures::netns::Netns;
use crate::fixtures::table::{Holder, printed, sockets};

/// Sockets of every kind that ss lists: what has a state or a queue that could differ.
const SCRIPT: &str = "
def tcp(at, family=socket.AF_INET, backlog=5, only=None):
    s = socket.socket(family)
    if only is not None: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
    s.bind(at); s.listen(backlog); return s
def dial(at): return socket.create_connection(at)
v6 = socket.AF_INET6
a = tcp(('127.0.0.1', 7000)); b = tcp(('::', 7001), v6, only=0); d = tcp(('::1', 7002), v6, only=1)
e = tcp(('0.0.0.0', 7003), backlog=0)
kept = [dial(('127.0.0.1', 7000)), dial(('127.0.0.1', 7001)), dial(('::1', 7001)), dial(('::1', 7002))]
kept += [a.accept()[0], b.accept()[0]]  # the others stay queued
kept[4].send(b'12345'); kept[0].send(b'123')
full = dial(('127.0.0.1', 7003))
waits = socket.socket(); waits.setblocking(False); waits.connect_ex(('127.0.0.1', 7003))
half = dial(('127.0.0.1', 7000)); half_peer = a.accept()[0]; half.shutdown(socket.SHUT_WR)
gone = dial(('127.0.0.1', 7000)); last = a.accept()[0]; gone.close(); last.close()
def udp(at, family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_DGRAM); s.bind(at); return s
u, w, x = udp(('127.0.0.1', 7004)), udp(('::', 7005), v6), udp(('127.0.0.1', 7006))
x.connect(('127.0.0.1', 7004)); x.send(b'not read')
def unix(kind, at, listens=True):
    s = socket.socket(socket.AF_UNIX, kind); s.bind(at)
    if listens: s.listen(3)
    return s
us, uq = unix(socket.SOCK_STREAM, '\\0stream'), unix(socket.SOCK_SEQPACKET, '\\0seq')
ud = unix(socket.SOCK_DGRAM, '\\0dgram', False)
def join(kind, at):
    s = socket.socket(socket.AF_UNIX, kind); s.connect(at); return s
kept += [join(socket.SOCK_STREAM, '\\0stream') for _ in range(2)] + [join(socket.SOCK_SEQPACKET, '\\0seq')]
kept += [us.accept()[0], join(socket.SOCK_DGRAM, '\\0dgram')]
kept[-1].send(b'123456'); kept += socket.socketpair()
p = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)); p.bind(('lo', 0))
while b'TIME-WAIT' not in os.popen('ss -tanH').read().encode(): time.sleep(.01)
say()";

/// The lines of a table as words, in one way of writing what both write differently.
fn normal(text: &str) -> BTreeSet<Vec<String>> {
    text.lines().map(|line| normal_line(line).collect()).collect()
}

fn normal_line(line: &str) -> impl Iterator<Item = String> {
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    // Where only one state is selected ss leaves it out; of these it is always this one.
    if words.first().is_some_and(|word| word.parse::<u32>().is_ok()) {
        words.insert(0, "ESTAB".to_owned());
    }
    let unix = words.first().is_some_and(|netid| netid.starts_with("u_"));
    for word in &mut words[..] {
        // ss has `*` for a v6 wildcard that takes IPv4 too; ours says that with -e.
        if !unix && let Some(port) = word.strip_prefix("*:") {
            *word = format!("[::]:{port}");
        }
    }
    if unix {
        // Netid State Recv-Q Send-Q name inode peer inode: ss names no peer, and has
        // inode 0 where there is none.
        words.truncate(4 + 2);
        let peer = line.split_whitespace().next_back().unwrap_or_default();
        words.push(peer.replace('*', "0"));
    }
    words.into_iter()
}

/// A note is no column of ss.
fn without_notes(text: &str) -> String {
    let words = ["FULL", "80%", "83%"];
    let cut = |line: &str| {
        let end = words.iter().filter_map(|word| line.find(&format!(" {word}"))).min();
        line[..end.unwrap_or(line.len())].to_owned() + "\n"
    };
    text.lines().map(cut).collect()
}

#[test]
fn each_combination_of_letters_lists_the_rows_that_ss_lists() {
    let Some(netns) = Netns::new() else { return };
    let _holder = Holder::start(&netns, SCRIPT);
    for letters in [
        "-tan", "-tn", "-tln", "-ta4n", "-ta6n", "-tl4n", "-tl6n", "-t4n", "-t6n",
        "-uan", "-un", "-uln", "-ua4n", "-ua6n", "-tuan", "-tun", "-tuln", "-xan", "-xn",
        "-xln", "-xun",
    ] {
        let ss = netns.run("ss", &[letters, "-H"]);
        let ours = without_notes(&printed(&netns, &[letters, "-H"]));
        let (expected, found) = (normal(&ss), normal(&ours));
        assert!(!expected.is_empty(), "{letters}");
        let differ: Vec<_> = expected.symmetric_difference(&found).collect();
        assert!(differ.is_empty(), "{letters}: {differ:#?}\n{ss}\n{ours}");
        assert_eq!(ss.lines().count(), ours.lines().count(), "{letters}");
    }
}

#[test]
fn the_letters_of_packet_and_netlink_sockets_list_as_many() {
    let Some(netns) = Netns::new() else { return };
    let _holder = Holder::start(&netns, SCRIPT);
    // Ours have names where ss has numbers. Each lists its own netlink socket.
    for (letters, theirs) in [
        (&["-0n"][..], &["-0n"][..]),
        (&["-0an"], &["-0an"]),
        (&["--netlink", "-n"], &["-f", "netlink", "-n"]),
        (&["--netlink", "-an"], &["-f", "netlink", "-an"]),
    ] {
        let kinds = |text: &str| {
            let kinds = text.lines().map(|line| line.split_whitespace().next().unwrap());
            let mut kinds: Vec<_> = kinds.map(str::to_owned).collect();
            kinds.sort();
            kinds
        };
        let ss = netns.run("ss", &[theirs, &["-H"]].concat());
        let ours = printed(&netns, &[letters, &["-H"]].concat());
        assert!(!ss.is_empty());
        assert_eq!(ss.lines().count(), ours.lines().count(), "{ss}\n{ours}");
        if letters[0] != "--netlink" {
            assert_eq!(kinds(&ss), kinds(&ours), "{letters:?}");
        }
    }
}

#[test]
fn without_a_table_the_letters_select_what_ss_selects() {
    let Some(netns) = Netns::new() else { return };
    let _holder = Holder::start(&netns, SCRIPT);
    for letters in ["-an", "-n", "-ln", "-4an", "-6an", "-4n", "-6ln"] {
        let kinds = |text: &str| {
            let mut kinds: Vec<_> = text
                .lines()
                .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
                .collect();
            kinds.sort();
            kinds
        };
        let ss = netns.run("ss", &[letters, "-H"]);
        let ours = printed(&netns, &[letters, "-H"]);
        assert_eq!(kinds(&ours), kinds(&ss), "{letters}\n{ss}\n{ours}");
    }
}

#[test]
fn columns_stand_in_the_order_of_ss() {
    let Some(netns) = Netns::new() else { return };
    let _holder = Holder::start(&netns, SCRIPT);
    for letters in ["-tan", "-tlnp", "-uan", "-tuanp", "-xan", "-an"] {
        let header = |text: String| {
            let line = text.lines().next().unwrap().to_owned();
            // In a pipe ss has `Process` stick to what is before it, asked for or not.
            let words = line.replace("Process", " ");
            words.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let ss = header(netns.run("ss", &[letters]));
        let ours = printed(&netns, &[letters]);
        assert_eq!(ours.contains(" Process\n"), letters.contains('p'), "{letters}");
        assert_eq!(header(ours), ss, "{letters}");
    }
}

#[test]
fn details_are_those_that_ss_shows() {
    let Some(netns) = Netns::new() else { return };
    let _holder = Holder::start(&netns, SCRIPT);
    // A listener does not change between the two looks.
    let words = |text: String, wanted: &[&str]| {
        let text = text.replace('\n', " ");
        let mut found: Vec<_> = text
            .split_whitespace()
            .filter(|word| wanted.iter().any(|wanted| word.starts_with(wanted)))
            .map(str::to_owned)
            .collect();
        found.sort();
        found
    };
    for (letters, wanted) in [
        ("-tlnm", &["skmem:("][..]),
        ("-tlne", &["ino:", "sk:", "v6only:", "<->"]),
        ("-tni", &["mss:", "bytes_sent:", "pmtu:", "wscale:"]),
    ] {
        let ss = words(netns.run("ss", &[letters, "-H"]), wanted);
        let ours = words(printed(&netns, &[letters, "-H"]), wanted);
        assert!(ss.len() >= 4, "{letters}: {ss:?}");
        assert_eq!(ours, ss, "{letters}");
    }
    let oneline = printed(&netns, &["-tanmiO", "-H"]);
    let rows = printed(&netns, &["-tan", "-H"]);
    assert_eq!(oneline.lines().count(), rows.lines().count(), "{oneline}");
    let timers = printed(&netns, &["-tano", "-H"]);
    let line = timers.lines().find(|line| line.starts_with("TIME-WAIT")).unwrap();
    assert!(line.contains(" timer:(timewait,"), "{timers}");
}

/// Long enough to be read ahead of its printing (src/kernel/netlink/ahead.rs).
const MANY: &str = "
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (9000, 9000))
s = socket.socket(); s.bind(('127.0.0.1', 7000)); s.listen(64); kept = []
for _ in range(4000):
    kept += [socket.create_connection(('127.0.0.1', 7000)), s.accept()[0]]
say()";

#[test]
fn a_long_table_is_whole_and_its_reader_may_go() {
    let Some(netns) = Netns::new() else { return };
    let _holder = Holder::start(&netns, MANY);
    let text = printed(&netns, &["-tanH"]);
    let rows: BTreeSet<&str> = text.lines().collect();
    assert_eq!((text.lines().count(), rows.len()), (8001, 8001));
    assert_eq!(normal(&text), normal(&netns.run("ss", &["-tanH"])));
    let counted = printed(&netns, &["-ta", "--count"]);
    assert!(counted.contains("8,001") || counted.contains("8001"), "{counted}");
    // Who reads the first lines and ends is no error, and not waited for.
    let mut all = sockets(Some(&netns), &["-tan"]);
    let mut all = all.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(all.stdout.take());
    let done = all.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
}
