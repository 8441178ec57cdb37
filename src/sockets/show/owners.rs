//! Whose a socket is, in a word or two.

use std::fmt::Write;

use super::Shown;
use super::address::decimal;
use crate::render::count;
use crate::sockets::listing::NoOwner;
use crate::sockets::model::{Owner, State};

/// Appends `node[4711] fd 18`, `api[5120] thread 5123 fd 4`, `nginx[900] fd 6, 4 more`;
/// without an owner, why: `not permitted (uid 104)`, `queued: not accepted yet`.
pub fn write(to: &mut String, shown: &Shown<'_>) {
    let listed = shown.listed;
    if let Some(owner) = listed.owners.first() {
        write_one(to, owner);
        if listed.owners.len() > 1 {
            let _ = write!(to, ", {} more", listed.owners.len() - 1);
        }
        return;
    }
    match listed.no_owner {
        None => {}
        Some(NoOwner::Queued) => to.push_str("queued: not accepted yet"),
        Some(NoOwner::NotPermitted) => {
            to.push_str("not permitted");
            if let Some(uid) = listed.row.uid {
                let _ = write!(to, " (uid {uid})");
            }
        }
        Some(other) => to.push_str(other.name()),
    }
}

/// Appends every owner, apart by commas.
pub fn write_all(to: &mut String, shown: &Shown<'_>) {
    if shown.listed.owners.is_empty() {
        return write(to, shown);
    }
    for (place, owner) in shown.listed.owners.iter().enumerate() {
        if place > 0 {
            to.push_str(", ");
        }
        write_one(to, owner);
    }
}

/// Appends one owner: `node[4711] fd 18`.
pub fn write_one(to: &mut String, owner: &Owner) {
    match std::str::from_utf8(owner.comm.as_bytes()) {
        Ok(plain) if plain.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') => {
            to.push_str(plain);
        }
        _ => drop(write!(to, "{}", owner.comm)),
    }
    to.push('[');
    decimal(to, owner.pid);
    to.push(']');
    if owner.tid != owner.pid {
        to.push_str(" thread ");
        decimal(to, owner.tid);
    }
    to.push_str(" fd ");
    decimal(to, owner.fd);
}

/// Appends what is to be noticed of a listener: `FULL, 3,631 drops`, `82% full`.
pub fn write_note(to: &mut String, shown: &Shown<'_>) {
    /// From here on a queue is marked, in percent of what it admits.
    const MARKED: u64 = 80;
    let row = shown.listed.row;
    let (State::Listen, true) = (row.state, row.kind.has_accept_queue()) else { return };
    let before = to.len();
    if let Some(backlog) = row.send_q {
        let (queue, admits) = (u64::from(row.recv_q), u64::from(backlog) + 1);
        match queue * 100 / admits {
            _ if queue >= admits => to.push_str("FULL"),
            percent if percent >= MARKED => drop(write!(to, "{percent}% full")),
            _ => {}
        }
    }
    if let Some(drops) = row.drops.filter(|&drops| drops > 0) {
        if to.len() > before {
            to.push_str(", ");
        }
        let plural = if drops == 1 { "" } else { "s" };
        let _ = write!(to, "{} drop{plural}", count(drops.into()));
    }
}
