//! The limits of a process's cgroups (cgroups(7)): the tightest on the path from its own
//! up to what is mounted here. Version 1, version 2, and both side by side (hybrid).

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use procfs::process::{MountInfo, MountInfos};
use procfs::{FromBufRead, ProcessCGroups};

use super::{ProcRoot, ReadError};

/// A controller that bounds connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Bytes, those of the kernel's sockets too.
    Memory,
    /// Processes and threads.
    Pids,
}

impl Controller {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }

    /// The limits of one cgroup: (limit, use, property of a systemd unit).
    fn files(
        self,
        version: Version,
    ) -> &'static [(&'static str, &'static str, &'static str)] {
        match (self, version) {
            (Self::Memory, Version::V1) => &[
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "MemoryMax"),
                ("memory.kmem.limit_in_bytes", "memory.kmem.usage_in_bytes", ""),
            ],
            (Self::Memory, Version::V2) => &[
                ("memory.max", "memory.current", "MemoryMax"),
                ("memory.high", "memory.current", "MemoryHigh"),
            ],
            (Self::Pids, _) => &[("pids.max", "pids.current", "TasksMax")],
        }
    }

    /// What of the use is given back when memory is short, by memory.stat.
    fn reclaimable(self, version: Version) -> Option<&'static str> {
        match (self, version) {
            (Self::Memory, Version::V1) => Some("total_inactive_file"),
            (Self::Memory, Version::V2) => Some("inactive_file"),
            (Self::Pids, _) => None,
        }
    }
}

/// A hierarchy's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// A limit of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupLimit {
    /// Where it lies.
    pub limit: u64,
    /// What is taken of it. Of memory, without the page cache that is inactive: that is
    /// given back before anything fails.
    pub used: u64,
    /// The file that sets it.
    pub file: PathBuf,
    /// The property of a systemd unit that sets it; empty where there is none.
    pub property: &'static str,
}

impl CgroupLimit {
    /// What is left of it.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

/// The tightest limit on a path of cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tightest {
    /// The folder of the process's own cgroup.
    pub folder: PathBuf,
    /// The limit with the least room; None where no cgroup on the path has one.
    pub limit: Option<CgroupLimit>,
}

/// Why limits of a cgroup are not known.
#[derive(Debug)]
pub enum CgroupError {
    /// A file under /proc.
    Proc(ReadError),
    /// The process is in no cgroup that has this controller.
    NoController(Controller),
    /// No cgroup with this controller is mounted here, so that the limits of the process's
    /// cannot be seen.
    NotMounted(Controller, String),
    /// Its cgroup lies outside what is mounted here: another cgroup namespace.
    Outside(String),
    /// A file of the cgroup.
    File(PathBuf, io::Error),
}

/// How often the kernel killed a process of a cgroup for its memory, and the file that
/// counts it: version 1 or 2 of the memory controller, by its folder.
#[must_use]
pub fn oom_kills(folder: &Path) -> Option<(u64, PathBuf)> {
    let files = ["memory.oom_control", "memory.events"].map(|name| folder.join(name));
    files.into_iter().find_map(|file| {
        let text = fs::read_to_string(&file).ok()?;
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
        Some((kills.trim().parse().ok()?, file))
    })
}

impl fmt::Display for CgroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proc(error) => error.fmt(f),
            Self::NoController(controller) => {
                write!(f, "it is in no cgroup with a {} controller", controller.name())
            }
            Self::NotMounted(controller, path) => {
                let name = controller.name();
                write!(
                    f,
                    "its cgroup {path} cannot be seen: no {name} controller is mounted"
                )
            }
            Self::Outside(path) => {
                write!(f, "its cgroup {path} lies outside what is mounted here")
            }
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

/// Finds the tightest limit for the process `pid` (a number, or `self`). Mount points
/// are looked for under `sys_root`, which is `/` but for a fixture tree.
///
/// # Errors
/// A [`CgroupError`] that says what could not be read.
pub fn tightest(
    root: &ProcRoot,
    sys_root: &Path,
    pid: &str,
    controller: Controller,
) -> Result<Tightest, CgroupError> {
    let (version, folder, top) = match locate(root, sys_root, pid, controller) {
        Err(CgroupError::NotMounted(_, path)) if path == "/" && sees_top(root) => {
            return Ok(Tightest { folder: path.into(), limit: None });
        }
        located => located?,
    };
    let mut limit: Option<CgroupLimit> = None;
    let mut any = false;
    for at in folder.ancestors().take_while(|at| at.starts_with(&top)) {
        for &(file, usage, property) in controller.files(version) {
            let (file, usage) = (at.join(file), at.join(usage));
            let Some(here) = read_limit(&file)? else { continue };
            any = true;
            let Some(bound) = here else { continue };
            let reclaimable =
                controller.reclaimable(version).map_or(0, |key| statistic(at, key));
            let used = read_number(&usage)?.saturating_sub(reclaimable);
            let found = CgroupLimit { limit: bound, used, file, property };
            if limit.as_ref().is_none_or(|known| found.room() < known.room()) {
                limit = Some(found);
            }
        }
    }
    if !any && !folder.is_dir() {
        return Err(CgroupError::File(folder, io::ErrorKind::NotFound.into()));
    }
    Ok(Tightest { folder, limit })
}

