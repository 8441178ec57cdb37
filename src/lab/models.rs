//! What each way to serve many clients at once takes.

use std::collections::{BTreeMap, HashMap};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::bench::Bench;
use super::clients::{affordable, connect};
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::moment;
use crate::host::ProcRoot;
use crate::host::process::open_fds;
use crate::host::text::{field, field_bytes};
use crate::render::count;
use crate::server::child::Child;
use crate::sockets::model::State;
use crate::sockets::select::Tables;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 16,
    id: "models",
    claim: "One thread for each connection, or one process for each, is how a server \
            serves.",
    trial: "Four echo servers, one of each model: one client after the other (iterative), \
            a process for each (fork), a thread for each, and one thread that waits for \
            all of them at once (event). The same number of clients connects to each, \
            asks, and stays: how many have an answer, and what the server took for it.",
    run,
};

const MODELS: [&str; 4] = ["event", "fork", "iterative", "thread"];
/// Clients of each server.
const CLIENTS: usize = 220;
/// Where no answer came for so long, none is waited for any more.
const QUIET: Duration = Duration::from_millis(700);

/// What was seen.
#[derive(Debug, Clone, Serialize)]
struct Seen {
    /// Clients of each server, all connected at once.
    clients: usize,
    /// What it had served while all stayed.
    models: BTreeMap<&'static str, Served>,
}

/// What a server took.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Served {
    /// Clients that had an answer.
    served: usize,
    /// Threads and processes more than before they came.
    tasks_more: u64,
    /// Descriptors more, in all its processes.
    descriptors_more: u64,
    /// Memory more for each client served: its own share (Pss) and page tables. None
    /// where too few were served to tell.
    memory_bytes_each: Option<u64>,
    /// Clients connected and answered in a second; none where too few were.
    rate_per_s: Option<u64>,
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    let (clients, fewer) = affordable(CLIENTS * MODELS.len(), 1);
    let clients = clients / MODELS.len();
    let mut seen = Seen { clients, models: BTreeMap::new() };
    // They stay until the table has been read.
    let (mut servers, mut connections) = (Vec::new(), Vec::new());
    for model in MODELS {
        let server = bench.serve(&["--model", model, "--speak", "echo"])?;
        let (served, held) = try_model(bench, &server, clients)?;
        seen.models.insert(model, served);
        servers.push(server);
        connections.push(held);
    }
    let at: Vec<_> = servers.iter().map(Child::tcp).collect();
    let table = moment("all are connected", Tables::TCP, |row| {
        row.state == State::Listen && at.contains(&row.local.inet())
    })
    .step("reading the socket table")?;
    Ok(Outcome::of(&seen, judge(&seen)).with([table]).without(fewer))
}

fn try_model(
    bench: &Bench<'_>,
    server: &Child,
    clients: usize,
) -> Result<(Served, Vec<TcpStream>), Unable> {
    let at = server.tcp().ok_or(ErrorKind::AddrNotAvailable).step("its address")?;
    let before = taken(server.pid());
    let began = Instant::now();
    let mut held = connect(at, clients)?;
    for client in &mut held {
        client.write_all(b"?").step("asking")?;
        client.set_nonblocking(true).step("setting O_NONBLOCK")?;
    }
    let (mut answered, mut last) = (vec![false; clients], began);
    bench.wait(Duration::from_secs(10), || {
        for (client, answered) in held.iter_mut().zip(&mut answered) {
            if !*answered && client.read(&mut [0]).is_ok_and(|n| n > 0) {
                (*answered, last) = (true, Instant::now());
            }
        }
        let all = answered.iter().all(|&answered| answered);
        Ok((all || last.elapsed() > QUIET).then_some(()))
    })?;
    let served = answered.iter().filter(|&&answered| answered).count();
    let after = taken(server.pid());
    let seconds = (last - began).as_secs_f64().max(1e-6);
    let memory = after.memory_bytes.saturating_sub(before.memory_bytes);
    let is_enough = served > clients / 2;
    let served = Served {
        served,
        tasks_more: after.tasks.saturating_sub(before.tasks),
        descriptors_more: after.descriptors.saturating_sub(before.descriptors),
        memory_bytes_each: is_enough.then(|| memory / served as u64),
        rate_per_s: is_enough.then(|| (served as f64 / seconds) as u64),
    };
    Ok((served, held))
}

/// What a server and its children have.
#[derive(Debug, Default)]
struct Taken {
    tasks: u64,
    descriptors: u64,
    memory_bytes: u64,
}

