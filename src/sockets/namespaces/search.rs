//! Looking for namespaces in folders of files and in /proc.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;

use super::{Label, Namespace, Resident};
use crate::host::ProcRoot;
use crate::host::container::{Names, Workload};
use crate::host::text::printable;
use crate::kernel::netns::Netns;
use crate::sockets::model::Comm;
use crate::sockets::owners::is_kernel_or_dead;
use crate::sockets::source::Lack;

/// A namespace before it has a label.
#[derive(Debug)]
struct Found {
    inode: u64,
    names: Vec<String>,
    made_up: Vec<String>,
    resident: Option<(u32, u32)>,
    netns: Netns,
}

impl Found {
    fn labelled(self, proc: &ProcRoot, known: &mut Names, is_current: bool) -> Namespace {
        let resident = self.resident.map(|(pid, tid)| Resident {
            pid,
            tid,
            comm: Comm::new(
                &std::fs::read(proc.path(&format!("{pid}/task/{tid}/comm")))
                    .unwrap_or_default(),
            ),
        });
        let label = if let Some(name) = self.names.first() {
            Label::Name(name.clone())
        } else if let Some(workload) =
            resident.and_then(|resident| container_of(proc, known, resident.pid))
        {
            Label::Workload(workload)
        } else if let Some(resident) = resident {
            Label::Resident(resident)
        } else if let Some(file) = self.made_up.first() {
            Label::File(file.clone())
        } else {
            Label::Inode(self.inode)
        };
        Namespace {
            inode: self.inode,
            label,
            names: self.names.into_iter().chain(self.made_up).collect(),
            resident,
            is_current,
            netns: self.netns,
        }
    }
}

/// The container that a process is in. A unit of the host is no label: its processes are
/// in the host's namespace as a rule.
pub(super) fn container_of(
    proc: &ProcRoot,
    names: &mut Names,
    pid: u32,
) -> Option<Workload> {
    let cgroup = std::fs::read(proc.path(&format!("{pid}/cgroup"))).ok()?;
    let mut workload = Workload::parse(&cgroup)?;
    workload.unit = None;
    names.complete(&mut workload);
    (workload.pod.is_some() || workload.container.is_some()).then_some(workload)
}

/// What went wrong, counted.
#[derive(Debug, Default)]
struct Trouble {
    /// Processes whose namespace may not be seen.
    denied: usize,
    /// Files that stand for no namespace: left when it went, or by a restart.
    stale: Vec<String>,
    /// Others, by what they say.
    other: Vec<Lack>,
}

impl Trouble {
    fn into_lacking(self) -> Vec<Lack> {
        let mut lacking = self.other;
        if self.denied > 0 {
            let why = if rustix::process::geteuid().is_root() {
                "not permitted, though to root (a security module, a user namespace?)"
            } else {
                "they belong to other users; root sees them"
            };
            let what = match self.denied {
                1 => "the network namespace of 1 process".to_owned(),
                n => format!("the network namespaces of {n} processes"),
            };
            lacking.push(Lack { what, why: why.to_owned() });
        }
        if let Some(first) = self.stale.first() {
            lacking.push(Lack {
                what: match self.stale.len() {
                    1 => first.clone(),
                    n => format!("{n} files, {first} the first"),
                },
                why: "no network namespace is mounted there (any more)".to_owned(),
            });
        }
        lacking
    }
}

#[derive(Debug, Default)]
pub(super) struct Search {
    found: Vec<Found>,
    at: HashMap<u64, usize>,
    trouble: Trouble,
}

impl Search {
    /// What was found, and what was not.
    pub(super) fn into_labelled(
        self,
        proc: &ProcRoot,
        names: &mut Names,
        current: u64,
    ) -> (Vec<Namespace>, Vec<Lack>) {
        let labelled = |found: Found| {
            let is_current = found.inode == current;
            found.labelled(proc, names, is_current)
        };
        let namespaces = self.found.into_iter().map(labelled).collect();
        (namespaces, self.trouble.into_lacking())
    }

    /// Adds a namespace that was opened; gives its place.
    pub(super) fn add(&mut self, inode: u64, netns: Netns) -> usize {
        *self.at.entry(inode).or_insert_with(|| {
            self.found.push(Found {
                inode,
                names: Vec::new(),
                made_up: Vec::new(),
                resident: None,
                netns,
            });
            self.found.len() - 1
        })
    }

