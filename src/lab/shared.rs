//! One socket in several processes.

use std::collections::HashSet;
use std::fs;
use std::io::{IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, sendmsg,
};
use rustix::process::{Pid, WaitOptions, waitpid};
use serde::Serialize;
use socket2::Socket;

use super::bench::Bench;
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::{Moment, moment};
use super::tcp;
use crate::kernel::fd_table::OwnTable;
use crate::kernel::fork::fork_to_serve;
use crate::kernel::pidfd;
use crate::sockets::model::Inode;
use crate::sockets::select::Tables;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 13,
    id: "shared",
    claim: "A socket is an object of the kernel with a reference count, which several \
            processes can use.",
    trial: "The server's end of a connection is inherited by one child (fork), sent to \
            another (SCM_RIGHTS), copied back from it (pidfd_getfd) and kept by a thread \
            with an fd table of its own. Two of them read a byte each; then they go one by \
            one: which close ends the connection? Last, one of two owners calls \
            shutdown().",
    run,
};

const COPY: &str = "pidfd_getfd";
const OWN_TABLE: &str = "a thread's own fd table";

/// What was seen.
#[derive(Debug, Clone, Default, Serialize)]
struct Seen {
    /// How descriptors of the socket came about, after the first.
    ways: Vec<&'static str>,
    /// Descriptors of it in /proc.
    descriptors: usize,
    /// Processes that have them.
    processes: usize,
    /// fd tables that have them: a thread can have its own.
    fd_tables: usize,
    /// Different inodes behind them.
    inodes: usize,
    /// Bytes that were sent, and which the children read and ended with.
    read_by_children_bytes: u64,
    /// Descriptors that were left after each close.
    left_after_each_close: Vec<usize>,
    /// After which of them (from 1) the client saw the end; 0: after none.
    ended_by_close: usize,
    /// Whether the client saw the end after shutdown() by one of two owners.
    shutdown_ends_it: bool,
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    let mut seen = Seen::default();
    let (listener, at) = tcp::listen(4)?;
    let client = tcp::connect(at)?;
    let shared = tcp::accept(bench, &listener)?;
    shared.set_nonblocking(false).step("setting a socket blocking")?;
    let children = [fork_reader(&shared)?, send_to_reader(&shared)?];
    let mut scene = Scene {
        client: &client,
        shared: &shared,
        inode: super::inode(&shared).step("fstat()")?,
        children,
        threads: vec![tid()],
    };
    seen.ways = vec!["fork", "SCM_RIGHTS"];
    let table = thread::scope(|scope| {
        let (holder, release) = mpsc::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        let socket = &shared;
        let thread = scope.spawn(move || {
            let table = OwnTable::unshare(&[socket.as_fd()]);
            // Who asked may have given up.
            let _ = ready.send(table.is_ok().then(tid));
            // The table, and the copy in it, are gone with the thread.
            let _ = release.recv();
        });
        let own = is_ready.recv().ok().flatten();
        scene.threads.extend(own);
        if own.is_some() {
            seen.ways.push(OWN_TABLE);
        }
        close_one_by_one(bench, &mut seen, &scene, || {
            drop(holder);
            let _ = thread.join();
        })
    })?;
    // The last close.
    drop(shared);
    seen.left_after_each_close.push(0);
    let ended = bench.wait(tcp::SOON, || Ok(is_ended(&client).then_some(())))?;
    note_end(&mut seen, ended.is_some());
    seen.shutdown_ends_it = shut_down(bench)?;
    let lacking = [COPY, OWN_TABLE].into_iter().filter(|way| !seen.ways.contains(way));
    let lacking = lacking.map(|way| format!("{way}: this host does not allow it"));
    Ok(Outcome::of(&seen, judge(&seen)).with([table]).without(lacking))
}