/// The folder of the process's cgroup, and that of the highest one that can be seen.
fn locate(
    root: &ProcRoot,
    sys_root: &Path,
    pid: &str,
    controller: Controller,
) -> Result<(Version, PathBuf, PathBuf), CgroupError> {
    let file = format!("{pid}/cgroup");
    let groups = root.read(&file).map_err(CgroupError::Proc)?;
    let groups = ProcessCGroups::from_buf_read(groups.as_bytes())
        .map_err(|error| CgroupError::Proc(root.malformed(&file, &error.to_string())))?;
    let mounts = root.read("self/mountinfo").map_err(CgroupError::Proc)?;
    let mounts = cgroup_mounts(&mounts);
    let is_v1 = |group: &&procfs::ProcessCGroup| {
        group.controllers.iter().any(|name| name == controller.name())
    };
    let v1 = groups.0.iter().find(is_v1).map(|group| (Version::V1, group));
    let v2 = groups
        .0
        .iter()
        .find(|group| group.hierarchy == 0 && group.controllers.is_empty());
    let found = v1.or(v2.map(|group| (Version::V2, group)));
    let (version, group) = found.ok_or(CgroupError::NoController(controller))?;
    let here: Vec<&MountInfo> = mounts
        .iter()
        .filter(|mount| match version {
            Version::V1 => {
                mount.fs_type == "cgroup"
                    && mount.super_options.contains_key(controller.name())
            }
            Version::V2 => mount.fs_type == "cgroup2",
        })
        .collect();
    if here.is_empty() {
        return Err(CgroupError::NotMounted(controller, group.pathname.clone()));
    }
    let path = Path::new(&group.pathname);
    let relative = |mount: &&MountInfo| {
        let within = path.strip_prefix(unescaped(&mount.root)).ok()?;
        let climbs = within.components().any(|part| part.as_os_str() == "..");
        let at = unescaped(&mount.mount_point.to_string_lossy());
        (!climbs).then(|| (PathBuf::from(at), within.to_owned()))
    };
    let (at, within) = here
        .iter()
        .find_map(relative)
        .ok_or_else(|| CgroupError::Outside(group.pathname.clone()))?;
    let top = sys_root.join(at.strip_prefix("/").unwrap_or(&at));
    Ok((version, top.join(within), top))
}

/// Whether / is the cgroup at the very top, which has no limits: it is where this process
/// is in the first cgroup namespace (PROC_CGROUP_INIT_INO, linux/proc_ns.h).
fn sees_top(root: &ProcRoot) -> bool {
    let link = fs::read_link(root.path("self/ns/cgroup"));
    link.is_ok_and(|link| link.as_os_str() == "cgroup:[4026531835]")
}

/// The lines of a mountinfo that are of cgroups.
fn cgroup_mounts(mountinfo: &str) -> Vec<MountInfo> {
    let of_cgroups = |line: &&str| {
        line.split_once(" - ").is_some_and(|(_, kind)| kind.starts_with("cgroup"))
    };
    let parse = |line| MountInfos::from_buf_read(str::as_bytes(line)).ok();
    mountinfo.lines().filter(of_cgroups).filter_map(parse).flatten().collect()
}

/// A path of mountinfo, in which a space, a tab, a newline and a backslash are octal.
fn unescaped(path: &str) -> String {
    const ESCAPES: [(&str, &str); 4] =
        [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    ESCAPES.iter().fold(path.to_owned(), |path, (from, to)| path.replace(from, to))
}

/// A limit: None where this cgroup has no such file (the root of version 2 has none),
/// Some(None) where it is set to no limit.
fn read_limit(file: &Path) -> Result<Option<Option<u64>>, CgroupError> {
    /// Version 1 writes PAGE_COUNTER_MAX for none: 2^63 rounded down to a page, of up to
    /// 64 KiB.
    const NONE: u64 = (1 << 63) - (64 << 10);
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| CgroupError::File(file.to_owned(), error))?,
    };
    match text.trim() {
        "max" => Ok(Some(None)),
        number => {
            let limit = parse(file, number)?;
            Ok(Some((limit < NONE).then_some(limit)))
        }
    }
}

fn read_number(file: &Path) -> Result<u64, CgroupError> {
    let text = fs::read_to_string(file)
        .map_err(|error| CgroupError::File(file.to_owned(), error))?;
    parse(file, text.trim())
}

fn parse(file: &Path, number: &str) -> Result<u64, CgroupError> {
    number.parse().map_err(|_| {
        let error = io::Error::new(io::ErrorKind::InvalidData, "not one number");
        CgroupError::File(file.to_owned(), error)
    })
}

/// A number of memory.stat; 0 where it cannot be read, so that room is not overstated.
fn statistic(folder: &Path, key: &str) -> u64 {
    let text = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let found = lines.find(|(name, _)| *name == key);
    found.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
