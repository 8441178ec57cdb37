//! What changed between two passes over the sockets of one network namespace.
//!
//! A socket is the same one as long as its cookie is. Where a source has no cookies, a
//! connection of TCP is known by its addresses, any other socket by its kind, addresses
//! and inode.

mod told;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::time::SystemTime;

use self::told::Told;
use super::listing::{Listed, NoOwner};
use super::model::{Cookie, Inode, Owner, State};
use super::row::{Address, Kind, Row};
use super::source::Again;
use crate::kernel::sock_diag::TimerKind;

/// A socket as a pass found it, kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// The socket.
    pub row: Row<'static>,
    /// Every descriptor of it that was looked for and found.
    pub owners: Box<[Owner]>,
    /// Why it has none.
    pub no_owner: Option<NoOwner>,
}

impl Socket {
    fn of(listed: &Listed<'_>) -> Self {
        let (owners, no_owner) = (listed.owners.into(), listed.no_owner);
        Self { row: listed.row.clone().into_owned(), owners, no_owner }
    }

    /// As it was handed out.
    #[must_use]
    pub fn listed(&self) -> Listed<'_> {
        Listed { row: &self.row, owners: &self.owners, no_owner: self.no_owner }
    }

    /// Whether anything differs that makes a [`Change::Changed`]: what its timers and
    /// counters do all the time does not.
    fn differs(&self, now: &Listed<'_>) -> bool {
        let (old, new) = (&self.row, now.row);
        old.state != new.state
            || old.local != new.local
            || old.remote != new.remote
            || old.recv_q != new.recv_q
            || old.send_q != new.send_q
            || old.drops != new.drops
            || old.inode != new.inode
            || self.no_owner != now.no_owner
            || *self.owners != *now.owners
    }
}

/// What tells a socket from every other of its namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// The kernel's own.
    Cookie(Cookie),
    /// What a source without cookies has.
    Plain(Box<Plain>),
}

/// A socket without a cookie.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Plain {
    kind: Kind,
    local: Address<'static>,
    remote: Address<'static>,
    /// None of a connection of TCP, which gets one only when it is accepted, and loses
    /// it when it is closed.
    inode: Option<Inode>,
}

impl Key {
    fn of(row: &Row<'_>) -> Self {
        if let Some(cookie) = row.cookie {
            return Self::Cookie(cookie);
        }
        let connection = row.kind.has_accept_queue()
            && row.remote.inet().is_some_and(|remote| remote.port() != 0);
        Self::Plain(Box::new(Plain {
            kind: row.kind,
            local: row.local.clone().into_owned(),
            remote: row.remote.clone().into_owned(),
            inode: (!connection).then_some(row.inode),
        }))
    }
}

/// The end of a socket as the kernel told it ([`crate::kernel::sock_diag::Ends`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// What is known of it.
    pub row: Row<'static>,
    /// When this was heard.
    pub at: SystemTime,
}

/// One difference between two passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A socket that was not there in the pass before.
    Opened(Key),
    /// One that is not as it was, and how it was.
    Changed(Key, Box<Socket>),
    /// One that is there no more, as it was last.
    Closed(Box<Closed>),
}

/// A socket that is there no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// As it was last.
    pub socket: Socket,
    /// When the kernel told its end; None where only the pass found it missing.
    pub at: Option<SystemTime>,
    /// False where no pass saw it: it opened and closed between two of them.
    pub was_seen: bool,
}

/// The sockets of one network namespace as the last pass found them.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Boxed, for a table that grows has far more places than sockets.
    sockets: HashMap<Key, Box<Known>>,
    pass: u32,
    told: Told,
}

#[derive(Debug)]
struct Known {
    socket: Socket,
    /// The last pass that had it.
    pass: u32,
    /// The last pass did not have it, and it could not be looked up.
    is_missing: bool,
    /// Its end was told already: what is left is its TIME_WAIT.
    has_ended: bool,
}

impl Snapshot {
    /// Begins a pass.
    pub fn pass(&mut self) -> Pass<'_> {
        self.pass = self.pass.wrapping_add(1);
        Pass { snapshot: self, closed: Vec::new(), changes: Vec::new() }
    }

    /// How many sockets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// A socket of a [`Change`].
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Socket> {
        self.sockets.get(key).map(|known| &known.socket)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Socket)> {
        self.sockets.iter().map(|(key, known)| (key, &known.socket))
    }
}

