//! `sockscope sockets --watch --format ndjson`: what happened to sockets, as events.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, kill_process};

use crate::fixtures::netns::Netns;
use crate::fixtures::rights::{self, ForNobody};
use crate::fixtures::watching::{Event, SOCKSCOPE, Scene, Watching};
use crate::fixtures::{loopback, run, sockscope, until};

const EVENTS: [&str; 2] = ["--format", "ndjson"];

fn events(scene: &Scene, letters: &str, watch: &str) -> Watching {
    scene.watch(&[&[letters, watch], &EVENTS[..]].concat())
}

#[test]
fn a_connections_life_is_told_in_order() {
    let scene = Scene::new();
    let (listener, at) = scene.listen();
    let watching = events(&scene, "-tap", "--watch=20ms");
    let present = watching.begun(at);
    assert_eq!(present.state(), "LISTEN");
    let (mut client, here) = scene.connect(at);
    let is_server = |event: &Event| event.remote() == Some(here);
    let queued = watching.event("it is queued", is_server);
    assert_eq!(queued.short(), "opened ESTAB");
    assert_eq!(queued.socket()["no_owner"], "queued");
    let (mut server, _) = listener.accept().unwrap();
    let accepted = watching.event("it is accepted", |event| {
        is_server(event) && !event.socket()["inode"].is_null()
    });
    assert_eq!(accepted.short(), "changed ESTAB");
    assert!(accepted.line["was"]["inode"].is_null(), "{}", accepted.line["was"]);
    assert_eq!(accepted.line["was"]["no_owner"], "queued");
    assert_eq!(accepted.socket()["owners"][0]["pid"], std::process::id());
    client.write_all(b"hello").unwrap();
    let sent = watching
        .event("5 bytes wait", |event| is_server(event) && event.socket()["recv_q"] == 5);
    assert_eq!(sent.line["was"], serde_json::json!({"recv_q": 0}));
    server.read_exact(&mut [0; 5]).unwrap();
    drop(client);
    watching.event("it is half closed", |event| {
        is_server(event) && event.state() == "CLOSE-WAIT"
    });
    drop(server);
    watching.event("it is closed", |event| is_server(event) && event.name == "closed");
    let is_client = |event: &Event| event.local() == Some(here);
    watching.event("the client waits", |event| {
        is_client(event) && event.state() == "TIME-WAIT"
    });
    // One more, so that passes have gone by since.
    let after = scene.short(&listener);
    watching.event("the next one", |event| event.local() == Some(after));
    let told = |of: &dyn Fn(&Event) -> bool| -> Vec<String> {
        let all = watching.events();
        let mut states: Vec<String> =
            all.iter().filter(|event| of(event)).map(Event::short).collect();
        states.dedup();
        states
    };
    assert_eq!(
        told(&is_server),
        ["opened ESTAB", "changed ESTAB", "changed CLOSE-WAIT", "closed CLOSE-WAIT"]
    );
    let client = told(&is_client);
    assert_eq!(client.first().unwrap(), "opened ESTAB");
    assert_eq!(client.last().unwrap(), "changed TIME-WAIT", "{client:?}");
    let cookies: HashSet<u64> =
        watching.events().iter().filter(|e| is_client(e)).map(Event::cookie).collect();
    assert_eq!(cookies.len(), 1, "TIME_WAIT is the same socket");
}

