//! The reference servers: what a probe can be tried on, and what shows how each model
//! of a server works and fails.
//!
//! - [`plan`]: what a server is asked to be; [`address`]: where.
//! - `event`, `thread`, `fork`, `iterative`: one file a model. Read these.
//! - `admit`: whom they let in, with their faults; `speak`: what they answer.
//! - [`child`]: one in a process of its own.
//! - `listen`, `door`, `watch`: making listeners, waiting for clients, for the end.

pub mod address;
mod admit;
pub mod child;
mod door;
mod event;
mod fork;
mod iterative;
mod listen;
pub mod plan;
mod speak;
mod thread;
mod watch;

use std::io;
use std::sync::Arc;
use std::thread::Builder;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::address::Address;
use self::admit::Server;
use self::event::tables::Tables;
use self::listen::SocketFile;
use self::plan::{Model, ServePlan, Workers};
use self::watch::{Note, Notes, Watch, Woken};

/// What a server is, once clients can connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Where it listens, in the order of the plan, with the ports that it got.
    pub addresses: Vec<Address>,
    /// Its process.
    pub pid: u32,
    /// The effective backlog: of what was asked for, as much as the kernel keeps.
    pub backlog: u32,
    /// The soft RLIMIT_NOFILE of each of its fd tables; `None` is unlimited.
    pub fd_limit: Option<u64>,
}

/// Why a server could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is in use, is not this host's, or is not permitted.
    #[error("cannot listen on {address}")]
    Listen {
        /// As it was asked for.
        address: Address,
        /// What bind(2) or listen(2) says.
        source: io::Error,
    },
    /// An fd limit above the hard one.
    #[error("an fd limit of {asked} is above the hard limit of {hard}")]
    AboveHardLimit {
        /// The limit that was asked for.
        asked: u64,
        /// The hard RLIMIT_NOFILE.
        hard: u64,
    },
    /// The server's own descriptors or threads could not be made, or reporting failed.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
}

impl Error {
    fn listen(address: &Address, source: io::Error) -> Self {
        Self::Listen { address: address.clone(), source }
    }

    fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// Serves until SIGTERM or SIGINT comes (or, where the plan says so, the parent dies).
/// Calls `on_ready` once, when clients can connect.
///
/// It changes the process: its RLIMIT_NOFILE, and what signals do to it. The threads
/// that serve still run when it returns; the caller is expected to end the process.
///
/// # Errors
/// What keeps the server from starting, and what `on_ready` gives.
pub fn run(
    plan: ServePlan,
    on_ready: impl FnOnce(&Ready) -> io::Result<()>,
) -> Result<(), Error> {
    let mut watch = Watch::install(plan.with_parent)
        .map_err(Error::io("cannot watch for signals"))?;
    let fd_limit = limit_fds(&plan)?;
    let mut listeners = Vec::new();
    // Dropped on every way out, which removes the files.
    let mut files = Vec::new();
    for address in &plan.listen {
        let listener = listen::listen(address, plan.backlog)?;
        files.extend(SocketFile::of(&listener));
        listeners.push(listener);
    }
    let ready = Ready {
        addresses: listeners.iter().map(|l| l.address.clone()).collect(),
        pid: std::process::id(),
        backlog: plan.backlog.min(listen::somaxconn().unwrap_or(u32::MAX)),
        fd_limit,
    };
    let server = Arc::new(Server::new(plan, listeners));
    let (mut tables, threads) = start(&server, &watch.notify)
        .map_err(Error::io("cannot start the server's threads"))?;
    let mut on_ready = Some(on_ready);
    let mut up = 0;
    loop {
        match watch.wait().map_err(Error::io("cannot wait for signals"))? {
            Woken::End => return Ok(()),
            Woken::Note(Note::Up) => up += 1,
            Woken::Note(Note::Failed(source)) => {
                return Err(Error::Io { what: "the server cannot go on", source });
            }
            Woken::Note(Note::Table(table, note)) => {
                if let Some(tables) = &mut tables {
                    tables.heard(table, note);
                }
            }
        }
        if up == threads
            && let Some(on_ready) = on_ready.take()
        {
            on_ready(&ready).map_err(Error::io("cannot report the address"))?;
        }
    }
}

/// Starts the threads of the model; each says when it is up. How many that are.
fn start(server: &Arc<Server>, notes: &Notes) -> io::Result<(Option<Tables>, usize)> {
    let workers = match server.plan.model {
        Model::Event(Workers::Tables(at_most)) => {
            let at_most = at_most.map(std::num::NonZero::get);
            return Ok((Some(Tables::start(server, notes, at_most)?), 1));
        }
        Model::Event(Workers::OneTable(workers)) => workers.get(),
        Model::Thread | Model::Fork | Model::Iterative => 1,
    };
    for _ in 0..workers {
        let (server, notes) = (Arc::clone(server), notes.clone());
        Builder::new().name("server".into()).spawn(move || {
            let done = match server.plan.model {
                Model::Event(_) => event::serve(&server, &notes, None),
                Model::Thread => thread::serve(&server, &notes),
                Model::Fork => fork::serve(&server, &notes),
                Model::Iterative => iterative::serve(&server, &notes),
            };
            if let Err(error) = done {
                notes.send(Note::Failed(error));
            }
        })?;
    }
    Ok((None, workers))
}

/// Sets the soft RLIMIT_NOFILE that the plan asks for, and says what it is.
fn limit_fds(plan: &ServePlan) -> Result<Option<u64>, Error> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let asked = match (plan.fd_limit, plan.model) {
        (None, Model::Event(Workers::Tables(_))) => maximum,
        (None, _) => return Ok(current),
        (Some(asked), _) => Some(asked),
    };
    if let (Some(asked), Some(hard)) = (asked, maximum)
        && asked > hard
    {
        return Err(Error::AboveHardLimit { asked, hard });
    }
    setrlimit(Resource::Nofile, Rlimit { current: asked, maximum })
        .map_err(|error| Error::io("cannot set the fd limit")(error.into()))?;
    Ok(asked)
}
