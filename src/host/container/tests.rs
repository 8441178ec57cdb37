use super::*;
use crate::testing::tree;
use proptest::prelude::*;

const ID: &str = "3f2a9c1b77aad1e5c0b4f6a8d9e2f1c3b5a7d8e6f4c2b1a09f8e7d6c5b4a3f21";
const OTHER: &str = "00aa9c1b77aad1e5c0b4f6a8d9e2f1c3b5a7d8e6f4c2b1a09f8e7d6c5b4a3f21";
const UID: &str = "8a7c2f3e-1b4d-4e6f-9a8b-7c6d5e4f3a2b";
const UID_IN_SLICE: &str = "8a7c2f3e_1b4d_4e6f_9a8b_7c6d5e4f3a2b";

/// A fixture with ID, OTHER, UID and UID_IN_SLICE in their places.
fn filled(text: &str) -> String {
    text.replace("UID_IN_SLICE", UID_IN_SLICE)
        .replace("UID", UID)
        .replace("OTHER", OTHER)
        .replace("ID", ID)
}

fn shown(cgroup: &str) -> String {
    Workload::parse(filled(cgroup).as_bytes())
        .map_or("-".into(), |found| found.to_string())
}

#[test]
fn docker_is_known_by_both_of_its_drivers_and_both_versions_of_cgroups() {
    let cgroupfs_v1 = "12:memory:/docker/ID\n11:cpu,cpuacct:/docker/ID\n1:name=systemd:/docker/ID\n0::/\n";
    assert_eq!(shown(cgroupfs_v1), "docker:3f2a9c1b77aa");
    assert_eq!(shown("0::/docker/ID\n"), "docker:3f2a9c1b77aa");
    assert_eq!(shown("0::/system.slice/docker-ID.scope\n"), "docker:3f2a9c1b77aa");
    let hybrid = "3:memory:/system.slice/docker-ID.scope\n1:name=systemd:/system.slice/docker-ID.scope\n0::/system.slice/docker-ID.scope\n";
    assert_eq!(shown(hybrid), "docker:3f2a9c1b77aa");
    let rootless =
        "0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope\n";
    assert_eq!(shown(rootless), "docker:3f2a9c1b77aa");
}

#[test]
fn the_container_that_is_inside_of_another_counts() {
    assert_eq!(shown("0::/docker/OTHER/docker/ID\n"), "docker:3f2a9c1b77aa");
    let node = "0::/system.slice/docker-OTHER.scope/kubelet.slice/kubelet-kubepods.slice/\
        kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-podUID_IN_SLICE.slice/\
        cri-containerd-ID.scope\n";
    assert_eq!(shown(node), format!("pod/{UID}:3f2a9c1b77aa"));
}

#[test]
fn the_pods_of_each_quality_of_service_are_known_by_both_drivers() {
    let expected = format!("pod/{UID}:3f2a9c1b77aa");
    for path in [
        "/kubepods/podUID/ID",
        "/kubepods/burstable/podUID/ID",
        "/kubepods/besteffort/podUID/ID",
        "/kubepods/besteffort/podUID/crio-ID",
        "/kubepods.slice/kubepods-podUID_IN_SLICE.slice/cri-containerd-ID.scope",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_IN_SLICE.slice/cri-containerd-ID.scope",
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_IN_SLICE.slice/cri-containerd-ID.scope",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_IN_SLICE.slice/crio-ID.scope",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_IN_SLICE.slice/crio-ID.scope/container",
        "/kubepods.slice/kubepods-podUID_IN_SLICE.slice/docker-ID.scope",
        "/system.slice/containerd.service/kubepods-burstable-podUID_IN_SLICE.slice:cri-containerd:ID",
    ] {
        assert_eq!(shown(&format!("0::{path}\n")), expected, "{path}");
        assert_eq!(shown(&format!("5:pids:{path}\n4:cpu:/\n0::/\n")), expected, "{path}");
    }
    let runtime =
        |path: &str| Workload::of_path(&filled(path)).unwrap().container.unwrap().runtime;
    assert_eq!(runtime("/kubepods/podUID/ID"), Runtime::Cri);
    assert_eq!(runtime("/kubepods/podUID/crio-ID"), Runtime::CriO);
    assert_eq!(
        runtime("/x.service/kubepods-podUID_IN_SLICE.slice:cri-containerd:ID"),
        Runtime::Containerd
    );
}

