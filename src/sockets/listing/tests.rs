use super::*;
use crate::kernel::sock_diag::{Timer, TimerKind};
use crate::sockets::model::States;
use crate::sockets::select::{Details, Tables, Versions};
use crate::sockets::source::netlink::NetlinkSource;
use crate::sockets::testing::*;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

const PROC: &str = "/proc";
/// Of a socket that is younger than any look.
const NEWEST: u64 = 4_294_967_295;

/// A source of the rows that it was made with.
struct Given {
    rows: Vec<Row<'static>>,
    still_has: Option<bool>,
}

impl Source for Given {
    fn rows(
        &mut self,
        _: &Selection,
        each: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>,
    ) -> io::Result<Passed> {
        for row in &self.rows {
            if each(row.clone()).is_break() {
                break;
            }
        }
        Ok(Passed::default())
    }

    fn still_has(&mut self, _: &Row<'_>) -> Option<bool> {
        self.still_has
    }
}

fn selection(tables: Tables, states: States) -> Selection {
    let (versions, details) = (Versions::BOTH, Details::default());
    Selection { tables, versions, states, details, program: None }
}

fn row(kind: Kind, state: State, inode: u64) -> Row<'static> {
    Row { inode: Inode(inode), ..Row::new(kind, state) }
}

/// What is listed: inode, the owners' pids, and why there is none.
fn listed(
    lister: &mut Lister<'_>,
    source: &mut dyn Source,
    selection: &Selection,
) -> Vec<(u64, Vec<u32>, Option<NoOwner>)> {
    let mut all = Vec::new();
    lister
        .list(source, selection, &mut |listed| {
            let pids = listed.owners.iter().map(|owner| owner.pid).collect();
            all.push((listed.row.inode.0, pids, listed.no_owner));
            ControlFlow::Continue(())
        })
        .unwrap();
    all
}

fn any() -> Selection {
    selection(Tables::ALL, States::ALL)
}

/// A tree of /proc in which process 7 has socket 100 as its descriptor 3.
fn proc_tree() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("7/fd")).unwrap();
    symlink("socket:[100]", root.path().join("7/fd/3")).unwrap();
    root
}

#[test]
fn each_socket_without_an_inode_says_why_nobody_has_it() {
    let kind = |kind| move |state| row(kind, state, 0);
    let (tcp, mptcp, unix) = (kind(Kind::Tcp), kind(Kind::Mptcp), kind(Kind::UnixStream));
    let waits = Timer { kind: TimerKind::TimeWait, expires_ms: 1, retransmits: 0 };
    let cases = [
        (tcp(State::Established), NoOwner::Queued),
        (tcp(State::CloseWait), NoOwner::Queued),
        (mptcp(State::Established), NoOwner::Queued),
        (unix(State::Established), NoOwner::Queued),
        (tcp(State::TimeWait), NoOwner::TimeWait),
        (tcp(State::SynRecv), NoOwner::Handshake),
        (tcp(State::FinWait1), NoOwner::Closed),
        (tcp(State::FinWait2), NoOwner::Closed),
        (tcp(State::LastAck), NoOwner::Closed),
        (tcp(State::Closing), NoOwner::Closed),
        // The kernel keeps it in the form of a TIME_WAIT; what it waits for is the peer.
        (Row { timer: Some(waits), ..tcp(State::FinWait2) }, NoOwner::Closed),
        (row(Kind::Netlink, State::Established, 0), NoOwner::Kernel),
        (row(Kind::Udp, State::Close, 0), NoOwner::Kernel),
    ];
    let root = proc_tree();
    for look in [Look::All, Look::First] {
        let rows = cases.iter().map(|(row, _)| row.clone()).collect();
        let mut source = Given { rows, still_has: Some(true) };
        let mut lister = Lister::new(root.path(), look).unwrap();
        let reasons: Vec<_> = listed(&mut lister, &mut source, &any())
            .into_iter()
            .map(|(_, pids, why)| (pids, why))
            .collect();
        let expected: Vec<_> =
            cases.iter().map(|(_, why)| (Vec::<u32>::new(), Some(*why))).collect();
        assert_eq!(reasons, expected);
    }
}

