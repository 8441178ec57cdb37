//! Every kind and state of socket as `sockscope sockets` lists it: what is easily
//! mistaken for something else, or missed.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::fixtures::netns::Netns;
use crate::fixtures::table::{Holder, only, pids, printed, rows, rows_until, with};

/// Whether this process has it. Until a program that another test starts runs, its
/// process has a copy of each descriptor, and is an owner too.
fn is_mine(row: &Value) -> bool {
    pids(row).contains(&std::process::id().into())
}

fn listen(netns: &Netns, at: &str, backlog: i32) -> Socket {
    listen_as(netns, at, backlog, None).unwrap()
}

fn listen_as(
    netns: &Netns,
    at: &str,
    backlog: i32,
    protocol: Option<Protocol>,
) -> std::io::Result<Socket> {
    let at: SocketAddr = at.parse().unwrap();
    netns.inside(|| {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, protocol)?;
        socket.bind(&at.into())?;
        socket.listen(backlog)?;
        Ok(socket)
    })
}

fn connect(netns: &Netns, to: &str) -> TcpStream {
    netns.inside(|| TcpStream::connect(to).unwrap())
}

/// A dial that is not waited for.
fn dial(netns: &Netns, to: &str) -> Socket {
    let to: SocketAddr = to.parse().unwrap();
    netns.inside(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&to.into());
        socket
    })
}

#[test]
fn what_waits_in_an_accept_queue_is_queued_and_has_an_owner_once_accepted() {
    let Some(netns) = Netns::new() else { return };
    let listener = listen(&netns, "127.0.0.1:7000", 5);
    let client = connect(&netns, "127.0.0.1:7000");
    let all = rows(&netns, &["-ta"]);
    assert_eq!(all.len(), 3, "{all:#?}");
    // -a has no owners: ss's -p asks for them.
    assert!(all.iter().all(|row| row["no_owner"].is_null() && pids(row).is_empty()));
    let all = rows(&netns, &["-tap"]);
    let queued = only(&all, "remote_port", client.local_addr().unwrap().port());
    assert_eq!((&queued["inode"], &queued["no_owner"]), (&Value::Null, &json!("queued")));
    assert!(printed(&netns, &["-tap"]).contains("queued: not accepted yet"));
    let accepted = listener.accept().unwrap();
    let all = rows(&netns, &["-tap"]);
    let row = only(&all, "remote_port", client.local_addr().unwrap().port());
    assert!(row["inode"].is_u64() && row["no_owner"].is_null());
    assert_eq!(row["cookie"], queued["cookie"], "its identity stays");
    assert!(is_mine(row), "{row}");
    drop(accepted);
}

#[test]
fn a_client_that_closes_while_it_is_queued_leaves_a_queued_socket() {
    let Some(netns) = Netns::new() else { return };
    let _listener = listen(&netns, "127.0.0.1:7000", 5);
    drop(connect(&netns, "127.0.0.1:7000"));
    let all = rows_until(&netns, &["-tap"], "the close has arrived", |all| {
        !with(all, "state", "CLOSE-WAIT").is_empty()
    });
    assert_eq!(only(&all, "state", "CLOSE-WAIT")["no_owner"], "queued");
    assert_eq!(only(&all, "state", "LISTEN")["recv_q"], 1, "it still counts");
    // Its other end is in FIN_WAIT2 until it is accepted; no process has it.
    assert_eq!(only(&all, "state", "FIN-WAIT-2")["no_owner"], "closed");
}