#[test]
fn a_static_pod_and_one_without_a_container_are_pods() {
    let digits = "8c6b0f3d0f1b3e7d2f6a1c9d8e7f6a5b";
    assert_eq!(
        shown(&format!("0::/kubepods/burstable/pod{digits}/ID\n")),
        format!("pod/{digits}:3f2a9c1b77aa")
    );
    assert_eq!(shown("0::/kubepods/podUID\n"), format!("pod/{UID}"));
    let conmon =
        "0::/kubepods.slice/kubepods-podUID_IN_SLICE.slice/crio-conmon-ID.scope\n";
    assert_eq!(shown(conmon), format!("pod/{UID}/crio-conmon-{ID}.scope"));
}

#[test]
fn podman_is_known_with_and_without_root() {
    for path in [
        "/machine.slice/libpod-ID.scope",
        "/machine.slice/libpod-ID.scope/container",
        "/machine.slice/machine-libpod_pod_OTHER.slice/libpod-ID.scope",
        "/libpod_parent/libpod-ID",
        "/libpod_parent/OTHER/libpod-ID",
        "/system.slice/web.service/libpod-payload-ID",
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service/libpod-payload-ID",
    ] {
        assert_eq!(shown(&format!("0::{path}\n")), "podman:3f2a9c1b77aa", "{path}");
    }
    let monitor = "0::/machine.slice/libpod-conmon-ID.scope\n";
    assert_eq!(shown(monitor), format!("libpod-conmon-{ID}.scope"));
    let rootless =
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope";
    let found = Workload::of_path(&filled(rootless)).unwrap();
    assert_eq!(found.container.unwrap().user, Some(1000));
}

#[test]
fn systemd_in_a_container_names_the_unit_too() {
    let path = "0::/machine.slice/libpod-ID.scope/container/system.slice/nginx.service\n";
    assert_eq!(shown(path), "podman:3f2a9c1b77aa/nginx.service");
    assert_eq!(shown("0::/lxc.payload.web/init.scope\n"), "lxc:web");
    let path = "0::/lxc.payload.web/system.slice/ssh.service\n";
    assert_eq!(shown(path), "lxc:web/ssh.service");
}

#[test]
fn lxc_nspawn_and_virtual_machines_are_known_by_name() {
    assert_eq!(shown("4:memory:/lxc/web-1\n"), "lxc:web-1");
    assert_eq!(shown("0::/lxc.payload/101/ns\n"), "lxc:101");
    assert_eq!(shown("0::/lxc.monitor.web\n"), "-");
    let nspawn = "0::/machine.slice/systemd-nspawn@deb\\x2dtest.service";
    assert_eq!(
        shown(&format!("{nspawn}/payload/system.slice/ssh.service\n")),
        "nspawn:deb-test/ssh.service"
    );
    assert_eq!(
        shown(&format!("{nspawn}/supervisor\n")),
        "systemd-nspawn@deb-test.service"
    );
    assert_eq!(
        shown("0::/machine.slice/machine-deb\\x2dtest.scope/payload\n"),
        "nspawn:deb-test"
    );
    let qemu =
        "0::/machine.slice/machine-qemu\\x2d3\\x2dbig\\x2done.scope/libvirt/emulator\n";
    assert_eq!(shown(qemu), "libvirt:big-one");
}

