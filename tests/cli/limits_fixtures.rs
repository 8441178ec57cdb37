//! `sockscope limits` on hosts of other kinds, as trees of files: kernels of several
//! ages, cgroups of version 1, version 2 and both, containers with limits of their own.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::fixtures::limits::Limits;
use crate::fixtures::probing::stdout;
use crate::fixtures::run;

/// /proc/PID/limits with these limits of descriptors.
fn limits(soft: &str, hard: &str) -> String {
    let line = |name: &str, soft: &str, hard: &str, unit: &str| {
        format!("{name:<25} {soft:<20} {hard:<20} {unit:<10}\n")
    };
    let unlimited = |name, unit| line(name, "unlimited", "unlimited", unit);
    [
        line("Limit", "Soft Limit", "Hard Limit", "Units"),
        unlimited("Max cpu time", "seconds"),
        unlimited("Max file size", "bytes"),
        unlimited("Max data size", "bytes"),
        line("Max stack size", "8388608", "unlimited", "bytes"),
        line("Max core file size", "0", "unlimited", "bytes"),
        unlimited("Max resident set", "bytes"),
        line("Max processes", "96365", "96365", "processes"),
        line("Max open files", soft, hard, "files"),
        line("Max locked memory", "8388608", "8388608", "bytes"),
        unlimited("Max address space", "bytes"),
        unlimited("Max file locks", "locks"),
        line("Max pending signals", "96365", "96365", "signals"),
        line("Max msgqueue size", "819200", "819200", "bytes"),
        line("Max nice priority", "0", "0", ""),
        line("Max realtime priority", "0", "0", ""),
        unlimited("Max realtime timeout", "us"),
    ]
    .concat()
}

/// A host as a tree of files: /proc under `proc`, the rest beside it.
struct Host {
    tree: TempDir,
}

impl Host {
    /// With process 900, and sysctls that every kernel since 2.6 has.
    fn new(soft: &str, hard: &str) -> Self {
        let stat = "900 (nginx) S 1 900 900 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 99887 1 \
            1 18446744073709551615 1 1 1 1 1 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
        let host = Self { tree: tempfile::tempdir().unwrap() };
        host.with(&[
            ("proc/900/stat", stat),
            ("proc/900/status", "Name:\tnginx\nUid:\t33\t33\t33\t33\n"),
            ("proc/900/limits", &limits(soft, hard)),
            ("proc/900/maps", "a\nb\n"),
            ("proc/900/fd/0", ""),
            ("proc/900/fd/1", ""),
            ("proc/sys/fs/nr_open", "1048576\n"),
            ("proc/sys/fs/file-nr", "2000\t0\t400000\n"),
            ("proc/sys/fs/epoll/max_user_watches", "900000\n"),
            ("proc/sys/kernel/threads-max", "63000\n"),
            ("proc/sys/kernel/pid_max", "32768\n"),
            ("proc/sys/vm/max_map_count", "65530\n"),
            ("proc/loadavg", "0.1 0.1 0.1 1/300 900\n"),
            (
                "proc/meminfo",
                "MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\nSlab: 1 kB\n",
            ),
            (
                "proc/net/sockstat",
                "sockets: used 9\nTCP: inuse 1 orphan 0 tw 5 alloc 2 mem 1\n",
            ),
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("proc/sys/net/ipv4/ip_local_reserved_ports", "\n"),
            ("proc/sys/net/ipv4/tcp_max_tw_buckets", "32768\n"),
            ("proc/sys/net/ipv4/tcp_max_orphans", "32768\n"),
            ("proc/sys/net/ipv4/tcp_max_syn_backlog", "512\n"),
            ("proc/sys/net/ipv4/tcp_syncookies", "1\n"),
            ("proc/sys/net/ipv4/tcp_abort_on_overflow", "0\n"),
            ("proc/sys/net/ipv4/tcp_mem", "90000\t120000\t180000\n"),
            ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
            ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
            ("proc/sys/net/core/somaxconn", "128\n"),
        ])
    }

