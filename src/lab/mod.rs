//! What is said of sockets, checked against this kernel: each claim an experiment of a
//! few seconds, in a network namespace of its own where that is allowed.
//!
//! - [`experiment`]: what an experiment is, and what comes of it.
//! - [`mod@bench`]: where it is made and what it has at hand; [`moment`]: the socket table
//!   at a decisive moment; [`relay`]: a slow link.
//! - [`document`]: all of it as JSON.
//! - One file an experiment: its claim, its trial, and `judge`, the pure function that
//!   makes the finding of the numbers seen.

pub mod bench;
pub mod document;
pub mod experiment;
pub mod moment;
pub mod relay;

mod address_pair;
mod backlog;
mod bare_descriptor;
mod buffers;
mod busy_port;
mod client_bind;
mod clients;
mod connected;
mod ended;
mod file;
mod five_waiting;
mod io_threads;
mod local_cost;
mod many_clients;
mod models;
mod neighbour;
mod new_port;
mod queue_order;
mod rendezvous;
mod server_first;
mod shared;
mod taken_port;
mod tcp;
mod thousand;
mod tools;
mod two_bytes;
mod unaccepted;
mod unconnected;
mod wrong_port;

use std::io;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use self::bench::{Bench, Place};
use self::experiment::{Experiment, Outcome, Step, Unable};
use crate::kernel::private::enter_network_namespace;
use crate::sockets::model::Inode;
use crate::sockets::owners::has_pool;

/// Every experiment, in the order of their numbers.
pub const ALL: &[Experiment] = &[
    file::EXPERIMENT,
    address_pair::EXPERIMENT,
    bare_descriptor::EXPERIMENT,
    busy_port::EXPERIMENT,
    new_port::EXPERIMENT,
    backlog::EXPERIMENT,
    five_waiting::EXPERIMENT,
    thousand::EXPERIMENT,
    two_bytes::EXPERIMENT,
    client_bind::EXPERIMENT,
    connected::EXPERIMENT,
    server_first::EXPERIMENT,
    shared::EXPERIMENT,
    ended::EXPERIMENT,
    many_clients::EXPERIMENT,
    models::EXPERIMENT,
    io_threads::EXPERIMENT,
    rendezvous::EXPERIMENT,
    taken_port::EXPERIMENT,
    local_cost::EXPERIMENT,
    queue_order::EXPERIMENT,
    unconnected::EXPERIMENT,
    unaccepted::EXPERIMENT,
    buffers::EXPERIMENT,
    wrong_port::EXPERIMENT,
];

/// An experiment that was made.
#[derive(Debug)]
pub struct Done {
    /// Which.
    pub experiment: &'static Experiment,
    /// What came of it.
    pub outcome: Result<Outcome, Unable>,
    /// How long it took.
    pub took: Duration,
}

/// Makes an experiment, on a thread that ends with it; at a private place in a network
/// namespace that nothing else has been in.
#[must_use]
pub fn make(experiment: &'static Experiment, bench: &Bench<'_>) -> Done {
    let started = Instant::now();
    // The threads that look for owners must not be made inside: they would stay there.
    has_pool();
    let outcome = thread::scope(|scope| {
        let inside =
            thread::Builder::new().name(experiment.id.into()).spawn_scoped(scope, || {
                if bench.place == Place::Private {
                    enter_network_namespace().step("making a network namespace")?;
                }
                (experiment.run)(bench)
            });
        match inside.step("starting a thread")?.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    Done { experiment, outcome, took: started.elapsed() }
}

/// The experiment of a number or an id.
#[must_use]
pub fn find(name: &str) -> Option<&'static Experiment> {
    let number = name.parse::<u8>().ok();
    ALL.iter().find(|one| one.id == name || Some(one.number) == number)
}

/// The name of an errno; 0 is success.
fn errno_name(errno: i32) -> String {
    match errno {
        0 => "success".into(),
        errno => crate::kernel::errno::name(errno),
    }
}

/// The inode of an open socket, as the socket table has it.
fn inode(socket: impl AsFd) -> io::Result<Inode> {
    Ok(Inode(rustix::fs::fstat(socket)?.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_experiment_has_a_number_and_a_name_of_its_own() {
        for (at, experiment) in ALL.iter().enumerate() {
            let Experiment { number, id, claim, trial, .. } = experiment;
            assert!(at == 0 || ALL[at - 1].number < *number, "{id} is out of order");
            assert_eq!(find(id).map(|one| one.number), Some(*number));
            assert_eq!(find(&number.to_string()).map(|one| one.id), Some(*id));
            assert!(id.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{id}");
            assert!(claim.ends_with('.') && trial.ends_with('.'), "{id}");
        }
        assert!(find("0").is_none() && find("").is_none());
    }
}