/// Sees who has the socket, and lets all go but this process, whose close comes last.
fn close_one_by_one(
    bench: &Bench<'_>,
    seen: &mut Seen,
    scene: &Scene<'_>,
    end_thread: impl FnOnce(),
) -> Result<Moment, Unable> {
    let receiver = number(scene.children[1]);
    let found = bench.wait(tcp::SOON, || Ok(scene.descriptors_of(receiver).pop()))?;
    let (_, fd) = found.ok_or_else(|| {
        Unable::Missing(
            "no descriptor came by SCM_RIGHTS, or /proc does not show it".into(),
        )
    })?;
    // Who may not trace its own children gets none.
    let copy = pidfd::copy_of(receiver, receiver, fd);
    let mut inodes = HashSet::from([scene.inode]);
    if let Ok(copy) = &copy {
        inodes.insert(super::inode(copy).step("fstat()")?);
        seen.ways.push(COPY);
    }
    let table = moment("all have it", Tables::TCP, |row| row.inode == scene.inode)
        .step("reading the socket table")?;
    let all = scene.descriptors();
    seen.descriptors = all.len();
    seen.fd_tables = all.iter().map(|(tid, _)| tid).collect::<HashSet<_>>().len();
    seen.processes = 1 + scene
        .children
        .iter()
        .filter(|child| !scene.descriptors_of(number(**child)).is_empty())
        .count();
    seen.inodes = inodes.len();
    for _ in scene.children {
        let mut writer = scene.client;
        writer.write_all(b"x").step("writing")?;
        scene.note_close(bench, seen)?;
    }
    let unread = rustix::io::ioctl_fionread(scene.shared).step("ioctl(FIONREAD)")?;
    seen.read_by_children_bytes = scene.children.len() as u64 - unread.min(2);
    for child in scene.children {
        // Each ends when it has read its byte.
        waitpid(Some(child), WaitOptions::empty()).step("waiting for a child")?;
    }
    if copy.is_ok() {
        drop(copy);
        scene.note_close(bench, seen)?;
    }
    end_thread();
    if scene.threads.len() > 1 {
        scene.note_close(bench, seen)?;
    }
    Ok(table)
}

/// The connection, and who may have its server's end.
struct Scene<'a> {
    client: &'a Socket,
    shared: &'a Socket,
    inode: Inode,
    children: [Pid; 2],
    /// The threads of this process that may have it: this one, and the one with an fd
    /// table of its own.
    threads: Vec<u32>,
}

impl Scene<'_> {
    /// Every descriptor of it: the thread or the process whose fd table has it, and its
    /// number.
    fn descriptors(&self) -> Vec<(u32, u32)> {
        let children = self.children.map(number);
        let ids = self.threads.iter().chain(&children);
        ids.flat_map(|id| self.descriptors_of(*id)).collect()
    }

    fn descriptors_of(&self, id: u32) -> Vec<(u32, u32)> {
        let link = format!("socket:[{}]", self.inode);
        // /proc/TID is there for a thread too, though no listing shows it.
        let Ok(fds) = fs::read_dir(format!("/proc/{id}/fd")) else {
            return Vec::new();
        };
        fds.flatten()
            .filter(|fd| {
                fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == &*link)
            })
            .filter_map(|fd| Some((id, fd.file_name().to_str()?.parse().ok()?)))
            .collect()
    }

    /// Waits until a descriptor is gone, and sees whether the client has the end.
    fn note_close(&self, bench: &Bench<'_>, seen: &mut Seen) -> Result<(), Unable> {
        let before =
            seen.left_after_each_close.last().copied().unwrap_or(seen.descriptors);
        let mut left = before;
        bench.wait(tcp::SOON, || {
            left = self.descriptors().len();
            Ok((left < before).then_some(()))
        })?;
        seen.left_after_each_close.push(left);
        note_end(seen, is_ended(self.client));
        Ok(())
    }
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

fn note_end(seen: &mut Seen, has_ended: bool) {
    if has_ended && seen.ended_by_close == 0 {
        seen.ended_by_close = seen.left_after_each_close.len();
    }
}

/// Whether a read gives the end.
fn is_ended(socket: &Socket) -> bool {
    recv(socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT)
        .is_ok_and(|(_, bytes)| bytes == 0)
}

/// The calling thread.
fn tid() -> u32 {
    number(rustix::thread::gettid())
}

