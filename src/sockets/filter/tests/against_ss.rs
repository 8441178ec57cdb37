//! The same filters, given to ss(8).

use std::collections::BTreeSet;
use std::process::Command;

use super::scene::{Scene, dump, matching};
use super::*;
use crate::kernel::sock_diag::{Show, SockDiag, UnixKind, UnixRequest};
use crate::sockets::model::Inode;
use crate::sockets::row::{Address, Kind};
use crate::sockets::testing::{new_netns_or_rerun, skip};

/// What `of_line` finds in each socket that ss shows, or why it shows none.
fn ss(
    options: &str,
    filter: &str,
    of_line: impl Fn(&[&str]) -> Option<String>,
) -> Result<BTreeSet<String>, String> {
    let output = Command::new("ss")
        .arg(options)
        .args(filter.split_whitespace())
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    Ok(words.filter_map(|words| of_line(&words)).collect())
}

/// The cookies of the inet sockets that ss shows.
fn inet(filter: &str) -> Result<BTreeSet<String>, String> {
    ss("-tuaHne", filter, |words| {
        words.iter().find_map(|word| word.strip_prefix("sk:")).map(str::to_owned)
    })
}

/// The inodes of the unix sockets that ss shows, before the peer's address and inode.
fn unix(filter: &str) -> Result<BTreeSet<String>, String> {
    ss("-xaHn", filter, |words| words.iter().nth_back(2).map(|word| (*word).to_owned()))
}

/// Filters that both know, and read alike.
const BOTH: [&str; 63] = [
    "",
    "state listening",
    "state established",
    "state time-wait",
    "state syn-sent",
    "state syn-recv",
    "state fin-wait-2",
    "state close-wait src 127.0.0.1",
    "state closed",
    "state all",
    "state connected",
    "state synchronized",
    "state bucket",
    "state big",
    "exclude listening",
    "state all exclude listening exclude established",
    "state established state listening",
    "state connected exclude established",
    "exclude listening state listening",
    "state established ( sport = :80 or dport = :80 )",
    "state established sport = :80 or dport = :80",
    "src 127.0.0.1",
    "src 127.0.0.1:80",
    "src = 127.0.0.2",
    "dst 127.0.0.1",
    "src 127/8",
    "src 127.0.0.0/31",
    "src 127.0.0.0/8:80",
    "dst 127.0.0.1:80",
    "src [::1]",
    "src [::1]:80",
    "src [::]",
    "dst [::1]",
    "src [::ffff:127.0.0.1]",
    "dst [::ffff:0:0/96]",
    "src *:80",
    "src :80",
    "src *",
    "src inet:127.0.0.1",
    "src inet6:*",
    "sport = :80",
    "sport = 80",
    "sport 80",
    "sport == :80",
    "sport eq 80",
    "sport != :80",
    "sport neq 80",
    "sport > :80",
    "sport >= :80",
    "sport < :80",
    "sport <= :80",
    "dport ge 80",
    "dport lt 80",
    "sport = *",
    "sport = inet:80",
    "not sport = :80",
    "! sport = :80 and ! dport = :80",
    "not ( sport = :80 or dport = :80 )",
    "sport = :80 or sport = :81 and dport = 0",
    "sport = :80 or sport = :81 dport = 0",
    "sport = :80 and dport = 0 or sport = :1",
    "not sport = :80 or sport = :80",
    "dev lo",
];

#[test]
fn inet_sockets_match_as_they_do_in_ss() {
    let Some(namespace) = new_netns_or_rerun(
        "sockets::filter::tests::against_ss::inet_sockets_match_as_they_do_in_ss",
    ) else {
        return;
    };
    namespace.run(check_inet).unwrap();
}

fn check_inet() {
    let _scene = Scene::new();
    if let Err(error) = inet("") {
        return skip(&format!("ss cannot be run: {error}"));
    }
    let bound = StateSet::of_name("bound-inactive").unwrap();
    let rows: Vec<_> = dump(None)
        .into_iter()
        .filter(|row| matches!(row.kind, Kind::Tcp | Kind::Udp))
        // ss 6.1 does not ask for these.
        .filter(|row| !bound.contains(row))
        .collect();
    let others = [
        "dev != lo",
        "not autobound or autobound",
        "src 0.0.0.0/0",
        "dst 0.0.0.0",
        "dport = 0",
    ];
    let mut sizes = BTreeSet::new();
    for text in BOTH.into_iter().chain(others) {
        let filter = filter(text);
        let device = |row: &Row<'_>| (row.interface == 1).then_some("lo");
        let ours: BTreeSet<String> = rows
            .iter()
            .filter(|row| {
                filter.matches(&Subject { device: device(row), ..Subject::of(row) })
            })
            .map(|row| row.cookie.unwrap().to_string())
            .collect();
        assert_eq!(Ok(&ours), inet(text).as_ref(), "{text}");
        sizes.insert(ours.len());
    }
    assert!(sizes.len() > 10, "the filters differ in what they find: {sizes:?}");
}