/// A pass that goes on.
#[derive(Debug)]
pub struct Pass<'a> {
    snapshot: &'a mut Snapshot,
    closed: Vec<Closed>,
    /// Opened and changed ones, in the order of the rows.
    changes: Vec<Change>,
}

impl Pass<'_> {
    /// Takes in a socket of this pass. One that comes twice counts once.
    pub fn row(&mut self, listed: &Listed<'_>) {
        let (key, pass) = (Key::of(listed.row), self.snapshot.pass);
        let mut entry = match self.snapshot.sockets.entry(key) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => {
                self.changes.push(Change::Opened(entry.key().clone()));
                entry.insert(Box::new(Known::of(listed, pass)));
                return;
            }
        };
        let known = entry.get_mut();
        if known.pass == pass {
            return;
        }
        if known.is_another(listed.row) {
            let old = std::mem::replace(&mut **known, Known::of(listed, pass));
            self.closed.push(old.closed(None));
            self.changes.push(Change::Opened(entry.key().clone()));
            return;
        }
        known.pass = pass;
        known.is_missing = false;
        if let Some(old) = known.update(listed) {
            self.changes.push(Change::Changed(entry.key().clone(), Box::new(old)));
        }
    }

    /// Ends the pass. `ends` are those that were told before it began, `again` looks at
    /// one socket that it did not have, and `counts` says of a socket that no pass saw
    /// whether its end is one of what is watched.
    ///
    /// Gives what changed: first what closed, by time, then the rest in the order of the
    /// rows. Applied to the sockets of the pass before they give those of this one.
    pub fn finish(
        mut self,
        ends: Vec<End>,
        again: &mut dyn FnMut(&Row<'_>) -> Again,
        counts: &dyn Fn(&Row<'_>) -> bool,
    ) -> Vec<Change> {
        let (of_known, unseen) = self.sort(ends);
        self.settle_missing(of_known, again);
        let unseen = self.without_time_wait(unseen);
        self.closed.extend(unseen.into_iter().filter(|end| counts(&end.row)).map(
            |end| {
                let no_owner = Some(NoOwner::Closed);
                let socket = Socket { row: end.row, owners: Box::default(), no_owner };
                Closed { socket, at: Some(end.at), was_seen: false }
            },
        ));
        let now = SystemTime::now();
        self.closed.sort_by_key(|closed| closed.at.unwrap_or(now));
        let closed = self.closed.into_iter().map(|one| Change::Closed(Box::new(one)));
        closed.chain(self.changes).collect()
    }

    /// The ends of sockets that are known, and of those that no pass saw.
    fn sort(&mut self, ends: Vec<End>) -> (HashMap<Key, End>, Vec<End>) {
        let Snapshot { sockets, told, .. } = &mut *self.snapshot;
        let (mut of_known, mut unseen) = (HashMap::new(), Vec::new());
        for end in ends {
            let key = Key::of(&end.row);
            if let Some(known) = sockets.get_mut(&key) {
                known.has_ended = true;
                of_known.insert(key, end);
            } else if !end.row.cookie.is_some_and(|cookie| told.remove(cookie)) {
                unseen.push(end);
            }
        }
        (of_known, unseen)
    }

    /// Looks again at what this pass did not have, and closes what is gone.
    fn settle_missing(
        &mut self,
        mut ends: HashMap<Key, End>,
        again: &mut dyn FnMut(&Row<'_>) -> Again,
    ) {
        let Snapshot { sockets, pass, told } = &mut *self.snapshot;
        let changes = &mut self.changes;
        let missing = |key: &Key, known: &mut Box<Known>| {
            if known.pass == *pass {
                return false;
            }
            let has_ended = ends.contains_key(key);
            // What is left of a connection has to be looked for; of UDP there is nothing.
            let found = match known.socket.row.kind {
                Kind::Udp if has_ended => Again::Gone,
                _ => again(&known.socket.row),
            };
            match found {
                Again::Here(row) => {
                    let owners = known.socket.owners.clone();
                    let no_owner = known.socket.no_owner;
                    let now = Listed { row: &row, owners: &owners, no_owner };
                    if let Some(old) = known.update(&now) {
                        changes.push(Change::Changed(key.clone(), Box::new(old)));
                    }
                    known.is_missing = false;
                }
                // A table that changes while it is read may leave out a row, hardly
                // ever the same one twice.
                Again::Untold if !known.is_missing && !has_ended => {
                    known.is_missing = true;
                }
                Again::Left | Again::Gone | Again::Untold => return true,
            }
            known.pass = *pass;
            false
        };
        let gone: Vec<(Key, Box<Known>)> = sockets.extract_if(missing).collect();
        for (key, known) in gone {
            let end = ends.remove(&key);
            if let Some(cookie) = known.socket.row.cookie
                && end.is_none()
                && known.end_is_to_come()
            {
                told.insert(cookie);
            }
            self.closed.push(known.closed(end));
        }
    }

    /// Leaves out the ends of connections that are in TIME_WAIT, and thereby rows: one
    /// that no pass saw before has another cookie there (inet_twsk_alloc copies what
    /// sock_diag had not yet asked for).
    fn without_time_wait(&self, mut ends: Vec<End>) -> Vec<End> {
        if ends.is_empty() {
            return ends;
        }
        let pair = |row: &Row<'_>| Some((row.local.inet()?, row.remote.inet()?));
        let mut waiting: HashMap<(SocketAddr, SocketAddr), u32> = HashMap::new();
        let rows = self.snapshot.sockets.values().map(|known| &known.socket.row);
        for addresses in rows.filter(|row| is_time_wait(row)).filter_map(pair) {
            *waiting.entry(addresses).or_default() += 1;
        }
        // The latest of the same addresses is the one that left the row.
        ends.reverse();
        ends.retain(|end| {
            let tcp = Some(&end.row).filter(|row| row.kind == Kind::Tcp);
            match tcp.and_then(pair).and_then(|pair| waiting.get_mut(&pair)) {
                Some(rows) if *rows > 0 => {
                    *rows -= 1;
                    false
                }
                _ => true,
            }
        });
        ends.reverse();
        ends
    }
}

impl Known {
    fn of(listed: &Listed<'_>, pass: u32) -> Self {
        let socket = Socket::of(listed);
        Self { socket, pass, is_missing: false, has_ended: false }
    }

    /// Whether a row with the same key is of a socket that took the place of this one.
    fn is_another(&self, row: &Row<'_>) -> bool {
        let (old, new) = (self.socket.row.inode, row.inode);
        old.exists() && new.exists() && old != new
    }

    /// Takes in how it is now; gives how it was where that makes a change.
    fn update(&mut self, now: &Listed<'_>) -> Option<Socket> {
        if self.socket.differs(now) {
            return Some(std::mem::replace(&mut self.socket, Socket::of(now)));
        }
        if self.socket.row != *now.row {
            self.socket.row = now.row.clone().into_owned();
        }
        None
    }

    /// Whether the kernel will still tell the end of a socket that a pass found missing:
    /// a connection that was reset is freed only when its last descriptor is closed.
    fn end_is_to_come(&self) -> bool {
        let row = &self.socket.row;
        let is_told = matches!(row.kind, Kind::Tcp | Kind::Udp);
        let is_sock = row.state != State::SynRecv && !is_time_wait(row);
        is_told && is_sock && !self.has_ended
    }

    fn closed(self, end: Option<End>) -> Closed {
        let Self { mut socket, .. } = self;
        let at = end.as_ref().map(|end| end.at);
        // What it sent and received in all is known only now.
        if let Some(last) = end.and_then(|end| end.row.extra?.tcp_info)
            && let Some(extra) = socket.row.extra.as_deref_mut()
            && extra.tcp_info.is_some()
        {
            extra.tcp_info = Some(last);
        }
        Closed { socket, at, was_seen: true }
    }
}

/// Whether a row is what is left of a connection: TIME_WAIT, or a FIN_WAIT2 that the
/// kernel keeps in the same way.
fn is_time_wait(row: &Row<'_>) -> bool {
    let waits = row.timer.is_some_and(|timer| timer.kind == TimerKind::TimeWait);
    row.state == State::TimeWait || (row.state == State::FinWait2 && waits)
}

#[cfg(test)]
mod tests;
