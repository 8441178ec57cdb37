use super::*;
use crate::testing::tree;

/// A tree that is both a /proc and a root of /sys.
fn seen(files: &[(&str, &str)], controller: Controller) -> Result<Tightest, String> {
    let (tree, root) = tree(files);
    let found = tightest(&root, tree.path(), "4711", controller);
    found.map_err(|error| error.to_string()).map(|mut found| {
        let relative = |path: &Path| path.strip_prefix(tree.path()).unwrap().to_owned();
        found.folder = relative(&found.folder);
        if let Some(limit) = &mut found.limit {
            limit.file = relative(&limit.file);
        }
        found
    })
}

const V2: &str = "30 25 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
const V1: &str = "1 2 0:1 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
    3 2 0:2 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";

#[test]
fn of_version_2_the_tightest_on_the_path_up_counts() {
    let folder = "sys/fs/cgroup/a.slice/b.service";
    let files = [
        ("4711/cgroup", "0::/a.slice/b.service\n"),
        ("self/mountinfo", V2),
        (&*format!("{folder}/memory.max"), "max\n"),
        (&*format!("{folder}/memory.high"), "max\n"),
        (&*format!("{folder}/memory.current"), "1000\n"),
        (&*format!("{folder}/pids.max"), "400\n"),
        (&*format!("{folder}/pids.current"), "7\n"),
        ("sys/fs/cgroup/a.slice/memory.max", "9000\n"),
        ("sys/fs/cgroup/a.slice/memory.high", "8000\n"),
        ("sys/fs/cgroup/a.slice/memory.current", "5000\n"),
        ("sys/fs/cgroup/a.slice/memory.stat", "anon 1\ninactive_file 2000\nx 1\n"),
        ("sys/fs/cgroup/a.slice/pids.max", "max\n"),
        ("sys/fs/cgroup/a.slice/pids.current", "9\n"),
    ];
    let memory = seen(&files, Controller::Memory).unwrap();
    assert_eq!(memory.folder, Path::new(folder));
    let expected = CgroupLimit {
        limit: 8_000,
        used: 3_000,
        file: "sys/fs/cgroup/a.slice/memory.high".into(),
        property: "MemoryHigh",
    };
    assert_eq!(memory.limit, Some(expected));
    let pids = seen(&files, Controller::Pids).unwrap().limit.unwrap();
    assert_eq!((pids.limit, pids.used, pids.room()), (400, 7, 393));
}

#[test]
fn of_version_1_a_limit_of_nearly_2_63_is_none() {
    let files = [
        ("4711/cgroup", "9:pids:/x\n4:memory:/x/y\n0::/\n"),
        ("self/mountinfo", V1),
        ("sys/fs/cgroup/memory/x/y/memory.limit_in_bytes", "9223372036854771712\n"),
        ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "70000\n"),
        ("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "60000\n"),
        (
            "sys/fs/cgroup/memory/x/memory.stat",
            "inactive_file 9\ntotal_inactive_file 50\n",
        ),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854710272\n"),
        ("sys/fs/cgroup/pids/x/pids.max", "max\n"),
    ];
    let memory = seen(&files, Controller::Memory).unwrap();
    assert_eq!(memory.folder, Path::new("sys/fs/cgroup/memory/x/y"));
    let limit = memory.limit.unwrap();
    assert_eq!((limit.limit, limit.used), (70_000, 59_950));
    assert_eq!(limit.file, Path::new("sys/fs/cgroup/memory/x/memory.limit_in_bytes"));
    assert_eq!(seen(&files, Controller::Pids).unwrap().limit, None);
}

#[test]
fn in_a_hybrid_each_controller_is_where_it_was_mounted() {
    let hybrid = "1 2 0:1 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
        3 2 0:2 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
    let files = [
        ("4711/cgroup", "3:pids:/p\n1:name=systemd:/s\n0::/m\n"),
        ("self/mountinfo", hybrid),
        ("sys/fs/cgroup/unified/m/memory.max", "5000\n"),
        ("sys/fs/cgroup/unified/m/memory.current", "1000\n"),
        ("sys/fs/cgroup/pids/p/pids.max", "50\n"),
        ("sys/fs/cgroup/pids/p/pids.current", "1\n"),
    ];
    assert_eq!(seen(&files, Controller::Memory).unwrap().limit.unwrap().room(), 4_000);
    assert_eq!(seen(&files, Controller::Pids).unwrap().limit.unwrap().room(), 49);
}

