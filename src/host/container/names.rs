//! Names of containers and pods, from the files that their runtimes keep. No daemon is
//! asked.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Runtime, Workload, path};

/// No such file is longer; what is is not read.
const LONGEST: u64 = 16 << 20;

/// Where containerd keeps the OCI bundle of each task, by default and under k3s.
const TASKS: [&str; 2] = [
    "run/containerd/io.containerd.runtime.v2.task/k8s.io",
    "run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io",
];
/// Where CRI-O and Podman, both on containers/storage, keep a container's bundle.
const BUNDLES: &str = "run/containers/storage/overlay-containers";
/// Where containers/storage keeps the names, below the home of a rootless user too.
const STORAGE: &str = "containers/storage/overlay-containers";

/// Finds names of containers by their ids, and keeps what it found. Most of the files
/// can be read by root alone; what cannot be read has no name.
#[derive(Debug)]
pub struct Names {
    root: PathBuf,
    known: HashMap<String, Option<Named>>,
}

/// What a file says of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Named {
    container: Option<String>,
    pod: Option<String>,
}

impl Names {
    /// Names of the runtimes of the system at `root`: `/`, or where another's is mounted.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), known: HashMap::new() }
    }

    /// Adds the names that are found to a workload.
    pub fn complete(&mut self, workload: &mut Workload) {
        let Some(container) = &mut workload.container else { return };
        if !path::is_hex_id(&container.id) {
            return;
        }
        if !self.known.contains_key(&container.id) {
            let named = self.look(&container.id, container.runtime, container.user);
            self.known.insert(container.id.clone(), named);
        }
        let Some(Some(named)) = self.known.get(&container.id) else { return };
        container.name.clone_from(&named.container);
        if let Some(pod) = &mut workload.pod {
            pod.name.clone_from(&named.pod);
        }
    }

    fn look(&self, id: &str, runtime: Runtime, user: Option<u32>) -> Option<Named> {
        match runtime {
            Runtime::Docker => self.of_docker(id),
            Runtime::Podman => self.of_podman(id, user),
            Runtime::Containerd | Runtime::CriO => self.of_bundle(id),
            Runtime::Cri => self.of_bundle(id).or_else(|| self.of_docker(id)),
            Runtime::Unknown => self.of_docker(id),
            Runtime::Lxc | Runtime::Nspawn | Runtime::Libvirt => None,
        }
    }

    fn of_docker(&self, id: &str) -> Option<Named> {
        #[derive(Deserialize)]
        struct Config {
            #[serde(rename = "Name")]
            name: String,
        }
        let file = format!("var/lib/docker/containers/{id}/config.v2.json");
        let config: Config = json(&self.root.join(file))?;
        let name = config.name.strip_prefix('/').unwrap_or(&config.name);
        Some(Named { container: not_empty(name), pod: None })
    }

    fn of_podman(&self, id: &str, user: Option<u32>) -> Option<Named> {
        #[derive(Deserialize)]
        struct Stored {
            id: String,
            #[serde(default)]
            names: Option<Vec<String>>,
        }
        let storage = match user {
            None => self.root.join("var/lib").join(STORAGE),
            Some(user) => self.home_of(user)?.join(".local/share").join(STORAGE),
        };
        // Containers that are removed when they end stand in a file of their own.
        ["containers.json", "volatile-containers.json"].iter().find_map(|file| {
            let stored: Vec<Stored> = json(&storage.join(file))?;
            let found = stored.into_iter().find(|stored| stored.id == id)?;
            let name = found.names?.into_iter().next()?;
            Some(Named { container: not_empty(&name), pod: None })
        })
    }

    /// The annotations that CRI runtimes put into the OCI bundle.
    fn of_bundle(&self, id: &str) -> Option<Named> {
        #[derive(Deserialize)]
        struct Bundle {
            #[serde(default)]
            annotations: HashMap<String, String>,
        }
        let crio = format!("{BUNDLES}/{id}/userdata");
        let tasks = TASKS.iter().map(|tasks| format!("{tasks}/{id}"));
        let bundle = tasks.chain([crio]).find_map(|folder| {
            json::<Bundle>(&self.root.join(folder).join("config.json"))
        })?;
        let first = |keys: [&str; 2]| {
            let value = keys.iter().find_map(|key| bundle.annotations.get(*key));
            value.and_then(|value| not_empty(value))
        };
        let container =
            first(["io.kubernetes.cri.container-name", "io.kubernetes.container.name"]);
        let pod = first(["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]);
        let space =
            first(["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"]);
        let pod = pod.map(|pod| match space {
            Some(space) => format!("{space}/{pod}"),
            None => pod,
        });
        (container.is_some() || pod.is_some()).then_some(Named { container, pod })
    }

    /// From passwd(5) alone: a user that only a directory service knows has no home here.
    fn home_of(&self, user: u32) -> Option<PathBuf> {
        let passwd = std::fs::read(self.root.join("etc/passwd")).ok()?;
        let passwd = String::from_utf8_lossy(&passwd);
        let home = passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let is_user = fields.get(2)?.parse() == Ok(user);
            is_user.then(|| fields.get(5).map(|home| (*home).to_owned()))?
        })?;
        Some(self.root.join(home.trim_start_matches('/')))
    }
}

fn not_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Reads a file that any user may have put there: a FIFO would never end.
fn json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    let is_sound =
        file.metadata().is_ok_and(|file| file.is_file() && file.len() < LONGEST);
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).ok().filter(|_| is_sound)?;
    serde_json::from_slice(&text).ok()
}
