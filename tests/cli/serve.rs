//! `sockscope serve` in good order: its models, what it speaks, where it listens, how
//! it starts and ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use crate::fixtures::netns::Netns;
use crate::fixtures::{Server, echoes, hears, hears_nothing, run, sockscope, until};

#[test]
fn each_concurrent_model_serves_several_clients_at_once() {
    for model in ["event", "thread", "fork"] {
        let server = Server::start(&["--model", model]);
        let clients = server.connect_many(8);
        for (n, client) in clients.iter().enumerate().rev() {
            assert!(echoes(client, &format!("{model} {n}")), "{model} {n}");
        }
        for (n, client) in clients.iter().enumerate() {
            assert!(echoes(client, &format!("again {n}")), "{model} {n}");
        }
    }
}

#[test]
fn threads_of_the_event_model_share_their_clients() {
    let server = Server::start(&["--threads", "3"]);
    let clients = server.connect_many(20);
    assert!(clients.iter().all(|client| echoes(client, "x")));
}

#[test]
fn the_iterative_model_serves_one_after_another() {
    let server = Server::start(&["--model", "iterative"]);
    let first = server.connect();
    assert!(echoes(&first, "first"));
    let second = server.connect();
    (&second).write_all(b"second").unwrap();
    assert!(hears_nothing(&second, Duration::from_millis(150)));
    assert!(echoes(&first, "still first"));
    drop(first);
    let mut back = [0; 6];
    (&second).read_exact(&mut back).unwrap();
    assert_eq!(&back, b"second");
}

#[test]
fn a_client_that_goes_leaves_no_descriptor() {
    for model in ["event", "thread"] {
        let server = Server::start(&["--model", model]);
        let before = server.open_fds().len();
        let clients = server.connect_many(10);
        assert!(clients.iter().all(|client| echoes(client, "x")));
        assert_eq!(server.open_fds().len(), before + 10, "{model}");
        for (n, client) in clients.into_iter().enumerate() {
            if n % 2 == 0 {
                reset(client);
            }
        }
        until("all are closed", || server.open_fds().len() == before);
    }
}

