use super::search::{container_of, inode_in};
use super::*;
use crate::sockets::testing::*;
use proptest::prelude::*;
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

/// Only what a test made, beside the processes of this host.
fn places(named: &Path) -> Places {
    Places { named: named.to_owned(), made_up: Vec::new(), ..Places::default() }
}

/// A process in a network namespace of its own, ended with this.
struct Inside(Child);

impl Inside {
    fn start() -> Option<Self> {
        // An ordinary user may in a user namespace.
        let user: &[&str] =
            if crate::testing::is_root() { &[] } else { &["--user", "--map-root-user"] };
        let child = Command::new("unshare")
            .args(user)
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut inside = Self(child.ok()?);
        let ours = Netns::current().unwrap().inode().unwrap();
        let has_left = wait_for("unshare to start or fail", || {
            let status = inside.0.try_wait().unwrap();
            let there = Netns::open(&inside.pid().to_string());
            let there = there.and_then(|netns| netns.inode()).unwrap_or(ours);
            let runs = std::fs::read(format!("/proc/{}/comm", inside.pid()));
            let is_cat = runs.is_ok_and(|comm| comm == b"cat\n");
            (status.is_some() || there != ours && is_cat).then_some(there != ours)
        });
        if has_left {
            return Some(inside);
        }
        skip("no right to make a network namespace");
        None
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn inode(&self) -> u64 {
        Netns::open(&self.pid().to_string()).unwrap().inode().unwrap()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn of(visible: &Visible, inode: u64) -> Vec<&Namespace> {
    visible.namespaces.iter().filter(|found| found.inode == inode).collect()
}

#[test]
fn the_current_namespace_is_there_once_and_first() {
    let nowhere = tempfile::tempdir().unwrap();
    let visible = places(nowhere.path()).visible().unwrap();
    let current = Netns::current().unwrap().inode().unwrap();
    assert_eq!(visible.namespaces[0].inode, current);
    assert!(visible.namespaces[0].is_current);
    assert_eq!(visible.namespaces.iter().filter(|found| found.is_current).count(), 1);
    let mut inodes: Vec<u64> =
        visible.namespaces.iter().map(|found| found.inode).collect();
    inodes.sort_unstable();
    inodes.dedup();
    assert_eq!(inodes.len(), visible.namespaces.len(), "each once");
}

#[test]
fn a_namespace_without_a_name_is_called_by_the_process_in_it() {
    let Some(inside) = Inside::start() else { return };
    let nowhere = tempfile::tempdir().unwrap();
    let visible = places(nowhere.path()).visible().unwrap();
    let found = of(&visible, inside.inode());
    let [found] = found.as_slice() else { panic!("{found:?}") };
    assert!(!found.is_current);
    assert_eq!(found.resident.unwrap().pid, inside.pid());
    let container =
        container_of(&ProcRoot::default(), &mut Names::new("/"), inside.pid());
    if container.is_none() {
        assert_eq!(found.label.to_string(), format!("pid {} (cat)", inside.pid()));
    }
    // The handle leads there, even when nobody is in it any more.
    let inode = inside.inode();
    drop(inside);
    let there = found.netns.run(|| Netns::current().unwrap().inode().unwrap());
    if crate::testing::is_root() {
        assert_eq!(there.unwrap(), inode);
    }
}

#[test]
fn a_name_counts_before_a_process() {
    let Some(inside) = Inside::start() else { return };
    let (named, made_up) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = format!("/proc/{}/ns/net", inside.pid());
    symlink(&file, named.path().join("blue")).unwrap();
    symlink(&file, named.path().join("azure")).unwrap();
    symlink(&file, made_up.path().join("1-abc")).unwrap();
    let places = Places { made_up: vec![made_up.path().into()], ..places(named.path()) };
    let visible = places.visible().unwrap();
    let found = of(&visible, inside.inode());
    let [found] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(found.label, Label::Name("azure".into()));
    assert_eq!(found.names, ["azure", "blue", "1-abc"]);
    let position = visible.namespaces.iter().position(|n| n.inode == found.inode);
    assert_eq!(position, Some(1), "after the current one, before those without a name");
}

#[test]
fn a_name_that_a_program_made_up_is_the_last_resort() {
    let (nowhere, made_up) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some(inside) = Inside::start() else { return };
    symlink(format!("/proc/{}/ns/net", inside.pid()), made_up.path().join("1-abc"))
        .unwrap();
    let of_files = Places {
        // A procfs without processes.
        proc: ProcRoot::new(nowhere.path()),
        made_up: vec![made_up.path().into()],
        ..places(nowhere.path())
    };
    let visible = of_files.visible().unwrap();
    assert_eq!(of(&visible, inside.inode())[0].label, Label::File("1-abc".into()));
    let visible = Places { proc: ProcRoot::default(), ..of_files }.visible().unwrap();
    assert!(!matches!(of(&visible, inside.inode())[0].label, Label::File(_)));
}

#[test]
fn the_container_of_its_first_process_gives_the_name() {
    let current = Netns::current().unwrap().inode().unwrap();
    let id = "3f".repeat(32);
    let cgroup = format!("0::/system.slice/docker-{id}.scope/system.slice/x.service\n");
    let (tree, proc) = crate::testing::tree(&[
        ("7/cgroup", &cgroup),
        ("7/task/7/comm", "api\n"),
        ("9/cgroup", "0::/docker/other\n"),
    ]);
    for pid in ["7", "9"] {
        let folder = tree.path().join(pid).join("ns");
        std::fs::create_dir_all(&folder).unwrap();
        symlink("/proc/thread-self/ns/net", folder.join("net")).unwrap();
    }
    let places = Places { proc, ..places(tree.path()) };
    let visible = places.visible().unwrap();
    let [found] = visible.namespaces.as_slice() else { panic!("{visible:?}") };
    assert_eq!((found.inode, found.is_current), (current, true));
    assert_eq!(found.label.to_string(), "docker:3f3f3f3f3f3f");
    let resident = Resident { pid: 7, tid: 7, comm: Comm::new(b"api") };
    assert_eq!(found.resident, Some(resident));
}

#[test]
fn a_thread_that_left_its_process_is_found() {
    let name = "sockets::namespaces::tests::a_thread_that_left_its_process_is_found";
    let Some(netns) = new_netns_or_rerun(name) else { return };
    let inode = netns.inode().unwrap();
    let (sender, receiver) = mpsc::channel();
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(|| {
            let run = netns.run(move || {
                let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
                sender.send(tid).unwrap();
                let _ = is_done.recv();
            });
            run.unwrap();
        });
        let tid = receiver.recv().unwrap();
        let nowhere = tempfile::tempdir().unwrap();
        let visible = places(nowhere.path()).visible();
        drop(done);
        let visible = visible.unwrap();
        let resident = of(&visible, inode)[0].resident.unwrap();
        assert_eq!((resident.pid, resident.tid), (std::process::id(), tid));
        let label = Label::Resident(resident).to_string();
        assert!(label.starts_with(&format!("pid {} thread {tid} (", resident.pid)));
    });
}

#[test]
fn a_thread_of_the_kernel_gives_no_name() {
    let stat = |flags: u32| format!("2 (x) S 0 0 0 0 -1 {flags} 0\n");
    let (tree, proc) = crate::testing::tree(&[
        ("2/stat", &stat(0x0020_8040)),
        ("3/stat", &stat(0x40_0100)),
        ("3/task/3/comm", "init\n"),
    ]);
    for pid in ["2", "3"] {
        std::fs::create_dir_all(tree.path().join(pid).join("ns")).unwrap();
        symlink("/proc/thread-self/ns/net", tree.path().join(pid).join("ns/net"))
            .unwrap();
    }
    let visible = Places { proc, ..places(tree.path()) }.visible().unwrap();
    assert_eq!(visible.namespaces[0].label.to_string(), "pid 3 (init)");
}

#[test]
fn files_that_are_no_namespace_are_named() {
    let named = tempfile::tempdir().unwrap();
    std::fs::write(named.path().join("left"), "").unwrap();
    symlink("/proc/thread-self/ns/mnt", named.path().join("mount")).unwrap();
    symlink("/nowhere", named.path().join("gone")).unwrap();
    let visible = places(named.path()).visible().unwrap();
    let said: Vec<String> = visible.lacking.iter().map(ToString::to_string).collect();
    let expected = format!("2 files, {} the first", named.path().join("left").display());
    assert!(said.iter().any(|lack| lack.starts_with(&expected)), "{said:?}");
}

#[test]
fn what_other_users_have_is_counted() {
    let name = "sockets::namespaces::tests::what_other_users_have_is_counted";
    if !crate::testing::is_root() {
        let nowhere = tempfile::tempdir().unwrap();
        let visible = places(nowhere.path()).visible().unwrap();
        let said: Vec<String> = visible.lacking.iter().map(ToString::to_string).collect();
        assert!(
            said.iter().any(|lack| lack.contains("belong to other users")),
            "{said:?}"
        );
        return;
    }
    // The same as an ordinary user, from whom process 1 hides its own.
    let mut rerun = Command::new("setpriv");
    rerun.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
    rerun.arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]);
    match rerun.env("TMPDIR", "/tmp").output() {
        Ok(output) if matches!(output.status.code(), Some(126 | 127)) => {
            skip(&format!("an ordinary user cannot run this binary: {output:?}"));
        }
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => skip(&format!("no setpriv: {error}")),
    }
}

