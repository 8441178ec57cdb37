//! A line of JSON for each event.

use std::io::{self, BufWriter, Stdout, Write};

use super::Pass;
use super::place::Place;
use crate::record::Timestamp;
use crate::render::document::ndjson;
use crate::sockets::changes::{Change, Socket};
use crate::sockets::show::Shown;
use crate::sockets::show::document::SocketDoc;
use crate::sockets::show::document::event::{EventDoc, Happened, MissedDoc, WasDoc};

/// Prints events to stdout.
pub(super) struct Events {
    out: BufWriter<Stdout>,
}

impl Default for Events {
    fn default() -> Self {
        Self { out: BufWriter::with_capacity(64 << 10, io::stdout()) }
    }
}

impl Events {
    /// Prints what a pass found: all of it, or nothing where nobody reads any more.
    pub(super) fn print(&mut self, pass: &Pass<'_>) -> io::Result<()> {
        for place in pass.places {
            if place.has_missed() {
                ndjson(&mut self.out, &MissedDoc::at(pass.at))?;
            }
            for change in &place.changes {
                self.change(pass, place, change)?;
            }
        }
        self.out.flush()
    }

    fn change(
        &mut self,
        pass: &Pass<'_>,
        place: &Place,
        change: &Change,
    ) -> io::Result<()> {
        let (socket, at) = match change {
            Change::Opened(key) | Change::Changed(key, _) => {
                (place.snapshot.get(key), pass.at)
            }
            Change::Closed(closed) => {
                (Some(&closed.socket), closed.at.map_or(pass.at, Timestamp::from))
            }
        };
        // There is one for each key of a change.
        let Some(socket) = socket else { return Ok(()) };
        let context = place.context(pass.plan, pass.names);
        let listed = socket.listed();
        let socket = doc(pass, &Shown { listed: &listed, context: &context });
        let (event, old) = match change {
            Change::Opened(_) if place.is_first() => (Happened::Present, None),
            Change::Opened(_) => (Happened::Opened, None),
            Change::Changed(_, old) => (Happened::Changed, Some(old)),
            Change::Closed(_) => (Happened::Closed, None),
        };
        let old = old.map(|old| Socket::listed(old));
        let was = old.as_ref().map(|listed| {
            let old = doc(pass, &Shown { listed, context: &context });
            WasDoc::of(old, &socket)
        });
        ndjson(&mut self.out, &EventDoc { event, at, was, socket })
    }
}

fn doc<'a>(pass: &Pass<'_>, shown: &Shown<'a>) -> SocketDoc<'a> {
    SocketDoc::of(shown, pass.plan.groups)
}
