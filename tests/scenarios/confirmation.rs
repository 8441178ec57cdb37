//! Proof from the client's side, without a byte: what it must not take for a phantom or
//! for loss, and what it leaves behind. Whether it counts right is in `phantoms`.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepidle, set_tcp_keepintvl};

use super::ends::until_phase;
use crate::fixtures::Server;
use crate::fixtures::burst::listen;
use crate::fixtures::probe::{Outcome, Probe};
use crate::fixtures::relay::{Shape, SlowLink};

/// A probe over the link, whose listener hands what it accepts to `each`.
fn probe_over(
    link: &SlowLink,
    args: &[&str],
    each: impl Fn(&TcpStream) + Sync,
) -> Outcome {
    let listener: TcpListener = listen(link, false, 1000);
    listener.set_nonblocking(true).unwrap();
    let server: SocketAddr = listener.local_addr().unwrap();
    let over = AtomicBool::new(false);
    /// Ends the accepting, whatever comes.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    thread::scope(|scope| {
        let _over = Over(&over);
        scope.spawn(|| {
            let mut held = Vec::new();
            while !over.load(Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => {
                        each(&client);
                        held.push(client);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        thread::sleep(Duration::from_millis(2));
                    }
                    Err(error) => panic!("accept: {error}"),
                }
            }
        });
        let outside = ["--evidence", "none", "--authorized", "--rate", "2000"];
        let probe = Probe::of(&server.to_string()).inside(&link.client);
        probe.with(&outside).with(args).run()
    })
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn a_long_way_is_not_taken_for_loss() {
    for round_trip in [ms(300), ms(900)] {
        let shape = Shape { round_trip, ..Shape::default() };
        let Some(link) = SlowLink::new(shape) else { return };
        let outcome = probe_over(&link, &["--max", "100"], |_| {});
        outcome.is("requested", "certain");
        assert_eq!((outcome.held(), outcome.level()), (100, "confirmed"), "{outcome}");
        assert!(!outcome.warnings().contains(&"loss"), "{outcome}");
        let confirmation = &outcome.run["result"]["confirmation"];
        assert_eq!(confirmation["round_trip_loss"], 0.0, "{outcome}");
        assert_eq!(confirmation["error_probability"], 0.0, "{outcome}");
    }
}

#[test]
fn loss_is_measured_and_said_with_the_probability_of_error() {
    let shape = Shape { round_trip: ms(20), loss: 0.1, seed: 3 };
    let Some(link) = SlowLink::new(shape) else { return };
    // A SYN may be lost many times: until then nothing grows, and no limit is met.
    let outcome = probe_over(&link, &["--max", "300", "--patience", "20s"], |_| {});
    let confirmation = &outcome.run["result"]["confirmation"];
    let number = |key: &str| confirmation[key].as_f64().unwrap();
    let loss = number("round_trip_loss");
    // 0.19 there and back; four standard deviations.
    assert!((0.10..0.28).contains(&loss), "{outcome}");
    assert!((number("error_probability") - loss / 2.0).abs() < 1e-9, "{outcome}");
    assert!(outcome.warnings().contains(&"loss"), "{outcome}");
    let said = outcome.stderr.lines().find(|line| line.contains("lost on the way"));
    let said = said.unwrap_or_else(|| panic!("{outcome}"));
    assert!(said.contains(&format!("({:.1} % of keepalives", loss * 100.0)), "{said}");
    assert!(said.contains("wrongly with a probability of up to"), "{said}");
}

/// Many a server sends keepalives of its own, every 15 s as a rule: here from the ninth
/// on.
#[test]
fn a_servers_own_keepalives_are_not_taken_for_phantoms_where_packets_are_lost() {
    let shape = Shape { round_trip: ms(20), loss: 0.05, seed: 4 };
    let Some(link) = SlowLink::new(shape) else { return };
    let outcome = probe_over(
        &link,
        &["--max", "200", "--hold", "12s", "--patience", "20s"],
        |client| {
            set_tcp_keepidle(client, Duration::from_secs(9)).unwrap();
            set_tcp_keepintvl(client, Duration::from_secs(1)).unwrap();
            set_socket_keepalive(client, true).unwrap();
        },
    );
    assert!(outcome.warnings().contains(&"loss"), "{outcome}");
    // But for those that lost too much to be sure of.
    assert!(outcome.held() >= 190, "{outcome}");
}

#[test]
fn keepalives_are_off_again_while_it_holds() {
    let server = Server::apart(&[]);
    let folder = tempfile::tempdir().unwrap();
    let outside = ["--evidence", "none", "--max", "40", "--hold", "20s"];
    let probe = server.probe().with(&outside).recorded(folder.path()).start();
    until_phase(folder.path(), "hold");
    let listed = server.listed("-Htno");
    let client = format!("127.0.0.1:{}", server.socket_addr().port());
    let ends: Vec<&str> =
        listed.lines().filter(|l| l.split_whitespace().nth(4) == Some(&client)).collect();
    assert_eq!(ends.len(), 40, "{listed}");
    assert!(ends.iter().all(|end| !end.contains("keepalive")), "{listed}");
    probe.signal(rustix::process::Signal::INT);
    assert_eq!(probe.ended().held(), 40);
}

#[test]
fn what_nothing_on_this_host_listens_for_is_confirmed_all_the_same() {
    // A rule leads the port to a listener on another: no table here shows that.
    let Some(netns) = crate::fixtures::netns::Netns::new() else { return };
    let _server = Server::start_in(&netns, &["--listen", "127.0.0.1:2000"]);
    netns.run("nft", &["add table ip nat"]);
    netns.run("nft", &["add chain ip nat out { type nat hook output priority -100; }"]);
    netns.run("nft", &["add rule ip nat out tcp dport 3000 redirect to :2000"]);
    let outcome = Probe::of("127.0.0.1:3000").inside(&netns).with(&["--max", "40"]).run();
    outcome.is("requested", "certain");
    assert_eq!((outcome.held(), outcome.level()), (40, "confirmed"), "{outcome}");
}