    fn with(self, files: &[(&str, &str)]) -> Self {
        for (name, text) in files {
            let path = self.tree.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        self
    }

    fn without(self, names: &[&str]) -> Self {
        for name in names {
            fs::remove_file(self.tree.path().join(name)).unwrap();
        }
        self
    }

    fn args(&self, more: &[&str]) -> Vec<String> {
        let root = self.tree.path().display();
        let words = ["--pid", "900"].iter().chain(more).map(|word| (*word).to_owned());
        words
            .chain([format!("--proc-root={root}/proc"), format!("--sys-root={root}")])
            .collect()
    }

    fn limits(&self, more: &[&str]) -> Limits {
        let args = self.args(more);
        Limits::of(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// Every name that a host may have, whatever its kind: none is left out in silence.
const ALWAYS: [&str; 21] = [
    "RLIMIT_NOFILE soft",
    "RLIMIT_NOFILE hard",
    "fs.nr_open",
    "fs.file-max",
    "epoll max_user_watches",
    "systemd DefaultLimitNOFILE",
    "ip_local_port_range",
    "source ports bound",
    "net.core.somaxconn",
    "tcp_max_syn_backlog",
    "tcp_syncookies",
    "tcp_abort_on_overflow",
    "nf_conntrack_max",
    "tcp_max_tw_buckets",
    "tcp_max_orphans",
    "memory",
    "cgroup memory",
    "tcp_mem",
    "kernel.threads-max",
    "cgroup pids.max",
    "vm.max_map_count",
];

fn has_all(found: &Limits) {
    for name in ALWAYS {
        let row = found.row(name);
        let says = ["value", "text", "note"].iter().any(|key| !row[key].is_null());
        assert!(says, "{row}");
    }
}

#[test]
fn a_service_of_systemd_on_cgroup_version_2() {
    let service = "sys/fs/cgroup/system.slice/nginx.service";
    let host = Host::new("65535", "524288").with(&[
        ("proc/900/cgroup", "0::/system.slice/nginx.service\n"),
        ("proc/self/mountinfo", "30 25 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
        (&format!("{service}/memory.max"), "max\n"),
        (&format!("{service}/memory.high"), "96000000\n"),
        (&format!("{service}/memory.current"), "60000000\n"),
        (&format!("{service}/memory.stat"), "anon 1\ninactive_file 12000000\n"),
        (&format!("{service}/pids.max"), "4915\n"),
        (&format!("{service}/pids.current"), "5\n"),
        ("sys/fs/cgroup/system.slice/memory.max", "max\n"),
        ("run/systemd/system/x", ""),
        ("etc/systemd/system.conf", "[Manager]\n#DefaultLimitNOFILE=1024:524288\n"),
        ("usr/lib/systemd/system/nginx.service", "[Service]\nLimitNOFILE=65535\n"),
        ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
        ("proc/sys/net/netfilter/nf_conntrack_count", "310\n"),
    ]);
    let found = host.limits(&["--role", "server"]);
    // 48,000,000 bytes at 4,800.
    assert_eq!(found.document["binding"], "cgroup memory");
    assert_eq!(found.document["room"], 10_000);
    let remedy = &found.row("cgroup memory")["remedy"];
    assert!(
        remedy["persistent"].as_str().unwrap().starts_with("MemoryHigh="),
        "{remedy}"
    );
    assert_eq!(found.number("cgroup pids.max", "room"), 4_910);
    assert_eq!(found.number("nf_conntrack_max", "room"), 261_834);
    assert_eq!(found.number("nginx.service LimitNOFILE", "value"), 65_535);
    assert_eq!(found.number("systemd DefaultLimitNOFILE", "value"), 1_024);
    has_all(&host.limits(&[]));

    let need = host.limits(&["--role", "server", "--need", "100k"]);
    assert_eq!(need.exit, 1);
    let lines = need.lines("systemd_unit");
    assert!(lines.contains(&"LimitNOFILE=100352".to_owned()), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("MemoryHigh=")), "{lines:?}");
}

#[test]
fn a_container_on_cgroup_version_1() {
    let mounts = "5 4 0:9 /docker/c0ffee /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
        6 4 0:10 /docker/c0ffee /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n";
    let host = Host::new("1048576", "1048576").with(&[
        ("proc/900/cgroup", "11:memory:/docker/c0ffee\n4:pids:/docker/c0ffee\n"),
        ("proc/self/mountinfo", mounts),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n"),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", "33554432\n"),
        ("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 0\n"),
        ("sys/fs/cgroup/pids/pids.max", "100\n"),
        ("sys/fs/cgroup/pids/pids.current", "3\n"),
    ]);
    let found = host.limits(&["--role", "server"]);
    assert_eq!(found.document["binding"], "cgroup memory");
    assert_eq!(found.document["room"], (128_u64 - 32) * (1 << 20) / 4_800);
    assert_eq!(found.number("cgroup pids.max", "room"), 97);
    assert_eq!(found.row("systemd DefaultLimitNOFILE")["kind"], "absent");
    assert_eq!(found.row("nf_conntrack_max")["kind"], "absent");
    // The host sees the same process at its whole path, with the parents' limits.
    has_all(&host.limits(&[]));
}

#[test]
fn a_pod_on_cgroup_version_2_sees_its_own_as_the_top() {
    let host = Host::new("unlimited", "unlimited").with(&[
        ("proc/900/cgroup", "0::/\n"),
        ("proc/self/mountinfo", "30 25 0:27 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n"),
        ("sys/fs/cgroup/memory.max", "268435456\n"),
        ("sys/fs/cgroup/memory.high", "max\n"),
        ("sys/fs/cgroup/memory.current", "28435456\n"),
        ("sys/fs/cgroup/pids.max", "max\n"),
    ]);
    let found = host.limits(&["--role", "server"]);
    assert_eq!(
        (&found.document["binding"], &found.document["room"]),
        (&"cgroup memory".into(), &50_000.into())
    );
    let soft = found.row("RLIMIT_NOFILE soft");
    assert_eq!((&soft["value"], &soft["room"]), (&Value::Null, &Value::Null));
    assert_eq!(soft["text"], "unlimited");
    let pids = found.row("cgroup pids.max");
    assert_eq!((&pids["kind"], &pids["text"]), (&"setting".into(), &"no limit".into()));
    let args = host.args(&["--role", "server"]);
    let words: Vec<&str> =
        ["limits"].into_iter().chain(args.iter().map(String::as_str)).collect();
    let text = stdout(&run(&words), 0);
    let soft = text.lines().find(|line| line.starts_with("RLIMIT_NOFILE soft")).unwrap();
    assert_eq!(soft.split_whitespace().nth(2), Some("unlimited"), "{text}");
    has_all(&host.limits(&[]));
}

#[test]
fn a_hybrid_of_an_older_kernel() {
    let mounts = "1 2 0:1 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
        3 2 0:2 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
        4 2 0:3 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    let slice = "sys/fs/cgroup/memory/system.slice";
    let host = Host::new("1024", "4096").with(&[
        ("proc/900/cgroup", "9:pids:/system.slice\n5:memory:/system.slice/a\n0::/x\n"),
        ("proc/self/mountinfo", mounts),
        (&format!("{slice}/a/memory.limit_in_bytes"), "9223372036854771712\n"),
        (&format!("{slice}/a/memory.usage_in_bytes"), "1000\n"),
        (&format!("{slice}/memory.limit_in_bytes"), "9600000\n"),
        (&format!("{slice}/memory.usage_in_bytes"), "0\n"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ("sys/fs/cgroup/pids/system.slice/pids.max", "max\n"),
    ]);
    // Linux 3.10 has no epoll count of users, and no netfilter here.
    let host = host.without(&["proc/sys/fs/epoll/max_user_watches"]);
    let found = host.limits(&["--role", "server"]);
    assert_eq!(found.document["binding"], "RLIMIT_NOFILE soft");
    assert_eq!(found.document["room"], 1_022);
    assert_eq!(found.number("cgroup memory", "room"), 2_000);
    let epoll = found.row("epoll max_user_watches");
    assert_eq!(
        (&epoll["kind"], &epoll["note"]),
        (&"absent".into(), &"this kernel has no such file".into())
    );
    has_all(&host.limits(&[]));
    // Neither cgroups nor a /proc of its own to see them by.
    let bare = host.without(&["proc/self/mountinfo"]);
    assert_eq!(bare.limits(&[]).row("cgroup memory")["kind"], "unread");
    has_all(&bare.limits(&[]));
}
