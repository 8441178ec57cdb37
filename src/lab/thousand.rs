//! Where the number 1,024 comes from.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use socket2::Socket;

use super::bench::Bench;
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::{Moment, moment};
use super::tools::{SoftNofile, connect, soft_nofile};
use crate::kernel::fd_table::OwnTable;
use crate::kernel::select::{FD_SET_BITS, readable};
use crate::render::count;
use crate::sockets::select::Tables;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 8,
    id: "thousand",
    claim: "Linux allows 1,024 connections.",
    trial: "Clients connect with the soft RLIMIT_NOFILE at 1,024 until there is no \
            descriptor left; then the limit is raised by setrlimit() and more connect. At \
            the end select() waits for the highest descriptor, with a set that is large \
            enough.",
    run,
};

/// The number that is said.
const SAID: u64 = 1024;
/// The soft limit afterwards.
const RAISED: u64 = 3000;

/// What was seen.
#[derive(Debug, Clone, Serialize)]
struct Seen {
    /// The soft RLIMIT_NOFILE that this process came with.
    soft_limit_at_start: u64,
    /// The soft limit that was set first.
    first_limit: u64,
    /// Connections held then.
    held_at_first: usize,
    /// What the next one gave.
    next_errno: i32,
    /// The soft limit that was set afterwards.
    raised_limit: u64,
    /// Connections held then.
    held_at_raised: usize,
    /// The highest descriptor.
    highest_fd: i32,
    /// How many descriptors an fd_set of the C library has bits for.
    fd_set_bits: usize,
    /// Whether select(2) saw what came to the highest descriptor.
    seen_by_select: bool,
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    // With two fd tables it raises its own limit.
    let server = bench.serve(&["--fd-tables", "2"])?;
    let no_address = || Unable::Missing("the server has no TCP address".into());
    let at = server.tcp().ok_or_else(no_address)?;
    let (seen, moments) = thread::scope(|scope| {
        // A table of its own, so that all of the limit is for connections.
        let inside = thread::Builder::new()
            .spawn_scoped(scope, || hold(bench, at))
            .step("starting a thread")?;
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    Ok(Outcome::of(&seen, judge(&seen)).with(moments))
}

fn hold(bench: &Bench<'_>, at: SocketAddr) -> Result<(Seen, [Moment; 2]), Unable> {
    let _table = OwnTable::unshare(&[]).step("unshare(CLONE_FILES)")?;
    let soft_limit_at_start = soft_nofile();
    let first = SoftNofile::set(SAID).step("setrlimit()")?;
    let mut held = Vec::new();
    let next_errno = fill(bench, at, &mut held)?;
    let held_at_first = held.len();
    let raised = SoftNofile::set(RAISED).step("setrlimit()")?;
    let table = |when| {
        moment(when, Tables::TCP, |row| row.remote.inet() == Some(at))
            .step("reading the socket table")
    };
    let before = table(format!("clients with a soft limit of {}", first.now))?;
    // What reading the table takes is free again now.
    fill(bench, at, &mut held)?;
    let held_at_raised = held.len();
    let last =
        held.pop().ok_or_else(|| Unable::Missing("no descriptor is left".into()))?;
    let seen_by_select = says_to_select(&last)?;
    // For the descriptors that reading the table needs.
    held.truncate(held.len().saturating_sub(8));
    let after = table(format!("clients with a soft limit of {}", raised.now))?;
    let seen = Seen {
        soft_limit_at_start,
        first_limit: first.now,
        held_at_first,
        next_errno,
        raised_limit: raised.now,
        held_at_raised,
        highest_fd: last.as_raw_fd(),
        fd_set_bits: FD_SET_BITS,
        seen_by_select,
    };
    Ok((seen, [before, after]))
}

/// Connects until no descriptor is left: the errno.
fn fill(
    bench: &Bench<'_>,
    at: SocketAddr,
    held: &mut Vec<Socket>,
) -> Result<i32, Unable> {
    loop {
        bench.go_on()?;
        match connect(at) {
            Ok(one) => held.push(one),
            Err(error) => match error.raw_os_error() {
                Some(errno @ (libc::EMFILE | libc::ENFILE)) => return Ok(errno),
                _ => return Err(Unable::at("connecting")(error)),
            },
        }
    }
}

/// Whether select(2) tells of the echo on a socket.
fn says_to_select(socket: &Socket) -> Result<bool, Unable> {
    socket.send(b"?").step("send()")?;
    let ready = readable(&[socket.as_fd()], Duration::from_secs(2)).step("select()")?;
    Ok(ready == [socket.as_raw_fd()])
}

fn judge(seen: &Seen) -> (Finding, String) {
    let held = seen.held_at_raised as u64;
    let more = count(held);
    if held <= SAID && seen.raised_limit > SAID {
        let why = format!(
            "{more} connections were held and no more, although RLIMIT_NOFILE allowed \
             {} descriptors.",
            count(seen.raised_limit)
        );
        return (Finding::Holds, why);
    }
    if held <= SAID {
        let why = format!(
            "{more} connections were held. But it is the hard RLIMIT_NOFILE of this \
             process that allows no more, and not Linux."
        );
        return (Finding::HoldsWithinLimits, why);
    }
    let errno = super::errno_name(seen.next_errno);
    let first = count(seen.first_limit);
    let select = match (seen.highest_fd.unsigned_abs() as usize >= seen.fd_set_bits)
        .then_some(seen.seen_by_select)
    {
        Some(true) => format!(
            "but the system call itself, given a larger set, waited for descriptor {}",
            count(seen.highest_fd.unsigned_abs().into())
        ),
        Some(false) => format!(
            "and the system call did not see descriptor {} even in a larger set",
            count(seen.highest_fd.unsigned_abs().into())
        ),
        None => "and here no descriptor was beyond that".into(),
    };
    let why = format!(
        "With a soft RLIMIT_NOFILE of {first} there were {} connections beside \
         descriptors 0, 1 and 2, and the next gave {errno}; after one setrlimit() {more} \
         were held. The number is the usual default of that limit, which is the process's \
         (this one came with {}), and is raised up to the hard limit without any \
         privilege. It is also the size of the C library's fd_set (FD_SETSIZE {}), \
         {select}; poll() and epoll have no such set.",
        count(seen.held_at_first as u64),
        count(seen.soft_limit_at_start),
        count(seen.fd_set_bits as u64),
    );
    (Finding::DoesNotHold, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        let seen = Seen {
            soft_limit_at_start: 1024,
            first_limit: 1024,
            held_at_first: 1021,
            next_errno: libc::EMFILE,
            raised_limit: 3000,
            held_at_raised: 2997,
            highest_fd: 2999,
            fd_set_bits: 1024,
            seen_by_select: true,
        };
        let (finding, why) = judge(&seen);
        assert_eq!(finding, Finding::DoesNotHold);
        assert!(why.contains("but the system call itself"), "{why}");
        let blind = Seen { seen_by_select: false, ..seen.clone() };
        assert!(judge(&blind).1.contains("did not see"));
        let low = Seen { highest_fd: 1000, ..seen.clone() };
        assert!(judge(&low).1.contains("no descriptor was beyond"));
        let stuck = Seen { held_at_raised: 1021, ..seen };
        assert_eq!(judge(&stuck).0, Finding::Holds);
        let poor = Seen { raised_limit: 1024, ..stuck };
        assert_eq!(judge(&poor).0, Finding::HoldsWithinLimits);
    }
}
