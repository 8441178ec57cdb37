//! Listeners that wait for a first byte (TCP_DEFER_ACCEPT): what they defer is neither
//! held nor a phantom. The kernel's times are 1 s for 1, 7 s for 5, and 31 s for 30.

use crate::fixtures::foreign::Foreign;
use crate::fixtures::probe::Outcome;

/// Waits for so many seconds, then accepts; answers what it hears.
fn deferring(seconds: u32) -> Foreign {
    Foreign::start(&format!(
        "
import selectors
s = listener(1000, set=[(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, {seconds})])
ready(s)
loop = selectors.DefaultSelector()
loop.register(s, selectors.EVENT_READ)
while True:
    for key, _ in loop.select():
        if key.fileobj is s:
            loop.register(s.accept()[0], selectors.EVENT_READ)
            continue
        try:
            heard = key.fileobj.recv(4096)
        except OSError:
            heard = b''
        if heard:
            key.fileobj.sendall(heard)
        else:
            loop.unregister(key.fileobj)
            key.fileobj.close()"
    ))
}

fn probe(seconds: u32, args: &[&str]) -> Outcome {
    deferring(seconds).probe().with(&["--max", "50"]).with(args).run()
}

const OUTSIDE: [&str; 2] = ["--evidence", "none"];

#[track_caller]
fn says(outcome: &Outcome, words: &str) {
    assert!(outcome.stderr.contains(words), "no {words:?} in {outcome}");
}

#[test]
fn on_the_host_what_waits_is_deferred_and_not_held() {
    for seconds in [5, 30] {
        let outcome = probe(seconds, &[]);
        outcome.is("server.unserved", "certain");
        outcome.holds(0);
        assert_eq!(outcome.count("deferred"), 50, "{outcome}");
        assert_eq!(outcome.number("/result/phantoms/total"), 0, "{outcome}");
        assert!(outcome.summary().contains("defers"), "{outcome}");
        assert!(outcome.remedies()[0].contains("--send TEXT"), "{outcome}");
        assert!(outcome.remedies()[0].contains("http://"), "{outcome}");
        says(&outcome, "50 connections deferred when dialing ended");
    }
}

#[test]
fn on_the_host_what_is_handed_on_before_the_end_is_held() {
    for (seconds, hold) in [(1, "2500ms"), (5, "9s")] {
        let outcome = probe(seconds, &["--hold", hold]);
        outcome.is("requested", "certain");
        outcome.holds(50);
        // On a busy machine the short wait may be over before they are counted.
        let deferred = outcome.count("deferred");
        assert_eq!(deferred + outcome.count("accepted"), 50, "{outcome}");
        assert!(deferred == 50 || seconds == 1, "{outcome}");
        assert_eq!(outcome.warnings().contains(&"defers"), deferred > 0, "{outcome}");
    }
}

#[test]
fn from_outside_a_short_wait_is_seen_and_waited_for() {
    let outcome = probe(1, &OUTSIDE);
    outcome.is("requested", "certain");
    assert_eq!((outcome.held(), outcome.level()), (50, "confirmed"), "{outcome}");
    assert_eq!(outcome.number("/result/phantoms/total"), 0, "{outcome}");
    assert_eq!(outcome.warnings(), ["defers"], "{outcome}");
    says(&outcome, "waits up to 1 s for a first byte");
}

#[test]
fn from_outside_a_long_wait_cannot_be_seen_and_that_is_said() {
    for seconds in [5, 30] {
        let outcome = probe(seconds, &OUTSIDE);
        outcome.is("requested", "certain");
        assert_eq!((outcome.held(), outcome.level()), (50, "confirmed"), "{outcome}");
        assert_eq!(outcome.warnings(), ["may_defer"], "{outcome}");
        says(&outcome, "waits for a first byte for longer than 1 s");
        says(&outcome, "--send TEXT, or http://, tells");
    }
}

#[test]
fn from_outside_a_long_wait_is_seen_when_it_is_over() {
    let outcome = probe(5, &["--evidence", "none", "--hold", "9s"]);
    outcome.is("requested", "certain");
    assert_eq!((outcome.held(), outcome.level()), (50, "confirmed"), "{outcome}");
    assert_eq!((outcome.count("confirmed"), outcome.count("deferred")), (0, 50));
    says(&outcome, "waits up to 7 s for a first byte");
}

#[test]
fn from_outside_the_young_are_deferred_and_the_old_are_held() {
    let slowly = ["--evidence", "none", "--rate", "10", "--time-limit", "10s"];
    let outcome = deferring(5).probe().with(&slowly).run();
    let (held, deferred) = (outcome.held(), outcome.count("deferred"));
    // Those of the last 7.7 of 10 s wait when dialing ends, and some are handed on soon.
    assert!((20..=65).contains(&held), "{outcome}");
    assert!((55..=85).contains(&deferred), "{outcome}");
    outcome.is("server.unserved", "likely");
    assert!(outcome.summary().contains("defers"), "{outcome}");
    assert_eq!(outcome.alternatives(), ["server.accept_queue"]);
}

#[test]
fn a_byte_ends_the_wait() {
    for evidence in ["auto", "none"] {
        let outcome = probe(30, &["--evidence", evidence, "--send", "x"]);
        outcome.is("requested", "certain");
        assert_eq!((outcome.held(), outcome.level()), (50, "served"), "{outcome}");
        assert!(outcome.warnings().is_empty(), "{outcome}");
    }
}
