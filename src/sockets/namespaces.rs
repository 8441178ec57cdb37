//! The network namespaces that can be seen from here, each once, and what to call them.
//!
//! A namespace lives while a process or thread is in it, while a file is mounted on it
//! (`ip netns`, Docker), or while a descriptor or socket holds it. The first two are
//! looked through; of one that only a descriptor holds nothing tells.

mod search;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use self::search::{Search, is_gone, names_in};
use super::model::Comm;
use super::source::Lack;
use crate::host::ProcRoot;
use crate::host::container::{Names, Workload};
use crate::host::text::printable;
use crate::kernel::netns::Netns;

/// Names that an error lists.
const LISTED: usize = 8;

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    /// What identifies it: the number in `readlink /proc/PID/ns/net`.
    pub inode: u64,
    /// What to call it.
    pub label: Label,
    /// Every name that a file was given for it, `ip netns`'s first.
    pub names: Vec<String>,
    /// The process or thread in it that has the lowest number.
    pub resident: Option<Resident>,
    /// Whether the calling thread is in it.
    pub is_current: bool,
    /// An open handle, which keeps it.
    pub netns: Netns,
}

/// Who is in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// The process.
    pub pid: u32,
    /// Its thread: `pid` for the first, else one that left its process's namespace.
    pub tid: u32,
    /// The name of that thread.
    pub comm: Comm,
}

/// What a namespace is called: the first of these that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Label {
    /// Its name, as `ip netns` has it.
    Name(String),
    /// The container or pod of its resident.
    Workload(Workload),
    /// Its resident.
    Resident(Resident),
    /// The name of its file, which a program made up (Docker's sandboxes).
    File(String),
    /// None of these: its inode.
    Inode(u64),
}

/// On one line, with what does not print escaped.
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) | Self::File(name) => f.write_str(&printable(name)),
            Self::Workload(workload) => workload.fmt(f),
            Self::Resident(Resident { pid, tid, comm }) if pid == tid => {
                write!(f, "pid {pid} ({comm})")
            }
            Self::Resident(Resident { pid, tid, comm }) => {
                write!(f, "pid {pid} thread {tid} ({comm})")
            }
            Self::Inode(inode) => write!(f, "net:[{inode}]"),
        }
    }
}

/// The namespaces that were found.
#[derive(Debug, Default)]
pub struct Visible {
    /// The current one first, then those with names, then by their residents.
    pub namespaces: Vec<Namespace>,
    /// What could not be looked at, and why.
    pub lacking: Vec<Lack>,
}

/// Where namespaces are looked for.
#[derive(Debug, Clone)]
pub struct Places {
    /// Processes.
    pub proc: ProcRoot,
    /// The folder of `ip netns`.
    pub named: PathBuf,
    /// Folders of container runtimes, whose names of files nobody chose.
    pub made_up: Vec<PathBuf>,
    /// The root below which container runtimes keep names ([`Names`]).
    pub root: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            proc: ProcRoot::default(),
            named: "/run/netns".into(),
            made_up: vec!["/run/docker/netns".into()],
            root: "/".into(),
        }
    }
}

/// Why a namespace could not be had.
#[derive(Debug, thiserror::Error)]
pub enum NoNamespace {
    /// Nothing has this name.
    #[error("no network namespace is called '{name}'; {known}")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// Those that there are, in words.
        known: String,
    },
    /// There is no such process.
    #[error("no process has the id {pid}")]
    NoProcess {
        /// The id that was asked for.
        pid: u32,
    },
    /// It is there and may not be opened.
    #[error(
        "the network namespace of {whose} may not be opened: run as root, or as the \
         user whose it is"
    )]
    NotPermitted {
        /// `process 4711`, or the path of a file.
        whose: String,
    },
    /// The file is something else, or cannot be opened.
    #[error(
        "'{path}' is no network namespace{why}; one is /run/netns/NAME or \
         /proc/PID/ns/net"
    )]
    NoFile {
        /// The path that was asked for.
        path: String,
        /// What was met, in brackets; nothing where it is a file of another kind.
        why: String,
    },
}

