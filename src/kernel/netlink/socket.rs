//! A netlink socket that asks the kernel one thing at a time.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt,
};

use super::ahead::read_ahead;
use super::frame::{self, Message, Messages, malformed};

/// What one receive may last.
const PATIENCE: Duration = Duration::from_secs(5);
/// A dump's datagram is never longer than this (`netlink_recvmsg` in
/// net/netlink/af_netlink.c caps it), whatever the buffer.
pub(super) const BUFFER: usize = 32 * 1024;
/// A dump of more datagrams than this is long: some 3,000 TCP sockets. A thread costs
/// 50 µs, and so many datagrams a few ms.
const LONG: u32 = 16;
/// How often a dump that the kernel could not get memory for is set going again.
const RESUMES: u32 = 64;

/// How a dump ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DumpEnd {
    /// Rows delivered.
    pub rows: u64,
    /// The kernel flagged (NLM_F_DUMP_INTR) that the table changed so that rows may be
    /// missing or there twice.
    pub interrupted: bool,
}

/// What an answer is made of, and thereby where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Messages up to NLMSG_DONE.
    Dump,
    /// One message.
    One,
}

/// A netlink socket connected to the kernel, with the buffer of its answers.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    buffer: Box<[u8]>,
    sequence: u32,
    /// An answer that was not read to its end, for a callback panicked or time was up.
    unfinished: Option<u32>,
}