#[test]
fn where_every_process_can_be_read_what_nobody_has_is_the_kernels() {
    let root = proc_tree();
    let rows =
        vec![row(Kind::Tcp, State::Listen, 100), row(Kind::Udp, State::Close, NEWEST)];
    let ours = |why| vec![(100, vec![7], None), (NEWEST, vec![], Some(why))];
    for look in [Look::All, Look::First] {
        let mut source = Given { rows: rows.clone(), still_has: Some(true) };
        let mut lister = Lister::new(root.path(), look).unwrap();
        assert_eq!(listed(&mut lister, &mut source, &any()), ours(NoOwner::Kernel));
        // Not so where it was closed since.
        source.still_has = Some(false);
        assert_eq!(listed(&mut lister, &mut source, &any()), ours(NoOwner::Closed));
        assert_eq!(lister.not_permitted(), 0);
    }
    let mut source = Given { rows, still_has: Some(true) };
    let mut lister = Lister::new(root.path(), Look::None).unwrap();
    let none = [(100, vec![], None), (NEWEST, vec![], None)];
    assert_eq!(listed(&mut lister, &mut source, &any()), none);
}

#[test]
fn in_a_pid_namespace_of_ones_own_others_may_have_it() {
    let root = proc_tree();
    fs::create_dir_all(root.path().join("1/ns")).unwrap();
    symlink("pid:[4026532001]", root.path().join("1/ns/pid")).unwrap();
    let netlink = |port| Row {
        local: Address::Netlink { family: 0, port },
        ..row(Kind::Netlink, State::Close, 102)
    };
    let rows = vec![row(Kind::Tcp, State::Listen, 101), netlink(0), netlink(99)];
    for look in [Look::All, Look::First] {
        let mut source = Given { rows: rows.clone(), still_has: Some(true) };
        let mut lister = Lister::new(root.path(), look).unwrap();
        let why: Vec<_> =
            listed(&mut lister, &mut source, &any()).into_iter().map(|l| l.2).collect();
        let other = Some(NoOwner::OtherNamespace);
        assert_eq!(why, [other, Some(NoOwner::Kernel), other]);
    }
}

#[test]
fn a_socket_that_was_made_after_the_look_has_its_owner_all_the_same() {
    let mut lister = Lister::new(Path::new(PROC), Look::All).unwrap();
    let late = TcpListener::bind((loopback(), 0)).unwrap();
    let mut source = NetlinkSource::open().unwrap();
    let listening = selection(Tables::TCP, States::LISTEN);
    let all = listed(&mut lister, &mut source, &listening);
    let found: Vec<_> = all.iter().filter(|one| one.0 == inode(&late).0).collect();
    assert_eq!(found.len(), 1, "{all:?}");
    assert!(found[0].1.contains(&std::process::id()), "{found:?}");
}

#[test]
fn a_socket_that_is_closed_while_it_is_listed_is_neither_hidden_nor_the_kernels() {
    for look in [Look::All, Look::First] {
        let mut lister = Lister::new(Path::new(PROC), look).unwrap();
        let listener = TcpListener::bind((loopback(), 0)).unwrap();
        let wanted = inode(&listener);
        let mut source = ClosesAfter(NetlinkSource::open().unwrap(), Some(listener));
        let listening = selection(Tables::TCP, States::LISTEN);
        let all = listed(&mut lister, &mut source, &listening);
        let found: Vec<_> = all.iter().filter(|one| one.0 == wanted.0).collect();
        assert_eq!(found, [&(wanted.0, vec![], Some(NoOwner::Closed))]);
    }
}

/// Closes a socket as soon as its rows were read, before owners are looked for.
struct ClosesAfter(NetlinkSource, Option<TcpListener>);

impl Source for ClosesAfter {
    fn rows(
        &mut self,
        selection: &Selection,
        each: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>,
    ) -> io::Result<Passed> {
        let passed = self.0.rows(selection, each);
        let Some(closed) = self.1.take().map(|listener| inode(&listener)) else {
            return passed;
        };
        // A program that another test starts right now has a copy until it runs.
        wait_for("its end", || {
            let mut gone = true;
            let look = self.0.rows(selection, &mut |row| {
                gone &= row.inode != closed;
                ControlFlow::Continue(())
            });
            (look.is_ok() && gone).then_some(())
        });
        passed
    }

    fn still_has(&mut self, row: &Row<'_>) -> Option<bool> {
        self.0.still_has(row)
    }
}

#[test]
fn the_list_ends_where_it_is_told_to() {
    let root = proc_tree();
    let rows = |n: u64| (0..n).map(|n| row(Kind::Tcp, State::Listen, 100 + n)).collect();
    for look in [Look::None, Look::First, Look::All] {
        let mut source = Given { rows: rows(9), still_has: Some(true) };
        let mut lister = Lister::new(root.path(), look).unwrap();
        let mut seen = 0;
        lister
            .list(&mut source, &any(), &mut |_| {
                seen += 1;
                if seen < 4 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .unwrap();
        assert_eq!(seen, 4, "{look:?}");
    }
}
