//! The catalogue of verdicts: each names one limit.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// What stopped a probe.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code as it stands in output and in documents.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }
        }
    };
}

codes! {
    /// Nothing stopped it: all that was asked for is held.
    Requested = "requested",
    /// Ctrl-C.
    Interrupted = "interrupted",
    /// The time for dialing was over while more could be held.
    TimeLimit = "time_limit",
    /// The client's RLIMIT_NOFILE, in every fd table that it may have.
    ClientFdTable = "client.fd_table",
    /// fs.file-max, met by the client (ENFILE).
    ClientFileMax = "client.file_max",
    /// No four-tuple to this target is left.
    ClientPorts = "client.ports",
    /// The client's host has no memory for more.
    ClientMemory = "client.memory",
    /// The client's own table of tracked connections is full.
    ClientConntrack = "client.conntrack",
    /// The client cannot keep the rate that was asked for.
    ClientCpu = "client.cpu",
    /// No dial was answered.
    PathFiltered = "path.filtered",
    /// A filter refuses dials that a listener would take.
    PathRejected = "path.rejected",
    /// Something on the way, not the listener, takes no more than so many.
    PathLimitsNew = "path.limits_new",
    /// Something on the way takes no more than so many a second.
    PathRateLimited = "path.rate_limited",
    /// The table of tracked connections is full.
    PathConntrack = "path.conntrack",
    /// No way leads to the target.
    PathUnreachable = "path.unreachable",
    /// No socket listens there.
    ServerNotListening = "server.not_listening",
    /// Connections wait in the accept queue and nobody accepts them.
    ServerAcceptQueue = "server.accept_queue",
    /// Dials come faster than the server accepts, and its accept queue runs over.
    ServerSlowAccept = "server.slow_accept",
    /// Handshakes are dropped because the SYN queue is full, not the accept queue.
    ServerSynQueue = "server.syn_queue",
    /// The server has opened all descriptors that it may.
    ServerFdLimit = "server.fd_limit",
    /// fs.file-max, met by the server.
    ServerFileMax = "server.file_max",
    /// The server's process is stopped.
    ServerStopped = "server.stopped",
    /// No further thread or process may be started for a connection.
    ServerTasks = "server.tasks",
    /// The kernel killed the server, or a part of it, for the memory of its cgroup.
    ServerMemory = "server.memory",
    /// The table of tracked connections on the server's side is full.
    ServerConntrack = "server.conntrack",
    /// The server accepts a new connection and closes it.
    ServerClosesNew = "server.closes_new",
    /// The server accepts a new connection, says why not, and closes it.
    ServerRejects = "server.rejects",
    /// The server resets new connections.
    ServerResetsNew = "server.resets_new",
    /// The server closes a share of new connections, growing with how many it holds.
    ServerRandomDrop = "server.random_drop",
    /// The server ends old connections to admit new ones.
    ServerEvicts = "server.evicts",
    /// The server ends connections that were silent for a time.
    ServerIdleTimeout = "server.idle_timeout",
    /// Connections are complete but the server does not take them up.
    ServerUnserved = "server.unserved",
    /// Latency is above what the user allows.
    ServerLatency = "server.latency",
    /// The server's process ended, or closed its listener.
    ServerDied = "server.died",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_explained_and_nothing_else() {
        let page = include_str!("../../docs/verdicts.md");
        let explained: Vec<&str> =
            page.lines().filter_map(|line| line.strip_prefix("### ")).collect();
        for code in Code::ALL {
            assert_eq!(
                explained.iter().filter(|e| **e == code.as_str()).count(),
                1,
                "{code}"
            );
        }
        assert_eq!(explained.len(), Code::ALL.len(), "{explained:?}");
    }
}
