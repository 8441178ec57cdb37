//! What bounds a probe before its first dial: the ceilings of both sides.

use super::plan::Plan;
use super::remote::Remote;
use super::server_view::ServerView;
use super::target::Endpoint;
use super::tuples::Tuples;
use crate::host::ProcRoot;
use crate::host::ceilings::{
    self as host, Bounds, Ceiling, CeilingQuery, END_BYTES, MEMORY, NOFILE_HARD,
    NOFILE_SOFT, NR_OPEN, PAIR_BYTES, PORT_RANGE, Side,
};
use crate::host::process::ProcessView;
use crate::record::Predicted;
use crate::render::bytes;
use crate::sockets::listeners::Listener;

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
            && (c.in_use != Some(0) || c.name != host::CONNTRACK)
    };
    let mut all: Vec<Ceiling> =
        host::ceilings(root, &client).into_iter().filter(counts).collect();
    if let (Some(tuples), Endpoint::Tcp(target)) = (tuples, &plan.endpoint) {
        for ports in all.iter_mut().filter(|c| c.name == host::PORTS_BOUND) {
            let capacity = tuples.sources().capacity(*target);
            (ports.value, ports.room) = (capacity, capacity);
        }
    }
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

/// What the tightest of [`ceilings`] and --max leave; None where there is neither.
#[must_use]
pub fn predict(
    plan: &Plan,
    ceilings: &[Ceiling],
    view: Option<&ServerView>,
) -> Option<Predicted> {
    let tightest = ceilings.iter().min_by_key(|c| c.room).map(|c| {
        let side = match c.side {
            Side::Client => "client",
            Side::Server => "server",
            Side::Either => "either",
            Side::Both => "both",
        };
        (c.room, c.name.clone(), side)
    });
    let asked = plan.max.map(|max| (max, "--max".to_owned(), "client"));
    let (connections, ceiling, side) =
        asked.into_iter().chain(tightest).min_by_key(|(room, ..)| *room)?;
    // Each listener's queue admits one more than its backlog.
    let queue = |listener: &Listener| {
        (u64::from(listener.backlog) + 1).saturating_sub(listener.queue_len.into())
    };
    let listeners = view.map(ServerView::listeners).filter(|all| !all.is_empty());
    let accept_queue = listeners.map(|all| all.iter().map(queue).sum());
    Some(Predicted { connections, ceiling, side: side.to_owned(), accept_queue })
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
    let query = CeilingQuery { side: Side::Server, ..CeilingQuery::default() };
    host::together(root, processes, &query).map(|[soft, _hard]| soft)
}
