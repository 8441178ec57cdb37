//! The ends of sockets, gathered while nobody looks at the table.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::changes::End;
use super::model::{Family, Protocol, State, States};
use super::row::{Kind, Row};
use super::select::{Selection, Tables};
use super::source::netlink::ended;
use crate::kernel::sock_diag::{Ends, InetRow};

/// Ends that are kept until they are taken.
const KEPT: usize = 200_000;
/// How long ends gather in the kernel, so that many need not wake anybody one by one.
const GATHER: Duration = Duration::from_millis(10);

/// Hears of the ends of TCP and UDP sockets in a thread of its own, for the kernel keeps
/// them for a short time only.
#[derive(Debug)]
pub struct EndWatch {
    gathered: Arc<Mutex<Gathered>>,
    /// Closed to end the thread.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// What was heard since it was last taken.
#[derive(Debug, Default)]
pub struct Gathered {
    /// In the order in which they were told.
    pub ends: Vec<End>,
    /// Some were not heard: more ended at once than the kernel or this program keeps.
    pub missed: bool,
    /// Why nothing is heard any more.
    pub failed: Option<io::Error>,
}

impl EndWatch {
    /// Gathers what is heard of sockets that are in `selection`'s tables. The thread is
    /// in the calling thread's network namespace, whichever `ends` is of.
    ///
    /// # Errors
    /// What starting a thread gives.
    pub fn start(ends: Ends, selection: &Selection) -> io::Result<Self> {
        let (waiter, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let gathered = Arc::new(Mutex::new(Gathered::default()));
        let (selection, to) = (selection.clone(), Arc::clone(&gathered));
        let thread = thread::Builder::new().name("ends".into()).spawn(move || {
            if let Err(error) = gather(ends, &waiter, &selection, &to) {
                lock(&to).failed = Some(error);
            }
        })?;
        Ok(Self { gathered, stop: Some(stop), thread: Some(thread) })
    }

    /// What was heard since the last time.
    #[must_use]
    pub fn take(&self) -> Gathered {
        std::mem::take(&mut *lock(&self.gathered))
    }
}

impl Drop for EndWatch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, there is nothing left to do for it.
            let _ = thread.join();
        }
    }
}

fn lock(gathered: &Mutex<Gathered>) -> MutexGuard<'_, Gathered> {
    gathered.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Until the other end of `stop` is closed.
fn gather(
    mut ends: Ends,
    stop: &OwnedFd,
    selection: &Selection,
    to: &Mutex<Gathered>,
) -> io::Result<()> {
    let pause = Timespec::try_from(GATHER).ok();
    loop {
        if wait([Some(stop.as_fd()), Some(ends.as_fd())], None)?
            || wait([Some(stop.as_fd()), None], pause.as_ref())?
        {
            return Ok(());
        }
        let at = SystemTime::now();
        let mut new = Vec::new();
        let heard = ends.drain(|row| {
            if is_selected(row, selection) {
                let row = ended(row, selection.details);
                new.push(End { row, at });
            }
        })?;
        let mut gathered = lock(to);
        gathered.missed |= heard.missed;
        let room = KEPT.saturating_sub(gathered.ends.len());
        gathered.missed |= new.len() > room;
        gathered.ends.extend(new.into_iter().take(room));
    }
}

