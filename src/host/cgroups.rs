//! Control groups of v2 (cgroups(7)) by the ids that sock_diag(7) gives.
//!
//! The id of a control group is the inode number of its folder.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use crate::kernel::cgroup;

/// Where the hierarchy of v2 is mounted: alone, or beside those of v1.
const MOUNTS: [&str; 2] = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];
/// How long after a walk an id that it did not meet is not looked for again.
const STALE: Duration = Duration::from_secs(1);
/// Depth of folders at which a walk ends; the kernel has no limit of its own.
const DEEPEST: usize = 64;

/// Finds the paths of control groups by their ids, and keeps what it found. With
/// CAP_DAC_READ_SEARCH the kernel is asked for each id; without, all folders are walked
/// when the first id is asked for, and again at most once a second for one that the last
/// walk did not meet.
#[derive(Debug)]
pub struct CgroupNames {
    mount: PathBuf,
    folder: OwnedFd,
    by_id: HashMap<u64, Option<Box<str>>>,
    may_ask: bool,
    walked: Option<Instant>,
}

impl CgroupNames {
    /// The hierarchy of v2 of the system at `root`, which is `/`.
    ///
    /// # Errors
    /// NotFound where none is mounted in the usual places.
    pub fn find(root: &Path) -> io::Result<Self> {
        let mount = MOUNTS
            .iter()
            .map(|mount| root.join(mount))
            .find(|mount| rustix::fs::statfs(mount).is_ok_and(|fs| cgroup::is_v2(&fs)));
        let nowhere = || {
            let text =
                "no cgroup v2 is mounted at /sys/fs/cgroup or /sys/fs/cgroup/unified";
            io::Error::new(io::ErrorKind::NotFound, text)
        };
        Self::at(&mount.ok_or_else(nowhere)?)
    }

    /// The hierarchy that is mounted at `mount`, or a fixture tree.
    ///
    /// # Errors
    /// What opening the folder gives.
    pub fn at(mount: &Path) -> io::Result<Self> {
        let mount = mount.canonicalize()?;
        let folder = open_folder(rustix::fs::CWD, &mount)?;
        let may_ask = rustix::fs::fstatfs(&folder).is_ok_and(|fs| cgroup::is_v2(&fs));
        Ok(Self { mount, folder, by_id: HashMap::new(), may_ask, walked: None })
    }

    /// The path of a control group below the mount, `/` for the first; None where it has
    /// been removed (a socket may live longer), or may not be seen.
    pub fn path_of(&mut self, id: u64) -> Option<&str> {
        if matches!(self.by_id.get(&id), Some(Some(_))) {
            return self.by_id.get(&id)?.as_deref();
        }
        if !self.by_id.contains_key(&id) && self.may_ask {
            match self.ask(id) {
                Ok(path) => {
                    self.by_id.insert(id, path);
                    return self.by_id.get(&id)?.as_deref();
                }
                Err(_) => self.may_ask = false,
            }
        }
        if !self.may_ask && self.walked.is_none_or(|walked| walked.elapsed() >= STALE) {
            self.walk();
        }
        self.by_id.get(&id)?.as_deref()
    }

