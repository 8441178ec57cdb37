use super::*;
use crate::testing::tree;
use std::path::Path;

fn server() -> ProcessView {
    ProcessView {
        pid: 4711,
        tid: 4711,
        comm: "api".into(),
        state: 'S',
        uid: 104,
        threads: 1,
        nofile_soft: Some(20_000),
        nofile_hard: Some(20_000),
        open_fds: Some(7),
        started: 1,
    }
}

fn host() -> (tempfile::TempDir, ProcRoot) {
    tree(&[
        ("sys/fs/nr_open", "1048576\n"),
        ("sys/fs/file-nr", "2186\t0\t2466186\n"),
        ("sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
        ("sys/net/ipv4/ip_local_reserved_ports", "8080,40000-40009\n"),
        ("sys/net/core/somaxconn", "4096\n"),
        ("sys/net/netfilter/nf_conntrack_count", "310\n"),
        ("sys/net/netfilter/nf_conntrack_max", "262144\n"),
        ("meminfo", "MemTotal: 2000 kB\nMemAvailable: 1000 kB\nSlab: 10 kB\n"),
    ])
}

fn find<'a>(all: &'a [Ceiling], name: &str) -> &'a Ceiling {
    all.iter().find(|ceiling| ceiling.name == name).unwrap()
}

#[test]
fn the_tightest_comes_first_and_a_queue_bounds_no_connections() {
    let (_tree, root) = host();
    let server = server();
    let query = CeilingQuery {
        process: Some(&server),
        side: Side::Server,
        loopback: true,
        ..CeilingQuery::default()
    };
    let all = ceilings(&root, &query);
    let names: Vec<&str> = all.iter().map(|ceiling| &*ceiling.name).collect();
    assert_eq!(
        names,
        [
            MEMORY,
            NOFILE_SOFT,
            NOFILE_HARD,
            PORT_RANGE,
            PORTS_BOUND,
            CONNTRACK,
            NR_OPEN,
            FILE_MAX,
            SOMAXCONN
        ]
    );
    assert_eq!(binding(&all).unwrap().name, MEMORY);
    assert_eq!(binding(&all[8..]), None);
}

#[test]
fn a_limit_of_descriptors_is_raised_where_it_is() {
    let (_tree, root) = host();
    let server = server();
    let query = CeilingQuery {
        process: Some(&server),
        side: Side::Server,
        ..CeilingQuery::default()
    };
    let all = ceilings(&root, &query);
    let soft = find(&all, NOFILE_SOFT);
    assert_eq!((soft.value, soft.in_use, soft.room), (20_000, Some(7), 19_993));
    assert_eq!(soft.side, Side::Server);
    assert_eq!(soft.remedy.now, "prlimit --pid 4711 --nofile=65536:65536");
    assert!(soft.source.ends_with("/4711/limits"));
}

#[test]
fn each_fd_table_has_the_whole_limit() {
    let (_tree, root) = host();
    let client = server();
    let query = CeilingQuery {
        process: Some(&client),
        fd_tables: 3,
        need: Some(90_000),
        ..CeilingQuery::default()
    };
    let all = ceilings(&root, &query);
    let soft = find(&all, NOFILE_SOFT);
    assert_eq!((soft.value, soft.room), (20_000, 3 * 19_993));
    assert_eq!(soft.remedy.now, "prlimit --pid 4711 --nofile=30720:30720");
}

#[test]
fn both_ends_on_one_host_count_twice() {
    let (_tree, root) = host();
    let loopback = CeilingQuery { loopback: true, ..CeilingQuery::default() };
    let near = ceilings(&root, &loopback);
    let far = ceilings(&root, &CeilingQuery::default());
    let room = |all: &[Ceiling], name| find(all, name).room;
    assert_eq!(room(&far, FILE_MAX), 2_464_000);
    assert_eq!(room(&near, FILE_MAX), 1_232_000);
    assert_eq!(room(&far, MEMORY), 1_024_000 / END_BYTES);
    assert_eq!(room(&near, MEMORY), 1_024_000 / PAIR_BYTES);
    assert_eq!(room(&near, CONNTRACK), 261_834, "one entry has both ends");
}

#[test]
fn ports_are_counted_without_the_reserved_for_each_pair_of_addresses() {
    let (_tree, root) = host();
    let one = ceilings(&root, &CeilingQuery::default());
    assert_eq!(find(&one, PORT_RANGE).room, 28_232 - 10);
    assert_eq!(find(&one, PORTS_BOUND).room, 64_511 - 11);
    let query = CeilingQuery {
        sources: 2,
        destinations: 3,
        ports_in_use: 12,
        ..CeilingQuery::default()
    };
    let many = ceilings(&root, &query);
    assert_eq!(find(&many, PORT_RANGE).room, (28_232 - 10) * 6 - 12);
    let remedy = &find(&many, PORT_RANGE).remedy.now;
    assert_eq!(remedy, "sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"");
}

#[test]
fn enough_source_addresses_are_named_for_what_is_needed() {
    let (_tree, root) = host();
    let query = CeilingQuery { need: Some(1_000_000), ..CeilingQuery::default() };
    let all = ceilings(&root, &query);
    let remedy = &find(&all, PORTS_BOUND).remedy.now;
    assert_eq!(remedy, "sockscope probe --source 127.1.0.0/28");
    let remedy = &find(&all, FILE_MAX).remedy.now;
    assert_eq!(remedy, "sysctl -w fs.file-max=2466816");
}

#[test]
fn what_this_host_does_not_have_is_no_ceiling() {
    let (_tree, root) = tree(&[("sys/net/core/somaxconn", "128\n")]);
    let all = ceilings(&root, &CeilingQuery::default());
    let names: Vec<&str> = all.iter().map(|ceiling| &*ceiling.name).collect();
    assert_eq!(names, [PORTS_BOUND, SOMAXCONN]);
    assert_eq!(find(&all, SOMAXCONN).room, 129);
}

#[test]
fn this_host_has_ceilings_and_the_sysctls_of_their_remedies() {
    let all = ceilings(&ProcRoot::default(), &CeilingQuery::default());
    let own = find(&all, NOFILE_SOFT);
    assert!(own.in_use.unwrap() > 0 && own.room < own.value);
    for ceiling in &all {
        let Some(set) = ceiling.remedy.now.strip_prefix("sysctl -w ") else {
            continue;
        };
        let name = set.split('=').next().unwrap().replace('.', "/");
        let file = Path::new("/proc/sys").join(name);
        assert!(file.exists(), "{}", ceiling.remedy.now);
    }
}
