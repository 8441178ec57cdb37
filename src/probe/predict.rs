//! What bounds a probe before its first dial: the ceilings of both sides.

use super::plan::Plan;
use super::remote::Remote;
use super::server_view::ServerView;
use super::tuples::Tuples;
use crate::host::ProcRoot;
use crate::host::ceilings::{
    self as host, Bounds, Ceiling, CeilingQuery, END_BYTES, MEMORY, NOFILE_HARD,
    NOFILE_SOFT, NR_OPEN, PAIR_BYTES, PORT_RANGE, Side,
};
use crate::host::process::ProcessView;
use crate::render::bytes;

/// fd tables that are counted with where their number is free: as many as threads that
/// any host can have (kernel.pid_max is at most 2^22; proc(5)).
const TABLES_AUTO: u64 = 1 << 22;

/// The ceilings on what `plan` can hold, the tightest first; those on the accept queue
/// are left out.
#[must_use]
pub fn ceilings(
    plan: &Plan,
    tuples: Option<&Tuples>,
    view: Option<&ServerView>,
    root: &ProcRoot,
) -> Vec<Ceiling> {
    let sources = tuples.map_or(0, |t| t.sources().len() as u64);
    let client = CeilingQuery {
        side: Side::Client,
        fd_tables: plan.fd_tables.map_or(TABLES_AUTO, |n| n as u64),
        loopback: view.is_some(),
        sources,
        ..CeilingQuery::default()
    };
    // Ports are bound by the program, so that the range does not count; a unix socket
    // takes none, and what the tables may become is a matter of --fd-tables.
    let counts = |c: &Ceiling| {
        c.bounds == Bounds::Connections
            && ![NR_OPEN, NOFILE_HARD, PORT_RANGE].contains(&c.name.as_str())
            && (tuples.is_some() || c.name != host::PORTS_BOUND)
            && (plan.fd_tables.is_some() || c.name != NOFILE_SOFT)
            // The module is loaded, but no rule of this namespace asks it to track.
            && (c.in_use > 0 || c.name != host::CONNTRACK)
    };
    let mut all: Vec<Ceiling> =
        host::ceilings(root, &client).into_iter().filter(counts).collect();
    if let Some(memory) = all.iter_mut().find(|c| c.name == MEMORY) {
        // Dialing ends before the last of it is taken.
        let each = if client.loopback { PAIR_BYTES } else { END_BYTES };
        memory.room = memory.room.saturating_sub(plan.memory_floor_bytes / each);
        let floor = bytes(plan.memory_floor_bytes);
        memory.source = format!("{}; {floor} are left", memory.source);
    }
    all.extend(view.and_then(|view| descriptors_of(view.processes(), root)));
    all.sort_by_key(|c| c.room);
    all
}

/// Adds the ceiling of the server's process, as the evidence command tells it.
pub(super) fn add_remote(all: &mut Vec<Ceiling>, remote: &Remote, root: &ProcRoot) {
    all.extend(descriptors_of(remote.processes().into_iter(), root).map(|ceiling| {
        let source = format!("{} on the server's host", ceiling.source);
        Ceiling { source, ..ceiling }
    }));
    all.sort_by_key(|c| c.room);
}

/// RLIMIT_NOFILE of all fd tables that hold the listener, together.
fn descriptors_of(
    processes: impl Iterator<Item = ProcessView>,
    root: &ProcRoot,
) -> Option<Ceiling> {
    let mut together: Option<Ceiling> = None;
    for process in processes {
        let query = CeilingQuery {
            process: Some(&process),
            side: Side::Server,
            ..CeilingQuery::default()
        };
        let soft =
            host::ceilings(root, &query).into_iter().find(|c| c.name == NOFILE_SOFT)?;
        together = Some(match together {
            None => soft,
            Some(sum) => Ceiling {
                value: sum.value.saturating_add(soft.value),
                in_use: sum.in_use + soft.in_use,
                room: sum.room.saturating_add(soft.room),
                ..sum
            },
        });
    }
    together
}
