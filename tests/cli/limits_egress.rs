//! `sockscope limits --to`: source ports in use and left.

use std::io::Read;
use std::net::TcpStream;

use crate::fixtures::limits::Limits;
use crate::fixtures::netns::Netns;
use crate::fixtures::probing::stdout;
use crate::fixtures::{DEADLINE, Server};

#[test]
fn ports_towards_one_destination_are_counted_with_those_in_time_wait() {
    let Some(netns) = Netns::new() else { return };
    netns.sysctl("net/ipv4/ip_local_port_range", "40000 40099");
    netns.sysctl("net/ipv4/ip_local_reserved_ports", "40000-40009");
    let server = Server::start_in(&netns, &["--listen", "127.0.0.1:2000"]);
    let other = Server::start_in(&netns, &["--listen", "127.0.0.1:40050"]);
    let to = server.socket_addr();
    let held: Vec<TcpStream> =
        netns.inside(|| (0..7).map(|_| TcpStream::connect(to).unwrap()).collect());
    // The client closes first, so that its end stays in TIME_WAIT once the server closes.
    for _ in 0..3 {
        let mut client = netns.inside(|| TcpStream::connect(to).unwrap());
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        client.read_to_end(&mut Vec::new()).unwrap();
    }
    let limits =
        |args: &[&str]| Limits::by(netns.command(env!("CARGO_BIN_EXE_sockscope")), args);
    let found = limits(&["--to", &server.address]);
    let egress = &found.document["egress"][0];
    assert_eq!(egress["to"], server.address);
    assert_eq!(egress["port_range_size"], 90);
    let source = &egress["sources"][0];
    assert_eq!(
        (&source["from"], &source["is_default"]),
        (&"127.0.0.1".into(), &true.into())
    );
    assert_eq!((&source["in_use"], &source["time_wait"]), (&10.into(), &3.into()));
    // The other listener's port is in the range, so that connect() passes it over.
    assert_eq!((&source["bound_by_others"], &source["left"]), (&1.into(), &79.into()));
    let users = source["by"].as_array().unwrap();
    assert_eq!(users.len(), 2, "{source}");
    assert_eq!(
        (&users[0]["pid"], &users[0]["ports"]),
        (&std::process::id().into(), &7.into())
    );
    assert_eq!((&users[1]["name"], &users[1]["ports"]), (&"TIME-WAIT".into(), &3.into()));
    assert_eq!(found.number("ip_local_port_range", "room"), 79);
    assert_eq!(found.document["subject"]["role"], "client");

    // So many can be opened, and the next says EADDRNOTAVAIL.
    let mut more = Vec::new();
    let refused = netns.inside(|| {
        loop {
            match TcpStream::connect(to) {
                Ok(client) => more.push(client),
                Err(error) => break error,
            }
            assert!(more.len() < 100, "more than the range has");
        }
    });
    assert_eq!(refused.raw_os_error(), Some(libc::EADDRNOTAVAIL), "{refused}");
    let left = source["left"].as_u64().unwrap();
    // TIME_WAIT on loopback may be used again (tcp_tw_reuse 2) after a second.
    assert!((left..=left + 3).contains(&(more.len() as u64)), "{} of {left}", more.len());
    let full = limits(&["--to", &server.address, "--need", "1"]);
    assert_eq!(full.document["egress"][0]["sources"][0]["left"], 0);
    assert_eq!(full.exit, 1);
    drop((held, other));
}

#[test]
fn each_source_address_has_its_own_ports() {
    let Some(netns) = Netns::new() else { return };
    netns.sysctl("net/ipv4/ip_local_port_range", "40000 40009");
    let server = Server::start_in(&netns, &["--listen", "127.0.0.1:2000"]);
    let to = server.socket_addr();
    let from = |source: &str| {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
                .unwrap();
        let source: std::net::SocketAddr = source.parse().unwrap();
        socket.bind(&source.into()).unwrap();
        socket.connect(&to.into()).unwrap();
        socket
    };
    let held = netns.inside(|| [from("127.0.0.2:40001"), from("127.0.0.2:50000")]);
    let by = netns.command(env!("CARGO_BIN_EXE_sockscope"));
    let found = Limits::by(by, &["--to", &server.address]);
    let sources = found.document["egress"][0]["sources"].as_array().unwrap().clone();
    let of = |address: &str| {
        sources.iter().find(|source| source["from"] == address).unwrap().clone()
    };
    assert_eq!(
        (&of("127.0.0.2")["in_use"], &of("127.0.0.2")["left"]),
        (&2.into(), &9.into())
    );
    assert_eq!(
        (&of("127.0.0.1")["in_use"], &of("127.0.0.1")["left"]),
        (&0.into(), &10.into())
    );
    let mut text = netns.command(env!("CARGO_BIN_EXE_sockscope"));
    let text =
        stdout(&text.args(["limits", "--to", &server.address]).output().unwrap(), 0);
    assert!(
        text.contains("from 127.0.0.2: 2 in use, 0 of them in TIME-WAIT; 9 of 10 left")
    );
    drop(held);
}