/// A child that has inherited the socket, reads one byte from it and ends.
fn fork_reader(shared: &Socket) -> Result<Pid, Unable> {
    fork_to_serve(shared.as_fd(), &[libc::SIGINT, libc::SIGTERM], || {
        let _ = recv(shared, &mut [0; 1], RecvFlags::empty());
    })
    .step("fork()")
}

/// A child that has none of our sockets, receives this one in a message, reads one byte
/// from it and ends.
fn send_to_reader(shared: &Socket) -> Result<Pid, Unable> {
    let (ours, theirs) = UnixStream::pair().step("socketpair()")?;
    let child = fork_to_serve(theirs.as_fd(), &[libc::SIGINT, libc::SIGTERM], || {
        if let Some(socket) = receive(&theirs) {
            let _ = recv(&socket, &mut [0; 1], RecvFlags::empty());
        }
    })
    .step("fork()")?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    let fds = [shared.as_fd()];
    message.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(&ours, &[IoSlice::new(b"x")], &mut message, SendFlags::NOSIGNAL)
        .step("sending a descriptor")?;
    Ok(child)
}

fn receive(from: &UnixStream) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut message, RecvFlags::empty())
        .ok()?;
    message.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

/// A second connection, with two descriptors of the server's end: does shutdown() by one
/// end it, though the other is open?
fn shut_down(bench: &Bench<'_>) -> Result<bool, Unable> {
    let (listener, at) = tcp::listen(4)?;
    let client = tcp::connect(at)?;
    let one = tcp::accept(bench, &listener)?;
    let other = one.try_clone().step("dup()")?;
    one.shutdown(Shutdown::Both).step("shutdown()")?;
    let ended = bench.wait(tcp::SOON, || Ok(is_ended(&client).then_some(())))?;
    drop(other);
    Ok(ended.is_some())
}

fn judge(seen: &Seen) -> (Finding, String) {
    let closes = seen.left_after_each_close.len();
    if seen.inodes != 1 || seen.processes < 2 {
        let why = format!(
            "{} descriptors in {} processes are {} sockets, not one of several.",
            seen.descriptors, seen.processes, seen.inodes
        );
        return (Finding::DoesNotHold, why);
    }
    let many = format!(
        "One socket, one inode, and {} descriptors of it in {} fd tables of {} processes, \
         by {}. Two children read {} bytes from the same stream.",
        seen.descriptors,
        seen.fd_tables,
        seen.processes,
        seen.ways.join(", "),
        seen.read_by_children_bytes,
    );
    if seen.ended_by_close != closes {
        let why = format!(
            "{many} But the connection did not end with the last of {closes} closes: the \
             client saw the end after close {}.",
            seen.ended_by_close
        );
        return (Finding::HoldsWithinLimits, why);
    }
    let shutdown = match seen.shutdown_ends_it {
        true => {
            "shutdown() acts on the socket itself: one owner's call ended the connection \
             for all"
        }
        false => "shutdown() by one of two owners did not end it either",
    };
    let why = format!(
        "{many} close() takes one reference away: the client saw the end after the last \
         of {closes} closes and not before, which is why a descriptor that a child has \
         inherited can keep a connection open. {shutdown}."
    );
    (Finding::Holds, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        let seen = Seen {
            ways: vec!["fork", COPY],
            descriptors: 5,
            processes: 3,
            fd_tables: 4,
            inodes: 1,
            read_by_children_bytes: 2,
            left_after_each_close: vec![4, 3, 2, 1, 0],
            ended_by_close: 5,
            shutdown_ends_it: true,
        };
        let (finding, why) = judge(&seen);
        assert_eq!(finding, Finding::Holds);
        assert!(why.contains("ended the connection for all"), "{why}");
        let early = Seen { ended_by_close: 1, ..seen.clone() };
        assert_eq!(judge(&early).0, Finding::HoldsWithinLimits);
        let copies = Seen { inodes: 5, ..seen.clone() };
        assert_eq!(judge(&copies).0, Finding::DoesNotHold);
        let alone = Seen { processes: 1, ..seen.clone() };
        assert_eq!(judge(&alone).0, Finding::DoesNotHold);
        let mild = Seen { shutdown_ends_it: false, ..seen };
        assert!(judge(&mild).1.contains("did not end it either"));
    }
}