impl Places {
    /// Every namespace of a file or of a process or thread that may be seen here. Each
    /// process costs a readlink(2), and so does each thread of one that has several, for
    /// a thread can leave its process's namespace (setns(2)).
    ///
    /// # Errors
    /// Where the current namespace or the list of processes cannot be read.
    pub fn visible(&self) -> io::Result<Visible> {
        let mut search = Search::default();
        let current = Netns::current()?;
        let current_inode = current.inode()?;
        search.add(current_inode, current);
        search.files(&self.named, true);
        for folder in &self.made_up {
            search.files(folder, false);
        }
        search.processes(&self.proc)?;
        let mut names = Names::new(&self.root);
        let (mut namespaces, lacking) =
            search.into_labelled(&self.proc, &mut names, current_inode);
        namespaces.sort_by(|one, other| order(one).cmp(&order(other)));
        Ok(Visible { namespaces, lacking })
    }

    /// The namespace that a user names: by a name of `ip netns`, by a process's id, or by
    /// the path of a file. (What is only digits is a process if there is one.)
    ///
    /// # Errors
    /// [`NoNamespace`], which says what would be right.
    pub fn resolve(&self, spec: &str) -> Result<Netns, NoNamespace> {
        if spec.contains('/') {
            return Netns::at(Path::new(spec)).map_err(|error| no_file(spec, &error));
        }
        let pid = spec.parse::<u32>().ok();
        if let Some(pid) = pid {
            match Netns::at(&self.proc.path(&format!("{pid}/ns/net"))) {
                Ok(netns) => return Ok(netns),
                Err(error) if is_gone(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    let whose = format!("process {pid}");
                    return Err(NoNamespace::NotPermitted { whose });
                }
                Err(error) => return Err(no_file(spec, &error)),
            }
        }
        let is_name = !spec.is_empty() && spec != "." && spec != "..";
        let file = self.named.join(spec);
        match Netns::at(&file) {
            Ok(netns) if is_name => Ok(netns),
            Err(error) if is_name && error.kind() != io::ErrorKind::NotFound => {
                Err(no_file(&file.display().to_string(), &error))
            }
            _ => match pid {
                Some(pid) => Err(NoNamespace::NoProcess { pid }),
                None => Err(NoNamespace::Unknown {
                    name: printable(spec),
                    known: self.known(),
                }),
            },
        }
    }

    /// The names that there are, in words.
    fn known(&self) -> String {
        let mut names: Vec<String> = names_in(&self.named).unwrap_or_default();
        if names.is_empty() {
            return "none has a name ('ip netns add NAME' makes one); a process's id will \
                    do, or the path of a file"
                .to_owned();
        }
        names.sort_unstable();
        let more = names.len().saturating_sub(LISTED);
        let listed: Vec<String> =
            names.iter().take(LISTED).map(|name| printable(name)).collect();
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        format!("there are {}{more}", listed.join(", "))
    }
}

fn no_file(path: &str, error: &io::Error) -> NoNamespace {
    let path = printable(path);
    if error.kind() == io::ErrorKind::PermissionDenied {
        return NoNamespace::NotPermitted { whose: path };
    }
    let why = match error.kind() {
        io::ErrorKind::InvalidInput => String::new(),
        _ => format!(" ({error})"),
    };
    NoNamespace::NoFile { path, why }
}

fn order(namespace: &Namespace) -> (bool, bool, Option<&String>, u32, u64) {
    let has_name = matches!(namespace.label, Label::Name(_));
    let name = namespace.names.first().filter(|_| has_name);
    let pid = namespace.resident.map_or(u32::MAX, |resident| resident.pid);
    (!namespace.is_current, !has_name, name, pid, namespace.inode)
}

#[cfg(test)]
mod tests;