    /// The id of a control group, by its path below the mount (`/system.slice`) or by
    /// that of its folder.
    ///
    /// # Errors
    /// What stat(2) gives: NotFound where there is none.
    pub fn id_of(&self, path: &str) -> io::Result<u64> {
        let path = Path::new(path);
        let below = path.strip_prefix(&self.mount).unwrap_or(path);
        let below = below.strip_prefix("/").unwrap_or(below);
        let flags = rustix::fs::AtFlags::empty();
        let found = if below.as_os_str().is_empty() {
            rustix::fs::fstat(&self.folder)
        } else {
            rustix::fs::statat(&self.folder, below, flags)
        }?;
        let is_folder = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        if is_folder {
            Ok(found.st_ino)
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    }

    /// Asks the kernel; an error says that it may not be asked.
    fn ask(&self, id: u64) -> io::Result<Option<Box<str>>> {
        let folder = match cgroup::open_by_id(self.folder.as_fd(), id) {
            Ok(folder) => folder,
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => return Ok(None),
            Err(error) => return Err(error),
        };
        let link =
            format!("/proc/thread-self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&folder));
        let path = std::fs::read_link(link)?;
        // Out of reach of a mount that shows a part of the hierarchy, it has no path.
        Ok(path.strip_prefix(&self.mount).ok().map(shown))
    }

    fn walk(&mut self) {
        // An id that has gone may be given to a new one only after 2^32 others.
        self.by_id.retain(|_, path| path.is_some());
        if let Ok(first) = rustix::fs::fstat(&self.folder) {
            self.by_id.insert(first.st_ino, Some("/".into()));
        }
        let mut waiting = vec![PathBuf::new()];
        while let Some(at) = waiting.pop() {
            let here = if at.as_os_str().is_empty() { Path::new(".") } else { &at };
            let Ok(folder) = open_folder(&self.folder, here) else { continue };
            let by_id = &mut self.by_id;
            let _ = each_folder(&folder, |name, id| {
                let below = at.join(OsStr::from_bytes(name));
                by_id.insert(id, Some(shown(&below)));
                if below.components().count() < DEEPEST {
                    waiting.push(below);
                }
            });
        }
        self.walked = Some(Instant::now());
    }
}

fn shown(below: &Path) -> Box<str> {
    format!("/{}", below.display()).into()
}

fn open_folder(at: impl AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, path, flags, Mode::empty())
}

/// The folders in an open one, with their inode numbers, which reading it gives.
fn each_folder(folder: &OwnedFd, mut each: impl FnMut(&[u8], u64)) -> Result<(), Errno> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 16 << 10];
    let mut entries = RawDir::new(folder, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if entry.file_type() == FileType::Directory && !matches!(name, b"." | b"..") {
            each(name, entry.ino());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use std::os::unix::fs::MetadataExt;

    fn fixture() -> (tempfile::TempDir, CgroupNames) {
        let tree = tempfile::tempdir().unwrap();
        for folder in ["system.slice/a.service", "system.slice/b.service/c", "user.slice"]
        {
            std::fs::create_dir_all(tree.path().join(folder)).unwrap();
        }
        std::fs::write(tree.path().join("system.slice/cgroup.procs"), "").unwrap();
        let names = CgroupNames::at(tree.path()).unwrap();
        (tree, names)
    }

    #[test]
    fn ids_and_paths_lead_to_each_other() {
        let (tree, mut names) = fixture();
        for path in ["/", "/system.slice", "/system.slice/b.service/c", "/user.slice"] {
            let folder = tree.path().join(path.trim_start_matches('/'));
            let id = std::fs::metadata(&folder).unwrap().ino();
            assert_eq!(names.id_of(path).unwrap(), id);
            assert_eq!(names.id_of(&folder.display().to_string()).unwrap(), id);
            assert_eq!(names.path_of(id), Some(path));
        }
    }

    #[test]
    fn what_is_no_control_group_is_an_error() {
        let (_tree, mut names) = fixture();
        let error = names.id_of("/nowhere").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let error = names.id_of("/system.slice/cgroup.procs").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
        assert_eq!(names.path_of(u64::MAX), None);
        assert!(CgroupNames::find(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn a_control_group_that_came_after_the_walk_is_found() {
        let (tree, mut names) = fixture();
        assert_eq!(names.path_of(u64::MAX), None, "walked");
        std::fs::create_dir(tree.path().join("late.slice")).unwrap();
        let id = names.id_of("/late.slice").unwrap();
        let found = crate::sockets::testing::wait_for("the next walk", || {
            names.path_of(id).map(str::to_owned)
        });
        assert_eq!(found, "/late.slice");
    }

    #[test]
    fn the_kernel_s_own_hierarchy_is_asked_and_walked_with_one_result() {
        let Ok(mut asks) = CgroupNames::find(Path::new("/")) else {
            return testing::lacking("cgroup v2");
        };
        let name = format!("sockscope-test-{}", std::process::id());
        let folder = asks.mount.join(&name);
        if let Err(error) = std::fs::create_dir(&folder) {
            return testing::lacking(&format!("a control group of its own: {error}"));
        }
        let inner = folder.join("in ner");
        std::fs::create_dir(&inner).unwrap();
        let path = format!("/{name}/in ner");
        let id = asks.id_of(&path).unwrap();
        let asked = asks.path_of(id).map(str::to_owned);
        let mut walks =
            CgroupNames { may_ask: false, ..CgroupNames::at(&asks.mount).unwrap() };
        let walked = walks.path_of(id).map(str::to_owned);
        let may_ask = asks.may_ask;
        std::fs::remove_dir(&inner).unwrap();
        std::fs::remove_dir(&folder).unwrap();
        let mut later = CgroupNames::at(&asks.mount).unwrap();
        assert_eq!(later.path_of(id), None, "it is gone");
        assert_eq!(asked.as_deref(), Some(path.as_str()));
        assert_eq!(walked, asked);
        assert!(may_ask || !testing::is_root(), "root may ask");
    }
}