#[test]
fn time_wait_and_orphans_say_why_nobody_has_them() {
    let Some(netns) = Netns::new() else { return };
    let listener = listen(&netns, "127.0.0.1:7000", 5);
    let port = |socket: &TcpStream| socket.local_addr().unwrap().port();
    let first = connect(&netns, "127.0.0.1:7000");
    let (closes_last, _) = listener.accept().unwrap();
    let second = connect(&netns, "127.0.0.1:7000");
    let (_stays_open, _) = listener.accept().unwrap();
    let (waits, orphan) = (port(&first), port(&second));
    drop((first, second));
    drop(closes_last);
    let is_there = |all: &[Value], state: &str| !with(all, "state", state).is_empty();
    let all = rows_until(&netns, &["-tap"], "both are closed", |all| {
        is_there(all, "TIME-WAIT") && is_there(all, "FIN-WAIT-2")
    });
    let row = only(&all, "state", "TIME-WAIT");
    assert_eq!(
        (&row["local_port"], &row["no_owner"]),
        (&json!(waits), &json!("time-wait"))
    );
    let row = only(&all, "local_port", orphan);
    assert_eq!(
        (&row["state"], &row["no_owner"]),
        (&json!("FIN-WAIT-2"), &json!("closed"))
    );
    assert!(row["inode"].is_null());
    let text = printed(&netns, &["-tanp"]);
    let ends = |state: &str, why: &str| {
        text.lines().any(|line| line.starts_with(state) && line.ends_with(why))
    };
    assert!(ends("TIME-WAIT", " time-wait") && ends("FIN-WAIT-2", " closed"), "{text}");
}

#[test]
fn a_handshake_that_is_not_over_is_no_queued_socket() {
    let Some(netns) = Netns::new() else { return };
    let script = "
s = socket.socket()
s.setsockopt(socket.IPPROTO_TCP, 9, 30)  # TCP_DEFER_ACCEPT
s.bind(('127.0.0.1', 7000)); s.listen(5)
c = socket.create_connection(('127.0.0.1', 7000))
say(client=c.getsockname()[1])";
    let holder = Holder::start(&netns, script);
    let all = rows(&netns, &["-tap"]);
    let row = only(&all, "state", "SYN-RECV");
    assert_eq!(row["remote_port"], holder.said["client"]);
    assert_eq!((&row["no_owner"], &row["inode"]), (&json!("handshake"), &Value::Null));
    // ss's selection of connected ones has no SYN-RECV; ours has.
    assert!(with(&rows(&netns, &["-t"]), "state", "SYN-RECV").is_empty());
    assert_eq!(with(&rows(&netns, &[]), "state", "SYN-RECV").len(), 1);
}

#[test]
fn a_listener_shows_its_queue_its_backlog_and_what_it_dropped() {
    let Some(netns) = Netns::new() else { return };
    let listener = listen(&netns, "127.0.0.1:7000", 9);
    let note = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("LISTEN")).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        (words[1..3].join(" "), words[5..].join(" "))
    };
    let look = || note(&printed(&netns, &["-tln"]));
    let mut clients: Vec<_> = (0..7).map(|_| connect(&netns, "127.0.0.1:7000")).collect();
    assert_eq!(look(), ("7 9".into(), String::new()), "70 % of the 10 that it admits");
    clients.push(connect(&netns, "127.0.0.1:7000"));
    assert_eq!(look(), ("8 9".into(), "80% full".into()));
    clients.extend((0..2).map(|_| connect(&netns, "127.0.0.1:7000")));
    assert_eq!(look(), ("10 9".into(), "FULL".into()));
    let more: Vec<_> = (0..3).map(|_| dial(&netns, "127.0.0.1:7000")).collect();
    let all = rows_until(&netns, &["-tl"], "SYNs were dropped", |all| {
        all[0]["drops"].as_u64() >= Some(3)
    });
    assert_eq!((&all[0]["recv_q"], &all[0]["send_q"]), (&json!(10), &json!(9)));
    let (_, text) = look();
    assert!(text.starts_with("FULL, ") && text.ends_with(" drops"), "{text}");
    // Waiting dials are there too; with -l they are not.
    assert_eq!(with(&rows(&netns, &["-t"]), "state", "SYN-SENT").len(), 3);
    let csv =
        printed(&netns, &["-tl", "--format", "csv", "--columns", "recv-q,send-q,note"]);
    assert!(csv.starts_with("recv_q,send_q,note\n10,9,\"FULL, "), "{csv}");
    drop((listener, more));
}

#[test]
fn a_socket_that_is_bound_and_does_not_listen_is_seen_with_its_owner() {
    let Some(netns) = Netns::new() else { return };
    let bound = netns.inside(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:7001".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket
    });
    let all = rows(&netns, &["-tap"]);
    let row = only(&all, "local_port", 7001);
    assert_eq!((&row["state"], &row["remote_addr"]), (&json!("UNCONN"), &Value::Null));
    assert!(is_mine(row), "{row}");
    assert!(rows(&netns, &["-tl"]).is_empty(), "it does not listen");
    drop(bound);
}