#[test]
fn a_container_sees_its_own_cgroup_as_the_top() {
    // Version 1 without a cgroup namespace: the mount shows which part is mounted.
    let mounts =
        "5 4 0:9 /docker/c0ffee /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    let files = [
        ("4711/cgroup", "4:memory:/docker/c0ffee\n"),
        ("self/mountinfo", mounts),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n"),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1048576\n"),
    ];
    let memory = seen(&files, Controller::Memory).unwrap();
    assert_eq!(memory.folder, Path::new("sys/fs/cgroup/memory"));
    assert_eq!(memory.limit.unwrap().room(), 535_822_336);
    // Version 2 with one.
    let files = [
        ("4711/cgroup", "0::/\n"),
        ("self/mountinfo", V2),
        ("sys/fs/cgroup/memory.max", "600\n"),
        ("sys/fs/cgroup/memory.current", "100\n"),
    ];
    assert_eq!(seen(&files, Controller::Memory).unwrap().limit.unwrap().room(), 500);
}

#[test]
fn what_cannot_be_seen_is_said() {
    let none = [("4711/cgroup", "1:name=systemd:/\n"), ("self/mountinfo", "")];
    let why = seen(&none, Controller::Memory).unwrap_err();
    assert_eq!(why, "it is in no cgroup with a memory controller");
    let unmounted = [("4711/cgroup", "0::/x\n"), ("self/mountinfo", V1)];
    let why = seen(&unmounted, Controller::Pids).unwrap_err();
    assert_eq!(why, "its cgroup /x cannot be seen: no pids controller is mounted");
    let top = [("4711/cgroup", "0::/\n"), ("self/mountinfo", V1)];
    let why = seen(&top, Controller::Pids).unwrap_err();
    assert!(why.starts_with("its cgroup / cannot be seen"), "a container's, perhaps");
    let outside = [("4711/cgroup", "0::/../../y\n"), ("self/mountinfo", V2)];
    let why = seen(&outside, Controller::Memory).unwrap_err();
    assert_eq!(why, "its cgroup /../../y lies outside what is mounted here");
    let gone = [("4711/cgroup", "0::/gone\n"), ("self/mountinfo", V2)];
    let why = seen(&gone, Controller::Memory).unwrap_err();
    assert!(why.ends_with("/sys/fs/cgroup/gone: entity not found"), "{why}");
    let broken = [
        ("4711/cgroup", "0::/\n"),
        ("self/mountinfo", V2),
        ("sys/fs/cgroup/memory.max", "much\n"),
    ];
    let why = seen(&broken, Controller::Memory).unwrap_err();
    assert!(why.ends_with("memory.max: not one number"), "{why}");
    let hidden = seen(&[("self/mountinfo", V2)], Controller::Memory).unwrap_err();
    assert!(hidden.contains("/4711/cgroup: No such file"), "{hidden}");
}

#[test]
fn the_very_top_has_no_limit_mounted_or_not() {
    let (tree, root) =
        tree(&[("4711/cgroup", "0::/\n"), ("self/mountinfo", V1), ("self/ns/x", "")]);
    let link = tree.path().join("self/ns/cgroup");
    std::os::unix::fs::symlink("cgroup:[4026531835]", link).unwrap();
    let found = tightest(&root, tree.path(), "4711", Controller::Pids).unwrap();
    assert_eq!(found, Tightest { folder: "/".into(), limit: None });
}

#[test]
fn a_mount_point_may_have_a_space() {
    let files = [
        ("4711/cgroup", "0::/\n"),
        ("self/mountinfo", "30 25 0:27 / /sys/my\\040cgroup rw - cgroup2 x rw\n"),
        ("sys/my cgroup/memory.max", "600\n"),
        ("sys/my cgroup/memory.current", "100\n"),
    ];
    assert_eq!(seen(&files, Controller::Memory).unwrap().limit.unwrap().limit, 600);
}

#[test]
fn this_host_is_read_or_says_why_not() {
    for controller in [Controller::Memory, Controller::Pids] {
        match tightest(&ProcRoot::default(), Path::new("/"), "self", controller) {
            Ok(found) => assert!(found.folder.is_dir(), "{found:?}"),
            Err(CgroupError::NoController(_) | CgroupError::Outside(_)) => {}
            Err(CgroupError::NotMounted(..)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
