//! `sockscope sockets --watch` on a terminal.

use std::net::TcpStream;
use std::time::Duration;

use crate::fixtures::terminal::Terminal;
use crate::fixtures::watching::{SOCKSCOPE, Scene};

fn watch(rows: usize, columns: usize, args: &[&str], scene: &Scene) -> Terminal {
    Terminal::run(rows, columns, &scene.words(&[SOCKSCOPE], args))
}

/// Closes with a reset, which leaves no TIME_WAIT.
fn reset(client: TcpStream) {
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
}

#[test]
fn the_table_is_drawn_in_place_with_what_is_new_and_gone_marked() {
    let scene = Scene::new();
    let (_listener, at) = scene.listen();
    let mut terminal = watch(24, 100, &["-t", "-a", "--watch=400ms"], &scene);
    let first = terminal.shows("the listener", |screen| {
        screen.line(&at.to_string()).is_some() && screen.wraps
    });
    assert!(first.lines[0].contains("1 socket  0 opened, 0 closed"), "{first:?}");
    assert!(first.lines[2].starts_with("  LISTEN"), "not new: {first:?}");
    let (client, here) = scene.connect(at);
    let new = format!("{here} ");
    let marked = |mark: &'static str, what: &str| {
        terminal.shows(what, |screen| {
            let line = screen.line(&new);
            line.is_some_and(|line| line.starts_with(mark)) && screen.wraps
        })
    };
    marked("+ ESTAB", "it is marked as new");
    let written = terminal.written();
    assert!(written.contains("\x1b[32m+ ESTAB"), "in green");
    marked("  ESTAB", "then it is not");
    reset(client);
    marked("- ESTAB", "it is marked as gone");
    assert!(terminal.written().contains("\x1b[31m- ESTAB"), "in red");
    let last = terminal.shows("then it is not there", |screen| {
        screen.line(&new).is_none() && screen.wraps && screen.count("socket") == 1
    });
    assert!(last.count("  LISTEN") == 1 && last.count("State") == 1, "{last:?}");
    terminal.types("\x03");
    assert_eq!(terminal.ended().code(), Some(130));
    let over = terminal.screen();
    assert!(over.line(&at.to_string()).is_some(), "the last table stays: {over:?}");
    assert_eq!(over.cursor, (over.lines.len() - 1, 0), "{over:?}");
    assert_eq!(over.lines.last().unwrap(), "", "no ^C is left: {over:?}");
    // The emulator knows nothing that hides the cursor or changes the screen.
    assert!(over.wraps);
}

#[test]
fn a_table_that_does_not_fit_shows_what_changed_first_and_how_much_is_left_out() {
    let scene = Scene::new();
    let (_listener, at) = scene.listen();
    let clients: Vec<TcpStream> = (0..40).map(|_| scene.connect(at).0).collect();
    let mut terminal = watch(10, 48, &["-ta", "--watch=300ms"], &scene);
    // 40 clients, 40 in the queue, the listener; a title, a header, this line.
    let full =
        terminal.shows("what does not fit", |s| s.line("… 75 more").is_some() && s.wraps);
    assert_eq!(full.lines.len(), 10, "with the line of the cursor: {full:?}");
    assert!(full.lines.iter().all(|line| line.chars().count() <= 48), "{full:?}");
    assert!(full.line("…").is_some_and(|line| line.chars().count() == 48), "{full:?}");
    assert!(full.lines[2].starts_with("  LISTEN"), "{full:?}");
    let late = scene.connect(at).0;
    let changed = terminal.shows("what is new comes first", |screen| {
        screen.lines.get(2).is_some_and(|line| line.starts_with("+ ESTAB"))
            && screen.wraps
    });
    assert!(changed.lines[3].starts_with("+ ESTAB"), "both ends: {changed:?}");
    assert_eq!(changed.lines.len(), 10);
    drop((late, clients));
    terminal.resize(6, 30);
    let small = terminal.shows("it is drawn anew", |screen| {
        screen.wraps && screen.count("socket") == 1 && screen.lines.len() == 6
    });
    assert!(small.lines.iter().all(|line| line.chars().count() <= 30), "{small:?}");
    terminal.types("\x03");
    assert_eq!(terminal.ended().code(), Some(130));
}

#[test]
fn groups_are_marked_too_and_without_colour_there_is_none() {
    let scene = Scene::new();
    let (listener, at) = scene.listen();
    let args = ["-ta", "--watch=300ms", "--by", "state", "--color", "never"];
    let terminal = watch(24, 80, &args, &scene);
    terminal.shows("the first group", |screen| {
        screen.line("LISTEN").is_some_and(|line| line.trim_start().starts_with('1'))
    });
    let (client, _) = scene.connect(at);
    terminal.shows("a group that is new", |screen| {
        screen.line("ESTAB").is_some_and(|line| line.starts_with("+       2"))
    });
    reset(client);
    drop(listener);
    terminal.shows("both are gone", |screen| {
        let gone = |group| screen.line(group).is_some_and(|line| line.starts_with('-'));
        gone("ESTAB") || gone("LISTEN")
    });
    let written = terminal.written();
    assert!(!written.contains("\x1b[32m") && !written.contains("\x1b[31m"));
}