    /// Adds the namespaces of the files in a folder, whose names a user chose or not.
    pub(super) fn files(&mut self, folder: &Path, are_chosen: bool) {
        let names = match names_in(folder) {
            Ok(names) => names,
            Err(error) if is_gone(&error) => return,
            Err(error) => {
                let what = format!("network namespaces in {}", folder.display());
                self.trouble.other.push(Lack { what, why: error.to_string() });
                return;
            }
        };
        for name in names {
            let path = folder.join(&name);
            let opened = Netns::at(&path).and_then(|netns| Ok((netns.inode()?, netns)));
            match opened {
                Ok((inode, netns)) => {
                    let at = self.add(inode, netns);
                    let Some(found) = self.found.get_mut(at) else { continue };
                    let names =
                        if are_chosen { &mut found.names } else { &mut found.made_up };
                    names.push(name);
                }
                Err(error) if is_gone(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.trouble.stale.push(printable(&path.display().to_string()));
                }
                Err(error) => {
                    let what = printable(&path.display().to_string());
                    self.trouble.other.push(Lack { what, why: error.to_string() });
                }
            }
        }
    }

    /// Adds those of all processes and threads.
    pub(super) fn processes(&mut self, proc: &ProcRoot) -> io::Result<()> {
        for pid in numbers_in(proc.as_path())? {
            let folder = proc.path(&pid.to_string());
            match self.task(&folder, pid, pid) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    let stat = std::fs::read(folder.join("stat"));
                    let has_none = stat.map_or(true, |stat| is_kernel_or_dead(&stat));
                    self.trouble.denied += usize::from(!has_none);
                    continue;
                }
                done => self.note(done, pid),
            }
            for tid in threads_in(&folder) {
                let done = self.task(&folder.join(format!("task/{tid}")), pid, tid);
                self.note(done, pid);
            }
        }
        Ok(())
    }

    /// Adds the namespace of a process or thread by its folder.
    fn task(&mut self, folder: &Path, pid: u32, tid: u32) -> io::Result<()> {
        let file = folder.join("ns/net");
        let mut link = [MaybeUninit::<u8>::uninit(); 64];
        let (link, _) = rustix::fs::readlinkat_raw(rustix::fs::CWD, &file, &mut link)?;
        let known = inode_in(link).and_then(|inode| self.at.get(&inode).copied());
        let at = if let Some(at) = known {
            at
        } else {
            // It may have moved or ended since: what counts is what was opened.
            let netns = Netns::at(&file)?;
            self.add(netns.inode()?, netns)
        };
        // A thread of the kernel's own says nothing of a namespace.
        if let Some(found) = self.found.get_mut(at)
            && found.resident.is_none()
            && !std::fs::read(folder.join("stat")).is_ok_and(|s| is_kernel_or_dead(&s))
        {
            found.resident = Some((pid, tid));
        }
        Ok(())
    }

    fn note(&mut self, done: io::Result<()>, pid: u32) {
        match done {
            Err(error) if !is_gone(&error) => {
                let what = format!("the network namespace of process {pid}");
                self.trouble.other.push(Lack { what, why: error.to_string() });
            }
            _ => {}
        }
    }
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// The number in `net:[N]`.
pub(super) fn inode_in(link: &[u8]) -> Option<u64> {
    let number = link.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

pub(super) fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let entries = std::fs::read_dir(folder)?;
    let names =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect::<io::Result<_>>()?;
    names.sort_unstable();
    Ok(names)
}

fn numbers_in(folder: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        numbers.extend(
            entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()),
        );
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The threads of a process beside its first, of those that have any.
fn threads_in(process: &Path) -> Vec<u32> {
    let task = process.join("task");
    // A folder has a link for each folder in it, for itself and for its parent.
    let one_alone = rustix::fs::stat(&task).is_ok_and(|task| task.st_nlink == 3);
    if one_alone {
        return Vec::new();
    }
    let mut tids = numbers_in(&task).unwrap_or_default();
    let name = process.file_name().and_then(|name| name.to_str());
    let pid = name.and_then(|name| name.parse::<u32>().ok());
    tids.retain(|tid| Some(*tid) != pid);
    tids
}
