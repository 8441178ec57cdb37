//! The event model over several fd tables. RLIMIT_NOFILE bounds a table, so a thread
//! with a table of its own holds as many connections again, without any privilege.
//!
//! One table accepts at a time. The main thread hands the turn on when it is full: to
//! one that has room again, or else to a new one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use rustix::event::{EventfdFlags, eventfd};

use super::serve;
use crate::kernel::fd_table::OwnTable;
use crate::server::admit::Server;
use crate::server::watch::{Note, Notes, TableNote};

/// What tells one table's thread that it is to accept.
#[derive(Debug)]
pub(in crate::server) struct Turn {
    pub(super) table: usize,
    given: OwnedFd,
}

impl Turn {
    fn give(&self) {
        // Fails only where the counter is full: then it is given already.
        let _ = rustix::io::write(&self.given, &1_u64.to_ne_bytes());
    }

    pub(super) fn taken(&self) {
        let _ = rustix::io::read(&self.given, &mut [0; 8]);
    }
}

impl AsFd for Turn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.given.as_fd()
    }
}

/// The tables, as the main thread knows them.
#[derive(Debug)]
pub(in crate::server) struct Tables {
    server: Arc<Server>,
    notes: Notes,
    at_most: Option<usize>,
    /// Kept for ever: a table's thread must not be the last to drop its own, which has
    /// a number of the main thread's table as well.
    turns: Vec<Arc<Turn>>,
    with_room: Vec<usize>,
    /// Whether some table has the turn.
    given: bool,
}

impl Tables {
    pub(in crate::server) fn start(
        server: &Arc<Server>,
        notes: &Notes,
        at_most: Option<usize>,
    ) -> io::Result<Self> {
        let mut tables = Self {
            server: Arc::clone(server),
            notes: notes.clone(),
            at_most,
            turns: Vec::new(),
            with_room: Vec::new(),
            given: false,
        };
        tables.add()?;
        Ok(tables)
    }

    /// Does what a table's report asks for.
    pub(in crate::server) fn heard(&mut self, table: usize, note: TableNote) {
        match note {
            TableNote::Full => self.given = false,
            TableNote::Room => self.with_room.push(table),
            TableNote::Unmade => {
                self.given = false;
                self.at_most = Some(0);
            }
        }
        if self.given {
            return;
        }
        if let Some(table) = self.with_room.pop() {
            self.turns[table].give();
            self.given = true;
        } else if self.at_most.is_none_or(|most| self.turns.len() < most)
            && self.add().is_err()
        {
            // Memory or threads are used up: these are all.
            self.at_most = Some(0);
        }
    }

    /// Starts a thread with a table of its own, and gives it the turn.
    fn add(&mut self) -> io::Result<()> {
        let given = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let turn = Arc::new(Turn { table: self.turns.len(), given });
        turn.give();
        let (server, notes) = (Arc::clone(&self.server), self.notes.clone());
        let its = Arc::clone(&turn);
        thread::Builder::new()
            .name(format!("table {}", turn.table))
            .stack_size(256 * 1024)
            .spawn(move || hold(&server, &notes, &its))?;
        self.turns.push(turn);
        self.given = true;
        Ok(())
    }
}

fn hold(server: &Server, notes: &Notes, turn: &Turn) {
    let mut keep = vec![turn.as_fd(), notes.as_fd()];
    keep.extend(server.listeners.iter().map(AsFd::as_fd));
    let done = match OwnTable::unshare(&keep) {
        Ok(_own) => serve(server, notes, Some(turn)),
        Err(_) if turn.table > 0 => {
            return notes.send(Note::Table(turn.table, TableNote::Unmade));
        }
        Err(error) => Err(error),
    };
    if let Err(error) = done {
        notes.send(Note::Failed(error));
    }
}
