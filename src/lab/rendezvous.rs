//! Two clients that a server tells of each other.

mod exchange;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use socket2::SockRef;

use self::exchange::Exchange;
use super::bench::{Bench, Place};
use super::clients::{ask, median, micros};
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::{Moment, moment};
use super::neighbour::Neighbour;
use crate::kernel::netns::Netns;
use crate::sockets::model::State;
use crate::sockets::select::Tables;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 18,
    id: "rendezvous",
    claim: "A messenger's server can tell two clients of each other, who then connect \
            directly, and passes messages on when they cannot.",
    trial: "Two clients, each a host of its own, register at a server on a third, which \
            is also the router between them. One asks for the address of the other, \
            connects to it and sends 100 messages, each answered. Then the router lets \
            nothing through any more: it connects again in vain, and sends 100 messages \
            by the server.",
    run,
};

const MESSAGES: usize = 100;
/// How long a connection that may be impossible is tried.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(5);

/// What was seen.
#[derive(Debug, Clone, Serialize)]
struct Seen {
    /// The address that the server gave.
    told: String,
    /// The one that the other client listens on.
    listens_on: String,
    /// Messages answered on the direct connection.
    direct_answers: usize,
    /// Of these, passed on by the server.
    direct_passed_on: usize,
    /// Median time for a direct answer, where there was one.
    direct_us: Option<u64>,
    /// What a second direct connection gave, where there was no way.
    without_way: String,
    /// Messages answered by way of the server.
    relayed_answers: usize,
    /// Of these, passed on by it.
    relayed_passed_on: usize,
    /// Median time for such an answer, where there was one.
    relayed_us: Option<u64>,
}

/// Where the clients are: each on a host of its own, or all on this one's loopback.
struct Hosts {
    neighbours: Option<[Neighbour; 2]>,
}

impl Hosts {
    fn new(bench: &Bench<'_>) -> Result<Self, Unable> {
        if bench.place == Place::Loopback {
            return Ok(Self { neighbours: None });
        }
        let neighbours = [Neighbour::new(bench, 0)?, Neighbour::new(bench, 1)?];
        Ok(Self { neighbours: Some(neighbours) })
    }

    /// Runs `f` on a client's host.
    fn at<T: Send>(
        &self,
        client: usize,
        f: impl FnOnce() -> std::io::Result<T> + Send,
    ) -> std::io::Result<T> {
        match self.netns(client) {
            Some(netns) => netns.run(f)?,
            None => f(),
        }
    }

    fn netns(&self, client: usize) -> Option<&Netns> {
        self.neighbours.as_ref().map(|both| &both[client].netns)
    }

    /// The addresses of the server, as a client sees it, and of the client.
    fn addresses(&self, client: usize) -> (IpAddr, IpAddr) {
        match &self.neighbours {
            Some(both) => (both[client].here.into(), both[client].there.into()),
            None => (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()),
        }
    }
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    let hosts = Hosts::new(bench)?;
    let way = |open: bool| match &hosts.neighbours {
        Some(_) => bench.set("net/ipv4/ip_forward", if open { "1" } else { "0" }),
        None => Ok(()),
    };
    way(true)?;
    let listener = TcpListener::bind("0.0.0.0:0").step("listening")?;
    let port = listener.local_addr().step("getsockname()")?.port();
    let register = |client: usize| {
        let to = SocketAddr::new(hosts.addresses(client).0, port);
        let stream = hosts.at(client, || TcpStream::connect(to))?;
        stream.set_nodelay(true)?;
        Ok::<_, std::io::Error>(stream)
    };
    let ann = register(0).step("connecting to the server")?;
    ann.set_read_timeout(Some(ANSWER)).step("setting a timeout")?;
    let ben = register(1).step("connecting to the server")?;
    let bens_door = hosts
        .at(1, || TcpListener::bind((hosts.addresses(1).1, 0)))
        .step("listening for the other client")?;
    let bens_port = bens_door.local_addr().step("getsockname()")?.port();
    let exchange = Exchange::start(&listener, 2).step("accepting")?;
    let mut trial = Trial {
        bench,
        hosts: &hosts,
        exchange: &exchange,
        ann,
        ports: [port, bens_port],
        moments: Vec::new(),
    };
    let seen = thread::scope(|scope| {
        let door = bens_door.try_clone().step("dup()")?;
        let stream = ben.try_clone().step("dup()")?;
        scope.spawn(move || exchange::answer_directly(&door));
        scope.spawn(move || exchange::answer_by_server(&stream, bens_port));
        let seen = trial.run(&bens_door, way);
        // Whatever came of it, both threads of the other client end now.
        let _ = SockRef::from(&bens_door).shutdown(Shutdown::Both);
        let _ = ben.shutdown(Shutdown::Both);
        seen
    })?;
    let moments = trial.moments;
    let left_out = (bench.place == Place::Loopback).then(|| {
        "hosts of their own: all three were on loopback, and the second time the other \
         client did not listen"
            .to_owned()
    });
    Ok(Outcome::of(&seen, judge(&seen)).with(moments).without(left_out))
}