impl Socket {
    /// Opens a socket of one netlink protocol in the calling thread's namespace.
    ///
    /// # Errors
    /// EPROTONOSUPPORT where the kernel lacks the protocol, EMFILE, EPERM or EACCES.
    pub(crate) fn open(protocol: impl Into<Option<Protocol>>) -> io::Result<Self> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol.into(),
        )?;
        // Connected to port 0, it hears the kernel alone.
        rustix::net::connect(&fd, &SocketAddrNetlink::new(0, 0))?;
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(PATIENCE))?;
        let mut socket = Self {
            fd,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            sequence: 0,
            unfinished: None,
        };
        // The kernel makes the first datagram of a dump no longer than the longest
        // receive so far, and at first 3.7 kB. A row that does not fit in an empty
        // datagram (a deep listener with UNIX_DIAG_ICONS) ends the dump without a word.
        let sequence = socket.next_sequence();
        send(&socket.fd, frame::NOOP, frame::REQUEST | frame::ACK, sequence, &[])?;
        socket.receive(sequence, Answer::One, |_| ControlFlow::Continue(()))?;
        Ok(socket)
    }

    /// Asks for a dump and hands out the payload of each message, until `each` breaks.
    ///
    /// # Errors
    /// The kernel's own, with its errno; TimedOut after 5 s without an answer.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        payload: &[u8],
        each: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<DumpEnd> {
        self.exchange(kind, frame::DUMP, payload, Answer::Dump, each)
    }

    /// Asks for one thing and hands out its payload.
    ///
    /// # Errors
    /// The kernel's own, with its errno; TimedOut after 5 s without an answer.
    pub(crate) fn one(
        &mut self,
        kind: u16,
        payload: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<DumpEnd> {
        self.exchange(kind, 0, payload, Answer::One, |payload| {
            each(payload);
            ControlFlow::Continue(())
        })
    }

    /// Asks for something to be done, and waits for the acknowledgement.
    ///
    /// # Errors
    /// As [`Self::one`].
    pub(crate) fn act(&mut self, kind: u16, payload: &[u8]) -> io::Result<()> {
        self.exchange(kind, frame::ACK, payload, Answer::One, |_| {
            ControlFlow::Continue(())
        })?;
        Ok(())
    }

    /// Asks for something to be made that is not there yet, and waits for the
    /// acknowledgement.
    ///
    /// # Errors
    /// As [`Self::one`].
    pub(crate) fn create(&mut self, kind: u16, payload: &[u8]) -> io::Result<()> {
        let flags = frame::ACK | frame::CREATE;
        self.exchange(kind, flags, payload, Answer::One, |_| ControlFlow::Continue(()))?;
        Ok(())
    }

    fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        payload: &[u8],
        answer: Answer,
        each: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<DumpEnd> {
        self.settle()?;
        let sequence = self.next_sequence();
        send(&self.fd, kind, frame::REQUEST | flags, sequence, payload)?;
        self.receive(sequence, answer, each)
    }

    /// Reads what an earlier answer left unread: a dump that still runs would give
    /// EBUSY for the next. Never waits: each receive makes the kernel queue the next
    /// datagram of a running dump, so that an empty queue is its end.
    fn settle(&mut self) -> io::Result<()> {
        let Some(sequence) = self.unfinished else { return Ok(()) };
        let (mut resumes, now) = (u32::MAX, RecvFlags::DONTWAIT);
        while next_datagram(&self.fd, now, sequence, &mut resumes, &mut self.buffer)?
            .is_some()
        {}
        self.unfinished = None;
        Ok(())
    }

    fn receive(
        &mut self,
        sequence: u32,
        answer: Answer,
        mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<DumpEnd> {
        self.unfinished = Some(sequence);
        let mut end = DumpEnd::default();
        let mut take =
            |datagram: &[u8]| take_all(datagram, sequence, answer, &mut end, &mut each);
        let mut resumes = if answer == Answer::Dump { RESUMES } else { 0 };
        let mut datagrams = 0;
        let step = loop {
            datagrams += 1;
            let is_long = answer == Answer::Dump && datagrams == LONG;
            let step = if is_long && has_two_processors() {
                let (fd, flags) = (&self.fd, RecvFlags::TRUNC | RecvFlags::DONTWAIT);
                read_ahead(
                    |buffer| next_datagram(fd, flags, sequence, &mut resumes, buffer),
                    &mut take,
                )?
            } else {
                let (flags, buffer) = (RecvFlags::TRUNC, &mut self.buffer);
                let len = next_datagram(&self.fd, flags, sequence, &mut resumes, buffer)?
                    .ok_or_else(no_answer)?;
                take(self.buffer.get(..len).ok_or_else(malformed)?)?
            };
            if !matches!(step, Step::On) {
                break step;
            }
        };
        if let Step::Last(done) = step {
            self.unfinished = None;
            done?;
        }
        Ok(end)
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }
}

/// Receives the next datagram; None where there is none, with DONTWAIT at once and else
/// after [`PATIENCE`]. Of a running dump each receive makes the kernel queue the next one,
/// so that an empty queue is its end. A dump that stopped is resumed so many times more.
fn next_datagram(
    fd: &OwnedFd,
    flags: RecvFlags,
    sequence: u32,
    resumes: &mut u32,
    buffer: &mut [u8],
) -> io::Result<Option<usize>> {
    loop {
        match rustix::net::recv(fd, &mut *buffer, flags) {
            Ok((_, len)) => return Ok(Some(len)),
            Err(Errno::INTR) => {}
            Err(Errno::NOBUFS) if *resumes > 0 => {
                *resumes -= 1;
                resume(fd, sequence)?;
            }
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Sets a dump going again that stopped because the kernel had no memory for its
/// next datagram (ENOBUFS). It lost no rows: it goes on when a datagram is read,
/// and the answer to this one is such.
fn resume(fd: &OwnedFd, sequence: u32) -> io::Result<()> {
    std::thread::sleep(Duration::from_millis(1));
    send(fd, frame::NOOP, frame::REQUEST | frame::ACK, sequence, &[])
}

fn send(
    fd: &OwnedFd,
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &[u8],
) -> io::Result<()> {
    let message = frame::message(kind, flags, sequence, payload);
    loop {
        match rustix::net::send(fd, &message, SendFlags::empty()) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// What a message of an answer means for the reading of it.
#[derive(Debug)]
pub(super) enum Step {
    /// More is to come.
    On,
    /// Its reader has seen enough; the rest is unread.
    Stop,
    /// It was the last, perhaps with an error.
    Last(io::Result<()>),
}

/// Takes in the messages of one datagram, up to the one that is the last.
fn take_all(
    datagram: &[u8],
    sequence: u32,
    answer: Answer,
    end: &mut DumpEnd,
    each: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<Step> {
    for message in Messages::of(datagram) {
        let message = message?;
        if message.sequence == sequence {
            let step = take(&message, answer, end, each);
            if !matches!(step, Step::On) {
                return Ok(step);
            }
        }
    }
    Ok(Step::On)
}

fn has_two_processors() -> bool {
    std::thread::available_parallelism().is_ok_and(|n| n.get() > 1)
}

/// Takes in one message of an answer.
fn take(
    message: &Message<'_>,
    answer: Answer,
    end: &mut DumpEnd,
    each: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Step {
    end.interrupted |= message.flags & frame::DUMP_INTERRUPTED != 0;
    match (message.kind, message.errno()) {
        (frame::DONE, 0) => Step::Last(Ok(())),
        // An acknowledgement ends an answer of one, and within a dump it is the echo of
        // `resume`.
        (frame::ERROR, 0) if answer == Answer::One => Step::Last(Ok(())),
        (frame::ERROR, 0) | (frame::NOOP, _) => Step::On,
        (frame::DONE | frame::ERROR, errno) => {
            Step::Last(Err(io::Error::from_raw_os_error(errno)))
        }
        _ => {
            end.rows += 1;
            match (each(message.payload), answer) {
                (_, Answer::One) => Step::Last(Ok(())),
                (ControlFlow::Continue(()), Answer::Dump) => Step::On,
                (ControlFlow::Break(()), Answer::Dump) => Step::Stop,
            }
        }
    }
}

fn no_answer() -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("the kernel did not answer over netlink for {} s", PATIENCE.as_secs()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Message<'_> {
        Message { kind, flags, sequence: 1, payload }
    }

    fn last(message: &Message<'_>, answer: Answer) -> (Option<Option<i32>>, DumpEnd) {
        let mut end = DumpEnd::default();
        let done =
            match take(message, answer, &mut end, &mut |_| ControlFlow::Continue(())) {
                Step::Last(done) => Some(done),
                Step::On | Step::Stop => None,
            };
        (done.map(|done| done.err().and_then(|e| e.raw_os_error())), end)
    }

    #[test]
    fn a_dump_that_fails_at_its_end_is_an_error() {
        // As inet_diag answers where a protocol's module is missing: no NLMSG_ERROR,
        // but an errno in NLMSG_DONE.
        let code = (-libc::ENOENT).to_ne_bytes();
        let (done, _) = last(&message(frame::DONE, 2, &code), Answer::Dump);
        assert_eq!(done, Some(Some(libc::ENOENT)));
    }

    #[test]
    fn the_echo_of_a_resumed_dump_is_neither_a_row_nor_its_end() {
        let (done, end) = last(&message(frame::ERROR, 0, &[0; 20]), Answer::Dump);
        assert_eq!((done, end.rows), (None, 0));
    }

    #[test]
    fn an_interrupted_dump_says_so() {
        let (_, end) =
            last(&message(20, frame::DUMP_INTERRUPTED, &[0; 72]), Answer::Dump);
        assert_eq!(end, DumpEnd { rows: 1, interrupted: true });
    }
}