fn reset(client: TcpStream) {
    let client = socket2::Socket::from(client);
    client.set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn much_is_echoed_to_a_client_that_reads_late() {
    const MUCH: usize = 8 << 20;
    for model in ["event", "thread"] {
        let server = Server::start(&["--model", model]);
        let client = server.connect();
        let other = server.connect();
        let mut writer = client.try_clone().unwrap();
        let writing = std::thread::spawn(move || {
            let all: Vec<u8> = (0..MUCH).map(|n| (n % 251) as u8).collect();
            writer.write_all(&all).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        assert!(echoes(&other, "meanwhile"), "{model}");
        let back = hears(&client).unwrap();
        writing.join().unwrap();
        assert_eq!(back.len(), MUCH);
        assert!(back.iter().enumerate().all(|(n, &b)| b == (n % 251) as u8), "{model}");
    }
}

#[test]
fn http_is_answered_and_kept_alive() {
    for model in ["event", "thread", "fork", "iterative"] {
        let server = Server::start(&["--model", model, "--speak", "http"]);
        let client = server.connect();
        let mut lines = BufReader::new(&client).lines().map(Result::unwrap);
        for piece in ["GET / HTT", "P/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n\r\n"] {
            (&client).write_all(piece.as_bytes()).unwrap();
        }
        for _ in 0..2 {
            assert_eq!(lines.next().unwrap(), "HTTP/1.1 200 OK");
            assert_eq!(lines.by_ref().nth(3).unwrap(), "ok", "{model}");
        }
        (&client).write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        assert_eq!(lines.last().unwrap(), "ok", "{model}: then it closes");
    }
}

#[test]
fn a_banner_is_sent_at_accept_and_nothing_is_said_else() {
    for model in ["event", "thread", "fork"] {
        let banner = r"banner:220 hello\r\n";
        let server = Server::start(&["--model", model, "--speak", banner]);
        let client = server.connect();
        (&client).write_all(b"x").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(hears(&client).unwrap(), b"220 hello\r\n", "{model}");
    }
    let server = Server::start(&["--speak", "nothing"]);
    let client = server.connect();
    (&client).write_all(b"x").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(hears(&client).unwrap(), b"");
}

#[test]
fn a_unix_socket_is_served_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listen = format!("unix:{}", path.display());
    for model in ["event", "thread", "fork", "iterative"] {
        let mut server = Server::start(&["--model", model, "--listen", &listen]);
        assert_eq!(server.address, listen);
        assert!(echoes(UnixStream::connect(&path).unwrap(), "x"), "{model}");
        server.signal(Signal::TERM);
        assert_eq!(server.ended().code(), Some(0));
        assert!(!path.exists());
    }
}

#[test]
fn a_unix_socket_in_use_is_respected_and_a_stale_one_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listen = format!("unix:{}", path.display());
    let mut first = Server::start(&["--listen", &listen]);
    let second = run(&["serve", "--listen", &listen]);
    assert_eq!(second.status.code(), Some(3));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("something uses this socket already"), "{said}");
    first.signal(Signal::KILL);
    first.ended();
    assert!(path.exists(), "a killed server leaves its file");
    let _third = Server::start(&["--listen", &listen]);
    assert!(echoes(UnixStream::connect(&path).unwrap(), "x"));

    let file = dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let refused = run(&["serve", "--listen", &format!("unix:{}", file.display())]);
    assert_eq!(refused.status.code(), Some(3));
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

#[test]
fn an_abstract_socket_is_served() {
    let name = format!("sockscope-test-{}", std::process::id());
    let server = Server::start(&["--listen", &format!("unix:@{name}")]);
    assert_eq!(server.address, format!("unix:@{name}"));
    let at = SocketAddr::from_abstract_name(&name).unwrap();
    assert!(echoes(UnixStream::connect_addr(&at).unwrap(), "x"));
}

#[test]
fn several_addresses_are_listed_and_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let unix = format!("unix:{}", path.display());
    for model in ["event", "thread"] {
        let server = Server::start(&[
            "--model",
            model,
            "--listen",
            "127.0.0.1:0",
            "--listen",
            "[::1]:0",
            "--listen",
            &unix,
        ]);
        assert_eq!(server.addresses.len(), 3);
        assert_eq!(server.addresses[0], server.address);
        assert!(server.addresses[1].starts_with("[::1]:"));
        for address in &server.addresses[..2] {
            assert!(echoes(TcpStream::connect(address).unwrap(), "x"), "{address}");
        }
        assert!(echoes(UnixStream::connect(&path).unwrap(), "x"));
        // The file goes with SIGTERM, not with SIGKILL.
        server.signal(Signal::TERM);
        until("its file is gone", || !path.exists());
    }
}

#[test]
fn the_text_line_names_what_it_is() {
    let mut child = sockscope()
        .args(["serve", "--fd-limit", "1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let pid = child.id();
    let rest = format!(" (pid {pid}, event model, backlog 4,096, fds 1,000)\n");
    assert!(line.starts_with("listening on 127.0.0.1:"), "{line}");
    assert!(line.ends_with(&rest), "{line}");
}

#[test]
fn a_closed_stdout_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let mut child = sockscope()
        .args(["serve", "--listen", &format!("unix:{}", path.display())])
        .stdout(writer)
        .spawn()
        .unwrap();
    until("it serves", || {
        UnixStream::connect(&path).is_ok_and(|client| echoes(client, "x"))
    });
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn ctrl_c_ends_it_unless_its_parent_decides() {
    let mut child = sockscope().arg("serve").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));

    let mut server = Server::start(&[]);
    server.signal(Signal::INT);
    assert!(echoes(server.connect(), "x"));
    server.signal(Signal::TERM);
    assert_eq!(server.ended().code(), Some(0));
}

