//! What a probe refuses before it opens anything.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::process::{Command, Output};

use crate::fixtures::netns::Netns;
use crate::fixtures::probing::{json, number, stderr};
use crate::fixtures::{Server, sockscope};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sockscope");

/// Runs `sockscope probe ARGS` by `program` in an empty folder: it must end with exit
/// code 2, one line that contains `says`, and leave nothing there.
fn refused(mut program: Command, args: &[&str], says: &str) {
    let dir = tempfile::tempdir().unwrap();
    let done: Output =
        program.current_dir(dir.path()).arg("probe").args(args).output().unwrap();
    let said = stderr(&done);
    assert_eq!(
        (done.status.code(), said.lines().count()),
        (Some(2), 1),
        "{args:?}: {said}"
    );
    assert!(said.starts_with("sockscope: ") && said.contains(says), "{args:?}: {said}");
    assert!(!said.contains(['\x1b', '\r']), "{said:?}");
    assert!(done.stdout.is_empty(), "{done:?}");
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert!(left.is_empty(), "{args:?} left {left:?}");
}

#[test]
fn targets_that_mean_nothing() {
    let long = format!("unix:/{}", "x".repeat(200));
    for (target, says) in [
        ("", "'' is not a host name"),
        ("localhost", "write localhost:PORT"),
        ("localhost:", "ports are 1 to 65535"),
        ("localhost:http", "ports are 1 to 65535"),
        ("localhost:0", "ports are 1 to 65535"),
        ("localhost:65536", "ports are 1 to 65535"),
        ("70000", "ports are 1 to 65535"),
        ("127.0.0.1:9/path", "ports are 1 to 65535"),
        ("::1:8080", "in brackets: [::1]:8080"),
        ("fe80::1", "write [fe80::1]:PORT"),
        ("[fe80::1]:80", "needs its interface: [fe80::1%INTERFACE]:80"),
        ("[fe80::1%nowhere]:80", "no interface is called 'nowhere'"),
        ("[fe80::1%4000000]:80", "no interface is called '4000000'"),
        ("[::1]", "write [::1]:PORT"),
        ("https://localhost/", "write tcp://localhost:443"),
        ("ftp://localhost:80/", "unknown scheme 'ftp'"),
        ("unix:", "unix:/path or unix:@name"),
        (&long, "201 bytes long; the kernel takes at most 107"),
        ("evil\x1b[31m:80", r"'evil\u{1b}[31m' is not a host name"),
        ("0.0.0.0:80", "the unspecified address"),
        ("[::]:80", "the unspecified address"),
        ("224.0.0.1:80", "a multicast address"),
        ("[ff02::1]:80", "a multicast address"),
        ("255.255.255.255:80", "a broadcast address"),
        ("127.255.255.255:80", "a broadcast address"),
    ] {
        refused(sockscope(), &[target], says);
        refused(sockscope(), &[target, "--authorized", "--max", "5"], says);
        refused(sockscope(), &[target, "--dry-run"], says);
    }
}

