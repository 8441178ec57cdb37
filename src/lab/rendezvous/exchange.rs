//! The server of a messenger, as small as it can be: who is where, and messages passed
//! on.
//!
//! Lines of text. `AT name port`: I am `name`, and others reach me on that port of the
//! address that you see me at. `WHERE name`: answered by `address:port`, or by an empty
//! line. `TELL name text`: `text` is passed on to that client.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// A server that knows its clients.
pub(super) struct Exchange {
    shared: Arc<Shared>,
    clients: Vec<TcpStream>,
    threads: Vec<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    known: Mutex<HashMap<String, Client>>,
    passed_on: AtomicUsize,
}

/// A client that has said its name.
struct Client {
    reached_at: SocketAddr,
    stream: TcpStream,
}

impl Exchange {
    /// Accepts so many clients and serves them until they go, or this value does.
    pub(super) fn start(listener: &TcpListener, clients: usize) -> io::Result<Self> {
        let mut exchange =
            Self { shared: Arc::default(), clients: Vec::new(), threads: Vec::new() };
        for _ in 0..clients {
            let stream = listener.accept()?.0;
            stream.set_nodelay(true)?;
            exchange.clients.push(stream.try_clone()?);
            let shared = Arc::clone(&exchange.shared);
            let serve = move || {
                // A client that breaks off is one that has gone.
                let _ = shared.serve(&stream);
            };
            let thread = thread::Builder::new().name("exchange".into());
            exchange.threads.push(thread.spawn(serve)?);
        }
        Ok(exchange)
    }

    /// Messages that it has passed on.
    pub(super) fn passed_on(&self) -> usize {
        self.shared.passed_on.load(Ordering::SeqCst)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        for client in &self.clients {
            // It may have gone already.
            let _ = client.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, HashMap<String, Client>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        let seen_at = stream.peer_addr()?.ip();
        for line in BufReader::new(stream).lines() {
            let line = line?;
            let words: Vec<&str> = line.splitn(3, ' ').collect();
            match words[..] {
                ["AT", name, port] => {
                    let port = port.parse().map_err(io::Error::other)?;
                    let reached_at = SocketAddr::new(seen_at, port);
                    let client = Client { reached_at, stream: stream.try_clone()? };
                    self.known().insert(name.to_owned(), client);
                }
                ["WHERE", name] => {
                    let at = self.known().get(name).map(|client| client.reached_at);
                    let at = at.as_ref().map(ToString::to_string).unwrap_or_default();
                    say(stream, &at)?;
                }
                ["TELL", name, text] => {
                    if let Some(to) = self.known().get(name) {
                        self.passed_on.fetch_add(1, Ordering::SeqCst);
                        say(&to.stream, text)?;
                    }
                }
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(())
    }
}

/// Sends a line, in one piece.
pub(super) fn say(mut to: &TcpStream, line: &str) -> io::Result<()> {
    to.write_all(format!("{line}\n").as_bytes())
}

/// The other client's half that others connect to: answers each byte until the listener
/// is shut down.
pub(super) fn answer_directly(door: &TcpListener) {
    while let Ok((mut stream, _)) = door.accept() {
        let _ = stream.set_nodelay(true);
        while stream.read(&mut [0]).is_ok_and(|n| n > 0) {
            if stream.write_all(b"!").is_err() {
                break;
            }
        }
    }
}

/// The other client's half at the server: says where it is, and answers what it is told.
pub(super) fn answer_by_server(stream: &TcpStream, port: u16) -> io::Result<()> {
    say(stream, &format!("AT ben {port}"))?;
    for line in BufReader::new(stream).lines() {
        line?;
        say(stream, "TELL ann !")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn line(from: &mut BufReader<TcpStream>) -> String {
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    #[test]
    fn it_says_where_a_client_is_and_passes_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = || {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            BufReader::new(client)
        };
        let (mut one, mut other) = (client(), client());
        let exchange = Exchange::start(&listener, 2).unwrap();
        say(other.get_ref(), "WHERE one").unwrap();
        assert_eq!(line(&mut other), "");
        say(one.get_ref(), "AT one 7").unwrap();
        say(one.get_ref(), "WHERE one").unwrap();
        assert_eq!(line(&mut one), "127.0.0.1:7");
        assert_eq!(exchange.passed_on(), 0);
        say(other.get_ref(), "TELL one good morning").unwrap();
        assert_eq!(line(&mut one), "good morning");
        assert_eq!(exchange.passed_on(), 1);
        // Its threads end though both clients stay.
        drop(exchange);
        assert_eq!(line(&mut one), "");
    }
}