#[test]
fn a_namespace_is_had_by_name_by_process_and_by_path() {
    let named = tempfile::tempdir().unwrap();
    symlink("/proc/thread-self/ns/net", named.path().join("blue")).unwrap();
    symlink("/proc/thread-self/ns/net", named.path().join("4000000001")).unwrap();
    let places = places(named.path());
    let current = Netns::current().unwrap().inode().unwrap();
    let pid = std::process::id().to_string();
    let path = named.path().join("blue").display().to_string();
    for spec in ["blue", "4000000001", &pid, &path, "/proc/self/ns/net"] {
        assert_eq!(places.resolve(spec).unwrap().inode().unwrap(), current, "{spec}");
    }
}

#[test]
fn a_mistake_in_a_name_says_what_there_is() {
    let named = tempfile::tempdir().unwrap();
    let places = places(named.path());
    let said = |spec: &str| places.resolve(spec).unwrap_err().to_string();
    assert!(
        said("red").starts_with("no network namespace is called 'red'; none has a name")
    );
    for n in 0..11 {
        symlink("/proc/thread-self/ns/net", named.path().join(format!("n{n:02}")))
            .unwrap();
    }
    assert_eq!(
        said("r\u{1b}ed"),
        "no network namespace is called 'r\\u{1b}ed'; there are n00, n01, n02, n03, n04, \
         n05, n06, n07, and 3 more"
    );
    assert_eq!(said("4000000000"), "no process has the id 4000000000");
    assert!(said("").starts_with("no network namespace is called ''"));
    assert!(said("..").starts_with("no network namespace is called '..'"));
    assert_eq!(
        said("/proc/self/ns/mnt"),
        "'/proc/self/ns/mnt' is no network namespace; one is \
         /run/netns/NAME or /proc/PID/ns/net"
    );
    assert!(
        said("/nowhere/x").contains("'/nowhere/x' is no network namespace (No such file")
    );
    std::fs::write(named.path().join("left"), "").unwrap();
    assert!(said("left").contains("left' is no network namespace"));
}

proptest! {
    #[test]
    fn only_a_whole_link_has_an_inode(bytes: Vec<u8>, inode: u64) {
        let _ = inode_in(&bytes);
        prop_assert_eq!(inode_in(format!("net:[{inode}]").as_bytes()), Some(inode));
        prop_assert_eq!(inode_in(format!("mnt:[{inode}]").as_bytes()), None);
    }
}