#[test]
fn a_v4_mapped_connection_is_shown_as_it_is_at_both_ends() {
    let Some(netns) = Netns::new() else { return };
    let listener = netns.inside(|| TcpListener::bind("[::]:7000").unwrap());
    let client = connect(&netns, "127.0.0.1:7000");
    let _accepted = listener.accept().unwrap();
    let from = client.local_addr().unwrap().port();
    let all = rows(&netns, &["-tap"]);
    assert_eq!(only(&all, "local_port", from)["local_addr"], "127.0.0.1");
    let server = only(&all, "remote_port", from);
    assert_eq!(server["local_addr"], "::ffff:127.0.0.1");
    assert_eq!(server["remote_addr"], "::ffff:127.0.0.1");
    let text = printed(&netns, &["-tan"]);
    let line = format!("[::ffff:127.0.0.1]:7000 [::ffff:127.0.0.1]:{from}");
    assert!(text.contains(&line), "{text}");
    let ports = |args: &[&str]| {
        let mut ports: Vec<_> =
            rows(&netns, args).iter().map(|row| row["local_port"].clone()).collect();
        ports.sort_by_key(Value::as_u64);
        ports
    };
    assert_eq!(ports(&["-ta4"]), [json!(from)]);
    assert_eq!(ports(&["-ta6"]), [json!(7000), json!(7000)]);
}

#[test]
fn an_mptcp_connection_is_counted_once() {
    let Some(netns) = Netns::new() else { return };
    let mptcp = Some(Protocol::MPTCP);
    let Ok(listener) = listen_as(&netns, "127.0.0.1:7000", 5, mptcp) else {
        return crate::fixtures::rights::lacking("MPTCP");
    };
    let client = netns.inside(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, mptcp).unwrap();
        socket.connect(&"127.0.0.1:7000".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket
    });
    let count = |args: &[&str]| printed(&netns, &[args, &["--count"]].concat());
    // The listener and two ends, one of which waits in the queue.
    assert_eq!((count(&[]), count(&["-tM", "-a"])), ("3\n".into(), "3\n".into()));
    let all = rows(&netns, &[]);
    assert_eq!(with(&all, "proto", "mptcp").len(), 3, "{all:#?}");
    assert_eq!(with(&all, "no_owner", "queued").len(), 1, "{all:#?}");
    let accepted = listener.accept().unwrap();
    let all = rows(&netns, &[]);
    assert_eq!((all.len(), with(&all, "proto", "mptcp").len()), (3, 3), "{all:#?}");
    assert!(all.iter().all(is_mine), "{all:#?}");
    // The table of TCP by itself has the subflows, as in ss.
    assert_eq!(with(&rows(&netns, &["-ta"]), "proto", "tcp").len(), 3);
    drop((client, accepted));
}

#[test]
fn udp_sockets_with_and_without_a_peer_show_what_was_not_read_and_what_was_dropped() {
    let Some(netns) = Netns::new() else { return };
    let bind = |at: &str| netns.inside(|| UdpSocket::bind(at).unwrap());
    let (server, client) = (bind("127.0.0.1:7002"), bind("127.0.0.1:7003"));
    let v6 = bind("[::1]:7004");
    client.connect("127.0.0.1:7002").unwrap();
    client.send(b"not read").unwrap();
    let all = rows(&netns, &["-uap"]);
    let row = only(&all, "local_port", 7002);
    assert_eq!((&row["state"], &row["remote_addr"]), (&json!("UNCONN"), &Value::Null));
    assert!(row["recv_q"].as_u64() > Some(0), "{row}");
    let row = only(&all, "local_port", 7003);
    assert_eq!((&row["state"], &row["remote_port"]), (&json!("ESTAB"), &json!(7002)));
    assert_eq!(only(&all, "local_port", 7004)["local_addr"], "::1");
    assert!(all.iter().all(is_mine));
    // ss's selection: connected ones, or with -l the others.
    assert_eq!(rows(&netns, &["-u"]).len(), 1);
    assert_eq!(rows(&netns, &["-ul"]).len(), 2);

    let socket = socket2::SockRef::from(&server);
    socket.set_recv_buffer_size(0).unwrap();
    (0..50).for_each(|_| _ = client.send(&[0; 1000]).unwrap());
    let args = ["-ua", "--format", "csv", "--columns", "local,drops", "--sort", "-drops"];
    let csv = printed(&netns, &args);
    let first = csv.lines().nth(1).unwrap();
    let drops = first.strip_prefix("127.0.0.1:7002,").unwrap_or_else(|| panic!("{csv}"));
    assert!(drops.parse::<u32>().unwrap() > 10, "{csv}");
    drop(v6);
}