#[test]
fn with_parent_it_ends_when_its_parent_dies() {
    for model in ["event", "fork"] {
        let mut parent = std::process::Command::new("sh")
            .args(["-c", r#""$0" serve --model "$1" --with-parent --format json & wait"#])
            .args([env!("CARGO_BIN_EXE_sockscope"), model])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(parent.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let printed: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = printed["address"].as_str().unwrap();
        let client = TcpStream::connect(address).unwrap();
        assert!(echoes(&client, "x"));
        parent.kill().unwrap();
        parent.wait().unwrap();
        // End of file: none that had the pipe is left, be it server or child of it.
        stdout.read_line(&mut line).unwrap();
        assert!(TcpStream::connect(address).is_err(), "{model}");
    }
}

#[test]
fn with_parent_the_end_of_the_starting_thread_is_not_its_parents_death() {
    let server = std::thread::spawn(|| Server::start(&[])).join().unwrap();
    let client = server.connect();
    assert!(echoes(&client, "x"));
    assert!(hears_nothing(&client, Duration::from_millis(150)));
    assert!(echoes(server.connect(), "x"));
}

#[test]
fn an_idle_connection_costs_under_100_bytes() {
    const MANY: usize = 4000;
    let server = Server::start(&["--fd-tables", "auto", "--idle-timeout", "1h"]);
    let rss = || {
        let status = format!("/proc/{}/status", server.pid());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find(|l| l.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    };
    let first = server.connect();
    assert!(echoes(&first, "x"));
    let before = rss();
    let clients = server.connect_many(MANY);
    assert!(echoes(clients.last().unwrap(), "x"), "so the others are accepted");
    let each = (rss() - before) / MANY;
    assert!(each < 100, "{each} bytes each");
}

#[test]
fn an_address_in_use_exits_3_with_one_line() {
    let server = Server::start(&[]);
    for (args, said) in [
        (["--listen", server.address.as_str()], "cannot listen on 127.0.0.1:"),
        (["--fd-limit", "1000M"], "above the hard limit"),
        (["--listen", "unix:/nonexistent/socket"], "No such file"),
    ] {
        let done = run(&["serve", args[0], args[1]]);
        let stderr = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(3), "{stderr}");
        assert!(stderr.starts_with("sockscope: ") && stderr.contains(said), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn bad_arguments_exit_2_with_one_line() {
    for args in [
        "--beyond close",
        "--evict-oldest",
        "--evict-oldest --max-connections 2 --beyond close",
        "--evict-oldest --max-connections 0",
        "--evict-oldest --max-connections 2 --model fork",
        "--evict-oldest --max-connections 2 --threads 2",
        "--evict-oldest --max-connections 2 --fd-tables auto",
        "--max-connections 2 --model iterative",
        "--max-connections ten",
        "--max-connections 2 --beyond explode",
        &format!("--max-connections 2 --beyond reject:{}", "x".repeat(4097)),
        r"--max-connections 2 --beyond reject:\q",
        "--model prefork",
        "--model thread --threads 2",
        "--model fork --fd-tables 2",
        "--threads 2 --fd-tables 2",
        "--threads 0",
        "--fd-tables none",
        "--fd-limit 0",
        "--never-accept --accept-delay 1s",
        "--never-accept --max-connections 2",
        "--stop-accepting-after 2 --die-after 3",
        "--die-after 0",
        "--idle-timeout 5",
        "--idle-timeout 0s",
        "--backlog 5000000000",
        "--listen nowhere",
        "--listen unix:",
        "--speak klingon",
        "--no-such-flag",
        "operand",
    ] {
        let mut all = vec!["serve"];
        all.extend(args.split(' '));
        let done = run(&all);
        let stderr = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{args}: {stderr}");
        assert!(stderr.starts_with("sockscope: "), "{args}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{args}: {stderr}");
        assert!(done.stdout.is_empty());
    }
}

#[test]
fn it_finds_a_port_where_clients_have_the_whole_range() {
    let Some(netns) = Netns::new() else { return };
    let inside = || netns.command(env!("CARGO_BIN_EXE_sockscope"));
    let mut sysctl = netns.command("sysctl");
    let range = "net.ipv4.ip_local_port_range=50000 50001";
    assert!(sysctl.args(["-q", "-w", range]).status().unwrap().success());
    let servers: Vec<Server> = (0..4).map(|_| Server::start_by(inside(), &[])).collect();
    let ports: Vec<u16> = servers.iter().map(|s| s.socket_addr().port()).collect();
    assert!(ports.iter().any(|port| !(50_000..=50_001).contains(port)), "{ports:?}");
}
