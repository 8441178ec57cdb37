//! `sockscope serve` with its faults: each is exactly the one that its name promises.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::fixtures::{Server, echoes, hears, hears_nothing, until};

const A_WHILE: Duration = Duration::from_millis(150);

/// A server at its maximum of two, and the two.
fn at_maximum(model: &str, beyond: &str) -> (Server, Vec<TcpStream>) {
    let server =
        Server::start(&["--model", model, "--max-connections", "2", "--beyond", beyond]);
    let held = server.connect_many(2);
    assert!(held.iter().all(|client| echoes(client, "held")), "{model}");
    (server, held)
}

/// That a place is free again once one of them goes.
fn takes_one_more_after_one_ends(server: &Server, mut held: Vec<TcpStream>) {
    assert!(held.iter().all(|client| echoes(client, "held still")));
    held.pop();
    until("a new one is served", || echoes(server.connect(), "new"));
    assert!(held.iter().all(|client| echoes(client, "held still")));
}

#[test]
fn beyond_close_gives_end_of_file() {
    for model in ["event", "thread", "fork"] {
        let (server, held) = at_maximum(model, "close");
        for _ in 0..5 {
            assert_eq!(hears(&server.connect()).unwrap(), b"", "{model}");
        }
        takes_one_more_after_one_ends(&server, held);
    }
}

#[test]
fn beyond_reset_gives_a_reset() {
    for model in ["event", "thread", "fork"] {
        let (server, held) = at_maximum(model, "reset");
        for _ in 0..5 {
            let heard = server.try_connect().and_then(|client| hears(&client));
            assert_eq!(heard.unwrap_err().kind(), ErrorKind::ConnectionReset, "{model}");
        }
        takes_one_more_after_one_ends(&server, held);
    }
}

#[test]
fn beyond_reject_is_heard_even_by_a_client_that_spoke_first() {
    for model in ["event", "thread", "fork"] {
        let (server, held) = at_maximum(model, r"reject:-ERR max clients\r\n");
        for _ in 0..5 {
            let mut client = server.connect();
            client.write_all(b"PING\r\n").unwrap();
            let heard = hears(&client).unwrap();
            assert_eq!(heard, b"-ERR max clients\r\n", "{model}");
        }
        takes_one_more_after_one_ends(&server, held);
    }
}

#[test]
fn beyond_ignore_leaves_clients_in_the_queue_until_one_ends() {
    for model in ["event", "thread", "fork"] {
        let (server, mut held) = at_maximum(model, "ignore");
        let mut waiting = server.connect();
        waiting.write_all(b"hello").unwrap();
        assert!(hears_nothing(&waiting, A_WHILE), "{model}");
        assert!(held.iter().all(|client| echoes(client, "held still")));
        held.pop();
        let mut back = [0; 5];
        waiting.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"hello", "{model}");
    }
}

#[test]
fn evict_oldest_closes_the_oldest_for_the_newest() {
    for model in ["event", "thread"] {
        let server = Server::start(&[
            "--model",
            model,
            "--max-connections",
            "3",
            "--evict-oldest",
        ]);
        let clients = server.connect_many(3);
        assert!(clients.iter().all(|client| echoes(client, "held")));
        // Speaking does not make it younger.
        assert!(echoes(&clients[0], "oldest"));
        let fourth = server.connect();
        assert!(echoes(&fourth, "fourth"), "{model}");
        assert_eq!(hears(&clients[0]).unwrap(), b"", "{model}");
        let fifth = server.connect();
        assert!(echoes(&fifth, "fifth"), "{model}");
        assert_eq!(hears(&clients[1]).unwrap(), b"", "{model}");
        for client in [&clients[2], &fourth, &fifth] {
            assert!(echoes(client, "held"), "{model}");
        }
    }
}

#[test]
fn out_of_descriptors_it_keeps_its_clients_and_rests() {
    for args in [&["--model", "event"][..], &["--model", "thread"], &["--threads", "2"]] {
        let args = [args, &["--fd-limit", "64"]].concat();
        let idle = Server::start(&args);
        let room = 64 - fds_below_64(&idle);
        let server = Server::start(&args);
        let mut held = server.connect_many(80);
        for (mut client, n) in held.iter().zip(0..) {
            client.write_all(&[n]).unwrap();
        }
        let waiting = held.split_off(room);
        assert_eq!(
            all_heard(&held),
            (0..u8::try_from(room).unwrap()).collect::<Vec<_>>()
        );
        assert_eq!(fds_below_64(&server), 64);

        let before = server.cpu_ticks();
        assert!(hears_nothing(&waiting[0], Duration::from_secs(1)), "{args:?}");
        let used = server.cpu_ticks() - before;
        assert!(used < 20, "{args:?}: {used} ticks in a second of nothing to do");
        assert!(held.iter().all(|client| echoes(client, "held still")), "{args:?}");

        held.pop();
        assert_eq!(usize::from(all_heard(&waiting[..1])[0]), room, "{args:?}");
        drop(held);
        // None in the queue was lost.
        let rest: Vec<u8> = (0..80).skip(room + 1).collect();
        assert_eq!(all_heard(&waiting[1..]), rest, "{args:?}");
    }
}