#[test]
fn arguments_that_mean_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let file = tempfile::NamedTempFile::new().unwrap();
    let under_a_file = file.path().join("runs").display().to_string();
    for (args, says) in [
        (&["--source", "127.0.0.0/33"][..], "'/33' is not a prefix length of IPv4"),
        (&["--source", "nonsense"], "not an address or CIDR block"),
        (&["--source", "192.0.2.1"], "this host has no address 192.0.2.1"),
        (&["--source", "::1"], "are of different families"),
        (&["--max", "0"], "must be 1 or more"),
        (&["--max", "9999M"], "no host holds more"),
        (&["--max", "5\x1b[31m"], "a count is written"),
        (&["--rate", "0"], "a rate is written"),
        (&["--threads", "0"], "must be 1 or more"),
        (&["--threads", "9999"], "at most 1024 threads"),
        (&["--fd-tables", "0"], "must be 1 or more, or auto"),
        (&["--fd-tables", "1M"], "at most 65536 fd tables"),
        (&["--pairs", "some"], "or all"),
        (&["--hold", "2"], "needs a unit"),
        (&["--patience", "3"], "needs a unit"),
        (&["--time-limit", "0s"], "longer than 0s"),
        (&["--connect-timeout", "-1s"], "a duration is written 2s"),
        (&["--hold", "999999999h"], "at most 365d"),
        (&["--max", "-5"], "a count is written 20000"),
        (&["--close", "hard"], "[possible values: fin, rst]"),
        (&["--target-netns", "no-such-netns"], "no network namespace 'no-such-netns'"),
        (&["--target-netns", "4194304999"], "no network namespace"),
        (&["--out", &under_a_file], "cannot record the run in"),
        (&["--out", "/proc/1/runs"], "cannot record the run in"),
        (&["-j", "--format", "table"], "cannot be used with"),
        (&["-q", "-v"], "cannot be used with"),
        (&["--speak", "gopher"], "[possible values: http, redis, memcached,"),
        (&["--speak", "redis", "--send", "x"], "cannot be used with"),
        (&["--speak", "redis", "--expect", "x"], "cannot be used with"),
        (&["--speak", "ssh", "--ping", "1s"], "a server that speaks first"),
        (&["--no-such-option"], "unexpected argument '--no-such-option'"),
        (&["another:80"], "unexpected argument 'another:80'"),
    ] {
        refused(sockscope(), &[&[&*target], args].concat(), says);
    }
    let nobody = listener.accept().map_err(|error| error.kind());
    assert_eq!(nobody.unwrap_err(), ErrorKind::WouldBlock);
}

/// In a namespace without any route, so that whatever is wrong, no packet can leave.
#[test]
fn other_hosts_without_their_owners_consent() {
    let Some(netns) = Netns::new() else { return };
    let inside = || netns.command(PROGRAM);
    let consent = "192.0.2.1:80 is not this host";
    refused(inside(), &["192.0.2.1:80"], consent);
    refused(inside(), &["192.0.2.1:80", "--max", "5"], consent);
    refused(inside(), &["192.0.2.1:80", "--dry-run"], consent);
    refused(inside(), &["192.0.2.1:80", "--authorized"], "also needs --max N");
    refused(inside(), &["[2001:db8::1]:80"], "is not this host");
    refused(
        inside(),
        &["no-such-host.invalid:80"],
        "no such host 'no-such-host.invalid'",
    );
}

#[test]
fn an_own_address_is_free_where_a_listener_answers_for_it() {
    let Some(netns) = Netns::new() else { return };
    netns.ip(&["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
    netns.ip(&["addr", "add", "10.99.0.1/24", "brd", "+", "dev", "v0"]);
    netns.ip(&["link", "set", "v0", "up"]);
    let inside = || netns.command(PROGRAM);
    refused(inside(), &["10.99.0.255:80"], "a broadcast address");
    refused(inside(), &["10.99.0.1:80"], "nothing listens on it here");
    refused(inside(), &["10.99.0.7:80"], "is not this host");
    for listen in ["10.99.0.1:0", "0.0.0.0:0"] {
        let server = Server::start_by(inside(), &["--listen", listen]);
        let port = server.socket_addr().port();
        let mut probe = inside();
        probe.args(["probe", &format!("10.99.0.1:{port}"), "-j", "--no-record"]);
        let done = probe.args(["--max", "5", "--hold", "0s"]).output().unwrap();
        assert_eq!(number(&json(&done, 0), "/result/counts/accepted"), 5);
        // The one that it has lies far into the block.
        let mut probe = inside();
        probe.args(["probe", &format!("10.99.0.1:{port}"), "-j", "--no-record"]);
        probe.args(["--source", "10.0.0.0/8", "--max", "5", "--hold", "0s"]);
        let done = probe.output().unwrap();
        assert_eq!(number(&json(&done, 0), "/result/counts/accepted"), 5);
        // Seen from elsewhere the address is another host's.
        refused(sockscope(), &[&format!("10.99.0.1:{port}")], "is not this host");
    }
}
