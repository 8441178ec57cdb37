//! A socket is a kind of file.

use std::fs;
use std::os::fd::AsRawFd;

use rustix::io::{read, write};
use serde::Serialize;
use socket2::{Domain, Socket, Type};

use super::bench::Bench;
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::moment;
use super::tcp;
use crate::sockets::select::Tables;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 1,
    id: "file",
    claim: "A socket is a kind of file: it has a descriptor, a small non-negative \
            integer; read() and write() work on it; /proc/PID/fd shows it.",
    trial: "A pair of unix sockets is made; one is written to with write(2) and the other \
            read with read(2); their links in /proc/self/fd are read; then a socket is \
            opened by its link, as any other file can be, and sought in.",
    run,
};

/// What was seen.
#[derive(Debug, Clone, Serialize)]
struct Seen {
    /// The descriptor of one.
    fd: i32,
    /// The lowest that was free before it was made.
    lowest_free_fd: i32,
    /// Bytes that write(2) took.
    written_bytes: usize,
    /// Bytes that read(2) gave.
    read_bytes: usize,
    /// Whether the link in /proc is `socket:[inode]`, with the inode of fstat(2).
    is_shown_as_socket: bool,
    /// What open(2) of that link gave: 0 or the errno.
    open_errno: i32,
    /// What lseek(2) gave: 0 or the errno.
    seek_errno: i32,
}

fn run(_: &Bench<'_>) -> Result<Outcome, Unable> {
    let lowest = fs::File::open("/dev/null").step("opening /dev/null")?;
    let lowest_free_fd = lowest.as_raw_fd();
    drop(lowest);
    let (one, other) = Socket::pair(Domain::UNIX, Type::STREAM, None)
        .step("making a pair of sockets")?;
    let written_bytes = write(&one, b"a socket is written to").step("write()")?;
    let read_bytes = read(&other, &mut [0; 64]).step("read()")?;
    let inode = super::inode(&one).step("fstat()")?;
    let link = format!("/proc/thread-self/fd/{}", one.as_raw_fd());
    let shown = fs::read_link(&link).step("reading /proc/thread-self/fd")?;
    let sought = rustix::fs::seek(&one, rustix::fs::SeekFrom::Start(0));
    let seen = Seen {
        fd: one.as_raw_fd(),
        lowest_free_fd,
        written_bytes,
        read_bytes,
        is_shown_as_socket: shown.as_os_str() == format!("socket:[{}]", inode.0).as_str(),
        open_errno: tcp::errno(fs::File::open(&link)),
        seek_errno: tcp::errno(sought),
    };
    let table = moment("after read()", Tables::UNIX, |row| row.inode == inode)
        .step("reading the socket table")?;
    Ok(Outcome::of(&seen, judge(&seen)).with([table]))
}

fn judge(seen: &Seen) -> (Finding, String) {
    let has_descriptor = seen.fd >= 0 && seen.fd == seen.lowest_free_fd;
    let carries = seen.written_bytes > 0 && seen.read_bytes == seen.written_bytes;
    if !has_descriptor || !carries || !seen.is_shown_as_socket {
        let why = "A socket lacks what makes a file: the lowest free descriptor, read() \
                   and write(), or a link in /proc.";
        return (Finding::DoesNotHold, why.into());
    }
    if seen.open_errno == 0 && seen.seek_errno == 0 {
        let why = "It has a descriptor, a link in /proc, and every operation of a file \
                   that was tried: write, read, open by name, seek.";
        return (Finding::Holds, why.into());
    }
    let why = format!(
        "It has the lowest free descriptor ({}), write() took {} bytes and read() gave \
         them, and /proc shows it as socket:[inode]. But it has no name in any folder: \
         open() of its link fails with {}, and a stream has no place to seek to ({}).",
        seen.fd,
        seen.written_bytes,
        super::errno_name(seen.open_errno),
        super::errno_name(seen.seek_errno),
    );
    (Finding::HoldsWithinLimits, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        let seen = Seen {
            fd: 3,
            lowest_free_fd: 3,
            written_bytes: 22,
            read_bytes: 22,
            is_shown_as_socket: true,
            open_errno: 0,
            seek_errno: 0,
        };
        assert_eq!(judge(&seen).0, Finding::Holds);
        let mute = Seen { read_bytes: 0, ..seen.clone() };
        assert_eq!(judge(&mute).0, Finding::DoesNotHold);
        let unseen = Seen { is_shown_as_socket: false, ..seen };
        assert_eq!(judge(&unseen).0, Finding::DoesNotHold);
    }
}
