//! What a reference server is asked to be. Plain values; `cli/serve.rs` makes one of the
//! command line and refuses the combinations that mean nothing.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::address::Address;

/// Everything that a reference server needs to know before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServePlan {
    /// How connections are turned into work.
    pub model: Model,
    /// Where it listens; never empty.
    pub listen: Vec<Address>,
    /// The argument of listen(2); the kernel keeps at most `net.core.somaxconn`.
    pub backlog: u32,
    /// What it says to a client that it serves.
    pub speak: Speak,
    /// The soft RLIMIT_NOFILE to serve with; `None` leaves what is inherited, or raises
    /// it to the hard limit where there are several fd tables.
    pub fd_limit: Option<u64>,
    /// What is wrong with it.
    pub faults: Faults,
    /// Whether it ends with the process that started it, and leaves Ctrl-C to that.
    pub with_parent: bool,
}

/// How a server turns connections into work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// Few threads, each waiting for many connections at once with epoll(7).
    Event(Workers),
    /// A thread for each connection.
    Thread,
    /// A process for each connection.
    Fork,
    /// One connection at a time, served to its end before the next is accepted.
    Iterative,
}

/// The threads of the event model, and the fd tables that they hold connections in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// So many threads over the one fd table of the process.
    OneTable(NonZeroUsize),
    /// A thread with an fd table of its own for each RLIMIT_NOFILE connections, up to so
    /// many tables; `None` is as many as memory allows.
    Tables(Option<NonZeroUsize>),
}

/// What a server says to the clients that it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Speak {
    /// Nothing: what comes is read and thrown away.
    Nothing,
    /// What it hears.
    Echo,
    /// 200 and a few bytes to each HTTP/1 request head.
    Http,
    /// This text when a client is accepted, then nothing.
    Banner(Vec<u8>),
}

/// What is wrong with a server. By default nothing is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// The most connections that it holds.
    pub maximum: Option<Maximum>,
    /// How long it takes its time before each accept(2).
    pub accept_delay: Option<Duration>,
    /// How many connections it accepts in its life; 0 is a server that never accepts.
    pub accept_at_most: Option<u64>,
    /// A connection that is silent for so long is closed.
    pub idle_timeout: Option<Duration>,
    /// A share of new connections is closed, which grows with how many it holds.
    pub early_drop: Option<EarlyDrop>,
    /// It exits with code 1 right after accepting so many.
    pub die_after: Option<u64>,
}

/// Random early drop, as MaxStartups of sshd_config(5) has it: none is closed up to
/// `from` held, all from `full` on, and between these a share that grows evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlyDrop {
    /// Connections held below which none is closed.
    pub from: u64,
    /// Connections held from which on every new one is closed; above `from`.
    pub full: u64,
}

/// The most connections that a server holds, and what becomes of those beyond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maximum {
    /// Connections held at once, at the most.
    pub connections: u64,
    /// What becomes of one more.
    pub beyond: Beyond,
}

/// What becomes of a connection beyond the maximum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beyond {
    /// Accepted and closed: the client sees end of file.
    Close,
    /// Accepted and reset: the client sees ECONNRESET.
    Reset,
    /// Accepted, told this text, and closed.
    Reject(Vec<u8>),
    /// Not accepted: it waits in the accept queue until another ends.
    Ignore,
    /// Served; the connection that has been held longest is closed for it.
    EvictOldest,
}
