//! What experiments do as clients: connections, questions of one byte, medians.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::experiment::{Step, Unable};
use super::tools::soft_nofile;
use crate::render::count;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Descriptors that are left for everything else.
const SPARE: usize = 100;

/// As many connections of `wanted` as RLIMIT_NOFILE allows where each takes
/// `fds_each` descriptors here; and what to say where it allows fewer.
pub(super) fn affordable(wanted: usize, fds_each: usize) -> (usize, Option<String>) {
    let soft = usize::try_from(soft_nofile()).unwrap_or(usize::MAX);
    within(soft, wanted, fds_each)
}

fn within(soft: usize, wanted: usize, fds_each: usize) -> (usize, Option<String>) {
    let most = (soft.saturating_sub(SPARE) / fds_each).max(1);
    if wanted <= most {
        return (wanted, None);
    }
    let [soft, wanted, shown] = [soft, wanted, most].map(|n| count(n as u64));
    (
        most,
        Some(format!("{wanted} connections: {shown} of them, for `ulimit -n` is {soft}")),
    )
}

/// Connections to a server, one after the other.
pub(super) fn connect(to: SocketAddr, n: usize) -> Result<Vec<TcpStream>, Unable> {
    (0..n).map(|_| client(to)).collect::<io::Result<_>>().step("connecting")
}

fn client(to: SocketAddr) -> io::Result<TcpStream> {
    let client = TcpStream::connect(to)?;
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(PATIENCE))?;
    Ok(client)
}

/// A byte there and a byte back: how long that takes.
pub(super) fn ask(server: &mut (impl Read + Write)) -> io::Result<Duration> {
    let asked = Instant::now();
    server.write_all(b"?")?;
    server.read_exact(&mut [0])?;
    Ok(asked.elapsed())
}

/// The same of many that ask before any reads an answer.
pub(super) fn ask_all(clients: &mut [TcpStream]) -> io::Result<Vec<Duration>> {
    let mut asked = Vec::with_capacity(clients.len());
    for client in &mut *clients {
        asked.push(Instant::now());
        client.write_all(b"?")?;
    }
    let answer = |(client, asked): (&mut TcpStream, Instant)| {
        client.read_exact(&mut [0])?;
        Ok(asked.elapsed())
    };
    clients.iter_mut().zip(asked).map(answer).collect()
}

/// The median; of nothing, the longest there is.
pub(super) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or(Duration::MAX)
}

/// Whole microseconds, 1 at the least.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_descriptors_do_not_allow_is_said() {
        assert_eq!(within(1_024, 300, 2), (300, None));
        let (most, said) = within(256, 300, 2);
        assert_eq!(most, 78);
        let said = said.unwrap();
        assert!(said.contains("78 of them") && said.contains("256"), "{said}");
        assert_eq!(within(10, 300, 2).0, 1);
    }

    #[test]
    fn a_median_is_in_the_middle_whatever_the_order() {
        let of = |times: &[u64]| {
            median(times.iter().copied().map(Duration::from_micros).collect())
        };
        assert_eq!(of(&[9, 1, 5]), Duration::from_micros(5));
        assert_eq!(of(&[]), Duration::MAX);
    }
}
