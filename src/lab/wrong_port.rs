//! What answers on a port that is not the one meant.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::bench::Bench;
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::moment;
use crate::server::child::Child;
use crate::sockets::model::State;
use crate::sockets::select::Tables;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 25,
    id: "wrong-port",
    claim: "With a wrong port one does not reach the right service.",
    trial: "Four servers listen on one address: one that greets as a mail server does, an \
            echo, a silent one, and HTTP, which is the right one; a fifth port is closed. \
            A client connects to each, listens who speaks first, and sends each the same \
            HTTP request.",
    run,
};

/// What each says, and its name; the last is the right one.
const SERVICES: [(&str, &str); 4] = [
    ("mail", "banner:220 mail.example ESMTP\\r\\n"),
    ("echo", "echo"),
    ("silent", "nothing"),
    ("http", "http"),
];
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: example\r\n\r\n";
/// How long after the last byte nothing more is waited for.
const QUIET: Duration = Duration::from_millis(300);
/// How long the first byte is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was seen.
#[derive(Debug, Clone, Serialize)]
struct Seen {
    /// Ports on which the right service does not listen.
    wrong_ports: usize,
    /// Those that took the connection.
    wrong_connected: usize,
    /// Those that spoke before the client had said a word.
    wrong_speak_first: usize,
    /// Those that answered the request with a reply of HTTP.
    wrong_answer_as_http: usize,
    /// Whether the right port did.
    right_answers_as_http: bool,
    /// What the closed port gave: 0 or the errno.
    closed_errno: i32,
    /// What came from each service: at once, and after the request.
    said: Vec<String>,
}

/// A client of a service, and what came.
struct Visit {
    name: &'static str,
    client: TcpStream,
    greeting: Vec<u8>,
    answer: Vec<u8>,
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    let closed = closed_port()?;
    let mut servers = Vec::new();
    let mut visits = Vec::new();
    for (name, speak) in SERVICES {
        let server = bench.serve(&["--speak", speak])?;
        visits.push(visit(name, &server)?);
        servers.push(server);
    }
    let refused = TcpStream::connect_timeout(&closed, PATIENCE).err();
    listen(bench, &mut visits, |visit| &mut visit.greeting)?;
    for visit in &mut visits {
        visit.client.write_all(REQUEST).step("asking")?;
    }
    listen(bench, &mut visits, |visit| &mut visit.answer)?;
    let ports: Vec<_> = servers.iter().map(Child::tcp).collect();
    let table = moment("all have been asked", Tables::TCP, |row| {
        row.state == State::Established && ports.contains(&row.local.inet())
    })
    .step("reading the socket table")?;
    let (right, wrong) = visits.split_last().ok_or(Unable::Interrupted)?;
    let is_http = |visit: &&Visit| visit.answer.starts_with(b"HTTP/");
    let seen = Seen {
        wrong_ports: wrong.len() + 1,
        wrong_connected: wrong.len() + usize::from(refused.is_none()),
        wrong_speak_first: wrong.iter().filter(|v| !v.greeting.is_empty()).count(),
        wrong_answer_as_http: wrong.iter().filter(is_http).count(),
        right_answers_as_http: is_http(&right),
        closed_errno: refused.map_or(0, |error| error.raw_os_error().unwrap_or(-1)),
        said: visits.iter().map(said).collect(),
    };
    Ok(Outcome::of(&seen, judge(&seen)).with([table]))
}

/// An address on which nobody listens: that of a listener that has just gone.
fn closed_port() -> Result<SocketAddr, Unable> {
    let listener = TcpListener::bind("127.0.0.1:0").step("listening")?;
    listener.local_addr().step("getsockname()")
}

fn visit(name: &'static str, server: &Child) -> Result<Visit, Unable> {
    let at = server.tcp().ok_or(ErrorKind::AddrNotAvailable);
    let client = TcpStream::connect(at.step("reading a server's address")?);
    let client = client.step("connecting")?;
    client.set_nonblocking(true).step("setting O_NONBLOCK")?;
    Ok(Visit { name, client, greeting: Vec::new(), answer: Vec::new() })
}

/// Reads what comes from each, until the first has spoken and all have been silent for a
/// while.
fn listen(
    bench: &Bench<'_>,
    visits: &mut [Visit],
    heard: fn(&mut Visit) -> &mut Vec<u8>,
) -> Result<(), Unable> {
    let mut last = None;
    bench.wait(PATIENCE, || {
        for visit in &mut *visits {
            let mut buffer = [0; 1024];
            match (&visit.client).read(&mut buffer) {
                Ok(0) => {}
                Ok(n) => {
                    heard(visit).extend_from_slice(&buffer[..n]);
                    last = Some(Instant::now());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(last.filter(|last| last.elapsed() > QUIET))
    })?;
    Ok(())
}

fn said(visit: &Visit) -> String {
    let first = |text: &[u8]| match text.split(|&byte| byte == b'\r').next() {
        None | Some([]) => "nothing".into(),
        Some(line) => String::from_utf8_lossy(line).into_owned(),
    };
    let (greeting, answer) = (first(&visit.greeting), first(&visit.answer));
    format!("{}: {greeting}, then {answer}", visit.name)
}

fn judge(seen: &Seen) -> (Finding, String) {
    let Seen { wrong_ports, wrong_connected, wrong_speak_first, .. } = seen;
    if !seen.right_answers_as_http || seen.wrong_answer_as_http > 0 {
        let why = format!(
            "{} of {wrong_ports} wrong ports answered as the right service does, and the \
             right port {}.",
            seen.wrong_answer_as_http,
            if seen.right_answers_as_http { "did" } else { "did not" },
        );
        return (Finding::DoesNotHold, why);
    }
    if *wrong_connected == 0 {
        let why = format!(
            "None of {wrong_ports} wrong ports took the connection: it was refused ({}).",
            super::errno_name(seen.closed_errno)
        );
        return (Finding::Holds, why);
    }
    let why = format!(
        "No wrong port gave a reply of HTTP. But {wrong_connected} of {wrong_ports} took \
         the connection, for a connection says only that somebody listens there; one \
         refused it ({}). Of those that took it {wrong_speak_first} spoke first, which \
         tells at once that it is another service; an echo sends the request back, and a \
         silent one looks like a slow right one. Only the protocol tells what was \
         reached: so clients should check the first answer, and wait for it with a limit.",
        super::errno_name(seen.closed_errno)
    );
    (Finding::HoldsWithinLimits, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        let seen = Seen {
            wrong_ports: 4,
            wrong_connected: 3,
            wrong_speak_first: 1,
            wrong_answer_as_http: 0,
            right_answers_as_http: true,
            closed_errno: libc::ECONNREFUSED,
            said: Vec::new(),
        };
        assert_eq!(judge(&seen).0, Finding::HoldsWithinLimits);
        let refused = Seen { wrong_connected: 0, ..seen.clone() };
        assert_eq!(judge(&refused).0, Finding::Holds);
        let any_port = Seen { wrong_answer_as_http: 1, ..seen.clone() };
        assert_eq!(judge(&any_port).0, Finding::DoesNotHold);
        let never = Seen { right_answers_as_http: false, ..seen };
        assert_eq!(judge(&never).0, Finding::DoesNotHold);
    }
}
