//! The iterative model: one client is served to its end before the next is accepted.
//! All others wait in the accept queue, and beyond that in SYN_SENT.

use std::io;

use super::admit::Server;
use super::door::{Arrival, Door, converse};
use super::watch::{Note, Notes};

/// Serves one client after another until something goes wrong.
pub(super) fn serve(server: &Server, notes: &Notes) -> io::Result<()> {
    let mut door = Door::new(server, None);
    notes.send(Note::Up);
    loop {
        // Nothing else can arrive: there is no bell, and nobody to evict.
        if let Arrival::Client(conn) = door.next()? {
            converse(&conn, &server.plan.speak, &server.plan.faults);
            drop(conn);
            server.ended();
        }
    }
}