#[test]
fn what_is_bound_to_an_interface_names_it() {
    let Some(netns) = Netns::new() else { return };
    netns.ip(&["link", "add", "eth0", "type", "veth", "peer", "eth1"]);
    netns.ip(&["address", "add", "fe80::1/64", "dev", "eth0", "nodad"]);
    for end in ["eth0", "eth1"] {
        netns.ip(&["link", "set", end, "up"]);
    }
    let script = "
a = socket.socket(socket.AF_INET6)
a.bind(('fe80::1', 7000, 0, socket.if_nametoindex('eth0'))); a.listen(1)
b = socket.socket()
b.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo\\0')
b.bind(('127.0.0.1', 7001)); b.listen(1)
say()";
    let _holder = Holder::start(&netns, script);
    let all = rows(&netns, &["-tl"]);
    let row = only(&all, "local_port", 7000);
    assert_eq!(
        (&row["local_addr"], &row["interface"]),
        (&json!("fe80::1"), &json!("eth0"))
    );
    assert_eq!(only(&all, "local_port", 7001)["interface"], "lo");
    let text = printed(&netns, &["-tlnH"]);
    let mut addresses: Vec<_> = text
        .lines()
        .map(|line| line.split_whitespace().skip(3).collect::<Vec<_>>())
        .collect();
    addresses.sort();
    let expected =
        [vec!["127.0.0.1%lo:7001", "0.0.0.0:*"], vec!["[fe80::1]%eth0:7000", "[::]:*"]];
    assert_eq!(addresses, expected);
}

#[test]
fn packet_sockets_show_their_interface_protocol_and_what_was_not_read() {
    let Some(netns) = Netns::new() else { return };
    let script = "
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
raw.bind(('lo', 0x0800))
every = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.sendto(b'x' * 100, ('127.0.0.1', 9))
say(raw=inode(raw), every=inode(every))";
    let holder = Holder::start(&netns, script);
    let all = rows(&netns, &["-0p"]);
    let raw = only(&all, "inode", holder.said["raw"].clone());
    assert_eq!((&raw["proto"], &raw["state"]), (&json!("p_raw"), &json!("UNCONN")));
    assert_eq!((&raw["local_addr"], &raw["local_port"]), (&json!("lo"), &json!(0x0800)));
    assert_eq!((pids(raw), &raw["uid"]), (vec![holder.pid()], &json!(0)));
    assert!(raw["recv_q"].as_u64() > Some(0), "{raw}");
    let every = only(&all, "inode", holder.said["every"].clone());
    assert_eq!((&every["proto"], &every["local_addr"]), (&json!("p_dgr"), &json!("*")));
    assert!(every["interface"].is_null());
    let text = printed(&netns, &["-0"]);
    assert!(text.contains(" ip:lo ") && text.contains(" *:* "), "{text}");
}

#[test]
fn raw_and_ping_sockets_name_their_protocol_and_are_those_of_ss() {
    let Some(netns) = Netns::new() else { return };
    netns.sysctl("net/ipv4/ping_group_range", "0 100");
    let script = "
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
raw.bind(('127.0.0.1', 0))
raw6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
ping = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
ping.bind(('127.0.0.1', 77))
say(raw=inode(raw), raw6=inode(raw6), ping=inode(ping))";
    let holder = Holder::start(&netns, script);
    let all = rows(&netns, &["-wap"]);
    for (key, proto, address, port) in [
        ("raw", "raw", "127.0.0.1", 1),
        ("raw6", "raw", "::", 58),
        ("ping", "icmp", "127.0.0.1", 77),
    ] {
        let row = only(&all, "inode", holder.said[key].clone());
        assert_eq!((&row["proto"], &row["state"]), (&json!(proto), &json!("UNCONN")));
        assert_eq!(
            (&row["local_addr"], &row["local_port"]),
            (&json!(address), &json!(port))
        );
        assert_eq!(pids(row), [holder.pid()]);
    }
    let text = printed(&netns, &["-wan"]);
    assert!(
        text.contains(" 127.0.0.1:icmp ") && text.contains(" 127.0.0.1:77 "),
        "{text}"
    );
    // ss lists no ping sockets.
    let ss = netns.run("ss", &["-wanH"]);
    assert_eq!(with(&all, "proto", "raw").len(), ss.lines().count(), "{ss}");
}

