use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use crate::kernel::sock_diag::Timer;

fn at(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(second)
}

fn inet(port: u16) -> Address<'static> {
    Address::Inet(SocketAddr::from(([127, 0, 0, 1], port)))
}

fn row(cookie: u64, state: State) -> Row<'static> {
    let port = u16::try_from(cookie).unwrap();
    Row {
        local: inet(port),
        remote: inet(80),
        cookie: Some(Cookie(cookie)),
        inode: Inode(cookie + 1000),
        ..Row::new(Kind::Tcp, state)
    }
}

/// What TIME_WAIT leaves of a row.
fn waiting(row: &Row<'static>) -> Row<'static> {
    let timer = Timer { kind: TimerKind::TimeWait, expires_ms: 60_000, retransmits: 0 };
    Row { state: State::TimeWait, inode: Inode(0), timer: Some(timer), ..row.clone() }
}

fn end(row: &Row<'static>, second: u64) -> End {
    let row = Row { state: State::Close, inode: Inode(0), ..row.clone() };
    End { row, at: at(second) }
}

/// One pass with what is missing gone.
fn pass(snapshot: &mut Snapshot, rows: &[Row<'static>], ends: Vec<End>) -> Vec<String> {
    pass_looking(snapshot, rows, ends, &mut |_| Again::Gone)
}

/// One pass; its changes as text: `opened 1`, `closed 1 at 7`, `changed 1 from ESTAB`.
fn pass_looking(
    snapshot: &mut Snapshot,
    rows: &[Row<'static>],
    ends: Vec<End>,
    again: &mut dyn FnMut(&Row<'_>) -> Again,
) -> Vec<String> {
    let mut pass = snapshot.pass();
    for row in rows {
        pass.row(&Listed { row, owners: &[], no_owner: None });
    }
    let port = |row: &Row<'_>| row.local.inet().unwrap().port();
    let changes = pass.finish(ends, again, &|_| true);
    changes.iter().map(|change| text(snapshot, change, port)).collect()
}

fn text(snapshot: &Snapshot, change: &Change, port: impl Fn(&Row<'_>) -> u16) -> String {
    match change {
        Change::Opened(key) => {
            format!("opened {}", port(&snapshot.get(key).unwrap().row))
        }
        Change::Changed(key, old) => {
            let now = snapshot.get(key).unwrap();
            format!(
                "changed {} from {} to {}",
                port(&now.row),
                old.row.state,
                now.row.state
            )
        }
        Change::Closed(closed) => {
            let seen = if closed.was_seen { "" } else { " unseen" };
            let at = closed.at.map_or(String::new(), |at| {
                format!(" at {}", at.duration_since(UNIX_EPOCH).unwrap().as_secs())
            });
            format!("closed {}{seen}{at}", port(&closed.socket.row))
        }
    }
}

#[test]
fn a_life_from_the_first_pass_to_the_last() {
    let mut snapshot = Snapshot::default();
    let open = row(1, State::Established);
    assert_eq!(pass(&mut snapshot, std::slice::from_ref(&open), vec![]), ["opened 1"]);
    assert!(pass(&mut snapshot, std::slice::from_ref(&open), vec![]).is_empty());
    let half = Row { state: State::CloseWait, ..open };
    let changed = pass(&mut snapshot, &[half], vec![]);
    assert_eq!(changed, ["changed 1 from ESTAB to CLOSE-WAIT"]);
    assert_eq!(pass(&mut snapshot, &[], vec![]), ["closed 1"]);
    assert!(snapshot.is_empty());
}

#[test]
fn queues_owners_and_peers_change_a_socket_and_timers_do_not() {
    let mut snapshot = Snapshot::default();
    let first = row(1, State::Established);
    pass(&mut snapshot, std::slice::from_ref(&first), vec![]);
    let timer = Timer { kind: TimerKind::Keepalive, expires_ms: 5, retransmits: 0 };
    let ticking = Row { timer: Some(timer), ..first.clone() };
    assert!(pass(&mut snapshot, &[ticking], vec![]).is_empty());
    let kept = snapshot.iter().next().unwrap().1;
    assert_eq!(kept.row.timer, Some(timer), "what is shown is what was read last");
    for other in [
        Row { recv_q: 1, ..first.clone() },
        Row { send_q: Some(1), ..first.clone() },
        Row { drops: Some(1), ..first.clone() },
        Row { remote: inet(81), ..first.clone() },
        Row { inode: Inode(0), ..first.clone() },
    ] {
        assert_eq!(pass(&mut snapshot, &[other], vec![]).len(), 1);
        assert_eq!(pass(&mut snapshot, std::slice::from_ref(&first), vec![]).len(), 1);
    }
    let mut owned = snapshot.pass();
    let owner = Owner { pid: 7, ..owner() };
    owned.row(&Listed { row: &first, owners: &[owner], no_owner: None });
    let changes = owned.finish(vec![], &mut |_| Again::Gone, &|_| true);
    let [Change::Changed(key, old)] = &changes[..] else { panic!("{changes:?}") };
    assert!(old.owners.is_empty());
    assert_eq!(*snapshot.get(key).unwrap().owners, [owner]);
}

fn owner() -> Owner {
    Owner { pid: 1, tid: 1, comm: crate::sockets::model::Comm::new(b"a"), fd: 3 }
}

#[test]
fn an_end_says_when_and_is_told_once() {
    let mut snapshot = Snapshot::default();
    let one = row(1, State::Established);
    pass(&mut snapshot, std::slice::from_ref(&one), vec![]);
    assert_eq!(pass(&mut snapshot, &[], vec![end(&one, 7)]), ["closed 1 at 7"]);
    // The kernel tells it after a pass found it missing: when the last descriptor of a
    // connection that was reset is closed.
    pass(&mut snapshot, std::slice::from_ref(&one), vec![]);
    assert_eq!(pass(&mut snapshot, &[], vec![]), ["closed 1"]);
    assert!(pass(&mut snapshot, &[], vec![]).is_empty());
    assert!(pass(&mut snapshot, &[], vec![end(&one, 9)]).is_empty());
}

#[test]
fn a_socket_between_two_passes_is_at_least_closed() {
    let mut snapshot = Snapshot::default();
    let (one, two) = (row(1, State::Established), row(2, State::Established));
    let ends = vec![end(&two, 8), end(&one, 7)];
    let told = pass(&mut snapshot, &[], ends);
    assert_eq!(told, ["closed 1 unseen at 7", "closed 2 unseen at 8"]);
    assert!(snapshot.is_empty());
    let mut pass = snapshot.pass();
    pass.row(&Listed { row: &two, owners: &[], no_owner: None });
    let changes = pass.finish(vec![end(&one, 9)], &mut |_| Again::Gone, &|_| false);
    assert_eq!(changes.len(), 1, "what does not count is not told");
}

#[test]
fn time_wait_is_the_same_socket_and_no_new_one() {
    let mut snapshot = Snapshot::default();
    let one = row(1, State::Established);
    pass(&mut snapshot, std::slice::from_ref(&one), vec![]);
    let ended = vec![end(&one, 7)];
    let changed = pass(&mut snapshot, &[waiting(&one)], ended);
    assert_eq!(changed, ["changed 1 from ESTAB to TIME-WAIT"]);
    assert_eq!(pass(&mut snapshot, &[], vec![]), ["closed 1"]);
    // One that the dump missed is looked up.
    pass(&mut snapshot, std::slice::from_ref(&one), vec![]);
    let wait = waiting(&one);
    let again = &mut |_: &Row<'_>| Again::Here(Box::new(wait.clone()));
    let changed = pass_looking(&mut snapshot, &[], vec![end(&one, 8)], again);
    assert_eq!(changed, ["changed 1 from ESTAB to TIME-WAIT"]);
    assert_eq!(snapshot.len(), 1);
}

#[test]
fn time_wait_of_a_connection_that_no_pass_saw_is_told_once() {
    let mut snapshot = Snapshot::default();
    let one = row(1, State::Established);
    // The row of TIME_WAIT has a cookie of its own then.
    let wait = Row { cookie: Some(Cookie(99)), ..waiting(&one) };
    // Two that ended at the same addresses; the first left no row.
    let before = Row { cookie: Some(Cookie(98)), ..one.clone() };
    let ends = vec![end(&before, 6), end(&one, 7)];
    let told = pass(&mut snapshot, std::slice::from_ref(&wait), ends);
    assert_eq!(told, ["closed 1 unseen at 6", "opened 1"]);
    // Told after the pass that had the row.
    let mut snapshot = Snapshot::default();
    assert_eq!(pass(&mut snapshot, std::slice::from_ref(&wait), vec![]), ["opened 1"]);
    assert!(pass(&mut snapshot, &[wait], vec![end(&one, 7)]).is_empty());
}

#[test]
fn a_row_that_a_changing_table_left_out_is_not_closed() {
    let mut snapshot = Snapshot::default();
    let one = row(1, State::Established);
    pass(&mut snapshot, std::slice::from_ref(&one), vec![]);
    let here = one.clone();
    let again = &mut |_: &Row<'_>| Again::Here(Box::new(here.clone()));
    assert!(pass_looking(&mut snapshot, &[], vec![], again).is_empty());
    assert_eq!(snapshot.len(), 1);
    // Where it cannot be looked up, it must be missing twice.
    let untold = &mut |_: &Row<'_>| Again::Untold;
    assert!(pass_looking(&mut snapshot, &[], vec![], untold).is_empty());
    assert!(
        pass_looking(&mut snapshot, std::slice::from_ref(&one), vec![], untold)
            .is_empty()
    );
    assert!(pass_looking(&mut snapshot, &[], vec![], untold).is_empty());
    assert_eq!(pass_looking(&mut snapshot, &[], vec![], untold), ["closed 1"]);
    // One that left for another state is closed, and its end is not told again.
    pass(&mut snapshot, std::slice::from_ref(&one), vec![]);
    let left = &mut |_: &Row<'_>| Again::Left;
    assert_eq!(pass_looking(&mut snapshot, &[], vec![], left), ["closed 1"]);
    assert!(pass(&mut snapshot, &[], vec![end(&one, 9)]).is_empty());
}

#[test]
fn without_cookies_a_connection_is_its_addresses_and_a_listener_its_inode_too() {
    let mut snapshot = Snapshot::default();
    let connection = Row { cookie: None, ..row(1, State::Established) };
    let queued = Row { inode: Inode(0), ..connection.clone() };
    assert_eq!(pass(&mut snapshot, &[queued], vec![]), ["opened 1"]);
    let accepted = pass(&mut snapshot, std::slice::from_ref(&connection), vec![]);
    assert_eq!(accepted, ["changed 1 from ESTAB to ESTAB"]);
    // Another connection of the same addresses.
    let other = Row { inode: Inode(77), ..connection.clone() };
    let replaced = pass(&mut snapshot, std::slice::from_ref(&other), vec![]);
    assert_eq!(replaced, ["closed 1", "opened 1"]);
    // Two listeners share an address (SO_REUSEPORT); a row twice is one socket.
    let listener = |inode| Row {
        remote: Address::Inet(SocketAddr::from(([0, 0, 0, 0], 0))),
        inode: Inode(inode),
        ..Row { cookie: None, ..row(5, State::Listen) }
    };
    let two = [other, listener(8), listener(9), listener(9)];
    assert_eq!(pass(&mut snapshot, &two, vec![]), ["opened 5", "opened 5"]);
    assert_eq!(snapshot.len(), 3);
}

#[test]
fn the_last_tcp_info_is_that_of_the_end() {
    let extra = |first: u8| {
        let tcp_info = Some(vec![first; 8].into());
        Some(Box::new(crate::sockets::row::Extra { tcp_info, ..Default::default() }))
    };
    let mut snapshot = Snapshot::default();
    let one = Row { extra: extra(1), ..row(1, State::Established) };
    pass(&mut snapshot, std::slice::from_ref(&one), vec![]);
    let last = End { row: Row { extra: extra(2), ..one }, at: at(7) };
    let mut over = snapshot.pass().finish(vec![last], &mut |_| Again::Gone, &|_| true);
    let Some(Change::Closed(closed)) = over.pop() else { panic!("{over:?}") };
    assert_eq!(closed.socket.row.extra, extra(2));
    assert_eq!(closed.socket.row.state, State::Established, "as it was last seen");
}

/// What somebody has who follows the changes alone.
fn apply(
    mut known: BTreeMap<String, Socket>,
    changes: &[Change],
    snapshot: &Snapshot,
) -> BTreeMap<String, Socket> {
    let name = |key: &Key| format!("{key:?}");
    for change in changes {
        match change {
            Change::Closed(closed) => {
                let old = known.remove(&name(&Key::of(&closed.socket.row)));
                assert_eq!(old.is_some(), closed.was_seen, "{change:?}");
            }
            Change::Opened(key) => {
                let now = snapshot.get(key).unwrap().clone();
                assert!(known.insert(name(key), now).is_none(), "{change:?}");
            }
            Change::Changed(key, old) => {
                let now = snapshot.get(key).unwrap().clone();
                assert_ne!(now, **old);
                let was = known.insert(name(key), now);
                assert_eq!(was.as_ref(), Some(&**old));
            }
        }
    }
    known
}

/// A row of few sockets, so that passes have many in common.
fn any_row() -> impl Strategy<Value = Row<'static>> {
    let state = prop_oneof![Just(State::Established), Just(State::CloseWait)];
    (0..12_u64, state, any::<bool>(), 0..2_u32, 0..3_u64, any::<bool>()).prop_map(
        |(id, state, with_cookie, recv_q, inode, waits)| {
            let base = row(id, state);
            let inode = if inode == 0 { Inode(0) } else { Inode(inode * 100 + id) };
            let one = match with_cookie {
                true => Row { recv_q, ..base },
                false => Row { cookie: None, inode, recv_q, ..base },
            };
            if waits { waiting(&one) } else { one }
        },
    )
}

fn any_pass() -> impl Strategy<Value = (Vec<Row<'static>>, Vec<End>)> {
    let ends = proptest::collection::vec((0..24_u64, 0..9_u64), 0..5);
    (proptest::collection::vec(any_row(), 0..20), ends).prop_map(|(rows, ends)| {
        let state = State::Established;
        (
            rows,
            ends.into_iter().map(|(id, second)| end(&row(id, state), second)).collect(),
        )
    })
}

proptest! {
    #[test]
    fn the_changes_lead_from_each_pass_to_the_next(
        passes in proptest::collection::vec(any_pass(), 1..8),
    ) {
        let mut snapshot = Snapshot::default();
        let mut follower = BTreeMap::new();
        for (rows, ends) in passes {
            let mut pass = snapshot.pass();
            for row in &rows {
                pass.row(&Listed { row, owners: &[], no_owner: None });
            }
            let changes = pass.finish(ends, &mut |_| Again::Gone, &|_| true);
            follower = apply(follower, &changes, &snapshot);
            // As it is: what was read first of each socket, and nothing else.
            let mut seen = HashSet::new();
            let expected: Vec<&Row<'_>> =
                rows.iter().filter(|row| seen.insert(Key::of(row))).collect();
            prop_assert_eq!(snapshot.len(), expected.len());
            for row in expected {
                let kept = snapshot.get(&Key::of(row)).unwrap();
                prop_assert_eq!(&kept.row, row);
            }
            // Timers go on without a word, so that the rest of a row is compared.
            let still = |row: &Row<'static>| Row { timer: None, ..row.clone() };
            for (key, socket) in snapshot.iter() {
                let followed = &follower[&format!("{key:?}")];
                prop_assert_eq!(still(&followed.row), still(&socket.row));
            }
            prop_assert_eq!(follower.len(), snapshot.len());
        }
    }
}

#[test]
fn a_kept_socket_is_small() {
    // Beside it there are its owners, 28 bytes each, and what was asked for beyond a row.
    assert!(size_of::<Known>() <= 256, "{}", size_of::<Known>());
    // A table has up to twice as many places as sockets.
    assert_eq!(size_of::<(Key, Box<Known>)>(), 24);
}
