//! What is asked of a server on each connection, and what counts as its answer. Pure:
//! bytes in, a finding out.

use std::time::Duration;

/// The reply of a server that was to answer with some text is searched through up to so
/// many bytes; more than that without it is another reply.
const SEARCHED_MAX: usize = 64 << 10;
/// `HTTP/1.1 200`.
const STATUS_LEN: usize = 12;

/// What is asked, and how long an answer may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What is sent when a connection is established; empty where the server speaks first.
    pub send: Vec<u8>,
    /// What counts as an answer.
    pub expect: Expect,
    /// How long a reply may take. A connection without one is not served.
    pub reply_timeout: Duration,
    /// How long after an answer a held connection is asked again.
    pub ping: Option<Duration>,
}

/// What counts as an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Any byte.
    Anything,
    /// A reply with these bytes in it, wherever they stand.
    Text(Vec<u8>),
    /// The same with one of several texts.
    OneOf(Vec<Vec<u8>>),
    /// An HTTP/1 status line below 500 and not 429 (RFC 9110, 15; RFC 6585, 4): the
    /// server takes its clients, whatever it says of this path.
    Http,
}

/// Why a connection that was asked is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unserved {
    /// Nothing came in time.
    NoReply,
    /// The answer came after the time was over.
    LateReply,
    /// Something came, and not what was expected.
    OtherReply,
    /// What came is no HTTP/1 status line.
    NotHttp,
    /// This HTTP status less 400, so that it fits a byte; see [`Unserved::status`].
    Http(u8),
}

impl Unserved {
    /// An HTTP status that is no answer.
    #[must_use]
    pub fn status(code: u16) -> Self {
        Self::Http(u8::try_from(code.saturating_sub(400)).unwrap_or(u8::MAX))
    }

    /// The name as the record writes it: `no_reply`, `http_503`.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::NoReply => "no_reply".into(),
            Self::LateReply => "late_reply".into(),
            Self::OtherReply => "other_reply".into(),
            Self::NotHttp => "not_http".into(),
            Self::Http(above) => format!("http_{}", 400 + u16::from(above)),
        }
    }
}

/// What the bytes of a reply mean so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Nothing yet.
    Wait,
    /// It is the answer.
    Answered,
    /// It is another reply.
    Wrong(Unserved),
}