/// What the first client does.
struct Trial<'a, 'b> {
    bench: &'a Bench<'b>,
    hosts: &'a Hosts,
    exchange: &'a Exchange,
    ann: TcpStream,
    /// Of the server and of the other client.
    ports: [u16; 2],
    moments: Vec<Moment>,
}

impl Trial<'_, '_> {
    fn run(
        &mut self,
        bens_door: &TcpListener,
        way: impl Fn(bool) -> Result<(), Unable>,
    ) -> Result<Seen, Unable> {
        let listens_on = bens_door.local_addr().step("getsockname()")?;
        let told = self.find_ben()?;
        let mut direct = Talked::default();
        if let Ok(mut stream) = self.connect(told) {
            direct = self.talk("connected directly", &mut stream)?;
            // To its end, while there still is a way for that.
            stream.shutdown(Shutdown::Write).step("shutdown()")?;
            stream.read(&mut [0]).step("reading the end of file")?;
        }
        way(false)?;
        if self.hosts.neighbours.is_none() {
            SockRef::from(bens_door).shutdown(Shutdown::Both).step("shutdown()")?;
        }
        let without_way = match self.connect(told) {
            Ok(_) => "connected".into(),
            Err(error) => {
                error.raw_os_error().map_or("no answer".into(), super::errno_name)
            }
        };
        let mut relay =
            Relay { reader: BufReader::new(self.ann.try_clone().step("dup()")?) };
        let relayed = self.talk("passed on by the server", &mut relay)?;
        Ok(Seen {
            told: told.to_string(),
            listens_on: listens_on.to_string(),
            direct_answers: direct.answers,
            direct_passed_on: direct.passed_on,
            direct_us: direct.median_us,
            without_way,
            relayed_answers: relayed.answers,
            relayed_passed_on: relayed.passed_on,
            relayed_us: relayed.median_us,
        })
    }

    /// Asks the server until the other has registered.
    fn find_ben(&mut self) -> Result<SocketAddr, Unable> {
        let mut reader = BufReader::new(self.ann.try_clone().step("dup()")?);
        exchange::say(&self.ann, "AT ann 0").step("registering")?;
        let found = self.bench.wait(ANSWER, || {
            exchange::say(&self.ann, "WHERE ben")?;
            let mut line = String::new();
            reader.read_line(&mut line)?;
            Ok(line.trim_end().parse().ok())
        })?;
        found.ok_or(ErrorKind::TimedOut).step("asking the server for the other client")
    }

