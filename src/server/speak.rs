//! What a server answers, as a function of what it heard. The models only carry bytes.

use super::plan::Speak;

/// The longest HTTP request head that is waited for.
const LONGEST_HEAD: usize = 16 * 1024;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n";
const LAST_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\
    Content-Length: 3\r\nConnection: close\r\n\r\nok\n";
const HEAD_TOO_LONG: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\n\
    Content-Length: 0\r\nConnection: close\r\n\r\n";

/// What is unfinished between a client and the server; empty where nothing is.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// The beginning of a request head whose end has not come.
    heard: Vec<u8>,
    /// What is to be sent.
    pub(super) unsent: Vec<u8>,
    /// Whether the server closes when everything is sent.
    pub(super) last: bool,
    /// Whether the server waits until the client takes more (the event model).
    pub(super) waits_to_send: bool,
}

impl Talk {
    /// Whether nothing of it need be remembered until the client speaks again.
    pub(super) fn is_over(&self) -> bool {
        self.heard.is_empty() && self.unsent.is_empty()
    }
}

impl Speak {
    /// What is said before the client has said anything.
    pub(super) fn greet(&self, talk: &mut Talk) {
        if let Self::Banner(text) = self {
            talk.unsent.extend_from_slice(text);
        }
    }

    /// Appends the answer to `input` to what is to be sent.
    pub(super) fn answer(&self, input: &[u8], talk: &mut Talk) {
        match self {
            Self::Nothing | Self::Banner(_) => {}
            Self::Echo => talk.unsent.extend_from_slice(input),
            Self::Http => http(input, talk),
        }
    }
}

/// Answers each complete request head. Bodies are not told from heads: a body without
/// an empty line in it is taken for the beginning of the next head, and does no harm.
fn http(input: &[u8], talk: &mut Talk) {
    let mut searched = talk.heard.len().saturating_sub(3);
    talk.heard.extend_from_slice(input);
    let mut start = 0;
    while let Some(end) = find(&talk.heard[searched..], b"\r\n\r\n") {
        let end = searched + end + 4;
        let head = &talk.heard[start..end];
        talk.last |= is_last(head);
        talk.unsent.extend_from_slice(if talk.last { LAST_ANSWER } else { ANSWER });
        (start, searched) = (end, end);
        if talk.last {
            break;
        }
    }
    talk.heard.drain(..start);
    if talk.last {
        talk.heard.clear();
    } else if talk.heard.len() > LONGEST_HEAD {
        talk.unsent.extend_from_slice(HEAD_TOO_LONG);
        talk.heard.clear();
        talk.last = true;
    }
}

/// Whether the client wants the connection closed after this request (RFC 9112, 9.3).
fn is_last(head: &[u8]) -> bool {
    let head = head.to_ascii_lowercase();
    let line = find(&head, b"\r\n").map_or(&head[..], |end| &head[..end]);
    let connection = find(&head, b"\r\nconnection:").map_or(&[][..], |at| {
        let value = &head[at + 13..];
        &value[..find(value, b"\r\n").unwrap_or(value.len())]
    });
    if line.ends_with(b" http/1.0") {
        find(connection, b"keep-alive").is_none()
    } else {
        find(connection, b"close").is_some()
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers, and whether the connection ends, to a request sent in these pieces.
    fn http_of(pieces: &[&[u8]]) -> (usize, bool) {
        let mut talk = Talk::default();
        for piece in pieces {
            Speak::Http.answer(piece, &mut talk);
        }
        let answers = talk.unsent.windows(5).filter(|w| w == b"HTTP/").count();
        (answers, talk.last)
    }

    #[test]
    fn each_complete_head_is_answered_once() {
        assert_eq!(http_of(&[b"GET / HTTP/1.1\r\n"]), (0, false));
        assert_eq!(http_of(&[b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]), (1, false));
        assert_eq!(http_of(&[b"GET / HTTP/1.1\r\n\r", b"\n"]), (1, false));
        let two: &[u8] = b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\nGET";
        assert_eq!(http_of(&[two, b" / HTTP/1.1\r\n\r\n"]), (3, false));
    }

    #[test]
    fn the_client_says_when_it_is_the_last() {
        assert_eq!(http_of(&[b"GET / HTTP/1.0\r\n\r\n"]), (1, true));
        let kept: &[u8] = b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n";
        assert_eq!(http_of(&[kept]), (1, false));
        let close: &[u8] = b"GET / HTTP/1.1\r\nconnection: close\r\n\r\nGET / ";
        assert_eq!(http_of(&[close]), (1, true));
    }

    #[test]
    fn a_head_without_end_is_not_collected_for_ever() {
        let endless = vec![b'x'; LONGEST_HEAD + 1];
        let mut talk = Talk::default();
        Speak::Http.answer(&endless, &mut talk);
        assert!(talk.last && talk.heard.is_empty());
        assert!(talk.unsent.starts_with(b"HTTP/1.1 431"));
    }

    #[test]
    fn what_is_finished_is_over() {
        let mut talk = Talk::default();
        Speak::Http.answer(b"GET / HTTP/1.1\r\n\r\n", &mut talk);
        assert!(!talk.is_over());
        talk.unsent.clear();
        assert!(talk.is_over());
    }
}
