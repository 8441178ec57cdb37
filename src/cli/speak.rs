//! What `--speak` says to a server, and what its answer has in it: the protocols, as data.

use clap::ValueEnum;

use crate::probe::service::{Expect, Service};
use crate::probe::target::Target;

/// A protocol that is spoken so far that the server shows whether it takes the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Speak {
    /// GET / (below 500 and not 429 is an answer)
    Http,
    /// PING
    Redis,
    /// version
    Memcached,
    /// The first packet of a login, as postgres; any challenge is an answer
    Postgres,
    /// Waits for the banner
    Ssh,
    /// Waits for 220
    Smtp,
}

/// Length, version 3.0, then names and values (PostgreSQL's frontend protocol, 55.7).
const STARTUP: &[u8] = b"\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0";

impl Speak {
    /// What is sent, nothing where the server speaks first; and what an answer contains,
    /// one of these.
    fn words(self) -> (&'static [u8], &'static [&'static [u8]]) {
        match self {
            Self::Http => (b"", &[]),
            // Who must log in first is taken all the same.
            Self::Redis => (b"PING\r\n", &[b"+PONG", b"-NOAUTH"]),
            Self::Memcached => (b"version\r\n", &[b"VERSION "]),
            // Every request to authenticate: its length is below 2^24.
            Self::Postgres => (STARTUP, &[b"R\0\0"]),
            Self::Ssh => (b"", &[b"SSH-"]),
            Self::Smtp => (b"", &[b"220"]),
        }
    }

    /// Whether the server is to speak first, so that nothing can be asked again.
    pub(super) fn only_listens(self) -> bool {
        self != Self::Http && self.words().0.is_empty()
    }

    /// What is sent to this target, and what counts as an answer.
    pub(super) fn to(self, target: Option<&Target>) -> (Vec<u8>, Expect) {
        if self == Self::Http {
            let request = match target {
                Some(Target::Tcp { host, port }) => Service::http(host, *port, "/"),
                _ => Service::http("localhost", 80, "/"),
            };
            return (request, Expect::Http);
        }
        let (send, answers) = self.words();
        let answers = answers.iter().map(|answer| answer.to_vec()).collect();
        (send.to_vec(), Expect::OneOf(answers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::service::Finding;
    use std::time::Duration;

    fn judged(speak: Speak, reply: &[u8]) -> Finding {
        let (send, expect) = speak.to(None);
        let reply_timeout = Duration::from_secs(1);
        Service { send, expect, reply_timeout, ping: None }.judge(reply)
    }

    #[test]
    fn the_first_packet_of_a_login_says_its_length() {
        let (length, _) = STARTUP.split_first_chunk().unwrap();
        assert_eq!(usize::try_from(u32::from_be_bytes(*length)).unwrap(), STARTUP.len());
    }

    #[test]
    fn who_is_taken_is_told_from_who_is_not() {
        for (speak, taken, not) in [
            (Speak::Redis, &b"+PONG\r\n"[..], &b"-ERR max number of clients"[..]),
            (Speak::Redis, b"-NOAUTH Authentication required.\r\n", b"-LOADING\r\n"),
            (Speak::Memcached, b"VERSION 1.6.18\r\n", b"ERROR Too many open"),
            (Speak::Postgres, b"R\0\0\0\x08\0\0\0\0", b"E\0\0\0\x5bSFATAL\0VFATAL\0"),
            (Speak::Postgres, b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0", b"E\0\0\0\x5b"),
            (Speak::Ssh, b"SSH-2.0-OpenSSH_9.2\r\n", b"Exceeded MaxStartups\r\n"),
            (Speak::Smtp, b"220 mail ESMTP\r\n", b"421 Too many connections\r\n"),
            (Speak::Http, b"HTTP/1.1 404 Not Found\r\n", b""),
        ] {
            assert_eq!(judged(speak, taken), Finding::Answered, "{speak:?}");
            assert_ne!(judged(speak, not), Finding::Answered, "{speak:?}");
        }
    }

    #[test]
    fn http_names_the_host_of_its_target() {
        let target = Target::parse("localhost:8080").unwrap();
        let (request, expect) = Speak::Http.to(Some(&target));
        let request = String::from_utf8(request).unwrap();
        assert!(request.starts_with("GET / HTTP/1.1\r\nHost: localhost:8080\r\n"));
        assert_eq!(expect, Expect::Http);
        assert!(!Speak::Http.only_listens() && Speak::Ssh.only_listens());
    }
}