#[test]
fn connections_between_two_passes_are_seen_at_their_end() {
    let scene = Scene::new();
    let (listener, at) = scene.listen();
    let watching = events(&scene, "-t", "--watch=600ms");
    // Nothing is connected yet: one that stays tells that the watch has begun.
    let (_first, here) = scene.connect(at);
    let (_accepted, _) = listener.accept().unwrap();
    watching.event("it has begun", |event| event.local() == Some(here));
    let clients: HashSet<SocketAddr> = (0..20).map(|_| scene.short(&listener)).collect();
    let ends = |of: &dyn Fn(&Event) -> Option<SocketAddr>| -> HashSet<SocketAddr> {
        let all = watching.events();
        let closed = all.iter().filter(|event| event.name == "closed");
        closed.filter_map(of).filter(|end| clients.contains(end)).collect()
    };
    until("every end of both sides is told", || {
        ends(&Event::local).len() == 20 && ends(&Event::remote).len() == 20
    });
    let all = watching.events();
    for event in all.iter().filter(|event| event.name == "closed") {
        assert_eq!(event.socket()["no_owner"].as_str().unwrap_or("closed"), "closed");
        assert!([event.local(), event.remote()].contains(&Some(at)), "{event:?}");
    }
    // A pass may have come between, but not many.
    let opened = all.iter().filter(|event| event.name == "opened").count();
    assert!(opened <= 2 + 2, "{opened}");
    let cookies: Vec<u64> =
        all.iter().filter(|e| e.name == "closed").map(Event::cookie).collect();
    let distinct: HashSet<&u64> = cookies.iter().collect();
    assert_eq!(distinct.len(), cookies.len(), "each end is told once");
}

#[test]
fn time_wait_of_a_short_connection_is_told_once() {
    let scene = Scene::new();
    let (listener, at) = scene.listen();
    let watching = events(&scene, "-ta", "--watch=300ms");
    watching.begun(at);
    let clients: Vec<SocketAddr> = (0..5).map(|_| scene.short(&listener)).collect();
    let of = |client: &SocketAddr| -> Vec<String> {
        let all = watching.events();
        all.iter().filter(|e| e.local() == Some(*client)).map(Event::short).collect()
    };
    until("all are in TIME_WAIT", || {
        let last = |client| of(client).last().is_some_and(|e| e.ends_with("TIME-WAIT"));
        clients.iter().all(last)
    });
    // Two more passes.
    for _ in 0..2 {
        let later = scene.short(&listener);
        watching.event("a later one", |event| event.local() == Some(later));
    }
    for client in &clients {
        let told = of(client);
        let opened = told.iter().filter(|event| event.starts_with("opened")).count();
        let closed = told.iter().filter(|event| event.starts_with("closed")).count();
        assert_eq!((opened, closed), (1, 0), "{told:?}");
    }
}

#[test]
fn a_connection_that_was_reset_is_closed_once_though_its_descriptor_stays() {
    let scene = Scene::new();
    let (listener, at) = scene.listen();
    let watching = events(&scene, "-t", "--watch=30ms");
    let (client, here) = scene.connect(at);
    let (server, _) = listener.accept().unwrap();
    let is_client = |event: &Event| event.local() == Some(here);
    watching.event("it opens", is_client);
    socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    watching.event("it closes", |event| is_client(event) && event.name == "closed");
    // Only now does the kernel free it, and tell so.
    drop(client);
    let later = scene.short(&listener);
    watching.event("a later one", |event| event.local() == Some(later));
    let later = scene.short(&listener);
    watching.event("one more", |event| event.local() == Some(later));
    let all = watching.events();
    let closed = all.iter().filter(|event| is_client(event) && event.name == "closed");
    assert_eq!(closed.count(), 1);
}

#[test]
fn an_ordinary_user_hears_of_ends_too() {
    let Some(copy) = ForNobody::copy() else { return };
    let words = copy.words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let scene = Scene::new();
    let (listener, at) = scene.listen();
    let args = [&["-ta", "--watch=500ms", "-v"], &EVENTS[..]].concat();
    let mut watching = scene.watch_by(&words, &args);
    watching.begun(at);
    let client = scene.short(&listener);
    watching.event("the end of the server's side", |event| {
        event.remote() == Some(client) && event.name == "closed"
    });
    watching.signal(Signal::INT);
    assert_eq!(watching.ended().code(), Some(130));
    assert!(!watching.stderr().contains("between two looks"));
}