#[test]
fn units_are_named_with_their_user() {
    for (path, expected) in [
        ("/system.slice/nginx.service", "nginx.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("/system.slice/dev-disk-by\\x2duuid.swap", "dev-disk-by-uuid.swap"),
        ("/system.slice/_cpu.service", "cpu.service"),
        ("/user.slice/user-1000.slice/session-3.scope", "user/1000:session-3.scope"),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-x@1.service",
            "user/1000:app-x@1.service",
        ),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", "user@1000.service"),
        ("/system.slice/docker.service/supervised", "docker.service"),
        ("/web.slice/web-front.slice", "web-front.slice"),
        ("/system.slice/gone.service (deleted)", "gone.service"),
    ] {
        assert_eq!(shown(&format!("1:name=systemd:{path}\n")), expected, "{path}");
    }
}

#[test]
fn a_plain_host_has_no_workload() {
    for cgroup in [
        "0::/\n",
        "0::/init.scope\n",
        "",
        "9:name=systemd:/\n4:memory:/process_api/059dfe2f8b1fa18a32afcd25f538f06b\n0::/\n",
        "no colon\n:\n::\n:::\n",
        "0::/../..\n",
        "0::/docker/buildx\n",
        "0::/kubepods/burstable\n",
        "0::/kubepods/podother/x\n",
    ] {
        assert_eq!(shown(cgroup), "-", "{cgroup}");
    }
}

#[test]
fn an_id_of_nobody_known_is_that_of_a_container() {
    assert_eq!(shown("0::/ecs/cluster/task/ID\n"), "container:3f2a9c1b77aa");
    assert_eq!(shown("0::/system.slice/nerdctl-ID.scope\n"), "containerd:3f2a9c1b77aa");
    assert_eq!(shown("0::/x.slice/other-ID.scope\n"), "container:3f2a9c1b77aa");
}

#[test]
fn a_hostile_name_is_escaped() {
    assert_eq!(shown("0::/lxc.payload.a\u{1b}[2J\n"), "lxc:a\\u{1b}[2J");
    assert_eq!(shown("0::/system.slice/a\\x0ab.service\n"), "a\\nb.service");
}

#[test]
fn a_workload_is_called_by_any_of_its_names() {
    let mut found = Workload::of_path(&filled("/kubepods/podUID/ID/x.service")).unwrap();
    found.container.as_mut().unwrap().name = Some("api".into());
    found.pod.as_mut().unwrap().name = Some("shop/api-7f".into());
    for name in [
        "api",
        "cri:api",
        &ID[..6],
        ID,
        &format!("cri:{}", &ID[..12]),
        UID,
        "shop/api-7f",
        "api-7f",
        "pod/shop/api-7f",
        "x.service",
        "x",
        "pod/shop/api-7f:api/x.service",
    ] {
        assert!(found.is_called(name), "{name}");
    }
    for name in ["", "ap", &ID[..3], "docker:api", "shop", "y"] {
        assert!(!found.is_called(name), "{name}");
    }
    let lxc = Workload::of_path("/lxc/website").unwrap();
    assert!(lxc.is_called("website") && lxc.is_called("lxc:website"));
    assert!(!lxc.is_called("webs"), "a name is no id");
}

fn completed(files: &[(&str, &str)], path: &str) -> String {
    let files: Vec<(String, String)> =
        files.iter().map(|(path, text)| (filled(path), filled(text))).collect();
    let files: Vec<(&str, &str)> =
        files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let (_tree, root) = tree(&files);
    let mut found = Workload::of_path(&filled(path)).unwrap();
    let mut names = Names::new(root.as_path());
    names.complete(&mut found);
    let first = found.to_string();
    drop(_tree);
    names.complete(&mut found);
    assert_eq!(found.to_string(), first, "the second time from memory");
    first
}