    fn connect(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        let stream = self.hosts.at(0, || TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        Ok(stream)
    }

    /// Sends messages, each when the one before is answered.
    fn talk(
        &mut self,
        when: &str,
        to: &mut (impl Read + Write),
    ) -> Result<Talked, Unable> {
        let before = self.exchange.passed_on();
        let mut times = Vec::new();
        for _ in 0..MESSAGES {
            self.bench.go_on()?;
            match ask(to) {
                Ok(time) => times.push(time),
                Err(_) => break,
            }
        }
        self.moments.push(self.table(when)?);
        Ok(Talked {
            answers: times.len(),
            passed_on: self.exchange.passed_on() - before,
            median_us: (!times.is_empty()).then(|| micros(median(times))),
        })
    }

    /// The connections of the first client's host.
    fn table(&self, when: &str) -> Result<Moment, Unable> {
        let when = format!("{when}, on the first client's host");
        let own = self.ann.local_addr().step("getsockname()")?.ip();
        let read = || {
            moment(when, Tables::TCP, |row| {
                row.state == State::Established
                    && row.local.inet().is_some_and(|at| at.ip() == own)
                    && row.remote.inet().is_some_and(|at| self.ports.contains(&at.port()))
            })
        };
        self.hosts.at(0, read).step("reading the socket table")
    }
}

/// Messages that were sent.
#[derive(Default)]
struct Talked {
    answers: usize,
    passed_on: usize,
    median_us: Option<u64>,
}

/// Messages of a byte that the server passes on, and their answers.
struct Relay {
    reader: BufReader<TcpStream>,
}

impl Write for Relay {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        exchange::say(self.reader.get_ref(), &format!("TELL ben {text}"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Read for Relay {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        line.trim_end().as_bytes().read(buffer)
    }
}

fn judge(seen: &Seen) -> (Finding, String) {
    let in_time = |us: Option<u64>| {
        us.map_or_else(String::new, |us| {
            format!(", in {} each", crate::render::micros(us))
        })
    };
    let is_direct = seen.told == seen.listens_on
        && seen.direct_answers == MESSAGES
        && seen.direct_passed_on == 0;
    let is_relayed =
        seen.relayed_answers == MESSAGES && seen.relayed_passed_on == 2 * MESSAGES;
    let direct = format!(
        "The server told the one where the other listens ({}), and {} of {MESSAGES} \
         messages were answered directly{}; the server passed on {} of them.",
        seen.told,
        seen.direct_answers,
        in_time(seen.direct_us),
        seen.direct_passed_on,
    );
    let relayed = format!(
        "Without a way between the two ({}), {} of {MESSAGES} were answered by way of the \
         server{}.",
        seen.without_way,
        seen.relayed_answers,
        in_time(seen.relayed_us),
    );
    match (is_direct, is_relayed) {
        (true, true) if seen.without_way == "connected" => {
            let why =
                format!("{direct} It could not be tried without a way between them.");
            (Finding::HoldsWithinLimits, why)
        }
        (true, true) => {
            let why = format!(
                "{direct} {relayed} Each client dials the server, so that way is always \
                 open; each message on it takes two connections, and the server's time."
            );
            (Finding::Holds, why)
        }
        (true, false) | (false, true) => {
            (Finding::HoldsWithinLimits, format!("{direct} {relayed}"))
        }
        (false, false) => (Finding::DoesNotHold, format!("{direct} {relayed}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        let seen = Seen {
            told: "192.0.2.6:9".into(),
            listens_on: "192.0.2.6:9".into(),
            direct_answers: MESSAGES,
            direct_passed_on: 0,
            direct_us: Some(20),
            without_way: "no answer".into(),
            relayed_answers: MESSAGES,
            relayed_passed_on: 2 * MESSAGES,
            relayed_us: Some(40),
        };
        assert_eq!(judge(&seen).0, Finding::Holds);
        let always = Seen { without_way: "connected".into(), ..seen.clone() };
        assert_eq!(judge(&always).0, Finding::HoldsWithinLimits);
        let mute = Seen { relayed_answers: 0, ..seen.clone() };
        assert_eq!(judge(&mute).0, Finding::HoldsWithinLimits);
        let elsewhere = Seen { told: "192.0.2.1:9".into(), ..seen };
        assert_eq!(judge(&elsewhere).0, Finding::HoldsWithinLimits);
        let neither = Seen { relayed_passed_on: 0, ..elsewhere };
        assert_eq!(judge(&neither).0, Finding::DoesNotHold);
    }
}
