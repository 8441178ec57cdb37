//! The fork model: a process for each connection, as inetd and classic daemons do it.
//!
//! What bounds it: processes (`ulimit -u`, pids.max of the cgroup, kernel.pid_max) and
//! the memory of a process. Descriptors do not: the parent keeps none of a connection.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::process::{WaitOptions, wait};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::low_level::pipe;

use super::admit::Server;
use super::door::{Arrival, Door, converse, silence};
use super::watch::{Note, Notes};
use crate::kernel::fork::fork_to_serve;

/// Accepts until something goes wrong. The children die with this thread.
pub(super) fn serve(server: &Server, notes: &Notes) -> io::Result<()> {
    let (bell, ringer) = UnixStream::pair()?;
    bell.set_nonblocking(true)?;
    pipe::register(SIGCHLD, ringer)?;
    let bell = OwnedFd::from(bell);
    // Where the parent ignores Ctrl-C, they do.
    let dies_of: &[i32] = if server.plan.with_parent {
        &[SIGCHLD, SIGTERM, SIGUSR1]
    } else {
        &[SIGCHLD, SIGTERM, SIGINT]
    };
    let mut door = Door::new(server, Some(bell.as_fd()));
    notes.send(Note::Up);
    loop {
        match door.next()? {
            Arrival::Client(conn) | Arrival::InPlaceOfOldest(conn) => {
                let plan = &server.plan;
                let child = fork_to_serve(conn.as_fd(), dies_of, || {
                    converse(&conn, &plan.speak, &plan.faults);
                });
                if child.is_err() {
                    // EAGAIN at a limit on processes, ENOMEM: the parent's descriptor
                    // was the only one, so the client sees end of file.
                    server.ended();
                }
            }
            Arrival::Bell => {
                silence(&bell);
                // One signal may stand for many children.
                while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {
                    server.ended();
                }
            }
        }
    }
}