impl Service {
    /// A GET of `path` with keep-alive (RFC 9112). `host` is a name or an address without
    /// brackets; the port is left out where it is the default.
    #[must_use]
    pub fn http(host: &str, port: u16, path: &str) -> Vec<u8> {
        // A zone is this host's own business (RFC 6874, 4).
        let host = host.split('%').next().unwrap_or(host);
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let port = if port == 80 { String::new() } else { format!(":{port}") };
        let agent = concat!("sockscope/", env!("CARGO_PKG_VERSION"));
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}{port}\r\nUser-Agent: {agent}\r\n\
             Accept: */*\r\nConnection: keep-alive\r\n\r\n"
        )
        .into_bytes()
    }

    /// Whether the server is to speak before it is asked.
    #[must_use]
    pub fn speaks_first(&self) -> bool {
        self.send.is_empty()
    }

    /// What a reply means of which this much came so far.
    #[must_use]
    pub fn judge(&self, reply: &[u8]) -> Finding {
        match &self.expect {
            _ if reply.is_empty() => Finding::Wait,
            Expect::Anything => Finding::Answered,
            Expect::Text(text) => searched(reply, std::slice::from_ref(text)),
            Expect::OneOf(texts) => searched(reply, texts),
            Expect::Http => status(reply),
        }
    }

    /// What it means that nothing more came, after `reply`.
    #[must_use]
    pub fn judge_end(&self, reply: &[u8]) -> Unserved {
        match &self.expect {
            _ if reply.is_empty() => Unserved::NoReply,
            Expect::Http => Unserved::NotHttp,
            Expect::Anything | Expect::Text(_) | Expect::OneOf(_) => Unserved::OtherReply,
        }
    }
}

/// Looks for one of the texts.
fn searched(reply: &[u8], texts: &[Vec<u8>]) -> Finding {
    if texts.iter().any(|text| contains(reply, text)) {
        Finding::Answered
    } else if reply.len() >= SEARCHED_MAX {
        Finding::Wrong(Unserved::OtherReply)
    } else {
        Finding::Wait
    }
}

fn contains(reply: &[u8], text: &[u8]) -> bool {
    text.is_empty() || reply.windows(text.len()).any(|window| window == text)
}

/// Judges the beginning of a status line: `HTTP/1.`, a digit, a space, three digits.
fn status(reply: &[u8]) -> Finding {
    const BEGINNING: &[u8] = b"HTTP/1.";
    let known = reply.len().min(BEGINNING.len());
    if reply[..known] != BEGINNING[..known] {
        return Finding::Wrong(Unserved::NotHttp);
    }
    let Some(line) = reply.get(..STATUS_LEN) else { return Finding::Wait };
    let code = line[9..].iter().try_fold(0_u16, |code, byte| {
        byte.is_ascii_digit().then(|| code * 10 + u16::from(byte - b'0'))
    });
    match code {
        Some(code @ 100..=599) if line[7].is_ascii_digit() && line[8] == b' ' => {
            if code == 429 || code >= 500 {
                Finding::Wrong(Unserved::status(code))
            } else {
                Finding::Answered
            }
        }
        _ => Finding::Wrong(Unserved::NotHttp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expecting(expect: Expect) -> Service {
        let reply_timeout = Duration::from_secs(5);
        Service { send: b"x".to_vec(), expect, reply_timeout, ping: None }
    }

    #[test]
    fn an_http_status_below_500_is_an_answer_and_429_is_none() {
        let http = expecting(Expect::Http);
        for (reply, is) in [
            ("HTTP/1.1 200 OK\r\n", Finding::Answered),
            ("HTTP/1.0 404", Finding::Answered),
            ("HTTP/1.1 301 Moved", Finding::Answered),
            ("HTTP/1.1 429 Slow down", Finding::Wrong(Unserved::status(429))),
            ("HTTP/1.1 503 No", Finding::Wrong(Unserved::status(503))),
            ("HTTP/1.1 50", Finding::Wait),
            ("HT", Finding::Wait),
            ("", Finding::Wait),
            ("HTTP/2.0 200 OK", Finding::Wrong(Unserved::NotHttp)),
            ("HTTP/1.1 2x0 OK", Finding::Wrong(Unserved::NotHttp)),
            ("HTTP/1.1 999 OK", Finding::Wrong(Unserved::NotHttp)),
            ("SSH-2.0-x", Finding::Wrong(Unserved::NotHttp)),
            ("x", Finding::Wrong(Unserved::NotHttp)),
        ] {
            assert_eq!(http.judge(reply.as_bytes()), is, "{reply}");
        }
        assert_eq!(Unserved::status(503).name(), "http_503");
        assert_eq!(Unserved::status(429).name(), "http_429");
    }

    #[test]
    fn a_text_may_stand_anywhere_in_a_reply() {
        let pong = expecting(Expect::Text(b"PONG".to_vec()));
        assert_eq!(pong.judge(b"+PO"), Finding::Wait);
        assert_eq!(pong.judge(b"+PONG\r\n"), Finding::Answered);
        assert_eq!(pong.judge(b"-ERR\r\n"), Finding::Wait);
        assert_eq!(pong.judge_end(b"-ERR\r\n"), Unserved::OtherReply);
        assert_eq!(pong.judge_end(b""), Unserved::NoReply);
        let endless = vec![b'x'; SEARCHED_MAX];
        assert_eq!(pong.judge(&endless), Finding::Wrong(Unserved::OtherReply));
        assert_eq!(expecting(Expect::Anything).judge(b"-"), Finding::Answered);
    }

    #[test]
    fn a_request_names_its_host() {
        let request = |host, port| {
            let bytes = Service::http(host, port, "/a?b");
            String::from_utf8(bytes).unwrap()
        };
        let text = request("::1", 8080);
        assert!(text.starts_with("GET /a?b HTTP/1.1\r\nHost: [::1]:8080\r\n"), "{text}");
        assert!(text.ends_with("\r\nConnection: keep-alive\r\n\r\n"), "{text}");
        assert!(request("x.test", 80).contains("\r\nHost: x.test\r\n"));
        assert!(request("fe80::1%lo", 80).contains("\r\nHost: [fe80::1]\r\n"));
    }

    fn judged_in_pieces(service: &Service, reply: &[u8], piece: usize) -> Finding {
        let ends = (piece..reply.len()).step_by(piece).chain([reply.len()]);
        let mut judged = ends.map(|end| service.judge(&reply[..end]));
        judged.find(|finding| *finding != Finding::Wait).unwrap_or(Finding::Wait)
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            reply in "(HTTP/1[.][01] [1-6][0-9]{2}|[A-Z]{0,5}PONG|.{0,9})(\r\n.{0,20})?",
            piece in 1_usize..20,
        ) {
            let all = [
                Expect::Anything, Expect::Text(b"PONG".to_vec()), Expect::Http,
                Expect::OneOf(vec![b"APONG".to_vec(), b"200".to_vec()]),
            ];
            for expect in all {
                let service = expecting(expect);
                let whole = service.judge(reply.as_bytes());
                prop_assert_eq!(judged_in_pieces(&service, reply.as_bytes(), piece), whole);
            }
        }

        #[test]
        fn no_reply_makes_it_panic(reply in any::<Vec<u8>>()) {
            let _ = expecting(Expect::Http).judge(&reply);
            let _ = expecting(Expect::Text(b"\0".to_vec())).judge(&reply);
        }
    }
}
