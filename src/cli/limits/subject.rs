//! Whose limits are asked about: this shell's, a process's, or those of the server that
//! listens somewhere.

use std::io;
use std::path::Path;

use crate::cli::exit::Failure;
use crate::host::ProcRoot;
use crate::host::ceilings::Backlog;
use crate::host::process::{ProcessError, ProcessView, own_view, view};
use crate::kernel::netns::Netns;
use crate::render::escaped;
use crate::sockets::listeners::{self, ListenAt, Listener};
use crate::sockets::target::{Endpoint, Target};
use crate::sockets::watch::ListenerWatch;

/// Whose limits.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) kind: Kind,
    /// The process; the first of several that share a listener.
    pub(super) process: Option<ProcessView>,
    /// All fd tables that hold the listener.
    pub(super) tables: Vec<ProcessView>,
    /// Why no process could be read.
    pub(super) hidden: Option<String>,
    /// Its network namespace, where that is not ours.
    pub(super) netns: Option<Netns>,
    /// Why its network namespace cannot be looked into.
    pub(super) hidden_network: Option<String>,
    /// Where it listens.
    pub(super) address: Option<String>,
    pub(super) listeners: Vec<Backlog>,
    pub(super) is_unix: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Shell,
    Process,
    Server,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Process => "process",
            Self::Server => "server",
        }
    }
}

impl Subject {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            process: None,
            tables: Vec::new(),
            hidden: None,
            netns: None,
            hidden_network: None,
            address: None,
            listeners: Vec::new(),
            is_unix: false,
        }
    }

    /// The shell that started this program. Its limits are what this program has itself,
    /// as long as that raises none. Where the parent is in another pid namespace (`docker
    /// exec`), this process stands for it.
    pub(super) fn shell(root: &ProcRoot) -> Self {
        let parent = rustix::process::getppid()
            .and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok());
        let shell = parent.and_then(|pid| view(root, pid, pid).ok());
        let mut subject = Self::new(Kind::Shell);
        subject.process = shell.or_else(|| own_view(root).ok());
        if subject.process.is_none() {
            subject.hidden = Some("this /proc does not show this process".to_owned());
        }
        subject
    }

    /// A process by its number.
    pub(super) fn process(root: &ProcRoot, pid: u32) -> Result<Self, Failure> {
        let mut subject = Self::new(Kind::Process);
        match view(root, pid, pid) {
            Ok(process) => subject.process = Some(process),
            Err(ProcessError::Vanished { .. }) => {
                let hint = "(or one that this /proc hides)";
                return Err(Failure::usage(format!("no process {pid} here {hint}")));
            }
            Err(error) => subject.hidden = Some(error.to_string()),
        }
        subject.find_netns(root, pid);
        Ok(subject)
    }

    fn find_netns(&mut self, root: &ProcRoot, pid: u32) {
        let link = |who: &str| std::fs::read_link(root.path(&format!("{who}/ns/net")));
        let ours = link("self").or_else(|_| link("thread-self"));
        let other = match (ours, link(&pid.to_string())) {
            (Ok(ours), Ok(theirs)) if ours == theirs => return,
            (_, Ok(_)) => {
                Netns::open(&root.path(&format!("{pid}/ns/net")).to_string_lossy())
            }
            // A fixture tree has none.
            (Err(_), Err(_)) => return,
            (Ok(_), Err(error)) => Err(error),
        };
        match other.and_then(|netns| netns.run(|| ()).map(|()| netns)) {
            Ok(netns) => self.netns = Some(netns),
            Err(error) => {
                let why = format!("the network namespace of pid {pid}: {error}");
                self.hidden_network = Some(why);
            }
        }
    }

    /// The server that listens on a target of this host.
    pub(super) fn server(root: &ProcRoot, target: &Target) -> Result<Self, Failure> {
        let mut watch = attach(root, target)?;
        watch.look_for_owners();
        let mut subject = Self::new(Kind::Server);
        subject.is_unix = matches!(watch.endpoint(), Endpoint::Unix(_));
        subject.address = watch.address();
        subject.listeners = watch.listeners().iter().map(backlog).collect();
        subject.tables = watch.processes().collect();
        subject.process = subject.tables.first().cloned();
        if subject.process.is_none() {
            let uid = watch.hidden_owner().map(|uid| format!(" (uid {uid})"));
            let uid = uid.unwrap_or_default();
            let why = format!("the process that listens is not permitted to read{uid}");
            subject.hidden = Some(why);
        }
        Ok(subject)
    }

    /// Runs `f` in its network namespace.
    pub(super) fn inside<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        match &self.netns {
            Some(netns) => netns.run(f),
            None => Ok(f()),
        }
    }

    /// `from this shell`, `in api[4711]`, `at 127.0.0.1:80, api[4711]`.
    pub(super) fn phrase(&self) -> String {
        let named = self.process.as_ref().map(|process| {
            let more = self.tables.len().saturating_sub(1);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{}[{}]{more}", escaped(&process.comm), process.pid)
        });
        match (self.kind, named, &self.address) {
            (Kind::Shell, ..) => "from this shell".to_owned(),
            (_, Some(named), Some(at)) => format!("at {}, {named}", escaped(at)),
            (_, None, Some(at)) => format!("at {}", escaped(at)),
            (_, Some(named), None) => format!("in {named}"),
            (_, None, None) => "in that process".to_owned(),
        }
    }
}

fn backlog(listener: &Listener) -> Backlog {
    Backlog {
        address: match &listener.at {
            ListenAt::Inet(address) => address.to_string(),
            ListenAt::Unix(name, _) => format!("unix:{name}"),
        },
        backlog: listener.backlog.into(),
        queue_len: listener.queue_len.into(),
    }
}

/// The listener at the first of a target's addresses that has one; of a port of this
/// host, whatever listens on it.
fn attach(root: &ProcRoot, target: &Target) -> Result<ListenerWatch, Failure> {
    let at = |endpoint: &Endpoint| {
        ListenerWatch::attach(endpoint, None, root.clone()).map_err(Failure::lacking)
    };
    let mut first = None;
    for endpoint in target.resolve().map_err(Failure::usage)? {
        let watch = at(&endpoint)?;
        if !watch.listeners().is_empty() {
            return Ok(watch);
        }
        first.get_or_insert(watch);
    }
    let mut first = first.ok_or_else(|| Failure::usage("the target has no address"))?;
    if let Target::Tcp { host, port } | Target::Http { host, port, .. } = target
        && host == "localhost"
    {
        let all = listeners::inet(first.diag()).map_err(Failure::lacking)?;
        let of_port = all.iter().find_map(|listener| match listener.at {
            ListenAt::Inet(address) if address.port() == *port => Some(address),
            _ => None,
        });
        if let Some(address) = of_port {
            return at(&Endpoint::Tcp(address));
        }
    }
    let nobody = anyhow::anyhow!("nothing listens on {} here", first.endpoint());
    Err(Failure::lacking(nobody))
}

/// Whether a tree is the /proc of this host.
pub(super) fn is_live(proc_root: &Path) -> bool {
    proc_root == Path::new("/proc")
}