#[test]
fn a_limit_raised_from_outside_is_noticed() {
    for more in [&["--model", "event"][..], &["--model", "thread"], &["--fd-tables", "2"]]
    {
        let server = Server::start(&[&["--fd-limit", "64"], more].concat());
        let clients = server.connect_many(140);
        let mut last = &clients[139];
        last.write_all(b"x").unwrap();
        assert!(hears_nothing(last, A_WHILE), "{more:?}");
        let pid = Pid::from_raw(server.pid().cast_signed());
        let hard = getrlimit(Resource::Nofile).maximum;
        let raised = Rlimit { current: Some(200), maximum: hard };
        prlimit(pid, Resource::Nofile, raised).unwrap();
        last.read_exact(&mut [0]).unwrap();
        assert!(clients.iter().all(|client| echoes(client, "served")), "{more:?}");
    }
}

/// One byte from each.
fn all_heard(clients: &[TcpStream]) -> Vec<u8> {
    let mut heard = vec![0; clients.len()];
    for (mut client, byte) in clients.iter().zip(&mut heard) {
        client.read_exact(std::slice::from_mut(byte)).unwrap();
    }
    heard
}

/// The open descriptors that count under a limit of 64. (Who started the tests may have
/// left some of higher numbers open.)
fn fds_below_64(server: &Server) -> usize {
    server.open_fds().iter().filter(|&&fd| fd < 64).count()
}

#[test]
fn several_fd_tables_hold_more_than_one_limit() {
    let server = Server::start(&["--fd-limit", "100", "--fd-tables", "4"]);
    let mut clients = server.connect_many(350);
    assert!(clients.iter().all(|client| echoes(client, "held")));
    assert!(server.open_fds().len() < 20, "none of them in the main table");

    // All four are full some way beyond: a client waits until there is room somewhere.
    clients.extend(server.connect_many(60));
    let waiting = server.connect();
    (&waiting).write_all(b"x").unwrap();
    assert!(hears_nothing(&waiting, A_WHILE));
    clients.drain(..60);
    (&waiting).read_exact(&mut [0]).unwrap();
    assert!(clients.iter().all(|client| echoes(client, "held still")));
}

#[test]
fn auto_makes_tables_as_they_are_needed() {
    let server = Server::start(&["--fd-limit", "50", "--fd-tables", "auto"]);
    let threads =
        || std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap().count();
    assert_eq!(threads(), 2);
    let clients = server.connect_many(500);
    assert!(clients.iter().all(|client| echoes(client, "held")));
    let with_500 = threads();
    assert!((12..=14).contains(&with_500), "{with_500}");
    drop(clients);
    // What is free again is used again.
    let clients = server.connect_many(400);
    assert!(clients.iter().all(|client| echoes(client, "held")));
    assert!(threads() <= with_500 + 1);
}

#[test]
fn never_accept_admits_backlog_plus_1() {
    let server = Server::start(&["--never-accept", "--backlog", "5"]);
    let admitted = server.connect_many(6);
    let seventh = TcpStream::connect_timeout(&server.socket_addr(), A_WHILE * 2);
    assert_eq!(seventh.unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(admitted.iter().all(|client| hears_nothing(client, A_WHILE / 10)));
}

#[test]
fn stop_accepting_after_serves_the_first_for_ever() {
    for model in ["event", "thread", "fork"] {
        let server = Server::start(&["--model", model, "--stop-accepting-after", "2"]);
        let mut held = server.connect_many(2);
        assert!(held.iter().all(|client| echoes(client, "held")));
        let mut third = server.connect();
        third.write_all(b"x").unwrap();
        held.pop();
        assert!(hears_nothing(&third, A_WHILE), "{model}: not even when one ends");
        assert!(echoes(&held[0], "held still"), "{model}");
    }
}

#[test]
fn accept_delay_takes_its_time() {
    for model in ["event", "thread"] {
        let server = Server::start(&["--model", model, "--accept-delay", "100ms"]);
        let start = Instant::now();
        let clients = server.connect_many(3);
        assert!(start.elapsed() < Duration::from_secs(5), "the kernel does not wait");
        assert!(echoes(&clients[2], "third"));
        assert!(start.elapsed() >= Duration::from_millis(300), "{model}");
    }
}

#[test]
fn idle_timeout_closes_the_silent_alone() {
    for model in ["event", "thread", "fork"] {
        let server = Server::start(&["--model", model, "--idle-timeout", "500ms"]);
        let silent = server.connect();
        let active = server.connect();
        assert!(echoes(&silent, "x"));
        let since = Instant::now();
        silent.set_nonblocking(true).unwrap();
        until("the silent one is closed", || {
            assert!(echoes(&active, "I am here"), "{model}");
            matches!((&silent).read(&mut [0]), Ok(0))
        });
        assert!(since.elapsed() >= Duration::from_millis(450), "{model}");
        assert!(echoes(&active, "I am still here"), "{model}");
    }
}

#[test]
fn a_silent_client_does_not_block_an_iterative_server_for_ever() {
    let args = ["--model", "iterative", "--idle-timeout", "200ms"];
    let server = Server::start(&args);
    let silent = server.connect();
    assert!(echoes(server.connect(), "next"));
    assert_eq!(hears(&silent).unwrap(), b"");
}

#[test]
fn die_after_takes_all_connections_along() {
    for model in ["event", "thread", "fork"] {
        let mut server = Server::start(&["--model", model, "--die-after", "3"]);
        let held = server.connect_many(2);
        assert!(held.iter().all(|client| echoes(client, "held")));
        let _third = server.connect();
        assert_eq!(server.ended().code(), Some(1), "{model}");
        for client in &held {
            assert!(hears(client).is_ok_and(|heard| heard.is_empty()), "{model}");
        }
        assert!(TcpStream::connect(server.socket_addr()).is_err());
    }
}
