use super::*;
use crate::kernel::fd_table::{LocalFd, OwnTable};
use crate::sockets::model::Owner;
use crate::sockets::testing::*;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use rustix::thread::gettid;
use std::io::{BufRead, BufReader, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

const PROC: &str = "/proc";

fn owners(wanted: Inode) -> Vec<Owner> {
    let wanted_set = HashSet::from([wanted]);
    let how = LookUp { proc_root: Path::new(PROC), by: By::Proc };
    let scan = owners_of(how, &wanted_set).unwrap();
    assert!(scan.iter().all(|(inode, _)| inode == wanted));
    scan.owners(wanted).collect()
}

/// The owners that are this process, by either way. Any other test may be starting a
/// program at this moment, and until it runs its process has a copy of each descriptor.
fn owners_here(wanted: Inode) -> Vec<Owner> {
    let here = |owner: &Owner| owner.pid == std::process::id();
    let mut found = owners(wanted);
    found.retain(here);
    if let Some(scan) = by_bpf(|how| owners_of(how, &HashSet::from([wanted]))) {
        assert!(scan.iter().all(|(inode, _)| inode == wanted));
        let by_bpf: Vec<_> = scan.owners(wanted).filter(here).collect();
        assert_eq!(by_bpf, found, "by BPF, and through /proc");
    }
    found
}

/// What is found by BPF alone, where that may be used here.
fn by_bpf(find: impl Fn(LookUp<'_>) -> io::Result<OwnerIndex>) -> Option<OwnerIndex> {
    let how = LookUp { proc_root: Path::new(PROC), by: By::Bpf };
    match find(how) {
        Ok(found) => {
            assert!(found.is_by_bpf());
            Some(found)
        }
        Err(error) => {
            crate::testing::lacking(&error.to_string());
            None
        }
    }
}

fn number_of(fd: &impl AsRawFd) -> u32 {
    fd.as_raw_fd().try_into().unwrap()
}

fn tid() -> u32 {
    gettid().as_raw_nonzero().get().unsigned_abs()
}

/// A child that is ended with this, whatever becomes of the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that has a socket as its descriptor 0.
fn another_process_with(socket: &TcpListener) -> Running {
    let copy = OwnedFd::from(socket.try_clone().unwrap());
    Running(Command::new("sleep").arg("60").stdin(copy).spawn().unwrap())
}

#[test]
fn a_socket_of_this_process_has_it_as_owner_by_every_descriptor() {
    let socket = TcpListener::bind((loopback(), 0)).unwrap();
    let again = socket.try_clone().unwrap();
    let found = owners_here(inode(&socket));
    let me = std::process::id();
    assert!(found.iter().all(|owner| owner.tid == me));
    let mut expected = [number_of(&socket), number_of(&again)];
    expected.sort_unstable();
    assert_eq!(found.iter().map(|owner| owner.fd).collect::<Vec<_>>(), expected);
    let comm = std::fs::read("/proc/self/comm").unwrap();
    assert_eq!(found[0].comm, Comm::new(&comm));
}

#[test]
fn the_owner_in_a_threads_own_table_is_found() {
    let (sender, receiver) = mpsc::channel();
    let (done, is_done) = mpsc::channel::<()>();
    let holder = thread::Builder::new().name("holds (it)".into()).spawn(move || {
        let _table = OwnTable::unshare(&[]).unwrap();
        let socket = LocalFd::from(TcpListener::bind((loopback(), 0)).unwrap());
        sender.send((inode(&socket), tid(), number_of(&socket))).unwrap();
        let _ = is_done.recv();
    });
    let (held, thread, fd) = receiver.recv().unwrap();
    let comm = Comm::new(b"holds (it)");
    let pid = std::process::id();
    assert_eq!(owners_here(held), [Owner { pid, tid: thread, comm, fd }]);

    let wanted = HashSet::from([held]);
    let found = fds_of(Path::new(PROC), pid, thread, &wanted, usize::MAX).unwrap();
    assert_eq!(found.fds, [(held, fd)]);
    let main = fds_of(Path::new(PROC), pid, pid, &wanted, usize::MAX).unwrap();
    assert!(main.fds.is_empty(), "it is not in the main table");
    drop(done);
    holder.unwrap().join().unwrap();
}

#[test]
fn a_look_for_few_descriptors_stops_early() {
    let socket = TcpListener::bind((loopback(), 0)).unwrap();
    let more: Vec<_> = (0..200).map(|_| socket.try_clone().unwrap()).collect();
    let wanted = HashSet::from([inode(&socket)]);
    let pid = std::process::id();
    let look = |max| fds_of(Path::new(PROC), pid, pid, &wanted, max).unwrap();
    let found = look(usize::MAX);
    assert_eq!(found.fds.len(), 1);
    assert!(found.links_read <= number_of(&socket).try_into().unwrap_or(usize::MAX) + 1);
    assert_eq!(look(1).links_read, 1);
    let gone = fds_of(Path::new(PROC), u32::MAX, 1, &wanted, 9).unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    drop(more);
}

#[test]
fn a_forked_socket_has_both_processes_as_owners() {
    let socket = TcpListener::bind((loopback(), 0)).unwrap();
    let child = another_process_with(&socket);
    let pid = child.0.id();
    let found = wait_for("the child's descriptor", || {
        let found = owners(inode(&socket));
        found.iter().any(|owner| owner.comm.as_bytes() == b"sleep").then_some(found)
    });
    let theirs: Vec<_> = found.iter().filter(|owner| owner.pid == pid).collect();
    assert_eq!(theirs.iter().map(|owner| owner.fd).collect::<Vec<_>>(), [0]);
    assert!(found.iter().any(|owner| owner.pid == std::process::id()));
}

#[test]
fn a_passed_descriptor_is_one_more() {
    let socket = TcpListener::bind((loopback(), 0)).unwrap();
    let wanted = inode(&socket);
    let (here, there) = UnixStream::pair().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [socket.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let byte = [IoSlice::new(b"x")];
    rustix::net::sendmsg(&here, &byte, &mut control, SendFlags::empty()).unwrap();
    drop(socket);
    assert!(owners_here(wanted).is_empty(), "while it is on its way nobody has it");
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(&there, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)
        .unwrap();
    let passed: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    let found = owners_here(wanted);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].fd, number_of(&passed[0]));
}

#[test]
fn processes_that_end_during_a_scan_are_left_out() {
    let socket = TcpListener::bind((loopback(), 0)).unwrap();
    let wanted = inode(&socket);
    let (done, is_done) = mpsc::channel::<()>();
    let churn = thread::spawn(move || {
        let mut started = 0;
        while is_done.try_recv() == Err(mpsc::TryRecvError::Empty) {
            Command::new("true").status().unwrap();
            started += 1;
        }
        started
    });
    // Twice each: by BPF too.
    for _ in 0..15 {
        assert_eq!(owners_here(wanted).len(), 1);
    }
    drop(done);
    assert!(churn.join().unwrap() > 0);
}

#[test]
fn many_tables_in_one_process_are_scanned_once_each() {
    let (sender, receiver) = mpsc::channel();
    let mut ends = Vec::new();
    let holders: Vec<_> = (0..8)
        .map(|index| {
            let (sender, (end, ended)) = (sender.clone(), mpsc::channel::<()>());
            ends.push(end);
            thread::spawn(move || {
                // Half of them share the process's table.
                let _own = (index % 2 == 0).then(|| OwnTable::unshare(&[]).unwrap());
                let socket = LocalFd::from(TcpListener::bind((loopback(), 0)).unwrap());
                sender.send(inode(&socket)).unwrap();
                let _ = ended.recv();
            })
        })
        .collect();
    let wanted: HashSet<Inode> = (0..8).map(|_| receiver.recv().unwrap()).collect();
    let me = std::process::id();
    let here = |scan: &OwnerIndex| {
        scan.iter().filter(|(_, owner)| owner.pid == me).collect::<Vec<_>>()
    };
    let how = LookUp { proc_root: Path::new(PROC), by: By::Proc };
    let found = here(&owners_of(how, &wanted).unwrap());
    let by_bpf = by_bpf(|how| owners_of(how, &wanted));
    let inodes: HashSet<Inode> = found.iter().map(|(inode, _)| *inode).collect();
    assert_eq!((found.len(), inodes), (8, wanted));
    assert_eq!(found.iter().filter(|(_, owner)| owner.tid == me).count(), 4);
    assert!(by_bpf.is_none_or(|scan| here(&scan) == found));
    drop(ends);
    for holder in holders {
        holder.join().unwrap();
    }
}

#[test]
fn tables_are_told_apart_without_kcmp_too() {
    let root = tempfile::tempdir().unwrap();
    let link = |table: &str, fd: u32, to: &str| {
        let table = root.path().join(table);
        std::fs::create_dir_all(&table).unwrap();
        symlink(to, table.join(fd.to_string())).unwrap();
    };
    for (table, last) in [("7/fd", 4), ("7/task/7/fd", 4), ("7/task/8/fd", 4)] {
        link(table, 3, "socket:[100]");
        link(table, last, "/dev/null");
    }
    link("7/task/9/fd", 5, "socket:[100]");
    link("7/task/9/fd", 6, "socket:[101]");
    std::fs::write(root.path().join("7/comm"), "main\n").unwrap();
    std::fs::write(root.path().join("7/task/9/comm"), "other\n").unwrap();
    std::fs::create_dir(root.path().join("8")).unwrap();
    std::fs::write(root.path().join("uptime"), "1").unwrap();
    let wanted = HashSet::from([Inode(100), Inode(101)]);
    let scan = owners_of(root.path(), &wanted).unwrap();
    let short = |inode| {
        let owners = scan.owners(Inode(inode));
        owners.map(|o| (o.tid, o.fd, o.comm.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(short(100), [(7, 3, "main".to_string()), (9, 5, "other".to_string())]);
    assert_eq!(short(101), [(9, 6, "other".to_string())]);
    assert_eq!(scan.unreadable(), 0);
}

#[test]
fn the_owners_of_all_sockets_are_those_of_each() {
    let socket = TcpListener::bind((loopback(), 0)).unwrap();
    let again = socket.try_clone().unwrap();
    let wanted = inode(&socket);
    let all = all_owners(Path::new(PROC)).unwrap();
    let me = |owner: &Owner| owner.pid == std::process::id();
    assert_eq!(all.owners(wanted).filter(me).collect::<Vec<_>>(), owners_here(wanted));
    assert_eq!(all.owners(Inode(0)).count(), 0);
    assert!(all.iter().count() >= 2);
    drop(again);
}

#[test]
fn a_look_for_first_owners_finds_one_of_each_however_high_its_number() {
    let low = TcpListener::bind((loopback(), 0)).unwrap();
    let more: Vec<_> = (0..200).map(|_| low.try_clone().unwrap()).collect();
    let high = TcpListener::bind((loopback(), 0)).unwrap();
    let look = |socket: &TcpListener| {
        let wanted = HashSet::from([inode(socket)]);
        first_owners(Path::new(PROC), &wanted).unwrap().owners(inode(socket)).count()
    };
    assert!(look(&low) >= 1 && look(&high) >= 1);
    drop(more);
}

#[test]
fn what_was_found_first_is_kept_when_the_look_goes_on() {
    // In whichever order the processes are looked at.
    for (early, late) in [(7, 8), (8, 7)] {
        let root = tempfile::tempdir().unwrap();
        let link = |pid: u32, fd: u32, to: &str| {
            let table = root.path().join(format!("{pid}/fd"));
            std::fs::create_dir_all(&table).unwrap();
            symlink(to, table.join(fd.to_string())).unwrap();
        };
        (3..300).for_each(|fd| link(early, fd, "/dev/null"));
        link(early, 300, "socket:[100]");
        link(late, 3, "socket:[101]");
        let wanted = HashSet::from([Inode(100), Inode(101)]);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let found = pool.install(|| first_owners(root.path(), &wanted)).unwrap();
        let pids = |inode| found.owners(Inode(inode)).map(|o| o.pid).collect::<Vec<_>>();
        assert_eq!((pids(100), pids(101)), (vec![early], vec![late]));
    }
}

#[test]
fn one_thread_stands_for_each_table() {
    let table = |tid: u32| match tid {
        1 | 4 => 50,
        2 | 5 => 10,
        _ => 70,
    };
    let compare = |one: u32, other: u32| match (one, other) {
        (_, 6) => Err(io::ErrorKind::NotFound.into()),
        _ => Ok(table(one).cmp(&table(other))),
    };
    let threads = one_of_each_table(1, vec![2, 3, 4, 5, 6, 7], compare);
    assert_eq!(threads, Threads { other: vec![2, 3], unknown: vec![6] });
}

#[test]
fn kernel_threads_and_zombies_are_not_called_unreadable() {
    let kernel = b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0";
    let zombie = b"9 (a) b) Z 1 9 9 0 -1 4194304 0";
    let alive = b"9 (Z) S 1 9 9 0 -1 4194304 0";
    assert!(is_kernel_or_dead(kernel) && is_kernel_or_dead(zombie));
    assert!(!is_kernel_or_dead(alive) && !is_kernel_or_dead(b""));
}

#[test]
fn processes_of_others_are_counted_as_unreadable() {
    // An ordinary user's look at this process, whose table only root may read.
    if !rustix::process::geteuid().is_root() {
        return skip("needs root to become another user");
    }
    let socket = TcpListener::bind((loopback(), 0)).unwrap();
    let child = another_process_with(&socket);
    let wanted = HashSet::from([inode(&socket)]);
    let scan = thread::spawn(move || {
        // Of this thread alone: the raw call, unlike the C library's, changes no other.
        let nobody = rustix::thread::Uid::from_raw(65_534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        pool.install(|| owners_of(Path::new(PROC), &wanted)).unwrap()
    });
    let scan = scan.join().unwrap();
    assert!(scan.unreadable() >= 1, "{scan:?}");
    assert!(scan.iter().all(|(_, owner)| owner.pid != child.0.id()));
}

#[test]
fn a_main_thread_that_has_ended_hides_no_owner() {
    // exit(2) of the main thread alone, while another goes on.
    let program = "
import ctypes, os, socket, threading, time
held = socket.socket()
print(os.fstat(held.fileno()).st_ino, flush=True)
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).syscall(60 if os.uname().machine == 'x86_64' else 93, 0)";
    let child = Command::new("python3")
        .args(["-c", program])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = child else { return skip("no python3") };
    let mut child = Running(child);
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let held = Inode(line.trim().parse().unwrap());
    let stat = format!("/proc/{}/stat", child.0.id());
    wait_for("a main thread that has ended", || {
        is_kernel_or_dead(&std::fs::read(&stat).unwrap()).then_some(())
    });
    let found = owners(held);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].pid == child.0.id() && found[0].tid != child.0.id());
}

#[test]
fn the_sockets_of_one_process_come_with_those_of_its_threads_and_no_others() {
    let (sender, receiver) = mpsc::channel();
    let (done, is_done) = mpsc::channel::<()>();
    let holder = thread::spawn(move || {
        let _table = OwnTable::unshare(&[]).unwrap();
        let socket = LocalFd::from(TcpListener::bind((loopback(), 0)).unwrap());
        sender.send((inode(&socket), tid(), number_of(&socket))).unwrap();
        let _ = is_done.recv();
    });
    let (held, thread, fd) = receiver.recv().unwrap();
    let shared = TcpListener::bind((loopback(), 0)).unwrap();
    let copy = shared.try_clone().unwrap();
    let child = another_process_with(&shared);
    let pid = std::process::id();
    let found = owners_of_process(Path::new(PROC), pid).unwrap();
    let by_bpf = by_bpf(|how| owners_of_process(how, pid));
    let of_child = wait_for("the child's descriptor", || {
        let index = owners_of_process(Path::new(PROC), child.0.id()).unwrap();
        let owners: Vec<Owner> = index.owners(inode(&shared)).collect();
        (index.iter().count() == 1).then_some(owners)
    });
    drop(done);
    holder.join().unwrap();
    let numbers = |index: &OwnerIndex, inode| {
        let owner = |owner: Owner| (owner.pid, owner.tid, owner.fd);
        index.owners(inode).map(owner).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&found, held), [(pid, thread, fd)]);
    if let Some(by_bpf) = by_bpf {
        assert!(by_bpf.iter().all(|(_, owner)| owner.pid == pid));
        assert_eq!(numbers(&by_bpf, held), [(pid, thread, fd)]);
        assert_eq!(numbers(&by_bpf, inode(&shared)), numbers(&found, inode(&shared)));
    }
    let mut both = [number_of(&shared), number_of(&copy)];
    both.sort_unstable();
    assert_eq!(numbers(&found, inode(&shared)), both.map(|fd| (pid, pid, fd)));
    assert_eq!((of_child[0].pid, of_child[0].fd), (child.0.id(), 0));
}

#[test]
fn a_process_that_is_not_there_or_not_readable_is_an_error() {
    let of = |pid| owners_of_process(Path::new(PROC), pid).map_err(|e| e.kind());
    assert_eq!(of(u32::MAX), Err(io::ErrorKind::NotFound));
    if !crate::testing::is_root() {
        assert_eq!(of(1), Err(io::ErrorKind::PermissionDenied));
    }
    let mut child = Running(Command::new("true").spawn().unwrap());
    let pid = child.0.id();
    // A zombie has none.
    wait_for("it ends", || {
        let stat = std::fs::read_to_string(format!("{PROC}/{pid}/stat")).unwrap();
        stat.contains(") Z ").then_some(())
    });
    assert_eq!(of(pid), Ok(OwnerIndex::default()));
    child.0.wait().unwrap();
    assert_eq!(of(pid), Err(io::ErrorKind::NotFound));
}