/// Waits for any of them; whether the first is closed at its other end.
fn wait(
    fds: [Option<std::os::fd::BorrowedFd<'_>>; 2],
    pause: Option<&Timespec>,
) -> io::Result<bool> {
    let mut polled: Vec<PollFd<'_>> = fds
        .into_iter()
        .flatten()
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    match poll(&mut polled, pause) {
        Ok(_) => Ok(polled[0].revents().contains(PollFlags::HUP)),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether the table of a socket is selected, and a state of its kind.
fn is_selected(row: &InetRow<'_>, selection: &Selection) -> bool {
    let version = match row.family {
        Family::V4 => selection.versions.v4,
        Family::V6 => selection.versions.v6,
    };
    let table = match row.protocol {
        Protocol::TCP => Tables::TCP,
        Protocol::UDP => Tables::UDP,
        _ => return false,
    };
    // One that was never bound was in no table.
    let was_bound = row.local.port() != 0 || row.remote.port() != 0;
    let connected = States::CONNECTED | States::TIME_WAIT;
    let states = match row.remote.ip().is_unspecified() && row.remote.port() == 0 {
        true => States::LISTEN | States::CLOSE | States::BOUND,
        false => connected,
    };
    let may_be_known = selection.states.has(states);
    version && selection.tables.has(table) && was_bound && may_be_known
}

/// Whether a socket whose end was told, and that no pass saw, is one of what was asked
/// for. A connection of TCP is where every state of a connection is selected: it may else
/// have been there for long, in a state that nobody asked for. A UDP socket ends in the
/// state that it was in.
#[must_use]
pub fn is_new(row: &Row<'_>, selection: &Selection) -> bool {
    let has_peer = row
        .remote
        .inet()
        .is_some_and(|remote| !remote.ip().is_unspecified() || remote.port() != 0);
    let needed = match (row.kind, has_peer) {
        // A request in SYN_RECV has no socket yet.
        (Kind::Tcp, true) => States::CONNECTED - State::SynRecv.into(),
        (Kind::Tcp, false) => States::LISTEN | States::BOUND,
        (_, true) => States::ESTABLISHED,
        (_, false) => States::CLOSE,
    };
    (needed - selection.states).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::select::{Details, Versions};
    use crate::sockets::testing::{connect, listen, loopback, wait_for};

    fn selection(tables: Tables, states: States) -> Selection {
        let details = Details::default();
        Selection { tables, versions: Versions::BOTH, states, details, program: None }
    }

    #[test]
    fn what_ended_is_gathered_while_nobody_asks() {
        let ends = Ends::open().unwrap();
        let asked = selection(Tables::TCP, States::CONNECTED);
        let watch = EndWatch::start(ends, &asked).unwrap();
        let (listener, address) = listen(loopback(), 5);
        let clients = connect(3, address);
        let mut here: Vec<_> = clients.iter().map(|c| c.local_addr().unwrap()).collect();
        drop((clients, listener));
        let mut found = Vec::new();
        wait_for("all are told", || {
            let ends = watch.take().ends.into_iter().map(|end| end.row);
            assert!(found.len() <= 3);
            found.extend(
                ends.filter_map(|row| row.local.inet()).filter(|at| here.contains(at)),
            );
            (found.len() == 3).then_some(())
        });
        here.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, here);
    }

    #[test]
    fn an_end_counts_as_of_a_new_socket_only_where_no_state_was_left_out() {
        let row = |kind, remote: &str| Row {
            local: crate::sockets::row::Address::Inet(([127, 0, 0, 1], 80).into()),
            remote: crate::sockets::row::Address::Inet(remote.parse().unwrap()),
            ..Row::new(kind, State::Close)
        };
        let connection = row(Kind::Tcp, "127.0.0.1:9");
        let with = |states| selection(Tables::ALL, states);
        let connected = States::CONNECTED - State::SynRecv.into();
        assert!(is_new(&connection, &with(connected)));
        assert!(!is_new(&connection, &with(States::ESTABLISHED)));
        assert!(!is_new(&connection, &with(States::LISTEN)));
        // Its port was lost in a reset.
        assert!(is_new(&row(Kind::Tcp, "127.0.0.1:0"), &with(connected)));
        let listener = row(Kind::Tcp, "0.0.0.0:0");
        assert!(!is_new(&listener, &with(States::LISTEN | States::CLOSE)));
        assert!(is_new(&listener, &with(States::ALL)));
        assert!(is_new(&row(Kind::Udp, "0.0.0.0:0"), &with(States::ALL)));
        assert!(is_new(&row(Kind::Udp, "127.0.0.1:9"), &with(States::CONNECTED)));
        assert!(!is_new(&row(Kind::Udp, "0.0.0.0:0"), &with(States::CONNECTED)));
    }
}
