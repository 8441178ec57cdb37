mod live;

use super::*;
use crate::sockets::model::States;
use crate::sockets::row::Address;
use crate::sockets::select::{Details, Versions};
use crate::sockets::source::Lack;
use crate::testing::tree;

const TCP_HEADER: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr \
    tm->when retrnsmt   uid  timeout inode\n";
const UNIX_HEADER: &str = "Num       RefCount Protocol Flags    Type St Inode Path\n";

fn selection(tables: Tables) -> Selection {
    Selection {
        tables,
        versions: Versions::BOTH,
        states: States::ALL,
        details: Details::default(),
        program: None,
    }
}

fn read(root: &ProcRoot, selection: &Selection) -> (Vec<Row<'static>>, Vec<Lack>) {
    let mut rows = Vec::new();
    let passed = ProcSource::new(root.clone())
        .rows(selection, &mut |row| {
            rows.push(row.into_owned());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(!passed.interrupted);
    (rows, passed.lacking)
}

fn tcp_line(n: u32, remote_port: u16, state: u8, inode: u32) -> String {
    let at = u32::from_ne_bytes([192, 0, 2, 1]);
    format!(
        "{n:4}: {at:08X}:0050 {at:08X}:{remote_port:04X} {state:02X} 00000000:00000000 \
         00:00000000 00000000     0        0 {inode} 1 0000000000000000 20 4 30 10 -1\n"
    )
}

fn inodes(rows: &[Row<'_>]) -> Vec<u64> {
    rows.iter().map(|row| row.inode.0).collect()
}

fn whats(lacking: &[Lack]) -> String {
    lacking.iter().map(|lack| format!("{lack}\n")).collect()
}

#[test]
fn a_damaged_line_is_named_and_the_others_read() {
    let (one, two) = (tcp_line(0, 1, 1, 11), tcp_line(2, 3, 1, 12));
    let text = format!("{TCP_HEADER}{one}   1: 0100007F:00\n{two}\n");
    let (_tree, root) = tree(&[("net/tcp", &text), ("net/tcp6", TCP_HEADER)]);
    let (rows, lacking) = read(&root, &selection(Tables::TCP));
    assert_eq!(inodes(&rows), [11, 12]);
    let said = whats(&lacking);
    assert!(said.contains("1 line of net/tcp: not of the known"), "{said}");
}

#[test]
fn a_table_without_its_header_loses_no_row() {
    let (_tree, root) = tree(&[("net/tcp", &tcp_line(0, 1, 1, 11))]);
    let (rows, lacking) = read(&root, &selection(Tables::TCP));
    assert_eq!(inodes(&rows), [11]);
    let said = whats(&lacking);
    assert!(!said.contains(" of net/"), "{said}");
    assert!(said.contains("net/tcp6: No such file"), "a fixture may lack it: {said}");
}

#[test]
fn what_was_not_selected_is_not_read() {
    // A folder can be opened and not read.
    let (_tree, root) = tree(&[
        ("net/tcp", &format!("{TCP_HEADER}{}", tcp_line(0, 1, 1, 11))),
        ("net/tcp6/x", ""),
        ("net/udp/x", ""),
        ("net/unix/x", ""),
    ]);
    let v4 = Versions { v4: true, v6: false };
    let tcp4 = Selection { versions: v4, ..selection(Tables::TCP) };
    let (rows, lacking) = read(&root, &tcp4);
    assert_eq!(rows.len(), 1);
    assert!(!whats(&lacking).contains("directory"), "{lacking:?}");
    let both = Selection { versions: v4, ..selection(Tables::TCP | Tables::UDP) };
    let (rows, lacking) = read(&root, &both);
    assert_eq!(rows.len(), 1);
    assert!(whats(&lacking).contains("net/udp: Is a directory"), "{lacking:?}");
}

#[test]
fn only_the_states_asked_for_are_given() {
    let text = [(1, 11), (10, 12), (6, 0), (8, 13)]
        .iter()
        .fold(TCP_HEADER.to_owned(), |t, &(state, inode)| {
            t + &tcp_line(0, u16::from(state), state, inode)
        });
    let (_tree, root) = tree(&[("net/tcp", &text), ("net/tcp6", "")]);
    let of = |states| {
        let wanted = Selection { states, ..selection(Tables::TCP) };
        inodes(&read(&root, &wanted).0)
    };
    assert_eq!(of(States::LISTEN), [12]);
    assert_eq!(of(States::CONNECTED), [11, 13]);
    assert_eq!(of(States::TIME_WAIT | States::LISTEN), [12, 0]);
}

#[test]
fn a_row_given_again_is_left_out_and_a_twin_is_not() {
    let rows = [(1, 1, 11), (2, 1, 12), (2, 10, 13), (2, 10, 14), (3, 6, 0)];
    let page: String = rows
        .iter()
        .map(|&(port, state, inode)| tcp_line(0, port, state, inode))
        .collect();
    let text = format!("{TCP_HEADER}{page}{page}{}", tcp_line(0, 4, 1, 15));
    let (_tree, root) = tree(&[("net/tcp", &text), ("net/tcp6", "")]);
    let (rows, lacking) = read(&root, &selection(Tables::TCP));
    assert_eq!(inodes(&rows), [11, 12, 13, 14, 0, 15]);
    assert!(!whats(&lacking).contains(" of net/"), "{lacking:?}");
}

#[test]
fn sockets_in_one_accept_queue_are_all_given() {
    let queued = "0000000000000000: 00000003 00000000 00000000 0001 02     0 /run/x\n";
    let text = format!("{UNIX_HEADER}{queued}{queued}{queued}");
    let (_tree, root) = tree(&[("net/unix", &text)]);
    let (rows, _) = read(&root, &selection(Tables::UNIX));
    assert_eq!(rows.iter().filter(|row| row.is_queued()).count(), 3);
}

#[test]
fn a_unix_name_with_newlines_is_one_name() {
    let text = format!(
        "{UNIX_HEADER}\
         00: 00000002 00000000 00010000 0001 01     7 /a\nb\n\n\
         00: 00000002 00000000 00000000 0002 01     8\n\
         what is this\n\
         00: 00000002 00000000 00000000 0001 01     9 \nx\n"
    );
    let (_tree, root) = tree(&[("net/unix", &text)]);
    let (rows, lacking) = read(&root, &selection(Tables::UNIX));
    let names: Vec<(u64, Option<Vec<u8>>)> = rows
        .iter()
        .map(|row| match &row.local {
            Address::Unix { name, inode } => {
                (inode.0, name.as_ref().map(|name| name.bytes().to_vec()))
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let named = |name: &str| Some(name.as_bytes().to_vec());
    assert_eq!(names, [(7, named("/a\nb\n")), (8, None), (9, named("\nx"))]);
    assert!(whats(&lacking).contains("1 line of net/unix"), "{lacking:?}");
}

#[test]
fn reading_stops_where_it_is_told_to() {
    let text = (0..100).fold(TCP_HEADER.to_owned(), |text, n| {
        text + &tcp_line(n.into(), n, 1, u32::from(n) + 1)
    });
    let (_tree, root) = tree(&[("net/tcp", &text), ("net/tcp6/x", "")]);
    let mut n = 0;
    let passed = ProcSource::new(root).rows(&selection(Tables::TCP), &mut |_| {
        n += 1;
        if n == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(n, 7);
    assert_eq!(passed.unwrap().lacking, [], "tcp6 was not tried");
}

#[test]
fn a_root_without_anything_is_an_error_that_names_it() {
    let (tree, root) = tree(&[]);
    let mut source = ProcSource::new(root.clone());
    let error = source.rows(&selection(Tables::ALL), &mut |_| panic!()).unwrap_err();
    let at = tree.path().display().to_string();
    assert!(
        error.to_string().starts_with(&format!("{at}/thread-self/net: No such")),
        "{error}"
    );
    std::fs::create_dir(tree.path().join("net")).unwrap();
    let error = source.rows(&selection(Tables::ALL), &mut |_| panic!()).unwrap_err();
    assert!(error.to_string().starts_with(&format!("{at}/net: No such")), "{error}");
}

#[test]
fn the_tables_of_another_pid_namespace_are_those_of_its_first_process() {
    let text = format!("{TCP_HEADER}{}", tcp_line(0, 1, 1, 11));
    let (tree, root) = tree(&[("1/net/tcp", &text)]);
    // As in a procfs in which this process has no number.
    std::os::unix::fs::symlink("self/net", tree.path().join("net")).unwrap();
    assert_eq!(inodes(&read(&root, &selection(Tables::TCP)).0), [11]);
}

#[test]
fn what_proc_cannot_tell_is_named() {
    let details =
        Details { tcp_info: true, memory: true, options: true, unix_peers: true };
    let all = Selection { details, ..selection(Tables::ALL) };
    let said = whats(&read(&ProcRoot::default(), &all).1);
    for what in [
        "backlogs and drops of listeners",
        "peers, queues and users of unix sockets",
        "cookies, marks and cgroups",
        "tcp_info",
        "memory",
        "socket options",
        "bound and neither listen",
    ] {
        assert!(said.contains(what), "{what} is not in {said}");
    }
    let udp = Selection { states: States::CLOSE, ..selection(Tables::UDP) };
    let said = whats(&read(&ProcRoot::default(), &udp).1);
    assert!(!said.contains("unix") && !said.contains("listeners"), "{said}");
}
