use super::*;
use crate::host::remedy::unpasteable;
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
    let found = all.iter().find(|ceiling| ceiling.name == name).unwrap();
    assert_eq!(unpasteable(&found.remedy.now), None, "{found:?}");
    found
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
        assert_eq!(unpasteable(&ceiling.remedy.now), None, "{ceiling:?}");
        assert_eq!(unpasteable(&ceiling.remedy.typed()), None, "{ceiling:?}");
        let Some(set) = ceiling.remedy.now.strip_prefix("sysctl -w ") else {
            continue;
        };
        let name = set.split('=').next().unwrap().replace('.', "/");
        let file = Path::new("/proc/sys").join(name);
        assert!(file.exists(), "{}", ceiling.remedy.now);
    }
}

fn unread<'a>(survey: &'a Survey, name: &str) -> &'a Unread {
    survey.unread.iter().find(|unread| unread.name == name).unwrap()
}

fn setting<'a>(survey: &'a Survey, name: &str) -> &'a Setting {
    survey.settings.iter().find(|setting| setting.name == name).unwrap()
}

#[test]
fn threads_are_counted_for_servers_that_have_one_for_each_connection() {
    let (tree, root) = tree(&[
        ("sys/kernel/threads-max", "192730\n"),
        ("sys/kernel/pid_max", "32768\n"),
        ("sys/vm/max_map_count", "65530\n"),
        ("loadavg", "0.20 0.18 0.12 1/1768 11206\n"),
        ("4711/maps", "a\nb\nc\nd\n"),
        ("4711/cgroup", "0::/a.service\n"),
        ("self/mountinfo", "30 25 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
        ("sys/fs/cgroup/a.service/pids.max", "400\n"),
        ("sys/fs/cgroup/a.service/pids.current", "7\n"),
    ]);
    let server = server();
    let query = CeilingQuery {
        process: Some(&server),
        sys_root: tree.path(),
        need: Some(1000),
        ..CeilingQuery::default()
    };
    let found = survey(&root, &query);
    let room = |name| find(&found.ceilings, name).room;
    assert_eq!(room(PID_MAX), 31_000);
    assert_eq!(room(THREADS_MAX), 190_962);
    assert_eq!(room(CGROUP_PIDS), 393);
    assert_eq!(room(MAP_COUNT), (65_530 - 4) / 2);
    let remedy = &find(&found.ceilings, CGROUP_PIDS).remedy;
    assert!(remedy.now.starts_with("echo 2048 > "), "{}", remedy.now);
    assert!(remedy.now.ends_with("/a.service/pids.max"), "{}", remedy.now);
    assert_eq!(remedy.persistent, "TasksMax=2048");
    let bounds = |c: &Ceiling| c.bounds == Bounds::Threads && c.side == Side::Server;
    let of_threads = [PID_MAX, THREADS_MAX, CGROUP_PIDS, MAP_COUNT];
    assert!(of_threads.iter().all(|name| bounds(find(&found.ceilings, name))));
    assert!(binding(&found.ceilings).is_none_or(|c| !of_threads.contains(&&*c.name)));
    let query = CeilingQuery { need: Some(10_000_000), ..query };
    let found = survey(&root, &query);
    let remedy = &find(&found.ceilings, PID_MAX).remedy;
    assert!(remedy.lines.is_empty() && remedy.now.starts_with("# no host"), "{remedy:?}");
}

#[test]
fn memory_of_a_cgroup_is_a_ceiling_at_what_connections_cost() {
    let (tree, root) = tree(&[
        ("4711/cgroup", "4:memory:/x\n"),
        (
            "self/mountinfo",
            "1 2 0:1 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
        ),
        ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "10000000\n"),
        ("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "500000\n"),
    ]);
    let server = server();
    let query = CeilingQuery {
        process: Some(&server),
        sys_root: tree.path(),
        loopback: true,
        need: Some(2_000),
        ..CeilingQuery::default()
    };
    let found = survey(&root, &query);
    let ceiling = find(&found.ceilings, CGROUP_MEMORY);
    assert_eq!((ceiling.value, ceiling.in_use), (10_000_000, Some(500_000)));
    assert_eq!((ceiling.room, ceiling.side), (1_000, Side::Both));
    assert!(ceiling.source.ends_with("at 9500 bytes a connection, idle (documented)"));
    let measured = CeilingQuery { end_bytes: Some(4_000), ..query };
    let found = survey(&root, &measured);
    let ceiling = find(&found.ceilings, CGROUP_MEMORY);
    assert_eq!(ceiling.room, 9_500_000 / 8_000);
    assert!(ceiling.source.ends_with("at 8000 bytes a connection, idle (measured)"));
    // 2,000 × 8,000, a sixteenth more and 32 MiB, on top of what is in use.
    let to: u64 = 500_000 + 17_000_000 + (32 << 20) + 64;
    let to = to.next_multiple_of(1024);
    assert!(ceiling.remedy.now.starts_with(&format!("echo {to} > ")), "{ceiling:?}");
}

#[test]
fn what_is_not_there_and_what_may_not_be_read_are_told_apart() {
    let (tree, root) =
        tree(&[("sys/net/core/somaxconn", "many\n"), ("sys/fs/file-nr", "x\n")]);
    let query = CeilingQuery {
        hidden_process: Some("not permitted (uid 104)"),
        sys_root: tree.path(),
        ..CeilingQuery::default()
    };
    let found = survey(&root, &query);
    for name in [NOFILE_SOFT, NOFILE_HARD, CGROUP_MEMORY, CGROUP_PIDS] {
        let hidden = unread(&found, name);
        assert_eq!((&*hidden.why, hidden.absent), ("not permitted (uid 104)", false));
    }
    for name in [SOMAXCONN, FILE_MAX] {
        assert!(!unread(&found, name).absent, "{name}");
    }
    assert_eq!(unread(&found, SOMAXCONN).why, "not one number");
    for name in [
        NR_OPEN,
        EPOLL_WATCHES,
        PORT_RANGE,
        CONNTRACK,
        TW_BUCKETS,
        ORPHANS,
        SYN_BACKLOG,
        MEMORY,
        TCP_MEM,
        THREADS_MAX,
        PID_MAX,
        MAP_COUNT,
        SYSTEMD_NOFILE,
    ] {
        assert!(unread(&found, name).absent, "{name}");
    }
    let why = &unread(&found, CONNTRACK).why;
    assert_eq!(why, "nf_conntrack is not loaded: nothing is tracked");
}

#[test]
fn a_namespace_that_cannot_be_looked_into_is_not_taken_for_ours() {
    let (_tree, root) = host();
    let why = "the network namespace of pid 7: Permission denied";
    let query = CeilingQuery { hidden_network: Some(why), ..CeilingQuery::default() };
    let found = survey(&root, &query);
    for name in [PORT_RANGE, PORTS_BOUND, CONNTRACK, SOMAXCONN] {
        assert_eq!(unread(&found, name).why, why);
        assert!(found.ceilings.iter().all(|ceiling| ceiling.name != name), "{name}");
    }
}

#[test]
fn a_listener_s_own_backlog_is_raised_where_it_was_set() {
    let (_tree, root) = host();
    let listener = |backlog| Backlog { address: ":80".into(), backlog, queue_len: 9 };
    let (own, all) = ([listener(128)], [listener(4096)]);
    let query =
        CeilingQuery { side: Side::Server, listeners: &own, ..CeilingQuery::default() };
    let found = survey(&root, &query);
    let ceiling = find(&found.ceilings, "backlog of :80");
    assert_eq!((ceiling.value, ceiling.in_use, ceiling.room), (128, Some(9), 120));
    assert!(
        ceiling.remedy.now.starts_with("# listen() with a backlog of"),
        "{ceiling:?}"
    );
    // As large as somaxconn: that may be what cut it.
    let query = CeilingQuery { listeners: &all, ..query };
    let found = survey(&root, &query);
    let ceiling = find(&found.ceilings, "backlog of :80");
    let set = "sysctl -w net.core.somaxconn=65536  # and listen() with";
    assert!(ceiling.remedy.now.starts_with(set), "{ceiling:?}");
}

#[test]
fn settings_say_what_they_do() {
    let (_tree, root) = tree(&[
        ("sys/net/ipv4/tcp_syncookies", "0\n"),
        ("sys/net/ipv4/tcp_max_syn_backlog", "2048\n"),
        ("sys/net/ipv4/tcp_abort_on_overflow", "1\n"),
        ("sys/net/ipv4/tcp_rmem", "4096\t131072\t33554432\n"),
        ("sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
        ("sys/net/ipv4/tcp_mem", "100\t200\t300\n"),
        ("sys/net/netfilter/nf_conntrack_count", "0\n"),
        ("sys/net/netfilter/nf_conntrack_max", "262144\n"),
        ("sys/net/ipv4/tcp_max_tw_buckets", "131072\n"),
        (
            "net/sockstat",
            "sockets: used 51\nTCP: inuse 18 orphan 5 tw 303 alloc 7 mem 20\n",
        ),
    ]);
    let found = survey(&root, &CeilingQuery::default());
    let abort = setting(&found, "tcp_abort_on_overflow");
    assert!(abort.value == "1" && abort.meaning.ends_with("gets a RST"), "{abort:?}");
    assert_eq!(setting(&found, "tcp_rmem").value, "4096 131072 33554432");
    assert!(setting(&found, "tcp_syncookies").meaning.starts_with("off:"));
    let tracked = setting(&found, CONNTRACK);
    assert!(tracked.meaning.ends_with("nothing in this namespace is tracked"));
    // Without cookies the queue of handshakes is a ceiling, at three quarters.
    let handshakes = find(&found.ceilings, SYN_BACKLOG);
    assert_eq!((handshakes.room, handshakes.bounds), (1536, Bounds::AcceptQueue));
    let page = rustix::param::page_size() as u64;
    let buffers = find(&found.ceilings, TCP_MEM);
    assert_eq!((buffers.value, buffers.in_use), (300 * page, Some(20 * page)));
    assert_eq!((buffers.room, buffers.bounds), (280 * page / 8192, Bounds::Traffic));
    let waiting = find(&found.ceilings, TW_BUCKETS);
    assert_eq!((waiting.in_use, waiting.room), (Some(303), 131_072 - 303));
    assert_eq!(waiting.bounds, Bounds::Closed);
}

#[test]
fn a_unix_socket_needs_neither_ports_nor_handshakes() {
    let (_tree, root) = host();
    let query = CeilingQuery { is_unix: true, ..CeilingQuery::default() };
    let found = survey(&root, &query);
    let names = found.ceilings.iter().map(|ceiling| &*ceiling.name);
    let names: Vec<&str> = names.chain(found.unread.iter().map(|u| &*u.name)).collect();
    for name in [PORT_RANGE, PORTS_BOUND, CONNTRACK, TCP_MEM, SYN_BACKLOG, TW_BUCKETS] {
        assert!(!names.contains(&name), "{name}");
    }
    assert!(names.contains(&SOMAXCONN) && names.contains(&NOFILE_SOFT));
}

#[test]
fn what_systemd_will_give_is_no_bound_on_what_runs() {
    let (tree, root) = tree(&[
        ("run/systemd/system/x", ""),
        ("etc/systemd/system.conf", "#DefaultLimitNOFILE=1024:524288\n"),
        ("etc/systemd/system/a.service", "[Service]\nLimitNOFILE=300\n"),
        ("4711/cgroup", "0::/system.slice/a.service\n"),
    ]);
    let server = server();
    let query = CeilingQuery {
        process: Some(&server),
        sys_root: tree.path(),
        ..CeilingQuery::default()
    };
    let found = survey(&root, &query);
    let default = find(&found.ceilings, SYSTEMD_NOFILE);
    assert_eq!((default.value, default.bounds), (1024, Bounds::NextStart));
    let own = find(&found.ceilings, "a.service LimitNOFILE");
    assert_eq!((own.value, &*own.remedy.persistent), (300, "LimitNOFILE=65536"));
    assert_eq!(binding(&found.ceilings).unwrap().name, NOFILE_SOFT);
}

#[test]
fn tables_that_share_a_listener_have_their_limits_together() {
    let (_tree, root) = host();
    let one = server();
    let other = ProcessView { pid: 4712, open_fds: Some(100), ..one.clone() };
    let query = CeilingQuery {
        side: Side::Server,
        need: Some(50_000),
        ..CeilingQuery::default()
    };
    let both = [one.clone(), other.clone()];
    let [soft, hard] = together(&root, both.into_iter(), &query).unwrap();
    assert_eq!((soft.value, soft.in_use, soft.room), (40_000, Some(107), 39_893));
    assert_eq!(hard.room, soft.room);
    let raise = "prlimit --pid 4711 --nofile=25600:25600 && \
        prlimit --pid 4712 --nofile=25600:25600";
    assert_eq!(soft.remedy.now, raise);
    let unread = ProcessView { nofile_soft: None, ..other };
    let some = [one, unread];
    assert_eq!(
        together(&root, some.into_iter(), &query),
        None,
        "a sum of half is a guess"
    );
}
