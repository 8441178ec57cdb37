//! Fills accept queues to the end.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Socket, Type};

use super::FreezeError;
use crate::host::ProcRoot;
use crate::probe::prepare::four_tuples;
use crate::probe::tuples::{Share, Tuples};
use crate::sockets::target::Endpoint;
use crate::sockets::watch::ListenerWatch;

/// Dials beyond the room of each listener: were one of them admitted, there was more
/// room than was thought. With SO_REUSEPORT the kernel spreads them by a hash, so that
/// one listener of m is missed by 16 m dials with a probability of e^-16.
const EXTRA: usize = 16;
/// At most so many dials before the queue is looked at again.
const BATCH: usize = 512;
/// How long the dials of this host may take: they are answered inside connect(), but
/// where the CPU is taken.
const ANSWERED_WITHIN: Duration = Duration::from_millis(30);
/// So many looks in a row that show no growth are the end.
const IDLE_LOOKS: u32 = 3;

/// How many dials are made beyond the room of so many listeners.
pub(super) fn extra(listeners: usize) -> usize {
    EXTRA * listeners.max(1)
}

/// How the filling ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FillEnd {
    /// Every queue is full, and admits no more.
    Full,
    /// Connections are established but do not queue: the listener waits for a first byte
    /// (TCP_DEFER_ACCEPT).
    Deferred,
    /// Dials are not answered, though there is room: a filter drops them.
    Unanswered,
    /// The time was over: somebody accepts whose process was not found.
    TimeOver,
    /// Somebody else continued the processes, or the watchdog died.
    Continued,
    /// By Ctrl-C.
    Interrupted,
}

/// Makes the connections, and holds them.
#[derive(Debug)]
pub(super) struct Filler {
    endpoint: Endpoint,
    tuples: Option<(Tuples, Share)>,
    open: Vec<Socket>,
    dialed: u64,
}

impl Filler {
    pub(super) fn new(
        endpoint: &Endpoint,
        proc_root: &ProcRoot,
    ) -> Result<Self, FreezeError> {
        let tuples = four_tuples(endpoint, &[], proc_root)?;
        let tuples = tuples.map(|tuples| (tuples, Share::default()));
        Ok(Self { endpoint: endpoint.clone(), tuples, open: Vec::new(), dialed: 0 })
    }

    /// Dials that were made.
    pub(super) fn dialed(&self) -> u64 {
        self.dialed
    }

    /// Dials that were answered.
    pub(super) fn established(&self) -> u64 {
        self.open.len() as u64
    }

    /// Dials until every queue is full and takes no more, or `ended` says why not.
    pub(super) fn fill(
        &mut self,
        watch: &mut ListenerWatch,
        deadline: Instant,
        mut ended: impl FnMut() -> Option<FillEnd>,
    ) -> io::Result<FillEnd> {
        let mut idle = 0;
        loop {
            if let Some(end) = ended() {
                return Ok(end);
            }
            if Instant::now() >= deadline {
                return Ok(FillEnd::TimeOver);
            }
            let before = watch.queue_len();
            let room: u64 = room(watch);
            let extra = extra(watch.listeners().len());
            let batch = usize::try_from(room).unwrap_or(BATCH).clamp(extra, BATCH);
            let established = self.dial(batch)?;
            if watch.look()? == 0 {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            if watch.queue_len() > before {
                idle = 0;
                continue;
            }
            idle += 1;
            if self::room(watch) == 0 {
                if established == 0 {
                    return Ok(FillEnd::Full);
                }
                // Between the two looks somebody made room.
                continue;
            }
            if idle >= IDLE_LOOKS {
                let end =
                    if established > 0 { FillEnd::Deferred } else { FillEnd::Unanswered };
                return Ok(end);
            }
        }
    }

    /// Makes so many dials at once; keeps those that are answered, drops the others.
    fn dial(&mut self, batch: usize) -> io::Result<usize> {
        let mut under_way = Vec::with_capacity(batch);
        let mut established = 0;
        for _ in 0..batch {
            let socket = self.socket()?;
            self.dialed += 1;
            match socket.connect(&self.endpoint.sock_addr()?) {
                Ok(()) => {
                    self.open.push(socket);
                    established += 1;
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINPROGRESS) => under_way.push(socket),
                    // The queue of a unix socket is full (connect(2)).
                    Some(libc::EAGAIN) => break,
                    // The four-tuple is taken: the next one is tried.
                    Some(libc::EADDRNOTAVAIL) => {}
                    _ => return Err(error),
                },
            }
        }
        let deadline = Instant::now() + ANSWERED_WITHIN;
        loop {
            let (answered, waiting) = split(under_way)?;
            established += answered.len();
            self.open.extend(answered);
            if waiting.is_empty() || Instant::now() >= deadline {
                return Ok(established);
            }
            under_way = waiting;
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn socket(&mut self) -> io::Result<Socket> {
        let stream = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(self.endpoint.domain(), stream, None)?;
        // What is closed leaves nothing behind, no TIME_WAIT either.
        if matches!(self.endpoint, Endpoint::Tcp(_)) {
            socket.set_linger(Some(Duration::ZERO))?;
        }
        let Some((tuples, share)) = &mut self.tuples else { return Ok(socket) };
        socket.set_reuse_address(true)?;
        while let Some(tuple) = share.next(tuples) {
            let from = tuples.sources().at(tuple.source, tuple.port);
            match socket.bind(&from.into()) {
                Ok(()) => return Ok(socket),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EADDRINUSE | libc::EADDRNOTAVAIL) => {}
                    // Something forbids explicit binding: the kernel chooses.
                    _ => return Ok(socket),
                },
            }
        }
        Err(io::ErrorKind::AddrNotAvailable.into())
    }
}

fn room(watch: &ListenerWatch) -> u64 {
    let of = |l: &crate::sockets::listeners::Listener| {
        (u64::from(l.backlog) + 1).saturating_sub(u64::from(l.queue_len))
    };
    watch.listeners().iter().map(of).sum()
}

/// Those of the dials that are established, and those that are not answered; one that
/// was refused is neither.
fn split(dials: Vec<Socket>) -> io::Result<(Vec<Socket>, Vec<Socket>)> {
    let mut fds: Vec<PollFd<'_>> =
        dials.iter().map(|dial| PollFd::new(dial, PollFlags::OUT)).collect();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut fds, Some(&now)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let events: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
    let (mut answered, mut waiting) = (Vec::new(), Vec::new());
    for (dial, events) in dials.into_iter().zip(events) {
        match events {
            e if e.intersects(PollFlags::ERR | PollFlags::HUP) => {}
            e if e.contains(PollFlags::OUT) => answered.push(dial),
            _ => waiting.push(dial),
        }
    }
    Ok((answered, waiting))
}
