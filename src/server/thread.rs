//! The thread model: a thread for each connection, which may block as it likes.
//!
//! What bounds it, beside descriptors: threads (`ulimit -u`, pids.max of the cgroup,
//! kernel.threads-max, vm.max_map_count at two or three maps a stack) and their stacks.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::event::{EventfdFlags, eventfd};
use socket2::Socket;

use super::admit::Server;
use super::door::{Arrival, Door, converse, silence};
use super::watch::{Note, Notes};

/// Enough for a conversation; the usual 2 MiB are only reserved, but count as virtual
/// memory.
const STACK: usize = 32 * 1024;

/// The connections that are held, by age: the first is the oldest.
struct Held {
    conns: Mutex<BTreeMap<u64, Arc<Socket>>>,
    /// Rung when one ends.
    bell: OwnedFd,
}

impl Held {
    fn conns(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Socket>>> {
        self.conns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the oldest end: its thread reads end of file. It counts no more from now on.
    fn evict_oldest(&self, server: &Server) {
        if let Some((_, oldest)) = self.conns().pop_first() {
            server.ended();
            let _ = oldest.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// Accepts until something goes wrong.
pub(super) fn serve(server: &Arc<Server>, notes: &Notes) -> io::Result<()> {
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let held = Arc::new(Held { conns: Mutex::default(), bell });
    let mut door = Door::new(server, Some(held.bell.as_fd()));
    notes.send(Note::Up);
    for id in 0.. {
        match door.next()? {
            Arrival::Client(conn) => start(id, conn, server, &held),
            Arrival::InPlaceOfOldest(conn) => {
                held.evict_oldest(server);
                start(id, conn, server, &held);
            }
            Arrival::Bell => silence(&held.bell),
        }
    }
    Ok(())
}

fn start(id: u64, conn: Socket, server: &Arc<Server>, held: &Arc<Held>) {
    let conn = Arc::new(conn);
    held.conns().insert(id, Arc::clone(&conn));
    let entry = Entry { id, server: Arc::clone(server), held: Arc::clone(held) };
    let conversation = Conversation { entry, conn, _bell: Bell(Arc::clone(held)) };
    // EAGAIN, at a limit on threads: dropping the conversation closes the connection,
    // as MySQL and many others do. The client sees end of file.
    let _ = thread::Builder::new().name("connection".into()).stack_size(STACK).spawn(
        move || {
            let Conversation { entry, conn, .. } = &conversation;
            let plan = &entry.server.plan;
            converse(conn, &plan.speak, &plan.faults);
        },
    );
}

/// What a connection's thread owns; dropped in this order, so that who hears the bell
/// finds the descriptor free.
struct Conversation {
    entry: Entry,
    conn: Arc<Socket>,
    _bell: Bell,
}

struct Entry {
    id: u64,
    server: Arc<Server>,
    held: Arc<Held>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        // Not there: it was evicted, and counts no more.
        if self.held.conns().remove(&self.id).is_some() {
            self.server.ended();
        }
    }
}

struct Bell(Arc<Held>);

impl Drop for Bell {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.0.bell, &1_u64.to_ne_bytes());
    }
}
