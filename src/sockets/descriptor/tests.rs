use super::*;
use crate::kernel::fd_table::{LocalFd, OwnTable};
use crate::sockets::testing::inode;
use proptest::prelude::*;
use rustix::event::epoll;
use socket2::{Domain, Socket, Type};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread;

const PROC: &str = "/proc";

fn name_of(file: &impl AsRawFd) -> DescriptorName {
    let (pid, fd) = (std::process::id(), file.as_raw_fd().unsigned_abs());
    DescriptorName { pid, tid: pid, fd }
}

fn look(name: DescriptorName) -> Result<SocketFile, NoSocket> {
    look_at(Path::new(PROC), name)
}

fn tid() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()
}

#[test]
fn a_name_has_two_parts_or_three() {
    let is = |pid, tid, fd| Ok(DescriptorName { pid, tid, fd });
    assert_eq!("4711:18".parse(), is(4711, 4711, 18));
    assert_eq!("4711:4713:0".parse(), is(4711, 4713, 0));
    for text in ["", "1", ":", "1:", ":1", "a:1", "1:-1", "+1:1", "0:1", "1:2:3:4"] {
        assert_eq!(text.parse::<DescriptorName>(), Err(NoName), "{text}");
    }
}

#[test]
fn a_socket_has_its_inode_and_kind() {
    let of = |domain, kind| Socket::new(domain, kind, None).unwrap();
    for (socket, kind) in [
        (of(Domain::IPV4, Type::STREAM), Kind::Tcp),
        (of(Domain::IPV6, Type::DGRAM), Kind::Udp),
        (of(Domain::UNIX, Type::STREAM), Kind::UnixStream),
    ] {
        let inode = inode(&socket);
        assert_eq!(look(name_of(&socket)).unwrap(), SocketFile { inode, kind });
    }
}

#[test]
fn what_is_no_socket_is_named() {
    let (reader, _writer) = std::io::pipe().unwrap();
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let opened = std::fs::File::open(folder.path()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let netns = std::fs::File::open("/proc/self/ns/net").unwrap();
    let (at, path) = (folder.path().display(), file.path().display());
    for (name, says) in [
        (name_of(&reader), "is a pipe (pipe:[".to_owned()),
        (name_of(&epoll), "is an epoll instance, not a socket".to_owned()),
        (name_of(&opened), format!("is the directory {at}, not a socket")),
        (name_of(file.as_file()), format!("is the file {path}, not a socket")),
        (name_of(&null), "is the device /dev/null, not a socket".to_owned()),
        (name_of(&netns), "is a kernel object (net:[".to_owned()),
    ] {
        let error = look(name).unwrap_err().to_string();
        assert!(error.contains(&says), "{error}");
        assert!(error.starts_with(&name.to_string()), "{error}");
    }
}

#[test]
fn what_is_not_there_is_told_apart() {
    let pid = std::process::id();
    let error =
        |pid, tid, fd| look(DescriptorName { pid, tid, fd }).unwrap_err().to_string();
    assert_eq!(error(u32::MAX, u32::MAX, 1), "there is no process 4294967295");
    let none = error(pid, u32::MAX, 1);
    assert_eq!(none, format!("process {pid} has no thread 4294967295"));
    let closed = error(pid, pid, 1_000_000);
    assert_eq!(closed, format!("descriptor 1000000 of process {pid} is not open"));
}

#[test]
fn a_thread_and_its_own_table_are_pointed_at() {
    /// Beyond what any other test here has open.
    const FAR: i32 = 700;
    let (sender, receiver) = mpsc::channel();
    let (done, is_done) = mpsc::channel::<()>();
    let holder = thread::spawn(move || {
        let _table = OwnTable::unshare(&[]).unwrap();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let far = rustix::io::fcntl_dupfd_cloexec(&socket, FAR).unwrap();
        let far = LocalFd::from(far);
        sender.send((inode(&far), tid(), far.as_raw_fd().unsigned_abs())).unwrap();
        drop(OwnedFd::from(socket));
        let _ = is_done.recv();
    });
    let (held, thread, fd) = receiver.recv().unwrap();
    let pid = std::process::id();
    let found = look(DescriptorName { pid, tid: thread, fd }).unwrap();
    let main = look(DescriptorName { pid, tid: pid, fd }).unwrap_err().to_string();
    let by_thread = look(DescriptorName { pid: thread, tid: thread, fd }).unwrap_err();
    drop(done);
    holder.join().unwrap();
    assert_eq!(found.inode, held);
    let pointed = format!("its thread {thread} has that in an fd table of its own: ");
    assert!(main.ends_with(&format!("{pointed}{pid}:{thread}:{fd}")), "{main}");
    assert_eq!(
        by_thread.to_string(),
        format!("{thread} is a thread of process {pid}: write {pid}:{thread}:{fd}")
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,20}", link in ".{0,40}") {
        if let Ok(name) = text.parse::<DescriptorName>() {
            prop_assert!(name.pid > 0 && name.tid > 0);
        }
        let shown = what(&link, Path::new("/nowhere"));
        prop_assert!(!shown.chars().any(char::is_control));
        let _ = socket_inode(&link);
    }
}