/// strace(1) makes bind(2) fail as a security module may: nothing else of this needs it.
#[test]
fn where_ends_are_not_told_it_says_so_and_goes_on() {
    let scene = Scene::new();
    let (listener, at) = scene.listen();
    if Command::new("strace").arg("-V").output().is_err() {
        return rights::lacking("strace");
    }
    let strace = "strace -f -qq -o /dev/null -e trace=bind -e inject=bind:error=EPERM";
    let words: Vec<&str> = strace.split(' ').chain([SOCKSCOPE]).collect();
    let args = [&["-ta", "--watch=50ms", "-v"], &EVENTS[..]].concat();
    let mut watching = scene.watch_by(&words, &args);
    watching.begun(at);
    let (client, here) = scene.connect(at);
    let (server, _) = listener.accept().unwrap();
    watching.event("it opens", |e| e.remote() == Some(here) && e.name == "opened");
    drop(client);
    drop(server);
    watching.event("it closes", |e| e.remote() == Some(here) && e.name == "closed");
    // strace itself takes no interrupt.
    let [traced] = watching.children()[..] else { panic!("what is traced is there") };
    kill_process(traced, Signal::INT).unwrap();
    assert_eq!(watching.ended().code(), Some(130));
    let said = watching.stderr();
    assert!(said.contains("not permitted"), "{said}");
    assert!(
        said.contains("what opens and closes between two looks is not seen"),
        "{said}"
    );
}

#[test]
fn a_connection_that_stays_is_not_told_of_however_many_others_close() {
    let scene = Scene::new();
    let (listener, at) = scene.listen();
    let staying: Vec<TcpStream> = (0..100)
        .map(|_| {
            let (client, _) = scene.connect(at);
            drop(listener.accept().unwrap());
            client
        })
        .collect();
    let ports: HashSet<SocketAddr> =
        staying.iter().map(|client| client.local_addr().unwrap()).collect();
    let watching = events(&scene, "-t", "--watch=20ms");
    until("all that stay are present", || {
        watching
            .events()
            .iter()
            .filter_map(Event::local)
            .filter(|a| ports.contains(a))
            .count()
            >= 100
    });
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !enough.load(Relaxed) {
                scene.short(&listener);
            }
        });
        until("many have closed", || {
            watching.events().iter().filter(|event| event.name == "closed").count() > 2000
        });
        enough.store(true, Relaxed);
    });
    let mut told: HashMap<SocketAddr, Vec<String>> = HashMap::new();
    for event in watching.events() {
        if let Some(here) = event.local().filter(|here| ports.contains(here)) {
            told.entry(here).or_default().push(event.short());
        }
    }
    for (here, told) in told {
        assert!(told[0].starts_with("present"), "{here} {told:?}");
        assert!(told[1..].iter().all(|e| e.starts_with("changed")), "{here} {told:?}");
    }
}

#[test]
fn it_ends_at_once_when_nobody_reads_any_more() {
    let scene = Scene::new();
    let (_listener, at) = scene.listen();
    let args = [&["-ta", "--watch=1h"], &EVENTS[..]].concat();
    let mut program = scene.command(&[SOCKSCOPE], &args);
    let (mut watching, stdout) = Watching::run_unread(&mut program);
    let mut reader = BufReader::new(stdout);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(Event::read(&line).local(), Some(at));
    // No event comes that could meet the closed pipe.
    drop(reader);
    assert_eq!(watching.ended().code(), Some(0));
}

#[test]
fn a_signal_ends_it_with_130_however_long_the_interval() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let scene = Scene::new();
        let (_listener, at) = scene.listen();
        let mut watching = events(&scene, "-ta", "--watch=1h");
        watching.begun(at);
        watching.signal(signal);
        assert_eq!(watching.ended().code(), Some(130));
        assert_eq!(watching.stderr(), "");
    }
}