/// What ss does otherwise, so that it is noticed when it no longer does.
#[test]
fn where_ss_differs_it_is_known_how() {
    let Some(namespace) = new_netns_or_rerun(
        "sockets::filter::tests::against_ss::where_ss_differs_it_is_known_how",
    ) else {
        return;
    };
    namespace.run(check_differences).unwrap();
}

fn check_differences() {
    let _scene = Scene::new();
    let count = |text: &str| inet(text).map(|found| found.len());
    if let Err(error) = count("") {
        return skip(&format!("ss cannot be run: {error}"));
    }
    // The kernel drops what is not of IPv4, ss what is: here a socket matches either a
    // condition or its negation, as long as it has the field.
    assert!(count("src inet6:*").unwrap() > 0);
    assert_eq!(count("not src 0.0.0.0/0"), Ok(0));
    let rows = dump(None);
    let none = matching(&filter("not src 0.0.0.0/0"), &rows).is_empty();
    assert!(!none, "the sockets of IPv6");
    // What is not given in full is filled up with zeros; here it must have a prefix.
    assert_eq!(count("src 80"), Ok(0));
    // A port that none can have.
    assert_eq!(count("sport = :70000"), Ok(0));
    for refused in [
        "state LISTEN",
        "sport=:80",
        "(sport = :80)",
        "src != 127.0.0.1",
        "src [::1]/128",
    ] {
        assert!(count(refused).is_err(), "{refused}");
        assert!(parse(refused).is_ok(), "{refused}");
    }
}

#[test]
fn unix_sockets_match_as_they_do_in_ss() {
    let Some(namespace) = new_netns_or_rerun(
        "sockets::filter::tests::against_ss::unix_sockets_match_as_they_do_in_ss",
    ) else {
        return;
    };
    namespace.run(check_unix).unwrap();
}

fn check_unix() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

    let folder = tempfile::tempdir().unwrap();
    let [app, data] = ["App.sock", "data"].map(|name| folder.path().join(name));
    let listener = UnixListener::bind(&app).unwrap();
    let client = UnixStream::connect(&app).unwrap();
    let server = listener.accept().unwrap();
    let datagram = UnixDatagram::bind(&data).unwrap();
    let abstract_name = SocketAddr::from_abstract_name(b"sockscope-filter").unwrap();
    let hidden = UnixListener::bind_addr(&abstract_name).unwrap();
    let unnamed = UnixDatagram::unbound().unwrap();

    if let Err(error) = unix("") {
        return skip(&format!("ss cannot be run: {error}"));
    }
    let mut rows: Vec<Row<'static>> = Vec::new();
    let request = UnixRequest { states: States::ALL, show: Show::NAME | Show::PEER };
    SockDiag::open()
        .unwrap()
        .unix(&request, |row| {
            let kind = match row.kind {
                UnixKind::Datagram => Kind::UnixDatagram,
                _ => Kind::UnixStream,
            };
            let name = row.name.clone().map(crate::sockets::model::UnixName::into_owned);
            rows.push(Row {
                local: Address::Unix { name, inode: row.inode },
                remote: Address::Unix { name: None, inode: row.peer.unwrap_or(Inode(0)) },
                inode: row.inode,
                ..Row::new(kind, row.state)
            });
        })
        .unwrap();
    assert!(rows.len() >= 6, "{rows:#?}");
    let at = folder.path().display();
    for text in [
        String::new(),
        "state listening".into(),
        "state closed".into(),
        "state established".into(),
        "exclude listening".into(),
        format!("src {at}/*"),
        format!("src unix:{at}/*.sock"),
        format!("src {at}/app.SOCK"),
        format!("not src {at}/*"),
        format!("state listening src {at}/*"),
        format!("src {at}/data or src @sockscope*"),
        "src @*".into(),
        "src unix:*".into(),
        "src *sockscope*".into(),
        format!("src {at}/[a-z]ata"),
    ] {
        let services = Services::default();
        let context = Context { family: AddressFamily::Unix, ..Context::new(&services) };
        let filter = Filter::parse(&text, &context).unwrap();
        let ours: BTreeSet<String> = rows
            .iter()
            .filter(|row| filter.matches(&Subject::of(row)))
            .map(|row| row.inode.to_string())
            .collect();
        assert_eq!(Ok(&ours), unix(&text).as_ref(), "{text}");
    }
    drop((client, server, datagram, hidden, unnamed));
}
