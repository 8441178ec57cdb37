//! What a process runs in, as its control groups name it: a container, a pod, a unit of
//! systemd.
//!
//! Container runtimes and systemd name the control groups that they make after what runs
//! in them. So /proc/PID/cgroup tells it, for every process that may be seen and without
//! a word with any daemon. A process inside of a cgroup namespace of its own sees its own
//! as `/`; this is meant to be read from outside.

mod names;
mod path;

use std::fmt;

pub use self::names::Names;
use super::text::printable;

/// Digits of a container's id that are shown, as every runtime does.
const SHOWN: usize = 12;

/// Digits of an id that are enough to mean it.
const SHORTEST: usize = 4;

/// What a process runs in. Where one thing is inside of another the innermost counts: the
/// pod of a cluster's node that is a container itself, the service in a container that
/// runs systemd.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Workload {
    /// The pod of Kubernetes.
    pub pod: Option<Pod>,
    /// The container, in the pod where there is one.
    pub container: Option<Container>,
    /// The unit of systemd: that of the host, or one in the container.
    pub unit: Option<Unit>,
}

/// A pod of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pod {
    /// Its uid: a UUID, or of a static pod 32 hexadecimal digits.
    pub uid: String,
    /// Namespace and name, where they are known ([`Names`]).
    pub name: Option<String>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Container {
    /// What runs it.
    pub runtime: Runtime,
    /// Its id, whole: 64 hexadecimal digits, or the name of those that have no other.
    pub id: String,
    /// Its name, where it is known ([`Names`]).
    pub name: Option<String>,
    /// The user whose it is, where its control group is below one of theirs (rootless).
    pub user: Option<u32>,
}

/// What runs a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Runtime {
    /// Docker.
    Docker,
    /// Podman, and whatever else uses libpod.
    Podman,
    /// containerd, by way of CRI, nerdctl or ctr.
    Containerd,
    /// CRI-O.
    CriO,
    /// One that Kubernetes uses; the control group does not tell which.
    Cri,
    /// LXC, LXD, Incus.
    Lxc,
    /// systemd-nspawn, or a machine of systemd-machined.
    Nspawn,
    /// A virtual machine of libvirt.
    Libvirt,
    /// Unknown; the id looks like that of a container.
    Unknown,
}

impl Runtime {
    /// Its name, as it stands before a container's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Cri => "cri",
            Self::Lxc => "lxc",
            Self::Nspawn => "nspawn",
            Self::Libvirt => "libvirt",
            Self::Unknown => "container",
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A unit of systemd.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Unit {
    /// Its name with its type, `nginx.service`, escapes of systemd (`\x2d`) undone.
    pub name: String,
    /// The user whose manager runs it, or whose session it is; None for the system's.
    pub user: Option<u32>,
}

impl Workload {
    /// What the bytes of /proc/PID/cgroup (cgroups(7)) name: of cgroup v2, of v1, or of
    /// both. None on a plain host.
    #[must_use]
    pub fn parse(cgroup: &[u8]) -> Option<Self> {
        let paths = cgroup.split(|&byte| byte == b'\n').filter_map(|line| {
            let mut fields = line.splitn(3, |&byte| byte == b':');
            let (hierarchy, controllers) = (fields.next()?, fields.next()?);
            let path = String::from_utf8_lossy(fields.next()?);
            // Where several say as much: v2's, systemd's, then the others.
            let rank = match (hierarchy, controllers) {
                (b"0", b"") => 2,
                (_, b"name=systemd") => 1,
                _ => 0,
            };
            Some((Self::of_path(&path)?, rank))
        });
        paths
            .max_by_key(|(found, rank)| {
                (found.pod.is_some(), found.container.is_some(), *rank)
            })
            .map(|(found, _)| found)
    }

    /// What one control group names, by its path in its hierarchy: `/system.slice/…`.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        path::parse(path)
    }

    /// Whether a user who says `wanted` may mean it: as it is shown, its container's name
    /// or id (from 4 digits on), its pod's uid or name, its unit's name with or without
    /// the type.
    #[must_use]
    pub fn is_called(&self, wanted: &str) -> bool {
        let container = self.container.as_ref().is_some_and(|container| {
            let rest = wanted.strip_prefix(container.runtime.name());
            let name = rest.and_then(|rest| rest.strip_prefix(':')).unwrap_or(wanted);
            let is_prefix = name.len() >= SHORTEST && container.id.starts_with(name);
            container.name.as_deref() == Some(name)
                || container.id == name
                || is_prefix && container.has_hex_id()
        });
        let pod = self.pod.as_ref().is_some_and(|pod| {
            let last = |name: &str| name.rsplit('/').next() == Some(wanted);
            pod.uid == wanted
                || pod.name.as_deref().is_some_and(|name| name == wanted || last(name))
                || pod.to_string() == wanted
        });
        let unit = self.unit.as_ref().is_some_and(|unit| {
            unit.name == wanted
                || unit.name.rsplit_once('.').is_some_and(|(name, _)| name == wanted)
        });
        container || pod || unit || self.to_string() == wanted
    }
}

/// `docker:3f2a9c1b77aa`, `podman:web`, `pod/NAMESPACE/NAME:CONTAINER`, `pod/UID:ID`,
/// `nginx.service`, `user/1000:app.service`, `lxc:web/nginx.service`; on one line, with
/// what does not print escaped.
impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = match (&self.pod, &self.container) {
            (Some(pod), Some(container)) => {
                write!(f, "{pod}:{}", container.shown())?;
                "/"
            }
            (Some(pod), None) => {
                pod.fmt(f)?;
                "/"
            }
            (None, Some(container)) => {
                container.fmt(f)?;
                "/"
            }
            (None, None) => "",
        };
        match &self.unit {
            Some(unit) => write!(f, "{inner}{unit}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod/{}", printable(self.name.as_ref().unwrap_or(&self.uid)))
    }
}

impl Container {
    /// Its name, else its id as far as it is shown.
    #[must_use]
    pub fn shown(&self) -> String {
        match &self.name {
            Some(name) => printable(name),
            None if self.has_hex_id() => self.id.chars().take(SHOWN).collect(),
            None => printable(&self.id),
        }
    }

    fn has_hex_id(&self) -> bool {
        path::is_hex_id(&self.id)
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.runtime, self.shown())
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = self.user {
            write!(f, "user/{user}:")?;
        }
        f.write_str(&printable(&self.name))
    }
}

#[cfg(test)]
mod tests;