/// A process that has gone meanwhile counts nothing.
fn taken(server: u32) -> Taken {
    let root = ProcRoot::new("/proc");
    let mut all = Taken::default();
    for pid in family(&root, server) {
        let status = root.read(&format!("{pid}/status")).unwrap_or_default();
        let shares = root.read(&format!("{pid}/smaps_rollup")).unwrap_or_default();
        let threads = field(&status, "Threads").and_then(|n| n.parse().ok());
        all.tasks += threads.unwrap_or(0_u64);
        all.descriptors += open_fds(&root, pid, pid).unwrap_or(0);
        // A kernel without smaps_rollup: what it has in memory, shared or not.
        all.memory_bytes += field_bytes(&shares, "Pss")
            .or_else(|| field_bytes(&status, "VmRSS"))
            .unwrap_or(0);
        all.memory_bytes += field_bytes(&status, "VmPTE").unwrap_or(0);
    }
    all
}

/// A process and its children.
fn family(root: &ProcRoot, parent: u32) -> Vec<u32> {
    let pids = std::fs::read_dir(root.as_path()).into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: HashMap<u32, u32> = pids
        .filter_map(|pid| {
            let status = root.read(&format!("{pid}/status")).ok()?;
            Some((pid, field(&status, "PPid")?.parse().ok()?))
        })
        .collect();
    let children = parents.iter().filter(|(_, of)| **of == parent).map(|(pid, _)| *pid);
    children.chain([parent]).collect()
}

fn judge(seen: &Seen) -> (Finding, String) {
    let clients = seen.clients;
    let of = |model: &str| seen.models.get(model).copied().unwrap_or_default();
    let [event, fork, iterative, thread] = MODELS.map(of);
    let numbers = format!(
        "Of {clients} clients at once were served: {} with a process for each, {} with a \
         thread for each, {} by one thread that waits for all of them at once, {} by a \
         server that serves one after the other.",
        fork.served, thread.served, event.served, iterative.served
    );
    if fork.served < clients && thread.served < clients {
        let why = format!("{numbers} So this host does not let them have so many.");
        return (Finding::DoesNotHold, why);
    }
    if event.served < clients || event.tasks_more >= clients as u64 {
        return (Finding::Holds, format!("{numbers} So nothing else served them."));
    }
    let kib = |served: Served| {
        let each = served.memory_bytes_each.map(|bytes| bytes as f64 / 1024.0);
        each.map_or_else(|| "unknown memory".into(), |kib| format!("{kib:.1} KiB"))
    };
    let why = format!(
        "{numbers} The first took {} processes for that, and {} for each client; the \
         second {} threads and {}; the third {} threads more and {}; beside what the \
         kernel keeps for a task and for a socket. So a task for each client is one way, \
         whose code reads from top to bottom; a loop over epoll_wait() holds as many \
         without.",
        count(fork.tasks_more),
        kib(fork),
        count(thread.tasks_more),
        kib(thread),
        count(event.tasks_more),
        kib(event),
    );
    (Finding::HoldsWithinLimits, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(event: usize, event_tasks: u64, fork: usize, thread: usize) -> Finding {
        let of = |served, tasks_more| Served { served, tasks_more, ..Served::default() };
        let models = BTreeMap::from([
            ("event", of(event, event_tasks)),
            ("fork", of(fork, fork as u64)),
            ("iterative", of(1, 0)),
            ("thread", of(thread, thread as u64)),
        ]);
        judge(&Seen { clients: 240, models }).0
    }

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        assert_eq!(found(240, 0, 240, 240), Finding::HoldsWithinLimits);
        // One of the two may meet a limit of this host.
        assert_eq!(found(240, 0, 9, 240), Finding::HoldsWithinLimits);
        assert_eq!(found(240, 0, 9, 9), Finding::DoesNotHold);
        assert_eq!(found(9, 0, 240, 240), Finding::Holds);
        assert_eq!(found(240, 240, 240, 240), Finding::Holds);
    }

    #[test]
    fn what_a_process_has_is_counted_with_its_children() {
        let own = std::process::id();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let family = family(&ProcRoot::new("/proc"), own);
        let alone = taken(child.id());
        let all = taken(own);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(family.contains(&own) && family.contains(&child.id()), "{family:?}");
        assert_eq!(alone.tasks, 1);
        assert!(all.tasks > alone.tasks, "{all:?}, {alone:?}");
        assert!(all.memory_bytes > alone.memory_bytes && alone.memory_bytes > 0);
        assert!(all.descriptors > alone.descriptors && alone.descriptors > 0);
    }
}
