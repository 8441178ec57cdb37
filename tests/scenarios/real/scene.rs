//! A server of a scenario at work, and the namespaces around it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};

use tempfile::TempDir;

use super::cgroup::Cgroup;
use super::{Scenario, User};
use crate::fixtures::netns::Netns;
use crate::fixtures::rights::{NOBODY, lacking};
use crate::fixtures::until;

/// Port 2000 as /proc/net/tcp writes it.
const PORT: &str = ":07D0";
const LISTEN: &str = "0A";
const ESTABLISHED: &str = "01";

/// A server that listens on port 2000 of its own namespace, and a namespace for clients
/// that see no more of it than its packets. Both end with this value.
pub(crate) struct Scene {
    child: Child,
    pub(crate) client: Netns,
    pub(crate) server: Netns,
    _folder: TempDir,
    cgroup: Option<Cgroup>,
}

impl Scene {
    /// Starts the server with this limit and waits until it listens. None after a printed
    /// line where that cannot be.
    pub(super) fn of(scenario: &Scenario, limit: &str) -> Option<Self> {
        let (client, server) = Netns::linked()?;
        let cgroup = match scenario.cgroup {
            true => Some(Cgroup::make()?),
            false => None,
        };
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().to_str().unwrap();
        let filled = |text: &str| {
            let program = env!("CARGO_BIN_EXE_sockscope");
            let text = text.replace("{dir}", dir).replace("{limit}", limit);
            text.replace("{sockscope}", program)
        };
        for (name, text) in scenario.files {
            fs::write(folder.path().join(name), filled(text)).unwrap();
        }
        give_to(scenario.user, folder.path());
        let words = |words: &[&str]| words.iter().map(|word| filled(word)).collect();
        for command in scenario.prepare {
            let command: Vec<String> = words(command);
            run(scenario.user, &server, &command)?;
        }
        let log = folder.path().join("log");
        let command: Vec<String> = words(scenario.command);
        if !is_there(&command[0]) {
            lacking(&command[0]);
            return None;
        }
        let child = start(scenario.user, &server, &command, &log);
        let mut scene = Self { child, client, server, _folder: folder, cgroup };
        (scenario.arrange)(&scene);
        until(&format!("{scenario} listens"), || {
            let ended = scene.child.try_wait().unwrap();
            let log = || fs::read_to_string(&log).unwrap();
            assert!(ended.is_none(), "{scenario}: {ended:?}: {}", log());
            scene.count(LISTEN) > 0
        });
        Some(scene)
    }

    /// Lets the server have so many threads and processes.
    pub(super) fn bound_tasks(&self, max: u32) {
        let pid = self.child.id();
        let children = format!("/proc/{pid}/task/{pid}/children");
        let mut server = String::new();
        until("it has started", || {
            server = fs::read_to_string(&children).unwrap_or_default();
            !server.is_empty()
        });
        self.cgroup.as_ref().unwrap().take(server.trim(), max);
    }

    /// Waits until the server has closed what the last probe held.
    pub(super) fn is_idle(&self) {
        until("the server has no connections", || self.count(ESTABLISHED) == 0);
    }

    /// Its sockets of a state.
    fn count(&self, state: &str) -> usize {
        let tables = self.server.inside(|| {
            ["tcp", "tcp6"].map(|table| {
                fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap()
            })
        });
        let rows = tables.iter().flat_map(|table| table.lines());
        let is_one = |row: &&str| {
            let mut fields = row.split_whitespace();
            let local = fields.nth(1).is_some_and(|local| local.ends_with(PORT));
            local && fields.nth(1) == Some(state)
        };
        rows.filter(is_one).count()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // What it started dies with its process namespace. It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a command is installed; `sh` and paths are.
fn is_there(program: &str) -> bool {
    let folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/bin"];
    program.starts_with('/')
        || folders.iter().any(|folder| Path::new(folder).join(program).exists())
}

fn give_to(user: User, folder: &Path) {
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    if user == User::Nobody {
        let id = NOBODY.parse().unwrap();
        for entry in fs::read_dir(folder).unwrap() {
            std::os::unix::fs::chown(entry.unwrap().path(), Some(id), Some(id)).unwrap();
        }
        std::os::unix::fs::chown(folder, Some(id), Some(id)).unwrap();
    }
}

/// The options of setpriv(1) for that user.
fn as_user(command: &mut Command, user: User) {
    if user == User::Nobody {
        let [user, group] = ["--reuid", "--regid"].map(|of| format!("{of}={NOBODY}"));
        command.args(["setpriv", &user, &group, "--clear-groups"]);
    }
}

/// Runs a command to its end. None after a printed line where it is missing.
fn run(user: User, netns: &Netns, words: &[String]) -> Option<()> {
    if !is_there(&words[0]) {
        lacking(&words[0]);
        return None;
    }
    let mut command = netns.command("env");
    as_user(&mut command, user);
    let done = command.args(words).output().unwrap();
    assert!(done.status.success(), "{words:?}: {done:?}");
    Some(())
}

/// Starts it in a namespace of processes, and of System V shared memory, which PostgreSQL
/// has: what it starts and makes ends with it; and it ends
/// with this thread.
fn start(user: User, netns: &Netns, words: &[String], log: &Path) -> Child {
    let mut command = netns.command("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    command.args(["unshare", "--pid", "--ipc", "--fork", "--kill-child=KILL"]);
    as_user(&mut command, user);
    let log = File::create(log).unwrap();
    command.args(words).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}