#[test]
fn netlink_sockets_are_a_programs_or_the_kernels() {
    let Some(netns) = Netns::new() else { return };
    let script = "
n = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
n.bind((0, 0))
say(inode=inode(n), port=n.getsockname()[0])";
    let holder = Holder::start(&netns, script);
    let all = rows(&netns, &["--netlink", "-p"]);
    let program = only(&all, "inode", holder.said["inode"].clone());
    assert_eq!(
        (&program["local_addr"], pids(program)),
        (&json!("route"), vec![holder.pid()])
    );
    assert_eq!(program["local_port"], holder.said["port"]);
    let kernels = with(&all, "local_port", 0);
    assert!(kernels.len() >= 2, "{all:#?}");
    assert!(kernels.iter().all(|row| row["no_owner"] == "kernel"), "{kernels:#?}");
    // Without a named table, as in ss: connected sockets, of which these are none.
    assert!(with(&rows(&netns, &["-n"]), "proto", "nl").is_empty());
    assert!(!with(&rows(&netns, &["-a"]), "proto", "nl").is_empty());
}

#[test]
fn unix_sockets_show_their_peer_by_inode_and_path() {
    let Some(netns) = Netns::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "
os.chdir({:?})
facts = {{}}
keep = []
for kind, type in (('stream', socket.SOCK_STREAM), ('seq', socket.SOCK_SEQPACKET)):
    l = socket.socket(socket.AF_UNIX, type)
    l.bind(os.path.abspath(kind)); l.listen(4)
    c, waits = (socket.socket(socket.AF_UNIX, type) for _ in range(2))
    c.connect(os.path.abspath(kind)); a, _ = l.accept()
    waits.connect(os.path.abspath(kind))
    keep += [l, c, a, waits]
    facts[kind] = [inode(s) for s in (l, c, a, waits)]
d = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); d.bind(b'\\0a\\0b')
p = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); p.connect(b'\\0a\\0b')
p.send(b'12345')
facts['datagram'] = [inode(d), inode(p)]
say(**facts)",
        folder.path()
    );
    let holder = Holder::start(&netns, &script);
    let all = rows(&netns, &["-xap"]);
    let of = |inode: &Value| only(&all, "inode", inode.clone());
    for (kind, proto) in [("stream", "u_str"), ("seq", "u_seq")] {
        let path = folder.path().join(kind);
        let path = path.to_str().unwrap();
        let [listener, client, accepted, waits] =
            [0, 1, 2, 3].map(|at| of(&holder.said[kind][at]));
        assert_eq!(
            (&listener["proto"], &listener["state"]),
            (&json!(proto), &json!("LISTEN"))
        );
        assert_eq!((&listener["recv_q"], &listener["send_q"]), (&json!(1), &json!(4)));
        assert_eq!(
            (&accepted["local_addr"], &listener["local_addr"]),
            (&json!(path), &json!(path))
        );
        assert_eq!(
            (&client["remote_addr"], &client["remote_inode"]),
            (&json!(path), &accepted["inode"])
        );
        assert_eq!(accepted["remote_inode"], client["inode"]);
        assert_eq!(
            (&waits["state"], &waits["remote_inode"]),
            (&json!("ESTAB"), &Value::Null)
        );
        for row in [listener, client, accepted, waits] {
            assert_eq!(pids(row), [holder.pid()]);
        }
    }
    let [bound, sender] = [0, 1].map(|at| of(&holder.said["datagram"][at]));
    assert_eq!(
        (&bound["proto"], &bound["local_addr"]),
        (&json!("u_dgr"), &json!("@a\\x00b"))
    );
    assert_eq!(
        (&sender["state"], &sender["remote_addr"]),
        (&json!("ESTAB"), &json!("@a\\x00b"))
    );
    assert_eq!(sender["remote_inode"], bound["inode"]);
}