#[test]
fn docker_and_podman_keep_names_in_files() {
    let docker = (
        "var/lib/docker/containers/ID/config.v2.json",
        r#"{"ID":"ID","Name":"/web","State":{"Pid":7}}"#,
    );
    assert_eq!(completed(&[docker], "/docker/ID"), "docker:web");
    assert_eq!(completed(&[docker], "/docker/OTHER"), "docker:00aa9c1b77aa");
    let storage = r#"[{"id":"OTHER","names":["db"]},{"id":"ID","names":["web","x"]}]"#;
    let root = "var/lib/containers/storage/overlay-containers/containers.json";
    assert_eq!(
        completed(&[(root, storage)], "/machine.slice/libpod-ID.scope"),
        "podman:web"
    );
    let gone = "var/lib/containers/storage/overlay-containers/volatile-containers.json";
    assert_eq!(
        completed(&[(root, "[]"), (gone, storage)], "/machine.slice/libpod-ID.scope"),
        "podman:web"
    );
    let rootless =
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope";
    let home =
        "home/ann/.local/share/containers/storage/overlay-containers/containers.json";
    let passwd =
        ("etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n");
    assert_eq!(completed(&[passwd, (home, storage)], rootless), "podman:web");
    assert_eq!(completed(&[(root, storage)], rootless), "podman:3f2a9c1b77aa");
}

#[test]
fn cri_runtimes_keep_the_names_of_pod_and_container_in_the_bundle() {
    let containerd = (
        "run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json",
        r#"{"ociVersion":"1.1.0","annotations":{"io.kubernetes.cri.container-name":"api",
            "io.kubernetes.cri.sandbox-name":"api-7f","io.kubernetes.cri.sandbox-namespace":"shop"}}"#,
    );
    let pod = "/kubepods.slice/kubepods-podUID_IN_SLICE.slice/cri-containerd-ID.scope";
    assert_eq!(completed(&[containerd], pod), "pod/shop/api-7f:api");
    assert_eq!(completed(&[containerd], "/kubepods/podUID/ID"), "pod/shop/api-7f:api");
    let crio = (
        "run/containers/storage/overlay-containers/ID/userdata/config.json",
        r#"{"annotations":{"io.kubernetes.container.name":"api","io.kubernetes.pod.name":"api-7f",
            "io.kubernetes.pod.namespace":"shop"}}"#,
    );
    let pod = "/kubepods.slice/kubepods-podUID_IN_SLICE.slice/crio-ID.scope";
    assert_eq!(completed(&[crio], pod), "pod/shop/api-7f:api");
}

#[test]
fn a_file_that_is_broken_or_no_file_gives_no_name() {
    let path = "var/lib/docker/containers/ID/config.v2.json";
    for text in ["", "{", "[]", r#"{"Name":7}"#, r#"{"Name":"/"}"#] {
        assert_eq!(completed(&[(path, text)], "/docker/ID"), "docker:3f2a9c1b77aa");
    }
    let (folder, root) = tree(&[]);
    let at = folder.path().join(filled("var/lib/docker/containers/ID"));
    std::fs::create_dir_all(&at).unwrap();
    let made =
        std::process::Command::new("mkfifo").arg(at.join("config.v2.json")).status();
    assert!(made.unwrap().success());
    let mut found = Workload::of_path(&filled("/docker/ID")).unwrap();
    Names::new(root.as_path()).complete(&mut found);
    assert_eq!(found.to_string(), "docker:3f2a9c1b77aa", "and it did not wait for ever");
}

#[test]
fn this_process_can_be_asked() {
    let cgroup = std::fs::read("/proc/self/cgroup").unwrap();
    let shown = Workload::parse(&cgroup).map(|found| found.to_string());
    assert!(shown.is_none_or(|shown| !shown.is_empty()));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, path in "[a-z0-9./:@\\\\x_-]{0,60}") {
        let _ = Workload::parse(&bytes);
        let found = Workload::parse(format!("0::/{path}\n").as_bytes());
        prop_assert!(found.is_none_or(|found| !found.to_string().is_empty()));
    }
}