#[test]
fn namespaces_come_and_go_with_their_sockets() {
    let Some(netns) = Netns::new() else { return };
    let address = loopback();
    let listen = || TcpListener::bind((address, 0)).unwrap();
    let here = listen();
    let at = here.local_addr().unwrap();
    let args = [&["-ta", "--all-netns", "--watch=50ms"], &EVENTS[..]].concat();
    let mut program = sockscope();
    program.arg("ss").args(args).args(["src", &address.to_string()]);
    let watching = Watching::run(program);
    let present = watching.begun(at);
    assert_eq!(present.socket()["netns"], "here");
    let listener = netns.inside(listen);
    let at = listener.local_addr().unwrap();
    let is_there = |e: &Event| e.local() == Some(at) && e.socket()["netns"] == netns.name;
    let opened = watching.event("one opens in the other", is_there);
    assert_eq!(opened.name, "opened");
    drop(listener);
    watching.event("it closes", |event| is_there(event) && event.name == "closed");
    // A namespace that is made later, and goes with a socket still in it.
    let Some(later) = Netns::new() else { return };
    let listener = later.inside(listen);
    let at = listener.local_addr().unwrap();
    let is_later = |e: &Event| e.local() == Some(at) && e.socket()["netns"] == later.name;
    let present = watching.event("it is found with its socket", is_later);
    let name = later.name.clone();
    assert!(["present", "opened"].contains(&&*present.name), "{present:?}");
    drop(later);
    let is_later = |e: &Event| e.local() == Some(at) && e.socket()["netns"] == *name;
    watching.event("it is gone", |event| is_later(event) && event.name == "closed");
    drop(listener);
}

#[test]
fn a_table_is_printed_again_and_again_where_there_is_no_terminal() {
    let scene = Scene::new();
    let (_listener, at) = scene.listen();
    let mut watching = scene.watch(&["-ta", "--watch=50ms"]);
    let port = format!(":{} ", at.port());
    until("two tables", || {
        watching.lines().iter().filter(|line| line.contains(&port)).count() >= 2
    });
    let (_late, here) = scene.connect(at);
    let here = here.to_string();
    let has = |mark: &str| {
        let line = |line: &String| line.starts_with(mark) && line.contains(&here);
        watching.lines().iter().any(line)
    };
    until("it is marked as new", || has("+ ESTAB"));
    until("then it is not", || has("  ESTAB"));
    watching.signal(Signal::INT);
    assert_eq!(watching.ended().code(), Some(130));
    let lines = watching.lines();
    assert!(!lines.concat().contains('\x1b'), "no control sequences: {lines:?}");
    let (title, header) = (&lines[0], &lines[1]);
    assert!(title.ends_with('s') && title.contains("1 socket  0 opened"), "{title}");
    assert!(header.starts_with("  State"), "{header}");
    let empty = lines.iter().position(String::is_empty).unwrap();
    assert!(lines[empty + 1].contains("socket"), "{lines:?}");
}

#[test]
fn a_count_is_a_line_each_time() {
    let scene = Scene::new();
    let (_listener, _) = scene.listen();
    let watching = scene.watch(&["-ta", "--watch=20ms", "--count"]);
    until("three lines", || watching.lines().len() >= 3);
    let lines = watching.lines();
    assert!(lines.iter().all(|line| line.contains("  1 socket  ")), "{lines:?}");
}

#[test]
fn what_cannot_be_watched_is_refused_with_what_can() {
    for (args, why) in [
        (&["-j", "--watch"][..], "a table, or events with --format ndjson"),
        (&["--format", "csv", "--watch"], "a table, or events with --format ndjson"),
        (&["--format", "ndjson", "--watch", "--sort", "state"], "are for a table"),
        (&["--format", "ndjson", "--watch", "--by", "pid"], "are for a table"),
        (&["--watch", "--unbound"], "--unbound is for one list"),
        (&["--watch=2"], "a duration needs a unit"),
        (&["--watch=1ms"], "must be 10ms or more"),
    ] {
        let done = run(&[&["sockets"], args].concat());
        assert_eq!(done.status.code(), Some(2), "{args:?}");
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(said.contains(why) && said.lines().count() == 1, "{said}");
        assert!(done.stdout.is_empty());
    }
}
